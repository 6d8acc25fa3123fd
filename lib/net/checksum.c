// SPDX-License-Identifier: BSD-3-Clause
// Hot path: no allocation, lock, log, system call.
// One's-complement sums over memory.
#include "net.h"

uint64_t checksum_sum(const void *bytes, size_t len)
{
	const uint8_t *at = bytes;
	uint64_t sum = 0;
	while (len >= 4) {
		uint32_t word;
		memcpy(&word, at, 4);
		sum += word; // 2^32 steps before a 64-bit sum could overflow
		at += 4;
		len -= 4;
	}
	uint32_t tail = 0;
	if (len > 0) {
		memcpy(&tail, at, len);
		sum += tail;
	}
	return sum;
}

uint64_t checksum_pseudo(
	const struct address *src, const struct address *dst, uint8_t protocol, uint32_t len)
{
	uint64_t sum = (uint64_t)rte_cpu_to_be_16(protocol) + rte_cpu_to_be_32(len);
	if (address_is_v4(src))
		return sum + src->words[3] + dst->words[3];
	return sum + checksum_sum_address(src) + checksum_sum_address(dst);
}
