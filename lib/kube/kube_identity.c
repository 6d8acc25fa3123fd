// SPDX-License-Identifier: BSD-3-Clause
// Whose text this is. A parser gives nothing of text with one duplicate key or one number out of range, and refusing an object alone takes
// its name. So this reads four members at fixed places, through the grammar, up to where the text stops being JSON.
//
//   {"type":"ADDED","object":{"kind":"Service","metadata":{"name":"web","namespace":"default","resourceVersion":"7"},..
//
// A member that decides and is there twice makes it ambiguous: then nothing is known.
#include "kube_reflector_priv.h"

#include <string.h>

#define LEVELS 4

struct kube_slice_text {
	const char *at;
	size_t len;
};

struct kube_walk {
	struct kube_grammar grammar;
	struct kube_slice_text keys[LEVELS + 1]; // by depth, of the member that is being read
	uint32_t n_metadata;
	struct kube_identity *out;
	uint32_t base; // depth around the object: 0, or 1 in an event
};

static bool is_key(const struct kube_walk *w, uint32_t depth, const char *key)
{
	const struct kube_slice_text *have = &w->keys[depth];
	return have->len == strlen(key) && memcmp(have->at, key, have->len) == 0;
}

// Letters of names, kinds and versions; anything else is not one.
static bool is_plain(const char *text, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		char c = text[i];
		bool is_word =
			(c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
		if (!is_word && strchr("-._:~", c) == NULL)
			return false;
	}
	return len > 0;
}

static void note(struct kube_walk *w, char *out, size_t size, const struct kube_slice_text *value)
{
	if (out[0])
		w->out->is_ambiguous = true;
	if (value->len >= size || !is_plain(value->at, value->len))
		return;
	memcpy(out, value->at, value->len);
	out[value->len] = '\0';
}

static bool is_in_object(const struct kube_walk *w)
{
	return w->base == 0 || is_key(w, 1, "object");
}

static void value_note(struct kube_walk *w, const struct kube_slice_text *value)
{
	struct kube_identity *id = w->out;
	uint32_t depth = w->grammar.depth, level = depth - w->base;
	if (depth == 0 || depth > LEVELS || !w->grammar.is_object[depth - 1])
		return;
	if (w->base && depth == 1 && is_key(w, 1, "type"))
		note(w, id->type, sizeof(id->type), value);
	if (depth <= w->base || !is_in_object(w))
		return;
	if (level == 1 && is_key(w, depth, "kind"))
		note(w, id->kind, sizeof(id->kind), value);
	if (level != 2 || !is_key(w, depth - 1, "metadata"))
		return;
	if (is_key(w, depth, "name"))
		note(w, id->name, sizeof(id->name), value);
	else if (is_key(w, depth, "namespace"))
		note(w, id->namespace, sizeof(id->namespace), value);
	else if (is_key(w, depth, "resourceVersion"))
		note(w, id->resource_version, sizeof(id->resource_version), value);
}

static void key_note(struct kube_walk *w, const struct kube_slice_text *key)
{
	uint32_t depth = w->grammar.depth;
	if (depth > LEVELS)
		return;
	w->keys[depth] = *key;
	if (depth == w->base + 1 && is_in_object(w) && is_key(w, depth, "metadata") &&
		w->n_metadata++)
		w->out->is_ambiguous = true;
}

void kube_identity_scan(const char *text, size_t len, bool is_event, struct kube_identity *out)
{
	struct kube_walk w = { .out = out, .base = is_event ? 1 : 0 };
	size_t start = 0;
	*out = (struct kube_identity){ 0 };
	kube_grammar_init(&w.grammar, KUBE_DEPTH_MAX + 1);
	for (size_t at = 0; at < len; at++) {
		bool was_string = w.grammar.expect == KUBE_IN_STRING;
		if (kube_grammar_step(&w.grammar, text[at]) != KUBE_GRAMMAR_MORE)
			return;
		if (!was_string && w.grammar.expect == KUBE_IN_STRING && text[at] == '"' &&
			(at == 0 || text[at - 1] != '\\'))
			start = at + 1;
		if (!was_string || text[at] != '"')
			continue;
		struct kube_slice_text string = { text + start, at - start };
		if (w.grammar.expect == KUBE_EXPECT_COLON)
			key_note(&w, &string);
		else
			value_note(&w, &string);
	}
}

bool kube_identity_is_known(const struct kube_identity *id)
{
	return id->name[0] && !id->is_ambiguous;
}

static bool is_decimal(const char *text)
{
	return text[0] && text[strspn(text, "0123456789")] == '\0';
}

bool kube_version_is_less(const char *a, const char *b)
{
	if (!is_decimal(a) || !is_decimal(b))
		return false;
	a += strspn(a, "0");
	b += strspn(b, "0");
	size_t n_a = strlen(a), n_b = strlen(b);
	return n_a != n_b ? n_a < n_b : strcmp(a, b) < 0;
}
