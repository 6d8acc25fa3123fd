# SPDX-License-Identifier: BSD-3-Clause
"""Ten thousand Services with ten endpoints each, and floods of changes, for the scripted API server.

Everything is encoded before it is needed: a flood of 10,000 endpoint updates a second is a thousand slices of ten endpoints, each sent as
bytes that only get their resourceVersion. `load` fills a store in the thread that calls it: call it before the server starts.
"""
import asyncio
import json
import time

from store import MARK, encode

NAMESPACE = "load"
TICK_S = 0.01


def name_of(i):
    return f"s{i:05d}"


def vip_of(i):
    return f"10.{64 + (i >> 16)}.{(i >> 8) & 255}.{i & 255}"


def cluster_ip_of(i):
    return f"10.{96 + (i >> 16)}.{(i >> 8) & 255}.{i & 255}"


def endpoint_of(i, k):
    """A hundred thousand addresses of a pod network that leads nowhere, apart from those a caller names."""
    n = i * 16 + k
    return f"10.{128 + (n >> 16)}.{(n >> 8) & 255}.{n & 255}"


def service(i, annotations=None, vip=None, load_balancer_class="sluice-lb.github.io/sluice"):
    return {"apiVersion": "v1", "kind": "Service",
            "metadata": {"name": name_of(i), "namespace": NAMESPACE, "uid": f"00000000-0000-4000-8000-{i:012d}",
                         "creationTimestamp": "2026-01-01T00:00:00Z", "annotations": dict(annotations or {})},
            "spec": {"type": "LoadBalancer", "loadBalancerClass": load_balancer_class, "clusterIP": cluster_ip_of(i),
                     "clusterIPs": [cluster_ip_of(i)], "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
                     "allocateLoadBalancerNodePorts": False, "externalTrafficPolicy": "Cluster", "internalTrafficPolicy": "Cluster",
                     "sessionAffinity": "None", "selector": {"app": name_of(i)},
                     "ports": [{"name": "http", "protocol": "TCP", "port": 80, "targetPort": 8080}]},
            "status": {"loadBalancer": {"ingress": [{"ip": vip or vip_of(i), "ipMode": "VIP"}]}}}


def slice_of(i, addresses, port=8080, ready=None):
    """ready: per endpoint; None: all."""
    ready = ready or [True] * len(addresses)
    return {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": f"{name_of(i)}-x7k2p", "namespace": NAMESPACE, "uid": f"00000000-0000-4000-9000-{i:012d}",
                         "creationTimestamp": "2026-01-01T00:00:00Z", "generation": 1,
                         "labels": {"kubernetes.io/service-name": name_of(i),
                                    "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": [a], "conditions": {"ready": r, "serving": r, "terminating": False}, "nodeName": f"node-{k}",
                           "zone": "zone-a", "targetRef": {"kind": "Pod", "namespace": NAMESPACE, "name": f"{name_of(i)}-{k}",
                                                           "uid": f"00000000-0000-4000-a000-{i * 16 + k:012d}"}}
                          for k, (a, r) in enumerate(zip(addresses, ready))],
            "ports": [{"name": "http", "protocol": "TCP", "port": port}]}


def load(store, n_services, n_endpoints, annotations=None):
    """n_services Services with one slice of n_endpoints each."""
    for i in range(n_services):
        store.put("services", service(i, annotations))
        store.put("endpointslices", slice_of(i, [endpoint_of(i, k) for k in range(n_endpoints)]))


def key_of(i):
    return (NAMESPACE, f"{name_of(i)}-x7k2p")


class Flood:
    """So many endpoint updates a second, as slices of ten, round and round over n_slices services.

    In each round every slice of the window turns one endpoint's readiness: a real change of what has to be programmed."""

    def __init__(self, server, n_slices, n_endpoints=10, first=0):
        self.server, self.n_endpoints = server, n_endpoints
        self.parts = []
        for i in range(first, first + n_slices):
            addresses = [endpoint_of(i, k) for k in range(n_endpoints)]
            variants = [encode(slice_of(i, addresses, ready=[k != turn for k in range(n_endpoints)])) for turn in range(2)]
            self.parts.append((key_of(i), slice_of(i, addresses)["metadata"]["labels"], variants))
        self.sent, self.behind_s, self.took_s = 0, 0.0, 0.0

    def run(self, endpoints_per_second, seconds):
        """Runs on the server's loop until done; how late the sender itself was at worst is in behind_s."""
        self.server.call(self._run, endpoints_per_second / self.n_endpoints, seconds)
        return {"updates": self.sent * self.n_endpoints, "seconds": round(self.took_s, 3), "behind_s": round(self.behind_s, 3)}

    async def _run(self, per_second, seconds):
        store, begun, total = self.server.store, time.monotonic(), int(per_second * seconds)
        while self.sent < total:
            now = time.monotonic() - begun
            due = min(total, int(now * per_second) + 1)
            self.behind_s = max(self.behind_s, now - self.sent / per_second)
            while self.sent < due:
                key, labels, variants = self.parts[self.sent % len(self.parts)]
                head, tail = variants[(self.sent // len(self.parts)) % 2]
                store.put_text("endpointslices", key, head, tail, labels)
                self.sent += 1
            await asyncio.sleep(TICK_S)
        self.took_s = time.monotonic() - begun


if __name__ == "__main__":
    print(json.dumps(slice_of(0, [endpoint_of(0, 0)]), indent=1), MARK)
