# SPDX-License-Identifier: BSD-3-Clause
"""The demo with a real Kubernetes API: a Service applied by kubectl, its VIP in `kubectl get svc`, traffic, pods exchanged under it,
the Service deleted. Called by scripts/demo --cluster."""
import json
import os
import sys
import time

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(TOP, "test/cluster"))
import lab as labs  # noqa: E402
import rig as rigs  # noqa: E402

PODS, LANES = 3, 4


def milliseconds(begun):
    return round((time.monotonic() - begun) * 1e3)


def bring_up(lab, progress, remember):
    begun = time.monotonic()
    lab.up()
    remember(lab)
    progress.ok(f"kube-apiserver, etcd and the EndpointSlice controller in a namespace of their own: {time.monotonic() - begun:.1f} s")
    lab.rig.start_backends(2 * PODS)
    begun = time.monotonic()
    lab.start()
    remember(lab)
    progress.ok(f"sluiced ready in {time.monotonic() - begun:.1f} s, as the ServiceAccount {labs.clusters.SLUICE_NAMESPACE}/"
                f"{labs.clusters.SLUICE_ACCOUNT} with the rights of config/kubernetes")


def serve(lab, progress):
    """Applies the Service and its pods; (VIPs, milliseconds from apply to the first answer)."""
    lab.add_web_pods(PODS)
    begun = time.monotonic()
    lab.cluster.apply(labs.web())
    vips = rigs.wait_for("the VIPs in status", lambda: len(lab.cluster.vips("web")) == 2 and lab.cluster.vips("web"))
    rigs.wait_for("the first answer", lambda: lab.rig.fetch(vips[0], timeout=1).startswith("b"))
    took = milliseconds(begun)
    rigs.wait_for("every pod up", lambda: [s for _, s in lab.rig.backends("default/web").values()] == ["up"] * 2 * PODS)
    progress.ok(f"kubectl apply to the first answer: {took} ms")
    progress.text(lab.cluster.kubectl("get", "svc", "web"))
    return vips, took


def roll(lab, vip):
    """Exchanges every pod for another while connections come; the load's summary."""
    load = lab.rig.load_start("rate", vip, "80", "200", "8")
    fresh = [lab.rig.backend_address(i) for i in range(PODS + 1, 2 * PODS + 1)]
    stale = [lab.rig.backend_address(i) for i in range(1, PODS + 1)]
    lab.add_web_pods(PODS, first=PODS + 1)
    rigs.wait_for("the new pods up", lambda: all(lab.rig.backends("default/web").get(a, ("", ""))[1] == "up" for a in fresh))
    for i in range(1, PODS + 1):
        lab.cluster.terminate_pod(f"web-{i}")
    rigs.wait_for("the old pods idle", lambda: not [b for b in lab.rig.get("/api/v1/backends?service=default/web")["items"]
                                                    if b["address"] in stale and (b["flows"] or b["state"] == "up")])
    for i in range(1, PODS + 1):
        lab.cluster.delete_pod(f"web-{i}")
    return lab.rig.load_finish(load)


def delete(lab, vip):
    """Milliseconds from the end of kubectl delete to the begin of the first connection that the VIP does not take."""
    lab.cluster.kubectl("delete", "svc", "web", "--wait=false")
    begun, tried = time.monotonic(), [0.0]

    def is_dead():
        tried[0] = time.monotonic()
        return lab.rig.fetch(vip, timeout=1).startswith("curl")
    rigs.wait_for("the VIP dead", is_dead)
    return round((tried[0] - begun) * 1e3)


def print_next(lab, vip):
    ctl = f"{lab.rig.program('sluicectl')} --server {lab.rig.socket}"
    kubectl = f"ip netns exec {lab.cluster.namespace} {lab.cluster.program('kubectl')} --kubeconfig {lab.cluster.path('admin.conf')}"
    print(f"""
Now try (as root):
  {kubectl} get svc web -o wide
  {kubectl} describe svc web
  {kubectl} get endpointslices
  {ctl} status
  {ctl} get backends
  ip netns exec {lab.rig.ns('client')} curl -s http://{vip}/
  {kubectl} delete svc web
  {TOP}/scripts/demo down""")


def run(args, home, progress, remember, down):
    lab, code = labs.Lab("demo", n_backends=PODS, n_spare=PODS, home=home, say=progress.ok), 1
    try:
        bring_up(lab, progress, remember)
        vips, took = serve(lab, progress)
        result = lab.rig.load("requests", vips[0], "80", str(args.requests), str(LANES), timeout_s=300)
        progress.result(result)
        result = {k: result[k] for k in ("requests", "failed", "backends", "p50_ms", "p99_ms", "errors")}
        rolled = roll(lab, vips[0])
        progress.ok(f"{PODS} pods exchanged under {rolled['requests']} connections: {rolled['failed']} failed")
        result.update(vips=vips, apply_to_answer_ms=took, rolled={k: rolled[k] for k in ("requests", "failed", "backends")})
        if args.once:
            result["deleted_to_dead_ms"] = delete(lab, vips[0])
            progress.ok(f"kubectl delete: the VIP takes no connection {result['deleted_to_dead_ms']} ms later")
        code = 0 if result["failed"] == 0 and rolled["failed"] == 0 and result["requests"] == args.requests else 1
        if args.json:
            print(json.dumps(result))
        elif not args.once and code == 0:
            print_next(lab, vips[0])
    except (rigs.RigError, labs.clusters.ClusterError, labs.clusters.build.NoCluster, labs.netns.ApiError, OSError, RuntimeError,
            KeyboardInterrupt) as e:
        print(f"error: {e}", file=sys.stderr)
        print(lab.rig.log_tail() if lab.rig.dir else "", file=sys.stderr)
        code = 1
    finally:
        if args.once or code != 0:
            lab.down()
            down(quiet=True)
    return code
