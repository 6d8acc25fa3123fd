// SPDX-License-Identifier: BSD-3-Clause
// How the kernel is spoken to: requests that wait for their answer (the kernel gives it within the
// call, so this is no wait but for its own lock), and dumps that run in the event loop because they
// may be long.
#include "punt_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>

#define ANSWER_WAIT_S    1
#define RECEIVE_BYTES    (8 << 20) // a burst of some 20,000 events
#define DUMP_DELAY_MS    5
#define DUMP_PATIENCE_MS 2000 // without any answer
#define DUMP_RETRY_MS    1000 // after a failure

int netlink_open(struct netlink *n, uint32_t groups, bool is_waiting)
{
	static const struct timeval wait = { .tv_sec = ANSWER_WAIT_S };
	int size = RECEIVE_BYTES, on = 1;
	n->socket =
		mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC | (is_waiting ? 0 : SOCK_NONBLOCK));
	if (n->socket == NULL)
		return -errno;
	if (mnl_socket_bind(n->socket, groups, MNL_SOCKET_AUTOPID) != 0) {
		int status = -errno;
		netlink_close(n);
		return status;
	}
	int fd = netlink_fd(n);
	// Refusals cost speed, not truth: an overrun is told and answered by a dump; an unfiltered
	// dump holds more than was asked for.
	if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size)) != 0)
		setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
	setsockopt(fd, SOL_NETLINK, NETLINK_GET_STRICT_CHK, &on, sizeof(on));
	setsockopt(fd, SOL_NETLINK, NETLINK_CAP_ACK, &on, sizeof(on));
	if (is_waiting)
		setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait));
	n->port_id = mnl_socket_get_portid(n->socket);
	n->seq = 1;
	return 0;
}

void netlink_close(struct netlink *n)
{
	if (n->socket != NULL)
		mnl_socket_close(n->socket);
	n->socket = NULL;
}

int netlink_fd(const struct netlink *n)
{
	return mnl_socket_get_fd(n->socket);
}

struct nlmsghdr *netlink_message(struct netlink *n, void *buf, uint16_t type, uint16_t flags)
{
	struct nlmsghdr *m = mnl_nlmsg_put_header(buf);
	m->nlmsg_type = type;
	m->nlmsg_flags = (uint16_t)(NLM_F_REQUEST | flags);
	m->nlmsg_seq = ++n->seq;
	return m;
}

int netlink_send(struct netlink *n, const struct nlmsghdr *m)
{
	return mnl_socket_sendto(n->socket, m, m->nlmsg_len) < 0 ? -errno : 0;
}

static int visit_nothing(const struct nlmsghdr *m, void *arg)
{
	return MNL_CB_OK;
}

// A dump during which tables changed says so in its messages, and libmnl stops at the first of
// them. What came is of use all the same: takes the mark off and tells it.
static bool take_interruption(uint8_t *buf, ssize_t len)
{
	bool was_interrupted = false;
	int left = (int)len;
	for (struct nlmsghdr *m = (void *)buf; mnl_nlmsg_ok(m, left);
		m = mnl_nlmsg_next(m, &left)) {
		was_interrupted |= (m->nlmsg_flags & NLM_F_DUMP_INTR) != 0;
		m->nlmsg_flags &= (uint16_t)~NLM_F_DUMP_INTR;
	}
	return was_interrupted;
}

int netlink_collect(struct netlink *n, struct nlmsghdr *m, mnl_cb_t fn, void *arg)
{
	static const uint32_t answers_max = 1u << 20; // only a kernel gone mad gets there
	uint32_t seq = m->nlmsg_seq;
	uint8_t buf[NETLINK_BUFFER_BYTES];
	int status = netlink_send(n, m);
	for (uint32_t i = 0; status == 0 && i < answers_max; i++) {
		ssize_t len = mnl_socket_recvfrom(n->socket, buf, sizeof(buf));
		if (len < 0 && errno == EINTR)
			continue;
		if (len < 0)
			return errno == EAGAIN ? -ETIMEDOUT : -errno;
		take_interruption(buf, len);
		int more = mnl_cb_run(buf, (size_t)len, seq, n->port_id, fn, arg);
		// Late answers to a request given up before carry another number.
		if (more < 0 && errno == EPROTO)
			continue;
		if (more < 0)
			return -errno;
		if (more == MNL_CB_STOP)
			return 0;
	}
	return status;
}

int netlink_ask(struct netlink *n, struct nlmsghdr *m)
{
	m->nlmsg_flags |= NLM_F_ACK;
	return netlink_collect(n, m, visit_nothing, NULL);
}

// ---------------------------------------------------------------- dumps in the loop

static void dump_schedule(struct dump *d, uint64_t delay_ms)
{
	struct timeval delay = { .tv_sec = (time_t)(delay_ms / 1000),
		.tv_usec = (suseconds_t)(delay_ms % 1000 * 1000) };
	evtimer_add(d->timer, &delay);
}

static uint64_t now_ns(void)
{
	struct clock clock = clock_monotonic();
	return clock_now_ns(&clock);
}

void dump_again(struct dump *d)
{
	if (d->is_running || d->is_scheduled) {
		d->again |= d->is_running;
		return;
	}
	uint64_t pause_ms = d->last_ns * 10 / CLOCK_MS;
	d->is_scheduled = true;
	dump_schedule(d, pause_ms > DUMP_DELAY_MS ? pause_ms : DUMP_DELAY_MS);
}

static void dump_end(struct dump *d, bool is_whole)
{
	evtimer_del(d->timer);
	d->is_running = false;
	d->last_ns = now_ns() - d->started_ns;
	d->done(d->arg, is_whole);
	if (!is_whole && d->last_ns < DUMP_RETRY_MS * CLOCK_MS / 10)
		d->last_ns = DUMP_RETRY_MS * CLOCK_MS / 10;
	if (d->again || !is_whole)
		dump_again(d);
	d->again = false;
}

// The same timer starts a dump and ends the patience with one that does not answer.
static void dump_on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct dump *d = arg;
	uint8_t buf[NETLINK_BUFFER_BYTES];
	if (d->is_running) {
		d->netlink.seq++; // late answers are not ours any more
		dump_end(d, false);
		return;
	}
	d->is_scheduled = false;
	d->is_running = true;
	d->started_ns = now_ns();
	struct nlmsghdr *m = d->request(d->arg, buf);
	m->nlmsg_flags |= NLM_F_DUMP;
	if (netlink_send(&d->netlink, m) != 0)
		dump_end(d, false);
	else
		dump_schedule(d, DUMP_PATIENCE_MS);
}

static void dump_on_readable(evutil_socket_t fd, short what, void *arg)
{
	struct dump *d = arg;
	uint8_t buf[NETLINK_BUFFER_BYTES];
	for (uint32_t i = 0; i < PUNT_MESSAGES_PER_TURN; i++) {
		ssize_t len = mnl_socket_recvfrom(d->netlink.socket, buf, sizeof(buf));
		if (len < 0)
			return;
		if (!d->is_running)
			continue;
		dump_schedule(d, DUMP_PATIENCE_MS);
		d->again |= take_interruption(buf, len);
		int more = mnl_cb_run(
			buf, (size_t)len, d->netlink.seq, d->netlink.port_id, d->visit, d->arg);
		if (more < 0 && errno == EPROTO)
			continue;
		else if (more < 0 || more == MNL_CB_STOP)
			dump_end(d, more == MNL_CB_STOP);
	}
}

int dump_init(struct dump *d, struct event_base *base)
{
	int status = netlink_open(&d->netlink, 0, false);
	if (status != 0)
		return status;
	d->readable =
		event_new(base, netlink_fd(&d->netlink), EV_READ | EV_PERSIST, dump_on_readable, d);
	d->timer = evtimer_new(base, dump_on_timer, d);
	if (d->readable == NULL || d->timer == NULL || event_add(d->readable, NULL) != 0)
		return -ENOMEM;
	return 0;
}

void dump_fini(struct dump *d)
{
	if (d->readable != NULL)
		event_free(d->readable);
	if (d->timer != NULL)
		event_free(d->timer);
	d->readable = d->timer = NULL;
	netlink_close(&d->netlink);
}

// ---------------------------------------------------------------- attributes

struct attr_index {
	const struct nlattr **out;
	uint16_t max;
};

static int attr_visit(const struct nlattr *attr, void *arg)
{
	struct attr_index *index = arg;
	uint16_t type = mnl_attr_get_type(attr);
	if (type <= index->max)
		index->out[type] = attr;
	return MNL_CB_OK;
}

void attrs_index(const struct nlmsghdr *m, size_t offset, const struct nlattr **out, uint16_t max)
{
	struct attr_index index = { out, max };
	memset(out, 0, (max + 1u) * sizeof(*out));
	if (m->nlmsg_len >= MNL_NLMSG_HDRLEN + offset)
		mnl_attr_parse(m, (unsigned int)offset, attr_visit, &index);
}

void attrs_index_nested(const struct nlattr *nest, const struct nlattr **out, uint16_t max)
{
	struct attr_index index = { out, max };
	memset(out, 0, (max + 1u) * sizeof(*out));
	mnl_attr_parse_nested(nest, attr_visit, &index);
}

bool address_from_attr(const struct nlattr *attr, uint8_t family, struct address *out)
{
	size_t len = mnl_attr_get_payload_len(attr);
	if (family == AF_INET && len == 4) {
		rte_be32_t v4;
		memcpy(&v4, mnl_attr_get_payload(attr), 4);
		*out = address_from_v4(v4);
		return true;
	}
	if (family == AF_INET6 && len == 16) {
		memcpy(out->bytes, mnl_attr_get_payload(attr), 16);
		return true;
	}
	return false;
}

void address_to_attr(struct nlmsghdr *m, uint16_t type, const struct address *address)
{
	if (address_is_v4(address))
		mnl_attr_put(m, type, 4, &address->words[3]);
	else
		mnl_attr_put(m, type, 16, address->bytes);
}
