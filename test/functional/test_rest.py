# SPDX-License-Identifier: BSD-3-Clause
"""The cases of rest_check.py one by one: the REST server on its stand-in for control, and sluicectl."""
import pytest

import rest_check
from rest_client import CASES, Document, Server

rest_check.register()


@pytest.fixture(scope="module")
def server():
    one = Server()
    Document.tree = one.get("/openapi.json")
    yield one
    one.stop()
    one.clean()


@pytest.mark.parametrize("fn", CASES, ids=lambda fn: fn.__name__)
def test_rest(fn, server):
    note = fn(server)
    if isinstance(note, str) and note.startswith("skipped: "):
        pytest.skip(note[9:])
    server.alive()
