// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// Bursts of small IPv4 frames for tests with very many packets: 64 mbufs that are used again, filled from a template.
#include "frames_priv.h"
#include "world_priv.h"

#define LANE_ROOM 384

struct lane_frame { // who sends what; host order
	uint32_t src;
	uint32_t dst;
	uint16_t src_port;
	uint16_t dst_port;
	uint8_t protocol;
	uint8_t tcp_flags;
};

struct lane {
	struct pipeline *p;
	struct burst b;
	struct rte_mbuf mbufs[BURST_MAX];
	uint8_t rooms[BURST_MAX][LANE_ROOM];
	uint32_t n;
};

static inline void lane_begin(struct lane *l, struct world *w, uint32_t worker)
{
	l->p = &w->workers[worker];
	l->p->now_ns = w->now_ns;
	l->p->now_s = (uint32_t)(w->now_ns / CLOCK_S);
	l->n = 0;
}

// Adds n bytes.
static inline void lane_add_bytes(struct lane *l, const uint8_t *bytes, size_t n)
{
	struct rte_mbuf *mbuf = &l->mbufs[l->n];
	memset(mbuf, 0, sizeof(*mbuf));
	mbuf->buf_addr = l->rooms[l->n];
	mbuf->buf_len = LANE_ROOM;
	mbuf->data_off = 64;
	mbuf->data_len = (uint16_t)n;
	mbuf->pkt_len = (uint32_t)n;
	mbuf->nb_segs = 1;
	mbuf->refcnt = 1;
	memcpy(l->rooms[l->n] + 64, bytes, n);
	l->b.mbufs[l->n] = mbuf;
	l->b.in_port[l->n] = 0;
	l->b.hops[l->n] = 1; // nobody hands it on
	l->n++;
}

// A frame of 8 bytes of payload.
static inline size_t lane_frame_build(const struct lane_frame *f, uint8_t *frame)
{
	static const uint8_t macs[14] = { 2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0 };
	uint8_t *ip = frame + 14, *l4 = ip + 20;
	size_t n_l4 = f->protocol == NET_PROTO_TCP ? 20 : 8;
	memset(frame, 0, 14 + 20 + n_l4 + 8);
	memcpy(frame, macs, 14);
	ip[0] = 0x45;
	frame_put16(ip + 2, (uint32_t)(28 + n_l4));
	ip[8] = 64;
	ip[9] = f->protocol;
	frame_put32(ip + 12, f->src);
	frame_put32(ip + 16, f->dst);
	frame_put16(l4, f->src_port);
	frame_put16(l4 + 2, f->dst_port);
	if (f->protocol == NET_PROTO_TCP) {
		l4[12] = 0x50;
		l4[13] = f->tcp_flags;
	} else if (f->protocol == NET_PROTO_UDP) {
		frame_put16(l4 + 4, 16);
		l4[7] = 1;
	} else { // echo request
		l4[0] = 8;
	}
	frame_fix_checksums(frame, 14);
	return 14 + 20 + n_l4 + 8;
}

static inline void lane_add(struct lane *l, const struct lane_frame *f)
{
	uint8_t frame[128];
	lane_add_bytes(l, frame, lane_frame_build(f, frame));
}

static inline void lane_run(struct lane *l)
{
	l->b.n = l->n;
	pipeline_run(l->p, &l->b);
	l->n = 0;
}
