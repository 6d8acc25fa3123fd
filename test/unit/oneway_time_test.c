// SPDX-License-Identifier: BSD-3-Clause
// The one-way table in virtual time and over what an earlier process left.
#include "oneway_rig_priv.h"

// ---------------------------------------------------------------- time

// One entry of each state and timeout that has not been touched for any time, with the clock moving in steps of any
// size, with or without the sweep: live until its timeout and never again.
static void run_idle(uint32_t policy, uint8_t entry_state, uint64_t step_s, bool sweep)
{
	struct rig r;
	rig_start(&r, (struct oneway_capacity){ 4, 4 }, 3);
	uint32_t id = entry_state == ONEWAY_UDP || entry_state == ONEWAY_UDP_FIRST ? 1 : 0;
	r.backends[id] = (struct oneway_backend){ .affinity_s = 10800, .policy = (uint8_t)policy };
	rig_advance(&r, rng() % 100000);
	uint32_t ref = rig_add(&r, id, entry_state);
	bool was_expired = false;
	for (uint64_t idle_s = 0; idle_s < 3u << 20; idle_s += step_s) {
		rig_advance(&r, step_s);
		int expired = naive_expired(&r, id);
		bool got = oneway_is_expired(&r.table, oneway_word(&r.table, ref), &r.timeouts);
		if (expired != 0)
			assert_int_equal(got, expired > 0);
		assert_true(got || !was_expired);
		was_expired = got;
		if (sweep)
			rig_sweep(&r, 64);
		if (!r.twins[id].present)
			break;
	}
	assert_true(was_expired);
	assert_int_equal(r.twins[id].present, !sweep);
	rig_end(&r);
}

static void test_idle_for_any_time(void **state)
{
	rng_start("idle");
	static const uint8_t states[] = { ONEWAY_EMBRYONIC, ONEWAY_ESTABLISHED, ONEWAY_FIN,
		ONEWAY_CLOSED, ONEWAY_UDP_FIRST, ONEWAY_UDP, ONEWAY_AFFINITY };
	static const uint64_t steps[] = { 13, 997, 32767, 32768, 32769, 65535, 65536, 65537, 131072,
		604800, 1048575, 1048576, 1048577 };
	for (uint32_t p = 0; p < N_POLICIES; p++)
		for (uint32_t s = 0; s < ARRAY_SIZE(states); s++)
			for (uint32_t k = 0; k < ARRAY_SIZE(steps); k++)
				run_idle(p, states[s], steps[k], rng() % 2);
}

// Exactly: fine entries to the second, coarse ones up to 15 s early and never late.
static void test_expiry(void **state)
{
	rng_start("expiry");
	static const uint32_t asked_s[] = { 5, 900, 32767, 32768, 32769, 86400, 604800,
		UINT32_MAX };
	for (uint32_t k = 0; k < ARRAY_SIZE(asked_s) * 40; k++) {
		struct rig r;
		uint32_t affinity_s = asked_s[k % ARRAY_SIZE(asked_s)];
		uint32_t timeout_s = affinity_s < FLOW_IDLE_MAX_S ? affinity_s : FLOW_IDLE_MAX_S;
		uint32_t slack_s = timeout_s > ONEWAY_FINE_MAX_S ? 15 : 0;
		rig_start(&r, (struct oneway_capacity){ 4, 4 }, 1);
		r.backends[0].affinity_s = affinity_s;
		rig_advance(&r, rng() % 2000000);
		uint32_t ref = rig_add(&r, 0, ONEWAY_AFFINITY);
		rig_advance(&r, timeout_s - slack_s);
		uint64_t word = oneway_word(&r.table, ref);
		assert_in_range(oneway_idle_s(&r.table, word), timeout_s - slack_s, timeout_s);
		assert_false(oneway_is_expired(&r.table, word, &r.timeouts));
		rig_sweep(&r, 64);
		assert_true(r.twins[0].present);
		rig_advance(&r, slack_s + 1);
		word = oneway_word(&r.table, ref);
		assert_true(oneway_is_expired(&r.table, word, &r.timeouts));
		rig_sweep(&r, 64);
		assert_false(r.twins[0].present);
		rig_end(&r);
	}
}

// A flow with a packet now and then lives for ever; the clock does not go back.
static void test_kept_alive(void **state)
{
	rng_start("kept alive");
	struct rig r;
	rig_start(&r, (struct oneway_capacity){ 4, 4 }, 1);
	for (uint32_t p = 0; p < N_POLICIES; p++) {
		r.backends[0].policy = (uint8_t)p;
		uint32_t ref = rig_add(&r, 0, ONEWAY_ESTABLISHED);
		for (uint32_t k = 0; k < 3000; k++) {
			uint32_t timeout_s = naive_timeout_s(&r, 0);
			rig_advance(&r, timeout_s - (timeout_s > ONEWAY_FINE_MAX_S ? 15 : 0));
			rig_sweep(&r, k % 5 ? 1 : 64);
			assert_true(r.twins[0].present);
			rig_change(&r, 0, ref);
			oneway_set(&r.table, ref, 0, ONEWAY_ESTABLISHED, &r.timeouts);
			r.twins[0].state = ONEWAY_ESTABLISHED;
			oneway_advance(&r.table, (uint32_t)r.now_s - 100);
			assert_int_equal(r.table.now_s, (uint32_t)r.now_s);
		}
		rig_remove(&r, 0);
	}
	rig_end(&r);
}

// An entry that is as old as it may be when a long pass sees it, and comes round after the pass.
static void test_slow_pass(void **state)
{
	struct rig r;
	rig_start(&r, (struct oneway_capacity){ 100, 100 }, 1000);
	uint32_t id = rig_id_at_home(&r, 0, 0);
	r.backends[id].affinity_s = ONEWAY_FINE_MAX_S;
	uint32_t ref = rig_add(&r, id, ONEWAY_AFFINITY);
	rig_advance(&r, ONEWAY_FINE_MAX_S - 8);
	rig_pass(&r); // dated
	rig_advance(&r, 6);
	rig_sweep(&r, 1); // this pass begins now, and sees the entry
	assert_true(r.twins[id].present);
	rig_advance(&r, ONEWAY_FINE_MAX_S - 30);
	uint64_t n_sweeps = r.table.n_sweeps;
	while (r.table.n_sweeps == n_sweeps)
		rig_sweep(&r, 1);
	rig_advance(&r, 100);
	uint64_t word = oneway_word(&r.table, ref);
	assert_true(r.now_s - r.twins[id].touched_s > 65536);
	assert_true(oneway_is_expired(&r.table, word, &r.timeouts));
	rig_end(&r);
}

// An entry that goes home past the sweep, from a line that the pass has yet to see to one that it has seen.
static void test_move_past_sweep(void **state)
{
	struct rig r;
	rig_start(&r, (struct oneway_capacity){ 100, 0 }, 30000);
	uint32_t ids[5], id = 0;
	for (uint32_t i = 0; i < 5; i++, id++) {
		ids[i] = id = rig_id_at_home(&r, 0, id);
		r.backends[id].affinity_s = ONEWAY_FINE_MAX_S;
		assert_int_not_equal(rig_add(&r, id, ONEWAY_AFFINITY), ONEWAY_NONE);
	}
	id = ids[4];
	assert_true(rig_find(&r, id) >> 2 > 0); // home was full
	rig_remove(&r, ids[0]);
	rig_advance(&r, ONEWAY_FINE_MAX_S - 8);
	rig_pass(&r);
	rig_advance(&r, ONEWAY_FINE_MAX_S - 1000);
	rig_sweep(&r, 1); // takes those at home
	struct flow_key key = make_key(id);
	uint64_t hash = flow_key_hash(&r.table.schedule, &key);
	uint32_t ref;
	oneway_lookup_bulk(&r.table, &key, &hash, 1, &ref);
	assert_int_equal(ref >> 2, 0);
	uint64_t n_sweeps = r.table.n_sweeps;
	while (r.table.n_sweeps == n_sweeps)
		rig_sweep(&r, 1);
	assert_true(r.twins[id].present);
	rig_advance(&r, 1100);
	assert_true(r.now_s - r.twins[id].touched_s > 65536);
	assert_true(oneway_is_expired(&r.table, oneway_word(&r.table, ref), &r.timeouts));
	rig_end(&r);
}

// A timeout that becomes long, or short again, while its entry idles.
static void test_timeout_changes(void **state)
{
	struct rig r;
	rig_start(&r, (struct oneway_capacity){ 4, 4 }, 1);
	for (uint32_t last_s = 1000; last_s <= FLOW_IDLE_MAX_S; last_s += FLOW_IDLE_MAX_S - 1000) {
		r.backends[0].affinity_s = 900;
		uint32_t ref = rig_add(&r, 0, ONEWAY_AFFINITY);
		rig_advance(&r, 800);
		r.backends[0].affinity_s = FLOW_IDLE_MAX_S;
		rig_note_coarse(&r, 0);
		uint32_t age_s = 800;
		for (; age_s + 3000 < last_s; age_s += 3000) {
			rig_advance(&r, 3000);
			rig_pass(&r);
			assert_true(r.twins[0].present);
			uint32_t idle_s = oneway_idle_s(&r.table, oneway_word(&r.table, ref));
			assert_in_range(idle_s, age_s + 3000, age_s + 3015);
		}
		rig_pass(&r);
		r.backends[0].affinity_s = last_s;
		rig_advance(&r, last_s - age_s - 40);
		rig_pass(&r);
		assert_true(r.twins[0].present);
		rig_advance(&r, 41);
		rig_pass(&r);
		assert_false(r.twins[0].present);
	}
	rig_end(&r);
}

// An entry that comes from elsewhere is as old as it was there, in whichever unit can tell.
static void test_set_idle(void **state)
{
	static const uint32_t ages_s[] = { 0, 1, 900, ONEWAY_FINE_MAX_S, ONEWAY_FINE_MAX_S + 1,
		500000, UINT32_MAX };
	struct rig r;
	rig_start(&r, (struct oneway_capacity){ 60, 60 }, 40);
	uint32_t n_coarse = 0, n = 0;
	for (uint32_t k = 0; k < 40 * ARRAY_SIZE(ages_s); k++) {
		uint32_t wanted_s = ages_s[k % ARRAY_SIZE(ages_s)];
		uint32_t age_s = wanted_s < ONEWAY_AGE_MAX_S ? wanted_s : ONEWAY_AGE_MAX_S;
		uint32_t id = k / ARRAY_SIZE(ages_s);
		uint32_t ref = rig_add(&r, id, ONEWAY_AFFINITY);
		bool coarse =
			(oneway_word(&r.table, ref) & ONEWAY_COARSE) || age_s > ONEWAY_FINE_MAX_S;
		oneway_set_idle(&r.table, ref, wanted_s);
		uint64_t word = oneway_word(&r.table, ref);
		assert_int_equal((word & ONEWAY_COARSE) != 0, coarse);
		assert_in_range(oneway_idle_s(&r.table, word), age_s, age_s + coarse * 15);
		assert_int_equal(oneway_backend_id(word), id);
		assert_int_equal(oneway_state(word), ONEWAY_AFFINITY);
		rig_remove(&r, id);
		n_coarse += coarse;
		n++;
	}
	assert_in_range(n_coarse, 40 * 3 + 1, n - 40); // by their timeouts too, and not all
	rig_end(&r);
}

static void test_sweep_passes(void **state)
{
	struct rig r;
	uint64_t out[64];
	rig_start(&r, (struct oneway_capacity){ 30, 30 }, 90);
	assert_int_equal(oneway_sweep(&r.table, &r.timeouts, 0, out), 0);
	assert_int_equal(r.table.n_sweeps, 0);
	assert_true(r.table.n_lines > 16);
	assert_int_equal(oneway_sweep(&r.table, &r.timeouts, 16, out), 0);
	assert_int_equal(r.table.n_sweeps, 1); // also over an empty table
	for (uint32_t id = 0; id < 40; id++)
		rig_add(&r, id, random_state(id));
	rig_advance(&r, FLOW_IDLE_MAX_S + 16);
	rig_pass(&r);
	assert_int_equal(r.n_present[0] + r.n_present[1], 0);
	check_table(&r.table, &r);
	rig_end(&r);
}

// ---------------------------------------------------------------- adoption

static void test_adopt(void **state)
{
	rng_start("adopt");
	for (uint32_t round = 0; round < 60; round++) {
		struct rig r;
		struct oneway_capacity capacity = { 50 + round * 7, 40 + round * 5 };
		rig_start(&r, capacity, 400);
		rig_fill(&r, round == 0 ? 0 : 600);
		if (round % 2)
			oneway_close(&r.table);
		void *copy = aligned_alloc(64, r.size);
		memcpy(copy, r.mem, r.size);
		memset(r.mem, 0xdd, r.size); // nothing may point back
		struct error err = { 0 };
		struct oneway_table t;
		uint64_t passed_s = round % 3 ? random_step_s() : 0;
		uint32_t now_s = (uint32_t)(r.now_s + passed_s);
		bool other_clock = round % 5 == 0;
		if (other_clock) // as old as they were
			now_s = (uint32_t)r.now_s - 1000000;
		assert_int_equal(oneway_adopt(&t, copy, r.size, now_s, &err), 0);
		assert_int_equal(err.n_items, 0);
		assert_int_equal(t.was_clean, round % 2);
		for (uint32_t id = 0; id < r.n_ids && other_clock; id++)
			r.twins[id].touched_s -= 1000000;
		r.now_s = other_clock ? r.now_s - 1000000 : r.now_s + passed_s;
		free(r.mem);
		r.mem = copy;
		r.table = t;
		check_table(&r.table, &r);
		for (uint32_t i = 0; i < 50; i++)
			rig_check_lookups(&r);
		rig_pass(&r);
		rig_fill(&r, 600);
		check_table(&r.table, &r);
		rig_end(&r);
	}
}

static void test_adopt_refused(void **state)
{
	struct rig r;
	struct oneway_table t, before;
	rig_start(&r, (struct oneway_capacity){ 40, 40 }, 80);
	memset(&t, 0x77, sizeof(t));
	before = t;
	struct oneway_header good = *r.table.header;
	static const struct {
		size_t offset;
		const char *text;
	} cases[] = {
		{ offsetof(struct oneway_header, magic), "not a one-way table" },
		{ offsetof(struct oneway_header, format), "format" },
		{ offsetof(struct oneway_header, capacity.v4) + 3, "not in" },
		{ offsetof(struct oneway_header, capacity.v6) + 3, "not in" },
		{ offsetof(struct oneway_header, capacity.v4), "header says" },
		{ offsetof(struct oneway_header, size_bytes), "header says" },
		{ offsetof(struct oneway_header, n_lines), "capacity" },
		{ offsetof(struct oneway_header, n_lines) + 4, "capacity" },
	};
	for (uint32_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct error err = { 0 };
		char text[256];
		((uint8_t *)r.mem)[cases[i].offset] ^= 0x24;
		assert_int_equal(oneway_adopt(&t, r.mem, r.size, 0, &err), -EINVAL);
		assert_int_equal(err.n_items, 1);
		assert_non_null(strstr(error_first(&err, text, sizeof(text)), cases[i].text));
		assert_memory_equal(&t, &before, sizeof(t));
		error_fini(&err);
		*r.table.header = good;
	}
	assert_int_equal(oneway_adopt(&t, r.mem, r.size - 1, 0, NULL), -EINVAL);
	assert_int_equal(oneway_adopt(&t, r.mem, 63, 0, NULL), -EINVAL);
	assert_int_equal(oneway_adopt(&t, r.mem, 0, 0, NULL), -EINVAL);
	assert_int_equal(oneway_adopt(&t, (char *)r.mem + 32, r.size - 32, 0, NULL), -EINVAL);
	assert_int_equal(oneway_adopt(&t, r.mem, r.size, 0, NULL), 0);
	rig_end(&r);
}

// A writer that died: within a new key, between the two halves of a displacement, and entries that cannot be.
static void test_adopt_repairs(void **state)
{
	struct rig r;
	struct oneway_table t;
	rng_start("repairs");
	rig_start(&r, (struct oneway_capacity){ 100, 100 }, 200);
	for (uint32_t id = 0; id < 120; id++)
		assert_int_not_equal(rig_add(&r, id, ONEWAY_AFFINITY), ONEWAY_NONE);
	for (uint32_t id = 0; id < 12; id++) {
		uint32_t ref = rig_find(&r, id), line = ref >> 2;
		uint64_t *at = oneway_word_at(&r.table, ref);
		switch (id) {
		case 0: // no state
			*at &= ~(7ull << ONEWAY_STATE_SHIFT);
			break;
		case 1: // UDP, with a state of TCP
			*at = (*at & ~(7ull << ONEWAY_STATE_SHIFT)) | (uint64_t)ONEWAY_FIN
									      << ONEWAY_STATE_SHIFT;
			break;
		case 2: // SCTP, with one of UDP
			*at = (*at & ~(7ull << ONEWAY_STATE_SHIFT)) | (uint64_t)ONEWAY_UDP
									      << ONEWAY_STATE_SHIFT;
			break;
		case 3: // IPv6: an address of IPv4
			oneway_line6(&r.table, line)->clients[ref & 3] = address_from_v4(77);
			break;
		case 4: // died in the middle of an IPv6 key
			*at &= ONEWAY_LINE_BITS;
			oneway_line6(&r.table, line)->sequence |= 1;
			break;
		case 6: // a key that does not belong here
			oneway_line4(&r.table, line)->keys[ref & 3] ^= 1ull << 40;
			break;
		default:
			continue;
		}
		r.twins[id].present = false;
		r.n_present[is_v6(id)]--;
	}
	// Entry 7 is also in its other line, where there is room: died while it was displaced.
	struct flow_key key = make_key(7);
	uint64_t hash = flow_key_hash(&r.table.schedule, &key);
	uint32_t home = oneway_home(&r.table.families[0], hash);
	uint32_t other = oneway_other(&r.table.families[0], hash, home), ref = rig_find(&r, 7);
	uint32_t to = ref >> 2 == home ? other : home, slot = 0;
	while (slot < 4 && !oneway_is_free(oneway_words(&r.table, to)[slot]))
		slot++;
	assert_in_range(slot, 0, 3);
	oneway_line4(&r.table, to)->keys[slot] = oneway_key4(&key);
	oneway_words(&r.table, to)[slot] |= oneway_word(&r.table, ref) & ~ONEWAY_LINE_BITS;
	assert_int_equal(oneway_adopt(&t, r.mem, r.size, (uint32_t)r.now_s, NULL), 0);
	r.table = t;
	check_table(&r.table, &r);
	assert_int_not_equal(rig_find(&r, 7), ONEWAY_NONE);
	assert_int_equal(r.n_present[0] + r.n_present[1], 114);
	rig_end(&r);
}

// Any image: refused, or a table that holds together and works.
static void test_adopt_corrupted(void **state)
{
	rng_start("corrupted");
	struct rig r;
	rig_start(&r, (struct oneway_capacity){ 40, 40 }, 80);
	rig_fill(&r, 300);
	uint8_t *image = aligned_alloc(64, r.size);
	uint32_t n_taken = 0, n_kept = 0;
	for (uint32_t round = 0; round < 3000; round++) {
		memcpy(image, r.mem, r.size);
		uint32_t n_flips = (uint32_t)(1 + rng() % (round % 3 == 0 ? 400 : 8));
		// Half of the rounds leave the header alone, or it would hide the rest.
		size_t first = round % 2 ? 64 : 0;
		for (uint32_t i = 0; i < n_flips; i++)
			image[first + rng() % (r.size - first)] ^= (uint8_t)(1u << rng() % 8);
		if (round % 16 == 0)
			for (size_t i = 64; i < r.size; i++)
				image[i] = (uint8_t)rng();
		struct oneway_table t;
		if (oneway_adopt(&t, image, r.size, (uint32_t)rng(), NULL) != 0)
			continue;
		n_taken++;
		check_table(&t, NULL);
		n_kept += t.families[0].n_entries + t.families[1].n_entries;
		uint64_t evicted, out[4 * 64];
		for (uint32_t id = 1000; id < 1100; id++) {
			struct oneway_entry entry = {
				.key = make_key(id), .backend_id = id, .state = random_state(id)
			};
			uint64_t hash = flow_key_hash(&t.schedule, &entry.key);
			if (oneway_lookup(&t, &entry.key) == ONEWAY_NONE)
				oneway_add(&t, hash, &entry, &r.timeouts, &evicted);
		}
		check_table(&t, NULL);
		oneway_advance(&t, t.now_s + FLOW_IDLE_MAX_S + 32);
		while (t.n_sweeps == 0)
			oneway_sweep(&t, &r.timeouts, 64, out);
		assert_int_equal(t.families[0].n_entries + t.families[1].n_entries, 0);
		check_table(&t, NULL);
	}
	assert_true(n_taken > 1500 && n_kept > 20000);
	free(image);
	rig_end(&r);
}
int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_idle_for_any_time),
		cmocka_unit_test(test_expiry),
		cmocka_unit_test(test_kept_alive),
		cmocka_unit_test(test_slow_pass),
		cmocka_unit_test(test_move_past_sweep),
		cmocka_unit_test(test_timeout_changes),
		cmocka_unit_test(test_set_idle),
		cmocka_unit_test(test_sweep_passes),
		cmocka_unit_test(test_adopt),
		cmocka_unit_test(test_adopt_refused),
		cmocka_unit_test(test_adopt_repairs),
		cmocka_unit_test(test_adopt_corrupted),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
