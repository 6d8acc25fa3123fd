// SPDX-License-Identifier: BSD-3-Clause
// The whole data path but receive and transmit (G6 to G8), every mode and family: packets are made untimed in the same
// thread, 64 at a time, of established flows in random order. NAT modes: bursts of clients and of backends in turn.
#include "bench_priv.h"
#include "scene_priv.h"

#include <stdio.h>
#include <stdlib.h>

#define PIPELINE_SAMPLE_BURSTS 1024
#define PIPELINE_SIZES         4

static double pipeline_sample(void *arg)
{
	struct bench_timer t = { 0 };
	for (uint32_t k = 0; k < PIPELINE_SAMPLE_BURSTS; k++)
		bench_scene_burst(arg, &t, k);
	return bench_ns_per_op(&t);
}

static const struct pipeline_size {
	const char *name;
	uint32_t n_flows;
} sizes[PIPELINE_SIZES] = {
	{ "1", 1 },
	{ "64K", 65536 },
	{ "1M", 1000000 },
	{ "10M", 10000000 },
};

struct pipeline_mode {
	const char *name;
	enum service_mode mode;
	const char *goal;
	double gates[PIPELINE_SIZES]; // multiples of h
};

static const struct pipeline_mode modes[] = {
	{ "ipip", SERVICE_MODE_IPIP, "G6", { 2.1, 2.35, 1.55, 1.55 } },
	{ "fullnat", SERVICE_MODE_FULLNAT, "G7", { 2.55, 2.75, 1.85, 1.85 } },
	{ "dnat", SERVICE_MODE_DNAT, NULL, { NAN, NAN, NAN, NAN } },
	{ "gue", SERVICE_MODE_GUE, NULL, { NAN, NAN, NAN, NAN } },
	{ "l2dsr", SERVICE_MODE_L2DSR, NULL, { NAN, NAN, NAN, NAN } },
};

static void pipeline_start(struct bench_scene *s, enum service_mode mode, bool is_v6, uint32_t n)
{
	struct bench_scene_shape shape = {
		.mode = mode, .is_v6 = is_v6, .n_flows = n, .capacity = n
	};
	bench_scene_start(s, &shape);
}

static void pipeline_report(
	const struct bench_options *options, const struct pipeline_mode *mode, uint32_t size_idx)
{
	const struct pipeline_size *size = &sizes[size_idx];
	struct bench_scene v4, v6;
	struct bench_rounds *rounds = calloc(1, sizeof(*rounds));
	struct bench_hash *hash = bench_hash_create(size->n_flows < 1000 ? 1000 : size->n_flows);
	char name[32];
	pipeline_start(&v4, mode->mode, false, size->n_flows);
	pipeline_start(&v6, mode->mode, true, size->n_flows);
	struct bench_contender contenders[] = { { pipeline_sample, &v4 },
		{ bench_hash_hit32, hash }, { pipeline_sample, &v6 } };
	bench_run(contenders, 3, options->n_rounds, rounds);
	struct bench_line line = { .bench = "pipeline",
		.goal = mode->goal,
		.name = name,
		.value = bench_median(rounds, 0),
		.unit = "ns",
		.peer = "rte_hash bulk 32 (h)",
		.peer_value = bench_median(rounds, 1),
		.multiple = bench_ratio(rounds, 0, 1),
		.gate = mode->gates[size_idx],
		.limit_value = NAN };
	snprintf(name, sizeof(name), "%s4/%s", mode->name, size->name);
	bench_report(options, &line);
	char peer[16];
	snprintf(peer, sizeof(peer), "%s4", mode->name);
	line.goal = "G8";
	line.value = bench_median(rounds, 2);
	line.peer = peer;
	line.peer_value = bench_median(rounds, 0);
	line.multiple = bench_ratio(rounds, 2, 0);
	line.gate = 1.35;
	snprintf(name, sizeof(name), "%s6/%s", mode->name, size->name);
	bench_report(options, &line);
	bench_scene_end(&v4);
	bench_scene_end(&v6);
	bench_hash_destroy(hash);
	free(rounds);
}

int bench_pipeline(const struct bench_options *options)
{
	for (uint32_t m = 0; m < sizeof(modes) / sizeof(modes[0]); m++)
		for (uint32_t i = 0; i < PIPELINE_SIZES; i++)
			if (bench_wants_size(options, sizes[i].name))
				pipeline_report(options, &modes[m], i);
	return 0;
}
