// SPDX-License-Identifier: BSD-3-Clause
// Hot path: no allocation, lock, log, system call.
//
// The one-way table itself: lay out, add, change, remove, copy. Look-ups are in oneway_lookup.c, time in
// oneway_ageing.c, attaching to an earlier process's memory in oneway_adopt.c.
//
// Cost of oneway_add: the home line, in the usual case. A full home costs the other line; both full, a
// breadth-first search for the shortest chain of displacements. Whatever happens, ONEWAY_LINES_MAX lines are touched
// at most, and then one entry of these gives way or the new one goes without.
#include "oneway.h"
#include "oneway_priv.h"

#include <assert.h>
#include <errno.h>

_Static_assert(ONEWAY_FREE == 0 && ONEWAY_STATE_MAX == 8, "three bits of the word");
_Static_assert(ONEWAY_AGE_MAX_S + ONEWAY_FINE_MAX_S + 16 < 0x10000u << ONEWAY_COARSE_UNIT_LOG,
	"a coarse stamp does not come round");
_Static_assert(ONEWAY_FINE_MAX_S * 2 <= 0x10000u, "nor does a fine one");

// ---------------------------------------------------------------- lay out

static uint32_t oneway_even_lines(uint64_t n_lines)
{
	return n_lines < 2 ? 2 : (uint32_t)((n_lines + 1) & ~1ull);
}

void oneway_n_lines(struct oneway_capacity capacity, uint32_t out_n_lines[2])
{
	// 95/64 of the capacity over 4 entries a line, or 23.75 bytes a flow; 21/16 over 2, or 42.
	out_n_lines[0] = oneway_even_lines((95ull * capacity.v4 + 255) / 256);
	out_n_lines[1] = oneway_even_lines((21ull * capacity.v6 + 31) / 32);
}

size_t oneway_size(struct oneway_capacity capacity)
{
	uint32_t n_lines[2];
	oneway_n_lines(capacity, n_lines);
	return sizeof(struct oneway_header) + ((size_t)n_lines[0] + n_lines[1]) * 64;
}

void oneway_attach(struct oneway_table *table, void *mem)
{
	struct oneway_header *header = mem;
	memset(table, 0, sizeof(*table));
	table->header = header;
	table->lines = header + 1;
	table->key = header->key;
	table->schedule = hash_schedule_make(&header->key);
	table->n_lines = header->n_lines[0] + header->n_lines[1];
	table->now_s = table->dated_s = header->now_s;
	for (uint32_t k = 0; k < 2; k++)
		table->families[k] = (struct oneway_family){ .first_line = k * header->n_lines[0],
			.n_lines = header->n_lines[k],
			.n_slots = k ? ONEWAY_SLOTS6 : ONEWAY_SLOTS4,
			.budget = UINT32_MAX };
}

int oneway_init(struct oneway_table *table, void *mem, size_t size, struct oneway_capacity capacity,
	const struct hash_key *key)
{
	if (capacity.v4 > ONEWAY_CAPACITY_MAX || capacity.v6 > ONEWAY_CAPACITY_MAX ||
		(uintptr_t)mem % 64 != 0)
		return -EINVAL;
	size_t need = oneway_size(capacity);
	if (size < need)
		return -EINVAL;
	// All of it, once: the packet path then meets no page for the first time.
	memset(mem, 0, need);
	struct oneway_header *header = mem;
	*header = (struct oneway_header){ .magic = ONEWAY_MAGIC,
		.size_bytes = need,
		.format = ONEWAY_FORMAT,
		.capacity = capacity,
		.key = *key };
	oneway_n_lines(capacity, header->n_lines);
	oneway_attach(table, mem);
	return 0;
}

void oneway_close(struct oneway_table *table)
{
	// Release: whoever reads 1 sees every entry that was written before.
	__atomic_store_n(&table->header->clean, 1, __ATOMIC_RELEASE);
}

// ---------------------------------------------------------------- counts of displaced keys

#define COUNT4_MAX 15u
#define COUNT6_MAX UINT16_MAX

uint32_t oneway_n_displaced(const struct oneway_table *table, uint32_t line)
{
	if (oneway_line_is6(table, line))
		return oneway_line6(table, line)->n_displaced;
	const uint64_t *words = oneway_words(table, line);
	uint32_t n = 0;
	for (uint32_t s = 0; s < ONEWAY_SLOTS4; s++)
		n |= (uint32_t)((words[s] & ONEWAY_COUNT_BIT) != 0) << s;
	return n;
}

// Sets a line's count; the filter loses all bits when that is 0 and gains the one of `class` when that is one.
static void oneway_set_displaced(struct oneway_table *table, uint32_t at, uint32_t n, int class)
{
	if (oneway_line_is6(table, at)) {
		struct oneway_line6 *line = oneway_line6(table, at);
		line->n_displaced = (uint16_t)n;
		line->filter = n == 0 ? 0 : line->filter;
		line->filter |= class >= 0 ? (uint16_t)(1u << class) : 0;
		return;
	}
	uint64_t *words = oneway_words(table, at);
	for (uint32_t s = 0; s < ONEWAY_SLOTS4; s++) {
		uint64_t word = words[s] & ~ONEWAY_COUNT_BIT;
		word |= n >> s & 1 ? ONEWAY_COUNT_BIT : 0;
		if (n == 0)
			word &= ~ONEWAY_FILTER_BIT;
		if (class >= 0 && (uint32_t) class % ONEWAY_SLOTS4 == s)
			word |= ONEWAY_FILTER_BIT;
		if (word != words[s])
			oneway_store(&words[s], word);
	}
}

void oneway_count_displaced(struct oneway_table *table, uint32_t home, uint64_t hash)
{
	uint32_t max = oneway_line_is6(table, home) ? COUNT6_MAX : COUNT4_MAX;
	uint32_t n = oneway_n_displaced(table, home);
	oneway_set_displaced(table, home, n < max ? n + 1 : n, (int)oneway_class(hash));
}

void oneway_count_returned(struct oneway_table *table, uint32_t home)
{
	uint32_t max = oneway_line_is6(table, home) ? COUNT6_MAX : COUNT4_MAX;
	uint32_t n = oneway_n_displaced(table, home);
	assert(n > 0);
	// At its maximum the count is no longer exact and stays: the filter keeps what it has then.
	if (n < max)
		oneway_set_displaced(table, home, n - 1, -1);
}

// ---------------------------------------------------------------- entries

// Writes an entry into a free slot, for readers in other threads in this order (oneway_priv.h).
static void oneway_put(
	struct oneway_table *table, uint32_t ref, const struct flow_key *key, uint64_t word)
{
	uint32_t at = ref >> 2, slot = ref & 3;
	uint64_t *words = oneway_words(table, at);
	assert(oneway_is_free(words[slot]));
	// Release fence: the cleared word is seen before any part of the new key.
	__atomic_thread_fence(__ATOMIC_RELEASE);
	if (oneway_line_is6(table, at)) {
		struct oneway_line6 *line = oneway_line6(table, at);
		__atomic_store_n(&line->sequence, line->sequence + 1, __ATOMIC_RELAXED);
		// Release fence: no part of the key is seen before the odd number.
		__atomic_thread_fence(__ATOMIC_RELEASE);
		__atomic_store_n(&line->ports[slot], oneway_ports(key), __ATOMIC_RELAXED);
		oneway_store(&line->clients[slot].halves[0], key->peer.halves[0]);
		oneway_store(&line->clients[slot].halves[1], key->peer.halves[1]);
		// Release: with the even number all of the key is seen.
		__atomic_store_n(&line->sequence, line->sequence + 1, __ATOMIC_RELEASE);
	} else {
		oneway_store(&oneway_line4(table, at)->keys[slot], oneway_key4(key));
	}
	// Release: with the word the key is seen.
	__atomic_store_n(&words[slot], (words[slot] & ONEWAY_LINE_BITS) | word, __ATOMIC_RELEASE);
}

static void oneway_clear(struct oneway_table *table, uint32_t line, uint32_t slot)
{
	uint64_t *at = &oneway_words(table, line)[slot];
	oneway_store(at, *at & ONEWAY_LINE_BITS);
}

uint64_t oneway_take(
	struct oneway_table *table, uint32_t line, uint32_t slot, uint32_t *out_displaced_from)
{
	struct oneway_family *f = oneway_family_of(table, line);
	uint64_t word = oneway_words(table, line)[slot];
	struct flow_key key = oneway_key_at(table, line, slot);
	uint32_t home = oneway_home(f, flow_key_hash(&table->schedule, &key));
	oneway_clear(table, line, slot);
	f->n_entries--;
	*out_displaced_from = home != line ? home : UINT32_MAX;
	return word;
}

static uint64_t oneway_take_alone(struct oneway_table *table, uint32_t line, uint32_t slot)
{
	uint32_t displaced_from;
	uint64_t word = oneway_take(table, line, slot, &displaced_from);
	if (displaced_from != UINT32_MAX)
		oneway_count_returned(table, displaced_from);
	return word;
}

void oneway_remove(struct oneway_table *table, uint32_t ref)
{
	assert(ref < oneway_n_positions(table) && !oneway_is_free(oneway_word(table, ref)));
	oneway_take_alone(table, ref >> 2, ref & 3);
}

static uint64_t oneway_make_word(const struct oneway_table *table, uint32_t backend_id,
	enum oneway_state state, const struct oneway_timeouts *timeouts)
{
	assert(backend_id < ONEWAY_BACKENDS_MAX && state != ONEWAY_FREE);
	uint64_t word = backend_id | (uint64_t)state << ONEWAY_STATE_SHIFT;
	bool coarse = oneway_must_be_coarse(oneway_timeout_s(word, timeouts));
	return oneway_dated(word, 0, coarse, table->now_s);
}

void oneway_set(struct oneway_table *table, uint32_t ref, uint32_t backend_id,
	enum oneway_state state, const struct oneway_timeouts *timeouts)
{
	uint64_t *at = oneway_word_at(table, ref);
	uint64_t kept = *at & ~((1ull << 44) - 1); // the line's bits, protocol, slot
	assert(!oneway_is_free(kept));
	oneway_store(at, kept | oneway_make_word(table, backend_id, state, timeouts));
}

// ---------------------------------------------------------------- room

// Lines in which an entry may be put if others move: 0 home, 1 other, then lines that entries of earlier ones
// could move to, each once.
struct oneway_search {
	uint32_t n_lines;
	uint32_t n_max;
	uint32_t lines[ONEWAY_LINES_MAX];
	uint8_t parents[ONEWAY_LINES_MAX]; // whose entry would move into this line,
	uint8_t slots[ONEWAY_LINES_MAX];   // and which
};

// How willingly an entry gives way: lower first. KEEP never does.
enum oneway_rank { RANK_EXPIRED, RANK_FIRST, RANK_CLOSED, RANK_FIN, RANK_KEEP };

struct oneway_victim {
	uint32_t at; // index of its line in the search
	uint32_t line;
	uint32_t slot;
	uint32_t rank;
	uint32_t idle_s;
};

static void oneway_weigh(const struct oneway_table *table, uint32_t line,
	const struct oneway_timeouts *timeouts, uint32_t at, struct oneway_victim *best)
{
	static const uint8_t by_state[ONEWAY_STATE_MAX] = {
		[ONEWAY_FREE] = RANK_KEEP,
		[ONEWAY_EMBRYONIC] = RANK_FIRST,
		[ONEWAY_ESTABLISHED] = RANK_KEEP,
		[ONEWAY_FIN] = RANK_FIN,
		[ONEWAY_CLOSED] = RANK_CLOSED,
		[ONEWAY_UDP_FIRST] = RANK_FIRST,
		[ONEWAY_UDP] = RANK_KEEP,
		[ONEWAY_AFFINITY] = RANK_KEEP,
	};
	uint32_t n_slots = oneway_line_is6(table, line) ? ONEWAY_SLOTS6 : ONEWAY_SLOTS4;
	for (uint32_t s = 0; s < n_slots; s++) {
		uint64_t word = oneway_words(table, line)[s];
		if (oneway_is_free(word))
			continue;
		uint32_t idle_s = oneway_idle_s(table, word);
		uint32_t rank = idle_s > oneway_timeout_s(word, timeouts)
					? RANK_EXPIRED
					: by_state[oneway_state(word)];
		if (rank == RANK_KEEP || rank > best->rank ||
			(rank == best->rank && idle_s <= best->idle_s))
			continue;
		*best = (struct oneway_victim){ at, line, s, rank, idle_s };
	}
}

static uint64_t oneway_evict(struct oneway_table *table, const struct oneway_victim *victim)
{
	table->n_moves++;
	table->n_evicted++;
	table->n_touched++; // its home
	return oneway_take_alone(table, victim->line, victim->slot);
}

// Lines beside home and other that a new entry looks at when the budget is used up.
#define BUDGET_LINES 12u

// The budget is used up: one of the family gives way, or none.
static uint64_t oneway_evict_for_budget(struct oneway_table *table, struct oneway_family *f,
	struct oneway_search *search, const struct oneway_timeouts *timeouts)
{
	struct oneway_victim victim = { .rank = RANK_KEEP };
	for (uint32_t i = 0; i < 2; i++)
		oneway_weigh(table, search->lines[i], timeouts, 0, &victim);
	for (uint32_t i = 0; i < BUDGET_LINES && victim.rank == RANK_KEEP; i++) {
		uint32_t next = f->victim_next < f->n_lines ? f->victim_next : 0;
		oneway_weigh(table, f->first_line + next, timeouts, 0, &victim);
		f->victim_next = next + 1;
		table->n_touched++;
		search->n_max--;
	}
	return victim.rank == RANK_KEEP ? 0 : oneway_evict(table, &victim);
}

// Where the entry could lie instead; *out_hash: of its key.
static uint32_t oneway_elsewhere(
	struct oneway_table *table, uint32_t line, uint32_t slot, uint64_t *out_hash)
{
	struct oneway_family *f = oneway_family_of(table, line);
	struct flow_key key = oneway_key_at(table, line, slot);
	*out_hash = flow_key_hash(&table->schedule, &key);
	uint32_t home = oneway_home(f, *out_hash);
	return line != home ? home : oneway_other(f, *out_hash, home);
}

// Moves an entry to its other place, which has room. It is written there before it is cleared here. Its stamp
// is dated, for it may leave the part that the sweep has yet to see for the part that it has seen.
static uint32_t oneway_move(
	struct oneway_table *table, uint32_t ref, uint32_t to, const struct flow_key *key)
{
	uint64_t word = oneway_word(table, ref) & ~ONEWAY_LINE_BITS;
	uint32_t new_ref = oneway_ref(to, oneway_free_slot(table, to));
	word = oneway_date_anew(word, table->now_s, table->now_s, 0);
	oneway_put(table, new_ref, key, word);
	oneway_clear(table, ref >> 2, ref & 3);
	table->n_moves++;
	return new_ref;
}

uint32_t oneway_bring_home(
	struct oneway_table *table, uint32_t ref, uint32_t home, const struct flow_key *key)
{
	if (!oneway_has_room(table, home))
		return ref;
	oneway_count_returned(table, home);
	return oneway_move(table, ref, home, key);
}

static void oneway_displace(struct oneway_table *table, uint32_t from, uint32_t slot, uint32_t to)
{
	uint64_t hash;
	uint32_t elsewhere = oneway_elsewhere(table, from, slot, &hash);
	assert(elsewhere == to);
	struct flow_key key = oneway_key_at(table, from, slot);
	oneway_move(table, oneway_ref(from, slot), to, &key);
	if (from == oneway_home(oneway_family_of(table, from), hash))
		oneway_count_displaced(table, from, hash);
	else
		oneway_count_returned(table, to);
}

// Displaces along the way from line `at` of the search up to its root, the far end first, so that every entry is in one
// of its lines after each step. Returns the root, which then has room.
static uint32_t oneway_clear_way(
	struct oneway_table *table, const struct oneway_search *search, uint32_t at)
{
	while (at >= 2) {
		uint32_t parent = search->parents[at];
		oneway_displace(table, search->lines[parent], search->slots[at], search->lines[at]);
		at = parent;
	}
	return search->lines[at];
}

// Adds the line that an entry could move to, unless it is there already.
static void oneway_search_add(
	struct oneway_table *table, struct oneway_search *search, uint32_t parent, uint32_t slot)
{
	uint64_t hash;
	uint32_t line = oneway_elsewhere(table, search->lines[parent], slot, &hash);
	for (uint32_t i = 0; i < search->n_lines; i++)
		if (search->lines[i] == line)
			return;
	__builtin_prefetch(oneway_line4(table, line), 1);
	search->lines[search->n_lines] = line;
	search->parents[search->n_lines] = (uint8_t)parent;
	search->slots[search->n_lines] = (uint8_t)slot;
	search->n_lines++;
	table->n_touched++;
}

// Breadth first from two full lines: index of the first line with room, or UINT32_MAX. Lines are asked for in batches
// before any of them is read: those of each root, which nearly always do, then all of a level.
static uint32_t oneway_search_room(
	struct oneway_table *table, const struct oneway_family *f, struct oneway_search *search)
{
	for (uint32_t at = 0, end = 1; at < end; end = at < 2 ? at + 1 : search->n_lines) {
		uint32_t first = search->n_lines;
		for (; at < end; at++)
			for (uint32_t s = 0; s < f->n_slots && search->n_lines < search->n_max; s++)
				oneway_search_add(table, search, at, s);
		for (uint32_t i = first; i < search->n_lines; i++)
			if (oneway_has_room(table, search->lines[i]))
				return i;
	}
	return UINT32_MAX;
}

// Beyond this share of all places (1.3 times the capacity for IPv4) a search for room is long and finds little: who gives way anyway
// does so at once. Measured at 1M flows, all embryonic: 2.0 us an entry with the search, 0.3 without.
static bool oneway_is_crowded(const struct oneway_family *f)
{
	return f->n_entries >= (uint64_t)f->n_lines * f->n_slots * 7 / 8;
}

// Line 0 or 1 of the search, both full, made to have room; UINT32_MAX: nobody can move and nobody may go.
static uint32_t oneway_make_room(struct oneway_table *table, struct oneway_search *search,
	const struct oneway_timeouts *timeouts, uint64_t *evicted)
{
	const struct oneway_family *f = oneway_family_of(table, search->lines[0]);
	struct oneway_victim victim = { .rank = RANK_KEEP };
	for (uint32_t i = 0; i < 2 && *evicted == 0; i++)
		oneway_weigh(table, search->lines[i], timeouts, i, &victim);
	if (victim.rank == RANK_EXPIRED || (victim.rank != RANK_KEEP && oneway_is_crowded(f))) {
		*evicted = oneway_evict(table, &victim);
		return victim.line;
	}
	uint32_t at = oneway_search_room(table, f, search);
	if (at == UINT32_MAX) {
		for (uint32_t i = 2; i < search->n_lines && *evicted == 0; i++)
			oneway_weigh(table, search->lines[i], timeouts, i, &victim);
		if (victim.rank == RANK_KEEP)
			return UINT32_MAX;
		*evicted = oneway_evict(table, &victim);
		at = victim.at;
	}
	return oneway_clear_way(table, search, at);
}

// Home or other line, with room in it; UINT32_MAX: none.
static uint32_t oneway_find_room(struct oneway_table *table, struct oneway_family *f, uint64_t hash,
	const struct oneway_timeouts *timeouts, uint64_t *evicted)
{
	uint32_t home = oneway_home(f, hash), other = oneway_other(f, hash, home);
	bool over = f->n_entries >= f->budget;
	table->n_touched = 1;
	if (!over && oneway_has_room(table, home))
		return home;
	table->n_touched = 2;
	if (!over && oneway_has_room(table, other))
		return other;
	struct oneway_search search; // its arrays as far as they are used
	search.n_lines = 2;
	search.n_max = ONEWAY_LINES_MAX - 1;
	search.lines[0] = home;
	search.lines[1] = other;
	if (over) {
		*evicted = oneway_evict_for_budget(table, f, &search, timeouts);
		if (*evicted == 0)
			return UINT32_MAX;
		if (oneway_has_room(table, home))
			return home;
		if (oneway_has_room(table, other))
			return other;
	}
	return oneway_make_room(table, &search, timeouts, evicted);
}

void oneway_prefetch_room(
	const struct oneway_table *table, const struct flow_key *key, uint64_t hash)
{
	const struct oneway_family *f = &table->families[!address_is_v4(&key->peer)];
	uint32_t home = oneway_home(f, hash);
	if (!oneway_has_room(table, home))
		flow_prefetch_line(oneway_line4(table, oneway_other(f, hash, home)));
}

uint32_t oneway_add(struct oneway_table *table, uint64_t hash, const struct oneway_entry *entry,
	const struct oneway_timeouts *timeouts, uint64_t *out_evicted)
{
	struct oneway_family *f = &table->families[!address_is_v4(&entry->key.peer)];
	uint64_t wanted = oneway_wanted(&entry->key);
	assert(wanted >> 18 == 0); // a protocol of ours
	*out_evicted = 0;
	uint32_t line = oneway_find_room(table, f, hash, timeouts, out_evicted);
	assert(table->n_touched <= ONEWAY_LINES_MAX);
	if (line == UINT32_MAX)
		return ONEWAY_NONE;
	uint32_t ref = oneway_ref(line, oneway_free_slot(table, line));
	uint64_t word = oneway_make_word(table, entry->backend_id, entry->state, timeouts);
	oneway_put(table, ref, &entry->key, word | wanted << ONEWAY_PROTOCOL_SHIFT);
	uint32_t home = oneway_home(f, hash);
	if (line != home)
		oneway_count_displaced(table, home, hash);
	f->n_entries++;
	return ref;
}

// ---------------------------------------------------------------- copies

// Slot of an IPv4 line: false if it changed meanwhile.
static bool oneway_read4(const struct oneway_line4 *line, uint32_t slot, struct oneway_line4 *out)
{
	// Acquire: the key is read after this word.
	out->words[slot] = __atomic_load_n(&line->words[slot], __ATOMIC_ACQUIRE);
	out->keys[slot] = __atomic_load_n(&line->keys[slot], __ATOMIC_RELAXED);
	// Acquire fence: the word is read again after the key.
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	return out->words[slot] == __atomic_load_n(&line->words[slot], __ATOMIC_RELAXED);
}

static bool oneway_read6(const struct oneway_line6 *line, uint32_t slot, struct oneway_line6 *out)
{
	// Acquire: key and word are read after this number.
	uint32_t before = __atomic_load_n(&line->sequence, __ATOMIC_ACQUIRE);
	const uint64_t *halves = line->clients[slot].halves;
	out->ports[slot] = __atomic_load_n(&line->ports[slot], __ATOMIC_RELAXED);
	out->clients[slot].halves[0] = __atomic_load_n(&halves[0], __ATOMIC_RELAXED);
	out->clients[slot].halves[1] = __atomic_load_n(&halves[1], __ATOMIC_RELAXED);
	out->words[slot] = __atomic_load_n(&line->words[slot], __ATOMIC_RELAXED);
	// Acquire fence: the second number is read after them.
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	return before % 2 == 0 && before == __atomic_load_n(&line->sequence, __ATOMIC_RELAXED);
}

bool oneway_copy(const struct oneway_table *table, uint32_t ref, struct oneway_entry *out)
{
	uint32_t at = ref >> 2, slot = ref & 3;
	bool is6 = oneway_line_is6(table, at), whole = false;
	if (at >= table->n_lines || (is6 && slot >= ONEWAY_SLOTS6))
		return false;
	// A table of one line, so that the entry is decoded by the same code.
	union {
		struct oneway_line4 v4;
		struct oneway_line6 v6;
	} line = { 0 };
	struct oneway_table one = { .lines = &line, .families[1].first_line = is6 ? 0 : 1 };
	for (uint32_t tries = 0; tries < 16 && !whole; tries++)
		whole = is6 ? oneway_read6(oneway_line6(table, at), slot, &line.v6)
			    : oneway_read4(oneway_line4(table, at), slot, &line.v4);
	uint64_t word = oneway_words(&one, 0)[slot];
	if (!whole || oneway_is_free(word))
		return false;
	// Read after the word (acquire fence above): no stamp is ahead of it.
	uint32_t now_s = __atomic_load_n(&table->now_s, __ATOMIC_RELAXED);
	*out = (struct oneway_entry){ .key = oneway_key_at(&one, 0, slot),
		.backend_id = oneway_backend_id(word),
		.idle_s = oneway_idle_at(word, now_s),
		.state = (uint8_t)oneway_state(word) };
	return true;
}
