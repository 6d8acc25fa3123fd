#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""What a backend of a tunnel mode does when its kernel has no ipip or fou device: takes IP-in-IP (protocols 4 and 41, over IPv4 and
IPv6) and GUE variant 0 (UDP 6080) from sockets and gives the inner packets to the kernel by a TUN device. Prints `ready`."""
import fcntl
import os
import selectors
import socket
import struct
import subprocess

GUE_PORT = 6080
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000


def inner_of(kind, data):
    """The inner packet, or None. kind: "raw4" (an IPv4 header in front), "raw6" (none), "gue"."""
    if kind == "raw4":
        return data[(data[0] & 15) * 4:]
    if kind == "raw6":
        return data
    version, control, n_words = data[0] >> 6, data[0] & 0x20, data[0] & 0x1F
    return data[4 + 4 * n_words:] if version == 0 and not control else None


def main():
    tun = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH", b"dec0", IFF_TUN | IFF_NO_PI))
    subprocess.run(["ip", "link", "set", "dec0", "mtu", "1500", "up"], check=True)
    wanted = selectors.DefaultSelector()
    for family, kind in ((socket.AF_INET, "raw4"), (socket.AF_INET6, "raw6")):
        for protocol in (4, 41):
            raw = socket.socket(family, socket.SOCK_RAW, protocol)
            raw.setsockopt(socket.SOL_SOCKET, 33, 1 << 24)  # SO_RCVBUFFORCE
            wanted.register(raw, selectors.EVENT_READ, kind)
        udp = socket.socket(family, socket.SOCK_DGRAM)
        if family == socket.AF_INET6:
            udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        udp.setsockopt(socket.SOL_SOCKET, 33, 1 << 24)
        udp.bind(("::" if family == socket.AF_INET6 else "0.0.0.0", GUE_PORT))
        wanted.register(udp, selectors.EVENT_READ, "gue")
    print("ready", flush=True)
    while True:
        for key, _ in wanted.select():
            inner = inner_of(key.data, key.fileobj.recv(65535))
            if inner:
                try:
                    os.write(tun, inner)
                except OSError:
                    pass  # not an IP packet


if __name__ == "__main__":
    main()
