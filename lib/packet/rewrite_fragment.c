// SPDX-License-Identifier: BSD-3-Clause
// Hot path: no allocation, lock, log, system call.
// Fragments in NAT modes. The L4 checksum covers the whole datagram and lies in the first fragment; addresses and ports change it by
// a difference that needs nothing of the rest. SCTP has a CRC instead: refused before it comes here.
#include "packet_priv.h"

static void rewrite_later_v4(
	struct rte_mbuf *mbuf, const struct packet *p, const struct packet_nat *nat)
{
	struct v4_header *ip = packet_at(mbuf, p->l3_offset);
	rte_be32_t src = address_v4(&nat->src), dst = address_v4(&nat->dst);
	uint64_t delta =
		checksum_delta(address_v4(&p->src), src) + checksum_delta(address_v4(&p->dst), dst);
	ip->src = src;
	ip->dst = dst;
	ip->ttl--;
	ip->checksum = checksum_apply(ip->checksum, delta + (uint16_t)~RTE_BE16(0x0100));
}

void packet_rewrite_fragment(
	struct rte_mbuf *mbuf, const struct packet *p, const struct packet_nat *nat)
{
	if (packet_fragment_offset(p) == 0) {
		packet_rewrite_fullnat(mbuf, p, nat);
		return;
	}
	plain_write_macs(packet_at(mbuf, 0), &nat->macs);
	if (!p->is_v6) {
		rewrite_later_v4(mbuf, p, nat);
		return;
	}
	struct v6_header *ip = packet_at(mbuf, p->l3_offset);
	ip->src = nat->src;
	ip->dst = nat->dst;
	ip->hop_limit--;
}
