// SPDX-License-Identifier: BSD-3-Clause
// Hot path: no allocation, lock, log, system call.
// The first packet of a flow, and what a known flow does with its next one.
#include "pipeline_priv.h"

// Source port, next hops, record. 0 or the reason why not.
static enum drop_reason flow_open(struct pipeline *p, struct burst *b, uint32_t i,
	const struct snapshot_listener *l, uint32_t backend_id)
{
	const struct packet *packet = &b->packets[i];
	const struct snapshot_backend *backend = &p->snapshot->backends[backend_id];
	struct flow_record r = {
		.client = packet->src,
		.client_port = packet->src_port,
		.vip_port = packet->dst_port,
		.vip_slot = l->slot,
		.backend = backend->address,
		.backend_port = rte_cpu_to_be_16(backend->port),
		.protocol = packet->protocol,
		.state = packet->protocol == NET_PROTO_TCP ? FLOW_STATE_SYN_SENT
							   : FLOW_STATE_UDP_ONEWAY,
		.policy = l->policy,
		.backend_id = backend_id,
		.stamp_s = p->now_s,
		.route_generation = route_tag(p->snapshot->fib),
		.nexthop_client = pipeline_route(p, &packet->src),
		.nexthop_backend = pipeline_route(p, &backend->address),
	};
	uint32_t spread = (uint32_t)hash_fold(
		packet->src.halves[1] ^ packet->src_port, p->flows.key.words[0] | 1);
	enum drop_reason refused = stage_take_port(p, &r, spread);
	if (refused != DROP_NONE)
		return refused;
	uint32_t idx = flow_add(&p->flows, &r);
	if (idx == FLOW_NONE && stage_make_room(p))
		idx = flow_add(&p->flows, &r);
	if (idx == FLOW_NONE) {
		snat_free(
			p->snat, r.snat_slot, r.snat_port, &r.backend, r.backend_port, r.protocol);
		return DROP_FLOW_TABLE_FULL;
	}
	snat_name(p->snat, idx);
	b->flow_idx[i] = idx;
	b->side[i] = FLOW_SIDE_CLIENT;
	counters_add(p->counters, COUNTER_FLOWS_CREATED, 1);
	struct pipeline_backend_counters *block = pipeline_backend_block(p, backend_id);
	if (block)
		relaxed_add(&block->flows_created, 1);
	return DROP_NONE;
}

void stage_open(struct pipeline *p, struct burst *b, uint32_t i)
{
	const struct packet *packet = &b->packets[i];
	if (b->side[i] == FLOW_SIDE_BACKEND) { // nothing starts there
		stage_drop(p, b, i, DROP_NO_FLOW_QUIET);
		return;
	}
	uint8_t kind = SNAPSHOT_OWN_NONE;
	uint16_t slot = snapshot_find_own(p->snapshot, &packet->dst, &kind);
	const struct snapshot_listener *l = snapshot_find_listener(
		p->snapshot, slot, packet->protocol, rte_be_to_cpu_16(packet->dst_port));
	uint8_t own_kind;
	if (snapshot_find_own(p->snapshot, &packet->src, &own_kind) != SNAPSHOT_SLOT_NONE) {
		stage_drop(p, b, i, DROP_IMPOSSIBLE_SOURCE);
		return;
	}
	if (l == NULL) {
		stage_refuse(p, b, i, DROP_CLOSED_PORT);
		return;
	}
	b->listener_idx[i] = (uint32_t)(l - p->snapshot->listeners);
	if (!snapshot_source_allowed(p->snapshot, l, &packet->src)) {
		stage_drop(p, b, i, DROP_SOURCE_RANGE);
		return;
	}
	if (packet->protocol == NET_PROTO_TCP &&
		(packet->tcp_flags & (TCP_SYN | TCP_ACK | TCP_RST)) != TCP_SYN) {
		stage_refuse(p, b, i, DROP_NO_FLOW);
		return;
	}
	if (packet_l4_checksum_is_partial(b->mbufs[i], packet) &&
		!packet_l4_checksum_ok(b->mbufs[i], packet)) {
		stage_drop(p, b, i, DROP_BAD_L4_CHECKSUM);
		return;
	}
	struct snapshot_pick pick = snapshot_pick(p->snapshot, l,
		snapshot_pick_hash(l, &packet->src, packet->src_port, packet->dst_port));
	if (pick.backend_id == SNAPSHOT_BACKEND_NONE) {
		stage_refuse(p, b, i, DROP_NO_BACKEND);
		return;
	}
	b->backend_id[i] = pick.backend_id;
	if (packet->ttl <= 1) {
		stage_answer_error(p, b, i, PACKET_TIME_EXCEEDED, 0);
		return;
	}
	enum drop_reason refused = flow_open(p, b, i, l, pick.backend_id);
	if (refused != DROP_NONE)
		stage_drop(p, b, i, refused);
	else
		b->verdict[i] = PIPELINE_FORWARD;
}

// A client's SYN on a flow that exists: retransmitted, or its port used again.
static bool syn_starts_anew(const struct flow_record *r, const struct snapshot_backend *backend)
{
	if (r->state == FLOW_STATE_CLOSED || r->state == FLOW_STATE_CLOSING)
		return true;
	return r->state == FLOW_STATE_SYN_SENT &&
	       (backend == NULL || !(backend->flags & SNAPSHOT_BACKEND_ELIGIBLE));
}

bool flow_gives_way(const struct pipeline *p, const struct flow_record *r, enum flow_side side,
	uint8_t tcp_flags)
{
	const struct snapshot_backend *backend = pipeline_backend(p, r->backend_id);
	if (flow_is_expired(r, p->policies, p->now_s))
		return true;
	if (side != FLOW_SIDE_CLIENT)
		return false;
	if (r->protocol == NET_PROTO_UDP) // no connection to keep: leaves a removed backend at once
		return backend == NULL || !(backend->flags & SNAPSHOT_BACKEND_LISTED);
	if ((tcp_flags & (TCP_SYN | TCP_ACK)) != TCP_SYN)
		return false;
	return syn_starts_anew(r, backend);
}

static enum flow_state state_next(const struct flow_record *r, enum flow_side side, uint8_t flags)
{
	if (r->protocol == NET_PROTO_TCP)
		return flow_tcp_next(r->state, side, flags);
	return side == FLOW_SIDE_BACKEND ? FLOW_STATE_UDP_TWOWAY : r->state;
}

// The first answer of a backend shows whether its checksums are left to an offload.
static bool answer_is_partial(const struct burst *b, uint32_t i, const struct flow_record *r)
{
	return b->side[i] == FLOW_SIDE_BACKEND &&
	       (r->state == FLOW_STATE_SYN_SENT || r->state == FLOW_STATE_UDP_ONEWAY) &&
	       packet_l4_checksum_is_partial(b->mbufs[i], &b->packets[i]) &&
	       !packet_l4_checksum_ok(b->mbufs[i], &b->packets[i]);
}

// Once a second and flow. Control gives policies and slots to others when nobody can hold them any more, which it tells by the
// longest idle timeout: so a packet takes over its listener's present policy, and a backend's packets do not
// keep a flow whose VIP no service has.
static void stamp_flow(struct pipeline *p, struct burst *b, uint32_t i, struct flow_record *r)
{
	const struct snapshot *s = p->snapshot;
	if (b->listener_idx[i] < s->n_listeners)
		__atomic_store_n(
			&r->policy, s->listeners[b->listener_idx[i]].policy, __ATOMIC_RELAXED);
	if (b->side[i] == FLOW_SIDE_CLIENT || s->own[r->vip_slot].kind != SNAPSHOT_OWN_NONE)
		__atomic_store_n(&r->stamp_s, p->now_s, __ATOMIC_RELAXED);
}

bool stage_follow(struct pipeline *p, struct burst *b, uint32_t i)
{
	struct flow_record *r = flow_record(&p->flows, b->flow_idx[i]);
	const struct snapshot_backend *backend = pipeline_backend(p, r->backend_id);
	b->backend_id[i] = r->backend_id;
	if (backend != NULL)
		b->listener_idx[i] = backend->listener_idx;
	if (unlikely(flow_gives_way(p, r, b->side[i], b->packets[i].tcp_flags))) {
		counters_add(p->counters,
			r->state == FLOW_STATE_SYN_SENT ? COUNTER_FLOWS_REPICKED
							: COUNTER_FLOWS_CLOSED,
			1);
		stage_end_flow(p, b->flow_idx[i]);
		return false;
	}
	if (unlikely(backend != NULL && (backend->flags & SNAPSHOT_BACKEND_RESET))) {
		counters_add(p->counters, COUNTER_FLOWS_CLOSED, 1);
		stage_end_flow(p, b->flow_idx[i]);
		b->flow_idx[i] = FLOW_NONE;
		stage_refuse(p, b, i, DROP_NO_FLOW);
		return true;
	}
	if (unlikely(b->packets[i].ttl <= 1)) {
		stage_answer_error(p, b, i, PACKET_TIME_EXCEEDED, 0);
		return true;
	}
	if (unlikely(answer_is_partial(b, i, r))) {
		stage_drop(p, b, i, DROP_BAD_L4_CHECKSUM);
		return true;
	}
	enum flow_state next = state_next(r, b->side[i], b->packets[i].tcp_flags);
	if (next != r->state)
		flow_set_state(&p->flows, b->flow_idx[i], next);
	if (r->stamp_s != p->now_s)
		stamp_flow(p, b, i, r);
	b->verdict[i] = PIPELINE_FORWARD;
	return true;
}
