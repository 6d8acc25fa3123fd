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

// What a backend's flows need of it when it has gone. Stays as long as the number means that backend.
struct registry_kept {
	uint8_t mode;      // enum snapshot_mode, its last
	uint8_t policy;    // of its listener, its last
	uint16_t own_slot; // of its address when it was ever dnat, else SNAPSHOT_SLOT_NONE
	uint32_t drain_s;  // how long its flows may go on
};
#define REGISTRY_KEPT_NONE ((struct registry_kept){ .own_slot = SNAPSHOT_SLOT_NONE })

struct registry_backend {
	struct registry_use use;
	char *name; // "namespace/service/listener"
	struct address address;
	uint16_t port;
	bool is_kept_read; // FREE: `kept` came from the journal, the line of the backend is still to come
	struct registry_kept kept;
	int64_t gone_ms; // wall clock of the first build without it, 0 = it is desired
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
	uint32_t n_reclaims; // times that backends' numbers became free
	struct registry_slot *slots;
	uint32_t n_slots, slots_cap, slot_hint; // no FREE one is below the hint
	struct registry_backend *backends;
	uint32_t n_backends, backends_cap, backend_hint;
	struct registry_policy policies[SNAPSHOT_POLICIES_MAX];
	uint32_t n_policies;
	int64_t next_reset_ms; // of the last build: when the next removed backend's time is over
	bool is_torn;          // a build has begun to ask for everything and was not finished
	bool has_own_slots;    // some backend is, or was in other days, known by its address
	bool is_stale;         // one of these was given back since the last build of everything
	bool is_whole;     // a build since the last release has asked for everything that is in use
	uint32_t *dropped; // else: backends that lost their use since then
	uint32_t n_dropped, dropped_cap;
	uint16_t *dropped_slots; // and slots
	uint32_t n_dropped_slots, dropped_slots_cap;
	struct registry_index slot_index;
	struct registry_index backend_index;
};

// A build of everything begins: what it does not ask for from here on can be released afterwards, if it comes to its end.
void registry_begin(struct snapshot_registry *r);
void registry_end(struct snapshot_registry *r);

// A backend, slot or policy that a build of some services alone no longer needs; the next release releases it, unless it is used
// again. 0 or -ENOMEM.
int registry_drop(struct snapshot_registry *r, uint32_t id);
int registry_drop_slot(struct snapshot_registry *r, uint16_t slot);
void registry_drop_policy(struct snapshot_registry *r, uint8_t policy);

// Name of a listener, made once for all its backends.
struct registry_name {
	char text[3 * SERVICE_NAME_MAX + 4]; // "namespace/service/listener"
	uint64_t hash;
};
void registry_name_init(struct registry_name *name, const char *service, const char *listener);
// snapshot_registry_backend with the name at hand.
int registry_backend(struct snapshot_registry *r, const struct registry_name *name,
	const struct address *address, uint16_t port, uint32_t *out_id);
// What flows of a backend in use need; a line of the journal when it differs from before.
void registry_keep(struct snapshot_registry *r, uint32_t id, const struct registry_kept *kept);
// A slot that a desired backend was known by in other days stays in use. (What a removed one has is released with it, so given
// back with it.) Heals what a damaged journal left without a meaning. Once a build, after everything desired has its
// number. 0 or -ENOMEM.
int registry_hold_kept(struct snapshot_registry *r);
// The same for one desired backend: the slot it is known by, or SNAPSHOT_SLOT_NONE.
uint16_t registry_hold_backend(struct snapshot_registry *r, uint32_t id);
// Is some backend, desired or not, known by this slot? Cost: a look at each.
bool registry_is_known(const struct snapshot_registry *r, uint16_t slot);
// Journal read back: -EEXIST when the number (or the identity) is taken, -EINVAL out of range.
int registry_restore_backend(struct snapshot_registry *r, uint32_t idx, const char *name,
	const struct address *address, uint16_t port);
int registry_restore_kept(
	struct snapshot_registry *r, uint32_t idx, const struct registry_kept *kept);
int registry_restore_policy(
	struct snapshot_registry *r, uint32_t idx, uint32_t tcp_idle_s, uint32_t udp_idle_s);
