// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// The cluster as a model: objects of the API go in as the watch brings them, what each Service means comes out, one change
// at a time. Pure (jansson); no clock, no I/O; control thread.
//
//   put, remove, begin..end ─► objects (compact) ─► queue of Services that may have changed ─► kube_cluster_next ─► change
//
// What a Service is to be follows from the objects alone, whatever the order they came in (kubernetes.md 2, 3, 5), with two
// exceptions that are wanted: where an object is refused, its last good version stays in force; and where its status has other addresses
// than the annotation `allocation` beside it was written for, those that were in force and are of the annotation stay.
//
// The order of calls: reflectors feed all resources; when kube_cluster_is_synced, and after every batch of events, the caller
// drains kube_cluster_next until it gives false. Nothing is given before every resource has been listed once.
//
// Cost: a put of one slice is a decode and a look-up; the drain works on the Services that may have changed and no others. A
// complete list of what is known already gives no change.

#include <jansson.h>

#include "base.h"
#include "kube.h"
#include "net.h"
#include "service.h"

enum kube_cluster_resource {
	KUBE_CLUSTER_SERVICES,   // v1 services
	KUBE_CLUSTER_SLICES,     // discovery.k8s.io/v1 endpointslices
	KUBE_CLUSTER_NODES,      // v1 nodes
	KUBE_CLUSTER_NAMESPACES, // v1 namespaces: labels, for the selectors of pools
	KUBE_CLUSTER_POOLS,      // sluice-lb.github.io/v1alpha1 addresspools
	KUBE_CLUSTER_PODS,       // v1 pods: those with the readiness gate
	KUBE_CLUSTER_RESOURCES,
};

struct kube_cluster_config { // borrowed texts are copied
	struct service_defaults defaults;
	const char *class_name; // loadBalancerClass of Services that are ours; NULL, "": none
	bool is_default_class;  // Services without a class are ours too
	const char *zone;       // zone of this machine: hints count; NULL, "": they do not
	const char *finalizer;  // NULL: sluice-lb.github.io/vip
	const char *gate; // condition type of the readiness gate; NULL: sluice-lb.github.io/healthy
	const struct prefix
		*refused; // endpoints in these are refused: own, management, API server addresses
	uint32_t n_refused;
	uint32_t
		resources; // bits 1 << enum kube_cluster_resource: what is watched; services, slices and nodes always are
	struct hash_key key; // random, of the maps
	// May the Service `name` of `namespace` have this VIP? Asked when the object or a recheck comes; labels of the Service and of its
	// namespace can be read by then. NULL: it may.
	bool (*allowed)(
		void *arg, const char *namespace, const char *name, const struct address *vip);
	void *arg;
};

struct kube_cluster; // heap; control thread

// NULL: out of memory.
struct kube_cluster *kube_cluster_create(const struct kube_cluster_config *config);
void kube_cluster_destroy(struct kube_cluster *c);

// ---------------------------------------------------------------- objects in
// The sink of a reflector. Between begin and end, what is not put is gone with end; nothing goes before. A begin without end
// (the list broke) takes nothing away. A put of what is known already (same uid and resourceVersion, or equal content) changes nothing.
// An object that makes no sense is refused alone, its last good version stays. 0, or -ENOMEM: list that resource anew.
void kube_cluster_begin(struct kube_cluster *c, enum kube_cluster_resource resource);
int kube_cluster_put(
	struct kube_cluster *c, enum kube_cluster_resource resource, const json_t *object);
// namespace: "" or NULL for nodes, namespaces, pools.
void kube_cluster_remove(struct kube_cluster *c, enum kube_cluster_resource resource,
	const char *namespace, const char *name);
// The object is there, in a form that could not be taken (sink->bad): a list that has it so takes nothing away.
void kube_cluster_keep(struct kube_cluster *c, enum kube_cluster_resource resource,
	const char *namespace, const char *name);
void kube_cluster_end(struct kube_cluster *c, enum kube_cluster_resource resource);
// Every resource that is watched has seen an end.
bool kube_cluster_is_synced(const struct kube_cluster *c);

// The answers of `allowed` may have changed (pools): asks again for every Service.
void kube_cluster_recheck(struct kube_cluster *c);
// Other refused prefixes; looks at every Service again.
int kube_cluster_set_refused(
	struct kube_cluster *c, const struct prefix *refused, uint32_t n_refused);
// Other defaults (a reload). Takes the place of the old ones when an object is put again, so list Services anew; the next complete
// list takes every Service for changed.
void kube_cluster_set_defaults(struct kube_cluster *c, const struct service_defaults *defaults);

// ---------------------------------------------------------------- changes out
enum kube_change_kind {
	KUBE_PUT,    // serve it as in `service`
	KUBE_REMOVE, // serve nothing of it (no longer): gone, not ours, no address yet, lost its address to another Service
	KUBE_KEEP,   // what is served stays as it is; something else of the change is new
};

enum kube_expose { KUBE_EXPOSE_NONE, KUBE_EXPOSE_SERVICE, KUBE_EXPOSE_ENDPOINTS };
enum kube_families { KUBE_SINGLE_STACK, KUBE_PREFER_DUAL_STACK, KUBE_REQUIRE_DUAL_STACK };

// What a Service asks of address management. Meaningless unless is_wanted.
struct kube_wants {
	bool is_wanted;      // ours, not being deleted, and its newest form is good
	uint8_t families[2]; // 4 or 6, in order of preference
	uint32_t n_families;
	enum kube_families policy;
	struct address requested[2]; // annotation `addresses`, else spec.loadBalancerIP
	uint32_t n_requested;
	const char *pool;        // annotation `address-pool`, "" = any
	const char *sharing_key; // annotation `sharing-key`, "" = does not share
	const struct service_listener *ports;
	uint32_t n_ports;
	const char *backend_key; // "" for policy Cluster, the selector's text for Local
	bool is_proxy_mode;      // annotation `ip-mode`: Proxy
};

struct kube_ingress { // as recorded: in status, or (expose) in the annotation `assigned`
	struct address address;
	bool is_proxy_mode;
};

// Endpoints that do not terminate, from one change to the next: how many of those that were given last the new form lacks
// altogether, not even as terminating ones, and how many it has that were not (reliability.md F6). kube_shrink.h adds them up.
struct kube_shrink {
	uint32_t n_before;
	uint32_t n_gone;
	uint32_t n_new;
	uint32_t n_now;
};

// Everything is borrowed until the next call of any function of the model that is not const.
//
// expose `endpoints`: beside the change of the object itself (hostname "", nothing served, nothing wanted: its findings, its
// finalizer) one for every hostname, with a service named <hostname>.<object>. The record of them all is one annotation of the object,
// `assigned`: {"web-0": "203.0.113.10,2001:db8::10"}; of expose `service`: 203.0.113.10,2001:db8::10.
struct kube_change {
	enum kube_change_kind kind;
	const char *namespace;
	const char *name;     // of the service, as in `service`
	const char *object;   // metadata.name of the Service object
	const char *hostname; // expose `endpoints`, else ""
	const char *uid;
	const char *resource_version;
	int64_t generation; // metadata.generation, 0 = none
	const char
		*created; // creationTimestamp as written, "" = none: RFC 3339 in UTC sorts as text
	const char *labels;            // as kube_cluster_service_labels
	const struct service *service; // KUBE_PUT, else NULL
	bool is_gone; // there is no such object (any more): nothing can be written to it
	bool is_ours; // by type and class, or exposed. Not ours, and not gone: nothing but the finalizer may be written
	bool is_refused; // its newest form is refused as a whole, for the reasons in findings; what was good before is served
	bool is_deleting;        // deletionTimestamp is there
	bool has_finalizer;      // ours
	bool wants_no_finalizer; // it has our finalizer and nothing more to be cleaned up: take it off
	bool to_nodes;           // its backends are nodes, not endpoints
	enum kube_expose expose;
	struct kube_wants wants;
	const struct kube_ingress *ingress;
	uint32_t n_ingress;
	uint32_t n_endpoints; // of the form that is served, and of these, how many are ready
	uint32_t n_ready;
	struct kube_shrink shrunk;
	uint64_t
		trigger_ms; // wall clock of the newest endpoints.kubernetes.io/last-change-trigger-time since the change before, 0 = unknown
	// Refused: why, with path and the allowed values. Otherwise what was left out of it: endpoints, addresses, by name.
	const struct error *findings;
};

// Takes the next change. false: there is none (now, or before the model is synced). A Service that loses an address is
// given before the one that gets it, so that changes can be applied one by one.
bool kube_cluster_next(struct kube_cluster *c, struct kube_change *out);
// resourceVersion of the object as last seen, for a write that must not meet another; "" when unknown. (It alone makes no change.)
const char *kube_cluster_resource_version(
	const struct kube_cluster *c, const char *namespace, const char *object);
// Takes a change back into the queue, for a caller that could not apply it; it comes again, whole, as the last one.
void kube_cluster_again(struct kube_cluster *c, const char *namespace, const char *object);

// ---------------------------------------------------------------- labels and pools
// Labels of a Service, of a namespace: sorted lines "key=value\n"; "" when unknown. Borrowed until the object changes.
const char *kube_cluster_service_labels(
	const struct kube_cluster *c, const char *namespace, const char *name);
const char *kube_cluster_namespace_labels(const struct kube_cluster *c, const char *namespace);
// meta/v1 LabelSelector (matchLabels, matchExpressions In, NotIn, Exists, DoesNotExist) against such lines. NULL and {} match
// everything; a selector that makes no sense matches nothing.
bool kube_selector_matches(const json_t *selector, const char *labels);

struct kube_pool { // an AddressPool as written; borrowed
	const char *name;
	const char *uid;
	const char *resource_version;
	const char *created; // creationTimestamp as written, "" = none
	int64_t generation;
	bool is_deleting;
	const json_t *spec;               // an object
	const struct error *findings;     // types of the spec's members; n_items 0 = good
	const json_t *addresses;          // array of strings: prefixes, ranges
	int64_t priority;                 // 0
	bool auto_assign;                 // true
	const json_t *namespaces;         // array of strings, or NULL: all
	const json_t *namespace_selector; // or NULL: all
	const json_t *service_selector;   // or NULL: all
};
// Grows with every change of a pool or of a namespace's labels: then build the pools anew, and kube_cluster_recheck.
uint64_t kube_cluster_pools_generation(const struct kube_cluster *c);
// By index in name order; false: no more.
bool kube_cluster_pool_at(const struct kube_cluster *c, uint32_t idx, struct kube_pool *out);
// Does the pool serve this Service? (namespaces, namespaceSelector and serviceSelector must all agree.)
bool kube_cluster_pool_serves(const struct kube_cluster *c, const struct kube_pool *pool,
	const char *namespace, const char *name);

// ---------------------------------------------------------------- pods
// A pod that has our readiness gate. Whether it is healthy is control's to say, by its addresses.
struct kube_pod {
	const char *namespace;
	const char *name;
	const char *uid;
	const char *resource_version;
	struct address addresses[2]; // status.podIPs, one of a family
	uint32_t n_addresses;
	bool is_gone;    // or has the gate no more
	bool is_marked;  // the condition is there
	bool is_healthy; // and True
};
// Takes the next pod that is new, changed or gone; false: none.
bool kube_cluster_next_pod(struct kube_cluster *c, struct kube_pod *out);
// false: no such pod, or without the gate.
bool kube_cluster_find_pod(const struct kube_cluster *c, const char *namespace, const char *name,
	struct kube_pod *out);

// ---------------------------------------------------------------- counts
struct kube_cluster_counts {
	uint32_t n_services; // all objects; and those that are ours
	uint32_t n_ours;
	uint32_t n_refused; // of ours
	uint32_t n_slices;
	uint32_t n_endpoints; // in all slices
	uint32_t n_nodes;
	uint32_t n_eligible_nodes;
	uint32_t n_namespaces;
	uint32_t n_pools;
	uint32_t n_pods;
	uint64_t n_bad_objects; // puts refused since the start
	uint64_t n_changes;     // given since the start
};
struct kube_cluster_counts kube_cluster_count(const struct kube_cluster *c);
