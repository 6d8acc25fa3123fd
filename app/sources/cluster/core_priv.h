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
#include "kube_pool.h"
#include "kube_reflector.h"

struct cluster_feed { // [feed.c]
	struct source_cluster *cluster;
	enum kube_cluster_resource resource;
	struct kube_reflector *reflector; // NULL: not followed
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

// What is remembered of a Service object. [record.c]
struct cluster_record {
	struct cluster_record *next;
	char *namespace; // one allocation with name
	char *name;
	uint64_t told; // hash of the findings that were noted last, 0 = none
};

struct cluster_records {
	struct cluster_record **chains;
	uint32_t mask, n;
};

struct cluster_outage; // outage.c
struct cluster_access; // access.c

struct source_cluster {
	struct control *control;
	struct event_base *base;
	struct cluster_voice voice;
	struct cluster_auth *auth;
	struct cluster_http *http;
	struct kube_cluster *model;
	struct cluster_feed feeds[KUBE_CLUSTER_RESOURCES];
	struct event *drain; // of changes, a slice at a time
	bool is_applied;     // the first whole state is in force
	struct cluster_records records;
	// pools
	struct ipam *ipam;
	struct cluster_pool *pools;
	uint32_t n_pools;
	uint64_t pools_generation; // of the model, as ipam has it
	// texts of the configuration
	char *namespace, *node_name, *finalizer;
	struct cluster_access *access;
	struct cluster_outage *outage;
	// counts
	uint64_t n_applied;
	uint64_t n_apply_errors;
	uint64_t applied_wall_ms; // of the last change, 0 = never
};

uint64_t cluster_now_ns(void);

// ---------------------------------------------------------------- feed.c
const char *cluster_resource_name(enum kube_cluster_resource resource); // "services"
int cluster_feed_init(
	struct cluster_feed *feed, struct source_cluster *c, enum kube_cluster_resource resource);
void cluster_feed_fini(struct cluster_feed *feed);
void cluster_feed_start(struct cluster_feed *feed); // does nothing when it is followed already
void cluster_feed_wake(struct cluster_feed *feed);  // credentials changed

// ---------------------------------------------------------------- apply.c
// Everything that the model has to say for the first time, in one stroke. 0 or -errno (said, tried again).
int cluster_apply_first(struct source_cluster *c);
void cluster_apply(struct source_cluster *c, const struct kube_change *change);

// ---------------------------------------------------------------- record.c
// NULL: out of memory, or (with `create` false) none.
struct cluster_record *cluster_record_find(
	struct cluster_records *records, const char *namespace, const char *name, bool create);
void cluster_record_remove(
	struct cluster_records *records, const char *namespace, const char *name);
void cluster_records_fini(struct cluster_records *records);

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

// ---------------------------------------------------------------- cluster.c
void cluster_drain_soon(struct source_cluster *c);
