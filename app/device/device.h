// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// The hardware side: EAL, ports, queues, packet memory, placement. The only module with version checks
// (compat.h). Main thread, at start and stop; the getters from any thread.

#include <stdbool.h>
#include <stdint.h>

#include "base.h"
#include "net.h"

#define DEVICE_PORTS_MAX   32
#define DEVICE_WORKERS_MAX 64
#define DEVICE_QUEUES_MAX  64

struct device_port_config {
	char name[32];        // "p0"
	char device[256];     // "0000:3b:00.0", "net_af_packet0,iface=veth0", "ifname:ens1f0"
	uint16_t queues;      // 0 = auto: one per worker, or what the driver can
	uint16_t descriptors; // 0 = auto
	uint16_t mtu;         // 0 = 1500
	char twin[16];        // TAP name, "" = name
};

enum device_idle { DEVICE_IDLE_POLL, DEVICE_IDLE_ADAPTIVE, DEVICE_IDLE_SLEEP };

struct device_config {
	struct device_port_config ports[DEVICE_PORTS_MAX];
	uint32_t n_ports;
	char cores[128];       // "auto" or a list "2-5,8": one worker each
	char control_core[16]; // "auto" or a number
	uint64_t memory_bytes; // 0 = auto
	bool hugepages;        // wanted ("auto": use if the machine has them); false: --no-huge
	bool hugepages_required;
	uint64_t flow_bytes_per_worker; // for the auto size
	char eal_args[512];             // extra words, appended last
};

struct device_port {
	char name[32];
	char twin[16];
	char device[256];
	char driver[32];      // "net_af_packet"
	uint16_t port_id;     // DPDK's
	uint16_t n_rx_queues; // what was configured
	uint16_t n_tx_queues; // >= n_workers: each worker owns one, or shares (see tx_shared)
	uint16_t mtu;
	int numa; // -1 = any
	struct mac mac;
	bool link_up;
	uint32_t link_mbps;
};

struct device_worker {
	uint16_t lcore; // EAL's
	uint16_t cpu;
	int numa;
};

struct rte_mempool;
struct device; // one per process

// Starts the EAL (its log captured; the last lines are attached to a failure), brings every port up, allocates packet
// memory by NUMA node, chooses cores. A port that does not come up is an error naming it. Logs one line for what `auto`
// chose and why. 0 or -errno.
int device_start(const struct device_config *config, const struct log *log, struct device **out,
	struct error *err);
// Stops and closes every port (virtual ones detach), ends the EAL.
void device_stop(struct device *device);

uint32_t device_n_ports(const struct device *device);
const struct device_port *device_port(const struct device *device, uint32_t idx); // by port index
uint32_t device_n_workers(const struct device *device);
const struct device_worker *device_worker(const struct device *device, uint32_t idx);
struct rte_mempool *device_pool(
	const struct device *device, uint32_t worker_idx); // packet memory of its node
struct rte_mempool *device_control_pool(
	const struct device *device); // for injected frames: never starved by traffic
// Refreshes link state of all ports (a driver call each).
void device_poll_links(struct device *device);
// {"rx_missed","rx_errors","tx_errors"} of a port, from the driver.
struct device_port_stats {
	uint64_t rx_missed, rx_errors, tx_errors, rx_nombuf;
};
void device_port_stats(const struct device *device, uint32_t idx, struct device_port_stats *out);
// NUMA-placed, zeroed, 64-byte aligned memory from the EAL (hugepages where there are). NULL: none.
void *device_alloc(struct device *device, size_t size, int numa);
void device_free(void *mem);
