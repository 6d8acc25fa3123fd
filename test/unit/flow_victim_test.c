// SPDX-License-Identifier: BSD-3-Clause
// Who gives way when there is no room, against a naive twin that looks at every record.
#include "flow.h"
#include "flow_priv.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#define SEED 0x5eedc0deull

static uint64_t rng_state;
static const struct hash_key test_key = { { 0x0123456789abcdefull, 0xfedcba9876543210ull } };
static const uint8_t all_states[] = { FLOW_STATE_SYN_SENT, FLOW_STATE_SYN_RECEIVED,
	FLOW_STATE_ESTABLISHED, FLOW_STATE_FIN_CLIENT, FLOW_STATE_FIN_BACKEND, FLOW_STATE_CLOSING,
	FLOW_STATE_CLOSED, FLOW_STATE_UDP_ONEWAY, FLOW_STATE_UDP_TWOWAY };

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

static uint8_t random_state(void)
{
	return all_states[rng() % ARRAY_SIZE(all_states)];
}

struct rig {
	void *mem;
	struct flow_table table;
	struct flow_policy policies[1];
	uint32_t n_made; // flows ever added: each has a number of its own in its keys
};

static void rig_start(struct rig *r, uint32_t capacity)
{
	size_t size = flow_table_size(capacity);
	r->mem = aligned_alloc(64, size);
	memset(r->mem, 0xa5, size);
	assert_int_equal(flow_table_init(&r->table, r->mem, size, capacity, &test_key), 0);
	r->policies[0] = flow_policy_make(900, 60);
	r->n_made = 0;
}

static void rig_end(struct rig *r)
{
	free(r->mem);
}

static uint32_t rig_add(struct rig *r, uint8_t state, uint32_t stamp_s)
{
	uint32_t id = r->n_made++;
	struct flow_record record = { .client = address_from_v4(rte_cpu_to_be_32(id)),
		.backend = address_from_v4(RTE_BE32(0x0b000001)),
		.vip_port = RTE_BE16(80),
		.backend_port = RTE_BE16(8080),
		.snat_port = (rte_be16_t)id,
		.snat_slot = (uint16_t)(1 + (id >> 16)),
		.protocol = NET_PROTO_TCP,
		.state = state,
		.backend_id = id & FLOW_BACKEND_ID_MAX,
		.stamp_s = stamp_s };
	return flow_add(&r->table, &record);
}

static void rig_fill(struct rig *r, uint8_t state, uint32_t stamp_s)
{
	while (r->table.n_flows < r->table.capacity)
		assert_int_not_equal(rig_add(r, state, stamp_s), FLOW_NONE);
}

// A new flow the way the pipeline makes one. False: refused.
static bool rig_force(struct rig *r, uint8_t state, uint32_t now_s)
{
	if (r->table.n_flows == r->table.capacity) {
		uint32_t victim = flow_victim(&r->table, r->policies, now_s);
		if (victim == FLOW_NONE)
			return false;
		flow_remove(&r->table, victim);
	}
	return rig_add(r, state, now_s) != FLOW_NONE;
}

static void sweep_all_by(struct rig *r, uint32_t now_s, uint32_t max_records)
{
	uint32_t out[FLOW_BLOCK];
	uint64_t n_sweeps = r->table.n_sweeps;
	const struct flow_slice slice = { max_records, max_records, 0 };
	while (r->table.n_sweeps == n_sweeps)
		flow_sweep(&r->table, r->policies, now_s, &slice, out);
}

static void sweep_all(struct rig *r, uint32_t now_s)
{
	sweep_all_by(r, now_s, FLOW_BLOCK);
}

// Order in which flows may give way, written down independently: smaller goes first, 0 = never.
static uint32_t naive_rank(uint8_t state, uint32_t idle_s, uint32_t timeout_s)
{
	if (idle_s > timeout_s)
		return 1;
	if (state == FLOW_STATE_SYN_SENT || state == FLOW_STATE_SYN_RECEIVED ||
		state == FLOW_STATE_UDP_ONEWAY)
		return 2;
	if (state == FLOW_STATE_CLOSING || state == FLOW_STATE_CLOSED)
		return 3;
	uint32_t long_s = state == FLOW_STATE_ESTABLISHED  ? 60
			  : state == FLOW_STATE_UDP_TWOWAY ? 30
							   : 15;
	return idle_s >= long_s ? 4 : 0;
}

static uint32_t rank_of(const struct rig *r, uint32_t idx, uint32_t now_s)
{
	const struct flow_record *f = flow_record(&r->table, idx);
	return naive_rank(f->state, now_s - f->stamp_s, r->policies[0].idle_s[f->state]);
}

// One block, so that all flows are compared: rank, then the longest idle; nothing else ever.
static void test_order(void **state)
{
	rng_start("order");
	uint32_t now_s = 100, n_none = 0, n_ranks[5] = { 0 }; // stamps reach back across the wrap
	for (uint32_t round = 0; round < 6000; round++) {
		struct rig r;
		uint32_t n = (uint32_t)(1 + rng() % (round % 3 ? 3 : 12)), best = UINT32_MAX,
			 best_idle_s = 0;
		static const uint32_t spans[] = { 3, 20, 100, 1000 };
		rig_start(&r, FLOW_BLOCK);
		for (uint32_t i = 0; i < n; i++)
			rig_add(&r, random_state(), now_s - (uint32_t)(rng() % spans[round % 4]));
		for (uint32_t i = 0; i < n; i++) {
			uint32_t rank = rank_of(&r, i, now_s);
			uint32_t idle_s = now_s - flow_record(&r.table, i)->stamp_s;
			if (rank == 0 || rank > best)
				continue;
			best_idle_s = rank == best && idle_s < best_idle_s ? best_idle_s : idle_s;
			best = rank;
		}
		sweep_all(&r, now_s); // learns who is idle
		uint32_t victim = flow_victim(&r.table, r.policies, now_s);
		if (victim == FLOW_NONE) {
			assert_int_equal(best, UINT32_MAX);
			n_none++;
		} else {
			uint32_t idle_s = now_s - flow_record(&r.table, victim)->stamp_s;
			uint32_t rank = rank_of(&r, victim, now_s);
			// Gone is gone: such flows are not compared any further.
			bool gone = rank == 2 && idle_s >= 3;
			assert_true(gone || rank == best);
			assert_true(gone || best == 1 || idle_s == best_idle_s);
			n_ranks[best]++;
		}
		rig_end(&r);
	}
	assert_true(n_none > 100);
	for (uint32_t rank = 1; rank < ARRAY_SIZE(n_ranks); rank++)
		assert_true(n_ranks[rank] > 100);
}

static void check_hints(const struct rig *r)
{
	const struct flow_table *t = &r->table;
	for (uint32_t b = 0; b < flow_n_blocks(t->capacity); b++) {
		uint32_t n = 0;
		for (uint32_t i = b * FLOW_BLOCK; i < t->capacity && i < (b + 1) * FLOW_BLOCK; i++)
			n += flow_state_yields(t->records[i].state);
		assert_int_equal(t->n_yielding[b], n);
		assert_int_equal(t->yielding[b / 64] >> b % 64 & 1, n > 0);
	}
}

// Whatever happens to flows, the hints say what the records say; so a victim is found exactly when there is one.
static void test_hints(void **state)
{
	rng_start("hints");
	struct rig r;
	rig_start(&r, 5000); // not a whole number of blocks, more than one word of them
	uint32_t n_found = 0, n_none = 0;
	for (uint32_t step = 0; step < 60000; step++) {
		uint32_t idx = (uint32_t)(rng() % r.table.capacity), out[40];
		bool live = flow_record(&r.table, idx)->state != FLOW_STATE_FREE;
		bool mostly_active = step / 10000 % 2;
		switch (rng() % 4) {
		case 0:
			rig_add(&r, random_state(), 1000);
			break;
		case 1:
			if (live)
				flow_remove(&r.table, idx);
			break;
		case 2:
			flow_sweep(&r.table, r.policies, 1000,
				&(struct flow_slice){
					(uint32_t)(1 + rng() % 40), (uint32_t)(rng() % 40), 0 },
				out);
			break;
		default:
			if (live)
				flow_set_state(&r.table, idx,
					mostly_active ? FLOW_STATE_ESTABLISHED : random_state());
		}
		if (step % 500 == 0)
			check_hints(&r);
	}
	for (uint32_t i = 0; i < 5000; i++)
		if (flow_record(&r.table, i)->state != FLOW_STATE_FREE)
			flow_set_state(&r.table, i, FLOW_STATE_ESTABLISHED);
	for (uint32_t round = 0; round < 2000; round++) {
		uint32_t idx = (uint32_t)(rng() % 5000);
		bool some = round % 2 && flow_record(&r.table, idx)->state != FLOW_STATE_FREE;
		if (some)
			flow_set_state(&r.table, idx, FLOW_STATE_CLOSED);
		uint32_t victim = flow_victim(&r.table, r.policies, 1000);
		assert_int_equal(victim, some ? idx : FLOW_NONE);
		if (some)
			flow_set_state(&r.table, idx, FLOW_STATE_ESTABLISHED);
		n_found += some;
		n_none += !some;
	}
	assert_true(n_found > 400 && n_none > 400);
	rig_end(&r);
}

// A full table in which one flow in twenty yields: each of as many new flows and more finds room at the first attempt,
// wherever those flows lie, and nobody who is being used is lost.
static void run_share(bool clustered, uint32_t percent)
{
	const uint32_t capacity = 100000, now_s = 500;
	struct rig r;
	rig_start(&r, capacity);
	rig_fill(&r, FLOW_STATE_ESTABLISHED, now_s - 1);
	uint32_t n_yielding = capacity / 100 * percent;
	uint8_t *active = calloc(capacity, 1);
	for (uint32_t n = 0; n < n_yielding;) {
		uint32_t idx = clustered ? capacity - 1 - n : (uint32_t)(rng() % capacity);
		if (flow_record(&r.table, idx)->state != FLOW_STATE_ESTABLISHED)
			continue;
		flow_set_state(&r.table, idx, FLOW_STATE_SYN_SENT);
		n++;
	}
	for (uint32_t i = 0; i < capacity; i++)
		active[i] = flow_record(&r.table, i)->state == FLOW_STATE_ESTABLISHED;
	// Half of the newcomers are confirmed and stay: then there are only half as many to take.
	for (uint32_t k = 0; k < n_yielding * 3 / 2; k++) {
		bool stays = k % 2 == 0 && k < n_yielding / 2;
		assert_true(
			rig_force(&r, stays ? FLOW_STATE_ESTABLISHED : FLOW_STATE_SYN_SENT, now_s));
	}
	for (uint32_t i = 0; i < capacity; i++)
		if (active[i]) {
			assert_int_equal(flow_record(&r.table, i)->state, FLOW_STATE_ESTABLISHED);
			assert_int_equal(flow_record(&r.table, i)->backend_id, i);
		}
	assert_int_equal(r.table.n_flows, capacity);
	check_hints(&r);
	free(active);
	rig_end(&r);
}

static void test_share(void **state)
{
	rng_start("share");
	for (uint32_t percent = 5; percent <= 10; percent += 5) {
		run_share(false, percent);
		run_share(true, percent);
	}
}

// Confirmed flows give way only when nothing else does, only after long silence, as the sweep saw it.
static void test_idle(void **state)
{
	const uint32_t capacity = 1000;
	struct rig r;
	rig_start(&r, capacity);
	rig_fill(&r, FLOW_STATE_ESTABLISHED, 100);
	for (uint32_t i = 0; i < capacity; i++) // one in ten was used since
		flow_record(&r.table, i)->stamp_s = i % 10 ? 100 : 150;
	sweep_all(&r, 159);
	assert_int_equal(flow_victim(&r.table, r.policies, 159), FLOW_NONE); // not idle for 60 s
	assert_int_equal(flow_victim(&r.table, r.policies, 160), FLOW_NONE); // no sweep saw it yet
	sweep_all(&r, 160);
	flow_set_state(&r.table, 77, FLOW_STATE_CLOSING);
	assert_int_equal(flow_victim(&r.table, r.policies, 160), 77);
	assert_true(rig_force(&r, FLOW_STATE_ESTABLISHED, 160));
	for (uint32_t k = 0; k < 899; k++) // 77 was one of the idle
		assert_true(rig_force(&r, FLOW_STATE_ESTABLISHED, 160));
	for (uint32_t k = 0; k < 100; k++) // those in use stay, also when nobody else is left
		assert_false(rig_force(&r, FLOW_STATE_ESTABLISHED, 160));
	for (uint32_t i = 0; i < capacity; i += 10)
		assert_int_equal(flow_record(&r.table, i)->backend_id, i);
	rig_end(&r);
}

// States written past flow_set_state make hints wrong; visits and the sweep put them right.
static void test_wrong_hints(void **state)
{
	struct rig r;
	rig_start(&r, 1000);
	rig_fill(&r, FLOW_STATE_SYN_SENT, 10);
	for (uint32_t i = 0; i < 1000; i++)
		flow_record(&r.table, i)->state = FLOW_STATE_ESTABLISHED;
	for (uint32_t k = 0; k < 4; k++) // four blocks a call
		assert_int_equal(flow_victim(&r.table, r.policies, 10), FLOW_NONE);
	check_hints(&r);
	flow_record(&r.table, 999)->state = FLOW_STATE_SYN_SENT;
	assert_int_equal(flow_victim(&r.table, r.policies, 10), FLOW_NONE);
	sweep_all(&r, 10);
	check_hints(&r);
	assert_int_equal(flow_victim(&r.table, r.policies, 10), 999);
	rig_end(&r);
}

static void test_among(void **state)
{
	rng_start("among");
	struct rig r;
	uint32_t now_s = 300;
	rig_start(&r, 256);
	for (uint32_t i = 0; i < 200; i++)
		rig_add(&r, random_state(), now_s - (uint32_t)(rng() % 120));
	uint32_t n_none = 0;
	for (uint32_t round = 0; round < 5000; round++) {
		uint32_t candidates[16], n = (uint32_t)(rng() % 17) / (1 + round % 4);
		uint32_t best = UINT32_MAX, best_idle_s = 0;
		for (uint32_t k = 0; k < n; k++) {
			candidates[k] = rng() % 8 ? (uint32_t)(rng() % 300) : FLOW_NONE;
			if (candidates[k] >= 200)
				continue;
			uint32_t rank = rank_of(&r, candidates[k], now_s);
			uint32_t idle_s = now_s - flow_record(&r.table, candidates[k])->stamp_s;
			if (rank == 0 || rank == 4 || rank > best)
				continue;
			best_idle_s = rank == best && idle_s < best_idle_s ? best_idle_s : idle_s;
			best = rank;
		}
		uint32_t victim = flow_victim_among(&r.table, r.policies, now_s, candidates, n);
		if (best == UINT32_MAX) {
			assert_int_equal(victim, FLOW_NONE);
			n_none++;
			continue;
		}
		assert_int_equal(rank_of(&r, victim, now_s), best);
		assert_int_equal(now_s - flow_record(&r.table, victim)->stamp_s, best_idle_s);
	}
	assert_true(n_none > 100);
	rig_end(&r);
}

// Every block has its turn, also the last, short one, in tables of any size.
static void test_turns(void **state)
{
	static const uint32_t capacities[] = { 1, 63, 64, 65, 128, 200, 4096, 4097, 9000 };
	for (uint32_t c = 0; c < ARRAY_SIZE(capacities); c++) {
		struct rig r;
		rig_start(&r, capacities[c]);
		assert_int_equal(flow_victim(&r.table, r.policies, 5), FLOW_NONE); // empty
		rig_fill(&r, FLOW_STATE_UDP_ONEWAY, 5);
		uint32_t n_blocks = flow_n_blocks(capacities[c]);
		for (uint32_t k = 0; k < 3 * n_blocks; k++) {
			uint32_t victim = flow_victim(&r.table, r.policies, 5);
			assert_int_equal(victim / FLOW_BLOCK, k % n_blocks);
		}
		rig_end(&r);
	}
}

// Several at once: the one that flow_victim would give, then others that are as near to their end, each once; never a
// confirmed flow in use, and of those merely idle only one.
static void test_several(void **state)
{
	enum { N = 4 * FLOW_BLOCK, NOW = 1000, ROUNDS = 2000 };
	uint32_t victims[FLOW_BLOCK];
	rng_start("several");
	for (uint32_t round = 0; round < ROUNDS; round++) {
		struct rig r;
		rig_start(&r, N);
		while (r.table.n_flows < N)
			rig_add(&r, random_state(), NOW - (uint32_t)(rng() % 20));
		struct flow_table copy = r.table; // its hand: both look from the same place
		uint32_t first = flow_victim(&copy, r.policies, NOW);
		uint32_t n_max = 1 + (uint32_t)(rng() % FLOW_BLOCK);
		uint32_t n = flow_victims(&r.table, r.policies, NOW, n_max, victims);
		assert_in_range(n, first != FLOW_NONE, n_max);
		for (uint32_t k = 0; k < n; k++) {
			const struct flow_record *v = flow_record(&r.table, victims[k]);
			const struct flow_record *f = flow_record(&r.table, first);
			assert_int_equal(victims[k] / FLOW_BLOCK, first / FLOW_BLOCK);
			assert_int_equal(naive_rank(v->state, NOW - v->stamp_s,
						 r.policies[0].idle_s[v->state]),
				naive_rank(f->state, NOW - f->stamp_s,
					r.policies[0].idle_s[f->state]));
			assert_true(NOW - v->stamp_s + 1 >= NOW - f->stamp_s);
			for (uint32_t j = 0; j < k; j++)
				assert_int_not_equal(victims[k], victims[j]);
		}
		assert_true(n == 0 || victims[0] == first);
		rig_end(&r);
	}
}

static void test_several_idle(void **state)
{
	struct rig r;
	uint32_t victims[16];
	rig_start(&r, FLOW_BLOCK);
	rig_fill(&r, FLOW_STATE_ESTABLISHED, 0);
	sweep_all(&r, 100); // idle for longer than 60 s
	assert_int_equal(flow_victims(&r.table, r.policies, 100, 16, victims), 1);
	rig_end(&r);
	rig_start(&r, FLOW_BLOCK);
	rig_fill(&r, FLOW_STATE_ESTABLISHED, 100);
	sweep_all(&r, 100);
	assert_int_equal(flow_victims(&r.table, r.policies, 100, 16, victims), 0);
	rig_end(&r);
}

// A worker's slices are shorter than a block: what is idle is known all the same, wherever slices begin and end.
static void test_idle_by_slices(void **state)
{
	for (uint32_t max = 1; max < 2 * FLOW_BLOCK; max += 13) {
		struct rig r;
		uint32_t n_gone = 0;
		rig_start(&r, 5 * FLOW_BLOCK - 7);
		rig_fill(&r, FLOW_STATE_ESTABLISHED, 0);
		sweep_all_by(&r, 50, max);
		assert_int_equal(flow_victim(&r.table, r.policies, 100),
			FLOW_NONE); // not yet, as far as is known
		sweep_all_by(&r, 100, max);
		for (uint32_t idx; (idx = flow_victim(&r.table, r.policies, 100)) != FLOW_NONE;
			n_gone++)
			flow_remove(&r.table, idx);
		assert_int_equal(n_gone, 5 * FLOW_BLOCK - 7);
		rig_end(&r);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_several),
		cmocka_unit_test(test_several_idle),
		cmocka_unit_test(test_order),
		cmocka_unit_test(test_hints),
		cmocka_unit_test(test_share),
		cmocka_unit_test(test_idle),
		cmocka_unit_test(test_idle_by_slices),
		cmocka_unit_test(test_wrong_hints),
		cmocka_unit_test(test_among),
		cmocka_unit_test(test_turns),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
