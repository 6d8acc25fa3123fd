// SPDX-License-Identifier: BSD-3-Clause
// Requests that write: target, type and body; times and texts as the API wants them; the annotations of our own.
#include "kube_encode_priv.h"
#include "kube_priv.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

void kube_write_fini(struct kube_write *write)
{
	free(write->target);
	free(write->body);
	*write = (struct kube_write){ 0 };
}

int kube_write_make(struct kube_write *out, const char *method, const char *content_type,
	const char *target, json_t *body)
{
	struct kube_write write = { .method = method,
		.content_type = content_type,
		.target = strdup(target),
		.body = body ? json_dumps(body, JSON_COMPACT) : NULL };
	json_decref(body);
	if (write.target == NULL || write.body == NULL) {
		kube_write_fini(&write);
		return -ENOMEM;
	}
	write.body_len = strlen(write.body);
	*out = write;
	return 0;
}

const char *kube_segment(const char *name, char *buf, size_t len)
{
	size_t n = 0;
	for (; *name && n + 4 <= len; name++) {
		unsigned char c = (unsigned char)*name;
		bool is_dots = c == '.' && n == 0; // "." and ".." are no names
		if ((isalnum(c) && c < 0x80) || (c == '.' && !is_dots) || c == '-' || c == '_' ||
			c == '~')
			buf[n++] = (char)c;
		else
			n += (size_t)snprintf(buf + n, len - n, "%%%02X", c);
	}
	buf[n] = '\0';
	return buf;
}

// Length of the character at `text`, 0: none (RFC 3629).
static size_t utf8_len(const unsigned char *text)
{
	uint32_t c = text[0], low = 0;
	size_t n = c < 0x80 ? 1 : c >> 5 == 6 ? 2 : c >> 4 == 14 ? 3 : c >> 3 == 30 ? 4 : 0;
	if (n <= 1)
		return n;
	c &= 0x7fu >> n;
	for (size_t i = 1; i < n; i++) {
		if (text[i] >> 6 != 2)
			return 0;
		c = c << 6 | (text[i] & 0x3f);
	}
	low = n == 2 ? 0x80 : n == 3 ? 0x800 : 0x10000;
	return c < low || c > 0x10ffff || (c >= 0xd800 && c < 0xe000) ? 0 : n;
}

const char *kube_clean(const char *text, char *buf, size_t len)
{
	size_t n = 0;
	while (*text) {
		size_t step = utf8_len((const unsigned char *)text);
		if (n + (step ? step : 1) >= len)
			break;
		if (step == 0 || (unsigned char)*text < 0x20 || *text == 0x7f)
			buf[n++] = step == 1 && isspace((unsigned char)*text) ? ' ' : '?';
		else
			memcpy(buf + n, text, step), n += step;
		text += step ? step : 1;
	}
	buf[n] = '\0';
	return buf;
}

// ---------------------------------------------------------------- times
int kube_seconds_parse(const char *text, int64_t *out_s)
{
	struct tm tm = { 0 };
	if (strspn(text, "0123456789") != 4)
		return -EINVAL;
	const char *rest = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);
	if (rest && *rest == '.')
		rest += 1 + strspn(rest + 1, "0123456789");
	if (rest == NULL || strcmp(rest, "Z") != 0)
		return -EINVAL;
	*out_s = timegm(&tm);
	return 0;
}

const char *kube_seconds_format(int64_t s, char *buf, size_t len)
{
	char whole[32];
	clock_rfc3339(s * 1000, whole, sizeof(whole)); // "2026-01-31T12:00:00.000Z"
	snprintf(buf, len, "%.19sZ", whole);
	return buf;
}

// ---------------------------------------------------------------- annotations of our own
static const char *hex_digits(const char *text, uint64_t *out)
{
	if (strspn(text, "0123456789abcdef") != 16)
		return NULL;
	*out = strtoull(text, NULL, 16);
	return text + 16;
}

static uint64_t addresses_digest(const struct address *addresses, uint32_t n)
{
	uint64_t sum = n;
	for (uint32_t i = 0; i < n; i++)
		sum += hash_stable(addresses[i].bytes, sizeof(addresses[i].bytes), 1);
	return sum;
}

const char *kube_allocation_format(const struct kube_allocation *a, char *buf, size_t len)
{
	snprintf(buf, len, "pool=%.253s,form=%016" PRIx64 ",addresses=%016" PRIx64, a->pool,
		a->form, addresses_digest(a->addresses, a->n_addresses));
	return buf;
}

bool kube_allocation_parse(const char *text, char *out_pool, size_t len, uint64_t *out_form)
{
	const char *comma = strchr(text, ',');
	if (strncmp(text, "pool=", 5) != 0 || comma == NULL || strncmp(comma, ",form=", 6) != 0)
		return false;
	uint64_t form, digest;
	const char *rest = hex_digits(comma + 6, &form);
	if (rest && strncmp(rest, ",addresses=", 11) == 0)
		rest = hex_digits(rest + 11, &digest);
	if (rest == NULL || *rest || (size_t)(comma - text - 5) >= len)
		return false;
	memcpy(out_pool, text + 5, (size_t)(comma - text - 5));
	out_pool[comma - text - 5] = '\0';
	*out_form = form;
	return true;
}

bool kube_allocation_is_of(const char *text, const struct address *addresses, uint32_t n)
{
	char pool[256];
	uint64_t form, digest;
	const char *part = strstr(text, ",addresses=");
	return part && kube_allocation_parse(text, pool, sizeof(pool), &form) &&
	       hex_digits(part + 11, &digest) && digest == addresses_digest(addresses, n);
}

static void print_addresses(const struct kube_assigned *assigned, char *buf, size_t len)
{
	size_t n = 0;
	buf[0] = '\0';
	for (uint32_t i = 0; i < assigned->n_addresses && n < len; i++) {
		char text[ADDRESS_TEXT_LEN];
		n += (size_t)snprintf(buf + n, len - n, "%s%s", i ? "," : "",
			address_format(&assigned->addresses[i], text));
	}
}

char *kube_assigned_format(const struct kube_assigned *assigned, uint32_t n)
{
	char text[2 * ADDRESS_TEXT_LEN];
	if (n == 1 && assigned->hostname[0] == '\0') {
		print_addresses(assigned, text, sizeof(text));
		return strdup(text);
	}
	json_t *all = json_object();
	bool failed = all == NULL;
	for (uint32_t i = 0; i < n && !failed; i++) {
		print_addresses(&assigned[i], text, sizeof(text));
		failed = json_object_set_new(all, assigned[i].hostname, json_string(text)) != 0;
	}
	char *printed = failed ? NULL : json_dumps(all, JSON_SORT_KEYS);
	json_decref(all);
	return printed;
}

// ---------------------------------------------------------------- release
static json_t *release_status(bool with_ingress)
{
	json_t *status = json_object(), *conditions = json_array();
	for (int i = 0; i < KUBE_CONDITIONS; i++)
		json_array_append_new(
			conditions, json_pack("{s:s,s:s}", "$patch", "delete", "type",
					    kube_condition_name((enum kube_condition_type)i)));
	if (with_ingress)
		json_object_set_new(status, "loadBalancer", json_pack("{s:n}", "ingress"));
	json_object_set_new(status, "conditions", conditions);
	return status;
}

int kube_write_release(const char *namespace, const char *name, const char *uid,
	const char *finalizer, bool with_ingress, struct kube_write *out)
{
	char ns[800], object[800], target[KUBE_TARGET_MAX];
	snprintf(target, sizeof(target),
		"/api/v1/namespaces/%s/services/%s/status?fieldManager=" KUBE_FIELD_MANAGER,
		kube_segment(namespace, ns, sizeof(ns)),
		kube_segment(name, object, sizeof(object)));
	json_t *body = json_pack("{s:{s:s,s:{s:n,s:n},s:[s]},s:o}", "metadata", "uid", uid,
		"annotations", KUBE_PREFIX "allocation", KUBE_PREFIX "assigned",
		"$deleteFromPrimitiveList/finalizers", finalizer, "status",
		release_status(with_ingress));
	return kube_write_make(
		out, "PATCH", "application/strategic-merge-patch+json", target, body);
}
