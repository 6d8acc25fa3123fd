// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// The control loop's state, by the file that owns each part. Everything here belongs to the thread of the loop.

#include "control.h"
#include "snapshot_build.h"

#define CONTROL_EVENTS         1024
#define CONTROL_SYNCED_MAX     8
#define CONTROL_QUESTIONS_MAX  64
#define CONTROL_FLOWS_MAX      10000 // of one answer
#define CONTROL_QUESTION_MS    1000
#define CONTROL_TICK_MS        1000
#define CONTROL_RETIRE_TICK_MS 5
#define CONTROL_NONE           UINT32_MAX // end of a chain

// PART: compile what the store says has changed, and backends whose verdict did (control_touch); BUILD: everything.
enum control_work { CONTROL_WORK_BUILD = 1, CONTROL_WORK_FIB = 2, CONTROL_WORK_PART = 4 };
#define CONTROL_TOUCHED_MAX 64

// A FIB is shared by the snapshots that were built with it.
struct control_fib {
	struct nexthop_fib *fib;
	uint32_t n_users;
};

// A snapshot no longer published, waiting until no worker can still hold it.
struct control_retired {
	struct snapshot *snapshot;
	struct control_fib *fib;
	uint64_t token;
};

// Backend ids and slots given back by one publication; their numbers stay out of use until nothing can carry them.
struct control_release {
	uint64_t begin_ns;
	uint64_t pass;   // what the registry was told
	uint64_t sweeps; // dataplane_sweeps then
	uint64_t due_ns; // a flow without packets is gone by then
	uint32_t *backend_ids;
	uint32_t n_backend_ids, backend_ids_cap;
};

// What was last said of a backend, by backend id.
struct control_memory {
	uint8_t state; // enum health_state
	bool known;
	int64_t since_ms;
};

struct control_watched { // one probe
	struct control_probe probe;
	struct health_probe health;
	bool used;
	uint32_t n_users;                        // backends of listeners that want it
	const struct control_followed *follower; // whose they are, unless it is shared
	bool is_shared;                          // several may want it
	uint32_t next;                           // in its hash chain, or in the free list
};

struct control_followed { // probes of one service: indices into watched, one for each backend of a listener
	const struct service *service; // as it was followed; gone when the store has another one
	uint32_t n_probes;
	uint32_t probes[];
};

enum control_hop_use { CONTROL_HOP_GATEWAY = 1, CONTROL_HOP_BACKEND = 2, CONTROL_HOP_CLIENT = 4 };
enum control_hop_life {
	CONTROL_HOP_FREE,    // never used, or safe to use again
	CONTROL_HOP_LIVE,    // has its index
	CONTROL_HOP_RESTING, // left the FIB; flows may still carry its index
};
struct control_hop {        // by next-hop index
	uint64_t wanted_ns; // last asked for by a worker, or learnt
	uint64_t failed_ns; // since when it fails; 0 = it does not
	uint64_t asked_ns;  // last resolve
	uint64_t sweeps;    // when it began to rest
	uint32_t next;      // hash chain or free list
	uint8_t port_idx;
	uint8_t use; // control_hop_use bits
	uint8_t life;
	bool marked;
	bool in_fib;
};

struct control_question {
	uint64_t id; // 0 = free
	uint8_t kind;
	struct event *timer;
	void *arg;
	// explain
	void (*explained)(
		void *arg, const struct pipeline_explanation *explanation, uint16_t worker);
	struct pipeline_explanation best;
	uint16_t best_worker;
	uint32_t n_waiting;
	uint32_t n_answers;
	// flows
	void (*listed)(void *arg, const struct control_flow *flows, uint32_t n, uint64_t next);
	struct dataplane_flow_filter *filter;
	struct control_flow *flows;
	uint32_t n_flows;
	uint32_t limit;
	uint32_t n_asked;
	uint64_t position;
	// purge
	uint32_t backend_id;
	uint32_t worker_idx;
};

struct control {
	struct control_config config;
	struct log log;
	struct event_base *base;
	int64_t started_ms;
	struct clock clock;
	int (*reload)(void *arg, struct error *err);
	void *reload_arg;
	void (*punt)(void *arg);
	void *punt_arg;
	struct event *tick;

	// data plane (borrowed)
	struct device *device;
	struct dataplane *dp;
	struct event *dp_event;
	bool links[DEVICE_PORTS_MAX];

	// desired.c
	struct service_store *store;
	// publish.c
	struct snapshot_registry *registry;
	int numbers_fd; // journal of numbers, -1 = none
	struct hash_key flow_key;
	struct snapshot *published;
	struct control_fib *fib; // of the published snapshot
	uint64_t generation;
	struct event *coalesce; // pending: changes wait for it
	uint32_t work;          // enum control_work bits that wait
	bool is_failed;         // the last build failed; tried again each tick
	bool is_held; // a publication is under way, or whoever called a hook makes one: what hooks ask for waits in `work`
	struct control_retired *retired;
	uint32_t n_retired, retired_cap;
	struct event *retire;
	struct control_release *releases;
	uint32_t n_releases, releases_cap;
	uint64_t release_pass;
	uint64_t own_hash; // of the own addresses last told to the twins
	struct address
		touched[CONTROL_TOUCHED_MAX]; // their verdicts have changed since the last build
	uint32_t n_touched;
	struct control_memory *memory;
	uint32_t n_memory;
	uint64_t remembered_generation; // of the store
	struct {
		char source[32];
		bool synced;
	} synced[CONTROL_SYNCED_MAX];
	uint32_t n_synced;
	void (*cluster_hook)(void *arg, struct control_cluster *out);
	void *cluster_arg;
	int (*release_hook)(void *arg, const char *namespace, const char *name);
	void *release_arg;

	// probes.c
	struct control_watched *watched;
	uint32_t n_watched, watched_cap, free_watched;
	uint32_t *probe_chains;
	uint32_t n_probe_chains; // power of two
	uint32_t n_probes;
	struct control_followed **followed; // in the order of the store, as it was then
	uint32_t n_followed;
	uint64_t
		followed_generation; // of the store, up to which probes and neighbours have followed
	uint64_t followed_names;
	bool is_follow_torn; // it was not finished: everything has to be gone through
	struct control_probe_hooks probe_hooks;
	void *probe_arg;
	uint64_t random;

	// hops.c
	struct nexthop_table hops_table;
	struct control_hop *hops;
	uint32_t n_hops;
	uint32_t n_live_hops;
	uint32_t free_hop_first,
		free_hop_last; // first in, first out: an index rests as long as can be
	uint32_t *hop_chains;
	uint32_t hop_chain_mask;
	struct control_route *routes;
	uint32_t n_routes;
	struct nexthop_fib *kernel_fib; // the kernel's routes alone
	uint32_t fib_generation;
	bool is_hop_missed; // a gateway or backend found no free index
	bool is_hop_behind; // some entries may be needed no longer
	uint64_t hops_reconciled_ns;
	struct control_nexthop_hooks hop_hooks;
	void *hop_arg;

	// state.c
	bool services_dirty, overlays_dirty;
	bool is_state_failed; // told once, until a write works again
	uint64_t state_end_ns, state_cost_ns;
	struct event *state_timer; // pending: what is dirty waits for it

	// events.c
	struct control_event *events; // ring
	uint64_t n_events;            // ever

	// questions.c
	struct control_question questions[CONTROL_QUESTIONS_MAX];
	uint64_t next_question;
};

// control.c
uint64_t control_now_ns(const struct control *c);
void control_arm(struct event *timer, uint64_t ns);

// publish.c
// Does `work` now when nothing was published in the last 20 ms, and then its failure comes back here; else with the other
// changes of that time, and a failure is noted and tried again.
int control_publish_init(struct control *c);
int control_change(struct control *c, uint32_t work, struct error *err);
// The same where nobody can be told: a failure is noted and tried again.
void control_change_noted(struct control *c, uint32_t work);
int control_publish_now(struct control *c, uint32_t work, struct error *err);
// The verdict on this address has changed: what of CONTROL_WORK there is to do.
uint32_t control_touch(struct control *c, const struct address *address);
void control_publish_tick(struct control *c);
void control_publish_end(struct control *c);

// desired.c
int control_check_service(
	const struct control *c, const struct service *service, struct error *err);
void control_deadlines_tick(struct control *c);

// probes.c
void control_probes_init(struct control *c);
void control_probes_end(struct control *c);
int control_probes_reconcile(struct control *c); // starts and stops what the store says
// The same for services that have changed, come or gone since.
int control_probes_follow(struct control *c);
// Calls fn for every service that a probe is followed for, and for some that it may be for.
void control_probe_users(struct control *c, const struct control_watched *w,
	void (*fn)(void *arg, const struct service *s), void *arg);
enum health_probe_verdict control_probe_verdict(void *arg, const struct service *s,
	const struct service_listener *l, const struct address *address, uint16_t port);
// The probe that speaks for a backend of a listener, or NULL: none (or not yet).
const struct health_probe *control_find_probe(const struct control *c, const struct service *s,
	const struct service_listener *l, const struct address *address, uint16_t port);
// backends.c
// Port of a backend for a listener, 0: it does not serve it.
uint16_t control_backend_port(const struct service_backend *b, const struct service_listener *l);
void control_backends_remember(struct control *c); // after a publication
void control_remember_service(struct control *c, const char *namespace, const char *name);
void control_note_probe(
	struct control *c, const struct control_watched *w, enum health_probe_verdict before);

// hops.c
int control_hops_init(struct control *c);
void control_hops_end(struct control *c);
void control_hops_reconcile(struct control *c); // gateways and on-link backends have entries
// Those of services that have changed since have; what they no longer need is found by the tick. Before control_probes_follow.
void control_hops_follow(struct control *c);
bool control_is_on_link(void *arg, const struct address *address); // arg: struct control
struct nexthop_fib *control_hops_fib(struct control *c);           // gives a new FIB
void control_hops_wanted(struct control *c);
void control_hops_tick(struct control *c);

// state.c
int control_state_init(struct control *c);
void control_state_dirty(struct control *c, bool services, bool overlays);
void control_state_flush(struct control *c);
void control_state_end(struct control *c);

// questions.c
void control_questions_end(struct control *c);
void control_answers(struct control *c);
void control_purge(struct control *c, uint32_t backend_id);

// numbers.c: the journal that lets a later process adopt flows. init reads what is there, before any number is given.
int control_numbers_init(struct control *c, struct error *err);
void control_numbers_keep(struct control *c); // before a publication
void control_numbers_fini(struct control *c);
