// SPDX-License-Identifier: BSD-3-Clause
// New flows (G11) and whole connections (G12) of one worker with a table of 1M. The unit is one delete-and-add of rte_hash at
// 1M flows (c). New flows are measured in two states:
//   aged  flows that nobody goes on with leave by the sweep, which is timed too: 75,000 a second live for 10 s each, so
//         the table is 75 % full
//   full  what any higher rate leads to: a new flow takes the place of one that gives way, with its source port
//
// A connection is seven packets: SYN, SYN-ACK, ACK, request, answer with FIN, FIN, ACK; its place is taken by a later one. 32
// go side by side.
#include "bench_priv.h"
#include "scene_priv.h"

#include <stdio.h>
#include <stdlib.h>

#define FLOWS_CAPACITY      1000000
#define FLOWS_SAMPLE_BURSTS 1024
#define FLOWS_AGED_NS       (CLOCK_S / 75000) // between two new flows
#define FLOWS_AGED_SWEPT    2 // records a flow: about all of them in 8 s, as a worker does
#define FLOWS_GAP           5 // times the usual: a burst of new flows takes longer than others

struct flows_rig {
	struct bench_scene scene;
	uint32_t n_ids; // flow numbers used so far
};

static void flows_syns(struct flows_rig *rig, struct bench_timer *t)
{
	struct bench_scene *s = &rig->scene;
	for (uint32_t i = 0; i < BENCH_CHURN_BURST; i++)
		bench_scene_client(s, i, rig->n_ids++, TCP_SYN);
	bench_start(t);
	bench_scene_run(s, BENCH_CHURN_BURST);
	bench_stop(t, BENCH_CHURN_BURST);
	bench_scene_check(s);
}

static double flows_aged(void *arg)
{
	struct flows_rig *rig = arg;
	struct pipeline *p = &rig->scene.pipeline;
	struct bench_timer syns = { 0 }, sweep = { 0 };
	for (uint32_t k = 0; k < FLOWS_SAMPLE_BURSTS; k++) {
		p->now_ns += BENCH_CHURN_BURST * FLOWS_AGED_NS;
		p->now_s = (uint32_t)(p->now_ns / CLOCK_S);
		flows_syns(rig, &syns);
		bench_start(&sweep);
		for (uint32_t done = 0; done < BENCH_CHURN_BURST * FLOWS_AGED_SWEPT;
			done += p->slice_done)
			pipeline_housekeep(p, BENCH_CHURN_BURST * FLOWS_AGED_SWEPT - done);
		bench_stop(&sweep, BENCH_CHURN_BURST);
	}
	return bench_ns_per_op(&syns) + bench_ns_per_op(&sweep);
}

static double flows_full(void *arg)
{
	struct bench_timer t = { 0 };
	for (uint32_t k = 0; k < FLOWS_SAMPLE_BURSTS; k++)
		flows_syns(arg, &t);
	return bench_ns_per_op(&t);
}

// ---------------------------------------------------------------- whole connections

static const struct flows_step {
	bool of_backend;
	uint8_t flags;
} steps[] = {
	{ true, TCP_SYN | TCP_ACK },
	{ false, TCP_ACK },
	{ false, TCP_ACK | TCP_PSH },
	{ true, TCP_ACK | TCP_PSH | TCP_FIN },
	{ false, TCP_ACK | TCP_FIN },
	{ true, TCP_ACK },
};

static void flows_step(struct flows_rig *rig, const uint32_t *idx, const struct flows_step *step,
	struct bench_timer *t)
{
	struct bench_scene *s = &rig->scene;
	for (uint32_t i = 0; i < BENCH_CHURN_BURST; i++) {
		if (step->of_backend)
			bench_scene_backend(s, i, idx[i], step->flags);
		else
			bench_scene_client(s, i, rig->n_ids - BENCH_CHURN_BURST + i, step->flags);
	}
	bench_start(t);
	bench_scene_run(s, BENCH_CHURN_BURST);
	bench_stop(t, BENCH_CHURN_BURST);
	bench_scene_check(s);
}

// ns per packet; seven of them are a connection.
static double flows_whole(void *arg)
{
	struct flows_rig *rig = arg;
	struct bench_timer t = { 0 };
	uint32_t idx[BENCH_CHURN_BURST];
	for (uint32_t k = 0; k < FLOWS_SAMPLE_BURSTS / 4; k++) {
		flows_syns(rig, &t);
		memcpy(idx, rig->scene.burst->flow_idx, sizeof(idx));
		for (uint32_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++)
			flows_step(rig, idx, &steps[i], &t);
	}
	return bench_ns_per_op(&t);
}

// ---------------------------------------------------------------- reports

// Until the number of flows does not grow any more, in time at least as long as a flow lives.
static void flows_fill(struct flows_rig *rig, double (*sample)(void *))
{
	const struct flow_table *table = &rig->scene.pipeline.flows;
	while (rig->n_ids < 2 * FLOWS_CAPACITY && table->n_flows < FLOWS_CAPACITY)
		sample(rig);
	sample(rig);
}

struct flows_case {
	const char *goal;
	const char *name;
	double gate; // multiple of c
	double (*sample)(void *rig);
	enum service_mode mode;
	double n_packets;
};

static void flows_report(const struct bench_options *options, const struct flows_case *c)
{
	struct flows_rig *rig = calloc(1, sizeof(*rig));
	struct bench_rounds *rounds = calloc(1, sizeof(*rounds));
	struct bench_hash *hash = bench_hash_create(BENCH_HASH_CHURN_FLOWS);
	struct bench_scene_shape shape = { .mode = c->mode, .capacity = FLOWS_CAPACITY };
	bench_scene_start(&rig->scene, &shape);
	flows_fill(rig, c->sample);
	struct bench_contender contenders[] = { { c->sample, rig }, { bench_hash_churn32, hash } };
	bench_run(contenders, 2, options->n_rounds, rounds);
	struct bench_line line = { .bench = "flows",
		.goal = c->goal,
		.name = c->name,
		.value = 1e3 / (bench_median(rounds, 0) * c->n_packets),
		.unit = "M/s",
		.peer = "rte_hash del+add (c), ns",
		.peer_value = bench_median(rounds, 1),
		.multiple = bench_ratio(rounds, 0, 1) * c->n_packets,
		.gate = c->gate,
		.limit_value = NAN };
	bench_report(options, &line);
	bench_scene_end(&rig->scene);
	bench_hash_destroy(hash);
	free(rounds);
	free(rig);
}

int bench_flows(const struct bench_options *options)
{
	static const struct flows_case cases[] = {
		{ "G11", "fullnat4/1M", 0.75, flows_aged, SERVICE_MODE_FULLNAT, 1 },
		{ "G11", "fullnat4/1M, full", 0.75, flows_full, SERVICE_MODE_FULLNAT, 1 },
		{ "G11", "ipip4/1M", 0.75, flows_aged, SERVICE_MODE_IPIP, 1 },
		{ "G11", "ipip4/1M, full", 0.75, flows_full, SERVICE_MODE_IPIP, 1 },
		{ "G12", "fullnat4/1M", 3.7, flows_whole, SERVICE_MODE_FULLNAT, 7 },
	};
	uint64_t gap = bench_gap_ticks;
	bench_gap_ticks = FLOWS_GAP * gap;
	for (uint32_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		flows_report(options, &cases[i]);
	bench_gap_ticks = gap;
	return 0;
}
