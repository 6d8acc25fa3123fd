// SPDX-License-Identifier: BSD-3-Clause
// What the cluster source tells of itself, for REST and metrics.
#include "core_priv.h"

#include <string.h>

// A moment of the monotonic clock as wall time.
static int64_t wall_ms_of(uint64_t ns)
{
	return ns ? clock_wall_ms() - (int64_t)((cluster_now_ns() - ns) / CLOCK_MS) : 0;
}

static void tell_feed(const struct cluster_feed *feed, struct control_cluster *out)
{
	if (feed == NULL || feed->reflector == NULL ||
		out->n_resources == CONTROL_CLUSTER_RESOURCES)
		return;
	const struct kube_reflector_status *status = kube_reflector_status(feed->reflector);
	struct control_cluster_resource *to = &out->resources[out->n_resources++];
	snprintf(to->name, sizeof(to->name), "%s", feed->source.name);
	to->is_synced = status->is_synced;
	to->is_watching = status->is_watching;
	snprintf(to->trouble, sizeof(to->trouble), "%s", kube_trouble_name(status->trouble));
	cluster_feed_trouble(feed, to->trouble_text, sizeof(to->trouble_text));
	to->last_byte_ms = wall_ms_of(status->last_byte_ns);
	to->n_lists = status->n_lists;
	to->n_watches = status->n_watches;
	to->n_events = status->n_events;
	to->n_expired = status->n_expired;
	to->n_errors = feed->n_errors;
	to->n_refused = status->n_bad_objects + status->n_bad_frames;
}

void cluster_tell(void *arg, struct control_cluster *out)
{
	const struct source_cluster *c = arg;
	struct kube_cluster_counts counts = kube_cluster_count(c->model);
	snprintf(out->server, sizeof(out->server), "%s", cluster_auth_kubeconfig(c->auth)->server);
	snprintf(out->node, sizeof(out->node), "%s", c->node_name);
	snprintf(out->leader, sizeof(out->leader), "%s", cluster_leases_leader(c));
	out->is_synced = c->is_applied;
	out->is_leading = cluster_leases_lead(c);
	out->n_missing_rules = cluster_access_missing(c);
	out->certificate_expires_ms = cluster_auth_expires_ms(c->auth);
	out->n_services = counts.n_ours;
	out->n_refused = counts.n_refused;
	out->n_guarded = c->n_guards;
	out->n_endpoints = counts.n_endpoints;
	cluster_writer_count(c, &out->n_written, &out->n_write_errors);
	out->n_saved = cluster_outage_saved(c);
	out->applied_ms = (int64_t)c->applied_wall_ms;
	for (uint32_t i = 0; i < KUBE_CLUSTER_RESOURCES; i++)
		tell_feed(&c->feeds[i], out);
	tell_feed(cluster_leases_feed(c), out);
	memcpy(out->latency, c->latency, sizeof(out->latency));
	out->latency_sum_s = c->latency_sum_s;
}
