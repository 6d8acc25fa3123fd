// SPDX-License-Identifier: BSD-3-Clause
// Hot path: no allocation, lock, log, system call.
// Echo replies (RFC 792, RFC 4443 4.2): type and addresses change, payload and identifiers stay where they are.
#include "packet_priv.h"

static void answer_v4(struct rte_mbuf *mbuf, const struct packet *p)
{
	struct v4_header *ip = packet_at(mbuf, p->l3_offset);
	ip->checksum = checksum_update(ip->checksum, rte_cpu_to_be_16((uint16_t)(ip->ttl << 8)),
		RTE_BE16(PACKET_ANSWER_TTL << 8));
	ip->ttl = PACKET_ANSWER_TTL;
	ip->src = address_v4(&p->dst); // swapped: sums stay
	ip->dst = address_v4(&p->src);
}

// Extension headers are not for the reply: the headers before them move up to the ICMP message.
static void answer_v6(struct rte_mbuf *mbuf, const struct packet *p)
{
	uint16_t n_extension_bytes =
		(uint16_t)(p->l4_offset - p->l3_offset - sizeof(struct v6_header));
	if (n_extension_bytes > 0) {
		memmove(packet_at(mbuf, n_extension_bytes), packet_at(mbuf, 0),
			p->l3_offset + sizeof(struct v6_header));
		mbuf->data_off = (uint16_t)(mbuf->data_off + n_extension_bytes);
		mbuf->data_len = (uint16_t)(mbuf->data_len - n_extension_bytes);
		mbuf->pkt_len -= n_extension_bytes;
	}
	struct v6_header *ip = packet_at(mbuf, p->l3_offset);
	ip->payload_length = rte_cpu_to_be_16(p->l4_length);
	ip->next_header = NET_PROTO_ICMPV6;
	ip->hop_limit = PACKET_ANSWER_TTL;
	ip->src = p->dst;
	ip->dst = p->src;
}

static void answer_icmp(struct rte_mbuf *mbuf, const struct packet *p)
{
	struct icmp_header *icmp = packet_at(mbuf, p->l4_offset);
	uint8_t reply = p->is_v6 ? 129 : 0;
	icmp->checksum =
		checksum_update(icmp->checksum, rte_cpu_to_be_16((uint16_t)(icmp->type << 8)),
			rte_cpu_to_be_16((uint16_t)(reply << 8)));
	icmp->type = reply;
	// IPv4 has no pseudo-header here, so the sum can be of nothing but zeros. That is the one +0 of one's-complement
	// arithmetic, which an incremental checksum takes for -0 (RFC 1624 3): receivers would refuse it.
	if (unlikely(icmp->checksum == 0) && packet_sum(mbuf, p->l4_offset, p->l4_length) == 0)
		icmp->checksum = 0xffff;
}

bool packet_answer_echo(struct rte_mbuf *mbuf, const struct packet *p)
{
	if (p->kind != PACKET_ECHO || frame_is_to_group(mbuf))
		return false;
	uint32_t n_padding = mbuf->pkt_len - p->l3_offset - p->l3_length;
	if (n_padding > 0) {
		if (mbuf->nb_segs > 1)
			return false;
		frame_set_length(mbuf, mbuf->pkt_len - n_padding);
	}
	answer_icmp(mbuf, p);
	if (p->is_v6)
		answer_v6(mbuf, p);
	else
		answer_v4(mbuf, p);
	frame_swap_macs(mbuf);
	return true;
}
