// SPDX-License-Identifier: BSD-3-Clause
// What Services say of themselves, written by the node that leads: addresses, conditions, annotations, finalizer. A record is
// looked at when the model has news of it, when ipam has, when somebody else wrote, when nodes come or go, and every ten seconds
// for the health of its backends. Looking is cheap; a write follows only when the object says something else than it should, at once
// for what matters, at leisure for numbers in messages. At most a few are under way; the lead is asked for right before each.
#include "core_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define WRITES_MAX  8
#define SOON_NS     (5 * CLOCK_S)
#define REFUSED_NS  (10 * CLOCK_S)   // after an answer that was no success
#define SHORT_NS    (300 * CLOCK_MS) // after one that was, or met another
#define ROUND_TICKS 10               // a look at everybody takes so many
#define TICK_S      1
#define ANSWER_MAX  2048

struct cluster_write { // under way
	struct cluster_writer *writer;
	char namespace[SERVICE_NAME_MAX], name[SERVICE_NAME_MAX];
	struct cluster_call *call; // NULL: free
	int status;
	char answer[ANSWER_MAX];
	size_t answer_len;
};

struct cluster_writer {
	struct source_cluster *cluster;
	struct cluster_record *first, *last; // to be looked at
	struct cluster_write writes[WRITES_MAX];
	struct event *kick, *tick;
	uint32_t n_round; // which tenth is next
	bool is_leading;
	bool is_failing; // said
	uint64_t n_written, n_refused;
	uint64_t last_event; // of control's journal, looked at
};

static void kick(struct cluster_writer *w)
{
	struct timeval now = { 0 };
	evtimer_add(w->kick, &now);
}

// ---------------------------------------------------------------- the queue

static void queue_add(struct cluster_writer *w, struct cluster_record *record)
{
	record->is_queued = true;
	record->next_write = NULL;
	if (w->first)
		w->last->next_write = record;
	else
		w->first = record;
	w->last = record;
}

void cluster_writer_queue(struct source_cluster *c, struct cluster_record *record)
{
	struct cluster_writer *w = c->writer;
	if (w == NULL || record->is_queued || !w->is_leading)
		return;
	queue_add(w, record);
	kick(w);
}

static void queue_remove(struct cluster_writer *w, struct cluster_record *record)
{
	struct cluster_record **link = &w->first, *before = NULL;
	if (!record->is_queued)
		return;
	for (; *link != record; link = &(*link)->next_write)
		before = *link;
	*link = record->next_write;
	if (w->last == record)
		w->last = before;
	record->is_queued = false;
}

static struct cluster_record *queue_take(struct cluster_writer *w)
{
	struct cluster_record *record = w->first;
	if (record)
		queue_remove(w, record);
	return record;
}

// ---------------------------------------------------------------- what it should say

struct status_draft {
	struct kube_status status;
	struct kube_ingress ingress[IPAM_FAMILIES];
	char allocation[340];
	char *assigned; // owned
	char refusal[KUBE_MESSAGE_MAX];
};

struct children { // hostnames of an object
	struct source_cluster *cluster;
	const struct cluster_record *parent;
	struct kube_assigned *items;
	uint32_t n, cap;
	bool is_short;
};

static void child_take(void *arg, struct cluster_record *record)
{
	struct children *all = arg;
	size_t object_len = strlen(all->parent->name), len = strlen(record->name);
	if (record == all->parent || record->n_addresses == 0 || !record->has_answer ||
		record->object == NULL || strcmp(record->object, all->parent->name) != 0 ||
		strcmp(record->namespace, all->parent->namespace) != 0 || len <= object_len + 1)
		return;
	if (array_grow(all->items, all->n, all->cap) != 0) {
		all->is_short = true;
		return;
	}
	struct kube_assigned *item = &all->items[all->n++];
	item->hostname = strndup(record->name, len - object_len - 1);
	item->n_addresses = record->n_addresses;
	memcpy(item->addresses, record->addresses, sizeof(item->addresses));
	all->is_short |= item->hostname == NULL;
}

static char *assigned_of_children(struct source_cluster *c, const struct cluster_record *record)
{
	struct children all = { .cluster = c, .parent = record };
	cluster_records_each(&c->records, child_take, &all);
	char *text = all.n && !all.is_short ? kube_assigned_format(all.items, all.n) : NULL;
	for (uint32_t i = 0; i < all.n; i++)
		free((char *)all.items[i].hostname);
	free(all.items);
	return text;
}

static char *assigned_of(const struct cluster_record *record)
{
	struct kube_assigned own = { .hostname = "", .n_addresses = record->n_addresses };
	memcpy(own.addresses, record->addresses, sizeof(own.addresses));
	return record->n_addresses ? kube_assigned_format(&own, 1) : NULL;
}

struct health_count {
	uint32_t n, n_up;
};

static bool count_backend(void *arg, const struct control_backend_status *status)
{
	struct health_count *count = arg;
	if (status->backend->conditions.terminating)
		return true;
	count->n++;
	count->n_up += status->state == HEALTH_UP && status->eligible;
	return true;
}

static bool serves(const struct service *service, const struct cluster_record *record)
{
	uint32_t n = 0;
	for (uint32_t i = 0; service && i < service->n_addresses; i++)
		for (uint32_t k = 0; k < record->n_addresses; k++)
			n += address_equal(&service->addresses[i], &record->addresses[k]);
	return record->n_addresses > 0 && n == record->n_addresses;
}

static void tell_health(
	struct source_cluster *c, struct cluster_record *record, const struct health_count *count)
{
	uint8_t now = count->n_up == 0 ? 2 : 1;
	if (now == record->told_health)
		return;
	if (now == 2)
		cluster_voices_add(c, record, true, "NoReadyBackends", "CheckHealth",
			"%u of %u backends healthy", count->n_up, count->n);
	else if (record->told_health == 2)
		cluster_voices_add(c, record, false, "BackendUp", "CheckHealth",
			"%u of %u backends healthy", count->n_up, count->n);
	record->told_health = now;
}

// What the cluster says now is not what is in force.
static void condition_guarded(const struct cluster_record *record, struct kube_condition *out)
{
	out->truth = KUBE_FALSE;
	out->reason = "EndpointsVanished";
	cluster_guard_format(record, out->message, sizeof(out->message));
}

static void conditions_fill(
	struct source_cluster *c, struct cluster_record *record, struct status_draft *draft)
{
	struct kube_condition *conditions = draft->status.conditions;
	const struct service *service =
		service_store_find(control_store(c->control), record->namespace, record->name);
	struct health_count count = { 0 };
	uint32_t n_programmed = 0, n_nodes = 0;
	bool is_good = record->reason == IPAM_ALLOCATED || record->reason == IPAM_ALLOCATED_ONE;
	conditions[KUBE_ALLOCATED] = kube_condition_allocated(is_good,
		ipam_reason_name(record->reason), record->reason_text ? record->reason_text : "");
	cluster_leases_count(c,
		cluster_record_is_recorded(record) && serves(service, record) ? record->placed : 0,
		&n_programmed, &n_nodes);
	conditions[KUBE_PROGRAMMED] = kube_condition_programmed(n_programmed, n_nodes);
	if (service) { // not served yet: nothing is known of its backends
		control_each_backend(c->control, service, count_backend, &count);
		conditions[KUBE_BACKENDS_HEALTHY] = kube_condition_backends(count.n_up, count.n);
	}
	if (record->is_refused) {
		conditions[KUBE_PROGRAMMED].truth = KUBE_FALSE;
		conditions[KUBE_PROGRAMMED].reason = "Rejected";
		snprintf(conditions[KUBE_PROGRAMMED].message,
			sizeof(conditions[KUBE_PROGRAMMED].message), "%s",
			record->refusal ? record->refusal : "the newest form is refused");
	}
	if (record->guard.n_kept)
		condition_guarded(record, &conditions[KUBE_PROGRAMMED]);
	if (record->n_addresses == 0)
		return;
	if (!record->told_programmed && n_programmed > 0 && n_programmed == n_nodes)
		cluster_voices_add(c, record, false, "Programmed", "Program", "%s",
			conditions[KUBE_PROGRAMMED].message);
	record->told_programmed |= n_programmed > 0 && n_programmed == n_nodes;
	if (service)
		tell_health(c, record, &count);
}

// A port that is not in force, of a Service that is not taken as it is now written, will not be.
static void ports_fill(
	struct source_cluster *c, struct cluster_record *record, struct kube_status *status)
{
	const struct service *service =
		service_store_find(control_store(c->control), record->namespace, record->name);
	for (uint32_t i = 0; i < record->n_ports; i++) {
		struct kube_ingress_port *port = &record->ports[i];
		bool is_served = false;
		for (uint32_t k = 0; service && k < service->n_listeners && !is_served; k++)
			is_served = service->listeners[k].protocol == port->protocol &&
				    service->listeners[k].port == port->port;
		port->error = record->is_refused && !is_served ? KUBE_PORT_REJECTED : "";
	}
	status->ports = record->ports;
	status->n_ports = record->n_ports;
}

static void draft_make(
	struct source_cluster *c, struct cluster_record *record, struct status_draft *draft)
{
	struct kube_status *status = &draft->status;
	*draft = (struct status_draft){ .status = {
						.namespace = record->namespace,
						.name = record->object,
						.uid = record->uid,
						.resource_version = "",
						.generation = record->generation,
						.finalizer = c->finalizer,
						.ingress = draft->ingress,
						.allocation = "",
						.assigned = "",
					} };
	if (record->n_addresses)
		status->allocation = kube_allocation_format(
			&(struct kube_allocation){ record->pool, record->form, record->addresses,
				record->n_addresses },
			draft->allocation, sizeof(draft->allocation));
	if (record->expose == KUBE_EXPOSE_NONE) {
		for (uint32_t i = 0; i < record->n_addresses; i++)
			draft->ingress[status->n_ingress++] =
				(struct kube_ingress){ record->addresses[i],
					record->is_proxy_mode };
		ports_fill(c, record, status);
	} else {
		draft->assigned = record->expose == KUBE_EXPOSE_ENDPOINTS
					  ? assigned_of_children(c, record)
					  : assigned_of(record);
		status->assigned = draft->assigned ? draft->assigned : "";
	}
	// The first time, only on what it was decided on.
	if (record->n_addresses && !cluster_record_is_recorded(record))
		status->resource_version =
			kube_cluster_resource_version(c->model, record->namespace, record->object);
	if (record->expose != KUBE_EXPOSE_ENDPOINTS)
		conditions_fill(c, record, draft);
}

// ---------------------------------------------------------------- writes

static void on_head(void *arg, int status, uint32_t retry_after_s, const char *content_type)
{
	struct cluster_write *write = arg;
	write->status = status;
}

static void on_body(void *arg, const char *bytes, size_t len)
{
	struct cluster_write *write = arg;
	if (len > sizeof(write->answer) - 1 - write->answer_len)
		len = sizeof(write->answer) - 1 - write->answer_len;
	memcpy(write->answer + write->answer_len, bytes, len);
	write->answer_len += len;
}

static void tell_refusal(struct cluster_write *write, enum cluster_end how, const char *why)
{
	struct cluster_writer *w = write->writer;
	char object[2 * SERVICE_NAME_MAX];
	w->n_refused++;
	if (w->is_failing)
		return;
	w->is_failing = true;
	write->answer[write->answer_len] = '\0';
	snprintf(object, sizeof(object), "%s/%s", write->namespace, write->name);
	if (how == CLUSTER_END_CLEAN)
		cluster_say(&w->cluster->voice, LOG_LEVEL_WARN, "status-not-written", object,
			"answer %d: %.300s", write->status, write->answer);
	else
		cluster_say(&w->cluster->voice, LOG_LEVEL_WARN, "status-not-written", object, "%s",
			why);
}

static void on_end(void *arg, enum cluster_end how, const char *why)
{
	struct cluster_write *write = arg;
	struct cluster_writer *w = write->writer;
	struct cluster_record *record =
		cluster_record_find(&w->cluster->records, write->namespace, write->name, false);
	bool is_done =
		how == CLUSTER_END_CLEAN && (write->status / 100 == 2 || write->status == 404);
	bool is_conflict =
		how == CLUSTER_END_CLEAN && (write->status == 409 || write->status == 422);
	write->call = NULL;
	if (is_done) {
		w->n_written++;
		w->is_failing = false;
	} else if (!is_conflict) {
		tell_refusal(write, how, why);
	}
	if (record) {
		record->is_writing = false;
		// What was written comes back as an event, with which it is looked at again; and if none comes, then later.
		record->not_before_ns =
			cluster_now_ns() + (is_done || is_conflict ? SHORT_NS : REFUSED_NS);
		cluster_writer_queue(w->cluster, record);
	}
	kick(w);
}

static void write_send(struct cluster_writer *w, struct cluster_write *write,
	struct cluster_record *record, const struct kube_write *body)
{
	struct cluster_request request = {
		.method = body->method,
		.path = body->target,
		.content_type = body->content_type,
		.body = body->body,
		.body_len = body->body_len,
		.head = on_head,
		.body_part = on_body,
		.end = on_end,
		.arg = write,
	};
	snprintf(write->namespace, sizeof(write->namespace), "%s", record->namespace);
	snprintf(write->name, sizeof(write->name), "%s", record->name);
	write->status = 0;
	write->answer_len = 0;
	write->call = cluster_http_begin(w->cluster->http, &request);
	record->is_writing = write->call != NULL;
}

// What is to be written of a record now. false: nothing.
static bool body_make(
	struct cluster_writer *w, struct cluster_record *record, struct kube_write *out)
{
	struct source_cluster *c = w->cluster;
	struct status_draft draft;
	bool is_child = record->object && strcmp(record->object, record->name) != 0;
	if (!record->is_known || is_child || record->object == NULL)
		return false;
	if (record->wants_no_finalizer)
		return kube_write_release(record->namespace, record->object, record->uid,
			       c->finalizer, record->is_ours, out) == 0;
	bool has_news = record->has_answer || record->expose == KUBE_EXPOSE_ENDPOINTS;
	if (!record->is_ours || record->is_deleting || !has_news)
		return false;
	draft_make(c, record, &draft);
	enum kube_urgency urgency =
		kube_status_settle(&draft.status, &record->seen, clock_wall_ms() / 1000);
	bool is_due = urgency == KUBE_WRITE_NOW ||
		      (urgency == KUBE_WRITE_SOON && cluster_now_ns() >= record->not_before_ns);
	bool is_made = is_due && kube_write_status(&draft.status, out) == 0;
	if (is_made && urgency == KUBE_WRITE_SOON)
		record->not_before_ns = cluster_now_ns() + SOON_NS;
	free(draft.assigned);
	return is_made;
}

static struct cluster_write *write_free(struct cluster_writer *w)
{
	for (uint32_t i = 0; i < WRITES_MAX; i++)
		if (w->writes[i].call == NULL)
			return &w->writes[i];
	return NULL;
}

// One record of the queue. true: it has to wait, until *until_ns at the latest.
static bool look_at(struct cluster_writer *w, struct cluster_write *write,
	struct cluster_record *record, uint64_t *until_ns)
{
	struct kube_write body = { 0 };
	uint64_t now_ns = cluster_now_ns();
	if (record->is_writing)
		return false; // its end looks again
	if (now_ns < record->not_before_ns) {
		if (record->not_before_ns < *until_ns)
			*until_ns = record->not_before_ns;
		return true;
	}
	if (body_make(w, record, &body)) {
		write_send(w, write, record, &body);
		kube_write_fini(&body);
	}
	return false;
}

static void on_kick(evutil_socket_t fd, short what, void *arg)
{
	struct cluster_writer *w = arg;
	struct cluster_write *write;
	uint64_t begin_ns = cluster_now_ns(), until_ns = UINT64_MAX;
	struct cluster_record *end = NULL; // the first that was put back: one pass is over there
	while (w->first && w->first != end && (write = write_free(w)) != NULL &&
		cluster_leases_lead(w->cluster)) {
		struct cluster_record *record = queue_take(w);
		if (look_at(w, write, record, &until_ns)) {
			queue_add(w, record);
			end = end ? end : record;
		}
		if (cluster_now_ns() - begin_ns > 2 * CLOCK_MS) {
			kick(w);
			return;
		}
	}
	if (until_ns == UINT64_MAX)
		return;
	uint64_t wait_us = (until_ns > begin_ns ? until_ns - begin_ns : 0) / CLOCK_US + 1;
	struct timeval wait = { (time_t)(wait_us / 1000000), (suseconds_t)(wait_us % 1000000) };
	evtimer_add(w->kick, &wait);
}

// ---------------------------------------------------------------- news

static void replace_text(char **to, const char *text)
{
	if (*to && text && strcmp(*to, text) == 0)
		return;
	free(*to);
	*to = text ? strdup(text) : NULL;
}

void cluster_writer_see(struct source_cluster *c, const json_t *service)
{
	const json_t *metadata = json_object_get(service, "metadata");
	const char *namespace = json_string_value(json_object_get(metadata, "namespace"));
	const char *name = json_string_value(json_object_get(metadata, "name"));
	struct kube_seen seen;
	if (namespace == NULL || name == NULL)
		return;
	kube_seen_read(service, c->finalizer, &seen);
	struct cluster_record *record =
		cluster_record_find(&c->records, namespace, name, seen.hard != 0);
	if (record == NULL)
		return;
	bool is_other = record->seen.hard != seen.hard || record->seen.soft != seen.soft;
	record->seen = seen;
	if (is_other)
		cluster_writer_queue(c, record);
}

bool cluster_record_is_recorded(const struct cluster_record *record)
{
	uint32_t n = 0;
	for (uint32_t i = 0; i < record->n_recorded; i++)
		for (uint32_t k = 0; k < record->n_addresses; k++)
			n += address_equal(&record->recorded[i], &record->addresses[k]);
	return record->has_answer && record->n_addresses > 0 && n == record->n_addresses &&
	       n == record->n_recorded;
}

void cluster_writer_unsee(struct source_cluster *c, const char *namespace, const char *name)
{
	struct cluster_record *record = cluster_record_find(&c->records, namespace, name, false);
	if (record == NULL || record->is_known)
		return;
	cluster_writer_forget(c, record); // it may wait for its look
	cluster_record_remove(&c->records, namespace, name);
}

// What is recorded in the object, and since which version.
static void recorded_take(struct cluster_record *record, const struct kube_change *change)
{
	struct address recorded[IPAM_FAMILIES] = { 0 };
	uint32_t n = 0;
	for (uint32_t i = 0; i < change->n_ingress && n < IPAM_FAMILIES; i++)
		recorded[n++] = change->ingress[i].address;
	if (n == record->n_recorded && memcmp(recorded, record->recorded, sizeof(recorded)) == 0)
		return;
	record->n_recorded = n;
	memcpy(record->recorded, recorded, sizeof(recorded));
	record->placed = n ? strtoull(change->resource_version, NULL, 10) : 0;
	record->told_programmed = false;
}

static void ports_take(struct cluster_record *record, const struct kube_wants *wants)
{
	struct kube_ingress_port *ports = calloc(wants->n_ports + 1u, sizeof(*ports));
	if (ports == NULL)
		return; // as they were
	for (uint32_t i = 0; i < wants->n_ports; i++)
		ports[i] = (struct kube_ingress_port){ wants->ports[i].protocol,
			wants->ports[i].port, "" };
	free(record->ports);
	record->ports = ports;
	record->n_ports = wants->n_ports;
}

static void tell_refused(
	struct source_cluster *c, struct cluster_record *record, const struct kube_change *change)
{
	char line[500];
	const char *first = change->is_refused && change->findings
				    ? error_first(change->findings, line, sizeof(line))
				    : NULL;
	bool is_new = first && (!record->refusal || strcmp(first, record->refusal) != 0);
	replace_text(&record->refusal, first);
	if (is_new)
		cluster_voices_add(c, record, true, "Rejected", "Validate", "%s", first);
}

void cluster_writer_take(struct source_cluster *c, const struct kube_change *change)
{
	struct cluster_record *record = cluster_record_find(&c->records, change->namespace,
		change->name, !change->is_gone && (change->is_ours || change->wants_no_finalizer));
	if (record == NULL)
		return;
	if (change->is_gone || (change->hostname[0] && !change->wants.is_wanted)) {
		cluster_addresses_remove(c, record);
		cluster_writer_forget(c, record);
		cluster_record_remove(&c->records, change->namespace, change->name);
		return;
	}
	record->is_known = true;
	record->is_ours = change->is_ours;
	record->is_refused = change->is_refused;
	record->is_deleting = change->is_deleting;
	record->wants_no_finalizer = change->wants_no_finalizer && c->finalizer[0];
	record->is_wanted = change->wants.is_wanted;
	record->is_proxy_mode = change->wants.is_proxy_mode;
	record->expose = change->expose;
	record->generation = change->generation;
	record->n_endpoints = change->n_endpoints;
	record->n_ready = change->n_ready;
	replace_text(&record->object, change->object);
	replace_text(&record->uid, change->uid);
	kube_seconds_parse(change->created, &record->created_s);
	if (c->writer && c->writer->is_leading)
		cluster_addresses_put(c, record, change);
	recorded_take(record, change);
	ports_take(record, &change->wants);
	tell_refused(c, record, change);
	cluster_writer_queue(c, record);
}

// ---------------------------------------------------------------- rounds

static void again_one(void *arg, struct cluster_record *record)
{
	struct source_cluster *c = arg;
	enum kube_truth health = record->seen.truths[KUBE_BACKENDS_HEALTHY];
	// What the leader before this one wrote, it has told of.
	record->told_programmed = record->seen.truths[KUBE_PROGRAMMED] == KUBE_TRUE;
	record->told_health = health == KUBE_TRUE ? 1 : health == KUBE_FALSE ? 2 : 0;
	if (record->is_known && record->object && strcmp(record->object, record->name) == 0)
		kube_cluster_again(c->model, record->namespace, record->object);
}

void cluster_writer_lead(struct source_cluster *c, bool is_leading)
{
	struct cluster_writer *w = c->writer;
	if (w == NULL)
		return;
	w->is_leading = is_leading;
	cluster_addresses_forget(c);
	while (queue_take(w)) {}
	// Everything comes again, whole, with what is recorded; ipam runs when it is all in.
	if (is_leading)
		cluster_records_each(&c->records, again_one, c);
	cluster_drain_soon(c);
}

static void queue_one(void *arg, struct cluster_record *record)
{
	if (record->has_answer || record->wants_no_finalizer || record->expose)
		cluster_writer_queue(arg, record);
}

void cluster_writer_recount(struct source_cluster *c)
{
	if (c->writer && c->writer->is_leading)
		cluster_records_each(&c->records, queue_one, c);
}

// Backends that came or went by their checks, as the journal has it: "default/web 10.9.0.2:8080". What the journal has lost by now,
// the round finds.
static void look_at_journal(struct cluster_writer *w)
{
	const struct control_event *events = NULL;
	struct source_cluster *c = w->cluster;
	for (uint32_t n; (n = control_events(c->control, w->last_event, &events, 256)) != 0;) {
		for (uint32_t i = 0; i < n; i++) {
			char namespace[SERVICE_NAME_MAX], name[SERVICE_NAME_MAX];
			struct cluster_record *record = NULL;
			w->last_event = events[i].id;
			if (strcmp(events[i].kind, "backend-up") != 0 &&
				strcmp(events[i].kind, "backend-down") != 0)
				continue;
			if (sscanf(events[i].object, "%63[^/]/%63[^ ]", namespace, name) == 2)
				record = cluster_record_find(&c->records, namespace, name, false);
			if (record)
				cluster_writer_queue(c, record);
		}
	}
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
	struct cluster_writer *w = arg;
	struct cluster_records *records = &w->cluster->records;
	uint32_t n_chains = records->chains ? records->mask + 1 : 0;
	uint32_t from = (uint32_t)((uint64_t)n_chains * w->n_round / ROUND_TICKS);
	uint32_t to = (uint32_t)((uint64_t)n_chains * (w->n_round + 1) / ROUND_TICKS);
	w->n_round = (w->n_round + 1) % ROUND_TICKS;
	if (!w->is_leading)
		return;
	look_at_journal(w);
	for (uint32_t i = from; i < to; i++)
		for (struct cluster_record *r = records->chains[i]; r; r = r->next)
			queue_one(w->cluster, r);
	kick(w); // and what waited for its time
}

int cluster_writer_start(struct source_cluster *c)
{
	struct timeval second = { .tv_sec = TICK_S };
	struct cluster_writer *w = calloc(1, sizeof(*w));
	if (w == NULL)
		return -ENOMEM;
	c->writer = w;
	w->cluster = c;
	for (uint32_t i = 0; i < WRITES_MAX; i++)
		w->writes[i].writer = w;
	w->kick = evtimer_new(c->base, on_kick, w);
	w->tick = event_new(c->base, -1, EV_PERSIST, on_tick, w);
	if (w->kick == NULL || w->tick == NULL)
		return -ENOMEM;
	evtimer_add(w->tick, &second);
	return 0;
}

void cluster_writer_end(struct source_cluster *c)
{
	struct cluster_writer *w = c->writer;
	if (w == NULL)
		return;
	for (uint32_t i = 0; i < WRITES_MAX; i++)
		if (w->writes[i].call)
			cluster_http_cancel(w->writes[i].call);
	if (w->kick)
		event_free(w->kick);
	if (w->tick)
		event_free(w->tick);
	free(w);
	c->writer = NULL;
}

void cluster_writer_forget(struct source_cluster *c, struct cluster_record *record)
{
	if (c->writer)
		queue_remove(c->writer, record);
}

void cluster_writer_count(
	const struct source_cluster *c, uint64_t *out_written, uint64_t *out_refused)
{
	*out_written = c->writer ? c->writer->n_written : 0;
	*out_refused = c->writer ? c->writer->n_refused : 0;
}
