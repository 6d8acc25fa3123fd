// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// The state of the cluster source, by the file that owns each part.
//
//   feed.c ── one reflector per resource: requests out, bytes in ──► model ──► cluster.c drains its changes ──► apply.c ──► control
//   pools.c ─ pools of the configuration and of the cluster; which VIPs may be served
//   access.c  may we do what we must: asked at start, said by name
//   outage.c  last good state on disk

#include "cluster.h"
#include "cluster_priv.h"
#include "ipam.h"
#include "kube_cluster.h"
#include "kube_encode.h"
#include "kube_lease.h"
#include "kube_pool.h"
#include "kube_reflector.h"
#include "kube_shrink.h"

struct cluster_feed_source {
	const char *name;
	const char *path;
	const char *kind;
	bool is_optional; // the API may not have it
	bool is_waivable; // taken for empty where it may not be read
};

struct cluster_feed { // [feed.c]
	struct source_cluster *cluster;
	struct cluster_feed_source source;
	enum kube_cluster_resource resource; // of the model
	const struct kube_sink *sink;        // instead of the model, NULL: the model
	struct kube_reflector *reflector;    // NULL: not followed
	struct cluster_call *call;
	struct event *timer;
	enum kube_trouble told; // trouble that was noted last
	bool is_waived;         // taken for empty, because it may not be read
	bool is_lost;           // an object had no room: list anew
	uint32_t n_listed;      // objects since the last list began
	uint64_t n_errors;
	char last_error[256];
};

struct cluster_pool { // of the configuration; owns its texts
	char *name;
	struct ipam_range *ranges;
	uint32_t n_ranges;
	uint32_t priority;
	bool auto_assign;
	char **namespaces;
	uint32_t n_namespaces;
};

// What is remembered of a Service, or (expose `endpoints`) of a hostname of one: by the name it is served under. [record.c]
struct cluster_record {
	struct cluster_record *next;
	char *namespace; // one allocation with name
	char *name;
	uint64_t told; // hash of the findings that were noted last, 0 = none
	uint32_t
		first_idx; // in the first state while that is gathered, counted from 1; 0 = not in it
	// as the model gave it last [apply.c -> writer.c]
	bool is_known; // it was given at least once
	bool is_ours, is_refused, is_deleting, wants_no_finalizer, is_wanted;
	uint8_t expose; // enum kube_expose
	char *object;   // metadata.name
	char *uid;
	int64_t created_s;
	int64_t generation;
	bool is_proxy_mode;
	struct address recorded[IPAM_FAMILIES]; // in the object
	uint32_t n_recorded;
	uint64_t placed; // version of Services with which they were first seen there
	uint32_t n_endpoints, n_ready;
	char *refusal;                   // first finding, NULL: none
	struct kube_ingress_port *ports; // of its good form; errors: writer.c fills them in
	uint32_t n_ports;
	// as the object has it [feed.c -> writer.c]
	struct kube_seen seen;
	// what it gets, where this node leads [addresses.c]
	bool has_answer;
	struct address addresses[IPAM_FAMILIES];
	uint32_t n_addresses;
	char pool[256];
	uint64_t form;
	enum ipam_reason reason;
	char *reason_text;
	// endpoints that vanished [guard.c]
	struct cluster_guard {
		struct kube_shrink_window window;
		uint64_t until_ns; // 0 = off
		uint32_t n_kept;   // in force, though the cluster has them no more
	} guard;
	// to be written [writer.c]
	struct cluster_record *next_write;
	bool is_queued, is_writing;
	uint64_t not_before_ns; // after a refusal, or a write that was not urgent
	uint8_t told_health;    // Events: 0 nothing yet, 1 good, 2 bad
	bool told_programmed;
};

struct cluster_records {
	struct cluster_record **chains;
	uint32_t mask, n;
};

struct cluster_outage;      // outage.c
struct cluster_leases;      // lease.c
struct cluster_writer;      // writer.c
struct cluster_voices;      // events.c
struct cluster_pool_status; // pool_status.c
struct cluster_gate;        // gate.c
struct cluster_access;      // access.c

struct source_cluster {
	struct control *control;
	struct event_base *base;
	struct cluster_voice voice;
	struct cluster_auth *auth;
	struct cluster_http *http;
	struct kube_cluster *model;
	struct cluster_feed feeds[KUBE_CLUSTER_RESOURCES];
	struct event *drain;         // of changes, a slice at a time
	bool is_applied;             // the first whole state is in force
	struct cluster_first *first; // what is gathered of it [apply.c]
	struct cluster_records records;
	// pools
	struct ipam *ipam;
	struct cluster_pool *pools;
	uint32_t n_pools;
	uint64_t pools_generation;  // of the model, as ipam has it
	struct error pool_findings; // of them all together: path = name of the pool
	struct prefix *refused;     // nobody's, as endpoint or VIP: own addresses, the API server's
	uint32_t n_refused;
	// texts of the configuration
	char *namespace, *node_name, *finalizer;
	struct cluster_access *access;
	struct cluster_outage *outage;
	struct cluster_leases *leases;
	struct cluster_writer *writer;
	struct cluster_voices *voices;
	struct cluster_pool_status *pool_status;
	struct cluster_gate *gate; // NULL: switched off
	uint32_t n_guards;         // records whose guard is on
	struct event *guard;       // looks at them
	// counts
	uint64_t n_applied;
	uint64_t n_apply_errors;
	uint64_t applied_wall_ms; // of the last change, 0 = never
	uint64_t latency[CONTROL_CLUSTER_BUCKETS + 1];
	double latency_sum_s;
};

uint64_t cluster_now_ns(void);

// ---------------------------------------------------------------- feed.c
const char *cluster_resource_name(enum kube_cluster_resource resource); // "services"
int cluster_feed_init(
	struct cluster_feed *feed, struct source_cluster *c, enum kube_cluster_resource resource);
// A resource that is not the model's; the texts are borrowed.
int cluster_feed_init_other(struct cluster_feed *feed, struct source_cluster *c,
	const struct cluster_feed_source *source, const struct kube_sink *sink);
void cluster_feed_fini(struct cluster_feed *feed);
void cluster_feed_start(struct cluster_feed *feed); // does nothing when it is followed already
// What is wrong, with the server and what it was shown, as one line; the last trouble, when it is over.
void cluster_feed_trouble(const struct cluster_feed *feed, char *out, size_t len);
void cluster_feed_wake(struct cluster_feed *feed); // credentials changed
// Asks for everything again: what it means has changed. What is in force stays until the list is whole.
void cluster_feed_relist(struct cluster_feed *feed);

// ---------------------------------------------------------------- apply.c
// Everything that the model has to say for the first time: gathered in slices, put in force in one stroke. 0; -EAGAIN: to be called
// in the next turn of the loop; -ENOMEM: in a while; another -errno (said): it is done, and not all is in force.
int cluster_apply_first(struct source_cluster *c);
void cluster_first_fini(struct source_cluster *c);
void cluster_apply(struct source_cluster *c, const struct kube_change *change);

// ---------------------------------------------------------------- guard.c
// Of a KUBE_PUT: what is to be in force instead, because too many endpoints vanished; NULL: as the change says. gives.
struct service *cluster_guard_take(struct source_cluster *c, const struct kube_change *change);
void cluster_guard_forget(struct source_cluster *c, const char *namespace, const char *name);
void cluster_guard_tick(struct source_cluster *c);                             // each second
int cluster_guard_release(void *arg, const char *namespace, const char *name); // 0, -ENOENT: is off
// What it keeps, in words; the guard is on.
const char *cluster_guard_format(const struct cluster_record *record, char *out, size_t len);

// ---------------------------------------------------------------- record.c
// NULL: out of memory, or (with `create` false) none.
struct cluster_record *cluster_record_find(
	struct cluster_records *records, const char *namespace, const char *name, bool create);
void cluster_record_remove(
	struct cluster_records *records, const char *namespace, const char *name);
void cluster_records_fini(struct cluster_records *records);
// Calls fn for each; fn must not create or remove.
void cluster_records_each(struct cluster_records *records,
	void (*fn)(void *arg, struct cluster_record *record), void *arg);

// ---------------------------------------------------------------- pools.c
int cluster_pools_init(
	struct source_cluster *c, const struct source_cluster_config *config, struct error *err);
void cluster_pools_fini(struct source_cluster *c);
// Takes pools of the cluster over when they changed.
void cluster_pools_look(struct source_cluster *c);
bool cluster_pools_allow(
	void *arg, const char *namespace, const char *name, const struct address *vip);

// ---------------------------------------------------------------- access.c
int cluster_access_start(struct source_cluster *c);
void cluster_access_end(struct source_cluster *c);
uint32_t cluster_access_missing(
	const struct source_cluster *c); // rules that are known to be missing

// ---------------------------------------------------------------- outage.c
// Puts the last good state in force where there is one.
int cluster_outage_start(
	struct source_cluster *c, const struct source_cluster_config *config, bool *out_loaded);
void cluster_outage_changed(struct source_cluster *c); // something of ours in force changed
void cluster_outage_end(struct source_cluster *c);     // writes what waits
uint64_t cluster_outage_saved(const struct source_cluster *c);

// ---------------------------------------------------------------- lease.c
int cluster_leases_start(struct source_cluster *c, const struct source_cluster_config *config);
void cluster_leases_end(struct source_cluster *c); // gives the lead back
void cluster_leases_wake(struct source_cluster *c);
const struct cluster_feed *cluster_leases_feed(const struct source_cluster *c);
bool cluster_leases_lead(const struct source_cluster *c); // at this moment
const char *cluster_leases_leader(const struct source_cluster *c);
void cluster_leases_tick(struct source_cluster *c); // each second: says it when nobody leads
// Everything up to this version of Services is in force here.
void cluster_leases_applied(struct source_cluster *c, uint64_t version);
// On how many of the nodes that are alive is a version in force? 0 = no version: on none.
void cluster_leases_count(const struct source_cluster *c, uint64_t version,
	uint32_t *out_programmed, uint32_t *out_nodes);

// ---------------------------------------------------------------- addresses.c
// Of the leader: what the model says that a Service wants, to ipam; and what ipam answers, to the records.
void cluster_addresses_put(
	struct source_cluster *c, struct cluster_record *record, const struct kube_change *change);
void cluster_addresses_remove(struct source_cluster *c, const struct cluster_record *record);
void cluster_addresses_run(struct source_cluster *c);
void cluster_addresses_forget(struct source_cluster *c); // another leads

// ---------------------------------------------------------------- events.c
int cluster_voices_start(struct source_cluster *c);
void cluster_voices_end(struct source_cluster *c);
// An Event on a Service object; only where this node leads.
void cluster_voices_add(struct source_cluster *c, const struct cluster_record *record,
	bool is_warning, const char *reason, const char *action, const char *fmt, ...)
	__attribute__((format(printf, 6, 7)));

// ---------------------------------------------------------------- pool_status.c
int cluster_pool_status_start(struct source_cluster *c);
void cluster_pool_status_end(struct source_cluster *c);
void cluster_pool_status_see(struct source_cluster *c, const json_t *pool);

// ---------------------------------------------------------------- gate.c
int cluster_gate_start(struct source_cluster *c);
void cluster_gate_end(struct source_cluster *c);
void cluster_gate_drain(struct source_cluster *c); // pods that the model has news of

// ---------------------------------------------------------------- writer.c
int cluster_writer_start(struct source_cluster *c);
void cluster_writer_end(struct source_cluster *c);
void cluster_writer_see(
	struct source_cluster *c, const json_t *service); // as it was listed or watched
void cluster_writer_take(struct source_cluster *c, const struct kube_change *change);
// It is gone from the list.
void cluster_writer_unsee(struct source_cluster *c, const char *namespace, const char *name);
void cluster_writer_queue(struct source_cluster *c, struct cluster_record *record);
// It is about to be removed.
void cluster_writer_forget(struct source_cluster *c, struct cluster_record *record);
bool cluster_record_is_recorded(const struct cluster_record *record); // has what the answer gives
void cluster_writer_lead(struct source_cluster *c, bool is_leading);  // begins, ends
void cluster_writer_count(
	const struct source_cluster *c, uint64_t *out_written, uint64_t *out_refused);
void cluster_writer_recount(struct source_cluster *c); // nodes came, went, or serve more

// ---------------------------------------------------------------- tell.c
void cluster_tell(void *arg, struct control_cluster *out);

// ---------------------------------------------------------------- cluster.c
void cluster_drain_soon(struct source_cluster *c);
