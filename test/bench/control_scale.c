// SPDX-License-Identifier: BSD-3-Clause
// What control does with a change of one endpoint until workers have the snapshot, at size, over a fake data plane:
// control-scale [SERVICES] [ENDPOINTS-EACH] [ROUNDS]. Processor time of the control thread. Not a test; prints a table.
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "control_fake_priv.h"
#include "control_priv.h"

#define ROUNDS_MAX 1000

static double now_us(void)
{
	struct timespec t;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static struct address address_at(uint32_t first, uint32_t i)
{
	return address_from_v4(rte_cpu_to_be_32(first + i));
}

static struct service *service_at(uint32_t i, uint32_t n_endpoints, bool flip)
{
	struct service *s = service_create(NULL);
	snprintf(s->namespace, sizeof(s->namespace), "ns-%u", i % 100);
	snprintf(s->name, sizeof(s->name), "service-%u", i);
	s->owner = SERVICE_OWNER_KUBERNETES;
	*service_add_address(s) = address_at(0xc6120000u, i); // 198.18.0.0/15
	struct service_listener *l = service_add_listener(s);
	snprintf(l->name, sizeof(l->name), "http");
	l->protocol = NET_PROTO_TCP;
	l->port = l->port_max = 80;
	for (uint32_t k = 0; k < n_endpoints; k++) {
		bool is_ready = !(flip && k == 0);
		struct service_backend *b = service_add_backend(s);
		b->address = address_at(0x0a000000u, i * n_endpoints + k);
		b->weight = SERVICE_WEIGHT_DEFAULT;
		b->conditions = (struct service_conditions){ is_ready, is_ready, false };
		snprintf(b->target, sizeof(b->target), "service-%u-5f7d9c6b4-%05u", i, k);
		struct service_backend_port *p = service_backend_add_port(b);
		snprintf(p->listener, sizeof(p->listener), "http");
		p->port = 8080;
	}
	return s;
}

static void settle(struct control *c)
{
	struct timespec t = { .tv_nsec = 1000000 };
	while (evtimer_pending(c->coalesce, NULL)) {
		event_base_loop(control_base(c), EVLOOP_NONBLOCK);
		nanosleep(&t, NULL);
		fake.grace_done = fake.grace_next;
	}
}

static int compare(const void *a, const void *b)
{
	const double *x = a, *y = b;
	return (*x > *y) - (*x < *y);
}

static void report(double *us, uint32_t n, const char *what)
{
	qsort(us, n, sizeof(*us), compare);
	printf("%s: median %.2f ms, p99 %.2f ms\n", what, us[n / 2] / 1e3,
		us[(n - 1) * 99 / 100] / 1e3);
}

// A service more, and less again; and one with another VIP.
static int come_and_go(
	struct control *c, uint32_t n_services, uint32_t n_endpoints, uint32_t n_rounds)
{
	static double came[ROUNDS_MAX], went[ROUNDS_MAX], moved[ROUNDS_MAX];
	for (uint32_t round = 0; round < n_rounds; round++) {
		struct service *s = service_at(n_services + round, n_endpoints, false);
		struct service *other = service_at(
			(uint32_t)((uint64_t)round * 7919 % n_services), n_endpoints, round % 2);
		uint32_t n_published = fake.n_published;
		double start = now_us();
		int rc = control_put_service(c, s, NULL, NULL);
		came[round] = now_us() - start;
		settle(c);
		other->addresses[0] = address_at(0xc6140000u, round);
		start = now_us();
		rc |= control_put_service(c, other, NULL, NULL);
		moved[round] = now_us() - start;
		settle(c);
		start = now_us();
		rc |= control_remove_service(
			c, s->namespace, s->name, SERVICE_OWNER_KUBERNETES, NULL);
		went[round] = now_us() - start;
		settle(c);
		service_destroy(s);
		service_destroy(other);
		if (rc != 0 || fake.n_published != n_published + 3)
			return -1;
	}
	report(came, n_rounds, "a service comes until published");
	report(moved, n_rounds, "another VIP until published");
	report(went, n_rounds, "a service goes until published");
	return 0;
}

int main(int argc, char **argv)
{
	uint32_t n_services = argc > 1 ? (uint32_t)atoi(argv[1]) : 10000;
	uint32_t n_endpoints = argc > 2 ? (uint32_t)atoi(argv[2]) : 10;
	uint32_t n_rounds = argc > 3 ? (uint32_t)atoi(argv[3]) : 50;
	struct control_config config = { .defaults = service_defaults_builtin(), .n_snat = 1 };
	struct log quiet = { .fd = 2, .level = LOG_LEVEL_ERROR };
	struct control *c = NULL;
	static double us[ROUNDS_MAX];
	fake_reset();
	address_parse("192.0.2.1", &config.snat[0]);
	if (control_create(&config, &quiet, &c, NULL) != 0 ||
		control_attach(c, (struct device *)&fake, (struct dataplane *)&fake, NULL) != 0)
		return 1;
	control_set_synced(c, "bench", true);
	struct service **all = calloc(n_services, sizeof(*all));
	for (uint32_t i = 0; i < n_services; i++)
		all[i] = service_at(i, n_endpoints, false);
	double start = now_us();
	if (control_replace_owner(c, SERVICE_OWNER_KUBERNETES, all, n_services, NULL, NULL) != 0)
		return 1;
	settle(c);
	printf("%u services, %u endpoints\nfirst publication %10.1f ms\n", n_services,
		n_services * n_endpoints, (now_us() - start) / 1e3);
	for (uint32_t i = 0; i < n_services; i++)
		service_destroy(all[i]);
	free(all);
	n_rounds = n_rounds > ROUNDS_MAX ? ROUNDS_MAX : n_rounds;
	for (uint32_t round = 0; round < n_rounds; round++) {
		uint32_t i = (uint32_t)((uint64_t)round * 7919 % n_services);
		struct service *s = service_at(i, n_endpoints, true);
		uint32_t n_published = fake.n_published;
		start = now_us();
		if (control_put_service(c, s, NULL, NULL) != 0 || fake.n_published == n_published)
			return 1;
		us[round] = now_us() - start;
		service_destroy(s);
		settle(c);
	}
	report(us, n_rounds, "one endpoint's change until published");
	if (come_and_go(c, n_services, n_endpoints, n_rounds) != 0)
		return 1;
	for (uint32_t round = 0; round < n_rounds; round++) {
		uint32_t idx = (uint32_t)((uint64_t)round * 7919 % c->n_watched);
		uint32_t id = c->watched[idx].probe.id;
		control_probe_report(c, id, false, "bench");
		start = now_us();
		control_probe_report(c, id, false, "bench"); // the second in a row: down
		us[round] = now_us() - start;
		settle(c);
	}
	report(us, n_rounds, "one verdict until published");
	start = now_us();
	for (uint32_t i = 0; i < 1000; i++)
		control_probe_report(c, c->watched[i].probe.id, true, "");
	printf("a thousand first successes %10.1f ms\n", (now_us() - start) / 1e3);
	control_destroy(c);
	return 0;
}
