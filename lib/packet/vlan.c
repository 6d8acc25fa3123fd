// SPDX-License-Identifier: BSD-3-Clause
// Hot path: no allocation, lock, log, system call.
// One IEEE 802.1Q tag, off at receive and on at transmit of a port that is a VLAN: nothing between sees it.
#include "packet_priv.h"

#define MACS_BYTES 12u // both, in front of the tag
#define TAG_BYTES  4u
#define VID_MASK   0x0fff

#define ETHERTYPE_SERVICE_TAG 0x88a8 // 802.1ad

// VLAN id 0 is only a priority: such a frame is in no VLAN.
static inline enum drop_reason check_tci(uint16_t tci, uint16_t vid)
{
	if (likely((tci & VID_MASK) == vid))
		return DROP_NONE;
	return (tci & VID_MASK) == 0 ? DROP_VLAN_UNTAGGED : DROP_VLAN_MISMATCH;
}

static enum drop_reason strip_offloaded(struct rte_mbuf *mbuf, uint16_t vid)
{
	enum drop_reason reason = check_tci(mbuf->vlan_tci, vid);
	if (reason == DROP_NONE) {
		mbuf->ol_flags &= ~(RTE_MBUF_F_RX_VLAN | RTE_MBUF_F_RX_VLAN_STRIPPED);
		mbuf->vlan_tci = 0;
	}
	return reason;
}

static inline enum drop_reason too_short(const struct rte_mbuf *mbuf, uint32_t end)
{
	return end <= mbuf->pkt_len ? DROP_SEGMENTED_HEADERS : DROP_ETH_TRUNCATED;
}

enum drop_reason packet_vlan_strip(struct rte_mbuf *mbuf, uint16_t vid)
{
	if (mbuf->ol_flags & RTE_MBUF_F_RX_VLAN_STRIPPED)
		return strip_offloaded(mbuf, vid);
	if (mbuf->data_len < sizeof(struct eth_header))
		return too_short(mbuf, sizeof(struct eth_header));
	uint8_t *frame = packet_at(mbuf, 0);
	const struct eth_header *eth = (const void *)frame;
	if (eth->type == RTE_BE16(ETHERTYPE_SERVICE_TAG))
		return DROP_VLAN_MISMATCH;
	if (eth->type != RTE_BE16(NET_ETHERTYPE_VLAN))
		return DROP_VLAN_UNTAGGED;
	if (mbuf->data_len < sizeof(struct eth_header) + TAG_BYTES)
		return too_short(mbuf, sizeof(struct eth_header) + TAG_BYTES);
	rte_be16_t tci;
	memcpy(&tci, frame + sizeof(*eth), sizeof(tci));
	enum drop_reason reason = check_tci(rte_be_to_cpu_16(tci), vid);
	if (reason != DROP_NONE)
		return reason;
	memmove(frame + TAG_BYTES, frame, MACS_BYTES);
	mbuf->data_off = (uint16_t)(mbuf->data_off + TAG_BYTES);
	mbuf->data_len = (uint16_t)(mbuf->data_len - TAG_BYTES);
	mbuf->pkt_len -= TAG_BYTES;
	return DROP_NONE;
}

bool packet_vlan_insert(struct rte_mbuf *mbuf, uint16_t tci)
{
	if (mbuf->data_len < MACS_BYTES)
		return false;
	uint8_t *was = packet_at(mbuf, 0);
	if (likely(mbuf->data_off >= TAG_BYTES)) {
		mbuf->data_off = (uint16_t)(mbuf->data_off - TAG_BYTES);
		memmove(was - TAG_BYTES, was, MACS_BYTES);
	} else {
		if ((uint32_t)mbuf->data_off + mbuf->data_len + TAG_BYTES > mbuf->buf_len)
			return false;
		memmove(was + MACS_BYTES + TAG_BYTES, was + MACS_BYTES,
			mbuf->data_len - MACS_BYTES);
	}
	mbuf->data_len = (uint16_t)(mbuf->data_len + TAG_BYTES);
	mbuf->pkt_len += TAG_BYTES;
	const rte_be16_t tag[2] = { RTE_BE16(NET_ETHERTYPE_VLAN), rte_cpu_to_be_16(tci) };
	memcpy(packet_at(mbuf, MACS_BYTES), tag, sizeof(tag));
	return true;
}
