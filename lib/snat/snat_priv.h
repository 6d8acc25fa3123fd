// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// Layout of the placed memory of one worker's source ports (offsets, no pointers).
//
//   struct snat | struct snat_ring [address][pool] | uint32_t next [address][pool][n_links]
//
// A ring is the first-in-first-out order of the free ports of one (address, pool). It is not an
// array of ports but links inside `next`, so that a port costs 4 bytes per pool, can be found and
// taken by number (adoption), a port given back twice is noticed, and a port in use says whose it is.
//
// Blocks of ports that a worker owns lie one behind the other: next[by_block[port / SNAT_BLOCK_PORTS] + port % SNAT_BLOCK_PORTS] is
// that of a port. Owned ports are those from first_offset on, n_ports of them; what lies around them in the first and last block
// is never free.
//
// next[i] says where a port stands:
//   SNAT_FRESH        never given out; these come first, in ascending order of their numbers, from `rotation` on and round
//   SNAT_USED | user  in use
//   other             given back; waits in the chain head -> ... -> tail. The tail's own link has no meaning
//
// `fresh` of a ring counts the ports that have been passed on that first round. Invariants: the port there is SNAT_FRESH, or fresh ==
// n_ports; none passed is SNAT_FRESH; n_free = fresh ones + chained ones; the chain has n_chained links.

#include "snat.h"

#define SNAT_FRESH      0x7fffffffu // no index: links are at most 65,536
#define SNAT_USED       0x80000000u
#define SNAT_NO_ADDRESS UINT16_MAX
#define SNAT_BLOCKS     (65536 / SNAT_BLOCK_PORTS)

struct snat_ring {
	uint32_t n_free;
	uint16_t fresh;
	uint16_t next_fresh; // link of the port there
	uint16_t head;       // valid while n_chained > 0
	uint16_t tail;
	uint16_t n_chained;
	uint16_t hand; // port that snat_used looks at next
};
_Static_assert(sizeof(struct snat_ring) == 16, "four rings a line");

struct snat {
	uint32_t n_ports; // owned by this worker, per address and pool
	uint32_t n_links; // those and what lies around them
	uint16_t n_workers;
	uint16_t first_block;  // number of the first owned block
	uint16_t first_offset; // of the first owned port within it
	uint16_t rotation; // the first one given out is this many ports after it; < n_ports, or 0
	uint16_t n_addresses;
	uint16_t n_by_family[2];                   // [0] IPv4, [1] IPv6
	uint64_t n_free[2];                        // over all rings of the family
	size_t last;                               // link of the port taken last: see snat_name
	uint16_t by_family[2][SNAT_ADDRESSES_MAX]; // address indices
	uint16_t slots[SNAT_ADDRESSES_MAX];
	uint8_t is_v6[SNAT_ADDRESSES_MAX];
	uint32_t by_block[SNAT_BLOCKS];   // link of the block's first port; n_links: not owned
	uint16_t by_slot[UINT16_MAX + 1]; // address index, or SNAT_NO_ADDRESS
} __attribute__((aligned(64)));
