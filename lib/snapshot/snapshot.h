// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// What workers see of the desired state: compiled, immutable, published by pointer. Built by
// snapshot_build.h (cold). Look-ups here are hot and read only.
//
// Slots and ids are stable: an own-address slot or a backend_id means the same thing in every snapshot for as long as a
// flow may hold it (control quarantines released ones until every worker has swept its table).

#include <stdbool.h>
#include <stdint.h>

#include "balance.h"
#include "net.h"
#include "nexthop.h"

#define SNAPSHOT_SLOTS_MAX    UINT16_MAX
#define SNAPSHOT_SLOT_NONE    UINT16_MAX
#define SNAPSHOT_BACKEND_NONE UINT32_MAX
#define SNAPSHOT_POLICIES_MAX 255

enum snapshot_mode { // in the order of enum service_mode
	SNAPSHOT_FULLNAT,
	SNAPSHOT_DNAT,
	SNAPSHOT_IPIP,
	SNAPSHOT_GUE,
	SNAPSHOT_L2DSR,
};
// One-way modes: replies go from the backend to the client, we never see them.
static inline bool snapshot_mode_is_oneway(uint8_t mode)
{
	return mode >= SNAPSHOT_IPIP;
}
enum snapshot_scheduler { SNAPSHOT_MAGLEV, SNAPSHOT_LEAST_CONNECTIONS };
enum snapshot_client_address {
	SNAPSHOT_CLIENT_NONE,
	SNAPSHOT_CLIENT_TOA,
	SNAPSHOT_CLIENT_PROXY_V2
};

// BACKEND: the address of a dnat backend, which is not ours: packets to it are somebody else's, but packets from it may be
// answers that we have to rewrite.
enum snapshot_own_kind {
	SNAPSHOT_OWN_NONE,
	SNAPSHOT_OWN_VIP,
	SNAPSHOT_OWN_SNAT,
	SNAPSHOT_OWN_BACKEND,
};
// Which tables flows of a VIP lie in (struct snapshot_own and address cell, `tables`).
enum snapshot_tables {
	SNAPSHOT_TABLE_NAT = 1,    // some listener is fullnat or dnat
	SNAPSHOT_TABLE_ONEWAY = 2, // some listener is ipip, gue or l2dsr
};

// One of our addresses, by slot. A slot that was released keeps its address with kind NONE while flows may hold it.
struct snapshot_own {
	struct address address;
	uint8_t kind;         // enum snapshot_own_kind
	uint8_t tables;       // of a VIP: enum snapshot_tables
	uint16_t n_ranges;    // listeners of this VIP with port_max > port
	uint32_t first_range; // index into ranges[]
};

struct snapshot_listener {
	uint16_t slot;
	uint8_t protocol;
	uint8_t mode;  // enum snapshot_mode
	uint16_t port; // host order, inclusive range
	uint16_t port_max;
	uint32_t service_idx;
	uint32_t table_size;      // m; 0 = the listener has no member
	const uint16_t *table;    // Maglev slots: member index
	const uint32_t *members;  // backend_id by member index
	const uint32_t *eligible; // backend_ids that may take new flows now, sorted
	uint32_t n_members;
	uint32_t n_eligible;
	uint32_t
		first_source; // into sources[]: disjoint, IPv4 first, ascending; n_sources 0 = everybody
	uint32_t n_sources;
	uint32_t affinity_s;    // 0 = none; else pick by client address alone
	uint8_t policy;         // timeout policy index
	uint8_t scheduler;      // enum snapshot_scheduler
	uint8_t client_address; // enum snapshot_client_address
	bool by_client; // the worker that the client's address names opens its flows, and has them: see listener_add
};

enum snapshot_backend_flags {
	SNAPSHOT_BACKEND_LISTED = 1,   // in the desired state (else: leftover of a removed one)
	SNAPSHOT_BACKEND_ELIGIBLE = 2, // may take new flows
	SNAPSHOT_BACKEND_RESET =
		4, // its flows are to be reset (hard removal, drain deadline with reset)
};

struct snapshot_backend { // by backend_id
	struct address address;
	uint16_t port; // host order
	uint8_t flags : 5;
	uint8_t mode : 3;      // enum snapshot_mode; of a removed one: its last
	uint8_t policy;        // timeout policy of its listener; of a removed one: its last
	uint32_t listener_idx; // of its first VIP; UINT32_MAX when not LISTED
	uint32_t service_idx;  // UINT32_MAX when not LISTED
	uint16_t weight;
	uint16_t own_slot; // dnat: slot of its address, else SNAPSHOT_SLOT_NONE
} __attribute__((aligned(32)));
_Static_assert(
	sizeof(struct snapshot_backend) == 32, "two rows a line: with many backends they are cold");

// How long what is remembered of a backend's clients may idle, by backend_id: apart from the rows above, so that a sweep
// over many entries finds eight in a line. Same layout as struct oneway_backend (lib/flow), which is not known here.
struct snapshot_idle {
	uint32_t affinity_s; // of its listener
	uint8_t policy;      // of its listener; of a removed one: its last
	uint8_t pad[3];
};

struct snapshot_service {
	const char *name; // "namespace/name"
	uint32_t id;
};

struct snapshot_policy { // seconds
	uint32_t tcp_idle_s;
	uint32_t udp_idle_s;
};

// Open-addressed hash cells; empty = UINT32_MAX index.
struct snapshot_address_cell {
	struct address address;
	uint16_t slot; // SNAPSHOT_SLOT_NONE = empty
	uint8_t kind;
	uint8_t tables;
} __attribute__((aligned(32)));
_Static_assert(
	sizeof(struct snapshot_address_cell) == 32, "two a line: with many VIPs they are cold");

struct snapshot {
	uint64_t generation;
	uint64_t digest; // of everything that decides where a flow goes (not health)
	// own addresses
	const struct snapshot_address_cell *address_cells;
	uint32_t address_mask;
	uint32_t n_own; // slots in use: 0..n_own-1 may be kind NONE
	const struct snapshot_own *own;
	const rte_be32_t *own_v4; // by slot, the address of own[] if it is IPv4: sixteen in a line
	// listeners
	const uint32_t *
		listener_cells; // hash of (slot, protocol, port) -> listener index, UINT32_MAX = empty
	uint32_t listener_mask;
	uint32_t n_listeners;
	const struct snapshot_listener *listeners;
	const uint32_t *ranges; // listener indices, grouped by own address
	const struct prefix *sources;
	const struct snapshot_backend *backends;
	// A bit by backend_id, 64 in a word: snapshot_backend_stays. Apart from the rows, which are cold when there are many.
	const uint64_t *staying;
	const struct snapshot_idle *idle;
	uint32_t n_backends; // backend_ids 0..n-1
	uint32_t n_services;
	const struct snapshot_service *services;
	const struct snapshot_policy *policies;
	uint32_t n_policies;
	// Source of tunnels, by family: the first SNAT address of each ([0] IPv4, [1] IPv6); unspecified = there is none.
	struct address tunnel_source[2];
	// ways out; may be shared by several snapshots
	const struct nexthop_fib *fib;
	uint32_t
		n_reclaims; // times that numbers of backends became free before it: they may mean others since (snapshot_ways)
	void *owner; // [control] what to free when retired
};

// Changes whenever the way to a backend_id that was found may not be its way any more: with the FIB, and when numbers of
// backends are given again. Both only grow.
static inline uint32_t snapshot_ways(const struct snapshot *s)
{
	return nexthop_fib_generation(s->fib) + s->n_reclaims;
}

// Do flows of this backend (below n_backends) go on? It is LISTED, and not to be RESET.
static inline bool snapshot_stays(const uint64_t *staying, uint32_t backend_id)
{
	return staying[backend_id / 64] >> backend_id % 64 & 1;
}
static inline bool snapshot_backend_stays(const struct snapshot *s, uint32_t backend_id)
{
	return snapshot_stays(s->staying, backend_id);
}

static inline uint32_t snapshot_address_hash(const struct address *a)
{
	return (uint32_t)hash_fold(
		a->halves[0] ^ 0x9e3779b97f4a7c15ull, a->halves[1] ^ 0xd6e8feb86659fd93ull);
}
static inline uint32_t snapshot_listener_hash(uint16_t slot, uint8_t protocol, uint16_t port)
{
	uint64_t w = (uint64_t)slot << 24 | (uint64_t)protocol << 16 | port;
	return (uint32_t)hash_fold(w ^ 0x9e3779b97f4a7c15ull, 0xd6e8feb86659fd93ull);
}

// The cell of an address that has a slot; else an empty one (slot SNAPSHOT_SLOT_NONE, kind SNAPSHOT_OWN_NONE).
static inline const struct snapshot_address_cell *snapshot_find_cell(
	const struct snapshot *s, const struct address *a)
{
	for (uint32_t i = snapshot_address_hash(a);; i++) {
		const struct snapshot_address_cell *c = &s->address_cells[i & s->address_mask];
		if (c->slot == SNAPSHOT_SLOT_NONE || address_equal(&c->address, a))
			return c;
	}
}

// Slot of one of our own addresses (VIP, SNAT), or SNAPSHOT_SLOT_NONE; *out_kind is set when found.
static inline uint16_t snapshot_find_own(
	const struct snapshot *s, const struct address *a, uint8_t *out_kind)
{
	const struct snapshot_address_cell *c = snapshot_find_cell(s, a);
	if (c->slot == SNAPSHOT_SLOT_NONE || c->kind == SNAPSHOT_OWN_BACKEND)
		return SNAPSHOT_SLOT_NONE;
	*out_kind = c->kind;
	return c->slot;
}

// Listener of (slot, protocol, port in host order): exact first, then the narrowest range; NULL if none.
const struct snapshot_listener *snapshot_find_listener(
	const struct snapshot *s, uint16_t slot, uint8_t protocol, uint16_t port);
// Client inside one of the listener's source ranges, or no ranges. Cost: log n.
bool snapshot_source_allowed(
	const struct snapshot *s, const struct snapshot_listener *l, const struct address *client);

// How a pick came about; also explain's text.
enum snapshot_pick_step {
	SNAPSHOT_PICK_PRIMARY,  // the Maglev slot's member
	SNAPSHOT_PICK_SECOND,   // primary not eligible: second hash
	SNAPSHOT_PICK_FALLBACK, // neither: by hash among all eligible
	SNAPSHOT_PICK_NONE,     // nobody eligible
	SNAPSHOT_PICK_LIGHTER,  // least connections: the second candidate had fewer
	SNAPSHOT_PICK_STICKY,   // session affinity: the client's backend
};
struct snapshot_pick {
	uint32_t backend_id; // SNAPSHOT_BACKEND_NONE when nobody
	uint32_t slot;       // Maglev slot looked at first
	uint32_t primary_id; // its member
	uint32_t second_id;  // second candidate (NONE if not looked at)
	uint8_t step;        // enum snapshot_pick_step
};
// Backend for a new flow. hash: of the flow (or of the client address with affinity).
struct snapshot_pick snapshot_pick(
	const struct snapshot *s, const struct snapshot_listener *l, uint64_t hash);
// The other candidate of a primary pick: the next different backend by further hashes that may take new flows.
// SNAPSHOT_BACKEND_NONE: none found. For least connections.
uint32_t snapshot_pick_other(
	const struct snapshot *s, const struct snapshot_listener *l, uint64_t hash);
// The hash that picks: independent of the table's secret key, equal on every node.
uint64_t snapshot_pick_hash(const struct snapshot_listener *l, const struct address *client,
	rte_be16_t client_port, rte_be16_t vip_port);
