// SPDX-License-Identifier: BSD-3-Clause
// Arbitrary bytes as a frame: parse, then every rewrite and answer that the parse allows, on mbufs of exact length.
// Oracles: recomputed checksums (frames_priv.h), bytes that must not change, lengths that must agree.
//
// Input: 2 bytes of control (which checksums to put right first, as no fuzzer guesses them; where the first segment ends; head- and
// tailroom), then the frame.
#include <assert.h>

#include "../unit/frames_priv.h"

#define CONTROL_BYTES 2

static uint8_t input[FRAME_MAX];
static size_t n_input;
static uint8_t control[CONTROL_BYTES];

static struct rte_mbuf *mbuf_make(void)
{
	size_t first = (control[0] >> 2) * 8u;
	if (first != 0 && first < n_input)
		return frame_mbuf_split(input, n_input, first);
	return frame_mbuf_room(input, n_input, control[1] & 0x7f, control[1] & 0x80 ? 64 : 0);
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

// The IP packet of an unsplit mbuf lies in it, and its checksums are right.
static void check_answer(struct rte_mbuf *mbuf, bool is_summed)
{
	assert(mbuf->nb_segs == 1 && mbuf->pkt_len == mbuf->data_len);
	assert(mbuf->data_off + mbuf->data_len <= mbuf->buf_len);
	struct frame_layout l = frame_layout_of(frame_bytes(mbuf), 14);
	assert(l.end == mbuf->pkt_len);
	assert(!is_summed || frame_checksums_ok(frame_bytes(mbuf), 14));
}

static void check_parse(const struct rte_mbuf *mbuf, const struct packet *p)
{
	assert(p->kind <= PACKET_BAD);
	assert((p->kind == PACKET_BAD) == (p->reason != DROP_NONE) && p->reason < DROP_MAX);
	if (p->kind == PACKET_BAD || p->kind == PACKET_OTHER)
		return;
	assert(p->have_addresses);
	assert((size_t)p->l3_offset + p->l3_length <= n_input);
	assert(p->l4_offset + p->l4_length == p->l3_offset + p->l3_length);
	assert(p->l4_offset <= mbuf->data_len);
	assert(p->is_v6 != address_is_v4(&p->src) && p->is_v6 != address_is_v4(&p->dst));
	assert(!address_is_impossible_source(&p->src) || p->kind == PACKET_ICMP_OTHER ||
		p->kind == PACKET_FRAGMENT);
}

// Frames to a group MAC go the long way through the parser, others may take the short one: the same answer.
static void check_both_ways(const struct packet *p)
{
	static const struct mac nobody;
	struct rte_mbuf *mbuf = mbuf_make();
	struct packet again;
	if (mbuf->data_len > 0) {
		frame_bytes(mbuf)[0] |= 1;
		packet_parse(mbuf, &nobody, &again);
		assert(memcmp(&again, p, sizeof(again)) == 0);
	}
	frame_mbuf_destroy(mbuf);
}

static bool was_summed; // the checksums of the input are right, and written as they ought to be
static bool was_right;  // the L4 one is, if not written so

// Bytes of an L4 header up to which fullnat changes something.
static uint32_t n_changed(uint8_t protocol)
{
	return protocol == NET_PROTO_TCP ? 18 : protocol == NET_PROTO_UDP ? 8 : 12;
}

static void try_fullnat(const struct packet *p)
{
	struct rte_mbuf *mbuf = mbuf_make();
	struct packet_nat nat = nat_make(p->is_v6);
	bool had_none = false;
	if (p->protocol == NET_PROTO_UDP)
		had_none = frame_get16(frame_bytes(mbuf) + p->l4_offset + 6) == 0;
	packet_rewrite_fullnat(mbuf, p, &nat);
	if (p->protocol == NET_PROTO_UDP)
		assert(had_none == (frame_get16(frame_bytes(mbuf) + p->l4_offset + 6) == 0));
	if (mbuf->nb_segs == 1) {
		assert(!was_summed || frame_checksums_ok(frame_bytes(mbuf), 14));
		size_t n_same = p->l4_offset + n_changed(p->protocol);
		assert(memcmp(frame_bytes(mbuf) + n_same, input + n_same, n_input - n_same) == 0);
	}
	struct packet again;
	packet_parse(mbuf, NULL, &again);
	assert(again.kind == PACKET_FLOW && again.ttl == (uint8_t)(p->ttl - 1));
	assert(address_equal(&again.dst, &nat.dst) && again.src_port == nat.src_port);
	frame_mbuf_destroy(mbuf);
}

// Whatever is shown as a fragment has lengths that can be, and the first one its L4 header.
static void try_fragment(const struct packet *p)
{
	uint32_t offset = packet_fragment_offset(p), length = packet_fragment_length(p);
	if (address_is_impossible_source(&p->src)) // the kernel's, not looked into
		return;
	assert(length > 0 && offset + length <= 65535);
	assert(length % 8 == 0 || !packet_fragment_has_more(p));
	if (offset == 0 && p->protocol != NET_PROTO_TCP && p->protocol != NET_PROTO_UDP)
		return; // not rewritten
	struct rte_mbuf *mbuf = mbuf_make();
	struct packet_nat nat = nat_make(p->is_v6);
	packet_rewrite_fragment(mbuf, p, &nat);
	struct packet again;
	packet_parse(mbuf, NULL, &again);
	assert(again.kind == PACKET_FRAGMENT && again.fragment == p->fragment);
	assert(again.ttl == (uint8_t)(p->ttl - 1) && address_equal(&again.dst, &nat.dst));
	assert(offset != 0 || again.src_port == nat.src_port);
	frame_mbuf_destroy(mbuf);
}

static void try_icmp_error(const struct packet *p)
{
	struct rte_mbuf *mbuf = mbuf_make();
	struct packet quoted;
	struct packet_nat nat = nat_make(p->is_v6);
	const uint32_t first = 0x01010101;
	if (packet_parse_quoted(mbuf, p, &quoted)) {
		assert(quoted.l4_offset + 8 <= mbuf->data_len);
		if (quoted.protocol == NET_PROTO_TCP) {
			packet_shift_quoted_sequence(mbuf, p, &quoted, 28, &first);
			assert(!was_summed || packet_l4_checksum_ok(mbuf, p));
		}
		packet_rewrite_icmp_error(mbuf, p, &quoted, &nat, &nat);
		if (mbuf->nb_segs == 1)
			assert(frame_checksums_ok(frame_bytes(mbuf), 14));
	}
	frame_mbuf_destroy(mbuf);
}

// A TCP segment that was changed, or not: its struct packet says what parsing says, its checksums are as right as they were.
static void check_segment(struct rte_mbuf *mbuf, const struct packet *p)
{
	struct packet again;
	packet_parse(mbuf, NULL, &again);
	assert(memcmp(&again, p, sizeof(again)) == 0);
	assert(packet_l4_checksum_ok(mbuf, p) == was_right);
	if (mbuf->nb_segs == 1)
		assert(!was_summed || frame_checksums_ok(frame_bytes(mbuf), 14));
	frame_mbuf_destroy(mbuf);
}

static void try_growth(const struct packet *p)
{
	struct packet_endpoint ends[2];
	for (int i = 0; i < 4; i++) {
		struct rte_mbuf *mbuf = mbuf_make(), *tail = NULL;
		struct packet q = *p;
		ends[0] = ends[1] = (struct packet_endpoint){ address_make(i & 1, 9), 0x1234 };
		struct packet_proxy header;
		packet_proxy_build(&header, &ends[0], &ends[1]);
		enum packet_growth growth =
			i & 2 ? packet_proxy_insert(mbuf, &q, &header, 2000)
			      : packet_toa_insert(mbuf, &q, &ends[0].address, 0x1234, 2000);
		size_t n_more = i & 2 ? header.length : i & 1 ? 20 : 8;
		assert(mbuf->pkt_len == n_input + (growth == PACKET_GROWN ? n_more : 0));
		assert(growth == PACKET_GROWN || memcmp(&q, p, sizeof(q)) == 0);
		check_segment(mbuf, &q);
		mbuf = mbuf_make();
		q = *p;
		growth = packet_proxy_cut_and_insert(mbuf, &q, &header, &tail);
		assert(growth == PACKET_GROWN || (tail == NULL && mbuf->pkt_len == n_input));
		check_segment(mbuf, &q);
		frame_mbuf_destroy(tail);
	}
}

static void try_segment(const struct packet *p)
{
	const uint32_t first = 0x01010101;
	struct rte_mbuf *mbuf = mbuf_make();
	struct packet q = *p;
	frame_mbuf_destroy(packet_cut_payload(mbuf, &q));
	assert(mbuf->nb_segs == 1 && mbuf->pkt_len <= n_input);
	check_segment(mbuf, &q);
	mbuf = mbuf_make();
	packet_shift_sequence(mbuf, p, 28);
	packet_shift_sequence(mbuf, p, -28);
	assert(memcmp(frame_bytes(mbuf), input, mbuf->data_len) == 0 || !was_summed);
	check_segment(mbuf, p);
	for (int i = 0; i < 2; i++) {
		mbuf = mbuf_make();
		packet_shift_acknowledgement(mbuf, p, 52, i ? &first : NULL);
		check_segment(mbuf, p);
	}
}

// Any frame: off and on again, on and off again.
static void try_vlan(void)
{
	struct rte_mbuf *mbuf = mbuf_make();
	enum drop_reason reason = packet_vlan_strip(mbuf, 100);
	assert(mbuf->pkt_len == n_input - (reason == DROP_NONE ? 4 : 0));
	if (reason == DROP_NONE && packet_vlan_insert(mbuf, (uint16_t)frame_get16(input + 14)))
		assert(memcmp(frame_bytes(mbuf), input, mbuf->data_len) == 0);
	frame_mbuf_destroy(mbuf);
	mbuf = mbuf_make();
	if (packet_vlan_insert(mbuf, 0x2064) && mbuf->data_len >= 18) {
		assert(mbuf->pkt_len == n_input + 4);
		assert(packet_vlan_strip(mbuf, 100) == DROP_NONE);
		assert(memcmp(frame_bytes(mbuf), input, mbuf->data_len) == 0);
	}
	frame_mbuf_destroy(mbuf);
}

static void try_answers(const struct packet *p)
{
	struct address from = address_make(p->is_v6, 3);
	struct rte_mbuf *mbuf = mbuf_make();
	if (packet_answer_echo(mbuf, p) && mbuf->nb_segs == 1)
		check_answer(mbuf, was_summed);
	frame_mbuf_destroy(mbuf);
	mbuf = mbuf_make();
	if (packet_answer_reset(mbuf, p))
		check_answer(mbuf, true);
	frame_mbuf_destroy(mbuf);
	mbuf = mbuf_make();
	frame_mbuf_destroy(packet_detach_tail(mbuf));
	if (packet_answer_sctp_abort(mbuf, p))
		check_answer(mbuf, true);
	frame_mbuf_destroy(mbuf);
	for (int error = PACKET_PORT_UNREACHABLE; error <= PACKET_TOO_BIG; error++) {
		mbuf = mbuf_make();
		if (packet_answer_error(mbuf, p, (enum packet_error)error, &from, 1400))
			check_answer(mbuf, true);
		frame_mbuf_destroy(mbuf);
	}
}

static void fix_checksums(void)
{
	if ((control[0] & 1) && n_input >= 34 && frame_get16(input + 12) == 0x0800 &&
		(input[14] & 15) >= 5 && 14 + (input[14] & 15) * 4u <= n_input)
		frame_put16(input + 24, frame_v4_checksum(input, 14));
	if (!(control[0] & 2))
		return;
	struct rte_mbuf *mbuf = frame_mbuf(input, n_input);
	struct packet p;
	packet_parse(mbuf, NULL, &p);
	if (p.kind == PACKET_FLOW || p.kind == PACKET_ECHO || p.kind == PACKET_ICMP_ERROR)
		frame_fix_checksums(input, 14);
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
	fix_checksums();
	struct rte_mbuf *mbuf = mbuf_make();
	struct packet p;
	packet_parse(mbuf, NULL, &p);
	check_parse(mbuf, &p);
	check_both_ways(&p);
	packet_l4_checksum_is_partial(mbuf, &p);
	bool has_oracle =
		p.kind == PACKET_FLOW || p.kind == PACKET_ECHO || p.kind == PACKET_ICMP_ERROR;
	was_right = packet_l4_checksum_ok(mbuf, &p);
	was_summed = was_right && has_oracle;
	if (has_oracle && p.protocol == NET_PROTO_SCTP) {
		uint8_t copy[FRAME_MAX];
		memcpy(copy, input + p.l4_offset, p.l4_length);
		frame_fix_sctp(copy, p.l4_length);
		assert(was_summed == (memcmp(copy, input + p.l4_offset, p.l4_length) == 0));
	} else if (has_oracle) { // the library's opinion of the L4 checksum, and the oracle's
		struct frame_layout l = frame_layout_of(input, 14);
		uint16_t stored = frame_get16(input + l.l4 + frame_checksum_offset(l.protocol));
		uint16_t right = frame_l4_checksum(input, 14, l);
		bool is_none = p.protocol == NET_PROTO_UDP && stored == 0;
		bool is_same = stored == right || (stored % 0xffff == 0 && right % 0xffff == 0);
		assert(was_summed == (is_same || is_none));
		was_summed = stored == right || is_none;
	}
	frame_mbuf_destroy(mbuf);
	if (p.kind == PACKET_FLOW && p.ttl > 1)
		try_fullnat(&p);
	if (p.kind == PACKET_FLOW && p.protocol == NET_PROTO_TCP) {
		try_growth(&p);
		try_segment(&p);
	}
	try_vlan();
	if (p.kind == PACKET_FRAGMENT && p.ttl > 1)
		try_fragment(&p);
	if (p.kind == PACKET_ICMP_ERROR)
		try_icmp_error(&p);
	try_answers(&p);
	return 0;
}
