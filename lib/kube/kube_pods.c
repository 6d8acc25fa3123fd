// SPDX-License-Identifier: BSD-3-Clause
// Pods that wait for our readiness gate. Others are not kept.
#include "kube_cluster_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void pod_queue(struct kube_cluster *c, struct kube_pod_object *pod)
{
	if (pod->is_dirty)
		return;
	pod->is_dirty = true;
	pod->next_dirty = NULL;
	if (c->first_dirty_pod)
		c->last_dirty_pod->next_dirty = pod;
	else
		c->first_dirty_pod = pod;
	c->last_dirty_pod = pod;
}

static bool has_gate(const struct kube_cluster *c, const json_t *object)
{
	const json_t *gates = json_object_get(json_object_get(object, "spec"), "readinessGates");
	for (size_t i = 0; i < json_array_size(gates); i++) {
		const char *type = json_string_value(
			json_object_get(json_array_get(gates, i), "conditionType"));
		if (type && strcmp(type, c->gate) == 0)
			return true;
	}
	return false;
}

static void read_condition(const struct kube_cluster *c, const json_t *status, struct kube_pod *out)
{
	const json_t *conditions = json_object_get(status, "conditions");
	for (size_t i = 0; i < json_array_size(conditions); i++) {
		const json_t *condition = json_array_get(conditions, i);
		const char *type = json_string_value(json_object_get(condition, "type"));
		const char *value = json_string_value(json_object_get(condition, "status"));
		if (type == NULL || strcmp(type, c->gate))
			continue;
		out->is_marked = true;
		out->is_healthy = value && strcmp(value, "True") == 0;
	}
}

static void read_ips(const json_t *status, struct kube_pod *out)
{
	const json_t *ips = json_object_get(status, "podIPs");
	for (size_t i = 0; i < json_array_size(ips) && out->n_addresses < 2; i++) {
		const char *text = json_string_value(json_object_get(json_array_get(ips, i), "ip"));
		if (text && address_parse(text, &out->addresses[out->n_addresses]) == 0)
			out->n_addresses++;
	}
	const char *ip = json_string_value(json_object_get(status, "podIP"));
	if (out->n_addresses == 0 && ip && address_parse(ip, &out->addresses[0]) == 0)
		out->n_addresses = 1;
}

static bool pods_equal(const struct kube_pod *a, const struct kube_pod *b)
{
	if (a->n_addresses != b->n_addresses || a->is_gone != b->is_gone ||
		a->is_marked != b->is_marked || a->is_healthy != b->is_healthy ||
		strcmp(a->uid, b->uid))
		return false;
	for (uint32_t i = 0; i < a->n_addresses; i++)
		if (!address_equal(&a->addresses[i], &b->addresses[i]))
			return false;
	return true;
}

static int take(struct kube_cluster *c, struct kube_pod_object *known, const json_t *object)
{
	struct kube_meta meta;
	const json_t *status = json_object_get(object, "status");
	if (kube_meta_read(c, object, &meta) != 0)
		return -ENOMEM;
	struct kube_pod fresh = { .namespace = known->object.namespace,
		.name = known->object.name,
		.uid = meta.uid,
		.resource_version = meta.resource_version };
	read_condition(c, status, &fresh);
	read_ips(status, &fresh);
	if (known->block == NULL || !pods_equal(&known->pod, &fresh))
		pod_queue(c, known);
	if (c->gone_pod == known)
		c->gone_pod = NULL; // told as gone, and there again
	free(known->block);
	known->block = meta.block;
	known->pod = fresh;
	return 0;
}

int kube_pod_put(struct kube_cluster *c, const json_t *object)
{
	const char *namespace, *name;
	kube_identity_read(object, &namespace, &name);
	struct kube_pod_object *known = kube_map_find(&c->pods, namespace, name);
	uint64_t version = kube_version_of(object);
	if (known)
		known->object.epoch = c->epochs[KUBE_CLUSTER_PODS];
	if (known && version && version == known->version)
		return 0;
	if (!has_gate(c, object)) {
		if (known)
			kube_pod_remove(c, known);
		return 0;
	}
	bool is_new = known == NULL;
	if (is_new)
		known = kube_map_add(&c->pods, namespace, name, sizeof(*known));
	if (known == NULL)
		return -ENOMEM;
	known->object.epoch = c->epochs[KUBE_CLUSTER_PODS];
	int rc = take(c, known, object);
	known->version = rc ? 0 : version;
	if (rc && is_new)
		kube_map_remove(&c->pods, &known->object);
	return rc;
}

// It goes when that has been told.
void kube_pod_remove(struct kube_cluster *c, struct kube_pod_object *pod)
{
	if (c->gone_pod == pod)
		return; // it has been, and goes with the next look
	pod->pod.is_gone = true;
	pod->version = 0;
	pod_queue(c, pod);
}

bool kube_cluster_next_pod(struct kube_cluster *c, struct kube_pod *out)
{
	if (c->gone_pod) {
		free(c->gone_pod->block);
		kube_map_remove(&c->pods, &c->gone_pod->object);
		c->gone_pod = NULL;
	}
	struct kube_pod_object *pod = c->first_dirty_pod;
	if (pod == NULL || !kube_cluster_is_synced(c))
		return false;
	c->first_dirty_pod = pod->next_dirty;
	pod->is_dirty = false;
	if (pod->pod.is_gone)
		c->gone_pod = pod;
	*out = pod->pod;
	return true;
}

bool kube_cluster_find_pod(
	const struct kube_cluster *c, const char *namespace, const char *name, struct kube_pod *out)
{
	const struct kube_pod_object *pod = kube_map_find(&c->pods, namespace, name);
	if (pod == NULL || pod->pod.is_gone)
		return false;
	*out = pod->pod;
	return true;
}
