# SPDX-License-Identifier: BSD-3-Clause
"""Changes while traffic flows: a good one touches only what it names, a bad one touches nothing."""
import json
import os
import random
import signal

import rig as rigs

OTHER_VIP = "203.0.113.11"


def two_services(n_web=3):
    return rigs.web_items(n_web) + rigs.web_items(3, families=(4,), name="other", vips=(OTHER_VIP,), port=80)


def reload_file(rig, items):
    before = rig.generation()
    rig.write_services(items)
    rig.daemon.send_signal(signal.SIGHUP)
    rigs.wait_for("the new generation", lambda: rig.generation() > before)


def refused_reloads(rig):
    return len([e for e in rig.get("/api/v1/events?after=0")["items"] if e["kind"] == "reload-refused"])


def test_editing_one_service_leaves_the_other_alone(make_rig):
    rig = make_rig(items=two_services())
    for name in rig.backend_names():
        with open(os.path.join(rig.dir, name, "files", "long"), "wb") as f:
            f.write(os.urandom(1 << 16) * 96)
    lost_before = rig.drops()
    long_ones = rig.load_start("download", OTHER_VIP, "80", "/files/long", "12", "2000000")
    load = rig.load_start("rate", OTHER_VIP, "80", "200", "5")
    for n in (2, 3, 1, 3, 2, 3):
        reload_file(rig, two_services(n))
    result = rig.load_finish(load)
    assert result["failed"] == 0, result["failures"][:3]
    assert all(d["error"] is None for d in rig.load_finish(long_ones)["downloads"])
    lost = {k: v - lost_before.get(k, 0) for k, v in rig.drops().items() if v != lost_before.get(k, 0)}
    assert not set(lost) - {"no_flow_quiet"}, f"packets lost while another service changed: {lost}"
    rig.assert_accounted()
    rig.stop_daemon()


def test_broken_file_changes_nothing(web):
    digest, generation = web.get("/api/v1/digest")["digest"], web.generation()
    good = json.dumps({"apiVersion": "v1", "kind": "List", "items": rigs.web_items(3)}, indent=1)
    broken = [good[:-30], good.replace('"TCP"', '"TPC"'), good.replace("8080", "80800"), good + good, "[", "",
              good.replace("192.0.2.12", "127.0.0.1"), good.replace('"kind": "Service"', '"kind": "Servise"'),
              good.replace("203.0.113.10", "not-an-address"), "\x00" * 64]
    for text in broken:
        refused = refused_reloads(web)
        with open(web.services_path(), "w", encoding="ascii") as f:
            f.write(text)
        web.daemon.send_signal(signal.SIGHUP)
        rigs.wait_for("the refusal", lambda: refused_reloads(web) > refused)
        assert web.generation() == generation and web.get("/api/v1/digest")["digest"] == digest
    result = web.load("requests", rigs.VIP4, "80", "100", "8")
    assert result["failed"] == 0
    web.write_services(rigs.web_items(3))
    web.daemon.send_signal(signal.SIGHUP)


def test_ten_thousand_mutations_of_a_body(web):
    """Random damage to a REST body: accepted or refused with a word, the daemon lives, traffic goes on."""
    rng = random.Random(20261124)
    base = json.dumps({
        "metadata": {"namespace": "fuzz", "name": "one"},
        "spec": {"addresses": ["203.0.113.77"], "listeners": [{"name": "h", "protocol": "TCP", "port": 80}],
                 "healthCheck": {"kind": "tcp", "interval": "1s", "timeout": "500ms", "rise": 2, "fall": 2},
                 "sourceRanges": ["198.51.100.0/24"], "idleTimeout": {"tcp": "15m", "udp": "60s"},
                 "backends": [{"address": "192.0.2.11", "ports": {"h": 8080}, "weight": 100}]}})
    connection = rigs.UnixConnection(web.socket)
    refused = accepted = 0
    digest = web.get("/api/v1/digest")["digest"]
    for _ in range(10000):
        text = bytearray(base.encode())
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(text))
            choice = rng.random()
            if choice < 0.4:
                text[at] = rng.randrange(256)
            elif choice < 0.7:
                del text[at:at + rng.randint(1, 8)]
            else:
                text[at:at] = bytes(rng.choice(b'{}[]",:0129eE-.\\u') for _ in range(rng.randint(1, 4)))
        connection.request("PUT", "/api/v1/services/fuzz/one?dryRun=true", bytes(text),
                           {"Content-Type": "application/json"})
        response = connection.getresponse()
        body = response.read()
        assert response.status in (200, 201, 400, 409, 422), (response.status, bytes(text), body[:200])
        if response.status >= 400:
            refused += 1
            problem = json.loads(body)
            assert problem["status"] == response.status and problem["detail"], problem
        else:
            accepted += 1
    connection.close()
    assert refused > 5000, (refused, accepted)
    assert web.get("/api/v1/digest")["digest"] == digest
    assert web.load("requests", rigs.VIP4, "80", "100", "8")["failed"] == 0


def test_reload_of_the_configuration(web):
    """SIGHUP with a broken configuration keeps the old one; one that needs a restart says so."""
    path = os.path.join(web.dir, "sluice.conf")
    with open(path, encoding="ascii") as f:
        good = f.read()
    for bad in (good.replace("adaptive", "adaptif"), good + "nonsense = 1;\n", good[:40]):
        refused = refused_reloads(web)
        with open(path, "w", encoding="ascii") as f:
            f.write(bad)
        web.daemon.send_signal(signal.SIGHUP)
        rigs.wait_for("the refusal", lambda: refused_reloads(web) > refused)
    with open(path, "w", encoding="ascii") as f:
        f.write(good.replace("100000", "200000"))
    web.daemon.send_signal(signal.SIGHUP)
    rigs.wait_for("the word about a restart", lambda: any(
        "restart" in e["text"] and "flows.capacity" in e["text"] for e in web.get("/api/v1/events?after=0")["items"]))
    with open(path, "w", encoding="ascii") as f:
        f.write(good)
    assert web.load("requests", rigs.VIP4, "80", "100", "8")["failed"] == 0
