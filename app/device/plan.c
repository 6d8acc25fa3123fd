// SPDX-License-Identifier: BSD-3-Clause
// From a configuration to the EAL's command line, without starting anything: the EAL can be started once in a process, and
// it leaves half a state behind when it fails, so everything that can be known before is settled here.
//
//   --lcores 0@C,1@A,2@B   lcore 0 is control, lcore i+1 is worker i; the part behind @ is the CPU, so that CPUs of any
//                          number serve and two workers may share one
//   --in-memory            nothing is left behind in hugetlbfs, no mount is needed; --no-huge -m N where there are no huge pages
//   -a / --no-pci          only the devices of the configuration are touched
#include "device_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void add_word(struct device_plan *plan, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

static void add_word(struct device_plan *plan, const char *fmt, ...)
{
	if (plan->n_words + 1 >= DEVICE_WORDS_MAX)
		return;
	va_list ap;
	va_start(ap, fmt);
	char *word = NULL;
	if (vasprintf(&word, fmt, ap) >= 0)
		plan->words[plan->n_words++] = word;
	va_end(ap);
}

static void add_lcores(struct device_plan *plan)
{
	char list[DEVICE_WORKERS_MAX * 12 + 16];
	int n = snprintf(list, sizeof(list), "0@%u", plan->control_cpu);
	for (uint16_t i = 0; i < plan->n_workers; i++)
		n += snprintf(list + n, sizeof(list) - (size_t)n, ",%u@%u", i + 1, plan->cpus[i]);
	add_word(plan, "--lcores");
	add_word(plan, "%s", list);
	add_word(plan, "--main-lcore");
	add_word(plan, "0");
}

static void add_memory(struct device_plan *plan, bool has_pci, const char *root)
{
	uint64_t mb = (plan->memory_bytes + (1u << 20) - 1) >> 20;
	if (!plan->hugepages) {
		add_word(plan, "--no-huge");
		add_word(plan, "--no-shconf"); // nothing is left in /run when we are killed
		add_word(plan, "-m");
		add_word(plan, "%llu", (unsigned long long)mb);
		return;
	}
	add_word(plan, "--in-memory");
	// Without an IOMMU hardware needs physical addresses: then the EAL decides.
	if (!has_pci || machine_has_iommu(root))
		add_word(plan, "--iova-mode=va");
}

static bool has_word(const char *words, const char *start)
{
	for (const char *at = strstr(words, start); at; at = strstr(at + 1, start)) {
		if (at == words || at[-1] == ' ' || at[-1] == '\t')
			return true;
	}
	return false;
}

static bool add_devices(struct device_plan *plan, const struct device_config *config,
	const struct device_name *names)
{
	bool has_pci = false;
	for (uint32_t i = 0; i < config->n_ports; i++) {
		bool pci = names[i].kind == DEVICE_KIND_PCI;
		add_word(plan, "%s", pci ? "-a" : "--vdev");
		add_word(plan, "%s%s%s", names[i].name, names[i].args[0] ? "," : "", names[i].args);
		has_pci |= pci;
	}
	// Members of a bonding port, say, may be given as extra words.
	has_pci |= has_word(config->eal_args, "-a") || has_word(config->eal_args, "--allow");
	if (!has_pci)
		add_word(plan, "--no-pci");
	return has_pci;
}

static void add_extra(struct device_plan *plan, const char *words)
{
	while (*words) {
		words += strspn(words, " \t");
		size_t len = strcspn(words, " \t");
		if (len > 0)
			add_word(plan, "%.*s", (int)len, words);
		words += len;
	}
}

// Hardware is only taken from drivers that give it up: binding to a kernel driver means that the kernel uses it, and some of
// DPDK's drivers (virtio) would take it away all the same. Of mlx and mana kernel and user space share the device.
static int check_pci(
	const struct device_name *name, const char *root, const char *path, struct error *err)
{
	static const char *const fit[] = { "vfio-pci", "uio_pci_generic", "igb_uio", "mlx4_core",
		"mlx5_core", "mana" };
	char link[512], target[512];
	snprintf(link, sizeof(link), "%s/sys/bus/pci/devices/%s", root, name->name);
	if (access(link, F_OK) != 0)
		return error_add(err, ENODEV, path, "there is no PCI device %s", name->name);
	snprintf(link, sizeof(link), "%s/sys/bus/pci/devices/%s/driver", root, name->name);
	ssize_t n = readlink(link, target, sizeof(target) - 1);
	target[n > 0 ? n : 0] = 0;
	const char *driver = strrchr(target, '/');
	for (size_t i = 0; driver && i < ARRAY_SIZE(fit); i++) {
		if (strcmp(driver + 1, fit[i]) == 0)
			return 0;
	}
	return error_add(err, EBUSY, path,
		"PCI device %s is bound to %s: bind it with `driverctl set-override %s vfio-pci`",
		name->name, driver ? driver + 1 : "no driver", name->name);
}

// Device strings, each good and each used once.
static int parse_ports(const struct device_config *config, const char *root,
	struct device_name *names, struct error *err)
{
	int first = 0;
	for (uint32_t i = 0; i < config->n_ports; i++) {
		char path[64];
		snprintf(path, sizeof(path), "ports[%u].device", i);
		int rc = device_name_parse(config->ports[i].device, root, path, &names[i], err);
		for (uint32_t j = 0; rc == 0 && j < i; j++) {
			if (strcmp(names[i].name, names[j].name) == 0)
				rc = error_add(err, EINVAL, path,
					"device %s is already that of port %s", names[i].name,
					config->ports[j].name);
		}
		if (rc == 0 && names[i].kind == DEVICE_KIND_PCI)
			rc = check_pci(&names[i], root, path, err);
		if (rc && first == 0)
			first = rc;
	}
	return first;
}

int device_plan_make(const struct device_config *config, const char *root, struct device_plan *out,
	struct error *err)
{
	memset(out, 0, sizeof(*out));
	if (strcmp(root, "/") == 0)
		root = "";
	if (config->n_ports == 0 || config->n_ports > DEVICE_PORTS_MAX)
		return error_add(err, EINVAL, "ports", "%u ports: 1 to %d are possible",
			config->n_ports, DEVICE_PORTS_MAX);
	struct device_name *names = calloc(config->n_ports, sizeof(*names));
	if (names == NULL)
		return error_add(err, ENOMEM, "", "out of memory");
	int rc = parse_ports(config, root, names, err);
	if (rc == 0)
		rc = cores_choose(config, names, root, out, err);
	if (rc == 0)
		rc = memory_plan(config, names, root, out, err);
	if (rc == 0) {
		for (uint32_t i = 0; i < config->n_ports; i++)
			memcpy(out->names[i], names[i].name, sizeof(out->names[i]));
		add_lcores(out);
		// Nothing is shared under this name (--in-memory, --no-shconf): instances do not meet.
		add_word(out, "--file-prefix=sluice");
		add_word(out, "--no-telemetry");
		add_memory(out, add_devices(out, config, names), root);
		add_extra(out, config->eal_args);
	}
	free(names);
	return rc;
}

void device_plan_fini(struct device_plan *plan)
{
	for (uint32_t i = 0; i < plan->n_words; i++)
		free(plan->words[i]);
	memset(plan, 0, sizeof(*plan));
}
