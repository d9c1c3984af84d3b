#!/usr/bin/env python3
"""The Autobahn testsuite as a client of the echo mount: groups 1-7, 9 and 10, 301 cases; with
compression groups 12 and 13, 216 cases, which take much longer.

P15, T-C1, T-C2: passes when every case ran, none FAILED and at most 3 are NON-STRICT.

    tests/interop/autobahn/run.py                       starts the server itself
    tests/interop/autobahn/run.py --compression         groups 12 and 13
    tests/interop/autobahn/run.py --tls                 the 301 over wss
    tests/interop/autobahn/run.py ws://127.0.0.1:9000/  tests a server that runs already

The suite is a program for Python 2.7. It is installed once, below the user's cache folder.
"""

import collections
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import CONFIG, Server, cache_dir, secure, skip  # noqa: E402

GROUPS = [1, 2, 3, 4, 5, 6, 7, 9, 10]
CASES = 301
COMPRESSION_GROUPS = [12, 13]
COMPRESSION_CASES = 216
COMPRESSION = "compression = true\ndeflate_threshold_bytes = 0\ndeflate_binary = true\n"
NON_STRICT_MAX = 3
PYTHON = "2.7.18"
GROUP_SECONDS_MAX = 1500


def python2():
    """An interpreter for the suite: pyenv's, else one on the path."""
    roots = [os.environ.get("PYENV_ROOT"), Path.home() / ".pyenv", "/opt/pyenv"]
    for root in filter(None, roots):
        interpreter = Path(root) / "versions" / PYTHON / "bin/python"
        if interpreter.exists():
            return str(interpreter)
    return shutil.which("python2.7") or skip(f"no Python 2.7: `pyenv install {PYTHON}` makes one")


def suite():
    """The suite's program, installed if it is not there."""
    home = cache_dir("autobahn-25.10.1")
    wstest = home / "suite/bin/wstest"
    if wstest.exists():
        return wstest
    print("installing the Autobahn testsuite ..", flush=True)
    interpreter = python2()
    shutil.rmtree(home, ignore_errors=True)
    # virtualenv 20.22 was the first that no longer makes environments for Python 2.7.
    steps = [
        [sys.executable, "-m", "venv", home / "maker"],
        [home / "maker/bin/pip", "install", "-q", "virtualenv<20.22"],
        [home / "maker/bin/virtualenv", "-q", "-p", interpreter, home / "suite.new"],
        [home / "suite.new/bin/pip", "install", "-q", "autobahntestsuite==0.8.2"],
        [home / "suite.new/bin/pip", "install", "-q", "--no-deps", "autobahntestsuite==25.10.1"],
    ]
    for step in steps:
        done = subprocess.run(list(map(str, step)), capture_output=True, text=True, timeout=600)
        if done.returncode:
            shutil.rmtree(home, ignore_errors=True)
            skip(f"`{' '.join(map(str, step))}` failed: {done.stderr.strip()[-500:]}")
    # Its scripts name the interpreter by its path, so the folder stays; a link says it is whole.
    (home / "suite").symlink_to(home / "suite.new")
    return wstest


def run_group(wstest, url, group, folder):
    """Results of one group by case. The program ends with 0 whatever happened: its report counts."""
    spec = {"outdir": str(folder / str(group)), "cases": [f"{group}.*"], "exclude-cases": [],
            "servers": [{"agent": "tidegate", "url": url}], "exclude-agent-cases": {}}
    path = folder / f"{group}.json"
    path.write_text(json.dumps(spec))
    command = [str(wstest), "-m", "fuzzingclient", "-s", str(path)]
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                   timeout=GROUP_SECONDS_MAX, check=True)
    index = folder / str(group) / "index.json"
    return json.loads(index.read_text())["tidegate"] if index.exists() else {}


def judge(results, cases):
    """Prints what matters and tells whether the suite passed."""
    counts = collections.Counter(case["behavior"] for case in results.values())
    bad = {name: case for name, case in results.items()
           if case["behavior"] in ("FAILED", "WRONG CODE", "UNCLEAN", "FAILED BY CLIENT")
           or case["behaviorClose"] in ("FAILED", "WRONG CODE", "FAILED BY CLIENT")}
    for name, case in sorted(bad.items()):
        print(f"FAILED  case {name}: {case['behavior']}, close {case['behaviorClose']}")
    loose = sorted(name for name, case in results.items() if case["behavior"] == "NON-STRICT")
    if loose:
        print(f"non-strict: {' '.join(loose)} (at most {NON_STRICT_MAX})")
    print(f"{len(results)} cases of {cases}: {dict(counts)}")
    passed = len(results) == cases and not bad and len(loose) <= NON_STRICT_MAX
    print(f"{len(results) - len(bad)} passed, {len(bad)} failed")
    return passed


def run(url, groups=GROUPS, cases=CASES):
    wstest = suite()
    folder = Path(tempfile.mkdtemp(prefix="autobahn-"))
    results = {}
    try:
        for group in groups:
            results.update(run_group(wstest, url, group, folder))
            print(f"group {group:2}: {len(results)} cases so far", flush=True)
        passed = judge(results, cases)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 0 if passed else 1


def main():
    mode = sys.argv[1] if len(sys.argv) > 1 else ""
    if mode.startswith("ws"):
        sys.exit(run(mode))
    suite()
    if mode == "--compression":
        with Server(CONFIG + COMPRESSION) as server:
            url = f"ws://{server.address}/echo"
            sys.exit(run(url, COMPRESSION_GROUPS, COMPRESSION_CASES))
    if mode == "--tls":
        config, _ = secure()
        with Server(config) as server:
            sys.exit(run(f"wss://{server.secure_address()}/echo"))
    with Server() as server:
        code = run(f"ws://{server.address}/echo")
    sys.exit(code)


if __name__ == "__main__":
    main()
