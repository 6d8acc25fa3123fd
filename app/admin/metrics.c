// SPDX-License-Identifier: BSD-3-Clause
// /metrics: Prometheus text 0.0.4, or OpenMetrics 1.0 by Accept. Names are a contract (a rename breaks dashboards):
// prefix sluice_, base units, counters end in _total. HELP and TYPE once per family, families and series in a fixed
// order. Never a client address in a label. Series are capped, what is left out is counted.
#include "admin_priv.h"

#include <stdlib.h>
#include <unistd.h>

#define SERIES_MAX 100000 // about 10 MB

struct page {
	struct admin *admin;
	FILE *out;
	bool open; // OpenMetrics
	uint64_t n_series;
	const char *family;
	bool is_counter;
};

// name without _total; type: "counter", "gauge".
static void family(struct page *p, const char *name, const char *type, const char *help)
{
	p->family = name;
	p->is_counter = strcmp(type, "counter") == 0;
	const char *suffix = p->is_counter && !p->open ? "_total" : "";
	fprintf(p->out, "# HELP %s%s %s\n# TYPE %s%s %s\n", name, suffix, help, name, suffix, type);
}

static bool series_fits(struct page *p)
{
	if (p->n_series++ < SERIES_MAX)
		return true;
	p->admin->n_series_dropped++;
	return false;
}

// labels: ready to print, without braces, or "".
static void sample(struct page *p, const char *labels, double value)
{
	if (!series_fits(p))
		return;
	fprintf(p->out, "%s%s%s%s%s %.17g\n", p->family, p->is_counter ? "_total" : "",
		labels[0] ? "{" : "", labels, labels[0] ? "}" : "", value);
}

static void sample_count(struct page *p, const char *labels, uint64_t value)
{
	if (!series_fits(p))
		return;
	fprintf(p->out, "%s%s%s%s%s %llu\n", p->family, p->is_counter ? "_total" : "",
		labels[0] ? "{" : "", labels, labels[0] ? "}" : "", (unsigned long long)value);
}

// ---------------------------------------------------------------- ports
static void port_family(struct page *p, const char *name, const char *help,
	uint64_t (*value)(const struct device_port_stats *))
{
	const struct device *device = control_device(p->admin->control);
	char labels[96];
	family(p, name, "counter", help);
	for (uint32_t i = 0; i < device_n_ports(device); i++) {
		struct device_port_stats stats = { 0 };
		device_port_stats(device, i, &stats);
		snprintf(labels, sizeof(labels), "port=\"%s\"", device_port(device, i)->name);
		sample_count(p, labels, value(&stats));
	}
}

static uint64_t rx_missed(const struct device_port_stats *s)
{
	return s->rx_missed;
}

static uint64_t rx_errors(const struct device_port_stats *s)
{
	return s->rx_errors;
}

static uint64_t tx_errors(const struct device_port_stats *s)
{
	return s->tx_errors;
}

static uint64_t rx_no_buffer(const struct device_port_stats *s)
{
	return s->rx_nombuf;
}

static void port_traffic(struct page *p, bool bytes)
{
	const struct device *device = control_device(p->admin->control);
	char labels[96];
	for (uint32_t i = 0; i < device_n_ports(device); i++) {
		struct dataplane_port_counters c = { 0 };
		const char *name = device_port(device, i)->name;
		dataplane_port_counters(control_dataplane(p->admin->control), i, &c);
		snprintf(labels, sizeof(labels), "port=\"%s\",direction=\"in\"", name);
		sample_count(p, labels, bytes ? c.rx_bytes : c.rx_packets);
		snprintf(labels, sizeof(labels), "port=\"%s\",direction=\"out\"", name);
		sample_count(p, labels, bytes ? c.tx_bytes : c.tx_packets);
	}
}

static void ports(struct page *p)
{
	const struct device *device = control_device(p->admin->control);
	char labels[96];
	family(p, "sluice_packets", "counter", "Frames taken from and given to ports.");
	port_traffic(p, false);
	family(p, "sluice_bytes", "counter", "Bytes taken from and given to ports.");
	port_traffic(p, true);
	port_family(
		p, "sluice_rx_missed_packets", "Frames that the port had no room for.", rx_missed);
	port_family(
		p, "sluice_rx_error_packets", "Frames that the port received in error.", rx_errors);
	port_family(p, "sluice_rx_no_buffer_packets", "Frames for which no buffer was left.",
		rx_no_buffer);
	port_family(
		p, "sluice_tx_error_packets", "Frames that the port failed to send.", tx_errors);
	family(p, "sluice_port_up", "gauge", "1 if the port has link.");
	for (uint32_t i = 0; i < device_n_ports(device); i++) {
		snprintf(labels, sizeof(labels), "port=\"%s\"", device_port(device, i)->name);
		sample_count(p, labels, device_port(device, i)->link_up);
	}
}

// ---------------------------------------------------------------- workers
static void worker_counter(struct page *p, int id)
{
	const struct dataplane *dp = control_dataplane(p->admin->control);
	const struct counter_row *row = &counter_rows[id];
	char name[96], help[160], labels[32];
	bool has_unit = strstr(row->name, row->unit) != NULL;
	snprintf(name, sizeof(name), "sluice_worker_%s%s%s", row->name, has_unit ? "" : "_",
		has_unit ? "" : row->unit);
	snprintf(help, sizeof(help), "By worker: %s.", row->help);
	family(p, name, "counter", help);
	for (uint32_t i = 0; i < dataplane_n_workers(dp); i++) {
		snprintf(labels, sizeof(labels), "worker=\"w%u\"", i);
		sample_count(p, labels,
			__atomic_load_n(&dataplane_counters(dp, i)->values[id], __ATOMIC_RELAXED));
	}
}

enum worker_gauge { GAUGE_FLOWS, GAUGE_CAPACITY, GAUGE_BUSY, GAUGE_SLEEPING, GAUGE_GENERATION };

static void worker_gauge(
	struct page *p, const char *name, const char *help, enum worker_gauge gauge)
{
	const struct dataplane *dp = control_dataplane(p->admin->control);
	char labels[32];
	family(p, name, "gauge", help);
	for (uint32_t i = 0; i < dataplane_n_workers(dp) && i < DEVICE_WORKERS_MAX; i++) {
		struct dataplane_worker_state w = { 0 };
		dataplane_worker_state(dp, i, &w);
		snprintf(labels, sizeof(labels), "worker=\"w%u\"", i);
		const double values[] = { w.n_flows, w.flow_capacity,
			p->admin->workers[i].busy_ratio, w.sleeping,
			(double)w.snapshot_generation };
		sample(p, labels, values[gauge]);
	}
}

static void worker_cycles(struct page *p)
{
	const struct dataplane *dp = control_dataplane(p->admin->control);
	char labels[64];
	family(p, "sluice_worker_cycles", "counter", "TSC cycles of workers, on packets and not.");
	for (uint32_t i = 0; i < dataplane_n_workers(dp); i++) {
		struct dataplane_worker_state w = { 0 };
		dataplane_worker_state(dp, i, &w);
		snprintf(labels, sizeof(labels), "worker=\"w%u\",state=\"busy\"", i);
		sample_count(p, labels, w.busy_cycles);
		snprintf(labels, sizeof(labels), "worker=\"w%u\",state=\"idle\"", i);
		sample_count(p, labels,
			w.total_cycles > w.busy_cycles ? w.total_cycles - w.busy_cycles : 0);
	}
}

static void drops(struct page *p)
{
	struct dataplane *dp = (struct dataplane *)(uintptr_t)control_dataplane(p->admin->control);
	char labels[128];
	family(p, "sluice_drops", "counter", "Packets dropped, by reason (see /api/v1/drops).");
	for (uint32_t w = 0; w <= dataplane_n_workers(dp); w++) {
		bool is_control = w == dataplane_n_workers(dp);
		const struct counters *c =
			is_control ? dataplane_control_counters(dp) : dataplane_counters(dp, w);
		char name[16];
		snprintf(name, sizeof(name), is_control ? "control" : "w%u", w);
		for (int i = 1; i < DROP_MAX; i++) {
			snprintf(labels, sizeof(labels), "reason=\"%s\",class=\"%s\",worker=\"%s\"",
				drop_rows[i].name, drop_class_name(drop_rows[i].class), name);
			sample_count(p, labels, __atomic_load_n(&c->drops[i], __ATOMIC_RELAXED));
		}
	}
}

static void workers(struct page *p)
{
	worker_gauge(p, "sluice_flow_table_entries", "Flows in the table.", GAUGE_FLOWS);
	worker_gauge(
		p, "sluice_flow_table_capacity", "Flows that the table holds.", GAUGE_CAPACITY);
	worker_gauge(p, "sluice_worker_busy_ratio", "Share of the last second spent on packets.",
		GAUGE_BUSY);
	worker_gauge(p, "sluice_worker_sleeping", "1 if the worker sleeps.", GAUGE_SLEEPING);
	worker_gauge(
		p, "sluice_worker_generation", "Snapshot that the worker uses.", GAUGE_GENERATION);
	worker_cycles(p);
	for (int i = 0; i < COUNTER_MAX; i++)
		worker_counter(p, i);
	drops(p);
}

// ---------------------------------------------------------------- services
enum backend_figure {
	FIGURE_UP,
	FIGURE_STATE,
	FIGURE_WEIGHT,
	FIGURE_FLOWS,
	FIGURE_NEW,
	FIGURE_REFUSED,
	FIGURE_PACKETS,
	FIGURE_BYTES,
};

// What one walk over the backends found, so that ten families cost one walk. Pointers are borrowed from the store,
// which nothing changes while a page is written.
struct backend_row {
	const struct service *service;
	const struct service_listener *listener;
	const struct service_backend *backend;
	uint16_t port;
	uint8_t state;
	uint32_t weight;
	uint64_t flows;
	struct pipeline_backend_counters counters;
};

// Sums of a listener. A listener of several addresses is one series, whose vip label names them all.
struct vip_sum {
	const struct service *service;
	const struct service_listener *listener;
	struct pipeline_backend_counters counters;
	uint64_t flows;
	uint64_t n_eligible;
};

struct tally {
	struct backend_row *rows;
	uint32_t n_rows, cap_rows;
	struct vip_sum *sums;
	uint32_t n_sums, cap_sums;
	uint32_t first_sum; // of the service at hand
};

static bool tally_backend(void *arg, const struct control_backend_status *b)
{
	struct tally *t = arg;
	struct vip_sum *sum = &t->sums[t->first_sum + (b->listener - b->service->listeners)];
	sum->counters.packets_in += b->counters.packets_in;
	sum->counters.packets_out += b->counters.packets_out;
	sum->counters.bytes_in += b->counters.bytes_in;
	sum->counters.bytes_out += b->counters.bytes_out;
	sum->counters.flows_created += b->counters.flows_created;
	sum->counters.ports_exhausted += b->counters.ports_exhausted;
	sum->flows += b->flows;
	sum->n_eligible += b->eligible;
	if (array_grow(t->rows, t->n_rows, t->cap_rows) != 0)
		return false;
	t->rows[t->n_rows++] = (struct backend_row){ .service = b->service,
		.listener = b->listener,
		.backend = b->backend,
		.port = b->port,
		.state = (uint8_t)b->state,
		.weight = b->weight,
		.flows = b->flows,
		.counters = b->counters };
	return true;
}

static void tally_make(struct admin *admin, struct tally *t)
{
	const struct service_store *store = control_store(admin->control);
	for (uint32_t i = 0; i < service_store_count(store); i++) {
		const struct service *s = service_store_at(store, i);
		t->first_sum = t->n_sums;
		for (uint32_t l = 0; l < s->n_listeners; l++) {
			if (array_grow(t->sums, t->n_sums, t->cap_sums) != 0)
				return;
			t->sums[t->n_sums++] =
				(struct vip_sum){ .service = s, .listener = &s->listeners[l] };
		}
		control_each_backend(admin->control, s, tally_backend, t);
	}
}

static void backend_direction(struct page *p, const char *labels, uint64_t in, uint64_t out)
{
	char more[512];
	snprintf(more, sizeof(more), "%s,direction=\"in\"", labels);
	sample_count(p, more, in);
	snprintf(more, sizeof(more), "%s,direction=\"out\"", labels);
	sample_count(p, more, out);
}

static void backend_sample(struct page *p, const struct backend_row *b, enum backend_figure figure)
{
	char labels[448], more[512], endpoint[ADDRESS_TEXT_LEN + 10];
	endpoint_format(&b->backend->address, b->port, endpoint, sizeof(endpoint));
	snprintf(labels, sizeof(labels),
		"namespace=\"%s\",service=\"%s\",listener=\"%s\",backend=\"%s\"",
		b->service->namespace, b->service->name, b->listener->name, endpoint);
	switch (figure) {
	case FIGURE_UP:
		sample_count(p, labels, b->state == HEALTH_UP);
		break;
	case FIGURE_STATE:
		for (int i = 0; i <= HEALTH_DRAINING; i++) {
			snprintf(more, sizeof(more), "%s,state=\"%s\"", labels,
				health_state_name((enum health_state)i));
			sample_count(p, more, (int)b->state == i);
		}
		break;
	case FIGURE_WEIGHT:
		sample_count(p, labels, b->weight);
		break;
	case FIGURE_FLOWS:
		sample_count(p, labels, b->flows);
		break;
	case FIGURE_NEW:
		sample_count(p, labels, b->counters.flows_created);
		break;
	case FIGURE_REFUSED:
		sample_count(p, labels, b->counters.ports_exhausted);
		break;
	case FIGURE_PACKETS:
		backend_direction(p, labels, b->counters.packets_in, b->counters.packets_out);
		break;
	case FIGURE_BYTES:
		backend_direction(p, labels, b->counters.bytes_in, b->counters.bytes_out);
		break;
	}
}

static void backends(struct page *p, const struct tally *t)
{
	static const struct {
		const char *name, *type, *help;
		enum backend_figure figure;
	} families[] = {
		{ "sluice_backend_up", "gauge", "1 if the backend is up.", FIGURE_UP },
		{ "sluice_backend_state", "gauge", "1 for the state that the backend is in.",
			FIGURE_STATE },
		{ "sluice_backend_weight", "gauge", "Weight with the operator's overlay.",
			FIGURE_WEIGHT },
		{ "sluice_backend_connections", "gauge", "Flows created and not ended.",
			FIGURE_FLOWS },
		{ "sluice_backend_new_connections", "counter", "Flows created.", FIGURE_NEW },
		{ "sluice_backend_ports_exhausted_connections", "counter",
			"Flows refused: no free source port.", FIGURE_REFUSED },
		{ "sluice_backend_packets", "counter",
			"Packets to (in) and from (out) the backend.", FIGURE_PACKETS },
		{ "sluice_backend_bytes", "counter", "Bytes to (in) and from (out) the backend.",
			FIGURE_BYTES },
	};
	for (size_t i = 0; i < ARRAY_SIZE(families); i++) {
		family(p, families[i].name, families[i].type, families[i].help);
		for (uint32_t row = 0; row < t->n_rows; row++)
			backend_sample(p, &t->rows[row], families[i].figure);
	}
}

static void vip_label(
	const struct service *s, const struct service_listener *l, char *out, size_t len)
{
	size_t n = 0;
	const char *protocol = service_protocol_name(l->protocol);
	out[0] = 0;
	for (uint32_t i = 0; i < s->n_addresses && n + 80 < len; i++) {
		char endpoint[ADDRESS_TEXT_LEN + 10];
		endpoint_format(&s->addresses[i], l->port, endpoint, sizeof(endpoint));
		n += (size_t)snprintf(
			out + n, len - n, "%s%s/%s", n ? "," : "", endpoint, protocol);
	}
	for (char *c = strchr(out, '/'); c && *c; c++) {
		if (*c >= 'A' && *c <= 'Z')
			*c |= 0x20;
	}
}

enum vip_figure { VIP_FLOWS, VIP_ELIGIBLE, VIP_NEW, VIP_REFUSED, VIP_PACKETS, VIP_BYTES };

static void vip_sample(struct page *p, const struct vip_sum *sum, enum vip_figure figure)
{
	char labels[1400], vip[1100];
	vip_label(sum->service, sum->listener, vip, sizeof(vip));
	snprintf(labels, sizeof(labels), "vip=\"%s\",namespace=\"%s\",service=\"%s\"", vip,
		sum->service->namespace, sum->service->name);
	if (figure == VIP_FLOWS)
		sample_count(p, labels, sum->flows);
	else if (figure == VIP_ELIGIBLE)
		sample_count(p, labels, sum->n_eligible);
	else if (figure == VIP_NEW)
		sample_count(p, labels, sum->counters.flows_created);
	else if (figure == VIP_REFUSED)
		sample_count(p, labels, sum->counters.ports_exhausted);
	else if (figure == VIP_PACKETS)
		backend_direction(p, labels, sum->counters.packets_in, sum->counters.packets_out);
	else
		backend_direction(p, labels, sum->counters.bytes_in, sum->counters.bytes_out);
}

static void vips(struct page *p, const struct tally *t)
{
	static const struct {
		const char *name, *type, *help;
	} families[] = {
		[VIP_FLOWS] = { "sluice_vip_active_connections", "gauge",
			"Flows created and not ended." },
		[VIP_ELIGIBLE] = { "sluice_vip_eligible_backends", "gauge",
			"Backends that may take new flows." },
		[VIP_NEW] = { "sluice_vip_new_connections", "counter", "Flows created." },
		[VIP_REFUSED] = { "sluice_vip_ports_exhausted_connections", "counter",
			"Flows refused: no free source port." },
		[VIP_PACKETS] = { "sluice_vip_packets", "counter",
			"Packets from (in) and to (out) clients." },
		[VIP_BYTES] = { "sluice_vip_bytes", "counter",
			"Bytes from (in) and to (out) clients." },
	};
	for (size_t f = 0; f < ARRAY_SIZE(families); f++) {
		family(p, families[f].name, families[f].type, families[f].help);
		for (uint32_t i = 0; i < t->n_sums; i++)
			vip_sample(p, &t->sums[i], (enum vip_figure)f);
	}
}

// ---------------------------------------------------------------- the daemon
static void one(struct page *p, const char *name, const char *type, const char *help, double value)
{
	family(p, name, type, help);
	sample(p, "", value);
}

static void memory_and_files(struct page *p)
{
	unsigned long pages = 0, resident = 0;
	FILE *f = fopen("/proc/self/statm", "re");
	if (f && fscanf(f, "%lu %lu", &pages, &resident) == 2) {
		double page_bytes = (double)sysconf(_SC_PAGESIZE);
		one(p, "process_resident_memory_bytes", "gauge", "Resident memory.",
			(double)resident * page_bytes);
		one(p, "process_virtual_memory_bytes", "gauge", "Virtual memory.",
			(double)pages * page_bytes);
	}
	if (f)
		fclose(f);
}

static void service_counts(struct page *p)
{
	const struct service_store *store = control_store(p->admin->control);
	uint64_t n[SERVICE_OWNER_API + 1] = { 0 };
	char labels[64];
	for (uint32_t i = 0; i < service_store_count(store); i++)
		n[service_store_at(store, i)->owner]++;
	family(p, "sluice_services", "gauge", "Services in the desired state, by owner.");
	for (int i = 0; i <= SERVICE_OWNER_API; i++) {
		snprintf(labels, sizeof(labels), "owner=\"%s\"",
			service_owner_name((enum service_owner)i));
		sample_count(p, labels, n[i]);
	}
}

static void daemon_figures(struct page *p)
{
	struct control *control = p->admin->control;
	char reason[256], labels[96];
	family(p, "sluice_build_info", "gauge", "What was built.");
	snprintf(labels, sizeof(labels), "version=\"%s\"", SLUICE_VERSION);
	sample_count(p, labels, 1);
	one(p, "sluice_ready", "gauge", "1 if /readyz says so.",
		control_is_ready(control, reason, sizeof(reason)));
	one(p, "sluice_config_generation", "gauge", "Of the published snapshot.",
		(double)control_generation(control));
	service_counts(p);
	one(p, "process_start_time_seconds", "gauge", "Start, since the epoch.",
		(double)control_started_ms(control) / 1000);
	memory_and_files(p);
}

// ---------------------------------------------------------------- the cluster
static void resource_figures(struct page *p, const struct control_cluster *k)
{
	static const struct {
		const char *name, *help;
		size_t offset;
	} families[] = {
		{ "sluice_kubernetes_relists", "Complete lists begun.",
			offsetof(struct control_cluster_resource, n_lists) },
		{ "sluice_kubernetes_watches", "Watches begun.",
			offsetof(struct control_cluster_resource, n_watches) },
		{ "sluice_kubernetes_events", "Watch events taken.",
			offsetof(struct control_cluster_resource, n_events) },
		{ "sluice_kubernetes_expired", "Versions that the API no longer had (410).",
			offsetof(struct control_cluster_resource, n_expired) },
		{ "sluice_kubernetes_connection_errors", "Connections that failed or broke.",
			offsetof(struct control_cluster_resource, n_errors) },
		{ "sluice_kubernetes_refused_objects", "Objects that make no sense.",
			offsetof(struct control_cluster_resource, n_refused) },
	};
	char labels[64];
	for (size_t f = 0; f < ARRAY_SIZE(families); f++) {
		family(p, families[f].name, "counter", families[f].help);
		for (uint32_t i = 0; i < k->n_resources; i++) {
			const char *at = (const char *)&k->resources[i] + families[f].offset;
			snprintf(labels, sizeof(labels), "resource=\"%s\"", k->resources[i].name);
			sample_count(p, labels, *(const uint64_t *)at);
		}
	}
}

static void resource_states(struct page *p, const struct control_cluster *k)
{
	char labels[64];
	family(p, "sluice_kubernetes_resource_synced", "gauge", "1: listed whole, once.");
	for (uint32_t i = 0; i < k->n_resources; i++) {
		snprintf(labels, sizeof(labels), "resource=\"%s\"", k->resources[i].name);
		sample_count(p, labels, k->resources[i].is_synced);
	}
	family(p, "sluice_kubernetes_resource_watching", "gauge", "1: news of it come now.");
	for (uint32_t i = 0; i < k->n_resources; i++) {
		snprintf(labels, sizeof(labels), "resource=\"%s\"", k->resources[i].name);
		sample_count(p, labels, k->resources[i].is_watching);
	}
	family(p, "sluice_kubernetes_last_event_timestamp_seconds", "gauge",
		"When the API last said something of it, since the epoch.");
	for (uint32_t i = 0; i < k->n_resources; i++) {
		snprintf(labels, sizeof(labels), "resource=\"%s\"", k->resources[i].name);
		sample(p, labels, (double)k->resources[i].last_byte_ms / 1000);
	}
}

// From the change of an endpoint to its publication.
static void latency_figures(struct page *p, const struct control_cluster *k)
{
	static const char name[] = "sluice_programming_duration_seconds";
	uint64_t n = 0;
	fprintf(p->out,
		"# HELP %s From the change of an endpoint, as its slice says, to workers.\n"
		"# TYPE %s histogram\n",
		name, name);
	for (int i = 0; i < CONTROL_CLUSTER_BUCKETS; i++) {
		n += k->latency[i];
		fprintf(p->out, "%s_bucket{le=\"%g\"} %llu\n", name, control_cluster_bounds_s[i],
			(unsigned long long)n);
	}
	n += k->latency[CONTROL_CLUSTER_BUCKETS];
	fprintf(p->out, "%s_bucket{le=\"+Inf\"} %llu\n%s_sum %.17g\n%s_count %llu\n", name,
		(unsigned long long)n, name, k->latency_sum_s, name, (unsigned long long)n);
}

static void cluster_figures(struct page *p)
{
	struct control_cluster k;
	if (!control_cluster(p->admin->control, &k))
		return;
	one(p, "sluice_kubernetes_synced", "gauge", "1: what the API says is in force.",
		k.is_synced);
	one(p, "sluice_kubernetes_leading", "gauge", "1: this node gives addresses and writes.",
		k.is_leading);
	one(p, "sluice_kubernetes_services", "gauge", "Services that are served or refused here.",
		k.n_services);
	one(p, "sluice_kubernetes_refused_services", "gauge",
		"Services whose newest form is refused.", k.n_refused);
	one(p, "sluice_kubernetes_endpoints", "gauge", "Endpoints of all slices.", k.n_endpoints);
	one(p, "sluice_kubernetes_missing_rules", "gauge", "Permissions that this node lacks.",
		k.n_missing_rules);
	one(p, "sluice_kubernetes_status_writes", "counter", "Writes of status.",
		(double)k.n_written);
	one(p, "sluice_kubernetes_status_write_errors", "counter", "Writes of status that failed.",
		(double)k.n_write_errors);
	one(p, "sluice_kubernetes_certificate_expiry_timestamp_seconds", "gauge",
		"End of the client certificate, since the epoch; 0: there is none.",
		(double)k.certificate_expires_ms / 1000);
	one(p, "sluice_kubernetes_last_change_timestamp_seconds", "gauge",
		"When a change was last put in force, since the epoch.",
		(double)k.applied_ms / 1000);
	resource_states(p, &k);
	resource_figures(p, &k);
	latency_figures(p, &k);
}

static void rest_figures(struct page *p)
{
	struct admin *admin = p->admin;
	char labels[32];
	family(p, "sluice_rest_requests", "counter", "REST answers by class of status.");
	for (int i = 1; i < 6; i++) {
		snprintf(labels, sizeof(labels), "code=\"%dxx\"", i);
		sample_count(p, labels, admin->n_requests_by_class[i]);
	}
	one(p, "sluice_rest_denied", "counter", "Wrong tokens.", (double)admin->n_denied);
	one(p, "sluice_rest_deadlines", "counter", "Connections cut at a deadline.",
		(double)admin->n_deadlines);
	one(p, "sluice_rest_evicted", "counter", "Slow connections that gave way to new ones.",
		(double)admin->n_evicted);
	one(p, "sluice_scrape_duration_seconds", "gauge", "Time that the last scrape took.",
		admin->scrape_seconds);
	family(p, "sluice_metrics_series_dropped", "counter", "Series over the cap.");
	fprintf(p->out, "sluice_metrics_series_dropped_total %llu\n",
		(unsigned long long)admin->n_series_dropped);
}

void get_metrics(struct admin_request *r)
{
	const char *accept = request_header(r, "Accept");
	char *text = NULL;
	size_t len = 0;
	uint64_t start_ns = admin_now_ns();
	struct page p = { .admin = r->admin, .out = open_memstream(&text, &len) };
	if (p.out == NULL) {
		reply_problem(r, PROBLEM_UNAVAILABLE, "out of memory");
		return;
	}
	p.open = accept && strstr(accept, "application/openmetrics-text") != NULL;
	daemon_figures(&p);
	if (control_device(r->admin->control) && control_dataplane(r->admin->control)) {
		ports(&p);
		workers(&p);
	}
	struct tally tally = { 0 };
	tally_make(r->admin, &tally);
	vips(&p, &tally);
	backends(&p, &tally);
	free(tally.rows);
	free(tally.sums);
	cluster_figures(&p);
	rest_figures(&p);
	if (p.open)
		fprintf(p.out, "# EOF\n");
	if (fclose(p.out) != 0) {
		free(text);
		reply_problem(r, PROBLEM_UNAVAILABLE, "out of memory");
		return;
	}
	r->admin->scrape_seconds = (double)(admin_now_ns() - start_ns) / 1e9;
	reply_text(r, 200,
		p.open ? "application/openmetrics-text; version=1.0.0; charset=utf-8"
		       : "text/plain; version=0.0.4; charset=utf-8",
		text, len);
}
