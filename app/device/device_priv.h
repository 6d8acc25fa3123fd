// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// Inside the device module.

#include <net/if.h>
#include <sched.h>
#include <stdio.h>

#include "device.h"

// ---------------------------------------------------------------- device strings (names.c)
enum device_kind { DEVICE_KIND_PCI, DEVICE_KIND_VIRTUAL };

struct device_name {
	enum device_kind kind;
	char name[64];  // as the EAL calls it: "0000:3b:00.0", "net_af_packet0"
	char args[256]; // what follows the first comma, "" if nothing
};

// Takes a device string apart; resolves "ifname:" below root. 0, -EINVAL, -ENODEV with an item at `path`.
int device_name_parse(const char *text, const char *root, const char *path, struct device_name *out,
	struct error *err);
// Value of key in "key=value,key=value"; false when it is not there.
bool device_name_arg(const struct device_name *name, const char *key, char *out, size_t len);
// The same as a number; `fallback` when it is not there or not a number.
uint32_t device_name_number(const struct device_name *name, const char *key, uint32_t fallback);
// Does the driver's name (the device name without its number) begin with this?
bool device_name_is(const struct device_name *name, const char *driver);
// Receive queues that the device string itself fixes (all of them must be polled), 0 = none said.
uint32_t device_name_queues(const struct device_name *name);

// ---------------------------------------------------------------- machine (machine.c): sysfs and procfs below a root
// First line of a file without its newline. False: not readable.
bool machine_read(const char *root, char *out, size_t len, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
// "0-3,8" to a set. False on a malformed list.
bool machine_parse_cpus(const char *text, cpu_set_t *out);
const char *machine_format_cpus(const cpu_set_t *set, char *buf, size_t len);
int machine_cpu_node(const char *root, uint16_t cpu);        // -1 = unknown
int machine_pci_node(const char *root, const char *address); // -1 = unknown
uint64_t machine_free_hugepage_bytes(const char *root);
bool machine_has_iommu(const char *root);

// ---------------------------------------------------------------- cores (cores.c)
// Fills control_cpu, control_numa, n_workers, cpus, numas and cores_reason of the plan.
int cores_choose(const struct device_config *config, const struct device_name *names,
	const char *root, struct device_plan *plan, struct error *err);

// ---------------------------------------------------------------- EAL (eal.c)
#define EAL_LINES 20

struct eal_log {
	const struct log *log;
	char lines[EAL_LINES][240]; // the last ones, a ring
	uint32_t n_lines;           // ever
	char partial[240];
	uint32_t partial_len;
	FILE *stream;
};
int eal_log_open(struct eal_log *eal, const struct log *log, struct error *err);
void eal_log_close(struct eal_log *eal);
// Adds the lines kept since line number `since` to err, as items at "eal".
void eal_log_attach(const struct eal_log *eal, uint32_t since, struct error *err);
int eal_start(const struct device_plan *plan, struct eal_log *eal, struct error *err);

// ---------------------------------------------------------------- ports (ports.c)
#define DEVICE_DESCRIPTORS 1024 // of each ring when the configuration does not say

struct port_shape { // what a port was configured with; [main]
	struct device_name name;
	char iface[IFNAMSIZ]; // kernel interface behind it, "" = none: link state comes from there
	uint16_t n_descriptors_rx;
	uint16_t n_descriptors_tx;
	bool started;
	bool promiscuous; // switched on by us
};

struct device {
	const struct log *log; // borrowed
	struct device_plan plan;
	struct device_port ports[DEVICE_PORTS_MAX];
	struct port_shape shapes[DEVICE_PORTS_MAX];
	uint32_t n_ports;
	struct device_worker workers[DEVICE_WORKERS_MAX];
	uint32_t n_workers;
	struct rte_mempool *pools[DEVICE_WORKERS_MAX]; // by worker; workers of one node share
	struct rte_mempool *control_pool;
	struct eal_log eal;
	bool eal_is_up;
};

// Interfaces named inside device strings exist; before the EAL, which would only skip the port.
int ports_check_interfaces(
	const struct device_config *config, const struct device_name *names, struct error *err);
// Finds every port of the configuration among the EAL's and settles queues and descriptors.
int ports_find(struct device *d, const struct device_config *config, struct error *err);
// Configures and starts them; needs the pools.
int ports_start(struct device *d, const struct device_config *config, struct error *err);
void ports_wait_link(struct device *d, uint32_t limit_ms);
void ports_poll_link(struct device *d, uint32_t idx);
void ports_stop(struct device *d);

// ---------------------------------------------------------------- memory (memory.c)
// Bytes of one packet buffer for these ports (headroom included).
uint32_t memory_frame_room(const struct device_config *config, const struct device_name *names);
// Fills hugepages, memory_bytes, data_room and memory_reason of the plan.
int memory_plan(const struct device_config *config, const struct device_name *names,
	const char *root, struct device_plan *plan, struct error *err);
int memory_make_pools(struct device *d, struct error *err);
void memory_free_pools(struct device *d);
