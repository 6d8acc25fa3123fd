// SPDX-License-Identifier: BSD-3-Clause
// Runs the packet rewriters on what an oracle asks (modes_check.py): requests from standard input, answers to standard output, both binary,
// little-endian, as the structs below. Mbufs are over blocks of exact length, filled with a pattern.
#include <stdio.h>

#include "../unit/frames_priv.h"

enum mode {
	MODE_NAT, // fullnat, dnat: the same rewrite with other addresses
	MODE_IPIP,
	MODE_GUE,
	MODE_L2DSR,
	MODE_CROSS,
	MODE_ICMP_ERROR,
	MODE_ICMP_ERROR_CROSS,
	MODE_RELAYED_ERROR,
	MODE_MSS,
};

// As modes_check.py writes it.
struct request_nat {
	struct address src;
	struct address dst;
	rte_be16_t src_port;
	rte_be16_t dst_port;
	struct mac src_mac;
	struct mac dst_mac;
};

struct request {
	uint8_t mode;
	uint8_t pad;
	uint16_t headroom;
	uint16_t tailroom;
	uint16_t first; // bytes in the first of two segments; 0: one segment
	uint16_t id;
	uint16_t entropy;
	uint16_t mss;
	uint16_t n_frame;
	struct request_nat outer; // of the packet, or of the tunnel
	struct request_nat inner; // of what an error quotes
};
_Static_assert(sizeof(struct request) == 112, "as modes_check.py has it");

// Then n bytes of the frame.
struct reply {
	uint8_t done; // the rewriter said yes
	uint8_t pad;
	uint16_t n;
};

static struct packet_nat nat_make(const struct request_nat *r)
{
	return (struct packet_nat){
		.src = r->src,
		.dst = r->dst,
		.src_port = r->src_port,
		.dst_port = r->dst_port,
		.macs = packet_macs_make(&r->dst_mac, &r->src_mac),
	};
}

static struct rte_mbuf *mbuf_make(const struct request *r, const uint8_t *frame)
{
	if (r->first == 0 || r->first >= r->n_frame)
		return frame_mbuf_room(frame, r->n_frame, r->headroom, r->tailroom);
	struct rte_mbuf *mbuf = frame_mbuf_room(frame, r->first, r->headroom, r->tailroom);
	mbuf->next = frame_mbuf(frame + r->first, r->n_frame - (size_t)r->first);
	mbuf->nb_segs = 2;
	mbuf->pkt_len = r->n_frame;
	return mbuf;
}

static bool rewrite_error(struct rte_mbuf *mbuf, const struct packet *p, const struct request *r)
{
	struct packet quoted;
	struct packet_nat outer = nat_make(&r->outer), inner = nat_make(&r->inner);
	if (!packet_l4_checksum_ok(mbuf, p) || !packet_parse_quoted(mbuf, p, &quoted))
		return false;
	if (r->mode == MODE_ICMP_ERROR_CROSS)
		return packet_rewrite_icmp_error_cross(mbuf, p, &quoted, &outer, &inner) ==
		       DROP_NONE;
	packet_rewrite_icmp_error(mbuf, p, &quoted, &outer, &inner);
	return true;
}

static bool rewrite_tunnel(struct rte_mbuf *mbuf, const struct packet *p, const struct request *r)
{
	struct packet_tunnel tunnel;
	struct packet_outer outer = {
		.macs = packet_macs_make(&r->outer.dst_mac, &r->outer.src_mac),
		.id = r->id,
		.entropy = r->entropy,
	};
	bool is_gue = r->mode == MODE_GUE;
	packet_tunnel_init(&tunnel, is_gue ? PACKET_TUNNEL_GUE : PACKET_TUNNEL_IPIP, &r->outer.src,
		&r->outer.dst);
	return is_gue ? packet_rewrite_gue(mbuf, p, &tunnel, &outer)
		      : packet_rewrite_ipip(mbuf, p, &tunnel, &outer);
}

static bool rewrite(struct rte_mbuf *mbuf, const struct request *r)
{
	struct packet p;
	packet_parse(mbuf, NULL, &p);
	struct packet_nat nat = nat_make(&r->outer);
	struct packet_quoted_tunnel quoted;
	switch (r->mode) {
	case MODE_NAT:
		packet_rewrite_fullnat(mbuf, &p, &nat);
		return p.kind == PACKET_FLOW;
	case MODE_IPIP:
	case MODE_GUE:
		return p.kind != PACKET_BAD && rewrite_tunnel(mbuf, &p, r);
	case MODE_L2DSR:
		packet_rewrite_l2dsr(mbuf, &nat.macs);
		return p.kind != PACKET_BAD;
	case MODE_CROSS:
		return p.kind == PACKET_FLOW && packet_rewrite_cross(mbuf, &p, &nat);
	case MODE_RELAYED_ERROR:
		return packet_l4_checksum_ok(mbuf, &p) &&
		       packet_parse_quoted_tunnel(mbuf, &p, &quoted) &&
		       packet_answer_relayed_error(mbuf, &p, &quoted);
	case MODE_MSS:
		return packet_clamp_mss(mbuf, &p, r->mss);
	default:
		return rewrite_error(mbuf, &p, r);
	}
}

int main(void)
{
	static uint8_t frame[UINT16_MAX];
	struct request r;
	while (fread(&r, sizeof(r), 1, stdin) == 1) {
		if (fread(frame, 1, r.n_frame, stdin) != r.n_frame)
			return 1;
		struct rte_mbuf *mbuf = mbuf_make(&r, frame);
		struct reply reply = { .done = rewrite(mbuf, &r), .n = (uint16_t)mbuf->pkt_len };
		fwrite(&reply, sizeof(reply), 1, stdout);
		for (const struct rte_mbuf *s = mbuf; s; s = s->next)
			fwrite(frame_bytes(s), 1, s->data_len, stdout);
		frame_mbuf_destroy(mbuf);
	}
	return fflush(stdout) == 0 && !ferror(stdout) ? 0 : 1;
}
