// SPDX-License-Identifier: BSD-3-Clause
// Hot path: no allocation, lock, log, system call.
// Room for new headers, where it is not simply headroom; and frames cut to their first segment.
#include "packet_priv.h"

uint8_t *packet_reframe_odd(
	struct rte_mbuf *mbuf, uint32_t kept_at, uint32_t n_kept, uint32_t n_head)
{
	struct rte_mbuf *last = rte_pktmbuf_lastseg(mbuf);
	uint32_t n_padding = mbuf->pkt_len - kept_at - n_kept;
	// Segments belong to the caller: none can be left empty here, as some ports choke on them.
	if (last != mbuf && n_padding >= last->data_len)
		return NULL;
	uint32_t n_first = last == mbuf ? n_kept : mbuf->data_len - kept_at;
	if (n_head + n_first > UINT16_MAX)
		return NULL;
	uint32_t end_of_room = mbuf->data_off + kept_at;
	if (end_of_room >= n_head) {
		mbuf->data_off = (uint16_t)(end_of_room - n_head);
	} else {
		if (n_head + n_first > mbuf->buf_len)
			return NULL;
		memmove((uint8_t *)mbuf->buf_addr + n_head, packet_at(mbuf, kept_at), n_first);
		mbuf->data_off = 0;
	}
	if (last != mbuf)
		last->data_len = (uint16_t)(last->data_len - n_padding);
	mbuf->data_len = (uint16_t)(n_head + n_first);
	mbuf->pkt_len = n_head + n_kept;
	return packet_at(mbuf, 0);
}

struct rte_mbuf *packet_detach_tail(struct rte_mbuf *mbuf)
{
	struct rte_mbuf *tail = mbuf->next;
	if (tail == NULL)
		return NULL;
	tail->nb_segs = (uint16_t)(mbuf->nb_segs - 1);
	tail->pkt_len = mbuf->pkt_len - mbuf->data_len;
	mbuf->next = NULL;
	mbuf->nb_segs = 1;
	mbuf->pkt_len = mbuf->data_len;
	return tail;
}
