// SPDX-License-Identifier: BSD-3-Clause
// The whole data path but receive and transmit (G7, G8): packets are made untimed in the same thread, 64
// at a time, of established flows in random order; bursts of clients and of backends in turn.
#include "bench_priv.h"
#include "scene_priv.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define PIPELINE_SAMPLE_BURSTS 1024

static double pipeline_sample(void *arg)
{
	struct bench_scene *s = arg;
	struct bench_timer t = { 0 };
	for (uint32_t k = 0; k < PIPELINE_SAMPLE_BURSTS; k++) {
		for (uint32_t i = 0; i < BENCH_BURST; i++) {
			uint32_t id = bench_random_below(&s->rng, s->n_flows);
			if (k % 2)
				bench_scene_backend(s, i, s->flow_idx[id], TCP_ACK);
			else
				bench_scene_client(s, i, id, TCP_ACK);
		}
		bench_start(&t);
		bench_scene_run(s, BENCH_BURST);
		bench_stop(&t, BENCH_BURST);
		bench_scene_check(s);
	}
	return bench_ns_per_op(&t);
}

struct pipeline_size {
	const char *name;
	uint32_t n_flows;
	double gate; // multiple of h
};

static const struct pipeline_size sizes[] = {
	{ "1", 1, 2.55 },
	{ "64K", 65536, 2.75 },
	{ "1M", 1000000, 1.85 },
	{ "10M", 10000000, 1.85 },
};

static void pipeline_report(const struct bench_options *options, const struct pipeline_size *size)
{
	struct bench_scene v4, v6;
	struct bench_rounds *rounds = calloc(1, sizeof(*rounds));
	struct bench_hash *hash = bench_hash_create(size->n_flows < 1000 ? 1000 : size->n_flows);
	char name[32];
	bench_scene_start(&v4, false, size->n_flows, size->n_flows);
	bench_scene_start(&v6, true, size->n_flows, size->n_flows);
	struct bench_contender contenders[] = { { pipeline_sample, &v4 },
		{ bench_hash_hit32, hash }, { pipeline_sample, &v6 } };
	bench_run(contenders, 3, options->n_rounds, rounds);
	struct bench_line line = { .bench = "pipeline",
		.goal = "G7",
		.name = name,
		.value = bench_median(rounds, 0),
		.unit = "ns",
		.peer = "rte_hash bulk 32 (h)",
		.peer_value = bench_median(rounds, 1),
		.multiple = bench_ratio(rounds, 0, 1),
		.gate = size->gate,
		.limit_value = NAN };
	snprintf(name, sizeof(name), "fullnat4/%s", size->name);
	bench_report(options, &line);
	line.goal = "G8";
	line.value = bench_median(rounds, 2);
	line.peer = "fullnat4";
	line.peer_value = bench_median(rounds, 0);
	line.multiple = bench_ratio(rounds, 2, 0);
	line.gate = 1.35;
	snprintf(name, sizeof(name), "fullnat6/%s", size->name);
	bench_report(options, &line);
	bench_scene_end(&v4);
	bench_scene_end(&v6);
	bench_hash_destroy(hash);
	free(rounds);
}

int bench_pipeline(const struct bench_options *options)
{
	for (uint32_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
		if (bench_wants_size(options, sizes[i].name))
			pipeline_report(options, &sizes[i]);
	return 0;
}
