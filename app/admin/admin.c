// SPDX-License-Identifier: BSD-3-Clause
// Listeners and the marriage of libmicrohttpd with the control loop: each MHD daemon runs without threads of its
// own, its epoll descriptor is an event of the loop, and after every run the library is asked when it wants to be
// run again (without that, connections with bytes left in its buffers would hang). What a request does is elsewhere.
//
// Invariants: one MHD daemon per listener; a UNIX socket file is removed only while it is still the one made here.
#include "admin_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <arpa/inet.h>
#include <netinet/in.h>

uint64_t admin_now_ns(void)
{
	struct clock clock = clock_monotonic();
	return clock_now_ns(&clock);
}

// ---------------------------------------------------------------- the loop
static void server_arm(struct admin_server *server)
{
	MHD_UNSIGNED_LONG_LONG timeout_ms = 0;
	if (MHD_get_timeout(server->daemon, &timeout_ms) != MHD_YES) {
		event_del(server->timer);
		return;
	}
	struct timeval tv = { .tv_sec = (time_t)(timeout_ms / 1000),
		.tv_usec = (suseconds_t)(timeout_ms % 1000 * 1000) };
	event_add(server->timer, &tv);
}

static void server_run(evutil_socket_t fd, short events, void *arg)
{
	struct admin_server *server = arg;
	uint64_t n_closed = server->n_closed;
	MHD_run(server->daemon);
	server_arm(server);
	// A full daemon takes its listening socket out of its epoll set and puts it back only in the run after a
	// connection has gone; no event would bring that run about.
	if (server->n_closed != n_closed)
		event_active(server->timer, EV_TIMEOUT, 0);
}

static void mhd_log(void *arg, const char *fmt, va_list ap)
{
	struct admin *admin = arg;
	char line[512];
	vsnprintf(line, sizeof(line), fmt, ap);
	line[strcspn(line, "\n")] = 0;
	log_write(control_log(admin->control), LOG_LEVEL_DEBUG, "admin-http", "%s", line);
}

// Paths and queries are decoded by uri.c, piece by piece: MHD must not do it before.
static size_t keep_escapes(void *arg, struct MHD_Connection *connection, char *text)
{
	return strlen(text);
}

static int server_start(struct admin_server *server, int fd, struct error *err)
{
	struct admin *admin = server->admin;
	unsigned int flags = MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG;
	uint32_t seconds =
		(admin->config.header_timeout_ms + admin->config.request_timeout_ms) / 1000;
	server->daemon = MHD_start_daemon(flags, 0, NULL, NULL, request_step, server,
		MHD_OPTION_EXTERNAL_LOGGER, mhd_log, admin, MHD_OPTION_LISTEN_SOCKET, fd,
		MHD_OPTION_CONNECTION_LIMIT, (unsigned int)ADMIN_CONNECTIONS_MAX,
		MHD_OPTION_PER_IP_CONNECTION_LIMIT,
		(unsigned int)(server->is_unix ? 0 : ADMIN_PER_IP_MAX),
		MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)ADMIN_HEADER_BYTES,
		MHD_OPTION_CONNECTION_TIMEOUT, (unsigned int)seconds + 1,
		MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_UNESCAPE_CALLBACK, keep_escapes, NULL,
		MHD_OPTION_URI_LOG_CALLBACK, request_begin, server, MHD_OPTION_NOTIFY_COMPLETED,
		request_end, server, MHD_OPTION_NOTIFY_CONNECTION, connection_notify, server,
		MHD_OPTION_END);
	if (server->daemon == NULL) {
		close(fd);
		return error_add(
			err, EIO, "admin", "%s: the HTTP server does not start", server->name);
	}
	const union MHD_DaemonInfo *epoll =
		MHD_get_daemon_info(server->daemon, MHD_DAEMON_INFO_EPOLL_FD);
	struct event_base *base = control_base(admin->control);
	server->readable =
		event_new(base, epoll->epoll_fd, EV_READ | EV_PERSIST, server_run, server);
	server->timer = evtimer_new(base, server_run, server);
	if (server->readable == NULL || server->timer == NULL ||
		event_add(server->readable, NULL) != 0)
		return error_add(err, ENOMEM, "admin", "%s: out of memory", server->name);
	server_arm(server);
	return 0;
}

static void server_stop(struct admin_server *server)
{
	if (server->readable)
		event_free(server->readable);
	if (server->timer)
		event_free(server->timer);
	if (server->daemon)
		MHD_stop_daemon(server->daemon);
	struct stat st;
	if (server->is_unix && server->ino != 0 && lstat(server->name, &st) == 0 &&
		st.st_dev == server->dev && st.st_ino == server->ino)
		unlink(server->name);
	memset(server, 0, sizeof(*server));
}

// ---------------------------------------------------------------- UNIX socket
// 0: nobody is there any more (or never was); the path is free.
static int clear_stale(const struct sockaddr_un *sun, struct error *err)
{
	struct stat st;
	if (lstat(sun->sun_path, &st) != 0)
		return 0;
	if (!S_ISSOCK(st.st_mode))
		return error_add(err, EEXIST, "admin.socket",
			"%s exists and is not a socket: choose another path", sun->sun_path);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return error_add(err, errno, "admin.socket", "socket: %s", strerror(errno));
	// EAGAIN: a full backlog, so somebody is there.
	bool alive =
		connect(fd, (const struct sockaddr *)sun, sizeof(*sun)) == 0 || errno == EAGAIN;
	close(fd);
	if (alive)
		return error_add(err, EADDRINUSE, "admin.socket",
			"%s: another process answers on it (a second sluiced?)", sun->sun_path);
	unlink(sun->sun_path);
	return 0;
}

static int unix_listen(struct admin_server *server, const char *path, struct error *err)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	if (strlen(path) >= sizeof(sun.sun_path))
		return error_add(err, EINVAL, "admin.socket", "%s: longer than %zu bytes", path,
			sizeof(sun.sun_path) - 1);
	snprintf(sun.sun_path, sizeof(sun.sun_path), "%s", path);
	int rc = clear_stale(&sun, err);
	if (rc != 0)
		return rc;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return error_add(err, errno, "admin.socket", "socket: %s", strerror(errno));
	mode_t mask = umask(0117); // from the first moment nobody else may connect
	rc = bind(fd, (struct sockaddr *)&sun, sizeof(sun));
	int bind_errno = errno;
	umask(mask);
	if (rc != 0 || listen(fd, ADMIN_CONNECTIONS_MAX) != 0) {
		int code = rc != 0 ? bind_errno : errno;
		close(fd);
		return error_add(err, code, "admin.socket", "%s: %s", path, strerror(code));
	}
	struct group *group = getgrnam("sluice");
	if (group != NULL && chown(path, (uid_t)-1, group->gr_gid) != 0)
		log_write(control_log(server->admin->control), LOG_LEVEL_WARN, "admin-socket",
			"%s: cannot give it to the group sluice: %s", path, strerror(errno));
	struct stat st;
	if (lstat(path, &st) == 0) {
		server->gid = st.st_gid;
		server->dev = st.st_dev;
		server->ino = st.st_ino;
	}
	return fd;
}

// ---------------------------------------------------------------- TCP
static int tcp_listen(const struct admin_listen *listen_on, struct error *err)
{
	struct address address;
	if (address_parse(listen_on->address, &address) != 0)
		return error_add(err, EINVAL, "admin.listen",
			"%s: an IPv4 or IPv6 address is needed", listen_on->address);
	bool v4 = address_is_v4(&address);
	union {
		struct sockaddr any;
		struct sockaddr_in in;
		struct sockaddr_in6 in6;
	} sa = { 0 };
	if (v4) {
		sa.in = (struct sockaddr_in){ .sin_family = AF_INET,
			.sin_port = htons(listen_on->port),
			.sin_addr.s_addr = address_v4(&address) };
	} else {
		sa.in6 = (struct sockaddr_in6){ .sin6_family = AF_INET6,
			.sin6_port = htons(listen_on->port) };
		memcpy(&sa.in6.sin6_addr, address.bytes, 16);
	}
	int fd = socket(sa.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int one = 1;
	if (fd >= 0 && (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) != 0 ||
			       (!v4 && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one,
					       sizeof(one)) != 0) ||
			       bind(fd, &sa.any, v4 ? sizeof(sa.in) : sizeof(sa.in6)) != 0 ||
			       listen(fd, ADMIN_CONNECTIONS_MAX) != 0)) {
		int code = errno;
		close(fd);
		errno = code;
		fd = -1;
	}
	if (fd < 0)
		return error_add(err, errno, "admin.listen", "%s port %u: %s", listen_on->address,
			listen_on->port, strerror(errno));
	return fd;
}

static int tcp_start(
	struct admin_server *server, const struct admin_listen *listen_on, struct error *err)
{
	struct address address;
	if (address_parse(listen_on->address, &address) == 0)
		endpoint_format(&address, listen_on->port, server->name, sizeof(server->name));
	memcpy(server->tokens.path, listen_on->tokens_file, sizeof(server->tokens.path));
	int rc = tokens_load(&server->tokens, err);
	if (rc != 0)
		return rc;
	int fd = tcp_listen(listen_on, err);
	return fd < 0 ? fd : server_start(server, fd, err);
}

// ---------------------------------------------------------------- open, close
static int open_listeners(struct admin *admin, struct error *err)
{
	if (admin->config.socket[0] != 0) {
		struct admin_server *server = &admin->servers[admin->n_servers++];
		server->admin = admin;
		server->is_unix = true;
		memcpy(server->name, admin->config.socket, sizeof(admin->config.socket));
		int fd = unix_listen(server, admin->config.socket, err);
		int rc = fd < 0 ? fd : server_start(server, fd, err);
		if (rc != 0)
			return rc;
	}
	for (uint32_t i = 0; i < admin->config.n_listens; i++) {
		struct admin_server *server = &admin->servers[admin->n_servers++];
		server->admin = admin;
		int rc = tcp_start(server, &admin->config.listens[i], err);
		if (rc != 0)
			return rc;
	}
	return 0;
}

int admin_open(struct control *control, const struct admin_config *config, struct admin **out,
	struct error *err)
{
	struct admin *admin = calloc(1, sizeof(*admin));
	if (admin == NULL)
		return error_add(err, ENOMEM, "admin", "out of memory");
	admin->control = control;
	admin->config = *config;
	if (admin->config.header_timeout_ms == 0)
		admin->config.header_timeout_ms = 10000;
	if (admin->config.request_timeout_ms == 0)
		admin->config.request_timeout_ms = 30000;
	if (getrandom(&admin->request_seed, sizeof(admin->request_seed), 0) < 0)
		admin->request_seed = admin_now_ns();
	int rc = open_listeners(admin, err);
	if (rc != 0) {
		admin_destroy(admin);
		return rc;
	}
	struct timeval second = { .tv_sec = 1 };
	admin->sampler = event_new(control_base(control), -1, EV_PERSIST, sampler_tick, admin);
	if (admin->sampler)
		event_add(admin->sampler, &second);
	sampler_tick(-1, 0, admin);
	for (uint32_t i = 0; i < admin->n_servers; i++)
		log_write(control_log(control), LOG_LEVEL_INFO, "admin-listen", "REST on %s",
			admin->servers[i].name);
	*out = admin;
	return 0;
}

void admin_destroy(struct admin *admin)
{
	if (admin == NULL)
		return;
	wait_abandon_all(admin); // MHD may not be stopped while connections sleep
	for (uint32_t i = 0; i < admin->n_servers; i++)
		server_stop(&admin->servers[i]);
	if (admin->sampler)
		event_free(admin->sampler);
	free(admin);
}
