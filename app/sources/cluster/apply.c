// SPDX-License-Identifier: BSD-3-Clause
// A change of the model into desired state. Refusals are said once for each text; what was in force stays.
#include "core_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define OWNER SERVICE_OWNER_KUBERNETES

static const char *label_of(const struct kube_change *change, char out[2 * SERVICE_NAME_MAX])
{
	snprintf(out, 2 * SERVICE_NAME_MAX, "%s/%s", change->namespace, change->name);
	return out;
}

// ---------------------------------------------------------------- what is wrong with an object

static uint64_t findings_hash(const struct error *findings)
{
	uint64_t hash = findings->n_items;
	for (uint32_t i = 0; i < findings->n_items; i++) {
		const struct error_item *item = &findings->items[i];
		hash = hash_stable(item->path, item->path ? strlen(item->path) : 0, hash);
		hash = hash_stable(item->text, item->text ? strlen(item->text) : 0, hash);
	}
	return findings->n_items ? hash | 1 : 0;
}

// Once for each set of findings: an object that is half wrong comes with every change of its endpoints.
static void tell_findings(struct source_cluster *c, const struct kube_change *change)
{
	char label[2 * SERVICE_NAME_MAX], line[600];
	uint64_t hash = change->findings ? findings_hash(change->findings) : 0;
	struct cluster_record *record =
		cluster_record_find(&c->records, change->namespace, change->name, hash != 0);
	if (record == NULL || record->told == hash)
		return;
	record->told = hash;
	if (hash == 0) {
		cluster_say(&c->voice, LOG_LEVEL_INFO, "service-accepted", label_of(change, label),
			"nothing is refused of it any more");
		return;
	}
	uint32_t n = change->findings->n_items + change->findings->n_lost;
	for (uint32_t i = 0; i < change->findings->n_items && i < 4; i++)
		cluster_say(&c->voice, LOG_LEVEL_WARN,
			change->is_refused ? "service-refused" : "service-incomplete",
			label_of(change, label), "%s%s",
			error_format(change->findings, i, line, sizeof(line)),
			i == 3 && n > 4 ? "; and more" : "");
}

// ---------------------------------------------------------------- one change

static void tell_error(
	struct source_cluster *c, const struct kube_change *change, const struct error *err)
{
	char label[2 * SERVICE_NAME_MAX], line[600];
	c->n_apply_errors++;
	cluster_say(&c->voice, LOG_LEVEL_WARN, "service-refused", label_of(change, label), "%s",
		error_first(err, line, sizeof(line)));
}

// How long it took from the change of a pod to here, where the slice says when that was. Clocks of two machines: what is
// plainly wrong is not counted.
static void measure(struct source_cluster *c, uint64_t trigger_ms)
{
	int64_t took_ms = clock_wall_ms() - (int64_t)trigger_ms;
	uint32_t i = 0;
	if (trigger_ms == 0 || took_ms < 0 || took_ms > 3600 * 1000)
		return;
	while (i < CONTROL_CLUSTER_BUCKETS && (double)took_ms / 1000 > control_cluster_bounds_s[i])
		i++;
	c->latency[i]++;
	c->latency_sum_s += (double)took_ms / 1000;
}

// Of a KUBE_PUT: what is to be in force. Nodes that may not be read count as none, and must not take away what is served already.
static const struct service *form_of(struct source_cluster *c, const struct kube_change *change)
{
	if (!c->feeds[KUBE_CLUSTER_NODES].is_waived || !change->to_nodes ||
		change->service->n_backends > 0)
		return change->service;
	const struct service *before =
		service_store_find(control_store(c->control), change->namespace, change->name);
	return before && before->owner == OWNER ? before : change->service;
}

static int put_service(struct source_cluster *c, const struct kube_change *change,
	bool *out_changed, struct error *err)
{
	struct service *guarded = cluster_guard_take(c, change);
	int rc = guarded ? control_put_service(c->control, guarded, out_changed, NULL) : -EINVAL;
	service_destroy(guarded);
	if (rc != 0)
		rc = control_put_service(c->control, form_of(c, change), out_changed, err);
	return rc;
}

static int remove_service(
	struct source_cluster *c, const struct kube_change *change, struct error *err)
{
	cluster_guard_forget(c, change->namespace, change->name);
	return control_remove_service(c->control, change->namespace, change->name, OWNER, err);
}

void cluster_apply(struct source_cluster *c, const struct kube_change *change)
{
	struct error err = { 0 };
	bool is_changed = false;
	int rc = 0;
	tell_findings(c, change);
	if (change->kind == KUBE_PUT)
		rc = put_service(c, change, &is_changed, &err);
	else if (change->kind == KUBE_REMOVE)
		rc = remove_service(c, change, &err);
	is_changed |= change->kind == KUBE_REMOVE && rc == 0;
	if (is_changed)
		cluster_outage_changed(c);
	if (is_changed && change->kind == KUBE_PUT)
		measure(c, change->trigger_ms);
	if (rc == -ENOENT || (rc == -EEXIST && change->kind == KUBE_REMOVE))
		rc = 0; // not there, or of another owner: nothing of ours
	if (rc != 0)
		tell_error(c, change, &err);
	if (rc == -ENOMEM)
		kube_cluster_again(c->model, change->namespace, change->object);
	error_fini(&err);
	c->n_applied++;
	c->applied_wall_ms = (uint64_t)clock_wall_ms();
	cluster_writer_take(c, change);
}

// ---------------------------------------------------------------- the first state, whole
// Gathered a slice a turn of the loop, put in force in one stroke when the model has nothing more to say.

#define FIRST_SLICE_NS (4 * CLOCK_MS)

struct cluster_first {
	struct service **services; // owned; NULL: gone again
	uint32_t n_services, cap;
};

// What was gathered of it earlier gives way.
static void first_drop(struct source_cluster *c, const struct kube_change *change)
{
	struct cluster_record *record =
		cluster_record_find(&c->records, change->namespace, change->name, false);
	if (record == NULL || record->first_idx == 0)
		return;
	struct service **at = &c->first->services[record->first_idx - 1];
	service_destroy(*at);
	*at = NULL;
	record->first_idx = 0;
}

static int first_take(
	struct source_cluster *c, const struct kube_change *change, const struct service *service)
{
	struct cluster_first *first = c->first;
	struct cluster_record *record =
		cluster_record_find(&c->records, change->namespace, change->name, true);
	struct service *copy = record ? service_clone(service) : NULL;
	if (copy == NULL || array_grow(first->services, first->n_services, first->cap) != 0) {
		service_destroy(copy);
		return -ENOMEM;
	}
	first->services[first->n_services++] = copy;
	record->first_idx = first->n_services;
	return 0;
}

void cluster_first_fini(struct source_cluster *c)
{
	for (uint32_t i = 0; c->first && i < c->first->n_services; i++)
		service_destroy(c->first->services[i]);
	if (c->first)
		free(c->first->services);
	free(c->first);
	c->first = NULL;
}

static bool first_has(struct source_cluster *c, const struct kube_change *change)
{
	const struct cluster_record *record =
		cluster_record_find(&c->records, change->namespace, change->name, false);
	return record != NULL && record->first_idx != 0;
}

// A Service whose newest form is refused has no good form in a model that has just begun: what was in force before (kept from
// the process before this one) stays. What was gathered stays, too, when the change is of something else.
static int first_change(struct source_cluster *c, const struct kube_change *change)
{
	const struct service *before =
		service_store_find(control_store(c->control), change->namespace, change->name);
	bool had = first_has(c, change);
	int rc = 0;
	tell_findings(c, change);
	if (change->kind != KUBE_KEEP)
		first_drop(c, change);
	if (change->kind == KUBE_PUT)
		rc = first_take(c, change, form_of(c, change));
	else if (!had && change->is_refused && before && before->owner == OWNER)
		rc = first_take(c, change, before);
	cluster_writer_take(c, change);
	return rc;
}

// 0: all that the model has to say is gathered; -EAGAIN: more in the next turn; -ENOMEM.
static int first_gather(struct source_cluster *c)
{
	struct kube_change change;
	uint64_t begin_ns = cluster_now_ns();
	if (c->first == NULL)
		c->first = calloc(1, sizeof(*c->first));
	if (c->first == NULL)
		return -ENOMEM;
	while (kube_cluster_next(c->model, &change)) {
		if (first_change(c, &change) != 0) {
			kube_cluster_again(c->model, change.namespace, change.object);
			return -ENOMEM;
		}
		if (cluster_now_ns() - begin_ns > FIRST_SLICE_NS)
			return -EAGAIN;
	}
	return 0;
}

// One that another owner, or another service, stands in the way of must not hold up the rest: one by one, then.
static int first_put_each(struct source_cluster *c, const struct cluster_first *first)
{
	uint32_t n_changed = 0;
	for (uint32_t i = 0; i < first->n_services; i++) {
		const struct service *service = first->services[i];
		struct error err = { 0 };
		struct kube_change change = { .namespace = service->namespace,
			.name = service->name };
		struct service *kept[] = { first->services[i] };
		// Those before it are in force; this one joins, or is told why not.
		int rc = control_put_service(c->control, kept[0], NULL, &err);
		if (rc != 0)
			tell_error(c, &change, &err);
		error_fini(&err);
		n_changed += rc == 0;
	}
	return n_changed || first->n_services == 0 ? 0 : -EINVAL;
}

// What is in force of ours and not in the first state goes.
static void first_remove_rest(struct source_cluster *c)
{
	const struct service_store *store = control_store(c->control);
	for (uint32_t i = service_store_count(store); i-- > 0;) {
		const struct service *have = service_store_at(store, i);
		const struct cluster_record *record =
			cluster_record_find(&c->records, have->namespace, have->name, false);
		if (have->owner == OWNER && (record == NULL || record->first_idx == 0))
			control_remove_service(
				c->control, have->namespace, have->name, OWNER, NULL);
	}
}

static void first_seal(struct cluster_first *first)
{
	uint32_t n = 0;
	for (uint32_t i = 0; i < first->n_services; i++)
		if (first->services[i])
			first->services[n++] = first->services[i];
	first->n_services = n;
}

// Their places in what was gathered are others, or mean nothing any more.
static void first_forget(void *arg, struct cluster_record *record)
{
	record->first_idx = 0;
}

static void first_place(struct source_cluster *c)
{
	cluster_records_each(&c->records, first_forget, NULL);
	for (uint32_t i = 0; i < c->first->n_services; i++) {
		const struct service *s = c->first->services[i];
		struct cluster_record *record =
			cluster_record_find(&c->records, s->namespace, s->name, false);
		if (record)
			record->first_idx = i + 1;
	}
}

int cluster_apply_first(struct source_cluster *c)
{
	struct error err = { 0 };
	uint32_t n_changed = 0;
	int rc = first_gather(c);
	if (rc != 0)
		return rc;
	struct cluster_first *first = c->first;
	first_seal(first);
	first_place(c);
	rc = control_replace_owner(
		c->control, OWNER, first->services, first->n_services, &n_changed, &err);
	if (rc != 0 && rc != -ENOMEM) {
		first_remove_rest(c);
		rc = first_put_each(c, first);
	}
	error_fini(&err);
	if (rc == -ENOMEM)
		return rc;
	if (n_changed || rc)
		cluster_outage_changed(c);
	c->n_applied += first->n_services;
	c->applied_wall_ms = (uint64_t)clock_wall_ms();
	cluster_say(&c->voice, rc ? LOG_LEVEL_ERROR : LOG_LEVEL_INFO, "cluster-synced",
		"kubernetes", "%u services, %u changed%s", first->n_services, n_changed,
		rc ? "; not all could be put in force" : "");
	cluster_records_each(&c->records, first_forget, NULL);
	cluster_first_fini(c);
	return rc;
}
