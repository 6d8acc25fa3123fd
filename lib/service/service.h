// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// Desired state: services, listeners, backends, policy, as decoded from a source. Values, validation,
// the store with owners and generations, and the operator's overlay (drain, weight). Pure; control thread.

#include <stdbool.h>
#include <stdint.h>

#include "base.h"
#include "net.h"

#define SERVICE_NAME_MAX       64 // DNS label 63 + NUL
#define SERVICE_ADDRESSES_MAX  16
#define SERVICE_LISTENERS_MAX  256
#define SERVICE_BACKENDS_MAX   10000
#define SERVICE_SOURCES_MAX    16384 // as text they fit a request of REST
#define SERVICE_WEIGHT_MAX     65535
#define SERVICE_WEIGHT_DEFAULT 100
#define SERVICE_REASON_MAX     256

enum service_owner { SERVICE_OWNER_KUBERNETES, SERVICE_OWNER_FILE, SERVICE_OWNER_API };
enum service_mode {
	SERVICE_MODE_FULLNAT,
	SERVICE_MODE_DNAT,
	SERVICE_MODE_IPIP,
	SERVICE_MODE_GUE,
	SERVICE_MODE_L2DSR,
};
enum service_scheduler { SERVICE_MAGLEV, SERVICE_LEAST_CONNECTIONS };
// Other than NONE: with mode FULLNAT and at least one TCP listener; other listeners go without.
enum service_client_address { SERVICE_CLIENT_NONE, SERVICE_CLIENT_TOA, SERVICE_CLIENT_PROXY_V2 };
enum service_check_kind {
	SERVICE_CHECK_TCP,
	SERVICE_CHECK_HTTP,
	SERVICE_CHECK_HTTPS,
	SERVICE_CHECK_GRPC,
	SERVICE_CHECK_UDP,
	SERVICE_CHECK_ICMP,
	SERVICE_CHECK_NONE,
}; // only TCP, HTTP and NONE work today; the others are refused by service_validate
const char *service_owner_name(enum service_owner owner); // "kubernetes" "file" "api"
const char *service_mode_name(enum service_mode mode);
const char *service_scheduler_name(enum service_scheduler s);
const char *service_client_address_name(enum service_client_address c);
const char *service_check_name(enum service_check_kind kind);
const char *service_protocol_name(uint8_t protocol); // "TCP" "UDP" "SCTP"
int service_protocol_parse(const char *text, uint8_t *out);
// Word -> enum value of the named tables above; -EINVAL.
int service_mode_parse(const char *text, enum service_mode *out);
int service_scheduler_parse(const char *text, enum service_scheduler *out);
int service_client_address_parse(const char *text, enum service_client_address *out);
int service_check_parse(const char *text, enum service_check_kind *out);

struct service_check {
	enum service_check_kind kind;
	char path[256]; // http: starts with '/' ("" becomes "/")
	char port_name
		[SERVICE_NAME_MAX]; // probe the port of this listener name instead; "" = the backend's own
	uint16_t port;              // probe this port; 0 = the backend's own
	uint32_t interval_ms; // 100..3600000
	uint32_t timeout_ms;  // 10..interval
	uint8_t rise;         // 1..10
	uint8_t fall;         // 1..10
};

struct service_listener {
	char name[SERVICE_NAME_MAX]; // "" allowed when it is the only one
	uint8_t protocol;
	uint16_t port;
	uint16_t
		port_max; // last of a range, 1..65535 = any port; == port (0 means the same): one port
};

// What the cluster says of an endpoint; all true/false known values (defaults as in kubernetes.md 3.2).
struct service_conditions {
	bool ready;
	bool serving;
	bool terminating;
};

// Of a listener that is a range, and of every listener in the modes ipip, gue and l2dsr, the port is the listener's own: the
// packet keeps its port there.
struct service_backend_port {
	char listener[SERVICE_NAME_MAX];
	uint16_t port;
};

struct service_backend {
	struct address address;
	struct service_backend_port
		*ports; // by listener name; a listener without entry has no such backend
	uint32_t n_ports;
	uint32_t weight; // 0..65535
	struct service_conditions conditions;
	char target[128]; // pod or host name, "" if unknown
	char uid[64];     // identity of the target; a change means a new backend
};

struct service {
	char namespace[SERVICE_NAME_MAX];
	char name[SERVICE_NAME_MAX];
	enum service_owner owner;
	uint64_t generation; // of this object: set by the store, grows with each accepted change
	uint64_t revision;   // the same, and grows also with an operator's word on it (overlay)
	struct address *addresses;
	uint32_t n_addresses;
	struct service_listener *listeners;
	uint32_t n_listeners;
	struct service_backend *backends; // sorted by address (service_normalise)
	uint32_t n_backends;
	enum service_mode mode;
	enum service_scheduler scheduler;
	enum service_client_address client_address;
	uint32_t affinity_s; // 0 = none, else 1..86400
	struct prefix *source_ranges;
	uint32_t n_source_ranges; // 0 = everybody
	struct service_check check;
	uint32_t tcp_idle_s;      // 1..604800
	uint32_t udp_idle_s;      // 1..604800
	uint32_t drain_timeout_s; // 0..604800
};

// Defaults a source fills in before it decodes (from the configuration).
struct service_defaults {
	enum service_mode mode;
	struct service_check check; // tcp, 1 s, 500 ms, 2, 2
	uint32_t tcp_idle_s;        // 900
	uint32_t udp_idle_s;        // 60
	uint32_t drain_timeout_s;   // 300
};
struct service_defaults service_defaults_builtin(void);

struct service *service_create(const struct service_defaults *defaults); // gives
void service_destroy(struct service *service);
struct service *service_clone(const struct service *service);
// Room for one more of each; the new element is zeroed. NULL: out of memory.
struct address *service_add_address(struct service *s);
struct service_listener *service_add_listener(struct service *s);
struct service_backend *service_add_backend(struct service *s);
struct service_backend_port *service_backend_add_port(struct service_backend *b);
struct prefix *service_add_source_range(struct service *s);
// Port of a backend for a listener name; 0: it does not serve that listener.
uint16_t service_backend_find_port(const struct service_backend *b, const char *listener);
const struct service_listener *service_find_listener(const struct service *s, const char *name);
// Sorts what has no order (addresses, backends, ports, ranges) and fills in what a default means (port_max 0, path ""),
// so that equal services compare equal.
void service_normalise(struct service *s);
// Of normalised services; generation ignored.
bool service_equal(const struct service *a, const struct service *b);

// Checks one service by itself: names, counts, ranges, duplicates, unroutable backends, what does not go together, probes.
// Adds every finding with a JSON pointer in REST terms ("/spec/listeners/0/port"); indices are those of the value as given, so
// validate before service_normalise. 0, -EINVAL or -ENOMEM. Cost: n log n in listeners and backends.
int service_validate(const struct service *s, struct error *err);

// ---------------------------------------------------------------- overlay
// An operator's word on a backend of a service: kept over reloads and restarts until taken back.
struct service_overlay {
	char namespace[SERVICE_NAME_MAX];
	char name[SERVICE_NAME_MAX];
	struct address address;
	uint16_t port; // 0 = every port of the address
	bool draining;
	int64_t since_ms;    // wall clock
	int64_t deadline_ms; // 0 = none
	bool reset_on_deadline;
	char reason[SERVICE_REASON_MAX];
	bool has_weight;
	uint32_t weight;
};

// ---------------------------------------------------------------- store
struct service_store; // heap; control thread

struct service_store *service_store_create(void);
void service_store_destroy(struct service_store *store);
uint64_t service_store_generation(
	const struct service_store *store); // grows with each accepted change
// The generation at which a service came or went (or one owner's were made anew); 0 = never.
uint64_t service_store_names_generation(const struct service_store *store);
uint32_t service_store_count(const struct service_store *store);
// By index in (namespace, name) order; borrowed until the next change. A change replaces the value of a changed service only: the
// pointers of others stay.
const struct service *service_store_at(const struct service_store *store, uint32_t idx);
const struct service *service_store_find(
	const struct service_store *store, const char *namespace, const char *name);

// Puts one service in place (create or replace; takes a copy). Refused with -EEXIST when another owner has that name
// (message says who), -EADDRINUSE when an address+protocol+port belongs to another service, -EINVAL when it does not validate.
// *out_changed (may be NULL): false if it was equal already; the generation then stays. Every conflict is listed. The object's
// generation becomes the store's, so it is never seen twice. Cost: log n, and a move of the index arrays.
int service_store_put(struct service_store *store, const struct service *service, bool *out_changed,
	struct error *err);
// 0, -ENOENT, or -EEXIST when `owner` is not its owner.
int service_store_remove(struct service_store *store, const char *namespace, const char *name,
	enum service_owner owner, struct error *err);
// Makes the services of one owner exactly `services` (all or nothing): one bad or conflicting service refuses the whole set with every error
// listed (paths start with "namespace/name"). *out_n_changed (may be NULL): created + replaced + removed. Each service's `owner`
// field is taken as `owner`. -EINVAL if any does not validate or a name is given twice, else -EEXIST, -EADDRINUSE; -ENOMEM. Cost: n log n.
int service_store_replace_owner(struct service_store *store, enum service_owner owner,
	struct service *const *services, uint32_t n_services, uint32_t *out_n_changed,
	struct error *err);

// Overlay: put replaces the entry of (service, address, port); remove takes back. The service need not exist (yet). An entry that
// neither drains nor weighs is taken back. Both raise the generation when something changed, and the service's revision. -EINVAL:
// weight over 65535 or no name; -ENOMEM; -ENOENT: nothing to take back.
int service_store_put_overlay(struct service_store *store, const struct service_overlay *overlay);
int service_store_remove_overlay(struct service_store *store, const char *namespace,
	const char *name, const struct address *address, uint16_t port);
uint32_t service_store_overlay_count(const struct service_store *store);
const struct service_overlay *service_store_overlay_at(
	const struct service_store *store, uint32_t idx);
// The entry that applies to (address, port): the exact one, else the one with port 0, else NULL.
const struct service_overlay *service_store_find_overlay(const struct service_store *store,
	const char *namespace, const char *name, const struct address *address, uint16_t port);
