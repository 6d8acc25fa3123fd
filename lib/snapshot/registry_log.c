// SPDX-License-Identifier: BSD-3-Clause
// The registry as text lines, so that a later process gives the same numbers the same meaning and can adopt the flows that
// hold them. A line is written before the number is published. The last line of a number counts, hence a log is read
// from its end.
//
//   slot 3 203.0.113.10
//   backend 17 8080 10.9.0.2 default/web/http
//   kept 17 dnat 3 0 300          mode, slot of its own address (65535 = none), policy, seconds that its flows may go on
//   policy 0 900 60
//
// `kept` follows the line of its backend at once, so it is read just before it. A reader that does not know the word takes
// the rest.
#include "registry_priv.h"

#include <errno.h>

// Is this one to be told now? Forgets it either way.
static bool take(struct registry_use *use)
{
	bool is_fresh = use->is_fresh && use->state != REGISTRY_FREE;
	use->is_fresh = false;
	return is_fresh;
}

void snapshot_registry_fresh(
	struct snapshot_registry *r, void (*fn)(void *arg, const char *line), void *arg)
{
	char line[SNAPSHOT_REGISTRY_LINE_MAX], text[ADDRESS_TEXT_LEN];
	if (r->n_fresh == 0)
		return;
	r->n_fresh = 0;
	for (uint32_t i = 0; i < r->n_slots; i++) {
		if (!take(&r->slots[i].use))
			continue;
		snprintf(line, sizeof(line), "slot %u %s", i,
			address_format(&r->slots[i].address, text));
		fn(arg, line);
	}
	for (uint32_t i = 0; i < r->n_backends; i++) {
		const struct registry_backend *b = &r->backends[i];
		if (!take(&r->backends[i].use))
			continue;
		snprintf(line, sizeof(line), "backend %u %u %s %s", i, b->port,
			address_format(&b->address, text), b->name);
		fn(arg, line);
		snprintf(line, sizeof(line), "kept %u %s %u %u %u", i,
			service_mode_name((enum service_mode)b->kept.mode), b->kept.own_slot,
			b->kept.policy, b->kept.drain_s);
		fn(arg, line);
	}
	for (uint32_t i = 0; i < r->n_policies; i++) {
		const struct registry_policy *p = &r->policies[i];
		if (!take(&r->policies[i].use))
			continue;
		snprintf(line, sizeof(line), "policy %u %u %u", i, p->tcp_idle_s, p->udp_idle_s);
		fn(arg, line);
	}
}

static int restore_kept(struct snapshot_registry *r, const char *line)
{
	unsigned idx, slot, policy, drain_s;
	char word[16];
	enum service_mode mode;
	int n = 0;
	if (sscanf(line, "kept %9u %15s %5u %3u %9u%n", &idx, word, &slot, &policy, &drain_s, &n) !=
			5 ||
		line[n] != 0 || service_mode_parse(word, &mode) != 0 || slot > SNAPSHOT_SLOT_NONE ||
		policy >= SNAPSHOT_POLICIES_MAX)
		return -EINVAL;
	struct registry_kept kept = { (uint8_t)mode, (uint8_t)policy, (uint16_t)slot, drain_s };
	return registry_restore_kept(r, idx, &kept);
}

int snapshot_registry_restore(struct snapshot_registry *r, const char *line)
{
	unsigned idx, first, second;
	char text[ADDRESS_TEXT_LEN], name[3 * SERVICE_NAME_MAX + 4];
	struct address address;
	int n = 0;
	if (strlen(line) >= SNAPSHOT_REGISTRY_LINE_MAX)
		return -EINVAL;
	if (sscanf(line, "slot %9u %47s%n", &idx, text, &n) == 2 && line[n] == 0) {
		if (idx >= SNAPSHOT_SLOTS_MAX || address_parse(text, &address) != 0)
			return -EINVAL;
		return snapshot_registry_restore_slot(r, (uint16_t)idx, &address);
	}
	n = 0;
	if (sscanf(line, "backend %9u %5u %47s %195s%n", &idx, &first, text, name, &n) == 4 &&
		line[n] == 0) {
		if (first > UINT16_MAX || address_parse(text, &address) != 0)
			return -EINVAL;
		return registry_restore_backend(r, idx, name, &address, (uint16_t)first);
	}
	n = 0;
	if (sscanf(line, "policy %9u %9u %9u%n", &idx, &first, &second, &n) == 3 && line[n] == 0)
		return registry_restore_policy(r, idx, first, second);
	return restore_kept(r, line);
}
