// SPDX-License-Identifier: BSD-3-Clause
// ipam by named cases: each rule of ipam.h in a few lines of a small language. And its edges: ranges as text, huge prefixes,
// misuse, 10,000 Services.
//
//	pool NAME RANGE[,RANGE...] [prio=N] [manual] [for=NAME+NAME] [age=N]      drop POOL
//	ask NAME [age=N] [4|6|46|64] [prefer|require] [want=A,A] [pool=P] [key=K] [local=B] [ports=tcp80,udp53] [has=A,A]
//	end NAME                                                                  forgets a request
//	is NAME A,A or a reason and a piece of the text                          after a run
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ipam.h"

#define N_MAX 16

struct written_pool {
	char name[16], selected[64];
	struct ipam_range ranges[8];
	struct ipam_pool value;
};

static struct written_pool written[N_MAX];
static uint32_t n_written;
static struct ipam *ipam;
static const char *case_name;

static bool selects(void *arg, const char *pool, const char *namespace, const char *name)
{
	for (uint32_t i = 0; i < n_written; i++) {
		if (strcmp(written[i].name, pool) != 0)
			continue;
		char padded[80], wanted[40];
		snprintf(padded, sizeof(padded), "+%s+", written[i].selected);
		snprintf(wanted, sizeof(wanted), "+%s+", name);
		return strstr(padded, wanted) != NULL;
	}
	fail_msg("asked for pool %s", pool);
	return false;
}

// Value of "word=value" when the word is that one, else NULL.
static const char *value_of(const char *text, const char *word)
{
	size_t n = strlen(word);
	return strncmp(text, word, n) == 0 && text[n] == '=' ? text + n + 1 : NULL;
}

static uint32_t parse_addresses(const char *text, struct address *out)
{
	char copy[128], *at = copy, *piece;
	uint32_t n = 0;
	snprintf(copy, sizeof(copy), "%s", text);
	while ((piece = strsep(&at, ",")))
		assert_int_equal(address_parse(piece, &out[n++]), 0);
	return n;
}

static void give_pools(void)
{
	struct ipam_pool list[N_MAX];
	for (uint32_t i = 0; i < n_written; i++)
		list[i] = written[i].value;
	assert_int_equal(ipam_set_pools(ipam, list, n_written, NULL, 0, NULL), 0);
}

static void play_pool(char **words)
{
	uint32_t idx = 0;
	while (idx < n_written && strcmp(written[idx].name, words[1]) != 0)
		idx++;
	n_written += idx == n_written;
	struct written_pool *p = &written[idx];
	*p = (struct written_pool){ 0 };
	snprintf(p->name, sizeof(p->name), "%s", words[1]);
	p->value = (struct ipam_pool){ .name = p->name, .ranges = p->ranges, .auto_assign = true };
	for (char *at = words[2], *piece; (piece = strsep(&at, ","));)
		assert_int_equal(
			ipam_range_parse(piece, &p->ranges[p->value.n_ranges++], "", NULL), 0);
	for (int i = 3; words[i]; i++) {
		const char *value;
		if ((value = value_of(words[i], "prio")))
			p->value.priority = atoi(value);
		else if ((value = value_of(words[i], "age")))
			p->value.created_s = atoi(value);
		else if ((value = value_of(words[i], "for"))) {
			p->value.is_pinned = true;
			snprintf(p->selected, sizeof(p->selected), "%s", value);
		} else if (strcmp(words[i], "manual") == 0)
			p->value.auto_assign = false;
		else
			fail_msg("pool: %s", words[i]);
	}
	give_pools();
}

static void play_drop(char **words)
{
	for (uint32_t i = 0; i < n_written; i++)
		if (strcmp(written[i].name, words[1]) == 0) {
			written[i] = written[--n_written];
			written[i].value.name = written[i].name;
			written[i].value.ranges = written[i].ranges;
		}
	give_pools();
}

static void parse_families(struct ipam_request *q, const char *text)
{
	q->n_families = (uint32_t)strlen(text);
	for (uint32_t i = 0; i < q->n_families; i++)
		q->families[i] = text[i] == '4' ? IPAM_V4 : IPAM_V6;
}

static uint32_t parse_ports(const char *text, struct ipam_port *out)
{
	char copy[128], *at = copy, *piece;
	uint32_t n = 0;
	snprintf(copy, sizeof(copy), "%s", text);
	while ((piece = strsep(&at, ","))) {
		uint16_t port = (uint16_t)atoi(piece + 3);
		out[n++] = (struct ipam_port){ piece[0] == 't' ? 6 : 17, port, port };
	}
	return n;
}

static void play_ask(char **words)
{
	struct address recorded[4];
	struct ipam_port ports[8] = { { 6, 80, 80 } };
	struct ipam_request q = { .namespace = "ns",
		.name = words[1],
		.uid = words[1],
		.families = { IPAM_V4 },
		.n_families = 1,
		.pool = "",
		.sharing_key = "",
		.backend_key = "",
		.ports = ports,
		.n_ports = 1,
		.recorded = recorded };
	for (int i = 2; words[i]; i++) {
		const char *value;
		if ((value = value_of(words[i], "age")))
			q.created_s = atoi(value);
		else if ((value = value_of(words[i], "want")))
			q.n_wanted = parse_addresses(value, q.wanted);
		else if ((value = value_of(words[i], "has")))
			q.n_recorded = parse_addresses(value, recorded);
		else if ((value = value_of(words[i], "pool")))
			q.pool = value;
		else if ((value = value_of(words[i], "key")))
			q.sharing_key = value;
		else if ((value = value_of(words[i], "local")))
			q.backend_key = value;
		else if ((value = value_of(words[i], "uid")))
			q.uid = value;
		else if ((value = value_of(words[i], "form")))
			q.recorded_form = strtoull(value, NULL, 16);
		else if ((value = value_of(words[i], "ports")))
			q.n_ports = parse_ports(value, ports);
		else if (strspn(words[i], "46") == strlen(words[i]))
			parse_families(&q, words[i]);
		else if (strcmp(words[i], "prefer") == 0)
			q.policy = IPAM_PREFER_DUAL_STACK;
		else if (strcmp(words[i], "require") == 0)
			q.policy = IPAM_REQUIRE_DUAL_STACK;
		else
			fail_msg("ask: %s", words[i]);
	}
	assert_int_equal(ipam_put(ipam, &q), 0);
}

static void play_is(const char *line, const char *name, const char *want)
{
	struct ipam_answer answer;
	char got[512] = "";
	assert_int_equal(ipam_run(ipam), 0);
	assert_true(ipam_find(ipam, "ns", name, &answer));
	for (uint32_t i = 0; i < answer.n_addresses; i++) {
		char text[ADDRESS_TEXT_LEN];
		snprintf(got + strlen(got), sizeof(got) - strlen(got), "%s%s", i ? "," : "",
			address_format(&answer.addresses[i], text));
	}
	if (answer.reason != IPAM_ALLOCATED)
		snprintf(got + strlen(got), sizeof(got) - strlen(got), "%s%s: %s",
			got[0] ? " " : "", ipam_reason_name(answer.reason), answer.text);
	if (answer.reason == IPAM_ALLOCATED ? strcmp(got, want) != 0 : strstr(got, want) != got)
		fail_msg("%s: %s\n   got: %s", case_name, line, got);
}

static void play_line(char *line)
{
	char whole[256], *words[16] = { NULL }, *at = line, *word;
	int n = 0;
	snprintf(whole, sizeof(whole), "%s", line);
	if (strncmp(line, "is ", 3) == 0) {
		char *name = line + 3, *want = strchr(name, ' ');
		*want++ = 0;
		play_is(whole, name, want);
		return;
	}
	while ((word = strsep(&at, " ")) && n < 15)
		if (word[0])
			words[n++] = word;
	if (strcmp(words[0], "pool") == 0)
		play_pool(words);
	else if (strcmp(words[0], "drop") == 0)
		play_drop(words);
	else if (strcmp(words[0], "ask") == 0)
		play_ask(words);
	else if (strcmp(words[0], "end") == 0)
		assert_int_equal(ipam_remove(ipam, "ns", words[1]), 0);
	else if (strcmp(words[0], "run") == 0)
		assert_int_equal(ipam_run(ipam), 0);
	else
		fail_msg("%s", whole);
}

struct named_case {
	const char *name;
	const char *script;
};

static const struct named_case cases[] = {
	{ "lowest free address, ranges in the order written",
		"pool blue 203.0.113.8/31,203.0.113.2-203.0.113.3\n"
		"ask a age=1|ask b age=2|ask c age=3|ask d age=4|ask e age=5\n"
		"is a 203.0.113.8|is b 203.0.113.9|is c 203.0.113.2|is d 203.0.113.3\n"
		"is e Exhausted: no free IPv4 address in pool blue" },
	{ "the older first, then namespace and name",
		"pool blue 203.0.113.0/24\nask b age=1|ask a age=1|ask z\n"
		"is z 203.0.113.0|is a 203.0.113.1|is b 203.0.113.2" },
	{ "a freed address goes to who waits longest, by itself",
		"pool blue 203.0.113.1\nask a|run|ask c age=2|ask b age=3\n"
		"is b Exhausted|is c Exhausted|end a|is c 203.0.113.1|is b Exhausted" },
	{ "a pool that grows",
		"pool blue 203.0.113.1\nask a|ask b age=1|is b Exhausted\n"
		"pool blue 203.0.113.1,203.0.113.9|is a 203.0.113.1|is b 203.0.113.9" },
	{ "what is recorded stays, though others came first",
		"pool blue 203.0.113.0/24\nask a age=1|ask b age=2 has=203.0.113.0\n"
		"is b 203.0.113.0|is a 203.0.113.1" },
	{ "two recorded with one address: the older, then the smaller uid",
		"pool blue 203.0.113.0/24\nask a age=2 uid=1 has=203.0.113.7|ask b age=1 uid=9 "
		"has=203.0.113.7\n"
		"ask c age=1 uid=8 has=203.0.113.7\nis c 203.0.113.7|is b 203.0.113.0|is a "
		"203.0.113.1" },
	{ "recorded outside all pools: a new one",
		"pool blue 203.0.113.0/24\nask a has=198.51.100.1|is a 203.0.113.0" },
	{ "a pool that goes takes its addresses along",
		"pool blue 203.0.113.0/24\npool green 198.51.100.0/24 prio=1\nask a|is a "
		"198.51.100.0\n"
		"drop green|is a 203.0.113.0" },
	{ "an address keeps when a better pool comes",
		"pool blue 203.0.113.0/24\nask a|is a 203.0.113.0|pool green 198.51.100.0/24 "
		"prio=1\n"
		"is a 203.0.113.0|ask b age=1|is b 198.51.100.0" },
	{ "explicit", "pool blue 203.0.113.0/24\nask a want=203.0.113.77|is a 203.0.113.77" },
	{ "explicit from a manual pool",
		"pool blue 203.0.113.0/24 manual\nask a want=203.0.113.77|ask b\n"
		"is a 203.0.113.77|is b NoPool: no pool gives addresses to this Service" },
	{ "explicit, in no pool", "pool blue 203.0.113.0/24\nask a want=198.51.100.1\n"
				  "is a AddressOutsidePools: 198.51.100.1 is in no pool; allowed: "
				  "an address of blue" },
	{ "a pool that nothing is like",
		"pool blue 203.0.113.0/24\npool green 198.51.100.0/24\nask a pool=elsewhere\n"
		"is a PoolUnknown: there is no pool elsewhere; allowed: blue, green" },
	{ "explicit, not in the named pool",
		"pool blue 203.0.113.0/24\npool green 198.51.100.0/24\nask a want=203.0.113.1 "
		"pool=green\n"
		"is a AddressOutsidePools: 203.0.113.1 is in pool blue, not in pool green" },
	{ "explicit, in use; then free",
		"pool blue 203.0.113.0/24\nask a want=203.0.113.1|run|ask b want=203.0.113.1 "
		"age=1\n"
		"is b AddressInUse: 203.0.113.1 is in use by ns/a|end a|is b 203.0.113.1" },
	{ "explicit of another family",
		"pool blue 203.0.113.0/24,2001:db8::/64\nask a want=2001:db8::1\n"
		"is a FamilyMismatch: 2001:db8::1: the Service wants IPv4" },
	{ "explicit twice of one family",
		"pool blue 203.0.113.0/24\nask a 46 prefer want=203.0.113.1,203.0.113.2\n"
		"is a FamilyMismatch: 203.0.113.2: the Service wants IPv4 and IPv6" },
	{ "explicit changes: moves",
		"pool blue 203.0.113.0/24\nask a want=203.0.113.1|run\n"
		"ask a want=203.0.113.2|is a 203.0.113.2|ask b age=1|is b 203.0.113.0" },
	{ "explicit changes to one in use: none",
		"pool blue 203.0.113.0/24\nask a want=203.0.113.1|ask b|run|ask b "
		"want=203.0.113.1\n"
		"is b AddressInUse|is a 203.0.113.1" },
	{ "explicit that is held stays when the wish goes",
		"pool blue 203.0.113.0/24\nask a want=203.0.113.9|run|ask a|is a 203.0.113.9" },
	{ "named pool",
		"pool blue 203.0.113.0/24\npool green 198.51.100.0/24 manual\nask a pool=green\n"
		"is a 198.51.100.0|ask a pool=blue|is a 203.0.113.0" },
	{ "named pool that is not there", "pool blue 203.0.113.0/24\nask a pool=blu\n"
					  "is a PoolUnknown: there is no pool blu; did you mean "
					  "blue?|pool blu 203.0.113.200\nis a 203.0.113.200" },
	{ "named pool that is not for it",
		"pool blue 203.0.113.0/24 for=b\nask a pool=blue|ask b pool=blue|is b 203.0.113.0\n"
		"is a PoolNotAllowed: the namespaces or selectors of pool blue leave this Service "
		"out" },
	{ "named pool without the family", "pool blue 203.0.113.0/24\nask a 6 pool=blue|is a "
					   "NoPool: pool blue does not have IPv6" },
	{ "pinned before open, by priority, 0 last",
		"pool a 203.0.113.1 prio=1\npool b 203.0.113.2 for=x+y+z\npool c 203.0.113.3 "
		"prio=9 for=x+y+z\n"
		"ask x|ask y age=1|ask z age=2|ask w age=3\n"
		"is x 203.0.113.3|is y 203.0.113.2|is z 203.0.113.1|is w Exhausted" },
	{ "equal priority: by name",
		"pool b 203.0.113.2\npool a 203.0.113.1\nask x|is x 203.0.113.1" },
	{ "a pool that is not for it any more",
		"pool a 203.0.113.1 for=x\npool b 203.0.113.2\nask x|is x 203.0.113.1\n"
		"pool a 203.0.113.1 for=y|is x 203.0.113.2" },
	{ "single stack of the second family",
		"pool blue 203.0.113.0/24,2001:db8::/64\nask a 6|is a 2001:db8::" },
	{ "dual stack, in order of the families", "pool blue 203.0.113.0/24,2001:db8::/64\nask a "
						  "64 require|is a 2001:db8::,203.0.113.0" },
	{ "require: no pool has both",
		"pool blue 203.0.113.0/24\npool green 2001:db8::/64\nask a 46 require\n"
		"is a NoDualStackPool: no pool for this Service has both" },
	{ "require: no pool has both free",
		"pool blue 203.0.113.1,2001:db8::/64\nask x|run|ask a 46 require age=1\n"
		"is a Exhausted: no free IPv4 and IPv6 address together in pool blue|end x|is a "
		"203.0.113.1,2001:db8::" },
	{ "prefer takes the dual pool, though it goes later",
		"pool blue 203.0.113.0/24 prio=1\npool green 198.51.100.0/24,2001:db8::/64\nask a "
		"46 prefer\n"
		"is a 198.51.100.0,2001:db8::" },
	{ "prefer: else one of the first family, and tells",
		"pool blue 203.0.113.0/24\nask a 46 prefer\n"
		"is a 203.0.113.0 AllocatedOneFamily: 203.0.113.0 of pool blue; no IPv6 address: "
		"pool blue has none" },
	{ "prefer with one does not move to a dual pool",
		"pool blue 203.0.113.0/24\nask a 46 prefer|run|pool green "
		"198.51.100.0/24,2001:db8::/64\n"
		"is a 203.0.113.0 AllocatedOneFamily" },
	{ "prefer with one gets the second when its own pool has it",
		"pool blue 203.0.113.0/24\nask a 46 prefer|run|pool blue "
		"203.0.113.0/24,2001:db8::/64\n"
		"is a 203.0.113.0,2001:db8::" },
	{ "prefer with one, then require: loses it",
		"pool blue 203.0.113.0/24\nask a 46 prefer|run|ask a 46 require|is a "
		"NoDualStackPool" },
	{ "single, then require: the first stays when its pool has a second",
		"pool blue 203.0.113.0/24,2001:db8::/64\nask x|ask a age=1|is a 203.0.113.1\n"
		"ask a 46 require age=1|is a 203.0.113.1,2001:db8::" },
	{ "require, then single: the second goes, and others get it",
		"pool blue 203.0.113.0/24,2001:db8::7\nask a 46 require|run|ask b 6 age=1|is b "
		"Exhausted\n"
		"ask a 4|is a 203.0.113.0|is b 2001:db8::7" },
	{ "what require gives back goes to who waited longer",
		"pool blue 203.0.113.1,2001:db8::1\nask a 46 prefer age=3|run\nask old age=1|is "
		"old Exhausted\n"
		"pool blue 203.0.113.1|ask a 46 require age=3|is a NoDualStackPool|is old "
		"203.0.113.1" },
	{ "what require gives back, and nothing else was freed",
		"pool blue 203.0.113.1\nask a 46 prefer age=3|run|ask old age=1|is old Exhausted\n"
		"ask a 46 require age=3|is a NoDualStackPool|is old 203.0.113.1" },
	{ "exhaustion names the pools that were asked, anew when the wish is new",
		"pool blue 203.0.113.1\npool green 203.0.113.2\nask x|ask y age=1|run|ask a age=2\n"
		"is a Exhausted: no free IPv4 address in pools blue, green\n"
		"ask a age=2 pool=green|is a Exhausted: no free IPv4 address in pool green" },
	{ "explicit of one family, the other from the same pool",
		"pool blue 203.0.113.0/24,2001:db8:b::/64\npool green "
		"198.51.100.0/24,2001:db8:a::/64 prio=1\n"
		"ask a 46 require want=203.0.113.9|is a 203.0.113.9,2001:db8:b::" },
	{ "explicit of both, from two pools",
		"pool blue 203.0.113.0/24\npool green 2001:db8::/64\nask a 46 require "
		"want=203.0.113.9,2001:db8::9\n"
		"is a 203.0.113.9,2001:db8::9" },
	{ "explicit of both is all or nothing",
		"pool blue 203.0.113.0/24,2001:db8::/64\nask x 6 want=2001:db8::9|run\n"
		"ask a 46 prefer age=1 want=203.0.113.9,2001:db8::9|is a AddressInUse" },
	{ "sharing: other ports, same key",
		"pool blue 203.0.113.0/24\nask a key=k ports=tcp53|ask b key=k ports=udp53 "
		"age=1|ask c key=j ports=tcp80 age=2\n"
		"is a 203.0.113.0|is b 203.0.113.0|is c 203.0.113.1" },
	{ "sharing: the same port does not fit", "pool blue 203.0.113.0/24\nask a key=k|ask b "
						 "key=k age=1|is a 203.0.113.0|is b 203.0.113.1" },
	{ "sharing an explicit address: told what is in the way",
		"pool blue 203.0.113.0/24\nask a key=k want=203.0.113.9|run|ask b key=k "
		"want=203.0.113.9 age=1\n"
		"is b AddressInUse: 203.0.113.9 is in use by ns/a, on a port of this Service\n"
		"ask b key=j want=203.0.113.9 age=1 ports=udp1\n"
		"is b AddressInUse: 203.0.113.9 is in use by ns/a, under another sharing key\n"
		"ask b key=k want=203.0.113.9 age=1 ports=udp1|is b 203.0.113.9" },
	{ "sharing: policy Local only with the same endpoints",
		"pool blue 203.0.113.0/24\nask a key=k local=app ports=tcp1|ask b key=k local=app "
		"ports=tcp2 age=1\n"
		"ask c key=k local=other ports=tcp3 age=2|ask d key=k ports=tcp4 age=3\n"
		"is b 203.0.113.0|is c 203.0.113.1|is d 203.0.113.2" },
	{ "sharing: goes to the shared address though a lower one is free",
		"pool blue 203.0.113.0/24\nask x|ask a key=k ports=tcp1 age=1|run|end x|ask b "
		"key=k ports=tcp2 age=2\n"
		"is b 203.0.113.1" },
	{ "sharing: who changes so that it does not fit loses, though older",
		"pool blue 203.0.113.0/24\nask a key=k ports=tcp1|ask b key=k ports=tcp2 "
		"age=1|run|ask a key=k ports=tcp2\n"
		"is b 203.0.113.0|is a 203.0.113.1" },
	{ "sharing: the same after a restart, by the form that is recorded",
		"pool blue 203.0.113.0/24\nask a key=k ports=tcp2 has=203.0.113.0 form=77\n"
		"ask b key=k ports=tcp2 age=1 has=203.0.113.0|is b 203.0.113.0|is a 203.0.113.1" },
	{ "sharing: who changes its key leaves; who is alone may change it",
		"pool blue 203.0.113.0/24\nask a key=k ports=tcp1|ask b key=k ports=tcp2 "
		"age=1|run|ask a key=j ports=tcp1\n"
		"is a 203.0.113.1|is b 203.0.113.0|ask b key=i ports=tcp2 age=1|is b "
		"203.0.113.0|ask b age=1|is b 203.0.113.0" },
	{ "sharing both families",
		"pool blue 203.0.113.0/24,2001:db8::/64\n"
		"ask a 46 require key=k ports=tcp1|ask b 46 require key=k ports=tcp2 age=1\n"
		"is a 203.0.113.0,2001:db8::|is b 203.0.113.0,2001:db8::" },
	{ "deleted and made again: nothing is kept",
		"pool blue 203.0.113.0/24\nask x|ask a age=1|is a 203.0.113.1|end x|ask a uid=2 "
		"age=2|is a 203.0.113.0" },
	{ "overlap: the older pool has it",
		"pool new 203.0.113.0/30 age=9\npool old 203.0.113.2-203.0.113.9 age=5 prio=1\nask "
		"a|ask b pool=new age=1\n"
		"ask c pool=new age=2|ask d pool=new age=3\n"
		"is a 203.0.113.2|is b 203.0.113.0|is c 203.0.113.1|is d Exhausted" },
	{ "no pools at all", "ask a|is a NoPool" },
	{ "a /32 of IPv6", "pool blue 2001:db8::/32\nask a 6|ask b 6 age=1 "
			   "want=2001:db8:ffff:ffff:ffff:ffff:ffff:ffff\n"
			   "is a 2001:db8::|is b 2001:db8:ffff:ffff:ffff:ffff:ffff:ffff" },
};

static void test_cases(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char script[1024], *at = script, *line;
		n_written = 0;
		ipam = ipam_create(selects, NULL);
		assert_int_equal((size_t)snprintf(script, sizeof(script), "%s", cases[i].script),
			strlen(cases[i].script));
		case_name = cases[i].name;
		while ((line = strsep(&at, "|\n")))
			if (line[0])
				play_line(line);
		ipam_destroy(ipam);
	}
}

// ---------------------------------------------------------------- ranges
static void test_ranges(void **state)
{
	static const char *const good[][2] = {
		{ "203.0.113.0/24", "203.0.113.0/24" },
		{ "203.0.113.7", "203.0.113.7" },
		{ "203.0.113.7/32", "203.0.113.7" },
		{ "203.0.113.0-203.0.113.255", "203.0.113.0/24" },
		{ "203.0.113.1 -  203.0.113.255", "203.0.113.1-203.0.113.255" },
		{ "2001:db8::/32", "2001:db8::/32" },
		{ "2001:DB8::0010-2001:db8::1f", "2001:db8::10/124" },
	};
	static const char *const bad[] = { "", "-", "/", "203.0.113.0/33", "203.0.113.1/24",
		"203.0.113.9-203.0.113.1", "203.0.113.1-2001:db8::1", "203.0.113.1-", "x-y",
		"0.0.0.0/0", "10.0.0.0-127.0.0.1", "169.254.1.1", "224.0.0.1", "255.255.255.255",
		"::/0", "::1", "::ffff:1.2.3.4", "fe80::1", "ff02::1",
		"0:0:0:0:0:fffe:ffff:ffff-1::", "203.0.113.0/24/24",
		"203.0.113.1-203.0.113.2-203.0.113.3" };
	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		struct ipam_range range;
		char text[2 * ADDRESS_TEXT_LEN];
		assert_int_equal(ipam_range_parse(good[i][0], &range, "", NULL), 0);
		assert_string_equal(ipam_range_format(&range, text, sizeof(text)), good[i][1]);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct ipam_range range;
		struct error err = { 0 };
		if (ipam_range_parse(bad[i], &range, "at", &err) != -EINVAL)
			fail_msg("%s is taken", bad[i]);
		assert_int_equal(err.n_items, 1);
		assert_string_equal(err.items[0].path, "at");
		error_fini(&err);
	}
}

static void test_findings(void **state)
{
	struct ipam_range range, other;
	struct error err = { 0 };
	char line[256];
	ipam_range_parse("203.0.113.0/24", &range, "", NULL);
	ipam_range_parse("203.0.113.128/25", &other, "", NULL);
	struct ipam_pool pools[] = {
		{ .name = "new", .ranges = &other, .n_ranges = 1, .created_s = 2 },
		{ .name = "old", .ranges = &range, .n_ranges = 1, .created_s = 1 },
		{ .name = "old", .ranges = &range, .n_ranges = 1, .created_s = 3 },
	};
	struct ipam_range own = { other.first, other.first };
	ipam = ipam_create(NULL, NULL);
	assert_int_equal(ipam_set_pools(ipam, pools, 3, &own, 1, &err), 0);
	static const char *const wanted[] = {
		"old: there is another pool of this name, which is older: this one is left out",
		"old: 203.0.113.0/24: 203.0.113.128 is reserved for sluice or its machine, and is "
		"left out",
		"new: 203.0.113.128/25: 203.0.113.128 is reserved for sluice or its machine, and "
		"is left out",
		"new: 203.0.113.128/25: 203.0.113.129-203.0.113.255 belongs to the pool old, which "
		"is older, and is left out",
	};
	assert_int_equal(err.n_items, ARRAY_SIZE(wanted));
	for (size_t i = 0; i < ARRAY_SIZE(wanted); i++)
		assert_string_equal(error_format(&err, (uint32_t)i, line, sizeof(line)), wanted[i]);
	error_fini(&err);
	struct ipam_usage usage;
	assert_true(ipam_usage_at(ipam, 0, &usage));
	assert_string_equal(usage.pool, "new");
	assert_int_equal(usage.available[IPAM_V4], 0);
	assert_true(ipam_usage_at(ipam, 1, &usage));
	assert_int_equal(usage.available[IPAM_V4], 255);
	assert_false(ipam_usage_at(ipam, 2, &usage));
	assert_null(ipam_pool_of(ipam, &own.first));
	assert_string_equal(ipam_pool_of(ipam, &other.last), "old");
	assert_true(ipam_allows(ipam, "ns", "a", &other.last));
	assert_false(ipam_allows(ipam, "ns", "a", &own.first));
	ipam_destroy(ipam);
}

static void test_misuse(void **state)
{
	struct ipam_port port = { 6, 80, 79 };
	struct ipam_request q = { .namespace = "ns",
		.name = "a",
		.uid = "u",
		.families = { IPAM_V4, IPAM_V4 },
		.pool = "",
		.sharing_key = "",
		.backend_key = "" };
	struct ipam_answer answer;
	ipam = ipam_create(NULL, NULL);
	assert_int_equal(ipam_put(ipam, &q), -EINVAL);
	q.n_families = 2;
	assert_int_equal(ipam_put(ipam, &q), -EINVAL);
	q.n_families = 1;
	q.ports = &port;
	q.n_ports = 1;
	assert_int_equal(ipam_put(ipam, &q), -EINVAL);
	port.last = 80;
	assert_int_equal(ipam_put(ipam, &q), 0);
	assert_false(ipam_find(ipam, "ns", "a", &answer)); // no run yet
	assert_false(ipam_next(ipam, &answer));
	assert_int_equal(ipam_run(ipam), 0);
	assert_true(ipam_next(ipam, &answer));
	assert_int_equal(answer.reason, IPAM_NO_POOL);
	assert_false(ipam_next(ipam, &answer));
	assert_int_equal(ipam_remove(ipam, "ns", "b"), -ENOENT);
	ipam_touch(ipam, "ns", "b");
	ipam_touch(ipam, "other", NULL);
	assert_int_equal(ipam_remove(ipam, "ns", "a"), 0);
	assert_int_equal(ipam_run(ipam), 0);
	ipam_destroy(ipam);
}

// ---------------------------------------------------------------- many
static void put_many(int n, const char *key)
{
	struct ipam_port port = { 6, 80, 80 };
	for (int i = 0; i < n; i++) {
		char name[32];
		snprintf(name, sizeof(name), "s%05d", i);
		struct ipam_request q = { .namespace = "ns",
			.name = name,
			.uid = name,
			.created_s = n - i,
			.families = { IPAM_V4, IPAM_V6 },
			.n_families = 2,
			.policy = IPAM_PREFER_DUAL_STACK,
			.pool = "",
			.sharing_key = key,
			.backend_key = "",
			.ports = &port,
			.n_ports = 1 };
		port.first = port.last = (uint16_t)(1 + i);
		assert_int_equal(ipam_put(ipam, &q), 0);
	}
	assert_int_equal(ipam_run(ipam), 0);
}

// 10,000 Services, 8,192 IPv4 addresses: the oldest have both, all have one or none; half of them go, and those who waited come.
static void test_many(void **state)
{
	struct ipam_range ranges[2];
	struct ipam_answer answer;
	struct ipam_usage usage;
	uint32_t n, n_waiting;
	ipam_range_parse("198.18.0.0/19", &ranges[0], "", NULL);
	ipam_range_parse("2001:db8::/32", &ranges[1], "", NULL);
	struct ipam_pool pool = {
		.name = "all", .ranges = ranges, .n_ranges = 2, .auto_assign = true
	};
	ipam = ipam_create(NULL, NULL);
	assert_int_equal(ipam_set_pools(ipam, &pool, 1, NULL, 0, NULL), 0);
	put_many(10000, "");
	ipam_count(ipam, &n, &n_waiting);
	assert_int_equal(n, 10000);
	assert_int_equal(n_waiting, 10000 - 8192);
	assert_true(ipam_usage_at(ipam, 0, &usage));
	assert_int_equal(usage.available[IPAM_V4], 0);
	assert_int_equal(usage.assigned[IPAM_V6], 8192);
	assert_int_equal(usage.available[IPAM_V6], UINT64_MAX);
	int64_t n_told = 0;
	while (ipam_next(ipam, &answer))
		n_told++;
	assert_int_equal(n_told, 10000);
	for (int i = 0; i < 10000; i += 2) {
		char name[32];
		snprintf(name, sizeof(name), "s%05d", i);
		assert_int_equal(ipam_remove(ipam, "ns", name), 0);
	}
	assert_int_equal(ipam_run(ipam), 0);
	ipam_count(ipam, &n, &n_waiting);
	assert_int_equal(n, 5000);
	assert_int_equal(n_waiting, 0);
	while (ipam_next(ipam, &answer))
		assert_int_equal(answer.n_addresses, 2); // those who waited, no others
	ipam_destroy(ipam);
}

// 10,000 Services on one address.
static void test_many_on_one(void **state)
{
	struct ipam_range ranges[2];
	struct ipam_usage usage;
	ipam_range_parse("198.18.0.0/19", &ranges[0], "", NULL);
	ipam_range_parse("2001:db8::/32", &ranges[1], "", NULL);
	struct ipam_pool pool = {
		.name = "all", .ranges = ranges, .n_ranges = 2, .auto_assign = true
	};
	ipam = ipam_create(NULL, NULL);
	assert_int_equal(ipam_set_pools(ipam, &pool, 1, NULL, 0, NULL), 0);
	put_many(10000, "k");
	assert_true(ipam_usage_at(ipam, 0, &usage));
	assert_int_equal(usage.assigned[IPAM_V4], 1);
	assert_int_equal(usage.assigned[IPAM_V6], 1);
	ipam_touch(ipam, NULL, NULL);
	assert_int_equal(ipam_run(ipam), 0);
	assert_true(ipam_usage_at(ipam, 0, &usage));
	assert_int_equal(usage.assigned[IPAM_V4], 1);
	ipam_destroy(ipam);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_cases),
		cmocka_unit_test(test_ranges),
		cmocka_unit_test(test_findings),
		cmocka_unit_test(test_misuse),
		cmocka_unit_test(test_many),
		cmocka_unit_test(test_many_on_one),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
