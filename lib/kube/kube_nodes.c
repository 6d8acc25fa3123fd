// SPDX-License-Identifier: BSD-3-Clause
// Nodes, and services that go to them (kubernetes.md 5). Whether a node is Ready decides nothing here: probes do.
#include "kube_cluster_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define EXCLUDE_LABEL    "node.kubernetes.io/exclude-from-external-load-balancers"
#define AUTOSCALER_TAINT "ToBeDeletedByClusterAutoscaler"

// As the cloud controller has it: "false" keeps the node in, what is no truth value takes it out.
static bool is_excluded(const json_t *labels)
{
	static const char *const falsehoods[] = { "0", "f", "F", "false", "False", "FALSE" };
	const char *text = json_string_value(json_object_get(labels, EXCLUDE_LABEL));
	for (size_t i = 0; text && i < ARRAY_SIZE(falsehoods); i++)
		if (strcmp(text, falsehoods[i]) == 0)
			return false;
	return text != NULL;
}

static bool is_going(const json_t *object)
{
	const json_t *taints = json_object_get(json_object_get(object, "spec"), "taints");
	for (size_t i = 0; i < json_array_size(taints); i++) {
		const char *key =
			json_string_value(json_object_get(json_array_get(taints, i), "key"));
		if (key && strcmp(key, AUTOSCALER_TAINT) == 0)
			return true;
	}
	return !kube_is_absent(json_object_get(object, "metadata"), "deletionTimestamp");
}

// The first address of each family of that type.
static void read_addresses(const json_t *object, const char *type, struct kube_node *out)
{
	const json_t *all = json_object_get(json_object_get(object, "status"), "addresses");
	for (size_t i = 0; i < json_array_size(all); i++) {
		const json_t *entry = json_array_get(all, i);
		const char *kind = json_string_value(json_object_get(entry, "type"));
		const char *text = json_string_value(json_object_get(entry, "address"));
		struct address address;
		if (kind == NULL || text == NULL || strcmp(kind, type) ||
			address_parse(text, &address) || address_is_unroutable(&address))
			continue;
		uint32_t family = !address_is_v4(&address);
		if (!out->has[family])
			out->addresses[family] = address;
		out->has[family] = true;
	}
}

static bool nodes_equal(const struct kube_node *a, const struct kube_node *b)
{
	for (uint32_t i = 0; i < 2; i++)
		if (a->has[i] != b->has[i] ||
			(a->has[i] && !address_equal(&a->addresses[i], &b->addresses[i])))
			return false;
	return a->is_eligible == b->is_eligible && strcmp(a->uid, b->uid) == 0;
}

static int nodes_changed(struct kube_cluster *c)
{
	int rc = 0;
	struct kube_owner *owner = c->n_to_nodes ? kube_map_next(&c->owners, NULL) : NULL;
	for (; owner; owner = kube_map_next(&c->owners, &owner->object)) {
		const struct kube_service *form = kube_owner_form(owner);
		if (form && form->extras.to_nodes && kube_owner_touch(c, owner) != 0)
			rc = -ENOMEM;
	}
	return rc;
}

int kube_node_put(struct kube_cluster *c, const json_t *object)
{
	const char *namespace, *name;
	kube_identity_read(object, &namespace, &name);
	const json_t *metadata = json_object_get(object, "metadata");
	const char *uid = json_string_value(json_object_get(metadata, "uid"));
	struct kube_node *node = kube_map_find(&c->nodes, "", name);
	if (node == NULL)
		node = kube_map_add(&c->nodes, "", name, sizeof(*node));
	if (node == NULL)
		return -ENOMEM;
	struct kube_node fresh = { .is_eligible =
					   !is_going(object) &&
					   !is_excluded(json_object_get(metadata, "labels")) };
	snprintf(fresh.uid, sizeof(fresh.uid), "%s", uid ? uid : "");
	read_addresses(object, "InternalIP", &fresh);
	read_addresses(object, "ExternalIP", &fresh); // where there is no internal one
	fresh.object = node->object;
	fresh.object.epoch = c->epochs[KUBE_CLUSTER_NODES];
	bool is_same = nodes_equal(node, &fresh);
	c->n_eligible_nodes += fresh.is_eligible - node->is_eligible;
	*node = fresh;
	return is_same ? 0 : nodes_changed(c);
}

void kube_node_remove(struct kube_cluster *c, struct kube_node *node)
{
	c->n_eligible_nodes -= node->is_eligible;
	kube_map_remove(&c->nodes, &node->object);
	nodes_changed(c);
}

// ---------------------------------------------------------------- join
// An endpoint as policy Local counts it.
struct local {
	const char *node;
	const struct address *address;
	uint8_t rank; // 0 ready, 1 serving and terminating
};

static int compare_locals(const void *a, const void *b)
{
	const struct local *x = a, *y = b;
	int order = strcmp(x->node, y->node);
	if (order == 0)
		order = address_compare(x->address, y->address);
	return order ? order : x->rank - y->rank;
}

static struct local *gather_locals(const struct kube_owner *owner, uint32_t *out_n)
{
	uint32_t n = 0;
	const struct kube_packed_slice *slice;
	for (slice = owner->slices; slice; slice = slice->next)
		n += slice->slice.n_endpoints;
	struct local *locals = calloc(n + 1, sizeof(*locals));
	*out_n = 0;
	for (slice = owner->slices; locals && slice; slice = slice->next) {
		for (uint32_t i = 0; i < slice->slice.n_endpoints; i++) {
			const struct kube_endpoint *e = &slice->slice.endpoints[i];
			bool is_last = e->conditions.serving && e->conditions.terminating;
			if (e->node[0] && (e->conditions.ready || is_last))
				locals[(*out_n)++] = (struct local){ e->node, &e->address,
					!e->conditions.ready };
		}
	}
	if (*out_n)
		qsort(locals, *out_n, sizeof(*locals), compare_locals);
	return locals;
}

struct node_join {
	struct kube_cluster *c;
	struct kube_service *s;
	struct error *notes;
	bool v4; // family of the nodes' addresses
	int rc;
};

static bool is_refused(struct node_join *j, const struct kube_node *node, const struct address *a)
{
	char text[ADDRESS_TEXT_LEN], refused[ADDRESS_TEXT_LEN + 4], path[300];
	for (uint32_t i = 0; i < j->c->n_refused; i++) {
		if (!prefix_contains(&j->c->refused[i], a))
			continue;
		snprintf(path, sizeof(path), "nodes/%s", node->object.name);
		if (j->notes->n_items < KUBE_NOTES_MAX)
			error_add(j->notes, EINVAL, path,
				"node %s is left out: %s is refused; allowed: an address outside",
				address_format(a, text), prefix_format(&j->c->refused[i], refused));
		else
			j->notes->n_lost++;
		return true;
	}
	return false;
}

// n: endpoints that stand behind it; 0: not counted.
static void add_node(struct node_join *j, const struct kube_node *node, uint32_t n, bool is_ready)
{
	const struct address *address = &node->addresses[!j->v4];
	struct service *s = j->s->service;
	if (!node->is_eligible || !node->has[!j->v4] || j->rc || is_refused(j, node, address))
		return;
	struct service_backend *backend = service_add_backend(s);
	if (backend == NULL) {
		j->rc = -ENOMEM;
		return;
	}
	uint64_t weight = kube_weight(j->s->weights, address, node->object.name, "");
	weight *= n ? n : 1;
	backend->address = *address;
	backend->weight = (uint32_t)(weight < SERVICE_WEIGHT_MAX ? weight : SERVICE_WEIGHT_MAX);
	backend->conditions = (struct service_conditions){ is_ready, true, !is_ready };
	snprintf(backend->target, sizeof(backend->target), "%s", node->object.name);
	snprintf(backend->uid, sizeof(backend->uid), "%s", node->uid);
	bool is_nat = s->mode == SERVICE_MODE_FULLNAT || s->mode == SERVICE_MODE_DNAT;
	for (uint32_t i = 0; i < s->n_listeners; i++) {
		struct service_backend_port *port = service_backend_add_port(backend);
		if (port == NULL) {
			j->rc = -ENOMEM;
			return;
		}
		memcpy(port->listener, s->listeners[i].name, sizeof(port->listener));
		port->port = is_nat ? j->s->extras.node_ports[i] : s->listeners[i].port;
	}
}

static void join_all(struct node_join *j)
{
	struct kube_node *node = kube_map_next(&j->c->nodes, NULL);
	for (; node; node = kube_map_next(&j->c->nodes, &node->object))
		add_node(j, node, 0, true);
}

// Only nodes with an endpoint of their own, in the proportion of these; one whose last ones end is the last resort.
static void join_local(struct node_join *j, const struct local *locals, uint32_t n)
{
	for (uint32_t i = 0, next; i < n; i = next) {
		uint32_t n_of[2] = { 0 };
		for (next = i; next < n && strcmp(locals[i].node, locals[next].node) == 0; next++) {
			const struct local *l = &locals[next];
			bool is_twice =
				next > i && address_equal(l->address, locals[next - 1].address);
			if (!is_twice && address_is_v4(l->address) == j->v4)
				n_of[l->rank]++;
		}
		const struct kube_node *node = kube_map_find(&j->c->nodes, "", locals[i].node);
		if (node && (n_of[0] || n_of[1]))
			add_node(j, node, n_of[0] ? n_of[0] : n_of[1], n_of[0] > 0);
	}
}

int kube_nodes_join(struct kube_cluster *c, const struct kube_owner *owner, struct kube_service *s,
	struct error *notes)
{
	bool has[2] = { false }; // a VIP of the family: [0] IPv4, [1] IPv6
	uint32_t n_locals = 0;
	struct local *locals = NULL;
	struct node_join j = { .c = c, .s = s, .notes = notes };
	for (uint32_t i = 0; i < s->service->n_addresses; i++)
		has[!address_is_v4(&s->service->addresses[i])] = true;
	if (s->extras.is_local) {
		locals = gather_locals(owner, &n_locals);
		if (locals == NULL)
			return -ENOMEM;
	}
	// First the families of the VIPs; nodes of the other one only where there are none.
	for (int is_vips = 1; is_vips >= 0 && s->service->n_backends == 0; is_vips--) {
		for (int family = 0; family < 2; family++) {
			j.v4 = family == 0;
			if (has[family] != is_vips)
				continue;
			if (locals)
				join_local(&j, locals, n_locals);
			else
				join_all(&j);
		}
	}
	free(locals);
	return j.rc;
}
