// SPDX-License-Identifier: BSD-3-Clause
// The directory of flows that were left, and reading them out of a table that nobody attaches to.
#include "directory.h"
#include "flow.h"
#include "flow_priv.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#define SEED 0x5eedc0deull

static uint64_t rng_state;

static uint64_t rng(void)
{
	rng_state += 0x9e3779b97f4a7c15ull;
	uint64_t z = (rng_state ^ (rng_state >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

static struct flow_directory *make(uint64_t n_flows)
{
	struct flow_directory *directory = NULL;
	size_t size = flow_directory_size(n_flows);
	void *mem = aligned_alloc(64, size);
	memset(mem, 0xa5, size);
	assert_int_equal(flow_directory_init(mem, size, n_flows, &directory), 0);
	return directory;
}

// Every flow is found at its worker, nobody else is found, in directories of any size filled to the last flow.
static void test_found(void **state)
{
	static const uint32_t sizes[] = { 1, 2, 31, 32, 33, 1000, 65536, 300000 };
	for (uint32_t s = 0; s < ARRAY_SIZE(sizes); s++) {
		struct flow_directory *d = make(sizes[s]);
		rng_state = SEED + s;
		for (uint32_t i = 0; i < sizes[s]; i++)
			assert_true(flow_directory_add(d, rng(), (uint16_t)(i % 64)));
		rng_state = SEED + s;
		for (uint32_t i = 0; i < sizes[s]; i++)
			assert_int_equal(flow_directory_find(d, rng()), i % 64);
		for (uint32_t i = 0; i < sizes[s]; i++)
			assert_int_equal(flow_directory_find(d, rng()), FLOW_DIRECTORY_NONE);
		free(d);
	}
}

static void test_bounds(void **state)
{
	struct flow_directory *d = make(100);
	assert_int_equal(flow_directory_find(d, 0), FLOW_DIRECTORY_NONE); // empty
	// The first word has it; the worker of hash 0 is told from an empty cell.
	assert_true(flow_directory_add(d, 0, 0));
	assert_true(flow_directory_add(d, 0, 5));
	assert_int_equal(flow_directory_find(d, 0), 0);
	assert_int_equal(flow_directory_find(d, 0xffff), 0); // these bits are not kept
	// Hashes that want one place: as many as a look-up reads, the others are refused.
	uint32_t n = 1;
	for (uint64_t k = 1; k < 40; k++)
		n += flow_directory_add(d, k << 44, (uint16_t)k);
	assert_int_equal(n, FLOW_DIRECTORY_PROBES);
	for (uint64_t k = 1; k < 40; k++)
		assert_int_equal(flow_directory_find(d, k << 44),
			k < FLOW_DIRECTORY_PROBES ? k : FLOW_DIRECTORY_NONE);
	// More flows than it was made for: refused before it is so full that look-ups become long.
	rng_state = SEED;
	uint32_t n_added = 0;
	for (uint32_t i = 0; i < 1000; i++)
		n_added += flow_directory_add(d, rng(), 1);
	assert_in_range(n_added, 90, 256 / 2);
	free(d);
	size_t size = flow_directory_size(100);
	char *mem = aligned_alloc(64, size + 64);
	assert_int_equal(flow_directory_init(mem, size - 1, 100, &d), -EINVAL);
	assert_int_equal(flow_directory_init(mem + 8, size, 100, &d), -EINVAL);
	free(mem);
}

// The same worker for a client in every process; clients spread evenly.
static void test_owner_by_client(void **state)
{
	for (uint16_t n_workers = 1; n_workers <= 7; n_workers++) {
		uint32_t n[7] = { 0 };
		for (uint32_t i = 0; i < 7000; i++) {
			struct address a = address_from_v4(rte_cpu_to_be_32(0x0a000000u + i));
			uint16_t owner = flow_owner_by_client(&a, n_workers);
			assert_true(owner < n_workers);
			n[owner]++;
		}
		for (uint32_t w = 0; w < n_workers; w++)
			assert_in_range(
				n[w], 7000 / n_workers * 9 / 10, 7000 / n_workers * 11 / 10 + 1);
	}
	struct address a = address_from_v4(RTE_BE32(0xc6336401));
	assert_int_equal(flow_owner_by_client(&a, 64), 44); // in every build
}

static void test_leftover(void **state)
{
	static const struct hash_key key = { { 3, 4 } };
	size_t size = flow_table_size(500);
	void *mem = aligned_alloc(64, size);
	struct flow_table t;
	assert_int_equal(flow_table_init(&t, mem, size, 500, &key), 0);
	for (uint32_t i = 0; i < 300; i++) {
		struct flow_record r = { .client = address_from_v4(i),
			.backend = address_from_v4(RTE_BE32(0x0b000001)),
			.snat_port = (rte_be16_t)i,
			.snat_slot = 1,
			.protocol = i % 3 ? NET_PROTO_TCP : NET_PROTO_SCTP,
			.state = FLOW_STATE_ESTABLISHED,
			.backend_id = i,
			.nexthop_client = 5,
			.route_generation = 9 };
		assert_int_equal(flow_add(&t, &r), i);
	}
	flow_remove(&t, 100);
	flow_write_begin(flow_record(&t, 200));              // torn
	flow_record(&t, 201)->state = FLOW_STATE_UDP_TWOWAY; // cannot be
	void *before = malloc(size);
	memcpy(before, mem, size);
	struct flow_leftover left;
	struct flow_record r;
	assert_int_equal(flow_leftover_open(&left, mem, size, NULL), 0);
	assert_int_equal(left.capacity, 500);
	assert_memory_equal(&left.key, &key, sizeof(key));
	for (uint32_t i = 0; i < 300; i++) {
		if (i == 100 || i == 200 || i == 201)
			continue;
		assert_true(flow_leftover_next(&left, &r));
		assert_int_equal(r.backend_id, i);
		assert_int_equal(r.client.halves[1], address_from_v4(i).halves[1]);
		assert_int_equal(r.nexthop_client, UINT16_MAX);
		assert_int_equal(r.nexthop_backend, UINT16_MAX);
		assert_int_equal(r.route_generation, 0);
	}
	assert_false(flow_leftover_next(&left, &r));
	assert_memory_equal(before, mem, size);
	struct error err = { 0 };
	assert_int_equal(flow_leftover_open(&left, mem, size - 1, &err), -EINVAL);
	assert_int_equal(flow_leftover_open(&left, (char *)mem + 8, size - 8, &err), -EINVAL);
	assert_int_equal(flow_leftover_open(&left, mem, 10, &err), -EINVAL);
	t.header->format++;
	assert_int_equal(flow_leftover_open(&left, mem, size, &err), -EINVAL);
	assert_int_equal(err.n_items, 4);
	error_fini(&err);
	free(before);
	free(mem);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_found),
		cmocka_unit_test(test_bounds),
		cmocka_unit_test(test_owner_by_client),
		cmocka_unit_test(test_leftover),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
