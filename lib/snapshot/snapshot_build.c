// SPDX-License-Identifier: BSD-3-Clause
// Compiles desired state into one immutable snapshot. Two passes over the store: count and check, then fill arrays of
// the right size from an arena. Maglev tables are separate, counted blocks: a listener whose members did not change
// shares the block of the previous snapshot, so a health change costs no table.
//
//   struct snapshot ─► holder ─► compiled (counted) ─► arena, tables[] (counted blocks)
//                        └─ own fib pointer and generation
#include "registry_priv.h"

#include <errno.h>
#include <stdlib.h>

struct table_block {
	uint32_t n_users;
	uint32_t m;
	uint32_t n_members;
	struct balance_member *members; // sorted; what the slots were computed from
	uint64_t digest;
	uint16_t slots[];
};

struct compiled {
	uint32_t n_users;
	struct arena arena;
	struct table_block **tables; // by listener
	uint32_t n_tables;
	uint32_t *table_index; // hash of digest -> listener, UINT32_MAX = empty
	uint32_t table_mask;
};

struct holder {
	struct snapshot snapshot;
	struct compiled *compiled;
};

struct build {
	const struct snapshot_input *input;
	struct error *err;
	struct compiled *compiled;
	struct snapshot *s;
	struct snapshot_own *own;
	struct snapshot_address_cell *address_cells;
	struct snapshot_listener *listeners;
	struct snapshot_backend *backends;
	uint32_t *listener_cells;
	struct prefix *sources;
	uint32_t n_listeners;
	uint32_t n_sources;
	int rc;
	// scratch for one listener
	struct balance_member *members;
	struct health_candidate *candidates;
	bool *eligible;
	uint32_t *ids;
	uint32_t scratch_cap;
};

// ---------------------------------------------------------------- shared tables

static void table_put(struct table_block *block)
{
	if (block == NULL || --block->n_users > 0)
		return;
	free(block->members);
	free(block);
}

static void compiled_put(struct compiled *c)
{
	if (c == NULL || --c->n_users > 0)
		return;
	for (uint32_t i = 0; i < c->n_tables; i++)
		table_put(c->tables[i]);
	arena_fini(&c->arena);
	free(c);
}

static bool table_matches(const struct table_block *t, uint64_t digest,
	const struct balance_member *members, uint32_t n)
{
	if (t == NULL || t->digest != digest || t->n_members != n)
		return false;
	for (uint32_t i = 0; i < n; i++) {
		const struct balance_member *a = &t->members[i], *b = &members[i];
		if (!address_equal(&a->address, &b->address) || a->port != b->port ||
			a->weight != b->weight)
			return false;
	}
	return true;
}

static struct table_block *table_find(
	const struct compiled *c, uint64_t digest, const struct balance_member *members, uint32_t n)
{
	if (c == NULL || c->table_index == NULL)
		return NULL;
	for (uint64_t h = digest;; h++) {
		uint32_t idx = c->table_index[h & c->table_mask];
		if (idx == UINT32_MAX)
			return NULL;
		if (table_matches(c->tables[idx], digest, members, n))
			return c->tables[idx];
	}
}

static struct table_block *table_build(
	uint64_t digest, const struct balance_member *members, uint32_t n)
{
	uint32_t m = balance_table_size(n);
	struct table_block *t = malloc(sizeof(*t) + m * sizeof(uint16_t));
	struct balance_member *copy = calloc(n, sizeof(*copy));
	if (t == NULL || copy == NULL || balance_build(members, n, m, t->slots) != 0) {
		free(copy);
		free(t);
		return NULL;
	}
	memcpy(copy, members, n * sizeof(*copy));
	t->n_users = 0;
	t->m = m;
	t->n_members = n;
	t->members = copy;
	t->digest = digest;
	return t;
}

// The table of these members: shared with the previous snapshot or with an earlier listener, else built.
static struct table_block *table_get(
	struct build *b, uint64_t digest, const struct balance_member *members, uint32_t n)
{
	const struct snapshot *previous = b->input->previous;
	struct table_block *t = table_find(b->compiled, digest, members, n);
	if (t == NULL && previous)
		t = table_find(((struct holder *)previous->owner)->compiled, digest, members, n);
	if (t == NULL)
		t = table_build(digest, members, n);
	if (t == NULL)
		return NULL;
	struct compiled *c = b->compiled;
	uint32_t listener_idx = b->n_listeners;
	c->tables[listener_idx] = t;
	t->n_users++;
	uint64_t h = digest;
	while (c->table_index[h & c->table_mask] != UINT32_MAX)
		h++;
	c->table_index[h & c->table_mask] = listener_idx;
	return t;
}

// ---------------------------------------------------------------- sizes

static int fail(struct build *b, int code)
{
	if (b->rc == 0)
		b->rc = -code;
	return b->rc;
}

static uint32_t power_of_two(uint32_t n)
{
	uint32_t size = 16;
	while (size < n)
		size *= 2;
	return size;
}

static void *take(struct build *b, size_t n, size_t size)
{
	void *mem = arena_alloc(&b->compiled->arena, n * size, 64);
	if (mem == NULL)
		fail(b, ENOMEM);
	return mem;
}

// Slots of every address first: the arrays are as long as the highest one.
static void assign_slots(struct build *b)
{
	const struct snapshot_input *in = b->input;
	uint16_t slot;
	for (uint32_t i = 0; i < in->n_snat; i++) {
		if (snapshot_registry_slot(in->registry, &in->snat[i], &slot) != 0)
			fail(b, ENOSPC);
	}
	for (uint32_t i = 0; i < service_store_count(in->store); i++) {
		const struct service *s = service_store_at(in->store, i);
		for (uint32_t k = 0; k < s->n_addresses; k++) {
			if (snapshot_registry_slot(in->registry, &s->addresses[k], &slot) != 0)
				fail(b, ENOSPC);
		}
	}
	if (b->rc != 0)
		error_add(b->err, ENOSPC, "addresses", "more than %u VIPs and SNAT addresses",
			SNAPSHOT_SLOTS_MAX);
}

static int allocate(struct build *b)
{
	const struct snapshot_input *in = b->input;
	uint32_t n_services = service_store_count(in->store);
	uint32_t n_listeners = 0, n_sources = 0, n_largest = 1;
	for (uint32_t i = 0; i < n_services; i++) {
		const struct service *s = service_store_at(in->store, i);
		n_listeners += s->n_listeners * s->n_addresses;
		n_sources += s->n_source_ranges;
		if (s->n_backends > n_largest)
			n_largest = s->n_backends;
	}
	struct compiled *c = b->compiled;
	struct snapshot *s = b->s;
	s->n_own = in->registry->n_slots;
	s->n_services = n_services;
	s->address_mask = power_of_two(s->n_own * 2 + 1) - 1;
	s->listener_mask = power_of_two(n_listeners * 2 + 1) - 1;
	c->table_mask = power_of_two(n_listeners * 2 + 1) - 1;
	b->own = take(b, s->n_own + 1u, sizeof(*b->own));
	b->address_cells = take(b, s->address_mask + 1u, sizeof(*b->address_cells));
	b->listeners = take(b, n_listeners + 1u, sizeof(*b->listeners));
	b->listener_cells = take(b, s->listener_mask + 1u, sizeof(uint32_t));
	b->sources = take(b, n_sources + 1u, sizeof(*b->sources));
	s->services = take(b, n_services + 1u, sizeof(*s->services));
	c->tables = take(b, n_listeners + 1u, sizeof(*c->tables));
	c->table_index = take(b, c->table_mask + 1u, sizeof(uint32_t));
	b->scratch_cap = n_largest;
	b->members = calloc(n_largest, sizeof(*b->members));
	b->candidates = calloc(n_largest, sizeof(*b->candidates));
	b->eligible = calloc(n_largest, sizeof(*b->eligible));
	b->ids = calloc(n_largest, sizeof(*b->ids));
	if (b->rc != 0 || !b->members || !b->candidates || !b->eligible || !b->ids)
		return fail(b, ENOMEM);
	c->n_tables = n_listeners;
	memset(c->table_index, 0xff, (c->table_mask + 1u) * sizeof(uint32_t));
	memset(b->listener_cells, 0xff, (s->listener_mask + 1u) * sizeof(uint32_t));
	for (uint32_t i = 0; i <= s->address_mask; i++)
		b->address_cells[i].slot = SNAPSHOT_SLOT_NONE;
	return 0;
}

// Ids of every backend before the array is made; kept until the registry is asked again in the second pass.
static void assign_backends(struct build *b)
{
	const struct service_store *store = b->input->store;
	for (uint32_t i = 0; i < service_store_count(store); i++) {
		const struct service *s = service_store_at(store, i);
		char name[2 * SERVICE_NAME_MAX + 2];
		snprintf(name, sizeof(name), "%s/%s", s->namespace, s->name);
		for (uint32_t k = 0; k < s->n_backends && b->rc == 0; k++) {
			const struct service_backend *backend = &s->backends[k];
			for (uint32_t j = 0; j < backend->n_ports; j++) {
				uint32_t id;
				if (snapshot_registry_backend(b->input->registry, name,
					    backend->ports[j].listener, &backend->address,
					    backend->ports[j].port, &id) != 0)
					fail(b, ENOMEM);
			}
		}
	}
}

// ---------------------------------------------------------------- addresses

static void own_add(struct build *b, const struct address *address, enum snapshot_own_kind kind)
{
	uint16_t slot;
	if (snapshot_registry_slot(b->input->registry, address, &slot) != 0) {
		fail(b, ENOMEM);
		return;
	}
	struct snapshot_own *own = &b->own[slot];
	if (own->kind == kind)
		return; // a VIP of several services
	if (own->kind != SNAPSHOT_OWN_NONE) {
		char text[ADDRESS_TEXT_LEN];
		error_add(b->err, EINVAL, "snat.addresses",
			"%s is also a VIP; a SNAT address belongs to sluice alone",
			address_format(address, text));
		fail(b, EINVAL);
		return;
	}
	own->address = *address;
	own->kind = (uint8_t)kind;
	uint32_t at = snapshot_address_hash(address) & b->s->address_mask;
	while (b->address_cells[at].slot != SNAPSHOT_SLOT_NONE)
		at = (at + 1) & b->s->address_mask;
	b->address_cells[at] = (struct snapshot_address_cell){
		.address = *address,
		.slot = slot,
		.kind = (uint8_t)kind,
	};
}

// ---------------------------------------------------------------- listeners

struct listener_input {
	const struct service *service;
	const struct service_listener *listener;
	const struct address *vip;
	const char *name; // of the service
	uint32_t service_idx;
	uint32_t first_source;
};

static const struct service_backend_port *port_of(
	const struct service_backend *backend, const char *listener)
{
	for (uint32_t i = 0; i < backend->n_ports; i++) {
		if (strcmp(backend->ports[i].listener, listener) == 0)
			return &backend->ports[i];
	}
	return NULL;
}

static uint8_t backend_flags(
	const struct build *b, const struct service_overlay *overlay, bool eligible)
{
	uint8_t flags = SNAPSHOT_BACKEND_LISTED;
	if (eligible)
		flags |= SNAPSHOT_BACKEND_ELIGIBLE;
	if (overlay && overlay->draining && overlay->reset_on_deadline && overlay->deadline_ms &&
		b->input->wall_ms >= overlay->deadline_ms)
		flags |= SNAPSHOT_BACKEND_RESET;
	return flags;
}

// Members of one listener for one family, in the order of the normalised service (by address).
static uint32_t gather_members(struct build *b, const struct listener_input *in)
{
	const struct service *s = in->service;
	bool v4 = address_is_v4(in->vip);
	uint32_t n = 0;
	for (uint32_t k = 0; k < s->n_backends; k++) {
		const struct service_backend *backend = &s->backends[k];
		const struct service_backend_port *port = port_of(backend, in->listener->name);
		if (port == NULL || address_is_v4(&backend->address) != v4)
			continue;
		const struct service_overlay *overlay = service_store_find_overlay(
			b->input->store, s->namespace, s->name, &backend->address, port->port);
		uint32_t weight =
			overlay && overlay->has_weight ? overlay->weight : backend->weight;
		if (snapshot_registry_backend(b->input->registry, in->name, in->listener->name,
			    &backend->address, port->port, &b->ids[n]) != 0) {
			fail(b, ENOMEM);
			return 0;
		}
		b->members[n] =
			(struct balance_member){ backend->address, port->port, (uint16_t)weight };
		const struct snapshot_health *health = &b->input->health;
		b->candidates[n] = (struct health_candidate){
			.conditions = backend->conditions,
			.probe = health->probe ? health->probe(health->arg, s, in->listener,
							 &backend->address, port->port)
					       : HEALTH_PROBE_UNKNOWN,
			.draining = overlay && overlay->draining,
			.weight = weight,
		};
		n++;
	}
	return n;
}

static void fill_backends(
	struct build *b, const struct listener_input *in, uint32_t n, uint32_t listener_idx)
{
	for (uint32_t i = 0; i < n; i++) {
		const struct balance_member *m = &b->members[i];
		const struct service_overlay *overlay = service_store_find_overlay(b->input->store,
			in->service->namespace, in->service->name, &m->address, m->port);
		b->backends[b->ids[i]] = (struct snapshot_backend){
			.address = m->address,
			.port = m->port,
			.flags = backend_flags(b, overlay, b->eligible[i]),
			.listener_idx = listener_idx,
			.service_idx = in->service_idx,
			.weight = m->weight,
		};
	}
}

static int compare_ids(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
	return x < y ? -1 : x > y;
}

static void fill_members(
	struct build *b, struct snapshot_listener *l, const struct listener_input *in)
{
	uint32_t n = gather_members(b, in);
	l->n_members = n;
	if (n == 0 || b->rc != 0)
		return;
	uint32_t *members = take(b, n, sizeof(uint32_t));
	uint32_t *eligible = take(b, n, sizeof(uint32_t));
	uint64_t digest = balance_digest(b->members, n);
	struct table_block *table = table_get(b, digest, b->members, n);
	if (members == NULL || eligible == NULL || table == NULL) {
		fail(b, ENOMEM);
		return;
	}
	l->n_eligible = health_choose(b->candidates, n, b->eligible);
	uint32_t at = 0;
	for (uint32_t i = 0; i < n; i++) {
		members[i] = b->ids[i];
		if (b->eligible[i])
			eligible[at++] = b->ids[i];
	}
	qsort(eligible, at, sizeof(*eligible), compare_ids);
	l->members = members;
	l->eligible = eligible;
	l->table = table->slots;
	l->table_size = table->m;
	fill_backends(b, in, n, b->n_listeners);
	b->s->digest = hash_stable(&digest, sizeof(digest), b->s->digest);
}

static void digest_listener(
	struct build *b, const struct snapshot_listener *l, const struct listener_input *in)
{
	struct {
		struct address vip;
		uint64_t numbers[4];
	} words = { .vip = *in->vip };
	words.numbers[0] = (uint64_t)l->protocol << 32 | (uint64_t)l->port << 16 | l->port_max;
	words.numbers[1] = l->affinity_s;
	words.numbers[2] = l->mode;
	words.numbers[3] = l->n_members;
	b->s->digest = hash_stable(&words, sizeof(words), b->s->digest);
}

static void listener_add(struct build *b, const struct listener_input *in)
{
	struct snapshot_listener *l = &b->listeners[b->n_listeners];
	uint16_t slot = 0;
	uint8_t policy = 0;
	if (snapshot_registry_slot(b->input->registry, in->vip, &slot) != 0) {
		fail(b, ENOMEM);
		return;
	}
	if (snapshot_registry_policy(b->input->registry, in->service->tcp_idle_s,
		    in->service->udp_idle_s, &policy) != 0) {
		error_add(b->err, EINVAL, in->name,
			"more than %u different pairs of idle timeouts in use",
			SNAPSHOT_POLICIES_MAX);
		fail(b, EINVAL);
		return;
	}
	*l = (struct snapshot_listener){
		.slot = slot,
		.protocol = in->listener->protocol,
		.mode = SNAPSHOT_FULLNAT,
		.port = in->listener->port,
		.port_max = in->listener->port_max,
		.service_idx = in->service_idx,
		.first_source = in->first_source,
		.n_sources = in->service->n_source_ranges,
		.affinity_s = in->service->affinity_s,
		.policy = policy,
	};
	fill_members(b, l, in);
	digest_listener(b, l, in);
	if (l->port == l->port_max) {
		uint32_t at = snapshot_listener_hash(slot, l->protocol, l->port);
		while (b->listener_cells[at & b->s->listener_mask] != UINT32_MAX)
			at++;
		b->listener_cells[at & b->s->listener_mask] = b->n_listeners;
	}
	b->n_listeners++;
}

static void service_add(struct build *b, uint32_t service_idx)
{
	const struct service *s = service_store_at(b->input->store, service_idx);
	char name[2 * SERVICE_NAME_MAX + 2];
	snprintf(name, sizeof(name), "%s/%s", s->namespace, s->name);
	struct snapshot_service *services = (struct snapshot_service *)b->s->services;
	services[service_idx] = (struct snapshot_service){
		.name = arena_strdup(&b->compiled->arena, name),
		.id = service_idx,
	};
	if (services[service_idx].name == NULL)
		fail(b, ENOMEM);
	b->s->digest = hash_stable(name, strlen(name), b->s->digest);
	struct listener_input in = {
		.service = s, .name = name, .service_idx = service_idx, .first_source = b->n_sources
	};
	for (uint32_t i = 0; i < s->n_source_ranges; i++) {
		b->sources[b->n_sources++] = s->source_ranges[i];
		b->s->digest = hash_stable(s->source_ranges[i].address.bytes, 16,
			b->s->digest + s->source_ranges[i].len);
	}
	for (uint32_t k = 0; k < s->n_addresses; k++) {
		own_add(b, &s->addresses[k], SNAPSHOT_OWN_VIP);
		in.vip = &s->addresses[k];
		for (uint32_t j = 0; j < s->n_listeners && b->rc == 0; j++) {
			in.listener = &s->listeners[j];
			listener_add(b, &in);
		}
	}
}

// ---------------------------------------------------------------- ranges, backends that linger

struct range_key {
	uint32_t listener_idx;
	uint32_t width;
	uint16_t slot;
};

static int compare_ranges(const void *a, const void *b)
{
	const struct range_key *x = a, *y = b;
	if (x->slot != y->slot)
		return x->slot < y->slot ? -1 : 1;
	return x->width < y->width ? -1 : x->width > y->width;
}

static void fill_ranges(struct build *b)
{
	uint32_t n = 0;
	for (uint32_t i = 0; i < b->n_listeners; i++)
		n += b->listeners[i].port != b->listeners[i].port_max;
	uint32_t *ranges = take(b, n + 1u, sizeof(*ranges));
	struct range_key *keys = take(b, n + 1u, sizeof(*keys));
	if (b->rc != 0)
		return;
	uint32_t at = 0;
	for (uint32_t i = 0; i < b->n_listeners; i++) {
		const struct snapshot_listener *l = &b->listeners[i];
		if (l->port != l->port_max)
			keys[at++] =
				(struct range_key){ i, (uint32_t)(l->port_max - l->port), l->slot };
	}
	qsort(keys, n, sizeof(*keys), compare_ranges);
	for (uint32_t i = 0; i < n; i++) {
		struct snapshot_own *own = &b->own[keys[i].slot];
		if (own->n_ranges++ == 0)
			own->first_range = i;
		ranges[i] = keys[i].listener_idx;
	}
	b->s->ranges = ranges;
}

// Backends that are no longer desired keep their row, so that live flows find their identity.
static void fill_lingering(struct build *b)
{
	const struct snapshot_registry *r = b->input->registry;
	for (uint32_t i = 0; i < r->n_backends; i++) {
		if (b->backends[i].flags != 0 || r->backends[i].use.state == REGISTRY_FREE)
			continue;
		b->backends[i] = (struct snapshot_backend){
			.address = r->backends[i].address,
			.port = r->backends[i].port,
			.listener_idx = UINT32_MAX,
			.service_idx = UINT32_MAX,
		};
	}
}

static void fill_policies(struct build *b)
{
	const struct snapshot_registry *r = b->input->registry;
	struct snapshot_policy *policies = take(b, r->n_policies + 1u, sizeof(*policies));
	if (policies == NULL)
		return;
	for (uint32_t i = 0; i < r->n_policies; i++)
		policies[i] = (struct snapshot_policy){ r->policies[i].tcp_idle_s,
			r->policies[i].udp_idle_s };
	b->s->policies = policies;
	b->s->n_policies = r->n_policies;
}

static void build_fill(struct build *b)
{
	const struct snapshot_input *in = b->input;
	b->s->n_backends = in->registry->n_backends;
	b->backends = take(b, b->s->n_backends + 1u, sizeof(*b->backends));
	if (b->rc != 0)
		return;
	for (uint32_t i = 0; i < in->n_snat; i++)
		own_add(b, &in->snat[i], SNAPSHOT_OWN_SNAT);
	for (uint32_t i = 0; i < b->s->n_services; i++)
		service_add(b, i);
	if (b->rc != 0)
		return;
	fill_ranges(b);
	fill_lingering(b);
	fill_policies(b);
}

static void build_seal(struct build *b)
{
	struct snapshot *s = b->s;
	s->generation = b->input->generation;
	s->fib = b->input->fib;
	s->own = b->own;
	s->address_cells = b->address_cells;
	s->listeners = b->listeners;
	s->n_listeners = b->n_listeners;
	s->listener_cells = b->listener_cells;
	s->sources = b->sources;
	s->backends = b->backends;
}

int snapshot_build(const struct snapshot_input *input, struct snapshot **out, struct error *err)
{
	struct holder *holder = calloc(1, sizeof(*holder));
	struct compiled *compiled = calloc(1, sizeof(*compiled));
	if (holder == NULL || compiled == NULL) {
		free(holder);
		free(compiled);
		return error_add(err, ENOMEM, "", "out of memory");
	}
	compiled->n_users = 1;
	holder->compiled = compiled;
	holder->snapshot.owner = holder;
	struct build b = {
		.input = input, .err = err, .compiled = compiled, .s = &holder->snapshot
	};
	registry_begin(input->registry);
	assign_slots(&b);
	if (b.rc == 0)
		assign_backends(&b);
	if (b.rc == 0 && allocate(&b) == 0)
		build_fill(&b);
	free(b.members);
	free(b.candidates);
	free(b.eligible);
	free(b.ids);
	if (b.rc != 0) {
		if (b.rc == -ENOMEM)
			error_add(err, ENOMEM, "", "out of memory");
		compiled_put(compiled);
		free(holder);
		return b.rc;
	}
	build_seal(&b);
	*out = &holder->snapshot;
	return 0;
}

void snapshot_destroy(struct snapshot *s)
{
	if (s == NULL)
		return;
	struct holder *holder = s->owner;
	compiled_put(holder->compiled);
	free(holder);
}

struct snapshot *snapshot_with_fib(
	const struct snapshot *s, const struct nexthop_fib *fib, uint64_t generation)
{
	const struct holder *from = s->owner;
	struct holder *holder = malloc(sizeof(*holder));
	if (holder == NULL)
		return NULL;
	*holder = *from;
	holder->compiled->n_users++;
	holder->snapshot.owner = holder;
	holder->snapshot.fib = fib;
	holder->snapshot.generation = generation;
	return &holder->snapshot;
}
