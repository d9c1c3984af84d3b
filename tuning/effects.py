#!/usr/bin/env python3
"""What each knob of the profiles does: the same load, or the same question, on a server with the
default and on one with the profile's value, by turns. Wants a machine that does nothing else:

    cargo build --profile dist --package tidegate --package loadgen
    TIDEGATE_BIN=target/dist/tidegate LOADGEN_BIN=target/dist/loadgen python3 tuning/effects.py [--rounds 3] [--seconds 3] [--only NAME] [--folder DIR]

Server on CPU 0, load on CPU 1. Prints the tables of `tuning/README.md`: medians `before > after`,
and how far the rounds were apart, so that chance can be seen. Standard library only.
"""

import argparse
import base64
import json
import os
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests/interop"))
from harness import Server, binary, built, token  # noqa: E402

BASE = {"server.shards": 1, "relay.path": "/ws", "relay.unhandled": "broadcast"}
ECHO = """
[[mount]]
path = "/echo"
dialect = "raw"
handler = "echo"
public = true
"""
MIB = 1 << 20


# ---- loads: what loadgen says of a server, as name -> number

def loadgen(server, options, *mode):
    """Runs it beside the server and returns its JSON."""
    program = built("loadgen", "loadgen", ["release"])
    command = [program, *mode, "--server", server.address, "--pid", server.process.pid, "--cpu", 1,
               "--json"]
    if "--seconds" not in mode and mode[:2] != ("durable", "replay"):
        command += ["--seconds", options.seconds]
    environment = {**os.environ, "LOADGEN_TOKEN": token("load", ttl_s=3600)}
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300,
                          env=environment)
    if not done.stdout.startswith("{"):
        raise RuntimeError(f"{' '.join(map(str, mode))}: {done.stderr.strip()[-300:]}")
    return json.loads(done.stdout)


def load(*mode):
    """Rate, CPU and latency under this load."""
    def figures(server, options):
        report = loadgen(server, options, *mode)
        if "figures" in report:
            return {"MB/s": report["figures"]["payload, median round"]["value"],
                    "CPU ns each": report["figures"]["server CPU per message"]["value"]}
        if not report["count"]:
            return {"complete bursts": 0}
        took = {f"{name} us": report["latencies"][-1][f"{name}_us"]
                for name in ("p50", "p99") if report["latencies"]}
        return {"a second": report["per_second"], "CPU ns each": report["server"]["cpu_ns_per_unit"],
                **took, "MiB": anonymous_bytes(server) / MIB}
    figures.load = "loadgen " + " ".join(map(str, mode))
    return figures


def beside(flood, *mode):
    """Latency under this load while another one takes what the server has."""
    def figures(server, options):
        run_s = 3 * options.seconds + 6
        noise = threading.Thread(target=loadgen, args=(server, options, *flood, "--seconds", run_s))
        noise.start()
        time.sleep(2)
        report = loadgen(server, options, *mode)
        noise.join()
        last = report["latencies"][-1]
        return {"p50 us": last["p50_us"], "p99 us": last["p99_us"]}
    figures.load = f"loadgen {' '.join(map(str, mode))}, beside {' '.join(map(str, flood))}"
    return figures


def quiet(*mode):
    """Memory and CPU of connections that do nothing, or never read."""
    def figures(server, options):
        report = loadgen(server, options, *mode)
        count = report["connections"]
        return {"B each": report["memory_per_connection"]["anonymous"],
                "CPU us/s each": report["server"]["cpu_share"] * 1e6 / count}
    figures.load = "loadgen " + " ".join(map(str, mode))
    return figures


def anonymous_bytes(server):
    """What the process keeps, without the files that it maps."""
    for line in Path(f"/proc/{server.process.pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Anonymous:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no Anonymous in smaps_rollup")


def empty(server, _options):
    """Memory of a server to which nobody came."""
    time.sleep(0.5)
    return {"MiB": anonymous_bytes(server) / MIB}


empty.load = "nobody connects"


def log_bytes(server, _options):
    """What one publish to one topic takes on the disk."""
    bearer = token("load", ttl_s=60)
    made = [server.http("POST", "/v1/topics", {"name": "one"}, bearer)[0],
            server.http("POST", "/v1/topics/one/messages", {"payload": 1}, bearer)[0]]
    assert made == [201, 200], f"answered {made}"
    blocks = sum(file.stat().st_blocks * 512 for file in (server.folder / "data").rglob("*") if file.is_file())
    return {"MiB on disk": blocks / MIB}


log_bytes.load = "one topic, one publish"


# ---- questions: what a server lets through

def upgrade(server, path="/echo", bearer=None):
    """An open socket and the status of its upgrade."""
    host, port = server.address.rsplit(":", 1)
    stream = socket.create_connection((host, int(port)), timeout=5)
    key = base64.b64encode(os.urandom(16)).decode()
    authorization = f"authorization: Bearer {bearer}\r\n" if bearer else ""
    stream.sendall(f"GET {path} HTTP/1.1\r\nhost: {host}\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
                   f"sec-websocket-version: 13\r\nsec-websocket-key: {key}\r\n{authorization}\r\n".encode())
    try:
        return stream, int(stream.recv(4096).split(b" ", 2)[1])
    except (OSError, IndexError):
        return stream, 0


def frame(opcode, payload):
    """A masked frame whose mask is zero."""
    length = (bytes([0x80 | len(payload)]) if len(payload) < 126
              else bytes([0x80 | 126]) + len(payload).to_bytes(2, "big") if len(payload) < 65536
              else bytes([0x80 | 127]) + len(payload).to_bytes(8, "big"))
    return bytes([0x80 | opcode]) + length + bytes(4) + payload


def upgrades(count, path="/echo", bearer=None, wanted=101):
    """Of so many upgrades from one address, how many are let in."""
    def figures(server, _options):
        given = bearer() if callable(bearer) else bearer
        opened = [upgrade(server, path, given) for _ in range(count)]
        for stream, _ in opened:
            stream.close()
        return {f"answered {wanted}": sum(status == wanted for _, status in opened)}
    figures.load = f"{count} upgrades of `{path}` from one address"
    return figures


def flood(opcode, payload_bytes, what):
    """Frames that one connection gets answered in three seconds, or before it is closed."""
    sent = frame(opcode, bytes(payload_bytes))
    def figures(server, _options):
        stream, status = upgrade(server)
        assert status == 101, f"the upgrade was answered {status}"
        stream.settimeout(0.5)
        until, answered, code = time.monotonic() + 3, 0, None
        while time.monotonic() < until and code is None:
            answer = echoed(stream, sent)
            answered, code = (answered + 1, None) if isinstance(answer, bytes) else (answered, answer)
        stream.close()
        return {"answered in 3 s": answered, "close code": code or 0}
    figures.load = f"one connection sends {what} as fast as it is answered"
    return figures


def echoed(stream, sent):
    """The answer to one frame, or the code of the close that came in its place."""
    try:
        stream.sendall(sent)
        head = take(stream, 2)
        size = head[1] & 127
        if 126 <= size:
            size = int.from_bytes(take(stream, 2 if size == 126 else 8), "big")
        body = take(stream, size)
    except OSError:
        return 1006
    return int.from_bytes(body[:2], "big") if head[0] & 15 == 8 else body


def stalled(server, _options):
    """What subscribers hold who read nothing of 800 pushes of 16 KiB."""
    bearer = token("one", ttl_s=600)
    streams = [upgrade(server, "/ws", bearer)[0] for _ in range(50)]
    for stream in streams:
        stream.sendall(frame(1, b'{"type":"subscribe","topic":"news"}'))
    time.sleep(0.5)
    before = anonymous_bytes(server)
    for _ in range(800):
        server.http("POST", "/v1/relay/push", {"topic": "news", "event": "e", "payload": "x" * 16384}, bearer)
    time.sleep(0.5)
    grown = anonymous_bytes(server) - before
    closed = sum(is_closed(stream) for stream in streams)
    return {"KiB each": grown / 1024 / len(streams), "closed": closed}


stalled.load = "50 subscribers read nothing of 800 pushes of 16 KiB"


def is_closed(stream):
    """Whether the other side has ended it, behind whatever is still to be read."""
    stream.settimeout(0.2)
    try:
        while stream.recv(MIB):
            pass
    except TimeoutError:
        return False
    except OSError:
        pass
    return True


def take(stream, count):
    """So many bytes."""
    got = b""
    while len(got) < count:
        more = stream.recv(count - len(got))
        if not more:
            raise ConnectionResetError
        got += more
    return got


# ---- the knobs

DEEP = load("echo", "-n", 1000, "-d", 16)
LIGHT = beside(("echo", "-n", 200, "-d", 16), "echo", "-n", 10, "--rate", 1000)
KNOBS = {
    "dev": [
        ({"shard.ring_entries": (4096, 256)}, empty),
        ({"shard.receive_buffers": (1024, 64)}, empty),
        ({"shard.pin": ("true", "false")}, load("echo", "-n", 100)),
        ({"durable.segment_bytes_max": (67108864, 1048576)}, log_bytes),
    ],
    "latency": [
        ({"shard.busy_poll_us": (0, 50)}, load("echo", "-n", 10)),
        ({"shard.busy_poll_us": (0, 50)}, load("echo", "-n", 100, "--rate", 20000)),
    ],
    "throughput": [
        ({"shard.ring_entries": (4096, 8192)}, DEEP),
        ({"shard.receive_buffers": (1024, 4096)}, load("echo", "-n", 4000, "-d", 4, "-b", 4096)),
        ({"limits.outbox_bytes_max": (1048576, 8388608), "limits.outbox_frames_max": (256, 4096)},
         load("fanout", "-n", 100, "--burst", 100, "-b", 1024)),
        ({"relay.topic_capacity": (128, 1024)}, load("fanout", "-n", 100, "--burst", 200, "-b", 1024)),
        ({"limits.inbox_bytes_max": (262144, 1048576), "limits.inbox_messages_max": (1024, 4096)},
         load("echo", "-n", 4, "-d", 4096)),
        ({"limits.publishes_in_flight_max": (1024, 4096)},
         load("durable", "publish", "-n", 1, "-i", 4096)),
        ({"limits.mailbox_descriptors_max": (4096, 16384), "server.shards": (2, 2)},
         load("fanout", "-n", 1000, "--burst", 64)),
        ({"durable.window_messages": (256, 2048), "durable.window_bytes": (262144, 4194304)},
         load("durable", "replay", "--mib", 64, "--rounds", 2)),
        ({"durable.sync_bytes_max": (1048576, 4194304)},
         load("durable", "publish", "-i", 1024, "-b", 4096)),
    ],
    "edge": [
        ({"limits.message_bytes_max": (65536, 32768), "limits.frame_bytes_max": (65536, 32768)},
         flood(2, 40000, "messages of 40,000 B")),
        ({"limits.outbox_bytes_max": (1048576, 524288)}, stalled),
        ({"limits.messages_per_s_max": (0, 200), "limits.messages_burst_max": (0, 400)},
         flood(2, 64, "messages of 64 B")),
        ({"limits.bytes_per_s_max": (0, 2097152)}, flood(2, 30000, "messages of 30,000 B")),
        ({"limits.control_frames_per_s_max": (0, 20)}, flood(9, 8, "pings")),
        ({"limits.messages_per_s_max": (0, 1000000), "limits.bytes_per_s_max": (0, 1000000000),
          "limits.control_frames_per_s_max": (0, 1000000)}, load("echo", "-n", 100)),
        ({"limits.connections_per_address_max": (0, 100)}, upgrades(300)),
        ({"limits.connects_per_address_per_s_max": (0, 20)}, upgrades(100)),
        ({"limits.auth_failures_per_address_per_min_max": (0, 10)},
         upgrades(50, "/ws", "not-a-token", 401)),
        ({"limits.connections_per_tenant_max": (0, 10000)},
         upgrades(10100, "/ws", lambda: token("one", ttl_s=600))),
    ],
    "million": [
        ({"shard.ring_entries": (4096, 32768)}, empty),
        ({"shard.receive_buffers": (1024, 8192), "shard.receive_buffer_bytes": (16384, 4096)}, empty),
        ({"shard.receive_buffer_bytes": (16384, 4096)}, load("echo", "-n", 1000)),
        ({"shard.receive_buffer_bytes": (16384, 4096)}, load("echo", "-n", 100, "-b", 16000)),
        ({"limits.outbox_bytes_max": (1048576, 65536), "limits.outbox_frames_max": (256, 64),
          "relay.topic_capacity": (128, 32)}, stalled),
        ({"limits.ping_interval_ms": (25000, 55000)},
         quiet("idle", "-n", 10000, "--path", "/ws", "--seconds", 56)),
    ],
    "backend": [
        ({"limits.message_bytes_max": (65536, 1048576), "limits.frame_bytes_max": (65536, 1048576)},
         flood(2, 500000, "messages of 500,000 B")),
        ({"durable.window_messages": (256, 1024), "durable.window_bytes": (262144, 4194304)},
         load("durable", "replay", "--mib", 64, "--rounds", 2)),
    ],
}

# What profiles turned once, and do no more for what was measured.
TRIED = [
    ({"limits.turn_completions_max": (128, 64)}, LIGHT),
    ({"limits.turn_us_max": (2000, 500)}, LIGHT),
    ({"limits.turn_completions_max": (128, 512)}, DEEP),
    ({"limits.turn_us_max": (2000, 5000)}, DEEP),
    ({"durable.sync_delay_us_max": (0, 500)}, load("durable", "publish", "-i", 64)),
    ({"durable.sync_delay_us_max": (0, 500)}, load("durable", "publish", "-i", 1, "-n", 1)),
]
# What a profile turns and no load here can show, and why.
UNMEASURED = {
    "server.listen": "the address; `0.0.0.0` lets others in",
    "server.data_dir": "a place",
    "server.shards": "`dev` takes one core and leaves the others to the developer",
    "shard.backlog": "connections in the kernel's queue; at most `net.core.somaxconn` of the host",
    "shard.token_cache_entries_max": "how many verified tokens are remembered",
    "auth.rights": "who may do what: `explicit` lets a token do what it says and nothing else",
    "relay.unhandled": "who answers topics without a handler",
    "durable.partitions": "folders of the log; fewer take less disk, see `segment_bytes_max`",
    "log.format": "JSON for machines",
    "log.level": "what is told",
    "limits.handshake_ms_max": "a time after which something is given up",
    "limits.message_complete_ms_max": "as handshake_ms_max",
    "limits.pong_timeout_ms": "as handshake_ms_max",
    "limits.lifetime_ms_max": "as handshake_ms_max",
    "limits.head_bytes_max": "a longer head is refused",
    "limits.connections_max": "more are answered 503",
    "limits.half_open_max": "more than these, and the one that is silent for longest ends",
    "limits.half_open_per_address_max": "as half_open_max, for one address",
}


def text(value):
    """A value as TOML has it."""
    return f'"{value}"' if isinstance(value, str) and value not in ("true", "false") else str(value)


def config(values):
    """A configuration; keys are `section.key`."""
    sections = {}
    for name, value in values.items():
        section, key = name.split(".")
        sections.setdefault(section, []).append(f"{key} = {text(value)}")
    return "\n".join(f"[{name}]\n" + "\n".join(lines) for name, lines in sections.items()) + ECHO


def once(change, index, figures, options):
    """The figures of one server, with the values before (0) or after (1)."""
    values = {**BASE, **{key: pair[index] for key, pair in change.items()}}
    cores = {0, 1} if values["server.shards"] != 1 else {0}
    with Server(config(values), preexec=lambda: os.sched_setaffinity(0, cores)) as server:
        return figures(server, options)


def shown(value):
    return f"{value:,.0f}" if 100 <= abs(value) or value == int(value) else f"{value:.1f}"


def cell(befores, afters):
    """`before > after`, and the widest of both sides' spreads."""
    before, after = statistics.median(befores), statistics.median(afters)
    middle = [(before, befores), (after, afters)]
    spread = max((max(all_) - min(all_)) / value if value else 0 for value, all_ in middle)
    return f"{shown(before)} > {shown(after)}" + (f" (± {50 * spread:.0f} %)" if 0.02 < spread else "")


def row(change, figures, options):
    """A line of the table, printed at once: a run takes some minutes."""
    rounds = 1 if "--seconds 56" in figures.load or "10100" in figures.load else options.rounds
    taken = ([], [])
    try:
        for _ in range(rounds):
            for index in (0, 1):
                taken[index].append(once(change, index, figures, options))
        names = {name: None for one in taken[0] + taken[1] for name in one}
        cells = "; ".join(f"{name} {cell(*([one.get(name, 0) for one in side] for side in taken))}" for name in names)
    except (RuntimeError, AssertionError, OSError) as error:
        cells = f"not measured: {error}"
    knobs = ", ".join(f"`{key}` {before} > {after}" for key, (before, after) in change.items() if before != after)
    print(f"| {knobs} | {figures.load} | {cells} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--rounds", type=int, default=3, help="servers with each value [3]")
    parser.add_argument("--seconds", type=float, default=3, help="seconds of each load [3]")
    parser.add_argument("--only", default="", help="only this profile, or knobs with this in their name")
    parser.add_argument("--folder", help="where servers keep their data; a real disk, not tmpfs")
    options = parser.parse_args()
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    tempfile.tempdir = options.folder
    print(f"{binary().name}, kernel {os.uname().release}, load average before {os.getloadavg()[0]:.1f}\n")
    for profile, knobs in {**KNOBS, "tried, and taken back": TRIED}.items():
        chosen = [(change, figures) for change, figures in knobs
                  if options.only in profile or any(options.only in key for key in change)]
        if chosen:
            print(f"### {profile}\n\n| knob | load | before > after |\n|---|---|---|")
        for change, figures in chosen:
            row(change, figures, options)
        if chosen:
            print()
    if not options.only:
        print("### Turned without a figure\n")
        for key, reason in UNMEASURED.items():
            print(f"* `{key}`: {reason}")


if __name__ == "__main__":
    main()
