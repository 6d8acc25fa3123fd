# SPDX-License-Identifier: BSD-3-Clause
"""The namespaces of the functional tests with a cluster's API beside them: sluiced in `lb` reaches it over mgmt0.

    client ── p0 [lb: sluiced] p1 ── fabric ── b1 .. bn          the data path, as in test/functional/rig.py
                  mgmt0 10.8.0.11 ── 10.8.0.1 the API             real (cluster.py) or scripted (scripted.py)

Pods have the addresses of b1 .. bn. VIPs come from the pools 203.0.113.0/26 and 2001:db8:f::/120.
"""
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "functional"))
import cluster as clusters  # noqa: E402
import netns  # noqa: E402
import rig as rigs  # noqa: E402
import scripted  # noqa: E402

POOLS = ('( { name = "public"; addresses = [ "203.0.113.0/26", "2001:db8:f::/120" ]; } )')
LEASES = {"lease_duration": "3s", "lease_renew_deadline": "2s", "lease_retry": "500ms"}
DEPLOY = os.path.join(rigs.TOP, "config", "kubernetes")


class ClusterRig(rigs.Rig):
    """A rig whose services come from a cluster, not from a file."""

    def __init__(self, *args, node_name="edge-1", **kw):
        super().__init__(*args, **kw)
        self.kubeconfig, self.pools, self.kubernetes = "", POOLS, {"node_name": node_name, **LEASES}

    def config_text(self, extra=""):
        text = super().config_text(extra)
        text = text.replace(f'file = "{self.dir}/services.json"', 'file = ""')
        rows = "".join(f' {k} = "{v}";' if isinstance(v, str) else f" {k} = {str(v).lower()};" for k, v in self.kubernetes.items())
        return text + (f'kubernetes = {{ enabled = true; kubeconfig = "{self.kubeconfig}"; pools = {self.pools};{rows} }};\n')

    def services(self):
        """Services by "namespace/name", as REST shows them."""
        return {f'{s["metadata"]["namespace"]}/{s["metadata"]["name"]}': s for s in self.get("/api/v1/services")["items"]}

    def backends(self, service):
        """{address: (port, state)}."""
        return {b["address"]: (b["port"], b["state"]) for b in self.get(f"/api/v1/backends?service={service}")["items"]}

    def digest(self):
        """Of the services in force: equal on every node that knows the same."""
        return self.get("/api/v1/digest")["digest"]

    def fetch(self, host, port=80, timeout=3):
        """One request from the client's namespace: the body, or the error's name."""
        out = self.run_in("client", "curl", "-gsS", "-m", str(timeout), f"http://{f'[{host}]' if ':' in host else host}:{port}/",
                          check=False)
        return out.stdout.strip() if out.returncode == 0 else f"curl {out.returncode}"


class Lab:
    """One API (its own, unless one is given) and one rig (or two) that use it."""

    def __init__(self, prefix, n_backends=3, n_spare=0, say=lambda text: None, home=None, cluster=None):
        self.prefix, self.borrowed = prefix, cluster is not None
        self.cluster = cluster or clusters.Cluster(prefix, home=os.path.join(home, "api") if home else None, say=say)
        self.rig = ClusterRig(prefix=prefix, n_backends=n_backends, n_spare=n_spare, home=home)
        self.rigs = [self.rig]

    def up(self):
        self.rig.up()
        if not self.borrowed:
            self.cluster.up()
        self.cluster.attach(self.rig.ns("lb"), 1)
        if os.path.isdir(DEPLOY):
            self.cluster.deploy(DEPLOY)
        return self

    def second(self, node_name="edge-2"):
        """Another sluiced with a data path of its own (same addresses, other namespaces), at the same API."""
        rig = ClusterRig(prefix=f"{self.prefix}2", n_backends=self.rig.n_backends, node_name=node_name)
        self.rigs.append(rig)
        rig.up()
        rig.start_backends()
        self.cluster.attach(rig.ns("lb"), len(self.rigs))
        return rig

    def drop(self, rig):
        self.rigs.remove(rig)
        rig.down()

    def start(self, rig=None, **kw):
        rig = rig or self.rig
        rig.kubeconfig = self.cluster.sluice_kubeconfig(rig.dir)
        rig.start_daemon(**kw)
        return rig

    def add_web_pods(self, n, app="web", first=1, port=8080):
        for i in range(first, first + n):
            self.cluster.add_pod(f"{app}-{i}", [self.rig.backend_address(i), self.rig.backend_address(i, 6)], {"app": app},
                                 ports={"http": port})

    def wait_for_web(self, *which):
        """default/web has just these backends, in each family it has."""
        def there():
            backends = self.rig.backends("default/web")
            families = {6 if ":" in a else 4 for a in backends}
            return bool(backends) and set(backends) == {self.rig.backend_address(i, f) for i in which for f in families}
        rigs.wait_for(f"backends {which} of default/web", there)

    def down(self):
        for rig in reversed(self.rigs):
            rig.down()
        if not self.borrowed:
            self.cluster.down()


class ScriptedLab:
    """A rig whose API is the scripted one, in the rig's lb namespace."""

    def __init__(self, prefix, n_backends=2, tls=False, **kw):
        self.rig = ClusterRig(prefix=prefix, n_backends=n_backends, **kw)
        self.tls, self.server, self.certificates = tls, None, None

    def up(self, fill=None):
        """fill(store): what is there before the server starts."""
        self.rig.up()
        if self.tls:
            self.certificates = clusters.Certificates(os.path.join(self.rig.dir, "pki"))
        self.server = scripted.Scripted(port=6443, listener=netns.listener_in(self.rig.ns("lb")),
                                        tls=self.certificates.server_context() if self.tls else None)
        if fill:
            fill(self.server.store)
        self.server.start()
        scheme = "https" if self.tls else "http"
        self.rig.kubeconfig = os.path.join(self.rig.dir, "kubeconfig")
        clusters.write_aside(self.rig.kubeconfig, clusters.kubeconfig(
            f"{scheme}://127.0.0.1:6443", {"token": "scripted"}, self.certificates.path("ca.crt") if self.tls else None))
        return self

    def down(self):
        self.rig.down()
        if self.server is not None:
            self.server.stop()


def web(name="web", app="web", families=("IPv4", "IPv6"), **spec):
    """A Service of the class sluice serves, in front of the pods of that app."""
    return clusters.load_balancer(name, {"app": app}, [("http", "TCP", 80, "http")], ipFamilies=list(families),
                                  ipFamilyPolicy="RequireDualStack" if len(families) > 1 else "SingleStack", **spec)
