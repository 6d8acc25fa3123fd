// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// The reflector's parts: kube_reflector.c (which request, when), kube_answer.c (what an answer that is no stream means),
// kube_events.c (frames to the sink), kube_identity.c (whose broken text this is).
#include "kube_priv.h"
#include "kube_reflector.h"
#include "kube_stream_priv.h"

#define KUBE_RV_MAX          64 // bytes of a version with its NUL; the server's have at most 20 digits
#define KUBE_CONTINUE_MAX    (16u << 10)                    // of a continue token
#define KUBE_ERROR_BODY_MAX  (64u << 10)                    // of an answer that is not 200
#define KUBE_EVENT_MAX_BYTES (KUBE_OBJECT_MAX_BYTES + 256u) // an object and its wrapper
// A server that has no streaming lists may be a newer one by then.
#define KUBE_STREAM_AGAIN_NS (3600 * CLOCK_S)
#define KUBE_PAGES_MAX       2000u // of a list: a million objects
#define KUBE_LOST_MAX        3     // frames of which nothing could be told, then it lists
#define KUBE_LOST_REWATCH_NS (10 * CLOCK_S)
#define KUBE_REFUSED_MAX     3 // watches refused one after another, then it lists

// ---------------------------------------------------------------- kube_identity.c
// Whose text this is, as far as can be told without a parser: of a broken or cut-off event, list item or envelope.
struct kube_identity {
	char type[16]; // of an event; "" = not seen, as below
	char kind[64];
	char namespace[254];
	char name[254];
	char resource_version[KUBE_RV_MAX];
	bool is_ambiguous; // a member that decides was there twice
};
// is_event: text is {"type":..,"object":{..}}; else the object itself.
void kube_identity_scan(const char *text, size_t len, bool is_event, struct kube_identity *out);
// A name is there, and only once.
bool kube_identity_is_known(const struct kube_identity *id);
// a < b, as numbers where both are decimal; false where they cannot be compared.
bool kube_version_is_less(const char *a, const char *b);

// ---------------------------------------------------------------- the state
enum kube_phase {
	KUBE_PHASE_STREAM, // streaming list, until its bookmark
	KUBE_PHASE_LIST,   // page by page
	KUBE_PHASE_WATCH
};

struct kube_status_answer { // a Status object, of an answer or an ERROR event
	int code;
	bool is_too_large_version; // ResourceVersionTooLarge: the server does not have that version yet
	int64_t retry_after_s;     // -1 = none
	char text[200];
};

struct kube_reflector {
	char *path;
	char *query;
	char *kind;
	bool is_optional;
	bool no_watch_list;
	struct kube_sink sink;
	uint64_t random;
	struct kube_stream *stream;
	struct kube_reflector_status status;

	// what is asked next, or under way
	enum kube_phase phase;
	bool is_version_refused;  // 410 or too large: ask without a version
	bool is_full;             // a list without pages, because a page's token expired
	uint64_t stream_after_ns; // streaming lists were refused: not before this
	uint32_t n_stream_failed; // streaming lists that came to nothing, one after another
	char *continue_token;     // of the next page; NULL = the first
	char *target;
	char asked_rv[KUBE_RV_MAX];
	char list_rv[KUBE_RV_MAX]; // of the first page
	uint32_t timeout_s;        // of a watch

	// the request under way
	bool is_busy;
	bool is_over;    // its outcome is settled: what still comes is not looked at
	bool is_live;    // a watch, or a streaming list past its bookmark
	bool has_spent;  // a list of the budget
	int http_status; // 0: no head yet
	int64_t retry_after_s;
	uint64_t asked_ns;
	uint64_t head_ns;
	uint64_t byte_ns;
	uint64_t n_events_here; // events and bookmarks of this request
	uint64_t n_unnamed;     // items of this list of which the name could not be told
	uint64_t n_pages;
	bool is_page_done;
	char *error_body;
	size_t n_error_body;

	// lost frames
	bool is_version_held;
	uint64_t held_since_ns;
	uint32_t n_lost;
	uint32_t n_refused; // watches, one after another

	// waiting
	uint64_t wait_until_ns; // backoff and spread: kube_reflector_wake ends it
	uint64_t hard_until_ns; // Retry-After
	uint64_t backoff_ns;
	uint64_t backoff_end_ns;
	uint32_t n_tokens; // of the list budget
	uint64_t token_ns; // since when the next one grows
};

// ---------------------------------------------------------------- kube_reflector.c
uint64_t kube_random_below(struct kube_reflector *r, uint64_t bound); // 0..bound-1
void kube_trouble_set(struct kube_reflector *r, uint64_t now_ns, enum kube_trouble trouble,
	const char *fmt, ...) __attribute__((format(printf, 4, 5)));
// The request's outcome: what comes next, and when. Nothing more of it is looked at.
void kube_settle(struct kube_reflector *r, enum kube_phase next);
void kube_settle_backoff(struct kube_reflector *r, uint64_t now_ns, enum kube_phase next);
void kube_settle_throttled(
	struct kube_reflector *r, uint64_t now_ns, enum kube_phase next, int64_t retry_after_s);
// The phase that lists from the start; forgets the pages of a list that was under way.
enum kube_phase kube_phase_first(struct kube_reflector *r, uint64_t now_ns);

// ---------------------------------------------------------------- kube_answer.c
void kube_status_read(const json_t *json, struct kube_status_answer *out);
// The request ended, and its answer was not 200.
void kube_answer_refused(struct kube_reflector *r, uint64_t now_ns);
// An ERROR event.
void kube_answer_event(struct kube_reflector *r, uint64_t now_ns, const json_t *status);

// ---------------------------------------------------------------- kube_events.c
void kube_frame_take(struct kube_reflector *r, uint64_t now_ns, const struct kube_frame *frame);
void kube_list_begin(struct kube_reflector *r);
void kube_list_complete(struct kube_reflector *r, uint64_t now_ns, const char *version);
