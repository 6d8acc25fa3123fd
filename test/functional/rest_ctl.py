# SPDX-License-Identifier: BSD-3-Clause
"""sluicectl against the stand-in: output, exit codes, words of refusal."""
import json
import os
import signal
import subprocess

from rest_client import CTL, TOKENS, body_of, case


def ctl(server, *args, env=None, check=None, text=None):
    out = subprocess.run([CTL, "--server", "unix:" + server.socket, *args], capture_output=True, text=True, timeout=60,
                         check=False, input=text, env=dict(os.environ, **(env or {})))
    if check is not None:
        assert out.returncode == check, (args, out.returncode, out.stdout, out.stderr)
    return out


@case
def ctl_reads(server):
    assert "READY" in ctl(server, "status", check=0).stdout
    for noun in ("services", "backends", "ports", "workers", "drops", "flows", "events", "config"):
        ctl(server, "get", noun, check=0)
        tree = json.loads(ctl(server, "get", noun, "-o", "json", check=0).stdout)
        assert noun == "config" or "items" in tree
        ctl(server, "get", noun, "-o", "yaml", check=0)
    assert ctl(server, "get", "backends", "default/web", "--no-headers", check=0).stdout.count("\n") == 3
    assert len(json.loads(ctl(server, "flows", "--all", "-o", "json", check=0).stdout)["items"]) == 5000
    assert len(json.loads(ctl(server, "flows", "--limit", "7", "-o", "json", check=0).stdout)["items"]) == 7
    assert "10.9.0.2" in ctl(server, "describe", "service", "default/web", check=0).stdout
    assert "verdicts" in ctl(server, "describe", "backend", "10.9.0.2:8080", check=0).stdout
    assert json.loads(ctl(server, "api", check=0).stdout)["openapi"]
    assert "sluiced" in ctl(server, "version", check=0).stdout
    assert "no_backend" in ctl(server, "drops", check=0).stdout
    assert "closed_port" in ctl(server, "drops", "closed_port", check=0).stdout
    explained = ctl(server, "explain", "tcp", "198.51.100.7:40000", "203.0.113.10:80", check=0).stdout
    assert explained.startswith(" 1 ") and "verdict: FORWARD" in explained
    ctl(server, "explain", "tcp", "198.51.100.7:40000", "203.0.113.10:9999", check=6)


@case
def ctl_yaml_is_yaml(server):
    try:
        import yaml
    except ImportError:
        return "skipped: no yaml module"
    for words in (["get", "services"], ["get", "workers"], ["get", "backends"], ["api"], ["status"]):
        tree = json.loads(ctl(server, *words, "-o", "json", check=0).stdout)
        same = yaml.safe_load(ctl(server, *words, "-o", "yaml", check=0).stdout)
        if words != ["status"]:
            for key in ("generation",):
                assert tree.get("metadata", {}).get(key) == same.get("metadata", {}).get(key)
            if words[-1] != "workers":
                assert tree == same, words
    return None


@case
def ctl_acts(server):
    ctl(server, "drain", "default/web", "10.9.0.3", "--reason", "disk", "--deadline", "1h", check=0)
    assert "draining" in ctl(server, "get", "backends", "default/web", check=0).stdout
    ctl(server, "drain", "default/web", "10.9.0.3", "--wait", "--timeout", "300ms", check=6)
    ctl(server, "undrain", "10.9.0.3:8080", check=5)
    ctl(server, "undrain", "backend", "10.9.0.3", check=0)
    ctl(server, "weight", "default/web", "10.9.0.3", "3", check=0)
    assert "weight 100" in ctl(server, "weight", "10.9.0.3", "default", check=0).stdout
    ctl(server, "release", "default/web", check=3)
    ctl(server, "release", "pod", "default/web", check=2)
    v6 = body_of("six", "2001:db8::50")
    v6["spec"]["backends"] = [{"address": "2001:db8:9::2", "ports": {"h": 8080}}]
    ctl(server, "apply", "-f", "-", text=json.dumps([body_of(), v6]), check=0)
    assert "[2001:db8:9::2]:8080" in ctl(server, "get", "backends", "ops/six", check=0).stdout
    ctl(server, "drain", "[2001:db8:9::2]:8080", check=0)
    assert "draining" in ctl(server, "describe", "backend", "2001:db8:9::2", check=0).stdout
    ctl(server, "delete", "ops/six", check=0)
    ctl(server, "delete", "service", "ops/one", check=0)
    ctl(server, "delete", "ops/one", check=3)
    ctl(server, "delete", "default/web", check=5)
    bad = body_of(mode="nope")
    out = ctl(server, "apply", "-f", "-", text=json.dumps(bad), check=1)
    assert "/spec/mode" in out.stderr and "allowed: fullnat" in out.stderr
    codes = {ctl(server, "reload").returncode for _ in range(2)}
    assert codes == {0, 1}


@case
def ctl_speaks_plainly(server):
    for args in (["bogus"], ["get"], ["get", "things"], ["drain"], ["drain", "not-an-address"], ["status", "--watch"],
                 ["status", "--nope"], ["get", "services", "-o", "xml"], ["weight", "10.9.0.3", "x"],
                 ["explain", "tcp", "1.2.3.4"], ["apply"], ["flows", "--limit", "0"], ["explain", "tcp", "a:1", "b:2"],
                 ["drain", "[1.2.3.4]:5"], ["d"]):
        out = ctl(server, *args, check=2)
        assert out.stderr.startswith("error: ") and out.stdout == "", (args, out.stdout, out.stderr)
    assert ctl(server, "get", "service", "default/nope", check=3).stderr.count("\n  try: ") == 1
    out = subprocess.run([CTL, "--server", "/nonexistent/s", "status"], capture_output=True, text=True, check=False)
    assert out.returncode == 4 and "cannot reach sluiced" in out.stderr and "  cause: " in out.stderr
    out = subprocess.run([CTL, "--server", "http://127.0.0.1:1", "status"], capture_output=True, text=True, check=False)
    assert out.returncode == 4
    table = ctl(server, "get", "backends", check=0).stdout
    assert "\x1b" not in table and "\\x1b" in table  # an escape sequence from outside
    assert "\x1b" not in ctl(server, "get", "backends", "-o", "json", check=0).stdout
    assert "\x1b" not in ctl(server, "get", "backends", "-o", "yaml", check=0).stdout
    for verb in ("status", "get", "drain", "explain", "help"):
        assert ctl(server, "help", verb, check=0).stdout.startswith(f"sluicectl {verb}")
        assert ctl(server, verb, "--help", check=0).stdout.startswith(f"sluicectl {verb}")


@case
def ctl_does_not_wait_for_a_dead_loop(server):
    server.process.send_signal(signal.SIGSTOP)
    try:
        out = ctl(server, "status", check=4)
        assert "cannot reach sluiced" in out.stderr
    finally:
        server.process.send_signal(signal.SIGCONT)
    server.alive()


@case
def ctl_over_tcp(server):
    token = os.path.join(server.dir, "token")
    with open(token, "w", encoding="ascii") as f:
        f.write(TOKENS["viewer"] + "\n")
    url = f"http://127.0.0.1:{server.port}"
    env = dict(os.environ, SLUICE_SERVER=url, SLUICE_TOKEN_FILE=token)
    out = subprocess.run([CTL, "get", "services"], capture_output=True, text=True, env=env, check=False)
    assert out.returncode == 0 and "default" in out.stdout, out.stderr
    out = subprocess.run([CTL, "drain", "10.9.0.3"], capture_output=True, text=True, env=env, check=False)
    assert out.returncode == 1 and "forbidden" in out.stderr, out.stderr
    del env["SLUICE_TOKEN_FILE"]
    out = subprocess.run([CTL, "get", "services"], capture_output=True, text=True, env=env, check=False)
    assert out.returncode == 1 and "SLUICE_TOKEN_FILE" in out.stderr, out.stderr


@case
def ctl_doctor_needs_no_daemon(server):
    out = subprocess.run([CTL, "doctor", "-o", "json"], capture_output=True, text=True, check=False)
    assert out.returncode in (0, 1), out.stderr
    report = json.loads(out.stdout)
    assert report["items"] and all(i["id"] and i["severity"] in ("ok", "warn", "error") for i in report["items"])


@case
def links_no_dpdk(server):
    out = subprocess.run(["ldd", CTL], capture_output=True, text=True, check=True)
    assert "librte" not in out.stdout, out.stdout
