// SPDX-License-Identifier: BSD-3-Clause
// The configuration: what a good one decodes to, what everything else is refused with, and that the sample, the printer and the
// reload diff tell the same as the table.
#include "edits_priv.h"
#include "settings.h"

#include <errno.h>
#include <unistd.h>

#define GOOD "test/fixtures/sluice_good.conf"
#define SEED 0x5eed0002u

static int load(const char *text, size_t len, struct settings *out, struct error *err)
{
	return settings_load_text(text, len, "sluice.conf", out, err);
}

// The caller frees.
static struct settings *load_good(const char *text)
{
	struct settings *s = malloc(sizeof(*s));
	struct error err = { 0 };
	char line[900];
	assert_non_null(s);
	if (load(text, strlen(text), s, &err))
		fail_msg("%s", error_first(&err, line, sizeof(line)));
	assert_int_equal(err.n_items, 0);
	return s;
}

static char *print(void (*fn)(const struct settings *s, FILE *file), const struct settings *s)
{
	char *text = NULL;
	size_t len = 0;
	FILE *file = open_memstream(&text, &len);
	assert_non_null(file);
	fn(s, file);
	fclose(file);
	return text;
}

static void print_sample(const struct settings *s, FILE *file)
{
	settings_print_default(file);
}

// ---------------------------------------------------------------- good ones

static void test_defaults(void **state)
{
	struct settings *s = load_good("");
	char buf[ADDRESS_TEXT_LEN];
	assert_int_equal(s->n_ports, 0);
	assert_string_equal(s->workers.cores, "auto");
	assert_string_equal(s->workers.control_core, "auto");
	assert_int_equal(s->workers.idle, SETTINGS_IDLE_ADAPTIVE);
	assert_int_equal(s->memory.size_bytes, 0);
	assert_int_equal(s->memory.hugepages, SETTINGS_HUGEPAGES_AUTO);
	assert_int_equal(s->memory.n_eal_args, 0);
	assert_int_equal(s->flows.capacity, 1000000);
	assert_int_equal(s->flows.file_kind, SETTINGS_FLOW_FILE_AUTO);
	assert_int_equal(s->snat.n_addresses, 0);
	assert_int_equal(s->snat.port_min, 1024);
	assert_int_equal(s->snat.port_max, 65535);
	assert_string_equal(s->services.file, "/etc/sluice/services.json");
	assert_string_equal(s->services.mode, "fullnat");
	assert_true(s->services.tcp_idle_ns == 900 * CLOCK_S);
	assert_true(s->services.udp_idle_ns == 60 * CLOCK_S);
	assert_true(s->services.drain_timeout_ns == 300 * CLOCK_S);
	assert_true(s->health.interval_ns == CLOCK_S);
	assert_true(s->health.timeout_ns == 500 * CLOCK_MS);
	assert_int_equal(s->health.rise, 2);
	assert_int_equal(s->health.fall, 2);
	assert_string_equal(s->admin.socket, "/run/sluice/sluice.sock");
	assert_int_equal(s->admin.n_listen, 0);
	assert_false(s->kubernetes.enabled);
	assert_string_equal(s->kubernetes.class, "sluice-lb.github.io/sluice");
	assert_string_equal(s->kubernetes.kubeconfig, "");
	assert_string_equal(s->kubernetes.zone, "");
	assert_string_equal(s->kubernetes.namespace, "sluice-system");
	assert_string_equal(s->kubernetes.node_name, "auto");
	assert_string_equal(s->kubernetes.finalizer, "sluice-lb.github.io/vip");
	assert_true(s->kubernetes.lease_duration_ns == 15 * CLOCK_S);
	assert_true(s->kubernetes.lease_renew_ns == 10 * CLOCK_S);
	assert_true(s->kubernetes.lease_retry_ns == 2 * CLOCK_S);
	assert_int_equal(s->kubernetes.n_pools, 0);
	assert_false(s->kubernetes.readiness_gate);
	assert_int_equal(s->punt_rate, 10000);
	assert_int_equal(s->log.level, LOG_LEVEL_INFO);
	assert_int_equal(s->log.format, LOG_TEXT);
	assert_string_equal(s->state_dir, "/var/lib/sluice");
	free(s);
	s = load_good("ports = ( { name = \"p0\"; device = \"net_null0\" } );\n"
		      "snat = { addresses = ( \"2001:DB8:0::1\" ); };");
	assert_string_equal(s->ports[0].twin, "p0");
	assert_int_equal(s->ports[0].queues, 0);
	assert_int_equal(s->ports[0].mtu, 1500);
	assert_string_equal(address_format(&s->snat.addresses[0], buf), "2001:db8::1");
	free(s);
}

static void test_good(void **state)
{
	char *text = edits_read(GOOD);
	struct settings *s = load_good(text);
	char buf[ADDRESS_TEXT_LEN];
	assert_int_equal(s->n_ports, 2);
	assert_string_equal(s->ports[0].device, "net_af_packet0,iface=veth0");
	assert_int_equal(s->ports[0].queues, 2);
	assert_int_equal(s->ports[0].descriptors, 512);
	assert_int_equal(s->ports[0].mtu, 9000);
	assert_string_equal(s->ports[0].twin, "twin0");
	assert_string_equal(s->ports[1].twin, "p1");
	assert_string_equal(s->workers.cores, "2-5,8");
	assert_string_equal(s->workers.control_core, "1");
	assert_int_equal(s->workers.idle, SETTINGS_IDLE_SLEEP);
	assert_true(s->workers.sleep_ns == 50 * CLOCK_US);
	assert_true(s->memory.size_bytes == 512u << 20);
	assert_int_equal(s->memory.hugepages, SETTINGS_HUGEPAGES_OFF);
	assert_int_equal(s->memory.n_eal_args, 2);
	assert_string_equal(s->memory.eal_args[1], "--no-telemetry");
	assert_int_equal(s->flows.capacity, 65536);
	assert_int_equal(s->flows.file_kind, SETTINGS_FLOW_FILE_PATH);
	assert_int_equal(s->snat.n_addresses, 3);
	assert_string_equal(address_format(&s->snat.addresses[2], buf), "2001:db8::1");
	assert_int_equal(s->snat.port_min, 20000);
	assert_int_equal(s->snat.port_max, 29999);
	assert_true(s->services.udp_idle_ns == 90 * CLOCK_S);
	assert_true(s->health.timeout_ns == 1500 * CLOCK_MS);
	assert_int_equal(s->health.fall, 4);
	assert_int_equal(s->admin.n_listen, 2);
	assert_string_equal(address_format(&s->admin.listen[1].address, buf), "::1");
	assert_int_equal(s->admin.listen[1].port, 9440);
	assert_int_equal(s->punt_rate, 500);
	assert_int_equal(s->log.level, LOG_LEVEL_DEBUG);
	assert_int_equal(s->log.format, LOG_JSON);
	assert_int_equal(settings_check_daemon(s, NULL), 0);
	settings_fini(s);
	free(s);
	free(text);
}

static void assert_range(const struct settings_range *range, const char *first, const char *last)
{
	char buf[ADDRESS_TEXT_LEN];
	assert_string_equal(address_format(&range->first, buf), first);
	assert_string_equal(address_format(&range->last, buf), last);
}

static void test_kubernetes(void **state)
{
	char *text = edits_read(GOOD);
	struct settings *s = load_good(text);
	const struct settings_kubernetes *k = &s->kubernetes;
	const struct settings_pool *gold = &k->pools[0], *rest = &k->pools[1];
	assert_true(k->enabled && k->default_class && k->readiness_gate);
	assert_string_equal(k->kubeconfig, "/root/.kube/config");
	assert_string_equal(k->class, "example.com/lb");
	assert_string_equal(k->zone, "zone-a");
	assert_string_equal(k->namespace, "edge");
	assert_string_equal(k->node_name, "edge1.example.com");
	assert_string_equal(k->finalizer, "example.com/vip");
	assert_true(k->lease_duration_ns == 30 * CLOCK_S && k->lease_renew_ns == 20 * CLOCK_S &&
		    k->lease_retry_ns == 3 * CLOCK_S);
	assert_int_equal(k->n_pools, 2);
	assert_string_equal(gold->name, "gold");
	assert_int_equal(gold->n_ranges, 2);
	assert_range(&gold->ranges[0], "203.0.113.0", "203.0.113.15");
	assert_range(&gold->ranges[1], "2001:db8:1::10", "2001:db8:1::1f");
	assert_int_equal(gold->priority, 5);
	assert_false(gold->auto_assign);
	assert_int_equal(gold->n_namespaces, 2);
	assert_string_equal(gold->namespaces[1], "stage");
	assert_int_equal(rest->priority, 0);
	assert_true(rest->auto_assign);
	assert_int_equal(rest->n_namespaces, 0);
	assert_range(&rest->ranges[0], "203.0.113.16", "203.0.113.20");
	assert_range(&rest->ranges[1], "203.0.113.30", "203.0.113.30");
	free(s);
	s = load_good("kubernetes = { pools = ( { name = \"a\"; addresses = [ \"2001:db8::/64\", "
		      "\"192.0.2.7/32\" ]; } ); lease_duration = \"1s\"; lease_renew_deadline = "
		      "\"700ms\"; lease_retry = \"200ms\"; finalizer = \"\"; };");
	assert_range(
		&s->kubernetes.pools[0].ranges[0], "2001:db8::", "2001:db8::ffff:ffff:ffff:ffff");
	assert_range(&s->kubernetes.pools[0].ranges[1], "192.0.2.7", "192.0.2.7");
	free(s);
	free(text);
}

static void test_sample(void **state)
{
	char *sample = print(print_sample, NULL);
	char *file = edits_read("config/sluice.conf");
	struct error err = { 0 };
	if (strcmp(sample, file))
		fail_msg("config/sluice.conf is not what `sluiced --print-default-config` prints");
	struct settings *s = load_good(sample);
	assert_int_equal(settings_check_daemon(s, &err), 0);
	assert_int_equal(s->n_ports, 1);
	// All but the two examples is the default.
	struct settings *defaults = load_good("");
	assert_int_equal(settings_diff(defaults, s, NULL, NULL), 2);
	free(defaults);
	free(s);
	free(file);
	free(sample);
}

static void test_print_loads(void **state)
{
	char *text = edits_read(GOOD);
	struct settings *s = load_good(text);
	char *printed = print(settings_print, s);
	struct settings *again = load_good(printed);
	assert_int_equal(settings_diff(s, again, NULL, NULL), 0);
	assert_memory_equal(&s->snat, &again->snat, sizeof(s->snat));
	assert_int_equal(s->workers.sleep_ns, again->workers.sleep_ns);
	free(printed);
	free(again);
	free(s);
	free(text);
}

static void test_json(void **state)
{
	char *text = edits_read(GOOD);
	struct settings *s = load_good(text);
	json_t *json = settings_to_json(s);
	assert_non_null(json);
	const json_t *ports = json_object_get(json, "ports");
	assert_int_equal(json_array_size(ports), 2);
	assert_int_equal(
		json_integer_value(json_object_get(json_array_get(ports, 0), "mtu")), 9000);
	assert_string_equal(
		json_string_value(json_object_get(json_array_get(ports, 1), "queues")), "auto");
	const json_t *health = json_object_get(json, "health");
	assert_string_equal(json_string_value(json_object_get(health, "timeout")), "1s500ms");
	assert_string_equal(
		json_string_value(json_object_get(json_object_get(json, "memory"), "size")),
		"512M");
	assert_true(json_is_true(json_object_get(json_object_get(json, "kubernetes"), "enabled")));
	assert_int_equal(
		json_array_size(json_object_get(json_object_get(json, "snat"), "addresses")), 3);
	json_decref(json);
	free(s);
	free(text);
}

// ---------------------------------------------------------------- reload diff

struct seen {
	char text[4096];
	size_t len;
};

static void see(void *arg, const struct settings_change *c)
{
	struct seen *seen = arg;
	seen->len += (size_t)snprintf(seen->text + seen->len, sizeof(seen->text) - seen->len,
		"%s %s>%s %s\n", c->path, c->old_text, c->new_text, c->live ? "live" : "restart");
	assert_true(seen->len < sizeof(seen->text));
}

static void test_diff(void **state)
{
	static const char *const changes[] = { "ports 0 entries>2 entries restart\n",
		"workers.idle adaptive>sleep:50us restart\n", "memory.size auto>512M restart\n",
		"memory.eal_args 0 entries>2 entries restart\n",
		"flows.capacity 1000000>65536 restart\n",
		"snat.ports 1024-65535>20000-29999 restart\n",
		"services.file /etc/sluice/services.json>/tmp/services.json live\n",
		"services.idle_timeout_tcp 15m>1h live\n", "health.timeout 500ms>1s500ms live\n",
		"health.fall 2>4 live\n", "punt.rate 10000>500 restart\n",
		"kubernetes.enabled false>true restart\n",
		"kubernetes.pools 0 entries>2 entries restart\n",
		"kubernetes.lease_retry 2s>3s restart\n", "log.level info>debug live\n",
		"log.format text>json live\n", "state_dir /var/lib/sluice>/tmp/state restart\n" };
	char *text = edits_read(GOOD);
	struct settings *s = load_good(text);
	struct settings *defaults = load_good("");
	struct seen seen = { .len = 0 };
	uint32_t n = settings_diff(defaults, s, see, &seen);
	for (size_t i = 0; i < ARRAY_SIZE(changes); i++)
		if (!strstr(seen.text, changes[i]))
			fail_msg("missing: %s in\n%s", changes[i], seen.text);
	for (const char *c = seen.text; (c = strchr(c, '\n')); c++)
		n--;
	assert_int_equal(n, 0);
	// Inside a list of the same length the key is named.
	struct settings *other = load_good(text);
	other->ports[1].mtu = 1400;
	assert_true(address_parse("192.0.2.9", &other->snat.addresses[1]) == 0);
	seen = (struct seen){ .len = 0 };
	assert_int_equal(settings_diff(s, other, see, &seen), 2);
	assert_string_equal(seen.text, "ports[1].mtu 1500>1400 restart\n"
				       "snat.addresses[1] 192.0.2.2>192.0.2.9 restart\n");
	free(other);
	free(defaults);
	free(s);
	free(text);
}

// ---------------------------------------------------------------- refusals

static const struct edit edits[] = {
	// the text
	{ "workers = {", "workers = ", "", "syntax error", "\tcores = " },
	{ "rate = 500;", "rate = ;", "", "allowed: a value: number", NULL },
	{ "rate = 500;", "rate = 500; rate = 501;", "", "each key once", NULL },
	{ "punt = {", "log = {};\npunt = {", "", "each key once", "log = {\n" },
	{ "log = {", "@include \"other.conf\"\nlog = {", "", "@include is not supported", NULL },
	{ "\"debug\"", "\"debug", "", "opened by \" and not closed; allowed: a closing", NULL },
	{ "// Every key", "/* Every key", "", "opened by /* and never closed", NULL },
	{ "rate = 500;", "rate = 500;\x01", "", "control character 0x01; allowed: text", NULL },
	{ "namespaces = [ \"prod\", \"stage\" ];", "pools = ((((((((((((((((()))))))))))))))));",
		"", "nested deeper than 16", NULL },
	{ "mtu = 9000;", "mtu = 9000;;;}", "", "syntax error", NULL },
	{ "\nstate_dir = \"/tmp/state\";", "} state_dir = \"/tmp/state\";", "",
		"syntax error at \"}\"; allowed: a key", NULL },
	{ "\"/tmp/state\";", "\"/tmp\" \"/state\";", "", "allowed: one value, then ;", NULL },
	{ "\"2001:db8::1\"\n", "\"2001:db8::1\",\n", "",
		"syntax error at \"]\"; allowed: a value in quotes", "\t];\n\tports" },
	{ "ports = (\n", "ports = [\n", "", "allowed: a value in quotes", "\t{\n\t\tname" },
	{ "\"--iova-mode=va\", ", "\"--iova-mode=va\" = ", "", "allowed: , or ]", NULL },
	{ "rate = 500;", "rate 500;", "",
		"syntax error at \"rate\"; allowed: a key, then =", NULL },
	{ "rate = 500;", "7 = 500;", "", "allowed: a key, then =", NULL },
	{ "rate = 500;", "true = 500;", "", "allowed: a key, then =", NULL },
	// keys
	{ "workers = {", "worker = {", "worker",
		"unknown key, did you mean \"workers\"? allowed: ports, workers", NULL },
	{ "\trate = 500;", "\tburst = 500;", "punt.burst", "unknown key; allowed: rate", NULL },
	{ "cores = \"2-5,8\"", "cors = \"2-5,8\"", "workers.cors",
		"did you mean \"cores\"? allowed: cores, control_core, idle", NULL },
	{ "mtu = 9000", "MTU = 9000", "ports[0].MTU", "unknown key", NULL },
	{ "port = 9440;", "prot = 9440;", "admin.listen[0].prot", "did you mean \"port\"?", NULL },
	{ "\t\tdevice = \"0000:3b:00.1\";\n", "", "ports[1].device",
		"key is missing; allowed: text of 1..255", "{\n\t\tname = \"p1\"" },
	{ "\t\tname = \"p0\";\n", "", "ports[0].name", "key is missing; allowed: interface name",
		"{\n\t\tdevice" },
	{ "\t\t\ttokens_file = \"/etc/sluice/tokens\";\n", "", "admin.listen[0].tokens_file",
		"key is missing; allowed: absolute path", "{\n\t\t\taddress = \"127" },
	// types
	{ "mtu = 9000;", "mtu = \"9000\";", "ports[0].mtu",
		"\"9000\" in quotes: allowed: number 576..9600", NULL },
	{ "mtu = 9000;", "mtu = true;", "ports[0].mtu", "true: allowed: number 576..9600", NULL },
	{ "mtu = 9000;", "mtu = 1500.0;", "ports[0].mtu", "\"1500.0\": allowed: number 576..9600",
		NULL },
	{ "mtu = 9000;", "mtu = { };", "ports[0].mtu", "a group { }: allowed: number", NULL },
	{ "mtu = 9000;", "mtu = [ 9000 ];", "ports[0].mtu", "an array [ ]: allowed: number", NULL },
	{ "name = \"p0\";", "name = p0;", "ports[0].name",
		"p0 must be written in quotes; allowed: interface name", NULL },
	{ "name = \"p0\";", "name = 0;", "ports[0].name", "0 must be written in quotes", NULL },
	{ "interval = \"2s\"", "interval = 2", "health.interval",
		"2 must be written in quotes; allowed: time", NULL },
	{ "interval = \"2s\"", "interval = 2s", "health.interval",
		"2s must be written in quotes; allowed: time", NULL },
	{ "size = \"512M\"", "size = 512M", "memory.size",
		"512M must be written in quotes; allowed: size \"64M\"", NULL },
	{ "\"192.0.2.1\",", "192.0.2.1,", "snat.addresses[0]",
		"192.0.2.1 must be written in quotes", NULL },
	{ "idle = \"sleep:50us\"", "idle = adaptive", "workers.idle",
		"adaptive must be written in quotes; allowed: \"poll\"", NULL },
	{ "hugepages = \"off\"", "hugepages = false", "memory.hugepages",
		"false: allowed: \"auto\", \"on\", \"off\"", NULL },
	{ "enabled = true", "enabled = \"false\"", "kubernetes.enabled",
		"\"false\" in quotes: allowed: true or false", NULL },
	{ "enabled = true", "enabled = 0", "kubernetes.enabled", "0: allowed: true or false",
		NULL },
	{ "queues = 2;", "queues = auto;", "ports[0].queues",
		"auto must be written in quotes; allowed: number 1..64, or \"auto\"", NULL },
	{ "punt = {\n\trate = 500;\n};", "punt = 500;", "punt", "500: allowed: group { ... }",
		NULL },
	{ "listen = (", "listen = \"x\"; x = (", "admin.listen",
		"\"x\" in quotes: allowed: list of at most 8", NULL },
	{ "\"2001:db8::1\"\n", "( \"2001:db8::1\" )\n", "", "syntax error", "( \"2001" },
	{ "eal_args = [ \"--iova", "eal_args = [ 7, \"--iova", "memory.eal_args[0]",
		"7 must be written in quotes", NULL },
	{ "\t{\n\t\tname = \"p1\"", "\t\"p2\",\n\t{\n\t\tname = \"p1\"", "ports[1]",
		"a value: allowed: group { ... }", NULL },
	// numbers that libconfig wraps, and their kin
	{ "mtu = 9000;", "mtu = 4294968796;", "ports[0].mtu",
		"\"4294968796\": allowed: number 576..9600", NULL },
	{ "capacity = 0x10000;", "capacity = 5000000000;", "flows.capacity",
		"\"5000000000\": allowed: number 1..268435456", NULL },
	{ "capacity = 0x10000;", "capacity = 0x1FFFFFFFF;", "flows.capacity",
		"\"0x1FFFFFFFF\": allowed", NULL },
	{ "capacity = 0x10000;", "capacity = 18446744073709551617L;", "flows.capacity",
		"allowed: number 1..", NULL },
	{ "capacity = 0x10000;", "capacity = 0;", "flows.capacity",
		"\"0\": allowed: number 1..268435456", NULL },
	{ "capacity = 0x10000;", "capacity = 0x;", "flows.capacity", "\"0x\": allowed: number",
		NULL },
	{ "rate = 500;", "rate = -1;", "punt.rate", "\"-1\": allowed: number 1..10000000", NULL },
	{ "rate = 500;", "rate = 0500;", "punt.rate", "\"0500\": allowed: number", NULL },
	{ "rise = 3;", "rise = 11;", "health.rise", "\"11\": allowed: number 1..10", NULL },
	{ "fall = 4;", "fall = 0;", "health.fall", "\"0\": allowed: number 1..10", NULL },
	{ "queues = 2;", "queues = 65;", "ports[0].queues", "allowed: number 1..64, or \"auto\"",
		NULL },
	{ "queues = 2;", "queues = \"Auto\";", "ports[0].queues",
		"allowed: number 1..64, or \"auto\"", NULL },
	{ "descriptors = 512;", "descriptors = 16;", "ports[0].descriptors",
		"allowed: number 32..32768", NULL },
	{ "mtu = 9000;", "mtu = 9601;", "ports[0].mtu", "allowed: number 576..9600", NULL },
	{ "port = 9440;", "port = 65536;", "admin.listen[0].port", "allowed: number 1..65535",
		NULL },
	// sizes, times, words
	{ "\"512M\"", "\"63M\"", "memory.size", "\"63M\": allowed: size \"64M\"..\"1T\"", NULL },
	{ "\"512M\"", "\"2T\"", "memory.size", "allowed: size \"64M\"..\"1T\"", NULL },
	{ "\"512M\"", "\"512MB\"", "memory.size", "\"512MB\": allowed: size", NULL },
	{ "\"512M\"", "\"18014398509481985K\"", "memory.size", "allowed: size", NULL },
	{ "interval = \"2s\"", "interval = \"2\"", "health.interval",
		"\"2\": allowed: time \"100ms\"..\"1h\"", NULL },
	{ "interval = \"2s\"", "interval = \"2500us\"", "health.interval",
		"allowed: time \"100ms\"..\"1h\"", NULL },
	{ "interval = \"2s\"", "interval = \"1s\"", "health.timeout",
		"\"1s500ms\" is longer than health.interval; allowed: at most \"1s\"",
		"\ttimeout = \"1500ms\"" },
	{ "timeout = \"1500ms\"", "timeout = \"9ms\"", "health.timeout",
		"\"9ms\": allowed: time \"10ms\"", NULL },
	{ "tcp = \"1h\"", "tcp = \"1500ms\"", "services.idle_timeout_tcp",
		"allowed: time \"1s\"..\"168h\"", NULL },
	{ "udp = \"90s\"", "udp = \"0s\"", "services.idle_timeout_udp",
		"allowed: time \"1s\"..\"168h\"", NULL },
	{ "drain_timeout = \"10s\"", "drain_timeout = \"10 s\"", "services.drain_timeout",
		"allowed: time", NULL },
	{ "hugepages = \"off\"", "hugepages = \"no\"", "memory.hugepages",
		"\"no\": allowed: \"auto\", \"on\", \"off\"", NULL },
	{ "level = \"debug\"", "level = \"trace\"", "log.level",
		"\"trace\": allowed: \"error\", \"warn\", \"info\", \"debug\"", NULL },
	{ "format = \"json\"", "format = \"JSON\"", "log.format", "allowed: \"text\", \"json\"",
		NULL },
	{ "mode = \"fullnat\"", "mode = \"nat\"", "services.mode",
		"\"nat\": allowed: \"fullnat\", \"dnat\", \"ipip\", \"gue\", \"l2dsr\"", NULL },
	{ "\"sleep:50us\"", "\"sleep\"", "workers.idle",
		"allowed: \"poll\", \"adaptive\", or \"sleep:<time>\"", NULL },
	{ "\"sleep:50us\"", "\"sleep:2s\"", "workers.idle", "with a time of 1us..1s", NULL },
	{ "\"sleep:50us\"", "\"sleep:0\"", "workers.idle", "with a time of 1us..1s", NULL },
	// cores
	{ "\"2-5,8\"", "\"5-2\"", "workers.cores", "allowed: \"auto\", or a list of CPU numbers",
		NULL },
	{ "\"2-5,8\"", "\"2-5,3\"", "workers.cores", "without repetition", NULL },
	{ "\"2-5,8\"", "\"2,\"", "workers.cores", "allowed: \"auto\", or a list", NULL },
	{ "\"2-5,8\"", "\"1024\"", "workers.cores", "0..1023", NULL },
	{ "\"2-5,8\"", "\"\"", "workers.cores", "allowed: \"auto\", or a list", NULL },
	{ "\"2-5,8\"", "\"0x3\"", "workers.cores", "allowed: \"auto\", or a list", NULL },
	{ "control_core = \"1\"", "control_core = \"1-2\"", "workers.control_core",
		"allowed: \"auto\" or one CPU", NULL },
	// ports
	{ "name = \"p1\";", "name = \"p0\";", "ports[1].name",
		"\"p0\" is the name of ports[0] too; allowed: unique",
		"name = \"p0\";\n\t\tdevice = \"0000" },
	{ "name = \"p1\";", "name = \"a-name-too-long-x\";", "ports[1].name",
		"allowed: interface name of 1..15", NULL },
	{ "name = \"p1\";", "name = \"p/1\";", "ports[1].name", "allowed: interface name", NULL },
	{ "name = \"p1\";", "name = \"\";", "ports[1].name", "\"\": allowed: interface name",
		NULL },
	{ "name = \"p1\";", "name = \"lo\";", "ports[1].name", "is not lo", NULL },
	{ "\"0000:3b:00.1\"", "\"net_af_packet0,iface=veth0\"", "ports[1].device",
		"is the device of ports[0] too; allowed: each device once",
		"device = \"net_af_packet0,iface=veth0\";\n\t\tqueues = \"auto\"" },
	{ "\"0000:3b:00.1\"", "\"0000:3b:00.1 x\"", "ports[1].device",
		"allowed: DPDK device without blanks", NULL },
	{ "\"twin0\"", "\"p1\"", "ports[1].twin",
		"\"p1\" is the twin of ports[0] too; allowed: one name", "{\n\t\tname = \"p1\"" },
	{ "\"twin0\"", "\"veth0\"", "ports[0].twin",
		"is the interface that ports[0].device opens; allowed: a name of its own", NULL },
	{ "\"twin0\"", "\"-x\"", "ports[0].twin", "allowed: interface name", NULL },
	// addresses
	{ "\"192.0.2.2\"", "\"192.0.2.1\"", "snat.addresses[1]",
		"is in the list twice (also snat.addresses[0]); allowed: each once",
		"\"192.0.2.1\",\n\t\t\"2001" },
	{ "\"192.0.2.2\"", "\"192.0.2.0/24\"", "snat.addresses[1]",
		"allowed: unicast IPv4 or IPv6 address", NULL },
	{ "\"192.0.2.2\"", "\"169.254.0.1\"", "snat.addresses[1]",
		"allowed: unicast address that can be routed to", NULL },
	{ "\"192.0.2.2\"", "\"0.0.0.0\"", "snat.addresses[1]",
		"allowed: unicast address that can be routed to", NULL },
	{ "\"2001:db8::1\"", "\"::ffff:192.0.2.9\"", "snat.addresses[2]",
		"allowed: unicast IPv4 or IPv6", NULL },
	{ "\"2001:db8::1\"", "\"ff02::1\"", "snat.addresses[2]",
		"allowed: unicast address that can be routed to", NULL },
	{ "\"20000-29999\"", "\"29999-20000\"", "snat.ports",
		"allowed: range of ports \"low-high\" within 1-65535", NULL },
	{ "\"20000-29999\"", "\"0-65535\"", "snat.ports", "within 1-65535", NULL },
	{ "\"20000-29999\"", "\"1-65536\"", "snat.ports", "within 1-65535", NULL },
	{ "\"20000-29999\"", "\"20000\"", "snat.ports", "range of ports", NULL },
	// paths
	{ "\"/tmp/state\"", "\"state\"", "state_dir",
		"\"state\": allowed: absolute path, or \"\" to keep nothing", NULL },
	{ "file = \"/tmp/services.json\"", "file = \"services.json\"", "services.file",
		"allowed: absolute path, or \"\"", NULL },
	{ "file = \"/dev/shm/sluice\"", "file = \"shm\"", "flows.file",
		"allowed: \"auto\", \"none\" or an absolute path", NULL },
	{ "\"/tmp/sluice.sock\"", "\"sluice.sock\"", "admin.socket",
		"allowed: absolute path of at most 107", NULL },
	{ "\"/tmp/sluice.sock\"",
		"\"/"
		"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
		"aaaaaaaaaaaaaaaaaaaaaaaaa\"",
		"admin.socket", "...\": allowed: absolute path of at most 107", NULL },
	{ "tokens_file = \"/etc/sluice/tokens\"", "tokens_file = \"tokens\"",
		"admin.listen[0].tokens_file", "allowed: absolute path", NULL },
	{ "kubeconfig = \"/root/.kube/config\"", "kubeconfig = \"\\x01\"", "",
		"backslash in a text; allowed", NULL },
	// the operator's way in, and what is not there yet
	{ "\"127.0.0.1\"", "\"192.0.2.7\"", "admin.listen[0].address",
		"allowed: loopback address (127.0.0.0/8 or ::1): TLS is not supported yet", NULL },
	{ "\"127.0.0.1\"", "\"0.0.0.0\"", "admin.listen[0].address", "allowed: loopback address",
		NULL },
	{ "\"127.0.0.1\"", "\"localhost\"", "admin.listen[0].address",
		"allowed: IPv4 or IPv6 address", NULL },
	{ "\"::1\"", "\"127.0.0.1\"", "admin.listen[1].port",
		"9440 on 127.0.0.1 is admin.listen[0] too; allowed: each",
		"port = 9440;\n\t\t\ttokens_file = \"/etc/sluice/tokens\";\n\t\t}\n\t);" },
	{ "port = 9440;", "port = 9440; tls_cert = \"/c.pem\";", "admin.listen[0].tls_cert",
		"TLS on admin.listen is not supported yet", NULL },
	{ "port = 9440;", "port = 9440; tls_key = \"/k.pem\";", "admin.listen[0].tls_key",
		"TLS on admin.listen is not supported yet", NULL },
	{ "port = 9440;", "port = 9440; client_ca = \"/a.pem\";", "admin.listen[0].client_ca",
		"TLS on admin.listen is not supported yet", NULL },
	// the cluster
	{ "\"/root/.kube/config\"", "\".kube/config\"", "kubernetes.kubeconfig",
		"\".kube/config\": allowed: absolute path, or \"\" for the service account", NULL },
	{ "class = \"example.com/lb\"", "class = \"\"", "kubernetes.class",
		"allowed: text of 1..127", NULL },
	{ "class = \"example.com/lb\"", "class = \"Example.com/lb\"", "kubernetes.class",
		"allowed: name as \"example.com/lb\"", NULL },
	{ "class = \"example.com/lb\"", "class = \"example.com/a/b\"", "kubernetes.class",
		"allowed: name as \"example.com/lb\"", NULL },
	{ "class = \"example.com/lb\"", "class = \"example.com/-b\"", "kubernetes.class",
		"allowed: name as \"example.com/lb\"", NULL },
	{ "default_class = true", "default_class = 1", "kubernetes.default_class",
		"1: allowed: true or false", NULL },
	{ "\"zone-a\"", "\"a/zone\"", "kubernetes.zone",
		"allowed: value of topology.kubernetes.io/zone", NULL },
	{ "\"edge\"", "\"Edge\"", "kubernetes.namespace", "allowed: 1..63 lower-case letters",
		NULL },
	{ "\"edge\"", "\"edge.x\"", "kubernetes.namespace", "allowed: 1..63 lower-case letters",
		NULL },
	{ "\"edge1.example.com\"", "\"edge1.\"", "kubernetes.node_name",
		"allowed: 1..58 lower-case letters", NULL },
	{ "\"edge1.example.com\"",
		"\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"",
		"kubernetes.node_name", "allowed: 1..58 lower-case letters", NULL },
	{ "\"example.com/vip\"", "\"vip\"", "kubernetes.finalizer",
		"and with the domain, or \"\" for none", NULL },
	{ "lease_duration = \"30s\"", "lease_duration = \"30500ms\"", "kubernetes.lease_duration",
		"allowed: time \"1s\"..\"1h\"", NULL },
	{ "lease_renew_deadline = \"20s\"", "lease_renew_deadline = \"30s\"",
		"kubernetes.lease_renew_deadline",
		"\"30s\" is not shorter than kubernetes.lease_duration; allowed: less than \"30s\"",
		NULL },
	{ "lease_retry = \"3s\"", "lease_retry = \"17s\"", "kubernetes.lease_retry",
		"1.2 times \"17s\" is not shorter than kubernetes.lease_renew_deadline \"20s\"",
		NULL },
	{ "lease_retry = \"3s\"", "lease_retry = 3", "kubernetes.lease_retry", "in quotes", NULL },
	{ "name = \"gold\";", "", "kubernetes.pools[0].name", "key is missing",
		"{\n\t\t\t\n\t\t\taddresses" },
	{ "\"gold\"", "\"Gold\"", "kubernetes.pools[0].name", "allowed: 1..63 lower-case letters",
		NULL },
	{ "\"rest\"", "\"gold\"", "kubernetes.pools[1].name",
		"is the name of kubernetes.pools[0] too; allowed: unique names",
		"\"gold\";\n\t\t\taddresses = [ \"203.0.113.16-" },
	{ "\"203.0.113.16-203.0.113.20\", \"203.0.113.30\"", "", "kubernetes.pools[1].addresses",
		"no address; allowed: 1..16 prefixes or ranges", "addresses = [  ]" },
	{ "\"203.0.113.30\"", "\"203.0.113.20/30\"", "kubernetes.pools[1].addresses[1]",
		"overlaps \"203.0.113.16-203.0.113.20\" of kubernetes.pools[1].addresses[0]; "
		"allowed: "
		"each address once",
		NULL },
	{ "\"203.0.113.30\"", "\"203.0.113.15\"", "kubernetes.pools[1].addresses[1]",
		"overlaps \"203.0.113.0/28\" of kubernetes.pools[0].addresses[0]", NULL },
	{ "\"203.0.113.30\"", "\"203.0.113.30/24\"", "kubernetes.pools[1].addresses[1]",
		"allowed: prefix \"192.0.2.0/28\" without host bits", NULL },
	{ "\"203.0.113.30\"", "\"203.0.113.30-203.0.113.29\"", "kubernetes.pools[1].addresses[1]",
		"lower end first", NULL },
	{ "\"203.0.113.30\"", "\"203.0.113.30-2001:db8::1\"", "kubernetes.pools[1].addresses[1]",
		"of one family", NULL },
	{ "\"203.0.113.30\"", "\"169.254.0.0/24\"", "kubernetes.pools[1].addresses[1]",
		"unicast addresses that can be routed to", NULL },
	{ "\"203.0.113.30\"", "\"224.0.0.1-224.0.0.9\"", "kubernetes.pools[1].addresses[1]",
		"unicast addresses that can be routed to", NULL },
	{ "\"203.0.113.30\"", "\"web.example.com\"", "kubernetes.pools[1].addresses[1]",
		"allowed: prefix", NULL },
	{ "\"203.0.113.30\"", "\"\"", "kubernetes.pools[1].addresses[1]", "allowed: text of 1..95",
		NULL },
	{ "priority = 5", "priority = 1000001", "kubernetes.pools[0].priority",
		"allowed: number 0..1000000", NULL },
	{ "auto_assign = false", "autoAssign = false", "kubernetes.pools[0].autoAssign",
		"unknown key, did you mean \"auto_assign\"?", NULL },
	{ "\"prod\"", "\"Prod\"", "kubernetes.pools[0].namespaces[0]",
		"allowed: 1..63 lower-case letters", NULL },
	{ "eal_args = [ \"--iova-mode=va\"", "eal_args = [ \"-a x\"", "memory.eal_args[0]",
		"allowed: one word of the EAL's", NULL },
	{ "eal_args = [ ",
		"eal_args = [ "
		"\"1\",\"2\",\"3\",\"4\",\"5\",\"6\",\"7\",\"8\",\"9\",\"10\",\"11\",\"12\",\"13\","
		"\"14\",\"15\",",
		"memory.eal_args", "17 entries: allowed: list of at most 16", NULL },
};

// The settings of a refused text are what they were.
static void assert_refused(const char *text, size_t len, struct error *err)
{
	static struct settings s, before;
	memset(&s, 0x5a, sizeof(s));
	memset(&before, 0x5a, sizeof(before));
	if (load(text, len, &s, err) == 0)
		fail_msg("taken: %.*s", (int)len, text);
	assert_memory_equal(&s, &before, sizeof(s));
	assert_true(err->n_items > 0);
}

static void test_edits(void **state)
{
	char *good = edits_read(GOOD);
	uint32_t n_wrong = 0;
	for (size_t i = 0; i < ARRAY_SIZE(edits); i++) {
		struct error err = { 0 };
		uint32_t line = 0;
		char *text = edits_apply(good, &edits[i], &line);
		assert_refused(text, strlen(text), &err);
		n_wrong += !edits_check(&edits[i], line, &err);
		error_fini(&err);
		free(text);
	}
	assert_int_equal(n_wrong, 0);
	printf("%zu invalidating edits\n", ARRAY_SIZE(edits));
	free(good);
}

static void test_all_at_once(void **state)
{
	static const struct edit together[] = {
		{ "mtu = 9000;", "mtu = 1;", "ports[0].mtu", "\"1\"", NULL },
		{ "name = \"p1\";", "name = \"p0\";", "ports[1].name", "ports[0] too",
			"name = \"p0\";\n\t\tdevice = \"0000" },
		{ "cores = \"2-5,8\"", "cors = \"2-5,8\"", "workers.cors", "cores", NULL },
		{ "\"192.0.2.2\"", "\"192.0.2.1\"", "snat.addresses[1]", "twice",
			"\"192.0.2.1\",\n\t\t\"2001" },
		{ "interval = \"2s\"", "interval = 2s", "health.interval", "quotes", NULL },
		{ "rise = 3;", "rise = 0;", "health.rise", "\"0\"", NULL },
		{ "\"edge\"", "\"Edge\"", "kubernetes.namespace", "lower-case", NULL },
	};
	struct error err = { 0 };
	char *text = edits_read(GOOD);
	uint32_t lines[ARRAY_SIZE(together)];
	for (size_t i = 0; i < ARRAY_SIZE(together); i++) {
		char *next = edits_apply(text, &together[i], &lines[i]);
		free(text);
		text = next;
	}
	assert_refused(text, strlen(text), &err);
	for (size_t i = 0; i < ARRAY_SIZE(together); i++)
		assert_true(edits_check(&together[i], lines[i], &err));
	assert_int_equal(err.n_items, ARRAY_SIZE(together));
	error_fini(&err);
	free(text);
}

// A refused key is not compared with others: no finding that would go away with the first.
static void test_no_false_findings(void **state)
{
	static const struct {
		const char *text;
		uint32_t n;
	} cases[] = {
		{ "ports = ( { name = 5; device = \"a\" }, { name = \"p0\"; device = \"b\" } );",
			1 },
		{ "ports = ( { name = \"a\"; }, { name = \"b\"; } );", 2 },
		{ "snat = { addresses = [ \"x\", \"y\" ]; };", 2 },
		{ "admin = { listen = ( { }, { } ); };", 6 },
		{ "health = { interval = \"x\"; timeout = \"30s\"; };", 1 },
		{ "health = { interval = \"300ms\"; timeout = \"x\"; };", 1 },
		{ "health = { timeout = \"2h\"; };", 1 },
		{ "kubernetes = { pools = ( 5, \"a\" ); };", 2 },
		{ "kubernetes = { pools = ( { name = \"a\"; addresses = [ \"x\", \"y\" ]; } ); };",
			2 },
		{ "kubernetes = { pools = ( { name = \"a\"; addresses = 5; } ); };", 1 },
		{ "kubernetes = { lease_duration = \"5s\"; };", 1 },
		{ "kubernetes = { lease_renew_deadline = \"x\"; lease_retry = \"1h\"; };", 1 },
		{ "health = { interval = \"300ms\"; };", 1 }, // the default timeout is longer
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct error err = { 0 };
		assert_refused(cases[i].text, strlen(cases[i].text), &err);
		assert_int_equal(err.n_items, cases[i].n);
		assert_int_equal(err.items[0].line, 1);
		error_fini(&err);
	}
}

static void test_files(void **state)
{
	static struct settings s;
	struct error err = { 0 };
	char path[] = "/tmp/sluice-settings-XXXXXX";
	assert_int_equal(settings_load("/nonexistent/sluice.conf", &s, &err), -ENOENT);
	assert_string_equal(err.items[0].file, "/nonexistent/sluice.conf");
	assert_int_equal(settings_load("/tmp", &s, &err), -EISDIR);
	int fd = mkstemp(path);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, "punt = { rate = 7; };\n\nx = 1;\n", 30), 30);
	error_fini(&err);
	assert_int_equal(settings_load(path, &s, &err), -EINVAL);
	assert_int_equal(err.n_items, 1);
	assert_string_equal(err.items[0].file, path);
	assert_int_equal(err.items[0].line, 3);
	assert_int_equal(ftruncate(fd, 21), 0);
	assert_int_equal(settings_load(path, &s, NULL), 0);
	assert_int_equal(s.punt_rate, 7);
	assert_int_equal(ftruncate(fd, SETTINGS_FILE_MAX + 1), 0);
	error_fini(&err);
	assert_int_equal(settings_load(path, &s, &err), -EFBIG);
	assert_non_null(strstr(err.items[0].text, "allowed: at most 1048576"));
	error_fini(&err);
	close(fd);
	unlink(path);
}

static void test_check_daemon(void **state)
{
	struct settings *s = load_good("admin = { socket = \"\"; };");
	struct error err = { 0 };
	assert_int_equal(settings_check_daemon(s, &err), -EINVAL);
	assert_int_equal(err.n_items, 3);
	assert_string_equal(err.items[0].path, "ports");
	assert_string_equal(err.items[1].path, "snat.addresses");
	assert_string_equal(err.items[2].path, "admin");
	error_fini(&err);
	free(s);
}

static void test_mutations(void **state)
{
	static const char *const tokens[] = { "{", "}", "(", ")", "[", "]", ";", ",", "=", ":",
		"\"", "\\", "\\x", "#", "//", "/*", "*/", "@include \"x\"", "true", "-1", "0x",
		"5000000000", "1e9", "\"auto\"", "\n", "((((", "\xff", "name = \"p0\";",
		"mtu = 1500;", "port = 1;", "\"a\" \"b\"", "L", NULL };
	static struct settings s, before;
	char *good = edits_read(GOOD);
	uint64_t random = SEED;
	uint32_t n_taken = 0;
	printf("seed 0x%x\n", SEED);
	memset(&before, 0x5a, sizeof(before));
	for (int i = 0; i < EDITS_MUTATIONS; i++) {
		struct error err = { 0 };
		size_t len = 0;
		char *text = edits_mutate(good, &random, tokens, &len);
		memset(&s, 0x5a, sizeof(s));
		if (load(text, len, &s, &err) == 0) {
			n_taken++;
			assert_int_equal(err.n_items, 0);
			assert_true(s.n_ports <= SETTINGS_PORTS_MAX);
			assert_true(s.snat.port_min <= s.snat.port_max && s.snat.port_min > 0);
		} else {
			assert_true(err.n_items > 0);
			assert_memory_equal(&s, &before, sizeof(s));
		}
		error_fini(&err);
		free(text);
	}
	printf("%d mutations, %u taken\n", EDITS_MUTATIONS, n_taken);
	assert_true(n_taken > 100 && n_taken < EDITS_MUTATIONS / 2); // both ways are walked
	free(good);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults),
		cmocka_unit_test(test_good),
		cmocka_unit_test(test_kubernetes),
		cmocka_unit_test(test_sample),
		cmocka_unit_test(test_print_loads),
		cmocka_unit_test(test_json),
		cmocka_unit_test(test_diff),
		cmocka_unit_test(test_edits),
		cmocka_unit_test(test_all_at_once),
		cmocka_unit_test(test_no_false_findings),
		cmocka_unit_test(test_files),
		cmocka_unit_test(test_check_daemon),
		cmocka_unit_test(test_mutations),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
