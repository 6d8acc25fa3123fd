# SPDX-License-Identifier: BSD-3-Clause
"""The rig for forwarding modes: backends that have the VIPs and take tunnels apart, and a cable from the client to them, over which
replies of the one-way modes go straight to the client."""
import os
import subprocess

import rig as rigs

DIRECT4, DIRECT6 = "192.0.2.200", "2001:db8:2::200"


class ModeRig(rigs.Rig):
    """The rig with a cable from the client to the backends, and decapsulating backends."""

    def up(self):
        super().up()
        run, ns = rigs.run, self.ns
        run("ip", "-n", ns("fabric"), "link", "add", "back", "type", "veth", "peer", "name", "eth1", "netns", ns("client"))
        run("ip", "netns", "exec", ns("client"), "ethtool", "-K", "eth1", "tx", "off")
        self._batch("fabric", "link set back master br0", "link set back up")
        self._batch("client", "link set eth1 up", f"addr add {DIRECT4}/24 dev eth1",
                    f"addr add {DIRECT6}/64 dev eth1 nodad")
        for name in self.backend_names():
            self.decapsulate(name)
        return self

    def decapsulate(self, name):
        rigs.run("ip", "netns", "exec", self.ns(name), "sysctl", "-qw", "net.ipv4.conf.all.arp_ignore=1",
                 "net.ipv4.conf.all.arp_announce=2")
        self._batch(name, f"addr add {rigs.VIP4}/32 dev lo", f"addr add {rigs.VIP6}/128 dev lo nodad")
        child = self.spawn(name, rigs.PYTHON, os.path.join(rigs.HERE, "decap.py"), what="decap",
                           stdout=subprocess.PIPE, text=True)
        assert child.stdout.readline().strip() == "ready"

    def replies(self, direct, names=None, via=(None, None)):
        """Where backends send what is for clients: to the client itself, or back through sluice."""
        for name in names or self.backend_names():
            v4, v6 = via if via[0] else ((DIRECT4, DIRECT6) if direct else ("192.0.2.2", "2001:db8:2::2"))
            self._batch(name, f"route replace 198.51.100.0/24 via {v4}", f"route replace 2001:db8:1::/64 via {v6}")

    def forget_paths(self):
        """What the client learnt of path MTUs belongs to the mode before."""
        for family in ("-4", "-6"):
            self.run_in("client", "ip", family, "route", "flush", "cache", check=False)

    def serve(self, items):
        generation = self.generation()
        self.write_services(items)
        self.daemon_reload()
        rigs.wait_for("the services", lambda: self.generation() > generation)

    def daemon_reload(self):
        self.daemon.send_signal(rigs.signal.SIGHUP)


def items_of(mode, vip_family, backend_family, **annotations):
    notes = {"sluice-lb.github.io/health-check": "none", "sluice-lb.github.io/mode": mode}
    notes.update({f"sluice-lb.github.io/{k.replace('_', '-')}": v for k, v in annotations.items()})
    vip = rigs.VIP4 if vip_family == 4 else rigs.VIP6
    addresses = [rigs.Rig.backend_address(i, backend_family) for i in (1, 2, 3)]
    return [rigs.service("web", [vip], [("http", "TCP", 80)], annotations=notes),
            rigs.slice_of("web", addresses, [("http", "TCP", 80)])]
