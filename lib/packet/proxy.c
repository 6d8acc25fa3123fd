// SPDX-License-Identifier: BSD-3-Clause
// Hot path: no allocation, lock, log, system call.
// PROXY protocol, version 2 (haproxy.org/download/2.9/doc/proxy-protocol.txt, section 2.2): a header in front of the client's first byte. It takes
// n bytes of sequence space between the two sides, which see each other's numbers shifted from then on (segment.c):
//
//   client      | isn+1: data ...
//   backend     | isn+1: header | isn+1+n: data ...
//
// The header may be sent any number of times: it is always at isn+1, in front of a segment that the client numbers isn+1.
#include "packet_priv.h"

#define SIGNATURE_BYTES 12u
#define HEADER_BYTES    16u // signature, command, family, length

enum {
	VERSION_2_PROXY = 0x21,
	TCP_OVER_V4 = 0x11,
	TCP_OVER_V6 = 0x21,
};

void packet_proxy_build(struct packet_proxy *out, const struct packet_endpoint *client,
	const struct packet_endpoint *vip)
{
	static const uint8_t signature[SIGNATURE_BYTES] = { '\r', '\n', '\r', '\n', 0, '\r', '\n',
		'Q', 'U', 'I', 'T', '\n' };
	bool is_v4 = address_is_v4(&client->address);
	uint32_t n_address = is_v4 ? 4 : 16, skip = 16 - n_address;
	uint32_t n_behind = 2 * n_address + 2 * (uint32_t)sizeof(rte_be16_t);
	memset(out, 0, sizeof(*out));
	uint8_t *at = out->bytes;
	memcpy(at, signature, sizeof(signature));
	at[SIGNATURE_BYTES] = VERSION_2_PROXY;
	at[SIGNATURE_BYTES + 1] = is_v4 ? TCP_OVER_V4 : TCP_OVER_V6;
	at[SIGNATURE_BYTES + 3] = (uint8_t)n_behind;
	at += HEADER_BYTES;
	memcpy(at, client->address.bytes + skip, n_address);
	memcpy(at + n_address, vip->address.bytes + skip, n_address);
	memcpy(at + 2 * n_address, &client->port, sizeof(client->port));
	memcpy(at + 2 * n_address + 2, &vip->port, sizeof(vip->port));
	out->length = (uint8_t)(HEADER_BYTES + n_behind);
}

// Urgent data now lie further behind the segment's sequence number.
static void move_urgent(struct tcp_header *tcp, uint32_t n)
{
	if (!(tcp->flags & TCP_URG))
		return;
	uint32_t urgent = rte_be_to_cpu_16(tcp->urgent) + n;
	rte_be16_t is = rte_cpu_to_be_16((uint16_t)(urgent < UINT16_MAX ? urgent : UINT16_MAX));
	tcp->checksum = checksum_apply(tcp->checksum, checksum_delta(tcp->urgent, is));
	tcp->urgent = is;
}

enum packet_growth packet_proxy_insert(
	struct rte_mbuf *mbuf, struct packet *p, const struct packet_proxy *header, uint16_t mtu)
{
	if (p->l3_length + header->length > mtu)
		return PACKET_GROWTH_TOO_LONG;
	uint32_t at = p->l4_offset + segment_header_length(packet_at(mbuf, p->l4_offset));
	enum packet_growth growth = segment_grow(mbuf, p, at, header->bytes, header->length);
	if (growth == PACKET_GROWN)
		move_urgent(packet_at(mbuf, p->l4_offset), header->length);
	return growth;
}

enum packet_growth packet_proxy_cut_and_insert(struct rte_mbuf *mbuf, struct packet *p,
	const struct packet_proxy *header, struct rte_mbuf **out_tail)
{
	*out_tail = NULL;
	if (mbuf->data_off < header->length)
		return PACKET_GROWTH_NO_HEADROOM;
	*out_tail = packet_cut_payload(mbuf, p);
	return packet_proxy_insert(mbuf, p, header, UINT16_MAX);
}
