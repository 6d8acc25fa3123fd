// SPDX-License-Identifier: BSD-3-Clause
// Hot path: no allocation, lock, log, system call.
// The way out of a packet with a flow of a NAT mode: next hop, size, rewrite.
#include "pipeline_priv.h"

// Next hops of a record are from an older FIB, or were not known: look again. Cheap and rare.
static void refresh_routes(struct pipeline *p, struct flow_record *r, uint8_t generation)
{
	r->nexthop_client = pipeline_route(p, &r->client);
	r->nexthop_backend = pipeline_route(p, flow_server(p, r));
	r->route_generation = generation;
}

enum drop_reason way_find(
	const struct pipeline *p, uint16_t nexthop, const struct address *peer, struct way *out)
{
	out->nexthop = nexthop;
	if (unlikely(nexthop == NEXTHOP_NONE))
		return DROP_NO_ROUTE;
	if (unlikely(nexthop == NEXTHOP_MISSING)) {
		struct nexthop_answer answer = nexthop_find(p->snapshot->fib, peer);
		out->wait = true;
		out->port = answer.port_idx;
		out->neighbour = *peer;
		return answer.nexthop == NEXTHOP_NONE ? DROP_NO_ROUTE : DROP_NONE;
	}
	uint64_t word = nexthop_load(&p->nexthops, nexthop);
	out->port = nexthop_word_port(word);
	out->mac = nexthop_word_mac(word);
	out->wait = nexthop_word_state(word) != NEXTHOP_VALID;
	if (unlikely(out->wait))
		out->neighbour = p->nexthops.entries[nexthop].address;
	return DROP_NONE;
}

void stage_leave(struct burst *b, uint32_t i, const struct way *way)
{
	b->out_port[i] = way->port;
	b->nexthop[i] = way->nexthop;
	b->verdict[i] = PIPELINE_FORWARD;
	if (unlikely(way->wait)) {
		b->verdict[i] = PIPELINE_WAIT;
		b->want[i] = way->neighbour;
	}
}

void stage_refuse_size(struct pipeline *p, struct burst *b, uint32_t i, uint16_t mtu)
{
	const struct packet *packet = &b->packets[i];
	if (!packet->is_v6) {
		const struct v4_header *ip = rte_pktmbuf_mtod_offset(
			b->mbufs[i], const struct v4_header *, packet->l3_offset);
		if (!(ip->fragment & RTE_BE16(0x4000))) {
			stage_drop(p, b, i, DROP_MTU_EXCEEDED);
			return;
		}
	}
	stage_answer_error(p, b, i, PACKET_TOO_BIG, mtu);
}

static inline struct packet_nat nat_make(const struct pipeline *p, const struct flow_record *r,
	bool to_backend, const struct pipeline_port *port, uint64_t dst_word)
{
	if (!to_backend)
		return (struct packet_nat){
			.src = p->snapshot->own[r->vip_slot].address,
			.dst = r->client,
			.ports = r->vip_port | (uint32_t)r->client_port << 16,
			.macs = packet_macs_of_words(dst_word, port_mac_word(port)),
		};
	return (struct packet_nat){
		.src = *flow_face(p, r),
		.dst = *flow_server(p, r),
		.ports = flow_face_port(r) | (uint32_t)flow_server_port(r) << 16,
		.macs = packet_macs_of_words(dst_word, port_mac_word(port)),
	};
}

void stage_rewrite(struct pipeline *p, struct burst *b, uint32_t i)
{
	uint8_t generation = route_tag(p->snapshot->fib);
	struct flow_record *r = flow_record(&p->flows, b->flow_idx[i]);
	bool to_backend = b->side[i] == FLOW_SIDE_CLIENT;
	uint16_t nexthop = to_backend ? r->nexthop_backend : r->nexthop_client;
	if (unlikely(r->route_generation != generation || nexthop >= NEXTHOP_MISSING))
		refresh_routes(p, r, generation); // unknown, or an adopted flow's
	const struct address *peer = to_backend ? flow_server(p, r) : &r->client;
	struct way way = { 0 };
	enum drop_reason refused =
		way_find(p, to_backend ? r->nexthop_backend : r->nexthop_client, peer, &way);
	if (refused != DROP_NONE) {
		stage_drop(p, b, i, refused);
		return;
	}
	const struct pipeline_port *port = &p->ports[way.port];
	int32_t growth = flow_growth(r, &b->packets[i]);
	if (b->packets[i].l3_length + growth > port->mtu) {
		stage_refuse_size(p, b, i, (uint16_t)(port->mtu - growth));
		return;
	}
	struct packet_nat nat = nat_make(p, r, to_backend, port, mac_word(&way.mac));
	if (r->flags & FLOW_FLAGS_ODD) {
		if (!stage_rewrite_extra(p, b, i, &nat))
			return;
	} else {
		packet_rewrite_fullnat(b->mbufs[i], &b->packets[i], &nat);
	}
	stage_count(p, b, i, r->backend_id);
	stage_leave(b, i, &way);
}

void stage_rewrite_fragment(struct pipeline *p, struct burst *b, uint32_t i)
{
	struct flow_record *r = flow_record(&p->flows, b->flow_idx[i]);
	bool to_backend = b->side[i] == FLOW_SIDE_CLIENT;
	const struct address *peer = to_backend ? flow_server(p, r) : &r->client;
	struct way way = { 0 };
	enum drop_reason refused = way_find(p, pipeline_route(p, peer), peer, &way);
	if (refused == DROP_NONE && (r->flags & FLOW_FLAG_CROSS))
		refused = DROP_FRAGMENT;
	if (refused == DROP_NONE && b->packets[i].ttl <= 1)
		refused = DROP_TTL_EXCEEDED; // told with the first one
	if (refused == DROP_NONE && b->packets[i].l3_length > p->ports[way.port].mtu)
		refused = DROP_MTU_EXCEEDED;
	if (refused != DROP_NONE) {
		stage_drop(p, b, i, refused);
		return;
	}
	struct packet_nat nat = nat_make(p, r, to_backend, &p->ports[way.port], mac_word(&way.mac));
	packet_rewrite_fragment(b->mbufs[i], &b->packets[i], &nat);
	stage_count(p, b, i, r->backend_id);
	stage_leave(b, i, &way);
}
