// SPDX-License-Identifier: BSD-3-Clause
// Who may have (VIP, protocol, port) when several Services claim it: the older creationTimestamp, then the smaller UID, then the
// name. Nodes compute it each for itself and agree.
//
// A face holds when no older face that holds wants one of its claims: one that lost elsewhere is in nobody's way. When a face
// begins or ends to hold, younger ones on its claims are looked at again, and so on; each step goes to younger faces only,
// so it ends, and where it ends depends on the objects alone.
#include "kube_cluster_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static uint64_t hash_of(const struct kube_claim_map *map, const struct kube_claim *claim)
{
	uint64_t words[] = { claim->vip.halves[0], claim->vip.halves[1],
		(uint64_t)claim->protocol << 16 | claim->port };
	return hash_bytes(&map->key, words, sizeof(words));
}

static struct kube_claim **cell_of(const struct kube_claim_map *map, const struct kube_claim *claim)
{
	return &map->cells[hash_of(map, claim) & (map->n_cells - 1)];
}

static bool claims_meet(const struct kube_claim *a, const struct kube_claim *b)
{
	return a->port == b->port && a->protocol == b->protocol && address_equal(&a->vip, &b->vip);
}

static bool map_reserve(struct kube_claim_map *map, uint32_t n_more)
{
	uint64_t n_cells = map->n_cells ? map->n_cells : 64;
	while (n_cells < (uint64_t)map->n_claims + n_more)
		n_cells *= 2;
	if (n_cells == map->n_cells)
		return true;
	struct kube_claim_map grown = *map;
	grown.n_cells = (uint32_t)n_cells;
	grown.cells = calloc(n_cells, sizeof(*grown.cells));
	if (grown.cells == NULL)
		return false;
	for (uint32_t i = 0; i < map->n_cells; i++) {
		for (struct kube_claim *claim = map->cells[i], *next; claim; claim = next) {
			next = claim->next;
			struct kube_claim **cell = cell_of(&grown, claim);
			claim->next = *cell;
			*cell = claim;
		}
	}
	free(map->cells);
	*map = grown;
	return true;
}

static void set_link(struct kube_claim_map *map, struct kube_claim_set *set)
{
	for (uint32_t i = 0; i < set->n_items; i++) {
		struct kube_claim **cell = cell_of(map, &set->items[i]);
		set->items[i].next = *cell;
		*cell = &set->items[i];
	}
	map->n_claims += set->n_items;
}

static void set_drop(struct kube_claim_map *map, struct kube_claim_set *set)
{
	for (uint32_t i = 0; i < set->n_items; i++) {
		struct kube_claim **at = cell_of(map, &set->items[i]);
		while (*at != &set->items[i])
			at = &(*at)->next;
		*at = set->items[i].next;
	}
	map->n_claims -= set->n_items;
	free(set->items);
	*set = (struct kube_claim_set){ 0 };
}

// ---------------------------------------------------------------- age
// < 0: a is older. An object without a time is younger than all that have one.
static int compare_age(const struct kube_face *a, const struct kube_face *b)
{
	const struct kube_owner *x = a->owner, *y = b->owner;
	bool x_has = x->meta.created && x->meta.created[0];
	bool y_has = y->meta.created && y->meta.created[0];
	if (x_has != y_has)
		return x_has ? -1 : 1;
	int order = x_has ? strcmp(x->meta.created, y->meta.created) : 0;
	if (order == 0)
		order = strcmp(x->meta.uid ? x->meta.uid : "", y->meta.uid ? y->meta.uid : "");
	if (order == 0)
		order = strcmp(x->object.namespace, y->object.namespace);
	if (order == 0)
		order = strcmp(x->object.name, y->object.name);
	return order ? order : strcmp(a->hostname, b->hostname);
}

static const struct kube_claim *find_winner(
	const struct kube_claim_map *map, const struct kube_claim *claim)
{
	const struct kube_claim *other = *cell_of(map, claim);
	for (; other; other = other->next)
		if (!other->is_served && other->face != claim->face && other->face->holds &&
			claims_meet(other, claim) && compare_age(other->face, claim->face) < 0)
			break; // no two that hold meet
	return other;
}

const struct kube_claim *kube_claims_winner(
	const struct kube_cluster *c, const struct kube_face *face)
{
	for (uint32_t i = 0; i < face->wanted.n_items; i++) {
		const struct kube_claim *winner = find_winner(&c->claims, &face->wanted.items[i]);
		if (winner)
			return winner;
	}
	return NULL;
}

// ---------------------------------------------------------------- who holds
// A heap with the oldest on top, so that each face is looked at once, after all that it depends on. Room for every face is
// there since the face is.
static void work_add(struct kube_cluster *c, struct kube_face *face)
{
	if (face->is_at_work)
		return;
	face->is_at_work = true;
	uint32_t at = c->n_work++;
	while (at > 0 && compare_age(face, c->work[(at - 1) / 2]) < 0) {
		c->work[at] = c->work[(at - 1) / 2];
		at = (at - 1) / 2;
	}
	c->work[at] = face;
}

static struct kube_face *work_take(struct kube_cluster *c)
{
	struct kube_face *oldest = c->work[0], *last = c->work[--c->n_work];
	uint32_t at = 0;
	for (;;) {
		uint32_t child = 2 * at + 1;
		if (child + 1 < c->n_work && compare_age(c->work[child + 1], c->work[child]) < 0)
			child++;
		if (child >= c->n_work || compare_age(last, c->work[child]) <= 0)
			break;
		c->work[at] = c->work[child];
		at = child;
	}
	c->work[at] = last;
	oldest->is_at_work = false;
	return oldest;
}

static void work_add_younger(struct kube_cluster *c, const struct kube_face *face)
{
	for (uint32_t i = 0; i < face->wanted.n_items; i++) {
		const struct kube_claim *claim = &face->wanted.items[i];
		struct kube_claim *other = *cell_of(&c->claims, claim);
		for (; other; other = other->next)
			if (!other->is_served && other->face != face && claims_meet(other, claim) &&
				compare_age(face, other->face) < 0)
				work_add(c, other->face);
	}
}

// To the front of their cells: where many want the same, each finds at once who holds it.
static void claims_to_front(struct kube_claim_map *map, const struct kube_claim_set *set)
{
	for (uint32_t i = 0; i < set->n_items; i++) {
		struct kube_claim *claim = &set->items[i];
		struct kube_claim **cell = cell_of(map, claim), **at = cell;
		while (*at != claim)
			at = &(*at)->next;
		*at = claim->next;
		claim->next = *cell;
		*cell = claim;
	}
}

static void work_run(struct kube_cluster *c)
{
	while (c->n_work) {
		struct kube_face *face = work_take(c);
		bool holds = face->wanted.n_items && kube_claims_winner(c, face) == NULL;
		// Whom it loses to may be another one now, which is to be told.
		kube_face_queue(c, face, false);
		if (holds == face->holds)
			continue;
		face->holds = holds;
		if (holds)
			claims_to_front(&c->claims, &face->wanted);
		work_add_younger(c, face);
	}
}

static bool wants_the_same(const struct kube_face *face, const struct kube_claim_set *set)
{
	if (face->wanted.n_items != set->n_items)
		return false;
	for (uint32_t i = 0; i < set->n_items; i++)
		if (!claims_meet(&face->wanted.items[i], &set->items[i]))
			return false;
	return true;
}

static int set_make(struct kube_face *face, const struct address *vips, uint32_t n_vips,
	struct kube_claim_set *out)
{
	const struct kube_service *form = kube_owner_form(face->owner);
	uint32_t n_listeners = n_vips && form ? form->service->n_listeners : 0;
	*out = (struct kube_claim_set){ 0 };
	if (n_listeners == 0)
		return 0;
	out->items = calloc((size_t)n_vips * n_listeners, sizeof(*out->items));
	if (out->items == NULL)
		return -ENOMEM;
	for (uint32_t i = 0; i < n_vips * n_listeners; i++) {
		const struct service_listener *l = &form->service->listeners[i % n_listeners];
		out->items[out->n_items++] = (struct kube_claim){ .face = face,
			.vip = vips[i / n_listeners],
			.protocol = l->protocol,
			.port = l->port };
	}
	return 0;
}

int kube_claims_want(
	struct kube_cluster *c, struct kube_face *face, const struct address *vips, uint32_t n_vips)
{
	struct kube_claim_set fresh;
	if (set_make(face, vips, n_vips, &fresh) != 0)
		return -ENOMEM;
	if (wants_the_same(face, &fresh)) {
		free(fresh.items);
		return 0;
	}
	if (!map_reserve(&c->claims, fresh.n_items)) {
		free(fresh.items);
		return -ENOMEM;
	}
	if (face->holds)
		work_add_younger(c, face);
	if (c->claims.n_cells)
		set_drop(&c->claims, &face->wanted);
	face->wanted = fresh;
	face->holds = false;
	set_link(&c->claims, &face->wanted);
	work_add(c, face);
	work_run(c);
	return 0;
}

// ---------------------------------------------------------------- what is served
int kube_claims_serve(struct kube_cluster *c, struct kube_face *face)
{
	struct kube_claim_set fresh = { .n_items = face->wanted.n_items };
	fresh.items = calloc(fresh.n_items + 1u, sizeof(*fresh.items));
	if (fresh.items == NULL || !map_reserve(&c->claims, fresh.n_items)) {
		free(fresh.items);
		return -ENOMEM;
	}
	for (uint32_t i = 0; i < fresh.n_items; i++) {
		fresh.items[i] = face->wanted.items[i];
		fresh.items[i].is_served = true;
	}
	kube_claims_unserve(c, face);
	face->served = fresh;
	set_link(&c->claims, &face->served);
	return 0;
}

void kube_claims_unserve(struct kube_cluster *c, struct kube_face *face)
{
	if (c->claims.n_cells)
		set_drop(&c->claims, &face->served);
}

struct kube_face *kube_claims_in_the_way(const struct kube_cluster *c, const struct kube_face *face)
{
	for (uint32_t i = 0; i < face->wanted.n_items; i++) {
		const struct kube_claim *claim = &face->wanted.items[i];
		const struct kube_claim *other = *cell_of(&c->claims, claim);
		for (; other; other = other->next)
			if (other->is_served && other->face != face && claims_meet(other, claim))
				return other->face;
	}
	return NULL;
}

void kube_claims_fini(struct kube_claim_map *map)
{
	free(map->cells);
	map->cells = NULL;
	map->n_cells = map->n_claims = 0;
}
