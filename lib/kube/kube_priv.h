// SPDX-License-Identifier: BSD-3-Clause
#pragma once
#include "kube.h"
#include "kube_cluster.h"

#define KUBE_STEPS_MAX 12
#define KUBE_NOTES_MAX 16 // endpoints and addresses left out that are named; more are counted
#define KUBE_PREFIX    "sluice-lb.github.io/"

// One step of a path from an object of the file: a key, or an index when key is NULL.
struct kube_step {
	const char *key;
	uint32_t idx;
};

struct kube_item {
	const json_t *json; // borrowed from the tree
	size_t at;          // offset of its first character
	uint32_t line;
};

// The state of reading one file.
struct kube_reader {
	const char *text;
	size_t len;
	bool is_list; // a List, not a bare array
	struct kube_item *items;
	uint32_t n_items;
	uint32_t cap_items;
	const struct service_defaults *defaults;
	// Objects of the watch: what only a cluster has is read too, and an endpoint that can be no backend is the join's to leave out.
	bool is_watch;
	const char *zone;                 // whose hints are noted; NULL = nobody's
	const struct kube_screen *screen; // of the join; NULL: everything may come in
	struct error *err;
	uint32_t n_bad;
	uint32_t item_idx; // being read; UINT32_MAX = the file itself
	struct kube_step steps[KUBE_STEPS_MAX];
	uint32_t n_steps;
};

// Where the addresses of a Service come from.
enum kube_vips { KUBE_VIPS_NONE, KUBE_VIPS_STATUS, KUBE_VIPS_ANNOTATION, KUBE_VIPS_SPEC };

// What only the watch has a use for.
struct kube_extras {
	enum kube_expose expose;
	enum kube_families policy;
	uint8_t families[2];
	uint32_t n_families;
	struct address requested[2];
	uint32_t n_requested;
	char *pool;           // NULL = ""; owned, as are the next ones
	char *sharing_key;    // NULL = ""
	char *selector;       // "key=value,key=value", sorted; NULL = ""
	json_t *assigned;     // expose endpoints: hostname to text; may be NULL
	uint16_t *node_ports; // by index of the listener
	uint16_t health_node_port;
	uint16_t proxy_bits; // by index of the address: its ipMode is Proxy
	bool to_nodes;
	bool is_local;
	bool is_proxy_mode;
	bool has_check; // a health-check annotation is there
};

struct kube_service {
	struct service *service; // NULL: of another type, or refused
	json_t *weights;         // by canonical address, pod name or hostname; may be NULL
	uint32_t item_idx;
	enum kube_vips vips;
	uint32_t vip_idx[SERVICE_ADDRESSES_MAX]; // from status: which entry each address is
	struct kube_extras extras;               // is_watch only
};

struct kube_endpoint {
	struct address address;
	struct service_conditions conditions;
	const char *target;   // name of the target, borrowed from the tree; "" if there is none
	const char *hostname; // likewise
	const char *uid;
	const char *node; // likewise
	bool is_pod;      // what `target` names
	bool has_hint;    // hints.forZones names some zone; and the reader's
	bool is_near;
};

struct kube_slice_port {
	const char *name; // borrowed; "" if it has none
	uint8_t protocol;
	uint16_t port;
};

struct kube_slice {
	const char *namespace; // borrowed, as are the next two
	const char *name;
	const char *service;
	uint64_t resource_version; // 0 = opaque
	struct kube_endpoint *endpoints;
	uint32_t n_endpoints;
	uint32_t cap_endpoints;
	struct kube_slice_port *ports;
	uint32_t n_ports;
	uint32_t cap_ports;
	uint32_t item_idx;
};

// What the join lets in, and in whose zone it counts.
struct kube_screen {
	const struct prefix *refused;
	uint32_t n_refused;
	const char *hostname; // only endpoints of this hostname; NULL = all
	bool obeys_hints; // once every ready endpoint has a hint and one is near: those that are not take no new flows
	struct error *notes; // who was left out, and why
};

// ---------------------------------------------------------------- kube_scan.c
// Depth and the place of every item. 0, -EINVAL (too deep, said in err), -ENOMEM. Valid JSON or not.
int kube_scan(struct kube_reader *r);
// false: nested deeper than depth_max; *out_line where.
bool kube_depth_ok(const char *text, size_t len, uint32_t depth_max, uint32_t *out_line);
// Line of the reader's path, or of what is nearest around it.
uint32_t kube_line(const struct kube_reader *r);

// ---------------------------------------------------------------- kube_read.c
void kube_enter(struct kube_reader *r, const char *key);
void kube_enter_idx(struct kube_reader *r, uint32_t idx);
void kube_leave(struct kube_reader *r);
// A finding at the reader's path.
void kube_refuse(struct kube_reader *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
// The same at a member of what the path names.
void kube_refuse_at(struct kube_reader *r, const char *key, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
// Text for a message: quoted, cut, one line. buf >= 80.
const char *kube_quote(const char *text, char *buf, size_t len);
bool kube_is_absent(const json_t *in, const char *key); // or null, which is the same
// Member of an object; NULL when absent, null, or of another type, which is a finding.
const json_t *kube_object(struct kube_reader *r, const json_t *in, const char *key);
const json_t *kube_array(struct kube_reader *r, const json_t *in, const char *key);
const char *kube_text(struct kube_reader *r, const json_t *in, const char *key);
// fallback when absent or null; *out untouched when refused.
bool kube_bool(struct kube_reader *r, const json_t *in, const char *key, bool fallback);
bool kube_integer(struct kube_reader *r, const json_t *in, const char *key, int64_t *out);
// Fields that are known and have no effect here: only their type is looked at.
struct kube_known {
	const char *key;
	json_type type;
};
void kube_check_types(struct kube_reader *r, const json_t *in, const struct kube_known *known);

// ---------------------------------------------------------------- kube_service.c, kube_annotations.c
void kube_service_read(struct kube_reader *r, const json_t *json, struct kube_service *out);
void kube_service_fini(struct kube_service *s);
// The weight of an address, a name or another name in the annotation; else the default.
uint32_t kube_weight(const json_t *weights, const struct address *address, const char *target,
	const char *hostname);
void kube_add_vip(struct kube_reader *r, struct service *s, const struct address *vip);
// Address of the `addresses` annotation go to out_addresses (room for two); the rest into the service.
void kube_annotations_read(struct kube_reader *r, const json_t *metadata, struct kube_service *s,
	struct address *out_addresses, uint32_t *out_n);
int kube_protocol_read(struct kube_reader *r, const json_t *in, uint8_t *out);
// Findings of service_validate, at the item's line or better.
void kube_service_validate(struct kube_reader *r, const struct kube_service *s);

// ---------------------------------------------------------------- kube_extras.c
// The record of an exposed Service, in the annotation `assigned`.
void kube_assigned_read(struct kube_reader *r, const json_t *metadata, struct kube_service *out);
// VIPs in a text of one: "203.0.113.10,2001:db8::10". Returns how many are there; what is no address does not count.
uint32_t kube_addresses_parse(const char *text, struct address *out, uint32_t n_max);
// At spec.
void kube_extras_read(
	struct kube_reader *r, const json_t *spec, bool is_balancer, struct kube_service *out);
// At the object: what does not go together.
void kube_extras_check(struct kube_reader *r, const json_t *json, struct kube_service *out);
void kube_extras_fini(struct kube_extras *extras);

// ---------------------------------------------------------------- kube_slice.c, kube_join.c
void kube_slice_read(struct kube_reader *r, const json_t *json, struct kube_slice *out);
void kube_slice_fini(struct kube_slice *slice);
// Sorts slices by the service they belong to; once, before joining.
void kube_slices_sort(struct kube_slice *slices, uint32_t n);
// Backends of one service from its slices.
void kube_join(struct kube_reader *r, struct kube_service *s, const struct kube_slice *slices,
	uint32_t n_slices);
