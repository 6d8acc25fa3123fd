// SPDX-License-Identifier: BSD-3-Clause
// What a snapshot says of modes: rows of listeners and backends, tables of a VIP, slots of dnat backends, families that cross,
// and what is kept of a backend that is gone, over builds and in the journal.
#include "snapshot_bench.h"

static struct service *make_mode(const char *name, uint32_t vip, enum service_mode mode)
{
	struct service *s = make_service(name, VIP(vip));
	add_listener(s, "http", NET_PROTO_TCP, (uint16_t)(80 + mode));
	s->mode = mode;
	return s;
}

static uint8_t kind_of(const struct bench *b, struct address a, uint16_t *out_slot)
{
	const struct snapshot_address_cell *cell = snapshot_find_cell(b->s, &a);
	uint16_t slot = cell->slot;
	uint8_t kind = cell->kind, own_kind;
	if (slot == SNAPSHOT_SLOT_NONE)
		return SNAPSHOT_OWN_NONE;
	// The address of a backend is none of ours.
	assert_int_equal(snapshot_find_own(b->s, &a, &own_kind),
		kind == SNAPSHOT_OWN_BACKEND ? SNAPSHOT_SLOT_NONE : slot);
	assert_int_equal(b->s->own[slot].kind, kind);
	assert_true(address_equal(&b->s->own[slot].address, &a));
	if (out_slot)
		*out_slot = slot;
	return kind;
}

// Row of a backend of a service's listener "http", LISTED or not.
static const struct snapshot_backend *row_of(
	const struct bench *b, const char *service, struct address a, uint16_t port)
{
	char name[32];
	uint32_t id;
	snprintf(name, sizeof(name), "default/%s", service);
	if (snapshot_registry_find_backend(b->registry, name, "http", &a, port, &id) != 0)
		fail_msg("no id for a backend of %s", name);
	assert_true(id < b->s->n_backends);
	return &b->s->backends[id];
}

static uint8_t tables_of(const struct bench *b, struct address a)
{
	for (uint32_t i = 0; i <= b->s->address_mask; i++) {
		const struct snapshot_address_cell *cell = &b->s->address_cells[i];
		if (cell->slot != SNAPSHOT_SLOT_NONE && address_equal(&cell->address, &a)) {
			assert_int_equal(cell->tables, b->s->own[cell->slot].tables);
			return cell->tables;
		}
	}
	fail_msg("no such own address");
	return 0;
}

// ---------------------------------------------------------------- rows
static void test_rows(void **state)
{
	struct bench b;
	char name[16];
	bench_init(&b);
	for (int mode = SERVICE_MODE_FULLNAT; mode <= SERVICE_MODE_L2DSR; mode++) {
		snprintf(name, sizeof(name), "m%d", mode);
		// fullnat and ipip share a VIP; the others have one each
		struct service *s = make_mode(name, mode == SERVICE_MODE_IPIP ? 0 : (uint32_t)mode,
			(enum service_mode)mode);
		add_backend(s, BACKEND((uint32_t)mode + 1), (uint16_t)(80 + mode), 100);
		s->tcp_idle_s = 100 + (uint32_t)mode;
		s->scheduler = mode & 1 ? SERVICE_LEAST_CONNECTIONS : SERVICE_MAGLEV;
		bench_put(&b, s);
	}
	bench_build(&b);
	for (int mode = SERVICE_MODE_FULLNAT; mode <= SERVICE_MODE_L2DSR; mode++) {
		snprintf(name, sizeof(name), "m%d", mode);
		uint16_t port = (uint16_t)(80 + mode);
		const struct snapshot_listener *l = find(b.s,
			VIP(mode == SERVICE_MODE_IPIP ? 0 : (uint32_t)mode), NET_PROTO_TCP, port);
		const struct snapshot_backend *row =
			row_of(&b, name, BACKEND((uint32_t)mode + 1), port);
		assert_int_equal(l->mode, mode);
		assert_int_equal(snapshot_mode_is_oneway(l->mode), mode >= SERVICE_MODE_IPIP);
		assert_int_equal(
			l->scheduler, mode & 1 ? SNAPSHOT_LEAST_CONNECTIONS : SNAPSHOT_MAGLEV);
		assert_int_equal(row->mode, mode);
		assert_int_equal(row->flags & 3, 3);
		assert_int_equal(row->policy, l->policy);
		assert_int_equal(b.s->policies[row->policy].tcp_idle_s, 100 + mode);
		if (mode == SERVICE_MODE_DNAT)
			assert_true(address_equal(&b.s->own[row->own_slot].address, &row->address));
		else
			assert_int_equal(row->own_slot, SNAPSHOT_SLOT_NONE);
	}
	assert_int_equal(tables_of(&b, VIP(0)), SNAPSHOT_TABLE_NAT | SNAPSHOT_TABLE_ONEWAY);
	assert_int_equal(tables_of(&b, VIP(SERVICE_MODE_DNAT)), SNAPSHOT_TABLE_NAT);
	assert_int_equal(tables_of(&b, VIP(SERVICE_MODE_GUE)), SNAPSHOT_TABLE_ONEWAY);
	assert_int_equal(tables_of(&b, VIP(SERVICE_MODE_L2DSR)), SNAPSHOT_TABLE_ONEWAY);
	assert_int_equal(tables_of(&b, BACKEND(SERVICE_MODE_DNAT + 1)), 0);
	// The share goes with its service.
	service_store_remove(b.store, "default", "m2", SERVICE_OWNER_KUBERNETES, NULL);
	bench_build(&b);
	assert_int_equal(tables_of(&b, VIP(0)), SNAPSHOT_TABLE_NAT);
	bench_fini(&b);
}

static void test_client_address(void **state)
{
	struct bench b;
	bench_init(&b);
	struct service *s = make_web(1);
	add_listener(s, "dns", NET_PROTO_UDP, 53);
	s->client_address = SERVICE_CLIENT_PROXY_V2;
	bench_put(&b, s);
	bench_build(&b);
	assert_int_equal(web(&b)->client_address, SNAPSHOT_CLIENT_PROXY_V2);
	assert_int_equal(
		find(b.s, VIP(1), NET_PROTO_UDP, 53)->client_address, SNAPSHOT_CLIENT_NONE);
	s = make_web(1);
	s->client_address = SERVICE_CLIENT_TOA;
	bench_put(&b, s);
	bench_build(&b);
	assert_int_equal(web(&b)->client_address, SNAPSHOT_CLIENT_TOA);
	bench_fini(&b);
}

static void test_tunnel_sources(void **state)
{
	struct bench b;
	bench_init(&b);
	bench_build(&b);
	assert_true(address_is_unspecified(&b.s->tunnel_source[0]));
	assert_true(address_is_unspecified(&b.s->tunnel_source[1]));
	b.snat[0] = v6(2);
	b.snat[1] = v4(0xc0000201);
	b.snat[2] = v6(1);
	b.snat[3] = v4(0xc0000200);
	b.n_snat = 4;
	bench_build(&b);
	assert_true(address_equal(&b.s->tunnel_source[0], &b.snat[1]));
	assert_true(address_equal(&b.s->tunnel_source[1], &b.snat[0]));
	bench_fini(&b);
}

// Two nodes agree on the digest when they agree on where flows go.
static void test_digest(void **state)
{
	struct bench b;
	uint64_t seen[8];
	uint32_t n = 0;
	bench_init(&b);
	for (int what = SERVICE_MODE_FULLNAT; what <= SERVICE_MODE_L2DSR + 1; what++) {
		struct service *s = make_service("web", VIP(1));
		add_listener(s, "http", NET_PROTO_TCP, 80);
		add_backend(s, BACKEND(1), 80, 100);
		if (what <= SERVICE_MODE_L2DSR)
			s->mode = (enum service_mode)what;
		else
			s->scheduler = SERVICE_LEAST_CONNECTIONS;
		bench_put(&b, s);
		bench_build(&b);
		seen[n++] = b.s->digest;
	}
	for (uint32_t i = 0; i < n; i++) {
		for (uint32_t k = 0; k < i; k++)
			assert_int_not_equal(seen[i], seen[k]);
	}
	bench_fini(&b);
}

// Ranges as they come from the store, and what lies beside them.
static void test_ranges(void **state)
{
	struct bench b;
	bench_init(&b);
	struct service *s = make_service("range", VIP(1));
	add_listener(s, "http", NET_PROTO_TCP, 1000);
	s->listeners[0].port_max = 1999;
	add_listener(s, "one", NET_PROTO_TCP, 2000);
	add_backend(s, BACKEND(1), 1000, 100);
	bench_put(&b, s);
	s = make_service("any", VIP(1));
	add_listener(s, "http", NET_PROTO_UDP, 1);
	s->listeners[0].port_max = 65535;
	add_backend(s, BACKEND(2), 1, 100);
	bench_put(&b, s);
	bench_build(&b);
	for (uint32_t port = 0; port <= 65535; port++) {
		const struct snapshot_listener *tcp =
			find(b.s, VIP(1), NET_PROTO_TCP, (uint16_t)port);
		const struct snapshot_listener *udp =
			find(b.s, VIP(1), NET_PROTO_UDP, (uint16_t)port);
		assert_int_equal(tcp != NULL, port >= 1000 && port <= 2000);
		assert_int_equal(udp != NULL, port > 0);
		if (tcp)
			assert_int_equal(tcp->n_members, port < 2000);
		if (udp)
			assert_int_equal(backend_number(&b, udp->members[0]), 2);
	}
	bench_fini(&b);
}

// ---------------------------------------------------------------- addresses of dnat backends
static void test_backend_slots(void **state)
{
	struct bench b;
	uint16_t first = 0, slot = 0;
	bench_init(&b);
	struct service *s = make_mode("a", 1, SERVICE_MODE_DNAT);
	add_backend(s, BACKEND(1), 8080, 100);
	add_backend(s, BACKEND(2), 8080, 100);
	add_backend(s, v6(5), 8080, 100); // no VIP of its family: no slot
	bench_put(&b, s);
	s = make_mode("b", 2, SERVICE_MODE_DNAT);
	add_backend(s, BACKEND(1), 9090, 100); // the same address, another port: the same slot
	bench_put(&b, s);
	bench_build(&b);
	assert_int_equal(kind_of(&b, BACKEND(1), &first), SNAPSHOT_OWN_BACKEND);
	assert_int_equal(kind_of(&b, BACKEND(2), &slot), SNAPSHOT_OWN_BACKEND);
	assert_int_not_equal(slot, first);
	assert_int_equal(kind_of(&b, v6(5), NULL), SNAPSHOT_OWN_NONE);
	assert_int_equal(b.s->n_own, 4); // two VIPs, two backends
	assert_int_equal(row_of(&b, "a", BACKEND(1), 8080)->own_slot, first);
	assert_int_equal(row_of(&b, "b", BACKEND(1), 9090)->own_slot, first);
	assert_int_equal(row_of(&b, "a", BACKEND(2), 8080)->own_slot, slot);
	// It is not one of ours: a dnat backend may take new flows.
	assert_int_equal(find(b.s, VIP(1), NET_PROTO_TCP, 81)->n_eligible, 2);
	// Gone from both: known as long as its flows may be there, then given back.
	service_store_remove(b.store, "default", "b", SERVICE_OWNER_KUBERNETES, NULL);
	s = make_mode("a", 1, SERVICE_MODE_DNAT);
	add_backend(s, BACKEND(2), 8080, 100);
	bench_put(&b, s);
	for (uint64_t pass = 1; pass < 4; pass++) {
		bench_build(&b);
		snapshot_registry_release(b.registry, pass);
		assert_int_equal(kind_of(&b, BACKEND(1), &slot), SNAPSHOT_OWN_BACKEND);
		assert_int_equal(slot, first);
		const struct snapshot_backend *row = row_of(&b, "a", BACKEND(1), 8080);
		assert_int_equal(row->flags, 0);
		assert_int_equal(row->mode, SNAPSHOT_DNAT);
		assert_int_equal(row->own_slot, first);
	}
	snapshot_registry_reclaim(b.registry, 4);
	bench_build(&b);
	assert_int_equal(kind_of(&b, BACKEND(1), NULL), SNAPSHOT_OWN_NONE);
	struct address fresh = VIP(77);
	assert_int_equal(snapshot_registry_slot(b.registry, &fresh, &slot), 0);
	assert_true(slot <= first);
	bench_fini(&b);
}

// An address of ours stays what it is, and no flow goes there.
static void test_backend_is_own(void **state)
{
	struct bench b;
	bench_init(&b);
	b.snat[b.n_snat++] = v4(0xc0000201);
	struct service *s = make_mode("a", 1, SERVICE_MODE_DNAT);
	add_backend(s, BACKEND(1), 8080, 100);
	add_backend(s, VIP(2), 8080, 100);
	add_backend(s, v4(0xc0000201), 8080, 100);
	bench_put(&b, s);
	s = make_mode("b", 2, SERVICE_MODE_FULLNAT);
	bench_put(&b, s);
	bench_build(&b);
	assert_int_equal(kind_of(&b, VIP(2), NULL), SNAPSHOT_OWN_VIP);
	assert_int_equal(kind_of(&b, v4(0xc0000201), NULL), SNAPSHOT_OWN_SNAT);
	assert_int_equal(find(b.s, VIP(1), NET_PROTO_TCP, 81)->n_eligible, 1);
	bench_fini(&b);
}

static bool is_even(void *arg, const struct address *address)
{
	(*(uint32_t *)arg)++;
	return (address->bytes[15] & 1) == 0;
}

// l2dsr sends to neighbours only; no other mode asks.
static void test_links(void **state)
{
	for (int mode = SERVICE_MODE_FULLNAT; mode <= SERVICE_MODE_L2DSR; mode++) {
		struct bench b;
		uint32_t n_asked = 0;
		bench_init(&b);
		struct service *s = make_mode("x", 1, (enum service_mode)mode);
		for (uint32_t i = 1; i <= 5; i++)
			add_backend(s, BACKEND(i), (uint16_t)(80 + mode), 100);
		bench_put(&b, s);
		struct snapshot_input input = { .store = b.store,
			.registry = b.registry,
			.health = { NULL, is_even, &n_asked },
			.generation = 1 };
		assert_int_equal(snapshot_build(&input, &b.s, NULL), 0);
		const struct snapshot_listener *l =
			find(b.s, VIP(1), NET_PROTO_TCP, (uint16_t)(80 + mode));
		bool is_l2dsr = mode == SERVICE_MODE_L2DSR;
		assert_int_equal(l->n_members, 5);
		assert_int_equal(l->n_eligible, is_l2dsr ? 2 : 5);
		assert_int_equal(n_asked, is_l2dsr ? 5 : 0);
		bench_fini(&b);
	}
}

// dnat, then fullnat: flows of before still know their backend's answers by its slot.
static void test_mode_changes(void **state)
{
	struct bench b;
	uint16_t first = 0, slot = 0;
	bench_init(&b);
	struct service *s = make_web(1);
	s->mode = SERVICE_MODE_DNAT;
	bench_put(&b, s);
	bench_build(&b);
	assert_int_equal(kind_of(&b, BACKEND(1), &first), SNAPSHOT_OWN_BACKEND);
	bench_put(&b, make_web(1));
	for (uint64_t pass = 1; pass < 4; pass++) {
		bench_build(&b);
		snapshot_registry_release(b.registry, pass);
		snapshot_registry_reclaim(b.registry, pass + 1);
		assert_int_equal(kind_of(&b, BACKEND(1), &slot), SNAPSHOT_OWN_BACKEND);
		assert_int_equal(slot, first);
		assert_int_equal(web(&b)->mode, SNAPSHOT_FULLNAT);
		assert_int_equal(row_of(&b, "web", BACKEND(1), 8080)->mode, SNAPSHOT_FULLNAT);
		assert_int_equal(row_of(&b, "web", BACKEND(1), 8080)->own_slot, SNAPSHOT_SLOT_NONE);
		assert_int_equal(web(&b)->n_eligible, 1);
	}
	bench_fini(&b);
}

static void test_too_many_slots(void **state)
{
	struct bench b;
	char name[16], line[512];
	bench_init(&b);
	for (uint32_t i = 0; i < 7; i++) {
		snprintf(name, sizeof(name), "s%u", i);
		struct service *s = make_mode(name, i, SERVICE_MODE_DNAT);
		for (uint32_t k = 0; k < 9400; k++)
			add_backend(s, v4(0x0a000000u + i * 10000 + k), 8080, 100);
		bench_put(&b, s);
	}
	struct error err = { 0 };
	assert_int_equal(bench_try(&b, NULL, 0, &err), -EINVAL);
	assert_int_equal(err.n_items, 1);
	assert_non_null(strstr(error_first(&err, line, sizeof(line)),
		"more than 65535 VIPs, SNAT addresses and addresses of dnat backends in use"));
	error_fini(&err);
	assert_int_equal(snapshot_registry_free_slots(b.registry), 0);
	bench_fini(&b);
}

// ---------------------------------------------------------------- families
static uint32_t n_members(const struct bench *b, struct address vip, uint16_t port)
{
	const struct snapshot_listener *l = find(b->s, vip, NET_PROTO_TCP, port);
	assert_int_equal(l->n_eligible, l->n_members);
	return l->n_members;
}

static void test_families_cross(void **state)
{
	static const bool crosses[] = {
		[SERVICE_MODE_FULLNAT] = true,
		[SERVICE_MODE_IPIP] = true,
		[SERVICE_MODE_GUE] = true,
		[SERVICE_MODE_L2DSR] = false,
	};
	struct bench b;
	bench_init(&b);
	for (int mode = SERVICE_MODE_FULLNAT; mode <= SERVICE_MODE_L2DSR; mode++) {
		uint16_t port = (uint16_t)(80 + mode);
		struct service *s = make_mode("x", 1, (enum service_mode)mode);
		*service_add_address(s) = v6(1);
		add_backend(s, BACKEND(1), port, 100);
		add_backend(s, BACKEND(2), port, 100);
		bench_put(&b, s);
		bench_build(&b);
		uint64_t digest = b.s->digest;
		const struct service *held = service_store_find(b.store, "default", "x");
		assert_false(snapshot_family_crosses(held, true));
		assert_int_equal(snapshot_family_crosses(held, false), crosses[mode]);
		assert_int_equal(n_members(&b, VIP(1), port), 2);
		assert_int_equal(n_members(&b, v6(1), port), crosses[mode] ? 2 : 0);
		if (crosses[mode]) { // the row is the first VIP's
			const struct snapshot_backend *row = row_of(&b, "x", BACKEND(1), port);
			assert_int_equal(b.s->listeners[row->listener_idx].slot,
				find(b.s, VIP(1), NET_PROTO_TCP, port)->slot);
		}
		// One of its own family, even one that takes nothing new: no crossing.
		s = make_mode("x", 1, (enum service_mode)mode);
		*service_add_address(s) = v6(1);
		add_backend(s, BACKEND(1), port, 100);
		add_backend(s, BACKEND(2), port, 100);
		add_backend(s, v6(9), port, 0);
		bench_put(&b, s);
		bench_build(&b);
		assert_int_equal(find(b.s, v6(1), NET_PROTO_TCP, port)->n_members, 1);
		assert_int_equal(find(b.s, v6(1), NET_PROTO_TCP, port)->n_eligible, 0);
		assert_int_not_equal(b.s->digest, digest);
	}
	bench_fini(&b);
}

// What crossed, and has to no more, stays listed: its flows stay where they are.
static void test_families_uncross(void **state)
{
	struct bench b;
	bench_init(&b);
	struct service *s = make_service("x", v6(1));
	s->mode = SERVICE_MODE_IPIP;
	add_listener(s, "http", NET_PROTO_TCP, 80);
	add_backend(s, BACKEND(1), 80, 100);
	struct service *both = service_clone(s);
	add_backend(both, v6(9), 80, 100);
	bench_put(&b, s);
	bench_build(&b);
	assert_int_equal(row_of(&b, "x", BACKEND(1), 80)->flags & 3, 3);
	bench_put(&b, both);
	bench_build(&b);
	snapshot_registry_release(b.registry, 1);
	snapshot_registry_reclaim(b.registry, 2);
	const struct snapshot_listener *l = find(b.s, v6(1), NET_PROTO_TCP, 80);
	const struct snapshot_backend *row = row_of(&b, "x", BACKEND(1), 80);
	assert_int_equal(l->n_members, 1);
	struct address six = v6(9);
	assert_true(address_equal(&b.s->backends[l->members[0]].address, &six));
	assert_int_equal(row->flags, SNAPSHOT_BACKEND_LISTED);
	assert_ptr_equal(&b.s->listeners[row->listener_idx], l);
	assert_int_equal(row->mode, SNAPSHOT_IPIP);
	assert_int_equal(row->weight, 100);
	bench_fini(&b);
}

// ---------------------------------------------------------------- gone
static uint8_t flags_at(struct bench *b, int64_t wall_ms)
{
	b->wall_ms = wall_ms;
	bench_build(b);
	return row_of(b, "web", BACKEND(2), 8080)->flags;
}

static void test_drain_timeout(void **state)
{
	struct bench b;
	bench_init(&b);
	b.wall_ms = 1000000;
	struct service *s = make_web(2);
	s->drain_timeout_s = 60;
	bench_put(&b, s);
	bench_build(&b);
	assert_true(snapshot_registry_next_reset_ms(b.registry) == INT64_MAX);
	s = make_web(1);
	s->drain_timeout_s = 5; // too late for the one that goes with this change
	bench_put(&b, s);
	assert_int_equal(flags_at(&b, 2000000), 0);
	assert_true(snapshot_registry_next_reset_ms(b.registry) == 2060000);
	assert_int_equal(flags_at(&b, 2059999), 0);
	assert_int_equal(flags_at(&b, 2060000), SNAPSHOT_BACKEND_RESET);
	assert_true(snapshot_registry_next_reset_ms(b.registry) == INT64_MAX);
	assert_int_equal(flags_at(&b, 0), 0); // no clock, no deadline
	// Back, and gone again: the time begins anew.
	s = make_web(2);
	s->drain_timeout_s = 60;
	bench_put(&b, s);
	assert_int_equal(flags_at(&b, 2100000) & 3, 3);
	bench_put(&b, make_web(1));
	assert_int_equal(flags_at(&b, 2200000), 0);
	assert_int_equal(flags_at(&b, 2259999), 0);
	assert_int_equal(flags_at(&b, 2260000), SNAPSHOT_BACKEND_RESET);
	s = make_web(2);
	s->drain_timeout_s = 0;
	bench_put(&b, s);
	assert_int_equal(flags_at(&b, 2300000) & 3, 3);
	bench_put(&b, make_web(1));
	assert_int_equal(flags_at(&b, 2400000), SNAPSHOT_BACKEND_RESET); // 0: at once
	bench_fini(&b);
}

// The policy of a removed backend is the one it had.
static void test_policy_stays(void **state)
{
	struct bench b;
	bench_init(&b);
	bench_put(&b, make_mode("a", 2, SERVICE_MODE_FULLNAT)); // has the first policy
	struct service *s = make_web(2);
	s->tcp_idle_s = 777;
	bench_put(&b, s);
	bench_build(&b);
	bench_put(&b, make_web(1));
	for (uint64_t pass = 1; pass < 4; pass++) {
		bench_build(&b);
		snapshot_registry_release(b.registry, pass);
		snapshot_registry_reclaim(b.registry, 1); // it may have flows still
		uint8_t policy = row_of(&b, "web", BACKEND(2), 8080)->policy;
		assert_int_equal(b.s->policies[policy].tcp_idle_s, 777);
		assert_int_not_equal(web(&b)->policy, policy);
	}
	bench_fini(&b);
}

// ---------------------------------------------------------------- journal
struct journal {
	char *lines[64];
	uint32_t n;
};

static void take(void *arg, const char *line)
{
	struct journal *j = arg;
	assert_true(j->n < ARRAY_SIZE(j->lines));
	j->lines[j->n++] = strdup(line);
}

// The next process, reading from the end.
static void restart(struct bench *b, struct journal *j)
{
	snapshot_registry_fresh(b->registry, take, j);
	snapshot_destroy(b->s);
	snapshot_registry_destroy(b->registry);
	b->s = NULL;
	b->registry = snapshot_registry_create();
	for (uint32_t i = j->n; i-- > 0;) {
		int rc = snapshot_registry_restore(b->registry, j->lines[i]);
		assert_true(rc == 0 || rc == -EEXIST);
	}
	for (uint32_t i = 0; i < j->n; i++)
		free(j->lines[i]);
	j->n = 0;
}

static void test_journal(void **state)
{
	struct bench b;
	struct journal j = { .n = 0 };
	bench_init(&b);
	b.wall_ms = 1000000;
	struct service *s = make_web(2);
	bench_put(&b, s); // fullnat first
	bench_build(&b);
	snapshot_registry_fresh(b.registry, take, &j);
	uint32_t n_before = j.n;
	bench_build(&b);
	snapshot_registry_fresh(b.registry, take, &j);
	assert_int_equal(j.n, n_before); // nothing new, no line
	s = make_web(2);
	s->mode = SERVICE_MODE_DNAT;
	s->tcp_idle_s = 777;
	s->drain_timeout_s = 60;
	bench_put(&b, s);
	bench_build(&b);
	uint16_t slot = row_of(&b, "web", BACKEND(2), 8080)->own_slot;
	uint8_t policy = row_of(&b, "web", BACKEND(2), 8080)->policy;
	bench_put(&b, make_web(0)); // both gone before the restart
	bench_build(&b);
	restart(&b, &j);
	b.wall_ms = 5000000;
	bench_build(&b);
	const struct snapshot_backend *row = row_of(&b, "web", BACKEND(2), 8080);
	assert_int_equal(row->flags, 0);
	assert_int_equal(row->mode, SNAPSHOT_DNAT);
	assert_int_equal(row->own_slot, slot);
	assert_int_equal(row->policy, policy);
	assert_int_equal(b.s->policies[policy].tcp_idle_s, 777);
	assert_int_equal(kind_of(&b, BACKEND(2), NULL), SNAPSHOT_OWN_BACKEND);
	// Its time begins with the new process.
	assert_int_equal(flags_at(&b, 5059999), 0);
	assert_int_equal(flags_at(&b, 5060000), SNAPSHOT_BACKEND_RESET);
	bench_fini(&b);
}

// A number that means another backend now has nothing of the former one.
static void test_journal_number_again(void **state)
{
	static const char *const lines[] = {
		// oldest first
		"slot 5 10.9.0.1",
		"backend 0 8080 10.9.0.1 default/old/http",
		"kept 0 dnat 5 0 300",
		"backend 0 8080 10.9.0.2 default/web/http",
	};
	struct bench b;
	for (int torn = 0; torn < 2; torn++) { // with and without the new one's second line
		bench_init(&b);
		if (torn == 0)
			assert_int_equal(
				snapshot_registry_restore(b.registry, "kept 0 ipip 65535 0 77"), 0);
		for (uint32_t i = ARRAY_SIZE(lines); i-- > 0;)
			snapshot_registry_restore(b.registry, lines[i]);
		bench_build(&b);
		const struct snapshot_backend *row = row_of(&b, "web", BACKEND(2), 8080);
		assert_int_equal(row->mode, torn ? SNAPSHOT_FULLNAT : SNAPSHOT_IPIP);
		assert_int_equal(row->own_slot, SNAPSHOT_SLOT_NONE);
		assert_true(row->policy < b.s->n_policies);
		bench_fini(&b);
	}
}

// A journal with a hole: a slot that does not mean this backend's address is not believed.
static void test_journal_hole(void **state)
{
	struct bench b;
	bench_init(&b);
	assert_int_equal(snapshot_registry_restore(b.registry, "kept 0 dnat 5 9 300"), 0);
	assert_int_equal(
		snapshot_registry_restore(b.registry, "backend 0 8080 10.9.0.2 default/web/http"),
		0);
	assert_int_equal(snapshot_registry_restore(b.registry, "kept 1 dnat 6 9 300"), 0);
	assert_int_equal(
		snapshot_registry_restore(b.registry, "backend 1 8080 10.9.0.3 default/web/http"),
		0);
	assert_int_equal(snapshot_registry_restore(b.registry, "slot 5 10.9.0.1"), 0);
	assert_int_equal(snapshot_registry_restore(b.registry, "kept 2 dnat 5 9 300"), 0);
	bench_build(&b);
	assert_int_equal(row_of(&b, "web", BACKEND(2), 8080)->own_slot, SNAPSHOT_SLOT_NONE);
	assert_int_equal(row_of(&b, "web", BACKEND(3), 8080)->own_slot, SNAPSHOT_SLOT_NONE);
	assert_int_equal(kind_of(&b, BACKEND(1), NULL), SNAPSHOT_OWN_NONE);
	assert_true(row_of(&b, "web", BACKEND(2), 8080)->policy < b.s->n_policies);
	// A second line without its first gives nothing to whoever gets the number.
	bench_put(&b, make_web(1));
	bench_build(&b);
	assert_int_equal(web(&b)->members[0], 2);
	assert_int_equal(kind_of(&b, BACKEND(1), NULL), SNAPSHOT_OWN_NONE);
	bench_fini(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rows),
		cmocka_unit_test(test_client_address),
		cmocka_unit_test(test_tunnel_sources),
		cmocka_unit_test(test_digest),
		cmocka_unit_test(test_ranges),
		cmocka_unit_test(test_backend_slots),
		cmocka_unit_test(test_backend_is_own),
		cmocka_unit_test(test_links),
		cmocka_unit_test(test_mode_changes),
		cmocka_unit_test(test_too_many_slots),
		cmocka_unit_test(test_families_cross),
		cmocka_unit_test(test_families_uncross),
		cmocka_unit_test(test_drain_timeout),
		cmocka_unit_test(test_policy_stays),
		cmocka_unit_test(test_journal),
		cmocka_unit_test(test_journal_number_again),
		cmocka_unit_test(test_journal_hole),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
