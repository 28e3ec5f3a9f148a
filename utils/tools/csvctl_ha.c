/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * csvctl_ha.c - what is restarted by itself, and how that stands.
 */
#include "utils/tools/csvctl.h"

enum rpc_code cc_ha_status(struct cc *cc)
{
	return cc_ask_migrator(cc, "ha.status", json_object());
}

static enum rpc_code set(struct cc *cc, bool on)
{
	json_int_t priority = -1;
	enum rpc_code code = cc_opt_number(cc, "priority", 0, 255, &priority);
	json_t *args;

	if (code)
		return code;
	args = json_pack("{s:s, s:b}", "name", cc->arg[0], "ha", on);
	if (cc_opt(cc, "priority"))
		json_object_set_new(args, "priority", json_string(cc_opt(cc, "priority")));
	return cc_run_job(cc, "ha.set", args);
}

enum rpc_code cc_ha_enable(struct cc *cc)
{
	return set(cc, true);
}

enum rpc_code cc_ha_disable(struct cc *cc)
{
	return set(cc, false);
}
