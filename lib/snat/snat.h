// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// Source addresses and ports of fullnat flows. Ports of every SNAT address are owned by workers in
// blocks, so that any worker knows from a reply's destination port whose flow it is.
// Each worker holds, per address, SNAT_POOLS rings of its free ports; a flow's ring is chosen by a hash of
// the backend endpoint and protocol, so one port serves several flows only when their backends differ (the
// reply tuple stays unique), and a port is reused in the order of release.
//
// Threads: one struct snat per worker, written by it alone; snat_owner is pure.

#include <stdint.h>
#include <stddef.h>

#include "base.h"
#include "net.h"

#define SNAT_POOLS         16
#define SNAT_BLOCK_PORTS   64 // consecutive ports with one owner
#define SNAT_ADDRESSES_MAX 256

struct snat_config {
	uint16_t n_addresses; // 0..SNAT_ADDRESSES_MAX
	struct address addresses[SNAT_ADDRESSES_MAX];
	uint16_t slots[SNAT_ADDRESSES_MAX]; // own-address slot of each
	uint16_t port_min;                  // 1.., host order, inclusive
	uint16_t port_max;
	uint16_t n_workers; // 1..
	// Which port is the first to be given out: any number, random in a daemon. Backends hold tuples of flows that ended
	// for a minute (TIME_WAIT); a process that is started again must not walk over the very same ones.
	uint32_t first;
};

struct snat; // placed; layout in snat_priv.h

// Owner of a port (host order), 0..n_workers-1.
static inline uint16_t snat_owner(uint16_t port, uint16_t n_workers)
{
	return (uint16_t)((port / SNAT_BLOCK_PORTS) % n_workers);
}

// The same for many ports of a burst, without a division for each: the reciprocal is made once. Exact for every port and number.
static inline uint64_t snat_reciprocal(uint16_t n_workers)
{
	return ((1ull << 32) + n_workers - 1) / n_workers;
}
static inline uint16_t snat_owner_by(uint16_t port, uint16_t n_workers, uint64_t reciprocal)
{
	uint32_t block = port / SNAT_BLOCK_PORTS;
	return (uint16_t)(block - n_workers * (uint32_t)(block * reciprocal >> 32));
}

size_t snat_size(const struct snat_config *config, uint16_t worker_idx);
// 0 or -EINVAL (bad ports, size too small). *out points into mem.
int snat_init(void *mem, size_t size, const struct snat_config *config, uint16_t worker_idx,
	struct snat **out);
// Takes a port towards (backend, backend_port, protocol) from an address of the backend's family, starting at
// the address that `hash` chooses and trying the others when it is exhausted.
// 0; -EAFNOSUPPORT: no address of that family; -ENOSPC: all exhausted.
int snat_alloc(struct snat *snat, const struct address *backend, rte_be16_t backend_port,
	uint8_t protocol, uint32_t hash, uint16_t *out_slot, rte_be16_t *out_port);
// Notes whose the port is that snat_alloc or snat_take gave last: index of its flow, at most SNAT_USER_MAX.
#define SNAT_USER_MAX  0x7ffffffeu
#define SNAT_USER_NONE 0x7fffffffu
void snat_name(struct snat *snat, uint32_t flow_idx);
// For callers that take several ports before they name the first: where the last one taken is noted, and the naming of that.
size_t snat_last(const struct snat *snat);
void snat_name_at(struct snat *snat, size_t place, uint32_t flow_idx);
// When all are exhausted: flows that hold ports which (backend, backend_port, protocol) could have. Looks at up to n (1..64) ports
// of the address that `hash` chooses, from where the last look ended, and writes what snat_name noted. Returns how many.
// Such a flow may belong to another endpoint of the same ring: whoever takes its port away ends that flow.
uint32_t snat_used(struct snat *snat, const struct address *backend, rte_be16_t backend_port,
	uint8_t protocol, uint32_t hash, uint32_t n, uint32_t *out_flows);

// ---------------------------------------------------------------- whose a port is
// A reply's key (peer: the backend; own slot and port: the source address and port that it answers to) names one port of one
// ring, and that says whose it is: no search. What it says is to be compared with the flow: a stranger may send to a port in use.
// Index that snat_name noted, or SNAT_USER_NONE.
uint32_t snat_user(const struct snat *snat, const struct flow_key *key);
// The same for n replies of a burst: words that will be read later, asked for now. Such a word has its top bit set when the port
// is in use, and the index below it. They are good until ports are taken or given back.
void snat_ask(const struct snat *snat, const struct flow_key *keys, uint32_t n,
	const uint32_t **out_users);

// Gives the port of a reply's key back, to the end of its ring. A port that is not in use changes nothing.
void snat_free(struct snat *snat, const struct flow_key *key);
// Where the port of a reply's key stands, for who has several to give back; no place if it is none of this worker's.
struct snat_place {
	uint32_t ring; // UINT32_MAX: no place
	uint32_t port;
};
struct snat_place snat_locate(const struct snat *snat, const struct flow_key *key);
// Asks for the line that snat_free_at will change.
void snat_prefetch(const struct snat *snat, const struct snat_place *place);
void snat_free_at(struct snat *snat, const struct snat_place *place);
// Marks the port of a reply's key as in use (adoption of a table): 0 or -ENOENT if it is not a free port of this worker.
int snat_take(struct snat *snat, const struct flow_key *key);
// Free ports of this worker over all addresses and rings of one family (4 or 6).
uint64_t snat_n_free(const struct snat *snat, int family);
