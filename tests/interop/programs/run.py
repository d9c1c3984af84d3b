#!/usr/bin/env python3
"""The examples that are programs of their own, for what they need nobody else builds: `database` keeps
notes by sqlx, `traced` writes spans as OTLP. Built by cargo, driven from outside."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from harness import ROOT, Server, equal, run_checks, skip, token, venv  # noqa: E402

BUILD_SECONDS_MAX = 1200
TARGET = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target") / "programs"
TRACE = "0af7651916cd43dd8448eb211c80319c"
CONFIG = "[server]\nshards = {shards}\n"


def connect(server, path, **headers):
    from websockets.sync.client import connect as open_socket
    headers["Authorization"] = f"Bearer {token('ada')}"
    return open_socket(f"ws://{server.address}{path}", additional_headers=headers, open_timeout=5)


def ask(socket, event, data=None):
    socket.send(json.dumps({"event": event, "data": data}))
    return json.loads(socket.recv(5))


def notes_are_kept_and_told():
    with Server(CONFIG, program=program("database")) as server:
        with connect(server, "/notes") as ada, connect(server, "/notes") as bob:
            note = {"id": 1, "author": "ada", "text": "milk"}
            equal(ask(ada, "add", {"text": "milk"}), {"event": "added", "data": note})
            equal(json.loads(ada.recv(5)), {"event": "add", "data": note})
            equal(json.loads(bob.recv(5)), {"event": "added", "data": note})
            equal(ask(bob, "latest"), {"event": "latest", "data": [note]})
            refused = ask(ada, "add", {"text": "x" * 201})
            equal(refused, {"event": "add", "data": {"error": "a note has 1 to 200 characters, and this one has 201"}})


def notes_outlive_the_program():
    with tempfile.TemporaryDirectory() as folder, database(folder) as server:
        with connect(server, "/notes") as ada:
            ask(ada, "add", {"text": "milk"})
        server.restart()
        with connect(server, "/notes") as ada:
            equal([note["text"] for note in ask(ada, "latest")["data"]], ["milk"])


def a_database_that_cannot_be_opened_stops_the_start():
    environment = {**os.environ, "DATABASE_URL": "sqlite:///nowhere/at/all/notes.db"}
    done = subprocess.run([program("database"), "--dev", "--listen", "127.0.0.1:0"], env=environment,
                          capture_output=True, text=True, timeout=30)
    assert done.returncode != 0, done
    assert "unable to open database file" in done.stderr, done.stderr


def what_the_database_says_is_told_to_nobody():
    with tempfile.TemporaryDirectory() as folder, database(folder) as server:
        with connect(server, "/notes") as ada:
            with sqlite3.connect(f"{folder}/notes.db") as broken:
                broken.execute("DROP TABLE notes")
            told = ask(ada, "add", {"text": "milk"})
            equal(told["data"], {"error": "notes cannot be kept now"})


def spans_are_part_of_the_trace_of_the_client():
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "traces.jsonl"
        spans_of_a_client(path)
        check_spans(path)


def spans_of_a_client(path):
    with Server(CONFIG, program=program("traced"), more={"TRACES": str(path)}) as server:
        parent = f"00-{TRACE}-b7ad6b7169203331-01"
        with connect(server, "/notes", traceparent=parent) as ada:
            equal(ask(ada, "save", "milk"), {"event": "save", "data": 4})
        equal(server.terminate()[0], 0)


def check_spans(path):
    spans = [span for line in path.read_text().splitlines() for part in json.loads(line)["resourceSpans"]
             for scope in part["scopeSpans"] for span in scope["spans"]]
    by_name = {span["name"]: span for span in spans}
    connection, message = by_name["connection"], by_name["message"]
    equal((connection["traceId"], connection["parentSpanId"]), (TRACE, "b7ad6b7169203331"))
    equal((message["traceId"], message["parentSpanId"]), (TRACE, connection["spanId"]))
    equal([event["name"] for event in message["events"]], ["saved"])
    attributes = {it["key"]: it["value"] for it in connection["attributes"]}
    equal(attributes["sub"], {"stringValue": "ada"})


def database(folder):
    return Server(CONFIG, program=program("database"), more={"DATABASE_URL": f"sqlite://{folder}/notes.db"})


def program(name):
    """Builds an example once."""
    built = TARGET / "debug" / name
    if name not in program.built:
        command = ["cargo", "build", "--quiet", "--locked", "--target-dir", str(TARGET)]
        environment = {**os.environ, "CARGO_PROFILE_DEV_DEBUG": "0"}
        subprocess.run(command, cwd=ROOT / "examples" / name, env=environment, check=True, timeout=BUILD_SECONDS_MAX)
        program.built.add(name)
    return built


program.built = set()

if __name__ == "__main__":
    if not shutil.which("cargo"):
        skip("no cargo to build the programs with")
    try:
        import websockets  # noqa: F401
    except ImportError:
        python = venv("python", HERE.parent / "python/requirements.txt")
        os.execv(python, [python, *sys.argv])
    run_checks([notes_are_kept_and_told, notes_outlive_the_program, a_database_that_cannot_be_opened_stops_the_start,
                what_the_database_says_is_told_to_nobody, spans_are_part_of_the_trace_of_the_client])
