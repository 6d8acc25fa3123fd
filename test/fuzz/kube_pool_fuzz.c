// SPDX-License-Identifier: BSD-3-Clause
// One JSON object from anybody, taken for an AddressPool and for a Service that carries our status: pools, a run of the allocator
// over them, what was seen. Nobody gets an address outside a pool, or one that another has; ranges print as they are read.
#include <stdlib.h>
#include <string.h>

#include "kube_encode.h"
#include "kube_pool.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static void check(bool claim)
{
	if (!claim)
		abort();
}

static void check_range(const struct ipam_range *range)
{
	char text[2 * ADDRESS_TEXT_LEN];
	struct ipam_range again;
	ipam_range_format(range, text, sizeof(text));
	check(ipam_range_parse(text, &again, "", NULL) == 0);
	check(address_equal(&again.first, &range->first) &&
		address_equal(&again.last, &range->last));
}

static void put(struct ipam *ipam, char name, const struct kube_pool_form *form)
{
	char text[2] = { name, 0 };
	struct ipam_port port = { 6, 80, 80 };
	struct ipam_request request = { .namespace = "ns",
		.name = text,
		.uid = text,
		.families = { IPAM_V4, IPAM_V6 },
		.n_families = 2,
		.policy = (enum ipam_policy)(name % 3),
		.pool = name == 'a' ? form->pool.name : "",
		.sharing_key = "",
		.backend_key = "",
		.ports = &port,
		.n_ports = 1 };
	if (name == 'b' && form->pool.n_ranges) {
		request.wanted[0] = form->ranges[0].last;
		request.n_wanted = 1;
	}
	check(ipam_put(ipam, &request) == 0);
}

static void run(const struct kube_pool_form *form)
{
	struct ipam *ipam = ipam_create(NULL, NULL);
	struct ipam_answer answer;
	struct address given[16];
	uint32_t n = 0;
	check(ipam && ipam_set_pools(ipam, &form->pool, 1, NULL, 0, NULL) == 0);
	for (char name = 'a'; name < 'h'; name++)
		put(ipam, name, form);
	check(ipam_run(ipam) == 0);
	while (ipam_next(ipam, &answer)) {
		for (uint32_t i = 0; i < answer.n_addresses; i++) {
			check(ipam_pool_of(ipam, &answer.addresses[i]) != NULL);
			for (uint32_t k = 0; k < n; k++)
				check(!address_equal(&given[k], &answer.addresses[i]));
			given[n++] = answer.addresses[i];
		}
	}
	ipam_destroy(ipam);
}

static void read_pool(const json_t *json)
{
	struct kube_cluster_config config = { .defaults = service_defaults_builtin(),
		.resources = 1 << KUBE_CLUSTER_POOLS };
	struct kube_cluster *c = kube_cluster_create(&config);
	struct kube_pool pool;
	struct kube_pool_form form;
	check(c != NULL);
	kube_cluster_put(c, KUBE_CLUSTER_POOLS, json);
	if (kube_cluster_pool_at(c, 0, &pool) && kube_pool_read(&pool, &form) == 0) {
		for (uint32_t i = 0; i < form.pool.n_ranges; i++)
			check_range(&form.ranges[i]);
		run(&form);
		kube_pool_form_fini(&form);
	}
	kube_cluster_destroy(c);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
	json_t *json = json_loadb((const char *)bytes, size, JSON_DECODE_ANY, NULL);
	struct kube_seen seen;
	struct kube_status want = { .finalizer = "", .allocation = "", .assigned = "" };
	if (json == NULL)
		return 0;
	kube_seen_read(json, KUBE_FINALIZER, &seen);
	kube_status_settle(&want, &seen, 1);
	kube_pool_seen_read(json, &seen);
	if (json_is_object(json))
		read_pool(json);
	json_decref(json);
	return 0;
}
