// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// The one-way table beside a naive twin: flows are made from numbers (one number, one key), the number is also the
// backend id, so that every word tells whose it is; the twin knows when each was last touched, in seconds
// that never wrap.
#include "oneway.h"
#include "oneway_priv.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#define SEED 0x0123eaa7ull

static uint64_t rng_state;

static inline uint64_t rng(void)
{
	rng_state += 0x9e3779b97f4a7c15ull;
	uint64_t z = (rng_state ^ (rng_state >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

static inline void rng_start(const char *name)
{
	rng_state = SEED;
	print_message("%s: seed %#llx\n", name, (unsigned long long)SEED);
}

static const char *const variants[] = { "scalar", "avx2" };
static const struct hash_key test_key = { { 0x0123456789abcdefull, 0xfedcba9876543210ull } };

// Key number `id`: numbers that differ give keys that differ in any one field.
static inline struct flow_key make_key(uint32_t id)
{
	static const uint8_t protocols[] = { NET_PROTO_TCP, NET_PROTO_UDP, NET_PROTO_SCTP };
	uint8_t protocol = protocols[id % 3];
	uint32_t n = id / 3;
	struct address client = address_from_v4(rte_cpu_to_be_32(0x0a000000u + n / 2 % 16));
	if (n % 2) {
		client = (struct address){ .bytes = { 0x20, 0x01 } };
		client.bytes[2 + n / 2 % 14] = (uint8_t)(1 + n / 28 % 8);
	}
	n /= n % 2 ? 28 * 8 : 32;
	return flow_key_make(&client, rte_cpu_to_be_16((uint16_t)(1000 + n % 8)),
		rte_cpu_to_be_16((uint16_t)(80 + n / 8 % 2)), (uint16_t)(n / 16), protocol);
}

// ---------------------------------------------------------------- rig and twin

#define N_POLICIES 6

struct twin {
	bool present;
	uint8_t state;
	bool may_be_coarse; // its timeout was long once
	uint64_t touched_s;
};

struct rig {
	size_t size;
	void *mem;
	struct oneway_table table;
	struct flow_policy policies[N_POLICIES];
	struct oneway_backend *backends; // [n_ids]
	struct oneway_timeouts timeouts;
	uint32_t n_ids;
	uint32_t n_present[2];
	struct twin *twins;
	uint64_t now_s;
};

static inline void rig_policies(struct rig *r)
{
	static const uint32_t tcp_idle_s[N_POLICIES] = { 900, 30, FLOW_IDLE_MAX_S, 40000, 86400,
		ONEWAY_FINE_MAX_S };
	for (uint32_t i = 0; i < N_POLICIES; i++)
		r->policies[i] = flow_policy_make(tcp_idle_s[i], tcp_idle_s[(i + 1) % N_POLICIES]);
	for (uint32_t id = 0; id < r->n_ids; id++) {
		r->backends[id].policy = (uint8_t)(rng() % N_POLICIES);
		r->backends[id].affinity_s = tcp_idle_s[rng() % N_POLICIES];
	}
}

static inline void rig_start(struct rig *r, struct oneway_capacity capacity, uint32_t n_ids)
{
	memset(r, 0, sizeof(*r));
	r->size = oneway_size(capacity);
	r->mem = aligned_alloc(64, r->size);
	memset(r->mem, 0xa5, r->size);
	assert_int_equal(oneway_init(&r->table, r->mem, r->size, capacity, &test_key), 0);
	r->n_ids = n_ids;
	r->twins = calloc(n_ids, sizeof(*r->twins));
	r->backends = calloc(n_ids, sizeof(*r->backends));
	rig_policies(r);
	r->timeouts = (struct oneway_timeouts){
		.backends = r->backends, .n_backends = n_ids, .policies = r->policies
	};
	r->now_s = (1ull << 32) - 1000000; // the 32-bit clock wraps on the way
	oneway_advance(&r->table, (uint32_t)r->now_s);
}

static inline void rig_end(struct rig *r)
{
	free(r->mem);
	free(r->twins);
	free(r->backends);
}

static inline void rig_advance(struct rig *r, uint64_t step_s)
{
	r->now_s += step_s;
	oneway_advance(&r->table, (uint32_t)r->now_s);
}

static inline uint32_t is_v6(uint32_t id)
{
	return id / 3 % 2;
}

// The timeout, written down independently.
static inline uint32_t naive_timeout_asked_s(const struct rig *r, uint32_t id)
{
	const struct flow_policy *p = &r->policies[r->backends[id].policy];
	switch (r->twins[id].state) {
	case ONEWAY_EMBRYONIC:
		return p->idle_s[FLOW_STATE_SYN_SENT];
	case ONEWAY_ESTABLISHED:
		return p->idle_s[FLOW_STATE_ESTABLISHED];
	case ONEWAY_FIN:
		return p->idle_s[FLOW_STATE_FIN_CLIENT];
	case ONEWAY_CLOSED:
		return p->idle_s[FLOW_STATE_CLOSED];
	case ONEWAY_AFFINITY:
		return r->backends[id].affinity_s;
	default:
		return p->idle_s[FLOW_STATE_UDP_TWOWAY];
	}
}

static inline uint32_t naive_timeout_s(const struct rig *r, uint32_t id)
{
	uint32_t asked_s = naive_timeout_asked_s(r, id);
	return asked_s > 7 * 86400 ? 7 * 86400 : asked_s;
}

// Entries whose timeout is long enough now may be coarse from now on.
static inline void rig_note_coarse(struct rig *r, uint32_t id)
{
	r->twins[id].may_be_coarse |= naive_timeout_s(r, id) > ONEWAY_FINE_MAX_S;
}

// How an entry stands to its timeout: -1 live, 1 expired, 0 so close to it that either will do: less than a coarse unit
// for each time that its stamp was made anew.
static inline int naive_expired(const struct rig *r, uint32_t id)
{
	uint64_t idle_s = r->now_s - r->twins[id].touched_s;
	if (idle_s > naive_timeout_s(r, id))
		return 1;
	return r->twins[id].may_be_coarse && idle_s + 64 > naive_timeout_s(r, id) ? 0 : -1;
}

static inline void rig_forget(struct rig *r, uint32_t id)
{
	assert_true(r->twins[id].present);
	r->twins[id].present = false;
	r->n_present[is_v6(id)]--;
}

static inline uint8_t random_state(uint32_t id)
{
	static const uint8_t tcp[] = { ONEWAY_EMBRYONIC, ONEWAY_ESTABLISHED, ONEWAY_ESTABLISHED,
		ONEWAY_FIN, ONEWAY_CLOSED, ONEWAY_AFFINITY };
	static const uint8_t udp[] = { ONEWAY_UDP_FIRST, ONEWAY_UDP, ONEWAY_AFFINITY };
	return id % 3 == 1 ? udp[rng() % 3] : tcp[rng() % 6];
}

// May the entry give way to another? Written down independently.
static inline bool naive_may_go(const struct rig *r, uint32_t id)
{
	uint8_t state = r->twins[id].state;
	return naive_expired(r, id) >= 0 || state == ONEWAY_EMBRYONIC || state == ONEWAY_CLOSED ||
	       state == ONEWAY_FIN || state == ONEWAY_UDP_FIRST;
}

// Is the entry's home full, and its other line, and is one of their entries expired?
static inline bool naive_has_expired_neighbour(const struct rig *r, const struct flow_key *key)
{
	const struct oneway_family *f = &r->table.families[!address_is_v4(&key->peer)];
	uint64_t hash = flow_key_hash(&r->table.schedule, key);
	uint32_t lines[2] = { oneway_home(f, hash) };
	bool expired = false;
	lines[1] = oneway_other(f, hash, lines[0]);
	for (uint32_t i = 0; i < 2 * f->n_slots; i++) {
		uint64_t word = oneway_words(&r->table, lines[i % 2])[i / 2];
		if (oneway_is_free(word))
			return false;
		expired |= naive_expired(r, oneway_backend_id(word)) > 0;
	}
	return expired;
}

static inline uint32_t rig_add(struct rig *r, uint32_t id, uint8_t state)
{
	struct oneway_entry entry = { .key = make_key(id), .backend_id = id, .state = state };
	uint64_t evicted = 42, hash = flow_key_hash(&r->table.schedule, &entry.key);
	uint64_t n_moves = r->table.n_moves, n_evicted = r->table.n_evicted;
	bool has_expired = naive_has_expired_neighbour(r, &entry.key);
	uint32_t ref = oneway_add(&r->table, hash, &entry, &r->timeouts, &evicted);
	assert_in_range(r->table.n_touched, 1, ONEWAY_LINES_MAX);
	assert_int_equal(r->table.n_evicted - n_evicted, evicted != 0);
	assert_true(r->table.n_moves - n_moves >= r->table.n_evicted - n_evicted);
	assert_true(!has_expired || evicted != 0);
	if (evicted != 0) {
		uint32_t gone = oneway_backend_id(evicted);
		assert_true(naive_may_go(r, gone));
		assert_true(!has_expired || naive_expired(r, gone) >= 0);
		assert_int_equal(oneway_state(evicted), r->twins[gone].state);
		rig_forget(r, gone);
	}
	if (ref == ONEWAY_NONE)
		return ref;
	r->twins[id] = (struct twin){ .present = true, .state = state, .touched_s = r->now_s };
	rig_note_coarse(r, id);
	r->n_present[is_v6(id)]++;
	return ref;
}

// The next id from `from` on, of a family, whose home is this line.
static inline uint32_t rig_id_at_home(const struct rig *r, uint32_t line, uint32_t from)
{
	for (uint32_t id = from;; id++) {
		struct flow_key key = make_key(id);
		const struct oneway_family *f = &r->table.families[is_v6(id)];
		if (oneway_home(f, flow_key_hash(&r->table.schedule, &key)) == line)
			return id;
	}
}

static inline uint32_t rig_find(const struct rig *r, uint32_t id)
{
	struct flow_key key = make_key(id);
	return oneway_lookup(&r->table, &key);
}

static inline void rig_remove(struct rig *r, uint32_t id)
{
	oneway_remove(&r->table, rig_find(r, id));
	rig_forget(r, id);
}

// Everything that oneway_priv.h states as an invariant, and the twin's view of every entry.
static inline void check_table(const struct oneway_table *t, const struct rig *r)
{
	uint32_t *n_displaced = calloc(t->n_lines, sizeof(uint32_t));
	uint16_t *filters = calloc(t->n_lines, sizeof(uint16_t));
	uint32_t n_entries[2] = { 0, 0 };
	for (uint32_t ref = 0; ref < oneway_n_positions(t); ref++) {
		uint32_t line = ref >> 2, is6 = oneway_line_is6(t, line);
		const struct oneway_family *f = &t->families[is6];
		uint64_t word = (ref & 3) < f->n_slots ? oneway_word(t, ref) : 0;
		if (oneway_is_free(word)) {
			assert_int_equal(word & ~ONEWAY_LINE_BITS, 0);
			continue;
		}
		struct flow_key key = oneway_key_at(t, line, ref & 3);
		uint64_t hash = flow_key_hash(&t->schedule, &key);
		uint32_t home = oneway_home(f, hash);
		n_entries[is6]++;
		assert_int_equal(address_is_v4(&key.peer), !is6);
		assert_int_equal(oneway_lookup(t, &key), ref); // and so nowhere else
		if (line != home) {
			assert_int_equal(line, oneway_other(f, hash, home));
			n_displaced[home]++;
			filters[home] |= (uint16_t)(1u << oneway_class(hash) % (is6 ? 16 : 4));
		}
		if (r == NULL)
			continue;
		uint32_t id = oneway_backend_id(word);
		struct flow_key wanted = make_key(id);
		assert_memory_equal(&key, &wanted, sizeof(key));
		assert_true(r->twins[id].present);
		assert_int_equal(oneway_state(word), r->twins[id].state);
		int expired = naive_expired(r, id);
		if (expired != 0)
			assert_int_equal(oneway_is_expired(t, word, &r->timeouts), expired > 0);
	}
	for (uint32_t line = 0; line < t->n_lines; line++) {
		assert_int_equal(oneway_n_displaced(t, line), n_displaced[line]);
		if (oneway_line_is6(t, line))
			assert_int_equal(oneway_line6(t, line)->sequence % 2, 0);
		for (uint32_t c = 0; c < 16; c++) {
			bool is6 = oneway_line_is6(t, line);
			bool set = is6 ? oneway_line6(t, line)->filter >> c & 1
				       : (oneway_words(t, line)[c % 4] & ONEWAY_FILTER_BIT) != 0;
			assert_true(set || !(filters[line] >> (is6 ? c : c % 4) & 1));
			assert_true(!set || n_displaced[line] > 0);
		}
	}
	for (uint32_t k = 0; k < 2; k++) {
		assert_int_equal(t->families[k].n_entries, n_entries[k]);
		if (r != NULL)
			assert_int_equal(r->n_present[k], n_entries[k]);
	}
	free(n_displaced);
	free(filters);
}

// Looks up random keys, present or not, in bulk with every variant.
static inline void rig_check_lookups(struct rig *r)
{
	struct flow_key keys[64];
	uint64_t hashes[64];
	uint32_t ids[64], refs[64];
	uint32_t n = (uint32_t)(rng() % 65);
	for (uint32_t i = 0; i < n; i++) {
		ids[i] = (uint32_t)(rng() % r->n_ids);
		keys[i] = make_key(ids[i]);
		hashes[i] = flow_key_hash(&r->table.schedule, &keys[i]);
	}
	for (uint32_t v = 0; v < ARRAY_SIZE(variants); v++) {
		if (oneway_select_variant(variants[v]) == NULL)
			continue;
		memset(refs, 0xee, sizeof(refs));
		oneway_lookup_bulk(&r->table, keys, hashes, n, refs);
		for (uint32_t i = 0; i < n; i++) {
			assert_int_equal(refs[i] != ONEWAY_NONE, r->twins[ids[i]].present);
			if (refs[i] == ONEWAY_NONE)
				continue;
			uint64_t word = oneway_word(&r->table, refs[i]);
			assert_int_equal(oneway_backend_id(word), ids[i]);
			assert_int_equal(oneway_state(word), r->twins[ids[i]].state);
		}
	}
}

static inline void rig_sweep(struct rig *r, uint32_t max_lines)
{
	uint64_t out[4 * 64];
	uint32_t n = oneway_sweep(&r->table, &r->timeouts, max_lines, out);
	assert_true(n <= 4 * max_lines);
	for (uint32_t i = 0; i < n; i++) {
		uint32_t id = oneway_backend_id(out[i]);
		assert_true(naive_expired(r, id) >= 0);
		assert_int_equal(oneway_state(out[i]), r->twins[id].state);
		rig_forget(r, id);
	}
}

static inline void rig_pass(struct rig *r)
{
	uint64_t until = r->table.n_sweeps + 2; // of which one begins now
	while (r->table.n_sweeps != until)
		rig_sweep(r, 64);
	for (uint32_t id = 0; id < r->n_ids; id++)
		if (r->twins[id].present)
			assert_true(naive_expired(r, id) <= 0);
}

static inline uint64_t random_step_s(void)
{
	switch (rng() % 40) {
	case 0:
		return rng() % 70000;
	case 1:
		return rng() % (3u << 20);
	case 2: // within a minute of where a stamp comes round
		return (1ull << (15 + rng() % 7)) - 30 + rng() % 60;
	default:
		return rng() % 200;
	}
}

static inline void rig_change(struct rig *r, uint32_t id, uint32_t ref)
{
	if (rng() % 3 == 0 || naive_expired(r, id) >= 0) {
		r->twins[id].state = random_state(id);
		r->twins[id].may_be_coarse = false;
		rig_note_coarse(r, id);
		oneway_set(&r->table, ref, id, r->twins[id].state, &r->timeouts);
	} else {
		oneway_touch(&r->table, ref);
	}
	r->twins[id].touched_s = r->now_s;
}

static inline void rig_fill(struct rig *r, uint32_t n_ops)
{
	for (uint32_t op = 0; op < n_ops; op++) {
		uint32_t id = (uint32_t)(rng() % r->n_ids);
		if (!r->twins[id].present)
			rig_add(r, id, random_state(id));
		else if (rng() % 3 == 0)
			rig_remove(r, id);
		if (op % 16 == 0)
			rig_advance(r, random_step_s());
	}
}
