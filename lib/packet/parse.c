// SPDX-License-Identifier: BSD-3-Clause
// Hot path: no allocation, lock, log, system call.
// One frame to struct packet. Every header is checked twice: against the length that the layer above it claims (a lie or a cut
// is named after that header) and against data_len of the first segment, past which nothing is read.
//
// parse_whole knows everything and names what it refuses. In front of it, packet_parse_plain (plain.h) takes the packet that nearly
// all are with 98 instead of 149 instructions, and leaves the rest to it. They must agree: unit test and fuzzer compare them
// (frames to a group MAC go the long way).
#include "packet_priv.h"

#define V6_EXTENSIONS_MAX 8

enum {
	PROTO_HOP_BY_HOP = 0,
	PROTO_IGMP = 2,
	PROTO_ROUTING = 43,
	PROTO_FRAGMENT = 44,
	PROTO_DESTINATION = 60,
};

enum {
	ICMP4_UNREACHABLE = 3,
	ICMP4_ECHO = 8,
	ICMP4_TIME_EXCEEDED = 11,
	ICMP4_PARAMETER = 12,
	ICMP6_UNREACHABLE = 1,
	ICMP6_PARAMETER = 4,
	ICMP6_ECHO = 128,
};

static inline void refuse(struct packet *p, enum drop_reason reason)
{
	p->kind = PACKET_BAD;
	p->reason = (uint8_t)reason;
}

// True when the first `end` bytes of the frame are in the first segment; else refused: `cut` when the frame itself ends before.
static inline bool reaches(
	const struct rte_mbuf *mbuf, struct packet *p, uint32_t end, enum drop_reason cut)
{
	if (likely(end <= mbuf->data_len))
		return true;
	refuse(p, end <= mbuf->pkt_len ? DROP_SEGMENTED_HEADERS : cut);
	return false;
}

// ---------------------------------------------------------------- layer 4
static inline void parse_tcp(const struct rte_mbuf *mbuf, struct packet *p)
{
	if (p->l4_length < sizeof(struct tcp_header)) {
		refuse(p, DROP_TCP_TRUNCATED);
		return;
	}
	if (!reaches(mbuf, p, p->l4_offset + sizeof(struct tcp_header), DROP_TCP_TRUNCATED))
		return;
	const struct tcp_header *tcp = packet_at(mbuf, p->l4_offset);
	uint32_t header_length = (tcp->offset >> 4) * 4u;
	if (header_length < sizeof(*tcp) || header_length > p->l4_length) {
		refuse(p, DROP_TCP_BAD_OFFSET);
		return;
	}
	if (!reaches(mbuf, p, p->l4_offset + header_length, DROP_TCP_TRUNCATED))
		return;
	p->src_port = tcp->src_port;
	p->dst_port = tcp->dst_port;
	p->tcp_flags = tcp->flags;
	if (!plain_tcp_flags_ok(tcp->flags)) {
		refuse(p, DROP_TCP_BAD_FLAGS);
		return;
	}
	p->kind = PACKET_FLOW;
}

static inline void parse_udp(const struct rte_mbuf *mbuf, struct packet *p)
{
	if (p->l4_length < sizeof(struct udp_header)) {
		refuse(p, DROP_UDP_TRUNCATED);
		return;
	}
	if (!reaches(mbuf, p, p->l4_offset + sizeof(struct udp_header), DROP_UDP_TRUNCATED))
		return;
	const struct udp_header *udp = packet_at(mbuf, p->l4_offset);
	p->src_port = udp->src_port;
	p->dst_port = udp->dst_port;
	if (rte_be_to_cpu_16(udp->length) != p->l4_length) {
		refuse(p, DROP_UDP_BAD_LENGTH);
		return;
	}
	if (udp->checksum == 0 && p->is_v6) {
		refuse(p, DROP_BAD_L4_CHECKSUM);
		return;
	}
	p->kind = PACKET_FLOW;
}

// What the first chunk means for the flow, in the flags that a TCP segment would have at that point of a connection: so
// one table of states serves both. Handshake INIT, INIT ACK, COOKIE ECHO; close SHUTDOWN, SHUTDOWN ACK,
// SHUTDOWN COMPLETE. Chunks behind the first are not looked at.
static inline uint8_t sctp_flags(uint8_t chunk_type)
{
	switch (chunk_type) {
	case SCTP_INIT:
		return TCP_SYN;
	case SCTP_INIT_ACK:
		return TCP_SYN | TCP_ACK;
	case SCTP_ABORT:
	case SCTP_SHUTDOWN_COMPLETE:
		return TCP_RST;
	case SCTP_SHUTDOWN:
	case SCTP_SHUTDOWN_ACK:
		return TCP_FIN;
	default:
		return TCP_ACK;
	}
}

enum {
	SCTP_MIN = sizeof(struct sctp_header) + sizeof(struct sctp_chunk),
	SCTP_INIT_TAG_END = SCTP_MIN + sizeof(rte_be32_t),
	SCTP_INIT_LENGTH = 20, // of its chunk, without parameters
};

// The first chunk lies within the packet of n bytes; verification tag 0 with INIT and only there; INIT alone (RFC 9260
// 6.10, 8.5.1) and with an initiate tag (3.3.2). SCTP_INIT_TAG_END bytes may be read if it is an INIT.
static inline bool sctp_chunk_ok(const uint8_t *l4, uint32_t n)
{
	const struct sctp_header *sctp = (const void *)l4;
	const struct sctp_chunk *chunk = (const void *)(sctp + 1);
	uint32_t length = rte_be_to_cpu_16(chunk->length);
	uint32_t n_chunks = n - (uint32_t)sizeof(*sctp);
	if (length < sizeof(*chunk) || length > n_chunks)
		return false;
	if (chunk->type != SCTP_INIT)
		return sctp->tag != 0;
	rte_be32_t initiate_tag;
	if (length < SCTP_INIT_LENGTH || n_chunks - length > 3 || sctp->tag != 0)
		return false;
	memcpy(&initiate_tag, chunk + 1, sizeof(initiate_tag));
	return initiate_tag != 0;
}

static void parse_sctp(const struct rte_mbuf *mbuf, struct packet *p)
{
	if (p->l4_length < SCTP_MIN) {
		refuse(p, DROP_SCTP_TRUNCATED);
		return;
	}
	if (!reaches(mbuf, p, p->l4_offset + SCTP_MIN, DROP_SCTP_TRUNCATED))
		return;
	const uint8_t *l4 = packet_at(mbuf, p->l4_offset);
	const struct sctp_chunk *chunk = (const void *)(l4 + sizeof(struct sctp_header));
	if (chunk->type == SCTP_INIT && p->l4_length >= SCTP_INIT_TAG_END &&
		!reaches(mbuf, p, p->l4_offset + SCTP_INIT_TAG_END, DROP_SCTP_TRUNCATED))
		return;
	memcpy(&p->src_port, l4, 2 * sizeof(p->src_port));
	p->tcp_flags = sctp_flags(chunk->type);
	if (!sctp_chunk_ok(l4, p->l4_length)) {
		refuse(p, DROP_SCTP_BAD_CHUNK);
		return;
	}
	p->kind = PACKET_FLOW;
}

// Redirects and source quench (RFC 6633) are no errors for a flow; unknown ICMPv6 errors quote we do not know what.
static inline bool icmp_is_error(bool is_v6, uint8_t type)
{
	if (is_v6)
		return type >= ICMP6_UNREACHABLE && type <= ICMP6_PARAMETER;
	return type == ICMP4_UNREACHABLE || type == ICMP4_TIME_EXCEEDED || type == ICMP4_PARAMETER;
}

static void parse_icmp(const struct rte_mbuf *mbuf, struct packet *p)
{
	if (p->l4_length < sizeof(struct icmp_header)) {
		refuse(p, DROP_ICMP_TRUNCATED);
		return;
	}
	if (!reaches(mbuf, p, p->l4_offset + sizeof(struct icmp_header), DROP_ICMP_TRUNCATED))
		return;
	const struct icmp_header *icmp = packet_at(mbuf, p->l4_offset);
	p->kind = PACKET_ICMP_OTHER;
	if (icmp->type == (p->is_v6 ? ICMP6_ECHO : ICMP4_ECHO) && icmp->code == 0) {
		p->kind = PACKET_ECHO;
		p->src_port = icmp->word_hi;
	} else if (icmp_is_error(p->is_v6, icmp->type)) {
		p->kind = PACKET_ICMP_ERROR;
	}
}

static inline void parse_l4(const struct rte_mbuf *mbuf, struct packet *p)
{
	if (likely(p->protocol == NET_PROTO_TCP))
		parse_tcp(mbuf, p);
	else if (p->protocol == NET_PROTO_UDP)
		parse_udp(mbuf, p);
	else if (p->protocol == (p->is_v6 ? NET_PROTO_ICMPV6 : NET_PROTO_ICMP))
		parse_icmp(mbuf, p);
	else if (p->protocol == NET_PROTO_SCTP)
		parse_sctp(mbuf, p);
	else
		p->kind = p->protocol == PROTO_IGMP && !p->is_v6 ? PACKET_OTHER : PACKET_PROTOCOL;
}

// ---------------------------------------------------------------- fragments
static uint32_t l4_header_min(uint8_t protocol)
{
	switch (protocol) {
	case NET_PROTO_TCP:
		return sizeof(struct tcp_header);
	case NET_PROTO_UDP:
		return sizeof(struct udp_header);
	case NET_PROTO_SCTP:
		return SCTP_MIN; // with the head of its first chunk
	default:
		return 0;
	}
}

// The length of a UDP packet is that of the whole, which has at least what is here.
static void parse_first_udp(const struct rte_mbuf *mbuf, struct packet *p)
{
	const struct udp_header *udp = packet_at(mbuf, p->l4_offset);
	if (rte_be_to_cpu_16(udp->length) < p->l4_length)
		refuse(p, DROP_UDP_BAD_LENGTH);
	else if (udp->checksum == 0 && p->is_v6)
		refuse(p, DROP_BAD_L4_CHECKSUM);
}

// Of the first chunk only the head need be here, and of INIT only that it alone has no verification tag is checked.
static void parse_first_sctp(const struct rte_mbuf *mbuf, struct packet *p)
{
	const struct sctp_header *sctp = packet_at(mbuf, p->l4_offset);
	const struct sctp_chunk *chunk = (const void *)(sctp + 1);
	p->tcp_flags = sctp_flags(chunk->type);
	if (rte_be_to_cpu_16(chunk->length) < sizeof(*chunk) ||
		(chunk->type == SCTP_INIT) != (sctp->tag == 0))
		refuse(p, DROP_SCTP_BAD_CHUNK);
}

static void parse_first_tcp(const struct rte_mbuf *mbuf, struct packet *p)
{
	const struct tcp_header *tcp = packet_at(mbuf, p->l4_offset);
	if ((tcp->offset >> 4) * 4u > p->l4_length) {
		refuse(p, DROP_FRAGMENT_TINY);
		return;
	}
	parse_tcp(mbuf, p);
	if (p->kind == PACKET_FLOW)
		p->kind = PACKET_FRAGMENT;
}

// The first fragment has the whole L4 header, or what decides by ports and flags could be led astray by a later
// one (RFC 1858, RFC 3128, RFC 7112).
static void parse_first_l4(const struct rte_mbuf *mbuf, struct packet *p)
{
	uint32_t n_header = l4_header_min(p->protocol);
	if (n_header == 0)
		return;
	if (p->l4_length < n_header) {
		refuse(p, DROP_FRAGMENT_TINY);
		return;
	}
	if (!reaches(mbuf, p, p->l4_offset + n_header, DROP_FRAGMENT_TINY))
		return;
	memcpy(&p->src_port, packet_at(mbuf, p->l4_offset), 2 * sizeof(p->src_port));
	if (p->protocol == NET_PROTO_TCP)
		parse_first_tcp(mbuf, p);
	else if (p->protocol == NET_PROTO_UDP)
		parse_first_udp(mbuf, p);
	else
		parse_first_sctp(mbuf, p);
}

// p->kind is PACKET_FRAGMENT. Lengths first: only the last one may end where it likes, none beyond what an IP packet can be, and
// each brings something.
static void parse_fragment(const struct rte_mbuf *mbuf, struct packet *p)
{
	uint32_t offset = packet_fragment_offset(p), length = packet_fragment_length(p);
	// IPv4: the whole with its header; IPv6: without the fixed one and the fragment header.
	uint32_t n_before = p->is_v6 ? p->fragment_header - sizeof(struct v6_header) : p->l4_offset;
	if (length == 0 || (packet_fragment_has_more(p) && length % 8 != 0) ||
		n_before - p->l3_offset + offset + length > UINT16_MAX)
		refuse(p, DROP_FRAGMENT_BAD_LENGTH);
	else if (offset == 0)
		parse_first_l4(mbuf, p);
	else if (offset < l4_header_min(p->protocol))
		refuse(p, DROP_FRAGMENT_TINY);
}

// ---------------------------------------------------------------- sources
static bool destination_is_local(const struct address *dst)
{
	if (address_is_v4(dst))
		return (dst->bytes[12] & 0xf0) == 224 || dst->words[3] == 0xffffffff ||
		       (dst->bytes[12] == 169 && dst->bytes[13] == 254);
	return dst->bytes[0] == 0xff || (dst->bytes[0] == 0xfe && (dst->bytes[1] & 0xc0) == 0x80);
}

// True when p is settled: refused, or the kernel's for its unspecified source. p->kind is PACKET_FRAGMENT already where it
// is one.
static bool source_is_odd(const struct rte_mbuf *mbuf, struct packet *p)
{
	if (!address_is_impossible_source(&p->src))
		return false;
	if (!address_is_unspecified(&p->src) || !destination_is_local(&p->dst)) {
		refuse(p, DROP_IMPOSSIBLE_SOURCE);
	} else if (p->kind != PACKET_FRAGMENT &&
		   p->protocol == (p->is_v6 ? NET_PROTO_ICMPV6 : NET_PROTO_ICMP)) {
		parse_icmp(mbuf, p);
		if (p->kind != PACKET_BAD)
			p->kind = PACKET_ICMP_OTHER;
	}
	return true;
}

// ---------------------------------------------------------------- IPv4
static bool v4_checksum_ok(
	const struct rte_mbuf *mbuf, const struct v4_header *ip, uint32_t header_length)
{
	if (likely(header_length == sizeof(*ip)))
		return plain_v4_checksum_ok(mbuf, ip);
	return (mbuf->ol_flags & RTE_MBUF_F_RX_IP_CKSUM_MASK) == RTE_MBUF_F_RX_IP_CKSUM_GOOD ||
	       checksum_fold(checksum_sum(ip, header_length)) == 0xffff;
}

// Lengths, checksum and options. False: refused.
static inline bool v4_header_ok(
	const struct rte_mbuf *mbuf, const struct v4_header *ip, struct packet *p)
{
	uint32_t header_length = (ip->version_ihl & 15) * 4u;
	if (header_length < sizeof(*ip)) {
		refuse(p, DROP_V4_BAD_VERSION);
		return false;
	}
	uint32_t total = rte_be_to_cpu_16(ip->total_length);
	if (total < header_length || p->l3_offset + total > mbuf->pkt_len) {
		refuse(p, DROP_V4_BAD_LENGTH);
		return false;
	}
	if (!reaches(mbuf, p, p->l3_offset + header_length, DROP_V4_TRUNCATED))
		return false;
	if (!v4_checksum_ok(mbuf, ip, header_length)) {
		refuse(p, DROP_V4_BAD_CHECKSUM);
		return false;
	}
	p->l3_length = (uint16_t)total;
	p->l4_offset = (uint16_t)(p->l3_offset + header_length);
	p->l4_length = (uint16_t)(total - header_length);
	if (unlikely(header_length > sizeof(*ip)) && ip->protocol != PROTO_IGMP) {
		refuse(p, DROP_V4_OPTIONS);
		return false;
	}
	return true;
}

static inline void parse_v4(const struct rte_mbuf *mbuf, struct packet *p)
{
	if (!reaches(mbuf, p, p->l3_offset + sizeof(struct v4_header), DROP_V4_TRUNCATED))
		return;
	const struct v4_header *ip = packet_at(mbuf, p->l3_offset);
	if (ip->version_ihl >> 4 != 4) {
		refuse(p, DROP_V4_BAD_VERSION);
		return;
	}
	p->src = address_from_v4(ip->src);
	p->dst = address_from_v4(ip->dst);
	p->have_addresses = true;
	p->protocol = ip->protocol;
	p->ttl = ip->ttl;
	if (!v4_header_ok(mbuf, ip, p))
		return;
	if (unlikely(ip->fragment & RTE_BE16(0x3fff))) {
		uint16_t word = rte_be_to_cpu_16(ip->fragment);
		p->kind = PACKET_FRAGMENT;
		p->fragment = (uint16_t)((word & 0x1fff) << 3 | (word & 0x2000) >> 13);
	}
	// 1..223 but 127 cannot be odd.
	uint8_t top = p->src.bytes[12];
	if (unlikely(top == 0 || top == 127 || top >= 224) && source_is_odd(mbuf, p))
		return;
	if (likely(p->kind != PACKET_FRAGMENT))
		parse_l4(mbuf, p);
	else
		parse_fragment(mbuf, p);
}

// ---------------------------------------------------------------- IPv6
static bool v6_is_extension(uint8_t next, uint32_t n_before)
{
	return next == PROTO_ROUTING || next == PROTO_FRAGMENT || next == PROTO_DESTINATION ||
	       (next == PROTO_HOP_BY_HOP && n_before == 0); // first or nowhere, RFC 8200 4.1
}

// One extension header at `at`. Returns its length, or 0: refused.
static uint32_t v6_walk_one(
	const struct rte_mbuf *mbuf, struct packet *p, uint32_t at, uint8_t *next)
{
	uint32_t end = (uint32_t)p->l3_offset + p->l3_length;
	// The whole chain of headers lies in the first fragment, RFC 7112.
	enum drop_reason cut = p->kind == PACKET_FRAGMENT ? DROP_FRAGMENT_TINY : DROP_V6_TRUNCATED;
	if (at + 8 > end) {
		refuse(p, cut);
		return 0;
	}
	if (!reaches(mbuf, p, at + 8, DROP_V6_TRUNCATED))
		return 0;
	const uint8_t *header = packet_at(mbuf, at);
	uint32_t length = *next == PROTO_FRAGMENT ? 8 : (header[1] + 1u) * 8;
	if (at + length > end) {
		refuse(p, cut);
		return 0;
	}
	if (!reaches(mbuf, p, at + length, DROP_V6_TRUNCATED))
		return 0;
	if (*next == PROTO_ROUTING && header[3] != 0) {
		refuse(p, DROP_V6_ROUTING_HEADER);
		return 0;
	}
	bool is_fragment = *next == PROTO_FRAGMENT;
	*next = p->protocol = header[0];
	p->l4_offset = (uint16_t)(at + length);
	p->l4_length = (uint16_t)(end - at - length);
	if (is_fragment) {
		p->fragment = (uint16_t)((header[2] << 8 | header[3]) & 0xfff9);
		p->fragment_header = (uint16_t)at;
		p->is_atomic_fragment = p->fragment == 0;
		if (!p->is_atomic_fragment)
			p->kind = PACKET_FRAGMENT;
	}
	return length;
}

// False: refused. A fragment within a fragment is left as a protocol that nobody knows.
static bool v6_walk_extensions(const struct rte_mbuf *mbuf, struct packet *p)
{
	uint8_t next = p->protocol;
	uint32_t at = p->l4_offset;
	for (uint32_t n = 0; v6_is_extension(next, n); n++) {
		if (p->kind == PACKET_FRAGMENT &&
			(packet_fragment_offset(p) != 0 || next == PROTO_FRAGMENT))
			return true;
		if (n == V6_EXTENSIONS_MAX) {
			refuse(p, DROP_V6_TOO_MANY_HEADERS);
			return false;
		}
		uint32_t length = v6_walk_one(mbuf, p, at, &next);
		if (length == 0)
			return false;
		at += length;
	}
	return true;
}

static inline void parse_v6(const struct rte_mbuf *mbuf, struct packet *p)
{
	if (!reaches(mbuf, p, p->l3_offset + sizeof(struct v6_header), DROP_V6_TRUNCATED))
		return;
	const struct v6_header *ip = packet_at(mbuf, p->l3_offset);
	p->is_v6 = true;
	if ((ip->version_class_label & RTE_BE32(0xf0000000)) != RTE_BE32(0x60000000)) {
		refuse(p, DROP_V6_BAD_VERSION);
		return;
	}
	p->src = ip->src;
	p->dst = ip->dst;
	if (address_is_v4(&p->src) || address_is_v4(&p->dst)) {
		refuse(p, DROP_IMPOSSIBLE_SOURCE);
		return;
	}
	p->have_addresses = true;
	p->protocol = ip->next_header;
	p->ttl = ip->hop_limit;
	uint32_t total = sizeof(*ip) + rte_be_to_cpu_16(ip->payload_length);
	if (total > UINT16_MAX || p->l3_offset + total > mbuf->pkt_len) {
		refuse(p, DROP_V6_BAD_LENGTH);
		return;
	}
	p->l3_length = (uint16_t)total;
	p->l4_offset = (uint16_t)(p->l3_offset + sizeof(*ip));
	p->l4_length = (uint16_t)(total - sizeof(*ip));
	if (unlikely(p->protocol != NET_PROTO_TCP && p->protocol != NET_PROTO_UDP) &&
		!v6_walk_extensions(mbuf, p))
		return;
	uint8_t top = p->src.bytes[0];
	if (unlikely(top == 0 || top == 0xff) && source_is_odd(mbuf, p))
		return;
	if (likely(p->kind != PACKET_FRAGMENT))
		parse_l4(mbuf, p);
	else
		parse_fragment(mbuf, p);
}

static __attribute__((noinline)) void parse_whole(
	const struct rte_mbuf *mbuf, const struct mac *own_mac, struct packet *out)
{
	memset(out, 0, sizeof(*out)); // PACKET_OTHER
	if (!reaches(mbuf, out, sizeof(struct eth_header), DROP_ETH_TRUNCATED))
		return;
	const struct eth_header *eth = packet_at(mbuf, 0);
	if (own_mac && !(eth->dst.bytes[0] & 1) &&
		memcmp(&eth->dst, own_mac, sizeof(*own_mac)) != 0) {
		refuse(out, DROP_NOT_OUR_MAC);
		return;
	}
	out->l3_offset = sizeof(*eth);
	if (likely(eth->type == RTE_BE16(NET_ETHERTYPE_V4)))
		parse_v4(mbuf, out);
	else if (eth->type == RTE_BE16(NET_ETHERTYPE_V6))
		parse_v6(mbuf, out);
}

void packet_parse(const struct rte_mbuf *mbuf, const struct mac *own_mac, struct packet *out)
{
	uint64_t word = own_mac ? mac_word(own_mac) : 0;
	if (unlikely(!packet_parse_plain(mbuf, word, own_mac ? UINT64_MAX : 0, out)))
		parse_whole(mbuf, own_mac, out);
}
