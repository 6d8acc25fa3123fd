# SPDX-License-Identifier: BSD-3-Clause
"""An API server that misbehaves on purpose: the list, watch and write half of Kubernetes' HTTP, in one process and one thread.

    server = Scripted(); server.start()                        plain HTTP on a free port of 127.0.0.1 (or TLS, or another namespace)
    server.put("services", {...}); server.remove("services", "default", "web")
    server.fault(Fault(verb="watch", resource="services", times=3, status=410))
    server.requests                                            every request: when, what, and how it was answered

What it does well: LIST with paging (the whole list as of the first page), WATCH from a version, streaming lists with their closing
bookmark, bookmarks, selectors, 410 below the window, server-side apply and merge of metadata and status, conflicts, finalizers,
Leases, Events, SelfSubjectAccessReview, tokens. What it does badly is a list of Faults; the first that matches a request and has turns
left decides. It serves HTTP/1.1 only, JSON only; a watch compressed on request is many gzip members, as the real server's is.
"""
import asyncio
import base64
import gzip
import json
import socket
import struct
import sys
import threading
import time
import urllib.parse
from dataclasses import dataclass, field

from store import KINDS, Refused, Selector, Store, now_text

PAGE_LIFE = 64          # continue tokens remembered
SLOW_READER_BYTES = 256 << 20
SERVER_VERSION = {"major": "1", "minor": "36", "gitVersion": "v1.36.3"}


@dataclass
class Fault:
    """What goes wrong with a request. verb: list, watch (with or without an initial list), watchlist (only with), get, create, update,
    patch, delete, access; or *."""
    verb: str = "*"
    resource: str = "*"
    times: int = 1                  # how many requests it takes; -1: all until it is taken back
    after_s: float = 0.0            # before the head is sent
    status: int = 0                 # answer this instead
    reason: str = ""
    retry_after: int = None
    plain: str = None               # body as plain text, not a Status
    event_status: int = 0           # watch: an ERROR event with this code, in place of anything else
    frames: list = field(default_factory=list)  # watch and list: these bytes first
    only_frames: bool = False       # and then the end of the body
    cut: int = None                 # break the connection after so many bytes of the body
    rate: int = 0                   # bytes a second of the body
    silent: str = None              # "head": never answer; "body": the head, then nothing
    close: bool = False             # Connection: close, and close after the answer (a watch: after its first content)
    reset: bool = False             # RST in place of an answer
    older: dict = None              # a replica that lags: this earlier state (Scripted.remember()), where no fresh one is asked for
    kind: str = None                # lists and events claim to be of this kind
    taken: int = 0

    def matches(self, request):
        if self.times >= 0 and self.taken >= self.times:
            return False
        if self.verb != "*" and request.verb != self.verb and not (self.verb == "watch" and request.verb == "watchlist"):
            return False
        return self.resource in ("*", request.resource)


@dataclass
class Request:
    at: float
    method: str
    target: str
    path: str
    query: dict
    headers: dict
    body: bytes
    verb: str = ""
    resource: str = ""
    namespace: str = ""
    name: str = ""
    sub: str = ""
    status: int = 0
    sent: int = 0       # bytes of body
    ended: float = 0.0
    user: str = ""

    def json(self):
        return json.loads(self.body)


class Broken(Exception):
    """The connection is to be torn down."""


def parse_path(request):
    """Fills verb, resource, namespace, name, sub from the path; nothing when it is not a resource's."""
    parts = [p for p in request.path.split("/") if p]
    if parts[:1] == ["api"]:
        base, rest = "/api/" + "".join(parts[1:2]), parts[2:]
    elif parts[:1] == ["apis"]:
        base, rest = "/apis/" + "/".join(parts[1:3]), parts[3:]
    else:
        return
    if len(rest) >= 3 and rest[0] == "namespaces" and rest[2] not in ("status", "finalize"):
        request.namespace, rest = urllib.parse.unquote(rest[1]), rest[2:]
    if not rest or rest[0] not in KINDS or KINDS[rest[0]].base != base:
        if rest and rest[0] == "selfsubjectaccessreviews":
            request.verb, request.resource = "access", rest[0]
        return
    request.resource = rest[0]
    request.name = urllib.parse.unquote(rest[1]) if len(rest) > 1 else ""
    request.sub = rest[2] if len(rest) > 2 else ""
    verbs = {"GET": "get" if request.name else "list", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
    request.verb = verbs.get(request.method, "")
    if request.method == "GET" and request.query.get("watch") in ("true", "1"):
        request.verb = "watchlist" if request.query.get("sendInitialEvents") == "true" else "watch"


def status_body(code, reason, message, retry_after=None):
    body = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message, "reason": reason, "code": code}
    if retry_after is not None:
        body["details"] = {"retryAfterSeconds": retry_after}
    return json.dumps(body).encode()


REASONS = {400: "BadRequest", 401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 409: "Conflict", 410: "Expired",
           422: "Invalid", 429: "TooManyRequests", 500: "InternalError", 503: "ServiceUnavailable", 504: "Timeout"}


class Connection:
    """One client's connection: reads requests, writes answers with whatever the fault does to them."""

    def __init__(self, server, reader, writer):
        self.server, self.reader, self.writer = server, reader, writer
        self.closing = False

    async def run(self):
        while not self.closing:
            request = await self.read_request()
            if request is None:
                return
            self.server.requests.append(request)
            await self.server.gate.wait()
            fault = self.server.take_fault(request)
            if fault is None and request.headers.get("connection", "").lower() == "close":
                self.closing = True
            await Answer(self, request, fault or Fault(times=0)).send()

    async def read_request(self):
        try:
            head = await self.reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            return None
        lines = head.decode("latin-1").split("\r\n")
        method, target, _ = lines[0].split(" ", 2)
        headers = {k.strip().lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:] if line)}
        if headers.get("expect", "").lower() == "100-continue":
            self.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await self.read_body(headers)
        url = urllib.parse.urlsplit(target)
        query = dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True))
        request = Request(time.monotonic(), method, target, url.path, query, headers, body)
        parse_path(request)
        return request

    async def read_body(self, headers):
        if headers.get("transfer-encoding", "").lower() != "chunked":
            return await self.reader.readexactly(int(headers.get("content-length", "0")))
        body = b""
        while True:
            size = int((await self.reader.readline()).split(b";")[0], 16)
            body += (await self.reader.readexactly(size + 2))[:size]
            if size == 0:
                return body


class Answer:
    """One answer on a connection, with its fault."""

    def __init__(self, connection, request, fault):
        self.connection, self.request, self.fault = connection, request, fault
        self.server, self.store = connection.server, connection.server.store
        self.writer = connection.writer
        self.chunked, self.gzip = False, False

    async def send(self):
        try:
            await self.answer()
        finally:
            self.request.ended = time.monotonic()

    async def answer(self):
        fault, request = self.fault, self.request
        if fault.after_s:
            await asyncio.sleep(fault.after_s)
        if fault.reset:
            raise Broken()
        if fault.silent == "head":
            await asyncio.Event().wait()
        if fault.status:
            await self.refuse(fault.status, fault.reason, "scripted", fault.retry_after, fault.plain)
            return
        try:
            self.server.authenticate(request)
            handler = getattr(self, "on_" + request.verb, None)
            if handler is None:
                await self.on_other()
            else:
                self.server.authorize(request)
                await handler()
        except Refused as e:
            await self.refuse(e.code, e.reason, e.message)
        except (ValueError, KeyError, TypeError) as e:
            await self.refuse(400, "BadRequest", f"{type(e).__name__}: {e}")

    # ------------------------------------------------------------ bytes
    async def refuse(self, code, reason, message, retry_after=None, plain=None):
        body = plain.encode() if plain is not None else status_body(code, reason or REASONS.get(code, "Unknown"), message, retry_after)
        extra = [] if retry_after is None else [f"Retry-After: {retry_after}"]
        await self.whole(code, body, "text/plain" if plain is not None else "application/json", extra)

    def offers_gzip(self):
        return self.server.compress and "gzip" in self.request.headers.get("accept-encoding", "")

    def head(self, code, kind, extra=()):
        self.request.status = code
        if self.fault.close:
            self.connection.closing = True
        lines = [f"HTTP/1.1 {code} {REASONS.get(code, 'OK')}", f"Content-Type: {kind}", *extra]
        if self.connection.closing:
            lines.append("Connection: close")
        self.writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())

    async def whole(self, code, body, kind="application/json", extra=()):
        if self.fault.kind and code < 300:
            body = rename_kind(body, self.fault.kind)
        body = b"".join(self.fault.frames) + (b"" if self.fault.only_frames else body)
        if len(body) > 131072 and self.offers_gzip():
            body, extra = gzip.compress(body, 1), [*extra, "Content-Encoding: gzip"]
        self.head(code, kind, [f"Content-Length: {len(body)}", *extra])
        await self.write(body)

    async def write(self, text):
        """Bytes of the body, as fast and as far as the fault allows."""
        fault = self.fault
        if fault.silent == "body":
            await self.writer.drain()
            await asyncio.Event().wait()
        room = None if fault.cut is None else fault.cut - self.request.sent
        if room is not None and room < len(text):
            self.raw(text[:room])
            await self.writer.drain()
            raise Broken()
        if fault.rate:
            for k in range(len(text)):
                await self.server.gate.wait()
                self.raw(text[k:k + 1])
                await self.writer.drain()
                await asyncio.sleep(1 / fault.rate)
            return
        self.raw(text)
        await self.writer.drain()

    def raw(self, text):
        if not text:
            return
        self.request.sent += len(text)
        if self.gzip:
            text = gzip.compress(text, 1)
        self.writer.write(b"%x\r\n%s\r\n" % (len(text), text) if self.chunked else text)

    # ------------------------------------------------------------ reads
    def lags(self):
        """A read without a version is of the newest state, on any replica."""
        return self.fault.older is not None and self.request.query.get("resourceVersion", "") != ""

    def state(self):
        return (self.fault.older["objects"] if self.lags() else self.store.objects)[self.request.resource]

    def version(self):
        return self.fault.older["version"] if self.lags() else self.store.version

    def selected(self):
        q, want = self.request.query, self.request.namespace
        selector = Selector(q.get("labelSelector", ""), q.get("fieldSelector", ""))
        return [(key, entry) for key, entry in sorted(self.state().items(), key=lambda pair: pair[0])
                if (not want or key[0] == want) and selector.admits(key, entry.labels, entry.type)]

    async def on_get(self):
        entry = self.state().get((self.request.namespace, self.request.name))
        if entry is None:
            raise Refused(404, "NotFound", f'{self.request.resource} "{self.request.name}" not found')
        await self.whole(200, entry.text())

    async def on_list(self):
        q, kind = self.request.query, KINDS[self.request.resource]
        limit = int(q.get("limit", "0"))
        token = q.get("continue")
        if token:
            if "resourceVersion" in q or "resourceVersionMatch" in q:
                raise Refused(400, "BadRequest", "resourceVersion is forbidden with continue")
            version, texts = self.server.page(token)
        else:
            self.check_version(q)
            version, texts = self.version(), [entry.text() for _, entry in self.selected()]
        here, rest = (texts[:limit], texts[limit:]) if limit and q.get("resourceVersion") != "0" else (texts, [])
        meta = {"resourceVersion": str(version)}
        if rest:
            meta["continue"], meta["remainingItemCount"] = self.server.keep_page(version, rest), len(rest)
        await self.whole(200, b'{"kind":"%sList","apiVersion":"%s","metadata":%s,"items":[%s]}\n' % (
            kind.kind.encode(), kind.version.encode(), json.dumps(meta).encode(), b",".join(here)))

    def check_version(self, q):
        match, wanted = q.get("resourceVersionMatch"), q.get("resourceVersion", "")
        if match and not wanted and self.request.verb == "list":
            raise Refused(422, "Invalid", "resourceVersionMatch is forbidden unless resourceVersion is provided")
        if "sendInitialEvents" in q and self.request.verb == "list":
            raise Refused(422, "Invalid", "sendInitialEvents is forbidden for list")
        if wanted and int(wanted) > self.version():
            raise Refused(504, "Timeout", "Too large resource version")

    async def on_watchlist(self):
        if not self.server.watch_list:
            raise Refused(422, "Invalid", "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for watch unless the WatchList "
                                          "feature gate is enabled")
        if self.request.query.get("resourceVersionMatch") != "NotOlderThan":
            raise Refused(422, "Invalid", "resourceVersionMatch: Forbidden: sendInitialEvents requires NotOlderThan")
        self.check_version(self.request.query)
        version = self.version()
        initial = [b'{"type":"ADDED","object":%s}\n' % entry.text() for _, entry in self.selected()]
        initial.append(self.bookmark(version, {"k8s.io/initial-events-end": "true"}))
        await self.watch(version, initial)

    async def on_watch(self):
        wanted = self.request.query.get("resourceVersion", "")
        if "resourceVersionMatch" in self.request.query:
            raise Refused(422, "Invalid", "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided")
        if wanted in ("", "0"):
            await self.watch(self.version(), [b'{"type":"ADDED","object":%s}\n' % e.text() for _, e in self.selected()])
            return
        await self.watch(int(wanted), [])

    def bookmark(self, version, annotations=None):
        kind = KINDS[self.request.resource]
        meta = {"resourceVersion": str(version), "creationTimestamp": None}
        if annotations:
            meta["annotations"] = annotations
        return json.dumps({"type": "BOOKMARK", "object": {"kind": kind.kind, "apiVersion": kind.version, "metadata": meta}}).encode() + b"\n"

    async def watch(self, since, initial):
        resource, fault = self.request.resource, self.fault
        if since < self.store.floor[resource]:
            initial = [b'{"type":"ERROR","object":%s}\n' % status_body(410, "Expired", f"too old resource version: {since}")]
        if fault.event_status:
            initial = [b'{"type":"ERROR","object":%s}\n' % status_body(
                fault.event_status, fault.reason or REASONS[fault.event_status], "scripted", fault.retry_after)]
        self.chunked, self.gzip = True, self.offers_gzip()
        self.head(200, "application/json", ["Transfer-Encoding: chunked"] + (["Content-Encoding: gzip"] if self.gzip else []))
        await self.writer.drain()
        ends = since < self.store.floor[resource] or fault.event_status or fault.only_frames
        if fault.only_frames:
            initial = []
        await Watch(self, since, None if ends else self.server.deadline(self.request)).run(fault.frames + initial)
        if self.writer.transport.is_closing():
            raise Broken()
        self.writer.write(b"0\r\n\r\n")
        await self.writer.drain()

    # ------------------------------------------------------------ writes
    def key(self):
        return (self.request.namespace, self.request.name)

    async def on_create(self):
        entry = self.store.create(self.request.resource, self.request.namespace, self.request.json())
        await self.whole(201, entry.text())

    async def on_update(self):
        await self.whole(200, self.store.replace(self.request.resource, self.key(), self.request.json()).text())

    async def on_patch(self):
        request = self.request
        entry = self.store.patch(request.resource, self.key(), request.json(), request.headers.get("content-type", "").split(";")[0],
                                 request.query.get("fieldManager", ""))
        await self.whole(200, entry.text())

    async def on_delete(self):
        await self.whole(200, self.store.remove(self.request.resource, self.key(), graceful=True).text())

    async def on_access(self):
        review = self.request.json()
        wanted = review["spec"].get("resourceAttributes") or {}
        allowed = not self.server.is_denied(wanted.get("verb", ""), wanted.get("resource", ""), wanted.get("subresource", ""))
        review["status"] = {"allowed": allowed}
        await self.whole(201, json.dumps(review).encode())

    async def on_other(self):
        if self.request.path == "/version":
            await self.whole(200, json.dumps(SERVER_VERSION).encode())
        elif self.request.path in ("/readyz", "/livez", "/healthz"):
            await self.whole(200, b"ok", "text/plain")
        else:
            await self.refuse(404, "NotFound", "the server could not find the requested resource")


class Watch:
    """The events of one watch, from a version on, until its deadline (None: end at once)."""

    def __init__(self, answer, since, deadline):
        self.answer, self.since, self.deadline = answer, since, deadline
        self.pending, self.pending_bytes = [], 0
        self.news = asyncio.Event()
        q = answer.request.query
        self.selector = Selector(q.get("labelSelector", ""), q.get("fieldSelector", ""))
        self.bookmarks = q.get("allowWatchBookmarks") in ("true", "1")

    def note(self, event):
        frame = event.frame(self.selector, self.answer.request.namespace)
        self.since = event.version
        if frame is not None:
            if self.answer.fault.kind:
                frame = rename_kind(frame, self.answer.fault.kind)
            self.pending.append(frame)
            self.pending_bytes += len(frame)
            self.news.set()

    async def run(self, first):
        resource = self.answer.request.resource
        listeners, store = self.answer.store.listeners[resource], self.answer.store
        if self.deadline is not None:
            # nothing can happen between these lines: one thread, no await
            for event in store.log[resource]:
                if event.version > self.since:
                    self.note(event)
            listeners.add(self.note)
        try:
            if first:
                await self.answer.write(b"".join(first))
            await self.follow()
        finally:
            listeners.discard(self.note)

    async def follow(self):
        while self.deadline is not None:
            if self.pending_bytes > SLOW_READER_BYTES:
                raise Broken()
            if self.pending:
                text, self.pending, self.pending_bytes = b"".join(self.pending), [], 0
                await self.answer.server.gate.wait()
                await self.answer.write(text)
                if self.answer.fault.close:
                    return
                continue
            left = self.deadline - time.monotonic()
            if left <= 0 or self.answer.writer.transport.is_closing():
                return
            self.news.clear()
            try:
                await asyncio.wait_for(self.news.wait(), min(left, self.answer.server.bookmark_s))
            except asyncio.TimeoutError:
                if self.bookmarks and self.answer.server.gate.is_set():
                    # every event up to here has been queued for this watcher, and the queue is empty
                    await self.answer.write(self.answer.bookmark(self.answer.store.version))


def rename_kind(text, kind):
    """Lists and objects that claim to be something else."""
    for known in KINDS.values():
        for name in (known.kind, known.kind + "List"):
            text = text.replace(b'"kind":"%s"' % name.encode(), b'"kind":"%s"' % kind.encode())
    return text


class Scripted:
    """The server. Its methods may be called from any thread; they run on its loop."""

    def __init__(self, host="127.0.0.1", port=0, tls=None, listener=None):
        self.host, self.port, self.tls = host, port, tls
        self.listener = listener            # makes the listening socket: in another namespace, say
        self.store = Store()
        self.requests, self.faults, self.pages = [], [], {}
        self.watch_list, self.bookmark_s, self.watch_s = True, 60.0, None
        self.compress = True                # bodies, for who offers it
        self.tokens = None                  # None: whoever comes
        self.denied = set()                 # (verb, resource) or (verb, resource/sub)
        self.connections = set()
        self.loop = self.thread = self.server = self.gate = None

    # ------------------------------------------------------------ life
    def start(self):
        ready = threading.Event()
        self.thread = threading.Thread(target=self._main, args=(ready,), name="scripted", daemon=True)
        self.thread.start()
        ready.wait(10)
        self.call(self._listen)
        return self

    def _main(self, ready):
        self.loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self.loop)
        self.gate = asyncio.Event()
        self.gate.set()
        ready.set()
        self.loop.run_forever()
        self.loop.close()

    async def _listen(self):
        if self.listener is not None:
            sock = self.listener(self.host, self.port)
        else:
            sock = socket.create_server((self.host, self.port), backlog=256)
        self.port = sock.getsockname()[1]
        self.server = await asyncio.start_server(self._serve, sock=sock, ssl=self.tls, limit=1 << 20)

    async def _serve(self, reader, writer):
        # As the real server: asyncio does it only for sockets that were made with the protocol's number.
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        task = asyncio.current_task()
        self.connections.add((task, writer))
        try:
            await Connection(self, reader, writer).run()
        except Broken:
            self._reset(writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError, ValueError):
            pass
        finally:
            self.connections.discard((task, writer))
            writer.close()

    @staticmethod
    def _reset(writer):
        sock = writer.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    def call(self, fn, *args):
        """Runs fn (plain or a coroutine) on the loop and gives its result."""
        async def run():
            result = fn(*args)
            return await result if asyncio.iscoroutine(result) else result
        return asyncio.run_coroutine_threadsafe(run(), self.loop).result(120)

    def stop(self):
        if self.thread is None:
            return
        self.stop_listening()
        self.drop_connections()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)
        self.thread = None

    # ------------------------------------------------------------ faults of the whole server
    def stop_listening(self):
        """New connections are refused; the open ones live on."""
        def close():
            if self.server is not None:
                self.server.close()
                self.server = None
        self.call(close)

    def listen_again(self):
        self.call(self._listen)

    def change_tls(self, tls):
        """Another certificate, others' certificates: for new connections from now on, none is refused meanwhile."""
        async def change():
            old, sock = self.server, self.server.sockets[0].dup()
            self.tls = tls
            self.server = await asyncio.start_server(self._serve, sock=sock, ssl=tls, limit=1 << 20)
            old.close()
        self.call(change)

    def drop_connections(self, reset=False):
        async def drop():
            if reset:
                for _, writer in self.connections:
                    self._reset(writer)
            left = {task for task, _ in self.connections}
            while left:     # wait_for may lose a cancellation that meets its event
                for task in left:
                    task.cancel()
                _, left = await asyncio.wait(left, timeout=0.1)
        self.call(drop)

    def freeze(self):
        """Everything stands still, connections stay open."""
        self.call(self.gate.clear)

    def thaw(self):
        self.call(self.gate.set)

    def fault(self, *faults):
        self.call(lambda: self.faults.extend(faults))
        return faults[0]

    def no_faults(self):
        self.call(self.faults.clear)

    def take_fault(self, request):
        for fault in self.faults:
            if fault.matches(request):
                fault.taken += 1
                return fault
        return None

    def remember(self):
        """The present state, for Fault(older=...)."""
        return self.call(lambda: {"version": self.store.version, "objects": {r: dict(o) for r, o in self.store.objects.items()}})

    # ------------------------------------------------------------ state
    def put(self, resource, obj):
        return self.call(self.store.put, resource, obj).version

    def put_all(self, resource, objects):
        self.call(lambda: [self.store.put(resource, obj) for obj in objects])

    def remove(self, resource, namespace, name):
        self.call(self.store.remove, resource, (namespace, name))

    def get(self, resource, namespace, name):
        entry = self.call(lambda: self.store.objects[resource].get((namespace, name)))
        return entry.json() if entry else None

    def objects(self, resource):
        return {key: entry.json() for key, entry in self.call(lambda: dict(self.store.objects[resource])).items()}

    def compact(self):
        self.call(self.store.compact)

    # ------------------------------------------------------------ of the answers
    def deadline(self, request):
        asked = float(request.query.get("timeoutSeconds") or 1800)
        return time.monotonic() + (self.watch_s if self.watch_s is not None else asked)

    def keep_page(self, version, texts):
        token = base64.urlsafe_b64encode(f"{version}/{len(self.pages)}/{time.monotonic_ns()}".encode()).decode()
        self.pages[token] = (version, texts)
        while len(self.pages) > PAGE_LIFE:
            self.pages.pop(next(iter(self.pages)))
        return token

    def page(self, token):
        if token not in self.pages:
            raise Refused(410, "Expired", "The provided continue parameter is too old to display a consistent list result")
        return self.pages[token]

    def is_denied(self, verb, resource, sub):
        return (verb, f"{resource}/{sub}" if sub else resource) in self.denied

    def authenticate(self, request):
        request.user = request.headers.get("authorization", "").removeprefix("Bearer ")
        if self.tokens is not None and request.user not in self.tokens:
            raise Refused(401, "Unauthorized", "Unauthorized")

    def authorize(self, request):
        verb = {"watchlist": "watch"}.get(request.verb, request.verb)
        if self.is_denied(verb, request.resource, request.sub):
            raise Refused(403, "Forbidden", f'{request.resource} is forbidden: User cannot {verb} resource "{request.resource}"')

    def requests_of(self, verb="*", resource="*", since=0.0):
        """What came in, of one kind. verb "watch" includes streaming lists."""
        wanted = Fault(verb=verb, resource=resource, times=-1)
        return [r for r in list(self.requests) if r.at >= since and wanted.matches(r)]

    def most_lists(self, resource, seconds, since=0.0):
        """The most full lists (paged ones count once, streaming ones too) that began within so many seconds."""
        times = [r.at for r in self.requests_of("list", resource, since) if "continue" not in r.query]
        times = sorted(times + [r.at for r in self.requests_of("watchlist", resource, since)])
        return max((sum(1 for t in times if begin <= t < begin + seconds) for begin in times), default=0)


if __name__ == "__main__":
    print(__doc__, now_text())
    sys.exit(0)
