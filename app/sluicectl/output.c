// SPDX-License-Identifier: BSD-3-Clause
// What goes to the terminal: tables, JSON, YAML, figures for people. Everything that came from the daemon is
// untrusted: control characters (also those of C1 and DEL) never reach the terminal as such.
#include "ctl_priv.h"

#include <stdlib.h>
#include <time.h>
#include <unistd.h>

void print_safe(FILE *out, const char *text)
{
	for (const unsigned char *s = (const unsigned char *)text; *s; s++) {
		bool c1 = s[0] == 0xc2 && s[1] >= 0x80 && s[1] <= 0x9f;
		if (*s < 0x20 || *s == 0x7f)
			fprintf(out, "\\x%02x", *s);
		else if (c1)
			fprintf(out, "\\x%02x", *++s);
		else
			fputc(*s, out);
	}
}

static size_t safe_width(const char *text)
{
	size_t n = 0;
	for (const unsigned char *s = (const unsigned char *)text; *s; s++) {
		bool c1 = s[0] == 0xc2 && s[1] >= 0x80 && s[1] <= 0x9f;
		if (*s < 0x20 || *s == 0x7f || c1)
			n += 4;
		else if ((*s & 0xc0) != 0x80)
			n++;
		s += c1;
	}
	return n;
}

// ---------------------------------------------------------------- tables
void table_begin(struct ctl_table *table, const char *headers)
{
	*table = (struct ctl_table){ 0 };
	while (*headers) {
		size_t n = strcspn(headers, " ");
		table_cell(table, "%.*s", (int)n, headers);
		headers += n + (headers[n] == ' ');
	}
	table->n_columns = table->n_cells;
}

void table_cell(struct ctl_table *table, const char *fmt, ...)
{
	char *text = NULL;
	va_list ap;
	va_start(ap, fmt);
	if (vasprintf(&text, fmt, ap) < 0)
		text = NULL;
	va_end(ap);
	if (array_grow(table->cells, table->n_cells, table->cap) == 0)
		table->cells[table->n_cells++] = text;
	else
		free(text);
}

static const char *colour_of(const char *text)
{
	static const struct {
		const char *word, *colour;
	} colours[] = { { "up", "\033[32m" }, { "down", "\033[31m" }, { "draining", "\033[33m" } };
	for (size_t i = 0; i < ARRAY_SIZE(colours); i++) {
		if (strcmp(text, colours[i].word) == 0)
			return colours[i].colour;
	}
	return NULL;
}

static bool colours_wanted(void)
{
	const char *no = getenv("NO_COLOR");
	const char *term = getenv("TERM");
	return isatty(1) && (no == NULL || no[0] == 0) && term && strcmp(term, "dumb") != 0;
}

static void cell_print(const char *text, size_t width, bool last, bool colours)
{
	const char *colour = colours ? colour_of(text) : NULL;
	if (colour)
		fputs(colour, stdout);
	print_safe(stdout, text);
	if (colour)
		fputs("\033[0m", stdout);
	if (!last)
		printf("%*s", (int)(width - safe_width(text) + 2), "");
}

void table_print(struct ctl *ctl, struct ctl_table *table)
{
	size_t widths[32] = { 0 };
	uint32_t n = table->n_columns;
	bool colours = colours_wanted();
	uint32_t first = ctl->no_headers ? n : 0;
	for (uint32_t i = first; n && i < table->n_cells; i++) {
		size_t width = safe_width(table->cells[i] ? table->cells[i] : "");
		if (width > widths[i % n % 32])
			widths[i % n % 32] = width;
	}
	for (uint32_t i = first; n && i < table->n_cells; i++) {
		bool last = i % n == n - 1;
		cell_print(
			table->cells[i] ? table->cells[i] : "", widths[i % n % 32], last, colours);
		if (last)
			fputc('\n', stdout);
	}
	for (uint32_t i = 0; i < table->n_cells; i++)
		free(table->cells[i]);
	free(table->cells);
	*table = (struct ctl_table){ 0 };
}

// ---------------------------------------------------------------- trees
static bool yaml_is_plain(const char *text)
{
	static const char *const reserved[] = { "true", "false", "null", "yes", "no", "on", "off",
		"~", "True", "False", "Null", "Yes", "No", "On", "Off", "y", "n" };
	if (text[0] == 0 || strchr("-?:,[]{}#&*!|>'\"%@` .0123456789+=<", text[0]))
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(reserved); i++) {
		if (strcmp(text, reserved[i]) == 0)
			return false;
	}
	for (const char *s = text; *s; s++) {
		if ((unsigned char)*s < 0x20 || (unsigned char)*s >= 0x7f ||
			strchr("\"\\#:{}[],&*", *s))
			return false;
	}
	return text[strlen(text) - 1] != ' ';
}

// A quoted JSON string of ASCII is a YAML 1.2 string.
static void yaml_scalar(FILE *out, const json_t *value)
{
	if (json_is_string(value) && yaml_is_plain(json_string_value(value))) {
		fprintf(out, "%s\n", json_string_value(value));
		return;
	}
	char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_ENSURE_ASCII);
	for (const char *s = text ? text : "null"; *s; s++) {
		if (*s == 0x7f)
			fputs("\\u007F", out);
		else
			fputc(*s, out);
	}
	fputc('\n', out);
	free(text);
}

static bool yaml_is_nested(const json_t *value)
{
	return (json_is_object(value) && json_object_size(value) != 0) ||
	       (json_is_array(value) && json_array_size(value) != 0);
}

static void yaml_key(FILE *out, const char *key)
{
	if (yaml_is_plain(key)) {
		fprintf(out, "%s:", key);
		return;
	}
	json_t *string = json_string(key);
	char *text = json_dumps(string, JSON_ENCODE_ANY | JSON_ENSURE_ASCII);
	fprintf(out, "%s:", text ? text : "\"\"");
	free(text);
	json_decref(string);
}

static void yaml_member(FILE *out, const char *key, const json_t *value, int indent)
{
	yaml_key(out, key);
	if (!yaml_is_nested(value)) {
		fputc(' ', out);
		yaml_scalar(out, value);
		return;
	}
	fputc('\n', out);
	yaml_print(out, value, indent + (json_is_object(value) ? 2 : 0));
}

void yaml_print(FILE *out, const json_t *value, int indent)
{
	if (!yaml_is_nested(value)) {
		yaml_scalar(out, value);
		return;
	}
	if (json_is_object(value)) {
		const char *key;
		json_t *member;
		bool first = true;
		json_object_foreach((json_t *)(uintptr_t)value, key, member)
		{
			// the first key of an element follows its dash
			fprintf(out, "%*s", first && indent < 0 ? 0 : abs(indent), "");
			yaml_member(out, key, member, abs(indent));
			first = false;
		}
		return;
	}
	for (size_t i = 0; i < json_array_size(value); i++) {
		fprintf(out, "%*s- ", indent, "");
		const json_t *element = json_array_get(value, i);
		if (json_is_object(element))
			yaml_print(out, element, -(indent + 2));
		else if (yaml_is_nested(element)) {
			fputc('\n', out);
			yaml_print(out, element, indent + 2);
		} else
			yaml_scalar(out, element);
	}
}

bool output_is_known(const char *format)
{
	return strcmp(format, "table") == 0 || strcmp(format, "json") == 0 ||
	       strcmp(format, "yaml") == 0;
}

bool output_tree(struct ctl *ctl, const json_t *tree)
{
	if (strcmp(ctl->output, "table") == 0)
		return false;
	if (strcmp(ctl->output, "yaml") == 0) {
		yaml_print(stdout, tree, 0);
		return true;
	}
	json_dumpf(tree, stdout, JSON_INDENT(2) | JSON_ENSURE_ASCII | JSON_ENCODE_ANY);
	fputc('\n', stdout);
	return true;
}

// ---------------------------------------------------------------- values
const char *json_str(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));
	return text ? text : "";
}

json_int_t json_int(const json_t *object, const char *key)
{
	return json_integer_value(json_object_get(object, key));
}

const json_t *json_at(const json_t *object, const char *path)
{
	char key[64];
	while (object && *path) {
		size_t n = strcspn(path, "/");
		snprintf(key, sizeof(key), "%.*s", (int)n, path);
		object = json_object_get(object, key);
		path += n + (path[n] == '/');
	}
	return object;
}

const char *human_count(double n, char buf[16])
{
	static const char *const units[] = { "", "k", "M", "G", "T", "P", "E" };
	size_t u = 0;
	while (n >= 1000 && u + 1 < ARRAY_SIZE(units)) {
		n /= 1000;
		u++;
	}
	if (u == 0)
		snprintf(buf, 16, n == (double)(long long)n ? "%.0f" : "%.1f", n);
	else
		snprintf(buf, 16, n < 100 ? "%.1f%s" : "%.0f%s", n, units[u]);
	return buf;
}

const char *human_age(const char *time_text, char buf[16])
{
	struct tm tm = { 0 };
	snprintf(buf, 16, "-");
	if (time_text[0] == 0 || strptime(time_text, "%Y-%m-%dT%H:%M:%S", &tm) == NULL)
		return buf;
	long long s = (long long)time(NULL) - (long long)timegm(&tm);
	if (s < 0)
		s = 0;
	if (s < 120)
		snprintf(buf, 16, "%llds", s);
	else if (s < 7200)
		snprintf(buf, 16, "%lldm", s / 60);
	else if (s < 172800)
		snprintf(buf, 16, "%lldh", s / 3600);
	else
		snprintf(buf, 16, "%lldd", s / 86400);
	return buf;
}

const char *endpoint_text(const json_t *object, const char *address, const char *port, char buf[64])
{
	const char *a = json_str(object, address);
	bool v6 = strchr(a, ':') != NULL;
	snprintf(buf, 64, "%s%.45s%s:%d", v6 ? "[" : "", a, v6 ? "]" : "",
		(int)json_int(object, port));
	return buf;
}

// ---------------------------------------------------------------- words
bool service_split(const char *text, char namespace[64], char name[64])
{
	const char *slash = strchr(text, '/');
	size_t n = slash ? (size_t)(slash - text) : 0;
	const char *tail = slash ? slash + 1 : text;
	if (n > 63 || strlen(tail) > 63 || tail[0] == 0 || strchr(tail, '/') || (slash && n == 0))
		return false;
	snprintf(namespace, 64, "%.*s", slash ? (int)n : 7, slash ? text : "default");
	snprintf(name, 64, "%s", tail);
	return true;
}

bool endpoint_split(const char *text, struct address *address, uint16_t *port)
{
	char host[64];
	*port = 0;
	if (address_parse(text, address) == 0)
		return true;
	const char *colon = strrchr(text, ':');
	if (colon == NULL || colon == text || (size_t)(colon - text) >= sizeof(host))
		return false;
	bool bracketed = text[0] == '[' && colon[-1] == ']';
	snprintf(host, sizeof(host), "%.*s", (int)(colon - text) - 2 * bracketed, text + bracketed);
	if (address_parse(host, address) != 0 || bracketed == address_is_v4(address))
		return false;
	size_t digits = strspn(colon + 1, "0123456789");
	long number =
		digits && digits < 6 && colon[1 + digits] == 0 ? strtol(colon + 1, NULL, 10) : -1;
	*port = (uint16_t)number;
	return number >= 0 && number <= 65535;
}
