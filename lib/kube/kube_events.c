// SPDX-License-Identifier: BSD-3-Clause
// Frames to the sink: events of a watch or a streaming list, items and envelopes of a list.
//
// What can be wrong with one, and what follows
//   its text is whole, its object is refused (2 MiB, depth, duplicate keys, numbers, NUL, no version), its name can be read
//                                     refused alone: bad; a DELETED still removes. The watch goes on behind it
//   nothing can be told of it         a frame is lost. A watch holds its version back, a streaming list starts again
//   an item without a readable name   the list is not complete: it might be one that would be swept
#include "kube_reflector_priv.h"

#include <stdlib.h>
#include <string.h>

#define END_ANNOTATION "k8s.io/initial-events-end"

// ---------------------------------------------------------------- objects
static const char *member(const json_t *json, const char *key)
{
	return json_string_value(json_object_get(json, key));
}

static bool is_name(const char *text)
{
	size_t len = strlen(text);
	for (size_t i = 0; i < len; i++)
		if ((unsigned char)text[i] <= 0x20 || (unsigned char)text[i] >= 0x7f)
			return false;
	return len >= 1 && len <= 253;
}

static bool is_version(const char *text)
{
	return text && text[0] && strlen(text) < KUBE_RV_MAX;
}

// NULL: fine; else why not.
static const char *object_refusal(const json_t *object)
{
	const json_t *metadata = json_object_get(object, "metadata");
	const json_t *namespace = json_object_get(metadata, "namespace");
	const json_t *version = json_object_get(metadata, "resourceVersion");
	const char *name = member(metadata, "name");
	if (!json_is_object(metadata))
		return "no metadata; allowed: an object";
	if (name == NULL || !is_name(name))
		return "metadata.name is missing or none; allowed: 1..253 characters";
	if (namespace && (!json_is_string(namespace) || !is_name(json_string_value(namespace))))
		return "metadata.namespace is none; allowed: 1..253 characters";
	if (version && !is_version(json_string_value(version)))
		return "metadata.resourceVersion is none; allowed: 1..63 characters";
	return NULL;
}

// One line of printable text.
static void reason_print(char *buf, size_t len, const char *text)
{
	snprintf(buf, len, "%s", text);
	for (char *c = buf; *c; c++)
		if ((unsigned char)*c < 0x20 || (unsigned char)*c > 0x7e)
			*c = '?';
}

// The tree of one object or event; NULL: refused, why in reason.
static json_t *text_parse(const struct kube_frame *frame, size_t max, char *reason, size_t len)
{
	if (frame->kind == KUBE_FRAME_TOO_DEEP) {
		snprintf(reason, len, "nested deeper than %d", KUBE_DEPTH_MAX);
		return NULL;
	}
	if (frame->kind == KUBE_FRAME_TOO_LARGE || frame->len > max) {
		snprintf(reason, len, "larger than %u bytes", KUBE_OBJECT_MAX_BYTES);
		return NULL;
	}
	if (frame->kind == KUBE_FRAME_GARBAGE) {
		snprintf(reason, len, "not JSON, or cut off");
		return NULL;
	}
	if (!kube_tree_is_small(frame->text, frame->len)) {
		snprintf(reason, len, "more than %u brackets or %u values", KUBE_BRACKETS_MAX,
			KUBE_VALUES_MAX);
		return NULL;
	}
	json_error_t error;
	json_t *json = json_loadb(frame->text, frame->len, JSON_REJECT_DUPLICATES, &error);
	if (json == NULL)
		reason_print(reason, len, error.text);
	return json;
}

static bool is_own_kind(const struct kube_reflector *r, const char *kind)
{
	return kind == NULL || kind[0] == '\0' || strcmp(kind, r->kind) == 0;
}

// ---------------------------------------------------------------- versions, lists
static void trouble_over(struct kube_reflector *r)
{
	if (!r->is_version_held)
		r->status.trouble = KUBE_TROUBLE_NONE;
}

// Only forward, only past the list, never past a lost frame. NULL: the object has none.
static void version_advance(struct kube_reflector *r, const char *version)
{
	if (version == NULL || !r->is_live || r->is_version_held ||
		kube_version_is_less(version, r->status.last_rv))
		return;
	snprintf(r->status.last_rv, sizeof(r->status.last_rv), "%s", version);
}

void kube_list_begin(struct kube_reflector *r)
{
	r->n_unnamed = r->n_pages = 0;
	r->list_rv[0] = '\0';
	r->sink.begin(r->sink.arg);
}

// A list that was to be no older than what we have, and is.
static bool is_too_old(const struct kube_reflector *r, const char *version)
{
	return r->asked_rv[0] && kube_version_is_less(version, r->asked_rv);
}

static void old_list_refuse(struct kube_reflector *r, uint64_t now_ns, const char *version)
{
	r->status.n_older++;
	r->is_version_refused = true;
	kube_trouble_set(r, now_ns, KUBE_TROUBLE_GARBAGE,
		"a list of version %s; expected: not older than %s", version, r->asked_rv);
	kube_settle_backoff(r, now_ns, kube_phase_first(r, now_ns));
}

void kube_list_complete(struct kube_reflector *r, uint64_t now_ns, const char *version)
{
	struct kube_reflector_status *status = &r->status;
	if (r->n_unnamed) {
		kube_trouble_set(r, now_ns, KUBE_TROUBLE_GARBAGE,
			"a list with items of which the name cannot be read");
		kube_settle_backoff(r, now_ns, kube_phase_first(r, now_ns));
		return;
	}
	if (is_too_old(r, version)) {
		old_list_refuse(r, now_ns, version);
		return;
	}
	status->n_older += kube_version_is_less(version, status->last_rv);
	snprintf(status->last_rv, sizeof(status->last_rv), "%s", version);
	status->n_lists_complete++;
	status->is_synced = true;
	status->synced_ns = now_ns;
	status->trouble = KUBE_TROUBLE_NONE;
	r->is_version_refused = r->is_version_held = false;
	r->n_lost = r->n_stream_failed = 0;
	r->sink.end(r->sink.arg);
}

// ---------------------------------------------------------------- events
static void frame_lost(struct kube_reflector *r, uint64_t now_ns, const struct kube_identity *id,
	const char *reason)
{
	bool is_named = kube_identity_is_known(id) && is_own_kind(r, id->kind);
	r->status.n_bad_frames++;
	kube_trouble_set(r, now_ns, KUBE_TROUBLE_GARBAGE, "event: %s", reason);
	r->sink.bad(r->sink.arg, is_named ? id->namespace : "", is_named ? id->name : "", reason);
	if (!r->is_live) {
		r->n_stream_failed++;
		kube_settle_backoff(r, now_ns, kube_phase_first(r, now_ns));
		return;
	}
	if (!r->is_version_held)
		r->held_since_ns = now_ns;
	r->is_version_held = true;
	r->n_lost++;
}

static bool is_change(const char *type)
{
	return strcmp(type, "ADDED") == 0 || strcmp(type, "MODIFIED") == 0 ||
	       strcmp(type, "DELETED") == 0;
}

static void event_bad(struct kube_reflector *r, uint64_t now_ns, const struct kube_frame *frame,
	const char *reason)
{
	struct kube_identity id;
	kube_identity_scan(frame->text, frame->len, true, &id);
	bool is_whole = frame->kind != KUBE_FRAME_GARBAGE;
	if (!is_whole || !kube_identity_is_known(&id) || !is_change(id.type) ||
		id.resource_version[0] == '\0') {
		frame_lost(r, now_ns, &id, reason);
		return;
	}
	if (!is_own_kind(r, id.kind)) {
		r->status.n_skipped++;
		return;
	}
	r->status.n_bad_objects++;
	r->n_events_here++;
	if (strcmp(id.type, "DELETED") == 0)
		r->sink.remove(r->sink.arg, id.namespace, id.name);
	else
		r->sink.bad(r->sink.arg, id.namespace, id.name, reason);
	version_advance(r, id.resource_version);
}

static void event_change(struct kube_reflector *r, const char *type, json_t *object)
{
	const json_t *metadata = json_object_get(object, "metadata");
	const char *namespace = member(metadata, "namespace");
	if (strcmp(type, "DELETED") == 0)
		r->sink.remove(r->sink.arg, namespace ? namespace : "", member(metadata, "name"));
	else
		r->sink.put(r->sink.arg, object);
	r->status.n_events++;
	r->n_events_here++;
	if (r->is_live)
		trouble_over(r);
	version_advance(r, member(metadata, "resourceVersion"));
}

static bool is_list_end(const json_t *metadata)
{
	const char *end = member(json_object_get(metadata, "annotations"), END_ANNOTATION);
	return end && strcmp(end, "true") == 0;
}

static void event_bookmark(struct kube_reflector *r, uint64_t now_ns, const json_t *object)
{
	const json_t *metadata = json_object_get(object, "metadata");
	const char *version = member(metadata, "resourceVersion");
	r->status.n_bookmarks++;
	r->n_events_here++;
	if (r->is_live) {
		trouble_over(r);
		version_advance(r, version);
	} else if (is_list_end(metadata)) {
		kube_list_complete(r, now_ns, version);
		r->is_live = r->status.is_watching = !r->is_over;
	}
}

// What is wrong with an event as such; NULL: nothing.
static const char *event_refusal(const char *type, const json_t *object)
{
	if (type == NULL)
		return "no type; expected: ADDED, MODIFIED, DELETED, BOOKMARK or ERROR";
	if (!json_is_object(object))
		return "no object";
	if (is_change(type))
		return object_refusal(object);
	if (strcmp(type, "BOOKMARK") == 0 &&
		!is_version(member(json_object_get(object, "metadata"), "resourceVersion")))
		return "a bookmark without resourceVersion";
	return NULL;
}

static void event_take(struct kube_reflector *r, uint64_t now_ns, const struct kube_frame *frame)
{
	char reason[200];
	json_t *json = text_parse(frame, KUBE_EVENT_MAX_BYTES, reason, sizeof(reason));
	json_t *object = json_object_get(json, "object");
	const char *type = member(json, "type");
	const char *refusal = json ? event_refusal(type, object) : reason;
	if (refusal)
		event_bad(r, now_ns, frame, refusal);
	else if (strcmp(type, "ERROR") == 0)
		kube_answer_event(r, now_ns, object);
	else if (!is_own_kind(r, member(object, "kind")))
		r->status.n_skipped++;
	else if (strcmp(type, "BOOKMARK") == 0)
		event_bookmark(r, now_ns, object);
	else if (is_change(type))
		event_change(r, type, object);
	else
		r->status.n_skipped++;
	json_decref(json);
}

// ---------------------------------------------------------------- items and envelopes
static void item_bad(struct kube_reflector *r, const struct kube_frame *frame, const char *reason)
{
	struct kube_identity id;
	kube_identity_scan(frame->text, frame->len, false, &id);
	bool is_named = kube_identity_is_known(&id);
	r->n_unnamed += !is_named;
	r->status.n_bad_objects++;
	r->sink.bad(r->sink.arg, is_named ? id.namespace : "", is_named ? id.name : "", reason);
}

static void list_refuse(struct kube_reflector *r, uint64_t now_ns, const char *reason)
{
	kube_trouble_set(r, now_ns, KUBE_TROUBLE_GARBAGE, "list: %s", reason);
	kube_settle_backoff(r, now_ns, kube_phase_first(r, now_ns));
}

static bool is_list_kind(const struct kube_reflector *r, const char *kind)
{
	size_t n = strlen(r->kind);
	return strcmp(kind, "List") == 0 ||
	       (strncmp(kind, r->kind, n) == 0 && strcmp(kind + n, "List") == 0);
}

// Before the first item, as far as the envelope came: is this the list that was asked for?
static bool envelope_is_fine(struct kube_reflector *r, uint64_t now_ns)
{
	struct kube_identity id;
	const char *text;
	size_t len;
	kube_stream_envelope(r->stream, &text, &len);
	kube_identity_scan(text, len, false, &id);
	if (id.kind[0] && !is_list_kind(r, id.kind)) {
		list_refuse(r, now_ns, "of another kind");
		return false;
	}
	if (is_too_old(r, id.resource_version)) {
		old_list_refuse(r, now_ns, id.resource_version);
		return false;
	}
	return true;
}

static void item_take(struct kube_reflector *r, uint64_t now_ns, const struct kube_frame *frame)
{
	char reason[200];
	if (r->n_events_here++ == 0 && !envelope_is_fine(r, now_ns))
		return;
	json_t *json = text_parse(frame, KUBE_OBJECT_MAX_BYTES, reason, sizeof(reason));
	const char *refusal = json ? object_refusal(json) : reason;
	if (refusal == NULL && !is_own_kind(r, member(json, "kind")))
		refusal = "of another kind";
	if (refusal) {
		item_bad(r, frame, refusal);
	} else {
		r->status.n_objects++;
		r->sink.put(r->sink.arg, json);
	}
	json_decref(json);
}

// NULL: fine.
static const char *envelope_refusal(const struct kube_reflector *r, const json_t *json)
{
	const json_t *metadata = json_object_get(json, "metadata");
	const json_t *items = json_object_get(json, "items");
	const char *kind = member(json, "kind"), *next = member(metadata, "continue");
	if (kind && !is_list_kind(r, kind))
		return "of another kind";
	if (!is_version(member(metadata, "resourceVersion")))
		return "no metadata.resourceVersion";
	if (items && !json_is_null(items) && !(json_is_array(items) && json_array_size(items) == 0))
		return "items is no array";
	if (next && strlen(next) > KUBE_CONTINUE_MAX)
		return "a continue token of more than 16 KiB";
	return NULL;
}

static void envelope_apply(struct kube_reflector *r, uint64_t now_ns, const json_t *json)
{
	const json_t *metadata = json_object_get(json, "metadata");
	const char *next = member(metadata, "continue");
	char *token = next && next[0] ? strdup(next) : NULL;
	bool is_same = token && r->continue_token && strcmp(token, r->continue_token) == 0;
	if (is_same || r->n_pages++ >= KUBE_PAGES_MAX || (next && next[0] && token == NULL)) {
		free(token);
		list_refuse(r, now_ns, is_same ? "the same page again" : "pages without end");
		return;
	}
	if (r->list_rv[0] == '\0')
		snprintf(r->list_rv, sizeof(r->list_rv), "%s", member(metadata, "resourceVersion"));
	free(r->continue_token);
	r->continue_token = token;
	r->is_page_done = true;
	if (token == NULL)
		kube_list_complete(r, now_ns, r->list_rv);
}

static void envelope_take(struct kube_reflector *r, uint64_t now_ns, const struct kube_frame *frame)
{
	char reason[200];
	json_t *json = text_parse(frame, KUBE_OBJECT_MAX_BYTES, reason, sizeof(reason));
	const char *refusal = json ? envelope_refusal(r, json) : reason;
	if (refusal)
		list_refuse(r, now_ns, refusal);
	else
		envelope_apply(r, now_ns, json);
	json_decref(json);
}

void kube_frame_take(struct kube_reflector *r, uint64_t now_ns, const struct kube_frame *frame)
{
	if (r->phase != KUBE_PHASE_LIST)
		event_take(r, now_ns, frame);
	else if (frame->kind == KUBE_FRAME_ENVELOPE)
		envelope_take(r, now_ns, frame);
	else if (frame->kind == KUBE_FRAME_GARBAGE)
		list_refuse(r, now_ns, "not JSON");
	else
		item_take(r, now_ns, frame);
}
