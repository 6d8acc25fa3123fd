// SPDX-License-Identifier: BSD-3-Clause
// The settings of the cluster as its source takes them.
#include "main_priv.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct cluster_wishes { // heap: large
	struct source_cluster_pool pools[SETTINGS_POOLS_MAX];
	struct source_cluster_range ranges[SETTINGS_POOLS_MAX][SETTINGS_RANGES_MAX];
	const char *namespaces[SETTINGS_POOLS_MAX][SETTINGS_SPACES_MAX];
	struct prefix refused[SETTINGS_SNAT_MAX];
	char node_name[64];
};

// The host's name as the cluster may have it; what cannot stand in the name of an object becomes a dash.
static void node_name_of(const struct settings_kubernetes *k, char out[64])
{
	snprintf(out, 64, "%s", k->node_name);
	if (strcmp(out, "auto") != 0)
		return;
	if (gethostname(out, 58) != 0 || out[0] == '\0')
		snprintf(out, 64, "node");
	out[58] = '\0';
	for (char *c = out; *c; c++) {
		*c = (char)tolower((unsigned char)*c);
		if (!isalnum((unsigned char)*c) && (*c != '.' || c == out))
			*c = c == out ? 'x' : '-';
	}
	size_t len = strlen(out);
	if (!isalnum((unsigned char)out[len - 1]))
		out[len - 1] = 'x';
}

static void pools_of(const struct settings_kubernetes *k, struct cluster_wishes *w)
{
	for (uint32_t i = 0; i < k->n_pools; i++) {
		const struct settings_pool *from = &k->pools[i];
		for (uint32_t j = 0; j < from->n_ranges; j++)
			w->ranges[i][j] = (struct source_cluster_range){ from->ranges[j].first,
				from->ranges[j].last };
		for (uint32_t j = 0; j < from->n_namespaces; j++)
			w->namespaces[i][j] = from->namespaces[j];
		w->pools[i] = (struct source_cluster_pool){
			.name = from->name,
			.ranges = w->ranges[i],
			.n_ranges = from->n_ranges,
			.priority = from->priority,
			.auto_assign = from->auto_assign,
			.namespaces = w->namespaces[i],
			.n_namespaces = from->n_namespaces,
		};
	}
}

int main_cluster_create(const struct settings *s, struct control *control,
	struct source_cluster **out, struct error *err)
{
	const struct settings_kubernetes *k = &s->kubernetes;
	struct cluster_wishes *w = k->enabled ? calloc(1, sizeof(*w)) : NULL;
	if (!k->enabled)
		return 0;
	if (w == NULL)
		return error_add(err, ENOMEM, "kubernetes", "out of memory");
	pools_of(k, w);
	node_name_of(k, w->node_name);
	for (uint32_t i = 0; i < s->snat.n_addresses; i++)
		w->refused[i] = (struct prefix){ .address = s->snat.addresses[i],
			.len = address_is_v4(&s->snat.addresses[i]) ? 32 : 128 };
	struct source_cluster_config config = {
		.kubeconfig = k->kubeconfig,
		.class_name = k->class,
		.is_default_class = k->default_class,
		.zone = k->zone,
		.namespace = k->namespace,
		.node_name = w->node_name,
		.finalizer = k->finalizer,
		.has_gate = k->readiness_gate,
		.lease_ms = (uint32_t)(k->lease_duration_ns / CLOCK_MS),
		.lease_renew_ms = (uint32_t)(k->lease_renew_ns / CLOCK_MS),
		.lease_retry_ms = (uint32_t)(k->lease_retry_ns / CLOCK_MS),
		.pools = w->pools,
		.n_pools = k->n_pools,
		.refused = w->refused,
		.n_refused = s->snat.n_addresses,
		.state_dir = s->state_dir,
	};
	int rc = source_cluster_create(control, &config, out, err);
	free(w);
	return rc;
}
