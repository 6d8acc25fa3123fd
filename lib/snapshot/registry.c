// SPDX-License-Identifier: BSD-3-Clause
// Stable numbers: own-address slots, backend ids, policy indices. They outlive snapshots, because flows hold them.
//
//   FREE ──used by a build──► USED ──missing from a build──► RELEASED(pass) ──safe_pass > pass──► FREE
//                              ▲────────used again──────────────┘
//
// A RELEASED number keeps its meaning (a service that comes back finds its flows); it is only given to somebody else
// after every worker has swept its whole table once since.
#include "registry_priv.h"

#include <errno.h>
#include <stdlib.h>

struct snapshot_registry *snapshot_registry_create(void)
{
	return calloc(1, sizeof(struct snapshot_registry));
}

void snapshot_registry_destroy(struct snapshot_registry *r)
{
	if (r == NULL)
		return;
	for (uint32_t i = 0; i < r->n_backends; i++)
		free(r->backends[i].name);
	free(r->slots);
	free(r->backends);
	free(r->slot_index.cells);
	free(r->backend_index.cells);
	free(r);
}

// ---------------------------------------------------------------- index: hash -> number

static uint64_t slot_hash(const struct snapshot_registry *r, uint32_t idx)
{
	return hash_stable(r->slots[idx].address.bytes, 16, 21);
}

static uint64_t backend_hash_of(const char *name, const struct address *address, uint16_t port)
{
	uint64_t h = hash_stable(name, strlen(name), 22);
	return hash_stable(address->bytes, 16, h ^ port);
}

static uint64_t backend_hash(const struct snapshot_registry *r, uint32_t idx)
{
	const struct registry_backend *b = &r->backends[idx];
	return backend_hash_of(b->name, &b->address, b->port);
}

static void index_put(struct registry_index *index, uint64_t hash, uint32_t idx)
{
	uint32_t at = (uint32_t)hash & index->mask;
	while (index->cells[at] != UINT32_MAX)
		at = (at + 1) & index->mask;
	index->cells[at] = idx;
}

// Room for n numbers at half load; refills from `live` when it grows or is rebuilt.
static int index_rebuild(struct snapshot_registry *r, struct registry_index *index, uint32_t n,
	uint64_t (*hash_of)(const struct snapshot_registry *, uint32_t))
{
	uint32_t size = 64;
	while (size < n * 2 + 2)
		size *= 2;
	uint32_t *cells = malloc(size * sizeof(*cells));
	if (cells == NULL)
		return -ENOMEM;
	memset(cells, 0xff, size * sizeof(*cells));
	free(index->cells);
	index->cells = cells;
	index->mask = size - 1;
	bool is_slot = index == &r->slot_index;
	uint32_t n_all = is_slot ? r->n_slots : r->n_backends;
	for (uint32_t i = 0; i < n_all; i++) {
		uint8_t state = is_slot ? r->slots[i].use.state : r->backends[i].use.state;
		if (state != REGISTRY_FREE)
			index_put(index, hash_of(r, i), i);
	}
	return 0;
}

static void use_now(const struct snapshot_registry *r, struct registry_use *use)
{
	use->state = REGISTRY_USED;
	use->epoch = r->epoch;
}

// ---------------------------------------------------------------- slots

static uint32_t slot_find(const struct snapshot_registry *r, const struct address *address)
{
	if (r->slot_index.cells == NULL)
		return UINT32_MAX;
	for (uint64_t h = hash_stable(address->bytes, 16, 21);; h++) {
		uint32_t idx = r->slot_index.cells[h & r->slot_index.mask];
		if (idx == UINT32_MAX || address_equal(&r->slots[idx].address, address))
			return idx;
	}
}

static int slot_grow(struct snapshot_registry *r, uint32_t n)
{
	while (r->n_slots < n) {
		if (array_grow(r->slots, r->n_slots, r->slots_cap) != 0)
			return -ENOMEM;
		r->slots[r->n_slots++] = (struct registry_slot){ 0 };
	}
	return 0;
}

static int slot_set(struct snapshot_registry *r, uint32_t idx, const struct address *address)
{
	if (idx >= SNAPSHOT_SLOTS_MAX)
		return -ENOSPC;
	int rc = slot_grow(r, idx + 1);
	if (rc != 0)
		return rc;
	r->slots[idx].address = *address;
	use_now(r, &r->slots[idx].use);
	r->n_slots_live++;
	if (r->slot_index.cells && r->n_slots_live * 2 < r->slot_index.mask) {
		index_put(&r->slot_index, slot_hash(r, idx), idx);
		return 0;
	}
	return index_rebuild(r, &r->slot_index, r->n_slots_live, slot_hash);
}

int snapshot_registry_slot(
	struct snapshot_registry *r, const struct address *address, uint16_t *out_slot)
{
	uint32_t idx = slot_find(r, address);
	if (idx != UINT32_MAX) {
		use_now(r, &r->slots[idx].use);
		*out_slot = (uint16_t)idx;
		return 0;
	}
	idx = r->slot_hint;
	while (idx < r->n_slots && r->slots[idx].use.state != REGISTRY_FREE)
		idx++;
	int rc = slot_set(r, idx, address);
	if (rc != 0)
		return rc;
	r->slot_hint = idx + 1;
	*out_slot = (uint16_t)idx;
	return 0;
}

int snapshot_registry_restore_slot(
	struct snapshot_registry *r, uint16_t slot, const struct address *address)
{
	uint32_t idx = slot_find(r, address);
	if (idx == slot)
		return 0;
	if (idx != UINT32_MAX || (slot < r->n_slots && r->slots[slot].use.state != REGISTRY_FREE))
		return -EEXIST;
	return slot_set(r, slot, address);
}

// ---------------------------------------------------------------- backends

static uint32_t backend_find(const struct snapshot_registry *r, const char *name,
	const struct address *address, uint16_t port)
{
	if (r->backend_index.cells == NULL)
		return UINT32_MAX;
	for (uint64_t h = backend_hash_of(name, address, port);; h++) {
		uint32_t idx = r->backend_index.cells[(uint32_t)h & r->backend_index.mask];
		if (idx == UINT32_MAX)
			return idx;
		const struct registry_backend *b = &r->backends[idx];
		if (b->port == port && address_equal(&b->address, address) &&
			strcmp(b->name, name) == 0)
			return idx;
	}
}

static int backend_new(struct snapshot_registry *r, const char *name, const struct address *address,
	uint16_t port, uint32_t *out_id)
{
	uint32_t idx = r->backend_hint;
	while (idx < r->n_backends && r->backends[idx].use.state != REGISTRY_FREE)
		idx++;
	if (idx == r->n_backends) {
		if (array_grow(r->backends, r->n_backends, r->backends_cap) != 0)
			return -ENOMEM;
		r->backends[r->n_backends++] = (struct registry_backend){ 0 };
	}
	char *copy = strdup(name);
	if (copy == NULL)
		return -ENOMEM;
	struct registry_backend *b = &r->backends[idx];
	*b = (struct registry_backend){ .name = copy, .address = *address, .port = port };
	use_now(r, &b->use);
	r->backend_hint = idx + 1;
	r->n_backends_live++;
	*out_id = idx;
	if (r->backend_index.cells && r->n_backends_live * 2 < r->backend_index.mask) {
		index_put(&r->backend_index, backend_hash(r, idx), idx);
		return 0;
	}
	return index_rebuild(r, &r->backend_index, r->n_backends_live, backend_hash);
}

int snapshot_registry_backend(struct snapshot_registry *r, const char *service,
	const char *listener, const struct address *address, uint16_t port, uint32_t *out_id)
{
	char name[3 * SERVICE_NAME_MAX + 4];
	snprintf(name, sizeof(name), "%s/%s", service, listener);
	uint32_t idx = backend_find(r, name, address, port);
	if (idx == UINT32_MAX)
		return backend_new(r, name, address, port, out_id);
	use_now(r, &r->backends[idx].use);
	*out_id = idx;
	return 0;
}

// ---------------------------------------------------------------- policies

int snapshot_registry_policy(
	struct snapshot_registry *r, uint32_t tcp_idle_s, uint32_t udp_idle_s, uint8_t *out_idx)
{
	uint32_t idx = UINT32_MAX;
	for (uint32_t i = 0; i < SNAPSHOT_POLICIES_MAX; i++) {
		struct registry_policy *p = &r->policies[i];
		if (p->use.state == REGISTRY_FREE) {
			if (idx == UINT32_MAX)
				idx = i;
		} else if (p->tcp_idle_s == tcp_idle_s && p->udp_idle_s == udp_idle_s) {
			idx = i;
			break;
		}
	}
	if (idx == UINT32_MAX)
		return -ENOSPC;
	r->policies[idx].tcp_idle_s = tcp_idle_s;
	r->policies[idx].udp_idle_s = udp_idle_s;
	use_now(r, &r->policies[idx].use);
	if (idx >= r->n_policies)
		r->n_policies = idx + 1;
	*out_idx = (uint8_t)idx;
	return 0;
}

// ---------------------------------------------------------------- release and reclaim

void registry_begin(struct snapshot_registry *r)
{
	r->epoch++;
}

static void use_release(const struct snapshot_registry *r, struct registry_use *use, uint64_t pass)
{
	if (use->state != REGISTRY_USED || use->epoch == r->epoch)
		return;
	use->state = REGISTRY_RELEASED;
	use->released_pass = pass;
}

void snapshot_registry_release(struct snapshot_registry *r, uint64_t pass)
{
	for (uint32_t i = 0; i < r->n_slots; i++)
		use_release(r, &r->slots[i].use, pass);
	for (uint32_t i = 0; i < r->n_backends; i++)
		use_release(r, &r->backends[i].use, pass);
	for (uint32_t i = 0; i < r->n_policies; i++)
		use_release(r, &r->policies[i].use, pass);
}

static bool use_reclaim(struct registry_use *use, uint64_t safe_pass)
{
	if (use->state != REGISTRY_RELEASED || use->released_pass >= safe_pass)
		return false;
	use->state = REGISTRY_FREE;
	return true;
}

void snapshot_registry_reclaim(struct snapshot_registry *r, uint64_t safe_pass)
{
	uint32_t n_slots = 0, n_backends = 0;
	for (uint32_t i = 0; i < r->n_slots; i++)
		n_slots += use_reclaim(&r->slots[i].use, safe_pass);
	for (uint32_t i = 0; i < r->n_backends; i++) {
		if (!use_reclaim(&r->backends[i].use, safe_pass))
			continue;
		free(r->backends[i].name);
		r->backends[i].name = NULL;
		n_backends++;
	}
	for (uint32_t i = 0; i < r->n_policies; i++)
		use_reclaim(&r->policies[i].use, safe_pass);
	r->n_slots_live -= n_slots;
	r->n_backends_live -= n_backends;
	if (n_slots > 0) {
		r->slot_hint = 0;
		index_rebuild(r, &r->slot_index, r->n_slots_live, slot_hash);
	}
	if (n_backends > 0) {
		r->backend_hint = 0;
		index_rebuild(r, &r->backend_index, r->n_backends_live, backend_hash);
	}
}
