// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// Hot path: no allocation, lock, log, system call.
// The plain packet: TCP or UDP, whole, no options or extension headers, nothing wrong, its headers in the first segment. Nearly every
// packet is one. What is done with it is here to be inlined into the pipeline's loops; each function does nothing and says false where a
// packet is not plain enough, and its caller then takes the one in packet.h that knows everything. Both must agree: unit tests and
// fuzzers compare them. SCTP goes the long way: a third protocol here costs every TCP packet 2 instructions.
//
// Cost: the call alone of a function with this much state is 15 to 20 instructions, of some 90 that parsing takes.

#include "packet.h"

enum {
	PLAIN_L3 = sizeof(struct eth_header),
	PLAIN_L4_V4 = PLAIN_L3 + sizeof(struct v4_header),
	PLAIN_L4_V6 = PLAIN_L3 + sizeof(struct v6_header),
};

struct plain_words {
	uint32_t w[5];
} __attribute__((packed));

// ---------------------------------------------------------------- parse
static inline bool plain_tcp_flags_ok(uint8_t flags)
{
	const uint8_t known = TCP_FIN | TCP_SYN | TCP_RST | TCP_PSH | TCP_ACK | TCP_URG;
	return (flags & known) != 0 && !((flags & TCP_SYN) && (flags & (TCP_FIN | TCP_RST)));
}

// The five words of an IPv4 header without options.
static __rte_always_inline bool plain_v4_checksum_ok(const struct rte_mbuf *mbuf, const void *ip)
{
	const struct plain_words *words = ip;
	if ((mbuf->ol_flags & RTE_MBUF_F_RX_IP_CKSUM_MASK) == RTE_MBUF_F_RX_IP_CKSUM_GOOD)
		return true;
	return checksum_fold((uint64_t)words->w[0] + words->w[1] + words->w[2] + words->w[3] +
			     words->w[4]) == 0xffff;
}

// Sets ports, flags and kind. n_here: bytes of L4 in the first segment, a TCP header at least.
static __rte_always_inline bool plain_l4(const uint8_t *l4, uint32_t n_here, struct packet *p)
{
	uint32_t n = p->l4_length;
	if (likely(p->protocol == NET_PROTO_TCP)) {
		const struct tcp_header *tcp = (const void *)l4;
		uint32_t header_length = (tcp->offset >> 4) * 4u;
		if (unlikely(header_length < sizeof(*tcp) || header_length > n ||
			     header_length > n_here || !plain_tcp_flags_ok(tcp->flags)))
			return false;
		p->tcp_flags = tcp->flags;
	} else {
		const struct udp_header *udp = (const void *)l4;
		if (p->protocol != NET_PROTO_UDP || rte_be_to_cpu_16(udp->length) != n ||
			n < sizeof(*udp) || (udp->checksum == 0 && p->is_v6))
			return false;
	}
	memcpy(&p->src_port, l4, 2 * sizeof(p->src_port));
	p->kind = PACKET_FLOW;
	return true;
}

static __rte_always_inline bool plain_v4(
	const struct rte_mbuf *mbuf, const uint8_t *bytes, struct packet *p)
{
	const struct v4_header *ip = (const void *)(bytes + PLAIN_L3);
	uint32_t total = rte_be_to_cpu_16(ip->total_length), n_first = mbuf->data_len;
	rte_be32_t src = ip->src;
	uint8_t top = *(const uint8_t *)&src;
	if (unlikely(ip->version_ihl != 0x45 || (ip->fragment & RTE_BE16(0x3fff)) ||
		     total < sizeof(*ip) || PLAIN_L3 + total > mbuf->pkt_len || top == 0 ||
		     top == 127 || top >= 224 || !plain_v4_checksum_ok(mbuf, ip)))
		return false;
	*p = (struct packet){
		.src = address_from_v4(src),
		.dst = address_from_v4(ip->dst),
		.l3_offset = PLAIN_L3,
		.l4_offset = PLAIN_L4_V4,
		.l3_length = (uint16_t)total,
		.l4_length = (uint16_t)(total - sizeof(*ip)),
		.protocol = ip->protocol,
		.ttl = ip->ttl,
		.have_addresses = true,
	};
	return plain_l4(bytes + PLAIN_L4_V4, n_first - PLAIN_L4_V4, p);
}

static __rte_always_inline bool plain_v6(
	const struct rte_mbuf *mbuf, const uint8_t *bytes, struct packet *p)
{
	const struct v6_header *ip = (const void *)(bytes + PLAIN_L3);
	uint32_t n_payload = rte_be_to_cpu_16(ip->payload_length), n_first = mbuf->data_len;
	if (n_first < PLAIN_L4_V6 + sizeof(struct tcp_header) || bytes[PLAIN_L3] >> 4 != 6 ||
		n_payload > UINT16_MAX - sizeof(*ip) || PLAIN_L4_V6 + n_payload > mbuf->pkt_len)
		return false;
	// IPv4-mapped addresses begin with 0, and so does every impossible source but multicast.
	uint8_t src_top = bytes[PLAIN_L3 + 8], dst_top = bytes[PLAIN_L3 + 24];
	if (src_top == 0 || src_top == 0xff || dst_top == 0)
		return false;
	*p = (struct packet){
		.src = ip->src,
		.dst = ip->dst,
		.l3_offset = PLAIN_L3,
		.l4_offset = PLAIN_L4_V6,
		.l3_length = (uint16_t)(n_payload + sizeof(*ip)),
		.l4_length = (uint16_t)n_payload,
		.protocol = ip->next_header,
		.ttl = ip->hop_limit,
		.is_v6 = true,
		.have_addresses = true,
	};
	return plain_l4(bytes + PLAIN_L4_V6, n_first - PLAIN_L4_V6, p);
}

// As packet_parse. own_mac: in the first six bytes of a word; own_mac_mask 0: any will do, else UINT64_MAX. False: not plain, and
// `out` is left half written.
static __rte_always_inline bool packet_parse_plain(
	const struct rte_mbuf *mbuf, uint64_t own_mac, uint64_t own_mac_mask, struct packet *out)
{
	const uint8_t *bytes = rte_pktmbuf_mtod(mbuf, const uint8_t *);
	uint64_t to;
	if (unlikely(mbuf->data_len < PLAIN_L4_V4 + sizeof(struct tcp_header)))
		return false;
	memcpy(&to, bytes, sizeof(to));
	if (unlikely(((to ^ own_mac) << 16 & own_mac_mask) != 0))
		return false;
	rte_be16_t type = ((const struct eth_header *)(const void *)bytes)->type;
	if (likely(type == RTE_BE16(NET_ETHERTYPE_V4)))
		return plain_v4(mbuf, bytes, out);
	return type == RTE_BE16(NET_ETHERTYPE_V6) && plain_v6(mbuf, bytes, out);
}

// ---------------------------------------------------------------- rewrite
static __rte_always_inline void plain_write_macs(uint8_t *frame, const struct packet_macs *macs)
{
	memcpy(frame, &macs->first, sizeof(macs->first));
	memcpy(frame + sizeof(macs->first), &macs->rest, sizeof(macs->rest));
}
_Static_assert(sizeof(uint64_t) + sizeof(uint32_t) == offsetof(struct eth_header, type), "both");

// The checksum of an SCTP packet of `length` bytes whose ports (both, as they lie in the packet) have changed (sctp.c).
void sctp_update_checksum(void *l4, uint32_t was, uint32_t is, uint32_t length);

// Ports, and the checksum by the delta of the addresses.
static __rte_always_inline void plain_nat_l4(
	uint8_t *l4, const struct packet *p, uint32_t ports, uint64_t delta)
{
	uint32_t had_ports;
	memcpy(&had_ports, &p->src_port, sizeof(had_ports));
	memcpy(l4, &ports, sizeof(ports));
	delta += checksum_delta(had_ports, ports);
	if (likely(p->protocol == NET_PROTO_TCP)) {
		struct tcp_header *tcp = (void *)l4;
		tcp->checksum = checksum_apply(tcp->checksum, delta);
		return;
	}
	if (unlikely(p->protocol ==
		     NET_PROTO_SCTP)) { // no pseudo-header: the addresses do not matter
		sctp_update_checksum(l4, had_ports, ports, p->l4_length);
		return;
	}
	struct udp_header *udp = (void *)l4;
	if (udp->checksum == 0)
		return; // the sender made none (IPv4: the parser refuses it in IPv6)
	rte_be16_t sum = checksum_apply(udp->checksum, delta);
	udp->checksum = sum == 0 ? 0xffff : sum;
}

// packet_rewrite_fullnat, inline. src and dst are of the packet's family.
static __rte_always_inline void packet_nat_plain(struct rte_mbuf *mbuf, const struct packet *p,
	const struct address *src, const struct address *dst, uint32_t ports,
	const struct packet_macs *macs)
{
	uint8_t *frame = rte_pktmbuf_mtod(mbuf, uint8_t *);
	uint64_t delta;
	plain_write_macs(frame, macs);
	if (likely(!p->is_v6)) {
		struct v4_header *ip = (void *)(frame + p->l3_offset);
		delta = checksum_delta(p->src.words[3], src->words[3]) +
			checksum_delta(p->dst.words[3], dst->words[3]);
		ip->src = src->words[3];
		ip->dst = dst->words[3];
		ip->ttl--;
		// TTL is the first byte of its word: one less there.
		ip->checksum = checksum_apply(ip->checksum, delta + (uint16_t)~RTE_BE16(0x0100));
	} else {
		struct v6_header *ip = (void *)(frame + p->l3_offset);
		delta = checksum_delta_address(&p->src, src) + checksum_delta_address(&p->dst, dst);
		ip->src = *src;
		ip->dst = *dst;
		ip->hop_limit--;
	}
	plain_nat_l4(frame + p->l4_offset, p, ports, delta);
}

// As packet_rewrite_ipip for IPv4 in IPv4. id as in struct packet_outer. True: done.
static __rte_always_inline bool packet_ipip_plain(struct rte_mbuf *mbuf, const struct packet *p,
	rte_be32_t src, rte_be32_t dst, uint16_t id, const struct packet_macs *macs)
{
	enum { HEAD = PLAIN_L3 + sizeof(struct v4_header) };
	uint32_t room = mbuf->data_off + p->l3_offset, length = p->l3_length;
	if (unlikely(p->is_v6 || mbuf->nb_segs > 1 || room < HEAD || length > UINT16_MAX - HEAD))
		return false;
	uint8_t *at = (uint8_t *)mbuf->buf_addr + room - HEAD;
	const struct plain_words *inner = (const void *)(at + HEAD);
	struct plain_words *outer = (void *)(at + PLAIN_L3);
	mbuf->data_off = (uint16_t)(room - HEAD);
	mbuf->data_len = (uint16_t)(length + HEAD);
	mbuf->pkt_len = length + HEAD;
	// version, TOS, length; id or DF; TTL 64, protocol 4
	uint32_t first =
		(inner->w[0] & RTE_BE32(0x00ff0000)) |
		rte_cpu_to_be_32(0x45000000u + length + (uint32_t)sizeof(struct v4_header));
	uint32_t second = inner->w[1] & RTE_BE32(0x00004000);
	if (second == 0)
		second = rte_cpu_to_be_32((uint32_t)id << 16);
	const uint32_t third = RTE_BE32(0x40040000);
	uint16_t sum = checksum_fold((uint64_t)first + second + third + src + dst);
	plain_write_macs(at, macs);
	((struct eth_header *)(void *)at)->type = RTE_BE16(NET_ETHERTYPE_V4);
	outer->w[0] = first;
	outer->w[1] = second;
	outer->w[2] = third;
	((struct v4_header *)(void *)outer)->checksum = (rte_be16_t)~sum;
	outer->w[3] = src;
	outer->w[4] = dst;
	return true;
}
