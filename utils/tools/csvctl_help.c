/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * csvctl_help.c - help, manual page, bash completion and a schema of the JSON, all from the table.
 */
#include "utils/tools/csvctl.h"

#include <string.h>

#define CC_NO_WAIT "return as soon as it is accepted (exit code 13); the answer names the job"

static const char *before_arg(const struct cc_opt *o)
{
	return o->arg && o->arg[0] != '[' ? " " : "";
}

static void synopsis(FILE *out, const struct cc_cmd *c)
{
	fprintf(out, "csvctl %s %s", c->noun, c->verb);
	if (c->args)
		fprintf(out, " %s", c->args);
	for (unsigned i = 0; i < ARRAY_SIZE(c->opts) && c->opts[i].name; i++)
		fprintf(out, c->opts[i].required ? " --%s%s%s" : " [--%s%s%s]", c->opts[i].name, before_arg(&c->opts[i]),
			c->opts[i].arg ? c->opts[i].arg : "");
	if (c->job)
		fputs(" [--no-wait]", out);
	if (c->change)
		fputs(" [--dry-run]", out);
}

static void options(FILE *out, const struct cc_opt *o, size_t max, const char *fmt)
{
	char name[64];

	for (size_t i = 0; i < max && o[i].name; i++) {
		snprintf(name, sizeof(name), "--%s%s%s", o[i].name, before_arg(&o[i]), o[i].arg ? o[i].arg : "");
		fprintf(out, fmt, name, o[i].help);
	}
}

void cc_help(FILE *out, const char *noun, const char *verb)
{
	size_t n = 0;

	if (!noun)
		fputs("usage: csvctl NOUN VERB [ARGUMENT...] [OPTION...]\nShows and changes csvfs volumes, virtual disks and virtual machines. Run as root.\n\n", out);
	for (size_t i = 0; i < cc_cmds_n; i++) {
		const struct cc_cmd *c = &cc_cmds[i];

		if ((noun && strcmp(noun, c->noun)) || (verb && strcmp(verb, c->verb)))
			continue;
		n++;
		if (!noun) {
			fprintf(out, "  %-9s %-14s %s\n", c->noun, c->verb, c->help);
			continue;
		}
		fputs("usage: ", out);
		synopsis(out, c);
		fprintf(out, "\n  %s\n", c->help);
		if (c->text && verb)
			fprintf(out, "  %s\n", c->text);
		options(out, c->opts, ARRAY_SIZE(c->opts), "  %-18s %s\n");
		if (c->job)
			fprintf(out, "  %-18s %s\n", "--no-wait", CC_NO_WAIT);
		if (c->change)
			fprintf(out, "  %-18s %s\n", "--dry-run", "say what would be done, do nothing");
	}
	if (!n)
		fprintf(out, "%s %s: no such command\n", noun, verb ? verb : "");
	fputs("\nAlways:\n", out);
	options(out, cc_globals, 16, "  %-18s %s\n");
	if (!noun) {
		fputs("\nExit codes:\n", out);
		for (size_t i = 0; i < cc_codes_n; i++)
			fprintf(out, "  %3d  %s\n", cc_codes[i].code, cc_codes[i].text);
	}
}

/* ---- manual page -------------------------------------------------------------------------------------------------------------- */

void cc_man(FILE *out)
{
	fputs(".\\\" Made from csvctl's table of commands: csvctl --man\n"
	      ".TH CSVCTL 8 \"\" csvfs \"System Administration\"\n.SH NAME\ncsvctl \\- show and change csvfs volumes, disks and virtual machines\n"
	      ".SH SYNOPSIS\n.B csvctl\n.I NOUN VERB\n.RI [ ARGUMENT ...]\n.RI [ OPTION ...]\n.SH DESCRIPTION\n"
	      "Asks the daemons of this node over their control sockets, which only root may use.\n.SH COMMANDS\n", out);
	for (size_t i = 0; i < cc_cmds_n; i++) {
		const struct cc_cmd *c = &cc_cmds[i];

		fputs(".SS \"", out);
		synopsis(out, c);
		fprintf(out, "\"\n%c%s.\n", c->help[0] - 'a' + 'A', c->help + 1);
		if (c->text)
			fprintf(out, "%s\n", c->text);
		options(out, c->opts, ARRAY_SIZE(c->opts), ".TP\n.B %s\n%s\n");
		if (c->job)
			fputs(".TP\n.B --no-wait\n" CC_NO_WAIT "\n", out);
		if (c->change)
			fputs(".TP\n.B --dry-run\nsay what would be done, do nothing\n", out);
	}
	fputs(".SH OPTIONS\n", out);
	options(out, cc_globals, 16, ".TP\n.B %s\n%s\n");
	fputs(".SH OUTPUT\nWith \\fB-o json\\fR one object: api (\"csvctl/v1\"), kind, items, warnings, and error when it failed. Sizes are "
	      "whole bytes, times end in _ms, names are in snake_case.\n.SH EXIT STATUS\n", out);
	for (size_t i = 0; i < cc_codes_n; i++)
		fprintf(out, ".TP\n.B %d\n%s\n", cc_codes[i].code, cc_codes[i].text);
	fputs(".SH FILES\n.TP\n.I /run/csvfs/*.lock\nwhich volumes were mounted on this node, and where\n.SH SEE ALSO\n"
	      ".BR csvfs (7),\n.BR csvfsd (8),\n.BR migratord (8),\n.BR mkfs.csvfs (8),\n.BR fsck.csvfs (8)\n", out);
}

/* ---- bash completion ------------------------------------------------------------------------------------------------------------ */

static void complete_nouns(FILE *out)
{
	const char *last = "";

	for (size_t i = 0; i < cc_cmds_n; i++) {
		if (strcmp(last, cc_cmds[i].noun))
			fprintf(out, "%s%s", *last ? " " : "", cc_cmds[i].noun);
		last = cc_cmds[i].noun;
	}
}

void cc_completion(FILE *out)
{
	fputs("# bash completion of csvctl; made from its table of commands: csvctl --completion\n"
	      "_csvctl()\n{\n\tlocal cur=${COMP_WORDS[COMP_CWORD]} words opts files=\n", out);
	fputs("\tif [[ ${COMP_WORDS[COMP_CWORD-1]} == -o || ${COMP_WORDS[COMP_CWORD-1]} == --output ]]; then\n"
	      "\t\tCOMPREPLY=($(compgen -W 'table json jsonl name' -- \"$cur\"))\n\t\treturn\n\tfi\n", out);
	fputs("\tcase $COMP_CWORD in\n\t1)\n\t\tCOMPREPLY=($(compgen -W '", out);
	complete_nouns(out);
	fputs(" help' -- \"$cur\"))\n\t\treturn ;;\n\t2)\n\t\tcase ${COMP_WORDS[1]} in\n", out);
	for (size_t i = 0; i < cc_cmds_n;) {
		const char *noun = cc_cmds[i].noun;

		fprintf(out, "\t\t%s) words='", noun);
		for (size_t first = i; i < cc_cmds_n && !strcmp(noun, cc_cmds[i].noun); i++)
			fprintf(out, "%s%s", i == first ? "" : " ", cc_cmds[i].verb);
		fputs("' ;;\n", out);
	}
	fputs("\t\tesac\n\t\tCOMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n\t\treturn ;;\n\tesac\n"
	      "\tcase \"${COMP_WORDS[1]} ${COMP_WORDS[2]}\" in\n", out);
	for (size_t i = 0; i < cc_cmds_n; i++) {
		const struct cc_cmd *c = &cc_cmds[i];

		fprintf(out, "\t'%s %s') opts='", c->noun, c->verb);
		for (unsigned k = 0; k < ARRAY_SIZE(c->opts) && c->opts[k].name; k++)
			fprintf(out, "--%s ", c->opts[k].name);
		fprintf(out, "%s%s--output --timeout --help'%s ;;\n", c->job ? "--no-wait " : "", c->change ? "--dry-run " : "", c->paths ? " files=1" : "");
	}
	fputs("\tesac\n\tif [[ $cur == -* ]]; then\n\t\tCOMPREPLY=($(compgen -W \"$opts\" -- \"$cur\"))\n"
	      "\telif [[ $files ]]; then\n\t\tCOMPREPLY=($(compgen -f -- \"$cur\"))\n\tfi\n}\ncomplete -o filenames -F _csvctl csvctl\n", out);
}

/* ---- schema of the items ---------------------------------------------------------------------------------------------------------- */

void cc_schema(FILE *out)
{
	static const char *const type[] = { "string", "integer", "integer", "integer", "boolean", "array" };
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
