// SPDX-License-Identifier: BSD-3-Clause
// Hot path: no allocation, lock, log, system call.
//
// The bulk look-up of the one-way table, once per variant: oneway_lookup.c includes this file with
//   ONEWAY_TARGET  function attribute that lets the compiler use the variant's instructions
//   ONEWAY_NAME    (name) with the variant's ending
//   ONEWAY_MATCH4  how the keys of an IPv4 line are compared
//   ONEWAY_MATCH6  and those of an IPv6 line
// A function cannot take the place of this: the compare must be inlined, and may be only into a
// function compiled for the same instructions.
//
// Nothing waits for a line that was not asked for ONEWAY_AHEAD keys or one loop earlier, and nothing branches on what a
// line holds: one key in five is not at home, and a processor that guessed otherwise would lose more than the compare costs.

#define ONEWAY_INLINE ONEWAY_TARGET static inline __attribute__((always_inline))

// Is the key in this line? 0 bits of a mask: no.
ONEWAY_INLINE uint32_t ONEWAY_NAME(match)(
	const struct oneway_question *q, uint32_t line, uint32_t is6, uint32_t i)
{
	const struct flow_key *key = &q->keys[i];
	const struct oneway_line4 *line4 = (const struct oneway_line4 *)q->lines + line;
	const struct oneway_line6 *line6 = (const struct oneway_line6 *)q->lines + line;
	return is6 ? ONEWAY_MATCH6(line6, key, oneway_wanted(key))
		   : ONEWAY_MATCH4(line4, oneway_key4(key), oneway_wanted(key));
}

// All keys of one family in their homes; those that are not there are noted. order NULL: all keys of the burst.
ONEWAY_INLINE void ONEWAY_NAME(pass)(
	const struct oneway_question *q, struct oneway_burst *b, uint32_t is6, const uint8_t *order)
{
	const struct oneway_family f = q->families[is6];
	uint32_t n = b->n[is6], n_absent = 0, k = 0, ahead = 0;
	for (; ahead < n && ahead < ONEWAY_AHEAD; ahead++)
		oneway_fetch_home(q, &f, b, order ? order[ahead] : ahead);
	for (; k < n; k++, ahead++) {
		uint32_t i = order ? order[k] : k;
		if (ahead < n)
			oneway_fetch_home(q, &f, b, order ? order[ahead] : ahead);
		uint32_t mask = ONEWAY_NAME(match)(q, b->homes[i], is6, i);
		q->out_refs[i] = oneway_found(b->homes[i], mask);
		b->absent[n_absent] = (uint8_t)i;
		n_absent -= oneway_nothing(mask);
	}
	oneway_fetch_others(q, b, is6, n_absent);
}

ONEWAY_TARGET static void ONEWAY_NAME(oneway_bulk)(
	const struct oneway_question *question, struct oneway_burst *b)
{
	const struct oneway_question q = *question;
	if (b->n[1] == 0) {
		ONEWAY_NAME(pass)(&q, b, 0, NULL);
	} else if (b->n[0] == 0) {
		ONEWAY_NAME(pass)(&q, b, 1, NULL);
	} else {
		ONEWAY_NAME(pass)(&q, b, 0, b->order[0]);
		ONEWAY_NAME(pass)(&q, b, 1, b->order[1]);
	}
	for (uint32_t k = 0; k < b->n_later[0]; k++) {
		uint32_t i = b->later[k];
		uint32_t mask = ONEWAY_NAME(match)(&q, b->others[k], 0, i);
		q.out_refs[i] = oneway_found(b->others[k], mask);
	}
	for (uint32_t k = b->n_later[0]; k < b->n_later[0] + b->n_later[1]; k++) {
		uint32_t i = b->later[k];
		uint32_t mask = ONEWAY_NAME(match)(&q, b->others[k], 1, i);
		q.out_refs[i] = oneway_found(b->others[k], mask);
	}
}

#undef ONEWAY_INLINE
#undef ONEWAY_TARGET
#undef ONEWAY_NAME
#undef ONEWAY_MATCH4
#undef ONEWAY_MATCH6
