// SPDX-License-Identifier: BSD-3-Clause
#include "kube_shrink.h"

static void forget_old(struct kube_shrink_window *w, uint64_t cell)
{
	uint64_t n_passed = cell - w->cell;
	for (uint64_t i = 1; i <= n_passed && i <= KUBE_SHRINK_CELLS; i++) {
		uint32_t *old = &w->lost[(w->cell + i) % KUBE_SHRINK_CELLS];
		w->n_missing -= *old;
		*old = 0;
	}
}

static void fill_newest(struct kube_shrink_window *w, uint32_t n_new)
{
	for (uint32_t i = 0; i < KUBE_SHRINK_CELLS && n_new; i++) {
		uint32_t *lost = &w->lost[(w->cell + KUBE_SHRINK_CELLS - i) % KUBE_SHRINK_CELLS];
		uint32_t n = n_new < *lost ? n_new : *lost;
		*lost -= n;
		w->n_missing -= n;
		n_new -= n;
	}
}

bool kube_shrink_add(struct kube_shrink_window *w, const struct kube_shrink *change,
	uint64_t now_ns, bool is_held)
{
	uint64_t cell = now_ns / KUBE_SHRINK_CELL_NS;
	if (!is_held)
		forget_old(w, cell);
	w->cell = cell;
	w->lost[cell % KUBE_SHRINK_CELLS] += change->n_gone;
	w->n_missing += change->n_gone;
	fill_newest(w, change->n_new);
	w->n_were_there = change->n_now + w->n_missing;
	return change->n_gone && w->n_missing >= KUBE_SHRINK_MIN &&
	       2 * (uint64_t)w->n_missing > w->n_were_there;
}
