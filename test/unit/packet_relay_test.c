// SPDX-License-Identifier: BSD-3-Clause
// Errors from the path of a tunnel, told to the client whose packet was inside; and answers in frames cut to their first segment.
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "frames_priv.h"

static uint8_t frame[FRAME_MAX], want[FRAME_MAX];

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
	assert_int_equal(mbuf->pkt_len, n);
	assert_int_equal(mbuf->data_len, n);
	assert_true(mbuf->data_off + n <= mbuf->buf_len);
	for (size_t i = 0; i < n; i++) {
		if (frame_bytes(mbuf)[i] != bytes[i])
			fail_msg("byte %zu is %02x, not %02x", i, frame_bytes(mbuf)[i], bytes[i]);
	}
}

static void swap_macs(uint8_t *at)
{
	uint8_t was[6];
	memcpy(was, at, 6);
	memcpy(at, at + 6, 6);
	memcpy(at + 6, was, 6);
}

// What frame_build makes of `s`, as an answer of ours has it.
static size_t build_answer(const struct frame_spec *s, uint8_t *out)
{
	size_t n = frame_build(s, out);
	swap_macs(out);
	if (s->is_v6) {
		frame_put32(out + 14, 0x60000000);
	} else {
		out[15] = 0;
		frame_put16(out + 18, 0);
		frame_put16(out + 20, 0x4000);
	}
	frame_fix_checksums(out, 14);
	return n;
}

// ---------------------------------------------------------------- tunnels' errors
// Client 198.51.100.7 to VIP 203.0.113.10 (the defaults), in a tunnel from 192.0.2.1 to 10.9.0.2; a router complains.
struct relay_case {
	enum packet_tunnel_kind kind;
	bool outer_v6;
	bool inner_v6;
};
#define N_RELAY_CASES 8

static struct relay_case relay_case(size_t i)
{
	return (struct relay_case){ i & 1 ? PACKET_TUNNEL_GUE : PACKET_TUNNEL_IPIP, i & 2, i & 4 };
}

// The tunnel's packet, made by hand, without Ethernet. `inner` gets the inner packet's offset.
static size_t build_tunnel(
	const struct relay_case *c, const struct frame_spec *spec, uint8_t *out, size_t *inner)
{
	uint8_t bytes[FRAME_MAX];
	struct frame_spec s = *spec;
	s.is_v6 = c->inner_v6;
	size_t n = frame_build(&s, bytes) - 14;
	uint8_t payload[FRAME_MAX];
	size_t between = 0;
	if (c->kind == PACKET_TUNNEL_GUE) {
		memcpy(payload, (uint8_t[]){ 0xc1, 0x23, 6080 >> 8, 6080 & 255 }, 4);
		frame_put16(payload + 4, (uint32_t)(n + 12));
		frame_put16(payload + 6, 0);
		memcpy(payload + 8, (uint8_t[]){ 0, c->inner_v6 ? 41 : 4, 0, 0 }, 4);
		between = 12;
	}
	memcpy(payload + between, bytes + 14, n);
	struct frame_spec outer = {
		.is_v6 = c->outer_v6,
		.protocol = between       ? 99
			    : c->inner_v6 ? 41
					  : 4, // 99: UDP, but its header is in the payload
		.src = c->outer_v6 ? "2001:db8:5::1" : "192.0.2.1",
		.dst = c->outer_v6 ? "2001:db8:9::2" : "10.9.0.2",
		.payload = payload,
		.n_payload = (uint16_t)(between + n),
	};
	n = frame_build(&outer, bytes);
	// No ports of its own: frame_build puts none for these protocols.
	if (between)
		bytes[c->outer_v6 ? 20 : 23] = NET_PROTO_UDP;
	*inner = (c->outer_v6 ? 40u : 20u) + between;
	memcpy(out, bytes + 14, n - 14);
	return n - 14;
}

// The router's error about it in `frame`, quoting n bytes at most. Returns the length; *quoted is the offset of the inner packet in the
// frame.
static size_t build_error(const struct relay_case *c, const struct frame_spec *spec, uint8_t type,
	uint8_t code, size_t n)
{
	uint8_t quoted[FRAME_MAX];
	size_t inner, n_all = build_tunnel(c, spec, quoted, &inner);
	struct frame_spec s = {
		.is_v6 = c->outer_v6,
		.protocol = c->outer_v6 ? NET_PROTO_ICMPV6 : NET_PROTO_ICMP,
		.icmp_type = type,
		.icmp_code = code,
		.src = c->outer_v6 ? "2001:db8:99::1" : "10.1.1.1",
		.dst = c->outer_v6 ? "2001:db8:5::1" : "192.0.2.1",
		.payload = quoted,
		.n_payload = (uint16_t)(n < n_all ? n : n_all),
	};
	return frame_build(&s, frame);
}

static void set_word(const struct relay_case *c, uint32_t word)
{
	frame_put32(frame + (c->outer_v6 ? 58 : 38), word);
	frame_fix_checksums(frame, 14);
}

static size_t overhead(const struct relay_case *c)
{
	return (c->outer_v6 ? 40u : 20u) + (c->kind == PACKET_TUNNEL_GUE ? 12 : 0);
}

// The error that the client gets, quoting n bytes of its packet.
static size_t expect_relayed(const struct relay_case *c, const struct frame_spec *spec,
	bool too_big, uint16_t mtu, size_t n)
{
	uint8_t sent[FRAME_MAX];
	struct frame_spec inner = *spec;
	inner.is_v6 = c->inner_v6;
	size_t n_sent = frame_build(&inner, sent) - 14;
	size_t limit = c->inner_v6 ? 1280 - 48 : 576 - 28;
	n = n < n_sent ? n : n_sent;
	struct frame_spec s = {
		.is_v6 = c->inner_v6,
		.protocol = c->inner_v6 ? NET_PROTO_ICMPV6 : NET_PROTO_ICMP,
		.icmp_type = c->inner_v6 ? (too_big ? 2 : 1) : 3,
		.icmp_code = c->inner_v6 ? (too_big ? 0 : 3) : (too_big ? 4 : 1),
		.src = spec->dst     ? spec->dst
		       : c->inner_v6 ? "2001:db8:1::10"
				     : "203.0.113.10",
		.dst = c->inner_v6 ? "2001:db8:c::7" : "198.51.100.7",
		.ttl = 64,
		.payload = sent + 14,
		.n_payload = (uint16_t)(n < limit ? n : limit),
	};
	size_t n_want = build_answer(&s, want);
	frame_put16(want + (c->inner_v6 ? 60 : 40), mtu);
	frame_fix_checksums(want, 14);
	return n_want;
}

static const struct frame_spec inners[] = {
	{ .n_payload = 40 },
	{ .protocol = NET_PROTO_UDP, .n_payload = 3 },
	{ .protocol = NET_PROTO_UDP },
	{ .protocol = NET_PROTO_SCTP, .n_payload = 60 },
	{ .n_payload = 700 },
	{ .n_payload = 1360 },
};

static void relay(const struct relay_case *c, size_t n, size_t n_want)
{
	struct rte_mbuf *mbuf = frame_mbuf(frame, n);
	struct packet p = parse(mbuf);
	struct packet_quoted_tunnel quoted;
	assert_int_equal(p.kind, PACKET_ICMP_ERROR);
	assert_true(packet_parse_quoted_tunnel(mbuf, &p, &quoted));
	struct address src = address(c->outer_v6 ? "2001:db8:5::1" : "192.0.2.1");
	struct address dst = address(c->outer_v6 ? "2001:db8:9::2" : "10.9.0.2");
	struct address client = address(c->inner_v6 ? "2001:db8:c::7" : "198.51.100.7");
	struct address vip = address(c->inner_v6 ? "2001:db8:1::10" : "203.0.113.10");
	assert_true(address_equal(&quoted.src, &src) && address_equal(&quoted.dst, &dst));
	assert_true(address_equal(&quoted.inner.src, &client));
	assert_true(address_equal(&quoted.inner.dst, &vip));
	assert_int_equal(quoted.inner.src_port, RTE_BE16(40000));
	assert_int_equal(quoted.inner.dst_port, RTE_BE16(80));
	assert_int_equal(quoted.inner.is_v6, c->inner_v6);
	assert_int_equal(quoted.is_v6, c->outer_v6);
	assert_int_equal(quoted.kind, c->kind);
	assert_int_equal(quoted.overhead, overhead(c));
	bool answered = packet_answer_relayed_error(mbuf, &p, &quoted);
	assert_int_equal(answered, n_want != 0);
	assert_bytes(mbuf, answered ? want : frame, answered ? n_want : n);
	frame_mbuf_destroy(mbuf);
}

// Too big for every kind of tunnel, packet and MTU.
static void test_relayed_too_big(void **state)
{
	static const uint32_t mtus[] = { 0, 68, 595, 596, 597, 628, 1280, 1299, 1300, 1301, 1332,
		1333, 1400, 9000, 65535 };
	for (size_t i = 0; i < N_RELAY_CASES * ARRAY_SIZE(inners) * ARRAY_SIZE(mtus); i++) {
		struct relay_case c = relay_case(i);
		const struct frame_spec *s = &inners[i / N_RELAY_CASES % ARRAY_SIZE(inners)];
		uint32_t told = mtus[i / N_RELAY_CASES / ARRAY_SIZE(inners)];
		size_t n = build_error(&c, s, c.outer_v6 ? 2 : 3, c.outer_v6 ? 0 : 4, 1400);
		set_word(&c, told);
		int32_t mtu = (int32_t)told - (int32_t)overhead(&c),
			least = c.inner_v6 ? 1280 : 576;
		size_t n_quoted = n - (c.outer_v6 ? 62 : 42) - overhead(&c);
		relay(&c, n,
			expect_relayed(
				&c, s, true, (uint16_t)(mtu > least ? mtu : least), n_quoted));
	}
	struct relay_case c = { PACKET_TUNNEL_IPIP, true, false };
	size_t n = build_error(&c, &inners[0], 2, 0, 1400);
	set_word(&c, 0x10000);
	relay(&c, n, expect_relayed(&c, &inners[0], true, UINT16_MAX - 40, 80));
}

static void test_relayed_types(void **state)
{
	for (size_t i = 0; i < N_RELAY_CASES; i++) {
		struct relay_case c = relay_case(i);
		for (uint32_t type = 0; type < 16; type++) {
			for (uint32_t code = 0; code < 17; code++) {
				size_t n = build_error(
					&c, &inners[0], (uint8_t)type, (uint8_t)code, 1400);
				struct rte_mbuf *mbuf = frame_mbuf(frame, n);
				bool is_error = parse(mbuf).kind == PACKET_ICMP_ERROR;
				frame_mbuf_destroy(mbuf);
				if (!is_error)
					continue;
				bool too_big = c.outer_v6 ? type == 2 : type == 3 && code == 4;
				bool told = c.outer_v6 ? type == 1 || (type == 3 && code == 0)
						       : (type == 3 && code != 5) ||
								 (type == 11 && code == 0);
				size_t n_want = expect_relayed(&c, &inners[0], too_big,
					too_big ? (c.inner_v6 ? 1280 : 576) : 0, 1400);
				relay(&c, n, told || too_big ? n_want : 0);
			}
		}
	}
}

// Cut short at every byte: found from 8 bytes of inner L4 on, and never a byte read beyond.
static void test_relayed_cut(void **state)
{
	for (size_t i = 0; i < N_RELAY_CASES; i++) {
		struct relay_case c = relay_case(i);
		size_t least = overhead(&c) + (c.inner_v6 ? 40 : 20) + 8;
		for (size_t n_quote = 0; n_quote < least + 60; n_quote++) {
			size_t n = build_error(&c, &inners[0], c.outer_v6 ? 1 : 3, 1, n_quote);
			if (n_quote >= least) {
				relay(&c, n,
					expect_relayed(
						&c, &inners[0], false, 0, n_quote - overhead(&c)));
				continue;
			}
			struct rte_mbuf *mbuf = frame_mbuf(frame, n);
			struct packet p = parse(mbuf);
			struct packet_quoted_tunnel quoted;
			assert_false(packet_parse_quoted_tunnel(mbuf, &p, &quoted));
			frame_mbuf_destroy(mbuf);
		}
	}
}

// What a router puts behind the quote (RFC 4884) is not quoted on.
static void test_relayed_extensions(void **state)
{
	for (size_t i = 0; i < N_RELAY_CASES; i++) {
		struct relay_case c = relay_case(i);
		size_t n = build_error(&c, &inners[1], c.outer_v6 ? 1 : 3, 1, 1400);
		memset(frame + n, 0x77, 24);
		frame_put16(frame + (c.outer_v6 ? 18 : 16),
			frame_get16(frame + (c.outer_v6 ? 18 : 16)) + 24u);
		frame_fix_checksums(frame, 14);
		relay(&c, n + 24, expect_relayed(&c, &inners[1], false, 0, 1400));
	}
}

struct edit {
	uint16_t at; // in the quote
	uint8_t value;
};

// One byte of the quote that makes it none of ours.
static void assert_no_tunnel(struct rte_mbuf *mbuf, enum packet_kind kind, size_t i)
{
	struct packet_quoted_tunnel quoted;
	struct packet p = parse(mbuf);
	assert_int_equal(p.kind, kind);
	if (packet_parse_quoted_tunnel(mbuf, &p, &quoted))
		fail_msg("case %zu", i);
	frame_mbuf_destroy(mbuf);
}

static const struct {
	size_t i; // of the relay case
	struct edit edit;
} implausible[] = {
	// ipip 4in4: outer header length, protocol, fragment offset, source; inner version, header length, protocol, offset, source
	{ 0, { 0, 0x46 } },
	{ 0, { 9, 47 } },
	{ 0, { 9, 41 } },
	{ 0, { 7, 1 } },
	{ 0, { 15, 9 } },
	{ 0, { 20, 0x65 } },
	{ 0, { 20, 0x46 } },
	{ 0, { 29, 1 } },
	{ 0, { 27, 1 } },
	{ 0, { 32, 127 } },
	{ 0, { 32, 224 } },
	// gue 4in4: port, version, option length, control bit, inner protocol, flags
	{ 1, { 22, 0 } },
	{ 1, { 23, 0 } },
	{ 1, { 28, 0x40 } },
	{ 1, { 28, 1 } },
	{ 1, { 28, 0x20 } },
	{ 1, { 29, 41 } },
	{ 1, { 29, 6 } },
	{ 1, { 30, 1 } },
	{ 1, { 31, 0x80 } },
	{ 1, { 9, 6 } },
	// 4in6: version, next header, source; inner version
	{ 2, { 0, 0x40 } },
	{ 2, { 6, 43 } },
	{ 2, { 6, 41 } },
	{ 2, { 23, 9 } },
	{ 2, { 40, 0x60 } },
	// 6in6: inner version, next header, multicast source
	{ 6, { 40, 0x40 } },
	{ 6, { 46, 58 } },
	{ 6, { 48, 0xff } },
};

static void test_relayed_implausible(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(implausible); i++) {
		struct relay_case c = relay_case(implausible[i].i);
		size_t n = build_error(&c, &inners[0], c.outer_v6 ? 1 : 3, 1, 1400);
		frame[(c.outer_v6 ? 62 : 42) + implausible[i].edit.at] = implausible[i].edit.value;
		frame_fix_checksums(frame, 14);
		assert_no_tunnel(frame_mbuf(frame, n), PACKET_ICMP_ERROR, i);
	}
}

// Inner addresses that the type has for IPv4.
static void test_relayed_mapped(void **state)
{
	for (size_t i = 0; i < 2; i++) {
		struct relay_case c = relay_case(6);
		size_t n = build_error(&c, &inners[0], 1, 1, 1400);
		memcpy(frame + 102 + (i == 0 ? 8 : 24),
			(uint8_t[16]){ [10] = 0xff, [11] = 0xff, [12] = 10 }, 16);
		frame_fix_checksums(frame, 14);
		assert_no_tunnel(frame_mbuf(frame, n), PACKET_ICMP_ERROR, i);
	}
}

// No error at all; an outer header with an extension, which we do not send.
static void test_relayed_other(void **state)
{
	static const uint8_t options[] = { 0, 0, 1, 4, 0, 0, 0, 0 };
	uint8_t inner[FRAME_MAX], quote[FRAME_MAX];
	size_t n_inner = frame_build(&inners[0], inner) - 14;
	struct frame_spec outer = { .is_v6 = true,
		.protocol = 4,
		.src = "2001:db8:5::1",
		.extensions = options,
		.n_extension_bytes = 8,
		.first_extension = 60,
		.payload = inner + 14,
		.n_payload = (uint16_t)n_inner };
	struct frame_spec error = { .is_v6 = true,
		.protocol = NET_PROTO_ICMPV6,
		.icmp_type = 1,
		.dst = "2001:db8:5::1",
		.payload = quote + 14,
		.n_payload = (uint16_t)(frame_build(&outer, quote) - 14) };
	struct frame_spec none = { .n_payload = 99 };
	assert_no_tunnel(frame_mbuf(frame, frame_build(&none, frame)), PACKET_FLOW, 0);
	assert_no_tunnel(frame_mbuf(frame, frame_build(&error, frame)), PACKET_ICMP_ERROR, 1);
}

// What packet_rewrite_ipip and _gue made is found again.
static void test_relayed_round(void **state)
{
	for (size_t i = 0; i < N_RELAY_CASES; i++) {
		struct relay_case c = relay_case(i);
		struct frame_spec s = { .is_v6 = c.inner_v6, .n_payload = 100 };
		struct rte_mbuf *sent = frame_mbuf_room(frame, frame_build(&s, frame), 64, 0);
		struct packet p = parse(sent);
		struct address src = address(c.outer_v6 ? "2001:db8:5::1" : "192.0.2.1");
		struct address dst = address(c.outer_v6 ? "2001:db8:9::2" : "10.9.0.2");
		struct packet_tunnel tunnel;
		struct packet_outer outer = { .id = 7, .entropy = 8 };
		packet_tunnel_init(&tunnel, c.kind, &src, &dst);
		assert_true(c.kind == PACKET_TUNNEL_GUE
				    ? packet_rewrite_gue(sent, &p, &tunnel, &outer)
				    : packet_rewrite_ipip(sent, &p, &tunnel, &outer));
		struct frame_spec error = {
			.is_v6 = c.outer_v6,
			.protocol = c.outer_v6 ? NET_PROTO_ICMPV6 : NET_PROTO_ICMP,
			.icmp_type = c.outer_v6 ? 1 : 3,
			.dst = c.outer_v6 ? "2001:db8:5::1" : "192.0.2.1",
			.payload = frame_bytes(sent) + 14,
			.n_payload = (uint16_t)(sent->data_len - 14),
		};
		size_t n = frame_build(&error, frame);
		relay(&c, n, expect_relayed(&c, &s, false, 0, 1400));
		frame_mbuf_destroy(sent);
	}
}

static void test_relayed_refused(void **state)
{
	struct relay_case c = relay_case(0);
	struct packet_quoted_tunnel quoted;
	for (int i = 0; i < 2; i++) {
		size_t n = build_error(&c, &inners[4], 3, 4, 700);
		if (i == 0)
			frame[0] |= 1; // to a group MAC
		struct rte_mbuf *mbuf =
			i == 0 ? frame_mbuf(frame, n) : frame_mbuf_split(frame, n, 200);
		struct packet p = parse(mbuf);
		assert_true(packet_parse_quoted_tunnel(mbuf, &p, &quoted));
		assert_false(packet_answer_relayed_error(mbuf, &p, &quoted));
		assert_memory_equal(frame_bytes(mbuf), frame, mbuf->data_len);
		if (i == 1) {
			frame_mbuf_destroy(packet_detach_tail(mbuf));
			assert_true(packet_answer_relayed_error(mbuf, &p, &quoted));
			assert_bytes(
				mbuf, want, expect_relayed(&c, &inners[4], true, 576, 200 - 62));
		}
		frame_mbuf_destroy(mbuf);
	}
}

// Whatever the caller's MTU: never told below 576 or 1280.
static void test_told_mtu(void **state)
{
	static const uint16_t mtus[] = { 0, 575, 576, 577, 1279, 1280, 1281, 9000, 65535 };
	for (size_t i = 0; i < ARRAY_SIZE(mtus) * 2; i++) {
		struct frame_spec s = { .is_v6 = i & 1, .n_payload = 4 };
		struct rte_mbuf *mbuf = frame_mbuf_room(frame, frame_build(&s, frame), 48, 0);
		struct packet p = parse(mbuf);
		struct address from = address(s.is_v6 ? "2001:db8::99" : "203.0.113.99");
		uint16_t mtu = mtus[i / 2], least = s.is_v6 ? 1280 : 576;
		assert_true(packet_answer_error(mbuf, &p, PACKET_TOO_BIG, &from, mtu));
		assert_int_equal(frame_get16(frame_bytes(mbuf) + (s.is_v6 ? 60 : 40)),
			mtu > least ? mtu : least);
		assert_true(frame_checksums_ok(frame_bytes(mbuf), 14));
		frame_mbuf_destroy(mbuf);
	}
}

// ---------------------------------------------------------------- cut to the first segment
static struct rte_mbuf *split3(size_t n, size_t first, size_t headroom)
{
	struct rte_mbuf *mbuf = frame_mbuf_room(frame, first, headroom, 0);
	size_t second = (n - first) / 2;
	mbuf->next = frame_mbuf(frame + first, second);
	mbuf->next->next = frame_mbuf(frame + first + second, n - first - second);
	mbuf->nb_segs = 3;
	mbuf->pkt_len = (uint32_t)n;
	return mbuf;
}

static void test_detach(void **state)
{
	size_t n = frame_build(&(struct frame_spec){ .n_payload = 500 }, frame);
	struct rte_mbuf *mbuf = split3(n, 100, 0);
	struct rte_mbuf *tail = packet_detach_tail(mbuf);
	assert_int_equal(mbuf->nb_segs, 1);
	assert_int_equal(mbuf->pkt_len, 100);
	assert_null(mbuf->next);
	assert_int_equal(tail->nb_segs, 2);
	assert_int_equal(tail->pkt_len, n - 100);
	assert_null(packet_detach_tail(mbuf));
	frame_mbuf_destroy(mbuf);
	frame_mbuf_destroy(tail);
}

static void test_detached_reset(void **state)
{
	for (int is_v6 = 0; is_v6 < 2; is_v6++) {
		struct frame_spec s = {
			.is_v6 = is_v6, .tcp_flags = TCP_FIN, .sequence = 1000, .n_payload = 700
		};
		size_t n = frame_build(&s, frame);
		struct rte_mbuf *mbuf = split3(n, is_v6 ? 74 : 54, 0);
		struct packet p = parse(mbuf);
		assert_false(packet_answer_reset(mbuf, &p));
		frame_mbuf_destroy(packet_detach_tail(mbuf));
		assert_true(packet_answer_reset(mbuf, &p));
		struct frame_spec reset = { .is_v6 = is_v6,
			.src = is_v6 ? "2001:db8:1::10" : "203.0.113.10",
			.dst = is_v6 ? "2001:db8:c::7" : "198.51.100.7",
			.src_port = 80,
			.dst_port = 40000,
			.ttl = 64,
			.tcp_flags = TCP_RST | TCP_ACK,
			.acknowledgement = 1000 + 700 + 1 };
		size_t n_want = build_answer(&reset, want);
		frame_put16(want + frame_layout_of(want, 14).l4 + 14, 0); // window
		frame_fix_checksums(want, 14);
		assert_bytes(mbuf, want, n_want);
		frame_mbuf_destroy(mbuf);
	}
}

// The first segment at every length: quoted is what it holds, from 8 bytes behind the IP headers on.
static void test_detached_error(void **state)
{
	static const struct frame_spec kinds[] = {
		{ .n_payload = 700 },
		{ .protocol = NET_PROTO_UDP, .n_payload = 700 },
		{ .protocol = 50, .n_payload = 700 },
		{ .v4_fragment = RTE_BE16(0x2000), .n_payload = 64 },
		{ .is_v6 = true, .n_payload = 1300 },
		{ .is_v6 = true, .protocol = 50, .n_payload = 1300 },
	};
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		const struct frame_spec *s = &kinds[i];
		size_t n = frame_build(s, frame), l4 = s->is_v6 ? 54 : 34;
		size_t limit = s->is_v6 ? 1280 - 48 : 576 - 28;
		for (size_t first = l4; first < n - 1; first++) {
			struct rte_mbuf *mbuf = split3(n, first, 48);
			struct packet p = parse(mbuf);
			struct address from = address(s->is_v6 ? "2001:db8::99" : "203.0.113.99");
			if (p.kind == PACKET_BAD) {
				frame_mbuf_destroy(mbuf);
				continue;
			}
			assert_false(packet_answer_error(mbuf, &p, PACKET_TOO_BIG, &from, 1400));
			frame_mbuf_destroy(packet_detach_tail(mbuf));
			bool answered = packet_answer_error(mbuf, &p, PACKET_TOO_BIG, &from, 1400);
			assert_int_equal(answered, first >= l4 + 8);
			struct frame_spec a = { .is_v6 = s->is_v6,
				.protocol = s->is_v6 ? NET_PROTO_ICMPV6 : NET_PROTO_ICMP,
				.icmp_type = s->is_v6 ? 2 : 3,
				.icmp_code = s->is_v6 ? 0 : 4,
				.src = s->is_v6 ? "2001:db8::99" : "203.0.113.99",
				.dst = s->is_v6 ? "2001:db8:c::7" : "198.51.100.7",
				.ttl = 64,
				.payload = frame + 14,
				.n_payload = (uint16_t)(first - 14 < limit ? first - 14 : limit) };
			size_t n_want = build_answer(&a, want);
			frame_put16(want + (s->is_v6 ? 60 : 40), 1400);
			frame_fix_checksums(want, 14);
			if (answered)
				assert_bytes(mbuf, want, n_want);
			else
				assert_bytes(mbuf, frame, first);
			frame_mbuf_destroy(mbuf);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_relayed_too_big),
		cmocka_unit_test(test_relayed_types),
		cmocka_unit_test(test_relayed_cut),
		cmocka_unit_test(test_relayed_extensions),
		cmocka_unit_test(test_relayed_implausible),
		cmocka_unit_test(test_relayed_mapped),
		cmocka_unit_test(test_relayed_other),
		cmocka_unit_test(test_relayed_round),
		cmocka_unit_test(test_relayed_refused),
		cmocka_unit_test(test_told_mtu),
		cmocka_unit_test(test_detach),
		cmocka_unit_test(test_detached_reset),
		cmocka_unit_test(test_detached_error),
	};
	return cmocka_run_group_tests_name("packet_relay", tests, NULL, NULL);
}
