// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// Pieces that several files of the packet path share.

#include "packet.h"
#include "plain.h"

#define PACKET_ANSWER_TTL   64
#define PACKET_V4_ERROR_MAX 576  // whole IP packet, RFC 1812 4.3.2.3
#define PACKET_V6_ERROR_MAX 1280 // RFC 4443 2.4 c

static inline void *packet_at(const struct rte_mbuf *mbuf, uint32_t offset)
{
	return rte_pktmbuf_mtod_offset(mbuf, uint8_t *, offset);
}

// An answer to a group address would have it as its source, and RFC 1122 3.2.2 forbids most.
static inline bool frame_is_to_group(const struct rte_mbuf *mbuf)
{
	const struct eth_header *eth = packet_at(mbuf, 0);
	return eth->dst.bytes[0] & 1;
}

static inline void frame_swap_macs(struct rte_mbuf *mbuf)
{
	struct eth_header *eth = packet_at(mbuf, 0);
	struct mac was_dst = eth->dst;
	eth->dst = eth->src;
	eth->src = was_dst;
}

// Length of a frame of one segment; the caller has checked the room.
static inline void frame_set_length(struct rte_mbuf *mbuf, uint32_t length)
{
	mbuf->data_len = (uint16_t)length;
	mbuf->pkt_len = length;
}

// A frame cut down to the n_kept bytes at kept_at (in the first segment) with n_head bytes in front, which the caller writes at the
// address returned: the new begin of the frame. What lay before and behind goes; Ethernet padding too. NULL: nothing done.
//
// packet_reframe takes one segment with headroom, and moves no byte. packet_reframe_odd (frame.c) takes several segments too, and
// moves the bytes of the first one back where there is no headroom but room behind. NULL is: no room.
static __rte_always_inline uint8_t *packet_reframe(
	struct rte_mbuf *mbuf, uint32_t kept_at, uint32_t n_kept, uint32_t n_head)
{
	uint32_t end_of_room = mbuf->data_off + kept_at;
	if (unlikely(mbuf->nb_segs > 1 || end_of_room < n_head || n_head + n_kept > UINT16_MAX))
		return NULL;
	mbuf->data_off = (uint16_t)(end_of_room - n_head);
	frame_set_length(mbuf, n_head + n_kept);
	return (uint8_t *)mbuf->buf_addr + (end_of_room - n_head);
}
uint8_t *packet_reframe_odd(
	struct rte_mbuf *mbuf, uint32_t kept_at, uint32_t n_kept, uint32_t n_head);

// One's-complement sum of part of a frame, over all segments (l4_checksum.c). Folded.
uint16_t packet_sum(const struct rte_mbuf *mbuf, uint32_t offset, uint32_t length);

// CRC32c: the register after n more bytes (begun with ~0, inverted at the end), and what a 32-bit word `n` bytes before the
// end adds to it, n >= 4 with the word's own bytes, at most 65,535 (crc32c.c).
uint32_t crc32c_update(uint32_t crc, const void *bytes, size_t n);
uint32_t crc32c_shift(uint32_t word, uint32_t n);

// Writes the IP header of an answer of ours, every byte, at `offset`: from, to, protocol, bytes that follow (answer.c).
struct packet_answer {
	struct address from;
	struct address to;
	uint16_t payload_length;
	uint8_t protocol;
	bool is_v6;
};
void packet_write_ip(struct rte_mbuf *mbuf, uint32_t offset, const struct packet_answer *answer);

// ---------------------------------------------------------------- quoted packets (icmp.c)
#define PACKET_QUOTED_L4_MIN 8u // RFC 792: ports, and the checksum of UDP or the tag of SCTP

// Offset of the end of what an ICMP error quotes and the first segment holds.
uint32_t packet_quoted_end(const struct rte_mbuf *mbuf, const struct packet *p);
// From l3_offset and is_v6: addresses, protocol, l4_offset, which may lie beyond the end. False: implausible, or too short.
bool packet_parse_quoted_ip(const struct rte_mbuf *mbuf, uint32_t end, struct packet *quoted);
// From l4_offset: ports, l4_length. False: no ports are there, or no protocol with ports.
bool packet_parse_quoted_ports(const struct rte_mbuf *mbuf, uint32_t end, struct packet *quoted);
// Bytes of the quoted L4 packet as it was sent, by its IP header; 0 for a fragment, which does not tell.
uint32_t packet_quoted_sent_length(const struct rte_mbuf *mbuf, const struct packet *quoted);
// Ports and what is there of checksums; `delta` is that of the addresses (checksum_delta_address), also across families.
void packet_rewrite_quoted_l4(struct rte_mbuf *mbuf, const struct packet *quoted,
	const struct packet_nat *nat, uint64_t delta);

// ---------------------------------------------------------------- errors of our own (error.c)
// Bytes of the IP and ICMP header, and the most that may be quoted behind them.
static inline uint32_t packet_error_headers(bool is_v6)
{
	return (is_v6 ? (uint32_t)sizeof(struct v6_header) : (uint32_t)sizeof(struct v4_header)) +
	       (uint32_t)sizeof(struct icmp_header);
}
static inline uint32_t packet_error_quote_max(bool is_v6)
{
	return (is_v6 ? PACKET_V6_ERROR_MAX : PACKET_V4_ERROR_MAX) - packet_error_headers(is_v6);
}
// Writes both headers at l3_offset, in front of the quoted packet that is there already; answer->protocol is set here.
void packet_write_error(struct rte_mbuf *mbuf, uint32_t l3_offset, struct packet_answer *answer,
	enum packet_error error, uint16_t mtu);

// ---------------------------------------------------------------- TCP segments that grow (segment.c)
static inline uint32_t segment_header_length(const struct tcp_header *tcp)
{
	return (tcp->offset >> 4) * 4u;
}
// Puts n bytes, an even number, at `at` of the frame, an even distance behind the TCP header's begin and not beyond the first segment: the headers in
// front of it move into the headroom. Lengths and checksums follow, in the packet and in p. PACKET_GROWN, or PACKET_GROWTH_NO_HEADROOM and nothing changed.
enum packet_growth segment_grow(
	struct rte_mbuf *mbuf, struct packet *p, uint32_t at, const void *bytes, uint32_t n);
