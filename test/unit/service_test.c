// SPDX-License-Identifier: BSD-3-Clause
// Services: values, every refusal with its place and what is allowed, the store against a naive twin.
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "service.h"

// ---------------------------------------------------------------- random, fixed seed
static uint64_t random_state;

static uint32_t random_below(uint32_t n)
{
	random_state += 0x9e3779b97f4a7c15ull; // splitmix64
	uint64_t z = random_state;
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return (uint32_t)(((z ^ (z >> 31)) >> 32) * (uint64_t)n >> 32);
}

static void random_seed(uint64_t seed)
{
	print_message("seed %llu\n", (unsigned long long)seed);
	random_state = seed;
}

// ---------------------------------------------------------------- makers
static struct address addr(const char *text)
{
	struct address a;
	assert_int_equal(address_parse(text, &a), 0);
	return a;
}

static void add_listener(struct service *s, const char *name, uint8_t protocol, uint16_t port)
{
	struct service_listener *l = service_add_listener(s);
	assert_non_null(l);
	snprintf(l->name, sizeof(l->name), "%s", name);
	l->protocol = protocol;
	l->port = port;
	l->port_max = port;
}

static struct service_backend *add_backend(
	struct service *s, const char *address, const char *listener, uint16_t port)
{
	struct service_backend *b = service_add_backend(s);
	assert_non_null(b);
	b->address = addr(address);
	b->weight = SERVICE_WEIGHT_DEFAULT;
	b->conditions = (struct service_conditions){ .ready = true, .serving = true };
	struct service_backend_port *p = service_backend_add_port(b);
	assert_non_null(p);
	snprintf(p->listener, sizeof(p->listener), "%s", listener);
	p->port = port;
	return b;
}

static struct service *make_named(const char *name, const char *address)
{
	struct service *s = service_create(NULL);
	assert_non_null(s);
	strcpy(s->namespace, "default");
	snprintf(s->name, sizeof(s->name), "%s", name);
	s->owner = SERVICE_OWNER_API;
	*service_add_address(s) = addr(address);
	return s;
}

static struct service *make_web(void)
{
	struct service *s = make_named("web", "203.0.113.10");
	add_listener(s, "http", NET_PROTO_TCP, 80);
	add_listener(s, "dns", NET_PROTO_UDP, 53);
	add_backend(s, "10.9.0.3", "http", 8080);
	add_backend(s, "10.9.0.2", "http", 8080);
	return s;
}

// ---------------------------------------------------------------- words
static void test_words(void **state)
{
	enum service_mode mode;
	enum service_check_kind kind;
	enum service_scheduler scheduler;
	enum service_client_address client;
	uint8_t protocol;
	for (unsigned i = SERVICE_MODE_FULLNAT; i <= SERVICE_MODE_L2DSR; i++) {
		assert_int_equal(service_mode_parse(service_mode_name(i), &mode), 0);
		assert_int_equal(mode, i);
	}
	for (unsigned i = SERVICE_CHECK_TCP; i <= SERVICE_CHECK_NONE; i++) {
		assert_int_equal(service_check_parse(service_check_name(i), &kind), 0);
		assert_int_equal(kind, i);
	}
	assert_int_equal(service_scheduler_parse("least-connections", &scheduler), 0);
	assert_int_equal(scheduler, SERVICE_LEAST_CONNECTIONS);
	assert_int_equal(service_client_address_parse("proxy-v2", &client), 0);
	assert_int_equal(client, SERVICE_CLIENT_PROXY_V2);
	assert_int_equal(service_protocol_parse("UDP", &protocol), 0);
	assert_int_equal(protocol, NET_PROTO_UDP);
	assert_int_equal(service_protocol_parse("udp", &protocol), -EINVAL);
	assert_int_equal(service_mode_parse("nat", &mode), -EINVAL);
	assert_int_equal(service_check_parse("", &kind), -EINVAL);
	assert_string_equal(service_mode_name(77), "unknown");
	assert_string_equal(service_protocol_name(NET_PROTO_SCTP), "SCTP");
	assert_string_equal(service_protocol_name(1), "unknown");
	assert_string_equal(service_owner_name(SERVICE_OWNER_FILE), "file");
}

// ---------------------------------------------------------------- values
static void test_clone_and_equal(void **state)
{
	struct service *s = make_web();
	service_normalise(s);
	struct service *copy = service_clone(s);
	assert_non_null(copy);
	assert_true(service_equal(s, copy));
	copy->generation = 99;
	assert_true(service_equal(s, copy));
	copy->backends[0].ports[0].port = 8081;
	assert_false(service_equal(s, copy));
	assert_int_equal(s->backends[0].ports[0].port, 8080);
	copy->backends[0].ports[0].port = 8080;
	copy->backends[1].conditions.terminating = true;
	assert_false(service_equal(s, copy));
	copy->backends[1].conditions.terminating = false;
	strcpy(copy->backends[1].uid, "other");
	assert_false(service_equal(s, copy));
	copy->backends[1].uid[0] = 0;
	copy->check.rise = 3;
	assert_false(service_equal(s, copy));
	copy->check.rise = 2;
	assert_true(service_equal(s, copy));
	// A clone has room as its maker expects it: more elements fit.
	for (int i = 0; i < 100; i++) {
		assert_non_null(service_add_address(copy));
		assert_non_null(service_add_listener(copy));
		assert_non_null(service_add_source_range(copy));
		struct service_backend *b = service_add_backend(copy);
		assert_non_null(b);
		assert_non_null(service_backend_add_port(b));
		assert_non_null(service_backend_add_port(&copy->backends[0]));
	}
	assert_int_equal(copy->n_backends, 102);
	assert_int_equal(copy->backends[0].n_ports, 101);
	service_destroy(copy);
	service_destroy(s);
	service_destroy(NULL);
}

// Any order of input normalises to one value.
static void test_normalise(void **state)
{
	random_seed(1);
	struct service *reference = NULL;
	for (int round = 0; round < 50; round++) {
		struct service *s = make_named("web", "203.0.113.10");
		add_listener(s, "a", NET_PROTO_TCP, 80);
		s->listeners[0].port_max = 0; // the same as 80
		add_listener(s, "b", NET_PROTO_TCP, 81);
		s->check.kind = SERVICE_CHECK_HTTP; // path "" is "/"
		for (uint32_t i = 0; i < 3; i++) {
			char text[ADDRESS_TEXT_LEN];
			snprintf(text, sizeof(text), "2001:db8::%x", i);
			*service_add_address(s) = addr(text);
			assert_int_equal(prefix_parse(i ? "10.0.0.0/8" : "192.0.2.0/24",
						 service_add_source_range(s)),
				0);
		}
		for (uint32_t i = 0; i < 20; i++) {
			char text[ADDRESS_TEXT_LEN];
			snprintf(text, sizeof(text), "10.9.0.%u", i / 2 + 1);
			add_backend(s, text, "a", (uint16_t)(8080 + i));
			add_backend(s, text, "b", (uint16_t)(9080 + i));
		}
		for (uint32_t i = s->n_backends; i > 1; i--) {
			uint32_t j = random_below(i);
			struct service_backend held = s->backends[i - 1];
			s->backends[i - 1] = s->backends[j];
			s->backends[j] = held;
		}
		uint32_t rotate = random_below(4);
		for (uint32_t i = 0; i < rotate; i++) {
			struct address held = s->addresses[0];
			memmove(s->addresses, s->addresses + 1, 3 * sizeof(held));
			s->addresses[3] = held;
		}
		service_normalise(s);
		assert_int_equal(s->n_source_ranges, 2); // said twice
		assert_string_equal(s->check.path, "/");
		if (reference == NULL) {
			reference = s;
			continue;
		}
		assert_true(service_equal(reference, s));
		service_destroy(s);
	}
	service_destroy(reference);
}

static void test_find(void **state)
{
	struct service *s = make_web();
	assert_int_equal(service_backend_find_port(&s->backends[0], "http"), 8080);
	assert_int_equal(service_backend_find_port(&s->backends[0], "dns"), 0);
	assert_ptr_equal(service_find_listener(s, "dns"), &s->listeners[1]);
	assert_null(service_find_listener(s, "no"));
	service_destroy(s);
}

// ---------------------------------------------------------------- refusals
struct refusal {
	void (*break_it)(struct service *s);
	const char *path;
	const char *text; // part of the message
};

#define BREAK(name, ...)                            \
	static void break_##name(struct service *s) \
	{                                           \
		__VA_ARGS__;                        \
	}

BREAK(namespace_empty, s->namespace[0] = 0)
BREAK(namespace_case, strcpy(s->namespace, "Default"))
BREAK(name_dash, strcpy(s->name, "-web"))
BREAK(name_slash, strcpy(s->name, "a/b"))
BREAK(no_addresses, s->n_addresses = 0)
BREAK(address_twice, *service_add_address(s) = addr("203.0.113.10"))
BREAK(address_loopback, *service_add_address(s) = addr("127.0.0.1"))
BREAK(address_multicast6, *service_add_address(s) = addr("ff02::1"))
BREAK(address_zero, *service_add_address(s) = addr("0.0.0.0"))
BREAK(address_reserved, *service_add_address(s) = addr("255.255.255.255"))
BREAK(many_addresses, for (int i = 0; i < 16; i++) * service_add_address(s) = addr("198.51.100.1"))
BREAK(no_listeners, s->n_listeners = 0)
BREAK(many_listeners,
	for (int i = 0; i < 256; i++) add_listener(s, "x", NET_PROTO_TCP, (uint16_t)(1000 + i)))
BREAK(listener_name_empty, s->listeners[1].name[0] = 0)
BREAK(listener_name_bad, strcpy(s->listeners[1].name, "d_ns"))
BREAK(listener_name_twice, add_listener(s, "http", NET_PROTO_TCP, 81))
BREAK(listener_protocol, s->listeners[0].protocol = 1)
BREAK(listener_port_zero, s->listeners[0].port = 0; s->listeners[0].port_max = 0)
BREAK(listener_max_below, s->listeners[0].port_max = 79)
BREAK(listener_range, s->listeners[0].port_max = 90)
BREAK(listener_port_twice, add_listener(s, "web", NET_PROTO_TCP, 80))
BREAK(mode_ipip, s->mode = SERVICE_MODE_IPIP)
BREAK(mode_l2dsr, s->mode = SERVICE_MODE_L2DSR; s->backends[0].ports[0].port = 80)
BREAK(mode_wild, s->mode = (enum service_mode)42)
BREAK(scheduler_wild, s->scheduler = (enum service_scheduler)2)
BREAK(client_dnat, s->client_address = SERVICE_CLIENT_TOA; s->mode = SERVICE_MODE_DNAT)
BREAK(client_udp, s->client_address = SERVICE_CLIENT_PROXY_V2;
	s->listeners[0].protocol = NET_PROTO_UDP)
BREAK(client_wild, s->client_address = (enum service_client_address)3)
BREAK(affinity_long, s->affinity_s = 86401)
BREAK(tcp_idle_zero, s->tcp_idle_s = 0)
BREAK(tcp_idle_long, s->tcp_idle_s = 7 * 24 * 3600 + 1)
BREAK(udp_idle_zero, s->udp_idle_s = 0)
BREAK(drain_long, s->drain_timeout_s = UINT32_MAX)
BREAK(range_len, struct prefix *p = service_add_source_range(s); p->address = addr("10.0.0.0");
	p->len = 33)
BREAK(range_host_bits, struct prefix *p = service_add_source_range(s);
	p->address = addr("10.0.0.1"); p->len = 8)
BREAK(many_ranges, for (int i = 0; i < 16385; i++) service_add_source_range(s))
BREAK(check_https, s->check.kind = SERVICE_CHECK_HTTPS)
BREAK(check_udp, s->check.kind = SERVICE_CHECK_UDP)
BREAK(check_path_tcp, strcpy(s->check.path, "/x"))
BREAK(check_path_relative, s->check.kind = SERVICE_CHECK_HTTP; strcpy(s->check.path, "x"))
BREAK(check_path_newline, s->check.kind = SERVICE_CHECK_HTTP; strcpy(s->check.path, "/x\r\nA: b"))
BREAK(check_path_high, s->check.kind = SERVICE_CHECK_HTTP; strcpy(s->check.path, "/\xc3\xa4"))
BREAK(check_port_unknown, strcpy(s->check.port_name, "nope"))
BREAK(check_port_udp, strcpy(s->check.port_name, "dns"))
BREAK(check_port_both, strcpy(s->check.port_name, "http"); s->check.port = 80)
BREAK(interval_short, s->check.interval_ms = 99; s->check.timeout_ms = 50)
BREAK(interval_long, s->check.interval_ms = 3600001)
BREAK(timeout_short, s->check.timeout_ms = 9)
BREAK(timeout_long, s->check.timeout_ms = 1001)
BREAK(rise_zero, s->check.rise = 0)
BREAK(fall_high, s->check.fall = 11)
BREAK(backend_loopback, s->backends[1].address = addr("127.0.0.1"))
BREAK(backend_loopback6, s->backends[1].address = addr("::1"))
BREAK(backend_link_local, s->backends[1].address = addr("169.254.169.254"))
BREAK(backend_link_local6, s->backends[1].address = addr("fe80::1"))
BREAK(backend_multicast, s->backends[1].address = addr("224.0.0.1"))
BREAK(backend_unspecified, s->backends[1].address = addr("::"))
BREAK(backend_vip, s->backends[1].address = addr("203.0.113.10"))
BREAK(backend_weight, s->backends[1].weight = 65536)
BREAK(backend_no_ports, s->backends[1].n_ports = 0)
BREAK(backend_port_zero, s->backends[1].ports[0].port = 0)
BREAK(backend_listener, strcpy(s->backends[1].ports[0].listener, "ht/t~p"))
BREAK(backend_twice, add_backend(s, "10.9.0.2", "http", 8080))
BREAK(backend_two_ports, struct service_backend_port *p = service_backend_add_port(&s->backends[1]);
	strcpy(p->listener, "http"); p->port = 8081)
BREAK(many_backends, for (int i = 0; i < 10000; i++) add_backend(s, "10.9.0.9", "http", 1))

static const struct refusal refusals[] = {
	{ break_namespace_empty, "/metadata/namespace", "1..63" },
	{ break_namespace_case, "/metadata/namespace", "`Default` is no DNS label" },
	{ break_name_dash, "/metadata/name", "`-web`" },
	{ break_name_slash, "/metadata/name", "`a/b`" },
	{ break_no_addresses, "/spec/addresses", "empty; allowed: 1..16" },
	{ break_address_twice, "/spec/addresses/1", "203.0.113.10 is there already" },
	{ break_address_loopback, "/spec/addresses/1", "127.0.0.1 is loopback" },
	{ break_address_multicast6, "/spec/addresses/1", "ff02::1 is multicast" },
	{ break_address_zero, "/spec/addresses/1", "0.0.0.0 is unspecified" },
	{ break_address_reserved, "/spec/addresses/1", "255.255.255.255 is reserved or broadcast" },
	{ break_many_addresses, "/spec/addresses", "17 addresses; allowed: 1..16" },
	{ break_no_listeners, "/spec/listeners", "empty; allowed: 1..256" },
	{ break_many_listeners, "/spec/listeners", "258 listeners" },
	{ break_listener_name_empty, "/spec/listeners/1/name", "1..63" },
	{ break_listener_name_bad, "/spec/listeners/1/name", "`d_ns`" },
	{ break_listener_name_twice, "/spec/listeners/2/name", "`http` is there already" },
	{ break_listener_protocol, "/spec/listeners/0/protocol", "allowed: TCP, UDP, SCTP" },
	{ break_listener_port_zero, "/spec/listeners/0/port", "0 not in 1..65535" },
	{ break_listener_max_below, "/spec/listeners/0/portMax", "79 is below the port 80" },
	{ break_listener_range, "/spec/backends/0/ports/http",
		"10.9.0.3:8080 (and 1 more) is not on port 80 of listener `http`: a range of ports "
		"keeps the packet's port; allowed: 80" },
	{ break_listener_port_twice, "/spec/listeners/2/port",
		"TCP 80 overlaps /spec/listeners/0" },
	{ break_mode_ipip, "/spec/backends/0/ports/http",
		"10.9.0.3:8080 (and 1 more) is not on port 80 of listener `http`: mode ipip does "
		"not "
		"change the packet's port; allowed: 80" },
	{ break_mode_l2dsr, "/spec/backends/1/ports/http",
		"10.9.0.2:8080 is not on port 80 of listener `http`: mode l2dsr does not" },
	{ break_mode_wild, "/spec/mode", "unknown; allowed: fullnat, dnat, ipip, gue, l2dsr" },
	{ break_scheduler_wild, "/spec/scheduler", "allowed: maglev, least-connections" },
	{ break_client_dnat, "/spec/clientAddress",
		"toa with mode dnat, which keeps the client's address; allowed: none, or mode "
		"fullnat" },
	{ break_client_udp, "/spec/clientAddress",
		"proxy-v2, and no listener is TCP; allowed: none, or a TCP listener" },
	{ break_client_wild, "/spec/clientAddress", "allowed: none, toa, proxy-v2" },
	{ break_affinity_long, "/spec/sessionAffinity/timeout", "24h1s not in 1s..24h" },
	{ break_tcp_idle_zero, "/spec/idleTimeout/tcp", "0s not in 1s..168h" },
	{ break_tcp_idle_long, "/spec/idleTimeout/tcp", "168h1s not in 1s..168h" },
	{ break_udp_idle_zero, "/spec/idleTimeout/udp", "0s not in" },
	{ break_drain_long, "/spec/drainTimeout", "not in 0s..168h" },
	{ break_range_len, "/spec/sourceRanges/0", "prefix length 33 not in 0..32" },
	{ break_range_host_bits, "/spec/sourceRanges/0", "host bits" },
	{ break_many_ranges, "/spec/sourceRanges", "16385 ranges; allowed: 0..16384" },
	{ break_check_https, "/spec/healthCheck/kind", "allowed: tcp, http, none" },
	{ break_check_udp, "/spec/healthCheck/kind", "udp is not supported yet" },
	{ break_check_path_tcp, "/spec/healthCheck/path", "only with kind http" },
	{ break_check_path_relative, "/spec/healthCheck/path", "no HTTP path" },
	{ break_check_path_newline, "/spec/healthCheck/path", "no HTTP path" },
	{ break_check_path_high, "/spec/healthCheck/path", "no HTTP path" },
	{ break_check_port_unknown, "/spec/healthCheck/port", "no listener is named `nope`" },
	{ break_check_port_udp, "/spec/healthCheck/port", "allowed: a TCP listener" },
	{ break_check_port_both, "/spec/healthCheck/port", "one of them" },
	{ break_interval_short, "/spec/healthCheck/interval", "99ms not in 100ms..1h" },
	{ break_interval_long, "/spec/healthCheck/interval", "3600001ms not in" },
	{ break_timeout_short, "/spec/healthCheck/timeout", "9ms not in 10ms..interval (1000ms)" },
	{ break_timeout_long, "/spec/healthCheck/timeout", "1001ms not in" },
	{ break_rise_zero, "/spec/healthCheck/rise", "0 not in 1..10" },
	{ break_fall_high, "/spec/healthCheck/fall", "11 not in 1..10" },
	{ break_backend_loopback, "/spec/backends/1/address", "127.0.0.1 is loopback" },
	{ break_backend_loopback6, "/spec/backends/1/address", "::1 is loopback" },
	{ break_backend_link_local, "/spec/backends/1/address", "169.254.169.254 is link-local" },
	{ break_backend_link_local6, "/spec/backends/1/address", "fe80::1 is link-local" },
	{ break_backend_multicast, "/spec/backends/1/address", "224.0.0.1 is multicast" },
	{ break_backend_unspecified, "/spec/backends/1/address", ":: is unspecified" },
	{ break_backend_vip, "/spec/backends/1/address", "address of the service itself" },
	{ break_backend_weight, "/spec/backends/1/weight", "65536 not in 0..65535" },
	{ break_backend_no_ports, "/spec/backends/1/ports", "empty" },
	{ break_backend_port_zero, "/spec/backends/1/ports/http", "0 not in 1..65535" },
	{ break_backend_listener, "/spec/backends/1/ports/ht~1t~0p",
		"no listener is named `ht/t~p`" },
	{ break_backend_twice, "/spec/backends/2", "10.9.0.2:8080 of listener `http`" },
	{ break_backend_two_ports, "/spec/backends/1", "is there already (/spec/backends/1)" },
	{ break_many_backends, "/spec/backends", "10002 backends" },
};

static bool has_finding(const struct error *err, const char *path, const char *text)
{
	for (uint32_t i = 0; i < err->n_items; i++) {
		if (strcmp(err->items[i].path, path) == 0 && strstr(err->items[i].text, text))
			return true;
	}
	return false;
}

static void test_validate_accepts(void **state)
{
	struct service *s = make_web();
	struct error err = { 0 };
	assert_int_equal(service_validate(s, &err), 0);
	s->affinity_s = 86400;
	free(s->backends[--s->n_backends].ports);
	s->backends[0].weight = 0;
	assert_int_equal(service_validate(s, &err), 0);
	service_backend_add_port(s->backends)->port = 5353;
	strcpy(s->backends[0].ports[1].listener, "dns");
	add_backend(s, "10.9.0.3", "http", 8081);      // second process of one host
	add_backend(s, "2001:db8:9::2", "http", 8080); // a family without VIP
	s->check.kind = SERVICE_CHECK_HTTP;
	strcpy(s->check.path, "/healthz?a=b");
	strcpy(s->check.port_name, "http");
	assert_int_equal(service_validate(s, &err), 0);
	assert_int_equal(err.n_items, 0);
	service_destroy(s);
	s = make_named("one", "2001:db8::1"); // a single listener may have no name; no backends
	add_listener(s, "", NET_PROTO_TCP, 443);
	assert_int_equal(service_validate(s, &err), 0);
	add_backend(s, "2001:db8::2", "", 443);
	assert_int_equal(service_validate(s, &err), 0);
	s->owner = SERVICE_OWNER_KUBERNETES;
	s->backends[0].n_ports = 0; // an endpoint of a slice without that port
	assert_int_equal(service_validate(s, &err), 0);
	service_destroy(s);
	error_fini(&err);
}

static void test_validate_modes(void **state)
{
	struct error err = { 0 };
	for (int mode = SERVICE_MODE_FULLNAT; mode <= SERVICE_MODE_L2DSR; mode++) {
		for (int scheduler = 0; scheduler < 2; scheduler++) {
			struct service *s = make_web();
			add_listener(s, "sig", NET_PROTO_SCTP, 2905);
			s->mode = (enum service_mode)mode;
			s->scheduler = (enum service_scheduler)scheduler;
			for (uint32_t i = 0; i < s->n_backends && mode >= SERVICE_MODE_IPIP; i++)
				s->backends[i].ports[0].port = 80;
			assert_int_equal(service_validate(s, &err), 0);
			service_destroy(s);
		}
	}
	struct service *s = make_web(); // a TCP and a UDP listener
	s->client_address = SERVICE_CLIENT_PROXY_V2;
	assert_int_equal(service_validate(s, &err), 0);
	s->client_address = SERVICE_CLIENT_TOA;
	assert_int_equal(service_validate(s, &err), 0);
	service_destroy(s);
	assert_int_equal(err.n_items, 0);
}

static void test_validate_ranges(void **state)
{
	struct error err = { 0 };
	for (int mode = SERVICE_MODE_FULLNAT; mode <= SERVICE_MODE_L2DSR; mode++) {
		struct service *s = make_named("any", "203.0.113.10");
		add_listener(s, "all", NET_PROTO_UDP, 1);
		s->listeners[0].port_max = 65535;
		add_listener(s, "some", NET_PROTO_TCP, 1000);
		s->listeners[1].port_max = 1999;
		add_listener(s, "next", NET_PROTO_TCP, 2000);
		s->mode = (enum service_mode)mode;
		add_backend(s, "10.9.0.2", "all", 1);
		add_backend(s, "10.9.0.3", "some", 1000);
		add_backend(s, "10.9.0.4", "next", mode < SERVICE_MODE_IPIP ? 8080 : 2000);
		assert_int_equal(service_validate(s, &err), 0);
		s->listeners[1].port_max = 2000;
		assert_int_equal(service_validate(s, &err), -EINVAL);
		assert_true(has_finding(&err, "/spec/listeners/2/port", "TCP 2000 overlaps"));
		error_fini(&err);
		service_destroy(s);
	}
	struct service *s = make_web();
	for (uint32_t i = 0; i < SERVICE_SOURCES_MAX; i++) {
		struct prefix *p = service_add_source_range(s);
		p->address = address_from_v4(rte_cpu_to_be_32(0x0a000000u + i * 2));
		p->len = 32;
	}
	assert_int_equal(service_validate(s, &err), 0);
	service_normalise(s);
	assert_int_equal(s->n_source_ranges, SERVICE_SOURCES_MAX);
	service_destroy(s);
}

static void test_validate_refuses(void **state)
{
	for (size_t i = 0; i < sizeof(refusals) / sizeof(refusals[0]); i++) {
		struct service *s = make_web();
		struct error err = { 0 };
		refusals[i].break_it(s);
		assert_int_equal(service_validate(s, NULL), service_validate(s, &err));
		if (!has_finding(&err, refusals[i].path, refusals[i].text)) {
			char line[512];
			for (uint32_t e = 0; e < err.n_items; e++)
				print_error("%s\n", error_format(&err, e, line, sizeof(line)));
			fail_msg("no finding %s: %s", refusals[i].path, refusals[i].text);
		}
		error_fini(&err);
		service_destroy(s);
	}
}

// All findings at once, not just the first.
static void test_validate_lists_all(void **state)
{
	struct service *s = make_web();
	struct error err = { 0 };
	s->mode = (enum service_mode)9;
	s->check.fall = 0;
	s->backends[0].address = addr("127.0.0.1");
	s->backends[1].weight = 70000;
	s->listeners[0].port = 0;
	assert_int_equal(service_validate(s, &err), -EINVAL);
	assert_int_equal(err.n_items, 5);
	error_fini(&err);
	service_destroy(s);
}

// ---------------------------------------------------------------- store
static void test_store_one(void **state)
{
	struct service_store *store = service_store_create();
	struct service *s = make_web();
	struct error err = { 0 };
	bool changed = false;
	assert_int_equal(service_store_generation(store), 0);
	assert_int_equal(service_store_put(store, s, &changed, &err), 0);
	assert_true(changed);
	assert_int_equal(service_store_generation(store), 1);
	const struct service *held = service_store_find(store, "default", "web");
	assert_non_null(held);
	assert_ptr_not_equal(held, s);
	assert_int_equal(held->generation, 1);
	char text[ADDRESS_TEXT_LEN];
	assert_string_equal(address_format(&held->backends[0].address, text), "10.9.0.2");
	assert_int_equal(service_store_put(store, s, &changed, &err), 0);
	assert_false(changed);
	assert_int_equal(service_store_generation(store), 1);
	s->backends[0].weight = 50;
	assert_int_equal(service_store_put(store, s, &changed, &err), 0);
	assert_true(changed);
	assert_int_equal(service_store_find(store, "default", "web")->generation, 2);

	s->owner = SERVICE_OWNER_FILE;
	assert_int_equal(service_store_put(store, s, &changed, &err), -EEXIST);
	assert_true(has_finding(&err, "/metadata/name", "default/web is owned by api"));
	assert_int_equal(
		service_store_remove(store, "default", "web", SERVICE_OWNER_FILE, &err), -EEXIST);
	assert_int_equal(
		service_store_remove(store, "default", "wob", SERVICE_OWNER_API, &err), -ENOENT);
	strcpy(s->name, "wob");
	assert_int_equal(service_store_put(store, s, &changed, &err), -EADDRINUSE);
	assert_true(has_finding(&err, "/spec/listeners/0",
		"203.0.113.10 TCP port 80 belongs to service default/web (owner api)"));
	assert_true(has_finding(&err, "/spec/listeners/1", "203.0.113.10 UDP port 53 belongs"));
	s->listeners[0].port = s->listeners[0].port_max = 81;
	s->listeners[1].port = s->listeners[1].port_max = 54;
	assert_int_equal(service_store_put(store, s, &changed, &err), 0);
	assert_int_equal(service_store_count(store), 2);
	s->mode = SERVICE_MODE_IPIP; // its backends are on 8080
	assert_int_equal(service_store_put(store, s, &changed, NULL), -EINVAL);
	assert_int_equal(service_store_generation(store), 3);
	assert_int_equal(service_store_remove(store, "default", "web", SERVICE_OWNER_API, &err), 0);
	assert_int_equal(service_store_generation(store), 4);
	assert_null(service_store_find(store, "default", "web"));
	assert_null(service_store_at(store, 1));
	s->mode = SERVICE_MODE_FULLNAT;
	s->listeners[0].port = s->listeners[0].port_max = 80; // free again
	assert_int_equal(service_store_put(store, s, &changed, &err), 0);
	error_fini(&err);
	service_destroy(s);
	service_store_destroy(store);
	service_store_destroy(NULL);
}

static void test_store_overlay(void **state)
{
	struct service_store *store = service_store_create();
	struct address a = addr("10.9.0.2"), b = addr("10.9.0.3");
	struct service_overlay o = { .namespace = "default",
		.name = "web",
		.address = a,
		.draining = true,
		.since_ms = 5,
		.reason = "reboot" };
	assert_int_equal(service_store_put_overlay(store, &o), 0);
	assert_int_equal(service_store_generation(store), 1);
	assert_int_equal(service_store_put_overlay(store, &o), 0);
	assert_int_equal(service_store_generation(store), 1); // nothing new
	o.port = 8080;
	o.has_weight = true;
	o.weight = 7;
	assert_int_equal(service_store_put_overlay(store, &o), 0);
	assert_int_equal(service_store_overlay_count(store), 2);
	const struct service_overlay *f =
		service_store_find_overlay(store, "default", "web", &a, 8080);
	assert_non_null(f);
	assert_int_equal(f->weight, 7);
	f = service_store_find_overlay(store, "default", "web", &a, 8081);
	assert_non_null(f);
	assert_int_equal(f->port, 0);
	assert_null(service_store_find_overlay(store, "default", "web", &b, 8080));
	assert_null(service_store_find_overlay(store, "default", "wob", &a, 8080));
	assert_null(service_store_find_overlay(store, "other", "web", &a, 8080));
	o.weight = 65536;
	assert_int_equal(service_store_put_overlay(store, &o), -EINVAL);
	o.weight = 8;
	assert_int_equal(service_store_put_overlay(store, &o), 0);
	assert_int_equal(service_store_generation(store), 3);
	assert_int_equal(service_store_overlay_count(store), 2);
	assert_int_equal(service_store_overlay_at(store, 0)->port, 0);
	assert_int_equal(service_store_overlay_at(store, 1)->weight, 8);
	assert_null(service_store_overlay_at(store, 2));
	o.draining = o.has_weight = false; // says nothing: taken back
	assert_int_equal(service_store_put_overlay(store, &o), 0);
	assert_int_equal(service_store_overlay_count(store), 1);
	assert_int_equal(service_store_remove_overlay(store, "default", "web", &a, 8080), -ENOENT);
	assert_int_equal(service_store_remove_overlay(store, "default", "web", &a, 0), 0);
	assert_int_equal(service_store_generation(store), 5);
	assert_int_equal(service_store_overlay_count(store), 0);
	service_store_destroy(store);
}

// ---------------------------------------------------------------- naive twin
// The twin: an array of services in no order, conflicts by comparing all with all.
#define TWIN_MAX 64
struct twin {
	struct service *items[TWIN_MAX];
	uint32_t n;
};

static int twin_find(const struct twin *t, const struct service *s)
{
	for (uint32_t i = 0; i < t->n; i++) {
		if (strcmp(t->items[i]->name, s->name) == 0 &&
			strcmp(t->items[i]->namespace, s->namespace) == 0)
			return (int)i;
	}
	return -1;
}

static bool twin_conflict(const struct service *a, const struct service *b)
{
	for (uint32_t i = 0; i < a->n_addresses * a->n_listeners; i++) {
		for (uint32_t j = 0; j < b->n_addresses * b->n_listeners; j++) {
			const struct service_listener *x = &a->listeners[i % a->n_listeners];
			const struct service_listener *y = &b->listeners[j % b->n_listeners];
			if (address_equal(&a->addresses[i / a->n_listeners],
				    &b->addresses[j / b->n_listeners]) &&
				x->protocol == y->protocol && x->port == y->port)
				return true;
		}
	}
	return false;
}

static void twin_drop(struct twin *t, uint32_t i)
{
	service_destroy(t->items[i]);
	t->items[i] = t->items[--t->n];
}

// 0, -EEXIST, -EADDRINUSE as the store should answer; takes a copy.
static int twin_put(struct twin *t, const struct service *s, bool *out_changed)
{
	int at = twin_find(t, s);
	if (at >= 0 && t->items[at]->owner != s->owner)
		return -EEXIST;
	for (uint32_t i = 0; i < t->n; i++) {
		if ((int)i != at && twin_conflict(t->items[i], s))
			return -EADDRINUSE;
	}
	struct service *copy = service_clone(s);
	service_normalise(copy);
	*out_changed = at < 0 || !service_equal(copy, t->items[at]);
	if (at >= 0)
		twin_drop(t, (uint32_t)at);
	assert_true(t->n < TWIN_MAX);
	t->items[t->n++] = copy;
	return 0;
}

static struct service *random_service(enum service_owner owner)
{
	char text[ADDRESS_TEXT_LEN];
	snprintf(text, sizeof(text), "203.0.113.%u", 1 + random_below(3));
	char name[8];
	snprintf(name, sizeof(name), "s%u", random_below(12));
	struct service *s = make_named(name, text);
	s->owner = owner;
	snprintf(s->namespace, sizeof(s->namespace), "ns%u", random_below(2));
	if (random_below(3) == 0)
		*service_add_address(s) = addr("2001:db8::1");
	uint16_t port = (uint16_t)(80 + random_below(8));
	add_listener(s, "a", random_below(2) ? NET_PROTO_TCP : NET_PROTO_UDP, port);
	if (random_below(2))
		add_listener(s, "b", NET_PROTO_TCP, (uint16_t)(port + 1 + random_below(8)));
	uint32_t n_backends = random_below(3);
	for (uint32_t i = 0; i < n_backends; i++) {
		snprintf(text, sizeof(text), "10.0.0.%u", i + 1);
		add_backend(s, text, "a", 8080);
	}
	return s;
}

static void compare_with_twin(const struct service_store *store, const struct twin *twin)
{
	assert_int_equal(service_store_count(store), twin->n);
	for (uint32_t i = 0; i < twin->n; i++) {
		const struct service *held =
			service_store_find(store, twin->items[i]->namespace, twin->items[i]->name);
		assert_non_null(held);
		assert_true(service_equal(held, twin->items[i]));
	}
	for (uint32_t i = 1; i < service_store_count(store); i++) {
		const struct service *a = service_store_at(store, i - 1);
		const struct service *b = service_store_at(store, i);
		int order = strcmp(a->namespace, b->namespace);
		assert_true(order < 0 || (order == 0 && strcmp(a->name, b->name) < 0));
	}
}

static void twin_remove(struct service_store *store, struct twin *twin)
{
	struct service *s = random_service(SERVICE_OWNER_API);
	int at = twin_find(twin, s);
	int want = at < 0 ? -ENOENT : twin->items[at]->owner != s->owner ? -EEXIST : 0;
	assert_int_equal(service_store_remove(store, s->namespace, s->name, s->owner, NULL), want);
	if (want == 0)
		twin_drop(twin, (uint32_t)at);
	service_destroy(s);
}

// Makes all services of one owner anew; the twin does it by dropping and putting one by one.
static bool twin_replace(struct service_store *store, struct twin *twin)
{
	enum service_owner owner = random_below(3);
	struct service *set[6];
	uint32_t n = random_below(7);
	struct twin next = { .n = 0 };
	int want = 0;
	uint32_t n_want_changed = 0;
	for (uint32_t i = 0; i < twin->n; i++) {
		if (twin->items[i]->owner != owner)
			next.items[next.n++] = service_clone(twin->items[i]);
	}
	for (uint32_t i = 0; i < n; i++) {
		bool changed, is_twice = false;
		set[i] = random_service(owner);
		int at = twin_find(twin, set[i]);
		if (at >= 0 && random_below(2)) { // the same again
			service_destroy(set[i]);
			set[i] = service_clone(twin->items[at]);
			set[i]->owner = owner;
		}
		for (uint32_t j = 0; j < i; j++)
			is_twice = is_twice ||
				   (strcmp(set[j]->name, set[i]->name) == 0 &&
					   strcmp(set[j]->namespace, set[i]->namespace) == 0);
		if (is_twice || twin_put(&next, set[i], &changed) != 0)
			want = -1;
	}
	for (uint32_t i = 0; i < twin->n; i++)
		n_want_changed +=
			twin->items[i]->owner == owner && twin_find(&next, twin->items[i]) < 0;
	for (uint32_t i = 0; i < next.n; i++) {
		int at = twin_find(twin, next.items[i]);
		n_want_changed += at < 0 || !service_equal(twin->items[at], next.items[i]);
	}
	uint64_t generation = service_store_generation(store);
	uint32_t n_changed = 4711;
	struct error err = { 0 };
	int rc = service_store_replace_owner(store, owner, set, n, &n_changed, &err);
	assert_int_equal(rc == 0, want == 0);
	assert_int_equal(rc == 0, err.n_items == 0);
	struct twin *stale = rc == 0 ? twin : &next;
	for (uint32_t i = 0; i < stale->n; i++)
		service_destroy(stale->items[i]);
	if (rc == 0) {
		assert_int_equal(n_changed, n_want_changed);
		assert_int_equal(service_store_generation(store), generation + (n_changed > 0));
		*twin = next;
	} else {
		assert_int_equal(n_changed, 4711);
		assert_int_equal(service_store_generation(store), generation);
	}
	for (uint32_t i = 0; i < n; i++)
		service_destroy(set[i]);
	error_fini(&err);
	return rc == 0;
}

static void test_store_twin(void **state)
{
	random_seed(20240607);
	struct service_store *store = service_store_create();
	struct twin twin = { .n = 0 };
	uint32_t n_replaced = 0, n_refused = 0, n_put = 0, n_put_refused = 0;
	for (int step = 0; step < 20000; step++) {
		uint32_t what = random_below(10);
		if (what == 0) {
			if (twin_replace(store, &twin))
				n_replaced++;
			else
				n_refused++;
		} else if (what < 4) {
			twin_remove(store, &twin);
		} else {
			struct service *s = random_service(random_below(3));
			bool changed = false, want_changed = false;
			int want = twin_put(&twin, s, &want_changed);
			assert_int_equal(service_store_put(store, s, &changed, NULL), want);
			assert_int_equal(changed, want_changed);
			n_put += want == 0;
			n_put_refused += want != 0;
			service_destroy(s);
		}
		compare_with_twin(store, &twin);
	}
	print_message("puts %u, refused %u; replacements %u, refused %u\n", n_put, n_put_refused,
		n_replaced, n_refused);
	assert_true(n_replaced > 100 && n_refused > 100 && n_put > 1000 && n_put_refused > 1000);
	for (uint32_t i = 0; i < twin.n; i++)
		service_destroy(twin.items[i]);
	service_store_destroy(store);
}

// A refused set names every fault, and nothing has changed.
static void test_replace_lists_all(void **state)
{
	struct service_store *store = service_store_create();
	struct service *held = make_web();
	assert_int_equal(service_store_put(store, held, NULL, NULL), 0);
	struct service *set[5] = { make_named("a", "203.0.113.10"), make_named("b", "203.0.113.11"),
		make_named("c", "203.0.113.11"), make_web(), make_named("d", "203.0.113.12") };
	add_listener(set[0], "x", NET_PROTO_TCP, 80); // held by default/web of another owner
	add_listener(set[1], "x", NET_PROTO_TCP, 443);
	add_listener(set[2], "x", NET_PROTO_TCP, 443); // the same as b
	set[4]->mode = (enum service_mode)9;           // and no listener
	struct error err = { 0 };
	uint32_t n_changed = 9;
	assert_int_equal(
		service_store_replace_owner(store, SERVICE_OWNER_FILE, set, 5, &n_changed, &err),
		-EINVAL);
	assert_true(
		has_finding(&err, "default/a/spec/listeners/0", "belongs to service default/web"));
	assert_true(
		has_finding(&err, "default/c/spec/listeners/0", "belongs to service default/b"));
	assert_true(has_finding(&err, "default/web/metadata/name", "owned by api"));
	assert_true(has_finding(&err, "default/d/spec/mode", "unknown"));
	assert_true(has_finding(&err, "default/d/spec/listeners", "empty"));
	assert_int_equal(n_changed, 9);
	assert_int_equal(service_store_count(store), 1);
	assert_int_equal(service_store_generation(store), 1);
	error_fini(&err);
	set[4]->mode = SERVICE_MODE_FULLNAT;
	add_listener(set[4], "x", NET_PROTO_TCP, 1);
	strcpy(set[3]->name, "d");
	set[3]->addresses[0] = addr("203.0.113.99");
	assert_int_equal(service_store_replace_owner(
				 store, SERVICE_OWNER_FILE, set + 3, 2, &n_changed, &err),
		-EINVAL);
	assert_true(has_finding(&err, "default/d", "given twice"));
	assert_int_equal(err.n_items, 1);
	error_fini(&err);
	for (int i = 0; i < 5; i++)
		service_destroy(set[i]);
	service_destroy(held);
	service_store_destroy(store);
}

// ---------------------------------------------------------------- scale
static double now_ms(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec * 1e3 + (double)ts.tv_nsec / 1e6;
}

#define N_SCALE 10000

static struct service *scale_service(uint32_t i)
{
	char text[ADDRESS_TEXT_LEN], name[16];
	snprintf(text, sizeof(text), "198.18.0.%u", 1 + i % 4); // thousands of ports on one address
	snprintf(name, sizeof(name), "s%u", i);
	struct service *s = make_named(name, text);
	add_listener(s, "a", NET_PROTO_TCP, (uint16_t)(1 + i / 4));
	for (uint32_t b = 0; b < 10; b++) {
		snprintf(text, sizeof(text), "10.%u.%u.%u", i >> 8, i & 255, b + 1);
		add_backend(s, text, "a", 8080);
	}
	return s;
}

static void test_scale(void **state)
{
	struct service **set = calloc(N_SCALE, sizeof(*set));
	for (uint32_t i = 0; i < N_SCALE; i++)
		set[i] = scale_service(i);
	struct service_store *store = service_store_create();
	double t0 = now_ms();
	for (uint32_t i = 0; i < N_SCALE; i++)
		assert_int_equal(service_store_put(store, set[i], NULL, NULL), 0);
	double t1 = now_ms();
	uint32_t n_changed = 0;
	for (uint32_t i = 0; i < N_SCALE; i++)
		set[i]->udp_idle_s = 61;
	assert_int_equal(service_store_replace_owner(
				 store, SERVICE_OWNER_API, set, N_SCALE, &n_changed, NULL),
		0);
	assert_int_equal(n_changed, N_SCALE);
	double t2 = now_ms();
	set[7]->udp_idle_s = 62;
	assert_int_equal(service_store_replace_owner(
				 store, SERVICE_OWNER_API, set, N_SCALE, &n_changed, NULL),
		0);
	assert_int_equal(n_changed, 1);
	double t3 = now_ms();
	print_message(
		"%u services of 10: put one by one %.0f ms, replaced %.0f ms, one of them %.0f "
		"ms\n",
		N_SCALE, t1 - t0, t2 - t1, t3 - t2);
	for (uint32_t i = 0; i < N_SCALE; i++)
		service_destroy(set[i]);
	free(set);
	service_store_destroy(store);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_words),
		cmocka_unit_test(test_clone_and_equal),
		cmocka_unit_test(test_normalise),
		cmocka_unit_test(test_find),
		cmocka_unit_test(test_validate_accepts),
		cmocka_unit_test(test_validate_modes),
		cmocka_unit_test(test_validate_ranges),
		cmocka_unit_test(test_validate_refuses),
		cmocka_unit_test(test_validate_lists_all),
		cmocka_unit_test(test_store_one),
		cmocka_unit_test(test_store_overlay),
		cmocka_unit_test(test_store_twin),
		cmocka_unit_test(test_replace_lists_all),
		cmocka_unit_test(test_scale),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
