// SPDX-License-Identifier: BSD-3-Clause
// Ground floor: errors with a place, nearest word, arrays, arena, clock and durations, log lines.
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "base.h"

// ---------------------------------------------------------------- errors
static void test_error_items(void **state)
{
	struct error err = { .file = "services.json" };
	char buf[256];
	assert_string_equal(error_first(&err, buf, sizeof(buf)), "unknown error");
	assert_int_equal(
		error_add(&err, EINVAL, "services[3].ports[0].port", "%d not in 1..65535", 70000),
		-EINVAL);
	assert_int_equal(error_add_line(&err, ENOENT, 12, "", "no such key"), -ENOENT);
	err.file = NULL;
	assert_int_equal(error_add(&err, E2BIG, NULL, "whole"), -E2BIG);
	assert_int_equal(error_add_line(&err, EINVAL, 7, "a", "b"), -EINVAL);
	assert_int_equal(err.n_items, 4);
	assert_string_equal(error_first(&err, buf, sizeof(buf)),
		"services.json: services[3].ports[0].port: 70000 not in 1..65535");
	assert_string_equal(
		error_format(&err, 1, buf, sizeof(buf)), "services.json:12: no such key");
	assert_string_equal(error_format(&err, 2, buf, sizeof(buf)), "whole");
	assert_string_equal(error_format(&err, 3, buf, sizeof(buf)), "a: b");
	assert_string_equal(error_format(&err, 4, buf, sizeof(buf)), "unknown error");
	char small[8];
	assert_string_equal(error_format(&err, 0, small, sizeof(small)), "service");
	error_fini(&err);
	assert_int_equal(err.n_items, 0);
	assert_null(err.items);
	error_fini(&err);
}

static void test_error_nobody_listens(void **state)
{
	assert_int_equal(error_add(NULL, EINVAL, "a", "b %s", "c"), -EINVAL);
	struct error from = { 0 };
	error_merge(NULL, &from, "x");
}

static void test_error_many(void **state)
{
	struct error err = { 0 };
	for (int i = 0; i < ERROR_ITEMS_MAX + 10; i++)
		assert_int_equal(error_add(&err, EINVAL, "p", "%d", i), -EINVAL);
	assert_int_equal(err.n_items, ERROR_ITEMS_MAX);
	assert_int_equal(err.n_lost, 10);
	assert_string_equal(err.items[ERROR_ITEMS_MAX - 1].text, "255");
	struct error all = { 0 };
	error_add(&all, EINVAL, "", "first");
	error_merge(&all, &err, "");
	assert_int_equal(all.n_items, ERROR_ITEMS_MAX);
	assert_int_equal(all.n_lost, 11);
	error_fini(&all);
	error_fini(&err);
}

static void test_error_merge(void **state)
{
	struct error err = { .file = "outer" }, from = { .file = "inner" };
	char buf[128];
	error_add_line(&from, EINVAL, 3, ".port", "0 is no port");
	from.file = NULL;
	error_add(&from, EINVAL, "", "empty");
	error_merge(&err, &from, "services[1]");
	assert_int_equal(err.n_items, 2);
	assert_string_equal(
		error_format(&err, 0, buf, sizeof(buf)), "inner:3: services[1].port: 0 is no port");
	assert_string_equal(error_format(&err, 1, buf, sizeof(buf)), "outer: services[1]: empty");
	assert_string_equal(err.file, "outer");
	error_fini(&from);
	error_fini(&err);
}

static void test_nearest(void **state)
{
	static const char *const words[] = { "ports", "workers", "cores", "control_core", "idle",
		"x" };
	const size_t n = ARRAY_SIZE(words);
	assert_string_equal(error_nearest("cors", words, n), "cores");
	assert_string_equal(error_nearest("prots", words, n), "ports");
	assert_string_equal(error_nearest("wrkers", words, n), "workers");
	assert_string_equal(error_nearest("control-core", words, n), "control_core");
	assert_string_equal(error_nearest("idle", words, n), "idle");
	assert_string_equal(
		error_nearest("pores", words, n), "ports"); // as near as cores: the first
	assert_string_equal(error_nearest("ctrl_core", words, n), "control_core");
	assert_null(error_nearest("kubernetes", words, n));
	assert_null(error_nearest("", words, n));
	assert_null(error_nearest("y", words, n)); // one letter of one is no likeness
	assert_null(error_nearest("idle", words, 0));
	char endless[200];
	memset(endless, 'a', sizeof(endless) - 1);
	endless[sizeof(endless) - 1] = 0;
	assert_null(error_nearest(endless, words, n));
}

// ---------------------------------------------------------------- memory
static void test_array(void **state)
{
	uint64_t *items = NULL;
	uint32_t n_items = 0, cap = 0;
	for (uint64_t i = 0; i < 1000; i++) {
		assert_int_equal(array_grow(items, n_items, cap), 0);
		assert_true(cap > n_items);
		items[n_items++] = i * i;
	}
	for (uint64_t i = 0; i < 1000; i++)
		assert_int_equal(items[i], i * i);
	free(items);
	char *bytes = NULL;
	uint32_t huge = 1u << 31;
	assert_int_equal(array_grow_raw((void **)&bytes, huge, &huge, 1), -ENOMEM);
	assert_null(bytes);
	assert_int_equal(huge, 1u << 31);
}

static void test_arena(void **state)
{
	struct arena arena = { 0 };
	size_t total = 0;
	for (size_t i = 1; i < 3000; i++) {
		size_t size = i * 37 % 500, align = (size_t)1 << i % 7;
		uint8_t *at = arena_alloc(&arena, size, align);
		assert_non_null(at);
		assert_int_equal((uintptr_t)at % align, 0);
		for (size_t k = 0; k < size; k++)
			assert_int_equal(at[k], 0); // zeroed, and nobody else's
		memset(at, 0xff, size);
		total += size;
	}
	uint8_t *large = arena_alloc(&arena, 1 << 20, 64);
	assert_non_null(large);
	memset(large, 1, 1 << 20);
	assert_int_equal(arena.used_bytes, total + (1 << 20));
	char *text = arena_strdup(&arena, "text");
	assert_string_equal(text, "text");
	assert_null(arena_alloc(&arena, SIZE_MAX, 1));
	assert_null(arena_alloc(&arena, SIZE_MAX - 64, 1));
	assert_string_equal(text, "text");
	arena_fini(&arena);
	assert_int_equal(arena.used_bytes, 0);
	assert_non_null(arena_alloc(&arena, 1, 1));
	arena_fini(&arena);
	arena_fini(&arena);
}

// ---------------------------------------------------------------- time
static void test_durations(void **state)
{
	static const struct {
		const char *text;
		uint64_t ns;
		const char *shown;
	} good[] = {
		{ "0", 0, "0s" },
		{ "0s", 0, "0s" },
		{ "1ns", 1, "1ns" },
		{ "250us", 250 * CLOCK_US, "250us" },
		{ "500ms", 500 * CLOCK_MS, "500ms" },
		{ "1s", CLOCK_S, "1s" },
		{ "1000ms", CLOCK_S, "1s" },
		{ "15m", 900 * CLOCK_S, "15m" },
		{ "90s", 90 * CLOCK_S, "1m30s" },
		{ "1h30m", 5400 * CLOCK_S, "1h30m" },
		{ "3h", 10800 * CLOCK_S, "3h" },
		{ "1h1m1s1ms1us1ns", 3661001001001ull, "1h1m1s1ms1us1ns" },
		{ "18446744073709551615ns", UINT64_MAX, "5124095h34m33s709ms551us615ns" },
	};
	char buf[32];
	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		uint64_t ns = 42;
		assert_int_equal(clock_parse_duration(good[i].text, &ns), 0);
		assert_int_equal(ns, good[i].ns);
		assert_string_equal(clock_format_duration(ns, buf, sizeof(buf)), good[i].shown);
		assert_int_equal(clock_parse_duration(buf, &ns), 0);
		assert_int_equal(ns, good[i].ns);
	}
	static const char *const bad[] = { "", "1", "s", "-1s", "+1s", "1.5s", " 1s", "1s ", "1 s",
		"1S", "1d", "1sec", "30m1h", "1s1s", "1mss", "0x1s", "00", "s1", "1h30",
		"18446744073709551616ns", "99999999999999999999s", "5124096h", "5124095h60m",
		"1ms1m", "1nsns" };
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		uint64_t ns = 42;
		if (clock_parse_duration(bad[i], &ns) != -EINVAL)
			fail_msg("'%s' was taken for a duration", bad[i]);
		assert_int_equal(ns, 42);
	}
}

static void test_clocks(void **state)
{
	uint64_t time_ns = 5;
	struct clock clock = clock_virtual(&time_ns);
	assert_int_equal(clock_now_ns(&clock), 5);
	time_ns += CLOCK_S;
	assert_int_equal(clock_now_ns(&clock), CLOCK_S + 5);
	clock = clock_monotonic();
	uint64_t last = clock_now_ns(&clock);
	for (int i = 0; i < 1000; i++) {
		uint64_t now = clock_now_ns(&clock);
		assert_true(now >= last);
		last = now;
	}
	assert_true(clock_wall_ms() > 1700000000000ll);
}

static void test_rfc3339(void **state)
{
	char buf[32];
	assert_string_equal(clock_rfc3339(0, buf, sizeof(buf)), "1970-01-01T00:00:00.000Z");
	assert_string_equal(
		clock_rfc3339(1769860800123ll, buf, sizeof(buf)), "2026-01-31T12:00:00.123Z");
	assert_string_equal(
		clock_rfc3339(1709164799999ll, buf, sizeof(buf)), "2024-02-28T23:59:59.999Z");
	assert_string_equal(clock_rfc3339(-1, buf, sizeof(buf)), "1969-12-31T23:59:59.999Z");
	assert_string_equal(clock_rfc3339(-1000, buf, sizeof(buf)), "1969-12-31T23:59:59.000Z");
	clock_rfc3339(INT64_MAX / 2, buf, sizeof(buf)); // no date that anybody needs; in bounds
}

// ---------------------------------------------------------------- log
static char line[8192];

static const char *logged(enum log_format format, const char *event, const char *text)
{
	int fds[2];
	assert_int_equal(pipe(fds), 0);
	struct log log = { .fd = fds[1], .level = LOG_LEVEL_INFO, .format = format };
	log_write(&log, LOG_LEVEL_WARN, event, "%s", text);
	close(fds[1]);
	ssize_t n = read(fds[0], line, sizeof(line) - 1);
	close(fds[0]);
	line[n > 0 ? n : 0] = 0;
	return line;
}

static void test_log_lines(void **state)
{
	const char *text =
		logged(LOG_TEXT, "backend-down", "10.9.0.2:80 \"refused\"\nagain\x1b[0m");
	assert_int_equal(strncmp(text, "<4>2", 4), 0);
	assert_string_equal(strstr(text, " warn "),
		" warn backend-down: 10.9.0.2:80 \"refused\"\\nagain\\u001b[0m\n");
	text = logged(LOG_JSON, "start", "a\tb\\");
	assert_int_equal(strncmp(text, "{\"time\":\"2", 10), 0);
	assert_string_equal(strstr(text, ",\"level\""),
		",\"level\":\"warn\",\"event\":\"start\",\"message\":\"a\\u0009b\\\\\"}\n");
}

// UTF-8 goes through, anything else does not: a JSON reader must be able to read every line.
static void test_log_utf8(void **state)
{
	static const struct {
		const char *in, *out;
	} cases[] = {
		{ "\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80", "\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80" },
		{ "a\xff"
		  "b",
			"a?b" },
		{ "\xc3", "?" },
		{ "\xe2\x82", "??" },
		{ "\xc0\xaf", "??" },           // overlong
		{ "\xe0\x80\xaf", "???" },      // overlong
		{ "\xed\xa0\x80", "???" },      // surrogate
		{ "\xf4\x90\x80\x80", "????" }, // beyond U+10FFFF
		{ "\x80", "?" },
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char want[64];
		snprintf(want, sizeof(want), "\"message\":\"%s\"}\n", cases[i].out);
		assert_string_equal(
			strstr(logged(LOG_JSON, "e", cases[i].in), "\"message\""), want);
	}
}

static void test_log_bounds(void **state)
{
	char endless[5000];
	memset(endless, 1, sizeof(endless) - 1);
	endless[sizeof(endless) - 1] = 0;
	const char *text = logged(LOG_JSON, "e", endless);
	size_t n = strlen(text);
	assert_true(n > 1000 && n < 2048);
	assert_string_equal(text + n - 3, "\"}\n");
	log_write(NULL, LOG_LEVEL_ERROR, "e", "nobody listens");
	struct log log = { .fd = -1, .level = LOG_LEVEL_ERROR };
	log_write(&log, LOG_LEVEL_DEBUG, "e", "not this loud");
	log_write(&log, LOG_LEVEL_ERROR, "e", "nowhere to write");
	assert_string_equal(log_level_name(LOG_LEVEL_INFO), "info");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_error_items),
		cmocka_unit_test(test_error_nobody_listens),
		cmocka_unit_test(test_error_many),
		cmocka_unit_test(test_error_merge),
		cmocka_unit_test(test_nearest),
		cmocka_unit_test(test_array),
		cmocka_unit_test(test_arena),
		cmocka_unit_test(test_durations),
		cmocka_unit_test(test_clocks),
		cmocka_unit_test(test_rfc3339),
		cmocka_unit_test(test_log_lines),
		cmocka_unit_test(test_log_utf8),
		cmocka_unit_test(test_log_bounds),
	};
	return cmocka_run_group_tests_name("base", tests, NULL, NULL);
}
