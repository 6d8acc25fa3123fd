// SPDX-License-Identifier: BSD-3-Clause
// The model of the cluster: what goes in, by resource, and when it is complete.
#include "kube_cluster_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define ALWAYS (1u << KUBE_CLUSTER_SERVICES | 1u << KUBE_CLUSTER_SLICES | 1u << KUBE_CLUSTER_NODES)

static char *copy_or(const char *text, const char *otherwise)
{
	return strdup(text && text[0] ? text : otherwise);
}

struct kube_cluster *kube_cluster_create(const struct kube_cluster_config *config)
{
	struct kube_cluster *c = calloc(1, sizeof(*c));
	if (c == NULL)
		return NULL;
	c->config = *config;
	c->config.resources |= ALWAYS;
	c->class_name = copy_or(config->class_name, "");
	c->finalizer = copy_or(config->finalizer, KUBE_PREFIX "vip");
	c->gate = copy_or(config->gate, KUBE_PREFIX "healthy");
	bool has_zone = config->zone && config->zone[0];
	c->zone = has_zone ? strdup(config->zone) : NULL;
	struct kube_map *maps[] = { &c->owners, &c->slices, &c->nodes, &c->namespaces, &c->pools,
		&c->pods };
	for (size_t i = 0; i < ARRAY_SIZE(maps); i++)
		maps[i]->key = config->key;
	c->claims.key = config->key;
	if (!c->class_name || !c->finalizer || !c->gate || (has_zone && !c->zone) ||
		kube_cluster_set_refused(c, config->refused, config->n_refused) != 0) {
		kube_cluster_destroy(c);
		return NULL;
	}
	return c;
}

// ---------------------------------------------------------------- by resource
static void remove_service(struct kube_cluster *c, struct kube_object *object)
{
	kube_owner_remove(c, (struct kube_owner *)object);
}

static void remove_slice(struct kube_cluster *c, struct kube_object *object)
{
	kube_packed_remove(c, (struct kube_packed_slice *)object);
}

static void remove_node(struct kube_cluster *c, struct kube_object *object)
{
	kube_node_remove(c, (struct kube_node *)object);
}

static void remove_namespace(struct kube_cluster *c, struct kube_object *object)
{
	kube_namespace_remove(c, (struct kube_namespace *)object);
}

static void remove_pool(struct kube_cluster *c, struct kube_object *object)
{
	kube_pool_remove(c, (struct kube_pool_object *)object);
}

static void remove_pod(struct kube_cluster *c, struct kube_object *object)
{
	kube_pod_remove(c, (struct kube_pod_object *)object);
}

static const struct {
	size_t map;
	bool has_namespace;
	int (*put)(struct kube_cluster *c, const json_t *object);
	void (*remove)(struct kube_cluster *c, struct kube_object *object);
} resources[KUBE_CLUSTER_RESOURCES] = {
	[KUBE_CLUSTER_SERVICES] = { offsetof(struct kube_cluster, owners), true, kube_owner_put,
		remove_service },
	[KUBE_CLUSTER_SLICES] = { offsetof(struct kube_cluster, slices), true, kube_packed_put,
		remove_slice },
	[KUBE_CLUSTER_NODES] = { offsetof(struct kube_cluster, nodes), false, kube_node_put,
		remove_node },
	[KUBE_CLUSTER_NAMESPACES] = { offsetof(struct kube_cluster, namespaces), false,
		kube_namespace_put, remove_namespace },
	[KUBE_CLUSTER_POOLS] = { offsetof(struct kube_cluster, pools), false, kube_pool_put,
		remove_pool },
	[KUBE_CLUSTER_PODS] = { offsetof(struct kube_cluster, pods), true, kube_pod_put,
		remove_pod },
};

static struct kube_map *map_of(struct kube_cluster *c, enum kube_cluster_resource resource)
{
	return (struct kube_map *)((char *)c + resources[resource].map);
}

void kube_cluster_begin(struct kube_cluster *c, enum kube_cluster_resource resource)
{
	c->epochs[resource]++;
	c->listing |= 1u << resource;
}

int kube_cluster_put(
	struct kube_cluster *c, enum kube_cluster_resource resource, const json_t *object)
{
	const char *namespace, *name;
	if (!kube_identity_read(object, &namespace, &name) ||
		(namespace[0] == '\0') == resources[resource].has_namespace) {
		c->n_bad_objects++;
		return 0;
	}
	return resources[resource].put(c, object);
}

void kube_cluster_remove(struct kube_cluster *c, enum kube_cluster_resource resource,
	const char *namespace, const char *name)
{
	struct kube_object *object =
		kube_map_find(map_of(c, resource), namespace ? namespace : "", name);
	if (object)
		resources[resource].remove(c, object);
}

void kube_cluster_keep(struct kube_cluster *c, enum kube_cluster_resource resource,
	const char *namespace, const char *name)
{
	struct kube_object *object =
		kube_map_find(map_of(c, resource), namespace ? namespace : "", name);
	c->n_bad_objects++;
	if (object)
		object->epoch = c->epochs[resource];
}

// Removing an object frees no other of its map, so the next one may be held over it.
void kube_cluster_end(struct kube_cluster *c, enum kube_cluster_resource resource)
{
	struct kube_map *map = map_of(c, resource);
	if ((c->listing & 1u << resource) == 0)
		return;
	struct kube_object *object = kube_map_next(map, NULL), *next;
	for (; object; object = next) {
		next = kube_map_next(map, object);
		if (object->epoch != c->epochs[resource])
			resources[resource].remove(c, object);
	}
	c->listing &= ~(1u << resource);
	c->synced |= 1u << resource;
}

bool kube_cluster_is_synced(const struct kube_cluster *c)
{
	return (c->synced & c->config.resources) == c->config.resources;
}

// ---------------------------------------------------------------- what all depend on
void kube_cluster_recheck(struct kube_cluster *c)
{
	struct kube_owner *owner = kube_map_next(&c->owners, NULL);
	for (; owner; owner = kube_map_next(&c->owners, &owner->object))
		if (owner->is_ours)
			kube_owner_refresh(c, owner);
}

int kube_cluster_set_refused(
	struct kube_cluster *c, const struct prefix *refused, uint32_t n_refused)
{
	struct prefix *copy = calloc(n_refused + 1u, sizeof(*copy));
	if (copy == NULL)
		return -ENOMEM;
	if (n_refused)
		memcpy(copy, refused, n_refused * sizeof(*copy));
	free(c->refused);
	c->refused = copy;
	c->n_refused = n_refused;
	kube_cluster_recheck(c);
	return 0;
}

void kube_cluster_set_defaults(struct kube_cluster *c, const struct service_defaults *defaults)
{
	c->config.defaults = *defaults;
	struct kube_owner *owner = kube_map_next(&c->owners, NULL);
	for (; owner; owner = kube_map_next(&c->owners, &owner->object))
		owner->version = 0;
}

const char *kube_cluster_resource_version(
	const struct kube_cluster *c, const char *namespace, const char *object)
{
	const struct kube_owner *owner = kube_map_find(&c->owners, namespace, object);
	return owner && owner->has_object ? owner->meta.resource_version : "";
}

struct kube_cluster_counts kube_cluster_count(const struct kube_cluster *c)
{
	return (struct kube_cluster_counts){ .n_services = c->n_objects,
		.n_ours = c->n_ours,
		.n_refused = c->n_refused_services,
		.n_slices = c->slices.n_objects,
		.n_endpoints = c->n_endpoints,
		.n_nodes = c->nodes.n_objects,
		.n_eligible_nodes = c->n_eligible_nodes,
		.n_namespaces = c->namespaces.n_objects,
		.n_pools = c->pools.n_objects,
		.n_pods = c->pods.n_objects,
		.n_bad_objects = c->n_bad_objects,
		.n_changes = c->n_changes };
}

// ---------------------------------------------------------------- end
// Nothing refers to anything any more: objects go as they lie, without a thought of what follows.
static void owner_destroy(struct kube_owner *owner)
{
	struct kube_service *forms[] = { owner->head, owner->fallback };
	for (struct kube_face *face = owner->faces, *next; face; face = next) {
		next = face->next;
		free(face->wanted.items);
		free(face->served.items);
		free(face->hostname);
		free(face->given_uid);
		free(face->ids);
		free(face);
	}
	for (size_t i = 0; i < ARRAY_SIZE(forms); i++) {
		if (forms[i])
			kube_service_fini(forms[i]);
		free(forms[i]);
	}
	free(owner->meta.block);
	free(owner->refusal);
}

// Of an object of that resource: what lies outside of it.
static void object_fini(struct kube_object *object, enum kube_cluster_resource resource)
{
	if (resource == KUBE_CLUSTER_SERVICES)
		owner_destroy((struct kube_owner *)object);
	else if (resource == KUBE_CLUSTER_SLICES) {
		free(((struct kube_packed_slice *)object)->block);
		free(((struct kube_packed_slice *)object)->refusal);
	} else if (resource == KUBE_CLUSTER_NAMESPACES)
		free(((struct kube_namespace *)object)->labels);
	else if (resource == KUBE_CLUSTER_PODS)
		free(((struct kube_pod_object *)object)->block);
	else if (resource == KUBE_CLUSTER_POOLS) {
		struct kube_pool_object *pool = (struct kube_pool_object *)object;
		json_decref(pool->json);
		free(pool->meta.block);
		error_fini(&pool->findings);
	}
}

void kube_cluster_destroy(struct kube_cluster *c)
{
	if (c == NULL)
		return;
	kube_given_fini(c);
	for (uint32_t i = 0; i < KUBE_CLUSTER_RESOURCES; i++) {
		struct kube_map *map = map_of(c, i);
		for (struct kube_object *object = kube_map_next(map, NULL); object;
			object = kube_map_next(map, NULL)) {
			object_fini(object, i);
			kube_map_remove(map, object);
		}
		kube_map_fini(map);
	}
	kube_claims_fini(&c->claims);
	free(c->work);
	free(c->refused);
	free(c->class_name);
	free(c->zone);
	free(c->finalizer);
	free(c->gate);
	free(c);
}
