// SPDX-License-Identifier: BSD-3-Clause
// Hot path: no allocation, lock, log, system call.
// Fragments: which datagram one belongs to, and what was decided about it.
//
//   sets      one line each: tag and birth of 8 ways      a miss touches nothing else
//   entries   two lines each, behind the way of the set: key, decision, what came of the datagram
//   held      mbufs that wait for their first, oldest to youngest and, per datagram, in the order in which they came
//
//                        first shown                 settled                 all bytes seen
//     (none) ───────────────────────────► WAITING ───────────► SETTLED ─────────────────────► (none)
//        └── later one, is held ───────────►┘ ▲                    │ overlap
//                                             └─ first again ──────┤
//                                                                  ▼
//                                                               POISONED ── age ──► (none)
//
// A datagram is SETTLED or POISONED for at most FRAGMENTS_LIFE_NS after its first fragment; when it is whole it is forgotten
// at once, so that its identification may come again. While WAITING nothing is known of ranges: held fragments are shown again after
// they were released, and only then count.
//
// Overlaps. Ranges that came are merged, so of a fragment within one it is no longer known whether it came as it is. `seen` has two bits
// for each (offset, end), placed by the keyed hash: without them it is no duplicate but an overlap, and poisons. With them it is dropped
// alone, also when they are others' (of n fragments, (n/64)^2 at most). Either way nothing is sent on twice.
//
// A first fragment that comes again while its datagram is not whole is a duplicate or, with a fast sender, the next datagram of the
// same identification. With the same ports both lead to the same flow: it starts anew. With others the later ones could be either's: poison.
//
// Floods. Later fragments without a first only ever take free ways, FRAGMENTS_HELD_MAX of them, and push each other out; first
// ones push out the oldest of their set.
//
// Invariants: tag 0 = free way; a WAITING entry alone has held mbufs; ranges are in order, disjoint and not adjacent;
// an entry whose deadline is over is free, whatever its tag says.
// Cost: set line, two entry lines; per fragment FRAGMENTS_RANGES steps at most. Sources: RFC 815 (holes), RFC 5722, RFC 8200 4.5.
#include "packet_priv.h"

#include <errno.h>

#define DATAGRAMS_MAX (1u << 20)
#define HELD_NONE     UINT8_MAX
#define BIRTH_SHIFT \
	24 // births in units of 17 ms: in 32 bits they come round after two years, and only choose victims

enum entry_state { ENTRY_WAITING = 1, ENTRY_SETTLED, ENTRY_POISONED };

struct set {
	uint32_t tags[FRAGMENTS_WAYS];
	uint32_t births[FRAGMENTS_WAYS];
} __attribute__((aligned(64)));
_Static_assert(sizeof(struct set) == 64, "one line");

// IPv4: (source, destination, protocol, identification), RFC 791. IPv6: without the protocol, which fragments of one
// datagram may tell differently (RFC 8200 4.5).
struct key {
	struct address src;
	struct address dst;
	rte_be32_t id;
	uint32_t protocol;
};
_Static_assert(sizeof(struct key) == 40, "no padding: hashed as bytes");

struct range {
	uint16_t begin;
	uint16_t end; // behind the last byte
};

struct entry {
	struct key key;
	uint64_t deadline_ns;
	uint64_t decision;
	rte_be16_t ports[2]; // of the first fragment
	uint16_t total;      // where the last fragment ended; 0: it did not come yet
	uint8_t protocol;    // of the first fragment
	uint8_t state;       // enum entry_state
	uint64_t seen[2];    // a bit in each for each fragment that came
	uint8_t n_held;
	uint8_t held_first; // indices into held, when n_held is not 0
	uint8_t held_last;
	uint8_t n_ranges;
	struct range ranges[FRAGMENTS_RANGES];
} __attribute__((aligned(64)));
_Static_assert(sizeof(struct entry) == 128, "two lines");

struct held {
	struct rte_mbuf *mbuf;
	uint64_t deadline_ns;
	uint32_t entry_idx; // FRAGMENTS_NO_DATAGRAM: its datagram was forgotten
	uint8_t older;      // list by age
	uint8_t younger;    // of the free ones too
	uint8_t next;       // of the same datagram
};
_Static_assert(FRAGMENTS_HELD_MAX < HELD_NONE, "indices of 8 bits");

struct fragments {
	struct hash_key hash_key;
	uint32_t n_sets; // power of two
	uint32_t n_held;
	uint8_t oldest; // HELD_NONE: none is held
	uint8_t youngest;
	uint8_t free;
	struct held held[FRAGMENTS_HELD_MAX];
	struct set *sets;
	struct entry *entries; // FRAGMENTS_WAYS of a set side by side
} __attribute__((aligned(64)));

size_t fragments_size(uint32_t n_datagrams)
{
	return sizeof(struct fragments) + n_datagrams / FRAGMENTS_WAYS * sizeof(struct set) +
	       n_datagrams * sizeof(struct entry);
}

int fragments_init(void *mem, size_t size, uint32_t n_datagrams, const struct hash_key *key,
	struct fragments **out)
{
	if (n_datagrams < FRAGMENTS_WAYS || n_datagrams > DATAGRAMS_MAX ||
		(n_datagrams & (n_datagrams - 1)) != 0 || size < fragments_size(n_datagrams))
		return -EINVAL;
	struct fragments *f = mem;
	memset(f, 0, fragments_size(n_datagrams));
	f->hash_key = *key;
	f->n_sets = n_datagrams / FRAGMENTS_WAYS;
	f->sets = (struct set *)(f + 1);
	f->entries = (struct entry *)(f->sets + f->n_sets);
	f->oldest = f->youngest = HELD_NONE;
	for (uint32_t i = 0; i < FRAGMENTS_HELD_MAX; i++)
		f->held[i].younger = (uint8_t)(i + 1 < FRAGMENTS_HELD_MAX ? i + 1 : HELD_NONE);
	*out = f;
	return 0;
}

uint32_t fragments_n_held(const struct fragments *f)
{
	return f->n_held;
}

// ---------------------------------------------------------------- entries
// A fragment as it is shown.
struct sight {
	struct key key;
	uint64_t hash;
	uint64_t now_ns;
	struct rte_mbuf *mbuf;
};

static struct sight sight_make(
	const struct fragments *f, const struct packet *p, struct rte_mbuf *mbuf, uint64_t now_ns)
{
	struct sight s = { .now_ns = now_ns, .mbuf = mbuf };
	s.key = (struct key){ .src = p->src,
		.dst = p->dst,
		.id = packet_fragment_id(mbuf, p),
		.protocol = p->is_v6 ? 0 : p->protocol };
	s.hash = hash_bytes(&f->hash_key, &s.key, sizeof(s.key));
	return s;
}

static inline uint32_t tag_make(uint64_t hash)
{
	return (uint32_t)(hash >> 32) | 1;
}

static inline uint32_t *tag_of(struct fragments *f, uint32_t entry_idx)
{
	return &f->sets[entry_idx / FRAGMENTS_WAYS].tags[entry_idx % FRAGMENTS_WAYS];
}

// Mbufs that wait for a datagram that is forgotten are nobody's from now on: fragments_expire hands them out in their turn.
static void entry_forget(struct fragments *f, uint32_t entry_idx)
{
	struct entry *e = &f->entries[entry_idx];
	for (uint8_t i = e->held_first; e->n_held > 0; i = f->held[i].next, e->n_held--)
		f->held[i].entry_idx = FRAGMENTS_NO_DATAGRAM;
	*tag_of(f, entry_idx) = 0;
}

// The live entry of this key, or FRAGMENTS_NO_DATAGRAM.
static uint32_t entry_find(struct fragments *f, const struct sight *s)
{
	uint32_t first = ((uint32_t)s->hash & (f->n_sets - 1)) * FRAGMENTS_WAYS;
	uint32_t tag = tag_make(s->hash);
	for (uint32_t i = first; i < first + FRAGMENTS_WAYS; i++) {
		if (*tag_of(f, i) != tag ||
			memcmp(&f->entries[i].key, &s->key, sizeof(s->key)) != 0)
			continue;
		if (s->now_ns < f->entries[i].deadline_ns)
			return i;
		entry_forget(f, i);
	}
	return FRAGMENTS_NO_DATAGRAM;
}

// A way for a new datagram: a free one, else the oldest of its set if that is over or `may_push`. FRAGMENTS_NO_DATAGRAM: none.
static uint32_t entry_place(struct fragments *f, const struct sight *s, bool may_push)
{
	uint32_t set_idx = (uint32_t)s->hash & (f->n_sets - 1), oldest = 0, oldest_age = 0;
	const struct set *set = &f->sets[set_idx];
	for (uint32_t way = 0; way < FRAGMENTS_WAYS; way++) {
		uint32_t age = (uint32_t)(s->now_ns >> BIRTH_SHIFT) - set->births[way];
		if (set->tags[way] == 0)
			return set_idx * FRAGMENTS_WAYS + way;
		if (age > oldest_age) {
			oldest = way;
			oldest_age = age;
		}
	}
	uint32_t entry_idx = set_idx * FRAGMENTS_WAYS + oldest;
	if (!may_push && s->now_ns < f->entries[entry_idx].deadline_ns)
		return FRAGMENTS_NO_DATAGRAM;
	entry_forget(f, entry_idx);
	return entry_idx;
}

// What waits for the datagram already goes on waiting.
static void entry_begin(struct fragments *f, uint32_t entry_idx, const struct sight *s)
{
	struct set *set = &f->sets[entry_idx / FRAGMENTS_WAYS];
	struct entry *e = &f->entries[entry_idx];
	set->births[entry_idx % FRAGMENTS_WAYS] = (uint32_t)(s->now_ns >> BIRTH_SHIFT);
	set->tags[entry_idx % FRAGMENTS_WAYS] = tag_make(s->hash);
	*e = (struct entry){ .key = s->key,
		.deadline_ns = s->now_ns + FRAGMENTS_LIFE_NS,
		.state = ENTRY_WAITING,
		.n_held = e->n_held,
		.held_first = e->held_first,
		.held_last = e->held_last };
}

// ---------------------------------------------------------------- ranges
// One bit in each word.
struct seen {
	uint64_t words[2];
};

static inline struct seen seen_make(const struct fragments *f, uint32_t begin, uint32_t end)
{
	uint64_t hash = hash_fold((uint64_t)begin << 32 | end, f->hash_key.words[0] | 1);
	return (struct seen){ { 1ull << (hash & 63), 1ull << (hash >> 32 & 63) } };
}

static inline bool is_seen(const struct entry *e, struct seen s)
{
	return (e->seen[0] & s.words[0]) && (e->seen[1] & s.words[1]);
}

// Inserts [begin, end) before range `at`; joins it with neighbours that it touches. False: too many.
static bool range_insert(struct entry *e, uint32_t at, uint32_t begin, uint32_t end)
{
	bool joins_before = at > 0 && e->ranges[at - 1].end == begin;
	bool joins_behind = at < e->n_ranges && e->ranges[at].begin == end;
	if (joins_before && joins_behind) {
		e->ranges[at - 1].end = e->ranges[at].end;
		e->n_ranges--;
		memmove(&e->ranges[at], &e->ranges[at + 1],
			(e->n_ranges - at) * sizeof(e->ranges[0]));
	} else if (joins_before) {
		e->ranges[at - 1].end = (uint16_t)end;
	} else if (joins_behind) {
		e->ranges[at].begin = (uint16_t)begin;
	} else {
		if (e->n_ranges == FRAGMENTS_RANGES)
			return false;
		memmove(&e->ranges[at + 1], &e->ranges[at],
			(e->n_ranges - at) * sizeof(e->ranges[0]));
		e->ranges[at] = (struct range){ (uint16_t)begin, (uint16_t)end };
		e->n_ranges++;
	}
	return true;
}

// Does what this fragment says of the end of the datagram agree with what came?
static bool end_agrees(const struct entry *e, uint32_t end, bool has_more)
{
	uint32_t reached = e->n_ranges ? e->ranges[e->n_ranges - 1].end : 0;
	if (has_more)
		return e->total == 0 || end < e->total;
	return e->total == 0 ? end >= reached : end == e->total;
}

// Takes note of what p brings. DROP_NONE: it is new.
static enum drop_reason entry_note(
	const struct fragments *f, struct entry *e, const struct packet *p)
{
	uint32_t begin = packet_fragment_offset(p), end = begin + packet_fragment_length(p);
	bool has_more = packet_fragment_has_more(p);
	if (!end_agrees(e, end, has_more))
		return DROP_FRAGMENT_OVERLAP;
	uint32_t at = 0;
	while (at < e->n_ranges && e->ranges[at].end <= begin)
		at++;
	if (at < e->n_ranges && e->ranges[at].begin < end) {
		bool is_within = begin >= e->ranges[at].begin && end <= e->ranges[at].end;
		return is_within && is_seen(e, seen_make(f, begin, end)) ? DROP_FRAGMENT_DUPLICATE
									 : DROP_FRAGMENT_OVERLAP;
	}
	if (!range_insert(e, at, begin, end))
		return DROP_FRAGMENT_GAPS;
	struct seen seen = seen_make(f, begin, end);
	e->seen[0] |= seen.words[0];
	e->seen[1] |= seen.words[1];
	if (!has_more)
		e->total = (uint16_t)end;
	return DROP_NONE;
}

static inline bool entry_is_whole(const struct entry *e)
{
	return e->n_ranges == 1 && e->ranges[0].end == e->total; // it begins with the first one
}

// ---------------------------------------------------------------- mbufs that wait
static void held_unlink(struct fragments *f, uint8_t i)
{
	struct held *h = &f->held[i];
	if (h->older == HELD_NONE)
		f->oldest = h->younger;
	else
		f->held[h->older].younger = h->younger;
	if (h->younger == HELD_NONE)
		f->youngest = h->older;
	else
		f->held[h->younger].older = h->older;
	h->younger = f->free;
	f->free = i;
	f->n_held--;
}

// Takes the oldest out, also from its datagram, of which it is the first that waits. Without any that waits a datagram
// is forgotten.
static struct rte_mbuf *held_take_oldest(struct fragments *f)
{
	uint8_t i = f->oldest;
	uint32_t entry_idx = f->held[i].entry_idx;
	if (entry_idx != FRAGMENTS_NO_DATAGRAM) {
		struct entry *e = &f->entries[entry_idx];
		e->held_first = f->held[i].next;
		if (--e->n_held == 0)
			entry_forget(f, entry_idx);
	}
	held_unlink(f, i);
	return f->held[i].mbuf;
}

static void held_append(struct fragments *f, uint32_t entry_idx, const struct sight *s)
{
	struct entry *e = &f->entries[entry_idx];
	uint8_t i = f->free;
	f->free = f->held[i].younger;
	f->held[i] = (struct held){ .mbuf = s->mbuf,
		.deadline_ns = s->now_ns + FRAGMENTS_HOLD_NS,
		.entry_idx = entry_idx,
		.older = f->youngest,
		.younger = HELD_NONE,
		.next = HELD_NONE };
	if (f->youngest == HELD_NONE)
		f->oldest = i;
	else
		f->held[f->youngest].younger = i;
	f->youngest = i;
	if (e->n_held++ == 0)
		e->held_first = i;
	else
		f->held[e->held_last].next = i;
	e->held_last = i;
	f->n_held++;
}

uint32_t fragments_expire(struct fragments *f, uint64_t now_ns, struct rte_mbuf **out, uint32_t max)
{
	uint32_t n = 0;
	while (n < max && f->oldest != HELD_NONE) {
		if (now_ns < f->held[f->oldest].deadline_ns)
			break;
		out[n++] = held_take_oldest(f);
	}
	return n;
}

// ---------------------------------------------------------------- the steps of one fragment
static void refuse(struct fragments_answer *out, enum drop_reason reason)
{
	out->kind = FRAGMENTS_REFUSED;
	out->reason = (uint8_t)reason;
}

static void poison(struct entry *e, struct fragments_answer *out)
{
	e->state = ENTRY_POISONED;
	refuse(out, DROP_FRAGMENT_OVERLAP);
}

// Is this first fragment, of a datagram whose first one came, that one again?
static bool is_first_again(const struct fragments *f, const struct entry *e, const struct packet *p)
{
	return memcmp(e->ports, &p->src_port, sizeof(e->ports)) == 0 &&
	       e->protocol == p->protocol && is_seen(e, seen_make(f, 0, packet_fragment_length(p)));
}

static void see_first(struct fragments *f, const struct packet *p, const struct sight *s,
	struct fragments_answer *out)
{
	uint32_t entry_idx = entry_find(f, s);
	if (entry_idx == FRAGMENTS_NO_DATAGRAM) {
		entry_idx = entry_place(f, s, true);
	} else if (f->entries[entry_idx].state == ENTRY_POISONED) {
		refuse(out, DROP_FRAGMENT_OVERLAP);
		return;
	} else if (f->entries[entry_idx].state == ENTRY_SETTLED &&
		   !is_first_again(f, &f->entries[entry_idx], p)) {
		poison(&f->entries[entry_idx], out);
		return;
	}
	struct entry *e = &f->entries[entry_idx];
	entry_begin(f, entry_idx, s);
	memcpy(e->ports, &p->src_port, sizeof(e->ports));
	e->protocol = p->protocol;
	entry_note(f, e, p);
	out->kind = FRAGMENTS_FIRST;
	out->datagram = entry_idx;
}

static void hold(struct fragments *f, uint32_t entry_idx, const struct sight *s,
	struct fragments_answer *out)
{
	if (entry_idx == FRAGMENTS_NO_DATAGRAM) {
		entry_idx = entry_place(f, s, false);
		if (entry_idx == FRAGMENTS_NO_DATAGRAM) {
			refuse(out, DROP_FRAGMENT_NO_FIRST);
			return;
		}
		entry_begin(f, entry_idx, s);
	}
	if (f->entries[entry_idx].n_held == FRAGMENTS_HELD_EACH) {
		refuse(out, DROP_FRAGMENT_NO_FIRST);
		return;
	}
	if (f->n_held == FRAGMENTS_HELD_MAX) {
		out->given_up = held_take_oldest(f);
		if (*tag_of(f, entry_idx) == 0) // was the only one of this datagram
			entry_begin(f, entry_idx, s);
	}
	held_append(f, entry_idx, s);
	out->kind = FRAGMENTS_HELD;
}

static void see_later(struct fragments *f, const struct packet *p, const struct sight *s,
	struct fragments_answer *out)
{
	uint32_t entry_idx = entry_find(f, s);
	if (entry_idx == FRAGMENTS_NO_DATAGRAM || f->entries[entry_idx].state == ENTRY_WAITING) {
		hold(f, entry_idx, s, out);
		return;
	}
	struct entry *e = &f->entries[entry_idx];
	enum drop_reason reason =
		e->state == ENTRY_POISONED ? DROP_FRAGMENT_OVERLAP : entry_note(f, e, p);
	if (reason == DROP_FRAGMENT_OVERLAP) {
		poison(e, out);
		return;
	}
	if (reason != DROP_NONE) {
		refuse(out, reason);
		return;
	}
	out->kind = FRAGMENTS_KNOWN;
	out->decision = e->decision;
	if (entry_is_whole(e))
		entry_forget(f, entry_idx);
}

void fragments_see(struct fragments *f, const struct packet *p, struct rte_mbuf *mbuf,
	uint64_t now_ns, struct fragments_answer *out)
{
	struct sight s = sight_make(f, p, mbuf, now_ns);
	*out = (struct fragments_answer){ .datagram = FRAGMENTS_NO_DATAGRAM };
	if (packet_fragment_offset(p) == 0)
		see_first(f, p, &s, out);
	else
		see_later(f, p, &s, out);
}

uint32_t fragments_settle(struct fragments *f, const struct fragments_answer *first,
	uint64_t decision, struct rte_mbuf **released)
{
	struct entry *e = &f->entries[first->datagram];
	e->state = ENTRY_SETTLED;
	e->decision = decision;
	uint32_t n = 0;
	for (uint8_t i = e->held_first; n < e->n_held; i = f->held[i].next) {
		released[n++] = f->held[i].mbuf;
		held_unlink(f, i);
	}
	e->n_held = 0;
	return n;
}
