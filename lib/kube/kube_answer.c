// SPDX-License-Identifier: BSD-3-Clause
// What a refusal means: by status code and Status object, for each phase. As an answer of its own, or as an ERROR event.
//
//                 streaming list          list                          watch
//   429           the same again, after Retry-After and backoff (a page: the same page)
//   410           once without version    page 2..: once without pages  list, not older than the last version
//                 then the list           page 1: once without version
//   504 TooLarge  as 410                  as 410                        the third one after another: list (etcd may be
//                                                                       an older one, restored)
//   400 422 ...   the list, at once;      backoff, from the start       backoff, then list
//                 none of these for 1 h
//   403           the list, at once       backoff, from the start       the third one after another: list
//   401           backoff, the same       backoff, from the start       backoff, the same
//   404 5xx 3xx   backoff, from the start backoff, from the start       the third one after another: list
#include "kube_reflector_priv.h"

#include <string.h>

#define OPTIONAL_AGAIN_NS (60 * CLOCK_S)

static bool has_cause(const json_t *status, const char *reason)
{
	const json_t *causes = json_object_get(json_object_get(status, "details"), "causes");
	size_t i;
	json_t *cause;
	json_array_foreach(causes, i, cause)
	{
		const char *have = json_string_value(json_object_get(cause, "reason"));
		if (have && strcmp(have, reason) == 0)
			return true;
	}
	return false;
}

void kube_status_read(const json_t *json, struct kube_status_answer *out)
{
	const char *message = json_string_value(json_object_get(json, "message"));
	const char *reason = json_string_value(json_object_get(json, "reason"));
	const json_t *code = json_object_get(json, "code");
	const json_t *after =
		json_object_get(json_object_get(json, "details"), "retryAfterSeconds");
	json_int_t number = json_integer_value(code);
	*out = (struct kube_status_answer){ .retry_after_s = -1 };
	out->code = number > 0 && number < 1000 ? (int)number : 0;
	out->is_too_large_version = has_cause(json, "ResourceVersionTooLarge");
	if (json_is_integer(after))
		out->retry_after_s = json_integer_value(after);
	if (reason && out->code == 0 && (!strcmp(reason, "Expired") || !strcmp(reason, "Gone")))
		out->code = 410;
	snprintf(out->text, sizeof(out->text), "%s%s%s", reason ? reason : "",
		reason && message ? ": " : "", message ? message : "");
}

// The body of a refusal: a Status, or plain text of a proxy or of the priority queues, or nothing.
static void body_read(const struct kube_reflector *r, struct kube_status_answer *out)
{
	uint32_t line;
	json_t *json = NULL;
	if (r->n_error_body && kube_depth_ok(r->error_body, r->n_error_body, KUBE_DEPTH_MAX, &line))
		json = json_loadb(r->error_body, r->n_error_body, 0, NULL);
	kube_status_read(json, out);
	if (json == NULL && r->n_error_body) {
		size_t n = 0; // its first line
		while (n < r->n_error_body && n < 100 && r->error_body[n] &&
			r->error_body[n] != '\n')
			n++;
		snprintf(out->text, sizeof(out->text), "%.*s", (int)n, r->error_body);
	}
	json_decref(json);
	out->code = r->http_status;
	if (r->retry_after_s >= 0)
		out->retry_after_s = r->retry_after_s;
}

static enum kube_trouble trouble_of(int code)
{
	switch (code) {
	case 401:
		return KUBE_TROUBLE_UNAUTHORIZED;
	case 403:
		return KUBE_TROUBLE_FORBIDDEN;
	case 404:
		return KUBE_TROUBLE_NOT_FOUND;
	case 429:
		return KUBE_TROUBLE_THROTTLED;
	default:
		return KUBE_TROUBLE_SERVER;
	}
}

static bool is_version_gone(const struct kube_status_answer *answer)
{
	return answer->code == 410 || answer->is_too_large_version;
}

// A version was asked for and is not there: once more without. False: that was without one.
static bool retry_without_version(struct kube_reflector *r)
{
	if (r->asked_rv[0] == '\0')
		return false;
	r->is_version_refused = true;
	kube_settle(r, r->phase);
	return true;
}

// Not the answer to who asks, but to what is asked: a server without streaming lists says 422.
static bool is_question_refused(int code)
{
	return code == 400 || code == 405 || code == 406 || code == 415 || code == 422;
}

static void stream_refused(
	struct kube_reflector *r, uint64_t now_ns, const struct kube_status_answer *answer)
{
	if (is_version_gone(answer)) {
		if (retry_without_version(r))
			return;
		r->n_stream_failed = 2;
		kube_settle_backoff(r, now_ns, kube_phase_first(r, now_ns));
	} else if (answer->code == 403 || is_question_refused(answer->code)) {
		if (answer->code != 403)
			r->stream_after_ns = now_ns + KUBE_STREAM_AGAIN_NS;
		kube_settle(r, KUBE_PHASE_LIST);
	} else {
		kube_settle_throttled(
			r, now_ns, kube_phase_first(r, now_ns), answer->retry_after_s);
	}
}

static void list_refused(
	struct kube_reflector *r, uint64_t now_ns, const struct kube_status_answer *answer)
{
	if (is_version_gone(answer) && r->continue_token) {
		kube_phase_first(r, now_ns);
		r->is_full = true;
		kube_settle(r, KUBE_PHASE_LIST);
	} else if (is_version_gone(answer) && !r->is_full && retry_without_version(r)) {
		return;
	} else {
		kube_settle_throttled(
			r, now_ns, kube_phase_first(r, now_ns), answer->retry_after_s);
	}
}

static void watch_refused(
	struct kube_reflector *r, uint64_t now_ns, const struct kube_status_answer *answer)
{
	if (answer->code == 410) {
		kube_settle(r, kube_phase_first(r, now_ns));
		return;
	}
	r->n_refused += answer->code != 401;
	enum kube_phase next = KUBE_PHASE_WATCH;
	if (is_question_refused(answer->code) || r->n_refused >= KUBE_REFUSED_MAX) {
		r->n_refused = 0;
		next = kube_phase_first(r, now_ns);
	}
	kube_settle_throttled(r, now_ns, next, answer->retry_after_s);
}

// A resource that does not exist there and need not: an empty list, once. Later the last state is kept.
static bool optional_is_absent(struct kube_reflector *r, uint64_t now_ns, int code)
{
	if (!r->is_optional || code != 404 || r->phase == KUBE_PHASE_WATCH || r->status.last_rv[0])
		return false;
	if (!r->status.is_synced) {
		r->sink.begin(r->sink.arg);
		r->sink.end(r->sink.arg);
		r->status.is_synced = true;
		r->status.synced_ns = now_ns;
	}
	kube_settle(r, kube_phase_first(r, now_ns));
	r->wait_until_ns = now_ns + OPTIONAL_AGAIN_NS + kube_random_below(r, CLOCK_S);
	return true;
}

void kube_answer_refused(struct kube_reflector *r, uint64_t now_ns)
{
	struct kube_status_answer answer;
	body_read(r, &answer);
	kube_trouble_set(r, now_ns, trouble_of(answer.code), "%s: %d %s",
		r->phase == KUBE_PHASE_WATCH ? "watch" : "list", answer.code, answer.text);
	r->status.n_expired += answer.code == 410;
	if (optional_is_absent(r, now_ns, answer.code))
		return;
	if (answer.code == 429)
		kube_settle_throttled(r, now_ns, r->phase, answer.retry_after_s);
	else if (r->phase == KUBE_PHASE_STREAM)
		stream_refused(r, now_ns, &answer);
	else if (r->phase == KUBE_PHASE_LIST)
		list_refused(r, now_ns, &answer);
	else
		watch_refused(r, now_ns, &answer);
}

void kube_answer_event(struct kube_reflector *r, uint64_t now_ns, const json_t *status)
{
	struct kube_status_answer answer;
	kube_status_read(status, &answer);
	kube_trouble_set(
		r, now_ns, trouble_of(answer.code), "event ERROR: %d %s", answer.code, answer.text);
	r->status.n_expired += answer.code == 410;
	if (answer.code == 429) {
		kube_settle_throttled(
			r, now_ns, r->is_live ? KUBE_PHASE_WATCH : r->phase, answer.retry_after_s);
	} else if (r->is_live && answer.code == 410) {
		kube_settle(r, kube_phase_first(r, now_ns));
	} else if (!r->is_live && is_version_gone(&answer) && retry_without_version(r)) {
		return;
	} else {
		r->n_stream_failed += !r->is_live;
		kube_settle_backoff(r, now_ns, kube_phase_first(r, now_ns));
	}
}
