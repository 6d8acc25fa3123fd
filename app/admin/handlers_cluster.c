// SPDX-License-Identifier: BSD-3-Clause
// The cluster as it is followed.
#include "admin_priv.h"

static json_t *time_or_null(int64_t wall_ms)
{
	return wall_ms ? json_time(wall_ms) : json_null();
}

static json_t *resource_json(const struct control_cluster_resource *r)
{
	return json_pack("{s:s, s:b, s:b, s:s, s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "name",
		r->name, "synced", r->is_synced, "watching", r->is_watching, "trouble", r->trouble,
		"troubleText", r->trouble_text, "lastByte", time_or_null(r->last_byte_ms), "lists",
		json_count(r->n_lists), "watches", json_count(r->n_watches), "events",
		json_count(r->n_events), "expired", json_count(r->n_expired), "errors",
		json_count(r->n_errors), "refused", json_count(r->n_refused));
}

void get_kubernetes(struct admin_request *r)
{
	struct control_cluster k;
	if (!control_cluster(r->admin->control, &k)) {
		reply_problem(r, PROBLEM_NOT_FOUND,
			"no cluster is followed: kubernetes.enabled is false");
		return;
	}
	json_t *resources = json_array();
	for (uint32_t i = 0; i < k.n_resources; i++)
		json_array_append_new(resources, resource_json(&k.resources[i]));
	reply_json(r, 200,
		json_pack("{s:s, s:s, s:s, s:b, s:b, s:i, s:o, s:o, s:i, s:i, s:i, s:i, s:o, s:o, "
			  "s:o, s:o}",
			"server", k.server, "node", k.node, "leader", k.leader, "leading",
			k.is_leading, "synced", k.is_synced, "missingRules", (int)k.n_missing_rules,
			"certificateExpires", time_or_null(k.certificate_expires_ms), "lastChange",
			time_or_null(k.applied_ms), "services", (int)k.n_services,
			"refusedServices", (int)k.n_refused, "guardedServices", (int)k.n_guarded,
			"endpoints", (int)k.n_endpoints, "written", json_count(k.n_written),
			"writeErrors", json_count(k.n_write_errors), "saved", json_count(k.n_saved),
			"resources", resources));
}
