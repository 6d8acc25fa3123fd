// SPDX-License-Identifier: BSD-3-Clause
// A snapshot from the one before, where some services are other than they were: what a cluster does all day.
//
//   only endpoints are (here):      flats ──► backends, staying, idle, listeners, parts  copied, rows of the changed services made anew
//                                   shape, root ──► the rest                          shared
//   services came, went or have     flats, shape ──► copied and spliced               every index of a service or listener moves
//   other addresses, listeners,     root ──► names, members and tables of the others  shared
//   policy (snapshot_splice.c):
//
// New members and tables go to the root's scrap, which is thrown away with the root when a snapshot is compiled whole again: because
// anything may be other than it was, or because there is too much scrap or change.
//
// Whoever reads a snapshot cannot tell which way it was made, but for the numbers nobody sees; equal desired state has an equal
// digest. What is not plainly understood is compiled whole: these files only ever answer "not here".
// Cost with endpoints alone: two copies of 36 bytes a backend, 80 a listener; a look at each service; the changed services.
#include "patch_priv.h"

#include <errno.h>
#include <stdlib.h>

#define SCRAP_MAX_BYTES  (32u << 20)
#define SCRAP_MAX_TABLES 4096
#define FEW_CHANGES      64 // at most so many, or half of all: else a whole compile costs no more

// ---------------------------------------------------------------- may it be, at all?
static bool may_patch(const struct snapshot_input *input)
{
	// After a build that was refused half way nobody knows what is in use.
	if (input->touched == NULL || input->previous == NULL || input->registry->is_torn ||
		input->registry->is_stale)
		return false;
	const struct compiled *before = build_compiled_of(input->previous);
	return before->store == input->store && before->n_snat == input->n_snat &&
	       (input->n_snat == 0 || memcmp(before->snat, input->snat,
					      input->n_snat * sizeof(*input->snat)) == 0) &&
	       before->root->scrap_bytes + before->root->scrap.used_bytes < SCRAP_MAX_BYTES &&
	       before->root->scrap_tables.n_items < SCRAP_MAX_TABLES;
}

// ---------------------------------------------------------------- what is other than it was?
int patch_touch(struct patch *p, const struct address *address)
{
	if (array_grow(p->touched, p->n_touched, p->touched_cap) != 0)
		return -ENOMEM;
	p->touched[p->n_touched++] = *address;
	return 0;
}

static int touch_what_input_says(struct patch *p)
{
	const struct snapshot_input *input = p->b.input;
	const struct service_store *store = input->store;
	int rc = 0;
	for (uint32_t i = 0; i < input->touched->n_addresses && rc == 0; i++)
		rc = patch_touch(p, &input->touched->addresses[i]);
	for (uint32_t i = 0; i < service_store_overlay_count(store) && rc == 0; i++) {
		const struct service_overlay *o = service_store_overlay_at(store, i);
		if (o->draining && o->reset_on_deadline && o->deadline_ms > p->b.before->wall_ms &&
			o->deadline_ms <= input->wall_ms)
			rc = patch_touch(p, &o->address);
	}
	return rc;
}

// Order of "namespace/name" and a service's name, as the store has it.
static int compare_name(const char *text, const struct service *s)
{
	size_t n = strcspn(text, "/");
	int order = strncmp(text, s->namespace, n);
	if (order == 0 && s->namespace[n])
		order = -1; // its namespace goes on
	return order ? order : strcmp(text + n + 1, s->name);
}

static int gone_add(struct patch *p, uint32_t before_idx)
{
	if (array_grow(p->gone, p->n_gone, p->gone_cap) != 0)
		return -ENOMEM;
	p->gone[p->n_gone++] = before_idx;
	return 0;
}

// Walks services as they were and as they are side by side; both are in the order of names. One that has not changed is known by its
// place in memory: it was there before, and no other one of that time can have had the same.
static int match_names(struct patch *p)
{
	const struct snapshot *before = p->b.before_snapshot;
	const struct build_part *parts = p->b.before->parts;
	uint32_t at = 0;
	for (uint32_t i = 0; i < p->n_services; i++) {
		const struct service *s = service_store_at(p->b.input->store, i);
		bool is_changed = s->revision > p->b.before->store_generation;
		int order = -1;
		for (; at < before->n_services; at++) {
			order = is_changed ? compare_name(before->services[at].name, s)
					   : -(parts[at].service != s);
			if (order >= 0)
				break;
			if (gone_add(p, at) != 0)
				return -ENOMEM;
		}
		p->is_changed[i] = is_changed;
		p->origin[i] = order == 0 && at < before->n_services ? at++ : PATCH_NEW;
		if (!is_changed && p->origin[i] == PATCH_NEW)
			return 0;
	}
	for (; at < before->n_services; at++)
		if (gone_add(p, at) != 0)
			return -ENOMEM;
	return 1;
}

static int find_changed(struct patch *p)
{
	const struct service_store *store = p->b.input->store;
	bool is_same = p->b.before->names_generation == service_store_names_generation(store);
	p->n_services = service_store_count(store);
	p->is_changed = calloc(p->n_services + 1u, sizeof(*p->is_changed));
	if (p->is_changed == NULL)
		return -ENOMEM;
	for (uint32_t i = 0; i < p->n_services && is_same; i++)
		p->is_changed[i] =
			service_store_at(store, i)->revision > p->b.before->store_generation;
	if (is_same)
		return 1;
	p->origin = calloc(p->n_services + 1u, sizeof(*p->origin));
	return p->origin ? match_names(p) : -ENOMEM;
}

// A set of addresses: open addressing, at most half full, an unspecified one is empty.
static bool is_in_set(const struct address *set, uint32_t mask, const struct address *address)
{
	for (uint32_t at = snapshot_address_hash(address);; at++) {
		const struct address *cell = &set[at & mask];
		if (address_is_unspecified(cell) || address_equal(cell, address))
			return !address_is_unspecified(cell);
	}
}

static struct address *make_set(const struct patch *p, uint32_t *out_mask)
{
	uint32_t mask = build_mask(p->n_touched);
	struct address *set = calloc(mask + 1u, sizeof(*set));
	for (uint32_t i = 0; set && i < p->n_touched; i++) {
		uint32_t at = snapshot_address_hash(&p->touched[i]);
		while (!address_is_unspecified(&set[at & mask]))
			at++;
		set[at & mask] = p->touched[i];
	}
	*out_mask = mask;
	return set;
}

// Services that have a backend at one of these addresses.
static int find_touched(struct patch *p)
{
	const struct snapshot *before = p->b.before_snapshot;
	uint32_t mask, *now_of = NULL;
	if (p->n_touched == 0)
		return 0;
	struct address *set = make_set(p, &mask);
	if (set == NULL ||
		(p->origin && !(now_of = calloc(before->n_services + 1u, sizeof(*now_of))))) {
		free(set);
		return -ENOMEM;
	}
	for (uint32_t i = 0; p->origin && i < p->n_services; i++)
		if (p->origin[i] != PATCH_NEW)
			now_of[p->origin[i]] = i + 1; // 0: gone
	for (uint32_t id = 0; id < before->n_backends; id++) {
		const struct snapshot_backend *row = &before->backends[id];
		if (!(row->flags & SNAPSHOT_BACKEND_LISTED) || !is_in_set(set, mask, &row->address))
			continue;
		uint32_t now = p->origin ? now_of[row->service_idx] : row->service_idx + 1;
		if (now)
			p->is_changed[now - 1] = true;
	}
	free(set);
	free(now_of);
	return 0;
}

static int list_changed(struct patch *p)
{
	free(p->changed);
	p->n_changed = p->n_largest = 0;
	for (uint32_t i = 0; i < p->n_services; i++)
		p->n_changed += p->is_changed[i];
	p->changed = calloc(p->n_changed + 1u, sizeof(*p->changed));
	if (p->changed == NULL)
		return -ENOMEM;
	for (uint32_t i = 0, n = 0; i < p->n_services; i++) {
		if (!p->is_changed[i])
			continue;
		const struct service *s = service_store_at(p->b.input->store, i);
		p->changed[n++] = i;
		if (s->n_backends > p->n_largest)
			p->n_largest = s->n_backends;
	}
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
	if (e->at++ >= e->end)
		return false;
	const struct snapshot_policy *policy = &e->before->policies[had->policy];
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
	const struct prefix *had = &p->b.before_snapshot->sources[part->first_source];
	struct prefix *scratch = calloc(s->n_source_ranges + 1u, sizeof(*scratch));
	struct build own = { .sources = scratch, .digest = *digest };
	if (scratch == NULL)
		return false;
	build_add_sources(&own, s);
	bool same = own.n_sources == part->n_sources;
	for (uint32_t i = 0; same && i < own.n_sources; i++)
		same = had[i].len == scratch[i].len &&
		       address_equal(&had[i].address, &scratch[i].address);
	*digest = own.digest;
	free(scratch);
	return same;
}

static bool has_own_slot(const struct patch *p, const uint32_t *ids, uint32_t n)
{
	const struct snapshot_registry *r = p->b.input->registry;
	for (uint32_t i = 0; r->has_own_slots && i < n; i++)
		if (r->backends[ids[i]].kept.own_slot != SNAPSHOT_SLOT_NONE)
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

// 1: all are, 0: not all, -ENOMEM.
static int are_simple(struct patch *p)
{
	if (p->origin)
		return 0;
	p->digest = calloc(p->n_changed + 1u, sizeof(*p->digest));
	if (p->digest == NULL)
		return -ENOMEM;
	for (uint32_t i = 0; i < p->n_changed; i++)
		if (!is_simple(p, i))
			return 0;
	return 1;
}

// ---------------------------------------------------------------- numbers
static int assign_ids(struct patch *p)
{
	struct build *b = &p->b;
	char text[2 * SERVICE_NAME_MAX];
	p->first_id = calloc(p->n_changed + 1u, sizeof(*p->first_id));
	if (p->first_id == NULL)
		return -ENOMEM;
	for (uint32_t i = 0; i < p->n_changed && b->rc == 0; i++) {
		const struct service *s = service_store_at(b->input->store, p->changed[i]);
		p->first_id[i] = b->n_ids;
		snprintf(text, sizeof(text), "%s/%s", s->namespace, s->name);
		for (uint32_t j = 0; j < s->n_listeners && b->rc == 0; j++)
			build_assign_ids(b, s, text, j);
	}
	p->first_id[p->n_changed] = b->n_ids;
	return b->rc;
}

const uint32_t *patch_keep_ids(struct patch *p, uint32_t i)
{
	struct build *b = &p->b;
	uint32_t n = p->first_id[i + 1] - p->first_id[i];
	uint32_t *ids = build_take(b, b->arena, n, sizeof(*ids));
	if (ids != NULL && n)
		memcpy(ids, b->ids + p->first_id[i], n * sizeof(*ids));
	return ids;
}

// ---------------------------------------------------------------- rows
void *patch_copy(struct patch *p, const void *from, size_t n, size_t n_room, size_t size)
{
	void *mem = build_take(&p->b, &p->b.compiled->flats, n_room, size);
	if (mem != NULL && n)
		memcpy(mem, from, n * size);
	return mem;
}

static void clear_row(struct build *b, uint32_t id)
{
	b->backends[id] = (struct snapshot_backend){ 0 };
	build_note_staying(b, id);
}

static void clear_part(struct patch *p, const struct build_part *part)
{
	for (uint32_t k = 0; part && k < part->n_ids; k++)
		clear_row(&p->b, part->ids[k]);
}

// Rows that are made anew: of services as they were, and of what lingered.
static void clear_rows(struct patch *p)
{
	const struct compiled *before = p->b.before;
	for (uint32_t i = 0; i < p->n_changed; i++)
		clear_part(p, patch_part_before(p, p->changed[i]));
	for (uint32_t i = 0; i < before->n_lingering; i++)
		clear_row(&p->b, before->lingering[i]);
}

static void linger_part(struct patch *p, const struct build_part *part)
{
	struct build *b = &p->b;
	for (uint32_t k = 0; part && k < part->n_ids && b->rc == 0; k++) {
		if (b->backends[part->ids[k]].flags != 0)
			continue;
		if (registry_drop(b->input->registry, part->ids[k]) != 0)
			build_fail(b, ENOMEM);
		build_linger(b, part->ids[k]);
	}
}

void patch_linger(struct patch *p)
{
	const struct compiled *before = p->b.before;
	p->b.input->registry->next_reset_ms = INT64_MAX;
	for (uint32_t i = 0; i < p->n_changed; i++)
		linger_part(p, patch_part_before(p, p->changed[i]));
	for (uint32_t i = 0; i < p->n_gone; i++)
		linger_part(p, &before->parts[p->gone[i]]);
	for (uint32_t i = 0; i < before->n_lingering && p->b.rc == 0; i++)
		build_linger(&p->b, before->lingering[i]);
}

static void fill_apart(struct patch *p, uint32_t id)
{
	const struct snapshot_backend *row = &p->b.backends[id];
	p->idle[id] = (struct snapshot_idle){ .policy = row->policy };
	if (row->listener_idx < p->b.s->n_listeners)
		p->idle[id].affinity_s = p->b.listeners[row->listener_idx].affinity_s;
	build_note_staying(&p->b, id);
}

void patch_fill_apart(struct patch *p)
{
	const struct build *b = &p->b;
	for (uint32_t i = 0; i < b->n_ids; i++)
		fill_apart(p, b->ids[i]);
	for (uint32_t i = 0; i < b->before->n_lingering; i++)
		fill_apart(p, b->before->lingering[i]);
	for (uint32_t i = 0; i < b->compiled->n_lingering; i++)
		fill_apart(p, b->compiled->lingering[i]);
}

// ---------------------------------------------------------------- endpoints alone
static void make_flats(struct patch *p)
{
	struct build *b = &p->b;
	const struct snapshot *before = b->before_snapshot;
	struct snapshot *s = b->s;
	*s = *before;
	s->owner = p->holder;
	s->n_backends = b->input->registry->n_backends;
	s->n_reclaims = b->input->registry->n_reclaims;
	b->backends = patch_copy(
		p, before->backends, before->n_backends, s->n_backends, sizeof(*b->backends));
	b->staying = patch_copy(p, before->staying, build_staying_words(before->n_backends),
		build_staying_words(s->n_backends), sizeof(*b->staying));
	b->listeners = patch_copy(p, before->listeners, before->n_listeners, before->n_listeners,
		sizeof(*b->listeners));
	b->compiled->parts = patch_copy(p, b->before->parts, before->n_services, before->n_services,
		sizeof(*b->compiled->parts));
	p->idle = patch_copy(p, before->idle, before->n_backends, s->n_backends, sizeof(*p->idle));
	// Only read, but for what a whole compile does with them.
	b->own = (struct snapshot_own *)(uintptr_t)before->own;
	b->address_cells = (struct snapshot_address_cell *)(uintptr_t)before->address_cells;
}

static void service_patch(struct patch *p, uint32_t i)
{
	struct build *b = &p->b;
	uint32_t service_idx = p->changed[i];
	struct build_part *part = &b->compiled->parts[service_idx];
	const struct service *s = service_store_at(b->input->store, service_idx);
	struct service_input in = { .service = s,
		.service_idx = service_idx,
		.mode = (uint8_t)s->mode,
		.policy = part->policy,
		.first_source = part->first_source,
		.n_sources = part->n_sources };
	for (uint32_t k = 0; k < s->n_addresses; k++)
		in.slots[k] = build_cell_of(b, &s->addresses[k])->slot;
	const uint32_t *ids = patch_keep_ids(p, i);
	if (ids == NULL)
		return;
	b->digest = p->digest[i];
	b->next_id = p->first_id[i];
	b->n_listeners = part->first_listener;
	build_service_listeners(b, &in);
	b->s->digest += b->digest - part->digest;
	part->service = s;
	part->ids = ids;
	part->n_ids = p->first_id[i + 1] - p->first_id[i];
	part->digest = b->digest;
}

static void seal(struct patch *p)
{
	struct build *b = &p->b;
	b->s->generation = b->input->generation;
	b->s->fib = b->input->fib;
	b->s->backends = b->backends;
	b->s->staying = b->staying;
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
	b->s = &p->holder->snapshot;
	b->arena = &b->before->root->scrap;
	b->compiled->uses = b->before->uses;
	b->compiled->n_sources = b->before->n_sources;
	make_flats(p);
	if (b->rc == 0)
		clear_rows(p);
	for (uint32_t i = 0; i < p->n_changed && b->rc == 0; i++)
		service_patch(p, i);
	if (b->rc == 0)
		patch_linger(p);
	if (b->rc == 0)
		patch_fill_apart(p);
	return b->rc;
}

static int make_either(struct patch *p, bool is_simple)
{
	struct build *b = &p->b;
	p->holder = calloc(1, sizeof(*p->holder));
	b->compiled = build_compiled_create(b->before->root, is_simple ? b->before->shape : NULL);
	if (p->holder == NULL || b->compiled == NULL)
		return -ENOMEM;
	p->holder->compiled = b->compiled;
	build_scratch(b, p->n_largest + 1);
	int rc = b->rc == 0 ? is_simple ? make(p) : splice_make(p) : b->rc;
	if (rc == 0)
		seal(p);
	return rc;
}

// 1: everything that is to be compiled again is in `changed`.
static int plan(struct patch *p, bool *out_simple)
{
	int rc = find_changed(p);
	if (rc == 1)
		rc = touch_what_input_says(p);
	else
		return rc;
	if (rc == 0)
		rc = find_touched(p);
	if (rc == 0)
		rc = list_changed(p);
	if (rc == 0)
		rc = are_simple(p);
	*out_simple = rc == 1;
	if (rc != 0)
		return rc;
	p->n_touched = 0;
	rc = splice_find_vips(p);
	if (rc == 1 && (find_touched(p) != 0 || list_changed(p) != 0))
		rc = -ENOMEM;
	return rc;
}

static int plan_and_make(struct patch *p)
{
	bool is_simple = false;
	int rc = plan(p, &is_simple);
	if (rc != 1)
		return rc;
	if (p->n_changed + p->n_gone > FEW_CHANGES && p->n_changed + p->n_gone > p->n_services / 2)
		return 0;
	rc = splice_count_left(p);
	if (rc == 0)
		rc = assign_ids(p);
	is_simple = is_simple && !has_own_slot(p, p->b.ids, p->b.n_ids);
	if (rc == 0)
		rc = make_either(p, is_simple);
	// More addresses or policies than there can be: the whole compile says so.
	return rc == -ENOMEM ? rc : rc == 0;
}

static void patch_fini(struct patch *p)
{
	build_scratch_free(&p->b);
	free(p->b.ids);
	free(p->origin);
	free(p->is_changed);
	free(p->changed);
	free(p->gone);
	free(p->touched);
	free(p->first_id);
	free(p->digest);
	free(p->vips);
	free(p->left);
	free(p->moved_to);
	free(p->shift);
}

int snapshot_patch(const struct snapshot_input *input, struct snapshot **out)
{
	if (!may_patch(input))
		return 0;
	struct patch p = { .b = { .input = input,
				   .before = build_compiled_of(input->previous),
				   .before_snapshot = input->previous } };
	int rc = plan_and_make(&p);
	patch_fini(&p);
	if (rc == 1) {
		*out = &p.holder->snapshot;
		return 1;
	}
	if (rc < 0)
		input->registry->is_torn = true; // what was asked for so far is in nobody's count
	build_compiled_put(p.b.compiled);
	free(p.holder);
	return rc;
}
