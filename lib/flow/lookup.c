// SPDX-License-Identifier: BSD-3-Clause
// Hot path: no allocation, lock, log, system call.
//
// Look-ups: one key, or up to 64 at once in four variants with identical results.
#include "flow.h"
#include "flow_priv.h"

#define FLOW_BULK_MAX 64

// The key's entry in one bucket: every slot with its tag is compared in full.
static uint32_t flow_find_in_bucket(const struct flow_table *table,
	const struct flow_bucket *bucket, uint16_t tag, const struct flow_key *key)
{
	for (uint32_t mask = flow_match(bucket, tag); mask != 0; mask &= mask - 1) {
		uint32_t entry = bucket->entries[__builtin_ctz(mask)];
		if (flow_entry_matches(table, entry, key))
			return entry;
	}
	return FLOW_ENTRY_NONE;
}

uint32_t flow_find_entry(const struct flow_table *table, const struct flow_key *key, uint64_t hash)
{
	uint16_t tag = flow_tag(hash);
	uint32_t b = flow_primary_bucket(table, hash);
	const struct flow_bucket *primary = flow_bucket(table, b);
	uint32_t entry = flow_find_in_bucket(table, primary, tag, key);
	if (entry != FLOW_ENTRY_NONE || !(primary->filter & flow_filter_bit(tag)))
		return entry;
	uint32_t other = flow_other_bucket(table->n_buckets, b, tag);
	return flow_find_in_bucket(table, flow_bucket(table, other), tag, key);
}

uint32_t flow_lookup(const struct flow_table *table, const struct flow_key *key, uint8_t *out_side)
{
	uint32_t entry = flow_find_entry(table, key, flow_key_hash(&table->key, key));
	*out_side = flow_entry_side(entry);
	return entry == FLOW_ENTRY_NONE ? FLOW_NONE : flow_entry_idx(entry);
}

// ---------------------------------------------------------------- variants

#define FLOW_TARGET
#define FLOW_BULK  flow_bulk_scalar
#define FLOW_MATCH flow_match_scalar
#include "lookup_body_priv.h"

#ifdef __SSE2__
#define FLOW_TARGET
#define FLOW_BULK  flow_bulk_sse2
#define FLOW_MATCH flow_match_sse2
#include "lookup_body_priv.h"

#define FLOW_TARGET_AVX2   __attribute__((target("avx2,bmi,bmi2")))
#define FLOW_TARGET_AVX512 __attribute__((target("avx512bw,avx512vl,bmi,bmi2")))

FLOW_TARGET_AVX2 static inline uint32_t flow_match_avx2(
	const struct flow_bucket *bucket, uint16_t tag)
{
	__m256i tags = _mm256_load_si256((const __m256i *)(const void *)bucket);
	__m256i equal = _mm256_cmpeq_epi16(tags, _mm256_set1_epi16((short)tag));
	__m128i packed =
		_mm_packs_epi16(_mm256_castsi256_si128(equal), _mm256_extracti128_si256(equal, 1));
	return (uint32_t)_mm_movemask_epi8(packed) & FLOW_SLOTS_MASK;
}

#define FLOW_TARGET FLOW_TARGET_AVX2
#define FLOW_BULK   flow_bulk_avx2
#define FLOW_MATCH  flow_match_avx2
#include "lookup_body_priv.h"

FLOW_TARGET_AVX512 static inline uint32_t flow_match_avx512(
	const struct flow_bucket *bucket, uint16_t tag)
{
	__m256i tags = _mm256_load_si256((const __m256i *)(const void *)bucket);
	return _mm256_cmpeq_epi16_mask(tags, _mm256_set1_epi16((short)tag)) & FLOW_SLOTS_MASK;
}

#define FLOW_TARGET FLOW_TARGET_AVX512
#define FLOW_BULK   flow_bulk_avx512
#define FLOW_MATCH  flow_match_avx512
#include "lookup_body_priv.h"
#endif

typedef void flow_bulk_function(const struct flow_table *table, const struct flow_key *keys,
	const uint64_t *hashes, uint32_t n, uint32_t *out_idx, uint8_t *out_side);

#ifdef __SSE2__
#define FLOW_BULK_DEFAULT flow_bulk_sse2
#else
#define FLOW_BULK_DEFAULT flow_bulk_scalar
#endif

// A mutable global in lib/ (against design rule 1): it is the processor's property, not a table's;
// written before threads start, constant from then on, and any value gives the same results.
static flow_bulk_function *flow_bulk = FLOW_BULK_DEFAULT;

void flow_lookup_bulk(const struct flow_table *table, const struct flow_key *keys,
	const uint64_t *hashes, uint32_t n, uint32_t *out_idx, uint8_t *out_side)
{
	flow_bulk(table, keys, hashes, n, out_idx, out_side);
}

static bool flow_always(void)
{
	return true;
}

#ifdef __SSE2__
static bool flow_has_avx2(void)
{
	return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") &&
	       __builtin_cpu_supports("bmi2");
}

static bool flow_has_avx512(void)
{
	return flow_has_avx2() && __builtin_cpu_supports("avx512bw") &&
	       __builtin_cpu_supports("avx512vl");
}
#endif

const char *flow_select_variant(const char *name)
{
	static const struct {
		const char *name;
		flow_bulk_function *bulk;
		bool (*runs_here)(void);
	} variants[] = { // fastest first
#ifdef __SSE2__
		{ "avx512", flow_bulk_avx512, flow_has_avx512 },
		{ "avx2", flow_bulk_avx2, flow_has_avx2 }, { "sse2", flow_bulk_sse2, flow_always },
#endif
		{ "scalar", flow_bulk_scalar, flow_always }
	};
	for (uint32_t i = 0; i < ARRAY_SIZE(variants); i++) {
		if ((name != NULL && strcmp(name, variants[i].name) != 0) ||
			!variants[i].runs_here())
			continue;
		flow_bulk = variants[i].bulk;
		return variants[i].name;
	}
	return NULL;
}
