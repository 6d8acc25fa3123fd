// SPDX-License-Identifier: BSD-3-Clause
// Hot path: no allocation, lock, log, system call.
// What comes before a flow: may this packet start one, at which worker, and at which backend. Once per flow.
#include "pipeline_priv.h"

const struct snapshot_listener *stage_admit(struct pipeline *p, struct burst *b, uint32_t i)
{
	const struct packet *packet = &b->packets[i];
	uint8_t kind = SNAPSHOT_OWN_NONE;
	uint16_t slot = snapshot_find_own(p->snapshot, &packet->dst, &kind);
	const struct snapshot_listener *l = snapshot_find_listener(
		p->snapshot, slot, packet->protocol, rte_be_to_cpu_16(packet->dst_port));
	if (snapshot_find_own(p->snapshot, &packet->src, &kind) != SNAPSHOT_SLOT_NONE) {
		stage_drop(p, b, i, DROP_IMPOSSIBLE_SOURCE);
		return NULL;
	}
	if (l == NULL) {
		stage_refuse(p, b, i, DROP_CLOSED_PORT);
		return NULL;
	}
	b->listener_idx[i] = (uint32_t)(l - p->snapshot->listeners);
	if (!snapshot_source_allowed(p->snapshot, l, &packet->src)) {
		stage_drop(p, b, i, DROP_SOURCE_RANGE);
		return NULL;
	}
	return l;
}

bool stage_to_owner(struct pipeline *p, struct burst *b, uint32_t i, const struct address *client)
{
	if (p->n_workers == 1 || b->hops[i] > 0)
		return false;
	uint16_t owner = flow_owner_by_client(client, p->n_workers);
	if (owner == p->worker_idx)
		return false;
	b->verdict[i] = PIPELINE_RESTEER;
	b->out_port[i] = (uint8_t)owner;
	return true;
}

bool stage_walk(struct pipeline *p, struct burst *b, uint32_t i)
{
	if (b->hops[i] + 1u >= p->n_workers)
		return false;
	b->verdict[i] = PIPELINE_RESTEER;
	b->out_port[i] = (uint8_t)((p->worker_idx + 1) % p->n_workers);
	return true;
}

// ---------------------------------------------------------------- load

// Flows that this worker has at a backend.
static uint64_t backend_load(const struct pipeline *p, uint32_t backend_id)
{
	if (backend_id >= p->n_backend_counters)
		return 0;
	const struct pipeline_backend_counters *block = &p->backend_counters[backend_id];
	return block->flows_created - block->flows_ended;
}

// The one with fewer flows for its weight, the new one counted; the first when equal. What a worker counts is its share of
// the clients, which is even.
static void prefer_lighter(const struct pipeline *p, const struct snapshot_listener *l,
	uint64_t hash, struct snapshot_pick *pick)
{
	uint32_t other = snapshot_pick_other(p->snapshot, l, hash);
	if (other == SNAPSHOT_BACKEND_NONE)
		return;
	uint64_t first_load = backend_load(p, pick->backend_id) + 1;
	uint64_t other_load = backend_load(p, other) + 1;
	const struct snapshot_backend *rows = p->snapshot->backends;
	pick->second_id = other;
	if (other_load * rows[pick->backend_id].weight >= first_load * rows[other].weight)
		return;
	pick->backend_id = other;
	pick->step = SNAPSHOT_PICK_LIGHTER;
}

// ---------------------------------------------------------------- affinity
// A client's backend is an entry of the one-way table, which is not a flow. The key has the client in it, and all of a client's
// flows of such a listener are opened by one worker (stage_to_owner), so there is one entry for it.

static uint32_t affinity_find(
	const struct pipeline *p, const struct snapshot_listener *l, const struct address *client)
{
	struct flow_key key =
		oneway_affinity_key(client, rte_cpu_to_be_16(l->port), l->slot, l->protocol);
	uint32_t ref = oneway_lookup(&p->oneway, &key);
	if (ref == ONEWAY_NONE)
		return SNAPSHOT_BACKEND_NONE;
	uint64_t word = oneway_word(&p->oneway, ref);
	uint32_t id = oneway_backend_id(word);
	const struct snapshot_backend *backend = pipeline_backend(p, id);
	bool usable = backend != NULL && (backend->flags & SNAPSHOT_BACKEND_ELIGIBLE) &&
		      backend->service_idx == l->service_idx &&
		      oneway_idle_s(&p->oneway, word) <= l->affinity_s;
	return usable ? id : SNAPSHOT_BACKEND_NONE;
}

void stage_picked(struct pipeline *p, const struct snapshot_listener *l,
	const struct packet *packet, uint32_t backend_id)
{
	if (l->affinity_s == 0)
		return;
	struct flow_key key =
		oneway_affinity_key(&packet->src, rte_cpu_to_be_16(l->port), l->slot, l->protocol);
	stage_remember(p, &key, backend_id);
}

struct snapshot_pick stage_pick_by_hash(
	const struct pipeline *p, const struct snapshot_listener *l, const struct packet *packet)
{
	return snapshot_pick(p->snapshot, l,
		snapshot_pick_hash(l, &packet->src, packet->src_port, packet->dst_port));
}

struct snapshot_pick stage_pick(
	const struct pipeline *p, const struct snapshot_listener *l, const struct packet *packet)
{
	uint64_t hash = snapshot_pick_hash(l, &packet->src, packet->src_port, packet->dst_port);
	struct snapshot_pick pick = snapshot_pick(p->snapshot, l, hash);
	if (pick.backend_id == SNAPSHOT_BACKEND_NONE)
		return pick;
	if (l->affinity_s > 0) {
		uint32_t known = affinity_find(p, l, &packet->src);
		if (known != SNAPSHOT_BACKEND_NONE) {
			pick.backend_id = known;
			pick.step = SNAPSHOT_PICK_STICKY;
			return pick;
		}
	}
	if (l->scheduler == SNAPSHOT_LEAST_CONNECTIONS && pick.step == SNAPSHOT_PICK_PRIMARY)
		prefer_lighter(p, l, hash, &pick);
	return pick;
}
