// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// The data path but receive, transmit and rings: a pure function of (packets, tables, time).
//
//   parse ─► classify (own address?) ─┬► NAT flow look-up ─hit──────────────► state ─► rewrite ─► verdict
//                │                    │      └─miss─► listener ─► pick ─► flow add ─┘
//                │                    └► one-way look-up ─hit─► state ─► tunnel ─► verdict
//                │                           └─miss─► listener ─► pick ─► entry ─┘
//                └─ not ours ─► punt
//
// Each stage is one loop over the burst. One struct pipeline per worker, used by it alone.

#include <rte_mbuf.h>

#include "counters.h"
#include "directory.h"
#include "flow.h"
#include "nexthop.h"
#include "oneway.h"
#include "packet.h"
#include "snapshot.h"
#include "snat.h"

#define BURST_MAX          64
#define PIPELINE_PORTS_MAX 32

enum pipeline_verdict {
	PIPELINE_FORWARD, // to out_port[i], rewritten
	PIPELINE_REPLY, // the mbuf is now an answer of ours: to out_port[i]; the packet itself counts as dropped(reason)
	PIPELINE_PUNT,    // to the twin of its port, priority in punt_class[i]
	PIPELINE_DROP,    // reason[i]
	PIPELINE_RESTEER, // to worker out_port[i]
	PIPELINE_HELD, // a fragment ahead of its first one: the pipeline keeps the mbuf (pipeline_take_released, pipeline_expire_held)
	PIPELINE_WAIT, // rewritten, but the next hop of address want[i] on out_port[i] is not known: hold it, ask control. For a
		       // reply (was_reply[i]) as well
};

// Priority of punted packets: lower is more important.
enum pipeline_punt_class {
	PIPELINE_PUNT_ROUTING,
	PIPELINE_PUNT_NEIGHBOUR,
	PIPELINE_PUNT_OTHER,
	PIPELINE_PUNT_CLASSES
};

struct burst {
	uint32_t n; // 0..BURST_MAX
	struct rte_mbuf *mbufs[BURST_MAX];
	uint8_t in_port[BURST_MAX]; // port index
	// Workers that had the packet before this one and gave it on (RESTEER); 0: fresh from a port. The pipeline may
	// change it before it gives the packet on again; whoever carries it adds one.
	uint8_t hops[BURST_MAX];
	// out:
	uint8_t verdict[BURST_MAX]; // enum pipeline_verdict
	uint8_t reason[BURST_MAX];  // enum drop_reason for DROP and REPLY
	uint8_t out_port[BURST_MAX];
	uint8_t punt_class[BURST_MAX];
	bool was_reply[BURST_MAX]; // WAIT: an answer of ours
	uint16_t nexthop
		[BURST_MAX]; // for WAIT: index when INCOMPLETE or FAILED entry, else NEXTHOP_MISSING
	struct address want[BURST_MAX]; // for WAIT
	uint32_t backend_id
		[BURST_MAX]; // what it was matched to, for replay and trace; SNAPSHOT_BACKEND_NONE
	uint32_t listener_idx[BURST_MAX]; // for pipeline_listener
	// Held earlier, given up now: counted as dropped, to be freed by the caller.
	uint32_t n_given_up;
	struct rte_mbuf *given_up[BURST_MAX];
	// Segments that were cut off packets of this burst, to be freed by the caller; they count for nothing.
	uint32_t n_tails;
	struct rte_mbuf *tails[BURST_MAX];
	// scratch between stages
	struct packet packets[BURST_MAX];
	uint32_t flow_idx[BURST_MAX];
	uint8_t side[BURST_MAX];
	bool may_be_foreign
		[BURST_MAX]; // from a dnat backend to an address that is not ours: without a flow it is the kernel's
};

#define PIPELINE_ENDING_MAX 40

struct pipeline_port { // by port index
	struct mac mac;
	uint16_t mtu;
	bool present;
} __attribute__((aligned(16)));

// Answers of our own are limited by token buckets, per worker.
struct pipeline_bucket {
	uint64_t per_s;
	uint64_t burst;
	uint64_t tokens_ns; // time credit
	uint64_t last_ns;
};

struct pipeline_backend_counters { // by backend_id; [worker writes, control reads relaxed]
	uint64_t packets_in;       // from clients
	uint64_t packets_out;      // from the backend
	uint64_t bytes_in;
	uint64_t bytes_out;
	uint64_t flows_created;
	uint64_t flows_ended;
	uint64_t ports_exhausted; // new flows refused for want of a source port
	// [worker] The way to the backend, found once as long as it stays so. A flow of a NAT mode takes it over when it begins.
	uint32_t ways; // snapshot_ways when nexthop was found
	uint16_t nexthop;
	uint8_t ready_mode; // one-way modes: enum snapshot_mode + 1 that this way is known to serve; 0: not looked at
	uint8_t pad;
} __attribute__((aligned(64)));
_Static_assert(sizeof(struct pipeline_backend_counters) == 64, "one line");

#define PIPELINE_NOTES 1024

struct pipeline {
	// wiring, set once
	uint16_t worker_idx;
	uint16_t n_workers;
	uint16_t
		snat_port_min; // host order, inclusive: other ports of a SNAT address are the kernel's
	uint16_t snat_port_max;
	struct flow_table flows;
	struct oneway_table oneway; // flows of one-way modes, and what session affinity remembers
	const struct flow_directory
		*directory; // who holds an adopted flow; NULL: nothing was adopted, or one worker
	struct snat *snat;
	struct nexthop_table nexthops;
	struct counters *counters;
	struct pipeline_backend_counters *backend_counters;
	uint32_t n_backend_counters; // ids beyond are not counted
	struct pipeline_port ports[PIPELINE_PORTS_MAX];
	bool check_mac; // false in replay
	// per burst, set by the caller before pipeline_run
	const struct snapshot *snapshot;
	uint64_t now_ns;
	uint32_t now_s; // table seconds: now_ns / 1e9
	// own
	struct flow_policy policies[SNAPSHOT_POLICIES_MAX + 1];
	uint64_t policies_generation;           // of the snapshot they come from
	struct oneway_timeouts oneway_timeouts; // views of snapshot and policies
	struct fragments *fragments;            // NULL: fragments are dropped
	// Fragments whose first came: to be run again. All that were held, and those that one burst holds and releases after them.
	uint32_t n_released;
	struct rte_mbuf *released[FRAGMENTS_HELD_MAX + BURST_MAX];
	uint16_t tunnel_id;                   // of the next tunnel packet without DF
	struct pipeline_bucket answer_bucket; // RST, unreachable, time exceeded, too big
	struct pipeline_bucket echo_bucket;
	uint64_t pick_seed;
	// Flows that the last slice found expired, for the next one to end, and what it found out about them.
	uint32_t n_ending;
	uint32_t ending[PIPELINE_ENDING_MAX];
	uint8_t ending_sequence
		[PIPELINE_ENDING_MAX];               // of the record: another one has changed since
	uint64_t ending_hashes[2 * FLOW_REMOVE_MAX]; // as flow_remove_begin gives them
	struct snat_place ending_ports[PIPELINE_ENDING_MAX];
	uint8_t sweep_turn;  // of three slices of ageing two are the one-way table's
	bool oneway_turn;    // ... so was the last one
	uint32_t slice_done; // ... and how much of it was done
	uint64_t n_rounds;   // of ageing: a whole pass over either table lies in each
	struct {
		uint64_t flows;
		uint64_t oneway;
	} round_until; // n_sweeps of both with which the present one is over
	// Flows that began with a fragment at another worker (holder.c): tag of the hash | worker + 1, 0: none
	bool has_notes;
	uint64_t notes[PIPELINE_NOTES];
};

// Fills the own part: default rate limits (answers 1000/s burst 100, echo 1000/s burst 1000).
void pipeline_init(struct pipeline *p);

// Runs all stages. Counts every packet's fate except what only the caller knows (received, sent, punted, queue-full drops):
// flows, hits, misses, answers, and drops by reason for PIPELINE_DROP and PIPELINE_REPLY are counted here, `generated` too.
void pipeline_run(struct pipeline *p, struct burst *b);

// Listener of a packet that was run with snapshot s: the one that was asked, else its backend's, whose row is not read for this by a
// packet that just goes on. UINT32_MAX: none.
static inline uint32_t pipeline_listener(
	const struct snapshot *s, const struct burst *b, uint32_t i)
{
	if (b->listener_idx[i] != UINT32_MAX || b->backend_id[i] >= s->n_backends)
		return b->listener_idx[i];
	return s->backends[b->backend_id[i]].listener_idx;
}

// A held packet that waits for nothing any more, or travels between workers, carries port and hops in mbuf->port.
static inline uint16_t pipeline_mark(uint8_t in_port, uint8_t hops)
{
	return (uint16_t)(hops << 8 | in_port);
}
static inline void pipeline_unmark(struct burst *b, uint32_t i)
{
	b->in_port[i] = (uint8_t)b->mbufs[i]->port;
	b->hops[i] = (uint8_t)(b->mbufs[i]->port >> 8);
}
// Puts held fragments whose first one has come into an empty burst, in their order, as many as it has room for: to be run like fresh
// ones, but not counted as received again. Before anything else is put into it, each time: a full burst must not leave them behind
// while its packets bring more.
void pipeline_take_released(struct pipeline *p, struct burst *b);
// Gives back held fragments that waited too long, counted as dropped, for the caller to free; now_ns UINT64_MAX: all. Returns how
// many were written, at most max.
uint32_t pipeline_expire_held(
	struct pipeline *p, uint64_t now_ns, struct rte_mbuf **out, uint32_t max);

// Housekeeping between bursts: a slice of ageing, bounded by what it looks at and by what it ends: max_records records of the flow
// table, of which it ends one in seven at most, or half as many lines of the one-way table, of which it ends a third as many entries
// and 15 more at most. The tables take turns, so that a pass over either takes as long; an empty one-way table has none.
// p->slice_done says how much of max_records this was. What a slice finds expired in the flow table it asks for, and the next one ends
// it, but at the end of a pass nothing is left. Two rounds (p->n_rounds) after something was changed a whole pass over
// either table has seen it. Returns flows removed.
uint32_t pipeline_housekeep(struct pipeline *p, uint32_t max_records);

// ---------------------------------------------------------------- flows as people see them
// In the terms of fullnat whatever the mode: client, VIP, backend with its port; the source port and slot count for fullnat only
// (FLOW_FLAG_DNAT, FLOW_FLAG_ONEWAY: the backend sees the client). The worker's own thread, like the tables.
void pipeline_show_flow(
	const struct pipeline *p, const struct flow_record *r, struct flow_record *out);
// Entry `ref` (below oneway_n_positions) of the one-way table. False: none, or it is no flow.
bool pipeline_show_entry(const struct pipeline *p, uint32_t ref, struct flow_record *out);

// The flow of a reply to a source port of this worker's (peer: the backend): FLOW_NONE or its index. Of a flow that has a source port
// that port says which it is; the table knows its client's key only.
static inline uint32_t pipeline_find_reply(const struct pipeline *p, const struct flow_key *key)
{
	uint32_t idx = snat_user(p->snat, key);
	if (idx >= p->flows.n_used)
		return FLOW_NONE;
	struct flow_key has = flow_backend_key(flow_record(&p->flows, idx));
	return flow_key_equal(&has, key) ? idx : FLOW_NONE;
}

// ---------------------------------------------------------------- explain
// What would happen to a packet, by the same look-up code, without writing. Text is one step a line.
struct pipeline_question {
	struct address src;
	struct address dst;
	uint16_t src_port; // host order
	uint16_t dst_port;
	uint8_t protocol;
	uint8_t tcp_flags; // TCP_SYN when the asker did not say
	uint8_t in_port;
};
#define PIPELINE_STEPS_MAX 12
struct pipeline_step {
	char name
		[24]; // "address", "listener", "source", "flow", "pick", "snat", "nexthop", "verdict"
	char text[232]; // result and reason
};
struct pipeline_explanation {
	struct pipeline_step steps[PIPELINE_STEPS_MAX];
	uint32_t n_steps;
	uint8_t verdict; // enum pipeline_verdict
	uint8_t reason;  // enum drop_reason
	uint32_t backend_id;
	uint32_t listener_idx;
	uint32_t flow_idx;     // FLOW_NONE: none
	uint16_t owner_worker; // for packets to a SNAT address
};
void pipeline_explain(const struct pipeline *p, const struct pipeline_question *q,
	struct pipeline_explanation *out);
const char *pipeline_verdict_name(
	enum pipeline_verdict v); // "forward" "reply" "punt" "drop" "resteer" "wait"
