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

static int put_service(struct source_cluster *c, const struct kube_change *change,
	bool *out_changed, struct error *err)
{
	struct service *guarded = cluster_guard_take(c, change);
	int rc = guarded ? control_put_service(c->control, guarded, out_changed, NULL) : -EINVAL;
	service_destroy(guarded);
	if (rc != 0)
		rc = control_put_service(c->control, change->service, out_changed, err);
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

struct first_state {
	struct service **services; // owned
	uint32_t n_services, cap;
	bool is_short; // of memory
};

static void first_take(struct first_state *first, const struct service *service)
{
	if (array_grow(first->services, first->n_services, first->cap) != 0) {
		first->is_short = true;
		return;
	}
	struct service *copy = service_clone(service);
	first->is_short |= copy == NULL;
	if (copy)
		first->services[first->n_services++] = copy;
}

static void first_fini(struct first_state *first)
{
	for (uint32_t i = 0; i < first->n_services; i++)
		service_destroy(first->services[i]);
	free(first->services);
}

// A Service whose newest form is refused has no good form in a model that has just begun: what was in force before (kept from
// the process before this one) stays.
static void first_change(
	struct source_cluster *c, struct first_state *first, const struct kube_change *change)
{
	const struct service *before =
		service_store_find(control_store(c->control), change->namespace, change->name);
	tell_findings(c, change);
	if (change->kind == KUBE_PUT)
		first_take(first, change->service);
	else if (change->is_refused && before && before->owner == OWNER)
		first_take(first, before);
	cluster_writer_take(c, change);
}

// One that another owner, or another service, stands in the way of must not hold up the rest: one by one, then.
static int first_put_each(struct source_cluster *c, const struct first_state *first)
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
static void first_remove_rest(struct source_cluster *c, const struct first_state *first)
{
	const struct service_store *store = control_store(c->control);
	for (uint32_t i = service_store_count(store); i-- > 0;) {
		const struct service *have = service_store_at(store, i);
		bool is_wanted = have->owner != OWNER;
		for (uint32_t k = 0; k < first->n_services && !is_wanted; k++)
			is_wanted = strcmp(first->services[k]->name, have->name) == 0 &&
				    strcmp(first->services[k]->namespace, have->namespace) == 0;
		if (!is_wanted)
			control_remove_service(
				c->control, have->namespace, have->name, OWNER, NULL);
	}
}

int cluster_apply_first(struct source_cluster *c)
{
	struct first_state first = { 0 };
	struct kube_change change;
	struct error err = { 0 };
	uint32_t n_changed = 0;
	while (kube_cluster_next(c->model, &change))
		first_change(c, &first, &change);
	int rc = first.is_short ? -ENOMEM
				: control_replace_owner(c->control, OWNER, first.services,
					  first.n_services, &n_changed, &err);
	if (rc != 0 && rc != -ENOMEM) {
		first_remove_rest(c, &first);
		rc = first_put_each(c, &first);
	}
	if (n_changed || rc)
		cluster_outage_changed(c);
	c->n_applied += first.n_services;
	c->applied_wall_ms = (uint64_t)clock_wall_ms();
	cluster_say(&c->voice, rc ? LOG_LEVEL_ERROR : LOG_LEVEL_INFO, "cluster-synced",
		"kubernetes", "%u services, %u changed%s", first.n_services, n_changed,
		rc ? "; not all could be put in force" : "");
	error_fini(&err);
	first_fini(&first);
	return rc;
}
