// SPDX-License-Identifier: BSD-3-Clause
// Hot path: no allocation, lock, log, system call.
// From verdicts to places. The pipeline has counted drops and answers; what is counted here is what only the worker
// knows: sent, punted, re-steered, held.
#include "dataplane_priv.h"

// A packet that travels keeps the port it came in by in the low byte of mbuf->port, workers that had it in the high one: the
// field is in the line that every stage reads, and drivers set it anew on the next receive.
static uint16_t travel_mark(const struct burst *b, uint32_t i)
{
	uint8_t hops = b->hops[i] < UINT8_MAX ? (uint8_t)(b->hops[i] + 1) : UINT8_MAX;
	return pipeline_mark(b->in_port[i], hops);
}

static void move_packet(struct worker *w, const struct burst *b, uint32_t i, uint64_t *moved_to)
{
	uint16_t owner = b->out_port[i];
	struct rte_mbuf *mbuf = b->mbufs[i];
	if (unlikely(owner >= w->n_peers || w->resteer_out[owner] == NULL)) {
		worker_drop(w, DROP_RESTEER_RING_FULL, 1);
		rte_pktmbuf_free(mbuf);
		return;
	}
	mbuf->port = travel_mark(b, i);
	struct tx_batch *batch = &w->moved[owner];
	batch->mbufs[batch->n++] = mbuf; // BURST_MAX fit
	*moved_to |= 1ull << owner;
}

static inline void send_packet(struct worker *w, const struct burst *b, uint32_t i)
{
	uint8_t port_idx = b->out_port[i];
	if (unlikely(port_idx >= w->dp->n_ports)) {
		worker_drop(w, DROP_NO_ROUTE, 1);
		rte_pktmbuf_free(b->mbufs[i]);
		return;
	}
	transmit_add(w, port_idx, b->mbufs[i]);
}

// What nearly every burst is: all of it forwarded, by one port. It leaves from where it lies. False: nothing done.
static bool send_whole(struct worker *w, struct burst *b)
{
	uint8_t port_idx = b->out_port[0];
	if (w->waiting.n_packets > 0 || port_idx >= w->dp->n_ports)
		return false;
	for (uint32_t i = 0; i < b->n; i++)
		if (b->verdict[i] | (b->out_port[i] ^ port_idx))
			return false;
	transmit_burst(w, port_idx, b->mbufs, b->n);
	return true;
}
_Static_assert(PIPELINE_FORWARD == 0, "else send_whole asks for something else");

static void free_cut_off(struct burst *b)
{
	if (unlikely(b->n_tails > 0))
		rte_pktmbuf_free_bulk(b->tails, b->n_tails);
	if (unlikely(b->n_given_up > 0))
		rte_pktmbuf_free_bulk(b->given_up, b->n_given_up);
}

void dispatch_burst(struct worker *w, struct burst *b)
{
	free_cut_off(b);
	if (likely(send_whole(w, b)))
		return;
	struct rte_mbuf *dropped[BURST_MAX];
	uint32_t n_dropped = 0;
	uint64_t moved_to = 0;
	for (uint32_t i = 0; i < b->n; i++) {
		switch ((enum pipeline_verdict)b->verdict[i]) {
		case PIPELINE_FORWARD:
			if (unlikely(w->waiting.n_packets > 0) && wait_behind(w, b, i))
				break;
			send_packet(w, b, i);
			break;
		case PIPELINE_REPLY:
			send_packet(w, b, i);
			break;
		case PIPELINE_PUNT:
			punt_send(w, b, i);
			break;
		case PIPELINE_DROP:
			dropped[n_dropped++] = b->mbufs[i];
			break;
		case PIPELINE_RESTEER:
			move_packet(w, b, i, &moved_to);
			break;
		case PIPELINE_HELD:
			break;
		case PIPELINE_WAIT:
			wait_hold(w, b, i);
			break;
		}
	}
	if (n_dropped > 0)
		rte_pktmbuf_free_bulk(dropped, n_dropped);
	for (; moved_to; moved_to &= moved_to - 1)
		transmit_move(w, (uint16_t)__builtin_ctzll(moved_to));
}
