// SPDX-License-Identifier: BSD-3-Clause
// Addresses of the leader: what Services want goes into ipam with what is recorded of them, and only when the whole of the cluster's
// state is in, ipam runs; its answers go to the records, and from there the writer writes them.
#include "core_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PORTS_MAX SERVICE_LISTENERS_MAX

static uint32_t ports_of(const struct kube_wants *wants, struct ipam_port *out)
{
	uint32_t n = 0;
	for (uint32_t i = 0; i < wants->n_ports && n < PORTS_MAX; i++) {
		const struct service_listener *l = &wants->ports[i];
		out[n++] = (struct ipam_port){ l->protocol, l->port,
			l->port_max > l->port ? l->port_max : l->port };
	}
	return n;
}

static void families_of(const struct kube_wants *wants, struct ipam_request *out)
{
	static const enum ipam_policy policies[] = {
		[KUBE_SINGLE_STACK] = IPAM_SINGLE_STACK,
		[KUBE_PREFER_DUAL_STACK] = IPAM_PREFER_DUAL_STACK,
		[KUBE_REQUIRE_DUAL_STACK] = IPAM_REQUIRE_DUAL_STACK,
	};
	out->n_families = wants->n_families;
	for (uint32_t i = 0; i < wants->n_families && i < IPAM_FAMILIES; i++)
		out->families[i] = wants->families[i] == 6 ? IPAM_V6 : IPAM_V4;
	out->policy = policies[wants->policy];
	out->n_wanted = wants->n_requested;
	for (uint32_t i = 0; i < wants->n_requested && i < IPAM_FAMILIES; i++)
		out->wanted[i] = wants->requested[i];
}

// A Service whose newest form is refused keeps what is recorded: nobody else may get it meanwhile.
static void families_of_record(const struct address *recorded, uint32_t n, struct ipam_request *out)
{
	for (uint32_t i = 0; i < n && out->n_families < IPAM_FAMILIES; i++) {
		enum ipam_family family = ipam_family_of(&recorded[i]);
		if (out->n_families && out->families[0] == family)
			continue;
		out->families[out->n_families++] = family;
		out->wanted[out->n_wanted++] = recorded[i];
	}
	out->policy = out->n_families > 1 ? IPAM_REQUIRE_DUAL_STACK : IPAM_SINGLE_STACK;
}

void cluster_addresses_put(
	struct source_cluster *c, struct cluster_record *record, const struct kube_change *change)
{
	struct ipam_port ports[PORTS_MAX];
	struct address recorded[SERVICE_ADDRESSES_MAX];
	const struct kube_wants *wants = &change->wants;
	uint32_t n_recorded = 0;
	for (; n_recorded < change->n_ingress && n_recorded < SERVICE_ADDRESSES_MAX; n_recorded++)
		recorded[n_recorded] = change->ingress[n_recorded].address;
	struct ipam_request request = {
		.namespace = record->namespace,
		.name = record->name,
		.uid = record->uid,
		.created_s = record->created_s,
		.pool = wants->is_wanted ? wants->pool : "",
		.sharing_key = wants->is_wanted ? wants->sharing_key : "",
		.backend_key = wants->is_wanted ? wants->backend_key : "",
		.ports = ports,
		.n_ports = wants->is_wanted ? ports_of(wants, ports) : 0,
		.recorded = recorded,
		.n_recorded = n_recorded,
		.recorded_form = record->seen.form,
	};
	if (wants->is_wanted)
		families_of(wants, &request);
	else if (change->is_refused)
		families_of_record(recorded, n_recorded, &request);
	// Refused for what it says, it keeps what it has. Refused for what others have (a port at the shared address), it is asked
	// for anew: it may get another address.
	bool says_nothing = change->is_refused && !wants->is_wanted;
	if (request.n_families == 0 || (says_nothing && record->has_answer)) {
		if (!change->is_refused)
			cluster_addresses_remove(c, record);
		return;
	}
	if (ipam_put(c->ipam, &request) == -ENOMEM)
		kube_cluster_again(c->model, change->namespace, change->object);
}

void cluster_addresses_remove(struct source_cluster *c, const struct cluster_record *record)
{
	ipam_remove(c->ipam, record->namespace, record->name);
}

static void answer_take(
	struct source_cluster *c, struct cluster_record *record, const struct ipam_answer *answer)
{
	bool had = record->n_addresses > 0 && record->has_answer;
	// Pools that may not be read take nothing away.
	if (c->feeds[KUBE_CLUSTER_POOLS].is_waived && record->n_recorded > answer->n_addresses) {
		record->has_answer = false;
		return;
	}
	record->has_answer = true;
	record->n_addresses = answer->n_addresses;
	memcpy(record->addresses, answer->addresses, sizeof(record->addresses));
	snprintf(record->pool, sizeof(record->pool), "%s", answer->pool);
	record->form = answer->form;
	record->reason = answer->reason;
	free(record->reason_text);
	record->reason_text = strdup(answer->text);
	bool is_good = answer->reason == IPAM_ALLOCATED || answer->reason == IPAM_ALLOCATED_ONE;
	if (is_good && !cluster_record_is_recorded(record))
		cluster_voices_add(
			c, record, false, "AddressAllocated", "Allocate", "%s", answer->text);
	else if (!is_good)
		cluster_voices_add(c, record, true, "AddressUnavailable", "Allocate", "%s%s",
			had && answer->n_addresses == 0 ? "address taken back: " : "",
			answer->text);
	// A hostname's addresses are written in its object.
	struct cluster_record *object =
		record->object
			? cluster_record_find(&c->records, record->namespace, record->object, false)
			: NULL;
	cluster_writer_queue(c, object ? object : record);
}

void cluster_addresses_run(struct source_cluster *c)
{
	struct ipam_answer answer;
	if (ipam_run(c->ipam) != 0)
		return; // what was not looked at is in the next run
	while (ipam_next(c->ipam, &answer)) {
		struct cluster_record *record =
			cluster_record_find(&c->records, answer.namespace, answer.name, false);
		if (record && record->uid && strcmp(record->uid, answer.uid) == 0)
			answer_take(c, record, &answer);
	}
}

static void forget_one(void *arg, struct cluster_record *record)
{
	record->has_answer = false;
	record->n_addresses = 0;
}

void cluster_addresses_forget(struct source_cluster *c)
{
	ipam_clear(c->ipam);
	cluster_records_each(&c->records, forget_one, NULL);
}
