# SPDX-License-Identifier: BSD-3-Clause
"""What the REST checks share: the stand-in as a program under test, a client that can also send raw bytes, and the
comparison of answers with /openapi.json. A check is a function with @case that takes the server."""
import hashlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

import jsonschema

BUILD = os.environ.get("SLUICE_BUILD")
if BUILD:  # under pytest
    STANDIN, CTL = BUILD + "/test/functional/rest_standin", BUILD + "/app/sluicectl/sluicectl"
else:
    STANDIN, CTL = sys.argv[1:3]
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
    def __init__(self):
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
        self.options = ["--tcp", "127.0.0.1", str(self.port), self.tokens,
                        "--header-timeout", str(HEADER_MS), "--request-timeout", str(REQUEST_MS)]
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
def validator(doc, ref):
    return jsonschema.Draft202012Validator({"$ref": ref, "components": doc["components"]})


def check_shape(path, method, answer):
    """The body against the schema that the document gives for this status."""
    doc = Document.tree
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
    errors = [e.message for e in validator(Document.tree, "#/components/schemas/Problem").iter_errors(p)]
    assert not errors, errors
    return p


class Document:
    """The OpenAPI document of the server, read once."""
    tree = None
