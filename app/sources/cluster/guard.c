// SPDX-License-Identifier: BSD-3-Clause
// A guard against a controller that takes most endpoints of a Service away at once. More than half of them, and three at least, gone
// within 30 s without having been said to terminate and without others in their place, while our own checks still find them healthy:
// those stay in force, each until its check fails, all of them until as many are there as before, for five minutes at most, or until
// an operator lets them go (one call: control_release). It is said in the journal, as an Event and in the condition Programmed.
// Never for a Service that is deleted, nor where there is no check to believe.
#include "core_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define LONGEST_NS (300 * CLOCK_S)

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

static void tell(struct source_cluster *c, struct cluster_record *record)
{
	char label[2 * SERVICE_NAME_MAX], note[160];
	snprintf(label, sizeof(label), "%.63s/%.63s", record->namespace, record->name);
	if (record->guard.n_kept == 0) {
		cluster_say(&c->voice, LOG_LEVEL_INFO, "shrink-guard", label,
			"over: the endpoints are as the cluster says");
		return;
	}
	cluster_guard_format(record, note, sizeof(note));
	cluster_say(&c->voice, LOG_LEVEL_ERROR, "shrink-guard", label,
		"%s; sluicectl release %s, if they are to go", note, label);
	cluster_voices_add(c, record, true, "Rejected", "Guard", "%s", note);
}

const char *cluster_guard_format(const struct cluster_record *record, char *out, size_t len)
{
	const struct cluster_guard *guard = &record->guard;
	snprintf(out, len,
		"%u of %u endpoints vanished without terminating; %u healthy ones are served on, "
		"for 5m "
		"at most",
		guard->window.n_missing, guard->window.n_were_there, guard->n_kept);
	return out;
}

static void guard_end(struct source_cluster *c, struct cluster_guard *guard)
{
	c->n_guards -= guard->until_ns != 0;
	*guard = (struct cluster_guard){ 0 };
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
	struct cluster_guard *guard = &record->guard;
	bool was_on = guard->until_ns != 0;
	bool is_tripped = kube_shrink_add(&guard->window, &change->shrunk, now_ns, was_on);
	if (!was_on && !is_tripped)
		return NULL;
	if (!was_on)
		guard->until_ns = now_ns + LONGEST_NS;
	c->n_guards += !was_on;
	if (now_ns < guard->until_ns && guard->window.n_missing)
		control_each_backend(c->control, in_force, survey_backend, &survey);
	if (survey.is_short || survey.n_kept == 0) {
		service_destroy(survey.merged);
		survey.merged = NULL;
	}
	if (survey.merged == NULL)
		guard_end(c, guard);
	else
		service_normalise(survey.merged);
	guard->n_kept = survey.merged ? survey.n_kept : 0;
	if ((survey.merged != NULL) != was_on)
		tell(c, record);
	return survey.merged;
}

void cluster_guard_forget(struct source_cluster *c, const char *namespace, const char *name)
{
	struct cluster_record *record = cluster_record_find(&c->records, namespace, name, false);
	if (record)
		guard_end(c, &record->guard);
}

// An operator's word: they may go.
int cluster_guard_release(void *arg, const char *namespace, const char *name)
{
	struct source_cluster *c = arg;
	struct cluster_record *record = cluster_record_find(&c->records, namespace, name, false);
	if (record == NULL || record->guard.until_ns == 0 || record->object == NULL)
		return -ENOENT;
	guard_end(c, &record->guard);
	tell(c, record);
	kube_cluster_again(c->model, record->namespace, record->object);
	cluster_drain_soon(c);
	return 0;
}

static void again_one(void *arg, struct cluster_record *record)
{
	struct source_cluster *c = arg;
	if (record->guard.until_ns && record->object)
		kube_cluster_again(c->model, record->namespace, record->object);
}

void cluster_guard_tick(struct source_cluster *c)
{
	if (c->n_guards == 0)
		return;
	cluster_records_each(&c->records, again_one, c);
	cluster_drain_soon(c);
}
