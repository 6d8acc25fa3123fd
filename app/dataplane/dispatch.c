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

static void move_packet(struct worker *w, const struct burst *b, uint32_t i)
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
	w->moved_to |= 1ull << owner;
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
	uint64_t ports = 0x0101010101010101ull * port_idx, others = 0;
	uint32_t i = 0;
	if (w->waiting.n_packets > 0 || port_idx >= w->dp->n_ports)
		return false;
	for (; i + 8 <= b->n; i += 8) {
		uint64_t verdicts, out_ports;
		memcpy(&verdicts, &b->verdict[i], 8);
		memcpy(&out_ports, &b->out_port[i], 8);
		others |= verdicts | (out_ports ^ ports);
	}
	for (; i < b->n; i++)
		others |= b->verdict[i] | (uint64_t)(b->out_port[i] ^ port_idx);
	if (others != 0)
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

struct dropped {
	uint32_t n;
	struct rte_mbuf *mbufs[BURST_MAX];
};

static __rte_noinline void dispatch_odd(
	struct worker *w, struct burst *b, uint32_t i, struct dropped *dropped)
{
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
		dropped->mbufs[dropped->n++] = b->mbufs[i];
		break;
	case PIPELINE_RESTEER: // never comes here
	case PIPELINE_HELD:
		break;
	case PIPELINE_WAIT:
		wait_hold(w, b, i);
		break;
	}
}

// Packets of a burst by what becomes of them, in the order of arrival.
struct sorted {
	uint32_t n_forward;
	uint32_t n_moved;
	uint8_t forward[BURST_MAX];
	uint8_t moved[BURST_MAX];
};

static void send_sorted(struct worker *w, const struct burst *b, struct sorted *sorted)
{
	struct rte_mbuf *mbufs[BURST_MAX];
	uint32_t n = sorted->n_forward, others = 0;
	sorted->n_forward = 0;
	if (n == 0)
		return;
	uint8_t port_idx = b->out_port[sorted->forward[0]];
	for (uint32_t k = 0; k < n; k++) {
		mbufs[k] = b->mbufs[sorted->forward[k]];
		others |= b->out_port[sorted->forward[k]] ^ port_idx;
	}
	if (likely(others == 0 && port_idx < w->dp->n_ports)) {
		transmit_burst(w, port_idx, mbufs, n);
		return;
	}
	for (uint32_t k = 0; k < n; k++)
		send_packet(w, b, sorted->forward[k]);
}

// Whether a packet is forwarded or moves nobody foresees, so no branch asks. Everything else is done at once, behind what was
// forwarded before it; and while packets wait for a next hop nothing is forwarded unseen.
static void dispatch_mixed(
	struct worker *w, struct burst *b, struct sorted *sorted, struct dropped *dropped)
{
	uint32_t n_forward = 0, n_moved = 0;
	for (uint32_t i = 0; i < b->n; i++) {
		uint32_t verdict = b->verdict[i], moves = verdict == PIPELINE_RESTEER;
		bool is_odd = (verdict & ~(uint32_t)PIPELINE_RESTEER) ||
			      (unlikely(w->waiting.n_packets > 0) && !moves);
		if (unlikely(is_odd)) {
			sorted->n_forward = n_forward;
			send_sorted(w, b, sorted);
			dispatch_odd(w, b, i, dropped);
			n_forward = 0;
			continue;
		}
		sorted->forward[n_forward] = (uint8_t)i;
		sorted->moved[n_moved] = (uint8_t)i;
		n_forward += 1 - moves;
		n_moved += moves;
	}
	sorted->n_forward = n_forward;
	sorted->n_moved = n_moved;
}
_Static_assert(PIPELINE_FORWARD == 0 && PIPELINE_RESTEER == 4, "they differ in one bit");

// How far the others have read is written by them: asked for while the burst is dealt out.
static inline void ask_for_room(const struct worker *w)
{
	for (uint64_t owners = w->moved_to; owners; owners &= owners - 1)
		__builtin_prefetch(&w->resteer_out[__builtin_ctzll(owners)]->cons, 0, 3);
}

void dispatch_burst(struct worker *w, struct burst *b)
{
	free_cut_off(b);
	if (likely(send_whole(w, b)))
		return;
	struct dropped dropped;
	struct sorted sorted;
	dropped.n = 0;
	ask_for_room(w);
	w->moved_to = 0;
	dispatch_mixed(w, b, &sorted, &dropped);
	for (uint32_t k = 0; k < sorted.n_moved; k++)
		move_packet(w, b, sorted.moved[k]);
	for (uint64_t owners = w->moved_to; owners; owners &= owners - 1)
		transmit_move(w, (uint16_t)__builtin_ctzll(owners));
	send_sorted(w, b, &sorted);
	if (dropped.n > 0)
		rte_pktmbuf_free_bulk(dropped.mbufs, dropped.n);
}
