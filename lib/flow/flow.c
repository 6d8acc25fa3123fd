// SPDX-License-Identifier: BSD-3-Clause
// Hot path: no allocation, lock, log, system call.
//
// The table itself: lay out, add, remove. Look-ups are in lookup.c, time in ageing.c, who gives way in victim.c, attaching to
// an earlier process's memory in adopt.c.
//
// Cost of flow_add: the primary bucket lines of its keys and the record line, in the usual case. A full
// primary costs its other bucket; both full, a breadth-first search for the shortest chain of
// displacements, which touches at most FLOW_SEARCH_LINES bucket lines and then gives up.
#include "flow.h"
#include "flow_priv.h"

#include <assert.h>
#include <errno.h>

// What flow_entry_matches relies on.
_Static_assert(offsetof(struct flow_record, backend) == sizeof(struct address), "sides of peer");
#define SAME_TAIL(record_field, key_field, side)                                               \
	_Static_assert(offsetof(struct flow_record, record_field) -                            \
				       8 * (side)-offsetof(struct flow_record, client_port) == \
			       offsetof(struct flow_key, key_field) -                          \
				       offsetof(struct flow_key, peer_port),                   \
		"tail of a key: " #record_field)
SAME_TAIL(client_port, peer_port, 0);
SAME_TAIL(vip_port, own_port, 0);
SAME_TAIL(vip_slot, own_slot, 0);
SAME_TAIL(protocol, protocol, 0);
SAME_TAIL(backend_port, peer_port, 1);
SAME_TAIL(snat_port, own_port, 1);
SAME_TAIL(snat_slot, own_slot, 1);
_Static_assert(FLOW_CAPACITY_MAX <= UINT32_MAX / 4, "an entry holds index, side and mark");

// ---------------------------------------------------------------- lay out

// Two bitmaps and a count, by block.
static uint32_t flow_hint_words(uint32_t capacity)
{
	return (flow_n_blocks(capacity) + 63) / 64;
}

size_t flow_hint_bytes(uint32_t capacity)
{
	size_t bytes = 2 * flow_hint_words(capacity) * sizeof(uint64_t) + flow_n_blocks(capacity);
	return (bytes + 63) & ~(size_t)63;
}

// The lines of the hints are taken from the buckets, one in 800 and some for rounding: 80 bytes a flow are for everything.
uint32_t flow_n_buckets(uint32_t capacity)
{
	uint64_t n_keys = 2ull * capacity;
	uint64_t n = (n_keys + FLOW_BUCKET_KEYS - 1) / FLOW_BUCKET_KEYS;
	uint64_t n_hints = flow_hint_bytes(capacity) / sizeof(struct flow_bucket);
	if (n / 256 >= n_hints)
		n -= n_hints + n_hints / 64 + 2;
	return (uint32_t)((n + 1) & ~1ull); // even, at least 2
}

size_t flow_table_size(uint32_t capacity)
{
	return sizeof(struct flow_table_header) +
	       (size_t)flow_n_buckets(capacity) * sizeof(struct flow_bucket) +
	       (size_t)capacity * sizeof(struct flow_record) + flow_hint_bytes(capacity);
}

void flow_table_attach(struct flow_table *table, void *mem)
{
	struct flow_table_header *header = mem;
	memset(table, 0, sizeof(*table));
	table->header = header;
	table->capacity = header->capacity;
	table->n_buckets = header->n_buckets;
	table->key = header->key;
	table->schedule = hash_schedule_make(&header->key);
	table->first_free = FLOW_NONE;
	table->buckets = header + 1;
	table->records = (struct flow_record *)table->buckets + header->n_buckets;
	table->yielding = (uint64_t *)(void *)(table->records + header->capacity);
	table->idle = table->yielding + flow_hint_words(header->capacity);
	table->n_yielding = (uint8_t *)(table->idle + flow_hint_words(header->capacity));
}

int flow_table_init(struct flow_table *table, void *mem, size_t size, uint32_t capacity,
	const struct hash_key *key)
{
	if (capacity == 0 || capacity > FLOW_CAPACITY_MAX || (uintptr_t)mem % 64 != 0)
		return -EINVAL;
	size_t need = flow_table_size(capacity);
	if (size < need)
		return -EINVAL;
	// All of it, once: the packet path then meets no page for the first time, and a record that was
	// never used is a FREE one.
	memset(mem, 0, need);
	struct flow_table_header *header = mem;
	*header = (struct flow_table_header){ .magic = FLOW_MAGIC,
		.size_bytes = need,
		.format = FLOW_FORMAT,
		.capacity = capacity,
		.n_buckets = flow_n_buckets(capacity),
		.key = *key };
	flow_table_attach(table, mem);
	return 0;
}

void flow_table_close(struct flow_table *table)
{
	// Release: whoever reads 1 sees every record that was written before.
	__atomic_store_n(&table->header->clean, 1, __ATOMIC_RELEASE);
}

// ---------------------------------------------------------------- records
// Records given back form a list through stamp_s, last in first out: the next flow gets a line that
// is still in the cache. Those never used follow from n_used on.

static uint32_t flow_take_record(struct flow_table *table)
{
	uint32_t idx = table->first_free;
	if (idx != FLOW_NONE) {
		table->first_free = table->records[idx].stamp_s;
		if (table->first_free != FLOW_NONE) // the next new flow's
			flow_prefetch_record(table, table->first_free);
		return idx;
	}
	if (table->n_used == table->capacity)
		return FLOW_NONE;
	return table->n_used++;
}

static void flow_return_record(struct flow_table *table, uint32_t idx)
{
	table->records[idx].stamp_s = table->first_free;
	table->first_free = idx;
}

// ---------------------------------------------------------------- keys

static void flow_put(
	struct flow_table *table, uint32_t b, uint32_t slot, uint16_t tag, uint32_t entry)
{
	struct flow_bucket *bucket = flow_bucket(table, b);
	assert(bucket->tags[slot] == 0);
	bucket->tags[slot] = tag;
	bucket->entries[slot] = entry;
}

static void flow_count_displaced(struct flow_bucket *primary, uint16_t tag)
{
	if (primary->n_displaced < UINT16_MAX)
		primary->n_displaced++;
	primary->filter |= flow_filter_bit(tag);
}

static void flow_count_returned(struct flow_bucket *primary)
{
	// At its maximum the count is no longer exact and stays: the other bucket is always read then.
	if (primary->n_displaced < UINT16_MAX && --primary->n_displaced == 0)
		primary->filter = 0;
}

// Moves the key in (from, slot) to an empty slot of its other bucket.
static void flow_displace(struct flow_table *table, uint32_t from, uint32_t slot, uint32_t to)
{
	struct flow_bucket *source = flow_bucket(table, from);
	uint16_t tag = source->tags[slot];
	uint32_t entry = source->entries[slot];
	uint32_t empty = flow_match(flow_bucket(table, to), 0);
	assert(tag != 0 && empty != 0 && flow_other_bucket(table->n_buckets, from, tag) == to);
	if (entry & FLOW_ENTRY_MOVED)
		flow_count_returned(flow_bucket(table, to));
	else
		flow_count_displaced(source, tag);
	flow_put(table, to, (uint32_t)__builtin_ctz(empty), tag, entry ^ FLOW_ENTRY_MOVED);
	source->tags[slot] = 0;
}

struct flow_search_node {
	uint32_t bucket;
	uint8_t parent; // node whose slot's key would move into this bucket
	uint8_t slot;
};
_Static_assert(FLOW_SEARCH_LINES <= UINT8_MAX, "parent holds a node");

// Displaces along the way from node `at` up to its root, the far end first, so that every key is in
// one of its buckets after each step. Returns the root's bucket, which then has an empty slot.
static uint32_t flow_clear_way(
	struct flow_table *table, const struct flow_search_node *nodes, uint32_t at)
{
	while (at >= 2) {
		const struct flow_search_node *child = &nodes[at];
		flow_displace(table, nodes[child->parent].bucket, child->slot, child->bucket);
		at = child->parent;
	}
	return nodes[at].bucket;
}

// Makes room in one of two full buckets. Returns which, or UINT32_MAX.
static uint32_t flow_make_room(struct flow_table *table, uint32_t primary, uint32_t other)
{
	struct flow_search_node nodes[FLOW_SEARCH_LINES];
	nodes[0] = (struct flow_search_node){ .bucket = primary };
	nodes[1] = (struct flow_search_node){ .bucket = other };
	uint32_t n_nodes = 2;
	for (uint32_t at = 0; at < n_nodes && n_nodes < FLOW_SEARCH_LINES; at++) {
		const struct flow_bucket *bucket = flow_bucket(table, nodes[at].bucket);
		uint32_t first = n_nodes;
		for (uint32_t s = 0; s < FLOW_BUCKET_SLOTS && n_nodes < FLOW_SEARCH_LINES; s++) {
			uint32_t b = flow_other_bucket(
				table->n_buckets, nodes[at].bucket, bucket->tags[s]);
			__builtin_prefetch(flow_bucket(table, b), 1);
			nodes[n_nodes++] = (struct flow_search_node){
				.bucket = b, .parent = (uint8_t)at, .slot = (uint8_t)s
			};
		}
		for (uint32_t i = first; i < n_nodes; i++)
			if (flow_match(flow_bucket(table, nodes[i].bucket), 0) != 0)
				return flow_clear_way(table, nodes, i);
	}
	assert(n_nodes <= FLOW_SEARCH_LINES);
	return UINT32_MAX;
}

// The primary bucket is full.
static __attribute__((noinline)) bool flow_insert_elsewhere(
	struct flow_table *table, uint64_t hash, uint32_t entry)
{
	uint16_t tag = flow_tag(hash);
	uint32_t primary = flow_primary_bucket(table, hash);
	uint32_t b = flow_other_bucket(table->n_buckets, primary, tag);
	uint32_t empty = flow_match(flow_bucket(table, b), 0);
	if (empty == 0) {
		b = flow_make_room(table, primary, b);
		if (b == UINT32_MAX)
			return false;
		empty = flow_match(flow_bucket(table, b), 0);
	}
	if (b != primary) {
		flow_count_displaced(flow_bucket(table, primary), tag);
		entry |= FLOW_ENTRY_MOVED;
	}
	flow_put(table, b, (uint32_t)__builtin_ctz(empty), tag, entry);
	return true;
}

static inline bool flow_insert(struct flow_table *table, uint64_t hash, uint32_t entry)
{
	struct flow_bucket *bucket = flow_bucket(table, flow_primary_bucket(table, hash));
	uint32_t empty = flow_match(bucket, 0);
	if (unlikely(empty == 0))
		return flow_insert_elsewhere(table, hash, entry);
	uint32_t slot = (uint32_t)__builtin_ctz(empty);
	bucket->tags[slot] = flow_tag(hash);
	bucket->entries[slot] = entry;
	return true;
}

bool flow_insert_key(struct flow_table *table, uint64_t hash, uint32_t idx, enum flow_side side)
{
	return flow_insert(table, hash, flow_entry_make(idx, side));
}

// Slot of an entry, or FLOW_BUCKET_SLOTS: not in this bucket.
static inline uint32_t flow_slot_of(const struct flow_bucket *bucket, uint16_t tag, uint32_t entry)
{
	for (uint32_t mask = flow_match(bucket, tag); mask != 0; mask &= mask - 1) {
		uint32_t slot = (uint32_t)__builtin_ctz(mask);
		if (likely(bucket->entries[slot] == entry))
			return slot;
	}
	return FLOW_BUCKET_SLOTS;
}

// Takes a key out that lies in its other bucket.
static __attribute__((noinline)) void flow_delete_displaced(
	struct flow_table *table, uint64_t hash, uint32_t entry)
{
	uint16_t tag = flow_tag(hash);
	uint32_t b = flow_primary_bucket(table, hash);
	struct flow_bucket *other = flow_bucket(table, flow_other_bucket(table->n_buckets, b, tag));
	uint32_t slot = flow_slot_of(other, tag, entry | FLOW_ENTRY_MOVED);
	assert(slot < FLOW_BUCKET_SLOTS);
	other->tags[slot] = 0;
	flow_count_returned(flow_bucket(table, b));
}

// `slot`: in the primary bucket, or FLOW_BUCKET_SLOTS.
static inline void flow_delete(
	struct flow_table *table, uint64_t hash, uint32_t slot, uint32_t entry)
{
	if (likely(slot < FLOW_BUCKET_SLOTS))
		flow_bucket(table, flow_primary_bucket(table, hash))->tags[slot] = 0;
	else
		flow_delete_displaced(table, hash, entry);
}

void flow_delete_key(struct flow_table *table, uint64_t hash, uint32_t idx, enum flow_side side)
{
	uint32_t entry = flow_entry_make(idx, side);
	const struct flow_bucket *primary = flow_bucket(table, flow_primary_bucket(table, hash));
	flow_delete(table, hash, flow_slot_of(primary, flow_tag(hash), entry), entry);
}

// ---------------------------------------------------------------- flows

uint32_t flow_add_hashed(struct flow_table *table, const struct flow_record *record,
	uint64_t client_hash, uint64_t backend_hash)
{
	uint32_t idx = flow_take_record(table);
	if (idx == FLOW_NONE)
		return FLOW_NONE;
	if (!flow_insert(table, client_hash, flow_entry_make(idx, FLOW_SIDE_CLIENT)))
		goto no_room;
	if (flow_has_two_keys(record) &&
		!flow_insert(table, backend_hash, flow_entry_make(idx, FLOW_SIDE_BACKEND))) {
		flow_delete_key(table, client_hash, idx, FLOW_SIDE_CLIENT);
		goto no_room;
	}
	struct flow_record *r = &table->records[idx];
	flow_write_begin(r);
	memcpy(r, record, offsetof(struct flow_record, sequence));
	flow_write_end(r);
	table->n_flows++;
	if (flow_state_yields(record->state))
		flow_count_yielding(table, idx, 1);
	return idx;
no_room:
	flow_return_record(table, idx);
	return FLOW_NONE;
}

// Hashes of the keys that are in the buckets; of the one twice where it is alone.
static void flow_hashes_of(
	const struct flow_table *table, const struct flow_record *r, uint64_t out_hashes[2])
{
	struct flow_key client = flow_client_key(r);
	out_hashes[0] = out_hashes[1] = flow_hash(table, &client);
	if (flow_has_two_keys(r)) {
		struct flow_key backend = flow_backend_key(r);
		out_hashes[1] = flow_hash(table, &backend);
	}
	flow_prefetch_add(table, out_hashes[0], out_hashes[1]);
}

uint32_t flow_add(struct flow_table *table, const struct flow_record *record)
{
	uint64_t hashes[2];
	flow_hashes_of(table, record, hashes);
	return flow_add_hashed(table, record, hashes[0], hashes[1]);
}

static void flow_prefetch_if_full(const struct flow_table *table, uint64_t hash)
{
	uint32_t b = flow_primary_bucket(table, hash);
	if (unlikely(flow_match(flow_bucket(table, b), 0) == 0))
		flow_prefetch_line(
			flow_bucket(table, flow_other_bucket(table->n_buckets, b, flow_tag(hash))));
}

void flow_prefetch_room(const struct flow_table *table, uint64_t client_hash, uint64_t backend_hash)
{
	flow_prefetch_if_full(table, client_hash);
	flow_prefetch_if_full(table, backend_hash);
}

// The keys of record idx are out: so is the flow.
static void flow_free_record(struct flow_table *table, uint32_t idx)
{
	struct flow_record *r = &table->records[idx];
	if (flow_state_yields(r->state))
		flow_count_yielding(table, idx, -1);
	flow_write_begin(r);
	r->state = FLOW_STATE_FREE;
	flow_return_record(table, idx);
	flow_write_end(r);
	table->n_flows--;
}

void flow_remove(struct flow_table *table, uint32_t idx)
{
	const struct flow_record *r = &table->records[idx];
	uint64_t hashes[2];
	assert(idx < table->capacity && r->state != FLOW_STATE_FREE);
	flow_hashes_of(table, r, hashes);
	flow_delete_key(table, hashes[0], idx, FLOW_SIDE_CLIENT);
	if (flow_has_two_keys(r))
		flow_delete_key(table, hashes[1], idx, FLOW_SIDE_BACKEND);
	flow_free_record(table, idx);
}

// Entries of n flows: their first keys', then those of second keys that are in the buckets. Returns how many.
static uint32_t flow_entries_of(const struct flow_table *table, const uint32_t *idx, uint32_t n,
	uint32_t out_entries[2 * FLOW_REMOVE_MAX])
{
	uint32_t n_entries = n;
	assert(n <= FLOW_REMOVE_MAX);
	for (uint32_t i = 0; i < n; i++) {
		out_entries[i] = flow_entry_make(idx[i], FLOW_SIDE_CLIENT);
		out_entries[n_entries] = flow_entry_make(idx[i], FLOW_SIDE_BACKEND);
		n_entries += flow_has_two_keys(&table->records[idx[i]]);
	}
	return n_entries;
}

void flow_remove_begin(const struct flow_table *table, const uint32_t *idx, uint32_t n,
	uint64_t out_hashes[2 * FLOW_REMOVE_MAX])
{
	uint32_t entries[2 * FLOW_REMOVE_MAX];
	struct flow_key keys[2 * FLOW_REMOVE_MAX];
	uint32_t n_entries = flow_entries_of(table, idx, n, entries);
	for (uint32_t k = 0; k < n_entries; k++) {
		const struct flow_record *r = flow_entry_record(table, entries[k]);
		assert(flow_entry_idx(entries[k]) < table->capacity && r->state != FLOW_STATE_FREE);
		keys[k] = k < n ? flow_client_key(r) : flow_backend_key(r);
	}
	flow_hash_bulk(table, keys, n_entries, out_hashes);
}

void flow_remove_end(
	struct flow_table *table, const uint32_t *idx, uint32_t n, const uint64_t *hashes)
{
	uint8_t slots[2 * FLOW_REMOVE_MAX];
	uint32_t entries[2 * FLOW_REMOVE_MAX];
	uint32_t n_entries = flow_entries_of(table, idx, n, entries);
	for (uint32_t k = 0; k < n_entries; k++) {
		uint32_t b = flow_primary_bucket(table, hashes[k]);
		uint16_t tag = flow_tag(hashes[k]);
		uint32_t slot = flow_slot_of(flow_bucket(table, b), tag, entries[k]);
		slots[k] = (uint8_t)slot;
		if (unlikely(slot == FLOW_BUCKET_SLOTS))
			flow_prefetch_line(
				flow_bucket(table, flow_other_bucket(table->n_buckets, b, tag)));
	}
	// No removal moves another key: the slots are still right.
	for (uint32_t k = 0; k < n_entries; k++)
		flow_delete(table, hashes[k], slots[k], entries[k]);
	for (uint32_t i = 0; i < n; i++)
		flow_free_record(table, idx[i]);
}

void flow_remove_bulk(struct flow_table *table, const uint32_t *idx, uint32_t n)
{
	uint64_t hashes[2 * FLOW_REMOVE_MAX];
	for (uint32_t i = 0; i < n; i++)
		flow_prefetch_record(table, idx[i]);
	for (uint32_t first = 0; first < n; first += FLOW_REMOVE_MAX) {
		uint32_t n_here = n - first < FLOW_REMOVE_MAX ? n - first : FLOW_REMOVE_MAX;
		flow_remove_begin(table, idx + first, n_here, hashes);
		flow_remove_end(table, idx + first, n_here, hashes);
	}
}

bool flow_copy(const struct flow_table *table, uint32_t idx, struct flow_record *out)
{
	if (idx >= table->capacity)
		return false;
	const uint64_t *words = (const uint64_t *)(const void *)&table->records[idx];
	const uint8_t *sequence = &table->records[idx].sequence;
	uint64_t copy[sizeof(*out) / sizeof(uint64_t)];
	for (uint32_t tries = 0; tries < 16; tries++) {
		// Acquire: the words are read after this number, so they are no older than it.
		uint8_t before = __atomic_load_n(sequence, __ATOMIC_ACQUIRE);
		for (uint32_t i = 0; i < ARRAY_SIZE(copy); i++)
			copy[i] = __atomic_load_n(&words[i], __ATOMIC_RELAXED);
		// Acquire fence: the second number is read after the words; if it is still the first
		// one, no write began in between.
		__atomic_thread_fence(__ATOMIC_ACQUIRE);
		if (before % 2 != 0 || before != __atomic_load_n(sequence, __ATOMIC_RELAXED))
			continue;
		memcpy(out, copy, sizeof(*out));
		return out->state != FLOW_STATE_FREE;
	}
	return false;
}
