#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""One client with many sockets. Prints one JSON object.

load.py requests HOST PORT COUNT CONCURRENCY [PATH]      COUNT requests, a new connection each
load.py rate HOST PORT PER_SECOND SECONDS [PATH]         new connections at a rate; each failure with its time
load.py download HOST PORT PATH COUNT [BYTES_PER_SECOND] COUNT long downloads, sha256 of each
load.py hold HOST PORT COUNT HOLD SECONDS                COUNT connections held for about HOLD seconds each, with requests
                                                         on each all the time, opened again until SECONDS are over

SIGTERM ends rate and hold before their time: nothing new is opened, what is under way is finished and counted.

rate and hold share the machine with what they measure: they run as generators over an edge-triggered epoll, at 130 us a connection
where the streams of asyncio take 320 us.
"""
import asyncio
import hashlib
import heapq
import itertools
import json
import re
import select
import signal
import socket
import sys
import time

TIMEOUT_S = 10.0
PATIENCE_S = 5.0    # of rate and hold, for each step
BACKEND, LENGTH = re.compile(rb"(?i)\r\nx-backend: ([^\r]*)"), re.compile(rb"(?i)\r\ncontent-length: (\d+)")


async def fetch(host, port, path, timeout=TIMEOUT_S, pace=0):
    """(backend, latency_ms, error, sha256)"""
    begun = time.monotonic()
    writer = None
    backend = "?"
    try:
        reader, writer = await asyncio.wait_for(asyncio.open_connection(host, port), timeout)
        shown = f"[{host}]" if ":" in host else host
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {shown}\r\nConnection: close\r\n\r\n".encode())
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), timeout)
        lines = head.decode("latin-1").split("\r\n")
        status = int(lines[0].split()[1])
        headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines[1:] if ": " in line)}
        backend = headers.get("x-backend", "?")
        length = int(headers.get("content-length", "-1"))
        digest, n = hashlib.sha256(), 0
        while True:
            piece = await asyncio.wait_for(reader.read(65536), timeout)
            if not piece:
                break
            digest.update(piece)
            n += len(piece)
            if pace:
                await asyncio.sleep(len(piece) / pace)
        error = None
        if status != 200:
            error = f"status {status}"
        elif length >= 0 and n != length:
            error = f"{n} of {length} bytes"
        return backend, (time.monotonic() - begun) * 1e3, error, digest.hexdigest()
    except (OSError, asyncio.TimeoutError, asyncio.IncompleteReadError, ValueError, IndexError) as e:
        return backend, (time.monotonic() - begun) * 1e3, f"{type(e).__name__}: {e}", ""
    finally:
        if writer is not None:
            writer.close()


def summary(results):
    backends, errors, latencies = {}, {}, []
    for backend, ms, error, _ in results:
        if error:
            errors[error] = errors.get(error, 0) + 1
            continue
        backends[backend] = backends.get(backend, 0) + 1
        latencies.append(ms)
    latencies.sort()

    def at(q):
        return round(latencies[min(len(latencies) - 1, int(len(latencies) * q))], 3) if latencies else None
    return {"requests": len(results), "failed": sum(errors.values()), "errors": errors,
            "backends": dict(sorted(backends.items())), "p50_ms": at(0.5), "p99_ms": at(0.99)}


async def requests(host, port, count, concurrency, path="/"):
    results, left = [], int(count)

    async def lane():
        nonlocal left
        while left > 0:
            left -= 1
            results.append(await fetch(host, port, path))
    await asyncio.gather(*(lane() for _ in range(int(concurrency))))
    return summary(results)


class Loop:
    """Runs generators. One yields how long it is ready to wait: for its socket (then it is sent True) or that time (False)."""

    def __init__(self):
        self.epoll, self.tasks, self.timers, self.serial = select.epoll(), {}, [], itertools.count()
        self.results, self.n_running, self.is_stopped = [], 0, False
        signal.signal(signal.SIGTERM, self._stop)

    def _stop(self, *_):
        self.is_stopped = True

    def start(self, generator):
        self.n_running += 1
        self.advance([generator, 0], None)

    def advance(self, task, is_ready):
        task[1] = next(self.serial)     # a timer of an earlier wait has another number
        try:
            wait_s = task[0].send(is_ready)
        except StopIteration as e:
            self.n_running -= 1
            if e.value is not None:
                self.results.append(e.value)
            return
        if isinstance(wait_s, socket.socket):
            self.tasks[wait_s.fileno()] = task
            self.epoll.register(wait_s, select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET)
            wait_s = PATIENCE_S
        heapq.heappush(self.timers, (time.monotonic() + wait_s, task[1], task))

    def run(self):
        while self.n_running:
            wait_s = max(0.0, self.timers[0][0] - time.monotonic()) if self.timers else 1.0
            for fd, _ in self.epoll.poll(wait_s):
                self.advance(self.tasks[fd], True)
            now = time.monotonic()
            while self.timers and self.timers[0][0] <= now:
                _, number, task = heapq.heappop(self.timers)
                if task[1] == number:
                    self.advance(task, False)

    # ------------------------------------------------------------ steps of a generator
    @staticmethod
    def connect(host, port):
        """Yields until connected; gives the socket. An edge before that is none of ours: it is registered once it connects."""
        sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            sock.connect_ex((host, port))
            if not (yield sock):
                raise TimeoutError("connecting")
            error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if error:
                raise OSError(error, "connecting")
        except BaseException:
            sock.close()
            raise
        return sock

    @staticmethod
    def receive(sock):
        """Yields until there is something; b"": the end."""
        while True:
            try:
                return sock.recv(65536)
            except BlockingIOError:
                if not (yield PATIENCE_S):
                    raise TimeoutError("waiting for an answer") from None


def request_text(host, path, extra=""):
    return f"GET {path} HTTP/1.1\r\nHost: {f'[{host}]' if ':' in host else host}\r\n{extra}\r\n".encode()


def parse(head):
    """(backend, length) of an answer's head; other answers than 200 are errors."""
    if head[9:12] != b"200":
        raise ValueError(f"status {head[9:12].decode('latin-1')}")
    backend, length = BACKEND.search(head), LENGTH.search(head)
    return backend.group(1).decode("latin-1") if backend else "?", int(length.group(1))


def receive_answer(sock):
    """Yields until one answer is whole; gives its backend."""
    answer = b""
    while b"\r\n\r\n" not in answer:
        piece = yield from Loop.receive(sock)
        if not piece:
            raise EOFError(f"the end after {len(answer)} bytes")
        answer += piece
    head, _, body = answer.partition(b"\r\n\r\n")
    backend, length = parse(head)
    n = len(body)
    while n < length:
        piece = yield from Loop.receive(sock)
        if not piece:
            raise EOFError(f"{n} of {length} bytes")
        n += len(piece)
    return backend


def short_one(host, port, text):
    """(backend, latency_ms, error, when)"""
    when, begun, sock, backend, error = time.time(), time.monotonic(), None, "?", None
    try:
        sock = yield from Loop.connect(host, port)
        sock.send(text)
        backend = yield from receive_answer(sock)
        if (yield from Loop.receive(sock)):
            raise ValueError("more than the answer")
    except (OSError, EOFError, ValueError, AttributeError) as e:
        error = f"{type(e).__name__}: {e}" + (f" (port {sock.getsockname()[1]})" if sock else "")
    finally:
        if sock is not None:
            sock.close()
    return backend, (time.monotonic() - begun) * 1e3, error, when


def open_at_rate(loop, per_second, seconds, make):
    begun = time.monotonic()
    for k in range(int(per_second * seconds)):
        wait_s = begun + k / per_second - time.monotonic()
        if wait_s > 0:
            yield wait_s
        if loop.is_stopped:
            return
        loop.start(make())


def rate(host, port, per_second, seconds, path="/"):
    loop, text = Loop(), request_text(host, path, "Connection: close\r\n")
    first = time.time()
    loop.start(open_at_rate(loop, float(per_second), float(seconds), lambda: short_one(host, port, text)))
    loop.run()
    out = summary(loop.results)
    out["failures"] = [{"at": when, "backend": backend, "error": error, "ms": ms} for backend, ms, error, when in loop.results if error]
    out["first_at"], out["last_at"] = first, max((r[3] for r in loop.results), default=first)
    return out


async def download(host, port, path, count, pace="0"):
    results = await asyncio.gather(*(fetch(host, port, path, 30, int(pace)) for _ in range(int(count))))
    out = summary(results)
    out["downloads"] = [{"backend": r[0], "error": r[2], "sha256": r[3]} for r in results]
    return out


def rest(sock, pause_s):
    """Yields for that long; the other side must not end it meanwhile. An edge may be left of what has been read."""
    end = time.monotonic() + pause_s
    while (left_s := end - time.monotonic()) > 0:
        if (yield left_s):
            try:
                raise EOFError("more than the answer" if sock.recv(4096) else "ended by the other side")
            except BlockingIOError:
                pass


def held_one(loop, host, port, hold_s, pause_s):
    """(backend, latency_ms of the last request, error, number of requests)"""
    sock, backend, ms, error, n, text = None, "?", 0.0, None, 0, request_text(host, "/")
    try:
        sock = yield from Loop.connect(host, port)
        end = time.monotonic() + hold_s
        while time.monotonic() < end and not loop.is_stopped:
            begun = time.monotonic()
            sock.send(text)
            now = yield from receive_answer(sock)
            if backend not in ("?", now):
                raise ValueError(f"moved from {backend} to {now}")
            backend, ms, n = now, (time.monotonic() - begun) * 1e3, n + 1
            yield from rest(sock, pause_s)
    except (OSError, EOFError, ValueError, AttributeError) as e:
        error = f"{type(e).__name__}: {e}" + (f" (port {sock.getsockname()[1]})" if sock else "")
    finally:
        if sock is not None:
            sock.close()
    return backend, ms, error, n


def lane(loop, host, port, hold_s, until, pause_s, first_s):
    yield first_s
    while time.monotonic() < until and not loop.is_stopped:
        loop.results.append((yield from held_one(loop, host, port, hold_s, pause_s)))


def hold(host, port, count, hold_s, seconds):
    """200 beginnings a second at first; ends are spread over a third of the time that one is held."""
    loop, count, hold_s = Loop(), int(count), float(hold_s)
    until, pause_s, spread_s = time.monotonic() + float(seconds), max(0.5, count / 400), min(hold_s, count / 200)
    for k in range(count):
        loop.start(lane(loop, host, port, hold_s * (0.7 + 0.6 * (k % 7) / 6), until, pause_s, spread_s * k / count))
    loop.run()
    return {**summary(loop.results), "exchanges": sum(r[3] for r in loop.results)}


def main():
    verb, host, port, *rest = sys.argv[1:]
    jobs = {"requests": requests, "rate": rate, "download": download, "hold": hold}
    out = jobs[verb](host, int(port), *rest)
    print(json.dumps(asyncio.run(out) if asyncio.iscoroutine(out) else out))


if __name__ == "__main__":
    main()
