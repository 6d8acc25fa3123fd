// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// An AddressPool object, as address management takes it. Pure; control thread.

#include "base.h"
#include "ipam.h"
#include "kube_cluster.h"

struct kube_pool_form {
	struct ipam_pool pool;     // its name is borrowed from the object
	struct ipam_range *ranges; // those of the pool
	struct error findings;     // "spec.addresses[1]: ...": for the pool's condition
};

// Addresses that are good stay, each other one is a finding. A scope that cannot be read (namespaces, selectors) gives the pool no
// address at all: it would be for nobody, or for everybody. One that is being deleted gives nothing new, who has an address keeps it.
// 0, -ENOMEM.
int kube_pool_read(const struct kube_pool *from, struct kube_pool_form *out);
void kube_pool_form_fini(struct kube_pool_form *form);
