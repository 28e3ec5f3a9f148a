/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * csvctl_event.c - what happened in the cluster, and what happens just now.
 */
#include "utils/tools/csvctl.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>

#define EVERY_MS 200

static enum rpc_code page(struct cc *cc, json_int_t after, json_int_t last)
{
	json_t *args = json_pack("{s:I, s:I}", "after", after, "last", last);

	if (cc_opt(cc, "vm") || cc_opt(cc, "node"))
		json_object_set_new(args, "object", json_string(cc_opt(cc, cc_opt(cc, "vm") ? "vm" : "node")));
	return cc_ask_migrator(cc, "event.list", args);
}

enum rpc_code cc_event_list(struct cc *cc)
{
	json_int_t after = 0, last = 100;
	enum rpc_code code = cc_opt_number(cc, "last", 1, 1000000, &last);

	if (!code)
		code = cc_opt_number(cc, "after", 0, INT64_MAX, &after);
	return code ? code : page(cc, after, last);
}

static void print_one(const struct cc *cc, const json_t *e)
{
	const char *command = json_string_value(json_object_get(e, "command"));

	if (cc->format == CC_JSON || cc->format == CC_JSONL) {
		json_dumpf(e, stdout, JSON_COMPACT);
		putchar('\n');
		return;
	}
	printf("%s  %-6s %-7s %-16s %s%s%s\n", json_string_value(json_object_get(e, "time")), json_string_value(json_object_get(e, "node")),
	       json_string_value(json_object_get(e, "level")), json_string_value(json_object_get(e, "object")),
	       json_string_value(json_object_get(e, "text")), command && *command ? "; " : "", command ? command : "");
}

/* Until a signal, the time limit (if one was given), or --count events were shown. */
enum rpc_code cc_event_watch(struct cc *cc)
{
	json_int_t after = -1, count = 0, shown = 0, waited_ms = 0;
	enum rpc_code code = cc_opt_number(cc, "count", 1, 1000000, &count);
	json_t *items, *e;
	size_t i;

	while (!code) {
		code = page(cc, after < 0 ? 0 : after, after < 0 ? 1 : 1000);
		if (code)
			break;
		items = json_object_get(cc->reply, "items");
		json_array_foreach(items, i, e) {
			if (after >= 0) {
				print_one(cc, e);
				shown++;
			}
			after = csv_max(after, json_integer_value(json_object_get(e, "seq")));
		}
		after = csv_max(after, (json_int_t)0);
		fflush(stdout);
		if (*cc->cancelled || (count && shown >= count) || (cc->timeout_given && waited_ms >= cc->timeout_ms))
			break;
		poll(NULL, 0, EVERY_MS);
		waited_ms += EVERY_MS;
	}
	/* Shown already. */
	json_object_set_new(cc->reply, "items", json_array());
	if (!code)
		exit(count && shown < count ? RPC_TIMEOUT : RPC_OK);
	return code;
}
