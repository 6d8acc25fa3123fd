// SPDX-License-Identifier: BSD-3-Clause
// Hot path: no allocation, lock, log, system call.
//
// Who gives way when there is no room: the flow that would be missed least, found without a search.
//
//   yielding   .1..............1........11..   a bit per block of 64 records: some flow's state yields
//               │                                (embryonic, closing, closed)
//   records    [64 lines] ── best of these: expired, embryonic, closed; the longest idle
//
// A count per block keeps the bit right: flow_add, flow_remove and flow_set_state change it when a flow enters or leaves the
// states that yield, four times in the life of a connection. So a table where 5 % of the flows yield gives one at the first
// block looked at, wherever they lie: all at the end after a flood, or one in every block. Whether a confirmed flow is idle
// depends on time, so nobody could keep that bit: the sweep sets it, a visit that finds nothing clears it.
//
// Blocks take turns: the new flow takes the record of its victim, which makes its block one of the youngest, and by the time
// the hand comes back all others gave one flow each. Within a block the longest idle goes, so that a flood, whose flows
// are never confirmed, mostly evicts itself.
#include "flow.h"
#include "flow_priv.h"

#define HINT_WORDS 4096u // words of hints looked at in one search
#define BLOCKS_MAX 4u    // blocks of one kind looked at, when the hints were wrong
// Idle for so long, a flow that yields need not be compared with others: whoever started it is not about to finish.
#define GONE_S 3u

// Seconds without a packet after which a confirmed flow may go rather than a new one be refused. Well below any idle timeout
// that is set for good reason, above the pauses of a client that is being used. Others never count as idle.
const uint32_t flow_idle_from_s[FLOW_STATE_MAX] = {
	[FLOW_STATE_FREE] = UINT32_MAX,
	[FLOW_STATE_SYN_SENT] = UINT32_MAX,
	[FLOW_STATE_SYN_RECEIVED] = UINT32_MAX,
	[FLOW_STATE_ESTABLISHED] = 60,
	[FLOW_STATE_FIN_CLIENT] = 15, // half closed: the other half may carry data
	[FLOW_STATE_FIN_BACKEND] = 15,
	[FLOW_STATE_CLOSING] = UINT32_MAX,
	[FLOW_STATE_CLOSED] = UINT32_MAX,
	[FLOW_STATE_UDP_ONEWAY] = UINT32_MAX,
	[FLOW_STATE_UDP_TWOWAY] = 30,
};
_Static_assert(
	FLOW_STATE_MAX == 10, "a new state: say here, and in flow_state_yields, when it gives way");

// How willingly a flow gives way: lower first. KEEP is never taken.
enum victim_rank { RANK_EXPIRED, RANK_EMBRYONIC, RANK_CLOSED, RANK_IDLE, RANK_KEEP };

struct victim {
	uint32_t idx; // FLOW_NONE: none yet
	uint32_t rank;
	uint32_t idle_s;
};

void flow_recount_block(struct flow_table *table, uint32_t block, uint32_t n_yielding, bool idle)
{
	uint64_t bit = 1ull << block % 64;
	uint64_t *yields = &table->yielding[block / 64], *idles = &table->idle[block / 64];
	table->n_yielding[block] = (uint8_t)n_yielding;
	*yields = n_yielding > 0 ? *yields | bit : *yields & ~bit;
	*idles = idle ? *idles | bit : *idles & ~bit;
}

static enum victim_rank flow_rank(
	const struct flow_record *r, const struct flow_policy *policies, uint32_t now_s)
{
	if (r->state == FLOW_STATE_FREE)
		return RANK_KEEP;
	if (flow_is_expired(r, policies, now_s))
		return RANK_EXPIRED;
	if (flow_state_yields(r->state))
		return flow_is_confirmed(r->state) ? RANK_CLOSED : RANK_EMBRYONIC;
	return flow_is_idle(r->state, now_s - r->stamp_s) ? RANK_IDLE : RANK_KEEP;
}

// Takes record idx for the victim if it gives way sooner than the one so far.
static void consider(struct victim *best, uint32_t idx, uint32_t rank, uint32_t idle_s)
{
	if (rank > best->rank || (rank == best->rank && idle_s <= best->idle_s))
		return;
	*best = (struct victim){ .idx = idx, .rank = rank, .idle_s = idle_s };
}

static bool is_good_enough(const struct victim *best)
{
	return best->rank == RANK_EXPIRED ||
	       (best->rank == RANK_EMBRYONIC && best->idle_s >= GONE_S);
}

// The best of one block, of rank `worst` or better. When it was seen to its end, its hints are what it holds.
static struct victim look_at_block(struct flow_table *table, const struct flow_policy *policies,
	uint32_t now_s, uint32_t block, enum victim_rank worst)
{
	uint32_t i = block * FLOW_BLOCK, end = i + FLOW_BLOCK, n_yielding = 0;
	bool idle = false;
	struct victim best = { .idx = FLOW_NONE, .rank = worst + 1, .idle_s = UINT32_MAX };
	end = end < table->n_used ? end : table->n_used;
	for (; i < end && !is_good_enough(&best); i++) {
		const struct flow_record *r = &table->records[i];
		uint32_t idle_s = now_s - r->stamp_s;
		n_yielding += flow_state_yields(r->state);
		idle |= flow_is_idle(r->state, idle_s);
		consider(&best, i, flow_rank(r, policies, now_s), idle_s);
	}
	if (i == end)
		flow_recount_block(table, block, n_yielding, idle);
	return best;
}

// The next block from `from` on, round the end, whose bit is set; UINT32_MAX: none.
static uint32_t next_block(const uint64_t *bits, uint32_t n_blocks, uint32_t from)
{
	uint32_t n_words = (n_blocks + 63) / 64;
	uint32_t w = from / 64;
	uint64_t word = bits[w] & ~0ull << from % 64;
	// The first word comes twice: from the hand on, and, last, below it.
	for (uint32_t looked = 0; looked <= n_words && looked < HINT_WORDS; looked++) {
		if (word != 0)
			return w * 64 + (uint32_t)__builtin_ctzll(word);
		w = w + 1 < n_words ? w + 1 : 0;
		word = bits[w];
	}
	return UINT32_MAX;
}

static uint32_t search(struct flow_table *table, const struct flow_policy *policies, uint32_t now_s,
	enum victim_rank worst)
{
	const uint64_t *bits = worst == RANK_IDLE ? table->idle : table->yielding;
	uint32_t *hand = worst == RANK_IDLE ? &table->idle_next : &table->yielding_next;
	uint32_t n_blocks = flow_n_blocks(table->capacity);
	for (uint32_t looked = 0; looked < BLOCKS_MAX; looked++) {
		uint32_t block = next_block(bits, n_blocks, *hand);
		if (block == UINT32_MAX)
			return FLOW_NONE;
		struct victim best = look_at_block(table, policies, now_s, block, worst);
		*hand = block + 1 < n_blocks ? block + 1 : 0;
		if (best.idx != FLOW_NONE)
			return best.idx;
	}
	return FLOW_NONE;
}

uint32_t flow_victim(struct flow_table *table, const struct flow_policy *policies, uint32_t now_s)
{
	uint32_t idx = search(table, policies, now_s, RANK_CLOSED);
	return idx != FLOW_NONE ? idx : search(table, policies, now_s, RANK_IDLE);
}

uint32_t flow_victims(struct flow_table *table, const struct flow_policy *policies, uint32_t now_s,
	uint32_t n_max, uint32_t *out_idx)
{
	uint32_t first = flow_victim(table, policies, now_s), n = 0;
	if (first == FLOW_NONE || n_max == 0)
		return 0;
	const struct flow_record *r = flow_record(table, first);
	uint32_t rank = flow_rank(r, policies, now_s), idle_s = now_s - r->stamp_s;
	uint32_t i = first / FLOW_BLOCK * FLOW_BLOCK, end = i + FLOW_BLOCK;
	out_idx[n++] = first;
	if (rank > RANK_CLOSED)
		return n;
	end = end < table->n_used ? end : table->n_used;
	for (; i < end && n < n_max; i++) {
		r = flow_record(table, i);
		if (i != first && flow_rank(r, policies, now_s) == rank &&
			now_s - r->stamp_s + 1 >= idle_s)
			out_idx[n++] = i;
	}
	return n;
}

uint32_t flow_victim_among(const struct flow_table *table, const struct flow_policy *policies,
	uint32_t now_s, const uint32_t *candidates, uint32_t n)
{
	struct victim best = { .idx = FLOW_NONE, .rank = RANK_CLOSED + 1, .idle_s = UINT32_MAX };
	for (uint32_t k = 0; k < n; k++)
		if (candidates[k] < table->n_used)
			flow_prefetch_record(table, candidates[k]);
	for (uint32_t k = 0; k < n; k++) {
		if (candidates[k] >= table->n_used) // FLOW_NONE too
			continue;
		const struct flow_record *r = flow_record(table, candidates[k]);
		consider(&best, candidates[k], flow_rank(r, policies, now_s), now_s - r->stamp_s);
	}
	return best.idx;
}
