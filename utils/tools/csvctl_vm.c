/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * csvctl_vm.c - virtual machines: what the coordinator is asked, and the console.
 */
#include "utils/tools/csvctl.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

#include "utils/base/text.h"

#define ESCAPE 0x1d	/* Ctrl-] */

static json_t *name_args(const struct cc *cc)
{
	return json_pack("{s:s}", "name", cc->arg[0]);
}

/* As the coordinator will open it: from the root. */
static json_t *absolute(const char *path)
{
	char real[PATH_MAX];

	return json_string(realpath(path, real) ? real : path);
}

/* An option that is a number, as `key` of args. */
static enum rpc_code set_number(struct cc *cc, const char *opt, json_int_t min, json_int_t max, json_t *args, const char *key)
{
	json_int_t v = -1;
	enum rpc_code code = cc_opt_number(cc, opt, min, max, &v);

	if (!code && v >= 0)
		json_object_set_new(args, key, json_integer(v));
	return code;
}

static void set_text(const struct cc *cc, const char *opt, json_t *args)
{
	if (cc_opt(cc, opt))
		json_object_set_new(args, opt, json_string(cc_opt(cc, opt)));
}

static json_t *disk_list(const struct cc *cc)
{
	json_t *disks = json_array();
	const char *path;

	for (unsigned i = 0; (path = cc_opt_nth(cc, "disk", i)); i++)
		json_array_append_new(disks, absolute(path));
	return disks;
}

enum rpc_code cc_vm_create(struct cc *cc)
{
	json_t *args = name_args(cc);
	const char *memory = cc_opt(cc, "memory");
	enum rpc_code code;
	uint64_t bytes;

	json_object_set_new(args, "disks", disk_list(cc));
	if (memory) {
		if (csv_size_parse(memory, &bytes)) {
			json_decref(args);
			return cc_fail(cc, RPC_USAGE, "--memory %s: must be a number of bytes, or one with K, M, G or T", memory);
		}
		json_object_set_new(args, "memory_bytes", json_integer((json_int_t)bytes));
	}
	code = set_number(cc, "cpus", 1, 255, args, "cpus");
	if (!code)
		code = set_number(cc, "priority", 0, 255, args, "priority");
	if (!code && !cc_opt(cc, "kernel") && (cc_opt(cc, "initrd") || cc_opt(cc, "append")))
		code = cc_fail(cc, RPC_USAGE, "--%s: is for a kernel that is given, too: --kernel FILE", cc_opt(cc, "initrd") ? "initrd" : "append");
	if (code) {
		json_decref(args);
		return code;
	}
	if (cc_opt(cc, "kernel"))
		json_object_set_new(args, "kernel", absolute(cc_opt(cc, "kernel")));
	if (cc_opt(cc, "initrd"))
		json_object_set_new(args, "initrd", absolute(cc_opt(cc, "initrd")));
	set_text(cc, "append", args);
	set_text(cc, "node", args);
	set_text(cc, "bridge", args);
	set_text(cc, "accel", args);
	set_text(cc, "port", args);
	json_object_set_new(args, "ha", json_boolean(!cc_opt(cc, "no-ha")));
	return cc_run_job(cc, "vm.create", args);
}

enum rpc_code cc_vm_start(struct cc *cc)
{
	json_t *args = name_args(cc);

	set_text(cc, "node", args);
	return cc_run_job(cc, "vm.start", args);
}

enum rpc_code cc_vm_stop(struct cc *cc)
{
	json_t *args = name_args(cc);
	enum rpc_code code = set_number(cc, "grace", 1, 86400, args, "grace_s");

	if (code) {
		json_decref(args);
		return code;
	}
	json_object_set_new(args, "force", json_boolean(cc_opt(cc, "force") != NULL));
	return cc_run_job(cc, "vm.stop", args);
}

enum rpc_code cc_vm_list(struct cc *cc)
{
	return cc_ask_migrator(cc, "vm.list", json_object());
}

enum rpc_code cc_vm_show(struct cc *cc)
{
	return cc_ask_migrator(cc, "vm.show", name_args(cc));
}

enum rpc_code cc_vm_delete(struct cc *cc)
{
	json_t *args = name_args(cc);

	if (!cc_opt(cc, "yes") && !cc->dry_run) {
		json_decref(args);
		return cc_fail(cc, RPC_REFUSED, "%s: its configuration would be removed for ever; say so with --yes", cc->arg[0]);
	}
	return cc_run_job(cc, "vm.delete", args);
}

/* ---- console ------------------------------------------------------------------------------------------------------------------- */

static bool pass(int from, int to, bool keys)
{
	char buf[4096];
	ssize_t n = read(from, buf, sizeof(buf));
	const char *end;

	if (n <= 0)
		return n < 0 && errno == EINTR;
	end = keys ? memchr(buf, ESCAPE, (size_t)n) : NULL;
	for (ssize_t at = 0, last = end ? end - buf : n; at < last;) {
		ssize_t w = write(to, buf + at, (size_t)(last - at));

		if (w < 0 && errno != EINTR)
			return false;
		at += w > 0 ? w : 0;
	}
	return !end;
}

/* Until Ctrl-], the end of standard input, or of the VM's console. */
static void talk(struct cc *cc, int fd)
{
	struct pollfd p[2] = { { .fd = fd, .events = POLLIN }, { .fd = STDIN_FILENO, .events = POLLIN } };
	bool go = true;

	while (go && !*cc->cancelled) {
		if (poll(p, 2, -1) < 0)
			continue;
		if (p[0].revents)
			go = pass(fd, STDOUT_FILENO, false);
		if (go && p[1].revents && !pass(STDIN_FILENO, fd, isatty(STDIN_FILENO))) {
			if (isatty(STDIN_FILENO))
				go = false;
			p[1].fd = -1;		/* a script's input is over, the VM's words are not */
			go = go && cc_opt(cc, "until-eof") == NULL;
		}
	}
}

enum rpc_code cc_vm_console(struct cc *cc)
{
	enum rpc_code code = cc_ask_migrator(cc, "vm.console", name_args(cc));
	const json_t *it = json_array_get(json_object_get(cc->reply, "items"), 0);
	const char *path = json_string_value(json_object_get(it, "path"));
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	bool tty = isatty(STDIN_FILENO);
	struct termios old, raw;
	int fd;

	if (code)
		return code;
	if (!path || strlen(path) >= sizeof(sa.sun_path))
		return cc_fail(cc, RPC_BUG, "%s: the coordinator gave no console", cc->arg[0]);
	strcpy(sa.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&sa, sizeof(sa))) {
		code = cc_fail(cc, RPC_CONFLICT, "%s: its console %s: %s; is somebody else connected?", cc->arg[0], path, strerror(errno));
		if (fd >= 0)
			close(fd);
		return code;
	}
	json_object_set_new(cc->reply, "items", json_array());
	fprintf(stderr, "csvctl: console of %s; leave it with Ctrl-]\n", cc->arg[0]);
	if (tty && !tcgetattr(STDIN_FILENO, &old)) {
		raw = old;
		cfmakeraw(&raw);
		tcsetattr(STDIN_FILENO, TCSANOW, &raw);
	} else {
		tty = false;
	}
	talk(cc, fd);
	if (tty)
		tcsetattr(STDIN_FILENO, TCSANOW, &old);
	close(fd);
	return RPC_OK;
}
