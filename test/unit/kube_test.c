// SPDX-License-Identifier: BSD-3-Clause
// The services file: what a good one means, how slices are joined, and that everything else is refused with its place.
#include "edits_priv.h"
#include "kube.h"

#include <errno.h>

#define GOOD "test/fixtures/services_good.json"
#define SEED 0x5eed0001u

static int decode(const char *text, size_t len, struct kube_result *out, struct error *err)
{
	struct service_defaults defaults = service_defaults_builtin();
	return kube_decode_file(text, len, "services.json", &defaults, out, err);
}

// Good text only.
static struct kube_result decode_good(const char *text)
{
	struct kube_result result = { 0 };
	struct error err = { 0 };
	char line[1200];
	if (decode(text, strlen(text), &result, &err))
		fail_msg("%s", error_first(&err, line, sizeof(line)));
	assert_int_equal(err.n_items, 0);
	return result;
}

static const struct service *find(const struct kube_result *result, const char *name)
{
	for (uint32_t i = 0; i < result->n_services; i++)
		if (strcmp(result->services[i]->name, name) == 0)
			return result->services[i];
	fail_msg("no service %s", name);
	return NULL;
}

static void assert_address(const struct address *address, const char *text)
{
	char buf[ADDRESS_TEXT_LEN];
	assert_string_equal(address_format(address, buf), text);
}

// ---------------------------------------------------------------- a good file

static void test_good_web(void **state)
{
	char *text = edits_read(GOOD);
	struct kube_result result = decode_good(text);
	char buf[ADDRESS_TEXT_LEN + 4];
	assert_int_equal(result.n_services, 3);
	assert_string_equal(result.services[0]->name, "bare");
	assert_string_equal(result.services[1]->name, "web");
	assert_string_equal(result.services[2]->namespace, "infra");
	const struct service *web = find(&result, "web");
	assert_int_equal(result.lines[1], 5);
	assert_int_equal(web->owner, SERVICE_OWNER_FILE);
	assert_string_equal(web->namespace, "default");
	assert_int_equal(web->n_addresses, 2);
	assert_int_equal(web->n_listeners, 2);
	assert_string_equal(web->listeners[0].name, "http");
	assert_int_equal(web->listeners[0].port, 80);
	assert_int_equal(web->listeners[1].port, 443);
	assert_int_equal(web->listeners[1].protocol, NET_PROTO_TCP);
	assert_int_equal(web->affinity_s, 600);
	assert_int_equal(web->check.kind, SERVICE_CHECK_HTTP);
	assert_string_equal(web->check.path, "/healthz");
	assert_string_equal(web->check.port_name, "http");
	assert_int_equal(web->check.interval_ms, 2000);
	assert_int_equal(web->check.timeout_ms, 800);
	assert_int_equal(web->check.rise, 3);
	assert_int_equal(web->check.fall, 4);
	assert_int_equal(web->tcp_idle_s, 600);
	assert_int_equal(web->udp_idle_s, 30);
	assert_int_equal(web->drain_timeout_s, 120);
	assert_int_equal(web->n_source_ranges, 3);
	bool masked = false;
	for (uint32_t i = 0; i < 3; i++)
		masked |= !strcmp(prefix_format(&web->source_ranges[i], buf), "198.51.100.0/24");
	assert_true(masked);
	kube_result_fini(&result);
	free(text);
}

static void test_good_backends(void **state)
{
	static const struct {
		const char *address;
		uint32_t weight;
		const char *target;
		bool ready, terminating;
		uint16_t http, https;
	} expected[] = {
		{ "10.9.0.2", 50, "web-a", true, false, 8080, 8443 }, // weight by address
		{ "10.9.0.3", 0, "web-b", false, true, 8080, 8443 },  // by pod name
		{ "10.9.0.4", 100, "web-c", true, false, 8080, 8443 },
		{ "10.9.0.5", 7, "web-d", true, false, 8081, 0 }, // by hostname; null conditions
		{ "2001:db8:9::2", 100, "", true, false, 8080, 0 },
	};
	char *text = edits_read(GOOD);
	struct kube_result result = decode_good(text);
	const struct service *web = find(&result, "web");
	assert_int_equal(web->n_backends, ARRAY_SIZE(expected));
	for (uint32_t i = 0; i < web->n_backends; i++) {
		const struct service_backend *b = &web->backends[i];
		assert_address(&b->address, expected[i].address);
		assert_int_equal(b->weight, expected[i].weight);
		assert_string_equal(b->target, expected[i].target);
		assert_int_equal(b->conditions.ready, expected[i].ready);
		assert_true(b->conditions.serving);
		assert_int_equal(b->conditions.terminating, expected[i].terminating);
		assert_int_equal(service_backend_find_port(b, "http"), expected[i].http);
		assert_int_equal(service_backend_find_port(b, "https"), expected[i].https);
	}
	assert_string_equal(web->backends[0].uid, "11111111-1111-1111-1111-111111111111");
	kube_result_fini(&result);
	free(text);
}

static void test_good_others(void **state)
{
	char *text = edits_read(GOOD);
	struct kube_result result = decode_good(text);
	const struct service *dns = find(&result, "dns");
	assert_int_equal(dns->n_addresses, 2); // of the annotation
	assert_address(&dns->addresses[0], "203.0.113.53");
	assert_address(&dns->addresses[1], "2001:db8::53");
	assert_int_equal(dns->n_source_ranges, 2); // of the older annotation
	assert_int_equal(dns->affinity_s, 0);
	assert_int_equal(dns->n_backends, 2);
	assert_int_equal(service_backend_find_port(&dns->backends[0], "dns-udp"), 1053);
	assert_int_equal(dns->check.kind, SERVICE_CHECK_TCP);
	assert_int_equal(dns->check.interval_ms, 1000);
	const struct service *bare = find(&result, "bare");
	assert_string_equal(bare->namespace, "default");
	assert_int_equal(bare->n_backends, 0);
	assert_address(&bare->addresses[0], "203.0.113.77");
	kube_result_fini(&result);
	free(text);
}

static void test_defaults_and_array(void **state)
{
	const char *text =
		"[{\"apiVersion\":\"v1\",\"kind\":\"Service\",\"metadata\":{\"name\":\"a\"},"
		"\"spec\":{\"type\":\"LoadBalancer\",\"loadBalancerIP\":\"203.0.113.1\","
		"\"ports\":[{\"port\":80}]}}]";
	struct service_defaults defaults = service_defaults_builtin();
	struct kube_result result = { 0 };
	defaults.check.rise = 7;
	defaults.tcp_idle_s = 77;
	assert_int_equal(kube_decode_file(text, strlen(text), "f", &defaults, &result, NULL), 0);
	assert_int_equal(result.n_services, 1);
	assert_int_equal(result.services[0]->check.rise, 7);
	assert_int_equal(result.services[0]->tcp_idle_s, 77);
	kube_result_fini(&result);
	assert_int_equal(decode("[]", 2, &result, NULL), 0); // nothing wanted is a wish too
	assert_int_equal(result.n_services, 0);
	kube_result_fini(&result);
}

static void test_example(void **state)
{
	char *text = edits_read("config/services.example.json");
	struct kube_result result = decode_good(text);
	assert_int_equal(result.n_services, 2);
	assert_int_equal(find(&result, "web")->n_backends, 3);
	assert_int_equal(find(&result, "dns")->n_backends, 2);
	kube_result_fini(&result);
	free(text);
}

// ---------------------------------------------------------------- joining slices

// A service "a" with port http 80 and an IPv4 VIP, and slices s0, s1, ... given from the end of their labels on.
static struct kube_result join(const char *const *slices, uint32_t n)
{
	char text[8192];
	size_t len = (size_t)snprintf(text, sizeof(text),
		"[{\"apiVersion\":\"v1\",\"kind\":\"Service\",\"metadata\":{\"name\":\"a\"},"
		"\"spec\":"
		"{\"type\":\"LoadBalancer\",\"ports\":[{\"name\":\"http\",\"port\":80},{\"name\":"
		"\"x\","
		"\"port\":81}]},\"status\":{\"loadBalancer\":{\"ingress\":[{\"ip\":\"203.0.113.1\"}"
		"]}}}");
	for (uint32_t i = 0; i < n; i++)
		len += (size_t)snprintf(text + len, sizeof(text) - len,
			",{\"apiVersion\":\"discovery.k8s.io/v1\",\"kind\":\"EndpointSlice\","
			"\"metadata\":{\"name\":\"s%u\",\"labels\":{\"kubernetes.io/service-name\":"
			"\"a\"}%s}",
			i, slices[i]);
	assert_true(len + 2 < sizeof(text));
	snprintf(text + len, sizeof(text) - len, "]");
	return decode_good(text);
}

#define RV(number) ",\"resourceVersion\":\"" number "\""
#define SLICE(type, ports, endpoints) \
	"},\"addressType\":\"" type "\",\"ports\":[" ports "],\"endpoints\":[" endpoints "]"
#define PORT(name, number) "{\"name\":\"" name "\",\"port\":" number "}"
#define ENDPOINT(address, conditions, pod)                             \
	"{\"addresses\":[\"" address "\"],\"conditions\":{" conditions \
	"},\"targetRef\":{\"name\":\"" pod "\",\"uid\":\"" pod "\"}}"
#define HTTP(conditions, pod) \
	SLICE("IPv4", PORT("http", "8080"), ENDPOINT("10.0.0.1", conditions, pod))

// Which of two slices with the same address and port wins, in both orders of the file.
static void assert_winner(const char *winner, const char *loser)
{
	for (int swap = 0; swap < 2; swap++) {
		const char *slices[] = { swap ? loser : winner, swap ? winner : loser };
		struct kube_result result = join(slices, 2);
		assert_int_equal(result.services[0]->n_backends, 1);
		assert_string_equal(result.services[0]->backends[0].target, "win");
		kube_result_fini(&result);
	}
}

static void test_join_duplicates(void **state)
{
	assert_winner(RV("1") HTTP("\"ready\":false", "win"),
		RV("2") HTTP("\"ready\":true,\"terminating\":true", "lose"));
	assert_winner(
		RV("1") HTTP("\"ready\":true", "win"), RV("2") HTTP("\"ready\":false", "lose"));
	assert_winner(RV("10") HTTP("", "win"), RV("9") HTTP("", "lose"));
	assert_winner(RV("10") HTTP("", "win"), HTTP("", "lose")); // no version is the oldest
	// All equal: the name of the slice decides, and s0 is the first in the file.
	const char *equal[] = { HTTP("", "first"), HTTP("", "second") };
	struct kube_result result = join(equal, 2);
	assert_int_equal(result.services[0]->n_backends, 1);
	assert_string_equal(result.services[0]->backends[0].target, "first");
	kube_result_fini(&result);
}

static void test_join_ports(void **state)
{
	// One target whose ports stand in two slices is one backend; two targets behind one address are two.
	const char *slices[] = { HTTP("", "pod"),
		SLICE("IPv4", PORT("x", "9000"), ENDPOINT("10.0.0.1", "", "pod")),
		SLICE("IPv4", PORT("http", "8081"), ENDPOINT("10.0.0.1", "", "other")),
		SLICE("IPv4", PORT("unknown", "1"), ENDPOINT("10.0.0.9", "", "none")),
		SLICE("IPv4", "{\"name\":\"x\",\"port\":7,\"protocol\":\"UDP\"}",
			ENDPOINT("10.0.0.8", "", "none")),
		SLICE("IPv4", "{\"name\":\"http\",\"port\":null},{\"name\":\"x\",\"port\":0}",
			ENDPOINT("10.0.0.7", "", "none")) };
	struct kube_result result = join(slices, ARRAY_SIZE(slices));
	const struct service *s = result.services[0];
	assert_int_equal(s->n_backends, 2);
	for (uint32_t i = 0; i < 2; i++) {
		const struct service_backend *b = &s->backends[i];
		bool is_pod = strcmp(b->target, "pod") == 0;
		assert_address(&b->address, "10.0.0.1");
		assert_int_equal(service_backend_find_port(b, "http"), is_pod ? 8080 : 8081);
		assert_int_equal(service_backend_find_port(b, "x"), is_pod ? 9000 : 0);
	}
	kube_result_fini(&result);
}

// A pod of a StatefulSet that was made anew has its name, and is another.
static void test_join_uid(void **state)
{
	const char *slices[] = { HTTP("", "pod"),
		SLICE("IPv4", PORT("x", "9000"),
			"{\"addresses\":[\"10.0.0.1\"],\"targetRef\":{\"name\":\"pod\",\"uid\":"
			"\"new\"}}") };
	struct kube_result result = join(slices, 2);
	assert_int_equal(result.services[0]->n_backends, 2);
	kube_result_fini(&result);
}

static void test_join_family(void **state)
{
	// The service has an IPv4 VIP only; endpoints of the other family have nothing to serve, and are no error.
	const char *slices[] = { HTTP("", "pod"),
		SLICE("IPv6", PORT("http", "8080"), ENDPOINT("2001:db8::1", "", "v6")) };
	struct kube_result result = join(slices, 2);
	assert_int_equal(result.services[0]->n_backends, 1);
	assert_string_equal(result.services[0]->backends[0].target, "pod");
	kube_result_fini(&result);
	// Only of the other family: they stay, and the mode says whether they can serve.
	result = join(slices + 1, 1);
	assert_int_equal(result.services[0]->n_backends, 1);
	assert_string_equal(result.services[0]->backends[0].target, "v6");
	kube_result_fini(&result);
}

// Values that come in by annotations, and what they make of the service.
static void test_annotations_taken(void **state)
{
	static const char *const modes[] = { "fullnat", "dnat", "ipip", "gue", "l2dsr" };
	char text[1024];
	for (unsigned i = 0; i < ARRAY_SIZE(modes); i++) {
		snprintf(text, sizeof(text),
			"[{\"apiVersion\":\"v1\",\"kind\":\"Service\",\"metadata\":{\"name\":\"a\","
			"\"annotations\":{\"sluice-lb.github.io/mode\":\"%s\","
			"\"sluice-lb.github.io/scheduler\":\"%s\","
			"\"sluice-lb.github.io/client-address\":\"%s\","
			"\"sluice-lb.github.io/drain-timeout\":\"7s\"}},"
			"\"spec\":{\"type\":\"LoadBalancer\",\"loadBalancerIP\":\"203.0.113.1\","
			"\"ports\":[{\"name\":\"t\",\"port\":80},"
			"{\"name\":\"s\",\"port\":80,\"protocol\":\"SCTP\"}]}}]",
			modes[i], i & 1 ? "least-connections" : "maglev", i ? "none" : "toa");
		struct kube_result result = decode_good(text);
		const struct service *s = result.services[0];
		assert_int_equal(s->mode, i);
		assert_int_equal(s->scheduler, i & 1 ? SERVICE_LEAST_CONNECTIONS : SERVICE_MAGLEV);
		assert_int_equal(s->client_address, i ? SERVICE_CLIENT_NONE : SERVICE_CLIENT_TOA);
		assert_int_equal(s->drain_timeout_s, 7);
		assert_int_equal(s->listeners[1].protocol, NET_PROTO_SCTP);
		kube_result_fini(&result);
	}
}

// A slice serves the service of its namespace only.
static void test_join_namespace(void **state)
{
	const char *text =
		"[{\"apiVersion\":\"v1\",\"kind\":\"Service\",\"metadata\":{\"name\":\"a\","
		"\"namespace\":\"x\"},"
		"\"spec\":{\"type\":\"LoadBalancer\",\"loadBalancerIP\":\"203.0.113.1\",\"ports\":["
		"{\"port\":80}]}},"
		"{\"apiVersion\":\"discovery.k8s.io/"
		"v1\",\"kind\":\"EndpointSlice\",\"metadata\":{\"name\":\"a\","
		"\"namespace\":\"y\",\"labels\":{\"kubernetes.io/"
		"service-name\":\"a\"}},\"addressType\":\"IPv4\","
		"\"ports\":[{\"port\":8080}],\"endpoints\":[{\"addresses\":[\"10.0.0.1\"]}]},"
		"{\"apiVersion\":\"discovery.k8s.io/"
		"v1\",\"kind\":\"EndpointSlice\",\"metadata\":{\"name\":\"a\","
		"\"namespace\":\"x\",\"labels\":{\"kubernetes.io/"
		"service-name\":\"a\"}},\"addressType\":\"IPv4\","
		"\"ports\":[{\"port\":8080}],\"endpoints\":[{\"addresses\":[\"10.0.0.2\"]}]}]";
	struct kube_result result = decode_good(text);
	assert_int_equal(result.services[0]->n_backends, 1);
	assert_address(&result.services[0]->backends[0].address, "10.0.0.2");
	kube_result_fini(&result);
}

// ---------------------------------------------------------------- refusals

#define META0     "items[0].metadata.annotations"
#define KEY(name) META0 "[\"sluice-lb.github.io/" name "\"]"
#define ANNOTATION(name, from, to, says)                                                      \
	{                                                                                     \
		"\"sluice-lb.github.io/" name "\": \"" from "\"",                             \
			"\"sluice-lb.github.io/" name "\": \"" to "\"", KEY(name), says, NULL \
	}
#define INSTEAD_OF_EXPOSE(name, value, says)                                                     \
	{                                                                                        \
		"\"sluice-lb.github.io/expose\": \"none\"",                                      \
			"\"sluice-lb.github.io/" name "\": \"" value "\"", KEY(name), says, NULL \
	}

static const struct edit edits[] = {
	// the document
	{ "{\n", "", "", "one JSON document", NULL },
	{ "\"kind\": \"List\",", "\"kind\": \"ServiceList\",", "kind",
		"\"ServiceList\": allowed: List", NULL },
	{ "  \"kind\": \"List\",\n", "", "kind", "allowed: List", "{" },
	{ "\"apiVersion\": \"v1\",", "\"apiVersion\": \"v2\",", "apiVersion", "\"v2\": allowed: v1",
		NULL },
	{ "\"items\": [", "\"things\": [", "items", "missing: allowed: an array", "{" },
	{ "\"items\": [", "\"items\": [ 5,", "items[0]", "allowed: a Service or EndpointSlice",
		NULL },
	{ "\"items\": [", "\"items\": 7, \"x\": [", "items", "an integer: allowed: an array",
		NULL },
	{ "\"endpoints\": null,\n      \"ports\": null\n    }\n  ]\n}\n", "\"endpoints\": null}]",
		"", "one JSON document", NULL },
	{ "\"kind\": \"List\",", "\"kind\": \"List\", \"kind\": \"List\",", "",
		"each key of an object once", NULL },
	{ "\"timeoutSeconds\": 600", "\"timeoutSeconds\": 99999999999999999999", "",
		"too big integer", NULL },
	{ "\"timeoutSeconds\": 600", "\"timeoutSeconds\": 1e999999", "", "real number overflow",
		NULL },
	{ "\"timeoutSeconds\": 600", "\"timeoutSeconds\": NaN", "", "invalid token", NULL },
	{ "\"timeoutSeconds\": 600", "\"timeoutSeconds\": 600,", "", "string or",
		"}\n        },\n        \"loadB" },
	// kinds and identity
	{ "\"kind\": \"Service\",", "\"kind\": \"Deployment\",", "items[0].kind",
		"\"Deployment\": allowed: Service, EndpointSlice", NULL },
	{ "\"kind\": \"Service\",", "\"kind\": 3,", "items[0].kind",
		"an integer: allowed: a string", NULL },
	{ "      \"kind\": \"Service\",\n", "", "items[0]", "no kind; allowed: Service",
		"    {\n      \"api" },
	{ "      \"apiVersion\": \"v1\",\n      \"kind\": \"Service\"",
		"      \"apiVersion\": \"v2\",\n      \"kind\": \"Service\"", "items[0].apiVersion",
		"\"v2\": allowed: v1", "      \"apiVersion\": \"v2\"" },
	{ "\"apiVersion\": \"discovery.k8s.io/v1\"", "\"apiVersion\": \"discovery.k8s.io/v1beta1\"",
		"items[4].apiVersion", "allowed: discovery.k8s.io/v1", NULL },
	{ "\"name\": \"web\",\n", "", "items[0].metadata", "no name; allowed", "\"metadata\": {" },
	{ "\"name\": \"web\",", "\"name\": \"\",", "items[0].metadata", "no name; allowed",
		"\"metadata\": {" },
	{ "\"name\": \"web\",", "\"name\": 12,", "items[0].metadata.name",
		"an integer: allowed: a string", NULL },
	{ "\"name\": \"web\",", "\"name\": \"Web\",", "items[0].metadata.name",
		"allowed: 1..63 of a-z", NULL },
	{ "\"name\": \"web\",",
		"\"name\": "
		"\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\",",
		"items[0].metadata.name", "allowed: at most 63", NULL },
	{ "\"namespace\": \"default\",", "\"namespace\": \"\",", "items[0].metadata.namespace",
		"allowed: 1..63", NULL },
	{ "\"namespace\": \"default\",", "\"namespace\": \"a_b\",", "items[0].metadata.namespace",
		"allowed: 1..63 of a-z", NULL },
	{ "\"metadata\": {\n        \"name\": \"web\"",
		"\"metadata\": [], \"x\": {\n        \"name\": \"web\"", "items[0].metadata",
		"an array: allowed: an object", NULL },
	{ "\"name\": \"inside\",", "\"name\": \"dns\",", "items[2].metadata.name",
		"\"dns\" is the name of the object on line 80 too; allowed: each name once", NULL },
	{ "\"name\": \"web-v4-2\",", "\"name\": \"web-v4-1\",", "items[5].metadata.name",
		"allowed: each name once",
		"\"name\": \"web-v4-1\",\n        \"namespace\": \"default\",\n        "
		"\"resourceVersion\": \"101\"" },
	// annotations
	INSTEAD_OF_EXPOSE("modes", "fullnat",
		"did you mean \"sluice-lb.github.io/mode\"? allowed after the prefix: mode,"),
	INSTEAD_OF_EXPOSE("colour", "red", "unknown annotation; allowed after the prefix: mode,"),
	{ "\"example.com/owner\": \"shop\"", "\"example.com/owner\": 5",
		META0 "[\"example.com/owner\"]", "allowed: string", NULL },
	ANNOTATION("mode", "fullnat", "ipip",
		"(and 4 more) is not on port 80 of listener `http`: mode ipip does not change the "
		"packet's port; allowed: 80"),
	ANNOTATION("mode", "fullnat", "FullNat",
		"\"FullNat\": allowed: fullnat, dnat, ipip, gue, l2dsr"),
	ANNOTATION("mode", "fullnat", "", "\"\": allowed: fullnat"),
	ANNOTATION("scheduler", "maglev", "rr", "\"rr\": allowed: maglev, least-connections"),
	ANNOTATION("client-address", "none", "yes", "\"yes\": allowed: none, toa, proxy-v2"),
	ANNOTATION(
		"targets", "endpoints", "nodes", "is not supported yet; allowed today: endpoints"),
	ANNOTATION("targets", "endpoints", "pods", "\"pods\": allowed: endpoints"),
	ANNOTATION("health-check", "http:/healthz", "grpc",
		"\"grpc\" is not supported yet; allowed today: tcp, http"),
	ANNOTATION("health-check", "http:/healthz", "https:/x",
		"is not supported yet; allowed today: tcp, http"),
	ANNOTATION("health-check", "http:/healthz", "icmp",
		"is not supported yet; allowed today: tcp, http"),
	ANNOTATION("health-check", "http:/healthz", "udp",
		"is not supported yet; allowed today: tcp, http"),
	ANNOTATION("health-check", "http:/healthz", "ping",
		"\"ping\": allowed: tcp, http, http:/path, none"),
	ANNOTATION("health-check", "http:/healthz", "http:healthz",
		"allowed: tcp, http, http:/path, none"),
	ANNOTATION("health-check", "http:/healthz", "http:/a b",
		"allowed: tcp, http, http:/path, none"),
	ANNOTATION("health-check", "http:/healthz", "http:/a\\r\\nX: y",
		"\"http:/a??X: y\": allowed: tcp"),
	ANNOTATION(
		"health-check", "http:/healthz", "tcp:/x", "allowed: tcp, http, http:/path, none"),
	ANNOTATION("health-check-port", "http", "0",
		"allowed: number 1..65535, or the name of a port"),
	ANNOTATION("health-check-port", "http", "65536", "allowed: number 1..65535"),
	ANNOTATION("health-check-port", "http", "No Such", "allowed: number 1..65535"),
	ANNOTATION("health-check-port", "http", "grpc",
		"\"grpc\" is no port of this Service: allowed: number 1..65535"),
	ANNOTATION("health-check-interval", "2s", "2", "allowed: time 100ms..1h"),
	ANNOTATION("health-check-interval", "2s", "99ms", "allowed: time 100ms..1h"),
	ANNOTATION("health-check-interval", "2s", "1500us",
		"allowed: time 100ms..1h, whole milliseconds"),
	ANNOTATION("health-check-interval", "2s", "1.5s", "allowed: time 100ms..1h"),
	ANNOTATION("health-check-timeout", "800ms", "1ms", "allowed: time 10ms"),
	ANNOTATION("health-check-timeout", "800ms", "3s", "not in 10ms..interval (2000ms)"),
	ANNOTATION("health-check-rise", "3", "0", "allowed: number 1..10"),
	ANNOTATION("health-check-rise", "3", "-3", "allowed: number 1..10"),
	ANNOTATION("health-check-fall", "4", "11", "allowed: number 1..10"),
	ANNOTATION("health-check-fall", "4", "4 ", "allowed: number 1..10"),
	ANNOTATION("idle-timeout-tcp", "10m", "10", "allowed: time 1s..168h"),
	ANNOTATION("idle-timeout-tcp", "10m", "500ms", "allowed: time 1s..168h, whole seconds"),
	ANNOTATION("idle-timeout-udp", "30s", "169h", "allowed: time 1s..168h"),
	ANNOTATION("drain-timeout", "2m", "forever", "allowed: time 0..168h"),
	ANNOTATION("ip-mode", "VIP", "Proxy", "is not supported yet; allowed today: VIP"),
	ANNOTATION("ip-mode", "VIP", "vip", "\"vip\": allowed: VIP"),
	ANNOTATION("expose", "none", "service", "is not supported yet; allowed today: none"),
	INSTEAD_OF_EXPOSE("address-pool", "gold", "not supported yet; allowed: leave it out"),
	INSTEAD_OF_EXPOSE("sharing-key", "k", "not supported yet; allowed: leave it out"),
	INSTEAD_OF_EXPOSE("addresses", "203.0.113.1,203.0.113.2", "at most one of each"),
	INSTEAD_OF_EXPOSE("addresses", "203.0.113.1,", "allowed: IPv4 and IPv6 address"),
	INSTEAD_OF_EXPOSE("addresses", "203.0.113.0/24", "allowed: IPv4 and IPv6 address"),
	ANNOTATION("weights", "{\\\"10.9.0.2\\\": 50, \\\"web-b\\\": 0, \\\"web-d\\\": 7}", "[1]",
		"allowed: JSON object of endpoint address"),
	ANNOTATION("weights", "{\\\"10.9.0.2\\\": 50, \\\"web-b\\\": 0, \\\"web-d\\\": 7}",
		"{\\\"a\\\": 65536}", "weight of \"a\": allowed: integer 0..65535"),
	ANNOTATION("weights", "{\\\"10.9.0.2\\\": 50, \\\"web-b\\\": 0, \\\"web-d\\\": 7}",
		"{\\\"a\\\": \\\"5\\\"}", "weight of \"a\": allowed: integer 0..65535"),
	ANNOTATION("weights", "{\\\"10.9.0.2\\\": 50, \\\"web-b\\\": 0, \\\"web-d\\\": 7}",
		"{\\\"::1\\\": 1, \\\"0::1\\\": 2}",
		"\"0::1\" is in it twice; allowed: each address once"),
	ANNOTATION("weights", "{\\\"10.9.0.2\\\": 50, \\\"web-b\\\": 0, \\\"web-d\\\": 7}",
		"{\\\"a\\\": {}}", "allowed: JSON object"),
	// the spec
	{ "      \"spec\": {\n        \"type\": \"LoadB",
		"      \"spec\": null, \"x\": {\n        \"type\": \"LoadB", "items[0]",
		"no spec; allowed: a Service with metadata and spec", "    {\n" },
	{ "\"type\": \"LoadBalancer\",", "\"type\": \"Loadbalancer\",", "items[0].spec.type",
		"\"Loadbalancer\": allowed: LoadBalancer, ClusterIP", NULL },
	{ "\"selector\": {\"app\": \"web\"}", "\"selector\": []", "items[0].spec.selector",
		"allowed: an object", NULL },
	{ "\"ipFamilies\": [\"IPv4\", \"IPv6\"]", "\"ipFamilies\": \"IPv4\"",
		"items[0].spec.ipFamilies", "a string: allowed: an array", NULL },
	{ "\"sessionAffinity\": \"ClientIP\"", "\"sessionAffinity\": \"client\"",
		"items[0].spec.sessionAffinity", "\"client\": allowed: None, ClientIP", NULL },
	{ "\"sessionAffinity\": \"ClientIP\"", "\"sessionAffinity\": \"None\"",
		"items[0].spec.sessionAffinityConfig",
		"allowed: only with sessionAffinity ClientIP", "\"sessionAffinityConfig\"" },
	{ "\"timeoutSeconds\": 600", "\"timeoutSeconds\": 0",
		"items[0].spec.sessionAffinityConfig.clientIP.timeoutSeconds",
		"0: allowed: 1..86400", NULL },
	{ "\"timeoutSeconds\": 600", "\"timeoutSeconds\": 600.5",
		"items[0].spec.sessionAffinityConfig.clientIP.timeoutSeconds",
		"allowed: an integer", NULL },
	{ "\" 203.0.113.0/24 \"", "\"203.0.113.0\"", "items[0].spec.loadBalancerSourceRanges[0]",
		"\"203.0.113.0\": allowed: prefix as", NULL },
	{ "\"198.51.100.7/24\"", "\"198.51.100.7/33\"", "items[0].spec.loadBalancerSourceRanges[1]",
		"allowed: prefix as", NULL },
	{ "\"2001:db8:1::/48\"", "48", "items[0].spec.loadBalancerSourceRanges[2]",
		"allowed: a string, prefix", NULL },
	{ "192.0.2.0/24, 198", "192.0.2.0/24,, 198",
		"items[1].metadata.annotations[\"service.beta.kubernetes.io/"
		"load-balancer-source-ranges\"]",
		"\"\": allowed: prefix as", NULL },
	{ "\"port\": 80,", "\"port\": 0,", "items[0].spec.ports[0].port", "0: allowed: 1..65535",
		NULL },
	{ "\"port\": 80,", "\"port\": 65536,", "items[0].spec.ports[0].port",
		"65536: allowed: 1..65535", NULL },
	{ "\"port\": 80,", "\"port\": \"80\",", "items[0].spec.ports[0].port",
		"a string: allowed: an integer", NULL },
	{ "\"port\": 80,", "\"x\": 80,", "items[0].spec.ports[0]",
		"no port; allowed: port 1..65535", "{\n            \"name\": \"http\"" },
	{ "\"port\": 443,", "\"port\": 80,", "items[0].spec.ports[1].port",
		"allowed: ports of one protocol", NULL },
	{ "\"name\": \"https\",", "\"name\": \"http\",", "items[0].spec.ports[1].name",
		"allowed: each name once", NULL },
	{ "\"name\": \"https\",", "\"name\": \"HTTPS\",", "items[0].spec.ports[1].name",
		"allowed: 1..63 of a-z", NULL },
	{ "            \"name\": \"https\",\n", "", "items[0].spec.ports[1].name",
		"allowed: 1..63 of a-z", "{\n            \"port\": 443" },
	{ "\"protocol\": \"TCP\",\n            \"port\": 80",
		"\"protocol\": \"tcp4\",\n            \"port\": 80",
		"items[0].spec.ports[0].protocol", "\"tcp4\": allowed: TCP, UDP, SCTP", NULL },
	{ "\"targetPort\": \"web\"", "\"targetPort\": []", "items[0].spec.ports[0].targetPort",
		"allowed: a port number or the name", NULL },
	{ "\"nodePort\": 30080", "\"nodePort\": \"30080\"", "items[0].spec.ports[0].nodePort",
		"allowed: an integer", NULL },
	{ "[{\"port\": 9000}]", "[]", "items[3].spec.ports", "no port; allowed: 1..256", NULL },
	{ "[{\"port\": 9000}]", "[9000]", "items[3].spec.ports[0]", "allowed: an object", NULL },
	// addresses
	{ "\"ip\": \"203.0.113.10\"", "\"ip\": \"203.0.113.010\"",
		"items[0].status.loadBalancer.ingress[1].ip", "allowed: IPv4 or IPv6 address",
		NULL },
	{ "\"ip\": \"203.0.113.10\"", "\"ip\": \"127.0.0.1\"",
		"items[0].status.loadBalancer.ingress[1].ip", "allowed: a routable unicast address",
		NULL },
	{ "\"ip\": \"2001:db8::10\"", "\"ip\": \"203.0.113.10\"",
		"items[0].status.loadBalancer.ingress[2].ip",
		"203.0.113.10 is there twice; allowed: each address once",
		"\"ip\": \"203.0.113.10\"\n            }\n          ]" },
	{ "\"ip\": \"2001:db8::10\"", "\"ip\": \"ff02::1\"",
		"items[0].status.loadBalancer.ingress[2].ip", "allowed: a routable unicast address",
		NULL },
	{ "\"ipMode\": \"VIP\"", "\"ipMode\": \"vip\"",
		"items[0].status.loadBalancer.ingress[1].ipMode", "\"vip\": allowed: VIP, Proxy",
		NULL },
	{ "{\"hostname\": \"web.example.com\"}", "\"web\"",
		"items[0].status.loadBalancer.ingress[0]", "allowed: an object with ip", NULL },
	{ "\"loadBalancerIP\": \"203.0.113.53\"", "\"loadBalancerIP\": \"203.0.113.54\"",
		"items[1].spec.loadBalancerIP",
		"differs from the annotation sluice-lb.github.io/addresses; allowed: one of",
		NULL },
	{ "\"loadBalancerIP\": \"203.0.113.77\"", "\"loadBalancerIP\": \"web\"",
		"items[3].spec.loadBalancerIP", "\"web\": allowed: IPv4 or IPv6", NULL },
	{ "\"loadBalancerIP\": \"203.0.113.77\"", "\"loadBalancerIP\": \"0.0.0.0\"",
		"items[3].spec.loadBalancerIP", "allowed: a routable unicast", NULL },
	{ "\"loadBalancerIP\": \"203.0.113.77\",\n", "", "items[3]",
		"no address: allowed: status.loadBalancer",
		"{\n      \"apiVersion\": \"v1\",\n      \"kind\": \"Service\",\n      "
		"\"metadata\": {\n        \"name\": \"bare\"" },
	// slices
	{ "\"addressType\": \"IPv4\"", "\"addressType\": \"ipv4\"", "items[4].addressType",
		"\"ipv4\": allowed: IPv4, IPv6", NULL },
	{ "\"addressType\": \"IPv4\",\n", "", "items[4]", "no addressType; allowed: IPv4, IPv6",
		"{\n      \"apiVersion\": \"discovery.k8s.io/v1\"" },
	{ "\"addressType\": \"IPv4\"", "\"addressType\": \"IPv6\"",
		"items[4].endpoints[0].addresses[0]",
		"\"10.9.0.2\": allowed: IPv6 address, as addressType says",
		"\"10.9.0.2\",\n            \"10.9.0.200\"" },
	{ "\"10.9.0.2\",\n", "\"10.9.0\",\n", "items[4].endpoints[0].addresses[0]",
		"allowed: IPv4 address", NULL },
	{ "\"10.9.0.2\",\n", "7,\n", "items[4].endpoints[0].addresses[0]",
		"allowed: a string, IPv4 address", NULL },
	{ "\"10.9.0.2\",\n", "\"169.254.1.1\",\n", "items[4].endpoints[0].addresses[0]",
		"allowed: unicast address", NULL },
	{ "\"10.9.0.2\",\n", "\"203.0.113.10\",\n", "items[0]",
		"is an address of the service itself", "    {\n" },
	{ "[\"10.9.0.4\"]", "[]", "items[4].endpoints[2].addresses",
		"no address; allowed: an array", NULL },
	{ "[\"10.9.0.4\"]", "\"10.9.0.4\"", "items[4].endpoints[2].addresses",
		"a string: allowed: an array", NULL },
	{ "\"ready\": true,\n", "\"ready\": \"true\",\n", "items[4].endpoints[0].conditions.ready",
		"a string: allowed: true or false", NULL },
	{ "\"terminating\": false", "\"terminating\": 0",
		"items[4].endpoints[0].conditions.terminating",
		"an integer: allowed: true or false", NULL },
	{ "\"uid\": \"11111111-1111-1111-1111-111111111111\"",
		"\"uid\": "
		"\"11111111-1111-1111-1111-11111111111111111111-1111-1111-1111-111111111111\"",
		"items[4].endpoints[0].targetRef.uid", "allowed: at most 63", NULL },
	{ "\"targetRef\": {\n", "\"targetRef\": 1, \"x\": {\n", "items[4].endpoints[0].targetRef",
		"allowed: an object", NULL },
	{ "\"hostname\": \"web-d\"", "\"hostname\": false", "items[5].endpoints[0].hostname",
		"false: allowed: a string", NULL },
	{ "\"port\": 8443", "\"port\": 84430", "items[4].ports[1].port", "84430: allowed: 0..65535",
		NULL },
	{ "\"port\": 8443", "\"port\": -1", "items[4].ports[1].port", "-1: allowed: 0..65535",
		NULL },
	{ "{\"kubernetes.io/service-name\": \"web\"}", "{\"kubernetes.io/service-name\": 9}",
		"items[5].metadata.labels[\"kubernetes.io/service-name\"]", "allowed: a string",
		NULL },
	{ "\"endpoints\": null", "\"endpoints\": {}", "items[9].endpoints",
		"an object: allowed: an array", NULL },
	{ "\"endpoints\": null", "\"endpoints\": [5]", "items[9].endpoints[0]",
		"allowed: an object", NULL },
};

// Outputs of a refused decode are what they were.
static void assert_refused(const char *text, size_t len, struct error *err)
{
	struct kube_result result = { (struct service **)(uintptr_t)0x5a, 90, NULL };
	if (decode(text, len, &result, err) == 0)
		fail_msg("taken: %.*s", (int)len, text);
	assert_ptr_equal(result.services, (void *)(uintptr_t)0x5a);
	assert_int_equal(result.n_services, 90);
	assert_true(err->n_items > 0);
}

static void test_edits(void **state)
{
	char *good = edits_read(GOOD);
	uint32_t n_wrong = 0;
	for (size_t i = 0; i < ARRAY_SIZE(edits); i++) {
		struct error err = { 0 };
		uint32_t line = 0;
		char *text = edits_apply(good, &edits[i], &line);
		assert_refused(text, strlen(text), &err);
		n_wrong += !edits_check(&edits[i], line, &err);
		error_fini(&err);
		free(text);
	}
	assert_int_equal(n_wrong, 0);
	printf("%zu invalidating edits\n", ARRAY_SIZE(edits));
	free(good);
}

// Findings do not hide each other: one run lists what is wrong in different objects.
static void test_all_at_once(void **state)
{
	static const struct edit together[] = {
		ANNOTATION("scheduler", "maglev", "rr", "\"rr\""),
		ANNOTATION("health-check-rise", "3", "0", "\"0\""),
		{ "\"port\": 443,", "\"port\": 0,", "items[0].spec.ports[1].port", "0:", NULL },
		{ "\"dns-udp\",\n", "\"DNS\",\n", "items[1].spec.ports[0].name", "allowed", NULL },
		{ "\"loadBalancerIP\": \"203.0.113.77\"", "\"loadBalancerIP\": \"no\"",
			"items[3].spec.loadBalancerIP", "\"no\"", NULL },
		{ "[\"10.9.0.4\"]", "[\"x\"]", "items[4].endpoints[2].addresses[0]", "\"x\"",
			NULL },
		{ "\"port\": 9100", "\"port\": 91000", "items[5].ports[1].port", "91000", NULL },
	};
	struct error err = { 0 };
	char *text = edits_read(GOOD);
	uint32_t lines[ARRAY_SIZE(together)];
	for (size_t i = 0; i < ARRAY_SIZE(together); i++) {
		char *next = edits_apply(text, &together[i], &lines[i]);
		free(text);
		text = next;
	}
	assert_refused(text, strlen(text), &err);
	assert_int_equal(err.n_items, ARRAY_SIZE(together));
	for (size_t i = 0; i < ARRAY_SIZE(together); i++)
		assert_true(edits_check(&together[i], lines[i], &err));
	error_fini(&err);
	free(text);
}

// ---------------------------------------------------------------- limits

static void test_depth(void **state)
{
	for (int depth = KUBE_DEPTH_MAX - 1; depth <= KUBE_DEPTH_MAX; depth++) {
		char text[4 * KUBE_DEPTH_MAX] = "\n\n[\n";
		struct kube_result result = { 0 };
		struct error err = { 0 };
		size_t len = strlen(text);
		for (int i = 0; i < depth; i++)
			text[len++] = '[';
		for (int i = 0; i < depth; i++)
			text[len++] = ']';
		text[len++] = ']';
		assert_int_equal(decode(text, len, &result, &err), -EINVAL); // an item is no array
		bool too_deep = strstr(err.items[0].text, "nested deeper than 64; allowed") != NULL;
		assert_int_equal(too_deep, depth == KUBE_DEPTH_MAX);
		assert_int_equal(err.items[0].line, 4);
		error_fini(&err);
	}
	size_t len = 1000000;
	char *deep = malloc(len);
	struct error err = { 0 };
	assert_non_null(deep);
	memset(deep, '[', len);
	assert_refused(deep, len, &err);
	error_fini(&err);
	free(deep);
}

static void test_second_document(void **state)
{
	static const char text[] = "[]\n\n[]\n";
	struct error err = { 0 };
	assert_refused(text, strlen(text), &err);
	assert_int_equal(err.items[0].line, 3);
	assert_non_null(strstr(err.items[0].text, "allowed: one JSON document"));
	assert_string_equal(err.items[0].file, "services.json");
	error_fini(&err);
	assert_refused("", 0, &err);
	error_fini(&err);
}

static void test_sizes(void **state)
{
	size_t len = KUBE_FILE_MAX_BYTES + 1;
	char *text = calloc(1, len);
	struct error err = { 0 };
	assert_non_null(text);
	assert_refused(text, len, &err);
	assert_non_null(strstr(err.items[0].text, "allowed: at most 67108864"));
	error_fini(&err);
	// An object over its limit is refused before a tree is built of it.
	len = KUBE_ITEM_MAX_BYTES + 64;
	memset(text, ' ', len);
	memcpy(text, "[\n\n{\"a\":", 8);
	memcpy(text + len - 3, "1}]", 3);
	assert_refused(text, len, &err);
	assert_int_equal(err.items[0].line, 3);
	assert_non_null(strstr(err.items[0].text, "bytes; allowed: at most 2097152"));
	error_fini(&err);
	free(text);
}

// More findings than are kept: counted, and the time it takes stays small.
static void test_many_findings(void **state)
{
	size_t cap = 4u << 20, len = 0;
	char *text = malloc(cap);
	struct error err = { 0 };
	assert_non_null(text);
	text[len++] = '[';
	for (int i = 0; i < 100000; i++)
		len += (size_t)snprintf(
			text + len, cap - len, "%s{\"kind\":\"Pod%d\"}\n", i ? "," : "", i);
	text[len++] = ']';
	assert_refused(text, len, &err);
	assert_int_equal(err.n_items, ERROR_ITEMS_MAX);
	assert_int_equal(err.n_items + err.n_lost, 100000);
	assert_int_equal(err.items[255].line, 256);
	error_fini(&err);
	free(text);
}

static void test_mutations(void **state)
{
	static const char *const tokens[] = { "{", "}", "[", "]", ",", ":", "\"", "null", "true",
		"-1", "0", "65536", "1e999", "99999999999999999999", "\"\"", "\\u0000", "\\",
		"\xff", "\n", "[[[[[[", "\"sluice-lb.github.io/weights\": \"{}\",",
		"\"name\": \"web\",", "\"port\": 80,", "\"ip\": \"203.0.113.10\",",
		"\"kind\": \"Service\"", "{\"addresses\": [\"10.9.0.2\"]},", NULL };
	char *good = edits_read(GOOD);
	uint64_t random = SEED;
	uint32_t n_taken = 0;
	printf("seed 0x%x\n", SEED);
	for (int i = 0; i < EDITS_MUTATIONS; i++) {
		struct kube_result result = { (struct service **)(uintptr_t)0x5a, 90, NULL };
		struct error err = { 0 };
		size_t len = 0;
		char *text = edits_mutate(good, &random, tokens, &len);
		if (decode(text, len, &result, &err) == 0) {
			n_taken++;
			assert_int_equal(err.n_items, 0);
			kube_result_fini(&result);
		} else {
			assert_true(err.n_items > 0);
			assert_int_equal(result.n_services, 90);
			assert_ptr_equal(result.services, (void *)(uintptr_t)0x5a);
		}
		error_fini(&err);
		free(text);
	}
	printf("%d mutations, %u taken\n", EDITS_MUTATIONS, n_taken);
	assert_true(n_taken > 100 && n_taken < EDITS_MUTATIONS / 2); // both ways are walked
	free(good);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_good_web),
		cmocka_unit_test(test_good_backends),
		cmocka_unit_test(test_good_others),
		cmocka_unit_test(test_defaults_and_array),
		cmocka_unit_test(test_example),
		cmocka_unit_test(test_join_duplicates),
		cmocka_unit_test(test_join_ports),
		cmocka_unit_test(test_join_uid),
		cmocka_unit_test(test_join_family),
		cmocka_unit_test(test_annotations_taken),
		cmocka_unit_test(test_join_namespace),
		cmocka_unit_test(test_edits),
		cmocka_unit_test(test_all_at_once),
		cmocka_unit_test(test_depth),
		cmocka_unit_test(test_second_document),
		cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_many_findings),
		cmocka_unit_test(test_mutations),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
