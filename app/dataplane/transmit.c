// SPDX-License-Identifier: BSD-3-Clause
// Hot path: no allocation, lock, log, system call.
// The way out: batches by port, flushed at the end of every turn (a whole burst for one port goes as it is), and the rings to other
// workers.
// What a port does not take within a few tries is dropped by name: waiting longer would only move the loss to receive.
#include "dataplane_priv.h"

#include <rte_ethdev.h>

static uint64_t count_bytes(struct rte_mbuf *const *mbufs, uint32_t n)
{
	uint64_t bytes = 0;
	for (uint32_t i = 0; i < n; i++)
		bytes += mbufs[i]->pkt_len;
	return bytes;
}

// Frames from twins are named apart: they come from the control pool.
static void drop_unsent(struct worker *w, struct rte_mbuf **mbufs, uint32_t n)
{
	uint32_t n_injected = 0;
	for (uint32_t i = 0; i < n; i++)
		n_injected += mbufs[i]->pool == w->dp->control_pool;
	worker_drop(w, DROP_INJECT_TX, n_injected);
	worker_drop(w, DROP_TX_QUEUE_FULL, n - n_injected);
	rte_pktmbuf_free_bulk(mbufs, n);
}

// Tags of a tagged port. A frame without room for one is dropped. Returns how many are left.
static uint32_t tag(struct worker *w, uint16_t vlan, struct rte_mbuf **mbufs, uint32_t n)
{
	uint32_t n_left = 0;
	for (uint32_t i = 0; i < n; i++) {
		if (likely(packet_vlan_insert(mbufs[i], vlan))) {
			mbufs[n_left++] = mbufs[i];
			continue;
		}
		worker_drop(w, DROP_NO_HEADROOM, 1);
		rte_pktmbuf_free(mbufs[i]);
	}
	return n_left;
}

static void send_own(struct worker *w, uint8_t port_idx, struct rte_mbuf **mbufs, uint32_t n_all)
{
	const struct tx_way *way = &w->ways[port_idx];
	if (unlikely(way->vlan != 0))
		n_all = tag(w, way->vlan, mbufs, n_all);
	uint64_t bytes = count_bytes(mbufs, n_all);
	uint32_t n = 0;
	for (uint32_t tries = 0; n < n_all && tries < TX_TRIES;) {
		uint16_t took = rte_eth_tx_burst(
			way->port_id, way->queue, &mbufs[n], (uint16_t)(n_all - n));
		n += took;
		tries += took == 0;
	}
	if (unlikely(n < n_all)) {
		bytes -= count_bytes(&mbufs[n], n_all - n);
		drop_unsent(w, &mbufs[n], n_all - n);
	}
	counters_add(&w->counters, COUNTER_SENT, n);
	counters_add(&w->counters, COUNTER_SENT_BYTES, bytes);
	worker_add(&w->ports[port_idx].tx_packets, n);
	worker_add(&w->ports[port_idx].tx_bytes, bytes);
}

// To the worker that owns a transmit queue of this port. For the accounting it is a re-steered packet: ours no longer
// when it is in the ring, the owner's when it takes it out.
static void hand_over(struct worker *w, uint8_t port_idx, struct tx_batch *batch)
{
	const struct tx_way *way = &w->ways[port_idx];
	for (uint32_t i = 0; i < batch->n; i++)
		batch->mbufs[i]->port = port_idx;
	uint32_t n = rte_ring_sp_enqueue_burst(
		way->handover, (void *const *)batch->mbufs, batch->n, NULL);
	counters_add(&w->counters, COUNTER_RESTEERED_OUT, n);
	if (n < batch->n)
		drop_unsent(w, &batch->mbufs[n], batch->n - n);
	struct bell *bell = &w->dp->workers[way->owner]->bell;
	if (n > 0 && unlikely(bell_is_far(bell)))
		bell_ring(bell);
}

void transmit_flush(struct worker *w, uint8_t port_idx)
{
	struct tx_batch *batch = &w->batches[port_idx];
	if (batch->n == 0)
		return;
	if (w->ways[port_idx].handover)
		hand_over(w, port_idx, batch);
	else
		send_own(w, port_idx, batch->mbufs, batch->n);
	batch->n = 0;
}

void transmit_burst(struct worker *w, uint8_t port_idx, struct rte_mbuf **mbufs, uint32_t n)
{
	if (likely(w->batches[port_idx].n == 0 && w->ways[port_idx].handover == NULL)) {
		send_own(w, port_idx, mbufs, n);
		return;
	}
	for (uint32_t i = 0; i < n; i++)
		transmit_add(w, port_idx, mbufs[i]);
}

void transmit_flush_all(struct worker *w)
{
	for (uint32_t dirty = w->dirty; dirty; dirty &= dirty - 1)
		transmit_flush(w, (uint8_t)__builtin_ctz(dirty));
	w->dirty = 0;
}

void transmit_move(struct worker *w, uint16_t owner)
{
	struct tx_batch *batch = &w->moved[owner];
	uint32_t n = rte_ring_sp_enqueue_burst(
		w->resteer_out[owner], (void *const *)batch->mbufs, batch->n, NULL);
	counters_add(&w->counters, COUNTER_RESTEERED_OUT, n);
	if (unlikely(n < batch->n)) {
		worker_drop(w, DROP_RESTEER_RING_FULL, batch->n - n);
		rte_pktmbuf_free_bulk(&batch->mbufs[n], batch->n - n);
	}
	batch->n = 0;
	// Only out of a long sleep, so once per silence of that worker and not per packet.
	struct bell *bell = &w->dp->workers[owner]->bell;
	if (n > 0 && unlikely(bell_is_far(bell)))
		bell_ring(bell);
}
