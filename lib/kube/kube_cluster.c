// SPDX-License-Identifier: BSD-3-Clause
// The model of the cluster: what goes in and when it is complete. (Meaning of the objects: follows.)
#include "kube_cluster.h"
#include "kube_map_priv.h"

#include <stdlib.h>
#include <string.h>

struct kube_cluster { // [control]
	struct kube_cluster_config config;
	uint32_t synced; // bits of resources
};

struct kube_cluster *kube_cluster_create(const struct kube_cluster_config *config)
{
	struct kube_cluster *c = calloc(1, sizeof(*c));
	if (c)
		c->config = *config;
	return c;
}

void kube_cluster_destroy(struct kube_cluster *c)
{
	free(c);
}

void kube_cluster_begin(struct kube_cluster *c, enum kube_cluster_resource resource)
{
}

int kube_cluster_put(
	struct kube_cluster *c, enum kube_cluster_resource resource, const json_t *object)
{
	return 0;
}

void kube_cluster_remove(struct kube_cluster *c, enum kube_cluster_resource resource,
	const char *namespace, const char *name)
{
}

void kube_cluster_end(struct kube_cluster *c, enum kube_cluster_resource resource)
{
	c->synced |= 1u << resource;
}

bool kube_cluster_is_synced(const struct kube_cluster *c)
{
	return (c->synced & c->config.resources) == c->config.resources;
}

void kube_cluster_recheck(struct kube_cluster *c)
{
}

int kube_cluster_set_refused(
	struct kube_cluster *c, const struct prefix *refused, uint32_t n_refused)
{
	return 0;
}

void kube_cluster_set_defaults(struct kube_cluster *c, const struct service_defaults *defaults)
{
	c->config.defaults = *defaults;
}

bool kube_cluster_next(struct kube_cluster *c, struct kube_change *out)
{
	return false;
}

const char *kube_cluster_resource_version(
	const struct kube_cluster *c, const char *namespace, const char *object)
{
	return "";
}

void kube_cluster_again(struct kube_cluster *c, const char *namespace, const char *object)
{
}

const char *kube_cluster_service_labels(
	const struct kube_cluster *c, const char *namespace, const char *name)
{
	return "";
}

const char *kube_cluster_namespace_labels(const struct kube_cluster *c, const char *namespace)
{
	return "";
}

bool kube_selector_matches(const json_t *selector, const char *labels)
{
	return selector == NULL || json_object_size(selector) == 0;
}

uint64_t kube_cluster_pools_generation(const struct kube_cluster *c)
{
	return 0;
}

bool kube_cluster_pool_at(const struct kube_cluster *c, uint32_t idx, struct kube_pool *out)
{
	return false;
}

bool kube_cluster_pool_serves(const struct kube_cluster *c, const struct kube_pool *pool,
	const char *namespace, const char *name)
{
	return false;
}

bool kube_cluster_next_pod(struct kube_cluster *c, struct kube_pod *out)
{
	return false;
}

bool kube_cluster_find_pod(
	const struct kube_cluster *c, const char *namespace, const char *name, struct kube_pod *out)
{
	return false;
}

struct kube_cluster_counts kube_cluster_count(const struct kube_cluster *c)
{
	return (struct kube_cluster_counts){ 0 };
}
