// SPDX-License-Identifier: BSD-3-Clause
// Hot path: no allocation, lock, log, system call.
// Answers of our own, made in the mbuf that asked, each within a rate.
#include "pipeline_priv.h"

// Sends the answer the way the FIB knows to its receiver; where that is not known (yet), back to the station
// that the packet came from, which the answer's MACs already say.
static void leave_answer(struct pipeline *p, struct burst *b, uint32_t i, enum drop_reason reason)
{
	const struct address *to = &b->packets[i].src;
	struct way way = { 0 };
	b->out_port[i] = b->in_port[i];
	struct eth_header *eth = rte_pktmbuf_mtod(b->mbufs[i], struct eth_header *);
	if (way_find(p, pipeline_route(p, to), to, &way) == DROP_NONE && !way.wait) {
		b->out_port[i] = way.port;
		eth->dst = way.mac;
	}
	eth->src = p->ports[b->out_port[i]].mac;
	stage_replied(p, b, i, reason);
}

void stage_answer_echo(struct pipeline *p, struct burst *b, uint32_t i)
{
	const struct packet *packet = &b->packets[i];
	uint8_t kind;
	if (snapshot_find_own(p->snapshot, &packet->src, &kind) != SNAPSHOT_SLOT_NONE) {
		stage_drop(p, b, i, DROP_IMPOSSIBLE_SOURCE);
		return;
	}
	if (!bucket_take(&p->echo_bucket, p->now_ns)) {
		stage_drop(p, b, i, DROP_ECHO_RATE);
		return;
	}
	if (!packet_l4_checksum_ok(b->mbufs[i], packet)) {
		stage_drop(p, b, i, DROP_BAD_L4_CHECKSUM);
		return;
	}
	if (!packet_answer_echo(b->mbufs[i], packet)) {
		stage_drop(p, b, i, DROP_SEGMENTED_HEADERS);
		return;
	}
	counters_add(p->counters, COUNTER_ECHO_REPLIES, 1);
	leave_answer(p, b, i, DROP_ECHO_ANSWERED);
}

void stage_refuse(struct pipeline *p, struct burst *b, uint32_t i, enum drop_reason reason)
{
	const struct packet *packet = &b->packets[i];
	bool is_tcp = packet->protocol == NET_PROTO_TCP;
	if (is_tcp && (packet->tcp_flags & TCP_RST)) {
		stage_drop(p, b, i, DROP_NO_FLOW_QUIET);
		return;
	}
	if (!bucket_take(&p->answer_bucket, p->now_ns)) {
		stage_drop(p, b, i, DROP_ANSWER_RATE);
		return;
	}
	bool answered = is_tcp ? packet_answer_reset(b->mbufs[i], packet)
			       : packet_answer_error(b->mbufs[i], packet, PACKET_PORT_UNREACHABLE,
					 &packet->dst, 0);
	if (!answered) {
		stage_drop(p, b, i, reason);
		return;
	}
	counters_add(p->counters, is_tcp ? COUNTER_RESETS_SENT : COUNTER_UNREACHABLES_SENT, 1);
	leave_answer(p, b, i, reason);
}

void stage_answer_error(
	struct pipeline *p, struct burst *b, uint32_t i, enum packet_error error, uint16_t mtu)
{
	const struct packet *packet = &b->packets[i];
	enum drop_reason reason = error == PACKET_TOO_BIG ? DROP_TOO_BIG : DROP_TTL_EXCEEDED;
	if (!bucket_take(&p->answer_bucket, p->now_ns)) {
		stage_drop(p, b, i, DROP_ANSWER_RATE);
		return;
	}
	// Sent from the address that the packet was addressed to: one that its sender knows.
	if (!packet_answer_error(b->mbufs[i], packet, error, &packet->dst, mtu)) {
		stage_drop(p, b, i, reason);
		return;
	}
	counters_add(p->counters,
		error == PACKET_TOO_BIG ? COUNTER_TOO_BIG_SENT : COUNTER_TIME_EXCEEDED_SENT, 1);
	leave_answer(p, b, i, reason);
}
