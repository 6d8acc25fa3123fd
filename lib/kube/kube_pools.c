// SPDX-License-Identifier: BSD-3-Clause
// AddressPools as written, labels of namespaces, and label selectors.
#include "kube_cluster_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

// ---------------------------------------------------------------- selectors
// Value of a key in lines "key=value\n"; NULL: not there. *out_len: its length.
static const char *label_find(const char *labels, const char *key, size_t *out_len)
{
	size_t len = strlen(key);
	for (const char *line = labels; *line; line += strcspn(line, "\n") + 1) {
		if (strncmp(line, key, len) || line[len] != '=')
			continue;
		*out_len = strcspn(line + len + 1, "\n");
		return line + len + 1;
	}
	return NULL;
}

static bool label_is(const char *labels, const char *key, const char *value)
{
	size_t len = 0;
	const char *found = label_find(labels, key, &len);
	return found && value && strlen(value) == len && memcmp(found, value, len) == 0;
}

static bool label_is_in(const char *labels, const char *key, const json_t *values)
{
	for (size_t i = 0; i < json_array_size(values); i++)
		if (label_is(labels, key, json_string_value(json_array_get(values, i))))
			return true;
	return false;
}

static bool expression_matches(const json_t *expression, const char *labels)
{
	const char *key = json_string_value(json_object_get(expression, "key"));
	const char *operator= json_string_value(json_object_get(expression, "operator"));
	const json_t *values = json_object_get(expression, "values");
	size_t len;
	if (key == NULL || operator== NULL)
		return false;
	bool takes_values = json_array_size(values) > 0;
	if (strcmp(operator, "In") == 0)
		return takes_values && label_is_in(labels, key, values);
	if (strcmp(operator, "NotIn") == 0)
		return takes_values && !label_is_in(labels, key, values);
	if (strcmp(operator, "Exists") == 0)
		return !takes_values && label_find(labels, key, &len) != NULL;
	if (strcmp(operator, "DoesNotExist") == 0)
		return !takes_values && label_find(labels, key, &len) == NULL;
	return false;
}

bool kube_selector_matches(const json_t *selector, const char *labels)
{
	const json_t *wanted = json_object_get(selector, "matchLabels");
	const json_t *expressions = json_object_get(selector, "matchExpressions");
	const char *key;
	json_t *value;
	if (selector == NULL || json_is_null(selector))
		return true;
	if (!json_is_object(selector) ||
		(wanted && !json_is_object(wanted) && !json_is_null(wanted)) ||
		(expressions && !json_is_array(expressions) && !json_is_null(expressions)))
		return false;
	json_object_foreach((json_t *)(uintptr_t)wanted, key, value)
	{
		if (!label_is(labels, key, json_string_value(value)))
			return false;
	}
	for (size_t i = 0; i < json_array_size(expressions); i++)
		if (!expression_matches(json_array_get(expressions, i), labels))
			return false;
	return true;
}

// ---------------------------------------------------------------- labels
const char *kube_cluster_service_labels(
	const struct kube_cluster *c, const char *namespace, const char *name)
{
	const struct kube_owner *owner = kube_map_find(&c->owners, namespace, name);
	return owner && owner->has_object ? owner->meta.labels : "";
}

const char *kube_cluster_namespace_labels(const struct kube_cluster *c, const char *namespace)
{
	const struct kube_namespace *found = kube_map_find(&c->namespaces, "", namespace);
	return found ? found->labels : "";
}

int kube_namespace_put(struct kube_cluster *c, const json_t *object)
{
	const char *nothing, *name;
	kube_identity_read(object, &nothing, &name);
	struct kube_namespace *known = kube_map_find(&c->namespaces, "", name);
	char *labels =
		kube_labels_pack(json_object_get(json_object_get(object, "metadata"), "labels"));
	if (labels && known == NULL)
		known = kube_map_add(&c->namespaces, "", name, sizeof(*known));
	if (labels == NULL || known == NULL) {
		free(labels);
		return -ENOMEM;
	}
	known->object.epoch = c->epochs[KUBE_CLUSTER_NAMESPACES];
	if (known->labels == NULL || strcmp(known->labels, labels))
		c->pools_generation++;
	free(known->labels);
	known->labels = labels;
	return 0;
}

void kube_namespace_remove(struct kube_cluster *c, struct kube_namespace *namespace)
{
	free(namespace->labels);
	kube_map_remove(&c->namespaces, &namespace->object);
	c->pools_generation++;
}

// ---------------------------------------------------------------- pools
static const struct kube_known pool_known[] = {
	{ "addresses", JSON_ARRAY },
	{ "priority", JSON_INTEGER },
	{ "autoAssign", JSON_TRUE },
	{ "namespaces", JSON_ARRAY },
	{ "namespaceSelector", JSON_OBJECT },
	{ "serviceSelector", JSON_OBJECT },
	{ NULL },
};

static void read_texts(struct kube_reader *r, const json_t *spec, const char *key)
{
	const json_t *array = json_object_get(spec, key);
	kube_enter(r, key);
	for (size_t i = 0; i < json_array_size(array); i++) {
		kube_enter_idx(r, (uint32_t)i);
		if (!json_is_string(json_array_get(array, i)))
			kube_refuse(r, "allowed: a string");
		kube_leave(r);
	}
	kube_leave(r);
}

static void pool_check(struct kube_pool_object *pool)
{
	struct kube_reader r = {
		.text = "", .is_watch = true, .err = &pool->findings, .item_idx = UINT32_MAX
	};
	error_fini(&pool->findings);
	const json_t *spec = kube_object(&r, pool->json, "spec");
	kube_enter(&r, "spec");
	if (spec == NULL || json_array_size(json_object_get(spec, "addresses")) == 0)
		kube_refuse_at(&r, "addresses",
			"no address; allowed: prefixes and ranges, as 203.0.113.0/24 or "
			"203.0.113.10-203.0.113.20");
	kube_check_types(&r, spec, pool_known);
	read_texts(&r, spec, "addresses");
	read_texts(&r, spec, "namespaces");
	kube_leave(&r);
}

int kube_pool_put(struct kube_cluster *c, const json_t *object)
{
	const char *nothing, *name;
	kube_identity_read(object, &nothing, &name);
	struct kube_pool_object *pool = kube_map_find(&c->pools, "", name);
	struct kube_meta meta;
	json_t *copy = json_deep_copy(object);
	if (copy == NULL || kube_meta_read(c, object, &meta) != 0) {
		json_decref(copy);
		return -ENOMEM;
	}
	bool is_new = pool == NULL;
	if (is_new)
		pool = kube_map_add(&c->pools, "", name, sizeof(*pool));
	if (pool == NULL) {
		json_decref(copy);
		free(meta.block);
		return -ENOMEM;
	}
	pool->object.epoch = c->epochs[KUBE_CLUSTER_POOLS];
	if (is_new || pool->meta.is_deleting != meta.is_deleting ||
		!json_equal(json_object_get(pool->json, "spec"), json_object_get(copy, "spec")) ||
		strcmp(pool->meta.uid, meta.uid))
		c->pools_generation++;
	json_decref(pool->json);
	free(pool->meta.block);
	pool->json = copy;
	pool->meta = meta;
	pool_check(pool);
	return 0;
}

void kube_pool_remove(struct kube_cluster *c, struct kube_pool_object *pool)
{
	json_decref(pool->json);
	free(pool->meta.block);
	error_fini(&pool->findings);
	kube_map_remove(&c->pools, &pool->object);
	c->pools_generation++;
}

uint64_t kube_cluster_pools_generation(const struct kube_cluster *c)
{
	return c->pools_generation;
}

static const json_t *member_of(const json_t *spec, const char *key, json_type type)
{
	const json_t *value = json_object_get(spec, key);
	return value && json_typeof(value) == type ? value : NULL;
}

// The idx-th in name order. Pools are few.
static const struct kube_pool_object *pool_find(const struct kube_cluster *c, uint32_t idx)
{
	struct kube_pool_object *best = NULL, *last = NULL;
	for (uint32_t i = 0; i <= idx; i++) {
		best = NULL;
		struct kube_pool_object *pool = kube_map_next(&c->pools, NULL);
		for (; pool; pool = kube_map_next(&c->pools, &pool->object)) {
			bool is_later = !last || strcmp(pool->object.name, last->object.name) > 0;
			if (is_later && (!best || strcmp(pool->object.name, best->object.name) < 0))
				best = pool;
		}
		if (best == NULL)
			break;
		last = best;
	}
	return best;
}

bool kube_cluster_pool_at(const struct kube_cluster *c, uint32_t idx, struct kube_pool *out)
{
	const struct kube_pool_object *pool = pool_find(c, idx);
	if (pool == NULL)
		return false;
	const json_t *spec = json_object_get(pool->json, "spec");
	const json_t *priority = json_object_get(spec, "priority");
	const json_t *auto_assign = json_object_get(spec, "autoAssign");
	*out = (struct kube_pool){ .name = pool->object.name,
		.uid = pool->meta.uid,
		.resource_version = pool->meta.resource_version,
		.created = pool->meta.created ? pool->meta.created : "",
		.generation = pool->meta.generation,
		.is_deleting = pool->meta.is_deleting,
		.spec = spec,
		.findings = &pool->findings,
		.addresses = member_of(spec, "addresses", JSON_ARRAY),
		.priority = json_integer_value(priority),
		.auto_assign = !json_is_false(auto_assign),
		.namespaces = member_of(spec, "namespaces", JSON_ARRAY),
		.namespace_selector = member_of(spec, "namespaceSelector", JSON_OBJECT),
		.service_selector = member_of(spec, "serviceSelector", JSON_OBJECT) };
	return true;
}

bool kube_cluster_pool_serves(const struct kube_cluster *c, const struct kube_pool *pool,
	const char *namespace, const char *name)
{
	bool is_named = json_array_size(pool->namespaces) == 0;
	for (size_t i = 0; i < json_array_size(pool->namespaces); i++) {
		const char *text = json_string_value(json_array_get(pool->namespaces, i));
		is_named = is_named || (text && strcmp(text, namespace) == 0);
	}
	return is_named &&
	       kube_selector_matches(
		       pool->namespace_selector, kube_cluster_namespace_labels(c, namespace)) &&
	       kube_selector_matches(
		       pool->service_selector, kube_cluster_service_labels(c, namespace, name));
}
