// SPDX-License-Identifier: BSD-3-Clause
// Very many live flows while backends come, go, drain and change weight: no packet of a flow reaches a second backend while the
// first is listed. SLUICE_LIVE_FLOWS and SLUICE_LIVE_CHANGES (1000000 and 1000 for the full size) say how many.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#define BACKENDS 20
#define SNATS    4
#include "lane_priv.h"

#define VIP 0xcb00710a // 203.0.113.10

struct one {
	uint32_t src;
	uint16_t port;
	bool is_udp;
	uint32_t backend_id;
};

struct crowd {
	struct world w;
	struct one *all;
	uint32_t n, n_wanted, n_changes;
	uint32_t mask;
	uint64_t seed;
	uint64_t n_packets, n_moved, n_second, n_lost;
};

static struct lane lane;

static uint32_t number(const char *name, uint32_t otherwise)
{
	const char *text = getenv(name);
	return text ? (uint32_t)strtoul(text, NULL, 10) : otherwise;
}

static struct lane_frame frame_of(const struct one *f, uint8_t flags)
{
	return (struct lane_frame){ .src = f->src,
		.dst = VIP,
		.src_port = f->port,
		.dst_port = f->is_udp ? 53 : 80,
		.protocol = f->is_udp ? NET_PROTO_UDP : NET_PROTO_TCP,
		.tcp_flags = flags };
}

// Which worker a flow's packets come to; every 64 in a row come to one.
static uint32_t worker_of(uint32_t i)
{
	return i / BURST_MAX % WORKERS;
}

static void confirm(struct pipeline *p, const struct burst *b, uint32_t k, bool is_udp)
{
	if (b->flow_idx[k] != FLOW_NONE)
		flow_set_state(&p->flows, b->flow_idx[k],
			is_udp ? FLOW_STATE_UDP_TWOWAY : FLOW_STATE_ESTABLISHED);
}

// Opens flows until as many live as are wanted. Some are refused where a backend's source ports are all in use.
static void crowd_open(struct crowd *c)
{
	uint64_t n_refused = 0;
	while (c->n < c->n_wanted && n_refused < c->n_wanted) {
		struct one fresh[BURST_MAX];
		lane_begin(&lane, &c->w, worker_of(c->n));
		uint32_t n = BURST_MAX - c->n % BURST_MAX;
		for (uint32_t k = 0; k < n; k++) {
			uint64_t r = frame_random(&c->seed);
			fresh[k] = (struct one){ .src = 0x64400000 | (uint32_t)(r & 0x3fffff),
				.port = (uint16_t)(1024 + (r >> 24) % 60000),
				.is_udp = (r >> 60) == 0 };
			struct lane_frame f = frame_of(&fresh[k], TCP_SYN);
			lane_add(&lane, &f);
		}
		lane_run(&lane);
		for (uint32_t k = 0; k < n; k++) {
			if (lane.b.verdict[k] != PIPELINE_FORWARD) {
				n_refused++;
				continue;
			}
			fresh[k].backend_id = lane.b.backend_id[k];
			confirm(lane.p, &lane.b, k, fresh[k].is_udp);
			c->all[c->n++] = fresh[k];
		}
	}
	assert_true(c->n >= c->n_wanted);
}

static void check_one(struct crowd *c, struct one *f, uint32_t k)
{
	const struct snapshot_backend *first = &c->w.snapshot->backends[f->backend_id];
	c->n_packets++;
	if (lane.b.verdict[k] != PIPELINE_FORWARD) {
		// UDP that leaves a removed backend may find no source port at the next
		c->n_lost += !f->is_udp || (first->flags & SNAPSHOT_BACKEND_LISTED);
		return;
	}
	if (lane.b.backend_id[k] == f->backend_id)
		return;
	if (first->flags & SNAPSHOT_BACKEND_LISTED)
		c->n_second++;
	else
		c->n_moved++; // UDP, whose backend is gone
	f->backend_id = lane.b.backend_id[k];
	confirm(lane.p, &lane.b, k, f->is_udp);
}

// A packet of each of flows [from, to).
static void crowd_say(struct crowd *c, uint32_t from, uint32_t to)
{
	while (from < to) {
		uint32_t n = BURST_MAX - from % BURST_MAX;
		n = n < to - from ? n : to - from;
		lane_begin(&lane, &c->w, worker_of(from));
		for (uint32_t k = 0; k < n; k++) {
			struct lane_frame f = frame_of(&c->all[from + k], TCP_ACK);
			lane_add(&lane, &f);
		}
		lane_run(&lane);
		for (uint32_t k = 0; k < n; k++)
			check_one(c, &c->all[from + k], k);
		from += n;
	}
}

// Drain, undrain or weight of one backend.
static void overlay_change(struct crowd *c, uint64_t r)
{
	struct service_overlay o = { .namespace = "default",
		.name = "web",
		.address = address_from_v4(
			rte_cpu_to_be_32(0x0a090002 + (uint32_t)(r >> 8) % BACKENDS)),
		.draining = (r >> 16) % 4 == 0,
		.has_weight = true,
		.weight = (uint32_t)(r >> 24) % 300 };
	assert_int_equal(service_store_put_overlay(c->w.store, &o), 0);
}

static void crowd_change(struct crowd *c)
{
	uint64_t r = frame_random(&c->seed);
	if (r % 2)
		overlay_change(c, r);
	else
		c->mask ^= 1u << (r >> 8) % BACKENDS;
	if (c->mask == 0)
		c->mask = 1;
	c->w.now_ns += CLOCK_S / 10;
	world_publish(&c->w, c->mask);
}

static void check_crowd(enum service_mode mode)
{
	static struct crowd c;
	memset(&c, 0, sizeof(c));
	c.n_wanted = number("SLUICE_LIVE_FLOWS", 50000);
	c.n_changes = number("SLUICE_LIVE_CHANGES", 200);
	c.seed = 42;
	c.mask = (1u << BACKENDS) - 1;
	c.all = malloc((c.n_wanted + BURST_MAX) * sizeof(c.all[0]));
	world_init(&c.w, c.n_wanted * 3 / 4 + 1000, 1024, 65535);
	c.w.shape.mode = mode;
	c.w.shape.only_family = 4;
	world_publish(&c.w, c.mask);
	crowd_open(&c);
	crowd_say(&c, 0, c.n); // confirms those of one-way modes
	uint32_t n_each = c.n / (c.n_changes < 100 ? c.n_changes : 100), at = 0;
	for (uint32_t k = 0; k < c.n_changes; k++) {
		crowd_change(&c);
		uint32_t to = at + n_each < c.n ? at + n_each : c.n;
		crowd_say(&c, at, to);
		at = to == c.n ? 0 : to;
	}
	crowd_say(&c, 0, c.n);
	printf("%s: %u flows, %u changes, %lu packets, %lu moved from a removed backend, %lu lost, "
	       "%lu to a second backend\n",
		service_mode_name(mode), c.n, c.n_changes, c.n_packets, c.n_moved, c.n_lost,
		c.n_second);
	assert_int_equal(c.n_second, 0);
	assert_int_equal(c.n_lost, 0);
	assert_true(c.n_moved > 0);
	world_fini(&c.w);
	free(c.all);
}

static void flows_of_fullnat_stay(void **state)
{
	check_crowd(SERVICE_MODE_FULLNAT);
}

static void flows_of_ipip_stay(void **state)
{
	check_crowd(SERVICE_MODE_IPIP);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(flows_of_fullnat_stay),
		cmocka_unit_test(flows_of_ipip_stay),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
