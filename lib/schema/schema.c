// SPDX-License-Identifier: BSD-3-Clause
// Values of a field table: text to value and back, defaults, what is allowed, JSON, differences.
#include "schema_priv.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

void schema_join(char *buf, size_t len, const char *path, const char *name)
{
	snprintf(buf, len, "%s%s%s", path, path[0] ? "." : "", name);
}

void schema_join_idx(char *buf, size_t len, const char *path, uint32_t idx)
{
	if (snprintf(buf, len, "%s[%u]", path, idx) >= (int)len)
		buf[len - 1] = '\0'; // cut: our own tables are not that deep
}

const char *schema_quote(const char *text, char *buf, size_t len)
{
	size_t n = 0;
	size_t most = len < 70 ? len - 6 : 64;
	buf[n++] = '"';
	for (size_t i = 0; text[i] && n < most; i++)
		buf[n++] = isprint((unsigned char)text[i]) ? text[i] : '?';
	if (strlen(text) > n - 1) {
		memcpy(buf + n, "...", 3);
		n += 3;
	}
	buf[n++] = '"';
	buf[n] = '\0';
	return buf;
}

// Binary units only: "64K" is 65536. Plain digits are bytes.
static bool size_parse(const char *text, uint64_t *out)
{
	static const char units[] = "KMGT";
	char *end = NULL;
	if (!isdigit((unsigned char)text[0]))
		return false;
	errno = 0;
	uint64_t value = strtoull(text, &end, 10);
	if (errno)
		return false;
	const char *unit = *end ? strchr(units, *end) : NULL;
	unsigned int shift = unit ? 10 * (unsigned int)(unit - units + 1) : 0;
	if (*end && (unit == NULL || end[1]))
		return false;
	if (shift && value >> (64 - shift))
		return false;
	*out = value << shift;
	return true;
}

static const char *size_format(uint64_t bytes, char *buf, size_t len)
{
	static const char units[] = " KMGT";
	unsigned int unit = 0;
	while (unit < 4 && bytes && bytes % 1024 == 0) {
		bytes /= 1024;
		unit++;
	}
	snprintf(buf, len, "%" PRIu64 "%.*s", bytes, unit ? 1 : 0, units + unit);
	return buf;
}

// Decimal or hexadecimal, with libconfig's suffix L allowed; no leading zero, which some would read as octal.
static bool number_parse(const char *text, uint64_t *out)
{
	bool hex = text[0] == '0' && (text[1] == 'x' || text[1] == 'X');
	const char *digits = hex ? text + 2 : text;
	char *end = NULL;
	if (hex ? !isxdigit((unsigned char)digits[0]) : !isdigit((unsigned char)digits[0]))
		return false;
	if (!hex && digits[0] == '0' && isdigit((unsigned char)digits[1]))
		return false;
	errno = 0;
	uint64_t value = strtoull(digits, &end, hex ? 16 : 10);
	if (errno)
		return false;
	for (int i = 0; i < 2 && *end == 'L'; i++)
		end++;
	if (*end)
		return false;
	*out = value;
	return true;
}

static size_t words_print(const char *const *words, char *buf, size_t len)
{
	size_t n = 0;
	for (size_t i = 0; words && words[i] && n < len; i++)
		n += (size_t)snprintf(buf + n, len - n, "%s\"%s\"", n ? ", " : "", words[i]);
	return n < len ? n : len;
}

static int words_find(const char *const *words, const char *text)
{
	for (int i = 0; words && words[i]; i++)
		if (strcmp(words[i], text) == 0)
			return i;
	return -1;
}

static void range_print(const struct schema_field *field, char *buf, size_t len)
{
	char low[32], high[32];
	switch (field->type) {
	case SCHEMA_U32:
		snprintf(buf, len, "number %" PRIu64 "..%" PRIu64, field->min, field->max);
		break;
	case SCHEMA_SIZE:
		snprintf(buf, len, "size \"%s\"..\"%s\" in quotes, units K M G T (of 1024)",
			size_format(field->min, low, sizeof(low)),
			size_format(field->max, high, sizeof(high)));
		break;
	case SCHEMA_DURATION:
		snprintf(buf, len, "time \"%s\"..\"%s\" in quotes, units us ms s m h",
			clock_format_duration(field->min, low, sizeof(low)),
			clock_format_duration(field->max, high, sizeof(high)));
		break;
	case SCHEMA_TEXT:
		snprintf(buf, len, "text of %" PRIu64 "..%" PRIu64 " characters in quotes",
			field->min, field->max);
		break;
	default:
		snprintf(buf, len, "?");
	}
}

const char *schema_allowed(const struct schema_field *field, char *buf, size_t len)
{
	if (field->allowed) {
		snprintf(buf, len, "%s", field->allowed);
	} else if (field->type == SCHEMA_BOOL) {
		snprintf(buf, len, "true or false");
	} else if (field->type == SCHEMA_ADDRESS) {
		snprintf(buf, len, "IPv4 or IPv6 address in quotes");
	} else if (field->type == SCHEMA_GROUP) {
		snprintf(buf, len, "group { ... }");
	} else if (field->type == SCHEMA_LIST) {
		snprintf(buf, len, "list of at most %" PRIu64 " entries %s", field->max,
			field->fields->name[0] ? "( { ... }, ... )" : "[ \"...\", ... ]");
	} else if (field->words) {
		words_print(field->words, buf, len);
	} else {
		range_print(field, buf, len);
	}
	size_t n = strlen(buf);
	if (field->auto_zero)
		snprintf(buf + n, len - n, ", or \"auto\"");
	return buf;
}

// Stores a value of the row's type; false: not one.
static bool value_store(const struct schema_field *field, char *at, const char *text)
{
	uint64_t value = 0;
	int word = -1;
	bool in_range = false;
	if (field->auto_zero && strcmp(text, "auto") == 0) {
		memset(at, 0, field->type == SCHEMA_U32 ? sizeof(uint32_t) : sizeof(uint64_t));
		return true;
	}
	switch (field->type) {
	case SCHEMA_BOOL:
		*(bool *)at = strcmp(text, "true") == 0;
		return *(bool *)at || strcmp(text, "false") == 0;
	case SCHEMA_U32:
		in_range = number_parse(text, &value) && value >= field->min && value <= field->max;
		*(uint32_t *)at = in_range ? (uint32_t)value : 0;
		return in_range;
	case SCHEMA_SIZE:
		in_range = size_parse(text, &value) && value >= field->min && value <= field->max;
		*(uint64_t *)at = value;
		return in_range;
	case SCHEMA_DURATION:
		in_range = clock_parse_duration(text, &value) == 0 && value >= field->min &&
			   value <= field->max;
		*(uint64_t *)at = value;
		return in_range && (field->step == 0 || value % field->step == 0);
	case SCHEMA_WORD:
		word = words_find(field->words, text);
		*(uint32_t *)at = word < 0 ? 0 : (uint32_t)word;
		return word >= 0;
	case SCHEMA_ADDRESS:
		return address_parse(text, (struct address *)at) == 0;
	default:
		return false;
	}
}

static bool text_store(const struct schema_field *field, char *at, const char *text)
{
	size_t len = strlen(text);
	for (size_t i = 0; i < len; i++)
		if ((unsigned char)text[i] < 0x20 || (unsigned char)text[i] > 0x7e)
			return false;
	if (len < field->min || len > field->max)
		return false;
	if (field->words && words_find(field->words, text) < 0)
		return false;
	assert(field->max < field->size);
	memset(at, 0,
		field->size); // no rest of an older value: records are compared and copied whole
	memcpy(at, text, len);
	return true;
}

bool schema_set_text(
	const struct schema_field *field, void *record, const char *text, char *why, size_t len)
{
	char *at = (char *)record + field->offset;
	char quoted[80], allowed[256], reason[256] = "";
	bool stored = field->type == SCHEMA_TEXT ? text_store(field, at, text)
						 : value_store(field, at, text);
	if (stored && (field->check == NULL || field->check(record, reason, sizeof(reason))))
		return true;
	schema_quote(text, quoted, sizeof(quoted));
	schema_allowed(field, allowed, sizeof(allowed));
	if (words_find(field->soon, text) >= 0)
		snprintf(why, len, "%s is not supported yet; allowed today: %s", quoted, allowed);
	else
		snprintf(why, len, "%s: allowed: %s", quoted, reason[0] ? reason : allowed);
	return false;
}

void schema_set_defaults(const struct schema_field *fields, void *record)
{
	char why[512];
	for (const struct schema_field *f = fields; f->name; f++) {
		if (f->type == SCHEMA_GROUP) {
			schema_set_defaults(f->fields, (char *)record + f->offset);
		} else if (f->type == SCHEMA_LIST) {
			*(uint32_t *)((char *)record + f->n_offset) = 0;
		} else if (f->default_text) {
			bool good = schema_set_text(f, record, f->default_text, why, sizeof(why));
			assert(good);
			(void)good;
		}
	}
}

const char *schema_format(
	const struct schema_field *field, const void *record, char *buf, size_t len)
{
	const char *at = (const char *)record + field->offset;
	uint64_t value = 0;
	if (field->type == SCHEMA_U32)
		value = *(const uint32_t *)at;
	else if (field->type == SCHEMA_SIZE || field->type == SCHEMA_DURATION)
		value = *(const uint64_t *)at;
	if (field->auto_zero && value == 0) {
		snprintf(buf, len, "auto");
		return buf;
	}
	char address[ADDRESS_TEXT_LEN];
	switch (field->type) {
	case SCHEMA_BOOL:
		snprintf(buf, len, "%s", *(const bool *)at ? "true" : "false");
		break;
	case SCHEMA_U32:
		snprintf(buf, len, "%" PRIu64, value);
		break;
	case SCHEMA_SIZE:
		size_format(value, buf, len);
		break;
	case SCHEMA_DURATION:
		clock_format_duration(value, buf, len);
		break;
	case SCHEMA_WORD:
		snprintf(buf, len, "%s", field->words[*(const uint32_t *)at]);
		break;
	case SCHEMA_ADDRESS:
		snprintf(buf, len, "%s", address_format((const struct address *)at, address));
		break;
	default:
		snprintf(buf, len, "%s", at);
	}
	return buf;
}

static json_t *scalar_to_json(const struct schema_field *field, const void *record)
{
	char text[512];
	const char *at = (const char *)record + field->offset;
	if (field->type == SCHEMA_BOOL)
		return json_boolean(*(const bool *)at);
	if (field->type == SCHEMA_U32 && !(field->auto_zero && *(const uint32_t *)at == 0))
		return json_integer(*(const uint32_t *)at);
	return json_string(schema_format(field, record, text, sizeof(text)));
}

static json_t *list_to_json(const struct schema_field *list, const void *record)
{
	json_t *array = json_array();
	for (uint32_t i = 0; array && i < schema_count(list, record); i++) {
		const void *item = schema_item(list, record, i);
		json_t *value = list->fields->name[0] ? schema_to_json(list->fields, item)
						      : scalar_to_json(list->fields, item);
		if (json_array_append_new(array, value)) {
			json_decref(array);
			return NULL;
		}
	}
	return array;
}

json_t *schema_to_json(const struct schema_field *fields, const void *record)
{
	json_t *object = json_object();
	for (const struct schema_field *f = fields; object && f->name; f++) {
		json_t *value = NULL;
		if (f->type == SCHEMA_GROUP)
			value = schema_to_json(f->fields, (const char *)record + f->offset);
		else if (f->type == SCHEMA_LIST)
			value = list_to_json(f, record);
		else
			value = scalar_to_json(f, record);
		if (json_object_set_new(object, f->name, value)) {
			json_decref(object);
			return NULL;
		}
	}
	return object;
}

// ---------------------------------------------------------------- differences

struct schema_differ {
	void (*fn)(void *arg, const struct schema_change *change);
	void *arg;
	uint32_t n_changes;
};

static void differ_report(struct schema_differ *d, const struct schema_change *change)
{
	d->n_changes++;
	if (d->fn)
		d->fn(d->arg, change);
}

static void diff_fields(struct schema_differ *d, const struct schema_field *fields,
	const void *const records[2], const char *path);

static void diff_scalar(struct schema_differ *d, const struct schema_field *f,
	const void *const records[2], const char *path)
{
	char texts[2][512];
	for (int i = 0; i < 2; i++)
		schema_format(f, records[i], texts[i], sizeof(texts[i]));
	if (strcmp(texts[0], texts[1]) == 0)
		return;
	differ_report(d, &(struct schema_change){ path, texts[0], texts[1], f->live });
}

static void diff_list(struct schema_differ *d, const struct schema_field *list,
	const void *const records[2], const char *path)
{
	uint32_t counts[2] = { schema_count(list, records[0]), schema_count(list, records[1]) };
	if (counts[0] != counts[1]) {
		char texts[2][32];
		for (int i = 0; i < 2; i++)
			snprintf(texts[i], sizeof(texts[i]), "%u %s", counts[i],
				counts[i] == 1 ? "entry" : "entries");
		differ_report(d, &(struct schema_change){ path, texts[0], texts[1], list->live });
		return;
	}
	for (uint32_t i = 0; i < counts[0]; i++) {
		char item_path[SCHEMA_PATH_MAX];
		const void *items[2] = { schema_item(list, records[0], i),
			schema_item(list, records[1], i) };
		schema_join_idx(item_path, sizeof(item_path), path, i);
		diff_fields(d, list->fields, items, item_path);
	}
}

static void diff_fields(struct schema_differ *d, const struct schema_field *fields,
	const void *const records[2], const char *path)
{
	for (const struct schema_field *f = fields; f->name; f++) {
		char field_path[SCHEMA_PATH_MAX];
		if (f->name[0])
			schema_join(field_path, sizeof(field_path), path, f->name);
		else
			snprintf(field_path, sizeof(field_path), "%s", path);
		if (f->type == SCHEMA_GROUP) {
			const void *groups[2] = { (const char *)records[0] + f->offset,
				(const char *)records[1] + f->offset };
			diff_fields(d, f->fields, groups, field_path);
		} else if (f->type == SCHEMA_LIST) {
			diff_list(d, f, records, field_path);
		} else {
			diff_scalar(d, f, records, field_path);
		}
	}
}

uint32_t schema_diff(const struct schema_field *fields, const void *old_record,
	const void *new_record, void (*fn)(void *arg, const struct schema_change *change),
	void *arg)
{
	struct schema_differ differ = { fn, arg, 0 };
	const void *records[2] = { old_record, new_record };
	diff_fields(&differ, fields, records, "");
	return differ.n_changes;
}
