// SPDX-License-Identifier: BSD-3-Clause
// Next hops: the entry word, and longest prefix match against a naive twin (a scan of the list).
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "nexthop.h"

static struct nexthop_route route(
	const char *prefix, uint16_t nexthop, uint8_t port_idx, uint32_t metric)
{
	struct nexthop_route r = { .nexthop = nexthop, .port_idx = port_idx, .metric = metric };
	assert_int_equal(prefix_parse(prefix, &r.prefix), 0);
	return r;
}

static struct nexthop_answer find(const struct nexthop_fib *fib, const char *text)
{
	struct address a;
	assert_int_equal(address_parse(text, &a), 0);
	return nexthop_find(fib, &a);
}

static void test_word(void **state)
{
	struct nexthop_entry entries[3] = { 0 };
	struct nexthop_table table = { .entries = entries, .n_entries = 3 };
	struct mac mac = { { 0x02, 0x11, 0x22, 0x33, 0x44, 0xff } };
	assert_int_equal(nexthop_word_state(nexthop_load(&table, 1)), NEXTHOP_UNUSED);
	nexthop_store(&table, 1, &mac, 200, NEXTHOP_VALID);
	uint64_t w = nexthop_load(&table, 1);
	struct mac got = nexthop_word_mac(w);
	assert_memory_equal(got.bytes, mac.bytes, 6);
	assert_int_equal(nexthop_word_port(w), 200);
	assert_int_equal(nexthop_word_state(w), NEXTHOP_VALID);
	nexthop_store(&table, 1, &mac, 255, NEXTHOP_FAILED);
	w = nexthop_load(&table, 1);
	assert_int_equal(nexthop_word_port(w), 255);
	assert_int_equal(nexthop_word_state(w), NEXTHOP_FAILED);
	assert_int_equal(nexthop_load(&table, 0), 0);
	assert_int_equal(nexthop_load(&table, 2), 0);
}

static void test_longest_prefix(void **state)
{
	const struct nexthop_route routes[] = {
		route("0.0.0.0/0", 1, 0, 100),
		route("10.0.0.0/8", 2, 0, 0),
		route("10.9.0.0/24", NEXTHOP_MISSING, 1, 0),
		route("10.9.0.2/32", 7, 1, 0),
		route("2001:db8::/32", 3, 0, 0),
		route("2001:db8:0:1::/64", NEXTHOP_MISSING, 2, 0),
		route("2001:db8:0:1::5/128", 9, 2, 0),
	};
	struct nexthop_fib *fib = nexthop_fib_create(routes, ARRAY_SIZE(routes), 42);
	assert_non_null(fib);
	assert_int_equal(nexthop_fib_generation(fib), 42);
	assert_int_equal(find(fib, "192.0.2.1").nexthop, 1);
	assert_int_equal(find(fib, "10.1.1.1").nexthop, 2);
	assert_int_equal(find(fib, "10.9.0.3").nexthop, NEXTHOP_MISSING);
	assert_int_equal(find(fib, "10.9.0.3").port_idx, 1);
	assert_int_equal(find(fib, "10.9.0.2").nexthop, 7);
	assert_int_equal(find(fib, "2001:db8:5::1").nexthop, 3);
	assert_int_equal(find(fib, "2001:db8:0:1::6").nexthop, NEXTHOP_MISSING);
	assert_int_equal(find(fib, "2001:db8:0:1::6").port_idx, 2);
	assert_int_equal(find(fib, "2001:db8:0:1::5").nexthop, 9);
	assert_int_equal(find(fib, "2001:db9::1").nexthop, NEXTHOP_NONE);
	nexthop_fib_destroy(fib);
}

static void test_families_apart(void **state)
{
	const struct nexthop_route v6[] = { route("::/0", 4, 0, 0) };
	struct nexthop_fib *fib = nexthop_fib_create(v6, 1, 1);
	assert_int_equal(find(fib, "192.0.2.1").nexthop, NEXTHOP_NONE);
	assert_int_equal(find(fib, "2001:db8::1").nexthop, 4);
	nexthop_fib_destroy(fib);
	const struct nexthop_route v4[] = { route("0.0.0.0/0", 5, 0, 0) };
	fib = nexthop_fib_create(v4, 1, 1);
	assert_int_equal(find(fib, "192.0.2.1").nexthop, 5);
	assert_int_equal(find(fib, "2001:db8::1").nexthop, NEXTHOP_NONE);
	assert_int_equal(find(fib, "::1").nexthop, NEXTHOP_NONE);
	nexthop_fib_destroy(fib);
	fib = nexthop_fib_create(NULL, 0, 1);
	assert_int_equal(find(fib, "192.0.2.1").nexthop, NEXTHOP_NONE);
	nexthop_fib_destroy(fib);
	nexthop_fib_destroy(NULL);
}

static void test_duplicates(void **state)
{
	const struct nexthop_route routes[] = {
		route("10.0.0.0/8", 2, 0, 20),
		route("10.0.0.0/8", 5, 1, 10),
		route("10.0.0.0/8", 4, 2, 10),
		route("10.0.0.0/8", 6, 3, 10),
		route("10.0.0.0/8", 1, 4, 30),
	};
	struct nexthop_fib *fib = nexthop_fib_create(routes, ARRAY_SIZE(routes), 0);
	assert_int_equal(find(fib, "10.2.3.4").nexthop, 4);
	assert_int_equal(find(fib, "10.2.3.4").port_idx, 2);
	nexthop_fib_destroy(fib);
}

static uint64_t random_state;
static uint64_t draw(void)
{
	uint64_t z = random_state += 0x9e3779b97f4a7c15ull;
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

// Few distinct bits, so that prefixes nest and destinations hit them.
static struct address random_address(void)
{
	uint64_t w = draw();
	if (w & 1)
		return address_from_v4((rte_be32_t)(w >> 8) & RTE_BE32(0x8f010183));
	struct address a = { .halves = { draw() & 0x0300000000008121ull,
				     draw() & 0x8000000030000005ull } };
	a.bytes[0] |= 0x20;
	return a;
}

static struct nexthop_answer naive_find(
	const struct nexthop_route *routes, uint32_t n, const struct address *dst)
{
	const struct nexthop_route *best = NULL;
	for (uint32_t i = 0; i < n; i++) {
		const struct nexthop_route *r = &routes[i];
		if (!prefix_contains(&r->prefix, dst))
			continue;
		if (best == NULL || r->prefix.len > best->prefix.len ||
			(r->prefix.len == best->prefix.len &&
				(r->metric < best->metric ||
					(r->metric == best->metric && r->nexthop < best->nexthop))))
			best = r;
	}
	if (best == NULL)
		return (struct nexthop_answer){ .nexthop = NEXTHOP_NONE };
	return (struct nexthop_answer){ .nexthop = best->nexthop, .port_idx = best->port_idx };
}

static struct nexthop_route random_route(uint32_t i)
{
	struct nexthop_route r = { .prefix.address = random_address(),
		.nexthop = (uint16_t)i,
		.port_idx = (uint8_t)draw(),
		.metric = (uint32_t)(draw() % 3) };
	uint32_t max = address_is_v4(&r.prefix.address) ? 32 : 128;
	r.prefix.len = (uint8_t)(draw() % (max + 1));
	for (uint32_t bit = r.prefix.len; bit < max; bit++) {
		uint32_t at = bit + (max == 32 ? 96 : 0);
		r.prefix.address.bytes[at / 8] &= (uint8_t) ~(0x80 >> at % 8);
	}
	return r;
}

static void test_naive_twin(void **state)
{
	static struct nexthop_route routes[500];
	random_state = 20260101;
	printf("nexthop: seed %lu\n", (unsigned long)random_state);
	for (int round = 0; round < 60; round++) {
		uint32_t n = (uint32_t)(draw() % (ARRAY_SIZE(routes) + 1)), n_found = 0;
		for (uint32_t i = 0; i < n; i++)
			routes[i] = random_route(i);
		struct nexthop_fib *fib = nexthop_fib_create(routes, n, 0);
		for (int i = 0; i < 500; i++) {
			struct address dst = random_address();
			struct nexthop_answer got = nexthop_find(fib, &dst);
			struct nexthop_answer want = naive_find(routes, n, &dst);
			assert_int_equal(got.nexthop, want.nexthop);
			if (want.nexthop != NEXTHOP_NONE)
				assert_int_equal(got.port_idx, want.port_idx);
			n_found += want.nexthop != NEXTHOP_NONE;
		}
		assert_true(n < 100 || n_found > 100); // the draw does test something
		nexthop_fib_destroy(fib);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_word),
		cmocka_unit_test(test_longest_prefix),
		cmocka_unit_test(test_families_apart),
		cmocka_unit_test(test_duplicates),
		cmocka_unit_test(test_naive_twin),
	};
	return cmocka_run_group_tests_name("nexthop", tests, NULL, NULL);
}
