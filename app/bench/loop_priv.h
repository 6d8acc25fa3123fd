// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// The worker loop as it is, over null ports (or rings): the driver gives bursts of empty buffers and takes what is sent. A callback
// at the port's receive side writes the frames (the feeder), one at its transmit side looks at what left. Both run in the
// worker's thread. Flows are fullnat; the feeder opens each by SYN, SYN-ACK, ACK, learning its source port on the way out.
//
// One device per process, so each of these benches runs in a process of its own, forked before the parent's EAL starts.

#include <pthread.h>
#include <sched.h>

#include "bench_priv.h"
#include "dataplane.h"
#include "service.h"
#include "snapshot_build.h"

#define LOOP_WORKERS_MAX 2
#define LOOP_FLOWS       1024 // of each worker: their frames stay in the second-level cache
#define LOOP_FRAME       60
#define LOOP_BACKENDS    64

enum loop_feed {
	LOOP_SILENT, // nothing arrives
	LOOP_OPEN,   // one frame of each flow, in order: `open_frames`
	LOOP_OWN,    // clients' packets and replies of this worker's flows, at random
	LOOP_CROSSWISE, // ... but the replies are of the other worker's flows: half of all packets change workers
	LOOP_OTHERS, // what the port itself received
};

struct loop_frame {
	uint8_t bytes[64];
};

struct loop;

// [worker] except `feed`, `open_*`, which control writes while the worker is silent (release/acquire on `feed`).
struct loop_feeder {
	struct loop *loop;
	uint32_t feed; // enum loop_feed
	uint32_t n_opened;
	const struct loop_frame *open_frames;
	uint64_t random;
	uint64_t n_fed;
	clockid_t clock;    // processor time of the worker's thread
	uint32_t has_clock; // release/acquire
	struct rte_mempool *pool;
	// Called at each poll and for each burst that leaves; NULL: nothing. Set before the data plane starts.
	void (*on_poll)(struct loop_feeder *f);
	void (*on_sent)(struct loop_feeder *f, struct rte_mbuf **mbufs, uint32_t n);
	void *arg;
	struct loop_frame *of_client;       // [LOOP_FLOWS]
	struct loop_frame *of_backend;      // [LOOP_FLOWS]
	const struct loop_frame *of_others; // of_backend of the other worker
	struct loop_frame *syn_ack;         // [LOOP_FLOWS]
	struct loop_frame *syn;             // [LOOP_FLOWS]
} __attribute__((aligned(64)));

struct loop {
	struct device *device;
	struct dataplane *dataplane;
	struct log log;
	uint32_t n_workers;
	struct service_store *store;
	struct snapshot_registry *registry;
	struct snapshot *snapshot;
	uint64_t generation;
	struct nexthop_fib *fib;
	struct nexthop_entry hop;
	struct snat_config snat;
	struct loop_feeder feeders[LOOP_WORKERS_MAX];
};

// What happened between two looks.
struct loop_span {
	double wall_ns;
	double cpu_ns[LOOP_WORKERS_MAX]; // processor time of each worker's thread
	double received[LOOP_WORKERS_MAX];
	double sent[LOOP_WORKERS_MAX];
	double busy_ns[LOOP_WORKERS_MAX]; // of turns with packets
	double polls[LOOP_WORKERS_MAX];
	double dropped; // by all, by any name
};

// Processors that this process may use; the workers' are the last ones.
uint32_t loop_cpus(int cpus[CPU_SETSIZE]);
// EAL, ports, tables. Packets come in by the first port and leave by the last. Ends the program when something does not
// come up.
void loop_init(struct loop *l, uint32_t n_workers, const char *const *devices, uint32_t n_devices);
void loop_fini(struct loop *l);
// Data plane with open flows (n_flows: LOOP_FLOWS of each worker, or 0).
void loop_start(struct loop *l, enum device_idle idle, bool with_flows);
void loop_stop(struct loop *l);
void loop_feed(struct loop *l, uint32_t worker, enum loop_feed feed);
// The service with another number of backends, not in force yet.
void loop_put_service(struct loop *l, uint32_t n_backends);
// Compiles the store and puts it in force; the former snapshot is destroyed when no worker can hold it.
void loop_publish(struct loop *l);
// A frame of the feeder of worker 0 for a generator of the caller's own.
void loop_put_frame(struct loop *l, struct rte_mbuf *mbuf, uint32_t flow);
// ns that the feeder itself takes for a packet.
double loop_feeder_ns(struct loop *l);
// sign -1: begins a span, 1: ends it.
void loop_look(const struct loop *l, struct loop_span *out, double sign);
void loop_measure(struct loop *l, uint32_t ms, struct loop_span *out);
void loop_sleep_ms(uint32_t ms);
// Packets sent per second of processor time, all workers together.
double loop_rate(const struct loop *l, const struct loop_span *span);
