// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// What sluice writes into the cluster: requests with their bodies, and whether one is needed at all. Pure: who asks brings the time and
// sends the request. The Lease has a header of its own (kube_lease.h). Control thread.
//
//   want (struct kube_status) ──► kube_status_settle ◄── seen (64 bytes a Service, from the object as the watch brings it)
//                                       │ NOW, SOON, NONE
//                                       ▼
//                                 kube_write_status ──► PATCH .../status, one server-side apply for ingress, conditions, annotations
//                                                       and finalizer
// Server-side apply: one field manager for all nodes of sluice, force: ingress is ours as a whole, conditions by type. Conditions and
// annotations of others are not touched, because the body does not name them. Every body carries metadata.uid: an object that was
// deleted and made again is not written to (422), and one that is gone is not made (409).
// Answers: 2xx done; 404 done, it is gone; 409 and 422 look again with the newest object; else again later.
// Sources: KEP-555, k/k pkg/registry/core/service/strategy.go, api events/v1, client-go tools/events; shared rules in kubernetes.md 4.

#include <jansson.h>

#include "base.h"
#include "kube.h"
#include "kube_cluster.h"
#include "net.h"
#include "service.h"

#define KUBE_FIELD_MANAGER "sluice-lb.github.io"
#define KUBE_FINALIZER     "sluice-lb.github.io/vip"
#define KUBE_GATE          "sluice-lb.github.io/healthy"
#define KUBE_CONTROLLER    "sluice-lb.github.io/sluice"
#define KUBE_NOTE_MAX      1024 // bytes of an Event's note
#define KUBE_MESSAGE_MAX   512  // bytes of a condition's message; longer ones are cut

// ---------------------------------------------------------------- requests
struct kube_write {
	const char *method;       // "PATCH" "POST"; static, as is the next
	const char *content_type; // of the body
	char *target;             // path and query
	char *body;               // JSON, NUL-terminated
	size_t body_len;
};
void kube_write_fini(struct kube_write *write);

// "2026-01-31T12:00:00Z" of metav1.Time, seconds since 1970. -EINVAL: not that form (a fraction is allowed and cut).
int kube_seconds_parse(const char *text, int64_t *out_s);
const char *kube_seconds_format(int64_t s, char *buf, size_t len); // buf >= 32

// ---------------------------------------------------------------- status of a Service
enum kube_condition_type {
	KUBE_ALLOCATED,
	KUBE_PROGRAMMED,
	KUBE_BACKENDS_HEALTHY,
	KUBE_CONDITIONS
};
const char *kube_condition_name(enum kube_condition_type type); // "sluice-lb.github.io/Allocated"

enum kube_truth { KUBE_ABSENT, KUBE_TRUE, KUBE_FALSE, KUBE_UNKNOWN };

struct kube_condition {
	enum kube_truth truth;          // KUBE_ABSENT: is not written
	const char *reason;             // CamelCase; borrowed
	char message[KUBE_MESSAGE_MAX]; // for people
	int64_t since_s;                // lastTransitionTime: kube_status_settle fills it in
};

// True when k = n and n > 0. "programmed on 2 of 3 nodes"; reasons "Programmed" "PartlyProgrammed" "NotProgrammed".
struct kube_condition kube_condition_programmed(uint32_t k, uint32_t n);
// "3 of 4 backends healthy"; reasons "AllHealthy" "SomeUnhealthy" "NoneHealthy" "NoBackends".
struct kube_condition kube_condition_backends(uint32_t k, uint32_t n);
// Of an ipam answer: reason and text as they are.
struct kube_condition kube_condition_allocated(
	bool is_allocated, const char *reason, const char *text);

// A port of the Service, in each ingress.
struct kube_ingress_port {
	uint8_t protocol;
	uint16_t port;
	const char *error; // why it is not served: CamelCase, with our domain; "" = it is. borrowed
};
#define KUBE_PORT_REJECTED "sluice-lb.github.io/Rejected"

// What the object is to have of ours. Texts are borrowed and not NULL; ingress in order of the families.
struct kube_status {
	const char *namespace;
	const char *name;
	const char *uid;
	const char *
		resource_version; // "" = whatever it is now; a first assignment names the version that it was decided on
	int64_t generation;    // observedGeneration; 0 = the object has none
	const char *finalizer; // "" = none of ours
	const struct kube_ingress *ingress;
	uint32_t n_ingress; // with expose: 0, for the API takes none on other types
	const struct kube_ingress_port *ports; // in every ingress; n_ports 0: not written
	uint32_t n_ports;
	const char *allocation; // annotation of that name: kube_allocation_format; "" = none
	const char *assigned;   // annotation of that name (expose); "" = none
	struct kube_condition conditions[KUBE_CONDITIONS];
};

// What the object has of ours, as last seen: kept per Service by who writes.
struct kube_seen {
	uint64_t hard; // digest of all but messages and generation; 0 = nothing of ours
	uint64_t soft; // of these
	enum kube_truth truths[KUBE_CONDITIONS];
	int64_t since_s[KUBE_CONDITIONS];
	uint64_t form; // ipam form of the annotation `allocation`, 0 = none
};
// Of a Service as listed or watched, or as an answer to a write has it. finalizer: the one of the configuration.
void kube_seen_read(const json_t *service, const char *finalizer, struct kube_seen *out);

enum kube_urgency {
	KUBE_WRITE_NONE, // the object says the same
	KUBE_WRITE_SOON, // only numbers in messages, or observedGeneration: at leisure, so that a rollout does not cost a write per pod
	KUBE_WRITE_NOW   // ingress, truth or reason of a condition, finalizer, annotations
};
// Fills in since_s: as it was where the truth is as it was, else now_s.
enum kube_urgency kube_status_settle(
	struct kube_status *want, const struct kube_seen *seen, int64_t now_s);
int kube_write_status(const struct kube_status *want, struct kube_write *out); // 0, -ENOMEM
// Takes everything of ours off an object that is not ours any more or is being deleted: ingress, conditions, annotations, finalizer,
// whoever wrote them (a strategic merge patch). with_ingress: false leaves status.loadBalancer alone.
int kube_write_release(const char *namespace, const char *name, const char *uid,
	const char *finalizer, bool with_ingress, struct kube_write *out);

// "pool=blue,form=00c0ffee00c0ffee,addresses=0123456789abcdef", the last being a digest of the set of addresses. buf >= 330. Read back:
// false when it is not of this form (without `addresses`: an older one).
struct kube_allocation {
	const char *pool;
	uint64_t form;
	const struct address *addresses;
	uint32_t n_addresses;
};
const char *kube_allocation_format(const struct kube_allocation *a, char *buf, size_t len);
bool kube_allocation_parse(const char *text, char *out_pool, size_t len, uint64_t *out_form);
// Is it of just these addresses? An older one is of none.
bool kube_allocation_is_of(const char *text, const struct address *addresses, uint32_t n);
// Annotation `assigned` of expose: "203.0.113.10,2001:db8::1" for one with hostname "", else {"web-0": "203.0.113.10,..."}, sorted. NULL: out of
// memory; gives.
struct kube_assigned {
	const char *hostname; // "" : expose `service`
	struct address addresses[2];
	uint32_t n_addresses;
};
char *kube_assigned_format(const struct kube_assigned *assigned, uint32_t n);

// ---------------------------------------------------------------- status of an AddressPool
struct kube_pool_status {
	const char *name;
	const char *uid;
	int64_t generation;
	uint64_t assigned[2]; // IPv4, IPv6
	uint64_t available
		[2]; // written as at most 2^53 - 1, so that every reader of JSON has it exactly
	struct kube_condition ready; // condition "Ready"
};
// True: "Accepted". findings: first text as message, "Overlapping" when is_overlap, else "Invalid".
struct kube_condition kube_condition_pool(const struct error *findings, bool is_overlap);
void kube_pool_seen_read(const json_t *pool, struct kube_seen *out);
enum kube_urgency kube_pool_settle(
	struct kube_pool_status *want, const struct kube_seen *seen, int64_t now_s);
int kube_write_pool(const struct kube_pool_status *want, struct kube_write *out);

// ---------------------------------------------------------------- readiness gate of a Pod
// Condition `gate` of the Pod; a server-side apply too. Write it when kube_pod.is_marked or is_healthy differ.
int kube_write_pod(const struct kube_pod *pod, const char *gate,
	const struct kube_condition *condition, struct kube_write *out);

// ---------------------------------------------------------------- Events
// events.k8s.io/v1, with the series rules of client-go: the first of a kind is a POST, its first repeat a PATCH with count 2, further
// ones are only counted; a PATCH with the count every 30 min; after 6 min of silence the series ends with a last PATCH. Same kind: type,
// action, reason, and object (not the note). No answer: again after 10 s (+ up to 25 %), 12 times; 429 and 5xx likewise; any other refusal: dropped.
struct kube_event {
	const char *api_version; // of the object: "v1"
	const char *kind;        // "Service"
	const char *namespace;   // "" = cluster scope: the Event goes to "default"
	const char *name;
	const char *uid;
	const char *reason; // of interfaces.md: "AddressAllocated"
	const char *action; // what was done or tried: "Allocate", 1..128
	bool is_warning;
	const char *note; // cut at KUBE_NOTE_MAX bytes
};

struct kube_series_counts {
	uint64_t n_added;
	uint64_t n_sent;    // requests that succeeded
	uint64_t n_dropped; // queue full, refused, or given up
	uint32_t n_queued;
	uint32_t n_kinds; // remembered
};

struct kube_series;          // heap
#define KUBE_SERIES_MAX 1000 // kinds remembered and waiting

// controller: a qualified name; instance: 1..128 characters, this node's name. NULL: out of memory.
struct kube_series *kube_series_create(const char *controller, const char *instance, uint64_t seed);
void kube_series_destroy(struct kube_series *s);
// now_ns monotonic, wall_us since 1970. 0; -ENOSPC: dropped and counted; -ENOMEM.
int kube_series_add(
	struct kube_series *s, const struct kube_event *event, uint64_t now_ns, int64_t wall_us);
// The next request to send: true, and one is under way until kube_series_answer. false: none now; ask again by *out_until_ns (UINT64_MAX:
// after the next add).
bool kube_series_next(struct kube_series *s, uint64_t now_ns, int64_t wall_us,
	struct kube_write *out, uint64_t *out_until_ns);
void kube_series_answer(struct kube_series *s, uint64_t now_ns, int http_status); // 0 = none came
struct kube_series_counts kube_series_count(const struct kube_series *s);

// ---------------------------------------------------------------- permissions
// One table (kube_rules.def): what is asked at start, what is said when it is missing, and config/kubernetes/rbac.yaml.
enum kube_scope {
	KUBE_SCOPE_CLUSTER,
	KUBE_SCOPE_OWN
}; // a ClusterRole; a Role in our own namespace
enum kube_need { KUBE_NEED_ALWAYS, KUBE_NEED_NAMESPACES, KUBE_NEED_GATE };

struct kube_rule {
	enum kube_scope scope;
	enum kube_need need;  // pools with a namespaceSelector; readiness gates
	const char *group;    // "" = core
	const char *resource; // "services/status"
	const char *verbs[6]; // NULL after the last
	const char *without;  // what does not work without it
};
uint32_t kube_rule_count(void);
const struct kube_rule *kube_rule_at(uint32_t idx);
// Asks the API server about one verb (SelfSubjectAccessReview). own_namespace: of KUBE_SCOPE_OWN.
int kube_write_review(const struct kube_rule *rule, const char *verb, const char *own_namespace,
	struct kube_write *out);
// The answer's status.allowed. -EINVAL: not an answer to a review.
int kube_review_read(const json_t *review, bool *out_allowed);
// "may not patch services/status: VIPs cannot be written to Services; add to ClusterRole sluice: ..." buf >= 512.
const char *kube_rule_complain(
	const struct kube_rule *rule, const char *verb, char *buf, size_t len);
