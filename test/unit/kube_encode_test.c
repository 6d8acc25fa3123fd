// SPDX-License-Identifier: BSD-3-Clause
// What sluice writes, to the byte; and that nothing is written twice.
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kube_encode.h"

static struct address make_address(const char *text)
{
	struct address a;
	assert_int_equal(address_parse(text, &a), 0);
	return a;
}

static void assert_write(
	struct kube_write *write, const char *type, const char *target, const char *body)
{
	assert_string_equal(write->content_type, type);
	assert_string_equal(write->target, target);
	assert_string_equal(write->body, body);
	assert_int_equal(write->body_len, strlen(body));
	kube_write_fini(write);
}

#define APPLY     "application/apply-patch+yaml"
#define STRATEGIC "application/strategic-merge-patch+json"
#define JSON      "application/json"

static struct kube_ingress ingress[2];
static const struct kube_ingress_port ports[] = {
	{ .protocol = NET_PROTO_UDP, .port = 53, .error = "" },
	{ .protocol = NET_PROTO_TCP, .port = 53, .error = KUBE_PORT_REJECTED },
};

static struct kube_status make_status(void)
{
	ingress[0] = (struct kube_ingress){ make_address("203.0.113.10"), false };
	ingress[1] = (struct kube_ingress){ make_address("2001:0db8:0:0::00a"), true };
	struct kube_status want = { .namespace = "default",
		.name = "web",
		.uid = "u-1",
		.resource_version = "",
		.generation = 3,
		.finalizer = KUBE_FINALIZER,
		.ingress = ingress,
		.n_ingress = 2,
		.ports = ports,
		.n_ports = 2,
		.allocation = "pool=blue,form=00000000000000ff",
		.assigned = "" };
	want.conditions[KUBE_ALLOCATED] =
		kube_condition_allocated(true, "Allocated", "203.0.113.10 of pool blue");
	want.conditions[KUBE_PROGRAMMED] = kube_condition_programmed(2, 3);
	want.conditions[KUBE_BACKENDS_HEALTHY] = kube_condition_backends(4, 4);
	return want;
}

// ---------------------------------------------------------------- Services
static const char *const status_body =
	"{\"apiVersion\":\"v1\",\"kind\":\"Service\",\"metadata\":{\"name\":\"web\",\"namespace\":"
	"\"default\",\"uid\":\"u-1\",\"resourceVersion\":\"77\",\"annotations\":{"
	"\"sluice-lb.github.io/allocation\":\"pool=blue,form=00000000000000ff\"},\"finalizers\":["
	"\"sluice-lb.github.io/vip\"]},\"status\":{\"loadBalancer\":{\"ingress\":[{\"ip\":"
	"\"203.0.113.10\",\"ipMode\":\"VIP\",\"ports\":[{\"port\":53,\"protocol\":\"UDP\"},{"
	"\"port\":53,"
	"\"protocol\":\"TCP\",\"error\":\"sluice-lb.github.io/"
	"Rejected\"}]},{\"ip\":\"2001:db8::a\",\"ipMode\":\"Proxy\",\"ports\":[{\"port\":"
	"53,"
	"\"protocol\":\"UDP\"},{\"port\":53,\"protocol\":\"TCP\",\"error\":\"sluice-lb.github.io/"
	"Rejected\"}]}]},\"conditions\":[{\"type\":"
	"\"sluice-lb.github.io/Allocated\",\"status\":\"True\",\"observedGeneration\":3,"
	"\"lastTransitionTime\":\"2026-01-31T12:00:00Z\",\"reason\":\"Allocated\",\"message\":"
	"\"203.0.113.10 of pool "
	"blue\"},{\"type\":\"sluice-lb.github.io/Programmed\",\"status\":\"False\","
	"\"observedGeneration\":3,\"lastTransitionTime\":\"2026-01-31T12:00:00Z\",\"reason\":"
	"\"PartlyProgrammed\",\"message\":\"programmed on 2 of 3 nodes\"},{\"type\":"
	"\"sluice-lb.github.io/BackendsHealthy\",\"status\":\"True\",\"observedGeneration\":3,"
	"\"lastTransitionTime\":\"2026-01-31T12:00:00Z\",\"reason\":\"AllHealthy\",\"message\":"
	"\"4 of 4 backends healthy\"}]}}";

#define NOON_S 1769860800 // 2026-01-31T12:00:00Z

static void test_status(void **state)
{
	struct kube_status want = make_status();
	struct kube_seen nothing = { 0 };
	struct kube_write write;
	want.resource_version = "77";
	assert_int_equal(kube_status_settle(&want, &nothing, NOON_S), KUBE_WRITE_NOW);
	assert_int_equal(kube_write_status(&want, &write), 0);
	assert_string_equal(write.method, "PATCH");
	assert_write(&write, APPLY,
		"/api/v1/namespaces/default/services/web/"
		"status?fieldManager=sluice-lb.github.io&force=true",
		status_body);
}

static void test_status_exposed(void **state)
{
	struct kube_status want = { .namespace = "default",
		.name = "db",
		.uid = "u-2",
		.resource_version = "",
		.finalizer = "",
		.allocation = "",
		.assigned = "203.0.113.11" };
	struct kube_write write;
	assert_int_equal(kube_write_status(&want, &write), 0);
	assert_write(&write, APPLY,
		"/api/v1/namespaces/default/services/db/"
		"status?fieldManager=sluice-lb.github.io&force=true",
		"{\"apiVersion\":\"v1\",\"kind\":\"Service\",\"metadata\":{\"name\":\"db\","
		"\"namespace\":\"default\","
		"\"uid\":\"u-2\",\"annotations\":{\"sluice-lb.github.io/"
		"assigned\":\"203.0.113.11\"}},"
		"\"status\":{}}");
}

// The object as the server has it after the write: what is ours stands in it, whatever else does.
static json_t *served(const struct kube_status *want)
{
	struct kube_write write;
	assert_int_equal(kube_write_status(want, &write), 0);
	json_t *json = json_loads(write.body, 0, NULL);
	kube_write_fini(&write);
	json_t *metadata = json_object_get(json, "metadata");
	json_t *annotations = json_object_get(metadata, "annotations");
	if (annotations)
		json_object_set_new(annotations, "other.example/x", json_string("1"));
	json_t *conditions = json_object_get(json_object_get(json, "status"), "conditions");
	json_array_insert_new(
		conditions, 0, json_pack("{s:s,s:s}", "type", "Other", "status", "True"));
	return json;
}

static void see(const struct kube_status *want, struct kube_seen *seen)
{
	json_t *json = served(want);
	kube_seen_read(json, KUBE_FINALIZER, seen);
	json_decref(json);
}

// Nothing twice: after the write, the same wish needs none, whatever the time.
static void test_settled(void **state)
{
	struct kube_status want = make_status();
	struct kube_seen seen = { 0 };
	kube_status_settle(&want, &seen, NOON_S);
	see(&want, &seen);
	assert_int_equal(seen.form, 0xff);
	assert_int_equal(seen.truths[KUBE_PROGRAMMED], KUBE_FALSE);
	assert_int_equal(seen.since_s[KUBE_PROGRAMMED], NOON_S);
	want = make_status();
	assert_int_equal(kube_status_settle(&want, &seen, NOON_S + 500), KUBE_WRITE_NONE);
	assert_int_equal(want.conditions[KUBE_ALLOCATED].since_s, NOON_S);

	struct kube_status none = { .finalizer = "", .allocation = "", .assigned = "" };
	json_t *bare = json_pack("{s:{s:s}}", "metadata", "name", "web");
	kube_seen_read(bare, KUBE_FINALIZER, &seen);
	json_decref(bare);
	assert_int_equal(kube_status_settle(&none, &seen, NOON_S), KUBE_WRITE_NONE);
}

// One thing changed: is it written, how soon, and which times move?
struct change_case {
	const char *name;
	void (*change)(struct kube_status *want);
	enum kube_urgency urgency;
	int moved; // condition whose time is new, -1 none
};

static void change_address(struct kube_status *w)
{
	ingress[0].address = make_address("203.0.113.11");
}
static void change_mode(struct kube_status *w)
{
	ingress[0].is_proxy_mode = true;
}
static void change_no_ingress(struct kube_status *w)
{
	w->n_ingress = 0;
}
static void change_ports(struct kube_status *w)
{
	w->n_ports = 1;
}
static void change_port_number(struct kube_status *w)
{
	static const struct kube_ingress_port other[] = {
		{ .protocol = NET_PROTO_UDP, .port = 53, .error = "" },
		{ .protocol = NET_PROTO_TCP, .port = 54, .error = KUBE_PORT_REJECTED },
	};
	w->ports = other;
}
static void change_port_error(struct kube_status *w)
{
	static const struct kube_ingress_port good[] = {
		{ .protocol = NET_PROTO_UDP, .port = 53, .error = "" },
		{ .protocol = NET_PROTO_TCP, .port = 53, .error = "" },
	};
	w->ports = good;
}
static void change_finalizer(struct kube_status *w)
{
	w->finalizer = "";
}
static void change_allocation(struct kube_status *w)
{
	w->allocation = "pool=blue,form=00000000000000fe";
}
static void change_assigned(struct kube_status *w)
{
	w->assigned = "203.0.113.10";
}
static void change_truth(struct kube_status *w)
{
	w->conditions[KUBE_PROGRAMMED] = kube_condition_programmed(3, 3);
}
static void change_reason(struct kube_status *w)
{
	w->conditions[KUBE_PROGRAMMED] = kube_condition_programmed(0, 3);
}
static void change_absent(struct kube_status *w)
{
	w->conditions[KUBE_BACKENDS_HEALTHY].truth = KUBE_ABSENT;
}
static void change_message(struct kube_status *w)
{
	w->conditions[KUBE_PROGRAMMED] = kube_condition_programmed(1, 3);
}
static void change_generation(struct kube_status *w)
{
	w->generation++;
}
static void change_version(struct kube_status *w)
{
	w->resource_version = "78"; // a precondition is no content
}

static const struct change_case changes[] = {
	{ "address", change_address, KUBE_WRITE_NOW, -1 },
	{ "mode", change_mode, KUBE_WRITE_NOW, -1 },
	{ "no ingress", change_no_ingress, KUBE_WRITE_NOW, -1 },
	{ "ports", change_ports, KUBE_WRITE_NOW, -1 },
	{ "port number", change_port_number, KUBE_WRITE_NOW, -1 },
	{ "port error", change_port_error, KUBE_WRITE_NOW, -1 },
	{ "finalizer", change_finalizer, KUBE_WRITE_NOW, -1 },
	{ "allocation", change_allocation, KUBE_WRITE_NOW, -1 },
	{ "assigned", change_assigned, KUBE_WRITE_NOW, -1 },
	{ "truth", change_truth, KUBE_WRITE_NOW, KUBE_PROGRAMMED },
	{ "reason", change_reason, KUBE_WRITE_NOW, -1 },
	{ "absent", change_absent, KUBE_WRITE_NOW, KUBE_BACKENDS_HEALTHY },
	{ "message", change_message, KUBE_WRITE_SOON, -1 },
	{ "generation", change_generation, KUBE_WRITE_SOON, -1 },
	{ "version", change_version, KUBE_WRITE_NONE, -1 },
};

static void test_changes(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(changes); i++) {
		struct kube_status want = make_status();
		struct kube_seen seen = { 0 };
		kube_status_settle(&want, &seen, NOON_S);
		see(&want, &seen);
		want = make_status();
		changes[i].change(&want);
		enum kube_urgency urgency = kube_status_settle(&want, &seen, NOON_S + 60);
		if (urgency != changes[i].urgency)
			fail_msg("%s: %d, not %d", changes[i].name, urgency, changes[i].urgency);
		for (int k = 0; k < KUBE_CONDITIONS; k++)
			assert_int_equal(want.conditions[k].since_s,
				k == changes[i].moved ? NOON_S + 60 : NOON_S);
	}
}

// Somebody else wrote over it: it is written again.
static void test_meddled(void **state)
{
	static const char *const edits[] = {
		"{\"status\":{\"loadBalancer\":{\"ingress\":[{\"ip\":\"203.0.113.99\",\"ipMode\":"
		"\"VIP\"}]}}}",
		"{\"status\":{\"loadBalancer\":{\"ingress\":[{\"hostname\":\"a.example\"}]}}}",
		"{\"status\":{\"loadBalancer\":null}}",
		"{\"status\":{\"conditions\":[]}}",
		"{\"metadata\":{\"finalizers\":[\"other/x\"]}}",
		"{\"metadata\":{\"annotations\":{\"sluice-lb.github.io/allocation\":\"pool=x\"}}}",
		"{\"status\":\"text\"}",
		"{\"status\":{\"conditions\":[7,null,{\"type\":5}],\"loadBalancer\":{\"ingress\":["
		"3,{\"ip\":4}]}}}",
	};
	for (size_t i = 0; i < ARRAY_SIZE(edits); i++) {
		struct kube_status want = make_status();
		struct kube_seen seen = { 0 };
		kube_status_settle(&want, &seen, NOON_S);
		json_t *json = served(&want), *edit = json_loads(edits[i], 0, NULL);
		assert_non_null(edit);
		json_object_update_recursive(json, edit);
		kube_seen_read(json, KUBE_FINALIZER, &seen);
		assert_int_equal(kube_status_settle(&want, &seen, NOON_S), KUBE_WRITE_NOW);
		json_decref(edit);
		json_decref(json);
	}
}

static void test_release(void **state)
{
	struct kube_write write;
	assert_int_equal(
		kube_write_release("default", "web", "u-1", KUBE_FINALIZER, true, &write), 0);
	assert_string_equal(write.method, "PATCH");
	assert_write(&write, STRATEGIC,
		"/api/v1/namespaces/default/services/web/status?fieldManager=sluice-lb.github.io",
		"{\"metadata\":{\"uid\":\"u-1\",\"annotations\":{\"sluice-lb.github.io/"
		"allocation\":null,"
		"\"sluice-lb.github.io/assigned\":null},\"$deleteFromPrimitiveList/finalizers\":["
		"\"sluice-lb.github.io/"
		"vip\"]},\"status\":{\"loadBalancer\":{\"ingress\":null},\"conditions\":["
		"{\"$patch\":\"delete\",\"type\":\"sluice-lb.github.io/"
		"Allocated\"},{\"$patch\":\"delete\","
		"\"type\":\"sluice-lb.github.io/Programmed\"},{\"$patch\":\"delete\",\"type\":"
		"\"sluice-lb.github.io/BackendsHealthy\"}]}}");
	assert_int_equal(
		kube_write_release("default", "web", "u-1", KUBE_FINALIZER, false, &write), 0);
	assert_null(strstr(write.body, "loadBalancer"));
	kube_write_fini(&write);
}

// ---------------------------------------------------------------- texts
static void test_hostile_texts(void **state)
{
	struct kube_status want = { .namespace = "../x",
		.name = "..",
		.uid = "",
		.resource_version = "",
		.finalizer = "",
		.allocation = "",
		.assigned = "" };
	struct kube_write write;
	want.conditions[0] = kube_condition_allocated(
		false, "Exhausted", "a\nb\x01\xff\xc3(\xed\xa0\x80 \xe2\x82\xac");
	assert_string_equal(want.conditions[0].message, "a b?"
							"?"
							"?"
							"(?"
							"?"
							"? \xe2\x82\xac");
	assert_int_equal(kube_write_status(&want, &write), 0);
	assert_string_equal(write.target, "/api/v1/namespaces/%2E.%2Fx/services/%2E./"
					  "status?fieldManager=sluice-lb.github.io&force=true");
	kube_write_fini(&write);

	char text[2 * KUBE_MESSAGE_MAX];
	memset(text, 'x', sizeof(text));
	memcpy(text + KUBE_MESSAGE_MAX - 2, "\xe2\x82\xac", 3); // would be cut in its middle
	text[sizeof(text) - 1] = 0;
	struct kube_condition cut = kube_condition_allocated(false, "Exhausted", text);
	assert_int_equal(strlen(cut.message), KUBE_MESSAGE_MAX - 2);
}

static void test_times(void **state)
{
	static const char *const bad[] = { "", "2026-01-31", "2026-01-31T12:00:00",
		"2026-01-31T12:00:00+01:00", "2026-13-31T12:00:00Z", " 2026-01-31T12:00:00Z",
		"2026-01-31T12:00:00Zx", "x" };
	char buf[32];
	int64_t s = 0;
	assert_int_equal(kube_seconds_parse("2026-01-31T12:00:00Z", &s), 0);
	assert_int_equal(s, NOON_S);
	assert_int_equal(kube_seconds_parse("2026-01-31T12:00:00.123456Z", &s), 0);
	assert_int_equal(s, NOON_S);
	assert_string_equal(kube_seconds_format(NOON_S, buf, sizeof(buf)), "2026-01-31T12:00:00Z");
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(kube_seconds_parse(bad[i], &s), -EINVAL);
}

static void test_annotations(void **state)
{
	char text[300], pool[64];
	uint64_t form = 0;
	struct address both[] = { make_address("203.0.113.10"), make_address("2001:db8::a") };
	struct address turned[] = { both[1], both[0] };
	struct address other[] = { both[0], make_address("2001:db8::b") };
	struct kube_allocation allocation = { "blue", 0xc0ffee, both, 2 };
	kube_allocation_format(&allocation, text, sizeof(text));
	assert_int_equal(strncmp(text, "pool=blue,form=0000000000c0ffee,addresses=", 42), 0);
	assert_true(kube_allocation_is_of(text, both, 2));
	assert_true(kube_allocation_is_of(text, turned, 2));
	assert_false(kube_allocation_is_of(text, both, 1));
	assert_false(kube_allocation_is_of(text, other, 2));
	assert_false(kube_allocation_is_of(text, NULL, 0));
	assert_false(kube_allocation_is_of("pool=blue,form=0000000000c0ffee", both, 2));
	assert_false(kube_allocation_is_of("", NULL, 0));
	assert_true(kube_allocation_parse(text, pool, sizeof(pool), &form));
	assert_string_equal(pool, "blue");
	assert_int_equal(form, 0xc0ffee);
	assert_false(kube_allocation_parse(text, pool, 4, &form));
	static const char *const bad[] = { "", "pool=a",
		"pool=a,form=", "pool=a,form=00000000000000fg", "pool=a,form=00000000000000ff0",
		"x,form=00000000000000ff", "pool=a,form=00000000000000ff,addresses=",
		"pool=a,form=00000000000000ff,addresses=0123456789abcdef0",
		"pool=a,form=00000000000000ff,addresses=0123456789abcdeg" };
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_false(kube_allocation_parse(bad[i], pool, sizeof(pool), &form));
	assert_true(
		kube_allocation_parse("pool=old,form=00000000000000ff", pool, sizeof(pool), &form));
	assert_string_equal(pool, "old");

	struct kube_assigned two[] = {
		{ "web-1", { make_address("203.0.113.11") }, 1 },
		{ "web-0", { make_address("203.0.113.10"), make_address("2001:db8::10") }, 2 },
	};
	char *printed = kube_assigned_format(two, 2);
	assert_string_equal(
		printed, "{\"web-0\": \"203.0.113.10,2001:db8::10\", \"web-1\": \"203.0.113.11\"}");
	free(printed);
	two[1].hostname = "";
	printed = kube_assigned_format(&two[1], 1);
	assert_string_equal(printed, "203.0.113.10,2001:db8::10");
	free(printed);
}

static void test_conditions(void **state)
{
	static const struct {
		uint32_t k, n;
		enum kube_truth truth;
		const char *programmed, *backends, *message;
	} cases[] = {
		{ 0, 0, KUBE_FALSE, "NotProgrammed", "NoBackends", "0 of 0 backends healthy" },
		{ 0, 2, KUBE_FALSE, "NotProgrammed", "NoneHealthy", "0 of 2 backends healthy" },
		{ 1, 2, KUBE_FALSE, "PartlyProgrammed", "SomeUnhealthy",
			"1 of 2 backends healthy" },
		{ 1, 1, KUBE_TRUE, "Programmed", "AllHealthy", "1 of 1 backend healthy" },
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct kube_condition p = kube_condition_programmed(cases[i].k, cases[i].n);
		struct kube_condition b = kube_condition_backends(cases[i].k, cases[i].n);
		assert_int_equal(p.truth, cases[i].truth);
		assert_int_equal(b.truth, cases[i].truth);
		assert_string_equal(p.reason, cases[i].programmed);
		assert_string_equal(b.reason, cases[i].backends);
		assert_string_equal(b.message, cases[i].message);
	}
	assert_string_equal(kube_condition_programmed(1, 1).message, "programmed on 1 of 1 node");
}

// ---------------------------------------------------------------- pools and pods
static struct kube_pool_status make_pool(void)
{
	return (struct kube_pool_status){ .name = "blue",
		.uid = "p-1",
		.generation = 2,
		.assigned = { 3, 1 },
		.available = { 253, UINT64_MAX },
		.ready = kube_condition_pool(NULL, false) };
}

static void test_pool(void **state)
{
	struct kube_pool_status want = make_pool();
	struct kube_seen seen = { 0 };
	struct kube_write write;
	assert_int_equal(kube_pool_settle(&want, &seen, NOON_S), KUBE_WRITE_NOW);
	assert_int_equal(kube_write_pool(&want, &write), 0);
	json_t *json = json_loads(write.body, 0, NULL);
	kube_pool_seen_read(json, &seen);
	json_decref(json);
	assert_write(&write, APPLY,
		"/apis/sluice-lb.github.io/v1alpha1/addresspools/blue/"
		"status?fieldManager=sluice-lb.github.io&force=true",
		"{\"apiVersion\":\"sluice-lb.github.io/"
		"v1alpha1\",\"kind\":\"AddressPool\",\"metadata\":{\"name\":"
		"\"blue\",\"uid\":\"p-1\"},\"status\":{\"assigned\":{\"ipv4\":3,\"ipv6\":1},"
		"\"available\":{\"ipv4\":253,"
		"\"ipv6\":9007199254740991},\"conditions\":[{\"type\":\"Ready\",\"status\":"
		"\"True\","
		"\"observedGeneration\":2,\"lastTransitionTime\":\"2026-01-31T12:00:00Z\","
		"\"reason\":\"Accepted\","
		"\"message\":\"gives addresses\"}]}}");
	want = make_pool();
	assert_int_equal(kube_pool_settle(&want, &seen, NOON_S + 9), KUBE_WRITE_NONE);
	want.assigned[0]++;
	assert_int_equal(kube_pool_settle(&want, &seen, NOON_S + 9), KUBE_WRITE_SOON);
	struct error findings = { 0 };
	error_add(&findings, EINVAL, "spec.addresses[0]", "\"x\": allowed: prefix");
	error_add(&findings, EINVAL, "spec.addresses[1]", "\"y\": allowed: prefix");
	want = make_pool();
	want.ready = kube_condition_pool(&findings, false);
	error_fini(&findings);
	assert_int_equal(kube_pool_settle(&want, &seen, NOON_S + 9), KUBE_WRITE_NOW);
	assert_int_equal(want.ready.since_s, NOON_S + 9);
	assert_string_equal(want.ready.reason, "Invalid");
	assert_string_equal(
		want.ready.message, "spec.addresses[0]: \"x\": allowed: prefix (and 1 more)");
}

static void test_pod(void **state)
{
	struct kube_pod pod = { .namespace = "default", .name = "web-0", .uid = "pod-1" };
	struct kube_condition condition = {
		.truth = KUBE_TRUE, .reason = "ProbePassed", .since_s = NOON_S
	};
	struct kube_write write;
	snprintf(condition.message, sizeof(condition.message), "tcp 8080");
	assert_int_equal(kube_write_pod(&pod, KUBE_GATE, &condition, &write), 0);
	assert_write(&write, APPLY,
		"/api/v1/namespaces/default/pods/web-0/"
		"status?fieldManager=sluice-lb.github.io&force=true",
		"{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\"metadata\":{\"name\":\"web-0\","
		"\"namespace\":\"default\","
		"\"uid\":\"pod-1\"},\"status\":{\"conditions\":[{\"type\":\"sluice-lb.github.io/"
		"healthy\","
		"\"status\":\"True\",\"lastTransitionTime\":\"2026-01-31T12:00:00Z\",\"reason\":"
		"\"ProbePassed\","
		"\"message\":\"tcp 8080\"}]}}");
}

// ---------------------------------------------------------------- permissions
static const struct kube_rule *find_rule(const char *resource)
{
	for (uint32_t i = 0; i < kube_rule_count(); i++)
		if (strcmp(kube_rule_at(i)->resource, resource) == 0)
			return kube_rule_at(i);
	fail_msg("no rule for %s", resource);
	return NULL;
}

static void test_reviews(void **state)
{
	struct kube_write write;
	char text[512];
	bool allowed = false;
	assert_int_equal(
		kube_write_review(find_rule("services/status"), "patch", "own", &write), 0);
	assert_string_equal(write.method, "POST");
	assert_write(&write, JSON, "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
		"{\"apiVersion\":\"authorization.k8s.io/"
		"v1\",\"kind\":\"SelfSubjectAccessReview\",\"spec\":{"
		"\"resourceAttributes\":{\"group\":\"\",\"resource\":\"services\",\"verb\":"
		"\"patch\",\"subresource\":"
		"\"status\"}}}");
	assert_int_equal(kube_write_review(find_rule("leases"), "update", "own", &write), 0);
	assert_write(&write, JSON, "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
		"{\"apiVersion\":\"authorization.k8s.io/"
		"v1\",\"kind\":\"SelfSubjectAccessReview\",\"spec\":{"
		"\"resourceAttributes\":{\"group\":\"coordination.k8s.io\",\"resource\":\"leases\","
		"\"verb\":\"update\","
		"\"namespace\":\"own\"}}}");
	json_t *yes = json_loads("{\"status\":{\"allowed\":true}}", 0, NULL);
	json_t *no = json_loads("{\"status\":{\"allowed\":false,\"reason\":\"x\"}}", 0, NULL);
	json_t *bad = json_loads("{\"kind\":\"Status\",\"status\":\"Failure\"}", 0, NULL);
	assert_int_equal(kube_review_read(yes, &allowed), 0);
	assert_true(allowed);
	assert_int_equal(kube_review_read(no, &allowed), 0);
	assert_false(allowed);
	assert_int_equal(kube_review_read(bad, &allowed), -EINVAL);
	json_decref(yes);
	json_decref(no);
	json_decref(bad);
	assert_string_equal(
		kube_rule_complain(find_rule("endpointslices"), "watch", text, sizeof(text)),
		"may not watch endpointslices.discovery.k8s.io: no Service has backends; add to "
		"the "
		"ClusterRole sluice: {apiGroups: [\"discovery.k8s.io\"], resources: "
		"[\"endpointslices\"], "
		"verbs: [\"watch\"]}");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_status),
		cmocka_unit_test(test_status_exposed),
		cmocka_unit_test(test_settled),
		cmocka_unit_test(test_changes),
		cmocka_unit_test(test_meddled),
		cmocka_unit_test(test_release),
		cmocka_unit_test(test_hostile_texts),
		cmocka_unit_test(test_times),
		cmocka_unit_test(test_annotations),
		cmocka_unit_test(test_conditions),
		cmocka_unit_test(test_pool),
		cmocka_unit_test(test_pod),
		cmocka_unit_test(test_reviews),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
