# SPDX-License-Identifier: BSD-3-Clause
"""A real Kubernetes API in a network namespace of its own: etcd, kube-apiserver, kube-controller-manager (its EndpointSlice controllers).

    api namespace: 127.0.0.1:2379 etcd, 0.0.0.0:6443 kube-apiserver, bridge mgmt 10.8.0.1/24 ── mgmt0 10.8.0.11 .. in each attached namespace

No kubelet, scheduler or node: a Node is an object, a Pod is an object whose status this file writes, with the address of a real server
in another namespace. Everything lives in one folder and is gone after down(), which ends only what up() started.
"""
import base64
import json
import os
import shutil
import signal
import ssl
import subprocess
import tempfile
import time
import unittest

import build
import netns

ADDRESS, PORT, ETCD = "10.8.0.1", 6443, "http://127.0.0.1:2379"
ADMIN_TOKEN, HOLDER_TOKEN = "0123456789abcdef-admin", "0123456789abcdef-holder"
CONTROLLERS = ("endpointslice-controller,endpointslice-mirroring-controller,namespace-controller,garbage-collector-controller,"
               "serviceaccount-controller")
FLOWS = "/apis/flowcontrol.apiserver.k8s.io/v1"
SLUICE_NAMESPACE, SLUICE_ACCOUNT = "sluice-system", "sluice"
READY_LIMIT_S = 60


class ClusterError(OSError):
    pass


def run(*args, check=True, text_in=None, timeout=60, cwd=None):
    out = subprocess.run(args, input=text_in, capture_output=True, text=True, timeout=timeout, cwd=cwd, check=False)
    if check and out.returncode != 0:
        raise ClusterError(f"{' '.join(args)}: {out.stderr.strip() or out.stdout.strip()}")
    return out


def wait_for(what, fn, timeout_s=30.0, step_s=0.02):
    end, last = time.monotonic() + timeout_s, None
    while time.monotonic() < end:
        try:
            value = fn()
            if value:
                return value
        except (OSError, ClusterError, netns.ApiError, ssl.SSLError, ValueError, KeyError, IndexError) as e:
            last = e
        time.sleep(step_s)
    raise ClusterError(f"timeout after {timeout_s} s waiting for {what}" + (f": {last}" if last else ""))


def write_aside(path, text, mode=0o600):
    fd = os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(fd, "w", encoding="ascii") as f:
        f.write(text)
    os.rename(path + ".new", path)


class Certificates:
    """A CA and what it signs, in one folder."""

    def __init__(self, home, addresses=("127.0.0.1", ADDRESS)):
        self.home = home
        os.makedirs(home, exist_ok=True)
        self.make_ca("ca")
        self.addresses = addresses
        self.server("server")

    def path(self, name):
        return os.path.join(self.home, name)

    def _key(self, name):
        run("openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", self.path(f"{name}.key"))

    def make_ca(self, name):
        self._key(name)
        run("openssl", "req", "-x509", "-new", "-key", self.path(f"{name}.key"), "-subj", f"/CN=test {name}", "-days", "2",
            "-addext", "keyUsage=critical,keyCertSign,cRLSign", "-out", self.path(f"{name}.crt"))

    def sign(self, name, subject, extensions, ca="ca", days=2):
        self._key(name)
        run("openssl", "req", "-new", "-key", self.path(f"{name}.key"), "-subj", subject, "-out", self.path(f"{name}.csr"))
        write_aside(self.path(f"{name}.ext"), extensions)
        run("openssl", "x509", "-req", "-in", self.path(f"{name}.csr"), "-CA", self.path(f"{ca}.crt"), "-CAkey", self.path(f"{ca}.key"),
            "-CAcreateserial", "-days", str(days), "-extfile", self.path(f"{name}.ext"), "-out", self.path(f"{name}.crt"))

    def server(self, name, ca="ca"):
        names = ",".join([f"IP:{a}" for a in self.addresses] + ["DNS:localhost", "DNS:kubernetes.default.svc"])
        self.sign(name, "/CN=kube-apiserver", f"subjectAltName={names}\nextendedKeyUsage=serverAuth\n", ca)

    def client(self, name, user, group, ca="ca"):
        self.sign(name, f"/O={group}/CN={user}", "extendedKeyUsage=clientAuth\n", ca)

    def inline(self, name):
        with open(self.path(name), "rb") as f:
            return base64.b64encode(f.read()).decode()

    def server_context(self, name="server"):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.path(f"{name}.crt"), self.path(f"{name}.key"))
        return context

    def client_context(self, ca="ca"):
        return ssl.create_default_context(cafile=self.path(f"{ca}.crt"))


def make_network(namespace):
    """The namespace of an API: a bridge that others are attached to. Its MAC is its own: else it changes as ports come and go."""
    run("ip", "netns", "add", namespace)
    run("ip", "-n", namespace, "-batch", "-", text_in=(
        "link set lo up\nlink add mgmt address 02:00:00:00:08:01 type bridge forward_delay 0 stp_state 0\n"
        f"addr add {ADDRESS}/24 dev mgmt\nlink set mgmt up\n"))


def attach(api_namespace, namespace, i):
    """Gives a namespace the management network: mgmt0, 10.8.0.(10 + i)."""
    run("ip", "-n", api_namespace, "link", "add", f"m{i}", "type", "veth", "peer", "name", "mgmt0", "netns", namespace)
    run("ip", "-n", api_namespace, "-batch", "-", text_in=f"link set m{i} master mgmt\nlink set m{i} up\n")
    run("ip", "-n", namespace, "-batch", "-", text_in=f"addr add 10.8.0.{10 + i}/24 dev mgmt0\nlink set mgmt0 up\n")


def kubeconfig(server, user, ca_file=None, cluster_extra=None):
    """A kubeconfig as kubectl writes it. user: the fields of users[].user (none: nobody in particular)."""
    cluster = {"server": server, **({"certificate-authority": ca_file} if ca_file else {}), **(cluster_extra or {})}

    def fields(of, indent):
        return "".join(f"{' ' * indent}{k}: {json.dumps(v) if isinstance(v, (bool, int)) else v}\n" for k, v in of.items())
    return ("apiVersion: v1\nkind: Config\npreferences: {}\ncurrent-context: test\n"
            "contexts:\n- name: test\n  context:\n    cluster: test\n    user: test\n"
            f"clusters:\n- name: test\n  cluster:\n{fields(cluster, 4)}"
            f"users:\n- name: test\n" + (f"  user:\n{fields(user, 4)}" if user else "  user: {}\n"))


class Cluster:
    def __init__(self, prefix, home=None, gates="", say=lambda text: None):
        self.namespace, self.gates, self.say = f"{prefix}-api", gates, say
        self.home = home or tempfile.mkdtemp(prefix=f"{prefix}-api-")
        self.children = {}      # name -> Popen
        self.api = self.holder = None
        self.bin = self.certificates = None

    # ------------------------------------------------------------ life
    def up(self):
        self.bin = build.programs(self.say)
        os.makedirs(self.home, exist_ok=True)
        make_network(self.namespace)
        self.certificates = Certificates(self.path("pki"))
        self._make_secrets()
        self.start_etcd()
        self.start_apiserver()
        self.start_controllers()
        self.api = self.client(ADMIN_TOKEN)
        self.add_node("node-1", "192.0.2.101")
        self.add_node("node-2", "192.0.2.102", zone="zone-b")
        return self

    def path(self, *names):
        return os.path.join(self.home, *names)

    def _make_secrets(self):
        run("openssl", "genrsa", "-out", self.path("sa.key"), "2048")
        run("openssl", "rsa", "-in", self.path("sa.key"), "-pubout", "-out", self.path("sa.pub"))
        write_aside(self.path("tokens.csv"), f'{ADMIN_TOKEN},admin,admin,"system:masters"\n{HOLDER_TOKEN},holder,holder\n')
        write_aside(self.path("admin.conf"), kubeconfig(f"https://127.0.0.1:{PORT}", {"token": ADMIN_TOKEN},
                                                        self.certificates.path("ca.crt")))

    def spawn(self, name, *args):
        with open(self.path(f"{name}.log"), "ab") as log:
            child = subprocess.Popen(["ip", "netns", "exec", self.namespace, *args], start_new_session=True, stdin=subprocess.DEVNULL,
                                     stdout=log, stderr=log, cwd=self.home)
        self.children[name] = child
        return child

    def program(self, name):
        return os.path.join(self.bin, name)

    def start_etcd(self):
        self.spawn("etcd", self.program("etcd"), "--data-dir", self.path("etcd"), "--listen-client-urls", ETCD,
                   "--advertise-client-urls", ETCD, "--listen-peer-urls", "http://127.0.0.1:2380",
                   "--initial-advertise-peer-urls", "http://127.0.0.1:2380", "--initial-cluster", "default=http://127.0.0.1:2380",
                   "--unsafe-no-fsync=true", "--logger=zap", "--log-level=warn")

    def start_apiserver(self, wait=True, server_certificate="server", client_ca="ca", more=()):
        pki = self.certificates.path
        gates = [f"--feature-gates={self.gates}"] if self.gates else []
        self.spawn("apiserver", self.program("kube-apiserver"), f"--etcd-servers={ETCD}", "--bind-address=0.0.0.0",
                   f"--advertise-address={ADDRESS}", f"--secure-port={PORT}", f"--tls-cert-file={pki(server_certificate + '.crt')}",
                   f"--tls-private-key-file={pki(server_certificate + '.key')}", f"--client-ca-file={pki(client_ca + '.crt')}",
                   f"--service-account-issuer=https://{ADDRESS}:{PORT}/", f"--service-account-key-file={self.path('sa.pub')}",
                   f"--service-account-signing-key-file={self.path('sa.key')}", "--service-cluster-ip-range=10.0.0.0/20,fd00:10::/112",
                   "--authorization-mode=RBAC", f"--token-auth-file={self.path('tokens.csv')}",
                   "--disable-admission-plugins=ServiceAccount", "--allow-privileged=true", "--endpoint-reconciler-type=none",
                   f"--cert-dir={self.path('own')}", "--shutdown-delay-duration=0", *gates, *more)
        if wait:
            self.wait_ready()
            if "controllers" in self.children:
                # left alone they come back after a pause of their own, of up to half a minute
                self.end("controllers", signal.SIGKILL)
                self.start_controllers()

    def start_controllers(self):
        """Not all folders of KUBEBUILDER_ASSETS have them: then nothing that stands on Pods can be shown."""
        if not os.access(self.program("kube-controller-manager"), os.X_OK):
            self.say("no kube-controller-manager: cases with Pods are skipped")
            return
        self.spawn("controllers", self.program("kube-controller-manager"), f"--kubeconfig={self.path('admin.conf')}",
                   f"--controllers={CONTROLLERS}", f"--service-account-private-key-file={self.path('sa.key')}",
                   f"--root-ca-file={self.certificates.path('ca.crt')}", "--leader-elect=false", "--secure-port=0",
                   "--kube-api-qps=500", "--kube-api-burst=500")

    def wait_ready(self):
        api = self.client(ADMIN_TOKEN, timeout=2)

        def ready():
            if self.children["apiserver"].poll() is not None:
                raise SystemExit(f"kube-apiserver ended:\n{self.log_tail('apiserver')}")
            return api.raw("GET", "/readyz")[0] == 200
        try:
            wait_for("kube-apiserver", ready, READY_LIMIT_S, 0.05)
        except SystemExit as e:
            raise ClusterError(str(e)) from e
        finally:
            api.close()

    def log_tail(self, name, n=20):
        try:
            with open(self.path(f"{name}.log"), encoding="utf-8", errors="replace") as f:
                return "".join(f.readlines()[-n:])
        except OSError:
            return "(no log)"

    def end(self, name, sig=signal.SIGTERM, timeout_s=5):
        """Ends one of the programs, by its pid."""
        child = self.children.pop(name, None)
        if child is None:
            return
        if child.poll() is None:
            child.send_signal(signal.SIGCONT)
            child.send_signal(sig)
        try:
            child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()

    def down(self):
        if self.api is not None:
            self.api.close()
        # the server waits for its etcd when that is gone first; nothing here is worth a graceful end
        for name in ("controllers", "apiserver", "etcd", *list(self.children)):
            self.end(name, signal.SIGKILL)
        run("ip", "netns", "del", self.namespace, check=False)
        shutil.rmtree(self.home, ignore_errors=True)

    # ------------------------------------------------------------ trouble
    def mend(self):
        """Whatever a test left broken: the server runs, as it is."""
        if "apiserver" not in self.children or self.children["apiserver"].poll() is not None:
            self.kill_apiserver()
            self.start_apiserver()
        self.thaw()
        if self.holder is not None:
            self.relent()

    def kill_apiserver(self):
        self.end("apiserver", signal.SIGKILL)

    def restart_apiserver(self, **kw):
        self.kill_apiserver()
        self.start_apiserver(**kw)

    def freeze(self, name="apiserver"):
        self.children[name].send_signal(signal.SIGSTOP)

    def thaw(self, name="apiserver"):
        self.children[name].send_signal(signal.SIGCONT)

    def partition(self, namespace):
        """No packet between the API and that namespace, and no word about it."""
        netns_run(namespace, "nft", "-f", "-", text_in=(
            "table netdev gone {\n chain c { type filter hook ingress device mgmt0 priority 0; policy drop; }\n}\n"
            "table inet gone {\n chain c { type filter hook output priority 0; oifname mgmt0 drop; }\n}\n"))

    def heal(self, namespace):
        netns_run(namespace, "nft", "delete table netdev gone; delete table inet gone")

    def throttle(self, user):
        """429 for everything that user asks: a priority level with no seat lets one request in at a time, and that one is ours, unfinished."""
        self.api.post(f"{FLOWS}/prioritylevelconfigurations", {
            "metadata": {"name": "test-nothing"}, "spec": {"type": "Limited", "limited": {
                "nominalConcurrencyShares": 0, "lendablePercent": 0, "borrowingLimitPercent": 0, "limitResponse": {"type": "Reject"}}}})
        self.api.post(f"{FLOWS}/flowschemas", {
            "metadata": {"name": "test-nothing"}, "spec": {
                "priorityLevelConfiguration": {"name": "test-nothing"}, "matchingPrecedence": 100, "rules": [{
                    "subjects": [{"kind": "User", "user": {"name": name}} for name in (user, "holder")],
                    "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "clusterScope": True, "namespaces": ["*"]}],
                    "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}]}]}})
        self.hold_seat()
        probe = self.client(HOLDER_TOKEN, timeout=1)
        wait_for("429", lambda: probe.raw("GET", "/api/v1/nodes")[0] == 429 or self.hold_seat())
        probe.close()

    def hold_seat(self):
        """A request whose body never ends; the server gives it up after a minute."""
        if self.holder is not None:
            self.holder.close()
        self.holder = self.certificates.client_context().wrap_socket(
            netns.connect(self.namespace, "127.0.0.1", PORT), server_hostname="127.0.0.1")
        self.holder.sendall((f"POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n"
                             f"Content-Type: application/json\r\nAuthorization: Bearer {HOLDER_TOKEN}\r\n\r\n{{").encode())

    def relent(self):
        self.api.delete(f"{FLOWS}/flowschemas/test-nothing")
        self.api.delete(f"{FLOWS}/prioritylevelconfigurations/test-nothing")
        if self.holder is not None:
            self.holder.close()
            self.holder = None

    # ------------------------------------------------------------ clients
    def client(self, token=None, timeout=20, ca="ca"):
        return netns.Api("127.0.0.1", PORT, self.namespace, self.certificates.client_context(ca), token, timeout)

    def reopen(self):
        """Our own client reads the CA again."""
        self.api.close()
        self.api = self.client(ADMIN_TOKEN)

    def kubectl(self, *args, check=True, text_in=None, timeout=60):
        out = run("ip", "netns", "exec", self.namespace, self.program("kubectl"), "--kubeconfig", self.path("admin.conf"),
                  f"--cache-dir={self.path('cache')}", *args, check=check, text_in=text_in, timeout=timeout)
        return out.stdout if check else out

    def apply(self, *objects):
        self.kubectl("apply", "-f", "-", text_in=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}))

    def attach(self, namespace, i):
        attach(self.namespace, namespace, i)

    # ------------------------------------------------------------ sluice's identity
    def deploy(self, folder):
        """What config/kubernetes holds: namespace, account, rights, CRD."""
        self.kubectl("apply", "-k", folder)
        wait_for("the CRD", lambda: self.api.get("/apis/sluice-lb.github.io/v1alpha1"), 20)

    def token(self, seconds=3600):
        answer = self.api.post(f"/api/v1/namespaces/{SLUICE_NAMESPACE}/serviceaccounts/{SLUICE_ACCOUNT}/token", {
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": seconds}})
        return answer["status"]["token"]

    def write_token(self, path, seconds=3600):
        write_aside(path, self.token(seconds) + "\n")

    def sluice_kubeconfig(self, folder, name="kubeconfig", server=None, ca_file=None):
        """A kubeconfig with a token file, for sluice's ServiceAccount; returns its path."""
        self.write_token(os.path.join(folder, f"{name}.token"))
        path = os.path.join(folder, name)
        write_aside(path, kubeconfig(server or f"https://{ADDRESS}:{PORT}", {"tokenFile": os.path.join(folder, f"{name}.token")},
                                     ca_file or self.certificates.path("ca.crt")))
        return path

    # ------------------------------------------------------------ nodes and pods
    def add_node(self, name, address, zone="zone-a"):
        self.api.post("/api/v1/nodes", {"metadata": {"name": name, "labels": {"topology.kubernetes.io/zone": zone}}})
        self.api.merge(f"/api/v1/nodes/{name}/status", {"status": {
            "addresses": [{"type": "InternalIP", "address": address}], "conditions": [{"type": "Ready", "status": "True"}]}})

    def add_pod(self, name, addresses, labels, ports=None, ready=True, node="node-1", namespace="default", **spec):
        """A Pod whose addresses are real servers'. ports: {name: number}."""
        if "controllers" not in self.children:
            raise unittest.SkipTest(f"no kube-controller-manager in {self.bin}: nobody makes slices of Pods")
        container = {"name": "c", "image": "none", "ports": [{"name": n, "containerPort": p} for n, p in (ports or {}).items()]}
        self.api.post(f"/api/v1/namespaces/{namespace}/pods", {
            "metadata": {"name": name, "labels": labels}, "spec": {"nodeName": node, "containers": [container], **spec}})
        self.set_pod(name, ready, addresses, namespace)

    def set_pod(self, name, ready, addresses=None, namespace="default"):
        status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True" if ready else "False"}]}
        if addresses:
            status.update(podIP=addresses[0], podIPs=[{"ip": a} for a in addresses])
        self.api.request("PATCH", f"/api/v1/namespaces/{namespace}/pods/{name}/status", {"status": status},
                         "application/strategic-merge-patch+json")

    def terminate_pod(self, name, namespace="default"):
        """No kubelet: it stays, terminating, until delete_pod."""
        self.api.delete(f"/api/v1/namespaces/{namespace}/pods/{name}", 30)

    def delete_pod(self, name, namespace="default"):
        self.api.delete(f"/api/v1/namespaces/{namespace}/pods/{name}", 0)

    # ------------------------------------------------------------ services
    def service(self, name, namespace="default"):
        return self.api.get(f"/api/v1/namespaces/{namespace}/services/{name}")

    def vips(self, name, namespace="default"):
        ingress = (self.service(name, namespace)["status"].get("loadBalancer") or {}).get("ingress") or []
        return [i["ip"] for i in ingress if "ip" in i]

    def ports(self, name, namespace="default"):
        """Of each ingress: [(port, protocol, error)]."""
        ingress = (self.service(name, namespace)["status"].get("loadBalancer") or {}).get("ingress") or []
        return [[(p["port"], p["protocol"], p.get("error", "")) for p in i.get("ports") or []] for i in ingress]

    def slices(self, name, namespace="default"):
        return self.api.get(f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"
                            f"?labelSelector=kubernetes.io/service-name%3D{name}")["items"]

    def events(self, name, namespace="default"):
        items = self.api.get(f"/apis/events.k8s.io/v1/namespaces/{namespace}/events")["items"]
        return [e for e in items if (e.get("regarding") or {}).get("name") == name]

    def conditions(self, name, namespace="default"):
        return {c["type"]: c for c in self.service(name, namespace)["status"].get("conditions") or []}


def netns_run(namespace, *args, **kw):
    return run("ip", "netns", "exec", namespace, *args, **kw)


def load_balancer(name, selector, ports, namespace="default", annotations=None, load_balancer_class="sluice-lb.github.io/sluice", **spec):
    """A Service of type LoadBalancer. ports: [(name, protocol, port, targetPort)]."""
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": namespace,
                                                                "annotations": dict(annotations or {})},
            "spec": {"type": "LoadBalancer", "loadBalancerClass": load_balancer_class, "selector": selector,
                     "ports": [{"name": n, "protocol": p, "port": port, "targetPort": target} for n, p, port, target in ports], **spec}}
