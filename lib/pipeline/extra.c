// SPDX-License-Identifier: BSD-3-Clause
// Hot path: no allocation, lock, log, system call.
// NAT flows that need more than new addresses and ports:
//
//   TOA     every segment of the client but its SYN carries its address as an option, until the backend has acknowledged data
//   PROXY   a header goes in front of the client's stream. It rides on the handshake's ACK, so that a server that speaks first has
//           it; it is put in again into every segment that begins at the stream's first byte, until the backend has
//           acknowledged it; all other numbers are shifted by its length for the life of the flow
//   CROSS   the other family: the IP header is made anew
//
// A SYN's MSS is lowered where a segment of that size would not fit after the change. Numbers of the client's stream are known
// by their low 24 bits (struct flow_record, isn): a flow that has not had its first acknowledgement is far from 16 MB.
#include "pipeline_priv.h"

static struct tcp_header *tcp_of(const struct burst *b, uint32_t i)
{
	return rte_pktmbuf_mtod_offset(b->mbufs[i], struct tcp_header *, b->packets[i].l4_offset);
}

static void keep_tail(struct burst *b, struct rte_mbuf *tail)
{
	if (tail)
		b->tails[b->n_tails++] = tail;
}

// ---------------------------------------------------------------- MSS

static uint32_t mtu_of(const struct pipeline *p, uint16_t nexthop)
{
	if (nexthop >= p->nexthops.n_entries)
		return 1500;
	return p->ports[nexthop_word_port(nexthop_load(&p->nexthops, nexthop))].mtu;
}

// Largest segment that fits on both sides, with what is added towards the backend.
static void clamp_mss(struct pipeline *p, struct burst *b, uint32_t i, const struct flow_record *r)
{
	bool client_v6 = !address_is_v4(&r->client), backend_v6 = !address_is_v4(flow_server(p, r));
	uint32_t added = 0;
	if ((r->flags & FLOW_FLAG_TOA) && b->side[i] == FLOW_SIDE_BACKEND)
		added = client_v6 ? 20 : 8;
	uint32_t at_client = mtu_of(p, r->nexthop_client) - (client_v6 ? 60 : 40);
	uint32_t at_backend = mtu_of(p, r->nexthop_backend) - (backend_v6 ? 60 : 40) - added;
	packet_clamp_mss(b->mbufs[i], &b->packets[i],
		(uint16_t)(at_client < at_backend ? at_client : at_backend));
}

// ---------------------------------------------------------------- PROXY protocol

static enum drop_reason insert_header(
	struct pipeline *p, struct burst *b, uint32_t i, const struct flow_record *r, uint16_t mtu)
{
	struct packet_endpoint client = { r->client, r->client_port };
	struct packet_endpoint vip = { p->snapshot->own[r->vip_slot].address, r->vip_port };
	struct packet_proxy header;
	struct packet *packet = &b->packets[i];
	packet_proxy_build(&header, &client, &vip);
	enum packet_growth growth = packet_proxy_insert(b->mbufs[i], packet, &header, mtu);
	if (growth == PACKET_GROWTH_TOO_LONG) {
		struct rte_mbuf *tail = NULL;
		growth = packet_proxy_cut_and_insert(b->mbufs[i], packet, &header, &tail);
		keep_tail(b, tail);
	}
	return growth == PACKET_GROWN ? DROP_NONE : DROP_NO_HEADROOM;
}

static enum drop_reason proxy_to_backend(
	struct pipeline *p, struct burst *b, uint32_t i, const struct flow_record *r, uint16_t mtu)
{
	struct packet *packet = &b->packets[i];
	if (packet->tcp_flags & TCP_SYN) { // data in it would come before the header
		keep_tail(b, packet_cut_payload(b->mbufs[i], packet));
		return DROP_NONE;
	}
	uint32_t sequence = rte_be_to_cpu_32(tcp_of(b, i)->sequence);
	bool is_first = sequence == flow_first(r, sequence);
	if (!is_first || !(r->flags & FLOW_FLAG_PROXY_PENDING)) {
		packet_shift_sequence(b->mbufs[i], packet, (int32_t)flow_proxy_length(r));
		return DROP_NONE;
	}
	if (packet->tcp_flags & TCP_RST) // the backend may have nothing yet
		return DROP_NONE;
	return packet->kind == PACKET_FLOW ? insert_header(p, b, i, r, mtu) : DROP_FRAGMENT;
}

static void proxy_to_client(struct burst *b, uint32_t i, struct flow_record *r)
{
	bool pending = r->flags & FLOW_FLAG_PROXY_PENDING;
	uint32_t first = flow_first(r, rte_be_to_cpu_32(tcp_of(b, i)->acknowledgement));
	bool has_it = packet_shift_acknowledgement(
		b->mbufs[i], &b->packets[i], flow_proxy_length(r), pending ? &first : NULL);
	if (pending && has_it)
		r->flags &= (uint8_t)~FLOW_FLAG_PROXY_PENDING;
}

// ---------------------------------------------------------------- TOA

static void toa_to_backend(
	struct pipeline *p, struct burst *b, uint32_t i, const struct flow_record *r, uint16_t mtu)
{
	struct packet *packet = &b->packets[i];
	if ((packet->tcp_flags & (TCP_SYN | TCP_RST)) || packet->kind != PACKET_FLOW)
		return;
	if (packet_toa_insert(b->mbufs[i], packet, &r->client, r->client_port, mtu) != PACKET_GROWN)
		counters_add(p->counters, COUNTER_TOA_OMITTED, 1);
}

static void toa_to_client(struct burst *b, uint32_t i, struct flow_record *r)
{
	if (!(b->packets[i].tcp_flags & TCP_ACK))
		return;
	uint32_t acknowledged = rte_be_to_cpu_32(tcp_of(b, i)->acknowledgement);
	int32_t n = (int32_t)(acknowledged - flow_first(r, acknowledged));
	if (n > 0)
		r->flags &= (uint8_t)~FLOW_FLAG_TOA;
}

static enum drop_reason change_tcp(
	struct pipeline *p, struct burst *b, uint32_t i, struct flow_record *r, uint16_t mtu)
{
	enum drop_reason refused = DROP_NONE;
	if ((b->packets[i].tcp_flags & TCP_SYN) && (r->flags & (FLOW_FLAG_CROSS | FLOW_FLAG_TOA)))
		clamp_mss(p, b, i, r);
	if (b->side[i] == FLOW_SIDE_CLIENT) {
		if (r->flags & FLOW_FLAG_TOA)
			toa_to_backend(p, b, i, r, mtu);
		if (r->flags & FLOW_FLAG_PROXY)
			refused = proxy_to_backend(p, b, i, r, mtu);
		return refused;
	}
	if (r->flags & FLOW_FLAG_TOA)
		toa_to_client(b, i, r);
	if (r->flags & FLOW_FLAG_PROXY)
		proxy_to_client(b, i, r);
	return DROP_NONE;
}

bool stage_rewrite_extra(struct pipeline *p, struct burst *b, uint32_t i, struct packet_nat *nat)
{
	struct flow_record *r = flow_record(&p->flows, b->flow_idx[i]);
	struct packet *packet = &b->packets[i];
	bool to_backend = b->side[i] == FLOW_SIDE_CLIENT;
	// What may be added is what fits behind the change of family.
	int32_t mtu = (int32_t)mtu_of(p, to_backend ? r->nexthop_backend : r->nexthop_client) -
		      flow_growth(r, packet);
	enum drop_reason refused = DROP_NONE;
	if (packet->protocol == NET_PROTO_TCP)
		refused = change_tcp(p, b, i, r, (uint16_t)mtu);
	if (refused == DROP_NONE && (r->flags & FLOW_FLAG_CROSS)) {
		if (packet->kind != PACKET_FLOW)
			refused = DROP_FRAGMENT;
		else if (!packet_rewrite_cross(b->mbufs[i], packet, nat))
			refused = DROP_NO_HEADROOM;
	} else if (refused == DROP_NONE) {
		packet_rewrite_fullnat(b->mbufs[i], packet, nat);
	}
	if (refused == DROP_NONE)
		return true;
	stage_drop(p, b, i, refused);
	return false;
}
