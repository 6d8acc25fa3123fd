// SPDX-License-Identifier: BSD-3-Clause
// The store of desired services.
//
//   services   pointers sorted by (namespace, name)
//   claims     every (address, protocol, port..port_max) of every service, sorted; no two meet
//
// Invariants: every service is valid and normalised; the claims are exactly those of the services; a refused change
// alters nothing (memory is made sure of before the first write). Since no two claims meet, a new one can only meet its
// neighbours in the order, so a put costs log n and a move of the arrays; making the services of one owner anew sorts
// everything once.
#include "service.h"
#include "service_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct claim {
	struct address address;
	uint8_t protocol;
	uint16_t port;
	uint16_t port_max;
	uint16_t listener_idx;
	const struct service *service;
};

struct claim_list {
	struct claim *items;
	uint32_t n_items;
	uint32_t cap;
};

struct service_list {
	struct service **items;
	uint32_t n_items;
	uint32_t cap;
};

struct service_store { // [control]
	uint64_t generation;
	uint64_t names_generation; // at which a name came or went
	struct service_list services;
	struct claim_list claims;
	struct overlay_list overlays;
};

struct service_store *service_store_create(void)
{
	return calloc(1, sizeof(struct service_store));
}

void service_store_destroy(struct service_store *store)
{
	if (store == NULL)
		return;
	for (uint32_t i = 0; i < store->services.n_items; i++)
		service_destroy(store->services.items[i]);
	free(store->services.items);
	free(store->claims.items);
	overlay_list_fini(&store->overlays);
	free(store);
}

uint64_t service_store_generation(const struct service_store *store)
{
	return store->generation;
}

uint64_t service_store_names_generation(const struct service_store *store)
{
	return store->names_generation;
}

uint32_t service_store_count(const struct service_store *store)
{
	return store->services.n_items;
}

const struct service *service_store_at(const struct service_store *store, uint32_t idx)
{
	return idx < store->services.n_items ? store->services.items[idx] : NULL;
}

// First service that is not below (namespace, name); *out_found: it is that one.
static uint32_t find_place(
	const struct service_store *store, const char *namespace, const char *name, bool *out_found)
{
	uint32_t low = 0, high = store->services.n_items;
	*out_found = false;
	while (low < high) {
		uint32_t middle = (low + high) / 2;
		const struct service *s = store->services.items[middle];
		int order = service_compare_name(s->namespace, s->name, namespace, name);
		*out_found = *out_found || order == 0;
		if (order < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

const struct service *service_store_find(
	const struct service_store *store, const char *namespace, const char *name)
{
	bool found;
	uint32_t at = find_place(store, namespace, name, &found);
	return found ? store->services.items[at] : NULL;
}

// Makes room for `n` more elements: 0 or -ENOMEM.
static int reserve(void **items, uint32_t *cap, uint64_t n, size_t size)
{
	if (n <= *cap)
		return 0;
	uint64_t room = *cap ? *cap : 16;
	while (room < n)
		room *= 2;
	if (room > UINT32_MAX)
		return -ENOMEM;
	void *grown = reallocarray(*items, room, size);
	if (grown == NULL)
		return -ENOMEM;
	*items = grown;
	*cap = (uint32_t)room;
	return 0;
}

// ---------------------------------------------------------------- claims
static uint32_t count_claims(const struct service *s)
{
	return s->n_addresses * s->n_listeners;
}

static int compare_claims(const struct claim *a, const struct claim *b)
{
	int order = address_compare(&a->address, &b->address);
	if (order)
		return order;
	if (a->protocol != b->protocol)
		return a->protocol < b->protocol ? -1 : 1;
	return (a->port > b->port) - (a->port < b->port);
}

// Also by name where places are equal, so that messages are the same in any order of input.
static int compare_claims_and_names(const void *a, const void *b)
{
	const struct claim *x = a, *y = b;
	int order = compare_claims(x, y);
	if (order)
		return order;
	return service_compare_name(
		x->service->namespace, x->service->name, y->service->namespace, y->service->name);
}

static bool claims_meet(const struct claim *a, const struct claim *b)
{
	return address_equal(&a->address, &b->address) && a->protocol == b->protocol &&
	       a->port <= b->port_max && b->port <= a->port_max;
}

static struct claim make_claim(const struct service *s, uint32_t address_idx, uint32_t listener_idx)
{
	const struct service_listener *l = &s->listeners[listener_idx];
	return (struct claim){ .address = s->addresses[address_idx],
		.protocol = l->protocol,
		.port = l->port,
		.port_max = service_listener_last(l),
		.listener_idx = (uint16_t)listener_idx,
		.service = s };
}

static uint32_t find_claim_place(const struct claim_list *list, const struct claim *claim)
{
	uint32_t low = 0, high = list->n_items;
	while (low < high) {
		uint32_t middle = (low + high) / 2;
		if (compare_claims(&list->items[middle], claim) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

// Adds the claims of `s` in their places; the room is there.
static void insert_claims(struct claim_list *list, const struct service *s)
{
	for (uint32_t i = 0; i < count_claims(s); i++) {
		struct claim claim = make_claim(s, i / s->n_listeners, i % s->n_listeners);
		uint32_t at = find_claim_place(list, &claim);
		memmove(&list->items[at + 1], &list->items[at],
			(list->n_items - at) * sizeof(list->items[0]));
		list->items[at] = claim;
		list->n_items++;
	}
}

static void remove_claims(struct claim_list *list, const struct service *s)
{
	for (uint32_t i = 0; i < count_claims(s); i++) {
		struct claim claim = make_claim(s, i / s->n_listeners, i % s->n_listeners);
		uint32_t at = find_claim_place(list, &claim);
		list->n_items--;
		memmove(&list->items[at], &list->items[at + 1],
			(list->n_items - at) * sizeof(list->items[0]));
	}
}

static int add_conflict(struct error *err, const char *prefix, const struct claim *claim,
	const struct claim *holder)
{
	char path[3 * SERVICE_NAME_MAX], text[ADDRESS_TEXT_LEN], ports[16] = "";
	snprintf(path, sizeof(path), "%s/spec/listeners/%u", prefix, claim->listener_idx);
	if (claim->port_max > claim->port)
		snprintf(ports, sizeof(ports), "-%u", claim->port_max);
	return error_add(err, EADDRINUSE, path,
		"%s %s port %u%s belongs to service %s/%s (owner %s); allowed: an address, "
		"protocol "
		"and port that no other service has",
		address_format(&claim->address, text), service_protocol_name(claim->protocol),
		claim->port, ports, holder->service->namespace, holder->service->name,
		service_owner_name(holder->service->owner));
}

// Names every claim of `s` that meets one of another service; `old` is what `s` replaces.
static int check_claims(const struct service_store *store, const struct service *s,
	const struct service *old, struct error *err)
{
	const struct claim_list *list = &store->claims;
	int rc = 0;
	for (uint32_t i = 0; i < count_claims(s); i++) {
		struct claim claim = make_claim(s, i / s->n_listeners, i % s->n_listeners);
		uint32_t at = find_claim_place(list, &claim);
		if (at > 0 && claims_meet(&list->items[at - 1], &claim))
			at--;
		for (; at < list->n_items && claims_meet(&list->items[at], &claim); at++) {
			if (list->items[at].service == old)
				continue;
			rc = add_conflict(err, "", &claim, &list->items[at]);
			break;
		}
	}
	return rc;
}

// ---------------------------------------------------------------- one service
static int refuse_owner(struct error *err, const char *prefix, const struct service *held)
{
	char path[3 * SERVICE_NAME_MAX];
	snprintf(path, sizeof(path), "%s/metadata/name", prefix);
	return error_add(err, EEXIST, path,
		"service %s/%s is owned by %s; allowed: change it there, or take another name",
		held->namespace, held->name, service_owner_name(held->owner));
}

int service_store_put(struct service_store *store, const struct service *service, bool *out_changed,
	struct error *err)
{
	int rc = service_validate(service, err);
	if (rc != 0)
		return rc;
	bool found;
	uint32_t at = find_place(store, service->namespace, service->name, &found);
	struct service *old = found ? store->services.items[at] : NULL;
	if (old && old->owner != service->owner)
		return refuse_owner(err, "", old);
	rc = check_claims(store, service, old, err);
	if (rc != 0)
		return rc;
	struct service *copy = service_clone(service);
	if (copy == NULL ||
		reserve((void **)&store->services.items, &store->services.cap,
			store->services.n_items + 1ull, sizeof(*store->services.items)) != 0 ||
		reserve((void **)&store->claims.items, &store->claims.cap,
			(uint64_t)store->claims.n_items + count_claims(service),
			sizeof(*store->claims.items)) != 0) {
		service_destroy(copy);
		return error_add(err, ENOMEM, "", "out of memory");
	}
	service_normalise(copy);
	bool is_same = old && service_equal(old, copy);
	if (out_changed)
		*out_changed = !is_same;
	if (is_same) {
		service_destroy(copy);
		return 0;
	}
	copy->generation = copy->revision = ++store->generation;
	if (old) {
		remove_claims(&store->claims, old);
		service_destroy(old);
	} else {
		memmove(&store->services.items[at + 1], &store->services.items[at],
			(store->services.n_items - at) * sizeof(*store->services.items));
		store->services.n_items++;
		store->names_generation = store->generation;
	}
	store->services.items[at] = copy;
	insert_claims(&store->claims, copy);
	return 0;
}

int service_store_remove(struct service_store *store, const char *namespace, const char *name,
	enum service_owner owner, struct error *err)
{
	bool found;
	uint32_t at = find_place(store, namespace, name, &found);
	if (!found)
		return error_add(err, ENOENT, "", "no service %s/%s", namespace, name);
	struct service *s = store->services.items[at];
	if (s->owner != owner)
		return refuse_owner(err, "", s);
	remove_claims(&store->claims, s);
	service_destroy(s);
	store->services.n_items--;
	memmove(&store->services.items[at], &store->services.items[at + 1],
		(store->services.n_items - at) * sizeof(*store->services.items));
	store->names_generation = ++store->generation;
	return 0;
}

// ---------------------------------------------------------------- all services of one owner
// A change of everything of one owner, prepared beside the store and then swapped in.
struct replacement {
	enum service_owner owner;
	struct error *err;
	int rc; // first refusal
	struct service *
		*fresh; // [n_fresh] normalised copies, sorted by name; NULL: taken over or given up
	uint32_t n_fresh;
	struct service_list
		merged; // what the store will hold: fresh ones, kept ones, those of other owners
	struct claim_list claims;
	uint32_t n_changed;
};

static void refuse_replacement(struct replacement *r, int rc)
{
	// A value that does not validate is the more basic fault than a conflict.
	if (r->rc == 0 || rc == -EINVAL)
		r->rc = rc;
}

static int compare_services(const void *a, const void *b)
{
	const struct service *const *x = a, *const *y = b;
	return service_compare_name((*x)->namespace, (*x)->name, (*y)->namespace, (*y)->name);
}

static void format_name(const struct service *s, char *buf, size_t len)
{
	snprintf(buf, len, "%s/%s", s->namespace, s->name);
}

// Validates and copies. Leaves out services that do not validate, so that conflicts among the others still show.
static void take_services(
	struct replacement *r, struct service *const *services, uint32_t n_services)
{
	char prefix[2 * SERVICE_NAME_MAX];
	for (uint32_t i = 0; i < n_services; i++) {
		struct error findings = { 0 };
		int rc = service_validate(services[i], &findings);
		struct service *copy = rc == 0 ? service_clone(services[i]) : NULL;
		if (rc == 0 && copy == NULL)
			rc = error_add(&findings, ENOMEM, "", "out of memory");
		if (rc != 0) {
			format_name(services[i], prefix, sizeof(prefix));
			error_merge(r->err, &findings, prefix);
			refuse_replacement(r, rc);
			error_fini(&findings);
			continue;
		}
		service_normalise(copy);
		copy->owner = r->owner;
		r->fresh[r->n_fresh++] = copy;
	}
	if (r->n_fresh)
		qsort(r->fresh, r->n_fresh, sizeof(r->fresh[0]), compare_services);
	for (uint32_t i = 1; i < r->n_fresh; i++) {
		if (compare_services(&r->fresh[i - 1], &r->fresh[i]) != 0)
			continue;
		format_name(r->fresh[i], prefix, sizeof(prefix));
		refuse_replacement(r,
			error_add(r->err, EINVAL, prefix, "given twice; allowed: each name once"));
	}
}

// Adds a fresh service to the merged list: `held` has its name already (or is NULL).
static void merge_fresh(struct replacement *r, uint32_t idx, struct service *held)
{
	struct service *fresh = r->fresh[idx];
	char prefix[2 * SERVICE_NAME_MAX];
	struct service *chosen = fresh;
	if (held && held->owner != r->owner) {
		format_name(fresh, prefix, sizeof(prefix));
		refuse_replacement(r, refuse_owner(r->err, prefix, held));
		chosen = held;
	} else if (held && service_equal(held, fresh)) {
		chosen = held;
	} else {
		r->n_changed++;
	}
	r->merged.items[r->merged.n_items++] = chosen;
}

// Walks both sorted lists side by side. Names given twice have been refused already.
static void merge_services(struct replacement *r, const struct service_store *store)
{
	uint32_t old_idx = 0, idx = 0;
	while (old_idx < store->services.n_items || idx < r->n_fresh) {
		struct service *held = NULL;
		if (old_idx < store->services.n_items)
			held = store->services.items[old_idx];
		int order = idx == r->n_fresh ? -1 : 1;
		if (held && idx < r->n_fresh)
			order = compare_services(&held, &r->fresh[idx]);
		if (order < 0) { // in the store only
			old_idx++;
			if (held->owner == r->owner)
				r->n_changed++; // goes
			else
				r->merged.items[r->merged.n_items++] = held;
			continue;
		}
		if (order == 0)
			old_idx++;
		merge_fresh(r, idx++, order == 0 ? held : NULL);
	}
}

// Claims of all merged services, sorted. The ones that meet are refused, each at the service of this owner.
static int merge_claims(struct replacement *r)
{
	uint64_t n = 0;
	for (uint32_t i = 0; i < r->merged.n_items; i++)
		n += count_claims(r->merged.items[i]);
	if (reserve((void **)&r->claims.items, &r->claims.cap, n, sizeof(*r->claims.items)) != 0)
		return -ENOMEM;
	for (uint32_t i = 0; i < r->merged.n_items; i++) {
		const struct service *s = r->merged.items[i];
		for (uint32_t c = 0; c < count_claims(s); c++)
			r->claims.items[r->claims.n_items++] =
				make_claim(s, c / s->n_listeners, c % s->n_listeners);
	}
	if (r->claims.n_items)
		qsort(r->claims.items, r->claims.n_items, sizeof(*r->claims.items),
			compare_claims_and_names);
	char prefix[2 * SERVICE_NAME_MAX];
	uint32_t reach = 0; // the claim that reaches furthest so far
	for (uint32_t i = 1; i < r->claims.n_items; i++) {
		const struct claim *claim = &r->claims.items[i], *holder = &r->claims.items[reach];
		bool meets = claims_meet(holder, claim);
		if (!meets || claim->port_max > holder->port_max)
			reach = i;
		// (A service given twice has been refused as that.)
		if (!meets || compare_services(&claim->service, &holder->service) == 0)
			continue;
		if (claim->service->owner != r->owner) {
			const struct claim *other = claim;
			claim = holder;
			holder = other;
		}
		format_name(claim->service, prefix, sizeof(prefix));
		refuse_replacement(r, add_conflict(r->err, prefix, claim, holder));
	}
	return 0;
}

// Swaps the prepared lists in and frees what no longer stands.
static void commit_replacement(struct replacement *r, struct service_store *store)
{
	uint32_t new_idx = 0;
	if (r->n_changed)
		store->names_generation = ++store->generation;
	for (uint32_t i = 0; i < store->services.n_items; i++) {
		struct service *old = store->services.items[i];
		while (new_idx < r->merged.n_items &&
			compare_services(&r->merged.items[new_idx], &old) < 0)
			new_idx++;
		if (new_idx == r->merged.n_items || r->merged.items[new_idx] != old)
			service_destroy(old);
	}
	uint32_t idx = 0;
	for (uint32_t i = 0; i < r->merged.n_items && idx < r->n_fresh; i++) {
		if (compare_services(&r->merged.items[i], &r->fresh[idx]) != 0)
			continue;
		if (r->merged.items[i] == r->fresh[idx]) {
			r->fresh[idx]->generation = store->generation;
			r->fresh[idx]->revision = store->generation;
			r->fresh[idx] = NULL; // the store's now
		}
		idx++;
	}
	free(store->services.items);
	free(store->claims.items);
	store->services = r->merged;
	store->claims = r->claims;
	r->merged = (struct service_list){ 0 };
	r->claims = (struct claim_list){ 0 };
}

int service_store_replace_owner(struct service_store *store, enum service_owner owner,
	struct service *const *services, uint32_t n_services, uint32_t *out_n_changed,
	struct error *err)
{
	struct replacement r = { .owner = owner, .err = err };
	uint64_t n_merged = (uint64_t)n_services + store->services.n_items;
	r.fresh = calloc(n_services + 1ull, sizeof(*r.fresh));
	if (r.fresh == NULL || reserve((void **)&r.merged.items, &r.merged.cap, n_merged,
				       sizeof(*r.merged.items)) != 0) {
		r.rc = error_add(err, ENOMEM, "", "out of memory");
		goto out;
	}
	take_services(&r, services, n_services);
	merge_services(&r, store);
	if (merge_claims(&r) != 0)
		r.rc = error_add(err, ENOMEM, "", "out of memory");
	if (r.rc == 0) {
		commit_replacement(&r, store);
		if (out_n_changed)
			*out_n_changed = r.n_changed;
	}
out:
	for (uint32_t i = 0; i < r.n_fresh; i++)
		service_destroy(r.fresh[i]);
	free(r.fresh);
	free(r.merged.items);
	free(r.claims.items);
	return r.rc;
}

// ---------------------------------------------------------------- overlay
static void overlay_changed(struct service_store *store, const char *namespace, const char *name)
{
	bool found;
	uint32_t at = find_place(store, namespace, name, &found);
	store->generation++;
	if (found)
		store->services.items[at]->revision = store->generation;
}

int service_store_put_overlay(struct service_store *store, const struct service_overlay *overlay)
{
	bool changed = false;
	int rc = overlay_list_put(&store->overlays, overlay, &changed);
	if (rc == 0 && changed)
		overlay_changed(store, overlay->namespace, overlay->name);
	return rc;
}

int service_store_remove_overlay(struct service_store *store, const char *namespace,
	const char *name, const struct address *address, uint16_t port)
{
	struct overlay_key key = { namespace, name, address, port };
	int rc = overlay_list_remove(&store->overlays, &key);
	if (rc == 0)
		overlay_changed(store, namespace, name);
	return rc;
}

uint32_t service_store_overlay_count(const struct service_store *store)
{
	return store->overlays.n_items;
}

const struct service_overlay *service_store_overlay_at(
	const struct service_store *store, uint32_t idx)
{
	return idx < store->overlays.n_items ? store->overlays.items[idx] : NULL;
}

const struct service_overlay *service_store_find_overlay(const struct service_store *store,
	const char *namespace, const char *name, const struct address *address, uint16_t port)
{
	if (store->overlays.n_items == 0)
		return NULL;
	struct overlay_key key = { namespace, name, address, port };
	const struct service_overlay *exact = overlay_list_find(&store->overlays, &key);
	key.port = 0;
	return exact ? exact : overlay_list_find(&store->overlays, &key);
}
