# SPDX-License-Identifier: BSD-3-Clause
"""The scripted API server against itself: what its watches say, played over its lists, gives its lists; and each fault is what it says."""
import http.client
import json
import random
import socket
import time

import pytest

import scale
from netns import Api, ApiError
from scripted import Fault, Scripted

SLICES = "/apis/discovery.k8s.io/v1/endpointslices"


@pytest.fixture
def server():
    made = Scripted().start()
    yield made
    made.stop()


@pytest.fixture
def api(server):
    made = Api("127.0.0.1", server.port, timeout=5)
    yield made
    made.close()


class Reader:
    """A watch on a connection of its own, read frame by frame."""

    def __init__(self, server, query, path=SLICES, headers=None):
        self.connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
        self.connection.request("GET", f"{path}?watch=true&{query}", headers=headers or {})
        self.answer = self.connection.getresponse()

    def frame(self):
        line = self.answer.readline()
        return json.loads(line) if line else None

    def close(self):
        self.answer.close()
        self.connection.close()


def play(state, frame):
    """One event over a copy of the list; the version it leads to."""
    obj = frame["object"]
    key = (obj["metadata"].get("namespace", ""), obj["metadata"].get("name", ""))
    if frame["type"] == "DELETED":
        assert key in state
        del state[key]
    elif frame["type"] in ("ADDED", "MODIFIED"):
        assert (frame["type"] == "MODIFIED") == (key in state), frame["type"]
        state[key] = obj
    return int(obj["metadata"]["resourceVersion"])


def listed(api, path=SLICES, query="?limit=7"):
    """A whole paged list: (state, version)."""
    state, page, token = {}, None, ""
    while page is None or token:
        page = api.get(path + query + (f"&continue={token}" if token else ""))
        for obj in page["items"]:
            state[(obj["metadata"].get("namespace", ""), obj["metadata"]["name"])] = obj
        token = page["metadata"].get("continue", "")
    return state, int(page["metadata"]["resourceVersion"])


def churn(server, rng, rounds):
    """Random adds, changes and deletes."""
    for _ in range(rounds):
        i = rng.randrange(40)
        if server.get("endpointslices", *scale.key_of(i)) and rng.random() < 0.4:
            server.remove("endpointslices", *scale.key_of(i))
        else:
            server.put("endpointslices", scale.slice_of(i, [f"10.9.0.{rng.randrange(1, 200)}" for _ in range(3)]))


def test_watch_over_list_gives_list(server, api):
    rng = random.Random(7)
    churn(server, rng, 100)
    states = [listed(api)]
    assert len(states[0][0]) > 7, "more than a page"
    for _ in range(4):
        churn(server, rng, 60)
        states.append(listed(api, query="?limit=500"))
    final, _ = states[-1]
    for state, version in states[:-1]:
        reader = Reader(server, f"resourceVersion={version}&timeoutSeconds=1")
        while (frame := reader.frame()) is not None:
            at = play(state, frame)
            assert at > version, "in order"
            version = at
        reader.close()
        assert state == final


def test_streaming_list_gives_list_and_goes_on(server, api):
    rng = random.Random(8)
    churn(server, rng, 80)
    wanted, version = listed(api)
    reader = Reader(server, "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&timeoutSeconds=30")
    state, frame = {}, reader.frame()
    while frame["type"] != "BOOKMARK":
        play(state, frame)
        frame = reader.frame()
    assert frame["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
    assert state == wanted and int(frame["object"]["metadata"]["resourceVersion"]) == version
    churn(server, rng, 40)
    wanted, version = listed(api)
    while play(state, reader.frame()) < version:
        pass
    assert state == wanted
    reader.close()
    server.watch_list = False
    with pytest.raises(ApiError) as refused:
        api.get(SLICES + "?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan")
    assert refused.value.status == 422


def test_list_is_of_its_first_page(server, api):
    server.put_all("endpointslices", [scale.slice_of(i, ["10.9.0.1"]) for i in range(10)])
    first = api.get(SLICES + "?limit=4")
    server.remove("endpointslices", *scale.key_of(8))
    second = api.get(SLICES + f"?limit=40&continue={first['metadata']['continue']}")
    assert first["metadata"]["remainingItemCount"] == 6 and len(second["items"]) == 6
    assert second["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"] and "continue" not in second["metadata"]
    with pytest.raises(ApiError) as refused:
        api.get(SLICES + "?continue=nonsense")
    assert refused.value.status == 410
    with pytest.raises(ApiError) as refused:
        api.get(SLICES + "?limit=4&resourceVersion=99999999&resourceVersionMatch=NotOlderThan")
    assert refused.value.status == 504
    assert server.most_lists("endpointslices", 30) == 2, "pages are not lists of their own"


def test_selectors_turn_changes_into_comings_and_goings(server):
    server.put("services", scale.service(1))
    reader = Reader(server, "resourceVersion=1000&fieldSelector=spec.type%3DLoadBalancer&timeoutSeconds=1", "/api/v1/services")
    assert reader.frame()["type"] == "ADDED"
    gone = scale.service(1)
    gone["spec"]["type"] = "ClusterIP"
    server.put("services", gone)
    assert reader.frame()["type"] == "DELETED"
    server.put("services", scale.service(1))
    assert reader.frame()["type"] == "ADDED"
    reader.close()


def test_bookmarks_and_deadline(server):
    server.bookmark_s = 0.05
    version = server.put("services", scale.service(1))
    begun = time.monotonic()
    reader = Reader(server, f"resourceVersion={version}&allowWatchBookmarks=true&timeoutSeconds=1", "/api/v1/services")
    frames = []
    while (frame := reader.frame()) is not None:
        frames.append(frame)
    assert len(frames) >= 3 and {f["type"] for f in frames} == {"BOOKMARK"} and time.monotonic() - begun >= 1
    assert {f["object"]["metadata"]["resourceVersion"] for f in frames} == {str(version)}
    reader.close()


def test_apply_owns_what_it_applied(server, api):
    server.put("services", scale.service(1))
    path = "/api/v1/namespaces/load/services/s00001"
    body = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s00001", "finalizers": ["sluice-lb.github.io/vip"]},
            "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.1"}]},
                       "conditions": [{"type": "sluice-lb.github.io/Allocated", "status": "True"}]}}
    foreign = {"status": {"conditions": [{"type": "other.io/x", "status": "True"}]}}

    def apply(change):
        return api.request("PATCH", f"{path}/status?fieldManager=sluice&force=true", change, "application/apply-patch+yaml")
    api.request("PATCH", f"{path}/status", foreign, "application/strategic-merge-patch+json")
    first = apply(body)
    assert first["status"]["loadBalancer"]["ingress"] == [{"ip": "203.0.113.1", "ipMode": "VIP"}]
    assert [c["type"] for c in first["status"]["conditions"]] == ["other.io/x", "sluice-lb.github.io/Allocated"]
    assert apply(body)["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"], "nothing changed: no new version"
    release = {"metadata": {"annotations": {"a": None}}, "status": {
        "loadBalancer": {"ingress": None}, "conditions": [{"type": "sluice-lb.github.io/Allocated", "$patch": "delete"}]}}
    freed = api.request("PATCH", f"{path}/status", release, "application/strategic-merge-patch+json")["status"]
    assert freed == {"loadBalancer": {}, "conditions": [{"type": "other.io/x", "status": "True"}]}
    apply(body)
    api.delete(path)
    assert server.get("services", "load", "s00001")["metadata"]["deletionTimestamp"], "the finalizer holds it"
    del body["status"]["conditions"]
    assert [c["type"] for c in apply(body)["status"]["conditions"]] == ["other.io/x"], "given up: gone"
    del body["metadata"]["finalizers"]
    apply(body)
    assert server.get("services", "load", "s00001") is None
    with pytest.raises(ApiError) as refused:
        apply(body)
    assert refused.value.status == 404


def test_leases_conflict(server, api):
    path = "/apis/coordination.k8s.io/v1/namespaces/sluice-system/leases"
    made = api.post(path, {"metadata": {"name": "leader"}, "spec": {"holderIdentity": "a"}})
    with pytest.raises(ApiError) as refused:
        api.post(path, {"metadata": {"name": "leader"}, "spec": {}})
    assert refused.value.status == 409 and "AlreadyExists" in refused.value.text
    made["spec"]["holderIdentity"] = "b"
    api.put(f"{path}/leader", made)
    made["spec"]["holderIdentity"] = "c"
    with pytest.raises(ApiError) as refused:
        api.put(f"{path}/leader", made)
    assert refused.value.status == 409 and api.get(f"{path}/leader")["spec"]["holderIdentity"] == "b"


def test_tokens_and_rights(server, api):
    server.tokens = {"good"}
    with pytest.raises(ApiError) as refused:
        api.get("/api/v1/nodes")
    assert refused.value.status == 401
    api.token = "good"
    assert api.get("/api/v1/nodes")["items"] == []
    server.denied = {("watch", "nodes"), ("patch", "services/status")}
    review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
              "spec": {"resourceAttributes": {"verb": "patch", "resource": "services", "subresource": "status"}}}
    asked = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    assert api.post(asked, review)["status"]["allowed"] is False
    review["spec"]["resourceAttributes"]["subresource"] = ""
    assert api.post(asked, review)["status"]["allowed"] is True
    with pytest.raises(ApiError) as refused:
        api.get("/api/v1/nodes?watch=true&resourceVersion=1000")
    assert refused.value.status == 403 and "watch resource" in refused.value.text


def test_refusals(server, api):
    server.put("endpointslices", scale.slice_of(1, ["10.9.0.1"]))
    server.fault(Fault(verb="list", resource="endpointslices", status=429, retry_after=3, plain="Too many requests, try later.\n"))
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    connection.request("GET", SLICES)
    answer = connection.getresponse()
    assert (answer.status, answer.read(), answer.headers["Retry-After"]) == (429, b"Too many requests, try later.\n", "3")
    connection.close()
    assert len(api.get(SLICES)["items"]) == 1, "once"
    server.fault(Fault(verb="watch", resource="endpointslices", event_status=410, times=2))
    for _ in range(2):
        reader = Reader(server, "resourceVersion=1000&timeoutSeconds=5")
        frame = reader.frame()
        assert frame["type"] == "ERROR" and frame["object"]["code"] == 410 and reader.frame() is None
        reader.close()
    server.compact()
    reader = Reader(server, "resourceVersion=1000&timeoutSeconds=5")
    assert reader.frame()["object"]["reason"] == "Expired"
    reader.close()
    assert [r.status for r in server.requests_of("watch", "endpointslices")] == [200, 200, 200]
    server.fault(Fault(kind="Potato"))
    assert api.get(SLICES)["kind"] == "Potato"


def test_broken_bodies(server, api):
    server.put_all("endpointslices", [scale.slice_of(i, ["10.9.0.1"]) for i in range(5)])
    server.fault(Fault(verb="list", cut=100))
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    connection.request("GET", SLICES)
    with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
        connection.getresponse().read()
    connection.close()
    server.fault(Fault(verb="watch", frames=[b'{"type": nonsense\n', b"\0\n"], only_frames=True))
    reader = Reader(server, "resourceVersion=1000")
    assert reader.answer.read() == b'{"type": nonsense\n\0\n'
    reader.close()
    server.fault(Fault(verb="watch", frames=[b"garbage\n"]))
    reader = Reader(server, "resourceVersion=1000&timeoutSeconds=5")
    assert reader.answer.readline() == b"garbage\n" and reader.frame()["type"] == "ADDED"
    reader.close()
    server.fault(Fault(reset=True))
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    connection.request("GET", SLICES)
    with pytest.raises((ConnectionResetError, http.client.RemoteDisconnected)):
        connection.getresponse()
    connection.close()
    server.fault(Fault(close=True))
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    connection.request("GET", SLICES)
    answer = connection.getresponse()
    assert answer.headers["Connection"] == "close" and len(json.loads(answer.read())["items"]) == 5 and connection.sock is None
    connection.close()


def test_slow_and_silent(server, api):
    server.put("endpointslices", scale.slice_of(1, ["10.9.0.1"]))
    reader = Reader(server, "resourceVersion=1000&timeoutSeconds=60")
    reader.frame()
    for fault in (Fault(silent="head"), Fault(silent="body"), Fault(rate=20)):
        server.fault(fault)
        with socket.create_connection(("127.0.0.1", server.port), 5) as sock:
            sock.sendall(f"GET {SLICES} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            sock.settimeout(0.2)
            got, end = b"", time.monotonic() + 0.4
            while time.monotonic() < end:
                try:
                    got += sock.recv(4096)
                except TimeoutError:
                    pass
            body = got.partition(b"\r\n\r\n")[2]
            assert (fault.silent == "head") == (got == b"") and len(body) < 20 and (fault.rate > 0) == (body != b""), (fault, got)
    server.fault(Fault(after_s=0.2))
    begun = time.monotonic()
    Api("127.0.0.1", server.port).get(SLICES)
    assert time.monotonic() - begun >= 0.2, "a slow head"
    server.freeze()
    server.put("endpointslices", scale.slice_of(2, ["10.9.0.1"]))
    reader.connection.sock.settimeout(0.3)
    with pytest.raises(TimeoutError):
        reader.answer.fp.raw._sock.recv(1)
    server.thaw()
    reader.connection.sock.settimeout(5)
    assert reader.answer.fp.raw._sock.recv(100), "it goes on where it stood"
    reader.close()
    server.stop_listening()
    with pytest.raises(ConnectionRefusedError):
        Api("127.0.0.1", server.port).get(SLICES)
    server.listen_again()
    assert len(Api("127.0.0.1", server.port).get(SLICES)["items"]) == 2


def test_stale_replica(server, api):
    server.put("endpointslices", scale.slice_of(1, ["10.9.0.1"]))
    before = server.remember()
    version = server.put("endpointslices", scale.slice_of(1, ["10.9.0.2"]))
    server.fault(Fault(older=before, times=4))

    def address(query):
        return api.get(SLICES + query)["items"][0]["endpoints"][0]["addresses"][0]
    assert address("?resourceVersion=0") == "10.9.0.1" and address("") == "10.9.0.2", "a read of the newest state is one"
    for query in (f"?resourceVersion={version}&resourceVersionMatch=NotOlderThan",
                  f"?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&resourceVersion={version}"):
        with pytest.raises(ApiError) as refused:
            api.get(SLICES + query)
        assert refused.value.status == 504
    assert address("?resourceVersion=0") == "10.9.0.2"


def test_gzip_only_when_offered(server):
    server.put_all("endpointslices", [scale.slice_of(i, ["10.9.0.1"]) for i in range(3)])
    reader = Reader(server, "resourceVersion=1000&timeoutSeconds=1", headers={"Accept-Encoding": "gzip"})
    assert reader.answer.headers["Content-Encoding"] == "gzip" and reader.answer.read(2) == b"\x1f\x8b"
    reader.close()
    assert server.requests[-1].headers["accept-encoding"] == "gzip"


def test_scale_and_flood():
    server = Scripted()
    scale.load(server.store, 1000, 10)
    server.start()
    try:
        api = Api("127.0.0.1", server.port)
        state, version = listed(api, query="?limit=500")
        assert len(state) == 1000 and sum(len(s["endpoints"]) for s in state.values()) == 10000
        flood = scale.Flood(server, 500)
        result = flood.run(10000, 0.5)
        assert result["updates"] == 5000
        reader = Reader(server, f"resourceVersion={version}&timeoutSeconds=1")
        while (frame := reader.frame()) is not None:
            play(state, frame)
        reader.close()
        assert state == listed(api, query="?limit=500")[0]
        assert all([e["conditions"]["ready"] for e in state[scale.key_of(i)]["endpoints"]].count(False) == 1 for i in range(500))
    finally:
        server.stop()
