// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// What the benches share: how a figure is measured, reported, and where tables are placed.
//
// Method (dataplane: "How to measure"): contenders take turns in one thread of one process, A B C A B C
// ..., at least 9 rounds; medians; a multiple is the median of the rounds' own ratios. Work is timed burst by
// burst between fences, what prepares it is not; the cost of an empty burst is subtracted. A burst of
// more than 20 us was interrupted: it is left out and counted. A round in which the hypervisor took
// time away (steal) is repeated.

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <x86intrin.h>

#define BENCH_BURST          64
#define BENCH_CHURN_BURST    32 // some 12 us of rte_hash: below a gap
#define BENCH_CONTENDERS_MAX 8
#define BENCH_ROUNDS_MAX     99

struct bench_options {
	bool json;
	bool large; // 10M flows too
	uint32_t n_rounds;
	const char *size;    // of tables: only this one ("1", "1K", "64K", "1M", "10M"); NULL: all
	const char *variant; // of flow_lookup_bulk; NULL: the fastest
	const char *device;  // of bench_ports
};

// One result: interfaces, section 8. NAN = none. NULL peer, gate or limit: none.
struct bench_line {
	const char *bench;
	const char *goal;
	const char *name; // "case"
	double value;
	const char *unit;
	const char *peer;
	double peer_value;
	double multiple;
	double gate;
	bool gate_is_floor; // the multiple must reach the gate; else it must not pass it
	const char *limit;  // what bounds it physically
	double limit_value;
};
bool bench_wants_size(const struct bench_options *options, const char *size);
void bench_report(const struct bench_options *options, const struct bench_line *line);
// A line without a figure, and the reason on stderr; counted.
void bench_skip(const struct bench_options *options, const char *bench, const char *goal,
	const char *name, const char *reason);
extern uint32_t *bench_n_skipped; // shared with the processes of the benches that have one

// ---------------------------------------------------------------- time
struct bench_timer {
	uint64_t start;
	uint64_t ticks;
	uint64_t n_ops;
};

extern double bench_ns_per_tick;   // set by bench_calibrate
extern uint64_t bench_empty_ticks; // cost of an empty start-stop
extern uint64_t bench_gap_ticks;   // 20 us
extern uint64_t bench_n_bursts;    // timed
extern uint64_t bench_n_gaps;      // left out
extern uint64_t bench_n_repeated;  // rounds repeated because of steal
void bench_calibrate(void);
double bench_clock_ghz(void); // the core's clock now, by a loop of dependent additions

static inline void bench_start(struct bench_timer *t)
{
	_mm_lfence();
	t->start = __rdtsc();
	_mm_lfence();
}

static inline void bench_stop(struct bench_timer *t, uint32_t n_ops)
{
	uint32_t cpu;
	uint64_t end = __rdtscp(&cpu);
	_mm_lfence();
	uint64_t ticks = end - t->start;
	bench_n_bursts++;
	if (ticks > bench_gap_ticks) {
		bench_n_gaps++;
		return;
	}
	t->ticks += ticks > bench_empty_ticks ? ticks - bench_empty_ticks : 0;
	t->n_ops += n_ops;
}

// NAN: every burst was interrupted (a much slower build, a machine without a free processor).
static inline double bench_ns_per_op(const struct bench_timer *t)
{
	return t->n_ops ? (double)t->ticks * bench_ns_per_tick / (double)t->n_ops : NAN;
}

// A contender measures once and says ns per operation.
struct bench_contender {
	double (*sample)(void *rig);
	void *rig;
};

struct bench_rounds {
	uint32_t n_rounds;
	uint32_t n_contenders;
	double ns[BENCH_CONTENDERS_MAX][BENCH_ROUNDS_MAX];
};
// All contenders in turn, n_rounds times, after one round that does not count.
void bench_run(const struct bench_contender *contenders, uint32_t n, uint32_t n_rounds,
	struct bench_rounds *out);
// NAN does not count; NAN when nothing else is there.
double bench_median_of(const double *values, uint32_t n_values);
double bench_median(const struct bench_rounds *r, uint32_t contender);
// Median over the rounds of contender a / contender b.
double bench_ratio(const struct bench_rounds *r, uint32_t a, uint32_t b);

// ---------------------------------------------------------------- random numbers, memory
struct bench_rng {
	uint64_t state;
};
static inline uint64_t bench_random(struct bench_rng *rng)
{
	rng->state += 0x9e3779b97f4a7c15ull;
	uint64_t z = (rng->state ^ (rng->state >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}
static inline uint32_t bench_random_below(struct bench_rng *rng, uint32_t n)
{
	return (uint32_t)((bench_random(rng) >> 32) * n >> 32);
}

// Both sides' tables lie in one heap of 2 MB pages (huge pages if there are any, else transparent ones).
// 0 or -errno.
int bench_heap_init(size_t size);
int bench_heap_socket(void);        // for DPDK's allocators
const char *bench_heap_pages(void); // "hugetlb", "thp"
void *bench_alloc(size_t size);     // 64-byte aligned, zeroed; ends the program when out of memory
void bench_release(void *mem);

// ---------------------------------------------------------------- peers and benches
// rte_hash of n flows with 16-byte keys and an inline two-CRC32 hash, as small as takes them.
struct bench_hash;
struct bench_hash *bench_hash_create(uint32_t n_flows);
void bench_hash_destroy(struct bench_hash *h);
const char *bench_hash_library(
	void); // the file that it comes from: packaged, or built for this machine
double bench_hash_hit(struct bench_hash *h, uint32_t bulk);  // sample: look-ups of present keys
double bench_hash_miss(struct bench_hash *h, uint32_t bulk); // of absent ones
double bench_hash_churn(struct bench_hash *h); // sample: delete a random key and add a new one
double bench_hash_hit32(void *h);              // bulk 32: the unit of the gates, "h"
double bench_hash_churn32(void *h);            // the other unit, "c"
// 2^20 places, 75 % full: "c" at 1M flows. A fuller one takes much longer.
#define BENCH_HASH_CHURN_FLOWS (3u << 18)

int bench_table(const struct bench_options *options);
int bench_oneway(const struct bench_options *options);
int bench_pipeline(const struct bench_options *options);
int bench_maglev(const struct bench_options *options);
int bench_flows(const struct bench_options *options);
int bench_scale(const struct bench_options *options);
int bench_flood(const struct bench_options *options);
int bench_null(const struct bench_options *options);
int bench_ports(const struct bench_options *options);
int bench_workers(const struct bench_options *options);
int bench_residence(const struct bench_options *options);
int bench_changes(const struct bench_options *options);
int bench_idle(const struct bench_options *options);
int bench_snat(const struct bench_options *options);
int bench_ageing(const struct bench_options *options);
