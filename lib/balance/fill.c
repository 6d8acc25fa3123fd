// SPDX-License-Identifier: BSD-3-Clause
// The loop of the paper ("Populate"), made fast without changing a slot of its result.
//
// A turn takes the first free slot of its member's permutation. There are two ways to find it:
//
//   walk    step by step, as the paper does: m/k probes when k of m slots are free. Free slots are a bitmap (8 KB at
//           m = 65537: first-level cache), steps are an addition or a subtraction. While the next probe is neither
//           likely to hit nor likely to miss, two or four are made at once: those too many cost less than a wrong guess.
//   search  over the list of the k free slots: slot e is the j-th of the permutation with
//           j = (e - position) * skip^-1 mod m, and the smallest j wins. Slots never become free again, so that is where
//           the walk would have stopped. No division and no index to carry: in fixed point,
//
//               x(e) = e * F + C mod 1,  F = skip^-1 / m,  C = -position * F + 1/(2m)    lies in the middle of
//               |--j=0--|--j=1--|-- ... --|--j=m-1--|                                   its j's interval
//
//           so x orders slots as j does while its error is below 1/(2m), j = floor(x * m), and e = position + j * skip.
//
// The walk costs m*ln(m/k) probes down to k free slots, the search k*k/2 steps from there on: k of a few sqrt(m) is
// best, and saves 60 % of the walk.
//
//   list      [ e0 | e1 | e2 | ... | e(k-1) | some e, 16 times ]     whole vectors may be read past the end
//   slots[e]    of a free slot e: its place in the list, so that taking it is one swap
//
// Precision. 64 bits: e < 2^20 times an F that is right within 2^-44 (below): error 2^-24, 1/(2m) > 2^-21. 32 bits: F is
// rounded to 2^-33 at worst; with e counted from the middle (|e| <= m/2) the error is m/4 * 2^-32 < 1/(2m) for m <= 2^16.5.
// Larger tables split e = 1024 * high + low, two products, |low| and |high| <= 512: 2^-23 < 1/(2m) for m < 2^20.
//
// Cost (Zen 3, 1,000 members): 0.85 ms at m = 65537, of which the search takes 0.06, beside 2.1 ms of the paper's loop;
// 10 beside 30 ms at m = 655373. What is left are wrong guesses of the walk's first three quarters. Tried and slower there:
// eight members' probes gathered into one vector, and a walk without any branch.
#include "balance_priv.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#ifdef __x86_64__
#include <immintrin.h>
#endif

#define FILL_LANES  16 // slots of the list that one step of the search may read at once
#define FILL_NARROW 65537
#define FILL_SPLIT  1024
#define FILL_SPARSE 16 // fewer than one member in so many takes a turn in a round

// Whose turn is next. Copied into a local by the loops, so that no store can touch it.
struct order {
	struct turn *turns;
	uint32_t n_turns;
	uint32_t turn_idx; // unless sparse
	uint32_t w_max;
	bool is_equal;  // all weights
	bool is_sparse; // few take a turn in a round
	uint64_t *heap; // [n_turns], sparse only: round << 16 | index of the turn, smallest first
};

struct fill {
	struct order order;
	uint32_t m;
	uint32_t n_free;
	uint16_t *slots;
	uint64_t *free_bits; // [m / 64 + 1]
	int32_t *list;       // [n_free + FILL_LANES]: slot - m/2, or its low part
	int32_t *list_high;  // wide only
	bool is_wide;        // list is split in two
	uint64_t *inverses;  // [n_turns]
};

// ---------------------------------------------------------------- whose turn

// Round r gives member i floor((r+1)*w_i/w_max) - floor(r*w_i/w_max) turns, which is 0 or 1; kept as the running
// remainder r*w_i mod w_max.

static void heap_sift(uint64_t *heap, uint32_t n, uint32_t at)
{
	uint64_t item = heap[at];
	for (uint32_t child; (child = 2 * at + 1) < n; at = child) {
		if (child + 1 < n && heap[child + 1] < heap[child])
			child++;
		if (item <= heap[child])
			break;
		heap[at] = heap[child];
	}
	heap[at] = item;
}

// Rounds until the member's next turn; its remainder becomes that after it.
static uint32_t rounds_to_next(struct turn *turn, uint32_t w_max)
{
	uint32_t n = (w_max - turn->remainder + turn->weight - 1) / turn->weight;
	turn->remainder = turn->remainder + n * turn->weight - w_max;
	return n;
}

static void heap_make(const struct order *o)
{
	for (uint32_t i = 0; i < o->n_turns; i++)
		o->heap[i] = (uint64_t)rounds_to_next(&o->turns[i], o->w_max) << 16 | i;
	for (uint32_t i = o->n_turns / 2; i-- > 0;)
		heap_sift(o->heap, o->n_turns, i);
}

static struct turn *heap_next(struct turn *turns, uint64_t *heap, uint32_t n, uint32_t w_max)
{
	struct turn *turn = &turns[heap[0] & 0xffff];
	heap[0] += (uint64_t)rounds_to_next(turn, w_max) << 16;
	heap_sift(heap, n, 0);
	return turn;
}

static inline struct turn *next_turn(struct order *o)
{
	if (o->is_sparse)
		return heap_next(o->turns, o->heap, o->n_turns, o->w_max);
	for (;;) {
		struct turn *turn = &o->turns[o->turn_idx];
		o->turn_idx = o->turn_idx + 1 == o->n_turns ? 0 : o->turn_idx + 1;
		if (o->is_equal)
			return turn;
		turn->remainder += turn->weight;
		if (turn->remainder >= o->w_max) {
			turn->remainder -= o->w_max;
			return turn;
		}
	}
}

// ---------------------------------------------------------------- walk

static inline uint32_t add_mod(uint32_t a, uint32_t b, uint32_t m)
{
	uint32_t back = m - b; // does not wait for a
	return a >= back ? a - back : a + b;
}

static inline uint32_t is_free(const uint64_t *free_bits, uint32_t at)
{
	return (uint32_t)(free_bits[at >> 6] >> (at & 63)) & 1;
}

// a if it is free, else b: without a branch, which the compiler would see in it.
static inline uint32_t choose(uint32_t a_is_free, uint32_t a, uint32_t b)
{
	__asm__("" : "+r"(a_is_free));
	return b ^ ((a ^ b) & -a_is_free);
}

// The first free slot at, at + skip, ...: with one, two or four probes a guess.
typedef uint32_t find_function(const uint64_t *free_bits, uint32_t at, uint32_t skip, uint32_t m);

static inline uint32_t find_singly(
	const uint64_t *free_bits, uint32_t at, uint32_t skip, uint32_t m)
{
	while (!is_free(free_bits, at))
		at = add_mod(at, skip, m);
	return at;
}

static inline uint32_t find_by_two(
	const uint64_t *free_bits, uint32_t at, uint32_t skip, uint32_t m)
{
	for (;;) {
		uint32_t at1 = add_mod(at, skip, m);
		uint32_t f0 = is_free(free_bits, at), any = f0 | is_free(free_bits, at1);
		__asm__("" : "+r"(any)); // one branch, not two
		if (any)
			return choose(f0, at, at1);
		at = add_mod(at1, skip, m);
	}
}

static inline uint32_t find_by_four(
	const uint64_t *free_bits, uint32_t at, uint32_t skip, uint32_t m)
{
	uint32_t skip2 = add_mod(skip, skip, m);
	for (;;) {
		uint32_t at1 = add_mod(at, skip, m), at2 = add_mod(at, skip2, m);
		uint32_t at3 = add_mod(at1, skip2, m);
		uint32_t f0 = is_free(free_bits, at), f1 = is_free(free_bits, at1);
		uint32_t f2 = is_free(free_bits, at2), f3 = is_free(free_bits, at3);
		uint32_t any = f0 | f1 | f2 | f3;
		__asm__("" : "+r"(any));
		if (any)
			return choose(f0 | f1, choose(f0, at, at1), choose(f2, at2, at3));
		at = add_mod(at2, skip2, m);
	}
}

static inline __attribute__((always_inline)) void walk(
	struct fill *f, uint32_t n_left, find_function *find)
{
	struct order order = f->order;
	uint64_t *free_bits = f->free_bits;
	uint16_t *slots = f->slots;
	uint32_t m = f->m;
	for (uint32_t n = f->n_free; n > n_left; n--) {
		struct turn *turn = next_turn(&order);
		uint32_t at = find(free_bits, turn->position, turn->skip, m);
		free_bits[at >> 6] ^= 1ull << (at & 63);
		slots[at] = turn->member_idx;
		turn->position = add_mod(at, turn->skip, m);
	}
	f->n_free = n_left;
	f->order = order;
}

// n_left <= m/4.
static void fill_walking(struct fill *f, uint32_t n_left)
{
	walk(f, f->m / 2, find_by_two);
	walk(f, f->m / 4, find_by_four);
	walk(f, n_left, find_singly);
}

// ---------------------------------------------------------------- inverses

// a^-1 mod m, 0 < a < m, m prime (extended Euclid).
static uint64_t invert(uint64_t a, uint64_t m)
{
	int64_t t = 0, t_next = 1, r = (int64_t)m, r_next = (int64_t)a;
	while (r_next != 0) {
		int64_t q = r / r_next, was = t_next;
		t_next = t - q * t_next;
		t = was;
		was = r_next;
		r_next = r - q * r_next;
		r = was;
	}
	return (uint64_t)(t < 0 ? t + (int64_t)m : t);
}

// All inverses by one inversion (Montgomery): the product of all, inverted, then taken apart from behind.
static void invert_skips(struct fill *f)
{
	uint64_t m = f->m, product = 1;
	for (uint32_t i = 0; i < f->order.n_turns; i++) {
		f->inverses[i] = product;
		product = product * f->order.turns[i].skip % m;
	}
	uint64_t inverse = invert(product, m);
	for (uint32_t i = f->order.n_turns; i-- > 0;) {
		f->inverses[i] = f->inverses[i] * inverse % m;
		inverse = inverse * f->order.turns[i].skip % m;
	}
}

// ---------------------------------------------------------------- search

// What one search needs of its turn: x(e) = e * factor + start in 64-bit fixed point.
struct line {
	uint64_t factor;
	uint64_t start;
};

// unit: 2^64/m, cut off, so the factor is too small by less than inverse < 2^20 in 2^64.
static inline struct line line_of(
	const struct fill *f, const struct turn *turn, uint64_t inverse, uint64_t unit)
{
	struct line line = { .factor = inverse * unit };
	// List entries count from the middle, and the middle of an interval is half a unit on.
	line.start = (f->m / 2 - (uint64_t)turn->position) * line.factor + unit / 2;
	return line;
}

// Each returns the smallest x in the list, upper 32 bits.
static uint32_t search_scalar(const struct fill *f, const struct line *line)
{
	uint64_t best = UINT64_MAX;
	for (uint32_t i = 0; i < f->n_free; i++) {
		int64_t e = f->list[i];
		if (f->is_wide)
			e += (int64_t)f->list_high[i] * FILL_SPLIT;
		uint64_t x = (uint64_t)e * line->factor + line->start;
		best = x < best ? x : best;
	}
	return (uint32_t)(best >> 32);
}

#ifdef __x86_64__
#define FILL_AVX2 __attribute__((target("avx2")))

// The nearest 32-bit factor.
static inline uint32_t round_factor(uint64_t factor)
{
	return (uint32_t)(factor >> 32) + (uint32_t)(factor >> 31 & 1);
}

FILL_AVX2 static inline uint32_t smallest_lane(__m256i a)
{
	__m128i x = _mm_min_epu32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
	x = _mm_min_epu32(x, _mm_shuffle_epi32(x, 0x4e));
	x = _mm_min_epu32(x, _mm_shuffle_epi32(x, 0xb1));
	return (uint32_t)_mm_cvtsi128_si32(x);
}

FILL_AVX2 static uint32_t search_avx2(const struct fill *f, const struct line *line)
{
	__m256i factor = _mm256_set1_epi32((int)round_factor(line->factor));
	__m256i start = _mm256_set1_epi32((int)(line->start >> 32));
	__m256i a = _mm256_set1_epi32(-1), b = a;
	for (uint32_t i = 0; i < f->n_free; i += FILL_LANES) {
		const __m256i *e = (const __m256i *)(const void *)&f->list[i];
		__m256i x = _mm256_mullo_epi32(_mm256_loadu_si256(e), factor);
		__m256i y = _mm256_mullo_epi32(_mm256_loadu_si256(e + 1), factor);
		a = _mm256_min_epu32(a, _mm256_add_epi32(x, start));
		b = _mm256_min_epu32(b, _mm256_add_epi32(y, start));
	}
	return smallest_lane(_mm256_min_epu32(a, b));
}

FILL_AVX2 static uint32_t search_wide_avx2(const struct fill *f, const struct line *line)
{
	__m256i factor = _mm256_set1_epi32((int)round_factor(line->factor));
	__m256i high = _mm256_set1_epi32((int)round_factor(line->factor * FILL_SPLIT));
	__m256i start = _mm256_set1_epi32((int)(line->start >> 32));
	__m256i best = _mm256_set1_epi32(-1);
	for (uint32_t i = 0; i < f->n_free; i += 8) {
		__m256i e = _mm256_loadu_si256((const __m256i *)(const void *)&f->list[i]);
		__m256i h = _mm256_loadu_si256((const __m256i *)(const void *)&f->list_high[i]);
		__m256i x = _mm256_add_epi32(
			_mm256_mullo_epi32(e, factor), _mm256_mullo_epi32(h, high));
		best = _mm256_min_epu32(best, _mm256_add_epi32(x, start));
	}
	return smallest_lane(best);
}
#endif

typedef uint32_t search_function(const struct fill *f, const struct line *line);

static bool has_avx2(void)
{
#ifdef __x86_64__
	return __builtin_cpu_supports("avx2");
#else
	return false;
#endif
}

static search_function *choose_search(enum balance_variant variant, bool is_wide)
{
#ifdef __x86_64__
	if (variant != BALANCE_SCALAR && has_avx2())
		return is_wide ? search_wide_avx2 : search_avx2;
#endif
	return search_scalar;
}

// ---------------------------------------------------------------- the list

static void list_put(struct fill *f, uint32_t at, uint32_t slot)
{
	int32_t e = (int32_t)slot - (int32_t)(f->m / 2);
	if (f->is_wide) {
		f->list_high[at] = (e + FILL_SPLIT / 2) >> 10;
		e -= f->list_high[at] * FILL_SPLIT;
	}
	f->list[at] = e;
	f->slots[slot] = (uint16_t)at;
}

static uint32_t list_slot(const struct fill *f, uint32_t at)
{
	int32_t e = f->list[at] + (f->is_wide ? f->list_high[at] * FILL_SPLIT : 0);
	return (uint32_t)(e + (int32_t)(f->m / 2));
}

// Past the end: copies of an entry, so that they change no minimum.
static void list_end(struct fill *f)
{
	for (uint32_t i = 0; i < FILL_LANES; i++) {
		f->list[f->n_free + i] = f->list[0];
		if (f->is_wide)
			f->list_high[f->n_free + i] = f->list_high[0];
	}
}

static void list_make(struct fill *f)
{
	uint32_t n = 0;
	for (uint32_t word = 0; word <= f->m / 64; word++) {
		for (uint64_t bits = f->free_bits[word]; bits != 0; bits &= bits - 1)
			list_put(f, n++, word * 64 + (uint32_t)__builtin_ctzll(bits));
	}
	list_end(f);
}

static void list_take(struct fill *f, uint32_t slot, uint16_t member_idx)
{
	uint32_t at = f->slots[slot], last = list_slot(f, --f->n_free);
	if (last != slot)
		list_put(f, at, last);
	list_end(f);
	f->slots[slot] = member_idx;
}

static void fill_searching(struct fill *f, search_function *search)
{
	uint64_t unit = UINT64_MAX / f->m;
	invert_skips(f);
	list_make(f);
	while (f->n_free > 0) {
		const struct turn *turn = next_turn(&f->order);
		struct line line = line_of(f, turn, f->inverses[turn - f->order.turns], unit);
		uint64_t j = (uint64_t)search(f, &line) * f->m >> 32;
		list_take(
			f, (uint32_t)((turn->position + j * turn->skip) % f->m), turn->member_idx);
	}
}

// ---------------------------------------------------------------- both

// Free slots from which on searching beats walking: by measurement, in units of sqrt(m).
static uint32_t search_from(uint32_t m, search_function *search)
{
	uint32_t root = 1;
	while (root * root < m)
		root++;
	uint32_t n = search == search_scalar ? root : 5 * root / 2;
	return n < m / 4 ? n : m / 4;
}

static int fill_alloc(struct fill *f, uint32_t n_list)
{
	f->free_bits = malloc((f->m / 64 + 1) * sizeof(*f->free_bits));
	f->list = malloc((n_list + FILL_LANES) * sizeof(*f->list));
	f->list_high = f->is_wide ? malloc((n_list + FILL_LANES) * sizeof(*f->list_high)) : NULL;
	f->inverses = malloc(f->order.n_turns * sizeof(*f->inverses));
	f->order.heap =
		f->order.is_sparse ? malloc(f->order.n_turns * sizeof(*f->order.heap)) : NULL;
	bool ok = f->free_bits && f->list && f->inverses && (f->list_high || !f->is_wide) &&
		  (f->order.heap || !f->order.is_sparse);
	return ok ? 0 : -ENOMEM;
}

static void order_weigh(struct order *o)
{
	uint32_t w_min = UINT32_MAX;
	uint64_t w_sum = 0;
	for (uint32_t i = 0; i < o->n_turns; i++) {
		uint32_t w = o->turns[i].weight;
		w_sum += w;
		w_min = w < w_min ? w : w_min;
		o->w_max = w > o->w_max ? w : o->w_max;
	}
	o->is_equal = w_min == o->w_max;
	o->is_sparse = w_sum * FILL_SPARSE < (uint64_t)o->n_turns * o->w_max;
}

int balance_fill(struct turn *turns, uint32_t n_turns, uint32_t m, enum balance_variant variant,
	uint16_t *slots)
{
	struct fill f = { .order = { .turns = turns, .n_turns = n_turns },
		.m = m,
		.n_free = m,
		.is_wide = m > FILL_NARROW,
		.slots = slots };
	if (variant == BALANCE_AVX2 && !has_avx2())
		return -ENOTSUP;
	search_function *search = choose_search(variant, f.is_wide);
	uint32_t n_list = search_from(m, search);
	order_weigh(&f.order);
	int rc = fill_alloc(&f, n_list);
	if (rc == 0) {
		memset(f.free_bits, 0xff, m / 64 * sizeof(*f.free_bits));
		f.free_bits[m / 64] = (1ull << (m & 63)) - 1; // m is odd: never a whole word
		if (f.order.is_sparse)
			heap_make(&f.order);
		fill_walking(&f, n_list);
		fill_searching(&f, search);
	}
	free(f.order.heap);
	free(f.inverses);
	free(f.list_high);
	free(f.list);
	free(f.free_bits);
	return rc;
}
