# SPDX-License-Identifier: BSD-3-Clause
"""dpdk-testpmd as the peer of a bench, or as the far end that feeds it."""
import os
import re
import shutil
import subprocess


def is_there():
    return shutil.which("dpdk-testpmd") is not None


def thread_ns(pid):
    """Processor time of the forwarding thread."""
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/comm", encoding="ascii") as f:
            if "worker" not in f.read():
                continue
        with open(f"/proc/{pid}/task/{task}/schedstat", encoding="ascii") as f:
            return int(f.read().split()[0])
    raise RuntimeError("testpmd: no worker thread")


class Testpmd:
    """One port, one forwarding thread on `cpu`."""

    def __init__(self, vdev, mode, cpu, control_cpu, before=(), eal=()):
        self.child = subprocess.Popen(
            [*before, "stdbuf", "-oL", "dpdk-testpmd", "--lcores", f"0@{control_cpu},1@{cpu}", "--no-pci", "--no-huge",
             "-m", "192", "--no-telemetry", "--no-shconf", f"--file-prefix=bench{os.getpid()}{mode}", *eal,
             f"--vdev={vdev}", "--", "-i", f"--forward-mode={mode}", "--total-num-mbufs=8192",
             "--record-core-cycles"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.ask("start", r"forwarding - ports=|packet forwarding")

    def ask(self, command, pattern):
        """Writes a command and reads on until the pattern is found."""
        self.child.stdin.write(command + "\n")
        self.child.stdin.flush()
        seen = []
        for line in self.child.stdout:
            seen.append(line)
            found = re.search(pattern, line)
            if found:
                return found
        raise RuntimeError("testpmd: " + "".join(seen[-8:]))

    def received(self):
        """Packets received so far, processor time of the forwarding thread."""
        n = int(self.ask("show port stats 0", r"RX-packets:\s*(\d+)").group(1))
        return n, thread_ns(self.child.pid)

    def busy_ns(self):
        """ns per packet of turns with packets, since the last clear."""
        found = self.ask("show fwd stats all", r"CPU cycles/packet=([\d.]+).*at (\d+) MHz")
        return float(found.group(1)) / float(found.group(2)) * 1e3

    def clear(self):
        self.child.stdin.write("clear fwd stats all\n")
        self.child.stdin.flush()

    def end(self):
        try:
            self.child.communicate("stop\nquit\n", timeout=20)
        except (subprocess.TimeoutExpired, BrokenPipeError):
            self.child.kill()
            self.child.wait()
