// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// What the ways of compiling share: all services from the store (snapshot_build.c), or those alone that are other than they were, over
// what the snapshot before has of the others (snapshot_patch.c, snapshot_splice.c). Control thread.
//
//   snapshot ─► holder ─► compiled ─► flats   rows that every compiled has of its own: listeners, backends, parts
//                            ├──────► shape   counted: names, addresses, where listeners are found, sources, policies
//                            └──────► root    counted: members and tables of listeners; what is made later goes to its scrap

#include "registry_priv.h"
#include "tables_priv.h"

// What one service has in a compiled snapshot, so that it can be compiled again alone.
struct build_part {
	const struct service *service; // which it was compiled from: compared, never read
	const uint32_t *ids; // of its backends, by listener, then backend with a port for it
	uint64_t digest;
	uint32_t n_ids;
	uint32_t first_listener;
	uint32_t n_listeners;
	uint32_t first_source;
	uint32_t n_sources;
	uint8_t policy;
};

// Who needs one of our addresses, by slot.
struct build_use {
	uint32_t n_listeners; // that have it as their VIP
	uint32_t n_backends;  // desired ones that are known by it (struct registry_kept)
};

// Lives as long as a snapshot that was compiled into it, or one that was patched together from it.
struct build_root {
	uint32_t n_users;
	struct arena arena;
	struct table_set tables;
	struct arena scrap; // members of services that were compiled again since
	struct table_set scrap_tables;
	size_t scrap_bytes; // of these
};

// Arrays that stay as they are while only endpoints change.
struct build_shape {
	uint32_t n_users;
	struct arena arena;
};

// The compiled content behind one or more snapshots.
struct compiled {
	uint32_t n_users;
	struct build_root *root;
	struct build_shape *shape;
	struct arena flats;
	struct build_part *parts; // by service
	struct build_use *uses;   // by slot
	uint32_t *lingering;      // backend ids with a row, and not desired
	uint32_t n_lingering;
	uint32_t lingering_cap;
	uint32_t n_sources;
	const struct service_store *store; // what it was compiled from, and how far that had come
	uint64_t store_generation;
	uint64_t names_generation;
	int64_t wall_ms;
	const struct address *snat;
	uint32_t n_snat;
};

struct holder {
	struct snapshot snapshot;
	struct compiled *compiled;
};

struct build {
	const struct snapshot_input *input;
	struct error *err;
	struct compiled *compiled;
	struct arena *arena; // where names and members of listeners go
	struct snapshot *s;
	const struct compiled *before; // patched from; NULL: compiled whole
	const struct snapshot *before_snapshot;
	struct snapshot_own *own;
	rte_be32_t *own_v4;
	struct snapshot_address_cell *address_cells;
	struct snapshot_listener *listeners;
	struct snapshot_backend *backends;
	uint64_t *staying;
	struct snapshot_service *services;
	uint32_t *listener_cells;
	struct prefix *sources;
	uint32_t n_listeners;
	uint32_t n_sources;
	uint64_t digest; // of the service at hand
	int rc;
	// ids in the order of the first pass: by service, listener, backend with a port for it
	uint32_t *ids;
	uint32_t n_ids;
	uint32_t ids_cap;
	uint32_t next_id; // second pass
	// scratch for one (listener, family)
	struct balance_member *members;
	struct health_candidate *candidates;
	bool *eligible;
	uint8_t *flags;
	uint32_t *member_ids;
};

// One service in the second pass.
struct service_input {
	const struct service *service;
	uint32_t service_idx;
	uint16_t slots[SERVICE_ADDRESSES_MAX];
	uint8_t mode; // enum snapshot_mode
	uint8_t policy;
	uint32_t first_source;
	uint32_t n_sources;
};

// What the VIPs of one family have in common.
struct member_set {
	const uint32_t *members;
	const uint32_t *eligible;
	uint32_t n_members;
	uint32_t n_eligible;
	const struct table_block *table;
	uint64_t digest;
};

int build_fail(struct build *b, int code);
// Zeroed; NULL: failed, and noted. One more than asked for may be read.
void *build_take(struct build *b, struct arena *arena, size_t n, size_t size);

// ---------------------------------------------------------------- compiled.c
struct compiled *build_compiled_of(const struct snapshot *s);
// NULL: a root, a shape of its own.
struct compiled *build_compiled_create(struct build_root *root, struct build_shape *shape);
void build_compiled_put(struct compiled *c);

// ---------------------------------------------------------------- snapshot_build.c
void build_note_origin(struct compiled *c, const struct snapshot_input *input);
void build_scratch(struct build *b, uint32_t n); // for services of up to n backends
void build_scratch_free(struct build *b);
void build_assign_slot(struct build *b, const struct address *address, uint16_t *out_slot);
// Ids of listener j's backends, at the end of b->ids.
void build_assign_ids(struct build *b, const struct service *s, const char *text, uint32_t j);
uint32_t build_mask(uint32_t n); // of a hash with room for n at half load
struct snapshot_address_cell *build_cell_of(const struct build *b, const struct address *address);
void build_own_set(struct build *b, struct snapshot_address_cell *cell,
	const struct address *address, uint16_t slot, enum snapshot_own_kind kind);
// Makes every listener findable: hash, ranges, tables of its VIP; and counts who uses each address. The arrays are there,
// zeroed, the hash empty.
void build_place_listeners(struct build *b);
void build_fill_policies(struct build *b);
void build_fill_own_v4(struct build *b); // all slots have their addresses
// Backend id's row was made, or cleared: whether it stays, apart from it.
void build_note_staying(struct build *b, uint32_t id);
static inline size_t build_staying_words(uint32_t n_backends)
{
	return (n_backends + 63u) / 64;
}
// A number without a row that is not FREE: a backend that is no longer desired.
void build_linger(struct build *b, uint32_t id);

// ---------------------------------------------------------------- build_service.c
// One service from b->n_listeners, b->n_sources and b->next_id on; its name is in b->services.
void build_service(struct build *b, uint32_t service_idx);
// The same without name, sources and policy.
void build_service_listeners(struct build *b, struct service_input *in);
// Sources of a service at the end of b->sources; b->digest takes them in.
void build_add_sources(struct build *b, const struct service *s);
uint64_t build_name_digest(const char *name);

// ---------------------------------------------------------------- snapshot_patch.c
// 1: patched, *out is given; 0: it has to be compiled whole; -ENOMEM.
int snapshot_patch(const struct snapshot_input *input, struct snapshot **out);
