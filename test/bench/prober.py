#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Which server answers at a VIP, asked a thousand times a second, each time as a new flow.

prober.py serve NAME PORT                      UDP server that answers every datagram with it and its own name
prober.py ask VIP PORT PER_SECOND ADDRESS...   one line for each change of who answers: "SENT NAME", SENT = CLOCK_MONOTONIC at which the
                                               first datagram that NAME answered was sent; ends at the end of its standard input

A flow is a pair of source address and port that was not used before for as long as possible: addresses times 50,000 ports.
"""
import os
import select
import socket
import sys
import time

KEEP_S = 2.0  # how long an answer is waited for
PORTS = range(10000, 60000)


def serve(name, port):
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 21)
    sock.bind(("0.0.0.0", int(port)))
    while True:
        text, peer = sock.recvfrom(2048)
        sock.sendto(text + b" " + name.encode(), peer)


class Asker:
    def __init__(self, vip, port, per_second, addresses):
        self.peer, self.gap, self.addresses = (vip, int(port)), 1 / float(per_second), addresses
        self.poll, self.open, self.queue, self.n = select.epoll(), {}, [], 0
        self.name, self.newest = None, 0.0

    def ask(self, now):
        while True:
            source = (self.addresses[self.n % len(self.addresses)], PORTS[(self.n // len(self.addresses)) % len(PORTS)])
            self.n += 1
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            try:
                sock.bind(source)
                break
            except OSError:
                sock.close()  # taken by somebody else: the next one
        try:
            sock.sendto(b"%.7f" % now, self.peer)
        except OSError:
            sock.close()
            return
        self.open[sock.fileno()] = sock
        self.poll.register(sock, select.EPOLLIN)
        self.queue.append((now, sock))

    def hear(self, patience):
        """False: the standard input ended."""
        for fd, _ in self.poll.poll(patience):
            if fd == sys.stdin.fileno():
                if not os.read(fd, 100):
                    return False
                continue
            try:
                sent, name = self.open[fd].recv(2048).decode().split()
            except OSError:
                continue  # refused: an ICMP error
            self.note(float(sent), name)
        return True

    def note(self, sent, name):
        """Answers overtake each other: only one to a later question tells of a change."""
        if sent < self.newest:
            return
        self.newest = sent
        if name != self.name:
            self.name = name
            print(f"{sent:.7f} {name}", flush=True)

    def forget(self, now):
        while self.queue and self.queue[0][0] < now - KEEP_S:
            _, sock = self.queue.pop(0)
            del self.open[sock.fileno()]
            self.poll.unregister(sock)
            sock.close()

    def run(self):
        self.poll.register(sys.stdin, select.EPOLLHUP | select.EPOLLIN)
        due = time.monotonic()
        while self.hear(max(0.0, due - time.monotonic())):
            now = time.monotonic()
            if now >= due:
                self.ask(now)
                due = max(due + self.gap, now - 5 * self.gap)
                self.forget(now)


def main():
    verb, *rest = sys.argv[1:]
    if verb == "serve":
        serve(*rest)
    else:
        Asker(*rest[:3], rest[3:]).run()


if __name__ == "__main__":
    main()
