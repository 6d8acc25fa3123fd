// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// One Lease (coordination.k8s.io/v1): who is the leader among several, or a sign of life of one's own. A pure state machine: it
// says which request to send and reads the answers; the caller sends them and brings the time. Control thread.
//
//   follower ── record unchanged for its leaseDuration, by our own clock ──► try: PUT with the version that was read
//      ▲                                                                       │ 200
//      └── no success for renew_deadline since one was *sent* ◄── leader ◄─────┘   PUT each retry period, no GET
//
// A Lease is no fence: a write that a leader sent may arrive after it stopped. Clocks of others are never compared: a record is
// old when it has not changed for its duration by the local monotonic clock, counted from when we first saw it. A leader counts
// from when it sent what succeeded, so it stops before anybody else may start, as long as no clock runs faster than another by
// lease / renew_deadline (15 : 10). What others wrote into the object (labels, strategy, preferredHolder) is kept.
// Source: client-go tools/leaderelection; KEP-589.

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum kube_lease_kind {
	KUBE_LEASE_ELECTION, // one holder among several
	KUBE_LEASE_OWN       // this node's alone: taken whoever holds it, renewed each retry period
};

struct kube_lease_config {
	const char *namespace; // copied, as are the next two
	const char *name;
	const char *identity; // 1..253 characters, differs between the contenders
	enum kube_lease_kind kind;
	uint32_t lease_ms;          // whole seconds; 15000
	uint32_t renew_deadline_ms; // 10000; lease > renew_deadline > 1.2 * retry > 0
	uint32_t retry_ms;          // 2000
	uint64_t seed;              // of the spread: differs between nodes
};
// 15 s, 10 s, 2 s for an election; 40 s, 30 s, 10 s for a node's own.
struct kube_lease_config kube_lease_config_default(enum kube_lease_kind kind);

enum kube_lease_step {
	KUBE_LEASE_WAIT,    // nothing to send before until_ns
	KUBE_LEASE_REQUEST, // send it, then kube_lease_answer
	KUBE_LEASE_BUSY,    // one is under way; ask again by until_ns
	KUBE_LEASE_ABANDON, // drop the request that is under way, without an answer; then ask again
	KUBE_LEASE_DONE     // released: nothing will follow
};

enum kube_lease_method { KUBE_LEASE_GET, KUBE_LEASE_POST, KUBE_LEASE_PUT };

struct kube_lease_request {
	enum kube_lease_method method;
	const char *path; // borrowed until the next call, as is the body
	const char *body; // JSON; NULL for GET
	size_t body_len;
	uint64_t until_ns; // of WAIT and BUSY
};

struct kube_lease_status {
	char holder[256]; // as last read; "" = free or not known
	uint32_t transitions;
	uint64_t n_requests;
	uint64_t n_failures;    // answers that were no success: conflicts, refusals, none at all
	uint64_t n_conflicts;   // 409 among them
	uint64_t n_terms;       // times this identity became the holder
	uint64_t renewed_ns;    // when the last success was sent; 0 = never
	char trouble_text[256]; // of the last failure; "" = never any
};

struct kube_lease;

// NULL: out of memory, or times that break the order above (a setting checks them first).
struct kube_lease *kube_lease_create(const struct kube_lease_config *config);
void kube_lease_destroy(struct kube_lease *l); // NULL is fine

// now_ns: monotonic. wall_us: microseconds since 1970, only written into the record.
enum kube_lease_step kube_lease_next(
	struct kube_lease *l, uint64_t now_ns, int64_t wall_us, struct kube_lease_request *out);
// The answer to the request that is under way. http_status 0: none came. body need not be NUL-terminated.
void kube_lease_answer(
	struct kube_lease *l, uint64_t now_ns, int http_status, const char *body, size_t len);

// May we act as the holder at this moment? Ask right before acting: false from the deadline on, without any call in between.
bool kube_lease_is_held(const struct kube_lease *l, uint64_t now_ns);
// Does nobody hold it, as far as was read: free, not there or not readable yet, ours and not held, or its holder's time is over?
bool kube_lease_is_free(const struct kube_lease *l, uint64_t now_ns);
// When it ends unless it is renewed; 0 = not held.
uint64_t kube_lease_held_until_ns(const struct kube_lease *l);
// Stops: not held from now on; next gives the request that frees it for others (if it was held), then KUBE_LEASE_DONE. Gives up
// after renew_deadline: the others then wait for the lease to run out.
void kube_lease_release(struct kube_lease *l, uint64_t now_ns);

const struct kube_lease_status *kube_lease_status(const struct kube_lease *l);

// "2026-01-31T12:00:00.000000Z": RFC 3339 UTC with six digits, as MicroTime has it. buf >= 32.
const char *kube_micro_time(int64_t wall_us, char *buf, size_t len);
