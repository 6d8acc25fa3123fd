# SPDX-License-Identifier: BSD-3-Clause
"""Sockets in another network namespace, without a process there: the thread enters, opens the socket, and comes back."""
import contextlib
import ctypes
import http.client
import json
import os
import socket
import ssl

CLONE_NEWNET = 0x40000000
libc = ctypes.CDLL(None, use_errno=True)


def enter(fd):
    if libc.setns(fd, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


@contextlib.contextmanager
def inside(name):
    """This thread is in the namespace of that name ("" or None: where it was)."""
    if not name:
        yield
        return
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    there = os.open(f"/run/netns/{name}", os.O_RDONLY)
    try:
        enter(there)
        try:
            yield
        finally:
            enter(home)
    finally:
        os.close(there)
        os.close(home)


def make_socket(name, family=socket.AF_INET, kind=socket.SOCK_STREAM):
    with inside(name):
        return socket.socket(family, kind)


def connect(name, host, port, timeout=5.0):
    sock = make_socket(name, socket.AF_INET6 if ":" in host else socket.AF_INET)
    sock.settimeout(timeout)
    try:
        sock.connect((host, port))
    except OSError:
        sock.close()
        raise
    return sock


def listener_in(name):
    """For Scripted(listener=...): a listening socket in the namespace."""
    def listen(host, port):
        with inside(name):
            return socket.create_server((host, port), backlog=256)
    return listen


class ApiError(OSError):
    def __init__(self, status, text):
        super().__init__(f"{status} {text[:400]}")
        self.status, self.text = status, text


class Api:
    """JSON requests to an API server on one kept connection."""

    def __init__(self, host, port, namespace=None, tls=None, token=None, timeout=20):
        self.host, self.port, self.namespace, self.tls, self.token, self.timeout = host, port, namespace, tls, token, timeout
        self.connection = None

    def _open(self):
        c = http.client.HTTPConnection(self.host, self.port, timeout=self.timeout)
        sock = connect(self.namespace, self.host, self.port, self.timeout)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        c.sock = self.tls.wrap_socket(sock, server_hostname=self.host) if self.tls else sock
        return c

    def close(self):
        if self.connection is not None:
            self.connection.close()
            self.connection = None

    def raw(self, method, path, body=None, kind="application/json"):
        """(status, text); a kept connection that has died meanwhile is opened again, once."""
        headers = {"Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = kind
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        payload = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        for last in (False, True):
            fresh = self.connection is None
            try:
                self.connection = self.connection or self._open()
                self.connection.request(method, path, payload, headers)
                answer = self.connection.getresponse()
                return answer.status, answer.read().decode("utf-8", "replace")
            except (OSError, http.client.HTTPException, ssl.SSLError):
                self.close()
                if fresh or last:
                    raise
        raise AssertionError("unreachable")

    def request(self, method, path, body=None, kind="application/json", ok=(200, 201, 202)):
        status, text = self.raw(method, path, body, kind)
        if status not in ok:
            raise ApiError(status, f"{method} {path}: {text}")
        return json.loads(text) if text.startswith("{") else text

    def get(self, path):
        return self.request("GET", path)

    def post(self, path, body):
        return self.request("POST", path, body)

    def put(self, path, body):
        return self.request("PUT", path, body)

    def delete(self, path, seconds=None):
        return self.request("DELETE", path + ("" if seconds is None else f"?gracePeriodSeconds={seconds}"), ok=(200, 202, 404))

    def merge(self, path, body):
        return self.request("PATCH", path, body, "application/merge-patch+json")
