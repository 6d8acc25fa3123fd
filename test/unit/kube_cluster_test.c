// SPDX-License-Identifier: BSD-3-Clause
// The model of the cluster, told as stories: objects come and go, and after each the changes that must come of it, no more and
// no fewer. What random stories must hold to is kube_twin_test.
#include "kube_rig_priv.h"

struct story {
	const char *name;
	const char *steps[28];
	const char *zone;
	bool no_default_class;
};

// "+..." put, "-..." remove, "begin KIND", "end KIND", "unsynced" (first), "sync"; "= ..." the next change is this, "." there is none;
// of the last change: "f ..." a finding has this, "nof" there is none, "w ..." it wants this, "i ..." its record;
// "allow PREFIX" VIPs that begin so, "recheck", "refuse PREFIX", "again NAMESPACE/NAME".
static const struct story stories[] = {
#include "kube_stories_priv.h"
};

static const char *allowed_prefix; // of the running story

static bool allowed(void *arg, const char *namespace, const char *name, const struct address *vip)
{
	char text[ADDRESS_TEXT_LEN];
	return strncmp(address_format(vip, text), allowed_prefix, strlen(allowed_prefix)) == 0;
}

static uint32_t n_failed;

static void expect_text(const struct story *story, uint32_t at, const char *got, const char *wanted)
{
	if (strcmp(got, wanted) == 0)
		return;
	n_failed++;
	print_error("%s, step %u:\n  expected %s\n  got      %s\n", story->name, at, wanted, got);
}

static bool starts(const char *text, const char *word)
{
	return strncmp(text, word, strlen(word)) == 0;
}

// "slice web-1", of the namespace default
static void keep(struct rig *rig, const char *words)
{
	char kind[16], name[64];
	assert_int_equal(sscanf(words, "%15s %63s", kind, name), 2);
	kube_cluster_keep(rig->cluster, rig_kinds[rig_kind(kind)].resource, "default", name);
}

static void play_input(struct rig *rig, const char *step)
{
	struct prefix prefix;
	if (step[0] == '+')
		rig_put(rig, step + 1);
	else if (step[0] == '-')
		rig_remove(rig, step + 1);
	else if (starts(step, "begin "))
		kube_cluster_begin(rig->cluster, rig_kinds[rig_kind(step + 6)].resource);
	else if (starts(step, "keep "))
		keep(rig, step + 5);
	else if (starts(step, "end "))
		kube_cluster_end(rig->cluster, rig_kinds[rig_kind(step + 4)].resource);
	else if (starts(step, "allow "))
		allowed_prefix = step + 6;
	else if (starts(step, "recheck"))
		kube_cluster_recheck(rig->cluster);
	else if (starts(step, "again "))
		kube_cluster_again(rig->cluster, "default", step + 6);
	else if (starts(step, "refuse ") && prefix_parse(step + 7, &prefix) == 0)
		kube_cluster_set_refused(rig->cluster, &prefix, 1);
	else if (starts(step, "sync"))
		rig_sync(rig);
	else
		fail_msg("no such step: %s", step);
}

static void play_step(struct rig *rig, const struct story *story, uint32_t at)
{
	const char *step = story->steps[at];
	if (starts(step, "= ")) {
		expect_text(story, at, rig_next(rig) ? rig->line : "no change", step + 2);
	} else if (strcmp(step, ".") == 0) {
		expect_text(story, at, rig_next(rig) ? rig->line : "no change", "no change");
	} else if (starts(step, "f ")) {
		if (strstr(rig->findings, step + 2) == NULL)
			expect_text(story, at, rig->findings, step + 2);
	} else if (strcmp(step, "nof") == 0) {
		expect_text(story, at, rig->findings, "");
	} else if (starts(step, "w ")) {
		expect_text(story, at, rig->wants, step + 2);
	} else if (starts(step, "i ")) {
		expect_text(story, at, rig->ingress, step + 2);
	} else {
		play_input(rig, step);
	}
}

static void play(const struct story *story)
{
	struct kube_cluster_config config = { .defaults = service_defaults_builtin(),
		.class_name = "sluice-lb.github.io/sluice",
		.is_default_class = !story->no_default_class,
		.zone = story->zone,
		.allowed = allowed };
	struct rig rig = { .cluster = kube_cluster_create(&config) };
	uint32_t at = 0;
	allowed_prefix = "";
	assert_non_null(rig.cluster);
	if (strcmp(story->steps[0], "unsynced"))
		rig_sync(&rig);
	else
		at++;
	for (; at < ARRAY_SIZE(story->steps) && story->steps[at]; at++)
		play_step(&rig, story, at);
	expect_text(story, at, rig_next(&rig) ? rig.line : "no change", "no change");
	kube_cluster_destroy(rig.cluster);
}

static void test_stories(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(stories); i++)
		play(&stories[i]);
	print_message("%zu stories\n", ARRAY_SIZE(stories));
	assert_int_equal(n_failed, 0);
}

// ---------------------------------------------------------------- beside the stories
static struct rig new_rig(uint32_t watched)
{
	struct kube_cluster_config config = { .defaults = service_defaults_builtin(),
		.is_default_class = true,
		.resources = watched };
	struct rig rig = { .cluster = kube_cluster_create(&config) };
	assert_non_null(rig.cluster);
	return rig;
}

static void test_selectors(void **state)
{
	static const char labels[] = "app=web\nempty=\ntier=front\n";
	static const struct {
		const char *selector;
		bool matches;
	} cases[] = {
		{ "{}", true },
		{ "{'matchLabels': {'app': 'web'}}", true },
		{ "{'matchLabels': {'app': 'web', 'tier': 'front', 'empty': ''}}", true },
		{ "{'matchLabels': {'app': 'we'}}", false },
		{ "{'matchLabels': {'app': 'webs'}}", false },
		{ "{'matchLabels': {'ap': 'web'}}", false },
		{ "{'matchLabels': {'app': 'web', 'tier': 'back'}}", false },
		{ "{'matchLabels': {'app': 7}}", false },
		{ "{'matchLabels': 'app'}", false },
		{ "{'matchExpressions': [{'key': 'app', 'operator': 'In', 'values': ['x', "
		  "'web']}]}",
			true },
		{ "{'matchExpressions': [{'key': 'app', 'operator': 'In', 'values': ['x']}]}",
			false },
		{ "{'matchExpressions': [{'key': 'app', 'operator': 'In', 'values': []}]}", false },
		{ "{'matchExpressions': [{'key': 'app', 'operator': 'NotIn', 'values': ['x']}]}",
			true },
		{ "{'matchExpressions': [{'key': 'no', 'operator': 'NotIn', 'values': ['x']}]}",
			true },
		{ "{'matchExpressions': [{'key': 'app', 'operator': 'NotIn', 'values': ['web']}]}",
			false },
		{ "{'matchExpressions': [{'key': 'empty', 'operator': 'Exists'}]}", true },
		{ "{'matchExpressions': [{'key': 'no', 'operator': 'Exists'}]}", false },
		{ "{'matchExpressions': [{'key': 'no', 'operator': 'DoesNotExist'}]}", true },
		{ "{'matchExpressions': [{'key': 'app', 'operator': 'DoesNotExist'}]}", false },
		{ "{'matchExpressions': [{'key': 'app', 'operator': 'Gt', 'values': ['1']}]}",
			false },
		{ "{'matchExpressions': [{'operator': 'Exists'}]}", false },
		{ "{'matchExpressions': {'key': 'app'}}", false },
		{ "{'matchLabels': {'app': 'web'}, 'matchExpressions': [{'key': 'no', 'operator': "
		  "'Exists'}]}",
			false },
		{ "[]", false },
	};
	assert_true(kube_selector_matches(NULL, ""));
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		json_t *selector = rig_json(cases[i].selector);
		if (kube_selector_matches(selector, labels) != cases[i].matches)
			fail_msg("%s", cases[i].selector);
		json_decref(selector);
	}
}

static void test_pools(void **state)
{
	struct rig rig = new_rig(1u << KUBE_CLUSTER_POOLS | 1u << KUBE_CLUSTER_NAMESPACES);
	struct kube_pool pool;
	rig_sync(&rig);
	assert_false(kube_cluster_pool_at(rig.cluster, 0, &pool));
	rig_put(&rig,
		"pool b addresses=203.0.113.0/24,2001:db8::/120 json={'spec': {'priority': 5, "
		"'autoAssign': false}}");
	rig_put(&rig, "pool a addresses=198.51.100.1-198.51.100.9 namespaces=x,default "
		      "json={'spec': {'namespaceSelector': {'matchLabels': {'team': 'one'}}, "
		      "'serviceSelector': {'matchLabels': {'tier': 'gold'}}}}");
	uint64_t generation = kube_cluster_pools_generation(rig.cluster);
	assert_true(kube_cluster_pool_at(rig.cluster, 1, &pool));
	assert_string_equal(pool.name, "b");
	assert_int_equal(pool.priority, 5);
	assert_false(pool.auto_assign);
	assert_int_equal(json_array_size(pool.addresses), 2);
	assert_int_equal(pool.findings->n_items, 0);
	assert_true(kube_cluster_pool_serves(rig.cluster, &pool, "any", "thing"));
	assert_true(kube_cluster_pool_at(rig.cluster, 0, &pool));
	assert_string_equal(pool.name, "a");
	assert_true(pool.auto_assign);
	rig_put(&rig, "svc default/web ports=http:80 label:tier=gold label:app=web");
	assert_string_equal(
		kube_cluster_service_labels(rig.cluster, "default", "web"), "app=web\ntier=gold\n");
	assert_false(kube_cluster_pool_serves(rig.cluster, &pool, "default", "web"));
	rig_put(&rig, "ns default label:team=one");
	assert_true(kube_cluster_pools_generation(rig.cluster) > generation);
	assert_true(kube_cluster_pool_serves(rig.cluster, &pool, "default", "web"));
	assert_false(kube_cluster_pool_serves(rig.cluster, &pool, "other", "web"));
	rig_put(&rig, "svc default/web ports=http:80 label:tier=tin");
	assert_false(kube_cluster_pool_serves(rig.cluster, &pool, "default", "web"));
	generation = kube_cluster_pools_generation(rig.cluster);
	rig_put(&rig, "ns default label:team=one");
	rig_put(&rig,
		"pool b addresses=203.0.113.0/24,2001:db8::/120 json={'spec': {'priority': 5, "
		"'autoAssign': false}, 'status': {'available': 7}}");
	assert_int_equal(kube_cluster_pools_generation(rig.cluster), generation);
	rig_put(&rig,
		"pool c json={'spec': {'addresses': [7], 'priority': 'x', 'namespaces': [1]}}");
	assert_true(kube_cluster_pool_at(rig.cluster, 2, &pool));
	assert_int_equal(pool.findings->n_items, 3);
	rig_remove(&rig, "pool a");
	assert_true(kube_cluster_pool_at(rig.cluster, 0, &pool));
	assert_string_equal(pool.name, "b");
	assert_true(kube_cluster_pools_generation(rig.cluster) > generation);
	kube_cluster_destroy(rig.cluster);
}

static void assert_pod(struct rig *rig, const char *name, const char *state)
{
	struct kube_pod pod;
	char text[64] = "none";
	if (kube_cluster_next_pod(rig->cluster, &pod)) {
		assert_string_equal(pod.name, name);
		snprintf(text, sizeof(text), "%s%s%s %u", pod.is_gone ? "gone " : "",
			pod.is_marked ? "marked " : "", pod.is_healthy ? "healthy" : "",
			pod.n_addresses);
	}
	assert_string_equal(text, state);
}

static void test_pods(void **state)
{
	struct rig rig = new_rig(1u << KUBE_CLUSTER_PODS);
	struct kube_pod pod;
	rig_put(&rig, "pod default/a ip=10.9.0.2,2001:db8::2 gate=");
	assert_pod(&rig, "", "none"); // not synced
	kube_cluster_begin(rig.cluster, KUBE_CLUSTER_PODS);
	rig_put(&rig, "pod default/a ip=10.9.0.2,2001:db8::2 gate=");
	rig_sync(&rig);
	kube_cluster_begin(rig.cluster, KUBE_CLUSTER_PODS);
	rig_put(&rig, "pod default/a ip=10.9.0.2,2001:db8::2 gate=");
	rig_put(&rig, "pod default/plain ip=10.9.0.3");
	kube_cluster_end(rig.cluster, KUBE_CLUSTER_PODS);
	assert_pod(&rig, "a", " 2");
	assert_pod(&rig, "", "none");
	rig_put(&rig, "pod default/a ip=10.9.0.2,2001:db8::2 gate=True");
	assert_pod(&rig, "a", "marked healthy 2");
	assert_true(kube_cluster_find_pod(rig.cluster, "default", "a", &pod));
	assert_true(pod.is_healthy);
	assert_false(kube_cluster_find_pod(rig.cluster, "default", "plain", &pod));
	rig_put(&rig, "pod default/a ip=10.9.0.2,2001:db8::2 gate=True label:x=y");
	assert_pod(&rig, "", "none");
	rig_put(&rig, "pod default/a ip=10.9.0.2 gate=False");
	rig_put(&rig, "pod default/b gate=");
	assert_pod(&rig, "a", "marked  1");
	assert_pod(&rig, "b", " 0");
	rig_remove(&rig, "pod default/a");
	assert_false(kube_cluster_find_pod(rig.cluster, "default", "a", &pod));
	assert_pod(&rig, "a", "gone marked  1");
	rig_put(&rig, "pod default/a ip=10.9.0.2 gate=True"); // before the gone one is freed
	assert_pod(&rig, "a", "marked healthy 1");
	rig_put(&rig, "pod default/b");
	assert_pod(&rig, "b", "gone  0");
	rig_put(&rig, "pod default/b"); // told already, and not freed yet
	assert_pod(&rig, "", "none");
	assert_int_equal(kube_cluster_count(rig.cluster).n_pods, 1);
	kube_cluster_destroy(rig.cluster);
}

static void test_counts(void **state)
{
	struct rig rig = new_rig(0);
	rig_sync(&rig);
	rig_put(&rig, "svc default/a ip=203.0.113.1 ports=x:1");
	rig_put(&rig, "svc default/b ip=203.0.113.1 ports=x:1");
	rig_put(&rig, "svc default/c type=ClusterIP ports=x:1");
	rig_put(&rig, "svc default/d ports=x:1 .mode=bad");
	rig_put(&rig, "slice default/s svc=a eps=10.9.0.1,10.9.0.2");
	rig_put(&rig, "slice default/t svc=nobody eps=10.9.0.1");
	rig_put(&rig, "node n1");
	rig_put(&rig, "node n2 deleting");
	while (rig_next(&rig))
		;
	struct kube_cluster_counts n = kube_cluster_count(rig.cluster);
	assert_int_equal(n.n_services, 4);
	assert_int_equal(n.n_ours, 3);
	assert_int_equal(n.n_refused, 2);
	assert_int_equal(n.n_slices, 2);
	assert_int_equal(n.n_endpoints, 3);
	assert_int_equal(n.n_nodes, 2);
	assert_int_equal(n.n_eligible_nodes, 1);
	assert_int_equal(n.n_bad_objects, 1);
	assert_int_equal(n.n_changes, 3);
	assert_string_equal(kube_cluster_resource_version(rig.cluster, "default", "d"), "4");
	rig_remove(&rig, "svc default/b");
	rig_remove(&rig, "svc default/d");
	rig_remove(&rig, "slice default/t");
	while (rig_next(&rig))
		;
	n = kube_cluster_count(rig.cluster);
	assert_int_equal(n.n_refused, 0);
	assert_int_equal(n.n_ours, 1);
	assert_int_equal(n.n_endpoints, 2);
	assert_string_equal(kube_cluster_resource_version(rig.cluster, "default", "d"), "");
	kube_cluster_destroy(rig.cluster);
}

// The newest time since the change before is told with a PUT, once.
static void test_trigger(void **state)
{
	static const char key[] = "endpoints.kubernetes.io/last-change-trigger-time";
	struct rig rig = new_rig(0);
	struct kube_change change;
	char line[512];
	rig_sync(&rig);
	rig_put(&rig, "svc default/a ip=203.0.113.1 ports=x:1");
	snprintf(line, sizeof(line),
		"slice default/s svc=a ports=x:1 eps=10.9.0.1 %s=2026-01-31T12:00:00.25Z", key);
	rig_put(&rig, line);
	snprintf(line, sizeof(line),
		"slice default/t svc=a ports=x:1 eps=10.9.0.2 %s=2026-01-31T11:00:00Z", key);
	rig_put(&rig, line);
	assert_true(kube_cluster_next(rig.cluster, &change));
	assert_int_equal(change.trigger_ms, 1769860800250ull);
	rig_put(&rig, "slice default/t svc=a ports=x:1 eps=10.9.0.3");
	assert_true(kube_cluster_next(rig.cluster, &change));
	assert_int_equal(change.trigger_ms, 0);
	assert_int_equal(change.n_endpoints, 2);
	assert_int_equal(change.n_ready, 2);
	kube_cluster_destroy(rig.cluster);
}

// Other defaults hold from the next list on.
static void test_defaults(void **state)
{
	struct rig rig = new_rig(0);
	struct service_defaults defaults = service_defaults_builtin();
	static const char web[] = "svc default/web ip=203.0.113.1 ports=x:1 rv=9";
	rig_sync(&rig);
	rig_put(&rig, web);
	assert_true(rig_next(&rig));
	defaults.mode = SERVICE_MODE_DNAT;
	kube_cluster_set_defaults(rig.cluster, &defaults);
	assert_false(rig_next(&rig));
	rig_put(&rig, web);
	assert_true(rig_next(&rig));
	assert_string_equal(rig.line, "PUT default/web 203.0.113.1 x:1 mode=dnat |");
	kube_cluster_destroy(rig.cluster);
}

// A thousand Services: each change is given once, a list of the same gives none, and in the end nothing is left.
static void test_many(void **state)
{
	struct rig rig = new_rig(0);
	char line[256];
	uint32_t n_changes = 0;
	rig_sync(&rig);
	for (uint32_t round = 0; round < 3; round++) {
		kube_cluster_begin(rig.cluster, KUBE_CLUSTER_SERVICES);
		kube_cluster_begin(rig.cluster, KUBE_CLUSTER_SLICES);
		for (uint32_t i = 0; i < 1000 && round < 2; i++) {
			snprintf(line, sizeof(line), "svc default/s%u ip=198.18.%u.%u ports=x:1", i,
				i / 256, i % 256);
			rig_put(&rig, line);
			snprintf(line, sizeof(line),
				"slice default/e%u svc=s%u ports=x:1 eps=10.1.%u.%u", i, i, i / 256,
				i % 256);
			rig_put(&rig, line);
		}
		kube_cluster_end(rig.cluster, KUBE_CLUSTER_SERVICES);
		kube_cluster_end(rig.cluster, KUBE_CLUSTER_SLICES);
		for (n_changes = 0; rig_next(&rig); n_changes++)
			;
		assert_int_equal(n_changes, round == 1 ? 0 : 1000);
	}
	assert_int_equal(kube_cluster_count(rig.cluster).n_services, 0);
	assert_int_equal(kube_cluster_count(rig.cluster).n_slices, 0);
	kube_cluster_destroy(rig.cluster);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_stories),
		cmocka_unit_test(test_selectors),
		cmocka_unit_test(test_pools),
		cmocka_unit_test(test_pods),
		cmocka_unit_test(test_counts),
		cmocka_unit_test(test_trigger),
		cmocka_unit_test(test_defaults),
		cmocka_unit_test(test_many),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
