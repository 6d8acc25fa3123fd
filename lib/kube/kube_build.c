// SPDX-License-Identifier: BSD-3-Clause
// One face made a service: the form, the admitted addresses, the endpoints.
#include "kube_cluster_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int compare_slices(const void *a, const void *b)
{
	const struct kube_slice *x = a, *y = b;
	return strcmp(x->name, y->name);
}

// By name, so that what is said of them does not depend on the order in which they came. They pass for slices of the service.
static struct kube_slice *gather_slices(
	const struct kube_owner *owner, const struct service *s, uint32_t *out_n)
{
	uint32_t n = 0;
	const struct kube_packed_slice *slice;
	for (slice = owner->slices; slice; slice = slice->next)
		n++;
	struct kube_slice *slices = calloc(n + 1, sizeof(*slices));
	*out_n = 0;
	for (slice = owner->slices; slices && slice; slice = slice->next) {
		slices[*out_n] = slice->slice;
		slices[*out_n].namespace = s->namespace;
		slices[(*out_n)++].service = s->name;
	}
	if (*out_n > 1)
		qsort(slices, *out_n, sizeof(*slices), compare_slices);
	return slices;
}

static int set_addresses(const struct kube_building *b, struct kube_service *s)
{
	struct service *service = s->service;
	free(service->addresses);
	service->addresses = NULL;
	service->n_addresses = 0;
	for (uint32_t i = 0; i < b->n_vips; i++) {
		struct address *slot = service_add_address(service);
		if (slot == NULL)
			return -ENOMEM;
		*slot = b->vips[i];
		// From which entry of the record it is: the addresses of the form are in the record's order.
		for (uint32_t k = 0; k < b->form->service->n_addresses; k++)
			if (address_equal(&b->vips[i], &b->form->service->addresses[k]))
				s->vip_idx[i] = b->form->vip_idx[k];
	}
	return 0;
}

static int set_name(const struct kube_building *b, struct service *s)
{
	const struct kube_owner *owner = b->face->owner;
	const char *hostname = b->face->hostname;
	size_t len = strlen(owner->object.name) + strlen(hostname) + 1;
	if (hostname[0] == '\0')
		return 0;
	if (len >= SERVICE_NAME_MAX)
		return error_add(b->findings, EINVAL, "metadata.name",
			"%s.%s: %zu characters; allowed: hostname and name of the Service of "
			"together at most %d",
			hostname, owner->object.name, len, SERVICE_NAME_MAX - 2);
	snprintf(s->name, sizeof(s->name), "%s.%s", hostname, owner->object.name);
	return 0;
}

static int join(struct kube_cluster *c, const struct kube_building *b, struct kube_service *s)
{
	const struct kube_owner *owner = b->face->owner;
	const struct kube_screen screen = { .refused = c->refused,
		.n_refused = c->n_refused,
		.hostname = b->face->hostname[0] ? b->face->hostname : NULL,
		.obeys_hints = c->zone != NULL,
		.notes = b->notes };
	struct kube_reader r = { .text = "",
		.is_watch = true,
		.screen = &screen,
		.err = b->findings,
		.item_idx = UINT32_MAX };
	uint32_t n_slices = 0;
	if (s->extras.to_nodes) {
		int rc = kube_nodes_join(c, owner, s, b->notes);
		if (rc != 0)
			return rc;
	} else {
		struct kube_slice *slices = gather_slices(owner, s->service, &n_slices);
		if (slices == NULL)
			return -ENOMEM;
		kube_join(&r, s, slices, n_slices);
		free(slices);
	}
	if (r.n_bad == 0)
		kube_service_validate(&r, s);
	return r.n_bad ? -EINVAL : 0;
}

int kube_build(struct kube_cluster *c, const struct kube_building *b, struct service **out)
{
	struct kube_service s = *b->form; // borrows all but the service
	s.service = service_clone(b->form->service);
	int rc = s.service ? set_addresses(b, &s) : -ENOMEM;
	if (rc == 0)
		rc = set_name(b, s.service);
	if (rc == 0)
		rc = join(c, b, &s);
	if (rc != 0) {
		service_destroy(s.service);
		return rc == -ENOMEM ? error_add(b->findings, ENOMEM, "", "out of memory") : rc;
	}
	service_normalise(s.service);
	*out = s.service;
	return 0;
}
