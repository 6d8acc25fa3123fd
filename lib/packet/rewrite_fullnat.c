// SPDX-License-Identifier: BSD-3-Clause
// Hot path: no allocation, lock, log, system call.
// fullnat: both addresses and both ports change, one delta for the addresses goes into the IPv4 header and into L4.
#include "packet_priv.h"

static inline rte_be16_t udp_checksum_apply(rte_be16_t old, uint32_t delta)
{
	if (old == 0)
		return 0; // the sender made none (IPv4: the parser refuses it in IPv6)
	rte_be16_t sum = checksum_apply(old, delta);
	return sum == 0 ? 0xffff : sum;
}

static inline void rewrite_l4(struct rte_mbuf *mbuf, const struct packet *p,
	const struct packet_nat *nat, uint32_t address_delta)
{
	uint32_t delta = address_delta + checksum_delta((uint64_t)p->src_port + p->dst_port,
						 (uint64_t)nat->src_port + nat->dst_port);
	if (p->protocol == NET_PROTO_TCP) {
		struct tcp_header *tcp = packet_at(mbuf, p->l4_offset);
		tcp->src_port = nat->src_port;
		tcp->dst_port = nat->dst_port;
		tcp->checksum = checksum_apply(tcp->checksum, delta);
	} else {
		struct udp_header *udp = packet_at(mbuf, p->l4_offset);
		udp->src_port = nat->src_port;
		udp->dst_port = nat->dst_port;
		udp->checksum = udp_checksum_apply(udp->checksum, delta);
	}
}

static inline uint32_t rewrite_v4(
	struct rte_mbuf *mbuf, const struct packet *p, const struct packet_nat *nat)
{
	struct v4_header *ip = packet_at(mbuf, p->l3_offset);
	uint32_t delta = checksum_delta((uint64_t)p->src.words[3] + p->dst.words[3],
		(uint64_t)nat->src.words[3] + nat->dst.words[3]);
	ip->src = nat->src.words[3];
	ip->dst = nat->dst.words[3];
	ip->ttl--;
	// TTL is the first byte of its word: one less there.
	ip->checksum = checksum_apply(ip->checksum, delta + (uint16_t)~RTE_BE16(0x0100));
	return delta;
}

static inline uint32_t rewrite_v6(
	struct rte_mbuf *mbuf, const struct packet *p, const struct packet_nat *nat)
{
	struct v6_header *ip = packet_at(mbuf, p->l3_offset);
	ip->src = nat->src;
	ip->dst = nat->dst;
	ip->hop_limit--;
	return checksum_delta(checksum_sum_address(&p->src) + checksum_sum_address(&p->dst),
		checksum_sum_address(&nat->src) + checksum_sum_address(&nat->dst));
}

void packet_rewrite_fullnat(
	struct rte_mbuf *mbuf, const struct packet *p, const struct packet_nat *nat)
{
	struct eth_header *eth = packet_at(mbuf, 0);
	eth->dst = nat->dst_mac;
	eth->src = nat->src_mac;
	uint32_t delta = p->is_v6 ? rewrite_v6(mbuf, p, nat) : rewrite_v4(mbuf, p, nat);
	rewrite_l4(mbuf, p, nat, delta);
}
