#!/usr/bin/env python3
"""Socket.IO's own clients, that for JavaScript and python-socketio, against the example `socketio` at 1
and 2 shards: polling, WebSocket and the change between them."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from harness import SECRET, built, node_packages, venv  # noqa: E402

SECONDS_MAX = 120


def served(example, shards, folder, check):
    environment = {"PATH": os.environ["PATH"], "TIDEGATE_JWT_SECRET": SECRET, "TIDEGATE_SHARD__PIN": "false",
                   "TIDEGATE_SOCKETIO__PUBLIC": "true"}
    command = [example, "--listen", "127.0.0.1:0", "--shards", str(shards), "--data", f"{folder}/data-{shards}"]
    program = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        address = program.stdout.readline().strip().removeprefix("tidegate listening on http://")
        return check(address)
    finally:
        program.send_signal(signal.SIGTERM)
        program.wait(timeout=20)


def main():
    home = node_packages(HERE, 20)
    script = shutil.copy(HERE / "client.test.mjs", home)
    python = venv("socketio", HERE / "requirements.txt")
    example = built("examples/socketio", "tidegate", ("debug", "release"))
    failed = 0

    def check(address):
        javascript = ["node", "--test-reporter=spec", "--test-timeout=30000", script, address]
        failed = subprocess.run(javascript, cwd=home, timeout=SECONDS_MAX).returncode
        failed |= subprocess.run([str(python), HERE / "client.py", address], timeout=SECONDS_MAX).returncode
        return failed

    with tempfile.TemporaryDirectory(prefix="tidegate-interop-") as folder:
        for shards in (1, 2):
            print(f"--- {shards} shard{'s' if 1 < shards else ''}", flush=True)
            failed |= served(example, shards, folder, check)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
