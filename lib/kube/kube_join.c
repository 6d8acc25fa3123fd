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
	bool is_far; // hints count, and its zone is another one
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

uint32_t kube_weight(const json_t *weights, const struct address *address, const char *target,
	const char *hostname)
{
	char text[ADDRESS_TEXT_LEN];
	if (weights == NULL)
		return SERVICE_WEIGHT_DEFAULT;
	const json_t *weight = json_object_get(weights, address_format(address, text));
	if (weight == NULL && target[0])
		weight = json_object_get(weights, target);
	if (weight == NULL && hostname[0])
		weight = json_object_get(weights, hostname);
	return weight ? (uint32_t)json_integer_value(weight) : SERVICE_WEIGHT_DEFAULT;
}

static const char *target_name(const struct kube_endpoint *e)
{
	return e->target[0] ? e->target : e->hostname;
}

// One (listener, address, port) from a candidate; backends from first_idx on are those of the address. false: out of memory.
static bool add_port(struct kube_service *s, uint32_t first_idx, const struct candidate *c,
	const char *listener, uint16_t port)
{
	const struct kube_endpoint *e = c->endpoint;
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
		backend->weight =
			c->is_far ? 0
				  : kube_weight(s->weights, &e->address, e->target, e->hostname);
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
			if (port && !add_port(s, first_idx, &candidates[i], listener->name, port))
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

// Slices and what is asked of their endpoints.
struct collection {
	const struct service *service;
	const struct kube_screen *screen; // may be NULL
	const struct kube_slice *slices;  // sorted
	uint32_t n_slices;
	uint32_t first; // slice of the service
	struct candidates found;
};

__attribute__((format(printf, 4, 5))) static bool leave_out(const struct kube_screen *screen,
	const struct kube_slice *slice, const struct kube_endpoint *e, const char *fmt, ...)
{
	char text[ADDRESS_TEXT_LEN], why[256], path[384];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(why, sizeof(why), fmt, ap);
	va_end(ap);
	snprintf(path, sizeof(path), "endpointslices/%s", slice->name);
	if (screen->notes->n_items < KUBE_NOTES_MAX)
		error_add(screen->notes, EINVAL, path, "endpoint %s is left out: %s",
			address_format(&e->address, text), why);
	else
		screen->notes->n_lost++;
	return false;
}

// reliability.md F10: an endpoint that must not be a backend is refused alone.
static bool screen_admits(
	const struct collection *c, const struct kube_slice *slice, const struct kube_endpoint *e)
{
	const struct kube_screen *screen = c->screen;
	char text[ADDRESS_TEXT_LEN + 4];
	if (screen->hostname && strcmp(screen->hostname, e->hostname))
		return false;
	if (address_is_unroutable(&e->address))
		return leave_out(screen, slice, e,
			"allowed: unicast address, not loopback, link-local or unspecified");
	for (uint32_t i = 0; i < c->service->n_addresses; i++)
		if (address_equal(&c->service->addresses[i], &e->address))
			return leave_out(screen, slice, e,
				"it is an address of the Service itself; allowed: another one");
	for (uint32_t i = 0; i < screen->n_refused; i++)
		if (prefix_contains(&screen->refused[i], &e->address))
			return leave_out(screen, slice, e,
				"%s is refused (of this machine, its management, or the API "
				"server); allowed: an address outside",
				prefix_format(&screen->refused[i], text));
	return true;
}

static bool collect(struct collection *c, const struct kube_slice *slice, bool is_family)
{
	struct candidates *out = &c->found;
	for (uint32_t i = 0; i < slice->n_endpoints; i++) {
		const struct kube_endpoint *endpoint = &slice->endpoints[i];
		if (has_family(c->service, &endpoint->address) != is_family)
			continue;
		if (c->screen && !screen_admits(c, slice, endpoint))
			continue;
		if (array_grow(out->items, out->n_items, out->cap))
			return false;
		out->items[out->n_items++] = (struct candidate){ slice, endpoint, false };
	}
	return true;
}

// kubernetes.md 3.5, of the endpoints of one family: candidates from first to last.
static void hints_apply(struct candidate *first, const struct candidate *last)
{
	bool all_hinted = true, some_near = false;
	for (const struct candidate *c = first; c < last; c++) {
		all_hinted =
			all_hinted && (!c->endpoint->conditions.ready || c->endpoint->has_hint);
		some_near = some_near || (c->endpoint->conditions.ready && c->endpoint->is_near);
	}
	for (struct candidate *c = first; all_hinted && some_near && c < last; c++)
		c->is_far = !c->endpoint->is_near;
}

// Each family for itself.
static void hints_obey(struct candidates *all)
{
	uint32_t n_v4 = 0;
	for (uint32_t i = 0; i < all->n_items; i++) {
		if (!address_is_v4(&all->items[i].endpoint->address))
			continue;
		struct candidate swap = all->items[n_v4];
		all->items[n_v4++] = all->items[i];
		all->items[i] = swap;
	}
	hints_apply(all->items, all->items + n_v4);
	hints_apply(all->items + n_v4, all->items + all->n_items);
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
static bool collect_all(struct collection *c)
{
	const struct service *s = c->service;
	bool good = true;
	for (int is_family = 1; good && is_family >= 0 && c->found.n_items == 0; is_family--) {
		for (uint32_t i = c->first; good && i < c->n_slices; i++) {
			if (slice_compare_owner(&c->slices[i], s->namespace, s->name))
				break;
			good = collect(c, &c->slices[i], is_family);
		}
	}
	return good;
}

void kube_join(struct kube_reader *r, struct kube_service *s, const struct kube_slice *slices,
	uint32_t n_slices)
{
	struct collection c = { .service = s->service,
		.screen = r->screen,
		.slices = slices,
		.n_slices = n_slices,
		.first = first_slice(s->service, slices, n_slices) };
	bool good = collect_all(&c);
	struct candidates all = c.found;
	if (r->screen && r->screen->obeys_hints && all.n_items)
		hints_obey(&all);
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
