// SPDX-License-Identifier: BSD-3-Clause
// Hot path: no allocation, lock, log, system call.
// Answers of our own, made in the mbuf that asked, each within a rate.
#include "pipeline_priv.h"

// Sends the answer the way the FIB knows to its receiver; where that is not known (yet), back to the station
// that the packet came from, which the answer's MACs already say.
void stage_leave_answer(struct pipeline *p, struct burst *b, uint32_t i, const struct address *to,
	enum drop_reason reason)
{
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

void stage_detach(struct burst *b, uint32_t i)
{
	struct rte_mbuf *tail = b->mbufs[i]->next ? packet_detach_tail(b->mbufs[i]) : NULL;
	if (tail)
		b->tails[b->n_tails++] = tail;
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
	stage_leave_answer(p, b, i, &packet->src, DROP_ECHO_ANSWERED);
}

static bool refuse_by_protocol(struct burst *b, uint32_t i)
{
	const struct packet *packet = &b->packets[i];
	struct rte_mbuf *mbuf = b->mbufs[i];
	if (packet->protocol == NET_PROTO_SCTP) // reads all chunks
		return packet_answer_sctp_abort(mbuf, packet);
	stage_detach(b, i);
	if (packet->protocol == NET_PROTO_TCP)
		return packet_answer_reset(mbuf, packet);
	return packet_answer_error(mbuf, packet, PACKET_PORT_UNREACHABLE, &packet->dst, 0);
}

void stage_refuse(struct pipeline *p, struct burst *b, uint32_t i, enum drop_reason reason)
{
	const struct packet *packet = &b->packets[i];
	if (packet->protocol != NET_PROTO_UDP && (packet->tcp_flags & TCP_RST)) {
		stage_drop(p, b, i, DROP_NO_FLOW_QUIET);
		return;
	}
	if (!bucket_take(&p->answer_bucket, p->now_ns)) {
		stage_drop(p, b, i, DROP_ANSWER_RATE);
		return;
	}
	if (!refuse_by_protocol(b, i)) {
		stage_drop(p, b, i, reason);
		return;
	}
	counters_add(p->counters,
		packet->protocol == NET_PROTO_UDP ? COUNTER_UNREACHABLES_SENT : COUNTER_RESETS_SENT,
		1);
	stage_leave_answer(p, b, i, &packet->src, reason);
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
	stage_detach(b, i);
	// Sent from the address that the packet was addressed to: one that its sender knows.
	if (!packet_answer_error(b->mbufs[i], packet, error, &packet->dst, mtu)) {
		stage_drop(p, b, i, reason);
		return;
	}
	counters_add(p->counters,
		error == PACKET_TOO_BIG ? COUNTER_TOO_BIG_SENT : COUNTER_TIME_EXCEEDED_SENT, 1);
	stage_leave_answer(p, b, i, &packet->src, reason);
}
