/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * fuzz.c - the driver:	csvfuzz --list | NAME [--seed S] [--seconds N] [--from I --count K]
 *
 * Last line: "fuzz NAME: seed S, N executions, T taken, in S s (P s of processor)".  A crash or an execution of more than 10 s of processor prints how to play it again.
 */
#include <check.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/fuzz/fuzz.h"

/* ---- changes --------------------------------------------------------------------------------------------------------------------- */

static const uint64_t edges[] = { 0, 1, 2, 3, 4, 7, 8, 31, 32, 33, 63, 64, 65, 127, 128, 129, 254, 255, 256, 511, 512, 4095, 4096, 65535, 65536,
	INT32_MAX, 1ull << 31, UINT32_MAX, 1ull << 32, (1ull << 40) - 1, 1ull << 40, 1ull << 62, INT64_MAX, 1ull << 63, UINT64_MAX - 1,
	UINT64_MAX };
static const char *const words[] = { "{", "}", "[", "]", "\"", ",", ":", "null", "true", "-1", "1e999", "0.5", "18446744073709551616", "\\u0000",
	"\\ud800", "\xff", "\n", "../", "/", "nodelist {", "node {", "[node 3]\n", "action=", "=", "\r", "\n[", "ring0_addr: ", "nodeid: ", "#", "{\"a\":", "\x80" };

static void put_edge(struct fuzz_input *in)
{
	static const unsigned sizes[] = { 1, 2, 4, 8 };
	unsigned n = sizes[csv_prng_below(in->prng, 4)];
	uint64_t v = edges[csv_prng_below(in->prng, ARRAY_SIZE(edges))];

	if (in->len < n)
		return;
	if (csv_prng_chance(in->prng, 1, 8))
		v = __builtin_bswap64(v);
	memcpy(in->b + csv_prng_below(in->prng, in->len - n + 1), &v, n);
}

static void put_word(struct fuzz_input *in)
{
	const char *w = words[csv_prng_below(in->prng, ARRAY_SIZE(words))];
	size_t n = strlen(w), at = csv_prng_below(in->prng, in->len + 1), cut = csv_prng_below(in->prng, 4);

	if (in->len + n > FUZZ_ROOM)
		return;
	cut = csv_min(cut, in->len - at);
	memmove(in->b + at + n, in->b + at + cut, in->len - at - cut);
	memcpy(in->b + at, w, n);
	in->len += n - cut;
}

static void change_once(struct fuzz_input *in, bool text)
{
	struct csv_prng *p = in->prng;
	size_t at, n;

	if (!in->len) {
		in->len = csv_prng_below(p, 64);
		csv_prng_bytes(p, in->b, in->len);
		return;
	}
	if (text && csv_prng_chance(p, 1, 2)) {
		put_word(in);
		return;
	}
	at = csv_prng_below(p, in->len);
	n = 1 + csv_prng_below(p, csv_min((size_t)64, in->len - at));
	switch (csv_prng_below(p, 8)) {
	case 0:
	case 1:
		in->b[at] ^= (uint8_t)(1u << csv_prng_below(p, 8));
		break;
	case 2:
	case 3:
		put_edge(in);
		break;
	case 4:
		in->b[at] = (uint8_t)csv_prng_u64(p);
		break;
	case 5:						/* cut off, or something more at the end */
		if (csv_prng_chance(p, 1, 2)) {
			in->len = at;
		} else {
			n = csv_min(n, (size_t)FUZZ_ROOM - in->len);
			csv_prng_bytes(p, in->b + in->len, n);
			in->len += n;
		}
		break;
	case 6:						/* a piece twice */
		if (in->len + n > FUZZ_ROOM)
			break;
		memmove(in->b + at + n, in->b + at, in->len - at);
		in->len += n;
		break;
	default:					/* a piece gone */
		memmove(in->b + at, in->b + at + n, in->len - at - n);
		in->len -= n;
	}
}

void fuzz_change(struct fuzz_input *in, const struct fuzz_decoder *d)
{
	unsigned n = d->gentle ? csv_prng_below(in->prng, 3) : csv_prng_below(in->prng, 5);

	while (n--)
		change_once(in, d->text);
}

void *fuzz_exact(const struct fuzz_input *in)
{
	void *p = malloc(in->len ? in->len : 1);

	csv_assert(p);
	memcpy(p, in->b, in->len);
	return p;
}

/* ---- the units' assertions, in worlds that are theirs, too ------------------------------------------------------------------------------- */

void _ck_assert_failed(const char *file, int line, const char *expr, const char *msg, ...)
{
	char text[4096] = "";
	va_list ap;

	va_start(ap, msg);
	if (msg)
		vsnprintf(text, sizeof(text), msg, ap);
	va_end(ap);
	fprintf(stderr, "%s:%d: %s: %s\n", file, line, expr, text);
	abort();
}

void _mark_point(const char *file, int line)
{
	(void)file;
	(void)line;
}

/* ---- running ---------------------------------------------------------------------------------------------------------------------- */

struct shared { uint64_t at, taken; };

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void run(const struct fuzz_decoder *d, uint64_t seed, uint64_t from, uint64_t count, uint64_t end_ms, struct shared *sh)
{
	static struct fuzz_input in;
	uint64_t first = d->life ? from - from % d->life : from;

	for (uint64_t i = first; i < from + count; i++) {
		uint64_t mix = seed * 0x9e3779b97f4a7c15ull + i;
		struct csv_prng prng;

		if (d->slow || i % 64 == 0) {
			if (end_ms && now_ms() >= end_ms)
				break;
			/* of processor: others may have it; of time: it waits for something */
			setitimer(ITIMER_PROF, &(struct itimerval){ .it_value.tv_sec = 10 }, NULL);
			alarm(300);
		}
		if (d->begin && (i == first || (d->life && i % d->life == 0))) {
			if (i != first && d->end)
				d->end();
			d->begin();
		}
		csv_prng_init(&prng, csv_splitmix64(&mix));
		in.prng = &prng;
		in.len = 0;
		sh->at = i;
		d->sample(&in);
		csv_assert(in.len <= FUZZ_ROOM);
		fuzz_change(&in, d);
		sh->taken += d->run(&in);
	}
	if (d->end)
		d->end();
	sh->at++;
}

static const struct fuzz_decoder *const lists[] = { fuzz_wire, fuzz_text, fuzz_disk, fuzz_live, fuzz_volume, fuzz_journal, fuzz_core, fuzz_coord,
						  fuzz_image };

static const struct fuzz_decoder *find(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(lists); i++)
		for (const struct fuzz_decoder *d = lists[i]; d->name; d++)
			if (!strcmp(d->name, name))
				return d;
	return NULL;
}

/* In a process of its own; where worlds forget memory in one for every 20 of them.  Its exit status. */
static int run_apart(const struct fuzz_decoder *d, uint64_t seed, uint64_t from, uint64_t count, uint64_t end_ms, struct shared *sh)
{
	uint64_t left = count, step;
	int status;
	pid_t pid;

	do {
		step = d->forgets ? csv_min(left, (uint64_t)d->life * 20 - from % d->life) : left;
		fflush(stdout);
		pid = fork();
		if (pid < 0)
			return -1;
		if (!pid) {
			run(d, seed, from, step, end_ms, sh);
			if (d->forgets)
				_exit(0);	/* not by way of the leak detector */
			exit(0);
		}
		if (waitpid(pid, &status, 0) != pid)
			return -1;
		from += step;
		left -= step;
	} while (!status && left && (!end_ms || now_ms() < end_ms));
	return status;
}

static int fuzz(const struct fuzz_decoder *d, uint64_t seed, uint64_t from, uint64_t count, unsigned seconds)
{
	struct shared *sh = mmap(NULL, sizeof(*sh), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	uint64_t start = now_ms();
	struct rusage ru;
	int status;

	if (sh == MAP_FAILED)
		return 2;
	status = run_apart(d, seed, from, count, seconds ? start + seconds * 1000ull : 0, sh);
	if (status == -1)
		return 2;
	if (!WIFEXITED(status) || WEXITSTATUS(status)) {
		printf("fuzz %s: execution %" PRIu64 " of seed %" PRIu64 " %s; again: csvfuzz %s --seed %" PRIu64 " --from %" PRIu64 " --count 1\n",
		       d->name, sh->at, seed, WIFSIGNALED(status) && (WTERMSIG(status) == SIGALRM || WTERMSIG(status) == SIGPROF) ? "does not end" : "crashes", d->name, seed, sh->at);
		return 1;
	}
	getrusage(RUSAGE_CHILDREN, &ru);
	printf("fuzz %s: seed %" PRIu64 ", %" PRIu64 " executions, %" PRIu64 " taken, in %.1f s (%.1f s of processor)\n", d->name, seed, sh->at - from,
	       sh->taken, (double)(now_ms() - start) / 1000, (double)(ru.ru_utime.tv_sec + ru.ru_stime.tv_sec) +
	       (double)(ru.ru_utime.tv_usec + ru.ru_stime.tv_usec) / 1e6);
	if (count == UINT64_MAX / 2 && (sh->taken == 0 || sh->taken == sh->at - from)) {
		printf("fuzz %s: everything is %s: it looks at nothing\n", d->name, sh->taken ? "taken" : "refused");
		return 1;
	}
	return 0;
}

int main(int argc, char **argv)
{
	uint64_t seed = 1, from = 0, count = UINT64_MAX / 2;
	const struct fuzz_decoder *d;
	unsigned seconds = 10;

	if (argc == 2 && !strcmp(argv[1], "--list")) {
		for (size_t i = 0; i < ARRAY_SIZE(lists); i++)
			for (d = lists[i]; d->name; d++)
				puts(d->name);
		return 0;
	}
	d = argc > 1 ? find(argv[1]) : NULL;
	for (int i = 2; d && i < argc; i += 2) {
		uint64_t v = i + 1 < argc ? strtoull(argv[i + 1], NULL, 10) : 0;

		if (i + 1 >= argc)
			d = NULL;
		else if (!strcmp(argv[i], "--seed"))
			seed = v;
		else if (!strcmp(argv[i], "--seconds"))
			seconds = (unsigned)v;
		else if (!strcmp(argv[i], "--from"))
			from = v;
		else if (!strcmp(argv[i], "--count"))
			count = v, seconds = 0;
		else
			d = NULL;
	}
	if (!d) {
		fprintf(stderr, "usage: csvfuzz --list | NAME [--seed S] [--seconds N] [--from I --count K]\n");
		return 2;
	}
	return fuzz(d, seed, from, count, seconds);
}
