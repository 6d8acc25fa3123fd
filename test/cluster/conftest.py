# SPDX-License-Identifier: BSD-3-Clause
"""One real API server and one rig for the whole run, made when the first test asks; every case skipped by name where that cannot be."""
import os
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(os.path.dirname(HERE), "functional")]
import build  # noqa: E402
import cluster as clusters  # noqa: E402
import lab as labs  # noqa: E402
import rig as rigs  # noqa: E402

NO_NAMESPACES = rigs.have_namespaces()


def no_cluster():
    try:
        build.programs(lambda text: print(text, file=sys.__stderr__, flush=True))
    except build.NoCluster as e:
        return str(e)
    return None


def free_prefix():
    """kt<number>, which no namespace has: another run, or what a killed one left, may have our number."""
    there = os.listdir("/run/netns") if os.path.isdir("/run/netns") else []
    numbers = (f"kt{(os.getpid() + i) % 1000}" for i in range(1000))
    return next(n for n in numbers if not any(name.startswith(n) and not name[len(n):len(n) + 1].isdigit() for name in there))


class Labs:
    """Makes labs and takes every one down, whatever happens."""

    def __init__(self):
        self.made, self.prefix = [], free_prefix()

    def make(self, kind, **kw):
        if NO_NAMESPACES:
            pytest.skip(f"cluster tests cannot run here: {NO_NAMESPACES}")
        made = kind(f"{self.prefix}{chr(97 + len(self.made) % 26)}", **kw)
        self.made.append(made)
        return made

    def down(self):
        for made in reversed(self.made):
            made.down()


@pytest.fixture(scope="session")
def make_lab():
    made = Labs()
    yield made.make
    made.down()


@pytest.fixture(scope="session")
def cluster(make_lab):
    """The real API."""
    reason = NO_NAMESPACES or no_cluster()
    if reason:
        pytest.skip(f"no Kubernetes API server here: {reason}")
    return make_lab(clusters.Cluster).up()


@pytest.fixture(scope="session")
def lab(make_lab, cluster):
    """The API and a rig with four web servers, sluiced running; tests clean up the objects they made."""
    made = make_lab(labs.Lab, n_backends=3, n_spare=1, cluster=cluster).up()
    made.rig.start_backends(4)
    made.start()
    return made


def empty(cluster, namespace="default"):
    """No Service, Pod or slice of a test is left in the namespace, also none that waits for its finalizer or its owner's end."""
    def left():
        found = [f"{group}/namespaces/{namespace}/{kind}/{item['metadata']['name']}"
                 for group, kind in (("/api/v1", "services"), ("/api/v1", "pods"), ("/apis/discovery.k8s.io/v1", "endpointslices"))
                 for item in cluster.api.get(f"{group}/namespaces/{namespace}/{kind}")["items"]]
        return [path for path in found if not path.endswith(("/services/kubernetes", "/endpointslices/kubernetes"))]
    for path in left():
        cluster.api.delete(path, 0)
    try:
        rigs.wait_for("an empty namespace", lambda: not left(), 60)
    except rigs.RigError as e:
        raise rigs.RigError(f"{e}; left: {[cluster.api.get(path)['metadata'] for path in left()]}") from None


@pytest.fixture
def clean(lab):
    """Nothing of an earlier test in the namespace `default`; sluiced has seen that."""
    yield lab
    lab.cluster.mend()
    empty(lab.cluster)
    rigs.wait_for("an empty table", lambda: not lab.rig.services(), 60)
    rigs.wait_for("every watch open", lambda: all(r["watching"] for r in lab.rig.get("/api/v1/kubernetes")["resources"]
                                                  if r["name"] in ("services", "endpointslices")), 60)


@pytest.hookimpl(tryfirst=True, hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if report.failed:
        for made in {id(m): m for m in item.funcargs.values() if isinstance(m, (labs.Lab, labs.ScriptedLab))}.values():
            if made.rig.dir:
                report.sections.append(("sluiced log", made.rig.log_tail(60)))
