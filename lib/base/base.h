// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// Ground floor of every module: errors with a place, a logger, growable arrays,
// an arena, an injectable clock. No globals, no threads; libc only.

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdarg.h>

// ---------------------------------------------------------------- errors
// A refusal names the place (file and line where there is one, and a path such
// as "services[3].ports[0].port"), the offending value and what is allowed.
// Cold code takes a last argument `struct error *err`, may be NULL; it returns
// 0 or -errno, adds one item per finding (a validator goes on and reports all of
// them) and leaves its outputs untouched on failure.
#define ERROR_ITEMS_MAX 256 // further ones are counted in n_lost

struct error_item {
	char *file;    // NULL when the input is not a file
	uint32_t line; // 1.., 0 = unknown
	char *path;    // dotted path, or JSON pointer for a request body; "" for the whole
	char *text;    // one line: value and what is allowed
};

// Zero-initialised is valid and empty. Heap-owned; free with error_fini.
struct error {
	struct error_item *items;
	uint32_t n_items;
	uint32_t n_lost;
	const char *file; // borrowed: default file name for error_add
};

// Adds an item and returns -code (code > 0), so `return error_add(err, EINVAL, ...)`.
int error_add(struct error *err, int code, const char *path, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
// The same with a line number (err->file names the file).
int error_add_line(struct error *err, int code, uint32_t line, const char *path, const char *fmt,
	...) __attribute__((format(printf, 5, 6)));
// Appends a copy of every item of `from` to `err`, each path prefixed with `prefix` (may be "").
void error_merge(struct error *err, const struct error *from, const char *prefix);
// "file:line: path: text" of item `idx` into buf; returns buf.
const char *error_format(const struct error *err, uint32_t idx, char *buf, size_t len);
// First item as one line, or "unknown error".
const char *error_first(const struct error *err, char *buf, size_t len);
void error_fini(struct error *err);

// Nearest of n candidate words by edit distance (at most 3, and at most half of the
// candidate's length; the first of equals), or NULL: "unknown key `cors`, did you mean `cores`?".
const char *error_nearest(const char *word, const char *const *candidates, size_t n);

// ---------------------------------------------------------------- log
enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };
enum log_format { LOG_TEXT, LOG_JSON };

// One writer thread (control) unless said otherwise; each call writes one line
// with a single write(2). `event` is a stable id such as "backend-down".
struct log {
	int fd; // 2 = stderr
	enum log_level level;
	enum log_format format;
};

void log_write(const struct log *log, enum log_level level, const char *event, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
const char *log_level_name(enum log_level level);

// ---------------------------------------------------------------- arrays
// A growable array is three fields `T *items; uint32_t n_items; uint32_t cap;`
// array_grow makes room for one more: 0, or -ENOMEM and nothing changed.
int array_grow_raw(void **items, uint32_t n_items, uint32_t *cap, size_t item_size);
#define array_grow(items, n, cap) array_grow_raw((void **)&(items), (n), &(cap), sizeof(*(items)))
#define ARRAY_SIZE(a)             (sizeof(a) / sizeof((a)[0]))

// ---------------------------------------------------------------- arena
// Bump allocator: many allocations, one free. Zeroed memory, 64-byte aligned blocks,
// alignment of each allocation is a power of two up to 64.
struct arena_block;
struct arena {
	struct arena_block *first;
	size_t used_bytes; // handed out in total
};
void *arena_alloc(struct arena *arena, size_t size, size_t align); // NULL: out of memory
char *arena_strdup(struct arena *arena, const char *text);         // NULL: out of memory
void arena_fini(struct arena *arena);                              // zero value is valid again

// ---------------------------------------------------------------- clock
// Monotonic nanoseconds from an injectable source, so that tests run in virtual time.
struct clock {
	uint64_t (*now_ns)(void *arg);
	void *arg;
};
uint64_t clock_now_ns(const struct clock *clock);
struct clock clock_monotonic(void);
// Virtual clock: *time_ns is the time; the caller advances it.
struct clock clock_virtual(uint64_t *time_ns);
// Wall clock as RFC 3339 UTC with milliseconds, "2026-01-31T12:00:00.000Z". buf >= 32.
const char *clock_rfc3339(int64_t wall_ms, char *buf, size_t len);
int64_t clock_wall_ms(void);

// "1s", "500ms", "15m", "3h", "250us", "1h30m" to nanoseconds; "0" is 0. -EINVAL on
// anything else (no sign, no fraction, no blanks, overflow refused).
int clock_parse_duration(const char *text, uint64_t *out_ns);
// The shortest exact form of a duration: 900000000000 -> "15m". buf >= 32.
const char *clock_format_duration(uint64_t ns, char *buf, size_t len);

#define CLOCK_S  1000000000ull
#define CLOCK_MS 1000000ull
#define CLOCK_US 1000ull
