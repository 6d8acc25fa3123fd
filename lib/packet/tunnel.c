// SPDX-License-Identifier: BSD-3-Clause
// Hot path: no allocation, lock, log, system call.
// What every packet through a tunnel has alike, summed once.
#include "tunnel_priv.h"

void packet_tunnel_init(struct packet_tunnel *out, enum packet_tunnel_kind kind,
	const struct address *src, const struct address *dst)
{
	*out = (struct packet_tunnel){
		.src = *src,
		.dst = *dst,
		.kind = (uint8_t)kind,
		.is_v6 = !address_is_v4(dst),
	};
	uint64_t sum = checksum_sum_address(src) + checksum_sum_address(dst);
	if (out->is_v6)
		sum += rte_cpu_to_be_16(NET_PROTO_UDP);
	else // what an address of IPv4 has in front sums up to nothing
		sum += (uint64_t)TUNNEL_V4_FIXED + TUNNEL_V4_TTL;
	out->sum = checksum_fold(sum);
}
