// SPDX-License-Identifier: BSD-3-Clause
// Hot path: no allocation, lock, log, system call.
//
// Time: idle timeouts by state and a sweep in bounded slices. It walks the records in order, which the processor's own
// prefetch follows; records that were never used are not looked at. No timer per flow: a packet only writes a stamp, once a
// second. On its way the sweep puts right the hints of who may give way (victim.c).
#include "flow.h"
#include "flow_priv.h"

// Seconds. SYN_SENT outlives the longest pause between a client's first four SYNs (1, 2, 4, 8 s) but
// the last. CLOSED is the rest of the source port before it may be used again.
#define IDLE_EMBRYONIC_S 10u
#define IDLE_FIN_S       60u
#define IDLE_CLOSING_S   20u
#define IDLE_CLOSED_S    5u

static uint32_t smaller(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

struct flow_policy flow_policy_make(uint32_t tcp_idle_s, uint32_t udp_idle_s)
{
	uint32_t tcp = smaller(tcp_idle_s, FLOW_IDLE_MAX_S);
	uint32_t udp = smaller(udp_idle_s, FLOW_IDLE_MAX_S);
	struct flow_policy p;
	p.idle_s[FLOW_STATE_FREE] = UINT32_MAX; // never expired
	p.idle_s[FLOW_STATE_SYN_SENT] = IDLE_EMBRYONIC_S;
	p.idle_s[FLOW_STATE_SYN_RECEIVED] = IDLE_EMBRYONIC_S;
	p.idle_s[FLOW_STATE_ESTABLISHED] = tcp;
	p.idle_s[FLOW_STATE_FIN_CLIENT] = smaller(tcp, IDLE_FIN_S);
	p.idle_s[FLOW_STATE_FIN_BACKEND] = smaller(tcp, IDLE_FIN_S);
	p.idle_s[FLOW_STATE_CLOSING] = IDLE_CLOSING_S;
	p.idle_s[FLOW_STATE_CLOSED] = IDLE_CLOSED_S;
	p.idle_s[FLOW_STATE_UDP_ONEWAY] = smaller(udp, IDLE_EMBRYONIC_S);
	p.idle_s[FLOW_STATE_UDP_TWOWAY] = udp;
	return p;
}

// Records first..end-1, all of one block. Returns how many are expired.
static uint32_t sweep_block(struct flow_table *table, const struct flow_policy *policies,
	uint32_t now_s, uint32_t first, uint32_t end, uint32_t *out_idx)
{
	uint32_t n_out = 0, n_yielding = 0;
	bool idle = false;
	for (uint32_t i = first; i < end; i++) {
		const struct flow_record *r = &table->records[i];
		out_idx[n_out] = i;
		n_out += r->state != FLOW_STATE_FREE && flow_is_expired(r, policies, now_s);
		n_yielding += flow_state_yields(r->state);
		idle |= flow_is_idle(r->state, now_s - r->stamp_s);
	}
	if (first % FLOW_BLOCK == 0 && (end % FLOW_BLOCK == 0 || end == table->n_used))
		flow_recount_block(table, first / FLOW_BLOCK, n_yielding, idle);
	return n_out;
}

uint32_t flow_sweep(struct flow_table *table, const struct flow_policy *policies, uint32_t now_s,
	uint32_t max_records, uint32_t *out_idx)
{
	uint32_t n_left = table->n_used - table->sweep_next;
	uint32_t end = table->sweep_next + (max_records < n_left ? max_records : n_left);
	uint32_t n_out = 0;
	for (uint32_t i = table->sweep_next; i < end;) {
		uint32_t block_end = smaller(end, (i / FLOW_BLOCK + 1) * FLOW_BLOCK);
		n_out += sweep_block(table, policies, now_s, i, block_end, out_idx + n_out);
		i = block_end;
	}
	table->sweep_next = end;
	// An empty table is a pass too: whoever waits for passes must not wait for a flow.
	if (end == table->n_used && max_records > 0) {
		table->sweep_next = 0;
		table->n_sweeps++;
	}
	return n_out;
}

void flow_sweep_back(struct flow_table *table, uint32_t idx)
{
	if (table->sweep_next == 0) // a pass that is not over
		table->n_sweeps--;
	table->sweep_next = idx;
}
