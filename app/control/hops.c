// SPDX-License-Identifier: BSD-3-Clause
// Ways out: the kernel's routes and neighbours become next-hop entries and a FIB.
//
// An entry is (port, neighbour address); its index is what flows hold. It is made for gateways of routes and backends on
// a link at once, for clients on a link when a worker asks (control_hops_wanted) or the kernel learns their MAC. A new MAC is one
// atomic store, no publication. Life of an index:
//
//   FREE ─made─► LIVE ─not needed─► RESTING ─two sweeps of every worker─► FREE (end of the line)
//                  ▲──asked for again──┘
//
// A FIB holds the kernel's routes and one host route for each entry whose address is on a link by those routes: gateways
// and backends always (their MAC may come later), clients once they have had a MAC. So a scan of absent addresses
// makes no FIB. An entry that no flow can hold (it never was in a FIB) is free at once.
//
// Cost: a FIB is built in O(routes + entries); the tick looks at all entries once a second.
#include "control_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define HOPS_DEFAULT 16384
#define CLIENT_LIFE_NS \
	(30 * 60 * CLOCK_S) // then a worker must ask again, which it does when a flow needs it
#define CLIENT_FAILED_NS    (10 * CLOCK_S)
#define RESOLVE_INTERVAL_NS CLOCK_S
#define BEHIND_NS \
	(10 * CLOCK_S) // entries that no backend needs any more are found out in this time

int control_hops_init(struct control *c)
{
	uint32_t n = c->config.nexthop_capacity != 0 ? c->config.nexthop_capacity : HOPS_DEFAULT;
	if (n > NEXTHOP_MAX)
		n = NEXTHOP_MAX;
	uint32_t n_chains = 1;
	while (n_chains < n)
		n_chains *= 2;
	struct nexthop_entry *entries = aligned_alloc(64, (n * sizeof(*entries) + 63) / 64 * 64);
	c->hops = calloc(n, sizeof(*c->hops));
	c->hop_chains = malloc(n_chains * sizeof(*c->hop_chains));
	c->hops_table = (struct nexthop_table){ entries, n };
	c->kernel_fib = nexthop_fib_create(NULL, 0, 0);
	if (entries == NULL || c->hops == NULL || c->hop_chains == NULL || c->kernel_fib == NULL)
		return -ENOMEM;
	memset(entries, 0, n * sizeof(*entries));
	c->n_hops = n;
	c->hop_chain_mask = n_chains - 1;
	for (uint32_t i = 0; i < n_chains; i++)
		c->hop_chains[i] = CONTROL_NONE;
	for (uint32_t i = 0; i < n; i++)
		c->hops[i].next = i + 1 < n ? i + 1 : CONTROL_NONE;
	c->free_hop_first = 0;
	c->free_hop_last = n - 1;
	return 0;
}

void control_hops_end(struct control *c)
{
	if (c->kernel_fib != NULL)
		nexthop_fib_destroy(c->kernel_fib);
	free(c->hops_table.entries);
	free(c->hops);
	free(c->hop_chains);
	free(c->routes);
}

struct nexthop_table control_nexthop_table(struct control *c)
{
	return c->hops_table;
}

static enum nexthop_state hop_state(const struct control *c, uint32_t idx)
{
	return nexthop_word_state(nexthop_load(&c->hops_table, (uint16_t)idx));
}

static void hop_store(
	struct control *c, uint32_t idx, const struct mac *mac, enum nexthop_state state)
{
	static const struct mac none;
	nexthop_store(&c->hops_table, (uint16_t)idx, mac != NULL ? mac : &none,
		c->hops[idx].port_idx, state);
}

static uint32_t *hop_chain(const struct control *c, uint8_t port_idx, const struct address *address)
{
	uint64_t h = hash_stable(address, sizeof(*address), port_idx);
	return &c->hop_chains[h & c->hop_chain_mask];
}

// A live or resting entry, or CONTROL_NONE.
static uint32_t hop_find(const struct control *c, uint8_t port_idx, const struct address *address)
{
	uint32_t idx = *hop_chain(c, port_idx, address);
	while (idx != CONTROL_NONE &&
		(c->hops[idx].port_idx != port_idx ||
			!address_equal(&c->hops_table.entries[idx].address, address)))
		idx = c->hops[idx].next;
	return idx;
}

static uint16_t port_mtu(const struct control *c, uint8_t port_idx)
{
	if (c->device == NULL || port_idx >= device_n_ports(c->device))
		return 1500;
	return device_port(c->device, port_idx)->mtu;
}

static void hop_resolve(struct control *c, uint32_t idx)
{
	c->hops[idx].asked_ns = control_now_ns(c);
	if (c->hop_hooks.resolve == NULL)
		return;
	// Whoever is asked may know the neighbour, and tell at once. The caller publishes when all entries are made.
	bool was_held = c->is_held;
	c->is_held = true;
	c->hop_hooks.resolve(
		c->hop_arg, c->hops[idx].port_idx, &c->hops_table.entries[idx].address);
	c->is_held = was_held;
}

// CONTROL_NONE: no index is free.
static uint32_t hop_make(struct control *c, uint8_t port_idx, const struct address *address)
{
	uint32_t idx = c->free_hop_first;
	if (idx == CONTROL_NONE)
		return CONTROL_NONE;
	c->free_hop_first = c->hops[idx].next;
	if (c->free_hop_first == CONTROL_NONE)
		c->free_hop_last = CONTROL_NONE;
	c->hops[idx] = (struct control_hop){
		.life = CONTROL_HOP_LIVE, .port_idx = port_idx, .wanted_ns = control_now_ns(c)
	};
	c->hops_table.entries[idx].address = *address;
	c->hops_table.entries[idx].mtu = port_mtu(c, port_idx);
	hop_store(c, idx, NULL, NEXTHOP_INCOMPLETE);
	uint32_t *chain = hop_chain(c, port_idx, address);
	c->hops[idx].next = *chain;
	*chain = idx;
	c->n_live_hops++;
	return idx;
}

static void hop_free(struct control *c, uint32_t idx)
{
	struct control_hop *h = &c->hops[idx];
	uint32_t *link = hop_chain(c, h->port_idx, &c->hops_table.entries[idx].address);
	while (*link != idx)
		link = &c->hops[*link].next;
	*link = h->next;
	hop_store(c, idx, NULL, NEXTHOP_UNUSED);
	*h = (struct control_hop){ .next = CONTROL_NONE };
	if (c->free_hop_last != CONTROL_NONE)
		c->hops[c->free_hop_last].next = idx;
	else
		c->free_hop_first = idx;
	c->free_hop_last = idx;
	c->n_live_hops--;
}

// Back to life: the index means the same neighbour again.
static void hop_revive(struct control *c, uint32_t idx)
{
	struct control_hop *h = &c->hops[idx];
	if (h->life != CONTROL_HOP_RESTING)
		return;
	h->life = CONTROL_HOP_LIVE;
	h->failed_ns = 0;
	c->work |= CONTROL_WORK_FIB;
}

static void hop_rest(struct control *c, uint32_t idx)
{
	struct control_hop *h = &c->hops[idx];
	if (!h->in_fib) {
		hop_free(c, idx);
		return;
	}
	h->life = CONTROL_HOP_RESTING;
	h->wanted_ns = control_now_ns(c);
	h->sweeps = c->dp != NULL ? dataplane_sweeps(c->dp) : 0;
}

static bool has_gateway(const struct control_route *r)
{
	return r->port_idx != CONTROL_ROUTE_NOWHERE && !address_is_unspecified(&r->gateway);
}

// Is the address a neighbour on this port, by the kernel's routes?
static bool is_on_link(const struct control *c, const struct address *address, uint8_t *out_port)
{
	struct nexthop_answer a = nexthop_find(c->kernel_fib, address);
	if (a.nexthop != NEXTHOP_MISSING)
		return false;
	*out_port = a.port_idx;
	return true;
}

bool control_is_on_link(void *arg, const struct address *address)
{
	uint8_t port_idx;
	return is_on_link(arg, address, &port_idx);
}

// ---------------------------------------------------------------- gateways and backends
static void hop_need(
	struct control *c, uint8_t port_idx, const struct address *address, uint8_t use)
{
	uint32_t idx = hop_find(c, port_idx, address);
	bool is_new = idx == CONTROL_NONE;
	if (is_new)
		idx = hop_make(c, port_idx, address);
	if (idx == CONTROL_NONE) {
		c->is_hop_missed = true; // full of clients: the tick makes room and comes back
		return;
	}
	hop_revive(c, idx);
	c->hops[idx].use |= use;
	c->hops[idx].marked = true;
	if (!c->hops[idx].in_fib)
		c->work |= CONTROL_WORK_FIB;
	if (is_new)
		hop_resolve(c, idx);
}

static void need_backends(struct control *c, const struct service *s)
{
	for (uint32_t k = 0; k < s->n_backends; k++) {
		uint8_t port_idx;
		if (is_on_link(c, &s->backends[k].address, &port_idx))
			hop_need(c, port_idx, &s->backends[k].address, CONTROL_HOP_BACKEND);
	}
}

void control_hops_follow(struct control *c)
{
	for (uint32_t i = 0; i < service_store_count(c->store); i++) {
		const struct service *s = service_store_at(c->store, i);
		if (s->generation > c->followed_generation)
			need_backends(c, s);
	}
	c->is_hop_behind = true;
}

void control_hops_reconcile(struct control *c)
{
	c->is_hop_behind = false;
	c->hops_reconciled_ns = control_now_ns(c);
	for (uint32_t i = 0; i < c->n_hops; i++) {
		c->hops[i].marked = false;
		c->hops[i].use &= CONTROL_HOP_CLIENT;
	}
	for (uint32_t i = 0; i < c->n_routes; i++) {
		if (has_gateway(&c->routes[i]))
			hop_need(c, c->routes[i].port_idx, &c->routes[i].gateway,
				CONTROL_HOP_GATEWAY);
	}
	for (uint32_t i = 0; i < service_store_count(c->store); i++)
		need_backends(c, service_store_at(c->store, i));
	for (uint32_t i = 0; i < c->n_hops; i++) {
		struct control_hop *h = &c->hops[i];
		if (h->life != CONTROL_HOP_LIVE || h->use != 0)
			continue;
		h->use = CONTROL_HOP_CLIENT; // live flows may need it still
		h->wanted_ns = control_now_ns(c);
	}
}

static void rebuild_kernel_fib(struct control *c)
{
	struct nexthop_route *routes = calloc(c->n_routes + 1, sizeof(*routes));
	if (routes == NULL)
		return;
	for (uint32_t i = 0; i < c->n_routes; i++)
		routes[i] = (struct nexthop_route){
			.prefix = c->routes[i].prefix,
			.nexthop = c->routes[i].port_idx == CONTROL_ROUTE_NOWHERE ? NEXTHOP_NONE
				   : has_gateway(&c->routes[i])                   ? 0
										  : NEXTHOP_MISSING,
			.port_idx = c->routes[i].port_idx,
			.metric = c->routes[i].metric,
		};
	struct nexthop_fib *fib = nexthop_fib_create(routes, c->n_routes, 0);
	free(routes);
	if (fib == NULL)
		return; // the former answers on; the next message of the kernel tries again
	nexthop_fib_destroy(c->kernel_fib);
	c->kernel_fib = fib;
}

// Do services depend on which backends are neighbours?
static bool links_matter(const struct control *c)
{
	for (uint32_t i = 0; i < service_store_count(c->store); i++) {
		if (service_store_at(c->store, i)->mode == SERVICE_MODE_L2DSR)
			return true;
	}
	return false;
}

void control_set_routes(struct control *c, const struct control_route *routes, uint32_t n)
{
	if (n == c->n_routes && (n == 0 || memcmp(routes, c->routes, n * sizeof(*routes)) == 0))
		return;
	struct control_route *copy = calloc(n + 1, sizeof(*copy));
	if (copy == NULL) {
		control_note(c, LOG_LEVEL_ERROR, "routes-refused", "", "out of memory");
		return;
	}
	if (n > 0)
		memcpy(copy, routes, n * sizeof(*copy));
	free(c->routes);
	c->routes = copy;
	c->n_routes = n;
	rebuild_kernel_fib(c);
	control_hops_reconcile(c);
	control_change_noted(c, CONTROL_WORK_FIB | (links_matter(c) ? CONTROL_WORK_BUILD : 0u));
}

// ---------------------------------------------------------------- FIB
// A host route for entry idx?
static bool has_host_route(const struct control *c, uint32_t idx)
{
	const struct control_hop *h = &c->hops[idx];
	uint8_t port_idx;
	if (h->life != CONTROL_HOP_LIVE)
		return false;
	if (!(h->use & (CONTROL_HOP_GATEWAY | CONTROL_HOP_BACKEND)) && !h->in_fib &&
		hop_state(c, idx) != NEXTHOP_VALID)
		return false;
	return is_on_link(c, &c->hops_table.entries[idx].address, &port_idx) &&
	       port_idx == h->port_idx;
}

struct nexthop_fib *control_hops_fib(struct control *c)
{
	struct nexthop_route *routes = calloc(c->n_routes + c->n_live_hops + 1, sizeof(*routes));
	uint32_t n = 0;
	if (routes == NULL)
		return NULL;
	for (uint32_t i = 0; i < c->n_routes; i++) {
		const struct control_route *r = &c->routes[i];
		uint32_t idx = NEXTHOP_MISSING;
		if (has_gateway(r))
			idx = hop_find(c, r->port_idx, &r->gateway);
		else if (r->port_idx == CONTROL_ROUTE_NOWHERE)
			idx = NEXTHOP_NONE;
		if (idx == CONTROL_NONE)
			continue; // no room for its gateway: no way out there
		if (idx < c->n_hops)
			c->hops[idx].in_fib = true;
		routes[n++] = (struct nexthop_route){ r->prefix, (uint16_t)idx, r->port_idx, 0,
			r->metric };
	}
	for (uint32_t i = 0; i < c->n_hops; i++) {
		const struct address *address = &c->hops_table.entries[i].address;
		if (!has_host_route(c, i))
			continue;
		c->hops[i].in_fib = true;
		routes[n++] = (struct nexthop_route){
			.prefix = { *address, address_is_v4(address) ? 32 : 128 },
			.nexthop = (uint16_t)i,
			.port_idx = c->hops[i].port_idx,
		};
	}
	struct nexthop_fib *fib = nexthop_fib_create(routes, n, ++c->fib_generation);
	free(routes);
	return fib;
}

// ---------------------------------------------------------------- neighbours
static void note_hop(struct control *c, uint32_t idx, enum nexthop_state state)
{
	char text[ADDRESS_TEXT_LEN];
	if (!(c->hops[idx].use & (CONTROL_HOP_GATEWAY | CONTROL_HOP_BACKEND)))
		return;
	address_format(&c->hops_table.entries[idx].address, text);
	if (state == NEXTHOP_FAILED)
		control_note(c, LOG_LEVEL_WARN, "neighbour-failed", text,
			"no answer to ARP or ND on port %u", c->hops[idx].port_idx);
	else
		control_note(c, LOG_LEVEL_INFO, "neighbour-back", text, "answers again on port %u",
			c->hops[idx].port_idx);
}

static void neighbour_valid(struct control *c, uint32_t idx, const struct mac *mac)
{
	struct control_hop *h = &c->hops[idx];
	if (h->failed_ns != 0)
		note_hop(c, idx, NEXTHOP_VALID);
	h->failed_ns = 0;
	if (nexthop_load(&c->hops_table, (uint16_t)idx) !=
		nexthop_word(mac, h->port_idx, NEXTHOP_VALID))
		hop_store(c, idx, mac, NEXTHOP_VALID);
	if (h->life == CONTROL_HOP_LIVE && !h->in_fib)
		control_change_noted(c, CONTROL_WORK_FIB);
}

static void neighbour_failed(struct control *c, uint32_t idx)
{
	struct control_hop *h = &c->hops[idx];
	if (h->failed_ns != 0)
		return;
	h->failed_ns = control_now_ns(c);
	hop_store(c, idx, NULL, NEXTHOP_FAILED);
	note_hop(c, idx, NEXTHOP_FAILED);
}

// A MAC that the kernel learnt of itself (a client asked for a VIP): ready before its first packet, while there is room.
static uint32_t learn_neighbour(struct control *c, uint8_t port_idx, const struct address *address)
{
	uint8_t on_port;
	if (c->n_live_hops > c->n_hops / 2 || address_is_unroutable(address) ||
		!is_on_link(c, address, &on_port) || on_port != port_idx)
		return CONTROL_NONE;
	uint32_t idx = hop_make(c, port_idx, address);
	if (idx != CONTROL_NONE)
		c->hops[idx].use = CONTROL_HOP_CLIENT;
	return idx;
}

void control_set_neighbour(struct control *c, uint8_t port_idx, const struct address *address,
	const struct mac *mac, enum nexthop_state state)
{
	uint32_t idx = hop_find(c, port_idx, address);
	if (idx == CONTROL_NONE && state == NEXTHOP_VALID)
		idx = learn_neighbour(c, port_idx, address);
	if (idx == CONTROL_NONE)
		return;
	if (state == NEXTHOP_VALID)
		neighbour_valid(c, idx, mac);
	else if (state == NEXTHOP_FAILED)
		neighbour_failed(c, idx);
	// INCOMPLETE and UNUSED change nothing: the last MAC stays in force until the kernel gives up.
}

// ---------------------------------------------------------------- asked for by workers
static void want_hop(struct control *c, const struct dataplane_wanted *w)
{
	uint8_t port_idx;
	if (!is_on_link(c, &w->address, &port_idx) || port_idx != w->port_idx)
		return;
	uint32_t idx = hop_find(c, w->port_idx, &w->address);
	bool is_new = idx == CONTROL_NONE;
	if (is_new)
		idx = hop_make(c, w->port_idx, &w->address);
	if (idx == CONTROL_NONE)
		return;
	struct control_hop *h = &c->hops[idx];
	uint64_t now = control_now_ns(c);
	h->use |= CONTROL_HOP_CLIENT;
	hop_revive(c, idx);
	h->wanted_ns = now;
	if (is_new ||
		(hop_state(c, idx) != NEXTHOP_VALID && now - h->asked_ns > RESOLVE_INTERVAL_NS))
		hop_resolve(c, idx);
	if (hop_state(c, idx) == NEXTHOP_VALID && (!h->in_fib || c->work & CONTROL_WORK_FIB))
		control_change_noted(c, CONTROL_WORK_FIB);
}

void control_hops_wanted(struct control *c)
{
	struct dataplane_wanted wanted[64];
	// Bounded: what is left comes with the next event.
	for (uint32_t round = 0; round < 16; round++) {
		uint32_t n = dataplane_take_wanted(c->dp, wanted, ARRAY_SIZE(wanted));
		for (uint32_t i = 0; i < n; i++)
			want_hop(c, &wanted[i]);
		if (n < ARRAY_SIZE(wanted))
			return;
	}
}

// ---------------------------------------------------------------- giving back
// May this client's entry rest?
static bool is_client_over(const struct control *c, uint32_t idx, uint64_t life_ns)
{
	const struct control_hop *h = &c->hops[idx];
	uint64_t now = control_now_ns(c);
	if (h->life != CONTROL_HOP_LIVE || h->use & (CONTROL_HOP_GATEWAY | CONTROL_HOP_BACKEND))
		return false;
	if (hop_state(c, idx) == NEXTHOP_VALID)
		return now - h->wanted_ns > life_ns;
	if (h->failed_ns != 0)
		return now - h->failed_ns > CLIENT_FAILED_NS;
	return now - h->wanted_ns > CLIENT_FAILED_NS;
}

static bool is_rest_over(const struct control *c, uint32_t idx)
{
	const struct control_hop *h = &c->hops[idx];
	return h->life == CONTROL_HOP_RESTING && control_now_ns(c) - h->wanted_ns > 2 * CLOCK_S &&
	       (c->dp == NULL || dataplane_sweeps(c->dp) >= h->sweeps + 2);
}

void control_hops_tick(struct control *c)
{
	// Short of indices: clients that were not asked for lately go early.
	bool is_short = c->n_live_hops > c->n_hops / 8 * 7;
	uint64_t life_ns = is_short ? CLIENT_FAILED_NS : CLIENT_LIFE_NS;
	bool changed = false;
	uint32_t n_most = c->n_hops / 8;
	for (uint32_t i = 0; i < c->n_hops; i++) {
		if (is_rest_over(c, i)) {
			hop_free(c, i);
		} else if (n_most > 0 && is_client_over(c, i, life_ns)) {
			changed |= c->hops[i].in_fib;
			hop_rest(c, i);
			n_most--;
		}
	}
	bool is_due = c->is_hop_behind && control_now_ns(c) - c->hops_reconciled_ns > BEHIND_NS;
	if (c->is_hop_missed || is_due) {
		c->is_hop_missed = false;
		control_hops_reconcile(c);
		changed |= (c->work & CONTROL_WORK_FIB) != 0;
	}
	if (changed)
		control_change_noted(c, CONTROL_WORK_FIB);
}

uint32_t control_nexthops_in_use(
	const struct control *c, struct dataplane_wanted *out, uint32_t max)
{
	const uint8_t always = CONTROL_HOP_GATEWAY | CONTROL_HOP_BACKEND;
	uint32_t n = 0;
	// Clients last: when there is not room for all, it is they who are left out.
	for (uint32_t pass = 0; pass < 2; pass++) {
		for (uint32_t i = 0; i < c->n_hops && n < max; i++) {
			const struct control_hop *h = &c->hops[i];
			if (h->life != CONTROL_HOP_LIVE || ((h->use & always) != 0) != (pass == 0))
				continue;
			if (pass == 1 && hop_state(c, i) != NEXTHOP_VALID)
				continue;
			out[n++] = (struct dataplane_wanted){ c->hops_table.entries[i].address,
				h->port_idx };
		}
	}
	return n;
}

void control_set_nexthop_hooks(
	struct control *c, const struct control_nexthop_hooks *hooks, void *arg)
{
	c->hop_hooks = hooks != NULL ? *hooks : (struct control_nexthop_hooks){ 0 };
	c->hop_arg = arg;
}
