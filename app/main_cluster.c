// SPDX-License-Identifier: BSD-3-Clause
// The settings of the cluster as its source takes them.
#include "main_priv.h"

#include <ctype.h>
#include <errno.h>
#include <ifaddrs.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define HOST_MAX 64 // addresses of the host that are looked at

struct cluster_wishes { // heap: large
	struct source_cluster_pool pools[SETTINGS_POOLS_MAX];
	struct source_cluster_range ranges[SETTINGS_POOLS_MAX][SETTINGS_RANGES_MAX];
	const char *namespaces[SETTINGS_POOLS_MAX][SETTINGS_SPACES_MAX];
	struct prefix refused[SETTINGS_SNAT_MAX + HOST_MAX];
	uint32_t n_refused;
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

static void refuse(struct cluster_wishes *w, const struct address *address)
{
	w->refused[w->n_refused++] =
		(struct prefix){ .address = *address, .len = address_is_v4(address) ? 32 : 128 };
}

static bool host_address(const struct ifaddrs *i, struct address *out)
{
	static const uint8_t ones[16] = { 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255,
		255, 255, 255, 255, 255 };
	if (i->ifa_addr == NULL || i->ifa_netmask == NULL)
		return false;
	if (i->ifa_addr->sa_family == AF_INET) {
		const struct sockaddr_in *at = (const void *)i->ifa_addr;
		*out = address_from_v4(at->sin_addr.s_addr);
		return ((const struct sockaddr_in *)(const void *)i->ifa_netmask)
			       ->sin_addr.s_addr != INADDR_BROADCAST;
	}
	if (i->ifa_addr->sa_family != AF_INET6)
		return false;
	memcpy(out->bytes, &((const struct sockaddr_in6 *)(const void *)i->ifa_addr)->sin6_addr,
		16);
	return memcmp(&((const struct sockaddr_in6 *)(const void *)i->ifa_netmask)->sin6_addr, ones,
		       16) != 0;
}

// What is no endpoint's and no VIP's: the SNAT addresses, and those of this machine as they are now. A host prefix is not taken for
// the machine's: VIPs stand on the twins as such (punt/addresses.c), also after a crash.
static void refused_of(const struct settings *s, struct cluster_wishes *w)
{
	struct ifaddrs *list = NULL;
	struct address address;
	for (uint32_t i = 0; i < s->snat.n_addresses; i++)
		refuse(w, &s->snat.addresses[i]);
	if (getifaddrs(&list) != 0)
		return;
	for (const struct ifaddrs *i = list; i && w->n_refused < ARRAY_SIZE(w->refused);
		i = i->ifa_next)
		if (host_address(i, &address))
			refuse(w, &address);
	freeifaddrs(list);
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
	refused_of(s, w);
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
		.n_refused = w->n_refused,
		.state_dir = s->state_dir,
	};
	int rc = source_cluster_create(control, &config, out, err);
	free(w);
	return rc;
}
