/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * csvsim_work.h - what the files with the workers' operations know of each other: names of the model (csvsim_work_name.c), files with a
 * data model (csvsim_work_data.c), wild ones (csvsim_work_wild.c), the worker (csvsim_work.c), everything compared (csvsim_verify.c).
 */
#ifndef CSVFS_TESTS_SIM_CSVSIM_WORK_H
#define CSVFS_TESTS_SIM_CSVSIM_WORK_H

#include "tests/sim/csvsim.h"

#define CS_BUF_BYTES (64u << 10)
#define REN_NOREPLACE 1u		/* values of renameat2() */
#define REN_EXCHANGE 2u

static inline uint64_t cs_below(struct cs_worker *w, uint64_t n) { return csv_prng_below(&w->prng, n); }
static inline bool cs_chance(struct cs_worker *w, unsigned num, unsigned den) { return csv_prng_chance(&w->prng, num, den); }

/* csvsim_work.c */
/* No answer that counts: the node is on its way out, or its disk failed and it will be. */
bool cs_uncertain(const struct cs_worker *w, long long ret);
/* The answer promises that nothing was changed, if the node gives its slot back in order (csvfs_may_rejoin). */
bool cs_refused(struct cs_worker *w, long long ret);
/* As cs_judge(), of an operation that collides with others and may be refused. */
bool cs_soft(struct cs_worker *w, long long ret, const char *op);

/* csvsim_work_name.c: operations of one worker on names that it takes; cs_work_give() gives them back. */
void cs_work_make(struct cs_worker *w, bool dir);
void cs_work_remove(struct cs_worker *w, bool dir);
void cs_work_rename(struct cs_worker *w);
void cs_work_link(struct cs_worker *w);
void cs_work_lookup(struct cs_worker *w);
void cs_work_file(struct cs_worker *w);
void cs_work_fsync_name(struct cs_worker *w);
void cs_work_sync(struct cs_worker *w);
void cs_work_list(struct cs_worker *w, unsigned d);
void cs_work_give(struct cs_worker *w);
bool cs_work_look(struct cs_worker *w, struct cs_name *n, struct cs_state *ret_st);

/* csvsim_work_wild.c: bytes that tell whose they are, and names that collide */
void cs_tag_write(struct cs_worker *w, uint64_t ino, uint32_t gen);
void cs_tag_read(struct cs_worker *w, uint64_t ino, uint32_t gen);
void cs_tag_resize(struct cs_worker *w, uint64_t ino, uint32_t gen);
void cs_work_wild(struct cs_worker *w);

/* csvsim_work_data.c */
void cs_work_data(struct cs_worker *w);
void cs_work_read(struct cs_worker *w, struct cs_file *f, uint32_t first, uint32_t count, const char *op);

#endif
