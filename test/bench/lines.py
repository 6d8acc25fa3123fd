#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""lines.py SLUICE_BENCH: every line of --json is one object with the same keys, of the right kinds (null: no burst was
left alone), and there is a verdict where there is a gate and a figure; bad arguments are refused with exit code 2.
No figure is judged."""
import json
import subprocess
import sys

KEYS = ["bench", "goal", "case", "value", "unit", "peer", "peer_value", "multiple", "gate", "met", "limit",
        "limit_value"]
TEXTS = {"bench": False, "goal": True, "case": False, "unit": False, "peer": True, "limit": True}
NUMBERS = {"value": True, "peer_value": True, "multiple": True, "gate": True, "limit_value": True}


def check(line):
    row = json.loads(line)
    assert list(row) == KEYS, row
    for key, may_be_null in TEXTS.items():
        assert isinstance(row[key], str) or (may_be_null and row[key] is None), (key, row)
    for key, may_be_null in NUMBERS.items():
        ok = isinstance(row[key], (int, float)) and not isinstance(row[key], bool)
        assert ok or (may_be_null and row[key] is None), (key, row)
    judged = row["gate"] is not None and row["multiple"] is not None
    assert (row["met"] is None) != judged, row
    assert row["value"] is None or row["value"] >= 0, row
    return row["case"]


def run(*args):
    return subprocess.run([sys.argv[1], *args], capture_output=True, text=True, timeout=100)


def main():
    done = run("--json", "--rounds", "9", "--size", "1", "maglev", "pipeline")
    assert done.returncode == 0, done.stderr
    cases = [check(line) for line in done.stdout.splitlines()]
    for case in ("65537", "655373", "10000x10", "ipip4/1", "fullnat4/1", "fullnat6/1"):
        assert case in cases, (case, cases)
    # benches with worker threads run in processes of their own
    done = run("--json", "--rounds", "9", "null", "changes")
    assert done.returncode == 0, done.stderr
    goals = [json.loads(line)["goal"] for line in done.stdout.splitlines() if check(line)]
    assert goals == ["G10", "G20", "G20"] or goals == ["G10", "G20"], done.stdout
    for args in (["no-such-bench"], ["--rounds", "8"], ["--rounds"], ["--rounds", "9x"], ["--variant", "mmx"],
                 ["--size", "3M"], ["--size"]):
        refused = run(*args)
        assert refused.returncode == 2 and refused.stderr and not refused.stdout, (args, refused)


main()
