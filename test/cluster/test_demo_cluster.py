# SPDX-License-Identifier: BSD-3-Clause
"""The demo with a real API server, as a newcomer runs it."""
import json
import os
import subprocess

import rig as rigs

DEMO = os.path.join(rigs.TOP, "scripts", "demo")


def demo(*args):
    return subprocess.run([DEMO, *args], capture_output=True, text=True, timeout=300, check=False)


def leftovers():
    spaces = [n for n in os.listdir("/run/netns") if n.startswith("demo-")] if os.path.isdir("/run/netns") else []
    return spaces + (["/run/sluice-demo"] if os.path.exists("/run/sluice-demo") else [])


def test_once(cluster):
    """`cluster` only says whether the programs are there."""
    out = demo("--cluster", "--once", "--json")
    assert out.returncode == 0, out.stdout[-1000:] + out.stderr[-3000:]
    result = json.loads(out.stdout.strip().split("\n")[-1])
    assert result["requests"] == 1000 and result["failed"] == 0 and sorted(result["backends"]) == ["b1", "b2", "b3"]
    assert len(result["vips"]) == 2 and result["apply_to_answer_ms"] > 0 and 0 <= result["deleted_to_dead_ms"]
    assert result["rolled"]["failed"] == 0 and {"b4", "b5", "b6"} <= set(result["rolled"]["backends"])
    assert leftovers() == []
