// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// The control loop and the only meeting point of the edges: sources and admin change desired state here, probe and
// punt report here, and nobody else talks to workers. Everything runs on the thread of the event loop (main lcore);
// no locks. Handlers must not block.

#include <event2/event.h>
#include <jansson.h>

#include "base.h"
#include "dataplane.h"
#include "health.h"
#include "net.h"
#include "nexthop.h"
#include "pipeline.h"
#include "service.h"
#include "snapshot.h"

struct control;

struct control_config {
	struct service_defaults defaults;
	struct address snat[SNAT_ADDRESSES_MAX];
	uint32_t n_snat;
	char state_dir[256];       // "" = nothing is kept
	char flow_dir[256];        // of the flow files, "" = flows end with the process
	uint32_t nexthop_capacity; // 0 = 16384
	uint64_t coalesce_ns;      // 0 = 20 ms
};

// The loop without a data plane yet (so that the nexthop table exists before workers do). 0 or -errno.
int control_create(const struct control_config *config, const struct log *log, struct control **out,
	struct error *err);
// Wires the device and data plane in (borrowed); events of dataplane_event_fd are handled from here on.
int control_attach(
	struct control *c, struct device *device, struct dataplane *dp, struct error *err);
// Called when the data plane's event descriptor fires: the time to take punted frames. NULL: none.
void control_set_punt_hook(struct control *c, void (*fn)(void *arg), void *arg);
void control_detach(struct control *c); // before the data plane is destroyed
void control_destroy(struct control *c);
struct event_base *control_base(struct control *c);
const struct log *control_log(struct control *c);
void control_set_log(struct control *c, const struct log *log); // a reload: level, format
int control_run(struct control *c);                             // until control_end
void control_end(struct control *c);                            // from a handler or signal event
struct nexthop_table control_nexthop_table(struct control *c);
// Slots of the SNAT addresses, in their order (for dataplane_config).
// Key of the flow tables: kept with the numbers that flows hold, random where there is nothing to adopt.
struct hash_key control_flow_key(const struct control *c);
uint16_t control_snat_slot(struct control *c, uint32_t snat_idx);
// SIGHUP or REST wants a reload: main sets the handler.
void control_set_reload(struct control *c, int (*reload)(void *arg, struct error *err), void *arg);
int control_reload(struct control *c, struct error *err);

// ---------------------------------------------------------------- desired state
// Reads. Borrowed until the next change.
const struct service_store *control_store(const struct control *c);
const struct service_defaults *control_defaults(const struct control *c);
void control_set_defaults(struct control *c, const struct service_defaults *defaults);
// Changes: validated whole, stored, persisted (owner api and overlays), published (leading edge; followers within 20 ms together).
// Errors as service_store_*; on error nothing changed. Also refused when the snapshot would not compile.
int control_put_service(
	struct control *c, const struct service *service, bool *out_changed, struct error *err);
int control_remove_service(struct control *c, const char *namespace, const char *name,
	enum service_owner owner, struct error *err);
int control_replace_owner(struct control *c, enum service_owner owner,
	struct service *const *services, uint32_t n_services, uint32_t *out_n_changed,
	struct error *err);
// Drain, weight. 0, -ENOENT (service or backend not known), -EINVAL.
int control_put_overlay(
	struct control *c, const struct service_overlay *overlay, struct error *err);
int control_remove_overlay(struct control *c, const char *namespace, const char *name,
	const struct address *address, uint16_t port, struct error *err);
// Takes back the drain but keeps a weight (and the other way round): which = 'd' or 'w'.
int control_clear_overlay(struct control *c, const char *namespace, const char *name,
	const struct address *address, uint16_t port, char which, struct error *err);
// Loads API-owned objects and overlays kept in state_dir; a broken file is reported in err and set aside, the rest is loaded.
int control_load_state(struct control *c, struct error *err);

// ---------------------------------------------------------------- services as JSON (interfaces.md section 6: metadata, spec)
// Gives a new reference; NULL: out of memory. Decoding its result gives an equal service.
json_t *control_service_to_json(const struct service *service);
// Gives a validated, normalised service of owner api, or NULL with every finding at its JSON pointer
// ("/spec/listeners/0/port: 70000 not in 1..65535"). Unknown fields are refused; status, managedBy and generation are
// ignored. Absent fields take their default; a backend without "ports" takes every listener's own.
struct service *control_service_from_json(
	const json_t *body, const struct service_defaults *defaults, struct error *err);
json_t *control_overlay_to_json(const struct service_overlay *overlay);
int control_overlay_from_json(const json_t *value, struct service_overlay *out, struct error *err);
// A point in time: RFC 3339 in UTC ("2026-01-31T12:00:00Z"), or a duration from now_ms on ("5m"). -EINVAL.
int control_parse_deadline(const char *text, int64_t now_ms, int64_t *out_ms);

// ---------------------------------------------------------------- state as seen by operators
struct control_backend_status {
	const struct service *service; // borrowed
	const struct service_listener *listener;
	const struct service_backend *backend;
	uint16_t port;
	uint32_t backend_id; // SNAPSHOT_BACKEND_NONE before the first publication
	enum health_state state;
	bool eligible;
	char reason[SERVICE_REASON_MAX];
	int64_t since_ms;
	uint32_t weight; // with overlay
	uint64_t flows;  // created - ended
	struct pipeline_backend_counters counters;
	char verdict_cluster[32]; // "ready" "not-ready" "terminating"
	char verdict_active[32];  // "up" "down" "unknown" "off"
	char verdict_passive[32]; // "off"
	char verdict_admin[32];   // "in" "draining"
};
// Calls fn for every (listener, backend) of a service (NULL: of all services), in order; stops when fn returns false.
void control_each_backend(struct control *c, const struct service *service,
	bool (*fn)(void *arg, const struct control_backend_status *status), void *arg);

uint64_t control_generation(const struct control *c); // of the published snapshot
uint64_t control_digest(const struct control *c);     // of the published snapshot
bool control_is_ready(const struct control *c, char *reason,
	size_t len); // every port up, first publication adopted, sources synced
void control_set_synced(struct control *c, const char *source, bool synced); // a source tells
// The cluster as it is followed, for REST and metrics: its source fills it in when it is asked for.
#define CONTROL_CLUSTER_RESOURCES 8
#define CONTROL_CLUSTER_BUCKETS   12
struct control_cluster_resource {
	char name[32];    // "endpointslices"
	bool is_synced;   // listed whole, once
	bool is_watching; // news of it come at this moment
	char trouble[24]; // "none" "unreachable" "forbidden" ...
	char trouble_text[256];
	int64_t last_byte_ms; // wall clock; 0 = never
	uint64_t n_lists, n_watches, n_events, n_expired, n_errors, n_refused;
};
struct control_cluster {
	char server[256];
	char node[64];
	char leader[256]; // "" = nobody, or not known
	bool is_synced;   // what the API says is in force
	bool is_leading;
	uint32_t n_missing_rules;                    // of RBAC
	int64_t certificate_expires_ms;              // 0 = there is none
	uint32_t n_services, n_refused, n_endpoints; // ours
	uint32_t n_guarded;                 // services whose vanished endpoints are kept in force
	uint64_t n_written, n_write_errors; // status
	uint64_t n_saved;                   // last good states on disk
	int64_t applied_ms;                 // last change in force, wall clock; 0 = never
	uint32_t n_resources;
	struct control_cluster_resource resources[CONTROL_CLUSTER_RESOURCES];
	// From the change of an endpoint, as its slice says, to its publication: counts up to each bound and above all.
	uint64_t latency[CONTROL_CLUSTER_BUCKETS + 1];
	double latency_sum_s;
};
extern const double control_cluster_bounds_s[CONTROL_CLUSTER_BUCKETS];
void control_set_cluster_hook(
	struct control *c, void (*fill)(void *arg, struct control_cluster *out), void *arg);
// Endpoints that the source keeps in force although they vanished from the cluster are let go, at an operator's word. 0; -ENOENT:
// nothing is kept of that service.
void control_set_release_hook(struct control *c,
	int (*release)(void *arg, const char *namespace, const char *name), void *arg);
int control_release(struct control *c, const char *namespace, const char *name);
// false: no cluster is followed.
bool control_cluster(const struct control *c, struct control_cluster *out);
int64_t control_started_ms(const struct control *c);
// By name of an own address's VIP: backend identity of an id, for flows. false: unknown.
bool control_backend_name(struct control *c, uint32_t backend_id, const char **out_service,
	struct address *out_address, uint16_t *out_port);
// Address of an own slot. false: unknown.
bool control_own_address(struct control *c, uint16_t slot, struct address *out);

const struct device *control_device(const struct control *c);
const struct dataplane *control_dataplane(const struct control *c);

// ---------------------------------------------------------------- events (the journal)
struct control_event {
	uint64_t id; // 1, 2, ...
	int64_t time_ms;
	char kind
		[32]; // stable: "backend-down" "backend-up" "service-changed" "reload" "reload-refused" "drain" ...
	char object[160]; // "default/web 10.9.0.2:8080"
	char text[SERVICE_REASON_MAX];
};
// Records and logs.
void control_note(struct control *c, enum log_level level, const char *kind, const char *object,
	const char *fmt, ...) __attribute__((format(printf, 5, 6)));
// Events with id > after, oldest first: *out is the first of as many in a row as is returned, at most max, and maybe fewer
// than there are: ask again from the last id until 0. The last 1024 are kept. Borrowed until the next control_note.
uint32_t control_events(
	const struct control *c, uint64_t after, const struct control_event **out, uint32_t max);

// ---------------------------------------------------------------- questions to workers (asynchronous)
// fn is called once on the loop, also when the worker does not answer within 1 s (explanation NULL).
int control_explain(struct control *c, const struct pipeline_question *question,
	void (*fn)(void *arg, const struct pipeline_explanation *explanation, uint16_t worker_idx),
	void *arg);
// Collects up to `limit` flows over all workers, from (worker, cursor) in `*position` (0 = start). fn once, with the
// flows and the next position (0 = end).
struct control_flow {
	struct flow_record record;
	uint16_t worker_idx;
	uint32_t idle_s;
};
int control_flows(struct control *c, const struct dataplane_flow_filter *filter, uint64_t position,
	uint32_t limit,
	void (*fn)(void *arg, const struct control_flow *flows, uint32_t n, uint64_t next),
	void *arg);

// ---------------------------------------------------------------- probes: control says what, probe does it
// One per distinct (address, port, check), however many services share it.
struct control_probe {
	uint32_t id;
	struct address address;
	uint16_t port;
	struct service_check check;
};
struct control_probe_hooks {
	void (*start)(void *arg, const struct control_probe *probe); // probe soon (within 100 ms)
	void (*stop)(void *arg, uint32_t id);
};
void control_set_probe_hooks(struct control *c, const struct control_probe_hooks *hooks, void *arg);
// A result. Returns the delay until the next try in ms. Verdict changes republish at once.
uint32_t control_probe_report(struct control *c, uint32_t id, bool ok, const char *reason);

// ---------------------------------------------------------------- ways out: punt learns, control publishes
// The whole set of routes as the kernel has them over our twins; replaces the former. gateway unspecified = on-link.
// port_idx CONTROL_ROUTE_NOWHERE: a blackhole, unreachable or prohibit route, that is NEXTHOP_NONE for its prefix.
#define CONTROL_ROUTE_NOWHERE UINT8_MAX
struct control_route {
	struct prefix prefix;
	struct address gateway;
	uint8_t port_idx;
	uint32_t metric;
};
void control_set_routes(struct control *c, const struct control_route *routes, uint32_t n);
// A neighbour as the kernel knows it. state INCOMPLETE, VALID or FAILED; UNUSED = gone from the kernel (the last MAC stays in force while used).
void control_set_neighbour(struct control *c, uint8_t port_idx, const struct address *address,
	const struct mac *mac, enum nexthop_state state);
struct control_nexthop_hooks {
	// Resolve this neighbour now (and it becomes one to keep fresh).
	void (*resolve)(void *arg, uint8_t port_idx, const struct address *address);
	// Own addresses (VIPs and SNAT) changed: reconcile the twins.
	void (*addresses)(void *arg);
};
void control_set_nexthop_hooks(
	struct control *c, const struct control_nexthop_hooks *hooks, void *arg);
// Next hops in use, to be kept fresh: gateways and on-link backends always; on-link clients while flows use them lately.
uint32_t control_nexthops_in_use(
	const struct control *c, struct dataplane_wanted *out, uint32_t max);
// All VIPs and SNAT addresses that belong on the twins. Returns the count; at most max are written.
uint32_t control_own_addresses(const struct control *c, struct address *out, uint32_t max);
