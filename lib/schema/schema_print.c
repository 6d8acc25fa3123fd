// SPDX-License-Identifier: BSD-3-Clause
// A record as libconfig text: the effective configuration, or the sample file with all that a table knows of each key.
#include "schema_priv.h"

#include <string.h>

#define PRINT_WIDTH 96

struct schema_printer {
	FILE *file;
	bool with_help;
	uint32_t depth;
};

static void print_indent(const struct schema_printer *p)
{
	for (uint32_t i = 0; i < p->depth; i++)
		fputc('\t', p->file);
}

// Words of one text as comment lines of a bounded width.
static void print_comment(const struct schema_printer *p, const char *lead, const char *text)
{
	size_t room = PRINT_WIDTH - 8 * p->depth - strlen(lead) - 2;
	while (*text) {
		size_t len = strlen(text);
		if (len > room) {
			len = room;
			while (len > 0 && text[len] != ' ')
				len--;
			if (len == 0)
				len = strcspn(text, " ");
		}
		print_indent(p);
		fprintf(p->file, "# %s%.*s\n", lead, (int)len, text);
		text += len + strspn(text + len, " ");
	}
}

// A number stands bare; everything else that is not a boolean is quoted.
static void print_value(
	const struct schema_printer *p, const struct schema_field *field, const void *record)
{
	char text[512];
	schema_format(field, record, text, sizeof(text));
	bool bare = field->type == SCHEMA_BOOL ||
		    (field->type == SCHEMA_U32 && strcmp(text, "auto") != 0);
	if (bare) {
		fputs(text, p->file);
		return;
	}
	fputc('"', p->file);
	for (const char *c = text; *c; c++) {
		if (*c == '"' || *c == '\\')
			fputc('\\', p->file);
		fputc(*c, p->file);
	}
	fputc('"', p->file);
}

static void facts_format(const struct schema_field *f, char *buf, size_t len)
{
	char allowed[256];
	schema_allowed(f, allowed, sizeof(allowed));
	bool quoted = f->default_text && f->type != SCHEMA_BOOL && f->type != SCHEMA_U32;
	const char *quote = quoted || (f->auto_zero && f->default_text) ? "\"" : "";
	const char *word = f->required ? "required, for example" : "default";
	const char *unit = f->unit ? f->unit : "";
	const char *start = f->default_text ? f->default_text : "none";
	snprintf(buf, len, "%s%s%s; %s %s%s%s; %s", allowed, unit[0] ? ", " : "", unit, word, quote,
		start, quote, f->live ? "live" : "restart");
}

static void print_help(struct schema_printer *p, const struct schema_field *f)
{
	char facts[768];
	if (!p->with_help)
		return;
	print_comment(p, "", f->help);
	if (f->type == SCHEMA_GROUP)
		return;
	facts_format(f, facts, sizeof(facts));
	print_comment(p, "", facts);
	if (f->type != SCHEMA_LIST || f->fields->name[0] == '\0')
		return;
	for (const struct schema_field *item = f->fields; item->name; item++) {
		char line[1200];
		facts_format(item, facts, sizeof(facts));
		snprintf(line, sizeof(line), "%s: %s %s", item->name, item->help, facts);
		print_comment(p, "  ", line);
	}
}

static void print_fields(
	struct schema_printer *p, const struct schema_field *fields, const void *record);

static void print_list(
	struct schema_printer *p, const struct schema_field *list, const void *record)
{
	uint32_t n = schema_count(list, record);
	bool groups = list->fields->name[0] != '\0';
	fputs(groups ? "(" : "[", p->file);
	for (uint32_t i = 0; i < n; i++) {
		const void *item = schema_item(list, record, i);
		fputs(i ? ", " : " ", p->file);
		if (!groups) {
			print_value(p, list->fields, item);
			continue;
		}
		struct schema_printer inner = { p->file, false, p->depth + 1 };
		fputs("{\n", p->file);
		print_fields(&inner, list->fields, item);
		print_indent(p);
		fputc('}', p->file);
	}
	fputs(groups ? " );\n" : " ];\n", p->file);
}

static void print_fields(
	struct schema_printer *p, const struct schema_field *fields, const void *record)
{
	for (const struct schema_field *f = fields; f->name; f++) {
		if (p->with_help && f != fields)
			fputc('\n', p->file);
		print_help(p, f);
		print_indent(p);
		fprintf(p->file, "%s = ", f->name);
		if (f->type == SCHEMA_LIST) {
			print_list(p, f, record);
		} else if (f->type == SCHEMA_GROUP) {
			fputs("{\n", p->file);
			p->depth++;
			print_fields(p, f->fields, (const char *)record + f->offset);
			p->depth--;
			print_indent(p);
			fputs("};\n", p->file);
		} else {
			print_value(p, f, record);
			fputs(";\n", p->file);
		}
	}
}

void schema_print(const struct schema_field *fields, const void *record, bool with_help, FILE *file)
{
	struct schema_printer p = { file, with_help, 0 };
	print_fields(&p, fields, record);
}
