/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * file: what every writer of whole files needs; blocks. Any thread.
 */
#ifndef CSV_FILE_H
#define CSV_FILE_H

#include "utils/base/base.h"

/* All of it, in as many writes as that takes; 0 or -errno, then some of it may be there. */
int csv_write_all(int fd, const void *p, size_t size_bytes) csv_must_check;
/* The names in a directory are on the disk: after a rename or a new file. 0 or -errno. */
int csv_dir_sync(const char *dir);

#endif
