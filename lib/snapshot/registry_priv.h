// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// What the builder reads of the registry. Control thread.

#include "snapshot_build.h"

enum registry_state { REGISTRY_FREE, REGISTRY_USED, REGISTRY_RELEASED };

struct registry_use {
	uint8_t state;
	uint64_t epoch;         // of the last build that used it
	uint64_t released_pass; // RELEASED: sweep pass at that time
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

struct registry_index {
	uint32_t *cells; // number, UINT32_MAX = empty; linear probing
	uint32_t mask;
};

struct snapshot_registry {
	uint64_t epoch;
	struct registry_slot *slots;
	uint32_t n_slots, slots_cap, n_slots_live, slot_hint;
	struct registry_backend *backends;
	uint32_t n_backends, backends_cap, n_backends_live, backend_hint;
	struct registry_policy policies[SNAPSHOT_POLICIES_MAX];
	uint32_t n_policies;
	struct registry_index slot_index;
	struct registry_index backend_index;
};

// A build begins: what it does not ask for from here on can be released afterwards.
void registry_begin(struct snapshot_registry *r);
