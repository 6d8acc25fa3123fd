// SPDX-License-Identifier: BSD-3-Clause
// Errors with a place, collected; growable arrays; nearest word.
#include "base.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int error_addv(
	struct error *err, int code, uint32_t line, const char *path, const char *fmt, va_list ap)
{
	if (err == NULL)
		return -code;
	if (err->n_items >= ERROR_ITEMS_MAX) {
		err->n_lost++;
		return -code;
	}
	if (err->items == NULL) {
		err->items = calloc(ERROR_ITEMS_MAX, sizeof(*err->items));
		if (err->items == NULL) {
			err->n_lost++;
			return -code;
		}
	}
	char *text = NULL;
	if (vasprintf(&text, fmt, ap) < 0)
		text = NULL;
	err->items[err->n_items++] = (struct error_item){
		.file = err->file ? strdup(err->file) : NULL,
		.line = line,
		.path = strdup(path ? path : ""),
		.text = text,
	};
	return -code;
}

int error_add(struct error *err, int code, const char *path, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	int rc = error_addv(err, code, 0, path, fmt, ap);
	va_end(ap);
	return rc;
}

int error_add_line(
	struct error *err, int code, uint32_t line, const char *path, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	int rc = error_addv(err, code, line, path, fmt, ap);
	va_end(ap);
	return rc;
}

void error_merge(struct error *err, const struct error *from, const char *prefix)
{
	if (err == NULL)
		return;
	for (uint32_t i = 0; i < from->n_items; i++) {
		const struct error_item *item = &from->items[i];
		char *path = NULL;
		const char *tail = item->path ? item->path : "";
		if (asprintf(&path, "%s%s", prefix, tail) < 0)
			path = NULL;
		const char *file = err->file;
		if (item->file)
			err->file = item->file;
		error_add_line(err, EINVAL, item->line, path, "%s", item->text ? item->text : "");
		err->file = file;
		free(path);
	}
	err->n_lost += from->n_lost;
}

const char *error_format(const struct error *err, uint32_t idx, char *buf, size_t len)
{
	if (idx >= err->n_items) {
		snprintf(buf, len, "unknown error");
		return buf;
	}
	const struct error_item *item = &err->items[idx];
	char place[32] = "";
	if (item->line)
		snprintf(place, sizeof(place), ":%u", item->line);
	const char *path = item->path ? item->path : "";
	snprintf(buf, len, "%s%s%s%s%s%s", item->file ? item->file : "", item->file ? place : "",
		item->file ? ": " : "", path, path[0] ? ": " : "",
		item->text ? item->text : "(out of memory)");
	return buf;
}

const char *error_first(const struct error *err, char *buf, size_t len)
{
	return error_format(err, 0, buf, len);
}

void error_fini(struct error *err)
{
	for (uint32_t i = 0; i < err->n_items; i++) {
		free(err->items[i].file);
		free(err->items[i].path);
		free(err->items[i].text);
	}
	free(err->items);
	*err = (struct error){ .file = err->file };
}

static size_t edit_distance(const char *a, const char *b)
{
	size_t n = strlen(a), m = strlen(b);
	size_t row[65];
	if (n > 64 || m > 64)
		return 99;
	for (size_t j = 0; j <= m; j++)
		row[j] = j;
	for (size_t i = 1; i <= n; i++) {
		size_t diagonal = row[0];
		row[0] = i;
		for (size_t j = 1; j <= m; j++) {
			size_t above = row[j];
			size_t best = diagonal + (a[i - 1] != b[j - 1]);
			if (above + 1 < best)
				best = above + 1;
			if (row[j - 1] + 1 < best)
				best = row[j - 1] + 1;
			row[j] = best;
			diagonal = above;
		}
	}
	return row[m];
}

const char *error_nearest(const char *word, const char *const *candidates, size_t n)
{
	const char *best = NULL;
	size_t best_distance = 4;
	for (size_t i = 0; i < n; i++) {
		size_t distance = edit_distance(word, candidates[i]);
		if (distance < best_distance && distance * 2 <= strlen(candidates[i])) {
			best = candidates[i];
			best_distance = distance;
		}
	}
	return best;
}

int array_grow_raw(void **items, uint32_t n_items, uint32_t *cap, size_t item_size)
{
	if (n_items < *cap)
		return 0;
	uint32_t new_cap = *cap ? *cap * 2 : 8;
	if (new_cap < *cap)
		return -ENOMEM;
	void *grown = reallocarray(*items, new_cap, item_size);
	if (grown == NULL)
		return -ENOMEM;
	*items = grown;
	*cap = new_cap;
	return 0;
}
