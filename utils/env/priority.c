/* SPDX-License-Identifier: GPL-2.0-only */
#include "utils/env/priority.h"

#include <sys/resource.h>

#define FIRST_NICE (-15)

void priority_first(void)
{
	(void)!setpriority(PRIO_PROCESS, 0, FIRST_NICE);
}

void priority_ordinary(void)
{
	(void)!setpriority(PRIO_PROCESS, 0, 0);
}
