/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * csvctl_migration.c - live migrations.
 */
#include "utils/tools/csvctl.h"

static json_t *where_args(const struct cc *cc)
{
	json_t *args = json_pack("{s:s}", "vm", cc->arg[0]);

	if (cc_opt(cc, "to"))
		json_object_set_new(args, "to", json_string(cc_opt(cc, "to")));
	return args;
}

enum rpc_code cc_migration_start(struct cc *cc)
{
	return cc_run_job(cc, "migration.start", where_args(cc));
}

enum rpc_code cc_migration_list(struct cc *cc)
{
	return cc_ask_migrator(cc, "migration.list", json_object());
}

enum rpc_code cc_migration_show(struct cc *cc)
{
	return cc_ask_migrator(cc, "migration.show", json_pack("{s:s}", "id", cc->arg[0]));
}

enum rpc_code cc_migration_cancel(struct cc *cc)
{
	return cc_ask_migrator(cc, "migration.cancel", json_pack("{s:s, s:b}", "id", cc->arg[0], "dry_run", cc->dry_run));
}

enum rpc_code cc_migration_plan(struct cc *cc)
{
	return cc_ask_migrator(cc, "migration.plan", where_args(cc));
}
