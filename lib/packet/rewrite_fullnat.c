// SPDX-License-Identifier: BSD-3-Clause
// Hot path: no allocation, lock, log, system call.
// fullnat: both addresses and both ports change, one delta for the addresses goes into the IPv4 header and into L4.
#include "packet_priv.h"

// Both ports as they lie in the packet and in struct packet.
static inline uint32_t ports_load(const rte_be16_t *src_port)
{
	uint32_t ports;
	memcpy(&ports, src_port, sizeof(ports));
	return ports;
}
_Static_assert(offsetof(struct packet, dst_port) == offsetof(struct packet, src_port) + 2, "ports");

static inline void rewrite_l4(
	struct rte_mbuf *mbuf, const struct packet *p, uint32_t ports, uint64_t delta)
{
	delta += checksum_delta(ports_load(&p->src_port), ports);
	uint8_t *l4 = packet_at(mbuf, p->l4_offset);
	memcpy(l4, &ports, sizeof(ports));
	if (p->protocol == NET_PROTO_TCP) {
		struct tcp_header *tcp = (void *)l4;
		tcp->checksum = checksum_apply(tcp->checksum, delta);
		return;
	}
	if (unlikely(p->protocol == NET_PROTO_SCTP)) {
		// No pseudo-header: the addresses do not matter.
		sctp_update_checksum(l4, ports_load(&p->src_port), ports, p->l4_length);
		return;
	}
	struct udp_header *udp = (void *)l4;
	if (udp->checksum == 0)
		return; // the sender made none (IPv4: the parser refuses it in IPv6)
	rte_be16_t sum = checksum_apply(udp->checksum, delta);
	udp->checksum = sum == 0 ? 0xffff : sum;
}

static inline uint64_t rewrite_v4(
	struct rte_mbuf *mbuf, const struct packet *p, const struct packet_nat *nat)
{
	struct v4_header *ip = packet_at(mbuf, p->l3_offset);
	rte_be32_t src = address_v4(&nat->src), dst = address_v4(&nat->dst);
	uint64_t delta =
		checksum_delta(address_v4(&p->src), src) + checksum_delta(address_v4(&p->dst), dst);
	ip->src = src;
	ip->dst = dst;
	ip->ttl--;
	// TTL is the first byte of its word: one less there.
	ip->checksum = checksum_apply(ip->checksum, delta + (uint16_t)~RTE_BE16(0x0100));
	return delta;
}

static inline uint64_t rewrite_v6(
	struct rte_mbuf *mbuf, const struct packet *p, const struct packet_nat *nat)
{
	struct v6_header *ip = packet_at(mbuf, p->l3_offset);
	ip->src = nat->src;
	ip->dst = nat->dst;
	ip->hop_limit--;
	return checksum_delta_address(&p->src, &nat->src) +
	       checksum_delta_address(&p->dst, &nat->dst);
}

void packet_rewrite_fullnat(
	struct rte_mbuf *mbuf, const struct packet *p, const struct packet_nat *nat)
{
	frame_write_macs(packet_at(mbuf, 0), &nat->macs);
	uint64_t delta = p->is_v6 ? rewrite_v6(mbuf, p, nat) : rewrite_v4(mbuf, p, nat);
	rewrite_l4(mbuf, p, nat->ports, delta);
}
