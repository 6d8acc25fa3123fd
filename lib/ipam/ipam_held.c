// SPDX-License-Identifier: BSD-3-Clause
// Held addresses: who holds them, under which key, and which of their ports are taken.
#include "ipam_priv.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

int ipam_order_address(const void *a, const void *b)
{
	const struct held *x = a, *y = b;
	return address_compare(&x->address, &y->address);
}

// By keys first, then pool and family, then address: an index of those that could be shared.
int ipam_order_shared(const void *a, const void *b)
{
	const struct held *x = a, *y = b;
	int order = strcmp(x->sharing_key, y->sharing_key);
	if (order == 0)
		order = strcmp(x->backend_key, y->backend_key);
	if (order == 0 && x->home != y->home)
		order = x->home < y->home ? -1 : 1;
	if (order == 0)
		order = (int)ipam_family_of(&x->address) - (int)ipam_family_of(&y->address);
	return order ? order : address_compare(&x->address, &y->address);
}

struct held *ipam_held_find(const struct ipam *ipam, const struct address *a)
{
	struct held key = { .address = *a };
	return ipam_set_find(&ipam->addresses, &key);
}

// Index of the first use that ends at or behind the port.
static uint32_t use_lower(const struct held *held, const struct ipam_port *port)
{
	uint32_t low = 0, high = held->n_uses;
	while (low < high) {
		uint32_t middle = low + (high - low) / 2;
		const struct ipam_port *at = &held->uses[middle].port;
		if (at->protocol < port->protocol ||
			(at->protocol == port->protocol && at->last < port->first))
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static const struct request *find_port(const struct held *held, const struct ipam_port *port)
{
	uint32_t idx = use_lower(held, port);
	if (idx == held->n_uses)
		return NULL;
	const struct ipam_use *use = &held->uses[idx];
	bool overlaps = use->port.protocol == port->protocol && use->port.first <= port->last;
	return overlaps ? use->owner : NULL;
}

bool ipam_held_fits(
	const struct held *held, const struct request *r, const struct request **out_other)
{
	const struct request *other = held->holders[0];
	bool fits = held->sharing_key[0] && strcmp(held->sharing_key, r->value.sharing_key) == 0 &&
		    strcmp(held->backend_key, r->value.backend_key) == 0;
	for (uint32_t i = 0; fits && i < r->value.n_ports; i++) {
		const struct request *owner = find_port(held, &r->value.ports[i]);
		if (owner) {
			other = owner;
			fits = false;
		}
	}
	if (out_other)
		*out_other = other;
	return fits;
}

static void held_destroy(struct held *held)
{
	free(held->sharing_key);
	free(held->backend_key);
	free(held->uses);
	free(held->holders);
	free(held);
}

// A new address with nobody on it yet.
static struct held *held_create(struct ipam *ipam, const struct request *r, const struct address *a)
{
	struct held *held = calloc(1, sizeof(*held));
	if (held == NULL)
		return NULL;
	*held = (struct held){ .address = *a,
		.home = ipam_home_of(&ipam->pools, a),
		.sharing_key = strdup(r->value.sharing_key),
		.backend_key = strdup(r->value.backend_key) };
	if (held->sharing_key == NULL || held->backend_key == NULL ||
		ipam_set_insert(&ipam->addresses, held) != 0) {
		held_destroy(held);
		return NULL;
	}
	if ((held->sharing_key[0] && ipam_set_insert(&ipam->shared, held) != 0) ||
		ipam_pools_take(&ipam->pools, a) != 0) {
		ipam_set_remove(&ipam->shared, held);
		ipam_set_remove(&ipam->addresses, held);
		held_destroy(held);
		return NULL;
	}
	return held;
}

static void held_remove(struct ipam *ipam, struct held *held)
{
	ipam_pools_give(&ipam->pools, &held->address);
	if (held->sharing_key[0])
		ipam_set_remove(&ipam->shared, held);
	ipam_set_remove(&ipam->addresses, held);
	held_destroy(held);
}

// Room for the request's ports and itself; afterwards adding cannot fail.
static int held_reserve(struct held *held, uint32_t n_ports)
{
	if (array_grow(held->holders, held->n_holders, held->cap_holders) != 0)
		return -ENOMEM;
	while (held->n_uses + n_ports > held->cap_uses)
		if (array_grow(held->uses, held->cap_uses, held->cap_uses) != 0)
			return -ENOMEM;
	return 0;
}

int ipam_hold(struct ipam *ipam, struct request *r, const struct address *a)
{
	enum ipam_family family = ipam_family_of(a);
	struct held *held = ipam_held_find(ipam, a);
	assert(r->held[family] == NULL && (held == NULL || ipam_held_fits(held, r, NULL)));
	if (held == NULL)
		held = held_create(ipam, r, a);
	if (held == NULL)
		return -ENOMEM;
	if (held_reserve(held, r->value.n_ports) != 0) {
		if (held->n_holders == 0)
			held_remove(ipam, held);
		return -ENOMEM;
	}
	for (uint32_t i = 0; i < r->value.n_ports; i++) {
		uint32_t idx = use_lower(held, &r->value.ports[i]);
		memmove(held->uses + idx + 1, held->uses + idx,
			(held->n_uses - idx) * sizeof(*held->uses));
		held->uses[idx] = (struct ipam_use){ r->value.ports[i], r };
		held->n_uses++;
	}
	held->holders[held->n_holders++] = r;
	r->held[family] = held;
	r->held_form = r->form;
	r->is_news = true;
	return 0;
}

void ipam_release(struct ipam *ipam, struct request *r, enum ipam_family family)
{
	struct held *held = r->held[family];
	r->held[family] = NULL;
	if (held == NULL)
		return;
	r->is_news = true;
	uint32_t n = 0;
	for (uint32_t i = 0; i < held->n_uses; i++)
		if (held->uses[i].owner != r)
			held->uses[n++] = held->uses[i];
	held->n_uses = n;
	n = 0;
	for (uint32_t i = 0; i < held->n_holders; i++)
		if (held->holders[i] != r)
			held->holders[n++] = held->holders[i];
	held->n_holders = n;
	if (n == 0)
		held_remove(ipam, held);
}

bool ipam_shared_lowest(const struct ipam *ipam, const struct request *r, uint32_t home,
	enum ipam_family family, struct address *out)
{
	if (r->value.sharing_key[0] == '\0')
		return false;
	struct held key = { .home = home,
		.sharing_key = (char *)(uintptr_t)r->value.sharing_key,
		.backend_key = (char *)(uintptr_t)r->value.backend_key };
	if (family == IPAM_V4)
		key.address = address_from_v4(0);
	uint32_t idx = ipam_set_lower(&ipam->shared, &key);
	for (uint32_t n = 0; n < IPAM_SHARED_TRIED && idx < ipam->shared.n_items; n++, idx++) {
		const struct held *held = ipam->shared.items[idx];
		if (held->home != home || ipam_family_of(&held->address) != family ||
			strcmp(held->sharing_key, key.sharing_key) != 0 ||
			strcmp(held->backend_key, key.backend_key) != 0)
			return false;
		if (ipam_held_fits(held, r, NULL)) {
			*out = held->address;
			return true;
		}
	}
	return false;
}
