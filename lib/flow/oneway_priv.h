// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// Layout of the one-way table and the few steps that its files share.
//
// A line of 64 bytes:
//
//   IPv4  word 0 | word 1 | word 2 | word 3 | key 0 | key 1 | key 2 | key 3       key: client, client port, VIP port
//   IPv6  word 0 | word 1 | sequence, n_displaced, filter | ports 0, 1 | client 0 (16) | client 1 (16)
//
// A key lies in one of two lines of its family: its home (from the upper half of its hash) or its other one (from the
// lower half). Both can be found again from the entry itself, so an entry is displaced by hashing it anew: rare, and
// cheaper than the tag that would save it. It lies at home unless home was full when it was added, and a look-up that finds
// it elsewhere brings it home as soon as there is room. Without that a table whose flows come and go drifts until
// a third of them lie elsewhere. Measured with 67 % of the entries taken (IPv6: 76 %), which is the capacity: 9 % (27 %) lie
// elsewhere in a table just filled; after all flows have been replaced, with 30 packets each, 10 % (31 %), with 3 packets
// each 15 % (39 %), and would be 25 % (45 %) if none went home. IPv4 had 80 % once, 20 bytes a flow instead of 23.75, and 15 %,
// 17 %, 25 % and 36 %: a flow that goes and one that comes took 133 ns instead of 105, the slowest of 1,000 1.2 us instead of
// 0.8, a SYN through the pipeline 280 ns instead of 250; look-ups of 1M flows the same.
//
// A line counts the keys whose home it is and that lie elsewhere, and has a small filter of them: a miss reads the other
// line only when the filter asks for it. IPv4 lines have no room beside their four entries, so two bits of each
// word belong to the line: bit i of the count in word i, and filter bit i. This is what made the stamp 16 bits, not 18.
// Without it every miss in a full line, one in three, would cost two lines; with it one in ten does.
//
// Invariants: protocol bits 0 = free, all else in the word but the line's bits is 0 then; n_displaced of a line = number
// of entries whose home it is and that lie in their other line (sticks at its maximum); a key is in one place only.
//
// Other threads (oneway_copy): an entry is written by clearing its word, then its key, then its word. An IPv4 key is one
// aligned store, so whoever reads the same word before and after the key has a pair that was there: if
// the entry was another in between, its word was equal, and the key goes with it as well. An IPv6 key takes three
// stores: the line's sequence is odd meanwhile. A word alone changes in one store at any time.

#include "oneway.h"

#define ONEWAY_MAGIC  0x5779617765636c73ull // "slcewayW"
#define ONEWAY_FORMAT 2u

#define ONEWAY_COUNT_BIT    (1ull << 44)
#define ONEWAY_FILTER_SHIFT 45
#define ONEWAY_FILTER_BIT   (1ull << ONEWAY_FILTER_SHIFT)
// Ages that coarse stamps are capped at when they are dated: beyond any timeout.
#define ONEWAY_AGE_MAX_S (FLOW_IDLE_MAX_S + 64)

struct oneway_header {
	uint64_t magic;
	uint64_t size_bytes;
	uint32_t format;
	struct oneway_capacity capacity;
	uint32_t n_lines[2];
	uint32_t now_s; // the clock, written when it moves
	uint32_t clean; // 1: the writer said goodbye
	uint32_t pad;
	struct hash_key key;
};
_Static_assert(sizeof(struct oneway_header) == 64, "lines start on a line");

struct oneway_line4 {
	uint64_t words[4];
	uint64_t keys[4];
} __attribute__((aligned(64)));
_Static_assert(sizeof(struct oneway_line4) == 64, "one line");

struct oneway_line6 {
	uint64_t words[2];
	uint32_t sequence; // odd while a key is being written
	uint16_t n_displaced;
	uint16_t filter; // by oneway_class; 0 when n_displaced is 0
	uint32_t ports[2];
	struct address clients[2];
} __attribute__((aligned(64)));
_Static_assert(sizeof(struct oneway_line6) == 64, "one line");

#define ONEWAY_SLOTS4 4u
#define ONEWAY_SLOTS6 2u

static inline struct oneway_line4 *oneway_line4(const struct oneway_table *table, uint32_t line)
{
	return (struct oneway_line4 *)table->lines + line;
}
static inline struct oneway_line6 *oneway_line6(const struct oneway_table *table, uint32_t line)
{
	return (struct oneway_line6 *)table->lines + line;
}
static inline uint64_t *oneway_words(const struct oneway_table *table, uint32_t line)
{
	return oneway_line4(table, line)->words;
}
static inline uint32_t oneway_ref(uint32_t line, uint32_t slot)
{
	return line << 2 | slot;
}
static inline bool oneway_line_is6(const struct oneway_table *table, uint32_t line)
{
	return line >= table->families[1].first_line;
}
static inline struct oneway_family *oneway_family_of(struct oneway_table *table, uint32_t line)
{
	return &table->families[oneway_line_is6(table, line)];
}

// ---------------------------------------------------------------- where a key may lie

static inline uint32_t oneway_home(const struct oneway_family *f, uint64_t hash)
{
	return f->first_line + (uint32_t)((hash >> 32) * f->n_lines >> 32);
}
// Never home itself: lines go in pairs.
static inline uint32_t oneway_other(const struct oneway_family *f, uint64_t hash, uint32_t home)
{
	uint32_t other = (uint32_t)((hash & UINT32_MAX) * f->n_lines >> 32);
	return f->first_line + (other ^ (other == home - f->first_line));
}
// Which bit of the home's filter a displaced key sets.
static inline uint32_t oneway_class(uint64_t hash)
{
	return hash >> 32 & 15;
}

// ---------------------------------------------------------------- keys

// 1 TCP, 2 UDP, 3 SCTP; any other: more than a word can have.
#define ONEWAY_PROTOCOL_FOREIGN (1u << 20)
static const uint32_t oneway_protocol_codes[256] = {
	[0 ... NET_PROTO_TCP - 1] = ONEWAY_PROTOCOL_FOREIGN,
	[NET_PROTO_TCP] = 1,
	[NET_PROTO_TCP + 1 ... NET_PROTO_UDP - 1] = ONEWAY_PROTOCOL_FOREIGN,
	[NET_PROTO_UDP] = 2,
	[NET_PROTO_UDP + 1 ... NET_PROTO_SCTP - 1] = ONEWAY_PROTOCOL_FOREIGN,
	[NET_PROTO_SCTP] = 3,
	[NET_PROTO_SCTP + 1 ... 255] = ONEWAY_PROTOCOL_FOREIGN,
};
static inline bool oneway_is_free(uint64_t word)
{
	return (word & ONEWAY_PROTOCOL_MASK) == 0;
}
// Upper bits that the word of this key has: slot and protocol.
static inline uint64_t oneway_wanted(const struct flow_key *key)
{
	return (uint64_t)key->own_slot << 2 | oneway_protocol_codes[key->protocol];
}
static inline uint32_t oneway_ports(const struct flow_key *key)
{
	uint32_t ports;
	memcpy(&ports, &key->peer_port, sizeof(ports));
	return ports;
}
// IPv4 client and both ports as they lie side by side in the key: one load.
static inline uint64_t oneway_key4(const struct flow_key *key)
{
	uint64_t key4;
	_Static_assert(offsetof(struct flow_key, peer_port) == 16, "right after the address");
	memcpy(&key4, (const char *)key + 12, sizeof(key4));
	return key4;
}

// The key of an entry that is not free.
static inline struct flow_key oneway_key_at(
	const struct oneway_table *table, uint32_t line, uint32_t slot)
{
	static const uint8_t protocols[4] = { 0, NET_PROTO_TCP, NET_PROTO_UDP, NET_PROTO_SCTP };
	uint64_t word = oneway_words(table, line)[slot];
	struct address client;
	struct {
		rte_be32_t client;
		rte_be16_t ports[2];
	} key4;
	if (oneway_line_is6(table, line)) {
		client = oneway_line6(table, line)->clients[slot];
		memcpy(key4.ports, &oneway_line6(table, line)->ports[slot], sizeof(key4.ports));
	} else {
		memcpy(&key4, &oneway_line4(table, line)->keys[slot], sizeof(key4));
		client = address_from_v4(key4.client);
	}
	return flow_key_make(&client, key4.ports[0], key4.ports[1],
		(uint16_t)(word >> ONEWAY_SLOT_SHIFT),
		protocols[word >> ONEWAY_PROTOCOL_SHIFT & 3]);
}

// Slots that hold the key, as a mask (of one bit or none).
static inline uint32_t oneway_match4_scalar(
	const struct oneway_line4 *line, uint64_t key, uint64_t wanted)
{
	uint32_t mask = 0;
	for (uint32_t s = 0; s < ONEWAY_SLOTS4; s++)
		mask |= (uint32_t)(((line->keys[s] ^ key) |
					   (line->words[s] >> ONEWAY_PROTOCOL_SHIFT ^ wanted)) == 0)
			<< s;
	return mask;
}
static inline uint32_t oneway_match6(
	const struct oneway_line6 *line, const struct flow_key *key, uint64_t wanted)
{
	uint32_t mask = 0;
	for (uint32_t s = 0; s < ONEWAY_SLOTS6; s++) {
		uint64_t differs = line->words[s] >> ONEWAY_PROTOCOL_SHIFT ^ wanted;
		differs |= line->ports[s] ^ oneway_ports(key);
		differs |= line->clients[s].halves[0] ^ key->peer.halves[0];
		differs |= line->clients[s].halves[1] ^ key->peer.halves[1];
		mask |= (uint32_t)(differs == 0) << s;
	}
	return mask;
}
// Slots of one line of the key's family.
static inline uint32_t oneway_match(
	const struct oneway_table *table, uint32_t line, const struct flow_key *key)
{
	uint64_t wanted = oneway_wanted(key);
	if (oneway_line_is6(table, line))
		return oneway_match6(oneway_line6(table, line), key, wanted);
	return oneway_match4_scalar(oneway_line4(table, line), oneway_key4(key), wanted);
}

// First free slot of a line, or 4.
static inline uint32_t oneway_free_slot(const struct oneway_table *table, uint32_t line)
{
	uint32_t n_slots = oneway_line_is6(table, line) ? ONEWAY_SLOTS6 : ONEWAY_SLOTS4;
	for (uint32_t s = 0; s < n_slots; s++)
		if (oneway_is_free(oneway_words(table, line)[s]))
			return s;
	return 4;
}
static inline bool oneway_has_room(const struct oneway_table *table, uint32_t line)
{
	const uint64_t *words = oneway_words(table, line);
	int room = (int)oneway_is_free(words[0]) | (int)oneway_is_free(words[1]);
	if (!oneway_line_is6(table, line))
		room |= (int)oneway_is_free(words[2]) | (int)oneway_is_free(words[3]);
	return room != 0;
}

// ---------------------------------------------------------------- words

// Other threads read words whole: every store is one.
static inline void oneway_store(uint64_t *at, uint64_t word)
{
	__atomic_store_n(at, word, __ATOMIC_RELAXED);
}
static inline bool oneway_must_be_coarse(uint32_t timeout_s)
{
	return timeout_s > ONEWAY_FINE_MAX_S;
}
// The word with its stamp set to an age, in either unit. age_s at most ONEWAY_FINE_MAX_S when not coarse.
static inline uint64_t oneway_dated(uint64_t word, uint32_t age_s, bool coarse, uint32_t now_s)
{
	uint64_t unit = coarse ? ONEWAY_COARSE : 0;
	word &= ~(ONEWAY_STAMP_MASK << ONEWAY_STAMP_SHIFT | ONEWAY_COARSE);
	return word | unit | oneway_stamp(unit, now_s - age_s);
}
// Dates an entry that is read by a clock at was_s for one at now_s, `step` seconds later: its age is then at most
// ONEWAY_FINE_MAX_S when fine, ONEWAY_AGE_MAX_S when coarse. A stamp that says so already stays: coarse ones would get
// older each time.
static inline uint64_t oneway_date_anew(
	uint64_t word, uint32_t was_s, uint32_t now_s, uint32_t step)
{
	bool was_coarse = (word & ONEWAY_COARSE) != 0;
	uint32_t age_s = oneway_idle_at(word, was_s) + step;
	if (age_s <= (was_coarse ? ONEWAY_AGE_MAX_S : ONEWAY_FINE_MAX_S) && now_s - was_s == step)
		return word;
	if (age_s > ONEWAY_AGE_MAX_S)
		age_s = ONEWAY_AGE_MAX_S;
	return oneway_dated(word, age_s, was_coarse || age_s > ONEWAY_FINE_MAX_S, now_s);
}

// Empties a slot. Returns the word that it had; *out_displaced_from: the entry's home when it lay elsewhere, else
// UINT32_MAX. The caller owes that home a call of oneway_count_returned.
uint64_t oneway_take(
	struct oneway_table *table, uint32_t line, uint32_t slot, uint32_t *out_displaced_from);
void oneway_count_returned(struct oneway_table *table, uint32_t home);
// Moves a displaced entry to its home if there is room. Returns where it lies then.
uint32_t oneway_bring_home(
	struct oneway_table *table, uint32_t ref, uint32_t home, const struct flow_key *key);
// Counts a key of this hash as displaced from its home.
void oneway_count_displaced(struct oneway_table *table, uint32_t home, uint64_t hash);
uint32_t oneway_n_displaced(const struct oneway_table *table, uint32_t line);

// Sets up the handle for memory whose header is valid.
void oneway_attach(struct oneway_table *table, void *mem);
void oneway_n_lines(struct oneway_capacity capacity, uint32_t out_n_lines[2]);
