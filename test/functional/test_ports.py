# SPDX-License-Identifier: BSD-3-Clause
"""Any DPDK device string works as a port: each kind comes up, is ready, and the daemon ends clean."""
import os

import pytest

import rig as rigs

KINDS = {
    "null": "net_null1",
    "ring": "net_ring1",
    "tap": "net_tap1,iface=dtap1",
    "memif": "net_memif1,role=server,socket={dir}/memif.sock,socket-abstract=no,id=0",
    "pcap": "net_pcap1,iface=v1",
    "af_packet": "net_af_packet1,iface=v1",
    "af_xdp": "net_af_xdp1,iface=v1,busy_budget=0",
    "vhost": "net_vhost1,iface={dir}/vhost-server.sock,queues=1",
    "virtio_user": "net_virtio_user1,path={dir}/vhost.sock,queues=1,queue_size=256",
}


@pytest.fixture(scope="module")
def bare(make_rig):
    return make_rig(n_backends=1, start=False)


def start_vhost(rig):
    """A vhost-user back end in another process, which a virtio-user port needs at its start."""
    rig.spawn("lb", "dpdk-testpmd", "--lcores", "0@0,1@0", "--no-pci", "--no-huge", "-m", "128", "--no-telemetry",
              f"--file-prefix={rig.prefix}v", f"--vdev=net_vhost0,iface={rig.dir}/vhost.sock", "--", "--forward-mode=rxonly",
              "--total-num-mbufs=4096", "--stats-period=3600", what="testpmd")
    rigs.wait_for("the vhost socket", lambda: os.path.exists(os.path.join(rig.dir, "vhost.sock")), 20)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_kind_comes_up(bare, kind):
    if kind == "virtio_user":
        start_vhost(bare)
    device = KINDS[kind].replace("{dir}", bare.dir)
    text = bare.config_text().replace(bare.device(1), device)
    assert device in text
    bare.start_daemon(text, wait=False)
    # a link needs a far end, which some of these do not have here: the daemon itself must be well
    rigs.wait_for("the admin socket", lambda: bare.get("/livez", raw=True)[0] == 200, 20)
    ports = {p["name"]: p for p in bare.get("/api/v1/ports")["items"]}
    assert ports["p1"]["driver"].startswith("net_"), ports["p1"]
    assert bare.stop_daemon() == 0, bare.log_tail()


def test_unknown_kind_is_named(bare):
    text = bare.config_text().replace(bare.device(1), "net_nosuch1,iface=v1")
    bare.start_daemon(text, wait=False)
    assert bare.daemon.wait(20) == 1
    bare.daemon = None
    assert "net_nosuch" in bare.log_tail() and "p1" in bare.log_tail()


def test_absent_pci_device_is_named(bare):
    text = bare.config_text().replace(bare.device(1), "0000:3b:00.0")
    bare.start_daemon(text, wait=False)
    assert bare.daemon.wait(20) == 1
    bare.daemon = None
    assert "E_PORT_MISSING" in bare.log_tail() and "0000:3b:00.0" in bare.log_tail()
