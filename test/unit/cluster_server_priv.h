// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// A server of bytes on a loopback port, in the loop of the test: each request gets the next answer of a script, byte by byte as
// written there. What was asked is kept.
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <sys/socket.h>
#include <unistd.h>

#define SERVER_ANSWERS_MAX 16
#define SERVER_TEXT_MAX    8192

struct server_answer {
	const char *bytes; // NULL: no answer
	bool closes;       // after the bytes
};

struct server {
	struct event_base *base;
	int fd;
	uint16_t port;
	struct event *accept_event;
	struct server_answer answers[SERVER_ANSWERS_MAX];
	uint32_t n_answers, n_requests, n_connections;
	char requests[SERVER_ANSWERS_MAX][SERVER_TEXT_MAX];
	struct bufferevent *connections[64];
};

static inline bool server_has_whole(struct evbuffer *in, size_t *out_len)
{
	struct evbuffer_ptr end = evbuffer_search(in, "\r\n\r\n", 4, NULL);
	char head[SERVER_TEXT_MAX];
	if (end.pos < 0)
		return false;
	ssize_t n = evbuffer_copyout(in, head, sizeof(head) - 1);
	head[n] = '\0';
	const char *length = strcasestr(head, "content-length:");
	*out_len = (size_t)end.pos + 4 + (length ? strtoul(length + 15, NULL, 10) : 0);
	return evbuffer_get_length(in) >= *out_len;
}

static inline void server_sent(struct bufferevent *connection, void *arg)
{
	struct server *s = arg;
	for (uint32_t i = 0; i < s->n_connections; i++)
		if (s->connections[i] == connection)
			s->connections[i] = NULL;
	bufferevent_free(connection);
}

static inline void server_read(struct bufferevent *connection, void *arg)
{
	struct server *s = arg;
	struct evbuffer *in = bufferevent_get_input(connection);
	size_t len = 0;
	while (server_has_whole(in, &len)) {
		assert_true(s->n_requests < SERVER_ANSWERS_MAX && len < SERVER_TEXT_MAX);
		evbuffer_remove(in, s->requests[s->n_requests], len);
		s->requests[s->n_requests][len] = '\0';
		struct server_answer *answer = &s->answers[s->n_requests++];
		if (answer->bytes)
			bufferevent_write(connection, answer->bytes, strlen(answer->bytes));
		if (answer->closes)
			bufferevent_setcb(connection, NULL, server_sent, NULL, s);
	}
}

static inline void server_event(struct bufferevent *connection, short what, void *arg)
{
	if (what & (BEV_EVENT_EOF | BEV_EVENT_ERROR))
		server_sent(connection, arg);
}

static inline void server_accept(evutil_socket_t fd, short what, void *arg)
{
	struct server *s = arg;
	int to = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (to < 0)
		return;
	assert_true(s->n_connections < 64);
	struct bufferevent *connection = bufferevent_socket_new(s->base, to, BEV_OPT_CLOSE_ON_FREE);
	s->connections[s->n_connections++] = connection;
	bufferevent_setcb(connection, server_read, NULL, server_event, s);
	bufferevent_enable(connection, EV_READ | EV_WRITE);
}

static inline void server_init(struct server *s, struct event_base *base)
{
	struct sockaddr_in to = { .sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(to);
	memset(s, 0, sizeof(*s));
	s->base = base;
	s->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	assert_true(s->fd >= 0);
	assert_int_equal(bind(s->fd, (struct sockaddr *)&to, sizeof(to)), 0);
	assert_int_equal(listen(s->fd, 16), 0);
	assert_int_equal(getsockname(s->fd, (struct sockaddr *)&to, &len), 0);
	s->port = ntohs(to.sin_port);
	s->accept_event = event_new(base, s->fd, EV_READ | EV_PERSIST, server_accept, s);
	event_add(s->accept_event, NULL);
}

static inline void server_add(struct server *s, const char *bytes, bool closes)
{
	s->answers[s->n_answers++] = (struct server_answer){ bytes, closes };
}

// More bytes to everybody who is connected.
static inline void server_push(struct server *s, const char *bytes)
{
	for (uint32_t i = 0; i < s->n_connections; i++)
		if (s->connections[i])
			bufferevent_write(s->connections[i], bytes, strlen(bytes));
}

static inline uint32_t server_n_open(const struct server *s)
{
	uint32_t n = 0;
	for (uint32_t i = 0; i < s->n_connections; i++)
		n += s->connections[i] != NULL;
	return n;
}

static inline void server_fini(struct server *s)
{
	for (uint32_t i = 0; i < s->n_connections; i++)
		if (s->connections[i])
			bufferevent_free(s->connections[i]);
	if (s->accept_event)
		event_free(s->accept_event);
	if (s->fd >= 0)
		close(s->fd);
}
