// SPDX-License-Identifier: BSD-3-Clause
// Hot path: no allocation, lock, log, system call.
// TOA: the client's port and address in a TCP option, as the kernel modules of LVS and its descendants read it: kind 254 (RFC 3692), length 8
// or 20, port, address. The first option, where those modules look soonest. Both lengths are multiples of 4: no padding.
#include "packet_priv.h"

#define OPTION_TOA      254
#define TCP_HEADER_MAX  60u
#define OPTION_BYTES_V4 8u
#define OPTION_BYTES_V6 20u

static uint32_t option_make(
	uint8_t option[OPTION_BYTES_V6], const struct address *client, rte_be16_t port)
{
	bool is_v4 = address_is_v4(client);
	uint32_t n = is_v4 ? OPTION_BYTES_V4 : OPTION_BYTES_V6;
	option[0] = OPTION_TOA;
	option[1] = (uint8_t)n;
	memcpy(option + 2, &port, sizeof(port));
	memcpy(option + 4, client->bytes + (is_v4 ? 12 : 0), n - 4);
	return n;
}

enum packet_growth packet_toa_insert(struct rte_mbuf *mbuf, struct packet *p,
	const struct address *client, rte_be16_t port, uint16_t mtu)
{
	uint8_t option[OPTION_BYTES_V6];
	uint32_t n = option_make(option, client, port);
	struct tcp_header *tcp = packet_at(mbuf, p->l4_offset);
	if (segment_header_length(tcp) + n > TCP_HEADER_MAX)
		return PACKET_GROWTH_NO_OPTIONS;
	if (p->l3_length + n > mtu)
		return PACKET_GROWTH_TOO_LONG;
	enum packet_growth growth =
		segment_grow(mbuf, p, p->l4_offset + (uint32_t)sizeof(*tcp), option, n);
	if (growth != PACKET_GROWN)
		return growth;
	tcp = packet_at(mbuf, p->l4_offset);
	// The upper 4 bits of its byte count words of 4 bytes; a byte in front is the upper one of its word.
	uint8_t more = (uint8_t)(n / 4 << 4);
	tcp->offset = (uint8_t)(tcp->offset + more);
	tcp->checksum = checksum_apply(tcp->checksum, rte_cpu_to_be_16((uint16_t)(more << 8)));
	return PACKET_GROWN;
}
