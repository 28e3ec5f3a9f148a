/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * names.h - by which path a file was found last, for the log and for people: a small table of what was looked up just now.
 *
 * The kernel looks up every part of a path anew each time (entry_timeout 0), so when a file is opened its path has just been here.  Where
 * something else took a place meanwhile the path is not known, and nothing depends on it: a file may have other names, and other ones later.
 *
 * Control thread.
 */
#ifndef CSVFS_CSVFS_NAMES_H
#define CSVFS_CSVFS_NAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NAMES_PATH_BYTES 256		/* of a longer path the end is kept */

struct names;
struct names *names_new(uint64_t root_ino);		/* NULL: out of memory, which the others take for a table that knows nothing */
void names_free(struct names *t);
void names_seen(struct names *t, uint64_t dir, const char *name, uint64_t ino);
/* From the volume's root, fit for a log; "" and false when it is not known. */
bool names_path(const struct names *t, uint64_t ino, char ret[NAMES_PATH_BYTES]);

#endif
