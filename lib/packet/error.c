// SPDX-License-Identifier: BSD-3-Clause
// Hot path: no allocation, lock, log, system call.
// ICMP and ICMPv6 errors of our own: RFC 792, RFC 1812 4.3.2, RFC 4443 3. The quoted packet stays where it lies
// when there is headroom for the new headers in front of it, else it moves back.
#include "packet_priv.h"

#define V4_ERROR_MAX 576  // whole IP packet, RFC 1812 4.3.2.3
#define V6_ERROR_MAX 1280 // RFC 4443 2.4 c

static const struct {
	uint8_t type4, code4, type6, code6;
} errors[] = {
	[PACKET_PORT_UNREACHABLE] = { 3, 3, 1, 4 },
	[PACKET_TIME_EXCEEDED] = { 11, 0, 3, 0 },
	[PACKET_TOO_BIG] = { 3, 4, 2, 0 },
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

bool packet_answer_error(struct rte_mbuf *mbuf, const struct packet *p, enum packet_error error,
	const struct address *from, uint16_t mtu)
{
	if (mbuf->nb_segs > 1 || address_is_v4(from) == p->is_v6 || !may_answer(mbuf, p))
		return false;
	uint32_t n_ip = p->is_v6 ? sizeof(struct v6_header) : sizeof(struct v4_header);
	uint32_t grow = n_ip + (uint32_t)sizeof(struct icmp_header);
	uint32_t n_quoted = (p->is_v6 ? V6_ERROR_MAX : V4_ERROR_MAX) - grow;
	n_quoted = n_quoted < p->l3_length ? n_quoted : p->l3_length;
	if (!make_room(mbuf, p, grow, n_quoted))
		return false;
	struct packet_answer answer = {
		.from = *from,
		.to = p->src,
		.payload_length = (uint16_t)(sizeof(struct icmp_header) + n_quoted),
		.protocol = p->is_v6 ? NET_PROTO_ICMPV6 : NET_PROTO_ICMP,
		.is_v6 = p->is_v6,
	};
	packet_write_ip(mbuf, p->l3_offset, &answer);
	struct icmp_header icmp = {
		.type = p->is_v6 ? errors[error].type6 : errors[error].type4,
		.code = p->is_v6 ? errors[error].code6 : errors[error].code4,
		.word_lo = error == PACKET_TOO_BIG ? rte_cpu_to_be_16(mtu) : 0,
	};
	uint32_t icmp_offset = p->l3_offset + n_ip;
	memcpy(packet_at(mbuf, icmp_offset), &icmp, sizeof(icmp));
	uint64_t sum = packet_sum(mbuf, icmp_offset, answer.payload_length);
	if (p->is_v6)
		sum += checksum_pseudo(
			&answer.from, &answer.to, NET_PROTO_ICMPV6, answer.payload_length);
	icmp.checksum = (rte_be16_t)~checksum_fold(sum);
	memcpy(packet_at(mbuf, icmp_offset), &icmp, sizeof(icmp));
	frame_swap_macs(mbuf);
	return true;
}
