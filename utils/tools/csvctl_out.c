/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * csvctl_out.c - a reply as table, JSON, a line of JSON an item, or names.  Errors and warnings for people go to standard error.
 *
 * JSON envelope: {"api": "csvctl/v1", "kind": ..., "items": [...], "warnings": [...]}, and "error" {code, message} when it failed.
 * An item in JSON has every key of the command's columns: what is not known (a daemon that does not run) or does not apply is null.
 */
#include "utils/tools/csvctl.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "utils/base/text.h"

#define CELL 160

static void cell_ms(json_int_t ms, char *out, size_t size)
{
	if (ms < 10000)
		snprintf(out, size, "%" JSON_INTEGER_FORMAT " ms", ms);
	else
		snprintf(out, size, "%" JSON_INTEGER_FORMAT " s", ms / 1000);
}

static void cell_date(json_int_t real_ms, char *out, size_t size)
{
	time_t t = (time_t)(real_ms / 1000);
	struct tm tm;

	if (!gmtime_r(&t, &tm) || !strftime(out, size, "%Y-%m-%d %H:%M:%S UTC", &tm))
		snprintf(out, size, "%" JSON_INTEGER_FORMAT, real_ms);
}

/* A value for people; `type` says how numbers are meant. */
static void cell(const json_t *v, enum cc_type type, char *out, size_t size)
{
	char text[CSV_SIZE_TEXT_BYTES], *dump;

	if (!v || json_is_null(v)) {
		snprintf(out, size, "-");
	} else if (json_is_string(v)) {
		snprintf(out, size, "%s", json_string_length(v) ? json_string_value(v) : "-");
	} else if (json_is_boolean(v)) {
		snprintf(out, size, "%s", json_is_true(v) ? "yes" : "no");
	} else if (json_is_real(v)) {
		snprintf(out, size, "%.1f%s", json_real_value(v), type == CC_MS ? " ms" : "");
	} else if (json_is_integer(v) && type == CC_SIZE) {
		snprintf(out, size, "%s", csv_size_to_text((uint64_t)json_integer_value(v), text));
	} else if (json_is_integer(v) && type == CC_MS) {
		cell_ms(json_integer_value(v), out, size);
	} else if (json_is_integer(v) && type == CC_DATE) {
		cell_date(json_integer_value(v), out, size);
	} else if (json_is_array(v) && !json_array_size(v)) {
		snprintf(out, size, "-");
	} else if (json_is_array(v) && json_is_string(json_array_get(v, 0))) {
		size_t used = 0, i;
		json_t *e;

		json_array_foreach(v, i, e)
			if (used < size)
				used += (size_t)snprintf(out + used, size - used, "%s%s", i ? "," : "", json_string_value(e));
	} else if (json_is_array(v) && type == CC_LIST) {
		snprintf(out, size, "%zu", json_array_size(v));
	} else {
		dump = json_dumps(v, JSON_ENCODE_ANY);
		snprintf(out, size, "%s", dump ? dump : "?");
		free(dump);
	}
}

static void print_table(const struct cc *cc, const json_t *items)
{
	const struct cc_col *col = cc->cmd->cols;
	size_t width[ARRAY_SIZE(cc->cmd->cols)] = { 0 }, i, k, n = 0;
	char text[CELL];
	json_t *it;

	while (n < ARRAY_SIZE(cc->cmd->cols) && col[n].key)
		n++;
	for (k = 0; k < n; k++) {
		width[k] = strlen(col[k].title);
		json_array_foreach(items, i, it) {
			cell(json_object_get(it, col[k].key), col[k].type, text, sizeof(text));
			width[k] = csv_max(width[k], strlen(text));
		}
	}
	for (k = 0; k < n; k++)
		printf("%-*s%s", k + 1 < n ? (int)width[k] : 0, col[k].title, k + 1 < n ? "  " : "\n");
	json_array_foreach(items, i, it)
		for (k = 0; k < n; k++) {
			cell(json_object_get(it, col[k].key), col[k].type, text, sizeof(text));
			printf("%-*s%s", k + 1 < n ? (int)width[k] : 0, text, k + 1 < n ? "  " : "\n");
		}
}

static enum cc_type type_by_key(const char *key)
{
	size_t n = strlen(key);

	if ((n > 6 && !strcmp(key + n - 6, "_bytes")) || strstr(key, "_bytes_per_s"))
		return CC_SIZE;
	if (n > 8 && !strcmp(key + n - 8, "_real_ms"))
		return CC_DATE;
	return !strcmp(key, "ms") || (n > 3 && !strcmp(key + n - 3, "_ms")) ? CC_MS : CC_INT;
}

/* Where a line begins: the first one of a list's item with a dash. */
static void indent(int depth, bool *dash)
{
	if (*dash)
		printf("%*s- ", depth * 2 - 2, "");
	else
		printf("%*s", depth * 2, "");
	*dash = false;
}

/* Every key of an item, in the order it came. */
static void print_pairs_at(const json_t *o, int depth, bool dash)
{
	const char *key;
	char text[1024];
	json_t *v, *e;
	size_t i;

	json_object_foreach((json_t *)o, key, v) {
		bool flat = json_is_array(v) && json_is_string(json_array_get(v, 0));

		if (json_is_object(v)) {
			indent(depth, &dash);
			printf("%s:\n", key);
			print_pairs_at(v, depth + 1, false);
		} else if (json_is_array(v) && !flat) {
			indent(depth, &dash);
			printf("%s:%s\n", key, json_array_size(v) ? "" : " none");
			json_array_foreach(v, i, e) {
				if (json_is_object(e)) {
					print_pairs_at(e, depth + 2, true);
				} else {
					cell(e, CC_INT, text, sizeof(text));
					printf("%*s- %s\n", depth * 2 + 2, "", text);
				}
			}
		} else {
			cell(v, type_by_key(key), text, sizeof(text));
			indent(depth, &dash);
			printf("%-*s %s\n", 22 - depth * 2, key, text);
		}
	}
}

static void print_names(const struct cc *cc, const json_t *items)
{
	char text[4096];
	json_t *it;
	size_t i;

	json_array_foreach(items, i, it) {
		cell(json_object_get(it, cc->cmd->cols[0].key), CC_TEXT, text, sizeof(text));
		puts(text);
	}
}

static void whole_items(const struct cc *cc, const json_t *items)
{
	const struct cc_col *col = cc->cmd->cols;
	json_t *it;
	size_t i;

	json_array_foreach(items, i, it)
		for (size_t k = 0; k < ARRAY_SIZE(cc->cmd->cols) && col[k].key; k++)
			if (!json_object_get(it, col[k].key))
				json_object_set_new(it, col[k].key, json_null());
}

static void print_json(const struct cc *cc)
{
	enum rpc_code code = rpc_reply_code(cc->reply);
	const char *key, *msg = json_string_value(json_object_get(cc->reply, "message"));
	json_t *env = json_pack("{s:s, s:s, s:O, s:O}", "api", "csvctl/v1", "kind", cc->cmd->noun, "items",
				json_object_get(cc->reply, "items"), "warnings", json_object_get(cc->reply, "warnings"));
	json_t *v;

	json_object_foreach(cc->reply, key, v)
		if (strcmp(key, "code") && strcmp(key, "message") && strcmp(key, "kind") && strcmp(key, "items") && strcmp(key, "warnings"))
			json_object_set(env, key, v);
	if (code != RPC_OK && code != RPC_ACCEPTED)
		json_object_set_new(env, "error", json_pack("{s:i, s:s}", "code", (int)code, "message", msg));
	json_dumpf(env, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
	putchar('\n');
	json_decref(env);
}

void cc_print(const struct cc *cc)
{
	const json_t *items = json_object_get(cc->reply, "items"), *warnings = json_object_get(cc->reply, "warnings");
	const char *msg = json_string_value(json_object_get(cc->reply, "message"));
	json_t *v;
	size_t i;

	if (cc->format == CC_JSON || cc->format == CC_JSONL)
		whole_items(cc, items);
	switch (cc->format) {
	case CC_JSON:
		print_json(cc);
		break;
	case CC_JSONL:
		json_array_foreach(items, i, v) {
			json_dumpf(v, stdout, JSON_COMPACT | JSON_REAL_PRECISION(9));
			putchar('\n');
		}
		break;
	case CC_NAME:
		print_names(cc, items);
		break;
	case CC_TABLE:
		if (!json_array_size(items))
			break;
		if (!cc->cmd->pairs) {
			print_table(cc, items);
			break;
		}
		json_array_foreach(items, i, v) {
			if (i)
				putchar('\n');
			print_pairs_at(v, 0, false);
		}
		break;
	}
	fflush(stdout);
	if (cc->format != CC_JSON)
		json_array_foreach(warnings, i, v)
			fprintf(stderr, "csvctl: warning: %s\n", json_string_value(v));
	if (msg && *msg)
		fprintf(stderr, "csvctl: %s\n", msg);
}
