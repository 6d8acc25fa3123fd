// SPDX-License-Identifier: BSD-3-Clause
// Hot path: no allocation, lock, log, system call.
// TCP segments that get bytes put in, lose their payload, or move in sequence space: what TOA and PROXY protocol need.
//
// What is put in lies at an even distance from the TCP header and has an even length, so the words of the sum behind it stay words. A SACK
// option may begin at an odd byte: its bytes then lie crosswise in the sum.
#include "packet_priv.h"

enum {
	OPTION_END = 0,
	OPTION_NOP = 1,
	OPTION_SACK = 5,
	SACK_BLOCK_BYTES = 8,
};

// New lengths of IP and TCP in headers and struct packet. Returns the delta for the TCP checksum, whose pseudo-header has the length.
static uint64_t set_length(struct rte_mbuf *mbuf, struct packet *p, uint32_t l3_length)
{
	uint32_t was = p->l4_length, is = was + l3_length - p->l3_length;
	if (p->is_v6) {
		struct v6_header *ip = packet_at(mbuf, p->l3_offset);
		ip->payload_length = rte_cpu_to_be_16((uint16_t)(l3_length - sizeof(*ip)));
	} else {
		struct v4_header *ip = packet_at(mbuf, p->l3_offset);
		rte_be16_t total = rte_cpu_to_be_16((uint16_t)l3_length);
		ip->checksum =
			checksum_apply(ip->checksum, checksum_delta(ip->total_length, total));
		ip->total_length = total;
	}
	p->l3_length = (uint16_t)l3_length;
	p->l4_length = (uint16_t)is;
	return checksum_delta(rte_cpu_to_be_32(was), rte_cpu_to_be_32(is));
}

enum packet_growth segment_grow(
	struct rte_mbuf *mbuf, struct packet *p, uint32_t at, const void *bytes, uint32_t n)
{
	if (mbuf->data_off < n)
		return PACKET_GROWTH_NO_HEADROOM;
	uint8_t *was = packet_at(mbuf, 0);
	memmove(was - n, was, at);
	mbuf->data_off = (uint16_t)(mbuf->data_off - n);
	mbuf->data_len = (uint16_t)(mbuf->data_len + n);
	mbuf->pkt_len += n;
	memcpy(packet_at(mbuf, at), bytes, n);
	uint64_t delta = set_length(mbuf, p, p->l3_length + n) + checksum_sum(bytes, n);
	struct tcp_header *tcp = packet_at(mbuf, p->l4_offset);
	tcp->checksum = checksum_apply(tcp->checksum, delta);
	return PACKET_GROWN;
}

struct rte_mbuf *packet_cut_payload(struct rte_mbuf *mbuf, struct packet *p)
{
	struct tcp_header *tcp = packet_at(mbuf, p->l4_offset);
	uint32_t header_length = segment_header_length(tcp);
	uint32_t at = p->l4_offset + header_length, n = p->l4_length - header_length;
	uint64_t delta = (uint16_t)~packet_sum(mbuf, at, n);
	struct rte_mbuf *tail = packet_detach_tail(mbuf);
	frame_set_length(mbuf, at);
	delta += set_length(mbuf, p, p->l3_length - n);
	if (n > 0 && (tcp->flags & (TCP_FIN | TCP_ACK)) == (TCP_FIN | TCP_ACK)) {
		// It stood behind the payload: it will come again with it. (Without an ACK nobody takes the segment.)
		delta += (uint16_t)~RTE_BE16(TCP_FIN);
		tcp->flags &= (uint8_t)~TCP_FIN;
		p->tcp_flags = tcp->flags;
	}
	tcp->checksum = checksum_apply(tcp->checksum, delta);
	return tail;
}

// ---------------------------------------------------------------- sequence numbers
void packet_shift_sequence(struct rte_mbuf *mbuf, const struct packet *p, int32_t delta)
{
	struct tcp_header *tcp = packet_at(mbuf, p->l4_offset);
	rte_be32_t is = rte_cpu_to_be_32(rte_be_to_cpu_32(tcp->sequence) + (uint32_t)delta);
	tcp->checksum = checksum_apply(tcp->checksum, checksum_delta(tcp->sequence, is));
	tcp->sequence = is;
}

// A number of the backend's view of the client's bytes, n further on, in the client's. Within the header: its begin.
static inline uint32_t shift_back(uint32_t number, uint32_t n, const uint32_t *first)
{
	return first != NULL && number - *first < n ? *first : number - n;
}

// The same for a number as it lies in the packet; returns the delta of its bytes in a word of the sum.
static uint64_t shift_word(uint8_t *at, uint32_t n, const uint32_t *first)
{
	rte_be32_t was, is;
	memcpy(&was, at, sizeof(was));
	is = rte_cpu_to_be_32(shift_back(rte_be_to_cpu_32(was), n, first));
	memcpy(at, &is, sizeof(is));
	return checksum_delta(was, is);
}

// Both edges of each block of one SACK option.
static uint64_t shift_blocks(uint8_t *option, bool at_odd, uint32_t n, const uint32_t *first)
{
	uint64_t delta = 0;
	if ((option[1] - 2) % SACK_BLOCK_BYTES != 0)
		return 0; // receivers ignore it
	for (uint32_t at = 2; at < option[1]; at += (uint32_t)sizeof(rte_be32_t))
		delta += shift_word(option + at, n, first);
	return at_odd ? __builtin_bswap16(checksum_fold(delta)) : delta;
}

static uint64_t shift_sacks(struct tcp_header *tcp, uint32_t n, const uint32_t *first)
{
	// The parser has seen the whole header in the first segment.
	uint8_t *at = (uint8_t *)(tcp + 1), *end = (uint8_t *)tcp + segment_header_length(tcp);
	uint64_t delta = 0;
	while (at < end && *at != OPTION_END) {
		if (*at == OPTION_NOP) {
			at++;
			continue;
		}
		if (end - at < 2 || at[1] < 2 || at[1] > end - at)
			break;
		if (*at == OPTION_SACK)
			delta += shift_blocks(at, (at - (uint8_t *)tcp) & 1, n, first);
		at += at[1];
	}
	return delta;
}

bool packet_shift_acknowledgement(
	struct rte_mbuf *mbuf, const struct packet *p, uint32_t n, const uint32_t *first)
{
	struct tcp_header *tcp = packet_at(mbuf, p->l4_offset);
	if (!(tcp->flags & TCP_ACK))
		return first == NULL;
	uint32_t was = rte_be_to_cpu_32(tcp->acknowledgement);
	rte_be32_t is = rte_cpu_to_be_32(shift_back(was, n, first));
	uint64_t delta = checksum_delta(tcp->acknowledgement, is);
	tcp->acknowledgement = is;
	delta += shift_sacks(tcp, n, first);
	tcp->checksum = checksum_apply(tcp->checksum, delta);
	return first == NULL || was - *first - n < INT32_MAX;
}

void packet_shift_quoted_sequence(struct rte_mbuf *mbuf, const struct packet *p,
	const struct packet *quoted, uint32_t n, const uint32_t *first)
{
	struct icmp_header *icmp = packet_at(mbuf, p->l4_offset);
	struct tcp_header *tcp = packet_at(mbuf, quoted->l4_offset);
	uint64_t delta = shift_word((uint8_t *)&tcp->sequence, n, first);
	if (quoted->l4_length >= offsetof(struct tcp_header, urgent)) {
		rte_be16_t is = checksum_apply(tcp->checksum, delta);
		delta += checksum_delta(tcp->checksum, is);
		tcp->checksum = is;
	}
	icmp->checksum = checksum_apply(icmp->checksum, delta);
}
