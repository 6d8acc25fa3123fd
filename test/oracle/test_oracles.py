# SPDX-License-Identifier: BSD-3-Clause
"""The oracles as cases of scripts/test: each script runs by hand too, with a count and a seed."""
import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
BUILD = os.environ.get("SLUICE_BUILD", os.path.join(HERE, "../../build"))


def check(script, *args, timeout=600):
    out = subprocess.run([sys.executable, os.path.join(HERE, script), *args], capture_output=True, text=True,
                         timeout=timeout, check=False)
    print(out.stdout)
    assert out.returncode == 0, out.stdout[-2000:] + out.stderr[-6000:]


def test_maglev_digests_are_the_oracles():
    check("maglev.py", "--check")


def test_maglev_tables_slot_by_slot():
    check("maglev_check.py", os.path.join(BUILD, "test/oracle/maglev_table"), "300")


def test_rewrites_and_answers_byte_by_byte():
    check("rewrite_check.py", os.environ.get("SLUICE_ORACLE_PACKETS", "10000"))


def test_modes_byte_by_byte():
    count = os.environ.get("SLUICE_ORACLE_PACKETS", "2000")  # of each of 26 kinds; 100,000 take half an hour
    check("modes_check.py", os.path.join(BUILD, "test/oracle/modes_driver"), count, timeout=600 + int(count) // 10)
