// SPDX-License-Identifier: BSD-3-Clause
// The first state of a cluster is gathered a slice a turn and put in force in one publication; what changes meanwhile is in it as
// it is at the end.
#include "control_fake_priv.h"
#include "core_priv.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#define N_SERVICES 3000

static struct source_cluster source;
static uint32_t version;

static bool allow(void *arg, const char *namespace, const char *name, const struct address *vip)
{
	return true;
}

static json_t *parse(const char *text)
{
	json_t *json = json_loads(text, 0, NULL);
	assert_non_null(json);
	return json;
}

static void put(enum kube_cluster_resource resource, const char *text)
{
	json_t *json = parse(text);
	assert_int_equal(kube_cluster_put(source.model, resource, json), 0);
	json_decref(json);
}

// more: members of its metadata.
static void put_service_with(uint32_t i, uint32_t port, const char *more)
{
	char text[1024];
	snprintf(text, sizeof(text),
		"{\"metadata\":{\"namespace\":\"default\",\"name\":\"s%04u\",\"uid\":\"u%u\",%s"
		"\"resourceVersion\":\"%u\",\"creationTimestamp\":\"2026-01-01T00:00:00Z\"},"
		"\"spec\":{\"type\":\"LoadBalancer\",\"clusterIP\":\"10.0.0.1\",\"ipFamilies\":["
		"\"IPv4\"],\"ports\":[{\"name\":\"http\",\"port\":%u}]},\"status\":{"
		"\"loadBalancer\":{\"ingress\":[{\"ip\":\"198.18.%u.%u\"}]}}}",
		i, i, more, ++version, port, i >> 8, i & 255);
	put(KUBE_CLUSTER_SERVICES, text);
}

static void put_service(uint32_t i, uint32_t port)
{
	put_service_with(i, port, "");
}

static int setup(void **state)
{
	struct control_config config = { .defaults = service_defaults_builtin() };
	struct log quiet = { .fd = 1, .level = LOG_LEVEL_ERROR };
	struct kube_cluster_config model = {
		.defaults = service_defaults_builtin(), .is_default_class = true, .allowed = allow
	};
	fake_reset();
	source = (struct source_cluster){ 0 };
	assert_int_equal(control_create(&config, &quiet, &source.control, NULL), 0);
	assert_int_equal(control_attach(source.control, (struct device *)&fake,
				 (struct dataplane *)&fake, NULL),
		0);
	source.ipam = ipam_create(NULL, NULL);
	assert_non_null(source.ipam);
	source.model = kube_cluster_create(&model);
	assert_non_null(source.model);
	for (int i = 0; i < KUBE_CLUSTER_RESOURCES; i++)
		kube_cluster_begin(source.model, (enum kube_cluster_resource)i);
	for (uint32_t i = 0; i < N_SERVICES; i++)
		put_service(i, 80);
	for (int i = 0; i < KUBE_CLUSTER_RESOURCES; i++)
		kube_cluster_end(source.model, (enum kube_cluster_resource)i);
	return 0;
}

static int teardown(void **state)
{
	cluster_first_fini(&source);
	kube_cluster_destroy(source.model);
	ipam_destroy(source.ipam);
	cluster_records_fini(&source.records);
	control_destroy(source.control);
	fake_reset();
	return 0;
}

static const struct service *in_force(uint32_t i)
{
	char name[16];
	snprintf(name, sizeof(name), "s%04u", i);
	return service_store_find(control_store(source.control), "default", name);
}

// In the store already when the first state is gathered.
static void put_before(const char *name, enum service_owner owner, const char *vip)
{
	struct service *s = service_create(NULL);
	snprintf(s->namespace, sizeof(s->namespace), "default");
	snprintf(s->name, sizeof(s->name), "%s", name);
	s->owner = owner;
	assert_int_equal(address_parse(vip, service_add_address(s)), 0);
	struct service_listener *l = service_add_listener(s);
	snprintf(l->name, sizeof(l->name), "http");
	l->protocol = NET_PROTO_TCP;
	l->port = l->port_max = 80;
	assert_int_equal(control_put_service(source.control, s, NULL, NULL), 0);
	service_destroy(s);
}

// One of an earlier process, which the API does not know; its VIP is s0007's now.
static void put_stale(void)
{
	put_before("stale", SERVICE_OWNER_KUBERNETES, "198.18.0.7");
}

static void test_slices(void **state)
{
	uint32_t n_slices = 0, n_published = 0;
	int rc;
	put_stale();
	while ((rc = cluster_apply_first(&source)) == -EAGAIN) {
		if (n_slices++ == 0) {
			// Gathered by now, or not: both must come out the same.
			kube_cluster_remove(
				source.model, KUBE_CLUSTER_SERVICES, "default", "s0000");
			kube_cluster_remove(
				source.model, KUBE_CLUSTER_SERVICES, "default", "s2999");
			put_service(1, 81);
			put_service(2998, 81);
			put_service(N_SERVICES, 81);
			n_published = fake.n_published;
		}
		assert_null(in_force(5)); // nothing before everything
		assert_int_equal(fake.n_published, n_published);
	}
	assert_int_equal(rc, 0);
	assert_true(n_slices > 1);
	assert_null(source.first);
	assert_int_equal(service_store_count(control_store(source.control)), N_SERVICES - 1);
	assert_null(service_store_find(control_store(source.control), "default", "stale"));
	assert_null(in_force(0));
	assert_null(in_force(2999));
	assert_int_equal(in_force(1)->listeners[0].port, 81);
	assert_int_equal(in_force(2998)->listeners[0].port, 81);
	assert_int_equal(in_force(N_SERVICES)->listeners[0].port, 81);
	assert_int_equal(in_force(2)->listeners[0].port, 80);
}

static bool is_gathered(uint32_t i)
{
	char name[16];
	snprintf(name, sizeof(name), "s%04u", i);
	const struct cluster_record *record =
		cluster_record_find(&source.records, "default", name, false);
	return record && record->first_idx;
}

// What is news of a Service, but not of what is served of it, takes nothing away of what was gathered; nor does a form that is
// refused.
static void test_gathered_stays(void **state)
{
	uint32_t n_slices = 0, n_gathered = 0;
	int rc;
	while ((rc = cluster_apply_first(&source)) == -EAGAIN) {
		if (n_slices++ > 0)
			continue;
		for (uint32_t i = 0; i < N_SERVICES; i += 20) {
			put_service_with(i, 80, "\"finalizers\":[\"sluice-lb.github.io/vip\"],");
			if (is_gathered(i + 1))
				put_service_with(i + 1, 80,
					"\"annotations\":{\"sluice-lb.github.io/mode\":"
					"\"sideways\"},");
			n_gathered += is_gathered(i);
		}
	}
	assert_int_equal(rc, 0);
	assert_true(n_slices > 1 && n_gathered > 0);
	assert_int_equal(service_store_count(control_store(source.control)), N_SERVICES);
	for (uint32_t i = 0; i < N_SERVICES; i++)
		assert_non_null(in_force(i));
}

// A Service of another owner stands in the way of one: it alone is refused.
static void test_one_in_the_way(void **state)
{
	int rc;
	put_stale();
	put_before("s0003", SERVICE_OWNER_FILE, "198.18.100.1");
	while ((rc = cluster_apply_first(&source)) == -EAGAIN) {}
	assert_int_equal(rc, 0);
	assert_int_equal(service_store_count(control_store(source.control)), N_SERVICES);
	assert_true(in_force(3)->owner == SERVICE_OWNER_FILE);
	assert_true(in_force(7)->owner == SERVICE_OWNER_KUBERNETES);
	assert_null(service_store_find(control_store(source.control), "default", "stale"));
}

static void put_to_nodes(void)
{
	char text[1024];
	snprintf(text, sizeof(text),
		"{\"metadata\":{\"namespace\":\"default\",\"name\":\"s0009\",\"uid\":\"u9\","
		"\"resourceVersion\":\"%u\",\"creationTimestamp\":\"2026-01-01T00:00:00Z\","
		"\"annotations\":{\"sluice-lb.github.io/targets\":\"nodes\"}},"
		"\"spec\":{\"type\":\"LoadBalancer\",\"clusterIP\":\"10.0.0.1\",\"ipFamilies\":["
		"\"IPv4\"],\"ports\":[{\"name\":\"http\",\"port\":80,\"nodePort\":30080}]},"
		"\"status\":{\"loadBalancer\":{\"ingress\":[{\"ip\":\"198.18.0.9\"}]}}}",
		++version);
	put(KUBE_CLUSTER_SERVICES, text);
}

// Nodes that may not be read, and so count as none, take no backend away, neither at the start nor later.
static void test_nodes_unread(void **state)
{
	struct kube_change change;
	int rc;
	put_to_nodes();
	while ((rc = cluster_apply_first(&source)) == -EAGAIN) {}
	assert_int_equal(rc, 0);
	assert_int_equal(in_force(9)->n_backends, 0);
	struct service *s = service_clone(in_force(9)); // as a process before this one had it
	struct service_backend *b = service_add_backend(s);
	assert_int_equal(address_parse("192.0.2.77", &b->address), 0);
	b->weight = SERVICE_WEIGHT_DEFAULT;
	struct service_backend_port *p = service_backend_add_port(b);
	snprintf(p->listener, sizeof(p->listener), "http");
	p->port = 30080;
	assert_int_equal(control_put_service(source.control, s, NULL, NULL), 0);
	service_destroy(s);
	for (int is_first = 1; is_first >= 0; is_first--) {
		source.feeds[KUBE_CLUSTER_NODES].is_waived = true;
		kube_cluster_again(source.model, "default", "s0009");
		if (is_first) {
			while (cluster_apply_first(&source) == -EAGAIN) {}
		} else {
			put_to_nodes();
			kube_cluster_again(source.model, "default", "s0009");
			assert_true(kube_cluster_next(source.model, &change));
			assert_true(change.to_nodes);
			cluster_apply(&source, &change);
		}
		assert_non_null(in_force(9));
		assert_int_equal(in_force(9)->n_backends, 1);
	}
	source.feeds[KUBE_CLUSTER_NODES].is_waived = false; // they are read, and there are none
	kube_cluster_again(source.model, "default", "s0009");
	assert_true(kube_cluster_next(source.model, &change));
	cluster_apply(&source, &change);
	assert_int_equal(in_force(9)->n_backends, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_slices, setup, teardown),
		cmocka_unit_test_setup_teardown(test_gathered_stays, setup, teardown),
		cmocka_unit_test_setup_teardown(test_one_in_the_way, setup, teardown),
		cmocka_unit_test_setup_teardown(test_nodes_unread, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
