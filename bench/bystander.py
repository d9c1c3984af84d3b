#!/usr/bin/env python3
"""What a bystander waits while pushes go to many: pings on one connection, beside a fan-out.

    bench/bystander.py BIN LOADGEN [--members 8000] [--rate 4] [--seconds 5]

Starts the server on core 0 and `loadgen fanout` on core 1, each for a bounded time, and prints the round
trip of a ping before and during the pushes. With the right to do so (root) the three run with fixed
priorities, so that the load generator's own work on its core is not counted as the server's.
"""

import argparse
import os
import socket
import subprocess
import tempfile
import time

CONFIG = """
[server]
shards = 1
[relay]
path = "/ws"
public = true
unhandled = "broadcast"
"""
UPGRADE = (b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
           b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
PING = bytes([0x89, 0x84, 0, 0, 0, 0]) + b"ping"
PAUSE_S = 0.003


def first(priority, core):
    """A process of a fixed priority on one core, where that is allowed."""
    def prepare():
        os.sched_setaffinity(0, {core})
        try:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))
        except PermissionError:
            pass
    return prepare


def round_trips(port, seconds):
    """Milliseconds of pings, one after the other."""
    stream = socket.create_connection(("127.0.0.1", port), timeout=10)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    stream.send(UPGRADE)
    head = b""
    while b"\r\n\r\n" not in head:
        head += stream.recv(4096)
    taken = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        began = time.perf_counter()
        stream.send(PING)
        left = 6
        while left:
            left -= len(stream.recv(left))
        taken.append(1e3 * (time.perf_counter() - began))
        time.sleep(PAUSE_S)
    stream.close()
    return sorted(taken)


def told(name, taken):
    at = lambda share: taken[min(len(taken) - 1, int(share * len(taken)))]
    print(f"{name}: {len(taken)} pings, p50 {at(0.5):.2f} ms, p99 {at(0.99):.2f} ms, max {taken[-1]:.2f} ms")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("server")
    parser.add_argument("loadgen")
    parser.add_argument("--members", type=int, default=8_000)
    parser.add_argument("--rate", type=int, default=4, help="pushes a second, each to all members")
    parser.add_argument("--seconds", type=float, default=5)
    wanted = parser.parse_args()
    with socket.socket() as free, tempfile.TemporaryDirectory() as folder:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        config = os.path.join(folder, "tidegate.toml")
        with open(config, "w") as file:
            file.write(CONFIG)
        server = subprocess.Popen(
            [wanted.server, "serve", "--listen", f"127.0.0.1:{port}", "--config", config,
             "--data", os.path.join(folder, "data")],
            env={"TIDEGATE_JWT_SECRET": "a secret of no value, for measurements only"},
            stdout=subprocess.DEVNULL, preexec_fn=first(10, 0))
        try:
            time.sleep(1)
            first(20, 1)()
            told("alone", round_trips(port, 3))
            load = subprocess.Popen(
                [wanted.loadgen, "fanout", "--server", f"127.0.0.1:{port}", "-n", str(wanted.members),
                 "--rate", str(wanted.rate), "--pid", str(server.pid),
                 "--seconds", str(int(wanted.seconds) + 4), "--warmup", "1"],
                preexec_fn=first(9, 1))
            time.sleep(3)
            told("beside the pushes", round_trips(port, wanted.seconds))
            load.wait(timeout=60)
        finally:
            server.terminate()
            server.wait(timeout=20)


if __name__ == "__main__":
    main()
