// SPDX-License-Identifier: BSD-3-Clause
// One-way modes: outer headers in front of packets of every kind, on mbufs of exact length. What ought to come out is written
// field by field with recomputed checksums, and the whole block is compared: bytes of header that nobody wrote (blocks are filled
// with a pattern) and bytes beside the frame that somebody wrote are both seen.
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "frames_priv.h"
#include "plain.h"

static uint8_t frame[FRAME_MAX], want[FRAME_MAX];

// 02:00:00:00:00:33, 02:00:00:00:00:22
static const struct packet_macs macs = { 0x0002330000000002, 0x22000000 };

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

static struct packet_tunnel tunnel_make(enum packet_tunnel_kind kind, bool is_v6)
{
	struct address src = address(is_v6 ? "2001:db8:5::1" : "192.0.2.1");
	struct address dst = address(is_v6 ? "2001:db8:9::2" : "10.9.0.2");
	struct packet_tunnel tunnel;
	memset(&tunnel, 0xa5, sizeof(tunnel));
	packet_tunnel_init(&tunnel, kind, &src, &dst);
	return tunnel;
}

// The whole frame, from the inner packet of `n` bytes at `ip`. Returns its length.
static size_t expect_tunnel(uint8_t *out, const uint8_t *ip, size_t n,
	const struct packet_tunnel *t, const struct packet_outer *outer)
{
	bool inner_v6 = ip[0] >> 4 == 6;
	uint8_t proto = inner_v6 ? 41 : 4,
		tos = inner_v6 ? (uint8_t)(ip[0] << 4 | ip[1] >> 4) : ip[1];
	size_t between = t->kind == PACKET_TUNNEL_GUE ? 12 : 0, at = 14 + (t->is_v6 ? 40u : 20u);
	memcpy(out, &outer->macs, 12);
	frame_put16(out + 12, t->is_v6 ? 0x86dd : 0x0800);
	uint8_t *o = out + 14;
	if (t->is_v6) {
		frame_put32(o, 0x60000000u | (uint32_t)tos << 20);
		frame_put16(o + 4, (uint32_t)(between + n));
		o[6] = between ? 17 : proto;
		o[7] = 64;
		memcpy(o + 8, t->src.bytes, 16);
		memcpy(o + 24, t->dst.bytes, 16);
	} else {
		bool df = inner_v6 || (ip[6] & 0x40);
		o[0] = 0x45;
		o[1] = tos;
		frame_put16(o + 2, (uint32_t)(20 + between + n));
		memset(o + 4, 0, 2);
		if (!df)
			frame_put16(o + 4, outer->id);
		frame_put16(o + 6, df ? 0x4000 : 0);
		o[8] = 64;
		o[9] = between ? 17 : proto;
		memcpy(o + 12, t->src.bytes + 12, 4);
		memcpy(o + 16, t->dst.bytes + 12, 4);
	}
	if (between) {
		frame_put16(out + at, 49152u + outer->entropy % 16384u);
		frame_put16(out + at + 2, 6080);
		frame_put16(out + at + 4, (uint32_t)(12 + n));
		frame_put16(out + at + 6, t->is_v6 ? 1 : 0); // 1: to be computed
		frame_put32(out + at + 8, (uint32_t)proto << 16);
	}
	memcpy(out + at + between, ip, n);
	frame_fix_checksums(out, 14);
	return at + between + n;
}

static bool rewrite(struct rte_mbuf *mbuf, const struct packet *p, const struct packet_tunnel *t,
	const struct packet_outer *outer)
{
	return t->kind == PACKET_TUNNEL_GUE ? packet_rewrite_gue(mbuf, p, t, outer)
					    : packet_rewrite_ipip(mbuf, p, t, outer);
}

static size_t gather(const struct rte_mbuf *mbuf, uint8_t *out)
{
	size_t n = 0;
	uint32_t n_segments = 0;
	for (const struct rte_mbuf *s = mbuf; s; s = s->next, n_segments++) {
		assert_true(s->data_len > 0 && s->data_off + s->data_len <= s->buf_len);
		memcpy(out + n, frame_bytes(s), s->data_len);
		n += s->data_len;
	}
	assert_int_equal(n, mbuf->pkt_len);
	assert_int_equal(n_segments, mbuf->nb_segs);
	return n;
}

static void assert_bytes(const struct rte_mbuf *mbuf, const uint8_t *bytes, size_t n)
{
	uint8_t got[FRAME_MAX];
	assert_int_equal(gather(mbuf, got), n);
	for (size_t i = 0; i < n; i++) {
		if (got[i] != bytes[i])
			fail_msg("byte %zu is %02x, not %02x", i, got[i], bytes[i]);
	}
}

// ---------------------------------------------------------------- what goes in
static const uint8_t options[] = { 0, 0, 1, 4, 0, 0, 0, 0 };
static const uint8_t first_fragment[] = { 0, 0, 0, 1, 0, 0, 0, 9 };
static const uint8_t later_fragment[] = { 0, 0, 0, 0x51, 0, 0, 0, 9 };

static const struct frame_spec kinds[] = {
	{ .n_payload = 33 },
	{ .v4_fragment = RTE_BE16(0x4000), .n_payload = 32, .tcp_flags = TCP_SYN },
	{ .protocol = NET_PROTO_UDP, .n_payload = 9 },
	{ .protocol = NET_PROTO_UDP, .n_payload = 9, .udp_no_checksum = true },
	{ .protocol = NET_PROTO_UDP },
	{ .v4_fragment = RTE_BE16(0x2000), .n_payload = 60 },
	{ .v4_fragment = RTE_BE16(0x0007), .n_payload = 60 },
	{ .protocol = NET_PROTO_ICMP, .icmp_type = 3, .icmp_code = 4, .n_payload = 29 },
	{ .protocol = 50, .n_payload = 31 },
	{ .n_padding = 6 },
	{ .protocol = NET_PROTO_SCTP, .n_payload = 17 },
	{ .ttl = 1, .n_payload = 1400 },
	{ .is_v6 = true, .n_payload = 33 },
	{ .is_v6 = true, .protocol = NET_PROTO_UDP, .n_payload = 8, .n_padding = 3 },
	{ .is_v6 = true, .protocol = NET_PROTO_SCTP, .n_payload = 20 },
	{ .is_v6 = true,
		.extensions = options,
		.n_extension_bytes = 8,
		.first_extension = 60,
		.n_payload = 7 },
	{ .is_v6 = true,
		.extensions = first_fragment,
		.n_extension_bytes = 8,
		.first_extension = 44,
		.n_payload = 60 },
	{ .is_v6 = true,
		.extensions = later_fragment,
		.n_extension_bytes = 8,
		.first_extension = 44,
		.n_payload = 60 },
	{ .is_v6 = true, .protocol = NET_PROTO_ICMPV6, .icmp_type = 2, .n_payload = 61 },
};

// Calls `each` with every kind of packet in `frame` and every kind of tunnel.
struct tunnel_case {
	struct packet_tunnel tunnel;
	struct packet_outer outer;
	size_t n;       // of the frame
	size_t n_inner; // without Ethernet padding
	size_t n_head;  // of new headers, Ethernet included
	size_t n_want;
};

static void for_all(void (*each)(const struct tunnel_case *c))
{
	for (size_t i = 0; i < ARRAY_SIZE(kinds) * 4; i++) {
		struct tunnel_case c = {
			.tunnel =
				tunnel_make(i & 1 ? PACKET_TUNNEL_GUE : PACKET_TUNNEL_IPIP, i & 2),
			.outer = { macs, (uint16_t)(0xfedc + i), (uint16_t)(i * 977) },
		};
		c.n = frame_build(&kinds[i / 4], frame);
		c.n_inner = c.n - 14 - kinds[i / 4].n_padding;
		c.n_head = 14u + packet_tunnel_overhead(
					 (enum packet_tunnel_kind)c.tunnel.kind, c.tunnel.is_v6);
		c.n_want = expect_tunnel(want, frame + 14, c.n_inner, &c.tunnel, &c.outer);
		assert_int_equal(c.n_want, c.n_head + c.n_inner);
		each(&c);
	}
}

// ---------------------------------------------------------------- tunnels
// Headroom of every size: enough, just enough, one byte too few with tailroom enough, just enough and one byte too few.
static void each_room(const struct tunnel_case *c)
{
	size_t grow = c->n_head - 14, n_padding = c->n - 14 - c->n_inner;
	size_t in_tail = grow > n_padding ? grow - n_padding : 0; // no headroom at all
	const size_t rooms[][3] = { { 128, 0, 1 }, { grow, 0, 1 }, { grow, 64, 1 },
		{ grow - 1, 64, 1 }, { grow - 1, n_padding ? 0 : 1, 1 }, { grow - 1, 0, n_padding },
		{ 0, in_tail, 1 }, { 0, in_tail - 1, 0 }, { 0, 0, 0 }, { 0, 300, 1 } };
	for (size_t i = 0; i < ARRAY_SIZE(rooms); i++) {
		size_t head = rooms[i][0], tail = rooms[i][1];
		struct rte_mbuf *mbuf = frame_mbuf_room(frame, c->n, head, tail);
		struct packet p = parse(mbuf);
		bool fits = rooms[i][2] != 0;
		assert_int_equal(rewrite(mbuf, &p, &c->tunnel, &c->outer), fits);
		assert_bytes(mbuf, fits ? want : frame, fits ? c->n_want : c->n);
		const uint8_t *block = mbuf->buf_addr;
		for (size_t k = 0; k < mbuf->data_off; k++)
			assert_int_equal(block[k], 0xa5);
		for (size_t k = 1; k <= tail && fits && head >= grow; k++)
			assert_int_equal(block[mbuf->buf_len - k], 0xa5);
		for (size_t k = 0; k < n_padding && fits && head >= grow; k++)
			assert_int_equal(block[mbuf->data_off + mbuf->data_len + k], 0xee);
		frame_mbuf_destroy(mbuf);
	}
}

static void test_tunnel_room(void **state)
{
	for_all(each_room);
}

// The inline one: the same bytes, or nothing done.
static uint32_t n_plain;
static void each_plain(const struct tunnel_case *c)
{
	const struct packet_tunnel *t = &c->tunnel;
	const size_t rooms[] = { 128, c->n_head - 14, c->n_head - 15, 0 };
	if (t->kind != PACKET_TUNNEL_IPIP || t->is_v6)
		return;
	for (size_t i = 0; i < ARRAY_SIZE(rooms); i++) {
		struct rte_mbuf *mbuf = frame_mbuf_room(frame, c->n, rooms[i], 300);
		struct packet p = parse(mbuf);
		bool done = packet_ipip_plain(mbuf, &p, address_v4(&t->src), address_v4(&t->dst),
			&c->outer.id, &c->outer.macs);
		assert_int_equal(done, i < 2 && !p.is_v6);
		assert_bytes(mbuf, done ? want : frame, done ? c->n_want : c->n);
		n_plain += done;
		frame_mbuf_destroy(mbuf);
	}
}

static void test_tunnel_plain(void **state)
{
	for_all(each_plain);
	assert_int_equal(n_plain, 24);
	frame_build(&kinds[0], frame);
	struct rte_mbuf *mbuf = frame_mbuf_split(frame, 80, 70);
	struct packet p = parse(mbuf);
	const uint16_t id = 3;
	assert_false(packet_ipip_plain(mbuf, &p, 1, 2, &id, &macs));
	frame_mbuf_destroy(mbuf);
}

// Split behind the headers at every byte: payload, and padding, may lie in another segment.
static void each_split(const struct tunnel_case *c)
{
	for (size_t first = 1; first < c->n; first++) {
		struct rte_mbuf *rest = frame_mbuf_split(frame, c->n, first);
		struct rte_mbuf *mbuf = frame_mbuf_room(frame, first, 64, 0);
		mbuf->next = rest->next;
		mbuf->nb_segs = 2;
		mbuf->pkt_len = (uint32_t)c->n;
		rest->next = NULL;
		frame_mbuf_destroy(rest);
		struct packet p = parse(mbuf);
		bool is_whole = p.kind != PACKET_BAD;
		if (is_whole) {
			bool fits = first < 14 + c->n_inner; // a segment of padding alone does not
			assert_int_equal(rewrite(mbuf, &p, &c->tunnel, &c->outer), fits);
			assert_bytes(mbuf, fits ? want : frame, fits ? c->n_want : c->n);
		} else {
			assert_int_equal(p.reason, first < 14 || first < 14 + c->n_inner
							   ? DROP_SEGMENTED_HEADERS
							   : DROP_NONE);
		}
		frame_mbuf_destroy(mbuf);
	}
}

static void test_tunnel_segments(void **state)
{
	for_all(each_split);
}

// Without headroom a first segment of several may still have room behind.
static void each_split_moved(const struct tunnel_case *c)
{
	size_t first = frame_layout_of(frame, 14).l4 + 20;
	if (first >= 14 + c->n_inner)
		return;
	for (size_t missing = 0; missing < 2; missing++) {
		struct rte_mbuf *mbuf = frame_mbuf_room(frame, first, 0, c->n_head - 14 - missing);
		mbuf->next = frame_mbuf(frame + first, c->n - first);
		mbuf->nb_segs = 2;
		mbuf->pkt_len = (uint32_t)c->n;
		struct packet p = parse(mbuf);
		assert_int_equal(rewrite(mbuf, &p, &c->tunnel, &c->outer), !missing);
		assert_bytes(mbuf, missing ? frame : want, missing ? c->n : c->n_want);
		frame_mbuf_destroy(mbuf);
	}
}

static void test_tunnel_segments_moved(void **state)
{
	for_all(each_split_moved);
}

// A frame cut short at every byte never reaches the rewrite, or is whole without its padding.
static void each_cut(const struct tunnel_case *c)
{
	for (size_t n = 0; n < c->n; n++) {
		struct rte_mbuf *mbuf = frame_mbuf_room(frame, n, 64, 0);
		struct packet p = parse(mbuf);
		assert_int_equal(p.kind == PACKET_BAD, n < 14 + c->n_inner);
		if (p.kind != PACKET_BAD) {
			assert_true(rewrite(mbuf, &p, &c->tunnel, &c->outer));
			assert_bytes(mbuf, want, c->n_want);
		}
		frame_mbuf_destroy(mbuf);
	}
}

static void test_tunnel_cut(void **state)
{
	for_all(each_cut);
}

// Random packets: sums with all their corners. A checksum that comes out as 0 over IPv6 is 0xffff.
static void test_tunnel_random(void **state)
{
	uint64_t seed = 6935;
	uint32_t n_zero = 0;
	for (uint32_t i = 0; i < 60000; i++) {
		uint64_t draw = frame_random(&seed), more = frame_random(&seed);
		uint8_t payload[64];
		for (size_t k = 0; k < sizeof(payload); k++)
			payload[k] = more & 1 ? 0xff : (uint8_t)frame_random(&seed);
		struct frame_spec s = {
			.is_v6 = draw & 1,
			.protocol = draw & 2 ? NET_PROTO_UDP : NET_PROTO_TCP,
			.udp_no_checksum = !(draw & 1) && (draw & 0x70) == 0x70,
			.src_port = (uint16_t)(draw >> 16),
			.dst_port = (uint16_t)(draw >> 32),
			.payload = payload,
			.n_payload = (uint16_t)((draw >> 48) % sizeof(payload)),
			.v4_fragment = draw & 4 ? RTE_BE16(0x4000) : 0,
		};
		size_t n = frame_build(&s, frame);
		frame[15] = (uint8_t)(more >> 8); // TOS, traffic class
		frame_fix_checksums(frame, 14);
		struct packet_tunnel t =
			tunnel_make(draw & 8 ? PACKET_TUNNEL_GUE : PACKET_TUNNEL_IPIP, draw & 0x80);
		struct packet_outer outer = { macs, (uint16_t)(more >> 16),
			(uint16_t)(more >> 32) };
		if (i % 4 == 0 && t.is_v6 && t.kind == PACKET_TUNNEL_GUE) {
			// The entropy that makes the sum come out as 0, if there is one.
			expect_tunnel(want, frame + 14, n - 14, &t, &outer);
			uint32_t port = frame_get16(want + 54) + frame_get16(want + 60);
			port = (port & 0xffff) + (port >> 16);
			outer.entropy = port >= 49152 ? (uint16_t)port : outer.entropy;
		}
		size_t n_want = expect_tunnel(want, frame + 14, n - 14, &t, &outer);
		n_zero +=
			t.is_v6 && t.kind == PACKET_TUNNEL_GUE && frame_get16(want + 60) == 0xffff;
		struct rte_mbuf *mbuf = frame_mbuf_room(frame, n, 52, 0);
		struct packet p = parse(mbuf);
		assert_int_equal(p.kind, PACKET_FLOW);
		assert_true(rewrite(mbuf, &p, &t, &outer));
		assert_bytes(mbuf, want, n_want);
		frame_mbuf_destroy(mbuf);
	}
	assert_true(n_zero > 100); // the corner was met
}

// Up to 65,535 bytes with the outer header (IPv4), or of payload behind it (IPv6: packet_parse takes no more in all).
static void test_tunnel_longest(void **state)
{
	uint8_t *big = calloc(1, 70000);
	for (uint32_t i = 0; i < 12; i++) {
		struct packet_tunnel t =
			tunnel_make(i & 1 ? PACKET_TUNNEL_GUE : PACKET_TUNNEL_IPIP, i & 2);
		uint32_t overhead =
			packet_tunnel_overhead((enum packet_tunnel_kind)t.kind, t.is_v6);
		struct packet_outer outer = { macs, 1, 2 };
		uint32_t n_ip =
			UINT16_MAX - overhead + i / 4; // in two segments, as no buffer holds that
		frame_build(&(struct frame_spec){ .protocol = 50, .n_payload = 1 }, big);
		frame_put16(big + 16, n_ip);
		frame_fix_checksums(big, 14);
		struct rte_mbuf *mbuf = frame_mbuf_room(big, 100, 64, 0);
		mbuf->next = frame_mbuf(big + 100, n_ip - 86);
		mbuf->nb_segs = 2;
		mbuf->pkt_len = n_ip + 14;
		struct packet p = parse(mbuf);
		assert_int_equal(p.kind, PACKET_PROTOCOL);
		assert_int_equal(rewrite(mbuf, &p, &t, &outer), i / 4 == 0);
		assert_int_equal(mbuf->pkt_len, n_ip + 14 + (i / 4 == 0 ? overhead : 0));
		if (i / 4 == 0)
			assert_int_equal(frame_get16(frame_bytes(mbuf) + (t.is_v6 ? 18 : 16)),
				UINT16_MAX - (t.is_v6 ? 40 : 0));
		frame_mbuf_destroy(mbuf);
	}
	free(big);
}

static void test_tunnel_prepared(void **state)
{
	struct packet_tunnel a = tunnel_make(PACKET_TUNNEL_GUE, false);
	struct packet_tunnel b = tunnel_make(PACKET_TUNNEL_GUE, false);
	assert_memory_equal(&a, &b, sizeof(a)); // no byte left as it was
	assert_int_equal(packet_tunnel_overhead(PACKET_TUNNEL_IPIP, false), 20);
	assert_int_equal(packet_tunnel_overhead(PACKET_TUNNEL_IPIP, true), 40);
	assert_int_equal(packet_tunnel_overhead(PACKET_TUNNEL_GUE, false), 32);
	assert_int_equal(packet_tunnel_overhead(PACKET_TUNNEL_GUE, true), 52);
}

// ---------------------------------------------------------------- l2dsr
static void test_l2dsr(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		size_t n = frame_build(&kinds[i], frame);
		memcpy(want, frame, n);
		memcpy(want, (uint8_t[]){ 2, 0, 0, 0, 0, 0x33, 2, 0, 0, 0, 0, 0x22 }, 12);
		struct rte_mbuf *mbuf = frame_mbuf(frame, n);
		packet_rewrite_l2dsr(mbuf, &macs);
		assert_bytes(mbuf, want, n);
		frame_mbuf_destroy(mbuf);
	}
}

// ---------------------------------------------------------------- MSS
struct mss_case {
	const char *name;
	uint8_t option_bytes; // a multiple of 4
	uint8_t options[24];
	uint8_t wanted[24];
	bool changed;
	uint8_t flags; // 0: SYN
};
static const struct mss_case mss_cases[] = {
	{ "none", 0, { 0 }, { 0 }, false },
	{ "above", 4, { 2, 4, 0x05, 0xb4 }, { 2, 4, 0x05, 0x78 }, true },
	{ "SYN-ACK", 4, { 2, 4, 0x05, 0xb4 }, { 2, 4, 0x05, 0x78 }, true, TCP_SYN | TCP_ACK },
	{ "no SYN", 4, { 2, 4, 0x05, 0xb4 }, { 2, 4, 0x05, 0xb4 }, false, TCP_ACK },
	{ "equal", 4, { 2, 4, 0x05, 0x78 }, { 2, 4, 0x05, 0x78 }, false },
	{ "one above", 4, { 2, 4, 0x05, 0x79 }, { 2, 4, 0x05, 0x78 }, true },
	{ "one below", 4, { 2, 4, 0x05, 0x77 }, { 2, 4, 0x05, 0x77 }, false },
	{ "0xffff", 4, { 2, 4, 0xff, 0xff }, { 2, 4, 0x05, 0x78 }, true },
	{ "0", 4, { 2, 4, 0, 0 }, { 2, 4, 0, 0 }, false },
	{ "at an odd byte", 8, { 1, 2, 4, 0x05, 0xb4, 1, 1, 0 }, { 1, 2, 4, 0x05, 0x78, 1, 1, 0 },
		true },
	{ "last, at an odd byte", 8, { 1, 1, 1, 1, 2, 4, 0x05, 0xb4 },
		{ 1, 1, 1, 1, 2, 4, 0x05, 0x78 }, true },
	{ "behind others", 20,
		{ 4, 2, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8, 3, 3, 7, 2, 4, 0x05, 0xb4, 0 },
		{ 4, 2, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8, 3, 3, 7, 2, 4, 0x05, 0x78, 0 }, true },
	{ "twice: the last one counts for a receiver", 8, { 2, 4, 0x05, 0xb4, 2, 4, 0x10, 0 },
		{ 2, 4, 0x05, 0x78, 2, 4, 0x05, 0x78 }, true },
	{ "behind the end", 8, { 0, 1, 1, 1, 2, 4, 0x05, 0xb4 }, { 0, 1, 1, 1, 2, 4, 0x05, 0xb4 },
		false },
	{ "behind an end that looks like an option", 8, { 0, 4, 1, 1, 2, 4, 0x05, 0xb4 },
		{ 0, 4, 1, 1, 2, 4, 0x05, 0xb4 }, false },
	{ "wrong length 3", 4, { 2, 3, 0x05, 0 }, { 2, 3, 0x05, 0 }, false },
	{ "wrong length 6", 8, { 2, 6, 0x05, 0xb4, 9, 9, 1, 1 }, { 2, 6, 0x05, 0xb4, 9, 9, 1, 1 },
		false },
	{ "length 0 before", 8, { 3, 0, 1, 1, 2, 4, 0x05, 0xb4 }, { 3, 0, 1, 1, 2, 4, 0x05, 0xb4 },
		false },
	{ "length 1 before", 8, { 3, 1, 1, 1, 2, 4, 0x05, 0xb4 }, { 3, 1, 1, 1, 2, 4, 0x05, 0xb4 },
		false },
	{ "length 0", 4, { 2, 0, 0x05, 0xb4 }, { 2, 0, 0x05, 0xb4 }, false },
	{ "overruns by one", 4, { 1, 2, 4, 0x05 }, { 1, 2, 4, 0x05 }, false },
	{ "overruns far", 4, { 2, 255, 0x05, 0xb4 }, { 2, 255, 0x05, 0xb4 }, false },
	{ "another overruns", 8, { 8, 9, 1, 1, 2, 4, 0x05, 0xb4 }, { 8, 9, 1, 1, 2, 4, 0x05, 0xb4 },
		false },
	{ "kind alone at the end", 4, { 1, 1, 1, 2 }, { 1, 1, 1, 2 }, false },
	{ "good, then length 0", 8, { 2, 4, 0x05, 0xb4, 3, 0, 7, 7 },
		{ 2, 4, 0x05, 0x78, 3, 0, 7, 7 }, true },
};

static void test_mss(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(mss_cases) * 4; i++) {
		const struct mss_case *c = &mss_cases[i / 4];
		struct frame_spec s = { .is_v6 = i & 1,
			.tcp_flags = c->flags ? c->flags : TCP_SYN,
			.tcp_option_bytes = c->option_bytes,
			.n_payload = i & 2 ? 5 : 0 };
		size_t n = frame_build(&s, frame), at = frame_layout_of(frame, 14).l4 + 20;
		memcpy(frame + at, c->options, c->option_bytes);
		frame_fix_checksums(frame, 14);
		memcpy(want, frame, n);
		memcpy(want + at, c->wanted, c->option_bytes);
		frame_fix_checksums(want, 14);
		struct rte_mbuf *mbuf = frame_mbuf(frame, n);
		struct packet p = parse(mbuf);
		if (packet_clamp_mss(mbuf, &p, 1400) != c->changed)
			fail_msg("%s", c->name);
		assert_bytes(mbuf, want, n);
		frame_mbuf_destroy(mbuf);
	}
	size_t n = frame_build(&(struct frame_spec){ .protocol = NET_PROTO_UDP }, frame);
	struct rte_mbuf *mbuf = frame_mbuf(frame, n);
	struct packet p = parse(mbuf);
	assert_false(packet_clamp_mss(mbuf, &p, 1400));
	frame_mbuf_destroy(mbuf);
}

// Random options, mostly nonsense: within bounds, checksums right, and nothing but MSS values lowered.
static void test_mss_random(void **state)
{
	uint64_t seed = 879;
	uint32_t n_changed = 0;
	for (uint32_t i = 0; i < 40000; i++) {
		uint64_t draw = frame_random(&seed);
		struct frame_spec s = { .is_v6 = draw & 1,
			.tcp_flags = TCP_SYN,
			.tcp_option_bytes = (uint8_t)((draw >> 8) % 11 * 4) };
		size_t n = frame_build(&s, frame), at = frame_layout_of(frame, 14).l4 + 20;
		for (size_t k = 0; k < s.tcp_option_bytes; k++)
			frame[at + k] = (uint8_t)(frame_random(&seed) >> 32 & (draw & 2 ? 7 : 3));
		frame_fix_checksums(frame, 14);
		struct rte_mbuf *mbuf = frame_mbuf(frame, n);
		struct packet p = parse(mbuf);
		bool changed = packet_clamp_mss(mbuf, &p, 300);
		n_changed += changed;
		assert_int_equal(changed, memcmp(frame_bytes(mbuf), frame, n) != 0);
		assert_true(frame_checksums_ok(frame_bytes(mbuf), 14));
		for (size_t k = 0; k < s.tcp_option_bytes; k++) {
			if (frame_bytes(mbuf)[at + k] == frame[at + k])
				continue;
			size_t first = frame[at + k - 1] == 4 && frame[at + k - 2] == 2 ? k : k - 1;
			assert_memory_equal(frame + at + first - 2, ((uint8_t[]){ 2, 4 }), 2);
			assert_int_equal(frame_get16(frame_bytes(mbuf) + at + first), 300);
			assert_true(frame_get16(frame + at + first) > 300);
		}
		frame_mbuf_destroy(mbuf);
	}
	assert_true(n_changed > 100);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_tunnel_prepared),
		cmocka_unit_test(test_tunnel_room),
		cmocka_unit_test(test_tunnel_plain),
		cmocka_unit_test(test_tunnel_segments),
		cmocka_unit_test(test_tunnel_segments_moved),
		cmocka_unit_test(test_tunnel_cut),
		cmocka_unit_test(test_tunnel_random),
		cmocka_unit_test(test_tunnel_longest),
		cmocka_unit_test(test_l2dsr),
		cmocka_unit_test(test_mss),
		cmocka_unit_test(test_mss_random),
	};
	return cmocka_run_group_tests_name("packet_tunnel", tests, NULL, NULL);
}
