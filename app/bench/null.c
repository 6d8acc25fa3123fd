// SPDX-License-Identifier: BSD-3-Clause
// One worker with its ports (G10): what a packet costs from the receive call to the transmit call over a null
// port. The feeder that writes the frames is not ours to count: its cost, measured alone, is subtracted. The peer is testpmd's
// csum engine over the same driver (test/bench/null.py runs both).
#include "loop_priv.h"

#include <stdlib.h>

#define NULL_SPAN_MS 50

int bench_null(const struct bench_options *options)
{
	static const char *const devices[] = { "net_null0" };
	static struct loop loop;
	double ns[BENCH_ROUNDS_MAX];
	struct loop_span span;
	loop_init(&loop, 1, devices, 1);
	double feeder_ns = loop_feeder_ns(&loop);
	loop_start(&loop, DEVICE_IDLE_POLL, true);
	loop_feed(&loop, 0, LOOP_OWN);
	loop_sleep_ms(20);
	for (uint32_t r = 0; r < options->n_rounds; r++) {
		loop_measure(&loop, NULL_SPAN_MS, &span);
		ns[r] = 1e9 / loop_rate(&loop, &span) - feeder_ns;
	}
	struct bench_line line = { .bench = "null",
		.goal = "G10",
		.name = "fullnat4/1K",
		.value = bench_median_of(ns, options->n_rounds),
		.unit = "ns",
		.peer = "the feeder, subtracted",
		.peer_value = feeder_ns,
		.multiple = NAN,
		.gate = NAN,
		.limit_value = NAN };
	bench_report(options, &line);
	loop_stop(&loop);
	loop_fini(&loop);
	return 0;
}
