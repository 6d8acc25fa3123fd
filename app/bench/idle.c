// SPDX-License-Identifier: BSD-3-Clause
// A worker without packets (G21): share of a core after a second of silence with adaptive idling, and what one empty turn of
// the loop costs, housekeeping included, when it polls. Processor time of the worker's thread.
#include "loop_priv.h"

#include <stdlib.h>

#define IDLE_SILENCE_MS 1500
#define IDLE_SPAN_MS    1000
#define IDLE_POLL_MS    50

int bench_idle(const struct bench_options *options)
{
	static const char *const devices[] = { "net_null0,no-rx=1" };
	static struct loop loop;
	double ns[BENCH_ROUNDS_MAX];
	struct loop_span span;
	loop_init(&loop, 1, devices, 1);
	loop_start(&loop, DEVICE_IDLE_ADAPTIVE, false);
	loop_sleep_ms(IDLE_SILENCE_MS);
	loop_measure(&loop, IDLE_SPAN_MS, &span);
	loop_stop(&loop);
	struct bench_line line = { .bench = "idle",
		.goal = "G21",
		.name = "after 1 s of silence",
		.value = 100 * span.cpu_ns[0] / span.wall_ns,
		.unit = "% of a core",
		.peer_value = NAN,
		.gate = 5,
		.limit_value = NAN };
	line.multiple = line.value;
	bench_report(options, &line);
	loop_start(&loop, DEVICE_IDLE_POLL, false);
	for (uint32_t r = 0; r < options->n_rounds; r++) {
		loop_measure(&loop, IDLE_POLL_MS, &span);
		ns[r] = span.cpu_ns[0] / span.polls[0];
	}
	loop_stop(&loop);
	line.name = "empty poll with housekeeping";
	line.value = line.multiple = bench_median_of(ns, options->n_rounds);
	line.unit = "ns";
	line.gate = 60;
	bench_report(options, &line);
	loop_fini(&loop);
	return 0;
}
