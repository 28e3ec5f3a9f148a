/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * hvhostd_accel.c - see hvhostd_accel.h.
 *
 * The boot sector:
 *	b0 2a		mov al, 0x2a
 *	e6 f4		out 0xf4, al		isa-debug-exit: QEMU ends with (0x2a << 1) | 1
 *	f4 eb fd	hlt, again
 */
#include "hvhost/hvhostd_accel.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "hvhost/hvhostd_proc.h"
#include "utils/base/base.h"

#define SAID 0x2a
#define PROBE_EXIT (SAID << 1 | 1)

struct probe { struct proc p; struct waitq wq; bool ended; };

static void on_exit_of(struct proc *p)
{
	struct probe *r = container_of(p, struct probe, p);

	r->ended = true;
	sched_wake_all(loop_sched(p->l), &r->wq);
}

static int sector_write(const char *path)
{
	static const uint8_t code[] = { 0xb0, SAID, 0xe6, 0xf4, 0xf4, 0xeb, 0xfd };
	uint8_t sector[512] = { 0 };
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600), rc;

	if (fd < 0)
		return -errno;
	memcpy(sector, code, sizeof(code));
	sector[510] = 0x55;
	sector[511] = 0xaa;
	rc = write(fd, sector, sizeof(sector)) == sizeof(sector) ? 0 : -EIO;
	close(fd);
	return rc;
}

static bool has_slat(void)
{
	static const char *const param[] = { "/sys/module/kvm_intel/parameters/ept", "/sys/module/kvm_amd/parameters/npt" };
	bool yes = false;

	for (size_t i = 0; i < ARRAY_SIZE(param); i++) {
		FILE *f = fopen(param[i], "re");
		int c = f ? fgetc(f) : 0;

		yes |= c == 'Y' || c == '1';
		if (f)
			fclose(f);
	}
	return yes;
}

static void not_kvm(struct accel_report *r, const char *why)
{
	snprintf(r->reason, sizeof(r->reason), "%s", why);
	r->accel = VM_ACCEL_TCG;
}

void accel_probe(struct loop *l, const char *qemu, const char *dir, const char *base, struct accel_report *ret)
{
	char sector[500], log[500], drive[600];
	char *argv[] = { (char *)qemu, "-machine", VMCONF_MACHINE, "-accel", "kvm", "-cpu", VMCONF_CPU, "-m", "32", "-nodefaults", "-no-user-config",
			 "-display", "none", "-no-reboot", "-blockdev", drive, "-device", "ide-hd,id=d0,drive=probe,bus=ide.0", "-device",
			 "isa-debug-exit,iobase=0xf4,iosize=0x4", NULL };
	struct probe p = { .p.exited = on_exit_of };
	struct csv_err err = CSV_ERR_INIT;
	uint64_t begin = sched_now_ns(loop_sched(l));

	*ret = (struct accel_report){ .accel = VM_ACCEL_KVM };
	if (access("/dev/kvm", R_OK | W_OK)) {
		not_kvm(ret, errno == ENOENT ? "there is no /dev/kvm: is virtualization switched on in the firmware, the module loaded?" :
			"/dev/kvm is there and may not be used");
		return;
	}
	snprintf(sector, sizeof(sector), "%s/probe.img", dir);
	snprintf(log, sizeof(log), "%s/probe.log", dir);
	snprintf(drive, sizeof(drive), "driver=raw,node-name=probe,read-only=on,file.driver=file,file.filename=%s", sector);
	waitq_init(&p.wq);
	unlink(log);
	if (sector_write(sector) || proc_spawn(&p.p, l, base, "probe", argv, NULL, 0, log, &err)) {
		snprintf(ret->reason, sizeof(ret->reason), "the probe could not be started: %.140s", err.text);
		ret->accel = VM_ACCEL_TCG;
		return;
	}
	while (!p.ended && sched_wait_until(loop_sched(l), &p.wq, begin + ACCEL_PROBE_MS * NS_PER_MS, false) != -ETIMEDOUT)
		;
	if (!p.ended) {
		not_kvm(ret, "/dev/kvm is there, but a guest did not run to its end within 10 s");
		proc_kill(&p.p);
		while (!p.ended)
			sched_wait(loop_sched(l), &p.wq);
	} else if (p.p.status != PROBE_EXIT) {
		not_kvm(ret, "/dev/kvm is there, but a guest does not run on it");
	} else {
		ret->slat = has_slat();
	}
	ret->took_ms = (unsigned)((sched_now_ns(loop_sched(l)) - begin) / NS_PER_MS);
	proc_forget(&p.p);
	unlink(sector);
}

const char *accel_text(const struct accel_report *r)
{
	return r->accel != VM_ACCEL_KVM ? "tcg" : r->slat ? "kvm+slat" : "kvm";
}
