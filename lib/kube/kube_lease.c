// SPDX-License-Identifier: BSD-3-Clause
// The Lease as a machine of one request at a time. Three things decide: what was last read (record), when by our own clock it last
// changed (seen), and when we sent what last succeeded (renewed).
//
// Why no two hold it: a contender waits for lease_ms since it saw the last change, and sees a change only after the server
// made it, which was after its holder sent it; the holder stops renew_deadline_ms after it sent. The server takes a PUT only
// with the version that was read, so of two that try at once one gets 409, and a PUT that was long under way gets it too.
#include "kube_lease.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base.h"
#include "kube.h"

#define VERSION        "coordination.k8s.io/v1"
#define BODY_MAX_BYTES (256u << 10)

struct kube_lease {
	struct kube_lease_config config; // its strings are owned
	struct kube_lease_status status;
	char *path;     // of the Lease
	char *path_all; // of all of the namespace
	char *body;     // of the request under way
	uint64_t random;
	json_t *record; // as last read or written; NULL: none, or not known
	uint64_t seen_ns;
	uint64_t duration_ns; // of the record
	bool is_holding;      // the record was ours when it was last read or written
	uint64_t renewed_ns;
	enum kube_lease_method want;
	uint64_t next_ns;
	uint32_t n_failures_row;
	bool is_busy;
	uint64_t asked_ns;
	bool is_cut; // the request under way is no longer wanted
	bool is_releasing;
	bool is_done;
	uint64_t give_up_ns; // of releasing
};

struct kube_lease_config kube_lease_config_default(enum kube_lease_kind kind)
{
	bool is_own = kind == KUBE_LEASE_OWN;
	return (struct kube_lease_config){
		.kind = kind,
		.lease_ms = is_own ? 40000 : 15000,
		.renew_deadline_ms = is_own ? 30000 : 10000,
		.retry_ms = is_own ? 10000 : 2000,
	};
}

const char *kube_micro_time(int64_t wall_us, char *buf, size_t len)
{
	int64_t us = (wall_us % 1000000 + 1000000) % 1000000;
	char whole[32];
	clock_rfc3339((wall_us - us) / 1000, whole, sizeof(whole)); // "2026-01-31T12:00:00.000Z"
	snprintf(buf, len, "%.19s.%06dZ", whole, (int)us);
	return buf;
}

// ---------------------------------------------------------------- life
static bool is_config_valid(const struct kube_lease_config *c)
{
	uint64_t retry = c->retry_ms, renew = c->renew_deadline_ms;
	return c->lease_ms > renew && renew * 10 > retry * 12 && retry > 0 &&
	       c->lease_ms % 1000 == 0 && c->identity[0] && strlen(c->identity) <= 253;
}

struct kube_lease *kube_lease_create(const struct kube_lease_config *config)
{
	struct kube_lease *l = is_config_valid(config) ? calloc(1, sizeof(*l)) : NULL;
	if (l == NULL)
		return NULL;
	l->config = *config;
	l->config.namespace = strdup(config->namespace);
	l->config.name = strdup(config->name);
	l->config.identity = strdup(config->identity);
	l->random = config->seed;
	if (asprintf(&l->path_all, "/apis/" VERSION "/namespaces/%s/leases", config->namespace) < 0)
		l->path_all = NULL;
	if (asprintf(&l->path, "/apis/" VERSION "/namespaces/%s/leases/%s", config->namespace,
		    config->name) < 0)
		l->path = NULL;
	if (l->config.namespace && l->config.name && l->config.identity && l->path && l->path_all)
		return l;
	kube_lease_destroy(l);
	return NULL;
}

void kube_lease_destroy(struct kube_lease *l)
{
	if (l == NULL)
		return;
	free((char *)l->config.namespace);
	free((char *)l->config.name);
	free((char *)l->config.identity);
	free(l->path);
	free(l->path_all);
	free(l->body);
	json_decref(l->record);
	free(l);
}

// ---------------------------------------------------------------- the record
static const json_t *spec_of(const json_t *record)
{
	return json_object_get(record, "spec");
}

static const char *spec_text(const json_t *record, const char *key)
{
	const char *text = json_string_value(json_object_get(spec_of(record), key));
	return text ? text : "";
}

static bool is_ours(const struct kube_lease *l)
{
	return strcmp(spec_text(l->record, "holderIdentity"), l->config.identity) == 0;
}

// A Lease of that name with a version, or NULL.
static json_t *record_parse(const struct kube_lease *l, const char *body, size_t len)
{
	json_t *json =
		len <= BODY_MAX_BYTES ? json_loadb(body, len, JSON_REJECT_DUPLICATES, NULL) : NULL;
	const json_t *metadata = json_object_get(json, "metadata");
	const char *kind = json_string_value(json_object_get(json, "kind"));
	const char *name = json_string_value(json_object_get(metadata, "name"));
	const char *version = json_string_value(json_object_get(metadata, "resourceVersion"));
	if (kind && strcmp(kind, "Lease") == 0 && name && strcmp(name, l->config.name) == 0 &&
		version && version[0])
		return json;
	json_decref(json);
	return NULL;
}

// Takes what the server says now. The clock starts again when the spec is another than before.
static void record_take(struct kube_lease *l, uint64_t now_ns, json_t *record)
{
	struct kube_lease_status *status = &l->status;
	const json_t *spec = spec_of(record);
	json_int_t seconds = json_integer_value(json_object_get(spec, "leaseDurationSeconds"));
	json_int_t transitions = json_integer_value(json_object_get(spec, "leaseTransitions"));
	if (l->record == NULL || !json_equal((json_t *)spec_of(l->record), (json_t *)spec))
		l->seen_ns = now_ns;
	json_decref(l->record);
	l->record = record;
	l->duration_ns = seconds > 0 && seconds <= INT32_MAX ? (uint64_t)seconds * CLOCK_S
							     : l->config.lease_ms * CLOCK_MS;
	status->transitions =
		transitions > 0 && transitions < INT32_MAX ? (uint32_t)transitions : 0;
	snprintf(status->holder, sizeof(status->holder), "%s", spec_text(record, "holderIdentity"));
}

// May the record be written by us?
static bool may_take(const struct kube_lease *l, uint64_t now_ns)
{
	if (l->config.kind == KUBE_LEASE_OWN || is_ours(l) || l->status.holder[0] == '\0')
		return true;
	return now_ns - l->seen_ns >= l->duration_ns;
}

static json_t *record_new(const struct kube_lease *l)
{
	return json_pack("{s:s, s:s, s:{s:s, s:s}, s:{}}", "apiVersion", VERSION, "kind", "Lease",
		"metadata", "name", l->config.name, "namespace", l->config.namespace, "spec");
}

static void spec_write(const struct kube_lease *l, json_t *spec, const char *now_text)
{
	bool is_kept = l->record && is_ours(l);
	const char *holder = l->is_releasing ? "" : l->config.identity;
	json_int_t seconds = l->is_releasing ? 1 : l->config.lease_ms / 1000;
	json_int_t transitions = l->record ? (json_int_t)l->status.transitions + !is_kept : 0;
	json_object_set_new(spec, "holderIdentity", json_string(holder));
	json_object_set_new(spec, "leaseDurationSeconds", json_integer(seconds));
	json_object_set_new(spec, "leaseTransitions", json_integer(transitions));
	json_object_set_new(spec, "renewTime", json_string(now_text));
	if (!is_kept || l->is_releasing || spec_text(l->record, "acquireTime")[0] == '\0')
		json_object_set_new(spec, "acquireTime", json_string(now_text));
}

// The object to send: what was read, with our spec laid over it. False: out of memory.
static bool body_make(struct kube_lease *l, int64_t wall_us)
{
	char now_text[40];
	json_t *json = l->want == KUBE_LEASE_PUT ? json_deep_copy(l->record) : record_new(l);
	kube_micro_time(wall_us, now_text, sizeof(now_text));
	if (!json_is_object(json_object_get(json, "spec")))
		json_object_set_new(json, "spec", json_object());
	spec_write(l, json_object_get(json, "spec"), now_text);
	free(l->body);
	l->body = json ? json_dumps(json, JSON_COMPACT) : NULL;
	json_decref(json);
	return l->body != NULL;
}

// ---------------------------------------------------------------- when
static uint64_t random_below(struct kube_lease *l, uint64_t bound)
{
	uint64_t z = l->random += 0x9e3779b97f4a7c15ull; // splitmix64
	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return bound ? (z ^ z >> 31) % bound : 0;
}

static uint64_t retry_ns(const struct kube_lease *l)
{
	return l->config.retry_ms * CLOCK_MS;
}

bool kube_lease_is_held(const struct kube_lease *l, uint64_t now_ns)
{
	return l->is_holding && !l->is_releasing && now_ns < kube_lease_held_until_ns(l);
}

bool kube_lease_is_free(const struct kube_lease *l, uint64_t now_ns)
{
	return may_take(l, now_ns) && !kube_lease_is_held(l, now_ns);
}

uint64_t kube_lease_held_until_ns(const struct kube_lease *l)
{
	if (!l->is_holding || l->is_releasing)
		return 0;
	return l->renewed_ns + l->config.renew_deadline_ms * CLOCK_MS;
}

static void ask_next(struct kube_lease *l, enum kube_lease_method want, uint64_t at_ns)
{
	l->want = want;
	l->next_ns = at_ns;
}

// A follower looks again after 1..2.2 retry periods, or when the record runs out if that is sooner, with a spread.
static void look_later(struct kube_lease *l, uint64_t now_ns)
{
	uint64_t at_ns = now_ns + retry_ns(l) + random_below(l, retry_ns(l) * 12 / 10);
	uint64_t out_ns = l->seen_ns + l->duration_ns + random_below(l, retry_ns(l) / 4);
	if (l->record && out_ns > now_ns && out_ns < at_ns)
		at_ns = out_ns;
	ask_next(l, KUBE_LEASE_GET, at_ns);
}

// The first failure after a success is followed at once where the record may only be another than we thought.
static void failed(struct kube_lease *l, uint64_t now_ns, bool is_conflict)
{
	l->status.n_failures++;
	l->status.n_conflicts += is_conflict;
	l->n_failures_row++;
	if (is_conflict && l->n_failures_row == 1)
		ask_next(l, KUBE_LEASE_GET, now_ns);
	else if (kube_lease_is_held(l, now_ns) || l->is_releasing)
		ask_next(l, KUBE_LEASE_GET,
			now_ns + retry_ns(l) / 2 + random_below(l, retry_ns(l) / 2));
	else
		look_later(l, now_ns);
}

static void trouble_set(struct kube_lease *l, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
static void trouble_set(struct kube_lease *l, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(l->status.trouble_text, sizeof(l->status.trouble_text), fmt, ap);
	va_end(ap);
	for (char *c = l->status.trouble_text; *c; c++)
		if ((unsigned char)*c < 0x20 || (unsigned char)*c > 0x7e)
			*c = '?';
}

static const char *method_name(enum kube_lease_method method)
{
	static const char *const names[] = { "GET", "POST", "PUT" };
	return names[method];
}

// ---------------------------------------------------------------- asking
static enum kube_lease_step busy_step(
	struct kube_lease *l, uint64_t now_ns, struct kube_lease_request *out)
{
	uint64_t until_ns = l->asked_ns + l->config.renew_deadline_ms * CLOCK_MS / 3;
	if (now_ns < until_ns && !l->is_cut) {
		out->until_ns = until_ns;
		return KUBE_LEASE_BUSY;
	}
	l->is_busy = false;
	if (l->is_cut) {
		l->is_cut = false;
		return KUBE_LEASE_ABANDON;
	}
	trouble_set(l, "%s: no answer in time", method_name(l->want));
	failed(l, now_ns, false);
	return KUBE_LEASE_ABANDON;
}

enum kube_lease_step kube_lease_next(
	struct kube_lease *l, uint64_t now_ns, int64_t wall_us, struct kube_lease_request *out)
{
	*out = (struct kube_lease_request){ 0 };
	if (l->is_busy)
		return busy_step(l, now_ns, out);
	if (l->is_releasing && now_ns >= l->give_up_ns)
		l->is_done = true;
	if (l->is_done)
		return KUBE_LEASE_DONE;
	if (now_ns < l->next_ns) {
		out->until_ns = l->next_ns;
		return KUBE_LEASE_WAIT;
	}
	if (l->want != KUBE_LEASE_GET && !body_make(l, wall_us)) {
		out->until_ns = l->next_ns = now_ns + CLOCK_S;
		return KUBE_LEASE_WAIT;
	}
	l->is_busy = true;
	l->asked_ns = now_ns;
	l->status.n_requests++;
	out->method = l->want;
	out->path = l->want == KUBE_LEASE_POST ? l->path_all : l->path;
	out->body = l->want == KUBE_LEASE_GET ? NULL : l->body;
	out->body_len = out->body ? strlen(out->body) : 0;
	return KUBE_LEASE_REQUEST;
}

// ---------------------------------------------------------------- answers
static void looked(struct kube_lease *l, uint64_t now_ns, json_t *record)
{
	record_take(l, now_ns, record);
	l->is_holding = l->is_holding && is_ours(l);
	if (l->is_releasing && !is_ours(l))
		l->is_done = true;
	else if (l->is_releasing || may_take(l, now_ns))
		ask_next(l, KUBE_LEASE_PUT, now_ns);
	else
		look_later(l, now_ns);
}

static void written(struct kube_lease *l, uint64_t now_ns, json_t *record)
{
	record_take(l, now_ns, record);
	l->n_failures_row = 0;
	if (l->is_releasing) {
		l->is_done = true;
		return;
	}
	l->status.n_terms += !kube_lease_is_held(l, now_ns);
	l->is_holding = true;
	l->renewed_ns = l->status.renewed_ns = l->asked_ns;
	ask_next(l, KUBE_LEASE_PUT, l->asked_ns + retry_ns(l));
}

static void is_missing(struct kube_lease *l, uint64_t now_ns)
{
	json_decref(l->record);
	l->record = NULL;
	l->status.holder[0] = '\0';
	if (l->is_releasing)
		l->is_done = true;
	else
		ask_next(l, KUBE_LEASE_POST, now_ns);
}

void kube_lease_answer(
	struct kube_lease *l, uint64_t now_ns, int http_status, const char *body, size_t len)
{
	if (!l->is_busy)
		return;
	l->is_busy = l->is_cut = false;
	bool is_good = http_status == 200 || http_status == 201;
	json_t *record = is_good ? record_parse(l, body, len) : NULL;
	const char *holder = l->is_releasing ? "" : l->config.identity;
	if (record && l->want == KUBE_LEASE_GET) {
		looked(l, now_ns, record);
	} else if (record && strcmp(spec_text(record, "holderIdentity"), holder) == 0) {
		written(l, now_ns, record);
	} else if (l->want == KUBE_LEASE_GET && http_status == 404) {
		is_missing(l, now_ns);
	} else {
		json_decref(record);
		trouble_set(l, "%s: %s%d", method_name(l->want),
			is_good ? "an answer that is not the Lease, status " : "", http_status);
		failed(l, now_ns, http_status == 409);
	}
}

void kube_lease_release(struct kube_lease *l, uint64_t now_ns)
{
	if (l->is_releasing)
		return;
	bool is_known = l->is_holding && !l->is_busy && l->record;
	l->is_done = !l->is_holding && !l->is_busy;
	l->is_releasing = true;
	l->give_up_ns = now_ns + l->config.renew_deadline_ms * CLOCK_MS;
	l->is_cut = l->is_busy;
	ask_next(l, is_known ? KUBE_LEASE_PUT : KUBE_LEASE_GET, now_ns);
}

const struct kube_lease_status *kube_lease_status(const struct kube_lease *l)
{
	return &l->status;
}
