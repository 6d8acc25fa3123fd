// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// One run of the checks: its input, its report, and how it reads files below the root.

#include <dirent.h>

#include "preflight.h"

#define PREFLIGHT_CPUS_MAX   1024
#define PREFLIGHT_PATH_MAX   512
#define PREFLIGHT_DIR_MAX    65536 // entries of one folder that are looked at
#define PREFLIGHT_MEMORY_MIN (128ull << 20)

struct preflight_run {
	const struct preflight_input *input;
	struct preflight_report *report;
	const char *id; // of the check that runs
	int status;     // -ENOMEM once something was lost
};

// ---- findings
void preflight_finding_add(struct preflight_run *run, enum preflight_severity severity,
	const char *object, const char *cause, const char *command_fmt, ...)
	__attribute__((format(printf, 5, 6)));
// printf into a static-size buffer of the caller and return it: for causes put together in place.
const char *text_format(char *buf, size_t len, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
#define TEXT(buf, ...) text_format((buf), sizeof(buf), __VA_ARGS__)
// The same, appended.
void text_append(char *buf, size_t len, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

// ---- files (paths begin with '/' and are taken below the root)
const char *root_path(const struct preflight_run *run, char buf[PREFLIGHT_PATH_MAX],
	const char *fmt, ...) __attribute__((format(printf, 3, 4)));
bool root_exists(const struct preflight_run *run, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
// First `len` - 1 bytes of a file without the last newline. Length, or -1.
int root_read(const struct preflight_run *run, char *buf, size_t len, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
// Number at the start of a file (decimal, or hex after 0x), or `missing`.
int64_t root_number(const struct preflight_run *run, int64_t missing, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
// Last part of where a symbolic link points to, or the part n_up before it: false when there is
// none.
bool root_link(const struct preflight_run *run, char *buf, size_t len, uint32_t n_up,
	const char *fmt, ...) __attribute__((format(printf, 5, 6)));
FILE *root_open(const struct preflight_run *run, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
// Calls fn for every entry of a folder but those that begin with '.'; stops when fn returns false.
void root_each(const struct preflight_run *run, const char *dir,
	bool (*fn)(const struct preflight_run *run, const char *name, void *arg), void *arg);

// ---- cpu sets
struct cpu_set {
	uint64_t words[PREFLIGHT_CPUS_MAX / 64];
};
bool cpu_set_has(const struct cpu_set *set, uint32_t cpu);
// "2-5,8": 0 or -EINVAL.
int cpu_set_parse(const char *text, struct cpu_set *out);
const char *cpu_set_format(const struct cpu_set *set, char *buf, size_t len);
bool cpu_set_read(const struct preflight_run *run, struct cpu_set *out, const char *path);
// NUMA node of a core, -1 = unknown.
int cpu_node(const struct preflight_run *run, uint32_t cpu);
// Worker cores asked for: false for auto or an unreadable list.
bool worker_cores(const struct preflight_run *run, struct cpu_set *out);

// ---- device strings
enum device_kind { DEVICE_PCI, DEVICE_IFNAME, DEVICE_VDEV, DEVICE_UNKNOWN };
struct device_name {
	enum device_kind kind;
	char pci[16];    // "0000:3b:00.0", also of the device behind an ifname; "" = none
	char netdev[16]; // interface that an ifname or a vdev names; "" = none
	char driver[64]; // "net_af_packet" for a vdev
	char args[256];  // of the vdev, after the first comma
};
void preflight_device_parse(
	const struct preflight_run *run, const char *device, struct device_name *out);
// Value of `key` among comma separated args: false when it is not there.
bool device_arg(const char *args, const char *key, char *buf, size_t len);
const char *port_object(const struct preflight_port *port, char *buf, size_t len);
// "af_packet" -> is its run-time library there?
bool pmd_is_installed(const struct preflight_run *run, const char *pmd);
const char *pmd_package(const struct preflight_run *run, const char *pmd, char *buf, size_t len);
// Driver (PMD) for a PCI device by its ids, or NULL.
const char *pmd_of_pci(uint16_t vendor, uint16_t device);
bool pci_is_bifurcated(const char *kernel_driver); // DPDK and the kernel share the device

// Process that a finding should name. "" when it is gone.
void process_name(const struct preflight_run *run, int32_t pid, char *buf, size_t len);

// ---- the checks, one per row
void check_permissions(struct preflight_run *run);
void check_running(struct preflight_run *run);
void check_limits(struct preflight_run *run);
void check_tun(struct preflight_run *run);
void check_cores(struct preflight_run *run);
void check_hugetlbfs(struct preflight_run *run);
void check_hugepages(struct preflight_run *run);
void check_memory(struct preflight_run *run);
void check_pmd(struct preflight_run *run);
void check_port_missing(struct preflight_run *run);
void check_port_driver(struct preflight_run *run);
void check_iommu_off(struct preflight_run *run);
void check_iommu_group(struct preflight_run *run);
void check_vdev(struct preflight_run *run);
void check_snat_ports(struct preflight_run *run);
void check_numa(struct preflight_run *run);
void check_mtu(struct preflight_run *run);
void check_partial_checksum(struct preflight_run *run);
void check_twin_guard(struct preflight_run *run);
void check_tuning(struct preflight_run *run);
