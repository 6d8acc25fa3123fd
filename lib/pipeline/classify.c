// SPDX-License-Identifier: BSD-3-Clause
// Hot path: no allocation, lock, log, system call.
// Whose packet is it: ours (by destination address, or by the flow an ICMP error quotes), or the kernel's.
// The rule is interfaces.md section 5; what is not ours is punted whole, even when it is odd.
#include "pipeline_priv.h"

#define PREFETCH_AHEAD 4
#define BGP_PORT       179
#define BFD_PORT       3784
#define BFD_MULTI_PORT 4784
#define OSPF_PROTOCOL  89

// Routing protocols first, then ARP and ND, then the rest.
static enum pipeline_punt_class punt_class(const struct packet *p, const struct rte_mbuf *mbuf)
{
	if (p->kind == PACKET_FLOW) {
		uint16_t src = rte_be_to_cpu_16(p->src_port), dst = rte_be_to_cpu_16(p->dst_port);
		bool routing = p->protocol == NET_PROTO_TCP
				       ? src == BGP_PORT || dst == BGP_PORT
				       : dst == BFD_PORT || dst == BFD_MULTI_PORT;
		return routing ? PIPELINE_PUNT_ROUTING : PIPELINE_PUNT_OTHER;
	}
	if (p->kind == PACKET_PROTOCOL && p->protocol == OSPF_PROTOCOL)
		return PIPELINE_PUNT_ROUTING;
	if (p->kind == PACKET_ICMP_OTHER && p->protocol == NET_PROTO_ICMPV6)
		return PIPELINE_PUNT_NEIGHBOUR;
	if (p->kind == PACKET_OTHER && rte_pktmbuf_data_len(mbuf) >= sizeof(struct eth_header)) {
		const struct eth_header *eth = rte_pktmbuf_mtod(mbuf, const struct eth_header *);
		if (eth->type == RTE_BE16(NET_ETHERTYPE_ARP))
			return PIPELINE_PUNT_NEIGHBOUR;
	}
	return PIPELINE_PUNT_OTHER;
}

// ND (router and neighbour messages, redirect) may be addressed to a VIP; the kernel answers it.
static bool is_neighbour_discovery(const struct packet *packet, const struct rte_mbuf *mbuf)
{
	if (packet->protocol != NET_PROTO_ICMPV6)
		return false;
	uint8_t type = *rte_pktmbuf_mtod_offset(mbuf, const uint8_t *, packet->l4_offset);
	return type >= 130 && type <= 143;
}

// Packets to one of our addresses that need no flow. True: it has its verdict.
static bool classify_odd(struct pipeline *p, struct burst *b, uint32_t i, uint8_t kind)
{
	const struct packet *packet = &b->packets[i];
	switch (packet->kind) {
	case PACKET_FLOW:
		return false;
	case PACKET_BAD:
		stage_drop(p, b, i, packet->reason);
		return true;
	case PACKET_FRAGMENT:
		// We send nothing but TCP, UDP and SCTP from a source address; it may be the host's too.
		if (kind == SNAPSHOT_OWN_SNAT)
			stage_punt(b, i, PIPELINE_PUNT_OTHER);
		else
			stage_drop(p, b, i, DROP_FRAGMENT);
		return true;
	case PACKET_ECHO:
		if (kind == SNAPSHOT_OWN_VIP)
			stage_answer_echo(p, b, i);
		else
			stage_punt(b, i, PIPELINE_PUNT_OTHER);
		return true;
	case PACKET_ICMP_OTHER:
		if (kind != SNAPSHOT_OWN_VIP || is_neighbour_discovery(packet, b->mbufs[i]))
			stage_punt(b, i, punt_class(packet, b->mbufs[i]));
		else
			stage_drop(p, b, i, DROP_ICMP_TYPE);
		return true;
	default:
		if (kind == SNAPSHOT_OWN_VIP)
			stage_drop(p, b, i, DROP_PROTOCOL);
		else
			stage_punt(b, i, PIPELINE_PUNT_OTHER);
		return true;
	}
}

// A packet that is not addressed to us.
static void classify_foreign(struct pipeline *p, struct burst *b, uint32_t i)
{
	const struct packet *packet = &b->packets[i];
	if (packet->kind == PACKET_BAD &&
		(packet->reason == DROP_NOT_OUR_MAC || !packet->have_addresses))
		stage_drop(p, b, i, packet->reason);
	else
		stage_punt(b, i, punt_class(packet, b->mbufs[i]));
}

// Replies to a SNAT address: only ports of the range are ours, and only of this worker. True: verdict set.
static bool classify_snat(struct pipeline *p, struct burst *b, uint32_t i)
{
	uint16_t port = rte_be_to_cpu_16(b->packets[i].dst_port);
	if (port < p->snat_port_min || port > p->snat_port_max) {
		stage_punt(b, i, punt_class(&b->packets[i], b->mbufs[i]));
		return true;
	}
	if (p->n_workers == 1)
		return false; // no division
	uint16_t owner = snat_owner(port, p->n_workers);
	if (owner == p->worker_idx)
		return false;
	b->verdict[i] = PIPELINE_RESTEER;
	b->out_port[i] = (uint8_t)owner;
	return true;
}

// A packet to an address that is not ours may be a dnat backend's answer: then `key` is that of its flow's second side.
static bool classify_dnat_answer(
	struct pipeline *p, struct burst *b, uint32_t i, struct flow_key *key)
{
	const struct packet *packet = &b->packets[i];
	if (packet->kind != PACKET_FLOW)
		return false;
	const struct snapshot_address_cell *from = snapshot_find_cell(p->snapshot, &packet->src);
	if (from->kind != SNAPSHOT_OWN_BACKEND)
		return false;
	b->side[i] = FLOW_SIDE_BACKEND;
	b->may_be_foreign[i] = true;
	*key = flow_key_make(
		&packet->dst, packet->dst_port, packet->src_port, from->slot, packet->protocol);
	return true;
}

enum destiny { SETTLED, NAT, ONEWAY, FRAGMENT }; // where a packet goes next

// A VIP of both kinds: its listener knows.
static __rte_noinline enum destiny classify_mixed(
	const struct pipeline *p, const struct packet *packet, uint16_t slot)
{
	const struct snapshot_listener *l = snapshot_find_listener(
		p->snapshot, slot, packet->protocol, rte_be_to_cpu_16(packet->dst_port));
	return l != NULL && snapshot_mode_is_oneway(l->mode) ? ONEWAY : NAT;
}

// A packet with ports to an address of ours. NAT and ONEWAY: it needs that table; `key` is filled.
static inline enum destiny classify_own(struct pipeline *p, struct burst *b, uint32_t i,
	const struct snapshot_address_cell *cell, struct flow_key *key)
{
	const struct packet *packet = &b->packets[i];
	bool is_snat = cell->kind == SNAPSHOT_OWN_SNAT;
	b->side[i] = is_snat ? FLOW_SIDE_BACKEND : FLOW_SIDE_CLIENT;
	if (is_snat && classify_snat(p, b, i))
		return SETTLED;
	*key = flow_key_make(
		&packet->src, packet->src_port, packet->dst_port, cell->slot, packet->protocol);
	if (likely(!(cell->tables & SNAPSHOT_TABLE_ONEWAY)))
		return NAT;
	return cell->tables & SNAPSHOT_TABLE_NAT ? classify_mixed(p, packet, cell->slot) : ONEWAY;
}

// Of whom a later fragment of IPv6 is, its own header does not say (RFC 8200 4.5).
static bool fragment_may_be_ours(const struct packet *packet)
{
	return packet->protocol == NET_PROTO_TCP || packet->protocol == NET_PROTO_UDP ||
	       packet->protocol == NET_PROTO_SCTP ||
	       (packet->is_v6 && packet_fragment_offset(packet) > 0);
}

static enum destiny classify_foreign_or_dnat(
	struct pipeline *p, struct burst *b, uint32_t i, struct flow_key *key)
{
	const struct packet *packet = &b->packets[i];
	if (packet->have_addresses && packet->reason != DROP_NOT_OUR_MAC) {
		if (classify_dnat_answer(p, b, i, key))
			return NAT;
		if (packet->kind == PACKET_FRAGMENT && fragment_may_be_ours(packet) &&
			snapshot_find_cell(p->snapshot, &packet->src)->kind == SNAPSHOT_OWN_BACKEND)
			return FRAGMENT;
	}
	classify_foreign(p, b, i);
	return SETTLED;
}

static inline enum destiny classify_one(
	struct pipeline *p, struct burst *b, uint32_t i, struct flow_key *key)
{
	static const struct snapshot_address_cell nobody = { .slot = SNAPSHOT_SLOT_NONE };
	const struct packet *packet = &b->packets[i];
	const struct snapshot_address_cell *cell = &nobody;
	if (unlikely(packet->kind == PACKET_ICMP_ERROR)) {
		stage_icmp_error(p, b, i);
		return SETTLED;
	}
	if (likely(packet->have_addresses) && packet->reason != DROP_NOT_OUR_MAC)
		cell = snapshot_find_cell(p->snapshot, &packet->dst);
	if (unlikely(cell->kind == SNAPSHOT_OWN_NONE || cell->kind == SNAPSHOT_OWN_BACKEND))
		return classify_foreign_or_dnat(p, b, i, key);
	if (unlikely(packet->kind != PACKET_FLOW)) {
		if (packet->kind == PACKET_FRAGMENT && fragment_may_be_ours(packet))
			return FRAGMENT;
		if (classify_odd(p, b, i, cell->kind))
			return SETTLED;
	}
	return classify_own(p, b, i, cell, key);
}

// Apart from the loop below: what a parse has just written, in pieces, is read back there in words, and by then the pieces
// are in the cache. Together in one loop every packet would wait for its own stores. With many own addresses their cells are
// cold: asked for here, too. out_cells: where the search for each destination begins.
static void parse_all(struct pipeline *p, struct burst *b, uint32_t *out_cells)
{
	const struct snapshot *s = p->snapshot;
	uint64_t mac_mask = p->check_mac ? UINT64_MAX : 0;
	for (uint32_t i = 0; i < b->n; i++) {
		if (i + PREFETCH_AHEAD < b->n)
			__builtin_prefetch(
				rte_pktmbuf_mtod(b->mbufs[i + PREFETCH_AHEAD], void *), 1);
		const struct pipeline_port *port = &p->ports[b->in_port[i]];
		struct packet *packet = &b->packets[i];
		if (unlikely(!packet_parse_plain(
			    b->mbufs[i], port_mac_word(port), mac_mask, packet)))
			packet_parse(b->mbufs[i], p->check_mac ? &port->mac : NULL, packet);
		out_cells[i] = snapshot_address_hash(&packet->dst) & s->address_mask;
		__builtin_prefetch(&s->address_cells[out_cells[i]], 0, 3);
	}
}

// Where keys of a burst go.
struct lists {
	struct nat_pending *nat;
	struct pending *oneway;
};
// ... and how many have gone there: in registers as long as a burst takes.
struct counts {
	uint32_t first;   // of the packets that are looked at
	uint32_t n_named; // replies
	uint32_t n_oneway;
	uint32_t n_odd; // for neither table
	uint64_t odd;   // a bit each
};

// Place of the next key for the flow table, which packet i takes: counted are those that take none there, which are few. No branch:
// who comes next, a client or a backend, cannot be foreseen.
static inline struct flow_key *list_nat(
	const struct lists *lists, struct counts *c, uint32_t i, uint32_t is_reply)
{
	uint32_t back = BURST_MAX - 1 - c->n_named;
	uint32_t front = i - c->first - c->n_odd - c->n_oneway - c->n_named;
	uint32_t mask = 0 - is_reply;
	OPAQUE(mask); // or the compiler branches
	uint32_t place = front ^ ((front ^ back) & mask);
	c->n_named += is_reply;
	lists->nat->at[place] = (uint8_t)i;
	return &lists->nat->search.keys[place];
}

static inline void list(const struct burst *b, uint32_t i, enum destiny to,
	const struct flow_key *key, const struct lists *lists, struct counts *c)
{
	if (likely(to == NAT)) {
		*list_nat(lists, c, i, stage_is_reply(b, i)) = *key;
	} else if (to == ONEWAY) {
		lists->oneway->keys[c->n_oneway] = *key;
		lists->oneway->at[c->n_oneway++] = (uint8_t)i;
	} else {
		c->n_odd++;
		c->odd |= 1ull << i;
	}
}

// n: packets that were looked at.
static inline void list_end(const struct lists *lists, const struct counts *c, uint32_t n)
{
	struct nat_pending *nat = lists->nat;
	uint64_t others = c->odd;
	nat->search.n_named = c->n_named;
	nat->search.n = n - c->n_odd - c->n_oneway - c->n_named;
	lists->oneway->n = c->n_oneway;
	nat->packets = 0;
	if (n == c->n_odd + c->n_oneway)
		return;
	for (uint32_t k = 0; k < c->n_oneway; k++)
		others |= 1ull << lists->oneway->at[k];
	nat->packets = (UINT64_MAX >> (BURST_MAX - n) << c->first) & ~others;
}

// What is asked of every packet of a burst, and does not change meanwhile.
struct port_range {
	uint16_t min;
	uint16_t max;
	uint16_t worker_idx;
	uint16_t n_workers;
	uint64_t reciprocal;
};

// Is the packet to a source address, but to a port that is the kernel's? The range is asked of every packet, so that no branch
// depends on who sent it: clients' and backends' packets come in no order that can be foreseen. side: enum flow_side.
static inline uint32_t is_beyond_range(
	const struct port_range *range, const struct packet *packet, uint32_t side)
{
	uint16_t port = rte_be_to_cpu_16(packet->dst_port);
	return ((port < range->min) | (port > range->max)) & side;
}

// A reply to another worker's port goes there; no branch here either. Says so: 0 or 1.
static inline uint32_t moves_on(
	struct burst *b, uint32_t i, const struct port_range *range, uint32_t side)
{
	uint16_t port = rte_be_to_cpu_16(b->packets[i].dst_port);
	uint32_t owner = snat_owner_by(port, range->n_workers, range->reciprocal);
	uint32_t moves = (owner != range->worker_idx) & side;
	b->verdict[i] = (uint8_t)(PIPELINE_DROP + moves);
	b->out_port[i] = (uint8_t)owner;
	return moves;
}
_Static_assert(PIPELINE_RESTEER == PIPELINE_DROP + 1, "what moves_on says, or what stood there");

// The last reply that was listed is for neither table, if it moves: its place is the next one's.
static inline void list_no_more(struct counts *c, uint32_t i, uint32_t moves)
{
	c->n_named -= moves;
	c->n_odd += moves;
	c->odd |= (uint64_t)moves << i;
}

// What nearly every packet is: with ports, to an address all of whose listeners want one table, or an answer to a source port: this
// worker's, or it moves. False: nothing done. The key is stored where it belongs, in the words in which it will be read.
static __rte_always_inline bool classify_plain(struct burst *b, uint32_t i,
	const struct snapshot_address_cell *cell, const struct port_range *range,
	const struct lists *lists, struct counts *c)
{
	const struct packet *packet = &b->packets[i];
	uint32_t side = (uint32_t)cell->kind - SNAPSHOT_OWN_VIP, ports;
	if (unlikely(packet->kind != PACKET_FLOW || !address_equal(&cell->address, &packet->dst) ||
		     side > 1))
		return false;
	memcpy(&ports, (const char *)packet + offsetof(struct packet, src_port), sizeof(ports));
	struct flow_key *key;
	if (cell->tables & SNAPSHOT_TABLE_ONEWAY) { // a VIP, if that is all
		if (unlikely((cell->tables & SNAPSHOT_TABLE_NAT) | side))
			return false;
		lists->oneway->at[c->n_oneway] = (uint8_t)i;
		key = &lists->oneway->keys[c->n_oneway++];
	} else {
		if (unlikely(is_beyond_range(range, packet, side)))
			return false;
		key = list_nat(lists, c, i, side);
		if (range->n_workers > 1)
			list_no_more(c, i, moves_on(b, i, range, side));
	}
	b->side[i] = (uint8_t)side;
	flow_key_write(key, &packet->src, ports, cell->slot, packet->protocol);
	return true;
}
_Static_assert(SNAPSHOT_OWN_SNAT - SNAPSHOT_OWN_VIP == FLOW_SIDE_BACKEND - FLOW_SIDE_CLIENT &&
		       FLOW_SIDE_CLIENT == 0 && FLOW_SIDE_BACKEND == 1,
	"from what a packet is addressed to follows who sent it");

uint64_t stage_classify(
	struct pipeline *p, struct burst *b, struct nat_pending *nat, struct pending *oneway)
{
	uint32_t cells[BURST_MAX];
	uint64_t fragments = 0;
	const struct lists lists = { nat, oneway };
	const struct port_range range = { p->snat_port_min, p->snat_port_max, p->worker_idx,
		p->n_workers, snat_reciprocal(p->n_workers) };
	const struct snapshot_address_cell *all = p->snapshot->address_cells;
	struct counts counts = { 0 };
	parse_all(p, b, cells);
	for (uint32_t i = 0; i < b->n; i++) {
		const struct snapshot_address_cell *cell = &all[cells[i]];
		if (likely(classify_plain(b, i, cell, &range, &lists, &counts)))
			continue;
		struct flow_key key;
		enum destiny to = classify_one(p, b, i, &key);
		if (unlikely(to == FRAGMENT))
			fragments |= 1ull << i;
		list(b, i, to, &key, &lists, &counts);
	}
	list_end(&lists, &counts, b->n);
	return fragments;
}

void stage_classify_tuple(struct pipeline *p, struct burst *b, uint32_t i, struct nat_pending *nat,
	struct pending *oneway)
{
	const struct lists lists = { nat, oneway };
	struct counts counts = { .first = i };
	struct packet *packet = &b->packets[i];
	const struct snapshot_address_cell *cell = snapshot_find_cell(p->snapshot, &packet->dst);
	struct flow_key key;
	uint8_t kind = packet->kind;
	enum destiny to = SETTLED;
	if (cell->kind == SNAPSHOT_OWN_VIP || cell->kind == SNAPSHOT_OWN_SNAT) {
		to = classify_own(p, b, i, cell, &key);
	} else {
		packet->kind = PACKET_FLOW; // as classify_dnat_answer wants it
		if (classify_dnat_answer(p, b, i, &key))
			to = NAT;
		else
			stage_punt(b, i, PIPELINE_PUNT_OTHER);
		packet->kind = kind;
	}
	list(b, i, to, &key, &lists, &counts);
	list_end(&lists, &counts, 1);
}
