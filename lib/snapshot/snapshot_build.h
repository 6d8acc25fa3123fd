// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// Compile desired state into a snapshot (cold). Control thread.
// Slots and backend_ids come from a registry that outlives snapshots.

#include "health.h"
#include "service.h"
#include "snapshot.h"

// Stable numbers for own addresses and backends. A number released is not given again before
// snapshot_registry_reclaim says so. Heap; control thread.
struct snapshot_registry;
struct snapshot_registry *snapshot_registry_create(void);
void snapshot_registry_destroy(struct snapshot_registry *r);
// Slot of an address, made when new: 0.., or -ENOSPC.
int snapshot_registry_slot(
	struct snapshot_registry *r, const struct address *address, uint16_t *out_slot);
// Adoption: a slot must have this address (from a flow file). -EEXIST if it conflicts.
int snapshot_registry_restore_slot(
	struct snapshot_registry *r, uint16_t slot, const struct address *address);
// The journal of numbers (adoption of flows by a later process). fresh: one call for each number that got its meaning since
// the last call; the line is borrowed and has no newline. restore: puts one such line in force, before the first build;
// read a journal from its end, the first line of a number counts. 0, -EEXIST (number or identity taken: an older line),
// -EINVAL (not such a line).
#define SNAPSHOT_REGISTRY_LINE_MAX 320
void snapshot_registry_fresh(
	struct snapshot_registry *r, void (*fn)(void *arg, const char *line), void *arg);
int snapshot_registry_restore(struct snapshot_registry *r, const char *line);
// Id of a backend of a listener, made when new.
int snapshot_registry_backend(struct snapshot_registry *r, const char *service,
	const char *listener, const struct address *address, uint16_t port, uint32_t *out_id);
// The id it has, without using it for the next build; -ENOENT.
int snapshot_registry_find_backend(const struct snapshot_registry *r, const char *service,
	const char *listener, const struct address *address, uint16_t port, uint32_t *out_id);
// Stable index of a pair of idle timeouts, made when new. -ENOSPC: more than SNAPSHOT_POLICIES_MAX pairs in use.
int snapshot_registry_policy(
	struct snapshot_registry *r, uint32_t tcp_idle_s, uint32_t udp_idle_s, uint8_t *out_idx);
// release: marks everything that the last build did not use as released at `pass` (any number that does not fall). Only after
// a successful build, when its snapshot is published: a refused one has not asked for everything.
// reclaim: frees what was released at a pass before `safe_pass`. The caller has made sure that no flow holds one of these
// numbers any more, and no worker an older snapshot. What is used again in between stays.
void snapshot_registry_release(struct snapshot_registry *r, uint64_t pass);
void snapshot_registry_reclaim(struct snapshot_registry *r, uint64_t safe_pass);
// Slots that can still be given out, and whether an address has one already.
uint32_t snapshot_registry_free_slots(const struct snapshot_registry *r);
bool snapshot_registry_has_slot(const struct snapshot_registry *r, const struct address *address);
// A backend that is no longer desired keeps its flows for its service's drain timeout; then a build marks it RESET. Wall clock at
// which the next build has one to mark; INT64_MAX: none waits.
int64_t snapshot_registry_next_reset_ms(const struct snapshot_registry *r);

// Answers for the builder, by backend identity; called once per (service, listener, backend) of a VIP's family.
struct snapshot_health {
	enum health_probe_verdict (*probe)(void *arg, const struct service *s,
		const struct service_listener *l, const struct address *address, uint16_t port);
	// Is it a neighbour? Asked for backends of l2dsr, which a router cannot bring nearer: it would send the packet, whose
	// destination is the VIP, back to us. NULL: all are.
	bool (*on_link)(void *arg, const struct address *address);
	void *arg;
};

// What may be other than it was for `previous`, besides what the store has changed since (services, overlays): verdicts of probes of
// backends with these addresses, nothing else.
struct snapshot_touched {
	const struct address *addresses;
	uint32_t n_addresses;
};

struct snapshot_input {
	const struct service_store *store;
	struct snapshot_registry *registry;
	struct snapshot_health health; // .probe NULL: every probe is UNKNOWN (counts as up)
	const struct address *snat;    // SNAT addresses
	uint32_t n_snat;
	const struct nexthop_fib *fib; // borrowed by the snapshot
	uint64_t generation;
	int64_t wall_ms; // wall clock, for drain deadlines and timeouts: without it (0) none passes
	const struct snapshot
		*previous; // Maglev tables of unchanged listeners are shared with it; may be NULL
	// NULL: anything may be other than it was. Else services that are as they were are taken over from `previous` as they are.
	const struct snapshot_touched *touched;
};

// Compiles. Gives (snapshot_destroy). 0; -EINVAL (a SNAT address that is a VIP, too many addresses or timeout policies), each
// finding in err; -ENOMEM. The registry may know new numbers after a refusal; the next release takes them back.
//
// One listener per (address, listener); its members are the backends of the address's family with a port for it. Where the
// service has no backend of that family at all, fullnat, ipip and gue take those of the other one; dnat and l2dsr cannot. A backend
// that is itself one of our addresses (reliability.md F10) stays listed and is never eligible: a loop of our own. So is one of
// l2dsr that is not on a link.
// Cost at 10,000 services of 10 backends: 60 ms of processor time. Where `touched` is given, less: 1 ms when only endpoints of few
// services have changed, 3 ms when few services came, went, or have other addresses, listeners or policies (SNAT addresses and what
// is on a link being what they were). The result is the same either way.
int snapshot_build(const struct snapshot_input *input, struct snapshot **out, struct error *err);
void snapshot_destroy(struct snapshot *s);
// Backends that have a row and are not desired any more, in no order; borrowed from the snapshot.
uint32_t snapshot_lingering(const struct snapshot *s, const uint32_t **out_ids);
// Do VIPs of this family take the service's backends of the other one?
bool snapshot_family_crosses(const struct service *s, bool vip_is_v4);
// The same compiled content with another FIB and generation; shares tables (reference counted inside; control thread only).
struct snapshot *snapshot_with_fib(
	const struct snapshot *s, const struct nexthop_fib *fib, uint64_t generation);
