// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// The flow table of one worker for modes in which only the client's packets pass here (ipip, gue, l2dsr):
// client and listener -> backend. One key per flow and the answer beside it, so that a look-up is one cache
// line; no record, no index, no list. A second public header of this module, because it shares nothing with
// flow.h but the key, the timeouts and the habits, and who needs one table rarely needs the other's terms.
//
//   header (64 B) | lines of IPv4, 4 entries each | lines of IPv6, 2 entries each      (64 B a line)
//
//   entry = key (IPv4: client address and both ports, 8 bytes; IPv6: 20) + one word of 8 bytes:
//   VIP slot 16 | protocol 2 | of the line 2 | state 3 | coarse 1 | stamp 16 | backend id 24
//
// Keys are exact: slot and protocol in the word are part of them. Placed memory, position independent,
// versioned: a later process can adopt it. Where an entry lies, and why, is in oneway_priv.h.
//
// Losing an entry is no harm by itself: the hash of the next packet finds the same backend again as long as
// the backends are the same. So an entry may give way (oneway_add says which), and a flow that finds no room goes
// without.
//
// Time: the table has a clock, oneway_advance, in seconds. Stamps are 16 bits, in seconds, or in units of 16
// where the timeout is longer than ONEWAY_FINE_MAX_S; no stamp ever wraps into freshness: every entry is seen
// by the sweep, or dated anew by oneway_advance, before its stamp could come round (oneway_ageing.c).
//
// Threads: one writer, the worker. Others read with oneway_copy.

#include "flow.h"

#define ONEWAY_NONE UINT32_MAX

// 0..this many flows per family.
#define ONEWAY_CAPACITY_MAX FLOW_CAPACITY_MAX
// Backend ids are below this.
#define ONEWAY_BACKENDS_MAX (1u << 24)
// Longer timeouts are kept in units of 16 s; such an entry ends up to 15 s early, never late.
#define ONEWAY_FINE_MAX_S (1u << 15)
// Cache lines that one oneway_add may touch.
#define ONEWAY_LINES_MAX 32

// States; the transitions are one const table in oneway_state.c. All that is known comes from the client.
enum oneway_state {
	ONEWAY_FREE = 0,    // no entry
	ONEWAY_EMBRYONIC,   // TCP, SCTP: one packet seen, SYN or not
	ONEWAY_ESTABLISHED, // the client acknowledged something after it
	ONEWAY_FIN,         // client sent FIN: the backend may still be sending
	ONEWAY_CLOSED,      // client sent RST
	ONEWAY_UDP_FIRST, // one datagram seen: times out like UDP, but may give way like EMBRYONIC
	ONEWAY_UDP,       // more than one
	ONEWAY_AFFINITY,  // not a flow: remembers a client's backend (oneway_affinity_key)
	ONEWAY_STATE_MAX,
};
const char *oneway_state_name(enum oneway_state state); // "embryonic", ...

// What a packet of the client makes of its flow's state. ONEWAY_FREE is the state of a flow that has no entry: the
// first state of a new one. flags (TCP_*) count for TCP, and for SCTP, whose caller gives TCP_SYN for INIT, TCP_FIN for
// SHUTDOWN, TCP_RST for ABORT, TCP_ACK for all other chunks. When oneway_is_restart the packet opens a new flow
// with an old one's key: the caller picks a backend anew.
enum oneway_state oneway_next(enum oneway_state state, uint8_t protocol, uint8_t flags);
static inline bool oneway_is_restart(enum oneway_state state, enum oneway_state next)
{
	return next == ONEWAY_EMBRYONIC && (state == ONEWAY_FIN || state == ONEWAY_CLOSED);
}

// ---------------------------------------------------------------- timeouts
// An entry says whose it is, not how long it may idle: that is looked up by its backend.
struct oneway_backend {
	uint32_t affinity_s; // of ONEWAY_AFFINITY
	uint8_t policy;      // index into policies
};
struct oneway_timeouts {
	const struct oneway_backend *backends; // by backend id [n_backends]
	uint32_t n_backends;
	struct oneway_backend fallback; // of ids beyond
	// Of which SYN_SENT, ESTABLISHED, FIN_CLIENT, CLOSED and UDP_TWOWAY are used. Longer ones than FLOW_IDLE_MAX_S
	// count as that.
	const struct flow_policy *policies;
};

// ---------------------------------------------------------------- table
struct oneway_capacity { // flows: 23.75 bytes each of IPv4, at 2/3 of the entries; 42 of IPv6, at 3/4
	uint32_t v4;
	uint32_t v6;
};

struct oneway_header; // at the start of the placed memory; layout in oneway_priv.h

struct oneway_family { // [worker]
	uint32_t first_line;
	uint32_t n_lines; // even
	uint32_t n_slots; // per line
	uint32_t n_entries;
	uint32_t budget; // entries at most; UINT32_MAX (after init and adopt): as many as find room
	uint32_t
		victim_next; // line that is next in turn to give an entry when the budget is used up
};

// Handle of a process: pointers into placed memory. [worker]
struct oneway_table {
	struct oneway_header *header;
	void *lines;
	struct oneway_family families[2]; // IPv4, IPv6
	uint32_t n_lines;                 // of both
	struct hash_key key;
	struct hash_schedule schedule; // of key
	uint32_t now_s;                // clock; [worker writes, others read: relaxed]
	uint32_t dated_s;              // every entry was seen at this second or later
	uint32_t pass_s;               // second in which this pass of the sweep began
	uint32_t sweep_next;           // next line that oneway_sweep looks at
	uint64_t n_sweeps;             // complete passes since start
	uint64_t n_moves; // entries that left their position: displaced, brought home, or gave way
	uint64_t n_evicted; // of these: gave way
	uint32_t n_touched; // lines that the last oneway_add touched
	bool was_clean;     // adoption: the earlier process had called oneway_close
};

// Bytes for `capacity` (64-byte aligned memory, zeroed or not).
size_t oneway_size(struct oneway_capacity capacity);
// Lays out an empty table; its clock starts with the first oneway_advance. 0, or -EINVAL: a capacity above
// ONEWAY_CAPACITY_MAX, size too small or memory not aligned.
int oneway_init(struct oneway_table *table, void *mem, size_t size, struct oneway_capacity capacity,
	const struct hash_key *key);
// Attaches to a table that an earlier process laid out, checks the header and every entry, drops those that cannot
// be, and lets `now_s` go on from the last second that the earlier process saw: entries are older by the time between,
// or as old as they were when now_s is less (another clock). The memory may hold anything; nobody else may use it
// meanwhile. 0, or -EINVAL with the cause in err and the memory as it was. Cost: 10 ns an entry, before packets run.
int oneway_adopt(
	struct oneway_table *table, void *mem, size_t size, uint32_t now_s, struct error *err);
// For how many flows, and with which key, that table was laid out. 0, or -EINVAL with the cause in err.
int oneway_peek(const void *mem, size_t size, struct oneway_capacity *out_capacity,
	struct hash_key *out_key, struct error *err);
// Says goodbye: the memory may be adopted with `was_clean`. The table is not used afterwards.
void oneway_close(struct oneway_table *table);

// ---------------------------------------------------------------- the word
// Layout, from the lowest bit.
#define ONEWAY_STAMP_SHIFT     24
#define ONEWAY_STAMP_MASK      0xffffull
#define ONEWAY_COARSE          (1ull << 40)
#define ONEWAY_STATE_SHIFT     41
#define ONEWAY_LINE_BITS       (3ull << 44) // of the line, not of the entry
#define ONEWAY_PROTOCOL_SHIFT  46
#define ONEWAY_PROTOCOL_MASK   (3ull << 46) // 0: free
#define ONEWAY_SLOT_SHIFT      48
#define ONEWAY_COARSE_UNIT_LOG 4 // 16 s

// Position = line * 4 + slot in both families.
static inline uint64_t *oneway_word_at(const struct oneway_table *table, uint32_t ref)
{
	uint64_t first = ref & ~3u; // of the line's 8 words
	return (uint64_t *)table->lines + (first + ref);
}
// The answer of the entry at `ref`, which a look-up or add gave; good as long as n_moves has not changed and the entry was
// not removed. [worker]
static inline uint64_t oneway_word(const struct oneway_table *table, uint32_t ref)
{
	return *oneway_word_at(table, ref);
}
static inline uint32_t oneway_backend_id(uint64_t word)
{
	return (uint32_t)word & (ONEWAY_BACKENDS_MAX - 1);
}
static inline enum oneway_state oneway_state(uint64_t word)
{
	return (enum oneway_state)(word >> ONEWAY_STATE_SHIFT & 7);
}
// Stamp that the entry would get now, in its unit, in place.
static inline uint64_t oneway_stamp(uint64_t coarse, uint32_t now_s)
{
	uint32_t stamp = now_s >> (coarse ? ONEWAY_COARSE_UNIT_LOG : 0);
	return (stamp & ONEWAY_STAMP_MASK) << ONEWAY_STAMP_SHIFT;
}
// What is alike in the words of all flows that a packet leaves as they are, if it has none of the flags that change a state:
// established, or UDP beyond its first packet, and stamped in this second. Stamp, its unit, and the two bits of the state that both
// have.
#define ONEWAY_STEADY_BITS 19
_Static_assert((ONEWAY_ESTABLISHED ^ ONEWAY_UDP) == 4 && ONEWAY_ESTABLISHED < 4,
	"the lower two bits of these and of no other state");
static inline uint32_t oneway_steady(uint64_t word)
{
	return (uint32_t)(word >> ONEWAY_STAMP_SHIFT) & ((1u << ONEWAY_STEADY_BITS) - 1);
}
// ... and what that is, in either unit.
static inline uint32_t oneway_steady_now(uint64_t coarse, uint32_t now_s)
{
	return oneway_steady(oneway_stamp(coarse, now_s) | coarse |
			     (uint64_t)ONEWAY_ESTABLISHED << ONEWAY_STATE_SHIFT);
}
// Seconds without a packet: exact, or up to 15 more than that when the entry is coarse.
static inline uint32_t oneway_idle_at(uint64_t word, uint32_t now_s)
{
	uint32_t stamp = (uint32_t)(word >> ONEWAY_STAMP_SHIFT & ONEWAY_STAMP_MASK);
	uint32_t shift = word & ONEWAY_COARSE ? ONEWAY_COARSE_UNIT_LOG : 0;
	return (now_s - (stamp << shift)) & ((0x10000u << shift) - 1);
}
static inline uint32_t oneway_idle_s(const struct oneway_table *table, uint64_t word)
{
	return oneway_idle_at(word, table->now_s);
}
// Timeout of an entry with this word. Reads the backend's line of `timeouts`.
static inline uint32_t oneway_timeout_s(uint64_t word, const struct oneway_timeouts *timeouts)
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
static inline bool oneway_is_expired(
	const struct oneway_table *table, uint64_t word, const struct oneway_timeouts *timeouts)
{
	return oneway_idle_s(table, word) > oneway_timeout_s(word, timeouts);
}

// ---------------------------------------------------------------- packets
// Key of an affinity entry: no flow has it, as long as no packet to port 0 is looked up. listener_port 0: for all ports
// of the VIP.
static inline struct flow_key oneway_affinity_key(
	const struct address *client, rte_be16_t listener_port, uint16_t vip_slot, uint8_t protocol)
{
	return flow_key_make(client, listener_port, 0, vip_slot, protocol);
}

// The clock: once per burst, before anything else in it; never backwards (a smaller second is ignored). Costs a compare
// but once a second. After a standstill of 9 hours, or as long without a pass of the sweep, it dates all entries anew:
// 2 ns each.
void oneway_advance_slow(struct oneway_table *table, uint32_t now_s);
static inline void oneway_advance(struct oneway_table *table, uint32_t now_s)
{
	if (now_s != table->now_s)
		oneway_advance_slow(table, now_s);
}

// For callers that know hashes long before they look up.
static inline void oneway_prefetch(
	const struct oneway_table *table, const struct flow_key *key, uint64_t hash)
{
	const struct oneway_family *f = &table->families[!address_is_v4(&key->peer)];
	uint32_t line = f->first_line + (uint32_t)((hash >> 32) * f->n_lines >> 32);
	flow_prefetch_line((const char *)table->lines + line * 64ull);
}
// For callers with several flows to add, in a loop before the one that does it: the line that oneway_add reads when the
// first one, which the look-up has fetched, is full. Measured (1M flows, 75 % full): see sluice-bench oneway.
static inline void oneway_prefetch_add(
	const struct oneway_table *table, const struct flow_key *key, uint64_t hash)
{
	const struct oneway_family *f = &table->families[!address_is_v4(&key->peer)];
	uint32_t line = f->first_line + (uint32_t)((hash & UINT32_MAX) * f->n_lines >> 32);
	flow_prefetch_line((const char *)table->lines + line * 64ull);
}
static inline void oneway_prefetch_ref(const struct oneway_table *table, uint32_t ref)
{
	flow_prefetch_line((const char *)table->lines + (ref >> 2) * 64ull);
}

// Looks up n (at most 64) keys of either family: out_refs[i] = position of the entry, or ONEWAY_NONE (also for protocols
// other than TCP, UDP, SCTP). hashes[i] must be flow_key_hash(&table->schedule, &keys[i]). Expired entries are found: whether
// to take them is the caller's (oneway_is_expired). Entries that lie away from home are brought home if there is room, for
// the next packet: references of this call are good, older ones are not when n_moves has changed. All variants
// (oneway_select_variant) give identical results.
void oneway_lookup_bulk(struct oneway_table *table, const struct flow_key *keys,
	const uint64_t *hashes, uint32_t n, uint32_t *out_refs);
// One key (explain, ICMP errors, control queries). Moves nothing.
uint32_t oneway_lookup(const struct oneway_table *table, const struct flow_key *key);

// A packet came: stamps the entry with the table's second, in the unit that it has. Writes only when that changes. An
// expired entry is not touched but set: whatever revives it is a new flow.
static inline void oneway_touch(struct oneway_table *table, uint32_t ref)
{
	uint64_t *at = oneway_word_at(table, ref), word = *at;
	uint64_t stamped = (word & ~(ONEWAY_STAMP_MASK << ONEWAY_STAMP_SHIFT)) |
			   oneway_stamp(word & ONEWAY_COARSE, table->now_s);
	if (stamped != word)
		__atomic_store_n(at, stamped, __ATOMIC_RELAXED);
}
// Gives the entry another backend or state, and stamps it. One store.
void oneway_set(struct oneway_table *table, uint32_t ref, uint32_t backend_id,
	enum oneway_state state, const struct oneway_timeouts *timeouts);
// The entry's last packet came idle_s before the table's second: for one that is copied from another table. One store.
void oneway_set_idle(struct oneway_table *table, uint32_t ref, uint32_t idle_s);

struct oneway_entry {
	struct flow_key key; // peer: client; own: VIP slot and port
	uint32_t backend_id;
	uint32_t idle_s; // as of the table's clock; not used by oneway_add
	uint8_t state;   // enum oneway_state
};

// For callers that add several: looks whether the key's home is full, and asks for its other line then.
void oneway_prefetch_room(
	const struct oneway_table *table, const struct flow_key *key, uint64_t hash);
// Adds an entry, stamped now. Precondition: its key is not present; the state is one of its protocol. `hash` as for
// look-ups. Returns its position, or ONEWAY_NONE: no room, the flow goes without. Touches at most ONEWAY_LINES_MAX lines.
// One entry may have to give way: *out_evicted is its word, else 0. Of the lines that the search touched, first an
// expired one, then one that never got beyond its first packet, then a closed one, then a half-closed one, the longest
// idle of its kind; never an established, UDP or affinity entry within its timeout. With the budget used up
// one gives way, or nothing is added.
uint32_t oneway_add(struct oneway_table *table, uint64_t hash, const struct oneway_entry *entry,
	const struct oneway_timeouts *timeouts, uint64_t *out_evicted);
// Afterwards other references are as good as before.
void oneway_remove(struct oneway_table *table, uint32_t ref);

// Ageing: looks at up to max_lines lines from where the last call ended, at most to the end of a pass, removes what is
// expired and writes its words to out_words (room for 4 * max_lines), for those who count. Returns how many.
// Lines of a family without an entry are passed over, at no cost. A full pass adds 1 to n_sweeps, also over an empty table; there should be one in ONEWAY_FINE_MAX_S.
uint32_t oneway_sweep(struct oneway_table *table, const struct oneway_timeouts *timeouts,
	uint32_t max_lines, uint64_t *out_words);

// Consistent copy for another thread: false if position ref (any number) is free or kept changing. While a dump goes from
// position 0 to oneway_n_positions, an entry that is displaced meanwhile may be met twice or not at all.
bool oneway_copy(const struct oneway_table *table, uint32_t ref, struct oneway_entry *out);
static inline uint32_t oneway_n_positions(const struct oneway_table *table)
{
	return table->n_lines * 4;
}

// Chooses the fastest look-up that this processor runs. Idempotent; call before threads start.
// Returns its name ("scalar", "avx2"). name != NULL forces that one, NULL if it cannot run here.
const char *oneway_select_variant(const char *name);
