// SPDX-License-Identifier: BSD-3-Clause
// What AddressPool objects say of themselves: how many addresses are given and free, and whether the pool is understood. Looked at
// every two seconds by the node that leads; one write at a time, numbers at leisure.
#include "core_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define TICK_S      2
#define SOON_NS     (5 * CLOCK_S)
#define REFUSED_NS  (30 * CLOCK_S)
#define STATUS_MAX  1024 // pools whose status is written
#define NAME_LENGTH 254

struct pool_note { // of a pool, as its object has it
	char name[NAME_LENGTH];
	struct kube_seen seen;
	uint64_t not_before_ns;
	bool is_marked;
};

struct cluster_pool_status {
	struct source_cluster *cluster;
	struct event *timer;
	struct cluster_call *call;
	char writing[NAME_LENGTH];
	int status;
	bool is_failing; // said
	struct pool_note *notes;
	uint32_t n_notes, cap;
};

static struct pool_note *note_find(struct cluster_pool_status *s, const char *name, bool create)
{
	for (uint32_t i = 0; i < s->n_notes; i++)
		if (strcmp(s->notes[i].name, name) == 0)
			return &s->notes[i];
	if (!create || s->n_notes == STATUS_MAX || strlen(name) >= NAME_LENGTH ||
		array_grow(s->notes, s->n_notes, s->cap) != 0)
		return NULL;
	struct pool_note *note = &s->notes[s->n_notes++];
	*note = (struct pool_note){ 0 };
	snprintf(note->name, sizeof(note->name), "%s", name);
	return note;
}

void cluster_pool_status_see(struct source_cluster *c, const json_t *pool)
{
	const char *name =
		json_string_value(json_object_get(json_object_get(pool, "metadata"), "name"));
	struct pool_note *note =
		c->pool_status && name ? note_find(c->pool_status, name, true) : NULL;
	if (note)
		kube_pool_seen_read(pool, &note->seen);
}

// ---------------------------------------------------------------- what it should say

static bool usage_find(const struct source_cluster *c, const char *name, struct ipam_usage *out)
{
	for (uint32_t i = 0; ipam_usage_at(c->ipam, i, out); i++)
		if (strcmp(out->pool, name) == 0)
			return true;
	return false;
}

// Findings of the object, and what stands in its way beside others.
static struct kube_condition condition_of(const struct source_cluster *c,
	const struct kube_pool *pool, const struct kube_pool_form *form)
{
	struct error all = { 0 };
	bool is_overlap = false;
	error_merge(&all, &form->findings, "");
	for (uint32_t i = 0; i < c->pool_findings.n_items; i++) {
		const struct error_item *item = &c->pool_findings.items[i];
		if (item->path == NULL || strcmp(item->path, pool->name) != 0)
			continue;
		is_overlap |= all.n_items == 0;
		error_add(&all, EINVAL, "spec.addresses", "%s", item->text ? item->text : "");
	}
	struct kube_condition condition = kube_condition_pool(&all, is_overlap);
	error_fini(&all);
	return condition;
}

// What is to be written of a pool now. false: nothing.
static bool body_make(struct source_cluster *c, struct pool_note *note,
	const struct kube_pool *pool, struct kube_write *out)
{
	struct kube_pool_form form;
	struct ipam_usage usage = { 0 };
	struct kube_pool_status want = {
		.name = pool->name, .uid = pool->uid, .generation = pool->generation
	};
	uint64_t now_ns = cluster_now_ns();
	if (now_ns < note->not_before_ns || kube_pool_read(pool, &form) != 0)
		return false;
	want.ready = condition_of(c, pool, &form);
	kube_pool_form_fini(&form);
	if (usage_find(c, pool->name, &usage)) {
		memcpy(want.assigned, usage.assigned, sizeof(want.assigned));
		memcpy(want.available, usage.available, sizeof(want.available));
	}
	if (kube_pool_settle(&want, &note->seen, clock_wall_ms() / 1000) == KUBE_WRITE_NONE)
		return false;
	note->not_before_ns = now_ns + SOON_NS;
	return kube_write_pool(&want, out) == 0;
}

// ---------------------------------------------------------------- writes

static void on_head(void *arg, int status, uint32_t retry_after_s, const char *content_type)
{
	struct cluster_pool_status *s = arg;
	s->status = status;
}

static void on_end(void *arg, enum cluster_end how, const char *why)
{
	struct cluster_pool_status *s = arg;
	struct pool_note *note = note_find(s, s->writing, false);
	bool is_done = how == CLUSTER_END_CLEAN &&
		       (s->status / 100 == 2 || s->status == 404 || s->status == 409);
	s->call = NULL;
	if (!is_done && note)
		note->not_before_ns = cluster_now_ns() + REFUSED_NS;
	if (!is_done && !s->is_failing)
		cluster_say(&s->cluster->voice, LOG_LEVEL_WARN, "status-not-written", s->writing,
			"addresspool: answer %d%s%s", s->status, why[0] ? ", " : "", why);
	s->is_failing = !is_done;
}

static void write_begin(
	struct cluster_pool_status *s, const char *name, const struct kube_write *body)
{
	struct cluster_request request = {
		.method = body->method,
		.path = body->target,
		.content_type = body->content_type,
		.body = body->body,
		.body_len = body->body_len,
		.head = on_head,
		.end = on_end,
		.arg = s,
	};
	snprintf(s->writing, sizeof(s->writing), "%s", name);
	s->status = 0;
	s->call = cluster_http_begin(s->cluster->http, &request);
}

static void notes_sweep(struct cluster_pool_status *s)
{
	for (uint32_t i = s->n_notes; i-- > 0;)
		if (!s->notes[i].is_marked)
			s->notes[i] = s->notes[--s->n_notes];
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct cluster_pool_status *s = arg;
	struct source_cluster *c = s->cluster;
	struct kube_pool pool;
	if (!c->is_applied || c->feeds[KUBE_CLUSTER_POOLS].is_waived)
		return;
	for (uint32_t i = 0; i < s->n_notes; i++)
		s->notes[i].is_marked = false;
	for (uint32_t i = 0; kube_cluster_pool_at(c->model, i, &pool); i++) {
		struct pool_note *note = note_find(s, pool.name, true);
		struct kube_write body = { 0 };
		if (note == NULL)
			break;
		note->is_marked = true;
		if (s->call || !cluster_leases_lead(c) || pool.is_deleting ||
			!body_make(c, note, &pool, &body))
			continue;
		write_begin(s, pool.name, &body);
		kube_write_fini(&body);
	}
	notes_sweep(s);
}

// ---------------------------------------------------------------- its life

int cluster_pool_status_start(struct source_cluster *c)
{
	struct timeval every = { .tv_sec = TICK_S };
	struct cluster_pool_status *s = calloc(1, sizeof(*s));
	if (s == NULL)
		return -ENOMEM;
	c->pool_status = s;
	s->cluster = c;
	s->timer = event_new(c->base, -1, EV_PERSIST, on_timer, s);
	if (s->timer == NULL)
		return -ENOMEM;
	evtimer_add(s->timer, &every);
	return 0;
}

void cluster_pool_status_end(struct source_cluster *c)
{
	struct cluster_pool_status *s = c->pool_status;
	if (s == NULL)
		return;
	if (s->call)
		cluster_http_cancel(s->call);
	if (s->timer)
		event_free(s->timer);
	free(s->notes);
	free(s);
	c->pool_status = NULL;
}
