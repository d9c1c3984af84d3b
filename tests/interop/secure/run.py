#!/usr/bin/env python3
"""TLS and compression with programs of others: Python's `websockets`, Node's `ws`, `openssl s_client`
and curl, against a server that listens for both."""

import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from harness import CONFIG, Server, node_packages, secure, skip, token, venv  # noqa: E402

COMPRESSED = CONFIG + """compression = true

[limits]
compression = true
"""
SECONDS_MAX = 120


def openssl(address, chain, *arguments):
    """What `openssl s_client` says of a handshake."""
    command = ["openssl", "s_client", "-connect", address, "-servername", "localhost",
               "-CAfile", str(chain), "-verify_return_error", *arguments]
    done = subprocess.run(command, input="", capture_output=True, text=True, timeout=30)
    return done.returncode, done.stdout + done.stderr


def check_handshakes(address, chain):
    """Versions and protocols as they should be; each a line and whether it held."""
    checks = []
    for version in ("-tls1_2", "-tls1_3"):
        code, text = openssl(address, chain, version, "-alpn", "http/1.1")
        checks.append((f"{version} is spoken", code == 0 and "ALPN protocol: http/1.1" in text))
    code, _ = openssl(address, chain, "-alpn", "h2")
    checks.append(("h2 alone is refused", code != 0))
    code, _ = openssl(address, chain, "-tls1_1", "-cipher", "DEFAULT:@SECLEVEL=0")
    checks.append(("1.1 is refused", code != 0))
    if shutil.which("curl"):
        port = address.rsplit(":", 1)[1]
        done = subprocess.run(
            ["curl", "-sS", "--cacert", str(chain), "--max-time", "10",
             f"https://localhost:{port}/healthz", f"https://127.0.0.1:{port}/healthz"],
            capture_output=True, text=True)
        checks.append((f"curl is served {done.stderr}", done.returncode == 0))
    for name, held in checks:
        print(f"{'ok' if held else 'FAILED'}  {name}")
    return sum(not held for _, held in checks)


def main():
    if not shutil.which("openssl"):
        skip("no openssl")
    config, chain = secure(COMPRESSED)
    python = venv("python", HERE.parent / "python" / "requirements.txt")
    home = node_packages(HERE.parent / "node", 18)
    shutil.copy(HERE / "client.mjs", home)
    failed = 0
    for shards in (1, 2):
        with Server(config, shards=shards) as server:
            address = server.secure_address()
            failed += check_handshakes(address, chain)
            arguments = [server.address, address, chain, token("ada"), token("bob")]
            for command in ([python, HERE / "client.py"], ["node", home / "client.mjs"]):
                done = subprocess.run(list(map(str, [*command, *arguments])), timeout=SECONDS_MAX)
                failed += done.returncode != 0
    shutil.rmtree(chain.parent, ignore_errors=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
