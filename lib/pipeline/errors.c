// SPDX-License-Identifier: BSD-3-Clause
// Hot path: no allocation, lock, log, system call.
// ICMP errors that quote a packet of ours. Whose flow it is says the quoted packet alone:
//
//   quoted source         the error is about            goes to
//   VIP, NAT flow         what we sent to the client    the backend, quoted packet rewritten back
//   VIP, one-way          what the backend sent itself  the backend, in its tunnel, not changed
//   SNAT address          what we sent to the backend   the client, quoted packet rewritten back
//   the client's (dnat)   what we sent to the backend   the client, as before; its own address is the error's destination
//   tunnel source         a tunnel packet of ours       the client, as an error of ours about the packet inside
//
// An error that quotes no flow of ours changes nothing. With several workers it walks: only a flow's owner knows it.
#include "pipeline_priv.h"

struct quoted_error {
	struct packet quoted;
	struct flow_key key;
	uint8_t kind; // of the own address that the key has
	uint8_t tables;
};

// The client knows a segment by the number that it gave it.
static void unshift_quoted(struct rte_mbuf *mbuf, const struct packet *packet,
	const struct packet *quoted, const struct flow_record *r)
{
	const struct tcp_header *tcp =
		rte_pktmbuf_mtod_offset(mbuf, const struct tcp_header *, quoted->l4_offset);
	uint32_t first = flow_first(r, rte_be_to_cpu_32(tcp->sequence));
	packet_shift_quoted_sequence(mbuf, packet, quoted, flow_proxy_length(r),
		r->flags & FLOW_FLAG_PROXY_PENDING ? &first : NULL);
}

// Translates the error for the other side of flow r and sends it there. The outer source stays (a router on the way),
// unless it is the peer itself, which the other side does not know: then it is our address.
static void forward_error(
	struct pipeline *p, struct burst *b, uint32_t i, const struct packet *quoted)
{
	const struct flow_record *r = flow_record(&p->flows, b->flow_idx[i]);
	bool to_client = b->side[i] == FLOW_SIDE_BACKEND;
	const struct address *vip = &p->snapshot->own[r->vip_slot].address;
	const struct address *server = flow_server(p, r), *face = flow_face(p, r);
	const struct address *target = to_client ? &r->client : server;
	const struct packet *packet = &b->packets[i];
	struct way way = { 0 };
	enum drop_reason refused = way_find(p, pipeline_route(p, target), target, &way);
	if (refused == DROP_NONE && packet->ttl <= 1)
		refused = DROP_NO_FLOW_QUIET; // an error about an error is never sent
	if (refused == DROP_NONE && packet->l3_length > p->ports[way.port].mtu)
		refused = DROP_MTU_EXCEEDED;
	if (refused != DROP_NONE) {
		stage_drop(p, b, i, refused);
		return;
	}
	bool from_peer = address_equal(&packet->src, to_client ? server : &r->client);
	struct packet_nat outer = {
		.src = from_peer ? (to_client ? *vip : *face) : packet->src,
		.dst = *target,
		.macs = packet_macs_make(&way.mac, &p->ports[way.port].mac),
	};
	struct packet_nat inner = {
		// the quoted packet as its sender sent it
		.src = *target,
		.dst = to_client ? *vip : *face,
		.src_port = to_client ? r->client_port : flow_server_port(r),
		.dst_port = to_client ? r->vip_port : flow_face_port(r),
	};
	if (r->flags & FLOW_FLAG_PROXY && to_client)
		unshift_quoted(b->mbufs[i], packet, quoted, r);
	if (r->flags & FLOW_FLAG_CROSS) {
		outer.src = to_client ? *vip : *face;
		stage_detach(b, i);
		refused = packet_rewrite_icmp_error_cross(
			b->mbufs[i], packet, quoted, &outer, &inner);
		if (refused != DROP_NONE) {
			stage_drop(p, b, i, refused);
			return;
		}
	} else {
		packet_rewrite_icmp_error(b->mbufs[i], packet, quoted, &outer, &inner);
	}
	counters_add(p->counters, COUNTER_ERRORS_FORWARDED, 1);
	stage_leave(b, i, &way);
}

// Nobody's: the kernel may know better where the destination is not a VIP.
static void not_ours(
	struct pipeline *p, struct burst *b, uint32_t i, const struct snapshot_address_cell *to)
{
	if (to->kind == SNAPSHOT_OWN_VIP)
		stage_drop(p, b, i, DROP_ICMP_IMPLAUSIBLE);
	else
		stage_punt(b, i, PIPELINE_PUNT_OTHER);
}

// The key of the flow that the quoted packet belongs to, seen from who would answer it. False: no flow of ours can be meant.
static bool quoted_key(const struct pipeline *p, const struct packet *quoted,
	const struct snapshot_address_cell *to, struct quoted_error *out)
{
	bool is_own = to->kind == SNAPSHOT_OWN_VIP || to->kind == SNAPSHOT_OWN_SNAT;
	out->kind = to->kind;
	out->tables = to->tables;
	if (is_own) {
		out->key = flow_key_make(&quoted->dst, quoted->dst_port, quoted->src_port, to->slot,
			quoted->protocol);
		return true;
	}
	const struct snapshot_address_cell *server = snapshot_find_cell(p->snapshot, &quoted->dst);
	if (server->kind != SNAPSHOT_OWN_BACKEND)
		return false;
	out->kind = SNAPSHOT_OWN_BACKEND;
	out->key = flow_key_make(
		&quoted->src, quoted->src_port, quoted->dst_port, server->slot, quoted->protocol);
	return true;
}

// A quoted source port that is another worker's, or the kernel's. True: it has its verdict.
static bool quoted_port_settles(
	struct pipeline *p, struct burst *b, uint32_t i, const struct quoted_error *e)
{
	if (e->kind != SNAPSHOT_OWN_SNAT)
		return false;
	uint16_t port = rte_be_to_cpu_16(e->quoted.src_port);
	if (port < p->snat_port_min || port > p->snat_port_max) {
		stage_punt(b, i, PIPELINE_PUNT_OTHER);
		return true;
	}
	uint16_t owner = snat_owner(port, p->n_workers);
	if (owner == p->worker_idx)
		return false;
	b->verdict[i] = PIPELINE_RESTEER;
	b->out_port[i] = (uint8_t)owner;
	return true;
}

// What a backend of a one-way mode sent to the client met the error; it goes to that backend as the client's packets do. An entry
// knows which; without one, the hash that its flow goes by. False: no such listener.
static bool to_oneway(struct pipeline *p, struct burst *b, uint32_t i, const struct quoted_error *e)
{
	if (e->kind != SNAPSHOT_OWN_VIP || !(e->tables & SNAPSHOT_TABLE_ONEWAY))
		return false;
	uint64_t hash = flow_key_hash(&p->oneway.schedule, &e->key);
	uint32_t ref = oneway_lookup(&p->oneway, &e->key), id;
	if (ref != ONEWAY_NONE) {
		id = oneway_backend_id(oneway_word(&p->oneway, ref));
	} else {
		const struct snapshot_listener *l = snapshot_find_listener(p->snapshot,
			e->key.own_slot, e->quoted.protocol, rte_be_to_cpu_16(e->quoted.src_port));
		if (l == NULL || !snapshot_mode_is_oneway(l->mode))
			return false;
		if (stage_walk(p, b, i))
			return true;
		id = snapshot_pick(p->snapshot, l,
			snapshot_pick_hash(
				l, &e->quoted.dst, e->quoted.dst_port, e->quoted.src_port))
			     .backend_id;
	}
	const struct snapshot_backend *backend = pipeline_backend(p, id);
	if (backend == NULL || !snapshot_mode_is_oneway(backend->mode))
		return false;
	if (!packet_l4_checksum_ok(b->mbufs[i], &b->packets[i])) {
		stage_drop(p, b, i, DROP_BAD_L4_CHECKSUM);
		return true;
	}
	b->backend_id[i] = id;
	b->listener_idx[i] = backend->listener_idx;
	b->verdict[i] = PIPELINE_FORWARD;
	stage_send_oneway(p, b, i, hash);
	if (b->verdict[i] != PIPELINE_DROP)
		counters_add(p->counters, COUNTER_ERRORS_FORWARDED, 1);
	return true;
}

static void no_flow(struct pipeline *p, struct burst *b, uint32_t i, const struct quoted_error *e)
{
	bool walks = e->kind != SNAPSHOT_OWN_SNAT; // whose port has an owner
	if (to_oneway(p, b, i, e) || (walks && stage_walk(p, b, i)))
		return;
	if (e->kind == SNAPSHOT_OWN_BACKEND)
		stage_punt(b, i, PIPELINE_PUNT_OTHER);
	else
		stage_drop(p, b, i, DROP_ICMP_NO_FLOW);
}

// Was the quoted tunnel packet one that we send? Its inner packet's flow must be one of a one-way mode, and of that backend.
static bool tunnel_is_ours(const struct pipeline *p, const struct packet_quoted_tunnel *t)
{
	const struct snapshot *s = p->snapshot;
	const struct packet *inner = &t->inner;
	const struct snapshot_address_cell *vip = snapshot_find_cell(s, &inner->dst);
	if (vip->kind != SNAPSHOT_OWN_VIP || !(vip->tables & SNAPSHOT_TABLE_ONEWAY))
		return false;
	struct flow_key key = flow_key_make(
		&inner->src, inner->src_port, inner->dst_port, vip->slot, inner->protocol);
	uint32_t ref = oneway_lookup(&p->oneway, &key), id;
	if (ref != ONEWAY_NONE) {
		id = oneway_backend_id(oneway_word(&p->oneway, ref));
	} else {
		const struct snapshot_listener *l = snapshot_find_listener(
			s, vip->slot, inner->protocol, rte_be_to_cpu_16(inner->dst_port));
		if (l == NULL)
			return false;
		id = stage_pick_by_hash(p, l, inner).backend_id;
	}
	const struct snapshot_backend *backend = pipeline_backend(p, id);
	return backend != NULL && snapshot_mode_is_oneway(backend->mode) &&
	       address_equal(&backend->address, &t->dst);
}

// An error from the path of a tunnel of ours. True: it has its verdict.
static bool tunnel_error(struct pipeline *p, struct burst *b, uint32_t i)
{
	const struct packet *packet = &b->packets[i];
	struct packet_quoted_tunnel t;
	if (!address_equal(&packet->dst, &p->snapshot->tunnel_source[packet->is_v6]) ||
		!packet_parse_quoted_tunnel(b->mbufs[i], packet, &t) ||
		snapshot_find_cell(p->snapshot, &t.inner.dst)->kind != SNAPSHOT_OWN_VIP)
		return false;
	enum drop_reason refused = DROP_NONE;
	if (!tunnel_is_ours(p, &t)) {
		if (stage_walk(p, b, i))
			return true;
		refused = DROP_ICMP_NO_FLOW;
	} else if (!packet_l4_checksum_ok(b->mbufs[i], packet)) {
		refused = DROP_BAD_L4_CHECKSUM;
	} else if (!bucket_take(&p->answer_bucket, p->now_ns)) {
		refused = DROP_ANSWER_RATE;
	} else {
		stage_detach(b, i);
		if (!packet_answer_relayed_error(b->mbufs[i], packet, &t))
			refused = DROP_ICMP_TYPE;
	}
	if (refused != DROP_NONE) {
		stage_drop(p, b, i, refused);
		return true;
	}
	counters_add(p->counters, COUNTER_ERRORS_FORWARDED, 1);
	stage_leave_answer(p, b, i, &t.inner.src, DROP_ICMP_RELAYED);
	return true;
}

void stage_icmp_error(struct pipeline *p, struct burst *b, uint32_t i)
{
	const struct packet *packet = &b->packets[i];
	const struct snapshot_address_cell *to = snapshot_find_cell(p->snapshot, &packet->dst);
	struct quoted_error e;
	if (to->kind == SNAPSHOT_OWN_SNAT && tunnel_error(p, b, i))
		return;
	if (!packet_parse_quoted(b->mbufs[i], packet, &e.quoted) ||
		!quoted_key(p, &e.quoted, to, &e)) {
		not_ours(p, b, i, to);
		return;
	}
	if (quoted_port_settles(p, b, i, &e))
		return;
	b->flow_idx[i] = pipeline_find(p, &e.key, e.kind, &b->side[i]);
	if (b->flow_idx[i] == FLOW_NONE) {
		no_flow(p, b, i, &e);
		return;
	}
	b->backend_id[i] = flow_record(&p->flows, b->flow_idx[i])->backend_id;
	if (!packet_l4_checksum_ok(b->mbufs[i], packet)) {
		stage_drop(p, b, i, DROP_BAD_L4_CHECKSUM);
		return;
	}
	forward_error(p, b, i, &e.quoted);
}
