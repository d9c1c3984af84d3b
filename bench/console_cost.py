#!/usr/bin/env python3
"""What an open console page costs the server: its CPU time (user and system, from /proc) over equal
spans with the page open and closed, by turns, under one steady load: `loadgen fanout`, whose rate is
of deliveries. The page is the real one in Debian's Chromium, on the tab of connections or another.

    cargo build --release && cargo build --release -p loadgen
    python3 bench/console_cost.py --connections 5000 --rate 20000 --seconds 15 --rounds 4

With `--rate 0` they do nothing, so that a page that costs little can be seen: a browser beside a
loaded server moves that server's own CPU time by more than the page takes.

Prints each round, then the median difference as a share of what the server used without the page.
Waits for nothing: look at the machine's load before, for a busy one makes the spans unequal.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests/interop"))
from harness import Server, built, skip, token  # noqa: E402

# Pings to all who connected together would fall into some of the spans.
CONFIG = """
[server]
shards = {shards}

[limits]
ping_interval_ms = 3600000

[relay]
path = "/ws"
unhandled = "broadcast"
"""
# One page that stays open for as long as a line says so on its standard input.
PAGE = """
import { chromium } from 'playwright-core';
import { createInterface } from 'node:readline';
const [base, token, tab] = process.argv.slice(2);
const browser = await chromium.launch({ executablePath: '/usr/bin/chromium', args: ['--no-sandbox', '--disable-gpu'] });
let page;
for await (const line of createInterface({ input: process.stdin })) {
  if (line === 'open') {
    page = await browser.newPage();
    await page.goto(`${base}/#${tab}`);
    await page.locator('#token').fill(token);
    await page.keyboard.press('Enter');
    await page.locator('#status', { hasText: 'live' }).waitFor();
  } else if (line === 'close') {
    await page.close();
  } else break;
  console.log('done');
}
await browser.close();
process.exit(0);
"""


def cpu_s(pid):
    """Time on a processor of all threads, as the scheduler counts it: to the nanosecond, where
    /proc/PID/stat tells ticks of 10 ms."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9


def tell(page, line):
    page.stdin.write(line + "\n")
    page.stdin.flush()
    if line != "end":
        assert page.stdout.readline() == "done\n", "the page ended"


def measure(server, seconds):
    """CPU seconds of the server a second."""
    began, before = time.monotonic(), cpu_s(server.process.pid)
    time.sleep(seconds)
    return (cpu_s(server.process.pid) - before) / (time.monotonic() - began)


def load(options, server):
    """Everybody hears one topic; what all of them get together is the rate."""
    binary = built("loadgen", "loadgen", ["release"])
    seconds = options.rounds * 2 * (options.seconds + 5) + 60
    publishes = options.rate / options.connections
    mode = ["fanout", "--rate", publishes] if options.rate else ["idle", "--path", "/ws"]
    command = [binary, *mode, "--server", server.address, "-n", options.connections, "--seconds", seconds,
               "--pid", server.process.pid]
    return subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL,
                            env={**os.environ, "LOADGEN_TOKEN": token("load", ttl_s=3600)})


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--connections", type=int, default=5000)
    parser.add_argument("--rate", type=int, default=20000, help="0: connections that do nothing")
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--shards", type=int, default=1)
    parser.add_argument("--tab", default="connections")
    parser.add_argument("--packages", default=None, help="folder with node_modules/playwright-core")
    options = parser.parse_args()
    found = sorted((Path.home() / ".cache/tidegate-interop").glob("chromium-*/installed"))
    packages = Path(options.packages) if options.packages else found and found[-1].parent
    if not packages:
        skip("no playwright-core: tests/interop/chromium/run.py installs it")
    (packages / "cost.mjs").write_text(PAGE)
    with Server(CONFIG, shards=options.shards) as server:
        admin = token("ops", roles=["admin"], ttl_s=3600)
        page = subprocess.Popen(["node", packages / "cost.mjs", f"http://{server.address}", admin, options.tab],
                                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        generator = load(options, server)
        time.sleep(8)
        shares, closed_all, added = [], [], []
        for number in range(options.rounds):
            closed = measure(server, options.seconds)
            tell(page, "open")
            time.sleep(2)
            opened = measure(server, options.seconds)
            tell(page, "close")
            time.sleep(1)
            shares.append(opened / closed - 1)
            closed_all.append(closed)
            added.append(opened - closed)
            print(f"round {number + 1}: closed {closed:.5f}, open {opened:.5f} of a core, {100 * shares[-1]:+.2f} %")
        assert generator.poll() is None, "the load ended early"
        generator.terminate()
        generator.wait()
        tell(page, "end")
        page.wait(10)
    print(f"median {statistics.median(added):+.5f} of a core, {100 * statistics.median(shares):+.2f} % of {statistics.median(closed_all):.4f} of a core, "
          f"load average {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
