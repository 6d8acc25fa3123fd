// SPDX-License-Identifier: BSD-3-Clause
// Hot path: no allocation, lock, log, system call.
// ICMP errors that cross families: RFC 7915 4.2, 4.3 (to ICMPv6) and 5.2, 5.3 (to ICMP). Both IP headers and the ICMP header are
// made anew, what is quoted of L4 stays where it lies if there is headroom:
//
//	Ethernet | IP | ICMP 8 | quoted IP | quoted L4, cut to 576 or 1280 bytes in all
#include "cross_priv.h"

#define V4_MTU_MIN  576 // no less is told
#define V6_MTU_MIN  1280
#define CROSS_BYTES 20 // a packet is so much longer in IPv6

enum { TYPE_NONE = 0xff };

// What an error is in the other family. Type TYPE_NONE: nothing.
struct translation {
	uint8_t type;
	uint8_t code;
	uint32_t word; // the second half of the ICMP header: MTU or pointer
};
static const struct translation untranslatable = { .type = TYPE_NONE };

// Where the field at byte i of an IPv4 header is in the IPv6 header; TYPE_NONE: nowhere. RFC 7915 figure 3.
static const uint8_t pointer_to_v6[] = { 0, 1, 4, 4, TYPE_NONE, TYPE_NONE, TYPE_NONE, TYPE_NONE, 7,
	6, TYPE_NONE, TYPE_NONE, 8, 8, 8, 8, 24, 24, 24, 24 };
// And back: figure 6.
static uint8_t pointer_to_v4(uint32_t pointer)
{
	static const uint8_t first[] = { 0, 1, TYPE_NONE, TYPE_NONE, 2, 2, 9, 8 };
	if (pointer < ARRAY_SIZE(first))
		return first[pointer];
	return pointer < 24 ? 12 : pointer < 40 ? 16 : TYPE_NONE;
}

static struct translation unreachable_to_v6(const struct icmp_header *icmp)
{
	switch (icmp->code) {
	case 0:  // network
	case 1:  // host
	case 5:  // source route failed
	case 6:  // network unknown
	case 7:  // host unknown
	case 8:  // host isolated
	case 11: // network for TOS
	case 12: // host for TOS
		return (struct translation){ 1, 0, 0 };
	case 2: // protocol: the next header field is not known
		return (struct translation){ 4, 1, offsetof(struct v6_header, next_header) };
	case 3: // port
		return (struct translation){ 1, 4, 0 };
	case 4: { // fragmentation needed; old routers tell 0
		uint32_t mtu = rte_be_to_cpu_16(icmp->word_lo) + CROSS_BYTES;
		return (struct translation){ 2, 0, mtu < V6_MTU_MIN ? V6_MTU_MIN : mtu };
	}
	case 9: // prohibited: network, host, communication, precedence
	case 10:
	case 13:
	case 15:
		return (struct translation){ 1, 1, 0 };
	default:
		return untranslatable;
	}
}

static struct translation to_v6(const struct icmp_header *icmp)
{
	uint8_t pointer = ((const uint8_t *)&icmp->word_hi)[0];
	switch (icmp->type) {
	case 3:
		return unreachable_to_v6(icmp);
	case 11:
		return (struct translation){ 3, icmp->code, 0 };
	case 12:
		if ((icmp->code != 0 && icmp->code != 2) || pointer >= sizeof(pointer_to_v6) ||
			pointer_to_v6[pointer] == TYPE_NONE)
			return untranslatable;
		return (struct translation){ 4, 0, pointer_to_v6[pointer] };
	default:
		return untranslatable;
	}
}

static struct translation to_v4(const struct icmp_header *icmp)
{
	static const uint8_t unreachable_codes[] = { 1, 10, 1, 1, 3 };
	uint32_t word =
		(uint32_t)rte_be_to_cpu_16(icmp->word_hi) << 16 | rte_be_to_cpu_16(icmp->word_lo);
	switch (icmp->type) {
	case 1:
		if (icmp->code >= ARRAY_SIZE(unreachable_codes))
			return untranslatable;
		return (struct translation){ 3, unreachable_codes[icmp->code], 0 };
	case 2: {
		uint32_t mtu = word < UINT16_MAX + CROSS_BYTES ? word : UINT16_MAX + CROSS_BYTES;
		mtu = mtu < V4_MTU_MIN + CROSS_BYTES ? V4_MTU_MIN : mtu - CROSS_BYTES;
		return (struct translation){ 3, 4, mtu };
	}
	case 3:
		return (struct translation){ 11, icmp->code, 0 };
	case 4:
		if (icmp->code == 1)
			return (struct translation){ 3, 2, 0 };
		if (icmp->code != 0 || pointer_to_v4(word) == TYPE_NONE)
			return untranslatable;
		return (struct translation){ 12, 0, (uint32_t)pointer_to_v4(word) << 24 };
	default:
		return untranslatable;
	}
}

// Bytes of quoted L4 to keep: not what extensions of the error (RFC 4884) put behind the quoted packet, which no receiver of the other
// family could tell from it, and within the limit.
static uint32_t quoted_kept_length(const struct rte_mbuf *mbuf, const struct packet *p,
	const struct packet *quoted, uint32_t limit)
{
	const struct icmp_header *icmp = packet_at(mbuf, p->l4_offset);
	const uint8_t *unused = (const uint8_t *)&icmp->word_hi;
	uint32_t n_before = (uint32_t)quoted->l4_offset - quoted->l3_offset;
	uint32_t n_packet = 0; // of the quote, when the error has extensions
	if (p->is_v6 && (icmp->type == 1 || icmp->type == 3))
		n_packet = unused[0] * 8u;
	else if (!p->is_v6)
		n_packet = unused[1] * 4u;
	uint32_t n = quoted->l4_length;
	if (n_packet >= n_before + 8 && n > n_packet - n_before)
		n = n_packet - n_before;
	return n < limit ? n : limit;
}

static struct cross_ip ip_make(const struct rte_mbuf *mbuf, const struct packet *p,
	const struct packet_nat *nat, uint32_t n_payload)
{
	return (struct cross_ip){
		.src = nat->src,
		.dst = nat->dst,
		.n_payload = n_payload,
		.tos = cross_tos(packet_at(mbuf, p->l3_offset), p->is_v6),
		.ttl = *(const uint8_t *)packet_at(
			mbuf, p->l3_offset + (p->is_v6 ? offsetof(struct v6_header, hop_limit)
						       : offsetof(struct v4_header, ttl))),
		.protocol = p->protocol,
	};
}

static void write_icmp(struct rte_mbuf *mbuf, const struct translation *translation,
	const struct cross_ip *ip, bool is_v6)
{
	uint32_t at = (uint32_t)sizeof(struct eth_header) + cross_ip_length(is_v6);
	struct icmp_header icmp = {
		.type = translation->type,
		.code = translation->code,
		.word_hi = rte_cpu_to_be_16((uint16_t)(translation->word >> 16)),
		.word_lo = rte_cpu_to_be_16((uint16_t)translation->word),
	};
	memcpy(packet_at(mbuf, at), &icmp, sizeof(icmp));
	uint64_t sum = packet_sum(mbuf, at, ip->n_payload);
	if (is_v6)
		sum += checksum_pseudo(&ip->src, &ip->dst, NET_PROTO_ICMPV6, ip->n_payload);
	icmp.checksum = (rte_be16_t)~checksum_fold(sum);
	memcpy(packet_at(mbuf, at), &icmp, sizeof(icmp));
}

enum drop_reason packet_rewrite_icmp_error_cross(struct rte_mbuf *mbuf, const struct packet *p,
	const struct packet *quoted, const struct packet_nat *outer, const struct packet_nat *inner)
{
	bool is_v6 = !p->is_v6; // what it becomes
	const struct icmp_header *icmp = packet_at(mbuf, p->l4_offset);
	struct translation translation = is_v6 ? to_v6(icmp) : to_v4(icmp);
	if (translation.type == TYPE_NONE)
		return DROP_ICMP_TYPE;
	uint32_t n_ip = cross_ip_length(is_v6), n_before = 2 * n_ip + (uint32_t)sizeof(*icmp);
	uint32_t n_kept = quoted_kept_length(mbuf, p, quoted, packet_error_quote_max(is_v6) - n_ip);
	uint32_t n_sent = packet_quoted_sent_length(mbuf, quoted);
	if (n_sent == 0) // a fragment; we send none
		n_sent = n_kept;
	if (n_sent > UINT16_MAX - sizeof(struct v4_header))
		n_sent = UINT16_MAX - sizeof(struct v4_header);
	struct cross_ip ip = ip_make(mbuf, p, outer, n_before - n_ip + n_kept);
	ip.ttl = (uint8_t)(ip.ttl - (ip.ttl > 0));
	ip.protocol = is_v6 ? NET_PROTO_ICMPV6 : NET_PROTO_ICMP;
	struct cross_ip quoted_ip = ip_make(mbuf, quoted, inner, n_sent);
	uint32_t n_head = (uint32_t)sizeof(struct eth_header) + n_before;
	uint8_t *at = packet_reframe_odd(mbuf, quoted->l4_offset, n_kept, n_head);
	if (at == NULL)
		return DROP_NO_HEADROOM;
	cross_write_eth(at, outer, is_v6);
	uint8_t *ip_at = at + sizeof(struct eth_header);
	uint8_t *quoted_at = ip_at + n_ip + sizeof(*icmp);
	(is_v6 ? cross_write_v6 : cross_write_v4)(ip_at, &ip);
	(is_v6 ? cross_write_v6 : cross_write_v4)(quoted_at, &quoted_ip);
	struct packet moved = *quoted;
	moved.is_v6 = is_v6;
	moved.l3_offset = (uint16_t)(n_head - n_ip);
	moved.l4_offset = (uint16_t)n_head;
	moved.l4_length = (uint16_t)n_kept;
	packet_rewrite_quoted_l4(mbuf, &moved, inner,
		checksum_delta_address(&quoted->src, &inner->src) +
			checksum_delta_address(&quoted->dst, &inner->dst));
	write_icmp(mbuf, &translation, &ip, is_v6);
	return DROP_NONE;
}
