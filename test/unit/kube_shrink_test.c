// SPDX-License-Identifier: BSD-3-Clause
// Endpoints that are missing, as stories: at a second, so many of a Service's endpoints go and so many come.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "kube_shrink.h"

struct shrink_step {
	uint32_t at_s, n_gone, n_new, n_ended; // ended: began to terminate
	uint32_t n_missing, n_were_there;      // must come of it
	bool is_held, is_tripped;
};

struct shrink_story {
	const char *name;
	uint32_t n_first;
	struct shrink_step steps[12]; // at_s 0 after the first: the end
};

static const struct shrink_story stories[] = {
	{ "all at once", 4,
		{ { .at_s = 100,
			.n_gone = 4,
			.n_missing = 4,
			.n_were_there = 4,
			.is_tripped = true } } },
	{ "most at once", 10,
		{ { .at_s = 100,
			.n_gone = 6,
			.n_missing = 6,
			.n_were_there = 10,
			.is_tripped = true } } },
	{ "half is not most", 10,
		{ { .at_s = 100, .n_gone = 5, .n_missing = 5, .n_were_there = 10 },
			{ .at_s = 101,
				.n_gone = 1,
				.n_missing = 6,
				.n_were_there = 10,
				.is_tripped = true } } },
	{ "two are too few", 2,
		{ { .at_s = 100, .n_gone = 2, .n_missing = 2, .n_were_there = 2 } } },
	{ "one that comes and goes is missed once", 2,
		{ { .at_s = 100, .n_gone = 1, .n_missing = 1, .n_were_there = 2 },
			{ .at_s = 101, .n_new = 1, .n_were_there = 2 },
			{ .at_s = 102, .n_gone = 1, .n_missing = 1, .n_were_there = 2 },
			{ .at_s = 103, .n_new = 1, .n_were_there = 2 },
			{ .at_s = 104, .n_gone = 1, .n_missing = 1, .n_were_there = 2 },
			{ .at_s = 105, .n_new = 1, .n_were_there = 2 },
			{ .at_s = 106, .n_gone = 2, .n_missing = 2, .n_were_there = 2 } } },
	{ "what is replaced at once is not missed", 6,
		{ { .at_s = 100, .n_gone = 6, .n_new = 6, .n_were_there = 6 } } },
	{ "what is replaced one by one is not missed", 4,
		{ { .at_s = 100, .n_gone = 1, .n_missing = 1, .n_were_there = 4 },
			{ .at_s = 101, .n_gone = 1, .n_new = 1, .n_missing = 1, .n_were_there = 4 },
			{ .at_s = 102, .n_gone = 1, .n_new = 1, .n_missing = 1, .n_were_there = 4 },
			{ .at_s = 103, .n_gone = 1, .n_new = 1, .n_missing = 1, .n_were_there = 4 },
			{ .at_s = 104, .n_new = 1, .n_were_there = 4 } } },
	{ "who ends properly was not there", 8,
		{ { .at_s = 100, .n_ended = 6, .n_were_there = 2 },
			{ .at_s = 101, .n_gone = 2, .n_missing = 2, .n_were_there = 2 } } },
	{ "bit by bit within the window", 9,
		{ { .at_s = 100, .n_gone = 2, .n_missing = 2, .n_were_there = 9 },
			{ .at_s = 115, .n_gone = 2, .n_missing = 4, .n_were_there = 9 },
			{ .at_s = 129,
				.n_gone = 1,
				.n_missing = 5,
				.n_were_there = 9,
				.is_tripped = true } } },
	{ "bit by bit, slowly", 9,
		{ { .at_s = 100, .n_gone = 2, .n_missing = 2, .n_were_there = 9 },
			{ .at_s = 120, .n_gone = 2, .n_missing = 4, .n_were_there = 9 },
			{ .at_s = 140,
				.n_gone = 2,
				.n_missing = 4,
				.n_were_there = 7,
				.is_tripped = true } } },
	{ "one by one, slower than the window", 6,
		{ { .at_s = 100, .n_gone = 1, .n_missing = 1, .n_were_there = 6 },
			{ .at_s = 140, .n_gone = 1, .n_missing = 1, .n_were_there = 5 },
			{ .at_s = 180, .n_gone = 1, .n_missing = 1, .n_were_there = 4 },
			{ .at_s = 220, .n_gone = 1, .n_missing = 1, .n_were_there = 3 },
			{ .at_s = 500, .n_gone = 1, .n_missing = 1, .n_were_there = 2 } } },
	{ "what is held is not forgotten", 4,
		{ { .at_s = 100,
			  .n_gone = 4,
			  .n_missing = 4,
			  .n_were_there = 4,
			  .is_tripped = true },
			{ .at_s = 300, .is_held = true, .n_missing = 4, .n_were_there = 4 },
			{ .at_s = 301,
				.is_held = true,
				.n_new = 3,
				.n_missing = 1,
				.n_were_there = 4 },
			{ .at_s = 390, .is_held = true, .n_new = 1, .n_were_there = 4 },
			{ .at_s = 391, .is_held = true, .n_new = 5, .n_were_there = 9 } } },
	{ "when it is let go, it is forgotten", 4,
		{ { .at_s = 100,
			  .n_gone = 4,
			  .n_missing = 4,
			  .n_were_there = 4,
			  .is_tripped = true },
			{ .at_s = 137, .n_new = 1, .n_were_there = 1 } } },
};

static void play(const struct shrink_story *story)
{
	struct kube_shrink_window w = { 0 };
	uint32_t n = story->n_first;
	struct kube_shrink first = { .n_new = n, .n_now = n };
	assert_false(kube_shrink_add(&w, &first, 99 * CLOCK_S, false));
	assert_int_equal(w.n_missing, 0);
	for (uint32_t i = 0; i < ARRAY_SIZE(story->steps) && story->steps[i].at_s; i++) {
		const struct shrink_step *step = &story->steps[i];
		struct kube_shrink change = { .n_before = n,
			.n_gone = step->n_gone,
			.n_new = step->n_new,
			.n_now = n - step->n_gone - step->n_ended + step->n_new };
		bool is_tripped = kube_shrink_add(&w, &change, step->at_s * CLOCK_S, step->is_held);
		if (w.n_missing != step->n_missing || w.n_were_there != step->n_were_there ||
			is_tripped != step->is_tripped)
			fail_msg("%s, at %u s: %u of %u missing, %s", story->name, step->at_s,
				w.n_missing, w.n_were_there, is_tripped ? "tripped" : "quiet");
		n = change.n_now;
	}
}

static void test_stories(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(stories); i++)
		play(&stories[i]);
}

// Whatever happens: never more missing than lost in the window, never more than there were, and a sum of its cells.
static void test_always(void **state)
{
	uint64_t random = 42, now_ns = 77 * CLOCK_S;
	struct kube_shrink_window w = { 0 };
	uint32_t n = 50;
	for (uint32_t i = 0; i < 200000; i++) {
		random = random * 6364136223846793005ull + 1442695040888963407ull;
		uint32_t r = (uint32_t)(random >> 33);
		struct kube_shrink change = { .n_before = n,
			.n_gone = r % 4 ? 0 : r / 4 % (n + 1),
			.n_new = r % 3 ? 0 : r / 16 % 20 };
		change.n_now = n - change.n_gone + change.n_new;
		now_ns += (r % 97 ? r % 3000 : r % 60000) * CLOCK_MS;
		bool is_tripped = kube_shrink_add(&w, &change, now_ns, r % 5 == 0);
		uint32_t sum = 0;
		for (uint32_t k = 0; k < KUBE_SHRINK_CELLS; k++)
			sum += w.lost[k];
		assert_int_equal(sum, w.n_missing);
		assert_int_equal(w.n_were_there, change.n_now + w.n_missing);
		if (is_tripped)
			assert_true(w.n_missing >= 3 && w.n_missing > change.n_now);
		n = change.n_now % 100;
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_stories),
		cmocka_unit_test(test_always),
	};
	return cmocka_run_group_tests_name("kube_shrink", tests, NULL, NULL);
}
