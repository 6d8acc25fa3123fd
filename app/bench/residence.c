// SPDX-License-Identifier: BSD-3-Clause
// How long a packet stays (G18): another thread puts packets into the receive ring of a net_ring port at random times, at half
// the rate that saturates the worker; from there to the worker's transmit call into the ring of a second port. Packets that
// waited while the worker was not running (20 us and more between two polls) are left out and counted.
#include "loop_priv.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <rte_cycles.h>
#include <rte_mbuf_dyn.h>
#include <rte_ring.h>

#define RESIDENCE_BUCKET_NS 8
#define RESIDENCE_BUCKETS   32768
#define RESIDENCE_WARM_MS   200
#define RESIDENCE_SPAN_MS   1000

struct residence {
	struct loop loop;
	struct rte_ring *ring; // receive side of the first port
	int stamp_at;          // in a buffer
	// [worker]
	uint64_t polled_tsc;
	uint64_t gap_end_tsc; // packets that came before it waited for a worker that did not run
	uint64_t n_samples;
	uint64_t n_left_out;
	uint32_t counts[RESIDENCE_BUCKETS];
	// [control writes, generator reads: relaxed]
	uint32_t is_stopping;
	uint32_t is_counting; // [control writes, worker reads: relaxed]
	double gap_ticks;     // mean, between two packets; 0: as fast as it goes
};

static void residence_on_poll(struct loop_feeder *f)
{
	struct residence *r = f->arg;
	uint64_t now = rte_rdtsc();
	if (now - r->polled_tsc > bench_gap_ticks)
		r->gap_end_tsc = now;
	r->polled_tsc = now;
}

static void residence_on_sent(struct loop_feeder *f, struct rte_mbuf **mbufs, uint32_t n)
{
	struct residence *r = f->arg;
	if (!__atomic_load_n(&r->is_counting, __ATOMIC_RELAXED))
		return;
	uint64_t now = rte_rdtsc();
	for (uint32_t i = 0; i < n; i++) {
		uint64_t stamp = *RTE_MBUF_DYNFIELD(mbufs[i], r->stamp_at, uint64_t *);
		if (stamp < r->gap_end_tsc || now - r->polled_tsc > bench_gap_ticks) {
			r->n_left_out++;
			continue;
		}
		double ns = (double)(now - stamp) * bench_ns_per_tick;
		uint32_t bucket = (uint32_t)(ns / RESIDENCE_BUCKET_NS);
		r->counts[bucket < RESIDENCE_BUCKETS ? bucket : RESIDENCE_BUCKETS - 1]++;
		r->n_samples++;
	}
}

// ---------------------------------------------------------------- generator

static void residence_send(struct residence *r, struct bench_rng *rng)
{
	struct rte_mbuf *mbuf = rte_pktmbuf_alloc(r->loop.feeders[0].pool);
	if (mbuf == NULL)
		return;
	loop_put_frame(&r->loop, mbuf, bench_random_below(rng, LOOP_FLOWS));
	*RTE_MBUF_DYNFIELD(mbuf, r->stamp_at, uint64_t *) = rte_rdtsc();
	if (rte_ring_enqueue(r->ring, mbuf) != 0)
		rte_pktmbuf_free(mbuf);
}

static void residence_pin(void)
{
	int cpus[CPU_SETSIZE];
	cpu_set_t set;
	CPU_ZERO(&set);
	if (loop_cpus(cpus) > 0)
		CPU_SET(cpus[0], &set);
	pthread_setaffinity_np(pthread_self(), sizeof(set), &set);
}

// Times between packets are exponential; who was held up does not catch up.
static void *residence_generate(void *arg)
{
	struct residence *r = arg;
	struct bench_rng rng = { 5 };
	residence_pin();
	double due = (double)rte_rdtsc();
	while (!__atomic_load_n(&r->is_stopping, __ATOMIC_RELAXED)) {
		double now = (double)rte_rdtsc();
		if (now < due)
			continue;
		residence_send(r, &rng);
		double u = ((double)(bench_random(&rng) >> 11) + 1) / 9007199254740993.0;
		due -= r->gap_ticks * log(u);
		if (now - due > (double)bench_gap_ticks)
			due = now;
	}
	return NULL;
}

// Packets per second of turns with packets while the generator runs for `ms`.
static double residence_run(struct residence *r, uint32_t ms, bool count)
{
	pthread_t thread;
	struct loop_span span;
	r->is_stopping = 0;
	if (pthread_create(&thread, NULL, residence_generate, r) != 0)
		abort();
	loop_sleep_ms(20);
	__atomic_store_n(&r->is_counting, count, __ATOMIC_RELAXED);
	loop_measure(&r->loop, ms, &span);
	__atomic_store_n(&r->is_counting, 0, __ATOMIC_RELAXED);
	__atomic_store_n(&r->is_stopping, 1, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	return span.sent[0] / span.busy_ns[0] * 1e9;
}

// ---------------------------------------------------------------- report

static double residence_percentile(const struct residence *r, double share)
{
	double left = (double)r->n_samples * share;
	for (uint32_t i = 0; i < RESIDENCE_BUCKETS; i++) {
		left -= r->counts[i];
		if (left <= 0)
			return (i + 0.5) * RESIDENCE_BUCKET_NS / 1e3;
	}
	return NAN;
}

static void residence_report(
	const struct bench_options *options, const struct residence *r, double full_rate)
{
	double n = (double)(r->n_samples + r->n_left_out);
	struct bench_line line = { .bench = "residence",
		.goal = "G18",
		.name = "50 % load, p50",
		.unit = "us",
		.peer = "packets/s of a whole core",
		.peer_value = full_rate,
		.gate = 3,
		.limit_value = NAN };
	line.value = line.multiple = r->n_samples ? residence_percentile(r, 0.5) : NAN;
	bench_report(options, &line);
	line.name = "50 % load, p99";
	line.value = line.multiple = r->n_samples ? residence_percentile(r, 0.99) : NAN;
	line.gate = 15;
	bench_report(options, &line);
	fprintf(stderr,
		"# residence: %.0f packets, %.2f %% left out (the worker was not running)\n", n,
		n > 0 ? 100 * (double)r->n_left_out / n : 0);
}

int bench_residence(const struct bench_options *options)
{
	static const char *const devices[] = { "net_ring0", "net_ring1" };
	static const struct rte_mbuf_dynfield field = {
		.name = "bench_stamp", .size = sizeof(uint64_t), .align = 8
	};
	int cpus[CPU_SETSIZE];
	if (loop_cpus(cpus) < 2) {
		bench_skip(options, "residence", "G18", "50 % load, p50", "needs two processors");
		return 0;
	}
	struct residence *r = calloc(1, sizeof(*r));
	loop_init(&r->loop, 1, devices, 2);
	r->ring = rte_ring_lookup("ETH_RXTX0_net_ring0");
	r->stamp_at = rte_mbuf_dynfield_register(&field);
	if (r->ring == NULL || r->stamp_at < 0)
		return -1;
	r->loop.feeders[0].on_poll = residence_on_poll;
	r->loop.feeders[0].on_sent = residence_on_sent;
	r->loop.feeders[0].arg = r;
	loop_start(&r->loop, DEVICE_IDLE_POLL, true);
	loop_feed(&r->loop, 0, LOOP_OTHERS);
	double full_rate = residence_run(r, RESIDENCE_WARM_MS, false);
	r->gap_ticks = 2 * 1e9 / full_rate / bench_ns_per_tick;
	residence_run(r, RESIDENCE_SPAN_MS, true);
	residence_report(options, r, full_rate);
	loop_stop(&r->loop);
	loop_fini(&r->loop);
	free(r);
	return 0;
}
