// SPDX-License-Identifier: BSD-3-Clause
// Hot path: no allocation, lock, log, system call.
// ICMP errors about packets that we rewrote: the quoted packet is rewritten back, so that who gets the error knows it as its own.
#include "packet_priv.h"

#define QUOTED_EXTENSIONS_MAX 8

static bool quoted_v4(const struct rte_mbuf *mbuf, uint32_t end, struct packet *quoted)
{
	if (quoted->l3_offset + sizeof(struct v4_header) > end)
		return false;
	const struct v4_header *ip = packet_at(mbuf, quoted->l3_offset);
	// We send no options and routers add none. A later fragment has no ports.
	if (ip->version_ihl != 0x45 || (ip->fragment & RTE_BE16(0x1fff)) != 0)
		return false;
	quoted->src = address_from_v4(ip->src);
	quoted->dst = address_from_v4(ip->dst);
	quoted->protocol = ip->protocol;
	quoted->l4_offset = (uint16_t)(quoted->l3_offset + sizeof(*ip));
	return true;
}

static bool quoted_v6(const struct rte_mbuf *mbuf, uint32_t end, struct packet *quoted)
{
	uint32_t at = quoted->l3_offset + sizeof(struct v6_header);
	if (at > end)
		return false;
	const struct v6_header *ip = packet_at(mbuf, quoted->l3_offset);
	if ((ip->version_class_label & RTE_BE32(0xf0000000)) != RTE_BE32(0x60000000))
		return false;
	quoted->src = ip->src;
	quoted->dst = ip->dst;
	if (address_is_v4(&quoted->src) || address_is_v4(&quoted->dst))
		return false; // IPv4-mapped addresses are on no wire, and would be taken for IPv4 here
	uint8_t next = ip->next_header;
	for (int n = 0; next == 0 || next == 43 || next == 44 || next == 60; n++) {
		if (n == QUOTED_EXTENSIONS_MAX || at + 8 > end)
			return false;
		const uint8_t *header = packet_at(mbuf, at);
		if (next == 44 && (header[2] != 0 || (header[3] & 0xf8) != 0))
			return false;
		at += next == 44 ? 8 : (header[1] + 1u) * 8;
		next = header[0];
	}
	quoted->protocol = next;
	quoted->l4_offset = (uint16_t)at;
	return true; // the caller checks that L4 is there
}

uint32_t packet_quoted_end(const struct rte_mbuf *mbuf, const struct packet *p)
{
	uint32_t end = (uint32_t)p->l4_offset + p->l4_length;
	return end < mbuf->data_len ? end : mbuf->data_len;
}

bool packet_parse_quoted_ip(const struct rte_mbuf *mbuf, uint32_t end, struct packet *quoted)
{
	return quoted->is_v6 ? quoted_v6(mbuf, end, quoted) : quoted_v4(mbuf, end, quoted);
}

bool packet_parse_quoted_ports(const struct rte_mbuf *mbuf, uint32_t end, struct packet *quoted)
{
	if (quoted->protocol != NET_PROTO_TCP && quoted->protocol != NET_PROTO_UDP &&
		quoted->protocol != NET_PROTO_SCTP)
		return false;
	if (quoted->l4_offset + PACKET_QUOTED_L4_MIN > end)
		return false;
	const struct udp_header *ports = packet_at(mbuf, quoted->l4_offset);
	quoted->src_port = ports->src_port;
	quoted->dst_port = ports->dst_port;
	quoted->l4_length = (uint16_t)(end - quoted->l4_offset);
	quoted->have_addresses = true;
	return true;
}

bool packet_parse_quoted(const struct rte_mbuf *mbuf, const struct packet *p, struct packet *quoted)
{
	memset(quoted, 0, sizeof(*quoted));
	if (p->kind != PACKET_ICMP_ERROR)
		return false;
	uint32_t end = packet_quoted_end(mbuf, p);
	quoted->l3_offset = (uint16_t)(p->l4_offset + sizeof(struct icmp_header));
	quoted->is_v6 = p->is_v6;
	return packet_parse_quoted_ip(mbuf, end, quoted) &&
	       packet_parse_quoted_ports(mbuf, end, quoted) && address_equal(&quoted->src, &p->dst);
}

// Addresses and, for IPv4, the header checksum. Returns the delta of the addresses.
static uint64_t rewrite_ip(
	struct rte_mbuf *mbuf, const struct packet *p, const struct packet_nat *nat)
{
	uint64_t delta = checksum_delta_address(&p->src, &nat->src) +
			 checksum_delta_address(&p->dst, &nat->dst);
	if (p->is_v6) {
		struct v6_header *ip = packet_at(mbuf, p->l3_offset);
		ip->src = nat->src;
		ip->dst = nat->dst;
		return delta;
	}
	struct v4_header *ip = packet_at(mbuf, p->l3_offset);
	ip->src = address_v4(&nat->src);
	ip->dst = address_v4(&nat->dst);
	ip->checksum = checksum_apply(ip->checksum, delta);
	return delta;
}

uint32_t packet_quoted_sent_length(const struct rte_mbuf *mbuf, const struct packet *quoted)
{
	uint32_t n_before = (uint32_t)quoted->l4_offset - quoted->l3_offset, total;
	if (quoted->is_v6) {
		const struct v6_header *ip = packet_at(mbuf, quoted->l3_offset);
		total = rte_be_to_cpu_16(ip->payload_length) + (uint32_t)sizeof(*ip);
		for (uint32_t at = sizeof(*ip), next = ip->next_header; at < n_before;) {
			const uint8_t *header = packet_at(mbuf, quoted->l3_offset + at);
			if (next == 44 && (header[3] & 1))
				return 0;
			at += next == 44 ? 8 : (header[1] + 1u) * 8;
			next = header[0];
		}
	} else {
		const struct v4_header *ip = packet_at(mbuf, quoted->l3_offset);
		if (ip->fragment & RTE_BE16(0x2000))
			return 0;
		total = rte_be_to_cpu_16(ip->total_length);
	}
	return total > n_before ? total - n_before : 0;
}

// The checksum needs the length of the whole packet, of which a part is quoted; where that is not known, or the checksum is
// not there in full, only the ports change. Nobody can verify what is quoted in part; it stays what its sender will find.
static void rewrite_quoted_sctp(
	struct rte_mbuf *mbuf, const struct packet *quoted, const struct packet_nat *nat)
{
	uint8_t *l4 = packet_at(mbuf, quoted->l4_offset);
	uint32_t was, is, n = packet_quoted_sent_length(mbuf, quoted);
	memcpy(&was, l4, sizeof(was));
	memcpy(&is, &nat->src_port, sizeof(is));
	memcpy(l4, &is, sizeof(is));
	if (quoted->l4_length >= sizeof(struct sctp_header) && n >= sizeof(struct sctp_header) &&
		n <= UINT16_MAX)
		sctp_update_checksum(l4, was, is, n);
}

void packet_rewrite_quoted_l4(struct rte_mbuf *mbuf, const struct packet *quoted,
	const struct packet_nat *nat, uint64_t delta)
{
	if (quoted->protocol == NET_PROTO_SCTP) {
		rewrite_quoted_sctp(mbuf, quoted, nat);
		return;
	}
	delta += checksum_delta(quoted->src_port, nat->src_port) +
		 checksum_delta(quoted->dst_port, nat->dst_port);
	struct udp_header *udp = packet_at(mbuf, quoted->l4_offset); // ports of TCP lie alike
	udp->src_port = nat->src_port;
	udp->dst_port = nat->dst_port;
	if (quoted->protocol == NET_PROTO_UDP) {
		if (udp->checksum == 0)
			return; // IPv4 without one; IPv6 cannot have it
		rte_be16_t sum = checksum_apply(udp->checksum, delta);
		udp->checksum = sum == 0 ? 0xffff : sum;
		return;
	}
	struct tcp_header *tcp = packet_at(mbuf, quoted->l4_offset);
	if (quoted->l4_length >= offsetof(struct tcp_header, urgent))
		tcp->checksum = checksum_apply(tcp->checksum, delta);
}

static void decrement_ttl(struct rte_mbuf *mbuf, const struct packet *p)
{
	if (p->ttl == 0)
		return;
	if (p->is_v6) {
		struct v6_header *ip = packet_at(mbuf, p->l3_offset);
		ip->hop_limit--;
		return;
	}
	struct v4_header *ip = packet_at(mbuf, p->l3_offset);
	ip->ttl--;
	ip->checksum = checksum_apply(ip->checksum, (uint16_t)~RTE_BE16(0x0100));
}

void packet_rewrite_icmp_error(struct rte_mbuf *mbuf, const struct packet *p,
	const struct packet *quoted, const struct packet_nat *outer, const struct packet_nat *inner)
{
	plain_write_macs(packet_at(mbuf, 0), &outer->macs);
	rewrite_ip(mbuf, p, outer);
	decrement_ttl(mbuf, p);
	uint64_t delta = rewrite_ip(mbuf, quoted, inner);
	packet_rewrite_quoted_l4(mbuf, quoted, inner, delta);
	struct icmp_header *icmp = packet_at(mbuf, p->l4_offset);
	icmp->checksum = 0;
	uint64_t sum = packet_sum(mbuf, p->l4_offset, p->l4_length);
	if (p->is_v6)
		sum += checksum_pseudo(&outer->src, &outer->dst, NET_PROTO_ICMPV6, p->l4_length);
	icmp->checksum = (rte_be16_t)~checksum_fold(sum);
}
