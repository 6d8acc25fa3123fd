// SPDX-License-Identifier: BSD-3-Clause
// Objects from anybody into the model of the cluster: one JSON value a line, its first character says which resource and what:
// S service, E slice, N node, A namespace, P pool, O pod put; lower case: removed; '-' a drain; '0'..'5' begin, '6'..'9' end.
//
// Two states: what is done with the changes is what the model says is to be served. Each put is a valid service that finds its
// addresses free and differs from what was there; and after all, once every object has been put again in a list (last
// good ones stay as they are), there is no change left.
#include <stdlib.h>
#include <string.h>

#include "kube_cluster.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

struct world {
	struct kube_cluster *cluster;
	struct service_store *store;
};

static void apply(struct world *w, const struct kube_change *change)
{
	bool is_changed = false;
	if ((change->kind == KUBE_PUT) != (change->service != NULL))
		abort();
	if (change->kind == KUBE_PUT) {
		if (strcmp(change->service->name, change->name) ||
			service_store_put(w->store, change->service, &is_changed, NULL) != 0 ||
			!is_changed)
			abort();
	} else if (change->kind == KUBE_REMOVE) {
		service_store_remove(
			w->store, change->namespace, change->name, SERVICE_OWNER_KUBERNETES, NULL);
	}
	if (change->is_gone && service_store_find(w->store, change->namespace, change->name))
		abort();
	if (change->is_refused && change->findings->n_items == 0)
		abort();
}

static void drain(struct world *w)
{
	struct kube_change change;
	struct kube_pod pod;
	while (kube_cluster_next(w->cluster, &change))
		apply(w, &change);
	while (kube_cluster_next_pod(w->cluster, &pod))
		;
}

static void put(struct world *w, enum kube_cluster_resource resource, const char *text, size_t len)
{
	json_t *json = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
	if (json && kube_cluster_put(w->cluster, resource, json) != 0)
		abort();
	json_decref(json);
}

static void take_line(struct world *w, const char *line, size_t len)
{
	static const char puts[] = "SENAPO", removes[] = "senapo";
	char name[2][64] = { "", "" };
	const char *at = len ? memchr(puts, line[0], 6) : NULL;
	if (len == 0)
		return;
	if (at) {
		put(w, (enum kube_cluster_resource)(at - puts), line + 1, len - 1);
	} else if ((at = memchr(removes, line[0], 6))) {
		char copy[140];
		snprintf(
			copy, sizeof(copy), "%.*s", (int)(len - 1 < 139 ? len - 1 : 139), line + 1);
		sscanf(copy, "%63[^/]/%63s", name[0], name[1]);
		bool has_namespace = name[1][0] != '\0';
		kube_cluster_remove(w->cluster, (enum kube_cluster_resource)(at - removes),
			has_namespace ? name[0] : "", has_namespace ? name[1] : name[0]);
	} else if (line[0] >= '0' && line[0] <= '2') {
		kube_cluster_begin(w->cluster, (enum kube_cluster_resource)(line[0] - '0'));
	} else if (line[0] >= '3' && line[0] <= '5') {
		kube_cluster_end(w->cluster, (enum kube_cluster_resource)(line[0] - '3'));
	} else if (line[0] == '6') {
		kube_cluster_recheck(w->cluster);
	} else {
		drain(w);
	}
}

static bool is_even(void *arg, const char *namespace, const char *name, const struct address *vip)
{
	return vip->bytes[15] % 2 == 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
	struct kube_change change;
	struct kube_cluster_config config = { .defaults = service_defaults_builtin(),
		.class_name = "c",
		.is_default_class = true,
		.zone = "a",
		.allowed = is_even };
	struct world w = { kube_cluster_create(&config), service_store_create() };
	for (int i = 0; i < 3; i++) {
		kube_cluster_begin(w.cluster, (enum kube_cluster_resource)i);
		kube_cluster_end(w.cluster, (enum kube_cluster_resource)i);
	}
	const char *at = (const char *)bytes, *end = at + size;
	while (at < end) {
		const char *newline = memchr(at, '\n', (size_t)(end - at));
		size_t len = (size_t)((newline ? newline : end) - at);
		take_line(&w, at, len);
		at += len + 1;
	}
	drain(&w);
	kube_cluster_recheck(w.cluster);
	if (kube_cluster_next(w.cluster, &change))
		abort(); // nothing has changed
	service_store_destroy(w.store);
	kube_cluster_destroy(w.cluster);
	return 0;
}
