// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// Per-worker counter block. One writer (the worker), read by control at any time: each value is
// a 64-bit aligned word written with a relaxed store, so a reader sees whole values, slightly old.
// The list is counters.def; nothing else names a counter.

#include <stdint.h>

enum counter_id {
#define COUNTER(id, name, unit, help) COUNTER_##id,
#define DROP(id, name, class, help, fix)
#include "counters.def"
#undef COUNTER
#undef DROP
	COUNTER_MAX,
};

enum drop_reason {
	DROP_NONE = 0, // not dropped
#define COUNTER(id, name, unit, help)
#define DROP(id, name, class, help, fix) DROP_##id,
#include "counters.def"
#undef COUNTER
#undef DROP
	DROP_MAX,
};

enum drop_class {
	DROP_CLASS_policy,
	DROP_CLASS_fault,
	DROP_CLASS_resource,
	DROP_CLASS_answered,
	DROP_CLASS_hardware,
};

struct counter_row {
	const char *name;
	const char *unit;
	const char *help;
};

struct drop_row {
	const char *name; // as in REST, metrics, replay: "no_backend"
	enum drop_class class;
	const char *help; // one line
	const char *fix;  // what to look at, or ""
};

extern const struct counter_row counter_rows[COUNTER_MAX];
extern const struct drop_row drop_rows[DROP_MAX]; // row 0 is "none"
const char *drop_class_name(enum drop_class class);

struct counters {
	uint64_t values[COUNTER_MAX];    // [worker]
	uint64_t drops[DROP_MAX];        // [worker]
	uint64_t drops_last_s[DROP_MAX]; // [worker] clock second of the last one
} __attribute__((aligned(64)));

static inline void counters_add(struct counters *c, enum counter_id id, uint64_t n)
{
	__atomic_store_n(&c->values[id], c->values[id] + n, __ATOMIC_RELAXED);
}

static inline void counters_drop(struct counters *c, enum drop_reason reason, uint64_t n)
{
	__atomic_store_n(&c->drops[reason], c->drops[reason] + n, __ATOMIC_RELAXED);
}

// Adds every value of `from` to `sum` (relaxed loads).
void counters_accumulate(struct counters *sum, const struct counters *from);
uint64_t counters_dropped(const struct counters *c); // sum over all reasons
// received + injected + generated + resteered_in - (sent + punted + dropped + resteered_out):
// 0 at rest (the accounting identity).
int64_t counters_imbalance(const struct counters *c);
