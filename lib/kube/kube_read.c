// SPDX-License-Identifier: BSD-3-Clause
// Reading members with their type, and findings with path and line.
#include "kube_priv.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

void kube_enter(struct kube_reader *r, const char *key)
{
	assert(r->n_steps < KUBE_STEPS_MAX);
	r->steps[r->n_steps++] = (struct kube_step){ key, 0 };
}

void kube_enter_idx(struct kube_reader *r, uint32_t idx)
{
	assert(r->n_steps < KUBE_STEPS_MAX);
	r->steps[r->n_steps++] = (struct kube_step){ NULL, idx };
}

void kube_leave(struct kube_reader *r)
{
	assert(r->n_steps > 0);
	r->n_steps--;
}

// items[3].spec.ports[0].port; a key with dots of its own stands in brackets.
static void path_print(const struct kube_reader *r, char *buf, size_t len)
{
	size_t n = 0;
	buf[0] = '\0';
	if (r->item_idx != UINT32_MAX)
		n = (size_t)snprintf(buf, len, "%s[%u]", r->is_list ? "items" : "", r->item_idx);
	for (uint32_t i = 0; i < r->n_steps && n < len; i++) {
		const struct kube_step *step = &r->steps[i];
		char quoted[96];
		if (step->key == NULL)
			n += (size_t)snprintf(buf + n, len - n, "[%u]", step->idx);
		else if (strpbrk(step->key, "./") || strlen(step->key) > 63)
			n += (size_t)snprintf(buf + n, len - n, "[%s]",
				kube_quote(step->key, quoted, sizeof(quoted)));
		else
			n += (size_t)snprintf(buf + n, len - n, "%s%s", n ? "." : "", step->key);
	}
}

static void refuse_va(struct kube_reader *r, const char *fmt, va_list ap)
{
	char path[512], text[1024];
	r->n_bad++;
	if (r->err->n_items >= ERROR_ITEMS_MAX) { // only counted: a line is not looked for in vain
		r->err->n_lost++;
		return;
	}
	path_print(r, path, sizeof(path));
	vsnprintf(text, sizeof(text), fmt, ap);
	error_add_line(r->err, EINVAL, kube_line(r), path, "%s", text);
}

void kube_refuse(struct kube_reader *r, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	refuse_va(r, fmt, ap);
	va_end(ap);
}

void kube_refuse_at(struct kube_reader *r, const char *key, const char *fmt, ...)
{
	va_list ap;
	kube_enter(r, key);
	va_start(ap, fmt);
	refuse_va(r, fmt, ap);
	va_end(ap);
	kube_leave(r);
}

const char *kube_quote(const char *text, char *buf, size_t len)
{
	size_t n = 0;
	buf[n++] = '"';
	for (; *text && n < len - 6 && n < 65; text++)
		buf[n++] =
			(unsigned char)*text >= 0x20 && (unsigned char)*text < 0x7f ? *text : '?';
	if (*text) {
		memcpy(buf + n, "...", 3);
		n += 3;
	}
	buf[n++] = '"';
	buf[n] = '\0';
	return buf;
}

static const char *type_name(json_type type)
{
	static const char *const names[] = { [JSON_OBJECT] = "an object",
		[JSON_ARRAY] = "an array",
		[JSON_STRING] = "a string",
		[JSON_INTEGER] = "an integer",
		[JSON_REAL] = "a number with a fraction",
		[JSON_TRUE] = "true",
		[JSON_FALSE] = "false",
		[JSON_NULL] = "null" };
	return names[type];
}

bool kube_is_absent(const json_t *in, const char *key)
{
	const json_t *value = json_object_get(in, key);
	return value == NULL || json_is_null(value);
}

static const json_t *member(
	struct kube_reader *r, const json_t *in, const char *key, json_type type)
{
	if (kube_is_absent(in, key))
		return NULL;
	const json_t *value = json_object_get(in, key);
	if (json_typeof(value) == type || (type == JSON_TRUE && json_is_boolean(value)))
		return value;
	kube_refuse_at(r, key, "%s: allowed: %s", type_name(json_typeof(value)),
		type == JSON_TRUE ? "true or false" : type_name(type));
	return NULL;
}

const json_t *kube_object(struct kube_reader *r, const json_t *in, const char *key)
{
	return member(r, in, key, JSON_OBJECT);
}

const json_t *kube_array(struct kube_reader *r, const json_t *in, const char *key)
{
	return member(r, in, key, JSON_ARRAY);
}

const char *kube_text(struct kube_reader *r, const json_t *in, const char *key)
{
	return json_string_value(member(r, in, key, JSON_STRING));
}

bool kube_bool(struct kube_reader *r, const json_t *in, const char *key, bool fallback)
{
	const json_t *value = member(r, in, key, JSON_TRUE);
	return value ? json_is_true(value) : fallback;
}

bool kube_integer(struct kube_reader *r, const json_t *in, const char *key, int64_t *out)
{
	const json_t *value = member(r, in, key, JSON_INTEGER);
	if (value)
		*out = json_integer_value(value);
	return value != NULL;
}

void kube_check_types(struct kube_reader *r, const json_t *in, const struct kube_known *known)
{
	for (; known->key; known++)
		member(r, in, known->key, known->type);
}
