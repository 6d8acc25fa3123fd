// SPDX-License-Identifier: BSD-3-Clause
// Ports, workers, drops: what the machine counts. Counters are read relaxed while workers write them, so one answer
// is not an instant, but at rest it is exact.
#include "admin_priv.h"

static bool machine_is_there(struct admin_request *r)
{
	if (control_device(r->admin->control) && control_dataplane(r->admin->control))
		return true;
	reply_header(r, "Retry-After", "1");
	reply_problem(r, PROBLEM_UNAVAILABLE, "the data path is not attached yet");
	return false;
}

static void reply_list(struct admin_request *r, json_t *items, json_t *control)
{
	json_t *body = json_pack("{s:o, s:{s:o, s:n, s:i}}", "items", items, "metadata",
		"generation", json_count(control_generation(r->admin->control)), "continue",
		"remaining", 0);
	if (control)
		json_object_set_new(body, "control", control);
	reply_json(r, 200, body);
}

// ---------------------------------------------------------------- ports
static json_t *port_json(struct admin_request *r, uint32_t idx)
{
	const struct device *device = control_device(r->admin->control);
	const struct device_port *port = device_port(device, idx);
	struct dataplane_port_counters c = { 0 };
	struct device_port_stats stats = { 0 };
	char mac[18];
	dataplane_port_counters(control_dataplane(r->admin->control), idx, &c);
	device_port_stats(device, idx, &stats);
	json_t *counters = json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "receivedPackets",
		json_count(c.rx_packets), "receivedBytes", json_count(c.rx_bytes), "sentPackets",
		json_count(c.tx_packets), "sentBytes", json_count(c.tx_bytes), "missed",
		json_count(stats.rx_missed), "receiveErrors", json_count(stats.rx_errors),
		"sendErrors", json_count(stats.tx_errors), "noBuffer", json_count(stats.rx_nombuf));
	json_t *link = json_pack("{s:b, s:o}", "up", port->link_up, "speedMbps",
		json_count(port->link_mbps == UINT32_MAX ? 0 : port->link_mbps));
	return json_pack("{s:s, s:s, s:s, s:s, s:s, s:i, s:i, s:i, s:i, s:o, s:o}", "name",
		port->name, "device", port->device, "driver", port->driver, "twin", port->twin,
		"mac", mac_format(&port->mac, mac), "mtu", (int)port->mtu, "numa", port->numa,
		"receiveQueues", (int)port->n_rx_queues, "transmitQueues", (int)port->n_tx_queues,
		"link", link, "counters", counters);
}

void get_ports(struct admin_request *r)
{
	if (!machine_is_there(r))
		return;
	json_t *items = json_array();
	uint32_t n = device_n_ports(control_device(r->admin->control));
	for (uint32_t i = 0; i < n; i++)
		json_array_append_new(items, port_json(r, i));
	reply_list(r, items, NULL);
}

// ---------------------------------------------------------------- workers
static void add_counters(json_t *object, const struct counters *live)
{
	struct counters copy = { 0 };
	counters_accumulate(&copy, live);
	json_t *counters = json_object(), *drops = json_object();
	for (int i = 0; i < COUNTER_MAX; i++)
		json_object_set_new(counters, counter_rows[i].name, json_count(copy.values[i]));
	for (int i = 1; i < DROP_MAX; i++)
		json_object_set_new(drops, drop_rows[i].name, json_count(copy.drops[i]));
	json_object_set_new(object, "counters", counters);
	json_object_set_new(object, "drops", drops);
	json_object_set_new(object, "imbalance", json_integer(counters_imbalance(&copy)));
}

static json_t *worker_json(struct admin_request *r, uint32_t idx)
{
	const struct dataplane *dp = control_dataplane(r->admin->control);
	struct dataplane_worker_state w = { 0 };
	dataplane_worker_state(dp, idx, &w);
	double busy = idx < DEVICE_WORKERS_MAX ? r->admin->workers[idx].busy_ratio : 0;
	json_t *worker = json_pack("{s:o, s:i, s:i, s:b, s:f, s:o, s:o, s:o, s:o, s:s}", "name",
		json_sprintf("w%u", idx), "cpu", (int)w.cpu, "numa", w.numa, "sleeping", w.sleeping,
		"busyRatio", busy, "heartbeat", json_count(w.heartbeat), "flows",
		json_count(w.n_flows), "flowCapacity", json_count(w.flow_capacity), "generation",
		json_count(w.snapshot_generation), "variant", w.variant ? w.variant : "");
	add_counters(worker, dataplane_counters(dp, idx));
	return worker;
}

void get_workers(struct admin_request *r)
{
	if (!machine_is_there(r))
		return;
	struct dataplane *dp = (struct dataplane *)(uintptr_t)control_dataplane(r->admin->control);
	json_t *items = json_array(), *control = json_object();
	for (uint32_t i = 0; i < dataplane_n_workers(dp); i++)
		json_array_append_new(items, worker_json(r, i));
	add_counters(control, dataplane_control_counters(dp));
	reply_list(r, items, control);
}

// ---------------------------------------------------------------- drops
void get_drops(struct admin_request *r)
{
	if (!machine_is_there(r))
		return;
	struct dataplane *dp = (struct dataplane *)(uintptr_t)control_dataplane(r->admin->control);
	struct counters sum = { 0 };
	for (uint32_t i = 0; i < dataplane_n_workers(dp); i++)
		counters_accumulate(&sum, dataplane_counters(dp, i));
	counters_accumulate(&sum, dataplane_control_counters(dp));
	json_t *items = json_array();
	for (int i = 1; i < DROP_MAX; i++)
		json_array_append_new(items,
			json_pack("{s:s, s:s, s:s, s:s, s:o}", "reason", drop_rows[i].name, "class",
				drop_class_name(drop_rows[i].class), "help", drop_rows[i].help,
				"fix", drop_rows[i].fix, "total", json_count(sum.drops[i])));
	reply_list(r, items, NULL);
}

// ---------------------------------------------------------------- rates
void sampler_tick(evutil_socket_t fd, short events, void *arg)
{
	struct admin *admin = arg;
	const struct dataplane *dp = control_dataplane(admin->control);
	if (dp == NULL)
		return;
	struct counters sum = { 0 };
	uint32_t n_workers = dataplane_n_workers(dp);
	for (uint32_t i = 0; i < n_workers && i < DEVICE_WORKERS_MAX; i++) {
		struct dataplane_worker_state w = { 0 };
		struct admin_worker_sample *last = &admin->workers[i];
		counters_accumulate(&sum, dataplane_counters(dp, i));
		dataplane_worker_state(dp, i, &w);
		uint64_t total = w.total_cycles - last->total_cycles;
		uint64_t busy = w.busy_cycles - last->busy_cycles;
		double ratio = total ? (double)busy / (double)total : 0;
		last->busy_ratio = ratio > 1 ? 1 : ratio;
		last->busy_cycles = w.busy_cycles;
		last->total_cycles = w.total_cycles;
	}
	admin->samples[admin->n_samples++ % ADMIN_SAMPLES] =
		(struct admin_sample){ .time_ns = admin_now_ns(),
			.received = sum.values[COUNTER_RECEIVED],
			.sent = sum.values[COUNTER_SENT],
			.dropped = counters_dropped(&sum) };
}

struct admin_rates admin_rates(const struct admin *admin)
{
	struct admin_rates rates = { 0 };
	uint64_t n = admin->n_samples;
	if (n < 2)
		return rates;
	uint64_t span = n - 1 < ADMIN_SAMPLES - 1 ? n - 1 : ADMIN_SAMPLES - 1;
	const struct admin_sample *now = &admin->samples[(n - 1) % ADMIN_SAMPLES];
	const struct admin_sample *last = &admin->samples[(n - 2) % ADMIN_SAMPLES];
	const struct admin_sample *first = &admin->samples[(n - 1 - span) % ADMIN_SAMPLES];
	double second = (double)(now->time_ns - last->time_ns) / 1e9;
	double minute = (double)(now->time_ns - first->time_ns) / 1e9;
	if (second <= 0 || minute <= 0)
		return rates;
	rates.received_per_s = (double)(now->received - last->received) / second;
	rates.sent_per_s = (double)(now->sent - last->sent) / second;
	rates.dropped_per_s = (double)(now->dropped - last->dropped) / second;
	rates.dropped_per_minute = (double)(now->dropped - first->dropped) / minute;
	return rates;
}
