// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// Between the stages of one pipeline; nobody else includes this.

#include "pipeline.h"
#include "plain.h"

// One step of a packet's fate. Each sets verdict and reason, and counts.
void stage_drop(struct pipeline *p, struct burst *b, uint32_t i, enum drop_reason reason);
void stage_punt(struct burst *b, uint32_t i, enum pipeline_punt_class class);
// The packet was consumed by an answer that is now in its mbuf.
void stage_replied(struct pipeline *p, struct burst *b, uint32_t i, enum drop_reason reason);

// Packets for the one-way table: their keys and hashes lie side by side for the bulk look-up, `at` holds burst indices in the
// order of arrival.
struct pending {
	uint32_t n;
	uint8_t at[BURST_MAX];
	struct flow_key keys[BURST_MAX];
	uint64_t hashes[BURST_MAX];
};

// Packets for the flow table. Their keys are apart by how they are looked for, in `search`: clients' (and dnat backends') from its
// front on, replies to our source ports from its end; `at` has the burst index by place there. `packets` has a bit for each packet:
// their order of arrival.
struct nat_pending {
	uint64_t packets;
	uint8_t at[BURST_MAX];
	struct flow_search search;
};
_Static_assert(
	BURST_MAX == FLOW_BURST_MAX && BURST_MAX == 64, "a burst is one search, and one word");

static inline uint32_t nat_pending_first_named(const struct nat_pending *nat)
{
	return BURST_MAX - nat->search.n_named;
}
// Is packet i, which is for the flow table, a reply to a source port of ours?
static inline bool stage_is_reply(const struct burst *b, uint32_t i)
{
	return b->side[i] == FLOW_SIDE_BACKEND && !b->may_be_foreign[i];
}

// Parse and classification: fills packets[] and for packets that need a table one of the two lists. Returns a bit for each
// fragment that is ours, whose turn is last. Everybody else has its verdict afterwards.
uint64_t stage_classify(
	struct pipeline *p, struct burst *b, struct nat_pending *nat, struct pending *oneway);
// Look-ups and all that follows, for both lists.
void stage_pending(
	struct pipeline *p, struct burst *b, struct nat_pending *nat, struct pending *oneway);
// One packet with ports to an address of ours, or a dnat backend's answer: into its list, or settled.
void stage_classify_tuple(struct pipeline *p, struct burst *b, uint32_t i, struct nat_pending *nat,
	struct pending *oneway);
// Fragments, one by one: the first of a datagram by its tuple, later ones as that.
void stage_fragments(struct pipeline *p, struct burst *b, uint64_t fragments);
// The one-way modes, from look-up to verdict.
void stage_oneway(struct pipeline *p, struct burst *b, struct pending *pending);
// Backend for a new flow: the client's (affinity), else Maglev's, else the less loaded of its two candidates. Reads only.
struct snapshot_pick stage_pick(
	const struct pipeline *p, const struct snapshot_listener *l, const struct packet *packet);
// The hash's answer alone: what a flow without an entry gets with every packet.
struct snapshot_pick stage_pick_by_hash(
	const struct pipeline *p, const struct snapshot_listener *l, const struct packet *packet);
// Session affinity: this key's entry says `backend_id` from now on. False: no room.
bool stage_remember(struct pipeline *p, const struct flow_key *key, uint32_t backend_id);
// A packet for backend b->backend_id[i] of a one-way mode leaves in its tunnel. hash: of its flow.
void stage_send_oneway(struct pipeline *p, struct burst *b, uint32_t i, uint64_t hash);
// The choice is made: an affinity listener remembers it.
void stage_picked(struct pipeline *p, const struct snapshot_listener *l,
	const struct packet *packet, uint32_t backend_id);
// A packet that starts a flow: listener, source range, flags and checksum. NULL: it has its verdict.
const struct snapshot_listener *stage_admit(struct pipeline *p, struct burst *b, uint32_t i);
// Hands a packet without a flow here to the worker that owns flows of this client, unless that is this one or the packet
// was handed over already. True: done.
bool stage_to_owner(struct pipeline *p, struct burst *b, uint32_t i, const struct address *client);
// Hands the packet to the next worker, until each has seen it once. False: all have.
bool stage_walk(struct pipeline *p, struct burst *b, uint32_t i);
// Misses on the client side: listener, source range, pick, source port, flow. Sets flow_idx, or a verdict.
void stage_open(struct pipeline *p, struct burst *b, uint32_t i);
// First packets of new flows, no two of one: stage_open and stage_rewrite of each, but side by side.
struct stage_misses {
	uint32_t n;
	uint8_t at[BURST_MAX];
	uint64_t hashes[BURST_MAX]; // of their keys
};
struct burst_facts; // what is the same for all packets of a burst (pipeline.c)
void stage_open_together(struct pipeline *p, struct burst *b, const struct stage_misses *misses,
	const struct burst_facts *facts);
// The first packet of a flow that has just been made goes on.
void stage_forward_first(
	struct pipeline *p, struct burst *b, uint32_t i, const struct burst_facts *facts);
// Hits: expiry, state, re-pick. Returns false when the packet has to go through stage_open.
bool stage_follow(struct pipeline *p, struct burst *b, uint32_t i);
// Should a packet of `side` leave flow r and be treated as the first of a new one? Expired, a SYN on a closed flow, a
// retransmitted SYN whose backend may not take it, UDP to a removed backend.
bool flow_gives_way(const struct pipeline *p, const struct flow_record *r, enum flow_side side,
	uint8_t tcp_flags);
// A later fragment of a flow's datagram.
void stage_rewrite_fragment(struct pipeline *p, struct burst *b, uint32_t i);
// Next hop, TTL, MTU and rewrite of a packet that has a flow and is to be forwarded.
void stage_rewrite(struct pipeline *p, struct burst *b, uint32_t i);
// IPv4 without DF would have to be fragmented, which we do not do; all else is told `mtu`.
void stage_refuse_size(struct pipeline *p, struct burst *b, uint32_t i, uint16_t mtu);
// ICMP error that quotes a packet of ours.
void stage_icmp_error(struct pipeline *p, struct burst *b, uint32_t i);
// Answers, rate limited.
void stage_answer_echo(struct pipeline *p, struct burst *b, uint32_t i);
// RST or port unreachable for a packet that nobody takes; `reason` names why.
void stage_refuse(struct pipeline *p, struct burst *b, uint32_t i, enum drop_reason reason);
void stage_answer_error(
	struct pipeline *p, struct burst *b, uint32_t i, enum packet_error error, uint16_t mtu);
// The mbuf is now an answer of ours to `to`: sent, within the rate that the caller has asked for.
void stage_leave_answer(struct pipeline *p, struct burst *b, uint32_t i, const struct address *to,
	enum drop_reason reason);
// Cuts a packet to its first segment; the rest is the caller's of pipeline_run to free.
void stage_detach(struct burst *b, uint32_t i);

// Port and MAC towards a peer; wait: the neighbour is not resolved.
struct way {
	uint16_t nexthop;
	uint8_t port;
	bool wait;
	struct mac mac;
	struct address neighbour;
};
// nexthop: index, NEXTHOP_NONE or NEXTHOP_MISSING as the FIB answered for `peer`. DROP_NONE or DROP_NO_ROUTE.
enum drop_reason way_find(
	const struct pipeline *p, uint16_t nexthop, const struct address *peer, struct way *out);

// A record for a new flow, taken from one that gives way. False: nobody does.
bool stage_make_room(struct pipeline *p);
// A source port towards the backend of r: fills snat_slot and snat_port. Once the flow is added, snat_name says whose it is.
// DROP_NONE or the reason why not; an exhausted range is counted for the backend.
enum drop_reason stage_take_port(struct pipeline *p, struct flow_record *r, uint32_t spread);
// FORWARD or WAIT by that way.
void stage_leave(struct burst *b, uint32_t i, const struct way *way);

// A client's packet that no flow of this worker has: does the directory of adopted flows name another one? Then it is given on.
// Not a packet that was given on already.
bool stage_to_holder(struct pipeline *p, struct burst *b, uint32_t i, uint64_t hash);
static inline uint64_t pipeline_note(const struct pipeline *p, uint64_t hash)
{
	return p->notes[(hash >> 20) % PIPELINE_NOTES];
}
// Is it worth asking?
static inline bool pipeline_may_have_holder(const struct pipeline *p, uint64_t hash)
{
	return unlikely(p->directory != NULL) ||
	       (unlikely(p->has_notes) &&
		       flow_directory_tag(pipeline_note(p, hash)) == flow_directory_tag(hash));
}
// The first fragment of a flow that this worker has not: to the worker that has its client's flows, where one has; else to the
// next, until each has seen it once. False: it may begin here.
bool stage_walk_first(struct pipeline *p, struct burst *b, uint32_t i);

// The flow of a key whose own side is of that kind.
static inline uint32_t pipeline_find(const struct pipeline *p, const struct flow_key *key,
	enum snapshot_own_kind kind, uint8_t *out_side)
{
	*out_side = FLOW_SIDE_BACKEND;
	return kind == SNAPSHOT_OWN_SNAT ? pipeline_find_reply(p, key)
					 : flow_lookup(&p->flows, key, out_side);
}
// The source port of a flow that ends or could not begin.
static inline void stage_free_port(struct pipeline *p, const struct flow_record *r)
{
	if (r->flags & FLOW_FLAG_DNAT) // has none
		return;
	struct flow_key key = flow_backend_key(r);
	snat_free(p->snat, &key);
}
// Removes a flow and gives its source port back.
void stage_end_flow(struct pipeline *p, uint32_t flow_idx);
// The same for n (at most FLOW_REMOVE_MAX) flows, each named once, whose lines come side by side.
void stage_end_flows(struct pipeline *p, const uint32_t *idx, uint32_t n);
bool bucket_take(struct pipeline_bucket *bucket, uint64_t now_ns);
void pipeline_refresh_policies(struct pipeline *p);

static inline const struct snapshot_backend *pipeline_backend(
	const struct pipeline *p, uint32_t backend_id)
{
	return backend_id < p->snapshot->n_backends ? &p->snapshot->backends[backend_id] : NULL;
}

static inline struct pipeline_backend_counters *pipeline_backend_block(
	struct pipeline *p, uint32_t backend_id)
{
	return backend_id < p->n_backend_counters ? &p->backend_counters[backend_id] : NULL;
}

// The rest of what a flow with FLOW_FLAGS_ODD needs besides new addresses: its client's address in option or header, shifted
// numbers, a lower MSS, the other family. Way and size are settled. False: it has its verdict.
bool stage_rewrite_extra(struct pipeline *p, struct burst *b, uint32_t i, struct packet_nat *nat);
// Bytes that a packet of flow r and this direction gains by the change of family; negative: loses.
static inline int32_t flow_growth(const struct flow_record *r, const struct packet *p)
{
	if (!(r->flags & FLOW_FLAG_CROSS))
		return 0;
	return p->is_v6 ? -20 : 20;
}
// Length of the PROXY header of a flow.
static inline uint32_t flow_proxy_length(const struct flow_record *r)
{
	return address_is_v4(&r->client) ? 28 : 52;
}
// Where the client's stream begins, whole, near a number of that stream.
static inline uint32_t flow_first(const struct flow_record *r, uint32_t near)
{
	uint32_t low = (uint32_t)r->isn[0] << 16 | (uint32_t)r->isn[1] << 8 | r->isn[2];
	uint32_t ahead = (near - low) & 0xffffff;
	return ahead < 0x800000 ? near - ahead : near + (0x1000000 - ahead);
}

// Where a flow's backend is: in mode dnat the second key has it as its own side.
static inline const struct address *flow_server(
	const struct pipeline *p, const struct flow_record *r)
{
	return r->flags & FLOW_FLAG_DNAT ? &p->snapshot->own[r->snat_slot].address : &r->backend;
}
static inline rte_be16_t flow_server_port(const struct flow_record *r)
{
	return r->flags & FLOW_FLAG_DNAT ? r->snat_port : r->backend_port;
}
// Whom the backend takes for its client.
static inline const struct address *flow_face(const struct pipeline *p, const struct flow_record *r)
{
	return r->flags & FLOW_FLAG_DNAT ? &r->client : &p->snapshot->own[r->snat_slot].address;
}
static inline rte_be16_t flow_face_port(const struct flow_record *r)
{
	return r->flags & FLOW_FLAG_DNAT ? r->client_port : r->snat_port;
}

// The MAC and the MTU behind it, in one load.
static inline uint64_t port_mac_word(const struct pipeline_port *port)
{
	uint64_t word;
	memcpy(&word, port, sizeof(word));
	return word;
}
static inline uint16_t port_word_mtu(uint64_t word)
{
	return (uint16_t)(word >> 48);
}
_Static_assert(
	offsetof(struct pipeline_port, mac) == 0 && offsetof(struct pipeline_port, mtu) == 6, "");

// What the compiler must take for a value of its own. Else it makes an index into a register again for each of its uses, from
// where it came from, or works on it in bytes.
#define OPAQUE(value) __asm__("" : "+r"(value))

// Are there so many backends that their rows and counters do not stay in the cache nearest to the processor?
static inline bool pipeline_rows_are_cold(const struct pipeline *p)
{
	return p->snapshot->n_backends > 128;
}

// Way towards a peer as the FIB of the snapshot has it now.
static inline uint16_t pipeline_route(const struct pipeline *p, const struct address *peer)
{
	return nexthop_find(p->snapshot->fib, peer).nexthop;
}
// The same towards a backend, whose block remembers it.
static inline uint16_t pipeline_backend_route(const struct pipeline *p,
	struct pipeline_backend_counters *block, const struct address *address)
{
	uint32_t ways = snapshot_ways(p->snapshot);
	if (unlikely(block->ways != ways || block->nexthop >= NEXTHOP_MISSING)) {
		block->nexthop = pipeline_route(p, address);
		block->ways = ways;
		block->ready_mode = 0;
	}
	return block->nexthop;
}

// There is one writer, so nothing is locked; but the compiler makes three instructions of a load, a sum and a store.
static inline void relaxed_add(uint64_t *value, uint64_t n)
{
#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__)
	__asm__("addq %1, %0" : "+m"(*value) : "er"(n) : "cc");
#else
	__atomic_store_n(value, *value + n, __ATOMIC_RELAXED);
#endif
}

// A packet that came from `side` goes on: an offset, no branch on what cannot be foreseen.
static inline void block_count(
	struct pipeline_backend_counters *block, uint32_t side, uint32_t n_bytes)
{
	relaxed_add(&block->packets_in + side, 1);
	relaxed_add(&block->bytes_in + side, n_bytes);
}
_Static_assert(offsetof(struct pipeline_backend_counters, packets_out) ==
			       offsetof(struct pipeline_backend_counters, packets_in) + 8 &&
		       offsetof(struct pipeline_backend_counters, bytes_out) ==
			       offsetof(struct pipeline_backend_counters, bytes_in) + 8,
	"by side");

// A packet of a flow of a NAT mode goes on: counted for its backend.
static inline void stage_count(
	struct pipeline *p, const struct burst *b, uint32_t i, uint32_t backend_id)
{
	struct pipeline_backend_counters *block = pipeline_backend_block(p, backend_id);
	if (likely(block != NULL))
		block_count(block, b->side[i], b->packets[i].l3_length);
}

// Which FIB a flow's next hops come from, in the byte that a record has for it.
#define ROUTE_TAG_OLD 0 // no FIB's: look again
static inline uint8_t route_tag(const struct nexthop_fib *fib)
{
	return (uint8_t)(nexthop_fib_generation(fib) % UINT8_MAX + 1);
}
