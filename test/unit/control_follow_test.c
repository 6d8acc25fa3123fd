// SPDX-License-Identifier: BSD-3-Clause
// A change of a few services makes control look at these alone. What probes run, which neighbours have entries and what is
// published must be as if it had looked at everything.
#include "control_fake_priv.h"
#include "control_priv.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#define N_SERVICES 6

static struct control *control;
static uint32_t n_hooks;

static void on_start(void *arg, const struct control_probe *probe)
{
	n_hooks++;
}

static void on_stop(void *arg, uint32_t id)
{
	n_hooks++;
}

// Own addresses as they were told last.
static struct address told[64];
static uint32_t n_said;

static void on_addresses(void *arg)
{
	n_said = control_own_addresses(control, told, ARRAY_SIZE(told));
}

static void assert_addresses_told(void)
{
	struct address now[ARRAY_SIZE(told)];
	assert_int_equal(control_own_addresses(control, now, ARRAY_SIZE(now)), n_said);
	assert_memory_equal(now, told, n_said * sizeof(now[0]));
}

static int setup(void **state)
{
	struct control_config config = {
		.defaults = service_defaults_builtin(), .n_snat = 1, .nexthop_capacity = 64
	};
	struct log quiet = { .fd = 1, .level = LOG_LEVEL_ERROR };
	struct control_probe_hooks hooks = { on_start, on_stop };
	fake_reset();
	n_said = 0;
	address_parse("192.0.2.1", &config.snat[0]);
	assert_int_equal(control_create(&config, &quiet, &control, NULL), 0);
	control_set_probe_hooks(control, &hooks, NULL);
	control_set_nexthop_hooks(
		control, &(struct control_nexthop_hooks){ .addresses = on_addresses }, NULL);
	assert_int_equal(
		control_attach(control, (struct device *)&fake, (struct dataplane *)&fake, NULL),
		0);
	return 0;
}

static int teardown(void **state)
{
	control_destroy(control);
	fake_reset();
	return 0;
}

static uint64_t random_state;

static uint32_t random_below(uint32_t n)
{
	random_state = random_state * 6364136223846793005ull + 1442695040888963407ull;
	return (uint32_t)((random_state >> 32) * n >> 32);
}

static struct address address_at(uint32_t first, uint32_t i)
{
	return address_from_v4(rte_cpu_to_be_32(first + i));
}

// Backends overlap, and so do checks: probes are shared.
static struct service *random_service(uint32_t i)
{
	static const char *const listeners[] = { "http", "https" };
	struct service *s = service_create(NULL);
	snprintf(s->namespace, sizeof(s->namespace), "default");
	snprintf(s->name, sizeof(s->name), "s%u", i);
	s->owner = SERVICE_OWNER_KUBERNETES;
	*service_add_address(s) = address_at(0xcb007100u, i + 1);
	if (random_below(8) == 0)
		*service_add_address(s) = address_at(0xcb007100u, i + 101);
	s->check.kind = random_below(6) ? SERVICE_CHECK_TCP : SERVICE_CHECK_NONE;
	s->check.fall = (uint8_t)(1 + random_below(2));
	for (uint32_t j = 0; j < 1 + (random_below(8) ? i % 2 : 1); j++) {
		struct service_listener *l = service_add_listener(s);
		snprintf(l->name, sizeof(l->name), "%s", listeners[j]);
		l->protocol = NET_PROTO_TCP;
		l->port = l->port_max = (uint16_t)(80 + j);
	}
	for (uint32_t k = 0; k < 5; k++) {
		if (random_below(2))
			continue;
		struct service_backend *b = service_add_backend(s);
		b->address = address_at(0x0a090000u, 2 + k);
		b->weight = SERVICE_WEIGHT_DEFAULT;
		b->conditions = (struct service_conditions){ true, true, false };
		for (uint32_t j = 0; j < s->n_listeners; j++) {
			struct service_backend_port *p = service_backend_add_port(b);
			snprintf(p->listener, sizeof(p->listener), "%s", listeners[j]);
			p->port = (uint16_t)(8080 + random_below(2) * j);
		}
	}
	return s;
}

// Services with a backend whose verdict this probe gives, by asking for each backend; only where all events are for different ones.
static uint32_t count_users(const struct control_watched *w)
{
	uint32_t n = 0;
	for (uint32_t i = 0; i < service_store_count(control->store); i++) {
		const struct service *s = service_store_at(control->store, i);
		bool uses = false;
		for (uint32_t k = 0; k < s->n_backends * s->n_listeners; k++) {
			const struct service_listener *l = &s->listeners[k % s->n_listeners];
			const struct service_backend *b = &s->backends[k / s->n_listeners];
			uint16_t port = control_backend_port(b, l);
			uses = uses ||
			       control_find_probe(control, s, l, &b->address, port) == &w->health;
		}
		n += uses;
	}
	return n;
}

// A verdict is told of every service that shares it, and of no other.
static void report(const struct control_watched *w)
{
	const struct control_event *events;
	uint64_t last = control->n_events;
	bool was_down = w->health.verdict == HEALTH_PROBE_DOWN;
	uint32_t n_users = count_users(w), n_told = 0;
	control_probe_report(control, w->probe.id, random_below(2), "said so");
	uint32_t n = control_events(control, last, &events, 100);
	for (uint32_t i = 0; i < n; i++)
		n_told += strncmp(events[i].kind, "backend-", 8) == 0;
	bool is_down = w->health.verdict == HEALTH_PROBE_DOWN;
	assert_int_equal(n_told, was_down != is_down ? n_users : 0);
}

// An operator's word on one backend, or taken back; where there is no such backend it is refused.
static void change_overlay(const char *name)
{
	struct service_overlay o = { .namespace = "default", .draining = random_below(3) == 0 };
	snprintf(o.name, sizeof(o.name), "%s", name);
	o.address = address_at(0x0a090000u, 2 + random_below(5));
	o.has_weight = random_below(3) == 0;
	o.weight = random_below(3) * 50;
	control_put_overlay(control, &o, NULL);
}

static void change(void)
{
	uint32_t i = random_below(N_SERVICES);
	char name[16];
	snprintf(name, sizeof(name), "s%u", i);
	if (random_below(12) == 0) {
		control_remove_service(control, "default", name, SERVICE_OWNER_KUBERNETES, NULL);
	} else if (random_below(6) == 0 && control->n_watched) {
		const struct control_watched *w =
			&control->watched[random_below(control->n_watched)];
		if (w->used)
			report(w);
	} else if (random_below(8) == 0) {
		change_overlay(name);
	} else {
		struct service *s = random_service(i);
		assert_int_equal(control_put_service(control, s, NULL, NULL), 0);
		service_destroy(s);
	}
}

// Who may take new flows, by backend: 64 bits that a whole compile must repeat.
static uint64_t published_hash(void)
{
	const struct snapshot *s = control->published;
	uint64_t hash = s->digest;
	for (uint32_t id = 0; id < s->n_backends; id++) {
		uint64_t words[] = { id, s->backends[id].flags, s->backends[id].listener_idx,
			s->backends[id].weight };
		hash = hash_stable(words, sizeof(words), hash);
	}
	for (uint32_t i = 0; i < s->n_listeners; i++)
		if (s->listeners[i].n_eligible)
			hash = hash_stable(s->listeners[i].eligible,
				s->listeners[i].n_eligible * sizeof(uint32_t), hash);
	return hash;
}

static void test_follow(void **state)
{
	uint32_t users[64], n_followed = 0, n_moved = 0;
	random_state = 0x5eed;
	for (uint32_t round = 0; round < 600; round++) {
		for (uint32_t i = random_below(3) + 1; i > 0; i--)
			change();
		if (control->work) {
			n_followed += (control->work & CONTROL_WORK_BUILD) == 0;
			n_moved += control->followed_names !=
				   service_store_names_generation(control->store);
			assert_int_equal(control_publish_now(control, 0, NULL), 0);
		}
		assert_addresses_told();
		fake.grace_done = fake.grace_next;
		fake.sweeps += 2;
		assert_true(control->n_watched <= 64);
		for (uint32_t i = 0; i < control->n_watched; i++)
			users[i] = control->watched[i].n_users;
		uint64_t hash = published_hash();
		n_hooks = 0;
		if (random_below(2)) // else following goes on from where it is
			continue;
		assert_int_equal(control_publish_now(control, CONTROL_WORK_BUILD, NULL), 0);
		assert_int_equal(n_hooks, 0);
		for (uint32_t i = 0; i < control->n_watched; i++)
			assert_int_equal(users[i], control->watched[i].n_users);
		assert_true(hash == published_hash());
	}
	assert_true(n_followed > 100 && n_moved > 50);
}

static uint32_t count_uses(uint8_t use)
{
	uint32_t n = 0;
	for (uint32_t i = 0; i < control->n_hops; i++)
		n += control->hops[i].life == CONTROL_HOP_LIVE && (control->hops[i].use & use);
	return n;
}

// An entry is there with its backend; that it is needed no longer is found out by and by.
static void test_neighbours(void **state)
{
	struct control_route route = { .port_idx = 0 };
	assert_int_equal(prefix_parse("10.9.0.0/24", &route.prefix), 0);
	control_set_routes(control, &route, 1);
	random_state = 5;
	struct service *s = random_service(0);
	while (s->n_backends < 3) {
		service_destroy(s);
		s = random_service(0);
	}
	uint32_t n = s->n_backends;
	assert_int_equal(control_put_service(control, s, NULL, NULL), 0);
	assert_int_equal(control_publish_now(control, 0, NULL), 0);
	assert_int_equal(count_uses(CONTROL_HOP_BACKEND), n);
	free(s->backends[--s->n_backends].ports);
	assert_int_equal(control_put_service(control, s, NULL, NULL), 0);
	assert_int_equal(control_publish_now(control, 0, NULL), 0);
	assert_int_equal(count_uses(CONTROL_HOP_BACKEND), n);
	control_hops_tick(control);
	assert_int_equal(count_uses(CONTROL_HOP_BACKEND), n);
	control->hops_reconciled_ns -= 11 * CLOCK_S;
	control_hops_tick(control);
	assert_int_equal(count_uses(CONTROL_HOP_BACKEND), n - 1);
	s->backends[0].address = address_at(0x0a090000u, 77); // a new one has its entry at once
	assert_int_equal(control_put_service(control, s, NULL, NULL), 0);
	assert_int_equal(control_publish_now(control, 0, NULL), 0);
	assert_int_equal(count_uses(CONTROL_HOP_BACKEND), n);
	service_destroy(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_follow, setup, teardown),
		cmocka_unit_test_setup_teardown(test_neighbours, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
