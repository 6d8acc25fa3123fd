// SPDX-License-Identifier: BSD-3-Clause
// One worker over a real virtual port (G9), fed by another process (testpmd flowgen; test/bench/ports.py runs it, and
// the peer over the same port). What the far end sends is overwritten with frames of open flows when it is received. Time of
// turns with packets, receive and transmit calls included; the feeder's own cost is subtracted.
#include "loop_priv.h"

#include <stdio.h>
#include <stdlib.h>

#define PORTS_SPAN_MS 100

int bench_ports(const struct bench_options *options)
{
	static struct loop loop;
	double ns[BENCH_ROUNDS_MAX], per_s[BENCH_ROUNDS_MAX];
	struct loop_span span;
	if (options->device == NULL) {
		fprintf(stderr, "sluice-bench: ports needs --device\n");
		return -1;
	}
	loop_init(&loop, 1, &options->device, 1);
	double feeder_ns = loop_feeder_ns(&loop);
	loop_start(&loop, DEVICE_IDLE_POLL, true);
	loop_feed(&loop, 0, LOOP_OWN);
	loop_sleep_ms(PORTS_SPAN_MS);
	for (uint32_t r = 0; r < options->n_rounds; r++) {
		loop_measure(&loop, PORTS_SPAN_MS, &span);
		ns[r] = span.busy_ns[0] / span.received[0] - feeder_ns;
		per_s[r] = span.received[0] / span.wall_ns * 1e3;
	}
	struct bench_line line = { .bench = "ports",
		.goal = "G9",
		.name = "fullnat4/1K",
		.value = bench_median_of(ns, options->n_rounds),
		.unit = "ns",
		.peer = "M/s received",
		.peer_value = bench_median_of(per_s, options->n_rounds),
		.multiple = NAN,
		.gate = NAN,
		.limit_value = NAN };
	bench_report(options, &line);
	loop_stop(&loop);
	loop_fini(&loop);
	return 0;
}
