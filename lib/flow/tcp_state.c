// SPDX-License-Identifier: BSD-3-Clause
// Hot path: no allocation, lock, log, system call.
//
// What a TCP segment does to its flow's state: one const table. Sequence numbers are not tracked: the
// endpoints judge segments, we only need to know how long to keep the flow.
//
// Chosen here, where RFC 9293 leaves a middlebox alone:
//   - A SYN never moves a state. Retransmitted in SYN_SENT it stays; on ESTABLISHED it is a client that
//     starts over, and the backend's challenge ACK brings a RST. On CLOSING and CLOSED the caller
//     makes a new flow of it.
//   - Before the SYN-ACK was seen nothing but a RST moves SYN_SENT, and before the client's ACK nothing
//     but that ACK, the client's FIN or a RST moves SYN_RECEIVED: a flow that only one side talks to must stay
//     cheap to give up.
//   - In CLOSING any pure ACK closes: at worst the last FIN is retransmitted within CLOSED's timeout.
#include "flow.h"

enum flag_class { CLASS_OTHER, CLASS_ACK, CLASS_FIN, CLASS_SYN, CLASS_SYN_ACK, CLASS_RST, CLASSES };

// Short names, for a table that fits the page.
enum {
	XX = FLOW_STATE_FREE,
	SS = FLOW_STATE_SYN_SENT,
	SR = FLOW_STATE_SYN_RECEIVED,
	ES = FLOW_STATE_ESTABLISHED,
	FC = FLOW_STATE_FIN_CLIENT,
	FB = FLOW_STATE_FIN_BACKEND,
	CG = FLOW_STATE_CLOSING,
	CD = FLOW_STATE_CLOSED,
	U1 = FLOW_STATE_UDP_ONEWAY,
	U2 = FLOW_STATE_UDP_TWOWAY,
};

static const uint8_t transitions[FLOW_STATE_MAX][2][CLASSES] = {
	// from the client: other ACK FIN SYN SYN-ACK RST; then from the backend
	[XX] = { { XX, XX, XX, XX, XX, XX }, { XX, XX, XX, XX, XX, XX } },
	[SS] = { { SS, SS, SS, SS, SS, CD }, { SS, SS, SS, SS, SR, CD } },
	[SR] = { { SR, ES, FC, SR, SR, CD }, { SR, SR, SR, SR, SR, CD } },
	[ES] = { { ES, ES, FC, ES, ES, CD }, { ES, ES, FB, ES, ES, CD } },
	[FC] = { { FC, FC, FC, FC, FC, CD }, { FC, FC, CG, FC, FC, CD } },
	[FB] = { { FB, FB, CG, FB, FB, CD }, { FB, FB, FB, FB, FB, CD } },
	[CG] = { { CG, CD, CG, CG, CG, CD }, { CG, CD, CG, CG, CG, CD } },
	[CD] = { { CD, CD, CD, CD, CD, CD }, { CD, CD, CD, CD, CD, CD } },
	[U1] = { { U1, U1, U1, U1, U1, U1 }, { U1, U1, U1, U1, U1, U1 } },
	[U2] = { { U2, U2, U2, U2, U2, U2 }, { U2, U2, U2, U2, U2, U2 } },
};

static enum flag_class flags_class(uint8_t flags)
{
	if (flags & TCP_RST)
		return CLASS_RST;
	if (flags & TCP_SYN)
		return flags & TCP_ACK ? CLASS_SYN_ACK : CLASS_SYN;
	if (flags & TCP_FIN)
		return CLASS_FIN;
	return flags & TCP_ACK ? CLASS_ACK : CLASS_OTHER;
}

enum flow_state flow_tcp_next(enum flow_state state, enum flow_side side, uint8_t flags)
{
	return transitions[state][side][flags_class(flags)];
}

const char *flow_state_name(enum flow_state state)
{
	static const char *const names[FLOW_STATE_MAX] = {
		[FLOW_STATE_FREE] = "free",
		[FLOW_STATE_SYN_SENT] = "syn-sent",
		[FLOW_STATE_SYN_RECEIVED] = "syn-received",
		[FLOW_STATE_ESTABLISHED] = "established",
		[FLOW_STATE_FIN_CLIENT] = "fin-client",
		[FLOW_STATE_FIN_BACKEND] = "fin-backend",
		[FLOW_STATE_CLOSING] = "closing",
		[FLOW_STATE_CLOSED] = "closed",
		[FLOW_STATE_UDP_ONEWAY] = "udp-oneway",
		[FLOW_STATE_UDP_TWOWAY] = "udp-twoway",
	};
	return (unsigned)state < FLOW_STATE_MAX ? names[state] : "unknown";
}
