#!/usr/bin/env python3
"""The client for Python: its wheel is built, checked by mypy, installed into an empty environment, and
used from there against a server, over connections that break too."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
CLIENT = HERE.parents[2] / "src/client-python"
sys.path.insert(0, str(HERE.parent))
from harness import SECRET, Server, token, venv  # noqa: E402

SECONDS_MAX = 240


def run(*command, **options):
    """A step that must end well."""
    done = subprocess.run(list(map(str, command)), timeout=SECONDS_MAX, **options)
    if done.returncode:
        sys.exit(f"FAILED  {' '.join(map(str, command))}")


def main():
    tools = venv("python-client-tools", HERE / "requirements.txt")
    run(tools, "-m", "mypy", "--strict", "--ignore-missing-imports", "--cache-dir", os.devnull, CLIENT / "tidegate")
    with tempfile.TemporaryDirectory() as folder, Server() as server:
        folder = Path(folder)
        run(tools, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, CLIENT,
            stdout=subprocess.DEVNULL)
        [wheel] = folder.glob("*.whl")
        run(sys.executable, "-m", "venv", folder / "empty")
        python = folder / "empty/bin/python"
        run(python, "-m", "pip", "install", "-q", "--disable-pip-version-check", wheel)
        environment = {**os.environ, "TIDEGATE_ADDRESS": server.address, "TIDEGATE_JWT_SECRET": SECRET,
                       "TIDEGATE_TOKEN": token("ada")}
        # From a folder of its own: what is imported is what was installed.
        run(python, HERE / "check.py", env=environment, cwd=folder)
    print("ok")


if __name__ == "__main__":
    main()
