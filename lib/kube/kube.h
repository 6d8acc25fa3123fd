// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// Kubernetes objects to desired state: Service and EndpointSlice decode, and the join. Pure (jansson).
// The services file and the watch use the same code.

#include <jansson.h>

#include "base.h"
#include "service.h"

#define KUBE_FILE_MAX_BYTES (64u << 20)
#define KUBE_ITEM_MAX_BYTES (2u << 20) // of one object; etcd takes no more than 1.5 MiB
#define KUBE_DEPTH_MAX      64

struct kube_result {
	struct service **services; // gives; sorted by namespace, name
	uint32_t n_services;
	uint32_t *lines; // of each service's object in the file
};

// Decodes a whole services file (interfaces.md section 3): a v1 List (or an array) of Service and EndpointSlice objects. `text` need
// not be NUL-terminated. Reports every error with its line (line of the object's opening brace where no better is known) and a
// path ("items[3].spec.ports[0].port"). Outputs untouched on failure. Services that are not LoadBalancer type are
// skipped; slices of unknown services are ignored.
int kube_decode_file(const char *text, size_t len, const char *file_name,
	const struct service_defaults *defaults, struct kube_result *out, struct error *err);
void kube_result_fini(struct kube_result *result);
