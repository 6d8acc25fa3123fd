// SPDX-License-Identifier: BSD-3-Clause
// Events, with repeats told as a series.
//
//   add ─ new kind ──► POST ──► known ── repeat: PATCH, count 2 ──► series ── each 30 min, if it grew: PATCH
//          │                      │ 6 min of silence                   │ 6 min of silence: PATCH if it grew
//          └ table full: the      ▼                                    ▼
//            kind with nothing  forgotten                           forgotten
//            to send, longest silent, goes
// At most KUBE_SERIES_MAX kinds, so memory is bounded whatever the cluster does. One request at a time.
#include "kube_encode_priv.h"
#include "kube_lease.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define HEARTBEAT_NS (30 * 60 * CLOCK_S)
#define SILENCE_NS   (6 * 60 * CLOCK_S)
#define RETRY_NS     (10 * CLOCK_S)
#define TRIES_MAX    12
#define LABEL_MAX    128 // of reason, action, instance

enum pending { PENDING_NONE, PENDING_POST, PENDING_PATCH };

struct event_kind {
	uint64_t hash; // of the texts that make the kind
	char *block;   // the texts, one after the other
	struct kube_event event;
	char name[256]; // of the Event object
	int64_t first_us;
	int64_t last_us;
	uint64_t last_ns;
	uint64_t told_ns; // when a request last succeeded
	uint64_t not_before_ns;
	uint64_t turn; // order of the queue
	uint32_t count;
	uint32_t told; // count of the last request that succeeded; 0 = not there yet
	uint32_t n_tries;
	enum pending pending;
	bool is_last; // ends with the request that is pending
};

struct kube_series {
	char *controller;
	char *instance;
	uint64_t random;
	uint64_t turn;
	int64_t stamp_ns; // of the last name; names differ
	struct event_kind *kinds[KUBE_SERIES_MAX];
	uint32_t n_kinds;
	struct event_kind *sent; // its request is under way
	uint32_t sent_count;
	struct kube_series_counts counts;
};

struct kube_series *kube_series_create(const char *controller, const char *instance, uint64_t seed)
{
	struct kube_series *s = calloc(1, sizeof(*s));
	char cut[LABEL_MAX + 1];
	if (s == NULL)
		return NULL;
	s->controller = strdup(controller);
	s->instance = strdup(kube_clean(instance, cut, sizeof(cut)));
	s->random = seed;
	if (s->controller == NULL || s->instance == NULL) {
		kube_series_destroy(s);
		return NULL;
	}
	return s;
}

static void forget(struct kube_series *s, struct event_kind *kind)
{
	for (uint32_t i = 0; i < s->n_kinds; i++)
		if (s->kinds[i] == kind) {
			s->kinds[i] = s->kinds[--s->n_kinds];
			break;
		}
	free(kind->block);
	free(kind);
}

void kube_series_destroy(struct kube_series *s)
{
	if (s == NULL)
		return;
	while (s->n_kinds)
		forget(s, s->kinds[0]);
	free(s->controller);
	free(s->instance);
	free(s);
}

// ---------------------------------------------------------------- adding
static uint64_t kind_hash(const struct kube_event *event)
{
	const char *const texts[] = { event->api_version, event->kind, event->namespace,
		event->name, event->uid, event->reason, event->action };
	uint64_t hash = event->is_warning;
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
		hash = hash_stable(texts[i], strlen(texts[i]) + 1, hash);
	return hash;
}

static bool is_kind(const struct event_kind *kind, uint64_t hash, const struct kube_event *event)
{
	const struct kube_event *own = &kind->event;
	return kind->hash == hash && own->is_warning == event->is_warning &&
	       strcmp(own->api_version, event->api_version) == 0 &&
	       strcmp(own->kind, event->kind) == 0 &&
	       strcmp(own->namespace, event->namespace) == 0 &&
	       strcmp(own->name, event->name) == 0 && strcmp(own->uid, event->uid) == 0 &&
	       strcmp(own->reason, event->reason) == 0 && strcmp(own->action, event->action) == 0;
}

static struct event_kind *find_kind(const struct kube_series *s, const struct kube_event *event)
{
	uint64_t hash = kind_hash(event);
	for (uint32_t i = 0; i < s->n_kinds; i++)
		if (is_kind(s->kinds[i], hash, event))
			return s->kinds[i];
	return NULL;
}

// Room for one more: forgets the kind that was silent longest and has nothing to send.
static bool make_room(struct kube_series *s)
{
	struct event_kind *oldest = NULL;
	if (s->n_kinds < KUBE_SERIES_MAX)
		return true;
	for (uint32_t i = 0; i < s->n_kinds; i++) {
		struct event_kind *kind = s->kinds[i];
		if (kind->pending != PENDING_NONE || kind == s->sent)
			continue;
		if (oldest == NULL || kind->last_ns < oldest->last_ns)
			oldest = kind;
	}
	if (oldest)
		forget(s, oldest);
	return oldest != NULL;
}

static struct event_kind *kind_create(const struct kube_event *event)
{
	struct event_kind *kind = calloc(1, sizeof(*kind));
	if (kind == NULL)
		return NULL;
	kind->event = *event;
	kind->hash = kind_hash(event);
	const char **texts[] = { &kind->event.api_version, &kind->event.kind,
		&kind->event.namespace, &kind->event.name, &kind->event.uid, &kind->event.reason,
		&kind->event.action, &kind->event.note };
	size_t len = 0;
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
		len += strlen(*texts[i]) + 1;
	char *at = kind->block = malloc(len);
	for (size_t i = 0; at && i < ARRAY_SIZE(texts); i++) {
		size_t n = strlen(*texts[i]) + 1;
		memcpy(at, *texts[i], n);
		*texts[i] = at;
		at += n;
	}
	if (kind->block)
		return kind;
	free(kind);
	return NULL;
}

static void enqueue(struct kube_series *s, struct event_kind *kind, enum pending what)
{
	kind->pending = what;
	kind->n_tries = 0;
	kind->not_before_ns = 0;
	kind->turn = ++s->turn;
}

// "<object>.<hex nanoseconds>", no two alike from here.
static void name_kind(struct kube_series *s, struct event_kind *kind, int64_t wall_us)
{
	int64_t stamp = wall_us * 1000;
	s->stamp_ns = stamp > s->stamp_ns ? stamp : s->stamp_ns + 1;
	snprintf(kind->name, sizeof(kind->name), "%.230s.%" PRIx64, kind->event.name,
		(uint64_t)s->stamp_ns);
}

static void repeat(struct kube_series *s, struct event_kind *kind)
{
	kind->is_last = false;
	kind->count++;
	// Before the POST is on its way, it takes the count along.
	if (kind->told == 1 && kind->pending == PENDING_NONE && kind != s->sent)
		enqueue(s, kind, PENDING_PATCH);
}

int kube_series_add(
	struct kube_series *s, const struct kube_event *event, uint64_t now_ns, int64_t wall_us)
{
	struct event_kind *kind = find_kind(s, event);
	s->counts.n_added++;
	if (kind) {
		repeat(s, kind);
	} else if (!make_room(s)) {
		s->counts.n_dropped++;
		return -ENOSPC;
	} else {
		kind = kind_create(event);
		if (kind == NULL)
			return -ENOMEM;
		name_kind(s, kind, wall_us);
		kind->count = 1;
		kind->first_us = wall_us;
		s->kinds[s->n_kinds++] = kind;
		enqueue(s, kind, PENDING_POST);
	}
	kind->last_ns = now_ns;
	kind->last_us = wall_us;
	return 0;
}

// ---------------------------------------------------------------- sending
static const char *event_namespace(const struct event_kind *kind)
{
	return kind->event.namespace[0] ? kind->event.namespace : "default";
}

static json_t *series_json(const struct event_kind *kind)
{
	char when[32];
	return json_pack("{s:I,s:s}", "count", (json_int_t)kind->count, "lastObservedTime",
		kube_micro_time(kind->last_us, when, sizeof(when)));
}

static json_t *regarding_json(const struct kube_event *event)
{
	json_t *json =
		json_pack("{s:s,s:s}", "apiVersion", event->api_version, "kind", event->kind);
	if (event->namespace[0])
		json_object_set_new(json, "namespace", json_string(event->namespace));
	json_object_set_new(json, "name", json_string(event->name));
	if (event->uid[0])
		json_object_set_new(json, "uid", json_string(event->uid));
	return json;
}

static json_t *post_json(const struct kube_series *s, const struct event_kind *kind)
{
	char when[32], reason[LABEL_MAX + 1], action[LABEL_MAX + 1], note[KUBE_NOTE_MAX + 1];
	json_t *json = json_pack("{s:s,s:s,s:{s:s,s:s},s:s,s:s,s:s,s:s,s:s,s:o,s:s,s:s}",
		"apiVersion", "events.k8s.io/v1", "kind", "Event", "metadata", "name", kind->name,
		"namespace", event_namespace(kind), "eventTime",
		kube_micro_time(kind->first_us, when, sizeof(when)), "reportingController",
		s->controller, "reportingInstance", s->instance, "action",
		kube_clean(kind->event.action, action, sizeof(action)), "reason",
		kube_clean(kind->event.reason, reason, sizeof(reason)), "regarding",
		regarding_json(&kind->event), "note",
		kube_clean(kind->event.note, note, sizeof(note)), "type",
		kind->event.is_warning ? "Warning" : "Normal");
	if (kind->count > 1)
		json_object_set_new(json, "series", series_json(kind));
	return json;
}

static int write_kind(
	const struct kube_series *s, const struct event_kind *kind, struct kube_write *out)
{
	char namespace[800], name[800], target[KUBE_TARGET_MAX];
	kube_segment(event_namespace(kind), namespace, sizeof(namespace));
	if (kind->pending == PENDING_POST) {
		snprintf(target, sizeof(target),
			"/apis/events.k8s.io/v1/namespaces/%s/"
			"events?fieldManager=" KUBE_FIELD_MANAGER,
			namespace);
		return kube_write_make(out, "POST", "application/json", target, post_json(s, kind));
	}
	snprintf(target, sizeof(target),
		"/apis/events.k8s.io/v1/namespaces/%s/events/%s?fieldManager=" KUBE_FIELD_MANAGER,
		namespace, kube_segment(kind->name, name, sizeof(name)));
	return kube_write_make(out, "PATCH", "application/strategic-merge-patch+json", target,
		json_pack("{s:o}", "series", series_json(kind)));
}

// What time alone asks of a kind that has nothing pending. false: it is forgotten now.
static bool age(struct kube_series *s, struct event_kind *kind, uint64_t now_ns)
{
	bool has_grown = kind->count > kind->told;
	if (now_ns - kind->last_ns >= SILENCE_NS) {
		if (!has_grown) {
			forget(s, kind);
			return false;
		}
		enqueue(s, kind, PENDING_PATCH);
		kind->is_last = true;
	} else if (has_grown && now_ns - kind->told_ns >= HEARTBEAT_NS) {
		enqueue(s, kind, PENDING_PATCH);
	}
	return true;
}

static uint64_t due_ns(const struct event_kind *kind)
{
	if (kind->pending != PENDING_NONE)
		return kind->not_before_ns;
	uint64_t silence = kind->last_ns + SILENCE_NS, heartbeat = kind->told_ns + HEARTBEAT_NS;
	return kind->count > kind->told && heartbeat < silence ? heartbeat : silence;
}

bool kube_series_next(struct kube_series *s, uint64_t now_ns, int64_t wall_us,
	struct kube_write *out, uint64_t *out_until_ns)
{
	struct event_kind *best = NULL;
	*out_until_ns = UINT64_MAX;
	if (s->sent)
		return false;
	for (uint32_t i = 0; i < s->n_kinds;) {
		struct event_kind *kind = s->kinds[i];
		if (kind->pending == PENDING_NONE && !age(s, kind, now_ns))
			continue; // another took its place
		uint64_t due = due_ns(kind);
		if (kind->pending == PENDING_NONE || due > now_ns)
			*out_until_ns = due < *out_until_ns ? due : *out_until_ns;
		else if (best == NULL || kind->turn < best->turn)
			best = kind;
		i++;
	}
	if (best == NULL)
		return false;
	if (write_kind(s, best, out) != 0) { // out of memory: soon again
		best->not_before_ns = now_ns + CLOCK_S;
		*out_until_ns = best->not_before_ns;
		return false;
	}
	s->sent = best;
	s->sent_count = best->count;
	return true;
}

// ---------------------------------------------------------------- answers
static void retry(struct kube_series *s, struct event_kind *kind, uint64_t now_ns)
{
	if (++kind->n_tries >= TRIES_MAX) {
		s->counts.n_dropped++;
		forget(s, kind);
		return;
	}
	s->random = s->random * 6364136223846793005ull + 1442695040888963407ull;
	kind->not_before_ns = now_ns + RETRY_NS + (s->random >> 33) % (RETRY_NS / 4);
}

static void succeed(struct kube_series *s, struct event_kind *kind, uint64_t now_ns)
{
	bool is_last = kind->is_last && kind->count == s->sent_count;
	bool was_single = s->sent_count == 1;
	s->counts.n_sent++;
	kind->told = s->sent_count;
	kind->told_ns = now_ns;
	kind->pending = PENDING_NONE;
	kind->is_last = false;
	if (is_last)
		forget(s, kind);
	else if (was_single && kind->count > 1) // repeated while the POST was under way
		enqueue(s, kind, PENDING_PATCH);
}

void kube_series_answer(struct kube_series *s, uint64_t now_ns, int http_status)
{
	struct event_kind *kind = s->sent;
	if (kind == NULL)
		return;
	s->sent = NULL;
	bool is_there = http_status == 409 && kind->pending == PENDING_POST; // an answer got lost
	if ((http_status >= 200 && http_status < 300) || is_there) {
		succeed(s, kind, now_ns);
	} else if (http_status == 404 && kind->pending == PENDING_PATCH) {
		enqueue(s, kind, PENDING_POST); // it expired: tell it anew
		kind->told = 0;
	} else if (http_status == 0 || http_status == 429 || http_status >= 500) {
		retry(s, kind, now_ns);
	} else {
		s->counts.n_dropped++;
		forget(s, kind);
	}
}

struct kube_series_counts kube_series_count(const struct kube_series *s)
{
	struct kube_series_counts counts = s->counts;
	counts.n_kinds = s->n_kinds;
	for (uint32_t i = 0; i < s->n_kinds; i++)
		counts.n_queued += s->kinds[i]->pending != PENDING_NONE;
	return counts;
}
