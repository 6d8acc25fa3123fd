// SPDX-License-Identifier: BSD-3-Clause
// What a change of one endpoint costs from the watch's line to a compiled snapshot, and what the model of the cluster takes of
// memory: kube-scale [SERVICES] [ENDPOINTS-EACH] [ROUNDS]. Not a test; prints a table.
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kube_cluster.h"
#include "snapshot_build.h"

#define ROUNDS_MAX 10000

enum step { STEP_PARSE, STEP_PUT, STEP_NEXT, STEP_STORE, STEP_COMPILE, STEP_SUM, N_STEPS };
static const char *const step_names[] = { "parse JSON", "put slice", "next change", "store put",
	"compile", "all" };

struct scale {
	struct kube_cluster *cluster;
	struct service_store *store;
	struct snapshot_registry *registry;
	struct snapshot *snapshot;
	uint32_t n_services;
	uint32_t n_endpoints;
	uint64_t version;
	double us[N_STEPS][ROUNDS_MAX];
};

static double now_us(void)
{
	struct timespec t;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static size_t used_bytes(void)
{
	struct mallinfo2 info = mallinfo2();
	return info.uordblks + info.hblkhd;
}

static size_t service_text(struct scale *s, uint32_t i, char *buf, size_t len)
{
	return (size_t)snprintf(buf, len,
		"{\"metadata\":{\"namespace\":\"ns-%u\",\"name\":\"service-%u\",\"uid\":"
		"\"5d1f3b4c-0000-4000-8000-%012u\",\"resourceVersion\":\"%llu\","
		"\"creationTimestamp\":\"2026-01-01T00:00:00Z\",\"labels\":{\"app\":\"web-%u\","
		"\"team\":\"a\"},\"annotations\":{\"sluice-lb.github.io/mode\":\"fullnat\"}},"
		"\"spec\":{\"type\":\"LoadBalancer\",\"clusterIP\":\"10.0.0.1\",\"ipFamilies\":["
		"\"IPv4\"],\"ports\":[{\"name\":\"http\",\"port\":80,\"nodePort\":30080}],"
		"\"selector\":{\"app\":\"web-%u\"}},\"status\":{\"loadBalancer\":{\"ingress\":[{"
		"\"ip\":\"198.%u.%u.%u\",\"ipMode\":\"VIP\"}]}}}",
		i % 100, i, i, (unsigned long long)++s->version, i, i, 18 + (i >> 16), i >> 8 & 255,
		i & 255);
}

static size_t slice_text(struct scale *s, uint32_t i, bool flip, char *buf, size_t len)
{
	size_t at = (size_t)snprintf(buf, len,
		"{\"addressType\":\"IPv4\",\"metadata\":{\"namespace\":\"ns-%u\",\"name\":"
		"\"service-%u-x7k2p\",\"uid\":\"6d1f3b4c-0000-4000-8000-%012u\","
		"\"resourceVersion\":\"%llu\",\"labels\":{\"kubernetes.io/service-name\":"
		"\"service-%u\"}},\"ports\":[{\"name\":\"http\",\"protocol\":\"TCP\",\"port\":8080}"
		"]"
		",\"endpoints\":[",
		i % 100, i, i, (unsigned long long)++s->version, i);
	for (uint32_t k = 0; k < s->n_endpoints; k++) {
		uint32_t n = i * s->n_endpoints + k;
		bool is_ready = !(flip && k == 0);
		at += (size_t)snprintf(buf + at, len - at,
			"%s{\"addresses\":[\"10.%u.%u.%u\"],\"conditions\":{\"ready\":%s,"
			"\"serving\":"
			"%s,\"terminating\":false},\"nodeName\":\"node-%u.cluster.example\","
			"\"targetRef\":{\"kind\":\"Pod\",\"namespace\":\"ns-%u\",\"name\":"
			"\"service-%u-5f7d9c6b4-%05u\",\"uid\":\"7d1f3b4c-0000-4000-8000-%012u\"},"
			"\"zone\":\"zone-a\"}",
			k ? "," : "", n >> 16 & 255, n >> 8 & 255, n & 255,
			is_ready ? "true" : "false", is_ready ? "true" : "false", n % 500, i % 100,
			i, k, n);
	}
	return at + (size_t)snprintf(buf + at, len - at, "]}");
}

static json_t *parse(const char *text, size_t len)
{
	json_t *json = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
	if (json == NULL)
		abort();
	return json;
}

static void put(struct scale *s, enum kube_cluster_resource resource, const char *text, size_t len)
{
	json_t *json = parse(text, len);
	if (kube_cluster_put(s->cluster, resource, json) != 0)
		abort();
	json_decref(json);
}

static void list(struct scale *s, char *buf, size_t len)
{
	kube_cluster_begin(s->cluster, KUBE_CLUSTER_SERVICES);
	for (uint32_t i = 0; i < s->n_services; i++)
		put(s, KUBE_CLUSTER_SERVICES, buf, service_text(s, i, buf, len));
	kube_cluster_end(s->cluster, KUBE_CLUSTER_SERVICES);
	kube_cluster_begin(s->cluster, KUBE_CLUSTER_SLICES);
	for (uint32_t i = 0; i < s->n_services; i++)
		put(s, KUBE_CLUSTER_SLICES, buf, slice_text(s, i, false, buf, len));
	kube_cluster_end(s->cluster, KUBE_CLUSTER_SLICES);
}

static uint32_t drain(struct scale *s)
{
	struct kube_change change;
	uint32_t n = 0;
	for (; kube_cluster_next(s->cluster, &change); n++)
		if (change.kind != KUBE_PUT ||
			service_store_put(s->store, change.service, NULL, NULL) != 0)
			abort();
	return n;
}

static enum health_probe_verdict probe_up(void *arg, const struct service *service,
	const struct service_listener *l, const struct address *address, uint16_t port)
{
	return HEALTH_PROBE_UP;
}

static void compile(struct scale *s)
{
	static const struct snapshot_touched touched; // no verdict has changed
	struct snapshot *next = NULL;
	struct snapshot_input input = { .store = s->store,
		.registry = s->registry,
		.health = { .probe = probe_up },
		.generation = s->snapshot ? s->snapshot->generation + 1 : 1,
		.wall_ms = 1,
		.previous = s->snapshot,
		.touched = &touched };
	if (snapshot_build(&input, &next, NULL) != 0)
		abort();
	snapshot_destroy(s->snapshot);
	s->snapshot = next;
}

static void change_one(struct scale *s, uint32_t round, char *buf, size_t len)
{
	struct kube_change change;
	uint32_t i = (uint32_t)((uint64_t)round * 7919 % s->n_services);
	size_t n = slice_text(s, i, round / s->n_services % 2 == 0, buf, len);
	double t[N_STEPS];
	t[0] = now_us();
	json_t *json = parse(buf, n);
	t[1] = now_us();
	kube_cluster_put(s->cluster, KUBE_CLUSTER_SLICES, json);
	t[2] = now_us();
	if (!kube_cluster_next(s->cluster, &change) || change.kind != KUBE_PUT)
		abort();
	t[3] = now_us();
	if (service_store_put(s->store, change.service, NULL, NULL) != 0)
		abort();
	t[4] = now_us();
	compile(s);
	t[5] = now_us();
	json_decref(json);
	for (int step = 0; step < STEP_SUM; step++)
		s->us[step][round] = t[step + 1] - t[step];
	s->us[STEP_SUM][round] = t[5] - t[0];
}

static int compare(const void *a, const void *b)
{
	const double *x = a, *y = b;
	return (*x > *y) - (*x < *y);
}

int main(int argc, char **argv)
{
	static struct scale s;
	static char buf[1 << 22];
	s.n_services = argc > 1 ? (uint32_t)atoi(argv[1]) : 10000;
	s.n_endpoints = argc > 2 ? (uint32_t)atoi(argv[2]) : 10;
	uint32_t n_rounds = argc > 3 ? (uint32_t)atoi(argv[3]) : 200;
	struct kube_cluster_config config = { .defaults = service_defaults_builtin(),
		.is_default_class = true };
	size_t before = used_bytes();
	double n = (double)s.n_services * s.n_endpoints, start = now_us();
	s.cluster = kube_cluster_create(&config);
	s.store = service_store_create();
	s.registry = snapshot_registry_create();
	kube_cluster_begin(s.cluster, KUBE_CLUSTER_NODES);
	kube_cluster_end(s.cluster, KUBE_CLUSTER_NODES);
	list(&s, buf, sizeof(buf));
	printf("%u services, %.0f endpoints\n", s.n_services, n);
	printf("first list      %8.1f ms\n", (now_us() - start) / 1e3);
	size_t model = used_bytes() - before;
	printf("model           %8.1f MB, %.0f bytes an endpoint\n", model / 1e6, model / n);
	start = now_us();
	uint32_t n_changes = drain(&s);
	printf("first drain     %8.1f ms, %u changes\n", (now_us() - start) / 1e3, n_changes);
	printf("store           %8.1f MB\n", (used_bytes() - before - model) / 1e6);
	size_t with_store = used_bytes();
	start = now_us();
	compile(&s);
	printf("first compile   %8.1f ms\n", (now_us() - start) / 1e3);
	printf("snapshot        %8.1f MB\n", (used_bytes() - with_store) / 1e6);
	uint64_t version = s.version;
	s.version = 0; // the same objects in the same versions
	start = now_us();
	list(&s, buf, sizeof(buf));
	printf("list again      %8.1f ms, %u changes\n", (now_us() - start) / 1e3, drain(&s));
	s.version = version;
	start = now_us();
	list(&s, buf, sizeof(buf));
	printf("newer versions  %8.1f ms, %u changes\n", (now_us() - start) / 1e3, drain(&s));
	if (n_rounds > ROUNDS_MAX)
		n_rounds = ROUNDS_MAX;
	for (uint32_t round = 0; round < n_rounds; round++)
		change_one(&s, round, buf, sizeof(buf));
	printf("one endpoint's change, us    median       p99\n");
	for (int step = 0; step < N_STEPS && n_rounds; step++) {
		qsort(s.us[step], n_rounds, sizeof(double), compare);
		printf("  %-20s %12.1f %9.1f\n", step_names[step], s.us[step][n_rounds / 2],
			s.us[step][(n_rounds - 1) * 99 / 100]);
	}
	snapshot_destroy(s.snapshot);
	snapshot_registry_destroy(s.registry);
	service_store_destroy(s.store);
	kube_cluster_destroy(s.cluster);
	return 0;
}
