// SPDX-License-Identifier: BSD-3-Clause
// Hot path: no allocation, lock, log, system call.
// Between bursts: a slice of ageing when it is due, a slice of what control asked. In a turn with packets at most one
// slice (pipeline_housekeep: 2 us at most); in an idle turn as many as a sleep left due. A slice that had so much to end that it
// did not come to its last record is followed the sooner by the next.
#include "dataplane_priv.h"

void give_up_fragments(struct worker *w, uint64_t now_ns)
{
	struct rte_mbuf *mbufs[BURST_MAX];
	uint32_t n;
	do {
		n = pipeline_expire_held(&w->pipeline, now_ns, mbufs, BURST_MAX);
		rte_pktmbuf_free_bulk(mbufs, n);
	} while (n == BURST_MAX);
}

static void age_flows(struct worker *w)
{
	struct pipeline *p = &w->pipeline;
	uint64_t late_ns = p->now_ns - w->sweep_due_ns;
	uint64_t n = 1;
	if (w->empty_turns > 0) {
		n += late_ns / w->sweep_slice_ns;
		if (n > SWEEP_IDLE)
			n = SWEEP_IDLE;
	}
	// Of three slices two are the one-way table's, where it has entries: a pass of either takes as long.
	bool two = p->oneway.families[0].n_entries + p->oneway.families[1].n_entries > 0;
	uint64_t slice_ns = two ? w->sweep_slice_ns / 3 : w->sweep_slice_ns;
	for (uint64_t i = 0; i < n; i++) {
		pipeline_housekeep(p, w->sweep_records);
		w->sweep_due_ns += slice_ns * p->slice_done / w->sweep_records;
	}
	give_up_fragments(w, p->now_ns);
	// What was missed for long is not caught up in one go.
	if (late_ns > CLOCK_S)
		w->sweep_due_ns = p->now_ns + w->sweep_slice_ns;
	uint32_t n_flows = p->flows.n_flows + p->oneway.families[0].n_entries +
			   p->oneway.families[1].n_entries;
	__atomic_store_n(&w->face.n_flows, n_flows, __ATOMIC_RELAXED);
	// A number that no table holds any more is free when both have been swept.
	__atomic_store_n(&w->face.n_sweeps, p->n_rounds, __ATOMIC_RELAXED);
}

// ---------------------------------------------------------------- mail

static bool is_asked_for(const struct dataplane_flow_filter *filter, const struct flow_record *r)
{
	if (filter->by_client && !address_equal(&filter->client, &r->client))
		return false;
	if (!filter->by_backend_id)
		return true;
	for (uint32_t i = 0; i < filter->n_backend_ids && i < 64; i++) {
		if (filter->backend_ids[i] == r->backend_id)
			return true;
	}
	return false;
}

// The flow that a cursor stands on: records first, then positions of the one-way table. False: none.
static bool show_at(const struct pipeline *p, uint32_t cursor, struct flow_record *out)
{
	if (cursor >= p->flows.capacity)
		return pipeline_show_entry(p, cursor - p->flows.capacity, out);
	const struct flow_record *r = flow_record(&p->flows, cursor);
	if (r->state == FLOW_STATE_FREE)
		return false;
	pipeline_show_flow(p, r, out);
	return true;
}

static uint32_t cursor_end(const struct pipeline *p)
{
	return p->flows.capacity + oneway_n_positions(&p->oneway);
}

// True when the request is answered.
static bool copy_flows(struct worker *w, struct mail *mail)
{
	const struct pipeline *p = &w->pipeline;
	struct dataplane_reply *reply = &mail->reply;
	struct flow_record r;
	for (uint32_t looked = 0; looked < MAIL_SLICE; looked++) {
		if (w->mail_cursor >= cursor_end(p) || p->snapshot == NULL) {
			reply->next_cursor = FLOW_NONE;
			return true;
		}
		if (reply->n_flows == DATAPLANE_FLOWS_PER_REPLY) {
			reply->next_cursor = w->mail_cursor;
			return true;
		}
		if (show_at(p, w->mail_cursor++, &r) && is_asked_for(&mail->request.filter, &r))
			reply->flows[reply->n_flows++] = r;
	}
	return false;
}

static void end_flow(struct worker *w, uint32_t idx)
{
	struct pipeline *p = &w->pipeline;
	const struct flow_record *r = flow_record(&p->flows, idx);
	if (r->backend_id < p->n_backend_counters)
		worker_add(&p->backend_counters[r->backend_id].flows_ended, 1);
	struct flow_key reply = flow_backend_key(r);
	if (!(r->flags & FLOW_FLAG_DNAT))
		snat_free(p->snat, &reply);
	flow_remove(&p->flows, idx);
	counters_add(&w->counters, COUNTER_FLOWS_EVICTED, 1);
}

static void end_entry(struct worker *w, uint32_t ref, uint32_t backend_id)
{
	struct pipeline *p = &w->pipeline;
	if (backend_id < p->n_backend_counters)
		worker_add(&p->backend_counters[backend_id].flows_ended, 1);
	oneway_remove(&p->oneway, ref);
	counters_add(&w->counters, COUNTER_FLOWS_EVICTED, 1);
}

static bool purge_flows(struct worker *w, struct mail *mail)
{
	const struct pipeline *p = &w->pipeline;
	struct flow_record r;
	uint32_t n_ended = 0;
	for (uint32_t looked = 0; looked < MAIL_SLICE && n_ended < MAIL_ENDS; looked++) {
		if (w->mail_cursor >= cursor_end(p) || p->snapshot == NULL) {
			mail->reply.next_cursor = FLOW_NONE;
			return true;
		}
		uint32_t at = w->mail_cursor++;
		if (!show_at(p, at, &r) || r.backend_id != mail->request.backend_id)
			continue;
		if (at < p->flows.capacity)
			end_flow(w, at);
		else
			end_entry(w, at - p->flows.capacity, r.backend_id);
		mail->reply.n_flows++;
		n_ended++;
	}
	return false;
}

static bool answer(struct worker *w, struct mail *mail)
{
	switch (mail->request.kind) {
	case DATAPLANE_EXPLAIN:
		if (w->pipeline.snapshot != NULL)
			pipeline_explain(
				&w->pipeline, &mail->request.question, &mail->reply.explanation);
		return true;
	case DATAPLANE_FLOWS:
		return copy_flows(w, mail);
	case DATAPLANE_PURGE:
		return purge_flows(w, mail);
	default:
		return true;
	}
}

static void read_mail(struct worker *w)
{
	if (w->mail == NULL) {
		void *next;
		if (rte_ring_sc_dequeue(w->mailbox, &next) != 0)
			return;
		w->mail = next;
		w->mail_cursor = w->mail->request.cursor;
	}
	struct mail *mail = w->mail;
	if (!answer(w, mail))
		return;
	mail->reply.now_s = w->pipeline.now_s;
	// Never full: there are no more letters than the ring has room for (dataplane_ask).
	rte_ring_sp_enqueue(w->replies, mail);
	w->mail = NULL;
	w->posted = true;
}

void housekeep_turn(struct worker *w)
{
	if (unlikely(w->pipeline.now_ns >= w->sweep_due_ns) && w->pipeline.snapshot != NULL)
		age_flows(w);
	read_mail(w);
}
