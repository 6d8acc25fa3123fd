// SPDX-License-Identifier: BSD-3-Clause
// Packets and ICMP errors that cross families. What ought to come out is written field by field with recomputed checksums, and whole
// frames are compared, in blocks of exact length filled with a pattern: a byte that nobody wrote is seen.
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "frames_priv.h"

static uint8_t frame[FRAME_MAX], want[FRAME_MAX];

static const struct mac new_src_mac = { { 2, 0, 0, 0, 0, 0x22 } };
static const struct mac new_dst_mac = { { 2, 0, 0, 0, 0, 0x33 } };

static struct address address(const char *text)
{
	struct address a;
	assert_int_equal(address_parse(text, &a), 0);
	return a;
}

static struct packet parse(const struct rte_mbuf *mbuf)
{
	struct packet p;
	packet_parse(mbuf, NULL, &p);
	return p;
}

static void assert_bytes(const struct rte_mbuf *mbuf, const uint8_t *bytes, size_t n)
{
	size_t at = 0;
	assert_int_equal(mbuf->pkt_len, n);
	for (const struct rte_mbuf *s = mbuf; s; s = s->next) {
		assert_true(s->data_len > 0 && s->data_off + s->data_len <= s->buf_len);
		for (size_t i = 0; i < s->data_len; i++, at++) {
			if (frame_bytes(s)[i] != bytes[at])
				fail_msg("byte %zu is %02x, not %02x", at, frame_bytes(s)[i],
					bytes[at]);
		}
	}
	assert_int_equal(at, n);
}

// Writes the IP header of the other family for the packet whose IP header is at `ip`, then `n` bytes of its L4; `n_sent` is the
// length it tells. Returns bytes written.
static size_t expect_ip(uint8_t *out, const uint8_t *frame_in, size_t ip,
	const struct packet_nat *nat, size_t n, int ttl_less)
{
	struct frame_layout l = frame_layout_of(frame_in, ip);
	const uint8_t *at = frame_in + ip;
	size_t n_sent = l.end - l.l4;
	uint8_t protocol = l.protocol == 1 ? 58 : l.protocol == 58 ? 1 : l.protocol;
	if (l.is_v6) {
		out[0] = 0x45;
		out[1] = (uint8_t)(at[0] << 4 | at[1] >> 4);
		frame_put16(out + 2, (uint32_t)(20 + n_sent));
		frame_put32(out + 4, 0x4000);
		out[8] = (uint8_t)(at[7] - ttl_less);
		out[9] = protocol;
		memcpy(out + 12, nat->src.bytes + 12, 4);
		memcpy(out + 16, nat->dst.bytes + 12, 4);
		frame_put16(out + 10, frame_v4_checksum(out, 0));
	} else {
		frame_put32(out, 0x60000000u | (uint32_t)at[1] << 20);
		frame_put16(out + 4, (uint32_t)n_sent);
		out[6] = protocol;
		out[7] = (uint8_t)(at[8] - ttl_less);
		memcpy(out + 8, nat->src.bytes, 16);
		memcpy(out + 24, nat->dst.bytes, 16);
	}
	size_t head = l.is_v6 ? 20 : 40;
	memcpy(out + head, frame_in + l.l4, n);
	return head + n;
}

static size_t expect_cross(uint8_t *out, const struct packet_nat *nat)
{
	struct frame_layout l = frame_layout_of(frame, 14);
	memcpy(out, &nat->macs, 12);
	frame_put16(out + 12, l.is_v6 ? 0x0800 : 0x86dd);
	size_t n = 14 + expect_ip(out + 14, frame, 14, nat, l.end - l.l4, 1);
	size_t l4 = n - (l.end - l.l4);
	memcpy(out + l4, &nat->src_port, 2);
	memcpy(out + l4 + 2, &nat->dst_port, 2);
	if (l.protocol == NET_PROTO_UDP)
		frame_put16(out + l4 + 6, 1); // to be computed, always
	frame_fix_checksums(out, 14);
	return n;
}

static void random_bytes(uint64_t *seed, void *out, size_t n)
{
	uint8_t *at = out;
	for (size_t i = 0; i < n; i++)
		at[i] = (uint8_t)(frame_random(seed) >> 40);
}

// Often with words of 0 and 0xffff, where one's-complement sums have their corners.
static struct packet_nat random_nat(uint64_t *seed, bool is_v6)
{
	struct packet_nat nat = { .macs = packet_macs_make(&new_dst_mac, &new_src_mac) };
	uint16_t words[18];
	random_bytes(seed, words, sizeof(words));
	for (int i = 0; i < 18; i++) {
		if (frame_random(seed) % 4 == 0)
			words[i] = frame_random(seed) % 2 ? 0xffff : 0;
	}
	memcpy(&nat.src, words, 32);
	nat.src_port = words[16];
	nat.dst_port = words[17];
	if (!is_v6) {
		nat.src = address_from_v4(nat.src.words[3]);
		nat.dst = address_from_v4(nat.dst.words[3]);
	}
	return nat;
}

static const uint8_t options[] = { 0, 0, 1, 4, 0, 0, 0, 0 };
static const uint8_t atomic[] = { 0, 0, 0, 0, 0, 0, 0, 9 };
static const uint8_t both[] = { 44, 0, 1, 4, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 9 };

static size_t random_flow_frame(uint64_t *seed, struct frame_spec *s)
{
	static const uint8_t *const extensions[] = { options, atomic, both };
	static uint8_t payload[64];
	random_bytes(seed, payload, sizeof(payload));
	uint64_t draw = frame_random(seed);
	*s = (struct frame_spec){
		.is_v6 = draw & 1,
		.protocol = (draw & 0xc00000000000) == 0 ? NET_PROTO_SCTP
			    : draw & 2                   ? NET_PROTO_UDP
							 : NET_PROTO_TCP,
		.ttl = (uint8_t)(draw >> 8 | 1),
		.src_port = (uint16_t)(draw >> 16),
		.dst_port = (uint16_t)(draw >> 32),
		.udp_no_checksum = !(draw & 1) && (draw & 0x30) == 0x30,
		.v4_fragment = draw & 0x40 ? RTE_BE16(0x4000) : 0,
		.payload = payload,
		.n_payload = (uint16_t)((draw >> 48) % sizeof(payload)),
		.n_padding = draw & 0x80 ? (uint16_t)(draw >> 60) : 0,
	};
	if (s->is_v6 && (draw & 0x0c) == 0x0c) {
		size_t i = (draw >> 40) % 3;
		s->extensions = extensions[i];
		s->n_extension_bytes = i == 2 ? 16 : 8;
		s->first_extension = i == 1 ? 44 : 60;
	}
	size_t n = frame_build(s, frame);
	frame[15] = (uint8_t)(draw >> 20); // TOS, or half the traffic class and some label
	frame_fix_checksums(frame, 14);
	return n;
}

// ---------------------------------------------------------------- packets
static void test_cross_random(void **state)
{
	uint64_t seed = 7915;
	uint32_t n_made = 0, n_zero = 0;
	for (uint32_t i = 0; i < 120000; i++) {
		struct frame_spec s;
		size_t n = random_flow_frame(&seed, &s);
		struct packet_nat nat = random_nat(&seed, !s.is_v6);
		struct frame_layout l = frame_layout_of(frame, 14);
		size_t new_l4 = s.is_v6 ? 34 : 54;
		if (i % 8 == 0 && s.protocol == NET_PROTO_UDP && s.n_payload > 1) {
			// A payload word that makes the new checksum come out as 0.
			frame_put16(frame + l.l4 + 8, 0);
			expect_cross(want, &nat);
			frame_put16(frame + l.l4 + 8, frame_get16(want + new_l4 + 6));
			frame_fix_checksums(frame, 14);
		}
		size_t n_want = expect_cross(want, &nat);
		struct rte_mbuf *mbuf = frame_mbuf_room(frame, n, i & 1 ? 20 : 64, 0);
		struct packet p = parse(mbuf);
		assert_int_equal(p.kind, PACKET_FLOW);
		assert_true(packet_rewrite_cross(mbuf, &p, &nat));
		assert_bytes(mbuf, want, n_want);
		if (s.protocol == NET_PROTO_UDP) {
			n_made += s.udp_no_checksum;
			n_zero += frame_get16(want + new_l4 + 6) == 0xffff;
		}
		frame_mbuf_destroy(mbuf);
	}
	assert_true(n_made > 1000 && n_zero > 1000); // the corners were met
}

// There and back again: what is left of the packet, by the library alone.
static void test_cross_and_back(void **state)
{
	uint64_t seed = 99;
	for (uint32_t i = 0; i < 2000; i++) {
		struct frame_spec s;
		random_flow_frame(&seed, &s);
		s.n_extension_bytes = s.n_padding = s.udp_no_checksum = 0;
		s.ttl = 64;
		size_t n = frame_build(&s, frame);
		struct packet_nat nat = random_nat(&seed, !s.is_v6), back = { 0 };
		nat.src.bytes[0] |= s.is_v6 ? 0 : 0x20; // nothing that the parser refuses
		nat.dst.bytes[0] |= s.is_v6 ? 0 : 0x20;
		nat.src.bytes[0] &= s.is_v6 ? 0xff : 0x3f;
		if (s.is_v6)
			nat.src.bytes[12] = 10;
		struct rte_mbuf *mbuf = frame_mbuf_room(frame, n, 20, 0);
		struct packet p = parse(mbuf);
		back.src = p.src;
		back.dst = p.dst;
		back.src_port = p.src_port;
		back.dst_port = p.dst_port;
		assert_true(packet_rewrite_cross(mbuf, &p, &nat));
		struct packet q = parse(mbuf);
		assert_int_equal(q.kind, PACKET_FLOW);
		assert_int_equal(q.ttl, 63);
		assert_true(packet_rewrite_cross(mbuf, &q, &back));
		memset(frame, 0, 12);
		if (s.is_v6) {
			frame_put32(frame + 14, 0x62800000); // the label is gone
		} else {
			frame_put32(frame + 18, 0x4000);
		}
		frame[s.is_v6 ? 21 : 22] = 62;
		frame_fix_checksums(frame, 14);
		assert_bytes(mbuf, frame, n);
		frame_mbuf_destroy(mbuf);
	}
}

static const struct frame_spec kinds[] = {
	{ .n_payload = 33 },
	{ .tcp_flags = TCP_SYN, .tcp_option_bytes = 20 },
	{ .protocol = NET_PROTO_UDP, .n_payload = 9 },
	{ .protocol = NET_PROTO_UDP, .n_payload = 27, .udp_no_checksum = true, .n_padding = 5 },
	{ .n_padding = 6 },
	{ .protocol = NET_PROTO_SCTP, .n_payload = 40 },
	{ .is_v6 = true, .protocol = NET_PROTO_SCTP, .n_payload = 41, .n_padding = 1 },
	{ .is_v6 = true, .n_payload = 33 },
	{ .is_v6 = true, .protocol = NET_PROTO_UDP, .n_payload = 8, .n_padding = 3 },
	{ .is_v6 = true, .extensions = both, .n_extension_bytes = 16, .first_extension = 60 },
};

// Every size of head- and tailroom: it fits exactly when header and L4 do.
static void test_cross_room(void **state)
{
	uint64_t seed = 3;
	for (size_t k = 0; k < ARRAY_SIZE(kinds) * 26; k++) {
		const struct frame_spec *s = &kinds[k / 26];
		struct packet_nat nat = random_nat(&seed, !s->is_v6);
		size_t n = frame_build(s, frame), n_want = expect_cross(want, &nat);
		for (size_t head = k % 26, tail = 0; tail < 26; tail++) {
			struct rte_mbuf *mbuf = frame_mbuf_room(frame, n, head, tail);
			struct packet p = parse(mbuf);
			size_t grow = s->is_v6 ? 0 : 20;
			bool fits = head >= grow || n_want <= head + n + tail;
			assert_int_equal(packet_rewrite_cross(mbuf, &p, &nat), fits);
			assert_bytes(mbuf, fits ? want : frame, fits ? n_want : n);
			const uint8_t *block = mbuf->buf_addr;
			for (size_t i = 0; i < mbuf->data_off && i < head; i++)
				assert_int_equal(block[i], 0xa5);
			frame_mbuf_destroy(mbuf);
		}
	}
}

// Split at every byte: headers in the first segment or refused by the parser. A UDP checksum is made over all segments.
static void test_cross_segments(void **state)
{
	uint64_t seed = 4;
	for (size_t k = 0; k < ARRAY_SIZE(kinds); k++) {
		struct packet_nat nat = random_nat(&seed, !kinds[k].is_v6);
		size_t n = frame_build(&kinds[k], frame), n_want = expect_cross(want, &nat);
		for (size_t first = 1; first < n; first++) {
			struct rte_mbuf *mbuf = frame_mbuf_room(frame, first, 20, 0);
			mbuf->next = frame_mbuf(frame + first, n - first);
			mbuf->nb_segs = 2;
			mbuf->pkt_len = (uint32_t)n;
			struct packet p = parse(mbuf);
			if (p.kind != PACKET_BAD) {
				bool fits = first < n - kinds[k].n_padding;
				assert_int_equal(packet_rewrite_cross(mbuf, &p, &nat), fits);
				assert_bytes(mbuf, fits ? want : frame, fits ? n_want : n);
			} else {
				assert_int_equal(p.reason, DROP_SEGMENTED_HEADERS);
			}
			frame_mbuf_destroy(mbuf);
		}
	}
}

// ---------------------------------------------------------------- errors
// As in life: our SNAT address 192.0.2.1:3001 sent a packet to the backend 10.9.0.2:8080 for the client [2001:db8:c::7]:40000, and a router
// complains. Or the families are the other way round.
static void error_nats(bool to_v6, struct packet_nat *outer, struct packet_nat *inner)
{
	*inner = (struct packet_nat){
		.src = address(to_v6 ? "2001:db8:c::7" : "198.51.100.7"),
		.dst = address(to_v6 ? "2001:db8:1::10" : "203.0.113.10"),
		.src_port = RTE_BE16(40000),
		.dst_port = RTE_BE16(80),
	};
	*outer = (struct packet_nat){
		.src = inner->dst,
		.dst = inner->src,
		.macs = packet_macs_make(&new_dst_mac, &new_src_mac),
	};
}

static size_t build_error(
	bool is_v6, const struct frame_spec *quoted_spec, uint8_t type, uint8_t code, uint32_t word)
{
	uint8_t quoted[FRAME_MAX];
	struct frame_spec inner = *quoted_spec;
	inner.is_v6 = is_v6;
	inner.src = is_v6 ? "2001:db8:5::1" : "192.0.2.1";
	inner.dst = is_v6 ? "2001:db8:9::2" : "10.9.0.2";
	inner.src_port = 3001;
	inner.dst_port = 8080;
	size_t n = frame_build(&inner, quoted) - 14;
	struct frame_spec outer = {
		.is_v6 = is_v6,
		.protocol = is_v6 ? NET_PROTO_ICMPV6 : NET_PROTO_ICMP,
		.icmp_type = type,
		.icmp_code = code,
		.src = is_v6 ? "2001:db8:99::1" : "10.1.1.1",
		.dst = inner.src,
		.payload = quoted + 14,
		.n_payload = (uint16_t)n,
	};
	n = frame_build(&outer, frame);
	frame_put32(frame + (is_v6 ? 58 : 38), word);
	frame_fix_checksums(frame, 14);
	return n;
}

// Cuts the error that is in `frame` to n bytes, as if its router had quoted less.
static void cut_error(bool is_v6, size_t n)
{
	frame_put16(frame + (is_v6 ? 18 : 16), (uint32_t)(n - (is_v6 ? 54 : 14)));
	frame_fix_checksums(frame, 14);
}

// What the error in `frame` becomes with this type, code and word; n_kept bytes of quoted L4.
static size_t expect_error(uint8_t type, uint8_t code, uint32_t word, size_t n_kept)
{
	struct frame_layout l = frame_layout_of(frame, 14);
	struct packet_nat outer, inner;
	error_nats(!l.is_v6, &outer, &inner);
	size_t icmp = l.is_v6 ? 34 : 54, quoted = icmp + 8;
	memset(want, 0, icmp + 8);
	expect_ip(want + 14, frame, 14, &outer, 0, 1);
	memcpy(want, &outer.macs, 12);
	frame_put16(want + 12, l.is_v6 ? 0x0800 : 0x86dd);
	want[icmp] = type;
	want[icmp + 1] = code;
	frame_put32(want + icmp + 4, word);
	size_t n = quoted + expect_ip(want + quoted, frame, l.l4 + 8, &inner, n_kept, 0);
	frame_put16(want + (l.is_v6 ? 16 : 18), (uint32_t)(n - (l.is_v6 ? 14 : 54)));
	size_t l4 = n - n_kept;
	frame_put16(want + l4, 40000);
	frame_put16(want + l4 + 2, 80);
	// The quoted checksum as if all of the quoted packet were there.
	struct frame_layout q = frame_layout_of(frame, l.l4 + 8);
	static uint8_t whole[70000];
	expect_ip(whole, frame, l.l4 + 8, &inner, q.end - q.l4, 0);
	size_t whole_l4 = l.is_v6 ? 20 : 40;
	bool is_sctp = q.protocol == NET_PROTO_SCTP;
	size_t field = q.protocol == NET_PROTO_TCP ? 16
		       : is_sctp                   ? 8
						   : 6,
	       n_field = is_sctp ? 4 : 2;
	memcpy(whole + whole_l4, want + l4, 4);
	bool none = q.protocol == NET_PROTO_UDP && frame_get16(frame + q.l4 + 6) == 0;
	frame_fix_checksums(whole, 0);
	if (n_kept >= field + n_field && !none)
		memcpy(want + l4 + field, whole + whole_l4 + field, n_field);
	frame_fix_checksums(want, 14);
	return n;
}

struct mapping {
	uint8_t type, code;
	uint32_t word;
	uint8_t to_type, to_code; // to_type 0xff: dropped
	uint32_t to_word;
};
// RFC 7915 4.2 by the letter; and figure 3.
static const struct mapping to_v6[] = {
	{ 3, 0, 0, 1, 0, 0 },
	{ 3, 1, 0, 1, 0, 0 },
	{ 3, 2, 0, 4, 1, 6 },
	{ 3, 3, 0, 1, 4, 0 },
	{ 3, 4, 1400, 2, 0, 1420 },
	{ 3, 4, 0, 2, 0, 1280 },
	{ 3, 4, 68, 2, 0, 1280 },
	{ 3, 4, 1259, 2, 0, 1280 },
	{ 3, 4, 1260, 2, 0, 1280 },
	{ 3, 4, 1261, 2, 0, 1281 },
	{ 3, 4, 65535, 2, 0, 65555 },
	{ 3, 5, 0, 1, 0, 0 },
	{ 3, 6, 0, 1, 0, 0 },
	{ 3, 7, 0, 1, 0, 0 },
	{ 3, 8, 0, 1, 0, 0 },
	{ 3, 9, 0, 1, 1, 0 },
	{ 3, 10, 0, 1, 1, 0 },
	{ 3, 11, 0, 1, 0, 0 },
	{ 3, 12, 0, 1, 0, 0 },
	{ 3, 13, 0, 1, 1, 0 },
	{ 3, 14, 0, 0xff, 0, 0 },
	{ 3, 15, 0, 1, 1, 0 },
	{ 3, 16, 0, 0xff, 0, 0 },
	{ 3, 255, 0, 0xff, 0, 0 },
	{ 11, 0, 0, 3, 0, 0 },
	{ 11, 1, 0, 3, 1, 0 },
	{ 12, 1, 0, 0xff, 0, 0 },
	{ 12, 3, 0, 0xff, 0, 0 },
	{ 12, 0, 0u << 24, 4, 0, 0 },
	{ 12, 0, 1u << 24, 4, 0, 1 },
	{ 12, 0, 2u << 24, 4, 0, 4 },
	{ 12, 2, 3u << 24, 4, 0, 4 },
	{ 12, 0, 4u << 24, 0xff, 0, 0 },
	{ 12, 0, 7u << 24, 0xff, 0, 0 },
	{ 12, 0, 8u << 24, 4, 0, 7 },
	{ 12, 0, 9u << 24, 4, 0, 6 },
	{ 12, 0, 10u << 24, 0xff, 0, 0 },
	{ 12, 0, 11u << 24, 0xff, 0, 0 },
	{ 12, 0, 12u << 24, 4, 0, 8 },
	{ 12, 0, 15u << 24, 4, 0, 8 },
	{ 12, 2, 16u << 24, 4, 0, 24 },
	{ 12, 0, 19u << 24, 4, 0, 24 },
	{ 12, 0, 20u << 24, 0xff, 0, 0 },
	{ 12, 0, 255u << 24, 0xff, 0, 0 },
};
// RFC 7915 5.2 and figure 6.
static const struct mapping to_v4[] = {
	{ 1, 0, 0, 3, 1, 0 },
	{ 1, 1, 0, 3, 10, 0 },
	{ 1, 2, 0, 3, 1, 0 },
	{ 1, 3, 0, 3, 1, 0 },
	{ 1, 4, 0, 3, 3, 0 },
	{ 1, 5, 0, 0xff, 0, 0 },
	{ 1, 255, 0, 0xff, 0, 0 },
	{ 2, 0, 1400, 3, 4, 1380 },
	{ 2, 0, 0, 3, 4, 576 },
	{ 2, 0, 595, 3, 4, 576 },
	{ 2, 0, 596, 3, 4, 576 },
	{ 2, 0, 597, 3, 4, 577 },
	{ 2, 0, 1280, 3, 4, 1260 },
	{ 2, 0, 65554, 3, 4, 65534 },
	{ 2, 0, 65555, 3, 4, 65535 },
	{ 2, 0, 65556, 3, 4, 65535 },
	{ 2, 0, 0xffffffff, 3, 4, 65535 },
	{ 3, 0, 0, 11, 0, 0 },
	{ 3, 1, 0, 11, 1, 0 },
	{ 4, 1, 6, 3, 2, 0 },
	{ 4, 2, 40, 0xff, 0, 0 },
	{ 4, 0, 0, 12, 0, 0u << 24 },
	{ 4, 0, 1, 12, 0, 1u << 24 },
	{ 4, 0, 2, 0xff, 0, 0 },
	{ 4, 0, 3, 0xff, 0, 0 },
	{ 4, 0, 4, 12, 0, 2u << 24 },
	{ 4, 0, 5, 12, 0, 2u << 24 },
	{ 4, 0, 6, 12, 0, 9u << 24 },
	{ 4, 0, 7, 12, 0, 8u << 24 },
	{ 4, 0, 8, 12, 0, 12u << 24 },
	{ 4, 0, 23, 12, 0, 12u << 24 },
	{ 4, 0, 24, 12, 0, 16u << 24 },
	{ 4, 0, 39, 12, 0, 16u << 24 },
	{ 4, 0, 40, 0xff, 0, 0 },
	{ 4, 0, 0x01000000, 0xff, 0, 0 },
};

static const struct frame_spec quotes[] = {
	{ .n_payload = 12 },
	{ .tcp_flags = TCP_SYN, .tcp_option_bytes = 40, .ttl = 1 },
	{ .protocol = NET_PROTO_UDP, .n_payload = 5 },
	{ .protocol = NET_PROTO_UDP },
	{ .protocol = NET_PROTO_SCTP, .n_payload = 19 },
};

static void translate(bool is_v6, size_t n, const struct mapping *m, size_t n_kept)
{
	struct packet_nat outer, inner;
	error_nats(!is_v6, &outer, &inner);
	struct rte_mbuf *mbuf = frame_mbuf_room(frame, n, 40, 0);
	struct packet p = parse(mbuf), quoted;
	assert_int_equal(p.kind, PACKET_ICMP_ERROR);
	assert_true(packet_parse_quoted(mbuf, &p, &quoted));
	enum drop_reason got = packet_rewrite_icmp_error_cross(mbuf, &p, &quoted, &outer, &inner);
	if (m->to_type == 0xff) {
		assert_int_equal(got, DROP_ICMP_TYPE);
		assert_bytes(mbuf, frame, n);
	} else {
		assert_int_equal(got, DROP_NONE);
		size_t n_want = expect_error(m->to_type, m->to_code, m->to_word, n_kept);
		assert_bytes(mbuf, want, n_want);
		assert_true(frame_checksums_ok(want, 14));
	}
	frame_mbuf_destroy(mbuf);
}

static void test_error_types(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(to_v6) * ARRAY_SIZE(quotes); i++) {
		const struct mapping *m = &to_v6[i / ARRAY_SIZE(quotes)];
		size_t n = build_error(
			false, &quotes[i % ARRAY_SIZE(quotes)], m->type, m->code, m->word);
		translate(false, n, m, n - 62);
	}
	for (size_t i = 0; i < ARRAY_SIZE(to_v4) * ARRAY_SIZE(quotes); i++) {
		const struct mapping *m = &to_v4[i / ARRAY_SIZE(quotes)];
		size_t n = build_error(
			true, &quotes[i % ARRAY_SIZE(quotes)], m->type, m->code, m->word);
		translate(true, n, m, n - 102);
	}
	struct frame_spec none = {
		.protocol = NET_PROTO_UDP, .udp_no_checksum = true, .n_payload = 4
	};
	translate(false, build_error(false, &none, 3, 3, 0), &to_v6[3], 12);
}

// Less and less is quoted: translated down to 8 bytes of L4.
static void test_error_cut(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(quotes) * 2; i++) {
		bool is_v6 = i & 1;
		const struct mapping *m = is_v6 ? &to_v4[7] : &to_v6[4];
		size_t l4 = is_v6 ? 102 : 62;
		size_t whole = build_error(is_v6, &quotes[i / 2], m->type, m->code, m->word);
		for (size_t n = l4 + 8; n <= whole; n++) {
			build_error(is_v6, &quotes[i / 2], m->type, m->code, m->word);
			cut_error(is_v6, n);
			translate(is_v6, n, m, n - l4);
		}
		build_error(is_v6, &quotes[i / 2], m->type, m->code, m->word);
		cut_error(is_v6, l4 + 7);
		struct rte_mbuf *mbuf = frame_mbuf(frame, l4 + 7);
		struct packet p = parse(mbuf), quoted;
		assert_false(packet_parse_quoted(mbuf, &p, &quoted));
		frame_mbuf_destroy(mbuf);
	}
}

// Long quotes are cut to 576 and 1280 bytes of IP packet; the quoted length stays that of the whole packet.
static void test_error_long(void **state)
{
	for (uint16_t n_payload = 480; n_payload < 1400; n_payload += 1) {
		struct frame_spec q = { .n_payload = n_payload };
		size_t n = build_error(true, &q, 2, 0, 1400), n_l4 = n - 102;
		translate(true, n, &to_v4[7], n_l4 < 576 - 48 ? n_l4 : 576 - 48);
		n = build_error(false, &q, 3, 4, 1400);
		n_l4 = n - 62;
		translate(false, n, &to_v6[4], n_l4 < 1280 - 88 ? n_l4 : 1280 - 88);
	}
}

// Extensions behind the quote (RFC 4884) go.
static void test_error_extensions(void **state)
{
	struct frame_spec q = { .n_payload = 200 };
	struct mapping m = { 3, 1, 32u << 16, 1, 0, 0 }; // 32 words of quoted packet
	size_t n = build_error(false, &q, m.type, m.code, m.word);
	translate(false, n, &m, 128 - 20);
	m = (struct mapping){ 11, 0, 255u << 16, 3, 0, 0 }; // more than there is
	n = build_error(false, &q, m.type, m.code, m.word);
	translate(false, n, &m, n - 62);
	m = (struct mapping){ 3, 4, 6u << 16 | 1400, 2, 0,
		1420 }; // nonsense: less than the ports need
	n = build_error(false, &q, m.type, m.code, m.word);
	translate(false, n, &m, n - 62);
	m = (struct mapping){ 1, 0, 16u << 24, 3, 1, 0 }; // 16 of 8 bytes
	n = build_error(true, &q, m.type, m.code, m.word);
	translate(true, n, &m, 128 - 40);
	m = (struct mapping){ 3, 1, 7u << 16, 1, 0,
		0 }; // to the ports alone: what lay behind is not touched
	n = build_error(false, &q, m.type, m.code, m.word);
	translate(false, n, &m, 8);
	struct packet_nat outer, inner;
	struct packet quoted;
	error_nats(true, &outer, &inner);
	struct rte_mbuf *mbuf = frame_mbuf_room(frame, n, 40, 0);
	struct packet p = parse(mbuf);
	assert_true(packet_parse_quoted(mbuf, &p, &quoted));
	packet_rewrite_icmp_error_cross(mbuf, &p, &quoted, &outer, &inner);
	assert_memory_equal(frame_bytes(mbuf) + mbuf->data_len, frame + 70, n - 70);
	frame_mbuf_destroy(mbuf);
	m = (struct mapping){ 2, 0, 16u << 24, 3, 4, 65535 }; // an MTU, no length
	n = build_error(true, &q, m.type, m.code, m.word);
	translate(true, n, &m, n - 102);
}

// Room: 40 bytes more towards IPv6, or moved back; several segments are refused.
static void test_error_room(void **state)
{
	struct packet_nat outer, inner;
	struct packet quoted;
	error_nats(true, &outer, &inner);
	for (size_t head = 0; head <= 40; head += 8) {
		for (size_t tail = 0; tail <= 41; tail++) {
			size_t n = build_error(false, &quotes[0], 3, 3, 0);
			struct rte_mbuf *mbuf = frame_mbuf_room(frame, n, head, tail);
			struct packet p = parse(mbuf);
			assert_true(packet_parse_quoted(mbuf, &p, &quoted));
			bool fits = head + tail >= 40;
			assert_int_equal(
				packet_rewrite_icmp_error_cross(mbuf, &p, &quoted, &outer, &inner),
				fits ? DROP_NONE : DROP_NO_HEADROOM);
			size_t n_want = fits ? expect_error(1, 4, 0, n - 62) : n;
			assert_bytes(mbuf, fits ? want : frame, n_want);
			frame_mbuf_destroy(mbuf);
		}
	}
	size_t n = build_error(false, &quotes[0], 3, 3, 0), first = 14 + 20 + 8 + 20 + 20;
	struct rte_mbuf *mbuf = frame_mbuf_room(frame, first, 64, 64);
	mbuf->next = frame_mbuf(frame + first, n - first);
	mbuf->nb_segs = 2;
	mbuf->pkt_len = (uint32_t)n;
	struct packet p = parse(mbuf);
	assert_true(packet_parse_quoted(mbuf, &p, &quoted));
	assert_int_equal(packet_rewrite_icmp_error_cross(mbuf, &p, &quoted, &outer, &inner),
		DROP_NO_HEADROOM);
	assert_bytes(mbuf, frame, n);
	frame_mbuf_destroy(packet_detach_tail(mbuf));
	assert_int_equal(
		packet_rewrite_icmp_error_cross(mbuf, &p, &quoted, &outer, &inner), DROP_NONE);
	assert_bytes(mbuf, want, expect_error(1, 4, 0, 20));
	frame_mbuf_destroy(mbuf);
}

// Quoted extension headers are gone on the other side; an outer TTL of 0 stays 0.
static void test_error_quoted_extensions(void **state)
{
	struct frame_spec q = {
		.extensions = both, .n_extension_bytes = 16, .first_extension = 60, .n_payload = 3
	};
	size_t n = build_error(true, &q, 1, 4, 0);
	translate(true, n, &to_v4[4], n - 118);
	n = build_error(false, &quotes[0], 3, 3, 0);
	frame[22] = 1;
	frame_fix_checksums(frame, 14);
	translate(false, n, &to_v6[3], n - 62);
	frame[22] = 0;
	frame_fix_checksums(frame, 14);
	struct packet_nat outer, inner;
	error_nats(true, &outer, &inner);
	struct rte_mbuf *mbuf = frame_mbuf_room(frame, n, 40, 0);
	struct packet p = parse(mbuf), quoted;
	assert_true(packet_parse_quoted(mbuf, &p, &quoted));
	packet_rewrite_icmp_error_cross(mbuf, &p, &quoted, &outer, &inner);
	assert_int_equal(frame_bytes(mbuf)[21], 0);
	frame_mbuf_destroy(mbuf);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_cross_random),
		cmocka_unit_test(test_cross_and_back),
		cmocka_unit_test(test_cross_room),
		cmocka_unit_test(test_cross_segments),
		cmocka_unit_test(test_error_types),
		cmocka_unit_test(test_error_cut),
		cmocka_unit_test(test_error_long),
		cmocka_unit_test(test_error_extensions),
		cmocka_unit_test(test_error_room),
		cmocka_unit_test(test_error_quoted_extensions),
	};
	return cmocka_run_group_tests_name("packet_cross", tests, NULL, NULL);
}
