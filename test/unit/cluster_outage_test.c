// SPDX-License-Identifier: BSD-3-Clause
// The last good state as bytes: what is read equals what was written, and nothing that is damaged, foreign or made up is taken.
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <errno.h>

#include "net.h"
#include "outage_priv.h"

#define WHOSE "https://192.0.2.1:6443 example.com/lb"
#define SEED  0x5eed0006u

static uint32_t random_below(uint64_t *state, uint32_t below)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return (uint32_t)((*state * 0x2545f4914f6cdd1dull) >> 33) % below;
}

static struct address v4(uint32_t last)
{
	return address_from_v4(rte_cpu_to_be_32(0x0a000000u + last));
}

// A service with something in every field, all of it by the seed.
static struct service *make(uint64_t *state, uint32_t idx)
{
	struct service_defaults defaults = service_defaults_builtin();
	struct service *s = service_create(&defaults);
	assert_non_null(s);
	snprintf(s->namespace, sizeof(s->namespace), "ns%u", idx % 3);
	snprintf(s->name, sizeof(s->name), "web-%04u", idx);
	s->owner = SERVICE_OWNER_KUBERNETES;
	s->mode = random_below(state, 5);
	s->scheduler = random_below(state, 2);
	s->client_address = random_below(state, 3);
	s->affinity_s = random_below(state, 86401);
	s->tcp_idle_s = 1 + random_below(state, 604800);
	s->udp_idle_s = 1 + random_below(state, 604800);
	s->drain_timeout_s = random_below(state, 604801);
	s->check.kind = random_below(state, 7);
	snprintf(s->check.path, sizeof(s->check.path), "/healthz%u", idx);
	snprintf(s->check.port_name, sizeof(s->check.port_name), "p%u", random_below(state, 9));
	s->check.port = (uint16_t)random_below(state, 65536);
	s->check.interval_ms = 100 + random_below(state, 100000);
	s->check.timeout_ms = 10 + random_below(state, 90);
	s->check.rise = 1 + (uint8_t)random_below(state, 10);
	s->check.fall = 1 + (uint8_t)random_below(state, 10);
	for (uint32_t i = random_below(state, 4); i-- > 0;)
		*service_add_address(s) = v4(idx * 8 + i);
	for (uint32_t i = random_below(state, 4); i-- > 0;) {
		struct service_listener *l = service_add_listener(s);
		snprintf(l->name, sizeof(l->name), "l%u", i);
		l->protocol = i % 2 ? 17 : 6;
		l->port = (uint16_t)(1 + random_below(state, 65535));
		l->port_max = l->port;
	}
	for (uint32_t i = random_below(state, 3); i-- > 0;)
		*service_add_source_range(s) = (struct prefix){ .address = v4(i << 8), .len = 24 };
	for (uint32_t i = random_below(state, 30); i-- > 0;) {
		struct service_backend *b = service_add_backend(s);
		b->address = v4(100000 + idx * 64 + i);
		b->weight = random_below(state, 65536);
		b->conditions = (struct service_conditions){ random_below(state, 2),
			random_below(state, 2), random_below(state, 2) };
		snprintf(b->target, sizeof(b->target), "pod-%u", random_below(state, 99999));
		snprintf(b->uid, sizeof(b->uid), "uid-%u", random_below(state, 99999));
		for (uint32_t k = random_below(state, 3); k-- > 0;) {
			struct service_backend_port *port = service_backend_add_port(b);
			snprintf(port->listener, sizeof(port->listener), "l%u", k);
			port->port = (uint16_t)random_below(state, 65536);
		}
	}
	return s;
}

static void write_all(struct outage_bytes *b, struct service *const *services, uint32_t n)
{
	outage_put_head(b, WHOSE);
	uint64_t hash = outage_hash(b->bytes, b->len, 0);
	for (uint32_t i = 0; i < n; i++) {
		size_t begin = b->len;
		outage_put_service(b, services[i]);
		hash = outage_hash(b->bytes + begin, b->len - begin, hash);
	}
	outage_put_tail(b, hash);
	assert_false(b->is_short);
}

// A copy of exactly that length, so that a read beyond it is seen.
static int read_exact(const uint8_t *bytes, size_t len, const char *whose,
	struct outage_services *out, char why[300])
{
	uint8_t *exact = malloc(len ? len : 1);
	assert_non_null(exact);
	memcpy(exact, bytes, len);
	why[0] = '\0';
	int rc = outage_read(exact, len, whose, out, why, 300);
	free(exact);
	return rc;
}

static void test_round_trip(void **state)
{
	struct service *services[200];
	struct outage_bytes b = { 0 };
	struct outage_services again = { 0 };
	uint64_t random = SEED;
	char why[300];
	for (uint32_t i = 0; i < 200; i++)
		services[i] = make(&random, i);
	write_all(&b, services, 200);
	assert_int_equal(read_exact(b.bytes, b.len, WHOSE, &again, why), 0);
	assert_int_equal(again.n_services, 200);
	for (uint32_t i = 0; i < 200; i++) {
		assert_true(again.services[i]->owner == SERVICE_OWNER_KUBERNETES);
		if (!service_equal(again.services[i], services[i]))
			fail_msg("service %u is another", i);
		// and every field that equality may not look at
		for (uint32_t k = 0; k < services[i]->n_backends; k++) {
			const struct service_backend *x = &again.services[i]->backends[k];
			const struct service_backend *y = &services[i]->backends[k];
			assert_string_equal(x->target, y->target);
			assert_string_equal(x->uid, y->uid);
			assert_memory_equal(&x->conditions, &y->conditions, sizeof(x->conditions));
		}
		service_destroy(services[i]);
	}
	outage_services_fini(&again);
	outage_bytes_fini(&b);
}

static void test_empty(void **state)
{
	struct outage_bytes b = { 0 };
	struct outage_services out = { 0 };
	char why[300];
	write_all(&b, NULL, 0);
	assert_int_equal(read_exact(b.bytes, b.len, WHOSE, &out, why), 0);
	assert_int_equal(out.n_services, 0);
	outage_services_fini(&out);
	assert_int_equal(
		read_exact(b.bytes, b.len, "https://other example.com/lb", &out, why), -ESTALE);
	assert_non_null(strstr(why, "not of \"https://other example.com/lb\""));
	outage_bytes_fini(&b);
}

// Every byte changed, every length cut, bytes behind the end: never taken, the outputs as they were.
static void test_damage(void **state)
{
	struct service *services[3];
	struct outage_bytes b = { 0 };
	uint64_t random = SEED;
	char why[300];
	for (uint32_t i = 0; i < 3; i++)
		services[i] = make(&random, i);
	write_all(&b, services, 3);
	for (size_t i = 0; i < b.len; i++) {
		struct outage_services out = { .n_services = 77 };
		b.bytes[i] ^= (uint8_t)(1 << i % 8);
		assert_true(read_exact(b.bytes, b.len, WHOSE, &out, why) < 0);
		assert_int_equal(out.n_services, 77);
		assert_true(why[0] != '\0');
		b.bytes[i] ^= (uint8_t)(1 << i % 8);
		assert_true(read_exact(b.bytes, i, WHOSE, &out, why) < 0);
	}
	struct outage_services out = { 0 };
	uint8_t *longer = calloc(1, b.len + 1);
	memcpy(longer, b.bytes, b.len);
	assert_int_equal(read_exact(longer, b.len + 1, WHOSE, &out, why), -EINVAL);
	free(longer);
	for (uint32_t i = 0; i < 3; i++)
		service_destroy(services[i]);
	outage_bytes_fini(&b);
}

// Damage that the checksum does not see, for it was made after it: refused or taken, never a crash.
static void test_made_up(void **state)
{
	struct service *s;
	struct outage_bytes body = { 0 };
	uint64_t random = SEED;
	uint32_t n_taken = 0;
	char why[300];
	s = make(&random, 5);
	outage_put_service(&body, s);
	for (int i = 0; i < 20000; i++) {
		struct outage_bytes b = { 0 };
		struct outage_services out = { 0 };
		outage_put_head(&b, WHOSE);
		uint64_t hash = outage_hash(b.bytes, b.len, 0);
		size_t begin = b.len;
		outage_put_service(&b, s);
		for (uint32_t n = 1 + random_below(&random, 3); n > 0; n--)
			b.bytes[begin + 4 + random_below(&random, (uint32_t)(b.len - begin - 4))] =
				(uint8_t)random_below(&random, 256);
		hash = outage_hash(b.bytes + begin, b.len - begin, hash);
		outage_put_tail(&b, hash);
		if (read_exact(b.bytes, b.len, WHOSE, &out, why) == 0) {
			n_taken++;
			assert_int_equal(out.n_services, 1);
		} else {
			assert_non_null(strstr(why, "makes no sense"));
		}
		outage_services_fini(&out);
		outage_bytes_fini(&b);
	}
	printf("%u of 20000 taken\n", n_taken);
	assert_true(n_taken > 100 && n_taken < 19900);
	service_destroy(s);
	outage_bytes_fini(&body);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_empty),
		cmocka_unit_test(test_damage),
		cmocka_unit_test(test_made_up),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
