// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// What the builder reads of the registry. Control thread.

#include "snapshot_build.h"

#define REGISTRY_BACKENDS_MAX (1u << 24) // a restored number beyond is a broken line

enum registry_state { REGISTRY_FREE, REGISTRY_USED, REGISTRY_RELEASED };

struct registry_use {
	uint64_t hash;          // of the identity
	uint64_t epoch;         // of the last build that used it
	uint64_t released_pass; // RELEASED: sweep pass at that time
	uint8_t state;          // enum registry_state
	bool is_fresh;          // not yet in the journal
};

struct registry_slot {
	struct registry_use use;
	struct address address;
};

struct registry_backend {
	struct registry_use use;
	char *name; // "namespace/service/listener"
	struct address address;
	uint16_t port;
};

struct registry_policy {
	struct registry_use use;
	uint32_t tcp_idle_s;
	uint32_t udp_idle_s;
};

// hash -> number; linear probing, at most half full. Holds exactly the numbers that are not FREE.
struct registry_index {
	uint32_t *cells; // UINT32_MAX = empty
	uint32_t mask;
	uint32_t n_live;
};

struct snapshot_registry {
	uint64_t epoch;
	uint32_t n_fresh;
	struct registry_slot *slots;
	uint32_t n_slots, slots_cap, slot_hint; // no FREE one is below the hint
	struct registry_backend *backends;
	uint32_t n_backends, backends_cap, backend_hint;
	struct registry_policy policies[SNAPSHOT_POLICIES_MAX];
	uint32_t n_policies;
	struct registry_index slot_index;
	struct registry_index backend_index;
};

// A build begins: what it does not ask for from here on can be released afterwards.
void registry_begin(struct snapshot_registry *r);

// Name of a listener, made once for all its backends.
struct registry_name {
	char text[3 * SERVICE_NAME_MAX + 4]; // "namespace/service/listener"
	uint64_t hash;
};
void registry_name_init(struct registry_name *name, const char *service, const char *listener);
// snapshot_registry_backend with the name at hand.
int registry_backend(struct snapshot_registry *r, const struct registry_name *name,
	const struct address *address, uint16_t port, uint32_t *out_id);
// Journal read back: -EEXIST when the number (or the identity) is taken, -EINVAL out of range.
int registry_restore_backend(struct snapshot_registry *r, uint32_t idx, const char *name,
	const struct address *address, uint16_t port);
int registry_restore_policy(
	struct snapshot_registry *r, uint32_t idx, uint32_t tcp_idle_s, uint32_t udp_idle_s);
