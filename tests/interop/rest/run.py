#!/usr/bin/env python3
"""T-F7: schemathesis against the REST API: what `/openapi.json` says is asked in very many ways, good and
bad, and what comes back must be as it says. Installs schemathesis once below the user's cache
folder; starts the server itself.

    python3 tests/interop/rest/run.py [MAX_EXAMPLES]
"""

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from harness import Server, token, venv  # noqa: E402

CONFIG = """
[server]
shards = {shards}

[relay]
path = "/ws"

[durable]
partitions = 4
"""


def main():
    examples = sys.argv[1] if 1 < len(sys.argv) else "50"
    python = venv("schemathesis", HERE / "requirements.txt")
    with Server(CONFIG, shards=2) as server:
        bearer = token(sub="schemathesis", roles=["admin"], ttl_s=3600)
        command = [
            python, "-m", "schemathesis.cli", "--config-file", HERE / "schemathesis.toml",
            "run", f"http://{server.address}/openapi.json",
            "--header", f"Authorization: Bearer {bearer}",
            "--max-examples", examples, "--seed", "6455", "--workers", "1",
            "--request-timeout", "5", "--max-response-time", "2",
        ]
        done = subprocess.run(list(map(str, command)), cwd=server.folder, timeout=900,
                              env={**os.environ, "NO_COLOR": "1"})
        ready = server.http("GET", "/readyz")[0]
        print(f"the server afterwards: /readyz {ready}")
        sys.exit(0 if done.returncode == 0 and ready == 200 else 1)


if __name__ == "__main__":
    main()
