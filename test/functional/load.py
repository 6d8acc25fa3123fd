#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""One client with many sockets. Prints one JSON object.

load.py requests HOST PORT COUNT CONCURRENCY [PATH]      COUNT requests, a new connection each
load.py rate HOST PORT PER_SECOND SECONDS [PATH]         new connections at a rate; each failure with its time
load.py download HOST PORT PATH COUNT [BYTES_PER_SECOND] COUNT long downloads, sha256 of each
load.py hold HOST PORT COUNT HOLD SECONDS                COUNT connections held for about HOLD seconds each, with requests
                                                         on each all the time, opened again until SECONDS are over
"""
import asyncio
import hashlib
import json
import sys
import time

TIMEOUT_S = 10.0


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


async def rate(host, port, per_second, seconds, path="/"):
    begun, tasks, times = time.monotonic(), [], []
    for k in range(int(float(per_second) * float(seconds))):
        wait = begun + k / float(per_second) - time.monotonic()
        if wait > 0:
            await asyncio.sleep(wait)
        times.append(time.time())
        tasks.append(asyncio.create_task(fetch(host, port, path, timeout=5)))
    results = await asyncio.gather(*tasks)
    out = summary(results)
    out["failures"] = [{"at": t, "backend": r[0], "error": r[2], "ms": r[1]} for t, r in zip(times, results) if r[2]]
    out["first_at"], out["last_at"] = times[0], times[-1]
    return out


async def download(host, port, path, count, pace="0"):
    results = await asyncio.gather(*(fetch(host, port, path, 30, int(pace)) for _ in range(int(count))))
    out = summary(results)
    out["downloads"] = [{"backend": r[0], "error": r[2], "sha256": r[3]} for r in results]
    return out


async def hold_one(host, port, hold_s, pause_s):
    """(backend, latency_ms of the last request, error, "")"""
    writer, backend, ms = None, "?", 0.0
    try:
        reader, writer = await asyncio.wait_for(asyncio.open_connection(host, port), 5)
        end = time.monotonic() + hold_s
        while time.monotonic() < end:
            begun = time.monotonic()
            writer.write(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
            fields = {k.lower(): v for k, v in (x.split(": ", 1) for x in head.decode("latin-1").split("\r\n") if ": " in x)}
            await asyncio.wait_for(reader.readexactly(int(fields["content-length"])), 5)
            if backend not in ("?", fields["x-backend"]):
                return backend, ms, f"moved from {backend} to {fields['x-backend']}", ""
            backend, ms = fields["x-backend"], (time.monotonic() - begun) * 1e3
            await asyncio.sleep(pause_s)
        return backend, ms, None, ""
    except (OSError, asyncio.TimeoutError, asyncio.IncompleteReadError, ValueError, KeyError) as e:
        return backend, ms, f"{type(e).__name__}: {e}", ""
    finally:
        if writer is not None:
            writer.close()


async def hold(host, port, count, hold_s, seconds):
    results, end, pause_s = [], time.monotonic() + float(seconds), max(0.5, int(count) / 400)

    async def lane(k):
        await asyncio.sleep(float(hold_s) * k / int(count))
        while time.monotonic() < end:
            results.append(await hold_one(host, port, float(hold_s) * (0.7 + 0.6 * (k % 7) / 6), pause_s))
    await asyncio.gather(*(lane(k) for k in range(int(count))))
    return summary(results)


def main():
    verb, host, port, *rest = sys.argv[1:]
    jobs = {"requests": requests, "rate": rate, "download": download, "hold": hold}
    print(json.dumps(asyncio.run(jobs[verb](host, int(port), *rest))))


if __name__ == "__main__":
    main()
