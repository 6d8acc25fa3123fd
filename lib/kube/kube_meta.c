// SPDX-License-Identifier: BSD-3-Clause
// Metadata of any object, read whether or not the rest of it makes sense; labels and findings as compact text.
#include "kube_cluster_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const char *member_text(const json_t *in, const char *key)
{
	const char *text = json_string_value(json_object_get(in, key));
	return text ? text : "";
}

bool kube_identity_read(const json_t *object, const char **out_namespace, const char **out_name)
{
	const json_t *metadata = json_object_get(object, "metadata");
	*out_namespace = member_text(metadata, "namespace");
	*out_name = member_text(metadata, "name");
	return (*out_name)[0] && strlen(*out_name) <= 253 && strlen(*out_namespace) <= 253;
}

uint64_t kube_version_of(const json_t *object)
{
	const json_t *metadata = json_object_get(object, "metadata");
	const char *uid = member_text(metadata, "uid");
	const char *version = member_text(metadata, "resourceVersion");
	if (uid[0] == '\0' || version[0] == '\0')
		return 0;
	uint64_t hash = hash_stable(version, strlen(version), hash_stable(uid, strlen(uid), 1));
	return hash ? hash : 1;
}

static int compare_texts(const void *a, const void *b)
{
	const char *const *x = a, *const *y = b;
	return strcmp(*x, *y);
}

char *kube_labels_pack(const json_t *labels)
{
	size_t n = json_object_size(labels), n_keys = 0, size = 1;
	const char **keys = calloc(n + 1, sizeof(*keys));
	const char *key;
	json_t *value;
	if (keys == NULL)
		return NULL;
	json_object_foreach((json_t *)(uintptr_t)labels, key, value)
	{
		if (!json_is_string(value) || strpbrk(key, "=\n") ||
			strchr(json_string_value(value), '\n'))
			continue; // no label can be so
		keys[n_keys++] = key;
		size += strlen(key) + strlen(json_string_value(value)) + 2;
	}
	if (n_keys)
		qsort(keys, n_keys, sizeof(*keys), compare_texts);
	char *text = malloc(size), *at = text;
	for (size_t i = 0; text && i < n_keys; i++)
		at += sprintf(at, "%s=%s\n", keys[i],
			json_string_value(json_object_get(labels, keys[i])));
	if (text)
		*at = '\0';
	free(keys);
	return text;
}

uint64_t kube_time_parse(const char *text)
{
	struct tm tm = { 0 };
	uint64_t ms = 0, unit = 100;
	const char *rest = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);
	if (rest == NULL)
		return 0;
	if (*rest == '.') {
		for (rest++; *rest >= '0' && *rest <= '9'; rest++, unit /= 10)
			ms += (uint64_t)(*rest - '0') * unit;
	}
	time_t seconds = timegm(&tm);
	return strcmp(rest, "Z") == 0 && seconds > 0 ? (uint64_t)seconds * 1000 + ms : 0;
}

static bool has_finalizer(const struct kube_cluster *c, const json_t *metadata)
{
	const json_t *finalizers = json_object_get(metadata, "finalizers");
	for (size_t i = 0; i < json_array_size(finalizers); i++) {
		const char *text = json_string_value(json_array_get(finalizers, i));
		if (text && strcmp(text, c->finalizer) == 0)
			return true;
	}
	return false;
}

int kube_meta_read(const struct kube_cluster *c, const json_t *object, struct kube_meta *out)
{
	const json_t *metadata = json_object_get(object, "metadata");
	const char *texts[] = { member_text(metadata, "uid"),
		member_text(metadata, "resourceVersion"),
		member_text(metadata, "creationTimestamp") };
	char *labels = kube_labels_pack(json_object_get(metadata, "labels"));
	size_t size = labels ? strlen(labels) + 1 : 0;
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
		size += strlen(texts[i]) + 1;
	char *block = labels ? malloc(size) : NULL, *at = block;
	if (block == NULL) {
		free(labels);
		return -ENOMEM;
	}
	*out = (struct kube_meta){ .block = block };
	const char **slots[] = { &out->uid, &out->resource_version, &out->created };
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		*slots[i] = at;
		at = stpcpy(at, texts[i]) + 1;
	}
	out->labels = strcpy(at, labels);
	free(labels);
	out->generation = json_integer_value(json_object_get(metadata, "generation"));
	out->is_deleting = member_text(metadata, "deletionTimestamp")[0] != '\0';
	out->has_finalizer = has_finalizer(c, metadata);
	return 0;
}

// ---------------------------------------------------------------- findings
// path NUL text NUL ..., closed by an empty path and text: at most KUBE_NOTES_MAX of them.
char *kube_findings_pack(const struct error *err)
{
	size_t size = 2;
	uint32_t n = err->n_items < KUBE_NOTES_MAX ? err->n_items : KUBE_NOTES_MAX;
	for (uint32_t i = 0; i < n; i++) {
		const struct error_item *item = &err->items[i];
		size += strlen(item->path ? item->path : "") +
			strlen(item->text ? item->text : "") + 2;
	}
	char *packed = calloc(1, size), *at = packed;
	for (uint32_t i = 0; packed && i < n; i++) {
		const struct error_item *item = &err->items[i];
		at = stpcpy(at, item->path ? item->path : "") + 1;
		at = stpcpy(at, item->text ? item->text : "") + 1;
	}
	return packed;
}

void kube_findings_unpack(const char *packed, struct error *out)
{
	while (packed && (packed[0] || packed[1])) {
		const char *text = packed + strlen(packed) + 1;
		error_add(out, EINVAL, packed, "%s", text);
		packed = text + strlen(text) + 1;
	}
}
