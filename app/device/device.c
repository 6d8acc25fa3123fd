// SPDX-License-Identifier: BSD-3-Clause
// Start and stop of the hardware side, in order: plan, EAL, ports found, packet memory, ports started, links. Each step
// that fails leaves nothing of the later ones; device_stop goes the way back from wherever it was.
#include "device_priv.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <rte_eal.h>
#include <rte_ethdev.h>
#include <rte_lcore.h>
#include <rte_version.h>

#define LINK_WAIT_MS 2000

// A CPU may be online and yet outside this process's cpuset: the EAL would only say that a thread failed.
static int check_affinity(const struct device_plan *plan, struct error *err)
{
	cpu_set_t before, one;
	int rc = 0;
	if (sched_getaffinity(0, sizeof(before), &before))
		return 0;
	for (uint16_t i = 0; i <= plan->n_workers; i++) {
		uint16_t cpu = i < plan->n_workers ? plan->cpus[i] : plan->control_cpu;
		CPU_ZERO(&one);
		CPU_SET(cpu, &one);
		if (sched_setaffinity(0, sizeof(one), &one))
			rc = error_add(err, EINVAL,
				i < plan->n_workers ? "workers.cores" : "workers.control_core",
				"CPU %u is not available to this process (cpuset)", cpu);
	}
	sched_setaffinity(0, sizeof(before), &before);
	return rc;
}

static int parse_names(struct device *d, const struct device_config *config, struct error *err)
{
	struct device_name names[DEVICE_PORTS_MAX];
	for (uint32_t i = 0; i < config->n_ports; i++) {
		char path[64];
		snprintf(path, sizeof(path), "ports[%u].device", i);
		int rc = device_name_parse(config->ports[i].device, "", path, &names[i], err);
		if (rc)
			return rc;
		d->shapes[i].name = names[i];
	}
	return ports_check_interfaces(config, names, err);
}

static void place_workers(struct device *d)
{
	d->n_workers = d->plan.n_workers;
	for (uint32_t i = 0; i < d->n_workers; i++) {
		d->workers[i] = (struct device_worker){
			.lcore = (uint16_t)(i + 1),
			.cpu = d->plan.cpus[i],
			.numa = d->plan.numas[i],
		};
	}
}

static void log_ports(const struct device *d)
{
	for (uint32_t i = 0; i < d->n_ports; i++) {
		const struct device_port *port = &d->ports[i];
		char mac[18], speed[24] = "";
		if (port->link_mbps)
			snprintf(speed, sizeof(speed), " %u Mbit/s", port->link_mbps);
		log_write(d->log, LOG_LEVEL_INFO, "port",
			"%s %s: driver %s, node %d, MAC %s, MTU %u, %u+%u queues, link %s%s",
			port->name, port->device, port->driver, port->numa,
			mac_format(&port->mac, mac), port->mtu, port->n_rx_queues,
			port->n_tx_queues, port->link_up ? "up" : "down", speed);
	}
}

static void log_plan(const struct device *d)
{
	char list[160] = "";
	size_t n = 0;
	for (uint32_t i = 0; i < d->n_workers && n + 8 < sizeof(list); i++)
		n += (size_t)snprintf(
			list + n, sizeof(list) - n, "%s%u", i ? "," : "", d->plan.cpus[i]);
	log_write(d->log, LOG_LEVEL_INFO, "cores", "control on CPU %u, %u workers on %s (%s)",
		d->plan.control_cpu, d->n_workers, list, d->plan.cores_reason);
	log_write(d->log, LOG_LEVEL_INFO, "memory", "%s (%s)",
		d->plan.hugepages ? "huge pages" : "ordinary pages", d->plan.memory_reason);
}

static int bring_up(struct device *d, const struct device_config *config, struct error *err)
{
	int rc = device_plan_make(config, "/", &d->plan, err);
	if (rc == 0)
		rc = parse_names(d, config, err);
	if (rc == 0)
		rc = check_affinity(&d->plan, err);
	if (rc)
		return rc;
	place_workers(d);
	log_plan(d);
	rc = eal_log_open(&d->eal, d->log, err);
	if (rc == 0)
		rc = eal_start(&d->plan, &d->eal, err);
	if (rc)
		return rc;
	d->eal_is_up = true;
	rc = ports_find(d, config, err);
	if (rc == 0)
		rc = memory_make_pools(d, err);
	if (rc == 0)
		rc = ports_start(d, config, err);
	if (rc)
		return rc;
	ports_wait_link(d, LINK_WAIT_MS);
	log_ports(d);
	return 0;
}

int device_start(const struct device_config *config, const struct log *log, struct device **out,
	struct error *err)
{
	struct device *d = calloc(1, sizeof(*d));
	if (d == NULL)
		return error_add(err, ENOMEM, "", "out of memory");
	d->log = log;
	d->n_ports = config->n_ports <= DEVICE_PORTS_MAX ? config->n_ports : 0;
	int rc = bring_up(d, config, err);
	if (rc) {
		device_stop(d);
		return rc;
	}
	*out = d;
	return 0;
}

void device_stop(struct device *device)
{
	if (device == NULL)
		return;
	char folder[PATH_MAX];
	if (device->eal_is_up) {
		ports_stop(device);
		memory_free_pools(device);
		snprintf(folder, sizeof(folder), "%s", rte_eal_get_runtime_dir());
		rte_eal_cleanup();
		rmdir(folder); // made by the EAL even when nothing goes into it
	}
	eal_log_close(&device->eal);
	device_plan_fini(&device->plan);
	free(device);
}

uint32_t device_n_ports(const struct device *device)
{
	return device->n_ports;
}

const struct device_port *device_port(const struct device *device, uint32_t idx)
{
	return &device->ports[idx];
}

uint32_t device_n_workers(const struct device *device)
{
	return device->n_workers;
}

const struct device_worker *device_worker(const struct device *device, uint32_t idx)
{
	return &device->workers[idx];
}

struct rte_mempool *device_pool(const struct device *device, uint32_t worker_idx)
{
	return device->pools[worker_idx];
}

struct rte_mempool *device_control_pool(const struct device *device)
{
	return device->control_pool;
}

void device_poll_links(struct device *device)
{
	for (uint32_t i = 0; i < device->n_ports; i++) {
		bool before = device->ports[i].link_up;
		ports_poll_link(device, i);
		if (before != device->ports[i].link_up)
			log_write(device->log, LOG_LEVEL_WARN, "link", "%s: link is %s",
				device->ports[i].name, before ? "down" : "up");
	}
}

void device_port_stats(const struct device *device, uint32_t idx, struct device_port_stats *out)
{
	struct rte_eth_stats stats;
	memset(out, 0, sizeof(*out));
	if (rte_eth_stats_get(device->ports[idx].port_id, &stats) != 0)
		return;
	out->rx_missed = stats.imissed;
	out->rx_errors = stats.ierrors;
	out->tx_errors = stats.oerrors;
	out->rx_nombuf = stats.rx_nombuf;
}
