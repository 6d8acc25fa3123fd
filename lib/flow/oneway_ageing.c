// SPDX-License-Identifier: BSD-3-Clause
// Hot path: no allocation, lock, log, system call.
//
// Time. A stamp of 16 bits comes round after 65,536 s, or 1,048,576 s when coarse, and then an old entry would look
// like a fresh one. It cannot:
//
//   An entry is *dated* when the sweep keeps it, when it is written or displaced, and when oneway_advance dates all.
//   From then its age is at most F = ONEWAY_FINE_MAX_S = 32,768 s when fine, A = ONEWAY_AGE_MAX_S (7 days and a minute)
//   when coarse: the sweep removes what is older than its timeout and makes coarse what may become older than F.
//   dated_s is a second at which, or later, every entry was dated: the second in which the last complete pass began
//   (what moved meanwhile was dated by the move). oneway_advance never lets the clock get F beyond dated_s without
//   dating all first, by the clock before its step. So whenever a stamp is read, its age is below 2 F = 65,536
//   or A + F + 16 < 1,048,576, which the stamp can tell.
//
// The clock may therefore jump by any time, and the sweep may be late by any time; what is expired stays so.
#include "oneway.h"
#include "oneway_priv.h"

static void oneway_date_all(struct oneway_table *table, uint32_t now_s)
{
	for (uint32_t ref = 0; ref < oneway_n_positions(table); ref++) {
		uint64_t *at = oneway_word_at(table, ref);
		if ((ref & 3) >= ONEWAY_SLOTS6 && oneway_line_is6(table, ref >> 2))
			continue;
		if (!oneway_is_free(*at))
			oneway_store(at,
				oneway_date_anew(*at, table->now_s, now_s, now_s - table->now_s));
	}
	table->dated_s = now_s;
}

void oneway_advance_slow(struct oneway_table *table, uint32_t now_s)
{
	bool empty = table->families[0].n_entries + table->families[1].n_entries == 0;
	if (empty)
		table->dated_s = now_s;
	else if ((int32_t)(now_s - table->now_s) < 0)
		return;
	else if (now_s - table->dated_s >= ONEWAY_FINE_MAX_S)
		oneway_date_all(table, now_s);
	__atomic_store_n(&table->now_s, now_s, __ATOMIC_RELAXED);
	__atomic_store_n(&table->header->now_s, now_s, __ATOMIC_RELAXED);
}

// Homes of expired entries that lay elsewhere: random lines, asked for now and written later.
#define SWEEP_HOMES 32
struct sweep_homes {
	uint32_t n;
	uint32_t lines[SWEEP_HOMES];
};

static void sweep_count_homes(struct oneway_table *table, struct sweep_homes *homes)
{
	for (uint32_t i = 0; i < homes->n; i++)
		oneway_count_returned(table, homes->lines[i]);
	homes->n = 0;
}

// Removes the entry if it is expired: its word, else 0, and its stamp is then in the unit that its timeout asks for.
static uint64_t sweep_slot(struct oneway_table *table, uint32_t ref,
	const struct oneway_timeouts *timeouts, struct sweep_homes *homes)
{
	uint64_t *at = oneway_word_at(table, ref);
	uint32_t idle_s = oneway_idle_s(table, *at);
	uint32_t timeout_s = oneway_timeout_s(*at, timeouts);
	bool coarse = oneway_must_be_coarse(timeout_s);
	if (idle_s <= timeout_s) {
		if (coarse != ((*at & ONEWAY_COARSE) != 0)) // its timeout was changed
			oneway_store(at, oneway_dated(*at, idle_s, coarse, table->now_s));
		return 0;
	}
	if (homes->n == SWEEP_HOMES)
		sweep_count_homes(table, homes);
	uint64_t word = oneway_take(table, ref >> 2, ref & 3, &homes->lines[homes->n]);
	if (homes->lines[homes->n] != UINT32_MAX)
		flow_prefetch_line(oneway_line4(table, homes->lines[homes->n++]));
	return word;
}

// The first line from `line` on whose family has an entry.
static uint32_t sweep_skip_empty(const struct oneway_table *table, uint32_t line)
{
	for (uint32_t v = 0; v < 2; v++) {
		const struct oneway_family *f = &table->families[v];
		uint32_t end = f->first_line + f->n_lines;
		if (f->n_entries == 0 && line >= f->first_line && line < end)
			line = end;
	}
	return line;
}

uint32_t oneway_sweep(struct oneway_table *table, const struct oneway_timeouts *timeouts,
	uint32_t max_lines, uint64_t *out_words)
{
	uint32_t n_out = 0;
	struct sweep_homes homes = { .n = 0 };
	if (max_lines == 0)
		return 0;
	if (table->sweep_next == 0)
		table->pass_s = table->now_s;
	table->sweep_next = sweep_skip_empty(table, table->sweep_next);
	uint32_t n_left = table->n_lines - table->sweep_next;
	uint32_t end = table->sweep_next + (max_lines < n_left ? max_lines : n_left);
	for (uint32_t line = table->sweep_next; line < end; line++) {
		uint32_t n_slots = oneway_line_is6(table, line) ? ONEWAY_SLOTS6 : ONEWAY_SLOTS4;
		for (uint32_t s = 0; s < n_slots; s++) {
			if (oneway_is_free(oneway_words(table, line)[s]))
				continue;
			uint64_t word = sweep_slot(table, oneway_ref(line, s), timeouts, &homes);
			out_words[n_out] = word;
			n_out += word != 0;
		}
	}
	sweep_count_homes(table, &homes);
	table->sweep_next = end;
	if (end == table->n_lines) {
		table->sweep_next = 0;
		table->n_sweeps++;
		table->dated_s = table->pass_s;
	}
	return n_out;
}
