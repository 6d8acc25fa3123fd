// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// Layout of the placed memory and the few steps that all files of the module share.
//
//   header (64 B) | buckets (64 B each) | records (64 B each) | hints
//
// A key lies in one of two buckets: its primary (from the high bits of its hash) or its other one.
// The other is found from bucket and tag alone, so a key can be displaced without being read:
//
//   other(b) = (f(tag) - b) mod n_buckets      n even, f odd: never b itself, and other(other(b)) = b
//
// so the number of buckets need not be a power of two and memory stays at 2 * capacity / 0.8 slots.
// A key lies in its primary unless that was full when it was added. Each bucket counts the keys whose
// primary it is and that lie elsewhere, with a small Bloom filter of their tags: a miss reads the
// other bucket only when the filter asks for it.
//
// Invariants: tag 0 = empty slot; n_displaced of a bucket = number of entries with FLOW_ENTRY_MOVED
// whose primary it is (sticks at its maximum); every record that is not FREE has exactly two entries,
// one per side, or the client's alone with FLOW_FLAG_BY_PORT; n_yielding of a block = number of its records whose state yields, and its bit in `yielding` says that it is not 0.

#include "flow.h"

#include <rte_branch_prediction.h>

#ifdef __SSE2__
#include <immintrin.h>
#endif

#define FLOW_MAGIC        0x54776f6c66636c73ull // "slcflowT"
#define FLOW_FORMAT       3u
#define FLOW_BUCKET_SLOTS 10
#define FLOW_SLOTS_MASK   ((1u << FLOW_BUCKET_SLOTS) - 1)
// Keys per bucket when the table holds `capacity` flows: 8 of 10 slots. Insertion needs no search
// worth naming up to there (see FLOW_SEARCH_LINES) and about one hit in 20 costs a second bucket line.
#define FLOW_BUCKET_KEYS 8
// Lines that one insertion may touch while it looks for room: 2 roots, 20 children, 42 grandchildren.
#define FLOW_SEARCH_LINES 64

// An entry: record index << 2 | side << 1 | moved.
#define FLOW_ENTRY_MOVED 1u         // lies in its other bucket
#define FLOW_ENTRY_NONE  UINT32_MAX // no entry: never equal to one

struct flow_table_header {
	uint64_t magic;
	uint64_t size_bytes;
	uint32_t format;
	uint32_t capacity;
	uint32_t n_buckets;
	uint32_t clean; // 1: the writer said goodbye; records need no repair
	struct hash_key key;
	uint64_t pad[2];
};
_Static_assert(sizeof(struct flow_table_header) == 64, "buckets start on a line");

// Tags, count and filter are within the first 32 bytes: one AVX2 load compares all tags.
struct flow_bucket {
	uint16_t tags[FLOW_BUCKET_SLOTS]; // 0 = empty
	uint16_t n_displaced;
	uint16_t filter; // bit flow_filter_bit(tag) of every displaced key; 0 when n_displaced is 0
	uint32_t entries[FLOW_BUCKET_SLOTS];
} __attribute__((aligned(64)));
_Static_assert(sizeof(struct flow_bucket) == 64, "one line per bucket");

static inline struct flow_bucket *flow_bucket(const struct flow_table *table, uint32_t b)
{
	return (struct flow_bucket *)table->buckets + b;
}

static inline uint16_t flow_tag(uint64_t hash)
{
	return (uint16_t)hash | 1; // never 0; 15 bits and ten slots: one false match in 3,000
}

static inline uint32_t flow_other_bucket(uint32_t n_buckets, uint32_t b, uint16_t tag)
{
	uint32_t f = (uint32_t)((uint64_t)(tag * 0x9e3779b1u) * n_buckets >> 32) | 1;
	return f >= b ? f - b : f + n_buckets - b;
}

static inline uint16_t flow_filter_bit(uint16_t tag)
{
	return (uint16_t)(1u << (tag >> 12));
}

// Slots of a bucket whose tag is `tag`, as a mask; tag 0 finds the empty ones.
static inline uint32_t flow_match_scalar(const struct flow_bucket *bucket, uint16_t tag)
{
	uint32_t mask = 0;
	for (uint32_t i = 0; i < FLOW_BUCKET_SLOTS; i++)
		mask |= (uint32_t)(bucket->tags[i] == tag) << i;
	return mask;
}

#ifdef __SSE2__
static inline uint32_t flow_match_sse2(const struct flow_bucket *bucket, uint16_t tag)
{
	const __m128i *line = (const __m128i *)(const void *)bucket;
	__m128i wanted = _mm_set1_epi16((short)tag);
	__m128i low = _mm_cmpeq_epi16(_mm_load_si128(line), wanted);
	__m128i high = _mm_cmpeq_epi16(_mm_load_si128(line + 1), wanted);
	return (uint32_t)_mm_movemask_epi8(_mm_packs_epi16(low, high)) & FLOW_SLOTS_MASK;
}
#define flow_match flow_match_sse2 // x86-64 always has it
#else
#define flow_match flow_match_scalar
#endif

static inline uint32_t flow_entry_make(uint32_t idx, enum flow_side side)
{
	return idx << 2 | (uint32_t)side << 1;
}
static inline uint32_t flow_entry_idx(uint32_t entry)
{
	return entry >> 2;
}
static inline uint8_t flow_entry_side(uint32_t entry)
{
	return entry >> 1 & 1;
}
static inline struct flow_record *flow_entry_record(const struct flow_table *table, uint32_t entry)
{
	return &table->records[flow_entry_idx(entry)];
}

// Is the key the one that the entry stands for? Addresses and tails of the two sides lie side by side
// (static assertions in flow.c), so the side is an offset, not a branch: four compares in all, and the
// bit of the entry is an index that the processor scales itself.
static inline bool flow_entry_matches(
	const struct flow_table *table, uint32_t entry, const struct flow_key *key)
{
	const struct flow_record *r = flow_entry_record(table, entry);
	uint64_t side2 = entry & 2; // 0 or 2
	const uint64_t *peer = (const uint64_t *)(const void *)r + side2;
	uint64_t tail, key_tail;
	memcpy(&tail, (const char *)r + offsetof(struct flow_record, client_port) + 4 * side2,
		sizeof(tail));
	memcpy(&key_tail, &key->peer_port, sizeof(key_tail));
	uint64_t differs = (tail ^ key_tail) & RTE_BE64(0xffffffffffff0000ull);
	differs |= peer[0] ^ key->peer.halves[0];
	differs |= peer[1] ^ key->peer.halves[1];
	differs |= r->protocol ^ key->protocol;
	return differs == 0;
}

// Is the second key in the buckets too?
static inline bool flow_has_two_keys(const struct flow_record *r)
{
	return !(r->flags & FLOW_FLAG_BY_PORT);
}

// Sets up pointers and sizes of a handle for memory whose header is valid.
void flow_table_attach(struct flow_table *table, void *mem);
// Enters one key of record idx: false if there is no room within FLOW_SEARCH_LINES.
bool flow_insert_key(struct flow_table *table, uint64_t hash, uint32_t idx, enum flow_side side);
void flow_delete_key(struct flow_table *table, uint64_t hash, uint32_t idx, enum flow_side side);
// Both candidate buckets, every slot: entry of the key, or FLOW_ENTRY_NONE.
uint32_t flow_find_entry(const struct flow_table *table, const struct flow_key *key, uint64_t hash);
uint32_t flow_n_buckets(uint32_t capacity);
size_t flow_hint_bytes(uint32_t capacity); // from `yielding` on
static inline uint32_t flow_n_blocks(uint32_t capacity)
{
	return (capacity + FLOW_BLOCK - 1) / FLOW_BLOCK;
}
// Counts a whole block anew, from what its records say.
void flow_recount_block(struct flow_table *table, uint32_t block, uint32_t n_yielding, bool idle);
// Has a flow in this state, idle for so long, little claim to its place although it is confirmed?
extern const uint32_t flow_idle_from_s[FLOW_STATE_MAX];
static inline bool flow_is_idle(enum flow_state state, uint32_t idle_s)
{
	return idle_s >= flow_idle_from_s[state];
}
