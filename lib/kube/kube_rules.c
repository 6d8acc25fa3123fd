// SPDX-License-Identifier: BSD-3-Clause
// What sluice must be allowed: asking the API server, and saying which rule is missing.
#include "kube_encode_priv.h"

#include <errno.h>
#include <string.h>

static const struct kube_rule rules[] = {
#define KUBE_RULE(scope_, need_, group_, resource_, without_, ...) \
	{ .scope = KUBE_SCOPE_##scope_,                            \
		.need = KUBE_NEED_##need_,                         \
		.group = group_,                                   \
		.resource = resource_,                             \
		.without = without_,                               \
		.verbs = { __VA_ARGS__ } },
#include "kube_rules.def"
#undef KUBE_RULE
};

uint32_t kube_rule_count(void)
{
	return ARRAY_SIZE(rules);
}

const struct kube_rule *kube_rule_at(uint32_t idx)
{
	return &rules[idx];
}

int kube_write_review(const struct kube_rule *rule, const char *verb, const char *own_namespace,
	struct kube_write *out)
{
	char resource[64];
	snprintf(resource, sizeof(resource), "%s", rule->resource);
	char *slash = strchr(resource, '/');
	if (slash)
		*slash = '\0';
	json_t *attributes = json_pack(
		"{s:s,s:s,s:s}", "group", rule->group, "resource", resource, "verb", verb);
	if (slash)
		json_object_set_new(attributes, "subresource", json_string(slash + 1));
	if (rule->scope == KUBE_SCOPE_OWN)
		json_object_set_new(attributes, "namespace", json_string(own_namespace));
	return kube_write_make(out, "POST", "application/json",
		"/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
		json_pack("{s:s,s:s,s:{s:o}}", "apiVersion", "authorization.k8s.io/v1", "kind",
			"SelfSubjectAccessReview", "spec", "resourceAttributes", attributes));
}

int kube_review_read(const json_t *review, bool *out_allowed)
{
	const json_t *allowed = json_object_get(json_object_get(review, "status"), "allowed");
	if (!json_is_boolean(allowed))
		return -EINVAL;
	*out_allowed = json_is_true(allowed);
	return 0;
}

const char *kube_rule_complain(
	const struct kube_rule *rule, const char *verb, char *buf, size_t len)
{
	snprintf(buf, len,
		"may not %s %s%s%s: %s; add to the %s: {apiGroups: [\"%s\"], resources: [\"%s\"], "
		"verbs: [\"%s\"]}",
		verb, rule->resource, rule->group[0] ? "." : "", rule->group, rule->without,
		rule->scope == KUBE_SCOPE_OWN ? "Role sluice of sluice's namespace"
					      : "ClusterRole sluice",
		rule->group, rule->resource, verb);
	return buf;
}
