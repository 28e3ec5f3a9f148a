/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * lease_json.h - records and moves as JSON, for the line between migratord and hvhostd (hvhost/agent.h has the form).
 *
 * Invariant
 *  LJ1 Encoded and decoded again it is the same; what is decoded is complete and within bounds, and an error names the field.
 *
 * Pure.
 */
#ifndef CSVFS_MIGRATOR_LEASE_JSON_H
#define CSVFS_MIGRATOR_LEASE_JSON_H

#include <jansson.h>

#include "migrator/lease.h"
#include "utils/base/err.h"

json_t *lease_json_encode(const struct lease *l);			/* NULL out of memory */
/* 0; -EPROTO with err.  State NONE (deleted) is allowed. */
int lease_json_decode(const json_t *o, struct lease *ret, struct csv_err *err) csv_must_check;

json_t *lease_cas_json_encode(const struct lease_cas *c);
/* by, by_inc and role are not in it: they are not the proposer's to say; 0 here. */
int lease_cas_json_decode(const json_t *o, struct lease_cas *ret, struct csv_err *err) csv_must_check;

#endif
