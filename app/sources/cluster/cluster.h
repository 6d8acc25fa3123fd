// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// The cluster as a source of services: follows Services, EndpointSlices, Nodes (and pools, namespaces) of one Kubernetes API, puts
// what they mean in force as owner "kubernetes", keeps the last good state on disk, and, where it leads, gives addresses and
// writes status. Losing the API changes nothing that is in force. Control thread.

#include "base.h"
#include "control.h"
#include "net.h"

struct source_cluster_range { // both ends belong to it, of one family
	struct address first;
	struct address last;
};

struct source_cluster_pool { // everything borrowed for the time of create
	const char *name;
	const struct source_cluster_range *ranges;
	uint32_t n_ranges;
	uint32_t priority; // smaller first, 0 last
	bool auto_assign;
	const char *const *namespaces;
	uint32_t n_namespaces; // 0 = all
};

struct source_cluster_config {  // texts are copied
	const char *kubeconfig; // "" = in cluster
	const char *class_name;
	bool is_default_class;
	const char *zone;      // "" = hints are not heeded
	const char *namespace; // of the Leases
	const char *node_name; // not empty
	const char *finalizer; // "" = none
	bool has_gate;         // pods are followed, and their readiness gate is written
	uint32_t lease_ms, lease_renew_ms, lease_retry_ms;
	const struct source_cluster_pool *pools;
	uint32_t n_pools;
	const struct prefix
		*refused; // never an endpoint, nor (its first address) a VIP: own addresses
	uint32_t n_refused;
	const char *state_dir; // "" = nothing is kept
};

struct source_cluster;
// Loads the last good state, if there is one, and begins. An API server that does not answer is no error; a kubeconfig that is
// missing or bad is: 0, or -errno with every finding in err, and nothing is begun.
int source_cluster_create(struct control *control, const struct source_cluster_config *config,
	struct source_cluster **out, struct error *err);
// Reads a kubeconfig as a start would. 0 or -errno.
int source_cluster_check(const char *kubeconfig, struct error *err);
// A reload changed what a Service gets when it does not say.
void source_cluster_set_defaults(struct source_cluster *c, const struct service_defaults *defaults);
void source_cluster_destroy(struct source_cluster *c); // the services stay; NULL is fine
