// SPDX-License-Identifier: BSD-3-Clause
// Requests over libcurl in the loop: heads, bodies and ends as a server of bytes gives them, 401 and new credentials, what is
// asked and what never is, and ends from the other side in every state.
#include "cluster_server_priv.h"

#include <errno.h>
#include <sys/stat.h>

#include "cluster_priv.h"

#define WAIT_S 20
#define OK     "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 5\r\n\r\nhello"
#define CHUNKED \
	"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
#define UNAUTHORIZED                                                                      \
	"HTTP/1.1 401 Unauthorized\r\nContent-Type: application/json\r\nContent-Length: " \
	"4\r\n\r\nnope"

struct seen { // of one request
	struct world *world;
	struct cluster_call *call;
	int status;
	uint32_t n_heads, retry_after_s;
	char content_type[128];
	char body[4096];
	size_t len;
	uint32_t n_ends;
	enum cluster_end how;
	char why[500];
	bool cancels_at_head, cancels_at_body, begins_another;
};

struct world {
	struct event_base *base;
	struct cluster_auth *auth;
	struct cluster_http *http;
	struct server server;
	char dir[64], path[128];
	struct seen seen[16];
	uint32_t n_notes;
	char last_note[1200];
};

static void note(
	void *arg, enum log_level level, const char *kind, const char *object, const char *text)
{
	struct world *w = arg;
	w->n_notes++;
	snprintf(w->last_note, sizeof(w->last_note), "%s: %s: %s", kind, object, text);
}

static void changed(void *arg)
{
	struct world *w = arg;
	if (w->http)
		cluster_http_wake(w->http);
}

static void put_file(const struct world *w, const char *name, const char *text)
{
	char aside[300], to[300];
	snprintf(to, sizeof(to), "%s/%s", w->dir, name);
	snprintf(aside, sizeof(aside), "%s.new", to);
	FILE *file = fopen(aside, "w");
	assert_non_null(file);
	assert_int_equal(fwrite(text, 1, strlen(text), file), strlen(text));
	fclose(file);
	chmod(aside, 0700);
	assert_int_equal(rename(aside, to), 0);
}

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));
	assert_non_null(w);
	strcpy(w->dir, "/tmp/sluice-http-XXXXXX");
	assert_non_null(mkdtemp(w->dir));
	snprintf(w->path, sizeof(w->path), "%s/kubeconfig", w->dir);
	w->base = event_base_new();
	server_init(&w->server, w->base);
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;
	char command[100];
	cluster_http_destroy(w->http);
	cluster_auth_destroy(w->auth);
	server_fini(&w->server);
	event_base_free(w->base);
	snprintf(command, sizeof(command), "rm -rf %s", w->dir);
	assert_int_equal(system(command), 0);
	free(w);
	return 0;
}

static void open_with(struct world *w, const char *cluster, const char *user)
{
	struct cluster_auth_config config = { .base = w->base,
		.kubeconfig_path = w->path,
		.poll_ms = 20,
		.voice = { note, w },
		.changed = changed,
		.arg = w };
	struct error err = { 0 };
	char text[2000], line[500];
	snprintf(text, sizeof(text),
		"current-context: c\n"
		"contexts: [{name: c, context: {cluster: k, user: u}}]\n"
		"clusters: [{name: k, cluster: {server: 'http://127.0.0.1:%u/base'%s%s}}]\n"
		"users: [{name: u, user: {%s}}]\n",
		w->server.port, cluster[0] ? ", " : "", cluster, user);
	put_file(w, "kubeconfig", text);
	if (cluster_auth_create(&config, &w->auth, &err) != 0)
		fail_msg("%s", error_first(&err, line, sizeof(line)));
	assert_int_equal(cluster_http_create(w->base, w->auth, &config.voice, &w->http), 0);
}

static struct seen *ask_for(struct world *w, uint32_t idx, struct cluster_request request);

static void on_head(void *arg, int status, uint32_t retry_after_s, const char *content_type)
{
	struct seen *s = arg;
	s->n_heads++;
	s->status = status;
	s->retry_after_s = retry_after_s;
	snprintf(s->content_type, sizeof(s->content_type), "%s", content_type);
	if (s->begins_another)
		ask_for(s->world, 7, (struct cluster_request){ .path = "/other" });
	if (s->cancels_at_head)
		cluster_http_cancel(s->call);
}

static void on_body(void *arg, const char *bytes, size_t len)
{
	struct seen *s = arg;
	assert_int_equal(s->n_heads, 1);
	assert_int_equal(s->n_ends, 0);
	if (len > sizeof(s->body) - 1 - s->len)
		len = sizeof(s->body) - 1 - s->len;
	memcpy(s->body + s->len, bytes, len);
	s->len += len;
	if (s->cancels_at_body)
		cluster_http_cancel(s->call);
}

static void on_end(void *arg, enum cluster_end how, const char *why)
{
	struct seen *s = arg;
	s->n_ends++;
	s->how = how;
	snprintf(s->why, sizeof(s->why), "%s", why);
}

static struct seen *ask_for(struct world *w, uint32_t idx, struct cluster_request request)
{
	struct seen *s = &w->seen[idx];
	s->world = w;
	if (request.method == NULL)
		request.method = "GET";
	request.head = on_head;
	request.body_part = on_body;
	request.end = on_end;
	request.arg = s;
	s->call = cluster_http_begin(w->http, &request);
	assert_non_null(s->call);
	return s;
}

static struct seen *get(struct world *w, uint32_t idx)
{
	return ask_for(w, idx, (struct cluster_request){ .path = "/api/v1/services?limit=5" });
}

static struct seen *watch(struct world *w, uint32_t idx)
{
	return ask_for(w, idx,
		(struct cluster_request){
			.path = "/api/v1/services?watch=true", .is_watch = true });
}

static void wait_until(struct world *w, bool (*is_so)(const struct world *w))
{
	time_t end = time(NULL) + WAIT_S;
	while (!is_so(w) && time(NULL) < end)
		event_base_loop(w->base, EVLOOP_ONCE);
	assert_true(is_so(w));
}

static bool all_ended(const struct world *w)
{
	return cluster_http_count(w->http) == 0;
}

static bool has_body(const struct world *w)
{
	return w->seen[0].len > 0;
}

static bool has_request(const struct world *w)
{
	return w->server.n_requests > 0;
}

// ---------------------------------------------------------------- answers

static void test_get(void **state)
{
	struct world *w = *state;
	open_with(w, "", "token: abc");
	server_add(&w->server, OK, false);
	server_add(&w->server,
		"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 429 Too Many\r\nRetry-After:  7 \r\n"
		"content-type: text/plain\r\nContent-Length: 3\r\n\r\nno\n",
		false);
	struct seen *s = get(w, 0);
	assert_int_equal(w->server.n_requests, 0); // nothing happens within the call
	wait_until(w, all_ended);
	assert_int_equal(s->n_heads, 1);
	assert_int_equal(s->status, 200);
	assert_int_equal(s->retry_after_s, 0);
	assert_string_equal(s->content_type, "application/json");
	assert_string_equal(s->body, "hello");
	assert_int_equal(s->n_ends, 1);
	assert_int_equal(s->how, CLUSTER_END_CLEAN);
	assert_non_null(
		strstr(w->server.requests[0], "GET /base/api/v1/services?limit=5 HTTP/1.1\r\n"));
	assert_non_null(strstr(w->server.requests[0], "\r\nAuthorization: Bearer abc\r\n"));
	assert_non_null(strstr(w->server.requests[0], "\r\nAccept: application/json\r\n"));
	assert_null(strcasestr(w->server.requests[0], "accept-encoding"));
	s = get(w, 1);
	wait_until(w, all_ended);
	assert_int_equal(s->status, 429);
	assert_int_equal(s->retry_after_s, 7);
	assert_string_equal(s->content_type, "text/plain");
	assert_string_equal(s->body, "no\n");
	assert_int_equal(w->server.n_connections, 1); // kept
}

static void test_write(void **state)
{
	static const char *const methods[] = { "POST", "PUT", "PATCH", "DELETE" };
	struct world *w = *state;
	open_with(w, "", "username: joe, password: 'a b'");
	for (size_t i = 0; i < ARRAY_SIZE(methods); i++) {
		char line[64], body[8] = "{\"a\":1}";
		server_add(&w->server, OK, false);
		ask_for(w, (uint32_t)i,
			(struct cluster_request){ .method = methods[i],
				.path = "/x",
				.content_type = i < 3 ? "application/apply-patch+yaml" : NULL,
				.body = body,
				.body_len = 7 });
		memset(body, 'x', sizeof(body)); // it took a copy
		wait_until(w, all_ended);
		const char *request = w->server.requests[i];
		snprintf(line, sizeof(line), "%s /base/x HTTP/1.1\r\n", methods[i]);
		assert_non_null(strstr(request, line));
		assert_non_null(strstr(request, "Authorization: Basic am9lOmEgYg==\r\n"));
		assert_null(strcasestr(request, "expect:"));
		if (i == 3)
			continue;
		assert_non_null(
			strstr(request, "\r\nContent-Type: application/apply-patch+yaml\r\n"));
		assert_non_null(strstr(request, "\r\n\r\n{\"a\":1}"));
	}
}

static void test_impersonation(void **state)
{
	struct world *w = *state;
	open_with(w, "",
		"token: t, as: 'a b', as-uid: u, as-groups: [g1, g2], as-user-extra: {k/x: [v]}");
	server_add(&w->server, OK, false);
	get(w, 0);
	wait_until(w, all_ended);
	const char *request = w->server.requests[0];
	assert_non_null(strstr(request, "\r\nImpersonate-User: a b\r\n"));
	assert_non_null(strstr(request, "\r\nImpersonate-Uid: u\r\n"));
	assert_non_null(strstr(request, "\r\nImpersonate-Group: g1\r\n"));
	assert_non_null(strstr(request, "\r\nImpersonate-Group: g2\r\n"));
	assert_non_null(strstr(request, "\r\nImpersonate-Extra-k%2Fx: v\r\n"));
}

// Through a proxy the whole URL is asked for, and the server's own port hears nothing.
static void test_proxy(void **state)
{
	struct world *w = *state;
	struct server proxy;
	char cluster[80];
	server_init(&proxy, w->base);
	snprintf(cluster, sizeof(cluster), "proxy-url: 'http://127.0.0.1:%u'", proxy.port);
	open_with(w, cluster, "token: t");
	server_add(&proxy, OK, false);
	struct seen *s = get(w, 0);
	wait_until(w, all_ended);
	assert_string_equal(s->body, "hello");
	assert_int_equal(w->server.n_requests, 0);
	assert_non_null(strstr(proxy.requests[0], "GET http://127.0.0.1:"));
	server_fini(&proxy);
}

// A Warning comes with every answer and is told once.
static void test_warnings(void **state)
{
	struct world *w = *state;
	open_with(w, "", "token: t");
	w->n_notes = 0;
	for (int i = 0; i < 3; i++)
		server_add(&w->server,
			i < 2 ? "HTTP/1.1 200 OK\r\nWarning: 299 - \"old\"\r\nContent-Length: "
				"0\r\n\r\n"
			      : "HTTP/1.1 200 OK\r\nwarning: 299 - \"new\"\r\nContent-Length: "
				"0\r\n\r\n",
			false);
	for (uint32_t i = 0; i < 3; i++) {
		get(w, i);
		wait_until(w, all_ended);
		assert_int_equal(w->n_notes, i < 2 ? 1 : 2);
	}
	assert_non_null(strstr(w->last_note, "299 - \"new\""));
}

// ---------------------------------------------------------------- watches

// Watches do not push the connection out that requests are made on, one after the other.
static void test_kept_beside_watches(void **state)
{
	struct world *w = *state;
	open_with(w, "", "token: t");
	for (uint32_t i = 0; i < 9; i++) {
		server_add(&w->server, CHUNKED "3\r\nabc\r\n", false);
		watch(w, i);
		while (w->seen[i].len == 0)
			event_base_loop(w->base, EVLOOP_ONCE);
	}
	for (uint32_t i = 0; i < 4; i++) {
		server_add(&w->server, OK, false);
		get(w, 9 + i);
		while (w->seen[9 + i].n_ends == 0)
			event_base_loop(w->base, EVLOOP_ONCE);
	}
	assert_int_equal(w->server.n_connections, 10);
}

static void test_watch(void **state)
{
	struct world *w = *state;
	open_with(w, "", "token: t");
	server_add(&w->server, OK, false); // a connection that is kept, and not for a watch
	server_add(&w->server, CHUNKED "3\r\nabc\r\n", false);
	server_add(&w->server, CHUNKED "3\r\nxyz\r\n0\r\n\r\n", false);
	get(w, 2);
	wait_until(w, all_ended);
	struct seen *s = watch(w, 0);
	wait_until(w, has_body);
	assert_string_equal(s->body, "abc");
	assert_int_equal(s->n_ends, 0);
	assert_null(strcasestr(w->server.requests[1], "accept-encoding"));
	// A second watch has a connection of its own, also when the first is over.
	struct seen *other = watch(w, 1);
	while (other->n_ends == 0)
		event_base_loop(w->base, EVLOOP_ONCE);
	assert_string_equal(other->body, "xyz");
	assert_int_equal(other->how, CLUSTER_END_CLEAN);
	assert_int_equal(w->server.n_connections, 3);
	server_push(&w->server, "2\r\nde\r\n0\r\nTrailer: 1\r\n\r\n");
	wait_until(w, all_ended);
	assert_string_equal(s->body, "abcde");
	assert_int_equal(s->how, CLUSTER_END_CLEAN);
	assert_int_equal(s->n_heads, 1);
}

static void test_broken(void **state)
{
	static const struct {
		const char *bytes;
		uint32_t n_heads;
	} cases[] = {
		{ CHUNKED "5\r\nab", 1 },
		{ CHUNKED "2\r\nab\r\n", 1 },
		{ CHUNKED "zz\r\n", 1 },
		{ "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello", 1 },
		{ "HTTP/1.1 200 OK\r\nContent-Le", 0 },
		{ "junk\r\n\r\n", 0 },
		{ "", 0 },
	};
	struct world *w = *state;
	open_with(w, "", "token: t");
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		memset(&w->seen[0], 0, sizeof(w->seen[0]));
		server_add(&w->server, cases[i].bytes, true);
		// Written off at once where there is nothing to send.
		if (cases[i].bytes[0] == '\0')
			w->server.answers[w->server.n_answers - 1].bytes = "\n";
		struct seen *s = watch(w, 0);
		wait_until(w, all_ended);
		assert_int_equal(s->n_ends, 1);
		if (s->how != CLUSTER_END_BROKEN || s->n_heads != cases[i].n_heads || !s->why[0])
			fail_msg("%zu: %d, %u heads, %s", i, s->how, s->n_heads, s->why);
	}
}

static void test_refused(void **state)
{
	struct world *w = *state;
	open_with(w, "", "token: t");
	server_fini(&w->server);
	w->server.accept_event = NULL;
	w->server.fd = -1;
	w->server.n_connections = 0;
	struct seen *s = watch(w, 0);
	wait_until(w, all_ended);
	assert_int_equal(s->how, CLUSTER_END_REFUSED);
	assert_int_equal(s->n_heads, 0);
}

// A server that takes the request and says nothing; one that begins a head and never ends it.
static void test_silent(void **state)
{
	struct world *w = *state;
	open_with(w, "", "token: t");
	server_add(&w->server, NULL, false);
	server_add(&w->server, "HTTP/1.1 200 OK\r\nContent-", false);
	for (uint32_t i = 0; i < 2; i++) {
		struct seen *s = ask_for(w, i,
			(struct cluster_request){
				.path = "/x", .is_watch = true, .header_ms = 50 });
		wait_until(w, all_ended);
		assert_int_equal(s->how, CLUSTER_END_TIMEOUT);
		assert_string_equal(s->why, "no answer within 50 ms");
		assert_int_equal(s->n_heads, 0);
	}
	// The whole takes too long: a list, not a watch.
	server_add(&w->server, CHUNKED "3\r\nabc\r\n", false);
	struct seen *s = ask_for(w, 2,
		(struct cluster_request){ .path = "/x", .timeout_ms = 100, .header_ms = 5000 });
	wait_until(w, all_ended);
	assert_int_equal(s->how, CLUSTER_END_TIMEOUT);
	assert_int_equal(s->n_heads, 1);
}

// ---------------------------------------------------------------- cancel

static bool no_connection(const struct world *w)
{
	return server_n_open(&w->server) == 0;
}

static void test_cancel(void **state)
{
	struct world *w = *state;
	open_with(w, "", "token: t");
	// Before it began.
	struct seen *s = get(w, 0);
	cluster_http_cancel(s->call);
	assert_int_equal(cluster_http_count(w->http), 0);
	event_base_loop(w->base, EVLOOP_NONBLOCK);
	assert_int_equal(w->server.n_requests, 0);
	// While the server thinks.
	server_add(&w->server, NULL, false);
	s = watch(w, 1);
	wait_until(w, has_request);
	cluster_http_cancel(s->call);
	wait_until(w, no_connection);
	// From within its own callbacks.
	server_add(&w->server, CHUNKED "3\r\nabc\r\n", false);
	server_add(&w->server, CHUNKED "3\r\nabc\r\n3\r\ndef\r\n", false);
	w->seen[2].cancels_at_head = true;
	s = watch(w, 2);
	wait_until(w, all_ended);
	assert_int_equal(s->n_heads, 1);
	assert_int_equal(s->len, 0);
	w->seen[3].cancels_at_body = true;
	s = watch(w, 3);
	wait_until(w, all_ended);
	assert_true(s->len > 0);
	wait_until(w, no_connection);
	for (uint32_t i = 0; i < 4; i++)
		assert_int_equal(w->seen[i].n_ends, 0);
}

// A request that is begun within a callback.
static void test_begin_within(void **state)
{
	struct world *w = *state;
	open_with(w, "", "token: t");
	server_add(&w->server, OK, false);
	server_add(&w->server, OK, false);
	w->seen[0].begins_another = true;
	get(w, 0);
	wait_until(w, all_ended);
	assert_int_equal(w->seen[0].n_ends, 1);
	assert_int_equal(w->seen[7].n_ends, 1);
	assert_string_equal(w->seen[7].body, "hello");
}

static void test_destroy_running(void **state)
{
	struct world *w = *state;
	open_with(w, "", "token: t");
	server_add(&w->server, CHUNKED "3\r\nabc\r\n", false);
	watch(w, 0);
	wait_until(w, has_body);
	get(w, 1); // waits
	cluster_http_destroy(w->http);
	w->http = NULL;
	assert_int_equal(w->seen[0].n_ends + w->seen[1].n_ends, 0);
}

// ---------------------------------------------------------------- credentials

// 401 with a token that cannot change is the answer, once.
static void test_unauthorized(void **state)
{
	struct world *w = *state;
	open_with(w, "", "token: t");
	server_add(&w->server, UNAUTHORIZED, false);
	struct seen *s = get(w, 0);
	wait_until(w, all_ended);
	assert_int_equal(s->n_heads, 1);
	assert_int_equal(s->status, 401);
	assert_int_equal(s->how, CLUSTER_END_CLEAN);
	assert_int_equal(w->server.n_requests, 1);
}

// The token changed meanwhile: read again, asked again, the first answer is never told.
static void test_new_token(void **state)
{
	struct world *w = *state;
	put_file(w, "token", "one");
	open_with(w, "", "tokenFile: token");
	server_add(&w->server, UNAUTHORIZED, false);
	server_add(&w->server, OK, false);
	server_add(&w->server, UNAUTHORIZED, false);
	put_file(w, "token", "two"); // not looked at yet
	struct seen *s = get(w, 0);
	wait_until(w, all_ended);
	assert_int_equal(s->n_heads, 1);
	assert_int_equal(s->status, 200);
	assert_string_equal(s->body, "hello");
	assert_non_null(strstr(w->server.requests[0], "Bearer one"));
	assert_non_null(strstr(w->server.requests[1], "Bearer two"));
	// No other token: the answer.
	s = get(w, 1);
	wait_until(w, all_ended);
	assert_int_equal(s->status, 401);
	assert_int_equal(w->server.n_requests, 3);
}

// Still 401 with the new token: told, no third try.
static void test_still_unauthorized(void **state)
{
	struct world *w = *state;
	put_file(w, "token", "one");
	open_with(w, "", "tokenFile: token");
	server_add(&w->server, UNAUTHORIZED, false);
	server_add(&w->server, UNAUTHORIZED, false);
	put_file(w, "token", "two");
	struct seen *s = get(w, 0);
	wait_until(w, all_ended);
	assert_int_equal(s->n_heads, 1);
	assert_int_equal(s->status, 401);
	assert_string_equal(s->body, "nope");
	assert_int_equal(w->server.n_requests, 2);
}

// Requests wait for a plugin, then go.
static void test_waits_for_plugin(void **state)
{
	struct world *w = *state;
	put_file(w, "plugin",
		"#!/bin/sh\nwhile [ ! -e $0.go ]; do sleep 0.02; done\n"
		"echo "
		"'{\"kind\":\"ExecCredential\",\"apiVersion\":\"client.authentication.k8s.io/v1\","
		"\"status\":{\"token\":\"mine\"}}'\n");
	open_with(w, "",
		"exec: {apiVersion: client.authentication.k8s.io/v1, command: ./plugin, "
		"interactiveMode: "
		"Never}");
	server_add(&w->server, OK, false);
	struct seen *s = get(w, 0);
	for (int i = 0; i < 5; i++)
		event_base_loop(w->base, EVLOOP_ONCE);
	assert_int_equal(w->server.n_requests, 0);
	put_file(w, "plugin.go", "");
	wait_until(w, all_ended);
	assert_int_equal(s->status, 200);
	assert_non_null(strstr(w->server.requests[0], "Bearer mine"));
}

// A watch that was made with other certificates ends, cleanly, so that it begins anew; a plain request goes on.
static void test_other_certificates(void **state)
{
	struct world *w = *state;
	open_with(w, "", "token: t");
	server_add(&w->server, CHUNKED "3\r\nabc\r\n", false);
	server_add(&w->server, CHUNKED "3\r\nxyz\r\n", false);
	struct seen *s = watch(w, 0);
	wait_until(w, has_body);
	struct seen *other = get(w, 1);
	while (other->len == 0)
		event_base_loop(w->base, EVLOOP_ONCE);
	cluster_http_wake(w->http); // nothing changed: nothing happens
	event_base_loop(w->base, EVLOOP_NONBLOCK);
	assert_int_equal(s->n_ends, 0);
	char text[500];
	snprintf(text, sizeof(text),
		"current-context: c\ncontexts: [{name: c, context: {cluster: k, user: u}}]\n"
		"clusters: [{name: k, cluster: {server: 'http://127.0.0.1:%u/base', "
		"tls-server-name: a}}]\n"
		"users: [{name: u, user: {token: t}}]\n",
		w->server.port);
	put_file(w, "kubeconfig", text);
	time_t end = time(NULL) + WAIT_S;
	while (s->n_ends == 0 && time(NULL) < end)
		event_base_loop(w->base, EVLOOP_ONCE);
	assert_int_equal(s->n_ends, 1);
	assert_int_equal(s->how, CLUSTER_END_CLEAN);
	assert_int_equal(other->n_ends, 0);
}

#define IN_WORLD(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		IN_WORLD(test_get),
		IN_WORLD(test_write),
		IN_WORLD(test_impersonation),
		IN_WORLD(test_proxy),
		IN_WORLD(test_warnings),
		IN_WORLD(test_kept_beside_watches),
		IN_WORLD(test_watch),
		IN_WORLD(test_broken),
		IN_WORLD(test_refused),
		IN_WORLD(test_silent),
		IN_WORLD(test_cancel),
		IN_WORLD(test_begin_within),
		IN_WORLD(test_destroy_running),
		IN_WORLD(test_unauthorized),
		IN_WORLD(test_new_token),
		IN_WORLD(test_still_unauthorized),
		IN_WORLD(test_waits_for_plugin),
		IN_WORLD(test_other_certificates),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
