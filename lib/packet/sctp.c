// SPDX-License-Identifier: BSD-3-Clause
// Hot path: no allocation, lock, log, system call.
// SCTP (RFC 9260): its checksum, whole and after a change of ports, and the answer to a packet of no association.
#include "packet_priv.h"

#define CHUNKS_MAX         64 // walked in a packet that is to be answered
#define CAUSE_STALE_COOKIE 3

// ---------------------------------------------------------------- checksum
// The register's value as it lies in the packet: its lowest byte first (RFC 9260 appendix A).
static inline uint32_t checksum_word(uint32_t crc)
{
	return rte_cpu_to_le_32(crc);
}

// CRC over all segments from `offset` of the frame on, `length` bytes, with the checksum field taken as 0.
static uint32_t sctp_crc(const struct rte_mbuf *mbuf, uint32_t offset, uint32_t length)
{
	static const uint8_t zero[4];
	const uint32_t n_before = offsetof(struct sctp_header, checksum);
	uint32_t crc = crc32c_update(~0u, packet_at(mbuf, offset), n_before);
	crc = crc32c_update(crc, zero, sizeof(zero));
	offset += (uint32_t)sizeof(struct sctp_header);
	length -= (uint32_t)sizeof(struct sctp_header);
	for (; mbuf != NULL && length > 0; mbuf = mbuf->next) {
		if (offset >= mbuf->data_len) {
			offset -= mbuf->data_len;
			continue;
		}
		uint32_t n = mbuf->data_len - offset;
		n = n < length ? n : length;
		crc = crc32c_update(crc, packet_at(mbuf, offset), n);
		length -= n;
		offset = 0;
	}
	return ~crc;
}

bool packet_sctp_checksum_ok(const struct rte_mbuf *mbuf, const struct packet *p)
{
	const struct sctp_header *sctp = packet_at(mbuf, p->l4_offset);
	return sctp->checksum == checksum_word(sctp_crc(mbuf, p->l4_offset, p->l4_length));
}

void sctp_update_checksum(void *l4, uint32_t was, uint32_t is, uint32_t length)
{
	struct sctp_header *sctp = l4;
	sctp->checksum ^= checksum_word(crc32c_shift(rte_le_to_cpu_32(was ^ is), length));
}

// ---------------------------------------------------------------- answer
// Chunk types that the packet has, one bit each (bit 31: all from there up, none of which changes the answer). 0: malformed, too many, or
// an ERROR that says "stale cookie", which is never answered. What lies in segments that packet_detach_tail took is not known.
static uint32_t chunk_types(const struct rte_mbuf *mbuf, const struct packet *p)
{
	uint32_t at = p->l4_offset + (uint32_t)sizeof(struct sctp_header), types = 0;
	uint32_t end = (uint32_t)p->l4_offset + p->l4_length, here = RTE_MIN(end, mbuf->data_len);
	for (int n = 0; at < end; n++) {
		if (n == CHUNKS_MAX || at + sizeof(struct sctp_chunk) > end)
			return 0;
		if (at + sizeof(struct sctp_chunk) > here)
			break;
		const struct sctp_chunk *chunk = packet_at(mbuf, at);
		uint32_t length = rte_be_to_cpu_16(chunk->length);
		if (length < sizeof(*chunk) || at + length > end)
			return 0;
		if (chunk->type == SCTP_ERROR && length >= sizeof(*chunk) + 2) {
			const uint8_t *cause = packet_at(mbuf, at + sizeof(*chunk));
			if (at + sizeof(*chunk) + 2 > here ||
				(cause[0] << 8 | cause[1]) == CAUSE_STALE_COOKIE)
				return 0;
		}
		types |= 1u << (chunk->type < 31 ? chunk->type : 31);
		at += RTE_ALIGN_CEIL(length, 4u);
	}
	return types;
}

// RFC 9260 8.4 in its order. False: silence.
static bool answer_make(const struct rte_mbuf *mbuf, const struct packet *p,
	struct sctp_header *header, struct sctp_chunk *chunk)
{
	const uint32_t silent =
		1u << SCTP_ABORT | 1u << SCTP_SHUTDOWN_COMPLETE | 1u << SCTP_COOKIE_ACK;
	const struct sctp_header *sctp = packet_at(mbuf, p->l4_offset);
	uint32_t types = chunk_types(mbuf, p);
	if (types == 0 || (types & silent))
		return false;
	*header = (struct sctp_header){
		.src_port = sctp->dst_port,
		.dst_port = sctp->src_port,
		.tag = sctp->tag,
	};
	*chunk = (struct sctp_chunk){
		.type = types & 1u << SCTP_SHUTDOWN_ACK ? SCTP_SHUTDOWN_COMPLETE : SCTP_ABORT,
		.flags = SCTP_FLAG_T,
		.length = RTE_BE16(sizeof(*chunk)),
	};
	if (types &
		1u << SCTP_INIT) { // alone, and its initiate tag is there: the parser has seen to it
		chunk->flags = 0;
		memcpy(&header->tag, (const uint8_t *)(sctp + 1) + sizeof(*chunk),
			sizeof(header->tag));
	}
	return true;
}

bool packet_answer_sctp_abort(struct rte_mbuf *mbuf, const struct packet *p)
{
	struct {
		struct sctp_header header;
		struct sctp_chunk chunk;
	} __attribute__((packed)) sctp;
	if (p->kind != PACKET_FLOW || p->protocol != NET_PROTO_SCTP || mbuf->nb_segs > 1 ||
		frame_is_to_group(mbuf) || !answer_make(mbuf, p, &sctp.header, &sctp.chunk))
		return false;
	sctp.header.checksum = checksum_word(~crc32c_update(~0u, &sctp, sizeof(sctp)));
	struct packet_answer answer = {
		.from = p->dst,
		.to = p->src,
		.payload_length = sizeof(sctp),
		.protocol = NET_PROTO_SCTP,
		.is_v6 = p->is_v6,
	};
	// No longer than what came: an IP header, the common header and one chunk header.
	uint32_t l4_offset =
		p->l3_offset + (p->is_v6 ? sizeof(struct v6_header) : sizeof(struct v4_header));
	packet_write_ip(mbuf, p->l3_offset, &answer);
	memcpy(packet_at(mbuf, l4_offset), &sctp, sizeof(sctp));
	frame_set_length(mbuf, l4_offset + (uint32_t)sizeof(sctp));
	frame_swap_macs(mbuf);
	return true;
}
