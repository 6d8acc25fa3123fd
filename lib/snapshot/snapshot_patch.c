// SPDX-License-Identifier: BSD-3-Clause
// A snapshot from the one before, where only endpoints of some services are other than they were: what a cluster does all day.
//
//   before:  flats ──────► backends, idle, listeners, parts         copied, rows of the changed services made anew
//            root ───────► names, addresses, cells, sources,        shared: the root lives as long as anything made from it
//                          members and tables of all services
//   after:   own flats; new members and tables go to the root's scrap, which is thrown away with the root when a snapshot is
//            compiled whole again: because something else changed, or because there is too much scrap.
//
// Whoever reads a snapshot cannot tell which way it was made, but for the order of lingering rows nobody sees; equal desired state
// has an equal digest. Anything that is not plainly the simple case is compiled whole: this file only ever answers "not here".
// Cost: two copies of 36 bytes a backend, 80 a listener; a look at each service's generation; the changed services.
#include "build_priv.h"

#include <errno.h>
#include <stdlib.h>

#define SCRAP_MAX_BYTES  (32u << 20)
#define SCRAP_MAX_TABLES 4096

struct patch {
	struct build b;
	struct holder *holder;
	uint32_t *changed; // service indices, ascending
	uint32_t n_changed;
	uint32_t cap;
	uint32_t n_largest; // backends of one of them
	uint32_t *first_id; // [n_changed + 1] into b.ids
	uint64_t *digest;   // [n_changed] of name and sources
	struct snapshot_idle *idle;
};

// ---------------------------------------------------------------- is it the simple case?
static bool is_later_deadline(const struct snapshot_input *input, const struct compiled *before)
{
	for (uint32_t i = 0; i < service_store_overlay_count(input->store); i++) {
		const struct service_overlay *o = service_store_overlay_at(input->store, i);
		if (o->draining && o->reset_on_deadline && o->deadline_ms > before->wall_ms &&
			o->deadline_ms <= input->wall_ms)
			return true;
	}
	return false;
}

static bool may_patch(const struct snapshot_input *input)
{
	// After a build that was refused half way nobody knows what is in use.
	if (input->touched == NULL || input->previous == NULL || input->registry->is_torn)
		return false;
	const struct compiled *before = build_compiled_of(input->previous);
	const struct service_store *store = input->store;
	return before->store == store &&
	       before->names_generation == service_store_names_generation(store) &&
	       before->overlays_generation == service_store_overlays_generation(store) &&
	       before->n_snat == input->n_snat &&
	       (input->n_snat == 0 || memcmp(before->snat, input->snat,
					      input->n_snat * sizeof(*input->snat)) == 0) &&
	       before->root->scrap_bytes + before->root->scrap.used_bytes < SCRAP_MAX_BYTES &&
	       before->root->n_scrap_tables < SCRAP_MAX_TABLES && !is_later_deadline(input, before);
}

static bool is_touched(const struct snapshot_input *input, const struct snapshot_backend *row)
{
	for (uint32_t i = 0; i < input->touched->n_addresses; i++)
		if (address_equal(&input->touched->addresses[i], &row->address))
			return true;
	return false;
}

static int add_changed(struct patch *p, uint32_t service_idx)
{
	const struct service *s = service_store_at(p->b.input->store, service_idx);
	if (array_grow(p->changed, p->n_changed, p->cap) != 0)
		return -ENOMEM;
	p->changed[p->n_changed++] = service_idx;
	if (s->n_backends > p->n_largest)
		p->n_largest = s->n_backends;
	return 0;
}

static int compare_idx(const void *a, const void *b)
{
	const uint32_t *x = a, *y = b;
	return (*x > *y) - (*x < *y);
}

static int find_changed(struct patch *p)
{
	const struct snapshot_input *input = p->b.input;
	const struct snapshot *before = input->previous;
	uint32_t n_unique = 0;
	for (uint32_t i = 0; i < before->n_services; i++)
		if (service_store_at(input->store, i)->generation > p->b.before->store_generation &&
			add_changed(p, i) != 0)
			return -ENOMEM;
	for (uint32_t id = 0; input->touched->n_addresses && id < before->n_backends; id++) {
		const struct snapshot_backend *row = &before->backends[id];
		if (row->flags & SNAPSHOT_BACKEND_LISTED && is_touched(input, row) &&
			add_changed(p, row->service_idx) != 0)
			return -ENOMEM;
	}
	if (p->n_changed)
		qsort(p->changed, p->n_changed, sizeof(*p->changed), compare_idx);
	for (uint32_t i = 0; i < p->n_changed; i++)
		if (i == 0 || p->changed[i] != p->changed[n_unique - 1])
			p->changed[n_unique++] = p->changed[i];
	p->n_changed = n_unique;
	return 0;
}

// ---------------------------------------------------------------- is a service what it was, but for its endpoints?
// The listeners it would give, in the order in which they are made.
struct expected {
	const struct snapshot *before;
	uint32_t at; // listener
	uint32_t end;
};

static bool listener_is(struct expected *e, const struct service *s,
	const struct service_listener *l, const struct address *vip)
{
	const struct snapshot_listener *had = &e->before->listeners[e->at];
	const struct snapshot_policy *policy = &e->before->policies[had->policy];
	if (e->at++ >= e->end)
		return false;
	return address_equal(&e->before->own[had->slot].address, vip) &&
	       had->protocol == l->protocol && had->port == l->port &&
	       had->port_max == l->port_max && had->mode == (uint8_t)s->mode &&
	       policy->tcp_idle_s == s->tcp_idle_s && policy->udp_idle_s == s->udp_idle_s;
}

static bool listeners_are(
	const struct snapshot *before, const struct build_part *part, const struct service *s)
{
	struct expected e = { before, part->first_listener,
		part->first_listener + part->n_listeners };
	for (uint32_t j = 0; j < s->n_listeners; j++)
		for (int family = 0; family < 2; family++)
			for (uint32_t k = 0; k < s->n_addresses; k++)
				if (address_is_v4(&s->addresses[k]) == (family == 0) &&
					!listener_is(&e, s, &s->listeners[j], &s->addresses[k]))
					return false;
	return e.at == e.end;
}

// Are its sources those that it had? *digest goes on with them.
static bool sources_are(
	struct patch *p, const struct build_part *part, const struct service *s, uint64_t *digest)
{
	const struct snapshot *before = p->b.before_snapshot;
	struct prefix *scratch = calloc(s->n_source_ranges + 1u, sizeof(*scratch));
	struct build own = { .sources = scratch, .digest = *digest };
	if (scratch == NULL)
		return false;
	build_add_sources(&own, s);
	const struct snapshot_listener *first = &before->listeners[part->first_listener];
	bool same = part->n_listeners > 0 && own.n_sources == first->n_sources;
	for (uint32_t i = 0; same && i < own.n_sources; i++) {
		const struct prefix *had = &before->sources[first->first_source + i];
		same = had->len == scratch[i].len &&
		       address_equal(&had->address, &scratch[i].address);
	}
	*digest = own.digest;
	free(scratch);
	return same;
}

static bool has_own_slot(const struct patch *p, const uint32_t *ids, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		if (p->b.input->registry->backends[ids[i]].kept.own_slot != SNAPSHOT_SLOT_NONE)
			return true;
	return false;
}

static bool is_simple(struct patch *p, uint32_t i)
{
	const struct service *s = service_store_at(p->b.input->store, p->changed[i]);
	const struct build_part *part = &p->b.before->parts[p->changed[i]];
	p->digest[i] = build_name_digest(p->b.before_snapshot->services[p->changed[i]].name);
	return s->mode != SERVICE_MODE_DNAT && listeners_are(p->b.before_snapshot, part, s) &&
	       sources_are(p, part, s, &p->digest[i]) && !has_own_slot(p, part->ids, part->n_ids);
}

// 1: all are.
static int are_simple(struct patch *p)
{
	p->first_id = calloc(p->n_changed + 1u, sizeof(*p->first_id));
	p->digest = calloc(p->n_changed + 1u, sizeof(*p->digest));
	if (p->first_id == NULL || p->digest == NULL)
		return -ENOMEM;
	for (uint32_t i = 0; i < p->n_changed; i++)
		if (!is_simple(p, i))
			return 0;
	return 1;
}

// ---------------------------------------------------------------- copies
static void *copy(struct patch *p, const void *from, size_t n, size_t n_room, size_t size)
{
	char *mem = arena_alloc(&p->b.compiled->flats, (n_room + 1) * size, 64);
	if (mem == NULL)
		build_fail(&p->b, ENOMEM);
	else if (n)
		memcpy(mem, from, n * size);
	return mem;
}

static void make_flats(struct patch *p)
{
	struct build *b = &p->b;
	const struct snapshot *before = b->before_snapshot;
	struct snapshot *s = b->s;
	*s = *before;
	s->owner = p->holder;
	s->n_backends = b->input->registry->n_backends;
	b->backends =
		copy(p, before->backends, before->n_backends, s->n_backends, sizeof(*b->backends));
	b->listeners = copy(p, before->listeners, before->n_listeners, before->n_listeners,
		sizeof(*b->listeners));
	b->compiled->parts = copy(p, b->before->parts, before->n_services, before->n_services,
		sizeof(*b->compiled->parts));
	p->idle = copy(p, before->idle, before->n_backends, s->n_backends, sizeof(*p->idle));
	// Only read, but for what a whole compile does with them.
	b->own = (struct snapshot_own *)(uintptr_t)before->own;
	b->address_cells = (struct snapshot_address_cell *)(uintptr_t)before->address_cells;
}

// ---------------------------------------------------------------- numbers
static void assign(struct patch *p)
{
	struct build *b = &p->b;
	char text[2 * SERVICE_NAME_MAX];
	for (uint32_t i = 0; i < p->n_changed && b->rc == 0; i++) {
		const struct service *s = service_store_at(b->input->store, p->changed[i]);
		p->first_id[i] = b->n_ids;
		snprintf(text, sizeof(text), "%s/%s", s->namespace, s->name);
		for (uint32_t j = 0; j < s->n_listeners && b->rc == 0; j++)
			build_assign_ids(b, s, text, j);
	}
	p->first_id[p->n_changed] = b->n_ids;
}

// Rows that are made anew: of the changed services as they were, and of what lingered.
static void clear_rows(struct patch *p)
{
	struct build *b = &p->b;
	for (uint32_t i = 0; i < p->n_changed; i++) {
		const struct build_part *part = &b->before->parts[p->changed[i]];
		for (uint32_t k = 0; k < part->n_ids; k++)
			b->backends[part->ids[k]] = (struct snapshot_backend){ 0 };
	}
	for (uint32_t i = 0; i < b->before->n_lingering; i++)
		b->backends[b->before->lingering[i]] = (struct snapshot_backend){ 0 };
}

// ---------------------------------------------------------------- services
static void service_patch(struct patch *p, uint32_t i)
{
	struct build *b = &p->b;
	uint32_t service_idx = p->changed[i], n_ids = p->first_id[i + 1] - p->first_id[i];
	struct build_part *part = &b->compiled->parts[service_idx];
	struct service_input in = { .service = service_store_at(b->input->store, service_idx),
		.service_idx = service_idx,
		.mode = (uint8_t)service_store_at(b->input->store, service_idx)->mode };
	const struct snapshot_listener *first =
		&b->before_snapshot->listeners[part->first_listener];
	in.policy = first->policy;
	in.first_source = first->first_source;
	in.n_sources = first->n_sources;
	for (uint32_t k = 0; k < in.service->n_addresses; k++)
		in.slots[k] = build_cell_of(b, &in.service->addresses[k])->slot;
	uint32_t *ids = arena_alloc(b->arena, (n_ids + 1) * sizeof(*ids), 8);
	if (ids == NULL) {
		build_fail(b, ENOMEM);
		return;
	}
	if (n_ids)
		memcpy(ids, b->ids + p->first_id[i], n_ids * sizeof(*ids));
	b->digest = p->digest[i];
	b->next_id = p->first_id[i];
	b->n_listeners = part->first_listener;
	build_service_listeners(b, &in);
	b->s->digest += b->digest - part->digest;
	part->ids = ids;
	part->n_ids = n_ids;
	part->digest = b->digest;
}

// What the changed services no longer have, and what lingered before.
static void linger(struct patch *p)
{
	struct build *b = &p->b;
	struct snapshot_registry *r = b->input->registry;
	r->next_reset_ms = INT64_MAX;
	for (uint32_t i = 0; i < p->n_changed && b->rc == 0; i++) {
		const struct build_part *part = &b->before->parts[p->changed[i]];
		for (uint32_t k = 0; k < part->n_ids && b->rc == 0; k++) {
			if (b->backends[part->ids[k]].flags != 0)
				continue;
			if (registry_drop(r, part->ids[k]) != 0)
				build_fail(b, ENOMEM);
			build_linger(b, part->ids[k]);
		}
	}
	for (uint32_t i = 0; i < b->before->n_lingering && b->rc == 0; i++)
		build_linger(b, b->before->lingering[i]);
}

static void idle_row(struct patch *p, uint32_t id)
{
	const struct snapshot_backend *row = &p->b.backends[id];
	p->idle[id] = (struct snapshot_idle){ .policy = row->policy };
	if (row->listener_idx < p->b.s->n_listeners)
		p->idle[id].affinity_s = p->b.listeners[row->listener_idx].affinity_s;
}

// Of every row that was made anew.
static void fill_idle(struct patch *p)
{
	const struct build *b = &p->b;
	for (uint32_t i = 0; i < b->n_ids; i++)
		idle_row(p, b->ids[i]);
	for (uint32_t i = 0; i < b->before->n_lingering; i++)
		idle_row(p, b->before->lingering[i]);
	for (uint32_t i = 0; i < b->compiled->n_lingering; i++)
		idle_row(p, b->compiled->lingering[i]);
}

static void seal(struct patch *p)
{
	struct build *b = &p->b;
	b->s->generation = b->input->generation;
	b->s->fib = b->input->fib;
	b->s->backends = b->backends;
	b->s->listeners = b->listeners;
	b->s->idle = p->idle;
	b->compiled->snat = b->before->snat;
	b->compiled->n_snat = b->before->n_snat;
	build_note_origin(b->compiled, b->input);
}

// Nothing stands in the way any more, but memory.
static int make(struct patch *p)
{
	struct build *b = &p->b;
	p->holder = calloc(1, sizeof(*p->holder));
	b->compiled = build_compiled_create(b->before->root);
	if (p->holder == NULL || b->compiled == NULL)
		return -ENOMEM;
	p->holder->compiled = b->compiled;
	b->s = &p->holder->snapshot;
	b->arena = &b->before->root->scrap;
	b->first_scrap_table = b->before->root->n_scrap_tables;
	make_flats(p);
	build_scratch(b, p->n_largest + 1);
	if (b->rc == 0)
		clear_rows(p);
	for (uint32_t i = 0; i < p->n_changed && b->rc == 0; i++)
		service_patch(p, i);
	if (b->rc == 0)
		linger(p);
	if (b->rc != 0)
		return b->rc;
	fill_idle(p);
	seal(p);
	return 1;
}

static int find_and_make(struct patch *p)
{
	int rc = find_changed(p);
	if (rc == 0)
		rc = are_simple(p);
	if (rc != 1)
		return rc;
	assign(p);
	if (p->b.rc != 0)
		return p->b.rc;
	return has_own_slot(p, p->b.ids, p->b.n_ids) ? 0 : make(p);
}

int snapshot_patch(const struct snapshot_input *input, struct snapshot **out)
{
	if (!may_patch(input))
		return 0;
	struct patch p = { .b = { .input = input,
				   .before = build_compiled_of(input->previous),
				   .before_snapshot = input->previous } };
	int rc = find_and_make(&p);
	build_scratch_free(&p.b);
	free(p.b.ids);
	free(p.changed);
	free(p.first_id);
	free(p.digest);
	if (rc == 1) {
		*out = &p.holder->snapshot;
		return 1;
	}
	build_compiled_put(p.b.compiled);
	free(p.holder);
	return rc;
}
