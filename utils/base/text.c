/* SPDX-License-Identifier: GPL-2.0-only */
#include "utils/base/text.h"

#include <errno.h>
#include <uuid/uuid.h>

#define LINE_BYTES 16

static void dump_line(FILE *out, const uint8_t *p, size_t n, uint64_t offset)
{
	fprintf(out, "%08llx ", (unsigned long long)offset);
	for (size_t i = 0; i < LINE_BYTES; i++) {
		if (i == LINE_BYTES / 2)
			fputc(' ', out);
		if (i < n)
			fprintf(out, " %02x", p[i]);
		else
			fputs("   ", out);
	}
	fputs("  |", out);
	/* not isprint(): it would depend on the locale */
	for (size_t i = 0; i < n; i++)
		fputc(p[i] >= 0x20 && p[i] < 0x7f ? p[i] : '.', out);
	fputs("|\n", out);
}

void csv_hexdump(FILE *out, const void *p, size_t size_bytes, uint64_t first_offset)
{
	const uint8_t *at = p;
	bool starred = false;

	for (size_t done = 0; done < size_bytes; done += LINE_BYTES) {
		size_t n = csv_min(size_bytes - done, (size_t)LINE_BYTES);
		bool last = done + LINE_BYTES >= size_bytes;

		if (done && !last && !memcmp(at + done, at + done - LINE_BYTES, LINE_BYTES)) {
			if (!starred)
				fputs("*\n", out);
			starred = true;
			continue;
		}
		starred = false;
		dump_line(out, at + done, n, first_offset + done);
	}
}

char *csv_uuid_to_text(const uint8_t uuid[static 16], char ret[static CSV_UUID_TEXT_BYTES])
{
	uuid_unparse_lower(uuid, ret);
	return ret;
}

int csv_uuid_parse(const char *text, uint8_t ret[static 16])
{
	uuid_t parsed;

	if (uuid_parse(text, parsed))
		return -EINVAL;
	memcpy(ret, parsed, 16);
	return 0;
}

char *csv_size_to_text(uint64_t size_bytes, char ret[static CSV_SIZE_TEXT_BYTES])
{
	static const char *const unit[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	unsigned order = size_bytes ? csv_ilog2(size_bytes) / 10 : 0;
	uint64_t one = 1ull << (10 * order);
	uint64_t tenths;

	if (size_bytes % one == 0) {
		snprintf(ret, CSV_SIZE_TEXT_BYTES, "%llu %s",
			 (unsigned long long)(size_bytes / one), unit[order]);
		return ret;
	}
	/* rounded down: never "1024.0 MiB", never more than there is */
	tenths = (size_bytes % one >> (10 * (order - 1))) * 10 / 1024;
	snprintf(ret, CSV_SIZE_TEXT_BYTES, "%llu.%llu %s", (unsigned long long)(size_bytes / one),
		 (unsigned long long)tenths, unit[order]);
	return ret;
}

int csv_size_parse(const char *text, uint64_t *ret_size_bytes)
{
	static const char units[] = "KMGTP";
	const char *at = text;
	uint64_t x = 0;

	if (*at < '0' || *at > '9')
		return -EINVAL;
	for (; *at >= '0' && *at <= '9'; at++)
		if (csv_mul_overflow(x, 10, &x) || csv_add_overflow(x, *at - '0', &x))
			return -ERANGE;
	if (*at) {
		const char *u = strchr(units, *at >= 'a' ? *at - 'a' + 'A' : *at);

		if (!u)
			return -EINVAL;
		if (csv_mul_overflow(x, 1ull << (10 * (u - units + 1)), &x))
			return -ERANGE;
		at++;
		if (*at && strcmp(at, "iB"))
			return -EINVAL;
	}
	if (x > INT64_MAX)
		return -ERANGE;
	*ret_size_bytes = x;
	return 0;
}

char *csv_trim(char *text)
{
	char *end;

	text += strspn(text, " \t\r\n");
	for (end = text + strlen(text); end > text && strchr(" \t\r\n", end[-1]);)
		*--end = '\0';
	return text;
}

/* Bytes of the character there; 0: it is none. */
static size_t utf8_len(const unsigned char *s)
{
	static const struct { unsigned char mask, is; uint32_t least; } form[] = { { 0x80, 0, 0 }, { 0xe0, 0xc0, 0x80 }, { 0xf0, 0xe0, 0x800 },
										   { 0xf8, 0xf0, 0x10000 } };

	for (size_t n = 0; n < ARRAY_SIZE(form); n++) {
		uint32_t c = s[0] & (unsigned char)~form[n].mask;

		if ((s[0] & form[n].mask) != form[n].is)
			continue;
		for (size_t i = 1; i <= n; i++) {
			if ((s[i] & 0xc0) != 0x80)
				return 0;
			c = c << 6 | (s[i] & 0x3f);
		}
		return c < form[n].least || c > 0x10ffff || (c >= 0xd800 && c < 0xe000) || c < ' ' || (c >= 0x7f && c < 0xa0) ? 0 : n + 1;
	}
	return 0;
}

void csv_text_clean(char *text)
{
	while (*text) {
		size_t n = utf8_len((const unsigned char *)text);

		if (!n)
			*text = '?';
		text += csv_max(n, (size_t)1);
	}
}
