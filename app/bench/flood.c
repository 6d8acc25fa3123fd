// SPDX-License-Identifier: BSD-3-Clause
// Good packets under a flood (G19): of ten bursts nine are SYNs from random sources, never seen before, and one is of
// established flows. Only that one is timed, beside the same bursts alone. The table is full of what the flood left, and
// no good flow may have given way to it.
#include "bench_priv.h"
#include "scene_priv.h"

#include <stdio.h>
#include <stdlib.h>

#define FLOOD_GOOD          65536
#define FLOOD_CAPACITY      1000000
#define FLOOD_SAMPLE_BURSTS 512
#define FLOOD_FIRST         (1u << 24) // flow numbers of the flood

struct flood_rig {
	struct bench_scene scene;
	uint32_t n_ids;
};

static void flood_burst(struct flood_rig *rig)
{
	struct bench_scene *s = &rig->scene;
	for (uint32_t i = 0; i < BENCH_BURST; i++)
		bench_scene_client(s, i, FLOOD_FIRST + rig->n_ids++, TCP_SYN);
	bench_scene_run(s, BENCH_BURST);
}

static double flood_under(void *arg)
{
	struct flood_rig *rig = arg;
	struct bench_timer t = { 0 };
	for (uint32_t k = 0; k < FLOOD_SAMPLE_BURSTS; k++) {
		for (uint32_t i = 0; i < 9; i++)
			flood_burst(rig);
		bench_scene_burst(&rig->scene, &t, k);
	}
	return bench_ns_per_op(&t);
}

static double flood_none(void *arg)
{
	struct flood_rig *rig = arg;
	struct bench_timer t = { 0 };
	for (uint32_t k = 0; k < FLOOD_SAMPLE_BURSTS; k++)
		bench_scene_burst(&rig->scene, &t, k);
	return bench_ns_per_op(&t);
}

static uint32_t flood_count_good(const struct bench_scene *s)
{
	uint32_t n = 0;
	for (uint32_t i = 0; i < s->pipeline.flows.n_used; i++)
		n += flow_record(&s->pipeline.flows, i)->state == FLOW_STATE_ESTABLISHED;
	return n;
}

int bench_flood(const struct bench_options *options)
{
	struct flood_rig *quiet = calloc(1, sizeof(*quiet)), *flooded = calloc(1, sizeof(*flooded));
	struct bench_rounds *rounds = calloc(1, sizeof(*rounds));
	struct bench_scene_shape shape = { .n_flows = FLOOD_GOOD, .capacity = FLOOD_CAPACITY };
	bench_scene_start(&quiet->scene, &shape);
	bench_scene_start(&flooded->scene, &shape);
	while (flooded->scene.pipeline.flows.n_flows < FLOOD_CAPACITY &&
		flooded->n_ids < 4 * FLOOD_CAPACITY)
		flood_burst(flooded);
	uint32_t n_before = flooded->scene.pipeline.flows.n_flows;
	struct bench_contender contenders[] = { { flood_under, flooded }, { flood_none, quiet } };
	bench_run(contenders, 2, options->n_rounds, rounds);
	struct bench_line line = { .bench = "flood",
		.goal = "G19",
		.name = "good packet/64K",
		.value = bench_median(rounds, 0),
		.unit = "ns",
		.peer = "without a flood",
		.peer_value = bench_median(rounds, 1),
		.multiple = bench_ratio(rounds, 0, 1),
		.gate = 1.15,
		.limit_value = NAN };
	bench_report(options, &line);
	uint32_t n_lost = FLOOD_GOOD - flood_count_good(&flooded->scene);
	line.name = "flows beyond budget, good ones lost";
	line.value = line.multiple =
		(double)(flooded->scene.pipeline.flows.n_flows - n_before) + n_lost;
	line.unit = "flows";
	line.peer = NULL;
	line.peer_value = NAN;
	line.gate = 0;
	bench_report(options, &line);
	bench_scene_end(&quiet->scene);
	bench_scene_end(&flooded->scene);
	free(quiet);
	free(flooded);
	free(rounds);
	return 0;
}
