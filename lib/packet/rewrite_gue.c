// SPDX-License-Identifier: BSD-3-Clause
// Hot path: no allocation, lock, log, system call.
// gue: UDP and the four bytes of GUE variant 0 (draft-ietf-intarea-gue-09 3) between outer IP header and the client's packet. The
// UDP source port spreads flows over the paths and the receiver's queues.
//
// UDP checksum. Over IPv4 it is 0. Over IPv6 RFC 6935 allows 0 for tunnels, but a receiver must have been told to take it (Linux:
// UDP_NO_CHECK6_RX of fou and gue), so there is a right one. It costs no walk over the payload: the inner packet holds a checksum
// already, so what lies under it sums up to the complement of its pseudo-header. When that checksum is wrong, so is ours, and
// the packet is lost at the one receiver instead of the other. All but plain TCP and UDP is summed up whole.
#include "tunnel_priv.h"

#define BETWEEN 12 // bytes: UDP header, then version 0, C 0, option length 0 | protocol | no flags

// Sum of the whole inner packet, which begins at `at` of the frame, by a walk over it.
static __attribute__((noinline)) uint64_t inner_sum_odd(
	const struct rte_mbuf *mbuf, const struct packet *p, uint32_t at)
{
	return packet_sum(mbuf, at, p->l3_length);
}

// The same, where the inner L4 header holds a checksum of all that is under it.
static __rte_always_inline uint64_t inner_sum(
	const struct rte_mbuf *mbuf, const struct packet *p, uint32_t at)
{
	uint32_t n_headers = p->is_v6 ? sizeof(struct v6_header) : sizeof(struct v4_header);
	const struct tunnel_words *ip = packet_at(mbuf, at);
	const struct udp_header *udp = packet_at(mbuf, at + n_headers);
	if (unlikely(p->kind != PACKET_FLOW || p->l4_offset - p->l3_offset != (int)n_headers ||
		     (p->protocol != NET_PROTO_TCP &&
			     (p->protocol != NET_PROTO_UDP || udp->checksum == 0))))
		return inner_sum_odd(mbuf, p, at);
	// The IP header, less the pseudo-header. In IPv6 both have the addresses. A right IPv4 header (the parser saw to it)
	// sums up to nothing.
	uint64_t sum = (uint64_t)(uint16_t)~rte_cpu_to_be_16(p->protocol) +
		       (uint16_t)~rte_cpu_to_be_16(p->l4_length);
	if (p->is_v6)
		return sum + ip->w[0] + ip->w[1];
	return sum + (uint32_t)~ip->w[3] + (uint32_t)~ip->w[4];
}

static __rte_always_inline uint64_t address_sum(const struct address *a)
{
	return (uint64_t)a->words[0] + a->words[1] + a->words[2] + a->words[3];
}

static __rte_always_inline void write_headers(struct rte_mbuf *mbuf, const struct packet *p,
	const struct packet_tunnel *tunnel, const struct packet_outer *outer, bool is_v6)
{
	uint32_t inner_at = tunnel_head(PACKET_TUNNEL_GUE, is_v6);
	uint8_t *at = packet_at(mbuf, 0);
	struct tunnel_inner inner = tunnel_inner_read(at + inner_at, p);
	inner.tos_length += BETWEEN;
	rte_be32_t ports =
		rte_cpu_to_be_32((0xc000u | (outer->entropy & 0x3fff)) << 16 | PACKET_GUE_PORT);
	rte_be32_t length = rte_cpu_to_be_32(inner.tos_length << 16);
	rte_be32_t gue = rte_cpu_to_be_32(inner.protocol << 16);
	struct tunnel_words *between = (void *)(at + inner_at - BETWEEN);
	between->w[0] = ports;
	between->w[1] = length; // and no checksum
	between->w[2] = gue;
	tunnel_write_eth(at, &outer->macs, is_v6);
	at += sizeof(struct eth_header);
	if (!is_v6) {
		tunnel_write_v4(at, tunnel, &inner, NET_PROTO_UDP, outer->id);
		return;
	}
	tunnel_write_v6(at, tunnel, &inner, NET_PROTO_UDP);
	// The pseudo-header has the length too.
	uint64_t sum = inner_sum(mbuf, p, inner_at) + address_sum(&tunnel->src) +
		       address_sum(&tunnel->dst) + RTE_BE16(NET_PROTO_UDP) + ports + length +
		       length + gue;
	rte_be16_t checksum = (rte_be16_t)~checksum_fold(sum);
	((struct udp_header *)(void *)between)->checksum = checksum == 0 ? 0xffff : checksum;
}

static __attribute__((noinline)) bool rewrite_odd(struct rte_mbuf *mbuf, const struct packet *p,
	const struct packet_tunnel *tunnel, const struct packet_outer *outer)
{
	if (tunnel_reframe_odd(mbuf, p, tunnel_head(PACKET_TUNNEL_GUE, tunnel->is_v6)) == NULL)
		return false;
	write_headers(mbuf, p, tunnel, outer, tunnel->is_v6);
	return true;
}

static __rte_always_inline bool rewrite(struct rte_mbuf *mbuf, const struct packet *p,
	const struct packet_tunnel *tunnel, const struct packet_outer *outer, bool is_v6)
{
	if (unlikely(packet_reframe(mbuf, p->l3_offset, p->l3_length,
			     tunnel_head(PACKET_TUNNEL_GUE, is_v6)) == NULL))
		return rewrite_odd(mbuf, p, tunnel, outer);
	write_headers(mbuf, p, tunnel, outer, is_v6);
	return true;
}

bool packet_rewrite_gue(struct rte_mbuf *mbuf, const struct packet *p,
	const struct packet_tunnel *tunnel, const struct packet_outer *outer)
{
	return tunnel->is_v6 ? rewrite(mbuf, p, tunnel, outer, true)
			     : rewrite(mbuf, p, tunnel, outer, false);
}
