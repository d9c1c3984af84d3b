#!/usr/bin/env python3
"""The console page in Debian's Chromium, in development and with the token of an admin. Pictures of
it, empty and full, light and dark, wide and narrow, are kept in the folder that TIDEGATE_PICTURES
names, else in target/pictures."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from harness import ROOT, SECRET, Server, cache_dir, skip, token  # noqa: E402

SECONDS_MAX = 280


def packages():
    """A folder with the packages of the lock file."""
    for tool in ("node", "npm"):
        if not shutil.which(tool):
            skip(f"no {tool}: install Node.js 20 or later")
    if not os.access("/usr/bin/chromium", os.X_OK):
        skip("no /usr/bin/chromium: `apt-get install chromium`")
    lock = HERE / "package-lock.json"
    home = cache_dir(f"chromium-{hashlib.sha256(lock.read_bytes()).hexdigest()[:12]}")
    if not (home / "installed").exists():
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir()
        for name in ("package.json", "package-lock.json"):
            shutil.copy(HERE / name, home)
        done = subprocess.run(["npm", "ci", "--no-audit", "--no-fund"], cwd=home,
                              capture_output=True, text=True, timeout=300)
        if done.returncode:
            skip(f"`npm ci` failed: {done.stderr.strip()[-500:]}")
        (home / "installed").touch()
    return home


def main():
    home = packages()
    # Node looks for packages beside the script.
    script = shutil.copy(HERE / "console.mjs", home)
    shutil.copy(HERE / "crowd.mjs", home)
    target = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")
    pictures = Path(os.environ.get("TIDEGATE_PICTURES") or target / "pictures")
    pictures.mkdir(parents=True, exist_ok=True)
    failed = 0
    for mode in ("DEV", "ADMIN"):
        with Server(shards=2, dev=mode == "DEV") as server:
            bearer = server.printed_token() if mode == "DEV" else token("ops", roles=["admin"])
            secret = "" if mode == "DEV" else SECRET
            command = ["node", script, f"http://{server.address}", bearer, mode, secret,
                       pictures / mode.lower()]
            failed += subprocess.run(list(map(str, command)), timeout=SECONDS_MAX).returncode != 0
    print(f"pictures: {pictures}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
