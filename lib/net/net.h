// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// Addresses of both families in one type, packet headers of our own, the flow key
// (tuple as the tables see it), checksum arithmetic and the keyed hash.
// Pure; every function is callable from any thread.

#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <rte_byteorder.h>

#include "base.h"

// ---------------------------------------------------------------- addresses
// 16 bytes in network order. IPv4 is held as ::ffff:a.b.c.d (RFC 4291 2.5.5.2), which is
// not valid on the wire as an IPv6 source or destination and is dropped there by name.
struct address {
	union {
		uint8_t bytes[16];
		rte_be32_t words[4];
		uint64_t halves[2];
	};
};
_Static_assert(sizeof(struct address) == 16, "address is 16 bytes");

struct prefix {
	struct address address; // host bits are zero
	uint8_t len;            // of the family: 0..32 or 0..128
};

#define ADDRESS_TEXT_LEN 48

static inline bool address_is_v4(const struct address *a)
{
	return a->halves[0] == 0 && a->words[2] == RTE_BE32(0x0000ffff);
}

static inline struct address address_from_v4(rte_be32_t v4)
{
	struct address a;
	a.halves[0] = 0;
	// One store: addresses are read in halves, and a load waits when two stores made what it reads.
	a.halves[1] = RTE_BYTE_ORDER == RTE_LITTLE_ENDIAN
			      ? (uint64_t)v4 << 32 | RTE_BE32(0x0000ffff)
			      : (uint64_t)0x0000ffff << 32 | v4;
	return a;
}

static inline rte_be32_t address_v4(const struct address *a)
{
	return a->words[3];
}

static inline bool address_equal(const struct address *a, const struct address *b)
{
	return ((a->halves[0] ^ b->halves[0]) | (a->halves[1] ^ b->halves[1])) == 0;
}

static inline bool address_is_unspecified(const struct address *a)
{
	return a->halves[0] == 0 && (a->halves[1] == 0 || (address_is_v4(a) && a->words[3] == 0));
}

static inline int address_compare(const struct address *a, const struct address *b)
{
	return memcmp(a->bytes, b->bytes, 16);
}

// Text of either family ("192.0.2.1", "2001:db8::1"); no zone, no brackets, no leading
// zeros in IPv4 octets, no ::ffff: forms. 0 or -EINVAL.
int address_parse(const char *text, struct address *out);
const char *address_format(const struct address *a, char buf[ADDRESS_TEXT_LEN]);
// "192.0.2.0/24"; blanks around are refused; set host bits are refused with -EINVAL.
int prefix_parse(const char *text, struct prefix *out);
const char *prefix_format(const struct prefix *p, char buf[ADDRESS_TEXT_LEN + 4]);
bool prefix_contains(const struct prefix *p, const struct address *a);
// Source addresses that cannot be on a wire: unspecified, loopback, multicast, broadcast, v4-mapped
// given as IPv6 is the caller's business.
bool address_is_impossible_source(const struct address *a);
// Loopback, link-local, multicast, unspecified, broadcast: never a backend.
bool address_is_unroutable(const struct address *a);
// "192.0.2.1:80" or "[2001:db8::1]:80". buf >= ADDRESS_TEXT_LEN + 10.
const char *endpoint_format(const struct address *a, uint16_t port, char *buf, size_t len);

struct mac {
	uint8_t bytes[6];
};
// As a little-endian word's first six bytes; the others 0.
static inline uint64_t mac_word(const struct mac *mac)
{
	uint64_t word = 0;
	memcpy(&word, mac->bytes, sizeof(mac->bytes));
	return word;
}
int mac_parse(const char *text, struct mac *out); // "02:00:00:00:00:01"
const char *mac_format(const struct mac *mac, char buf[18]);

// ---------------------------------------------------------------- headers
// Own definitions: DPDK's change between releases (design, rule 1). All fields network order.
#define NET_ETHERTYPE_V4   0x0800
#define NET_ETHERTYPE_V6   0x86dd
#define NET_ETHERTYPE_ARP  0x0806
#define NET_ETHERTYPE_VLAN 0x8100
#define NET_PROTO_ICMP     1
#define NET_PROTO_TCP      6
#define NET_PROTO_UDP      17
#define NET_PROTO_ICMPV6   58
#define NET_PROTO_SCTP     132

struct eth_header {
	struct mac dst;
	struct mac src;
	rte_be16_t type;
} __attribute__((packed));

struct v4_header {
	uint8_t version_ihl;
	uint8_t tos;
	rte_be16_t total_length;
	rte_be16_t id;
	rte_be16_t fragment; // flags 3 bits, offset 13 bits in units of 8 bytes
	uint8_t ttl;
	uint8_t protocol;
	rte_be16_t checksum;
	rte_be32_t src;
	rte_be32_t dst;
} __attribute__((packed));

struct v6_header {
	rte_be32_t version_class_label;
	rte_be16_t payload_length;
	uint8_t next_header;
	uint8_t hop_limit;
	struct address src;
	struct address dst;
} __attribute__((packed));

struct tcp_header {
	rte_be16_t src_port;
	rte_be16_t dst_port;
	rte_be32_t sequence;
	rte_be32_t acknowledgement;
	uint8_t offset; // upper 4 bits: header length in units of 4 bytes
	uint8_t flags;
	rte_be16_t window;
	rte_be16_t checksum;
	rte_be16_t urgent;
} __attribute__((packed));

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_PSH 0x08
#define TCP_ACK 0x10
#define TCP_URG 0x20

struct udp_header {
	rte_be16_t src_port;
	rte_be16_t dst_port;
	rte_be16_t length;
	rte_be16_t checksum;
} __attribute__((packed));

struct sctp_header { // RFC 9260 3.1
	rte_be16_t src_port;
	rte_be16_t dst_port;
	rte_be32_t tag;
	uint32_t checksum; // CRC32c, its lowest byte first
} __attribute__((packed));

struct sctp_chunk { // header of a chunk, RFC 9260 3.2
	uint8_t type;
	uint8_t flags;
	rte_be16_t length; // with this header, without the padding to a multiple of 4
} __attribute__((packed));

#define SCTP_INIT              1
#define SCTP_INIT_ACK          2
#define SCTP_ABORT             6
#define SCTP_SHUTDOWN          7
#define SCTP_SHUTDOWN_ACK      8
#define SCTP_ERROR             9
#define SCTP_COOKIE_ACK        11
#define SCTP_SHUTDOWN_COMPLETE 14
#define SCTP_FLAG_T            0x01 // ABORT, SHUTDOWN COMPLETE: the tag is the receiver's own, reflected

struct icmp_header { // ICMP and ICMPv6: the first 8 bytes
	uint8_t type;
	uint8_t code;
	rte_be16_t checksum;
	rte_be16_t word_hi; // echo identifier, or unused
	rte_be16_t word_lo; // echo sequence, or next-hop MTU (v4)
} __attribute__((packed));

// ---------------------------------------------------------------- flow key
// A tuple as the tables see it: seen from one of our own addresses (VIP or SNAT address,
// named by its slot, which is stable for the life of every flow that uses it) towards a peer
// (client or backend). Exact: slot <-> address is one to one, so a compare of all 24 bytes is
// a compare of the full 5-tuple.
struct flow_key {
	struct address peer;  // packet's source
	rte_be16_t peer_port; // packet's source port; echo identifier for ICMP; 0 if none
	rte_be16_t own_port;  // packet's destination port
	uint16_t own_slot;    // slot of the packet's destination address
	uint8_t protocol;     // NET_PROTO_*
	uint8_t zero;         // must be 0
};
_Static_assert(sizeof(struct flow_key) == 24, "three words");

// Ports, slot, protocol: the key's third word.
static inline uint64_t flow_key_tail(const struct flow_key *k)
{
	return ((const uint64_t *)(const void *)k)[2];
}

static inline bool flow_key_equal(const struct flow_key *a, const struct flow_key *b)
{
	const uint64_t *x = (const uint64_t *)(const void *)a;
	const uint64_t *y = (const uint64_t *)(const void *)b;
	return ((x[0] ^ y[0]) | (x[1] ^ y[1]) | (x[2] ^ y[2])) == 0;
}

// ---------------------------------------------------------------- keyed hash
// Multiply-and-fold over 8-byte words with a 128-bit random key (the construction of
// wyhash and of many others: 64x64 -> 128 multiply, high xor low). Not a MAC; it keeps
// an outsider who does not know the key from choosing tuples that collide.
struct hash_key {
	uint64_t words[2];
};

static inline uint64_t hash_fold(uint64_t a, uint64_t b)
{
	__uint128_t p = (__uint128_t)a * b;
	return (uint64_t)p ^ (uint64_t)(p >> 64);
}

static inline uint64_t hash_words3(const struct hash_key *key, uint64_t a, uint64_t b, uint64_t c)
{
	uint64_t h = hash_fold(a ^ key->words[0], b ^ key->words[1] ^ 0x9e3779b97f4a7c15ull);
	h = hash_fold(h ^ c ^ key->words[1], key->words[0] ^ 0xd6e8feb86659fd93ull);
	// Without this last fold c meets one multiplication by a constant of the key: for one key in a hundred, one client's ports
	// in order fall into rows with 4 to 25 times the variance of chance.
	return hash_fold(h, 0x9e3779b97f4a7c15ull);
}

// What flow_key_hash takes: a hash_key spread over four words, made once per table.
struct hash_schedule {
	uint64_t words[4];
};
struct hash_schedule hash_schedule_make(const struct hash_key *key);

// Product of the two 32-bit halves of x + k, each half added for itself.
static inline uint64_t hash_halves(uint64_t x, uint64_t k)
{
	uint32_t low = (uint32_t)x + (uint32_t)k, high = (uint32_t)(x >> 32) + (uint32_t)(k >> 32);
	return (uint64_t)low * high;
}

// The flow table's hash: NH (the universal hash inside UMAC, RFC 4418) over the key's six 32-bit words, then the product of the
// sum's own halves. Products of 32 bits, because processors make four or eight of these at once (flow/lookup.c has the
// same function for several keys), and no product waits for another but the last.
//
// NH: two keys, whichever they are, have one sum for at most one hash_key in 2^32. So who does not know the key can choose no
// set that collides more than chance. The sum alone is a straight line through keys in order (one client's ports): rows
// would be filled as unevenly as the slope happens to be; the last product bends it. The rotation brings the middle of that
// product, its best bits, both to the top (which chooses the bucket) and to the bottom (the tag). Tests: net_test, flow_hash_test.
static inline uint64_t flow_key_hash(const struct hash_schedule *s, const struct flow_key *k)
{
	const uint64_t *w = (const uint64_t *)(const void *)k;
	uint64_t sum = hash_halves(w[0], s->words[0]) + hash_halves(w[1], s->words[1]) +
		       hash_halves(w[2], s->words[2]);
	uint64_t h = hash_halves(sum ^ s->words[3], 0);
	return h ^ (h << 24 | h >> 40);
}

// Any bytes, any length (cold use, identities).
uint64_t hash_bytes(const struct hash_key *key, const void *bytes, size_t len);
// Unkeyed 64-bit mix of an identity, equal on every node and version: Maglev permutations and digests.
uint64_t hash_stable(const void *bytes, size_t len, uint64_t seed);

// ---------------------------------------------------------------- checksums
// Internet checksum arithmetic (RFC 1071, RFC 1624). Sums are of 16-bit words as they lie in
// memory, so results are stored without a byte swap.
// Each step adds a word to itself turned by half: both halves of the result are the sum, and the upper one has the carry in.
static inline uint16_t checksum_fold(uint64_t sum)
{
	sum += sum << 32 | sum >> 32;
	uint32_t word = (uint32_t)(sum >> 32);
	word += word << 16 | word >> 16;
	return (uint16_t)(word >> 16);
}

// Un-folded one's-complement sum of bytes (odd length padded with 0).
uint64_t checksum_sum(const void *bytes, size_t len);

static inline uint64_t checksum_sum_v4(rte_be32_t a)
{
	return (uint64_t)(a & 0xffff) + (a >> 16);
}

static inline uint64_t checksum_sum_address(const struct address *a) // sum of the 16 bytes
{
	uint64_t s = 0;
	for (int i = 0; i < 4; i++)
		s += checksum_sum_v4(a->words[i]);
	return s;
}

// RFC 1624 (eqn 3): new = ~(~old + sum(~removed) + sum(added)); `removed` and `added` are
// un-folded sums of the bytes that went and came.
static inline rte_be16_t checksum_update(rte_be16_t old, uint64_t removed, uint64_t added)
{
	uint64_t sum = (uint64_t)(uint16_t)~old + (uint16_t)~checksum_fold(removed) + added;
	return (rte_be16_t)~checksum_fold(sum);
}

// The same in two steps, where one change goes into several checksums: un-folded deltas of words that changed, which may be
// added up, then each checksum, folded once.
static inline uint64_t checksum_delta(uint32_t was, uint32_t is)
{
	return (uint64_t)UINT32_MAX - was +
	       is; // ~was + is, but constants of several can be added up before
}
static inline uint64_t checksum_delta_address(const struct address *was, const struct address *is)
{
	uint64_t delta = 0;
	for (int i = 0; i < 4; i++)
		delta += checksum_delta(was->words[i], is->words[i]);
	return delta;
}
static inline rte_be16_t checksum_apply(rte_be16_t old, uint64_t delta)
{
	return (rte_be16_t)~checksum_fold(delta + UINT16_MAX - old);
}

// Pseudo-header sum (RFC 793, RFC 8200 8.1). Addresses of one family; len in host order.
uint64_t checksum_pseudo(
	const struct address *src, const struct address *dst, uint8_t protocol, uint32_t len);
