#!/usr/bin/env python3
"""The shipped client under Node: its types by the TypeScript compiler, all dialects against a fake
server, relay, durable and REST against the server, events against the example `notify`."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
CLIENT = HERE.parents[2] / "src/web/client"
sys.path.insert(0, str(HERE.parent))
from harness import ROOT, SECRET, Server, node_packages, token  # noqa: E402

SECONDS_MAX = 120
TYPES = ["--noEmit", "--strict", "--target", "es2022", "--module", "nodenext", "--types", "node",
         "--noUncheckedIndexedAccess", "types.ts"]


def example():
    """The newest build of the example that has gateways, if there is one: `cargo test` makes it."""
    target = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")
    built = [path for path in target.glob("*/examples/notify") if os.access(path, os.X_OK)]
    return str(max(built, key=lambda path: path.stat().st_mtime, default=""))


def main():
    home = node_packages(HERE, 20)
    # Node looks for packages beside the script.
    tests = [shutil.copy(path, home) for path in sorted(HERE.glob("*.test.mjs"))]
    for path in (HERE.parent / "sign.mjs", HERE / "fake.mjs", HERE / "types.ts", CLIENT / "client.js", CLIENT / "tidegate.d.ts"):
        shutil.copy(path, home)
    types = subprocess.run(["npx", "tsc", *TYPES], cwd=home, timeout=SECONDS_MAX).returncode
    print(f"{'FAILED ' if types else 'ok     '} types")
    with Server() as server:
        environment = {
            **os.environ, "TIDEGATE_ADDRESS": server.address,
            "TIDEGATE_TOKEN": token("ada", roles=["admin"]),
            "TIDEGATE_CLIENT": str(home / "client.js"), "TIDEGATE_TYPES": str(home / "tidegate.d.ts"),
            "TIDEGATE_JWT_SECRET": SECRET, "TIDEGATE_EXAMPLE": example(),
        }
        # One file at a time: a test of the relay closes every connection of the tenant.
        command = ["node", "--test", "--test-concurrency=1", "--test-reporter=spec", *map(str, tests)]
        run = subprocess.run(command, cwd=home, env=environment, timeout=SECONDS_MAX).returncode
        sys.exit(1 if types or run else 0)


if __name__ == "__main__":
    main()
