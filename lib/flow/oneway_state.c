// SPDX-License-Identifier: BSD-3-Clause
// Hot path: no allocation, lock, log, system call.
//
// What a client's packet does to its flow's state, in one const table. The backend's packets never pass here, so
// nothing proves that it answered; a second packet that is no SYN is all the confirmation there is. A budget
// (oneway_family.budget) is what bounds a flood of such pairs.
//
// Chosen here:
//   - A flow whose first packet is no SYN (the table was lost, the flow was handed over by another node) starts
//     EMBRYONIC too, and is established by its second packet: random ACKs stay cheap to give up.
//   - A SYN on ESTABLISHED is a client that starts over: the backend judges it, and its challenge brings a RST.
//     On FIN and CLOSED it opens a new flow (oneway_is_restart).
//   - A RST closes; that it was genuine nobody here can tell. Packets that follow keep the CLOSED entry and its
//     backend, as in flow_tcp_next.
#include "oneway.h"

// DATAGRAM: any packet of UDP.
enum oneway_event { OTHER, ACK, FIN, SYN, RST, DATAGRAM, EVENTS };

// Short names, for a table that fits the page.
enum {
	XX = ONEWAY_FREE,
	EM = ONEWAY_EMBRYONIC,
	ES = ONEWAY_ESTABLISHED,
	FI = ONEWAY_FIN,
	CD = ONEWAY_CLOSED,
	U1 = ONEWAY_UDP_FIRST,
	UD = ONEWAY_UDP,
	AF = ONEWAY_AFFINITY,
};

static const uint8_t transitions[ONEWAY_STATE_MAX][EVENTS] = {
	// other ACK FIN SYN RST datagram
	[XX] = { EM, EM, FI, EM, CD, U1 },
	[EM] = { EM, ES, FI, EM, CD, EM },
	[ES] = { ES, ES, FI, ES, CD, ES },
	[FI] = { FI, FI, FI, EM, CD, FI },
	[CD] = { CD, CD, CD, EM, CD, CD },
	[U1] = { U1, U1, U1, U1, U1, UD },
	[UD] = { UD, UD, UD, UD, UD, UD },
	[AF] = { AF, AF, AF, AF, AF, AF },
};

static enum oneway_event oneway_event(uint8_t protocol, uint8_t flags)
{
	if (protocol == NET_PROTO_UDP)
		return DATAGRAM;
	if (flags & TCP_RST)
		return RST;
	if (flags & TCP_SYN)
		return flags & TCP_ACK ? OTHER : SYN;
	if (flags & TCP_FIN)
		return FIN;
	return flags & TCP_ACK ? ACK : OTHER;
}

enum oneway_state oneway_next(enum oneway_state state, uint8_t protocol, uint8_t flags)
{
	return transitions[state][oneway_event(protocol, flags)];
}

const char *oneway_state_name(enum oneway_state state)
{
	static const char *const names[ONEWAY_STATE_MAX] = {
		[ONEWAY_FREE] = "free",
		[ONEWAY_EMBRYONIC] = "embryonic",
		[ONEWAY_ESTABLISHED] = "established",
		[ONEWAY_FIN] = "fin",
		[ONEWAY_CLOSED] = "closed",
		[ONEWAY_UDP_FIRST] = "udp-first",
		[ONEWAY_UDP] = "udp",
		[ONEWAY_AFFINITY] = "affinity",
	};
	return (unsigned)state < ONEWAY_STATE_MAX ? names[state] : "unknown";
}
