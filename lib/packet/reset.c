// SPDX-License-Identifier: BSD-3-Clause
// Hot path: no allocation, lock, log, system call.
// The RST for a segment of no connection: RFC 9293 3.10.7.1.
#include "packet_priv.h"

static struct tcp_header reset_make(const struct tcp_header *tcp, uint16_t segment_length)
{
	struct tcp_header rst = {
		.src_port = tcp->dst_port,
		.dst_port = tcp->src_port,
		.offset = sizeof(rst) / 4 << 4,
		.flags = TCP_RST,
	};
	if (tcp->flags & TCP_ACK) {
		rst.sequence = tcp->acknowledgement;
		return rst;
	}
	uint32_t n = segment_length;
	n += (tcp->flags & TCP_SYN) ? 1 : 0;
	n += (tcp->flags & TCP_FIN) ? 1 : 0;
	rst.acknowledgement = rte_cpu_to_be_32(rte_be_to_cpu_32(tcp->sequence) + n);
	rst.flags = TCP_RST | TCP_ACK;
	return rst;
}

bool packet_answer_reset(struct rte_mbuf *mbuf, const struct packet *p)
{
	if (p->kind != PACKET_FLOW || p->protocol != NET_PROTO_TCP || (p->tcp_flags & TCP_RST) ||
		mbuf->nb_segs > 1 || frame_is_to_group(mbuf))
		return false;
	const struct tcp_header *tcp = packet_at(mbuf, p->l4_offset);
	struct tcp_header rst = reset_make(tcp, (uint16_t)(p->l4_length - (tcp->offset >> 4) * 4));
	struct packet_answer answer = {
		.from = p->dst,
		.to = p->src,
		.payload_length = sizeof(rst),
		.protocol = NET_PROTO_TCP,
		.is_v6 = p->is_v6,
	};
	rst.checksum = (rte_be16_t)~checksum_fold(
		checksum_sum(&rst, sizeof(rst)) +
		checksum_pseudo(&answer.from, &answer.to, NET_PROTO_TCP, sizeof(rst)));
	// No longer than what came: an IP header and 20 bytes of TCP.
	uint32_t l4_offset =
		p->l3_offset + (p->is_v6 ? sizeof(struct v6_header) : sizeof(struct v4_header));
	packet_write_ip(mbuf, p->l3_offset, &answer);
	memcpy(packet_at(mbuf, l4_offset), &rst, sizeof(rst));
	frame_set_length(mbuf, l4_offset + (uint32_t)sizeof(rst));
	frame_swap_macs(mbuf);
	return true;
}
