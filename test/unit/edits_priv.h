// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// Invalidating edits over a good text, and random mutations of it: each edit must be refused at its place with what is allowed
// said, each mutation taken or refused with at least one finding, and a refusal leaves the outputs as they were.
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base.h"

#define EDITS_MUTATIONS 10000

struct edit {
	const char *find; // its first occurrence is replaced
	const char *put;
	const char *path; // of the finding
	const char *says; // part of the finding
	const char *
		at; // where the finding points to, NULL: where the edit is; first occurrence in the edited text
};

// A fixture, NUL-terminated; the caller frees.
static inline char *edits_read(const char *name)
{
	char path[512];
	const char *top = getenv("SLUICE_SOURCE");
	snprintf(path, sizeof(path), "%s/%s", top ? top : ".", name);
	FILE *file = fopen(path, "rb");
	if (file == NULL)
		fail_msg("%s cannot be opened", path);
	fseek(file, 0, SEEK_END);
	size_t len = (size_t)ftell(file);
	rewind(file);
	char *text = malloc(len + 1);
	assert_non_null(text);
	assert_int_equal(fread(text, 1, len, file), len);
	text[len] = '\0';
	fclose(file);
	return text;
}

static inline uint32_t edits_line(const char *text, const char *at)
{
	uint32_t line = 1;
	for (; text < at; text++)
		line += *text == '\n';
	return line;
}

// The edited text (caller frees) and the line that the finding must have.
static inline char *edits_apply(const char *good, const struct edit *edit, uint32_t *out_line)
{
	const char *found = strstr(good, edit->find);
	if (found == NULL)
		fail_msg("not in the good text: %s", edit->find);
	size_t before = (size_t)(found - good);
	const char *rest = found + strlen(edit->find);
	size_t len = before + strlen(edit->put) + strlen(rest) + 1;
	char *text = malloc(len);
	assert_non_null(text);
	snprintf(text, len, "%.*s%s%s", (int)before, good, edit->put, rest);
	const char *at = edit->at ? strstr(text, edit->at) : text + before;
	if (at == NULL)
		fail_msg("not in the edited text: %s", edit->at);
	*out_line = edits_line(text, at);
	return text;
}

// One of the findings is at the line and path, and says it. Prints what is there instead if not.
static inline bool edits_check(const struct edit *edit, uint32_t line, const struct error *err)
{
	char text[1600];
	for (uint32_t i = 0; i < err->n_items; i++) {
		const struct error_item *item = &err->items[i];
		assert_non_null(item->file);
		if (item->line == line && strcmp(item->path, edit->path) == 0 &&
			strstr(item->text, edit->says))
			return true;
	}
	printf("edit: %s -> %s\nexpected: line %u, path %s, text with: %s\n", edit->find, edit->put,
		line, edit->path, edit->says);
	for (uint32_t i = 0; i < err->n_items; i++)
		printf("found: %s\n", error_format(err, i, text, sizeof(text)));
	return false;
}

// xorshift64*, so that a seed gives the same mutations everywhere.
static inline uint32_t edits_random(uint64_t *state, uint32_t below)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return (uint32_t)((*state * 0x2545f4914f6cdd1dull) >> 33) % below;
}

static inline void edits_splice(
	char *text, size_t *len, size_t at, size_t n_out, const char *in, size_t n_in)
{
	memmove(text + at + n_in, text + at + n_out, *len - at - n_out);
	memcpy(text + at, in, n_in);
	*len += n_in - n_out;
}

// One to four changes of a copy of `good`, in a buffer of exactly its length: a read beyond the end is seen by ASan.
static inline char *edits_mutate(
	const char *good, uint64_t *state, const char *const *tokens, size_t *out_len)
{
	size_t n_tokens = 0, len = strlen(good);
	char *text = malloc(3 * len + 1024);
	assert_non_null(text);
	memcpy(text, good, len);
	while (tokens[n_tokens])
		n_tokens++;
	for (uint32_t n = 1 + edits_random(state, 4); n > 0 && len > 0; n--) {
		size_t at = edits_random(state, (uint32_t)len);
		size_t most = len - at < 40 ? len - at : 40;
		size_t span = 1 + edits_random(state, (uint32_t)most);
		const char *token = tokens[edits_random(state, (uint32_t)n_tokens)];
		char copy[40];
		memcpy(copy, text + at, span);
		switch (edits_random(state, 7)) {
		case 0:
			text[at] = (char)edits_random(state, 256);
			break;
		case 1:
			edits_splice(text, &len, at, span, "", 0);
			break;
		case 2:
			edits_splice(text, &len, at, 0, token, strlen(token));
			break;
		case 3:
			edits_splice(text, &len, at, span, token, strlen(token));
			break;
		case 4:
			edits_splice(text, &len, at, 0, copy, span);
			break;
		case 5: // a digit becomes another
			while (at < len && (text[at] < '0' || text[at] > '9'))
				at++;
			if (at < len)
				text[at] = (char)('0' + edits_random(state, 10));
			break;
		default:
			if (edits_random(state, 20) == 0)
				len = at;
		}
	}
	char *exact = malloc(len ? len : 1);
	assert_non_null(exact);
	memcpy(exact, text, len);
	free(text);
	*out_len = len;
	return exact;
}
