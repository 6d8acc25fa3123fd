// SPDX-License-Identifier: BSD-3-Clause
// Packets: parse and L4 checksums, on mbufs of exact length. Rewrites and answers are packet_rewrite_test.c.
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "frames_priv.h"
#include "plain.h"

static uint8_t frame[FRAME_MAX];

static struct packet parse(const struct rte_mbuf *mbuf)
{
	struct packet p;
	memset(&p, 0xa5, sizeof(p)); // whatever was there before
	packet_parse(mbuf, NULL, &p);
	return p;
}

static struct packet parse_bytes(const void *bytes, size_t n)
{
	struct rte_mbuf *mbuf = frame_mbuf(bytes, n);
	struct packet p = parse(mbuf);
	frame_mbuf_destroy(mbuf);
	return p;
}

static struct packet parse_spec(struct frame_spec spec)
{
	return parse_bytes(frame, frame_build(&spec, frame));
}

#define assert_bad(p, why)                                                            \
	do {                                                                          \
		assert_int_equal((p).kind, PACKET_BAD);                               \
		assert_string_equal(drop_rows[(p).reason].name, drop_rows[why].name); \
	} while (0)

// ---------------------------------------------------------------- good frames
// Hop-by-hop, destination options of 16 bytes, routing with no segments left, atomic fragment; next headers in [0].
static const uint8_t extensions[] = {
	60, 0, 1, 4, 0, 0, 0, 0,                          //
	43, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, //
	44, 0, 4, 0, 0, 0, 0, 0,                          //
	0, 0, 0, 0, 1, 2, 3, 4,                           //
};

static const struct good {
	struct frame_spec spec;
	uint8_t kind;
} goods[] = {
	{ { .n_payload = 5 }, PACKET_FLOW },
	{ { .tcp_flags = TCP_SYN, .tcp_option_bytes = 20 }, PACKET_FLOW },
	{ { .tcp_flags = TCP_RST }, PACKET_FLOW },
	{ { .protocol = NET_PROTO_UDP, .n_payload = 9 }, PACKET_FLOW },
	{ { .protocol = NET_PROTO_UDP, .udp_no_checksum = true, .n_payload = 0 }, PACKET_FLOW },
	{ { .protocol = NET_PROTO_ICMP, .icmp_type = 8, .src_port = 77, .n_payload = 3 },
		PACKET_ECHO },
	{ { .protocol = NET_PROTO_ICMP, .icmp_type = 3, .icmp_code = 4, .n_payload = 28 },
		PACKET_ICMP_ERROR },
	{ { .protocol = NET_PROTO_ICMP, .icmp_type = 11, .n_payload = 28 }, PACKET_ICMP_ERROR },
	{ { .protocol = NET_PROTO_ICMP, .icmp_type = 12, .n_payload = 28 }, PACKET_ICMP_ERROR },
	{ { .protocol = NET_PROTO_ICMP, .icmp_type = 5, .n_payload = 28 }, PACKET_ICMP_OTHER },
	{ { .protocol = NET_PROTO_ICMP, .icmp_type = 0 }, PACKET_ICMP_OTHER },
	{ { .protocol = NET_PROTO_ICMP, .icmp_type = 8, .icmp_code = 1 }, PACKET_ICMP_OTHER },
	{ { .protocol = 50, .n_payload = 8 }, PACKET_PROTOCOL },
	{ { .protocol = NET_PROTO_ICMPV6, .icmp_type = 128 }, PACKET_PROTOCOL },
	{ { .protocol = 2, .v4_option_bytes = 4, .dst = "224.0.0.22", .n_payload = 8 },
		PACKET_OTHER },
	{ { .v4_fragment = RTE_BE16(0x2000), .n_payload = 68 }, PACKET_FRAGMENT },
	{ { .v4_fragment = RTE_BE16(0x0007), .n_payload = 64 }, PACKET_FRAGMENT },
	{ { .v4_fragment = RTE_BE16(0x4000), .n_payload = 4 }, PACKET_FLOW },
	{ { .is_v6 = true, .n_payload = 5 }, PACKET_FLOW },
	{ { .is_v6 = true, .protocol = NET_PROTO_UDP, .n_payload = 4 }, PACKET_FLOW },
	{ { .is_v6 = true, .protocol = NET_PROTO_ICMPV6, .icmp_type = 128, .src_port = 9 },
		PACKET_ECHO },
	{ { .is_v6 = true, .protocol = NET_PROTO_ICMPV6, .icmp_type = 2, .n_payload = 60 },
		PACKET_ICMP_ERROR },
	{ { .is_v6 = true, .protocol = NET_PROTO_ICMPV6, .icmp_type = 135, .n_payload = 16 },
		PACKET_ICMP_OTHER },
	{ { .is_v6 = true, .protocol = NET_PROTO_ICMPV6, .icmp_type = 5 }, PACKET_ICMP_OTHER },
	{ { .is_v6 = true, .protocol = NET_PROTO_ICMP, .icmp_type = 8 }, PACKET_PROTOCOL },
	{ { .is_v6 = true, .protocol = 59 }, PACKET_PROTOCOL },
	{ { .is_v6 = true,
		  .extensions = extensions,
		  .n_extension_bytes = sizeof(extensions),
		  .first_extension = 0,
		  .n_payload = 6 },
		PACKET_FLOW },
	{ { .is_v6 = true,
		  .protocol = NET_PROTO_UDP,
		  .extensions = extensions + 8,
		  .n_extension_bytes = 24,
		  .first_extension = 60,
		  .n_payload = 6 },
		PACKET_FLOW },
	{ { .protocol = NET_PROTO_SCTP, .n_payload = 16 }, PACKET_FLOW },
	{ { .protocol = NET_PROTO_SCTP, .sctp_chunk = SCTP_INIT, .n_payload = 28 }, PACKET_FLOW },
	{ { .protocol = NET_PROTO_SCTP, .sctp_chunk = SCTP_ABORT }, PACKET_FLOW },
	{ { .is_v6 = true, .protocol = NET_PROTO_SCTP, .sctp_chunk = 3, .n_payload = 13 },
		PACKET_FLOW },
	{ { .is_v6 = true,
		  .protocol = NET_PROTO_SCTP,
		  .sctp_chunk = SCTP_INIT,
		  .extensions = extensions + 8,
		  .n_extension_bytes = 24,
		  .first_extension = 60,
		  .n_payload = 16 },
		PACKET_FLOW },
};

static void test_good(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(goods); i++) {
		const struct frame_spec *s = &goods[i].spec;
		size_t n = frame_build(s, frame);
		struct frame_layout want = frame_layout_of(frame, 14);
		for (uint16_t n_padding = 0; n_padding < 3; n_padding++) {
			struct packet p = parse_bytes(frame, n + n_padding);
			assert_int_equal(p.kind, goods[i].kind);
			assert_int_equal(p.is_v6, s->is_v6);
			assert_true(p.have_addresses);
			assert_int_equal(p.ttl, 61);
			assert_int_equal(p.l3_offset, 14);
			assert_int_equal(p.l3_length, n - 14);
			assert_int_equal(p.protocol, want.protocol);
			assert_int_equal(p.l4_offset, want.l4);
			assert_int_equal(p.l4_length, want.end - want.l4);
			if (p.kind != PACKET_FLOW)
				continue;
			assert_int_equal(p.src_port, RTE_BE16(40000));
			assert_int_equal(p.dst_port, RTE_BE16(80));
		}
	}
}

static void test_fields(void **state)
{
	char text[ADDRESS_TEXT_LEN];
	struct packet p = parse_spec((struct frame_spec){ .tcp_flags = TCP_SYN | TCP_ACK | 0xc0 });
	assert_string_equal(address_format(&p.src, text), "198.51.100.7");
	assert_string_equal(address_format(&p.dst, text), "203.0.113.10");
	assert_int_equal(p.tcp_flags, TCP_SYN | TCP_ACK | 0xc0);
	assert_false(p.is_atomic_fragment);
	p = parse_spec((struct frame_spec){ .is_v6 = true,
		.extensions = extensions + 32,
		.n_extension_bytes = 8,
		.first_extension = 44 });
	assert_string_equal(address_format(&p.src, text), "2001:db8:c::7");
	assert_string_equal(address_format(&p.dst, text), "2001:db8:1::10");
	assert_true(p.is_atomic_fragment);
	assert_int_equal(p.kind, PACKET_FLOW);
	p = parse_spec((struct frame_spec){
		.protocol = NET_PROTO_ICMP, .icmp_type = 8, .src_port = 0x1234 });
	assert_int_equal(p.src_port, RTE_BE16(0x1234));
	assert_int_equal(p.dst_port, 0);
}

// A cut frame is never one that could be forwarded; the sanitizer watches the reads.
static void test_cut_at_every_byte(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(goods); i++) {
		size_t n = frame_build(&goods[i].spec, frame);
		for (size_t cut = 0; cut < n; cut++) {
			struct packet p = parse_bytes(frame, cut);
			assert_int_equal(p.kind, PACKET_BAD);
			assert_int_not_equal(p.reason, DROP_SEGMENTED_HEADERS);
			assert_int_equal(p.have_addresses, cut >= (goods[i].spec.is_v6 ? 54 : 34));
			if (cut < 14)
				assert_bad(p, DROP_ETH_TRUNCATED);
			else if (cut < (goods[i].spec.is_v6 ? 54 : 34))
				assert_bad(p, goods[i].spec.is_v6 ? DROP_V6_TRUNCATED
								  : DROP_V4_TRUNCATED);
			else
				assert_bad(p, goods[i].spec.is_v6 ? DROP_V6_BAD_LENGTH
								  : DROP_V4_BAD_LENGTH);
		}
	}
}

// The same with IP lengths that agree with the cut: now L4 and extension headers are short.
static void test_cut_with_true_lengths(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(goods); i++) {
		const struct frame_spec *s = &goods[i].spec;
		size_t n = frame_build(s, frame);
		struct packet whole = parse_bytes(frame, n);
		for (size_t cut = s->is_v6 ? 54 : 34u + s->v4_option_bytes; cut < n; cut++) {
			frame_put16(frame + (s->is_v6 ? 18 : 16),
				(uint32_t)(cut - (s->is_v6 ? 54 : 14)));
			if (!s->is_v6)
				frame_put16(frame + 24, frame_v4_checksum(frame, 14));
			struct packet p = parse_bytes(frame, cut);
			if (whole.kind == PACKET_FLOW && whole.protocol == NET_PROTO_UDP)
				assert_int_equal(p.kind, PACKET_BAD);
			if (whole.protocol == NET_PROTO_SCTP && cut >= whole.l4_offset)
				assert_bad(p, cut < whole.l4_offset + 16u ? DROP_SCTP_TRUNCATED
									  : DROP_SCTP_BAD_CHUNK);
			if (whole.kind == PACKET_FLOW && cut < whole.l4_offset + 20u)
				assert_int_equal(p.kind, PACKET_BAD);
			if (p.kind == PACKET_BAD)
				assert_true(p.have_addresses);
		}
	}
}

// Headers in the first segment, or refused by name; payload may lie in the second.
static void test_split_at_every_byte(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(goods); i++) {
		size_t n = frame_build(&goods[i].spec, frame);
		struct packet whole = parse_bytes(frame, n);
		size_t n_headers = whole.l4_offset;
		bool is_first = whole.kind == PACKET_FRAGMENT && whole.fragment == 1;
		if ((whole.kind == PACKET_FLOW || is_first) && whole.protocol == NET_PROTO_TCP)
			n_headers += 20u + goods[i].spec.tcp_option_bytes;
		else if (whole.kind == PACKET_FLOW && whole.protocol == NET_PROTO_SCTP)
			n_headers += whole.tcp_flags == TCP_SYN ? 20 : 16; // INIT: with its tag
		else if (whole.kind >= PACKET_FLOW && whole.kind <= PACKET_ICMP_OTHER)
			n_headers += 8;
		for (size_t first = 0; first <= n; first++) {
			struct rte_mbuf *mbuf = frame_mbuf_split(frame, n, first);
			struct packet p = parse(mbuf);
			if (first < n_headers) {
				assert_bad(p, DROP_SEGMENTED_HEADERS);
			} else {
				assert_memory_equal(&p, &whole, sizeof(p));
				assert_true(packet_l4_checksum_ok(mbuf, &p));
			}
			frame_mbuf_destroy(mbuf);
		}
	}
}

// ---------------------------------------------------------------- refusals
// One byte of a good frame set to a value, checksums put right again.
struct edit {
	uint16_t at;
	uint8_t value;
	uint8_t reason; // DROP_NONE: still good
};

static void check_edits(struct frame_spec spec, const struct edit *edits, size_t n_edits)
{
	for (size_t i = 0; i < n_edits; i++) {
		size_t n = frame_build(&spec, frame);
		frame[edits[i].at] = edits[i].value;
		if (!spec.is_v6 && (frame[14] & 15) >= 5)
			frame_put16(frame + 24, frame_v4_checksum(frame, 14));
		struct packet p = parse_bytes(frame, n);
		if (edits[i].reason == DROP_NONE)
			assert_int_not_equal(p.kind, PACKET_BAD);
		else
			assert_bad(p, edits[i].reason);
	}
}

static void test_refused_v4(void **state)
{
	const struct edit ip[] = {
		{ 14, 0x55, DROP_V4_BAD_VERSION }, { 14, 0x65, DROP_V4_BAD_VERSION },
		{ 14, 0x44, DROP_V4_BAD_VERSION }, { 14, 0x40, DROP_V4_BAD_VERSION },
		{ 14, 0x46, DROP_V4_OPTIONS }, { 14, 0x4f, DROP_V4_BAD_LENGTH },
		{ 17, 19, DROP_V4_BAD_LENGTH }, { 16, 1, DROP_V4_BAD_LENGTH },
		{ 17, 45, DROP_V4_BAD_LENGTH }, { 17, 39, DROP_TCP_TRUNCATED },
		{ 17, 20, DROP_TCP_TRUNCATED }, { 26, 127, DROP_IMPOSSIBLE_SOURCE },
		{ 26, 224, DROP_IMPOSSIBLE_SOURCE }, { 26, 239, DROP_IMPOSSIBLE_SOURCE },
		{ 26, 10, DROP_NONE }, { 15, 0xff, DROP_NONE }, { 20, 0x40, DROP_NONE },
		{ 22, 1, DROP_NONE }, // TTL 1 is for the pipeline to answer
	};
	check_edits((struct frame_spec){ .n_payload = 4 }, ip, ARRAY_SIZE(ip));
	size_t n = frame_build(&(struct frame_spec){ .n_payload = 4 }, frame);
	for (size_t bit = 0; bit < 16; bit++) {
		frame[24 + bit / 8] ^= (uint8_t)(1 << bit % 8);
		assert_bad(parse_bytes(frame, n), DROP_V4_BAD_CHECKSUM);
		frame[24 + bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
	assert_bad(parse_spec((struct frame_spec){ .v4_option_bytes = 8 }), DROP_V4_OPTIONS);
	assert_bad(parse_spec((struct frame_spec){ .src = "0.0.0.0" }), DROP_IMPOSSIBLE_SOURCE);
	assert_bad(parse_spec((struct frame_spec){
			   .src = "127.0.0.1", .v4_fragment = RTE_BE16(0x2000) }),
		DROP_IMPOSSIBLE_SOURCE);
	assert_bad(parse_spec((struct frame_spec){ .src = "255.255.255.255" }),
		DROP_IMPOSSIBLE_SOURCE);
}

static void test_refused_v6(void **state)
{
	const struct edit ip[] = {
		{ 14, 0x40, DROP_V6_BAD_VERSION },
		{ 14, 0x70, DROP_V6_BAD_VERSION },
		{ 14, 0x6f, DROP_NONE },
		{ 18, 1, DROP_V6_BAD_LENGTH },
		{ 19, 25, DROP_V6_BAD_LENGTH },
		{ 19, 19, DROP_TCP_TRUNCATED },
		{ 19, 0, DROP_TCP_TRUNCATED },
		{ 22, 0xff, DROP_IMPOSSIBLE_SOURCE },
	};
	check_edits((struct frame_spec){ .is_v6 = true, .n_payload = 4 }, ip, ARRAY_SIZE(ip));
	struct packet p = parse_spec((struct frame_spec){ .is_v6 = true, .src = "::1" });
	assert_bad(p, DROP_IMPOSSIBLE_SOURCE);
	const uint8_t fragment[] = { 0, 0, 0, 1, 0, 0, 0, 9 };
	p = parse_spec((struct frame_spec){ .is_v6 = true,
		.src = "::1",
		.extensions = fragment,
		.n_extension_bytes = 8,
		.first_extension = 44 });
	assert_bad(p, DROP_IMPOSSIBLE_SOURCE);
	assert_bad(parse_spec((struct frame_spec){ .is_v6 = true, .src = "::" }),
		DROP_IMPOSSIBLE_SOURCE);
	// With its header a payload of 65,535 would not fit a 16-bit length: refused, however long the frame is.
	size_t n_short = frame_build(&(struct frame_spec){ .is_v6 = true }, frame);
	frame_put16(frame + 18, 65535);
	struct rte_mbuf *mbuf = frame_mbuf(frame, n_short);
	mbuf->pkt_len = 14 + 40 + 65535;
	assert_bad(parse(mbuf), DROP_V6_BAD_LENGTH);
	frame_mbuf_destroy(mbuf);
	// IPv4-mapped: refused, and not to be taken for the IPv4 address.
	for (int at = 22; at <= 38; at += 16) {
		size_t n = frame_build(&(struct frame_spec){ .is_v6 = true }, frame);
		memset(frame + at, 0, 10);
		memset(frame + at + 10, 0xff, 2);
		p = parse_bytes(frame, n);
		assert_bad(p, DROP_IMPOSSIBLE_SOURCE);
		assert_false(p.have_addresses);
	}
}

static void test_refused_l4(void **state)
{
	const struct edit tcp[] = {
		{ 46, 0x40, DROP_TCP_BAD_OFFSET },
		{ 46, 0x00, DROP_TCP_BAD_OFFSET },
		{ 46, 0x60, DROP_NONE },
		{ 46, 0x70, DROP_TCP_BAD_OFFSET },
		{ 46, 0xf0, DROP_TCP_BAD_OFFSET },
		{ 47, 0, DROP_TCP_BAD_FLAGS },
		{ 47, 0xc0, DROP_TCP_BAD_FLAGS },
		{ 47, TCP_SYN | TCP_FIN, DROP_TCP_BAD_FLAGS },
		{ 47, TCP_SYN | TCP_RST, DROP_TCP_BAD_FLAGS },
		{ 47, 0xff, DROP_TCP_BAD_FLAGS },
		{ 47, TCP_FIN, DROP_NONE },
		{ 47, TCP_RST | TCP_ACK, DROP_NONE },
	};
	check_edits((struct frame_spec){ .n_payload = 4 }, tcp, ARRAY_SIZE(tcp));
	const struct edit udp[] = {
		{ 39, 11, DROP_UDP_BAD_LENGTH },
		{ 39, 13, DROP_UDP_BAD_LENGTH },
		{ 39, 0, DROP_UDP_BAD_LENGTH },
		{ 38, 1, DROP_UDP_BAD_LENGTH },
	};
	for (uint16_t n_padding = 0; n_padding < 50; n_padding += 40) // short and long frames
		check_edits(
			(struct frame_spec){
				.protocol = NET_PROTO_UDP, .n_payload = 4, .n_padding = n_padding },
			udp, ARRAY_SIZE(udp));
	size_t n = 0;
	for (uint16_t n_payload = 0; n_payload < 50; n_payload += 40) {
		struct frame_spec bare = {
			.is_v6 = true, .protocol = NET_PROTO_UDP, .n_payload = n_payload
		};
		n = frame_build(&bare, frame);
		frame_put16(frame + 60, 0);
		assert_bad(parse_bytes(frame, n), DROP_BAD_L4_CHECKSUM);
	}
	// What only looks like UDP, and UDP that is shorter than its header and says so.
	uint8_t alike[40] = { 0, 9, 0, 9, 0, sizeof(alike) };
	struct frame_spec esp = { .protocol = 50, .payload = alike, .n_payload = sizeof(alike) };
	assert_int_equal(parse_spec(esp).kind, PACKET_PROTOCOL);
	uint8_t shorter[7] = { 0, 9, 0, 9, 0, sizeof(shorter) };
	struct frame_spec raw_udp = {
		.protocol = 99, .payload = shorter, .n_payload = sizeof(shorter), .n_padding = 40
	};
	n = frame_build(&raw_udp, frame);
	frame[23] = NET_PROTO_UDP;
	frame_put16(frame + 24, frame_v4_checksum(frame, 14));
	assert_bad(parse_bytes(frame, n), DROP_UDP_TRUNCATED);
	for (uint16_t left = 0; left < 8; left++) {
		struct frame_spec raw = { .protocol = 99, .n_payload = left };
		n = frame_build(&raw, frame);
		frame[23] = NET_PROTO_UDP;
		frame_put16(frame + 24, frame_v4_checksum(frame, 14));
		assert_bad(parse_bytes(frame, n), DROP_UDP_TRUNCATED);
		frame[23] = NET_PROTO_ICMP;
		frame_put16(frame + 24, frame_v4_checksum(frame, 14));
		assert_bad(parse_bytes(frame, n), DROP_ICMP_TRUNCATED);
	}
}

static void test_own_mac(void **state)
{
	const struct mac own = { { 2, 0, 0, 0, 0, 2 } };
	size_t n = frame_build(&(struct frame_spec){ .n_payload = 1 }, frame);
	struct rte_mbuf *mbuf = frame_mbuf(frame, n);
	struct packet p;
	packet_parse(mbuf, &own, &p);
	assert_int_equal(p.kind, PACKET_FLOW);
	frame_bytes(mbuf)[5] ^= 1;
	packet_parse(mbuf, &own, &p);
	assert_bad(p, DROP_NOT_OUR_MAC);
	packet_parse(mbuf, NULL, &p);
	assert_int_equal(p.kind, PACKET_FLOW);
	memset(frame_bytes(mbuf), 0xff, 6); // broadcast
	packet_parse(mbuf, &own, &p);
	assert_int_equal(p.kind, PACKET_FLOW);
	frame_bytes(mbuf)[0] = 0x33; // multicast
	packet_parse(mbuf, &own, &p);
	assert_int_equal(p.kind, PACKET_FLOW);
	frame_mbuf_destroy(mbuf);
}

// What keeps the kernel's side of a network alive.
static void test_kernel_traffic(void **state)
{
	struct packet p = parse_spec((struct frame_spec){ .protocol = NET_PROTO_UDP,
		.src = "0.0.0.0",
		.dst = "255.255.255.255",
		.src_port = 68,
		.dst_port = 67 });
	assert_int_equal(p.kind, PACKET_OTHER);
	p = parse_spec((struct frame_spec){
		.protocol = 2, .src = "0.0.0.0", .dst = "224.0.0.1", .v4_option_bytes = 4 });
	assert_int_equal(p.kind, PACKET_OTHER);
	p = parse_spec((struct frame_spec){ .protocol = 2, .dst = "224.0.0.1" });
	assert_int_equal(p.kind, PACKET_OTHER);
	p = parse_spec((struct frame_spec){ .is_v6 = true, // duplicate address detection
		.protocol = NET_PROTO_ICMPV6,
		.icmp_type = 135,
		.src = "::",
		.dst = "ff02::1:ff00:1",
		.n_payload = 16 });
	assert_int_equal(p.kind, PACKET_ICMP_OTHER);
	const uint8_t router_alert[] = { 0, 0, 5, 2, 0, 0, 1, 0 };
	for (int i = 0; i < 2; i++) { // MLDv2 report, with and without an address yet
		p = parse_spec((struct frame_spec){ .is_v6 = true,
			.protocol = NET_PROTO_ICMPV6,
			.icmp_type = 143,
			.src = i ? "::" : "fe80::1",
			.dst = "ff02::16",
			.extensions = router_alert,
			.n_extension_bytes = 8,
			.first_extension = 0,
			.n_payload = 20 });
		assert_int_equal(p.kind, PACKET_ICMP_OTHER);
	}
	// Cut short even so: for the kernel to judge, and no message that could be summed.
	p = parse_spec((struct frame_spec){
		.is_v6 = true, .protocol = 99, .src = "::", .dst = "ff02::1", .n_payload = 7 });
	assert_int_equal(p.kind, PACKET_OTHER);
	size_t n_cut = frame_build(&(struct frame_spec){ .is_v6 = true,
					   .protocol = 99,
					   .src = "::",
					   .dst = "ff02::1",
					   .n_payload = 7 },
		frame);
	frame[20] = NET_PROTO_ICMPV6;
	assert_bad(parse_bytes(frame, n_cut), DROP_ICMP_TRUNCATED);
	const uint16_t types[] = { 0x0806, 0x8100, 0x88a8, 0x88cc, 0x0027 };
	for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
		size_t n = frame_build(&(struct frame_spec){ 0 }, frame);
		frame_put16(frame + 12, types[i]);
		p = parse_bytes(frame, n);
		assert_int_equal(p.kind, PACKET_OTHER);
		assert_false(p.have_addresses);
		assert_int_equal(parse_bytes(frame, 14).kind, PACKET_OTHER);
	}
}

static struct packet parse_extensions(const uint8_t *headers, size_t n, uint8_t first)
{
	return parse_spec((struct frame_spec){ .is_v6 = true,
		.extensions = headers,
		.n_extension_bytes = (uint16_t)n,
		.first_extension = first });
}

static void test_extension_headers(void **state)
{
	uint8_t headers[9 * 8];
	for (size_t n = 1; n <= 9; n++) { // destination options, at most 8 of them
		for (size_t i = 0; i < n; i++)
			memcpy(headers + i * 8, (uint8_t[]){ 60, 0, 1, 4, 0, 0, 0, 0 }, 8);
		struct packet p = parse_extensions(headers, n * 8, 60);
		if (n <= 8)
			assert_int_equal(p.kind, PACKET_FLOW);
		else
			assert_bad(p, DROP_V6_TOO_MANY_HEADERS);
	}
	uint8_t routing[8] = { 0, 0, 0, 1 };
	assert_bad(parse_extensions(routing, 8, 43), DROP_V6_ROUTING_HEADER);
	routing[3] = 0;
	assert_int_equal(parse_extensions(routing, 8, 43).kind, PACKET_FLOW);
	// A header that is longer than the packet.
	size_t n = frame_build(&(struct frame_spec){ .is_v6 = true,
				       .extensions = routing,
				       .n_extension_bytes = 8,
				       .first_extension = 43 },
		frame);
	frame[55] = 3;
	assert_bad(parse_bytes(frame, n), DROP_V6_TRUNCATED);
	frame[55] = 0xff;
	assert_bad(parse_bytes(frame, n), DROP_V6_TRUNCATED);
	memset(frame + n, 0, 8 * 256 + 8); // long enough for the frame, not for the packet
	assert_bad(parse_bytes(frame, n + 8 * 256), DROP_V6_TRUNCATED);
	// Hop-by-hop that is not first is a protocol that nobody knows.
	const uint8_t late[] = { 0, 0, 1, 4, 0, 0, 0, 0, 6, 0, 1, 4, 0, 0, 0, 0 };
	assert_int_equal(parse_extensions(late, 16, 60).kind, PACKET_PROTOCOL);
	// Fragments.
	for (uint32_t word = 0; word < 0x10000; word += 1) {
		if (word > 32 && (word & 0x3f) != 1)
			continue;
		uint8_t fragment[8] = { 6, 0, (uint8_t)(word >> 8), (uint8_t)word, 9, 9, 9, 9 };
		struct packet p = parse_extensions(fragment, 8, 44);
		bool is_whole = (word & 0xfff9) == 0,
		     is_odd = word & 1; // 20 bytes are no multiple of 8
		uint32_t offset = word & 0xfff8;
		assert_int_equal(p.kind, is_whole ? PACKET_FLOW
					 : is_odd || offset + 20 > 65535 || (offset && offset < 20)
						 ? PACKET_BAD
						 : PACKET_FRAGMENT);
		assert_int_equal(p.is_atomic_fragment, is_whole);
		assert_int_equal(p.fragment, word & 0xfff9);
		assert_int_equal(p.fragment_header, 54);
		assert_true(p.have_addresses);
	}
}

// ---------------------------------------------------------------- checksums of what came
static void test_checksum_ok(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(goods); i++) {
		size_t n = frame_build(&goods[i].spec, frame);
		struct rte_mbuf *mbuf = frame_mbuf(frame, n);
		struct packet p = parse(mbuf);
		assert_true(packet_l4_checksum_ok(mbuf, &p));
		bool is_summed = (p.kind >= PACKET_FLOW && p.kind <= PACKET_ICMP_OTHER) &&
				 !goods[i].spec.udp_no_checksum;
		for (size_t at = p.l4_offset; is_summed && at < n; at++) {
			frame_bytes(mbuf)[at] ^= 0x10;
			assert_false(packet_l4_checksum_ok(mbuf, &p));
			frame_bytes(mbuf)[at] ^= 0x10;
		}
		assert_false(packet_l4_checksum_is_partial(mbuf, &p));
		frame_mbuf_destroy(mbuf);
	}
}

static void test_checksum_partial(void **state)
{
	for (int i = 0; i < 4; i++) {
		struct frame_spec s = { .is_v6 = i & 1,
			.protocol = i & 2 ? NET_PROTO_UDP : NET_PROTO_TCP,
			.n_payload = 33 };
		size_t n = frame_build(&s, frame);
		struct frame_layout l = frame_layout_of(frame, 14);
		uint8_t tail[4] = { 0, l.protocol };
		frame_put16(tail + 2, (uint32_t)(l.end - l.l4));
		uint32_t sum = frame_sum(0, frame + (s.is_v6 ? 22 : 26), s.is_v6 ? 32 : 8);
		frame_put16(
			frame + l.l4 + frame_checksum_offset(l.protocol), frame_sum(sum, tail, 4));
		struct rte_mbuf *mbuf = frame_mbuf(frame, n);
		struct packet p = parse(mbuf);
		assert_true(packet_l4_checksum_is_partial(mbuf, &p));
		assert_false(packet_l4_checksum_ok(mbuf, &p));
		frame_mbuf_destroy(mbuf);
	}
}

// ---------------------------------------------------------------- anything at all
// Good frames with a few bytes changed, cut, and with true IPv4 checksums half of the time. Whatever is accepted lies within the frame.
static void test_mutations(void **state)
{
	uint64_t seed = 20260203;
	uint32_t n_kinds[PACKET_BAD + 1] = { 0 };
	printf("packet: seed %lu\n", (unsigned long)seed);
	for (int i = 0; i < 200000; i++) {
		const struct frame_spec *s = &goods[frame_random(&seed) % ARRAY_SIZE(goods)].spec;
		size_t n = frame_build(s, frame);
		for (uint64_t k = frame_random(&seed) % 4; k > 0; k--)
			frame[12 + frame_random(&seed) % (n - 12)] = (uint8_t)frame_random(&seed);
		if (frame_random(&seed) % 4 == 0)
			n = frame_random(&seed) % (n + 1);
		if (!s->is_v6 && n >= 34 && (frame[14] & 15) >= 5 && frame_random(&seed) % 2 &&
			14 + (frame[14] & 15) * 4u <= n)
			frame_put16(frame + 24, frame_v4_checksum(frame, 14));
		struct rte_mbuf *mbuf =
			frame_random(&seed) % 2
				? frame_mbuf(frame, n)
				: frame_mbuf_split(frame, n, frame_random(&seed) % (n + 1));
		struct packet p = parse(mbuf);
		assert_in_range(p.kind, PACKET_OTHER, PACKET_BAD);
		n_kinds[p.kind]++;
		assert_int_equal(p.kind == PACKET_BAD, p.reason != DROP_NONE);
		if (p.kind != PACKET_OTHER && p.kind != PACKET_BAD) {
			assert_true(p.l3_offset + p.l3_length <= (int)n);
			assert_int_equal(p.l4_offset + p.l4_length, p.l3_offset + p.l3_length);
			assert_true(p.l4_offset <= mbuf->data_len);
		}
		// The short way for common packets and the long one, which frames to a group take.
		const struct mac nobody = { { 0 } };
		struct packet again;
		frame[0] = 3;
		struct rte_mbuf *other = frame_mbuf(frame, n);
		if (mbuf->nb_segs == 1 && n > 0) {
			packet_parse(other, &nobody, &again);
			assert_memory_equal(&again, &p, sizeof(p));
		}
		frame_mbuf_destroy(other);
		packet_l4_checksum_ok(mbuf, &p);
		packet_l4_checksum_is_partial(mbuf, &p);
		frame_mbuf_destroy(mbuf);
	}
	for (int kind = 0; kind <= PACKET_BAD; kind++)
		assert_true(n_kinds[kind] > 500); // every kind was met
}

// plain.h asks by one product whether a header's sum is 0; the arithmetic of the checksum is the judge. Words of all zeros
// and all ones make every carry there is.
static void test_sum_of_plain_header(void **state)
{
	uint64_t random = 1;
	uint32_t n_good = 0;
	for (uint32_t k = 0; k < 300000; k++) {
		uint16_t words[10];
		uint64_t sum = 0;
		for (uint32_t i = 0; i < 10; i++) {
			random = random * 6364136223846793005ull + 1442695040888963407ull;
			uint16_t edge = random >> 40 & 1 ? 0xffff : 0;
			words[i] = k % 3 == 0 ? (uint16_t)(random >> 33) : edge;
		}
		words[0] |= 0x45; // never all zeros
		words[5] = k % 2 ? 0 : words[5];
		for (uint32_t i = 0; i < 10; i++)
			sum += words[i];
		words[5] = k % 2 ? (uint16_t)~checksum_fold(sum) : words[5];
		bool is_good = checksum_fold(checksum_sum(words, sizeof(words))) == 0xffff;
		assert_int_equal(plain_v4_sum_ok(words), is_good);
		n_good += is_good;
	}
	assert_true(n_good >= 150000 && n_good < 300000);
	for (uint32_t flags = 0; flags < 256; flags++) {
		bool starts = flags & TCP_SYN, ends = flags & (TCP_FIN | TCP_RST);
		assert_int_equal(plain_tcp_flags_ok((uint8_t)flags),
			(flags & 0x3f) != 0 && !(starts && ends));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sum_of_plain_header),
		cmocka_unit_test(test_good),
		cmocka_unit_test(test_fields),
		cmocka_unit_test(test_cut_at_every_byte),
		cmocka_unit_test(test_cut_with_true_lengths),
		cmocka_unit_test(test_split_at_every_byte),
		cmocka_unit_test(test_refused_v4),
		cmocka_unit_test(test_refused_v6),
		cmocka_unit_test(test_refused_l4),
		cmocka_unit_test(test_own_mac),
		cmocka_unit_test(test_kernel_traffic),
		cmocka_unit_test(test_extension_headers),
		cmocka_unit_test(test_checksum_ok),
		cmocka_unit_test(test_checksum_partial),
		cmocka_unit_test(test_mutations),
	};
	return cmocka_run_group_tests_name("packet", tests, NULL, NULL);
}
