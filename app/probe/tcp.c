// SPDX-License-Identifier: BSD-3-Clause
// A TCP connection is made: good. It is closed with a reset at once (SO_LINGER 0), so that probes leave no TIME_WAIT
// behind, here or there. The kernel chooses the source address and the way, which is the twin's for a backend behind it.
#include "probe_priv.h"

#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

void probe_tcp_cancel(struct probe_target *t)
{
	if (t->io != NULL)
		event_free(t->io);
	t->io = NULL;
	if (t->fd >= 0)
		close(t->fd);
	t->fd = -1;
}

static void finish(struct probe_target *t, int code)
{
	char reason[128];
	probe_tcp_cancel(t);
	snprintf(reason, sizeof(reason), "connect: %s", strerror(code));
	if (code == 0)
		probe_finish(t, PROBE_GOOD, "");
	else
		probe_finish(t, probe_is_own_error(code) ? PROBE_CANNOT : PROBE_BAD, reason);
}

static void on_io(evutil_socket_t fd, short what, void *arg)
{
	struct probe_target *t = arg;
	if (what & EV_TIMEOUT) {
		char reason[64];
		snprintf(reason, sizeof(reason), "timeout after %ums", t->what.check.timeout_ms);
		probe_tcp_cancel(t);
		probe_finish(t, PROBE_BAD, reason);
		return;
	}
	int code = 0;
	socklen_t len = sizeof(code);
	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &code, &len) != 0)
		code = errno;
	finish(t, code);
}

static int connect_to(int fd, const struct control_probe *what)
{
	if (address_is_v4(&what->address)) {
		struct sockaddr_in to = { .sin_family = AF_INET,
			.sin_port = htons(what->port),
			.sin_addr.s_addr = address_v4(&what->address) };
		return connect(fd, (struct sockaddr *)&to, sizeof(to));
	}
	struct sockaddr_in6 to = { .sin6_family = AF_INET6, .sin6_port = htons(what->port) };
	memcpy(&to.sin6_addr, what->address.bytes, 16);
	return connect(fd, (struct sockaddr *)&to, sizeof(to));
}

void probe_tcp_begin(struct probe_target *t)
{
	static const struct linger reset = { .l_onoff = 1, .l_linger = 0 };
	uint32_t timeout_ms = t->what.check.timeout_ms;
	struct timeval timeout = { .tv_sec = timeout_ms / 1000,
		.tv_usec = timeout_ms % 1000 * 1000 };
	t->fd = socket(address_is_v4(&t->what.address) ? AF_INET : AF_INET6,
		SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP);
	if (t->fd < 0) {
		finish(t, errno);
		return;
	}
	setsockopt(t->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	if (connect_to(t->fd, &t->what) == 0) {
		finish(t, 0);
		return;
	}
	if (errno != EINPROGRESS) {
		finish(t, errno);
		return;
	}
	t->io = event_new(t->owner->base, t->fd, EV_WRITE | EV_TIMEOUT, on_io, t);
	if (t->io == NULL || event_add(t->io, &timeout) != 0)
		finish(t, ENOMEM);
}
