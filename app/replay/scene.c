// SPDX-License-Identifier: BSD-3-Clause
// Builds the tables of one worker in ordinary memory, the way the daemon does on its own.
#include "replay_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#define PORT_MAC                               \
	{                                      \
		{                              \
			0x02, 0, 0, 0, 0, 0x02 \
		}                              \
	}
#define GATEWAY_MAC                            \
	{                                      \
		{                              \
			0x02, 0, 0, 0, 0, 0x01 \
		}                              \
	}

int replay_load_services(const char *path, const struct service_defaults *defaults,
	struct kube_result *out, struct error *err)
{
	FILE *file = fopen(path, "rb");
	if (file == NULL)
		return error_add(err, errno, path, "cannot be read: %s", strerror(errno));
	char *text = NULL;
	size_t len = 0;
	FILE *memory = open_memstream(&text, &len);
	char chunk[65536];
	size_t n;
	while (memory && (n = fread(chunk, 1, sizeof(chunk), file)) > 0 &&
		len < KUBE_FILE_MAX_BYTES)
		fwrite(chunk, 1, n, memory);
	fclose(file);
	if (memory == NULL || fclose(memory) != 0) {
		free(text);
		return error_add(err, ENOMEM, path, "out of memory");
	}
	int rc = kube_decode_file(text, len, path, defaults, out, err);
	free(text);
	return rc;
}

// A default gateway per family at index 0, and a host route for every neighbour that was named.
static int scene_routes(struct replay_scene *scene, struct error *err)
{
	const struct replay_setup *setup = scene->setup;
	struct nexthop_table *table = &scene->pipeline.nexthops;
	table->n_entries = setup->n_neighbours + 1;
	table->entries = calloc(table->n_entries, sizeof(*table->entries));
	struct nexthop_route *routes = calloc(setup->n_neighbours + 2u, sizeof(*routes));
	if (table->entries == NULL || routes == NULL) {
		free(routes);
		return error_add(err, ENOMEM, "", "out of memory");
	}
	struct mac gateway = GATEWAY_MAC;
	nexthop_store(table, 0, &gateway, 0, NEXTHOP_VALID);
	routes[0] = (struct nexthop_route){ .prefix = { address_from_v4(0), 0 } };
	routes[1] = (struct nexthop_route){ .nexthop = 0 };
	for (uint32_t i = 0; i < setup->n_neighbours; i++) {
		const struct replay_neighbour *neighbour = &setup->neighbours[i];
		uint8_t len = address_is_v4(&neighbour->address) ? 32 : 128;
		table->entries[i + 1].address = neighbour->address;
		nexthop_store(table, (uint16_t)(i + 1), &neighbour->mac, 0, NEXTHOP_VALID);
		routes[i + 2] = (struct nexthop_route){
			.prefix = { neighbour->address, len },
			.nexthop = (uint16_t)(i + 1),
		};
	}
	scene->fib = nexthop_fib_create(routes, setup->n_neighbours + 2u, 1);
	free(routes);
	return scene->fib ? 0 : error_add(err, ENOMEM, "", "out of memory");
}

static int scene_snat(struct replay_scene *scene, struct error *err)
{
	const struct replay_setup *setup = scene->setup;
	struct snat_config *config = calloc(1, sizeof(*config));
	if (config == NULL)
		return error_add(err, ENOMEM, "", "out of memory");
	config->n_addresses = (uint16_t)setup->n_snat;
	config->port_min = setup->snat_port_min;
	config->port_max = setup->snat_port_max;
	config->n_workers = 1;
	int rc = 0;
	for (uint32_t i = 0; i < setup->n_snat && rc == 0; i++) {
		config->addresses[i] = setup->snat[i];
		rc = snapshot_registry_slot(scene->registry, &setup->snat[i], &config->slots[i]);
	}
	size_t size = (snat_size(config, 0) + 63) & ~(size_t)63;
	scene->snat_memory = aligned_alloc(64, size);
	if (rc == 0 && scene->snat_memory)
		rc = snat_init(scene->snat_memory, size, config, 0, &scene->pipeline.snat);
	else if (rc == 0)
		rc = -ENOMEM;
	free(config);
	return rc == 0 ? 0 : error_add(err, -rc, "snat", "cannot be laid out: %s", strerror(-rc));
}

static int scene_flows(struct replay_scene *scene, struct error *err)
{
	uint32_t capacity = scene->setup->flow_capacity;
	scene->flow_bytes = flow_table_size(capacity);
	// mmap, not malloc: pages that no flow touches cost nothing
	scene->flow_memory = mmap(NULL, scene->flow_bytes, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (scene->flow_memory == MAP_FAILED) {
		scene->flow_memory = NULL;
		return error_add(err, ENOMEM, "flows.capacity", "no memory for %u flows", capacity);
	}
	int rc = flow_table_init(&scene->pipeline.flows, scene->flow_memory, scene->flow_bytes,
		capacity, &scene->setup->key);
	return rc == 0 ? 0
		       : error_add(err, -rc, "flows.capacity", "%u: %s", capacity, strerror(-rc));
}

// Flows of one-way modes, and counters of backends, which least connections goes by.
static int scene_oneway(struct replay_scene *scene, struct error *err)
{
	struct pipeline *p = &scene->pipeline;
	struct oneway_capacity capacity = { scene->setup->flow_capacity,
		scene->setup->flow_capacity };
	scene->oneway_bytes = oneway_size(capacity);
	scene->oneway_memory = mmap(NULL, scene->oneway_bytes, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	scene->backend_counters = aligned_alloc(64, REPLAY_BACKENDS * sizeof(*p->backend_counters));
	if (scene->oneway_memory == MAP_FAILED || scene->backend_counters == NULL) {
		if (scene->oneway_memory == MAP_FAILED)
			scene->oneway_memory = NULL;
		return error_add(err, ENOMEM, "flows.capacity", "no memory for %u flows",
			scene->setup->flow_capacity);
	}
	memset(scene->backend_counters, 0, REPLAY_BACKENDS * sizeof(*p->backend_counters));
	p->backend_counters = scene->backend_counters;
	p->n_backend_counters = REPLAY_BACKENDS;
	size_t size = fragments_size(FRAGMENTS_DATAGRAMS);
	scene->fragments_memory = aligned_alloc(64, size);
	if (scene->fragments_memory == NULL ||
		fragments_init(scene->fragments_memory, size, FRAGMENTS_DATAGRAMS,
			&scene->setup->key, &p->fragments) != 0)
		return error_add(err, ENOMEM, "", "no memory for fragments");
	int rc = oneway_init(&p->oneway, scene->oneway_memory, scene->oneway_bytes, capacity,
		&scene->setup->key);
	return rc == 0 ? 0
		       : error_add(err, -rc, "flows.capacity", "one-way table: %s", strerror(-rc));
}

static int scene_compile(struct replay_scene *scene, struct error *err)
{
	struct snapshot *built = NULL;
	struct snapshot_input input = {
		.store = scene->store,
		.registry = scene->registry,
		.snat = scene->setup->snat,
		.n_snat = scene->setup->n_snat,
		.fib = scene->fib,
		.generation = scene->generation + 1,
		.wall_ms = scene->wall_ms,
		.previous = scene->snapshot,
	};
	int rc = snapshot_build(&input, &built, err);
	if (rc != 0)
		return rc;
	if (scene->snapshot)
		snapshot_destroy(scene->snapshot);
	scene->snapshot = built;
	scene->pipeline.snapshot = built;
	scene->generation++;
	return 0;
}

int replay_scene_change(
	struct replay_scene *scene, const struct kube_result *services, struct error *err)
{
	uint32_t n_changed = 0;
	int rc = service_store_replace_owner(scene->store, SERVICE_OWNER_FILE, services->services,
		services->n_services, &n_changed, err);
	return rc == 0 ? scene_compile(scene, err) : rc;
}

int replay_scene_clock(struct replay_scene *scene, int64_t wall_ms, struct error *err)
{
	scene->wall_ms = wall_ms;
	if (wall_ms < snapshot_registry_next_reset_ms(scene->registry))
		return 0;
	return scene_compile(scene, err);
}

int replay_scene_init(struct replay_scene *scene, const struct replay_setup *setup,
	const struct kube_result *services, struct error *err)
{
	struct pipeline *p = &scene->pipeline;
	scene->setup = setup;
	scene->store = service_store_create();
	scene->registry = snapshot_registry_create();
	if (scene->store == NULL || scene->registry == NULL)
		return error_add(err, ENOMEM, "", "out of memory");
	pipeline_init(p);
	p->n_workers = 1;
	p->counters = &scene->counters;
	p->snat_port_min = setup->snat_port_min;
	p->snat_port_max = setup->snat_port_max;
	p->check_mac = true;
	p->ports[0] = (struct pipeline_port){ .mac = PORT_MAC, .mtu = setup->mtu, .present = true };
	int rc = scene_routes(scene, err);
	if (rc == 0)
		rc = scene_snat(scene, err);
	if (rc == 0)
		rc = scene_flows(scene, err);
	if (rc == 0)
		rc = scene_oneway(scene, err);
	if (rc == 0)
		rc = replay_scene_change(scene, services, err);
	return rc;
}

void replay_scene_fini(struct replay_scene *scene)
{
	if (scene->snapshot)
		snapshot_destroy(scene->snapshot);
	if (scene->registry)
		snapshot_registry_destroy(scene->registry);
	if (scene->store)
		service_store_destroy(scene->store);
	nexthop_fib_destroy(scene->fib);
	free(scene->pipeline.nexthops.entries);
	free(scene->snat_memory);
	if (scene->flow_memory)
		munmap(scene->flow_memory, scene->flow_bytes);
	if (scene->oneway_memory)
		munmap(scene->oneway_memory, scene->oneway_bytes);
	free(scene->backend_counters);
	free(scene->fragments_memory);
}
