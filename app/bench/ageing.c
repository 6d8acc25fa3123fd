// SPDX-License-Identifier: BSD-3-Clause
// Ageing (G13): one worker's housekeeping by the product's own slice. What a slice over live flows costs per record, what an expired
// flow costs over that where one in ten is; and the share of a core that 1M expiries a second take in 10M entries. With passes
// of 10 s every record would be expired when it is met, with passes of 5 s every second one: measured so, all of it timed.
// In a table of 10M with --large; else in one of 1M.
#include "bench_priv.h"
#include "scene_priv.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define AGEING_SLICE      48 // as the worker's (SWEEP_SLICE)
#define AGEING_EXPIRIES_S 1000000

// What a pass meets: one in `every` is expired, as in a table whose flows end at random.
struct ageing_share {
	const char *name;
	enum service_mode mode;
	uint32_t every;
};
static const struct ageing_share ageing_shares[] = {
	{ "one in ten expires", SERVICE_MODE_FULLNAT, 10 },
	{ "half expire", SERVICE_MODE_FULLNAT, 2 },
	{ "all expire", SERVICE_MODE_FULLNAT, 1 },
	{ "one-way, one in ten expires", SERVICE_MODE_IPIP, 10 },
	{ "one-way, half expire", SERVICE_MODE_IPIP, 2 },
	{ "one-way, all expire", SERVICE_MODE_IPIP, 1 },
};

struct ageing_figures {
	double scan_ns;    // of a live record
	double expire_ns;  // of an expired one, over that
	double per_end_ns; // of all slices, by expired record
	double median_ns;  // of a slice
	double p99_ns;
	double n_ended; // of a slice, on average
};

static uint64_t ageing_passes(const struct bench_scene *s)
{
	return snapshot_mode_is_oneway((uint8_t)s->snapshot->listeners[0].mode)
		       ? s->pipeline.oneway.n_sweeps
		       : s->pipeline.flows.n_sweeps;
}

// Nothing expires: a pass over every record.
static double ageing_scan(void *arg)
{
	struct bench_scene *s = arg;
	struct bench_timer t = { 0 };
	uint64_t pass = ageing_passes(s);
	while (ageing_passes(s) == pass) {
		bench_start(&t);
		pipeline_housekeep(&s->pipeline, AGEING_SLICE);
		bench_stop(&t, s->pipeline.slice_done);
	}
	return bench_ns_per_op(&t);
}

static int compare_doubles(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return x < y ? -1 : x > y;
}

static void ageing_make_old(struct bench_scene *s, uint32_t every)
{
	struct pipeline *p = &s->pipeline;
	for (uint32_t i = 0; i < p->flows.n_used; i++)
		if (bench_random_below(&s->rng, every) == 0)
			flow_record(&p->flows, i)->stamp_s = p->now_s - 100000;
	for (uint32_t ref = 0; ref < oneway_n_positions(&p->oneway); ref++) {
		struct oneway_entry e;
		if (!oneway_copy(&p->oneway, ref, &e) || bench_random_below(&s->rng, every) != 0)
			continue;
		uint64_t *at = oneway_word_at(&p->oneway, ref);
		*at = (*at & ~(ONEWAY_STAMP_MASK << ONEWAY_STAMP_SHIFT)) |
		      oneway_stamp(*at & ONEWAY_COARSE, p->now_s - 30000);
	}
}

// A pass over a table some of which is expired, slice by slice; those of the other table, which is empty, do not count.
static void ageing_expire(struct bench_scene *s, uint32_t every, struct ageing_figures *out)
{
	uint32_t n_slices = s->pipeline.oneway.n_lines + 2 * s->shape.n_flows, n = 0;
	double *slices = malloc(n_slices * sizeof(*slices)), sum_ns = 0;
	uint64_t n_expired = 0, n_records = 0, pass = ageing_passes(s);
	bool is_oneway = s->pipeline.flows.n_flows == 0;
	ageing_make_old(s, every);
	while (ageing_passes(s) == pass && n < n_slices) {
		struct bench_timer t = { 0 };
		bench_start(&t);
		uint32_t n_gone = pipeline_housekeep(&s->pipeline, AGEING_SLICE);
		bench_stop(&t, 1);
		if (t.n_ops == 0 || s->pipeline.oneway_turn != is_oneway)
			continue;
		slices[n] = bench_ns_per_op(&t);
		sum_ns += slices[n++];
		n_expired += n_gone;
		n_records += s->pipeline.slice_done;
	}
	qsort(slices, n, sizeof(*slices), compare_doubles);
	out->median_ns = slices[n / 2];
	out->p99_ns = slices[n - 1 - n / 100];
	out->n_ended = (double)n_expired / n;
	out->per_end_ns = sum_ns / (double)n_expired;
	out->expire_ns = (sum_ns - (double)n_records * out->scan_ns) / (double)n_expired;
	free(slices);
}

static struct ageing_figures ageing_measure(
	const struct bench_options *options, const struct ageing_share *share, uint32_t n_flows)
{
	struct bench_scene s;
	struct bench_rounds *rounds = calloc(1, sizeof(*rounds));
	struct ageing_figures figures;
	bench_scene_start(
		&s, &(struct bench_scene_shape){
			    .mode = share->mode, .n_flows = n_flows, .capacity = n_flows });
	struct bench_contender contender = { ageing_scan, &s };
	bench_run(&contender, 1, options->n_rounds, rounds);
	figures.scan_ns = bench_median(rounds, 0);
	ageing_expire(&s, share->every, &figures);
	bench_scene_end(&s);
	free(rounds);
	return figures;
}

static void ageing_report_cost(
	const struct bench_options *options, const char *size, const struct ageing_figures *figures)
{
	char name[64];
	struct bench_line line = { .bench = "ageing",
		.name = name,
		.value = figures->scan_ns,
		.unit = "ns",
		.peer_value = NAN,
		.multiple = NAN,
		.gate = NAN,
		.limit_value = NAN };
	snprintf(name, sizeof(name), "scan of a live record/%s", size);
	bench_report(options, &line);
	snprintf(name, sizeof(name), "end of an expired flow/%s", size);
	line.value = figures->expire_ns;
	bench_report(options, &line);
}

// What G13 asks for is asked of the table of flows, where an end costs most.
static void ageing_report_share(
	const struct bench_options *options, const char *size, const struct ageing_figures *figures)
{
	char name[64];
	struct bench_line line = { .bench = "ageing",
		.goal = "G13",
		.name = name,
		.value = AGEING_EXPIRIES_S * figures->per_end_ns / 1e7,
		.unit = "% of a core",
		.peer_value = NAN,
		.gate = 5,
		.limit_value = NAN };
	line.multiple = line.value;
	snprintf(name, sizeof(name), "1M expiries a second in 10M/%s", size);
	bench_report(options, &line);
}

// A slice: 2 us at most, whatever it meets.
static void ageing_report_slice(const struct bench_options *options, const char *size,
	const char *share, const struct ageing_figures *figures)
{
	char name[96];
	struct bench_line line = { .bench = "ageing",
		.name = name,
		.value = figures->median_ns,
		.unit = "ns",
		.peer_value = NAN,
		.multiple = NAN,
		.gate = NAN,
		.limit_value = NAN };
	snprintf(name, sizeof(name), "slice, %s (%.1f), p50/%s", share, figures->n_ended, size);
	bench_report(options, &line);
	snprintf(name, sizeof(name), "slice, %s, p99/%s", share, size);
	line.goal = "G13";
	line.value = line.multiple = figures->p99_ns;
	line.gate = 2000;
	bench_report(options, &line);
}

static void ageing_report(const struct bench_options *options, const char *size, uint32_t n_flows)
{
	for (size_t i = 0; i < sizeof(ageing_shares) / sizeof(ageing_shares[0]); i++) {
		const struct ageing_share *share = &ageing_shares[i];
		struct ageing_figures figures = ageing_measure(options, share, n_flows);
		if (i == 0)
			ageing_report_cost(options, size, &figures);
		if (share->mode == SERVICE_MODE_FULLNAT && share->every == 2)
			ageing_report_share(options, size, &figures);
		ageing_report_slice(options, size, share->name, &figures);
	}
}

int bench_ageing(const struct bench_options *options)
{
	if (bench_wants_size(options, "10M"))
		ageing_report(options, "10M", 10000000);
	else
		ageing_report(options, "1M", 1000000);
	return 0;
}
