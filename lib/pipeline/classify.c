// SPDX-License-Identifier: BSD-3-Clause
// Hot path: no allocation, lock, log, system call.
// Whose packet is it: ours (by destination address, or by the flow an ICMP error quotes), or the kernel's.
// The rule is interfaces.md section 5; what is not ours is punted whole, even when it is odd.
#include "pipeline_priv.h"

#define PREFETCH_AHEAD 4
#define BGP_PORT       179
#define BFD_PORT       3784
#define BFD_MULTI_PORT 4784
#define OSPF_PROTOCOL  89

// Routing protocols first, then ARP and ND, then the rest.
static enum pipeline_punt_class punt_class(const struct packet *p, const struct rte_mbuf *mbuf)
{
	if (p->kind == PACKET_FLOW) {
		uint16_t src = rte_be_to_cpu_16(p->src_port), dst = rte_be_to_cpu_16(p->dst_port);
		bool routing = p->protocol == NET_PROTO_TCP
				       ? src == BGP_PORT || dst == BGP_PORT
				       : dst == BFD_PORT || dst == BFD_MULTI_PORT;
		return routing ? PIPELINE_PUNT_ROUTING : PIPELINE_PUNT_OTHER;
	}
	if (p->kind == PACKET_PROTOCOL && p->protocol == OSPF_PROTOCOL)
		return PIPELINE_PUNT_ROUTING;
	if (p->kind == PACKET_ICMP_OTHER && p->protocol == NET_PROTO_ICMPV6)
		return PIPELINE_PUNT_NEIGHBOUR;
	if (p->kind == PACKET_OTHER && rte_pktmbuf_data_len(mbuf) >= sizeof(struct eth_header)) {
		const struct eth_header *eth = rte_pktmbuf_mtod(mbuf, const struct eth_header *);
		if (eth->type == RTE_BE16(NET_ETHERTYPE_ARP))
			return PIPELINE_PUNT_NEIGHBOUR;
	}
	return PIPELINE_PUNT_OTHER;
}

// ND (router and neighbour messages, redirect) may be addressed to a VIP; the kernel answers it.
static bool is_neighbour_discovery(const struct packet *packet, const struct rte_mbuf *mbuf)
{
	if (packet->protocol != NET_PROTO_ICMPV6)
		return false;
	uint8_t type = *rte_pktmbuf_mtod_offset(mbuf, const uint8_t *, packet->l4_offset);
	return type >= 130 && type <= 143;
}

// Packets to one of our addresses that need no flow. True: it has its verdict.
static bool classify_odd(struct pipeline *p, struct burst *b, uint32_t i, uint8_t kind)
{
	const struct packet *packet = &b->packets[i];
	switch (packet->kind) {
	case PACKET_FLOW:
		return false;
	case PACKET_BAD:
		stage_drop(p, b, i, packet->reason);
		return true;
	case PACKET_FRAGMENT:
		// We send nothing but TCP and UDP from a source address; it may be the host's too.
		if (kind == SNAPSHOT_OWN_SNAT && packet->protocol != NET_PROTO_TCP &&
			packet->protocol != NET_PROTO_UDP)
			stage_punt(b, i, PIPELINE_PUNT_OTHER);
		else
			stage_drop(p, b, i, DROP_FRAGMENT);
		return true;
	case PACKET_ECHO:
		if (kind == SNAPSHOT_OWN_VIP)
			stage_answer_echo(p, b, i);
		else
			stage_punt(b, i, PIPELINE_PUNT_OTHER);
		return true;
	case PACKET_ICMP_OTHER:
		if (kind != SNAPSHOT_OWN_VIP || is_neighbour_discovery(packet, b->mbufs[i]))
			stage_punt(b, i, punt_class(packet, b->mbufs[i]));
		else
			stage_drop(p, b, i, DROP_ICMP_TYPE);
		return true;
	default:
		if (kind == SNAPSHOT_OWN_VIP)
			stage_drop(p, b, i, DROP_PROTOCOL);
		else
			stage_punt(b, i, PIPELINE_PUNT_OTHER);
		return true;
	}
}

// A packet that is not addressed to us.
static void classify_foreign(struct pipeline *p, struct burst *b, uint32_t i)
{
	const struct packet *packet = &b->packets[i];
	if (packet->kind == PACKET_BAD &&
		(packet->reason == DROP_NOT_OUR_MAC || !packet->have_addresses))
		stage_drop(p, b, i, packet->reason);
	else
		stage_punt(b, i, punt_class(packet, b->mbufs[i]));
}

// Replies to a SNAT address: only ports of the range are ours, and only of this worker. True: verdict set.
static bool classify_snat(struct pipeline *p, struct burst *b, uint32_t i)
{
	uint16_t port = rte_be_to_cpu_16(b->packets[i].dst_port);
	if (port < p->snat_port_min || port > p->snat_port_max) {
		stage_punt(b, i, punt_class(&b->packets[i], b->mbufs[i]));
		return true;
	}
	if (p->n_workers == 1)
		return false; // no division
	uint16_t owner = snat_owner(port, p->n_workers);
	if (owner == p->worker_idx)
		return false;
	b->verdict[i] = PIPELINE_RESTEER;
	b->out_port[i] = (uint8_t)owner;
	return true;
}

// True: the packet needs the flow table; `key` is filled.
static bool classify_one(struct pipeline *p, struct burst *b, uint32_t i, struct flow_key *key)
{
	const struct packet *packet = &b->packets[i];
	uint8_t kind = SNAPSHOT_OWN_NONE;
	uint16_t slot = SNAPSHOT_SLOT_NONE;
	if (packet->kind == PACKET_ICMP_ERROR) {
		stage_icmp_error(p, b, i);
		return false;
	}
	if (likely(packet->have_addresses) && packet->reason != DROP_NOT_OUR_MAC)
		slot = snapshot_find_own(p->snapshot, &packet->dst, &kind);
	if (slot == SNAPSHOT_SLOT_NONE) {
		classify_foreign(p, b, i);
		return false;
	}
	if (unlikely(packet->kind != PACKET_FLOW) && classify_odd(p, b, i, kind))
		return false;
	b->side[i] = kind == SNAPSHOT_OWN_SNAT ? FLOW_SIDE_BACKEND : FLOW_SIDE_CLIENT;
	if (kind == SNAPSHOT_OWN_SNAT && classify_snat(p, b, i))
		return false;
	*key = flow_key_make(
		&packet->src, packet->src_port, packet->dst_port, slot, packet->protocol);
	return true;
}

// Apart from the loop below: what a parse has just written, in pieces, is read back there in words, and by then the pieces
// are in the cache. Together in one loop every packet would wait for its own stores.
static void parse_all(struct pipeline *p, struct burst *b)
{
	for (uint32_t i = 0; i < b->n; i++) {
		if (i + PREFETCH_AHEAD < b->n)
			__builtin_prefetch(
				rte_pktmbuf_mtod(b->mbufs[i + PREFETCH_AHEAD], void *), 1);
		const struct mac *mac = p->check_mac ? &p->ports[b->in_port[i]].mac : NULL;
		packet_parse(b->mbufs[i], mac, &b->packets[i]);
	}
}

uint32_t stage_classify(struct pipeline *p, struct burst *b, uint8_t *pending)
{
	uint32_t n = 0;
	parse_all(p, b);
	for (uint32_t i = 0; i < b->n; i++) {
		if (classify_one(p, b, i, &b->keys[n]))
			pending[n++] = (uint8_t)i;
	}
	return n;
}
