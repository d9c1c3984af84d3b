#!/usr/bin/env python3
"""Every shipped scenario of the load generator in short, against a server that it starts itself: the
loads are understood by both, and the page has what it promises. Says nothing about speed."""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from harness import (CONFIG, ROOT, Server, binary, built, equal, run_checks, secure,  # noqa: E402
                     token)

# A run that a busy machine has spoilt says so and ends with this; it has worked all the same.
GOOD, FAILED, THROWN_AWAY = 0, 1, 2
SCENARIOS = sorted((ROOT / "loadgen/scenarios").glob("*.toml"))
# Times are for a machine that does nothing else, and searches are over after a few runs.
SHORTER = [(r"^(connections|rate|burst) = (\d+)", lambda found: min(int(found), 200)),
           (r"^(mib) = (\d+)", lambda found: 2),
           (r"^(warmup) = ([\d.]+)", lambda found: 0.5)]
RAMP = r"ramp = \{ from = \d+, p99_us_max = \d+[^}]*\}"


def shortened(text):
    for pattern, less in SHORTER:
        text = re.sub(pattern, lambda found: f"{found[1]} = {less(found[2])}", text, flags=re.M)
    return re.sub(RAMP, "ramp = { from = 20, p99_us_max = 5000000, rounds = 2 }", text)


def run(path, folder, *words):
    page = folder / "page.html"
    command = [built("loadgen", "loadgen"), "run", path, "--report", page, "--seconds", "2.5", *words]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=120)
    return done, page


def check_of(scenario):
    def check():
        text = shortened(scenario.read_text())
        with tempfile.TemporaryDirectory(prefix="tidegate-interop-") as folder:
            short = Path(folder) / scenario.name
            short.write_text(text)
            done, page = run(short, Path(folder), "--start", binary())
            if done.returncode not in (GOOD, THROWN_AWAY):
                raise AssertionError(f"exit {done.returncode}\n{done.stdout}{done.stderr}")
            html = page.read_text()
        for name in re.findall(r'^name = "(.*)"', text, re.M):
            assert f"<h2>{name}</h2>" in html, f"no step `{name}`"
        wanted = ["<h2>Environment</h2>", "<th>command</th>", "<pre>loadgen "]
        if "ramp" in text:
            wanted.append("is the highest with p99 within")
        if re.search(r'mode = "(fanout|connect|durable publish)"', text):
            wanted += ["Latency by percentile", "p99 over time", "Throughput over time", "<svg",
                       "not in time"]
        for part in wanted:
            assert part in html, f"no `{part}` on the page"
        assert "nothing came back" not in html, "a load that nobody answered"

    check.__name__ = f"scenario_{scenario.stem}"
    return check


def a_server_that_runs_is_measured_too():
    with Server(dev=True) as server, tempfile.TemporaryDirectory() as folder:
        scenario = Path(folder) / "one.toml"
        scenario.write_text('title = "One"\nabout = "x"\n[[step]]\nname = "a"\n[[step.load]]\n'
                            'mode = "fanout"\nconnections = 5\nrate = 20\n')
        os.environ["LOADGEN_TOKEN"] = server.printed_token()
        try:
            done, page = run(scenario, Path(folder), "--server", server.address,
                             "--pid", server.process.pid)
        finally:
            del os.environ["LOADGEN_TOKEN"]
        assert done.returncode in (GOOD, THROWN_AWAY), done.stdout + done.stderr
        assert "eyJ" not in page.read_text(), "the token stands on the page"


def a_step_that_fails_keeps_the_others():
    with tempfile.TemporaryDirectory() as folder:
        scenario = Path(folder) / "two.toml"
        scenario.write_text('title = "Two"\nabout = "x"\n'
                            '[[step]]\nname = "bad"\n[[step.load]]\nmode = "fanout"\n'
                            'path = "/nowhere"\nconnections = 5\n'
                            '[[step]]\nname = "good"\n[[step.load]]\nmode = "fanout"\n'
                            'connections = 5\nrate = 20\n')
        done, page = run(scenario, Path(folder), "--start", binary())
        equal(done.returncode, FAILED)
        assert "FAILED: the server refused the upgrade" in done.stdout, done.stdout
        html = page.read_text()
    assert "<h2>good</h2>" in html and "Latency by percentile" in html


def one_load_prints_one_object():
    with Server(dev=True) as server:
        bearer = server.printed_token()
        command = [built("loadgen", "loadgen"), "fanout", "--server", server.address, "--connections", "5",
                   "--rate", "20", "--seconds", "1", "--json"]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=60,
                              env={**os.environ, "LOADGEN_TOKEN": bearer})
    report = json.loads(done.stdout)
    names = [series["name"] for series in report["latencies"]]
    equal(names, ["first", "delivery", "last"])
    equal(report["wrong"], 0)


def loads(*words):
    """The reports of one load, which must have had answers, all of them right."""
    command = [built("loadgen", "loadgen"), *words, "--seconds", "1", "--warmup", "0.2", "--json"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=60)
    assert done.returncode in (GOOD, THROWN_AWAY), done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["count"] and not report["wrong"], report
    return report


COMPRESSED = (CONFIG + "compression = true\n").replace("[relay]", "[relay]\ncompression = true")


def loads_over_tls_and_compressed_ones_are_answered():
    config, trusted = secure(COMPRESSED)
    with Server(config) as server:
        sealed = ["--server", server.secure_address(), "--tls", trusted]
        plain = ["--server", server.address]
        bearer = ["--token", token("load")]
        for way in (plain, sealed):
            for deflate in ([], ["--deflate"]):
                loads("echo", "-n", "3", "--depth", "4", "--bytes", "1024", *way, *deflate)
                loads("echo", "-n", "3", "--rate", "200", *way, *deflate)
                loads("fanout", "-n", "5", "--burst", "2", "--bytes", "1024", *way, *bearer, *deflate)
                loads("connect", "--rate", "20", *way, *bearer, *deflate)
                loads("connect", "--rate", "20", "--path", "/echo", "--echoes", "2", *way, *deflate)
        words = ["echo", "--raw", "--deflate", *plain]
        for refused in (words, ["stall", "--socketio", *plain], ["echo", "--tls", "/nowhere", *plain]):
            done = subprocess.run([str(word) for word in [built("loadgen", "loadgen"), *refused]],
                                  capture_output=True, text=True, timeout=60)
            equal(done.returncode, FAILED)
            assert "--deflate" in done.stderr or "/nowhere" in done.stderr, done.stderr


def loads_of_socketio_are_answered():
    config, trusted = secure()
    with Server(config, program=built("typed", "bench")) as server:
        for way in (["--server", server.address],
                    ["--server", server.secure_address(), "--tls", trusted]):
            loads("echo", "--socketio", "-n", "3", "--depth", "4", *way)
            loads("fanout", "--socketio", "-n", "5", "--burst", "2", *way)
            loads("connect", "--socketio", "--rate", "20", *way)


if __name__ == "__main__":
    assert SCENARIOS
    run_checks([check_of(scenario) for scenario in SCENARIOS]
               + [a_server_that_runs_is_measured_too, a_step_that_fails_keeps_the_others,
                  one_load_prints_one_object, loads_over_tls_and_compressed_ones_are_answered,
                  loads_of_socketio_are_answered])
