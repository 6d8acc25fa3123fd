// SPDX-License-Identifier: BSD-3-Clause
// Hot path: no allocation, lock, log, system call.
// Packets whose flow another worker has. Nobody else asks the directory: it is one line of memory for each packet that
// misses, and only where flows of an earlier process were kept. SYNs too: a retransmitted one would make a second flow here of
// what is one there.
#include "pipeline_priv.h"

bool stage_to_holder(struct pipeline *p, struct burst *b, uint32_t i, uint64_t hash)
{
	if (b->side[i] != FLOW_SIDE_CLIENT || b->hops[i] > 0)
		return false;
	uint16_t holder = flow_directory_find(p->directory, hash);
	if (holder == p->worker_idx || holder >= p->n_workers)
		return false;
	b->verdict[i] = PIPELINE_RESTEER;
	b->out_port[i] = (uint8_t)holder;
	return true;
}
