/*
 * hvhost/hvhostd_store.c: definitions on a volume (a folder here): whose a disk is.
 */
#include "hvhost/hvhostd_store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/unit/unit.h"

static char volume[64];

static void file(const char *name, off_t size)
{
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", volume, name);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(ftruncate(fd, size), 0);
	close(fd);
}

static void begin(void)
{
	char raw[80];

	snprintf(volume, sizeof(volume), "/tmp/test_store.XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(volume));
	snprintf(raw, sizeof(raw), "%s/.raw", volume);
	ck_assert_int_eq(mkdir(raw, 0700), 0);
	file("a.vhd", 1);
	file("b.vhd", 1);
	file(".raw/a.vhd", 4096);
	file(".raw/b.vhd", 4096);
	file(".raw/link.vhd", 4096);
}

static void end(void)
{
	char cmd[128];

	snprintf(cmd, sizeof(cmd), "rm -r %s", volume);
	ck_assert_int_eq(system(cmd), 0);
}

static int define(const char *vm, const char *disk, bool read_only, const char *disk2, struct csv_err *err)
{
	json_t *o = json_pack("{s:s, s:s, s:i, s:i, s:[{s:s, s:b}]}", "name", vm, "uuid", "6ba7b810-9dad-11d1-80b4-00c04fd430c8", "memory_bytes", 64 << 20,
			      "cpus", 1, "disks", "path", disk, "read_only", read_only);
	struct vm_conf *c;
	uint32_t n;
	int rc;

	if (disk2)
		json_array_append_new(json_object_get(o, "disks"), json_pack("{s:s}", "path", disk2));
	ck_assert_msg(!vmconf_decode(o, &c, err), "%s", err->text);
	rc = store_define(volume, c, NULL, NULL, false, &n, err);
	free(c);
	json_decref(o);
	return rc;
}

START_TEST(a_disk_of_another_vm_is_refused_and_the_vm_named)
{
	struct csv_err err = CSV_ERR_INIT;

	begin();
	ck_assert_int_eq(define("web1", "a.vhd", false, NULL, &err), 0);
	ck_assert_int_eq(define("web2", "b.vhd", false, "a.vhd", &err), -EBUSY);
	ck_assert_msg(strstr(err.text, "disks[1].path: a.vhd") && strstr(err.text, "web1"), "%s", err.text);
	ck_assert_int_eq(define("web2", "b.vhd", false, NULL, &err), 0);
	/* its own are not another's, and those of a deleted one are nobody's */
	ck_assert_int_eq(define("web2", "b.vhd", false, NULL, &err), 0);
	ck_assert_int_eq(store_delete(volume, "web1", false, &err), 0);
	ck_assert_int_eq(define("web3", "a.vhd", false, NULL, &err), 0);
	end();
}
END_TEST

START_TEST(another_name_of_the_image_does_not_hide_it)
{
	struct csv_err err = CSV_ERR_INIT;
	char from[128], to[128];

	begin();
	snprintf(from, sizeof(from), "%s/a.vhd", volume);
	snprintf(to, sizeof(to), "%s/link.vhd", volume);
	ck_assert_int_eq(link(from, to), 0);
	ck_assert_int_eq(define("web1", "a.vhd", false, NULL, &err), 0);
	ck_assert_int_eq(define("web2", "link.vhd", false, NULL, &err), -EBUSY);
	ck_assert_int_eq(define("web3", "link.vhd", false, "a.vhd", &err), -EINVAL);
	end();
}
END_TEST

START_TEST(a_disk_that_all_only_read_may_be_shared)
{
	struct csv_err err = CSV_ERR_INIT;

	begin();
	ck_assert_int_eq(define("web1", "a.vhd", true, NULL, &err), 0);
	ck_assert_int_eq(define("web2", "a.vhd", true, NULL, &err), 0);
	ck_assert_int_eq(define("web3", "a.vhd", false, NULL, &err), -EBUSY);
	end();
}
END_TEST

START_TEST(what_is_no_disk_is_refused_with_what_to_do)
{
	static const struct { const char *name; off_t size; const char *says; } c[] = {
		{ "x.vhdx", 4096, "there is no disk in it" }, { "x.vhd", 4096, "csvctl vhd check" }, { "empty.raw", 0, "0 bytes" },
		{ "text", 14, "14 bytes: a disk is some sectors of 512 bytes" },
	};
	struct csv_err err = CSV_ERR_INIT;

	begin();
	for (size_t i = 0; i < ARRAY_SIZE(c); i++) {
		file(c[i].name, c[i].size);
		ck_assert_int_eq(define("web1", c[i].name, false, NULL, &err), -EINVAL);
		ck_assert_msg(strstr(err.text, "disks[0].path") && strstr(err.text, c[i].name) && strstr(err.text, c[i].says), "%s", err.text);
	}
	file("disk.raw", 1 << 20);
	ck_assert_int_eq(define("web1", "disk.raw", false, NULL, &err), 0);
	end();
}
END_TEST

UNIT_MAIN("store", UNIT_TEST(a_disk_of_another_vm_is_refused_and_the_vm_named), UNIT_TEST(another_name_of_the_image_does_not_hide_it),
	  UNIT_TEST(a_disk_that_all_only_read_may_be_shared), UNIT_TEST(what_is_no_disk_is_refused_with_what_to_do))
