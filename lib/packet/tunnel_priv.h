// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// The outer headers that ipip and gue share:
//
//        Ethernet 14 | outer IPv4 20 or IPv6 40 | gue: UDP 8, GUE 4 | inner packet, untouched
//        \___________ written here ____________/

#include "packet_priv.h"

enum { TUNNEL_PROTO_V4 = 4, TUNNEL_PROTO_V6 = 41 };

// Headers are read and written in words, and written straight to where they go: a header made aside, field by field, and copied would
// wait for its own stores (measured: 10 to 20 ns).
struct tunnel_words {
	rte_be32_t w[5];
} __attribute__((packed));

#define TUNNEL_V4_FIXED RTE_BE32(0x45000000) // first word, without TOS and total length
#define TUNNEL_V4_TTL   RTE_BE32(PACKET_ANSWER_TTL << 24) // third word, without protocol and checksum
#define TUNNEL_V4_DF    RTE_BE32(0x00004000)              // second word

// What the outer headers take over from the inner one.
struct tunnel_inner {
	uint32_t tos_length; // TOS or traffic class << 16 | bytes behind the outer IP header
	rte_be32_t df;       // TUNNEL_V4_DF or 0
	uint32_t protocol;   // of the inner packet in an outer header
};

static __rte_always_inline struct tunnel_inner tunnel_inner_read(
	const uint8_t *at, const struct packet *p)
{
	const struct tunnel_words *ip = (const void *)at;
	uint32_t first = rte_be_to_cpu_32(ip->w[0]);
	if (p->is_v6)
		return (struct tunnel_inner){
			.tos_length = (first >> 4 & 0xff0000) | p->l3_length,
			.df = TUNNEL_V4_DF,
			.protocol = TUNNEL_PROTO_V6,
		};
	return (struct tunnel_inner){
		.tos_length = first & 0xffffff, // its total length is p->l3_length
		.df = ip->w[1] & TUNNEL_V4_DF,
		.protocol = TUNNEL_PROTO_V4,
	};
}

// Bytes of new headers, Ethernet included.
static __rte_always_inline uint32_t tunnel_head(enum packet_tunnel_kind kind, bool is_v6)
{
	return (uint32_t)sizeof(struct eth_header) + packet_tunnel_overhead(kind, is_v6);
}

static inline uint8_t *tunnel_reframe_odd(
	struct rte_mbuf *mbuf, const struct packet *p, uint32_t n_head)
{
	if (n_head - sizeof(struct eth_header) + p->l3_length > UINT16_MAX)
		return NULL;
	return packet_reframe_odd(mbuf, p->l3_offset, p->l3_length, n_head);
}

static __rte_always_inline void tunnel_write_eth(
	uint8_t *at, const struct packet_macs *macs, bool is_v6)
{
	plain_write_macs(at, macs);
	((struct eth_header *)(void *)at)->type =
		is_v6 ? RTE_BE16(NET_ETHERTYPE_V6) : RTE_BE16(NET_ETHERTYPE_V4);
}

static __rte_always_inline void tunnel_write_v4(uint8_t *at, const struct packet_tunnel *tunnel,
	const struct tunnel_inner *inner, uint32_t protocol, uint16_t id)
{
	rte_be32_t lengths =
		rte_cpu_to_be_32(inner->tos_length + (uint32_t)sizeof(struct v4_header));
	rte_be32_t fragment = inner->df ? inner->df : rte_cpu_to_be_32((uint32_t)id << 16);
	rte_be32_t proto = rte_cpu_to_be_32(protocol << 16);
	rte_be32_t src = address_v4(&tunnel->src), dst = address_v4(&tunnel->dst);
	uint16_t sum = checksum_fold(
		(uint64_t)TUNNEL_V4_FIXED + TUNNEL_V4_TTL + lengths + fragment + proto + src + dst);
	struct tunnel_words *ip = (void *)at;
	ip->w[0] = TUNNEL_V4_FIXED | lengths;
	ip->w[1] = fragment;
	ip->w[2] = TUNNEL_V4_TTL | proto;
	((struct v4_header *)(void *)at)->checksum = (rte_be16_t)~sum;
	ip->w[3] = src;
	ip->w[4] = dst;
}

static __rte_always_inline void tunnel_write_v6(uint8_t *at, const struct packet_tunnel *tunnel,
	const struct tunnel_inner *inner, uint32_t protocol)
{
	struct tunnel_words *words = (void *)at;
	words->w[0] = rte_cpu_to_be_32(0x60000000u | (inner->tos_length >> 16 << 20));
	words->w[1] = rte_cpu_to_be_32(inner->tos_length << 16 | protocol << 8 | PACKET_ANSWER_TTL);
	struct v6_header *ip = (void *)at;
	ip->src = tunnel->src;
	ip->dst = tunnel->dst;
}
