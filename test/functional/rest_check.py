# SPDX-License-Identifier: BSD-3-Clause
"""The REST server and sluicectl against a stand-in for control: rest_check.py REST_STANDIN SLUICECTL [WORD ...]

Every answer is compared with /openapi.json; then the server is treated badly, and after each hostile request it must
still answer. Only the standard library and jsonschema. A WORD runs only the cases whose name contains it.
"""
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time

import jsonschema

from rest_client import (CASES, PATH, STANDIN, TOKENS, Document, Server, body_of, case,
                         check_shape, problem)

ONLY = sys.argv[3:]


@case
def document_is_sound(server):
    jsonschema.Draft202012Validator.check_schema({"components": Document.tree["components"]})
    assert Document.tree["openapi"].startswith("3.1")
    ids = [op["operationId"] for path in Document.tree["paths"].values() for op in path.values()]
    assert len(ids) == len(set(ids)) > 20
    text = json.dumps(Document.tree)
    for ref in {r for r in text.split('"') if r.startswith("#/components/schemas/")}:
        assert ref.split("/")[-1] in Document.tree["components"]["schemas"], ref


@case
def every_read_has_its_shape(server):
    fill = {"{namespace}": "default", "{name}": "web", "{address}": "10.9.0.2"}
    for path, ops in Document.tree["paths"].items():
        if "get" not in ops:
            continue
        url = path
        for name, value in fill.items():
            url = url.replace(name, value)
        a = server.call("GET", url)
        assert a.status == 200, (url, a.status, a.body[:300])
        check_shape(path, "GET", a)
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
    check_shape("/api/v1/services/{namespace}/{name}", "PUT", created)
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
def numbers_and_lengths_as_schemas_count(server):
    """80.0 is an integer, 80.5 none; lengths are characters, not bytes."""
    body = body_of()
    body["spec"]["listeners"][0]["port"] = 80.0
    body["spec"]["backends"][0]["weight"] = 7.0
    a = server.call("PUT", PATH, body)
    assert a.status == 201, (a.status, a.body)
    spec = a.json()["spec"]
    assert (spec["listeners"][0]["port"], spec["backends"][0]["weight"]) == (80, 7) and b"80.0" not in a.body, a.body
    assert server.call("DELETE", PATH).status == 204
    for number in (80.5, 1e300, -1e300, 65536.0):
        body["spec"]["listeners"][0]["port"] = number
        problem(server.call("PUT", PATH, body), 422, "invalid")
    assert server.get("/api/v1/services?namespace=" + 63 * "%F0%9F%98%8D")["items"] == []
    problem(server.call("GET", "/api/v1/services?namespace=" + 64 * "%F0%9F%98%8D"), 400, "bad-request")


@case
def modes_and_options(server):
    """Everything that a service can ask for is taken, shown as it was given, and written back as it was read."""
    given = [{"mode": mode, "scheduler": scheduler} for mode in ("fullnat", "dnat", "ipip", "gue", "l2dsr")
             for scheduler in ("maglev", "least-connections")]
    given += [{"clientAddress": "toa"}, {"clientAddress": "proxy-v2", "mode": "fullnat"}]
    given += [{"listeners": [{"name": "h", "protocol": p, "port": 80}]} for p in ("TCP", "UDP", "SCTP")]
    given += [{"listeners": [{"name": "h", "protocol": "UDP", "port": 1, "portMax": 65535}]},
              {"listeners": [{"name": "h", "protocol": "TCP", "port": 80, "portMax": 99}]}]
    given += [{"sourceRanges": [f"10.{i >> 8}.{i & 255}.0/24" for i in range(16384)]}]
    for spec in given:
        body = body_of(**spec)
        port = body["spec"]["listeners"][0]["port"]
        body["spec"]["backends"][0]["ports"]["h"] = port
        a = server.call("PUT", PATH, body)
        assert a.status in (200, 201), (spec, a.body[:300])
        check_shape("/api/v1/services/{namespace}/{name}", "PUT", a)
        shown = server.get(PATH)["spec"]
        for key, value in spec.items():
            if key == "listeners":
                value = [{"portMax": port, **value[0]}]
            assert shown[key] == value, (key, shown[key])
        back = server.call("PUT", PATH, server.call("GET", PATH).json())
        assert back.status == 200 and back.headers["etag"] == a.headers["etag"], spec
    assert server.call("DELETE", PATH).status == 204


@case
def what_does_not_go_together(server):
    """Refused at the place that is wrong, with what is allowed."""
    rows = [
        ({"mode": "ipip"}, "/spec/backends/0/ports/h", "allowed: 80"),
        ({"mode": "gue"}, "/spec/backends/0/ports/h", "mode gue does not change"),
        ({"mode": "l2dsr"}, "/spec/backends/0/ports/h", "10.9.1.2:8080"),
        ({"mode": "dnat", "clientAddress": "toa"}, "/spec/clientAddress", "mode fullnat"),
        ({"clientAddress": "proxy-v2", "listeners": [{"name": "h", "protocol": "UDP", "port": 80}]},
         "/spec/clientAddress", "TCP listener"),
        ({"listeners": [{"name": "h", "port": 80, "portMax": 90}]}, "/spec/backends/0/ports/h", "range of ports"),
        ({"listeners": [{"name": "h", "port": 80, "portMax": 90}, {"name": "i", "port": 90}]},
         "/spec/listeners/1/port", "overlaps"),
        ({"sourceRanges": ["10.0.0.0/8"] * 16385}, "/spec/sourceRanges", "16384"),
    ]
    for spec, pointer, words in rows:
        p = problem(server.call("PUT", PATH, body_of(**spec)), 422, "invalid")
        assert any(e["pointer"] == pointer and words in json.dumps(e) for e in p["errors"]), (spec.keys(), p["errors"])
    assert server.call("GET", PATH).status == 404


@case
def what_is_kept_is_released(server):
    base = "/api/v1/services/prod/dns/release"
    problem(server.call("POST", base.replace("dns", "nobody")), 404, "not-found")
    problem(server.call("POST", base.replace("prod/dns", "default/web")), 404, "not-found")
    problem(server.call("POST", base, {"why": 1}), 422, "invalid")
    assert server.call("POST", base).status == 204
    problem(server.call("POST", base), 404, "not-found")


@case
def operators_words(server):
    base = "/api/v1/services/default/web/backends/10.9.0.3"
    a = server.call("POST", base + "/drain", {"deadline": "5m", "onDeadline": "reset", "reason": "new disk"})
    check_shape("/api/v1/services/{namespace}/{name}/backends/{address}/drain", "POST", a)
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
    for f in some["items"]:  # dnat: the backend sees the client
        assert f["backendPort"] == 8080 and (f["source"], f["sourcePort"]) == (f["client"], f["clientPort"]), f
    oneway = server.get("/api/v1/flows?backend=10.9.0.2&limit=5")["items"]
    assert oneway and all((f["source"], f["sourcePort"]) == (f["client"], f["clientPort"]) for f in oneway), oneway
    nat = server.get("/api/v1/flows?backend=10.9.0.3&limit=5")["items"]
    assert nat and all(f["source"] == "192.0.2.1" and f["backendPort"] == 8080 for f in nat), nat
    problem(server.call("GET", "/api/v1/flows?service=no/such"), 404, "not-found")
    problem(server.call("GET", "/api/v1/flows?limit=1001"), 400, "bad-request")
    wrong = some["metadata"]["continue"]
    problem(server.call("GET", f"/api/v1/flows?continue={wrong}"), 400, "bad-request")


@case
def explains(server):
    q = {"source": "198.51.100.7", "sourcePort": 40000, "destination": "203.0.113.10", "destinationPort": 80,
         "protocol": "TCP", "flags": "S"}
    a = server.call("POST", "/api/v1/explain", q)
    check_shape("/api/v1/explain", "POST", a)
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
    for path, ops in Document.tree["paths"].items():
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


def register():
    import rest_abuse  # noqa: F401  (its cases come after those above)
    import rest_ctl  # noqa: F401


def main():
    register()
    server = Server()
    Document.tree = server.get("/openapi.json")
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
