// SPDX-License-Identifier: BSD-3-Clause
// Packets that change: rewrites, ICMP errors, answers, on mbufs of exact length. The oracle builds what ought to come out
// with recomputed checksums and compares whole frames, so a byte too many that changed is seen too.
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

static void assert_frame(const struct rte_mbuf *mbuf, const uint8_t *bytes, size_t n)
{
	assert_int_equal(mbuf->pkt_len, n);
	assert_int_equal(mbuf->data_len, n);
	for (size_t i = 0; i < n; i++) {
		if (frame_bytes(mbuf)[i] != bytes[i])
			fail_msg("byte %zu is %02x, not %02x", i, frame_bytes(mbuf)[i], bytes[i]);
	}
}

// ---------------------------------------------------------------- fullnat
static void random_bytes(uint64_t *seed, void *out, size_t n)
{
	uint8_t *at = out;
	for (size_t i = 0; i < n; i++)
		at[i] = (uint8_t)(frame_random(seed) >> 40);
}

// Addresses and ports of a NAT; often with words of 0 and 0xffff, where one's-complement sums have their corners.
static struct packet_nat random_nat(uint64_t *seed, bool is_v6)
{
	struct packet_nat nat = { .macs = packet_macs_make(&new_dst_mac, &new_src_mac) };
	random_bytes(seed, &nat.src, 32);
	uint16_t words[18];
	memcpy(words, &nat.src, 36);
	random_bytes(seed, words + 16, 4);
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

// What the frame ought to become: written field by field, checksums recomputed.
static void expect_fullnat(uint8_t *out, bool is_v6, const struct packet_nat *nat)
{
	memcpy(out, &nat->macs, 12);
	out[is_v6 ? 21 : 22]--;
	memcpy(out + (is_v6 ? 22 : 26), nat->src.bytes + (is_v6 ? 0 : 12), is_v6 ? 16 : 4);
	memcpy(out + (is_v6 ? 38 : 30), nat->dst.bytes + (is_v6 ? 0 : 12), is_v6 ? 16 : 4);
	size_t l4 = frame_layout_of(out, 14).l4;
	memcpy(out + l4, &nat->src_port, 2);
	memcpy(out + l4 + 2, &nat->dst_port, 2);
	frame_fix_checksums(out, 14);
}

static size_t random_flow_frame(uint64_t *seed, struct frame_spec *s)
{
	static const uint8_t options[] = { 6, 0, 1, 4, 0, 0, 0, 0 };
	uint8_t payload[64];
	random_bytes(seed, payload, sizeof(payload));
	uint64_t draw = frame_random(seed);
	*s = (struct frame_spec){
		.is_v6 = draw & 1,
		.protocol = draw & 2 ? NET_PROTO_UDP : NET_PROTO_TCP,
		.ttl = (uint8_t)(draw >> 8 | 1),
		.src_port = (uint16_t)(draw >> 16),
		.dst_port = (uint16_t)(draw >> 32),
		.udp_no_checksum = !(draw & 1) && (draw & 0x70) == 0x70,
		.payload = payload,
		.n_payload = (uint16_t)((draw >> 48) % sizeof(payload)),
		.n_padding = (uint16_t)(draw >> 60),
	};
	if ((draw & 0x1c) == 0x1c) {
		s->extensions = options;
		s->n_extension_bytes = s->is_v6 ? 8 : 0;
		s->first_extension = 60;
	}
	return frame_build(s, frame);
}

// Sets a payload word of a UDP frame so that its checksum after the rewrite (nat) or before (NULL) computes to 0.
static void steer_udp_checksum(size_t n, bool is_v6, const struct packet_nat *nat)
{
	struct frame_layout l = frame_layout_of(frame, 14);
	if (l.protocol != NET_PROTO_UDP || l.end < l.l4 + 10 || frame_get16(frame + l.l4 + 6) == 0)
		return;
	frame_put16(frame + l.l4 + 8, 0);
	frame_fix_checksums(frame, 14);
	memcpy(want, frame, n);
	if (nat)
		expect_fullnat(want, is_v6, nat);
	frame_put16(frame + l.l4 + 8, frame_get16(want + l.l4 + 6));
	frame_fix_checksums(frame, 14);
}

static void test_fullnat_random(void **state)
{
	uint64_t seed = 20260204;
	uint32_t n_none = 0, n_before = 0, n_after = 0, n_flows = 0;
	printf("packet: seed %lu\n", (unsigned long)seed);
	for (int i = 0; i < 120000; i++) {
		struct frame_spec s;
		size_t n = random_flow_frame(&seed, &s);
		struct packet_nat nat = random_nat(&seed, s.is_v6);
		if (i % 8 < 2)
			steer_udp_checksum(n, s.is_v6, i % 8 ? &nat : NULL);
		struct rte_mbuf *mbuf = frame_mbuf(frame, n);
		struct packet p = parse(mbuf);
		assert_int_equal(p.kind, PACKET_FLOW);
		memcpy(want, frame, n);
		expect_fullnat(want, s.is_v6, &nat);
		packet_rewrite_fullnat(mbuf, &p, &nat);
		assert_frame(mbuf, want, n);
		n_flows++;
		if (s.protocol == NET_PROTO_UDP) {
			n_none += frame_get16(want + p.l4_offset + 6) == 0;
			n_before += frame_get16(frame + p.l4_offset + 6) == 0xffff;
			n_after += frame_get16(want + p.l4_offset + 6) == 0xffff;
		}
		frame_mbuf_destroy(mbuf);
	}
	assert_true(n_flows >= 100000);
	assert_true(n_none > 1000 && n_before > 1000 && n_after > 1000); // the corners were met
}

// The payload of a forwarded packet may lie in another segment.
static void test_fullnat_segments(void **state)
{
	uint64_t seed = 5;
	for (int i = 0; i < 200; i++) {
		struct frame_spec s;
		size_t n = random_flow_frame(&seed, &s);
		struct packet_nat nat = random_nat(&seed, s.is_v6);
		size_t first = frame_layout_of(frame, 14).l4 + 20;
		if (first >= n)
			continue;
		struct rte_mbuf *mbuf = frame_mbuf_split(frame, n, first);
		struct packet p = parse(mbuf);
		assert_int_equal(p.kind, PACKET_FLOW);
		memcpy(want, frame, n);
		expect_fullnat(want, s.is_v6, &nat);
		packet_rewrite_fullnat(mbuf, &p, &nat);
		assert_memory_equal(frame_bytes(mbuf), want, first);
		assert_memory_equal(frame_bytes(mbuf->next), want + first, n - first);
		frame_mbuf_destroy(mbuf);
	}
}

// ---------------------------------------------------------------- ICMP errors
// As in life: our SNAT address 192.0.2.1:3001 sent a packet to the backend 10.9.0.2:8080, and a router on the way
// complains. The client 198.51.100.7:40000 shall see its own packet to the VIP 203.0.113.10:80.
struct error_case {
	bool is_v6;
	uint8_t protocol;
	uint16_t n_quoted_payload;
	bool no_checksum;
};
static const struct error_case error_cases[] = {
	{ false, NET_PROTO_TCP, 0 },
	{ false, NET_PROTO_UDP, 5 },
	{ false, NET_PROTO_UDP, 6, true },
	{ true, NET_PROTO_TCP, 32 },
	{ true, NET_PROTO_UDP, 11 },
};

static size_t build_quoted(const struct error_case *c, bool rewritten, uint8_t *out)
{
	struct frame_spec inner = {
		.is_v6 = c->is_v6,
		.protocol = c->protocol,
		.src = c->is_v6 ? "2001:db8:5::1" : "192.0.2.1",
		.dst = c->is_v6 ? "2001:db8:9::2" : "10.9.0.2",
		.src_port = 3001,
		.dst_port = 8080,
		.udp_no_checksum = c->no_checksum,
		.n_payload = c->n_quoted_payload,
	};
	if (rewritten) {
		inner.src = inner.dst = NULL; // client and VIP: the defaults
		inner.src_port = inner.dst_port = 0;
	}
	return frame_build(&inner, out);
}

static size_t build_error(const struct error_case *c, bool rewritten, uint8_t *out)
{
	uint8_t quoted[FRAME_MAX];
	size_t n_quoted = build_quoted(c, rewritten, quoted) - 14;
	struct frame_spec outer = {
		.is_v6 = c->is_v6,
		.protocol = c->is_v6 ? NET_PROTO_ICMPV6 : NET_PROTO_ICMP,
		.icmp_type = c->is_v6 ? 2 : 3,
		.icmp_code = c->is_v6 ? 0 : 4,
		.src = c->is_v6 ? "2001:db8:99::1" : "10.1.1.1",
		.dst = c->is_v6 ? "2001:db8:5::1" : "192.0.2.1",
		.ttl = rewritten ? 60 : 61,
		.payload = quoted + 14,
		.n_payload = (uint16_t)n_quoted,
	};
	if (rewritten) {
		outer.src = c->is_v6 ? "2001:db8:1::10" : "203.0.113.10";
		outer.dst = c->is_v6 ? "2001:db8:c::7" : "198.51.100.7";
	}
	return frame_build(&outer, out);
}

static void error_nats(bool is_v6, struct packet_nat *outer, struct packet_nat *inner)
{
	*inner = (struct packet_nat){
		.src = address(is_v6 ? "2001:db8:c::7" : "198.51.100.7"),
		.dst = address(is_v6 ? "2001:db8:1::10" : "203.0.113.10"),
		.src_port = RTE_BE16(40000),
		.dst_port = RTE_BE16(80),
	};
	*outer = (struct packet_nat){
		.src = inner->dst,
		.dst = inner->src,
		.macs = packet_macs_make(&new_dst_mac, &new_src_mac),
	};
}

static void test_icmp_error(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(error_cases); i++) {
		const struct error_case *c = &error_cases[i];
		struct packet_nat outer, inner;
		error_nats(c->is_v6, &outer, &inner);
		size_t n = build_error(c, false, frame);
		struct rte_mbuf *mbuf = frame_mbuf(frame, n);
		struct packet p = parse(mbuf), quoted;
		assert_int_equal(p.kind, PACKET_ICMP_ERROR);
		assert_true(packet_parse_quoted(mbuf, &p, &quoted));
		assert_int_equal(quoted.protocol, c->protocol);
		assert_int_equal(quoted.is_v6, c->is_v6);
		struct address backend = address(c->is_v6 ? "2001:db8:9::2" : "10.9.0.2");
		assert_true(address_equal(&quoted.src, &p.dst));
		assert_true(address_equal(&quoted.dst, &backend));
		assert_int_equal(quoted.src_port, RTE_BE16(3001));
		assert_int_equal(quoted.dst_port, RTE_BE16(8080));
		packet_rewrite_icmp_error(mbuf, &p, &quoted, &outer, &inner);
		build_error(c, true, want);
		memcpy(want, &new_dst_mac, 6);
		memcpy(want + 6, &new_src_mac, 6);
		assert_frame(mbuf, want, n);
		frame_mbuf_destroy(mbuf);
	}
}

// An error that quotes less and less: true or false, checksums right where they are, no read beyond the frame.
static void test_icmp_error_cut(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(error_cases); i++) {
		const struct error_case *c = &error_cases[i];
		struct packet_nat outer, inner;
		error_nats(c->is_v6, &outer, &inner);
		size_t whole = build_error(c, false, frame);
		size_t icmp = c->is_v6 ? 54 : 34, quoted_ip = icmp + 8;
		size_t needed = quoted_ip + (c->is_v6 ? 40 : 20) + 8;
		for (size_t n = quoted_ip; n <= whole; n++) {
			build_error(c, false, frame);
			frame_put16(
				frame + (c->is_v6 ? 18 : 16), (uint32_t)(n - (c->is_v6 ? 54 : 14)));
			frame_fix_checksums(frame, 14);
			struct rte_mbuf *mbuf = frame_mbuf(frame, n);
			struct packet p = parse(mbuf), quoted;
			assert_int_equal(p.kind, PACKET_ICMP_ERROR);
			assert_true(packet_l4_checksum_ok(mbuf, &p));
			assert_int_equal(packet_parse_quoted(mbuf, &p, &quoted), n >= needed);
			if (n >= needed) {
				packet_rewrite_icmp_error(mbuf, &p, &quoted, &outer, &inner);
				assert_true(frame_checksums_ok(frame_bytes(mbuf), 14));
				build_error(c, true, want);
				// Half a TCP checksum is left alone.
				bool is_half = c->protocol == NET_PROTO_TCP && n == needed + 9;
				assert_memory_equal(frame_bytes(mbuf) + quoted_ip, want + quoted_ip,
					n - quoted_ip - is_half);
			}
			frame_mbuf_destroy(mbuf);
		}
	}
}

// Extension headers in the quote: walked, within bounds, at most 8.
static void test_icmp_error_extensions(void **state)
{
	uint8_t headers[9 * 8], quoted_frame[FRAME_MAX];
	for (size_t i = 0; i < 9; i++)
		memcpy(headers + i * 8, (uint8_t[]){ 60, 0, 1, 4, 0, 0, 0, 0 }, 8);
	for (uint16_t n_headers = 0; n_headers <= 9; n_headers++) {
		struct frame_spec inner = { .is_v6 = true,
			.src = "2001:db8:5::1",
			.extensions = headers,
			.n_extension_bytes = (uint16_t)(n_headers * 8),
			.first_extension = 60 };
		size_t n_inner = frame_build(&inner, quoted_frame) - 14;
		for (size_t left = 40; left <= n_inner; left++) {
			struct frame_spec outer = { .is_v6 = true,
				.protocol = NET_PROTO_ICMPV6,
				.icmp_type = 3,
				.src = "2001:db8:99::1",
				.dst = "2001:db8:5::1",
				.payload = quoted_frame + 14,
				.n_payload = (uint16_t)left };
			struct rte_mbuf *mbuf = frame_mbuf(frame, frame_build(&outer, frame));
			struct packet p = parse(mbuf), quoted;
			assert_int_equal(packet_parse_quoted(mbuf, &p, &quoted),
				n_headers <= 8 && left >= 48u + n_headers * 8);
			frame_mbuf_destroy(mbuf);
		}
	}
	// A later fragment of ours has no ports; the first one has.
	for (uint8_t offset = 0; offset < 2; offset++) {
		uint8_t fragment[] = { 6, 0, 0, (uint8_t)(offset << 3 | 1), 0, 0, 0, 1 };
		struct frame_spec inner = { .is_v6 = true,
			.src = "2001:db8:5::1",
			.extensions = fragment,
			.n_extension_bytes = 8,
			.first_extension = 44 };
		size_t n_inner = frame_build(&inner, quoted_frame) - 14;
		struct frame_spec outer = { .is_v6 = true,
			.protocol = NET_PROTO_ICMPV6,
			.icmp_type = 2,
			.dst = "2001:db8:5::1",
			.payload = quoted_frame + 14,
			.n_payload = (uint16_t)n_inner };
		struct rte_mbuf *mbuf = frame_mbuf(frame, frame_build(&outer, frame));
		struct packet p = parse(mbuf), quoted;
		assert_int_equal(packet_parse_quoted(mbuf, &p, &quoted), offset == 0);
		frame_mbuf_destroy(mbuf);
	}
}

static void test_icmp_error_implausible(void **state)
{
	// Offsets into the quoted IP header of the IPv4 and IPv6 TCP case, and values that make it no packet of ours.
	static const struct {
		uint8_t case_idx, at, value;
	} edits[] = {
		{ 0, 0, 0x46 },
		{ 0, 0, 0x65 },
		{ 0, 0, 0x44 },
		{ 0, 9, 1 },
		{ 0, 9, 47 },
		{ 0, 7, 1 },
		{ 0, 6, 0x1f },
		{ 0, 15, 2 },
		{ 0, 12, 191 },
		{ 3, 0, 0x40 },
		{ 3, 6, 58 },
		{ 3, 6, 59 },
		{ 3, 23, 2 },
		{ 3, 6, 43 },
	};
	for (size_t i = 0; i < ARRAY_SIZE(edits); i++) {
		const struct error_case *c = &error_cases[edits[i].case_idx];
		size_t n = build_error(c, false, frame);
		frame[(c->is_v6 ? 62 : 42) + edits[i].at] = edits[i].value;
		frame_fix_checksums(frame, 14);
		struct rte_mbuf *mbuf = frame_mbuf(frame, n);
		struct packet p = parse(mbuf), quoted;
		assert_int_equal(p.kind, PACKET_ICMP_ERROR);
		assert_false(packet_parse_quoted(mbuf, &p, &quoted));
		frame_mbuf_destroy(mbuf);
	}
}

// ---------------------------------------------------------------- answers
static void swap_bytes(uint8_t *a, uint8_t *b, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		uint8_t was = a[i];
		a[i] = b[i];
		b[i] = was;
	}
}

static void test_echo(void **state)
{
	static const uint8_t options[] = { 60, 0, 1, 4, 0, 0, 0, 0, 0, 1, 1, 12, 0, 0, 0, 0, 0, 0,
		0, 0, 0, 0, 0, 0 };
	for (int i = 0; i < 5 * 40; i++) {
		struct frame_spec s = { .is_v6 = i % 5 > 1,
			.protocol = i % 5 > 1 ? NET_PROTO_ICMPV6 : NET_PROTO_ICMP,
			.icmp_type = i % 5 > 1 ? 128 : 8,
			.src_port = 4711,
			.ttl = (uint8_t)(i < 5 ? 1 : i + 1),
			.n_payload = (uint16_t)(i / 5 * 37) };
		struct frame_spec reply = s;
		s.n_padding = i % 5 == 1 || i % 5 == 3 ? 7 : 0;
		if (i % 5 == 4) {
			s.extensions = options;
			s.n_extension_bytes = sizeof(options);
		}
		reply.icmp_type = s.is_v6 ? 129 : 0;
		reply.ttl = 64;
		size_t n_want = frame_build(&reply, want);
		swap_bytes(want, want + 6, 6);
		swap_bytes(
			want + (s.is_v6 ? 22 : 26), want + (s.is_v6 ? 38 : 30), s.is_v6 ? 16 : 4);
		struct rte_mbuf *mbuf = frame_mbuf(frame, frame_build(&s, frame));
		struct packet p = parse(mbuf);
		assert_int_equal(p.kind, PACKET_ECHO);
		assert_true(packet_answer_echo(mbuf, &p));
		assert_frame(mbuf, want, n_want);
		frame_mbuf_destroy(mbuf);
	}
}

// Nothing but zeros but for the type: the corner where an incremental checksum is wrong. And its neighbour, a checksum
// that is 0 by right.
static void test_echo_zeros(void **state)
{
	for (uint16_t last = 0; last < 2; last++) {
		uint8_t zeros[40] = { [38] = last ? 0xff : 0, [39] = last ? 0xff : 0 };
		struct frame_spec s = { .protocol = NET_PROTO_ICMP,
			.icmp_type = 8,
			.src_port = 0,
			.payload = zeros,
			.n_payload = sizeof(zeros) };
		size_t n = frame_build(&s, frame);
		struct rte_mbuf *mbuf = frame_mbuf(frame, n);
		struct packet p = parse(mbuf);
		assert_true(packet_answer_echo(mbuf, &p));
		assert_true(frame_checksums_ok(frame_bytes(mbuf), 14));
		assert_int_equal(frame_get16(frame_bytes(mbuf) + 36), last ? 0 : 0xffff);
		frame_mbuf_destroy(mbuf);
	}
}

static void test_echo_segments(void **state)
{
	size_t n = frame_build(
		&(struct frame_spec){
			.protocol = NET_PROTO_ICMP, .icmp_type = 8, .n_payload = 1000 },
		frame);
	struct rte_mbuf *mbuf = frame_mbuf_split(frame, n, 301);
	struct packet p = parse(mbuf);
	assert_true(packet_answer_echo(mbuf, &p));
	memcpy(want, frame_bytes(mbuf), 301);
	memcpy(want + 301, frame_bytes(mbuf->next), n - 301);
	assert_int_equal(mbuf->pkt_len, n);
	assert_true(frame_checksums_ok(want, 14));
	assert_int_equal(want[34], 0);
	frame_mbuf_destroy(mbuf);
}

struct reset_case {
	uint8_t flags;
	uint16_t n_payload;
	uint8_t option_bytes;
	uint8_t want_flags; // 0: no answer
	uint32_t want_sequence;
	uint32_t want_acknowledgement;
};
// SEG.SEQ = 1000, SEG.ACK = 5000.
static const struct reset_case reset_cases[] = {
	{ TCP_SYN, 0, 20, TCP_RST | TCP_ACK, 0, 1001 },
	{ TCP_SYN, 10, 20, TCP_RST | TCP_ACK, 0, 1011 },
	{ TCP_FIN, 0, 0, TCP_RST | TCP_ACK, 0, 1001 },
	{ TCP_FIN | TCP_PSH, 7, 12, TCP_RST | TCP_ACK, 0, 1008 },
	{ TCP_URG, 3, 0, TCP_RST | TCP_ACK, 0, 1003 },
	{ TCP_ACK, 0, 0, TCP_RST, 5000, 0 },
	{ TCP_ACK | TCP_PSH, 100, 12, TCP_RST, 5000, 0 },
	{ TCP_SYN | TCP_ACK, 0, 20, TCP_RST, 5000, 0 },
	{ TCP_FIN | TCP_ACK, 0, 0, TCP_RST, 5000, 0 },
	{ TCP_RST, 0, 0, 0 },
	{ TCP_RST | TCP_ACK, 0, 0, 0 },
};

// An answer's frame, made the slow way.
static size_t build_reset(bool is_v6, const struct reset_case *c)
{
	struct frame_spec s = { .is_v6 = is_v6,
		.src = is_v6 ? "2001:db8:1::10" : "203.0.113.10",
		.dst = is_v6 ? "2001:db8:c::7" : "198.51.100.7",
		.src_port = 80,
		.dst_port = 40000,
		.ttl = 64,
		.tcp_flags = c->want_flags,
		.sequence = c->want_sequence,
		.acknowledgement = c->want_acknowledgement,
		.v4_fragment = RTE_BE16(0x4000) };
	size_t n = frame_build(&s, want);
	swap_bytes(want, want + 6, 6);
	if (is_v6) {
		frame_put32(want + 14, 0x60000000);
	} else {
		want[15] = 0;
		frame_put16(want + 18, 0);
	}
	frame_put16(want + frame_layout_of(want, 14).l4 + 14, 0); // window
	frame_fix_checksums(want, 14);
	return n;
}

static void test_reset(void **state)
{
	static const uint8_t options[] = { 0, 0, 1, 4, 0, 0, 0, 0 };
	for (size_t i = 0; i < ARRAY_SIZE(reset_cases) * 6; i++) {
		const struct reset_case *c = &reset_cases[i / 6];
		struct frame_spec s = { .is_v6 = i % 2,
			.tcp_flags = c->flags,
			.sequence = 1000,
			.acknowledgement = 5000,
			.tcp_option_bytes = c->option_bytes,
			.n_payload = c->n_payload,
			.n_padding = i % 6 > 3 ? 6 : 0 };
		if (i % 6 == 3) {
			s.extensions = options;
			s.n_extension_bytes = 8;
			s.first_extension = 60;
		}
		size_t n = frame_build(&s, frame);
		struct rte_mbuf *mbuf = frame_mbuf(frame, n);
		struct packet p = parse(mbuf);
		assert_int_equal(p.kind, PACKET_FLOW);
		assert_int_equal(packet_answer_reset(mbuf, &p), c->want_flags != 0);
		if (c->want_flags != 0)
			assert_frame(mbuf, want, build_reset(s.is_v6, c));
		else
			assert_frame(mbuf, frame, n);
		frame_mbuf_destroy(mbuf);
	}
}

static const struct {
	uint8_t type4, code4, type6, code6;
} error_types[] = {
	[PACKET_PORT_UNREACHABLE] = { 3, 3, 1, 4 },
	[PACKET_TIME_EXCEEDED] = { 11, 0, 3, 0 },
	[PACKET_TOO_BIG] = { 3, 4, 2, 0 },
};

static size_t build_error_answer(const struct frame_spec *s, enum packet_error error)
{
	uint8_t invoking[FRAME_MAX];
	struct frame_spec bare = *s;
	bare.n_padding = 0;
	size_t n_quoted = frame_build(&bare, invoking) - 14,
	       limit = s->is_v6 ? 1280 - 48 : 576 - 28;
	struct frame_spec a = { .is_v6 = s->is_v6,
		.protocol = s->is_v6 ? NET_PROTO_ICMPV6 : NET_PROTO_ICMP,
		.icmp_type = s->is_v6 ? error_types[error].type6 : error_types[error].type4,
		.icmp_code = s->is_v6 ? error_types[error].code6 : error_types[error].code4,
		.src = s->is_v6 ? "2001:db8::99" : "203.0.113.99",
		.dst = s->is_v6 ? "2001:db8:c::7" : "198.51.100.7",
		.ttl = 64,
		.v4_fragment = RTE_BE16(0x4000),
		.payload = invoking + 14,
		.n_payload = (uint16_t)(n_quoted < limit ? n_quoted : limit) };
	size_t n = frame_build(&a, want);
	swap_bytes(want, want + 6, 6);
	if (s->is_v6) {
		frame_put32(want + 14, 0x60000000);
	} else {
		want[15] = 0;
		frame_put16(want + 18, 0);
	}
	if (error == PACKET_TOO_BIG)
		frame_put16(want + frame_layout_of(want, 14).l4 + 6, 1400);
	frame_fix_checksums(want, 14);
	return n;
}

// Every error, size and way to find room; and one byte of room too few.
static void test_error(void **state)
{
	static const uint16_t payloads[] = { 0, 1, 8, 9, 500, 519, 520, 521, 548, 1191, 1192, 1193,
		1460 };
	for (size_t i = 0; i < ARRAY_SIZE(payloads) * 3 * 2 * 4; i++) {
		enum packet_error error = (enum packet_error)(i % 3);
		struct frame_spec s = { .is_v6 = i / 3 % 2,
			.protocol = i % 2 ? NET_PROTO_TCP : NET_PROTO_UDP,
			.n_payload = payloads[i / 24],
			.n_padding = i % 2 ? 0 : 4 };
		size_t n_want = build_error_answer(&s, error), grow = s.is_v6 ? 48 : 28;
		size_t n = frame_build(&s, frame), way = i / 6 % 4;
		size_t missing = n_want > n ? n_want - n : 0; // what a move back needs
		struct rte_mbuf *mbuf = frame_mbuf_room(frame, n,
			way == 0   ? grow
			: way == 1 ? 128
			: way == 2 ? 0
				   : grow - 1,
			way == 2                  ? missing
			: way == 3 && missing > 0 ? missing - 1
						  : 0);
		struct packet p = parse(mbuf);
		struct address from = address(s.is_v6 ? "2001:db8::99" : "203.0.113.99");
		bool fits = way != 3 || missing == 0;
		assert_int_equal(packet_answer_error(mbuf, &p, error, &from, 1400), fits);
		if (fits)
			assert_frame(mbuf, want, n_want);
		else
			assert_frame(mbuf, frame, n);
		frame_mbuf_destroy(mbuf);
	}
}

static bool error_is_answered(const struct frame_spec *s)
{
	size_t n = frame_build(s, frame);
	struct rte_mbuf *mbuf = frame_mbuf_room(frame, n, 128, 0);
	struct packet p = parse(mbuf);
	struct address from = address(s->is_v6 ? "2001:db8::99" : "203.0.113.99");
	bool answered = packet_answer_error(mbuf, &p, PACKET_TIME_EXCEEDED, &from, 0);
	if (!answered)
		assert_frame(mbuf, frame, n);
	else
		assert_true(frame_checksums_ok(frame_bytes(mbuf), 14));
	frame_mbuf_destroy(mbuf);
	return answered;
}

static void test_error_refused(void **state)
{
	static const uint8_t first[] = { 0, 0, 0, 1, 0, 0, 0, 9 },
			     later[] = { 0, 0, 0, 9, 0, 0, 0, 9 };
	static const struct {
		struct frame_spec spec;
		bool answered;
	} cases[] = {
		{ { .n_payload = 1 }, true },
		{ { .protocol = 47, .n_payload = 9 }, true },
		{ { .protocol = NET_PROTO_ICMP, .icmp_type = 8 }, true },
		{ { .protocol = NET_PROTO_ICMP, .icmp_type = 3, .n_payload = 28 }, false },
		{ { .protocol = NET_PROTO_ICMP, .icmp_type = 5, .n_payload = 28 }, false },
		{ { .protocol = NET_PROTO_ICMP, .icmp_type = 0 }, false },
		{ { .dst = "224.0.0.9" }, false },
		{ { .dst = "255.255.255.255" }, false },
		{ { .src = "127.0.0.1" }, false },
		{ { .src = "240.0.0.1" }, false },
		{ { .v4_fragment = RTE_BE16(0x2000), .n_payload = 68 }, true },
		{ { .v4_fragment = RTE_BE16(0x2003), .n_payload = 68 }, false },
		{ { .v4_fragment = RTE_BE16(0x0100), .n_payload = 64 }, false },
		{ { .protocol = NET_PROTO_ICMP,
			  .icmp_type = 3,
			  .v4_fragment = RTE_BE16(0x2000),
			  .n_payload = 64 },
			false },
		{ { .is_v6 = true, .n_payload = 1 }, true },
		{ { .is_v6 = true, .dst = "ff02::1" }, false },
		{ { .is_v6 = true, .protocol = NET_PROTO_ICMPV6, .icmp_type = 128 }, true },
		{ { .is_v6 = true, .protocol = NET_PROTO_ICMPV6, .icmp_type = 1, .n_payload = 48 },
			false },
		{ { .is_v6 = true,
			  .protocol = NET_PROTO_ICMPV6,
			  .icmp_type = 100,
			  .n_payload = 48 },
			false },
		{ { .is_v6 = true,
			  .protocol = NET_PROTO_ICMPV6,
			  .icmp_type = 137,
			  .n_payload = 48 },
			false },
		{ { .is_v6 = true,
			  .extensions = first,
			  .n_extension_bytes = 8,
			  .first_extension = 44,
			  .n_payload = 4 },
			true },
		{ { .is_v6 = true,
			  .extensions = later,
			  .n_extension_bytes = 8,
			  .first_extension = 44 },
			false },
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		if (error_is_answered(&cases[i].spec) != cases[i].answered)
			fail_msg("case %zu", i);
	}
}

// Group MACs, several segments, the other family: nothing is answered, nothing changes.
static void test_answers_refused(void **state)
{
	struct address from4 = address("203.0.113.99"), from6 = address("2001:db8::99");
	for (int i = 0; i < 4; i++) {
		struct frame_spec s = { .n_payload = 40, .tcp_flags = TCP_SYN, .icmp_type = 8 };
		s.protocol = i == 3 ? NET_PROTO_ICMP : NET_PROTO_TCP;
		size_t n = frame_build(&s, frame);
		if (i == 0 || i == 3)
			memset(frame, 0xff, 6);
		struct rte_mbuf *mbuf = i == 1 ? frame_mbuf_split(frame, n, 60)
					       : frame_mbuf_room(frame, n, 128, 128);
		struct packet p = parse(mbuf);
		assert_false(packet_answer_error(
			mbuf, &p, PACKET_TIME_EXCEEDED, i == 2 ? &from6 : &from4, 0));
		if (i != 2)
			assert_false(packet_answer_reset(mbuf, &p));
		assert_false(packet_answer_echo(mbuf, &p));
		assert_memory_equal(frame_bytes(mbuf), frame, mbuf->data_len);
		frame_mbuf_destroy(mbuf);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fullnat_random),
		cmocka_unit_test(test_fullnat_segments),
		cmocka_unit_test(test_icmp_error),
		cmocka_unit_test(test_icmp_error_cut),
		cmocka_unit_test(test_icmp_error_extensions),
		cmocka_unit_test(test_icmp_error_implausible),
		cmocka_unit_test(test_echo),
		cmocka_unit_test(test_echo_zeros),
		cmocka_unit_test(test_echo_segments),
		cmocka_unit_test(test_reset),
		cmocka_unit_test(test_error),
		cmocka_unit_test(test_error_refused),
		cmocka_unit_test(test_answers_refused),
	};
	return cmocka_run_group_tests_name("packet_rewrite", tests, NULL, NULL);
}
