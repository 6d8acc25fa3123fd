// SPDX-License-Identifier: BSD-3-Clause
// Which request to send, and when. What frames mean is in kube_events.c, what refusals mean in kube_answer.c: they settle the outcome
// of the request that is under way (the next phase, and a time before which nothing is asked), and here it is carried out.
//
// Where this differs from client-go, on purpose: a first list never asks for version "0" (an older state than an earlier run saw);
// no loss of a connection causes a list; lists have a budget; a page that was throttled is asked for again, not the whole list.
#include "kube_reflector_priv.h"

#include <stdlib.h>
#include <string.h>

#define BACKOFF_FIRST_NS  (800 * CLOCK_MS)
#define BACKOFF_MAX_NS    (30 * CLOCK_S)
#define BACKOFF_FORGET_NS (120 * CLOCK_S)
#define RETRY_AFTER_MAX_S 600
#define SPREAD_NS         CLOCK_S
#define WATCH_MIN_S       300 // and at most twice that
#define WATCH_GRACE_S     30  // over the end that was asked for
#define EARLY_END_S       5   // a watch that ends that much before was closed, and others with it
#define LIST_INTERVAL_NS  (KUBE_LIST_INTERVAL_MS * CLOCK_MS)
#define TROUBLE_OVER_NS   CLOCK_S // of a watch that lives

enum deadline { DEADLINE_HEAD, DEADLINE_SILENCE, DEADLINE_TOTAL, DEADLINE_LOST, DEADLINE_LIST };

uint64_t kube_random_below(struct kube_reflector *r, uint64_t bound)
{
	uint64_t z = r->random += 0x9e3779b97f4a7c15ull; // splitmix64 (Steele, Lea, Flood 2014)
	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return (z ^ z >> 31) % bound;
}

const char *kube_trouble_name(enum kube_trouble trouble)
{
	static const char *const names[] = { "none", "unreachable", "unauthorized", "forbidden",
		"not-found", "throttled", "server", "garbage" };
	return names[trouble];
}

void kube_trouble_set(
	struct kube_reflector *r, uint64_t now_ns, enum kube_trouble trouble, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(r->status.trouble_text, sizeof(r->status.trouble_text), fmt, ap);
	va_end(ap);
	for (char *c = r->status.trouble_text; *c; c++)
		if ((unsigned char)*c < 0x20 || (unsigned char)*c > 0x7e)
			*c = '?';
	r->status.trouble = trouble;
	r->status.trouble_ns = now_ns;
}

// ---------------------------------------------------------------- the budget of lists
static void tokens_grow(struct kube_reflector *r, uint64_t now_ns)
{
	while (r->n_tokens < KUBE_LIST_BURST && now_ns - r->token_ns >= LIST_INTERVAL_NS) {
		r->n_tokens++;
		r->token_ns += LIST_INTERVAL_NS;
	}
	if (r->n_tokens == KUBE_LIST_BURST)
		r->token_ns = now_ns;
}

// When a list may start.
static uint64_t token_ready_ns(struct kube_reflector *r, uint64_t now_ns)
{
	tokens_grow(r, now_ns);
	return r->n_tokens ? now_ns : r->token_ns + LIST_INTERVAL_NS;
}

static void token_spend(struct kube_reflector *r)
{
	r->n_tokens--;
	r->has_spent = true;
}

// What the server did not answer with 200 cost it no list.
static void token_return(struct kube_reflector *r)
{
	if (r->has_spent && r->http_status != 200 && r->n_tokens < KUBE_LIST_BURST)
		r->n_tokens++;
	r->has_spent = false;
}

static bool is_list_start(const struct kube_reflector *r)
{
	return r->phase == KUBE_PHASE_STREAM ||
	       (r->phase == KUBE_PHASE_LIST && r->continue_token == NULL);
}

// ---------------------------------------------------------------- outcomes
enum kube_phase kube_phase_first(struct kube_reflector *r, uint64_t now_ns)
{
	free(r->continue_token);
	r->continue_token = NULL;
	r->is_full = false;
	if (r->no_watch_list || now_ns < r->stream_after_ns || r->n_stream_failed >= 2)
		return KUBE_PHASE_LIST;
	return KUBE_PHASE_STREAM;
}

void kube_settle(struct kube_reflector *r, enum kube_phase next)
{
	token_return(r);
	r->is_over = true;
	r->is_live = false;
	r->phase = next;
	r->status.is_watching = false;
}

void kube_settle_backoff(struct kube_reflector *r, uint64_t now_ns, enum kube_phase next)
{
	if (now_ns > r->backoff_end_ns && now_ns - r->backoff_end_ns > BACKOFF_FORGET_NS)
		r->backoff_ns = BACKOFF_FIRST_NS;
	r->wait_until_ns = now_ns + r->backoff_ns + kube_random_below(r, r->backoff_ns);
	r->backoff_end_ns = r->wait_until_ns;
	r->backoff_ns = r->backoff_ns * 2 < BACKOFF_MAX_NS ? r->backoff_ns * 2 : BACKOFF_MAX_NS;
	kube_settle(r, next);
}

void kube_settle_throttled(
	struct kube_reflector *r, uint64_t now_ns, enum kube_phase next, int64_t retry_after_s)
{
	kube_settle_backoff(r, now_ns, next);
	if (retry_after_s > RETRY_AFTER_MAX_S)
		retry_after_s = RETRY_AFTER_MAX_S;
	if (retry_after_s > 0)
		r->hard_until_ns = now_ns + (uint64_t)retry_after_s * CLOCK_S;
}

static void settle_spread(struct kube_reflector *r, uint64_t now_ns, enum kube_phase next)
{
	r->wait_until_ns = now_ns + kube_random_below(r, SPREAD_NS);
	kube_settle(r, next);
}

// After a watch: the watch again, or a list where too many frames were lost and the budget has one.
static enum kube_phase phase_after_watch(struct kube_reflector *r, uint64_t now_ns)
{
	if (r->n_lost >= KUBE_LOST_MAX && token_ready_ns(r, now_ns) <= now_ns)
		return kube_phase_first(r, now_ns);
	return KUBE_PHASE_WATCH;
}

static enum kube_phase phase_after_loss(struct kube_reflector *r, uint64_t now_ns)
{
	if (r->phase == KUBE_PHASE_WATCH || r->is_live)
		return phase_after_watch(r, now_ns);
	return kube_phase_first(r, now_ns);
}

// ---------------------------------------------------------------- deadlines
struct deadline_at {
	uint64_t at_ns;
	enum deadline what;
};

static void sooner(struct deadline_at *d, uint64_t at_ns, enum deadline what)
{
	if (at_ns < d->at_ns)
		*d = (struct deadline_at){ at_ns, what };
}

static struct deadline_at deadline_next(struct kube_reflector *r, uint64_t now_ns)
{
	struct deadline_at d = { UINT64_MAX, DEADLINE_HEAD };
	if (r->http_status == 0) {
		sooner(&d, r->asked_ns + KUBE_HEAD_TIMEOUT_MS * CLOCK_MS, DEADLINE_HEAD);
		return d;
	}
	uint64_t silence_ms = r->is_live ? KUBE_SILENCE_TIMEOUT_MS
			      : r->phase == KUBE_PHASE_STREAM && r->http_status == 200
				      ? KUBE_STREAM_SILENCE_MS
				      : KUBE_LIST_SILENCE_MS;
	uint64_t total_ms =
		r->is_live ? (r->timeout_s + WATCH_GRACE_S) * 1000ull : KUBE_LIST_TIMEOUT_MS;
	sooner(&d, r->byte_ns + silence_ms * CLOCK_MS, DEADLINE_SILENCE);
	sooner(&d, r->asked_ns + total_ms * CLOCK_MS, DEADLINE_TOTAL);
	if (r->is_live && r->n_lost >= KUBE_LOST_MAX)
		sooner(&d, token_ready_ns(r, now_ns), DEADLINE_LIST);
	else if (r->is_live && r->is_version_held)
		sooner(&d, r->held_since_ns + KUBE_LOST_REWATCH_NS, DEADLINE_LOST);
	return d;
}

static void page_settle(struct kube_reflector *r)
{
	kube_settle(r, r->continue_token ? KUBE_PHASE_LIST : KUBE_PHASE_WATCH);
}

static void silence_settle(struct kube_reflector *r, uint64_t now_ns, enum deadline what)
{
	r->status.n_silent++;
	uint64_t since_ns = r->http_status ? r->byte_ns : r->asked_ns;
	kube_trouble_set(r, now_ns, KUBE_TROUBLE_UNREACHABLE, "%s for %llu s",
		what == DEADLINE_HEAD    ? "no answer"
		: what == DEADLINE_TOTAL ? "an answer that does not end"
					 : "silent",
		(now_ns - (what == DEADLINE_TOTAL ? r->asked_ns : since_ns)) / CLOCK_S);
	if (r->phase == KUBE_PHASE_STREAM && r->http_status == 200 && !r->is_live)
		r->stream_after_ns = now_ns + KUBE_STREAM_AGAIN_NS; // it takes that for a watch
	if (r->is_live)
		settle_spread(r, now_ns, phase_after_watch(r, now_ns));
	else
		kube_settle_backoff(r, now_ns, phase_after_loss(r, now_ns));
}

static void deadline_reached(struct kube_reflector *r, uint64_t now_ns, enum deadline what)
{
	if (r->is_page_done)
		page_settle(r);
	else if (what == DEADLINE_LIST)
		kube_settle(r, kube_phase_first(r, now_ns));
	else if (what == DEADLINE_LOST)
		kube_settle(r, KUBE_PHASE_WATCH);
	else if (what == DEADLINE_TOTAL && r->is_live)
		settle_spread(r, now_ns, phase_after_watch(r, now_ns));
	else
		silence_settle(r, now_ns, what);
}

static enum kube_reflector_step busy_step(
	struct kube_reflector *r, uint64_t now_ns, struct kube_request *out)
{
	struct deadline_at d = deadline_next(r, now_ns);
	if (!r->is_over && now_ns >= d.at_ns)
		deadline_reached(r, now_ns, d.what);
	if (r->is_over) {
		r->is_busy = false;
		return KUBE_STEP_ABANDON;
	}
	struct kube_reflector_status *status = &r->status;
	bool was_before = status->trouble_ns <= r->head_ns && !r->is_version_held;
	if (r->is_live && status->trouble && was_before) {
		if (now_ns - r->head_ns >= TROUBLE_OVER_NS)
			status->trouble = KUBE_TROUBLE_NONE;
		else
			sooner(&d, r->head_ns + TROUBLE_OVER_NS, d.what);
	}
	out->until_ns = d.at_ns;
	return KUBE_STEP_BUSY;
}

// ---------------------------------------------------------------- requests
// Percent-encoded into out (room for 3 * strlen + 1).
static void encode(const char *text, char *out)
{
	for (; *text; text++) {
		unsigned char c = (unsigned char)*text;
		bool is_word = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
			       (c >= '0' && c <= '9') || strchr("-._~", c);
		out += is_word ? sprintf(out, "%c", c) : sprintf(out, "%%%02X", c);
	}
	*out = '\0';
}

// What follows path and selectors. NULL: out of memory.
static char *question(struct kube_reflector *r)
{
	char version[3 * KUBE_RV_MAX + 32] = "", *text = NULL;
	const char *asked = r->phase == KUBE_PHASE_WATCH ? r->status.last_rv : r->asked_rv;
	int n = 0;
	if (asked[0]) {
		n = sprintf(version, "&resourceVersion=");
		encode(asked, version + n);
	}
	if (r->phase == KUBE_PHASE_STREAM) {
		n = asprintf(&text,
			"watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan"
			"&allowWatchBookmarks=true&timeoutSeconds=%u%s",
			r->timeout_s, version);
	} else if (r->phase == KUBE_PHASE_WATCH) {
		n = asprintf(&text, "watch=true&allowWatchBookmarks=true&timeoutSeconds=%u%s",
			r->timeout_s, version);
	} else if (r->continue_token) {
		char *token = malloc(3 * strlen(r->continue_token) + 1);
		if (token == NULL)
			return NULL;
		encode(r->continue_token, token);
		n = asprintf(&text, "limit=%d&continue=%s", KUBE_PAGE_ITEMS, token);
		free(token);
	} else if (r->is_full || asked[0]) {
		text = strdup(version[0] ? version + 1 : "");
	} else {
		n = asprintf(&text, "limit=%d", KUBE_PAGE_ITEMS);
	}
	return n < 0 ? NULL : text;
}

static bool target_make(struct kube_reflector *r)
{
	char *rest = question(r), *target = NULL;
	if (rest == NULL)
		return false;
	bool has_both = r->query[0] && rest[0];
	int n = asprintf(&target, "%s%s%s%s%s", r->path, r->query[0] || rest[0] ? "?" : "",
		r->query, has_both ? "&" : "", rest);
	free(rest);
	if (n < 0)
		return false;
	free(r->target);
	r->target = target;
	return true;
}

static enum kube_reflector_step request_start(
	struct kube_reflector *r, uint64_t now_ns, struct kube_request *out)
{
	bool is_first = is_list_start(r);
	if (is_first)
		snprintf(r->asked_rv, sizeof(r->asked_rv), "%s",
			r->is_version_refused ? "" : r->status.last_rv);
	r->timeout_s = WATCH_MIN_S + (uint32_t)kube_random_below(r, WATCH_MIN_S + 1);
	if (!target_make(r)) {
		out->until_ns = now_ns + CLOCK_S;
		return KUBE_STEP_WAIT;
	}
	if (is_first)
		token_spend(r);
	kube_stream_reset(
		r->stream, r->phase == KUBE_PHASE_LIST ? KUBE_STREAM_LIST : KUBE_STREAM_WATCH);
	r->is_busy = true;
	r->is_over = r->is_live = r->is_page_done = false;
	r->http_status = 0;
	r->retry_after_s = -1;
	r->asked_ns = now_ns;
	r->n_events_here = 0;
	r->n_error_body = 0;
	r->is_version_held = false;
	r->status.n_requests++;
	out->target = r->target;
	out->is_watch = r->phase != KUBE_PHASE_LIST;
	return KUBE_STEP_REQUEST;
}

enum kube_reflector_step kube_reflector_next(
	struct kube_reflector *r, uint64_t now_ns, struct kube_request *out)
{
	*out = (struct kube_request){ 0 };
	if (r->is_busy)
		return busy_step(r, now_ns, out);
	uint64_t at_ns = r->wait_until_ns > r->hard_until_ns ? r->wait_until_ns : r->hard_until_ns;
	if (is_list_start(r)) {
		uint64_t ready_ns = token_ready_ns(r, now_ns);
		at_ns = at_ns > ready_ns ? at_ns : ready_ns;
	}
	if (at_ns <= now_ns)
		return request_start(r, now_ns, out);
	out->until_ns = at_ns;
	return KUBE_STEP_WAIT;
}

void kube_reflector_wake(struct kube_reflector *r, uint64_t now_ns)
{
	if (r->wait_until_ns > now_ns)
		r->wait_until_ns = now_ns;
	r->backoff_ns = BACKOFF_FIRST_NS;
}

// ---------------------------------------------------------------- answers
static bool is_json(const char *content_type)
{
	return content_type == NULL || content_type[0] == '\0' ||
	       strncasecmp(content_type, "application/json", 16) == 0;
}

void kube_reflector_head(struct kube_reflector *r, uint64_t now_ns, int http_status,
	int64_t retry_after_s, const char *content_type)
{
	if (!r->is_busy || r->is_over || r->http_status)
		return;
	r->http_status = http_status;
	r->retry_after_s = retry_after_s;
	r->head_ns = r->byte_ns = r->status.last_byte_ns = now_ns;
	if (http_status != 200)
		return;
	if (is_list_start(r))
		r->status.n_lists++;
	if (!is_json(content_type)) {
		kube_trouble_set(r, now_ns, KUBE_TROUBLE_GARBAGE,
			"an answer of type \"%.60s\"; expected: application/json", content_type);
		kube_settle_backoff(r, now_ns, phase_after_loss(r, now_ns));
		return;
	}
	r->n_refused = 0;
	if (r->phase == KUBE_PHASE_WATCH) {
		r->is_live = r->status.is_watching = true;
		r->status.n_watches++;
	} else if (r->continue_token == NULL) {
		kube_list_begin(r);
	}
}

static void error_body_add(struct kube_reflector *r, const char *bytes, size_t len)
{
	size_t room = KUBE_ERROR_BODY_MAX - r->n_error_body;
	if (r->error_body == NULL)
		r->error_body = malloc(KUBE_ERROR_BODY_MAX);
	if (r->error_body == NULL)
		return;
	len = len < room ? len : room;
	memcpy(r->error_body + r->n_error_body, bytes, len);
	r->n_error_body += len;
}

void kube_reflector_body(struct kube_reflector *r, uint64_t now_ns, const char *bytes, size_t len)
{
	if (!r->is_busy || r->is_over || len == 0)
		return;
	r->byte_ns = r->status.last_byte_ns = now_ns;
	if (r->http_status != 200) {
		error_body_add(r, bytes, len);
		return;
	}
	while (!r->is_over) {
		struct kube_frame frame;
		size_t n = kube_stream_feed(r->stream, bytes, len, &frame);
		bytes += n;
		len -= n;
		if (frame.kind == KUBE_FRAME_NONE)
			break;
		kube_frame_take(r, now_ns, &frame);
	}
}

static const char *end_name(enum kube_end how)
{
	static const char *const names[] = { "closed", "refused", "timed out", "broken" };
	return names[how];
}

// A watch that brought something, or lived for a second, was one: however it ends, it is asked for again within a second, and
// no backoff grows. (A balancer before the API may break every connection that is a minute old.)
static void watch_ended(struct kube_reflector *r, uint64_t now_ns, enum kube_end how)
{
	bool was_none = r->n_events_here == 0 && now_ns - r->head_ns < CLOCK_S;
	bool is_broken = how != KUBE_END_CLEAN || !kube_stream_is_whole(r->stream);
	if (how != KUBE_END_CLEAN)
		kube_trouble_set(
			r, now_ns, KUBE_TROUBLE_UNREACHABLE, "watch: connection %s", end_name(how));
	else if (is_broken)
		kube_trouble_set(r, now_ns, KUBE_TROUBLE_UNREACHABLE,
			"the watch ended in the middle of an event");
	else if (was_none)
		kube_trouble_set(r, now_ns, KUBE_TROUBLE_SERVER,
			"the watch ended at once, without an event");
	enum kube_phase next = phase_after_watch(r, now_ns);
	if (was_none)
		kube_settle_backoff(r, now_ns, next);
	else if (is_broken ||
		 now_ns - r->asked_ns < (uint64_t)(r->timeout_s - EARLY_END_S) * CLOCK_S)
		settle_spread(r, now_ns, next);
	else
		kube_settle(r, next);
}

static void request_ended(struct kube_reflector *r, uint64_t now_ns, enum kube_end how)
{
	if (r->http_status == 0) {
		kube_trouble_set(
			r, now_ns, KUBE_TROUBLE_UNREACHABLE, "connection %s", end_name(how));
		kube_settle_backoff(r, now_ns, phase_after_loss(r, now_ns));
	} else if (r->http_status != 200) {
		kube_answer_refused(r, now_ns);
	} else if (r->is_live) {
		watch_ended(r, now_ns, how);
	} else if (r->is_page_done) {
		page_settle(r);
	} else {
		bool is_stream = r->phase == KUBE_PHASE_STREAM;
		r->n_stream_failed += is_stream;
		kube_trouble_set(r, now_ns,
			how == KUBE_END_CLEAN ? KUBE_TROUBLE_SERVER : KUBE_TROUBLE_UNREACHABLE,
			"list: %s before its %s", end_name(how), is_stream ? "bookmark" : "end");
		kube_settle_backoff(r, now_ns, kube_phase_first(r, now_ns));
	}
}

void kube_reflector_end(struct kube_reflector *r, uint64_t now_ns, enum kube_end how)
{
	if (!r->is_busy)
		return;
	if (!r->is_over)
		request_ended(r, now_ns, how);
	r->is_busy = false;
}

// ---------------------------------------------------------------- life
struct kube_reflector *kube_reflector_create(
	const struct kube_reflector_config *config, const struct kube_sink *sink)
{
	struct kube_reflector *r = calloc(1, sizeof(*r));
	if (r == NULL)
		return NULL;
	r->path = strdup(config->path);
	r->query = strdup(config->query ? config->query : "");
	r->kind = strdup(config->kind);
	r->stream = kube_stream_create(KUBE_STREAM_WATCH, 0);
	r->is_optional = config->is_optional;
	r->no_watch_list = config->no_watch_list;
	r->random = config->seed;
	r->sink = *sink;
	r->backoff_ns = BACKOFF_FIRST_NS;
	r->n_tokens = KUBE_LIST_BURST;
	if (r->path && r->query && r->kind && r->stream) {
		r->phase = kube_phase_first(r, 0);
		return r;
	}
	kube_reflector_destroy(r);
	return NULL;
}

void kube_reflector_destroy(struct kube_reflector *r)
{
	if (r == NULL)
		return;
	kube_stream_destroy(r->stream);
	free(r->path);
	free(r->query);
	free(r->kind);
	free(r->continue_token);
	free(r->target);
	free(r->error_body);
	free(r);
}

const struct kube_reflector_status *kube_reflector_status(const struct kube_reflector *r)
{
	return &r->status;
}
