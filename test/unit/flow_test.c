// SPDX-License-Identifier: BSD-3-Clause
// The flow table against a naive twin: flows are made from numbers (one number, one flow, two keys), and
// the twin is an array from number to record index.
#include "flow.h"
#include "flow_priv.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#define SEED 0xf10f10f1ull

static uint64_t rng_state;

static uint64_t rng(void)
{
	rng_state += 0x9e3779b97f4a7c15ull;
	uint64_t z = (rng_state ^ (rng_state >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

static void rng_start(const char *name)
{
	rng_state = SEED;
	print_message("%s: seed %#llx\n", name, (unsigned long long)SEED);
}

static const char *const variants[] = { "scalar", "sse2", "avx2", "avx512" };
static const struct hash_key test_key = { { 0x0123456789abcdefull, 0xfedcba9876543210ull } };

// Have some flows a second key that is not in the buckets?
static bool some_by_port;

// Flow number `id`: TCP or UDP, IPv4 or IPv6. Numbers that differ give keys that differ in any one field:
// peer, port of the peer, our port, our slot or protocol.
static struct flow_record make_flow(uint32_t id)
{
	struct flow_record r = { .policy = 0, .backend_id = id };
	bool udp = id & 1, v6 = id & 2;
	uint32_t n = id >> 2;
	r.protocol = udp ? NET_PROTO_UDP : NET_PROTO_TCP;
	r.state = udp ? FLOW_STATE_UDP_TWOWAY : FLOW_STATE_ESTABLISHED;
	if (v6) {
		r.client = (struct address){ .bytes = { 0x20, 0x01 } };
		r.backend = (struct address){ .bytes = { 0xfd } };
		r.client.bytes[2 + n % 14] = (uint8_t)(1 + n / 14 % 8);
		n /= 14 * 8;
	} else {
		r.client = address_from_v4(rte_cpu_to_be_32(0x0a000000u + n % 16));
		r.backend = address_from_v4(rte_cpu_to_be_32(0x0b000000u + id % 64 / 4));
		n /= 16;
	}
	r.client_port = rte_cpu_to_be_16((uint16_t)(1000 + n % 32));
	r.vip_port = rte_cpu_to_be_16((uint16_t)(80 + n / 32 % 2));
	r.vip_slot = (uint16_t)(n / 64);
	r.backend_port = rte_cpu_to_be_16(8080);
	r.snat_port = rte_cpu_to_be_16((uint16_t)(id >> 2));
	r.snat_slot = (uint16_t)(100 + (id >> 18));
	if (some_by_port && id / 4 % 3 == 0)
		r.flags = FLOW_FLAG_BY_PORT;
	return r;
}

static bool is_by_port(uint32_t id)
{
	return make_flow(id).flags & FLOW_FLAG_BY_PORT;
}

static struct flow_key make_key(uint32_t id, uint32_t side)
{
	struct flow_record r = make_flow(id);
	return side == FLOW_SIDE_CLIENT ? flow_client_key(&r) : flow_backend_key(&r);
}

struct rig {
	size_t size;
	void *mem;
	struct flow_table table;
	uint32_t n_ids;
	uint32_t *twin; // record index by flow number
};

static void rig_start(struct rig *r, uint32_t capacity, uint32_t n_ids)
{
	r->size = flow_table_size(capacity);
	r->mem = aligned_alloc(64, r->size);
	memset(r->mem, 0xa5, r->size);
	assert_int_equal(flow_table_init(&r->table, r->mem, r->size, capacity, &test_key), 0);
	r->n_ids = n_ids;
	r->twin = malloc(n_ids * sizeof(uint32_t));
	memset(r->twin, 0xff, n_ids * sizeof(uint32_t));
}

static void rig_end(struct rig *r)
{
	free(r->mem);
	free(r->twin);
}

// Adds flow `id`; a table below its capacity must have room.
static void rig_add(struct rig *r, uint32_t id)
{
	struct flow_record record = make_flow(id);
	uint32_t idx = flow_add(&r->table, &record);
	assert_int_not_equal(idx, FLOW_NONE);
	assert_memory_equal(
		flow_record(&r->table, idx), &record, offsetof(struct flow_record, sequence));
	r->twin[id] = idx;
}

static void rig_remove(struct rig *r, uint32_t id)
{
	flow_remove(&r->table, r->twin[id]);
	r->twin[id] = FLOW_NONE;
}

// Everything that flow_priv.h states as an invariant.
static void check_invariants(const struct flow_table *t)
{
	uint32_t *n_displaced = calloc(t->n_buckets, sizeof(uint32_t));
	uint16_t *filters = calloc(t->n_buckets, sizeof(uint16_t));
	uint8_t *sides = calloc(t->capacity, 1);
	uint32_t n_live = 0;
	for (uint32_t b = 0; b < t->n_buckets; b++)
		for (uint32_t s = 0; s < FLOW_BUCKET_SLOTS; s++) {
			const struct flow_bucket *bucket = flow_bucket(t, b);
			uint16_t tag = bucket->tags[s];
			if (tag == 0)
				continue;
			uint32_t idx = flow_entry_idx(bucket->entries[s]);
			uint8_t side = flow_entry_side(bucket->entries[s]);
			assert_in_range(idx, 0, t->n_used - 1);
			const struct flow_record *r = &t->records[idx];
			assert_int_not_equal(r->state, FLOW_STATE_FREE);
			struct flow_key key = side ? flow_backend_key(r) : flow_client_key(r);
			uint64_t hash = flow_hash(t, &key);
			uint32_t primary = flow_primary_bucket(t, hash);
			assert_int_equal(tag, flow_tag(hash));
			if (bucket->entries[s] & FLOW_ENTRY_MOVED) {
				assert_int_equal(flow_other_bucket(t->n_buckets, primary, tag), b);
				n_displaced[primary]++;
				filters[primary] |= flow_filter_bit(tag);
			} else {
				assert_int_equal(primary, b);
			}
			assert_int_equal(sides[idx] & (1 << side), 0);
			sides[idx] |= (uint8_t)(1 << side);
		}
	for (uint32_t b = 0; b < t->n_buckets; b++) {
		assert_int_equal(flow_bucket(t, b)->n_displaced, n_displaced[b]);
		assert_int_equal(filters[b] & ~flow_bucket(t, b)->filter, 0);
		assert_true(n_displaced[b] > 0 || flow_bucket(t, b)->filter == 0);
	}
	for (uint32_t i = 0; i < t->capacity; i++) {
		bool live = t->records[i].state != FLOW_STATE_FREE;
		n_live += live;
		bool two = !(t->records[i].flags & FLOW_FLAG_BY_PORT);
		assert_int_equal(sides[i], !live ? 0 : two ? 3 : 1);
	}
	assert_int_equal(n_live, t->n_flows);
	for (uint32_t b = 0; b < flow_n_blocks(t->capacity); b++) {
		uint32_t n_yielding = 0;
		for (uint32_t i = b * FLOW_BLOCK; i < t->capacity && i < (b + 1) * FLOW_BLOCK; i++)
			n_yielding += flow_state_yields(t->records[i].state);
		assert_int_equal(t->n_yielding[b], n_yielding);
		assert_int_equal(t->yielding[b / 64] >> b % 64 & 1, n_yielding > 0);
	}
	free(n_displaced);
	free(filters);
	free(sides);
}

// A word that says whose the second key of flow `id` is: the truth, another's, or what it says of a port that nobody has. Returns
// what a look-up should find by it.
static uint32_t rig_name(const struct rig *r, uint32_t id, uint32_t *out_word)
{
	static const uint32_t of_nobody[] = { 0, 7, 65535, 0x7fffffff, 0xffffffff };
	uint32_t other = r->twin[rng() % r->n_ids], mine = r->twin[id];
	switch (rng() % 4) {
	case 0:
		*out_word = of_nobody[rng() % ARRAY_SIZE(of_nobody)];
		return FLOW_NONE;
	case 1:
		*out_word = other == FLOW_NONE ? 0x80000000u + r->table.n_used : 1u << 31 | other;
		return other == mine ? mine : FLOW_NONE;
	default:
		*out_word = mine == FLOW_NONE ? 0x7fffffff : 1u << 31 | mine;
		return mine;
	}
}

// Both kinds of keys in one burst.
static void rig_check_burst(const struct rig *r)
{
	static struct flow_search search;
	uint32_t wanted[FLOW_BURST_MAX], words[FLOW_BURST_MAX];
	memset(&search, 0xee, sizeof(search));
	search.n = (uint32_t)(rng() % 65);
	search.n_named = (uint32_t)(rng() % (65 - search.n));
	for (uint32_t i = 0; i < FLOW_BURST_MAX; i++) {
		uint32_t id = (uint32_t)(rng() % r->n_ids);
		bool named = i >= FLOW_BURST_MAX - search.n_named;
		search.keys[i] = make_key(id, named ? FLOW_SIDE_BACKEND : FLOW_SIDE_CLIENT);
		search.names[i] = &words[i];
		wanted[i] = named ? rig_name(r, id, &words[i]) : r->twin[id];
	}
	flow_lookup_burst(&r->table, &search);
	for (uint32_t i = 0; i < FLOW_BURST_MAX; i++) {
		bool named = i >= FLOW_BURST_MAX - search.n_named;
		if (i >= search.n && !named)
			continue;
		assert_int_equal(search.idx[i], wanted[i]);
		if (named || wanted[i] != FLOW_NONE)
			assert_int_equal(search.side[i], named);
		if (!named)
			assert_int_equal(search.hashes[i], flow_hash(&r->table, &search.keys[i]));
	}
}

// Looks up random flows, present or not, one by one and in bulk with every variant.
static void rig_check_lookups(const struct rig *r)
{
	struct flow_key keys[64];
	uint64_t hashes[64], got_hashes[64];
	uint32_t wanted[64], idx[64];
	uint8_t wanted_side[64], side[64];
	uint32_t n = (uint32_t)(rng() % 65);
	for (uint32_t i = 0; i < n; i++) {
		uint32_t id = (uint32_t)(rng() % r->n_ids);
		wanted_side[i] = rng() & 1;
		keys[i] = make_key(id, wanted_side[i]);
		wanted[i] = wanted_side[i] && is_by_port(id) ? FLOW_NONE : r->twin[id];
		hashes[i] = flow_hash(&r->table, &keys[i]);
		uint8_t one_side = 9;
		assert_int_equal(flow_lookup(&r->table, &keys[i], &one_side), wanted[i]);
		if (wanted[i] != FLOW_NONE)
			assert_int_equal(one_side, wanted_side[i]);
	}
	for (uint32_t v = 0; v < ARRAY_SIZE(variants); v++) {
		if (flow_select_variant(variants[v]) == NULL)
			continue;
		memset(idx, 0xee, sizeof(idx));
		memset(got_hashes, 0xee, sizeof(got_hashes));
		flow_lookup_bulk(&r->table, keys, n, got_hashes, idx, side);
		assert_memory_equal(got_hashes, hashes, n * sizeof(hashes[0]));
		for (uint32_t i = 0; i < n; i++) {
			assert_int_equal(idx[i], wanted[i]);
			if (idx[i] != FLOW_NONE)
				assert_int_equal(side[i], wanted_side[i]);
		}
		rig_check_burst(r);
	}
}

static void run_against_twin(uint32_t capacity, uint32_t fill_percent, uint32_t n_ops)
{
	struct rig r;
	uint32_t target = (uint32_t)((uint64_t)capacity * fill_percent / 100);
	rig_start(&r, capacity, capacity * 3 + 8);
	for (uint32_t op = 0; op < n_ops; op++) {
		uint32_t id = (uint32_t)(rng() % r.n_ids);
		bool present = r.twin[id] != FLOW_NONE;
		// Below the target mostly adds; at the target one goes for each that comes.
		if (!present && r.table.n_flows < target)
			rig_add(&r, id);
		else if (present && (r.table.n_flows >= target || rng() % 4 == 0))
			rig_remove(&r, id);
		else if (!present && r.table.n_flows == capacity) {
			struct flow_record record = make_flow(id);
			assert_int_equal(flow_add(&r.table, &record), FLOW_NONE);
		}
		if (op % 8 == 0)
			rig_check_lookups(&r);
		if (op % 20000 == 0)
			check_invariants(&r.table);
	}
	check_invariants(&r.table);
	for (uint32_t id = 0; id < r.n_ids; id++)
		if (r.twin[id] != FLOW_NONE)
			rig_remove(&r, id);
	assert_int_equal(r.table.n_flows, 0);
	check_invariants(&r.table);
	rig_end(&r);
}

static void test_twin(void **state)
{
	rng_start("twin");
	run_against_twin(1, 100, 1000);
	run_against_twin(7, 100, 5000);
	run_against_twin(100, 100, 100000);
	run_against_twin(1000, 50, 100000);
	run_against_twin(1000, 90, 100000);
	run_against_twin(5000, 100, 100000);
	some_by_port = true;
	run_against_twin(7, 100, 5000);
	run_against_twin(1000, 100, 100000);
	some_by_port = false;
}

// Up to n flows that are, or are not, in the table, each once.
static uint32_t rig_pick(const struct rig *r, uint32_t n, bool present, uint32_t *ids)
{
	uint32_t n_got = 0, first = (uint32_t)(rng() % r->n_ids);
	for (uint32_t i = 0; i < r->n_ids && n_got < n; i++) {
		uint32_t id = (first + i * 7919) % r->n_ids; // a prime that divides no n_ids here
		if ((r->twin[id] != FLOW_NONE) == present)
			ids[n_got++] = id;
	}
	return n_got;
}

// As the data path adds and removes: in bursts, with hashes made before.
static void run_bursts(uint32_t capacity, uint32_t fill_percent, uint32_t n_bursts)
{
	struct rig r;
	uint32_t target = capacity * fill_percent / 100, ids[100], idx[100];
	rig_start(&r, capacity, capacity * 2);
	for (uint32_t b = 0; b < n_bursts; b++) {
		struct flow_key keys[64];
		uint64_t hashes[64];
		uint32_t room = target - r.table.n_flows;
		uint32_t n = rig_pick(&r, (uint32_t)(rng() % 33), false, ids);
		n = n < room ? n : room;
		for (uint32_t i = 0; i < 2 * n; i++)
			keys[i] = make_key(ids[i / 2], is_by_port(ids[i / 2]) ? 0 : i % 2);
		flow_hash_bulk(&r.table, keys, 2 * n, hashes);
		for (uint32_t i = 0; i < n; i++)
			flow_prefetch_room(&r.table, hashes[2 * i], hashes[2 * i + 1]);
		for (uint32_t i = 0; i < n; i++) {
			struct flow_record record = make_flow(ids[i]);
			r.twin[ids[i]] = flow_add_hashed(
				&r.table, &record, hashes[2 * i], hashes[2 * i + 1]);
			assert_int_not_equal(r.twin[ids[i]], FLOW_NONE);
		}
		rig_check_lookups(&r);
		n = rig_pick(
			&r, r.table.n_flows == target ? (uint32_t)(rng() % 100) : 0, true, ids);
		for (uint32_t i = 0; i < n; i++) {
			idx[i] = r.twin[ids[i]];
			r.twin[ids[i]] = FLOW_NONE;
		}
		flow_remove_bulk(&r.table, idx, n);
		rig_check_lookups(&r);
		if (b % 50 == 0)
			check_invariants(&r.table);
	}
	check_invariants(&r.table);
	rig_end(&r);
}

static void test_bursts(void **state)
{
	rng_start("bursts");
	run_bursts(64, 100, 500);
	run_bursts(1000, 75, 1000);
	run_bursts(3000, 100, 1000); // keys that lie elsewhere
	some_by_port = true;
	run_bursts(1000, 100, 1000);
	some_by_port = false;
}

static void test_hash_bulk(void **state)
{
	struct flow_key keys[64];
	uint64_t hashes[64], beyond = 0xeeeeeeeeeeeeeeee;
	struct rig r;
	rng_start("hash bulk");
	rig_start(&r, 10, 1);
	for (uint32_t v = 0; v < ARRAY_SIZE(variants); v++) {
		if (flow_select_variant(variants[v]) == NULL)
			continue;
		for (uint32_t n = 0; n <= 64; n++) {
			for (uint32_t i = 0; i < 64; i++)
				keys[i] = make_key((uint32_t)rng(), rng() & 1);
			memset(hashes, 0xee, sizeof(hashes));
			flow_hash_bulk(&r.table, keys, n, hashes);
			for (uint32_t i = 0; i < 64; i++)
				assert_int_equal(
					hashes[i], i < n ? flow_hash(&r.table, &keys[i]) : beyond);
		}
	}
	rig_end(&r);
}

static void test_flows_differ(void **state)
{
	// The other tests rely on one number, one flow.
	struct rig r;
	rig_start(&r, 60000, 60000);
	for (uint32_t id = 0; id < r.n_ids; id++)
		for (uint32_t side = 0; side < 2; side++) {
			struct flow_key key = make_key(id, side);
			uint8_t out_side;
			assert_int_equal(flow_lookup(&r.table, &key, &out_side), FLOW_NONE);
			if (side == 1)
				rig_add(&r, id);
		}
	rig_end(&r);
}

// Tables of many sizes take all that they promise.
static void test_full_capacity(void **state)
{
	for (uint32_t capacity = 1; capacity < 100000; capacity += 1 + capacity / 7) {
		struct rig r;
		rig_start(&r, capacity, capacity + 1);
		for (uint32_t id = 0; id < capacity; id++)
			rig_add(&r, id);
		struct flow_record extra = make_flow(capacity);
		assert_int_equal(flow_add(&r.table, &extra), FLOW_NONE);
		check_invariants(&r.table);
		rig_end(&r);
	}
}

static void test_memory(void **state)
{
	assert_true(flow_table_size(1000000) <= 80 * 1000000ull + 256);
	assert_true(flow_table_size(1) <= 256 + 64);
	assert_true(flow_table_size(FLOW_CAPACITY_MAX) <= 80ull * FLOW_CAPACITY_MAX + 256);
}

static void test_init_refused(void **state)
{
	struct flow_table t;
	size_t size = flow_table_size(10);
	char *mem = aligned_alloc(64, size + 64);
	assert_int_equal(flow_table_init(&t, mem, size, 0, &test_key), -EINVAL);
	assert_int_equal(
		flow_table_init(&t, mem, SIZE_MAX, FLOW_CAPACITY_MAX + 1, &test_key), -EINVAL);
	assert_int_equal(flow_table_init(&t, mem, size - 1, 10, &test_key), -EINVAL);
	assert_int_equal(flow_table_init(&t, mem + 8, size, 10, &test_key), -EINVAL);
	assert_int_equal(flow_table_init(&t, mem, size, 10, &test_key), 0);
	free(mem);
}

static void test_other_bucket(void **state)
{
	rng_start("other bucket");
	for (uint32_t i = 0; i < 200000; i++) {
		uint32_t n = (uint32_t)(2 + 2 * (rng() % (i % 2 ? 40 : 1u << 25)));
		uint32_t b = (uint32_t)(rng() % n);
		uint16_t tag = (uint16_t)(rng() | 1);
		uint32_t other = flow_other_bucket(n, b, tag);
		assert_true(other < n && other != b);
		assert_int_equal(flow_other_bucket(n, other, tag), b);
	}
}

// A record whose two keys hash as asked: client ports and slots are tried until they do.
struct crafted {
	uint32_t b; // bucket of the client key
	uint16_t tag;
};

static struct flow_record craft(const struct flow_table *t, struct crafted want, uint32_t *from)
{
	for (;; ++*from) {
		struct flow_record r = make_flow(0);
		r.client = address_from_v4(rte_cpu_to_be_32(*from));
		r.vip_slot = 77;
		struct flow_key key = flow_client_key(&r);
		uint64_t hash = flow_hash(t, &key);
		if (flow_tag(hash) != want.tag || flow_primary_bucket(t, hash) != want.b)
			continue;
		r.snat_slot = 1000; // backend keys differ, and lie anywhere
		r.snat_port = (rte_be16_t)*from;
		r.backend = address_from_v4(*from);
		++*from;
		return r;
	}
}

static struct flow_record swap_sides(struct flow_record r)
{
	struct flow_record s = r;
	s.client = r.backend;
	s.backend = r.client;
	s.client_port = r.backend_port;
	s.backend_port = r.client_port;
	s.vip_port = r.snat_port;
	s.snat_port = r.vip_port;
	s.vip_slot = r.snat_slot;
	s.snat_slot = r.vip_slot;
	return s;
}

// Equal tags in equal buckets: only the full compare tells keys apart, and room can run out for them
// although the table is nearly empty.
static void run_same_tag(bool swapped)
{
	enum { N = 24 };
	struct rig r;
	struct flow_record flows[N];
	struct flow_key keys[64];
	uint64_t hashes[64];
	uint32_t idx[64], added[N], from = 1;
	uint8_t side[64];
	rig_start(&r, 60, 1); // 16 buckets
	struct crafted want = { .b = 5, .tag = 0x1235 };
	uint32_t n_added = 0;
	for (uint32_t i = 0; i < N; i++) {
		flows[i] = craft(&r.table, want, &from);
		keys[i] = flow_client_key(&flows[i]);
		if (swapped)
			flows[i] = swap_sides(flows[i]);
	}
	for (uint32_t i = 0; i < N; i++) {
		added[i] = flow_add(&r.table, &flows[i]);
		n_added += added[i] != FLOW_NONE;
		check_invariants(&r.table);
	}
	// Two buckets of ten slots, minus what backend keys took of them.
	assert_in_range(n_added, 10, 20);
	assert_int_equal(r.table.n_flows, n_added);
	for (uint32_t v = 0; v < ARRAY_SIZE(variants); v++) {
		if (flow_select_variant(variants[v]) == NULL)
			continue;
		flow_lookup_bulk(&r.table, keys, N, hashes, idx, side);
		assert_memory_equal(idx, added, sizeof(added));
	}
	// One leaves: the next one fits.
	uint32_t gone = 0;
	while (added[gone] == FLOW_NONE)
		gone++;
	flow_remove(&r.table, added[gone]);
	uint8_t out_side;
	assert_int_equal(flow_lookup(&r.table, &keys[gone], &out_side), FLOW_NONE);
	assert_int_not_equal(flow_add(&r.table, &flows[N - 1]), FLOW_NONE);
	check_invariants(&r.table);
	rig_end(&r);
}

static void test_same_tag(void **state)
{
	run_same_tag(false);
	run_same_tag(true); // it is the second key that finds no room: the first one must go again
}

// Every byte of the key counts.
static void test_compare(void **state)
{
	struct flow_record a = make_flow(8);
	const struct flow_table t = { .records = &a };
	for (uint32_t side = 0; side < 2; side++) {
		struct flow_key key = side ? flow_backend_key(&a) : flow_client_key(&a);
		uint32_t entry = flow_entry_make(0, side);
		assert_true(flow_entry_matches(&t, entry, &key));
		assert_false(flow_entry_matches(&t, flow_entry_make(0, !side), &key));
		for (size_t at = 0; at < offsetof(struct flow_key, zero); at++)
			for (uint32_t bit = 0; bit < 8; bit++) {
				struct flow_key other = key;
				((uint8_t *)&other)[at] ^= (uint8_t)(1u << bit);
				assert_false(flow_entry_matches(&t, entry, &other));
			}
	}
}

static void test_select_variant(void **state)
{
	assert_string_equal(flow_select_variant("scalar"), "scalar");
	assert_null(flow_select_variant("mmx"));
	const char *best = flow_select_variant(NULL);
	assert_non_null(best);
	assert_string_equal(flow_select_variant(best), best);
	print_message("fastest here: %s\n", best);
}

// ---------------------------------------------------------------- adoption

static void rig_fill(struct rig *r, uint32_t n_flows)
{
	while (r->table.n_flows < n_flows) {
		uint32_t id = (uint32_t)(rng() % r->n_ids);
		if (r->twin[id] == FLOW_NONE)
			rig_add(r, id);
		else if (rng() % 3 == 0)
			rig_remove(r, id);
	}
}

static void test_adopt(void **state)
{
	rng_start("adopt");
	for (uint32_t round = 0; round < 8; round++) {
		struct rig r;
		uint32_t capacity = 50 + round * 97;
		rig_start(&r, capacity, capacity * 2);
		rig_fill(&r, round == 0 ? 0 : round == 7 ? capacity : capacity * round / 8);
		if (round % 2)
			flow_table_close(&r.table);
		void *copy = aligned_alloc(64, r.size);
		memcpy(copy, r.mem, r.size);
		memset(r.mem, 0xdd, r.size); // nothing may point back
		uint32_t n_flows = r.table.n_flows;
		struct error err = { 0 };
		struct flow_table t;
		assert_int_equal(flow_table_adopt(&t, copy, r.size, &err), 0);
		assert_int_equal(err.n_items, 0);
		assert_int_equal(t.n_flows, n_flows);
		assert_int_equal(t.was_clean, round % 2);
		free(r.mem);
		r.mem = copy;
		r.table = t;
		check_invariants(&r.table);
		for (uint32_t i = 0; i < 50; i++)
			rig_check_lookups(&r);
		rig_fill(&r, capacity);
		check_invariants(&r.table);
		rig_end(&r);
	}
}

static void test_adopt_refused(void **state)
{
	struct rig r;
	struct flow_table t, before;
	rig_start(&r, 40, 80);
	memset(&t, 0x77, sizeof(t));
	before = t;
	struct flow_table_header good = *r.table.header;
	static const struct {
		size_t offset;
		const char *text;
	} cases[] = {
		{ offsetof(struct flow_table_header, magic), "not a flow table" },
		{ offsetof(struct flow_table_header, format), "format" },
		{ offsetof(struct flow_table_header, capacity), "capacity" },
		{ offsetof(struct flow_table_header, size_bytes), "header says" },
		{ offsetof(struct flow_table_header, n_buckets), "capacity" },
	};
	for (uint32_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct error err = { 0 };
		char text[256];
		((uint8_t *)r.mem)[cases[i].offset] ^= 4;
		assert_int_equal(flow_table_adopt(&t, r.mem, r.size, &err), -EINVAL);
		assert_int_equal(err.n_items, 1);
		assert_non_null(strstr(error_first(&err, text, sizeof(text)), cases[i].text));
		assert_memory_equal(&t, &before, sizeof(t));
		error_fini(&err);
		*r.table.header = good;
	}
	assert_int_equal(flow_table_adopt(&t, r.mem, r.size - 1, NULL), -EINVAL);
	assert_int_equal(flow_table_adopt(&t, r.mem, 63, NULL), -EINVAL);
	assert_int_equal(flow_table_adopt(&t, r.mem, 0, NULL), -EINVAL);
	assert_int_equal(flow_table_adopt(&t, (char *)r.mem + 32, r.size - 32, NULL), -EINVAL);
	assert_int_equal(flow_table_adopt(&t, r.mem, r.size, NULL), 0);
	rig_end(&r);
}

// A writer that died within a change, and records that cannot be: gone; the others stay.
static void test_adopt_repairs(void **state)
{
	struct rig r;
	struct flow_table t;
	rig_start(&r, 40, 80);
	for (uint32_t id = 0; id < 30; id++)
		rig_add(&r, id);
	struct flow_record *records = r.table.records;
	flow_write_begin(&records[r.twin[3]]);                    // torn
	records[r.twin[5]].state = FLOW_STATE_MAX;                // no state
	records[r.twin[4]].protocol = NET_PROTO_UDP;              // TCP state
	records[r.twin[6]].protocol = NET_PROTO_ICMP;             // not a flow
	records[r.twin[8]] = records[r.twin[7]];                  // twice
	records[r.twin[10]].client = records[r.twin[10]].backend; // one key for both sides:
	records[r.twin[10]].client_port = records[r.twin[10]].backend_port;
	records[r.twin[10]].vip_port = records[r.twin[10]].snat_port;
	records[r.twin[10]].vip_slot = records[r.twin[10]].snat_slot;
	records[r.twin[11]].nexthop_client = 12345;
	records[r.twin[12]].protocol = NET_PROTO_SCTP; // has TCP's states
	assert_int_equal(flow_table_adopt(&t, r.mem, r.size, NULL), 0);
	r.table = t;
	assert_int_equal(t.n_flows, 24);
	check_invariants(&t);
	for (uint32_t id = 0; id < 30; id++) {
		bool gone = (id >= 3 && id <= 6) || id == 10 || id == 7 || id == 8;
		for (uint32_t side = 0; side < 2; side++) {
			struct flow_key key = make_key(id, side);
			uint8_t out_side;
			uint32_t idx = flow_lookup(&t, &key, &out_side);
			if (id == 7 || id == 8 || id == 12)
				continue; // one of the two stays; has another key now
			assert_int_equal(idx, gone ? FLOW_NONE : r.twin[id]);
		}
	}
	assert_int_equal(t.records[r.twin[12]].protocol, NET_PROTO_SCTP);
	assert_int_equal(t.records[r.twin[11]].nexthop_client, UINT16_MAX);
	assert_int_equal(t.records[r.twin[11]].nexthop_backend, UINT16_MAX);
	rig_end(&r);
}

// Any image: refused, or a table that holds together and works.
static void test_adopt_corrupted(void **state)
{
	rng_start("corrupted");
	struct rig r;
	rig_start(&r, 64, 128);
	rig_fill(&r, 60);
	uint8_t *image = aligned_alloc(64, r.size);
	uint32_t n_taken = 0;
	for (uint32_t round = 0; round < 4000; round++) {
		memcpy(image, r.mem, r.size);
		uint32_t n_flips = (uint32_t)(1 + rng() % (round % 3 == 0 ? 400 : 8));
		// Half of the rounds leave the header alone, or it would hide the rest.
		size_t first = round % 2 ? 64 : 0;
		for (uint32_t i = 0; i < n_flips; i++)
			image[first + rng() % (r.size - first)] ^= (uint8_t)(1u << rng() % 8);
		if (round % 16 == 0)
			for (size_t i = 64; i < r.size; i++)
				image[i] = (uint8_t)rng();
		struct rig got = { .mem = image, .n_ids = 4, .size = r.size };
		if (flow_table_adopt(&got.table, image, r.size, NULL) != 0)
			continue;
		n_taken++;
		check_invariants(&got.table);
		for (uint32_t id = 1000; got.table.n_flows < got.table.capacity; id++) {
			struct flow_record record = make_flow(id);
			if (flow_add(&got.table, &record) == FLOW_NONE)
				break;
		}
		for (uint32_t i = 0; i < got.table.capacity; i++)
			if (got.table.records[i].state != FLOW_STATE_FREE)
				flow_remove(&got.table, i);
		check_invariants(&got.table);
	}
	assert_true(n_taken > 2000);
	free(image);
	rig_end(&r);
}

// ---------------------------------------------------------------- ageing

static const uint8_t all_states[] = { FLOW_STATE_SYN_SENT, FLOW_STATE_SYN_RECEIVED,
	FLOW_STATE_ESTABLISHED, FLOW_STATE_FIN_CLIENT, FLOW_STATE_FIN_BACKEND, FLOW_STATE_CLOSING,
	FLOW_STATE_CLOSED, FLOW_STATE_UDP_ONEWAY, FLOW_STATE_UDP_TWOWAY };

static void test_policy(void **state)
{
	struct flow_policy p = flow_policy_make(900, 60);
	assert_int_equal(p.idle_s[FLOW_STATE_SYN_SENT], 10);
	assert_int_equal(p.idle_s[FLOW_STATE_SYN_RECEIVED], 10);
	assert_int_equal(p.idle_s[FLOW_STATE_ESTABLISHED], 900);
	assert_int_equal(p.idle_s[FLOW_STATE_FIN_CLIENT], 60);
	assert_int_equal(p.idle_s[FLOW_STATE_FIN_BACKEND], 60);
	assert_int_equal(p.idle_s[FLOW_STATE_CLOSING], 20);
	assert_int_equal(p.idle_s[FLOW_STATE_CLOSED], 5);
	assert_int_equal(p.idle_s[FLOW_STATE_UDP_ONEWAY], 10);
	assert_int_equal(p.idle_s[FLOW_STATE_UDP_TWOWAY], 60);
	p = flow_policy_make(30, 4);
	assert_int_equal(p.idle_s[FLOW_STATE_FIN_CLIENT], 30);
	assert_int_equal(p.idle_s[FLOW_STATE_UDP_ONEWAY], 4);
	p = flow_policy_make(UINT32_MAX, UINT32_MAX);
	assert_int_equal(p.idle_s[FLOW_STATE_ESTABLISHED], FLOW_IDLE_MAX_S);
	assert_int_equal(p.idle_s[FLOW_STATE_UDP_TWOWAY], FLOW_IDLE_MAX_S);
}

// Expired exactly after the timeout and for good, wherever the clock stands.
static void test_expiry_and_wrap(void **state)
{
	struct flow_policy policies[2] = { flow_policy_make(900, 60), flow_policy_make(30, 5) };
	static const uint32_t stamps[] = { 0, 1, 1000, UINT32_MAX - 700, UINT32_MAX - 3,
		UINT32_MAX };
	for (uint32_t s = 0; s < ARRAY_SIZE(all_states); s++)
		for (uint32_t k = 0; k < ARRAY_SIZE(stamps); k++)
			for (uint8_t p = 0; p < 2; p++) {
				struct flow_record r = {
					.state = all_states[s], .policy = p, .stamp_s = stamps[k]
				};
				uint32_t idle_s = policies[p].idle_s[r.state], at = r.stamp_s;
				assert_false(flow_is_expired(&r, policies, at));
				assert_false(flow_is_expired(&r, policies, at + idle_s));
				assert_true(flow_is_expired(&r, policies, at + idle_s + 1));
				assert_true(flow_is_expired(&r, policies, at + (1u << 31)));
				assert_true(flow_is_expired(&r, policies, at - 1));
			}
}

// Slices of any length find every expired flow once, and nothing else, across the wrap of the clock.
static void test_sweep(void **state)
{
	rng_start("sweep");
	struct flow_policy policies[1] = { flow_policy_make(900, 60) };
	for (uint32_t round = 0; round < 20; round++) {
		struct rig r;
		rig_start(&r, 300, 600);
		rig_fill(&r, round * 15);
		uint32_t now_s = round % 2 ? 200u : 5000000u, n_expired = 0;
		uint8_t expected[300] = { 0 };
		for (uint32_t i = 0; i < 300; i++) {
			struct flow_record *f = &r.table.records[i];
			if (f->state == FLOW_STATE_FREE)
				continue;
			flow_set_state(&r.table, i, all_states[rng() % ARRAY_SIZE(all_states)]);
			f->stamp_s = now_s - (uint32_t)(rng() % 1200);
			uint32_t idle_s = now_s - f->stamp_s;
			expected[i] = idle_s > policies[0].idle_s[f->state];
			n_expired += expected[i];
		}
		uint32_t out[300], n_got = 0;
		while (r.table.n_sweeps == 0) {
			uint32_t max = (uint32_t)(1 + rng() % 40);
			struct flow_slice slice = { max, (uint32_t)(rng() % (max + 1)), 7 };
			uint32_t first = r.table.sweep_next;
			uint32_t n = flow_sweep(&r.table, policies, now_s, &slice, out);
			assert_true(n <= slice.max_expired);
			// It ends early only before one more.
			if (r.table.n_sweeps == 0 && r.table.sweep_next < first + max) {
				assert_int_equal(n, slice.max_expired);
				assert_int_equal(expected[r.table.sweep_next], 1);
			}
			for (uint32_t i = 0; i < n; i++) {
				assert_int_equal(expected[out[i]], 1);
				expected[out[i]] = 2;
				flow_remove(&r.table, out[i]);
			}
			n_got += n;
		}
		assert_int_equal(n_got, n_expired);
		check_invariants(&r.table);
		rig_end(&r);
	}
}

static void test_sweep_passes(void **state)
{
	struct flow_policy policies[1] = { flow_policy_make(900, 60) };
	static const struct flow_slice slices[] = { { 0, 0, 0 }, { 64, 64, 0 } };
	struct rig r;
	uint32_t out[64];
	rig_start(&r, 100, 100);
	assert_int_equal(flow_sweep(&r.table, policies, 0, &slices[0 / 64], out), 0);
	assert_int_equal(r.table.n_sweeps, 0);
	assert_int_equal(flow_sweep(&r.table, policies, 0, &slices[64 / 64], out), 0);
	assert_int_equal(r.table.n_sweeps, 1); // also over an empty table
	for (uint32_t id = 0; id < 100; id++)
		rig_add(&r, id);
	for (uint32_t k = 0; k < 6; k++) { // 64 + 36 records a pass
		assert_int_equal(flow_sweep(&r.table, policies, 0, &slices[64 / 64], out), 0);
		assert_int_equal(r.table.n_sweeps, 1 + (k + 1) / 2);
	}
	// A table that was full and is empty again: free records are nobody's expired flow.
	for (uint32_t id = 0; id < 100; id++)
		rig_remove(&r, id);
	static const struct flow_policy zero;
	assert_int_equal(flow_sweep(&r.table, &zero, 99999, &slices[64 / 64], out), 0);
	assert_int_equal(flow_victim(&r.table, &zero, 99999), FLOW_NONE);
	rig_end(&r);
}

// ---------------------------------------------------------------- copies

static void test_copy(void **state)
{
	struct rig r;
	struct flow_record copy;
	rig_start(&r, 10, 10);
	assert_false(flow_copy(&r.table, 0, &copy));
	rig_add(&r, 4);
	assert_true(flow_copy(&r.table, r.twin[4], &copy));
	assert_memory_equal(&copy, &r.table.records[r.twin[4]], sizeof(copy));
	assert_false(flow_copy(&r.table, 10, &copy));
	assert_false(flow_copy(&r.table, FLOW_NONE, &copy));
	flow_write_begin(&r.table.records[r.twin[4]]);
	assert_false(flow_copy(&r.table, r.twin[4], &copy));
	flow_write_end(&r.table.records[r.twin[4]]);
	assert_true(flow_copy(&r.table, r.twin[4], &copy));
	rig_remove(&r, 4);
	assert_false(flow_copy(&r.table, 0, &copy));
	rig_end(&r);
}

struct racer {
	struct flow_table *table;
	bool stop;
};

// Two flows take turns in one record.
static void *racer_run(void *arg)
{
	struct racer *racer = arg;
	struct flow_record a = make_flow(8), b = make_flow(11);
	for (uint32_t i = 0; !__atomic_load_n(&racer->stop, __ATOMIC_RELAXED); i++) {
		uint32_t idx = flow_add(racer->table, i % 2 ? &a : &b);
		assert_int_equal(idx, 0);
		flow_remove(racer->table, idx);
	}
	return NULL;
}

static void test_copy_while_written(void **state)
{
	struct rig r;
	rig_start(&r, 1, 1);
	struct racer racer = { .table = &r.table };
	struct flow_record flows[2] = { make_flow(8), make_flow(11) }, copy;
	pthread_t thread;
	assert_int_equal(pthread_create(&thread, NULL, racer_run, &racer), 0);
	uint32_t n_seen = 0;
	for (uint32_t tries = 0; tries < 200000; tries++) {
		if (!flow_copy(&r.table, 0, &copy))
			continue;
		n_seen++;
		const struct flow_record *whole = &flows[copy.backend_id == 11];
		assert_memory_equal(&copy, whole, offsetof(struct flow_record, sequence));
	}
	__atomic_store_n(&racer.stop, true, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	print_message("%u whole copies\n", n_seen);
	rig_end(&r);
}

static void test_names(void **state)
{
	for (uint32_t a = 0; a < FLOW_STATE_MAX; a++)
		for (uint32_t b = 0; b < a; b++)
			assert_string_not_equal(flow_state_name(a), flow_state_name(b));
	assert_string_equal(flow_state_name(FLOW_STATE_SYN_SENT), "syn-sent");
	assert_string_equal(flow_state_name(FLOW_STATE_MAX), "unknown");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_flows_differ),
		cmocka_unit_test(test_twin),
		cmocka_unit_test(test_bursts),
		cmocka_unit_test(test_hash_bulk),
		cmocka_unit_test(test_full_capacity),
		cmocka_unit_test(test_memory),
		cmocka_unit_test(test_init_refused),
		cmocka_unit_test(test_other_bucket),
		cmocka_unit_test(test_same_tag),
		cmocka_unit_test(test_compare),
		cmocka_unit_test(test_select_variant),
		cmocka_unit_test(test_adopt),
		cmocka_unit_test(test_adopt_refused),
		cmocka_unit_test(test_adopt_repairs),
		cmocka_unit_test(test_adopt_corrupted),
		cmocka_unit_test(test_policy),
		cmocka_unit_test(test_expiry_and_wrap),
		cmocka_unit_test(test_sweep),
		cmocka_unit_test(test_sweep_passes),
		cmocka_unit_test(test_copy),
		cmocka_unit_test(test_copy_while_written),
		cmocka_unit_test(test_names),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
