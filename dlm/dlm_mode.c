/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * dlm_mode.c - the six modes and what goes together.
 *
 *	NL  nothing        CR  reads, others may write     CW  writes, others may write
 *	PR  reads, nobody writes      PW  writes, others may only CR      EX  alone
 *
 * The table is the one of the VAX/VMS lock manager.  All else here is computed from it.
 */
#include "dlm/dlm_internal.h"

static const bool compatible[6][6] = {
	/*           NL CR CW PR PW EX */
	[DLM_NL] = { 1, 1, 1, 1, 1, 1 },
	[DLM_CR] = { 1, 1, 1, 1, 1, 0 },
	[DLM_CW] = { 1, 1, 1, 0, 0, 0 },
	[DLM_PR] = { 1, 1, 0, 1, 0, 0 },
	[DLM_PW] = { 1, 1, 0, 0, 0, 0 },
	[DLM_EX] = { 1, 0, 0, 0, 0, 0 },
};

bool dlm_compatible(enum dlm_mode a, enum dlm_mode b)
{
	return compatible[a][b];
}

const char *dlm_mode_name(enum dlm_mode m)
{
	static const char *const name[6] = { "NL", "CR", "CW", "PR", "PW", "EX" };

	return (unsigned)m < 6 ? name[m] : "??";
}

bool dlm_mode_covers(enum dlm_mode b, enum dlm_mode a)
{
	for (unsigned x = 0; x < 6; x++)
		if (compatible[b][x] && !compatible[a][x])
			return false;
	return true;
}

enum dlm_mode dlm_mode_join(enum dlm_mode a, enum dlm_mode b)
{
	for (unsigned x = 0; x < 6; x++)
		if (dlm_mode_covers(x, a) && dlm_mode_covers(x, b))
			return x;
	return DLM_EX;
}

enum dlm_mode dlm_mode_meet(enum dlm_mode a, enum dlm_mode b)
{
	unsigned x = DLM_EX;

	while (!dlm_mode_covers(a, x) || !dlm_mode_covers(b, x))
		x--;
	return x;
}

/* EX -> NL, PW -> CR, PR -> PR, CW -> CW, only NL and CR or none -> EX. */
enum dlm_mode dlm_mode_phantom(const uint32_t survivors[6])
{
	if (survivors[DLM_EX])
		return DLM_NL;
	if (survivors[DLM_PW])
		return DLM_CR;
	if (survivors[DLM_PR])
		return DLM_PR;
	if (survivors[DLM_CW])
		return DLM_CW;
	return DLM_EX;
}
