// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// IP headers of the other family (RFC 7915 4.1, 5.1), every byte: of packets that cross over and of those that errors quote. Flow label 0;
// DF set, so that the identification may be 0 (RFC 6864): who translates back cannot fragment.

#include "packet_priv.h"

struct cross_ip {
	struct address src; // of the family that is written
	struct address dst;
	uint32_t n_payload; // bytes behind the header, at most 65,535 with an IPv4 one
	uint8_t tos;        // or traffic class
	uint8_t ttl;
	uint8_t protocol; // TCP, UDP, SCTP: the same in both families
};

struct cross_words {
	rte_be32_t w[5];
} __attribute__((packed));

static inline uint32_t cross_ip_length(bool is_v6)
{
	return is_v6 ? sizeof(struct v6_header) : sizeof(struct v4_header);
}

// TOS or traffic class of the header at `at`.
static inline uint8_t cross_tos(const uint8_t *at, bool is_v6)
{
	return is_v6 ? (uint8_t)(at[0] << 4 | at[1] >> 4) : at[1];
}

// Written in words, straight to where they go (tunnel_priv.h says why).
static inline void cross_write_v4(uint8_t *at, const struct cross_ip *ip)
{
	struct cross_words *words = (void *)at;
	rte_be32_t first = rte_cpu_to_be_32(0x45000000u | (uint32_t)ip->tos << 16 |
					    ((uint32_t)sizeof(struct v4_header) + ip->n_payload));
	rte_be32_t second = RTE_BE32(0x00004000);
	rte_be32_t third = rte_cpu_to_be_32((uint32_t)ip->ttl << 24 | (uint32_t)ip->protocol << 16);
	rte_be32_t src = address_v4(&ip->src), dst = address_v4(&ip->dst);
	uint16_t sum = checksum_fold((uint64_t)first + second + third + src + dst);
	words->w[0] = first;
	words->w[1] = second;
	words->w[2] = third;
	words->w[3] = src;
	words->w[4] = dst;
	((struct v4_header *)(void *)at)->checksum = (rte_be16_t)~sum;
}

static inline void cross_write_v6(uint8_t *at, const struct cross_ip *ip)
{
	struct cross_words *words = (void *)at;
	words->w[0] = rte_cpu_to_be_32(0x60000000u | (uint32_t)ip->tos << 20);
	words->w[1] = rte_cpu_to_be_32(ip->n_payload << 16 | (uint32_t)ip->protocol << 8 | ip->ttl);
	((struct v6_header *)(void *)at)->src = ip->src;
	((struct v6_header *)(void *)at)->dst = ip->dst;
}

static inline void cross_write_eth(uint8_t *at, const struct packet_nat *nat, bool is_v6)
{
	plain_write_macs(at, &nat->macs);
	((struct eth_header *)(void *)at)->type =
		is_v6 ? RTE_BE16(NET_ETHERTYPE_V6) : RTE_BE16(NET_ETHERTYPE_V4);
}
