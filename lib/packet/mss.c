// SPDX-License-Identifier: BSD-3-Clause
// Hot path: no allocation, lock, log, system call.
// The MSS option of a SYN (RFC 9293 3.7.1), lowered where the path holds less than its sender believes.
#include "packet_priv.h"

enum {
	OPTION_END = 0,
	OPTION_NOP = 1,
	OPTION_MSS = 2,
	OPTION_MSS_LENGTH = 4,
};

// Lowers one option whose value is at `at`, and the checksum. An option may begin at an odd byte: its bytes then lie crosswise
// in the words of the sum.
static void lower(struct tcp_header *tcp, uint8_t *at, uint16_t max)
{
	rte_be16_t was, is = rte_cpu_to_be_16(max);
	memcpy(&was, at, sizeof(was));
	memcpy(at, &is, sizeof(is));
	bool at_odd = (at - (uint8_t *)tcp) & 1;
	uint64_t delta = at_odd ? checksum_delta(__builtin_bswap16(was), __builtin_bswap16(is))
				: checksum_delta(was, is);
	tcp->checksum = checksum_apply(tcp->checksum, delta);
}

bool packet_clamp_mss(struct rte_mbuf *mbuf, const struct packet *p, uint16_t max)
{
	if (p->kind != PACKET_FLOW || p->protocol != NET_PROTO_TCP || !(p->tcp_flags & TCP_SYN))
		return false;
	// The parser has seen the whole header in the first segment.
	struct tcp_header *tcp = packet_at(mbuf, p->l4_offset);
	uint8_t *at = (uint8_t *)(tcp + 1), *end = (uint8_t *)tcp + (tcp->offset >> 4) * 4u;
	bool changed = false;
	while (at < end && *at != OPTION_END) {
		if (*at == OPTION_NOP) {
			at++;
			continue;
		}
		if (end - at < 2 || at[1] < 2 || at[1] > end - at)
			break;
		if (*at == OPTION_MSS && at[1] == OPTION_MSS_LENGTH && (at[2] << 8 | at[3]) > max) {
			lower(tcp, at + 2, max);
			changed = true;
		}
		at += at[1];
	}
	return changed;
}
