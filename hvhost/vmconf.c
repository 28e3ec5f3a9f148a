/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * vmconf.c - see vmconf.h.
 */
#include "hvhost/vmconf.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hvhost/agent.h"
#include "utils/base/text.h"

/* One object being read; `at` is what stands before the field in an error ("disks[1]."). */
struct in { const json_t *o; const char *at; struct csv_err *err; int rc; };

static void fail(struct in *in, const char *key, const char *fmt, ...) csv_printf_like(3, 4);
static void fail(struct in *in, const char *key, const char *fmt, ...)
{
	va_list ap;

	if (in->rc)
		return;
	va_start(ap, fmt);
	in->rc = csv_err_vset(in->err, -EINVAL, fmt, ap);
	va_end(ap);
	csv_err_prefix(in->err, "%s%s", in->at, key);
}

/* Keys that nobody knows are typing errors. */
static void known(struct in *in, const char *const *keys, size_t n)
{
	const char *key;
	json_t *v;

	if (!json_is_object(in->o)) {
		fail(in, "", "an object is wanted");
		return;
	}
	json_object_foreach((json_t *)in->o, key, v) {
		size_t i;

		for (i = 0; i < n && strcmp(key, keys[i]); i++)
			;
		if (i == n)
			fail(in, key, "there is no such field");
	}
}

/* Text of at most room - 1 bytes without control characters; `otherwise` NULL: it must be there. */
static void text(struct in *in, const char *key, char *ret, size_t room, const char *otherwise)
{
	const json_t *v = json_object_get(in->o, key);
	const char *s = json_string_value(v);

	if (!v && otherwise)
		s = otherwise;
	else if (!v)
		fail(in, key, "is missing");
	else if (!s)
		fail(in, key, "a text is wanted");
	else if (json_string_length(v) >= room)
		fail(in, key, "longer than %zu bytes", room - 1);
	else if (!*s && !otherwise)
		fail(in, key, "is empty");
	for (const char *p = s; p && *p && !in->rc; p++)
		if ((unsigned char)*p < ' ' || *p == 127)
			fail(in, key, "has a control character");
	if (!in->rc)
		snprintf(ret, room, "%s", s);
}

static uint64_t number(struct in *in, const char *key, uint64_t min, uint64_t max, int64_t otherwise)
{
	const json_t *v = json_object_get(in->o, key);

	if (!v && otherwise >= 0)
		return (uint64_t)otherwise;
	if (!v)
		fail(in, key, "is missing");
	else if (!json_is_integer(v) || json_integer_value(v) < 0 || (uint64_t)json_integer_value(v) < min ||
		 (uint64_t)json_integer_value(v) > max)
		fail(in, key, "a whole number from %" PRIu64 " to %" PRIu64 " is wanted", min, max);
	return in->rc ? 0 : (uint64_t)json_integer_value(v);
}

static bool boolean(struct in *in, const char *key, bool otherwise)
{
	const json_t *v = json_object_get(in->o, key);

	if (v && !json_is_boolean(v))
		fail(in, key, "true or false is wanted");
	return v ? json_is_true(v) : otherwise;
}

/* What QEMU takes as a name of a machine, a processor or a network device. */
static void word(struct in *in, const char *key, const char *s)
{
	for (const char *p = s; *p; p++)
		if (!isascii((unsigned char)*p) || (!isalnum((unsigned char)*p) && !strchr("-_.+", *p)))
			fail(in, key, "'%.60s': letters, digits and - _ . + only", s);
}

/* Relative, inside, no part that is "." or ".." or empty. */
static bool path_stays_inside(const char *s)
{
	while (*s) {
		size_t n = strcspn(s, "/");

		if (!n || (n == 1 && s[0] == '.') || (n == 2 && s[0] == '.' && s[1] == '.') || (s[n] == '/' && !s[n + 1]))
			return false;
		s += n + (s[n] == '/');
	}
	return true;
}

static enum vm_disk_format format_of(const char *path)
{
	const char *dot = strrchr(path, '.');

	if (dot && !strcasecmp(dot, ".vhd"))
		return VM_DISK_VHD;
	return dot && !strcasecmp(dot, ".vhdx") ? VM_DISK_VHDX : VM_DISK_RAW;
}

static const char *const formats[] = { "raw", "vhd", "vhdx" };
static const char *const accels[] = { "auto", "tcg", "kvm" };
static const char *const wants[] = { "run", "paused", "stopped" };

static unsigned one_of(struct in *in, const char *key, const char *const *names, size_t n, const char *otherwise)
{
	char s[16] = "", all[64] = "";
	size_t i;

	text(in, key, s, sizeof(s), otherwise);
	if (!*s && otherwise && !*otherwise)
		return (unsigned)n;
	for (i = 0; i < n && strcmp(s, names[i]); i++)
		snprintf(all + strlen(all), sizeof(all) - strlen(all), "%s%s", i ? ", " : "", names[i]);
	if (i == n)
		fail(in, key, "'%s': one of %s is wanted", s, all);
	return (unsigned)i;
}

static int disk_decode(const json_t *o, unsigned i, struct vm_disk *d, struct csv_err *err)
{
	static const char *const keys[] = { "path", "format", "read_only", "serial" };
	char at[24];
	struct in in = { o, at, err, 0 };
	unsigned f;

	snprintf(at, sizeof(at), "disks[%u].", i);
	known(&in, keys, ARRAY_SIZE(keys));
	text(&in, "path", d->path, sizeof(d->path), NULL);
	if (!in.rc && (!path_stays_inside(d->path) || !strncmp(d->path, ".raw/", 5)))
		fail(&in, "path", "'%.200s': write it relative to the volume, without '..' and without .raw/", d->path);
	f = in.rc ? 0 : one_of(&in, "format", formats, ARRAY_SIZE(formats), "");
	d->format = f == ARRAY_SIZE(formats) ? format_of(d->path) : (enum vm_disk_format)f;
	d->read_only = boolean(&in, "read_only", false);
	text(&in, "serial", d->serial, sizeof(d->serial), "");
	if (!in.rc)
		word(&in, "serial", d->serial);
	return in.rc;
}

static int nic_decode(const json_t *o, unsigned i, struct vm_nic *n, struct csv_err *err)
{
	static const char *const keys[] = { "bridge", "mac" };
	char at[24], mac[24] = "";
	struct in in = { o, at, err, 0 };
	unsigned b[6];
	int end = 0;

	snprintf(at, sizeof(at), "nics[%u].", i);
	known(&in, keys, ARRAY_SIZE(keys));
	text(&in, "bridge", n->bridge, sizeof(n->bridge), NULL);
	if (!in.rc)
		word(&in, "bridge", n->bridge);
	text(&in, "mac", mac, sizeof(mac), NULL);
	if (!in.rc && (sscanf(mac, "%2x:%2x:%2x:%2x:%2x:%2x%n", &b[0], &b[1], &b[2], &b[3], &b[4], &b[5], &end) != 6 || strlen(mac) != 17 ||
		       end != 17 || strspn(mac, "0123456789abcdefABCDEF:") != 17))
		fail(&in, "mac", "'%s': six bytes in hexadecimal with colons are wanted", mac);
	else if (!in.rc && (b[0] & 1))
		fail(&in, "mac", "'%s' is a multicast address; the first byte must be even", mac);
	for (int k = 0; k < 6 && !in.rc; k++)
		n->mac[k] = (uint8_t)b[k];
	return in.rc;
}

static const json_t *list(struct in *in, const char *key, size_t min, size_t max)
{
	const json_t *v = json_object_get(in->o, key);

	if (!v && !min)
		return NULL;
	if (!json_is_array(v))
		fail(in, key, "%s", v ? "a list is wanted" : "is missing");
	else if (json_array_size(v) < min || json_array_size(v) > max)
		fail(in, key, "%zu entries, %zu to %zu are allowed", json_array_size(v), min, max);
	return in->rc ? NULL : v;
}

static void devices(struct in *in, struct vm_conf *c)
{
	const json_t *d = list(in, "disks", 1, VMCONF_DISKS_MAX), *n = list(in, "nics", 0, VMCONF_NICS_MAX);

	for (size_t i = 0; d && !in->rc && i < json_array_size(d); i++) {
		in->rc = disk_decode(json_array_get(d, i), (unsigned)i, &c->disks[i], in->err);
		for (unsigned k = 0; k < i && !in->rc; k++)
			if (!strcmp(c->disks[k].path, c->disks[i].path))
				fail(in, "disks", "'%.200s' is there twice", c->disks[i].path);
		c->n_disks++;
	}
	for (size_t i = 0; n && !in->rc && i < json_array_size(n); i++) {
		in->rc = nic_decode(json_array_get(n, i), (unsigned)i, &c->nics[i], in->err);
		for (unsigned k = 0; k < i && !in->rc; k++)
			if (!memcmp(c->nics[k].mac, c->nics[i].mac, 6))
				fail(in, "nics", "two have the same mac");
		c->n_nics++;
	}
}

static void file_name(struct in *in, const char *key, char *ret, size_t room)
{
	text(in, key, ret, room, "");
	if (!in->rc && *ret && !agent_vm_name_valid(ret))
		fail(in, key, "'%.60s': the name of a file in the VM's own folder is wanted", ret);
}

int vmconf_decode(const json_t *o, struct vm_conf **ret, struct csv_err *err)
{
	static const char *const keys[] = { "name", "uuid", "memory_bytes", "cpus", "machine", "cpu", "accel", "disks", "nics", "kernel",
					    "initrd", "append", "port", "downtime_ms" };
	struct in in = { o, "", err, 0 };
	struct vm_conf *c = calloc(1, sizeof(*c));
	char uuid[48] = "";

	if (!c)
		return csv_err_set(err, -ENOMEM, "out of memory");
	known(&in, keys, ARRAY_SIZE(keys));
	text(&in, "name", c->name, sizeof(c->name), NULL);
	if (!in.rc && !agent_vm_name_valid(c->name))
		fail(&in, "name", "'%.60s': letters, digits and - _ . only, not first . or -", c->name);
	text(&in, "uuid", uuid, sizeof(uuid), NULL);
	if (!in.rc && csv_uuid_parse(uuid, c->uuid))
		fail(&in, "uuid", "'%s' is none", uuid);
	c->memory_bytes = number(&in, "memory_bytes", VMCONF_MEMORY_MIN, VMCONF_MEMORY_MAX, -1);
	if (!in.rc && c->memory_bytes % (1u << 20))
		fail(&in, "memory_bytes", "%" PRIu64 " is no multiple of 1 MiB", c->memory_bytes);
	c->cpus = (unsigned)number(&in, "cpus", 1, VMCONF_CPUS_MAX, 1);
	text(&in, "machine", c->machine, sizeof(c->machine), VMCONF_MACHINE);
	if (!in.rc && strncmp(c->machine, "pc-q35-", 7))
		fail(&in, "machine", "'%s': a pinned q35 machine like " VMCONF_MACHINE " is wanted", c->machine);
	word(&in, "machine", c->machine);
	text(&in, "cpu", c->cpu, sizeof(c->cpu), VMCONF_CPU);
	word(&in, "cpu", c->cpu);
	c->accel = in.rc ? 0 : (enum vm_accel)one_of(&in, "accel", accels, ARRAY_SIZE(accels), "auto");
	if (!in.rc)
		devices(&in, c);
	file_name(&in, "kernel", c->kernel, sizeof(c->kernel));
	file_name(&in, "initrd", c->initrd, sizeof(c->initrd));
	text(&in, "append", c->append, sizeof(c->append), "");
	if (!in.rc && !*c->kernel && (*c->initrd || *c->append))
		fail(&in, *c->initrd ? "initrd" : "append", "only together with kernel");
	text(&in, "port", c->port, sizeof(c->port), "");
	if (!in.rc && *c->port && *c->port != '/')
		fail(&in, "port", "'%s': an absolute path is wanted", c->port);
	c->downtime_ms = (unsigned)number(&in, "downtime_ms", 1, 60000, 300);
	if (in.rc) {
		free(c);
		return in.rc;
	}
	*ret = c;
	return 0;
}

json_t *vmconf_encode(const struct vm_conf *c)
{
	char uuid[CSV_UUID_TEXT_BYTES];
	json_t *disks = json_array(), *nics = json_array();

	for (unsigned i = 0; i < c->n_disks; i++)
		json_array_append_new(disks, json_pack("{s:s, s:s, s:b, s:s}", "path", c->disks[i].path, "format", formats[c->disks[i].format],
						       "read_only", c->disks[i].read_only, "serial", c->disks[i].serial));
	for (unsigned i = 0; i < c->n_nics; i++) {
		const uint8_t *m = c->nics[i].mac;
		char mac[18];

		snprintf(mac, sizeof(mac), "%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5]);
		json_array_append_new(nics, json_pack("{s:s, s:s}", "bridge", c->nics[i].bridge, "mac", mac));
	}
	return json_pack("{s:s, s:s, s:I, s:i, s:s, s:s, s:s, s:o, s:o, s:s, s:s, s:s, s:s, s:i}", "name", c->name, "uuid",
			 csv_uuid_to_text(c->uuid, uuid), "memory_bytes", (json_int_t)c->memory_bytes, "cpus", (int)c->cpus, "machine",
			 c->machine, "cpu", c->cpu, "accel", accels[c->accel], "disks", disks, "nics", nics, "kernel", c->kernel, "initrd",
			 c->initrd, "append", c->append, "port", c->port, "downtime_ms", (int)c->downtime_ms);
}

/* ---- the definition ---------------------------------------------------------------------------------------------------- */

const char *vm_want_to_text(enum vm_want w)
{
	return wants[w];
}

int vm_want_parse(const char *s, enum vm_want *ret)
{
	for (size_t i = 0; i < ARRAY_SIZE(wants); i++)
		if (!strcmp(s, wants[i])) {
			*ret = (enum vm_want)i;
			return 0;
		}
	return -EINVAL;
}

int vmdef_decode(const json_t *o, struct vm_def *ret, struct csv_err *err)
{
	static const char *const keys[] = { "name", "want", "priority", "ha", "newest" };
	struct in in = { o, "", err, 0 };
	struct vm_def d = { 0 };

	known(&in, keys, ARRAY_SIZE(keys));
	text(&in, "name", d.name, sizeof(d.name), NULL);
	if (!in.rc && !agent_vm_name_valid(d.name))
		fail(&in, "name", "'%.60s': letters, digits and - _ . only, not first . or -", d.name);
	d.want = in.rc ? 0 : (enum vm_want)one_of(&in, "want", wants, ARRAY_SIZE(wants), NULL);
	d.priority = (unsigned)number(&in, "priority", 0, VMCONF_PRIORITY_MAX, VMCONF_PRIORITY_MAX / 2);
	d.ha = boolean(&in, "ha", true);
	d.newest = (uint32_t)number(&in, "newest", 1, UINT32_MAX, -1);
	if (!in.rc)
		*ret = d;
	return in.rc;
}

json_t *vmdef_encode(const struct vm_def *d)
{
	return json_pack("{s:s, s:s, s:i, s:b, s:I}", "name", d->name, "want", wants[d->want], "priority", (int)d->priority, "ha", d->ha,
			 "newest", (json_int_t)d->newest);
}
