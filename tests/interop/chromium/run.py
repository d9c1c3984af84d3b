#!/usr/bin/env python3
"""The console page in Debian's Chromium, in development and with the token of an admin. Pictures of
it, empty and full, light and dark, wide and narrow, are kept in the folder that TIDEGATE_PICTURES
names, else in target/pictures."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from harness import ROOT, SECRET, Server, node_packages, skip, token  # noqa: E402

SECONDS_MAX = 280


def main():
    if not os.access("/usr/bin/chromium", os.X_OK):
        skip("no /usr/bin/chromium: `apt-get install chromium`")
    home = node_packages(HERE, 20)
    # Node looks for packages beside the script.
    script = shutil.copy(HERE / "console.mjs", home)
    shutil.copy(HERE / "crowd.mjs", home)
    shutil.copy(HERE.parent / "sign.mjs", home)
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
