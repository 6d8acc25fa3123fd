// SPDX-License-Identifier: BSD-3-Clause
// Hot path: no allocation, lock, log, system call.
// l2dsr: the backend has the VIP too and stands on the same link, so its MAC says all.
#include "packet_priv.h"

void packet_rewrite_l2dsr(struct rte_mbuf *mbuf, const struct packet_macs *macs)
{
	plain_write_macs(packet_at(mbuf, 0), macs);
}
