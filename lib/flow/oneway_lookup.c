// SPDX-License-Identifier: BSD-3-Clause
// Hot path: no allocation, lock, log, system call.
//
// Look-ups of the one-way table: one key, or up to 64 at once in variants with identical results.
#include "oneway.h"
#include "oneway_priv.h"

#ifdef __SSE2__
#include <immintrin.h>
#endif

#define ONEWAY_BULK_MAX 64

// Has a key of this hash, whose home the line is, been displaced? Sometimes a wrong yes.
static inline bool oneway_filter4(const struct oneway_line4 *line, uint64_t hash)
{
	return line->words[oneway_class(hash) % ONEWAY_SLOTS4] >> ONEWAY_FILTER_SHIFT & 1;
}
static inline bool oneway_filter6(const struct oneway_line6 *line, uint64_t hash)
{
	return line->filter >> oneway_class(hash) & 1;
}
static inline bool oneway_filter(const struct oneway_table *table, uint32_t line, uint64_t hash)
{
	return oneway_line_is6(table, line) ? oneway_filter6(oneway_line6(table, line), hash)
					    : oneway_filter4(oneway_line4(table, line), hash);
}

// Without a branch, also where the compiler would like one: all ones when the mask is empty.
static inline uint32_t oneway_nothing(uint32_t mask)
{
	return (uint32_t)((int32_t)(mask - 1) >> 31);
}
static inline uint32_t oneway_found(uint32_t line, uint32_t mask)
{
	uint32_t slot = (uint32_t)__builtin_ctz(mask | 1u << 31);
	return (oneway_ref(line, 0) + slot) | oneway_nothing(mask);
}

static uint32_t oneway_find(
	const struct oneway_table *table, const struct flow_key *key, uint64_t hash)
{
	const struct oneway_family *f = &table->families[!address_is_v4(&key->peer)];
	uint32_t line = oneway_home(f, hash), mask = oneway_match(table, line, key);
	if (mask == 0 && oneway_filter(table, line, hash)) {
		line = oneway_other(f, hash, line);
		mask = oneway_match(table, line, key);
	}
	return oneway_found(line, mask);
}

uint32_t oneway_lookup(const struct oneway_table *table, const struct flow_key *key)
{
	return oneway_find(table, key, flow_key_hash(&table->schedule, key));
}

// ---------------------------------------------------------------- steps of the bulk look-up

// Lines that are on their way while keys are compared. More do not come faster: measured on Zen 3 (1M flows, 64 random
// keys), 16: 21 ns a key, 24: 19 ns, 32: 21 ns, all 64 first: 27 ns.
#define ONEWAY_AHEAD 24

// What the caller asks, and what of the table is read for it: by value, for the compiler must take every store into an
// array for one into whatever a pointer leads to.
struct oneway_question {
	const void *lines;
	struct oneway_family families[2];
	const struct flow_key *keys;
	const uint64_t *hashes;
	uint32_t *out_refs;
};

// Keys by their index in the caller's arrays.
struct oneway_burst {
	uint32_t n[2];                     // by family
	uint8_t order[2][ONEWAY_BULK_MAX]; // keys by family; only of bursts that have both
	uint32_t homes[ONEWAY_BULK_MAX];
	uint8_t absent[ONEWAY_BULK_MAX + 1]; // keys of one family that are not at home
	uint32_t n_later[2]; // of those, keys that may lie in their other line, IPv4 first
	uint8_t later[ONEWAY_BULK_MAX + 1];
	uint32_t others[ONEWAY_BULK_MAX]; // which line that is [n_later]
};

// Without a branch: a burst may be of both families. 1 or 0.
static inline uint32_t oneway_is6(const struct flow_key *key)
{
	uint64_t differs = key->peer.halves[0] | (key->peer.words[2] ^ RTE_BE32(0x0000ffff));
	return differs != 0;
}

static inline void oneway_split(const struct flow_key *keys, uint32_t n, struct oneway_burst *b)
{
	uint32_t n6 = 0;
	for (uint32_t i = 0; i < n; i++)
		n6 += oneway_is6(&keys[i]);
	b->n_later[0] = b->n_later[1] = 0;
	b->n[0] = n - n6;
	b->n[1] = n6;
	if (n6 == 0 || n6 == n)
		return;
	n6 = 0;
	for (uint32_t i = 0; i < n; i++) {
		b->order[0][i - n6] = (uint8_t)i;
		b->order[1][n6] = (uint8_t)i;
		n6 += oneway_is6(&keys[i]);
	}
}

static inline __attribute__((always_inline)) void oneway_fetch_home(const struct oneway_question *q,
	const struct oneway_family *f, struct oneway_burst *b, uint32_t i)
{
	uint32_t home = oneway_home(f, q->hashes[i]);
	b->homes[i] = home;
	flow_prefetch_line((const struct oneway_line4 *)q->lines + home);
}

// Asks for the other lines of absent keys whose filter says that they may be there.
static inline __attribute__((always_inline)) void oneway_fetch_others(
	const struct oneway_question *q, struct oneway_burst *b, uint32_t is6, uint32_t n_absent)
{
	const struct oneway_line4 *line4 = q->lines;
	const struct oneway_line6 *line6 = q->lines;
	const struct oneway_family f = q->families[is6];
	uint32_t first = b->n_later[0], n_later = first;
	for (uint32_t k = 0; k < n_absent; k++) {
		uint32_t i = b->absent[k], home = b->homes[i];
		b->later[n_later] = (uint8_t)i;
		n_later += is6 ? oneway_filter6(line6 + home, q->hashes[i])
			       : oneway_filter4(line4 + home, q->hashes[i]);
	}
	for (uint32_t k = first; k < n_later; k++) {
		uint32_t i = b->later[k];
		b->others[k] = oneway_other(&f, q->hashes[i], b->homes[i]);
		flow_prefetch_line(line4 + b->others[k]);
	}
	b->n_later[is6] = n_later - first;
}

// Brings entries home that were found elsewhere, if there is room. One that goes may make room for a key that the burst
// asks for twice and that had none the first time, so references are taken again when all have moved.
static void oneway_settle(struct oneway_table *table, const struct flow_key *keys,
	const uint64_t *hashes, const struct oneway_burst *b, uint32_t *out_refs)
{
	uint64_t n_moves = table->n_moves;
	for (uint32_t k = 0; k < b->n_later[0] + b->n_later[1]; k++) {
		uint32_t i = b->later[k], home = b->homes[i], ref = out_refs[i];
		if (ref == ONEWAY_NONE || !oneway_has_room(table, home))
			continue;
		if (table->n_moves != n_moves)
			ref = oneway_find(table, &keys[i], hashes[i]);
		if (ref >> 2 != home)
			oneway_bring_home(table, ref, home, &keys[i]);
	}
	for (uint32_t k = 0; k < b->n_later[0] + b->n_later[1] && table->n_moves != n_moves; k++) {
		uint32_t i = b->later[k];
		out_refs[i] = oneway_find(table, &keys[i], hashes[i]);
	}
}

// ---------------------------------------------------------------- variants

#define ONEWAY_TARGET
#define ONEWAY_NAME(name) name##_scalar
#define ONEWAY_MATCH4     oneway_match4_scalar
#define ONEWAY_MATCH6     oneway_match6
#include "oneway_lookup_body_priv.h"

#ifdef __SSE2__
#define ONEWAY_TARGET_AVX2 __attribute__((target("avx2,bmi,bmi2")))

// All four keys, then slot and protocol of all four words.
ONEWAY_TARGET_AVX2 static inline uint32_t oneway_match4_avx2(
	const struct oneway_line4 *line, uint64_t key, uint64_t wanted)
{
	__m256i words = _mm256_load_si256((const __m256i *)(const void *)line->words);
	__m256i keys = _mm256_load_si256((const __m256i *)(const void *)line->keys);
	__m256i upper = _mm256_srli_epi64(words, ONEWAY_PROTOCOL_SHIFT);
	__m256i equal =
		_mm256_and_si256(_mm256_cmpeq_epi64(keys, _mm256_set1_epi64x((long long)key)),
			_mm256_cmpeq_epi64(upper, _mm256_set1_epi64x((long long)wanted)));
	return (uint32_t)_mm256_movemask_pd(_mm256_castsi256_pd(equal));
}

// Both clients, then ports, slot and protocol of both one by one.
ONEWAY_TARGET_AVX2 static inline uint32_t oneway_match6_avx2(
	const struct oneway_line6 *line, const struct flow_key *key, uint64_t wanted)
{
	__m256i clients = _mm256_load_si256((const __m256i *)(const void *)line->clients);
	__m128i peer = _mm_loadu_si128((const __m128i *)(const void *)&key->peer);
	__m256i equal = _mm256_cmpeq_epi64(clients, _mm256_broadcastsi128_si256(peer));
	uint32_t halves = (uint32_t)_mm256_movemask_pd(_mm256_castsi256_pd(equal));
	uint32_t ports = oneway_ports(key), mask = 0;
	for (uint32_t s = 0; s < ONEWAY_SLOTS6; s++) {
		uint64_t differs = line->words[s] >> ONEWAY_PROTOCOL_SHIFT ^ wanted;
		differs |= (line->ports[s] ^ ports) | (~halves >> 2 * s & 3);
		mask |= (uint32_t)(differs == 0) << s;
	}
	return mask;
}

#define ONEWAY_TARGET     ONEWAY_TARGET_AVX2
#define ONEWAY_NAME(name) name##_avx2
#define ONEWAY_MATCH4     oneway_match4_avx2
#define ONEWAY_MATCH6     oneway_match6_avx2
#include "oneway_lookup_body_priv.h"
#endif

typedef void oneway_bulk_function(
	const struct oneway_question *question, struct oneway_burst *burst);

// A mutable global in lib/ (against design rule 1), as flow_bulk in lookup.c: it is the processor's property, not a
// table's; written before threads start, constant from then on, and any value gives the same results.
static oneway_bulk_function *oneway_bulk = oneway_bulk_scalar;

void oneway_lookup_bulk(struct oneway_table *table, const struct flow_key *keys,
	const uint64_t *hashes, uint32_t n, uint32_t *out_refs)
{
	struct oneway_burst b;
	const struct oneway_question q = { .lines = table->lines,
		.families = { table->families[0], table->families[1] },
		.keys = keys,
		.hashes = hashes,
		.out_refs = out_refs };
	oneway_split(keys, n, &b);
	oneway_bulk(&q, &b);
	if (b.n_later[0] + b.n_later[1] != 0)
		oneway_settle(table, keys, hashes, &b, out_refs);
}

const char *oneway_select_variant(const char *name)
{
#ifdef __SSE2__
	bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") &&
			__builtin_cpu_supports("bmi2");
	if (has_avx2 && (name == NULL || strcmp(name, "avx2") == 0)) {
		oneway_bulk = oneway_bulk_avx2;
		return "avx2";
	}
#endif
	if (name != NULL && strcmp(name, "scalar") != 0)
		return NULL;
	oneway_bulk = oneway_bulk_scalar;
	return "scalar";
}
