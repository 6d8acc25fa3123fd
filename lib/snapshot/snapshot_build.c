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

static uint32_t power_of_two(uint32_t n)
{
	uint32_t size = 16;
	while (size < n)
		size *= 2;
	return size;
}

static void *take(struct build *b, size_t n, size_t size, size_t align)
{
	void *mem = arena_alloc(b->arena, n * size, align);
	if (mem == NULL)
		build_fail(b, ENOMEM);
	return mem;
}

static void service_name(const struct service *s, char *buf, size_t len)
{
	snprintf(buf, len, "%s/%s", s->namespace, s->name);
}

// ---------------------------------------------------------------- first pass: slots, ids
static void assign_slot(struct build *b, const struct address *address, uint16_t *out_slot)
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
	assign_slot(b, &backend->address, &kept.own_slot);
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
		assign_slot(b, &in->snat[i], &slot);
	for (uint32_t i = 0; i < service_store_count(in->store); i++) {
		const struct service *s = service_store_at(in->store, i);
		service_name(s, text, sizeof(text));
		for (uint32_t k = 0; k < s->n_addresses; k++)
			assign_slot(b, &s->addresses[k], &slot);
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
	s->n_own = in->registry->n_slots;
	s->n_services = service_store_count(in->store);
	s->n_backends = in->registry->n_backends;
	s->address_mask = power_of_two(s->n_own * 2 + 1) - 1;
	s->listener_mask = power_of_two(n.n_listeners * 2 + 1) - 1;
	b->own = take(b, s->n_own + 1u, sizeof(*b->own), 64);
	b->address_cells = take(b, s->address_mask + 1u, sizeof(*b->address_cells), 64);
	b->listeners = take(b, n.n_listeners + 1u, sizeof(*b->listeners), 64);
	b->listener_cells = take(b, s->listener_mask + 1u, sizeof(uint32_t), 64);
	b->backends = take(b, s->n_backends + 1u, sizeof(*b->backends), 64);
	b->sources = take(b, n.n_sources + 1u, sizeof(*b->sources), 64);
	b->services = take(b, s->n_services + 1u, sizeof(*b->services), 64);
	if (table_set_init(&b->compiled->root->tables, n.n_tables) != 0)
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

static bool is_own(const struct build *b, const struct address *address)
{
	const struct snapshot_address_cell *cell = build_cell_of(b, address);
	return cell->slot != SNAPSHOT_SLOT_NONE && cell->kind != SNAPSHOT_OWN_BACKEND;
}

static void own_set(struct build *b, struct snapshot_address_cell *cell,
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
	own_set(b, cell, address, slot, kind);
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
			own_set(b, cell, &backend->address, backend->kept.own_slot,
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
}

// ---------------------------------------------------------------- members of a listener
static uint8_t backend_flags(const struct build *b, const struct service_overlay *overlay)
{
	uint8_t flags = SNAPSHOT_BACKEND_LISTED;
	if (overlay && overlay->draining && overlay->reset_on_deadline && overlay->deadline_ms &&
		b->input->wall_ms >= overlay->deadline_ms)
		flags |= SNAPSHOT_BACKEND_RESET;
	return flags;
}

// Sent there, a packet would come back to us.
static bool comes_back(
	const struct build *b, const struct service *s, const struct address *address)
{
	const struct snapshot_health *health = &b->input->health;
	if (is_own(b, address))
		return true;
	return s->mode == SERVICE_MODE_L2DSR && health->on_link &&
	       !health->on_link(health->arg, address);
}

static void gather_one(struct build *b, const struct service *s, const struct service_listener *l,
	const struct service_backend *backend, struct balance_member *member)
{
	size_t i = (size_t)(member - b->members);
	const struct snapshot_health *health = &b->input->health;
	const struct service_overlay *overlay = service_store_find_overlay(
		b->input->store, s->namespace, s->name, &member->address, member->port);
	if (overlay && overlay->has_weight)
		member->weight = (uint16_t)overlay->weight;
	b->flags[i] = backend_flags(b, overlay);
	b->candidates[i] = (struct health_candidate){
		.conditions = backend->conditions,
		.probe = health->probe
				 ? health->probe(health->arg, s, l, &member->address, member->port)
				 : HEALTH_PROBE_UNKNOWN,
		.draining = overlay && overlay->draining,
		// Not in the table's weight: nodes may differ in their SNAT addresses and links, not in tables.
		.weight = comes_back(b, s, &member->address) ? 0 : member->weight,
	};
}

// Modes that can send to a backend of the other family than the VIP's.
static bool mode_crosses(enum service_mode mode)
{
	return mode == SERVICE_MODE_FULLNAT || mode == SERVICE_MODE_IPIP ||
	       mode == SERVICE_MODE_GUE;
}

bool snapshot_family_crosses(const struct service *s, bool vip_is_v4)
{
	if (!mode_crosses(s->mode) || s->n_backends == 0)
		return false;
	for (uint32_t k = 0; k < s->n_backends; k++) {
		if (address_is_v4(&s->backends[k].address) == vip_is_v4)
			return false;
	}
	return true;
}

// Members of listener j for VIPs of one family, in the order of the normalised service; b->next_id is the listener's first.
static uint32_t gather_members(struct build *b, const struct service *s, uint32_t j, bool vip_is_v4)
{
	const struct service_listener *l = &s->listeners[j];
	uint32_t n = 0, at = b->next_id;
	bool v4 = vip_is_v4 != snapshot_family_crosses(s, vip_is_v4);
	for (uint32_t k = 0; k < s->n_backends; k++) {
		const struct service_backend *backend = &s->backends[k];
		uint16_t port = service_backend_find_port(backend, l->name);
		if (port == 0)
			continue;
		uint32_t id = b->ids[at++];
		if (address_is_v4(&backend->address) != v4)
			continue;
		b->member_ids[n] = id;
		b->members[n] = (struct balance_member){ backend->address, port,
			(uint16_t)backend->weight };
		gather_one(b, s, l, backend, &b->members[n]);
		n++;
	}
	return n;
}

static int compare_ids(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
	return x < y ? -1 : x > y;
}

// A table of these members: the one that the listener had, or another one made since, or a new one.
static const struct table_block *patch_table(struct build *b, uint32_t n)
{
	struct build_root *root = b->compiled->root;
	const struct snapshot_listener *had = &b->before_snapshot->listeners[b->n_listeners];
	uint64_t digest = balance_digest(b->members, n);
	if (had->table_size) {
		const struct table_block *t = table_block_of(had->table);
		if (table_block_matches(t, digest, b->members, n))
			return t;
	}
	for (uint32_t i = b->first_scrap_table; i < root->n_scrap_tables; i++)
		if (table_block_matches(root->scrap_tables[i], digest, b->members, n))
			return root->scrap_tables[i];
	struct table_block *t = NULL;
	if (array_grow(root->scrap_tables, root->n_scrap_tables, root->scrap_tables_cap) != 0 ||
		table_block_build(digest, b->members, n, &t) != 0) {
		build_fail(b, ENOMEM);
		return NULL;
	}
	t->n_users = 1;
	root->scrap_tables[root->n_scrap_tables++] = t;
	root->scrap_bytes += sizeof(*t) + t->m * sizeof(t->slots[0]) + n * sizeof(*t->members);
	return t;
}

static const struct table_block *whole_table(struct build *b, uint32_t n)
{
	const struct table_block *t = NULL;
	const struct snapshot *previous = b->input->previous;
	struct build_root *root = previous ? build_compiled_of(previous)->root : NULL;
	struct table_former former = { 0 };
	if (root)
		former = (struct table_former){ &root->tables, root->scrap_tables,
			root->n_scrap_tables };
	int rc = table_set_get(&b->compiled->root->tables, &former, b->members, n, &t);
	if (rc != 0)
		build_fail(b, -rc);
	return t;
}

// Compiles the members that gather_members left in the scratch.
static void compile_members(struct build *b, uint32_t n, struct member_set *out)
{
	*out = (struct member_set){ .n_members = n };
	if (n == 0)
		return;
	uint32_t *ids = take(b, n * 2ull, sizeof(uint32_t), 8);
	out->table = b->before ? patch_table(b, n) : whole_table(b, n);
	if (ids == NULL || out->table == NULL) {
		build_fail(b, ENOMEM);
		return;
	}
	uint32_t *eligible = ids + n;
	memcpy(ids, b->member_ids, n * sizeof(*ids));
	uint32_t n_eligible = health_choose(b->candidates, n, b->eligible), at = 0;
	for (uint32_t i = 0; i < n; i++) {
		if (b->eligible[i])
			eligible[at++] = ids[i];
	}
	qsort(eligible, n_eligible, sizeof(*eligible), compare_ids);
	out->members = ids;
	out->eligible = eligible;
	out->n_eligible = n_eligible;
	out->digest = out->table->digest;
}

// The row of a desired backend. What its flows will need when it is gone is told to the registry.
static void backend_fill(struct build *b, const struct service_input *in, uint32_t id,
	const struct snapshot_backend *row)
{
	struct snapshot_backend *to = &b->backends[id];
	if (to->flags != 0)
		return; // a member for the other family of VIPs too, with the same answers
	struct registry_kept kept = b->input->registry->backends[id].kept;
	kept.mode = in->mode;
	kept.policy = in->policy;
	kept.drain_s = in->service->drain_timeout_s;
	registry_keep(b->input->registry, id, &kept);
	*to = *row;
	to->service_idx = in->service_idx;
	to->mode = in->mode;
	to->policy = in->policy;
	to->own_slot = in->mode == SNAPSHOT_DNAT ? kept.own_slot : SNAPSHOT_SLOT_NONE;
}

static void fill_members(struct build *b, uint32_t n, const struct service_input *in)
{
	for (uint32_t i = 0; i < n; i++) {
		const struct balance_member *m = &b->members[i];
		uint8_t flags = b->flags[i];
		if (b->eligible[i])
			flags |= SNAPSHOT_BACKEND_ELIGIBLE;
		struct snapshot_backend row = {
			.address = m->address,
			.port = m->port,
			.flags = flags,
			.listener_idx = b->n_listeners, // of the first VIP, added next
			.weight = m->weight,
		};
		backend_fill(b, in, b->member_ids[i], &row);
	}
}

// Backends of listener j that no VIP of it has as a member. Moves b->next_id on to the next listener.
static void fill_others(
	struct build *b, const struct service_input *in, uint32_t j, uint32_t first_listener)
{
	const struct service *s = in->service;
	for (uint32_t k = 0; k < s->n_backends; k++) {
		const struct service_backend *backend = &s->backends[k];
		uint16_t port = service_backend_find_port(backend, s->listeners[j].name);
		if (port == 0)
			continue;
		struct snapshot_backend row = {
			.address = backend->address,
			.port = port,
			.flags = SNAPSHOT_BACKEND_LISTED,
			.listener_idx = first_listener,
			.weight = backend->weight,
		};
		backend_fill(b, in, b->ids[b->next_id++], &row);
	}
}

// ---------------------------------------------------------------- listeners
static void digest_listener(struct build *b, const struct snapshot_listener *l, uint64_t members)
{
	struct {
		struct address vip;
		uint64_t numbers[4];
	} words = { .vip = b->own[l->slot].address };
	words.numbers[0] = rte_cpu_to_be_64(
		(uint64_t)l->protocol << 32 | (uint64_t)l->port << 16 | l->port_max);
	words.numbers[1] = rte_cpu_to_be_64(
		(uint64_t)l->scheduler << 32 | (uint64_t)l->affinity_s << 8 | l->mode);
	words.numbers[2] = rte_cpu_to_be_64(l->n_members);
	words.numbers[3] = rte_cpu_to_be_64(members);
	b->digest = hash_stable(&words, sizeof(words), b->digest);
}

// Only TCP streams can carry the client's address, and only fullnat hides it.
static uint8_t client_address_of(const struct service *s, uint8_t protocol)
{
	bool carries = s->mode == SERVICE_MODE_FULLNAT && protocol == NET_PROTO_TCP;
	return carries ? (uint8_t)s->client_address : SNAPSHOT_CLIENT_NONE;
}

// Where look-ups find it.
static void listener_place(struct build *b, const struct snapshot_listener *l)
{
	b->own[l->slot].tables |=
		snapshot_mode_is_oneway(l->mode) ? SNAPSHOT_TABLE_ONEWAY : SNAPSHOT_TABLE_NAT;
	if (l->port != l->port_max)
		return;
	uint32_t at = snapshot_listener_hash(l->slot, l->protocol, l->port);
	while (b->listener_cells[at & b->s->listener_mask] != UINT32_MAX)
		at++;
	b->listener_cells[at & b->s->listener_mask] = b->n_listeners;
}

// Where flows are opened by their client's worker, they lie there also when affinity or dnat is turned off: whoever misses one
// must go on looking for it there, or it would begin again elsewhere. So it stays as it was once, while the listener is there.
static bool opens_by_client(
	const struct build *b, const struct service_input *in, uint32_t j, uint16_t slot)
{
	const struct service_listener *listener = &in->service->listeners[j];
	if (in->mode == SNAPSHOT_DNAT || in->service->affinity_s > 0)
		return true;
	if (b->input->previous == NULL)
		return false;
	const struct snapshot_listener *before = snapshot_find_listener(
		b->input->previous, slot, listener->protocol, listener->port);
	return before != NULL && before->by_client;
}

static void listener_add(struct build *b, const struct service_input *in, uint32_t j, uint16_t slot,
	const struct member_set *set)
{
	const struct service_listener *listener = &in->service->listeners[j];
	struct snapshot_listener *l = &b->listeners[b->n_listeners];
	*l = (struct snapshot_listener){
		.slot = slot,
		.protocol = listener->protocol,
		.mode = in->mode,
		.port = listener->port,
		.port_max = listener->port_max,
		.service_idx = in->service_idx,
		.table_size = set->table ? set->table->m : 0,
		.table = set->table ? set->table->slots : NULL,
		.members = set->members,
		.eligible = set->eligible,
		.n_members = set->n_members,
		.n_eligible = set->n_eligible,
		.first_source = in->first_source,
		.n_sources = in->n_sources,
		.affinity_s = in->service->affinity_s,
		.policy = in->policy,
		.scheduler = (uint8_t)in->service->scheduler,
		.client_address = client_address_of(in->service, listener->protocol),
		.by_client = opens_by_client(b, in, j, slot),
	};
	digest_listener(b, l, set->digest);
	if (b->before == NULL) // else it can be found already
		listener_place(b, l);
	b->n_listeners++;
}

static void family_add(struct build *b, const struct service_input *in, uint32_t j, bool v4)
{
	const struct service *s = in->service;
	struct member_set set = { 0 };
	bool is_first = true;
	for (uint32_t k = 0; k < s->n_addresses && b->rc == 0; k++) {
		if (address_is_v4(&s->addresses[k]) != v4)
			continue;
		if (is_first) {
			uint32_t n = gather_members(b, s, j, v4);
			compile_members(b, n, &set);
			if (b->rc != 0)
				return;
			fill_members(b, n, in);
			is_first = false;
		}
		listener_add(b, in, j, in->slots[k], &set);
	}
}

// ---------------------------------------------------------------- services
// Ranges inside other ranges go, so that the rest is disjoint; IPv4 first. The normalised order has a range after the one that
// holds it.
static void add_sources(struct build *b, const struct service *s, bool v4, uint32_t first)
{
	for (uint32_t i = 0; i < s->n_source_ranges; i++) {
		const struct prefix *p = &s->source_ranges[i];
		const struct prefix *last =
			b->n_sources > first ? &b->sources[b->n_sources - 1] : NULL;
		if (address_is_v4(&p->address) != v4 ||
			(last && prefix_contains(last, &p->address)))
			continue;
		b->sources[b->n_sources++] = *p;
		b->digest = hash_stable(p->address.bytes, 16, b->digest + p->len);
	}
}

void build_add_sources(struct build *b, const struct service *s)
{
	uint32_t first = b->n_sources;
	add_sources(b, s, true, first);
	add_sources(b, s, false, first);
}

static bool service_input_init(struct build *b, struct service_input *in, const char *name)
{
	const struct service *s = in->service;
	int rc = snapshot_registry_policy(
		b->input->registry, s->tcp_idle_s, s->udp_idle_s, &in->policy);
	if (rc != 0) {
		build_fail(b, -error_add(b->err, EINVAL, name,
				      "more than %u different pairs of idle timeouts in use",
				      SNAPSHOT_POLICIES_MAX));
		return false;
	}
	for (uint32_t k = 0; k < s->n_addresses; k++)
		in->slots[k] = build_cell_of(b, &s->addresses[k])->slot;
	in->mode = (uint8_t)s->mode; // enum snapshot_mode has the same order
	in->first_source = b->n_sources;
	build_add_sources(b, s);
	in->n_sources = b->n_sources - in->first_source;
	return true;
}

uint64_t build_name_digest(const char *name)
{
	return hash_stable(name, strlen(name), 0);
}

void build_service_listeners(struct build *b, struct service_input *in)
{
	for (uint32_t j = 0; j < in->service->n_listeners && b->rc == 0; j++) {
		uint32_t first_listener = b->n_listeners;
		family_add(b, in, j, true);
		family_add(b, in, j, false);
		if (b->rc == 0)
			fill_others(b, in, j, first_listener);
	}
}

static void service_add(struct build *b, uint32_t service_idx)
{
	const struct service *s = service_store_at(b->input->store, service_idx);
	struct service_input in = { .service = s, .service_idx = service_idx };
	char name[2 * SERVICE_NAME_MAX];
	service_name(s, name, sizeof(name));
	b->services[service_idx] = (struct snapshot_service){
		.name = arena_strdup(b->arena, name),
		.id = service_idx,
	};
	if (b->services[service_idx].name == NULL)
		build_fail(b, ENOMEM);
	b->digest = build_name_digest(name);
	struct build_part *part = &b->compiled->parts[service_idx];
	part->first_listener = b->n_listeners;
	part->ids = b->ids + b->next_id;
	if (!service_input_init(b, &in, name))
		return;
	build_service_listeners(b, &in);
	part->n_listeners = b->n_listeners - part->first_listener;
	part->n_ids = (uint32_t)(b->ids + b->next_id - part->ids);
	part->digest = b->digest;
	b->s->digest += b->digest; // a sum, so that one service can be taken out and put back
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
	uint32_t *ranges = take(b, n + 1u, sizeof(*ranges), 64);
	struct range_key *keys = take(b, n + 1u, sizeof(*keys), 8);
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

static void fill_idle(struct build *b)
{
	uint32_t n = b->s->n_backends;
	struct snapshot_idle *idle = take(b, n + 1u, sizeof(*idle), 64);
	if (idle == NULL)
		return;
	for (uint32_t i = 0; i < n; i++) {
		const struct snapshot_backend *row = &b->backends[i];
		idle[i].policy = row->policy;
		if (row->listener_idx < b->n_listeners)
			idle[i].affinity_s = b->listeners[row->listener_idx].affinity_s;
	}
	b->s->idle = idle;
}

static void fill_tables(struct build *b)
{
	for (uint32_t i = 0; i <= b->s->address_mask; i++) {
		struct snapshot_address_cell *cell = &b->address_cells[i];
		if (cell->slot != SNAPSHOT_SLOT_NONE)
			cell->tables = b->own[cell->slot].tables;
	}
}

static void fill_tunnel_sources(struct build *b)
{
	for (uint32_t i = b->input->n_snat; i-- > 0;) {
		const struct address *a = &b->input->snat[i];
		b->s->tunnel_source[!address_is_v4(a)] = *a;
	}
}

static void fill_policies(struct build *b)
{
	const struct snapshot_registry *r = b->input->registry;
	struct snapshot_policy *policies = take(b, r->n_policies + 1u, sizeof(*policies), 64);
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
	c->overlays_generation = service_store_overlays_generation(input->store);
	c->wall_ms = input->wall_ms;
}

static void note_snat(struct build *b)
{
	const struct snapshot_input *in = b->input;
	struct address *snat = take(b, in->n_snat + 1u, sizeof(*snat), 8);
	if (snat == NULL)
		return;
	if (in->n_snat)
		memcpy(snat, in->snat, in->n_snat * sizeof(*snat));
	b->compiled->snat = snat;
	b->compiled->n_snat = in->n_snat;
}

static void build_fill(struct build *b)
{
	fill_addresses(b);
	for (uint32_t i = 0; i < b->s->n_services && b->rc == 0; i++)
		service_add(b, i);
	if (b->rc != 0)
		return;
	fill_ranges(b);
	fill_lingering(b);
	fill_idle(b);
	fill_policies(b);
	fill_tables(b);
	fill_tunnel_sources(b);
	note_snat(b);
	build_note_origin(b->compiled, b->input);
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
	uint32_t *ids = take(b, b->n_ids + 1u, sizeof(*ids), 8);
	b->compiled->parts =
		take(b, service_store_count(b->input->store) + 1u, sizeof(*b->compiled->parts), 8);
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
	struct compiled *compiled = build_compiled_create(NULL);
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
