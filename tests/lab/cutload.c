/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * cutload.c - the load of t-power-cut: runs inside a lab node, and what it says outlives the node.
 *
 *	cutload load DIR NAME SEED	creates, appends, renames, unlinks, mkdirs, rmdirs with fsync of file and directory; in DIR/NAME and DIR/shared
 *	cutload io FILE SELF NODES	in-place 4 KiB O_DIRECT writes and reads; this node owns the blocks b with b % NODES == SELF - 1
 *	cutload fill FILE BLOCKS	makes such a file: every block written, nothing left to allocate
 *	cutload check FILE SELF NODES ACKED	the blocks of writer SELF hold its writes up to number ACKED, or later ones
 *	cutload probe DIR NAME		metadata of its own only, in DIR, relative to it: nothing is made or removed
 *	cutload make DIR NAME		files made and removed in DIR
 *	cutload cross DIR NAME NODE...	metadata in DIR/NODE for each NODE by turns
 *	cutload raw DEVICE		4 KiB reads of the device itself: how long the machine, not the file system, kept one waiting
 *
 * Standard output is a pipe whose other end is outside.  One write(2) a line, before an operation (small letter: it may or may not be
 * there afterwards) and after its fsync has returned (capital: it must be there).  Each line starts with the CLOCK_MONOTONIC time in ns.
 *
 *	c PATH          / F PATH SIZE CRC	created, written, file and directory fsynced
 *	a PATH SIZE CRC / F PATH SIZE CRC	appended to that size
 *	r OLD NEW       / R OLD NEW		renamed, both directories fsynced
 *	u PATH          / U PATH		unlinked, directory fsynced
 *	m PATH          / M PATH		directory made;  x / X: removed
 *	T BEGIN DONE WHAT		io, probe, cross, raw: operations since the last line; BEGIN: when the longest of them began, DONE: when it ended
 *	N TARGET			cross: a whole turn in TARGET that began after the last one ended
 *	W NUMBER			io: the writes up to this number have returned
 *	! TEXT				an operation failed, or read what nobody wrote
 *
 * Standard input is open as long as the load is wanted.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define BLOCK 4096u
#define MAGIC 0x54554356u		/* "VCUT" */
#define FILES 60			/* kept by one load */
#define PACE_NS 2000000L
#define SAY_NS 10000000u		/* a quiet line at most that often */
#define GAP_NS 5000000u			/* a pause worth a line of its own */

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void say(const char *fmt, ...)
{
	char line[2048];
	va_list ap;
	int n = snprintf(line, sizeof(line), "%" PRIu64 " ", now_ns()), m;

	va_start(ap, fmt);
	m = vsnprintf(line + n, sizeof(line) - (size_t)n - 1, fmt, ap);
	va_end(ap);
	if (m < 0 || n + m > (int)sizeof(line) - 2)
		m = (int)sizeof(line) - 2 - n;
	line[n + m] = '\n';
	if (write(1, line, (size_t)(n + m + 1)) != n + m + 1)
		exit(1);
}

static void fail(const char *what, const char *path)
{
	say("! %s %s: %s", what, path, strerror(errno));
	exit(1);
}

static bool wanted(void)
{
	struct pollfd p = { .fd = 0, .events = POLLIN };
	char c;

	return poll(&p, 1, 0) <= 0 || read(0, &c, 1) > 0;
}

static uint32_t crc32_of(uint32_t crc, const uint8_t *p, size_t n)
{
	crc = ~crc;
	while (n--) {
		crc ^= *p++;
		for (int k = 0; k < 8; k++)
			crc = crc >> 1 ^ (0xedb88320u & -(crc & 1));
	}
	return ~crc;
}

static uint64_t rnd(uint64_t *s)
{
	*s ^= *s << 13;
	*s ^= *s >> 7;
	*s ^= *s << 17;
	return *s * 0x2545f4914f6cdd1du;
}

static void pace(void)
{
	nanosleep(&(struct timespec){ .tv_nsec = PACE_NS }, NULL);
}

/* ---- pauses: between the end of an operation (or the first begin) and the end of the next, without our own rest ------------------------ */

struct gauge { uint64_t said, worst_begin, worst_end; const char *worst; };

static void gauge_op(struct gauge *g, const char *what, uint64_t begin, uint64_t end)
{
	if (end - begin >= g->worst_end - g->worst_begin) {
		g->worst_begin = begin;
		g->worst_end = end;
		g->worst = what;
	}
	if (end - g->said < SAY_NS && end - begin < GAP_NS)
		return;
	say("T %" PRIu64 " %" PRIu64 " %s", g->worst_begin, g->worst_end, g->worst);
	g->said = end;
	g->worst_begin = g->worst_end = 0;
}

/* ---- load ------------------------------------------------------------------------------------------------------------------------------- */

struct item { char path[128]; uint32_t size, crc; bool there; };

struct load {
	const char *name;
	uint64_t rng, serial;
	uint8_t buf[20000];
	struct item file[FILES];
	char dir[8][64];
	int dirs;
};

static void sync_dir_of(const char *path)
{
	char dir[256], *slash;
	int fd;

	snprintf(dir, sizeof(dir), "%s", path);
	slash = strrchr(dir, '/');
	*slash = 0;
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		fail("open directory", dir);
	if (fsync(fd))
		fail("fsync directory", dir);
	close(fd);
}

/* Where a file may be: the own directories, and the one that all nodes share. */
static const char *any_dir(struct load *l)
{
	uint64_t r = rnd(&l->rng) % 8;

	if (r < 2)
		return "shared";
	if (r < 4 && l->dirs)
		return l->dir[rnd(&l->rng) % (unsigned)l->dirs];
	return l->name;
}

static void fill_bytes(struct load *l, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		l->buf[i] = (uint8_t)(rnd(&l->rng) >> 32);
}

static void op_create(struct load *l, struct item *f)
{
	uint32_t n = (uint32_t)(rnd(&l->rng) % 3 ? rnd(&l->rng) % 600 : rnd(&l->rng) % sizeof(l->buf));
	int fd;

	snprintf(f->path, sizeof(f->path), "%s/%s-%" PRIu64, any_dir(l), l->name, l->serial++);
	say("c %s", f->path);
	fd = open(f->path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	if (fd < 0)
		fail("create", f->path);
	fill_bytes(l, n);
	if (pwrite(fd, l->buf, n, 0) != (ssize_t)n)
		fail("write", f->path);
	if (fsync(fd))
		fail("fsync", f->path);
	close(fd);
	sync_dir_of(f->path);
	f->size = n;
	f->crc = crc32_of(0, l->buf, n);
	f->there = true;
	say("F %s %u %08x", f->path, f->size, f->crc);
}

static void op_append(struct load *l, struct item *f)
{
	uint32_t n = 1 + (uint32_t)(rnd(&l->rng) % 3000);
	int fd = open(f->path, O_WRONLY | O_APPEND | O_CLOEXEC);

	if (fd < 0)
		fail("open", f->path);
	fill_bytes(l, n);
	f->crc = crc32_of(f->crc, l->buf, n);
	f->size += n;
	say("a %s %u %08x", f->path, f->size, f->crc);
	if (write(fd, l->buf, n) != (ssize_t)n)
		fail("append", f->path);
	if (fsync(fd))
		fail("fsync", f->path);
	close(fd);
	say("F %s %u %08x", f->path, f->size, f->crc);
}

static void op_rename(struct load *l, struct item *f)
{
	char to[128];

	snprintf(to, sizeof(to), "%s/%s-%" PRIu64, any_dir(l), l->name, l->serial++);
	say("r %s %s", f->path, to);
	if (rename(f->path, to))
		fail("rename", f->path);
	sync_dir_of(f->path);
	sync_dir_of(to);
	say("R %s %s", f->path, to);
	strcpy(f->path, to);
}

static void op_unlink(struct item *f)
{
	say("u %s", f->path);
	if (unlink(f->path))
		fail("unlink", f->path);
	sync_dir_of(f->path);
	say("U %s", f->path);
	f->there = false;
}

static void op_dir(struct load *l)
{
	char *d;

	if (l->dirs < 8 && rnd(&l->rng) % 3) {
		d = l->dir[l->dirs];
		snprintf(d, sizeof(l->dir[0]), "%s/d%" PRIu64, l->name, l->serial++);
		say("m %s", d);
		if (mkdir(d, 0755))
			fail("mkdir", d);
		sync_dir_of(d);
		say("M %s", d);
		l->dirs++;
	} else if (l->dirs) {
		size_t n;

		d = l->dir[l->dirs - 1];
		n = strlen(d);
		for (int i = 0; i < FILES; i++) {
			if (l->file[i].there && !strncmp(l->file[i].path, d, n) && l->file[i].path[n] == '/')
				op_unlink(&l->file[i]);
		}
		say("x %s", d);
		if (rmdir(d))
			fail("rmdir", d);
		sync_dir_of(d);
		say("X %s", d);
		l->dirs--;
	}
}

static int run_load(char **a)
{
	struct load *l = calloc(1, sizeof(*l));

	if (!l || chdir(a[0]))
		fail("chdir", a[0]);
	l->name = a[1];
	l->rng = strtoull(a[2], NULL, 10) * 0x9e3779b97f4a7c15u | 1;
	while (wanted()) {
		struct item *f = &l->file[rnd(&l->rng) % FILES];
		uint64_t r = rnd(&l->rng) % 10;

		if (r == 0)
			op_dir(l);
		else if (!f->there)
			op_create(l, f);
		else if (r < 4)
			op_rename(l, f);
		else if (r < 7 && f->size < 60000)
			op_append(l, f);
		else
			op_unlink(f);
	}
	say("E");
	return 0;
}

/* ---- in-place I/O ---------------------------------------------------------------------------------------------------------------------- */

struct block { uint32_t magic, writer; uint64_t index, number; uint32_t fill[(BLOCK - 24 - 8) / 4]; uint32_t fill_last, crc; };
_Static_assert(sizeof(struct block) == BLOCK, "one block");

static void block_seal(struct block *b, uint32_t writer, uint64_t index, uint64_t number)
{
	b->magic = MAGIC;
	b->writer = writer;
	b->index = index;
	b->number = number;
	for (size_t i = 0; i < sizeof(b->fill) / 4; i++)
		b->fill[i] = (uint32_t)(number * 2654435761u + i);
	b->fill_last = 0;
	b->crc = crc32_of(0, (uint8_t *)b, BLOCK - 4);
}

static bool block_ok(const struct block *b, uint64_t index)
{
	return b->magic == MAGIC && b->index == index && b->crc == crc32_of(0, (const uint8_t *)b, BLOCK - 4);
}

static struct block *block_new(void)
{
	struct block *b = aligned_alloc(BLOCK, BLOCK);

	if (!b)
		exit(1);
	memset(b, 0, BLOCK);
	return b;
}

static uint64_t blocks_of(int fd, const char *path)
{
	struct stat st;

	if (fstat(fd, &st))
		fail("stat", path);
	return (uint64_t)st.st_size / BLOCK;
}

static int run_fill(char **a)
{
	int fd = open(a[0], O_RDWR | O_CREAT | O_TRUNC | O_DIRECT | O_CLOEXEC, 0644);
	struct block *b = block_new();
	uint64_t n = strtoull(a[1], NULL, 10);

	if (fd < 0 || fallocate(fd, 0, 0, (off_t)(n * BLOCK)))
		fail("make", a[0]);
	for (uint64_t i = 0; i < n; i++) {
		block_seal(b, 0, i, 0);
		if (pwrite(fd, b, BLOCK, (off_t)(i * BLOCK)) != BLOCK)
			fail("write", a[0]);
	}
	if (fsync(fd))
		fail("fsync", a[0]);
	return 0;
}

/* Number s (from 1) goes to the own block (s - 1) % own. */
static uint64_t own_index(uint64_t number, uint64_t own, unsigned self, unsigned nodes)
{
	return (number - 1) % own * nodes + self - 1;
}

static int run_io(char **a)
{
	int fd = open(a[0], O_RDWR | O_DIRECT | O_CLOEXEC);
	unsigned self = (unsigned)atoi(a[1]), nodes = (unsigned)atoi(a[2]);
	struct block *b = block_new();
	uint64_t n, own, number = 0, rng = self * 77777u + 1, last, *seen;
	struct gauge g = { 0 };

	if (fd < 0)
		fail("open", a[0]);
	n = blocks_of(fd, a[0]);
	own = n / nodes;
	/* Numbers go on where an earlier run of this writer ended. */
	for (uint64_t i = self - 1; i < own * nodes; i += nodes) {
		if (pread(fd, b, BLOCK, (off_t)(i * BLOCK)) != BLOCK)
			fail("read", a[0]);
		if (b->number > number)
			number = b->number;
	}
	seen = calloc(n, sizeof(*seen));
	if (!seen)
		return 1;
	last = now_ns();
	while (wanted()) {
		uint64_t i, begin;

		pace();
		i = own_index(++number, own, self, nodes);
		block_seal(b, self, i, number);
		begin = now_ns();
		if (pwrite(fd, b, BLOCK, (off_t)(i * BLOCK)) != BLOCK)
			fail("write", a[0]);
		seen[i] = number;
		gauge_op(&g, "write", begin, now_ns());
		if (now_ns() - last > SAY_NS) {
			last = now_ns();
			say("W %" PRIu64, number);
		}
		i = rnd(&rng) % n;
		begin = now_ns();
		if (pread(fd, b, BLOCK, (off_t)(i * BLOCK)) != BLOCK)
			fail("read", a[0]);
		gauge_op(&g, "read", begin, now_ns());
		if (!block_ok(b, i) || b->number < seen[i]) {
			say("! %s: block %" PRIu64 ": read number %" PRIu64 " of writer %u%s, before it was %" PRIu64, a[0], i, b->number, b->writer,
			    block_ok(b, i) ? "" : " (torn)", seen[i]);
			return 1;
		}
		seen[i] = b->number;
	}
	say("W %" PRIu64, number);
	say("E");
	return 0;
}

static int run_check(char **a)
{
	int fd = open(a[0], O_RDONLY | O_DIRECT | O_CLOEXEC), bad = 0;
	unsigned self = (unsigned)atoi(a[1]), nodes = (unsigned)atoi(a[2]);
	uint64_t acked = strtoull(a[3], NULL, 10), n, own;
	struct block *b = block_new();

	if (fd < 0)
		fail("open", a[0]);
	n = blocks_of(fd, a[0]);
	own = n / nodes;
	for (uint64_t k = 0; k < own && k < acked; k++) {
		uint64_t number = acked - k, i = own_index(number, own, self, nodes);

		if (pread(fd, b, BLOCK, (off_t)(i * BLOCK)) != BLOCK)
			fail("read", a[0]);
		if ((!block_ok(b, i) || b->number < number) && bad++ < 5)
			say("! %s: block %" PRIu64 ": number %" PRIu64 "%s, but the write of %" PRIu64 " had returned", a[0], i, b->number,
			    block_ok(b, i) ? "" : " (torn)", number);
	}
	return bad ? 1 : 0;
}

static int run_raw(char **a)
{
	int fd = open(a[0], O_RDONLY | O_DIRECT | O_CLOEXEC);
	struct block *b = block_new();
	struct gauge g = { 0 };
	uint64_t rng = 4711;

	if (fd < 0)
		fail("open", a[0]);
	while (wanted()) {
		uint64_t begin;

		pace();
		begin = now_ns();
		if (pread(fd, b, BLOCK, (off_t)(rnd(&rng) % 20000 * BLOCK)) != BLOCK)
			fail("read", a[0]);
		gauge_op(&g, "read", begin, now_ns());
	}
	say("E");
	return 0;
}

/* ---- metadata probes -------------------------------------------------------------------------------------------------------------------- */

/* One turn in the present directory: each call is an operation of its own. */
static void turn(struct gauge *g, const char *name, bool sync)
{
	char a[64], b[64];
	struct stat st;
	uint64_t begin;
	int fd;

	snprintf(a, sizeof(a), "%s.a", name);
	snprintf(b, sizeof(b), "%s.b", name);
	begin = now_ns();
	fd = open(a, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	if (fd < 0)
		fail("create", a);
	gauge_op(g, "create", begin, now_ns());
	begin = now_ns();
	if (fchmod(fd, 0600))
		fail("chmod", a);
	gauge_op(g, "chmod", begin, now_ns());
	if (sync) {
		begin = now_ns();
		if (fsync(fd))
			fail("fsync", a);
		gauge_op(g, "fsync", begin, now_ns());
	}
	close(fd);
	begin = now_ns();
	if (rename(a, b))
		fail("rename", a);
	gauge_op(g, "rename", begin, now_ns());
	begin = now_ns();
	if (stat(b, &st) || (st.st_mode & 07777) != 0600)
		fail("stat", b);
	gauge_op(g, "stat", begin, now_ns());
	begin = now_ns();
	if (unlink(b))
		fail("unlink", b);
	gauge_op(g, "unlink", begin, now_ns());
}

/* Metadata of one's own: files and a directory that were there before, changed in all ways that need nothing new. */
static int run_probe(char **a)
{
	struct gauge g = { 0 };
	char name[2][64];
	uint64_t begin, turns = 0;
	int fd, dir;

	if (chdir(a[0]))
		fail("chdir", a[0]);
	snprintf(name[0], sizeof(name[0]), "%s.0", a[1]);
	snprintf(name[1], sizeof(name[1]), "%s.1", a[1]);
	fd = open(name[0], O_RDWR | O_CREAT | O_CLOEXEC, 0644);
	dir = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || dir < 0)
		fail("open", name[0]);
	for (; wanted(); turns++) {
		struct stat st;

		pace();
		begin = now_ns();
		if (fchmod(fd, turns % 2 ? 0600 : 0640))
			fail("chmod", name[0]);
		gauge_op(&g, "chmod", begin, now_ns());
		begin = now_ns();
		if (rename(name[turns % 2], name[!(turns % 2)]))
			fail("rename", name[turns % 2]);
		gauge_op(&g, "rename", begin, now_ns());
		begin = now_ns();
		if (stat(name[!(turns % 2)], &st))
			fail("stat", name[!(turns % 2)]);
		gauge_op(&g, "stat", begin, now_ns());
		begin = now_ns();
		if (pwrite(fd, &turns, sizeof(turns), 0) != sizeof(turns))
			fail("write", name[0]);
		gauge_op(&g, "write", begin, now_ns());
		begin = now_ns();
		if (fsync(fd) || fsync(dir))
			fail("fsync", name[0]);
		gauge_op(&g, "fsync", begin, now_ns());
	}
	say("E");
	return 0;
}

/* What needs new inodes: made and removed in a directory of one's own. */
static int run_make(char **a)
{
	struct gauge g = { 0 };

	if (chdir(a[0]))
		fail("chdir", a[0]);
	while (wanted()) {
		pace();
		turn(&g, a[1], false);
	}
	say("E");
	return 0;
}

static int run_cross(char **a)
{
	char path[256];
	struct gauge g = { 0 };

	while (wanted()) {
		for (char **t = a + 2; *t; t++) {
			uint64_t begin = now_ns();

			snprintf(path, sizeof(path), "%s/%s", a[0], *t);
			if (chdir(path))
				fail("chdir", path);
			turn(&g, a[1], true);
			say("N %s %" PRIu64, *t, begin);
		}
		for (int i = 0; i < 10; i++)
			pace();
	}
	say("E");
	return 0;
}

int main(int argc, char **argv)
{
	static const struct { const char *name; int args; int (*run)(char **a); } verbs[] = {
		{ "load", 3, run_load }, { "io", 3, run_io },	 { "fill", 2, run_fill },   { "check", 4, run_check },
		{ "raw", 1, run_raw },	 { "probe", 2, run_probe }, { "make", 2, run_make },
		{ "cross", 3, run_cross },
	};

	for (size_t i = 0; argc > 1 && i < sizeof(verbs) / sizeof(verbs[0]); i++) {
		if (!strcmp(argv[1], verbs[i].name) && argc - 2 >= verbs[i].args)
			return verbs[i].run(argv + 2);
	}
	fprintf(stderr, "usage: see the top of tests/lab/cutload.c\n");
	return 2;
}
