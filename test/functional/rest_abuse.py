# SPDX-License-Identifier: BSD-3-Clause
"""Hostile requests and hostile clients: the server answers with one of the allowed words, or closes, and lives."""
import json
import random
import socket
import threading
import time

from rest_client import PATH, body_of, case, problem


def request(method, path, *headers, body=b"", close=True):
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", *headers] + (["Connection: close"] if close else [])
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def chunked(total, piece=65536):
    out = bytearray()
    while total > 0:
        n = min(piece, total)
        out += f"{n:x}\r\n".encode() + b" " * n + b"\r\n"
        total -= n
    return bytes(out + b"0\r\n\r\n")


def status_of(reply):
    return int(reply.split(b" ", 2)[1]) if reply.startswith(b"HTTP/1.1 ") else 0


JSON_TYPE = "Content-Type: application/json"


def hostile_requests():
    """(name, bytes, allowed statuses; 0 = closed without an answer)"""
    def put(body, *headers):
        return request("PUT", PATH, JSON_TYPE, f"Content-Length: {len(body)}", *headers, body=body)
    good = json.dumps(body_of()).encode()
    yield "dot segments", request("GET", "/api/v1/../../etc/passwd"), (404,)
    yield "escaped dots", request("GET", "/api/v1/%2e%2e/%2e%2e/etc/passwd"), (404,)
    yield "escaped slash", request("GET", "/api/v1%2fservices"), (404,)
    yield "escaped slash in a name", request("GET", "/api/v1/services/default%2fweb/x"), (404,)
    yield "NUL in the path", request("GET", "/api/v1/services/default/web%00x"), (400,)
    yield "raw NUL in the path", b"GET /livez\x00/../x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", (0, 200, 400, 404)
    yield "newline in the path", request("GET", "/api/v1/services/default/web%0d%0aX:y"), (400,)
    yield "overlong UTF-8 dot", request("GET", "/api/v1/%c0%ae%c0%ae/x"), (400,)
    yield "overlong UTF-8 slash", request("GET", "/api/v1%c0%afservices"), (400,)
    yield "half an escape", request("GET", "/api/v1/services/%2"), (400,)
    yield "bad escape", request("GET", "/api/v1/services/%zz"), (400,)
    yield "surrogate", request("GET", "/api/v1/services/%ed%a0%80"), (400,)
    yield "long path", request("GET", "/" + "a" * 8000), (414,)
    yield "longer path", request("GET", "/" + "a" * 60000), (0, 414, 431)
    yield "many segments", request("GET", "/a" * 500), (404,)
    yield "doubled slashes", request("GET", "//api//v1//services"), (404,)
    yield "trailing slash", request("GET", "/api/v1/services/"), (404,)
    yield "absolute form", request("GET", "http://localhost/livez"), (400,)
    yield "asterisk", request("OPTIONS", "*"), (204,)
    yield "asterisk for GET", request("GET", "*"), (405, 400)
    yield "authority form", request("CONNECT", "localhost:80"), (0, 400, 404, 405)
    yield "many parameters", request("GET", "/api/v1/services?" + "&".join(f"a{i}=1" for i in range(200))), (400,)
    yield "parameter twice", request("GET", "/api/v1/services?limit=1&limit=2"), (400,)
    yield "empty parameter name", request("PUT", PATH + "?=1", JSON_TYPE, "Content-Length: 2", body=b"{}"), (400,)
    yield "empty parameters", request("GET", "/api/v1/services?&&=&&"), (400,)
    yield "blank in a parameter name", request("GET", "/api/v1/services?limit+continue=1"), (400,)
    yield "bad escape in a parameter", request("GET", "/api/v1/services?limit=%f"), (400,)
    yield "NUL in a parameter", request("GET", "/api/v1/services?namespace=%00"), (400,)
    yield "huge number", request("GET", "/api/v1/events?after=" + "9" * 400), (400,)
    yield "negative number", request("GET", "/api/v1/events?after=-1"), (400,)
    yield "wrong method", request("DELETE", "/api/v1/services"), (405,)
    yield "odd method", request("GET/", "/livez"), (405,)
    yield "long method", request("A" * 3000, "/livez"), (0, 400, 405, 501)
    yield "no version", b"GET /livez\r\n\r\n", (0, 200, 400, 505)
    yield "version 3", b"GET /livez HTTP/3.0\r\nHost: x\r\n\r\n", (0, 200, 400, 505)
    yield "no host", b"GET /livez HTTP/1.1\r\n\r\n", (400,)
    yield "not HTTP", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200), (0, 400)
    yield "only newlines", b"\r\n" * 2000, (0, 400)
    yield "huge header", request("GET", "/livez", "X: " + "a" * 100000), (0, 413, 431)
    yield "many headers", request("GET", "/livez", *[f"X{i}: y" for i in range(5000)]), (0, 413, 431)
    yield "header without colon", request("GET", "/livez", "nonsense"), (0, 200, 400)
    yield "folded header", request("GET", "/livez", "X: a", " b"), (0, 200, 400)
    yield "length not a number", request("PUT", PATH, JSON_TYPE, "Content-Length: ten", body=good), (0, 400)
    yield "negative length", request("PUT", PATH, JSON_TYPE, "Content-Length: -1", body=good), (0, 400, 413)
    yield "length beyond 64 bits", request("PUT", PATH, JSON_TYPE, "Content-Length: 99999999999999999999999",
                                           body=good), (0, 400, 413)
    yield "length 2 GiB", request("PUT", PATH, JSON_TYPE, "Content-Length: 2147483648", body=good), (413,)
    yield "length and chunks", request("PUT", PATH, JSON_TYPE, "Content-Length: 5", "Transfer-Encoding: chunked",
                                       body=b"0\r\n\r\n"), (0, 400)
    yield "unknown coding", request("PUT", PATH, JSON_TYPE, "Transfer-Encoding: gzip", body=good), (0, 400, 411, 501)
    yield "bad chunk", request("PUT", PATH, JSON_TYPE, "Transfer-Encoding: chunked", body=b"xyz\r\n{}\r\n0\r\n\r\n"), \
        (0, 400)
    yield "chunk of 2^64", request("PUT", PATH, JSON_TYPE, "Transfer-Encoding: chunked",
                                   body=b"ffffffffffffffff\r\n{}"), (0, 400, 413)
    yield "chunked 10 MB", request("PUT", PATH, JSON_TYPE, "Transfer-Encoding: chunked", body=chunked(10 << 20)), (413,)
    yield "chunked 10 MB in small pieces", request("PUT", PATH, JSON_TYPE, "Transfer-Encoding: chunked",
                                                   body=chunked(3 << 20, 100)), (413,)
    yield "10 MB by length", put(b" " * (10 << 20)), (413,)
    yield "one byte too many", put(b" " * ((1 << 20) + 1)), (413,)
    yield "exactly the limit", put(good + b" " * ((1 << 20) - len(good)), ), (201,)
    yield "expects 10 MB", request("PUT", PATH, JSON_TYPE, "Content-Length: 10485760", "Expect: 100-continue"), (413,)
    yield "big body for a GET", request("GET", "/livez", "Content-Length: 5000000", body=b"x" * 5000000), (413,)
    yield "big body for nobody", request("PUT", "/nowhere", f"Content-Length: {1 << 20}", body=b"x" * (1 << 20)), (404,)
    yield "empty body", put(b""), (400,)
    yield "100,000 brackets", put(b"[" * 100000), (400,)
    yield "100,000 objects", put(b'{"a":' * 100000), (400,)
    yield "33 levels", put(b'{"a":' * 33 + b"1" + b"}" * 33), (400,)
    yield "32 levels", put(b'{"a":' * 32 + b"1" + b"}" * 32), (422,)
    yield "brackets in a string", put(json.dumps({"spec": "[" * 1000}).encode()), (422,)
    yield "duplicate keys", put(b'{"spec":{},"spec":{}}'), (400,)
    yield "not UTF-8", put(b'{"spec":"\xff\xfe"}'), (400,)
    yield "NUL in a string", put(b'{"spec":"\\u0000"}'), (400,)
    yield "lone surrogate", put(b'{"spec":"\\ud800"}'), (400,)
    yield "huge integer", put(b'{"spec":{"a":' + b"9" * 1000 + b"}}"), (422,)
    yield "huge exponent", put(b'{"spec":{"a":1e999999}}'), (422,)
    yield "number of 60 digits below 0", put(b'{"spec":-' + 60 * b"2" + b"}"), (422,)
    yield "an array", put(b"[]"), (422,)
    yield "a number", put(b"1"), (400, 422)
    yield "truncated", put(good[:-5]), (400,)
    yield "two documents", put(good + good), (400,)
    yield "long strings", put(json.dumps({"metadata": {"name": "n" * 100000}}).encode()), (422,)
    yield "many members", put(json.dumps({f"k{i}": i for i in range(50000)}).encode()), (422,)
    yield "many backends", put(json.dumps(body_of(backends=[
        {"address": f"10.{i >> 8}.{i & 255}.1", "ports": {"h": 1}} for i in range(12000)])).encode()), (413, 422)
    yield "names that escape", request("PUT", "/api/v1/services/%2e%2e/%2e%2e", JSON_TYPE, f"Content-Length: {len(good)}",
                                       body=good), (422,)


@case
def hostile(server):
    n = 0
    for name, payload, allowed in hostile_requests():
        reply = server.raw(payload)
        status = status_of(reply)
        assert status in allowed, (name, status, reply[:400])
        server.alive()
        n += 1
    server.call("DELETE", PATH)
    assert n >= 40
    return n


@case
def pipelining(server):
    reply = server.raw(request("GET", "/livez", close=False) * 200 + request("GET", "/livez"))
    assert reply.count(b"HTTP/1.1 200") == 201
    mixed = request("GET", "/api/v1/flows?limit=10", close=False) + request("GET", "/nowhere", close=False) + \
        request("GET", "/livez")
    reply = server.raw(mixed)
    assert [int(p.split(b" ")[0]) for p in reply.split(b"HTTP/1.1 ")[1:]] == [200, 404, 200]


@case
def slow_ones_are_cut(server):
    """Bytes that dribble: the deadline is absolute, so each is cut although it never falls silent."""
    slow = []
    for start in (b"", b"GET /li", request("GET", "/livez", close=False)[:-2],
                  request("PUT", PATH, JSON_TYPE, "Content-Length: 1000", close=False),
                  request("PUT", PATH, JSON_TYPE, "Transfer-Encoding: chunked", close=False) + b"400\r\n",
                  request("GET", "/livez", close=False)):
        s = server.open()
        s.sendall(start)
        slow.append(s)
    cut = set()
    for _ in range(200):
        for i, s in enumerate(slow):
            if i in cut:
                continue
            try:
                s.sendall(b"a")
                s.setblocking(False)
                while True:
                    if s.recv(4096) == b"":
                        cut.add(i)
                        break
            except BlockingIOError:
                pass
            except OSError:
                cut.add(i)
            finally:
                s.setblocking(True)
        if len(cut) == len(slow):
            break
        time.sleep(0.05)
    for s in slow:
        s.close()
    assert cut == set(range(len(slow))), cut
    server.alive()


@case
def readers_that_do_not_read(server):
    held = []
    for _ in range(20):
        s = server.open()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        s.sendall(request("GET", "/metrics", close=False) * 50)
        held.append(s)
    for _ in range(100):
        server.alive()
        if server.process.poll() is None and cut_count(server) >= 20:
            break
        time.sleep(0.1)
    assert cut_count(server) >= 20
    for s in held:
        s.close()


def cut_count(server):
    text = server.call("GET", "/metrics").body.decode()
    return int(float(text.split("\nsluice_rest_deadlines_total ")[1].split("\n")[0]))


@case
def a_hundred_connections(server):
    """More than the limit, all silent: others are still served, because the slowest give way."""
    held = []
    for i in range(150):
        held.append(server.open(timeout=5))
        if i % 10 == 9:
            server.alive()
    for s in held:
        s.close()
    server.alive()


@case
def eight_from_one_address(server):
    held = [server.open(tcp=True, timeout=1) for _ in range(30)]
    answered = 0
    for s in held:
        try:
            s.sendall(request("GET", "/livez", close=False))
            answered += s.recv(100).startswith(b"HTTP/1.1 200")
        except OSError:
            pass
    for s in held:
        s.close()
    assert 1 <= answered <= 8, answered
    server.alive()


@case
def uploads_that_break_off(server):
    body = json.dumps(body_of()).encode()
    rng = random.Random(7)
    whole = request("PUT", PATH, JSON_TYPE, f"Content-Length: {len(body)}", close=False) + body
    for _ in range(60):
        s = server.open()
        s.sendall(whole[:rng.randrange(len(whole))])
        s.close()
    server.alive()
    assert server.call("GET", PATH).status == 404


@case
def askers_that_leave(server):
    """Gone while a worker is asked: the answer comes to nobody."""
    question = json.dumps({"source": "198.51.100.7", "destination": "203.0.113.10", "destinationPort": 9999}).encode()
    for _ in range(20):
        s = server.open()
        s.sendall(request("POST", "/api/v1/explain", JSON_TYPE, f"Content-Length: {len(question)}", body=question))
        s.close()
        s = server.open()
        s.sendall(request("GET", "/api/v1/flows?limit=1000"))
        s.close()
    server.alive()
    problem(server.call("POST", "/api/v1/explain", question), 504, "worker-timeout")


@case
def random_bytes(server):
    rng = random.Random(20261124)
    base = request("PUT", PATH, JSON_TYPE, "Content-Length: 20", body=b'{"spec": {"a": [1]}}')
    for _ in range(300):
        text = bytearray(base)
        for _ in range(rng.randint(1, 6)):
            text[rng.randrange(len(text))] = rng.randrange(256)
        s = server.open()
        s.sendall(bytes(text))
        s.close()
    server.alive()
    assert server.call("GET", PATH).status == 404


@case
def all_at_once(server):
    """Eight honest clients among bad ones: nobody gets a wrong answer."""
    wrong = []

    def honest():
        for _ in range(40):
            a = server.call("GET", "/api/v1/services/default/web")
            if a.status != 200 or a.json()["metadata"]["name"] != "web":
                wrong.append(a.status)

    def bad():
        rng = random.Random(threading.get_ident())
        for name, payload, _ in list(hostile_requests())[:40]:
            if rng.random() < 0.5:
                server.raw(payload, timeout=3)

    threads = [threading.Thread(target=honest) for _ in range(8)] + [threading.Thread(target=bad) for _ in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong, wrong[:5]
    server.alive()
