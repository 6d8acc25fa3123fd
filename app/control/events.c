// SPDX-License-Identifier: BSD-3-Clause
// The journal: the last CONTROL_EVENTS events in a ring, each logged as it is recorded. Memory is fixed.
#include "control_priv.h"

#include <stdarg.h>
#include <string.h>

void control_note(struct control *c, enum log_level level, const char *kind, const char *object,
	const char *fmt, ...)
{
	struct control_event *e = &c->events[c->n_events % CONTROL_EVENTS];
	memset(e, 0, sizeof(*e));
	e->id = ++c->n_events;
	e->time_ms = clock_wall_ms();
	snprintf(e->kind, sizeof(e->kind), "%s", kind);
	snprintf(e->object, sizeof(e->object), "%s", object);
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(e->text, sizeof(e->text), fmt, ap);
	va_end(ap);
	if (e->object[0] != '\0')
		log_write(&c->log, level, e->kind, "%s: %s", e->object, e->text);
	else
		log_write(&c->log, level, e->kind, "%s", e->text);
}

uint32_t control_events(
	const struct control *c, uint64_t after, const struct control_event **out, uint32_t max)
{
	uint64_t first = c->n_events > CONTROL_EVENTS ? c->n_events - CONTROL_EVENTS + 1 : 1;
	if (after >= c->n_events)
		return 0;
	if (after >= first)
		first = after + 1;
	uint64_t at = (first - 1) % CONTROL_EVENTS, n = c->n_events - first + 1;
	if (n > CONTROL_EVENTS - at)
		n = CONTROL_EVENTS - at;
	*out = &c->events[at];
	return n < max ? (uint32_t)n : max;
}
