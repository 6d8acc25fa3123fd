# SPDX-License-Identifier: BSD-3-Clause
"""The REST server and sluicectl against a stand-in for control: rest_check.py REST_STANDIN SLUICECTL [WORD ...]

Every answer is compared with /openapi.json; then the server is treated badly, and after each hostile request it must
still answer. Only the standard library and jsonschema. A WORD runs only the cases whose name contains it.
"""
import hashlib
import http.client
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

import jsonschema

STANDIN, CTL = sys.argv[1:3]
ONLY = sys.argv[3:]
HEADER_MS, REQUEST_MS = 700, 2000  # deadlines of the server under abuse
TOKENS = {"viewer": "v" * 43, "operator": "o" * 43, "admin": "a" * 43}
CASES = []


def case(fn):
    CASES.append(fn)
    return fn


def connect(sock, where):
    """A full backlog of a UNIX socket is no error: try again."""
    for _ in range(500):
        try:
            sock.connect(where)
            return
        except BlockingIOError:
            time.sleep(0.01)
    raise TimeoutError(f"{where}: nobody accepts")


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout=10):
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        connect(self.sock, self.path)


class Answer:
    def __init__(self, response):
        self.status = response.status
        self.headers = {k.lower(): v for k, v in response.getheaders()}
        self.body = response.read()

    def json(self):
        return json.loads(self.body)


class Server:
    def __init__(self, *options):
        self.dir = tempfile.mkdtemp(prefix="sluice-rest-")
        self.socket = os.path.join(self.dir, "s")
        self.log = os.path.join(self.dir, "log")
        self.tokens = os.path.join(self.dir, "tokens")
        with open(self.tokens, "w", encoding="ascii") as f:
            f.write("# who may what\n")
            for role, token in TOKENS.items():
                f.write(f"{role} {hashlib.sha256(token.encode()).hexdigest()} the {role}\n")
        os.chmod(self.tokens, 0o600)
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        self.options = ["--tcp", "127.0.0.1", str(self.port), self.tokens, *options]
        self.process = None
        self.start()

    def start(self):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen([STANDIN, self.socket, *self.options], stdout=subprocess.PIPE, stderr=log)
        if self.process.stdout.readline() != b"ready\n":
            raise RuntimeError(self.tail())

    def tail(self):
        with open(self.log, encoding="utf-8", errors="replace") as f:
            return f.read()[-4000:]

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(20)
        assert code == 0, (code, self.tail())

    def clean(self):
        shutil.rmtree(self.dir)

    def call(self, method, path, body=None, headers=None, tcp=False, token=None):
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10) if tcp else UnixConnection(self.socket)
        h = dict(headers or {})
        if token:
            h["Authorization"] = f"Bearer {token}"
        payload = body
        if body is not None and not isinstance(body, (bytes, str)):
            payload = json.dumps(body)
        if payload is not None:
            h.setdefault("Content-Type", "application/json")
        try:
            c.request(method, path, payload, h)
            return Answer(c.getresponse())
        finally:
            c.close()

    def get(self, path, **kw):
        a = self.call("GET", path, **kw)
        assert a.status == 200, (path, a.status, a.body[:300])
        return a.json()

    def raw(self, payload, timeout=10, tcp=False, read=True):
        """Sends bytes as they are; what comes back until the server closes or is silent."""
        s = self.open(tcp, timeout)
        got = b""
        try:
            try:
                s.sendall(payload)
            except OSError:
                pass
            while read:
                piece = s.recv(65536)
                if not piece:
                    break
                got += piece
        except OSError:
            pass
        finally:
            s.close()
        return got

    def open(self, tcp=False, timeout=10):
        s = socket.socket(socket.AF_INET if tcp else socket.AF_UNIX, socket.SOCK_STREAM)
        s.settimeout(timeout)
        connect(s, ("127.0.0.1", self.port) if tcp else self.socket)
        return s

    def alive(self):
        assert self.process.poll() is None, (self.process.returncode, self.tail())
        assert self.call("GET", "/livez").body == b"ok\n"


def body_of(name="one", vip="203.0.113.50", port=80, **spec):
    return {"metadata": {"namespace": "ops", "name": name},
            "spec": {"addresses": [vip], "listeners": [{"name": "h", "protocol": "TCP", "port": port}],
                     "backends": [{"address": "10.9.1.2", "ports": {"h": 8080}}], **spec}}


PATH = "/api/v1/services/ops/one"


# ---------------------------------------------------------------- the document
def document(server):
    return server.get("/openapi.json")


def validator(doc, ref):
    return jsonschema.Draft202012Validator({"$ref": ref, "components": doc["components"]})


def check_shape(doc, path, method, answer):
    """The body against the schema that the document gives for this status."""
    op = doc["paths"][path][method.lower()]
    response = op["responses"].get(str(answer.status), op["responses"]["default"])
    kind = answer.headers.get("content-type", "").split(";")[0]
    if "content" not in response:
        assert answer.body == b"", answer.body
        return
    schema = response["content"][kind]["schema"]
    if "$ref" in schema:
        errors = [e.message for e in validator(doc, schema["$ref"]).iter_errors(answer.json())]
        assert not errors, (path, method, errors[:3])


def problem(answer, status, code):
    assert answer.status == status, (answer.status, answer.body[:300])
    assert answer.headers["content-type"] == "application/problem+json"
    p = answer.json()
    assert p["status"] == status and p["code"] == code and p["title"] and p["detail"], p
    assert p["requestId"] == answer.headers["x-request-id"]
    errors = [e.message for e in validator(DOC, "#/components/schemas/Problem").iter_errors(p)]
    assert not errors, errors
    return p


DOC = None


@case
def document_is_sound(server):
    jsonschema.Draft202012Validator.check_schema({"components": DOC["components"]})
    assert DOC["openapi"].startswith("3.1")
    ids = [op["operationId"] for path in DOC["paths"].values() for op in path.values()]
    assert len(ids) == len(set(ids)) > 20
    text = json.dumps(DOC)
    for ref in {r for r in text.split('"') if r.startswith("#/components/schemas/")}:
        assert ref.split("/")[-1] in DOC["components"]["schemas"], ref


@case
def every_read_has_its_shape(server):
    fill = {"{namespace}": "default", "{name}": "web", "{address}": "10.9.0.2"}
    for path, ops in DOC["paths"].items():
        if "get" not in ops:
            continue
        url = path
        for name, value in fill.items():
            url = url.replace(name, value)
        a = server.call("GET", url)
        assert a.status == 200, (url, a.status, a.body[:300])
        check_shape(DOC, path, "GET", a)
        h = server.call("HEAD", url)
        assert h.status == 200 and h.body == b"", url
        assert h.headers["content-type"] == a.headers["content-type"], url
        o = server.call("OPTIONS", url)
        assert o.status == 204 and "GET, HEAD" in o.headers["allow"], (url, o.headers)
        for method in ("TRACE", "BREW"):
            m = server.call(method, url)
            assert m.status == 405 and "OPTIONS" in m.headers["allow"], (url, method, m.status)


@case
def workers_show_every_counter(server):
    source = os.environ.get("SLUICE_SOURCE", ".")
    names, drops = [], []
    with open(os.path.join(source, "lib/counters/counters.def"), encoding="ascii") as f:
        for line in f:
            word = line.split("(")[0]
            if word in ("COUNTER", "DROP"):
                (names if word == "COUNTER" else drops).append(line.split(",")[1].strip())
    answer = server.get("/api/v1/workers")
    for w in answer["items"] + [answer["control"]]:
        assert list(w["counters"]) == names and list(w["drops"]) == drops
        assert w["imbalance"] == 0
    rows = server.get("/api/v1/drops")["items"]
    assert [r["reason"] for r in rows] == drops and all(r["help"] for r in rows)


@case
def writes(server):
    created = server.call("PUT", PATH, body_of())
    assert created.status == 201 and created.headers["location"] == PATH
    check_shape(DOC, "/api/v1/services/{namespace}/{name}", "PUT", created)
    etag = created.headers["etag"]
    again = server.call("PUT", PATH, body_of())
    assert again.status == 200 and again.headers["etag"] == etag
    assert server.call("GET", PATH, headers={"If-None-Match": etag}).status == 304
    assert server.call("GET", PATH, headers={"If-None-Match": '"0", W/' + etag}).status == 304
    problem(server.call("PUT", PATH, body_of(), {"If-Match": '"999999"'}), 412, "precondition-failed")
    problem(server.call("PUT", PATH, body_of(), {"If-Match": "W/" + etag}), 412, "precondition-failed")
    problem(server.call("PUT", PATH, body_of(), {"If-None-Match": "*"}), 412, "precondition-failed")
    changed = server.call("PATCH", PATH, {"spec": {"idleTimeout": {"tcp": "20m"}}},
                          {"If-Match": etag, "Content-Type": "application/merge-patch+json"})
    assert changed.status == 200 and changed.json()["spec"]["idleTimeout"]["tcp"] == "20m", changed.body
    assert changed.headers["etag"] != etag
    # what was read can be written back
    back = server.call("PUT", PATH, server.call("GET", PATH).json())
    assert back.status == 200 and back.headers["etag"] == changed.headers["etag"]
    back = server.call("PATCH", PATH, {"spec": {"idleTimeout": None}}, {"Content-Type": "application/merge-patch+json"})
    assert back.status == 200 and back.json()["spec"]["idleTimeout"]["tcp"] == "15m"
    problem(server.call("POST", "/api/v1/services", body_of()), 409, "already-exists")
    p = problem(server.call("PUT", "/api/v1/services/ops/two", body_of("two")), 409, "address-in-use")
    assert "ops/one" in json.dumps(p)
    assert server.call("DELETE", PATH, headers={"If-Match": '"1"'}).status == 412
    assert server.call("DELETE", PATH).status == 204
    problem(server.call("DELETE", PATH), 404, "not-found")
    posted = server.call("POST", "/api/v1/services", body_of())
    assert posted.status == 201 and posted.headers["location"] == PATH
    assert server.call("DELETE", PATH).status == 204


@case
def dry_runs_change_nothing(server):
    before = server.get("/api/v1/services")
    a = server.call("PUT", PATH + "?dryRun=true", body_of())
    assert a.status == 201 and a.json()["diff"]["spec"]["addresses"] == ["203.0.113.50"], a.body
    a = server.call("POST", "/api/v1/services?dryRun=true", body_of())
    assert a.status == 201
    problem(server.call("PUT", PATH + "?dryRun=true", body_of(vip="203.0.113.10")), 409, "address-in-use")
    server.call("POST", "/api/v1/services/default/web/backends/10.9.0.2/drain?dryRun=true", {})
    assert server.get("/api/v1/services") == before


@case
def owners_are_respected(server):
    for path, owner in (("/api/v1/services/default/web", "file"), ("/api/v1/services/prod/dns", "kubernetes")):
        body = {"spec": body_of()["spec"]}
        for method in ("PUT", "DELETE", "PATCH"):
            p = problem(server.call(method, path, None if method == "DELETE" else body), 409, "owned-by-other")
            assert owner in p["detail"], p
        p = problem(server.call("POST", "/api/v1/services", dict(body, metadata={
            "namespace": path.split("/")[4], "name": path.split("/")[5]})), 409, "owned-by-other")


@case
def bad_bodies_name_every_place(server):
    bad = body_of()
    bad["spec"]["listeners"][0]["port"] = 70000
    bad["spec"]["mode"] = "fulnat"
    bad["spec"]["adresses"] = []
    bad["spec"]["backends"][0]["weight"] = "100"
    p = problem(server.call("PUT", PATH, bad), 422, "invalid")
    places = {e["pointer"]: e for e in p["errors"]}
    assert {"/spec/listeners/0/port", "/spec/mode", "/spec/adresses", "/spec/backends/0/weight"} <= set(places), places
    assert "fullnat" in places["/spec/mode"]["allowed"] and "addresses" in places["/spec/adresses"]["detail"]
    other = body_of("other")
    p = problem(server.call("PUT", PATH, other), 422, "invalid")
    assert p["errors"][0]["pointer"] == "/metadata/name"
    problem(server.call("POST", "/api/v1/services", {"spec": bad["spec"]}), 422, "invalid")
    problem(server.call("GET", "/api/v1/services?limit=0"), 400, "bad-request")
    p = problem(server.call("GET", "/api/v1/backends?state=lost"), 400, "bad-request")
    assert p["errors"][0]["allowed"] == ["up", "down", "draining"]


@case
def single_faults(server):
    """One edit each: refused with 4xx, named, and nothing is created."""
    edits = [
        ("addresses", []), ("addresses", ["300.1.1.1"]), ("addresses", "203.0.113.50"), ("addresses", [1]),
        ("addresses", ["203.0.113.50"] * 17), ("addresses", ["203.0.113.50", "203.0.113.50"]),
        ("addresses", ["127.0.0.1"]), ("addresses", ["::ffff:1.2.3.4"]), ("addresses", None),
        ("listeners", []), ("listeners", {}), ("listeners", [{}]), ("listeners", [{"port": 0}]),
        ("listeners", [{"port": 80, "portMax": 79}]), ("listeners", [{"port": 80.5}]), ("listeners", [{"port": "80"}]),
        ("listeners", [{"port": 80, "protocol": "ICMP"}]), ("listeners", [{"port": 80, "protcol": "TCP"}]),
        ("listeners", [{"port": 80}, {"port": 80}]), ("listeners", [{"name": "x" * 64, "port": 80}]),
        ("mode", "ipip"), ("mode", 1), ("mode", ""), ("scheduler", "random"), ("clientAddress", "yes"),
        ("sessionAffinity", {}), ("sessionAffinity", {"timeout": "0"}), ("sessionAffinity", {"timeout": "30 h"}),
        ("sourceRanges", ["10.0.0.1/8"]), ("sourceRanges", ["10.0.0.0/33"]), ("sourceRanges", ["all"]),
        ("healthCheck", {"kind": "smtp"}), ("healthCheck", {"interval": "1ms"}),
        ("healthCheck", {"interval": "1s", "timeout": "2s"}), ("healthCheck", {"rise": 0}),
        ("healthCheck", {"fall": 11}), ("healthCheck", {"path": "x"}), ("healthCheck", []),
        ("idleTimeout", {"tcp": "-1s"}), ("idleTimeout", {"sctp": "1m"}), ("idleTimeout", {"tcp": 900}),
        ("drainTimeout", "soon"), ("backends", {}), ("backends", [{}]), ("backends", [{"address": "10.9.1.2", "ports": 80}]),
        ("backends", [{"address": "127.0.0.1", "ports": {"h": 80}}]),
        ("backends", [{"address": "10.9.1.2", "ports": {"h": 0}}]),
        ("backends", [{"address": "10.9.1.2", "ports": {"h": 80}, "weight": 65536}]),
        ("backends", [{"address": "10.9.1.2", "ports": {"h": 80}, "weight": -1}]),
        ("backends", [{"address": "10.9.1.2", "ports": {"nope": 80}}]),
        ("backends", [{"address": "10.9.1.2", "ports": {"h": 80}}] * 2), ("unknown", 1),
    ]
    before = server.get("/api/v1/services")
    for key, value in edits:
        body = body_of()
        body["spec"][key] = value
        a = server.call("PUT", PATH, body)
        assert a.status == 422, (key, value, a.status, a.body[:300])
        p = problem(a, 422, "invalid")
        assert p["errors"] and all(e["detail"] for e in p["errors"]), (key, value, p)
        assert all(e["pointer"].startswith("/spec") for e in p["errors"]), (key, value, p["errors"])
    assert server.get("/api/v1/services") == before
    return len(edits)


@case
def operators_words(server):
    base = "/api/v1/services/default/web/backends/10.9.0.3"
    a = server.call("POST", base + "/drain", {"deadline": "5m", "onDeadline": "reset", "reason": "new disk"})
    check_shape(DOC, "/api/v1/services/{namespace}/{name}/backends/{address}/drain", "POST", a)
    b = a.json()["items"][0]
    assert a.status == 200 and b["state"] == "draining" and b["overlay"]["reason"] == "new disk", b
    assert b["overlay"]["deadline"] and b["overlay"]["onDeadline"] == "reset"
    a = server.call("PATCH", base, {"weight": 5})
    assert a.json()["items"][0]["weight"] == 5 and a.json()["items"][0]["overlay"]["draining"]
    problem(server.call("POST", base + "/undrain?port=8080"), 409, "conflict")
    a = server.call("POST", base + "/undrain")
    assert a.json()["items"][0]["state"] == "up" and a.json()["items"][0]["weight"] == 5
    a = server.call("PATCH", base, {"weight": None})
    assert a.json()["items"][0]["overlay"] is None and a.json()["items"][0]["weight"] == 100
    assert server.call("POST", base + "/drain?port=8080").json()["items"][0]["state"] == "draining"
    assert server.call("POST", base + "/undrain?port=8080").json()["items"][0]["state"] == "up"
    for bad in ({"deadline": "x"}, {"deadline": 5}, {"onDeadline": "kill"}, {"reason": "r" * 300}, {"why": ""}):
        problem(server.call("POST", base + "/drain", bad), 422, "invalid")
    problem(server.call("POST", base.replace(".3", ".99") + "/drain", {}), 404, "not-found")
    problem(server.call("POST", base + "/drain?port=1"), 404, "not-found")
    for bad in (-1, 65536, "1", 1.5, {}):
        problem(server.call("PATCH", base, {"weight": bad}), 422, "invalid")
    problem(server.call("PATCH", base, {}), 422, "invalid")


@case
def pages(server):
    for i in range(7):
        assert server.call("PUT", f"/api/v1/services/ops/s{i}", body_of(f"s{i}", f"203.0.113.{60 + i}")).status == 201
    names, token = [], ""
    while True:
        page = server.get(f"/api/v1/services?limit=2{token}")
        names += [s["metadata"]["name"] for s in page["items"]]
        assert page["metadata"]["remaining"] == 9 - len(names)
        if page["metadata"]["continue"] is None:
            break
        token = "&continue=" + page["metadata"]["continue"]
    assert names == ["web"] + [f"s{i}" for i in range(7)] + ["dns"], names
    rows, token = [], ""
    while token is not None:
        page = server.get(f"/api/v1/backends?limit=3{token}")
        rows += [(b["service"], b["address"]) for b in page["items"]]
        token = page["metadata"]["continue"] and "&continue=" + page["metadata"]["continue"]
    assert len(rows) == len(set(rows)) == 13, rows
    page = server.get("/api/v1/backends?limit=4")
    server.call("PATCH", "/api/v1/services/ops/s0", {"spec": {"backends": []}})
    problem(server.call("GET", "/api/v1/backends?continue=" + page["metadata"]["continue"]), 410, "list-changed")
    problem(server.call("GET", "/api/v1/services?continue=zz"), 400, "bad-request")
    problem(server.call("GET", "/api/v1/backends?service=no/such"), 404, "not-found")
    assert len(server.get("/api/v1/services?namespace=ops")["items"]) == 7
    assert len(server.get("/api/v1/services?managedBy=file")["items"]) == 1
    assert [s["metadata"]["name"] for s in server.get("/api/v1/services?vip=203.0.113.61")["items"]] == ["s1"]
    for i in range(7):
        assert server.call("DELETE", f"/api/v1/services/ops/s{i}").status == 204


@case
def flows_in_pages(server):
    seen, token = set(), ""
    while token is not None:
        page = server.get(f"/api/v1/flows?limit=1000{token}")
        seen |= {(f["client"], f["clientPort"]) for f in page["items"]}
        token = page["metadata"]["continue"] and "&continue=" + page["metadata"]["continue"]
    assert len(seen) == 5000, len(seen)
    one = server.get("/api/v1/flows?client=198.51.100.7&limit=1000")
    assert one["items"] and all(f["client"] == "198.51.100.7" for f in one["items"])
    some = server.get("/api/v1/flows?service=web&limit=50")
    assert len(some["items"]) == 50 and all(f["service"] == "default/web" for f in some["items"])
    some = server.get("/api/v1/flows?backend=10.9.0.6&limit=5")
    assert len(some["items"]) == 5 and all(f["backend"] == "10.9.0.6" for f in some["items"])
    problem(server.call("GET", "/api/v1/flows?service=no/such"), 404, "not-found")
    problem(server.call("GET", "/api/v1/flows?limit=1001"), 400, "bad-request")
    wrong = some["metadata"]["continue"]
    problem(server.call("GET", f"/api/v1/flows?continue={wrong}"), 400, "bad-request")


@case
def explains(server):
    q = {"source": "198.51.100.7", "sourcePort": 40000, "destination": "203.0.113.10", "destinationPort": 80,
         "protocol": "TCP", "flags": "S"}
    a = server.call("POST", "/api/v1/explain", q)
    check_shape(DOC, "/api/v1/explain", "POST", a)
    assert a.json()["verdict"] == "forward" and a.json()["backend"] == "10.9.0.3:8080"
    a = server.call("POST", "/api/v1/explain", dict(q, destinationPort=81)).json()
    assert a["verdict"] == "reply" and a["reason"] == "closed_port" and a["meaning"]
    problem(server.call("POST", "/api/v1/explain", dict(q, destinationPort=9999)), 504, "worker-timeout")
    for change in ({"source": "x"}, {"sourcePort": 65536}, {"protocol": "gre"}, {"flags": "Z"}, {"port": "p9"},
                   {"destination": "2001:db8::1"}, {"destination": None}, {"extra": 1}):
        problem(server.call("POST", "/api/v1/explain", dict(q, **change)), 422, "invalid")


@case
def changes_are_on_record(server):
    last = server.get("/api/v1/events")["items"]
    after = last[-1]["id"] if last else 0
    server.call("PUT", PATH, body_of(), {"X-Request-Id": "ticket-4711"})
    server.call("DELETE", PATH)
    server.call("GET", "/api/v1/services")
    server.call("DELETE", PATH)
    server.call("PUT", PATH + "?dryRun=true", body_of())
    events = [e for e in server.get(f"/api/v1/events?after={after}")["items"] if e["kind"] == "api-change"]
    assert [e["object"] for e in events] == [PATH] * 3, events
    assert "PUT by uid:" in events[0]["text"] and "201" in events[0]["text"] and "ticket-4711" in events[0]["text"]
    assert "204" in events[1]["text"] and "404" in events[2]["text"]
    assert server.get(f"/api/v1/events?after={after}&kind=nothing")["items"] == []
    one = server.get(f"/api/v1/events?after={after}&limit=1")
    assert len(one["items"]) == 1 and one["metadata"]["remaining"] >= 2


@case
def reload(server):
    assert server.call("POST", "/api/v1/config/reload").json()["reloaded"] is True
    p = problem(server.call("POST", "/api/v1/config/reload"), 422, "invalid")
    assert "broken" in p["detail"]


@case
def negotiation(server):
    problem(server.call("GET", "/api/v1/services", headers={"Accept": "text/html"}), 406, "not-acceptable")
    problem(server.call("GET", "/api/v1/services", headers={"Accept": "application/json;q=0"}), 406, "not-acceptable")
    for fine in ("*/*", "application/*", "text/html, application/json;q=0.1", "text/*;q=0.9,*/*;q=0.5"):
        assert server.call("GET", "/api/v1/services", headers={"Accept": fine}).status == 200, fine
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        problem(server.call("PUT", PATH, body_of(), {"Content-Type": kind}), 415, "unsupported-media-type")
    problem(server.call("PUT", PATH, body_of(), {"Content-Type": "application/merge-patch+json"}), 415,
            "unsupported-media-type")
    assert server.call("GET", "/livez", headers={"X-Request-Id": "a.b-c_9"}).headers["x-request-id"] == "a.b-c_9"
    for odd in ("x" * 65, "a b", "a\tb"):
        assert server.call("GET", "/livez", headers={"X-Request-Id": odd}).headers["x-request-id"] != odd


@case
def metrics(server):
    a = server.call("GET", "/metrics")
    assert a.headers["content-type"].startswith("text/plain; version=0.0.4")
    text = a.body.decode()
    types = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
    helps = [line.split()[2] for line in text.splitlines() if line.startswith("# HELP")]
    assert types == helps and len(types) == len(set(types))
    series = [line.rsplit(" ", 1)[0] for line in text.splitlines() if not line.startswith("#")]
    assert len(series) == len(set(series))
    again = [line.rsplit(" ", 1)[0] for line in server.call("GET", "/metrics").body.decode().splitlines()
             if not line.startswith("#")]
    assert series == again
    for want in ('sluice_packets_total{port="p0",direction="in"}', "sluice_build_info{", "process_start_time_seconds",
                 'sluice_drops_total{reason="no_backend",class="fault",worker="w0"} 10',
                 'sluice_worker_received_packets_total{worker="w0"} 1000', 'sluice_worker_flows_created_total{worker="w1"}',
                 'sluice_backend_up{namespace="default",service="web",listener="http",backend="10.9.0.2:8080"} 1',
                 'sluice_vip_active_connections{vip="203.0.113.10:80/tcp",namespace="default",service="web"} 21',
                 'sluice_backend_state{namespace="prod",service="dns",listener="http",backend="10.9.0.5:8080",state="up"} 1',
                 'sluice_flow_table_capacity{worker="w0"} 100000', "sluice_ready 1"):
        assert want in text, want
    o = server.call("GET", "/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert o.headers["content-type"].startswith("application/openmetrics-text") and o.body.endswith(b"# EOF\n")
    assert b"# TYPE sluice_drops counter" in o.body and b"\nsluice_drops_total{" in o.body
    if shutil.which("promtool"):
        out = subprocess.run(["promtool", "check", "metrics"], input=a.body, capture_output=True, check=False)
        assert out.returncode == 0 and not out.stderr, out.stderr.decode()


# ---------------------------------------------------------------- who may
@case
def strangers_get_nothing(server):
    for path, ops in DOC["paths"].items():
        for method in ops:
            a = server.call(method.upper(), path.replace("{", "").replace("}", ""), tcp=True)
            if path in ("/livez", "/readyz"):
                assert a.status == 200 and a.body == b"ok\n"
                continue
            problem(a, 401, "unauthorized")
            assert a.headers["www-authenticate"].startswith("Bearer")
            assert "web" not in a.body.decode() and "203.0.113" not in a.body.decode()
    assert server.call("GET", "/readyz?verbose", tcp=True).body == b"ok\n"
    assert server.call("GET", "/nowhere", tcp=True).status == 401
    a = server.call("GET", "/api/v1/services", headers={"Authorization": "Basic dXNlcjpwYXNz"}, tcp=True)
    problem(a, 401, "unauthorized")


@case
def roles(server):
    drain = "/api/v1/services/default/web/backends/10.9.0.4/drain"
    assert server.call("GET", "/api/v1/services", tcp=True, token=TOKENS["viewer"]).status == 200
    assert b"[+]" in server.call("GET", "/readyz?verbose", tcp=True, token=TOKENS["viewer"]).body
    problem(server.call("POST", drain, {}, tcp=True, token=TOKENS["viewer"]), 403, "forbidden")
    assert server.call("POST", drain, {}, tcp=True, token=TOKENS["operator"]).status == 200
    assert server.call("POST", drain.replace("drain", "undrain"), tcp=True, token=TOKENS["operator"]).status == 200
    problem(server.call("PUT", PATH, body_of(), tcp=True, token=TOKENS["operator"]), 403, "forbidden")
    assert server.call("PUT", PATH, body_of(), tcp=True, token=TOKENS["admin"]).status == 201
    assert server.call("DELETE", PATH, tcp=True, token=TOKENS["admin"]).status == 204
    events = server.get("/api/v1/events?kind=api-change")["items"]
    assert "the admin" in events[-1]["text"] and TOKENS["admin"] not in json.dumps(events)


@case
def browsers_are_kept_out(server):
    for host in ("evil.example", "localhost.evil.example", "127.0.0.1.evil.example:80", "[::1", "127.0.0.1:x"):
        a = server.call("GET", "/api/v1/services", headers={"Host": host}, tcp=True, token=TOKENS["admin"])
        problem(a, 403, "origin-refused")
    for origin in ("http://evil.example", "null", "https://127.0.0.1", "http://127.0.0.1.evil"):
        a = server.call("PUT", PATH, body_of(), headers={"Origin": origin}, tcp=True, token=TOKENS["admin"])
        problem(a, 403, "origin-refused")
    own = f"127.0.0.1:{server.port}"
    a = server.call("GET", "/api/v1/services", headers={"Origin": "http://" + own}, tcp=True, token=TOKENS["admin"])
    assert a.status == 200
    assert server.call("GET", "/livez", headers={"Origin": "http://evil.example"}).status == 403


@case
def guesses_have_to_wait(server):
    guess = server.call("GET", "/api/v1/services", tcp=True, token="guess")
    problem(guess, 401, "unauthorized")
    held = server.call("GET", "/api/v1/services", tcp=True, token=TOKENS["admin"])
    problem(held, 429, "back-off")
    assert 1 <= int(held.headers["retry-after"]) <= 2
    assert server.call("GET", "/livez", tcp=True).status == 200
    assert server.call("GET", "/api/v1/services").status == 200  # not on the UNIX socket
    while server.call("GET", "/api/v1/services", tcp=True, token=TOKENS["admin"]).status == 429:
        time.sleep(0.2)
    assert server.call("GET", "/api/v1/services", tcp=True, token=TOKENS["admin"]).status == 200
    assert any(e["kind"] == "api-denied" for e in server.get("/api/v1/events")["items"])


@case
def tokens_can_be_changed(server):
    with open(server.tokens, encoding="ascii") as f:
        old = f.read()
    fresh = hashlib.sha256(b"fresh-token").hexdigest()
    with open(server.tokens, "w", encoding="ascii") as f:
        f.write(old + f"viewer {fresh}\n")
    assert server.call("GET", "/api/v1/digest", tcp=True, token="fresh-token").status == 200
    with open(server.tokens, "w", encoding="ascii") as f:
        f.write("root 1234\n")  # broken: the old ones stay
    assert server.call("GET", "/api/v1/digest", tcp=True, token="fresh-token").status == 200
    assert any(e["kind"] == "tokens-refused" for e in server.get("/api/v1/events")["items"])
    with open(server.tokens, "w", encoding="ascii") as f:
        f.write(old)


@case
def other_users_get_nothing(server):
    if os.geteuid() != 0:
        return "skipped: needs root"
    os.chmod(server.dir, 0o755)
    os.chmod(server.socket, 0o666)
    script = ("import socket,sys\nfor p in ('/api/v1/services','/livez'):\n s=socket.socket(socket.AF_UNIX)\n"
              " s.connect(sys.argv[1])\n s.sendall(('GET '+p+' HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n')"
              ".encode())\n print(s.recv(100).split()[1].decode())\n")
    out = subprocess.run([sys.executable, "-c", script, server.socket], capture_output=True, text=True, check=False,
                         user=65534, group=65534, extra_groups=[])
    os.chmod(server.socket, 0o660)
    assert out.stdout.split() == ["403", "200"], (out.stdout, out.stderr[-300:])
    return None


@case
def the_socket_file(server):
    assert os.stat(server.socket).st_mode & 0o777 == 0o660
    second = subprocess.run([STANDIN, server.socket], capture_output=True, text=True, timeout=20, check=False)
    assert second.returncode == 1 and "another process answers" in second.stderr, second.stderr
    server.alive()
    other = os.path.join(server.dir, "file")
    with open(other, "w", encoding="ascii") as f:
        f.write("precious")
    out = subprocess.run([STANDIN, other], capture_output=True, text=True, timeout=20, check=False)
    assert out.returncode == 1 and "not a socket" in out.stderr
    with open(other, encoding="ascii") as f:
        assert f.read() == "precious"
    server.process.kill()
    server.process.wait()
    assert os.path.exists(server.socket)  # stale now
    server.start()
    server.alive()


# ---------------------------------------------------------------- abuse
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
    yield "huge integer", put(b'{"spec":{"a":' + b"9" * 1000 + b"}}"), (400,)
    yield "huge exponent", put(b'{"spec":{"a":1e999999}}'), (400,)
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


# ---------------------------------------------------------------- sluicectl
def ctl(server, *args, env=None, check=None, text=None):
    out = subprocess.run([CTL, "--server", "unix:" + server.socket, *args], capture_output=True, text=True, timeout=60,
                         check=False, input=text, env=dict(os.environ, **(env or {})))
    if check is not None:
        assert out.returncode == check, (args, out.returncode, out.stdout, out.stderr)
    return out


@case
def ctl_reads(server):
    assert "READY" in ctl(server, "status", check=0).stdout
    for noun in ("services", "backends", "ports", "workers", "drops", "flows", "events", "config"):
        ctl(server, "get", noun, check=0)
        tree = json.loads(ctl(server, "get", noun, "-o", "json", check=0).stdout)
        assert noun == "config" or "items" in tree
        ctl(server, "get", noun, "-o", "yaml", check=0)
    assert ctl(server, "get", "backends", "default/web", "--no-headers", check=0).stdout.count("\n") == 3
    assert len(json.loads(ctl(server, "flows", "--all", "-o", "json", check=0).stdout)["items"]) == 5000
    assert len(json.loads(ctl(server, "flows", "--limit", "7", "-o", "json", check=0).stdout)["items"]) == 7
    assert "10.9.0.2" in ctl(server, "describe", "service", "default/web", check=0).stdout
    assert "verdicts" in ctl(server, "describe", "backend", "10.9.0.2:8080", check=0).stdout
    assert json.loads(ctl(server, "api", check=0).stdout)["openapi"]
    assert "sluiced" in ctl(server, "version", check=0).stdout
    assert "no_backend" in ctl(server, "drops", check=0).stdout
    assert "closed_port" in ctl(server, "drops", "closed_port", check=0).stdout
    explained = ctl(server, "explain", "tcp", "198.51.100.7:40000", "203.0.113.10:80", check=0).stdout
    assert explained.startswith(" 1 ") and "verdict: FORWARD" in explained
    ctl(server, "explain", "tcp", "198.51.100.7:40000", "203.0.113.10:9999", check=6)


@case
def ctl_yaml_is_yaml(server):
    try:
        import yaml
    except ImportError:
        return "skipped: no yaml module"
    for words in (["get", "services"], ["get", "workers"], ["get", "backends"], ["api"], ["status"]):
        tree = json.loads(ctl(server, *words, "-o", "json", check=0).stdout)
        same = yaml.safe_load(ctl(server, *words, "-o", "yaml", check=0).stdout)
        if words != ["status"]:
            for key in ("generation",):
                assert tree.get("metadata", {}).get(key) == same.get("metadata", {}).get(key)
            if words[-1] != "workers":
                assert tree == same, words
    return None


@case
def ctl_acts(server):
    ctl(server, "drain", "default/web", "10.9.0.3", "--reason", "disk", "--deadline", "1h", check=0)
    assert "draining" in ctl(server, "get", "backends", "default/web", check=0).stdout
    ctl(server, "drain", "default/web", "10.9.0.3", "--wait", "--timeout", "300ms", check=6)
    ctl(server, "undrain", "10.9.0.3:8080", check=5)
    ctl(server, "undrain", "backend", "10.9.0.3", check=0)
    ctl(server, "weight", "default/web", "10.9.0.3", "3", check=0)
    assert "weight 100" in ctl(server, "weight", "10.9.0.3", "default", check=0).stdout
    v6 = body_of("six", "2001:db8::50")
    v6["spec"]["backends"] = [{"address": "2001:db8:9::2", "ports": {"h": 8080}}]
    ctl(server, "apply", "-f", "-", text=json.dumps([body_of(), v6]), check=0)
    assert "[2001:db8:9::2]:8080" in ctl(server, "get", "backends", "ops/six", check=0).stdout
    ctl(server, "drain", "[2001:db8:9::2]:8080", check=0)
    assert "draining" in ctl(server, "describe", "backend", "2001:db8:9::2", check=0).stdout
    ctl(server, "delete", "ops/six", check=0)
    ctl(server, "delete", "service", "ops/one", check=0)
    ctl(server, "delete", "ops/one", check=3)
    ctl(server, "delete", "default/web", check=5)
    bad = body_of(mode="nope")
    out = ctl(server, "apply", "-f", "-", text=json.dumps(bad), check=1)
    assert "/spec/mode" in out.stderr and "allowed: fullnat" in out.stderr
    codes = {ctl(server, "reload").returncode for _ in range(2)}
    assert codes == {0, 1}


@case
def ctl_speaks_plainly(server):
    for args in (["bogus"], ["get"], ["get", "things"], ["drain"], ["drain", "not-an-address"], ["status", "--watch"],
                 ["status", "--nope"], ["get", "services", "-o", "xml"], ["weight", "10.9.0.3", "x"],
                 ["explain", "tcp", "1.2.3.4"], ["apply"], ["flows", "--limit", "0"], ["explain", "tcp", "a:1", "b:2"],
                 ["drain", "[1.2.3.4]:5"], ["d"]):
        out = ctl(server, *args, check=2)
        assert out.stderr.startswith("error: ") and out.stdout == "", (args, out.stdout, out.stderr)
    assert ctl(server, "get", "service", "default/nope", check=3).stderr.count("\n  try: ") == 1
    out = subprocess.run([CTL, "--server", "/nonexistent/s", "status"], capture_output=True, text=True, check=False)
    assert out.returncode == 4 and "cannot reach sluiced" in out.stderr and "  cause: " in out.stderr
    out = subprocess.run([CTL, "--server", "http://127.0.0.1:1", "status"], capture_output=True, text=True, check=False)
    assert out.returncode == 4
    table = ctl(server, "get", "backends", check=0).stdout
    assert "\x1b" not in table and "\\x1b" in table  # an escape sequence from outside
    assert "\x1b" not in ctl(server, "get", "backends", "-o", "json", check=0).stdout
    assert "\x1b" not in ctl(server, "get", "backends", "-o", "yaml", check=0).stdout
    for verb in ("status", "get", "drain", "explain", "help"):
        assert ctl(server, "help", verb, check=0).stdout.startswith(f"sluicectl {verb}")
        assert ctl(server, verb, "--help", check=0).stdout.startswith(f"sluicectl {verb}")


@case
def ctl_over_tcp(server):
    token = os.path.join(server.dir, "token")
    with open(token, "w", encoding="ascii") as f:
        f.write(TOKENS["viewer"] + "\n")
    url = f"http://127.0.0.1:{server.port}"
    env = dict(os.environ, SLUICE_SERVER=url, SLUICE_TOKEN_FILE=token)
    out = subprocess.run([CTL, "get", "services"], capture_output=True, text=True, env=env, check=False)
    assert out.returncode == 0 and "default" in out.stdout, out.stderr
    out = subprocess.run([CTL, "drain", "10.9.0.3"], capture_output=True, text=True, env=env, check=False)
    assert out.returncode == 1 and "forbidden" in out.stderr, out.stderr
    del env["SLUICE_TOKEN_FILE"]
    out = subprocess.run([CTL, "get", "services"], capture_output=True, text=True, env=env, check=False)
    assert out.returncode == 1 and "SLUICE_TOKEN_FILE" in out.stderr, out.stderr


@case
def ctl_doctor_needs_no_daemon(server):
    out = subprocess.run([CTL, "doctor", "-o", "json"], capture_output=True, text=True, check=False)
    assert out.returncode in (0, 1), out.stderr
    report = json.loads(out.stdout)
    assert report["items"] and all(i["id"] and i["severity"] in ("ok", "warn", "error") for i in report["items"])


@case
def links_no_dpdk(server):
    out = subprocess.run(["ldd", CTL], capture_output=True, text=True, check=True)
    assert "librte" not in out.stdout, out.stdout


def main():
    global DOC
    server = Server("--header-timeout", str(HEADER_MS), "--request-timeout", str(REQUEST_MS))
    DOC = document(server)
    failed = ran = 0
    for fn in CASES:
        if ONLY and not any(word in fn.__name__ for word in ONLY):
            continue
        ran += 1
        begun = time.monotonic()
        try:
            note = fn(server)
            print(f"ok {fn.__name__}{'' if note is None else f' ({note})'} {time.monotonic() - begun:.1f} s", flush=True)
        except Exception as e:  # every kind of failure is reported, and the next case runs
            failed += 1
            line = e.__traceback__.tb_next.tb_lineno
            print(f"FAILED {fn.__name__} line {line}: {type(e).__name__}: {str(e)[:1500]}", flush=True)
            if server.process.poll() is not None:
                print(server.tail())
                server.start()
    try:
        server.stop()
        assert not os.path.exists(server.socket), "the socket file was left behind"
    except AssertionError as e:
        failed += 1
        print(f"FAILED end: {e}")
    server.clean()
    print(f"{ran - failed} passed, {failed} failed")
    return 1 if failed or ran == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
