#!/usr/bin/env python3
"""Python's `websockets` as a client: installs it once below the user's cache folder, then runs
relay.py and durable.py, which start the server themselves."""

import hashlib
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from harness import cache_dir, skip  # noqa: E402


def interpreter():
    requirements = HERE / "requirements.txt"
    version = "%d.%d" % sys.version_info[:2]
    digest = hashlib.sha256(requirements.read_bytes()).hexdigest()[:12]
    home = cache_dir(f"python-{version}-{digest}")
    python = home / "bin/python"
    installed = home / "installed"
    if not installed.exists():
        steps = [[sys.executable, "-m", "venv", "--clear", home],
                 [python, "-m", "pip", "install", "-q", "-r", requirements]]
        for step in steps:
            done = subprocess.run(list(map(str, step)), capture_output=True, text=True, timeout=300)
            if done.returncode:
                skip(f"`{' '.join(map(str, step))}` failed: {done.stderr.strip()[-500:]}")
        installed.touch()
    return str(python)


if __name__ == "__main__":
    python = interpreter()
    scripts = [str(HERE / name) for name in ("relay.py", "durable.py")]
    sys.exit(max(subprocess.run([python, script]).returncode for script in scripts))
