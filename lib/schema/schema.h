// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// Field tables: one const table says of each key its name, type, unit, range, default, help, and whether a reload
// takes it. From the table come the libconfig reader, the defaults, the sample file, JSON and the reload diff.
//
// A table is an array of struct schema_field closed by a row without name. It describes a plain C struct ("record")
// without pointers: text is char[], lists are arrays with a count. Pure, any thread; cost does not matter.

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base.h"
#include "net.h"

enum schema_type {
	SCHEMA_BOOL,     // bool                    true
	SCHEMA_U32,      // uint32_t                1500, 0x5dc
	SCHEMA_SIZE,     // uint64_t, bytes         "512M"
	SCHEMA_DURATION, // uint64_t, ns            "500ms"
	SCHEMA_TEXT,     // char[size]              printable ASCII
	SCHEMA_WORD,     // enum (32 bit)           one of `words`, by index
	SCHEMA_ADDRESS,  // struct address          "192.0.2.1"
	SCHEMA_GROUP,    // a record at `offset`    { ... }
	SCHEMA_LIST, // array of `size` byte items at `offset`, uint32_t count at `n_offset`    ( ... ) or [ ... ]
};

struct schema_field {
	const char *name; // "": the one row of the table of a list of scalars; NULL: end of table
	enum schema_type type;
	size_t offset;
	size_t size;                       // TEXT: of the buffer; LIST: of one item
	const struct schema_field *fields; // GROUP, LIST
	size_t n_offset;                   // LIST
	uint64_t min; // number, bytes, ns; TEXT: length. LIST: max = most items
	uint64_t max;
	uint64_t step;  // DURATION: whole multiples only; 0 = any
	bool auto_zero; // the word "auto" is taken and held as 0
	bool required; // in a list item, TEXT or U32: must be given; default_text is an example then
	bool live;     // a reload takes it
	const char *const *words; // WORD, TEXT: what is allowed, closed by NULL
	const char *const
		*soon; // names that stand but are refused as not supported yet, closed by NULL
	const char *default_text;
	const char *allowed; // says what is allowed where type and range do not
	const char *unit;
	const char *help;
	// Called when the value is in `record` (the struct that holds the field); may fill fields derived from it.
	// false: refused, `why` says what is allowed.
	bool (*check)(void *record, char *why, size_t len);
};

// Where each key stood, for checks across keys.
struct schema_line {
	char *path;
	uint32_t line;
};
struct schema_lines { // zero is valid and empty
	struct schema_line *items;
	uint32_t n_items;
	uint32_t cap;
};
// Line of the key, or of the nearest group around it that was written; 0 = not in the file.
uint32_t schema_line_of(const struct schema_lines *lines, const char *path);
void schema_lines_fini(struct schema_lines *lines);

// Every default of the table (list: empty). Defaults that do not satisfy their own row are a mistake of ours: assert.
void schema_set_defaults(const struct schema_field *fields, void *record);
// One scalar from its text. false: refused, `why` holds value and what is allowed.
bool schema_set_text(
	const struct schema_field *field, void *record, const char *text, char *why, size_t len);

// Reads libconfig text over what is in `record`. Adds every finding to err (err->file names the file) with line and key
// path. 0 or -EINVAL, -ENOMEM; on failure the record is half-written, so pass a copy. lines may be NULL.
//
// Integers are taken from the text, not from libconfig, which wraps those beyond 32 bits (1.5). @include is refused.
int schema_read_config(const struct schema_field *fields, const char *text, size_t len,
	void *record, struct schema_lines *lines, struct error *err);

// The record as an object; sizes, times and "auto" as the text that the file would have. New reference; NULL: out of memory.
json_t *schema_to_json(const struct schema_field *fields, const void *record);
// The record as libconfig text; with_help: each key with its help, type, unit, range, default, live or restart.
void schema_print(
	const struct schema_field *fields, const void *record, bool with_help, FILE *file);
// What the row allows, "number 1..10", "time \"100ms\"..\"1h\"".
const char *schema_allowed(const struct schema_field *field, char *buf, size_t len);
// Value as text, without quotes. buf >= 64, or the size of a text field.
const char *schema_format(
	const struct schema_field *field, const void *record, char *buf, size_t len);

struct schema_change {
	const char *path;
	const char *old_text;
	const char *new_text;
	bool live;
};
// One call per key that differs; lists of scalars and lists whose length changed are one key. Returns how many; fn may be NULL.
uint32_t schema_diff(const struct schema_field *fields, const void *old_record,
	const void *new_record, void (*fn)(void *arg, const struct schema_change *change),
	void *arg);
