// SPDX-License-Identifier: BSD-3-Clause
// AddressPool objects to pools, with a finding for each thing that makes no sense.
#include "kube_pool.h"
#include "kube_encode.h"
#include "kube_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int read_addresses(const struct kube_pool *from, struct kube_pool_form *out)
{
	size_t n = json_array_size(from->addresses);
	out->ranges = calloc(n + 1, sizeof(*out->ranges));
	if (out->ranges == NULL)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		const char *text = json_string_value(json_array_get(from->addresses, i));
		char path[64];
		snprintf(path, sizeof(path), "spec.addresses[%zu]", i);
		struct ipam_range *range = &out->ranges[out->pool.n_ranges];
		if (text && ipam_range_parse(text, range, path, &out->findings) == 0)
			out->pool.n_ranges++;
	}
	return 0;
}

// ---------------------------------------------------------------- scope
static const char *text_of(const json_t *in, const char *key)
{
	const char *text = json_string_value(json_object_get(in, key));
	return text ? text : "";
}

static bool is_one_of(const char *text, const char *first, const char *second)
{
	return strcmp(text, first) == 0 || strcmp(text, second) == 0;
}

static bool expression_is_good(const json_t *expression, const char *path, struct error *err)
{
	const char *operator_text = text_of(expression, "operator");
	bool takes = is_one_of(operator_text, "In", "NotIn");
	size_t n = json_array_size(json_object_get(expression, "values"));
	char quoted[96];
	if (text_of(expression, "key")[0] == '\0')
		return error_add(err, EINVAL, path, "no key") == 0;
	if (!takes && !is_one_of(operator_text, "Exists", "DoesNotExist"))
		return error_add(err, EINVAL, path,
			       "operator %s: allowed: In, NotIn, Exists, DoesNotExist",
			       kube_quote(operator_text, quoted, sizeof(quoted))) == 0;
	if (takes != (n > 0))
		return error_add(err, EINVAL, path, "%s with%s values", operator_text,
			       takes ? "out" : "") == 0;
	return true;
}

// Is it one that kube_selector_matches understands?
static bool selector_is_good(const json_t *spec, const char *key, struct error *err)
{
	const json_t *selector = json_object_get(spec, key);
	const json_t *labels = json_object_get(selector, "matchLabels");
	const json_t *expressions = json_object_get(selector, "matchExpressions");
	char path[96];
	bool good = true;
	snprintf(path, sizeof(path), "spec.%s", key);
	if (selector == NULL || json_is_null(selector))
		return true;
	if (!json_is_object(selector))
		return false; // the model said so
	if (labels && !json_is_null(labels) && !json_is_object(labels))
		return error_add(err, EINVAL, path, "matchLabels: allowed: an object") == 0;
	if (expressions && !json_is_null(expressions) && !json_is_array(expressions))
		return error_add(err, EINVAL, path, "matchExpressions: allowed: an array") == 0;
	for (size_t i = 0; i < json_array_size(expressions); i++) {
		snprintf(path, sizeof(path), "spec.%s.matchExpressions[%zu]", key, i);
		good &= expression_is_good(json_array_get(expressions, i), path, err);
	}
	return good;
}

static bool scope_is_good(const struct kube_pool *from, struct error *err)
{
	const json_t *namespaces = json_object_get(from->spec, "namespaces");
	bool good = namespaces == NULL || json_is_null(namespaces) || from->namespaces;
	good &= selector_is_good(from->spec, "namespaceSelector", err);
	good &= selector_is_good(from->spec, "serviceSelector", err);
	return good;
}

static bool is_scoped(const json_t *selector)
{
	return json_object_size(json_object_get(selector, "matchLabels")) ||
	       json_array_size(json_object_get(selector, "matchExpressions"));
}

int kube_pool_read(const struct kube_pool *from, struct kube_pool_form *out)
{
	struct kube_pool_form form = { 0 };
	int64_t created_s = 0;
	kube_seconds_parse(from->created, &created_s);
	form.pool = (struct ipam_pool){ .name = from->name,
		.auto_assign = from->auto_assign && !from->is_deleting,
		.is_pinned = json_array_size(from->namespaces) ||
			     is_scoped(from->namespace_selector) ||
			     is_scoped(from->service_selector),
		.created_s = created_s > 0 ? created_s : 1 }; // behind those of the configuration
	if (from->findings)
		error_merge(&form.findings, from->findings, "");
	if (from->priority < 0 || from->priority > INT32_MAX)
		error_add(&form.findings, EINVAL, "spec.priority", "%lld: allowed: 0..%d",
			(long long)from->priority, INT32_MAX);
	else
		form.pool.priority = (int32_t)from->priority;
	if (read_addresses(from, &form) != 0) {
		kube_pool_form_fini(&form);
		return -ENOMEM;
	}
	if (!scope_is_good(from, &form.findings))
		form.pool.n_ranges = 0;
	form.pool.ranges = form.ranges;
	*out = form;
	return 0;
}

void kube_pool_form_fini(struct kube_pool_form *form)
{
	free(form->ranges);
	error_fini(&form->findings);
	*form = (struct kube_pool_form){ 0 };
}
