// SPDX-License-Identifier: BSD-3-Clause
// Hot path: no allocation, lock, log, system call.
// fullnat: both addresses and both ports change, one delta for the addresses goes into the IPv4 header and into L4. The work
// is in plain.h, where the pipeline has it inline; this is for all others.
#include "packet_priv.h"

_Static_assert(offsetof(struct packet, dst_port) == offsetof(struct packet, src_port) + 2, "ports");

void packet_rewrite_fullnat(
	struct rte_mbuf *mbuf, const struct packet *p, const struct packet_nat *nat)
{
	uint8_t *frame = packet_at(mbuf, 0);
	plain_write_macs(frame, &nat->macs);
	if (likely(!p->is_v6))
		plain_nat_v4(frame, p, nat->src.words[3], nat->dst.words[3], nat->ports);
	else
		plain_nat_v6(frame, p, &nat->src, &nat->dst, nat->ports);
}
