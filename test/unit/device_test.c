// SPDX-License-Identifier: BSD-3-Clause
// The plan of the device module over fake machines: which CPU does what, which pages, which words the EAL gets, and what is
// refused with which place. No EAL, no root.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <ftw.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "device.h"

static char root[64];

// Writes text to a file below the fake root, with its folders.
static void put(const char *path, const char *text)
{
	char full[512];
	snprintf(full, sizeof(full), "%s/%s", root, path);
	for (char *slash = full + strlen(root) + 1; (slash = strchr(slash, '/')); slash++) {
		*slash = 0;
		mkdir(full, 0755);
		*slash = '/';
	}
	FILE *file = fopen(full, "we");
	assert_non_null(file);
	fputs(text, file);
	fclose(file);
}

static void put_link(const char *path, const char *target)
{
	char full[512];
	put(path, "");
	snprintf(full, sizeof(full), "%s/%s", root, path);
	unlink(full);
	assert_int_equal(symlink(target, full), 0);
}

static int remove_one(const char *path, const struct stat *status, int kind, struct FTW *place)
{
	return remove(path);
}

static int machine_setup(void **state)
{
	snprintf(root, sizeof(root), "/tmp/sluice-device-test-XXXXXX");
	return mkdtemp(root) == NULL;
}

static int machine_teardown(void **state)
{
	return nftw(root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void put_small_machine(void)
{
	put("sys/devices/system/cpu/online", "0-1\n");
	put("sys/devices/system/cpu/isolated", "\n");
	put("sys/devices/system/node/node0/cpulist", "0-1\n");
	put("proc/self/status", "Name:\tx\nCpus_allowed_list:\t0-1\n");
}

// Two nodes of 4 cores with 2 threads: cpu N and N+8 are siblings; node 1 has 4-7 and 12-15.
static void put_large_machine(const char *isolated)
{
	put("sys/devices/system/cpu/online", "0-15\n");
	put("sys/devices/system/cpu/isolated", isolated);
	put("sys/devices/system/node/node0/cpulist", "0-3,8-11\n");
	put("sys/devices/system/node/node1/cpulist", "4-7,12-15\n");
	put("proc/self/status", "Cpus_allowed_list:\t0-15\n");
	for (int cpu = 0; cpu < 16; cpu++) {
		char path[128], text[32];
		snprintf(path, sizeof(path),
			"sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", cpu);
		snprintf(text, sizeof(text), "%d,%d\n", cpu % 8, cpu % 8 + 8);
		put(path, text);
	}
}

static void put_nic(const char *address, const char *driver, const char *node)
{
	char path[128], target[128];
	snprintf(path, sizeof(path), "sys/bus/pci/devices/%s/numa_node", address);
	put(path, node);
	snprintf(path, sizeof(path), "sys/bus/pci/devices/%s/driver", address);
	snprintf(target, sizeof(target), "../../../bus/pci/drivers/%s", driver);
	put_link(path, target);
}

static struct device_config config_of(const char *device, const char *cores)
{
	struct device_config config = { .n_ports = 1 };
	snprintf(config.ports[0].name, sizeof(config.ports[0].name), "p0");
	snprintf(config.ports[0].device, sizeof(config.ports[0].device), "%s", device);
	snprintf(config.cores, sizeof(config.cores), "%s", cores);
	snprintf(config.control_core, sizeof(config.control_core), "auto");
	return config;
}

static bool has_words(const struct device_plan *plan, const char *first, const char *second)
{
	for (uint32_t i = 0; i < plan->n_words; i++) {
		if (strcmp(plan->words[i], first) == 0 &&
			(second == NULL ||
				(i + 1 < plan->n_words && strcmp(plan->words[i + 1], second) == 0)))
			return true;
	}
	return false;
}

static void expect_cpus(const struct device_plan *plan, uint16_t control, const char *workers)
{
	char text[256] = "";
	size_t n = 0;
	for (uint16_t i = 0; i < plan->n_workers; i++)
		n += (size_t)snprintf(
			text + n, sizeof(text) - n, "%s%u", i ? "," : "", plan->cpus[i]);
	assert_string_equal(text, workers);
	assert_int_equal(plan->control_cpu, control);
}

// Plans, expects success, hands the plan to the caller.
static void plan_ok(const struct device_config *config, struct device_plan *plan)
{
	struct error err = { 0 };
	char text[512];
	int rc = device_plan_make(config, root, plan, &err);
	if (rc)
		print_message("%s\n", error_first(&err, text, sizeof(text)));
	assert_int_equal(rc, 0);
	assert_int_equal(err.n_items, 0);
}

static void plan_fails(const struct device_config *config, int code, const char *expected)
{
	struct device_plan plan;
	struct error err = { 0 };
	char text[512];
	assert_int_equal(device_plan_make(config, root, &plan, &err), -code);
	error_first(&err, text, sizeof(text));
	if (strstr(text, expected) == NULL)
		fail_msg("\"%s\" does not hold \"%s\"", text, expected);
	error_fini(&err);
	device_plan_fini(&plan);
}

static void test_two_cpus(void **state)
{
	struct device_plan plan;
	put_small_machine();
	struct device_config config = config_of("net_af_packet0,iface=lc", "auto");
	plan_ok(&config, &plan);
	expect_cpus(&plan, 0, "1"); // never CPU 0 when there is another
	assert_true(has_words(&plan, "--lcores", "0@0,1@1"));
	assert_true(has_words(&plan, "--vdev", "net_af_packet0,iface=lc"));
	assert_true(has_words(&plan, "--no-pci", NULL));
	assert_true(has_words(&plan, "--no-huge", NULL));
	assert_non_null(strstr(plan.cores_reason, "1 of 1 wanted"));
	device_plan_fini(&plan);
}

static void test_one_cpu_is_shared(void **state)
{
	struct device_plan plan;
	put_small_machine();
	put("proc/self/status", "Cpus_allowed_list:\t1\n");
	struct device_config config = config_of("net_null0", "auto");
	plan_ok(&config, &plan);
	expect_cpus(&plan, 1, "1");
	assert_true(has_words(&plan, "--lcores", "0@1,1@1"));
	assert_non_null(strstr(plan.cores_reason, "shared"));
	device_plan_fini(&plan);
}

static void test_list_is_taken_as_it_stands(void **state)
{
	struct device_plan plan;
	put_small_machine();
	struct device_config config = config_of("net_af_packet0,iface=lc,qpairs=2", "0,1");
	plan_ok(&config, &plan);
	expect_cpus(&plan, 0, "0,1"); // control shares with the first
	assert_true(has_words(&plan, "--lcores", "0@0,1@0,2@1"));
	device_plan_fini(&plan);
	config = config_of("net_null0", "1,1");
	plan_ok(&config, &plan);
	expect_cpus(&plan, 0, "1,1");
	device_plan_fini(&plan);
}

static void test_queues_say_how_many(void **state)
{
	struct device_plan plan;
	put_large_machine("\n");
	struct device_config config = config_of("net_af_packet0,iface=lc,qpairs=3", "auto");
	plan_ok(&config, &plan);
	expect_cpus(&plan, 0, "1,2,3"); // node unknown; 8 is the sibling of control
	device_plan_fini(&plan);
	config = config_of("net_null0", "auto");
	snprintf(config.control_core, sizeof(config.control_core), "2");
	plan_ok(&config, &plan);
	expect_cpus(&plan, 2, "1"); // CPU 0 is not taken although it is free
	device_plan_fini(&plan);
}

static void test_node_and_siblings(void **state)
{
	struct device_plan plan;
	put_large_machine("\n");
	put_nic("0000:3b:00.0", "vfio-pci", "1\n");
	struct device_config config = config_of("3b:00.0,arg=1", "auto");
	plan_ok(&config, &plan);
	expect_cpus(
		&plan, 0, "4,5,6,7,1,2,3"); // port's node first, no two siblings, none of control
	assert_int_equal(plan.numas[0], 1);
	assert_int_equal(plan.numas[4], 0);
	assert_string_equal(plan.names[0], "0000:3b:00.0");
	assert_true(has_words(&plan, "-a", "0000:3b:00.0,arg=1"));
	assert_false(has_words(&plan, "--no-pci", NULL));
	device_plan_fini(&plan);
}

static void test_isolated_first(void **state)
{
	struct device_plan plan;
	put_large_machine("2-3,6-7\n");
	put("proc/self/status", "Cpus_allowed_list:\t0-1,4-5,8-15\n"); // as after isolcpus=
	put_nic("0000:3b:00.0", "vfio-pci", "1\n");
	struct device_config config = config_of("0000:3b:00.0", "auto");
	plan_ok(&config, &plan);
	expect_cpus(&plan, 0, "6,7,2,3");
	device_plan_fini(&plan);
}

static void test_ifname(void **state)
{
	struct device_plan plan;
	put_small_machine();
	put("sys/devices/pci0000:3a/0000:3b:00.1/net/ens1f1/mtu", "1500\n");
	put_link("sys/devices/pci0000:3a/0000:3b:00.1/net/ens1f1/device", "../../../0000:3b:00.1");
	put_link("sys/class/net/ens1f1", "../../devices/pci0000:3a/0000:3b:00.1/net/ens1f1");
	put("sys/devices/virtual/net/veth0/mtu", "1500\n");
	put_link("sys/class/net/veth0", "../../devices/virtual/net/veth0");
	put_nic("0000:3b:00.1", "vfio-pci", "-1\n");
	struct device_config config = config_of("ifname:ens1f1", "1");
	plan_ok(&config, &plan);
	assert_string_equal(plan.names[0], "0000:3b:00.1");
	device_plan_fini(&plan);
	config = config_of("ifname:veth0", "1");
	plan_fails(&config, ENODEV, "net_af_packet0,iface=veth0");
	config = config_of("ifname:nope", "1");
	plan_fails(&config, ENODEV, "ports[0].device: no interface \"nope\"");
}

static void test_kernel_owned(void **state)
{
	put_small_machine();
	put_nic("0000:00:03.0", "virtio-pci", "-1\n");
	struct device_config config = config_of("0000:00:03.0", "auto");
	plan_fails(
		&config, EBUSY, "ports[0].device: PCI device 0000:00:03.0 is bound to virtio-pci");
	config = config_of("0000:00:04.0", "auto");
	plan_fails(&config, ENODEV, "no PCI device 0000:00:04.0");
}

static void test_refusals(void **state)
{
	static const struct {
		const char *device, *cores, *control, *expected;
	} rows[] = {
		{ "net_null0", "2", "auto", "workers.cores: CPU 2 is not online, there are 0-1" },
		{ "net_null0", "0-", "auto", "no list of CPUs" },
		{ "net_null0", "1-0", "auto", "no list of CPUs" },
		{ "net_null0", "1,", "auto", "no list of CPUs" },
		{ "net_null0", "-1", "auto", "no list of CPUs" },
		{ "net_null0", "x", "auto", "no list of CPUs" },
		{ "net_null0", "auto", "9", "workers.control_core: CPU 9 is not online" },
		{ "net_null0", "auto", "one", "workers.control_core: \"one\" is neither" },
		{ "", "auto", "auto", "ports[0].device: \"\" names no device" },
		{ ",iface=x", "auto", "auto", "names no device" },
		{ "0000:3b:20.0", "auto", "auto", "is no device" },
		{ "pci:net_null0", "auto", "auto", "is no device" },
		{ "vdev:", "auto", "auto", "is no device" },
		{ "net null0", "auto", "auto", "is no device" },
		{ "ifname:", "auto", "auto", "is no interface name" },
		{ "ifname:../../etc", "auto", "auto", "is no interface name" },
	};
	put_small_machine();
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct device_config config = config_of(rows[i].device, rows[i].cores);
		snprintf(config.control_core, sizeof(config.control_core), "%s", rows[i].control);
		plan_fails(&config, EINVAL, rows[i].expected);
	}
	struct device_config twice = config_of("net_null0", "auto");
	twice.ports[1] = twice.ports[0];
	twice.n_ports = 2;
	plan_fails(&twice, EINVAL, "ports[1].device: device net_null0 is already that of port p0");
	twice.n_ports = 0;
	plan_fails(&twice, EINVAL, "ports: 0 ports");
}

static void test_hugepages(void **state)
{
	struct device_plan plan;
	put_small_machine();
	put("sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "1024\n");
	struct device_config config = config_of("vdev:net_tap0,iface=x", "auto");
	config.hugepages = true;
	plan_ok(&config, &plan);
	assert_true(plan.hugepages);
	assert_true(has_words(&plan, "--in-memory", NULL));
	assert_true(has_words(&plan, "--iova-mode=va", NULL));
	assert_false(has_words(&plan, "--no-huge", NULL));
	device_plan_fini(&plan);
	put("sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "4\n");
	plan_ok(&config, &plan); // wanted, too few: goes on without
	assert_true(has_words(&plan, "--no-huge", NULL));
	assert_non_null(strstr(plan.memory_reason, "too few"));
	device_plan_fini(&plan);
	config.hugepages_required = true;
	plan_fails(&config, ENOMEM, "memory.hugepages:");
}

static void test_memory_follows_needs(void **state)
{
	struct device_plan plan;
	put_small_machine();
	struct device_config config = config_of("net_null0", "auto");
	plan_ok(&config, &plan);
	uint64_t base = plan.memory_bytes;
	assert_int_equal(plan.data_room, 2176);
	device_plan_fini(&plan);
	config.flow_bytes_per_worker = 1ull << 30;
	plan_ok(&config, &plan);
	assert_true(plan.memory_bytes >= base + (1ull << 30));
	device_plan_fini(&plan);
	config.ports[0].mtu = 9000;
	plan_ok(&config, &plan);
	assert_true(plan.data_room >= 9000 + 18 + 128);
	device_plan_fini(&plan);
	config = config_of(
		"net_af_packet0,iface=x,blocksz=16384,framesz=16384,framecnt=512", "auto");
	plan_ok(&config, &plan);
	assert_true(plan.data_room >= 16384 + 128);
	device_plan_fini(&plan);
	config.memory_bytes = 3ull << 30;
	snprintf(config.eal_args, sizeof(config.eal_args), "  --log-level=8  -a 0000:00:01.0 ");
	plan_ok(&config, &plan);
	assert_true(has_words(&plan, "-m", "3072"));
	assert_true(has_words(&plan, "-a", "0000:00:01.0"));
	assert_false(has_words(&plan, "--no-pci", NULL)); // a member of a bonding port, say
	assert_string_equal(plan.words[plan.n_words - 3], "--log-level=8");
	device_plan_fini(&plan);
}

int main(void)
{
#define MACHINE_TEST(fn) cmocka_unit_test_setup_teardown(fn, machine_setup, machine_teardown)
	const struct CMUnitTest tests[] = {
		MACHINE_TEST(test_two_cpus),
		MACHINE_TEST(test_one_cpu_is_shared),
		MACHINE_TEST(test_list_is_taken_as_it_stands),
		MACHINE_TEST(test_queues_say_how_many),
		MACHINE_TEST(test_node_and_siblings),
		MACHINE_TEST(test_isolated_first),
		MACHINE_TEST(test_ifname),
		MACHINE_TEST(test_kernel_owned),
		MACHINE_TEST(test_refusals),
		MACHINE_TEST(test_hugepages),
		MACHINE_TEST(test_memory_follows_needs),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
