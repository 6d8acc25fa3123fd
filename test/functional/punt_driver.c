// SPDX-License-Identifier: BSD-3-Clause
// The slow path alone: app/punt between a fake control and a fake data plane, without DPDK. Each
// port is an AF_PACKET socket on a veth; every frame that comes in is punted, every frame from the
// twin goes out. So the kernel behind the twin speaks with the network behind the veth, and
// everything the slow path learns is printed, a line each.
//
//   punt-driver TWIN=VETH[,MTU] ...      commands on standard input:
//     own ADDRESS ...          own addresses are now these
//     use PORT ADDRESS         keep this next hop fresh
//     resolve PORT ADDRESS     resolve it now
//     counters                 print punted, injected, drops
//     spare                    stop taking frames of twins (injection fails)
//     end                      clean end
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "control.h"
#include "punt.h"

#define OWN_MAX     20000
#define IN_USE_MAX  4096
#define FRAME_BYTES 16384
#define QUEUE_MAX   256

struct frame {
	uint32_t len;
	uint8_t bytes[FRAME_BYTES];
};

struct control {
	struct event_base *base;
	struct event *lines;
	struct event *quit;
	struct event *sockets[DEVICE_PORTS_MAX];
	int fds[DEVICE_PORTS_MAX];
	struct device_port ports[DEVICE_PORTS_MAX];
	uint32_t n_ports;
	struct address own[OWN_MAX];
	uint32_t n_own;
	struct dataplane_wanted in_use[IN_USE_MAX];
	uint32_t n_in_use;
	struct control_nexthop_hooks hooks;
	void *hooks_arg;
	void (*punt)(void *arg);
	void *punt_arg;
	struct dataplane_punted queue[QUEUE_MAX];
	uint32_t n_queued;
	struct counters counters;
	bool is_spare;
	struct log log;
};

// There is one; the fakes of device and data plane are it as well.
static struct control fake;

// ---------------------------------------------------------------- fakes

struct event_base *control_base(struct control *c)
{
	return c->base;
}

const struct device *control_device(const struct control *c)
{
	return (const void *)c;
}

const struct dataplane *control_dataplane(const struct control *c)
{
	return (const void *)c;
}

const struct log *control_log(struct control *c)
{
	return &c->log;
}

uint32_t device_n_ports(const struct device *device)
{
	return fake.n_ports;
}

const struct device_port *device_port(const struct device *device, uint32_t idx)
{
	return &fake.ports[idx];
}

void control_note(struct control *c, enum log_level level, const char *kind, const char *object,
	const char *fmt, ...)
{
	char text[512];
	va_list args;
	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	printf("note %s %s %s: %s\n", log_level_name(level), kind, object, text);
}

void control_set_routes(struct control *c, const struct control_route *routes, uint32_t n)
{
	char prefix[ADDRESS_TEXT_LEN + 4], gateway[ADDRESS_TEXT_LEN];
	printf("routes %u\n", n);
	for (uint32_t i = 0; i < n && i < 64; i++)
		printf("route %s via %s port %u metric %u\n",
			prefix_format(&routes[i].prefix, prefix),
			address_format(&routes[i].gateway, gateway), routes[i].port_idx,
			routes[i].metric);
}

void control_set_neighbour(struct control *c, uint8_t port_idx, const struct address *address,
	const struct mac *mac, enum nexthop_state state)
{
	static const char *const names[] = { "gone", "incomplete", "valid", "failed" };
	char text[ADDRESS_TEXT_LEN], mac_text[18];
	printf("neighbour %u %s %s %s\n", port_idx, address_format(address, text),
		mac_format(mac, mac_text), names[state]);
}

void control_set_nexthop_hooks(
	struct control *c, const struct control_nexthop_hooks *hooks, void *arg)
{
	c->hooks = *hooks;
	c->hooks_arg = arg;
}

void control_set_punt_hook(struct control *c, void (*fn)(void *arg), void *arg)
{
	c->punt = fn;
	c->punt_arg = arg;
}

uint32_t control_nexthops_in_use(
	const struct control *c, struct dataplane_wanted *out, uint32_t max)
{
	uint32_t n = c->n_in_use < max ? c->n_in_use : max;
	memcpy(out, c->in_use, n * sizeof(*out));
	return n;
}

uint32_t control_own_addresses(const struct control *c, struct address *out, uint32_t max)
{
	uint32_t n = c->n_own < max ? c->n_own : max;
	if (n > 0)
		memcpy(out, c->own, n * sizeof(*out));
	return c->n_own;
}

int dataplane_inject(struct dataplane *dp, uint32_t port_idx, const void *frame, uint32_t len)
{
	if (fake.is_spare)
		return -EAGAIN;
	if (send(fake.fds[port_idx], frame, len, 0) < 0)
		return -ENOBUFS;
	counters_add(&fake.counters, COUNTER_INJECTED, 1);
	return 0;
}

uint32_t dataplane_take_punted(struct dataplane *dp, struct dataplane_punted *out, uint32_t max)
{
	uint32_t n = fake.n_queued < max ? fake.n_queued : max;
	memcpy(out, fake.queue, n * sizeof(*out));
	memmove(fake.queue, fake.queue + n, (fake.n_queued - n) * sizeof(*out));
	fake.n_queued -= n;
	return n;
}

const void *dataplane_frame(const struct rte_mbuf *mbuf, uint32_t *out_len)
{
	const struct frame *frame = (const void *)mbuf;
	*out_len = frame->len;
	return frame->bytes;
}

void dataplane_free_punted(struct dataplane *dp, struct rte_mbuf *mbuf)
{
	free(mbuf);
}

struct counters *dataplane_control_counters(struct dataplane *dp)
{
	return &fake.counters;
}

// ---------------------------------------------------------------- ports

static void port_on_readable(evutil_socket_t fd, short what, void *arg)
{
	const struct device_port *port = arg;
	struct sockaddr_ll from;
	for (uint32_t i = 0; i < 64 && fake.n_queued < QUEUE_MAX; i++) {
		socklen_t len = sizeof(from);
		struct frame *frame = malloc(sizeof(*frame));
		if (frame == NULL)
			return;
		ssize_t n = recvfrom(fd, frame->bytes, sizeof(frame->bytes), MSG_DONTWAIT,
			(struct sockaddr *)&from, &len);
		if (n <= 0 || from.sll_pkttype == PACKET_OUTGOING) {
			free(frame);
			if (n <= 0)
				break;
			continue;
		}
		frame->len = (uint32_t)n;
		fake.queue[fake.n_queued++] = (struct dataplane_punted){ .mbuf = (void *)frame,
			.port_idx = (uint8_t)(port - fake.ports) };
		counters_add(&fake.counters, COUNTER_PUNTED, 1);
	}
	if (fake.punt != NULL)
		fake.punt(fake.punt_arg);
}

static int port_open(char *text)
{
	struct device_port *port = &fake.ports[fake.n_ports];
	char *veth = strchr(text, '='), *mtu = strchr(text, ',');
	if (veth == NULL)
		return -EINVAL;
	*veth++ = 0;
	if (mtu != NULL)
		*mtu++ = 0;
	struct ifreq request = { 0 };
	struct sockaddr_ll to = { .sll_family = AF_PACKET,
		.sll_protocol = htons(ETH_P_ALL),
		.sll_ifindex = (int)if_nametoindex(veth) };
	int fd = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, htons(ETH_P_ALL));
	snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", veth);
	if (fd < 0 || to.sll_ifindex == 0 || bind(fd, (struct sockaddr *)&to, sizeof(to)) != 0 ||
		ioctl(fd, SIOCGIFHWADDR, &request) != 0)
		return -errno;
	memcpy(port->mac.bytes, request.ifr_hwaddr.sa_data, 6);
	snprintf(port->name, sizeof(port->name), "port%u", fake.n_ports);
	snprintf(port->twin, sizeof(port->twin), "%s", text);
	port->mtu = (uint16_t)(mtu ? atoi(mtu) : 1500);
	fake.fds[fake.n_ports] = fd;
	fake.sockets[fake.n_ports] =
		event_new(fake.base, fd, EV_READ | EV_PERSIST, port_on_readable, port);
	event_add(fake.sockets[fake.n_ports++], NULL);
	return 0;
}

// ---------------------------------------------------------------- commands

static void command_own(char *rest)
{
	fake.n_own = 0;
	for (char *word = strtok(rest, " "); word && fake.n_own < OWN_MAX; word = strtok(NULL, " "))
		if (address_parse(word, &fake.own[fake.n_own]) == 0)
			fake.n_own++;
	if (fake.hooks.addresses != NULL)
		fake.hooks.addresses(fake.hooks_arg);
}

static void command_hop(char *rest, bool is_use)
{
	struct dataplane_wanted hop = { .port_idx = (uint8_t)strtoul(rest, &rest, 10) };
	if (address_parse(rest + 1, &hop.address) != 0)
		return;
	if (is_use && fake.n_in_use < IN_USE_MAX)
		fake.in_use[fake.n_in_use++] = hop;
	else if (!is_use && fake.hooks.resolve != NULL)
		fake.hooks.resolve(fake.hooks_arg, hop.port_idx, &hop.address);
}

static void command_counters(void)
{
	printf("counters punted %lld injected %llu",
		(long long)fake.counters.values[COUNTER_PUNTED],
		(unsigned long long)fake.counters.values[COUNTER_INJECTED]);
	for (uint32_t i = 1; i < DROP_MAX; i++)
		if (fake.counters.drops[i])
			printf(" %s %llu", drop_rows[i].name,
				(unsigned long long)fake.counters.drops[i]);
	printf("\n");
}

static void line_take(char *line)
{
	line[strcspn(line, "\n")] = 0;
	if (strncmp(line, "own", 3) == 0)
		command_own(line + 3);
	else if (strncmp(line, "use ", 4) == 0)
		command_hop(line + 4, true);
	else if (strncmp(line, "resolve ", 8) == 0)
		command_hop(line + 8, false);
	else if (strcmp(line, "counters") == 0)
		command_counters();
	else if (strcmp(line, "spare") == 0)
		fake.is_spare = true;
	else if (strcmp(line, "end") == 0)
		event_base_loopbreak(fake.base);
}

static void lines_on_readable(evutil_socket_t fd, short what, void *arg)
{
	static char buf[OWN_MAX * 24];
	static size_t used;
	ssize_t n = read(fd, buf + used, sizeof(buf) - 1 - used);
	if (n <= 0) {
		event_base_loopbreak(fake.base);
		return;
	}
	used += (size_t)n;
	buf[used] = 0;
	char *end;
	while ((end = strchr(buf, '\n')) != NULL) {
		*end = 0;
		line_take(buf);
		used -= (size_t)(end + 1 - buf);
		memmove(buf, end + 1, used + 1);
	}
}

static void quit_on_signal(evutil_socket_t fd, short what, void *arg)
{
	event_base_loopbreak(fake.base);
}

static int refuse(const char *what, struct error *err)
{
	char text[512];
	printf("refused %s: %s\n", what, error_first(err, text, sizeof(text)));
	error_fini(err);
	return 1;
}

int main(int argc, char **argv)
{
	struct error err = { 0 };
	struct punt *punt = NULL;
	setvbuf(stdout, NULL, _IOLBF, 0);
	fake.base = event_base_new();
	for (int i = 1; i < argc; i++) {
		int status = port_open(argv[i]);
		if (status != 0) {
			printf("refused port %s: %s\n", argv[i], strerror(-status));
			return 1;
		}
	}
	fake.lines = event_new(fake.base, 0, EV_READ | EV_PERSIST, lines_on_readable, NULL);
	fake.quit = evsignal_new(fake.base, SIGTERM, quit_on_signal, NULL);
	event_add(fake.lines, NULL);
	event_add(fake.quit, NULL);
	if (punt_create(&fake, &punt, &err) != 0)
		return refuse("create", &err);
	if (punt_start(punt, &err) != 0) {
		punt_destroy(punt);
		return refuse("start", &err);
	}
	printf("ready\n");
	event_base_dispatch(fake.base);
	punt_destroy(punt);
	printf("ended\n");
	event_free(fake.lines);
	event_free(fake.quit);
	for (uint32_t i = 0; i < fake.n_ports; i++)
		event_free(fake.sockets[i]);
	event_base_free(fake.base);
	return 0;
}
