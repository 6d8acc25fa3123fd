// SPDX-License-Identifier: BSD-3-Clause
// Address pools, of the configuration and of the cluster (AddressPool objects), as ipam takes them; and the question that every
// node asks of a recorded VIP before it serves it: is it in a pool that is for this Service?
#include "core_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

// ---------------------------------------------------------------- of the configuration

static int pool_copy(struct cluster_pool *to, const struct source_cluster_pool *from)
{
	to->name = strdup(from->name);
	to->ranges = calloc(from->n_ranges + 1, sizeof(*to->ranges));
	to->namespaces = calloc(from->n_namespaces + 1, sizeof(char *));
	if (!to->name || !to->ranges || !to->namespaces)
		return -ENOMEM;
	for (uint32_t i = 0; i < from->n_ranges; i++)
		to->ranges[i] = (struct ipam_range){ from->ranges[i].first, from->ranges[i].last };
	to->n_ranges = from->n_ranges;
	for (uint32_t i = 0; i < from->n_namespaces; i++) {
		to->namespaces[i] = strdup(from->namespaces[i]);
		if (to->namespaces[i] == NULL)
			return -ENOMEM;
		to->n_namespaces++;
	}
	to->priority = from->priority;
	to->auto_assign = from->auto_assign;
	return 0;
}

void cluster_pools_fini(struct source_cluster *c)
{
	for (uint32_t i = 0; i < c->n_pools; i++) {
		for (uint32_t k = 0; k < c->pools[i].n_namespaces; k++)
			free(c->pools[i].namespaces[k]);
		free(c->pools[i].namespaces);
		free(c->pools[i].ranges);
		free(c->pools[i].name);
	}
	free(c->pools);
	ipam_destroy(c->ipam);
	error_fini(&c->pool_findings);
	free(c->refused);
	c->refused = NULL;
	c->pools = NULL;
	c->ipam = NULL;
	c->n_pools = 0;
}

static const struct cluster_pool *own_pool(const struct source_cluster *c, const char *name)
{
	for (uint32_t i = 0; i < c->n_pools; i++)
		if (strcmp(c->pools[i].name, name) == 0)
			return &c->pools[i];
	return NULL;
}

// ---------------------------------------------------------------- of the cluster

static bool listed_pool(const struct source_cluster *c, const char *name, struct kube_pool *out)
{
	for (uint32_t i = 0; kube_cluster_pool_at(c->model, i, out); i++)
		if (strcmp(out->name, name) == 0)
			return true;
	return false;
}

static bool selects(void *arg, const char *pool, const char *namespace, const char *name)
{
	const struct source_cluster *c = arg;
	const struct cluster_pool *own = own_pool(c, pool);
	struct kube_pool listed;
	if (own == NULL) {
		// A hostname's labels are those of its Service.
		struct source_cluster *rw = arg;
		const struct cluster_record *record =
			cluster_record_find(&rw->records, namespace, name, false);
		return listed_pool(c, pool, &listed) &&
		       kube_cluster_pool_serves(c->model, &listed, namespace,
			       record && record->object ? record->object : name);
	}
	for (uint32_t i = 0; i < own->n_namespaces; i++)
		if (strcmp(own->namespaces[i], namespace) == 0)
			return true;
	return own->n_namespaces == 0;
}

struct pool_draft { // what ipam is given
	struct ipam_pool *pools;
	uint32_t n_pools, pools_cap;
	struct kube_pool_form *forms; // of those of the cluster, whose ranges are theirs
	uint32_t n_forms, forms_cap;
};

static void draft_fini(struct pool_draft *draft)
{
	for (uint32_t i = 0; i < draft->n_forms; i++)
		kube_pool_form_fini(&draft->forms[i]);
	free(draft->forms);
	free(draft->pools);
}

static int draft_add(struct pool_draft *draft, const struct ipam_pool *pool)
{
	if (array_grow(draft->pools, draft->n_pools, draft->pools_cap) != 0)
		return -ENOMEM;
	draft->pools[draft->n_pools++] = *pool;
	return 0;
}

static int draft_add_own(struct pool_draft *draft, const struct cluster_pool *own)
{
	struct ipam_pool pool = {
		.name = own->name,
		.ranges = own->ranges,
		.n_ranges = own->n_ranges,
		.priority = (int32_t)own->priority,
		.auto_assign = own->auto_assign,
		.is_pinned = own->n_namespaces > 0,
	};
	return draft_add(draft, &pool);
}

static int draft_add_listed(
	struct source_cluster *c, struct pool_draft *draft, const struct kube_pool *listed)
{
	char line[400];
	if (array_grow(draft->forms, draft->n_forms, draft->forms_cap) != 0)
		return -ENOMEM;
	struct kube_pool_form *form = &draft->forms[draft->n_forms];
	if (kube_pool_read(listed, form) != 0)
		return -ENOMEM;
	draft->n_forms++;
	for (uint32_t i = 0; i < form->findings.n_items; i++)
		cluster_say(&c->voice, LOG_LEVEL_WARN, "pool-refused", listed->name, "%s",
			error_format(&form->findings, i, line, sizeof(line)));
	return draft_add(draft, &form->pool);
}

static struct ipam_range range_of(const struct prefix *prefix)
{
	uint32_t n_fixed = prefix->len + (address_is_v4(&prefix->address) ? 96u : 0u);
	struct ipam_range range = { prefix->address, prefix->address };
	for (uint32_t bit = n_fixed; bit < 128; bit++) {
		range.first.bytes[bit / 8] &= (uint8_t) ~(0x80u >> bit % 8);
		range.last.bytes[bit / 8] |= (uint8_t)(0x80u >> bit % 8);
	}
	return range;
}

static int pools_set(struct source_cluster *c, const struct pool_draft *draft, struct error *err)
{
	struct ipam_range *reserved = calloc(c->n_refused + 1, sizeof(*reserved));
	if (reserved == NULL)
		return -ENOMEM;
	for (uint32_t i = 0; i < c->n_refused; i++)
		reserved[i] = range_of(&c->refused[i]);
	int rc = ipam_set_pools(c->ipam, draft->pools, draft->n_pools, reserved, c->n_refused, err);
	free(reserved);
	return rc;
}

static int pools_put(struct source_cluster *c)
{
	struct pool_draft draft = { 0 };
	struct kube_pool listed;
	struct error err = { 0 };
	char line[400];
	int rc = 0;
	for (uint32_t i = 0; i < c->n_pools && rc == 0; i++)
		rc = draft_add_own(&draft, &c->pools[i]);
	for (uint32_t i = 0; rc == 0 && c->model && kube_cluster_pool_at(c->model, i, &listed); i++)
		rc = draft_add_listed(c, &draft, &listed);
	if (rc == 0)
		rc = pools_set(c, &draft, &err);
	for (uint32_t i = 0; i < err.n_items; i++)
		cluster_say(&c->voice, LOG_LEVEL_WARN, "pool-refused",
			err.items[i].path ? err.items[i].path : "", "%s",
			error_format(&err, i, line, sizeof(line)));
	error_fini(&c->pool_findings);
	c->pool_findings = err;
	draft_fini(&draft);
	return rc;
}

// ---------------------------------------------------------------- public

void cluster_pools_look(struct source_cluster *c)
{
	uint64_t generation = kube_cluster_pools_generation(c->model);
	if (generation == c->pools_generation)
		return;
	if (pools_put(c) != 0)
		return; // the next look
	c->pools_generation = generation;
	kube_cluster_recheck(c->model);
}

// Pools that could not be read (no permission, yet) forbid nothing that is served already.
bool cluster_pools_allow(
	void *arg, const char *namespace, const char *name, const struct address *vip)
{
	struct source_cluster *c = arg;
	if (ipam_allows(c->ipam, namespace, name, vip))
		return true;
	if (!c->feeds[KUBE_CLUSTER_POOLS].is_waived)
		return false;
	const struct service *served =
		service_store_find(control_store(c->control), namespace, name);
	for (uint32_t i = 0; served && i < served->n_addresses; i++)
		if (served->owner == SERVICE_OWNER_KUBERNETES &&
			address_equal(&served->addresses[i], vip))
			return true;
	return false;
}

int cluster_pools_init(
	struct source_cluster *c, const struct source_cluster_config *config, struct error *err)
{
	int rc = 0;
	c->ipam = ipam_create(selects, c);
	c->pools = calloc(config->n_pools + 1, sizeof(*c->pools));
	if (c->ipam == NULL || c->pools == NULL)
		rc = -ENOMEM;
	for (uint32_t i = 0; i < config->n_pools && rc == 0; i++) {
		c->n_pools++;
		rc = pool_copy(&c->pools[i], &config->pools[i]);
	}
	if (rc == 0)
		rc = pools_put(c);
	return rc ? error_add(err, ENOMEM, "kubernetes.pools", "out of memory") : 0;
}
