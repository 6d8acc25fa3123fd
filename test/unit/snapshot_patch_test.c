// SPDX-License-Identifier: BSD-3-Clause
// A snapshot patched from the one before against one compiled whole, over random stories: whoever reads them cannot tell them
// apart, and both registries have every number in the same state. (Numbers themselves may differ: what they mean is compared.)
#include "../../lib/snapshot/build_priv.h"
#include "snapshot_bench.h"

#define N_SERVICES  8
#define N_ADDRESSES 12
#define N_STORIES   150
#define N_STEPS     60

struct side {
	struct snapshot_registry *registry;
	struct snapshot *s;
};

struct story {
	struct service_store *store;
	struct side sides[2]; // patched where that may be, whole
	uint64_t generation;
	uint64_t pass;
	int64_t wall_ms;
	bool is_down[N_ADDRESSES];
	struct address touched[N_ADDRESSES];
	uint32_t n_touched;
	bool is_whole; // something else has changed
	uint32_t n_patched;
	uint32_t n_spliced; // of these
	uint32_t n_steps;
};

static struct address backend_at(uint32_t i)
{
	if (i == 7)
		return VIP(3); // one of our own, while that service is there
	return i % 5 == 4 ? v6(i + 1) : BACKEND(i + 1);
}

static enum health_probe_verdict probe(void *arg, const struct service *s,
	const struct service_listener *l, const struct address *address, uint16_t port)
{
	const struct story *story = arg;
	for (uint32_t i = 0; i < N_ADDRESSES; i++) {
		struct address a = backend_at(i);
		if (address_equal(&a, address))
			return story->is_down[i] ? HEALTH_PROBE_DOWN : HEALTH_PROBE_UP;
	}
	return HEALTH_PROBE_UNKNOWN;
}

// ---------------------------------------------------------------- steps
static void random_backends(struct service *s, const char *const *listeners)
{
	uint32_t n = random_below(6);
	bool is_there[N_ADDRESSES] = { false };
	for (uint32_t i = 0; i < n; i++) {
		uint32_t k = random_below(N_ADDRESSES);
		struct address address = backend_at(k);
		if (is_there[k] || address_equal(&address, &s->addresses[0]))
			continue;
		is_there[k] = true;
		struct service_backend *b = service_add_backend(s);
		b->address = backend_at(k);
		b->weight = random_below(4) ? 100 : random_below(3);
		b->conditions.ready = random_below(3) > 0;
		b->conditions.serving = b->conditions.ready || random_below(2);
		b->conditions.terminating = random_below(5) == 0;
		for (uint32_t j = 0; j < s->n_listeners; j++) {
			if (random_below(5) == 0)
				continue;
			struct service_backend_port *p = service_backend_add_port(b);
			strcpy(p->listener, listeners[j]);
			bool keeps = s->mode >= SERVICE_MODE_IPIP ||
				     s->listeners[j].port_max > s->listeners[j].port;
			p->port = keeps ? s->listeners[j].port : (uint16_t)(8080 + random_below(2));
		}
	}
}

static struct service *random_service(uint32_t i, bool is_wild)
{
	static const char *const names[] = { "a", "b", "c" };
	char name[16];
	snprintf(name, sizeof(name), "s%u", i);
	struct service *s = make_service(name, VIP(i + 1));
	uint32_t n_listeners = 1 + i % 3;
	if (i % 2)
		*service_add_address(s) = v6(0x1000 + i);
	s->mode = (enum service_mode)(i % 4 == 3 ? SERVICE_MODE_IPIP : SERVICE_MODE_FULLNAT);
	if (is_wild) {
		s->mode = (enum service_mode)random_below(5);
		n_listeners = 1 + random_below(3);
		s->affinity_s = random_below(2) ? 60 : 0;
		s->tcp_idle_s = random_below(2) ? 900 : 600;
		s->drain_timeout_s = random_below(2) ? 300 : 1;
		s->scheduler = (enum service_scheduler)random_below(2);
	}
	for (uint32_t j = 0; j < n_listeners; j++) {
		add_listener(s, names[j], j == 1 ? NET_PROTO_UDP : NET_PROTO_TCP,
			(uint16_t)(80 + 100 * j));
		if (j == 2)
			s->listeners[j].port_max = 290;
	}
	if (is_wild && random_below(2))
		*service_add_source_range(s) =
			(struct prefix){ v4(0xc6336400u + 256 * random_below(2)), 24 };
	random_backends(s, names);
	return s;
}

static void step_put(struct story *t, bool is_wild)
{
	struct service *s = random_service(random_below(N_SERVICES), is_wild);
	struct error err = { 0 };
	char line[512];
	if (service_store_put(t->store, s, NULL, &err) != 0)
		fail_msg("%s", error_first(&err, line, sizeof(line)));
	service_destroy(s);
}

// One thing of a service that is there, and nothing else.
static void step_policy(struct story *t)
{
	const struct service *had =
		service_store_at(t->store, random_below(service_store_count(t->store) + 1));
	struct service *s = had ? service_clone(had) : NULL;
	uint32_t what = random_below(6);
	if (s == NULL)
		return;
	if (what == 0 && s->n_source_ranges == 0)
		*service_add_source_range(s) = (struct prefix){ v4(0xc6336400u), 24 };
	else if (what <= 1 && s->n_source_ranges)
		s->source_ranges[0].address.bytes[14] ^= 1;
	else if (what == 2)
		s->affinity_s ^= 60;
	else if (what == 3)
		s->scheduler = (enum service_scheduler) !s->scheduler;
	else if (what == 4)
		s->udp_idle_s ^= 1;
	else
		s->drain_timeout_s ^= 1;
	assert_int_equal(service_store_put(t->store, s, NULL, NULL), 0);
	service_destroy(s);
}

static void step_health(struct story *t)
{
	uint32_t k = random_below(N_ADDRESSES);
	t->is_down[k] = !t->is_down[k];
	if (t->n_touched < N_ADDRESSES)
		t->touched[t->n_touched++] = backend_at(k);
	else
		t->is_whole = true;
}

static void step_overlay(struct story *t)
{
	struct service_overlay o = { .namespace = "default" };
	snprintf(o.name, sizeof(o.name), "s%u", random_below(N_SERVICES));
	o.address = backend_at(random_below(N_ADDRESSES));
	o.draining = random_below(2);
	o.reset_on_deadline = random_below(2);
	o.deadline_ms = t->wall_ms + random_below(4000);
	o.has_weight = random_below(2);
	o.weight = random_below(3) * 50;
	service_store_put_overlay(t->store, &o);
}

static void step(struct story *t)
{
	uint32_t what = random_below(26);
	char name[16];
	if (what < 14) {
		step_put(t, false);
	} else if (what < 18) {
		step_health(t);
	} else if (what == 18 || what == 23) {
		step_put(t, true);
	} else if (what == 19) {
		step_overlay(t);
	} else if (what == 20) {
		snprintf(name, sizeof(name), "s%u", random_below(N_SERVICES));
		service_store_remove(t->store, "default", name, SERVICE_OWNER_KUBERNETES, NULL);
	} else if (what == 21) {
		t->wall_ms += random_below(3000);
	} else if (what == 22 && random_below(2)) {
		t->is_whole = true;
	} else if (what == 22) { // a build that was refused in the midst of asking
		registry_begin(t->sides[0].registry);
		registry_begin(t->sides[1].registry);
	} else {
		step_policy(t);
	}
}

// ---------------------------------------------------------------- equal?
static const char *id_text(const struct side *side, uint32_t id, char *buf, size_t len)
{
	char address[ADDRESS_TEXT_LEN];
	const struct registry_backend *b = &side->registry->backends[id];
	snprintf(buf, len, "%s %s %u", b->name ? b->name : "", address_format(&b->address, address),
		b->port);
	return buf;
}

static int compare_texts(const void *a, const void *b)
{
	return strcmp(a, b);
}

// What ids mean, in one line; sorted, since their order is that of the numbers.
static void ids_print(
	const struct side *side, const uint32_t *ids, uint32_t n, bool is_sorted, FILE *f)
{
	char lines[64][160];
	assert_true(n <= 64);
	for (uint32_t i = 0; i < n; i++)
		id_text(side, ids[i], lines[i], sizeof(lines[i]));
	if (is_sorted && n)
		qsort(lines, n, sizeof(lines[0]), compare_texts);
	for (uint32_t i = 0; i < n; i++)
		fprintf(f, " [%s]", lines[i]);
}

static void listener_print(const struct side *side, const struct snapshot_listener *l, FILE *f)
{
	const struct snapshot *s = side->s;
	char text[ADDRESS_TEXT_LEN + 4];
	const struct snapshot_policy *policy = &s->policies[l->policy];
	fprintf(f,
		"listener %s %u/%u-%u mode %u service %s affinity %u scheduler %u client %u idle "
		"%u %u\n",
		address_format(&s->own[l->slot].address, text), l->protocol, l->port, l->port_max,
		l->mode, s->services[l->service_idx].name, l->affinity_s, l->scheduler,
		l->client_address, policy->tcp_idle_s, policy->udp_idle_s);
	fprintf(f, "  vip %u %u, members", s->own[l->slot].kind, s->own[l->slot].tables);
	ids_print(side, l->members, l->n_members, false, f);
	fprintf(f, "\n  eligible");
	ids_print(side, l->eligible, l->n_eligible, true, f);
	for (uint32_t i = 1; i < l->n_eligible; i++)
		assert_true(l->eligible[i - 1] < l->eligible[i]);
	fprintf(f, "\n  sources");
	for (uint32_t i = 0; i < l->n_sources; i++)
		fprintf(f, " %s", prefix_format(&s->sources[l->first_source + i], text));
	fprintf(f, "\n  table %u %llx\n", l->table_size,
		(unsigned long long)(l->table_size ? hash_stable(l->table, l->table_size * 2ull, 0)
						   : 0));
}

static void backend_text(const struct side *side, uint32_t id, char *buf, size_t len)
{
	const struct snapshot *s = side->s;
	const struct snapshot_backend *b = &s->backends[id];
	const struct registry_backend *known = &side->registry->backends[id];
	char text[ADDRESS_TEXT_LEN], name[160];
	assert_int_equal(snapshot_backend_stays(s, id),
		(b->flags & SNAPSHOT_BACKEND_LISTED) && !(b->flags & SNAPSHOT_BACKEND_RESET));
	if (known->use.state == REGISTRY_FREE) {
		assert_int_equal(b->flags, 0);
		buf[0] = '\0';
		return;
	}
	const struct snapshot_policy *policy = &s->policies[b->policy];
	snprintf(buf, len,
		"backend %s is %s %u flags %u mode %u service %d listener %d weight %u own %s idle "
		"%u "
		"%u; %u %u; state %u gone %d\n",
		id_text(side, id, name, sizeof(name)), address_format(&b->address, text), b->port,
		b->flags, b->mode, (int)b->service_idx, (int)b->listener_idx, b->weight,
		b->own_slot == SNAPSHOT_SLOT_NONE ? "none" : "some", policy->tcp_idle_s,
		policy->udp_idle_s, s->idle[id].affinity_s, s->idle[id].policy == b->policy,
		known->use.state, (int)known->gone_ms);
}

static void address_print(const struct side *side, struct address address, FILE *f)
{
	const struct snapshot_address_cell *cell = snapshot_find_cell(side->s, &address);
	char text[ADDRESS_TEXT_LEN];
	fprintf(f, "address %s kind %u tables %u", address_format(&address, text), cell->kind,
		cell->tables);
	if (cell->slot != SNAPSHOT_SLOT_NONE) {
		const struct snapshot_own *own = &side->s->own[cell->slot];
		const struct registry_slot *slot = &side->registry->slots[cell->slot];
		assert_true(address_equal(&own->address, &address));
		assert_true(address_equal(&slot->address, &address));
		assert_int_equal(side->s->own_v4[cell->slot],
			address_is_v4(&address) ? address_v4(&address) : 0);
		fprintf(f, " own %u %u ranges %u state %u", own->kind, own->tables, own->n_ranges,
			slot->use.state);
	}
	fputc('\n', f);
}

static void numbers_print(const struct side *side, FILE *f)
{
	const struct snapshot_registry *r = side->registry;
	uint32_t n_slots[3] = { 0 }, n_policies[3] = { 0 };
	for (uint32_t i = 0; i < r->n_slots; i++)
		n_slots[r->slots[i].use.state]++;
	for (uint32_t i = 0; i < r->n_policies; i++)
		n_policies[r->policies[i].use.state]++;
	fprintf(f, "slots %u used %u released, policies %u used %u released\n",
		n_slots[REGISTRY_USED], n_slots[REGISTRY_RELEASED], n_policies[REGISTRY_USED],
		n_policies[REGISTRY_RELEASED]);
}

static void lookups_print(const struct side *side, FILE *f)
{
	numbers_print(side, f);
	for (uint32_t i = 0; i < N_ADDRESSES; i++)
		address_print(side, backend_at(i), f);
	for (uint32_t i = 0; i < N_SERVICES; i++) {
		address_print(side, VIP(i + 1), f);
		address_print(side, v6(0x1000 + i), f);
	}
	for (uint32_t i = 0; i < N_SERVICES; i++)
		for (uint32_t port = 80; port < 300; port += 50) {
			const struct snapshot_listener *l = find(side->s, VIP(i + 1),
				port == 180 ? NET_PROTO_UDP : NET_PROTO_TCP, (uint16_t)port);
			fprintf(f, "%d ", l ? (int)(l - side->s->listeners) : -1);
			char text[160] = "";
			struct address client = v4(0xc6120000u + i);
			struct snapshot_pick pick = { .backend_id = SNAPSHOT_BACKEND_NONE };
			if (l)
				pick = snapshot_pick(side->s, l,
					snapshot_pick_hash(
						l, &client, RTE_BE16(4711), RTE_BE16(80)));
			fprintf(f, "%s\n",
				pick.backend_id == SNAPSHOT_BACKEND_NONE
					? "nobody"
					: id_text(side, pick.backend_id, text, sizeof(text)));
		}
}

// All that can be seen of it, as text in heap memory.
static char *describe(const struct side *side)
{
	char *text = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&text, &len);
	const struct snapshot *s = side->s;
	fprintf(f, "generation %llu digest %llx services %u listeners %u next reset %lld\n",
		(unsigned long long)s->generation, (unsigned long long)s->digest, s->n_services,
		s->n_listeners, (long long)side->registry->next_reset_ms);
	for (uint32_t i = 0; i < s->n_listeners; i++)
		listener_print(side, &s->listeners[i], f);
	char(*lines)[512] = calloc(s->n_backends + 1, sizeof(*lines));
	assert_int_equal(s->n_backends, side->registry->n_backends);
	for (uint32_t id = 0; id < s->n_backends; id++)
		backend_text(side, id, lines[id], sizeof(lines[id]));
	qsort(lines, s->n_backends, sizeof(*lines), compare_texts);
	for (uint32_t id = 0; id < s->n_backends; id++)
		fputs(lines[id], f);
	free(lines);
	lookups_print(side, f);
	fclose(f);
	return text;
}

// ---------------------------------------------------------------- the story
static bool is_patch_of(const struct snapshot *next, const struct snapshot *before)
{
	return build_compiled_of(next)->root == build_compiled_of(before)->root;
}

static void build_side(struct story *t, struct side *side, const struct snapshot_touched *touched)
{
	struct address snat[] = { v4(0xc0000201u), backend_at(9) };
	struct snapshot *next = NULL;
	struct error err = { 0 };
	char line[512];
	struct snapshot_input input = { .store = t->store,
		.registry = side->registry,
		.health = { .probe = probe, .arg = t },
		.snat = snat,
		.n_snat = ARRAY_SIZE(snat),
		.generation = t->generation,
		.wall_ms = t->wall_ms,
		.previous = side->s,
		.touched = touched };
	if (snapshot_build(&input, &next, &err) != 0)
		fail_msg("%s", error_first(&err, line, sizeof(line)));
	if (touched && side->s && is_patch_of(next, side->s)) {
		t->n_patched++;
		t->n_spliced += next->own != side->s->own;
	}
	snapshot_destroy(side->s);
	side->s = next;
	snapshot_registry_release(side->registry, t->pass);
}

static void build_both(struct story *t)
{
	struct snapshot_touched touched = { t->touched, t->n_touched };
	t->generation++;
	t->pass++;
	build_side(t, &t->sides[0], t->is_whole ? NULL : &touched);
	build_side(t, &t->sides[1], NULL);
	t->n_touched = 0;
	t->is_whole = false;
	char *patched = describe(&t->sides[0]), *whole = describe(&t->sides[1]);
	if (strcmp(patched, whole))
		fail_msg("step %u, patched:\n%s\nwhole:\n%s", t->n_steps, patched, whole);
	free(patched);
	free(whole);
	if (random_below(6) == 0) {
		uint64_t safe = t->pass - random_below(3);
		snapshot_registry_reclaim(t->sides[0].registry, safe);
		snapshot_registry_reclaim(t->sides[1].registry, safe);
	}
}

static void story_begin(struct story *t)
{
	*t = (struct story){ .store = service_store_create(), .wall_ms = 1000000 };
	for (int i = 0; i < 2; i++)
		t->sides[i].registry = snapshot_registry_create();
}

static void story_end(struct story *t)
{
	for (int i = 0; i < 2; i++) {
		snapshot_destroy(t->sides[i].s);
		snapshot_registry_destroy(t->sides[i].registry);
	}
	service_store_destroy(t->store);
}

static uint32_t play(uint64_t seed, uint32_t *out_patched, uint32_t *out_spliced)
{
	struct story t;
	story_begin(&t);
	random_state = seed;
	uint32_t n = 1 + random_below(N_STEPS);
	for (t.n_steps = 0; t.n_steps < n; t.n_steps++) {
		for (uint32_t i = random_below(4); i > 0; i--)
			step(&t);
		build_both(&t);
	}
	story_end(&t);
	*out_patched += t.n_patched;
	*out_spliced += t.n_spliced;
	return n;
}

static void test_stories(void **state)
{
	const char *seed = getenv("SEED");
	uint32_t n = 0, n_patched = 0, n_spliced = 0;
	for (uint64_t i = 0; i < N_STORIES; i++) {
		uint64_t this = (seed ? strtoull(seed, NULL, 0) : 0x5eed0000) + i;
		if (i == 0 || seed)
			print_message("seed %#llx\n", (unsigned long long)this);
		n += play(this, &n_patched, &n_spliced);
		if (seed)
			return;
	}
	print_message(
		"%u builds, %u of them patched, %u of these spliced\n", n, n_patched, n_spliced);
	assert_true(n_patched > n / 2 && n_spliced > n / 8);
	assert_true(n_patched - n_spliced > n / 8);
}

// A VIP that is the address of a dnat backend, too: goes, comes, and goes when the backend is known by it in other days only.
static void test_vip_and_backend(void **state)
{
	struct story t;
	story_begin(&t);
	random_seed(3);
	for (uint32_t i = 0; i < 12; i++) {
		struct service *dnat = make_service("a", VIP(1)),
			       *other = make_service("b", VIP(3));
		add_listener(dnat, "http", NET_PROTO_TCP, 80);
		add_listener(other, "http", NET_PROTO_TCP, 80);
		add_backend(dnat, i == 6 ? BACKEND(9) : VIP(3), 80, 100);
		dnat->mode = i < 9 ? SERVICE_MODE_DNAT : SERVICE_MODE_FULLNAT;
		assert_int_equal(service_store_put(t.store, dnat, NULL, NULL), 0);
		if (i % 2)
			assert_int_equal(service_store_put(t.store, other, NULL, NULL), 0);
		else
			service_store_remove(
				t.store, "default", "b", SERVICE_OWNER_KUBERNETES, NULL);
		service_destroy(dnat);
		service_destroy(other);
		build_both(&t);
	}
	assert_true(t.n_spliced >= 8);
	story_end(&t);
}

// One after the other, until there is too much scrap: then whole again, and on; old ones go in any order.
static void test_many_patches(void **state)
{
	struct snapshot *kept[7] = { NULL };
	struct service_store *store = service_store_create();
	struct snapshot_registry *registry = snapshot_registry_create();
	struct snapshot_touched touched = { NULL, 0 };
	struct snapshot *last = NULL;
	uint32_t n_whole = 0;
	for (uint32_t i = 0; i < 10000; i++) {
		struct service *s = make_web(1 + i % 3);
		s->backends[0].address = BACKEND(100 + i % 50);
		s->backends[0].weight = 1 + i;
		assert_int_equal(service_store_put(store, s, NULL, NULL), 0);
		service_destroy(s);
		struct snapshot *next = NULL;
		struct snapshot_input input = { .store = store,
			.registry = registry,
			.generation = i,
			.previous = last,
			.touched = &touched };
		assert_int_equal(snapshot_build(&input, &next, NULL), 0);
		n_whole += last == NULL || !is_patch_of(next, last);
		snapshot_registry_release(registry, i);
		snapshot_registry_reclaim(registry, i > 5 ? i - 5 : 0);
		snapshot_destroy(kept[i % 7]);
		kept[i % 7] = last = next;
	}
	assert_true(n_whole > 1 && n_whole < 100);
	for (int i = 0; i < 7; i++)
		snapshot_destroy(kept[(i * 3) % 7]);
	snapshot_registry_destroy(registry);
	service_store_destroy(store);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_stories),
		cmocka_unit_test(test_vip_and_backend),
		cmocka_unit_test(test_many_patches),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
