// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// Layout of a FIB: one open-addressed table of (masked address, prefix length), and per family
// the list of lengths in use, longest first.

#include "nexthop.h"

// Addresses are compared in their 128-bit form, so an IPv4 length counts 96 bits more. An IPv4
// destination is looked up with the lengths of IPv4 routes alone: ::/0 is no route of its.
struct nexthop_length {
	uint64_t mask[2]; // as the halves of an address lie in memory
	uint32_t bits;    // 0..128
	uint32_t pad;
};

struct nexthop_cell {
	struct address address; // masked
	uint32_t metric;
	uint16_t nexthop;
	uint8_t port_idx;
	uint8_t bits_plus_1; // 0 = empty cell
};
_Static_assert(sizeof(struct nexthop_cell) == 24, "cells are packed");

struct nexthop_fib {
	uint32_t generation;
	uint32_t cell_mask; // cells - 1; at most half of them are taken
	uint32_t n_lengths[2];
	struct nexthop_length lengths[2][129]; // [0] IPv6, [1] IPv4
	struct nexthop_cell cells[];
};

static inline uint32_t nexthop_hash(const struct address *masked, uint32_t bits)
{
	return (uint32_t)hash_fold(masked->halves[0] ^ 0x9e3779b97f4a7c15ull ^ bits,
		masked->halves[1] ^ 0xd6e8feb86659fd93ull);
}
