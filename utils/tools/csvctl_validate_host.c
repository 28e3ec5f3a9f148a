/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * csvctl_validate_host.c - cluster validate: kernel, FUSE, QEMU, clock, programs and services of this host, and its shared disk.
 */
#include "utils/tools/csvctl_admin.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <mntent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/timex.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#define BLOCK 4096u		/* what csvfs writes at least */

int val_run(char *ret, size_t size, const char *const *argv)
{
	char buf[4096], *line;
	int p[2], status, null = open("/dev/null", O_RDONLY | O_CLOEXEC);
	size_t n = 0;
	ssize_t r;
	pid_t pid;

	ret[0] = '\0';
	if (pipe2(p, O_CLOEXEC)) {
		close(null);
		return -1;
	}
	pid = fork();
	if (!pid) {
		dup2(null, 0);
		dup2(p[1], 1);
		dup2(p[1], 2);
		execvp(argv[0], (char *const *)argv);
		_exit(127);
	}
	close(null);
	close(p[1]);
	while ((r = read(p[0], buf + n, sizeof(buf) - 1 - n)) > 0)
		n += (size_t)r;
	buf[n] = '\0';
	close(p[0]);
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return -1;
	while (n && buf[n - 1] == '\n')
		buf[--n] = '\0';
	line = strrchr(buf, '\n');
	snprintf(ret, size, "%s", line ? line + 1 : buf);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* ---- the host ---------------------------------------------------------------------------------------------------------------------- */

static bool has_cgroup2(void)
{
	FILE *f = setmntent("/proc/self/mounts", "re");
	struct mntent *m;
	bool found = false;

	while (f && (m = getmntent(f)))
		found |= !strcmp(m->mnt_type, "cgroup2");
	if (f)
		endmntent(f);
	return found;
}

static void check_kernel(struct val *v)
{
	static const char *const prog[] = { "/sbin/mount.csvfs", "/sbin/umount.csvfs", "/sbin/umount.fuse.csvfs" };
	unsigned major = 0, minor = 0;
	struct utsname u;

	if (!uname(&u) && sscanf(u.release, "%u.%u", &major, &minor) == 2 && (major < 5 || (major == 5 && minor < 14)))
		val_add(v, VAL_WRONG, "kernel", "version", "use Debian 12's kernel, or a newer one", "%s: 5.14 is needed (cgroup.kill, pidfd, FUSE)", u.release);
	else
		val_add(v, VAL_OK, "kernel", "version", NULL, "%u.%u", major, minor);
	if (access("/dev/fuse", R_OK | W_OK))
		val_add(v, VAL_WRONG, "/dev/fuse", "FUSE", "modprobe fuse; in a container: give it the device", "%s", strerror(errno));
	else
		val_add(v, VAL_OK, "/dev/fuse", "FUSE", NULL, "there");
	if (!has_cgroup2())
		val_add(v, VAL_WARNING, "/sys/fs/cgroup", "control groups", "boot with systemd.unified_cgroup_hierarchy=1", "no cgroup v2: virtual machines cannot be frozen or killed as a whole");
	for (size_t i = 0; i < ARRAY_SIZE(prog); i++)
		if (access(prog[i], X_OK))
			val_add(v, VAL_WRONG, prog[i], "program", "make install with --prefix=/usr", "not there: mount(8) and umount(8) look for it nowhere else");
}

static void check_qemu(struct val *v)
{
	const char *const argv[] = { "qemu-system-x86_64", "--version", NULL };
	unsigned major = 0, minor = 0;
	char said[200];
	int rc = val_run(said, sizeof(said), argv);

	/* its last line is the copyright: ask for what begins with the version */
	if (!rc) {
		const char *const sh[] = { "sh", "-c", "qemu-system-x86_64 --version | head -n 1", NULL };

		val_run(said, sizeof(said), sh);
	}
	if (rc == 127)
		val_add(v, VAL_WARNING, "QEMU", "program", "apt-get install qemu-system-x86", "not installed: no virtual machine can run on this node");
	else if (rc || sscanf(said, "QEMU emulator version %u.%u", &major, &minor) != 2)
		val_add(v, VAL_WRONG, "QEMU", "program", "qemu-system-x86_64 --version", "does not say its version: %s", said);
	else if (major < 7 || (major == 7 && minor < 2))
		val_add(v, VAL_WRONG, "QEMU", "version", "upgrade to Debian 12's, or newer", "%u.%u: 7.2 is needed", major, minor);
	else
		val_add(v, VAL_OK, "QEMU", "version", NULL, "%u.%u", major, minor);
	if (access("/dev/kvm", R_OK | W_OK))
		val_add(v, VAL_WARNING, "/dev/kvm", "acceleration", "switch virtualisation on in the firmware; modprobe kvm_intel or kvm_amd", "%s: virtual machines will be slow",
			strerror(errno));
	else
		val_add(v, VAL_OK, "/dev/kvm", "acceleration", NULL, "there");
}

static void check_clock(struct val *v)
{
	struct timex t = { .modes = 0 };

	if (adjtimex(&t) == TIME_ERROR || (t.status & STA_UNSYNC))
		val_add(v, VAL_WARNING, "clock", "synchronised", "apt-get install chrony", "the kernel's clock is not synchronised: log lines of different nodes cannot be "
			"compared (nothing that must be right depends on it)");
	else
		val_add(v, VAL_OK, "clock", "synchronised", NULL, "to %ld ms", t.maxerror / 1000);
}

static void check_services(struct val *v)
{
	const char *const argv[] = { "systemctl", "is-enabled", "corosync.service", NULL };
	char said[200];

	if (!access("/run/systemd/system", F_OK) && val_run(said, sizeof(said), argv) != 0)
		val_add(v, VAL_WARNING, "corosync.service", "starts at boot", "systemctl enable corosync", "%s", said);
	if (access("/dev/watchdog", F_OK) && access("/dev/watchdog0", F_OK))
		val_add(v, VAL_WARNING, "/dev/watchdog", "watchdog", "load the driver of the board's watchdog, or softdog", "there is none: a host that hangs is only stopped by its fence agent");
}

void val_host(struct val *v)
{
	check_kernel(v);
	check_qemu(v);
	check_clock(v);
	check_services(v);
}

/* ---- the disk ------------------------------------------------------------------------------------------------------------------------ */

static bool sys_text(const char *dir, const char *name, char *ret, size_t size)
{
	char path[PATH_MAX];
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	n = read(fd, ret, size - 1);
	close(fd);
	if (n < 0)
		return false;
	ret[n] = '\0';
	ret[strcspn(ret, "\n")] = '\0';
	return true;
}

static unsigned long sys_number(const char *dir, const char *name)
{
	char text[64];

	return sys_text(dir, name, text, sizeof(text)) ? strtoul(text, NULL, 10) : 0;
}

/* How many there are in a folder of links to devices, and the name of one. */
static unsigned sys_each(const char *dir, const char *name, char *ret_last, size_t size)
{
	char path[PATH_MAX];
	struct dirent *e;
	unsigned n = 0;
	DIR *d;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	d = opendir(path);
	while (d && (e = readdir(d)))
		if (e->d_name[0] != '.') {
			n++;
			snprintf(ret_last, size, "%s", e->d_name);
		}
	if (d)
		closedir(d);
	return n;
}

static void check_multipath(struct val *v, const char *path, const char *dir)
{
	char text[256], holder[256], at[512];
	unsigned paths;

	if (sys_text(dir, "dm/uuid", text, sizeof(text)) && !strncmp(text, "mpath-", 6)) {
		const char *const argv[] = { "dmsetup", "table", path, NULL };
		char said[512];

		paths = sys_each(dir, "slaves", holder, sizeof(holder));
		if (paths < 2)
			val_add(v, VAL_WARNING, path, "multipath", "multipath -ll; look at cables and switches", "%u path", paths);
		else
			val_add(v, VAL_OK, path, "multipath", NULL, "%u paths", paths);
		if (!val_run(said, sizeof(said), argv) && strstr(said, "queue_if_no_path"))
			val_add(v, VAL_WRONG, path, "multipath", "in multipath.conf: no_path_retry 12 (or fail), not queue",
				"queue_if_no_path: when the last path is lost, everything on this host hangs for ever, instead of an error");
		return;
	}
	if (sys_each(dir, "holders", holder, sizeof(holder))) {
		snprintf(at, sizeof(at), "%s/holders/%s", dir, holder);
		if (sys_text(at, "dm/uuid", text, sizeof(text)) && !strncmp(text, "mpath-", 6) && sys_text(at, "dm/name", text, sizeof(text)))
			val_add(v, VAL_WRONG, path, "multipath", "use /dev/mapper/ and its name", "one path of the multipath device %s: without the others when it fails", text);
		else
			val_add(v, VAL_WRONG, path, "in use", "lsblk; choose another disk", "something else lies on it: %s", holder);
	}
}

static void check_io(struct val *v, const char *path, const char *dir)
{
	unsigned long logical = sys_number(dir, "queue/logical_block_size"), physical = sys_number(dir, "queue/physical_block_size");
	unsigned long min_io = sys_number(dir, "queue/minimum_io_size");

	if (logical > BLOCK || physical > BLOCK)
		val_add(v, VAL_WRONG, path, "block size", "choose another disk", "its blocks are %lu bytes: a power cut could tear the 4096 that csvfs writes",
			csv_max(logical, physical));
	else
		val_add(v, VAL_OK, path, "block size", NULL, "%lu, physically %lu", logical, physical);
	if (min_io > BLOCK)
		val_add(v, VAL_WARNING, path, "minimum I/O", "a LUN without parity (mirrored), or one with a write cache that survives a power cut", "%lu bytes: smaller writes make the array "
			"read and write again", min_io);
	if (sys_number(dir, "ro"))
		val_add(v, VAL_WRONG, path, "writable", "blockdev --setrw, or allow it on the array", "read-only");
}

void val_device(struct val *v, const char *path)
{
	char dir[64], parent[128], name[64];
	struct stat st;

	if (stat(path, &st)) {
		val_add(v, VAL_WRONG, path, "disk", "look whether this host sees the LUN: lsblk, multipath -ll", "%s", strerror(errno));
		return;
	}
	if (S_ISREG(st.st_mode)) {
		val_add(v, VAL_WARNING, path, "shared", "a LUN that all hosts reach", "a file: other hosts cannot mount it");
		return;
	}
	if (!S_ISBLK(st.st_mode)) {
		val_add(v, VAL_WRONG, path, "disk", "give a block device", "neither a block device nor a file");
		return;
	}
	snprintf(dir, sizeof(dir), "/sys/dev/block/%u:%u", major(st.st_rdev), minor(st.st_rdev));
	snprintf(parent, sizeof(parent), "%s/partition", dir);
	if (!access(parent, F_OK)) {
		snprintf(parent, sizeof(parent), "%s/..", dir);
		check_io(v, path, parent);
	} else {
		check_io(v, path, dir);
		check_multipath(v, path, dir);
	}
	snprintf(parent, sizeof(parent), "%s/loop", dir);
	if (!access(parent, F_OK))
		val_add(v, VAL_WARNING, path, "shared", "a LUN that all hosts reach", "a loop device: other hosts cannot mount it");
	else if (sscanf(path, "/dev/sd%60[a-z0-9]", name) == 1)
		val_add(v, VAL_WARNING, path, "name", "use its name in /dev/disk/by-id/ or /dev/mapper/", "may be another disk after the next boot");
}
