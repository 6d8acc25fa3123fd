// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// The flow table of one worker: one record per flow, found by two keys (client side, backend
// side). Placed memory, position independent (indices, never pointers), versioned header, so that a
// later process can adopt it from a memory file.
//
//   header | buckets (64 B, 10 slots: 16-bit tag + 32-bit entry; one line) | records (64 B, one line) | hints
//
// A packet costs one bucket line and one record line; both are prefetched in bulk look-ups. The
// record holds both keys, so a hit is a compare of the full tuple, and the answer (backend identity,
// addresses, ports, next hops), so snapshots come and go under live flows. The hints say which blocks of records hold flows
// that may give way to others (victim.c), 0.02 bytes a flow.
//
// A flow with FLOW_FLAG_BY_PORT has only its first key in the buckets: who knows another way from the second to the index (the source
// port of a fullnat flow says whose it is, lib/snat) gives that, and one line less is written when the flow begins and when it ends.
//
// Threads: one writer, the worker (or the process while the worker does not run). Others copy with
// flow_copy under the record's sequence number.

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base.h"
#include "net.h"

#define FLOW_NONE UINT32_MAX

// TCP and UDP states; the transitions are one const table in tcp_state.c.
enum flow_state {
	FLOW_STATE_FREE = 0,     // not a flow
	FLOW_STATE_SYN_SENT,     // client's SYN forwarded                  (embryonic)
	FLOW_STATE_SYN_RECEIVED, // backend's SYN-ACK forwarded            (embryonic)
	FLOW_STATE_ESTABLISHED,  // client's ACK after it; data
	FLOW_STATE_FIN_CLIENT,   // client sent FIN
	FLOW_STATE_FIN_BACKEND,  // backend sent FIN
	FLOW_STATE_CLOSING,      // both sent FIN
	FLOW_STATE_CLOSED,       // RST seen, or both FINs acknowledged: the port rests
	FLOW_STATE_UDP_ONEWAY,   // client only                             (embryonic)
	FLOW_STATE_UDP_TWOWAY,
	FLOW_STATE_MAX,
};
const char *flow_state_name(enum flow_state state); // "syn-sent", ...

enum flow_side { FLOW_SIDE_CLIENT = 0, FLOW_SIDE_BACKEND = 1 }; // who sent the packet

// What a flow needs beyond addresses (struct flow_record, `flags`).
enum flow_flag {
	FLOW_FLAG_DNAT = 1, // mode dnat: see below
	FLOW_FLAG_TOA = 2,  // the client's address still goes along as a TCP option
	FLOW_FLAG_PROXY =
		4, // a PROXY header went in front of the client's stream: numbers are shifted
	FLOW_FLAG_PROXY_PENDING = 8, // ... and the backend has not acknowledged it yet
	FLOW_FLAG_CROSS = 16,        // fullnat between the families
	FLOW_FLAG_ONEWAY = 32, // in no table: a flow of a one-way mode, shown (pipeline_show_entry)
	FLOW_FLAG_BY_PORT =
		64, // the second key is not in the table: its source port says whose it is
};
// Packets of a flow with one of these need more than new addresses and ports.
#define FLOW_FLAGS_ODD (FLOW_FLAG_TOA | FLOW_FLAG_PROXY | FLOW_FLAG_CROSS)

#define FLOW_BACKEND_ID_MAX 0xffffffu

// One flow, one cache line. Ports and addresses in network order.
//
// The second key is that of the backend's packets. In fullnat they come from (backend, backend_port) to one of our source
// ports (snat_slot, snat_port). With FLOW_FLAG_DNAT they come from the backend straight to the client's address: then the
// own side is the backend itself (snat_slot: slot of its address, snat_port: its port) and the peer is the client (backend,
// backend_port: equal to client, client_port). Look-ups know no difference; a rewrite swaps source and destination.
struct flow_record {
	struct address client;
	struct address backend;
	// The tails of the two keys, word by word as in struct flow_key; the last bytes of the second
	// are not the key's.
	rte_be16_t client_port;
	rte_be16_t vip_port; // the client's destination port
	uint16_t vip_slot;   // own-address slots (snapshot.h)
	uint8_t protocol;
	uint8_t state; // enum flow_state; FREE = record is on the free list
	rte_be16_t backend_port;
	rte_be16_t snat_port; // the backend's view of our source port
	uint16_t snat_slot;
	uint8_t policy;           // index of the timeout policy (struct flow_policy)
	uint8_t route_generation; // tag of the FIB that nexthop_* come from; 0: look again
	uint32_t backend_id : 24; // stable identity of (service, listener, backend)
	uint32_t flags : 8;       // enum flow_flag
	uint16_t nexthop_client;  // next-hop index towards the client
	uint16_t nexthop_backend;
	uint32_t stamp_s; // table second of the last packet, written only when it changes
	uint8_t isn[3]; // FLOW_FLAG_PROXY_PENDING: low 24 bits of where the client's stream begins
	uint8_t sequence; // odd while the record is being written
} __attribute__((aligned(64)));
_Static_assert(sizeof(struct flow_record) == 64, "one line per record");

// Worker that opens a client's flows where one must see all of them (mode dnat: both directions; session affinity): the same
// in every process, whatever its keys.
static inline uint16_t flow_owner_by_client(const struct address *client, uint16_t n_workers)
{
	uint64_t h = hash_fold(client->halves[0] ^ 0x9e3779b97f4a7c15ull,
		client->halves[1] ^ 0xd6e8feb86659fd93ull);
	return (uint16_t)((h & 0xffffffff) * n_workers >> 32);
}

// Idle timeouts by state, seconds. Services with equal timeouts share one policy.
struct flow_policy {
	uint32_t idle_s[FLOW_STATE_MAX];
};
// Defaults by state with the two that a service sets.
struct flow_policy flow_policy_make(uint32_t tcp_idle_s, uint32_t udp_idle_s);

// Largest idle timeout that can be asked for.
#define FLOW_IDLE_MAX_S (7u * 24 * 3600)
// 1..this many flows per worker.
#define FLOW_CAPACITY_MAX (1u << 28)

struct flow_table_header; // at the start of the placed memory; layout in flow_priv.h

// Handle of a process: pointers into placed memory. [worker]
struct flow_table {
	struct flow_table_header *header;
	void *buckets;
	struct flow_record *records;
	uint32_t n_buckets; // even; no power of two: memory is 80 bytes per flow of capacity
	uint32_t capacity;
	uint32_t n_flows;
	uint32_t n_used;        // records ever used: later ones are free and were never written
	uint32_t first_free;    // list of returned records, FLOW_NONE = empty
	uint32_t sweep_next;    // next record that flow_sweep looks at
	bool sweep_idle;        // one before it in its block is idle for long
	uint64_t *yielding;     // hints, by block of FLOW_BLOCK records: n_yielding is not 0
	uint64_t *idle;         // ... the last sweep saw a confirmed flow that was idle for long
	uint8_t *n_yielding;    // ... flows of it whose state yields
	uint32_t yielding_next; // block where flow_victim looks next
	uint32_t idle_next;
	bool was_clean;    // adoption: the earlier process had called flow_table_close
	uint64_t n_sweeps; // complete passes since start
	struct hash_key key;
	struct hash_schedule schedule; // of key
};

// Bytes for `capacity` flows (64-byte aligned memory, zeroed or not).
size_t flow_table_size(uint32_t capacity);
// Lays out an empty table. 0, or -EINVAL: capacity out of 1..FLOW_CAPACITY_MAX or size too small.
int flow_table_init(struct flow_table *table, void *mem, size_t size, uint32_t capacity,
	const struct hash_key *key);
// Attaches to a table that an earlier process laid out, checks the header (magic, format, size) and
// every record, drops torn and impossible ones, and makes buckets and free list anew from the rest. Next hops
// of adopted flows are UINT16_MAX: not known. The memory may hold anything; nobody else may use it meanwhile.
// 0, or -EINVAL with the cause in err and the memory as it was.
int flow_table_adopt(struct flow_table *table, void *mem, size_t size, struct error *err);

// Flows of a table that an earlier process left and that nobody will attach to, one by one, without changing the memory: it is
// of another size, or its flows now belong to several workers. Records are copied, next hops unknown, as flow_add takes them;
// nothing says that their keys are nobody else's.
struct flow_leftover {
	const struct flow_record *records;
	uint32_t capacity;
	uint32_t next;
	struct hash_key key;
};
// 0, or -EINVAL with the cause in err: the header is not that of a table of this size.
int flow_leftover_open(struct flow_leftover *out, const void *mem, size_t size, struct error *err);
bool flow_leftover_next(struct flow_leftover *left, struct flow_record *out); // false: no more

// Says goodbye: the memory may be adopted with `was_clean`. The table is not used afterwards.
void flow_table_close(struct flow_table *table);

static inline struct flow_record *flow_record(const struct flow_table *table, uint32_t idx)
{
	return &table->records[idx];
}

// A key whose last word is made in a register and stored at once. Written field by field, it would be read back by
// flow_key_hash before the four stores are in the cache: the processor cannot forward them and waits.
// ports: the peer's and our own, as they lie in a packet.
static inline void flow_key_write(struct flow_key *out, const struct address *peer, uint32_t ports,
	uint16_t own_slot, uint8_t protocol)
{
#if RTE_BYTE_ORDER == RTE_LITTLE_ENDIAN
	uint64_t tail = ports | (uint64_t)own_slot << 32 | (uint64_t)protocol << 48;
#else
	uint64_t tail = (uint64_t)ports << 32 | (uint64_t)own_slot << 16 | (uint64_t)protocol << 8;
#endif
	out->peer = *peer;
	memcpy((char *)out + sizeof(out->peer), &tail, sizeof(tail));
}
static inline struct flow_key flow_key_make(const struct address *peer, rte_be16_t peer_port,
	rte_be16_t own_port, uint16_t own_slot, uint8_t protocol)
{
	struct flow_key k;
#if RTE_BYTE_ORDER == RTE_LITTLE_ENDIAN
	uint64_t tail = peer_port | (uint64_t)own_port << 16 | (uint64_t)own_slot << 32 |
			(uint64_t)protocol << 48;
#else
	uint64_t tail = (uint64_t)peer_port << 48 | (uint64_t)own_port << 32 |
			(uint64_t)own_slot << 16 | (uint64_t)protocol << 8;
#endif
	k.peer = *peer;
	memcpy((char *)&k + sizeof(k.peer), &tail, sizeof(tail));
	return k;
}

// Both keys of a record.
static inline struct flow_key flow_client_key(const struct flow_record *r)
{
	return flow_key_make(&r->client, r->client_port, r->vip_port, r->vip_slot, r->protocol);
}
static inline struct flow_key flow_backend_key(const struct flow_record *r)
{
	return flow_key_make(&r->backend, r->backend_port, r->snat_port, r->snat_slot, r->protocol);
}

// Hash of a key in this table. Its top half chooses the bucket, its lowest bits are the tag.
static inline uint64_t flow_hash(const struct flow_table *table, const struct flow_key *key)
{
	return flow_key_hash(&table->schedule, key);
}

// Primary bucket of a hash: high bits, by multiplication.
static inline uint32_t flow_primary_bucket(const struct flow_table *table, uint64_t hash)
{
	return (uint32_t)((hash >> 32) * table->n_buckets >> 32);
}
// Into the second-level cache: the first has room for some 24 lines on their way, the second for more. Measured on Zen 4:
// 64 random lines of 1 GB take 8.5 ns each so, 12.3 ns the other way.
// gcc takes a function that does nothing but prefetch for one without effect and drops calls of it, and of
// callers that do nothing else. An empty statement that it must keep forbids that.
static inline __attribute__((always_inline)) void flow_prefetch_line(const void *line)
{
	__builtin_prefetch(line, 0, 2);
	__asm__ volatile("");
}

// For callers that know hashes long before they look up or add.
static inline void flow_prefetch_bucket(const struct flow_table *table, uint64_t hash)
{
	flow_prefetch_line((const char *)table->buckets + 64ull * flow_primary_bucket(table, hash));
}

// Hashes of n (at most 64) keys, several at a time, and the asking for their primary buckets.
void flow_hash_bulk(const struct flow_table *table, const struct flow_key *keys, uint32_t n,
	uint64_t *out_hashes);

// flow_key_hash of any number of keys, several at a time.
void flow_hash_keys(const struct hash_schedule *s, const struct flow_key *keys, uint32_t n,
	uint64_t *out_hashes);

#define FLOW_BURST_MAX 64
// Looks up n (at most FLOW_BURST_MAX) keys: out_idx[i] = record index or FLOW_NONE, out_side[i] = whose key
// matched, out_hashes[i] = flow_hash of the key, for who adds it then. Three short loops, prefetch between.
// The scalar version and the SIMD ones (chosen once by flow_select_variant) give identical results.
void flow_lookup_bulk(const struct flow_table *table, const struct flow_key *keys, uint32_t n,
	uint64_t *out_hashes, uint32_t *out_idx, uint8_t *out_side);
// The same with keys of both kinds: the first n are looked for, the last n_named are second keys of which a word of the caller's
// says the index: its top bit is set, then the rest is that. The word's line should have been asked for. A name is not believed: the
// flow must have the key. n + n_named at most FLOW_BURST_MAX.
struct flow_search {
	uint32_t n;
	uint32_t n_named;
	struct flow_key keys[FLOW_BURST_MAX];
	const uint32_t *names[FLOW_BURST_MAX]; // of the last n_named
	uint64_t hashes[FLOW_BURST_MAX];       // out: of the first n
	uint32_t idx[FLOW_BURST_MAX];          // out: by key
	uint8_t side[FLOW_BURST_MAX];          // out; FLOW_SIDE_BACKEND of the last n_named
};
void flow_lookup_burst(const struct flow_table *table, struct flow_search *search);
// One key that is in the buckets (explain, ICMP errors, control queries).
uint32_t flow_lookup(const struct flow_table *table, const struct flow_key *key, uint8_t *out_side);
static inline void flow_prefetch_record(const struct flow_table *table, uint32_t idx)
{
	flow_prefetch_line(&table->records[idx]);
}

// Adds a flow; `record` gives everything but `sequence`. Returns its index, or FLOW_NONE when there
// is no free record or no bucket room within the bounded search (the caller may evict and try
// again). Precondition: neither key is present.
uint32_t flow_add(struct flow_table *table, const struct flow_record *record);
void flow_remove(struct flow_table *table, uint32_t idx);

// For several flows that come in one burst, each a loop over all of them: hashes and prefetch_add as soon as the
// keys are known; prefetch_room when these lines may be there: it looks whether a primary bucket is full and asks
// for the other one then (so it does for one key in twelve at 75 % of the capacity, in four when full); add_hashed, which is
// flow_add with the hashes of the record's two keys. Where the record has FLOW_FLAG_BY_PORT, the second hash is the first one again.
static inline void flow_prefetch_add(
	const struct flow_table *table, uint64_t client_hash, uint64_t backend_hash)
{
	flow_prefetch_bucket(table, client_hash);
	flow_prefetch_bucket(table, backend_hash);
}
void flow_prefetch_room(
	const struct flow_table *table, uint64_t client_hash, uint64_t backend_hash);
uint32_t flow_add_hashed(struct flow_table *table, const struct flow_record *record,
	uint64_t client_hash, uint64_t backend_hash);
// Removes n flows, each named once, in two halves with room for other work between: the first (n at most
// FLOW_REMOVE_MAX) reads the records, gives the hashes of their keys (of the first ones, then of the second ones that are in the
// buckets) and asks for their buckets.
#define FLOW_REMOVE_MAX 32u
void flow_remove_begin(const struct flow_table *table, const uint32_t *idx, uint32_t n,
	uint64_t out_hashes[2 * FLOW_REMOVE_MAX]);
void flow_remove_end(
	struct flow_table *table, const uint32_t *idx, uint32_t n, const uint64_t *hashes);
// Both halves, any n.
void flow_remove_bulk(struct flow_table *table, const uint32_t *idx, uint32_t n);

// Around any change of a live record's fields that readers must see together. A lone change of one
// aligned field (stamp_s, state) needs no bracket. [worker]
static inline void flow_write_begin(struct flow_record *r)
{
	__atomic_store_n(&r->sequence, (uint8_t)(r->sequence + 1), __ATOMIC_RELAXED);
	// Release fence: no field of the new form may be seen before the odd number.
	__atomic_thread_fence(__ATOMIC_RELEASE);
}
static inline void flow_write_end(struct flow_record *r)
{
	// Release: whoever reads the even number sees all fields written before it.
	__atomic_store_n(&r->sequence, (uint8_t)(r->sequence + 1), __ATOMIC_RELEASE);
}

// States of flows that give way to new ones when there is no room: unconfirmed (embryonic), closing, closed.
static inline bool flow_state_yields(enum flow_state s)
{
	return (1u << s & (1u << FLOW_STATE_SYN_SENT | 1u << FLOW_STATE_SYN_RECEIVED |
				  1u << FLOW_STATE_CLOSING | 1u << FLOW_STATE_CLOSED |
				  1u << FLOW_STATE_UDP_ONEWAY)) != 0;
}

#define FLOW_BLOCK 64 // records of one hint

// One flow more (by: 1) or fewer (-1) in the block of record idx whose state yields.
static inline void flow_count_yielding(struct flow_table *table, uint32_t idx, int by)
{
	uint32_t b = idx / FLOW_BLOCK;
	int n = table->n_yielding[b] + by;
	n = n < 0 ? 0 : n; // a count that was wrong: the next sweep puts it right
	table->n_yielding[b] = (uint8_t)n;
	if (n == 0)
		table->yielding[b / 64] &= ~(1ull << b % 64);
	else
		table->yielding[b / 64] |= 1ull << b % 64;
}

// Gives a live flow another state (never FREE). The one way to do it while the table is in use, so that the hints stay right.
static inline void flow_set_state(struct flow_table *table, uint32_t idx, enum flow_state next)
{
	struct flow_record *r = flow_record(table, idx);
	int by = (int)flow_state_yields(next) - (int)flow_state_yields(r->state);
	if (by != 0)
		flow_count_yielding(table, idx, by);
	__atomic_store_n(&r->state, next, __ATOMIC_RELAXED);
}

// A flow that may give way: an expired one, then embryonic ones (unconfirmed), then closed and closing, the longest idle of
// its kind first among the 64 of one block (an embryonic one that has been idle for 3 s is not compared with others); blocks take turns. When no such flow is left in the table, a confirmed one that has
// been idle for long (TCP 60 s, half closed 15 s, two-way UDP 30 s), as of the last sweep. Never a confirmed flow in use.
// FLOW_NONE: none found. Cost: hints up to the next block (4096 words at most: 16 million flows), 64 records of it; a hint
// that turns out wrong costs another block, four of each kind at most.
uint32_t flow_victim(struct flow_table *table, const struct flow_policy *policies, uint32_t now_s);
// That flow and up to n_max - 1 more of its block that would be next: of the same kind, idle as long within a second. Never more than
// one that is merely idle. Returns how many.
uint32_t flow_victims(struct flow_table *table, const struct flow_policy *policies, uint32_t now_s,
	uint32_t n_max, uint32_t *out_idx);
// Of these records (indices; FLOW_NONE, beyond the table and free ones are passed over) the one that gives way first: expired,
// embryonic, closing or closed, as above; never a confirmed flow within its timeout. FLOW_NONE: none of them does.
uint32_t flow_victim_among(const struct flow_table *table, const struct flow_policy *policies,
	uint32_t now_s, const uint32_t *candidates, uint32_t n);

static inline bool flow_is_expired(
	const struct flow_record *r, const struct flow_policy *policies, uint32_t now_s)
{
	return now_s - r->stamp_s > policies[r->policy].idle_s[r->state];
}

// Ageing, slice by slice.
struct flow_slice {
	uint32_t max_records;
	uint32_t max_expired; // it ends before the next one: 0 is not much
	uint8_t route_tag;    // next hops of a FIB with another tag are forgotten on the way
};
// Looks at records from where the last slice ended, at most to the end of a pass, and writes the indices of expired flows to out_idx
// (room for max_records). The caller frees what belongs to them (SNAT port) and calls flow_remove. Returns how many were
// written. A full pass adds 1 to n_sweeps, also over an empty table.
uint32_t flow_sweep(struct flow_table *table, const struct flow_policy *policies, uint32_t now_s,
	const struct flow_slice *slice, uint32_t *out_idx);
// Would a slice of so many records come to the end of a pass, if nothing stops it?
static inline bool flow_sweep_may_end(const struct flow_table *table, uint32_t max_records)
{
	return table->n_used - table->sweep_next <= max_records;
}

// Consistent copy for another thread: false if record idx is free or kept changing.
bool flow_copy(const struct flow_table *table, uint32_t idx, struct flow_record *out);

// Next TCP state for a segment with `flags` (TCP_*) sent by `side`.
enum flow_state flow_tcp_next(enum flow_state state, enum flow_side side, uint8_t flags);
// States that prove both sides answered.
static inline bool flow_is_confirmed(enum flow_state s)
{
	return (s >= FLOW_STATE_ESTABLISHED && s <= FLOW_STATE_CLOSED) ||
	       s == FLOW_STATE_UDP_TWOWAY;
}

// Chooses the fastest look-up that this processor runs. Idempotent; call before threads start.
// Returns its name ("scalar", "sse2", "avx2", "avx512"). name != NULL forces that one, NULL if it cannot run here.
const char *flow_select_variant(const char *name);
