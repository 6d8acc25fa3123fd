// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// Workers and the seams between threads. Control sees only this header of the hot side.
// The six named places: snapshot pointer, mailbox ring, reply ring, counters, punt ring, inject ring;
// plus the re-steer rings between workers.
//
// Threads: create/start/stop and everything marked [control] on the control thread only.

#include <stdbool.h>
#include <stdint.h>

#include "counters.h"
#include "device.h"
#include "pipeline.h"

struct dataplane_config {
	uint32_t flow_capacity;   // per worker
	char flow_dir[256];       // memory files "<dir>/flows.<worker>", "" = anonymous memory
	struct hash_key flow_key; // random per table
	struct snat_config snat;
	struct nexthop_table nexthops; // entries owned by control
	enum device_idle idle;
	uint64_t sleep_ns; // for DEVICE_IDLE_SLEEP
	uint64_t punt_per_s;
	uint32_t n_backend_counters; // 0 = 65536
};

struct dataplane;

// Memory that one worker will take, at most: for device_config.flow_bytes_per_worker. snat.n_workers need not be known yet.
uint64_t dataplane_worker_bytes(const struct dataplane_config *config);
// Tables, rings and pipelines of every worker, placed on its NUMA node; no thread yet. The device is borrowed.
int dataplane_create(struct device *device, const struct dataplane_config *config,
	const struct log *log, struct dataplane **out, struct error *err);
int dataplane_start(struct dataplane *dp, struct error *err); // launches the workers
// Asks every worker to finish its burst and return, waits for them (bounded: 500 ms), drains rings into named drops.
void dataplane_stop(struct dataplane *dp);
void dataplane_destroy(struct dataplane *dp);

// ---- snapshot pointer [control]
void dataplane_publish(struct dataplane *dp, const struct snapshot *snapshot);
// A grace period without blocking: token now; done when every worker has passed a quiescent state since (sleeping ones count).
uint64_t dataplane_grace_start(struct dataplane *dp);
bool dataplane_grace_done(struct dataplane *dp, uint64_t token);
// Lowest generation that any worker has adopted; lowest number of rounds of ageing over all workers: two
// more than now, and a whole pass over each table has begun and ended since.
uint64_t dataplane_adopted_generation(const struct dataplane *dp);
uint64_t dataplane_sweeps(const struct dataplane *dp);

// ---- counters [any thread, relaxed]
uint32_t dataplane_n_workers(const struct dataplane *dp);
const struct counters *dataplane_counters(const struct dataplane *dp, uint32_t worker_idx);
void dataplane_backend_counters(const struct dataplane *dp, uint32_t backend_id,
	struct pipeline_backend_counters *out); // sum over workers
struct dataplane_port_counters {
	uint64_t rx_packets, rx_bytes, tx_packets, tx_bytes;
};
void dataplane_port_counters(const struct dataplane *dp, uint32_t port_idx,
	struct dataplane_port_counters *out); // sum over workers
struct dataplane_worker_state {
	uint16_t cpu;
	int numa;
	uint64_t heartbeat; // loop iterations
	uint64_t busy_cycles;
	uint64_t total_cycles; // since start
	uint32_t n_flows;
	uint32_t flow_capacity;
	uint64_t snapshot_generation;
	const char *variant; // look-up in use
	bool sleeping;
};
void dataplane_worker_state(
	const struct dataplane *dp, uint32_t worker_idx, struct dataplane_worker_state *out);

// ---- mailbox and replies [control]: bounded work done by a worker between bursts
enum dataplane_request_kind {
	DATAPLANE_EXPLAIN,
	DATAPLANE_FLOWS, // copies flows that match, from a cursor, at most 64 a request
	DATAPLANE_PURGE, // removes flows of a backend_id, a slice a request
};
struct dataplane_flow_filter {
	bool by_backend_id;
	uint32_t backend_ids[64];
	uint32_t n_backend_ids;
	bool by_client;
	struct address client;
};
#define DATAPLANE_FLOWS_PER_REPLY 64
struct dataplane_request {
	uint8_t kind;
	uint64_t cookie; // given back in the reply
	struct pipeline_question question;
	struct dataplane_flow_filter filter;
	uint32_t cursor; // record index to go on from
	uint32_t backend_id;
};
struct dataplane_reply {
	uint8_t kind;
	uint16_t worker_idx;
	uint64_t cookie;
	struct pipeline_explanation explanation;
	struct flow_record flows[DATAPLANE_FLOWS_PER_REPLY];
	uint32_t n_flows;
	uint32_t next_cursor; // FLOW_NONE: end of table
	uint32_t now_s;       // table second, for ages
};
// 0 or -EAGAIN when the mailbox is full (64 requests). Takes a copy. Wakes a sleeping worker.
int dataplane_ask(
	struct dataplane *dp, uint32_t worker_idx, const struct dataplane_request *request);
// Next reply, or NULL. Free with dataplane_reply_free.
struct dataplane_reply *dataplane_next_reply(struct dataplane *dp);
void dataplane_reply_free(struct dataplane *dp, struct dataplane_reply *reply);
// eventfd that becomes readable when replies, punted frames or wanted next hops are there. [control] reads it.
int dataplane_event_fd(const struct dataplane *dp);

// ---- punt ring [control]: frames for the twins, most important class first
struct rte_mbuf;
struct dataplane_punted {
	struct rte_mbuf *mbuf; // linear data of data_len bytes
	uint16_t worker_idx;
	uint8_t port_idx;
	uint8_t class;
};
uint32_t dataplane_take_punted(struct dataplane *dp, struct dataplane_punted *out, uint32_t max);
const void *dataplane_frame(
	const struct rte_mbuf *mbuf, uint32_t *out_len); // bytes of a single-segment frame
void dataplane_free_punted(struct dataplane *dp, struct rte_mbuf *mbuf);
// Counts the fate of a frame the twin refused: as if `punted` had not happened. [control's own counter block]
struct counters *dataplane_control_counters(struct dataplane *dp);

// ---- inject ring [control]: a frame from the twin of port_idx, to be sent by the worker that owns its transmit queue
// 0, -ENOBUFS (no mbuf), -EAGAIN (ring full), -EMSGSIZE.
int dataplane_inject(struct dataplane *dp, uint32_t port_idx, const void *frame, uint32_t len);

// ---- next hops that workers miss [control]
struct dataplane_wanted {
	struct address address; // neighbour to resolve
	uint8_t port_idx;
};
uint32_t dataplane_take_wanted(struct dataplane *dp, struct dataplane_wanted *out, uint32_t max);
// Workers hold at most 32 packets per missing next hop, 1024 in all, for at most 1 s; they look again when the snapshot or
// an entry changes.
