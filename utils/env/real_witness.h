/* SPDX-License-Identifier: GPL-2.0-only */
/* real_witness.h - what real_witness.c and real_cluster.c share: the witness's message, and the lock that is held by memory. */
#ifndef CSVFS_UTILS_ENV_REAL_WITNESS_H
#define CSVFS_UTILS_ENV_REAL_WITNESS_H

#include "utils/base/base.h"

#define WITNESS_MAGIC 0x54495756u	/* "VWIT" */
#define WITNESS_SUFFIX "-w"		/* its group's name: that of the volume's group, and this */

struct witness_msg { struct le32 magic, reserved; struct le64 incarnation; };

#endif
