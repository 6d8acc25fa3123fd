// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// One packet: parse with every length checked, rewrite per mode, answers of our own.
// Works on struct rte_mbuf through header-only accessors; allocates and frees nothing.
// Hot; any worker; no shared state.
//
// parse.c reads; fragments.c remembers what became of a first fragment; rewrite_<mode>.c, mss.c, icmp.c and icmp_cross.c change a
// packet that goes on; echo.c, reset.c, error.c and icmp_tunnel.c turn it into an answer; frame.c makes room; l4_checksum.c
// is for where an incremental checksum is not enough, sctp.c and crc32c.c are for SCTP's. toa.c, proxy.c and segment.c tell a backend of
// fullnat its client; vlan.c is for receive and transmit.

#include <stdbool.h>
#include <stdint.h>
#include <rte_mbuf.h>

#include "counters.h"
#include "net.h"

enum packet_kind {
	PACKET_OTHER, // not IP (ARP, LLDP, ...), or IP that only the kernel understands: for the twin
	PACKET_FLOW,       // TCP, UDP or SCTP with ports
	PACKET_ECHO,       // ICMP or ICMPv6 echo request
	PACKET_ICMP_ERROR, // ICMP or ICMPv6 error with a quoted packet
	PACKET_ICMP_OTHER, // other ICMP, ICMPv6 (ND, MLD: for the twin)
	PACKET_FRAGMENT,   // IP fragment (non-atomic); the first one has its ports and flags
	PACKET_PROTOCOL,   // IP with a protocol without listeners (ESP, GRE, IP-in-IP, ...)
	PACKET_BAD,        // refused: `reason`. Addresses are set when `have_addresses`.
};

// What parse learnt. Offsets are from the start of the frame, in the first segment.
struct packet {
	struct address src;
	struct address dst;
	rte_be16_t src_port; // TCP, UDP, SCTP; echo identifier
	rte_be16_t dst_port; // behind src_port, as on the wire and in struct packet_nat
	uint16_t l3_offset;  // IP header
	uint16_t l4_offset;  // TCP, UDP, SCTP, ICMP header
	uint16_t l3_length;  // IP total length (header and payload), host order
	uint16_t l4_length;  // from the L4 header to the end of the IP packet
	uint8_t protocol;    // NET_PROTO_*
	uint8_t kind;        // enum packet_kind
	uint8_t reason;      // enum drop_reason when kind is PACKET_BAD
	uint8_t tcp_flags;   // SCTP: what its first chunk means in them (parse.c)
	uint8_t ttl;
	bool is_v6;
	bool have_addresses;     // src and dst are valid (also for some PACKET_BAD)
	bool is_atomic_fragment; // IPv6 fragment header, offset 0, no more
	uint16_t
		fragment; // of PACKET_FRAGMENT: offset in bytes, a multiple of 8; bit 0: more follow
	uint16_t fragment_header; // IPv6: where the fragment header is, of atomic ones too; else 0
};
_Static_assert(sizeof(struct packet) == 56, "no hidden padding");

// What a fragment says of itself. The offset is that of the fragmentable part: after the fragment header in IPv6.
static inline uint32_t packet_fragment_offset(const struct packet *p)
{
	return p->fragment & 0xfff8u;
}
static inline bool packet_fragment_has_more(const struct packet *p)
{
	return p->fragment & 1;
}
// Bytes of the datagram that it brings.
static inline uint32_t packet_fragment_length(const struct packet *p)
{
	if (!p->is_v6)
		return p->l4_length;
	return (uint32_t)p->l3_offset + p->l3_length - p->fragment_header - 8u;
}
// IPv4: 16 bits, as on the wire. mbuf: the packet that p was parsed from, not yet changed.
static inline rte_be32_t packet_fragment_id(const struct rte_mbuf *mbuf, const struct packet *p)
{
	if (!p->is_v6)
		return rte_pktmbuf_mtod_offset(mbuf, const struct v4_header *, p->l3_offset)->id;
	rte_be32_t id;
	memcpy(&id, rte_pktmbuf_mtod_offset(mbuf, const uint8_t *, p->fragment_header + 4u),
		sizeof(id));
	return id;
}

// Parses one frame. Lengths, version, IPv4 header checksum, impossible TCP flags and sources are checked here; L4 checksums are
// not (packet_l4_checksum_ok). Ethernet padding is no lie: bytes after the IP total length are ignored. Never
// reads past data_len of the first segment; total lengths are checked against pkt_len.
// own_mac == NULL: any destination MAC is taken; else unicast frames to another station are
// PACKET_BAD(DROP_NOT_OUR_MAC).
// ARP and other ethertypes (VLAN tags too) are PACKET_OTHER. IP options: PACKET_BAD(DROP_V4_OPTIONS), unless the protocol is IGMP
// (PACKET_OTHER, with or without options).
//
// A malformed packet to somebody else is the kernel's business, so a PACKET_BAD has its addresses whenever both could be read: the
// caller drops it when dst is ours and punts it otherwise. Without addresses it is dropped: too short, no IP version, or
// IPv4-mapped addresses on the wire, which must not be taken for the IPv4 ones.
// The unspecified source is impossible, except towards multicast, broadcast and link-local destinations (DHCP, duplicate
// address detection, MLD): PACKET_OTHER or PACKET_ICMP_OTHER.
// UDP over IPv6 without a checksum is PACKET_BAD(DROP_BAD_L4_CHECKSUM) (RFC 8200 8.1): nothing to update.
//
// Fragments: lengths are checked (PACKET_BAD(DROP_FRAGMENT_BAD_LENGTH): empty, not the last and no multiple of 8, beyond 65,535), and
// the first one of TCP, UDP or SCTP has the whole L4 header, with its options, else PACKET_BAD(DROP_FRAGMENT_TINY), as a
// later one that would change it (RFC 1858, RFC 3128, RFC 7112). Ports and flags of a first fragment are set and checked as
// those of a whole packet; of its UDP length only that it covers what is here. l4_offset and l4_length of a later one: its payload;
// in IPv6 `protocol` is what its own fragment header says, and only the first one's is to be believed (RFC 8200 4.5).
void packet_parse(const struct rte_mbuf *mbuf, const struct mac *own_mac, struct packet *out);

// Full check of the TCP, UDP, SCTP or ICMP checksum over all segments; UDP over IPv4 with checksum 0 is fine. Used on
// answers, ICMP errors and where a partial checksum is suspected, never on the fast path.
bool packet_l4_checksum_ok(const struct rte_mbuf *mbuf, const struct packet *p);
// True when the stored checksum equals the bare pseudo-header sum (SCTP: is 0): the sender left it to an offload that never came (veth, tap,
// vhost with tx checksumming on). One look at one field.
bool packet_l4_checksum_is_partial(const struct rte_mbuf *mbuf, const struct packet *p);

// Both MACs of a frame that leaves, as on the wire, in the words in which they are written: made of pieces and read back in words, a
// packet waits some 20 cycles for its own stores.
struct packet_macs {
	uint64_t first; // destination, and two bytes of the source
	uint32_t rest;
};
// Each MAC in the first six bytes of its word; what lies behind is not looked at.
static inline struct packet_macs packet_macs_of_words(uint64_t dst, uint64_t src)
{
	return (struct packet_macs){ (dst & 0xffffffffffffull) | src << 48, (uint32_t)(src >> 16) };
}
static inline struct packet_macs packet_macs_make(const struct mac *dst, const struct mac *src)
{
	return packet_macs_of_words(mac_word(dst), mac_word(src));
}

// New addresses and ports of a NAT rewrite. Same family as the packet.
struct packet_nat {
	struct address src;
	struct address dst;
	union {
		struct {
			rte_be16_t src_port;
			rte_be16_t dst_port;
		};
		uint32_t ports; // both, as on the wire
	};
	struct packet_macs macs;
};
// fullnat: addresses, ports, MACs; TTL or hop limit less one; incremental checksums (RFC 1624; UDP/IPv4 0 stays 0, a computed 0
// becomes 0xffff; SCTP: CRC32c by linearity, a wrong one stays wrong). The caller has checked TTL > 1. Cost: one delta folded per header.
void packet_rewrite_fullnat(
	struct rte_mbuf *mbuf, const struct packet *p, const struct packet_nat *nat);

// ICMP error that quotes a packet of a flow of ours: parses the quoted packet. False: not there, truncated or implausible (not TCP,
// UDP or SCTP, a later fragment, IPv4 options, or a quoted source that is not the error's destination: errors go to who sent the quoted packet).
// quoted->l3_offset and l4_offset are offsets in the frame of the quoted headers; only src, dst, ports, protocol, is_v6, offsets and
// l4_length (bytes of the quoted L4 header and payload that are there) are set.
bool packet_parse_quoted(
	const struct rte_mbuf *mbuf, const struct packet *p, struct packet *quoted);
// Rewrites an ICMP error: outer addresses, and the quoted packet's addresses and ports, with all checksums (quoted IPv4 header, quoted L4
// where present, outer ICMP recomputed: the caller has checked packet_l4_checksum_ok). Outer TTL less one. Family stays.
void packet_rewrite_icmp_error(struct rte_mbuf *mbuf, const struct packet *p,
	const struct packet *quoted, const struct packet_nat *outer,
	const struct packet_nat *inner);

// Answers in place: the mbuf becomes our answer, MACs swapped, TTL 64, no extension headers, no Ethernet padding. All return false when there is
// nothing to answer (below; frames to a group MAC) or the frame cannot hold the answer (segments, room), and leave the mbuf as it was.
// Resets and errors need one segment: packet_detach_tail first, the struct packet stays good for them.
bool packet_answer_echo(struct rte_mbuf *mbuf, const struct packet *p); // checksum incremental
// Cuts the frame to its first segment. Gives the others, NULL if there are none, as a packet of its own to free.
struct rte_mbuf *packet_detach_tail(struct rte_mbuf *mbuf);
// RFC 9293 3.10.7.1: never to an RST.
bool packet_answer_reset(struct rte_mbuf *mbuf, const struct packet *p);
enum packet_error {
	PACKET_PORT_UNREACHABLE,
	PACKET_TIME_EXCEEDED,
	PACKET_TOO_BIG,
	PACKET_HOST_UNREACHABLE,
};
// ICMP or ICMPv6 error from address `from` quoting the packet (v4: header + 8 bytes or as much as fits 576; v6: up to 1280). mtu only for TOO_BIG,
// never told below 576 or 1280.
// Refuses (false) for ICMP errors, multicast, fragments but the first (RFC 1122 3.2.2, RFC 4443 2.4 e), and what packet_detach_tail has cut to
// less than 8 bytes behind the IP headers.
bool packet_answer_error(struct rte_mbuf *mbuf, const struct packet *p, enum packet_error error,
	const struct address *from, uint16_t mtu);

// ---------------------------------------------------------------- one-way modes: ipip, gue, l2dsr
// The client's packet reaches the backend without a byte of it changed, TTL too; the backend answers the client itself.

enum packet_tunnel_kind { PACKET_TUNNEL_IPIP, PACKET_TUNNEL_GUE };

// The way to one backend. No MACs: those are the next hop's. Cheap to make for each packet, or once. (A presummed IPv4 header was
// tried: the words are at hand anyway, so it saves nothing in the rewrite and costs 3 ns to make.)
struct packet_tunnel {
	struct address src; // ours, of the backend's family; errors of the path come to it
	struct address dst; // the backend's
	uint8_t kind;       // enum packet_tunnel_kind
	bool is_v6;         // the outer header; inner packets may be of both families
	uint8_t pad[6];
};
_Static_assert(sizeof(struct packet_tunnel) == 40, "no hidden padding");

// What differs from packet to packet.
struct packet_outer {
	struct packet_macs macs;
	uint16_t
		id; // for IPv4 outer headers without DF: differs between packets (RFC 6864); any order
	uint16_t entropy; // GUE: a hash of the flow; its lower 14 bits choose the source port
};

#define PACKET_GUE_PORT 6080

// src and dst of one family, which is the outer header's. Any thread.
static inline void packet_tunnel_init(struct packet_tunnel *out, enum packet_tunnel_kind kind,
	const struct address *src, const struct address *dst)
{
	*out = (struct packet_tunnel){
		.src = *src,
		.dst = *dst,
		.kind = (uint8_t)kind,
		.is_v6 = !address_is_v4(dst),
	};
}
// Bytes between the outer IP header's first and the inner one's: 20, 40 (IPIP), 32, 52 (GUE).
static inline uint16_t packet_tunnel_overhead(enum packet_tunnel_kind kind, bool outer_is_v6)
{
	return (uint16_t)((outer_is_v6 ? 40 : 20) + (kind == PACKET_TUNNEL_GUE ? 12 : 0));
}

// Puts a new Ethernet header and the outer headers, every byte of them, in front of the IP packet at p->l3_offset (PACKET_FLOW,
// PACKET_FRAGMENT, PACKET_ICMP_ERROR, ...). TOS or traffic class are copied with their ECN bits (RFC 6040 4.1), TTL is 64, flow label 0;
// outer DF is the inner one's (set for IPv6), the id 0 with DF. Ethernet padding goes. Nothing but headers is written: a first
// segment without headroom has its bytes moved back when its tail has room. False: no room in the first segment, beyond 65,535
// bytes, or a last segment of nothing but padding; nothing changed then. The caller has checked the MTU. packet_parse's offsets
// are of no use afterwards. `tunnel` is of the kind of the name.
// Cost, as a share of packet_rewrite_fullnat over IPv4 in the same run: 0.9 over IPv4, 0.7 over IPv6.
bool packet_rewrite_ipip(struct rte_mbuf *mbuf, const struct packet *p,
	const struct packet_tunnel *tunnel, const struct packet_outer *outer);
// GUE variant 0 (draft-ietf-intarea-gue-09) without options over UDP from 49152..65535 to 6080. The UDP checksum is 0 over IPv4, and a
// right one over IPv6, where receivers take 0 only when told to (RFC 6935 5): rewrite_gue.c says how. Cost: 1.2 and 1.6.
bool packet_rewrite_gue(struct rte_mbuf *mbuf, const struct packet *p,
	const struct packet_tunnel *tunnel, const struct packet_outer *outer);
// Both MACs, nothing else: padding and TTL stay.
void packet_rewrite_l2dsr(struct rte_mbuf *mbuf, const struct packet_macs *macs);

// ---------------------------------------------------------------- MSS
// Lowers each MSS option above `max` of a segment with SYN, and its checksum. The walk ends, as a receiver's does, at the end of the options
// and at one that has no or too great a length. No option is put in. True: changed.
bool packet_clamp_mss(struct rte_mbuf *mbuf, const struct packet *p, uint16_t max);

// ---------------------------------------------------------------- fragments
// What was decided about the first fragment of a datagram, for the later ones, which have no ports; and a few later ones that came before
// their first. fragments.c has the drawing. Placed memory, bounded, one owner. [worker]
struct fragments;

#define FRAGMENTS_DATAGRAMS 4096u // the plain size: 557 KB
#define FRAGMENTS_WAYS      8u    // datagrams that share a set: the least number there can be
// Hosts wait 30 to 60 s for the rest (RFC 1122 3.3.2, RFC 8200 4.5); what is still on its way after 5 s is not worth the risk that
// a fast sender uses the identification again (RFC 4963).
#define FRAGMENTS_LIFE_NS (5 * CLOCK_S)
// A later fragment that came first is overtaken by its first within a round trip or never.
#define FRAGMENTS_HOLD_NS     CLOCK_S
#define FRAGMENTS_HELD_MAX    128u // mbufs of all datagrams
#define FRAGMENTS_HELD_EACH   8u   // and of one: 8 KB in Ethernet frames, sent last first
#define FRAGMENTS_RANGES      11u  // that came of one datagram, with gaps between
#define FRAGMENTS_NO_DATAGRAM UINT32_MAX

enum fragments_kind {
	FRAGMENTS_FIRST, // decide by its tuple, then fragments_settle, before the next is shown
	FRAGMENTS_KNOWN, // goes as `decision` says
	FRAGMENTS_HELD, // the mbuf is kept here; `given_up` in its place is to be dropped, when there is one
	FRAGMENTS_REFUSED, // drop: `reason`
};

struct fragments_answer {
	uint8_t kind;      // enum fragments_kind
	uint8_t reason;    // REFUSED: enum drop_reason
	uint32_t datagram; // FIRST: for fragments_settle
	uint64_t decision; // KNOWN: what was settled
	struct rte_mbuf *
		given_up; // HELD: one that waited longest and made room (DROP_FRAGMENT_NO_FIRST), or NULL
};

// Bytes for n_datagrams: a power of two, FRAGMENTS_WAYS..2^20. 64-byte aligned.
size_t fragments_size(uint32_t n_datagrams);
// 0, or -EINVAL: no such number, or size too small. *out points into mem. The key keeps an outsider from filling one set.
int fragments_init(void *mem, size_t size, uint32_t n_datagrams, const struct hash_key *key,
	struct fragments **out);
// Shows one fragment (PACKET_FRAGMENT of TCP, UDP or SCTP; in IPv6 a later one of any protocol). Show them one at a time, in the order in
// which they came. A first fragment is always FIRST unless its datagram is refused: what its tuple may do is decided
// anew each time. Refused by name: overlaps, with the whole datagram (RFC 5722, for IPv4 too); duplicates, alone.
// Cost: two or three lines, FRAGMENTS_RANGES steps. now_ns does not go back.
void fragments_see(struct fragments *f, const struct packet *p, struct rte_mbuf *mbuf,
	uint64_t now_ns, struct fragments_answer *out);
// What became of a first fragment, in 64 bits that only the caller understands (drops too: its later fragments would otherwise wait).
// Writes the mbufs that waited for it, in the order in which they came, to `released` (FRAGMENTS_HELD_EACH of room) and returns how
// many: *gives* them back, to be parsed and shown again, after their first.
uint32_t fragments_settle(struct fragments *f, const struct fragments_answer *first,
	uint64_t decision, struct rte_mbuf **released);
// Gives back mbufs that waited too long, to be dropped, DROP_FRAGMENT_NO_FIRST. Call between bursts; UINT64_MAX as the time empties it.
// Returns how many were written, at most max.
uint32_t fragments_expire(
	struct fragments *f, uint64_t now_ns, struct rte_mbuf **out, uint32_t max);
// Mbufs that are kept now.
uint32_t fragments_n_held(const struct fragments *f);

// Rewrite of NAT modes for a fragment: the first one as packet_rewrite_fullnat (ports, and the L4 checksum of the whole, by its
// difference); of a later one only addresses, TTL or hop limit and the IPv4 checksum: nothing else of nat is read but MACs.
void packet_rewrite_fragment(
	struct rte_mbuf *mbuf, const struct packet *p, const struct packet_nat *nat);

// ---------------------------------------------------------------- SCTP (sctp.c, crc32c.c)
// packet_parse takes SCTP (RFC 9260) for a flow: ports, and in tcp_flags what the first chunk would be in TCP: INIT is SYN, INIT ACK is SYN
// and ACK, SHUTDOWN and SHUTDOWN ACK are FIN, ABORT and SHUTDOWN COMPLETE are RST, all else is ACK. So flow_tcp_next() and the
// pipeline's rules for a SYN serve both. Refused: SCTP_TRUNCATED (no chunk header), SCTP_BAD_CHUNK (first chunk overruns or is too short,
// verification tag 0 but with INIT, INIT not alone or without an initiate tag). All of an SCTP packet's segments count for its CRC.
bool packet_sctp_checksum_ok(const struct rte_mbuf *mbuf, const struct packet *p);
// For a closed port or no known flow, RFC 9260 8.4: ABORT, for an INIT with its initiate tag and T 0, else with the tag reflected and T 1;
// SHUTDOWN COMPLETE for a SHUTDOWN ACK. Never (false) to ABORT, SHUTDOWN COMPLETE, COOKIE ACK, a stale cookie error, or chunks that are
// malformed or more than 64. Answers in place as those above do.
bool packet_answer_sctp_abort(struct rte_mbuf *mbuf, const struct packet *p);
// Chooses the fastest CRC32c that this processor runs ("scalar", "sse4.2", "pclmul"); as flow_select_variant(). Until it is called the scalar one serves.
const char *packet_select_variant(const char *name);

// ---------------------------------------------------------------- across families
// fullnat from an IPv6 VIP to an IPv4 backend, or the other way round: the IP header becomes one of the other family (RFC 7915 4.1, 5.1: TOS is
// traffic class, flow label 0, DF set, id 0), MACs, TTL less one, ports, L4 checksum (incremental; UDP that has none over IPv4 gets one over
// all segments). PACKET_FLOW; `nat` has addresses of the other family. IPv6 extension headers, an atomic fragment's
// too, and Ethernet padding go. Towards IPv6 a packet grows by 20 bytes, back it shrinks: the caller checks MTU and TTL. False: no
// room (as with packet_rewrite_ipip), nothing changed.
bool packet_rewrite_cross(
	struct rte_mbuf *mbuf, const struct packet *p, const struct packet_nat *nat);

// An ICMP error about a packet that packet_rewrite_cross made, for its sender: ICMP becomes ICMPv6 (RFC 7915 4.2, 4.3) or the other way (5.2, 5.3),
// the quoted packet too, cut to 1280 or 576 bytes in all; MTU 20 more or less, not below 1280 or 576. outer and inner as for
// packet_rewrite_icmp_error, of the other family: outer->src is ours, as the other family knows no router of this one. Outer TTL
// less one. One segment (packet_detach_tail, after packet_l4_checksum_ok). DROP_NONE, or with nothing changed
// DROP_ICMP_TYPE (has no translation) or DROP_NO_HEADROOM (up to 40 bytes more are needed).
enum drop_reason packet_rewrite_icmp_error_cross(struct rte_mbuf *mbuf, const struct packet *p,
	const struct packet *quoted, const struct packet_nat *outer,
	const struct packet_nat *inner);

// ---------------------------------------------------------------- errors from the path of a tunnel
struct packet_quoted_tunnel {
	struct packet inner; // as packet_parse_quoted has it: the client's packet as it came
	struct address src;  // outer header: ours
	struct address dst;  // and the backend's
	uint16_t overhead;   // packet_tunnel_overhead
	uint8_t kind;        // enum packet_tunnel_kind
	bool is_v6;          // the outer header
};
// An ICMP error to a tunnel's source: finds in the outer packet that it quotes the inner one. False: not quoted to the inner ports (many
// IPv4 routers of old quote 8 bytes), no tunnel of ours, or implausible as in packet_parse_quoted. The caller finds out whether
// inner.dst is a VIP, and whether a packet of that flow would have gone to `dst`.
bool packet_parse_quoted_tunnel(
	const struct rte_mbuf *mbuf, const struct packet *p, struct packet_quoted_tunnel *out);
// Turns that error into one from the VIP to the client, quoting what is there of the inner packet (RFC 2003 4, RFC 2473 8): too big stays too big, with
// what the tunnel adds taken off the MTU, not below 576 or 1280; other unreachables and time exceeded in transit become host
// unreachable. False, with nothing changed: an error of another kind, or several segments (packet_detach_tail). MACs swapped.
bool packet_answer_relayed_error(
	struct rte_mbuf *mbuf, const struct packet *p, const struct packet_quoted_tunnel *quoted);

// ---------------------------------------------------------------- VLAN (vlan.c)
// For receive and transmit, around the pipeline, which sees untagged frames only.
// Takes off one 802.1Q tag with VLAN id vid (1..4094), whatever its priority bits, also one that the port took off already
// (RTE_MBUF_F_RX_VLAN_STRIPPED, vlan_tci; the flags are taken back). DROP_NONE, or why not, and then nothing changed: VLAN_UNTAGGED (id 0 too, which is a
// priority and no VLAN), VLAN_MISMATCH (802.1ad tags too), ETH_TRUNCATED, SEGMENTED_HEADERS. A second tag stays where it is: packet_parse calls it PACKET_OTHER.
enum drop_reason packet_vlan_strip(struct rte_mbuf *mbuf, uint16_t vid);
// Puts an 802.1Q tag behind the MACs: priority, drop eligible and VLAN id as in `tci`, host order. 4 bytes of headroom; without them the rest of the first
// segment moves back, if its tail has room. False: neither, or the MACs are not in the first segment; nothing changed.
bool packet_vlan_insert(struct rte_mbuf *mbuf, uint16_t tci);

// ---------------------------------------------------------------- the client's address for a backend of fullnat (toa.c, proxy.c, segment.c)
// All take a TCP packet (PACKET_FLOW) as packet_parse left it, or packet_rewrite_fullnat after it: none reads addresses or ports, so they may be called
// before or after, but before packet_rewrite_cross, which moves the headers. They put in, take out and change incrementally: a wrong checksum
// stays wrong. Payload is never moved: headers go into the headroom. l3_length, l4_length and tcp_flags of *p follow; all offsets stay.
enum packet_growth {
	PACKET_GROWN,
	PACKET_GROWTH_NO_OPTIONS,  // the TCP header would exceed 60 bytes
	PACKET_GROWTH_TOO_LONG,    // the IP packet would exceed the MTU
	PACKET_GROWTH_NO_HEADROOM, // in the first segment
};

// TOA: TCP option 254 with the client's port and address, 8 (IPv4) or 20 bytes, as the first option. Unless PACKET_GROWN, nothing changed: the
// caller counts it and sends the segment without.
enum packet_growth packet_toa_insert(struct rte_mbuf *mbuf, struct packet *p,
	const struct address *client, rte_be16_t port, uint16_t mtu);

// PROXY protocol v2, command PROXY, TCP over the family of the client's connection: 28 (IPv4) or 52 bytes.
struct packet_proxy {
	uint8_t length; // even
	uint8_t bytes[52];
};
struct packet_endpoint {
	struct address address;
	rte_be16_t port;
};
// client and vip as the client used them, of one family.
void packet_proxy_build(struct packet_proxy *out, const struct packet_endpoint *client,
	const struct packet_endpoint *vip);
// Puts the header in front of the payload, if any, of a segment whose sequence number is the client's initial one + 1: the first, or a retransmission of it. The
// sequence number stays; an urgent pointer moves. TOO_LONG, NO_HEADROOM: nothing changed.
enum packet_growth packet_proxy_insert(
	struct rte_mbuf *mbuf, struct packet *p, const struct packet_proxy *header, uint16_t mtu);
// For TOO_LONG: the header alone, as packet_cut_payload and then packet_proxy_insert do; the client sends its bytes again, as nobody acknowledges them.
// *out_tail: segments to be freed, or NULL. NO_HEADROOM: nothing changed.
enum packet_growth packet_proxy_cut_and_insert(struct rte_mbuf *mbuf, struct packet *p,
	const struct packet_proxy *header, struct rte_mbuf **out_tail);
// Takes the payload away, as from a SYN of TCP Fast Open towards a backend that is to see a header first; Ethernet padding too, and a FIN that stood behind
// payload. Gives further segments, to be freed, or NULL.
struct rte_mbuf *packet_cut_payload(struct rte_mbuf *mbuf, struct packet *p);

// Client to backend, behind the header (sequence number other than the initial one + 1; a reset's too): by the header's length.
void packet_shift_sequence(struct rte_mbuf *mbuf, const struct packet *p, int32_t delta);
// Backend to client, all segments from SYN-ACK on: the acknowledgement and both edges of SACK blocks, less n. `first`, the client's initial
// sequence number + 1 in host order, until the backend has acknowledged the whole header: numbers within the header, which the client never sent,
// become *first (a SACK block within it is then empty, which receivers ignore). NULL afterwards: 4 GB later the same numbers are the
// client's own. True: the header is acknowledged. SACK options of wrong length stay as they are, as receivers ignore them.
bool packet_shift_acknowledgement(
	struct rte_mbuf *mbuf, const struct packet *p, uint32_t n, const uint32_t *first);
// An ICMP error that quotes a TCP segment that was sent to the backend, before or after packet_rewrite_icmp_error: the quoted sequence number as the client
// knows it, by which it decides whether to believe the error (RFC 5927 4.1). n and first as above.
void packet_shift_quoted_sequence(struct rte_mbuf *mbuf, const struct packet *p,
	const struct packet *quoted, uint32_t n, const uint32_t *first);
