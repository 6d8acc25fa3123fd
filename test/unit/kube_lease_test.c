// SPDX-License-Identifier: BSD-3-Clause
// The Lease: single steps with their bodies, then contenders against a model server in virtual time, each with a clock of its own
// rate, over a network that delays and loses.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <jansson.h>

#include "base.h"
#include "kube_lease.h"

#define PATH     "/apis/coordination.k8s.io/v1/namespaces/sluice-system/leases"
#define WALL_US  1769860800123456ll // 2026-01-31T12:00:00.123456Z
#define WALL     "2026-01-31T12:00:00.123456Z"
#define OLD_TIME "2026-01-31T11:00:00.000000Z"

static struct kube_lease *make(const char *identity, enum kube_lease_kind kind, uint64_t seed)
{
	struct kube_lease_config config = kube_lease_config_default(kind);
	config.namespace = "sluice-system";
	config.name = "leader";
	config.identity = identity;
	config.seed = seed;
	struct kube_lease *l = kube_lease_create(&config);
	assert_non_null(l);
	return l;
}

static const char *lease_text(const char *version, const char *holder, int transitions)
{
	static char text[1024];
	snprintf(text, sizeof(text),
		"{\"apiVersion\":\"coordination.k8s.io/"
		"v1\",\"kind\":\"Lease\",\"metadata\":{\"name\":\"leader\","
		"\"namespace\":\"sluice-system\",\"resourceVersion\":\"%s\",\"labels\":{\"a\":"
		"\"b\"}},"
		"\"spec\":{\"holderIdentity\":\"%s\",\"leaseDurationSeconds\":15,"
		"\"leaseTransitions\":%d,"
		"\"acquireTime\":\"" OLD_TIME "\",\"renewTime\":\"%s\",\"preferredHolder\":\"c\"}}",
		version, holder, transitions, version);
	return text;
}

static void expect_request(struct kube_lease *l, uint64_t now_ns, enum kube_lease_method method,
	struct kube_lease_request *out)
{
	assert_int_equal(kube_lease_next(l, now_ns, WALL_US, out), KUBE_LEASE_REQUEST);
	assert_int_equal(out->method, method);
	assert_string_equal(out->path, method == KUBE_LEASE_POST ? PATH : PATH "/leader");
	assert_true((out->body == NULL) == (method == KUBE_LEASE_GET));
	assert_int_equal(out->body_len, out->body ? strlen(out->body) : 0);
}

static uint64_t expect_wait(struct kube_lease *l, uint64_t now_ns)
{
	struct kube_lease_request request;
	assert_int_equal(kube_lease_next(l, now_ns, WALL_US, &request), KUBE_LEASE_WAIT);
	assert_true(request.until_ns > now_ns);
	return request.until_ns;
}

static void answer(struct kube_lease *l, uint64_t now_ns, int status, const char *text)
{
	kube_lease_answer(l, now_ns, status, text, strlen(text));
}

static void expect_json(const char *got, const char *want)
{
	json_t *a = json_loads(got, JSON_REJECT_DUPLICATES, NULL), *b = json_loads(want, 0, NULL);
	if (a == NULL || b == NULL || !json_equal(a, b))
		fail_msg("got  %s\nwant %s", got, want);
	json_decref(a);
	json_decref(b);
}

// ---------------------------------------------------------------- steps
// There is no Lease: it is made, held from when the POST was sent, renewed with the version of the answer.
static void test_create(void **state)
{
	struct kube_lease *l = make("a", KUBE_LEASE_ELECTION, 1);
	struct kube_lease_request request;
	expect_request(l, 0, KUBE_LEASE_GET, &request);
	assert_int_equal(kube_lease_next(l, CLOCK_MS, WALL_US, &request), KUBE_LEASE_BUSY);
	answer(l, 5 * CLOCK_MS, 404, "{\"kind\":\"Status\"}");
	assert_false(kube_lease_is_held(l, 5 * CLOCK_MS));
	assert_true(kube_lease_is_free(l, 5 * CLOCK_MS));
	expect_request(l, 10 * CLOCK_MS, KUBE_LEASE_POST, &request);
	expect_json(request.body,
		"{\"apiVersion\":\"coordination.k8s.io/"
		"v1\",\"kind\":\"Lease\",\"metadata\":{\"name\":\"leader\","
		"\"namespace\":\"sluice-system\"},\"spec\":{\"holderIdentity\":\"a\","
		"\"leaseDurationSeconds\":15,"
		"\"leaseTransitions\":0,\"acquireTime\":\"" WALL "\",\"renewTime\":\"" WALL "\"}}");
	assert_false(kube_lease_is_held(l, 10 * CLOCK_MS));
	answer(l, CLOCK_S, 201, lease_text("7", "a", 0));
	assert_true(kube_lease_is_held(l, CLOCK_S));
	assert_false(kube_lease_is_free(l, CLOCK_S));
	assert_true(kube_lease_is_free(l, 10 * CLOCK_S + 10 * CLOCK_MS));
	assert_int_equal(kube_lease_held_until_ns(l), 10 * CLOCK_S + 10 * CLOCK_MS);
	assert_true(kube_lease_is_held(l, 10 * CLOCK_S + 10 * CLOCK_MS - 1));
	assert_false(kube_lease_is_held(l, 10 * CLOCK_S + 10 * CLOCK_MS));
	assert_int_equal(expect_wait(l, CLOCK_S), 2 * CLOCK_S + 10 * CLOCK_MS);
	expect_request(l, 2 * CLOCK_S + 10 * CLOCK_MS, KUBE_LEASE_PUT, &request);
	expect_json(request.body, "{\"apiVersion\":\"coordination.k8s.io/"
				  "v1\",\"kind\":\"Lease\",\"metadata\":{\"name\":\"leader\","
				  "\"namespace\":\"sluice-system\",\"resourceVersion\":\"7\","
				  "\"labels\":{\"a\":\"b\"}},"
				  "\"spec\":{\"holderIdentity\":\"a\",\"leaseDurationSeconds\":15,"
				  "\"leaseTransitions\":0,"
				  "\"acquireTime\":\"" OLD_TIME "\",\"renewTime\":\"" WALL
				  "\",\"preferredHolder\":\"c\"}}");
	answer(l, 3 * CLOCK_S, 200, lease_text("8", "a", 0));
	assert_int_equal(kube_lease_held_until_ns(l), 12 * CLOCK_S + 10 * CLOCK_MS);
	assert_int_equal(kube_lease_status(l)->n_terms, 1);
	assert_string_equal(kube_lease_status(l)->holder, "a");
	kube_lease_destroy(l);
}

// Held by another: not before its duration passed by our clock since it last changed, however old it says it is.
static void test_wait_for_another(void **state)
{
	struct kube_lease *l = make("a", KUBE_LEASE_ELECTION, 1);
	struct kube_lease_request request;
	uint64_t now = 100 * CLOCK_S, seen = 0;
	const char *version = "7";
	for (int i = 0; i < 60; i++) {
		expect_request(l, now, KUBE_LEASE_GET, &request);
		if (i == 5)
			version = "8"; // renewed meanwhile
		if (i == 0 || i == 5)
			seen = now + CLOCK_MS;
		answer(l, now + CLOCK_MS, 200, lease_text(version, "b", 3));
		if (now + CLOCK_MS - seen >= 15 * CLOCK_S)
			break;
		uint64_t next = expect_wait(l, now + CLOCK_MS);
		assert_true(next - now <= 4400 * CLOCK_MS + CLOCK_MS);
		assert_true(next - now >= 2 * CLOCK_S || next >= seen + 15 * CLOCK_S);
		now = next;
	}
	assert_in_range(now - seen, 15 * CLOCK_S - CLOCK_MS, 15 * CLOCK_S + 500 * CLOCK_MS);
	expect_request(l, now + CLOCK_MS, KUBE_LEASE_PUT, &request);
	expect_json(request.body, "{\"apiVersion\":\"coordination.k8s.io/"
				  "v1\",\"kind\":\"Lease\",\"metadata\":{\"name\":\"leader\","
				  "\"namespace\":\"sluice-system\",\"resourceVersion\":\"8\","
				  "\"labels\":{\"a\":\"b\"}},"
				  "\"spec\":{\"holderIdentity\":\"a\",\"leaseDurationSeconds\":15,"
				  "\"leaseTransitions\":4,"
				  "\"acquireTime\":\"" WALL "\",\"renewTime\":\"" WALL
				  "\",\"preferredHolder\":\"c\"}}");
	kube_lease_destroy(l);
}

static void take(struct kube_lease *l, uint64_t now_ns)
{
	struct kube_lease_request request;
	expect_request(l, now_ns, KUBE_LEASE_GET, &request);
	answer(l, now_ns, 200, lease_text("7", "", 3));
	expect_request(l, now_ns, KUBE_LEASE_PUT, &request);
	answer(l, now_ns, 200, lease_text("8", "a", 4));
	assert_true(kube_lease_is_held(l, now_ns));
}

// A free one, and one that says it is ours (a restart under the same name), are taken at once.
static void test_free_one(void **state)
{
	struct kube_lease *l = make("a", KUBE_LEASE_ELECTION, 1);
	struct kube_lease_request request;
	take(l, CLOCK_S);
	kube_lease_destroy(l);
	l = make("a", KUBE_LEASE_ELECTION, 1);
	expect_request(l, CLOCK_S, KUBE_LEASE_GET, &request);
	answer(l, CLOCK_S, 200, lease_text("7", "a", 3));
	assert_false(kube_lease_is_held(l, CLOCK_S)); // not before it was written
	expect_request(l, CLOCK_S, KUBE_LEASE_PUT, &request);
	json_t *body = json_loads(request.body, 0, NULL);
	const json_t *spec = json_object_get(body, "spec");
	assert_int_equal(json_integer_value(json_object_get(spec, "leaseTransitions")), 3);
	assert_string_equal(json_string_value(json_object_get(spec, "acquireTime")), OLD_TIME);
	json_decref(body);
	kube_lease_destroy(l);
}

// A renewal meets a newer version: read once at once; still ours: written again; another's: lost at once.
static void test_conflict(void **state)
{
	for (int is_ours = 0; is_ours <= 1; is_ours++) {
		struct kube_lease *l = make("a", KUBE_LEASE_ELECTION, 1);
		struct kube_lease_request request;
		take(l, CLOCK_S);
		expect_request(l, 3 * CLOCK_S, KUBE_LEASE_PUT, &request);
		answer(l, 3 * CLOCK_S, 409, "{}");
		assert_true(kube_lease_is_held(l, 3 * CLOCK_S));
		expect_request(l, 3 * CLOCK_S, KUBE_LEASE_GET, &request);
		answer(l, 3 * CLOCK_S, 200, lease_text("9", is_ours ? "a" : "b", 5));
		assert_int_equal(kube_lease_is_held(l, 3 * CLOCK_S), is_ours);
		if (is_ours)
			expect_request(l, 3 * CLOCK_S, KUBE_LEASE_PUT, &request);
		else
			expect_wait(l, 3 * CLOCK_S);
		assert_int_equal(kube_lease_status(l)->n_conflicts, 1);
		assert_string_equal(kube_lease_status(l)->holder, is_ours ? "a" : "b");
		kube_lease_destroy(l);
	}
}

// A server that answers every write with 409 is not asked without end.
static void test_conflicts_for_ever(void **state)
{
	struct kube_lease *l = make("a", KUBE_LEASE_ELECTION, 1);
	struct kube_lease_request request;
	uint64_t now = 0;
	int n = 0;
	while (now < 60 * CLOCK_S) {
		enum kube_lease_step step = kube_lease_next(l, now, WALL_US, &request);
		if (step == KUBE_LEASE_WAIT) {
			now = request.until_ns;
			continue;
		}
		assert_int_equal(step, KUBE_LEASE_REQUEST);
		n++;
		if (request.method == KUBE_LEASE_GET)
			answer(l, now, 200, lease_text("7", "", 3));
		else
			answer(l, now, 409, "{}");
		assert_false(kube_lease_is_held(l, now));
	}
	assert_in_range(n, 20, 62);
	kube_lease_destroy(l);
}

// No answers: the request is given up, tried again, and the lease ends at its deadline; then it is asked for as anybody does.
static void test_no_answer(void **state)
{
	struct kube_lease *l = make("a", KUBE_LEASE_ELECTION, 1);
	struct kube_lease_request request;
	uint64_t now = 3 * CLOCK_S;
	int n_requests = 0, n_abandoned = 0;
	take(l, CLOCK_S);
	while (now < 30 * CLOCK_S) {
		assert_int_equal(kube_lease_is_held(l, now), now < 11 * CLOCK_S);
		enum kube_lease_step step = kube_lease_next(l, now, WALL_US, &request);
		n_requests += step == KUBE_LEASE_REQUEST;
		n_abandoned += step == KUBE_LEASE_ABANDON;
		if (step == KUBE_LEASE_WAIT || step == KUBE_LEASE_BUSY)
			now = request.until_ns;
	}
	assert_in_range(n_requests, 4, 7);
	assert_in_range(n_abandoned, n_requests - 1, n_requests);
	assert_int_equal(kube_lease_status(l)->n_failures, (uint64_t)n_abandoned);
	kube_lease_destroy(l);
}

// What is no success: other status, other object, not JSON, another holder in the answer.
static void test_bad_answers(void **state)
{
	static const struct {
		int status;
		const char *text;
	} answers[] = {
		{ 0, "" },
		{ 200, "" },
		{ 200, "<html>" },
		{ 200, "{}" },
		{ 200, "{\"kind\":\"Status\",\"metadata\":{}}" },
		{ 200, "[1]" },
		{ 200, "{\"kind\":\"Lease\",\"metadata\":{\"name\":\"leader\"},\"spec\":{"
		       "\"holderIdentity\":\"a\"}}" },
		{ 200, "{\"kind\":\"Lease\",\"metadata\":{\"name\":\"x\",\"resourceVersion\":\"1\"}"
		       ","
		       "\"spec\":{\"holderIdentity\":\"a\"}}" },
		{ 500, "oops" },
		{ 503, "{\"kind\":\"Status\"}" },
		{ 401, "" },
		{ 403, "" },
		{ 302, "" },
	};
	for (size_t i = 0; i < ARRAY_SIZE(answers); i++) {
		for (int method = KUBE_LEASE_GET; method <= KUBE_LEASE_PUT; method += 2) {
			struct kube_lease *l = make("a", KUBE_LEASE_ELECTION, i);
			struct kube_lease_request request;
			expect_request(l, 0, KUBE_LEASE_GET, &request);
			if (method == KUBE_LEASE_PUT) {
				answer(l, 0, 200, lease_text("7", "", 3));
				expect_request(l, 0, KUBE_LEASE_PUT, &request);
			}
			answer(l, 1, answers[i].status, answers[i].text);
			assert_false(kube_lease_is_held(l, 1));
			assert_in_range(expect_wait(l, 1), 2 * CLOCK_S, 4500 * CLOCK_MS);
			assert_int_equal(kube_lease_status(l)->n_failures, 1);
			assert_true(kube_lease_status(l)->trouble_text[0]);
			kube_lease_destroy(l);
		}
	}
	struct kube_lease *l = make("a", KUBE_LEASE_ELECTION, 1);
	struct kube_lease_request request;
	expect_request(l, 0, KUBE_LEASE_GET, &request);
	answer(l, 0, 200, lease_text("7", "", 3));
	expect_request(l, 0, KUBE_LEASE_PUT, &request);
	answer(l, 0, 200, lease_text("8", "b", 4)); // somebody else's word
	assert_false(kube_lease_is_held(l, 0));
	kube_lease_destroy(l);
}

static void test_release(void **state)
{
	struct kube_lease *l = make("a", KUBE_LEASE_ELECTION, 1);
	struct kube_lease_request request;
	take(l, CLOCK_S);
	kube_lease_release(l, 2 * CLOCK_S);
	assert_false(kube_lease_is_held(l, 2 * CLOCK_S));
	assert_int_equal(kube_lease_held_until_ns(l), 0);
	expect_request(l, 2 * CLOCK_S, KUBE_LEASE_PUT, &request);
	expect_json(request.body, "{\"apiVersion\":\"coordination.k8s.io/"
				  "v1\",\"kind\":\"Lease\",\"metadata\":{\"name\":\"leader\","
				  "\"namespace\":\"sluice-system\",\"resourceVersion\":\"8\","
				  "\"labels\":{\"a\":\"b\"}},"
				  "\"spec\":{\"holderIdentity\":\"\",\"leaseDurationSeconds\":1,"
				  "\"leaseTransitions\":4,"
				  "\"acquireTime\":\"" WALL "\",\"renewTime\":\"" WALL
				  "\",\"preferredHolder\":\"c\"}}");
	answer(l, 2 * CLOCK_S, 409, "{}"); // once more, with the newer version
	expect_request(l, 2 * CLOCK_S, KUBE_LEASE_GET, &request);
	answer(l, 2 * CLOCK_S, 200, lease_text("9", "a", 4));
	expect_request(l, 2 * CLOCK_S, KUBE_LEASE_PUT, &request);
	answer(l, 2 * CLOCK_S, 200, lease_text("10", "", 4));
	assert_int_equal(kube_lease_next(l, 2 * CLOCK_S, WALL_US, &request), KUBE_LEASE_DONE);
	assert_false(kube_lease_is_held(l, 2 * CLOCK_S));
	kube_lease_destroy(l);
}

// Released while a renewal is under way: that is dropped, what the server has is read, ours is freed, another's left alone.
static void test_release_under_way(void **state)
{
	for (int is_ours = 0; is_ours <= 1; is_ours++) {
		struct kube_lease *l = make("a", KUBE_LEASE_ELECTION, 1);
		struct kube_lease_request request;
		take(l, CLOCK_S);
		expect_request(l, 3 * CLOCK_S, KUBE_LEASE_PUT, &request);
		kube_lease_release(l, 3 * CLOCK_S);
		assert_int_equal(
			kube_lease_next(l, 3 * CLOCK_S, WALL_US, &request), KUBE_LEASE_ABANDON);
		expect_request(l, 3 * CLOCK_S, KUBE_LEASE_GET, &request);
		answer(l, 3 * CLOCK_S, 200, lease_text("9", is_ours ? "a" : "b", 5));
		if (is_ours) {
			expect_request(l, 3 * CLOCK_S, KUBE_LEASE_PUT, &request);
			answer(l, 3 * CLOCK_S, 200, lease_text("10", "", 5));
		}
		assert_int_equal(
			kube_lease_next(l, 3 * CLOCK_S, WALL_US, &request), KUBE_LEASE_DONE);
		kube_lease_destroy(l);
	}
}

static void test_release_edges(void **state)
{
	struct kube_lease *l = make("a", KUBE_LEASE_ELECTION, 1);
	struct kube_lease_request request;
	kube_lease_release(l, 0); // never held
	assert_int_equal(kube_lease_next(l, 0, WALL_US, &request), KUBE_LEASE_DONE);
	kube_lease_destroy(l);
	l = make("a", KUBE_LEASE_ELECTION, 1);
	take(l, CLOCK_S);
	kube_lease_release(l, 2 * CLOCK_S); // and no answer ever
	uint64_t now = 2 * CLOCK_S;
	enum kube_lease_step step;
	while ((step = kube_lease_next(l, now, WALL_US, &request)) != KUBE_LEASE_DONE) {
		if (step == KUBE_LEASE_WAIT || step == KUBE_LEASE_BUSY)
			now = request.until_ns;
		assert_true(now < 16 * CLOCK_S);
	}
	assert_true(now >= 12 * CLOCK_S);
	kube_lease_destroy(l);
}

// A node's own: taken over whoever holds it.
static void test_own(void **state)
{
	struct kube_lease *l = make("a", KUBE_LEASE_OWN, 1);
	struct kube_lease_request request;
	expect_request(l, CLOCK_S, KUBE_LEASE_GET, &request);
	answer(l, CLOCK_S, 200, lease_text("7", "somebody", 3));
	expect_request(l, CLOCK_S, KUBE_LEASE_PUT, &request);
	assert_non_null(strstr(request.body, "\"leaseDurationSeconds\":40"));
	answer(l, CLOCK_S, 200, lease_text("8", "a", 4));
	assert_true(kube_lease_is_held(l, CLOCK_S));
	assert_int_equal(expect_wait(l, CLOCK_S), 11 * CLOCK_S);
	expect_request(l, 11 * CLOCK_S, KUBE_LEASE_PUT, &request);
	answer(l, 11 * CLOCK_S, 409, "");
	expect_request(l, 11 * CLOCK_S, KUBE_LEASE_GET, &request);
	answer(l, 11 * CLOCK_S, 200, lease_text("9", "somebody", 5));
	expect_request(l, 11 * CLOCK_S, KUBE_LEASE_PUT, &request);
	kube_lease_destroy(l);
}

static void test_config(void **state)
{
	static const struct {
		uint32_t lease, renew, retry;
		const char *identity;
		bool is_valid;
	} cases[] = {
		{ 15000, 10000, 2000, "a", true },
		{ 3000, 2000, 500, "a", true },
		{ 15000, 15000, 2000, "a", false },
		{ 15000, 10000, 9000, "a", false },
		{ 15000, 10000, 0, "a", false },
		{ 15500, 10000, 2000, "a", false },
		{ 15000, 10000, 2000, "", false },
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct kube_lease_config config = { .namespace = "n",
			.name = "l",
			.identity = cases[i].identity,
			.lease_ms = cases[i].lease,
			.renew_deadline_ms = cases[i].renew,
			.retry_ms = cases[i].retry };
		struct kube_lease *l = kube_lease_create(&config);
		assert_int_equal(l != NULL, cases[i].is_valid);
		kube_lease_destroy(l);
	}
}

static void test_micro_time(void **state)
{
	static const struct {
		int64_t us;
		const char *want;
	} cases[] = {
		{ 0, "1970-01-01T00:00:00.000000Z" },
		{ 1, "1970-01-01T00:00:00.000001Z" },
		{ -1, "1969-12-31T23:59:59.999999Z" },
		{ WALL_US, WALL },
		{ 951782400999999ll, "2000-02-29T00:00:00.999999Z" },
		{ 4102444799000010ll, "2099-12-31T23:59:59.000010Z" },
	};
	char buf[40];
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		assert_string_equal(kube_micro_time(cases[i].us, buf, sizeof(buf)), cases[i].want);
}

// ---------------------------------------------------------------- contenders
#define N_MAX   3
#define TICK_NS (10 * CLOCK_MS)

struct server { // one Lease, as the API server keeps it
	json_t *lease;
	uint64_t version;
};

struct contender {
	struct kube_lease *lease;
	double rate; // its clock against the true one
	uint64_t offset_ns;
	bool is_dead;
	bool is_under_way;
	bool is_done_there; // the server has executed it
	bool is_lost;       // its answer will not come
	enum kube_lease_method method;
	char *body;
	uint64_t arrive_ns;
	uint64_t answer_ns;
	int status;
	char *text;
};

struct world {
	struct server server;
	struct contender contenders[N_MAX];
	int n;
	uint64_t now_ns;
	uint64_t random;
	uint32_t loss_percent;
	uint32_t delay_max_ms;
	uint64_t n_two_held; // ticks with more than one holder
	int holder;          // -1: none
	uint64_t held_ns;    // ticks with a holder
	uint32_t n_changes;
};

static uint32_t world_random(struct world *w, uint32_t bound)
{
	w->random ^= w->random << 13;
	w->random ^= w->random >> 7;
	w->random ^= w->random << 17;
	return (uint32_t)(w->random >> 32) % bound;
}

static uint64_t local_ns(const struct world *w, const struct contender *c)
{
	return c->offset_ns + (uint64_t)((double)w->now_ns * c->rate);
}

static void server_execute(struct server *s, struct contender *c)
{
	json_t *body = c->body ? json_loads(c->body, 0, NULL) : NULL;
	json_t *metadata = json_object_get(body, "metadata");
	const char *version = json_string_value(json_object_get(metadata, "resourceVersion"));
	char have[32];
	snprintf(have, sizeof(have), "%llu", (unsigned long long)s->version);
	c->status = 200;
	if (c->method == KUBE_LEASE_GET)
		c->status = s->lease ? 200 : 404;
	else if (c->method == KUBE_LEASE_POST)
		c->status = s->lease ? 409 : 201;
	else if (s->lease == NULL)
		c->status = 404;
	else if (version == NULL || strcmp(version, have))
		c->status = 409;
	if (body && c->status < 300) {
		snprintf(have, sizeof(have), "%llu", (unsigned long long)++s->version);
		json_object_set_new(metadata, "resourceVersion", json_string(have));
		json_decref(s->lease);
		s->lease = json_incref(body);
	}
	json_decref(body);
	c->text = c->status < 300 ? json_dumps(s->lease, 0) : strdup("{}");
	c->is_done_there = true;
}

static void request_drop(struct contender *c)
{
	free(c->body);
	free(c->text);
	c->body = c->text = NULL;
	c->is_under_way = false;
}

static void request_send(
	struct world *w, struct contender *c, const struct kube_lease_request *request)
{
	request_drop(c);
	c->is_under_way = true;
	c->is_done_there = false;
	c->method = request->method;
	c->body = request->body ? strdup(request->body) : NULL;
	c->arrive_ns = w->now_ns + (1 + world_random(w, w->delay_max_ms)) * CLOCK_MS;
	c->answer_ns = c->arrive_ns + (1 + world_random(w, w->delay_max_ms)) * CLOCK_MS;
	c->is_lost = world_random(w, 100) < w->loss_percent;
	if (world_random(w, 100) < w->loss_percent)
		c->arrive_ns = UINT64_MAX;
}

// A request that its sender dropped may still be executed.
static void network_tick(struct world *w, struct contender *c)
{
	if (!c->is_under_way)
		return;
	if (!c->is_done_there && w->now_ns >= c->arrive_ns)
		server_execute(&w->server, c);
	if (c->is_done_there && !c->is_lost && w->now_ns >= c->answer_ns && !c->is_dead) {
		c->is_under_way = false;
		kube_lease_answer(c->lease, local_ns(w, c), c->status, c->text, strlen(c->text));
	}
}

static void contender_tick(struct world *w, struct contender *c)
{
	struct kube_lease_request request;
	while (!c->is_dead) {
		enum kube_lease_step step = kube_lease_next(
			c->lease, local_ns(w, c), WALL_US + (int64_t)(w->now_ns / 1000), &request);
		if (step == KUBE_LEASE_REQUEST)
			request_send(w, c, &request);
		else if (step != KUBE_LEASE_ABANDON)
			return;
		else if (c->is_done_there || world_random(w, 2))
			c->is_under_way =
				false; // else it still arrives, if nothing new is sent before
	}
}

static void world_tick(struct world *w)
{
	int n_held = 0, holder = -1;
	w->now_ns += TICK_NS;
	for (int i = 0; i < w->n; i++) {
		network_tick(w, &w->contenders[i]);
		contender_tick(w, &w->contenders[i]);
	}
	for (int i = 0; i < w->n; i++) {
		struct contender *c = &w->contenders[i];
		if (c->is_dead || !kube_lease_is_held(c->lease, local_ns(w, c)))
			continue;
		n_held++;
		holder = i;
	}
	w->n_two_held += n_held > 1;
	w->held_ns += n_held ? TICK_NS : 0;
	w->n_changes += holder >= 0 && holder != w->holder;
	w->holder = holder >= 0 ? holder : w->holder;
}

static void world_run(struct world *w, uint64_t for_ns)
{
	for (uint64_t end_ns = w->now_ns + for_ns; w->now_ns < end_ns;)
		world_tick(w);
}

static void world_open(struct world *w, int n, const double *rates, uint64_t seed)
{
	static const char *const names[] = { "a", "b", "c" };
	*w = (struct world){
		.n = n, .random = seed * 2654435761u + 1, .delay_max_ms = 20, .holder = -1
	};
	for (int i = 0; i < n; i++) {
		struct contender *c = &w->contenders[i];
		c->lease = make(names[i], KUBE_LEASE_ELECTION, seed * 8 + (uint64_t)i);
		c->rate = rates[i];
		c->offset_ns = world_random(w, 1000000) * CLOCK_S;
	}
}

static void world_close(struct world *w)
{
	for (int i = 0; i < w->n; i++) {
		request_drop(&w->contenders[i]);
		kube_lease_destroy(w->contenders[i].lease);
	}
	json_decref(w->server.lease);
}

// Rates within the tolerance of 15 : 10.
static const double rates[][N_MAX] = {
	{ 1, 1, 1 },
	{ 1, 1.4, 1 },
	{ 1.2, 0.85, 1 },
	{ 0.9, 1.3, 1.1 },
};

// A calm network: one leader soon, the same for ever.
static void test_calm(void **state)
{
	for (uint64_t seed = 1; seed <= 40; seed++) {
		struct world w;
		world_open(&w, 2 + (int)(seed % 2), rates[seed % ARRAY_SIZE(rates)], seed);
		world_run(&w, CLOCK_S);
		assert_true(w.holder >= 0);
		uint64_t before_ns = w.held_ns;
		world_run(&w, 120 * CLOCK_S);
		assert_int_equal(w.held_ns - before_ns, 120 * CLOCK_S);
		assert_int_equal(w.n_changes, 1);
		assert_int_equal(w.n_two_held, 0);
		world_close(&w);
	}
}

// The leader dies: another holds within the lease and one look (2.2 retry periods), by its own clock.
static void test_takeover(void **state)
{
	for (uint64_t seed = 1; seed <= 60; seed++) {
		struct world w;
		const double *r = rates[seed % ARRAY_SIZE(rates)];
		world_open(&w, 2 + (int)(seed % 2), r, seed);
		world_run(&w, (30 + seed) * CLOCK_S);
		int dead = w.holder;
		w.contenders[dead].is_dead = true;
		uint64_t died_ns = w.now_ns, n_before = w.n_changes;
		while (w.n_changes == n_before && w.now_ns - died_ns < 60 * CLOCK_S)
			world_tick(&w);
		uint64_t took_ns = w.now_ns - died_ns;
		double slowest = 1.0;
		for (int i = 0; i < w.n; i++)
			slowest = i != dead && r[i] < slowest ? r[i] : slowest;
		assert_true((double)took_ns * slowest <= (double)(20 * CLOCK_S));
		assert_true(took_ns >= 8 * CLOCK_S);
		assert_int_equal(w.n_two_held, 0);
		world_close(&w);
	}
}

// It releases: another holds as soon as it looks.
static void test_handover(void **state)
{
	for (uint64_t seed = 1; seed <= 40; seed++) {
		struct world w;
		world_open(&w, 2 + (int)(seed % 2), rates[seed % ARRAY_SIZE(rates)], seed);
		world_run(&w, (30 + seed) * CLOCK_S);
		kube_lease_release(
			w.contenders[w.holder].lease, local_ns(&w, &w.contenders[w.holder]));
		uint64_t n_before = w.n_changes;
		world_run(&w, 5500 * CLOCK_MS);
		assert_int_equal(w.n_changes, n_before + 1);
		assert_int_equal(w.n_two_held, 0);
		world_close(&w);
	}
}

// A network that loses and delays, leaders that die and come back, for half an hour each: never two.
static void storm(uint64_t seed, const double *r, struct world *w)
{
	world_open(w, 2 + (int)(seed % 2), r, seed);
	for (int minute = 0; minute < 30; minute++) {
		w->loss_percent = world_random(w, 3) ? world_random(w, 60) : 0;
		w->delay_max_ms = world_random(w, 4) ? 20 : 3000;
		int i = (int)world_random(w, (uint32_t)w->n);
		w->contenders[i].is_dead = world_random(w, 3) == 0; // frozen, not restarted
		world_run(w, 60 * CLOCK_S);
		w->contenders[i].is_dead = false;
	}
}

static void test_storm(void **state)
{
	uint64_t n_changes = 0, held_ns = 0;
	for (uint64_t seed = 1; seed <= 40; seed++) {
		struct world w;
		storm(seed, rates[seed % ARRAY_SIZE(rates)], &w);
		assert_int_equal(w.n_two_held, 0);
		n_changes += w.n_changes;
		held_ns += w.held_ns;
		world_close(&w);
	}
	assert_true(n_changes > 200); // it was a storm
	assert_true(held_ns > 40 * 30 * 60 * CLOCK_S / 2);
}

// Outside of the tolerance there may be two: the storm can see them.
static void test_storm_can_see(void **state)
{
	static const double apart[N_MAX] = { 1, 3, 0.5 };
	uint64_t n_two = 0;
	for (uint64_t seed = 1; seed <= 20; seed++) {
		struct world w;
		storm(seed, apart, &w);
		n_two += w.n_two_held;
		world_close(&w);
	}
	assert_true(n_two > 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_create),
		cmocka_unit_test(test_wait_for_another),
		cmocka_unit_test(test_free_one),
		cmocka_unit_test(test_conflict),
		cmocka_unit_test(test_conflicts_for_ever),
		cmocka_unit_test(test_no_answer),
		cmocka_unit_test(test_bad_answers),
		cmocka_unit_test(test_release),
		cmocka_unit_test(test_release_under_way),
		cmocka_unit_test(test_release_edges),
		cmocka_unit_test(test_own),
		cmocka_unit_test(test_config),
		cmocka_unit_test(test_micro_time),
		cmocka_unit_test(test_calm),
		cmocka_unit_test(test_takeover),
		cmocka_unit_test(test_handover),
		cmocka_unit_test(test_storm),
		cmocka_unit_test(test_storm_can_see),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
