// SPDX-License-Identifier: BSD-3-Clause
// Hot path: no allocation, lock, log, system call.
// Packets whose flow another worker has:
//
//   it was adopted             the directory names its holder
//   it began with a fragment   fragments come by their addresses alone, so its whole packets may come to another worker. The first
//                              one is shown to every worker in turn, as the flow may be anybody's, and the last one opens it if
//                              it is nobody's: each of the others takes a note of that, over an older one of its cell
//
// A note may be wrong or gone: then the packet begins a flow where it is sent, or where it came. Nobody is asked but for packets
// that miss, where there are adopted flows or notes. SYNs too: a retransmitted one would make a second flow here of what
// is one there.
#include "pipeline_priv.h"

static uint16_t note_find(const struct pipeline *p, uint64_t hash)
{
	uint64_t note = pipeline_note(p, hash);
	return note != 0 && flow_directory_tag(note) == flow_directory_tag(hash)
		       ? (uint16_t)(note - 1)
		       : FLOW_DIRECTORY_NONE;
}

// Fragments walk instead: a note speaks of what they had become.
static uint16_t holder_find(const struct pipeline *p, const struct packet *packet, uint64_t hash)
{
	uint16_t holder = FLOW_DIRECTORY_NONE;
	if (p->directory != NULL)
		holder = flow_directory_find(p->directory, hash);
	if (holder == FLOW_DIRECTORY_NONE && packet->kind != PACKET_FRAGMENT)
		holder = note_find(p, hash);
	return holder;
}

bool stage_to_holder(struct pipeline *p, struct burst *b, uint32_t i, uint64_t hash)
{
	if (b->side[i] != FLOW_SIDE_CLIENT || b->hops[i] > 0)
		return false;
	uint16_t holder = holder_find(p, &b->packets[i], hash);
	if (holder == p->worker_idx || holder >= p->n_workers)
		return false;
	b->verdict[i] = PIPELINE_RESTEER;
	b->out_port[i] = (uint8_t)holder;
	return true;
}

bool stage_walk_first(struct pipeline *p, struct burst *b, uint32_t i)
{
	const struct packet *packet = &b->packets[i];
	uint16_t slot = snapshot_find_cell(p->snapshot, &packet->dst)->slot;
	const struct snapshot_listener *l = snapshot_find_listener(
		p->snapshot, slot, packet->protocol, rte_be_to_cpu_16(packet->dst_port));
	if (l != NULL && l->by_client)
		return stage_to_owner(p, b, i, &packet->src);
	uint32_t n_left = p->n_workers - 1u - b->hops[i];
	if (!stage_walk(p, b, i))
		return false;
	struct flow_key key = flow_key_make(
		&packet->src, packet->src_port, packet->dst_port, slot, packet->protocol);
	uint64_t hash = flow_hash(&p->flows, &key);
	uint32_t last = (p->worker_idx + n_left) % p->n_workers;
	p->notes[(hash >> 20) % PIPELINE_NOTES] = flow_directory_tag(hash) | (last + 1);
	p->has_notes = true;
	return true;
}
