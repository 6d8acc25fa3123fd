# SPDX-License-Identifier: BSD-3-Clause
"""schemathesis against a running sluiced: requests made from its own OpenAPI document, good and bad, every answer held to it.

Installed once from PyPI, at one version, into ${XDG_CACHE_HOME:-~/.cache}/sluice-test; where that cannot be had, unavailable() says why.
SLUICE_CONTRACT_S: seconds of each run (CI: 20; by hand 300); SLUICE_CONTRACT_SEED: another one makes other requests.
"""
import asyncio
import fcntl
import os
import re
import shutil
import subprocess
import threading

VERSION = "4.32.5"
SECONDS, SEED = os.environ.get("SLUICE_CONTRACT_S", "20"), os.environ.get("SLUICE_CONTRACT_SEED", "1")
INSTALL_LIMIT_S = 300

# No NUL in a JSON string (jansson), a token only where one is asked for (not on the UNIX socket). 400 means malformed: a request that
# follows the document is none, but for a page token of another list. What is well-formed and still not valid is 422.
CONFIG = """continue-on-failure = true
[generation]
allow-x00 = false
with-security-parameters = false
[checks]
ignored_auth.enabled = false
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "3xx", 404, 406, 409, 410, 412, 422]
[checks.negative_data_rejection]
expected-statuses = [400, 404, 405, 406, 409, 412, 413, 414, 415, 422]
[[operations]]
include-operation-id = "listFlows"
checks.positive_data_acceptance.expected-statuses = ["2xx", 400, 404]
"""


def home():
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.join(cache, "sluice-test", f"schemathesis-{VERSION}")


def program():
    return os.path.join(home(), "bin", "schemathesis")


def install():
    """Raises CalledProcessError with what pip said."""
    shutil.rmtree(home(), ignore_errors=True)
    for args in (["/usr/bin/python3", "-m", "venv", home()],
                 [os.path.join(home(), "bin", "pip"), "install", "--quiet", f"schemathesis=={VERSION}"]):
        subprocess.run(args, check=True, capture_output=True, text=True, timeout=INSTALL_LIMIT_S)
    with open(os.path.join(home(), "whole"), "w", encoding="ascii"):
        pass


def unavailable():
    """None, or why schemathesis cannot be had here."""
    os.makedirs(os.path.dirname(home()), exist_ok=True)
    with open(home() + ".lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if os.path.exists(os.path.join(home(), "whole")):
            return None
        try:
            install()
        except subprocess.CalledProcessError as e:
            return f"schemathesis {VERSION} cannot be installed from PyPI: {(e.stderr or e.stdout).strip().splitlines()[-1:]}"
        except (OSError, subprocess.TimeoutExpired) as e:
            return f"schemathesis {VERSION} cannot be installed from PyPI: {e}"
    return None


class Forwarder:
    """The UNIX socket as a TCP port of 127.0.0.1, byte by byte."""

    def __init__(self, path):
        self.path, self.port, self.loop = path, 0, asyncio.new_event_loop()
        self.ready = threading.Event()
        self.thread = threading.Thread(target=self._run, name="forwarder", daemon=True)

    def _run(self):
        asyncio.set_event_loop(self.loop)
        server = self.loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        self.ready.set()
        self.loop.run_forever()
        server.close()
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.loop.run_until_complete(asyncio.sleep(0))

    @staticmethod
    async def _pump(reader, writer):
        try:
            while piece := await reader.read(65536):
                writer.write(piece)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    async def _serve(self, reader, writer):
        try:
            there, back = await asyncio.open_unix_connection(self.path)
        except OSError:
            writer.close()
            return
        await asyncio.gather(self._pump(reader, back), self._pump(there, writer), return_exceptions=True)

    def __enter__(self):
        self.thread.start()
        self.ready.wait(10)
        return self

    def __exit__(self, *_):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)


def run(rig, parameters=None, exclude=()):
    """One bounded run; raises AssertionError with every failure found. parameters: values of path parameters, in place of made-up ones."""
    config = os.path.join(rig.dir, "schemathesis.toml")
    with open(config, "w", encoding="ascii") as f:
        f.write(CONFIG)
        if parameters:
            f.write("[parameters]\n" + "".join(f'"{name}" = "{value}"\n' for name, value in parameters.items()))
    with Forwarder(rig.socket) as forwarder:
        args = [program(), "--config-file", config, "--no-color", "run", f"http://127.0.0.1:{forwarder.port}/openapi.json", "--seed", SEED,
                "--max-time", SECONDS, "--max-examples", os.environ.get("SLUICE_CONTRACT_EXAMPLES", "10"), "--no-shrink", "--mode", "all",
                "--phases", "examples,coverage,fuzzing,stateful"]
        for operation in exclude:
            args += ["--exclude-operation-id", operation]
        out = subprocess.run(args, capture_output=True, text=True, timeout=float(SECONDS) + 120, cwd=rig.dir, check=False)
    text = out.stdout + out.stderr
    selected, tested, cases = (re.search(p, text) for p in (r"Selected: (\d+)", r"Tested: (\d+)", r"(\d+) generated"))
    assert cases and selected.group(1) == tested.group(1), text[-4000:]
    assert out.returncode == 0, text[text.find("= FAILURES ="):][:20000]
    return int(cases.group(1))
