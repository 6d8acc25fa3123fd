// SPDX-License-Identifier: BSD-3-Clause
// Hot path: no allocation, lock, log, system call.
// The way out of a packet with a flow: next hop, size, rewrite; and ICMP errors that quote one.
#include "pipeline_priv.h"

// Next hops of a record are from an older FIB, or were not known: look again. Cheap and rare.
static void refresh_routes(struct pipeline *p, struct flow_record *r, uint8_t generation)
{
	r->nexthop_client = pipeline_route(p, &r->client);
	r->nexthop_backend = pipeline_route(p, &r->backend);
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

static void leave(struct burst *b, uint32_t i, const struct way *way)
{
	b->out_port[i] = way->port;
	b->nexthop[i] = way->nexthop;
	b->verdict[i] = PIPELINE_FORWARD;
	if (unlikely(way->wait)) {
		b->verdict[i] = PIPELINE_WAIT;
		b->want[i] = way->neighbour;
	}
}

// IPv4 without DF would have to be fragmented, which we do not do; all else is told.
static void refuse_size(struct pipeline *p, struct burst *b, uint32_t i, uint16_t mtu)
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

static inline void count_backend(
	struct pipeline *p, const struct burst *b, uint32_t i, const struct flow_record *r)
{
	struct pipeline_backend_counters *block = pipeline_backend_block(p, r->backend_id);
	if (unlikely(block == NULL))
		return;
	bool out = b->side[i] == FLOW_SIDE_BACKEND;
	relaxed_add(out ? &block->packets_out : &block->packets_in, 1);
	relaxed_add(out ? &block->bytes_out : &block->bytes_in, b->packets[i].l3_length);
}

static inline struct packet_nat nat_make(const struct pipeline *p, const struct flow_record *r,
	bool to_backend, const struct mac *src_mac, uint64_t dst_word)
{
	return (struct packet_nat){
		.dst = to_backend ? r->backend : r->client,
		.src = p->snapshot->own[to_backend ? r->snat_slot : r->vip_slot].address,
		.src_port = to_backend ? r->snat_port : r->vip_port,
		.dst_port = to_backend ? r->backend_port : r->client_port,
		.src_mac = *src_mac,
		.dst_mac = nexthop_word_mac(dst_word),
	};
}

// Routes are those of this FIB, the neighbour is resolved, the packet fits: nearly all. False: nothing done.
static inline bool rewrite_plain(
	struct pipeline *p, struct burst *b, uint32_t i, uint8_t generation)
{
	const struct flow_record *r = flow_record(&p->flows, b->flow_idx[i]);
	bool to_backend = b->side[i] == FLOW_SIDE_CLIENT;
	uint16_t nexthop = to_backend ? r->nexthop_backend : r->nexthop_client;
	// NEXTHOP_NONE and NEXTHOP_MISSING lie beyond every table.
	if (r->route_generation != generation || nexthop >= p->nexthops.n_entries)
		return false;
	uint64_t word = nexthop_load(&p->nexthops, nexthop);
	const struct pipeline_port *port = &p->ports[nexthop_word_port(word)];
	if (nexthop_word_state(word) != NEXTHOP_VALID || b->packets[i].l3_length > port->mtu)
		return false;
	struct packet_nat nat = nat_make(p, r, to_backend, &port->mac, word);
	packet_rewrite_fullnat(b->mbufs[i], &b->packets[i], &nat);
	count_backend(p, b, i, r);
	b->out_port[i] = nexthop_word_port(word);
	b->nexthop[i] = nexthop;
	return true;
}

static void rewrite_odd(struct pipeline *p, struct burst *b, uint32_t i, uint8_t generation)
{
	struct flow_record *r = flow_record(&p->flows, b->flow_idx[i]);
	bool to_backend = b->side[i] == FLOW_SIDE_CLIENT;
	uint16_t nexthop = to_backend ? r->nexthop_backend : r->nexthop_client;
	if (unlikely(r->route_generation != generation || nexthop >= NEXTHOP_MISSING))
		refresh_routes(p, r, generation); // unknown, or an adopted flow's
	const struct address *peer = to_backend ? &r->backend : &r->client;
	struct way way = { 0 };
	enum drop_reason refused =
		way_find(p, to_backend ? r->nexthop_backend : r->nexthop_client, peer, &way);
	if (refused != DROP_NONE) {
		stage_drop(p, b, i, refused);
		return;
	}
	const struct pipeline_port *port = &p->ports[way.port];
	if (b->packets[i].l3_length > port->mtu) {
		refuse_size(p, b, i, port->mtu);
		return;
	}
	struct packet_nat nat =
		nat_make(p, r, to_backend, &port->mac, nexthop_word(&way.mac, 0, 0));
	packet_rewrite_fullnat(b->mbufs[i], &b->packets[i], &nat);
	count_backend(p, b, i, r);
	leave(b, i, &way);
}

void stage_rewrite(struct pipeline *p, struct burst *b, const uint8_t *pending, uint32_t n)
{
	uint8_t generation = route_tag(p->snapshot->fib);
	for (uint32_t k = 0; k < n; k++) {
		uint32_t i = pending[k];
		if (b->flow_idx[i] == FLOW_NONE || b->verdict[i] != PIPELINE_FORWARD)
			continue;
		if (unlikely(!rewrite_plain(p, b, i, generation)))
			rewrite_odd(p, b, i, generation);
	}
}

// The quoted packet was sent by us: its source is one of our addresses, its destination the peer. Finds the flow.
// DROP_NONE and *out_idx, or FLOW_NONE for a quoted address that is not ours.
static bool quoted_key(
	struct pipeline *p, const struct packet *quoted, struct flow_key *key, uint8_t *out_kind)
{
	uint16_t slot = snapshot_find_own(p->snapshot, &quoted->src, out_kind);
	if (slot == SNAPSHOT_SLOT_NONE)
		return false;
	*key = (struct flow_key){ .peer = quoted->dst,
		.peer_port = quoted->dst_port,
		.own_port = quoted->src_port,
		.own_slot = slot,
		.protocol = quoted->protocol };
	return true;
}

// Translates the error for the other side of flow r and sends it there. The outer source stays (a router on the way),
// unless it is the peer itself, which the other side does not know: then it is our address.
static void forward_error(
	struct pipeline *p, struct burst *b, uint32_t i, const struct packet *quoted)
{
	const struct flow_record *r = flow_record(&p->flows, b->flow_idx[i]);
	bool to_client = b->side[i] == FLOW_SIDE_BACKEND;
	const struct address *vip = &p->snapshot->own[r->vip_slot].address;
	const struct address *snat = &p->snapshot->own[r->snat_slot].address;
	const struct address *target = to_client ? &r->client : &r->backend;
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
	bool from_peer = address_equal(&packet->src, to_client ? &r->backend : &r->client);
	struct packet_nat outer = {
		.src = from_peer ? (to_client ? *vip : *snat) : packet->src,
		.dst = *target,
		.src_mac = p->ports[way.port].mac,
		.dst_mac = way.mac,
	};
	struct packet_nat inner = {
		// the quoted packet as its sender sent it
		.src = *target,
		.dst = to_client ? *vip : *snat,
		.src_port = to_client ? r->client_port : r->backend_port,
		.dst_port = to_client ? r->vip_port : r->snat_port,
	};
	packet_rewrite_icmp_error(b->mbufs[i], packet, quoted, &outer, &inner);
	counters_add(p->counters, COUNTER_ERRORS_FORWARDED, 1);
	leave(b, i, &way);
}

void stage_icmp_error(struct pipeline *p, struct burst *b, uint32_t i)
{
	struct packet quoted;
	struct flow_key key;
	uint8_t kind = SNAPSHOT_OWN_NONE, dst_kind = SNAPSHOT_OWN_NONE;
	bool readable = packet_parse_quoted(b->mbufs[i], &b->packets[i], &quoted);
	bool for_us =
		snapshot_find_own(p->snapshot, &b->packets[i].dst, &dst_kind) != SNAPSHOT_SLOT_NONE;
	if (!for_us || (readable && !quoted_key(p, &quoted, &key, &kind))) {
		if (dst_kind == SNAPSHOT_OWN_VIP)
			stage_drop(p, b, i, DROP_ICMP_IMPLAUSIBLE);
		else
			stage_punt(b, i, PIPELINE_PUNT_OTHER);
		return;
	}
	if (!readable) {
		if (dst_kind == SNAPSHOT_OWN_VIP)
			stage_drop(p, b, i, DROP_ICMP_IMPLAUSIBLE);
		else
			stage_punt(b, i, PIPELINE_PUNT_OTHER); // may quote a packet of the kernel
		return;
	}
	uint16_t own_port = rte_be_to_cpu_16(quoted.src_port);
	if (kind == SNAPSHOT_OWN_SNAT &&
		(own_port < p->snat_port_min || own_port > p->snat_port_max)) {
		stage_punt(b, i, PIPELINE_PUNT_OTHER);
		return;
	}
	if (kind == SNAPSHOT_OWN_SNAT && snat_owner(own_port, p->n_workers) != p->worker_idx) {
		b->verdict[i] = PIPELINE_RESTEER;
		b->out_port[i] = (uint8_t)snat_owner(own_port, p->n_workers);
		return;
	}
	b->flow_idx[i] = flow_lookup(&p->flows, &key, &b->side[i]);
	if (b->flow_idx[i] == FLOW_NONE) {
		stage_drop(p, b, i, DROP_ICMP_NO_FLOW);
		return;
	}
	b->backend_id[i] = flow_record(&p->flows, b->flow_idx[i])->backend_id;
	if (!packet_l4_checksum_ok(b->mbufs[i], &b->packets[i])) {
		stage_drop(p, b, i, DROP_BAD_L4_CHECKSUM);
		return;
	}
	forward_error(p, b, i, &quoted);
}
