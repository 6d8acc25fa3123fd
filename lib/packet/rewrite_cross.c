// SPDX-License-Identifier: BSD-3-Clause
// Hot path: no allocation, lock, log, system call.
// fullnat between families: the IP header is made anew in the other one, L4 is as in fullnat. The address type says it all for the
// checksum: what an IPv4 address has in front, ffff, sums up to nothing, so the delta of two addresses is right across families too.
//
//	IPv4:	       Ethernet 14 | IPv4 20 | L4		20 bytes more towards IPv6, 20 fewer back; extension headers
//	IPv6:	Ethernet 14 | IPv6 40	     | L4		go. L4 stays where it lies, if there is headroom.
#include "cross_priv.h"

// UDP over IPv4 need not have a checksum, over IPv6 it must (RFC 7915 4.5).
static void udp_make_checksum(
	struct rte_mbuf *mbuf, const struct packet *p, const struct packet_nat *nat, uint32_t l4_at)
{
	uint64_t sum = packet_sum(mbuf, l4_at, p->l4_length) +
		       checksum_pseudo(&nat->src, &nat->dst, NET_PROTO_UDP, p->l4_length);
	rte_be16_t checksum = (rte_be16_t)~checksum_fold(sum);
	((struct udp_header *)packet_at(mbuf, l4_at))->checksum = checksum == 0 ? 0xffff : checksum;
}

static inline void rewrite_l4(
	struct rte_mbuf *mbuf, const struct packet *p, const struct packet_nat *nat, uint32_t l4_at)
{
	uint32_t was, is;
	memcpy(&was, &p->src_port, sizeof(was));
	memcpy(&is, &nat->src_port, sizeof(is));
	uint64_t delta = checksum_delta_address(&p->src, &nat->src) +
			 checksum_delta_address(&p->dst, &nat->dst) + checksum_delta(was, is);
	uint8_t *l4 = packet_at(mbuf, l4_at);
	memcpy(l4, &is, sizeof(is));
	if (p->protocol == NET_PROTO_SCTP) { // knows no pseudo-header
		sctp_update_checksum(l4, was, is, p->l4_length);
		return;
	}
	if (p->protocol == NET_PROTO_TCP) {
		struct tcp_header *tcp = (void *)l4;
		tcp->checksum = checksum_apply(tcp->checksum, delta);
		return;
	}
	struct udp_header *udp = (void *)l4;
	if (unlikely(udp->checksum == 0)) { // IPv4: the parser refuses it in IPv6
		udp_make_checksum(mbuf, p, nat, l4_at);
		return;
	}
	rte_be16_t sum = checksum_apply(udp->checksum, delta);
	udp->checksum = sum == 0 ? 0xffff : sum;
}

bool packet_rewrite_cross(
	struct rte_mbuf *mbuf, const struct packet *p, const struct packet_nat *nat)
{
	struct cross_ip ip = {
		.src = nat->src,
		.dst = nat->dst,
		.n_payload = p->l4_length,
		.tos = cross_tos(packet_at(mbuf, p->l3_offset), p->is_v6),
		.ttl = (uint8_t)(p->ttl - 1),
		.protocol = p->protocol,
	};
	uint32_t n_head = (uint32_t)sizeof(struct eth_header) + cross_ip_length(!p->is_v6);
	uint8_t *at = packet_reframe(mbuf, p->l4_offset, p->l4_length, n_head);
	if (unlikely(at == NULL))
		at = packet_reframe_odd(mbuf, p->l4_offset, p->l4_length, n_head);
	if (unlikely(at == NULL))
		return false;
	cross_write_eth(at, nat, !p->is_v6);
	if (p->is_v6)
		cross_write_v4(at + sizeof(struct eth_header), &ip);
	else
		cross_write_v6(at + sizeof(struct eth_header), &ip);
	rewrite_l4(mbuf, p, nat, n_head);
	return true;
}
