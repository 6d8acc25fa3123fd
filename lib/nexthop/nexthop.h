// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// Where packets leave: a table of next hops by index (neighbour address, port, MAC), changed in
// place, and a FIB (routes and known neighbours to index), rebuilt and published whole.
// Flows hold the index, never a MAC.
//
// Threads: control writes both. Workers read entry words (one atomic 64-bit load: MAC, port, state change
// together) and the FIB that the snapshot points to.

#include <stdint.h>
#include <stdbool.h>
#include <stddef.h>

#include "base.h"
#include "net.h"

#define NEXTHOP_NONE    UINT16_MAX        // no route
#define NEXTHOP_MISSING (UINT16_MAX - 1)  // on-link, but no entry yet: ask control to make one
#define NEXTHOP_MAX     (UINT16_MAX - 2u) // entries at most

enum nexthop_state {
	NEXTHOP_UNUSED = 0,
	NEXTHOP_INCOMPLETE = 1, // no MAC yet
	NEXTHOP_VALID = 2,      // has a MAC (also while the kernel probes)
	NEXTHOP_FAILED = 3,     // kernel gave up; last MAC is void
};

// [control writes, workers read: one relaxed 64-bit word; address and mtu are set before the index is
// published in a FIB and stay while it is]
struct nexthop_entry {
	uint64_t word;          // mac 48 bits (byte 0 lowest), port index 8 bits, state 8 bits
	struct address address; // the neighbour
	uint16_t mtu;           // of the port
	uint16_t pad[3];
};
_Static_assert(sizeof(struct nexthop_entry) == 32, "two per line");

struct nexthop_table {
	struct nexthop_entry *entries; // placed, n_entries of them
	uint32_t n_entries;
};

static inline uint64_t nexthop_word(const struct mac *mac, uint8_t port_idx, enum nexthop_state s)
{
	uint64_t w = 0;
	memcpy(&w, mac->bytes, 6);
	return w | (uint64_t)port_idx << 48 | (uint64_t)s << 56;
}
static inline uint64_t nexthop_load(const struct nexthop_table *t, uint16_t idx)
{
	return __atomic_load_n(&t->entries[idx].word, __ATOMIC_RELAXED);
}
static inline enum nexthop_state nexthop_word_state(uint64_t w)
{
	return (enum nexthop_state)(w >> 56);
}
static inline uint8_t nexthop_word_port(uint64_t w)
{
	return (uint8_t)(w >> 48);
}
static inline struct mac nexthop_word_mac(uint64_t w)
{
	struct mac m;
	memcpy(m.bytes, &w, 6);
	return m;
}
// [control] Stores a new word for entry idx.
void nexthop_store(struct nexthop_table *t, uint16_t idx, const struct mac *mac, uint8_t port_idx,
	enum nexthop_state state);

// A route as learnt from the kernel. Host routes of known neighbours are in the same list, as /32 or /128
// with nexthop = their entry.
struct nexthop_route {
	struct prefix prefix;
	uint16_t
		nexthop; // entry of the gateway or neighbour; NEXTHOP_MISSING: on-link, destination is the neighbour
	uint8_t port_idx; // way out
	uint8_t pad;
	uint32_t metric; // lowest wins among equal prefixes
};

struct nexthop_fib; // immutable once built

// Builds a FIB from routes in any order (duplicates: lowest metric, then lowest next hop). Gives; free with
// nexthop_fib_destroy. NULL: out of memory. Cost of a look-up: one probe per prefix length in use.
struct nexthop_fib *nexthop_fib_create(
	const struct nexthop_route *routes, uint32_t n_routes, uint32_t generation);
void nexthop_fib_destroy(struct nexthop_fib *fib);
uint32_t nexthop_fib_generation(const struct nexthop_fib *fib);

struct nexthop_answer {
	uint16_t nexthop; // index, NEXTHOP_NONE or NEXTHOP_MISSING
	uint8_t port_idx; // valid unless NEXTHOP_NONE
};
// Longest prefix match. A gateway or neighbour route answers its entry; an on-link route whose
// destination has no host entry answers NEXTHOP_MISSING.
struct nexthop_answer nexthop_find(const struct nexthop_fib *fib, const struct address *dst);
