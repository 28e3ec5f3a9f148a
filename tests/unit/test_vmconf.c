/* SPDX-License-Identifier: GPL-2.0-only */
/* Configurations and definitions of VMs, and the command line made of one. */
#include <errno.h>
#include <string.h>

#include "hvhost/qemu_args.h"
#include "hvhost/vmconf.h"
#include "tests/unit/unit.h"

static const char full[] =
	"{\"name\":\"web1\",\"uuid\":\"6ba7b810-9dad-11d1-80b4-00c04fd430c8\",\"memory_bytes\":268435456,\"cpus\":2,\"machine\":\"pc-q35-7.2\","
	"\"cpu\":\"qemu64\",\"accel\":\"tcg\",\"disks\":[{\"path\":\"vms/web1/a.vhdx\",\"serial\":\"S1\"},{\"path\":\"iso/x, y.img\","
	"\"read_only\":true},{\"path\":\"vms/web1/b\",\"format\":\"vhd\"}],\"nics\":[{\"bridge\":\"br0\",\"mac\":\"52:54:00:12:34:5f\"}],"
	"\"kernel\":\"kernel.1\",\"initrd\":\"initrd.1\",\"append\":\"console=ttyS0 a=\\\"b\\\"\",\"port\":\"/run/x,y\",\"downtime_ms\":100}";

static json_t *load(const char *text)
{
	json_error_t e;
	json_t *o = json_loads(text, JSON_REJECT_DUPLICATES, &e);

	ck_assert_msg(o != NULL, "%s: %s", text, e.text);
	return o;
}

START_TEST(a_configuration_comes_back_as_it_went)
{
	struct csv_err err = CSV_ERR_INIT;
	struct vm_conf *a, *b;
	json_t *o = load(full), *o2;

	ck_assert_msg(!vmconf_decode(o, &a, &err), "%s", err.text);
	o2 = vmconf_encode(a);
	ck_assert_msg(!vmconf_decode(o2, &b, &err), "%s", err.text);
	ck_assert_int_eq(memcmp(a, b, sizeof(*a)), 0);
	ck_assert_uint_eq(a->n_disks, 3);
	ck_assert_int_eq(a->disks[0].format, VM_DISK_VHDX);
	ck_assert_int_eq(a->disks[1].format, VM_DISK_RAW);
	ck_assert_int_eq(a->disks[2].format, VM_DISK_VHD);
	ck_assert(a->disks[1].read_only);
	ck_assert_uint_eq(a->nics[0].mac[5], 0x5f);
	ck_assert_uint_eq(a->downtime_ms, 100);
	free(a);
	free(b);
	json_decref(o);
	json_decref(o2);
}
END_TEST

/* A field of the full one changed to `value` (JSON; NULL: taken away): what the error must name. */
static const struct { const char *key, *value, *names; } bad[] = {
	{ "name", NULL, "name: is missing" }, { "name", "\"../x\"", "name" }, { "name", "\"\"", "name" }, { "name", "7", "name" },
	{ "uuid", "\"6ba7b810\"", "uuid" }, { "uuid", NULL, "uuid" }, { "memory_bytes", "1048575", "memory_bytes" },
	{ "memory_bytes", "268435457", "memory_bytes" }, { "memory_bytes", "-1", "memory_bytes" }, { "memory_bytes", "1e9", "memory_bytes" },
	{ "memory_bytes", "9223372036854775807", "memory_bytes" }, { "cpus", "0", "cpus" }, { "cpus", "256", "cpus" },
	{ "cpus", "\"2\"", "cpus" }, { "machine", "\"q35\"", "machine" }, { "machine", "\"pc-q35-7.2,accel=kvm\"", "machine" },
	{ "cpu", "\"host,+x\"", "cpu" }, { "accel", "\"xen\"", "accel" }, { "disks", "[]", "disks" }, { "disks", NULL, "disks" },
	{ "disks", "{}", "disks" }, { "disks", "[{}]", "disks[0].path" }, { "disks", "[{\"path\":\"/etc/shadow\"}]", "disks[0].path" },
	{ "disks", "[{\"path\":\"a/../../b\"}]", "disks[0].path" }, { "disks", "[{\"path\":\"a//b\"}]", "disks[0].path" },
	{ "disks", "[{\"path\":\"a/\"}]", "disks[0].path" }, { "disks", "[{\"path\":\".raw/a.vhd\"}]", "disks[0].path" },
	{ "disks", "[{\"path\":\"a\"},{\"path\":\"a\"}]", "disks" }, { "disks", "[{\"path\":\"a\",\"format\":\"qcow2\"}]", "disks[0].format" },
	{ "disks", "[{\"path\":\"a\",\"readonly\":true}]", "disks[0].readonly" }, { "disks", "[{\"path\":\"a\\n\"}]", "disks[0].path" },
	{ "disks", "[{\"path\":\"a\",\"serial\":\"a,b\"}]", "disks[0].serial" },
	{ "disks", "[{\"path\":\"a\",\"serial\":\"123456789012345678901\"}]", "disks[0].serial" },
	{ "nics", "[{\"bridge\":\"br0\"}]", "nics[0].mac" }, { "nics", "[{\"bridge\":\"br0\",\"mac\":\"53:54:00:12:34:56\"}]", "nics[0].mac" },
	{ "nics", "[{\"bridge\":\"br0\",\"mac\":\"52:54:00:12:34:5\"}]", "nics[0].mac" },
	{ "nics", "[{\"bridge\":\"br0\",\"mac\":\"52:54:00:12:34:5g\"}]", "nics[0].mac" },
	{ "nics", "[{\"bridge\":\"0123456789abcdef\",\"mac\":\"52:54:00:12:34:56\"}]", "nics[0].bridge" },
	{ "nics", "[{\"bridge\":\"b\",\"mac\":\"52:54:00:12:34:56\"},{\"bridge\":\"b\",\"mac\":\"52:54:00:12:34:56\"}]", "nics" },
	{ "kernel", "\"../kernel\"", "kernel" }, { "kernel", NULL, "initrd" }, { "append", "7", "append" }, { "port", "\"run\"", "port" },
	{ "downtime_ms", "0", "downtime_ms" }, { "memory", "1", "memory: there is no such field" },
};

START_TEST(a_bad_field_is_refused_by_name)
{
	struct csv_err err = CSV_ERR_INIT;
	struct vm_conf *c = NULL;
	json_t *o = load(full);

	if (bad[_i].value)
		json_object_set_new(o, bad[_i].key, json_loads(bad[_i].value, JSON_DECODE_ANY, NULL));
	else
		json_object_del(o, bad[_i].key);
	ck_assert_msg(vmconf_decode(o, &c, &err) == -EINVAL, "%s = %s is taken", bad[_i].key, bad[_i].value);
	ck_assert_msg(!strncmp(err.text, bad[_i].names, strlen(bad[_i].names)), "%s = %s: %s", bad[_i].key, bad[_i].value, err.text);
	ck_assert_ptr_null(c);
	json_decref(o);
}
END_TEST

START_TEST(a_definition_comes_back_and_its_errors_name_the_field)
{
	static const char *const wrong[] = {
		"{\"want\":\"run\",\"newest\":1}", "{\"name\":\"a\",\"want\":\"go\",\"newest\":1}", "{\"name\":\"a\",\"want\":\"run\"}",
		"{\"name\":\"a\",\"want\":\"run\",\"newest\":0}", "{\"name\":\"a\",\"want\":\"run\",\"newest\":1,\"ha\":1}",
		"{\"name\":\"a\",\"want\":\"run\",\"newest\":1,\"priority\":1001}", "{\"name\":\"a\",\"want\":\"run\",\"newest\":1,\"x\":1}", "[]",
	};
	struct vm_def d = { .name = "web1", .want = VM_WANT_PAUSED, .priority = 7, .ha = true, .newest = 4000000000u }, e;
	struct csv_err err = CSV_ERR_INIT;
	json_t *o = vmdef_encode(&d);

	ck_assert_int_eq(vmdef_decode(o, &e, &err), 0);
	ck_assert_str_eq(e.name, "web1");
	ck_assert_int_eq(e.want, VM_WANT_PAUSED);
	ck_assert_uint_eq(e.priority, 7);
	ck_assert(e.ha);
	ck_assert_uint_eq(e.newest, 4000000000u);
	json_decref(o);
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		o = load(wrong[i]);
		ck_assert_msg(vmdef_decode(o, &e, &err) == -EINVAL, "%s is taken", wrong[i]);
		json_decref(o);
	}
}
END_TEST

static bool has(char **argv, const char *opt, const char *part)
{
	for (size_t i = 0; argv[i]; i++)
		if (!strcmp(argv[i], opt) && argv[i + 1] && strstr(argv[i + 1], part))
			return true;
	return false;
}

START_TEST(the_command_line_has_what_the_rules_ask_for)
{
	struct qemu_place p = { .qemu = "qemu", .volume = "/srv/c,s\"v", .vm_dir = "/srv/csv/vms/web1", .qmp = "/run/q,mp", .console = "/run/con",
				.console_log = "/var/log/c", .pid_file = "", .accel = VM_ACCEL_TCG, .incoming = _i, .tap_fds = { 42 } };
	struct csv_err err = CSV_ERR_INIT;
	struct vm_conf *c;
	json_t *o = load(full);
	char **argv;

	ck_assert_int_eq(vmconf_decode(o, &c, &err), 0);
	ck_assert_int_eq(qemu_args_new(c, &p, &argv, &err), 0);
	ck_assert(has(argv, "-S", "-nodefaults"));
	ck_assert(has(argv, "-nodefaults", "-no-user-config"));
	ck_assert(has(argv, "-sandbox", "on"));
	ck_assert(has(argv, "-machine", "pc-q35-7.2"));
	/* QA5 */
	ck_assert(has(argv, "-m", "size=262152K"));
	ck_assert(has(argv, "-uuid", "6ba7b810-9dad-11d1-80b4-00c04fd430c8"));
	ck_assert(has(argv, "-chardev", "path=/run/q,,mp,server=on"));
	ck_assert(has(argv, "-chardev", "path=/run/x,,y,server=off"));
	ck_assert(has(argv, "-blockdev", "/srv/c,s\\\"v/.raw/vms/web1/a.vhdx"));
	ck_assert(has(argv, "-blockdev", "/srv/c,s\\\"v/iso/x, y.img"));
	ck_assert(has(argv, "-device", "\"werror\":\"stop\""));
	ck_assert(has(argv, "-netdev", "fd=42"));
	ck_assert_int_eq(has(argv, "-incoming", "defer"), _i);
	for (size_t i = 0, n = 0; argv[i]; i++) {
		if (!strcmp(argv[i], "-device")) {
			json_t *d = load(argv[i + 1]);

			ck_assert_msg(json_is_string(json_object_get(d, "id")), "%s has no id", argv[i + 1]);
			ck_assert_msg(json_object_get(d, "addr") || json_object_get(d, "lun") || json_object_get(d, "index"),
				      "%s has no address", argv[i + 1]);
			json_decref(d);
			n++;
		} else if (!strcmp(argv[i], "-blockdev")) {
			json_t *d = load(argv[i + 1]);

			ck_assert(json_is_true(json_object_get(json_object_get(d, "cache"), "direct")));
			json_decref(d);
		}
		ck_assert(argv[i + 1] || n == 8);
	}
	qemu_args_free(argv);
	free(c);
	json_decref(o);
}
END_TEST

START_TEST(a_socket_path_that_the_kernel_would_cut_is_refused)
{
	struct qemu_place p = { .qemu = "qemu", .volume = "/v", .vm_dir = "/v/vms/a", .console = "/c", .console_log = "", .pid_file = "" };
	struct csv_err err = CSV_ERR_INIT;
	char path[200];
	struct vm_conf *c;
	json_t *o = load(full);
	char **argv;

	memset(path, 'a', sizeof(path));
	path[0] = '/';
	path[108] = '\0';
	p.qmp = path;
	ck_assert_int_eq(vmconf_decode(o, &c, &err), 0);
	ck_assert_int_eq(qemu_args_new(c, &p, &argv, &err), -ENAMETOOLONG);
	path[107] = '\0';
	ck_assert_int_eq(qemu_args_new(c, &p, &argv, &err), 0);
	qemu_args_free(argv);
	free(c);
	json_decref(o);
}
END_TEST

START_TEST(what_qemu_complains_of_is_told_without_its_options)
{
	static const struct { const char *said, *want; } c[] = {
		{ "qemu: -device {\"driver\":\"scsi-hd\",\"id\":\"a\"}: Image size is not a multiple", "Image size is not a multiple" },
		{ "warning: x\nqemu: -blockdev {\"file\":{\"driver\":\"file\"}}: Failed to get lock", "Failed to get lock" },
		{ "one\nqemu: could not load kernel", "qemu: could not load kernel" }, { "qemu: -device {\"driver\":1}: ", "qemu: -device {\"driver\":1}: " },
		{ "a guest's {words}: here", "a guest's {words}: here" }, { "", "" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(c); i++)
		ck_assert_str_eq(qemu_complaint(c[i].said), c[i].want);
}
END_TEST

UNIT_MAIN("vmconf", UNIT_TEST(a_configuration_comes_back_as_it_went), UNIT_LOOP(a_bad_field_is_refused_by_name, 0, (int)ARRAY_SIZE(bad)),
	  UNIT_TEST(a_definition_comes_back_and_its_errors_name_the_field), UNIT_LOOP(the_command_line_has_what_the_rules_ask_for, 0, 2),
	  UNIT_TEST(a_socket_path_that_the_kernel_would_cut_is_refused), UNIT_TEST(what_qemu_complains_of_is_told_without_its_options))
