// SPDX-License-Identifier: BSD-3-Clause
// Hot path: no allocation, lock, log, system call.
// To the twins: admission by one bucket with a floor per class, then a ring per class that control empties in order.
//
//   tokens  full ┌──────────┐
//                │  other   │ may draw down to one half
//           1/2  ├──────────┤
//                │neighbour │ down to one quarter
//           1/4  ├──────────┤
//                │ routing  │ down to nothing
//             0  └──────────┘
// A flood of one class keeps the level at its floor; a more important frame then still finds tokens and what is
// refilled goes to it first. Alone, each class gets the whole rate.
#include "dataplane_priv.h"

#define DEFAULT_PER_S 10000

void punt_init(struct punt_bucket *bucket, uint64_t per_s, uint32_t n_workers)
{
	if (per_s == 0)
		per_s = DEFAULT_PER_S;
	bucket->cost_ns = CLOCK_S * n_workers / per_s;
	if (bucket->cost_ns == 0)
		bucket->cost_ns = 1;
	uint64_t n_saved = 100 * CLOCK_MS / bucket->cost_ns;
	if (n_saved < 64)
		n_saved = 64;
	bucket->depth_ns = n_saved * bucket->cost_ns;
	bucket->tokens_ns = bucket->depth_ns;
	bucket->last_ns = 0;
	bucket->floor_ns[PIPELINE_PUNT_ROUTING] = 0;
	bucket->floor_ns[PIPELINE_PUNT_NEIGHBOUR] = bucket->depth_ns / 4;
	bucket->floor_ns[PIPELINE_PUNT_OTHER] = bucket->depth_ns / 2;
}

static bool admit(struct punt_bucket *bucket, uint8_t class, uint64_t now_ns)
{
	uint64_t gained_ns = now_ns - bucket->last_ns;
	bucket->last_ns = now_ns;
	if (gained_ns > bucket->depth_ns - bucket->tokens_ns)
		bucket->tokens_ns = bucket->depth_ns;
	else
		bucket->tokens_ns += gained_ns;
	if (bucket->tokens_ns < bucket->floor_ns[class] + bucket->cost_ns)
		return false;
	bucket->tokens_ns -= bucket->cost_ns;
	return true;
}

static void refuse(struct worker *w, struct rte_mbuf *mbuf, enum drop_reason reason)
{
	worker_drop(w, reason, 1);
	rte_pktmbuf_free(mbuf);
}

void punt_send(struct worker *w, struct burst *b, uint32_t i)
{
	struct rte_mbuf *mbuf = b->mbufs[i];
	uint8_t class = b->punt_class[i];
	if (!admit(&w->punt_bucket, class, w->pipeline.now_ns)) {
		refuse(w, mbuf, DROP_PUNT_RATE);
		return;
	}
	if (unlikely(mbuf->nb_segs > 1) && rte_pktmbuf_linearize(mbuf) != 0) {
		refuse(w, mbuf, DROP_SEGMENTED_HEADERS);
		return;
	}
	mbuf->port = b->in_port[i];
	if (rte_ring_sp_enqueue(w->punt[class], mbuf) != 0) {
		refuse(w, mbuf, DROP_PUNT_RING_FULL);
		return;
	}
	counters_add(&w->counters, COUNTER_PUNTED, 1);
	w->posted = true;
}
