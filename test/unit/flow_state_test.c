// SPDX-License-Identifier: BSD-3-Clause
// The table of TCP states against its rules in words, and whole lives of connections.
#include "flow.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

// The rules in words, one by one.
static enum flow_state naive_tcp(enum flow_state s, bool from_client, uint8_t flags)
{
	bool syn = flags & TCP_SYN, ack = flags & TCP_ACK, fin = flags & TCP_FIN;
	if (s == FLOW_STATE_FREE || s >= FLOW_STATE_UDP_ONEWAY)
		return s; // no TCP
	if (flags & TCP_RST)
		return FLOW_STATE_CLOSED; // a reset ends it, from either side, at any time
	if (syn && !(ack && !from_client && s == FLOW_STATE_SYN_SENT))
		return s; // the only SYN that matters is the answer to the first one
	if (syn)
		return FLOW_STATE_SYN_RECEIVED;
	if (s == FLOW_STATE_SYN_SENT || s == FLOW_STATE_CLOSED)
		return s;
	if (s == FLOW_STATE_SYN_RECEIVED && !from_client)
		return s; // only the client can confirm
	if (s == FLOW_STATE_CLOSING)
		return ack && !fin ? FLOW_STATE_CLOSED : s;
	if (fin) {
		bool other_closed =
			s == (from_client ? FLOW_STATE_FIN_BACKEND : FLOW_STATE_FIN_CLIENT);
		return other_closed  ? FLOW_STATE_CLOSING
		       : from_client ? FLOW_STATE_FIN_CLIENT
				     : FLOW_STATE_FIN_BACKEND;
	}
	return s == FLOW_STATE_SYN_RECEIVED && ack ? FLOW_STATE_ESTABLISHED : s;
}

static void test_tcp_table(void **state)
{
	for (uint32_t s = 0; s < FLOW_STATE_MAX; s++)
		for (uint32_t side = 0; side < 2; side++)
			for (uint32_t flags = 0; flags < 256; flags++)
				assert_int_equal(flow_tcp_next(s, side, (uint8_t)flags),
					naive_tcp(s, side == FLOW_SIDE_CLIENT, (uint8_t)flags));
}

static void test_tcp_lives(void **state)
{
	// "c" and "b" say who sends; one letter of flags each: S SYN, s SYN-ACK, A ACK, F FIN-ACK, R RST.
	static const struct {
		const char *text;
		enum flow_state end;
	} lives[] = {
		{ "cSbscA", FLOW_STATE_ESTABLISHED },
		{ "cScSbsbscAcAbA", FLOW_STATE_ESTABLISHED },
		{ "cSbscAcFbAbFcA", FLOW_STATE_CLOSED },
		{ "cSbscAbFcAcFbA", FLOW_STATE_CLOSED },
		{ "cSbscAcFbFcAbA", FLOW_STATE_CLOSED },
		{ "cSbscAcFbAbAcA", FLOW_STATE_FIN_CLIENT },
		{ "cSbR", FLOW_STATE_CLOSED },
		{ "cSbAcR", FLOW_STATE_CLOSED }, // challenge ACK of an older connection
		{ "cSbscAcSbAcR", FLOW_STATE_CLOSED },
		{ "cSbscAcFbFcF", FLOW_STATE_CLOSING },
		{ "cScAcA", FLOW_STATE_SYN_SENT },
		{ "cSbsbA", FLOW_STATE_SYN_RECEIVED },
		{ "cSbscF", FLOW_STATE_FIN_CLIENT },
	};
	for (uint32_t i = 0; i < ARRAY_SIZE(lives); i++) {
		enum flow_state s = FLOW_STATE_SYN_SENT;
		for (const char *c = lives[i].text + 2; *c; c += 2) {
			uint8_t flags = c[1] == 'S'   ? TCP_SYN
					: c[1] == 's' ? TCP_SYN | TCP_ACK
					: c[1] == 'A' ? TCP_ACK
					: c[1] == 'F' ? TCP_FIN | TCP_ACK
						      : TCP_RST;
			s = flow_tcp_next(s, c[0] == 'b', flags);
		}
		assert_string_equal(flow_state_name(s), flow_state_name(lives[i].end));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_tcp_table),
		cmocka_unit_test(test_tcp_lives),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
