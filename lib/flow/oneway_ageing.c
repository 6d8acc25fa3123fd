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

uint32_t oneway_timeout_s(uint64_t word, const struct oneway_timeouts *timeouts)
{
	// UDP_FIRST as UDP: a client that sends one datagram a minute is as good as any.
	static const uint8_t flow_states[ONEWAY_STATE_MAX] = {
		[ONEWAY_FREE] = FLOW_STATE_FREE,
		[ONEWAY_EMBRYONIC] = FLOW_STATE_SYN_SENT,
		[ONEWAY_ESTABLISHED] = FLOW_STATE_ESTABLISHED,
		[ONEWAY_FIN] = FLOW_STATE_FIN_CLIENT,
		[ONEWAY_CLOSED] = FLOW_STATE_CLOSED,
		[ONEWAY_UDP_FIRST] = FLOW_STATE_UDP_TWOWAY,
		[ONEWAY_UDP] = FLOW_STATE_UDP_TWOWAY,
		[ONEWAY_AFFINITY] = FLOW_STATE_FREE, // not of a policy
	};
	uint32_t id = oneway_backend_id(word), state = oneway_state(word);
	const struct oneway_backend *backend =
		id < timeouts->n_backends ? &timeouts->backends[id] : &timeouts->fallback;
	uint32_t s = state == ONEWAY_AFFINITY
			     ? backend->affinity_s
			     : timeouts->policies[backend->policy].idle_s[flow_states[state]];
	return s < FLOW_IDLE_MAX_S ? s : FLOW_IDLE_MAX_S;
}

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

// Removes the entry if it is expired: its word, else 0, and its stamp is then in the unit that its timeout asks for.
static uint64_t oneway_sweep_slot(struct oneway_table *table, uint32_t line, uint32_t slot,
	const struct oneway_timeouts *timeouts)
{
	uint64_t *at = &oneway_words(table, line)[slot];
	uint32_t idle_s = oneway_idle_s(table, *at);
	uint32_t timeout_s = oneway_timeout_s(*at, timeouts);
	if (idle_s > timeout_s)
		return oneway_take(table, line, slot);
	bool coarse = oneway_must_be_coarse(timeout_s);
	if (coarse != ((*at & ONEWAY_COARSE) != 0)) // its timeout was changed
		oneway_store(at, oneway_dated(*at, idle_s, coarse, table->now_s));
	return 0;
}

uint32_t oneway_sweep(struct oneway_table *table, const struct oneway_timeouts *timeouts,
	uint32_t max_lines, uint64_t *out_words)
{
	uint32_t n_left = table->n_lines - table->sweep_next, n_out = 0;
	uint32_t end = table->sweep_next + (max_lines < n_left ? max_lines : n_left);
	if (table->sweep_next == 0)
		table->pass_s = table->now_s;
	for (uint32_t line = table->sweep_next; line < end; line++) {
		uint32_t n_slots = oneway_line_is6(table, line) ? ONEWAY_SLOTS6 : ONEWAY_SLOTS4;
		for (uint32_t s = 0; s < n_slots; s++) {
			if (oneway_is_free(oneway_words(table, line)[s]))
				continue;
			uint64_t word = oneway_sweep_slot(table, line, s, timeouts);
			out_words[n_out] = word;
			n_out += word != 0;
		}
	}
	table->sweep_next = end;
	if (end == table->n_lines) {
		table->sweep_next = 0;
		table->n_sweeps++;
		// All may have been dated since the pass began.
		if ((int32_t)(table->pass_s - table->dated_s) > 0)
			table->dated_s = table->pass_s;
	}
	return n_out;
}
