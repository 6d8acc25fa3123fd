// SPDX-License-Identifier: BSD-3-Clause
// Every check of lib/preflight against a tree of files made for it: a machine that is fit, then one
// thing at a time that is not. Each case names the finding it expects, words of its cause and of
// its command.
#include <errno.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "preflight.h"

#define PCI     "0000:3b:00.0"
#define ALL_CAP ((1ull << 40) - 1)

struct machine {
	char root[64];
	struct preflight_port ports[2];
	struct preflight_input input;
	struct address snat[2];
	struct preflight_host_address addresses[4];
};

// ---------------------------------------------------------------- the tree

static void path_of(const struct machine *m, const char *path, char *out, size_t len)
{
	assert_true(snprintf(out, len, "%s%s", m->root, path) < (int)len);
}

static void make_parents(char *path)
{
	for (char *p = path + 1; (p = strchr(p, '/')) != NULL; p++) {
		*p = 0;
		if (mkdir(path, 0755) != 0)
			assert_int_equal(errno, EEXIST);
		*p = '/';
	}
}

static void put(const struct machine *m, const char *path, const char *text)
{
	char full[512];
	path_of(m, path, full, sizeof(full));
	make_parents(full);
	FILE *file = fopen(full, "w");
	assert_non_null(file);
	fputs(text, file);
	fclose(file);
}

static void put_dir(const struct machine *m, const char *path)
{
	char full[512];
	path_of(m, path, full, sizeof(full) - 1);
	strcat(full, "/");
	make_parents(full);
}

static void put_link(const struct machine *m, const char *path, const char *target)
{
	char full[512];
	path_of(m, path, full, sizeof(full));
	make_parents(full);
	unlink(full);
	assert_int_equal(symlink(target, full), 0);
}

static int unlink_visit(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	return remove(path);
}

static void drop(const struct machine *m, const char *path)
{
	char full[512];
	path_of(m, path, full, sizeof(full));
	assert_int_equal(nftw(full, unlink_visit, 16, FTW_DEPTH | FTW_PHYS), 0);
}

static void put_netdev(const struct machine *m, const char *name)
{
	char path[128];
	snprintf(path, sizeof(path), "/sys/class/net/%s/mtu", name);
	put(m, path, "1500\n");
}

static void put_process(const struct machine *m, int pid, const char *comm, const char *status)
{
	char path[128];
	snprintf(path, sizeof(path), "/proc/%d/comm", pid);
	put(m, path, comm);
	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	put(m, path, status);
}

static void put_pages(const struct machine *m, const char *dir, const char *n, const char *n_free)
{
	char path[160];
	snprintf(path, sizeof(path), "%s/hugepages-2048kB/nr_hugepages", dir);
	put(m, path, n);
	snprintf(path, sizeof(path), "%s/hugepages-2048kB/free_hugepages", dir);
	put(m, path, n_free);
}

static void put_pci(
	const struct machine *m, const char *address, const char *driver, const char *ids)
{
	char path[160], target[64];
	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/class", address);
	put(m, path, "0x020000\n");
	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/vendor", address);
	put(m, path, "0x8086\n");
	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/device", address);
	put(m, path, ids);
	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/numa_node", address);
	put(m, path, "0\n");
	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/driver", address);
	snprintf(target, sizeof(target), "../../../../bus/pci/drivers/%s", driver);
	if (driver != NULL)
		put_link(m, path, target);
}

static void put_pmd(const struct machine *m, const char *pmd)
{
	char path[160];
	snprintf(path, sizeof(path),
		"/usr/lib/x86_64-linux-gnu/dpdk/pmds-23.0/librte_net_%s.so.23.0", pmd);
	put(m, path, "");
}

// Two nodes of two cores, huge pages on both, one interface with the default route, one ice NIC on
// vfio, one veth.
static void machine_fit(struct machine *m)
{
	put(m, "/dev/net/tun", "");
	put(m, "/sys/devices/system/cpu/online", "0-3\n");
	put(m, "/sys/devices/system/cpu/isolated", "1-3\n");
	put(m, "/sys/devices/system/node/node0/cpulist", "0-1\n");
	put(m, "/sys/devices/system/node/node1/cpulist", "2-3\n");
	for (int cpu = 0; cpu < 4; cpu++) {
		char path[128], text[8];
		snprintf(path, sizeof(path),
			"/sys/devices/system/cpu/cpu%d/cpufreq/scaling_governor", cpu);
		put(m, path, "performance\n");
		snprintf(path, sizeof(path),
			"/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", cpu);
		snprintf(text, sizeof(text), "%d\n", cpu);
		put(m, path, text);
	}
	put_pages(m, "/sys/kernel/mm/hugepages", "1024\n", "1024\n");
	put_pages(m, "/sys/devices/system/node/node0/hugepages", "512\n", "512\n");
	put_pages(m, "/sys/devices/system/node/node1/hugepages", "512\n", "512\n");
	put(m, "/sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n");
	put(m, "/proc/mounts",
		"sysfs /sys sysfs rw 0 0\nhugetlbfs /dev/hugepages hugetlbfs rw 0 0\n");
	put(m, "/proc/meminfo",
		"MemTotal: 8000000 kB\nMemFree: 4000 kB\nMemAvailable: 6000000 kB\n");
	put(m, "/proc/self/limits",
		"Limit                     Soft Limit           Hard Limit           Units     \n"
		"Max open files            1024                 1048576              files     \n"
		"Max locked memory         unlimited            unlimited            bytes     \n");
	put(m, "/proc/sys/fs/file-max", "9223372036854775807\n");
	put(m, "/proc/cmdline", "quiet intel_iommu=on\n");
	put(m, "/proc/cpuinfo", "vendor_id : GenuineIntel\n");
	put(m, "/proc/net/unix", "Num       RefCount Protocol Flags    Type St Inode Path\n");
	put(m, "/proc/net/route",
		"Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"
		"eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
		"eth1\t000A0A0A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n");
	put(m, "/proc/net/ipv6_route", "");
	put(m, "/proc/sys/net/ipv4/ip_local_port_range", "32768\t60999\n");
	put(m, "/proc/sys/net/ipv4/ip_local_reserved_ports", "\n");
	put_dir(m, "/sys/bus/pci/drivers/vfio-pci");
	put_link(m, "/sys/kernel/iommu_groups/14/devices/" PCI, "x");
	put_pci(m, PCI, "vfio-pci", "0x159b\n");
	put_link(m, "/sys/bus/pci/devices/" PCI "/iommu_group", "../../../kernel/iommu_groups/14");
	put_pmd(m, "ice");
	put_pmd(m, "af_packet");
	put_netdev(m, "lo");
	put_netdev(m, "eth0");
	put_netdev(m, "lc");
	put(m, "/proc/sys/net/ipv4/conf/all/rp_filter", "0\n");
	put(m, "/proc/sys/net/ipv4/conf/all/arp_ignore", "0\n");
}

static void machine_input(struct machine *m)
{
	m->ports[0] = (struct preflight_port){ .name = "p0", .device = PCI };
	m->ports[1] = (struct preflight_port){ .name = "p1",
		.device = "net_af_packet0,iface=lc,framecnt=1024",
		.ingress_drop = PREFLIGHT_YES,
		.peer_tx_checksum = PREFLIGHT_NO };
	m->input = (struct preflight_input){ .root = m->root,
		.starting = true,
		.ports = m->ports,
		.n_ports = 2,
		.cores = "1",
		.control_core = "0",
		.memory_bytes = 512ull << 20,
		.hugepages = true,
		.hugepages_required = true,
		.hugetlbfs_required = true,
		.snat = m->snat,
		.n_snat = 1,
		.snat_first_port = 1024,
		.snat_last_port = 65535,
		.socket_path = "/run/sluice/sluice.sock",
		.capabilities = ALL_CAP,
		.addresses = m->addresses };
	assert_int_equal(address_parse("192.0.2.1", &m->snat[0]), 0);
}

static int setup(void **state)
{
	struct machine *m = calloc(1, sizeof(*m));
	strcpy(m->root, "/tmp/preflight-XXXXXX");
	assert_non_null(mkdtemp(m->root));
	machine_fit(m);
	machine_input(m);
	*state = m;
	return 0;
}

static int teardown(void **state)
{
	drop(*state, "");
	free(*state);
	return 0;
}

// ---------------------------------------------------------------- one thing at a time

static void no_admin(struct machine *m)
{
	m->input.uid = 1000;
	m->input.capabilities = ALL_CAP & ~(1ull << 12);
}
static void no_lock(struct machine *m)
{
	m->input.capabilities = ALL_CAP & ~(1ull << 14);
}
static void answers(struct machine *m)
{
	m->input.running_pid = 77;
	put_process(m, 77, "sluiced\n", "");
}
static void listens(struct machine *m)
{
	put(m, "/proc/net/unix",
		"Num RefCount Protocol Flags Type St Inode Path\n"
		"00000000e4ce1e79: 00000003 00000000 00000000 0001 03  1575\n"
		"00000000e4ce1e79: 00000003 00000000 00010000 0001 01  4711 "
		"/run/sluice/sluice.sock\n");
	put_process(m, 78, "sluiced\n", "");
	put_link(m, "/proc/78/fd/7", "socket:[4711]");
}
static void listens_hidden(struct machine *m)
{
	listens(m);
	drop(m, "/proc/78");
}
static void connected_only(struct machine *m)
{
	listens(m);
	put(m, "/proc/net/unix",
		"00000000e4ce1e79: 00000003 00000000 00000000 0001 03  4711 "
		"/run/sluice/sluice.sock\n");
}
static void few_files(struct machine *m)
{
	put(m, "/proc/self/limits", "Max open files            1024                 1024  files\n");
}
static void little_lock(struct machine *m)
{
	put(m, "/proc/self/limits", "Max locked memory         65536        65536     bytes\n");
	m->input.capabilities = ALL_CAP & ~(1ull << 14);
}
static void little_lock_root(struct machine *m)
{
	little_lock(m);
	m->input.capabilities = ALL_CAP;
}
static void few_files_machine(struct machine *m)
{
	put(m, "/proc/sys/fs/file-max", "1000\n");
}
static void no_tun(struct machine *m)
{
	drop(m, "/dev/net/tun");
}
static void twin_taken(struct machine *m)
{
	put_netdev(m, "p0");
}
static void twin_there(struct machine *m)
{
	put_netdev(m, "p0");
	put(m, "/sys/class/net/p0/tun_flags", "0x1002\n");
}
static void twin_same(struct machine *m)
{
	strcpy(m->ports[1].twin, "lc");
}
static void core_absent(struct machine *m)
{
	m->input.cores = "1,64";
}
static void core_offline(struct machine *m)
{
	put(m, "/sys/devices/system/cpu/online", "0-2\n");
	m->input.cores = "1,3";
}
static void core_nonsense(struct machine *m)
{
	m->input.cores = "1-";
}
static void core_reversed(struct machine *m)
{
	m->input.cores = "3-1";
}
static void core_control(struct machine *m)
{
	m->input.control_core = "9";
}
static void not_mounted(struct machine *m)
{
	put(m, "/proc/mounts", "sysfs /sys sysfs rw 0 0\n");
}
static void not_mounted_not_needed(struct machine *m)
{
	not_mounted(m);
	m->input.hugetlbfs_required = false;
}
static void few_pages(struct machine *m)
{
	put_pages(m, "/sys/devices/system/node/node0/hugepages", "512\n", "2\n");
	put_process(m, 91, "qemu\n", "Name:\tqemu\nHugetlbPages:\t 1044480 kB\n");
	put_process(m, 92, "other\n", "Name:\tother\nHugetlbPages:\t 4 kB\n");
}
static void few_pages_wanted(struct machine *m)
{
	few_pages(m);
	m->input.hugepages_required = false;
}
static void few_pages_virtual(struct machine *m)
{
	m->ports[0] = m->ports[1];
	put_pages(m, "/sys/kernel/mm/hugepages", "10\n", "10\n");
}
static void no_pages_wanted(struct machine *m)
{
	few_pages_virtual(m);
	put_pages(m, "/sys/kernel/mm/hugepages", "0\n", "0\n");
	m->input.hugepages_required = false;
}
static void far_pages_gone(struct machine *m) // node 1 has no port
{
	put_pages(m, "/sys/devices/system/node/node1/hugepages", "512\n", "0\n");
}
static void doctor_beside_daemon(struct machine *m)
{
	few_pages(m);
	m->input.starting = false;
	m->input.running_pid = 77;
	put_process(m, 77, "sluiced\n", "");
}
static void little_memory(struct machine *m)
{
	m->input.hugepages = false;
	put(m, "/proc/meminfo", "MemAvailable: 100000 kB\n");
}
static void no_pmd_pci(struct machine *m)
{
	drop(m, "/usr/lib/x86_64-linux-gnu/dpdk/pmds-23.0/librte_net_ice.so.23.0");
}
static void no_pmd_vdev(struct machine *m)
{
	drop(m, "/usr/lib/x86_64-linux-gnu/dpdk/pmds-23.0/librte_net_af_packet.so.23.0");
}
static void no_pmd_digit(struct machine *m)
{
	put(m, "/sys/bus/pci/devices/" PCI "/vendor", "0x15b3\n");
	put(m, "/sys/bus/pci/devices/" PCI "/device", "0x101d\n");
}
static void odd_nic(struct machine *m)
{
	put(m, "/sys/bus/pci/devices/" PCI "/vendor", "0xdead\n");
}
static void pci_missing(struct machine *m)
{
	strcpy(m->ports[0].device, "0000:5e:00.1");
}
static void pci_short_name(struct machine *m)
{
	strcpy(m->ports[0].device, "3b:00.0");
}
static void ifname_missing(struct machine *m)
{
	strcpy(m->ports[0].device, "ifname:ens9");
}
static void device_nonsense(struct machine *m)
{
	strcpy(m->ports[0].device, "eth-zero");
}
static void on_kernel(struct machine *m)
{
	put_link(m, "/sys/bus/pci/devices/" PCI "/driver", "../../drivers/ice");
	put_dir(m, "/sys/bus/pci/devices/" PCI "/net/ens1f0");
}
static void on_kernel_default_route(struct machine *m)
{
	put_link(m, "/sys/bus/pci/devices/" PCI "/driver", "../../drivers/ice");
	put_dir(m, "/sys/bus/pci/devices/" PCI "/net/eth0");
}
static void on_kernel_v6_default(struct machine *m)
{
	on_kernel(m);
	put(m, "/proc/net/ipv6_route",
		"00000000000000000000000000000000 00 00000000000000000000000000000000 00 "
		"00000000000000000000000000000000 ffffffff 00000001 00000000 00200200   dummy\n"
		"00000000000000000000000000000000 00 00000000000000000000000000000000 00 "
		"fd000000000000000000000000000001 00000400 00000002 00000000 00000003   ens1f0\n");
}
static void on_kernel_v6_reject(struct machine *m) // unreachable default on lo: nobody's burden
{
	on_kernel(m);
	put(m, "/proc/net/ipv6_route",
		"00000000000000000000000000000000 00 00000000000000000000000000000000 00 "
		"00000000000000000000000000000000 ffffffff 00000001 00000000 00200200       lo\n");
}
static void on_kernel_ssh(struct machine *m)
{
	put_link(m, "/sys/bus/pci/devices/" PCI "/driver", "../../drivers/ice");
	put_dir(m, "/sys/bus/pci/devices/" PCI "/net/eth1");
	strcpy(m->input.ssh_client, "10.10.10.7"); // as /proc/net/route prints it: 070A0A0A
}
static void on_virtio(struct machine *m)
{
	put_link(m, "/sys/bus/pci/devices/" PCI "/driver", "../../drivers/virtio-pci");
	put_dir(m, "/sys/bus/pci/devices/" PCI "/virtio0/net/eth0");
}
static void by_ifname(struct machine *m)
{
	put_link(m, "/sys/bus/pci/devices/" PCI "/driver", "../../drivers/ice");
	put_dir(m, "/sys/bus/pci/devices/" PCI "/net/ens1f0");
	put_netdev(m, "ens1f0");
	put_link(m, "/sys/class/net/ens1f0/device", "../../../" PCI);
	strcpy(m->ports[0].device, "ifname:ens1f0");
}
static void on_nothing(struct machine *m)
{
	drop(m, "/sys/bus/pci/devices/" PCI "/driver");
}
static void on_shared_driver(struct machine *m)
{
	put_link(m, "/sys/bus/pci/devices/" PCI "/driver", "../../drivers/mlx5_core");
	put_dir(m, "/sys/bus/pci/devices/" PCI "/net/ens1f0");
	drop(m, "/sys/bus/pci/drivers/vfio-pci");
	drop(m, "/sys/kernel/iommu_groups/14");
}
static void veth_default_route(struct machine *m)
{
	strcpy(m->ports[1].device, "net_af_packet0,iface=eth0");
}
static void vfio_missing(struct machine *m)
{
	drop(m, "/sys/bus/pci/drivers/vfio-pci");
}
static void iommu_off(struct machine *m)
{
	drop(m, "/sys/kernel/iommu_groups/14");
	put(m, "/proc/cmdline", "quiet\n");
}
static void iommu_off_amd(struct machine *m)
{
	iommu_off(m);
	put(m, "/proc/cpuinfo", "vendor_id : AuthenticAMD\n");
}
static void iommu_firmware(struct machine *m)
{
	drop(m, "/sys/kernel/iommu_groups/14");
}
static void iommu_unsafe(struct machine *m)
{
	iommu_off(m);
	put(m, "/sys/module/vfio/parameters/enable_unsafe_noiommu_mode", "Y\n");
}
static void group_shared(struct machine *m)
{
	put_pci(m, "0000:3b:00.1", "ice", "0x159b\n");
	put_link(m, "/sys/kernel/iommu_groups/14/devices/0000:3b:00.1", "x");
}
static void group_with_bridge(struct machine *m)
{
	put_pci(m, "0000:3a:00.0", "pcieport", "0x0001\n");
	put_link(m, "/sys/kernel/iommu_groups/14/devices/0000:3a:00.0", "x");
}
static void veth_missing(struct machine *m)
{
	drop(m, "/sys/class/net/lc");
}
static void veth_unnamed(struct machine *m)
{
	strcpy(m->ports[1].device, "net_af_packet0");
}
static void pcap_missing(struct machine *m)
{
	put_pmd(m, "pcap");
	strcpy(m->ports[1].device, "net_pcap0,rx_pcap=/cap/in.pcap,tx_pcap=/cap/out.pcap");
}
static void tap_makes_its_own(struct machine *m)
{
	put_pmd(m, "tap");
	strcpy(m->ports[1].device, "net_tap0,iface=dtap0");
}
static void shares_ports(struct machine *m)
{
	strcpy(m->addresses[0].ifname, "p0");
	m->addresses[0].address = m->snat[0];
	m->addresses[0].prefix_len = 24;
	m->input.n_addresses = 1;
}
static void shares_ports_twin_host(struct machine *m) // what we put on the twin ourselves
{
	shares_ports(m);
	m->addresses[0].prefix_len = 32;
}
static void shares_ports_elsewhere(struct machine *m)
{
	shares_ports_twin_host(m);
	strcpy(m->addresses[0].ifname, "lo");
}
static void shares_reserved(struct machine *m)
{
	shares_ports(m);
	put(m, "/proc/sys/net/ipv4/ip_local_reserved_ports", "30000-40000,40001-60999\n");
}
static void shares_one_short(struct machine *m)
{
	shares_ports(m);
	put(m, "/proc/sys/net/ipv4/ip_local_reserved_ports", "32768-60998\n");
}
static void shares_outside(struct machine *m)
{
	shares_ports(m);
	m->input.snat_last_port = 32767;
}
static void far_cores(struct machine *m)
{
	m->input.cores = "1-2";
}
static void auto_cores(struct machine *m)
{
	far_cores(m);
	m->input.cores = "auto";
}
static void small_mtu(struct machine *m)
{
	m->ports[1].mtu = 1600;
}
static void large_mtu(struct machine *m)
{
	m->ports[1].mtu = 1600;
	put(m, "/sys/class/net/lc/mtu", "1600\n");
}
static void partial_checksums(struct machine *m)
{
	m->ports[1].peer_tx_checksum = PREFLIGHT_YES;
	strcpy(m->ports[1].peer, "c0");
	strcpy(m->ports[1].peer_namespace, "client");
}
static void no_guard(struct machine *m)
{
	m->ports[1].ingress_drop = PREFLIGHT_NO;
}
static void guard_by_sysctl(struct machine *m)
{
	no_guard(m);
	put(m, "/proc/sys/net/ipv4/conf/lc/rp_filter", "1\n");
	put(m, "/proc/sys/net/ipv4/conf/lc/arp_ignore", "8\n");
	put(m, "/proc/sys/net/ipv6/conf/lc/disable_ipv6", "1\n");
}
static void guard_v4_only(struct machine *m)
{
	guard_by_sysctl(m);
	put(m, "/proc/sys/net/ipv6/conf/lc/disable_ipv6", "0\n");
}
static void guard_undone_by_all(struct machine *m) // the kernel takes the larger of the two
{
	guard_by_sysctl(m);
	put(m, "/proc/sys/net/ipv4/conf/all/rp_filter", "2\n");
}
static void guard_not_for_xdp(struct machine *m)
{
	put_pmd(m, "af_xdp");
	no_guard(m);
	strcpy(m->ports[1].device, "net_af_xdp0,iface=lc");
}
static void powersave(struct machine *m)
{
	put(m, "/sys/devices/system/cpu/cpu1/cpufreq/scaling_governor", "powersave\n");
}
static void siblings(struct machine *m)
{
	m->input.cores = "0-1";
	put(m, "/sys/devices/system/cpu/cpu1/topology/thread_siblings_list", "0-1\n");
}
static void not_isolated(struct machine *m)
{
	put(m, "/sys/devices/system/cpu/isolated", "\n");
}
static void huge_always(struct machine *m)
{
	put(m, "/sys/kernel/mm/transparent_hugepage/enabled", "[always] madvise never\n");
}
static void irqbalance(struct machine *m)
{
	put_process(m, 300, "irqbalance\n", "");
}
static void deep_idle(struct machine *m)
{
	put(m, "/sys/devices/system/cpu/cpu1/cpuidle/state3/latency", "133\n");
	put(m, "/sys/devices/system/cpu/cpu1/cpuidle/state3/disable", "0\n");
}
static void deep_idle_off(struct machine *m)
{
	deep_idle(m);
	put(m, "/sys/devices/system/cpu/cpu1/cpuidle/state3/disable", "1\n");
}
static void virtual_only(struct machine *m)
{
	not_isolated(m);
	huge_always(m);
	m->ports[0] = m->ports[1];
}

static const struct fault {
	const char *name;
	void (*make)(struct machine *m);
	const char *id;
	enum preflight_severity severity;
	const char *cause; // words in it
	const char *command;
} faults[] = {
	{ "no CAP_NET_ADMIN", no_admin, "E_PERM", PREFLIGHT_ERROR, "uid 1000 without CAP_NET_ADMIN",
		"sudo" },
	{ "no CAP_IPC_LOCK", no_lock, "E_PERM", PREFLIGHT_ERROR, "CAP_IPC_LOCK", "Ambient" },
	{ "socket answers", answers, "E_RUNNING", PREFLIGHT_ERROR, "sluiced, pid 77", "kill 77" },
	{ "socket listens", listens, "E_RUNNING", PREFLIGHT_ERROR, "sluiced, pid 78", "kill 78" },
	{ "hidden listener", listens_hidden, "E_RUNNING", PREFLIGHT_ERROR, "may not see",
		"ss -xlp" },
	{ "connected only", connected_only, "E_RUNNING", PREFLIGHT_OK, "free", "" },
	{ "few open files", few_files, "E_LIMIT", PREFLIGHT_ERROR, "is 1024, 4096", "LimitNOFILE" },
	{ "little locked memory", little_lock, "E_LIMIT", PREFLIGHT_ERROR, "65536 bytes",
		"LimitMEMLOCK" },
	{ "little, but may", little_lock_root, "E_LIMIT", PREFLIGHT_OK, "", "" },
	{ "few files of all", few_files_machine, "E_LIMIT", PREFLIGHT_ERROR, "1000",
		"fs.file-max" },
	{ "no tun", no_tun, "E_TUN", PREFLIGHT_ERROR, "missing", "mknod /dev/net/tun" },
	{ "twin is no tap", twin_taken, "E_TUN", PREFLIGHT_ERROR, "no TAP", "ip link del p0" },
	{ "twin is there", twin_there, "E_TUN", PREFLIGHT_OK, "", "" },
	{ "twin is the port", twin_same, "E_TUN", PREFLIGHT_ERROR, "name of the interface",
		"ports[].twin" },
	{ "core absent", core_absent, "E_CORE", PREFLIGHT_ERROR, "core 64 not in 0-3", "auto" },
	{ "core offline", core_offline, "E_CORE", PREFLIGHT_ERROR, "core 3 is offline",
		"echo 1 > /sys/devices/system/cpu/cpu3/online" },
	{ "cores nonsense", core_nonsense, "E_CORE", PREFLIGHT_ERROR, "not a list", "auto" },
	{ "cores reversed", core_reversed, "E_CORE", PREFLIGHT_ERROR, "not a list", "auto" },
	{ "control core", core_control, "E_CORE", PREFLIGHT_ERROR, "core 9 not in 0-3",
		"workers.control_core" },
	{ "not mounted", not_mounted, "E_HUGE_MOUNT", PREFLIGHT_ERROR, "1024 x 2048 kB",
		"mount -t hugetlbfs" },
	{ "mount not needed", not_mounted_not_needed, "E_HUGE_MOUNT", PREFLIGHT_OK, "not needed",
		"" },
	{ "few pages", few_pages, "E_HUGE_SHORT", PREFLIGHT_ERROR,
		"need 512 MB on node 0, free 4 MB of 2048 kB pages; 1020 MB held by qemu, pid 91",
		"echo 766 > "
		"/sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages" },
	{ "few pages, wanted", few_pages_wanted, "E_HUGE_SHORT", PREFLIGHT_WARN, "ordinary memory",
		"nr_hugepages" },
	{ "few pages, virtual", few_pages_virtual, "E_HUGE_SHORT", PREFLIGHT_ERROR, "free 20 MB",
		"echo 256 > /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages" },
	{ "no pages, wanted", no_pages_wanted, "E_HUGE_SHORT", PREFLIGHT_OK, "none reserved", "" },
	{ "far node", far_pages_gone, "E_HUGE_SHORT", PREFLIGHT_OK, "", "" },
	{ "doctor: pages", doctor_beside_daemon, "E_HUGE_SHORT", PREFLIGHT_OK, "running sluiced",
		"" },
	{ "doctor: running", doctor_beside_daemon, "E_RUNNING", PREFLIGHT_OK, "pid 77", "" },
	{ "little memory", little_memory, "E_MEMORY", PREFLIGHT_ERROR, "97 MB available, 512 MB",
		"memory.size" },
	{ "no ice", no_pmd_pci, "E_PMD", PREFLIGHT_ERROR, "8086:159b needs net_ice",
		"apt-get install librte-net-ice23" },
	{ "no af_packet", no_pmd_vdev, "E_PMD", PREFLIGHT_ERROR, "net_af_packet",
		"apt-get install librte-net-af-packet23" },
	{ "no mlx5", no_pmd_digit, "E_PMD", PREFLIGHT_ERROR, "15b3:101d needs net_mlx5",
		"apt-get install librte-net-mlx5-23" },
	{ "odd NIC", odd_nic, "E_PMD", PREFLIGHT_WARN, "dead:159b", "dpdk-pmdinfo" },
	{ "PCI missing", pci_missing, "E_PORT_MISSING", PREFLIGHT_ERROR,
		"devices here: " PCI " (vfio-pci, node 0)", "lspci" },
	{ "PCI short", pci_short_name, "E_PORT_MISSING", PREFLIGHT_OK, "there", "" },
	{ "ifname missing", ifname_missing, "E_PORT_MISSING", PREFLIGHT_ERROR, "no interface ens9",
		"ip -br link" },
	{ "nonsense", device_nonsense, "E_PORT_MISSING", PREFLIGHT_ERROR, "neither", "ifname:" },
	{ "on ice", on_kernel, "E_PORT_DRIVER", PREFLIGHT_ERROR, "on ice as ens1f0",
		"driverctl set-override " PCI " vfio-pci" },
	{ "default route", on_kernel_default_route, "E_PORT_DRIVER", PREFLIGHT_ERROR,
		"carries the default route: refused", "another port" },
	{ "v6 default", on_kernel_v6_default, "E_PORT_DRIVER", PREFLIGHT_ERROR, "refused",
		"another port" },
	{ "v6 reject", on_kernel_v6_reject, "E_PORT_DRIVER", PREFLIGHT_ERROR, "on ice as ens1f0",
		"driverctl" },
	{ "ssh", on_kernel_ssh, "E_PORT_DRIVER", PREFLIGHT_ERROR, "carries this ssh session",
		"another port" },
	{ "virtio", on_virtio, "E_PORT_DRIVER", PREFLIGHT_ERROR,
		"on virtio-pci as eth0; it carries the default route", "another port" },
	{ "ifname", by_ifname, "E_PORT_DRIVER", PREFLIGHT_ERROR, "on ice as ens1f0", "driverctl" },
	{ "no driver", on_nothing, "E_PORT_DRIVER", PREFLIGHT_ERROR, "no driver", "driverctl" },
	{ "mlx5_core", on_shared_driver, "E_PORT_DRIVER", PREFLIGHT_OK, "mlx5_core", "" },
	{ "mlx5_core, vfio", on_shared_driver, "E_IOMMU_OFF", PREFLIGHT_OK, "not needed", "" },
	{ "veth is the way out", veth_default_route, "E_PORT_DRIVER", PREFLIGHT_ERROR,
		"eth0: it carries the default route", "another interface" },
	{ "vfio missing", vfio_missing, "E_IOMMU_OFF", PREFLIGHT_ERROR, "vfio-pci is not loaded",
		"modprobe vfio-pci" },
	{ "IOMMU off", iommu_off, "E_IOMMU_OFF", PREFLIGHT_ERROR, "booted without",
		"intel_iommu=on" },
	{ "IOMMU off, AMD", iommu_off_amd, "E_IOMMU_OFF", PREFLIGHT_ERROR, "booted without",
		"amd_iommu=on" },
	{ "IOMMU firmware", iommu_firmware, "E_IOMMU_OFF", PREFLIGHT_ERROR, "firmware", "VT-d" },
	{ "IOMMU unsafe", iommu_unsafe, "E_IOMMU_OFF", PREFLIGHT_WARN, "unsafe", "intel_iommu=on" },
	{ "group shared", group_shared, "E_IOMMU_GROUP", PREFLIGHT_ERROR,
		"group 14 also holds 0000:3b:00.1 on ice", "driverctl set-override 0000:3b:00.1" },
	{ "group, bridge", group_with_bridge, "E_IOMMU_GROUP", PREFLIGHT_OK, "", "" },
	{ "veth missing", veth_missing, "E_VDEV", PREFLIGHT_ERROR,
		"iface lc does not exist in this namespace", "ip -br link" },
	{ "veth unnamed", veth_unnamed, "E_VDEV", PREFLIGHT_ERROR, "names no interface",
		"iface=INTERFACE" },
	{ "pcap missing", pcap_missing, "E_VDEV", PREFLIGHT_ERROR, "/cap/in.pcap", "ls -l" },
	{ "tap", tap_makes_its_own, "E_VDEV", PREFLIGHT_OK, "", "" },
	{ "ports shared", shares_ports, "E_SNAT_PORTS", PREFLIGHT_ERROR, "(p0), whose own",
		"ip_local_reserved_ports=1024-65535" },
	{ "on our twin", shares_ports_twin_host, "E_SNAT_PORTS", PREFLIGHT_OK, "", "" },
	{ "on lo", shares_ports_elsewhere, "E_SNAT_PORTS", PREFLIGHT_ERROR, "(lo)", "reserved" },
	{ "reserved", shares_reserved, "E_SNAT_PORTS", PREFLIGHT_OK, "", "" },
	{ "one port short", shares_one_short, "E_SNAT_PORTS", PREFLIGHT_ERROR, "port 60999",
		"reserved" },
	{ "outside", shares_outside, "E_SNAT_PORTS", PREFLIGHT_OK, "", "" },
	{ "far cores", far_cores, "W_NUMA", PREFLIGHT_WARN,
		"p0 is on node 0, worker cores 2 are not", "cores of 0-1" },
	{ "auto cores", auto_cores, "W_NUMA", PREFLIGHT_OK, "", "" },
	{ "small MTU", small_mtu, "W_MTU", PREFLIGHT_WARN, "lc has MTU 1500, the port 1600",
		"ip link set lc mtu 1600" },
	{ "large MTU", large_mtu, "W_MTU", PREFLIGHT_OK, "", "" },
	{ "partial checksums", partial_checksums, "W_PARTIAL_CSUM", PREFLIGHT_WARN,
		"peer c0 in namespace client", "ip netns exec client ethtool -K c0 tx off" },
	{ "no guard", no_guard, "W_TWIN_GUARD", PREFLIGHT_WARN, "answers ARP",
		"ingress device \"lc\" priority -500; policy drop" },
	{ "guard by sysctl", guard_by_sysctl, "W_TWIN_GUARD", PREFLIGHT_OK, "", "" },
	{ "guard, IPv4 only", guard_v4_only, "W_TWIN_GUARD", PREFLIGHT_WARN, "", "nft" },
	{ "guard undone", guard_undone_by_all, "W_TWIN_GUARD", PREFLIGHT_WARN, "", "nft" },
	{ "af_xdp", guard_not_for_xdp, "W_TWIN_GUARD", PREFLIGHT_OK, "", "" },
	{ "governor", powersave, "W_TUNE", PREFLIGHT_WARN, "governor=powersave on cores 1",
		"cpupower -c 1" },
	{ "siblings", siblings, "W_TUNE", PREFLIGHT_WARN, "worker cores 0-1 are threads",
		"one thread" },
	{ "not isolated", not_isolated, "W_TUNE", PREFLIGHT_WARN, "cores 1 are not isolated",
		"isolcpus=1" },
	{ "THP", huge_always, "W_TUNE", PREFLIGHT_WARN, "always", "echo madvise" },
	{ "irqbalance", irqbalance, "W_TUNE", PREFLIGHT_WARN, "interrupts", "systemctl disable" },
	{ "C-states", deep_idle, "W_TUNE", PREFLIGHT_WARN, "133 us", "cpupower idle-set" },
	{ "C-states off", deep_idle_off, "W_TUNE", PREFLIGHT_OK, "", "" },
	{ "virtual only", virtual_only, "W_TUNE", PREFLIGHT_OK, "virtual ports", "" },
};

// ---------------------------------------------------------------- tests

// The worst finding of a check, the first of equals.
static const struct preflight_finding *worst(const struct preflight_report *report, const char *id)
{
	const struct preflight_finding *found = NULL;
	for (uint32_t i = 0; i < report->n_items; i++) {
		const struct preflight_finding *f = &report->items[i];
		if (strcmp(f->id, id) == 0 && (found == NULL || f->severity > found->severity))
			found = f;
	}
	return found;
}

static void print_findings(const struct preflight_report *report)
{
	char line[1400];
	for (uint32_t i = 0; i < report->n_items; i++)
		print_message("%-5s %s\n", preflight_severity_name(report->items[i].severity),
			preflight_format(&report->items[i], line, sizeof(line)));
}

static void fit_machine_has_no_findings(void **state)
{
	struct machine *m = *state;
	struct preflight_report report = { 0 };
	assert_int_equal(preflight_run(&m->input, &report), 0);
	if (report.n_warn + report.n_error != 0)
		print_findings(&report);
	assert_int_equal(report.n_error, 0);
	assert_int_equal(report.n_warn, 0);
	assert_int_equal(report.n_ok, report.n_items);
	for (uint32_t i = 0; i < preflight_n_checks; i++)
		assert_non_null(worst(&report, preflight_checks[i].id));
	preflight_report_fini(&report);
}

static bool fault_is_found(const struct fault *fault)
{
	struct preflight_report report = { 0 };
	void *state;
	setup(&state);
	struct machine *m = state;
	fault->make(m);
	assert_int_equal(preflight_run(&m->input, &report), 0);
	const struct preflight_finding *f = worst(&report, fault->id);
	bool found = f != NULL && f->severity == fault->severity &&
		     strstr(f->cause, fault->cause) && strstr(f->command, fault->command) &&
		     f->object[0] && f->cause[0] &&
		     (f->severity == PREFLIGHT_OK) == (f->command[0] == 0);
	if (!found) {
		print_message("case \"%s\", expected %s %s \"%s\" \"%s\"\n", fault->name, fault->id,
			preflight_severity_name(fault->severity), fault->cause, fault->command);
		print_findings(&report);
	}
	preflight_report_fini(&report);
	teardown(&state);
	return found;
}

static void each_fault_is_named(void **state)
{
	uint32_t n_missed = 0;
	for (size_t i = 0; i < ARRAY_SIZE(faults); i++)
		n_missed += !fault_is_found(&faults[i]);
	assert_int_equal(n_missed, 0);
}

// Both ways: a check without a case that fails it is no check.
static void each_check_has_cases(void **state)
{
	for (uint32_t i = 0; i < preflight_n_checks; i++) {
		uint32_t n_bad = 0;
		for (size_t k = 0; k < ARRAY_SIZE(faults); k++)
			n_bad += strcmp(faults[k].id, preflight_checks[i].id) == 0 &&
				 faults[k].severity != PREFLIGHT_OK;
		if (n_bad == 0)
			print_message("%s\n", preflight_checks[i].id);
		assert_true(n_bad > 0);
	}
}

// An empty folder, files of garbage: findings, but no crash, and never more than one line each.
static void garbage_is_survived(void **state)
{
	struct machine *m = *state;
	struct preflight_report report = { 0 };
	char noise[5000];
	uint32_t seed = 0x5eed;
	static const char *const paths[] = { "/proc/net/route", "/proc/net/ipv6_route",
		"/proc/net/unix", "/proc/mounts", "/proc/meminfo", "/proc/self/limits",
		"/sys/devices/system/cpu/online", "/sys/devices/system/cpu/isolated",
		"/sys/devices/system/node/node0/cpulist",
		"/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages",
		"/proc/sys/net/ipv4/ip_local_port_range",
		"/proc/sys/net/ipv4/ip_local_reserved_ports",
		"/sys/bus/pci/devices/" PCI "/numa_node", "/proc/sys/fs/file-max" };
	for (size_t i = 0; i < ARRAY_SIZE(paths); i++) {
		for (size_t k = 0; k < sizeof(noise) - 1; k++) {
			seed = seed * 1664525 + 1013904223;
			noise[k] = "0123456789-, \n\tabcx"[(seed >> 16) % 19];
		}
		noise[sizeof(noise) - 1] = 0;
		put(m, paths[i], noise);
	}
	assert_int_equal(preflight_run(&m->input, &report), 0);
	for (uint32_t i = 0; i < report.n_items; i++)
		assert_null(strpbrk(report.items[i].cause, "\n\t"));
	preflight_report_fini(&report);
	drop(m, "/sys");
	drop(m, "/proc");
	assert_int_equal(preflight_run(&m->input, &report), 0);
	assert_true(report.n_error > 0);
	preflight_report_fini(&report);
}

static void gather_fills_in_this_machine(void **state)
{
	struct preflight_port port = { .name = "p0", .device = "net_af_packet0,iface=no-such-if" };
	struct preflight_host_address addresses[PREFLIGHT_ADDRESSES_MAX] = { 0 };
	struct preflight_input input = { .ports = &port,
		.n_ports = 1,
		.socket_path = "/nonexistent/sluice.sock",
		.uid = 12345 };
	preflight_gather(&input, &port, addresses);
	assert_int_equal(input.uid, geteuid());
	assert_int_equal(input.running_pid, 0);
	assert_ptr_equal(input.addresses, addresses);
	assert_int_equal(port.peer_tx_checksum, PREFLIGHT_UNKNOWN);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(fit_machine_has_no_findings, setup, teardown),
		cmocka_unit_test(each_fault_is_named),
		cmocka_unit_test(each_check_has_cases),
		cmocka_unit_test_setup_teardown(garbage_is_survived, setup, teardown),
		cmocka_unit_test(gather_fills_in_this_machine),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
