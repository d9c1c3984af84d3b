#!/usr/bin/env python3
"""The shipped nginx.conf between Python's `websockets` and a server that trusts it: TLS ends there,
and the server knows its clients all the same. Started by run.py, which brings the packages."""

import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from harness import ROOT, Server, equal, run_checks, token, until  # noqa: E402

CONFIG = """
[server]
shards = {shards}
trusted_proxies = ["127.0.0.1"]

[relay]
path = "/ws"

[limits]
connections_per_address_max = 2
"""

# The proxy comes to the server from 127.0.0.1, so clients come to the proxy from elsewhere.
ADA, BOB = "127.0.0.2", "127.0.0.3"


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


class Proxy:
    """nginx with the shipped file, in a folder of its own."""

    def __init__(self, server):
        self.folder = Path(tempfile.mkdtemp(prefix="tidegate-nginx-"))
        self.port = free_port()
        certificate, key = self.folder / "tidegate.pem", self.folder / "tidegate.key"
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1",
                        "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
                        "-keyout", key, "-out", certificate], check=True, capture_output=True)
        self.tls = ssl.create_default_context(cafile=certificate)
        text = (ROOT / "tuning/nginx.conf").read_text()
        for shipped, here in (("listen 443", f"listen 127.0.0.1:{self.port}"),
                              ("127.0.0.1:4000 max", f"{server.address} max"),
                              ("/etc/nginx/", f"{self.folder}/"),
                              ("/run/nginx.pid", f"{self.folder}/nginx.pid"),
                              ("/var/log/nginx/", f"{self.folder}/"),
                              # No more than this process may have.
                              ("nofile 66000", "nofile 1024"),
                              ("connections 65536", "connections 512")):
            assert shipped in text, shipped
            text = text.replace(shipped, here)
        self.conf = self.folder / "nginx.conf"
        self.conf.write_text(text)
        self.process = subprocess.Popen(
            ["nginx", "-p", self.folder, "-e", self.folder / "error.log", "-c", self.conf,
             "-g", "daemon off;"], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
        until(True, self._listens)

    def _listens(self):
        ended = self.process.poll()
        assert ended is None, f"nginx ended with {ended}: {self.process.stderr.read().decode()}"
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def stream(self, source):
        return socket.create_connection(("127.0.0.1", self.port), 10, (source, 0))

    def websocket(self, source, **headers):
        """A WebSocket on the relay from this address of the machine."""
        named = {"Authorization": f"Bearer {token()}", **headers}
        return connect(f"wss://localhost:{self.port}/ws", sock=self.stream(source), ssl=self.tls,
                       additional_headers=named)

    def refusal(self, source, **headers):
        try:
            self.websocket(source, **headers).close()
        except InvalidStatus as refused:
            return refused.response.status_code
        return 101

    def get(self, path, source=BOB, **headers):
        """Status and body of a request over TLS from this address."""
        lines = {"Host": "localhost", "Connection": "close",
                 "Authorization": f"Bearer {token()}", **headers}
        text = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        with self.tls.wrap_socket(self.stream(source), server_hostname="localhost") as stream:
            stream.sendall(f"GET {path} HTTP/1.1\r\n{text}\r\n".encode())
            answer = b"".join(iter(lambda: stream.recv(65536), b""))
        head, _, body = answer.partition(b"\r\n\r\n")
        return int(head.split()[1]), body

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        self.process.terminate()
        self.process.wait(10)
        self.process.stderr.close()
        if kind:
            print((self.folder / "error.log").read_text(errors="replace")[-3000:])
        shutil.rmtree(self.folder, ignore_errors=True)


def peers(server):
    """The addresses that the server itself lists, asked past the proxy from an address of its own."""
    request = urllib.request.Request(f"http://{server.address}/v1/connections",
                                     headers={"Authorization": f"Bearer {token()}",
                                              "X-Forwarded-For": "127.0.0.9"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        listed = json.load(answer)["connections"]
    return sorted(one["peer"].rsplit(":", 1)[0] for one in listed)


def websockets_and_rest_come_through():
    with Server(CONFIG, shards=2) as server, Proxy(server) as proxy:
        with proxy.websocket(ADA) as socket_:
            socket_.send('{"type":"subscribe","topic":"a"}')
            equal(socket_.recv(5), '{"type":"subscribed","topic":"a"}')
            status, body = proxy.get("/v1/connections")
            equal((status, json.loads(body)["count"]), (200, 1))
            equal(proxy.get("/v1/connections", Authorization="Bearer bad")[0], 401)


def clients_are_seen_and_not_the_proxy():
    forged = {"X-Forwarded-For": "203.0.113.7, 127.0.0.1", "Forwarded": "for=203.0.113.8",
              "X-Real-IP": "203.0.113.9"}
    with Server(CONFIG, shards=2) as server, Proxy(server) as proxy:
        with proxy.websocket(ADA), proxy.websocket(BOB, **forged):
            equal(peers(server), [ADA, BOB])


def clients_are_counted_and_not_the_proxy():
    with Server(CONFIG, shards=2) as server, Proxy(server) as proxy:
        with proxy.websocket(ADA) as first, proxy.websocket(ADA):
            equal(proxy.refusal(ADA), 503)
            equal(proxy.refusal(ADA, **{"X-Forwarded-For": "203.0.113.7"}), 503)
            equal(proxy.get("/healthz", ADA)[0], 503)
            # The proxy has the two connections of Ada's and may have more.
            with proxy.websocket(BOB), proxy.websocket(BOB):
                equal(proxy.refusal(BOB), 503)
            first.close()
            until(101, lambda: proxy.refusal(ADA))


def a_restart_is_told_to_clients():
    """What the server says at its end is not swallowed: 1012, after which clients come back."""
    with Server(CONFIG) as server, Proxy(server) as proxy:
        with proxy.websocket(ADA) as socket_:
            code, _ = server.terminate()
            equal(code, 0)
            try:
                socket_.recv(5)
            except ConnectionClosed as closed:
                equal(closed.rcvd.code, 1012)
            else:
                raise AssertionError("a frame after the end")
        until(502, lambda: proxy.get("/healthz")[0])


def requests_use_a_connection_again():
    with Server(CONFIG) as server, Proxy(server) as proxy:
        for _ in range(20):
            equal(proxy.get("/healthz")[0], 200)
        _, text = proxy.get("/metrics", Authorization=f"Bearer {token(roles=['admin'])}")
        accepted = re.search(r"^tidegate_connections_accepted_total(?:\{.*\})? (\d+)$", text.decode(), re.M)
        # One for each worker that had a request, and no more.
        workers = len(os.sched_getaffinity(0))
        assert int(accepted[1]) <= max(workers, 10), accepted[0]


if __name__ == "__main__":
    run_checks([
        websockets_and_rest_come_through,
        clients_are_seen_and_not_the_proxy,
        clients_are_counted_and_not_the_proxy,
        a_restart_is_told_to_clients,
        requests_use_a_connection_again,
    ])
