// SPDX-License-Identifier: BSD-3-Clause
// Stable numbers: own-address slots, backend ids, policy indices. They outlive snapshots, because flows hold them.
//
//   FREE ──used by a build──► USED ──missing from a build──► RELEASED(pass) ──safe_pass > pass──► FREE
//                              ▲────────used again──────────────┘
//
// A RELEASED number keeps its meaning (a service that comes back finds its flows); it is only given to somebody else
// once control says that no flow can hold it any more.
//
// Invariant: a number is in its index iff it is not FREE. Memory for the index is made sure of before a number is
// taken, and freeing needs none, so running out of memory leaves the registry as it was.
#include "registry_priv.h"

#include <errno.h>
#include <stdlib.h>

struct snapshot_registry *snapshot_registry_create(void)
{
	struct snapshot_registry *r = calloc(1, sizeof(struct snapshot_registry));
	if (r != NULL)
		r->next_reset_ms = INT64_MAX;
	return r;
}

void snapshot_registry_destroy(struct snapshot_registry *r)
{
	if (r == NULL)
		return;
	for (uint32_t i = 0; i < r->n_backends; i++)
		free(r->backends[i].name);
	free(r->slots);
	free(r->dropped);
	free(r->dropped_slots);
	free(r->backends);
	free(r->slot_index.cells);
	free(r->backend_index.cells);
	free(r);
}

// ---------------------------------------------------------------- index: hash -> number
static void index_put(struct registry_index *index, uint64_t hash, uint32_t idx)
{
	uint32_t at = (uint32_t)hash & index->mask;
	while (index->cells[at] != UINT32_MAX)
		at = (at + 1) & index->mask;
	index->cells[at] = idx;
}

static void index_refill(struct snapshot_registry *r, struct registry_index *index)
{
	bool is_slot = index == &r->slot_index;
	uint32_t n = is_slot ? r->n_slots : r->n_backends;
	memset(index->cells, 0xff, (index->mask + 1ull) * sizeof(*index->cells));
	for (uint32_t i = 0; i < n; i++) {
		const struct registry_use *use = is_slot ? &r->slots[i].use : &r->backends[i].use;
		if (use->state != REGISTRY_FREE)
			index_put(index, use->hash, i);
	}
}

// Makes sure that one number more fits at half load.
static int index_reserve(struct snapshot_registry *r, struct registry_index *index)
{
	uint64_t size = index->cells ? index->mask + 1ull : 0;
	if ((index->n_live + 1ull) * 2 <= size)
		return 0;
	size = size ? size * 2 : 64;
	uint32_t *cells = reallocarray(index->cells, size, sizeof(*cells));
	if (cells == NULL)
		return -ENOMEM;
	index->cells = cells;
	index->mask = (uint32_t)(size - 1);
	index_refill(r, index);
	return 0;
}

static void use_now(const struct snapshot_registry *r, struct registry_use *use)
{
	use->state = REGISTRY_USED;
	use->epoch = r->epoch;
}

// A number gets a meaning: one line of the journal (registry_log.c).
static void use_new(struct snapshot_registry *r, struct registry_use *use)
{
	use_now(r, use);
	use->is_fresh = true;
	r->n_fresh++;
}

// ---------------------------------------------------------------- slots
static uint64_t slot_hash(const struct address *address)
{
	return hash_stable(address->bytes, 16, 21);
}

static uint32_t slot_find(const struct snapshot_registry *r, const struct address *address)
{
	const struct registry_index *index = &r->slot_index;
	if (index->cells == NULL)
		return UINT32_MAX;
	for (uint32_t at = (uint32_t)slot_hash(address);; at++) {
		uint32_t idx = index->cells[at & index->mask];
		if (idx == UINT32_MAX || address_equal(&r->slots[idx].address, address))
			return idx;
	}
}

// Takes FREE slot idx, which may lie beyond the end.
static int slot_set(struct snapshot_registry *r, uint32_t idx, const struct address *address)
{
	if (idx >= SNAPSHOT_SLOTS_MAX)
		return -ENOSPC;
	while (r->n_slots <= idx) {
		if (array_grow(r->slots, r->n_slots, r->slots_cap) != 0)
			return -ENOMEM;
		r->slots[r->n_slots++] = (struct registry_slot){ 0 };
	}
	if (index_reserve(r, &r->slot_index) != 0)
		return -ENOMEM;
	struct registry_slot *slot = &r->slots[idx];
	slot->address = *address;
	slot->use.hash = slot_hash(address);
	use_new(r, &slot->use);
	index_put(&r->slot_index, slot->use.hash, idx);
	r->slot_index.n_live++;
	return 0;
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
void registry_name_init(struct registry_name *name, const char *service, const char *listener)
{
	int len = snprintf(name->text, sizeof(name->text), "%s/%s", service, listener);
	size_t n = (size_t)len < sizeof(name->text) ? (size_t)len : sizeof(name->text) - 1;
	name->hash = hash_stable(name->text, n, 22);
}

static uint64_t backend_hash(
	const struct registry_name *name, const struct address *address, uint16_t port)
{
	return hash_stable(address->bytes, 16, name->hash + port);
}

static uint32_t backend_find(const struct snapshot_registry *r, const struct registry_name *name,
	const struct address *address, uint16_t port)
{
	const struct registry_index *index = &r->backend_index;
	if (index->cells == NULL)
		return UINT32_MAX;
	uint64_t hash = backend_hash(name, address, port);
	for (uint32_t at = (uint32_t)hash;; at++) {
		uint32_t idx = index->cells[at & index->mask];
		if (idx == UINT32_MAX)
			return idx;
		const struct registry_backend *b = &r->backends[idx];
		if (b->use.hash == hash && b->port == port && address_equal(&b->address, address) &&
			strcmp(b->name, name->text) == 0)
			return idx;
	}
}

// Makes FREE rows up to and including idx.
static int backend_room(struct snapshot_registry *r, uint32_t idx)
{
	while (r->n_backends <= idx) {
		if (array_grow(r->backends, r->n_backends, r->backends_cap) != 0)
			return -ENOMEM;
		r->backends[r->n_backends++] = (struct registry_backend){ 0 };
	}
	return 0;
}

// Gives FREE row idx a meaning.
static int backend_set(struct snapshot_registry *r, uint32_t idx, const struct registry_name *name,
	const struct address *address, uint16_t port)
{
	if (backend_room(r, idx) != 0)
		return -ENOMEM;
	char *copy = strdup(name->text);
	if (copy == NULL || index_reserve(r, &r->backend_index) != 0) {
		free(copy);
		return -ENOMEM;
	}
	struct registry_backend *b = &r->backends[idx];
	struct registry_kept kept = b->is_kept_read ? b->kept : REGISTRY_KEPT_NONE;
	*b = (struct registry_backend){
		.name = copy, .address = *address, .port = port, .kept = kept
	};
	b->use.hash = backend_hash(name, address, port);
	use_new(r, &b->use);
	index_put(&r->backend_index, b->use.hash, idx);
	r->backend_index.n_live++;
	return 0;
}

static int backend_new(struct snapshot_registry *r, const struct registry_name *name,
	const struct address *address, uint16_t port, uint32_t *out_id)
{
	uint32_t idx = r->backend_hint;
	while (idx < r->n_backends && r->backends[idx].use.state != REGISTRY_FREE)
		idx++;
	if (idx < r->n_backends)
		r->backends[idx].is_kept_read = false; // nobody's: its backend's line never came
	int rc = backend_set(r, idx, name, address, port);
	if (rc != 0)
		return rc;
	r->backend_hint = idx + 1;
	*out_id = idx;
	return 0;
}

int registry_restore_backend(struct snapshot_registry *r, uint32_t idx, const char *name,
	const struct address *address, uint16_t port)
{
	struct registry_name key;
	const char *slash = strrchr(name, '/');
	char service[2 * SERVICE_NAME_MAX + 2];
	if (slash == NULL || (size_t)(slash - name) >= sizeof(service) ||
		idx >= REGISTRY_BACKENDS_MAX)
		return -EINVAL;
	snprintf(service, sizeof(service), "%.*s", (int)(slash - name), name);
	registry_name_init(&key, service, slash + 1);
	if ((idx < r->n_backends && r->backends[idx].use.state != REGISTRY_FREE) ||
		backend_find(r, &key, address, port) != UINT32_MAX)
		return -EEXIST;
	return backend_set(r, idx, &key, address, port);
}

int registry_backend(struct snapshot_registry *r, const struct registry_name *name,
	const struct address *address, uint16_t port, uint32_t *out_id)
{
	uint32_t idx = backend_find(r, name, address, port);
	if (idx == UINT32_MAX)
		return backend_new(r, name, address, port, out_id);
	use_now(r, &r->backends[idx].use);
	r->backends[idx].gone_ms = 0;
	*out_id = idx;
	return 0;
}

int registry_restore_kept(
	struct snapshot_registry *r, uint32_t idx, const struct registry_kept *kept)
{
	if (idx >= REGISTRY_BACKENDS_MAX || kept->policy >= SNAPSHOT_POLICIES_MAX)
		return -EINVAL;
	if (backend_room(r, idx) != 0)
		return -ENOMEM;
	struct registry_backend *b = &r->backends[idx];
	if (b->use.state != REGISTRY_FREE || b->is_kept_read)
		return -EEXIST;
	b->kept = *kept;
	b->is_kept_read = true;
	r->has_own_slots |= kept->own_slot != SNAPSHOT_SLOT_NONE;
	return 0;
}

void registry_keep(struct snapshot_registry *r, uint32_t id, const struct registry_kept *kept)
{
	struct registry_backend *b = &r->backends[id];
	if (memcmp(&b->kept, kept, sizeof(*kept)) == 0)
		return;
	b->kept = *kept;
	r->has_own_slots |= kept->own_slot != SNAPSHOT_SLOT_NONE;
	if (!b->use.is_fresh)
		r->n_fresh++;
	b->use.is_fresh = true;
}

static bool slot_means(
	const struct snapshot_registry *r, uint16_t slot, const struct address *address)
{
	return slot < r->n_slots && r->slots[slot].use.state != REGISTRY_FREE &&
	       address_equal(&r->slots[slot].address, address);
}

uint16_t registry_hold_backend(struct snapshot_registry *r, uint32_t id)
{
	struct registry_backend *b = &r->backends[id];
	if (b->kept.own_slot == SNAPSHOT_SLOT_NONE)
		return SNAPSHOT_SLOT_NONE;
	if (slot_means(r, b->kept.own_slot, &b->address))
		use_now(r, &r->slots[b->kept.own_slot].use);
	else
		b->kept.own_slot = SNAPSHOT_SLOT_NONE;
	return b->kept.own_slot;
}

bool registry_is_known(const struct snapshot_registry *r, uint16_t slot)
{
	for (uint32_t i = 0; r->has_own_slots && i < r->n_backends; i++) {
		const struct registry_backend *b = &r->backends[i];
		if (b->use.state != REGISTRY_FREE && b->kept.own_slot == slot &&
			slot_means(r, slot, &b->address))
			return true;
	}
	return false;
}

int registry_hold_kept(struct snapshot_registry *r)
{
	struct service_defaults builtin = service_defaults_builtin();
	int rc = 0;
	for (uint32_t i = 0; i < r->n_backends && rc != -ENOMEM; i++) {
		struct registry_backend *b = &r->backends[i];
		if (b->use.state == REGISTRY_FREE)
			continue;
		bool is_desired = b->use.epoch == r->epoch;
		if (is_desired)
			registry_hold_backend(r, i);
		else if (!slot_means(r, b->kept.own_slot, &b->address))
			b->kept.own_slot = SNAPSHOT_SLOT_NONE;
		if (!is_desired && r->policies[b->kept.policy].use.state == REGISTRY_FREE)
			rc = snapshot_registry_policy(
				r, builtin.tcp_idle_s, builtin.udp_idle_s, &b->kept.policy);
	}
	return rc == -ENOMEM ? rc : 0;
}

int snapshot_registry_backend(struct snapshot_registry *r, const char *service,
	const char *listener, const struct address *address, uint16_t port, uint32_t *out_id)
{
	struct registry_name name;
	registry_name_init(&name, service, listener);
	return registry_backend(r, &name, address, port, out_id);
}

int snapshot_registry_find_backend(const struct snapshot_registry *r, const char *service,
	const char *listener, const struct address *address, uint16_t port, uint32_t *out_id)
{
	struct registry_name name;
	registry_name_init(&name, service, listener);
	uint32_t idx = backend_find(r, &name, address, port);
	if (idx == UINT32_MAX)
		return -ENOENT;
	*out_id = idx;
	return 0;
}

// ---------------------------------------------------------------- policies
int registry_restore_policy(
	struct snapshot_registry *r, uint32_t idx, uint32_t tcp_idle_s, uint32_t udp_idle_s)
{
	if (idx >= SNAPSHOT_POLICIES_MAX)
		return -EINVAL;
	struct registry_policy *p = &r->policies[idx];
	if (p->use.state != REGISTRY_FREE)
		return -EEXIST;
	p->tcp_idle_s = tcp_idle_s;
	p->udp_idle_s = udp_idle_s;
	use_new(r, &p->use);
	if (idx >= r->n_policies)
		r->n_policies = idx + 1;
	return 0;
}

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
	bool is_new = r->policies[idx].use.state == REGISTRY_FREE;
	r->policies[idx].tcp_idle_s = tcp_idle_s;
	r->policies[idx].udp_idle_s = udp_idle_s;
	if (is_new)
		use_new(r, &r->policies[idx].use);
	else
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
	r->is_torn = true;
	r->is_whole = true;
	r->is_stale = false;
	r->n_dropped = r->n_dropped_slots = 0;
}

void registry_end(struct snapshot_registry *r)
{
	r->is_torn = false;
}

int registry_drop(struct snapshot_registry *r, uint32_t id)
{
	if (array_grow(r->dropped, r->n_dropped, r->dropped_cap) != 0)
		return -ENOMEM;
	r->dropped[r->n_dropped++] = id;
	r->backends[id].use.epoch = 0; // of no build
	return 0;
}

int registry_drop_slot(struct snapshot_registry *r, uint16_t slot)
{
	if (array_grow(r->dropped_slots, r->n_dropped_slots, r->dropped_slots_cap) != 0)
		return -ENOMEM;
	r->dropped_slots[r->n_dropped_slots++] = slot;
	r->slots[slot].use.epoch = 0;
	return 0;
}

void registry_drop_policy(struct snapshot_registry *r, uint8_t policy)
{
	r->policies[policy].use.epoch = 0;
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
	// Since the last release nobody went through everything: only these have lost their use.
	for (uint32_t i = 0; !r->is_whole && i < r->n_dropped; i++)
		use_release(r, &r->backends[r->dropped[i]].use, pass);
	for (uint32_t i = 0; !r->is_whole && i < r->n_dropped_slots; i++)
		use_release(r, &r->slots[r->dropped_slots[i]].use, pass);
	for (uint32_t i = 0; i < r->n_policies; i++)
		use_release(r, &r->policies[i].use, pass);
	r->n_dropped = r->n_dropped_slots = 0;
	if (!r->is_whole)
		return;
	r->is_whole = false;
	for (uint32_t i = 0; i < r->n_slots; i++)
		use_release(r, &r->slots[i].use, pass);
	for (uint32_t i = 0; i < r->n_backends; i++)
		use_release(r, &r->backends[i].use, pass);
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
		r->is_stale |= r->backends[i].kept.own_slot != SNAPSHOT_SLOT_NONE;
		free(r->backends[i].name);
		r->backends[i].name = NULL;
		n_backends++;
	}
	for (uint32_t i = 0; i < r->n_policies; i++)
		use_reclaim(&r->policies[i].use, safe_pass);
	r->slot_index.n_live -= n_slots;
	r->backend_index.n_live -= n_backends;
	if (n_slots > 0) {
		r->slot_hint = 0;
		index_refill(r, &r->slot_index);
	}
	if (n_backends > 0) {
		r->n_reclaims++;
		r->backend_hint = 0;
		index_refill(r, &r->backend_index);
	}
}

uint32_t snapshot_registry_free_slots(const struct snapshot_registry *r)
{
	return SNAPSHOT_SLOTS_MAX - r->slot_index.n_live;
}

bool snapshot_registry_has_slot(const struct snapshot_registry *r, const struct address *address)
{
	return slot_find(r, address) != UINT32_MAX;
}

int64_t snapshot_registry_next_reset_ms(const struct snapshot_registry *r)
{
	return r->next_reset_ms;
}
