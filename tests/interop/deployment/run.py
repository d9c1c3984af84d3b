#!/usr/bin/env python3
"""What is shipped for deployment, against the tools that read it: the unit and the socket by
`systemd-analyze`, the seccomp profile by libseccomp around a real server, the image by Docker,
and nginx with its file between a client and a server."""

import ctypes
import ctypes.util
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
from harness import ROOT, Server, Skip, binary, equal, run_checks, token, venv  # noqa: E402

TUNING = ROOT / "tuning"


def tool(name):
    # Where Debian puts what only root should need.
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin")
    if not found:
        raise Skip(f"no {name}")
    return found


def units(folder):
    """The shipped units with a program that is here."""
    for name in ("tidegate.service", "tidegate.socket"):
        text = (TUNING / name).read_text()
        (Path(folder) / name).write_text(text.replace("/usr/local/bin/tidegate", str(binary())))
    return [str(Path(folder) / "tidegate.service"), str(Path(folder) / "tidegate.socket")]


def systemd_finds_nothing_wrong_with_the_units():
    analyze = tool("systemd-analyze")
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([analyze, "verify", *units(folder)], capture_output=True, text=True)
        equal((done.returncode, done.stderr), (0, ""))


def systemd_calls_the_service_well_contained():
    """At most 2.0 of 10 (`systemd-analyze security`)."""
    analyze = tool("systemd-analyze")
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([analyze, "security", "--offline=true", units(folder)[0]],
                              capture_output=True, text=True)
        found = re.search(r"exposure level for \S+: ([0-9.]+)", done.stdout)
        if not found:
            raise Skip(f"this systemd-analyze judges no files: {done.stderr.strip()[:200]}")
        assert float(found.group(1)) <= 2.0, found.group(0)


def confined(profile, without=()):
    """A function that puts the calling process under the shipped profile, less some calls."""
    name = ctypes.util.find_library("seccomp")
    if not name:
        raise Skip("no libseccomp")
    library = ctypes.CDLL(name)
    library.seccomp_init.restype = ctypes.c_void_p

    class Argument(ctypes.Structure):
        _fields_ = [("arg", ctypes.c_uint), ("op", ctypes.c_int),
                    ("datum_a", ctypes.c_uint64), ("datum_b", ctypes.c_uint64)]

    allow, refuse, equals = 0x7FFF0000, 0x00050000 | profile["defaultErrnoRet"], 4

    def confine():
        context = ctypes.c_void_p(library.seccomp_init(refuse))
        for rule in profile["syscalls"]:
            arguments = [Argument(a["index"], equals, a["value"], 0) for a in rule.get("args", [])]
            for call in rule["names"]:
                number = library.seccomp_syscall_resolve_name(call.encode())
                # Calls that this machine's architecture does not have are below zero.
                if call not in without and 0 <= number:
                    array = (Argument * len(arguments))(*arguments)
                    library.seccomp_rule_add_array(
                        context, ctypes.c_uint32(allow), number, len(arguments), array)
        if library.seccomp_load(context):
            os._exit(99)

    return confine


def profile():
    return json.loads((TUNING / "seccomp.json").read_text())


def a_server_works_under_the_seccomp_profile():
    with Server(shards=2, preexec=confined(profile())) as server:
        bearer = token()
        status, _ = server.http("POST", "/v1/topics", {"name": "a"}, bearer)
        equal(status, 201)
        status, body = server.http("POST", "/v1/topics/a/messages", {"payload": 1}, bearer)
        equal((status, json.loads(body)["seq"]), (200, 1))
        status, body = server.http("GET", "/v1/topics/a/messages", bearer=bearer)
        equal((status, len(json.loads(body)["messages"])), (200, 1))
        code, _ = server.terminate()
        equal(code, 0)


def without_io_uring_a_server_says_so():
    """What Docker's own profile does: exit code 78, and a text that names the way out."""
    refused = confined(profile(), without=("io_uring_setup",))
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([str(binary()), "serve", "--dev", "--listen", "127.0.0.1:0"],
                              cwd=folder, capture_output=True, text=True, preexec_fn=refused,
                              timeout=20)
        equal(done.returncode, 78)
        assert "seccomp" in done.stderr, done.stderr


def docker_builds_and_runs_the_image():
    docker = tool("docker")
    if subprocess.run([docker, "info"], capture_output=True).returncode:
        raise Skip("no Docker daemon")
    build = [docker, "build", "-q", "-f", TUNING / "Dockerfile", "-t", "tidegate-interop", ROOT]
    subprocess.run(list(map(str, build)), check=True, timeout=3000)
    run = [docker, "run", "--rm", "--security-opt", f"seccomp={TUNING / 'seccomp.json'}",
           "tidegate-interop", "doctor", "--dev"]
    done = subprocess.run(run, capture_output=True, text=True, timeout=60)
    assert "ok     io_uring" in done.stdout, done.stdout + done.stderr


def clients_come_through_nginx():
    for name in ("nginx", "openssl"):
        tool(name)
    try:
        python = venv("python", HERE.parent / "python/requirements.txt")
    except SystemExit as end:
        raise Skip("no Python packages") from end
    done = subprocess.run([python, HERE / "nginx.py"], capture_output=True, text=True, timeout=300)
    sys.stdout.write(done.stdout)
    equal((done.returncode, done.stderr), (0, ""))


if __name__ == "__main__":
    run_checks([
        systemd_finds_nothing_wrong_with_the_units,
        systemd_calls_the_service_well_contained,
        a_server_works_under_the_seccomp_profile,
        without_io_uring_a_server_says_so,
        clients_come_through_nginx,
        docker_builds_and_runs_the_image,
    ])
