// SPDX-License-Identifier: BSD-3-Clause
// A guard against a controller that takes most endpoints of a Service away at once. More than half of them, and three at least, gone
// within 30 s without having been said to terminate, while our own checks still find them healthy: those stay in force for five
// minutes at most, each until its check fails, or until an operator drains it. It is said in the journal and as an Event. Never for
// a Service that is deleted, nor where there is no check to believe.
#include "core_priv.h"

#include <stdlib.h>
#include <string.h>

#define WINDOW_NS  (30 * CLOCK_S)
#define LONGEST_NS (300 * CLOCK_S)
#define GONE_MIN   3

struct survey {
	const struct service *now; // what the cluster says
	struct service *merged;    // with what is kept; NULL: none yet
	uint32_t n_kept;
	bool is_short; // of memory
};

static bool has_backend(const struct service *s, const struct address *address)
{
	for (uint32_t i = 0; i < s->n_backends; i++)
		if (address_equal(&s->backends[i].address, address))
			return true;
	return false;
}

static void backend_copy(struct survey *survey, const struct service_backend *from)
{
	struct service_backend *to = service_add_backend(survey->merged);
	if (to == NULL) {
		survey->is_short = true;
		return;
	}
	struct service_backend copy = *from;
	copy.ports = NULL;
	copy.n_ports = 0;
	*to = copy;
	for (uint32_t i = 0; i < from->n_ports; i++) {
		struct service_backend_port *port = service_backend_add_port(to);
		if (port)
			*port = from->ports[i];
		survey->is_short |= port == NULL;
	}
	survey->n_kept++;
}

// One listener of one backend that is in force: kept when it is missing and well.
static bool survey_backend(void *arg, const struct control_backend_status *status)
{
	struct survey *survey = arg;
	bool is_well = strcmp(status->verdict_active, "up") == 0 &&
		       strcmp(status->verdict_admin, "in") == 0 &&
		       !status->backend->conditions.terminating;
	if (!is_well || has_backend(survey->now, &status->backend->address))
		return true;
	if (survey->merged == NULL)
		survey->merged = service_clone(survey->now);
	if (survey->merged == NULL) {
		survey->is_short = true;
		return false;
	}
	if (!has_backend(survey->merged, &status->backend->address))
		backend_copy(survey, status->backend);
	return !survey->is_short;
}

// Adds up over the window. true: too many, too fast.
static bool window_add(
	struct cluster_record *record, const struct kube_shrink *shrunk, uint64_t now_ns)
{
	if (now_ns - record->shrink_begin_ns > WINDOW_NS || record->shrink_begin_ns == 0) {
		record->shrink_begin_ns = now_ns;
		record->shrink_before = shrunk->n_before;
		record->shrink_gone = 0;
	}
	if (shrunk->n_before > record->shrink_before)
		record->shrink_before = shrunk->n_before;
	record->shrink_gone += shrunk->n_gone;
	return shrunk->n_gone && record->shrink_gone >= GONE_MIN &&
	       2 * record->shrink_gone > record->shrink_before;
}

static void tell(struct source_cluster *c, struct cluster_record *record, uint32_t n_kept)
{
	char label[2 * SERVICE_NAME_MAX];
	snprintf(label, sizeof(label), "%.63s/%.63s", record->namespace, record->name);
	if (n_kept == 0) {
		cluster_say(&c->voice, LOG_LEVEL_INFO, "shrink-guard", label,
			"over: the endpoints are as the cluster says");
		return;
	}
	cluster_say(&c->voice, LOG_LEVEL_ERROR, "shrink-guard", label,
		"%u of %u endpoints vanished without terminating, %u of them are healthy and stay "
		"in "
		"force for 5m at most; drain them if they are to go",
		record->shrink_gone, record->shrink_before, n_kept);
	cluster_voices_add(c, record, true, "Rejected", "Guard",
		"%u of %u endpoints vanished without terminating, %u healthy ones are served for "
		"5m "
		"more at most",
		record->shrink_gone, record->shrink_before, n_kept);
}

struct service *cluster_guard_take(struct source_cluster *c, const struct kube_change *change)
{
	struct cluster_record *record =
		cluster_record_find(&c->records, change->namespace, change->name, false);
	const struct service *in_force =
		service_store_find(control_store(c->control), change->namespace, change->name);
	struct survey survey = { .now = change->service };
	uint64_t now_ns = cluster_now_ns();
	if (record == NULL || in_force == NULL)
		return NULL;
	bool was_on = record->guard_until_ns != 0;
	bool is_tripped = window_add(record, &change->shrunk, now_ns);
	if (!was_on && !is_tripped)
		return NULL;
	if (!was_on)
		record->guard_until_ns = now_ns + LONGEST_NS;
	if (now_ns < record->guard_until_ns)
		control_each_backend(c->control, in_force, survey_backend, &survey);
	if (survey.is_short || survey.n_kept == 0) {
		service_destroy(survey.merged);
		survey.merged = NULL;
	}
	bool is_on = survey.merged != NULL;
	if (is_on != was_on)
		tell(c, record, is_on ? survey.n_kept : 0);
	if (!is_on)
		record->guard_until_ns = 0;
	c->n_guards += is_on - was_on;
	if (survey.merged)
		service_normalise(survey.merged);
	return survey.merged;
}

void cluster_guard_forget(struct source_cluster *c, const char *namespace, const char *name)
{
	struct cluster_record *record = cluster_record_find(&c->records, namespace, name, false);
	if (record == NULL)
		return;
	c->n_guards -= record->guard_until_ns != 0;
	record->guard_until_ns = record->shrink_begin_ns = 0;
}

static void again_one(void *arg, struct cluster_record *record)
{
	struct source_cluster *c = arg;
	if (record->guard_until_ns && record->object)
		kube_cluster_again(c->model, record->namespace, record->object);
}

void cluster_guard_tick(struct source_cluster *c)
{
	if (c->n_guards == 0)
		return;
	cluster_records_each(&c->records, again_one, c);
	cluster_drain_soon(c);
}
