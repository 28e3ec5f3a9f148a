/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * fence_conf.c - see fence_conf.h.  A malformed line is said whichever node is asked for: nobody wants to learn of it when that node is lost.
 */
#include "utils/env/fence_conf.h"

#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "utils/base/base.h"
#include "utils/base/text.h"

#define LINE_MAX_BYTES 1022u

struct reading {
	const char *path;
	unsigned line;
	uint32_t nodeid;
	bool any_section, in_section, found;
	struct fence_conf *c;
	struct csv_err *err;
};

/* A number and nothing else, 1 to `max`; 0: it is none. */
static unsigned long number(const char *s, unsigned long max)
{
	size_t n = strspn(s, "0123456789");
	unsigned long v = n && n <= 10 && !s[n] ? strtoul(s, NULL, 10) : 0;

	return v <= max ? v : 0;
}

static int section(struct reading *r, char *s)
{
	static const char word[] = "[node";
	size_t n = strlen(s);
	char *id = s + sizeof(word) - 1;
	unsigned long v = 0;

	if (n > sizeof(word) && s[n - 1] == ']' && !strncmp(s, word, sizeof(word) - 1) && isblank((unsigned char)*id)) {
		s[n - 1] = '\0';
		v = number(csv_trim(id), UINT32_MAX);
		s[n - 1] = ']';
	}
	if (!v)
		return csv_err_set(r->err, -EINVAL, "%s: line %u: '%.40s': write [node ID]", r->path, r->line, s);
	r->any_section = true;
	r->in_section = v == r->nodeid;
	if (r->in_section && r->found)
		return csv_err_set(r->err, -EINVAL, "%s: line %u: node %lu has two sections: remove one", r->path, r->line, v);
	r->found |= r->in_section;
	return 0;
}

static int key(struct reading *r, const char *s, const char *value)
{
	struct fence_conf *c = r->c;
	size_t used = strlen(c->stdin_keys);
	int n;

	if (!strcmp(s, "agent")) {
		if (*c->agent)
			return csv_err_set(r->err, -EINVAL, "%s: line %u: node %u has two agents: remove one", r->path, r->line, r->nodeid);
		snprintf(c->agent, sizeof(c->agent), "%s", value);
		return 0;
	}
	if (!strcmp(s, "timeout")) {
		c->timeout_s = (unsigned)number(value, 3600);
		return c->timeout_s ? 0 : csv_err_set(r->err, -EINVAL, "%s: line %u: timeout=%.20s: 1 to 3600 seconds", r->path, r->line, value);
	}
	if (!strcmp(s, "action") || !strcmp(s, "option"))	/* option: what old agents call it */
		return csv_err_set(r->err, -EINVAL, "%s: line %u: %s is chosen by csvfs: remove the line", r->path, r->line, s);
	n = snprintf(c->stdin_keys + used, sizeof(c->stdin_keys) - used, "%s=%s\n", s, value);
	if (n < 0 || (size_t)n >= sizeof(c->stdin_keys) - used)
		return csv_err_set(r->err, -E2BIG, "%s: line %u: more than %zu bytes of options for node %u", r->path, r->line, sizeof(c->stdin_keys),
				   r->nodeid);
	return 0;
}

static int one_line(struct reading *r, char *s)
{
	char *value;

	if (!*s || *s == '#' || *s == ';')
		return 0;
	for (const char *p = s; *p; p++)	/* an agent may take it for the end of a line */
		if (iscntrl((unsigned char)*p) && *p != '\t')
			return csv_err_set(r->err, -EINVAL, "%s: line %u: holds a control character (%#x): remove it", r->path, r->line, (unsigned)*p);
	if (*s == '[')
		return section(r, s);
	value = strchr(s, '=');
	if (value)
		*value++ = '\0';
	s = csv_trim(s);
	if (!value || !*s)
		return csv_err_set(r->err, -EINVAL, "%s: line %u: '%.40s': write key=value", r->path, r->line, s);
	if (!r->any_section)
		return csv_err_set(r->err, -EINVAL, "%s: line %u: '%.40s' is of no node: write [node ID] before it", r->path, r->line, s);
	return r->in_section ? key(r, s, csv_trim(value)) : 0;
}

int fence_conf_parse(FILE *f, const char *path, uint32_t nodeid, struct fence_conf *ret, struct csv_err *err)
{
	struct reading r = { .path = path, .nodeid = nodeid, .c = ret, .err = err };
	char *line = NULL;
	size_t size = 0;
	ssize_t n;
	int rc = 0;

	memset(ret, 0, sizeof(*ret));
	ret->timeout_s = FENCE_TIMEOUT_S;
	while (!rc && (n = getline(&line, &size, f)) >= 0) {
		r.line++;
		if ((size_t)n > LINE_MAX_BYTES + 1)
			rc = csv_err_set(err, -E2BIG, "%s: line %u: longer than %u bytes", path, r.line, LINE_MAX_BYTES);
		else if (memchr(line, '\0', (size_t)n))
			rc = csv_err_set(err, -EINVAL, "%s: line %u: holds a NUL byte: it is no text", path, r.line);
		else
			rc = one_line(&r, csv_trim(line));
	}
	free(line);
	if (!rc && ferror(f))
		rc = csv_err_set(err, -EIO, "%s: cannot be read", path);
	if (!rc && !r.found)
		rc = csv_err_set(err, -ENOENT, "%s: no section [node %u]: write one with agent=..., or confirm by hand that the node "
				 "is off", path, nodeid);
	if (!rc && ret->agent[0] != '/')
		rc = csv_err_set(err, -EINVAL, "%s: node %u: agent=%.60s: write the absolute path of a fence agent", path, nodeid,
				 ret->agent);
	return rc;
}

int fence_conf_read(const char *path, uint32_t nodeid, struct fence_conf *ret, struct csv_err *err)
{
	FILE *f = fopen(path, "re");
	int rc;

	if (!f)
		return csv_err_set(err, -errno, "%s: %s: write a section [node %u] with agent=... there, or confirm by hand that "
				   "the node is off", path, strerror(errno), nodeid);
	rc = fence_conf_parse(f, path, nodeid, ret, err);
	fclose(f);
	return rc;
}
