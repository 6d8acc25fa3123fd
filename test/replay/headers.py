# SPDX-License-Identifier: BSD-3-Clause
"""Where things are in a frame, from its bytes alone: scapy takes payloads for what they are not."""


def l4_of(frame, ip=14):
    """Protocol, offset of L4, and whether it is a later fragment's payload. The Ethernet type says the family, of what an error
    quotes the version."""
    if (frame[12:14] == b"\x08\x00") if ip == 14 else frame[ip] >> 4 != 6:
        return frame[ip + 9], ip + max(frame[ip] & 15, 5) * 4, bool(int.from_bytes(frame[ip + 6:ip + 8], "big") & 0x1fff)
    protocol, at = frame[ip + 6], ip + 40
    while protocol in (0, 43, 44, 60) and at + 8 <= len(frame):
        if protocol == 44 and int.from_bytes(frame[at + 2:at + 4], "big") & 0xfff8:
            return frame[at], at + 8, True
        step = 8 if protocol == 44 else (frame[at + 1] + 1) * 8
        protocol, at = frame[at], at + step
    return protocol, at, False


def headers_end(frame, n_quoted=20):
    """Where the headers end that sluice reads: of L4 with its options; of the L4 header that an error quotes n_quoted bytes, where it
    is TCP and has as many (without the ports it is no quote of ours, without the rest only its checksum stays); n_quoted 0: the
    ICMP header alone."""
    if len(frame) < 34 or frame[12:14] not in (b"\x08\x00", b"\x86\xdd"):
        return min(14, len(frame))
    protocol, at, is_later = l4_of(frame)
    if is_later:
        return at
    if protocol == 6 and len(frame) > at + 12:
        return at + max(frame[at + 12] >> 4, 5) * 4
    errors = {1: (3, 11, 12), 58: (1, 2, 3, 4)}.get(protocol, ())
    if n_quoted and len(frame) > at + 8 and frame[at] in errors:
        protocol, at, _ = l4_of(frame, at + 8)
        return min(at + (n_quoted if protocol == 6 else 8), len(frame))
    if protocol == 132 and len(frame) >= at + 20 and frame[at + 12] == 1:
        return at + 20  # the initiate tag of an INIT
    return at + {6: 20, 17: 8, 1: 8, 58: 8, 132: 16}.get(protocol, 0)


def inner_of(frame):
    """The IP packet of a frame, without Ethernet padding."""
    frame = bytes(frame)
    length = int.from_bytes(frame[16:18], "big") if frame[14] >> 4 == 4 else \
        int.from_bytes(frame[18:20], "big") + 40
    return frame[14:14 + length]


# ---------------------------------------------------------------- checksums, from nothing

def internet_sum(data):
    data = data + b"\0" * (len(data) & 1)
    total = sum(int.from_bytes(data[k:k + 2], "big") for k in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return total


def with_checksum(src, dst, protocol, l4):
    """TCP or UDP with its checksum, between packed addresses of one family."""
    at = {6: 16, 17: 6}[protocol]
    l4 = l4[:at] + b"\0\0" + l4[at + 2:]
    pseudo = src + dst + len(l4).to_bytes(4, "big") + protocol.to_bytes(4, "big")
    value = ~internet_sum(pseudo + l4) & 0xffff
    if protocol == 17 and value == 0:
        value = 0xffff
    return l4[:at] + value.to_bytes(2, "big") + l4[at + 2:]


def crc32c(data):
    """RFC 9260 appendix A, bit by bit."""
    crc = 0xffffffff
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82f63b78 if crc & 1 else 0)
    return (crc ^ 0xffffffff).to_bytes(4, "little")


def with_crc(l4):
    return l4[:8] + crc32c(l4[:8] + b"\0" * 4 + l4[12:]) + l4[12:]
