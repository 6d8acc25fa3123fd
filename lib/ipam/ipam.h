// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// Pools, requests and sharing to addresses. Pure: no clock, no random, no I/O; control thread (of the leader).
//
// Who gets what is a function of three things alone: the pools, the requests, and what is recorded (the addresses in a Service's
// status and the form they were given under). Neither the order in which requests arrive nor who leads plays a part: put everything,
// then run; a new leader that puts the same has the same.
//
//	pools ─────────┐
//	put, remove ───┼─► ipam_run: 1. what is held or recorded and still valid stays    (form unchanged first; creation, uid)
//	touch ─────────┘             2. who lacks an address gets one                      (creation, namespace, name)
//	                                 └─► ipam_next: each answer that changed, once
//
// Rules, first that applies (those of MetalLB, made deterministic):
//   keep      an address stays while it is in a pool that selects the request, is of a wanted family, is what the request asks for
//             (addresses, pool), and its ports still fit those it shares with.
//   explicit  the addresses the request names, from any pool that selects it; a family it does not name comes from the pool of the
//             first. Also from pools without auto_assign. All or nothing.
//   named     the pool the request names, also without auto_assign.
//   pinned    pools with selectors that select it, with auto_assign: by priority (lower first, 0 last), then name.
//   open      pools without selectors, with auto_assign, in the same order.
// In a pool: with a sharing key, the lowest address of that key on which the ports fit; else the lowest free one, ranges in the order
// written. Both addresses of a dual-stack request come from one pool (unless it names them).
//   PREFER_DUAL_STACK   a pool that has both, else one address of the first family. Who holds one does not move to another pool, but
//                       gets the second when its own pool can give it.
//   REQUIRE_DUAL_STACK  both or none: who cannot have the second loses the first.
// Sharing: same non-empty key, same backend key, no port in both. Who changes so that it no longer fits loses the address, not those
// who stayed as they were. Who holds an address alone may change its key.
//
// An address belongs to one pool: where two overlap, to the older (creation, then name); the other goes without it, which is a finding.
// Cost: log n searches and a move of an index array per request; ranges hold no map of their size, so a /32 of IPv6 costs no more
// than one address.

#include <stdbool.h>
#include <stdint.h>

#include "base.h"
#include "net.h"

#define IPAM_FAMILIES     2   // most addresses of a request: one per family
#define IPAM_REASON_MAX   320 // text of an answer
#define IPAM_SHARED_TRIED 64  // a key's lowest addresses that are tried for room

enum ipam_family { IPAM_V4, IPAM_V6 };
const char *ipam_family_name(enum ipam_family family); // "IPv4" "IPv6"
static inline enum ipam_family ipam_family_of(const struct address *a)
{
	return address_is_v4(a) ? IPAM_V4 : IPAM_V6;
}

// ---------------------------------------------------------------- pools
struct ipam_range { // both ends belong to it, of one family, first <= last
	struct address first;
	struct address last;
};

// "203.0.113.0/24", "203.0.113.10-203.0.113.20", "203.0.113.7", both families, blanks around the dash allowed. A prefix is all of
// its addresses, the first and the last too. Refused with -EINVAL, text at path: nothing of these, set host bits, ends in the wrong
// order or of two families, and what can be no VIP (0/8, 127/8, 169.254/16, 224/3, ::/96, v4-mapped, fe80::/10, ff00::/8).
int ipam_range_parse(const char *text, struct ipam_range *out, const char *path, struct error *err);
// Shortest form: address, prefix, or "first-last". buf >= 2 * ADDRESS_TEXT_LEN.
const char *ipam_range_format(const struct ipam_range *range, char *buf, size_t len);
bool ipam_range_contains(const struct ipam_range *range, const struct address *a);

struct ipam_pool {
	const char *name;
	const struct ipam_range *ranges; // in order of use
	uint32_t n_ranges;
	int32_t priority; // lower first, 0 last; negative is 0
	bool auto_assign; // false: only for those who name the pool or an address of it
	bool is_pinned;   // has selectors: asks `selects`; false: selects everybody
	int64_t created_s; // creationTimestamp, seconds since 1970; 0: of the configuration, older than all
};

struct ipam_usage {
	const char *pool;                  // borrowed until the next ipam_set_pools
	uint64_t assigned[IPAM_FAMILIES];  // addresses with at least one holder
	uint64_t available[IPAM_FAMILIES]; // without; UINT64_MAX: that many or more
};

// ---------------------------------------------------------------- requests
struct ipam_port {
	uint8_t protocol; // NET_PROTO_*
	uint16_t first;
	uint16_t last; // >= first
};

enum ipam_policy { IPAM_SINGLE_STACK, IPAM_PREFER_DUAL_STACK, IPAM_REQUIRE_DUAL_STACK };

// Copied by ipam_put. Texts are never NULL.
struct ipam_request {
	const char *namespace;
	const char *name; // the key together with namespace
	const char *uid;  // another uid under the same key: the old one is gone, with its addresses
	int64_t created_s;                        // creationTimestamp, seconds since 1970
	enum ipam_family families[IPAM_FAMILIES]; // in order of wish, no family twice
	uint32_t n_families;                      // 1 or 2; SINGLE_STACK uses the first alone
	enum ipam_policy policy;
	struct address wanted[IPAM_FAMILIES]; // explicit, at most one per family
	uint32_t n_wanted;
	const char *pool;        // "" = any
	const char *sharing_key; // "" = shares with nobody
	const char *backend_key; // "" = policy Cluster; text of the selector for Local
	const struct ipam_port *ports;
	uint32_t n_ports;
	const struct address *recorded; // in status; looked at only while nothing is held here
	uint32_t n_recorded;
	uint64_t recorded_form; // ipam_answer.form as written beside it, 0 = unknown
};

// Stable name of keys and ports together (not of addresses): write it beside the addresses, give it back as recorded_form. Never 0.
uint64_t ipam_form(const struct ipam_request *request);

// ---------------------------------------------------------------- answers
enum ipam_reason {
	IPAM_ALLOCATED,       // all that was asked for
	IPAM_ALLOCATED_ONE,   // PREFER_DUAL_STACK, one of two
	IPAM_NO_POOL,         // no pool selects the request
	IPAM_POOL_UNKNOWN,    // the named pool does not exist
	IPAM_POOL_NOT_FOR_IT, // it (or that of a named address) does not select the request
	IPAM_OUTSIDE,         // a named address is in no pool, or not in the named pool
	IPAM_WRONG_FAMILY,    // a named address is of no wanted family, or two are of one
	IPAM_IN_USE,          // a named address is held by another, and cannot be shared
	IPAM_EXHAUSTED,       // no free address
	IPAM_NOT_DUAL,        // REQUIRE_DUAL_STACK: no pool that selects it has both families
};
// CamelCase, for conditions: "Allocated" "AllocatedOneFamily" "NoPool" "PoolUnknown" "PoolNotAllowed" "AddressOutsidePools"
// "FamilyMismatch" "AddressInUse" "Exhausted" "NoDualStackPool".
const char *ipam_reason_name(enum ipam_reason reason);

struct ipam_answer { // texts borrowed until the next change of this ipam
	const char *namespace;
	const char *name;
	const char *uid;
	struct address addresses[IPAM_FAMILIES]; // in order of the families
	uint32_t n_addresses;
	const char *pool; // of the first address; "" without one
	uint64_t form;
	enum ipam_reason reason;
	char text[IPAM_REASON_MAX]; // one line for people; names what is in the way
};

// ---------------------------------------------------------------- the allocator
struct ipam; // heap; control thread

// Does this pool (is_pinned) select this request? Must say the same until ipam_touch or ipam_set_pools.
typedef bool ipam_selects(void *arg, const char *pool, const char *namespace, const char *name);

// selects may be NULL: pinned pools select nobody. NULL: out of memory.
struct ipam *ipam_create(ipam_selects *selects, void *arg);
void ipam_destroy(struct ipam *ipam);

// Makes the pools exactly these, and `reserved` addresses nobody's (own, SNAT, management). Takes copies. Every address that is held
// is looked at again in the next run, also when the pools are the same; who waits is tried again. Findings (path = pool name; a name given twice, overlap) do not stop it.
// 0 or -ENOMEM (nothing changed).
int ipam_set_pools(struct ipam *ipam, const struct ipam_pool *pools, uint32_t n_pools,
	const struct ipam_range *reserved, uint32_t n_reserved, struct error *err);

// Creates or replaces; equal ones are not looked at again. -EINVAL: no families, or a port range that ends before it begins; -ENOMEM.
int ipam_put(struct ipam *ipam, const struct ipam_request *request);
// Frees what it held, with the next run. 0 or -ENOENT. No answer comes for it.
int ipam_remove(struct ipam *ipam, const char *namespace, const char *name);
// Look at it again: labels of it or of its namespace changed. Absent ones are ignored; NULL name: all of the namespace; NULL
// namespace: all.
void ipam_touch(struct ipam *ipam, const char *namespace, const char *name);
// Forgets all requests and what they hold, keeps the pools: before a new leader puts what is recorded.
void ipam_clear(struct ipam *ipam);

// Applies the rules to what changed. Only after pools and requests are complete: who runs before the first complete list takes
// addresses away. -ENOMEM: some were not looked at; they are in the next run.
int ipam_run(struct ipam *ipam);
// The next answer that changed (addresses, pool, form, reason or text) since it was last given; false: no more. In order of creation,
// namespace, name.
bool ipam_next(struct ipam *ipam, struct ipam_answer *out);
// As of the last run. false: no such request.
bool ipam_find(
	const struct ipam *ipam, const char *namespace, const char *name, struct ipam_answer *out);
// Pool that an address belongs to, or NULL.
const char *ipam_pool_of(const struct ipam *ipam, const struct address *a);
// Is the address in a pool that selects (namespace, name)? What every node asks of a recorded address before it serves it.
bool ipam_allows(
	const struct ipam *ipam, const char *namespace, const char *name, const struct address *a);
// By index in order of names; false: no more.
bool ipam_usage_at(const struct ipam *ipam, uint32_t idx, struct ipam_usage *out);
// Requests, and those of them without an address.
void ipam_count(const struct ipam *ipam, uint32_t *out_requests, uint32_t *out_waiting);
