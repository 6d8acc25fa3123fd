// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// Keeps a copy of one resource of the cluster API in step with the server: which request to send, when, what its answer means,
// what to do when it ends. A pure state machine: no sockets, no timers, no wall clock; the caller sends the requests, brings the
// bytes and the time. One reflector per resource. A public header of its own beside kube.h. Control thread.
//
//             ┌────────── 410, 3 frames lost, an ERROR event ◄──────────────────────────┐
//             ▼                                                                         │
//   ┌─ streaming list ──── its bookmark ──────────────► (the same stream is the watch) ─┤ watch ◄─┐ ended: again from
//   │ refused: 422, 400                                                                 │ ──┬─────┘ the last version, no list
//   └─► list, page by page ── last page ────────────────────────────────────────────────┘   ▼
//                                                                                   put, remove as they come
//
// What always holds
//   - nothing is taken away because it is missing before a list is complete: only sink->end after sink->begin says so
//   - the first list is asked for without a version (never "0"): what an earlier run of this program saw is never undone
//   - a lost or silent connection never causes a list, only a new watch from the last version
//   - lists: 3 at once, then one in 30 s (streaming or paged, whatever the reason); refusals and lost connections wait 0.8 s, doubled
//     up to 30 s, each drawn from [d, 2d), back to 0.8 s after 2 min without; a Retry-After is waited for (at most 10 min)
//   - one broken object is refused alone (sink->bad); a frame of which nothing can be told holds the version back, so that the
//     watch that follows (10 s later) brings it again; 3 of them and it lists
// Source: kubernetes.io API concepts; client-go tools/cache/reflector.go, from which it differs where it says why.

#include <jansson.h>

#include "base.h"

#define KUBE_CONNECT_TIMEOUT_MS 5000   // for the caller's TCP connect and TLS handshake
#define KUBE_HEAD_TIMEOUT_MS    15000  // from the request to its status line
#define KUBE_SILENCE_TIMEOUT_MS 180000 // of a watch (the server sends a bookmark a minute)
#define KUBE_LIST_SILENCE_MS    30000  // of a list
#define KUBE_STREAM_SILENCE_MS \
	10000 // of a streaming list before its bookmark: the server takes it for an ordinary watch
#define KUBE_LIST_TIMEOUT_MS  120000 // of one page, and of a streaming list before its bookmark
#define KUBE_OBJECT_MAX_BYTES (2u << 20)
#define KUBE_LIST_BURST       3
#define KUBE_LIST_INTERVAL_MS 30000
#define KUBE_PAGE_ITEMS       500

// Who holds the copy. Every function is called from within kube_reflector_body or _end (put, remove, bad, end) or
// _head (begin, and end of an optional resource that is not there); none may call the reflector.
struct kube_sink {
	// A complete list starts. After a list that broke off a new begin comes without an end: marks start again.
	void (*begin)(void *arg);
	// The object is there, now in this form. Borrowed for the call; json_incref to keep it. Checked: an object with
	// metadata.name, namespace and resourceVersion (text, where it has them), depth <= 64, at most 2 MiB, 65,536 brackets and 262,144 values, no duplicate keys, no number out
	// of range, no NUL. `kind` and `apiVersion` may be missing: items of a list have none.
	void (*put)(void *arg, json_t *object);
	// The object is gone: the server said so. In the middle of a list too. It may be unknown to the sink.
	// namespace "" : cluster scope.
	void (*remove)(void *arg, const char *namespace, const char *name);
	// The list is complete: what was neither put nor bad since begin is gone.
	void (*end)(void *arg);
	// An object was refused: the last good form stays, and it counts as seen by this list. namespace, name: "" where they
	// cannot be told. reason: one line, for a log and an Event; borrowed.
	void (*bad)(void *arg, const char *namespace, const char *name, const char *reason);
	void *arg;
};

struct kube_reflector_config {
	const char *path;  // "/apis/discovery.k8s.io/v1/endpointslices"
	const char *query; // selectors, percent-encoded: "labelSelector=a%3Db"; NULL or "" = none
	const char *kind;  // "EndpointSlice"
	bool is_optional; // 404 before the first sync (a CRD that is not installed) is an empty list; asked for again once a minute
	bool no_watch_list; // never a streaming list (a setting for servers that are known to have none)
	uint64_t seed;      // of every random choice; differs between nodes and between reflectors
};

enum kube_reflector_step {
	KUBE_STEP_REQUEST, // send it: GET, `Accept: application/json`; then head, body..., end
	KUBE_STEP_WAIT,    // nothing to send before until_ns
	KUBE_STEP_BUSY,    // a request is under way; ask again by until_ns
	KUBE_STEP_ABANDON // drop the request that is under way, without telling head, body or end of it; then ask again
};

struct kube_request {
	const char *target; // path and query; borrowed until the next call
	bool is_watch;      // a connection of its own (HTTP/1.1), never an Accept-Encoding
	uint64_t until_ns;  // of WAIT and BUSY, never UINT64_MAX
};

enum kube_end {
	KUBE_END_CLEAN,   // the body is complete
	KUBE_END_REFUSED, // connection refused
	KUBE_END_TIMEOUT, // connect timed out, or no route
	KUBE_END_BROKEN   // reset, TLS failure, unexpected end of the body, any other
};

// What stands in the way; the newest.
enum kube_trouble {
	KUBE_TROUBLE_NONE,
	KUBE_TROUBLE_UNREACHABLE,  // no connection, or one that breaks or is silent
	KUBE_TROUBLE_UNAUTHORIZED, // 401: who we are
	KUBE_TROUBLE_FORBIDDEN,    // 403: what we may (RBAC)
	KUBE_TROUBLE_NOT_FOUND,    // 404: the resource does not exist there
	KUBE_TROUBLE_THROTTLED,    // 429
	KUBE_TROUBLE_SERVER,       // any other answer that is not 200, ERROR events
	KUBE_TROUBLE_GARBAGE       // answers that are not what they should be
};
const char *kube_trouble_name(enum kube_trouble trouble); // "none" "unreachable" "unauthorized" ...

struct kube_reflector_status {
	bool is_synced;   // a list was complete, once
	bool is_watching; // a watch is open (its 200 was seen), and it is past the list
	enum kube_trouble
		trouble; // none again with the next complete list or event, or a watch of a second
	char trouble_text[256]; // one line, "" = never any; stays after the trouble is over
	uint64_t trouble_ns;    // when it was said
	char last_rv[64];       // "" = none yet
	uint64_t last_byte_ns;  // of any body or head; 0 = never
	uint64_t synced_ns;     // end of the last complete list; 0 = never
	uint64_t n_requests;
	uint64_t n_lists; // started, streaming ones too
	uint64_t n_lists_complete;
	uint64_t n_watches; // started, without streaming lists
	uint64_t n_events;  // ADDED, MODIFIED, DELETED that were applied
	uint64_t n_bookmarks;
	uint64_t n_objects;     // put by lists
	uint64_t n_bad_objects; // refused alone
	uint64_t n_bad_frames;  // of which nothing could be told
	uint64_t n_skipped;     // unknown event types, other kinds
	uint64_t n_expired;     // 410, in either form
	uint64_t n_silent;      // requests abandoned
	uint64_t n_older;       // lists whose version was below the last one
};

struct kube_reflector;

// Strings are copied, the sink too. NULL: out of memory.
struct kube_reflector *kube_reflector_create(
	const struct kube_reflector_config *config, const struct kube_sink *sink);
void kube_reflector_destroy(struct kube_reflector *r); // NULL is fine

// What to do now. Ask after head, body and end, and when until_ns has come: it is cheap. After KUBE_STEP_REQUEST the request is
// under way, until end was told or it was abandoned.
enum kube_reflector_step kube_reflector_next(
	struct kube_reflector *r, uint64_t now_ns, struct kube_request *out);
// The status line and headers of the answer are there. retry_after_s: -1 = none (whole seconds only). content_type: NULL = none.
void kube_reflector_head(struct kube_reflector *r, uint64_t now_ns, int http_status,
	int64_t retry_after_s, const char *content_type);
void kube_reflector_body(struct kube_reflector *r, uint64_t now_ns, const char *bytes, size_t len);
// The request is over. Of a request without a head: it never got an answer.
void kube_reflector_end(struct kube_reflector *r, uint64_t now_ns, enum kube_end how);
// The caller has reason to look again at once (a new token, a network that came back): a wait that is only backoff ends now, and
// what comes after begins anew; the budget of lists and a Retry-After hold.
void kube_reflector_wake(struct kube_reflector *r, uint64_t now_ns);

const struct kube_reflector_status *kube_reflector_status(const struct kube_reflector *r);
