// SPDX-License-Identifier: BSD-3-Clause
// Ageing (G13): one worker's housekeeping by the product's own slice. What a slice over live flows costs
// per record, what an expired flow costs, and from both the share of a core that 1M expiries a second take
// in 10M entries that are passed through once in 10 s. Measured in a table of 10M with --large; else in one of 1M, where both
// cost less.
#include "bench_priv.h"
#include "scene_priv.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define AGEING_SLICE      64
#define AGEING_ENTRIES    10e6
#define AGEING_PASS_S     10
#define AGEING_EXPIRIES_S 1000000

// Nothing expires: a pass over every record.
static double ageing_scan(void *arg)
{
	struct bench_scene *s = arg;
	struct bench_timer t = { 0 };
	uint64_t pass = s->pipeline.flows.n_sweeps;
	while (s->pipeline.flows.n_sweeps == pass) {
		bench_start(&t);
		pipeline_housekeep(&s->pipeline, AGEING_SLICE);
		bench_stop(&t, AGEING_SLICE);
	}
	return bench_ns_per_op(&t);
}

static int compare_doubles(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return x < y ? -1 : x > y;
}

// One flow in `every` is expired, as in a table whose flows end at random. Returns ns per expired flow over what the
// scan alone takes; *out_p99_ns: of one slice.
static double ageing_expire(
	struct bench_scene *s, uint32_t every, double scan_ns, double *out_p99_ns)
{
	uint32_t n_slices = s->shape.n_flows / AGEING_SLICE + 1, n = 0;
	double *slices = malloc(n_slices * sizeof(*slices)), sum_ns = 0;
	uint64_t n_expired = 0;
	for (uint32_t i = 0; i < s->pipeline.flows.n_used; i++)
		if (bench_random_below(&s->rng, every) == 0)
			flow_record(&s->pipeline.flows, i)->stamp_s = s->pipeline.now_s - 100000;
	uint64_t pass = s->pipeline.flows.n_sweeps;
	while (s->pipeline.flows.n_sweeps == pass && n < n_slices) {
		struct bench_timer t = { 0 };
		bench_start(&t);
		uint32_t n_gone = pipeline_housekeep(&s->pipeline, AGEING_SLICE);
		bench_stop(&t, 1);
		if (t.n_ops == 0)
			continue;
		slices[n] = bench_ns_per_op(&t);
		sum_ns += slices[n++];
		n_expired += n_gone;
	}
	qsort(slices, n, sizeof(*slices), compare_doubles);
	*out_p99_ns = slices[n - 1 - n / 100];
	free(slices);
	return (sum_ns - n * AGEING_SLICE * scan_ns) / (double)n_expired;
}

static void ageing_report(const struct bench_options *options, const char *size, uint32_t n_flows)
{
	struct bench_scene s;
	struct bench_rounds *rounds = calloc(1, sizeof(*rounds));
	char name[64];
	bench_scene_start(
		&s, &(struct bench_scene_shape){ .n_flows = n_flows, .capacity = n_flows });
	struct bench_contender contender = { ageing_scan, &s };
	bench_run(&contender, 1, options->n_rounds, rounds);
	double scan_ns = bench_median(rounds, 0), p99_ns;
	double expire_ns = ageing_expire(&s, 10, scan_ns, &p99_ns);
	struct bench_line line = { .bench = "ageing",
		.name = name,
		.value = scan_ns,
		.unit = "ns",
		.peer_value = NAN,
		.multiple = NAN,
		.gate = NAN,
		.limit_value = NAN };
	snprintf(name, sizeof(name), "scan of a live record/%s", size);
	bench_report(options, &line);
	snprintf(name, sizeof(name), "end of an expired flow/%s", size);
	line.value = expire_ns;
	bench_report(options, &line);
	line.goal = "G13";
	snprintf(name, sizeof(name), "slice of %u records, one in ten expires, p99/%s",
		AGEING_SLICE, size);
	line.value = line.multiple = p99_ns;
	line.gate = 2000;
	bench_report(options, &line);
	snprintf(name, sizeof(name), "1M expiries a second in 10M/%s", size);
	line.unit = "% of a core";
	line.value =
		(AGEING_ENTRIES / AGEING_PASS_S * scan_ns + AGEING_EXPIRIES_S * expire_ns) / 1e7;
	line.multiple = line.value;
	line.gate = 5;
	bench_report(options, &line);
	bench_scene_end(&s);
	free(rounds);
}

int bench_ageing(const struct bench_options *options)
{
	if (bench_wants_size(options, "10M"))
		ageing_report(options, "10M", 10000000);
	else
		ageing_report(options, "1M", 1000000);
	return 0;
}
