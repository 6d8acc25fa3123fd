// SPDX-License-Identifier: BSD-3-Clause
// Hot path: no allocation, lock, log, system call.
//
// Source ports of one worker. Taking and giving back a port touches one ring and one or two links:
// constant time. Not here: who receives the reply (snat_owner and the re-steer ring), and how long
// a port rests after its flow (the flow keeps it until it is aged out).
#include "snat.h"
#include "snat_priv.h"

#include <errno.h>
#include <rte_branch_prediction.h>

// ---------------------------------------------------------------- owned ports
// The ports of a worker are numbered 0..n_ports-1 through its blocks.

struct snat_span {
	uint32_t first_block;
	uint32_t first_offset;
	uint32_t n_ports;
};

static struct snat_span snat_span(const struct snat_config *config, uint16_t worker_idx)
{
	struct snat_span span = { 0 };
	uint32_t n = config->n_workers;
	uint32_t min_block = config->port_min / SNAT_BLOCK_PORTS;
	uint32_t max_block = config->port_max / SNAT_BLOCK_PORTS;
	uint32_t first = min_block + (worker_idx + n - min_block % n) % n;
	if (first > max_block)
		return span;
	uint32_t last = max_block - (max_block + n - worker_idx) % n;
	uint32_t end = SNAT_BLOCK_PORTS; // ports of the last block
	if (last == max_block)
		end = config->port_max % SNAT_BLOCK_PORTS + 1u;
	span.first_block = first;
	span.first_offset = first == min_block ? config->port_min % SNAT_BLOCK_PORTS : 0;
	span.n_ports = (last - first) / n * SNAT_BLOCK_PORTS + end - span.first_offset;
	return span;
}

static uint32_t snat_n_links(const struct snat_span *span)
{
	uint32_t end = span->first_offset + span->n_ports;
	return (end + SNAT_BLOCK_PORTS - 1) / SNAT_BLOCK_PORTS * SNAT_BLOCK_PORTS;
}

static bool snat_config_ok(const struct snat_config *config, uint16_t worker_idx)
{
	return config->n_workers > 0 && worker_idx < config->n_workers && config->port_min > 0 &&
	       config->port_min <= config->port_max && config->n_addresses <= SNAT_ADDRESSES_MAX;
}

static uint16_t snat_port_at(const struct snat *snat, uint32_t i)
{
	uint32_t block = snat->first_block + i / SNAT_BLOCK_PORTS * snat->n_workers;
	return (uint16_t)(block * SNAT_BLOCK_PORTS + i % SNAT_BLOCK_PORTS);
}

// Index of a port, or n_links or more: its block is not owned. In the first and the last block lie indices of ports that are not.
static inline uint32_t snat_index_near(const struct snat *snat, uint16_t port)
{
	return snat->by_block[port / SNAT_BLOCK_PORTS] + port % SNAT_BLOCK_PORTS;
}

// The same, but UINT32_MAX if the port is not owned.
static inline uint32_t snat_index_of(const struct snat *snat, uint16_t port)
{
	uint32_t i = snat_index_near(snat, port);
	return i - snat->first_offset < snat->n_ports ? i : UINT32_MAX;
}

// ---------------------------------------------------------------- rings

static struct snat_ring *snat_rings(struct snat *snat)
{
	return (struct snat_ring *)(void *)(snat + 1);
}

static inline uint32_t *snat_links(struct snat *snat, uint32_t ring_idx)
{
	uint32_t n_rings = (uint32_t)snat->n_addresses * SNAT_POOLS;
	uint32_t *links = (uint32_t *)(void *)(snat_rings(snat) + n_rings);
	return links + (size_t)ring_idx * snat->n_links;
}

static bool snat_link_used(uint32_t link)
{
	return (link & SNAT_USED) != 0;
}

// One more port is passed on the first round. They go round: the last owned one is followed by the first.
static inline void snat_ring_pass(const struct snat *snat, struct snat_ring *ring)
{
	uint32_t i = ring->next_fresh + 1u;
	ring->fresh++;
	ring->next_fresh =
		(uint16_t)(i < snat->first_offset + snat->n_ports ? i : snat->first_offset);
}

static inline void snat_ring_skip_used(
	const struct snat *snat, struct snat_ring *ring, const uint32_t *next)
{
	while (ring->fresh < snat->n_ports && next[ring->next_fresh] != SNAT_FRESH)
		snat_ring_pass(snat, ring);
}

// First in order; the ring must have a free port.
static uint32_t snat_ring_pop(const struct snat *snat, struct snat_ring *ring, uint32_t *next)
{
	uint32_t i;
	if (ring->fresh < snat->n_ports) {
		i = ring->next_fresh;
		next[i] = SNAT_USED | SNAT_USER_NONE;
		snat_ring_skip_used(snat, ring, next); // at least this one
	} else {
		i = ring->head;
		ring->head = (uint16_t)next[i];
		ring->n_chained--;
		__builtin_prefetch(&next[ring->head], 1); // the next one's
		next[i] = SNAT_USED | SNAT_USER_NONE;
	}
	ring->n_free--;
	return i;
}

static void snat_ring_push(struct snat_ring *ring, uint32_t *next, uint32_t i)
{
	if (ring->n_chained == 0)
		ring->head = (uint16_t)i;
	else
		next[ring->tail] = i;
	ring->tail = (uint16_t)i;
	next[i] = 0; // any value that is neither used nor SNAT_FRESH
	ring->n_chained++;
	ring->n_free++;
}

// Takes port i out of the chain. Walks it: only a port that was given back before is searched here,
// and adoption takes its ports before any is given back.
static bool snat_ring_unlink(struct snat_ring *ring, uint32_t *next, uint32_t i)
{
	uint32_t at = ring->head, before = UINT32_MAX;
	for (uint32_t n = ring->n_chained; n > 0; n--) {
		if (at == i) {
			if (at == ring->tail && before != UINT32_MAX)
				ring->tail = (uint16_t)before;
			else if (before != UINT32_MAX)
				next[before] = next[at];
			else
				ring->head = (uint16_t)next[at];
			ring->n_chained--;
			return true;
		}
		before = at;
		at = next[at];
	}
	return false;
}

// Pool of a backend endpoint: equal endpoints share one, so within it a port serves one flow. Nobody but the cluster chooses
// endpoints: a straight line through them will do, steep enough that addresses and ports in order, whichever of their
// bytes counts them, come to all pools in turn.
//
// Port and protocol as they lie in a key's last word, which is not made in pieces here: read back in one it would wait for them.
static inline uint32_t snat_pool(const struct address *backend, uint64_t port_and_protocol)
{
	uint64_t sum = backend->halves[0] + backend->halves[1] + port_and_protocol;
	return (uint32_t)(sum * 0x9e3779b99e9e9e9dull >> 60);
}
static inline uint32_t snat_pool_of_key(const struct flow_key *reply)
{
	return snat_pool(&reply->peer, flow_key_tail(reply) & 0x00ff00000000ffffull);
}
static inline uint32_t snat_pool_of(
	const struct address *backend, rte_be16_t backend_port, uint8_t protocol)
{
	return snat_pool(backend, backend_port | (uint64_t)protocol << 48);
}
_Static_assert(offsetof(struct flow_key, protocol) == offsetof(struct flow_key, peer_port) + 6 &&
		       RTE_BYTE_ORDER == RTE_LITTLE_ENDIAN,
	"port and protocol in a key's last word");
_Static_assert(SNAT_POOLS == 1 << 4, "four bits");

// ---------------------------------------------------------------- public

size_t snat_size(const struct snat_config *config, uint16_t worker_idx)
{
	if (!snat_config_ok(config, worker_idx))
		return 0;
	size_t n_rings = (size_t)config->n_addresses * SNAT_POOLS;
	struct snat_span span = snat_span(config, worker_idx);
	size_t size = sizeof(struct snat) + n_rings * sizeof(struct snat_ring) +
		      n_rings * snat_n_links(&span) * sizeof(uint32_t);
	return (size + 63) & ~(size_t)63;
}

static void snat_ring_init(struct snat *snat, uint32_t ring_idx)
{
	uint32_t *next = snat_links(snat, ring_idx);
	snat_rings(snat)[ring_idx] = (struct snat_ring){ .n_free = snat->n_ports,
		.next_fresh = (uint16_t)(snat->first_offset + snat->rotation) };
	for (uint32_t i = 0; i < snat->n_links; i++) {
		bool owned = i >= snat->first_offset && i - snat->first_offset < snat->n_ports;
		next[i] = owned ? SNAT_FRESH : SNAT_USED | SNAT_USER_NONE;
	}
}

int snat_init(void *mem, size_t size, const struct snat_config *config, uint16_t worker_idx,
	struct snat **out)
{
	size_t need = snat_size(config, worker_idx);
	if (need == 0 || size < need)
		return -EINVAL;
	struct snat_span span = snat_span(config, worker_idx);
	struct snat *snat = mem;
	memset(snat, 0, sizeof(*snat));
	memset(snat->by_slot, 0xff, sizeof(snat->by_slot)); // SNAT_NO_ADDRESS
	snat->n_ports = span.n_ports;
	snat->n_links = snat_n_links(&span);
	snat->n_workers = config->n_workers;
	snat->first_block = (uint16_t)span.first_block;
	snat->first_offset = (uint16_t)span.first_offset;
	for (uint32_t block = 0; block < SNAT_BLOCKS; block++)
		snat->by_block[block] = snat->n_links;
	for (uint32_t turn = 0; turn < snat->n_links / SNAT_BLOCK_PORTS; turn++)
		snat->by_block[span.first_block + turn * config->n_workers] =
			turn * SNAT_BLOCK_PORTS;
	if (span.n_ports > 0)
		snat->rotation = (uint16_t)(config->first % span.n_ports);
	snat->n_addresses = config->n_addresses;
	for (uint16_t a = 0; a < config->n_addresses; a++) {
		if (snat->by_slot[config->slots[a]] != SNAT_NO_ADDRESS)
			return -EINVAL;
		snat->by_slot[config->slots[a]] = a;
		snat->slots[a] = config->slots[a];
		uint8_t is_v6 = !address_is_v4(&config->addresses[a]);
		snat->is_v6[a] = is_v6;
		snat->by_family[is_v6][snat->n_by_family[is_v6]++] = a;
		snat->n_free[is_v6] += (uint64_t)span.n_ports * SNAT_POOLS;
	}
	uint32_t n_rings = (uint32_t)config->n_addresses * SNAT_POOLS;
	for (uint32_t r = 0; r < n_rings; r++)
		snat_ring_init(snat, r);
	*out = snat;
	return 0;
}

int snat_alloc(struct snat *snat, const struct address *backend, rte_be16_t backend_port,
	uint8_t protocol, uint32_t hash, uint16_t *out_slot, rte_be16_t *out_port)
{
	uint32_t is_v6 = !address_is_v4(backend);
	uint32_t n = snat->n_by_family[is_v6];
	if (n == 0)
		return -EAFNOSUPPORT;
	uint32_t pool = snat_pool_of(backend, backend_port, protocol);
	uint32_t at = (uint32_t)((uint64_t)hash * n >> 32);
	for (uint32_t tried = 0; tried < n; tried++) {
		uint32_t a = snat->by_family[is_v6][at];
		uint32_t ring_idx = a * SNAT_POOLS + pool;
		struct snat_ring *ring = &snat_rings(snat)[ring_idx];
		if (ring->n_free > 0) {
			uint32_t i = snat_ring_pop(snat, ring, snat_links(snat, ring_idx));
			snat->last = (size_t)ring_idx * snat->n_links + i;
			snat->n_free[is_v6]--;
			*out_slot = snat->slots[a];
			*out_port = rte_cpu_to_be_16(snat_port_at(snat, i));
			return 0;
		}
		at = at + 1 < n ? at + 1 : 0;
	}
	return -ENOSPC;
}

size_t snat_last(const struct snat *snat)
{
	return snat->last;
}

void snat_name(struct snat *snat, uint32_t flow_idx)
{
	snat_name_at(snat, snat->last, flow_idx);
}

void snat_name_at(struct snat *snat, size_t place, uint32_t flow_idx)
{
	uint32_t *link = &snat_links(snat, 0)[place];
	if (snat_link_used(*link)) // not given back meanwhile
		*link = SNAT_USED | flow_idx;
}

uint32_t snat_used(struct snat *snat, const struct address *backend, rte_be16_t backend_port,
	uint8_t protocol, uint32_t hash, uint32_t n, uint32_t *out_flows)
{
	uint32_t is_v6 = !address_is_v4(backend);
	uint32_t n_addresses = snat->n_by_family[is_v6], n_out = 0;
	if (n_addresses == 0 || snat->n_ports == 0)
		return 0;
	uint32_t a = snat->by_family[is_v6][(uint64_t)hash * n_addresses >> 32];
	uint32_t ring_idx = a * SNAT_POOLS + snat_pool_of(backend, backend_port, protocol);
	struct snat_ring *ring = &snat_rings(snat)[ring_idx];
	const uint32_t *next = snat_links(snat, ring_idx);
	n = n < snat->n_ports ? n : snat->n_ports;
	for (uint32_t k = 0; k < n; k++) {
		uint32_t link = next[ring->hand + snat->first_offset];
		ring->hand = (uint16_t)(ring->hand + 1u < snat->n_ports ? ring->hand + 1 : 0);
		out_flows[n_out] = link & ~SNAT_USED;
		n_out += snat_link_used(link) && out_flows[n_out] != SNAT_USER_NONE;
	}
	return n_out;
}

// ---------------------------------------------------------------- one port

struct snat_place snat_locate(const struct snat *snat, const struct flow_key *key)
{
	struct snat_place place = { .ring = UINT32_MAX };
	uint16_t a = snat->by_slot[key->own_slot];
	uint32_t i = snat_index_of(snat, rte_be_to_cpu_16(key->own_port));
	if (unlikely(a == SNAT_NO_ADDRESS || i == UINT32_MAX))
		return place;
	place.ring = (uint32_t)a * SNAT_POOLS + snat_pool_of_key(key);
	place.port = i;
	return place;
}

static inline bool snat_is_place(const struct snat_place *place)
{
	return place->ring != UINT32_MAX;
}

static const uint32_t snat_nobody = SNAT_FRESH;

// snat_links gives places to write to; who reads only takes this.
static inline const uint32_t *snat_links_read(const struct snat *snat, uint32_t ring_idx)
{
	return snat_links((struct snat *)(uintptr_t)snat, ring_idx);
}

static inline const uint32_t *snat_link(const struct snat *snat, const struct snat_place *place)
{
	return likely(snat_is_place(place)) ? snat_links_read(snat, place->ring) + place->port
					    : &snat_nobody;
}

uint32_t snat_user(const struct snat *snat, const struct flow_key *key)
{
	struct snat_place place = snat_locate(snat, key);
	uint32_t link = *snat_link(snat, &place);
	return snat_link_used(link) ? link & ~SNAT_USED : SNAT_USER_NONE;
}

void snat_ask(const struct snat *snat, const struct flow_key *keys, uint32_t n,
	const uint32_t **out_users)
{
	const uint32_t *links = n > 0 ? snat_links_read(snat, 0) : NULL;
	for (uint32_t k = 0; k < n; k++) {
		uint32_t a = snat->by_slot[keys[k].own_slot];
		uint32_t i = snat_index_near(snat, rte_be_to_cpu_16(keys[k].own_port));
		uint64_t ring_idx = a * SNAT_POOLS + snat_pool_of_key(&keys[k]);
		out_users[k] = &links[ring_idx * snat->n_links + i];
		if (unlikely(a == SNAT_NO_ADDRESS || i >= snat->n_links))
			out_users[k] = &snat_nobody;
		__builtin_prefetch(out_users[k], 0, 3);
	}
}

void snat_prefetch(const struct snat *snat, const struct snat_place *place)
{
	__builtin_prefetch(snat_link(snat, place), 1);
	__asm__ volatile(""); // or the compiler finds that this function does nothing
}

void snat_free_at(struct snat *snat, const struct snat_place *place)
{
	if (!snat_is_place(place))
		return;
	uint32_t *next = snat_links(snat, place->ring);
	// A port that is not in use (given back twice, or of a flow whose port could not be taken at
	// adoption) changes nothing: in the chain twice it would serve two flows.
	if (!snat_link_used(next[place->port]))
		return;
	snat_ring_push(&snat_rings(snat)[place->ring], next, place->port);
	snat->n_free[snat->is_v6[place->ring / SNAT_POOLS]]++;
}

void snat_free(struct snat *snat, const struct flow_key *key)
{
	struct snat_place place = snat_locate(snat, key);
	snat_free_at(snat, &place);
}

int snat_take(struct snat *snat, const struct flow_key *key)
{
	struct snat_place p = snat_locate(snat, key);
	if (!snat_is_place(&p))
		return -ENOENT;
	struct snat_ring *ring = &snat_rings(snat)[p.ring];
	uint32_t *next = snat_links(snat, p.ring);
	uint8_t is_v6 = snat->is_v6[p.ring / SNAT_POOLS];
	if (is_v6 == address_is_v4(&key->peer) || snat_link_used(next[p.port]))
		return -ENOENT;
	if (next[p.port] != SNAT_FRESH && !snat_ring_unlink(ring, next, p.port))
		return -ENOENT;
	next[p.port] = SNAT_USED | SNAT_USER_NONE;
	snat->last = (size_t)p.ring * snat->n_links + p.port;
	snat_ring_skip_used(snat, ring, next);
	ring->n_free--;
	snat->n_free[is_v6]--;
	return 0;
}

uint64_t snat_n_free(const struct snat *snat, int family)
{
	return snat->n_free[family == 6];
}
