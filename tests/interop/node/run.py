#!/usr/bin/env python3
"""Node's `ws` as a client: installs it once below the user's cache folder, starts the server and
runs relay.mjs and durable.mjs against it."""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from harness import Server, cache_dir, skip, token  # noqa: E402

SECONDS_MAX = 120


def packages():
    """A folder with the packages of the lock file."""
    for tool in ("node", "npm"):
        if not shutil.which(tool):
            skip(f"no {tool}: install Node.js 18 or later")
    lock = HERE / "package-lock.json"
    home = cache_dir(f"node-{hashlib.sha256(lock.read_bytes()).hexdigest()[:12]}")
    installed = home / "installed"
    if not installed.exists():
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir()
        for name in ("package.json", "package-lock.json"):
            shutil.copy(HERE / name, home)
        done = subprocess.run(["npm", "ci", "--no-audit", "--no-fund"], cwd=home,
                              capture_output=True, text=True, timeout=300)
        if done.returncode:
            skip(f"`npm ci` failed: {done.stderr.strip()[-500:]}")
        installed.touch()
    return home


def main():
    home = packages()
    # Node looks for packages beside the script.
    for script in HERE.glob("*.mjs"):
        shutil.copy(script, home)
    tokens = [token("ada"), token("bob"), token("eve", "other")]
    failed = 0
    with Server(shards=2) as server:
        for script in ("relay.mjs", "durable.mjs"):
            command = ["node", home / script, server.address, *tokens]
            failed |= subprocess.run(list(map(str, command)), timeout=SECONDS_MAX).returncode
    sys.exit(failed)


if __name__ == "__main__":
    main()
