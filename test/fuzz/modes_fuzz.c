// SPDX-License-Identifier: BSD-3-Clause
// Arbitrary bytes as a frame through the rewriters that change its size: tunnels, the other family, errors across both, errors in cut
// frames; and the MSS clamp. Mbufs are of exact length, so the sanitizer sees every overrun. Oracles: a refusal changes
// nothing, what comes out parses to what was asked for, checksums are right by recomputation when they were, and payload is the same.
//
// Input: 4 bytes of control (flags; where the first segment ends; headroom; tailroom), then the frame.
#include <assert.h>

#include "../unit/frames_priv.h"

#define CONTROL_BYTES 4

static uint8_t input[FRAME_MAX], output[2 * FRAME_MAX];
static size_t n_input;
static uint8_t control[CONTROL_BYTES];

static struct rte_mbuf *mbuf_make(void)
{
	size_t first = control[1] * 4u;
	if (first == 0 || first >= n_input)
		return frame_mbuf_room(input, n_input, control[2] & 0x7f, control[3] & 0x7f);
	struct rte_mbuf *mbuf = frame_mbuf_room(input, first, control[2] & 0x7f, control[3] & 0x7f);
	mbuf->next = frame_mbuf(input + first, n_input - first);
	mbuf->nb_segs = 2;
	mbuf->pkt_len = (uint32_t)n_input;
	return mbuf;
}

static size_t gather(const struct rte_mbuf *mbuf)
{
	size_t n = 0;
	for (const struct rte_mbuf *s = mbuf; s; s = s->next) {
		assert(s->data_off + s->data_len <= s->buf_len);
		memcpy(output + n, frame_bytes(s), s->data_len);
		n += s->data_len;
	}
	assert(n == mbuf->pkt_len);
	return n;
}

static void check_untouched(const struct rte_mbuf *mbuf)
{
	assert(gather(mbuf) == n_input && memcmp(output, input, n_input) == 0);
}

static struct address address_make(bool is_v6, uint8_t last)
{
	struct address a = { .bytes = { 0x20, 0x01, 0x0d, 0xb8, [15] = last } };
	return is_v6 ? a : address_from_v4(rte_cpu_to_be_32(0xcb007100u | last));
}

static struct packet_nat nat_make(bool is_v6)
{
	return (struct packet_nat){
		.src = address_make(is_v6, 1),
		.dst = address_make(is_v6, 2),
		.src_port = RTE_BE16(0xffff),
		.dst_port = RTE_BE16(1),
	};
}

// The whole IP packet in `output`, of n bytes with Ethernet, has right lengths and checksums.
static void check_output(size_t n, bool is_summed)
{
	struct frame_layout l = frame_layout_of(output, 14);
	assert(l.end == n);
	assert(!is_summed || frame_checksums_ok(output, 14));
}

// ---------------------------------------------------------------- tunnels
static void try_tunnel(const struct packet *p, bool was_summed, uint32_t which)
{
	enum packet_tunnel_kind kind = which & 1 ? PACKET_TUNNEL_GUE : PACKET_TUNNEL_IPIP;
	bool is_v6 = which & 2;
	struct packet_tunnel tunnel;
	struct address src = address_make(is_v6, 1), dst = address_make(is_v6, 2);
	struct packet_outer outer = { .id = 0x1234, .entropy = 0xffff };
	packet_tunnel_init(&tunnel, kind, &src, &dst);
	struct rte_mbuf *mbuf = mbuf_make();
	bool done = kind == PACKET_TUNNEL_GUE ? packet_rewrite_gue(mbuf, p, &tunnel, &outer)
					      : packet_rewrite_ipip(mbuf, p, &tunnel, &outer);
	if (!done) {
		check_untouched(mbuf);
	} else {
		size_t n = gather(mbuf), overhead = packet_tunnel_overhead(kind, is_v6);
		assert(n == 14 + overhead + p->l3_length);
		assert(memcmp(output + 14 + overhead, input + 14, p->l3_length) == 0);
		check_output(n, was_summed || !is_v6 || kind == PACKET_TUNNEL_IPIP);
		struct packet again;
		packet_parse(mbuf, NULL, &again);
		assert(address_equal(&again.dst, &dst) && again.ttl == 64);
	}
	frame_mbuf_destroy(mbuf);
}

// ---------------------------------------------------------------- the other family
static void try_cross(const struct packet *p, bool was_summed)
{
	struct packet_nat nat = nat_make(!p->is_v6);
	struct rte_mbuf *mbuf = mbuf_make();
	if (!packet_rewrite_cross(mbuf, p, &nat)) {
		check_untouched(mbuf);
		frame_mbuf_destroy(mbuf);
		return;
	}
	size_t n = gather(mbuf), l4 = p->is_v6 ? 34 : 54;
	assert(n == l4 + p->l4_length);
	size_t n_changed = p->protocol == NET_PROTO_TCP   ? 18
			   : p->protocol == NET_PROTO_UDP ? 8
							  : 12;
	assert(memcmp(output + l4 + n_changed, input + p->l4_offset + n_changed,
		       p->l4_length - n_changed) == 0);
	check_output(n, was_summed);
	struct packet again;
	packet_parse(mbuf, NULL, &again);
	assert(again.kind == PACKET_FLOW && again.ttl == (uint8_t)(p->ttl - 1));
	assert(address_equal(&again.dst, &nat.dst) && again.dst_port == nat.dst_port);
	frame_mbuf_destroy(mbuf);
}

static void try_error_cross(const struct packet *p)
{
	struct packet quoted;
	struct packet_nat nat = nat_make(!p->is_v6);
	struct rte_mbuf *mbuf = mbuf_make();
	if (packet_parse_quoted(mbuf, p, &quoted)) {
		enum drop_reason refused =
			packet_rewrite_icmp_error_cross(mbuf, p, &quoted, &nat, &nat);
		if (refused != DROP_NONE) {
			assert(refused == DROP_ICMP_TYPE || refused == DROP_NO_HEADROOM);
			check_untouched(mbuf);
		} else {
			size_t n = gather(mbuf);
			assert(n <= 14u + (p->is_v6 ? 576 : 1280));
			check_output(n, true);
		}
	}
	frame_mbuf_destroy(mbuf);
}

// ---------------------------------------------------------------- answers
static void try_relayed(const struct packet *p)
{
	struct packet_quoted_tunnel quoted;
	struct rte_mbuf *mbuf = mbuf_make();
	frame_mbuf_destroy(packet_detach_tail(mbuf));
	if (packet_parse_quoted_tunnel(mbuf, p, &quoted)) {
		assert(quoted.inner.l4_offset + quoted.inner.l4_length <= mbuf->data_len);
		assert(quoted.inner.l4_length >= 8);
		if (packet_answer_relayed_error(mbuf, p, &quoted)) {
			size_t n = gather(mbuf);
			assert(n <= 14u + (quoted.inner.is_v6 ? 1280 : 576));
			check_output(n, true);
		}
	}
	frame_mbuf_destroy(mbuf);
}

static void try_detached(const struct packet *p)
{
	struct address from = address_make(p->is_v6, 3);
	for (int error = PACKET_PORT_UNREACHABLE; error <= PACKET_HOST_UNREACHABLE; error++) {
		struct rte_mbuf *mbuf = mbuf_make();
		frame_mbuf_destroy(packet_detach_tail(mbuf));
		if (packet_answer_error(mbuf, p, (enum packet_error)error, &from, 1400))
			check_output(gather(mbuf), true);
		frame_mbuf_destroy(mbuf);
	}
	struct rte_mbuf *mbuf = mbuf_make();
	frame_mbuf_destroy(packet_detach_tail(mbuf));
	if (packet_answer_reset(mbuf, p))
		check_output(gather(mbuf), true);
	frame_mbuf_destroy(mbuf);
}

// ---------------------------------------------------------------- MSS
static void try_mss(const struct packet *p, bool was_summed)
{
	struct rte_mbuf *mbuf = mbuf_make();
	uint16_t max = (uint16_t)(control[0] << 4);
	bool changed = packet_clamp_mss(mbuf, p, max);
	assert(gather(mbuf) == n_input);
	assert(changed == (memcmp(output, input, n_input) != 0));
	if (changed) {
		assert(!was_summed || frame_checksums_ok(output, 14));
		size_t at = p->l4_offset + 20u,
		       end = p->l4_offset + (output[p->l4_offset + 12] >> 4) * 4u;
		assert(memcmp(output, input, at - 4) == 0); // up to the checksum
		assert(memcmp(output + end, input + end, n_input - end) == 0);
	}
	assert(!packet_clamp_mss(mbuf, p, max)); // once is enough
	frame_mbuf_destroy(mbuf);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
	if (n < CONTROL_BYTES || n > FRAME_MAX)
		return 0;
	memcpy(control, bytes, CONTROL_BYTES);
	n_input = n - CONTROL_BYTES;
	memcpy(input, bytes + CONTROL_BYTES, n_input);
	// No fuzzer guesses a checksum: an IPv4 header's is put right, those of L4 when asked for.
	if (n_input >= 34 && input[14] == 0x45)
		frame_put16(input + 24, frame_v4_checksum(input, 14));
	struct rte_mbuf *mbuf = mbuf_make();
	struct packet p;
	packet_parse(mbuf, NULL, &p);
	bool has_checksum =
		p.kind == PACKET_FLOW || p.kind == PACKET_ECHO || p.kind == PACKET_ICMP_ERROR;
	frame_mbuf_destroy(mbuf);
	if (has_checksum && (control[0] & 1))
		frame_fix_checksums(input, 14);
	if (p.kind == PACKET_BAD || p.kind == PACKET_OTHER)
		return 0;
	mbuf = mbuf_make();
	bool was_summed = !has_checksum || frame_checksums_ok(input, 14);
	frame_mbuf_destroy(mbuf);
	for (uint32_t which = 0; which < 4; which++)
		try_tunnel(&p, was_summed, which);
	if (p.kind == PACKET_FLOW && p.ttl > 1)
		try_cross(&p, was_summed);
	if (p.kind == PACKET_FLOW)
		try_mss(&p, was_summed);
	if (p.kind == PACKET_ICMP_ERROR) {
		try_error_cross(&p);
		try_relayed(&p);
	}
	try_detached(&p);
	return 0;
}
