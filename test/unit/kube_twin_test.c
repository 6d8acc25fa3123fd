// SPDX-License-Identifier: BSD-3-Clause
// The model against its twins, on random stories: objects are put, changed, removed and listed anew in any order, drained now and
// then. In the end
//   - a model that gets the final objects alone, in another order, gives the same services;
//   - where the services file can say it, decoding the final objects at once gives the same services;
//   - every change that was given was one: what it says differs from what was said before.
#include "kube_rig_priv.h"

#define N_NAMES   14
#define N_STORIES 400
#define N_STEPS   60

static uint64_t random_state;

static uint64_t random_word(void)
{
	random_state += 0x9e3779b97f4a7c15ull; // splitmix64
	uint64_t z = random_state;
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

static uint32_t random_below(uint32_t n)
{
	return (uint32_t)((random_word() >> 32) * n >> 32);
}

static const char *one_of(const char *const *words, uint32_t n)
{
	return words[random_below(n)];
}

#define ONE_OF(...)                                  \
	one_of((const char *const[]){ __VA_ARGS__ }, \
		sizeof((const char *const[]){ __VA_ARGS__ }) / sizeof(const char *))

struct twin_object {
	json_t *json; // NULL: not there
	enum kube_cluster_resource resource;
};

struct twin {
	struct rig rig;
	struct twin_object objects[3 * N_NAMES]; // services, slices, nodes
	struct service_store *store;             // of somebody who applies the changes
	uint64_t version;
	bool is_plain; // what the services file can say too
};

// ---------------------------------------------------------------- objects
static void random_endpoints(const struct twin *t, char *buf, size_t len, const char *family)
{
	uint32_t n = random_below(5);
	buf[0] = '\0';
	for (uint32_t i = 0; i < n; i++) {
		rig_print(buf, len, "%s", i ? "," : " eps=");
		if (!t->is_plain && random_below(12) == 0)
			rig_print(buf, len, "%s",
				family[3] == '4' ? ONE_OF("127.0.0.1", "203.0.113.3", "10.9.8.1")
						 : ONE_OF("::1", "fe80::1"));
		else
			rig_print(buf, len, family[3] == '4' ? "10.9.0.%u" : "2001:db8:9::%x",
				1 + random_below(6));
		rig_print(buf, len, "/%s", ONE_OF("r", "r", "r", "n", "t", "x", "d", "u"));
		if (random_below(2))
			rig_print(buf, len, "/pod=p%u/uid=u%u", random_below(4), random_below(3));
		if (random_below(3) == 0)
			rig_print(buf, len, "/host=h%u", random_below(3));
		if (random_below(2))
			rig_print(buf, len, "/node=n%u", random_below(N_NAMES));
		if (random_below(2))
			rig_print(buf, len, "/zone=%s", ONE_OF("a", "b"));
	}
}

static void random_slice(const struct twin *t, uint32_t i, char *buf, size_t len)
{
	const char *family = ONE_OF("IPv4", "IPv4", "IPv6");
	char endpoints[2048];
	random_endpoints(t, endpoints, sizeof(endpoints), family);
	snprintf(buf, len, "slice ns%u/slice%u svc=s%u family=%s ports=%s%s", i % 2, i,
		random_below(N_NAMES), family,
		ONE_OF("a:8080", "a:9090", "a:8080,b:53/UDP", "b:5353/UDP,a:8080", "c:1"),
		endpoints);
}

static void random_plain_service(uint32_t i, char *buf, size_t len)
{
	snprintf(buf, len, "svc ns%u/s%u ip=%s203.0.113.%u%s%s%s", i % 2, i,
		i == 3 ? "2001:db8::100," : "", 100 + i,
		ONE_OF(" ports=a:80", " ports=a:80,b:53/UDP", " ports=b:53/UDP"),
		ONE_OF("", "", " sessionAffinity=ClientIP", " .mode=dnat", " .drain-timeout=1m"),
		ONE_OF("", " ranges=198.51.100.0/24", " .scheduler=least-connections",
			" type=ClusterIP",
			" json={'metadata': {'annotations': {'sluice-lb.github.io/weights': "
			"'{\\'10.9.0.1\\': 7, \\'p1\\': 0, \\'h2\\': 3}'}}}"));
}

static void random_wide_service(uint32_t i, char *buf, size_t len)
{
	char record[64] = "";
	if (random_below(4))
		snprintf(record, sizeof(record), " ip=203.0.113.%u", random_below(6));
	const char *kind =
		ONE_OF("", "", "", " .targets=nodes", " .targets=nodes externalTrafficPolicy=Local",
			" type=ClusterIP", " loadBalancerClass=x/y", " deleting");
	snprintf(buf, len, "svc ns%u/s%u created=2026-01-01T00:00:0%uZ uid=u%u%s%s%s%s", i % 2, i,
		random_below(3), random_below(3), record, kind,
		ONE_OF(" ports=a:80@30080", " ports=a:80@30080,b:53/UDP@30053",
			" ports=a:81@30081"),
		ONE_OF("", "", " finalizer=sluice-lb.github.io/vip", " .address-pool=p",
			" label:x=y"));
	if (random_below(6) == 0)
		snprintf(buf, len,
			"svc ns%u/s%u type=ClusterIP clusterIP=None ports=a:80 .expose=endpoints "
			"json={'metadata': {'annotations': {'sluice-lb.github.io/assigned': "
			"'{\\'h%u\\': \\'203.0.113.%u\\'}'}}}",
			i % 2, i, random_below(3), random_below(6));
}

static void random_node(uint32_t i, char *buf, size_t len)
{
	snprintf(buf, len, "node n%u ip=10.0.0.%u%s%s", i, i + 1, ONE_OF("", ",2001:db8:1::1"),
		ONE_OF("", "", "",
			" label:node.kubernetes.io/exclude-from-external-load-balancers=",
			" deleting"));
}

static json_t *random_object(struct twin *t, uint32_t idx)
{
	char line[4096];
	enum kube_cluster_resource resource;
	uint32_t i = idx % N_NAMES;
	if (idx >= 2 * N_NAMES)
		random_node(i, line, sizeof(line));
	else if (idx >= N_NAMES)
		random_slice(t, i, line, sizeof(line));
	else if (t->is_plain)
		random_plain_service(i, line, sizeof(line));
	else
		random_wide_service(i, line, sizeof(line));
	return rig_object(line, ++t->version, &resource);
}

static const enum kube_cluster_resource resources[] = { KUBE_CLUSTER_SERVICES, KUBE_CLUSTER_SLICES,
	KUBE_CLUSTER_NODES };

static const char *member(const json_t *json, const char *key)
{
	return json_string_value(json_object_get(json_object_get(json, "metadata"), key));
}

static void put(struct kube_cluster *c, const struct twin_object *object)
{
	assert_int_equal(kube_cluster_put(c, object->resource, object->json), 0);
}

// ---------------------------------------------------------------- changes
static void apply(struct twin *t, const struct kube_change *change)
{
	struct error err = { 0 };
	char text[1024];
	bool is_changed = false;
	if (change->kind == KUBE_PUT) {
		if (service_store_put(t->store, change->service, &is_changed, &err) != 0)
			fail_msg("%s", error_first(&err, text, sizeof(text)));
		if (!is_changed)
			fail_msg(
				"put again, and no change: %s/%s", change->namespace, change->name);
	} else if (change->kind == KUBE_REMOVE) {
		service_store_remove(
			t->store, change->namespace, change->name, SERVICE_OWNER_KUBERNETES, NULL);
	}
}

static void drain(struct twin *t)
{
	struct kube_change change;
	while (kube_cluster_next(t->rig.cluster, &change))
		apply(t, &change);
}

// A line for each service, in heap memory.
static char *store_text(const struct service_store *store)
{
	size_t len = 1 + service_store_count(store) * 4300ull;
	char *text = calloc(1, len);
	for (uint32_t i = 0; i < service_store_count(store); i++) {
		const struct service *s = service_store_at(store, i);
		rig_print(text, len, "%s/%s", s->namespace, s->name);
		rig_print_service(text, len, s);
		rig_print(text, len, "\n");
	}
	return text;
}

// ---------------------------------------------------------------- steps
static void step_list(struct twin *t)
{
	uint32_t kind = random_below(3), order[N_NAMES];
	kube_cluster_begin(t->rig.cluster, resources[kind]);
	for (uint32_t i = 0; i < N_NAMES; i++) {
		uint32_t at = random_below(i + 1);
		order[i] = order[at];
		order[at] = i;
	}
	// What went while nobody watched is missing in the list.
	for (uint32_t i = 0; i < N_NAMES; i++) {
		struct twin_object *object = &t->objects[kind * N_NAMES + i];
		if (random_below(6))
			continue;
		json_decref(object->json);
		object->json = NULL;
	}
	uint32_t n = random_below(4) ? N_NAMES : random_below(N_NAMES); // or the list breaks
	for (uint32_t i = 0; i < n; i++) {
		const struct twin_object *object = &t->objects[kind * N_NAMES + order[i]];
		if (object->json)
			put(t->rig.cluster, object);
		if (random_below(8) == 0)
			drain(t);
	}
	if (n == N_NAMES) {
		kube_cluster_end(t->rig.cluster, resources[kind]);
		return;
	}
	kube_cluster_begin(t->rig.cluster, resources[kind]);
	for (uint32_t i = 0; i < N_NAMES; i++)
		if (t->objects[kind * N_NAMES + i].json)
			put(t->rig.cluster, &t->objects[kind * N_NAMES + i]);
	kube_cluster_end(t->rig.cluster, resources[kind]);
}

static void step(struct twin *t)
{
	uint32_t idx = random_below(3 * N_NAMES), what = random_below(10);
	struct twin_object *object = &t->objects[idx];
	if (what == 0) {
		step_list(t);
	} else if (what < 4 && object->json) {
		const char *namespace = member(object->json, "namespace");
		kube_cluster_remove(
			t->rig.cluster, object->resource, namespace, member(object->json, "name"));
		json_decref(object->json);
		object->json = NULL;
	} else {
		json_decref(object->json);
		object->json = random_object(t, idx);
		put(t->rig.cluster, object);
	}
	if (random_below(3) == 0)
		drain(t);
}

static struct kube_cluster *new_cluster(const struct twin *t)
{
	struct prefix refused;
	assert_int_equal(prefix_parse("10.9.8.0/24", &refused), 0);
	struct kube_cluster_config config = { .defaults = service_defaults_builtin(),
		.is_default_class = true,
		.zone = t->is_plain ? NULL : "a",
		.refused = &refused,
		.n_refused = 1,
		.key = { { random_word(), random_word() } } };
	struct kube_cluster *c = kube_cluster_create(&config);
	assert_non_null(c);
	return c;
}

static void open_twin(struct twin *t, bool is_plain)
{
	memset(t, 0, sizeof(*t));
	t->is_plain = is_plain;
	t->rig.cluster = new_cluster(t);
	t->store = service_store_create();
}

static void close_twin(struct twin *t)
{
	service_store_destroy(t->store);
	kube_cluster_destroy(t->rig.cluster);
}

static void check_fresh(struct twin *t, const char *wanted)
{
	static struct twin other;
	uint32_t order[3 * N_NAMES];
	open_twin(&other, t->is_plain);
	for (uint32_t i = 0; i < 3 * N_NAMES; i++) {
		uint32_t at = random_below(i + 1);
		order[i] = order[at];
		order[at] = i;
	}
	for (int i = 0; i < 3; i++)
		kube_cluster_begin(other.rig.cluster, resources[i]);
	for (uint32_t i = 0; i < 3 * N_NAMES; i++)
		if (t->objects[order[i]].json)
			put(other.rig.cluster, &t->objects[order[i]]);
	for (int i = 0; i < 3; i++)
		kube_cluster_end(other.rig.cluster, resources[i]);
	drain(&other);
	char *text = store_text(other.store);
	if (strcmp(text, wanted))
		fail_msg("the story gives\n%s\nthe final objects give\n%s", wanted, text);
	free(text);
	close_twin(&other);
}

static void set_kind(json_t *json, const char *kind, const char *version)
{
	json_object_set_new(json, "kind", json_string(kind));
	json_object_set_new(json, "apiVersion", json_string(version));
}

static void check_file(struct twin *t, const char *wanted)
{
	struct service_defaults defaults = service_defaults_builtin();
	struct service_store *store = service_store_create();
	struct kube_result result = { 0 };
	struct error err = { 0 };
	char line[1024];
	json_t *array = json_array();
	for (uint32_t i = 0; i < 2 * N_NAMES; i++) {
		if (t->objects[i].json == NULL)
			continue;
		set_kind(t->objects[i].json, i < N_NAMES ? "Service" : "EndpointSlice",
			i < N_NAMES ? "v1" : "discovery.k8s.io/v1");
		json_array_append(array, t->objects[i].json);
	}
	char *text = json_dumps(array, 0);
	if (kube_decode_file(text, strlen(text), "f", &defaults, &result, &err) != 0 ||
		service_store_replace_owner(store, SERVICE_OWNER_FILE, result.services,
			result.n_services, NULL, &err) != 0)
		fail_msg("%s", error_first(&err, line, sizeof(line)));
	free(text);
	json_decref(array);
	text = store_text(store);
	if (strcmp(text, wanted))
		fail_msg("the story gives\n%s\nthe file gives\n%s", wanted, text);
	free(text);
	service_store_destroy(store);
	kube_result_fini(&result);
}

static void play(bool is_plain)
{
	static struct twin t;
	open_twin(&t, is_plain);
	for (uint32_t i = 0; i < 3 * N_NAMES; i++)
		t.objects[i].resource = resources[i / N_NAMES];
	rig_sync(&t.rig);
	uint32_t n = random_below(N_STEPS) + 1;
	for (uint32_t i = 0; i < n; i++)
		step(&t);
	drain(&t);
	char *text = store_text(t.store);
	check_fresh(&t, text);
	if (is_plain)
		check_file(&t, text);
	free(text);
	for (uint32_t i = 0; i < 3 * N_NAMES; i++)
		json_decref(t.objects[i].json);
	close_twin(&t);
}

static void run(bool is_plain)
{
	const char *seed = getenv("SEED");
	for (uint64_t i = 0; i < N_STORIES; i++) {
		random_state = (seed ? strtoull(seed, NULL, 0) : 0x5eed0000) + i;
		if (i == 0 || seed)
			print_message("seed %#llx\n", (unsigned long long)random_state);
		play(is_plain);
		if (seed)
			break;
	}
}

static void test_plain(void **state)
{
	run(true);
}

static void test_wide(void **state)
{
	run(false);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_plain),
		cmocka_unit_test(test_wide),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
