// SPDX-License-Identifier: BSD-3-Clause
// Hot path: no allocation, lock, log, system call.
// The first packet of a flow, and what a known flow does with its next one.
#include "pipeline_priv.h"

// The way a flow of mode dnat is told apart from others is (client, backend): two VIPs with one backend and a client that uses
// one port for both would be one flow to it. The older one gives way unless it is confirmed.
static enum drop_reason dnat_claim(struct pipeline *p, const struct flow_record *r)
{
	struct flow_key key = flow_backend_key(r);
	uint8_t side;
	uint32_t idx = flow_lookup(&p->flows, &key, &side);
	if (idx == FLOW_NONE)
		return DROP_NONE;
	const struct flow_record *other = flow_record(&p->flows, idx);
	bool keep = flow_is_confirmed(other->state) && other->state < FLOW_STATE_CLOSING &&
		    !flow_is_expired(other, p->policies, p->now_s);
	if (keep || (other->state == FLOW_STATE_UDP_TWOWAY &&
			    !flow_is_expired(other, p->policies, p->now_s)))
		return DROP_DNAT_TUPLE_TAKEN;
	counters_add(p->counters, COUNTER_FLOWS_EVICTED, 1);
	stage_end_flow(p, idx);
	return DROP_NONE;
}

// The backend's side of the record: in fullnat a source port of ours, in dnat the client as it is.
static enum drop_reason flow_face_backend(
	struct pipeline *p, const struct packet *packet, struct flow_record *r)
{
	if (r->flags & FLOW_FLAG_DNAT)
		return dnat_claim(p, r);
	uint32_t spread = (uint32_t)hash_fold(
		packet->src.halves[1] ^ packet->src_port, p->flows.key.words[0] | 1);
	return stage_take_port(p, r, spread);
}

static uint8_t flow_flags(const struct snapshot_listener *l, const struct packet *packet,
	const struct snapshot_backend *backend)
{
	uint8_t flags = l->mode == SNAPSHOT_DNAT ? FLOW_FLAG_DNAT : FLOW_FLAG_BY_PORT;
	if (address_is_v4(&backend->address) == packet->is_v6)
		flags |= FLOW_FLAG_CROSS;
	if (packet->protocol == NET_PROTO_TCP && l->client_address == SNAPSHOT_CLIENT_TOA)
		flags |= FLOW_FLAG_TOA;
	if (packet->protocol == NET_PROTO_TCP && l->client_address == SNAPSHOT_CLIENT_PROXY_V2)
		flags |= FLOW_FLAG_PROXY | FLOW_FLAG_PROXY_PENDING;
	return flags;
}

// Where the client's stream begins: one behind its SYN.
static void flow_set_isn(struct flow_record *r, const struct rte_mbuf *mbuf, const struct packet *p)
{
	if (!(r->flags & (FLOW_FLAG_TOA | FLOW_FLAG_PROXY)))
		return;
	const struct tcp_header *tcp =
		rte_pktmbuf_mtod_offset(mbuf, const struct tcp_header *, p->l4_offset);
	uint32_t first = rte_be_to_cpu_32(tcp->sequence) + 1;
	r->isn[0] = (uint8_t)(first >> 16);
	r->isn[1] = (uint8_t)(first >> 8);
	r->isn[2] = (uint8_t)first;
}

// The record of a new flow, all but its source port.
static void flow_prepare(struct pipeline *p, const struct burst *b, uint32_t i,
	const struct snapshot_listener *l, struct flow_record *r)
{
	const struct packet *packet = &b->packets[i];
	uint32_t backend_id = b->backend_id[i];
	const struct snapshot_backend *backend = &p->snapshot->backends[backend_id];
	bool is_range = l->port != l->port_max; // its ports stay as they are
	struct pipeline_backend_counters *block = pipeline_backend_block(p, backend_id);
	rte_be16_t backend_port = is_range ? packet->dst_port : rte_cpu_to_be_16(backend->port);
	*r = (struct flow_record){
		.client = packet->src,
		.client_port = packet->src_port,
		.vip_port = packet->dst_port,
		.vip_slot = l->slot,
		.backend = backend->address,
		.backend_port = backend_port,
		.protocol = packet->protocol,
		.state = packet->protocol == NET_PROTO_UDP ? FLOW_STATE_UDP_ONEWAY
							   : FLOW_STATE_SYN_SENT,
		.policy = l->policy,
		.backend_id = backend_id & FLOW_BACKEND_ID_MAX,
		.flags = flow_flags(l, packet, backend),
		.stamp_s = p->now_s,
		.route_generation = route_tag(p->snapshot->fib),
		.nexthop_client = pipeline_route(p, &packet->src),
		.nexthop_backend = likely(block != NULL)
					   ? pipeline_backend_route(p, block, &backend->address)
					   : pipeline_route(p, &backend->address),
	};
	if (r->flags & FLOW_FLAG_DNAT) {
		r->backend = packet->src;
		r->backend_port = packet->src_port;
		r->snat_slot = backend->own_slot;
		r->snat_port = backend_port;
	}
	flow_set_isn(r, b->mbufs[i], packet);
}

struct flow_hashes {
	uint64_t client;
	uint64_t backend; // as the client's where that key is not in the table
};

// Into the table. DROP_NONE or the reason why not; the source port is given back then.
static enum drop_reason flow_enter(struct pipeline *p, struct burst *b, uint32_t i,
	const struct flow_record *r, const struct flow_hashes *hashes)
{
	uint32_t idx = flow_add_hashed(&p->flows, r, hashes->client, hashes->backend);
	if (idx == FLOW_NONE && stage_make_room(p))
		idx = flow_add_hashed(&p->flows, r, hashes->client, hashes->backend);
	if (idx == FLOW_NONE) {
		stage_free_port(p, r);
		return DROP_FLOW_TABLE_FULL;
	}
	b->flow_idx[i] = idx;
	b->side[i] = FLOW_SIDE_CLIENT;
	counters_add(p->counters, COUNTER_FLOWS_CREATED, 1);
	struct pipeline_backend_counters *block = pipeline_backend_block(p, r->backend_id);
	if (block)
		relaxed_add(&block->flows_created, 1);
	return DROP_NONE;
}

// Source port, next hops, record. DROP_NONE or the reason why not.
static enum drop_reason flow_open(
	struct pipeline *p, struct burst *b, uint32_t i, const struct snapshot_listener *l)
{
	struct flow_record r;
	flow_prepare(p, b, i, l, &r);
	enum drop_reason refused = flow_face_backend(p, &b->packets[i], &r);
	if (refused != DROP_NONE)
		return refused;
	struct flow_key client = flow_client_key(&r), backend = flow_backend_key(&r);
	struct flow_hashes hashes;
	hashes.client = hashes.backend = flow_hash(&p->flows, &client);
	if (!(r.flags & FLOW_FLAG_BY_PORT))
		hashes.backend = flow_hash(&p->flows, &backend);
	flow_prefetch_add(&p->flows, hashes.client, hashes.backend);
	refused = flow_enter(p, b, i, &r, &hashes);
	if (refused == DROP_NONE && !(r.flags & FLOW_FLAG_DNAT))
		snat_name(p->snat, b->flow_idx[i]);
	return refused;
}

// Nothing starts on the backend's side. What a dnat backend sends to others is the kernel's.
static void miss_from_backend(struct pipeline *p, struct burst *b, uint32_t i)
{
	if (!b->may_be_foreign[i])
		stage_drop(p, b, i, DROP_NO_FLOW_QUIET);
	else if (!stage_to_owner(p, b, i, &b->packets[i].dst))
		stage_punt(b, i, PIPELINE_PUNT_OTHER);
}

// A packet that starts no flow here: in the middle of one that nobody knows, or with a checksum that was left to an offload.
static bool refuses_start(struct pipeline *p, struct burst *b, uint32_t i)
{
	const struct packet *packet = &b->packets[i];
	if (packet->protocol != NET_PROTO_UDP &&
		(packet->tcp_flags & (TCP_SYN | TCP_ACK | TCP_RST)) != TCP_SYN) {
		stage_refuse(p, b, i, DROP_NO_FLOW);
		return true;
	}
	if (packet->kind == PACKET_FLOW && packet_l4_checksum_is_partial(b->mbufs[i], packet) &&
		!packet_l4_checksum_ok(b->mbufs[i], packet)) {
		stage_drop(p, b, i, DROP_BAD_L4_CHECKSUM);
		return true;
	}
	return false;
}

// Sets backend_id. False: it has its verdict.
static bool choose_backend(
	struct pipeline *p, struct burst *b, uint32_t i, const struct snapshot_listener *l)
{
	struct snapshot_pick pick = stage_pick(p, l, &b->packets[i]);
	if (pick.backend_id == SNAPSHOT_BACKEND_NONE) {
		stage_refuse(p, b, i, DROP_NO_BACKEND);
		return false;
	}
	b->backend_id[i] = pick.backend_id;
	if (b->packets[i].ttl <= 1) {
		stage_answer_error(p, b, i, PACKET_TIME_EXCEEDED, 0);
		return false;
	}
	return true;
}

static void open_admitted(
	struct pipeline *p, struct burst *b, uint32_t i, const struct snapshot_listener *l)
{
	const struct packet *packet = &b->packets[i];
	if (l->by_client && stage_to_owner(p, b, i, &packet->src))
		return;
	if (refuses_start(p, b, i) || !choose_backend(p, b, i, l))
		return;
	enum drop_reason refused = flow_open(p, b, i, l);
	if (refused != DROP_NONE) {
		stage_drop(p, b, i, refused);
		return;
	}
	stage_picked(p, l, packet, b->backend_id[i]);
	b->verdict[i] = PIPELINE_FORWARD;
}

void stage_open(struct pipeline *p, struct burst *b, uint32_t i)
{
	const struct packet *packet = &b->packets[i];
	if (b->side[i] == FLOW_SIDE_BACKEND) {
		miss_from_backend(p, b, i);
		return;
	}
	if (unlikely(packet->kind == PACKET_FRAGMENT) && stage_walk_first(p, b, i))
		return; // its flow may be another worker's: fragments come by addresses alone
	const struct snapshot_listener *l = stage_admit(p, b, i);
	if (l != NULL)
		open_admitted(p, b, i, l);
}

// ---------------------------------------------------------------- new flows of one burst together

// Each of these loops asks for what the next one reads: the lines of 64 new flows come side by side.
struct opening {
	uint32_t n;
	uint8_t at[BURST_MAX];
	struct flow_record records[BURST_MAX];
	uint64_t hashes[BURST_MAX]; // of their clients' keys: they have no other in the table
	size_t places[BURST_MAX];   // of their source ports, which name them
};

// Everything about the packet and the listener that matters alone: a pick that other picks of the burst have a say in, or a flow
// that may be elsewhere, is opened by itself.
static bool may_be_opened_together(const struct snapshot_listener *l)
{
	return l->mode == SNAPSHOT_FULLNAT && !l->by_client && l->scheduler == SNAPSHOT_MAGLEV;
}

static void opening_prepare(
	struct pipeline *p, struct burst *b, const struct stage_misses *m, struct opening *o)
{
	o->n = 0;
	for (uint32_t k = 0; k < m->n; k++) {
		uint32_t i = m->at[k];
		const struct snapshot_listener *l = stage_admit(p, b, i);
		if (l == NULL)
			continue;
		if (!may_be_opened_together(l)) {
			open_admitted(p, b, i, l);
			if (b->verdict[i] == PIPELINE_FORWARD)
				stage_rewrite(p, b, i);
			continue;
		}
		if (refuses_start(p, b, i) || !choose_backend(p, b, i, l))
			continue;
		o->hashes[o->n] = m->hashes[k];
		flow_prepare(p, b, i, l, &o->records[o->n]);
		o->at[o->n++] = (uint8_t)i;
	}
}

static void opening_take_ports(struct pipeline *p, struct burst *b, struct opening *o)
{
	uint32_t n = 0;
	for (uint32_t k = 0; k < o->n; k++) {
		uint32_t i = o->at[k];
		struct flow_record *r = &o->records[n];
		if (unlikely(n < k))
			*r = o->records[k];
		enum drop_reason refused = flow_face_backend(p, &b->packets[i], r);
		if (refused != DROP_NONE) {
			stage_drop(p, b, i, refused);
			continue;
		}
		o->hashes[n] = o->hashes[k];
		o->places[n] = snat_last(p->snat);
		o->at[n++] = (uint8_t)i;
	}
	o->n = n;
}

void stage_open_together(struct pipeline *p, struct burst *b, const struct stage_misses *m,
	const struct burst_facts *facts)
{
	struct opening o; // its arrays as far as they are used
	opening_prepare(p, b, m, &o);
	opening_take_ports(p, b, &o);
	for (uint32_t k = 0; k < o.n; k++)
		flow_prefetch_room(&p->flows, o.hashes[k], o.hashes[k]);
	for (uint32_t k = 0; k < o.n; k++) {
		uint32_t i = o.at[k];
		struct flow_hashes hashes = { o.hashes[k], o.hashes[k] };
		enum drop_reason refused = flow_enter(p, b, i, &o.records[k], &hashes);
		if (refused != DROP_NONE) {
			stage_drop(p, b, i, refused);
			continue;
		}
		snat_name_at(p->snat, o.places[k], b->flow_idx[i]);
		stage_forward_first(p, b, i, facts);
	}
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
	if (r->protocol != NET_PROTO_UDP) // SCTP's chunks come as flags of the same meaning
		return flow_tcp_next(r->state, side, flags);
	return side == FLOW_SIDE_BACKEND ? FLOW_STATE_UDP_TWOWAY : r->state;
}

// The first answer of a backend shows whether its checksums are left to an offload.
static bool answer_is_partial(const struct burst *b, uint32_t i, const struct flow_record *r)
{
	return b->side[i] == FLOW_SIDE_BACKEND && b->packets[i].kind == PACKET_FLOW &&
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
