// SPDX-License-Identifier: BSD-3-Clause
// What is remembered of each Service object beside the model: a table of chains by name.
#include "core_priv.h"

#include <stdlib.h>
#include <string.h>

static uint64_t key_hash(const char *namespace, const char *name)
{
	return hash_stable(name, strlen(name), hash_stable(namespace, strlen(namespace), 1));
}

// Twice the chains when there is one record for each.
static void table_grow(struct cluster_records *records)
{
	uint32_t n_chains = records->chains ? 2 * (records->mask + 1) : 64;
	if (records->chains && records->n <= records->mask)
		return;
	struct cluster_record **chains = calloc(n_chains, sizeof(struct cluster_record *));
	if (chains == NULL)
		return; // longer chains
	for (uint32_t i = 0; records->chains && i <= records->mask; i++) {
		struct cluster_record *record = records->chains[i], *next;
		for (; record; record = next) {
			uint64_t to = key_hash(record->namespace, record->name) & (n_chains - 1);
			next = record->next;
			record->next = chains[to];
			chains[to] = record;
		}
	}
	free(records->chains);
	records->chains = chains;
	records->mask = n_chains - 1;
}

static struct cluster_record *record_create(const char *namespace, const char *name)
{
	struct cluster_record *record = calloc(1, sizeof(*record));
	size_t len = strlen(namespace) + 1;
	char *texts = record ? malloc(len + strlen(name) + 1) : NULL;
	if (texts == NULL) {
		free(record);
		return NULL;
	}
	record->namespace = strcpy(texts, namespace);
	record->name = strcpy(texts + len, name);
	return record;
}

struct cluster_record *cluster_record_find(
	struct cluster_records *records, const char *namespace, const char *name, bool create)
{
	uint64_t hash = key_hash(namespace, name);
	if (create)
		table_grow(records);
	if (records->chains == NULL)
		return NULL;
	struct cluster_record **chain = &records->chains[hash & records->mask];
	for (struct cluster_record *record = *chain; record; record = record->next)
		if (strcmp(record->name, name) == 0 && strcmp(record->namespace, namespace) == 0)
			return record;
	struct cluster_record *record = create ? record_create(namespace, name) : NULL;
	if (record == NULL)
		return NULL;
	record->next = *chain;
	*chain = record;
	records->n++;
	return record;
}

static void record_destroy(struct cluster_record *record)
{
	free(record->namespace);
	free(record->object);
	free(record->uid);
	free(record->refusal);
	free(record->ports);
	free(record->reason_text);
	free(record);
}

void cluster_record_remove(struct cluster_records *records, const char *namespace, const char *name)
{
	if (records->chains == NULL)
		return;
	struct cluster_record **link = &records->chains[key_hash(namespace, name) & records->mask];
	while (*link &&
		(strcmp((*link)->name, name) != 0 || strcmp((*link)->namespace, namespace) != 0))
		link = &(*link)->next;
	struct cluster_record *record = *link;
	if (record == NULL)
		return;
	*link = record->next;
	records->n--;
	record_destroy(record);
}

void cluster_records_fini(struct cluster_records *records)
{
	for (uint32_t i = 0; records->chains && i <= records->mask; i++) {
		struct cluster_record *record = records->chains[i], *next;
		for (; record; record = next) {
			next = record->next;
			record_destroy(record);
		}
	}
	free(records->chains);
	*records = (struct cluster_records){ 0 };
}

void cluster_records_each(struct cluster_records *records,
	void (*fn)(void *arg, struct cluster_record *record), void *arg)
{
	for (uint32_t i = 0; records->chains && i <= records->mask; i++)
		for (struct cluster_record *record = records->chains[i]; record;
			record = record->next)
			fn(arg, record);
}
