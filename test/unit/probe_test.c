// SPDX-License-Identifier: BSD-3-Clause
// Probes against servers of our own on the loopback, in one thread; control is four functions that record. Waits end with
// the result that is waited for (bounded); how long it took is not asserted.
#include "probe.h"

#include <errno.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

// ---------------------------------------------------------------- control, as far as probes see it
static struct event_base *base;
static struct control_probe_hooks hooks;
static void *hook_arg;
static uint32_t n_reports, n_good, stop_id;
static char last_reason[SERVICE_REASON_MAX];

struct event_base *control_base(struct control *c)
{
	return base;
}

void control_set_probe_hooks(struct control *c, const struct control_probe_hooks *h, void *arg)
{
	hooks = h != NULL ? *h : (struct control_probe_hooks){ 0 };
	hook_arg = arg;
}

uint32_t control_probe_report(struct control *c, uint32_t id, bool ok, const char *reason)
{
	n_reports++;
	n_good += ok;
	snprintf(last_reason, sizeof(last_reason), "%s", reason);
	if (stop_id == id)
		hooks.stop(hook_arg, id); // a verdict may end its own probe
	return 10;
}

void control_note(struct control *c, enum log_level level, const char *kind, const char *object,
	const char *fmt, ...)
{
}

// ---------------------------------------------------------------- a server that says one thing
struct server {
	int fd;
	uint16_t port;
	const char *says; // NULL: nothing, and keeps the connection
	bool says_forever;
	struct event *event;
	uint32_t n_accepted;
	uint32_t n_requests;
	char request[1024];
	struct peer *peers;
};

struct peer {
	struct server *server;
	struct event *event;
	struct peer *next;
};

static void peer_close(struct peer *peer)
{
	struct peer **link = &peer->server->peers;
	while (*link != peer)
		link = &(*link)->next;
	*link = peer->next;
	close(event_get_fd(peer->event));
	event_free(peer->event);
	free(peer);
}

static void on_request(evutil_socket_t fd, short what, void *arg)
{
	static char block[65536];
	struct peer *peer = arg;
	struct server *s = peer->server;
	ssize_t n = recv(fd, s->request, sizeof(s->request) - 1, 0);
	if (n > 0) {
		s->request[n] = '\0';
		s->n_requests++;
		if (s->says == NULL)
			return;
		send(fd, s->says, strlen(s->says), MSG_NOSIGNAL);
		for (int i = 0; s->says_forever && i < 4; i++)
			send(fd, block, sizeof(block), MSG_NOSIGNAL | MSG_DONTWAIT);
		if (s->says_forever)
			return;
	}
	peer_close(peer);
}

static void on_accept(evutil_socket_t fd, short what, void *arg)
{
	struct server *s = arg;
	int accepted = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (accepted < 0)
		return;
	s->n_accepted++;
	struct peer *peer = calloc(1, sizeof(*peer));
	peer->server = s;
	peer->event = event_new(base, accepted, EV_READ | EV_PERSIST, on_request, peer);
	event_add(peer->event, NULL);
	peer->next = s->peers;
	s->peers = peer;
}

static void server_open(struct server *s, int family, const char *says)
{
	struct sockaddr_in6 a6 = { .sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT };
	struct sockaddr_in a4 = { .sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct sockaddr_in6 got;
	socklen_t len = sizeof(got);
	memset(s, 0, sizeof(*s));
	s->says = says;
	s->fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	assert_int_equal(family == AF_INET ? bind(s->fd, (struct sockaddr *)&a4, sizeof(a4))
					   : bind(s->fd, (struct sockaddr *)&a6, sizeof(a6)),
		0);
	listen(s->fd, 64);
	getsockname(s->fd, (struct sockaddr *)&got, &len);
	s->port = ntohs(got.sin6_port); // at the same place in both families
	s->event = event_new(base, s->fd, EV_READ | EV_PERSIST, on_accept, s);
	event_add(s->event, NULL);
}

static void server_close(struct server *s)
{
	while (s->peers != NULL)
		peer_close(s->peers);
	event_free(s->event);
	close(s->fd);
}

// ---------------------------------------------------------------- frame
static struct probe *probe;

static int setup(void **state)
{
	base = event_base_new();
	n_reports = n_good = 0;
	stop_id = UINT32_MAX;
	return probe_create(NULL, &probe, NULL);
}

static int teardown(void **state)
{
	probe_destroy(probe);
	assert_null(hooks.start);
	event_base_free(base);
	return 0;
}

static void begin(uint32_t id, const char *address, uint16_t port, const char *path)
{
	struct control_probe what = { .id = id, .port = port };
	what.check.kind = path != NULL ? SERVICE_CHECK_HTTP : SERVICE_CHECK_TCP;
	what.check.interval_ms = 100;
	what.check.timeout_ms = 300;
	snprintf(what.check.path, sizeof(what.check.path), "%s", path != NULL ? path : "");
	assert_int_equal(address_parse(address, &what.address), 0);
	hooks.start(hook_arg, &what);
}

static void turn_until_reports(uint32_t n)
{
	for (int i = 0; i < 20000 && n_reports < n; i++) {
		event_base_loop(base, EVLOOP_NONBLOCK);
		usleep(500);
	}
	assert_true(n_reports >= n);
}

static void test_tcp_good(void **state)
{
	struct server s;
	server_open(&s, AF_INET, NULL);
	begin(1, "127.0.0.1", s.port, NULL);
	turn_until_reports(3); // again and again
	assert_int_equal(n_good, n_reports);
	hooks.stop(hook_arg, 1);
	server_close(&s);
}

static void test_tcp_v6(void **state)
{
	struct server s;
	server_open(&s, AF_INET6, NULL);
	begin(1, "::1", s.port, NULL);
	turn_until_reports(1);
	assert_int_equal(n_good, 1);
	server_close(&s);
}

static void test_tcp_refused(void **state)
{
	struct server s;
	server_open(&s, AF_INET, NULL);
	server_close(&s); // nobody has this port now
	begin(1, "127.0.0.1", s.port, NULL);
	turn_until_reports(1);
	assert_int_equal(n_good, 0);
	assert_string_equal(last_reason, "connect: Connection refused");
}

// A listener whose queue is full answers no SYN.
static void test_tcp_silent(void **state)
{
	struct server s;
	int fillers[8];
	server_open(&s, AF_INET, NULL);
	event_del(s.event);
	listen(s.fd, 0);
	struct sockaddr_in to = { .sin_family = AF_INET,
		.sin_port = htons(s.port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	for (size_t i = 0; i < ARRAY_SIZE(fillers); i++) {
		fillers[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
		connect(fillers[i], (struct sockaddr *)&to, sizeof(to));
	}
	begin(1, "127.0.0.1", s.port, NULL);
	turn_until_reports(1);
	assert_int_equal(n_good, 0);
	assert_string_equal(last_reason, "timeout after 300ms");
	for (size_t i = 0; i < ARRAY_SIZE(fillers); i++)
		close(fillers[i]);
	server_close(&s);
}

struct http_case {
	const char *says;
	bool is_good;
	const char *reason;
};

static const struct http_case http_cases[] = {
	{ "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", true, "" },
	{ "HTTP/1.1 204 No Content\r\n\r\n", true, "" },
	{ "HTTP/1.0 200 OK\r\n\r\nuntil the end", true, "" },
	{ "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", true,
		"" },
	{ "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", false,
		"http: status 503" },
	{ "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", false, "http: status 404" },
	{ "HTTP/1.1 99999 What\r\n\r\n", false, NULL },
	{ "SSH-2.0-OpenSSH_9.2\r\n", false, NULL },
	{ "", false, NULL }, // closes without a word
	{ NULL, false, "timeout after 300ms" },
};

static void test_http_answers(void **state)
{
	for (uint32_t i = 0; i < ARRAY_SIZE(http_cases); i++) {
		struct server s;
		n_reports = n_good = 0;
		server_open(&s, AF_INET, http_cases[i].says);
		begin(i, "127.0.0.1", s.port, "/healthz?full=1");
		turn_until_reports(1);
		hooks.stop(hook_arg, i);
		if (n_good != (http_cases[i].is_good ? 1 : 0))
			fail_msg("case %u: %s", i, last_reason);
		if (http_cases[i].reason != NULL)
			assert_string_equal(last_reason, http_cases[i].reason);
		else
			assert_memory_equal(last_reason, "http: ", 6);
		assert_non_null(strstr(s.request, "GET /healthz?full=1 HTTP/1.1\r\n"));
		server_close(&s);
	}
}

static void test_http_endless_body_is_cut(void **state)
{
	struct server s;
	server_open(&s, AF_INET, "HTTP/1.1 200 OK\r\n\r\n");
	s.says_forever = true;
	begin(1, "127.0.0.1", s.port, "/");
	turn_until_reports(1);
	assert_int_equal(n_good, 1);
	server_close(&s);
}

static void test_http_ignores_environment_proxy(void **state)
{
	struct server s;
	server_open(&s, AF_INET, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
	setenv("http_proxy", "http://127.0.0.1:1", 1);
	begin(1, "127.0.0.1", s.port, "/");
	turn_until_reports(1);
	unsetenv("http_proxy");
	assert_int_equal(n_good, 1);
	server_close(&s);
}

static void test_stop_anywhere(void **state)
{
	struct server s;
	server_open(&s, AF_INET, NULL);
	begin(1, "127.0.0.1", s.port, "/"); // will hang
	begin(2, "127.0.0.1", s.port, NULL);
	stop_id = 2; // ends in its own report
	turn_until_reports(1);
	for (int i = 0; i < 100 && s.n_requests == 0; i++) {
		event_base_loop(base, EVLOOP_NONBLOCK);
		usleep(1000);
	}
	hooks.stop(hook_arg, 1); // under way
	hooks.stop(hook_arg, 77);
	uint32_t before = n_reports;
	for (int i = 0; i < 100; i++) {
		event_base_loop(base, EVLOOP_NONBLOCK);
		usleep(1000);
	}
	assert_int_equal(n_reports, before);
	server_close(&s);
}

// More than may be in flight, none of which answers: each gets its turn.
static void test_many(void **state)
{
	struct server s;
	server_open(&s, AF_INET, NULL);
	uint32_t n = 600;
	for (uint32_t i = 0; i < n; i++)
		begin(i << 20 | i, "127.0.0.1", s.port, i % 7 == 0 ? "/" : NULL);
	turn_until_reports(2 * n);
	server_close(&s);
}

#define CASE(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(test_tcp_good),
		CASE(test_tcp_v6),
		CASE(test_tcp_refused),
		CASE(test_tcp_silent),
		CASE(test_http_answers),
		CASE(test_http_endless_body_is_cut),
		CASE(test_http_ignores_environment_proxy),
		CASE(test_stop_anywhere),
		CASE(test_many),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
