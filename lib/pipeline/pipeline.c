// SPDX-License-Identifier: BSD-3-Clause
// Hot path: no allocation, lock, log, system call.
// The stages in order, over one burst. Each stage is a short loop; what it will touch was prefetched a loop
// earlier, so that the memory latencies of a burst overlap instead of adding up:
//
//   1 parse     frame line of i+4 prefetched; the cell of the destination asked for
//   2 classify  that cell; the key, in the list of its table, replies to source ports apart
//   3 look up   the links of those ports (lib/snat) and bucket lines of all other keys, then record lines of all candidates
//               (lib/flow); the backends' lines asked for
//   4 forward   TCP state and stamp of the record line just loaded, next-hop word (warm), the frame line loaded in 1
//
// Nearly every packet is a plain one: the functions of that name take it through with what can be said in a few lines, inline, and
// leave everything else to the stages that know all cases.
//
// Invariant: after pipeline_run every packet has a verdict, and each drop and each answer was counted once.
#include "pipeline_priv.h"

#define PREFETCH_AHEAD 4
// Ageing: records or lines that one slice looks at, at most.
#define SLICE_RECORDS_MAX 256
_Static_assert(PIPELINE_ENDING_MAX >= (SLICE_RECORDS_MAX + 6) / 7, "a slice's expired flows");
// A line of the one-way table, with up to four entries, costs as much as so many records.
#define LINE_COST 2
// Lines looked at together.
#define ONEWAY_STEP 4

void pipeline_init(struct pipeline *p)
{
	p->answer_bucket = (struct pipeline_bucket){ .per_s = 1000, .burst = 100 };
	p->echo_bucket = (struct pipeline_bucket){ .per_s = 1000, .burst = 1000 };
	p->policies_generation = UINT64_MAX;
}

// A bucket holds time: each token costs 1/per_s seconds, at most `burst` tokens are saved up.
bool bucket_take(struct pipeline_bucket *bucket, uint64_t now_ns)
{
	uint64_t cost_ns = CLOCK_S / bucket->per_s;
	uint64_t full_ns = cost_ns * bucket->burst;
	if (bucket->last_ns == 0)
		bucket->tokens_ns = full_ns;
	else if (now_ns > bucket->last_ns)
		bucket->tokens_ns += now_ns - bucket->last_ns;
	if (bucket->tokens_ns > full_ns)
		bucket->tokens_ns = full_ns;
	bucket->last_ns = now_ns ? now_ns : 1;
	if (bucket->tokens_ns < cost_ns)
		return false;
	bucket->tokens_ns -= cost_ns;
	return true;
}

void stage_drop(struct pipeline *p, struct burst *b, uint32_t i, enum drop_reason reason)
{
	b->verdict[i] = PIPELINE_DROP;
	b->reason[i] = reason;
	counters_drop(p->counters, reason, 1);
	__atomic_store_n(&p->counters->drops_last_s[reason], p->now_s, __ATOMIC_RELAXED);
}

void stage_punt(struct burst *b, uint32_t i, enum pipeline_punt_class class)
{
	b->verdict[i] = PIPELINE_PUNT;
	b->reason[i] = DROP_NONE;
	b->punt_class[i] = class;
}

void stage_replied(struct pipeline *p, struct burst *b, uint32_t i, enum drop_reason reason)
{
	stage_drop(p, b, i, reason);
	b->verdict[i] = PIPELINE_REPLY;
	counters_add(p->counters, COUNTER_GENERATED, 1);
}

void pipeline_refresh_policies(struct pipeline *p)
{
	const struct snapshot *s = p->snapshot;
	for (uint32_t i = 0; i < s->n_policies && i < SNAPSHOT_POLICIES_MAX; i++)
		p->policies[i] =
			flow_policy_make(s->policies[i].tcp_idle_s, s->policies[i].udp_idle_s);
	p->oneway_timeouts = (struct oneway_timeouts){
		.backends = (const struct oneway_backend *)(const void *)s->idle,
		.n_backends = s->idle ? s->n_backends : 0,
		.policies = p->policies,
	};
	p->policies_generation = s->generation;
}

_Static_assert(
	sizeof(struct snapshot_idle) == sizeof(struct oneway_backend) &&
		offsetof(struct snapshot_idle, policy) == offsetof(struct oneway_backend, policy),
	"a snapshot's rows are taken as they are");

static void burst_clear(struct burst *b)
{
	uint32_t n = b->n;
	b->n_given_up = 0;
	b->n_tails = 0;
	memset(b->verdict, PIPELINE_DROP, n);
	memset(b->reason, DROP_NONE, n);
	memset(b->was_reply, 0, n);
	memset(b->may_be_foreign, 0, n);
	memset(b->backend_id, 0xff, n * sizeof(b->backend_id[0])); // SNAPSHOT_BACKEND_NONE
	memset(b->listener_idx, 0xff, n * sizeof(b->listener_idx[0]));
	memset(b->flow_idx, 0xff, n * sizeof(b->flow_idx[0])); // FLOW_NONE
}

// With many backends and VIPs their rows and counters are cold: asked for while the rest of the burst is looked up.
static inline void fetch_rows(const struct pipeline *p, const struct flow_record *r, uint8_t side)
{
	uint32_t id = r->backend_id;
	if (unlikely(id >= p->snapshot->n_backends || id >= p->n_backend_counters))
		return;
	__builtin_prefetch(&p->backend_counters[id], 1, 3);
	if (side == FLOW_SIDE_BACKEND) // there are few source addresses
		__builtin_prefetch(&p->snapshot->own_v4[r->vip_slot], 0, 3);
	__asm__ volatile(
		""); // or the compiler drops it, as flow_prefetch_line (lib/flow/flow.h) says
}

static void fetch_all_rows(const struct pipeline *p, const struct burst *b, uint64_t packets)
{
	for (; packets != 0; packets &= packets - 1) {
		uint32_t i = (uint32_t)__builtin_ctzll(packets);
		if (likely(b->flow_idx[i] != FLOW_NONE))
			fetch_rows(p, flow_record(&p->flows, b->flow_idx[i]), b->side[i]);
	}
}

// Looks the pending packets up in one go.
static void stage_look_up(struct pipeline *p, struct burst *b, struct nat_pending *pending)
{
	struct flow_search *s = &pending->search;
	uint32_t first_named = nat_pending_first_named(pending), n_hits = 0;
	snat_ask(p->snat, &s->keys[first_named], s->n_named, &s->names[first_named]);
	flow_lookup_burst(&p->flows, s);
	for (uint32_t k = 0; k < s->n; k++) {
		uint32_t i = pending->at[k], found = s->idx[k];
		bool hit = found != FLOW_NONE;
		b->flow_idx[i] = found;
		b->side[i] = hit ? s->side[k] : b->side[i]; // else what the address said
		n_hits += hit;
	}
	for (uint32_t k = first_named; k < BURST_MAX; k++) {
		b->flow_idx[pending->at[k]] = s->idx[k];
		n_hits += s->idx[k] != FLOW_NONE;
	}
	if (pipeline_rows_are_cold(p))
		fetch_all_rows(p, b, pending->packets);
	counters_add(p->counters, COUNTER_FLOW_HITS, n_hits);
	counters_add(p->counters, COUNTER_FLOW_MISSES, s->n + s->n_named - n_hits);
}

// An earlier packet of the same burst may have made (or ended) the flow that this one missed or hit:
// two segments of one new flow in one burst. Looks again before anything is made.
static bool flow_is_stale_answer(
	struct pipeline *p, const struct burst *b, uint32_t i, const struct flow_key *key)
{
	if (b->flow_idx[i] == FLOW_NONE)
		return false;
	const struct flow_record *r = flow_record(&p->flows, b->flow_idx[i]);
	struct flow_key now =
		b->side[i] == FLOW_SIDE_CLIENT ? flow_client_key(r) : flow_backend_key(r);
	return r->state == FLOW_STATE_FREE || !flow_key_equal(&now, key);
}

static void look_again(struct pipeline *p, struct burst *b, uint32_t i, const struct flow_key *key)
{
	uint8_t side;
	if (stage_is_reply(b, i))
		b->flow_idx[i] = pipeline_find_reply(p, key);
	else
		b->flow_idx[i] = flow_lookup(&p->flows, key, &side);
	if (b->flow_idx[i] != FLOW_NONE && !stage_is_reply(b, i))
		b->side[i] = side;
}

// What is the same for all packets of a burst.
struct burst_facts {
	const uint64_t *staying;
	const rte_be32_t *own_v4;
	const struct snapshot_own *own;
	uint32_t n_backends; // with a row and a block of counters
	uint8_t route_tag;
};

// Nothing in the packet can change the flow's state, and it had one this second already: so it is not expired. (Packets of UDP
// flows have no flags.)
static inline bool flow_is_steady(
	const struct pipeline *p, const struct flow_record *r, const struct packet *packet)
{
	const uint32_t steady = 1u << FLOW_STATE_ESTABLISHED | 1u << FLOW_STATE_UDP_TWOWAY;
	return (steady >> r->state & 1) && !(packet->tcp_flags & (TCP_SYN | TCP_FIN | TCP_RST)) &&
	       packet->ttl > 1 && r->stamp_s == p->now_s;
}

// New addresses and ports of a packet of flow r that needs no more than these. to: the side that it goes to, which is an offset
// into the record and no branch: clients' and backends' packets come mixed, in an order that no processor foresees.
static __rte_always_inline void rewrite_plain(uint8_t *frame, const struct packet *packet,
	const struct flow_record *r, uint64_t to, const struct burst_facts *f)
{
	const char *tail = (const char *)&r->client_port + 8 * to;
	uint32_t theirs; // the receiver's port, then our own: turned round they are the packet's
	uint16_t own_slot;
	memcpy(&theirs, tail, sizeof(theirs));
	memcpy(&own_slot, tail + sizeof(theirs), sizeof(own_slot));
	// With DNAT `backend` is the client, and the own side the backend.
	bool is_turned = r->flags & FLOW_FLAG_DNAT & to;
	uint32_t ports = is_turned ? theirs : theirs >> 16 | theirs << 16;
	const struct address *peer = &r->client + to;
	if (likely(!packet->is_v6)) {
		rte_be32_t peer_v4 = peer->words[3], own_v4 = f->own_v4[own_slot];
		plain_nat_v4(frame, packet, is_turned ? peer_v4 : own_v4,
			is_turned ? own_v4 : peer_v4, ports);
		return;
	}
	const struct address *own = &f->own[own_slot].address;
	plain_nat_v6(frame, packet, is_turned ? peer : own, is_turned ? own : peer, ports);
}
#define SIDES_APART(of_client, of_backend, bytes)                                 \
	_Static_assert(offsetof(struct flow_record, of_backend) ==                \
			       offsetof(struct flow_record, of_client) + (bytes), \
		"sides of " #of_client)
SIDES_APART(client, backend, sizeof(struct address));
SIDES_APART(client_port, backend_port, 8);
SIDES_APART(vip_port, snat_port, 8);
SIDES_APART(vip_slot, snat_slot, 8);
SIDES_APART(client_port, vip_port, 2);
SIDES_APART(client_port, vip_slot, 4);
SIDES_APART(nexthop_client, nexthop_backend, 2);
_Static_assert(FLOW_SIDE_CLIENT == 0 && FLOW_SIDE_BACKEND == 1 && FLOW_FLAG_DNAT == 1,
	"a side is an offset, and a bit");

// A packet that leaves the state of flow r as it is: of a listed backend, the routes those of this FIB, the neighbour
// resolved; and it fits, with a TTL above 1. Then it is settled and rewritten. False: nothing done.
static __rte_always_inline bool forward_known(struct pipeline *p, struct burst *b, uint32_t i,
	const struct flow_record *r, const struct burst_facts *f)
{
	const struct packet *packet = &b->packets[i];
	uint64_t side = b->side[i], to = side ^ 1;
	uint32_t id = r->backend_id;
	OPAQUE(packet);
	OPAQUE(to);
	if (unlikely(id >= f->n_backends))
		return false;
	uint32_t nexthop = (&r->nexthop_client)[to];
	// NEXTHOP_NONE and NEXTHOP_MISSING lie beyond every table.
	if (unlikely(!snapshot_stays(f->staying, id) || r->route_generation != f->route_tag ||
		     nexthop >= p->nexthops.n_entries || (r->flags & FLOW_FLAGS_ODD)))
		return false;
	uint64_t hop = nexthop_load(&p->nexthops, (uint16_t)nexthop);
	uint64_t port = port_mac_word(&p->ports[nexthop_word_port(hop)]);
	uint32_t n_bytes = packet->l3_length;
	if (unlikely(nexthop_word_state(hop) != NEXTHOP_VALID || n_bytes > port_word_mtu(port)))
		return false;
	b->backend_id[i] = id;
	b->out_port[i] = nexthop_word_port(hop);
	b->nexthop[i] = (uint16_t)nexthop;
	b->verdict[i] = PIPELINE_FORWARD;
	block_count(&p->backend_counters[id], (uint32_t)side, n_bytes);
	uint8_t *frame = rte_pktmbuf_mtod(b->mbufs[i], uint8_t *);
	plain_write_macs_of(frame, hop, port);
	rewrite_plain(frame, packet, r, to, f);
	return true;
}

// What nearly every packet is: of a confirmed, steady flow. stage_follow and stage_rewrite judge the rest, and come to the same
// for these.
static __rte_always_inline bool forward_plain(
	struct pipeline *p, struct burst *b, uint32_t i, const struct burst_facts *f)
{
	const struct flow_record *r = flow_record(&p->flows, b->flow_idx[i]);
	return likely(flow_is_steady(p, r, &b->packets[i])) && forward_known(p, b, i, r, f);
}

void stage_forward_first(
	struct pipeline *p, struct burst *b, uint32_t i, const struct burst_facts *f)
{
	b->verdict[i] = PIPELINE_FORWARD;
	if (unlikely(!forward_known(p, b, i, flow_record(&p->flows, b->flow_idx[i]), f)))
		stage_rewrite(p, b, i);
}

// A packet that is not plain. Returns whether a flow was added or removed.
static __rte_noinline bool decide_odd(
	struct pipeline *p, struct burst *b, uint32_t i, uint64_t hash)
{
	bool changed = false;
	if (b->flow_idx[i] == FLOW_NONE || !stage_follow(p, b, i)) {
		changed = true;
		b->flow_idx[i] = FLOW_NONE;
		if (!pipeline_may_have_holder(p, hash) || !stage_to_holder(p, b, i, hash))
			stage_open(p, b, i);
	}
	if (b->flow_idx[i] == FLOW_NONE)
		return true; // reset, refused
	if (b->verdict[i] == PIPELINE_FORWARD)
		stage_rewrite(p, b, i);
	return changed;
}

// May this packet, which has no flow, be one of those that are opened together?
static inline bool waits_to_be_opened(
	const struct pipeline *p, const struct burst *b, uint32_t i, uint64_t hash)
{
	const struct packet *packet = &b->packets[i];
	bool starts = packet->protocol == NET_PROTO_UDP ||
		      (packet->tcp_flags & (TCP_SYN | TCP_ACK | TCP_RST)) == TCP_SYN;
	return b->side[i] == FLOW_SIDE_CLIENT && starts && packet->kind == PACKET_FLOW &&
	       !pipeline_may_have_holder(p, hash);
}

struct decision {
	bool changed;   // a flow was added or removed in this burst
	uint64_t added; // a bit for the hash of each one that is added, or waits to be
};

// Brings what the look-up said of a packet up to date, where an earlier one of this burst may have changed it.
static inline void refresh(struct pipeline *p, struct burst *b, const struct nat_pending *pending,
	uint32_t place, const struct decision *d)
{
	uint32_t i = pending->at[place];
	const struct flow_search *s = &pending->search;
	bool stale = b->flow_idx[i] != FLOW_NONE
			     ? flow_is_stale_answer(p, b, i, &s->keys[place])
			     : b->side[i] == FLOW_SIDE_BACKEND ||
				       (d->added >> (s->hashes[place] & 63) & 1);
	if (stale)
		look_again(p, b, i, &s->keys[place]);
}

// Does another packet of the same flow (or one of the same hash) wait to be opened?
static bool is_among(const struct stage_misses *misses, uint64_t hash)
{
	for (uint32_t k = 0; k < misses->n; k++)
		if (misses->hashes[k] == hash)
			return true;
	return false;
}

// Packets of this burst that wait.
struct waiting {
	const struct burst_facts *facts;
	struct stage_misses misses; // to be opened together
	uint32_t n_late;
	uint8_t late[BURST_MAX]; // ... and for one of those; places
};

static void open_waiting(
	struct pipeline *p, struct burst *b, const struct nat_pending *pending, struct waiting *w)
{
	stage_open_together(p, b, &w->misses, w->facts);
	for (uint32_t k = 0; k < w->n_late; k++) {
		uint32_t place = w->late[k], i = pending->at[place];
		look_again(p, b, i, &pending->search.keys[place]);
		decide_odd(p, b, i, pending->search.hashes[place]);
	}
	w->misses.n = w->n_late = 0;
}

// Packet by packet, as they came, but those that start flows are opened together behind the others, and a second
// packet of such a flow waits for that; what may be a dnat backend's answer to one of them does not overtake it. A record may be
// given to a new flow after earlier packets went by what it was: those are rewritten by then.
static __rte_noinline void decide_mixed(struct pipeline *p, struct burst *b,
	const struct nat_pending *pending, uint64_t packets, const struct burst_facts *facts)
{
	const struct flow_search *s = &pending->search;
	uint32_t first_named = nat_pending_first_named(pending);
	uint8_t places[BURST_MAX]; // by burst index
	for (uint32_t k = 0; k < s->n; k++)
		places[pending->at[k]] = (uint8_t)k;
	for (uint32_t k = first_named; k < BURST_MAX; k++)
		places[pending->at[k]] = (uint8_t)k;

	struct decision d = { 0 };
	struct waiting w;
	w.misses.n = w.n_late = 0;
	w.facts = facts;
	for (; packets != 0; packets &= packets - 1) {
		uint32_t i = (uint32_t)__builtin_ctzll(packets), place = places[i];
		// A reply has no hash and opens nothing.
		uint64_t hash = place >= first_named ? 0 : s->hashes[place];
		uint64_t bit = 1ull << (hash & 63);
		if (unlikely(d.changed))
			refresh(p, b, pending, place, &d);
		if (likely(b->flow_idx[i] != FLOW_NONE)) {
			if (likely(forward_plain(p, b, i, facts)))
				continue;
		} else if ((d.added & bit) && is_among(&w.misses, hash)) {
			w.late[w.n_late++] = (uint8_t)place;
			continue;
		} else if (waits_to_be_opened(p, b, i, hash)) {
			d.added |= bit;
			w.misses.hashes[w.misses.n] = hash;
			w.misses.at[w.misses.n++] = (uint8_t)i;
			continue;
		} else if (b->may_be_foreign[i] && w.misses.n > 0) {
			open_waiting(p, b, pending, &w);
			d.changed = true;
			look_again(p, b, i, &s->keys[place]);
		}
		if (decide_odd(p, b, i, hash)) {
			d.changed = true;
			d.added |= bit;
		}
	}
	if (unlikely(w.misses.n > 0))
		open_waiting(p, b, pending, &w);
}

// As long as they are plain, in as few instructions as that takes: no more than the first odd one has to know of others.
static void stage_decide(struct pipeline *p, struct burst *b, const struct nat_pending *pending)
{
	const struct snapshot *s = p->snapshot;
	const struct burst_facts facts = {
		.staying = s->staying,
		.own_v4 = s->own_v4,
		.own = s->own,
		.n_backends = s->n_backends < p->n_backend_counters ? s->n_backends
								    : p->n_backend_counters,
		.route_tag = route_tag(s->fib),
	};
	for (uint64_t packets = pending->packets; packets != 0; packets &= packets - 1) {
		uint32_t i = (uint32_t)__builtin_ctzll(packets);
		if (likely(b->flow_idx[i] != FLOW_NONE) && likely(forward_plain(p, b, i, &facts)))
			continue;
		decide_mixed(p, b, pending, packets, &facts);
		return;
	}
}

void stage_pending(
	struct pipeline *p, struct burst *b, struct nat_pending *nat, struct pending *oneway)
{
	if (nat->packets != 0) {
		stage_look_up(p, b, nat);
		stage_decide(p, b, nat);
	}
	if (oneway->n > 0)
		stage_oneway(p, b, oneway);
}

void pipeline_run(struct pipeline *p, struct burst *b)
{
	if (p->policies_generation != p->snapshot->generation)
		pipeline_refresh_policies(p);
	if (unlikely(p->oneway.now_s != p->now_s) && p->oneway.header != NULL)
		oneway_advance(&p->oneway, p->now_s);
	uint32_t ahead = b->n < PREFETCH_AHEAD ? b->n : PREFETCH_AHEAD;
	for (uint32_t i = 0; i < ahead; i++)
		__builtin_prefetch(rte_pktmbuf_mtod(b->mbufs[i], void *), 1);
	burst_clear(b);
	struct nat_pending nat;
	struct pending oneway;
	uint64_t fragments = stage_classify(p, b, &nat, &oneway);
	stage_pending(p, b, &nat, &oneway);
	if (unlikely(fragments != 0))
		stage_fragments(p, b, fragments);
}

void stage_end_flow(struct pipeline *p, uint32_t flow_idx)
{
	const struct flow_record *r = flow_record(&p->flows, flow_idx);
	struct pipeline_backend_counters *block = pipeline_backend_block(p, r->backend_id);
	if (block)
		relaxed_add(&block->flows_ended, 1);
	stage_free_port(p, r);
	flow_remove(&p->flows, flow_idx);
}

// Where a flow's source port stands, its line asked for.
static inline struct snat_place ask_for_port(const struct pipeline *p, const struct flow_record *r)
{
	struct snat_place place = { .ring = UINT32_MAX };
	if (r->flags & FLOW_FLAG_DNAT)
		return place;
	struct flow_key key = flow_backend_key(r);
	place = snat_locate(p->snat, &key);
	snat_prefetch(p->snat, &place);
	return place;
}

// n (at most FLOW_REMOVE_MAX), of which hashes and ports are known.
static void end_flows(struct pipeline *p, const uint32_t *idx, uint32_t n, const uint64_t *hashes,
	const struct snat_place *ports)
{
	for (uint32_t k = 0; k < n; k++) {
		const struct flow_record *r = flow_record(&p->flows, idx[k]);
		struct pipeline_backend_counters *block = pipeline_backend_block(p, r->backend_id);
		if (block)
			relaxed_add(&block->flows_ended, 1);
		snat_free_at(p->snat, &ports[k]);
	}
	flow_remove_end(&p->flows, idx, n, hashes);
}

void stage_end_flows(struct pipeline *p, const uint32_t *idx, uint32_t n)
{
	uint64_t hashes[2 * FLOW_REMOVE_MAX];
	struct snat_place ports[FLOW_REMOVE_MAX];
	flow_remove_begin(&p->flows, idx, n, hashes);
	for (uint32_t k = 0; k < n; k++)
		ports[k] = ask_for_port(p, flow_record(&p->flows, idx[k]));
	end_flows(p, idx, n, hashes, ports);
}

// Over when it has ended two entries for three of its lines.
static uint32_t sweep_oneway(struct pipeline *p, uint32_t max_records)
{
	uint64_t words[SLICE_RECORDS_MAX / LINE_COST + 4 * ONEWAY_STEP];
	uint32_t max_lines = (max_records + LINE_COST - 1) / LINE_COST;
	uint32_t max_ends = max_records / 3, n = 0, n_ended = 0, n_looked = 0;
	oneway_advance(&p->oneway, p->now_s);
	do {
		uint32_t n_left = max_lines - n_looked;
		uint32_t step = n_left < ONEWAY_STEP ? n_left : ONEWAY_STEP;
		n += oneway_sweep(&p->oneway, &p->oneway_timeouts, step, words + n);
		n_looked += step;
	} while (n_looked < max_lines && n < max_ends && p->oneway.sweep_next != 0);
	bool is_over = n_looked == max_lines || p->oneway.sweep_next == 0;
	p->slice_done = is_over ? max_records : n_looked * LINE_COST;
	for (uint32_t i = 0; i < n; i++) {
		if (oneway_state(words[i]) == ONEWAY_AFFINITY)
			continue;
		struct pipeline_backend_counters *block =
			pipeline_backend_block(p, oneway_backend_id(words[i]));
		if (block)
			relaxed_add(&block->flows_ended, 1);
		n_ended++;
	}
	if (n_ended > 0)
		counters_add(p->counters, COUNTER_FLOWS_EXPIRED, n_ended);
	return n_ended;
}

static void count_expired(struct pipeline *p, const uint32_t *expired, uint32_t n)
{
	uint32_t n_closed = 0;
	if (n == 0)
		return;
	for (uint32_t i = 0; i < n; i++)
		n_closed += flow_record(&p->flows, expired[i])->state == FLOW_STATE_CLOSED;
	counters_add(p->counters, COUNTER_FLOWS_CLOSED, n_closed);
	counters_add(p->counters, COUNTER_FLOWS_EXPIRED, n - n_closed);
}

static void end_expired(struct pipeline *p, const uint32_t *expired, uint32_t n)
{
	count_expired(p, expired, n);
	for (uint32_t i = 0; i < n; i += FLOW_REMOVE_MAX)
		stage_end_flows(p, expired + i, n - i < FLOW_REMOVE_MAX ? n - i : FLOW_REMOVE_MAX);
}

static bool is_over(const struct pipeline *p, const struct flow_record *r)
{
	return r->state != FLOW_STATE_FREE && flow_is_expired(r, p->policies, p->now_s);
}

// Are those that were asked for what they were then? A record that has another flow now was used this second; its number says so too.
static bool ending_are_same(const struct pipeline *p)
{
	bool same = p->n_ending <= FLOW_REMOVE_MAX;
	for (uint32_t i = 0; i < p->n_ending; i++) {
		const struct flow_record *r = flow_record(&p->flows, p->ending[i]);
		same &= r->sequence == p->ending_sequence[i] && is_over(p, r);
	}
	return same;
}

// Flows that the last slice found expired and asked for: ended now, with their lines here, unless something happened meanwhile.
static uint32_t end_asked_for(struct pipeline *p)
{
	uint32_t n = 0, n_asked = p->n_ending;
	if (likely(ending_are_same(p))) {
		count_expired(p, p->ending, n_asked);
		end_flows(p, p->ending, n_asked, p->ending_hashes, p->ending_ports);
		p->n_ending = 0;
		return n_asked;
	}
	for (uint32_t i = 0; i < n_asked; i++)
		if (is_over(p, flow_record(&p->flows, p->ending[i])))
			p->ending[n++] = p->ending[i];
	p->n_ending = 0;
	end_expired(p, p->ending, n);
	return n;
}

// More than FLOW_REMOVE_MAX are asked for again when they end.
static void ask_for(struct pipeline *p, const uint32_t *expired, uint32_t n)
{
	for (uint32_t i = 0; i < n; i += FLOW_REMOVE_MAX)
		flow_remove_begin(&p->flows, expired + i,
			n - i < FLOW_REMOVE_MAX ? n - i : FLOW_REMOVE_MAX, p->ending_hashes);
	for (uint32_t i = 0; i < n; i++) {
		const struct flow_record *r = flow_record(&p->flows, expired[i]);
		p->ending[i] = expired[i];
		p->ending_sequence[i] = r->sequence;
		p->ending_ports[i] = ask_for_port(p, r);
	}
	p->n_ending = n;
}

// Ends no more flows than a slice has time for, at least one. Nothing is left to a later slice at the end of a pass: whoever waits
// for passes may count on all that expired being gone.
//
// The tag of a FIB comes round: what a flow was not told by a packet, it is told here, so that after a pass no flow believes
// a next hop of an older FIB (control gives indices to other neighbours after two passes).
static uint32_t sweep_flows(struct pipeline *p, uint32_t max_records)
{
	uint32_t expired[SLICE_RECORDS_MAX];
	uint32_t n_ended = end_asked_for(p);
	uint32_t first = p->flows.sweep_next, max_ends = (max_records + 6) / 7;
	uint64_t n_sweeps = p->flows.n_sweeps;
	bool may_end = flow_sweep_may_end(&p->flows, max_records);
	// What was asked for may be more than this slice has time for, if the last one was longer: then the next one goes on here.
	if (may_end)
		max_ends = n_ended < max_ends ? max_ends - n_ended : 0;
	const struct flow_slice slice = { max_records, max_ends, route_tag(p->snapshot->fib) };
	uint32_t n = flow_sweep(&p->flows, p->policies, p->now_s, &slice, expired);
	p->slice_done = max_records;
	if (p->flows.n_sweeps == n_sweeps && p->flows.sweep_next - first < max_records)
		p->slice_done = p->flows.sweep_next > first ? p->flows.sweep_next - first : 1;
	if (!may_end) {
		ask_for(p, expired, n);
		return n_ended;
	}
	end_expired(p, expired, n);
	return n_ended + n;
}

static bool has_entries(const struct oneway_table *table)
{
	return table->families[0].n_entries + table->families[1].n_entries > 0;
}

// n_sweeps of a table when it has ended a pass that begins from now on.
static uint64_t whole_pass(uint64_t n_sweeps, uint32_t sweep_next)
{
	return n_sweeps + 1 + (sweep_next != 0);
}

// Passes over a table with little in it are short and many: how many there were of one table says nothing of the other. A round
// is over when both have ended one that began in it.
static void count_round(struct pipeline *p)
{
	const struct flow_table *flows = &p->flows;
	const struct oneway_table *oneway = &p->oneway;
	if (flows->n_sweeps < p->round_until.flows || oneway->n_sweeps < p->round_until.oneway)
		return;
	p->round_until.flows = whole_pass(flows->n_sweeps, flows->sweep_next);
	p->round_until.oneway = whole_pass(oneway->n_sweeps, oneway->sweep_next);
	p->n_rounds++;
}

uint32_t pipeline_housekeep(struct pipeline *p, uint32_t max_records)
{
	uint64_t word;
	if (max_records > SLICE_RECORDS_MAX)
		max_records = SLICE_RECORDS_MAX;
	if (p->policies_generation != p->snapshot->generation)
		pipeline_refresh_policies(p);
	p->sweep_turn = (uint8_t)((p->sweep_turn + 1) % (1 + LINE_COST));
	p->oneway_turn = p->sweep_turn > 0 && has_entries(&p->oneway);
	// An empty table is a pass as well, at no cost.
	if (p->oneway.header != NULL && !has_entries(&p->oneway))
		oneway_sweep(&p->oneway, &p->oneway_timeouts, max_records > 0, &word);
	uint32_t n = p->oneway_turn ? sweep_oneway(p, max_records) : sweep_flows(p, max_records);
	count_round(p);
	return n;
}
