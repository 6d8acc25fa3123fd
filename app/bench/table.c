// SPDX-License-Identifier: BSD-3-Clause
// The flow table beside rte_hash: look-ups that hit and miss (G1, G2), a flow that goes and one that
// comes (G3), the slowest insertions into a nearly full table (G4), bytes per flow (G5).
//
// Look-ups that hit ask for either side of a flow at random, as packets come. Flows of fullnat (G1, G2) have one key in the table; the
// other is a reply's, whose source port says which flow it is: finding that port is timed too. Misses are first packets of
// clients; a stranger's packet to a port in use has a line of its own. Flows of dnat have two keys in the table, and lines of
// their own; the slowest insertions (G4) are theirs. rte_hash holds one 16-byte key per flow.
#include "bench_priv.h"
#include "flow.h"
#include "snat.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TABLE_SAMPLE_BURSTS 2048
#define TABLE_MISS_FIRST    (1u << 30) // flow numbers from here on are never added

struct table_rig {
	struct flow_table table;
	void *mem;
	uint32_t n_flows;
	uint32_t n_ids;
	struct bench_rng rng;
	struct bench_hash *hash;
	// of flows with a source port
	struct snat *snat;
	void *snat_mem;
	struct {
		uint16_t slot;
		rte_be16_t port;
	} * ports; // by flow number
};

static struct flow_record table_make_flow(uint32_t id)
{
	uint32_t mixed = id * 0x9e3779b1u; // odd: one to one
	return (struct flow_record){ .client = address_from_v4(mixed),
		.backend = address_from_v4(0x0200000a + (id % 16 << 24)),
		.client_port = (rte_be16_t)(mixed >> 7),
		.vip_port = RTE_BE16(80),
		.backend_port = RTE_BE16(8080),
		.snat_port = (rte_be16_t)id,
		.vip_slot = 1,
		.snat_slot = (uint16_t)(100 + (id >> 16)),
		.protocol = NET_PROTO_TCP,
		.state = FLOW_STATE_ESTABLISHED,
		.backend_id = id % 16 };
}

static struct flow_key table_make_key(uint32_t id, bool of_backend)
{
	struct flow_record r = table_make_flow(id);
	return of_backend ? flow_backend_key(&r) : flow_client_key(&r);
}

static void table_die(const char *what)
{
	fprintf(stderr, "sluice-bench: the flow table %s\n", what);
	exit(1);
}

// Source ports as the data path has them: addresses enough for what one worker's ports can be of the table's flows.
static void table_start_ports(struct table_rig *rig, uint32_t n_flows)
{
	struct snat_config *config = calloc(1, sizeof(*config));
	config->port_min = 1024;
	config->port_max = 65535;
	config->n_workers = 1;
	config->n_addresses = (uint16_t)(1 + n_flows / 500000);
	for (uint16_t a = 0; a < config->n_addresses; a++) {
		config->addresses[a] = address_from_v4(rte_cpu_to_be_32(0xc6336401u + a));
		config->slots[a] = (uint16_t)(100 + a);
	}
	size_t size = (snat_size(config, 0) + 63) & ~63ul;
	rig->snat_mem = bench_alloc(size);
	rig->ports = bench_alloc(n_flows * sizeof(*rig->ports));
	if (snat_init(rig->snat_mem, size, config, 0, &rig->snat) != 0)
		table_die("has no source ports");
	free(config);
}

static void table_add(struct table_rig *rig, uint32_t id)
{
	struct flow_record r = table_make_flow(id);
	if (rig->snat != NULL) {
		r.flags = FLOW_FLAG_BY_PORT;
		if (snat_alloc(rig->snat, &r.backend, r.backend_port, r.protocol,
			    (uint32_t)bench_random(&rig->rng), &r.snat_slot, &r.snat_port) != 0)
			table_die("is out of source ports");
		rig->ports[id].slot = r.snat_slot;
		rig->ports[id].port = r.snat_port;
	}
	uint32_t idx = flow_add(&rig->table, &r);
	if (idx == FLOW_NONE)
		table_die("takes fewer flows than its capacity");
	if (rig->snat != NULL)
		snat_name(rig->snat, idx);
}

static void table_start(struct table_rig *rig, uint32_t capacity, uint32_t n_flows, bool has_ports)
{
	static const struct hash_key key = { { 0x243f6a8885a308d3ull, 0x13198a2e03707344ull } };
	size_t size = flow_table_size(capacity);
	memset(rig, 0, sizeof(*rig));
	rig->n_flows = rig->n_ids = n_flows;
	rig->rng.state = 7;
	rig->mem = bench_alloc(size);
	if (flow_table_init(&rig->table, rig->mem, size, capacity, &key) != 0)
		table_die("is not laid out");
	if (has_ports)
		table_start_ports(rig, n_flows);
	for (uint32_t id = 0; id < n_flows; id++)
		table_add(rig, id);
}

static void table_end(struct table_rig *rig)
{
	bench_release(rig->mem);
	if (rig->snat != NULL) {
		bench_release(rig->snat_mem);
		bench_release(rig->ports);
	}
	if (rig->hash)
		bench_hash_destroy(rig->hash);
}

// ---------------------------------------------------------------- look-ups

static double table_lookups(struct table_rig *rig, uint32_t first)
{
	struct flow_key keys[BENCH_BURST];
	uint64_t hashes[BENCH_BURST];
	uint32_t idx[BENCH_BURST];
	uint8_t side[BENCH_BURST];
	struct bench_timer t = { 0 };
	for (uint32_t b = 0; b < TABLE_SAMPLE_BURSTS; b++) {
		uint64_t sides = bench_random(&rig->rng);
		for (uint32_t i = 0; i < BENCH_BURST; i++)
			keys[i] =
				table_make_key(first + bench_random_below(&rig->rng, rig->n_flows),
					sides >> i & 1);
		bench_start(&t);
		flow_lookup_bulk(&rig->table, keys, BENCH_BURST, hashes, idx, side);
		bench_stop(&t, BENCH_BURST);
		if ((idx[0] != FLOW_NONE) != (first == 0))
			table_die("gives a wrong answer");
	}
	return bench_ns_per_op(&t);
}

static double table_two_keys_hit(void *arg)
{
	return table_lookups(arg, 0);
}

static double table_two_keys_miss(void *arg)
{
	return table_lookups(arg, TABLE_MISS_FIRST);
}

enum table_ask {
	TABLE_HIT,      // either side of flows
	TABLE_MISS,     // clients that are not known: first packets of flows
	TABLE_STRANGER, // who sends to source ports that others have
};

// What a backend sends to the source port of flow `id`, or somebody else.
static struct flow_key table_reply(const struct table_rig *rig, uint32_t id, enum table_ask ask)
{
	struct flow_record r = table_make_flow(id);
	if (ask == TABLE_STRANGER)
		r.backend = address_from_v4(r.backend.words[3] ^ 0x0100);
	return flow_key_make(
		&r.backend, r.backend_port, rig->ports[id].port, rig->ports[id].slot, r.protocol);
}

static void table_draw(struct table_rig *rig, enum table_ask ask, struct flow_search *s)
{
	uint64_t replies = ask == TABLE_MISS       ? 0
			   : ask == TABLE_STRANGER ? UINT64_MAX
						   : bench_random(&rig->rng);
	s->n = s->n_named = 0;
	for (uint32_t i = 0; i < BENCH_BURST; i++) {
		uint32_t id = bench_random_below(&rig->rng, rig->n_flows);
		if (replies >> i & 1)
			s->keys[FLOW_BURST_MAX - ++s->n_named] = table_reply(rig, id, ask);
		else
			s->keys[s->n++] = table_make_key(
				ask == TABLE_MISS ? TABLE_MISS_FIRST + id : id, false);
	}
}
_Static_assert(BENCH_BURST <= FLOW_BURST_MAX, "a burst is one search");

static double table_search(struct table_rig *rig, enum table_ask ask)
{
	struct flow_search s;
	struct bench_timer t = { 0 };
	bool hit = ask == TABLE_HIT;
	for (uint32_t b = 0; b < TABLE_SAMPLE_BURSTS; b++) {
		table_draw(rig, ask, &s);
		uint32_t first = FLOW_BURST_MAX - s.n_named;
		bench_start(&t);
		snat_ask(rig->snat, &s.keys[first], s.n_named, &s.names[first]);
		flow_lookup_burst(&rig->table, &s);
		bench_stop(&t, BENCH_BURST);
		if ((s.n > 0 && (s.idx[0] != FLOW_NONE) != hit) ||
			(s.n_named > 0 && (s.idx[FLOW_BURST_MAX - 1] != FLOW_NONE) != hit))
			table_die("gives a wrong answer");
	}
	return bench_ns_per_op(&t);
}

static double table_hit(void *arg)
{
	return table_search(arg, TABLE_HIT);
}

static double table_miss(void *arg)
{
	return table_search(arg, TABLE_MISS);
}

static double table_stranger(void *arg)
{
	return table_search(arg, TABLE_STRANGER);
}

static double peer_hit64(void *arg)
{
	return bench_hash_hit(arg, 64);
}

static double peer_miss64(void *arg)
{
	return bench_hash_miss(arg, 64);
}

// What memory alone costs: two lines per look-up, the second known only from the first, all of a burst
// asked for before any is read.
static double table_two_lines(void *arg)
{
	struct table_rig *rig = arg;
	uint32_t b[BENCH_BURST], r[BENCH_BURST];
	const char *buckets = rig->table.buckets;
	struct bench_timer t = { 0 };
	uint64_t sum = 0;
	for (uint32_t k = 0; k < TABLE_SAMPLE_BURSTS; k++) {
		for (uint32_t i = 0; i < BENCH_BURST; i++) {
			b[i] = bench_random_below(&rig->rng, rig->table.n_buckets);
			r[i] = bench_random_below(&rig->rng, rig->n_flows);
		}
		bench_start(&t);
		for (uint32_t i = 0; i < BENCH_BURST; i++)
			__builtin_prefetch(buckets + 64ull * b[i], 0, 2);
		for (uint32_t i = 0; i < BENCH_BURST; i++) {
			uint32_t word;
			memcpy(&word, buckets + 64ull * b[i], sizeof(word));
			r[i] += word >> 31 & 1 &
				(word == 0); // always 0, but only after the line came
			__builtin_prefetch(&rig->table.records[r[i]], 0, 2);
		}
		for (uint32_t i = 0; i < BENCH_BURST; i++)
			sum += rig->table.records[r[i]].backend_id;
		__asm__ volatile("" : : "r"(sum));
		bench_stop(&t, BENCH_BURST);
	}
	return bench_ns_per_op(&t);
}

// The same for a miss: one line, of a bucket.
static double table_one_line(void *arg)
{
	struct table_rig *rig = arg;
	uint32_t b[BENCH_BURST];
	const char *buckets = rig->table.buckets;
	struct bench_timer t = { 0 };
	uint64_t sum = 0;
	for (uint32_t k = 0; k < TABLE_SAMPLE_BURSTS; k++) {
		for (uint32_t i = 0; i < BENCH_BURST; i++)
			b[i] = bench_random_below(&rig->rng, rig->table.n_buckets);
		bench_start(&t);
		for (uint32_t i = 0; i < BENCH_BURST; i++)
			__builtin_prefetch(buckets + 64ull * b[i], 0, 2);
		for (uint32_t i = 0; i < BENCH_BURST; i++)
			sum += (uint8_t)buckets[64ull * b[i]];
		__asm__ volatile("" : : "r"(sum));
		bench_stop(&t, BENCH_BURST);
	}
	return bench_ns_per_op(&t);
}

struct table_size {
	const char *name;
	uint32_t n_flows;
	double hit_gate; // 0: none
};

static const struct table_size table_sizes[] = {
	{ "1K", 1000, 0 },
	{ "64K", 65536, 1.6 },
	{ "1M", 1000000, 1.8 },
	{ "10M", 10000000, 2.0 },
};

static void table_report_lookups(const struct bench_options *options, const struct table_size *size)
{
	struct table_rig rig;
	struct bench_rounds *rounds = calloc(1, sizeof(*rounds));
	char name[32];
	table_start(&rig, size->n_flows, size->n_flows, true);
	rig.hash = bench_hash_create(size->n_flows);
	struct bench_contender contenders[] = { { table_hit, &rig }, { peer_hit64, rig.hash },
		{ table_two_lines, &rig }, { table_miss, &rig }, { peer_miss64, rig.hash },
		{ bench_hash_hit32, rig.hash }, { table_one_line, &rig },
		{ table_stranger, &rig } };
	bench_run(contenders, 8, options->n_rounds, rounds);
	struct bench_line line = { .bench = "table",
		.goal = "G1",
		.name = name,
		.value = bench_median(rounds, 0),
		.unit = "ns",
		.peer = "rte_hash bulk 64",
		.peer_value = bench_median(rounds, 1),
		.multiple = bench_ratio(rounds, 1, 0),
		.gate = size->hit_gate > 0 ? size->hit_gate : NAN,
		.gate_is_floor = true,
		.limit = "two prefetched lines",
		.limit_value = bench_median(rounds, 2) };
	snprintf(name, sizeof(name), "%s", size->name);
	bench_report(options, &line);
	line.goal = "G2";
	line.value = bench_median(rounds, 3);
	line.peer_value = bench_median(rounds, 4);
	line.multiple = bench_ratio(rounds, 4, 3);
	line.gate = size->hit_gate > 0 ? 1.5 : NAN;
	line.limit = "one prefetched line";
	line.limit_value = bench_median(rounds, 6);
	snprintf(name, sizeof(name), "%s", size->name);
	bench_report(options, &line);
	line.goal = NULL;
	line.value = bench_median(rounds, 5);
	line.peer = line.limit = NULL;
	line.limit_value = NAN;
	line.peer_value = line.multiple = line.gate = NAN;
	snprintf(name, sizeof(name), "rte_hash bulk 32 (h)/%s", size->name);
	bench_report(options, &line);
	line.value = bench_median(rounds, 7);
	snprintf(name, sizeof(name), "stranger's reply/%s", size->name);
	bench_report(options, &line);
	table_end(&rig);
	free(rounds);
}

// Flows of dnat: both keys in the table.
static void table_report_two_keys(
	const struct bench_options *options, const struct table_size *size)
{
	struct table_rig rig;
	struct bench_rounds *rounds = calloc(1, sizeof(*rounds));
	char name[32];
	table_start(&rig, size->n_flows, size->n_flows, false);
	rig.hash = bench_hash_create(size->n_flows);
	struct bench_contender contenders[] = { { table_two_keys_hit, &rig },
		{ peer_hit64, rig.hash }, { table_two_keys_miss, &rig },
		{ peer_miss64, rig.hash } };
	bench_run(contenders, 4, options->n_rounds, rounds);
	for (uint32_t k = 0; k < 2; k++) {
		struct bench_line line = { .bench = "table",
			.name = name,
			.value = bench_median(rounds, 2 * k),
			.unit = "ns",
			.peer = "rte_hash bulk 64",
			.peer_value = bench_median(rounds, 2 * k + 1),
			.multiple = bench_ratio(rounds, 2 * k + 1, 2 * k),
			.gate = NAN,
			.limit_value = NAN };
		snprintf(name, sizeof(name), "two keys, %s/%s", k ? "miss" : "hit", size->name);
		bench_report(options, &line);
	}
	table_end(&rig);
	free(rounds);
}

// ---------------------------------------------------------------- insertion

// Record index by flow is found by its number: the rig keeps a list.
struct churn_rig {
	struct table_rig t;
	uint32_t *idx;   // [n_flows] record indices of live flows
	uint8_t flags;   // of the flows
	uint32_t n_keys; // that they have in the table
};

struct churn_burst {
	struct flow_record come[BENCH_CHURN_BURST];
	uint32_t at[BENCH_CHURN_BURST]; // flows that go, by number: each once
};

static void churn_draw(struct churn_rig *rig, struct churn_burst *b)
{
	uint32_t part = rig->t.n_flows / BENCH_CHURN_BURST;
	for (uint32_t i = 0; i < BENCH_CHURN_BURST; i++) {
		b->at[i] = i * part + bench_random_below(&rig->t.rng, part);
		b->come[i] = table_make_flow(rig->t.n_ids++);
		b->come[i].flags = rig->flags;
	}
}

static void churn_one_by_one(struct churn_rig *rig, const struct churn_burst *b)
{
	for (uint32_t i = 0; i < BENCH_CHURN_BURST; i++) {
		flow_remove(&rig->t.table, rig->idx[b->at[i]]);
		rig->idx[b->at[i]] = flow_add(&rig->t.table, &b->come[i]);
	}
}

// As a caller with a burst of new and of expired flows does.
static void churn_in_burst(struct churn_rig *rig, const struct churn_burst *b)
{
	struct flow_table *table = &rig->t.table;
	struct flow_key keys[2 * BENCH_CHURN_BURST];
	uint64_t hashes[2 * BENCH_CHURN_BURST];
	uint64_t gone_hashes[2 * FLOW_REMOVE_MAX];
	uint32_t gone[BENCH_CHURN_BURST];
	for (uint32_t i = 0; i < BENCH_CHURN_BURST; i++) {
		gone[i] = rig->idx[b->at[i]];
		flow_prefetch_record(table, gone[i]);
		keys[i] = flow_client_key(&b->come[i]);
		keys[BENCH_CHURN_BURST + i] = flow_backend_key(&b->come[i]);
	}
	flow_hash_bulk(table, keys, rig->n_keys * BENCH_CHURN_BURST, hashes);
	const uint64_t *second = hashes + (rig->n_keys - 1) * BENCH_CHURN_BURST;
	flow_remove_begin(table, gone, BENCH_CHURN_BURST, gone_hashes);
	for (uint32_t i = 0; i < BENCH_CHURN_BURST; i++)
		flow_prefetch_room(table, hashes[i], second[i]);
	for (uint32_t i = 0; i < BENCH_CHURN_BURST; i++)
		rig->idx[b->at[i]] = flow_add_hashed(table, &b->come[i], hashes[i], second[i]);
	flow_remove_end(table, gone, BENCH_CHURN_BURST, gone_hashes);
}

static double table_churn(
	struct churn_rig *rig, void (*turn)(struct churn_rig *rig, const struct churn_burst *b))
{
	struct churn_burst burst;
	struct bench_timer t = { 0 };
	for (uint32_t b = 0; b < TABLE_SAMPLE_BURSTS; b++) {
		churn_draw(rig, &burst);
		bench_start(&t);
		turn(rig, &burst);
		bench_stop(&t, BENCH_CHURN_BURST);
		if (rig->t.table.n_flows != rig->t.n_flows)
			table_die("refused a flow");
	}
	return bench_ns_per_op(&t);
}

static double table_churn_alone(void *arg)
{
	return table_churn(arg, churn_one_by_one);
}

static double table_churn_burst(void *arg)
{
	return table_churn(arg, churn_in_burst);
}

static double peer_churn(void *arg)
{
	return bench_hash_churn(arg);
}

static void churn_start(struct churn_rig *rig, uint32_t capacity, uint32_t n_flows, uint8_t flags)
{
	rig->flags = flags;
	rig->n_keys = flags & FLOW_FLAG_BY_PORT ? 1 : 2;
	table_start(&rig->t, capacity, n_flows, flags & FLOW_FLAG_BY_PORT);
	rig->idx = malloc(n_flows * sizeof(*rig->idx));
	for (uint32_t i = 0; i < n_flows; i++)
		rig->idx[i] = i;
}

// Flows of dnat: each with two keys, beside one that is deleted and added.
static void table_report_two_keys_churn(const struct bench_options *options, uint32_t capacity)
{
	uint32_t n_flows = capacity / 4 * 3;
	struct churn_rig rig;
	struct bench_rounds *rounds = calloc(1, sizeof(*rounds));
	churn_start(&rig, capacity, n_flows, 0);
	rig.t.hash = bench_hash_create(n_flows);
	struct bench_contender contenders[] = { { table_churn_burst, &rig },
		{ peer_churn, rig.t.hash } };
	bench_run(contenders, 2, options->n_rounds, rounds);
	struct bench_line line = { .bench = "table",
		.name = "two keys, remove+add/1M",
		.value = bench_median(rounds, 0),
		.unit = "ns",
		.peer = "rte_hash del+add, one key",
		.peer_value = bench_median(rounds, 1),
		.multiple = bench_ratio(rounds, 1, 0),
		.gate = NAN,
		.limit_value = NAN };
	bench_report(options, &line);
	table_end(&rig.t);
	free(rig.idx);
	free(rounds);
}

static void table_report_churn(const struct bench_options *options)
{
	uint32_t capacity = 1u << 20, n_flows = capacity / 4 * 3;
	struct churn_rig rig;
	struct bench_rounds *rounds = calloc(1, sizeof(*rounds));
	churn_start(&rig, capacity, n_flows, FLOW_FLAG_BY_PORT);
	rig.t.hash = bench_hash_create(n_flows); // 2^20 slots: 75 % full too
	struct bench_contender contenders[] = { { table_churn_burst, &rig },
		{ peer_churn, rig.t.hash }, { table_churn_alone, &rig } };
	bench_run(contenders, 3, options->n_rounds, rounds);
	struct bench_line line = { .bench = "table",
		.goal = "G3",
		.name = "1M", // 75 % full
		.value = bench_median(rounds, 0),
		.unit = "ns",
		.peer = "rte_hash del+add, one key",
		.peer_value = bench_median(rounds, 1),
		.multiple = bench_ratio(rounds, 1, 0),
		.gate = 3,
		.gate_is_floor = true,
		.limit_value = NAN };
	bench_report(options, &line);
	line.goal = NULL; // not how the data path does it
	line.name = "remove+add one by one/1M";
	line.value = bench_median(rounds, 2);
	line.multiple = bench_ratio(rounds, 1, 2);
	line.gate = NAN;
	bench_report(options, &line);
	table_end(&rig.t);
	free(rig.idx);
	free(rounds);
}

// ---------------------------------------------------------------- slowest insertions

static int compare_u32(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
	return x < y ? -1 : x > y;
}

static void table_report_tail(const struct bench_options *options)
{
	uint32_t capacity = 1000000, n_flows = capacity / 100 * 95, n_samples = 200000, n = 0;
	struct churn_rig rig;
	uint32_t *ticks = malloc(n_samples * sizeof(*ticks));
	churn_start(&rig, capacity, n_flows, 0);
	for (uint32_t i = 0; i < n_samples; i++) {
		uint32_t at = bench_random_below(&rig.t.rng, n_flows);
		struct flow_record come = table_make_flow(rig.t.n_ids++);
		struct bench_timer t = { 0 };
		flow_remove(&rig.t.table, rig.idx[at]);
		bench_start(&t);
		rig.idx[at] = flow_add(&rig.t.table, &come);
		bench_stop(&t, 1);
		if (rig.idx[at] == FLOW_NONE)
			table_die("refused a flow");
		if (t.n_ops > 0)
			ticks[n++] = (uint32_t)t.ticks;
	}
	qsort(ticks, n, sizeof(*ticks), compare_u32);
	struct bench_line line = { .bench = "table",
		.goal = "G4",
		.name = "1M", // 95 % full; p99.9
		.value = ticks[n - 1 - n / 1000] * bench_ns_per_tick,
		.unit = "ns",
		.peer = "median",
		.peer_value = ticks[n / 2] * bench_ns_per_tick,
		.gate = 2000,
		.limit_value = NAN };
	line.multiple = line.value;
	bench_report(options, &line);
	table_end(&rig.t);
	free(rig.idx);
	free(ticks);
}

static void table_report_memory(const struct bench_options *options)
{
	struct bench_line line = { .bench = "table",
		.goal = "G5",
		.name = "fullnat4",
		.value = (double)(flow_table_size(2000000) - flow_table_size(1000000)) / 1e6,
		.unit = "bytes/flow",
		.peer_value = NAN,
		.gate = 80,
		.limit_value = NAN };
	line.multiple = line.value;
	bench_report(options, &line);
	line.name = "fullnat6"; // the same record
	line.gate = 112;
	bench_report(options, &line);
}

int bench_table(const struct bench_options *options)
{
	for (uint32_t i = 0; i < sizeof(table_sizes) / sizeof(table_sizes[0]); i++)
		if (bench_wants_size(options, table_sizes[i].name)) {
			table_report_lookups(options, &table_sizes[i]);
			table_report_two_keys(options, &table_sizes[i]);
		}
	table_report_churn(options);
	table_report_two_keys_churn(options, 1u << 20);
	table_report_tail(options);
	table_report_memory(options);
	return 0;
}
