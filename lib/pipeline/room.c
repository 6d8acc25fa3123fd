// SPDX-License-Identifier: BSD-3-Clause
// Hot path: no allocation, lock, log, system call.
// Room for a new flow, taken from flows that would be missed least: a record when the table is full, a source port when
// all that the backend could have are in use. A flood of SYNs from random sources fills both with flows that nobody will
// finish; without this one backend's ports would be gone for as long as such flows live, 10 s, and with them those
// of all backends that share its ring.
//
// The port of a confirmed flow is never taken, however long it has been idle: then the new flow is refused by name, which is
// counted for its backend, and the client is told nothing and asks again.
#include "pipeline_priv.h"

#include <errno.h>

#define ROOM_VICTIMS    16
#define PORT_CANDIDATES 16 // ports looked at together
#define PORT_ROUNDS     4 // times, at most: where one flow in 20 gives way, 64 find one 96 times in 100

static void evict(struct pipeline *p, uint32_t flow_idx)
{
	stage_end_flow(p, flow_idx);
	counters_add(p->counters, COUNTER_FLOWS_EVICTED, 1);
}

// Several at once: when one new flow finds the table full, so will the next, and lines of several flows to end come side by side.
bool stage_make_room(struct pipeline *p)
{
	uint32_t victims[ROOM_VICTIMS];
	uint32_t n = flow_victims(&p->flows, p->policies, p->now_s, ROOM_VICTIMS, victims);
	if (n == 0)
		return false;
	stage_end_flows(p, victims, n);
	counters_add(p->counters, COUNTER_FLOWS_EVICTED, n);
	return true;
}

// Frees one of the ports that r's backend could have.
static bool make_port_room(struct pipeline *p, const struct flow_record *r, uint32_t spread)
{
	uint32_t candidates[PORT_CANDIDATES];
	for (uint32_t round = 0; round < PORT_ROUNDS; round++) {
		// Odd multiples of a quarter: other addresses first, if there are.
		uint32_t n = snat_used(p->snat, &r->backend, r->backend_port, r->protocol,
			spread + round * 0x40000001u, PORT_CANDIDATES, candidates);
		uint32_t victim =
			flow_victim_among(&p->flows, p->policies, p->now_s, candidates, n);
		if (victim == FLOW_NONE)
			continue;
		evict(p, victim);
		return true;
	}
	return false;
}

enum drop_reason stage_take_port(struct pipeline *p, struct flow_record *r, uint32_t spread)
{
	int rc = snat_alloc(p->snat, &r->backend, r->backend_port, r->protocol, spread,
		&r->snat_slot, &r->snat_port);
	if (unlikely(rc == -ENOSPC) && make_port_room(p, r, spread))
		rc = snat_alloc(p->snat, &r->backend, r->backend_port, r->protocol, spread,
			&r->snat_slot, &r->snat_port);
	if (likely(rc == 0))
		return DROP_NONE;
	if (rc == -EAFNOSUPPORT)
		return DROP_NO_SNAT_ADDRESS;
	struct pipeline_backend_counters *block = pipeline_backend_block(p, r->backend_id);
	if (block)
		relaxed_add(&block->ports_exhausted, 1);
	return DROP_SNAT_EXHAUSTED;
}
