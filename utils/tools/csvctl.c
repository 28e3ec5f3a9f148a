/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * csvctl.c - main: arguments by the table, run, show, exit code.
 */
#include "utils/tools/csvctl.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "config.h"

static volatile sig_atomic_t cancelled;
static const struct cc_cmd *usage_of;	/* what the arguments are for, as soon as it is known */

static void on_signal(int sig)
{
	cancelled = sig;
}

/* csvctl has nothing half done while it waits for a daemon: a second signal, or one then, may end it at once. */
static void signals(void)
{
	struct sigaction sa = { .sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND };

	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
	sigaction(SIGHUP, &sa, NULL);
	signal(SIGPIPE, SIG_IGN);
}

const char *cc_opt(const struct cc *cc, const char *name)
{
	for (unsigned i = 0; i < ARRAY_SIZE(cc->cmd->opts) && cc->cmd->opts[i].name; i++)
		if (!strcmp(cc->cmd->opts[i].name, name))
			return cc->opt[i];
	return NULL;
}

const char *cc_opt_nth(const struct cc *cc, const char *name, unsigned i)
{
	for (unsigned k = 0; k < cc->n_values; k++)
		if (!strcmp(cc->cmd->opts[cc->value[k].opt].name, name) && !i--)
			return cc->value[k].value;
	return NULL;
}

int64_t cc_now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_BOOTTIME, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

enum rpc_code cc_opt_number(struct cc *cc, const char *name, json_int_t min, json_int_t max, json_int_t *ret)
{
	const char *s = cc_opt(cc, name);
	char *end;
	long long v;

	if (!s)
		return RPC_OK;
	errno = 0;
	v = strtoll(s, &end, 10);
	if (errno || *end || end == s || v < min || v > max)
		return cc_fail(cc, RPC_USAGE, "--%s %s: must be a number from %lld to %lld", name, s, (long long)min, (long long)max);
	*ret = v;
	return RPC_OK;
}

enum rpc_code cc_fail(struct cc *cc, enum rpc_code code, const char *fmt, ...)
{
	char text[sizeof(((struct csv_err *)0)->text)];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	json_object_set_new(cc->reply, "message", json_string(text));
	return code;
}

static void usage_end(const char *fmt, ...) csv_printf_like(1, 2) csv_noreturn;
static void usage_end(const char *fmt, ...)
{
	va_list ap;

	fputs("csvctl: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	if (usage_of)
		fprintf(stderr, "; see: csvctl %s %s --help\n", usage_of->noun, usage_of->verb);
	else
		fputs("; see: csvctl --help\n", stderr);
	exit(RPC_USAGE);
}

static enum cc_format parse_format(const char *s)
{
	static const char *const name[] = { "table", "json", "jsonl", "name" };

	for (size_t i = 0; i < ARRAY_SIZE(name); i++)
		if (!strcmp(s, name[i]))
			return (enum cc_format)i;
	usage_end("-o %s: must be table, json, jsonl or name", s);
}

static int parse_timeout(const char *s)
{
	char *end;
	double v = strtod(s, &end);

	if (*end || end == s || !(v > 0) || v > 86400)
		usage_end("--timeout %s: must be a number of seconds up to 86400", s);
	return (int)(v * 1000) + 1;
}

static const struct cc_cmd *find(const char *noun, const char *verb)
{
	for (size_t i = 0; i < cc_cmds_n; i++)
		if (!strcmp(cc_cmds[i].noun, noun) && !strcmp(cc_cmds[i].verb, verb))
			return &cc_cmds[i];
	return NULL;
}

static bool is_noun(const char *s)
{
	for (size_t i = 0; i < cc_cmds_n; i++)
		if (!strcmp(cc_cmds[i].noun, s))
			return true;
	return false;
}

/* "--name value" or "--name=value" at argv[*i]; returns the value and moves on. */
static const char *value_of(int argc, char **argv, int *i, const char *eq)
{
	if (eq)
		return eq + 1;
	if (*i + 1 >= argc)
		usage_end("%s: a value must follow", argv[*i]);
	return argv[++*i];
}

static void parse_long(struct cc *cc, int argc, char **argv, int *i)
{
	const char *a = argv[*i] + 2, *eq = strchr(a, '=');
	size_t n = eq ? (size_t)(eq - a) : strlen(a);

	if (n == 6 && !strncmp(a, "output", n)) {
		cc->format = parse_format(value_of(argc, argv, i, eq));
		return;
	}
	if (n == 7 && !strncmp(a, "timeout", n)) {
		cc->timeout_ms = parse_timeout(value_of(argc, argv, i, eq));
		cc->timeout_given = true;
		return;
	}
	if (!cc->cmd)
		usage_end("%s: unknown option", argv[*i]);
	if (cc->cmd->change && n == 7 && !strncmp(a, "dry-run", n) && !eq) {
		cc->dry_run = true;
		return;
	}
	if (cc->cmd->job && !eq && ((n == 7 && !strncmp(a, "no-wait", n)) || (n == 4 && !strncmp(a, "wait", n)))) {
		cc->no_wait = n == 7;
		return;
	}
	for (unsigned k = 0; k < ARRAY_SIZE(cc->cmd->opts) && cc->cmd->opts[k].name; k++) {
		const struct cc_opt *o = &cc->cmd->opts[k];

		if (strlen(o->name) != n || strncmp(o->name, a, n))
			continue;
		if (!o->arg && eq)
			usage_end("--%s: takes no value", o->name);
		if (o->arg && o->arg[0] == '[')
			cc->opt[k] = eq ? eq + 1 : "";
		else
			cc->opt[k] = o->arg ? value_of(argc, argv, i, eq) : "";
		if (cc->n_values == ARRAY_SIZE(cc->value))
			usage_end("too many options");
		cc->value[cc->n_values].opt = k;
		cc->value[cc->n_values++].value = cc->opt[k];
		return;
	}
	usage_end("%s: unknown option of %s %s", argv[*i], cc->cmd->noun, cc->cmd->verb);
}

static void special(const char *a)
{
	if (!strcmp(a, "--version")) {
		printf("csvctl %s\n", PACKAGE_VERSION);
		exit(0);
	}
	if (!strcmp(a, "--man")) {
		cc_man(stdout);
		exit(0);
	}
	if (!strcmp(a, "--completion")) {
		cc_completion(stdout);
		exit(0);
	}
	if (!strcmp(a, "--schema")) {
		cc_schema(stdout);
		exit(0);
	}
}

static void help_end(const char *noun, const char *verb) csv_noreturn;
static void help_end(const char *noun, const char *verb)
{
	if (noun && !is_noun(noun))
		usage_end("%s: no such noun", noun);
	if (verb && !find(noun, verb))
		usage_end("%s %s: no such command", noun, verb);
	cc_help(stdout, noun, verb);
	exit(0);
}

static void parse(struct cc *cc, int argc, char **argv)
{
	const char *noun = NULL, *verb = NULL;
	bool help = false, words_only = false;
	int i;

	for (i = 1; i < argc; i++) {
		const char *a = argv[i];

		if (!words_only && !strcmp(a, "--")) {
			words_only = true;
		} else if (!words_only && (!strcmp(a, "-h") || !strcmp(a, "--help"))) {
			help = true;
		} else if (!words_only && a[0] == '-' && a[1]) {
			if (!noun)
				special(a);
			if (!strncmp(a, "--", 2))
				parse_long(cc, argc, argv, &i);
			else if (!strncmp(a, "-o", 2))
				cc->format = parse_format(a[2] ? a + 2 : value_of(argc, argv, &i, NULL));
			else
				usage_end("%s: unknown option", a);
		} else if (!noun && !help && !strcmp(a, "help")) {
			help = true;		/* csvctl help NOUN VERB */
		} else if (!noun) {
			noun = a;
		} else if (!verb) {
			verb = a;
			usage_of = cc->cmd = find(noun, verb);
			if (!cc->cmd && !help)
				usage_end(is_noun(noun) ? "%s %s: no such command" : "%s %s: no such noun", noun, verb);
		} else if (cc->n_args < ARRAY_SIZE(cc->arg)) {
			cc->arg[cc->n_args++] = a;
		} else {
			usage_end("too many arguments");
		}
	}
	if (help)
		help_end(noun, verb);
	if (!noun)
		usage_end("a noun and a verb are needed, for instance: csvctl volume list");
	if (!cc->cmd && is_noun(noun)) {
		cc_help(stderr, noun, NULL);
		exit(RPC_USAGE);
	}
	if (!cc->cmd)
		usage_end("%s: no such noun", noun);
	if (cc->n_args < cc->cmd->args_min)
		usage_end("%s %s: %s is missing", noun, verb, cc->cmd->args);
	if (cc->n_args > cc->cmd->args_max)
		usage_end("%s %s: \"%s\" is one argument too many", noun, verb, cc->arg[cc->cmd->args_max]);
	for (unsigned k = 0; k < ARRAY_SIZE(cc->cmd->opts) && cc->cmd->opts[k].name; k++)
		if (cc->cmd->opts[k].required && !cc->opt[k])
			usage_end("%s %s: --%s %s is missing", noun, verb, cc->cmd->opts[k].name, cc->cmd->opts[k].arg);
}

int main(int argc, char **argv)
{
	struct cc cc = { .timeout_ms = 30000, .progress = isatty(STDERR_FILENO), .cancelled = &cancelled };
	enum rpc_code code;

	signals();
	parse(&cc, argc, argv);
	cc.reply = rpc_reply_new(cc.cmd->noun);
	if (!cc.reply) {
		fputs("csvctl: out of memory\n", stderr);
		return RPC_FAILED;
	}
	code = cc.cmd->run(&cc);
	json_object_set_new(cc.reply, "code", json_integer(code));
	cc_print(&cc);
	json_decref(cc.reply);
	if (fflush(stdout) || ferror(stdout)) {
		fprintf(stderr, "csvctl: the output cannot be written: %s\n", strerror(errno));
		return RPC_FAILED;
	}
	return (int)code;
}
