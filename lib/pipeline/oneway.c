// SPDX-License-Identifier: BSD-3-Clause
// Hot path: no allocation, lock, log, system call.
// The one-way modes (ipip, gue, l2dsr): the client's packet goes to a backend as it is, in a tunnel or with another MAC,
// and the backend answers the client itself. Loops as in pipeline.c, over the packets that are for such a listener:
//
//   1 look up   entry lines (lib/flow/oneway.h): backend and state are in them
//   2 fetch     the backend's two lines: its row in the snapshot, this worker's block of counters and way
//   3 decide    state and stamp; or listener, source range, pick, entry
//   4 send      headers in front
//
// An entry only pins what the hash said when the flow began, against later changes of the backends. So a flow for which the
// table has no room (it never takes a live one's) goes by the hash, packet by packet, and so does one that began elsewhere:
// there is nothing to refuse.
#include "pipeline_priv.h"

// Row and block of every known backend are asked for before the first is read.
static void fetch_backends(const struct pipeline *p, const uint32_t *refs, uint32_t n)
{
	for (uint32_t k = 0; k < n; k++) {
		if (unlikely(refs[k] == ONEWAY_NONE))
			continue;
		uint32_t id = oneway_backend_id(oneway_word(&p->oneway, refs[k]));
		if (unlikely(id >= p->snapshot->n_backends || id >= p->n_backend_counters))
			continue;
		__builtin_prefetch(&p->snapshot->backends[id], 0, 3);
		__builtin_prefetch(&p->backend_counters[id], 1, 3);
		__asm__ volatile(
			""); // or the compiler drops it, as flow_prefetch_line (lib/flow/flow.h) says
	}
}

// ---------------------------------------------------------------- decide

static void count_ended(struct pipeline *p, uint64_t word)
{
	struct pipeline_backend_counters *block =
		oneway_state(word) == ONEWAY_AFFINITY
			? NULL
			: pipeline_backend_block(p, oneway_backend_id(word));
	if (block)
		relaxed_add(&block->flows_ended, 1);
}

static void end_entry(struct pipeline *p, uint32_t ref)
{
	count_ended(p, oneway_word(&p->oneway, ref));
	oneway_remove(&p->oneway, ref);
}

// Should the packet leave its entry and be treated as the first of a flow? As flow_gives_way, from one side.
static bool entry_gives_way(const struct pipeline *p, uint64_t word, const struct packet *packet)
{
	const struct snapshot_backend *backend = pipeline_backend(p, oneway_backend_id(word));
	enum oneway_state state = oneway_state(word);
	if (oneway_is_expired(&p->oneway, word, &p->oneway_timeouts))
		return true;
	bool listed = backend != NULL && (backend->flags & SNAPSHOT_BACKEND_LISTED);
	bool oneway = backend != NULL && snapshot_mode_is_oneway(backend->mode);
	if (!oneway || (!listed && packet->protocol == NET_PROTO_UDP))
		return true;
	if ((packet->tcp_flags & (TCP_SYN | TCP_ACK)) != TCP_SYN)
		return false;
	return oneway_is_restart(state, oneway_next(state, packet->protocol, packet->tcp_flags)) ||
	       (state == ONEWAY_EMBRYONIC && !(backend->flags & SNAPSHOT_BACKEND_ELIGIBLE));
}

// The packet's fate by its entry. False: the entry is gone.
static bool follow_entry(struct pipeline *p, struct burst *b, uint32_t i, uint32_t ref)
{
	const struct packet *packet = &b->packets[i];
	uint64_t word = oneway_word(&p->oneway, ref);
	uint32_t id = oneway_backend_id(word);
	if (unlikely(entry_gives_way(p, word, packet))) {
		end_entry(p, ref);
		return false;
	}
	const struct snapshot_backend *backend = &p->snapshot->backends[id];
	b->backend_id[i] = id;
	b->listener_idx[i] = backend->listener_idx;
	if (unlikely(backend->flags & SNAPSHOT_BACKEND_RESET)) {
		counters_add(p->counters, COUNTER_FLOWS_CLOSED, 1);
		end_entry(p, ref);
		stage_refuse(p, b, i, DROP_NO_FLOW);
		return true;
	}
	enum oneway_state state = oneway_state(word);
	enum oneway_state next = oneway_next(state, packet->protocol, packet->tcp_flags);
	if (next != state)
		oneway_set(&p->oneway, ref, id, next, &p->oneway_timeouts);
	else
		oneway_touch(&p->oneway, ref);
	b->verdict[i] = PIPELINE_FORWARD;
	return true;
}

// A new entry; which may have to do without room. Returns whether there is one.
static bool add_entry(struct pipeline *p, const struct flow_key *key, uint64_t hash,
	uint32_t backend_id, enum oneway_state state)
{
	struct oneway_entry entry = { .key = *key, .backend_id = backend_id, .state = state };
	uint64_t evicted = 0;
	if (backend_id >= ONEWAY_BACKENDS_MAX)
		return false;
	uint32_t ref = oneway_add(&p->oneway, hash, &entry, &p->oneway_timeouts, &evicted);
	if (evicted != 0) {
		count_ended(p, evicted);
		counters_add(p->counters, COUNTER_FLOWS_EVICTED, 1);
	}
	return ref != ONEWAY_NONE;
}

bool stage_remember(struct pipeline *p, const struct flow_key *key, uint32_t backend_id)
{
	uint64_t hash = flow_key_hash(&p->oneway.schedule, key);
	uint32_t ref = oneway_lookup(&p->oneway, key);
	if (ref != ONEWAY_NONE) {
		oneway_set(&p->oneway, ref, backend_id, ONEWAY_AFFINITY, &p->oneway_timeouts);
		return true;
	}
	return add_entry(p, key, hash, backend_id, ONEWAY_AFFINITY);
}

static void open_entry(
	struct pipeline *p, struct burst *b, uint32_t i, const struct flow_key *key, uint64_t hash)
{
	const struct packet *packet = &b->packets[i];
	if (unlikely(packet->kind == PACKET_FRAGMENT) && stage_walk_first(p, b, i))
		return;
	const struct snapshot_listener *l = stage_admit(p, b, i);
	if (l == NULL || (l->by_client && stage_to_owner(p, b, i, &packet->src)))
		return;
	bool starts = packet->protocol == NET_PROTO_UDP ||
		      (packet->tcp_flags & (TCP_SYN | TCP_ACK | TCP_RST)) == TCP_SYN;
	struct snapshot_pick pick = stage_pick(p, l, packet);
	if (pick.backend_id == SNAPSHOT_BACKEND_NONE) {
		stage_refuse(p, b, i, DROP_NO_BACKEND);
		return;
	}
	// What is not the hash's own answer holds only for flows that the table remembers.
	bool by_hash = pick.step < SNAPSHOT_PICK_LIGHTER;
	if (!by_hash && !starts && pick.step == SNAPSHOT_PICK_LIGHTER)
		pick = stage_pick_by_hash(p, l, packet);
	enum oneway_state first = oneway_next(ONEWAY_FREE, packet->protocol, packet->tcp_flags);
	if (!(packet->tcp_flags & TCP_RST)) {
		if (add_entry(p, key, hash, pick.backend_id, first)) {
			struct pipeline_backend_counters *block =
				pipeline_backend_block(p, pick.backend_id);
			counters_add(p->counters, COUNTER_FLOWS_CREATED, 1);
			if (block)
				relaxed_add(&block->flows_created, 1);
		} else {
			counters_add(p->counters, COUNTER_FLOWS_UNTRACKED, 1);
			if (pick.step == SNAPSHOT_PICK_LIGHTER)
				pick = stage_pick_by_hash(p, l, packet);
		}
	}
	stage_picked(p, l, packet, pick.backend_id);
	b->backend_id[i] = pick.backend_id;
	b->verdict[i] = PIPELINE_FORWARD;
}

// ---------------------------------------------------------------- send

// Way to a backend, found once as long as it stays so.
static enum drop_reason backend_way(
	struct pipeline *p, uint32_t backend_id, const struct address *address, struct way *out)
{
	struct pipeline_backend_counters *block = pipeline_backend_block(p, backend_id);
	if (unlikely(block == NULL))
		return way_find(p, pipeline_route(p, address), address, out);
	return way_find(p, pipeline_backend_route(p, block, address), address, out);
}

// l2dsr reaches only stations on the link; a tunnel needs a source of the backend's family.
static enum drop_reason mode_refuses(
	const struct pipeline *p, const struct snapshot_backend *backend, const struct way *way)
{
	if (backend->mode == SNAPSHOT_L2DSR) {
		bool on_link = way->nexthop >= p->nexthops.n_entries ||
			       address_equal(&p->nexthops.entries[way->nexthop].address,
				       &backend->address);
		return on_link ? DROP_NONE : DROP_L2DSR_NOT_ON_LINK;
	}
	bool is_v6 = !address_is_v4(&backend->address);
	return address_is_unspecified(&p->snapshot->tunnel_source[is_v6]) ? DROP_NO_SNAT_ADDRESS
									  : DROP_NONE;
}

static inline bool prepend(struct pipeline *p, struct burst *b, uint32_t i,
	const struct snapshot_backend *backend, const struct packet_outer *outer)
{
	const struct packet *packet = &b->packets[i];
	if (backend->mode == SNAPSHOT_L2DSR) {
		packet_rewrite_l2dsr(b->mbufs[i], &outer->macs);
		return true;
	}
	struct packet_tunnel tunnel;
	bool is_gue = backend->mode == SNAPSHOT_GUE;
	bool is_v6 = !address_is_v4(&backend->address);
	packet_tunnel_init(&tunnel, is_gue ? PACKET_TUNNEL_GUE : PACKET_TUNNEL_IPIP,
		&p->snapshot->tunnel_source[is_v6], &backend->address);
	return is_gue ? packet_rewrite_gue(b->mbufs[i], packet, &tunnel, outer)
		      : packet_rewrite_ipip(b->mbufs[i], packet, &tunnel, outer);
}

void stage_send_oneway(struct pipeline *p, struct burst *b, uint32_t i, uint64_t hash)
{
	uint32_t id = b->backend_id[i];
	const struct snapshot_backend *backend = &p->snapshot->backends[id];
	const struct packet *packet = &b->packets[i];
	struct way way = { 0 };
	enum drop_reason refused = backend_way(p, id, &backend->address, &way);
	if (likely(refused == DROP_NONE))
		refused = mode_refuses(p, backend, &way);
	if (unlikely(refused != DROP_NONE)) {
		stage_drop(p, b, i, refused);
		return;
	}
	const struct pipeline_port *port = &p->ports[way.port];
	uint16_t overhead = 0;
	if (backend->mode != SNAPSHOT_L2DSR)
		overhead = packet_tunnel_overhead(
			backend->mode == SNAPSHOT_GUE ? PACKET_TUNNEL_GUE : PACKET_TUNNEL_IPIP,
			!address_is_v4(&backend->address));
	if (unlikely((uint32_t)packet->l3_length + overhead > port->mtu)) {
		stage_refuse_size(p, b, i, (uint16_t)(port->mtu - overhead));
		return;
	}
	struct packet_outer outer = {
		.macs = packet_macs_make(&way.mac, &port->mac),
		.id = p->tunnel_id++,
		.entropy = (uint16_t)hash,
	};
	struct pipeline_backend_counters *block = pipeline_backend_block(p, id);
	if (block != NULL)
		block->ready_mode = (uint8_t)(backend->mode + 1);
	uint16_t n_bytes = packet->l3_length;
	if (unlikely(!prepend(p, b, i, backend, &outer))) {
		stage_drop(p, b, i, DROP_NO_HEADROOM);
		return;
	}
	if (likely(block != NULL)) {
		relaxed_add(&block->packets_in, 1);
		relaxed_add(&block->bytes_in, n_bytes);
	}
	stage_leave(b, i, &way);
}

// ---------------------------------------------------------------- the plain packet

// What is the same for all packets of a burst.
struct burst_facts {
	const struct snapshot_backend *backends;
	uint32_t n_backends; // with a row and a block of counters
	uint32_t generation;
	uint32_t steady_fine; // oneway_steady of entries that go on as they are
	uint32_t steady_coarse;
	uint64_t n_nexthops;
	rte_be32_t source_v4;
};

// Does the entry's flow go on as it is? Known, steady, once more in this second. (Packets of UDP flows have no flags.)
static inline bool entry_is_plain(
	uint64_t word, const struct packet *packet, const struct burst_facts *f)
{
	uint32_t steady = oneway_steady(word);
	return likely(!(packet->tcp_flags & (TCP_SYN | TCP_FIN | TCP_RST))) &&
	       (likely(steady == f->steady_fine) || steady == f->steady_coarse);
}

// Way of a backend that was found in the FIB of this generation and serves this mode: its next hop; else some number beyond all
// tables.
static inline uint64_t block_nexthop(
	const struct pipeline_backend_counters *block, uint32_t generation, uint32_t mode)
{
	uint64_t way, wanted = generation | (uint64_t)(mode + 1) << 48;
	memcpy(&way, &block->ways, sizeof(way));
	way ^= wanted;
	return way >> 32 | way << 32;
}
#define BLOCK_AT(field, bytes)                                                                \
	_Static_assert(                                                                       \
		offsetof(struct pipeline_backend_counters, field) ==                          \
				offsetof(struct pipeline_backend_counters, ways) + (bytes) && \
			RTE_BYTE_ORDER == RTE_LITTLE_ENDIAN,                                  \
		"place of " #field)
BLOCK_AT(nexthop, 4);
BLOCK_AT(ready_mode, 6);
BLOCK_AT(pad, 7); // 0

// Words of a next hop with a MAC, and of the port that it says. False: it has none.
struct hop_words {
	uint64_t hop;
	uint64_t port;
	uint8_t out_port;
};
static inline bool hop_load(const struct pipeline *p, uint32_t nexthop, struct hop_words *out)
{
	uint64_t hop = nexthop_load(&p->nexthops, (uint16_t)nexthop);
	// A port's index, unless the state is another.
	uint64_t port_idx = hop >> 48 ^ NEXTHOP_VALID << 8;
	if (unlikely(port_idx > UINT8_MAX))
		return false;
	out->hop = hop;
	out->port = port_mac_word(&p->ports[port_idx]);
	out->out_port = (uint8_t)port_idx;
	return true;
}

#define ROW_WORD(flags, mode) ((uint32_t)(flags) << 16 | (uint32_t)(mode) << 21)
_Static_assert(
	offsetof(struct snapshot_backend, policy) == offsetof(struct snapshot_backend, port) + 3 &&
		RTE_BYTE_ORDER == RTE_LITTLE_ENDIAN,
	"five bits of flags and three of the mode lie in the byte between");
// Is the backend's row that of a listed one with this mode? Flags and mode are compared as they lie side by side.
static inline bool row_is_plain(const struct snapshot_backend *backend, uint32_t mode)
{
	uint32_t word;
	memcpy(&word, &backend->port, sizeof(word));
	return (word & ROW_WORD(SNAPSHOT_BACKEND_LISTED | SNAPSHOT_BACKEND_RESET, 7)) ==
	       ROW_WORD(SNAPSHOT_BACKEND_LISTED, mode);
}

static inline void leave_plain(
	struct burst *b, uint32_t i, uint32_t nexthop, const struct hop_words *words)
{
	b->out_port[i] = words->out_port;
	b->nexthop[i] = (uint16_t)nexthop;
	b->verdict[i] = PIPELINE_FORWARD;
}

// Bytes of new headers by mode and family of the backend, as packet_tunnel_overhead has it.
static const uint8_t overheads[][2] = {
	[SNAPSHOT_IPIP] = { 20, 40 },
	[SNAPSHOT_GUE] = { 32, 52 },
	[SNAPSHOT_L2DSR] = { 0, 0 },
};

// send_plain where it is not IPv4 in IPv4.
static __rte_noinline bool send_plain_other(
	struct pipeline *p, struct burst *b, uint32_t i, uint64_t hash, const struct burst_facts *f)
{
	uint32_t id = b->backend_id[i], n_bytes = b->packets[i].l3_length;
	struct pipeline_backend_counters *block = &p->backend_counters[id];
	const struct snapshot_backend *backend = &f->backends[id];
	uint32_t mode = backend->mode;
	struct hop_words words;
	bool is_v6 = !address_is_v4(&backend->address);
	uint64_t nexthop = block_nexthop(block, f->generation, mode); // known: it is a one-way mode
	if (unlikely(!row_is_plain(backend, mode) || nexthop >= f->n_nexthops ||
		     !hop_load(p, (uint32_t)nexthop, &words) ||
		     n_bytes + overheads[mode][is_v6] > port_word_mtu(words.port)))
		return false;
	const struct packet_outer outer = {
		.macs = packet_macs_of_words(words.hop, words.port),
		.id = p->tunnel_id,
		.entropy = (uint16_t)hash,
	};
	if (unlikely(!prepend(p, b, i, backend, &outer)))
		return false; // said by name there
	p->tunnel_id++;
	block_count(block, FLOW_SIDE_CLIENT, n_bytes);
	leave_plain(b, i, (uint32_t)nexthop, &words);
	return true;
}

// What nearly every packet is: its entry goes on, its backend is listed, the way there is that of this FIB and fits the mode
// (found by stage_send_oneway once), the neighbour is resolved, the packet fits. Then it is sent, and all of it in one go. False:
// nothing done, but for the backend's number.
static __rte_always_inline bool send_plain(struct pipeline *p, struct burst *b, uint32_t i,
	uint64_t word, const uint64_t *hash, const struct burst_facts *f)
{
	const struct packet *packet = &b->packets[i];
	uint32_t id = oneway_backend_id(word);
	OPAQUE(packet);
	if (unlikely(id >= f->n_backends || !entry_is_plain(word, packet, f)))
		return false;
	struct pipeline_backend_counters *block = &p->backend_counters[id];
	const struct snapshot_backend *backend = &f->backends[id];
	struct hop_words words;
	b->backend_id[i] = id;
	if (unlikely(!row_is_plain(backend, SNAPSHOT_IPIP) || !address_is_v4(&backend->address) ||
		     packet->is_v6))
		return send_plain_other(p, b, i, *hash, f);
	uint64_t nexthop = block_nexthop(block, f->generation, SNAPSHOT_IPIP);
	uint32_t n_bytes = packet->l3_length;
	OPAQUE(n_bytes);
	if (unlikely(nexthop >= f->n_nexthops || !hop_load(p, (uint32_t)nexthop, &words) ||
		     n_bytes + (uint32_t)sizeof(struct v4_header) > port_word_mtu(words.port)))
		return false;
	const struct packet_macs macs = packet_macs_of_words(words.hop, words.port);
	if (unlikely(!packet_ipip_plain(b->mbufs[i], packet, f->source_v4,
		    backend->address.words[3], &p->tunnel_id, &macs)))
		return send_plain_other(p, b, i, *hash, f);
	p->tunnel_id++; // one for each packet, whether it found room or not
	block_count(block, FLOW_SIDE_CLIENT, n_bytes);
	leave_plain(b, i, (uint32_t)nexthop, &words);
	return true;
}

// One that is not plain. Returns whether an entry was removed.
static __rte_noinline bool send_odd(struct pipeline *p, struct burst *b, uint32_t i, uint32_t ref,
	const struct flow_key *key, uint64_t hash)
{
	bool removed = false, settled = false;
	if (ref != ONEWAY_NONE) {
		settled = follow_entry(p, b, i, ref);
		removed = !settled || b->verdict[i] != PIPELINE_FORWARD;
	}
	if (!settled && pipeline_may_have_holder(p, hash) && stage_to_holder(p, b, i, hash))
		return removed;
	if (!settled)
		open_entry(p, b, i, key, hash);
	if (b->verdict[i] == PIPELINE_FORWARD)
		stage_send_oneway(p, b, i, hash);
	return removed;
}

// Those pending, and what the look-up said of them.
struct looked_up {
	const struct pending *pending;
	const uint32_t *refs;
};

// That may be out of date: an earlier one of this burst added its flow, or had an entry removed or moved.
struct changes {
	uint64_t added;   // a bit for the hash of each packet that was not plain
	uint64_t n_moves; // of the table, when it was looked up
	bool entries;     // some were removed or moved
};

// Packet k of those pending, which is of no known flow, or not plain; and once entries have changed, all that follow, too. Returns
// which is the next one.
static __rte_noinline uint32_t send_checked(struct pipeline *p, struct burst *b,
	const struct looked_up *l, uint32_t k, const struct burst_facts *f, struct changes *changes)
{
	const struct pending *pending = l->pending;
	do {
		uint32_t i = pending->at[k], ref = l->refs[k];
		uint64_t hash = pending->hashes[k], bit = 1ull << (hash & 63);
		if (ref == ONEWAY_NONE ? (changes->added & bit) != 0 : changes->entries) {
			ref = oneway_lookup(&p->oneway, &pending->keys[k]);
			if (ref != ONEWAY_NONE &&
				send_plain(p, b, i, oneway_word(&p->oneway, ref), &hash, f))
				continue;
		}
		changes->added |= bit;
		changes->entries |= send_odd(p, b, i, ref, &pending->keys[k], hash);
		changes->entries |= p->oneway.n_moves != changes->n_moves;
	} while (++k < pending->n && changes->entries);
	return k;
}

static void send_all(
	struct pipeline *p, struct burst *b, const struct pending *pending, const uint32_t *refs)
{
	const struct snapshot *s = p->snapshot;
	const struct burst_facts facts = {
		.backends = s->backends,
		.generation = snapshot_ways(s),
		.n_backends = s->n_backends < p->n_backend_counters ? s->n_backends
								    : p->n_backend_counters,
		.steady_fine = oneway_steady_now(0, p->oneway.now_s),
		.steady_coarse = oneway_steady_now(ONEWAY_COARSE, p->oneway.now_s),
		.n_nexthops = p->nexthops.n_entries,
		.source_v4 = address_v4(&s->tunnel_source[0]),
	};
	struct changes changes = { .n_moves = p->oneway.n_moves };
	const struct looked_up looked_up = { pending, refs };
	for (uint32_t k = 0; k < pending->n;) {
		if (likely(refs[k] != ONEWAY_NONE) &&
			likely(send_plain(p, b, pending->at[k], oneway_word(&p->oneway, refs[k]),
				&pending->hashes[k], &facts)))
			k++;
		else
			k = send_checked(p, b, &looked_up, k, &facts, &changes);
	}
}

void stage_oneway(struct pipeline *p, struct burst *b, struct pending *pending)
{
	uint32_t refs[BURST_MAX];
	uint32_t n = pending->n, n_hits = 0;
	flow_hash_keys(&p->oneway.schedule, pending->keys, n, pending->hashes);
	oneway_lookup_bulk(&p->oneway, pending->keys, pending->hashes, n, refs);
	for (uint32_t k = 0; k < n; k++)
		n_hits += refs[k] != ONEWAY_NONE;
	counters_add(p->counters, COUNTER_FLOW_HITS, n_hits);
	counters_add(p->counters, COUNTER_FLOW_MISSES, n - n_hits);
	for (uint32_t k = 0; k < n && n_hits < n; k++)
		if (refs[k] == ONEWAY_NONE)
			oneway_prefetch_room(&p->oneway, &pending->keys[k], pending->hashes[k]);
	if (pipeline_rows_are_cold(p))
		fetch_backends(p, refs, n);
	send_all(p, b, pending, refs);
}
