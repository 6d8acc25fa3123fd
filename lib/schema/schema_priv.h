// SPDX-License-Identifier: BSD-3-Clause
#pragma once
#include "schema.h"

#define SCHEMA_PATH_MAX 256

static inline bool schema_is_scalar(const struct schema_field *field)
{
	return field->type != SCHEMA_GROUP && field->type != SCHEMA_LIST;
}

static inline uint32_t schema_count(const struct schema_field *list, const void *record)
{
	return *(const uint32_t *)((const char *)record + list->n_offset);
}

static inline const void *schema_item(
	const struct schema_field *list, const void *record, uint32_t idx)
{
	return (const char *)record + list->offset + idx * list->size;
}

// "a.b", or "b" at the top.
void schema_join(char *buf, size_t len, const char *path, const char *name);
void schema_join_idx(char *buf, size_t len, const char *path, uint32_t idx); // "a[3]"
// Text in quotes, cut at 64 characters, nothing unprintable.
const char *schema_quote(const char *text, char *buf, size_t len);

// Libconfig text with comments gone and every text, number and bare word as a quoted literal "<mark><line>:<text>", so that
// the reader sees what was written, and where. NULL: refused (findings in err) or out of memory.
#define SCHEMA_MARK_NUMBER '\x01'
#define SCHEMA_MARK_WORD   '\x02'
#define SCHEMA_MARK_TEXT   '\x03'
char *schema_scan(const char *text, size_t len, struct error *err);
// Whether the scanned text has the form that libconfig takes; the first deviation is a finding.
bool schema_grammar_ok(const char *scanned, struct error *err);
// Taken apart again: *out_text points into literal.
char schema_literal(const char *literal, uint32_t *out_line, const char **out_text);
