# SPDX-License-Identifier: BSD-3-Clause
"""What the scripted API server holds: objects as encoded text, one resourceVersion for all, a window of events per resource.

An object is kept only as the bytes that are served, cut where its resourceVersion stands, so that a preload of 10,000 services and a
flood of updates cost no encoding. Reads and writes belong to the thread of the server's event loop.
"""
import collections
import json
import uuid
from datetime import datetime, timezone

WINDOW = 20000  # events kept per resource; a watch from before them is told 410
MARK = '"@version@"'


class Kind:
    def __init__(self, base, kind, namespaced):
        self.base, self.kind, self.namespaced = base, kind, namespaced
        self.version = base.split("/", 2)[2] if base.startswith("/apis/") else base.rsplit("/", 1)[1]


KINDS = {
    "services": Kind("/api/v1", "Service", True),
    "nodes": Kind("/api/v1", "Node", False),
    "namespaces": Kind("/api/v1", "Namespace", False),
    "pods": Kind("/api/v1", "Pod", True),
    "endpointslices": Kind("/apis/discovery.k8s.io/v1", "EndpointSlice", True),
    "leases": Kind("/apis/coordination.k8s.io/v1", "Lease", True),
    "events": Kind("/apis/events.k8s.io/v1", "Event", True),
    "addresspools": Kind("/apis/sluice-lb.github.io/v1alpha1", "AddressPool", False),
    "servicecidrs": Kind("/apis/networking.k8s.io/v1", "ServiceCIDR", False),
}


class Refused(Exception):
    def __init__(self, code, reason, message):
        super().__init__(message)
        self.code, self.reason, self.message = code, reason, message


class Entry:
    """One object: head + resourceVersion + tail."""
    __slots__ = ("head", "tail", "version", "labels", "type")

    def __init__(self, head, tail, version, labels, kind_type):
        self.head, self.tail, self.version, self.labels, self.type = head, tail, version, labels, kind_type

    def text(self):
        return b'%s"%d"%s' % (self.head, self.version, self.tail)

    def json(self):
        return json.loads(self.text())


def now_text(micro=False):
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ" if micro else "%Y-%m-%dT%H:%M:%SZ")


def encode(obj):
    """Object to (head, tail) around its resourceVersion."""
    obj["metadata"]["resourceVersion"] = MARK[1:-1]
    text = json.dumps(obj, separators=(",", ":"))
    head, tail = text.split(MARK)
    return head.encode(), tail.encode()


class Selector:
    """The label and field selectors that clients of Services send."""

    def __init__(self, labels="", fields=""):
        self.terms = [t.strip() for t in labels.split(",") if t.strip()]
        self.name, self.type, self.namespace = None, None, None
        # kube-proxy wants no headless Services; who has some here asks the real server
        for term in [t for t in fields.split(",") if t and t != "spec.clusterIP!=None"]:
            key, _, value = term.replace("==", "=").partition("=")
            if key == "metadata.name":
                self.name = value
            elif key == "metadata.namespace":
                self.namespace = value
            elif key == "spec.type":
                self.type = value
            else:
                raise Refused(400, "BadRequest", f'"{key}" is not a known field selector')
        self.all = not self.terms and self.name is None and self.type is None and self.namespace is None

    def admits(self, key, labels, kind_type):
        if self.all:
            return True
        if (self.name is not None and key[1] != self.name) or (self.type is not None and kind_type != self.type) or \
                (self.namespace is not None and key[0] != self.namespace):
            return False
        return all(self._term(t, labels) for t in self.terms)

    @staticmethod
    def _term(term, labels):
        if term.startswith("!"):
            return term[1:] not in labels
        if "!=" in term:
            key, _, value = term.partition("!=")
            return labels.get(key) != value
        if "=" in term:
            key, _, value = term.replace("==", "=").partition("=")
            return labels.get(key) == value
        return term in labels


class Event:
    __slots__ = ("version", "type", "key", "labels", "kind_type", "text", "before")

    def __init__(self, version, event_type, key, entry, text, before):
        self.version, self.type, self.key, self.text = version, event_type, key, text
        self.labels, self.kind_type = entry.labels, entry.type
        self.before = before  # (labels, type) of the object before this change: a selector may admit only one of them

    def frame(self, selector, namespace):
        """The line of the watch, or None when this watcher does not see it."""
        if namespace and self.key[0] != namespace:
            return None
        now = self.type != "DELETED" and selector.admits(self.key, self.labels, self.kind_type)
        was = self.before is not None and selector.admits(self.key, *self.before)
        if not now and not was:
            return None
        shown = "MODIFIED" if now and was else "ADDED" if now else "DELETED"
        return b'{"type":"%s","object":%s}\n' % (shown.encode(), self.text)


class Store:
    def __init__(self, first_version=1000):
        self.version = first_version
        self.objects = {r: {} for r in KINDS}
        self.log = {r: collections.deque(maxlen=WINDOW) for r in KINDS}
        self.floor = {r: first_version for r in KINDS}  # a watch from below this is told 410
        self.listeners = {r: set() for r in KINDS}       # called with each event
        self.applied = {}                                # (resource, key, manager) -> what it applied last

    # ------------------------------------------------------------ writes
    def _note(self, resource, event_type, key, entry, before):
        log = self.log[resource]
        if len(log) == log.maxlen:
            self.floor[resource] = log[0].version
        event = Event(entry.version, event_type, key, entry, entry.text(), before)
        log.append(event)
        for listener in list(self.listeners[resource]):
            listener(event)

    def put(self, resource, obj):
        """Adds or replaces an object; fills in what a server fills in. Returns its entry."""
        kind = KINDS[resource]
        meta = obj.setdefault("metadata", {})
        obj.setdefault("apiVersion", kind.version)
        obj.setdefault("kind", kind.kind)
        if kind.namespaced:
            meta.setdefault("namespace", "default")
        meta.setdefault("uid", str(uuid.uuid4()))
        meta.setdefault("creationTimestamp", now_text())
        key = (meta.get("namespace", ""), meta["name"])
        head, tail = encode(obj)
        return self.put_text(resource, key, head, tail, meta.get("labels") or {}, (obj.get("spec") or {}).get("type"))

    def put_text(self, resource, key, head, tail, labels, kind_type=None):
        old = self.objects[resource].get(key)
        self.version += 1
        entry = Entry(head, tail, self.version, labels, kind_type)
        self.objects[resource][key] = entry
        self._note(resource, "MODIFIED" if old else "ADDED", key, entry, (old.labels, old.type) if old else None)
        return entry

    def remove(self, resource, key, graceful=False):
        """Deletes; with finalizers (and graceful) only marks the object as going."""
        entry = self.objects[resource].get(key)
        if entry is None:
            raise Refused(404, "NotFound", f'{resource} "{key[1]}" not found')
        if graceful and entry.json()["metadata"].get("finalizers"):
            obj = entry.json()
            obj["metadata"].setdefault("deletionTimestamp", now_text())
            return self.put(resource, obj)
        del self.objects[resource][key]
        self.version += 1
        gone = Entry(entry.head, entry.tail, self.version, entry.labels, entry.type)
        self._note(resource, "DELETED", key, gone, (entry.labels, entry.type))
        return gone

    def compact(self):
        """Forgets every event: each watch that resumes is told 410."""
        for resource in KINDS:
            self.log[resource].clear()
            self.floor[resource] = self.version

    def get(self, resource, key):
        entry = self.objects[resource].get(key)
        if entry is None:
            raise Refused(404, "NotFound", f'{resource} "{key[1]}" not found')
        return entry

    # ------------------------------------------------------------ writes of clients
    def create(self, resource, namespace, obj):
        meta = obj.setdefault("metadata", {})
        if KINDS[resource].namespaced:
            meta["namespace"] = namespace
        if not meta.get("name") and meta.get("generateName"):
            meta["name"] = meta["generateName"] + uuid.uuid4().hex[:6]
        key = (meta.get("namespace", ""), meta.get("name", ""))
        if key in self.objects[resource]:
            raise Refused(409, "AlreadyExists", f'{resource} "{key[1]}" already exists')
        return self.put(resource, obj)

    def replace(self, resource, key, obj):
        entry = self.get(resource, key)
        self._precondition(entry, obj)
        old = entry.json()["metadata"]
        obj["metadata"].update({k: old[k] for k in ("uid", "creationTimestamp", "namespace") if k in old})
        return self.put(resource, obj)

    @staticmethod
    def _precondition(entry, body):
        wanted = (body.get("metadata") or {}).get("resourceVersion")
        if wanted and wanted != str(entry.version):
            raise Refused(409, "Conflict", "the object has been modified; please apply your changes to the latest version")
        uid = (body.get("metadata") or {}).get("uid")
        if uid and uid != entry.json()["metadata"]["uid"]:
            raise Refused(409, "Conflict", "Precondition failed: UID in precondition")

    def patch(self, resource, key, body, content_type, manager):
        """Server-side apply, strategic merge or merge, of metadata and status."""
        entry = self.get(resource, key)
        self._precondition(entry, body)
        obj = entry.json()
        apply = content_type == "application/apply-patch+yaml"
        if apply:
            if "kind" not in body or "apiVersion" not in body:
                raise Refused(400, "BadRequest", "apply needs apiVersion and kind")
            if (body.get("metadata") or {}).get("managedFields"):
                raise Refused(400, "BadRequest", "metadata.managedFields must be nil")
            give_up(obj, self.applied.get((resource, key, manager), {}), body)
            self.applied[(resource, key, manager)] = body
        whole_lists = content_type == "application/merge-patch+json"
        merge_metadata(obj["metadata"], body.get("metadata") or {}, whole_lists)
        if "status" in body:
            merge_status(obj, body["status"], whole_lists)
        before = json.dumps(entry.json(), sort_keys=True)
        obj["metadata"]["resourceVersion"] = str(entry.version)
        if json.dumps(obj, sort_keys=True) == before:
            return entry
        if obj["metadata"].get("deletionTimestamp") and not obj["metadata"].get("finalizers"):
            self.put(resource, obj)
            return self.remove(resource, key)
        return self.put(resource, obj)


def condition_types(body):
    return {c["type"] for c in (body.get("status") or {}).get("conditions") or []}


def give_up(obj, before, now):
    """Server-side apply: what a manager applied before and applies no longer is taken away."""
    status, meta = obj.get("status") or {}, obj["metadata"]
    lost = condition_types(before) - condition_types(now)
    if lost:
        status["conditions"] = [c for c in status.get("conditions") or [] if c["type"] not in lost]
    if "loadBalancer" in (before.get("status") or {}) and "loadBalancer" not in (now.get("status") or {}):
        status["loadBalancer"] = {}
    old, new = before.get("metadata") or {}, now.get("metadata") or {}
    for key in set(old.get("annotations") or {}) - set(new.get("annotations") or {}):
        (meta.get("annotations") or {}).pop(key, None)
    for name in set(old.get("finalizers") or []) - set(new.get("finalizers") or []):
        meta["finalizers"] = [f for f in meta.get("finalizers") or [] if f != name]


def merge_metadata(meta, change, whole_lists):
    for field in ("annotations", "labels"):
        for key, value in (change.get(field) or {}).items():
            if value is None:
                (meta.get(field) or {}).pop(key, None)
            else:
                meta.setdefault(field, {})[key] = value
    if "finalizers" in change:
        wanted = change["finalizers"] or []
        kept = [] if whole_lists else [f for f in meta.get("finalizers") or [] if f not in wanted]
        meta["finalizers"] = kept + list(wanted)
    for name in change.get("$deleteFromPrimitiveList/finalizers") or []:
        meta["finalizers"] = [f for f in meta.get("finalizers") or [] if f != name]
    if not meta.get("finalizers", True):
        meta.pop("finalizers")


def merge_status(obj, change, whole_lists):
    status = obj.setdefault("status", {})
    for key, value in change.items():
        if key == "conditions" and not whole_lists:
            named = {c["type"] for c in value or []}
            kept = [c for c in status.get("conditions") or [] if c["type"] not in named]
            status["conditions"] = kept + [c for c in value or [] if c.get("$patch") != "delete"]
        elif isinstance(value, dict):
            merged = {**(status.get(key) or {}), **value}
            status[key] = {k: v for k, v in merged.items() if v is not None}
        elif value is None:
            status.pop(key, None)
        elif not key.startswith("$"):
            status[key] = value
    for ingress in (status.get("loadBalancer") or {}).get("ingress") or []:
        if "ip" in ingress:
            ingress.setdefault("ipMode", "VIP")
