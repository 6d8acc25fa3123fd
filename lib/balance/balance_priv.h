// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// What building a table shares between its files: one member's turns, and the fill.

#include "balance.h"

// A member with a weight, in identity order.
struct turn {
	uint32_t position; // next slot of this member's permutation
	uint32_t skip;
	uint32_t remainder; // rounds so far * weight mod the largest weight
	uint16_t weight;
	uint16_t member_idx;
};

// Slots 0..m-1 by the paper's loop over turns[0..n_turns-1], n_turns >= 1, m prime. 0 or -ENOMEM (no slot is written).
int balance_fill(struct turn *turns, uint32_t n_turns, uint32_t m, enum balance_variant variant,
	uint16_t *slots);
