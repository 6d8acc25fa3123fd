// SPDX-License-Identifier: BSD-3-Clause
// Hot path: no allocation, lock, log, system call.
//
// Time: idle timeouts by state, a sweep in bounded slices, and who gives way when the table is full.
// Both walk the records in order, which the processor's own prefetch follows; records that were never
// used are not looked at. No timer per flow: a packet only writes a stamp, once a second.
#include "flow.h"

// Seconds. SYN_SENT outlives the longest pause between a client's first four SYNs (1, 2, 4, 8 s) but
// the last. CLOSED is the rest of the source port before it may be used again.
#define IDLE_EMBRYONIC_S 10u
#define IDLE_FIN_S       60u
#define IDLE_CLOSING_S   20u
#define IDLE_CLOSED_S    5u
// Records that flow_victim looks at.
#define VICTIM_RECORDS 64u

static uint32_t min_s(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

struct flow_policy flow_policy_make(uint32_t tcp_idle_s, uint32_t udp_idle_s)
{
	uint32_t tcp = min_s(tcp_idle_s, FLOW_IDLE_MAX_S);
	uint32_t udp = min_s(udp_idle_s, FLOW_IDLE_MAX_S);
	struct flow_policy p;
	p.idle_s[FLOW_STATE_FREE] = UINT32_MAX; // never expired
	p.idle_s[FLOW_STATE_SYN_SENT] = IDLE_EMBRYONIC_S;
	p.idle_s[FLOW_STATE_SYN_RECEIVED] = IDLE_EMBRYONIC_S;
	p.idle_s[FLOW_STATE_ESTABLISHED] = tcp;
	p.idle_s[FLOW_STATE_FIN_CLIENT] = min_s(tcp, IDLE_FIN_S);
	p.idle_s[FLOW_STATE_FIN_BACKEND] = min_s(tcp, IDLE_FIN_S);
	p.idle_s[FLOW_STATE_CLOSING] = IDLE_CLOSING_S;
	p.idle_s[FLOW_STATE_CLOSED] = IDLE_CLOSED_S;
	p.idle_s[FLOW_STATE_UDP_ONEWAY] = min_s(udp, IDLE_EMBRYONIC_S);
	p.idle_s[FLOW_STATE_UDP_TWOWAY] = udp;
	return p;
}

uint32_t flow_sweep(struct flow_table *table, const struct flow_policy *policies, uint32_t now_s,
	uint32_t max_records, uint32_t *out_idx)
{
	uint32_t n_left = table->n_used - table->sweep_next;
	uint32_t end = table->sweep_next + (max_records < n_left ? max_records : n_left);
	uint32_t n_out = 0;
	for (uint32_t i = table->sweep_next; i < end; i++) {
		const struct flow_record *r = &table->records[i];
		out_idx[n_out] = i;
		n_out += r->state != FLOW_STATE_FREE && flow_is_expired(r, policies, now_s);
	}
	table->sweep_next = end;
	// An empty table is a pass too: whoever waits for passes must not wait for a flow.
	if (end == table->n_used && max_records > 0) {
		table->sweep_next = 0;
		table->n_sweeps++;
	}
	return n_out;
}

// How willingly a flow gives way: lower first. KEEP is never taken.
enum victim_rank { RANK_EXPIRED, RANK_EMBRYONIC, RANK_CLOSED, RANK_KEEP };

static enum victim_rank flow_rank(
	const struct flow_record *r, const struct flow_policy *policies, uint32_t now_s)
{
	static const uint8_t by_state[FLOW_STATE_MAX] = {
		[FLOW_STATE_FREE] = RANK_KEEP,
		[FLOW_STATE_SYN_SENT] = RANK_EMBRYONIC,
		[FLOW_STATE_SYN_RECEIVED] = RANK_EMBRYONIC,
		[FLOW_STATE_ESTABLISHED] = RANK_KEEP,
		[FLOW_STATE_FIN_CLIENT] = RANK_KEEP, // half closed: the other half may carry data
		[FLOW_STATE_FIN_BACKEND] = RANK_KEEP,
		[FLOW_STATE_CLOSING] = RANK_CLOSED,
		[FLOW_STATE_CLOSED] = RANK_CLOSED,
		[FLOW_STATE_UDP_ONEWAY] = RANK_EMBRYONIC,
		[FLOW_STATE_UDP_TWOWAY] = RANK_KEEP,
	};
	if (r->state != FLOW_STATE_FREE && flow_is_expired(r, policies, now_s))
		return RANK_EXPIRED;
	return by_state[r->state];
}

uint32_t flow_victim(struct flow_table *table, const struct flow_policy *policies, uint32_t now_s)
{
	uint32_t best = FLOW_NONE, best_rank = RANK_KEEP, best_idle_s = 0;
	uint32_t n = min_s(table->n_used, VICTIM_RECORDS);
	for (uint32_t k = 0; k < n && best_rank != RANK_EXPIRED; k++) {
		uint32_t i = table->victim_next < table->n_used ? table->victim_next : 0;
		const struct flow_record *r = &table->records[i];
		uint32_t rank = flow_rank(r, policies, now_s), idle_s = now_s - r->stamp_s;
		table->victim_next = i + 1;
		if (rank == RANK_KEEP || rank > best_rank ||
			(rank == best_rank && idle_s <= best_idle_s))
			continue;
		best = i;
		best_rank = rank;
		best_idle_s = idle_s;
	}
	return best;
}
