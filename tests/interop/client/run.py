#!/usr/bin/env python3
"""The shipped client under Node: its types by the TypeScript compiler, the one file against its
parts, the package as npm makes and installs it, all dialects against a fake server, relay, durable
and REST against the server, events against the example `notify`."""

import gzip
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
CLIENT = HERE.parents[2] / "src/web/client"
sys.path.insert(0, str(HERE.parent))
from harness import ROOT, SECRET, Server, node_packages, token  # noqa: E402

SECONDS_MAX = 240
GZIP_BYTES_MAX = 10_240
TYPES = ["--noEmit", "--strict", "--target", "es2022", "--module", "nodenext", "--types", "node",
         "--noUncheckedIndexedAccess", "types.ts"]


def example():
    """The newest build of the example that has gateways, if there is one: `cargo test` makes it."""
    target = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")
    built = [path for path in target.glob("*/examples/notify") if os.access(path, os.X_OK)]
    return str(max(built, key=lambda path: path.stat().st_mtime, default=""))


def bundle(home):
    """The served file is what its parts make, and small."""
    made = home / "made.js"
    environment = {**os.environ, "ESBUILD_FROM": str(home / "package.json")}
    subprocess.run(["node", CLIENT / "build.mjs", made], env=environment, timeout=SECONDS_MAX, check=True)
    shipped = (CLIENT / "client.js").read_bytes()
    assert made.read_bytes() == shipped, "client.js is older than its parts: `node build.mjs` makes it anew"
    size = len(gzip.compress(shipped, 9))
    assert size <= GZIP_BYTES_MAX, f"{size} bytes of {GZIP_BYTES_MAX} compressed"


def package(server):
    """npm packs it, and a program with nothing else than that package and `ws` talks to a server."""
    with tempfile.TemporaryDirectory() as folder:
        def run(*command):
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=SECONDS_MAX,
                                  env={**os.environ, "npm_config_audit": "false", "npm_config_fund": "false"})
            assert done.returncode == 0, f"{' '.join(map(str, command))}: {done.stderr[-800:]}"
            return done.stdout
        packed = run("npm", "pack", "--silent", CLIENT).strip().splitlines()[-1]
        (Path(folder) / "package.json").write_text('{"private":true,"type":"module"}')
        run("npm", "install", "--silent", f"./{packed}", "ws@8")
        shutil.copy(HERE / "installed.mjs", folder)
        files = sorted(path.name for path in (Path(folder) / "node_modules/tidegate").iterdir())
        assert files == ["README.md", "client.js", "package.json", "tidegate.d.ts"], files
        said = run("node", "installed.mjs", server.address, token("ada"))
        assert said == "hello 1\n", said


def checked(name, check, *arguments):
    """Whether it holds."""
    try:
        check(*arguments)
    except Exception as error:  # noqa: BLE001 any failure of a check is that check's result
        print(f"FAILED  {name}: {error}")
        return False
    print(f"ok      {name}")
    return True


def main():
    home = node_packages(HERE, 20)
    # Node looks for packages beside the script.
    tests = [shutil.copy(path, home) for path in sorted(HERE.glob("*.test.mjs"))]
    for path in (HERE.parent / "sign.mjs", HERE / "fake.mjs", HERE / "types.ts", CLIENT / "client.js", CLIENT / "tidegate.d.ts"):
        shutil.copy(path, home)
    types = subprocess.run(["npx", "tsc", *TYPES], cwd=home, timeout=SECONDS_MAX).returncode
    print(f"{'FAILED ' if types else 'ok     '} types")
    fine = checked("the bundle", bundle, home)
    with Server() as server:
        fine = checked("the package", package, server) and fine
        environment = {
            **os.environ, "TIDEGATE_ADDRESS": server.address,
            "TIDEGATE_TOKEN": token("ada", roles=["admin"]),
            "TIDEGATE_CLIENT": str(home / "client.js"), "TIDEGATE_TYPES": str(home / "tidegate.d.ts"),
            "TIDEGATE_JWT_SECRET": SECRET, "TIDEGATE_EXAMPLE": example(),
        }
        # One file at a time: a test of the relay closes every connection of the tenant.
        command = ["node", "--test", "--test-concurrency=1", "--test-reporter=spec", *map(str, tests)]
        run = subprocess.run(command, cwd=home, env=environment, timeout=SECONDS_MAX).returncode
        sys.exit(0 if fine and not types and not run else 1)


if __name__ == "__main__":
    main()
