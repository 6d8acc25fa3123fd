// SPDX-License-Identifier: BSD-3-Clause
// Counters: the table that metrics, REST and documentation are made from, sums, the accounting identity.
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <string.h>
#include <cmocka.h>

#include "counters.h"

static void assert_name(const char *name)
{
	assert_non_null(name);
	assert_true(strlen(name) > 1);
	assert_int_equal(strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_"), strlen(name));
	assert_true(name[0] >= 'a' && name[strlen(name) - 1] != '_');
}

static void test_table(void **state)
{
	for (int i = 0; i < COUNTER_MAX; i++) {
		assert_name(counter_rows[i].name);
		assert_name(counter_rows[i].unit);
		assert_true(strlen(counter_rows[i].help) > 5);
		for (int k = 0; k < i; k++)
			assert_string_not_equal(counter_rows[i].name, counter_rows[k].name);
	}
	assert_string_equal(drop_rows[DROP_NONE].name, "none");
	for (int i = 0; i < DROP_MAX; i++) {
		assert_name(drop_rows[i].name);
		assert_name(drop_class_name(drop_rows[i].class));
		assert_true(strlen(drop_rows[i].help) > 5);
		assert_non_null(drop_rows[i].fix);
		for (int k = 0; k < i; k++)
			assert_string_not_equal(drop_rows[i].name, drop_rows[k].name);
	}
	assert_true(DROP_MAX <= UINT8_MAX); // reasons are kept in a byte
	assert_string_equal(counter_rows[COUNTER_RECEIVED].name, "received");
	assert_string_equal(drop_rows[DROP_NO_BACKEND].name, "no_backend");
	assert_string_equal(drop_class_name(DROP_CLASS_resource), "resource");
}

static void test_sums(void **state)
{
	struct counters a = { 0 }, b = { 0 }, sum = { 0 };
	for (int i = 0; i < COUNTER_MAX; i++) {
		counters_add(&a, (enum counter_id)i, (uint64_t)i + 1);
		counters_add(&a, (enum counter_id)i, 1);
		counters_add(&b, (enum counter_id)i, 1000);
	}
	for (int i = 0; i < DROP_MAX; i++) {
		counters_drop(&a, (enum drop_reason)i, 3);
		counters_drop(&b, (enum drop_reason)i, (uint64_t)i);
		a.drops_last_s[i] = 100;
		b.drops_last_s[i] = (uint64_t)i * 10;
	}
	counters_accumulate(&sum, &a);
	counters_accumulate(&sum, &b);
	for (int i = 0; i < COUNTER_MAX; i++)
		assert_int_equal(sum.values[i], i + 1002);
	uint64_t n_dropped = 0;
	for (int i = 0; i < DROP_MAX; i++) {
		assert_int_equal(sum.drops[i], i + 3);
		assert_int_equal(sum.drops_last_s[i], i > 10 ? i * 10 : 100);
		n_dropped += i > 0 ? (uint64_t)i + 3 : 0; // row 0 is no drop
	}
	assert_int_equal(counters_dropped(&sum), n_dropped);
}

static void test_identity(void **state)
{
	static const struct {
		enum counter_id id;
		int sign;
	} terms[] = {
		{ COUNTER_RECEIVED, 1 },
		{ COUNTER_INJECTED, 1 },
		{ COUNTER_GENERATED, 1 },
		{ COUNTER_RESTEERED_IN, 1 },
		{ COUNTER_SENT, -1 },
		{ COUNTER_PUNTED, -1 },
		{ COUNTER_RESTEERED_OUT, -1 },
	};
	for (int i = 0; i < COUNTER_MAX; i++) {
		struct counters c = { 0 };
		int sign = 0;
		for (size_t k = 0; k < sizeof(terms) / sizeof(terms[0]); k++)
			sign = (int)terms[k].id == i ? terms[k].sign : sign;
		counters_add(&c, (enum counter_id)i, 7);
		assert_int_equal(counters_imbalance(&c), 7 * sign);
	}
	struct counters c = { 0 };
	for (int i = 1; i < DROP_MAX; i++)
		counters_drop(&c, (enum drop_reason)i, 2);
	assert_int_equal(counters_imbalance(&c), -2 * (DROP_MAX - 1));
	counters_add(&c, COUNTER_RECEIVED, 2 * (DROP_MAX - 1));
	assert_int_equal(counters_imbalance(&c), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_table),
		cmocka_unit_test(test_sums),
		cmocka_unit_test(test_identity),
	};
	return cmocka_run_group_tests_name("counters", tests, NULL, NULL);
}
