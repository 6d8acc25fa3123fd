// SPDX-License-Identifier: BSD-3-Clause
// Hot path: no allocation, lock, log, system call.
// ipip: an IPv4 (RFC 2003, RFC 4213) or IPv6 (RFC 2473) header in front of the client's packet.
#include "tunnel_priv.h"

static __rte_always_inline void write_headers(uint8_t *at, const struct packet *p,
	const struct packet_tunnel *tunnel, const struct packet_outer *outer, bool is_v6)
{
	struct tunnel_inner inner =
		tunnel_inner_read(at + tunnel_head(PACKET_TUNNEL_IPIP, is_v6), p);
	tunnel_write_eth(at, &outer->macs, is_v6);
	at += sizeof(struct eth_header);
	if (is_v6)
		tunnel_write_v6(at, tunnel, &inner, inner.protocol);
	else
		tunnel_write_v4(at, tunnel, &inner, inner.protocol, outer->id);
}

static __attribute__((noinline)) bool rewrite_odd(struct rte_mbuf *mbuf, const struct packet *p,
	const struct packet_tunnel *tunnel, const struct packet_outer *outer)
{
	uint8_t *at = tunnel_reframe_odd(mbuf, p, tunnel_head(PACKET_TUNNEL_IPIP, tunnel->is_v6));
	if (at == NULL)
		return false;
	write_headers(at, p, tunnel, outer, tunnel->is_v6);
	return true;
}

static __rte_always_inline bool rewrite(struct rte_mbuf *mbuf, const struct packet *p,
	const struct packet_tunnel *tunnel, const struct packet_outer *outer, bool is_v6)
{
	uint8_t *at = packet_reframe(
		mbuf, p->l3_offset, p->l3_length, tunnel_head(PACKET_TUNNEL_IPIP, is_v6));
	if (unlikely(at == NULL))
		return rewrite_odd(mbuf, p, tunnel, outer);
	write_headers(at, p, tunnel, outer, is_v6);
	return true;
}

bool packet_rewrite_ipip(struct rte_mbuf *mbuf, const struct packet *p,
	const struct packet_tunnel *tunnel, const struct packet_outer *outer)
{
	return tunnel->is_v6 ? rewrite(mbuf, p, tunnel, outer, true)
			     : rewrite(mbuf, p, tunnel, outer, false);
}
