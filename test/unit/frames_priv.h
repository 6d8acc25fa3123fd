// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// Frames for tests: built from a description, with checksums by recomputation (byte by byte, sharing no
// arithmetic with lib/net), in mbufs over blocks of exact length, so that a sanitizer sees each read or write beyond.
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "packet.h"

#define FRAME_MAX 4096

// Zero means: the plain choice.
struct frame_spec {
	const char *src; // default 198.51.100.7 or 2001:db8:c::7
	const char *dst; // default 203.0.113.10 or 2001:db8:1::10
	bool is_v6;
	uint8_t protocol; // default TCP
	uint16_t src_port;
	uint16_t dst_port;
	uint8_t ttl;       // default 61
	uint8_t tcp_flags; // default ACK
	uint32_t sequence;
	uint32_t acknowledgement;
	uint8_t tcp_option_bytes; // of NOPs, a multiple of 4
	bool udp_no_checksum;
	uint8_t sctp_chunk; // type of the one chunk; the payload is its content
	uint32_t sctp_tag;  // default 0x5c7a6001; INIT: 0
	uint8_t icmp_type;
	uint8_t icmp_code;
	rte_be16_t v4_fragment;
	uint8_t v4_option_bytes;   // of NOPs, a multiple of 4
	const uint8_t *extensions; // IPv6, whole headers; the last one's next header is patched in
	uint16_t n_extension_bytes;
	uint8_t first_extension; // protocol of the first one
	const void *payload;     // behind the L4 header; NULL: a pattern
	uint16_t n_payload;
	uint16_t n_padding; // Ethernet padding behind the IP packet
};

static inline uint16_t frame_get16(const uint8_t *at)
{
	return (uint16_t)(at[0] << 8 | at[1]);
}
static inline void frame_put16(uint8_t *at, uint32_t v)
{
	at[0] = (uint8_t)(v >> 8);
	at[1] = (uint8_t)v;
}
static inline void frame_put32(uint8_t *at, uint32_t v)
{
	frame_put16(at, v >> 16);
	frame_put16(at + 2, v);
}

// ---------------------------------------------------------------- the checksum oracle
// RFC 1071 by the letter, over big-endian words.
static inline uint32_t frame_sum(uint32_t sum, const uint8_t *at, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		sum += (i & 1) ? at[i] : (uint32_t)at[i] << 8;
		sum = (sum & 0xffff) + (sum >> 16);
	}
	return sum;
}

struct frame_layout {
	bool is_v6;
	uint8_t protocol;
	size_t l4; // offset
	size_t end;
};

// Where things are in a well-formed IP packet that begins at `ip` (IPv6 extension headers are walked).
static inline struct frame_layout frame_layout_of(const uint8_t *frame, size_t ip)
{
	const uint8_t *at = frame + ip;
	struct frame_layout l = { .is_v6 = at[0] >> 4 == 6 };
	if (!l.is_v6) {
		l.protocol = at[9];
		l.l4 = ip + (at[0] & 15) * 4u;
		l.end = ip + frame_get16(at + 2);
		return l;
	}
	l.protocol = at[6];
	l.l4 = ip + 40;
	l.end = l.l4 + frame_get16(at + 4);
	while (l.protocol == 0 || l.protocol == 43 || l.protocol == 44 || l.protocol == 60) {
		const uint8_t *header = frame + l.l4;
		l.l4 += l.protocol == 44 ? 8 : (header[1] + 1u) * 8;
		l.protocol = header[0];
	}
	return l;
}

static inline int frame_checksum_offset(uint8_t protocol)
{
	return protocol == NET_PROTO_TCP                                    ? 16
	       : protocol == NET_PROTO_UDP                                  ? 6
	       : protocol == NET_PROTO_ICMP || protocol == NET_PROTO_ICMPV6 ? 2
									    : -1;
}

// The L4 checksum that a packet ought to have, in host order; the stored one is taken as 0.
static inline uint16_t frame_l4_checksum(const uint8_t *frame, size_t ip, struct frame_layout l)
{
	uint8_t length[4];
	frame_put32(length, (uint32_t)(l.end - l.l4));
	uint32_t sum = 0;
	if (l.protocol != NET_PROTO_ICMP) {
		sum = frame_sum(sum, frame + ip + (l.is_v6 ? 8 : 12), l.is_v6 ? 32 : 8);
		sum = frame_sum(sum + l.protocol, length, 4);
	}
	size_t at = l.l4 + (size_t)frame_checksum_offset(l.protocol);
	sum = frame_sum(sum, frame + l.l4, at - l.l4);
	sum = frame_sum(sum, frame + at + 2, l.end - at - 2);
	uint16_t checksum = (uint16_t)~sum;
	return checksum == 0 && l.protocol == NET_PROTO_UDP ? 0xffff : checksum;
}

static inline uint16_t frame_v4_checksum(const uint8_t *frame, size_t ip)
{
	const uint8_t *at = frame + ip;
	return (uint16_t)~frame_sum(frame_sum(0, at, 10), at + 12, (size_t)(at[0] & 15) * 4 - 12);
}

// CRC32c bit by bit; begin with ~0, invert the end.
static inline uint32_t frame_crc32c(uint32_t crc, const uint8_t *at, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		crc ^= at[i];
		for (int bit = 0; bit < 8; bit++)
			crc = crc & 1 ? crc >> 1 ^ 0x82f63b78 : crc >> 1;
	}
	return crc;
}

// Writes the checksum of an SCTP packet of n bytes.
static inline void frame_fix_sctp(uint8_t *sctp, size_t n)
{
	memset(sctp + 8, 0, 4);
	uint32_t crc = ~frame_crc32c(~0u, sctp, n);
	for (int i = 0; i < 4; i++)
		sctp[8 + i] = (uint8_t)(crc >> (8 * i));
}

// Recomputes every checksum of the IP packet at `ip`; a UDP/IPv4 checksum of 0 stays.
static inline void frame_fix_checksums(uint8_t *frame, size_t ip)
{
	struct frame_layout l = frame_layout_of(frame, ip);
	if (!l.is_v6)
		frame_put16(frame + ip + 10, frame_v4_checksum(frame, ip));
	int offset = frame_checksum_offset(l.protocol);
	bool is_fragment = !l.is_v6 && (frame_get16(frame + ip + 6) & 0x3fff);
	if (l.protocol == NET_PROTO_SCTP && !is_fragment && l.end >= l.l4 + 12)
		frame_fix_sctp(frame + l.l4, l.end - l.l4);
	if (offset < 0 || is_fragment)
		return;
	uint8_t *field = frame + l.l4 + offset;
	if (l.protocol == NET_PROTO_UDP && !l.is_v6 && frame_get16(field) == 0)
		return;
	frame_put16(field, frame_l4_checksum(frame, ip, l));
}

// All checksums of the IP packet at `ip` are right.
static inline bool frame_checksums_ok(const uint8_t *frame, size_t ip)
{
	uint8_t copy[FRAME_MAX];
	struct frame_layout l = frame_layout_of(frame, ip);
	memcpy(copy, frame, l.end);
	frame_fix_checksums(copy, ip);
	return memcmp(copy, frame, l.end) == 0;
}

// ---------------------------------------------------------------- building
static inline size_t frame_build_l4(const struct frame_spec *s, uint8_t protocol, uint8_t *at)
{
	frame_put16(at, s->src_port ? s->src_port : 40000);
	frame_put16(at + 2, s->dst_port ? s->dst_port : 80);
	if (protocol == NET_PROTO_TCP) {
		frame_put32(at + 4, s->sequence);
		frame_put32(at + 8, s->acknowledgement);
		at[12] = (uint8_t)((20 + s->tcp_option_bytes) / 4 << 4);
		at[13] = s->tcp_flags ? s->tcp_flags : TCP_ACK;
		frame_put16(at + 14, 29200);
		memset(at + 16, 0, 4);
		memset(at + 20, 1, s->tcp_option_bytes);
		return 20u + s->tcp_option_bytes;
	}
	if (protocol == NET_PROTO_UDP) {
		frame_put16(at + 4, 8u + s->n_payload);
		frame_put16(at + 6, s->udp_no_checksum ? 0 : 1); // 1: to be computed
		return 8;
	}
	if (protocol == NET_PROTO_SCTP) {
		uint32_t tag = s->sctp_tag ? s->sctp_tag : 0x5c7a6001;
		frame_put32(at + 4, s->sctp_chunk == SCTP_INIT ? s->sctp_tag : tag);
		memset(at + 8, 0, 4);
		at[12] = s->sctp_chunk;
		at[13] = s->sctp_chunk == 0 ? 3 : 0; // DATA: unfragmented
		frame_put16(at + 14, 4u + s->n_payload);
		return 16;
	}
	if (protocol == NET_PROTO_ICMP || protocol == NET_PROTO_ICMPV6) {
		at[0] = s->icmp_type;
		at[1] = s->icmp_code;
		memset(at + 2, 0, 6);
		frame_put16(at + 4, s->src_port);
		return 8;
	}
	return 0;
}

static inline size_t frame_build_v4(const struct frame_spec *s, uint8_t *ip, uint8_t protocol)
{
	size_t n = 20u + s->v4_option_bytes;
	memset(ip, 1, n);
	memset(ip, 0, 20);
	ip[0] = (uint8_t)(0x40 | n / 4);
	ip[1] = 0x28;
	frame_put16(ip + 4, 0x1234);
	memcpy(ip + 6, &s->v4_fragment, 2);
	ip[8] = s->ttl ? s->ttl : 61;
	ip[9] = protocol;
	return n;
}

static inline size_t frame_build_v6(const struct frame_spec *s, uint8_t *ip, uint8_t protocol)
{
	frame_put32(ip, 0x62812345);
	ip[6] = s->n_extension_bytes ? s->first_extension : protocol;
	ip[7] = s->ttl ? s->ttl : 61;
	if (s->n_extension_bytes == 0)
		return 40;
	memcpy(ip + 40, s->extensions, s->n_extension_bytes);
	size_t last = 40, next = 40, end = 40u + s->n_extension_bytes;
	for (uint8_t kind = ip[6]; next + 8 <= end; kind = ip[last]) {
		last = next;
		next += kind == 44 ? 8 : (ip[last + 1] + 1u) * 8;
	}
	ip[last] = protocol;
	return end;
}

static inline void frame_put_address(uint8_t *at, const char *text, bool is_v6)
{
	struct address a;
	if (address_parse(text, &a) != 0)
		abort();
	memcpy(at, is_v6 ? a.bytes : a.bytes + 12, is_v6 ? 16 : 4);
}

// Builds a frame of at most FRAME_MAX bytes; returns its length.
static inline size_t frame_build(const struct frame_spec *s, uint8_t *frame)
{
	static const uint8_t macs[12] = { 2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1 };
	uint8_t protocol = s->protocol ? s->protocol : NET_PROTO_TCP;
	memcpy(frame, macs, 12);
	frame_put16(frame + 12, s->is_v6 ? 0x86dd : 0x0800);
	uint8_t *ip = frame + 14;
	size_t n = s->is_v6 ? frame_build_v6(s, ip, protocol) : frame_build_v4(s, ip, protocol);
	if (s->is_v6) {
		frame_put_address(ip + 8, s->src ? s->src : "2001:db8:c::7", true);
		frame_put_address(ip + 24, s->dst ? s->dst : "2001:db8:1::10", true);
	} else {
		frame_put_address(ip + 12, s->src ? s->src : "198.51.100.7", false);
		frame_put_address(ip + 16, s->dst ? s->dst : "203.0.113.10", false);
	}
	n += frame_build_l4(s, protocol, ip + n);
	for (size_t i = 0; i < s->n_payload; i++)
		ip[n + i] = s->payload ? ((const uint8_t *)s->payload)[i] : (uint8_t)(i * 7 + 3);
	n += s->n_payload;
	frame_put16(s->is_v6 ? ip + 4 : ip + 2, (uint32_t)(s->is_v6 ? n - 40 : n));
	frame_fix_checksums(frame, 14);
	memset(ip + n, 0xee, s->n_padding);
	return 14 + n + s->n_padding;
}

// ---------------------------------------------------------------- mbufs
// One segment: `headroom`, n bytes, `tailroom`, and not a byte more.
static inline struct rte_mbuf *frame_mbuf_room(
	const void *bytes, size_t n, size_t headroom, size_t tailroom)
{
	struct rte_mbuf *mbuf = aligned_alloc(64, sizeof(*mbuf));
	uint8_t *block = malloc(headroom + n + tailroom ? headroom + n + tailroom : 1);
	if (mbuf == NULL || block == NULL)
		abort();
	memset(mbuf, 0, sizeof(*mbuf));
	memset(block, 0xa5, headroom);
	memcpy(block + headroom, bytes, n);
	memset(block + headroom + n, 0xa5, tailroom);
	mbuf->buf_addr = block;
	mbuf->buf_len = (uint16_t)(headroom + n + tailroom);
	mbuf->data_off = (uint16_t)headroom;
	mbuf->data_len = (uint16_t)n;
	mbuf->pkt_len = (uint32_t)n;
	mbuf->nb_segs = 1;
	mbuf->refcnt = 1;
	return mbuf;
}

static inline struct rte_mbuf *frame_mbuf(const void *bytes, size_t n)
{
	return frame_mbuf_room(bytes, n, 0, 0);
}

// Two segments: the first has `first` bytes.
static inline struct rte_mbuf *frame_mbuf_split(const void *bytes, size_t n, size_t first)
{
	struct rte_mbuf *mbuf = frame_mbuf(bytes, first);
	mbuf->next = frame_mbuf((const uint8_t *)bytes + first, n - first);
	mbuf->pkt_len = (uint32_t)n;
	mbuf->nb_segs = 2;
	return mbuf;
}

static inline void frame_mbuf_destroy(struct rte_mbuf *mbuf)
{
	while (mbuf) {
		struct rte_mbuf *next = mbuf->next;
		free(mbuf->buf_addr);
		free(mbuf);
		mbuf = next;
	}
}

static inline uint8_t *frame_bytes(const struct rte_mbuf *mbuf)
{
	return rte_pktmbuf_mtod(mbuf, uint8_t *);
}

// ---------------------------------------------------------------- random numbers with a seed
static inline uint64_t frame_random(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15ull;
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}
