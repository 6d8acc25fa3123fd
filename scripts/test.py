# SPDX-License-Identifier: BSD-3-Clause
"""Runs the layers of tests and adds up what they say. Called by scripts/test, after packages are there.

Each test program speaks its own way: cmocka (unit), pytest with a JUnit file (replay, oracle, functional, cluster), libFuzzer
(fuzz). Everything is counted case by case; every skip is printed with its reason.
"""
import concurrent.futures
import glob
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PYTHON = "/usr/bin/python3"
LAYERS = ["unit", "replay", "functional", "cluster", "fuzz"]
EACH_PROCESSOR = ("-n", "auto") if importlib.util.find_spec("xdist") else ()
FUZZ_SECONDS = int(os.environ.get("SLUICE_FUZZ_SECONDS", "20"))
SANITIZE_ENV = {"ASAN_OPTIONS": "abort_on_error=1:detect_leaks=1:detect_stack_use_after_return=0",
                "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1"}


class Tally:
    def __init__(self):
        self.passed, self.failed, self.skipped = 0, 0, 0
        self.failures, self.skips = [], []

    def ok(self, n=1):
        self.passed += n

    def fail(self, what, detail=""):
        self.failed += 1
        self.failures.append(what)
        print(f"FAILED {what}\n{detail}", flush=True)

    def skip(self, what, reason):
        self.skipped += 1
        self.skips.append((what, reason))


def build(folder, *options, env=None):
    """Configures and builds; returns the folder or None after printing what went wrong."""
    path = os.path.join(TOP, folder)
    begun = time.monotonic()
    whole = dict(os.environ, **(env or {}))
    if not os.path.exists(os.path.join(path, "build.ninja")):
        out = subprocess.run(["meson", "setup", path, TOP, *options], capture_output=True, text=True, env=whole,
                             check=False)
        if out.returncode != 0:
            print(out.stdout[-3000:], out.stderr[-2000:])
            return None
    out = subprocess.run(["ninja", "-C", path], capture_output=True, text=True, env=whole, check=False)
    if out.returncode != 0:
        lines = [line[:300] for line in out.stdout.split("\n") if re.search(r"error:|FAILED:|undefined reference", line)]
        print("\n".join(lines[:60] or out.stdout.split("\n")[-40:]))
        return None
    print(f"built {folder} in {time.monotonic() - begun:.0f} s", flush=True)
    return path


def side_by_side(fn, items):
    """fn of every item, as many at once as there are processors: [(item, result)] in the order of the items. For programs that share
    nothing but the processor."""
    with concurrent.futures.ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        return list(zip(items, pool.map(fn, items)))


def run_program(args, env, timeout_s):
    """None: no end within that time."""
    try:
        return subprocess.run(args, capture_output=True, text=True, env=env, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired:
        return None


def count_cmocka(tally, program, out):
    name = os.path.basename(program)
    if out is None:
        tally.fail(f"unit {name}", "no end after 300 s")
        return
    text = out.stdout + out.stderr
    ok = len(re.findall(r"^\[       OK \]", text, re.M))
    bad = re.findall(r"^\[  FAILED  \] (\S+)$", text, re.M)
    for case in re.findall(r"^\[  SKIPPED \] (\S+)$", text, re.M):
        tally.skip(f"unit {name}: {case}", "skipped by the program")
    tally.ok(ok)
    for case in dict.fromkeys(b for b in bad if not b.isdigit()):
        tally.fail(f"unit {name}: {case}", text[-4000:])
    if out.returncode != 0 and not bad:
        tally.fail(f"unit {name} ended with {out.returncode}", text[-6000:])
    elif ok == 0 and not bad:
        tally.fail(f"unit {name} ran no case", text[-2000:])
    print(f"  {name}: {ok} ok{', ' + str(len(bad)) + ' failed' if bad else ''}", flush=True)


def run_pytest(tally, layer, folders, env, *options):
    folders = [f for f in folders if glob.glob(os.path.join(TOP, f, "test_*.py"))]
    if not folders:
        return
    report = os.path.join(TOP, f"build-san/report-{layer}.xml")
    os.makedirs(os.path.dirname(report), exist_ok=True)
    out = subprocess.run([PYTHON, "-m", "pytest", "-q", "-x" if os.environ.get("SLUICE_FAIL_FAST") else "-q",
                          "--durations=8", "-p", "no:cacheprovider", f"--junitxml={report}", *options, *folders],
                         cwd=TOP, env=env, check=False)
    try:
        cases = ElementTree.parse(report).getroot().iter("testcase")
    except (OSError, ElementTree.ParseError) as e:
        tally.fail(f"{layer}: pytest ended with {out.returncode}", str(e))
        return
    n = 0
    for case in cases:
        n += 1
        name = f'{layer} {case.get("classname", "").split(".")[-1]}: {case.get("name")}'
        bad = case.find("failure") if case.find("failure") is not None else case.find("error")
        skipped = case.find("skipped")
        if bad is not None:
            tally.fail(name, "")
        elif skipped is not None:
            tally.skip(name, skipped.get("message", "no reason given"))
        else:
            tally.ok()
    if n == 0:
        tally.fail(f"{layer}: pytest ran no case", "")


def layer_unit(tally):
    # three builds: gcc with sanitizers (run), gcc optimised (used by functional tests), clang (warnings)
    san = build("build-san", "-Dsanitize=true", "--buildtype=debugoptimized")
    if san is None:
        tally.fail("unit: build with gcc and sanitizers")
        return
    tally.ok()
    if shutil.which("clang-14") is None:
        tally.skip("unit: build with clang", "clang-14 is not installed")
    elif build("build-clang", env={"CC": "clang-14"}) is None:
        tally.fail("unit: build with clang-14, warnings as errors")
    else:
        tally.ok()
    env = dict(os.environ, SLUICE_SOURCE=TOP, **SANITIZE_ENV)
    programs = sorted(glob.glob(os.path.join(san, "test/unit/*_test")))
    for program, out in side_by_side(lambda p: run_program([p], env, 300), programs):
        count_cmocka(tally, program, out)
    check = subprocess.run([os.path.join(TOP, "scripts/check"), "--all"], capture_output=True, text=True, check=False)
    if check.returncode == 0:
        tally.ok()
    else:
        tally.fail("unit: scripts/check --all", check.stdout[-4000:])
    run_pytest(tally, "oracle", ["test/oracle"], dict(env, SLUICE_BUILD=san), *EACH_PROCESSOR)


def layer_replay(tally):
    san = build("build-san", "-Dsanitize=true", "--buildtype=debugoptimized")
    if san is None:
        tally.fail("replay: build")
        return
    run_pytest(tally, "replay", ["test/replay"], dict(os.environ, SLUICE_BUILD=san, **SANITIZE_ENV), *EACH_PROCESSOR)


def layer_functional(tally):
    path = build("build")
    if path is None:
        tally.fail("functional: build")
        return
    run_pytest(tally, "functional", ["test/functional"], dict(os.environ, SLUICE_BUILD=path))


def layer_cluster(tally):
    """The scripted API server needs nothing; the real one is built once, outside the tree, or its cases skip with the reason."""
    path = build("build")
    if path is None:
        tally.fail("cluster: build")
        return
    out = subprocess.run([PYTHON, os.path.join(TOP, "test/cluster/build.py")], text=True, stdout=subprocess.PIPE, check=False)
    if out.returncode not in (0, 3):
        tally.fail("cluster: the Kubernetes programs do not build", out.stdout)
        return
    run_pytest(tally, "cluster", ["test/cluster"], dict(os.environ, SLUICE_BUILD=path))


def fuzz_command(path, program):
    name = os.path.basename(program)
    seeds = os.path.join(TOP, "test/fuzz/corpus", name.replace("_fuzz", ""))
    grown = os.path.join(path, f"corpus-{name}")
    os.makedirs(grown, exist_ok=True)
    return [program, f"-max_total_time={FUZZ_SECONDS}", "-rss_limit_mb=2048", "-timeout=10", "-print_final_stats=1",
            f"-artifact_prefix={path}/", grown] + ([seeds] if os.path.isdir(seeds) else [])


def layer_fuzz(tally):
    if shutil.which("clang-14") is None:
        tally.skip("fuzz", "clang-14 is not installed")
        return
    path = build("build-fuzz", "-Dsanitize=true", "-Dfuzz=true", env={"CC": "clang-14"})
    if path is None:
        tally.fail("fuzz: build")
        return
    programs = sorted(glob.glob(os.path.join(path, "test/fuzz/*_fuzz")))
    if not programs:
        tally.fail("fuzz: no program was built")
    env = dict(os.environ, **SANITIZE_ENV)
    for program, out in side_by_side(lambda p: run_program(fuzz_command(path, p), env, FUZZ_SECONDS + 300), programs):
        name = os.path.basename(program)
        runs = re.search(r"number_of_executed_units:\s*(\d+)", out.stderr) if out else None
        if out is None or out.returncode != 0:
            tally.fail(f"fuzz {name}", out.stderr[-5000:] if out else "no end")
        else:
            tally.ok()
            print(f"  {name}: {runs.group(1) if runs else '?'} runs in {FUZZ_SECONDS} s", flush=True)


def main():
    wanted = sys.argv[1:] or LAYERS
    unknown = [w for w in wanted if w not in LAYERS]
    if unknown:
        print(f"error: no layer {' '.join(unknown)}; allowed: {' '.join(LAYERS)}", file=sys.stderr)
        return 2
    tally = Tally()
    for layer in LAYERS:
        if layer in wanted:
            begun = time.monotonic()
            print(f"== {layer}", flush=True)
            globals()[f"layer_{layer}"](tally)
            print(f"== {layer}: {time.monotonic() - begun:.0f} s", flush=True)
    for what in tally.failures:
        print(f"failed: {what}")
    for what, reason in tally.skips:
        print(f"skipped: {what}: {reason}")
    print(f"{tally.passed} passed, {tally.failed} failed, {tally.skipped} skipped")
    return 1 if tally.failed or tally.passed == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
