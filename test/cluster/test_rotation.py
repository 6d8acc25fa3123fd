# SPDX-License-Identifier: BSD-3-Clause
"""Token, client certificate and CA are rotated under load, each so that the old one is worth nothing from the moment the new one is there.

Objects change all the time; the gap is the longest time from a change to its arrival. It is printed, not judged, unless
SLUICE_ROTATION_GAP_S says by how many seconds. SLUICE_ROTATIONS: rounds of all three (CI: 1).
"""
import os
import ssl
import threading
import time

import cluster as clusters
import lab as labs
import pytest
import rig as rigs
import scale

ROUNDS = int(os.environ.get("SLUICE_ROTATIONS", "1"))
ALLOWED_S = float(os.environ.get("SLUICE_ROTATION_GAP_S", "0"))
VIP = "203.0.113.10"
NO_CHECK = {"sluice-lb.github.io/health-check": "none"}


class Changes(threading.Thread):
    """Gives service 2 another endpoint, again and again, each as soon as the one before has arrived."""

    def __init__(self, world):
        super().__init__(name="changes", daemon=True)
        self.world, self.gaps, self.is_stopped, self.failure = world, [], False, None

    def run(self):
        try:
            while not self.is_stopped:
                self.change(scale.endpoint_of(2, len(self.gaps) % 16))
        except Exception as e:  # to be raised where somebody waits
            self.failure = e

    def change(self, address):
        begun = time.monotonic()
        self.world.server.put("endpointslices", scale.slice_of(2, [address]))
        rigs.wait_for(f"{address}", lambda: list(self.world.rig.backends("load/s00002")) == [address], 60, 0.01)
        self.gaps.append((begun, time.monotonic() - begun))

    def arrive(self):
        """A change that was made after this call has arrived."""
        now = time.monotonic()
        rigs.wait_for("a change after that", lambda: self.failure or self.gaps and self.gaps[-1][0] > now, 90)
        if self.failure:
            raise self.failure

    def longest(self, since):
        return max(gap for begun, gap in self.gaps if begun + gap > since)


def fill(store):
    store.put("namespaces", {"metadata": {"name": "default"}})
    store.put("nodes", {"metadata": {"name": "node-1"}, "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.101"}]}})
    store.put("services", scale.service(1, NO_CHECK, VIP))
    store.put("endpointslices", scale.slice_of(1, ["192.0.2.11", "192.0.2.12"]))
    store.put("services", scale.service(2, NO_CHECK, "203.0.113.11"))
    store.put("endpointslices", scale.slice_of(2, [scale.endpoint_of(2, 0)]))


class Identities:
    """What both sides know each other by, as files; new ones under the same names."""

    def __init__(self, world):
        self.world, self.pki, self.n = world, world.certificates, 0
        self.token_file, self.token = self.pki.path("token"), ""
        self.pki.make_ca("clients")
        self.issuer, self.server, self.trusted = "clients", "server", "clients"
        for step in (self.new_token, self.new_certificate):
            step()

    def put(self, name, source):
        with open(self.pki.path(source), encoding="ascii") as f:
            clusters.write_aside(self.pki.path(name), f.read())

    def context(self):
        context = self.pki.server_context(self.server)
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(self.pki.path(f"{self.trusted}.crt"))
        return context

    def new_token(self):
        self.n += 1
        self.token = f"token-{self.n}"
        clusters.write_aside(self.token_file, self.token + "\n")
        self.world.server.tokens = {self.token}

    def new_certificate(self):
        """Of another authority: the old one has no more say."""
        self.n += 1
        self.trusted = f"clients-{self.n}"
        self.pki.make_ca(self.trusted)
        self.pki.client(f"me-{self.n}", "sluice", "system:serviceaccounts", ca=self.trusted)
        self.put("me.crt", f"me-{self.n}.crt")
        self.put("me.key", f"me-{self.n}.key")
        self.world.server.change_tls(self.context())

    def new_ca(self):
        self.n += 1
        authority, self.server = f"ca-{self.n}", f"server-{self.n}"
        self.pki.make_ca(authority)
        self.pki.server(self.server, ca=authority)
        self.put("ca.crt", f"{authority}.crt")
        self.world.server.change_tls(self.context())


@pytest.fixture
def world(make_lab):
    made = make_lab(labs.ScriptedLab, n_backends=2, tls=True).up(fill)
    made.rig.start_backends()
    made.identities = Identities(made)
    pki = made.certificates
    clusters.write_aside(made.rig.kubeconfig, clusters.kubeconfig("https://127.0.0.1:6443", {
        "tokenFile": made.identities.token_file, "client-certificate": pki.path("me.crt"), "client-key": pki.path("me.key")},
        pki.path("ca.crt")))
    made.rig.start_daemon()
    rigs.wait_for("it serves", lambda: made.rig.fetch(VIP).startswith("b"), 30)
    yield made
    made.rig.stop_daemon()


def test_rotation_under_load(world):
    identities, server = world.identities, world.server
    load = world.rig.load_start("rate", VIP, "80", "100", "600")
    changes = Changes(world)
    changes.start()
    longest = {}
    try:
        for name, step in [("token", identities.new_token), ("client certificate", identities.new_certificate),
                           ("CA", identities.new_ca)] * ROUNDS:
            changes.arrive()
            since = time.monotonic()
            step()
            server.drop_connections()
            changes.arrive()
            longest[name] = max(longest.get(name, 0.0), changes.longest(since))
    finally:
        changes.is_stopped = True
        changes.join(70)
        result = world.rig.load_stop(load)
    print(f"{ROUNDS} times each, longest from a change to its arrival: " + ", ".join(f"{n} {s:.2f} s" for n, s in longest.items()) +
          f"; {len(changes.gaps)} changes, {result['requests']} connections meanwhile, {result['failed']} failed")
    assert result["failed"] == 0 and result["requests"] > 0, result
    refused = [r for r in server.requests if r.status == 401]
    assert all(r.user != identities.token for r in refused), "the token in force is refused"
    assert ALLOWED_S == 0 or max(longest.values()) <= ALLOWED_S, longest
    world.rig.assert_accounted()
