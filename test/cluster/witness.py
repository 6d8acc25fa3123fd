# SPDX-License-Identifier: BSD-3-Clause
"""Traffic through a VIP, and what sluiced shows of itself, while its API is in trouble: not one packet may change.

    witness = Witness(rig, vip, "default/web"); trouble(); witness.stay(); ...; witness.end(["b1", "b2"])

SLUICE_OUTAGE_S: how long a trouble lasts (CI: 3 s each; by hand 600). SLUICE_OUTAGE_RATE, SLUICE_OUTAGE_LONG: new connections a second
and connections that are held all the time.
"""
import os
import time

import rig as rigs

OUTAGE_S = float(os.environ.get("SLUICE_OUTAGE_S", "3"))
RATE, LONG = os.environ.get("SLUICE_OUTAGE_RATE", "50"), os.environ.get("SLUICE_OUTAGE_LONG", "50")
LIMIT_S = str(OUTAGE_S + 400)               # of the load, should nobody end it
LISTS_AT_ONCE, LIST_EVERY_S = 3, 30.0       # reliability: one list in 30 s and resource after a burst of three


class Witness:
    def __init__(self, rig, vip, service):
        self.rig, self.service, self.begun = rig, service, time.monotonic()
        self.before, self.lists = rigs.wait_for("a state at rest", self.at_rest), self.lists_begun()
        self.polls = 0
        self.long = rig.load_start("hold", vip, "80", LONG, str(float(LIMIT_S) * 2), LIMIT_S)
        rigs.wait_for("the long connections", lambda: sum(self.flows()) >= int(LONG))
        self.short = rig.load_start("rate", vip, "80", RATE, LIMIT_S)

    def resources(self):
        return {r["name"]: r for r in self.rig.get("/api/v1/kubernetes")["resources"]}

    def flows(self):
        return [b["flows"] for b in self.rig.get(f"/api/v1/services/{self.service}")["status"]["backends"]]

    def lists_begun(self):
        return {name: r["lists"] for name, r in self.resources().items()}

    def shown(self):
        """What the data path works by: the services in force, the generation of its tables, who is up."""
        digest = self.rig.get("/api/v1/digest")
        return digest["digest"], digest["generation"], self.rig.backend_states(self.service)

    def at_rest(self):
        """What is shown, once nothing is on its way any more."""
        shown = self.shown()
        time.sleep(0.2)
        return shown if shown == self.shown() else None

    def stay(self, tend=None):
        """For as long as the trouble lasts; tend(): what it takes to go on, each second."""
        end = time.monotonic() + OUTAGE_S
        while True:
            self.unchanged()
            if time.monotonic() >= end:
                return
            time.sleep(min(1.0, OUTAGE_S))
            if tend:
                tend()

    def unchanged(self):
        shown = self.shown()
        assert shown == self.before, f"after {time.monotonic() - self.begun:.1f} s: {shown}, before {self.before}"
        self.polls += 1

    def within_budget(self):
        """Lists of every resource since the beginning; gives the most."""
        took_s = time.monotonic() - self.begun
        counts = {name: n - self.lists.get(name, 0) for name, n in self.lists_begun().items()}
        allowed = LISTS_AT_ONCE + 1 + int(took_s / LIST_EVERY_S)
        assert max(counts.values()) <= allowed, f"{counts} lists in {took_s:.1f} s, allowed {allowed}"
        return max(counts.values())

    def end(self, allowed):
        """No request failed, no long connection ended or moved, and all were answered by backends that were allowed to."""
        lists = self.within_budget()
        held, short = self.rig.load_stop(self.long), self.rig.load_stop(self.short)
        assert short["requests"] > 0 and short["failed"] == 0, (short["errors"], short["failures"][:5])
        assert held["failed"] == 0 and held["requests"] == int(LONG), held
        assert set(short["backends"]) <= set(allowed), short["backends"]
        print(f"{time.monotonic() - self.begun:.0f} s: {short['requests']} connections, {LONG} long ones with {held['exchanges']} requests, "
              f"none failed; state read {self.polls} times; at most {lists} lists of a resource")
