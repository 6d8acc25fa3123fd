// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// How many endpoints a Service is missing: those that went without having been said to terminate, within the last half minute, less
// those that came since. What replaces others, all at once or one by one, is no loss; one that comes and goes is missed once.
//
//   t    0    5   10   15   20   25   30
//   lost │ 3  │    │    │ 4  │    │    │  one cell for five seconds, the oldest is forgotten; who comes fills the newest first
//
// Pure; control thread. Cost: a constant few words per change.
#include "kube_cluster.h"

#define KUBE_SHRINK_WINDOW_NS (30 * CLOCK_S)
#define KUBE_SHRINK_CELL_NS   (5 * CLOCK_S)
#define KUBE_SHRINK_CELLS     7 // at least the window, at most one cell more
#define KUBE_SHRINK_MIN       3 // fewer missing ones are never too many

struct kube_shrink_window {               // zeroed: nothing is missing
	uint64_t cell;                    // of the newest loss, counted from the start of the clock
	uint32_t n_missing;               // sum of the cells
	uint32_t n_were_there;            // with those that are missing, as of the last change
	uint32_t lost[KUBE_SHRINK_CELLS]; // by cell modulo their number
};

// Adds a change. is_held: what is missing is kept in force meanwhile, and not forgotten for its age. true: with this change too many
// are missing, more than half of those that were there, and at least KUBE_SHRINK_MIN.
bool kube_shrink_add(struct kube_shrink_window *w, const struct kube_shrink *change,
	uint64_t now_ns, bool is_held);
