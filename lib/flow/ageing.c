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

// Where a slice is.
struct sweep {
	struct flow_table *table;
	const struct flow_policy *policies;
	const struct flow_slice *slice;
	uint32_t now_s;
	uint32_t n_out;
	uint32_t *out_idx;
};

// Records first..end-1, all of one block. Returns the first that was not looked at.
static uint32_t sweep_records(struct sweep *s, uint32_t first, uint32_t end, uint32_t *n_yielding)
{
	struct flow_record *records = s->table->records;
	uint32_t i, n_out = s->n_out, n_yields = 0, max_out = s->slice->max_expired;
	bool idle = s->table->sweep_idle;
	for (i = first; i < end; i++) {
		struct flow_record *r = &records[i];
		uint32_t state = r->state, idle_s = s->now_s - r->stamp_s;
		uint32_t limit_s = s->policies[r->policy].idle_s[state];
		bool is_expired = (idle_s > limit_s) & (state != FLOW_STATE_FREE);
		if (unlikely(is_expired & (n_out == max_out)))
			break;
		s->out_idx[n_out] = i;
		n_out += is_expired;
		n_yields += flow_state_yields(state);
		idle |= flow_is_idle(state, idle_s);
		if (unlikely(r->route_generation != s->slice->route_tag))
			__atomic_store_n(&r->route_generation, 0, __ATOMIC_RELAXED);
	}
	s->n_out = n_out;
	s->table->sweep_idle = idle;
	*n_yielding = n_yields;
	return i;
}

// A block may take several slices, in which its flows change: whether one is idle is known all the same, or was so a moment ago, but
// how many yield must be counted at once.
static uint32_t sweep_block(struct sweep *s, uint32_t first, uint32_t end)
{
	struct flow_table *table = s->table;
	uint32_t n_yielding, i = sweep_records(s, first, end, &n_yielding);
	if (i % FLOW_BLOCK != 0 && i != table->n_used)
		return i;
	uint32_t block = first / FLOW_BLOCK;
	bool at_once = first % FLOW_BLOCK == 0 && i > first;
	if (i > first)
		flow_recount_block(table, block, at_once ? n_yielding : table->n_yielding[block],
			table->sweep_idle);
	table->sweep_idle = false;
	return i;
}

uint32_t flow_sweep(struct flow_table *table, const struct flow_policy *policies, uint32_t now_s,
	const struct flow_slice *slice, uint32_t *out_idx)
{
	uint32_t i = table->sweep_next, n_left = table->n_used - i;
	uint32_t end = i + smaller(slice->max_records, n_left), until;
	struct sweep s = { table, policies, slice, now_s, 0, out_idx };
	do {
		until = smaller(end, (i / FLOW_BLOCK + 1) * FLOW_BLOCK);
		i = sweep_block(&s, i, until);
	} while (i == until && i < end);
	table->sweep_next = i;
	// An empty table is a pass too: whoever waits for passes must not wait for a flow.
	if (i == table->n_used && slice->max_records > 0) {
		table->sweep_next = 0;
		table->n_sweeps++;
	}
	return s.n_out;
}
