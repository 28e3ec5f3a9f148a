/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * qemu_args.c - see qemu_args.h.
 *
 *	pcie.0	1f.0 ISA (serial0: console, serial1: port)   1f.2, 1f.3 chipset
 *		04.0 virtio-scsi scsi0: disk N is 0:0:N	    05.0 virtio-rng	10.0 ... 17.0 virtio-net
 */
#include "hvhost/qemu_args.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "utils/base/text.h"

#define SOCKET_PATH_MAX 107u

struct args { char **v; size_t n, room; bool failed; };

static void add_take(struct args *a, char *s)
{
	if (a->n + 1 >= a->room) {
		size_t room = a->room ? 2 * a->room : 64;
		char **v = realloc(a->v, room * sizeof(*v));

		if (!v) {
			free(s);
			a->failed = true;
			return;
		}
		a->v = v;
		a->room = room;
	}
	a->v[a->n++] = s;
	a->v[a->n] = NULL;
	a->failed |= !s;
}

static void add(struct args *a, const char *fmt, ...) csv_printf_like(2, 3);
static void add(struct args *a, const char *fmt, ...)
{
	va_list ap;
	char *s;
	int n;

	va_start(ap, fmt);
	n = vasprintf(&s, fmt, ap);
	va_end(ap);
	add_take(a, n < 0 ? NULL : s);
}

/* -opt and an object as JSON: no character of a path means anything there. */
static void add_json(struct args *a, const char *opt, json_t *o_take)
{
	add(a, "%s", opt);
	add_take(a, o_take ? json_dumps(o_take, JSON_COMPACT) : NULL);
	json_decref(o_take);
}

/* For options that know no JSON: a comma is written twice. */
static void comma(const char *s, char *ret, size_t room)
{
	size_t n = 0;

	for (; *s && n + 2 < room; s++) {
		ret[n++] = *s;
		if (*s == ',')
			ret[n++] = ',';
	}
	ret[n] = '\0';
}

void qemu_disk_path(const struct vm_disk *d, const char *volume, char *ret, size_t room)
{
	snprintf(ret, room, "%s/%s%s", volume, d->format == VM_DISK_RAW ? "" : ".raw/", d->path);
}

const char *qemu_complaint(const char *said)
{
	const char *line = strrchr(said, '\n'), *option, *end;

	line = line ? line + 1 : said;
	option = strstr(line, ": -");
	end = option ? strstr(option, "}: ") : NULL;	/* that is nowhere inside JSON */
	return end && end[3] ? end + 3 : line;
}

static void add_disks(struct args *a, const struct vm_conf *c, const struct qemu_place *p)
{
	add_json(a, "-device", json_pack("{s:s, s:s, s:s, s:s}", "driver", "virtio-scsi-pci", "id", "scsi0", "bus", "pcie.0", "addr", "0x4"));
	for (unsigned i = 0; i < c->n_disks; i++) {
		const struct vm_disk *d = &c->disks[i];
		char path[1024], file[16], node[16], dev[16];
		json_t *o;

		qemu_disk_path(d, p->volume, path, sizeof(path));
		snprintf(file, sizeof(file), "file%u", i);
		snprintf(node, sizeof(node), "disk%u", i);
		snprintf(dev, sizeof(dev), "scsi0-%u", i);
		add_json(a, "-blockdev", json_pack("{s:s, s:s, s:s, s:b, s:b, s:s, s:{s:b, s:b}}", "driver", "file", "node-name", file,
						   "filename", path, "read-only", d->read_only, "auto-read-only", 0, "discard", "unmap",
						   "cache", "direct", 1, "no-flush", 0));
		add_json(a, "-blockdev", json_pack("{s:s, s:s, s:s, s:b, s:s, s:{s:b, s:b}}", "driver", "raw", "node-name", node, "file", file,
						   "read-only", d->read_only, "discard", "unmap", "cache", "direct", 1, "no-flush", 0));
		o = json_pack("{s:s, s:s, s:s, s:i, s:i, s:i, s:s, s:s, s:s}", "driver", "scsi-hd", "id", dev, "bus", "scsi0.0", "channel", 0,
			      "scsi-id", 0, "lun", (int)i, "drive", node, "werror", "stop", "rerror", "stop");
		if (o && *d->serial)
			json_object_set_new(o, "serial", json_string(d->serial));
		if (o && !*c->kernel)
			json_object_set_new(o, "bootindex", json_integer(i + 1));
		add_json(a, "-device", o);
	}
}

static void add_nics(struct args *a, const struct vm_conf *c, const struct qemu_place *p)
{
	for (unsigned i = 0; i < c->n_nics; i++) {
		const uint8_t *m = c->nics[i].mac;
		char mac[18], id[16], net[16], addr[8];

		snprintf(mac, sizeof(mac), "%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5]);
		snprintf(id, sizeof(id), "nic%u", i);
		snprintf(net, sizeof(net), "net%u", i);
		snprintf(addr, sizeof(addr), "0x%x", 0x10 + i);
		add(a, "-netdev");
		add(a, "tap,id=%s,fd=%d", net, p->tap_fds[i]);
		/* romfile: the option ROM's size would be part of the machine, and differs between versions */
		add_json(a, "-device", json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s}", "driver", "virtio-net-pci", "id", id, "netdev", net,
						 "mac", mac, "bus", "pcie.0", "addr", addr, "romfile", ""));
	}
}

static void add_serials(struct args *a, const struct vm_conf *c, const struct qemu_place *p)
{
	char path[256], log[600];

	comma(p->console, path, sizeof(path));
	comma(p->console_log, log, sizeof(log));
	add(a, "-chardev");
	add(a, "socket,id=console0,path=%s,server=on,wait=off%s%s%s", path, *log ? ",logfile=" : "", log, *log ? ",logappend=on" : "");
	add_json(a, "-device", json_pack("{s:s, s:s, s:s, s:i}", "driver", "isa-serial", "id", "serial0", "chardev", "console0", "index", 0));
	if (!*c->port)
		return;
	comma(c->port, path, sizeof(path));
	add(a, "-chardev");
	add(a, "socket,id=port0,path=%s,server=off,reconnect=1", path);
	add_json(a, "-device", json_pack("{s:s, s:s, s:s, s:i}", "driver", "isa-serial", "id", "serial1", "chardev", "port0", "index", 1));
}

static void add_kernel(struct args *a, const struct vm_conf *c, const struct qemu_place *p)
{
	if (!*c->kernel)
		return;
	add(a, "-kernel");
	add(a, "%s/%s", p->vm_dir, c->kernel);
	if (*c->initrd) {
		add(a, "-initrd");
		add(a, "%s/%s", p->vm_dir, c->initrd);
	}
	if (*c->append) {
		add(a, "-append");
		add(a, "%s", c->append);
	}
}

int qemu_args_new(const struct vm_conf *c, const struct qemu_place *p, char ***ret, struct csv_err *err)
{
	char uuid[CSV_UUID_TEXT_BYTES], path[256];
	struct args a = { 0 };

	if (strlen(p->qmp) > SOCKET_PATH_MAX || strlen(p->console) > SOCKET_PATH_MAX || strlen(c->port) > SOCKET_PATH_MAX)
		return csv_err_set(err, -ENAMETOOLONG, "%s: a socket's path may have %u bytes; choose a shorter run folder", p->qmp,
				   SOCKET_PATH_MAX);
	add(&a, "%s", p->qemu);
	add(&a, "-name");
	add(&a, "guest=%s,debug-threads=on", c->name);
	add(&a, "-uuid");
	add(&a, "%s", csv_uuid_to_text(c->uuid, uuid));
	add(&a, "-S");
	add(&a, "-nodefaults");
	add(&a, "-no-user-config");
	add(&a, "-no-shutdown");
	add(&a, "-sandbox");
	add(&a, "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
	add(&a, "-display");
	add(&a, "none");
	add(&a, "-machine");
	add(&a, "%s,usb=off,vmport=off,dump-guest-core=off", c->machine);
	add(&a, "-accel");
	add(&a, "%s", p->accel == VM_ACCEL_KVM ? "kvm" : "tcg");
	add(&a, "-cpu");
	add(&a, "%s", c->cpu);
	add(&a, "-smp");
	add(&a, "cpus=%u,sockets=1,cores=%u,threads=1", c->cpus, c->cpus);
	add(&a, "-m");
	if (c->accel == VM_ACCEL_KVM)
		add(&a, "size=%" PRIu64 "M", c->memory_bytes >> 20);
	else
		add(&a, "size=%" PRIu64 "K", (c->memory_bytes >> 20 << 10) + QEMU_TCG_MORE_KIB);
	add(&a, "-rtc");
	add(&a, "base=utc,driftfix=slew");
	comma(p->qmp, path, sizeof(path));
	add(&a, "-chardev");
	add(&a, "socket,id=qmp0,path=%s,server=on,wait=off", path);
	add(&a, "-mon");
	add(&a, "chardev=qmp0,id=monitor0,mode=control");
	if (*p->pid_file) {
		add(&a, "-pidfile");
		add(&a, "%s", p->pid_file);
	}
	add_serials(&a, c, p);
	add_disks(&a, c, p);
	add_json(&a, "-object", json_pack("{s:s, s:s}", "qom-type", "rng-builtin", "id", "rng0"));
	add_json(&a, "-device", json_pack("{s:s, s:s, s:s, s:s, s:s}", "driver", "virtio-rng-pci", "id", "rng0-dev", "rng", "rng0", "bus",
					  "pcie.0", "addr", "0x5"));
	add_nics(&a, c, p);
	add_kernel(&a, c, p);
	if (p->incoming) {
		add(&a, "-incoming");
		add(&a, "defer");
	}
	if (a.failed) {
		qemu_args_free(a.v);
		return csv_err_set(err, -ENOMEM, "out of memory");
	}
	*ret = a.v;
	return 0;
}

void qemu_args_free(char **argv)
{
	for (size_t i = 0; argv && argv[i]; i++)
		free(argv[i]);
	free(argv);
}
