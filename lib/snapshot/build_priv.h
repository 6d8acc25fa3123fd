// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// What the two ways of compiling share: all services from the store (snapshot_build.c), or some of them over what the snapshot
// before has of the others (snapshot_patch.c). Control thread.

#include "registry_priv.h"
#include "tables_priv.h"

// What one service has in a compiled snapshot, so that it can be compiled again alone.
struct build_part {
	uint32_t first_listener;
	uint32_t n_listeners;
	const uint32_t *ids; // of its backends, by listener, then backend with a port for it
	uint32_t n_ids;
	uint64_t digest;
};

// Lives as long as a snapshot that was compiled into it, or one that was patched together from it.
struct build_root {
	uint32_t n_users;
	struct arena arena;
	struct table_set tables;
	struct arena scrap;                // members of services that were compiled again since
	struct table_block **scrap_tables; // and their tables
	uint32_t n_scrap_tables;
	uint32_t scrap_tables_cap;
	size_t scrap_bytes;
};

// The compiled content behind one or more snapshots.
struct compiled {
	uint32_t n_users;
	struct build_root *root;
	struct arena flats;       // of a patched one: the arrays that are its own
	struct build_part *parts; // by service
	uint32_t *lingering;      // backend ids with a row, and not desired
	uint32_t n_lingering;
	uint32_t lingering_cap;
	const struct service_store *store; // what it was compiled from, and how far that had come
	uint64_t store_generation;
	uint64_t names_generation;
	uint64_t overlays_generation;
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
	struct arena *arena; // where members of listeners go
	struct snapshot *s;
	const struct compiled *before; // patched from; NULL: compiled whole
	const struct snapshot *before_snapshot;
	uint32_t first_scrap_table;
	struct snapshot_own *own;
	struct snapshot_address_cell *address_cells;
	struct snapshot_listener *listeners;
	struct snapshot_backend *backends;
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
struct compiled *build_compiled_of(const struct snapshot *s);
struct compiled *build_compiled_create(struct build_root *root); // NULL: a root of its own
void build_compiled_put(struct compiled *c);
void build_root_put(struct build_root *root);
void build_note_origin(struct compiled *c, const struct snapshot_input *input);
void build_scratch(struct build *b, uint32_t n); // for services of up to n backends
void build_scratch_free(struct build *b);
// Ids of listener j's backends, at the end of b->ids.
void build_assign_ids(struct build *b, const struct service *s, const char *text, uint32_t j);
struct snapshot_address_cell *build_cell_of(const struct build *b, const struct address *address);
// Sources of a service at the end of b->sources; b->digest takes them in.
void build_add_sources(struct build *b, const struct service *s);
uint64_t build_name_digest(const char *name);
// Listeners, members and backends of one service, from b->n_listeners and b->next_id on.
void build_service_listeners(struct build *b, struct service_input *in);
// A number without a row that is not FREE: a backend that is no longer desired.
void build_linger(struct build *b, uint32_t id);

// ---------------------------------------------------------------- snapshot_patch.c
// 1: patched, *out is given; 0: it has to be compiled whole; -ENOMEM.
int snapshot_patch(const struct snapshot_input *input, struct snapshot **out);
