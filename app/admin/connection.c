// SPDX-License-Identifier: BSD-3-Clause
// Connections and their absolute deadlines. MHD's own timeout counts inactivity, so one byte a while would keep a
// connection for ever; here the headers must be there within header_timeout of the connection (or of the last
// answer), and the answer must be taken within request_timeout of the headers. Late ones are shut down; MHD sees
// the end of the stream and cleans up.
//
// When a listener is nearly full, the connection that has waited longest without a whole request gives way, so that
// slow clients cannot keep others out until their deadline.
#include "admin_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>

#include <netinet/in.h>

static void deadline_passed(evutil_socket_t fd, short events, void *arg)
{
	struct admin_connection *connection = arg;
	connection->server->admin->n_deadlines++;
	connection_close(connection);
}

void connection_set_deadline(
	struct admin_connection *connection, enum admin_phase phase, uint32_t timeout_ms)
{
	if (connection->phase == ADMIN_PHASE_CLOSING)
		return;
	connection->phase = phase;
	struct timeval tv = { .tv_sec = timeout_ms / 1000,
		.tv_usec = (suseconds_t)(timeout_ms % 1000 * 1000) };
	event_add(connection->deadline, &tv);
}

void connection_close(struct admin_connection *connection)
{
	connection->phase = ADMIN_PHASE_CLOSING;
	event_del(connection->deadline);
	shutdown(connection->fd, SHUT_RDWR);
}

static void evict_slowest(struct admin_server *server)
{
	struct admin_connection *c = server->admin->oldest;
	while (c && (c->server != server || c->phase != ADMIN_PHASE_HEADERS))
		c = c->next;
	if (c == NULL)
		return;
	server->admin->n_evicted++;
	connection_close(c);
}

static void peer_fill(struct admin_connection *c, const struct sockaddr *sa)
{
	if (c->server->is_unix) {
		struct ucred cred;
		socklen_t len = sizeof(cred);
		c->uid = (uid_t)-1;
		c->gid = (gid_t)-1;
		if (getsockopt(c->fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) == 0) {
			c->uid = cred.uid;
			c->gid = cred.gid;
		}
	} else if (sa != NULL && sa->sa_family == AF_INET) {
		c->peer = address_from_v4(
			((const struct sockaddr_in *)(const void *)sa)->sin_addr.s_addr);
	} else if (sa != NULL && sa->sa_family == AF_INET6) {
		memcpy(c->peer.bytes, &((const struct sockaddr_in6 *)(const void *)sa)->sin6_addr,
			16);
	}
}

static struct admin_connection *connection_create(
	struct admin_server *server, struct MHD_Connection *mhd)
{
	const union MHD_ConnectionInfo *fd =
		MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD);
	const union MHD_ConnectionInfo *address =
		MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
	struct admin_connection *c = calloc(1, sizeof(*c));
	if (c == NULL || fd == NULL) {
		free(c);
		return NULL;
	}
	c->server = server;
	c->fd = fd->connect_fd;
	c->deadline = evtimer_new(control_base(server->admin->control), deadline_passed, c);
	if (c->deadline == NULL) {
		free(c);
		return NULL;
	}
	peer_fill(c, address ? address->client_addr : NULL);
	return c;
}

static void connection_started(
	struct admin_server *server, struct MHD_Connection *mhd, void **socket_context)
{
	struct admin *admin = server->admin;
	struct admin_connection *c = connection_create(server, mhd);
	*socket_context = c; // NULL: the request will be refused
	if (c == NULL)
		return;
	c->prev = admin->newest;
	if (admin->newest)
		admin->newest->next = c;
	else
		admin->oldest = c;
	admin->newest = c;
	server->n_connections++;
	connection_set_deadline(c, ADMIN_PHASE_HEADERS, admin->config.header_timeout_ms);
	if (server->n_connections > ADMIN_CONNECTIONS_MAX - 8)
		evict_slowest(server);
}

static void connection_ended(struct admin_connection *c)
{
	struct admin *admin = c->server->admin;
	if (c->prev)
		c->prev->next = c->next;
	else
		admin->oldest = c->next;
	if (c->next)
		c->next->prev = c->prev;
	else
		admin->newest = c->prev;
	c->server->n_connections--;
	c->server->n_closed++;
	event_free(c->deadline);
	free(c);
}

void connection_notify(void *arg, struct MHD_Connection *mhd, void **socket_context,
	enum MHD_ConnectionNotificationCode code)
{
	if (code == MHD_CONNECTION_NOTIFY_STARTED) {
		connection_started(arg, mhd, socket_context);
	} else if (*socket_context) {
		connection_ended(*socket_context);
		*socket_context = NULL;
	}
}
