// SPDX-License-Identifier: BSD-3-Clause
// The table of settings: the one place that knows a key. A new setting is a row here and a field in settings.h; parser,
// checks, sample file, JSON and reload diff follow.
#include "settings_priv.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#define IN(record, member) .offset = offsetof(struct record, member)
#define TEXT_IN(record, member)                                         \
	.type = SCHEMA_TEXT, .offset = offsetof(struct record, member), \
	.size = sizeof(((struct record *)0)->member),                   \
	.max = sizeof(((struct record *)0)->member) - 1

#define TABLE_END            \
	{                    \
		.name = NULL \
	}

// ---------------------------------------------------------------- checks of one value

static bool refuse(char *why, size_t len, const char *allowed)
{
	snprintf(why, len, "%s", allowed);
	return false;
}

// What the kernel takes as the name of a device, less a few that would be no help to anybody.
static bool name_valid(const char *name)
{
	if (!isalnum((unsigned char)name[0]) || strcmp(name, "lo") == 0)
		return false;
	for (const char *c = name; *c; c++)
		if (!isalnum((unsigned char)*c) && !strchr("._-", *c))
			return false;
	return strlen(name) <= 15;
}

#define NAME_ALLOWED                                                                             \
	"interface name of 1..15 letters, digits, . _ - that begins with a letter or digit and " \
	"is not lo"

static bool check_port_name(void *record, char *why, size_t len)
{
	const struct settings_port *port = record;
	return name_valid(port->name) || refuse(why, len, NAME_ALLOWED);
}

static bool check_twin(void *record, char *why, size_t len)
{
	const struct settings_port *port = record;
	return port->twin[0] == '\0' || name_valid(port->twin) ||
	       refuse(why, len, NAME_ALLOWED ", or \"\" for the port's name");
}

static bool check_device(void *record, char *why, size_t len)
{
	const struct settings_port *port = record;
	return strpbrk(port->device, " \t\"\\") == NULL ||
	       refuse(why, len, "DPDK device without blanks or quotes");
}

bool settings_cores_valid(const char *text)
{
	bool taken[1024] = { false };
	if (strcmp(text, "auto") == 0)
		return true;
	for (;;) {
		char *end = NULL;
		if (!isdigit((unsigned char)*text))
			return false;
		unsigned long from = strtoul(text, &end, 10);
		unsigned long to = from;
		if (*end == '-' && isdigit((unsigned char)end[1]))
			to = strtoul(end + 1, &end, 10);
		if (from > to || to >= ARRAY_SIZE(taken))
			return false;
		for (unsigned long i = from; i <= to; i++) {
			if (taken[i])
				return false;
			taken[i] = true;
		}
		if (*end == '\0')
			return true;
		if (*end != ',')
			return false;
		text = end + 1;
	}
}

#define CORES_ALLOWED \
	"\"auto\", or a list of CPU numbers 0..1023 and ranges without repetition, as \"2-5,8\""

static bool check_cores(void *record, char *why, size_t len)
{
	const struct settings_workers *workers = record;
	return settings_cores_valid(workers->cores) || refuse(why, len, CORES_ALLOWED);
}

static bool check_control_core(void *record, char *why, size_t len)
{
	const char *text = ((const struct settings_workers *)record)->control_core;
	return (settings_cores_valid(text) && !strpbrk(text, "-,")) ||
	       refuse(why, len, "\"auto\" or one CPU number 0..1023");
}

#define IDLE_ALLOWED "\"poll\", \"adaptive\", or \"sleep:<time>\" with a time of 1us..1s"

static bool check_idle(void *record, char *why, size_t len)
{
	struct settings_workers *workers = record;
	const char *text = workers->idle_text;
	workers->sleep_ns = 0;
	if (strcmp(text, "poll") == 0) {
		workers->idle = SETTINGS_IDLE_POLL;
	} else if (strcmp(text, "adaptive") == 0) {
		workers->idle = SETTINGS_IDLE_ADAPTIVE;
	} else {
		workers->idle = SETTINGS_IDLE_SLEEP;
		if (strncmp(text, "sleep:", 6) != 0 ||
			clock_parse_duration(text + 6, &workers->sleep_ns) ||
			workers->sleep_ns < CLOCK_US || workers->sleep_ns > CLOCK_S)
			return refuse(why, len, IDLE_ALLOWED);
	}
	return true;
}

static bool check_eal_word(void *record, char *why, size_t len)
{
	const char *word = record;
	return strpbrk(word, " \t") == NULL ||
	       refuse(why, len,
		       "one word of the EAL's command line an entry, as \"--iova-mode=va\"");
}

#define PATH_ALLOWED "absolute path"

static bool check_path(const char *path, char *why, size_t len)
{
	return path[0] == '/' || refuse(why, len, PATH_ALLOWED);
}

static bool check_flow_file(void *record, char *why, size_t len)
{
	struct settings_flows *flows = record;
	if (strcmp(flows->file, "auto") == 0)
		flows->file_kind = SETTINGS_FLOW_FILE_AUTO;
	else if (strcmp(flows->file, "none") == 0)
		flows->file_kind = SETTINGS_FLOW_FILE_NONE;
	else if (flows->file[0] == '/')
		flows->file_kind = SETTINGS_FLOW_FILE_PATH;
	else
		return refuse(why, len, "\"auto\", \"none\" or an " PATH_ALLOWED);
	return true;
}

static bool check_snat_address(void *record, char *why, size_t len)
{
	return !address_is_unroutable(record) || refuse(why, len,
							 "unicast address that can be routed to: "
							 "not loopback, link-local, multicast, "
							 "unspecified or reserved");
}

static bool check_port_range(void *record, char *why, size_t len)
{
	struct settings_snat *snat = record;
	const char *text = snat->ports_text;
	unsigned long ends[2] = { 0, 0 };
	for (int i = 0; i < 2; i++) {
		char *end = NULL;
		if (!isdigit((unsigned char)*text))
			return refuse(why, len, "range of ports \"low-high\" within 1-65535");
		ends[i] = strtoul(text, &end, 10);
		if (*end != (i ? '\0' : '-'))
			return refuse(why, len, "range of ports \"low-high\" within 1-65535");
		text = end + 1;
	}
	if (ends[0] < 1 || ends[0] > ends[1] || ends[1] > 65535)
		return refuse(why, len, "range of ports \"low-high\" within 1-65535");
	snat->port_min = (uint16_t)ends[0];
	snat->port_max = (uint16_t)ends[1];
	return true;
}

static bool check_services_file(void *record, char *why, size_t len)
{
	const char *path = ((const struct settings_services *)record)->file;
	return path[0] == '\0' || check_path(path, why, len) ||
	       refuse(why, len, PATH_ALLOWED ", or \"\" for none");
}

static bool check_socket(void *record, char *why, size_t len)
{
	const char *path = ((const struct settings_admin *)record)->socket;
	return path[0] == '\0' || check_path(path, why, len) ||
	       refuse(why, len, PATH_ALLOWED " of at most 107 characters, or \"\" for none");
}

static bool check_state_dir(void *record, char *why, size_t len)
{
	const char *path = ((const struct settings *)record)->state_dir;
	return path[0] == '\0' || check_path(path, why, len) ||
	       refuse(why, len, PATH_ALLOWED ", or \"\" to keep nothing");
}

static bool check_tokens_file(void *record, char *why, size_t len)
{
	return check_path(((const struct settings_listen *)record)->tokens_file, why, len);
}

static bool check_listen_address(void *record, char *why, size_t len)
{
	struct settings_listen *listen = record;
	if (address_parse(listen->address_text, &listen->address))
		return refuse(why, len, "IPv4 or IPv6 address without brackets or port");
	const uint8_t *bytes = listen->address.bytes;
	static const uint8_t loopback_v6[16] = { [15] = 1 };
	if (address_is_v4(&listen->address) ? bytes[12] == 127 : !memcmp(bytes, loopback_v6, 16))
		return true;
	return refuse(why, len,
		"loopback address (127.0.0.0/8 or ::1): TLS is not supported yet, and tokens do "
		"not "
		"travel in the clear");
}

static bool check_no_tls(void *record, char *why, size_t len)
{
	const struct settings_listen *listen = record;
	return (!listen->tls_cert[0] && !listen->tls_key[0] && !listen->client_ca[0]) ||
	       refuse(why, len, "nothing today: TLS on admin.listen is not supported yet");
}

// ---------------------------------------------------------------- names and ranges of the cluster

// Lower-case letters and digits, with the marks in between: "sluice-system", with '.' also "node1.example.com".
static bool lower_name_valid(const char *name, size_t len, const char *marks)
{
	for (size_t i = 0; i < len; i++) {
		bool inside = i > 0 && i + 1 < len;
		if (!islower((unsigned char)name[i]) && !isdigit((unsigned char)name[i]) &&
			!(inside && strchr(marks, name[i])))
			return false;
	}
	return len > 0 && len <= 63;
}

#define LABEL_ALLOWED "1..63 lower-case letters, digits and - , a letter or digit at both ends"
#define NODE_ALLOWED                                                                      \
	"1..58 lower-case letters, digits, . and - , a letter or digit at both ends, or " \
	"\"auto\" for the host's name"
#define QUALIFIED_ALLOWED                                                                       \
	"name as \"example.com/lb\": an optional lower-case domain and /, then 1..63 letters, " \
	"digits, - _ . with a letter or digit at both ends"

static bool qualified_valid(const char *text)
{
	const char *slash = strchr(text, '/');
	const char *name = slash ? slash + 1 : text;
	size_t len = strlen(name);
	if (slash && !lower_name_valid(text, (size_t)(slash - text), ".-"))
		return false;
	for (size_t i = 0; i < len; i++) {
		bool inside = i > 0 && i + 1 < len;
		if (!isalnum((unsigned char)name[i]) && !(inside && strchr("-_.", name[i])))
			return false;
	}
	return len > 0 && len <= 63;
}

static bool check_kubeconfig(void *record, char *why, size_t len)
{
	const char *path = ((const struct settings_kubernetes *)record)->kubeconfig;
	return path[0] == '\0' || check_path(path, why, len) ||
	       refuse(why, len,
		       PATH_ALLOWED
		       ", or \"\" for the service account of the pod that this runs in");
}

static bool check_class(void *record, char *why, size_t len)
{
	return qualified_valid(((const struct settings_kubernetes *)record)->class) ||
	       refuse(why, len, QUALIFIED_ALLOWED);
}

static bool check_finalizer(void *record, char *why, size_t len)
{
	const char *text = ((const struct settings_kubernetes *)record)->finalizer;
	return text[0] == '\0' || (strchr(text, '/') && qualified_valid(text)) ||
	       refuse(why, len, QUALIFIED_ALLOWED " and with the domain, or \"\" for none");
}

static bool check_namespace(void *record, char *why, size_t len)
{
	const char *text = ((const struct settings_kubernetes *)record)->namespace;
	return lower_name_valid(text, strlen(text), "-") || refuse(why, len, LABEL_ALLOWED);
}

static bool check_pool_namespace(void *record, char *why, size_t len)
{
	return lower_name_valid(record, strlen(record), "-") || refuse(why, len, LABEL_ALLOWED);
}

static bool check_pool_name(void *record, char *why, size_t len)
{
	const char *text = ((const struct settings_pool *)record)->name;
	return lower_name_valid(text, strlen(text), ".-") || refuse(why, len, LABEL_ALLOWED);
}

// Leases are named node-<name>, so five characters of a label are taken.
static bool check_node_name(void *record, char *why, size_t len)
{
	const char *text = ((const struct settings_kubernetes *)record)->node_name;
	size_t n = strlen(text);
	return (n <= 58 && lower_name_valid(text, n, ".-")) || refuse(why, len, NODE_ALLOWED);
}

static bool check_zone(void *record, char *why, size_t len)
{
	const char *text = ((const struct settings_kubernetes *)record)->zone;
	return text[0] == '\0' || (!strchr(text, '/') && qualified_valid(text)) ||
	       refuse(why, len,
		       "value of topology.kubernetes.io/zone: 1..63 letters, digits, - _ . with a "
		       "letter or digit at both ends, or \"\" for none");
}

#define RANGE_ALLOWED                                                                        \
	"prefix \"192.0.2.0/28\" without host bits, range \"192.0.2.10-192.0.2.20\" of one " \
	"family, lower end first, or one address; unicast addresses that can be routed to"

static bool range_parse(const char *text, struct settings_range *range)
{
	char first[ADDRESS_TEXT_LEN];
	struct prefix prefix;
	const char *dash = strchr(text, '-');
	if (strchr(text, '/')) {
		if (prefix_parse(text, &prefix))
			return false;
		uint32_t n_bits = prefix.len + (address_is_v4(&prefix.address) ? 96u : 0u);
		range->first = range->last = prefix.address;
		for (uint32_t i = n_bits; i < 128; i++)
			range->last.bytes[i / 8] |= (uint8_t)(0x80 >> i % 8);
		return true;
	}
	if (dash == NULL) {
		if (address_parse(text, &range->first))
			return false;
		range->last = range->first;
		return true;
	}
	if ((size_t)(dash - text) >= sizeof(first))
		return false;
	snprintf(first, sizeof(first), "%.*s", (int)(dash - text), text);
	return address_parse(first, &range->first) == 0 &&
	       address_parse(dash + 1, &range->last) == 0;
}

static bool check_pool_range(void *record, char *why, size_t len)
{
	struct settings_range *range = record;
	memset(&range->first, 0, sizeof(range->first));
	memset(&range->last, 0, sizeof(range->last));
	return (range_parse(range->text, range) &&
		       address_is_v4(&range->first) == address_is_v4(&range->last) &&
		       address_compare(&range->first, &range->last) <= 0 &&
		       !address_is_unroutable(&range->first) &&
		       !address_is_unroutable(&range->last)) ||
	       refuse(why, len, RANGE_ALLOWED);
}

// ---------------------------------------------------------------- the rows

static const struct schema_field port_fields[] = {
	{ .name = "name",
		TEXT_IN(settings_port, name),
		.min = 1,
		.required = true,
		.default_text = "p0",
		.allowed = NAME_ALLOWED,
		.check = check_port_name,
		.help = "Name of the port in the CLI, REST and metrics; unique." },
	{ .name = "device",
		TEXT_IN(settings_port, device),
		.min = 1,
		.required = true,
		.default_text = "0000:3b:00.0",
		.check = check_device,
		.help = "DPDK device: a PCI address, a driver with arguments as "
			"net_af_packet0,iface=veth0, "
			"or ifname:ens1f0." },
	{ .name = "queues",
		.type = SCHEMA_U32,
		IN(settings_port, queues),
		.min = 1,
		.max = 64,
		.auto_zero = true,
		.default_text = "auto",
		.help = "Receive queues; auto: one per worker, or what the driver can." },
	{ .name = "descriptors",
		.type = SCHEMA_U32,
		IN(settings_port, descriptors),
		.min = 32,
		.max = 32768,
		.auto_zero = true,
		.default_text = "auto",
		.help = "Descriptors of each queue." },
	{ .name = "mtu",
		.type = SCHEMA_U32,
		IN(settings_port, mtu),
		.min = 576,
		.max = 9600,
		.default_text = "1500",
		.unit = "bytes",
		.help = "Largest IP packet of the link, also of the twin." },
	{ .name = "vlan",
		.type = SCHEMA_U32,
		IN(settings_port, vlan),
		.max = 4094,
		.default_text = "0",
		.help = "802.1Q id of the port's frames, which the twin sees without it; others "
			"are "
			"dropped. 0: untagged frames." },
	{ .name = "twin",
		TEXT_IN(settings_port, twin),
		.default_text = "",
		.allowed = NAME_ALLOWED ", or \"\" for the port's name",
		.check = check_twin,
		.help = "Name of the TAP device that stands for the port in the kernel." },
	TABLE_END,
};

static const struct schema_field worker_fields[] = {
	{ .name = "cores",
		TEXT_IN(settings_workers, cores),
		.default_text = "auto",
		.allowed = CORES_ALLOWED,
		.check = check_cores,
		.help = "CPUs of the workers, one worker each. auto: cores near the ports, never "
			"CPU 0." },
	{ .name = "control_core",
		TEXT_IN(settings_workers, control_core),
		.default_text = "auto",
		.allowed = "\"auto\" or one CPU number 0..1023",
		.check = check_control_core,
		.help = "CPU of the control thread." },
	{ .name = "idle",
		TEXT_IN(settings_workers, idle_text),
		.default_text = "adaptive",
		.allowed = IDLE_ALLOWED,
		.check = check_idle,
		.help = "What a worker does without packets: poll all the time, sleep when it has "
			"been quiet "
			"for a while (adaptive), or sleep a fixed time after each empty poll." },
	TABLE_END,
};

static const char *const hugepage_words[] = { "auto", "on", "off", NULL };
static const struct schema_field eal_word_fields[] = {
	{ .name = "",
		.type = SCHEMA_TEXT,
		.size = 128,
		.min = 1,
		.max = 127,
		.check = check_eal_word },
	TABLE_END,
};

static const struct schema_field memory_fields[] = {
	{ .name = "size",
		.type = SCHEMA_SIZE,
		IN(settings_memory, size_bytes),
		.min = 64ull << 20,
		.max = 1ull << 40,
		.auto_zero = true,
		.default_text = "auto",
		.help = "Memory for packets and flow tables; auto: from queues, descriptors and "
			"flows.capacity." },
	{ .name = "hugepages",
		.type = SCHEMA_WORD,
		IN(settings_memory, hugepages),
		.words = hugepage_words,
		.default_text = "auto",
		.help = "auto: use huge pages if there are any; on: refuse to start without; off: "
			"ordinary pages." },
	{ .name = "eal_args",
		.type = SCHEMA_LIST,
		IN(settings_memory, eal_args),
		.size = 128,
		.n_offset = offsetof(struct settings_memory, n_eal_args),
		.max = SETTINGS_EAL_ARGS_MAX,
		.fields = eal_word_fields,
		.help = "Words added to the end of the EAL's own command line." },
	TABLE_END,
};

static const struct schema_field flow_fields[] = {
	{ .name = "capacity",
		.type = SCHEMA_U32,
		IN(settings_flows, capacity),
		.min = 1,
		.max = 1u << 28,
		.default_text = "1000000",
		.unit = "flows per worker",
		.help = "Room for concurrent flows; about 80 bytes each, taken at start." },
	{ .name = "file",
		TEXT_IN(settings_flows, file),
		.default_text = "auto",
		.allowed = "\"auto\", \"none\" or an " PATH_ALLOWED,
		.check = check_flow_file,
		.help = "Where flow tables lie. A path: a folder on tmpfs or hugetlbfs, one file "
			"per worker; a restarted daemon takes the flows over. auto: a folder "
			"below /dev/shm where that is tmpfs. none: flows end with the process." },
	TABLE_END,
};

static const struct schema_field snat_address_fields[] = {
	{ .name = "",
		.type = SCHEMA_ADDRESS,
		.allowed = "unicast IPv4 or IPv6 address in quotes, without prefix length or port",
		.check = check_snat_address },
	TABLE_END,
};

static const struct schema_field snat_fields[] = {
	{ .name = "addresses",
		.type = SCHEMA_LIST,
		IN(settings_snat, addresses),
		.size = sizeof(struct address),
		.n_offset = offsetof(struct settings_snat, n_addresses),
		.max = SETTINGS_SNAT_MAX,
		.fields = snat_address_fields,
		.help = "Source addresses of fullnat flows towards backends, the first of each "
			"family also of tunnels (ipip, gue); they belong to sluice alone. "
			"At least one for each family of backends." },
	{ .name = "ports",
		TEXT_IN(settings_snat, ports_text),
		.default_text = "1024-65535",
		.allowed = "range of ports \"low-high\" within 1-65535",
		.check = check_port_range,
		.help = "Source ports used with these addresses. Where one is also an address of "
			"the host, the "
			"range must be in ip_local_reserved_ports." },
	TABLE_END,
};

static const char *const mode_words[] = { "fullnat", "dnat", "ipip", "gue", "l2dsr", NULL };
static const struct schema_field service_fields[] = {
	{ .name = "file",
		TEXT_IN(settings_services, file),
		.default_text = "/etc/sluice/services.json",
		.live = true,
		.allowed = PATH_ALLOWED ", or \"\" for none",
		.check = check_services_file,
		.help = "Services and endpoints, a JSON List of Kubernetes objects. Read at start "
			"and on reload." },
	{ .name = "mode",
		TEXT_IN(settings_services, mode),
		.words = mode_words,
		.live = true,
		.default_text = "fullnat",
		.help = "Forwarding mode of services that do not name one. What each asks of the "
			"backends: config/README.md." },
	{ .name = "idle_timeout_tcp",
		.type = SCHEMA_DURATION,
		IN(settings_services, tcp_idle_ns),
		.min = CLOCK_S,
		.max = 168 * 3600 * CLOCK_S,
		.step = CLOCK_S,
		.live = true,
		.default_text = "15m",
		.help = "An established TCP flow without packets ends after this, whole seconds." },
	{ .name = "idle_timeout_udp",
		.type = SCHEMA_DURATION,
		IN(settings_services, udp_idle_ns),
		.min = CLOCK_S,
		.max = 168 * 3600 * CLOCK_S,
		.step = CLOCK_S,
		.live = true,
		.default_text = "1m",
		.help = "The same for UDP." },
	{ .name = "drain_timeout",
		.type = SCHEMA_DURATION,
		IN(settings_services, drain_timeout_ns),
		.max = 168 * 3600 * CLOCK_S,
		.step = CLOCK_S,
		.live = true,
		.default_text = "5m",
		.help = "How long flows of a backend that went away may end by themselves, whole "
			"seconds." },
	TABLE_END,
};

static const struct schema_field health_fields[] = {
	{ .name = "interval",
		.type = SCHEMA_DURATION,
		IN(settings_health, interval_ns),
		.min = 100 * CLOCK_MS,
		.max = 3600 * CLOCK_S,
		.step = CLOCK_MS,
		.live = true,
		.default_text = "1s",
		.help = "Time between two probes of a backend, whole milliseconds." },
	{ .name = "timeout",
		.type = SCHEMA_DURATION,
		IN(settings_health, timeout_ns),
		.min = 10 * CLOCK_MS,
		.max = 3600 * CLOCK_S,
		.step = CLOCK_MS,
		.live = true,
		.default_text = "500ms",
		.help = "A probe without answer fails after this; not longer than the interval." },
	{ .name = "rise",
		.type = SCHEMA_U32,
		IN(settings_health, rise),
		.min = 1,
		.max = 10,
		.live = true,
		.default_text = "2",
		.unit = "probes in a row",
		.help = "Successes that bring a backend back." },
	{ .name = "fall",
		.type = SCHEMA_U32,
		IN(settings_health, fall),
		.min = 1,
		.max = 10,
		.live = true,
		.default_text = "2",
		.unit = "probes in a row",
		.help = "Failures that take a backend out." },
	TABLE_END,
};

static const struct schema_field listen_fields[] = {
	{ .name = "address",
		TEXT_IN(settings_listen, address_text),
		.required = true,
		.default_text = "127.0.0.1",
		.allowed = "loopback address in quotes",
		.check = check_listen_address,
		.help = "Address to listen on." },
	{ .name = "port",
		.type = SCHEMA_U32,
		IN(settings_listen, port),
		.min = 1,
		.max = 65535,
		.required = true,
		.default_text = "9440",
		.help = "TCP port to listen on." },
	{ .name = "tokens_file",
		TEXT_IN(settings_listen, tokens_file),
		.required = true,
		.default_text = "/etc/sluice/tokens",
		.allowed = PATH_ALLOWED,
		.check = check_tokens_file,
		.help = "File of bearer tokens: TCP is never open without." },
	{ .name = "tls_cert",
		TEXT_IN(settings_listen, tls_cert),
		.default_text = "",
		.check = check_no_tls,
		.help = "Certificate chain, PEM. Not supported yet." },
	{ .name = "tls_key",
		TEXT_IN(settings_listen, tls_key),
		.default_text = "",
		.check = check_no_tls,
		.help = "Its key, PEM. Not supported yet." },
	{ .name = "client_ca",
		TEXT_IN(settings_listen, client_ca),
		.default_text = "",
		.check = check_no_tls,
		.help = "CA of client certificates, PEM. Not supported yet." },
	TABLE_END,
};

static const struct schema_field admin_fields[] = {
	{ .name = "socket",
		TEXT_IN(settings_admin, socket),
		.default_text = "/run/sluice/sluice.sock",
		.allowed = PATH_ALLOWED " of at most 107 characters, or \"\" for none",
		.check = check_socket,
		.help = "UNIX socket of REST and sluicectl; who may connect is a matter of its "
			"owner and group." },
	{ .name = "listen",
		.type = SCHEMA_LIST,
		IN(settings_admin, listen),
		.size = sizeof(struct settings_listen),
		.n_offset = offsetof(struct settings_admin, n_listen),
		.max = SETTINGS_LISTEN_MAX,
		.fields = listen_fields,
		.help = "REST over TCP as well. Keys of an entry:" },
	TABLE_END,
};

static const struct schema_field pool_range_fields[] = {
	{ .name = "", TEXT_IN(settings_range, text), .min = 1, .check = check_pool_range },
	TABLE_END,
};

static const struct schema_field pool_namespace_fields[] = {
	{ .name = "",
		.type = SCHEMA_TEXT,
		.size = 64,
		.min = 1,
		.max = 63,
		.check = check_pool_namespace },
	TABLE_END,
};

static const struct schema_field pool_fields[] = {
	{ .name = "name",
		TEXT_IN(settings_pool, name),
		.min = 1,
		.required = true,
		.default_text = "public",
		.check = check_pool_name,
		.help = "Name that Services ask for by the annotation address-pool; unique." },
	{ .name = "addresses",
		.type = SCHEMA_LIST,
		IN(settings_pool, ranges),
		.size = sizeof(struct settings_range),
		.n_offset = offsetof(struct settings_pool, n_ranges),
		.max = SETTINGS_RANGES_MAX,
		.fields = pool_range_fields,
		.help = "Prefixes and ranges, as [ \"192.0.2.0/28\", "
			"\"2001:db8::10-2001:db8::ff\" ]; no address in two pools." },
	{ .name = "priority",
		.type = SCHEMA_U32,
		IN(settings_pool, priority),
		.max = 1000000,
		.default_text = "0",
		.help = "The pool with the smaller number is used up first; 0: after all others." },
	{ .name = "auto_assign",
		.type = SCHEMA_BOOL,
		IN(settings_pool, auto_assign),
		.default_text = "true",
		.help = "Whether Services that name no pool get addresses of this one." },
	{ .name = "namespaces",
		.type = SCHEMA_LIST,
		IN(settings_pool, namespaces),
		.size = 64,
		.n_offset = offsetof(struct settings_pool, n_namespaces),
		.max = SETTINGS_SPACES_MAX,
		.fields = pool_namespace_fields,
		.help = "Only Services of these namespaces; empty: of all." },
	TABLE_END,
};

static const struct schema_field kubernetes_fields[] = {
	{ .name = "enabled",
		.type = SCHEMA_BOOL,
		IN(settings_kubernetes, enabled),
		.default_text = "false",
		.help = "Follow Services and EndpointSlices of a cluster." },
	{ .name = "kubeconfig",
		TEXT_IN(settings_kubernetes, kubeconfig),
		.default_text = "",
		.allowed = PATH_ALLOWED
		", or \"\" for the service account of the pod that this runs in",
		.check = check_kubeconfig,
		.help = "How to reach the cluster, YAML or JSON; empty: from inside." },
	{ .name = "class",
		TEXT_IN(settings_kubernetes, class),
		.min = 1,
		.default_text = "sluice-lb.github.io/sluice",
		.check = check_class,
		.help = "loadBalancerClass of the Services to serve." },
	{ .name = "default_class",
		.type = SCHEMA_BOOL,
		IN(settings_kubernetes, default_class),
		.default_text = "false",
		.help = "Serve also Services that name no class: true where sluice is the "
			"cluster's default load balancer." },
	{ .name = "zone",
		TEXT_IN(settings_kubernetes, zone),
		.default_text = "",
		.check = check_zone,
		.help = "Zone of this machine. Endpoints with hints for it are preferred; empty: "
			"hints are not heeded." },
	{ .name = "namespace",
		TEXT_IN(settings_kubernetes, namespace),
		.min = 1,
		.default_text = "sluice-system",
		.check = check_namespace,
		.help = "Namespace of the Leases." },
	{ .name = "node_name",
		TEXT_IN(settings_kubernetes, node_name),
		.min = 1,
		.default_text = "auto",
		.allowed = NODE_ALLOWED,
		.check = check_node_name,
		.help = "Name of this machine among those that run sluice; unique." },
	{ .name = "finalizer",
		TEXT_IN(settings_kubernetes, finalizer),
		.default_text = "sluice-lb.github.io/vip",
		.check = check_finalizer,
		.help = "Finalizer that keeps a Service until its addresses are released; empty: "
			"none." },
	{ .name = "readiness_gate",
		.type = SCHEMA_BOOL,
		IN(settings_kubernetes, readiness_gate),
		.default_text = "false",
		.help = "Follow pods and set the condition sluice-lb.github.io/healthy on those "
			"whose readinessGates ask for it; needs "
			"config/kubernetes/readiness-gate." },
	{ .name = "lease_duration",
		.type = SCHEMA_DURATION,
		IN(settings_kubernetes, lease_duration_ns),
		.min = CLOCK_S,
		.max = 3600 * CLOCK_S,
		.step = CLOCK_S,
		.default_text = "15s",
		.help = "A leader that was not heard of for so long has lost its place, whole "
			"seconds." },
	{ .name = "lease_renew_deadline",
		.type = SCHEMA_DURATION,
		IN(settings_kubernetes, lease_renew_ns),
		.min = 100 * CLOCK_MS,
		.max = 3600 * CLOCK_S,
		.default_text = "10s",
		.help = "A leader that could not renew for so long stops by itself; less than "
			"lease_duration." },
	{ .name = "lease_retry",
		.type = SCHEMA_DURATION,
		IN(settings_kubernetes, lease_retry_ns),
		.min = 50 * CLOCK_MS,
		.max = 3600 * CLOCK_S,
		.default_text = "2s",
		.help = "Time between two tries; 1.2 times it is less than lease_renew_deadline." },
	{ .name = "pools",
		.type = SCHEMA_LIST,
		IN(settings_kubernetes, pools),
		.size = sizeof(struct settings_pool),
		.n_offset = offsetof(struct settings_kubernetes, n_pools),
		.max = SETTINGS_POOLS_MAX,
		.fields = pool_fields,
		.help = "Addresses for Services, beside those of the cluster's AddressPool "
			"objects. Keys of an entry:" },
	TABLE_END,
};

static const struct schema_field punt_fields[] = {
	{ .name = "rate",
		.type = SCHEMA_U32,
		IN(settings, punt_rate),
		.min = 1,
		.max = 10000000,
		.default_text = "10000",
		.unit = "packets per second",
		.help = "Most packets a second to the twins; routing protocols go first." },
	TABLE_END,
};

static const char *const level_words[] = { "error", "warn", "info", "debug", NULL };
static const char *const format_words[] = { "text", "json", NULL };
static const struct schema_field log_fields[] = {
	{ .name = "level",
		.type = SCHEMA_WORD,
		IN(settings_log, level),
		.words = level_words,
		.live = true,
		.default_text = "info",
		.help = "Least important messages that are written." },
	{ .name = "format",
		.type = SCHEMA_WORD,
		IN(settings_log, format),
		.words = format_words,
		.live = true,
		.default_text = "text",
		.help = "One line a message, as text or as a JSON object." },
	TABLE_END,
};

#define GROUP_IN(member) .type = SCHEMA_GROUP, IN(settings, member)

const struct schema_field settings_table[] = {
	{ .name = "ports",
		.type = SCHEMA_LIST,
		IN(settings, ports),
		.size = sizeof(struct settings_port),
		.n_offset = offsetof(struct settings, n_ports),
		.max = SETTINGS_PORTS_MAX,
		.fields = port_fields,
		.help = "The NICs or virtual ports that sluice takes whole. The entry below is an "
			"example: put your "
			"own in its place. Keys of an entry:" },
	{ .name = "workers",
		GROUP_IN(workers),
		.fields = worker_fields,
		.help = "The threads that move packets." },
	{ .name = "memory",
		GROUP_IN(memory),
		.fields = memory_fields,
		.help = "Packet memory and the EAL." },
	{ .name = "flows", GROUP_IN(flows), .fields = flow_fields, .help = "The flow tables." },
	{ .name = "snat",
		GROUP_IN(snat),
		.fields = snat_fields,
		.help = "What backends see as the client in mode fullnat. The addresses below are "
			"examples." },
	{ .name = "services",
		GROUP_IN(services),
		.fields = service_fields,
		.help = "Where services come from, and what they get when they do not say." },
	{ .name = "health",
		GROUP_IN(health),
		.fields = health_fields,
		.help = "Defaults of health checks; a service may say otherwise by annotation." },
	{ .name = "admin",
		GROUP_IN(admin),
		.fields = admin_fields,
		.help = "The operator's way in." },
	{ .name = "kubernetes",
		GROUP_IN(kubernetes),
		.fields = kubernetes_fields,
		.help = "The cluster as a source of services." },
	{ .name = "punt",
		.type = SCHEMA_GROUP,
		.fields = punt_fields,
		.help = "The slow path: packets that are the kernel's." },
	{ .name = "log",
		GROUP_IN(log),
		.fields = log_fields,
		.help = "Messages, on standard error." },
	{ .name = "state_dir",
		TEXT_IN(settings, state_dir),
		.default_text = "/var/lib/sluice",
		.allowed = PATH_ALLOWED ", or \"\" to keep nothing",
		.check = check_state_dir,
		.help = "Folder of what must survive a restart: services made over REST, drains, "
			"weights." },
	TABLE_END,
};
