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

static inline uint32_t oneway_found(uint32_t line, uint32_t mask)
{
	return mask != 0 ? oneway_ref(line, (uint32_t)__builtin_ctz(mask)) : ONEWAY_NONE;
}

// Keys of a burst that are not at home.
struct oneway_later {
	uint32_t n;
	uint8_t keys[ONEWAY_BULK_MAX];
};

// Has a key of this hash, whose home the line is, been displaced? Sometimes a wrong yes.
static inline bool oneway_filter4(const struct oneway_line4 *line, uint64_t hash)
{
	return (line->words[oneway_class(hash) % ONEWAY_SLOTS4] & ONEWAY_FILTER_BIT) != 0;
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
	return oneway_find(table, key, flow_key_hash(&table->key, key));
}

// The entries of these keys lie away from home: brings home those that find room there. The last of them may make room
// for a key that is asked for twice and had none the first time, so references are taken when all have moved.
static void oneway_settle(struct oneway_table *table, const struct flow_key *keys,
	const uint64_t *hashes, const struct oneway_later *later, uint32_t *out_refs)
{
	uint64_t n_moves = table->n_moves;
	for (uint32_t k = 0; k < later->n; k++) {
		uint32_t i = later->keys[k];
		if (out_refs[i] == ONEWAY_NONE)
			continue;
		uint32_t home =
			oneway_home(&table->families[!address_is_v4(&keys[i].peer)], hashes[i]);
		uint32_t ref = oneway_find(table, &keys[i], hashes[i]);
		if (ref >> 2 != home)
			oneway_bring_home(table, ref, home, &keys[i]);
	}
	for (uint32_t k = 0; k < later->n && table->n_moves != n_moves; k++) {
		uint32_t i = later->keys[k];
		out_refs[i] = oneway_find(table, &keys[i], hashes[i]);
	}
}

// ---------------------------------------------------------------- variants

#define ONEWAY_TARGET
#define ONEWAY_BULK   oneway_bulk_scalar
#define ONEWAY_MATCH4 oneway_match4_scalar
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

#define ONEWAY_TARGET ONEWAY_TARGET_AVX2
#define ONEWAY_BULK   oneway_bulk_avx2
#define ONEWAY_MATCH4 oneway_match4_avx2
#include "oneway_lookup_body_priv.h"
#endif

typedef void oneway_bulk_function(struct oneway_table *table, const struct flow_key *keys,
	const uint64_t *hashes, uint32_t n, uint32_t *out_refs);

// A mutable global in lib/ (against design rule 1), as flow_bulk in lookup.c: it is the processor's property, not a
// table's; written before threads start, constant from then on, and any value gives the same results.
static oneway_bulk_function *oneway_bulk = oneway_bulk_scalar;

void oneway_lookup_bulk(struct oneway_table *table, const struct flow_key *keys,
	const uint64_t *hashes, uint32_t n, uint32_t *out_refs)
{
	oneway_bulk(table, keys, hashes, n, out_refs);
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
