// SPDX-License-Identifier: BSD-3-Clause
// doctor: lib/preflight over this machine, with or without a daemon. Of the configuration it reads only what the
// checks need to know (ports, cores, memory, SNAT addresses); whether the file is right is `sluiced --check`.
#include "ctl_priv.h"

#include <libconfig.h>
#include <stdlib.h>
#include <unistd.h>

#include "preflight.h"

#define CONFIG_DEFAULT "/etc/sluice/sluice.conf"

struct doctor {
	config_t config;
	struct preflight_input input;
	struct preflight_port ports[PREFLIGHT_PORTS_MAX];
	struct address snat[PREFLIGHT_ADDRESSES_MAX];
	struct preflight_host_address addresses[PREFLIGHT_ADDRESSES_MAX];
};

static void read_ports(struct doctor *d)
{
	const config_setting_t *list = config_lookup(&d->config, "ports");
	int n = list ? config_setting_length(list) : 0;
	for (int i = 0; i < n && i < PREFLIGHT_PORTS_MAX; i++) {
		config_setting_t *one = config_setting_get_elem(list, (unsigned)i);
		struct preflight_port *p = &d->ports[d->input.n_ports++];
		const char *text;
		int mtu;
		if (config_setting_lookup_string(one, "name", &text))
			snprintf(p->name, sizeof(p->name), "%s", text);
		if (config_setting_lookup_string(one, "device", &text))
			snprintf(p->device, sizeof(p->device), "%s", text);
		if (config_setting_lookup_string(one, "twin", &text))
			snprintf(p->twin, sizeof(p->twin), "%s", text);
		if (config_setting_lookup_int(one, "mtu", &mtu) && mtu > 0 && mtu <= UINT16_MAX)
			p->mtu = (uint16_t)mtu;
	}
	d->input.ports = d->ports;
}

static void read_snat(struct doctor *d)
{
	const config_setting_t *list = config_lookup(&d->config, "snat.addresses");
	const char *ports;
	unsigned int first, last;
	int n = list ? config_setting_length(list) : 0;
	for (int i = 0; i < n && i < PREFLIGHT_ADDRESSES_MAX; i++) {
		const char *text = config_setting_get_string_elem(list, i);
		if (text && address_parse(text, &d->snat[d->input.n_snat]) == 0)
			d->input.n_snat++;
	}
	d->input.snat = d->snat;
	if (config_lookup_string(&d->config, "snat.ports", &ports) &&
		sscanf(ports, "%5u-%5u", &first, &last) == 2 && first <= last &&
		last <= UINT16_MAX) {
		d->input.snat_first_port = (uint16_t)first;
		d->input.snat_last_port = (uint16_t)last;
	}
}

static int read_config(struct ctl *ctl, struct doctor *d)
{
	const char *file = ctl->config ? ctl->config : CONFIG_DEFAULT;
	const char *hugepages = "auto";
	char cause[512];
	d->input.socket_path = CTL_DEFAULT;
	d->input.hugepages = true;
	if (ctl->config == NULL && access(file, R_OK) != 0) {
		fprintf(stderr, "no %s: checks of the machine alone\n", file);
		return CTL_OK;
	}
	if (!config_read_file(&d->config, file)) {
		snprintf(cause, sizeof(cause), "%s:%d: %s", file, config_error_line(&d->config),
			config_error_text(&d->config));
		return ctl_error(CTL_FAILURE, "the configuration cannot be read", cause,
			"sluiced --check --config FILE");
	}
	read_ports(d);
	read_snat(d);
	config_lookup_string(&d->config, "workers.cores", &d->input.cores);
	config_lookup_string(&d->config, "workers.control_core", &d->input.control_core);
	config_lookup_string(&d->config, "admin.socket", &d->input.socket_path);
	config_lookup_string(&d->config, "memory.hugepages", &hugepages);
	d->input.hugepages = strcmp(hugepages, "off") != 0;
	d->input.hugepages_required = strcmp(hugepages, "on") == 0;
	return CTL_OK;
}

static json_t *report_json(const struct preflight_report *report)
{
	json_t *items = json_array();
	for (uint32_t i = 0; i < report->n_items; i++) {
		const struct preflight_finding *f = &report->items[i];
		json_array_append_new(
			items, json_pack("{s:s, s:s, s:s, s:s, s:s}", "id", f->id, "severity",
				       preflight_severity_name(f->severity), "object", f->object,
				       "cause", f->cause, "command", f->command));
	}
	return json_pack("{s:o, s:i, s:i, s:i}", "items", items, "ok", (int)report->n_ok,
		"warnings", (int)report->n_warn, "errors", (int)report->n_error);
}

static void report_print(const struct preflight_report *report)
{
	static const char *const marks[] = { "[ok]  ", "[warn]", "[fail]" };
	for (uint32_t i = 0; i < report->n_items; i++) {
		const struct preflight_finding *f = &report->items[i];
		printf("%s %s ", marks[f->severity], f->id);
		print_safe(stdout, f->object);
		printf("%s", f->cause[0] ? ": " : "");
		print_safe(stdout, f->cause);
		printf("\n");
		if (f->command[0] == 0)
			continue;
		printf("       try: ");
		print_safe(stdout, f->command);
		printf("\n");
	}
	printf("%u ok, %u warnings, %u errors\n", report->n_ok, report->n_warn, report->n_error);
}

int verb_doctor(struct ctl *ctl)
{
	struct doctor *d = calloc(1, sizeof(*d));
	struct preflight_report report = { 0 };
	if (d == NULL)
		return ctl_error(CTL_FAILURE, "out of memory", NULL, NULL);
	config_init(&d->config);
	int code = read_config(ctl, d);
	if (code == CTL_OK) {
		preflight_gather(&d->input, d->ports, d->addresses);
		if (preflight_run(&d->input, &report) != 0)
			code = ctl_error(CTL_FAILURE, "out of memory", NULL, NULL);
	}
	if (code == CTL_OK) {
		json_t *tree = report_json(&report);
		if (!output_tree(ctl, tree))
			report_print(&report);
		json_decref(tree);
		code = report.n_error ? CTL_FAILURE : CTL_OK;
	}
	preflight_report_fini(&report);
	config_destroy(&d->config);
	free(d);
	return code;
}
