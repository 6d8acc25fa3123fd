// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// Hot path: no allocation, lock, log, system call.
// The plain packet: TCP or UDP, whole, no options or extension headers, nothing wrong, all of it in one segment. Nearly every
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

_Static_assert(RTE_BYTE_ORDER == RTE_LITTLE_ENDIAN,
	"words of headers and of struct packet are made and taken apart lowest byte first");

// ---------------------------------------------------------------- parse
// Bit f: flags f (the six of RFC 9293) are possible. Any, but not SYN with FIN or RST.
static __rte_always_inline bool plain_tcp_flags_ok(uint8_t flags)
{
	return 0x3737373737373736ull >> (flags & 63) & 1;
}

// The sum of an IPv4 header without options is 0 in the arithmetic of its checksum: a multiple of 65535. Whether it is one, its
// product with the inverse of 65535 modulo 2^64 says: that is the quotient then, and a greater number else.
static __rte_always_inline bool plain_v4_sum_ok(const void *ip)
{
	uint64_t first, second;
	uint32_t third;
	memcpy(&first, ip, sizeof(first));
	memcpy(&second, (const char *)ip + 8, sizeof(second));
	memcpy(&third, (const char *)ip + 16, sizeof(third));
	uint64_t sum = first + second, more = (uint64_t)third + (sum < first);
	sum += more;
	sum += sum < more; // end-around carry
	return sum * 0xfffefffefffeffffull <= UINT64_MAX / 65535;
}

// The sum first: it takes fewer instructions than the question whether the port has said so already.
static __rte_always_inline bool plain_v4_checksum_ok(const struct rte_mbuf *mbuf, const void *ip)
{
	return likely(plain_v4_sum_ok(ip)) ||
	       (mbuf->ol_flags & RTE_MBUF_F_RX_IP_CKSUM_MASK) == RTE_MBUF_F_RX_IP_CKSUM_GOOD;
}

// What is not an address, whole words at a time: the next stages read it back in words and in pieces, and a word that was stored
// in pieces would make them wait.
struct plain_rest {
	uint32_t ports; // as on the wire
	uint32_t l3_length;
	uint32_t l4_length;
	uint8_t protocol;
	uint8_t tcp_flags;
	uint8_t ttl;
	bool is_v6;
};
static __rte_always_inline void plain_store(struct packet *out, const struct plain_rest *rest)
{
	uint64_t offsets = (uint64_t)PLAIN_L3 << 32 |
			   (uint64_t)(rest->is_v6 ? PLAIN_L4_V6 : PLAIN_L4_V4) << 48;
	uint64_t first = rest->ports | offsets;
	uint64_t second = rest->l3_length | rest->l4_length << 16 | (uint64_t)rest->protocol << 32 |
			  (uint64_t)PACKET_FLOW << 40 | (uint64_t)rest->tcp_flags << 56;
	uint64_t third = rest->ttl | (uint64_t)rest->is_v6 << 8 | 1u << 16;
	char *at = (char *)out + offsetof(struct packet, src_port);
	// Each for itself: gcc copies an array of them by way of the stack, as a vector that waits for its halves.
	memcpy(at, &first, sizeof(first));
	memcpy(at + 8, &second, sizeof(second));
	memcpy(at + 16, &third, sizeof(third));
}
#define PLAIN_AT(field, word, byte)                                                     \
	_Static_assert(offsetof(struct packet, field) ==                                \
			       offsetof(struct packet, src_port) + 8 * (word) + (byte), \
		"place of " #field)
PLAIN_AT(dst_port, 0, 2);
PLAIN_AT(l3_offset, 0, 4);
PLAIN_AT(l4_offset, 0, 6);
PLAIN_AT(l3_length, 1, 0);
PLAIN_AT(l4_length, 1, 2);
PLAIN_AT(protocol, 1, 4);
PLAIN_AT(kind, 1, 5);
PLAIN_AT(reason, 1, 6);
PLAIN_AT(tcp_flags, 1, 7);
PLAIN_AT(ttl, 2, 0);
PLAIN_AT(is_v6, 2, 1);
PLAIN_AT(have_addresses, 2, 2);
_Static_assert(sizeof(struct packet) == offsetof(struct packet, src_port) + 24, "all of it");

// Ports and flags. n: bytes of L4, all of them here, negative when the IP header lies. At least a TCP header can be read.
static __rte_always_inline bool plain_l4(const uint8_t *l4, int32_t n, struct plain_rest *rest)
{
	memcpy(&rest->ports, l4, sizeof(rest->ports));
	rest->l4_length = (uint32_t)n;
	if (likely(rest->protocol == NET_PROTO_TCP)) {
		const struct tcp_header *tcp = (const void *)l4;
		rest->tcp_flags = tcp->flags;
		return likely(tcp->offset >= sizeof(*tcp) << 2) &&
		       likely((tcp->offset >> 2 & 0x3c) <= n) &&
		       likely(plain_tcp_flags_ok(tcp->flags));
	}
	const struct udp_header *udp = (const void *)l4;
	rest->tcp_flags = 0;
	return rest->protocol == NET_PROTO_UDP && rte_be_to_cpu_16(udp->length) == n &&
	       n >= (int32_t)sizeof(*udp) && (udp->checksum != 0 || !rest->is_v6);
}

static __rte_always_inline bool plain_v4(
	const struct rte_mbuf *mbuf, const uint8_t *bytes, struct packet *out)
{
	const struct v4_header *ip = (const void *)(bytes + PLAIN_L3);
	uint32_t total = rte_be_to_cpu_16(ip->total_length);
	uint8_t top = (uint8_t)ip->src;
	struct plain_rest rest = { .l3_length = total, .protocol = ip->protocol, .ttl = ip->ttl };
	if (unlikely(ip->version_ihl != 0x45 || (ip->fragment & RTE_BE16(0x3fff)) ||
		     PLAIN_L3 + total > mbuf->data_len || (uint8_t)(top - 1) >= 223 || top == 127 ||
		     !plain_v4_checksum_ok(mbuf, ip)))
		return false;
	if (unlikely(!plain_l4(bytes + PLAIN_L4_V4, (int32_t)(total - sizeof(*ip)), &rest)))
		return false;
	out->src = address_from_v4(ip->src);
	out->dst = address_from_v4(ip->dst);
	plain_store(out, &rest);
	return true;
}

static __rte_always_inline bool plain_v6(
	const struct rte_mbuf *mbuf, const uint8_t *bytes, struct packet *out)
{
	const struct v6_header *ip = (const void *)(bytes + PLAIN_L3);
	uint32_t n_payload = rte_be_to_cpu_16(ip->payload_length), n_first = mbuf->data_len;
	if (n_first < PLAIN_L4_V6 + sizeof(struct tcp_header) || bytes[PLAIN_L3] >> 4 != 6 ||
		n_payload > UINT16_MAX - sizeof(*ip) || PLAIN_L4_V6 + n_payload > n_first)
		return false;
	// IPv4-mapped addresses begin with 0, and so does every impossible source but multicast.
	uint8_t src_top = bytes[PLAIN_L3 + 8], dst_top = bytes[PLAIN_L3 + 24];
	if (src_top == 0 || src_top == 0xff || dst_top == 0)
		return false;
	struct plain_rest rest = { .l3_length = n_payload + (uint32_t)sizeof(*ip),
		.protocol = ip->next_header,
		.ttl = ip->hop_limit,
		.is_v6 = true };
	if (unlikely(!plain_l4(bytes + PLAIN_L4_V6, (int32_t)n_payload, &rest)))
		return false;
	out->src = ip->src;
	out->dst = ip->dst;
	plain_store(out, &rest);
	return true;
}

// As packet_parse. own_mac: in the first six bytes of a word; own_mac_mask 0: any will do, else UINT64_MAX. False: not plain, and
// `out` is as it was.
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

// The same from words that begin with a MAC each. What lies behind them is written too, and then over: the ethertype has to be
// written again.
static __rte_always_inline void plain_write_macs_of(uint8_t *frame, uint64_t dst, uint64_t src)
{
	memcpy(frame + offsetof(struct eth_header, dst), &dst, sizeof(dst));
	memcpy(frame + offsetof(struct eth_header, src), &src, sizeof(src));
}
static __rte_always_inline void plain_write_type(uint8_t *frame, rte_be16_t type)
{
	memcpy(frame + offsetof(struct eth_header, type), &type, sizeof(type));
}

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

// Ethertype, addresses and ports of an IPv4 packet: without options, as the parser lets no others through.
static __rte_always_inline void plain_nat_v4(
	uint8_t *frame, const struct packet *p, rte_be32_t src, rte_be32_t dst, uint32_t ports)
{
	struct v4_header *ip = (void *)(frame + PLAIN_L3);
	plain_write_type(frame, RTE_BE16(NET_ETHERTYPE_V4));
	uint64_t delta =
		checksum_delta(p->src.words[3], src) + checksum_delta(p->dst.words[3], dst);
	ip->src = src;
	ip->dst = dst;
	ip->ttl--;
	// TTL is the first byte of its word: one less there.
	ip->checksum = checksum_apply(ip->checksum, delta + (uint16_t)~RTE_BE16(0x0100));
	plain_nat_l4(frame + PLAIN_L4_V4, p, ports, delta);
}

static __rte_always_inline void plain_nat_v6(uint8_t *frame, const struct packet *p,
	const struct address *src, const struct address *dst, uint32_t ports)
{
	struct v6_header *ip = (void *)(frame + PLAIN_L3);
	plain_write_type(frame, RTE_BE16(NET_ETHERTYPE_V6));
	uint64_t delta =
		checksum_delta_address(&p->src, src) + checksum_delta_address(&p->dst, dst);
	ip->src = *src;
	ip->dst = *dst;
	ip->hop_limit--;
	plain_nat_l4(frame + p->l4_offset, p, ports, delta);
}

// As packet_rewrite_ipip for IPv4 in IPv4. *id as in struct packet_outer, read where it is needed. The packet is one that packet_parse has parsed: its IP
// header follows the Ethernet header. True: done.
static __rte_always_inline bool packet_ipip_plain(struct rte_mbuf *mbuf, const struct packet *p,
	rte_be32_t src, rte_be32_t dst, const uint16_t *id, const struct packet_macs *macs)
{
	enum { ROOM = sizeof(struct v4_header), HEAD = PLAIN_L3 + ROOM };
	uint32_t offset = mbuf->data_off, length = p->l3_length;
	if (unlikely(p->is_v6 || mbuf->nb_segs > 1 || offset < ROOM || length > UINT16_MAX - HEAD))
		return false;
	offset -= ROOM;
	uint8_t *at = (uint8_t *)mbuf->buf_addr + offset;
	const struct plain_words *inner = (const void *)(at + HEAD);
	struct plain_words *outer = (void *)(at + PLAIN_L3);
	mbuf->data_off = (uint16_t)offset;
	mbuf->data_len = (uint16_t)(length + HEAD);
	mbuf->pkt_len = length + HEAD;
	// version, TOS, length; id or DF; TTL 64, protocol 4
	uint32_t first = (inner->w[0] & RTE_BE32(0x00ff0000)) |
			 rte_cpu_to_be_32(0x45000000u + length + ROOM);
	uint32_t second = inner->w[1] & RTE_BE32(0x00004000);
	if (second == 0)
		second = rte_cpu_to_be_32((uint32_t)*id << 16);
	const uint32_t third = RTE_BE32(0x40040000);
	uint32_t sum = checksum_fold((uint64_t)first + second + third + src + dst);
	plain_write_macs(at, macs);
	((struct eth_header *)(void *)at)->type = RTE_BE16(NET_ETHERTYPE_V4);
	outer->w[0] = first;
	outer->w[1] = second;
	outer->w[2] = third | ~sum << 16;
	outer->w[3] = src;
	outer->w[4] = dst;
	return true;
}
