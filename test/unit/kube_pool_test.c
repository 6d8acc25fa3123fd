// SPDX-License-Identifier: BSD-3-Clause
// AddressPool objects, through the model, to pools: named cases of good and bad ones.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "kube_pool.h"

struct pool_case {
	const char *name;
	const char *spec;
	uint32_t n_ranges;
	bool is_pinned;
	const char *findings[4]; // pieces of them, in order
};

static const struct pool_case cases[] = {
	{ "prefix and range", "{\"addresses\":[\"203.0.113.0/24\",\"2001:db8::1-2001:db8::9\"]}", 2,
		false, { NULL } },
	{ "one bad address", "{\"addresses\":[\"203.0.113.0/33\",\"203.0.113.1\"]}", 1, false,
		{ "spec.addresses[0]: \"203.0.113.0/33\": allowed: prefix" } },
	{ "loopback and multicast",
		"{\"addresses\":[\"127.0.0.1\",\"ff02::1\",\"126.0.0.0-128.0.0.0\"]}", 0, false,
		{ "127.0.0.0/8", "ff00::/8", "127.0.0.0/8" } },
	{ "not a string", "{\"addresses\":[5,\"203.0.113.1\"]}", 1, false,
		{ "spec.addresses[0]: allowed: a string" } },
	{ "no address", "{\"addresses\":[]}", 0, false, { "spec.addresses: no address" } },
	{ "no spec", "5", 0, false, { "spec", "spec.addresses: no address" } },
	{ "namespaces", "{\"addresses\":[\"203.0.113.1\"],\"namespaces\":[\"a\"]}", 1, true,
		{ NULL } },
	{ "no namespaces", "{\"addresses\":[\"203.0.113.1\"],\"namespaces\":[]}", 1, false,
		{ NULL } },
	{ "namespaces of no type", "{\"addresses\":[\"203.0.113.1\"],\"namespaces\":\"a\"}", 0,
		false, { "spec.namespaces" } },
	{ "selector",
		"{\"addresses\":[\"203.0.113.1\"],\"serviceSelector\":{\"matchLabels\":{\"a\":"
		"\"b\"}}}",
		1, true, { NULL } },
	{ "empty selector", "{\"addresses\":[\"203.0.113.1\"],\"namespaceSelector\":{}}", 1, false,
		{ NULL } },
	{ "selector of no type", "{\"addresses\":[\"203.0.113.1\"],\"namespaceSelector\":\"a\"}", 0,
		false, { "spec.namespaceSelector" } },
	{ "unknown operator",
		"{\"addresses\":[\"203.0.113.1\"],\"namespaceSelector\":{\"matchExpressions\":[{"
		"\"key\":\"a\",\"operator\":\"Is\"}]}}",
		0, true,
		{ "spec.namespaceSelector.matchExpressions[0]: operator \"Is\": allowed: In, "
		  "NotIn" } },
	{ "In without values",
		"{\"addresses\":[\"203.0.113.1\"],\"serviceSelector\":{\"matchExpressions\":[{"
		"\"key\":\"a\",\"operator\":\"In\"}]}}",
		0, true, { "In without values" } },
	{ "Exists with values",
		"{\"addresses\":[\"203.0.113.1\"],\"serviceSelector\":{\"matchExpressions\":[{"
		"\"key\":\"a\",\"operator\":\"Exists\",\"values\":[\"b\"]}]}}",
		0, true, { "Exists with values" } },
	{ "no key",
		"{\"addresses\":[\"203.0.113.1\"],\"serviceSelector\":{\"matchExpressions\":[{"
		"\"operator\":\"Exists\"}]}}",
		0, true, { "no key" } },
	{ "labels of no type",
		"{\"addresses\":[\"203.0.113.1\"],\"serviceSelector\":{\"matchLabels\":[]}}", 0,
		false, { "matchLabels: allowed" } },
	{ "priority below 0", "{\"addresses\":[\"203.0.113.1\"],\"priority\":-1}", 1, false,
		{ "spec.priority: -1: allowed: 0..2147483647" } },
	{ "priority too large", "{\"addresses\":[\"203.0.113.1\"],\"priority\":4294967297}", 1,
		false, { "spec.priority" } },
};

static struct kube_cluster *make_cluster(const char *spec, const char *more)
{
	struct kube_cluster_config config = { .defaults = service_defaults_builtin(),
		.resources = 1 << KUBE_CLUSTER_POOLS };
	struct kube_cluster *c = kube_cluster_create(&config);
	json_t *object = json_pack("{s:{s:s,s:s,s:s,s:s},s:o}", "metadata", "name", "blue", "uid",
		"p-1", "resourceVersion", "7", "creationTimestamp", "2026-01-31T12:00:00Z", "spec",
		json_loads(spec, JSON_DECODE_ANY, NULL));
	if (more)
		json_object_set_new(json_object_get(object, "metadata"), more,
			json_string("2026-02-01T12:00:00Z"));
	assert_non_null(object);
	assert_int_equal(kube_cluster_put(c, KUBE_CLUSTER_POOLS, object), 0);
	json_decref(object);
	return c;
}

static void check(const struct pool_case *test, const struct kube_pool_form *form)
{
	char line[512];
	uint32_t n = 0;
	if (form->pool.n_ranges != test->n_ranges || form->pool.is_pinned != test->is_pinned)
		fail_msg("%s: %u ranges, pinned %d", test->name, form->pool.n_ranges,
			form->pool.is_pinned);
	for (; n < ARRAY_SIZE(test->findings) && test->findings[n]; n++)
		if (n >= form->findings.n_items ||
			!strstr(error_format(&form->findings, n, line, sizeof(line)),
				test->findings[n]))
			fail_msg("%s: finding %u is not %s but %s", test->name, n,
				test->findings[n],
				error_format(&form->findings, n, line, sizeof(line)));
	if (form->findings.n_items != n)
		fail_msg("%s: %u findings, not %u", test->name, form->findings.n_items, n);
}

static void test_cases(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct kube_cluster *c = make_cluster(cases[i].spec, NULL);
		struct kube_pool pool;
		struct kube_pool_form form;
		assert_true(kube_cluster_pool_at(c, 0, &pool));
		assert_int_equal(kube_pool_read(&pool, &form), 0);
		check(&cases[i], &form);
		kube_pool_form_fini(&form);
		kube_cluster_destroy(c);
	}
}

static void test_form(void **state)
{
	static const char spec[] = "{\"addresses\":[\"203.0.113.0/24\"],\"priority\":5}";
	for (int is_deleting = 0; is_deleting < 2; is_deleting++) {
		struct kube_cluster *c =
			make_cluster(spec, is_deleting ? "deletionTimestamp" : NULL);
		struct kube_pool pool;
		struct kube_pool_form form;
		assert_true(kube_cluster_pool_at(c, 0, &pool));
		assert_int_equal(kube_pool_read(&pool, &form), 0);
		assert_string_equal(form.pool.name, "blue");
		assert_int_equal(form.pool.priority, 5);
		assert_int_equal(form.pool.created_s, 1769860800);
		assert_int_equal(form.pool.auto_assign, !is_deleting);
		assert_ptr_equal(form.pool.ranges, form.ranges);
		char text[100];
		assert_string_equal(
			ipam_range_format(&form.ranges[0], text, sizeof(text)), "203.0.113.0/24");
		kube_pool_form_fini(&form);
		kube_cluster_destroy(c);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_cases),
		cmocka_unit_test(test_form),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
