// SPDX-License-Identifier: BSD-3-Clause
// A thousand endpoint changes a second while a worker forwards (G20): control puts a service that has one backend more,
// one less, ..., compiles, publishes and waits until the former snapshot can go. What a packet costs beside
// the same without changes, and packets lost.
#include "loop_priv.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define CHANGES_SPAN_MS 200
#define CHANGES_PER_S   1000

static double monotonic_s(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

// Returns how many were made in CHANGES_SPAN_MS.
static uint32_t changes_make(struct loop *l, uint32_t first)
{
	double start = monotonic_s();
	uint32_t n = 0;
	while (n < CHANGES_SPAN_MS * CHANGES_PER_S / 1000) {
		double wait_s = start + n / (double)CHANGES_PER_S - monotonic_s();
		if (wait_s > 0) {
			struct timespec t = { .tv_nsec = (long)(wait_s * 1e9) };
			nanosleep(&t, NULL);
		}
		if (monotonic_s() - start > CHANGES_SPAN_MS / 1e3)
			break;
		loop_put_service(l, LOOP_BACKENDS + (first + n) % 2);
		loop_publish(l);
		n++;
	}
	return n;
}

struct changes_rounds {
	double quiet_ns[BENCH_ROUNDS_MAX];
	double ns[BENCH_ROUNDS_MAX];
	double ratio[BENCH_ROUNDS_MAX];
	double n_made;
	double n_lost;
	double seconds;
};

static void changes_round(struct loop *l, struct changes_rounds *out, uint32_t r)
{
	struct loop_span quiet, span;
	loop_measure(l, CHANGES_SPAN_MS, &quiet);
	loop_look(l, &span, -1);
	out->n_made += changes_make(l, r);
	loop_look(l, &span, 1);
	out->quiet_ns[r] = 1e9 / loop_rate(l, &quiet);
	out->ns[r] = 1e9 / loop_rate(l, &span);
	out->ratio[r] = out->ns[r] / out->quiet_ns[r];
	out->n_lost += span.dropped;
	out->seconds += span.wall_ns / 1e9;
}

static void changes_report(const struct bench_options *options, const struct changes_rounds *rounds)
{
	uint32_t n = options->n_rounds;
	double made_per_s = rounds->n_made / rounds->seconds;
	bool is_enough = made_per_s > 0.95 * CHANGES_PER_S;
	if (!is_enough)
		fprintf(stderr, "# changes: %.0f a second were made: not judged\n", made_per_s);
	struct bench_line line = { .bench = "changes",
		.goal = "G20",
		.name = "1000/s",
		.value = bench_median_of(rounds->ns, n),
		.unit = "ns",
		.peer = "no changes",
		.peer_value = bench_median_of(rounds->quiet_ns, n),
		.multiple = is_enough ? bench_median_of(rounds->ratio, n) : NAN,
		.gate = 1.05,
		.limit_value = NAN };
	bench_report(options, &line);
	line.name = "1000/s, packets lost";
	line.value = rounds->n_lost;
	line.multiple = is_enough ? rounds->n_lost : NAN;
	line.unit = "packets";
	line.peer = "changes a second that were made";
	line.peer_value = made_per_s;
	line.gate = 0;
	bench_report(options, &line);
}

int bench_changes(const struct bench_options *options)
{
	static const char *const devices[] = { "net_null0" };
	static struct loop loop;
	int cpus[CPU_SETSIZE];
	if (loop_cpus(cpus) < 2) {
		bench_skip(options, "changes", "G20", "1000/s", "needs two processors");
		return 0;
	}
	struct changes_rounds *rounds = calloc(1, sizeof(*rounds));
	loop_init(&loop, 1, devices, 1);
	loop_start(&loop, DEVICE_IDLE_POLL, true);
	loop_feed(&loop, 0, LOOP_OWN);
	loop_sleep_ms(20);
	for (uint32_t r = 0; r < options->n_rounds; r++)
		changes_round(&loop, rounds, r);
	changes_report(options, rounds);
	loop_stop(&loop);
	loop_fini(&loop);
	free(rounds);
	return 0;
}
