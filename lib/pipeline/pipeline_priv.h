// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// Between the stages of one pipeline; nobody else includes this.

#include "pipeline.h"

// One step of a packet's fate. Each sets verdict and reason, and counts.
void stage_drop(struct pipeline *p, struct burst *b, uint32_t i, enum drop_reason reason);
void stage_punt(struct burst *b, uint32_t i, enum pipeline_punt_class class);
// The packet was consumed by an answer that is now in its mbuf.
void stage_replied(struct pipeline *p, struct burst *b, uint32_t i, enum drop_reason reason);

// Parse and classification: fills packets[], keys[], and for packets that need the table `pending`
// (burst indices). Everybody else has its verdict afterwards.
uint32_t stage_classify(struct pipeline *p, struct burst *b, uint8_t *pending);
// Misses on the client side: listener, source range, pick, source port, flow. Sets flow_idx, or a verdict.
void stage_open(struct pipeline *p, struct burst *b, uint32_t i);
// Hits: expiry, state, re-pick. Returns false when the packet has to go through stage_open.
bool stage_follow(struct pipeline *p, struct burst *b, uint32_t i);
// Should a packet of `side` leave flow r and be treated as the first of a new one? Expired, a SYN on a closed flow, a
// retransmitted SYN whose backend may not take it, UDP to a removed backend.
bool flow_gives_way(const struct pipeline *p, const struct flow_record *r, enum flow_side side,
	uint8_t tcp_flags);
// Next hop, TTL, MTU and rewrite of the pending packets that have a flow and are to be forwarded.
void stage_rewrite(struct pipeline *p, struct burst *b, const uint8_t *pending, uint32_t n);
// ICMP error that quotes a packet of ours.
void stage_icmp_error(struct pipeline *p, struct burst *b, uint32_t i);
// Answers, rate limited.
void stage_answer_echo(struct pipeline *p, struct burst *b, uint32_t i);
// RST or port unreachable for a packet that nobody takes; `reason` names why.
void stage_refuse(struct pipeline *p, struct burst *b, uint32_t i, enum drop_reason reason);
void stage_answer_error(
	struct pipeline *p, struct burst *b, uint32_t i, enum packet_error error, uint16_t mtu);

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

// Removes a flow and gives its source port back.
void stage_end_flow(struct pipeline *p, uint32_t flow_idx);
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

static inline void relaxed_add(uint64_t *value, uint64_t n)
{
	__atomic_store_n(value, *value + n, __ATOMIC_RELAXED);
}

// Which FIB a flow's next hops come from, in the byte that a record has for it.
#define ROUTE_TAG_OLD 0 // no FIB's: look again
static inline uint8_t route_tag(const struct nexthop_fib *fib)
{
	return (uint8_t)(nexthop_fib_generation(fib) % UINT8_MAX + 1);
}

// Way towards a peer as the FIB of the snapshot has it now.
static inline uint16_t pipeline_route(const struct pipeline *p, const struct address *peer)
{
	return nexthop_find(p->snapshot->fib, peer).nexthop;
}
