// SPDX-License-Identifier: BSD-3-Clause
// What jansson does not give: how deep a text nests before a tree is built of it, and on which line a value stands.
//
// One pass over the file notes where each item begins. A line is looked for only when there is something to say: from the
// item on along the path, so a file without errors pays nothing for it and one with 256 errors little.
// Not a validator: broken text gives wrong lines at worst, never a read beyond the end.
#include "kube_priv.h"

#include <errno.h>
#include <string.h>

struct kube_cursor {
	const char *at;
	const char *end;
	uint32_t line;
};

// At the opening quote; ends behind the closing one.
static void skip_string(struct kube_cursor *c)
{
	for (c->at++; c->at < c->end && *c->at != '"'; c->at++) {
		if (*c->at == '\\' && c->at + 1 < c->end)
			c->at++;
		if (*c->at == '\n')
			c->line++;
	}
	if (c->at < c->end)
		c->at++;
}

static void skip_blanks(struct kube_cursor *c)
{
	while (c->at < c->end && strchr(" \t\r\n", *c->at) && *c->at) {
		if (*c->at == '\n')
			c->line++;
		c->at++;
	}
}

bool kube_depth_ok(const char *text, size_t len, uint32_t depth_max, uint32_t *out_line)
{
	struct kube_cursor c = { text, text + len, 1 };
	uint32_t depth = 0;
	while (c.at < c.end) {
		char ch = *c.at;
		if (ch == '"') {
			skip_string(&c);
			continue;
		}
		if (ch == '\n')
			c.line++;
		if ((ch == '{' || ch == '[') && ++depth > depth_max) {
			*out_line = c.line;
			return false;
		}
		if ((ch == '}' || ch == ']') && depth)
			depth--;
		c.at++;
	}
	return true;
}

static int item_note(struct kube_reader *r, const struct kube_cursor *c)
{
	if (array_grow(r->items, r->n_items, r->cap_items))
		return -ENOMEM;
	r->items[r->n_items++] = (struct kube_item){ NULL, (size_t)(c->at - r->text), c->line };
	return 0;
}

// Any one value; ends behind it.
static void skip_value(struct kube_cursor *c)
{
	uint32_t depth = 0;
	skip_blanks(c);
	while (c->at < c->end) {
		char ch = *c->at;
		if (depth == 0 && (ch == ',' || ch == '}' || ch == ']'))
			return;
		if (ch == '"') {
			skip_string(c);
			continue;
		}
		if (ch == '\n')
			c->line++;
		c->at++;
		if (ch == '{' || ch == '[')
			depth++;
		else if (ch == '}' || ch == ']')
			depth--;
	}
}

// At '{': goes to the value of key; false (cursor then anywhere): there is none. out_line: of the key.
static bool seek_key(struct kube_cursor *c, const char *key, uint32_t *out_line)
{
	size_t len = strlen(key);
	do {
		c->at++;
		skip_blanks(c);
		if (c->at >= c->end || *c->at != '"')
			return false;
		const char *name = c->at + 1;
		uint32_t line = c->line;
		skip_string(c);
		bool same = (size_t)(c->at - name) == len + 1 && memcmp(name, key, len) == 0;
		skip_blanks(c);
		if (c->at >= c->end || *c->at != ':')
			return false;
		c->at++;
		skip_blanks(c);
		if (same) {
			*out_line = line;
			return true;
		}
		skip_value(c);
		skip_blanks(c);
	} while (c->at < c->end && *c->at == ',');
	return false;
}

// At '[': goes to element idx.
static bool seek_idx(struct kube_cursor *c, uint32_t idx, uint32_t *out_line)
{
	c->at++;
	skip_blanks(c);
	for (uint32_t i = 0; i < idx; i++) {
		skip_value(c);
		if (c->at >= c->end || *c->at != ',')
			return false;
		c->at++;
		skip_blanks(c);
	}
	if (c->at >= c->end || *c->at == ']')
		return false;
	*out_line = c->line;
	return true;
}

uint32_t kube_line(const struct kube_reader *r)
{
	struct kube_cursor c = { r->text, r->text + r->len, 1 };
	if (r->item_idx < r->n_items) {
		c.at = r->text + r->items[r->item_idx].at;
		c.line = r->items[r->item_idx].line;
	}
	skip_blanks(&c);
	uint32_t line = c.line;
	for (uint32_t i = 0; i < r->n_steps; i++) {
		const struct kube_step *step = &r->steps[i];
		if (c.at >= c.end || *c.at != (step->key ? '{' : '['))
			break;
		if (!(step->key ? seek_key(&c, step->key, &line) : seek_idx(&c, step->idx, &line)))
			break;
	}
	return line;
}

// From the opening bracket: notes and measures every element.
static int scan_items(struct kube_reader *r, struct kube_cursor *c)
{
	int rc = 0;
	c->at++;
	skip_blanks(c);
	while (c->at < c->end && *c->at != ']') {
		const char *before = c->at;
		uint32_t line = c->line;
		if (item_note(r, c))
			return error_add(r->err, ENOMEM, "", "out of memory");
		skip_value(c);
		if (c->at - before > KUBE_ITEM_MAX_BYTES)
			rc = error_add_line(r->err, EINVAL, line, "",
				"object of %zu bytes; allowed: at most %u",
				(size_t)(c->at - before), KUBE_ITEM_MAX_BYTES);
		skip_blanks(c);
		if (c->at < c->end && *c->at == ',')
			c->at++;
		skip_blanks(c);
		if (c->at == before) // broken text: jansson will say how
			break;
	}
	return rc;
}

int kube_scan(struct kube_reader *r)
{
	uint32_t line = 0;
	struct kube_cursor c = { r->text, r->text + r->len, 1 };
	if (!kube_depth_ok(r->text, r->len, KUBE_DEPTH_MAX, &line))
		return error_add_line(r->err, EINVAL, line, "",
			"nested deeper than %d; allowed: at most %d", KUBE_DEPTH_MAX,
			KUBE_DEPTH_MAX);
	skip_blanks(&c);
	r->is_list = c.at < c.end && *c.at == '{';
	if (r->is_list && !seek_key(&c, "items", &line))
		return 0;
	if (c.at >= c.end || *c.at != '[')
		return 0;
	return scan_items(r, &c);
}
