// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// What the model keeps of each object, and how its parts meet.
//
//   owner (a Service, or the slices of one that is not there)
//     ├─ slices: packed, in one block each
//     ├─ head: the newest good form;  fallback: the one before, as long as the newest has not stood the test of its endpoints
//     └─ faces: what it gives to the store: one, or one for each hostname
//          ├─ wanted claims: (VIP, protocol, port) of the form in force
//          ├─ served claims: those of the last PUT
//          └─ digests of what was given last
//
// Invariants
//   holds(face) = no older face that holds wants one of its claims. Age is a total order, so this has one solution, whatever the
//   order of arrival; it is kept true with every change of claims (kube_claims.c).
//   A face is in the queue whenever what it gives might differ from what it gave.
#include "kube_map_priv.h"
#include "kube_priv.h"

struct kube_owner;
struct kube_face;

// ---------------------------------------------------------------- claims
struct kube_claim {
	struct kube_claim *next; // of its cell
	struct kube_face *face;
	struct address vip;
	uint8_t protocol;
	uint16_t port;
	bool is_served; // else wanted
};

struct kube_claim_set {
	struct kube_claim *items; // one block
	uint32_t n_items;
};

struct kube_claim_map {
	struct kube_claim **cells;
	uint32_t n_cells;
	uint32_t n_claims;
	struct hash_key key;
};

// ---------------------------------------------------------------- objects
// What is read of metadata whether or not the rest makes sense; texts in one block.
struct kube_meta {
	char *block;
	const char *uid;
	const char *resource_version;
	const char *created;
	const char *labels; // lines "key=value\n", sorted
	int64_t generation;
	bool is_deleting;
	bool has_finalizer;
};

// Equal digests: the same content.
struct kube_digest {
	uint64_t halves[2];
};

struct kube_face {
	struct kube_face *next; // of the owner
	struct kube_owner *owner;
	struct kube_face *next_dirty;
	char *hostname; // "" of the first one
	struct kube_claim_set wanted;
	struct kube_claim_set served;
	char *given_uid; // of the object as given last; NULL: never given
	uint64_t *ids;   // endpoints given last and not terminating, sorted
	uint32_t n_ids;
	uint32_t n_endpoints; // given last
	uint32_t n_ready;
	struct kube_digest service_digest; // given last
	struct kube_digest change_digest;
	bool is_dirty;
	bool is_at_work;
	bool holds;
	bool is_served;  // given with KUBE_PUT, and not taken back since
	bool is_refused; // as given last
	bool is_gone;    // goes with its next change
};

struct kube_packed_slice {
	struct kube_object object;
	struct kube_owner *owner;
	struct kube_packed_slice *next; // of the owner
	struct kube_packed_slice *previous;
	struct kube_slice slice; // its arrays and texts lie in block
	void *block;
	uint64_t version; // of uid and resourceVersion; 0 = none
	char *refusal; // packed findings of the newest version, which makes no sense; NULL: it does
};

struct kube_owner {
	struct kube_object object;
	bool has_object;
	bool is_ours;
	bool is_refused; // its newest form does not decode
	bool is_proven;  // head and the endpoints have made a valid service
	bool uses_fallback;
	bool may_clean_up; // not ours: the finalizer may go
	struct kube_meta meta;
	uint64_t version;
	struct kube_service *head; // NULL: not ours, or never good
	struct kube_service *fallback;
	char *refusal; // packed findings of the newest form
	struct kube_packed_slice *slices;
	struct kube_face *faces; // none as long as there is nothing to say
	uint64_t trigger_ms;
};

struct kube_node {
	struct kube_object object;
	struct address addresses[2]; // [0] IPv4, [1] IPv6
	bool has[2];
	bool is_eligible;
	char uid[64];
};

struct kube_namespace {
	struct kube_object object;
	char *labels;
};

struct kube_pool_object {
	struct kube_object object;
	json_t *json;
	struct kube_meta meta;
	struct error findings;
};

struct kube_pod_object {
	struct kube_object object;
	struct kube_pod_object *next_dirty;
	struct kube_pod pod;
	char *block; // uid, resourceVersion
	uint64_t version;
	bool is_dirty;
};

// What next() gave; lives until the next call.
struct kube_given {
	struct service *service;
	struct error findings;
	struct kube_ingress ingress[SERVICE_ADDRESSES_MAX];
	struct kube_face *gone; // to be freed
	char *name;
	char *uid; // of an object that is gone
};

struct kube_cluster { // [control]
	struct kube_cluster_config config;
	char *class_name;
	char *zone;
	char *finalizer;
	char *gate;
	struct prefix *refused;
	uint32_t n_refused;
	uint32_t epochs[KUBE_CLUSTER_RESOURCES];
	uint32_t listing; // bits of resources between begin and end
	uint32_t synced;
	struct kube_map owners;
	struct kube_map slices;
	struct kube_map nodes;
	struct kube_map namespaces;
	struct kube_map pools;
	struct kube_map pods;
	struct kube_claim_map claims;
	struct kube_face **work; // heap: whether they hold is to be found anew
	uint32_t n_work;
	uint32_t cap_work; // >= n_faces
	uint32_t n_faces;
	struct kube_face *first_dirty;
	struct kube_face *last_dirty;
	struct kube_pod_object *first_dirty_pod;
	struct kube_pod_object *last_dirty_pod;
	struct kube_pod_object *gone_pod; // told; freed with the next call
	uint32_t n_objects;               // Services
	uint32_t n_ours;
	uint32_t n_refused_services;
	uint32_t n_endpoints;
	uint32_t n_eligible_nodes;
	uint32_t n_to_nodes; // heads with targets nodes
	uint64_t pools_generation;
	uint64_t n_bad_objects;
	uint64_t n_changes;
	struct kube_given given;
};

// ---------------------------------------------------------------- kube_next.c
void kube_given_fini(struct kube_cluster *c);

// ---------------------------------------------------------------- kube_meta.c
// Reads metadata; -ENOMEM, else 0. The caller frees out->block.
int kube_meta_read(const struct kube_cluster *c, const json_t *object, struct kube_meta *out);
// Of uid and resourceVersion; 0 when one is missing: then nothing can be said.
uint64_t kube_version_of(const json_t *object);
// Namespace (NULL: "") and name of any object; false: it has none that fits.
bool kube_identity_read(const json_t *object, const char **out_namespace, const char **out_name);
// RFC 3339 in UTC ("2026-01-31T12:00:00.25Z") to wall milliseconds; 0: not such a time.
uint64_t kube_time_parse(const char *text);
char *kube_labels_pack(const json_t *labels); // gives; NULL: out of memory
// Findings as one text and back: a struct error is too big to be kept.
char *kube_findings_pack(const struct error *err);
void kube_findings_unpack(const char *packed, struct error *out);

// ---------------------------------------------------------------- kube_owner.c
struct kube_owner *kube_owner_get(
	struct kube_cluster *c, const char *namespace, const char *name); // made when new
// Frees it when nothing is left of it.
void kube_owner_drop(struct kube_cluster *c, struct kube_owner *owner);
int kube_owner_put(struct kube_cluster *c, const json_t *object);
void kube_owner_remove(struct kube_cluster *c, struct kube_owner *owner);
// The form in force; NULL: none.
struct kube_service *kube_owner_form(const struct kube_owner *owner);
// The head has stood the test of its endpoints: no form before it is needed any more.
void kube_owner_prove(struct kube_cluster *c, struct kube_owner *owner);
// Something of it may have changed: its faces are made anew (expose endpoints) and queued.
int kube_owner_touch(struct kube_cluster *c, struct kube_owner *owner);
int kube_owner_refresh(struct kube_cluster *c, struct kube_owner *owner); // claims too
void kube_face_queue(struct kube_cluster *c, struct kube_face *face, bool first);
void kube_face_destroy(struct kube_cluster *c, struct kube_face *face); // not queued
// VIPs of a face as the record has them.
uint32_t kube_face_addresses(const struct kube_face *face, struct address *out);

// ---------------------------------------------------------------- kube_packed.c
int kube_packed_put(struct kube_cluster *c, const json_t *object);
// What is wrong with the newest versions of an owner's slices, among the notes.
void kube_packed_note(const struct kube_owner *owner, struct error *notes);
void kube_packed_remove(struct kube_cluster *c, struct kube_packed_slice *slice);

// ---------------------------------------------------------------- kube_claims.c
// Claims that the face wants from now on, and what follows for it and others (queued).
int kube_claims_want(struct kube_cluster *c, struct kube_face *face, const struct address *vips,
	uint32_t n_vips);
// Makes the served claims those that are wanted / none.
int kube_claims_serve(struct kube_cluster *c, struct kube_face *face);
void kube_claims_unserve(struct kube_cluster *c, struct kube_face *face);
// Another face that is served with a claim that this one wants; NULL: none.
struct kube_face *kube_claims_in_the_way(
	const struct kube_cluster *c, const struct kube_face *face);
// The face to which this one loses, and over what; NULL: it holds.
const struct kube_claim *kube_claims_winner(
	const struct kube_cluster *c, const struct kube_face *face);
void kube_claims_fini(struct kube_claim_map *map);

// ---------------------------------------------------------------- kube_build.c, kube_digest.c
// One face made a service.
struct kube_building {
	const struct kube_face *face;
	const struct kube_service *form;
	struct address vips[SERVICE_ADDRESSES_MAX]; // admitted
	uint32_t n_vips;
	struct error *findings; // why it is none
	struct error *notes;    // who was left out
};
// 0 and a normalised, valid service (gives); -EINVAL, -ENOMEM.
int kube_build(struct kube_cluster *c, const struct kube_building *b, struct service **out);

void kube_digest_add(struct kube_digest *d, const void *bytes, size_t len);
void kube_digest_text(struct kube_digest *d, const char *text); // NULL as ""
// The key is the random one of the maps: so nobody outside can choose two contents that pass for one.
struct kube_digest kube_digest_service(
	const struct hash_key *key, const struct service *s); // normalised
// But for kind, service, and what may differ without meaning.
struct kube_digest kube_digest_change(const struct hash_key *key, const struct kube_change *change);

// ---------------------------------------------------------------- kube_nodes.c
int kube_node_put(struct kube_cluster *c, const json_t *object);
void kube_node_remove(struct kube_cluster *c, struct kube_node *node);
// Backends of a service that goes to nodes. 0, -ENOMEM.
int kube_nodes_join(struct kube_cluster *c, const struct kube_owner *owner, struct kube_service *s,
	struct error *notes);

// ---------------------------------------------------------------- kube_pools.c, kube_pods.c
int kube_namespace_put(struct kube_cluster *c, const json_t *object);
void kube_namespace_remove(struct kube_cluster *c, struct kube_namespace *namespace);
int kube_pool_put(struct kube_cluster *c, const json_t *object);
void kube_pool_remove(struct kube_cluster *c, struct kube_pool_object *pool);
int kube_pod_put(struct kube_cluster *c, const json_t *object);
void kube_pod_remove(struct kube_cluster *c, struct kube_pod_object *pod);
