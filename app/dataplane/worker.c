// SPDX-License-Identifier: BSD-3-Clause
// Hot path: no allocation, lock, log, system call.
// The loop of a worker. One turn: take up to a burst from the queues and rings in rotation, run the pipeline over it,
// send every packet where its verdict says, flush all ports, report quiescent, do a bounded slice of housekeeping.
// Nothing is kept back to fill a batch: bursts grow by themselves under load and stay small below it.
//
// The snapshot is loaded once a turn; before the first one nothing is received (packets stay in the ports).
#include "dataplane_priv.h"

#include <rte_cycles.h>
#include <rte_ethdev.h>

static void take_time(struct worker *w)
{
	uint64_t tsc = rte_rdtsc();
	uint64_t ns = worker_clock_read(&w->clock, tsc);
	w->now_tsc = tsc;
	// A counter that jumped is beyond a second too: nobody sees such a reading.
	if (unlikely(ns - w->clock.base_ns > CLOCK_S))
		ns = idle_sync_clock(w);
	w->pipeline.now_ns = ns;
	w->pipeline.now_s = (uint32_t)(ns / CLOCK_S);
}

static void take_snapshot(struct worker *w)
{
	// acquire: what the pointer leads to was written before it was published
	const struct snapshot *s = __atomic_load_n(&w->dp->snapshot, __ATOMIC_ACQUIRE);
	// The generation too: a snapshot may come to lie where a freed one was, while this worker slept.
	if (likely(s == w->pipeline.snapshot && (s == NULL || s->generation == w->face.generation)))
		return;
	w->pipeline.snapshot = s;
	__atomic_store_n(&w->face.generation, s ? s->generation : 0, __ATOMIC_RELEASE);
}

static void count_received(
	struct worker *w, uint8_t port_idx, struct rte_mbuf *const *mbufs, uint32_t n)
{
	uint64_t bytes = 0;
	for (uint32_t i = 0; i < n; i++)
		bytes += mbufs[i]->pkt_len;
	counters_add(&w->counters, COUNTER_RECEIVED, n);
	counters_add(&w->counters, COUNTER_RECEIVED_BYTES, bytes);
	worker_add(&w->ports[port_idx].rx_packets, n);
	worker_add(&w->ports[port_idx].rx_bytes, bytes);
}

// Takes off the tag of a tagged port's frames; what is for another VLAN is dropped. Returns how many are left.
static uint32_t untag(struct worker *w, uint16_t vlan, struct rte_mbuf **mbufs, uint32_t n)
{
	uint32_t n_left = 0;
	for (uint32_t i = 0; i < n; i++) {
		enum drop_reason refused = packet_vlan_strip(mbufs[i], vlan);
		if (likely(refused == DROP_NONE)) {
			mbufs[n_left++] = mbufs[i];
			continue;
		}
		worker_drop(w, refused, 1);
		rte_pktmbuf_free(mbufs[i]);
	}
	return n_left;
}

static void receive_port(struct worker *w, struct burst *b, const struct rx_source *source)
{
	struct rte_mbuf **at = &b->mbufs[b->n];
	uint32_t n = rte_eth_rx_burst(source->port_id, source->queue, at, RX_SHARE);
	if (n == 0)
		return;
	count_received(w, source->port_idx, at, n);
	if (unlikely(source->vlan != 0))
		n = untag(w, source->vlan, at, n);
	for (uint32_t i = 0; i < n; i++)
		b->in_port[b->n + i] = source->port_idx;
	memset(&b->hops[b->n], 0, n);
	b->n += n;
}

// For a line that another core has written and this one will: it comes as ours to write, and not a second time for that.
static inline void ask_to_write(const void *line)
{
#ifdef __x86_64__
	__asm__ volatile("prefetchw %0" : : "m"(*(const char *)line));
#else
	__builtin_prefetch(line, 1, 3);
#endif
}

// mbuf->port carries the port they came in by and how many workers had them (dispatch.c).
static void take_arrived(struct worker *w, struct burst *b, struct arrivals *arrived)
{
	uint32_t n = arrived->n;
	for (uint32_t i = 0; i < n; i++) {
		b->mbufs[b->n + i] = arrived->mbufs[i];
		pipeline_unmark(b, b->n + i);
	}
	counters_add(&w->counters, COUNTER_RESTEERED_IN, n);
	b->n += n;
	arrived->n = 0;
}

// Packets that arrived at another worker but are ours. All their lines are in that worker's cache, and its answers take as long as
// a few packets: so they are asked for now, and the packets run with the next burst. Where the frame lies is guessed, for the head
// says it only when it has come.
static void receive_moved(struct worker *w, struct burst *b, uint16_t peer)
{
	struct arrivals *arrived = &w->arrived[peer];
	if (arrived->n > 0)
		take_arrived(w, b, arrived);
	arrived->n = rte_ring_sc_dequeue_burst(
		w->resteer_in[peer], (void **)arrived->mbufs, RX_SHARE, NULL);
	for (uint32_t i = 0; i < arrived->n; i++) {
		const char *head = (const char *)arrived->mbufs[i];
		ask_to_write(head);
		ask_to_write(head + RTE_CACHE_LINE_MIN_SIZE);
		ask_to_write(head + sizeof(struct rte_mbuf) + RTE_PKTMBUF_HEADROOM);
	}
	if (b->n == 0) // nothing to do meanwhile
		take_arrived(w, b, arrived);
}

// The others have written how far their rings are filled, and what lies there: asked for while the queues are read.
static inline void ask_for_moved(const struct worker *w)
{
	for (uint16_t peer = 0; peer < w->n_peers; peer++) {
		const struct rte_ring *ring = w->resteer_in[peer];
		if (ring == NULL)
			continue;
		const char *slots = (const char *)(ring + 1);
		uint32_t at = ring->cons.head & ring->mask;
		__builtin_prefetch(&ring->prod, 0, 3);
		for (uint32_t line = 0; line < 3; line++)
			__builtin_prefetch(
				slots + ((at + 8 * line) & ring->mask) * sizeof(void *), 0, 3);
	}
}

// Sources are asked in rotation, from where the last turn ended, while a full share fits: drivers with vector receive
// need room for 32. Queues first, then the rings of the other workers.
static void receive(struct worker *w, struct burst *b)
{
	uint32_t n_all = (uint32_t)w->n_sources + w->n_peers;
	uint32_t turn = w->source_turn;
	b->n = 0;
	ask_for_moved(w);
	if (unlikely(w->pipeline.n_released > 0))
		pipeline_take_released(&w->pipeline, b);
	for (uint32_t asked = 0; asked < n_all && b->n + RX_SHARE <= BURST_MAX; asked++) {
		if (turn < w->n_sources)
			receive_port(w, b, &w->sources[turn]);
		else if (w->resteer_in[turn - w->n_sources])
			receive_moved(w, b, (uint16_t)(turn - w->n_sources));
		turn = turn + 1 == n_all ? 0 : turn + 1;
	}
	w->source_turn = (uint16_t)turn;
}

// Frames that only have to be sent: from twins (control), and of workers without a transmit queue of their own.
static uint32_t receive_ready(struct worker *w)
{
	struct rte_mbuf *mbufs[RX_SHARE];
	uint32_t n = rte_ring_sc_dequeue_burst(w->inject, (void **)mbufs, RX_SHARE, NULL);
	if (n > 0)
		counters_add(&w->counters, COUNTER_INJECTED, n);
	for (uint32_t i = 0; i < n; i++)
		transmit_add(w, (uint8_t)mbufs[i]->port, mbufs[i]);
	uint32_t n_all = n;
	for (uint16_t peer = 0; peer < w->n_peers; peer++) {
		if (w->handover_in[peer] == NULL)
			continue;
		n = rte_ring_sc_dequeue_burst(w->handover_in[peer], (void **)mbufs, RX_SHARE, NULL);
		counters_add(&w->counters, COUNTER_RESTEERED_IN, n);
		for (uint32_t i = 0; i < n; i++)
			transmit_add(w, (uint8_t)mbufs[i]->port, mbufs[i]);
		n_all += n;
	}
	return n_all;
}

static void finish_turn(struct worker *w, uint32_t n_packets)
{
	counters_add(&w->counters, COUNTER_POLLS, 1);
	if (n_packets > 0) {
		w->last_packet_ns = w->pipeline.now_ns;
		w->empty_turns = 0;
		counters_add(&w->counters, COUNTER_BUSY_CYCLES, rte_rdtsc() - w->now_tsc);
	} else {
		counters_add(&w->counters, COUNTER_POLLS_EMPTY, 1);
		w->empty_turns += w->empty_turns < UINT32_MAX;
	}
	if (unlikely(w->posted)) {
		w->posted = false;
		control_call(w->dp);
	}
	__atomic_store_n(&w->face.total_cycles, w->now_tsc - w->first_tsc, __ATOMIC_RELAXED);
}

static void worker_turn(struct worker *w)
{
	struct burst *b = &w->burst;
	uint32_t n = 0;
	take_time(w);
	take_snapshot(w);
	if (likely(w->pipeline.snapshot != NULL)) {
		// Before the burst, so that held packets of a flow leave before new ones.
		if (unlikely(w->waiting.n_packets > 0))
			wait_turn(w);
		receive(w, b);
		n = b->n;
		if (n > 0) {
			pipeline_run(&w->pipeline, b);
			dispatch_burst(w, b);
		}
	}
	n += receive_ready(w);
	if (w->dirty)
		transmit_flush_all(w);
	finish_turn(w, n);
	housekeep_turn(w);
	rte_rcu_qsbr_quiescent(w->dp->qsbr, w->idx);
	if (n == 0)
		idle_turn(w);
}

int worker_main(void *arg)
{
	struct worker *w = arg;
	idle_enter(w);
	while (likely(!__atomic_load_n(&w->dp->is_stopping, __ATOMIC_RELAXED)))
		worker_turn(w);
	give_up_fragments(w, UINT64_MAX);
	idle_leave(w);
	return 0;
}
