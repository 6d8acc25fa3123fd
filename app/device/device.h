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
	uint16_t vlan;        // 0 = untagged
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
	char eal_args[4096];            // extra words, appended last
};

struct device_port {
	char name[32];
	char twin[16];
	char device[256];
	char driver[32];      // "net_af_packet"
	uint16_t port_id;     // DPDK's
	uint16_t n_rx_queues; // what was configured
	// 1..n_workers: worker w owns queue w when w < n_tx_queues, else it hands its frames to worker
	// w % n_tx_queues over a ring
	uint16_t n_tx_queues;
	uint16_t mtu;
	uint16_t
		vlan; // of every frame on the link; 0 = untagged. Whoever receives and sends takes it off and puts it on
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

// ---------------------------------------------------------------- the plan
// What device_start will do, from the configuration and the machine alone: reads sysfs and procfs below `root` ("/", or a
// fake tree), starts nothing, needs no privilege. Also the text of `--check --explain-eal`.
#define DEVICE_WORDS_MAX 192
struct device_plan {
	uint16_t control_cpu;
	int control_numa; // -1 = unknown
	uint16_t n_workers;
	uint16_t cpus[DEVICE_WORKERS_MAX]; // of the workers
	int numas[DEVICE_WORKERS_MAX];
	bool hugepages;
	uint64_t memory_bytes;            // estimate, or what the configuration says
	uint32_t data_room;               // bytes of one packet buffer
	char names[DEVICE_PORTS_MAX][64]; // the EAL's name of each port
	char *words[DEVICE_WORDS_MAX];    // command line of the EAL, without the program's name
	uint32_t n_words;
	char cores_reason[160];
	char memory_reason[160];
};
// 0, -EINVAL (a core that is not there, a device string that cannot be), -ENODEV (no such device or interface), -EBUSY (the kernel
// has it), -ENOMEM (hugepages required and too few). Every finding is in err. Fini in any case.
int device_plan_make(const struct device_config *config, const char *root, struct device_plan *out,
	struct error *err);
void device_plan_fini(struct device_plan *plan);

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
// Memory in a file (tmpfs or hugetlbfs) that outlives the process: made or resized when it has not this size, every byte backed
// before it returns (a full file system is an error here, not a fault later), placed on the node. *size is rounded up to whole
// pages; contents are kept when that is the file's size: *out_kept. NULL with the cause in err. Unmap with the rounded size.
void *device_map(const char *path, size_t *size, int numa, bool *out_kept, struct error *err);
void device_unmap(void *mem, size_t size);
