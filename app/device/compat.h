// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// The only place that knows DPDK releases apart. Floor 22.11; 23.11, 24.11 and 25.11 are meant to build too.
// Everything else in app/ uses DPDK as these names present it.

#include <rte_ethdev.h>
#include <rte_version.h>

#if RTE_VERSION < RTE_VERSION_NUM(22, 11, 0, 0)
#error "DPDK 22.11 or later is needed"
#endif

// Members of a bonding port were called slaves before 23.11: the argument's name in advice to users.
#if RTE_VERSION >= RTE_VERSION_NUM(23, 11, 0, 0)
#define COMPAT_BOND_MEMBER "member"
#else
#define COMPAT_BOND_MEMBER "slave"
#endif

// Reported by drivers that do not know their speed; spelled alike from 21.11, but its type was widened later.
static inline uint32_t compat_link_mbps(const struct rte_eth_link *link)
{
	return link->link_speed == RTE_ETH_SPEED_NUM_UNKNOWN ? 0 : (uint32_t)link->link_speed;
}

// Before 23.11 the EAL returned EALREADY or -1 with rte_errno; later releases may return a negative errno as well.
static inline int compat_eal_errno(int rc)
{
	int code = rte_errno;
	if (code <= 0)
		code = rc < -1 ? -rc : 22; // EINVAL
	return code;
}
