// SPDX-License-Identifier: BSD-3-Clause
// The JSON codec: what goes out comes back equal, what is wrong is refused with its pointer.
#include "control.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

static const char GOOD[] =
	"{'metadata': {'namespace': 'default', 'name': 'web'},"
	" 'spec': {'addresses': ['203.0.113.10', '2001:db8::10'],"
	"  'listeners': [{'name': 'http', 'protocol': 'TCP', 'port': 80},"
	"   {'name': 'dns', 'protocol': 'UDP', 'port': 53, 'portMax': 53}],"
	"  'sessionAffinity': {'timeout': '3h'}, 'sourceRanges': ['198.51.100.0/24', '0.0.0.0/0'],"
	"  'healthCheck': {'kind': 'http', 'path': '/healthz', 'interval': '2s', 'timeout': "
	"'250ms',"
	"   'rise': 3, 'fall': 4, 'port': 8081},"
	"  'idleTimeout': {'tcp': '15m', 'udp': '90s'}, 'drainTimeout': '1m',"
	"  'backends': [{'address': '10.9.0.2', 'ports': {'http': 8080, 'dns': 5353}, 'weight': "
	"50},"
	"   {'address': '10.9.0.3', 'ports': {'http': 8080},"
	"    'conditions': {'ready': false, 'serving': true, 'terminating': true}},"
	"   {'address': '10.9.0.4'}]},"
	" 'status': {'anything': 1}}";

// JSON with ' for ".
static json_t *parse(const char *text)
{
	char *copy = strdup(text);
	for (char *p = copy; *p != '\0'; p++)
		*p = *p == '\'' ? '"' : *p;
	json_error_t at;
	json_t *value = json_loads(copy, JSON_REJECT_DUPLICATES, &at);
	if (value == NULL)
		print_error("line %d: %s in %s\n", at.line, at.text, copy);
	free(copy);
	assert_non_null(value);
	return value;
}

static struct service *decode(const json_t *body, struct error *err)
{
	struct service_defaults defaults = service_defaults_builtin();
	return control_service_from_json(body, &defaults, err);
}

static void test_round_trip(void **state)
{
	struct error err = { 0 };
	json_t *body = parse(GOOD);
	struct service *s = decode(body, &err);
	assert_int_equal(err.n_items, 0);
	assert_non_null(s);
	assert_int_equal(s->owner, SERVICE_OWNER_API);
	assert_int_equal(s->affinity_s, 3 * 3600);
	assert_int_equal(s->check.timeout_ms, 250);
	assert_int_equal(s->check.port, 8081);
	assert_int_equal(s->udp_idle_s, 90);
	assert_int_equal(s->backends[0].weight, 50);
	assert_int_equal(s->backends[1].weight, SERVICE_WEIGHT_DEFAULT);
	assert_true(s->backends[1].conditions.terminating);
	assert_int_equal(s->backends[2].n_ports, 2); // every listener's own
	json_t *out = control_service_to_json(s);
	struct service *again = decode(out, &err);
	assert_non_null(again);
	assert_true(service_equal(s, again));
	json_t *out_again = control_service_to_json(again);
	assert_true(json_equal(out, out_again));
	json_decref(out_again);
	json_decref(out);
	json_decref(body);
	service_destroy(again);
	service_destroy(s);
}

// Each edit sets a value (NULL: an unknown field) at a place of GOOD; the first finding must be at `pointer` and name `says`.
struct edit {
	const char *path; // members and indices by '/'
	const char *value;
	const char *pointer;
	const char *says;
};

static const struct edit edits[] = {
	{ "metadata", "3", "/metadata", "3 is not an object" },
	{ "metadata/name", "7", "/metadata/name", "7 is not a string" },
	{ "metadata/nmae", "'x'", "/metadata/nmae", "did you mean \"name\"" },
	{ "metadata/managedBy", "'me'", "/metadata/managedBy", "kubernetes, file, api" },
	{ "metadata/generation", "-1", "/metadata/generation", "-1" },
	{ "spec", "[]", "/spec", "is not an object" },
	{ "sepc", "{}", "/sepc", "did you mean \"spec\"" },
	{ "spec/addresses", "'203.0.113.10'", "/spec/addresses", "is not a list" },
	{ "spec/addresses/0", "'203.0.113.300'", "/spec/addresses/0", "\"203.0.113.300\"" },
	{ "spec/addresses/1", "12", "/spec/addresses/1", "12 is not" },
	{ "spec/listeners/0/port", "70000", "/spec/listeners/0/port", "70000 not in 1..65535" },
	{ "spec/listeners/0/port", "0", "/spec/listeners/0/port", "0 not in 1..65535" },
	{ "spec/listeners/0/port", "80.0", "/spec/listeners/0/port", "80.0 is not an integer" },
	{ "spec/listeners/0/port", "'80'", "/spec/listeners/0/port", "is not an integer" },
	{ "spec/listeners/0/port", "null", "/spec/listeners/0/port", "missing" },
	{ "spec/listeners/1/portMax", "52", "/spec/listeners/1/portMax", "52 not in 53..65535" },
	{ "spec/listeners/0/protocol", "'ICMP'", "/spec/listeners/0/protocol", "\"ICMP\"" },
	{ "spec/listeners/0", "80", "/spec/listeners/0", "is not an object" },
	{ "spec/mode", "'nat'", "/spec/mode", "fullnat, dnat" },
	{ "spec/mode", "'gue'", "/spec/backends/0/ports/http", "mode gue does not change" },
	{ "spec/listeners/0/portMax", "90", "/spec/backends/0/ports/http", "a range of ports" },
	{ "spec/scheduler", "1", "/spec/scheduler", "maglev" },
	{ "spec/clientAddress", "'xff'", "/spec/clientAddress", "none, toa" },
	{ "spec/sessionAffinity/timeout", "'2d'", "/spec/sessionAffinity/timeout", "\"2d\"" },
	{ "spec/sessionAffinity/timeout", "'25h'", "/spec/sessionAffinity/timeout",
		"not in 1s..24h" },
	{ "spec/sourceRanges/0", "'198.51.100.1/24'", "/spec/sourceRanges/0", "198.51.100.1/24" },
	{ "spec/healthCheck/kind", "'ping'", "/spec/healthCheck/kind", "tcp, http" },
	{ "spec/healthCheck/interval", "1000", "/spec/healthCheck/interval", "is not a duration" },
	{ "spec/healthCheck/interval", "'1ms'", "/spec/healthCheck/interval", "not in 100ms..1h" },
	{ "spec/healthCheck/interval", "'1us'", "/spec/healthCheck/interval", "steps of 1ms" },
	{ "spec/healthCheck/rise", "11", "/spec/healthCheck/rise", "11 not in 1..10" },
	{ "spec/healthCheck/fall", "true", "/spec/healthCheck/fall", "true is not an integer" },
	{ "spec/healthCheck/port", "99999", "/spec/healthCheck/port", "99999 not in 1..65535" },
	{ "spec/idleTimeout/tcp", "'500ms'", "/spec/idleTimeout/tcp", "steps of 1s" },
	{ "spec/idleTimeout/udp", "'1500ms'", "/spec/idleTimeout/udp", "steps of 1s" },
	{ "spec/drainTimeout", "''", "/spec/drainTimeout", "is not a duration" },
	{ "spec/backends/0/address", "'ten'", "/spec/backends/0/address", "\"ten\"" },
	{ "spec/backends/0/address", "null", "/spec/backends/0/address", "missing" },
	{ "spec/backends/0/weight", "65536", "/spec/backends/0/weight", "65536 not in 0..65535" },
	{ "spec/backends/0/ports/htpp", "80", "/spec/backends/0/ports/htpp", "no listener" },
	{ "spec/backends/0/ports/http", "-1", "/spec/backends/0/ports/http", "-1 not in" },
	{ "spec/backends/0/ports", "[]", "/spec/backends/0/ports", "is not an object" },
	{ "spec/backends/1/conditions/ready", "1", "/spec/backends/1/conditions/ready",
		"true or false" },
	{ "spec/backends/1/conditions/raedy", "true", "/spec/backends/1/conditions/raedy",
		"\"ready\"" },
	{ "spec/backends/0/a~1b", "1", "/spec/backends/0/a~01b", "unknown field" },
	{ "spec/zzz", "1", "/spec/zzz", "allowed: addresses" },
};

static void set_at(json_t *at, const char *path, json_t *value)
{
	char word[64];
	const char *slash = strchr(path, '/');
	snprintf(word, sizeof(word), "%.*s", slash ? (int)(slash - path) : 63, path);
	if (slash != NULL)
		set_at(json_is_array(at) ? json_array_get(at, (size_t)atoi(word))
					 : json_object_get(at, word),
			slash + 1, value);
	else if (json_is_array(at))
		json_array_set_new(at, (size_t)atoi(word), value);
	else
		json_object_set_new(at, word, value);
}

static void test_edits_refused(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(edits); i++) {
		char text[128];
		struct error err = { 0 };
		json_t *body = parse(GOOD);
		snprintf(text, sizeof(text), "[%s]", edits[i].value);
		json_t *list = parse(text);
		set_at(body, edits[i].path, json_incref(json_array_get(list, 0)));
		struct service *s = decode(body, &err);
		if (s != NULL || err.n_items == 0 ||
			strcmp(err.items[0].path, edits[i].pointer) != 0 ||
			strstr(err.items[0].text, edits[i].says) == NULL)
			fail_msg("%s = %s: got %s: %s", edits[i].path, edits[i].value,
				err.n_items ? err.items[0].path : "(nothing)",
				err.n_items ? err.items[0].text : "");
		error_fini(&err);
		json_decref(list);
		json_decref(body);
	}
}

static void test_all_findings(void **state)
{
	struct error err = { 0 };
	json_t *body = parse(
		"{'metadata': {'name': 'x'}, 'spec': {'listeners': [{'port': 0}, 7], 'mode': 1}}");
	assert_null(decode(body, &err));
	assert_int_equal(err.n_items, 4);
	error_fini(&err);
	assert_null(decode(body, NULL)); // nobody wants to know
	json_decref(body);
}

static void test_overlay_round_trip(void **state)
{
	struct service_overlay o = { .port = 8080,
		.draining = true,
		.since_ms = 1767225600123,
		.deadline_ms = 1767229200000,
		.reset_on_deadline = true,
		.has_weight = true,
		.weight = 3,
		.reason = "disk \"A\"",
		.namespace = "default",
		.name = "web" };
	address_parse("2001:db8::5", &o.address);
	json_t *value = control_overlay_to_json(&o);
	struct service_overlay back;
	memset(&back, 0xee, sizeof(back));
	assert_int_equal(control_overlay_from_json(value, &back, NULL), 0);
	assert_memory_equal(&back.address, &o.address, sizeof(o.address));
	assert_int_equal(back.since_ms, o.since_ms);
	assert_int_equal(back.deadline_ms, o.deadline_ms);
	assert_true(back.reset_on_deadline && back.draining && back.has_weight);
	assert_int_equal(back.weight, 3);
	assert_int_equal(back.port, 8080);
	assert_string_equal(back.reason, o.reason);
	json_decref(value);
}

static void test_deadline(void **state)
{
	int64_t at = 7;
	assert_int_equal(control_parse_deadline("5m", 1000, &at), 0);
	assert_int_equal(at, 301000);
	assert_int_equal(control_parse_deadline("2026-01-01T00:00:00Z", 0, &at), 0);
	assert_int_equal(at, 1767225600000);
	assert_int_equal(control_parse_deadline("2026-01-01T00:00:00.5Z", 0, &at), 0);
	assert_int_equal(at, 1767225600500);
	static const char *const bad[] = { "", "tomorrow", "2026-01-01", "2026-01-01T00:00:00",
		"2026-01-01T00:00:00+01:00", "2026-01-01T00:00:00Zx", "-5m" };
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(control_parse_deadline(bad[i], 0, &at), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_edits_refused),
		cmocka_unit_test(test_all_findings),
		cmocka_unit_test(test_overlay_round_trip),
		cmocka_unit_test(test_deadline),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
