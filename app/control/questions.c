// SPDX-License-Identifier: BSD-3-Clause
// Questions to workers: explain, list flows, remove the flows of a backend. A question goes through mailboxes, its answer
// comes through the reply ring; each question is answered once, after 1 s without a reply with what there is.
//
// Explain asks every worker: which one the NIC would choose is not known here. The one that holds the flow answers; else
// the owner of the port, for a packet to a SNAT address; else the first.
#include "control_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

// A position in a list of flows: worker, record to go on from, and how many matches from there were given already.
static uint64_t position_make(uint32_t worker, uint32_t cursor, uint32_t skip)
{
	return (uint64_t)worker << 40 | (uint64_t)skip << 32 | cursor;
}

static uint32_t position_worker(uint64_t position)
{
	return (uint32_t)(position >> 40);
}

static uint32_t position_skip(uint64_t position)
{
	return (uint32_t)(position >> 32) & 0xff;
}

static struct control_question *find_question(struct control *c, uint64_t id)
{
	for (uint32_t i = 0; i < CONTROL_QUESTIONS_MAX; i++) {
		if (id != 0 && c->questions[i].id == id)
			return &c->questions[i];
	}
	return NULL;
}

// What the question held is given back; the slot is free before the asker is told, who may ask again.
static struct control_question close_question(struct control_question *q)
{
	struct control_question closed = *q;
	struct event *timer = q->timer;
	evtimer_del(timer);
	memset(q, 0, sizeof(*q));
	q->timer = timer;
	return closed;
}

static void finish_explain(struct control_question *q)
{
	struct control_question closed = close_question(q);
	closed.explained(
		closed.arg, closed.n_answers > 0 ? &closed.best : NULL, closed.best_worker);
}

static void finish_flows(struct control_question *q, uint64_t next)
{
	struct control_question closed = close_question(q);
	closed.listed(closed.arg, closed.flows, closed.n_flows, next);
	free(closed.flows);
	free(closed.filter);
}

static void on_late(evutil_socket_t fd, short what, void *arg)
{
	struct control_question *q = arg;
	if (q->id == 0)
		return;
	if (q->kind == DATAPLANE_EXPLAIN)
		finish_explain(q);
	else if (q->kind == DATAPLANE_FLOWS)
		finish_flows(q, q->position);
	else
		close_question(q); // a worker that does not answer: its flows age out
}

static struct control_question *open_question(struct control *c, uint8_t kind, void *arg)
{
	struct control_question *q = NULL;
	for (uint32_t i = 0; i < CONTROL_QUESTIONS_MAX && q == NULL; i++) {
		if (c->questions[i].id == 0)
			q = &c->questions[i];
	}
	if (q == NULL)
		return NULL;
	if (q->timer == NULL)
		q->timer = evtimer_new(c->base, on_late, q);
	if (q->timer == NULL)
		return NULL;
	q->id = c->next_question++;
	q->kind = kind;
	q->arg = arg;
	control_arm(q->timer, CONTROL_QUESTION_MS * CLOCK_MS);
	return q;
}

void control_questions_end(struct control *c)
{
	for (uint32_t i = 0; i < CONTROL_QUESTIONS_MAX; i++) {
		struct control_question *q = &c->questions[i];
		on_late(-1, 0, q);
		if (q->timer != NULL)
			event_free(q->timer);
		q->timer = NULL;
	}
}

// ---------------------------------------------------------------- explain
int control_explain(struct control *c, const struct pipeline_question *question,
	void (*fn)(void *arg, const struct pipeline_explanation *explanation, uint16_t worker_idx),
	void *arg)
{
	if (c->dp == NULL)
		return -EAGAIN;
	struct control_question *q = open_question(c, DATAPLANE_EXPLAIN, arg);
	if (q == NULL)
		return -EAGAIN;
	q->explained = fn;
	struct dataplane_request request = {
		.kind = DATAPLANE_EXPLAIN, .cookie = q->id, .question = *question
	};
	for (uint32_t i = 0; i < dataplane_n_workers(c->dp); i++) {
		if (dataplane_ask(c->dp, i, &request) == 0)
			q->n_waiting++;
	}
	if (q->n_waiting > 0)
		return 0;
	close_question(q);
	return -EAGAIN;
}

static bool is_better(
	const struct control_question *q, const struct dataplane_reply *reply, uint16_t n_workers)
{
	const struct pipeline_explanation *x = &reply->explanation;
	if (q->n_answers == 0)
		return true;
	if ((x->flow_idx != FLOW_NONE) != (q->best.flow_idx != FLOW_NONE))
		return x->flow_idx != FLOW_NONE;
	bool is_owner = x->owner_worker == reply->worker_idx && x->owner_worker < n_workers;
	bool is_best_owner = q->best.owner_worker == q->best_worker;
	if (is_owner != is_best_owner)
		return is_owner;
	return reply->worker_idx < q->best_worker;
}

static void take_explanation(
	struct control *c, struct control_question *q, const struct dataplane_reply *reply)
{
	if (is_better(q, reply, (uint16_t)dataplane_n_workers(c->dp))) {
		q->best = reply->explanation;
		q->best_worker = reply->worker_idx;
	}
	q->n_answers++;
	if (--q->n_waiting == 0)
		finish_explain(q);
}

// ---------------------------------------------------------------- flows
static int ask_flows(struct control *c, struct control_question *q)
{
	struct dataplane_request request = { .kind = DATAPLANE_FLOWS,
		.cookie = q->id,
		.filter = *q->filter,
		.cursor = (uint32_t)q->position };
	control_arm(q->timer, CONTROL_QUESTION_MS * CLOCK_MS);
	return dataplane_ask(c->dp, position_worker(q->position), &request);
}

int control_flows(struct control *c, const struct dataplane_flow_filter *filter, uint64_t position,
	uint32_t limit,
	void (*fn)(void *arg, const struct control_flow *flows, uint32_t n, uint64_t next),
	void *arg)
{
	if (c->dp == NULL)
		return -EAGAIN;
	if (limit == 0 || position_worker(position) >= dataplane_n_workers(c->dp))
		return -EINVAL;
	struct control_question *q = open_question(c, DATAPLANE_FLOWS, arg);
	if (q == NULL)
		return -EAGAIN;
	q->listed = fn;
	q->limit = limit < CONTROL_FLOWS_MAX ? limit : CONTROL_FLOWS_MAX;
	q->position = position;
	q->filter = malloc(sizeof(*q->filter));
	q->flows = malloc(q->limit * sizeof(*q->flows));
	int rc = -ENOMEM;
	if (q->filter != NULL && q->flows != NULL) {
		*q->filter = *filter;
		rc = ask_flows(c, q);
	}
	if (rc == 0)
		return 0;
	struct control_question closed = close_question(q);
	free(closed.filter);
	free(closed.flows);
	return rc;
}

static void take_flows(
	struct control *c, struct control_question *q, const struct dataplane_reply *reply)
{
	uint32_t skip = position_skip(q->position);
	uint32_t i = skip;
	for (; i < reply->n_flows && q->n_flows < q->limit; i++)
		q->flows[q->n_flows++] = (struct control_flow){ reply->flows[i], reply->worker_idx,
			reply->now_s - reply->flows[i].stamp_s };
	uint32_t worker = position_worker(q->position);
	if (i < reply->n_flows)
		q->position = position_make(worker, (uint32_t)q->position, i);
	else if (reply->next_cursor != FLOW_NONE)
		q->position = position_make(worker, reply->next_cursor, 0);
	else
		q->position = position_make(worker + 1, 0, 0);
	if (position_worker(q->position) >= dataplane_n_workers(c->dp))
		finish_flows(q, 0);
	else if (q->n_flows >= q->limit || ask_flows(c, q) != 0)
		finish_flows(q, q->position);
}

// ---------------------------------------------------------------- purge
static int ask_purge(struct control *c, struct control_question *q, uint32_t cursor)
{
	struct dataplane_request request = { .kind = DATAPLANE_PURGE,
		.cookie = q->id,
		.cursor = cursor,
		.backend_id = q->backend_id };
	control_arm(q->timer, CONTROL_QUESTION_MS * CLOCK_MS);
	return dataplane_ask(c->dp, q->worker_idx, &request);
}

// Best effort: a flow that is not reached ages out, or its backend closes it.
void control_purge(struct control *c, uint32_t backend_id)
{
	for (uint32_t i = 0; c->dp != NULL && i < dataplane_n_workers(c->dp); i++) {
		struct control_question *q = open_question(c, DATAPLANE_PURGE, NULL);
		if (q == NULL)
			return;
		q->backend_id = backend_id;
		q->worker_idx = i;
		if (ask_purge(c, q, 0) != 0)
			close_question(q);
	}
}

void control_answers(struct control *c)
{
	struct dataplane_reply *reply;
	while ((reply = dataplane_next_reply(c->dp)) != NULL) {
		struct control_question *q = find_question(c, reply->cookie);
		if (q != NULL && q->kind == reply->kind) {
			if (q->kind == DATAPLANE_EXPLAIN)
				take_explanation(c, q, reply);
			else if (q->kind == DATAPLANE_FLOWS)
				take_flows(c, q, reply);
			else if (reply->next_cursor == FLOW_NONE ||
				 ask_purge(c, q, reply->next_cursor) != 0)
				close_question(q);
		}
		dataplane_reply_free(c->dp, reply);
	}
}
