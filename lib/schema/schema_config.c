// SPDX-License-Identifier: BSD-3-Clause
// libconfig text into a record: every key against the table, every finding with its line.
#include "schema_priv.h"

#include <errno.h>
#include <libconfig.h>
#include <stdlib.h>
#include <string.h>

#define CONFIG_KEYS_MAX 32 // of one group

struct config_reader {
	struct schema_lines *lines; // may be NULL
	struct error *err;
	uint32_t n_bad;
};

uint32_t schema_line_of(const struct schema_lines *lines, const char *path)
{
	char shorter[SCHEMA_PATH_MAX];
	snprintf(shorter, sizeof(shorter), "%s", path);
	while (shorter[0]) {
		for (uint32_t i = 0; i < lines->n_items; i++)
			if (strcmp(lines->items[i].path, shorter) == 0)
				return lines->items[i].line;
		size_t len = strlen(shorter);
		while (len > 0 && shorter[len - 1] != '.' && shorter[len - 1] != '[')
			len--;
		shorter[len ? len - 1 : 0] = '\0';
	}
	return 0;
}

void schema_lines_fini(struct schema_lines *lines)
{
	for (uint32_t i = 0; i < lines->n_items; i++)
		free(lines->items[i].path);
	free(lines->items);
	*lines = (struct schema_lines){ 0 };
}

// libconfig gives a text the line of the token behind it.
static uint32_t setting_line(const config_setting_t *setting)
{
	const char *text = NULL;
	uint32_t line = config_setting_source_line(setting);
	if (config_setting_type(setting) == CONFIG_TYPE_STRING)
		schema_literal(config_setting_get_string(setting), &line, &text);
	return line;
}

// Out of memory only costs a line number.
static void line_note(struct config_reader *r, const char *path, const config_setting_t *setting)
{
	struct schema_lines *lines = r->lines;
	if (lines == NULL || array_grow(lines->items, lines->n_items, lines->cap))
		return;
	char *copy = strdup(path);
	if (copy)
		lines->items[lines->n_items++] =
			(struct schema_line){ copy, setting_line(setting) };
}

static void read_refuse(struct config_reader *r, const config_setting_t *setting, const char *path,
	const char *text)
{
	error_add_line(r->err, EINVAL, setting_line(setting), path, "%s", text);
	r->n_bad++;
}

static const char *kind_name(const config_setting_t *setting)
{
	switch (config_setting_type(setting)) {
	case CONFIG_TYPE_GROUP:
		return "a group { }";
	case CONFIG_TYPE_LIST:
		return "a list ( )";
	case CONFIG_TYPE_ARRAY:
		return "an array [ ]";
	case CONFIG_TYPE_BOOL:
		return config_setting_get_bool(setting) ? "true" : "false";
	default:
		return "a value";
	}
}

// Wrong kind of value for the row: says what it is and what is allowed.
static void refuse_kind(struct config_reader *r, const config_setting_t *setting, const char *path,
	const struct schema_field *field)
{
	char allowed[256], text[512];
	schema_allowed(field, allowed, sizeof(allowed));
	snprintf(text, sizeof(text), "%s: allowed: %s", kind_name(setting), allowed);
	read_refuse(r, setting, path, text);
}

// A literal of the wrong kind: most often quotes too many or too few.
static void refuse_quotes(struct config_reader *r, const config_setting_t *setting,
	const char *path, const struct schema_field *field)
{
	char quoted[80], allowed[256];
	const char *literal = NULL;
	uint32_t line = 0;
	char mark = schema_literal(config_setting_get_string(setting), &line, &literal);
	bool wants_quotes = field->type != SCHEMA_BOOL && schema_is_scalar(field) &&
			    (field->type != SCHEMA_U32 || strcmp(literal, "auto") == 0);
	schema_quote(literal, quoted, sizeof(quoted));
	schema_allowed(field, allowed, sizeof(allowed));
	int len = (int)strlen(quoted) - 2;
	r->n_bad++;
	if (mark == SCHEMA_MARK_TEXT)
		error_add_line(
			r->err, EINVAL, line, path, "%s in quotes: allowed: %s", quoted, allowed);
	else
		error_add_line(r->err, EINVAL, line, path, "%.*s%s allowed: %s", len, quoted + 1,
			wants_quotes ? " must be written in quotes;" : ":", allowed);
}

static void read_literal(struct config_reader *r, const struct schema_field *field,
	const config_setting_t *setting, void *record, const char *path)
{
	char why[640];
	const char *literal = NULL;
	uint32_t line = 0;
	char mark = schema_literal(config_setting_get_string(setting), &line, &literal);
	bool is_auto = field->auto_zero && strcmp(literal, "auto") == 0;
	bool wants_number = field->type == SCHEMA_U32 && !is_auto;
	if (field->type == SCHEMA_BOOL ||
		mark != (wants_number ? SCHEMA_MARK_NUMBER : SCHEMA_MARK_TEXT)) {
		refuse_quotes(r, setting, path, field);
	} else if (!schema_set_text(field, record, literal, why, sizeof(why))) {
		error_add_line(r->err, EINVAL, line, path, "%s", why);
		r->n_bad++;
	}
}

static void read_scalar(struct config_reader *r, const struct schema_field *field,
	const config_setting_t *setting, void *record, const char *path)
{
	char why[640];
	if (config_setting_type(setting) == CONFIG_TYPE_STRING) {
		read_literal(r, field, setting, record, path);
	} else if (config_setting_type(setting) != CONFIG_TYPE_BOOL || field->type != SCHEMA_BOOL) {
		refuse_kind(r, setting, path, field);
	} else {
		const char *text = config_setting_get_bool(setting) ? "true" : "false";
		if (!schema_set_text(field, record, text, why, sizeof(why)))
			read_refuse(r, setting, path, why);
	}
}

static void read_group(struct config_reader *r, const struct schema_field *fields,
	const config_setting_t *group, void *record, const char *path);

// What must be given has an example for a default; it must not stand in for what was refused.
static void forget_examples(const struct schema_field *fields, char *item)
{
	for (const struct schema_field *f = fields; f->name; f++)
		if (f->required)
			memset(item + f->offset, 0,
				f->type == SCHEMA_TEXT ? f->size : sizeof(uint32_t));
}

static void read_item(struct config_reader *r, const struct schema_field *list,
	const config_setting_t *setting, void *item, const char *path)
{
	memset(item, 0, list->size);
	line_note(r, path, setting);
	if (list->fields->name[0] == '\0') {
		read_scalar(r, list->fields, setting, item, path);
	} else if (!config_setting_is_group(setting)) {
		char text[128];
		snprintf(text, sizeof(text), "%s: allowed: group { ... }", kind_name(setting));
		read_refuse(r, setting, path, text);
	} else {
		schema_set_defaults(list->fields, item);
		forget_examples(list->fields, item);
		read_group(r, list->fields, setting, item, path);
	}
}

static void read_list(struct config_reader *r, const struct schema_field *list,
	const config_setting_t *setting, void *record, const char *path)
{
	uint32_t n = (uint32_t)config_setting_length(setting);
	if (n > list->max) {
		char allowed[256], text[512];
		schema_allowed(list, allowed, sizeof(allowed));
		snprintf(text, sizeof(text), "%u entries: allowed: %s", n, allowed);
		read_refuse(r, setting, path, text);
		return;
	}
	for (uint32_t i = 0; i < n; i++) {
		char item_path[SCHEMA_PATH_MAX];
		schema_join_idx(item_path, sizeof(item_path), path, i);
		char *item = (char *)record + list->offset + i * list->size;
		read_item(r, list, config_setting_get_elem(setting, i), item, item_path);
	}
	*(uint32_t *)((char *)record + list->n_offset) = n;
}

static void read_field(struct config_reader *r, const struct schema_field *field,
	const config_setting_t *setting, void *record, const char *path)
{
	bool is_list = config_setting_is_list(setting) || config_setting_is_array(setting);
	bool is_string = config_setting_type(setting) == CONFIG_TYPE_STRING;
	line_note(r, path, setting);
	if (schema_is_scalar(field))
		read_scalar(r, field, setting, record, path);
	else if (is_string)
		refuse_quotes(r, setting, path, field);
	else if (field->type == SCHEMA_GROUP && config_setting_is_group(setting))
		read_group(r, field->fields, setting, (char *)record + field->offset, path);
	else if (field->type == SCHEMA_LIST && is_list)
		read_list(r, field, setting, record, path);
	else
		refuse_kind(r, setting, path, field);
}

static void refuse_key(struct config_reader *r, const struct schema_field *fields,
	const config_setting_t *setting, const char *path)
{
	const char *names[CONFIG_KEYS_MAX];
	char allowed[512] = "";
	char text[768];
	size_t n_names = 0, n = 0;
	for (const struct schema_field *f = fields; f->name && n_names < CONFIG_KEYS_MAX; f++) {
		names[n_names++] = f->name;
		if (n >= sizeof(allowed))
			continue;
		n += (size_t)snprintf(
			allowed + n, sizeof(allowed) - n, "%s%s", n ? ", " : "", f->name);
	}
	const char *nearest = error_nearest(config_setting_name(setting), names, n_names);
	if (nearest)
		snprintf(text, sizeof(text), "unknown key, did you mean \"%s\"? allowed: %s",
			nearest, allowed);
	else
		snprintf(text, sizeof(text), "unknown key; allowed: %s", allowed);
	read_refuse(r, setting, path, text);
}

static const struct schema_field *find_field(const struct schema_field *fields, const char *name)
{
	for (const struct schema_field *f = fields; f->name; f++)
		if (strcmp(f->name, name) == 0)
			return f;
	return NULL;
}

static void read_group(struct config_reader *r, const struct schema_field *fields,
	const config_setting_t *group, void *record, const char *path)
{
	char key[SCHEMA_PATH_MAX];
	uint32_t n = (uint32_t)config_setting_length(group);
	for (uint32_t i = 0; i < n; i++) {
		const config_setting_t *setting = config_setting_get_elem(group, i);
		const char *name = config_setting_name(setting);
		const struct schema_field *field = find_field(fields, name);
		schema_join(key, sizeof(key), path, name);
		if (field)
			read_field(r, field, setting, record, key);
		else
			refuse_key(r, fields, setting, key);
	}
	for (const struct schema_field *f = fields; f->name; f++) {
		if (!f->required || config_setting_get_member(group, f->name))
			continue;
		char allowed[256], text[512];
		schema_join(key, sizeof(key), path, f->name);
		schema_allowed(f, allowed, sizeof(allowed));
		snprintf(text, sizeof(text), "key is missing; allowed: %s", allowed);
		read_refuse(r, group, key, text);
	}
}

// With the form checked before, what is left is a key that is there twice (or no memory).
static void refuse_rest(struct error *err, const config_t *config)
{
	const char *text = config_error_text(config);
	error_add_line(err, EINVAL, (uint32_t)config_error_line(config), "",
		"%s; allowed: each key once in its group", text ? text : "syntax error");
}

int schema_read_config(const struct schema_field *fields, const char *text, size_t len,
	void *record, struct schema_lines *lines, struct error *err)
{
	char *scanned = schema_scan(text, len, err);
	if (scanned == NULL || !schema_grammar_ok(scanned, err)) {
		free(scanned);
		return -EINVAL;
	}
	struct config_reader r = { lines, err, 0 };
	config_t config;
	config_init(&config);
	if (config_read_string(&config, scanned) != CONFIG_TRUE) {
		refuse_rest(err, &config);
		r.n_bad++;
	} else {
		read_group(&r, fields, config_root_setting(&config), record, "");
	}
	config_destroy(&config);
	free(scanned);
	return r.n_bad ? -EINVAL : 0;
}
