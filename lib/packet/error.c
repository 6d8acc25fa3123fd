// SPDX-License-Identifier: BSD-3-Clause
// Hot path: no allocation, lock, log, system call.
// ICMP and ICMPv6 errors of our own: RFC 792, RFC 1812 4.3.2, RFC 4443 3. The quoted packet stays where it lies
// when there is headroom for the new headers in front of it, else it moves back.
#include "packet_priv.h"

static const struct {
	uint8_t type4, code4, type6, code6;
} errors[] = {
	[PACKET_PORT_UNREACHABLE] = { 3, 3, 1, 4 },
	[PACKET_TIME_EXCEEDED] = { 11, 0, 3, 0 },
	[PACKET_TOO_BIG] = { 3, 4, 2, 0 },
	[PACKET_HOST_UNREACHABLE] = { 3, 1, 1, 3 },
};

static bool is_group(const struct address *a)
{
	if (address_is_v4(a))
		return a->bytes[12] >= 224; // multicast, reserved, broadcast
	return a->bytes[0] == 0xff;
}

// May this packet be answered with an error? RFC 1122 3.2.2, RFC 4443 2.4 e. Impossible sources did not pass the parser.
static bool may_answer(const struct rte_mbuf *mbuf, const struct packet *p)
{
	switch (p->kind) {
	case PACKET_FLOW:
	case PACKET_ECHO:
	case PACKET_PROTOCOL:
		break;
	case PACKET_FRAGMENT:
		if (p->protocol == NET_PROTO_ICMP || p->protocol == NET_PROTO_ICMPV6 ||
			packet_fragment_offset(p) != 0)
			return false;
		break;
	default: // ICMP that is no echo request, not IP, malformed
		return false;
	}
	return !frame_is_to_group(mbuf) && !is_group(&p->dst) && !is_group(&p->src);
}

// Puts `grow` bytes before the IP packet, which is cut to n_quoted. False: no room.
static bool make_room(
	struct rte_mbuf *mbuf, const struct packet *p, uint32_t grow, uint32_t n_quoted)
{
	uint32_t length = p->l3_offset + grow + n_quoted;
	if (length > UINT16_MAX)
		return false;
	struct eth_header eth;
	memcpy(&eth, packet_at(mbuf, 0), sizeof(eth));
	if (mbuf->data_off >= grow) {
		mbuf->data_off = (uint16_t)(mbuf->data_off - grow);
	} else {
		if ((uint32_t)mbuf->data_off + length > mbuf->buf_len)
			return false;
		memmove(packet_at(mbuf, p->l3_offset + grow), packet_at(mbuf, p->l3_offset),
			n_quoted);
	}
	memcpy(packet_at(mbuf, 0), &eth, sizeof(eth));
	frame_set_length(mbuf, length);
	return true;
}

void packet_write_error(struct rte_mbuf *mbuf, uint32_t l3_offset, struct packet_answer *answer,
	enum packet_error error, uint16_t mtu)
{
	bool is_v6 = answer->is_v6;
	answer->protocol = is_v6 ? NET_PROTO_ICMPV6 : NET_PROTO_ICMP;
	packet_write_ip(mbuf, l3_offset, answer);
	uint16_t mtu_least = is_v6 ? PACKET_V6_ERROR_MAX : PACKET_V4_ERROR_MAX;
	struct icmp_header icmp = {
		.type = is_v6 ? errors[error].type6 : errors[error].type4,
		.code = is_v6 ? errors[error].code6 : errors[error].code4,
		.word_lo = error == PACKET_TOO_BIG ? rte_cpu_to_be_16(RTE_MAX(mtu, mtu_least)) : 0,
	};
	uint32_t icmp_offset =
		l3_offset + packet_error_headers(is_v6) - (uint32_t)sizeof(struct icmp_header);
	memcpy(packet_at(mbuf, icmp_offset), &icmp, sizeof(icmp));
	uint64_t sum = packet_sum(mbuf, icmp_offset, answer->payload_length);
	if (is_v6)
		sum += checksum_pseudo(
			&answer->from, &answer->to, NET_PROTO_ICMPV6, answer->payload_length);
	icmp.checksum = (rte_be16_t)~checksum_fold(sum);
	memcpy(packet_at(mbuf, icmp_offset), &icmp, sizeof(icmp));
}

// Bytes of the packet to quote; 0: what is left of it (packet_detach_tail) says too little (RFC 792: header and 8 bytes).
static uint32_t quote_length(const struct rte_mbuf *mbuf, const struct packet *p)
{
	uint32_t n_here = (uint32_t)mbuf->data_len - p->l3_offset;
	uint32_t n_least = (uint32_t)p->l4_offset - p->l3_offset + 8;
	if (n_here < p->l3_length && n_here < n_least)
		return 0;
	uint32_t n = n_here < p->l3_length ? n_here : p->l3_length;
	uint32_t limit = packet_error_quote_max(p->is_v6);
	return n < limit ? n : limit;
}

bool packet_answer_error(struct rte_mbuf *mbuf, const struct packet *p, enum packet_error error,
	const struct address *from, uint16_t mtu)
{
	if (mbuf->nb_segs > 1 || address_is_v4(from) == p->is_v6 || !may_answer(mbuf, p))
		return false;
	uint32_t n_quoted = quote_length(mbuf, p);
	if (n_quoted == 0 || !make_room(mbuf, p, packet_error_headers(p->is_v6), n_quoted))
		return false;
	struct packet_answer answer = {
		.from = *from,
		.to = p->src,
		.payload_length = (uint16_t)(sizeof(struct icmp_header) + n_quoted),
		.is_v6 = p->is_v6,
	};
	packet_write_error(mbuf, p->l3_offset, &answer, error, mtu);
	frame_swap_macs(mbuf);
	return true;
}
