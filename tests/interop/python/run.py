#!/usr/bin/env python3
"""Python's `websockets` as a client: installs it once below the user's cache folder, then runs
relay.py and durable.py, which start the server themselves."""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from harness import venv  # noqa: E402

if __name__ == "__main__":
    python = str(venv("python", HERE / "requirements.txt"))
    scripts = [str(HERE / name) for name in ("relay.py", "durable.py")]
    sys.exit(max(subprocess.run([python, script]).returncode for script in scripts))
