# SPDX-License-Identifier: BSD-3-Clause
"""The REST interface keeps to its own document, whatever is asked: schemathesis at a sluiced that serves from a file."""
import contract
import pytest
import rig as rigs

MADE_HERE = {"metadata": {"namespace": "default", "name": "api"},
             "spec": {"addresses": ["203.0.113.77"], "listeners": [{"name": "http", "protocol": "TCP", "port": 80}],
                      "backends": [{"address": "192.0.2.11", "ports": {"http": 8080}}]}}


@pytest.fixture(autouse=True)
def schemathesis(web):
    reason = contract.unavailable()
    if reason:
        pytest.skip(reason)
    yield
    result = web.load("requests", rigs.VIP4, "80", "40", "4")
    assert result["failed"] == 0, result


def test_made_up_objects(web):
    print(contract.run(web), "cases")


def test_an_object_that_is_there(web):
    """Reads, drains, weights and writes of a service that somebody made over REST."""
    status, text, _ = web.request("PUT", "/api/v1/services/default/api", MADE_HERE)
    assert status in (200, 201), text
    print(contract.run(web, {"path.namespace": "default", "path.name": "api", "path.address": "192.0.2.11"}, ["deleteService"]), "cases")
