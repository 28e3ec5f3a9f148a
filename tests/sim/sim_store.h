/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * sim_store.h - sparse content of a simulated device: 4 KiB blocks in a hash table, zeroes where nothing was written; and
 * overlays on it, so that many "what if it had crashed here" images cost only what differs.
 */
#ifndef CSVFS_TESTS_SIM_SIM_STORE_H
#define CSVFS_TESTS_SIM_SIM_STORE_H

#include <stdbool.h>
#include <stdint.h>

#include "utils/env/blk.h"

struct sim_store;

struct sim_store *sim_store_new(uint64_t size_bytes);
/* Reads fall through to `base`, which must not change or go while this is used. */
struct sim_store *sim_store_overlay(const struct sim_store *base);
struct sim_store *sim_store_clone(const struct sim_store *s);		/* of what is in s itself; keeps s's base */
void sim_store_free(struct sim_store *s);

uint64_t sim_store_size(const struct sim_store *s);
/* Any alignment, inside the device. */
void sim_store_read(const struct sim_store *s, uint64_t off, void *buf, uint64_t len);
void sim_store_write(struct sim_store *s, uint64_t off, const void *buf, uint64_t len);
void sim_store_zero(struct sim_store *s, uint64_t off, uint64_t len);
uint64_t sim_store_hash(const struct sim_store *s);			/* of all content, base included; independent of history */

/* A device on it that answers through the run queue at once, for replay and checking.  The store is borrowed. */
struct blk *sim_store_blk(struct sim_store *s, struct sched *sched);

#endif
