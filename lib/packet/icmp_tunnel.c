// SPDX-License-Identifier: BSD-3-Clause
// Hot path: no allocation, lock, log, system call.
// Errors from the path of a tunnel: a router between us and the backend cannot pass our outer packet on, and tells us, who sent it. Of
// use to the client alone, whose packet is inside (RFC 2003 4, RFC 2473 8):
//
//	what came:   Ethernet | IP | ICMP 8 | quoted: outer IP | gue: UDP 8, GUE 4 | inner packet, cut somewhere
//	what goes:		   Ethernet | IP of the VIP | ICMP 8 | inner packet, cut to 576 or 1280 bytes in all
//
// The new headers are never longer than the old ones, so there is always room.
#include "packet_priv.h"

enum { TUNNEL_PROTO_V4 = 4, TUNNEL_PROTO_V6 = 41, GUE_BETWEEN = 12 };

// What lies behind the quoted outer IP header: kind, overhead, and the inner packet's offset and family. False: no tunnel of ours.
static bool find_inner(const struct rte_mbuf *mbuf, uint32_t end, const struct packet *outer,
	struct packet_quoted_tunnel *out)
{
	uint8_t protocol = outer->protocol;
	uint32_t at = outer->l4_offset;
	if (at != outer->l3_offset +
			  (outer->is_v6 ? sizeof(struct v6_header) : sizeof(struct v4_header)))
		return false; // we send no extension headers
	out->kind = PACKET_TUNNEL_IPIP;
	if (protocol == NET_PROTO_UDP) {
		if (at + GUE_BETWEEN > end)
			return false;
		const struct udp_header *udp = packet_at(mbuf, at);
		const uint8_t *gue = packet_at(mbuf, at + (uint32_t)sizeof(*udp));
		if (udp->dst_port != RTE_BE16(PACKET_GUE_PORT) || (gue[0] | gue[2] | gue[3]) != 0)
			return false;
		out->kind = PACKET_TUNNEL_GUE;
		protocol = gue[1];
		at += GUE_BETWEEN;
	}
	out->inner.l3_offset = (uint16_t)at;
	out->inner.is_v6 = protocol == TUNNEL_PROTO_V6;
	return protocol == TUNNEL_PROTO_V4 || protocol == TUNNEL_PROTO_V6;
}

bool packet_parse_quoted_tunnel(
	const struct rte_mbuf *mbuf, const struct packet *p, struct packet_quoted_tunnel *out)
{
	memset(out, 0, sizeof(*out));
	if (p->kind != PACKET_ICMP_ERROR)
		return false;
	uint32_t end = packet_quoted_end(mbuf, p);
	struct packet outer = { .is_v6 = p->is_v6,
		.l3_offset = (uint16_t)(p->l4_offset + sizeof(struct icmp_header)) };
	if (!packet_parse_quoted_ip(mbuf, end, &outer) || !address_equal(&outer.src, &p->dst) ||
		!find_inner(mbuf, end, &outer, out))
		return false;
	if (!packet_parse_quoted_ip(mbuf, end, &out->inner) ||
		!packet_parse_quoted_ports(mbuf, end, &out->inner) ||
		address_is_impossible_source(&out->inner.src))
		return false;
	uint32_t n_sent =
		packet_quoted_sent_length(mbuf, &out->inner); // extensions (RFC 4884) may follow
	if (n_sent >= PACKET_QUOTED_L4_MIN && n_sent < out->inner.l4_length)
		out->inner.l4_length = (uint16_t)n_sent;
	out->src = outer.src;
	out->dst = outer.dst;
	out->is_v6 = outer.is_v6;
	out->overhead = packet_tunnel_overhead((enum packet_tunnel_kind)out->kind, out->is_v6);
	return true;
}

// What the error means for who sent the inner packet. False: nothing to tell.
static bool relayed_error(const struct icmp_header *icmp, bool is_v6, enum packet_error *out)
{
	*out = PACKET_HOST_UNREACHABLE;
	if (is_v6) {
		if (icmp->type == 2)
			*out = PACKET_TOO_BIG;
		return icmp->type == 1 || icmp->type == 2 || (icmp->type == 3 && icmp->code == 0);
	}
	if (icmp->type == 3 && icmp->code == 4)
		*out = PACKET_TOO_BIG;
	return (icmp->type == 3 && icmp->code != 5) || (icmp->type == 11 && icmp->code == 0);
}

// MTU for inner packets: what was told, less what the tunnel adds; packet_write_error knows how little may be told.
static uint16_t relayed_mtu(
	const struct icmp_header *icmp, const struct packet_quoted_tunnel *quoted)
{
	uint32_t told = rte_be_to_cpu_16(icmp->word_lo);
	if (quoted->is_v6 && icmp->word_hi != 0)
		told = UINT16_MAX;
	return (uint16_t)(told < quoted->overhead ? 0 : told - quoted->overhead);
}

bool packet_answer_relayed_error(
	struct rte_mbuf *mbuf, const struct packet *p, const struct packet_quoted_tunnel *quoted)
{
	const struct packet *inner = &quoted->inner;
	struct eth_header eth;
	struct icmp_header icmp;
	memcpy(&icmp, packet_at(mbuf, p->l4_offset), sizeof(icmp));
	enum packet_error error;
	if (mbuf->nb_segs > 1 || frame_is_to_group(mbuf) || !relayed_error(&icmp, p->is_v6, &error))
		return false;
	uint32_t n_head = (uint32_t)sizeof(eth) + packet_error_headers(inner->is_v6);
	uint32_t n_quoted = (uint32_t)inner->l4_offset + inner->l4_length - inner->l3_offset;
	uint32_t limit = packet_error_quote_max(inner->is_v6);
	n_quoted = n_quoted < limit ? n_quoted : limit;
	memcpy(&eth, packet_at(mbuf, 0), sizeof(eth));
	uint8_t *at = packet_reframe_odd(mbuf, inner->l3_offset, n_quoted, n_head);
	if (at == NULL)
		return false;
	eth.type = inner->is_v6 ? RTE_BE16(NET_ETHERTYPE_V6) : RTE_BE16(NET_ETHERTYPE_V4);
	memcpy(at, &eth, sizeof(eth));
	struct packet_answer answer = {
		.from = inner->dst,
		.to = inner->src,
		.payload_length = (uint16_t)(sizeof(struct icmp_header) + n_quoted),
		.is_v6 = inner->is_v6,
	};
	packet_write_error(mbuf, sizeof(eth), &answer, error, relayed_mtu(&icmp, quoted));
	frame_swap_macs(mbuf);
	return true;
}
