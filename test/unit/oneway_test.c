// SPDX-License-Identifier: BSD-3-Clause
// The one-way table against its twin: keys, states, room, copies. Time and adoption are in oneway_time_test.c.
#include "oneway_rig_priv.h"

static void run_against_twin(struct oneway_capacity capacity, uint32_t n_ids, uint32_t n_ops)
{
	struct rig r;
	rig_start(&r, capacity, n_ids);
	for (uint32_t op = 0; op < n_ops; op++) {
		uint32_t id = (uint32_t)(rng() % n_ids);
		uint64_t dice = rng() % 16;
		if (!r.twins[id].present)
			rig_add(&r, id, random_state(id));
		else if (dice == 0)
			rig_remove(&r, id);
		else
			rig_change(&r, id, rig_find(&r, id));
		if (dice == 1)
			rig_advance(&r, random_step_s());
		if (dice == 2)
			rig_sweep(&r, (uint32_t)(rng() % 65));
		if (op % 8 == 0)
			rig_check_lookups(&r);
		if (op % 997 == 0)
			check_table(&r.table, &r);
		if (op % 5000 == 4999) {
			rig_policies(&r);
			for (uint32_t i = 0; i < n_ids; i++)
				rig_note_coarse(&r, i);
			for (uint32_t k = 0; k < 2; k++)
				r.table.families[k].budget =
					rng() % 2 ? UINT32_MAX : (uint32_t)(rng() % n_ids);
		}
		if (op % 1501 == 0)
			rig_pass(&r);
	}
	check_table(&r.table, &r);
	for (uint32_t id = 0; id < n_ids; id++)
		if (r.twins[id].present)
			rig_remove(&r, id);
	check_table(&r.table, &r);
	rig_end(&r);
}

static void test_twin(void **state)
{
	rng_start("twin");
	run_against_twin((struct oneway_capacity){ 0, 0 }, 60, 20000);
	run_against_twin((struct oneway_capacity){ 20, 20 }, 60, 40000);
	run_against_twin((struct oneway_capacity){ 300, 300 }, 500, 40000);
	run_against_twin((struct oneway_capacity){ 1000, 500 }, 3000, 60000);
}

static void test_keys_differ(void **state)
{
	// The other tests rely on one number, one key.
	struct rig r;
	rig_start(&r, (struct oneway_capacity){ 20000, 20000 }, 30000);
	for (uint32_t id = 0; id < r.n_ids; id++) {
		assert_int_equal(rig_find(&r, id), ONEWAY_NONE);
		assert_int_not_equal(rig_add(&r, id, ONEWAY_AFFINITY), ONEWAY_NONE);
	}
	check_table(&r.table, &r);
	rig_end(&r);
}

// Every bit of the key counts; foreign protocols are never found, not even in a table of zeros.
static void test_compare(void **state)
{
	struct rig r;
	rig_start(&r, (struct oneway_capacity){ 4, 4 }, 12);
	for (uint32_t id = 0; id < 12; id++) {
		struct flow_key key = make_key(id);
		uint32_t ref = rig_add(&r, id, random_state(id));
		assert_int_not_equal(ref, ONEWAY_NONE);
		assert_int_equal(rig_find(&r, id), ref);
		for (size_t at = 0; at < offsetof(struct flow_key, zero); at++)
			for (uint32_t bit = 0; bit < 8; bit++) {
				struct flow_key other = key;
				((uint8_t *)&other)[at] ^= (uint8_t)(1u << bit);
				uint32_t line = ref >> 2;
				if (address_is_v4(&other.peer) == address_is_v4(&key.peer))
					assert_int_equal(oneway_match(&r.table, line, &other), 0);
			}
		rig_remove(&r, id);
	}
	for (uint32_t protocol = 0; protocol < 256; protocol++) {
		struct flow_key none = { .peer = address_from_v4(0),
			.protocol = (uint8_t)protocol };
		for (uint32_t v = 0; v < ARRAY_SIZE(variants); v++)
			if (oneway_select_variant(variants[v]) != NULL)
				assert_int_equal(oneway_lookup(&r.table, &none), ONEWAY_NONE);
	}
	rig_end(&r);
}

static void test_places(void **state)
{
	rng_start("places");
	for (uint32_t i = 0; i < 200000; i++) {
		struct oneway_family f = { .first_line = (uint32_t)(rng() % 1000),
			.n_lines = (uint32_t)(2 + 2 * (rng() % (i % 2 ? 4 : 1u << 26))) };
		uint64_t hash = rng();
		uint32_t home = oneway_home(&f, hash), other = oneway_other(&f, hash, home);
		assert_in_range(home, f.first_line, f.first_line + f.n_lines - 1);
		assert_in_range(other, f.first_line, f.first_line + f.n_lines - 1);
		assert_int_not_equal(home, other);
	}
}

static void test_memory(void **state)
{
	struct oneway_capacity v4 = { 1000000, 0 }, v6 = { 0, 1000000 };
	assert_true(oneway_size(v4) <= 24 * 1000000ull);
	assert_true(oneway_size(v6) <= 42 * 1000000ull + 512);
	struct oneway_capacity max = { ONEWAY_CAPACITY_MAX, ONEWAY_CAPACITY_MAX };
	assert_true(oneway_size(max) / 64 * 4 < ONEWAY_NONE);
}

static void test_init_refused(void **state)
{
	struct oneway_table t;
	struct oneway_capacity capacity = { 10, 10 };
	size_t size = oneway_size(capacity);
	char *mem = aligned_alloc(64, size + 64);
	capacity.v4 = ONEWAY_CAPACITY_MAX + 1;
	assert_int_equal(oneway_init(&t, mem, SIZE_MAX, capacity, &test_key), -EINVAL);
	capacity = (struct oneway_capacity){ 10, ONEWAY_CAPACITY_MAX + 1 };
	assert_int_equal(oneway_init(&t, mem, SIZE_MAX, capacity, &test_key), -EINVAL);
	capacity.v6 = 10;
	assert_int_equal(oneway_init(&t, mem, size - 1, capacity, &test_key), -EINVAL);
	assert_int_equal(oneway_init(&t, mem + 8, size, capacity, &test_key), -EINVAL);
	assert_int_equal(oneway_init(&t, mem, size, capacity, &test_key), 0);
	free(mem);
}

static void test_select_variant(void **state)
{
	assert_string_equal(oneway_select_variant("scalar"), "scalar");
	assert_null(oneway_select_variant("mmx"));
	const char *best = oneway_select_variant(NULL);
	assert_non_null(best);
	assert_string_equal(oneway_select_variant(best), best);
	print_message("fastest here: %s\n", best);
}

// ---------------------------------------------------------------- states

// The rules in words, one by one.
static enum oneway_state naive_next(enum oneway_state s, uint8_t protocol, uint8_t flags)
{
	bool syn = flags & TCP_SYN, ack = flags & TCP_ACK;
	if (s == ONEWAY_AFFINITY)
		return s;
	if (protocol == NET_PROTO_UDP) {
		if (s == ONEWAY_FREE)
			return ONEWAY_UDP_FIRST;
		return s == ONEWAY_UDP_FIRST ? ONEWAY_UDP : s;
	}
	if (s == ONEWAY_UDP_FIRST || s == ONEWAY_UDP)
		return s; // not TCP
	if (flags & TCP_RST)
		return ONEWAY_CLOSED;
	if (syn)
		return s == ONEWAY_FREE || (!ack && (s == ONEWAY_FIN || s == ONEWAY_CLOSED))
			       ? ONEWAY_EMBRYONIC
			       : s;
	if (s == ONEWAY_CLOSED)
		return s;
	if (flags & TCP_FIN)
		return ONEWAY_FIN;
	if (s == ONEWAY_FREE)
		return ONEWAY_EMBRYONIC;
	return s == ONEWAY_EMBRYONIC && ack ? ONEWAY_ESTABLISHED : s;
}

static void test_next(void **state)
{
	static const uint8_t protocols[] = { NET_PROTO_TCP, NET_PROTO_UDP, NET_PROTO_SCTP };
	for (uint32_t s = 0; s < ONEWAY_STATE_MAX; s++)
		for (uint32_t p = 0; p < 3; p++)
			for (uint32_t flags = 0; flags < 256; flags++) {
				enum oneway_state next =
					oneway_next(s, protocols[p], (uint8_t)flags);
				assert_int_equal(next, naive_next(s, protocols[p], (uint8_t)flags));
				bool restart = (s == ONEWAY_FIN || s == ONEWAY_CLOSED) &&
					       next == ONEWAY_EMBRYONIC;
				assert_int_equal(oneway_is_restart(s, next), restart);
			}
	for (uint32_t a = 0; a < ONEWAY_STATE_MAX; a++)
		for (uint32_t b = 0; b < a; b++)
			assert_string_not_equal(oneway_state_name(a), oneway_state_name(b));
	assert_string_equal(oneway_state_name(ONEWAY_STATE_MAX), "unknown");
}

static void test_affinity_key(void **state)
{
	struct address client = address_from_v4(RTE_BE32(0x0a000001));
	struct flow_key a = oneway_affinity_key(&client, RTE_BE16(80), 3, NET_PROTO_TCP);
	struct flow_key b = flow_key_make(&client, RTE_BE16(80), 0, 3, NET_PROTO_TCP);
	assert_true(flow_key_equal(&a, &b));
}

// ---------------------------------------------------------------- pressure

// A table that is too small: nothing that must stay goes, the bound holds, most entries find room.
static void test_full(void **state)
{
	rng_start("full");
	struct rig r;
	uint32_t n_none[2] = { 0, 0 }, most_touched = 0, n_slots[2];
	rig_start(&r, (struct oneway_capacity){ 4000, 4000 }, 30000);
	for (uint32_t id = 0; id < r.n_ids; id++) {
		n_none[is_v6(id)] += rig_add(&r, id, ONEWAY_AFFINITY) == ONEWAY_NONE;
		if (r.table.n_touched > most_touched)
			most_touched = r.table.n_touched;
	}
	check_table(&r.table, &r);
	for (uint32_t k = 0; k < 2; k++) {
		n_slots[k] = r.table.families[k].n_lines * r.table.families[k].n_slots;
		assert_int_equal(n_none[k] + r.table.families[k].n_entries, 15000);
		print_message("%u of %u\n", r.table.families[k].n_entries, n_slots[k]);
	}
	assert_int_equal(r.table.n_evicted, 0);
	assert_int_equal(most_touched, ONEWAY_LINES_MAX - 1);
	assert_true(r.table.families[0].n_entries > n_slots[0] * 96 / 100);
	assert_true(r.table.families[1].n_entries > n_slots[1] * 86 / 100);
	rig_end(&r);
}

// Each line is looked at once: of two lines, both full, nobody can move.
static void test_full_two_lines(void **state)
{
	struct rig r;
	rig_start(&r, (struct oneway_capacity){ 0, 0 }, 200);
	for (uint32_t id = 0; id < r.n_ids; id++) {
		bool taken = rig_add(&r, id, ONEWAY_AFFINITY) != ONEWAY_NONE;
		assert_in_range(r.table.n_touched, 1, 2);
		assert_true(taken || r.n_present[is_v6(id)] == (is_v6(id) ? 4 : 8));
	}
	assert_int_equal(r.table.n_moves > 0 || r.n_present[0] == 8, 1);
	check_table(&r.table, &r);
	rig_end(&r);
}

// Up to its capacity a table refuses nothing of IPv4, and next to nothing of IPv6.
static void test_capacity(void **state)
{
	for (uint32_t capacity = 200; capacity < 60000; capacity += capacity / 3) {
		struct rig r;
		uint32_t n_none[2] = { 0, 0 };
		rig_start(&r, (struct oneway_capacity){ capacity, capacity }, capacity * 2);
		for (uint32_t id = 0; id < r.n_ids; id++)
			n_none[is_v6(id)] += rig_add(&r, id, ONEWAY_AFFINITY) == ONEWAY_NONE;
		assert_int_equal(n_none[0], 0);
		assert_true(n_none[1] <= capacity / 500);
		rig_end(&r);
	}
}

// What gives way, written down independently: smaller goes first, 0 never.
static uint32_t naive_rank(const struct rig *r, uint32_t id)
{
	static const uint8_t ranks[ONEWAY_STATE_MAX] = { [ONEWAY_EMBRYONIC] = 2,
		[ONEWAY_UDP_FIRST] = 2,
		[ONEWAY_CLOSED] = 3,
		[ONEWAY_FIN] = 4 };
	return r->now_s - r->twins[id].touched_s > naive_timeout_s(r, id)
		       ? 1
		       : ranks[r->twins[id].state];
}

// Two lines of one family, both full: the search sees all entries, so the best victim of all must go.
static void test_victim_order(void **state)
{
	rng_start("victims");
	uint32_t n_gone[5] = { 0 };
	for (uint32_t round = 0; round < 4000; round++) {
		struct rig r;
		rig_start(&r, (struct oneway_capacity){ 0, 0 }, 100);
		r.policies[0] = flow_policy_make(900, 60); // no coarse ones
		r.policies[1] = flow_policy_make(30, 5);
		for (uint32_t i = 0; i < 100; i++)
			r.backends[i] = (struct oneway_backend){ 500, (uint8_t)(rng() % 2) };
		uint32_t n_keep = (uint32_t)(rng() % 10), id = 0;
		while (r.n_present[0] < 8 || r.n_present[1] < 4) {
			rig_advance(&r, rng() % (round % 2 ? 4 : 200));
			rig_add(&r, id, rng() % 10 < n_keep ? ONEWAY_AFFINITY : random_state(id));
			if (++id == 100)
				break;
		}
		uint32_t best[2] = { 0 }, best_rank[2] = { 5, 5 };
		uint64_t oldest[2] = { 0 };
		for (uint32_t i = 0; i < id; i++) {
			uint32_t k = is_v6(i), rank = r.twins[i].present ? naive_rank(&r, i) : 0;
			if (rank == 0 || rank > best_rank[k] ||
				(rank == best_rank[k] && r.twins[i].touched_s >= oldest[k]))
				continue;
			best[k] = i;
			best_rank[k] = rank;
			oldest[k] = r.twins[i].touched_s;
		}
		uint32_t k = is_v6(id);
		if (id < 100 && r.n_present[0] == 8 && r.n_present[1] == 4) {
			struct twin was = r.twins[best[k]];
			uint32_t ref = rig_add(&r, id, ONEWAY_AFFINITY);
			n_gone[best_rank[k] % 5]++;
			assert_int_equal(ref != ONEWAY_NONE, best_rank[k] != 5);
			if (ref != ONEWAY_NONE) {
				was.present = r.twins[best[k]].present;
				// Or one that is as old and as willing.
				bool equal = false;
				for (uint32_t i = 0; i < id; i++)
					equal |= !r.twins[i].present && is_v6(i) == k &&
						 r.twins[i].touched_s == was.touched_s;
				assert_true(!was.present || equal);
			}
		}
		rig_end(&r);
	}
	for (uint32_t rank = 0; rank < 5; rank++)
		assert_true(n_gone[rank] > 20);
}

static void test_budget(void **state)
{
	rng_start("budget");
	struct rig r;
	rig_start(&r, (struct oneway_capacity){ 1000, 1000 }, 3000);
	r.table.families[0].budget = 100;
	r.table.families[1].budget = 0;
	uint32_t n_none = 0;
	for (uint32_t id = 0; id < r.n_ids; id++) {
		bool flood = id >= 60 && id < 2000;
		uint32_t ref = rig_add(&r, id,
			flood && id % 3 != 1 ? ONEWAY_EMBRYONIC
			: flood              ? ONEWAY_UDP_FIRST
					     : ONEWAY_AFFINITY);
		assert_int_equal(is_v6(id) && ref != ONEWAY_NONE, 0);
		n_none += !is_v6(id) && ref == ONEWAY_NONE;
		assert_true(r.table.families[0].n_entries <= 100);
		if (id == 59)
			assert_int_equal(r.n_present[0], 30);
	}
	assert_int_equal(r.table.families[0].n_entries, 100);
	for (uint32_t id = 0; id < 60; id++)
		assert_int_equal(r.twins[id].present, !is_v6(id));
	assert_true(r.table.n_evicted > 500 && n_none > 100);
	check_table(&r.table, &r);
	rig_end(&r);
}

// ---------------------------------------------------------------- copies

static void test_copy(void **state)
{
	rng_start("copy");
	struct rig r;
	struct oneway_entry copy;
	rig_start(&r, (struct oneway_capacity){ 200, 200 }, 300);
	rig_fill(&r, 600);
	uint32_t n = 0;
	for (uint32_t ref = 0; ref < oneway_n_positions(&r.table) + 8; ref++) {
		if (!oneway_copy(&r.table, ref, &copy))
			continue;
		n++;
		struct flow_key key = make_key(copy.backend_id);
		assert_memory_equal(&copy.key, &key, sizeof(key));
		assert_int_equal(rig_find(&r, copy.backend_id), ref);
		assert_int_equal(copy.state, r.twins[copy.backend_id].state);
		assert_int_equal(copy.idle_s, oneway_idle_s(&r.table, oneway_word(&r.table, ref)));
	}
	assert_int_equal(n, r.n_present[0] + r.n_present[1]);
	assert_false(oneway_copy(&r.table, ONEWAY_NONE, &copy));
	rig_end(&r);
}

struct racer {
	struct rig *rig;
	uint32_t ids[2];
	bool stop;
};

// Two flows take turns in one position.
static void *racer_run(void *arg)
{
	struct racer *racer = arg;
	struct oneway_table *table = &racer->rig->table;
	uint64_t evicted;
	for (uint32_t i = 0; !__atomic_load_n(&racer->stop, __ATOMIC_RELAXED); i++) {
		uint32_t id = racer->ids[i % 2];
		struct oneway_entry entry = {
			.key = make_key(id), .backend_id = id, .state = ONEWAY_AFFINITY
		};
		uint64_t hash = flow_key_hash(&table->schedule, &entry.key);
		uint32_t ref = oneway_add(table, hash, &entry, &racer->rig->timeouts, &evicted);
		oneway_touch(table, ref);
		oneway_remove(table, ref);
	}
	return NULL;
}

static void test_copy_while_written(void **state)
{
	for (uint32_t is6 = 0; is6 < 2; is6++) {
		struct rig r;
		struct oneway_entry copy;
		rig_start(&r, (struct oneway_capacity){ 0, 0 }, 2000);
		struct racer racer = { .rig = &r };
		uint32_t line = r.table.families[is6].first_line, n_seen = 0;
		racer.ids[0] = rig_id_at_home(&r, line, 0);
		racer.ids[1] = rig_id_at_home(&r, line, racer.ids[0] + 60);
		pthread_t thread;
		assert_int_equal(pthread_create(&thread, NULL, racer_run, &racer), 0);
		// IPv4: the moment that matters is two loads of one line.
		uint32_t n_tries = is6 ? 1000000 : 20000000;
		for (uint32_t tries = 0; tries < n_tries || n_seen < 100; tries++) {
			if (!oneway_copy(&r.table, oneway_ref(line, 0), &copy))
				continue;
			n_seen++;
			struct flow_key key = make_key(copy.backend_id);
			assert_memory_equal(&copy.key, &key, sizeof(key));
		}
		__atomic_store_n(&racer.stop, true, __ATOMIC_RELAXED);
		pthread_join(thread, NULL);
		print_message("%u whole copies\n", n_seen);
		rig_end(&r);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_twin),
		cmocka_unit_test(test_keys_differ),
		cmocka_unit_test(test_compare),
		cmocka_unit_test(test_places),
		cmocka_unit_test(test_memory),
		cmocka_unit_test(test_init_refused),
		cmocka_unit_test(test_select_variant),
		cmocka_unit_test(test_next),
		cmocka_unit_test(test_affinity_key),
		cmocka_unit_test(test_full),
		cmocka_unit_test(test_full_two_lines),
		cmocka_unit_test(test_capacity),
		cmocka_unit_test(test_victim_order),
		cmocka_unit_test(test_budget),
		cmocka_unit_test(test_copy),
		cmocka_unit_test(test_copy_while_written),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
