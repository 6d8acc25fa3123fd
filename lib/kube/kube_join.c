// SPDX-License-Identifier: BSD-3-Clause
// Slices to backends of a service (kubernetes.md 3.3).
//
// What counts once is (listener, address, port). It may stand in several slices while it moves, or when an address is taken
// over by a new pod while the old one still ends; the order below makes every node choose the same one. What is left of one
// address with one target in one condition is one backend; different targets behind one address are several.
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

static const char *target_name(const struct kube_endpoint *e)
{
	return e->target[0] ? e->target : e->hostname;
}

// One (listener, address, port) from a candidate; backends from first_idx on are those of the address. false: out of memory.
static bool add_port(struct kube_service *s, uint32_t first_idx, const struct kube_endpoint *e,
	const char *listener, uint16_t port)
{
	struct service_backend *backend = NULL;
	for (uint32_t i = first_idx; i < s->service->n_backends; i++) {
		struct service_backend *b = &s->service->backends[i];
		uint16_t taken = service_backend_find_port(b, listener);
		if (taken == port)
			return true; // of a preferred candidate
		if (taken == 0 && conditions_equal(&b->conditions, &e->conditions) &&
			strncmp(b->target, target_name(e), sizeof(b->target) - 1) == 0 &&
			strcmp(b->uid, e->uid) == 0)
			backend = b;
	}
	if (backend == NULL) {
		backend = service_add_backend(s->service);
		if (backend == NULL)
			return false;
		backend->address = e->address;
		backend->conditions = e->conditions;
		backend->weight = weight_of(s->weights, e);
		snprintf(backend->target, sizeof(backend->target), "%s", target_name(e));
		snprintf(backend->uid, sizeof(backend->uid), "%s", e->uid);
	}
	struct service_backend_port *slot = service_backend_add_port(backend);
	if (slot == NULL)
		return false;
	snprintf(slot->listener, sizeof(slot->listener), "%s", listener);
	slot->port = port;
	return true;
}

// The port of a slice that a listener asks for, by name and protocol; 0: none.
static uint16_t find_port(const struct kube_slice *slice, const struct service_listener *listener)
{
	for (uint32_t i = 0; i < slice->n_ports; i++)
		if (slice->ports[i].protocol == listener->protocol &&
			strcmp(slice->ports[i].name, listener->name) == 0)
			return slice->ports[i].port;
	return 0;
}

// n candidates of one address, preferred first. false: out of memory.
static bool add_address(struct kube_service *s, const struct candidate *candidates, uint32_t n)
{
	uint32_t first_idx = s->service->n_backends;
	for (uint32_t i = 0; i < n; i++) {
		for (uint32_t l = 0; l < s->service->n_listeners; l++) {
			const struct service_listener *listener = &s->service->listeners[l];
			uint16_t port = find_port(candidates[i].slice, listener);
			if (port && !add_port(s, first_idx, candidates[i].endpoint, listener->name,
					    port))
				return false;
		}
	}
	return true;
}

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

static bool collect(const struct service *s, const struct kube_slice *slice, bool is_family,
	struct candidates *out)
{
	for (uint32_t i = 0; i < slice->n_endpoints; i++) {
		const struct kube_endpoint *endpoint = &slice->endpoints[i];
		if (has_family(s, &endpoint->address) != is_family)
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

// Endpoints of a family in which the service has a VIP, or else those of the other one. Whether they can serve is for the
// mode to say, and for the operator to see.
static bool collect_all(const struct service *s, const struct kube_slice *slices, uint32_t n_slices,
	struct candidates *out)
{
	bool good = true;
	uint32_t first = first_slice(s, slices, n_slices);
	for (int is_family = 1; good && is_family >= 0 && out->n_items == 0; is_family--) {
		for (uint32_t i = first; good && i < n_slices; i++) {
			if (slice_compare_owner(&slices[i], s->namespace, s->name))
				break;
			good = collect(s, &slices[i], is_family, out);
		}
	}
	return good;
}

void kube_join(struct kube_reader *r, struct kube_service *s, const struct kube_slice *slices,
	uint32_t n_slices)
{
	struct candidates all = { 0 };
	bool good = collect_all(s->service, slices, n_slices, &all);
	if (all.n_items)
		qsort(all.items, all.n_items, sizeof(*all.items), candidate_compare);
	for (uint32_t i = 0, next; good && i < all.n_items; i = next) {
		const struct address *address = &all.items[i].endpoint->address;
		for (next = i + 1; next < all.n_items; next++)
			if (!address_equal(address, &all.items[next].endpoint->address))
				break;
		good = add_address(s, &all.items[i], next - i);
		if (s->service->n_backends > SERVICE_BACKENDS_MAX)
			break; // service_validate says so
	}
	if (!good)
		kube_refuse(r, "out of memory");
	free(all.items);
}
