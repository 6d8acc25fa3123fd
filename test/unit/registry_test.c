// SPDX-License-Identifier: BSD-3-Clause
// The journal of stable numbers: what one registry gave out, another one means the same by, whatever order and damage.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <cmocka.h>
#include <errno.h>

#include "snapshot_build.h"

#define LINES_MAX 4096

struct journal {
	char *lines[LINES_MAX];
	uint32_t n;
};

static void take(void *arg, const char *line)
{
	struct journal *j = arg;
	assert_true(j->n < LINES_MAX);
	j->lines[j->n++] = strdup(line);
}

static void journal_fini(struct journal *j)
{
	for (uint32_t i = 0; i < j->n; i++)
		free(j->lines[i]);
	j->n = 0;
}

static struct address address_of(uint32_t n)
{
	struct address a;
	char text[64];
	snprintf(text, sizeof(text), n & 1 ? "2001:db8::%x" : "10.0.%u.%u", n & 1 ? n : n >> 8,
		n & 255);
	assert_int_equal(address_parse(text, &a), 0);
	return a;
}

static void same_numbers_mean_the_same(void **state)
{
	enum { N = 500 };
	struct snapshot_registry *first = snapshot_registry_create(),
				 *second = snapshot_registry_create();
	struct journal j = { .n = 0 };
	uint16_t slots[N], slot;
	uint32_t ids[N], id;
	uint8_t policy, again;
	for (uint32_t i = 0; i < N; i++) {
		struct address a = address_of(i);
		assert_int_equal(snapshot_registry_slot(first, &a, &slots[i]), 0);
		assert_int_equal(snapshot_registry_backend(first, "default/web",
					 i % 3 ? "http" : "", &a, (uint16_t)(8000 + i), &ids[i]),
			0);
		if (i % 50 == 0)
			snapshot_registry_fresh(first, take, &j);
	}
	assert_int_equal(snapshot_registry_policy(first, 900, 60, &policy), 0);
	snapshot_registry_fresh(first, take, &j);
	assert_int_equal(j.n, 3 * N + 1); // two lines a backend
	snapshot_registry_fresh(first, take, &j);
	assert_int_equal(j.n, 3 * N + 1); // told once
	for (uint32_t i = j.n; i-- > 0;)
		assert_int_equal(snapshot_registry_restore(second, j.lines[i]), 0);
	for (uint32_t i = N; i-- > 0;) {
		struct address a = address_of(i);
		assert_int_equal(snapshot_registry_slot(second, &a, &slot), 0);
		assert_int_equal(slot, slots[i]);
		assert_int_equal(snapshot_registry_backend(second, "default/web",
					 i % 3 ? "http" : "", &a, (uint16_t)(8000 + i), &id),
			0);
		assert_int_equal(id, ids[i]);
	}
	assert_int_equal(snapshot_registry_policy(second, 900, 60, &again), 0);
	assert_int_equal(again, policy);
	struct address fresh = address_of(N);
	assert_int_equal(snapshot_registry_slot(second, &fresh, &slot), 0);
	assert_int_equal(slot, N); // beyond those restored
	journal_fini(&j);
	snapshot_registry_destroy(first);
	snapshot_registry_destroy(second);
}

static void the_last_line_counts(void **state)
{
	struct snapshot_registry *r = snapshot_registry_create();
	uint16_t slot;
	struct address a = address_of(2), b = address_of(4);
	// as read from the end of a journal: the newer meaning of number 0 comes first
	assert_int_equal(snapshot_registry_restore(r, "slot 0 10.0.0.4"), 0);
	assert_int_equal(snapshot_registry_restore(r, "slot 0 10.0.0.2"), -EEXIST);
	assert_int_equal(snapshot_registry_slot(r, &b, &slot), 0);
	assert_int_equal(slot, 0);
	assert_int_equal(snapshot_registry_slot(r, &a, &slot), 0);
	assert_int_equal(slot, 1);
	snapshot_registry_destroy(r);
}

static void damaged_lines_are_refused(void **state)
{
	static const char *const bad[] = { "", "slot", "slot 1", "slot 1 10.0.0.",
		"slot 70000 10.0.0.1", "slot -1 10.0.0.1", "slot 1 10.0.0.1 x",
		"backend 1 2 10.0.0.1", "backend 1 70000 10.0.0.1 a/b/c",
		"backend 1 80 10.0.0.1 nolistener", "backend 999999999 80 10.0.0.1 a/b/c",
		"policy 255 1 1", "policy 1 1", "slot 1 ::ffff:1.2.3.4", "\x01\x02",
		"slotx 1 10.0.0.1", "kept 1 dnat 3 0", "kept 1 snat 3 0 300",
		"kept 1 dnat 70000 0 300", "kept 1 dnat 3 255 300", "kept 99999999 dnat 3 0 300",
		"kept 1 dnat 3 0 300 x" };
	struct snapshot_registry *r = snapshot_registry_create();
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(snapshot_registry_restore(r, bad[i]), -EINVAL);
	uint16_t slot;
	struct address a = address_of(2);
	assert_int_equal(snapshot_registry_slot(r, &a, &slot), 0);
	assert_int_equal(slot, 0); // nothing was taken
	snapshot_registry_destroy(r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(same_numbers_mean_the_same),
		cmocka_unit_test(the_last_line_counts),
		cmocka_unit_test(damaged_lines_are_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
