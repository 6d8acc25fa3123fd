// SPDX-License-Identifier: BSD-3-Clause
// Slices to backends of a service (kubernetes.md 3.3).
//
// A backend is an address. It may stand in several slices while it moves, or when an address is taken over by a new pod while
// the old one still ends; the order below makes every node choose the same one. Its ports are those of the chosen slice, and
// those that other slices add for the same address in the same condition.
#include "kube_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct candidate {
	const struct kube_slice *slice;
	const struct kube_endpoint *endpoint;
};

static int slice_compare_owner(
	const struct kube_slice *slice, const char *namespace, const char *name)
{
	int order = strcmp(slice->namespace, namespace);
	return order ? order : strcmp(slice->service, name);
}

static int slice_compare(const void *a, const void *b)
{
	const struct kube_slice *x = a, *y = b;
	int order = slice_compare_owner(x, y->namespace, y->service);
	return order ? order : (x->item_idx > y->item_idx) - (x->item_idx < y->item_idx);
}

void kube_slices_sort(struct kube_slice *slices, uint32_t n)
{
	if (n)
		qsort(slices, n, sizeof(*slices), slice_compare);
}

// By address; within one the preferred first: not terminating, ready, newer slice, slice name.
static int candidate_compare(const void *a, const void *b)
{
	const struct candidate *x = a, *y = b;
	const struct service_conditions *p = &x->endpoint->conditions;
	const struct service_conditions *q = &y->endpoint->conditions;
	int order = address_compare(&x->endpoint->address, &y->endpoint->address);
	if (order)
		return order;
	if (p->terminating != q->terminating)
		return p->terminating ? 1 : -1;
	if (p->ready != q->ready)
		return p->ready ? -1 : 1;
	if (x->slice->resource_version != y->slice->resource_version)
		return x->slice->resource_version > y->slice->resource_version ? -1 : 1;
	order = strcmp(x->slice->name, y->slice->name);
	if (order)
		return order;
	return (x->endpoint > y->endpoint) - (x->endpoint < y->endpoint); // of one slice: the first
}

static bool conditions_equal(const struct service_conditions *a, const struct service_conditions *b)
{
	return a->ready == b->ready && a->serving == b->serving && a->terminating == b->terminating;
}

static bool backend_has(const struct service_backend *b, const char *listener)
{
	for (uint32_t i = 0; i < b->n_ports; i++)
		if (strcmp(b->ports[i].listener, listener) == 0)
			return true;
	return false;
}

// Ports of the slice that a listener of the same name and protocol asks for. false: out of memory.
static bool add_ports(
	const struct service *s, const struct kube_slice *slice, struct service_backend *backend)
{
	for (uint32_t i = 0; i < s->n_listeners; i++) {
		const struct service_listener *listener = &s->listeners[i];
		if (backend_has(backend, listener->name))
			continue;
		for (uint32_t j = 0; j < slice->n_ports; j++) {
			const struct kube_slice_port *port = &slice->ports[j];
			if (port->protocol != listener->protocol ||
				strcmp(port->name, listener->name))
				continue;
			struct service_backend_port *slot = service_backend_add_port(backend);
			if (slot == NULL)
				return false;
			snprintf(slot->listener, sizeof(slot->listener), "%s", listener->name);
			slot->port = port->port;
			break;
		}
	}
	return true;
}

static bool slice_serves(const struct service *s, const struct kube_slice *slice)
{
	for (uint32_t i = 0; i < s->n_listeners; i++)
		for (uint32_t j = 0; j < slice->n_ports; j++)
			if (slice->ports[j].protocol == s->listeners[i].protocol &&
				strcmp(slice->ports[j].name, s->listeners[i].name) == 0)
				return true;
	return false;
}

static uint32_t weight_of(const json_t *weights, const struct kube_endpoint *e)
{
	char text[ADDRESS_TEXT_LEN];
	const json_t *weight = json_object_get(weights, address_format(&e->address, text));
	if (weight == NULL && e->target[0])
		weight = json_object_get(weights, e->target);
	if (weight == NULL && e->hostname[0])
		weight = json_object_get(weights, e->hostname);
	return weight ? (uint32_t)json_integer_value(weight) : SERVICE_WEIGHT_DEFAULT;
}

// n candidates of one address, preferred first.
static bool add_backend(struct kube_service *s, const struct candidate *candidates, uint32_t n)
{
	const struct kube_endpoint *best = candidates[0].endpoint;
	struct service_backend *backend = service_add_backend(s->service);
	if (backend == NULL)
		return false;
	backend->address = best->address;
	backend->conditions = best->conditions;
	backend->weight = weight_of(s->weights, best);
	snprintf(backend->target, sizeof(backend->target), "%s",
		best->target[0] ? best->target : best->hostname);
	snprintf(backend->uid, sizeof(backend->uid), "%s", best->uid);
	for (uint32_t i = 0; i < n; i++)
		if (conditions_equal(&best->conditions, &candidates[i].endpoint->conditions) &&
			!add_ports(s->service, candidates[i].slice, backend))
			return false;
	return true;
}

// No translation between families: an endpoint without a VIP of its family has nothing to serve.
static bool has_family(const struct service *s, const struct address *address)
{
	for (uint32_t i = 0; i < s->n_addresses; i++)
		if (address_is_v4(&s->addresses[i]) == address_is_v4(address))
			return true;
	return false;
}

struct candidates {
	struct candidate *items;
	uint32_t n_items;
	uint32_t cap;
};

static bool collect(const struct service *s, const struct kube_slice *slice, struct candidates *out)
{
	for (uint32_t i = 0; slice_serves(s, slice) && i < slice->n_endpoints; i++) {
		const struct kube_endpoint *endpoint = &slice->endpoints[i];
		if (!has_family(s, &endpoint->address))
			continue;
		if (array_grow(out->items, out->n_items, out->cap))
			return false;
		out->items[out->n_items++] = (struct candidate){ slice, endpoint };
	}
	return true;
}

// First slice of the service in sorted slices, or n.
static uint32_t first_slice(const struct service *s, const struct kube_slice *slices, uint32_t n)
{
	uint32_t low = 0, high = n;
	while (low < high) {
		uint32_t middle = low + (high - low) / 2;
		if (slice_compare_owner(&slices[middle], s->namespace, s->name) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

void kube_join(struct kube_reader *r, struct kube_service *s, const struct kube_slice *slices,
	uint32_t n_slices)
{
	struct candidates all = { 0 };
	bool good = true;
	uint32_t n_backends = 0;
	for (uint32_t i = first_slice(s->service, slices, n_slices); good && i < n_slices; i++) {
		if (slice_compare_owner(&slices[i], s->service->namespace, s->service->name))
			break;
		good = collect(s->service, &slices[i], &all);
	}
	if (all.n_items)
		qsort(all.items, all.n_items, sizeof(*all.items), candidate_compare);
	for (uint32_t i = 0, next; good && i < all.n_items; i = next) {
		const struct address *address = &all.items[i].endpoint->address;
		for (next = i + 1; next < all.n_items; next++)
			if (!address_equal(address, &all.items[next].endpoint->address))
				break;
		if (++n_backends > SERVICE_BACKENDS_MAX) {
			kube_refuse(r, "more than %d endpoints; allowed: at most %d",
				SERVICE_BACKENDS_MAX, SERVICE_BACKENDS_MAX);
			break;
		}
		good = add_backend(s, &all.items[i], next - i);
	}
	if (!good)
		kube_refuse(r, "out of memory");
	free(all.items);
}
