// SPDX-License-Identifier: BSD-3-Clause
// Tables made from counters.def, and sums.
#include "counters.h"

const struct counter_row counter_rows[COUNTER_MAX] = {
#define COUNTER(id, text, unit_, help_) [COUNTER_##id] = { #text, #unit_, help_ },
#define DROP(id, text, class_, help_, fix_)
#include "counters.def"
#undef COUNTER
#undef DROP
};

const struct drop_row drop_rows[DROP_MAX] = {
	[DROP_NONE] = { "none", DROP_CLASS_policy, "not dropped", "" },
#define COUNTER(id, text, unit_, help_)
#define DROP(id, text, class_, help_, fix_) \
	[DROP_##id] = { #text, DROP_CLASS_##class_, help_, fix_ },
#include "counters.def"
#undef COUNTER
#undef DROP
};

const char *drop_class_name(enum drop_class class)
{
	static const char *const names[] = { "policy", "fault", "resource", "answered",
		"hardware" };
	return names[class];
}

void counters_accumulate(struct counters *sum, const struct counters *from)
{
	for (int i = 0; i < COUNTER_MAX; i++)
		sum->values[i] += __atomic_load_n(&from->values[i], __ATOMIC_RELAXED);
	for (int i = 0; i < DROP_MAX; i++) {
		sum->drops[i] += __atomic_load_n(&from->drops[i], __ATOMIC_RELAXED);
		uint64_t last = __atomic_load_n(&from->drops_last_s[i], __ATOMIC_RELAXED);
		if (last > sum->drops_last_s[i])
			sum->drops_last_s[i] = last;
	}
}

uint64_t counters_dropped(const struct counters *c)
{
	uint64_t n = 0;
	for (int i = 1; i < DROP_MAX; i++)
		n += __atomic_load_n(&c->drops[i], __ATOMIC_RELAXED);
	return n;
}

int64_t counters_imbalance(const struct counters *c)
{
	const uint64_t *v = c->values;
	uint64_t in = v[COUNTER_RECEIVED] + v[COUNTER_INJECTED] + v[COUNTER_GENERATED] +
		      v[COUNTER_RESTEERED_IN];
	uint64_t out = v[COUNTER_SENT] + v[COUNTER_PUNTED] + counters_dropped(c) +
		       v[COUNTER_RESTEERED_OUT];
	return (int64_t)(in - out);
}
