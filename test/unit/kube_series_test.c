// SPDX-License-Identifier: BSD-3-Clause
// Events: bodies to the byte, series, retries and the bound on what is remembered, in virtual time.
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kube_encode.h"

#define NOON_US (1769860800ll * 1000000) // 2026-01-31T12:00:00Z

static struct kube_series *s;
static uint64_t now_ns;

static int start(void **state)
{
	now_ns = 1000 * CLOCK_S;
	s = kube_series_create(KUBE_CONTROLLER, "edge-1", 7);
	return s == NULL;
}

static int finish(void **state)
{
	kube_series_destroy(s);
	return 0;
}

static int64_t wall_us(void)
{
	return NOON_US + (int64_t)((now_ns - 1000 * CLOCK_S) / 1000);
}

static void pass(uint64_t seconds)
{
	now_ns += seconds * CLOCK_S;
}

static struct kube_event make_event(const char *name, const char *reason)
{
	return (struct kube_event){ .api_version = "v1",
		.kind = "Service",
		.namespace = "default",
		.name = name,
		.uid = "u-1",
		.reason = reason,
		.action = "Allocate",
		.note = "203.0.113.10 of pool blue" };
}

static void add(const char *name, const char *reason)
{
	struct kube_event event = make_event(name, reason);
	assert_int_equal(kube_series_add(s, &event, now_ns, wall_us()), 0);
}

// Nothing to send now; gives when to ask again.
static uint64_t assert_quiet(void)
{
	struct kube_write write;
	uint64_t until_ns;
	assert_false(kube_series_next(s, now_ns, wall_us(), &write, &until_ns));
	return until_ns;
}

// A request comes, with that method and piece of body, and is answered.
static void assert_sent(const char *method, const char *piece, int answer)
{
	struct kube_write write;
	uint64_t until_ns;
	assert_true(kube_series_next(s, now_ns, wall_us(), &write, &until_ns));
	assert_string_equal(write.method, method);
	if (strstr(write.body, piece) == NULL)
		fail_msg("no %s in %s", piece, write.body);
	kube_write_fini(&write);
	assert_quiet(); // one at a time
	kube_series_answer(s, now_ns, answer);
}

static void test_bodies(void **state)
{
	struct kube_write write;
	uint64_t until_ns;
	add("web", "AddressAllocated");
	assert_true(kube_series_next(s, now_ns, wall_us(), &write, &until_ns));
	assert_string_equal(write.method, "POST");
	assert_string_equal(write.content_type, "application/json");
	assert_string_equal(write.target, "/apis/events.k8s.io/v1/namespaces/default/"
					  "events?fieldManager=sluice-lb.github.io");
	assert_string_equal(write.body,
		"{\"apiVersion\":\"events.k8s.io/v1\",\"kind\":\"Event\",\"metadata\":{\"name\":"
		"\"web.188fcf053de38000\",\"namespace\":\"default\"},\"eventTime\":"
		"\"2026-01-31T12:00:00.000000Z\",\"reportingController\":\"sluice-lb.github.io/"
		"sluice\","
		"\"reportingInstance\":\"edge-1\",\"action\":\"Allocate\",\"reason\":"
		"\"AddressAllocated\","
		"\"regarding\":{\"apiVersion\":\"v1\",\"kind\":\"Service\",\"namespace\":"
		"\"default\",\"name\":"
		"\"web\",\"uid\":\"u-1\"},\"note\":\"203.0.113.10 of pool "
		"blue\",\"type\":\"Normal\"}");
	kube_write_fini(&write);
	kube_series_answer(s, now_ns, 201);
	pass(2);
	add("web", "AddressAllocated");
	assert_true(kube_series_next(s, now_ns, wall_us(), &write, &until_ns));
	assert_string_equal(write.method, "PATCH");
	assert_string_equal(write.content_type, "application/strategic-merge-patch+json");
	assert_string_equal(write.target,
		"/apis/events.k8s.io/v1/namespaces/default/events/web.188fcf053de38000"
		"?fieldManager=sluice-lb.github.io");
	assert_string_equal(write.body,
		"{\"series\":{\"count\":2,\"lastObservedTime\":\"2026-01-31T12:00:02.000000Z\"}}");
	kube_write_fini(&write);
	kube_series_answer(s, now_ns, 200);
}

static void test_cluster_scope(void **state)
{
	struct kube_event event = make_event("blue", "Rejected");
	struct kube_write write;
	uint64_t until_ns;
	char note[2000];
	memset(note, 'n', sizeof(note));
	note[sizeof(note) - 1] = 0;
	event.kind = "AddressPool";
	event.namespace = "";
	event.is_warning = true;
	event.note = note;
	kube_series_add(s, &event, now_ns, wall_us());
	assert_true(kube_series_next(s, now_ns, wall_us(), &write, &until_ns));
	json_t *json = json_loads(write.body, 0, NULL);
	kube_write_fini(&write);
	json_t *metadata = json_object_get(json, "metadata");
	assert_string_equal(json_string_value(json_object_get(metadata, "namespace")), "default");
	assert_null(json_object_get(json_object_get(json, "regarding"), "namespace"));
	assert_string_equal(json_string_value(json_object_get(json, "type")), "Warning");
	assert_int_equal(json_string_length(json_object_get(json, "note")), KUBE_NOTE_MAX);
	json_decref(json);
}

// First, repeat, then only counted; a heartbeat when it grew; the end after silence.
static void test_series(void **state)
{
	add("web", "BackendDown");
	assert_sent("POST", "BackendDown", 201);
	assert_int_equal(assert_quiet(), now_ns + 360 * CLOCK_S);
	pass(60);
	add("web", "BackendDown");
	assert_sent("PATCH", "\"count\":2", 200);
	for (int i = 0; i < 9; i++) { // 27 min
		pass(180);
		add("web", "BackendDown");
		assert_quiet();
	}
	pass(180);
	assert_sent("PATCH", "\"count\":11", 200); // the heartbeat
	pass(60);
	add("web", "BackendDown");
	assert_quiet();
	pass(360);
	assert_sent("PATCH", "\"count\":12", 200); // the last word
	assert_int_equal(kube_series_count(s).n_kinds, 0);
	add("web", "BackendDown");
	assert_sent("POST", "BackendDown", 201); // a new one
	pass(359);
	assert_quiet();
	pass(1);
	assert_int_equal(assert_quiet(), UINT64_MAX);
	assert_int_equal(kube_series_count(s).n_kinds, 0);
	assert_int_equal(kube_series_count(s).n_sent, 5);
}

// A repeat takes the last word back.
static void test_not_the_last(void **state)
{
	add("web", "BackendDown");
	assert_sent("POST", "BackendDown", 201);
	add("web", "BackendDown");
	assert_sent("PATCH", "\"count\":2", 200);
	add("web", "BackendDown");
	pass(360);
	assert_sent("PATCH", "\"count\":3", 503);
	add("web", "BackendDown");
	pass(13);
	assert_sent("PATCH", "\"count\":4", 200);
	assert_int_equal(kube_series_count(s).n_kinds, 1);
}

static void test_kinds(void **state)
{
	struct kube_event event = make_event("web", "BackendDown");
	add("web", "BackendDown");
	event.note = "another note is no other kind";
	kube_series_add(s, &event, now_ns, wall_us());
	assert_int_equal(kube_series_count(s).n_kinds, 1);
	event.is_warning = true;
	kube_series_add(s, &event, now_ns, wall_us());
	event.uid = "u-2";
	kube_series_add(s, &event, now_ns, wall_us());
	event.action = "Probe";
	kube_series_add(s, &event, now_ns, wall_us());
	add("web", "BackendUp");
	add("db", "BackendUp");
	assert_int_equal(kube_series_count(s).n_kinds, 6);
	assert_sent("POST", "\"series\":{\"count\":2", 201); // repeated before it was told
	assert_sent("POST", "Warning", 201);                 // in the order they came
	assert_sent("POST", "u-2", 201);
	assert_sent("POST", "Probe", 201);
	assert_sent("POST", "BackendUp", 201);
	assert_sent("POST", "\"db\"", 201);
	assert_quiet();
}

static void test_repeat_under_way(void **state)
{
	struct kube_write write;
	uint64_t until_ns;
	add("web", "BackendDown");
	assert_true(kube_series_next(s, now_ns, wall_us(), &write, &until_ns));
	kube_write_fini(&write);
	add("web", "BackendDown");
	kube_series_answer(s, now_ns, 201);
	assert_sent("PATCH", "\"count\":2", 200);
}

// Names differ though the clock goes back, or stands still.
static void test_names(void **state)
{
	char names[3][256];
	for (int i = 0; i < 3; i++) {
		struct kube_event event = make_event("web", i == 0 ? "A" : i == 1 ? "B" : "C");
		struct kube_write write;
		uint64_t until_ns;
		kube_series_add(s, &event, now_ns, wall_us() - (i == 1));
		assert_true(kube_series_next(s, now_ns, wall_us(), &write, &until_ns));
		json_t *json = json_loads(write.body, 0, NULL);
		snprintf(names[i], sizeof(names[i]), "%s",
			json_string_value(
				json_object_get(json_object_get(json, "metadata"), "name")));
		json_decref(json);
		kube_write_fini(&write);
		kube_series_answer(s, now_ns, 201);
	}
	assert_string_not_equal(names[0], names[1]);
	assert_string_not_equal(names[1], names[2]);
	assert_string_not_equal(names[0], names[2]);
}

// No answer, 429, 5xx: 12 times, 10 to 12.5 s apart.
static void test_retries(void **state)
{
	static const int answers[] = { 0, 429, 500, 503 };
	add("web", "BackendDown");
	for (int i = 0; i < 12; i++) {
		assert_sent("POST", "BackendDown", answers[i % 4]);
		if (i == 11)
			break;
		uint64_t until_ns = assert_quiet();
		assert_in_range(until_ns - now_ns, 10 * CLOCK_S, 12500 * CLOCK_MS);
		now_ns = until_ns;
	}
	assert_int_equal(assert_quiet(), UINT64_MAX);
	assert_int_equal(kube_series_count(s).n_dropped, 1);
	assert_int_equal(kube_series_count(s).n_kinds, 0);
}

static void test_refusals(void **state)
{
	static const int answers[] = { 400, 403, 404, 413, 422 };
	for (size_t i = 0; i < ARRAY_SIZE(answers); i++) {
		add("web", "BackendDown");
		assert_sent("POST", "BackendDown", answers[i]);
		assert_int_equal(assert_quiet(), UINT64_MAX);
		assert_int_equal(kube_series_count(s).n_dropped, i + 1);
	}
	add("web", "BackendUp");
	assert_sent("POST", "BackendUp", 409); // its answer was lost the first time
	add("web", "BackendUp");
	assert_sent("PATCH", "\"count\":2", 404); // it expired
	assert_sent("POST", "\"series\":{\"count\":2", 201);
	assert_quiet();
}

// However many there are: bounded, and what is to be told is told first.
static void test_bound(void **state)
{
	char name[32];
	for (int i = 0; i < KUBE_SERIES_MAX; i++) {
		snprintf(name, sizeof(name), "s%d", i);
		add(name, "AddressAllocated");
	}
	struct kube_event event = make_event("more", "AddressAllocated");
	assert_int_equal(kube_series_add(s, &event, now_ns, wall_us()), -ENOSPC);
	assert_int_equal(kube_series_count(s).n_dropped, 1);
	add("s5", "AddressAllocated"); // a repeat needs no room
	assert_sent("POST", "\"s0\"", 201);
	assert_sent("POST", "\"s1\"", 201);
	assert_int_equal(kube_series_add(s, &event, now_ns, wall_us()), 0); // s0 or s1 is forgotten
	assert_int_equal(kube_series_count(s).n_kinds, KUBE_SERIES_MAX);
	assert_int_equal(kube_series_count(s).n_queued, KUBE_SERIES_MAX - 1);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, start, finish)
	const struct CMUnitTest tests[] = {
		TEST(test_bodies),
		TEST(test_cluster_scope),
		TEST(test_series),
		TEST(test_not_the_last),
		TEST(test_kinds),
		TEST(test_repeat_under_way),
		TEST(test_names),
		TEST(test_retries),
		TEST(test_refusals),
		TEST(test_bound),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
