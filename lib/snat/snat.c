// SPDX-License-Identifier: BSD-3-Clause
// Hot path: no allocation, lock, log, system call.
//
// Source ports of one worker. Taking and giving back a port touches one ring and one or two links:
// constant time. Not here: who receives the reply (snat_owner and the re-steer ring), and how long
// a port rests after its flow (the flow keeps it until it is aged out).
#include "snat.h"
#include "snat_priv.h"

#include <errno.h>

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

static bool snat_config_ok(const struct snat_config *config, uint16_t worker_idx)
{
	return config->n_workers > 0 && worker_idx < config->n_workers && config->port_min > 0 &&
	       config->port_min <= config->port_max && config->n_addresses <= SNAT_ADDRESSES_MAX;
}

static uint16_t snat_port_at(const struct snat *snat, uint32_t i)
{
	uint32_t turned = i + snat->rotation;
	uint32_t at =
		(turned < snat->n_ports ? turned : turned - snat->n_ports) + snat->first_offset;
	uint32_t block = snat->first_block + at / SNAT_BLOCK_PORTS * snat->n_workers;
	return (uint16_t)(block * SNAT_BLOCK_PORTS + at % SNAT_BLOCK_PORTS);
}

// Index of a port, or UINT32_MAX if it is not owned.
static uint32_t snat_index_of(const struct snat *snat, uint16_t port)
{
	uint32_t block = port / SNAT_BLOCK_PORTS;
	if (block < snat->first_block)
		return UINT32_MAX;
	uint32_t distance = block - snat->first_block;
	if (distance % snat->n_workers != 0)
		return UINT32_MAX;
	uint32_t at = distance / snat->n_workers * SNAT_BLOCK_PORTS + port % SNAT_BLOCK_PORTS;
	if (at < snat->first_offset || at - snat->first_offset >= snat->n_ports)
		return UINT32_MAX;
	uint32_t turned = at - snat->first_offset;
	return turned >= snat->rotation ? turned - snat->rotation
					: turned + snat->n_ports - snat->rotation;
}

// ---------------------------------------------------------------- rings

static struct snat_ring *snat_rings(struct snat *snat)
{
	return (struct snat_ring *)(void *)(snat + 1);
}

static uint32_t *snat_links(struct snat *snat, uint32_t ring_idx)
{
	uint32_t n_rings = (uint32_t)snat->n_addresses * SNAT_POOLS;
	uint32_t *links = (uint32_t *)(void *)(snat_rings(snat) + n_rings);
	return links + (size_t)ring_idx * snat->n_ports;
}

static bool snat_link_used(uint32_t link)
{
	return (link & SNAT_USED) != 0;
}

static void snat_ring_skip_used(struct snat_ring *ring, const uint32_t *next, uint32_t n_ports)
{
	while (ring->fresh < n_ports && next[ring->fresh] != SNAT_FRESH)
		ring->fresh++;
}

// First in order; the ring must have a free port.
static uint32_t snat_ring_pop(struct snat_ring *ring, uint32_t *next, uint32_t n_ports)
{
	uint32_t i;
	if (ring->fresh < n_ports) {
		i = ring->fresh;
		next[i] = SNAT_USED | SNAT_USER_NONE;
		snat_ring_skip_used(ring, next, n_ports);
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

// Pool of a backend endpoint: equal endpoints share one, so within it a port serves one flow.
static uint32_t snat_pool(const struct address *backend, rte_be16_t backend_port, uint8_t protocol)
{
	uint64_t tail = (uint64_t)backend_port << 8 | protocol;
	uint64_t h = hash_fold(backend->halves[0] ^ 0x9e3779b97f4a7c15ull,
		backend->halves[1] ^ 0xd6e8feb86659fd93ull);
	h = hash_fold(h ^ tail, 0x2545f4914f6cdd1dull);
	return (uint32_t)h % SNAT_POOLS;
}

// ---------------------------------------------------------------- slots

static uint32_t snat_slot_hash(uint16_t slot)
{
	return (uint32_t)slot * 0x9e3779b1u >> 23; // 9 bits: SNAT_SLOT_CELLS
}

// Address index of a slot, or UINT16_MAX.
static uint16_t snat_find_slot(const struct snat *snat, uint16_t slot)
{
	for (uint32_t at = snat_slot_hash(slot);; at++) {
		uint16_t idx = snat->slot_cells[at % SNAT_SLOT_CELLS];
		if (idx == SNAT_CELL_EMPTY || snat->slots[idx] == slot)
			return idx;
	}
}

static void snat_add_slot(struct snat *snat, uint16_t slot, uint16_t idx)
{
	uint32_t at = snat_slot_hash(slot);
	while (snat->slot_cells[at % SNAT_SLOT_CELLS] != SNAT_CELL_EMPTY)
		at++;
	snat->slot_cells[at % SNAT_SLOT_CELLS] = idx;
	snat->slots[idx] = slot;
}

// ---------------------------------------------------------------- public

size_t snat_size(const struct snat_config *config, uint16_t worker_idx)
{
	if (!snat_config_ok(config, worker_idx))
		return 0;
	size_t n_rings = (size_t)config->n_addresses * SNAT_POOLS;
	size_t n_ports = snat_span(config, worker_idx).n_ports;
	size_t size = sizeof(struct snat) + n_rings * sizeof(struct snat_ring) +
		      n_rings * n_ports * sizeof(uint32_t);
	return (size + 63) & ~(size_t)63;
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
	memset(snat->slot_cells, 0xff, sizeof(snat->slot_cells));
	snat->n_ports = span.n_ports;
	snat->n_workers = config->n_workers;
	snat->first_block = (uint16_t)span.first_block;
	snat->first_offset = (uint16_t)span.first_offset;
	if (span.n_ports > 0)
		snat->rotation = (uint16_t)(config->first % span.n_ports);
	snat->n_addresses = config->n_addresses;
	for (uint16_t a = 0; a < config->n_addresses; a++) {
		if (snat_find_slot(snat, config->slots[a]) != UINT16_MAX)
			return -EINVAL;
		snat_add_slot(snat, config->slots[a], a);
		uint8_t is_v6 = !address_is_v4(&config->addresses[a]);
		snat->is_v6[a] = is_v6;
		snat->by_family[is_v6][snat->n_by_family[is_v6]++] = a;
		snat->n_free[is_v6] += (uint64_t)span.n_ports * SNAT_POOLS;
	}
	uint32_t n_rings = (uint32_t)config->n_addresses * SNAT_POOLS;
	for (uint32_t r = 0; r < n_rings; r++)
		snat_rings(snat)[r] = (struct snat_ring){ .n_free = span.n_ports };
	uint32_t *links = snat_links(snat, 0);
	for (size_t i = 0; i < (size_t)n_rings * span.n_ports; i++)
		links[i] = SNAT_FRESH;
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
	uint32_t pool = snat_pool(backend, backend_port, protocol);
	uint32_t at = (uint32_t)((uint64_t)hash * n >> 32);
	for (uint32_t tried = 0; tried < n; tried++) {
		uint32_t a = snat->by_family[is_v6][at];
		uint32_t ring_idx = a * SNAT_POOLS + pool;
		struct snat_ring *ring = &snat_rings(snat)[ring_idx];
		if (ring->n_free > 0) {
			uint32_t i = snat_ring_pop(ring, snat_links(snat, ring_idx), snat->n_ports);
			snat->last = (size_t)ring_idx * snat->n_ports + i;
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
	uint32_t ring_idx = a * SNAT_POOLS + snat_pool(backend, backend_port, protocol);
	struct snat_ring *ring = &snat_rings(snat)[ring_idx];
	const uint32_t *next = snat_links(snat, ring_idx);
	n = n < snat->n_ports ? n : snat->n_ports;
	for (uint32_t k = 0; k < n; k++) {
		uint32_t link = next[ring->hand];
		ring->hand = ring->hand + 1 < snat->n_ports ? ring->hand + 1 : 0;
		out_flows[n_out] = link & ~SNAT_USED;
		n_out += snat_link_used(link) && out_flows[n_out] != SNAT_USER_NONE;
	}
	return n_out;
}

// Where a (slot, port) of a backend stands.
struct snat_place {
	struct snat_ring *ring;
	uint32_t *next;
	uint32_t i;
	uint8_t is_v6;
};

static bool snat_find(
	struct snat *snat, uint16_t slot, rte_be16_t port, uint32_t pool, struct snat_place *out)
{
	uint16_t a = snat_find_slot(snat, slot);
	uint32_t i = snat_index_of(snat, rte_be_to_cpu_16(port));
	if (a == UINT16_MAX || i == UINT32_MAX)
		return false;
	uint32_t ring_idx = (uint32_t)a * SNAT_POOLS + pool;
	out->ring = &snat_rings(snat)[ring_idx];
	out->next = snat_links(snat, ring_idx);
	out->i = i;
	out->is_v6 = snat->is_v6[a];
	return true;
}

void snat_free(struct snat *snat, uint16_t slot, rte_be16_t port, const struct address *backend,
	rte_be16_t backend_port, uint8_t protocol)
{
	struct snat_place p;
	if (!snat_find(snat, slot, port, snat_pool(backend, backend_port, protocol), &p))
		return;
	// A port that is not in use (given back twice, or of a flow whose port could not be taken at
	// adoption) changes nothing: in the chain twice it would serve two flows.
	if (!snat_link_used(p.next[p.i]))
		return;
	snat_ring_push(p.ring, p.next, p.i);
	snat->n_free[p.is_v6]++;
}

void snat_prefetch(const struct snat *snat, uint16_t slot, rte_be16_t port,
	const struct address *backend, rte_be16_t backend_port, uint8_t protocol)
{
	struct snat_place p;
	// snat_find gives places to write to; nothing is written here.
	if (snat_find((struct snat *)(uintptr_t)snat, slot, port,
		    snat_pool(backend, backend_port, protocol), &p))
		__builtin_prefetch(&p.next[p.i], 1);
	__asm__ volatile(""); // or the compiler finds that this function does nothing
}

int snat_take(struct snat *snat, uint16_t slot, rte_be16_t port, const struct address *backend,
	rte_be16_t backend_port, uint8_t protocol)
{
	struct snat_place p;
	if (!snat_find(snat, slot, port, snat_pool(backend, backend_port, protocol), &p) ||
		p.is_v6 == address_is_v4(backend) || snat_link_used(p.next[p.i]))
		return -ENOENT;
	if (p.next[p.i] != SNAT_FRESH && !snat_ring_unlink(p.ring, p.next, p.i))
		return -ENOENT;
	p.next[p.i] = SNAT_USED | SNAT_USER_NONE;
	snat->last = (size_t)(p.next - snat_links(snat, 0)) + p.i;
	snat_ring_skip_used(p.ring, p.next, snat->n_ports);
	p.ring->n_free--;
	snat->n_free[p.is_v6]--;
	return 0;
}

uint64_t snat_n_free(const struct snat *snat, int family)
{
	return snat->n_free[family == 6];
}
