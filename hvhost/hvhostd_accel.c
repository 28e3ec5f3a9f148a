/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * hvhostd_accel.c - see hvhostd_accel.h.
 *
 * The guest is a firmware of its own, 64 KiB that end at 4 GiB and are seen below 1 MiB too.  It goes where every guest must be able to go, and
 * does there what only a processor does in time: there are kernels whose /dev/kvm runs guests by emulating each instruction.
 *
 *	f000:fff0	jmp f000:0000
 *	0000		cli; one page of 2 MiB is mapped to itself: 0x1000 -> 0x2000 -> 0x3000
 *	0020		lgdt; cr4 = PAE; cr3 = 0x1000; EFER.LME; cr0 = PG | PE | ET; ljmp 8:long
 *	005a long:	ecx = ROUNDS; dec, jnz		64-bit code from here
 *	0063		rax = 0x2a << 40; shr rax, 40; out 0xf4, al; hlt, again
 *			isa-debug-exit: QEMU ends with (0x2a << 1) | 1
 *	0078, 0088	GDT: none, 64-bit code; its pointer
 */
#include "hvhost/hvhostd_accel.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "hvhost/hvhostd_proc.h"
#include "hvhost/hvhostd_store.h"
#include "utils/base/base.h"

#define SAID 0x2a
#define ROUNDS 0x1000000u		/* a processor: 10 ms */
#define ROM_BYTES 65536u
#define PROBE_EXIT (SAID << 1 | 1)

struct probe { struct proc p; struct waitq wq; bool ended; };

static void on_exit_of(struct proc *p)
{
	struct probe *r = container_of(p, struct probe, p);

	r->ended = true;
	sched_wake_all(loop_sched(p->l), &r->wq);
}

static int rom_write(const char *path)
{
	static const uint8_t code[] = {
		0xfa, 0x31, 0xc0, 0x8e, 0xd8, 0x66, 0xc7, 0x06, 0x00, 0x10, 0x03, 0x20, 0x00, 0x00, 0x66, 0xc7, 0x06, 0x00, 0x20, 0x03, 0x30, 0x00,
		0x00, 0x66, 0xc7, 0x06, 0x00, 0x30, 0x83, 0x00, 0x00, 0x00, 0x2e, 0x66, 0x0f, 0x01, 0x16, 0x88, 0x00, 0x66, 0xb8, 0x20, 0x00, 0x00,
		0x00, 0x0f, 0x22, 0xe0, 0x66, 0xb8, 0x00, 0x10, 0x00, 0x00, 0x0f, 0x22, 0xd8, 0x66, 0xb9, 0x80, 0x00, 0x00, 0xc0, 0x0f, 0x32, 0x66,
		0x0d, 0x00, 0x01, 0x00, 0x00, 0x0f, 0x30, 0x66, 0xb8, 0x11, 0x00, 0x00, 0x80, 0x0f, 0x22, 0xc0, 0x66, 0xea, 0x5a, 0x00, 0x0f, 0x00,
		0x08, 0x00, 0xb9, ROUNDS & 0xff, ROUNDS >> 8 & 0xff, ROUNDS >> 16 & 0xff, ROUNDS >> 24, 0xff, 0xc9, 0x75, 0xfc, 0x48, 0xb8, 0x00,
		0x00, 0x00, 0x00, 0x00, SAID, 0x00, 0x00, 0x48, 0xc1, 0xe8, 0x28, 0xe6, 0xf4, 0xf4, 0xeb, 0xfd, 0x66, 0x90, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
		0x9b, 0x20, 0x00, 0x0f, 0x00, 0x78, 0x00, 0x0f, 0x00 };
	static const uint8_t reset[] = { 0xea, 0x00, 0x00, 0x00, 0xf0 };
	uint8_t *rom = calloc(1, ROM_BYTES);
	int fd = rom ? open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600) : -1, rc;

	if (fd < 0) {
		rc = rom ? -errno : -ENOMEM;
		free(rom);
		return rc;
	}
	memcpy(rom, code, sizeof(code));
	memcpy(rom + ROM_BYTES - 16, reset, sizeof(reset));
	rc = write(fd, rom, ROM_BYTES) == (ssize_t)ROM_BYTES ? 0 : -EIO;
	close(fd);
	free(rom);
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

static void kept_path(const char *dir, char ret[static 500])
{
	snprintf(ret, 500, "%s/accel.json", dir);
}

static bool kept(const char *dir, const char *qemu, struct accel_report *ret)
{
	const char *of, *accel, *reason;
	char path[500];
	json_t *o = NULL;
	bool ok;

	kept_path(dir, path);
	ok = !store_json_read(path, &o, NULL) && !json_unpack(o, "{s:s, s:s, s:s}", "qemu", &of, "accel", &accel, "reason", &reason) && !strcmp(of, qemu);
	if (ok) {
		ret->accel = !strncmp(accel, "kvm", 3) ? VM_ACCEL_KVM : VM_ACCEL_TCG;
		ret->slat = !strcmp(accel, "kvm+slat");
		snprintf(ret->reason, sizeof(ret->reason), "%s", reason);
	}
	json_decref(o);
	return ok;
}

static void keep(const char *dir, const char *qemu, const struct accel_report *r)
{
	json_t *o = json_pack("{s:s, s:s, s:s}", "qemu", qemu, "accel", accel_text(r), "reason", r->reason);
	char path[500], *text = json_dumps(o, JSON_COMPACT);

	kept_path(dir, path);
	/* Not written: asked again next time. */
	if (text)
		(void)!store_file_write(path, text, strlen(text), 0644, NULL);
	free(text);
	json_decref(o);
}

static void not_kvm(struct accel_report *r, const char *why)
{
	snprintf(r->reason, sizeof(r->reason), "%s", why);
	r->accel = VM_ACCEL_TCG;
}

void accel_probe(struct loop *l, const char *qemu, const char *dir, const char *base, struct accel_report *ret)
{
	char rom[500], log[500];
	char *argv[] = { (char *)qemu, "-machine", VMCONF_MACHINE, "-accel", "kvm", "-cpu", VMCONF_CPU, "-m", "32", "-nodefaults", "-no-user-config",
			 "-display", "none", "-no-reboot", "-bios", rom, "-device", "isa-debug-exit,iobase=0xf4,iosize=0x4", NULL };
	struct probe p = { .p.exited = on_exit_of };
	struct csv_err err = CSV_ERR_INIT;
	uint64_t begin = sched_now_ns(loop_sched(l));

	*ret = (struct accel_report){ .accel = VM_ACCEL_KVM };
	if (access("/dev/kvm", R_OK | W_OK)) {
		not_kvm(ret, errno == ENOENT ? "there is no /dev/kvm: is virtualization switched on in the firmware, the module loaded?" :
			"/dev/kvm is there and may not be used");
		return;
	}
	if (kept(dir, qemu, ret))
		return;
	snprintf(rom, sizeof(rom), "%s/probe.rom", dir);
	snprintf(log, sizeof(log), "%s/probe.log", dir);
	waitq_init(&p.wq);
	unlink(log);
	if (rom_write(rom) || proc_spawn(&p.p, l, base, "probe", argv, NULL, 0, log, &err)) {
		snprintf(ret->reason, sizeof(ret->reason), "the probe could not be started: %.140s", err.text);
		ret->accel = VM_ACCEL_TCG;
		return;
	}
	while (!p.ended && sched_wait_until(loop_sched(l), &p.wq, begin + ACCEL_PROBE_MS * NS_PER_MS, false) != -ETIMEDOUT)
		;
	if (!p.ended) {
		not_kvm(ret, "/dev/kvm is there, but a guest did not do in 5 s what a processor does in 0.01 s: it is emulated");
		proc_kill(&p.p);
		while (!p.ended)
			sched_wait(loop_sched(l), &p.wq);
	} else if (p.p.status != PROBE_EXIT) {
		snprintf(ret->reason, sizeof(ret->reason), "/dev/kvm is there, but a guest does not run on it (QEMU ended with status %d)", p.p.status);
		ret->accel = VM_ACCEL_TCG;
	} else {
		ret->slat = has_slat();
	}
	ret->took_ms = (unsigned)((sched_now_ns(loop_sched(l)) - begin) / NS_PER_MS);
	proc_forget(&p.p);
	unlink(rom);
	keep(dir, qemu, ret);
}

const char *accel_text(const struct accel_report *r)
{
	return r->accel != VM_ACCEL_KVM ? "tcg" : r->slat ? "kvm+slat" : "kvm";
}
