// SPDX-License-Identifier: BSD-3-Clause
// Control over a fake data plane: what is published when, what is refused, what survives a restart. No EAL, no sockets.
// The loop runs for real; where time decides, a test turns the loop until its condition holds (bounded), and never asserts
// how long that took.
#include "control_fake_priv.h"
#include "control_priv.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static struct control *control;
static char state_dir[64];
static struct control_probe started[64];
static uint32_t n_started, n_stopped;

static struct address address_of(const char *text)
{
	struct address a;
	assert_int_equal(address_parse(text, &a), 0);
	return a;
}

static void on_start(void *arg, const struct control_probe *probe)
{
	started[n_started++ % 64] = *probe;
}

static void on_stop(void *arg, uint32_t id)
{
	n_stopped++;
}

static void start(bool attach)
{
	struct control_config config = { .defaults = service_defaults_builtin(), .n_snat = 1 };
	struct log quiet = { .fd = 1, .level = LOG_LEVEL_ERROR };
	struct control_probe_hooks hooks = { on_start, on_stop };
	config.snat[0] = address_of("192.0.2.1");
	config.nexthop_capacity = 64;
	snprintf(config.state_dir, sizeof(config.state_dir), "%s", state_dir);
	assert_int_equal(control_create(&config, &quiet, &control, NULL), 0);
	n_started = n_stopped = 0;
	control_set_probe_hooks(control, &hooks, NULL);
	if (attach)
		assert_int_equal(control_attach(control, (struct device *)&fake,
					 (struct dataplane *)&fake, NULL),
			0);
}

static void stop(void)
{
	control_destroy(control);
	control = NULL;
}

static int setup(void **state)
{
	fake_reset();
	snprintf(state_dir, sizeof(state_dir), "/tmp/sluice-control-XXXXXX");
	assert_non_null(mkdtemp(state_dir));
	start(true);
	return 0;
}

static int teardown(void **state)
{
	char command[128];
	stop();
	fake_reset();
	snprintf(command, sizeof(command), "rm -rf '%s'", state_dir);
	return system(command);
}

static void turn(void)
{
	event_base_loop(control_base(control), EVLOOP_NONBLOCK);
}

// Turns the loop until the data plane has seen n publications.
static void turn_until_published(uint32_t n)
{
	for (int i = 0; i < 2000 && fake.n_published < n; i++) {
		turn();
		usleep(1000);
	}
	assert_int_equal(fake.n_published, n);
}

// Lets the coalescing time pass, so that the next change is a leading edge again.
static void settle(void)
{
	for (int i = 0; i < 2000 && evtimer_pending(control->coalesce, NULL); i++) {
		turn();
		usleep(1000);
	}
	assert_false(evtimer_pending(control->coalesce, NULL));
}

static struct service *service_of(const char *name, const char *vip, uint32_t n_backends)
{
	struct service_defaults defaults = service_defaults_builtin();
	struct service *s = service_create(&defaults);
	snprintf(s->namespace, sizeof(s->namespace), "default");
	snprintf(s->name, sizeof(s->name), "%s", name);
	s->owner = SERVICE_OWNER_API;
	*service_add_address(s) = address_of(vip);
	struct service_listener *l = service_add_listener(s);
	snprintf(l->name, sizeof(l->name), "http");
	l->protocol = NET_PROTO_TCP;
	l->port = l->port_max = 80;
	for (uint32_t i = 0; i < n_backends; i++) {
		char text[32];
		struct service_backend *b = service_add_backend(s);
		snprintf(text, sizeof(text), "10.9.0.%u", i + 2);
		b->address = address_of(text);
		b->weight = 100;
		b->conditions = (struct service_conditions){ true, true, false };
		struct service_backend_port *p = service_backend_add_port(b);
		snprintf(p->listener, sizeof(p->listener), "http");
		p->port = 8080;
	}
	service_normalise(s);
	return s;
}

static void put(const char *name, const char *vip, uint32_t n_backends)
{
	struct service *s = service_of(name, vip, n_backends);
	assert_int_equal(control_put_service(control, s, NULL, NULL), 0);
	service_destroy(s);
}

static uint32_t count_eligible(const char *vip)
{
	struct address a = address_of(vip);
	uint8_t kind;
	uint16_t slot = snapshot_find_own(fake.published, &a, &kind);
	if (slot == SNAPSHOT_SLOT_NONE)
		return UINT32_MAX;
	const struct snapshot_listener *l =
		snapshot_find_listener(fake.published, slot, NET_PROTO_TCP, 80);
	return l != NULL ? l->n_eligible : UINT32_MAX;
}

// ---------------------------------------------------------------- publication
static void test_leading_edge_and_followers(void **state)
{
	settle();
	uint32_t before = fake.n_published;
	put("a", "203.0.113.1", 2);
	assert_int_equal(fake.n_published, before + 1); // at once
	assert_int_equal(count_eligible("203.0.113.1"), 2);
	put("b", "203.0.113.2", 1);
	put("c", "203.0.113.3", 1);
	assert_int_equal(fake.n_published, before + 1); // these wait
	turn_until_published(before + 2);               // and go together
	assert_int_equal(count_eligible("203.0.113.2"), 1);
	assert_int_equal(count_eligible("203.0.113.3"), 1);
	settle();
	assert_int_equal(fake.n_published, before + 2);
}

static void test_equal_put_publishes_nothing(void **state)
{
	put("a", "203.0.113.1", 2);
	settle();
	uint32_t before = fake.n_published;
	bool changed = true;
	struct service *s = service_of("a", "203.0.113.1", 2);
	assert_int_equal(control_put_service(control, s, &changed, NULL), 0);
	service_destroy(s);
	assert_false(changed);
	settle();
	assert_int_equal(fake.n_published, before);
}

static void test_refused_changes_nothing(void **state)
{
	put("a", "203.0.113.1", 2);
	settle();
	uint32_t before = fake.n_published;
	uint64_t generation = service_store_generation(control_store(control));
	struct error err = { 0 };
	struct service *s = service_of("b", "192.0.2.1", 1); // the SNAT address
	assert_int_equal(control_put_service(control, s, NULL, &err), -EINVAL);
	assert_string_equal(err.items[0].path, "/spec/addresses/0");
	struct service *set[] = { s };
	assert_int_equal(
		control_replace_owner(control, SERVICE_OWNER_FILE, set, 1, NULL, &err), -EINVAL);
	service_destroy(s);
	error_fini(&err);
	assert_int_equal(service_store_count(control_store(control)), 1);
	assert_int_equal(service_store_generation(control_store(control)), generation);
	assert_int_equal(fake.n_published, before);
}

static void test_snapshot_freed_after_grace(void **state)
{
	put("a", "203.0.113.1", 1);
	settle();
	put("b", "203.0.113.2", 1);
	settle();
	assert_true(control->n_retired >= 2);
	fake.grace_done = fake.grace_next;
	for (int i = 0; i < 2000 && control->n_retired > 0; i++) {
		turn();
		usleep(1000);
	}
	assert_int_equal(control->n_retired, 0);
}

static void test_numbers_rest_before_reuse(void **state)
{
	put("a", "203.0.113.1", 1);
	settle();
	struct address vip = address_of("203.0.113.1");
	uint8_t kind;
	uint16_t slot = snapshot_find_own(fake.published, &vip, &kind);
	assert_int_equal(
		control_remove_service(control, "default", "a", SERVICE_OWNER_API, NULL), 0);
	settle();
	put("b", "203.0.113.2", 1);
	vip = address_of("203.0.113.2");
	assert_int_not_equal(snapshot_find_own(fake.published, &vip, &kind), slot);
	settle();
	// Two sweeps are not enough while a flow of the idle time could live; nor is the time alone.
	fake.sweeps += 2;
	control_publish_tick(control);
	assert_int_equal(control->n_releases, 1);
	control->releases[0].due_ns = 0;
	control->releases[0].sweeps = fake.sweeps;
	control_publish_tick(control);
	assert_int_equal(control->n_releases, 1);
	fake.sweeps += 2;
	control_publish_tick(control);
	assert_int_equal(control->n_releases, 0);
	put("c", "203.0.113.3", 1);
	settle();
	vip = address_of("203.0.113.3");
	assert_int_equal(snapshot_find_own(fake.published, &vip, &kind), slot);
}

// ---------------------------------------------------------------- probes
static void report(uint32_t idx, bool ok, const char *reason, int times)
{
	for (int i = 0; i < times; i++)
		control_probe_report(control, started[idx].id, ok, reason);
}

static void test_probe_shared_and_stopped(void **state)
{
	put("a", "203.0.113.1", 2);
	put("b", "203.0.113.2", 2); // the same endpoints, the same check
	settle();
	assert_int_equal(n_started, 2);
	control_remove_service(control, "default", "a", SERVICE_OWNER_API, NULL);
	settle();
	assert_int_equal(n_stopped, 0);
	control_remove_service(control, "default", "b", SERVICE_OWNER_API, NULL);
	settle();
	assert_int_equal(n_stopped, 2);
	// A report that was under way says nothing to the next probe at this index.
	put("c", "203.0.113.3", 2);
	settle();
	report(0, false, "connect: Connection refused", 5);
	assert_int_equal(count_eligible("203.0.113.3"), 2);
}

// No port of a range speaks for it; one that the service names does.
static void test_range_has_no_probe(void **state)
{
	struct service *s = service_of("a", "203.0.113.1", 1);
	s->listeners[0].port_max = 90;
	s->backends[0].ports[0].port = 80;
	assert_int_equal(control_put_service(control, s, NULL, NULL), 0);
	settle();
	assert_int_equal(n_started, 0);
	assert_int_equal(count_eligible("203.0.113.1"), 1);
	s->check.port = 8000;
	assert_int_equal(control_put_service(control, s, NULL, NULL), 0);
	settle();
	service_destroy(s);
	assert_int_equal(n_started, 1);
	assert_int_equal(started[0].port, 8000);
}

static bool first_status(void *arg, const struct control_backend_status *status)
{
	*(struct control_backend_status *)arg = *status;
	return false;
}

static void test_verdict_publishes_and_is_told(void **state)
{
	put("a", "203.0.113.1", 2);
	settle();
	uint32_t before = fake.n_published;
	report(0, true, "", 1);
	assert_int_equal(fake.n_published, before); // unknown counted as up
	struct control_backend_status early;
	control_each_backend(control, NULL, first_status, &early);
	control->memory[early.backend_id].since_ms = 5; // long ago
	report(0, false, "connect: Connection refused", 2);
	assert_int_equal(fake.n_published, before + 1);
	assert_int_equal(count_eligible("203.0.113.1"), 1);
	const struct control_event *events;
	uint32_t n = control_events(control, 0, &events, 64);
	assert_string_equal(events[n - 1].kind, "backend-down");
	assert_string_equal(events[n - 1].object, "default/a 10.9.0.2:8080");
	assert_string_equal(events[n - 1].text, "connect: Connection refused");
	struct control_backend_status status;
	control_each_backend(control, NULL, first_status, &status);
	assert_int_equal(status.state, HEALTH_DOWN);
	assert_false(status.eligible);
	assert_string_equal(status.verdict_active, "down");
	assert_true(status.since_ms > 5);
	settle();
	report(0, true, "", 2);
	assert_int_equal(count_eligible("203.0.113.1"), 2);
	n = control_events(control, 0, &events, 64);
	assert_string_equal(events[n - 1].kind, "backend-up");
}

static void test_edited_check_keeps_verdict(void **state)
{
	put("a", "203.0.113.1", 2);
	settle();
	report(0, false, "timeout after 500ms", 2);
	settle();
	struct service *s = service_of("a", "203.0.113.1", 2);
	s->check.interval_ms = 2000;
	assert_int_equal(control_put_service(control, s, NULL, NULL), 0);
	service_destroy(s);
	settle();
	assert_int_equal(n_stopped, 2);
	assert_int_equal(count_eligible("203.0.113.1"), 1);
}

static void test_udp_listener_has_no_tcp_probe(void **state)
{
	struct service *s = service_of("dns", "203.0.113.1", 1);
	s->listeners[0].protocol = NET_PROTO_UDP;
	assert_int_equal(control_put_service(control, s, NULL, NULL), 0);
	settle();
	assert_int_equal(n_started, 0);
	struct control_backend_status status;
	control_each_backend(control, NULL, first_status, &status);
	assert_string_equal(status.verdict_active, "off");
	s->check.port = 9153; // a port of its own makes it one
	assert_int_equal(control_put_service(control, s, NULL, NULL), 0);
	settle();
	service_destroy(s);
	assert_int_equal(n_started, 1);
	assert_int_equal(started[0].port, 9153);
}

// ---------------------------------------------------------------- overlay and state
static struct service_overlay drain_of(const char *address)
{
	struct service_overlay o = { .draining = true, .address = address_of(address) };
	snprintf(o.namespace, sizeof(o.namespace), "default");
	snprintf(o.name, sizeof(o.name), "a");
	snprintf(o.reason, sizeof(o.reason), "maintenance");
	return o;
}

static void test_drain_and_weight(void **state)
{
	put("a", "203.0.113.1", 3);
	settle();
	struct service_overlay o = drain_of("10.9.0.2");
	struct control_backend_status drained;
	control_each_backend(control, NULL, first_status, &drained);
	control->memory[drained.backend_id].since_ms = 5; // long ago
	assert_int_equal(control_put_overlay(control, &o, NULL), 0);
	control_each_backend(control, NULL, first_status, &drained);
	assert_int_equal(drained.state, HEALTH_DRAINING);
	assert_true(drained.since_ms > 5);
	settle();
	assert_int_equal(count_eligible("203.0.113.1"), 2);
	o.has_weight = true;
	o.weight = 7;
	assert_int_equal(control_put_overlay(control, &o, NULL), 0);
	assert_int_equal(
		control_clear_overlay(control, "default", "a", &o.address, 0, 'd', NULL), 0);
	settle();
	assert_int_equal(count_eligible("203.0.113.1"), 3);
	struct control_backend_status status;
	control_each_backend(control, NULL, first_status, &status);
	assert_int_equal(status.weight, 7);
	assert_int_equal(
		control_clear_overlay(control, "default", "a", &o.address, 0, 'd', NULL), -ENOENT);
	o.address = address_of("10.9.0.99");
	assert_int_equal(control_put_overlay(control, &o, NULL), -ENOENT);
}

static void test_deadline_purges_once(void **state)
{
	put("a", "203.0.113.1", 2);
	settle();
	struct service_overlay o = drain_of("10.9.0.2");
	o.deadline_ms = clock_wall_ms() - 1;
	o.reset_on_deadline = true;
	assert_int_equal(control_put_overlay(control, &o, NULL), 0);
	settle();
	control_deadlines_tick(control);
	control_deadlines_tick(control);
	assert_int_equal(fake.n_asked, 1);
	assert_int_equal(fake.asked[0].kind, DATAPLANE_PURGE);
	assert_int_equal(count_eligible("203.0.113.1"), 1); // the drain goes on
}

// What is said of the only backend of a service, put as it is.
static const char *reason_of(const struct service *s)
{
	static struct control_backend_status status;
	struct error err = { 0 };
	char line[512];
	if (control_put_service(control, s, NULL, &err) != 0)
		fail_msg("%s", error_first(&err, line, sizeof(line)));
	settle();
	control_each_backend(control, service_store_find(control->store, s->namespace, s->name),
		first_status, &status);
	assert_int_equal(status.eligible, count_eligible("203.0.113.1") == 1);
	return status.reason;
}

// The only SNAT address here is an IPv4 one.
static void test_way_is_told(void **state)
{
	struct service *s = service_of("a", "203.0.113.1", 1);
	assert_string_equal(reason_of(s), "ready, not probed yet");
	s->backends[0].address = address_of("2001:db8:9::2");
	assert_non_null(strstr(reason_of(s), "snat.addresses has no IPv6 address"));
	s->mode = SERVICE_MODE_DNAT;
	assert_non_null(strstr(reason_of(s), "no VIP of its family, and this mode cannot"));
	s->mode = SERVICE_MODE_IPIP;
	s->backends[0].ports[0].port = 80;
	assert_non_null(strstr(reason_of(s), "snat.addresses has no IPv6 address"));
	s->mode = SERVICE_MODE_L2DSR;
	assert_non_null(strstr(reason_of(s), "no VIP of its family, and this mode cannot"));
	s->backends[0].address = address_of("192.0.2.1");
	assert_non_null(strstr(reason_of(s), "no flows: it is a VIP or SNAT address of sluice"));
	s->backends[0].address = address_of("10.9.0.2");
	assert_non_null(strstr(reason_of(s), "it is on no link of sluice"));
	assert_int_equal(count_eligible("203.0.113.1"), 0);
	struct control_route route;
	memset(&route, 0, sizeof(route));
	prefix_parse("10.9.0.0/24", &route.prefix);
	control_set_routes(control, &route, 1); // now it is, and that publishes
	settle();
	assert_int_equal(count_eligible("203.0.113.1"), 1);
	assert_null(strstr(reason_of(s), "link"));
	s->mode = SERVICE_MODE_FULLNAT;
	*service_add_address(s) = address_of("2001:db8::1");
	service_normalise(s);
	assert_non_null(
		strstr(reason_of(s), "takes flows of IPv6 VIPs, since the service has no IPv6"));
	struct service_backend *b = service_add_backend(s);
	b->address = address_of("2001:db8:9::2");
	b->conditions.ready = b->conditions.serving = true;
	*service_backend_add_port(b) = (struct service_backend_port){ "http", 80 };
	assert_null(strstr(reason_of(s), "takes flows"));
	service_destroy(s);
}

// Flags of the row of 10.9.0.3 behind default/a.
static uint8_t removed_flags(void)
{
	struct address gone = address_of("10.9.0.3");
	uint32_t id;
	assert_int_equal(snapshot_registry_find_backend(
				 control->registry, "default/a", "http", &gone, 8080, &id),
		0);
	return fake.published->backends[id].flags;
}

// A backend that leaves the desired state: its flows may go on for the drain timeout, then a publication cuts them.
static void test_removed_backend_drains(void **state)
{
	struct service *s = service_of("a", "203.0.113.1", 2);
	s->drain_timeout_s = 1;
	assert_int_equal(control_put_service(control, s, NULL, NULL), 0);
	settle();
	put("a", "203.0.113.1", 1);
	settle();
	uint32_t n = fake.n_published;
	assert_int_equal(removed_flags(), 0);
	control_publish_tick(control);
	assert_int_equal(fake.n_published, n); // not yet
	usleep(1010000);
	control_publish_tick(control);
	assert_int_equal(fake.n_published, n + 1);
	assert_int_equal(removed_flags(), SNAPSHOT_BACKEND_RESET);
	settle();
	control_publish_tick(control);
	assert_int_equal(fake.n_published, n + 1); // once
	service_destroy(s);
}

// 65,535 addresses, each counted once: two are left here.
static void test_slots_are_counted(void **state)
{
	struct error err = { 0 };
	char line[512], text[32];
	struct service *set[2] = { service_of("a", "203.0.113.1", 1),
		service_of("b", "203.0.113.2", 1) };
	for (uint32_t i = 0; snapshot_registry_free_slots(control->registry) > 2; i++) {
		snprintf(text, sizeof(text), "10.%u.%u.%u", 10 + i / 40000, i % 40000 / 200,
			i % 200);
		struct address a = address_of(text);
		uint16_t slot;
		assert_int_equal(snapshot_registry_slot(control->registry, &a, &slot), 0);
	}
	set[0]->mode = set[1]->mode = SERVICE_MODE_DNAT; // two VIPs and one backend
	assert_int_equal(
		control_replace_owner(control, SERVICE_OWNER_FILE, set, 2, NULL, &err), -EINVAL);
	assert_string_equal(err.items[0].path, "addresses");
	assert_non_null(strstr(
		error_first(&err, line, sizeof(line)), "3 more addresses than are known already"));
	error_fini(&err);
	*service_add_address(set[0]) = address_of("203.0.113.2");
	assert_int_equal(control_put_service(control, set[0], NULL, &err), -EINVAL);
	assert_string_equal(err.items[0].path, "/spec/addresses");
	error_fini(&err);
	set[0]->n_addresses = 1;
	set[1]->addresses[0] = set[0]->addresses[0]; // the same VIP, another port
	set[1]->listeners[0].port = set[1]->listeners[0].port_max = 81;
	assert_int_equal(control_replace_owner(control, SERVICE_OWNER_FILE, set, 2, NULL, &err), 0);
	assert_int_equal(snapshot_registry_free_slots(control->registry), 0);
	assert_int_equal(count_eligible("203.0.113.1"), 1);
	service_destroy(set[0]);
	service_destroy(set[1]);
}

static void test_state_survives_restart(void **state)
{
	put("a", "203.0.113.1", 2);
	struct service_overlay o = drain_of("10.9.0.2");
	o.deadline_ms = 4102444800123;
	assert_int_equal(control_put_overlay(control, &o, NULL), 0);
	stop();
	start(false);
	assert_int_equal(control_load_state(control, NULL), 0);
	struct service *s = service_of("a", "203.0.113.1", 2);
	const struct service *kept = service_store_find(control_store(control), "default", "a");
	assert_non_null(kept);
	assert_true(service_equal(kept, s));
	service_destroy(s);
	assert_int_equal(service_store_overlay_count(control_store(control)), 1);
	const struct service_overlay *k = service_store_overlay_at(control_store(control), 0);
	assert_true(k->draining);
	assert_int_equal(k->deadline_ms, 4102444800123);
	assert_string_equal(k->reason, "maintenance");
}

static void write_file(const char *name, const char *text)
{
	char path[128];
	snprintf(path, sizeof(path), "%s/%s", state_dir, name);
	FILE *f = fopen(path, "w");
	fputs(text, f);
	fclose(f);
}

static void test_broken_state_set_aside(void **state)
{
	put("a", "203.0.113.1", 1);
	stop();
	write_file("overlays.json", "{\"version\": 1, \"items\": [");
	start(false);
	struct error err = { 0 };
	assert_int_equal(control_load_state(control, &err), -EINVAL);
	assert_true(err.n_items == 1);
	error_fini(&err);
	assert_int_equal(service_store_count(control_store(control)), 1); // the rest is loaded
	char path[128];
	snprintf(path, sizeof(path), "%s/overlays.json.broken", state_dir);
	assert_int_equal(access(path, F_OK), 0);
	const struct control_event *events;
	assert_true(control_events(control, 0, &events, 8) >= 1);
	assert_string_equal(events[0].kind, "state-broken");
}

static void test_bad_item_does_not_take_others(void **state)
{
	put("a", "203.0.113.1", 1);
	json_t *good = control_service_to_json(service_store_at(control_store(control), 0));
	char *text = json_dumps(good, 0);
	json_decref(good);
	stop();
	char document[4096];
	snprintf(document, sizeof(document), "{\"version\": 1, \"items\": [{\"spec\": 3}, %s]}",
		text);
	free(text);
	write_file("services.json", document);
	start(false);
	struct error err = { 0 };
	assert_int_equal(control_load_state(control, &err), -EINVAL);
	error_fini(&err);
	assert_int_equal(service_store_count(control_store(control)), 1);
	char path[128];
	snprintf(path, sizeof(path), "%s/services.json.broken", state_dir);
	assert_int_equal(access(path, F_OK), 0); // nothing is thrown away
	stop();
	start(false);
	assert_int_equal(
		control_load_state(control, NULL), 0); // and what is good was written again
	assert_int_equal(service_store_count(control_store(control)), 1);
}

static void test_unwritable_state_keeps_running(void **state)
{
	stop();
	rmdir(state_dir);
	snprintf(state_dir, sizeof(state_dir), "/proc/sluice-none");
	start(true);
	put("a", "203.0.113.1", 1);
	assert_int_equal(count_eligible("203.0.113.1"), 1);
	const struct control_event *events;
	uint32_t n = control_events(control, 0, &events, 8);
	bool told = false;
	for (uint32_t i = 0; i < n; i++)
		told |= strcmp(events[i].kind, "state-not-kept") == 0;
	assert_true(told);
}

// ---------------------------------------------------------------- next hops
static const struct mac MAC_A = { { 2, 0, 0, 0, 0, 10 } }, MAC_B = { { 2, 0, 0, 0, 0, 11 } };

static void set_on_link(const char *prefix)
{
	struct control_route route;
	memset(&route, 0, sizeof(route));
	assert_int_equal(prefix_parse(prefix, &route.prefix), 0);
	control_set_routes(control, &route, 1);
}

static struct nexthop_answer find(const char *text)
{
	struct address a = address_of(text);
	return nexthop_find(fake.published->fib, &a);
}

static uint32_t n_resolved;
static void on_resolve(void *arg, uint8_t port_idx, const struct address *address)
{
	n_resolved++;
}

static void test_backend_has_entry_at_once(void **state)
{
	struct control_nexthop_hooks hooks = { .resolve = on_resolve };
	n_resolved = 0;
	control_set_nexthop_hooks(control, &hooks, NULL);
	set_on_link("10.9.0.0/24");
	settle();
	assert_int_equal(find("10.9.0.2").nexthop, NEXTHOP_MISSING);
	put("a", "203.0.113.1", 1);
	settle();
	assert_int_equal(n_resolved, 1);
	uint16_t idx = find("10.9.0.2").nexthop;
	assert_true(idx < NEXTHOP_MAX);
	struct nexthop_table table = control_nexthop_table(control);
	assert_int_equal(nexthop_word_state(nexthop_load(&table, idx)), NEXTHOP_INCOMPLETE);
	uint32_t before = fake.n_published;
	struct address a = address_of("10.9.0.2");
	control_set_neighbour(control, 0, &a, &MAC_A, NEXTHOP_VALID);
	control_set_neighbour(control, 0, &a, &MAC_B, NEXTHOP_VALID);
	settle();
	assert_int_equal(fake.n_published, before); // a MAC is a store, not a publication
	assert_int_equal(nexthop_load(&table, idx), nexthop_word(&MAC_B, 0, NEXTHOP_VALID));
	control_set_neighbour(control, 0, &a, NULL, NEXTHOP_INCOMPLETE);
	control_set_neighbour(control, 0, &a, NULL, NEXTHOP_UNUSED);
	assert_int_equal(nexthop_load(&table, idx), nexthop_word(&MAC_B, 0, NEXTHOP_VALID));
	control_set_neighbour(control, 0, &a, NULL, NEXTHOP_FAILED);
	assert_int_equal(nexthop_word_state(nexthop_load(&table, idx)), NEXTHOP_FAILED);
}

static void on_resolve_tell(void *arg, uint8_t port_idx, const struct address *address)
{
	control_set_neighbour(control, port_idx, address, &MAC_A, NEXTHOP_VALID);
}

// The kernel knew the neighbours before there was a use for them: they are told within the publication that asks for them, which
// takes that along. A second one inside the first would retire the same snapshot twice.
static void test_neighbour_told_while_publishing(void **state)
{
	struct control_nexthop_hooks hooks = { .resolve = on_resolve_tell };
	control_set_nexthop_hooks(control, &hooks, NULL);
	set_on_link("10.9.0.0/24");
	settle();
	uint32_t before = fake.n_published;
	put("a", "203.0.113.1", 2);
	settle();
	assert_int_equal(fake.n_published, before + 1);
	assert_int_equal(control->n_retired, fake.n_published - 1);
	for (uint32_t i = 1; i < control->n_retired; i++)
		assert_ptr_not_equal(
			control->retired[i].snapshot, control->retired[i - 1].snapshot);
	struct nexthop_table table = control_nexthop_table(control);
	for (uint32_t i = 2; i < 4; i++) {
		char text[32];
		snprintf(text, sizeof(text), "10.9.0.%u", i);
		uint16_t idx = find(text).nexthop;
		assert_true(idx < NEXTHOP_MAX);
		assert_int_equal(nexthop_word_state(nexthop_load(&table, idx)), NEXTHOP_VALID);
	}
	fake.grace_done = fake.grace_next;
	for (int i = 0; i < 2000 && control->n_retired; i++) {
		turn();
		usleep(1000);
	}
	assert_int_equal(control->n_retired, 0);
}

// Two new gateways, known already: what is published has the routes of both.
static void test_gateways_told_at_once(void **state)
{
	struct control_nexthop_hooks hooks = { .resolve = on_resolve_tell };
	struct control_route routes[3];
	memset(routes, 0, sizeof(routes));
	prefix_parse("10.9.0.0/24", &routes[0].prefix);
	prefix_parse("198.18.0.0/15", &routes[1].prefix);
	routes[1].gateway = address_of("10.9.0.253");
	prefix_parse("0.0.0.0/0", &routes[2].prefix);
	routes[2].gateway = address_of("10.9.0.254");
	control_set_nexthop_hooks(control, &hooks, NULL);
	settle();
	uint32_t before = fake.n_published;
	control_set_routes(control, routes, 3);
	assert_int_equal(fake.n_published, before + 1);
	assert_true(find("198.18.0.1").nexthop < NEXTHOP_MAX);
	assert_true(find("198.51.100.7").nexthop < NEXTHOP_MAX);
}

static void test_gateway(void **state)
{
	struct control_route routes[3];
	memset(routes, 0, sizeof(routes));
	prefix_parse("10.9.0.0/24", &routes[0].prefix);
	prefix_parse("198.18.0.0/15", &routes[2].prefix);
	routes[2].port_idx = CONTROL_ROUTE_NOWHERE;
	prefix_parse("0.0.0.0/0", &routes[1].prefix);
	routes[1].gateway = address_of("10.9.0.254");
	control_set_routes(control, routes, 3);
	settle();
	assert_int_equal(find("198.18.0.1").nexthop, NEXTHOP_NONE);
	uint16_t idx = find("198.51.100.7").nexthop;
	assert_true(idx < NEXTHOP_MAX);
	assert_int_equal(find("10.9.0.254").nexthop, idx);
	struct dataplane_wanted in_use[4];
	assert_int_equal(control_nexthops_in_use(control, in_use, 4), 1);
}

static void want(const char *text)
{
	fake.wanted[fake.n_wanted++] = (struct dataplane_wanted){ address_of(text), 0 };
	fake_wake();
	turn();
}

static void test_client_entry(void **state)
{
	set_on_link("10.9.0.0/24");
	settle();
	uint32_t before = fake.n_published;
	want("10.9.0.77");
	want("10.8.0.1"); // not on this link
	settle();
	assert_int_equal(control->n_live_hops, 1);
	assert_int_equal(fake.n_published, before); // no MAC, no FIB
	struct address a = address_of("10.9.0.77");
	control_set_neighbour(control, 0, &a, &MAC_A, NEXTHOP_VALID);
	assert_int_equal(fake.n_published, before + 1);
	uint16_t idx = find("10.9.0.77").nexthop;
	assert_true(idx < NEXTHOP_MAX);
	settle();
	// Not asked for for long: it leaves the FIB, its index rests, and comes back as the same.
	control->hops[idx].wanted_ns -= 31 * 60 * CLOCK_S;
	control_hops_tick(control);
	settle();
	assert_int_equal(find("10.9.0.77").nexthop, NEXTHOP_MISSING);
	want("10.9.0.77");
	settle();
	assert_int_equal(find("10.9.0.77").nexthop, idx);
}

static void test_failed_client_is_reclaimed(void **state)
{
	set_on_link("10.9.0.0/24");
	for (uint32_t i = 0; i < 64; i++) {
		char text[32];
		snprintf(text, sizeof(text), "10.9.0.%u", 100 + i);
		want(text);
	}
	assert_int_equal(control->n_live_hops, 64);
	put("a", "203.0.113.1", 1); // finds no index
	settle();
	assert_int_equal(find("10.9.0.2").nexthop, NEXTHOP_MISSING);
	for (uint32_t i = 0; i < 64; i++) {
		struct address a = control->hops_table.entries[i].address;
		control_set_neighbour(control, 0, &a, NULL, NEXTHOP_FAILED);
		control->hops[i].failed_ns -= 11 * CLOCK_S;
	}
	for (int i = 0; i < 20; i++)
		control_hops_tick(control);
	settle();
	assert_true(find("10.9.0.2").nexthop < NEXTHOP_MAX);
	assert_int_equal(control->n_live_hops, 1);
}

// ---------------------------------------------------------------- questions
static uint32_t n_told;
static uint64_t told_next;
static uint32_t told_n, told_worker;
static bool told_null;

static void on_explained(void *arg, const struct pipeline_explanation *x, uint16_t worker_idx)
{
	n_told++;
	told_null = x == NULL;
	told_worker = worker_idx;
}

static void on_listed(void *arg, const struct control_flow *flows, uint32_t n, uint64_t next)
{
	n_told++;
	told_n = n;
	told_next = next;
}

static void test_explain_prefers_the_flow(void **state)
{
	fake.n_workers = 3;
	n_told = 0;
	struct pipeline_question question = { .dst_port = 80 };
	assert_int_equal(control_explain(control, &question, on_explained, NULL), 0);
	assert_int_equal(fake.n_asked, 3);
	for (uint16_t i = 0; i < 3; i++) {
		struct dataplane_reply *r = calloc(1, sizeof(*r));
		r->kind = DATAPLANE_EXPLAIN;
		r->worker_idx = i;
		r->cookie = fake.asked[i].cookie;
		r->explanation.flow_idx = i == 1 ? 5 : FLOW_NONE;
		fake_reply(r);
	}
	turn();
	assert_int_equal(n_told, 1);
	assert_false(told_null);
	assert_int_equal(told_worker, 1);
}

static void test_silent_worker(void **state)
{
	n_told = 0;
	struct pipeline_question question = { .dst_port = 80 };
	assert_int_equal(control_explain(control, &question, on_explained, NULL), 0);
	for (int i = 0; i < 5000 && n_told == 0; i++) {
		turn();
		usleep(1000);
	}
	assert_int_equal(n_told, 1);
	assert_true(told_null);
	// The late answer finds nobody.
	struct dataplane_reply *r = calloc(1, sizeof(*r));
	r->cookie = fake.asked[0].cookie;
	fake_reply(r);
	turn();
	assert_int_equal(n_told, 1);
}

static void reply_flows(uint32_t asked_idx, uint32_t n, uint32_t next)
{
	struct dataplane_reply *r = calloc(1, sizeof(*r));
	r->kind = DATAPLANE_FLOWS;
	r->cookie = fake.asked[asked_idx].cookie;
	r->worker_idx = (uint16_t)fake.asked_worker[asked_idx];
	r->n_flows = n;
	r->next_cursor = next;
	fake_reply(r);
	turn();
}

static void test_flows_over_workers(void **state)
{
	fake.n_workers = 2;
	n_told = 0;
	struct dataplane_flow_filter filter = { 0 };
	assert_int_equal(control_flows(control, &filter, 0, 100, on_listed, NULL), 0);
	reply_flows(0, 64, 500);
	assert_int_equal(fake.asked[1].cursor, 500);
	reply_flows(1, 20, FLOW_NONE);
	assert_int_equal(fake.asked_worker[2], 1);
	reply_flows(2, 64, 900); // 16 fit
	assert_int_equal(n_told, 1);
	assert_int_equal(told_n, 100);
	// Goes on after the 16th match of that very answer.
	assert_int_equal(control_flows(control, &filter, told_next, 100, on_listed, NULL), 0);
	assert_int_equal(fake.asked[3].cursor, 0);
	reply_flows(3, 64, 900);
	reply_flows(4, 3, FLOW_NONE);
	assert_int_equal(n_told, 2);
	assert_int_equal(told_n, 48 + 3);
	assert_int_equal(told_next, 0);
}

static void test_events_ring(void **state)
{
	for (int i = 0; i < 3000; i++)
		control_note(control, LOG_LEVEL_DEBUG, "test", "", "%d", i);
	const struct control_event *events;
	uint64_t last = 0;
	uint32_t n, n_all = 0;
	while ((n = control_events(control, last, &events, 300)) > 0) {
		assert_true(n <= 300);
		for (uint32_t i = 0; i < n; i++) {
			assert_true(n_all == 0 || events[i].id == last + 1);
			last = events[i].id;
			n_all++;
		}
	}
	assert_int_equal(n_all, 1024);
	assert_int_equal(last, control->n_events);
	control_events(control, last - 1, &events, 1);
	assert_string_equal(events[0].text, "2999");
	assert_int_equal(control_events(control, UINT64_MAX, &events, 1), 0);
}

#define CASE(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(test_leading_edge_and_followers),
		CASE(test_equal_put_publishes_nothing),
		CASE(test_refused_changes_nothing),
		CASE(test_snapshot_freed_after_grace),
		CASE(test_numbers_rest_before_reuse),
		CASE(test_probe_shared_and_stopped),
		CASE(test_verdict_publishes_and_is_told),
		CASE(test_edited_check_keeps_verdict),
		CASE(test_udp_listener_has_no_tcp_probe),
		CASE(test_range_has_no_probe),
		CASE(test_drain_and_weight),
		CASE(test_way_is_told),
		CASE(test_removed_backend_drains),
		CASE(test_slots_are_counted),
		CASE(test_deadline_purges_once),
		CASE(test_state_survives_restart),
		CASE(test_broken_state_set_aside),
		CASE(test_bad_item_does_not_take_others),
		CASE(test_unwritable_state_keeps_running),
		CASE(test_backend_has_entry_at_once),
		CASE(test_neighbour_told_while_publishing),
		CASE(test_gateways_told_at_once),
		CASE(test_gateway),
		CASE(test_client_entry),
		CASE(test_failed_client_is_reclaimed),
		CASE(test_explain_prefers_the_flow),
		CASE(test_silent_worker),
		CASE(test_flows_over_workers),
		CASE(test_events_ring),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
