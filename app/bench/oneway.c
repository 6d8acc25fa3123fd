// SPDX-License-Identifier: BSD-3-Clause
// The table of one-way modes beside rte_hash: look-ups that hit and miss (G1, G2), a flow that goes and one that comes (G3),
// the slowest insertions into a nearly full table (G4), bytes per flow (G5), and what the sweep costs.
//
// The table is filled to its capacity and then churned: as many flows have gone and come as it holds, each with 10 packets
// on average, because entries of a table that was only ever filled lie better than in life. Its key is 24 bytes,
// rte_hash's 16; a look-up ends with the backend at hand, rte_hash's with the position.
#include "bench_priv.h"
#include "oneway.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ONEWAY_SAMPLE_BURSTS 2048
#define ONEWAY_MISS_FIRST    (1u << 30) // flow numbers from here on are never added
#define ONEWAY_TAIL_SAMPLES  200000

struct oneway_rig {
	struct oneway_table table;
	void *mem;
	bool v6;
	uint32_t n_flows;
	uint32_t n_ids;
	uint32_t *ids; // [n_flows] numbers of those in the table
	struct flow_policy policy;
	struct oneway_timeouts timeouts;
	struct bench_rng rng;
	struct bench_hash *hash;
};

static void oneway_die(const char *what)
{
	fprintf(stderr, "sluice-bench: the one-way table %s\n", what);
	exit(1);
}

static struct flow_key oneway_make_key(bool v6, uint32_t id)
{
	uint32_t mixed = id * 0x9e3779b1u; // odd: one to one
	struct address client = address_from_v4(mixed);
	if (v6) {
		client.words[0] = RTE_BE32(0x20010db8);
		client.words[2] = mixed ^ 0x5bd1e995;
	}
	return flow_key_make(&client, (rte_be16_t)(mixed >> 7), RTE_BE16(80), 1, NET_PROTO_TCP);
}

static uint32_t oneway_rig_add(struct oneway_rig *rig, const struct flow_key *key, uint64_t hash)
{
	struct oneway_entry entry = {
		.key = *key, .backend_id = hash % 16, .state = ONEWAY_ESTABLISHED
	};
	uint64_t evicted;
	return oneway_add(&rig->table, hash, &entry, &rig->timeouts, &evicted);
}

static uint32_t oneway_rig_find(struct oneway_rig *rig, uint32_t id)
{
	struct flow_key key = oneway_make_key(rig->v6, id);
	uint64_t hash = flow_key_hash(&rig->table.schedule, &key);
	uint32_t ref;
	oneway_lookup_bulk(&rig->table, &key, &hash, 1, &ref);
	return ref;
}

// Adds a new flow in place of the one that ids[at] names (UINT32_MAX: none).
static void oneway_rig_renew(struct oneway_rig *rig, uint32_t at)
{
	if (rig->ids[at] != UINT32_MAX)
		oneway_remove(&rig->table, oneway_rig_find(rig, rig->ids[at]));
	do { // IPv6 refuses one in a thousand
		rig->ids[at] = rig->n_ids++;
		struct flow_key key = oneway_make_key(rig->v6, rig->ids[at]);
		uint64_t hash = flow_key_hash(&rig->table.schedule, &key);
		if (oneway_rig_add(rig, &key, hash) != ONEWAY_NONE)
			return;
	} while (rig->n_ids < ONEWAY_MISS_FIRST);
	oneway_die("takes no flows");
}

// One packet each of a burst of random flows.
static void oneway_rig_packets(struct oneway_rig *rig)
{
	struct flow_key keys[BENCH_BURST];
	uint64_t hashes[BENCH_BURST];
	uint32_t refs[BENCH_BURST];
	for (uint32_t i = 0; i < BENCH_BURST; i++) {
		uint32_t at = bench_random_below(&rig->rng, rig->n_flows);
		keys[i] = oneway_make_key(rig->v6, rig->ids[at]);
		hashes[i] = flow_key_hash(&rig->table.schedule, &keys[i]);
	}
	oneway_lookup_bulk(&rig->table, keys, hashes, BENCH_BURST, refs);
}

static void oneway_start(struct oneway_rig *rig, bool v6, uint32_t capacity, uint32_t n_flows)
{
	static const struct hash_key key = { { 0x243f6a8885a308d3ull, 0x13198a2e03707344ull } };
	struct oneway_capacity both = { v6 ? 0 : capacity, v6 ? capacity : 0 };
	size_t size = oneway_size(both);
	memset(rig, 0, sizeof(*rig));
	rig->v6 = v6;
	rig->n_flows = n_flows;
	rig->rng.state = 7;
	rig->policy = flow_policy_make(900, 60);
	rig->timeouts.policies = &rig->policy;
	rig->mem = bench_alloc(size);
	rig->ids = malloc(n_flows * sizeof(*rig->ids));
	if (oneway_init(&rig->table, rig->mem, size, both, &key) != 0)
		oneway_die("is not laid out");
	memset(rig->ids, 0xff, n_flows * sizeof(*rig->ids));
	for (uint32_t i = 0; i < n_flows; i++)
		oneway_rig_renew(rig, i);
	for (uint32_t i = 0; i < n_flows; i++) {
		oneway_rig_renew(rig, bench_random_below(&rig->rng, n_flows));
		if (i * 10 % BENCH_BURST < 10)
			oneway_rig_packets(rig);
	}
}

static void oneway_end(struct oneway_rig *rig)
{
	bench_release(rig->mem);
	free(rig->ids);
	if (rig->hash)
		bench_hash_destroy(rig->hash);
}

// ---------------------------------------------------------------- look-ups

static double oneway_lookups(struct oneway_rig *rig, bool hit)
{
	struct flow_key keys[BENCH_BURST];
	uint64_t hashes[BENCH_BURST], sum = 0;
	uint32_t refs[BENCH_BURST];
	struct bench_timer t = { 0 };
	for (uint32_t b = 0; b < ONEWAY_SAMPLE_BURSTS; b++) {
		for (uint32_t i = 0; i < BENCH_BURST; i++) {
			uint32_t at = bench_random_below(&rig->rng, rig->n_flows);
			keys[i] = oneway_make_key(
				rig->v6, hit ? rig->ids[at] : ONEWAY_MISS_FIRST + at);
		}
		bench_start(&t);
		flow_hash_keys(&rig->table.schedule, keys, BENCH_BURST, hashes);
		oneway_lookup_bulk(&rig->table, keys, hashes, BENCH_BURST, refs);
		for (uint32_t i = 0; i < BENCH_BURST && hit; i++)
			sum += oneway_backend_id(oneway_word(&rig->table, refs[i]));
		bench_stop(&t, BENCH_BURST);
		if ((refs[0] != ONEWAY_NONE) != hit)
			oneway_die("gives a wrong answer");
	}
	__asm__ volatile("" : : "r"(sum));
	return bench_ns_per_op(&t);
}

static double oneway_hit(void *arg)
{
	return oneway_lookups(arg, true);
}

static double oneway_miss(void *arg)
{
	return oneway_lookups(arg, false);
}

static double peer_hit64(void *arg)
{
	return bench_hash_hit(arg, 64);
}

static double peer_miss64(void *arg)
{
	return bench_hash_miss(arg, 64);
}

// What memory alone costs: one line per look-up, all of a burst asked for before any is read.
static double oneway_one_line(void *arg)
{
	struct oneway_rig *rig = arg;
	uint32_t at[BENCH_BURST];
	struct bench_timer t = { 0 };
	uint64_t sum = 0;
	for (uint32_t k = 0; k < ONEWAY_SAMPLE_BURSTS; k++) {
		for (uint32_t i = 0; i < BENCH_BURST; i++)
			at[i] = 4 * bench_random_below(&rig->rng, rig->table.n_lines);
		bench_start(&t);
		for (uint32_t i = 0; i < BENCH_BURST; i++)
			oneway_prefetch_ref(&rig->table, at[i]);
		for (uint32_t i = 0; i < BENCH_BURST; i++)
			sum += oneway_word(&rig->table, at[i]);
		bench_stop(&t, BENCH_BURST);
	}
	__asm__ volatile("" : : "r"(sum));
	return bench_ns_per_op(&t);
}

struct oneway_bench_size {
	const char *name;
	uint32_t n_flows;
	double hit_gate;
};

static const struct oneway_bench_size oneway_sizes[] = {
	{ "64K", 65536, 1.6 },
	{ "1M", 1000000, 1.8 },
	{ "10M", 10000000, 2.0 },
};

static void oneway_report_lookups(
	const struct bench_options *options, const struct oneway_bench_size *size, bool v6)
{
	struct oneway_rig rig;
	struct bench_rounds *rounds = calloc(1, sizeof(*rounds));
	char name[48];
	oneway_start(&rig, v6, size->n_flows, size->n_flows);
	rig.hash = bench_hash_create(size->n_flows);
	struct bench_contender contenders[] = { { oneway_hit, &rig }, { peer_hit64, rig.hash },
		{ oneway_one_line, &rig }, { oneway_miss, &rig }, { peer_miss64, rig.hash },
		{ bench_hash_hit32, rig.hash } };
	bench_run(contenders, 6, options->n_rounds, rounds);
	struct bench_line line = { .bench = "oneway",
		.goal = "G1",
		.name = name,
		.value = bench_median(rounds, 0),
		.unit = "ns",
		.peer = "rte_hash bulk 64",
		.peer_value = bench_median(rounds, 1),
		.multiple = bench_ratio(rounds, 1, 0),
		.gate = size->hit_gate,
		.gate_is_floor = true,
		.limit = "one prefetched line",
		.limit_value = bench_median(rounds, 2) };
	snprintf(name, sizeof(name), "oneway%d/%s", v6 ? 6 : 4, size->name);
	bench_report(options, &line);
	line.goal = "G2";
	line.value = bench_median(rounds, 3);
	line.peer_value = bench_median(rounds, 4);
	line.multiple = bench_ratio(rounds, 4, 3);
	line.gate = 1.5;
	snprintf(name, sizeof(name), "oneway%d/%s", v6 ? 6 : 4, size->name);
	bench_report(options, &line);
	line.goal = NULL;
	line.value = bench_median(rounds, 0);
	line.peer = "rte_hash bulk 32 (h)";
	line.peer_value = bench_median(rounds, 5);
	line.multiple = bench_ratio(rounds, 5, 0);
	line.gate = NAN;
	snprintf(name, sizeof(name), "oneway%d hit, h/%s", v6 ? 6 : 4, size->name);
	bench_report(options, &line);
	oneway_end(&rig);
	free(rounds);
}

// ---------------------------------------------------------------- insertion

struct oneway_burst {
	uint32_t at[BENCH_CHURN_BURST]; // of ids: who goes; all different
	struct flow_key gone[BENCH_CHURN_BURST], come[BENCH_CHURN_BURST];
};

static void oneway_make_burst(struct oneway_rig *rig, struct oneway_burst *b)
{
	// One of each part of the list: no flow goes twice.
	uint32_t part = rig->n_flows / BENCH_CHURN_BURST;
	for (uint32_t i = 0; i < BENCH_CHURN_BURST; i++) {
		b->at[i] = i * part + bench_random_below(&rig->rng, part);
		b->gone[i] = oneway_make_key(rig->v6, rig->ids[b->at[i]]);
		rig->ids[b->at[i]] = rig->n_ids++;
		b->come[i] = oneway_make_key(rig->v6, rig->ids[b->at[i]]);
	}
}

// As a caller with a burst of expired and of new flows does: finds all that go, then adds all that come.
static bool oneway_churn_burst_of(struct oneway_rig *rig, const struct oneway_burst *b)
{
	uint64_t hashes[BENCH_CHURN_BURST];
	uint32_t refs[BENCH_CHURN_BURST];
	bool failed = false;
	for (uint32_t i = 0; i < BENCH_CHURN_BURST; i++)
		hashes[i] = flow_key_hash(&rig->table.schedule, &b->gone[i]);
	oneway_lookup_bulk(&rig->table, b->gone, hashes, BENCH_CHURN_BURST, refs);
	for (uint32_t i = 0; i < BENCH_CHURN_BURST; i++) {
		hashes[i] = flow_key_hash(&rig->table.schedule, &b->come[i]);
		oneway_prefetch(&rig->table, &b->come[i], hashes[i]);
		oneway_prefetch_add(&rig->table, &b->come[i], hashes[i]);
	}
	for (uint32_t i = 0; i < BENCH_CHURN_BURST; i++)
		oneway_remove(&rig->table, refs[i]);
	for (uint32_t i = 0; i < BENCH_CHURN_BURST; i++)
		failed |= oneway_rig_add(rig, &b->come[i], hashes[i]) == ONEWAY_NONE;
	return !failed;
}

static bool oneway_churn_one_by_one(struct oneway_rig *rig, const struct oneway_burst *b)
{
	bool failed = false;
	for (uint32_t i = 0; i < BENCH_CHURN_BURST; i++) {
		uint64_t hash = flow_key_hash(&rig->table.schedule, &b->come[i]);
		oneway_remove(&rig->table, oneway_lookup(&rig->table, &b->gone[i]));
		failed |= oneway_rig_add(rig, &b->come[i], hash) == ONEWAY_NONE;
	}
	return !failed;
}

static double oneway_churn(
	struct oneway_rig *rig, bool (*churn)(struct oneway_rig *rig, const struct oneway_burst *b))
{
	struct oneway_burst b;
	struct bench_timer t = { 0 };
	bool taken = true;
	for (uint32_t k = 0; k < ONEWAY_SAMPLE_BURSTS; k++) {
		oneway_make_burst(rig, &b);
		bench_start(&t);
		taken &= churn(rig, &b);
		bench_stop(&t, BENCH_CHURN_BURST);
	}
	if (!taken)
		oneway_die("refused a flow");
	return bench_ns_per_op(&t);
}

static double oneway_churn_bursts(void *arg)
{
	return oneway_churn(arg, oneway_churn_burst_of);
}

static double oneway_churn_alone(void *arg)
{
	return oneway_churn(arg, oneway_churn_one_by_one);
}

static double peer_churn(void *arg)
{
	return bench_hash_churn(arg);
}

static void oneway_report_churn(const struct bench_options *options)
{
	// Filled to the capacity, which is 67 % of the entries of this table; rte_hash to 75 % of its own.
	uint32_t n_flows = (1u << 20) / 4 * 3, capacity = n_flows;
	struct oneway_rig rig;
	struct bench_rounds *rounds = calloc(1, sizeof(*rounds));
	oneway_start(&rig, false, capacity, n_flows);
	rig.hash = bench_hash_create(n_flows);
	struct bench_contender contenders[] = { { oneway_churn_bursts, &rig },
		{ peer_churn, rig.hash }, { oneway_churn_alone, &rig } };
	bench_run(contenders, 3, options->n_rounds, rounds);
	struct bench_line line = { .bench = "oneway",
		.goal = "G3",
		.name = "oneway4/1M",
		.value = bench_median(rounds, 0),
		.unit = "ns",
		.peer = "rte_hash del+add",
		.peer_value = bench_median(rounds, 1),
		.multiple = bench_ratio(rounds, 1, 0),
		.gate = 3,
		.gate_is_floor = true,
		.limit_value = NAN };
	bench_report(options, &line);
	line.goal = NULL; // not how the data path does it
	line.name = "oneway4 remove+add one by one/1M";
	line.value = bench_median(rounds, 2);
	line.multiple = bench_ratio(rounds, 1, 2);
	line.gate = NAN;
	bench_report(options, &line);
	oneway_end(&rig);
	free(rounds);
}

// ---------------------------------------------------------------- slowest insertions

static int compare_u32(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
	return x < y ? -1 : x > y;
}

// p99.9 of an insertion into a table that holds n_flows live flows, none of which may go. *out_median_ns: of the same.
static double oneway_tail(uint32_t capacity, uint32_t n_flows, double *out_median_ns)
{
	uint32_t *ticks = malloc(ONEWAY_TAIL_SAMPLES * sizeof(*ticks)), n = 0;
	struct oneway_rig rig;
	oneway_start(&rig, false, capacity, n_flows);
	for (uint32_t i = 0; i < ONEWAY_TAIL_SAMPLES; i++) {
		uint32_t at = bench_random_below(&rig.rng, n_flows);
		struct flow_key key = oneway_make_key(false, rig.n_ids);
		uint64_t hash = flow_key_hash(&rig.table.schedule, &key);
		struct bench_timer t = { 0 };
		oneway_remove(&rig.table, oneway_rig_find(&rig, rig.ids[at]));
		rig.ids[at] = rig.n_ids++;
		bench_start(&t);
		bool taken = oneway_rig_add(&rig, &key, hash) != ONEWAY_NONE;
		bench_stop(&t, 1);
		if (t.n_ops > 0)
			ticks[n++] = (uint32_t)t.ticks;
		if (!taken) {
			rig.ids[at] = UINT32_MAX;
			oneway_rig_renew(&rig, at);
		}
	}
	qsort(ticks, n, sizeof(*ticks), compare_u32);
	double p999_ns = ticks[n - 1 - n / 1000] * bench_ns_per_tick;
	*out_median_ns = ticks[n / 2] * bench_ns_per_tick;
	oneway_end(&rig);
	free(ticks);
	return p999_ns;
}

static void oneway_report_tail(const struct bench_options *options)
{
	double median_ns, p999_ns = oneway_tail(1000000, 950000, &median_ns);
	struct bench_line line = { .bench = "oneway",
		.goal = "G4",
		.name = "oneway4/1M",
		.value = p999_ns,
		.unit = "ns",
		.peer = "median",
		.peer_value = median_ns,
		.multiple = p999_ns,
		.gate = 2000,
		.limit_value = NAN };
	bench_report(options, &line);
	// Far above the capacity: one in 17 goes without an entry.
	line.goal = NULL;
	line.name = "oneway4 add p99.9/1M/95% of entries";
	line.value = line.multiple = oneway_tail(800000, 950000, &median_ns);
	line.peer_value = median_ns;
	line.gate = NAN;
	bench_report(options, &line);
}

// ---------------------------------------------------------------- memory

// Filled, not reckoned: a table of this size took this many flows.
static void oneway_report_memory(const struct bench_options *options, bool v6)
{
	uint32_t n_flows = 200000;
	struct oneway_rig rig;
	oneway_start(&rig, v6, n_flows, n_flows);
	struct oneway_capacity both = { v6 ? 0 : n_flows, v6 ? n_flows : 0 };
	struct bench_line line = { .bench = "oneway",
		.goal = "G5",
		.name = v6 ? "oneway6" : "oneway4",
		.value = (double)oneway_size(both) / rig.table.families[v6].n_entries,
		.unit = "bytes/flow",
		.peer_value = NAN,
		.gate = v6 ? 48 : 24,
		.limit_value = NAN };
	line.multiple = line.value;
	bench_report(options, &line);
	oneway_end(&rig);
}

// ---------------------------------------------------------------- sweep

// A pass over 1M entries of which one in `every` is expired (0: none): ns per entry.
static double oneway_pass(struct oneway_rig *rig, uint32_t every)
{
	enum { SLICE = 64 };
	uint64_t words[4 * SLICE], pass = rig->table.n_sweeps;
	struct bench_timer t = { 0 };
	for (uint32_t i = 0; i < rig->n_flows; i++)
		if (every == 0 || bench_random_below(&rig->rng, every) != 0)
			oneway_touch(&rig->table, oneway_rig_find(rig, rig->ids[i]));
	while (rig->table.n_sweeps == pass) {
		bench_start(&t);
		oneway_sweep(&rig->table, &rig->timeouts, SLICE, words);
		bench_stop(&t, 1);
	}
	return (double)t.ticks * bench_ns_per_tick / rig->n_flows;
}

static void oneway_report_sweep(const struct bench_options *options)
{
	struct oneway_rig rig;
	oneway_start(&rig, false, 1000000, 1000000);
	double live_ns = NAN, expire_ns;
	for (uint32_t k = 0; k < 9; k++) {
		double ns = oneway_pass(&rig, 0);
		live_ns = isnan(live_ns) || ns < live_ns ? ns : live_ns;
	}
	oneway_advance(&rig.table, 1000);
	expire_ns = oneway_pass(&rig, 10);
	uint32_t n_gone = rig.n_flows - rig.table.families[0].n_entries;
	struct bench_line line = { .bench = "oneway",
		.name = "oneway4 sweep, per live entry/1M",
		.value = live_ns,
		.unit = "ns",
		.peer_value = NAN,
		.multiple = NAN,
		.gate = NAN,
		.limit_value = NAN };
	bench_report(options, &line);
	line.name = "oneway4 sweep, per expired entry/1M";
	line.value = (expire_ns - live_ns) * rig.n_flows / n_gone;
	bench_report(options, &line);
	oneway_end(&rig);
}

int bench_oneway(const struct bench_options *options)
{
	for (uint32_t i = 0; i < sizeof(oneway_sizes) / sizeof(oneway_sizes[0]); i++)
		for (uint32_t v6 = 0; v6 < 2 && bench_wants_size(options, oneway_sizes[i].name);
			v6++)
			oneway_report_lookups(options, &oneway_sizes[i], v6);
	oneway_report_churn(options);
	oneway_report_tail(options);
	oneway_report_memory(options, false);
	oneway_report_memory(options, true);
	oneway_report_sweep(options);
	return 0;
}
