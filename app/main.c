// SPDX-License-Identifier: BSD-3-Clause
// The table of contents of the process: read the configuration, look at the machine, make the parts from the inside
// out (control, device, data plane, twins, probes, admin, sources), run the loop, and undo it all in reverse. Nothing
// else in the tree ends the process.
#include "admin.h"
#include "control.h"
#include "dataplane.h"
#include "device.h"
#include "kube.h"
#include "main_priv.h"
#include "preflight.h"
#include "probe.h"
#include "punt.h"
#include "settings.h"
#include "sources.h"

#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <linux/magic.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/vfs.h>
#include <unistd.h>

#define EXIT_USAGE    2
#define READY_POLL_MS 5
#define READY_MAX_MS \
	3000 // then the service manager is told all the same: a port without link must not fail a boot

struct daemon {
	const char *config_path;
	char eal_args[2048]; // after "--"
	struct log log;
	struct settings settings; // in force
	struct control *control;
	struct device *device;
	struct dataplane *dataplane;
	struct punt *punt;
	struct probe *probe;
	struct admin *admin;
	struct source_file *file;
	struct source_cluster *cluster;
	struct event *signals[4];
	struct event *ready_timer;
	int64_t begun_ms;
	int lock_fd;
};

static int usage(FILE *out, int code)
{
	fprintf(out, "usage: sluiced --config FILE [-- EAL ARGUMENTS]\n"
		     "       sluiced --check --config FILE     every error of the configuration "
		     "and of the services file\n"
		     "       sluiced --print-default-config    a commented sample\n"
		     "       sluiced --version | --help\n");
	return code;
}

static void log_errors(
	const struct log *log, enum log_level level, const char *event, const struct error *err)
{
	char line[1024];
	for (uint32_t i = 0; i < err->n_items; i++)
		log_write(log, level, event, "%s", error_format(err, i, line, sizeof(line)));
	if (err->n_lost)
		log_write(log, level, event, "and %u more", err->n_lost);
}

// ---------------------------------------------------------------- settings to what modules take

static struct service_defaults defaults_of(const struct settings *s)
{
	struct service_defaults d = service_defaults_builtin();
	service_mode_parse(s->services.mode, &d.mode); // checked by the settings table
	d.tcp_idle_s = (uint32_t)(s->services.tcp_idle_ns / CLOCK_S);
	d.udp_idle_s = (uint32_t)(s->services.udp_idle_ns / CLOCK_S);
	d.drain_timeout_s = (uint32_t)(s->services.drain_timeout_ns / CLOCK_S);
	d.check.interval_ms = (uint32_t)(s->health.interval_ns / CLOCK_MS);
	d.check.timeout_ms = (uint32_t)(s->health.timeout_ns / CLOCK_MS);
	d.check.rise = (uint8_t)s->health.rise;
	d.check.fall = (uint8_t)s->health.fall;
	return d;
}

static struct log log_of(const struct settings *s)
{
	return (struct log){ .fd = STDERR_FILENO, .level = s->log.level, .format = s->log.format };
}

static void device_config_of(const struct daemon *d, struct device_config *out)
{
	const struct settings *s = &d->settings;
	out->n_ports = s->n_ports;
	for (uint32_t i = 0; i < s->n_ports; i++) {
		struct device_port_config *port = &out->ports[i];
		const struct settings_port *from = &s->ports[i];
		snprintf(port->name, sizeof(port->name), "%s", from->name);
		snprintf(port->device, sizeof(port->device), "%s", from->device);
		snprintf(port->twin, sizeof(port->twin), "%s", from->twin);
		port->queues = (uint16_t)from->queues;
		port->descriptors = (uint16_t)from->descriptors;
		port->mtu = (uint16_t)from->mtu;
		port->vlan = (uint16_t)from->vlan;
	}
	snprintf(out->cores, sizeof(out->cores), "%s", s->workers.cores);
	snprintf(out->control_core, sizeof(out->control_core), "%s", s->workers.control_core);
	out->memory_bytes = s->memory.size_bytes;
	out->hugepages = s->memory.hugepages != SETTINGS_HUGEPAGES_OFF;
	out->hugepages_required = s->memory.hugepages == SETTINGS_HUGEPAGES_ON;
	size_t at = 0;
	for (uint32_t i = 0; i < s->memory.n_eal_args && at < sizeof(out->eal_args); i++)
		at += (size_t)snprintf(out->eal_args + at, sizeof(out->eal_args) - at, "%s%s",
			at ? " " : "", s->memory.eal_args[i]);
	if (d->eal_args[0] && at < sizeof(out->eal_args))
		snprintf(out->eal_args + at, sizeof(out->eal_args) - at, "%s%s", at ? " " : "",
			d->eal_args);
}

// Where flow files live: memory that outlives the process. auto: a folder of this instance on the machine's tmpfs, none
// where there is no such thing.
static void flow_dir_of(const struct settings *s, char out[256])
{
	struct statfs fs;
	out[0] = 0;
	if (s->flows.file_kind == SETTINGS_FLOW_FILE_PATH)
		snprintf(out, 256, "%s", s->flows.file);
	if (s->flows.file_kind != SETTINGS_FLOW_FILE_AUTO || statfs("/dev/shm", &fs) != 0 ||
		fs.f_type != TMPFS_MAGIC || access("/dev/shm", W_OK) != 0)
		return;
	uint64_t instance = hash_stable(s->admin.socket, strlen(s->admin.socket), 1);
	instance = hash_stable(s->state_dir, strlen(s->state_dir), instance);
	snprintf(out, 256, "/dev/shm/sluice-%016lx", (unsigned long)instance);
}

static int dataplane_config_of(const struct daemon *d, struct dataplane_config *out)
{
	const struct settings *s = &d->settings;
	out->flow_capacity = s->flows.capacity;
	flow_dir_of(s, out->flow_dir);
	out->flow_key = control_flow_key(d->control);
	if (getrandom(&out->snat.first, sizeof(out->snat.first), 0) != sizeof(out->snat.first))
		return -errno;
	out->snat.n_addresses = (uint16_t)s->snat.n_addresses;
	out->snat.port_min = s->snat.port_min;
	out->snat.port_max = s->snat.port_max;
	for (uint32_t i = 0; i < s->snat.n_addresses; i++) {
		out->snat.addresses[i] = s->snat.addresses[i];
		out->snat.slots[i] = control_snat_slot(d->control, i);
	}
	out->nexthops = control_nexthop_table(d->control);
	out->idle = s->workers.idle == SETTINGS_IDLE_POLL    ? DEVICE_IDLE_POLL
		    : s->workers.idle == SETTINGS_IDLE_SLEEP ? DEVICE_IDLE_SLEEP
							     : DEVICE_IDLE_ADAPTIVE;
	out->sleep_ns = s->workers.sleep_ns;
	out->punt_per_s = s->punt_rate;
	return 0;
}

// ---------------------------------------------------------------- preflight

static int preflight_daemon(const struct daemon *d)
{
	static struct preflight_port ports[PREFLIGHT_PORTS_MAX];
	static struct preflight_host_address addresses[PREFLIGHT_ADDRESSES_MAX];
	const struct settings *s = &d->settings;
	for (uint32_t i = 0; i < s->n_ports; i++) {
		snprintf(ports[i].name, sizeof(ports[i].name), "%s", s->ports[i].name);
		snprintf(ports[i].device, sizeof(ports[i].device), "%s", s->ports[i].device);
		snprintf(ports[i].twin, sizeof(ports[i].twin), "%s", s->ports[i].twin);
		ports[i].mtu = (uint16_t)s->ports[i].mtu;
	}
	struct preflight_input input = {
		.starting = true,
		.ports = ports,
		.n_ports = s->n_ports,
		.cores = s->workers.cores,
		.control_core = s->workers.control_core,
		.memory_bytes = s->memory.size_bytes,
		.hugepages = s->memory.hugepages != SETTINGS_HUGEPAGES_OFF,
		.hugepages_required = s->memory.hugepages == SETTINGS_HUGEPAGES_ON,
		.snat = s->snat.addresses,
		.n_snat = s->snat.n_addresses,
		.snat_first_port = s->snat.port_min,
		.snat_last_port = s->snat.port_max,
		.socket_path = s->admin.socket,
	};
	preflight_gather(&input, ports, addresses);
	struct preflight_report report = { 0 };
	preflight_run(&input, &report);
	char line[1400];
	for (uint32_t i = 0; i < report.n_items; i++) {
		const struct preflight_finding *finding = &report.items[i];
		if (finding->severity == PREFLIGHT_OK)
			continue;
		log_write(&d->log,
			finding->severity == PREFLIGHT_ERROR ? LOG_LEVEL_ERROR : LOG_LEVEL_WARN,
			"preflight", "%s", preflight_format(finding, line, sizeof(line)));
	}
	log_write(&d->log, LOG_LEVEL_INFO, "preflight", "%u ok, %u warnings, %u errors",
		report.n_ok, report.n_warn, report.n_error);
	uint32_t n_error = report.n_error;
	preflight_report_fini(&report);
	return n_error ? -EINVAL : 0;
}

// ---------------------------------------------------------------- reload

struct reload_report {
	struct daemon *daemon;
	uint32_t n_live;
	uint32_t n_restart;
};

static void note_change(void *arg, const struct settings_change *change)
{
	struct reload_report *report = arg;
	if (change->live) {
		report->n_live++;
		control_note(report->daemon->control, LOG_LEVEL_INFO, "setting-changed",
			change->path, "%s: %s -> %s", change->path, change->old_text,
			change->new_text);
		return;
	}
	report->n_restart++;
	control_note(report->daemon->control, LOG_LEVEL_WARN, "setting-needs-restart", change->path,
		"%s: %s -> %s needs a restart; the old value stays in force", change->path,
		change->old_text, change->new_text);
}

// Puts the live groups of `from` in force; the others stay as the process was started with.
static void apply_live(struct daemon *d, const struct settings *from)
{
	d->settings.services = from->services;
	d->settings.health = from->health;
	d->settings.log = from->log;
	d->log = log_of(&d->settings);
	struct service_defaults defaults = defaults_of(&d->settings);
	control_set_defaults(d->control, &defaults);
	if (d->cluster)
		source_cluster_set_defaults(d->cluster, &defaults);
}

// Parse whole, then apply or keep: a bad configuration or a bad services file changes nothing.
static int reload(void *arg, struct error *err)
{
	struct daemon *d = arg;
	struct settings *fresh = calloc(2, sizeof(*fresh));
	if (fresh == NULL)
		return error_add(err, ENOMEM, "", "out of memory");
	struct settings *former = &fresh[1];
	settings_defaults(fresh);
	int rc = settings_load(d->config_path, fresh, err);
	if (rc == 0)
		rc = settings_check_daemon(fresh, err);
	if (rc != 0) {
		char line[512];
		log_errors(&d->log, LOG_LEVEL_ERROR, "reload-refused", err);
		control_note(d->control, LOG_LEVEL_ERROR, "reload-refused", d->config_path,
			"%s (%u errors in all); nothing changed",
			error_first(err, line, sizeof(line)), err->n_items + err->n_lost);
		free(fresh);
		return rc;
	}
	*former = d->settings;
	apply_live(d, fresh);
	rc = source_file_reload(d->file, fresh->services.file, err);
	if (rc != 0) {
		apply_live(d, former); // the source has noted why
	} else {
		struct reload_report report = { .daemon = d };
		settings_diff(former, fresh, note_change, &report);
		control_note(d->control, LOG_LEVEL_INFO, "reload", d->config_path,
			"%u settings changed, %u need a restart", report.n_live, report.n_restart);
	}
	settings_fini(fresh);
	free(fresh);
	return rc;
}

// ---------------------------------------------------------------- events of the process

static void on_signal(evutil_socket_t number, short what, void *arg)
{
	struct daemon *d = arg;
	(void)what;
	if (number == SIGHUP) {
		struct error err = { 0 };
		control_reload(d->control, &err);
		error_fini(&err);
		return;
	}
	log_write(&d->log, LOG_LEVEL_INFO, "stop", "signal %d", (int)number);
	control_end(d->control);
}

// One datagram to the service manager, if there is one (sd_notify protocol).
static void notify_supervisor(const char *state)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un to = { .sun_family = AF_UNIX };
	if (path == NULL || (path[0] != '/' && path[0] != '@') ||
		strlen(path) >= sizeof(to.sun_path))
		return;
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return;
	memcpy(to.sun_path, path, strlen(path));
	socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path));
	if (path[0] == '@')
		to.sun_path[0] = 0;
	ssize_t n = sendto(fd, state, strlen(state), MSG_NOSIGNAL, (struct sockaddr *)&to, len);
	(void)n; // a manager that does not listen is no reason to stop
	close(fd);
}

struct ready_count {
	uint32_t n_backends;
	uint32_t n_out;
};

static bool count_backend(void *arg, const struct control_backend_status *status)
{
	struct ready_count *count = arg;
	count->n_backends++;
	count->n_out += status->state != HEALTH_UP;
	return true;
}

static void on_ready_timer(evutil_socket_t fd, short what, void *arg)
{
	struct daemon *d = arg;
	char reason[256], serving[128], state[192];
	int64_t took_ms = clock_wall_ms() - d->begun_ms;
	bool is_ready = control_is_ready(d->control, reason, sizeof(reason));
	(void)fd;
	(void)what;
	if (!is_ready && took_ms < READY_MAX_MS) {
		struct timeval soon = { .tv_usec = READY_POLL_MS * 1000 };
		event_add(d->ready_timer, &soon);
		return;
	}
	struct ready_count count = { 0 };
	control_each_backend(d->control, NULL, count_backend, &count);
	snprintf(serving, sizeof(serving),
		"%u services, %u backends (%u out), %u ports, %u workers",
		service_store_count(control_store(d->control)), count.n_backends, count.n_out,
		device_n_ports(d->device), dataplane_n_workers(d->dataplane));
	if (is_ready)
		log_write(&d->log, LOG_LEVEL_INFO, "ready", "sluiced ready: %s, in %lld ms",
			serving, (long long)took_ms);
	else
		log_write(&d->log, LOG_LEVEL_WARN, "not-ready", "started: %s, but %s", serving,
			reason);
	snprintf(state, sizeof(state), "READY=1\nSTATUS=%s", serving);
	notify_supervisor(state);
}

// Before anything outside the process is changed, so that no signal ends it half way; they are heeded when the loop
// runs.
static int watch_signals(struct daemon *d, struct error *err)
{
	static const int numbers[] = { SIGHUP, SIGTERM, SIGINT };
	struct event_base *base = control_base(d->control);
	signal(SIGPIPE, SIG_IGN);
	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
		d->signals[i] = evsignal_new(base, numbers[i], on_signal, d);
		if (d->signals[i] == NULL || event_add(d->signals[i], NULL) != 0)
			return error_add(err, ENOMEM, "signals", "cannot be watched");
	}
	control_set_reload(d->control, reload, d);
	return 0;
}

static int watch_ready(struct daemon *d, struct error *err)
{
	d->ready_timer = evtimer_new(control_base(d->control), on_ready_timer, d);
	if (d->ready_timer == NULL)
		return error_add(err, ENOMEM, "ready", "no timer");
	on_ready_timer(-1, 0, d);
	return 0;
}

// ---------------------------------------------------------------- from the inside out, and back

static int start_control(struct daemon *d, struct error *err)
{
	struct control_config *config = calloc(1, sizeof(*config));
	if (config == NULL)
		return error_add(err, ENOMEM, "", "out of memory");
	config->defaults = defaults_of(&d->settings);
	config->n_snat = d->settings.snat.n_addresses;
	memcpy(config->snat, d->settings.snat.addresses, sizeof(config->snat));
	snprintf(config->state_dir, sizeof(config->state_dir), "%s", d->settings.state_dir);
	flow_dir_of(&d->settings, config->flow_dir);
	int rc = control_create(config, &d->log, &d->control, err);
	free(config);
	if (rc != 0)
		return rc;
	struct error kept = { 0 };
	if (control_load_state(d->control, &kept) != 0) // set aside and said; the rest is in force
		log_errors(&d->log, LOG_LEVEL_ERROR, "state", &kept);
	error_fini(&kept);
	return 0;
}

static int create_dataplane(struct daemon *d, struct error *err)
{
	struct device_config *device = calloc(1, sizeof(*device));
	struct dataplane_config *config = calloc(1, sizeof(*config));
	int rc = -ENOMEM;
	if (device == NULL || config == NULL)
		error_add(err, ENOMEM, "", "out of memory");
	else
		rc = dataplane_config_of(d, config);
	if (rc == 0) {
		device_config_of(d, device);
		device->flow_bytes_per_worker = dataplane_worker_bytes(config);
		rc = device_start(device, &d->log, &d->device, err);
	}
	if (rc == 0) {
		config->snat.n_workers = (uint16_t)device_n_workers(d->device);
		rc = dataplane_create(d->device, config, &d->log, &d->dataplane, err);
	}
	if (rc == 0)
		rc = control_attach(d->control, d->device, d->dataplane, err);
	free(device);
	free(config);
	return rc;
}

static int start_edges(struct daemon *d, struct error *err)
{
	int rc = punt_create(d->control, &d->punt, err);
	if (rc == 0)
		rc = punt_start(d->punt, err);
	if (rc == 0)
		rc = probe_create(d->control, &d->probe, err);
	if (rc == 0)
		rc = admin_create(d->control, &d->settings, &d->admin, err);
	if (rc == 0)
		rc = source_file_create(d->control, d->settings.services.file, &d->file, err);
	if (rc == 0)
		rc = main_cluster_create(&d->settings, d->control, &d->cluster, err);
	// Packets only when the services are known: to a VIP of nobody they would be the kernel's, which has its address on
	// the twin and resets the connections that the process before this one left.
	if (rc == 0)
		rc = dataplane_start(d->dataplane, err);
	if (rc == 0)
		rc = watch_ready(d, err);
	return rc;
}

static void stop_all(struct daemon *d)
{
	notify_supervisor("STOPPING=1");
	if (d->ready_timer)
		event_free(d->ready_timer);
	source_cluster_destroy(d->cluster);
	if (d->file)
		source_file_destroy(d->file);
	admin_destroy(d->admin);
	if (d->probe)
		probe_destroy(d->probe);
	if (d->dataplane)
		dataplane_stop(d->dataplane);
	punt_destroy(d->punt);
	if (d->control)
		control_detach(d->control);
	if (d->dataplane)
		dataplane_destroy(d->dataplane);
	if (d->device)
		device_stop(d->device);
	// Last: a second signal must not cut the way back short.
	for (size_t i = 0; i < ARRAY_SIZE(d->signals); i++) {
		if (d->signals[i])
			event_free(d->signals[i]);
	}
	if (d->control)
		control_destroy(d->control);
}

// A descriptor for each probe in flight and each admin connection: as many as may be.
static void raise_file_limit(void)
{
	struct rlimit files;
	if (getrlimit(RLIMIT_NOFILE, &files) != 0)
		return;
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
}

static int run(struct daemon *d)
{
	struct error err = { 0 };
	// First, so that a second process is told of the first and not of what that one holds.
	int rc = main_lock_take(d->settings.state_dir, &d->lock_fd, &err);
	if (rc == 0)
		rc = preflight_daemon(d);
	if (rc == 0) {
		raise_file_limit();
		rc = start_control(d, &err);
		if (rc == 0)
			rc = watch_signals(d, &err);
		if (rc == 0)
			rc = create_dataplane(d, &err);
		if (rc == 0)
			rc = start_edges(d, &err);
		if (rc == 0)
			rc = control_run(d->control);
		log_errors(&d->log, LOG_LEVEL_ERROR, "start", &err);
		stop_all(d);
	} else {
		log_errors(&d->log, LOG_LEVEL_ERROR, "start", &err);
	}
	if (d->lock_fd >= 0)
		close(d->lock_fd);
	log_write(&d->log, LOG_LEVEL_INFO, "end", rc ? "failed" : "clean");
	error_fini(&err);
	return rc ? 1 : 0;
}

// ---------------------------------------------------------------- check

// The services file as --check sees it: decoded, not applied. A missing one is an error as at start.
static int check_services(const struct settings *s, struct error *err)
{
	if (s->services.file[0] == 0)
		return 0;
	FILE *file = fopen(s->services.file, "rb");
	if (file == NULL)
		return error_add(
			err, errno, "services.file", "%s: %s", s->services.file, strerror(errno));
	char *text = malloc(KUBE_FILE_MAX_BYTES + 1u);
	size_t len = text ? fread(text, 1, KUBE_FILE_MAX_BYTES + 1u, file) : 0;
	fclose(file);
	if (text == NULL)
		return error_add(err, ENOMEM, "services.file", "out of memory");
	struct service_defaults defaults = defaults_of(s);
	struct kube_result result = { 0 };
	int rc = kube_decode_file(text, len, s->services.file, &defaults, &result, err);
	free(text);
	kube_result_fini(&result);
	return rc;
}

static int check(const char *path)
{
	static struct settings settings; // large
	struct error err = { 0 };
	settings_defaults(&settings);
	int rc = settings_load(path, &settings, &err);
	if (rc == 0) {
		int wrong = settings_check_daemon(&settings, &err);
		rc = check_services(&settings, &err);
		if (settings.kubernetes.enabled &&
			source_cluster_check(settings.kubernetes.kubeconfig, &err) != 0)
			rc = -EINVAL;
		rc = wrong ? wrong : rc;
	}
	char line[1024];
	for (uint32_t i = 0; i < err.n_items; i++)
		printf("%s\n", error_format(&err, i, line, sizeof(line)));
	if (err.n_lost)
		printf("and %u more\n", err.n_lost);
	if (rc == 0)
		printf("%s: ok\n", path);
	error_fini(&err);
	return rc ? 1 : 0;
}

static const struct option options[] = {
	{ "config", required_argument, NULL, 'c' },
	{ "check", no_argument, NULL, 'k' },
	{ "print-default-config", no_argument, NULL, 'p' },
	{ "version", no_argument, NULL, 'V' },
	{ "help", no_argument, NULL, 'h' },
	{ NULL, 0, NULL, 0 },
};

// What follows "--" goes to the EAL as it stands.
static int take_eal_args(struct daemon *d, int argc, char **argv, int first)
{
	size_t at = 0;
	for (int i = first; i < argc; i++) {
		int n = snprintf(
			d->eal_args + at, sizeof(d->eal_args) - at, "%s%s", at ? " " : "", argv[i]);
		at += (size_t)n;
		if (at >= sizeof(d->eal_args))
			return -E2BIG;
	}
	return 0;
}

static int start(struct daemon *d)
{
	struct error err = { 0 };
	d->log = (struct log){ .fd = STDERR_FILENO, .level = LOG_LEVEL_INFO };
	d->begun_ms = clock_wall_ms();
	d->lock_fd = -1;
	settings_defaults(&d->settings);
	int rc = settings_load(d->config_path, &d->settings, &err);
	if (rc == 0)
		rc = settings_check_daemon(&d->settings, &err);
	if (rc != 0) {
		log_errors(&d->log, LOG_LEVEL_ERROR, "config", &err);
		error_fini(&err);
		return 1;
	}
	d->log = log_of(&d->settings);
	log_write(&d->log, LOG_LEVEL_INFO, "config", "sluiced %s, %s ok", SLUICE_VERSION,
		d->config_path);
	return run(d);
}

int main(int argc, char **argv)
{
	static struct daemon daemon; // large
	bool wants_check = false;
	int option;
	while ((option = getopt_long(argc, argv, "+", options, NULL)) != -1) {
		switch (option) {
		case 'c':
			daemon.config_path = optarg;
			break;
		case 'k':
			wants_check = true;
			break;
		case 'p':
			settings_print_default(stdout);
			return 0;
		case 'V':
			printf("sluiced %s\n", SLUICE_VERSION);
			return 0;
		case 'h':
			return usage(stdout, 0);
		default:
			return usage(stderr, EXIT_USAGE);
		}
	}
	bool dashes = optind > 0 && strcmp(argv[optind - 1], "--") == 0;
	if (daemon.config_path == NULL || (optind < argc && !dashes) ||
		take_eal_args(&daemon, argc, argv, optind) != 0)
		return usage(stderr, EXIT_USAGE);
	return wants_check ? check(daemon.config_path) : start(&daemon);
}
