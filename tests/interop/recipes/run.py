#!/usr/bin/env python3
"""The recipes of the guide, as they stand there: what is Go runs under Go, what is PHP under PHP."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from harness import ROOT, Server, Skip, equal, run_checks, token  # noqa: E402

GUIDE = (ROOT / "src/guide/other_languages.md").read_text()
SECONDS_MAX = 180


def recipe(language):
    [text] = re.findall(rf"```{language}\n(.*?)```", GUIDE, re.S)
    return text


def environment(server):
    return {**os.environ, "TIDEGATE_URL": f"http://{server.address}", "TIDEGATE_TOKEN": token("recipes")}


def php_publishes_pushes_and_reads():
    if not shutil.which("php"):
        raise Skip("no php: apt-get install php-cli")
    with Server() as server, tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "recipe.php"
        script.write_text(recipe("php"))
        for _ in range(2):
            done = subprocess.run(["php", script, "orders"], env=environment(server), capture_output=True, text=True,
                                  timeout=SECONDS_MAX)
            equal((done.stdout, done.returncode), ('1\n1 {"item":7}\n', 0))
        bad = subprocess.run(["php", script, "orders"], env={**environment(server), "TIDEGATE_TOKEN": "bad"},
                             capture_output=True, text=True, timeout=SECONDS_MAX)
        assert bad.returncode != 0 and "token" in bad.stdout + bad.stderr, bad


def go_reads_and_goes_on_behind_its_ack():
    if not shutil.which("go"):
        raise Skip("no go: apt-get install golang-go")
    with Server() as server, tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        (folder / "main.go").write_text(recipe("go"))
        for command in (["go", "mod", "init", "recipe"], ["go", "mod", "tidy"], ["go", "build", "-o", "recipe"]):
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=SECONDS_MAX)
            if done.returncode and command[1] == "mod" and "dial" in done.stderr:
                raise Skip(f"the module proxy cannot be reached: {done.stderr.strip()[-200:]}")
            assert done.returncode == 0, done.stderr
        bearer = token("recipes")
        _, made = server.http("POST", "/v1/topics", {"name": "orders"}, bearer)
        topic = json.loads(made)["id"]
        for seq in (1, 2):
            server.http("POST", f"/v1/topics/{topic}/messages", {"payload": seq * 10}, bearer)
            command = [folder / "recipe", f"ws://{server.address}/v1/ws", "orders"]
            process = subprocess.Popen(command, env=environment(server), stdout=subprocess.PIPE, text=True)
            try:
                equal(process.stdout.readline(), f"{seq} {seq * 10}\n")
            finally:
                # Its ack goes out right behind the line.
                until_acked(server, topic, seq, bearer)
                process.kill()
                process.wait()
                process.stdout.close()


def until_acked(server, topic, seq, bearer):
    from harness import until

    def cursor():
        _, body = server.http("GET", f"/v1/subscriptions?topic={topic}", bearer=bearer)
        found = json.loads(body)["subscriptions"]
        return found[0]["cursor"] if found else None
    until(seq, cursor)


if __name__ == "__main__":
    run_checks([php_publishes_pushes_and_reads, go_reads_and_goes_on_behind_its_ack])
