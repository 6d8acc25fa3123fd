// SPDX-License-Identifier: BSD-3-Clause
// Hot path: no allocation, lock, log, system call.
// Fragments of datagrams that are ours (lib/packet/fragments.c remembers). The first one has the ports and goes like a whole
// packet; what became of it is kept in 64 bits for the later ones:
//
//   bits 0..7 what | 8 side | 16..39 backend | 32..63 flow, or 8..15 drop reason, or 8..15 worker   by `what`
//
// One at a time, in the order in which they came, after the other packets of the burst; they leave in their places.
#include "pipeline_priv.h"

enum what { WHAT_DROP = 1, WHAT_PUNT, WHAT_NAT, WHAT_ONEWAY, WHAT_RESTEER };

static uint64_t decision_make(const struct burst *b, uint32_t i)
{
	uint64_t other = b->reason[i] ? b->reason[i] : DROP_FRAGMENT_NO_FIRST;
	switch ((enum pipeline_verdict)b->verdict[i]) {
	case PIPELINE_PUNT:
		return WHAT_PUNT;
	case PIPELINE_RESTEER:
		return WHAT_RESTEER | (uint64_t)b->out_port[i] << 8;
	case PIPELINE_FORWARD:
	case PIPELINE_WAIT:
		if (b->flow_idx[i] == FLOW_NONE)
			return WHAT_ONEWAY | (uint64_t)b->backend_id[i] << 16;
		return WHAT_NAT | (uint64_t)b->side[i] << 8 | (uint64_t)b->flow_idx[i] << 32 |
		       (uint64_t)(b->backend_id[i] & 0xffff) << 16;
	default:
		return WHAT_DROP | other << 8;
	}
}

// Records are used again. The later fragment must be from and to the addresses that the record has.
static bool record_fits(
	const struct pipeline *p, const struct burst *b, uint32_t i, uint64_t decision)
{
	const struct flow_record *r = flow_record(&p->flows, b->flow_idx[i]);
	const struct packet *packet = &b->packets[i];
	if (r->state == FLOW_STATE_FREE || (r->backend_id & 0xffff) != (decision >> 16 & 0xffff))
		return false;
	bool from_client = b->side[i] == FLOW_SIDE_CLIENT;
	const struct address *src = from_client ? &r->client : flow_server(p, r);
	const struct address *dst =
		from_client ? &p->snapshot->own[r->vip_slot].address : flow_face(p, r);
	return address_equal(src, &packet->src) && address_equal(dst, &packet->dst);
}

static void follow_decision(struct pipeline *p, struct burst *b, uint32_t i, uint64_t decision)
{
	switch ((enum what)(decision & 0xff)) {
	case WHAT_PUNT:
		stage_punt(b, i, PIPELINE_PUNT_OTHER);
		return;
	case WHAT_RESTEER:
		if (b->hops[i] >= p->n_workers)
			break; // two that point at each other
		b->verdict[i] = PIPELINE_RESTEER;
		b->out_port[i] = (uint8_t)(decision >> 8);
		return;
	case WHAT_NAT:
		b->side[i] = (uint8_t)(decision >> 8 & 1);
		b->flow_idx[i] = (uint32_t)(decision >> 32);
		if (!record_fits(p, b, i, decision))
			break;
		b->backend_id[i] = flow_record(&p->flows, b->flow_idx[i])->backend_id;
		stage_rewrite_fragment(p, b, i);
		return;
	case WHAT_ONEWAY:
		b->backend_id[i] = (uint32_t)(decision >> 16);
		if (b->backend_id[i] >= p->snapshot->n_backends ||
			!snapshot_mode_is_oneway(p->snapshot->backends[b->backend_id[i]].mode))
			break;
		b->verdict[i] = PIPELINE_FORWARD;
		stage_send_oneway(p, b, i, b->backend_id[i]);
		return;
	case WHAT_DROP:
		stage_drop(p, b, i, (enum drop_reason)(decision >> 8 & 0xff));
		return;
	}
	stage_drop(p, b, i, DROP_FRAGMENT_NO_FIRST);
}

// The CRC of SCTP cannot be corrected from a part. What a dnat backend sends to others is the kernel's as it is.
static bool is_sctp_of_ours(
	const struct pipeline *p, const struct burst *b, uint32_t i, const struct nat_pending *nat)
{
	uint8_t side;
	if (nat->packets == 0 || b->packets[i].protocol != NET_PROTO_SCTP)
		return false;
	return !b->may_be_foreign[i] ||
	       flow_lookup(&p->flows, &nat->search.keys[0], &side) != FLOW_NONE;
}

// Those that waited go after their first: with the next burst.
static void settle_first(
	struct pipeline *p, struct burst *b, uint32_t i, const struct fragments_answer *answer)
{
	struct nat_pending nat;
	struct pending oneway;
	struct rte_mbuf *released[FRAGMENTS_HELD_EACH];
	stage_classify_tuple(p, b, i, &nat, &oneway);
	if (is_sctp_of_ours(p, b, i, &nat))
		stage_drop(p, b, i, DROP_FRAGMENT_SCTP);
	else
		stage_pending(p, b, &nat, &oneway);
	uint32_t n = fragments_settle(p->fragments, answer, decision_make(b, i), released);
	for (uint32_t k = 0; k < n; k++)
		p->released[p->n_released++] = released[k]; // fits: see pipeline_take_released
}

static void hold(struct pipeline *p, struct burst *b, uint32_t i, struct rte_mbuf *given_up)
{
	b->mbufs[i]->port = pipeline_mark(b->in_port[i], b->hops[i]);
	b->verdict[i] = PIPELINE_HELD;
	if (given_up == NULL)
		return;
	b->given_up[b->n_given_up++] = given_up;
	counters_drop(p->counters, DROP_FRAGMENT_NO_FIRST, 1);
}

void stage_fragments(struct pipeline *p, struct burst *b, uint64_t fragments)
{
	for (; fragments != 0; fragments &= fragments - 1) {
		uint32_t i = (uint32_t)__builtin_ctzll(fragments);
		struct fragments_answer answer;
		if (p->fragments == NULL) {
			stage_drop(p, b, i, DROP_FRAGMENT);
			continue;
		}
		fragments_see(p->fragments, &b->packets[i], b->mbufs[i], p->now_ns, &answer);
		switch ((enum fragments_kind)answer.kind) {
		case FRAGMENTS_FIRST:
			settle_first(p, b, i, &answer);
			break;
		case FRAGMENTS_KNOWN:
			follow_decision(p, b, i, answer.decision);
			break;
		case FRAGMENTS_HELD:
			hold(p, b, i, answer.given_up);
			break;
		case FRAGMENTS_REFUSED:
			stage_drop(p, b, i, (enum drop_reason)answer.reason);
			break;
		}
	}
}

void pipeline_take_released(struct pipeline *p, struct burst *b)
{
	uint32_t n = 0;
	while (n < p->n_released && b->n < BURST_MAX) {
		b->mbufs[b->n] = p->released[n++];
		pipeline_unmark(b, b->n++);
	}
	p->n_released -= n;
	memmove(p->released, p->released + n, p->n_released * sizeof(p->released[0]));
}

uint32_t pipeline_expire_held(
	struct pipeline *p, uint64_t now_ns, struct rte_mbuf **out, uint32_t max)
{
	uint32_t n = 0;
	if (p->fragments == NULL)
		return 0;
	while (now_ns == UINT64_MAX && p->n_released > 0 && n < max)
		out[n++] = p->released[--p->n_released];
	n += fragments_expire(p->fragments, now_ns, out + n, max - n);
	if (n > 0)
		counters_drop(p->counters, DROP_FRAGMENT_NO_FIRST, n);
	return n;
}
