#!/usr/bin/env python3
"""What is shipped for deployment, against the tools that read it: the unit and the socket by
`systemd-analyze`, the seccomp profile by libseccomp around a real server, the image by Docker or Podman,
and nginx with its file between a client and a server."""

import ctypes
import ctypes.util
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from harness import (  # noqa: E402
    ROOT, SECRET, Server, Skip, binary, equal, http, run_checks, token, venv)

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


def engine():
    """Docker where its daemon runs, else Podman, which needs none."""
    for name in ("docker", "podman"):
        found = shutil.which(name)
        if found and not subprocess.run([found, "info"], capture_output=True).returncode:
            # A container in a container may neither have a cgroup of its own nor raise limits.
            return [found] if name == "docker" else [found, "--cgroup-manager", "cgroupfs"]
    raise Skip("no Docker daemon and no Podman")


def said(command, within_s):
    """What a command prints on both outputs, and its exit code."""
    done = subprocess.run(list(map(str, command)), text=True, timeout=within_s, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, env={**os.environ, "BUILDAH_ISOLATION": "chroot"})
    return done.returncode, done.stdout


def the_image_is_built_and_keeps_its_topics():
    """What README.md prints, with this machine's limits: under the shipped profile it serves, as
    nobody in particular, on a disk that it may not write to but for its volume, which outlives it."""
    containers = engine()
    code, text = said([*containers, "build", "--network", "host", "-f", TUNING / "Dockerfile",
                       "-t", "tidegate-interop", ROOT], 3000)
    if code and re.search("pinging container registry|failed to resolve|pull access|no such host", text):
        raise Skip(f"the images that it begins with cannot be fetched: {text.strip()[-200:]}")
    assert not code, text[-2000:]
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    # crun refuses hosts with both versions of cgroups.
    runtime = ["--runtime", "runc"] if shutil.which("runc") and "podman" in containers[0] else []
    name = f"tidegate-interop-{os.getpid()}"
    run = [*containers, *runtime, "run", "--rm", "--network", "host", "--security-opt",
           "no-new-privileges", "--cap-drop", "ALL", "--read-only",
           "--ulimit", f"nofile={files}:{files}", "--ulimit", "nproc=1000:1000",
           "-v", f"{name}:/var/lib/tidegate", "-e", f"TIDEGATE_JWT_SECRET={SECRET}"]
    permitted = ["--security-opt", f"seccomp={TUNING / 'seccomp.json'}"]
    try:
        code, text = said([*run, *permitted, "tidegate-interop", "doctor", "--dev"], 60)
        assert "ok     io_uring" in text and "ok     data" in text, text
        contained(run + permitted + ["--name", name], lambda ask: equal(
            (ask("POST", "/v1/topics", {"name": "a"})[0],
             ask("POST", "/v1/topics/a/messages", {"payload": 1})[0]), (201, 200)))
        contained(run + permitted + ["--name", name], lambda ask: equal(
            json.loads(ask("GET", "/v1/topics/a/messages")[1])["messages"][0]["payload"], 1))
    finally:
        said([*containers, "volume", "rm", "-f", name], 60)


def contained(run, check):
    """Starts a server in a container, checks something, and stops it as an engine does."""
    command = [*run, "tidegate-interop", "serve", "--listen", "127.0.0.1:0"]
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        found = re.fullmatch(r"tidegate listening on http://(\S+)\n", process.stdout.readline())
        assert found, "it does not listen"
        check(lambda method, path, body=None: http(found.group(1), method, path, body, token()))
        name = run[run.index("--name") + 1]
        equal(said([run[0], "stop", name], 30)[0], 0)
        equal(process.wait(10), 0)
    finally:
        process.kill()
        process.wait()


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
        the_image_is_built_and_keeps_its_topics,
    ])
