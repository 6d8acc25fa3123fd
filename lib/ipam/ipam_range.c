// SPDX-License-Identifier: BSD-3-Clause
// Ranges of addresses as text, their order and size; the names of families and reasons.
#include "ipam_priv.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>

// What can be no VIP: not on any wire, or only on one link.
static const char *const never[] = { "0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3",
	"::/96", "fe80::/10", "ff00::/8" };

const char *ipam_family_name(enum ipam_family family)
{
	return family == IPAM_V4 ? "IPv4" : "IPv6";
}

const char *ipam_reason_name(enum ipam_reason reason)
{
	static const char *const names[] = {
		[IPAM_ALLOCATED] = "Allocated",
		[IPAM_ALLOCATED_ONE] = "AllocatedOneFamily",
		[IPAM_NO_POOL] = "NoPool",
		[IPAM_POOL_UNKNOWN] = "PoolUnknown",
		[IPAM_POOL_NOT_FOR_IT] = "PoolNotAllowed",
		[IPAM_OUTSIDE] = "AddressOutsidePools",
		[IPAM_WRONG_FAMILY] = "FamilyMismatch",
		[IPAM_IN_USE] = "AddressInUse",
		[IPAM_EXHAUSTED] = "Exhausted",
		[IPAM_NOT_DUAL] = "NoDualStackPool",
	};
	return names[reason];
}

struct address ipam_after(const struct address *a)
{
	struct address next = *a;
	for (int i = 15; i >= 0 && ++next.bytes[i] == 0;)
		i--;
	return next;
}

struct address ipam_before(const struct address *a)
{
	struct address previous = *a;
	for (int i = 15; i >= 0 && previous.bytes[i]-- == 0;)
		i--;
	return previous;
}

uint64_t ipam_range_size(const struct ipam_range *range)
{
	uint64_t high =
		rte_be_to_cpu_64(range->last.halves[0]) - rte_be_to_cpu_64(range->first.halves[0]);
	uint64_t low_first = rte_be_to_cpu_64(range->first.halves[1]);
	uint64_t low_last = rte_be_to_cpu_64(range->last.halves[1]);
	high -= low_last < low_first;
	uint64_t low = low_last - low_first;
	return high || low == UINT64_MAX ? UINT64_MAX : low + 1;
}

bool ipam_range_contains(const struct ipam_range *range, const struct address *a)
{
	return address_compare(&range->first, a) <= 0 && address_compare(a, &range->last) <= 0;
}

// Ones behind the first `bits` bits.
static struct address last_of(const struct prefix *p)
{
	struct address last = p->address;
	unsigned bits = address_is_v4(&p->address) ? 96u + p->len : p->len;
	for (unsigned i = 0; i < 16; i++) {
		unsigned keep = bits > i * 8 ? bits - i * 8 : 0;
		if (keep < 8)
			last.bytes[i] |= (uint8_t)(0xff >> keep);
	}
	return last;
}

static bool overlap(const struct ipam_range *a, const struct ipam_range *b)
{
	return address_compare(&a->first, &b->last) <= 0 &&
	       address_compare(&b->first, &a->last) <= 0;
}

// The row of `never` that the range touches, or NULL. A range of IPv6 across ::ffff:0:0/96, which is how IPv4 is held here, touches the
// first.
static const char *find_never(const struct ipam_range *range)
{
	for (size_t i = 0; i < ARRAY_SIZE(never); i++) {
		struct prefix p;
		if (prefix_parse(never[i], &p) != 0)
			continue;
		struct ipam_range forbidden = { p.address, last_of(&p) };
		if (overlap(range, &forbidden))
			return never[i];
	}
	return NULL;
}

// Copies text[0..len) without blanks around it; false when it is too long to be an address.
static bool trimmed(const char *text, size_t len, char buf[ADDRESS_TEXT_LEN])
{
	while (len && isspace((unsigned char)*text)) {
		text++;
		len--;
	}
	while (len && isspace((unsigned char)text[len - 1]))
		len--;
	if (len >= ADDRESS_TEXT_LEN)
		return false;
	memcpy(buf, text, len);
	buf[len] = 0;
	return true;
}

static int parse_ends(const char *text, const char *dash, struct ipam_range *out)
{
	char first[ADDRESS_TEXT_LEN], last[ADDRESS_TEXT_LEN];
	if (!trimmed(text, (size_t)(dash - text), first) ||
		!trimmed(dash + 1, strlen(dash + 1), last))
		return -EINVAL;
	return address_parse(first, &out->first) || address_parse(last, &out->last) ? -EINVAL : 0;
}

int ipam_range_parse(const char *text, struct ipam_range *out, const char *path, struct error *err)
{
	struct ipam_range range;
	struct prefix prefix;
	const char *dash = strchr(text, '-');
	if (dash ? parse_ends(text, dash, &range) == 0 : address_parse(text, &range.first) == 0) {
		if (!dash)
			range.last = range.first;
	} else if (!dash && prefix_parse(text, &prefix) == 0) {
		range = (struct ipam_range){ prefix.address, last_of(&prefix) };
	} else {
		return error_add(err, EINVAL, path,
			"\"%.64s\": allowed: prefix without host bits, as 203.0.113.0/24, or "
			"range, "
			"as 203.0.113.10-203.0.113.20, or address",
			text);
	}
	if (ipam_family_of(&range.first) != ipam_family_of(&range.last))
		return error_add(
			err, EINVAL, path, "\"%.100s\": both ends must be of one family", text);
	if (address_compare(&range.first, &range.last) > 0)
		return error_add(err, EINVAL, path, "\"%.100s\": ends before it begins", text);
	const char *forbidden = find_never(&range);
	if (forbidden)
		return error_add(err, EINVAL, path,
			"\"%.100s\": holds addresses of %s, which no "
			"VIP can have",
			text, forbidden);
	*out = range;
	return 0;
}

// Length of the prefix that is exactly this range, or -1.
static int prefix_len(const struct ipam_range *range)
{
	int base = ipam_family_of(&range->first) == IPAM_V4 ? 96 : 0;
	for (int len = base; len <= 128; len++) {
		struct prefix p = { range->first, (uint8_t)(len - base) };
		struct address last = last_of(&p), first = range->first;
		for (int bit = len; bit < 128; bit++)
			first.bytes[bit / 8] &= (uint8_t) ~(0x80 >> bit % 8);
		if (address_equal(&last, &range->last) && address_equal(&first, &range->first))
			return len - base;
	}
	return -1;
}

const char *ipam_range_format(const struct ipam_range *range, char *buf, size_t len)
{
	char first[ADDRESS_TEXT_LEN], last[ADDRESS_TEXT_LEN];
	int prefix = prefix_len(range);
	address_format(&range->first, first);
	address_format(&range->last, last);
	if (address_equal(&range->first, &range->last))
		snprintf(buf, len, "%s", first);
	else if (prefix >= 0)
		snprintf(buf, len, "%s/%d", first, prefix);
	else
		snprintf(buf, len, "%s-%s", first, last);
	return buf;
}
