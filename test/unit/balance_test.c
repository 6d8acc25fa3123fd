// SPDX-License-Identifier: BSD-3-Clause
// Maglev tables: against the Python oracle's digests, against the plain loop in every variant, and the promises of
// balance.h. A comparison with an oracle in another language is test/oracle/maglev_check.py.
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "balance.h"

#define M_LARGE 65537

static uint64_t splitmix(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15ull;
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

// The same members as make_members() of test/oracle/maglev.py.
static void make_members(
	struct balance_member *members, uint32_t n, uint64_t seed, const char *weights, bool v6)
{
	for (uint32_t i = 0; i < n; i++) {
		uint64_t word = splitmix(&seed);
		struct address a =
			address_from_v4(rte_cpu_to_be_32(0x0a000000 | (uint32_t)(word & 0xffffff)));
		if (v6) {
			a.words[0] = RTE_BE32(0x20010db8);
			a.words[1] = 0;
			a.halves[1] = rte_cpu_to_be_64(word);
		}
		uint16_t weight = 100;
		if (strcmp(weights, "step") == 0)
			weight = (uint16_t)(i % 3 + 1);
		else if (strcmp(weights, "random") == 0)
			weight = (uint16_t)((word >> 32) % 1001);
		members[i] = (struct balance_member){
			.address = a, .port = (uint16_t)(i + 1), .weight = weight
		};
	}
}

static uint64_t slots_digest(const uint16_t *slots, uint32_t m)
{
	uint64_t h = 0xcbf29ce484222325ull;
	for (uint32_t i = 0; i < m; i++) {
		h = (h ^ (slots[i] & 0xff)) * 0x100000001b3ull;
		h = (h ^ (slots[i] >> 8)) * 0x100000001b3ull;
	}
	return h;
}

static struct balance_member members[2000];
static uint16_t slots[M_LARGE], others[M_LARGE];

static void count_slots(const uint16_t *table, uint32_t m, uint32_t *counts, uint32_t n)
{
	memset(counts, 0, n * sizeof(*counts));
	for (uint32_t i = 0; i < m; i++) {
		assert_in_range(table[i], 0, n - 1);
		counts[table[i]]++;
	}
}

static void test_oracle_digests(void **state)
{
	char path[512], line[256], weights[16];
	const char *source = getenv("SLUICE_SOURCE");
	snprintf(path, sizeof(path), "%s/test/fixtures/maglev_digests.txt", source ? source : ".");
	FILE *f = fopen(path, "r");
	assert_non_null(f);
	int n_cases = 0;
	while (fgets(line, sizeof(line), f)) {
		unsigned long seed;
		unsigned n, m, v6;
		unsigned long long want;
		if (line[0] == '#')
			continue;
		assert_int_equal(
			sscanf(line, "%lu %u %u %15s %u %llx", &seed, &n, &m, weights, &v6, &want),
			6);
		assert_true(n <= ARRAY_SIZE(members) && m <= M_LARGE);
		make_members(members, n, seed, weights, v6);
		assert_int_equal(balance_build(members, n, m, slots), 0);
		assert_int_equal(slots_digest(slots, m), want);
		n_cases++;
	}
	fclose(f);
	assert_int_equal(n_cases, 10);
}

// ---------------------------------------------------------------- the plain loop
// balance.h and the paper's "Populate" in their own words: multiply and modulo, the table itself says what is taken.

#define M_MOST BALANCE_BUILD_MAX

static uint16_t plain[M_MOST], built[M_MOST];

struct plain_member {
	uint8_t identity[18];
	uint64_t offset, skip, next, weight;
	uint16_t idx;
};

static int plain_compare(const void *a, const void *b)
{
	return memcmp(a, b, 18);
}

static uint64_t plain_prepare(struct plain_member *p, uint32_t n, uint32_t m)
{
	uint64_t heaviest = 0;
	for (uint32_t i = 0; i < n; i++) {
		memset(&p[i], 0, sizeof(p[i]));
		memcpy(p[i].identity, members[i].address.bytes, 16);
		p[i].identity[16] = (uint8_t)(members[i].port >> 8);
		p[i].identity[17] = (uint8_t)members[i].port;
		p[i].offset = hash_stable(p[i].identity, 18, 1) % m;
		p[i].skip = hash_stable(p[i].identity, 18, 2) % (m - 1) + 1;
		p[i].weight = members[i].weight;
		p[i].idx = (uint16_t)i;
		heaviest = p[i].weight > heaviest ? p[i].weight : heaviest;
	}
	qsort(p, n, sizeof(*p), plain_compare);
	return heaviest;
}

static uint32_t plain_turn(struct plain_member *p, uint32_t m)
{
	uint64_t slot;
	do
		slot = (p->offset + p->next++ * p->skip) % m;
	while (plain[slot] != BALANCE_EMPTY);
	plain[slot] = p->idx;
	return 1;
}

static void plain_build(uint32_t n, uint32_t m)
{
	static struct plain_member p[ARRAY_SIZE(members)];
	uint64_t heaviest = plain_prepare(p, n, m);
	memset(plain, 0xff, m * sizeof(plain[0]));
	uint32_t n_filled = 0;
	for (uint64_t r = 0; heaviest > 0 && n_filled < m; r++) {
		for (uint32_t i = 0; i < n && n_filled < m; i++) {
			if ((r + 1) * p[i].weight / heaviest != r * p[i].weight / heaviest)
				n_filled += plain_turn(&p[i], m);
		}
	}
}

static void assert_plain(uint32_t n, uint32_t m)
{
	static const enum balance_variant variants[] = { BALANCE_FASTEST, BALANCE_SCALAR,
		BALANCE_AVX2 };
	plain_build(n, m);
	for (uint32_t v = 0; v < ARRAY_SIZE(variants); v++) {
		memset(built, 0x5a, m * sizeof(built[0]));
		int rc = balance_build_as(variants[v], members, n, m, built);
		if (rc == -ENOTSUP && variants[v] == BALANCE_AVX2)
			continue;
		assert_int_equal(rc, 0);
		if (memcmp(built, plain, m * sizeof(built[0])) != 0)
			fail_msg("%u members, m %u, variant %u: not the plain loop's table", n, m,
				v);
	}
}

// Random members and weights of a kind: 0 equal, 1 small and zeros, 2 any, 3 nearly all zero, 4 one far above the others, 5 one above
// others that share their rounds.
static void draw_members(uint64_t *seed, uint32_t n, uint32_t kind)
{
	make_members(members, n, splitmix(seed), "equal", splitmix(seed) & 1);
	for (uint32_t i = 0; i < n; i++) {
		uint64_t word = splitmix(seed);
		const uint64_t weights[] = { 7, word % 4, word % 65536, word % 9 == 0 ? 5 : 0,
			i == n / 2 ? 65535 : 1 + word % 3, i == n / 2 ? 50 : 1 + word % 2 };
		members[i].weight = (uint16_t)weights[kind];
	}
}

static void test_is_the_plain_loop(void **state)
{
	static const uint32_t sizes[] = { 251, 257, 307, 509, 1009, 4093, 10007, 32749, 65521,
		65537 };
	uint64_t seed = 20260401;
	for (uint32_t round = 0; round < 250; round++) {
		uint32_t m = sizes[splitmix(&seed) % (round % 10 == 0 ? ARRAY_SIZE(sizes) : 7)];
		const uint32_t counts[] = { 1, 2, 3, 10, 16, 17, m / 100, m / 3, m + 5 };
		uint32_t n = counts[splitmix(&seed) % ARRAY_SIZE(counts)];
		n = n < ARRAY_SIZE(members) ? n : ARRAY_SIZE(members);
		n = round % 10 == 0 && n > 200 ? 200 : n;
		draw_members(&seed, n, (uint32_t)(splitmix(&seed) % 6));
		assert_plain(n, m);
	}
}

// Tables larger than any that a snapshot holds (the bench builds them), and the largest prime there is room for.
static void test_is_the_plain_loop_when_large(void **state)
{
	uint64_t seed = 655373;
	draw_members(&seed, 1000, 0);
	assert_plain(1000, 65537);
	assert_plain(1000, 655373);
	draw_members(&seed, 300, 2);
	assert_plain(300, 655373);
	draw_members(&seed, 20, 4);
	assert_plain(20, 1048573);
	assert_plain(20, 65539);
	assert_int_equal(balance_build(members, 20, 65539, slots), -EINVAL);
	assert_int_equal(balance_build_as(BALANCE_FASTEST, members, 20, 1048583, built), -EINVAL);
}

static void test_order_does_not_matter(void **state)
{
	const uint32_t n = 50, m = 5003;
	struct balance_member shuffled[50];
	uint32_t at[50];
	make_members(members, n, 99, "random", false);
	assert_int_equal(balance_build(members, n, m, slots), 0);
	uint64_t digest = balance_digest(members, n), seed = 7;
	for (int round = 0; round < 20; round++) {
		for (uint32_t i = 0; i < n; i++)
			at[i] = i;
		for (uint32_t i = n - 1; i > 0; i--) {
			uint32_t j = (uint32_t)(splitmix(&seed) % (i + 1)), was = at[i];
			at[i] = at[j];
			at[j] = was;
		}
		for (uint32_t i = 0; i < n; i++)
			shuffled[i] = members[at[i]];
		assert_int_equal(balance_build(shuffled, n, m, others), 0);
		for (uint32_t i = 0; i < m; i++)
			assert_int_equal(at[others[i]], slots[i]);
		assert_int_equal(balance_digest(shuffled, n), digest);
	}
}

static void test_even(void **state)
{
	uint32_t counts[1000];
	make_members(members, 1000, 5, "equal", false);
	assert_int_equal(balance_build(members, 1000, M_LARGE, slots), 0);
	count_slots(slots, M_LARGE, counts, 1000);
	// By construction: whole rounds, and one turn more for the first ones of the last round.
	for (uint32_t i = 0; i < 1000; i++)
		assert_in_range(counts[i], M_LARGE / 1000, M_LARGE / 1000 + 1);
}

static void test_weights(void **state)
{
	uint32_t counts[3];
	make_members(members, 3, 11, "step", false);
	assert_int_equal(balance_build(members, 3, 307, slots), 0);
	count_slots(slots, 307, counts, 3);
	for (uint32_t i = 0; i < 3; i++) {
		double want = 307.0 * (i + 1) / 6;
		assert_true(counts[i] > want * 0.95 && counts[i] < want * 1.05);
	}
	members[1].weight = 0;
	assert_int_equal(balance_build(members, 3, 307, slots), 0);
	count_slots(slots, 307, counts, 3);
	assert_int_equal(counts[1], 0);
	members[0].weight = 1; // the extremes of a weight
	members[2].weight = 65535;
	assert_int_equal(balance_build(members, 3, M_LARGE, slots), 0);
	count_slots(slots, M_LARGE, counts, 3);
	assert_int_equal(counts[0], 1);
}

static void test_removal_moves_few(void **state)
{
	const uint32_t n = 100;
	make_members(members, n, 21, "equal", false);
	assert_int_equal(balance_build(members, n, M_LARGE, slots), 0);
	for (uint32_t gone = 0; gone < n; gone += 33) {
		struct balance_member left[100];
		memcpy(left, members, gone * sizeof(left[0]));
		memcpy(left + gone, members + gone + 1, (n - gone - 1) * sizeof(left[0]));
		assert_int_equal(balance_build(left, n - 1, M_LARGE, others), 0);
		uint32_t n_moved = 0, n_others = 0;
		for (uint32_t i = 0; i < M_LARGE; i++) {
			if (slots[i] == gone)
				continue;
			uint32_t now = others[i] + (others[i] >= gone);
			n_others++;
			n_moved += now != slots[i];
		}
		assert_true(n_moved < n_others * 2 / 100);
	}
}

static void test_weight_zero_is_absent(void **state)
{
	// A drained member leaves the same table as a member that is not there.
	make_members(members, 10, 31, "equal", true);
	members[9].weight = 0;
	assert_int_equal(balance_build(members, 10, 1009, slots), 0);
	assert_int_equal(balance_build(members, 9, 1009, others), 0);
	assert_memory_equal(slots, others, 1009 * sizeof(slots[0]));
}

static void test_nobody(void **state)
{
	assert_int_equal(balance_build(NULL, 0, 251, slots), 0);
	for (uint32_t i = 0; i < 251; i++)
		assert_int_equal(slots[i], BALANCE_EMPTY);
	make_members(members, 3, 1, "equal", false);
	for (uint32_t i = 0; i < 3; i++)
		members[i].weight = 0;
	slots[7] = 1;
	assert_int_equal(balance_build(members, 3, 251, slots), 0);
	assert_int_equal(slots[7], BALANCE_EMPTY);
}

static void test_refusals(void **state)
{
	make_members(members, 3, 1, "equal", false);
	memset(slots, 0x5a, sizeof(slots));
	const uint32_t bad_m[] = { 0, 1, 2, 241, 250, 255, 1001, 65535, 65536, 65539, UINT32_MAX };
	for (size_t i = 0; i < ARRAY_SIZE(bad_m); i++)
		assert_int_equal(balance_build(members, 3, bad_m[i], slots), -EINVAL);
	assert_int_equal(balance_build(members, 65536, 251, slots), -EINVAL);
	members[2].address = members[0].address;
	assert_int_equal(balance_build(members, 3, 251, slots), 0); // another port
	memset(slots, 0x5a, sizeof(slots));
	members[2].port = members[0].port;
	members[2].weight = 0; // twice is twice, drained or not
	assert_int_equal(balance_build(members, 3, 251, slots), -EINVAL);
	for (uint32_t i = 0; i < M_LARGE; i++)
		assert_int_equal(slots[i], 0x5a5a);
}

static void test_table_size(void **state)
{
	assert_int_equal(balance_table_size(0), 251);
	assert_int_equal(balance_table_size(2), 251);
	assert_int_equal(balance_table_size(3), 307);
	assert_int_equal(balance_table_size(10), 1009);
	assert_int_equal(balance_table_size(100), 10007);
	assert_int_equal(balance_table_size(655), 65519);
	assert_int_equal(balance_table_size(656), 65537);
	assert_int_equal(balance_table_size(UINT32_MAX), 65537);
	for (uint32_t n = 0; n < 700; n++) {
		uint32_t m = balance_table_size(n);
		assert_true(m >= BALANCE_TABLE_MIN && m <= BALANCE_TABLE_MAX);
		assert_true(m >= 100 * n || m == BALANCE_TABLE_MAX);
		for (uint32_t d = 2; d * d <= m; d++)
			assert_int_not_equal(m % d, 0);
	}
}

static void test_digest_sees_changes(void **state)
{
	make_members(members, 20, 77, "equal", false);
	uint64_t digest = balance_digest(members, 20);
	assert_int_not_equal(balance_digest(members, 19), digest);
	members[5].weight++;
	assert_int_not_equal(balance_digest(members, 20), digest);
	members[5].weight--;
	members[5].port++;
	assert_int_not_equal(balance_digest(members, 20), digest);
	members[5].port--;
	members[5].address.bytes[15] ^= 1;
	assert_int_not_equal(balance_digest(members, 20), digest);
	members[5].address.bytes[15] ^= 1;
	assert_int_equal(balance_digest(members, 20), digest);
}

static void test_slot_in_range(void **state)
{
	uint64_t seed = 3;
	uint32_t counts[251] = { 0 };
	for (int i = 0; i < 251000; i++) {
		uint32_t slot = balance_slot(splitmix(&seed), 251);
		assert_in_range(slot, 0, 250);
		counts[slot]++;
	}
	for (int i = 0; i < 251; i++)
		assert_in_range(counts[i], 800, 1200);
	assert_int_equal(balance_slot(UINT64_MAX, M_LARGE), M_LARGE - 1);
	assert_int_equal(balance_slot(0, M_LARGE), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_oracle_digests),
		cmocka_unit_test(test_is_the_plain_loop),
		cmocka_unit_test(test_is_the_plain_loop_when_large),
		cmocka_unit_test(test_order_does_not_matter),
		cmocka_unit_test(test_even),
		cmocka_unit_test(test_weights),
		cmocka_unit_test(test_removal_moves_few),
		cmocka_unit_test(test_weight_zero_is_absent),
		cmocka_unit_test(test_nobody),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_table_size),
		cmocka_unit_test(test_digest_sees_changes),
		cmocka_unit_test(test_slot_in_range),
	};
	return cmocka_run_group_tests_name("balance", tests, NULL, NULL);
}
