# SPDX-License-Identifier: BSD-3-Clause
"""Fixtures: one rig per module that shares it, made in namespaces, gone afterwards."""
import os
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import rig as rigs  # noqa: E402

REASON = rigs.have_namespaces()


def pytest_collection_modifyitems(items):
    if REASON:
        for item in items:
            item.add_marker(pytest.mark.skip(reason=f"functional tests cannot run here: {REASON}"))


class Rigs:
    """Makes rigs and remembers them, so that each is taken down whatever happens."""

    def __init__(self):
        self.made = []

    def make(self, n_backends=3, items=None, start=True, **kw):
        prefix = f"ft{os.getpid()}{chr(97 + len(self.made) % 26)}"
        rig = rigs.Rig(prefix=prefix, n_backends=n_backends, **kw)
        self.made.append(rig)
        rig.up()
        rig.start_backends()
        rig.write_services(rigs.web_items(n_backends) if items is None else items)
        if start:
            rig.start_daemon()
            rigs.wait_for("backends up", lambda: all(s == "up" for s in rig.backend_states().values())
                          and rig.backend_states())
        return rig

    def down(self):
        for rig in self.made:
            rig.down()


@pytest.fixture(scope="module")
def make_rig():
    made = Rigs()
    yield made.make
    made.down()


@pytest.fixture(scope="module")
def web(make_rig):
    """Three web backends behind a dual-stack VIP, one worker."""
    return make_rig()


@pytest.fixture(autouse=True)
def accounted(request):
    """Every functional test ends with the accounting identity."""
    yield
    rig = request.node.funcargs.get("web") if hasattr(request.node, "funcargs") else None
    if rig is not None and rig.daemon is not None and rig.daemon.poll() is None:
        rig.assert_accounted()


@pytest.hookimpl(tryfirst=True, hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    rig = getattr(item, "funcargs", {}).get("web")
    if report.when == "call" and report.failed and rig is not None and rig.dir:
        report.sections.append(("sluiced log", rig.log_tail(40)))
