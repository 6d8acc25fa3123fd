// SPDX-License-Identifier: BSD-3-Clause
// Hot path: no allocation, lock, log, system call.
// Whole L4 checksums, over all segments; off the fast path.
#include "packet_priv.h"

uint16_t packet_sum(const struct rte_mbuf *mbuf, uint32_t offset, uint32_t length)
{
	uint64_t sum = 0;
	bool at_odd = false; // bytes so far: a segment may begin in the middle of a word
	for (; mbuf != NULL && length > 0; mbuf = mbuf->next) {
		if (offset >= mbuf->data_len) {
			offset -= mbuf->data_len;
			continue;
		}
		uint32_t n = mbuf->data_len - offset;
		n = n < length ? n : length;
		uint16_t part = checksum_fold(checksum_sum(packet_at(mbuf, offset), n));
		sum += at_odd ? __builtin_bswap16(part) : part;
		at_odd ^= n & 1;
		length -= n;
		offset = 0;
	}
	return checksum_fold(sum);
}

// Where the checksum of a whole L4 packet is, or NULL: none of ours.
static const void *checksum_field(const struct rte_mbuf *mbuf, const struct packet *p)
{
	static const struct {
		uint8_t protocol;
		uint8_t offset;
	} fields[] = {
		{ NET_PROTO_TCP, offsetof(struct tcp_header, checksum) },
		{ NET_PROTO_UDP, offsetof(struct udp_header, checksum) },
		{ NET_PROTO_ICMP, offsetof(struct icmp_header, checksum) },
		{ NET_PROTO_ICMPV6, offsetof(struct icmp_header, checksum) },
	};
	if (p->kind != PACKET_FLOW && p->kind != PACKET_ECHO && p->kind != PACKET_ICMP_ERROR &&
		p->kind != PACKET_ICMP_OTHER)
		return NULL;
	for (size_t i = 0; i < ARRAY_SIZE(fields); i++) {
		if (fields[i].protocol == p->protocol)
			return packet_at(mbuf, p->l4_offset + fields[i].offset);
	}
	return NULL;
}

static inline bool is_sctp(const struct packet *p)
{
	return p->kind == PACKET_FLOW && p->protocol == NET_PROTO_SCTP;
}

bool packet_l4_checksum_ok(const struct rte_mbuf *mbuf, const struct packet *p)
{
	if (is_sctp(p))
		return packet_sctp_checksum_ok(mbuf, p);
	const void *field = checksum_field(mbuf, p);
	if (field == NULL)
		return true;
	rte_be16_t stored;
	memcpy(&stored, field, sizeof(stored));
	if (p->protocol == NET_PROTO_UDP && stored == 0)
		return !p->is_v6;
	uint64_t sum = packet_sum(mbuf, p->l4_offset, p->l4_length);
	if (p->protocol != NET_PROTO_ICMP)
		sum += checksum_pseudo(&p->src, &p->dst, p->protocol, p->l4_length);
	return checksum_fold(sum) == 0xffff;
}

bool packet_l4_checksum_is_partial(const struct rte_mbuf *mbuf, const struct packet *p)
{
	if (p->kind != PACKET_FLOW)
		return false;
	if (is_sctp(p)) {
		const struct sctp_header *sctp = packet_at(mbuf, p->l4_offset);
		return sctp->checksum == 0;
	}
	rte_be16_t stored;
	memcpy(&stored, checksum_field(mbuf, p), sizeof(stored));
	return stored ==
	       checksum_fold(checksum_pseudo(&p->src, &p->dst, p->protocol, p->l4_length));
}
