/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * csvctl.h - the administrator's tool: one table of commands, from which come parsing, help, the manual page and completion.
 *
 * A command fills cc->reply (an rpc reply: code, message, kind, items, warnings, more keys); csvctl_out.c shows it.  Exit codes
 * are those of rpc_msg.h and keep their meaning for ever.
 */
#ifndef CSVFS_UTILS_TOOLS_CSVCTL_H
#define CSVFS_UTILS_TOOLS_CSVCTL_H

#include <jansson.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>

#include "utils/base/base.h"
#include "utils/base/err.h"
#include "utils/rpc/rpc_msg.h"

enum cc_format { CC_TABLE, CC_JSON, CC_JSONL, CC_NAME };
enum cc_type { CC_TEXT, CC_INT, CC_SIZE, CC_MS, CC_DATE, CC_BOOL, CC_LIST };

/* A column of the table; with its type also of the documentation of the JSON. */
struct cc_col { const char *key, *title; enum cc_type type; };
#define CC_OPTS_MAX 16
#define CC_VALUES_MAX 256
/*
 * --name ARG; arg NULL: a switch; arg "[=X]": a switch that may have a value; arg ends with "...": it may be given again and again
 * (cc_opt_nth).
 */
struct cc_opt { const char *name, *arg, *help; bool required; };

struct cc;
struct cc_cmd {
	const char *noun, *verb;
	const char *args;		/* "PATH", "[VOLUME...]", NULL */
	unsigned args_min, args_max;
	bool change;			/* has --dry-run */
	bool job;			/* long work: has --no-wait; the daemon's answer names a job */
	bool pairs;			/* the table shows one item as lines "key value" */
	bool paths;			/* the arguments are files (completion) */
	struct cc_opt opts[CC_OPTS_MAX];	/* ends with name NULL */
	struct cc_col cols[12];		/* the first names the item; ends with key NULL */
	const char *help;		/* one line */
	const char *text;		/* for the manual: more, or NULL */
	enum rpc_code (*run)(struct cc *cc);
};
extern const struct cc_cmd cc_cmds[];
extern const size_t cc_cmds_n;
extern const struct cc_opt cc_globals[];	/* ends with name NULL */
struct cc_code { enum rpc_code code; const char *text; };
extern const struct cc_code cc_codes[];
extern const size_t cc_codes_n;

struct cc {
	const struct cc_cmd *cmd;
	enum cc_format format;
	const char *arg[64];
	unsigned n_args;
	const char *opt[CC_OPTS_MAX];	/* value (the last one), or "" for a switch; NULL: not given; as cmd->opts */
	struct { unsigned opt; const char *value; } value[CC_VALUES_MAX];	/* all values in their order; opt: index into cmd->opts */
	unsigned n_values;
	bool dry_run, no_wait;
	int timeout_ms;
	bool timeout_given;
	bool progress;			/* standard error is a terminal */
	json_t *reply;			/* shown at the end; made by main */
	volatile sig_atomic_t *cancelled;
};
const char *cc_opt(const struct cc *cc, const char *name);
/* The i-th value of an option that may be repeated; NULL: there are not so many. */
const char *cc_opt_nth(const struct cc *cc, const char *name, unsigned i);
/* The value of an option that is a whole number; where it is not given *ret stays as it is. */
enum rpc_code cc_opt_number(struct cc *cc, const char *name, json_int_t min, json_int_t max, json_int_t *ret);
/* Error: message into the reply, and returns code. */
enum rpc_code cc_fail(struct cc *cc, enum rpc_code code, const char *fmt, ...) csv_printf_like(3, 4);

/* Of a clock that only goes forward. */
int64_t cc_now_ms(void);

/* csvctl_out.c */
void cc_print(const struct cc *cc);
/* csvctl_help.c */
void cc_help(FILE *out, const char *noun, const char *verb);
void cc_man(FILE *out);
void cc_completion(FILE *out);
void cc_schema(FILE *out);
/* csvctl_init.c, csvctl_bundle.c, csvctl_join.c, csvctl_validate.c */
enum rpc_code cc_cluster_init(struct cc *cc);
enum rpc_code cc_cluster_bundle(struct cc *cc);
enum rpc_code cc_cluster_join(struct cc *cc);
enum rpc_code cc_cluster_validate(struct cc *cc);
/* csvctl_cluster.c, csvctl_volume.c, csvctl_vhd.c */
enum rpc_code cc_cluster_status(struct cc *cc);
enum rpc_code cc_cluster_wait(struct cc *cc);
enum rpc_code cc_node_list(struct cc *cc);
enum rpc_code cc_node_confirm_fenced(struct cc *cc);
enum rpc_code cc_volume_list(struct cc *cc);
enum rpc_code cc_volume_show(struct cc *cc);
enum rpc_code cc_lock_list(struct cc *cc);
enum rpc_code cc_lock_show(struct cc *cc);
enum rpc_code cc_vhd_users(struct cc *cc);
enum rpc_code cc_vhd_create(struct cc *cc);
enum rpc_code cc_vhd_info(struct cc *cc);
enum rpc_code cc_vhd_check(struct cc *cc);
/* csvctl_job.c: what the coordinator (migratord) of this node is asked; `args` are taken. */
enum rpc_code cc_ask_migrator(struct cc *cc, const char *verb, json_t *args);
/* The same for work that goes on as a job: waits for its end with a progress bar, unless --no-wait. */
enum rpc_code cc_run_job(struct cc *cc, const char *verb, json_t *args);
bool cc_migrator_runs(const struct cc *cc);
/* csvctl_vm.c, csvctl_migration.c, csvctl_ha.c, csvctl_node.c, csvctl_event.c */
enum rpc_code cc_vm_create(struct cc *cc);
enum rpc_code cc_vm_start(struct cc *cc);
enum rpc_code cc_vm_stop(struct cc *cc);
enum rpc_code cc_vm_list(struct cc *cc);
enum rpc_code cc_vm_show(struct cc *cc);
enum rpc_code cc_vm_delete(struct cc *cc);
enum rpc_code cc_vm_console(struct cc *cc);
enum rpc_code cc_migration_start(struct cc *cc);
enum rpc_code cc_migration_list(struct cc *cc);
enum rpc_code cc_migration_show(struct cc *cc);
enum rpc_code cc_migration_cancel(struct cc *cc);
enum rpc_code cc_migration_plan(struct cc *cc);
enum rpc_code cc_ha_status(struct cc *cc);
enum rpc_code cc_ha_enable(struct cc *cc);
enum rpc_code cc_ha_disable(struct cc *cc);
enum rpc_code cc_node_drain(struct cc *cc);
enum rpc_code cc_node_resume(struct cc *cc);
enum rpc_code cc_node_shutdown(struct cc *cc);
enum rpc_code cc_event_list(struct cc *cc);
enum rpc_code cc_event_watch(struct cc *cc);
enum rpc_code cc_job_show(struct cc *cc);
enum rpc_code cc_job_list(struct cc *cc);
/* Adds to the items of node list what the coordinator says of each, where it runs. */
void cc_node_add_status(struct cc *cc);
/* By a name or an id of corosync's node list; NULL: this one. */
struct cc_node { uint32_t id; char name[256]; };
enum rpc_code cc_node_find(struct cc *cc, const char *name, struct cc_node *ret);
/*
 * Asks every volume mounted on this node (those that `want` names, NULL or none: all) and puts the answers together in cc->reply;
 * "stats" of several volumes are added up.  RPC_NOT_FOUND when a wanted one is not there; *ret_n: how many answered.
 */
enum rpc_code cc_ask_volumes(struct cc *cc, const char *const *want, unsigned n_want, const char *verb, const json_t *args, unsigned *ret_n);

#endif
