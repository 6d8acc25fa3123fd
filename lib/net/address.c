// SPDX-License-Identifier: BSD-3-Clause
// Text forms and classes of addresses, prefixes and MACs; hashes of byte strings.
#include "net.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

int address_parse(const char *text, struct address *out)
{
	struct in_addr v4;
	struct address a;
	if (strchr(text, ':') == NULL) {
		if (inet_pton(AF_INET, text, &v4) != 1)
			return -EINVAL;
		*out = address_from_v4(v4.s_addr);
		return 0;
	}
	if (inet_pton(AF_INET6, text, a.bytes) != 1 || address_is_v4(&a))
		return -EINVAL;
	*out = a;
	return 0;
}

const char *address_format(const struct address *a, char buf[ADDRESS_TEXT_LEN])
{
	if (address_is_v4(a))
		inet_ntop(AF_INET, &a->words[3], buf, ADDRESS_TEXT_LEN);
	else
		inet_ntop(AF_INET6, a->bytes, buf, ADDRESS_TEXT_LEN);
	return buf;
}

// Keeps the first `bits` bits of 16 bytes.
static struct address address_mask(const struct address *a, unsigned bits)
{
	struct address m = *a;
	for (unsigned i = 0; i < 16; i++) {
		unsigned keep = bits > i * 8 ? bits - i * 8 : 0;
		if (keep < 8)
			m.bytes[i] &= (uint8_t)(0xff00 >> keep);
	}
	return m;
}

static unsigned prefix_bits(const struct prefix *p)
{
	return address_is_v4(&p->address) ? 96u + p->len : p->len;
}

int prefix_parse(const char *text, struct prefix *out)
{
	char buf[ADDRESS_TEXT_LEN];
	const char *slash = strchr(text, '/');
	if (slash == NULL || (size_t)(slash - text) >= sizeof(buf))
		return -EINVAL;
	memcpy(buf, text, (size_t)(slash - text));
	buf[slash - text] = 0;
	struct prefix p;
	if (address_parse(buf, &p.address) != 0)
		return -EINVAL;
	size_t n_digits = strspn(slash + 1, "0123456789");
	if (n_digits == 0 || n_digits > 3 || slash[1 + n_digits] != 0 ||
		(n_digits > 1 && slash[1] == '0'))
		return -EINVAL;
	unsigned long len = strtoul(slash + 1, NULL, 10);
	if (len > (address_is_v4(&p.address) ? 32u : 128u))
		return -EINVAL;
	p.len = (uint8_t)len;
	struct address masked = address_mask(&p.address, prefix_bits(&p));
	if (!address_equal(&masked, &p.address))
		return -EINVAL;
	*out = p;
	return 0;
}

const char *prefix_format(const struct prefix *p, char buf[ADDRESS_TEXT_LEN + 4])
{
	char text[ADDRESS_TEXT_LEN];
	snprintf(buf, ADDRESS_TEXT_LEN + 4, "%s/%u", address_format(&p->address, text), p->len);
	return buf;
}

bool prefix_contains(const struct prefix *p, const struct address *a)
{
	if (address_is_v4(&p->address) != address_is_v4(a))
		return false;
	struct address masked = address_mask(a, prefix_bits(p));
	return address_equal(&masked, &p->address);
}

static bool address_is_loopback(const struct address *a)
{
	if (address_is_v4(a))
		return a->bytes[12] == 127;
	return a->halves[0] == 0 && a->halves[1] == RTE_BE64(1);
}

static bool address_is_multicast(const struct address *a)
{
	return address_is_v4(a) ? (a->bytes[12] & 0xf0) == 224 : a->bytes[0] == 0xff;
}

bool address_is_impossible_source(const struct address *a)
{
	return address_is_unspecified(a) || address_is_loopback(a) || address_is_multicast(a) ||
	       (address_is_v4(a) && a->words[3] == 0xffffffff);
}

bool address_is_unroutable(const struct address *a)
{
	if (address_is_impossible_source(a))
		return true;
	if (address_is_v4(a)) // 169.254/16, 0/8, 240/4
		return (a->bytes[12] == 169 && a->bytes[13] == 254) || a->bytes[12] == 0 ||
		       a->bytes[12] >= 240;
	return a->bytes[0] == 0xfe && (a->bytes[1] & 0xc0) == 0x80;
}

const char *endpoint_format(const struct address *a, uint16_t port, char *buf, size_t len)
{
	char text[ADDRESS_TEXT_LEN];
	address_format(a, text);
	snprintf(buf, len, address_is_v4(a) ? "%s:%u" : "[%s]:%u", text, port);
	return buf;
}

int mac_parse(const char *text, struct mac *out)
{
	struct mac m;
	for (int i = 0; i < 6; i++) {
		if (strspn(text, "0123456789abcdefABCDEF") != 2)
			return -EINVAL;
		m.bytes[i] = (uint8_t)strtoul(text, NULL, 16);
		text += 2;
		if (*text != (i < 5 ? ':' : 0))
			return -EINVAL;
		text++;
	}
	*out = m;
	return 0;
}

const char *mac_format(const struct mac *mac, char buf[18])
{
	const uint8_t *b = mac->bytes;
	snprintf(buf, 18, "%02x:%02x:%02x:%02x:%02x:%02x", b[0], b[1], b[2], b[3], b[4], b[5]);
	return buf;
}

uint64_t hash_bytes(const struct hash_key *key, const void *bytes, size_t len)
{
	const uint8_t *at = bytes;
	uint64_t h = key->words[0] ^ (len * 0x9e3779b97f4a7c15ull);
	while (len > 0) {
		uint64_t word = 0;
		size_t n = len < 8 ? len : 8;
		memcpy(&word, at, n);
		h = hash_fold(h ^ word, key->words[1] ^ 0xd6e8feb86659fd93ull) +
		    0x2545f4914f6cdd1dull;
		at += n;
		len -= n;
	}
	return hash_fold(h, key->words[1] ^ 0x9e3779b97f4a7c15ull);
}

struct hash_schedule hash_schedule_make(const struct hash_key *key)
{
	struct hash_schedule s;
	for (uint64_t i = 0; i < 4; i++)
		s.words[i] =
			hash_words3(key, i + 1, 0xd6e8feb86659fd93ull, i * 0x9e3779b97f4a7c15ull);
	return s;
}

uint64_t hash_stable(const void *bytes, size_t len, uint64_t seed)
{
	// FNV-1a over bytes, then a finaliser (xor-shift-multiply): byte order independent.
	const uint8_t *at = bytes;
	uint64_t h = 0xcbf29ce484222325ull ^ (seed * 0x9e3779b97f4a7c15ull);
	for (size_t i = 0; i < len; i++)
		h = (h ^ at[i]) * 0x100000001b3ull;
	h = (h ^ (h >> 32)) * 0xd6e8feb86659fd93ull;
	h = (h ^ (h >> 32)) * 0xd6e8feb86659fd93ull;
	return h ^ (h >> 32);
}
