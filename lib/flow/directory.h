// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// Which worker has a flow that an earlier process left. After a restart with another number of workers, or with queues that
// other workers own, a flow lies where its source port belongs now, while its client's packets arrive wherever the
// port's hash sends them. Who misses such a packet asks here.
//
// Written once, at start-up, read by all workers. A third public header of this module: it knows hashes, not tables.
//
//   header (64 B) | cells: 48 bits of the hash, 16 bits of worker + 1; 0 = empty. At most half are in use
//
// Not a table of flows: an entry stays when its flow ends, and another key may have the same 48 bits, once in 2^48 / n_flows.
// Then a packet makes one detour, to a worker that does not know it either.

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FLOW_DIRECTORY_NONE UINT16_MAX
// Cells that one look-up reads at most, in five lines: at half load one flow in 100 million has its place further away.
#define FLOW_DIRECTORY_PROBES 32u

struct flow_directory { // placed
	uint64_t mask;  // cells - 1, a power of two
	uint64_t n_flows;
	uint64_t pad[6];
	uint64_t cells[];
};
_Static_assert(sizeof(struct flow_directory) == 64, "cells start on a line");

// Bytes for n_flows flows (64-byte aligned memory).
size_t flow_directory_size(uint64_t n_flows);
// Lays out an empty one. 0, or -EINVAL: size too small or memory not aligned.
int flow_directory_init(void *mem, size_t size, uint64_t n_flows, struct flow_directory **out);
// Notes that the flow with this hash (flow_hash of its client key; all tables share the hash key) is at `worker`. False: no room
// near its place; such a flow is found only where its packets arrive. A hash that is there already keeps its worker.
bool flow_directory_add(struct flow_directory *directory, uint64_t hash, uint16_t worker);

static inline uint64_t flow_directory_tag(uint64_t hash)
{
	return hash & 0xffffffffffff0000ull;
}
static inline void flow_directory_prefetch(const struct flow_directory *directory, uint64_t hash)
{
	__builtin_prefetch(&directory->cells[hash >> 20 & directory->mask], 0, 2);
}
// The worker, or FLOW_DIRECTORY_NONE.
static inline uint16_t flow_directory_find(const struct flow_directory *directory, uint64_t hash)
{
	for (uint64_t k = 0; k < FLOW_DIRECTORY_PROBES; k++) {
		uint64_t cell = directory->cells[((hash >> 20) + k) & directory->mask];
		if (cell == 0)
			return FLOW_DIRECTORY_NONE;
		if (flow_directory_tag(cell) == flow_directory_tag(hash))
			return (uint16_t)(cell - 1);
	}
	return FLOW_DIRECTORY_NONE;
}
