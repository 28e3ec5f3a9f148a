/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * fuzz.h - one fuzzer per decoder: a valid sample, changed where it hurts, given to the decoder.  What is checked is that it comes back,
 * within its bounds (a sanitizer looks), and that what it takes survives its own encoder where it has one.
 *
 * Each execution comes from (seed, its number) alone; decoders with a life longer than one execution (a cluster) begin anew every
 * `life` executions, so a finding is replayed from the last beginning.
 */
#ifndef CSVFS_TESTS_FUZZ_FUZZ_H
#define CSVFS_TESTS_FUZZ_FUZZ_H

#include "utils/base/base.h"
#include "utils/base/prng.h"

#define FUZZ_ROOM 8192u

struct fuzz_input {
	struct csv_prng *prng;
	size_t len;
	uint8_t b[FUZZ_ROOM];
};

struct fuzz_decoder {
	const char *name;
	uint32_t life;			/* 0: executions do not depend on each other */
	bool text;
	bool gentle;			/* one change, or none: what is not wrong must do no harm either */
	bool forgets;			/* its world ends with work under way, whose memory nobody gives back: no leak */
	bool slow;			/* milliseconds an execution: the time is looked at after each */
	void (*begin)(void);		/* may be NULL; every `life` executions */
	void (*end)(void);
	void (*sample)(struct fuzz_input *in);	/* a valid one, its kind drawn from in->prng */
	bool (*run)(struct fuzz_input *in);	/* taken? */
};

void fuzz_change(struct fuzz_input *in, const struct fuzz_decoder *d);
/* A copy of exactly that size, so that a sanitizer sees one byte too far; to be freed. */
void *fuzz_exact(const struct fuzz_input *in);

/* Each ends with a NULL name. */
extern const struct fuzz_decoder fuzz_wire[], fuzz_text[], fuzz_disk[], fuzz_live[], fuzz_volume[], fuzz_journal[], fuzz_core[], fuzz_coord[],
	fuzz_image[];

#endif
