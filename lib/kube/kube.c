// SPDX-License-Identifier: BSD-3-Clause
// A services file: one JSON document, its objects by kind, the join, and the whole set or nothing.
#include "kube_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

// Everything decoded so far; borrowed strings live as long as the tree.
struct kube_draft {
	json_t *tree;
	struct kube_service *services;
	uint32_t n_services;
	uint32_t cap_services;
	struct kube_slice *slices;
	uint32_t n_slices;
	uint32_t cap_slices;
};

static void refuse_syntax(struct kube_reader *r, const json_error_t *error)
{
	char text[JSON_ERROR_TEXT_LENGTH + 1];
	snprintf(text, sizeof(text), "%s", error->text);
	for (char *c = text; *c; c++)
		if ((unsigned char)*c < 0x20 || (unsigned char)*c > 0x7e)
			*c = '?';
	if (json_error_code(error) == json_error_end_of_input_expected)
		snprintf(text, sizeof(text), "something follows the end of the document");
	uint32_t line = error->line > 0 ? (uint32_t)error->line : 1;
	error_add_line(r->err, EINVAL, line, "",
		"%s; allowed: one JSON document, each key of an object once", text);
	r->n_bad++;
}

// Namespace and name of an item, as far as they can be read; findings otherwise.
static bool identity_check(struct kube_reader *r, const json_t *json)
{
	char quoted[96];
	uint32_t n_before = r->n_bad;
	const json_t *metadata = kube_object(r, json, "metadata");
	if (kube_is_absent(json, "metadata"))
		kube_refuse(r, "no metadata; allowed: an object with metadata.name");
	if (metadata == NULL)
		return false;
	kube_enter(r, "metadata");
	const char *name = kube_text(r, metadata, "name");
	const char *namespace = kube_text(r, metadata, "namespace");
	if (r->n_bad == n_before && (name == NULL || name[0] == '\0'))
		kube_refuse(r, "no name; allowed: a name of 1..253 characters");
	if (name && strlen(name) > 253)
		kube_refuse_at(r, "name", "%s: allowed: 1..253 characters",
			kube_quote(name, quoted, sizeof(quoted)));
	if (namespace && (namespace[0] == '\0' || strlen(namespace) >= SERVICE_NAME_MAX))
		kube_refuse_at(r, "namespace", "%s: allowed: 1..%d characters",
			kube_quote(namespace, quoted, sizeof(quoted)), SERVICE_NAME_MAX - 1);
	kube_leave(r);
	return r->n_bad == n_before;
}

static void read_service(struct kube_reader *r, const json_t *json, struct kube_draft *draft)
{
	char quoted[96];
	const char *name =
		json_string_value(json_object_get(json_object_get(json, "metadata"), "name"));
	if (strlen(name) >= SERVICE_NAME_MAX) {
		kube_enter(r, "metadata");
		kube_refuse_at(r, "name", "%s: allowed: at most %d characters",
			kube_quote(name, quoted, sizeof(quoted)), SERVICE_NAME_MAX - 1);
		kube_leave(r);
		return;
	}
	if (array_grow(draft->services, draft->n_services, draft->cap_services)) {
		kube_refuse(r, "out of memory");
		return;
	}
	struct kube_service *slot = &draft->services[draft->n_services++];
	*slot = (struct kube_service){ .item_idx = r->item_idx };
	kube_service_read(r, json, slot);
}

static void read_slice(struct kube_reader *r, const json_t *json, struct kube_draft *draft)
{
	if (array_grow(draft->slices, draft->n_slices, draft->cap_slices)) {
		kube_refuse(r, "out of memory");
		return;
	}
	struct kube_slice *slot = &draft->slices[draft->n_slices++];
	*slot = (struct kube_slice){ .item_idx = r->item_idx };
	kube_slice_read(r, json, slot);
}

static const struct {
	const char *kind;
	const char *version;
	void (*read)(struct kube_reader *r, const json_t *json, struct kube_draft *draft);
} kube_kinds[] = {
	{ "Service", "v1", read_service },
	{ "EndpointSlice", "discovery.k8s.io/v1", read_slice },
};

static void read_item(struct kube_reader *r, const json_t *json, struct kube_draft *draft)
{
	char quoted[96];
	if (!json_is_object(json)) {
		kube_refuse(r, "allowed: a Service or EndpointSlice object");
		return;
	}
	const char *kind = kube_text(r, json, "kind");
	const char *version = kube_text(r, json, "apiVersion");
	if (kind == NULL) {
		if (kube_is_absent(json, "kind"))
			kube_refuse(r, "no kind; allowed: Service, EndpointSlice");
		return;
	}
	for (size_t i = 0; i < ARRAY_SIZE(kube_kinds); i++) {
		if (strcmp(kind, kube_kinds[i].kind))
			continue;
		if (version && strcmp(version, kube_kinds[i].version) == 0) {
			if (identity_check(r, json))
				kube_kinds[i].read(r, json, draft);
		} else if (version || kube_is_absent(json, "apiVersion")) {
			kube_refuse_at(r, "apiVersion", "%s: allowed: %s",
				version ? kube_quote(version, quoted, sizeof(quoted)) : "missing",
				kube_kinds[i].version);
		}
		return;
	}
	kube_refuse_at(r, "kind", "%s: allowed: Service, EndpointSlice",
		kube_quote(kind, quoted, sizeof(quoted)));
}

// ---------------------------------------------------------------- duplicates

struct kube_identity {
	const char *kind;
	const char *namespace;
	const char *name;
	uint32_t item_idx;
};

static int identity_compare_name(const struct kube_identity *x, const struct kube_identity *y)
{
	int order = strcmp(x->kind, y->kind);
	if (order == 0)
		order = strcmp(x->namespace, y->namespace);
	return order ? order : strcmp(x->name, y->name);
}

static int identity_compare(const void *a, const void *b)
{
	const struct kube_identity *x = a, *y = b;
	int order = identity_compare_name(x, y);
	return order ? order : (x->item_idx > y->item_idx) - (x->item_idx < y->item_idx);
}

static void refuse_duplicates(struct kube_reader *r)
{
	struct kube_identity *all = calloc(r->n_items + 1, sizeof(*all));
	uint32_t n = 0;
	if (all == NULL) {
		kube_refuse(r, "out of memory");
		return;
	}
	for (uint32_t i = 0; i < r->n_items; i++) {
		const json_t *metadata = json_object_get(r->items[i].json, "metadata");
		const char *kind = json_string_value(json_object_get(r->items[i].json, "kind"));
		const char *name = json_string_value(json_object_get(metadata, "name"));
		const char *namespace = json_string_value(json_object_get(metadata, "namespace"));
		if (kind && name)
			all[n++] = (struct kube_identity){ kind, namespace ? namespace : "default",
				name, i };
	}
	qsort(all, n, sizeof(*all), identity_compare);
	for (uint32_t i = 1; i < n; i++) {
		char quoted[96];
		if (identity_compare_name(&all[i - 1], &all[i]))
			continue;
		r->item_idx = all[i].item_idx;
		kube_enter(r, "metadata");
		kube_refuse_at(r, "name",
			"%s is the name of the object on line %u too; allowed: each name once in a "
			"namespace",
			kube_quote(all[i].name, quoted, sizeof(quoted)),
			r->items[all[i - 1].item_idx].line);
		kube_leave(r);
	}
	free(all);
}

// ---------------------------------------------------------------- the document

// The array of items, or NULL with a finding.
static const json_t *items_find(struct kube_reader *r, const json_t *tree)
{
	char quoted[96];
	if (json_is_array(tree))
		return tree;
	if (!json_is_object(tree)) {
		kube_refuse(r, "allowed: a v1 List, or an array of objects");
		return NULL;
	}
	uint32_t n_before = r->n_bad;
	const char *kind = kube_text(r, tree, "kind");
	const char *version = kube_text(r, tree, "apiVersion");
	const json_t *items = kube_array(r, tree, "items");
	if (r->n_bad != n_before)
		return NULL;
	if (kind == NULL || strcmp(kind, "List"))
		kube_refuse_at(r, "kind", "%s: allowed: List",
			kind ? kube_quote(kind, quoted, sizeof(quoted)) : "missing");
	if (version == NULL || strcmp(version, "v1"))
		kube_refuse_at(r, "apiVersion", "%s: allowed: v1",
			version ? kube_quote(version, quoted, sizeof(quoted)) : "missing");
	if (items == NULL)
		kube_refuse_at(r, "items", "missing: allowed: an array of objects");
	return r->n_bad == n_before ? items : NULL;
}

static void decode_items(struct kube_reader *r, struct kube_draft *draft)
{
	const json_t *items = items_find(r, draft->tree);
	if (items == NULL)
		return;
	if (json_array_size(items) != r->n_items) { // our scanner and jansson disagree
		kube_refuse(r, "cannot be scanned");
		return;
	}
	for (uint32_t i = 0; i < r->n_items; i++) {
		r->items[i].json = json_array_get(items, i);
		r->item_idx = i;
		read_item(r, r->items[i].json, draft);
	}
	refuse_duplicates(r);
	kube_slices_sort(draft->slices, draft->n_slices);
	for (uint32_t i = 0; i < draft->n_services; i++) {
		struct kube_service *s = &draft->services[i];
		if (s->service == NULL)
			continue;
		r->item_idx = s->item_idx;
		kube_join(r, s, draft->slices, draft->n_slices);
		kube_service_validate(r, s); // its indices are those of the value as decoded
		service_normalise(s->service);
	}
	r->item_idx = UINT32_MAX;
}

static int service_compare(const void *a, const void *b)
{
	const struct kube_service *x = a, *y = b;
	if (x->service == NULL || y->service == NULL) // those that were skipped go last
		return (x->service == NULL) - (y->service == NULL);
	int order = strcmp(x->service->namespace, y->service->namespace);
	return order ? order : strcmp(x->service->name, y->service->name);
}

// Moves the services out of the draft.
static int result_take(struct kube_reader *r, struct kube_draft *draft, struct kube_result *out)
{
	struct kube_result result = {
		.services = calloc(draft->n_services + 1, sizeof(*result.services)),
		.lines = calloc(draft->n_services + 1, sizeof(*result.lines)),
	};
	if (result.services == NULL || result.lines == NULL) {
		kube_result_fini(&result);
		return error_add(r->err, ENOMEM, "", "out of memory");
	}
	if (draft->n_services)
		qsort(draft->services, draft->n_services, sizeof(*draft->services),
			service_compare);
	for (uint32_t i = 0; i < draft->n_services && draft->services[i].service; i++) {
		result.services[i] = draft->services[i].service;
		result.lines[i] = r->items[draft->services[i].item_idx].line;
		draft->services[i].service = NULL;
		result.n_services++;
	}
	*out = result;
	return 0;
}

static void draft_fini(struct kube_draft *draft)
{
	for (uint32_t i = 0; i < draft->n_services; i++)
		kube_service_fini(&draft->services[i]);
	for (uint32_t i = 0; i < draft->n_slices; i++)
		kube_slice_fini(&draft->slices[i]);
	free(draft->services);
	free(draft->slices);
	json_decref(draft->tree);
}

static int decode_text(struct kube_reader *r, struct kube_result *out)
{
	struct kube_draft draft = { 0 };
	json_error_t error;
	if (r->len > KUBE_FILE_MAX_BYTES)
		return error_add(r->err, EFBIG, "", "%zu bytes; allowed: at most %u", r->len,
			KUBE_FILE_MAX_BYTES);
	int rc = kube_scan(r);
	if (rc)
		return rc;
	draft.tree = json_loadb(r->text, r->len, JSON_REJECT_DUPLICATES, &error);
	if (draft.tree)
		decode_items(r, &draft);
	else
		refuse_syntax(r, &error);
	rc = r->n_bad ? -EINVAL : result_take(r, &draft, out);
	draft_fini(&draft);
	return rc;
}

int kube_decode_file(const char *text, size_t len, const char *file_name,
	const struct service_defaults *defaults, struct kube_result *out, struct error *err)
{
	struct error own = { .file = file_name };
	struct kube_reader r = {
		.text = text,
		.len = len,
		.defaults = defaults,
		.err = &own,
		.item_idx = UINT32_MAX,
	};
	int rc = decode_text(&r, out);
	free(r.items);
	error_merge(err, &own, "");
	error_fini(&own);
	return rc;
}

void kube_result_fini(struct kube_result *result)
{
	for (uint32_t i = 0; i < result->n_services; i++)
		service_destroy(result->services[i]);
	free(result->services);
	free(result->lines);
	*result = (struct kube_result){ 0 };
}
