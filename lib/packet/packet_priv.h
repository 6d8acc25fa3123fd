// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// Pieces that several files of the packet path share.

#include "packet.h"

#define PACKET_ANSWER_TTL 64

static inline void *packet_at(const struct rte_mbuf *mbuf, uint32_t offset)
{
	return rte_pktmbuf_mtod_offset(mbuf, uint8_t *, offset);
}

// An answer to a group address would have it as its source, and RFC 1122 3.2.2 forbids most.
static inline bool frame_is_to_group(const struct rte_mbuf *mbuf)
{
	const struct eth_header *eth = packet_at(mbuf, 0);
	return eth->dst.bytes[0] & 1;
}

static inline void frame_swap_macs(struct rte_mbuf *mbuf)
{
	struct eth_header *eth = packet_at(mbuf, 0);
	struct mac was_dst = eth->dst;
	eth->dst = eth->src;
	eth->src = was_dst;
}

// Length of a frame of one segment; the caller has checked the room.
static inline void frame_set_length(struct rte_mbuf *mbuf, uint32_t length)
{
	mbuf->data_len = (uint16_t)length;
	mbuf->pkt_len = length;
}

// One's-complement sum of part of a frame, over all segments (l4_checksum.c). Folded.
uint16_t packet_sum(const struct rte_mbuf *mbuf, uint32_t offset, uint32_t length);

// Writes the IP header of an answer of ours, every byte, at `offset`: from, to, protocol, bytes that follow (answer.c).
struct packet_answer {
	struct address from;
	struct address to;
	uint16_t payload_length;
	uint8_t protocol;
	bool is_v6;
};
void packet_write_ip(struct rte_mbuf *mbuf, uint32_t offset, const struct packet_answer *answer);
