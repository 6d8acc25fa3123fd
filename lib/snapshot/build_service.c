// SPDX-License-Identifier: BSD-3-Clause
// One service compiled: members and tables of its listeners, the listeners, the rows of its backends, its share of the digest.
// Both ways of compiling come here (build_priv.h): all services one after the other, or those alone that are other than they were.
#include "build_priv.h"

#include <errno.h>
#include <stdlib.h>

// ---------------------------------------------------------------- members of a listener
static uint8_t backend_flags(const struct build *b, const struct service_overlay *overlay)
{
	uint8_t flags = SNAPSHOT_BACKEND_LISTED;
	if (overlay && overlay->draining && overlay->reset_on_deadline && overlay->deadline_ms &&
		b->input->wall_ms >= overlay->deadline_ms)
		flags |= SNAPSHOT_BACKEND_RESET;
	return flags;
}

static bool is_own(const struct build *b, const struct address *address)
{
	const struct snapshot_address_cell *cell = build_cell_of(b, address);
	return cell->slot != SNAPSHOT_SLOT_NONE && cell->kind != SNAPSHOT_OWN_BACKEND;
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

// That the snapshot before had, where everything is compiled anew.
static struct table_block *former_table(const struct build *b, uint64_t digest, uint32_t n)
{
	const struct snapshot *previous = b->input->previous;
	if (b->before || previous == NULL)
		return NULL;
	const struct build_root *root = build_compiled_of(previous)->root;
	struct table_block *t = table_set_find(&root->tables, digest, b->members, n);
	return t ? t : table_set_find(&root->scrap_tables, digest, b->members, n);
}

// A table of these members: one that is there, or a new one.
static const struct table_block *table_of(struct build *b, uint32_t n)
{
	struct build_root *root = b->compiled->root;
	struct table_set *set = b->before ? &root->scrap_tables : &root->tables;
	uint64_t digest = balance_digest(b->members, n);
	struct table_block *t = table_set_find(&root->tables, digest, b->members, n), *fresh = NULL;
	if (t == NULL)
		t = table_set_find(&root->scrap_tables, digest, b->members, n);
	if (t != NULL)
		return t;
	t = former_table(b, digest, n);
	int rc = t ? 0 : table_block_build(digest, b->members, n, &fresh);
	t = t ? t : fresh;
	if (rc != 0 || table_set_add(set, t) != 0) {
		table_block_free(fresh);
		build_fail(b, rc ? -rc : ENOMEM);
		return NULL;
	}
	if (b->before)
		root->scrap_bytes +=
			sizeof(*t) + t->m * sizeof(t->slots[0]) + n * sizeof(*t->members);
	return t;
}

// Compiles the members that gather_members left in the scratch.
static void compile_members(struct build *b, uint32_t n, struct member_set *out)
{
	*out = (struct member_set){ .n_members = n };
	if (n == 0)
		return;
	uint32_t *ids = build_take(b, b->arena, n * 2ull, sizeof(uint32_t));
	out->table = table_of(b, n);
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

void build_service(struct build *b, uint32_t service_idx)
{
	const struct service *s = service_store_at(b->input->store, service_idx);
	struct service_input in = { .service = s, .service_idx = service_idx };
	const char *name = b->services[service_idx].name;
	struct build_part *part = &b->compiled->parts[service_idx];
	part->service = s;
	part->first_listener = b->n_listeners;
	part->ids = b->ids + b->next_id;
	b->digest = build_name_digest(name);
	if (!service_input_init(b, &in, name))
		return;
	build_service_listeners(b, &in);
	part->n_listeners = b->n_listeners - part->first_listener;
	part->n_ids = (uint32_t)(b->ids + b->next_id - part->ids);
	part->first_source = in.first_source;
	part->n_sources = in.n_sources;
	part->policy = in.policy;
	part->digest = b->digest;
	b->s->digest += b->digest; // a sum, so that one service can be taken out and put back
}
