#!/usr/bin/env python3
"""The types that `tidegate generate types` writes for the shipped examples, compiled by the TypeScript
compiler together with a program that uses them and the types of the shipped client."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from harness import ROOT, SECRET, binary, built, node_packages, token  # noqa: E402

SECONDS_MAX = 120
TYPES = ["--noEmit", "--strict", "--target", "es2022", "--module", "nodenext", "--types", "node",
         "--noUncheckedIndexedAccess", "use.ts"]


def document(example, folder):
    """What a running example says of itself."""
    environment = {"PATH": os.environ["PATH"], "TIDEGATE_JWT_SECRET": SECRET, "TIDEGATE_SHARD__PIN": "false"}
    program = subprocess.Popen([example, "--listen", "127.0.0.1:0", "--shards", "1", "--data", f"{folder}/data"],
                               env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        address = program.stdout.readline().strip().removeprefix("tidegate listening on ")
        request = urllib.request.Request(f"{address}/asyncapi.json", headers={"authorization": f"Bearer {token('ada')}"})
        return urllib.request.urlopen(request, timeout=10).read()
    finally:
        program.send_signal(signal.SIGTERM)
        program.wait(timeout=20)


def main():
    home = node_packages(HERE.parent / "client", 20)
    examples = {name: built(f"examples/{name}", "tidegate", ("debug", "release")) for name in ("chat", "notify", "ai_stream")}
    with tempfile.TemporaryDirectory(dir=home) as folder:
        work = Path(folder)
        for name, example in examples.items():
            told = document(example, folder)
            assert json.loads(told)["asyncapi"] == "3.0.0", name
            types = subprocess.run([binary(), "generate", "types", "-"], input=told, capture_output=True, timeout=10, check=True)
            (work / f"{name}.ts").write_bytes(types.stdout)
        for file in ("client.js", "tidegate.d.ts"):
            shutil.copy(ROOT / "src/web/client" / file, work)
        shutil.move(work / "client.js", work / "tidegate.js")
        (work / "package.json").write_text('{"type":"module"}')
        shutil.copy(HERE / "use.ts", work)
        compiled = subprocess.run(["npx", "tsc", *TYPES], cwd=work, timeout=SECONDS_MAX).returncode
        print(f"{'FAILED ' if compiled else 'ok     '} types of {', '.join(examples)}")
        sys.exit(1 if compiled else 0)


if __name__ == "__main__":
    main()
