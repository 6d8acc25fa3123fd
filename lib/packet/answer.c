// SPDX-License-Identifier: BSD-3-Clause
// Hot path: no allocation, lock, log, system call.
// The IP header that answers of ours have in common.
#include "packet_priv.h"

static void write_v4(void *at, const struct packet_answer *answer)
{
	struct v4_header ip = {
		.version_ihl = 0x45,
		.total_length = rte_cpu_to_be_16((uint16_t)(sizeof(ip) + answer->payload_length)),
		.fragment = RTE_BE16(
			0x4000), // do not fragment: so the identification may be 0 (RFC 6864)
		.ttl = PACKET_ANSWER_TTL,
		.protocol = answer->protocol,
		.src = address_v4(&answer->from),
		.dst = address_v4(&answer->to),
	};
	ip.checksum = (rte_be16_t)~checksum_fold(checksum_sum(&ip, sizeof(ip)));
	memcpy(at, &ip, sizeof(ip));
}

static void write_v6(void *at, const struct packet_answer *answer)
{
	struct v6_header ip = {
		.version_class_label = RTE_BE32(0x60000000),
		.payload_length = rte_cpu_to_be_16(answer->payload_length),
		.next_header = answer->protocol,
		.hop_limit = PACKET_ANSWER_TTL,
		.src = answer->from,
		.dst = answer->to,
	};
	memcpy(at, &ip, sizeof(ip));
}

void packet_write_ip(struct rte_mbuf *mbuf, uint32_t offset, const struct packet_answer *answer)
{
	if (answer->is_v6)
		write_v6(packet_at(mbuf, offset), answer);
	else
		write_v4(packet_at(mbuf, offset), answer);
}
