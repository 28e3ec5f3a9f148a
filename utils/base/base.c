/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The one piece of file-scope data in the layers below the daemons: the assertion hook. It is
 * written once at the start of a program, before there are threads, and read only while dying.
 */
#include "utils/base/base.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static struct {
	csv_assert_fn fn;
	void *arg;
} assert_hook;

void csv_assert_hook_set(csv_assert_fn fn, void *arg)
{
	assert_hook.fn = fn;
	assert_hook.arg = arg;
}

void csv_assert_fail(const char *file, int line, const char *fmt, ...)
{
	csv_assert_fn fn = assert_hook.fn;
	char message[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(message, sizeof(message), fmt, ap);
	va_end(ap);

	fprintf(stderr, "%s:%d: %s\n", file, line, message);
	fflush(stderr);
	/* A hook that itself fails an assertion must not come back here for ever. */
	assert_hook.fn = NULL;
	if (fn)
		fn(assert_hook.arg, file, line, message);
	abort();
}
