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

// Out of memory only costs a line number.
static void line_note(struct config_reader *r, const char *path, const config_setting_t *setting)
{
	struct schema_lines *lines = r->lines;
	if (lines == NULL || array_grow(lines->items, lines->n_items, lines->cap))
		return;
	char *copy = strdup(path);
	if (copy)
		lines->items[lines->n_items++] =
			(struct schema_line){ copy, config_setting_source_line(setting) };
}

static void read_refuse(struct config_reader *r, const config_setting_t *setting, const char *path,
	const char *text)
{
	error_add_line(r->err, EINVAL, config_setting_source_line(setting), path, "%s", text);
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

static void refuse_quotes(struct config_reader *r, const config_setting_t *setting,
	const char *path, const struct schema_field *field)
{
	char quoted[80], allowed[256], text[512];
	const char *literal = config_setting_get_string(setting);
	bool marked = literal[0] == SCHEMA_MARK_NUMBER || literal[0] == SCHEMA_MARK_WORD;
	schema_quote(literal + marked, quoted, sizeof(quoted));
	schema_allowed(field, allowed, sizeof(allowed));
	if (marked && schema_is_scalar(field) && field->type != SCHEMA_BOOL &&
		(field->type != SCHEMA_U32 || strcmp(quoted, "\"auto\"") == 0))
		snprintf(text, sizeof(text), "%.*s must be written in quotes; allowed: %s",
			(int)strlen(quoted) - 2, quoted + 1, allowed);
	else if (marked)
		snprintf(text, sizeof(text), "%.*s: allowed: %s", (int)strlen(quoted) - 2,
			quoted + 1, allowed);
	else
		snprintf(text, sizeof(text), "%s in quotes: allowed: %s", quoted, allowed);
	read_refuse(r, setting, path, text);
}

static void read_scalar(struct config_reader *r, const struct schema_field *field,
	const config_setting_t *setting, void *record, const char *path)
{
	char why[640];
	const char *literal = NULL;
	if (config_setting_type(setting) == CONFIG_TYPE_BOOL && field->type == SCHEMA_BOOL) {
		literal = config_setting_get_bool(setting) ? "true" : "false";
	} else if (config_setting_type(setting) == CONFIG_TYPE_STRING) {
		literal = config_setting_get_string(setting);
		char mark = literal[0];
		bool is_auto = field->auto_zero && strcmp(literal, "auto") == 0;
		bool wants_number = field->type == SCHEMA_U32 && !is_auto;
		bool is_text = mark != SCHEMA_MARK_NUMBER && mark != SCHEMA_MARK_WORD;
		if (field->type == SCHEMA_BOOL || wants_number == is_text ||
			mark == SCHEMA_MARK_WORD) {
			refuse_quotes(r, setting, path, field);
			return;
		}
		literal += wants_number;
	} else {
		refuse_kind(r, setting, path, field);
		return;
	}
	if (!schema_set_text(field, record, literal, why, sizeof(why)))
		read_refuse(r, setting, path, why);
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

// The line as written, for libconfig says no more than "syntax error".
static void refuse_syntax(
	struct error *err, const config_t *config, const char *text, const char *end)
{
	uint32_t line = (uint32_t)config_error_line(config);
	char source[96], quoted[112];
	for (uint32_t i = 1; i < line && text < end; i++) {
		const char *next = memchr(text, '\n', (size_t)(end - text));
		text = next ? next + 1 : end;
	}
	while (text < end && (*text == ' ' || *text == '\t'))
		text++;
	size_t len = 0;
	while (text + len < end && text[len] != '\n' && len < sizeof(source) - 1)
		len++;
	memcpy(source, text, len);
	source[len] = '\0';
	error_add_line(err, EINVAL, line, "",
		"%s at or before %s; allowed: key = value; with every bracket and quote closed, "
		"each key once",
		config_error_text(config) ? config_error_text(config) : "syntax error",
		schema_quote(source, quoted, sizeof(quoted)));
}

int schema_read_config(const struct schema_field *fields, const char *text, size_t len,
	void *record, struct schema_lines *lines, struct error *err)
{
	char *scanned = schema_scan(text, len, err);
	if (scanned == NULL)
		return -EINVAL;
	struct config_reader r = { lines, err, 0 };
	config_t config;
	config_init(&config);
	if (config_read_string(&config, scanned) != CONFIG_TRUE) {
		refuse_syntax(err, &config, text, text + len);
		r.n_bad++;
	} else {
		read_group(&r, fields, config_root_setting(&config), record, "");
	}
	config_destroy(&config);
	free(scanned);
	return r.n_bad ? -EINVAL : 0;
}
