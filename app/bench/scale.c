// SPDX-License-Identifier: BSD-3-Clause
// What many services and backends cost a packet of an established flow (G16): the same number of flows, spread over one
// service of 10 backends, or over many.
#include "bench_priv.h"
#include "scene_priv.h"

#include <stdlib.h>

#define SCALE_FLOWS         65536
#define SCALE_SAMPLE_BURSTS 1024

static double scale_sample(void *arg)
{
	struct bench_timer t = { 0 };
	for (uint32_t k = 0; k < SCALE_SAMPLE_BURSTS; k++)
		bench_scene_burst(arg, &t, k);
	return bench_ns_per_op(&t);
}

static void scale_start(struct bench_scene *s, uint32_t n_services, uint32_t n_backends)
{
	struct bench_scene_shape shape = { .n_flows = SCALE_FLOWS,
		.capacity = SCALE_FLOWS,
		.n_services = n_services,
		.n_backends = n_backends };
	bench_scene_start(s, &shape);
}

int bench_scale(const struct bench_options *options)
{
	static struct bench_scene small, services, backends;
	struct bench_rounds *rounds = calloc(1, sizeof(*rounds));
	scale_start(&small, 1, 10);
	scale_start(&services, 10000, 10);
	scale_start(&backends, 10, 10000);
	struct bench_contender contenders[] = { { scale_sample, &small },
		{ scale_sample, &services }, { scale_sample, &backends } };
	bench_run(contenders, 3, options->n_rounds, rounds);
	struct bench_line line = { .bench = "scale",
		.goal = "G16",
		.name = "10000 services of 10 backends/64K",
		.value = bench_median(rounds, 1),
		.unit = "ns",
		.peer = "1 service of 10 backends",
		.peer_value = bench_median(rounds, 0),
		.multiple = bench_ratio(rounds, 1, 0),
		.gate = 1.3,
		.limit_value = NAN };
	bench_report(options, &line);
	line.name = "10 services of 10000 backends/64K";
	line.value = bench_median(rounds, 2);
	line.multiple = bench_ratio(rounds, 2, 0);
	bench_report(options, &line);
	bench_scene_end(&small);
	bench_scene_end(&services);
	bench_scene_end(&backends);
	free(rounds);
	return 0;
}
