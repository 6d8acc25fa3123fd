// SPDX-License-Identifier: BSD-3-Clause
// Request bodies: JSON text to a tree, and the tree compared with a shape (the same table that makes the OpenAPI
// document). The nesting is bounded before a tree is built, because jansson builds, copies and frees recursively.
#include "admin_priv.h"

#include <errno.h>
#include <stdlib.h>

#define WHOLE_MAX \
	9007199254740992.0 // 2^53: up to here a real that looks like an integer is that integer

static uint32_t json_depth(const char *text, size_t len)
{
	uint32_t depth = 0, deepest = 0;
	bool in_string = false;
	for (size_t i = 0; i < len; i++) {
		char c = text[i];
		if (in_string) {
			if (c == '\\')
				i++;
			else if (c == '"')
				in_string = false;
		} else if (c == '"') {
			in_string = true;
		} else if (c == '[' || c == '{') {
			depth++;
			deepest = depth > deepest ? depth : deepest;
		} else if ((c == ']' || c == '}') && depth > 0) {
			depth--;
		}
	}
	return deepest;
}

static json_t *whole_number(const json_t *value)
{
	double number = json_real_value(value);
	if (!json_is_real(value) || number < -WHOLE_MAX || number > WHOLE_MAX ||
		(double)(json_int_t)number != number)
		return NULL;
	return json_integer((json_int_t)number);
}

// To JSON Schema 80.0 is an integer; jansson makes a real of it. The depth is bounded already.
static void whole_numbers(json_t *tree)
{
	json_t *whole;
	for (void *at = json_object_iter(tree); at; at = json_object_iter_next(tree, at)) {
		whole = whole_number(json_object_iter_value(at));
		if (whole)
			json_object_iter_set_new(tree, at, whole);
		else
			whole_numbers(json_object_iter_value(at));
	}
	for (size_t i = 0; i < json_array_size(tree); i++) {
		whole = whole_number(json_array_get(tree, i));
		if (whole)
			json_array_set_new(tree, i, whole);
		else
			whole_numbers(json_array_get(tree, i));
	}
}

int body_parse(struct admin_request *r)
{
	if (json_depth(r->body, r->body_len) > ADMIN_JSON_DEPTH_MAX) {
		reply_problem(r, PROBLEM_BAD_JSON, "nested deeper than %d", ADMIN_JSON_DEPTH_MAX);
		return -EINVAL;
	}
	json_error_t why;
	r->json = json_loadb(r->body, r->body_len, JSON_REJECT_DUPLICATES, &why);
	if (r->json == NULL) {
		// A number beyond what can be held is JSON all the same: not valid, like any other that is too big.
		bool is_number = json_error_code(&why) == json_error_numeric_overflow;
		finding_add(r, "", NULL, "line %d column %d: %s", why.line, why.column, why.text);
		reply_problem(r, is_number ? PROBLEM_INVALID : PROBLEM_BAD_JSON,
			"line %d column %d: %s", why.line, why.column, why.text);
		return -EINVAL;
	}
	if (!json_is_object(r->json)) {
		finding_add(r, "", NULL, "an object is needed");
		reply_problem(r, PROBLEM_INVALID, "the body must be a JSON object");
		return -EINVAL;
	}
	whole_numbers(r->json);
	return 0;
}

// ---------------------------------------------------------------- shapes
static json_t *allowed_words(const char *const *words)
{
	json_t *list = json_array();
	for (; *words; words++)
		json_array_append_new(list, json_string(*words));
	return list;
}

static bool word_known(const char *const *words, const char *word)
{
	for (; *words; words++) {
		if (strcmp(*words, word) == 0)
			return true;
	}
	return false;
}

static bool format_holds(const char *format, const char *text)
{
	struct address address;
	struct prefix prefix;
	uint64_t ns;
	if (strcmp(format, "duration") == 0)
		return clock_parse_duration(text, &ns) == 0;
	if (strcmp(format, "address") == 0)
		return address_parse(text, &address) == 0;
	if (strcmp(format, "prefix") == 0)
		return prefix_parse(text, &prefix) == 0;
	return true;
}

static uint32_t string_check(
	struct admin_request *r, const struct admin_field *f, json_t *value, const char *pointer)
{
	const char *text = json_string_value(value);
	int64_t n = (int64_t)strlen(text);
	if (f->allowed && !word_known(f->allowed, text)) {
		finding_add(r, pointer, allowed_words(f->allowed), "`%.80s` is not allowed", text);
		return 1;
	}
	if (f->format && !format_holds(f->format, text)) {
		finding_add(r, pointer, NULL, "`%.80s`: not a valid %s", text, f->format);
		return 1;
	}
	if (f->max != 0 && (n < f->min || n > f->max)) {
		finding_add(r, pointer, NULL, "%lld bytes: %lld..%lld are allowed", (long long)n,
			(long long)f->min, (long long)f->max);
		return 1;
	}
	return 0;
}

static uint32_t value_check(
	struct admin_request *r, const struct admin_field *f, json_t *value, const char *pointer);

static uint32_t array_check(
	struct admin_request *r, const struct admin_field *f, json_t *value, const char *pointer)
{
	uint32_t n = 0;
	size_t len = json_array_size(value);
	if (f->max != 0 && ((int64_t)len < f->min || (int64_t)len > f->max)) {
		finding_add(r, pointer, NULL, "%zu elements: %lld..%lld are allowed", len,
			(long long)f->min, (long long)f->max);
		return 1;
	}
	for (size_t i = 0; i < len; i++) {
		char at[512];
		struct admin_field element = { .name = f->name,
			.type = f->type == ADMIN_STRINGS ? ADMIN_STRING : ADMIN_OBJECT,
			.of = f->of,
			.format = f->format };
		snprintf(at, sizeof(at), "%s/%zu", pointer, i);
		n += value_check(r, &element, json_array_get(value, i), at);
	}
	return n;
}

static uint32_t numbers_check(
	struct admin_request *r, const struct admin_field *f, json_t *value, const char *pointer)
{
	uint32_t n = 0;
	const char *key;
	json_t *number;
	json_object_foreach(value, key, number)
	{
		char at[512];
		snprintf(at, sizeof(at), "%s/%.64s", pointer, key);
		struct admin_field element = {
			.name = key, .type = ADMIN_INTEGER, .min = f->min, .max = f->max
		};
		n += value_check(r, &element, number, at);
	}
	return n;
}

static bool type_holds(const struct admin_field *f, const json_t *value)
{
	switch ((enum admin_type)f->type) {
	case ADMIN_STRING:
		return json_is_string(value);
	case ADMIN_INTEGER:
		return json_is_integer(value);
	case ADMIN_BOOLEAN:
		return json_is_boolean(value);
	case ADMIN_OBJECT:
	case ADMIN_NUMBERS:
		return json_is_object(value);
	case ADMIN_ARRAY:
	case ADMIN_STRINGS:
		return json_is_array(value);
	case ADMIN_PORT:
		return json_is_integer(value) || json_is_string(value);
	case ADMIN_REAL:
		return json_is_number(value);
	case ADMIN_ANY:
		return true;
	}
	return false;
}

static uint32_t value_check(
	struct admin_request *r, const struct admin_field *f, json_t *value, const char *pointer)
{
	static const char *const type_names[] = { "a string", "an integer", "true or false",
		"an object", "an array", "an array of strings", "an object of integers",
		"a port number or name", "a number", "anything" };
	if (json_is_null(value) && (f->flags & ADMIN_NULLABLE))
		return 0;
	if (!type_holds(f, value)) {
		finding_add(r, pointer, NULL, "must be %s", type_names[f->type]);
		return 1;
	}
	int64_t number = json_integer_value(value);
	switch ((enum admin_type)f->type) {
	case ADMIN_STRING:
		return string_check(r, f, value, pointer);
	case ADMIN_PORT:
		if (json_is_string(value) || (number >= 1 && number <= 65535))
			return 0;
		finding_add(r, pointer, NULL, "%lld not in 1..65535", (long long)number);
		return 1;
	case ADMIN_INTEGER:
		if ((f->min == 0 && f->max == 0) || (number >= f->min && number <= f->max))
			return 0;
		finding_add(r, pointer, NULL, "%lld not in %lld..%lld", (long long)number,
			(long long)f->min, (long long)f->max);
		return 1;
	case ADMIN_OBJECT:
		return shape_check(r, shape_find(f->of), value, pointer);
	case ADMIN_ARRAY:
	case ADMIN_STRINGS:
		return array_check(r, f, value, pointer);
	case ADMIN_NUMBERS:
		return numbers_check(r, f, value, pointer);
	default:
		return 0;
	}
}

static json_t *field_names(const struct admin_shape *shape)
{
	json_t *list = json_array();
	for (const struct admin_field *f = shape->fields; f->name; f++)
		json_array_append_new(list, json_string(f->name));
	return list;
}

static void unknown_field(
	struct admin_request *r, const struct admin_shape *shape, const char *key, const char *at)
{
	const char *names[64];
	size_t n = 0;
	for (const struct admin_field *f = shape->fields; f->name && n < ARRAY_SIZE(names); f++)
		names[n++] = f->name;
	const char *near = error_nearest(key, names, n);
	finding_add(r, at, field_names(shape), "unknown field `%.64s`%s%s%s", key,
		near ? ", did you mean `" : "", near ? near : "", near ? "`?" : "");
}

uint32_t shape_check(struct admin_request *r, const struct admin_shape *shape, json_t *value,
	const char *pointer)
{
	uint32_t n = 0;
	const char *key;
	json_t *member;
	char at[512];
	json_object_foreach(value, key, member)
	{
		const struct admin_field *f = shape->fields;
		while (f->name && strcmp(f->name, key) != 0)
			f++;
		snprintf(at, sizeof(at), "%s/%.64s", pointer, key);
		if (f->name == NULL) {
			unknown_field(r, shape, key, at);
			n++;
		} else if (!(f->flags & ADMIN_READ_ONLY)) {
			n += value_check(r, f, member, at);
		}
	}
	for (const struct admin_field *f = shape->fields; f->name; f++) {
		if (!(f->flags & ADMIN_REQUIRED) || (f->flags & ADMIN_READ_ONLY) ||
			json_object_get(value, f->name))
			continue;
		snprintf(at, sizeof(at), "%s/%s", pointer, f->name);
		finding_add(r, at, NULL, "is needed");
		n++;
	}
	return n;
}
