// SPDX-License-Identifier: BSD-3-Clause
// Hot path: no allocation, lock, log, system call.
// Packets whose next hop has no MAC yet: held by neighbour, at most 32 each and 1024 in all, for at most a second.
// Control is asked for a neighbour when its first packet comes and every 100 ms while packets wait.
// A packet leaves when the neighbour's entry becomes valid (one word, looked at every turn), or, where there was no entry yet,
// when a new snapshot brings routes with one.
//
// Order: a packet whose next hop is known follows those that are held for it. The pipeline may find an entry valid that was not
// yet when the held ones were looked at, a moment ago or, with more hops than a turn looks at, some turns ago: wait_behind.
// Where nothing waits that is one compare per packet, where something waits a bit of 64 by the entry's index.
//
// Neighbours are searched by 32-bit tags side by side: at most 1024 compares, four lines a hundred, and only for packets
// that cannot go on anyway.
#include "dataplane_priv.h"

#define HOPS_PER_TURN 64

void wait_init(struct wait_list *list)
{
	list->n_packets = 0;
	list->n_hops = 0;
	list->nexthops = 0;
	list->turn = 0;
	list->snapshot = NULL;
	for (uint32_t i = 0; i < WAIT_PACKETS; i++)
		list->packets[i].next = (uint16_t)(i + 1 < WAIT_PACKETS ? i + 1 : WAIT_END);
	list->free = 0;
}

static uint32_t hop_tag(const struct address *want, uint8_t port_idx)
{
	return (uint32_t)hash_fold(want->halves[0] ^ 0x9e3779b97f4a7c15ull ^ port_idx,
		want->halves[1] ^ 0xd6e8feb86659fd93ull);
}

static uint64_t nexthop_bit(uint16_t nexthop)
{
	return 1ull << nexthop % 64;
}

static struct wait_hop *find_hop(
	struct wait_list *list, uint32_t tag, const struct address *want, uint8_t port_idx)
{
	for (uint32_t i = 0; i < list->n_hops; i++) {
		struct wait_hop *hop = &list->hops[i];
		if (list->tags[i] == tag && hop->port_idx == port_idx &&
			address_equal(&hop->want, want))
			return hop;
	}
	return NULL;
}

static void ask_control(struct worker *w, struct wait_hop *hop)
{
	uint64_t now_ns = w->pipeline.now_ns;
	if (hop->asked_ns != 0 && now_ns - hop->asked_ns < WAIT_ASK_NS)
		return;
	struct dataplane_wanted wanted = { .address = hop->want, .port_idx = hop->port_idx };
	if (rte_ring_sp_enqueue_elem(w->wanted, &wanted, sizeof(wanted)) != 0)
		return; // asked again at the next packet or turn
	hop->asked_ns = now_ns;
	w->posted = true;
}

static struct wait_hop *make_hop(
	struct wait_list *list, const struct burst *b, uint32_t i, uint32_t tag)
{
	struct wait_hop *hop = &list->hops[list->n_hops]; // never more hops than packets
	list->tags[list->n_hops++] = tag;
	hop->want = b->want[i];
	hop->asked_ns = 0;
	hop->nexthop = b->nexthop[i];
	hop->first = WAIT_END;
	hop->last = WAIT_END;
	hop->n = 0;
	hop->port_idx = b->out_port[i];
	return hop;
}

static void refuse(struct worker *w, struct rte_mbuf *mbuf, enum drop_reason reason)
{
	worker_drop(w, reason, 1);
	rte_pktmbuf_free(mbuf);
}

void wait_hold(struct worker *w, struct burst *b, uint32_t i)
{
	struct wait_list *list = &w->waiting;
	if (list->free == WAIT_END) {
		refuse(w, b->mbufs[i], DROP_NEXTHOP_QUEUE_FULL);
		return;
	}
	uint32_t tag = hop_tag(&b->want[i], b->out_port[i]);
	struct wait_hop *hop = find_hop(list, tag, &b->want[i], b->out_port[i]);
	if (hop == NULL)
		hop = make_hop(list, b, i, tag);
	if (b->nexthop[i] < NEXTHOP_MISSING)
		hop->nexthop = b->nexthop[i];
	list->nexthops |= nexthop_bit(hop->nexthop);
	ask_control(w, hop);
	if (hop->n >= WAIT_PER_HOP) {
		refuse(w, b->mbufs[i], DROP_NEXTHOP_QUEUE_FULL);
		return;
	}
	uint16_t at = list->free;
	struct wait_packet *packet = &list->packets[at];
	list->free = packet->next;
	*packet = (struct wait_packet){
		.mbuf = b->mbufs[i], .until_ns = w->pipeline.now_ns + WAIT_NS, .next = WAIT_END
	};
	if (hop->last == WAIT_END)
		hop->first = at;
	else
		list->packets[hop->last].next = at;
	hop->last = at;
	hop->n++;
	list->n_packets++;
	counters_add(&w->counters, COUNTER_NEXTHOP_QUEUED, 1);
}

static struct rte_mbuf *take_first(struct wait_list *list, struct wait_hop *hop)
{
	uint16_t at = hop->first;
	struct wait_packet *packet = &list->packets[at];
	struct rte_mbuf *mbuf = packet->mbuf;
	hop->first = packet->next;
	if (hop->first == WAIT_END)
		hop->last = WAIT_END;
	hop->n--;
	packet->next = list->free;
	list->free = at;
	list->n_packets--;
	return mbuf;
}

static void remove_hop(struct wait_list *list, uint32_t idx)
{
	uint32_t last = --list->n_hops;
	list->hops[idx] = list->hops[last];
	list->tags[idx] = list->tags[last];
}

// All that the pipeline could not write: the neighbour's MAC, and ours of the port that the entry names.
static void send_all(struct worker *w, struct wait_hop *hop, uint64_t word)
{
	uint8_t port_idx = nexthop_word_port(word);
	while (hop->n > 0) {
		struct rte_mbuf *mbuf = take_first(&w->waiting, hop);
		if (unlikely(port_idx >= w->dp->n_ports)) {
			refuse(w, mbuf, DROP_NO_ROUTE);
			continue;
		}
		struct eth_header *eth = rte_pktmbuf_mtod(mbuf, struct eth_header *);
		eth->dst = nexthop_word_mac(word);
		eth->src = w->pipeline.ports[port_idx].mac;
		transmit_add(w, port_idx, mbuf);
	}
}

// Sends what waits for a hop whose entry is valid. True when nothing waits for it any more.
static bool flush_hop(struct worker *w, struct wait_hop *hop)
{
	if (hop->nexthop < w->pipeline.nexthops.n_entries) {
		uint64_t word = nexthop_load(&w->pipeline.nexthops, hop->nexthop);
		if (nexthop_word_state(word) == NEXTHOP_VALID)
			send_all(w, hop, word);
	}
	return hop->n == 0;
}

// True when nothing waits for this hop any more.
static bool look_at_hop(struct worker *w, struct wait_hop *hop)
{
	struct wait_list *list = &w->waiting;
	uint64_t now_ns = w->pipeline.now_ns;
	flush_hop(w, hop);
	while (hop->n > 0 && now_ns >= list->packets[hop->first].until_ns)
		refuse(w, take_first(list, hop), DROP_NEXTHOP_UNRESOLVED);
	if (hop->n == 0)
		return true;
	ask_control(w, hop);
	return false;
}

bool wait_behind(struct worker *w, struct burst *b, uint32_t i)
{
	struct wait_list *list = &w->waiting;
	if (likely(!(list->nexthops & nexthop_bit(b->nexthop[i]))))
		return false;
	for (uint32_t k = 0; k < list->n_hops;) {
		struct wait_hop *hop = &list->hops[k];
		if (hop->nexthop != b->nexthop[i]) {
			k++;
			continue;
		}
		if (flush_hop(w, hop)) {
			remove_hop(list, k); // another one took its place
			continue;
		}
		b->want[i] = hop->want;
		b->out_port[i] = hop->port_idx;
		wait_hold(w, b, i);
		return true;
	}
	return false;
}

static bool is_entry_of(const struct worker *w, uint16_t nexthop, const struct address *want)
{
	const struct nexthop_table *table = &w->pipeline.nexthops;
	return nexthop < table->n_entries && address_equal(&table->entries[nexthop].address, want);
}

// New routes: what was missing may have an entry now. An entry that is still this neighbour's stays, also when no
// route of its own leads to it (gateways).
static void resolve_all(struct worker *w)
{
	struct wait_list *list = &w->waiting;
	list->snapshot = w->pipeline.snapshot;
	for (uint32_t i = 0; i < list->n_hops; i++) {
		struct wait_hop *hop = &list->hops[i];
		uint16_t found = nexthop_find(w->pipeline.snapshot->fib, &hop->want).nexthop;
		if (is_entry_of(w, found, &hop->want) || !is_entry_of(w, hop->nexthop, &hop->want))
			hop->nexthop = found;
		list->nexthops |= nexthop_bit(hop->nexthop);
	}
}

static void note_nexthops(struct wait_list *list)
{
	list->nexthops = 0;
	for (uint32_t i = 0; i < list->n_hops; i++)
		list->nexthops |= nexthop_bit(list->hops[i].nexthop);
}

void wait_turn(struct worker *w)
{
	struct wait_list *list = &w->waiting;
	if (list->snapshot != w->pipeline.snapshot)
		resolve_all(w);
	uint32_t n_before = list->n_hops;
	uint32_t n = n_before < HOPS_PER_TURN ? n_before : HOPS_PER_TURN;
	for (; n > 0; n--) {
		if (list->turn >= list->n_hops)
			list->turn = 0;
		if (look_at_hop(w, &list->hops[list->turn]))
			remove_hop(list, list->turn); // the last one took its place
		else
			list->turn++;
	}
	if (list->n_hops < n_before)
		note_nexthops(list);
}

struct rte_mbuf *wait_take(struct wait_list *list)
{
	while (list->n_hops > 0) {
		struct wait_hop *hop = &list->hops[list->n_hops - 1];
		if (hop->n > 0)
			return take_first(list, hop);
		list->n_hops--;
	}
	return NULL;
}
