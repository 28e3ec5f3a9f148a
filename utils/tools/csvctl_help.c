/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * csvctl_help.c - help, manual page, bash completion and a schema of the JSON, all from the table.
 */
#include "utils/tools/csvctl.h"
#include "utils/tools/csvctl_conf.h"

#include <stdlib.h>
#include <string.h>

#define CC_NO_WAIT "return as soon as it is accepted (exit code 13); the answer names the job"

#define HELP_COLUMNS 100

/* An optional value is written "--name[=VALUE]". */
static const char *before_arg(const char *arg)
{
	return arg && arg[0] != '[' ? " " : "";
}

static void synopsis(FILE *out, const struct cc_cmd *c)
{
	fprintf(out, "csvctl %s %s", c->noun, c->verb);
	if (c->args)
		fprintf(out, " %s", c->args);
	for (unsigned i = 0; i < ARRAY_SIZE(c->opts) && c->opts[i].name; i++)
		fprintf(out, c->opts[i].required ? " --%s%s%s" : " [--%s%s%s]", c->opts[i].name, before_arg(c->opts[i].arg),
			c->opts[i].arg ? c->opts[i].arg : "");
	if (c->job)
		fputs(" [--no-wait]", out);
	if (c->change)
		fputs(" [--dry-run]", out);
}

/* "--name ARG": how wide the widest is, for a column. */
static int options_width(const struct cc_opt *o, size_t max)
{
	size_t w = 9;		/* --dry-run */

	for (size_t i = 0; i < max && o[i].name; i++)
		w = csv_max(w, strlen(o[i].name) + (o[i].arg ? strlen(o[i].arg) + 3 : 2));
	return (int)csv_min(w, (size_t)34);
}

static void option_line(FILE *out, int width, const char *name, const char *arg, const char *help)
{
	char text[96];

	snprintf(text, sizeof(text), "--%s%s%s", name, before_arg(arg), arg ? arg : "");
	if ((int)strlen(text) > width)
		fprintf(out, "  %s\n  %-*s  %s\n", text, width, "", help);
	else
		fprintf(out, "  %-*s  %s\n", width, text, help);
}

static void options(FILE *out, const struct cc_opt *o, size_t max, int width)
{
	for (size_t i = 0; i < max && o[i].name; i++)
		option_line(out, width, o[i].name, o[i].arg, o[i].help);
}

/* Words, in lines of a terminal. */
static void wrapped(FILE *out, const char *text)
{
	size_t at = 0;

	while (*text) {
		size_t n = strcspn(text, " ");

		if (at && at + 1 + n > HELP_COLUMNS) {
			fputc('\n', out);
			at = 0;
		}
		at += (size_t)fprintf(out, "%s%.*s", at ? " " : "  ", (int)n, text);
		text += n + (text[n] == ' ');
	}
	fputc('\n', out);
}

/* The synopsis in lines of a terminal: broken before an argument or an option, never inside one. */
static void usage_lines(FILE *out, const struct cc_cmd *c)
{
	char *text = NULL;
	size_t len, at = strlen("usage: "), from = 0;
	FILE *f = open_memstream(&text, &len);
	int depth = 0;

	if (!f)
		return;
	synopsis(f, c);
	fclose(f);
	fputs("usage: ", out);
	for (size_t i = 0; i <= len; i++) {
		depth += (text[i] == '[') - (text[i] == ']');
		if (text[i] && (text[i] != ' ' || depth || (text[i + 1] != '[' && text[i + 1] != '-')))
			continue;
		if (from && at + 1 + i - from > HELP_COLUMNS)
			at = (size_t)fprintf(out, "\n        ") - 1;
		at += (size_t)fprintf(out, "%s%.*s", from ? " " : "", (int)(i - from), text + from);
		from = i + 1;
	}
	fputc('\n', out);
	free(text);
}

static void help_of_one(FILE *out, const struct cc_cmd *c, bool all, int width)
{
	usage_lines(out, c);
	fprintf(out, "  %s\n", c->help);
	if (!all)
		return;
	if (c->text)
		wrapped(out, c->text);
	if (c->opts[0].name || c->change || c->job)
		fputc('\n', out);
	options(out, c->opts, ARRAY_SIZE(c->opts), width);
	if (c->job)
		option_line(out, width, "no-wait", NULL, CC_NO_WAIT);
	if (c->change)
		option_line(out, width, "dry-run", NULL, "say what would be done, do nothing");
}

void cc_help(FILE *out, const char *noun, const char *verb)
{
	int width = options_width(cc_globals, 16), verb_width = 0;
	size_t n = 0;

	for (size_t i = 0; i < cc_cmds_n; i++) {
		verb_width = csv_max(verb_width, (int)strlen(cc_cmds[i].verb));
		if (noun && verb && !strcmp(noun, cc_cmds[i].noun) && !strcmp(verb, cc_cmds[i].verb))
			width = csv_max(width, options_width(cc_cmds[i].opts, ARRAY_SIZE(cc_cmds[i].opts)));
	}
	if (!noun)
		fputs("usage: csvctl NOUN VERB [ARGUMENT...] [OPTION...]\nShows and changes the cluster, csvfs volumes, virtual disks and virtual machines. "
		      "Run as root.\n\n", out);
	for (size_t i = 0; i < cc_cmds_n; i++) {
		const struct cc_cmd *c = &cc_cmds[i];

		if ((noun && strcmp(noun, c->noun)) || (verb && strcmp(verb, c->verb)))
			continue;
		n++;
		if (noun)
			help_of_one(out, c, verb, width);
		else
			fprintf(out, "  %-9s %-*s  %s\n", c->noun, verb_width, c->verb, c->help);
	}
	if (!n)
		fprintf(out, "%s %s: no such command\n", noun, verb ? verb : "");
	fputs("\nAlways:\n", out);
	options(out, cc_globals, 16, width);
	if (noun && !verb)
		fprintf(out, "\nMore about one: csvctl %s VERB --help\n", noun);
	if (!noun) {
		fputs("\nMore about one: csvctl NOUN VERB --help, csvctl(8), csvfs(7)\n\nExit codes:\n", out);
		for (size_t i = 0; i < cc_codes_n; i++)
			fprintf(out, "  %3d  %s\n", cc_codes[i].code, cc_codes[i].text);
	}
}

/* ---- manual page -------------------------------------------------------------------------------------------------------------- */

static void man_options(FILE *out, const struct cc_opt *o, size_t max)
{
	for (size_t i = 0; i < max && o[i].name; i++)
		fprintf(out, ".TP\n.B --%s%s%s\n%s\n", o[i].name, before_arg(o[i].arg), o[i].arg ? o[i].arg : "", o[i].help);
}

/* groff takes a back-slash for its own, and a line that begins with . or ' for a command. */
static void man_text(FILE *out, const char *text)
{
	if (*text == '.' || *text == '\'')
		fputs("\\&", out);
	for (; *text; text++) {
		if (*text == '\\')
			fputs("\\e", out);
		else
			fputc(*text, out);
	}
	fputc('\n', out);
}

void cc_man(FILE *out)
{
	fputs(".\\\" Made from csvctl's table of commands: csvctl --man\n"
	      ".TH CSVCTL 8 \"\" csvfs \"System Administration\"\n.SH NAME\ncsvctl \\- show and change cluster, volumes, disks and virtual machines\n"
	      ".SH SYNOPSIS\n.B csvctl\n.I NOUN VERB\n.RI [ ARGUMENT ...]\n.RI [ OPTION ...]\n.SH DESCRIPTION\n"
	      "Asks the daemons of this node over their control sockets, which only root may use.\n.SH COMMANDS\n", out);
	for (size_t i = 0; i < cc_cmds_n; i++) {
		const struct cc_cmd *c = &cc_cmds[i];

		fprintf(out, ".SS \"csvctl %s %s\"\n.na\n.nh\n.B ", c->noun, c->verb);
		synopsis(out, c);
		fprintf(out, "\n.hy\n.ad\n.PP\n%c%s.\n", c->help[0] - 'a' + 'A', c->help + 1);
		if (c->text)
			man_text(out, c->text);
		man_options(out, c->opts, ARRAY_SIZE(c->opts));
		if (c->job)
			fputs(".TP\n.B --no-wait\n" CC_NO_WAIT "\n", out);
		if (c->change)
			fputs(".TP\n.B --dry-run\nsay what would be done, do nothing\n", out);
	}
	fputs(".SH OPTIONS\n", out);
	man_options(out, cc_globals, 16);
	fputs(".SH OUTPUT\nWith \\fB-o json\\fR one object: api (\"csvctl/v1\"), kind, items, warnings, and error when it failed. Sizes are "
	      "whole bytes, times end in _ms, names are in snake_case.\n.SH EXIT STATUS\n", out);
	for (size_t i = 0; i < cc_codes_n; i++)
		fprintf(out, ".TP\n.B %d\n%s\n", cc_codes[i].code, cc_codes[i].text);
	fputs(".SH FILES\n.TP\n.I /run/csvfs/*.lock\nwhich volumes were mounted on this node, and where\n"
	      ".TP\n.I " CONF_COROSYNC ", " CONF_AUTHKEY ", " CONF_FENCE "\nwhat cluster init and join write\n.SH SEE ALSO\n"
	      ".BR csvfs (7),\n.BR csvfsd (8),\n.BR mkfs.csvfs (8),\n.BR fsck.csvfs (8),\n.BR fence.conf (5)\n", out);
}

/* ---- bash completion ------------------------------------------------------------------------------------------------------------ */

static bool has_list(const char *noun)
{
	for (size_t i = 0; i < cc_cmds_n; i++)
		if (!strcmp(cc_cmds[i].noun, noun) && !strcmp(cc_cmds[i].verb, "list"))
			return true;
	return false;
}

/*
 * What a place holder (the first word of "NODE...", "[VOLUME...]", "PATH") stands for: "@noun": the names that csvctl NOUN list has,
 * "files", or "" for what nobody can know.  NAME and ID are of the command's own noun, unless it makes a new one.
 */
static void meaning(const struct cc_cmd *c, const char *holder, char *ret, size_t size)
{
	char noun[32];
	size_t n = 0;

	holder += *holder == '[';
	for (; holder[n] >= 'A' && holder[n] <= 'Z' && n + 1 < sizeof(noun); n++)
		noun[n] = (char)(holder[n] - 'A' + 'a');
	noun[n] = '\0';
	if (has_list(noun))
		snprintf(ret, size, "@%s", noun);
	else if ((!strcmp(noun, "name") || !strcmp(noun, "id")) && has_list(c->noun) && strcmp(c->verb, "create") != 0)
		snprintf(ret, size, "@%s", c->noun);
	else
		snprintf(ret, size, "%s", !strcmp(noun, "file") || !strcmp(noun, "path") || !strcmp(noun, "device") || !strcmp(noun, "dir") ? "files" : "");
}

static void complete_nouns(FILE *out)
{
	const char *last = "";

	for (size_t i = 0; i < cc_cmds_n; i++) {
		if (strcmp(last, cc_cmds[i].noun))
			fprintf(out, "%s%s", *last ? " " : "", cc_cmds[i].noun);
		last = cc_cmds[i].noun;
	}
}

/* One command: its options, what comes after an option that takes a value, what its arguments are. */
static void complete_command(FILE *out, const struct cc_cmd *c)
{
	char what[48];

	fprintf(out, "\t'%s %s')\n\t\topts='", c->noun, c->verb);
	for (unsigned k = 0; k < ARRAY_SIZE(c->opts) && c->opts[k].name; k++)
		fprintf(out, "--%s ", c->opts[k].name);
	meaning(c, c->args ? c->args : "", what, sizeof(what));
	fprintf(out, "%s%s--output --timeout --help' what='%s'\n\t\tcase $prev in\n", c->job ? "--no-wait " : "", c->change ? "--dry-run " : "",
		c->paths ? "files" : what);
	for (unsigned k = 0; k < ARRAY_SIZE(c->opts) && c->opts[k].name; k++)
		if (c->opts[k].arg && c->opts[k].arg[0] != '[') {
			meaning(c, c->opts[k].arg, what, sizeof(what));
			fprintf(out, "\t\t--%s) value=1 what='%s' ;;\n", c->opts[k].name, what);
		}
	fputs("\t\tesac ;;\n", out);
}

void cc_completion(FILE *out)
{
	fputs("# bash completion of csvctl; made from its table of commands: csvctl --completion\n"
	      "_csvctl()\n{\n\tlocal cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} words= opts= what= value=\n", out);
	fputs("\tif [[ $prev == -o || $prev == --output ]]; then\n"
	      "\t\tCOMPREPLY=($(compgen -W 'table json jsonl name' -- \"$cur\"))\n\t\treturn\n\tfi\n", out);
	fputs("\tcase $COMP_CWORD in\n\t1)\n\t\tCOMPREPLY=($(compgen -W '", out);
	complete_nouns(out);
	fputs(" help' -- \"$cur\"))\n\t\treturn ;;\n\t2)\n\t\tcase ${COMP_WORDS[1]} in\n\t\thelp) words='", out);
	complete_nouns(out);
	fputs("' ;;\n", out);
	for (size_t i = 0; i < cc_cmds_n;) {
		const char *noun = cc_cmds[i].noun;

		fprintf(out, "\t\t%s) words='", noun);
		for (size_t first = i; i < cc_cmds_n && !strcmp(noun, cc_cmds[i].noun); i++)
			fprintf(out, "%s%s", i == first ? "" : " ", cc_cmds[i].verb);
		fputs("' ;;\n", out);
	}
	fputs("\t\tesac\n\t\tCOMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n\t\treturn ;;\n\tesac\n"
	      "\tcase \"${COMP_WORDS[1]} ${COMP_WORDS[2]}\" in\n", out);
	for (size_t i = 0; i < cc_cmds_n; i++)
		complete_command(out, &cc_cmds[i]);
	fputs("\tesac\n\tif [[ $cur == -* && ! $value ]]; then\n\t\tCOMPREPLY=($(compgen -W \"$opts\" -- \"$cur\"))\n"
	      "\telif [[ $what == files ]]; then\n\t\tCOMPREPLY=($(compgen -f -- \"$cur\"))\n"
	      "\telif [[ $what == @* ]]; then\n"
	      "\t\tCOMPREPLY=($(compgen -W \"$(\"${COMP_WORDS[0]}\" \"${what#@}\" list -o name --timeout 2 2>/dev/null)\" -- \"$cur\"))\n"
	      "\tfi\n}\ncomplete -o filenames -F _csvctl csvctl\n", out);
}

/* ---- schema of the items ---------------------------------------------------------------------------------------------------------- */

void cc_schema(FILE *out)
{
	static const char *const type[] = { "string", "integer", "integer", "integer", "integer", "boolean", "array" };
	json_t *all = json_object();

	for (size_t i = 0; i < cc_cmds_n; i++) {
		const struct cc_cmd *c = &cc_cmds[i];
		json_t *props = json_object();
		char name[64];

		for (unsigned k = 0; k < ARRAY_SIZE(c->cols) && c->cols[k].key; k++)
			json_object_set_new(props, c->cols[k].key, json_pack("{s:[s,s]}", "type", type[c->cols[k].type], "null"));
		snprintf(name, sizeof(name), "%s %s", c->noun, c->verb);
		json_object_set_new(all, name, json_pack("{s:s, s:[s,s,s,s], s:{s:{s:s}, s:{s:s}, s:{s:s, s:{s:s, s:o}}, s:{s:s, s:{s:s}}}}",
							 "type", "object", "required", "api", "kind", "items", "warnings", "properties",
							 "api", "const", "csvctl/v1", "kind", "const", c->noun, "items", "type", "array",
							 "items", "type", "object", "properties", props, "warnings", "type", "array", "items",
							 "type", "string"));
	}
	json_dumpf(all, out, JSON_INDENT(1));
	fputc('\n', out);
	json_decref(all);
}
