/*
 * hvhost/hvhostd_mount.c: what mounts and daemons say, put into one word.
 */
#include "hvhost/hvhostd_mount.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tests/unit/unit.h"
#include "utils/base/base.h"

static struct mount_report judged(bool mounted, int statfs_rc, int rpc_rc, const char *state, const char *why)
{
	struct mount_facts f = { .mounted = mounted, .statfs_rc = statfs_rc, .rpc_rc = rpc_rc };
	struct mount_report r;

	snprintf(f.state, sizeof(f.state), "%s", state);
	snprintf(f.why, sizeof(f.why), "%s", why);
	mount_judge("/srv/csv", &f, &r);
	return r;
}

START_TEST(only_a_living_mount_is_a_place_for_vms)
{
	static const struct { bool mounted; int statfs_rc, rpc_rc; const char *state; enum mount_state is; } t[] = {
		{ true, 0, -ENOENT, "", MOUNT_ALIVE },
		{ true, 0, -ETIMEDOUT, "", MOUNT_ALIVE },		/* the mount's own word comes first */
		{ true, -EINPROGRESS, 0, "PAUSED", MOUNT_WAITS },
		{ true, -EINPROGRESS, 0, "ACTIVE", MOUNT_WAITS },
		{ true, -EINPROGRESS, 0, "JOINING", MOUNT_JOINING },
		{ false, -ENOENT, 0, "JOINING", MOUNT_JOINING },
		{ false, -ENOENT, 0, "ACTIVE", MOUNT_JOINING },		/* about to be mounted */
		{ true, -EIO, 0, "WITHDRAWN", MOUNT_DEAD },
		{ true, -ENOTCONN, -ECONNREFUSED, "", MOUNT_DEAD },
		{ true, -ENOTCONN, -ENOENT, "", MOUNT_DEAD },
		{ true, -EINPROGRESS, -ETIMEDOUT, "", MOUNT_DEAD },
		{ false, -ENOENT, -ETIMEDOUT, "", MOUNT_DEAD },
		{ false, -ENOENT, -ECONNREFUSED, "", MOUNT_NONE },
		{ false, -ENOENT, -ENOENT, "", MOUNT_NONE },
	};

	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		struct mount_report r = judged(t[i].mounted, t[i].statfs_rc, t[i].rpc_rc, t[i].state, "");

		ck_assert_msg(r.state == t[i].is, "case %zu: %s, should be %s", i, mount_state_name(r.state), mount_state_name(t[i].is));
		ck_assert_int_eq(mount_is_place(r.state), r.state == MOUNT_ALIVE || r.state == MOUNT_WAITS);
		ck_assert_msg(!*r.reason == (r.state == MOUNT_ALIVE), "case %zu: \"%s\"", i, r.reason);
		ck_assert_msg(*r.command || r.state == MOUNT_ALIVE || r.state == MOUNT_WAITS || r.state == MOUNT_JOINING, "case %zu: no command", i);
	}
}
END_TEST

START_TEST(what_csvfsd_asks_of_a_person_is_the_command)
{
	struct mount_report r = judged(false, -ENOENT, 0, "JOINING", "/srv/csv: node 3 is lost and not recovered: no agent; make sure that it is off, "
				       "then: csvctl node confirm-fenced 3");

	ck_assert_str_eq(r.command, "csvctl node confirm-fenced 3");
	ck_assert_ptr_nonnull(strstr(r.reason, "is not mounted yet"));
	ck_assert_ptr_nonnull(strstr(r.reason, "node 3 is lost"));
}
END_TEST

static void info(const char *text, char path[static 64])
{
	int fd;

	snprintf(path, 64, "/tmp/test_mount.XXXXXX");
	fd = mkstemp(path);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	close(fd);
}

START_TEST(the_mount_on_top_counts_and_it_must_be_a_csvfs)
{
	static const struct { const char *text; bool there; } t[] = {
		{ "36 35 0:52 / /srv/csv rw,nosuid - fuse.csvfs /dev/loop0 rw\n", true },
		{ "36 35 0:52 / /srv/csv rw,nosuid shared:1 master:2 - fuse.csvfs /dev/loop0 rw\n", true },
		{ "36 35 0:52 / /srv/csv2 rw - fuse.csvfs /dev/loop0 rw\n", false },
		{ "36 35 0:52 / /srv/csv rw - ext4 /dev/loop0 rw\n", false },
		{ "36 35 0:52 / /srv/csv rw - fuse.csvfs /dev/loop0 rw\n40 36 0:60 / /srv/csv rw - tmpfs tmpfs rw\n", false },
		{ "36 35 0:60 / /srv/csv rw - tmpfs tmpfs rw\n40 36 0:52 / /srv/csv rw - fuse.csvfs /dev/loop0 rw\n", true },
		{ "36 35\n\n- - - - - -\n36 35 0:52 / /srv/csv\n36 35 0:52 / /srv/csv rw -\n", false },
		{ "", false },
	};
	char path[64];

	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		info(t[i].text, path);
		ck_assert_msg(mount_is_there(path, "/srv/csv") == t[i].there, "case %zu", i);
		unlink(path);
	}
	info("36 35 0:52 / /srv/my\\040csv rw - fuse.csvfs /dev/loop0 rw\n", path);
	ck_assert(mount_is_there(path, "/srv/my csv"));
	unlink(path);
	ck_assert(!mount_is_there("/nonexistent", "/srv/csv"));
}
END_TEST

START_TEST(a_folder_is_named_as_the_kernel_names_it)
{
	char dir[64], link[80], path[128], is[256], real[256];

	snprintf(dir, sizeof(dir), "/tmp/test_mount.XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(link, sizeof(link), "%s/link", dir);
	ck_assert_int_eq(symlink(dir, link), 0);
	snprintf(path, sizeof(path), "%s/csv///", link);
	mount_dir(path, is, sizeof(is));
	ck_assert_ptr_nonnull(realpath(dir, real));
	snprintf(path, sizeof(path), "%.100s/csv", real);
	ck_assert_str_eq(is, path);
	mount_dir("/", is, sizeof(is));
	ck_assert_str_eq(is, "/");
	mount_dir("/csv", is, sizeof(is));
	ck_assert_str_eq(is, "/csv");
	unlink(link);
	rmdir(dir);
}
END_TEST

static void check_link(const char *dir, const char *to, const char *should)
{
	char link[80], is[256];

	snprintf(link, sizeof(link), "%.60s/vms", dir);
	ck_assert_int_eq(symlink(to, link), 0);
	mount_dir(link, is, sizeof(is));
	ck_assert_msg(!strcmp(is, should), "%s -> %s is %s, should be %s", link, to, is, should);
	unlink(link);
}

/* The kernel's list has the mount where the link leads, and so has its csvfsd. */
START_TEST(a_volume_may_be_named_by_a_link)
{
	char dir[64], real[256], path[300];

	snprintf(dir, sizeof(dir), "/tmp/test_mount.XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	ck_assert_ptr_nonnull(realpath(dir, real));
	check_link(dir, "/srv/csv", "/srv/csv");
	check_link(dir, "/csv/", "/csv");
	snprintf(path, sizeof(path), "%s/csv", real);
	check_link(dir, "csv", path);
	snprintf(path, sizeof(path), "%s/vms", real);
	check_link(dir, "vms", path);		/* a circle: as it stands */
	rmdir(dir);
}
END_TEST

START_TEST(a_volume_that_is_mounted_and_slow_is_said_to_be_so)
{
	struct mount_report r = judged(true, -EINPROGRESS, 0, "ACTIVE", "mounted");

	ck_assert_msg(strstr(r.reason, "answers slowly"), "%s", r.reason);
	r = judged(true, -EIO, 0, "ACTIVE", "mounted");
	ck_assert_msg(strstr(r.reason, "Input/output error"), "%s", r.reason);
	r = judged(true, -EINPROGRESS, 0, "PAUSED", "no quorum");
	ck_assert_msg(strstr(r.reason, "waits: no quorum"), "%s", r.reason);
}
END_TEST

START_TEST(a_folder_that_no_daemon_served_has_none)
{
	struct mount_facts f = { .rpc_rc = 1 };

	mount_ask("/nonexistent", "/srv/csv", 1000, &f);
	ck_assert_int_eq(f.rpc_rc, -ENOENT);
}
END_TEST

UNIT_MAIN("mount", UNIT_TEST(only_a_living_mount_is_a_place_for_vms), UNIT_TEST(what_csvfsd_asks_of_a_person_is_the_command),
	  UNIT_TEST(the_mount_on_top_counts_and_it_must_be_a_csvfs), UNIT_TEST(a_folder_is_named_as_the_kernel_names_it),
	  UNIT_TEST(a_volume_may_be_named_by_a_link), UNIT_TEST(a_volume_that_is_mounted_and_slow_is_said_to_be_so),
	  UNIT_TEST(a_folder_that_no_daemon_served_has_none))
