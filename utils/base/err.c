/* SPDX-License-Identifier: GPL-2.0-only */
#include "utils/base/err.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

struct private_code {
	const char *name;
	const char *text;
	int to_errno;
};

static const struct private_code codes[CSV_E_END_ - CSV_E_FIRST_] = {
	[CSV_E_CORRUPT - CSV_E_FIRST_] = {"CORRUPT", "corrupt data", EUCLEAN},
	[CSV_E_NOQUORUM - CSV_E_FIRST_] = {"NOQUORUM", "no quorum", EAGAIN},
	[CSV_E_WITHDRAWN - CSV_E_FIRST_] = {"WITHDRAWN", "the volume is withdrawn on this node",
					    EIO},
	[CSV_E_STALE - CSV_E_FIRST_] = {"STALE", "out of date", ESTALE},
	[CSV_E_UNSUPPORTED - CSV_E_FIRST_] = {"UNSUPPORTED", "not supported by this version",
					      EOPNOTSUPP},
	[CSV_E_FENCED - CSV_E_FIRST_] = {"FENCED", "this node is fenced", EIO},
	[CSV_E_BUSY_ELSEWHERE - CSV_E_FIRST_] = {"BUSY_ELSEWHERE", "in use on another node", EBUSY},
};

static const struct private_code *find_private(int code)
{
	int c = abs(code);

	return c > CSV_E_FIRST_ && c < CSV_E_END_ ? &codes[c - CSV_E_FIRST_] : NULL;
}

/* A text that was cut says so. */
static void mark_cut(char *text, size_t size)
{
	memcpy(text + size - 4, "...", 4);
}

int csv_err_vset(struct csv_err *err, int code, const char *fmt, va_list ap)
{
	int n;

	csv_assertf(code < 0, "code %d", code);
	if (!err)
		return code;
	err->code = code;
	n = vsnprintf(err->text, sizeof(err->text), fmt, ap);
	if (n >= (int)sizeof(err->text))
		mark_cut(err->text, sizeof(err->text));
	return code;
}

int csv_err_set(struct csv_err *err, int code, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	csv_err_vset(err, code, fmt, ap);
	va_end(ap);
	return code;
}

int csv_err_prefix(struct csv_err *err, const char *fmt, ...)
{
	char text[sizeof(err->text)];
	bool cut = false;
	va_list ap;
	size_t left;
	int n;

	if (!err)
		return 0;
	va_start(ap, fmt);
	n = vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (n < 0)
		return err->code;
	if (n >= (int)sizeof(text))
		n = sizeof(text) - 1;

	left = sizeof(text) - n;
	n = snprintf(text + n, left, "%s%s", err->text[0] ? ": " : "", err->text);
	cut = n >= (int)left;
	memcpy(err->text, text, sizeof(text));
	if (cut)
		mark_cut(err->text, sizeof(err->text));
	return err->code;
}

void csv_err_clear(struct csv_err *err)
{
	if (!err)
		return;
	err->code = 0;
	err->text[0] = '\0';
}

const char *csv_err_name(int code, char buf[static 16])
{
	const struct private_code *p = find_private(code);
	const char *name;

	if (!code)
		return "OK";
	if (p)
		return p->name;
	name = strerrorname_np(abs(code));
	if (name)
		return name;
	snprintf(buf, 16, "E%d", abs(code));
	return buf;
}

const char *csv_err_describe(int code)
{
	const struct private_code *p = find_private(code);
	const char *text;

	if (!code)
		return "no error";
	if (p)
		return p->text;
	text = strerrordesc_np(abs(code));
	return text ? text : "unknown error";
}

int csv_err_to_errno(int code)
{
	const struct private_code *p = find_private(code);

	if (p)
		return p->to_errno;
	return abs(code) > CSV_E_FIRST_ ? EIO : abs(code);
}
