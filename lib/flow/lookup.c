// SPDX-License-Identifier: BSD-3-Clause
// Hot path: no allocation, lock, log, system call.
//
// Look-ups: one key, or up to 64 at once in four variants with identical results.
#include "flow.h"
#include "flow_priv.h"

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
	uint32_t entry = flow_find_entry(table, key, flow_hash(table, key));
	*out_side = flow_entry_side(entry);
	return entry == FLOW_ENTRY_NONE ? FLOW_NONE : flow_entry_idx(entry);
}

// ---------------------------------------------------------------- variants

struct flow_candidate {
	uint32_t entry;
	uint32_t key; // index
};

// What a burst is asked, and where the answers go: keys[0..n) by hash, keys[first_named..FLOW_BURST_MAX) by name.
struct flow_question {
	const struct flow_table *table;
	const struct flow_key *keys;
	const uint32_t *const *names;
	uint64_t *hashes;
	uint32_t *idx;
	uint8_t *side;
	uint32_t n;
	uint32_t first_named;
};

static inline void flow_settle_none(const struct flow_question *q, uint32_t i)
{
	q->idx[i] = FLOW_NONE;
	q->side[i] = flow_entry_side(FLOW_ENTRY_NONE);
}

// Keys with a name: the records that the words tell of, asked for.
static inline void flow_take_named(const struct flow_question *q)
{
	uint32_t n_used = q->table->n_used;
	for (uint32_t i = q->first_named; i < FLOW_BURST_MAX; i++) {
		uint32_t idx = *q->names[i] ^ 1u << 31;
		q->idx[i] = unlikely(idx >= n_used)
				    ? FLOW_NONE
				    : idx; // nobody, or a flow that is still being made
		flow_prefetch_record(q->table, unlikely(idx >= n_used) ? 0 : idx);
	}
}

static inline void flow_settle_named(const struct flow_question *q)
{
	for (uint32_t i = q->first_named; i < FLOW_BURST_MAX; i++) {
		uint32_t idx = q->idx[i];
		q->side[i] = FLOW_SIDE_BACKEND;
		if (likely(idx != FLOW_NONE) &&
			unlikely(!flow_entry_matches(
				q->table, flow_entry_make(idx, FLOW_SIDE_BACKEND), &q->keys[i])))
			q->idx[i] = FLOW_NONE;
	}
}

// The other bucket than the one at `line`, asked for.
static inline uint64_t flow_other_line(const struct flow_table *table, uint64_t line, uint16_t tag)
{
	line = 64ull * flow_other_bucket(table->n_buckets, (uint32_t)(line / 64), tag);
	flow_prefetch_line((const char *)table->buckets + line);
	return line;
}

// Hash and primary bucket of one key. Returns where the bucket lies, from the first one on.
static inline uint64_t flow_hash_line(
	const struct flow_table *table, const struct flow_key *key, uint64_t *out_hash)
{
	*out_hash = flow_hash(table, key);
	uint64_t line = 64ull * flow_primary_bucket(table, *out_hash);
	return line;
}

// The line of an entry's record, from the first one on: the index is shifted by what the entry has below it.
static inline uint64_t flow_entry_line(uint32_t entry)
{
	return (uint64_t)(entry & ~3u) << 4;
}
_Static_assert(sizeof(struct flow_record) == 4 << 4, "an entry's index lies 2 bits up");

static void flow_hash_keys_scalar(const struct hash_schedule *s, const struct flow_key *keys,
	uint32_t n, uint64_t *out_hashes)
{
	for (uint32_t i = 0; i < n; i++)
		out_hashes[i] = flow_key_hash(s, &keys[i]);
}

// No hashes at once: they are made one by one.
static inline uint32_t flow_hash_none(const struct flow_table *table, const struct flow_key *keys,
	uint32_t n, uint64_t *hashes, uint64_t *lines)
{
	return 0;
}

// Buckets that are on their way before one is read. Measured on Zen 3 beside another busy core, hit and miss at 1M flows, hit at 64K
// and at 10M, ns: all 64: 22, 13, -, 27; 32: 20, 9, 10.6, 28; 20, and records compared 12 behind: 20, 11, 14.6, 31.
#define FLOW_AHEAD 32

#define FLOW_TARGET
#define FLOW_NAME(name) name##_scalar
#define FLOW_HASHES     flow_hash_none
#define FLOW_MATCH      flow_match_scalar
#define FLOW_SLOT(mask) ((uint32_t)__builtin_ctz(mask))
#include "lookup_body_priv.h"

#ifdef __SSE2__
#define FLOW_TARGET
#define FLOW_NAME(name) name##_sse2
#define FLOW_HASHES     flow_hash_none
#define FLOW_MATCH      flow_match_sse2
#define FLOW_SLOT(mask) ((uint32_t)__builtin_ctz(mask))
#include "lookup_body_priv.h"

#define FLOW_TARGET_AVX2   __attribute__((target("avx2,bmi,bmi2")))
#define FLOW_TARGET_AVX512 __attribute__((target("avx512bw,avx512vl,bmi,bmi2")))

// Upper and lower halves of the addresses of keys 0 and 2.
FLOW_TARGET_AVX2 static inline __m256i flow_load_peers(const struct flow_key *keys)
{
	__m128i low = _mm_loadu_si128((const __m128i *)(const void *)&keys[0]);
	__m128i high = _mm_loadu_si128((const __m128i *)(const void *)&keys[2]);
	return _mm256_inserti128_si256(_mm256_castsi128_si256(low), high, 1);
}

// The third words of keys 0 to 3.
FLOW_TARGET_AVX2 static inline __m256i flow_load_tails(const struct flow_key *keys)
{
	return _mm256_set_epi64x((long long)flow_key_tail(&keys[3]),
		(long long)flow_key_tail(&keys[2]), (long long)flow_key_tail(&keys[1]),
		(long long)flow_key_tail(&keys[0]));
}

// hash_halves of four words.
FLOW_TARGET_AVX2 static inline __m256i flow_halves_avx2(__m256i words, uint64_t key)
{
	__m256i sum = _mm256_add_epi32(words, _mm256_set1_epi64x((long long)key));
	return _mm256_mul_epu32(sum, _mm256_srli_epi64(sum, 32));
}

// flow_key_hash of four keys.
FLOW_TARGET_AVX2 static inline __m256i flow_hash4_avx2(
	const struct hash_schedule *s, const struct flow_key *keys)
{
	__m256i even = flow_load_peers(keys), odd = flow_load_peers(keys + 1);
	__m256i sum = flow_halves_avx2(_mm256_unpacklo_epi64(even, odd), s->words[0]);
	sum = _mm256_add_epi64(
		sum, flow_halves_avx2(_mm256_unpackhi_epi64(even, odd), s->words[1]));
	sum = _mm256_add_epi64(sum, flow_halves_avx2(flow_load_tails(keys), s->words[2]));
	sum = _mm256_xor_si256(sum, _mm256_set1_epi64x((long long)s->words[3]));
	__m256i h = _mm256_mul_epu32(sum, _mm256_srli_epi64(sum, 32));
	const __m256i rotate24 = _mm256_set_epi64x(
		0x0c0b0a09080f0e0d, 0x0403020100070605, 0x0c0b0a09080f0e0d, 0x0403020100070605);
	return _mm256_xor_si256(h, _mm256_shuffle_epi8(h, rotate24));
}

FLOW_TARGET_AVX2 static inline uint32_t flow_hash_avx2(const struct flow_table *table,
	const struct flow_key *keys, uint32_t n, uint64_t *hashes, uint64_t *lines)
{
	const struct hash_schedule s = table->schedule;
	__m256i n_buckets = _mm256_set1_epi64x(table->n_buckets);
	uint32_t i;
	for (i = 0; i + 4 <= n; i += 4) {
		__m256i h = flow_hash4_avx2(&s, &keys[i]);
		__m256i line = _mm256_mul_epu32(_mm256_srli_epi64(h, 32), n_buckets);
		line = _mm256_slli_epi64(_mm256_srli_epi64(line, 32), 6);
		_mm256_storeu_si256((__m256i *)(void *)&hashes[i], h);
		_mm256_storeu_si256((__m256i *)(void *)&lines[i], line);
	}
	return i;
}

FLOW_TARGET_AVX2 static void flow_hash_keys_avx2(const struct hash_schedule *schedule,
	const struct flow_key *keys, uint32_t n, uint64_t *out_hashes)
{
	const struct hash_schedule s = *schedule;
	uint32_t i;
	for (i = 0; i + 4 <= n; i += 4)
		_mm256_storeu_si256(
			(__m256i *)(void *)&out_hashes[i], flow_hash4_avx2(&s, &keys[i]));
	for (; i < n; i++)
		out_hashes[i] = flow_key_hash(&s, &keys[i]);
}

// Two bits per slot: what the compare gives, without packing it.
FLOW_TARGET_AVX2 static inline uint32_t flow_match_avx2(
	const struct flow_bucket *bucket, uint16_t tag)
{
	__m256i tags = _mm256_load_si256((const __m256i *)(const void *)bucket);
	__m256i equal = _mm256_cmpeq_epi16(tags, _mm256_set1_epi16((short)tag));
	return (uint32_t)_mm256_movemask_epi8(equal) & ((1u << 2 * FLOW_BUCKET_SLOTS) - 1);
}

#define FLOW_TARGET     FLOW_TARGET_AVX2
#define FLOW_NAME(name) name##_avx2
#define FLOW_HASHES     flow_hash_avx2
#define FLOW_MATCH      flow_match_avx2
#define FLOW_SLOT(mask) ((uint32_t)__builtin_ctz(mask) / 2)
#include "lookup_body_priv.h"

FLOW_TARGET_AVX512 static inline uint32_t flow_match_avx512(
	const struct flow_bucket *bucket, uint16_t tag)
{
	__m256i tags = _mm256_load_si256((const __m256i *)(const void *)bucket);
	return _mm256_cmpeq_epi16_mask(tags, _mm256_set1_epi16((short)tag)) & FLOW_SLOTS_MASK;
}

#define FLOW_TARGET     FLOW_TARGET_AVX512
#define FLOW_NAME(name) name##_avx512
#define FLOW_HASHES     flow_hash_avx2
#define FLOW_MATCH      flow_match_avx512
#define FLOW_SLOT(mask) ((uint32_t)__builtin_ctz(mask))
#include "lookup_body_priv.h"
#endif

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

struct flow_variant {
	const char *name;
	void (*bulk)(const struct flow_question *q);
	void (*hash)(const struct flow_table *table, const struct flow_key *keys, uint32_t n,
		uint64_t *out_hashes, uint64_t *out_lines);
	void (*keys)(const struct hash_schedule *s, const struct flow_key *keys, uint32_t n,
		uint64_t *out_hashes);
	bool (*runs_here)(void);
};

static const struct flow_variant flow_variants[] = { // fastest first
#ifdef __SSE2__
	{ "avx512", flow_bulk_avx512, flow_hash_lines_avx512, flow_hash_keys_avx2,
		flow_has_avx512 },
	{ "avx2", flow_bulk_avx2, flow_hash_lines_avx2, flow_hash_keys_avx2, flow_has_avx2 },
	{ "sse2", flow_bulk_sse2, flow_hash_lines_sse2, flow_hash_keys_scalar, flow_always },
#endif
	{ "scalar", flow_bulk_scalar, flow_hash_lines_scalar, flow_hash_keys_scalar, flow_always }
};

// A mutable global in lib/ (against design rule 1): it is the processor's property, not a table's;
// written before threads start, constant from then on, and any value gives the same results.
static const struct flow_variant *flow_variant =
	&flow_variants[ARRAY_SIZE(flow_variants) > 1 ? ARRAY_SIZE(flow_variants) - 2 : 0];

void flow_lookup_bulk(const struct flow_table *table, const struct flow_key *keys, uint32_t n,
	uint64_t *out_hashes, uint32_t *out_idx, uint8_t *out_side)
{
	const struct flow_question q = { .table = table,
		.keys = keys,
		.hashes = out_hashes,
		.idx = out_idx,
		.side = out_side,
		.n = n,
		.first_named = FLOW_BURST_MAX };
	flow_variant->bulk(&q);
}

void flow_lookup_burst(const struct flow_table *table, struct flow_search *s)
{
	const struct flow_question q = { .table = table,
		.keys = s->keys,
		.names = s->names,
		.hashes = s->hashes,
		.idx = s->idx,
		.side = s->side,
		.n = s->n,
		.first_named = FLOW_BURST_MAX - s->n_named };
	flow_variant->bulk(&q);
}

void flow_hash_bulk(const struct flow_table *table, const struct flow_key *keys, uint32_t n,
	uint64_t *out_hashes)
{
	uint64_t lines[FLOW_BURST_MAX];
	flow_variant->hash(table, keys, n, out_hashes, lines);
	for (uint32_t i = 0; i < n; i++)
		flow_prefetch_line((const char *)table->buckets + lines[i]);
}

void flow_hash_keys(const struct hash_schedule *s, const struct flow_key *keys, uint32_t n,
	uint64_t *out_hashes)
{
	flow_variant->keys(s, keys, n, out_hashes);
}

const char *flow_select_variant(const char *name)
{
	for (uint32_t i = 0; i < ARRAY_SIZE(flow_variants); i++) {
		const struct flow_variant *v = &flow_variants[i];
		if ((name != NULL && strcmp(name, v->name) != 0) || !v->runs_here())
			continue;
		flow_variant = v;
		return v->name;
	}
	return NULL;
}
