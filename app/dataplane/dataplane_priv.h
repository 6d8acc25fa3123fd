// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// Inside the data plane: one struct worker per worker thread, and the seams between threads.
//
//                    mailbox, inject ─►┌────────┐─► punt (by class), replies, wanted     SPSC rings, all of them
//   control ─ snapshot pointer ───────►│ worker │                                        made at create, freed at destroy
//                                      └──┬──▲──┘
//                re-steer, hand-over ─────┘  └───── re-steer, hand-over of the others
//
// Every ring has one writer thread and one reader thread. A packet is in exactly one place: a port, a burst, a batch, a
// ring, or the wait list; who takes it out of the last one counts its fate.

#include <rte_mbuf.h>
#include <rte_ring.h>
#include <rte_rcu_qsbr.h>

#include "dataplane.h"

#define BACKEND_COUNTERS 65536 // when the configuration does not say
#define RX_SHARE         32    // packets taken from one source before the next one is asked
#define TX_BATCH         128
#define TX_TRIES         3
#define SOURCES_MAX      (DEVICE_PORTS_MAX * 4)
#define RING_RESTEER     2048 // rides out a worker that lost its CPU for a slice of 4 ms
#define RING_HANDOVER    2048
#define RING_INJECT      512
#define RING_MAIL        64
#define RING_WANTED      1024
#define WAIT_PACKETS     1024
#define WAIT_PER_HOP     32
#define WAIT_NS          (1 * CLOCK_S)
#define WAIT_ASK_NS      (100 * CLOCK_MS)
#define SWEEP_NS         (8 * CLOCK_S) // a pass over the whole flow table, at the latest
#define SWEEP_SLICE      48  // records: 2 us at most, whatever they are (sluice-bench ageing)
#define SWEEP_IDLE       64  // slices in a turn without packets, at most
#define MAIL_SLICE       128 // records looked at per turn
#define MAIL_ENDS        12  // flows ended per turn

// ---------------------------------------------------------------- bell (idle.c)
// Wakes one sleeping worker. [anybody rings, the worker waits]
struct bell {
	uint32_t rung;        // futex word
	uint32_t sleeping_us; // length of the sleep that is going on, 0 = awake
} __attribute__((aligned(64)));

void bell_ring(struct bell *bell);
// True when it pays to ring: shorter sleeps end by themselves sooner than the call takes effect.
static inline bool bell_is_far(const struct bell *bell)
{
	return __atomic_load_n(&bell->sleeping_us, __ATOMIC_RELAXED) > 100;
}

// ---------------------------------------------------------------- clock (clock.c) [worker]
// CLOCK_MONOTONIC without a call: the processor's counter times a rate, put right by the kernel's clock once a second.
struct worker_clock {
	uint64_t base_ns; // reading at base_tsc
	uint64_t base_tsc;
	uint64_t gain;    // ns per cycle, in 2^32nds: what readings go by
	uint64_t rate;    // ... as measured last
	uint64_t nominal; // what the machine says of its counter
	uint64_t sync_ns; // the kernel's clock and the counter at the last sync; 0: none yet
	uint64_t sync_tsc;
};
// tsc_hz: what the machine says. The first reading is kernel_ns.
void worker_clock_init(
	struct worker_clock *clock, uint64_t tsc_hz, uint64_t tsc, uint64_t kernel_ns);
// tsc and kernel_ns were read together; last_ns: the last reading that anybody saw. Returns the reading now.
uint64_t worker_clock_sync(
	struct worker_clock *clock, uint64_t tsc, uint64_t kernel_ns, uint64_t last_ns);
static inline uint64_t worker_clock_read(const struct worker_clock *clock, uint64_t tsc)
{
	return clock->base_ns +
	       (uint64_t)((__uint128_t)(tsc - clock->base_tsc) * clock->gain >> 32);
}

// ---------------------------------------------------------------- receive and transmit
struct rx_source {
	uint16_t port_id; // DPDK's
	uint16_t queue;
	uint16_t vlan; // 0: frames are untagged
	uint8_t port_idx;
};

struct arrivals { // taken out of a re-steer ring, their lines asked for: into the next burst
	uint32_t n;
	struct rte_mbuf *mbufs[RX_SHARE];
};

struct tx_batch {
	uint32_t n;
	struct rte_mbuf *mbufs[TX_BATCH];
};

struct tx_way { // of one port, for one worker
	uint16_t port_id;
	uint16_t queue;            // own transmit queue when handover is NULL
	struct rte_ring *handover; // to the worker that owns a queue
	uint16_t owner;
	uint16_t vlan; // 0: frames leave untagged
};

// ---------------------------------------------------------------- wait list (wait.c) [worker]
struct wait_packet {
	struct rte_mbuf *mbuf;
	uint64_t until_ns;
	uint16_t next; // WAIT_END
};
struct wait_hop { // packets that wait for one neighbour, oldest first
	struct address want;
	uint64_t asked_ns;
	uint16_t nexthop; // entry, or NEXTHOP_MISSING
	uint16_t first;
	uint16_t last;
	uint16_t n;
	uint8_t port_idx;
};
#define WAIT_END UINT16_MAX
struct wait_list {
	uint32_t n_packets;
	uint32_t n_hops;
	uint32_t turn;                   // next hop to look at
	uint16_t free;                   // chain of free packets
	uint64_t nexthops;               // a bit (index mod 64) for the entry of each hop
	const struct snapshot *snapshot; // that the hops were resolved with
	uint32_t tags[WAIT_PACKETS];     // hash of each hop, side by side for the search
	struct wait_hop hops[WAIT_PACKETS];
	struct wait_packet packets[WAIT_PACKETS];
};

// ---------------------------------------------------------------- punt admission (punt.c) [worker]
// One bucket of time for all classes; a class may only draw while more than its floor is left, so that lesser classes never
// use up what routing protocols need.
struct punt_bucket {
	uint64_t cost_ns; // of one frame
	uint64_t depth_ns;
	uint64_t tokens_ns;
	uint64_t last_ns;
	uint64_t floor_ns[PIPELINE_PUNT_CLASSES];
};

// ---------------------------------------------------------------- mail
struct mail { // [control] makes and frees; [worker] between mailbox and replies
	struct dataplane_reply reply; // first: control is given its address
	struct dataplane_request request;
};

// ---------------------------------------------------------------- worker
struct worker_face { // [worker writes, others read relaxed]
	uint64_t generation;
	uint64_t n_sweeps;
	uint64_t total_cycles;
	uint32_t n_flows;
	uint32_t is_done; // the thread has left its loop
} __attribute__((aligned(64)));

struct placed { // memory of a table
	void *mem;
	size_t size;
	bool is_mapped; // a file; else from the device
	bool is_kept;   // ... with what was in it
};

struct worker {
	// [worker] what each turn touches
	struct dataplane *dp;
	uint16_t idx;
	uint16_t n_sources;
	uint16_t source_turn;
	uint16_t n_peers; // workers in all
	uint32_t dirty;   // ports with a batch, by bit
	bool posted;      // something for control since the last look
	uint64_t turns;
	uint64_t window_ns; // of the rate that says how quiet it is
	uint64_t window_received;
	uint64_t window_packets;
	uint64_t last_packet_ns;
	uint64_t now_tsc;
	uint32_t empty_turns;    // since the last packet, saturating
	uint32_t sweep_records;  // of one slice of ageing
	uint64_t sweep_slice_ns; // one slice is due every so often
	uint64_t sweep_due_ns;   // when the next one is
	struct worker_clock clock;
	uint64_t first_tsc;
	struct rx_source sources[SOURCES_MAX];
	struct tx_way ways[DEVICE_PORTS_MAX];
	struct rte_ring *resteer_in[DEVICE_WORKERS_MAX];  // by sender; NULL: none
	struct rte_ring *resteer_out[DEVICE_WORKERS_MAX]; // by owner
	struct rte_ring *handover_in[DEVICE_WORKERS_MAX];
	struct rte_ring *inject;
	struct rte_ring *mailbox;
	struct rte_ring *replies;
	struct rte_ring *wanted;
	struct rte_ring *punt[PIPELINE_PUNT_CLASSES];
	struct mail *mail; // request that is being worked on
	uint32_t mail_cursor;
	struct punt_bucket punt_bucket;
	struct dataplane_port_counters ports[DEVICE_PORTS_MAX];
	struct burst burst;
	uint64_t moved_to; // owners of what the last burst gave on, by bit
	struct tx_batch batches[DEVICE_PORTS_MAX];
	struct tx_batch moved[DEVICE_WORKERS_MAX];   // to be re-steered, by owner
	struct arrivals arrived[DEVICE_WORKERS_MAX]; // by sender
	struct wait_list waiting;
	struct pipeline pipeline;
	// [worker writes, others read]
	struct worker_face face;
	struct counters counters;
	// [others write, worker reads]
	struct bell bell;
	// [control]
	uint16_t lcore;
	uint16_t cpu;
	int numa;
	struct placed flows_at;
	struct placed oneway_at;
	void *fragments_mem;
	uint32_t n_asked; // letters out: in the mailbox, at work, or in replies
	bool launched;
} __attribute__((aligned(64)));

struct dataplane {
	// [control writes, workers read: release/acquire]
	const struct snapshot *snapshot __attribute__((aligned(64)));
	uint32_t is_stopping;
	// [workers and control] control wants to be woken: see control_call
	uint32_t control_sleeps __attribute__((aligned(64)));
	int event_fd;
	// set once
	struct device *device __attribute__((aligned(64)));
	const struct log *log;
	struct rte_rcu_qsbr *qsbr;
	struct rte_mempool *control_pool;
	enum device_idle idle;
	uint64_t sleep_ns;
	uint32_t n_ports;
	uint32_t n_workers;
	uint32_t n_backend_counters;
	void *directory; // of adopted flows, or NULL
	const char *variant;
	struct worker *workers[DEVICE_WORKERS_MAX];
	// [control]
	struct counters control_counters;
	bool is_running;
	bool is_stuck; // a worker did not come back: its memory must not be freed
};

// ---------------------------------------------------------------- worker.c [worker]
int worker_main(void *worker);
static inline void worker_drop(struct worker *w, enum drop_reason reason, uint32_t n)
{
	if (n == 0)
		return;
	counters_drop(&w->counters, reason, n);
	__atomic_store_n(&w->counters.drops_last_s[reason], w->pipeline.now_s, __ATOMIC_RELAXED);
}
static inline void worker_add(uint64_t *value, uint64_t n)
{
	__atomic_store_n(value, *value + n, __ATOMIC_RELAXED);
}

// ---------------------------------------------------------------- transmit.c [worker]
void transmit_flush(struct worker *w, uint8_t port_idx);
void transmit_flush_all(struct worker *w);
// n frames for one port, behind those that are in its batch; `mbufs` is used up.
void transmit_burst(struct worker *w, uint8_t port_idx, struct rte_mbuf **mbufs, uint32_t n);
// Hands a batch of `moved` to the worker that owns its packets.
void transmit_move(struct worker *w, uint16_t owner);
static inline void transmit_add(struct worker *w, uint8_t port_idx, struct rte_mbuf *mbuf)
{
	struct tx_batch *batch = &w->batches[port_idx];
	if (batch->n == TX_BATCH)
		transmit_flush(w, port_idx);
	batch->mbufs[batch->n++] = mbuf;
	w->dirty |= 1u << port_idx;
}

// ---------------------------------------------------------------- dispatch.c [worker]
// Every packet of the burst goes where its verdict says.
void dispatch_burst(struct worker *w, struct burst *b);

// ---------------------------------------------------------------- wait.c [worker]
void wait_init(struct wait_list *list);
// Takes packet i of the burst, or drops it by name.
void wait_hold(struct worker *w, struct burst *b, uint32_t i);
// Packet i of the burst is to be forwarded: do packets wait for its next hop? Those go first, now; while they cannot, it waits
// behind them, and true is returned.
bool wait_behind(struct worker *w, struct burst *b, uint32_t i);
// Sends what can go by now, drops what waited too long; looks at a bounded number of hops.
void wait_turn(struct worker *w);
// Takes one packet out, whatever it waits for; NULL: none left. At the end of a worker.
struct rte_mbuf *wait_take(struct wait_list *list);

// ---------------------------------------------------------------- punt.c [worker]
void punt_init(struct punt_bucket *bucket, uint64_t per_s, uint32_t n_workers);
void punt_send(struct worker *w, struct burst *b, uint32_t i);

// ---------------------------------------------------------------- housekeep.c [worker]
void housekeep_turn(struct worker *w);
// Frees fragments that waited for their first one longer than they may; now_ns UINT64_MAX: all.
void give_up_fragments(struct worker *w, uint64_t now_ns);

// ---------------------------------------------------------------- idle.c
// Everything that calls the kernel for a worker, kept out of the files of the packet path.
void idle_enter(struct worker *w); // at the start of the thread
void idle_leave(struct worker *w);
// A turn without a packet: nothing, a pause, or a sleep.
void idle_turn(struct worker *w);
// Puts the clock right by the kernel's, once a second. Returns the reading now, never less than pipeline.now_ns.
uint64_t idle_sync_clock(struct worker *w);
// Tells control that a ring has something, if it wants to know.
void control_call(struct dataplane *dp);
// Control found a ring empty and wants to be called from now on. [control]
void control_rests(struct dataplane *dp);
// Calls itself: something was left in a ring. [control]
void control_call_again(struct dataplane *dp);

// ---------------------------------------------------------------- inherit.c [control], before workers run
struct inheritance {
	struct pipeline *heirs[DEVICE_WORKERS_MAX]; // of every worker, with tables and source ports
	uint32_t n_heirs;
	uint32_t now_s;
	struct hash_key key; // of all tables
	const struct log *log;
	// out:
	uint32_t n_files; // that were read
	uint64_t n_kept;
	uint64_t n_lost;
};
enum inherit_kind { INHERIT_FLOWS, INHERIT_ONEWAY, INHERIT_KINDS };
#define INHERIT_PATH_MAX 320
// File of a worker's table; `more` is what comes behind its name.
void inherit_path(char out[INHERIT_PATH_MAX], const char *dir, enum inherit_kind kind, uint32_t idx,
	uint32_t of, const char *more);
// A table of another capacity makes room for that of this process, and is read later. True: there was one.
bool inherit_set_aside(
	const char *dir, enum inherit_kind kind, uint32_t idx, uint32_t of, uint32_t capacity);
// Takes the source ports of the flows that p's table has from before.
void inherit_in_place(struct inheritance *in, struct pipeline *p);
// Counts the entries that p's one-way table has from before.
void inherit_oneway_in_place(struct inheritance *in, struct pipeline *p);
// Copies those flows of a table to their owners that are confirmed and open, or the others. 0, or -EINVAL with the cause in
// err: nothing can be read.
int inherit_copies(
	struct inheritance *in, const void *mem, size_t size, bool confirmed, struct error *err);
// Copies the entries of a one-way table to the workers that their clients name, where there is room. The memory is changed:
// a private mapping. Result as above.
int inherit_oneway_copies(struct inheritance *in, void *mem, size_t size, struct error *err);
// The same for every file in dir that is of another number of workers, or set aside; then removes it.
void inherit_files(struct inheritance *in, const char *dir);
void inherit_remove_files(const char *dir, uint32_t n_workers);
// Who has which flow, for all heirs: bytes (0: nobody needs to ask), and making it in memory of that size.
size_t inherit_directory_size(const struct inheritance *in);
const struct flow_directory *inherit_directory(
	const struct inheritance *in, void *mem, size_t size);

// ---------------------------------------------------------------- tables.c [control]
// Lays out, or adopts, what outlives the process: the flows of all workers first, which are worth more where room is short. Ended
// by tables_end also when it failed half way.
int tables_make_flows(struct worker *w, const struct dataplane_config *config, struct error *err);
int tables_make_oneway(struct worker *w, const struct dataplane_config *config, struct error *err);
void tables_end(struct worker *w);

// ---------------------------------------------------------------- create.c [control]
int refuse_memory(const char *what, size_t bytes, uint32_t idx, struct error *err);
struct rte_ring *seam_create(struct device *device, uint32_t size, uint32_t item_bytes, int numa);
int worker_create(struct dataplane *dp, const struct dataplane_config *config, uint32_t idx,
	struct error *err);
void worker_destroy(struct worker *w);
