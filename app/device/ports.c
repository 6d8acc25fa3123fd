// SPDX-License-Identifier: BSD-3-Clause
// Ports: found by name, shaped by what their driver can, started, or refused by name. The EAL itself succeeds with devices
// missing, so each port of the configuration is looked for here.
//
// Queues. Where the device string fixes the receive queues (af_packet qpairs, af_xdp queue_count, vhost, pcap) all of
// them are configured, because the other side spreads over all of them; elsewhere one per worker, as far as the driver goes.
// A driver with fewer transmit queues than there are workers gets what it can: workers without one hand over (dataplane).
// No offload is asked for: headers are verified and completed in software, alike on every port.
#include "device_priv.h"

#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include <rte_dev.h>
#include <rte_errno.h>

#include "compat.h"

#define AF_PACKET_FRAME      2048u // default framesz
#define AF_PACKET_FRAME_HEAD 52u   // TPACKET2_HDRLEN
#define LINK_STEP_MS         10

static const char *const interface_drivers[] = { "net_af_packet", "eth_af_packet", "net_af_xdp" };

// ---------------------------------------------------------------- kernel interfaces

static bool ask_interface(const char *iface, unsigned long request, struct ifreq *out)
{
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return false;
	memset(out, 0, sizeof(*out));
	snprintf(out->ifr_name, sizeof(out->ifr_name), "%s", iface);
	bool ok = ioctl(fd, request, out) == 0;
	close(fd);
	return ok;
}

static uint32_t interface_mtu(const char *iface)
{
	struct ifreq request;
	return ask_interface(iface, SIOCGIFMTU, &request) ? (uint32_t)request.ifr_mtu : 0;
}

static bool is_interface_driver(const struct device_name *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(interface_drivers); i++) {
		if (device_name_is(name, interface_drivers[i]))
			return true;
	}
	return false;
}

static int check_interface(const struct device_port_config *port, const struct device_name *name,
	const char *path, struct error *err)
{
	char iface[64];
	if (!is_interface_driver(name))
		return 0;
	if (!device_name_arg(name, "iface", iface, sizeof(iface)))
		return error_add(err, EINVAL, path, "port %s: %s needs iface=INTERFACE", port->name,
			name->name);
	if (strlen(iface) >= IFNAMSIZ || if_nametoindex(iface) == 0)
		return error_add(err, ENODEV, path,
			"port %s: device \"%s\": no interface \"%s\" in this network namespace",
			port->name, port->device, iface);
	uint32_t mtu = port->mtu ? port->mtu : 1500;
	uint32_t frame = device_name_number(name, "framesz", AF_PACKET_FRAME);
	if (!device_name_is(name, "net_af_xdp") && mtu + 14 + AF_PACKET_FRAME_HEAD > frame)
		return error_add(err, EINVAL, path,
			"port %s: framesz %u cannot hold frames of MTU %u: add "
			"blocksz=16384,framesz=16384,framecnt=512",
			port->name, frame, mtu);
	return 0;
}

int ports_check_interfaces(
	const struct device_config *config, const struct device_name *names, struct error *err)
{
	int first = 0;
	for (uint32_t i = 0; i < config->n_ports; i++) {
		char path[64];
		snprintf(path, sizeof(path), "ports[%u].device", i);
		int rc = check_interface(&config->ports[i], &names[i], path, err);
		if (first == 0)
			first = rc;
	}
	return first;
}

// ---------------------------------------------------------------- finding

static bool find_port_id(const char *name, uint16_t *out)
{
	if (rte_eth_dev_get_port_by_name(name, out) == 0)
		return true;
	uint16_t id;
	RTE_ETH_FOREACH_DEV(id)
	{ // drivers that name ports of a device otherwise
		struct rte_eth_dev_info about;
		if (rte_eth_dev_info_get(id, &about) == 0 && about.device &&
			strcmp(rte_dev_name(about.device), name) == 0) {
			*out = id;
			return true;
		}
	}
	return false;
}

static int settle_queues(struct device *d, uint32_t idx, const struct device_port_config *config,
	const struct rte_eth_dev_info *about, struct error *err)
{
	struct device_port *port = &d->ports[idx];
	const struct device_name *name = &d->shapes[idx].name;
	char path[64];
	snprintf(path, sizeof(path), "ports[%u].queues", idx);
	bool fixed = device_name_queues(name) > 0 || device_name_is(name, "net_pcap");
	uint32_t most = about->max_rx_queues;
	if (most > DEVICE_QUEUES_MAX)
		most = DEVICE_QUEUES_MAX;
	uint32_t n = config->queues;
	if (n == 0)
		n = fixed || most < d->n_workers ? most : d->n_workers;
	if (n > most || (fixed && n != most))
		return error_add(err, EINVAL, path, "port %s: %u queues: %s has %s%u", port->name,
			n, name->name, fixed ? "exactly " : "at most ", most);
	port->n_rx_queues = (uint16_t)n;
	port->n_tx_queues = (uint16_t)RTE_MIN(about->max_tx_queues, d->n_workers);
	if (port->n_tx_queues == 0)
		return error_add(
			err, EINVAL, path, "port %s: %s cannot transmit", port->name, name->name);
	return 0;
}

static int settle_descriptors(
	struct device *d, uint32_t idx, const struct device_port_config *config, struct error *err)
{
	struct port_shape *shape = &d->shapes[idx];
	uint16_t wanted = config->descriptors ? config->descriptors : DEVICE_DESCRIPTORS;
	shape->n_descriptors_rx = shape->n_descriptors_tx = wanted;
	int rc = rte_eth_dev_adjust_nb_rx_tx_desc(
		d->ports[idx].port_id, &shape->n_descriptors_rx, &shape->n_descriptors_tx);
	char path[64];
	snprintf(path, sizeof(path), "ports[%u].descriptors", idx);
	if (rc)
		return error_add(err, -rc, path, "port %s: %u descriptors: %s", config->name,
			wanted, rte_strerror(-rc));
	if (config->descriptors && shape->n_descriptors_rx != wanted)
		log_write(d->log, LOG_LEVEL_WARN, "port",
			"%s: %u descriptors asked, the driver takes %u", config->name, wanted,
			shape->n_descriptors_rx);
	return 0;
}

static int find_one(
	struct device *d, uint32_t idx, const struct device_port_config *config, struct error *err)
{
	struct device_port *port = &d->ports[idx];
	const struct device_name *name = &d->shapes[idx].name;
	char path[64];
	snprintf(path, sizeof(path), "ports[%u].device", idx);
	snprintf(port->name, sizeof(port->name), "%s", config->name);
	snprintf(port->twin, sizeof(port->twin), "%.15s",
		config->twin[0] ? config->twin : config->name);
	snprintf(port->device, sizeof(port->device), "%s", config->device);
	if (!find_port_id(name->name, &port->port_id))
		return error_add(err, ENODEV, path,
			"port %s: device \"%s\" did not come up: its driver refused it or is not "
			"installed; DPDK's last lines follow",
			port->name, config->device);
	struct rte_eth_dev_info about;
	int rc = rte_eth_dev_info_get(port->port_id, &about);
	if (rc)
		return error_add(err, -rc, path, "port %s: device \"%s\" does not answer: %s",
			port->name, config->device, rte_strerror(-rc));
	snprintf(port->driver, sizeof(port->driver), "%s", about.driver_name);
	port->mtu = config->mtu ? config->mtu : 1500;
	port->vlan = config->vlan;
	port->numa = name->kind == DEVICE_KIND_PCI ? rte_eth_dev_socket_id(port->port_id) : -1;
	if (is_interface_driver(name))
		device_name_arg(name, "iface", d->shapes[idx].iface, sizeof(d->shapes[idx].iface));
	rc = settle_queues(d, idx, config, &about, err);
	return rc ? rc : settle_descriptors(d, idx, config, err);
}

int ports_find(struct device *d, const struct device_config *config, struct error *err)
{
	int first = 0;
	for (uint32_t i = 0; i < d->n_ports; i++) {
		int rc = find_one(d, i, &config->ports[i], err);
		if (first == 0)
			first = rc;
	}
	if (first)
		eal_log_attach(&d->eal, 0, err);
	return first;
}

// ---------------------------------------------------------------- starting

static int refuse_step(struct device *d, uint32_t idx, const char *step, int rc, struct error *err)
{
	char path[64];
	snprintf(path, sizeof(path), "ports[%u].device", idx);
	error_add(err, -rc, path, "port %s: device \"%s\": %s: %s", d->ports[idx].name,
		d->ports[idx].device, step, rte_strerror(-rc));
	eal_log_attach(&d->eal, 0, err);
	return rc;
}

static void want_offloads(const struct device *d, uint32_t idx,
	const struct rte_eth_dev_info *about, struct rte_eth_conf *out)
{
	const uint64_t spread = RTE_ETH_RSS_IP | RTE_ETH_RSS_TCP | RTE_ETH_RSS_UDP;
	if (d->shapes[idx].name.kind == DEVICE_KIND_VIRTUAL) {
		// Frames of several buffers may come in (memif, vhost) and be sent on.
		out->txmode.offloads = about->tx_offload_capa & RTE_ETH_TX_OFFLOAD_MULTI_SEGS;
		return;
	}
	out->rxmode.mtu = d->ports[idx].mtu;
	if (d->ports[idx].n_rx_queues > 1 && (about->flow_type_rss_offloads & spread)) {
		out->rxmode.mq_mode = RTE_ETH_MQ_RX_RSS;
		out->rx_adv_conf.rss_conf.rss_hf = about->flow_type_rss_offloads & spread;
	}
}

static int set_up_queues(struct device *d, uint32_t idx, const struct rte_eth_dev_info *about,
	const struct rte_eth_conf *conf, struct error *err)
{
	const struct device_port *port = &d->ports[idx];
	const struct port_shape *shape = &d->shapes[idx];
	unsigned socket = port->numa < 0 ? (unsigned)SOCKET_ID_ANY : (unsigned)port->numa;
	struct rte_eth_rxconf rx = about->default_rxconf;
	struct rte_eth_txconf tx = about->default_txconf;
	rx.offloads = conf->rxmode.offloads;
	tx.offloads = conf->txmode.offloads;
	for (uint16_t q = 0; q < port->n_rx_queues; q++) {
		int rc = rte_eth_rx_queue_setup(port->port_id, q, shape->n_descriptors_rx, socket,
			&rx, d->pools[q % d->n_workers]);
		if (rc)
			return refuse_step(d, idx, "receive queue", rc, err);
	}
	for (uint16_t q = 0; q < port->n_tx_queues; q++) {
		int rc = rte_eth_tx_queue_setup(
			port->port_id, q, shape->n_descriptors_tx, socket, &tx);
		if (rc)
			return refuse_step(d, idx, "transmit queue", rc, err);
	}
	return 0;
}

// The driver's word, or, where it has none (af_packet knows only 1500), that of the kernel interface behind it.
static int set_mtu(
	struct device *d, uint32_t idx, const struct rte_eth_dev_info *about, struct error *err)
{
	struct device_port *port = &d->ports[idx];
	const struct port_shape *shape = &d->shapes[idx];
	char path[64];
	snprintf(path, sizeof(path), "ports[%u].mtu", idx);
	uint16_t now = 0;
	rte_eth_dev_get_mtu(port->port_id, &now);
	if (shape->iface[0]) {
		uint32_t mtu = interface_mtu(shape->iface);
		if (mtu >= port->mtu)
			return 0;
		return error_add(err, EINVAL, path,
			"port %s: MTU %u, but interface %s has %u and longer frames would vanish: "
			"`ip link set dev %s mtu %u`, or lower the port's",
			port->name, port->mtu, shape->iface, mtu, shape->iface, port->mtu);
	}
	if (now == port->mtu)
		return 0;
	int rc = rte_eth_dev_set_mtu(port->port_id, port->mtu);
	if (rc == 0 || (rc == -ENOTSUP && shape->name.kind == DEVICE_KIND_VIRTUAL))
		return 0;
	return error_add(err, -rc, path,
		"port %s: MTU %u: %s takes frames of up to %u bytes and MTUs of up to %u (%s)",
		port->name, port->mtu, port->driver, about->max_rx_pktlen, about->max_mtu,
		rte_strerror(-rc));
}

// Neighbour discovery and routing protocols are multicast. Where the driver cannot take all of it and there is real
// hardware below the interface, everything is taken instead; virtual pairs do not filter.
static void take_multicast(struct device *d, uint32_t idx)
{
	struct port_shape *shape = &d->shapes[idx];
	uint16_t port_id = d->ports[idx].port_id;
	char path[128];
	if (rte_eth_allmulticast_enable(port_id) == 0 || shape->iface[0] == 0)
		return;
	snprintf(path, sizeof(path), "/sys/class/net/%s/device", shape->iface);
	if (access(path, F_OK) == 0)
		shape->promiscuous = rte_eth_promiscuous_enable(port_id) == 0;
}

static int start_one(struct device *d, uint32_t idx, struct error *err)
{
	struct device_port *port = &d->ports[idx];
	struct rte_eth_dev_info about;
	struct rte_eth_conf conf = { 0 };
	int rc = rte_eth_dev_info_get(port->port_id, &about);
	if (rc)
		return refuse_step(d, idx, "device description", rc, err);
	want_offloads(d, idx, &about, &conf);
	rc = rte_eth_dev_configure(port->port_id, port->n_rx_queues, port->n_tx_queues, &conf);
	if (rc)
		return refuse_step(d, idx, "configuration", rc, err);
	rc = set_mtu(d, idx, &about, err);
	if (rc == 0)
		rc = set_up_queues(d, idx, &about, &conf, err);
	if (rc)
		return rc;
	struct rte_ether_addr mac;
	rc = rte_eth_macaddr_get(port->port_id, &mac);
	if (rc)
		return refuse_step(d, idx, "MAC address", rc, err);
	memcpy(port->mac.bytes, mac.addr_bytes, sizeof(port->mac.bytes));
	rc = rte_eth_dev_start(port->port_id);
	if (rc)
		return refuse_step(d, idx, "start", rc, err);
	d->shapes[idx].started = true;
	take_multicast(d, idx);
	return 0;
}

int ports_start(struct device *d, const struct device_config *config, struct error *err)
{
	for (uint32_t i = 0; i < d->n_ports; i++) {
		int rc = start_one(d, i, err);
		if (rc)
			return rc;
	}
	return 0;
}

// ---------------------------------------------------------------- link

void ports_poll_link(struct device *d, uint32_t idx)
{
	struct device_port *port = &d->ports[idx];
	struct rte_eth_link link;
	struct ifreq request;
	if (rte_eth_link_get_nowait(port->port_id, &link) != 0)
		return;
	bool up = link.link_status == RTE_ETH_LINK_UP;
	// af_packet and af_xdp always say up: the interface knows better.
	if (d->shapes[idx].iface[0])
		up = ask_interface(d->shapes[idx].iface, SIOCGIFFLAGS, &request) &&
		     (request.ifr_flags & IFF_RUNNING) && (request.ifr_flags & IFF_UP);
	port->link_up = up;
	port->link_mbps = up ? compat_link_mbps(&link) : 0;
}

// Peers of these may come long after us.
static bool waits_for_peer(const struct device_name *name)
{
	return device_name_is(name, "net_memif") || device_name_is(name, "net_vhost") ||
	       device_name_is(name, "net_virtio_user") || device_name_is(name, "virtio_user");
}

void ports_wait_link(struct device *d, uint32_t limit_ms)
{
	for (uint32_t waited_ms = 0;; waited_ms += LINK_STEP_MS) {
		bool all = true;
		for (uint32_t i = 0; i < d->n_ports; i++) {
			ports_poll_link(d, i);
			all &= d->ports[i].link_up || waits_for_peer(&d->shapes[i].name);
		}
		if (all || waited_ms >= limit_ms)
			return;
		nanosleep(&(struct timespec){ .tv_nsec = LINK_STEP_MS * (long)CLOCK_MS }, NULL);
	}
}

// ---------------------------------------------------------------- stopping

void ports_stop(struct device *d)
{
	for (uint32_t i = d->n_ports; i-- > 0;) {
		struct port_shape *shape = &d->shapes[i];
		if (!shape->started)
			continue;
		if (shape->promiscuous)
			rte_eth_promiscuous_disable(d->ports[i].port_id);
		rte_eth_dev_stop(d->ports[i].port_id);
		shape->started = false;
	}
	uint16_t id;
	RTE_ETH_FOREACH_DEV(id)
	{
		rte_eth_dev_close(id);
	}
}
