#!/usr/bin/env python3
"""Node's `ws` as a client: installs it once below the user's cache folder, starts the server and
runs relay.mjs and durable.mjs against it."""

import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from harness import Server, node_packages, token  # noqa: E402

SECONDS_MAX = 120


def main():
    home = node_packages(HERE, 18)
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
