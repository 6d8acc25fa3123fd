// SPDX-License-Identifier: BSD-3-Clause
// Compiles desired state into one immutable snapshot. Two passes over the store: the first gives every address its slot
// and every backend its id, so that arrays have their length; the second fills them from an arena. Maglev tables are
// counted blocks of their own (tables_priv.h).
//
//   struct snapshot ─► holder ─► compiled (counted) ─► arena, table set (counted blocks)
//                        └─ own fib pointer and generation
//
// The members of a listener and their table are the same for all VIPs of one family, so they are made once for each
// (listener, family). A backend that is desired and nobody's member (of the other family, where both are there) is listed all
// the same, so that a flow it got in other days stays with it. One that is not desired any more keeps its row, with what
// the registry keeps of it, until its flows are gone.
//
// The digest takes the store in its order (names), addresses and members in theirs, numbers big endian: equal
// desired state has an equal digest wherever it is computed, however it came about.
#include "build_priv.h"

#include <errno.h>
#include <stdlib.h>

int build_fail(struct build *b, int code)
{
	if (b->rc == 0)
		b->rc = -code;
	return b->rc;
}

uint32_t build_mask(uint32_t n)
{
	uint32_t size = 16;
	while (size < n * 2 + 1)
		size *= 2;
	return size - 1;
}

void *build_take(struct build *b, struct arena *arena, size_t n, size_t size)
{
	size_t align = size % 32 == 0 || n >= 64 ? 64 : 8; // small ones lie close together
	void *mem = arena_alloc(arena, (n + 1) * size, align);
	if (mem == NULL)
		build_fail(b, ENOMEM);
	return mem;
}

static void service_name(const struct service *s, char *buf, size_t len)
{
	snprintf(buf, len, "%s/%s", s->namespace, s->name);
}

// ---------------------------------------------------------------- first pass: slots, ids
void build_assign_slot(struct build *b, const struct address *address, uint16_t *out_slot)
{
	int rc = snapshot_registry_slot(b->input->registry, address, out_slot);
	if (rc == -ENOSPC && b->rc == 0)
		error_add(b->err, EINVAL, "addresses",
			"more than %u VIPs, SNAT addresses and addresses of dnat backends in use",
			SNAPSHOT_SLOTS_MAX);
	if (rc != 0)
		build_fail(b, rc == -ENOSPC ? EINVAL : ENOMEM);
}

static bool has_family(const struct address *addresses, uint32_t n, bool v4)
{
	for (uint32_t i = 0; i < n; i++) {
		if (address_is_v4(&addresses[i]) == v4)
			return true;
	}
	return false;
}

// A dnat backend's answers are known by their source address.
static void assign_backend_slot(struct build *b, const struct service *s,
	const struct service_backend *backend, uint32_t id)
{
	if (s->mode != SERVICE_MODE_DNAT ||
		!has_family(s->addresses, s->n_addresses, address_is_v4(&backend->address)))
		return;
	struct registry_kept kept = b->input->registry->backends[id].kept;
	build_assign_slot(b, &backend->address, &kept.own_slot);
	if (b->rc == 0)
		registry_keep(b->input->registry, id, &kept);
}

void build_assign_ids(struct build *b, const struct service *s, const char *text, uint32_t j)
{
	const char *listener = s->listeners[j].name;
	struct registry_name name;
	registry_name_init(&name, text, listener);
	for (uint32_t k = 0; k < s->n_backends; k++) {
		uint16_t port = service_backend_find_port(&s->backends[k], listener);
		if (port == 0)
			continue;
		if (array_grow(b->ids, b->n_ids, b->ids_cap) != 0 ||
			registry_backend(b->input->registry, &name, &s->backends[k].address, port,
				&b->ids[b->n_ids]) != 0) {
			build_fail(b, ENOMEM);
			return;
		}
		assign_backend_slot(b, s, &s->backends[k], b->ids[b->n_ids]);
		b->n_ids++;
	}
}

static void assign_numbers(struct build *b)
{
	const struct snapshot_input *in = b->input;
	char text[2 * SERVICE_NAME_MAX];
	uint16_t slot;
	registry_begin(in->registry);
	for (uint32_t i = 0; i < in->n_snat; i++)
		build_assign_slot(b, &in->snat[i], &slot);
	for (uint32_t i = 0; i < service_store_count(in->store); i++) {
		const struct service *s = service_store_at(in->store, i);
		service_name(s, text, sizeof(text));
		for (uint32_t k = 0; k < s->n_addresses; k++)
			build_assign_slot(b, &s->addresses[k], &slot);
		for (uint32_t j = 0; j < s->n_listeners && b->rc == 0; j++)
			build_assign_ids(b, s, text, j);
	}
	if (b->rc == 0 && registry_hold_kept(in->registry) != 0)
		build_fail(b, ENOMEM);
}

// ---------------------------------------------------------------- arrays
struct sizes {
	uint32_t n_listeners;
	uint32_t n_sources;
	uint32_t n_tables;
	uint32_t n_largest; // backends of one service
};

static struct sizes count(const struct service_store *store)
{
	struct sizes n = { .n_largest = 1 };
	for (uint32_t i = 0; i < service_store_count(store); i++) {
		const struct service *s = service_store_at(store, i);
		n.n_listeners += s->n_listeners * s->n_addresses;
		n.n_tables += s->n_listeners * (s->n_addresses < 2 ? s->n_addresses : 2);
		n.n_sources += s->n_source_ranges;
		if (s->n_backends > n.n_largest)
			n.n_largest = s->n_backends;
	}
	return n;
}

void build_scratch(struct build *b, uint32_t n)
{
	b->members = calloc(n, sizeof(*b->members));
	b->candidates = calloc(n, sizeof(*b->candidates));
	b->eligible = calloc(n, sizeof(*b->eligible));
	b->flags = calloc(n, sizeof(*b->flags));
	b->member_ids = calloc(n, sizeof(*b->member_ids));
	if (!b->members || !b->candidates || !b->eligible || !b->flags || !b->member_ids)
		build_fail(b, ENOMEM);
}

static void allocate(struct build *b)
{
	const struct snapshot_input *in = b->input;
	struct sizes n = count(in->store);
	struct snapshot *s = b->s;
	struct compiled *c = b->compiled;
	struct arena *shape = &c->shape->arena, *flats = &c->flats;
	s->n_own = in->registry->n_slots;
	s->n_services = service_store_count(in->store);
	s->n_backends = in->registry->n_backends;
	s->n_reclaims = in->registry->n_reclaims;
	s->address_mask = build_mask(s->n_own);
	s->listener_mask = build_mask(n.n_listeners);
	b->own = build_take(b, shape, s->n_own, sizeof(*b->own));
	b->own_v4 = build_take(b, shape, s->n_own, sizeof(*b->own_v4));
	b->address_cells = build_take(b, shape, s->address_mask, sizeof(*b->address_cells));
	b->listener_cells = build_take(b, shape, s->listener_mask, sizeof(uint32_t));
	b->sources = build_take(b, shape, n.n_sources, sizeof(*b->sources));
	b->services = build_take(b, shape, s->n_services, sizeof(*b->services));
	c->uses = build_take(b, shape, s->n_own, sizeof(*c->uses));
	c->parts = build_take(b, flats, s->n_services, sizeof(*c->parts));
	b->listeners = build_take(b, flats, n.n_listeners, sizeof(*b->listeners));
	b->backends = build_take(b, flats, s->n_backends, sizeof(*b->backends));
	b->staying = build_take(b, flats, build_staying_words(s->n_backends), sizeof(*b->staying));
	if (table_set_init(&c->root->tables, n.n_tables) != 0)
		build_fail(b, ENOMEM);
	build_scratch(b, n.n_largest);
	if (b->rc != 0)
		return;
	memset(b->listener_cells, 0xff, (s->listener_mask + 1u) * sizeof(uint32_t));
	for (uint32_t i = 0; i <= s->address_mask; i++)
		b->address_cells[i].slot = SNAPSHOT_SLOT_NONE;
}

// ---------------------------------------------------------------- addresses
struct snapshot_address_cell *build_cell_of(const struct build *b, const struct address *address)
{
	uint32_t at = snapshot_address_hash(address) & b->s->address_mask;
	while (b->address_cells[at].slot != SNAPSHOT_SLOT_NONE &&
		!address_equal(&b->address_cells[at].address, address))
		at = (at + 1) & b->s->address_mask;
	return &b->address_cells[at];
}

void build_own_set(struct build *b, struct snapshot_address_cell *cell,
	const struct address *address, uint16_t slot, enum snapshot_own_kind kind)
{
	b->own[slot].kind = (uint8_t)kind;
	*cell = (struct snapshot_address_cell){
		.address = *address,
		.slot = slot,
		.kind = (uint8_t)kind,
	};
}

static void own_add(struct build *b, const struct address *address, enum snapshot_own_kind kind)
{
	struct snapshot_address_cell *cell = build_cell_of(b, address);
	char text[ADDRESS_TEXT_LEN];
	if (cell->slot != SNAPSHOT_SLOT_NONE) { // a VIP of several services, or one of two kinds
		if (cell->kind != kind)
			build_fail(
				b, -error_add(b->err, EINVAL, "snat.addresses",
					   "%s is also a VIP; allowed: an address that belongs to "
					   "sluice alone",
					   address_format(address, text)));
		return;
	}
	uint16_t slot;
	if (snapshot_registry_slot(b->input->registry, address, &slot) != 0) {
		build_fail(b, ENOMEM); // cannot be: the first pass has made it
		return;
	}
	build_own_set(b, cell, address, slot, kind);
}

// Addresses of backends that are dnat, or were while flows may know them so. What is a VIP or SNAT address stays that.
static void own_backends_add(struct build *b)
{
	const struct snapshot_registry *r = b->input->registry;
	for (uint32_t i = 0; i < r->n_backends; i++) {
		const struct registry_backend *backend = &r->backends[i];
		if (backend->use.state == REGISTRY_FREE ||
			backend->kept.own_slot == SNAPSHOT_SLOT_NONE)
			continue;
		struct snapshot_address_cell *cell = build_cell_of(b, &backend->address);
		if (cell->slot == SNAPSHOT_SLOT_NONE)
			build_own_set(b, cell, &backend->address, backend->kept.own_slot,
				SNAPSHOT_OWN_BACKEND);
	}
}

// Every address before the first listener, since no backend may be one of them. Slots that linger keep their address:
// flows that hold them still send with it.
static void fill_addresses(struct build *b)
{
	const struct snapshot_input *in = b->input;
	for (uint32_t i = 0; i < in->n_snat; i++)
		own_add(b, &in->snat[i], SNAPSHOT_OWN_SNAT);
	for (uint32_t i = 0; i < b->s->n_services; i++) {
		const struct service *s = service_store_at(in->store, i);
		for (uint32_t k = 0; k < s->n_addresses; k++)
			own_add(b, &s->addresses[k], SNAPSHOT_OWN_VIP);
	}
	if (b->rc == 0)
		own_backends_add(b);
	for (uint32_t i = 0; i < b->s->n_own; i++) {
		if (in->registry->slots[i].use.state != REGISTRY_FREE)
			b->own[i].address = in->registry->slots[i].address;
	}
	build_fill_own_v4(b);
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

static void fill_ranges(struct build *b, uint32_t n)
{
	uint32_t *ranges = build_take(b, &b->compiled->shape->arena, n, sizeof(*ranges));
	struct range_key *keys = calloc(n + 1u, sizeof(*keys));
	uint32_t at = 0;
	if (ranges == NULL || keys == NULL) {
		build_fail(b, ENOMEM);
		free(keys);
		return;
	}
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
	free(keys);
	b->s->ranges = ranges;
}

static void place_one(struct build *b, uint32_t idx)
{
	const struct snapshot_listener *l = &b->listeners[idx];
	uint32_t at = snapshot_listener_hash(l->slot, l->protocol, l->port);
	while (b->listener_cells[at & b->s->listener_mask] != UINT32_MAX)
		at++;
	b->listener_cells[at & b->s->listener_mask] = idx;
}

void build_place_listeners(struct build *b)
{
	uint32_t n_ranges = 0;
	for (uint32_t i = 0; i < b->n_listeners; i++) {
		const struct snapshot_listener *l = &b->listeners[i];
		b->own[l->slot].tables |= snapshot_mode_is_oneway(l->mode) ? SNAPSHOT_TABLE_ONEWAY
									   : SNAPSHOT_TABLE_NAT;
		b->compiled->uses[l->slot].n_listeners++;
		if (l->port == l->port_max)
			place_one(b, i);
		else
			n_ranges++;
	}
	fill_ranges(b, n_ranges);
	for (uint32_t i = 0; i <= b->s->address_mask; i++) {
		struct snapshot_address_cell *cell = &b->address_cells[i];
		if (cell->slot != SNAPSHOT_SLOT_NONE)
			cell->tables = b->own[cell->slot].tables;
	}
}

// A removed backend's flows may go on for the drain timeout that its service had, from the first build without it.
static uint8_t lingering_flags(struct build *b, struct registry_backend *backend)
{
	struct snapshot_registry *r = b->input->registry;
	int64_t now_ms = b->input->wall_ms;
	if (now_ms == 0)
		return 0;
	if (backend->gone_ms == 0)
		backend->gone_ms = now_ms;
	int64_t reset_ms = backend->gone_ms + (int64_t)backend->kept.drain_s * 1000;
	if (now_ms >= reset_ms)
		return SNAPSHOT_BACKEND_RESET;
	if (reset_ms < r->next_reset_ms)
		r->next_reset_ms = reset_ms;
	return 0;
}

static void lingering_row(struct build *b, uint32_t id)
{
	struct registry_backend *backend = &b->input->registry->backends[id];
	const struct registry_kept *kept = &backend->kept;
	b->backends[id] = (struct snapshot_backend){
		.address = backend->address,
		.port = backend->port,
		.flags = lingering_flags(b, backend),
		.mode = kept->mode,
		.listener_idx = UINT32_MAX,
		.service_idx = UINT32_MAX,
		.own_slot = kept->mode == SNAPSHOT_DNAT ? kept->own_slot : SNAPSHOT_SLOT_NONE,
		.policy = kept->policy,
	};
}

void build_linger(struct build *b, uint32_t id)
{
	struct compiled *c = b->compiled;
	if (b->backends[id].flags != 0 ||
		b->input->registry->backends[id].use.state == REGISTRY_FREE)
		return;
	if (array_grow(c->lingering, c->n_lingering, c->lingering_cap) != 0) {
		build_fail(b, ENOMEM);
		return;
	}
	c->lingering[c->n_lingering++] = id;
	lingering_row(b, id);
}

// Backends that are no longer desired keep their row, so that live flows find their identity.
static void fill_lingering(struct build *b)
{
	b->input->registry->next_reset_ms = INT64_MAX;
	for (uint32_t i = 0; i < b->input->registry->n_backends; i++)
		build_linger(b, i);
}

void build_note_staying(struct build *b, uint32_t id)
{
	uint8_t flags = b->backends[id].flags;
	uint64_t bit = 1ull << id % 64;
	b->staying[id / 64] &= ~bit;
	if ((flags & (SNAPSHOT_BACKEND_LISTED | SNAPSHOT_BACKEND_RESET)) == SNAPSHOT_BACKEND_LISTED)
		b->staying[id / 64] |= bit;
}

// What is kept of every row apart from it.
static void fill_apart(struct build *b)
{
	uint32_t n = b->s->n_backends;
	struct snapshot_idle *idle = build_take(b, &b->compiled->flats, n, sizeof(*idle));
	if (idle == NULL)
		return;
	for (uint32_t i = 0; i < n; i++) {
		const struct snapshot_backend *row = &b->backends[i];
		idle[i].policy = row->policy;
		if (row->listener_idx < b->n_listeners)
			idle[i].affinity_s = b->listeners[row->listener_idx].affinity_s;
		build_note_staying(b, i);
	}
	b->s->idle = idle;
}

// Desired backends hold the addresses that they are known by.
static void count_backends(struct build *b)
{
	const struct snapshot_registry *r = b->input->registry;
	for (uint32_t i = 0; r->has_own_slots && i < b->n_ids; i++) {
		uint16_t slot = r->backends[b->ids[i]].kept.own_slot;
		if (slot != SNAPSHOT_SLOT_NONE)
			b->compiled->uses[slot].n_backends++;
	}
}

static void fill_tunnel_sources(struct build *b)
{
	for (uint32_t i = b->input->n_snat; i-- > 0;) {
		const struct address *a = &b->input->snat[i];
		b->s->tunnel_source[!address_is_v4(a)] = *a;
	}
}

void build_fill_own_v4(struct build *b)
{
	for (uint32_t i = 0; i < b->s->n_own; i++)
		if (address_is_v4(&b->own[i].address))
			b->own_v4[i] = address_v4(&b->own[i].address);
}

void build_fill_policies(struct build *b)
{
	const struct snapshot_registry *r = b->input->registry;
	struct snapshot_policy *policies =
		build_take(b, &b->compiled->shape->arena, r->n_policies, sizeof(*policies));
	if (policies == NULL)
		return;
	for (uint32_t i = 0; i < r->n_policies; i++)
		policies[i] = (struct snapshot_policy){ r->policies[i].tcp_idle_s,
			r->policies[i].udp_idle_s };
	b->s->policies = policies;
	b->s->n_policies = r->n_policies;
}

void build_note_origin(struct compiled *c, const struct snapshot_input *input)
{
	c->store = input->store;
	c->store_generation = service_store_generation(input->store);
	c->names_generation = service_store_names_generation(input->store);
	c->wall_ms = input->wall_ms;
}

static void note_snat(struct build *b)
{
	const struct snapshot_input *in = b->input;
	struct address *snat = build_take(b, b->arena, in->n_snat, sizeof(*snat));
	if (snat == NULL)
		return;
	if (in->n_snat)
		memcpy(snat, in->snat, in->n_snat * sizeof(*snat));
	b->compiled->snat = snat;
	b->compiled->n_snat = in->n_snat;
}

static void name_services(struct build *b)
{
	char name[2 * SERVICE_NAME_MAX];
	for (uint32_t i = 0; i < b->s->n_services; i++) {
		service_name(service_store_at(b->input->store, i), name, sizeof(name));
		b->services[i] = (struct snapshot_service){ arena_strdup(b->arena, name), i };
		if (b->services[i].name == NULL)
			build_fail(b, ENOMEM);
	}
}

static void build_fill(struct build *b)
{
	fill_addresses(b);
	name_services(b);
	for (uint32_t i = 0; i < b->s->n_services && b->rc == 0; i++)
		build_service(b, i);
	if (b->rc != 0)
		return;
	build_place_listeners(b);
	count_backends(b);
	fill_lingering(b);
	fill_apart(b);
	build_fill_policies(b);
	fill_tunnel_sources(b);
	note_snat(b);
	b->compiled->n_sources = b->n_sources;
	build_note_origin(b->compiled, b->input);
}

static void build_seal(struct build *b)
{
	struct snapshot *s = b->s;
	s->generation = b->input->generation;
	s->fib = b->input->fib;
	s->own = b->own;
	s->own_v4 = b->own_v4;
	s->address_cells = b->address_cells;
	s->listeners = b->listeners;
	s->n_listeners = b->n_listeners;
	s->listener_cells = b->listener_cells;
	s->sources = b->sources;
	s->backends = b->backends;
	s->staying = b->staying;
	s->services = b->services;
}

void build_scratch_free(struct build *b)
{
	free(b->members);
	free(b->candidates);
	free(b->eligible);
	free(b->flags);
	free(b->member_ids);
}

// The numbers of the first pass are kept: who compiles a service again wants to know what it had.
static void keep_ids(struct build *b)
{
	uint32_t *ids = build_take(b, b->arena, b->n_ids, sizeof(*ids));
	if (b->rc != 0)
		return;
	if (b->n_ids)
		memcpy(ids, b->ids, b->n_ids * sizeof(*ids));
	free(b->ids);
	b->ids = ids;
}

static int build_whole(struct build *b)
{
	assign_numbers(b);
	if (b->rc != 0) {
		free(b->ids);
		return b->rc;
	}
	uint32_t *own_ids = b->ids;
	keep_ids(b);
	if (b->ids == own_ids) { // out of memory
		free(b->ids);
		return b->rc;
	}
	allocate(b);
	if (b->rc == 0)
		build_fill(b);
	build_scratch_free(b);
	return b->rc;
}

int snapshot_build(const struct snapshot_input *input, struct snapshot **out, struct error *err)
{
	int rc = snapshot_patch(input, out);
	if (rc != 0)
		return rc > 0 ? 0 : error_add(err, -rc, "", "out of memory");
	struct holder *holder = calloc(1, sizeof(*holder));
	struct compiled *compiled = build_compiled_create(NULL, NULL);
	if (holder == NULL || compiled == NULL) {
		free(holder);
		build_compiled_put(compiled);
		return error_add(err, ENOMEM, "", "out of memory");
	}
	holder->compiled = compiled;
	holder->snapshot.owner = holder;
	struct build b = { .input = input,
		.err = err,
		.compiled = compiled,
		.arena = &compiled->root->arena,
		.s = &holder->snapshot };
	if (build_whole(&b) != 0) {
		if (b.rc == -ENOMEM)
			error_add(err, ENOMEM, "", "out of memory");
		build_compiled_put(compiled);
		free(holder);
		return b.rc;
	}
	registry_end(input->registry);
	build_seal(&b);
	*out = &holder->snapshot;
	return 0;
}
