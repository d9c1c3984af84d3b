"""What the interop scripts share: a server to talk to, tokens for it, and how checks are counted.

Standard library only, so that a script can say what it skips before anything is installed.
A script ends with 0 when all checks passed, 1 when one failed, 77 when it was skipped.
"""

import base64
import hashlib
import hmac
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SECRET = "interop-secret-of-more-than-32-bytes"
SKIPPED = 77

CONFIG = """
[server]
shards = {shards}

[relay]
path = "/ws"
unhandled = "broadcast"

[[mount]]
path = "/echo"
dialect = "raw"
handler = "echo"
public = true
frame_bytes_max = 16777216
message_bytes_max = 16777216
"""


def secure(config=CONFIG):
    """A configuration that listens for TLS too, and the certificate to trust, for localhost and
    127.0.0.1; made by openssl."""
    if not shutil.which("openssl"):
        skip("no openssl to make a certificate with")
    folder = Path(tempfile.mkdtemp(prefix="tidegate-tls-"))
    chain, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-keyout", key, "-out", chain, "-days", "3", "-subj", "/CN=localhost",
         "-addext", "basicConstraints=critical,CA:FALSE",
         "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"],
        check=True, capture_output=True)
    listen = f"""
[tls]
listen = "127.0.0.1:0"

[[tls.certificate]]
cert_file = "{chain}"
key_file = "{key}"
"""
    return config + listen, chain


def skip(reason):
    """Ends the script: what it needs is not here."""
    print(f"skipped: {reason}")
    sys.exit(SKIPPED)


def cache_dir(name):
    """A folder that outlives the run, for what takes long to install."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    path = base / "tidegate-interop" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def node_packages(here, node_min):
    """A folder with the packages of the lock file in `here`, for Node.js `node_min` or later."""
    for tool in ("node", "npm"):
        if not shutil.which(tool):
            skip(f"no {tool}: install Node.js {node_min} or later")
    version = subprocess.run(["node", "--version"], capture_output=True, text=True).stdout
    if int(version.lstrip("v").split(".")[0]) < node_min:
        skip(f"Node.js {version.strip()} is older than {node_min}")
    lock = here / "package-lock.json"
    home = cache_dir(f"{here.name}-{hashlib.sha256(lock.read_bytes()).hexdigest()[:12]}")
    if not (home / "installed").exists():
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir()
        for name in ("package.json", "package-lock.json"):
            shutil.copy(here / name, home)
        done = subprocess.run(["npm", "ci", "--no-audit", "--no-fund"], cwd=home,
                              capture_output=True, text=True, timeout=300)
        if done.returncode:
            skip(f"`npm ci` failed: {done.stderr.strip()[-500:]}")
        (home / "installed").touch()
    return home


def venv(name, requirements):
    """The Python of an environment with these packages, made once below the cache folder."""
    version = "%d.%d" % sys.version_info[:2]
    digest = hashlib.sha256(requirements.read_bytes()).hexdigest()[:12]
    home = cache_dir(f"{name}-{version}-{digest}")
    python = home / "bin/python"
    installed = home / "installed"
    if not installed.exists():
        steps = [[sys.executable, "-m", "venv", "--clear", home],
                 [python, "-m", "pip", "install", "-q", "-r", requirements]]
        for step in steps:
            done = subprocess.run(list(map(str, step)), capture_output=True, text=True, timeout=300)
            if done.returncode:
                skip(f"`{' '.join(map(str, step))}` failed: {done.stderr.strip()[-500:]}")
        installed.touch()
    return python


def built(name, package, profiles=("release", "debug")):
    """A program of the project: what NAME_BIN names, else the first of these builds."""
    named = os.environ.get(f"{name.upper()}_BIN")
    target = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")
    candidates = [named] if named else [target / profile / name for profile in profiles]
    for candidate in map(Path, candidates):
        if os.access(candidate, os.X_OK):
            return candidate
    skip(f"no {name} at {candidates[0]}: `cargo build --release --package {package}` makes it")


def binary():
    """The server under test."""
    return built("tidegate", "tidegate")


def token(sub="ada", ns="demo", ttl_s=300, **claims):
    """A token that the server accepts: HS256 over SECRET."""
    claims = {"ns": ns, "sub": sub, "exp": int(time.time()) + ttl_s, **claims}
    parts = [{"alg": "HS256", "typ": "JWT"}, claims]
    signed = ".".join(_base64url(json.dumps(part).encode()) for part in parts)
    signature = hmac.new(SECRET.encode(), signed.encode(), hashlib.sha256).digest()
    return f"{signed}.{_base64url(signature)}"


def _base64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Server:
    """A running server, ended at the end of the `with` block."""

    def __init__(self, config=CONFIG, shards=1, dev=False, preexec=None, program=None):
        self.folder = Path(tempfile.mkdtemp(prefix="tidegate-interop-"))
        # A program of the framework has no other verb.
        command = [program] if program else [binary(), "serve"]
        command += ["--listen", "127.0.0.1:0", "--data", self.folder / "data"]
    def __init__(self, config=CONFIG, shards=1, dev=False, preexec=None, program=None, more=None):
        """`program` is one that is built with the framework, in place of ours; `more` is added to its
        environment."""
        self.folder = Path(tempfile.mkdtemp(prefix="tidegate-interop-"))
        command = [*([program] if program else [binary(), "serve"]), "--listen", "127.0.0.1:0", "--data", self.folder / "data"]
        if dev:
            command.append("--dev")
        else:
            (self.folder / "config.toml").write_text(config.format(shards=shards))
            command += ["--config", self.folder / "config.toml"]
        environment = {**os.environ, "TIDEGATE_JWT_SECRET": SECRET, **(more or {})}
        if dev:
            del environment["TIDEGATE_JWT_SECRET"]
        self.command, self.environment = command, environment
        self.log = open(self.folder / "stderr.log", "w+b")
        self.preexec = preexec
        self._start()

    def _start(self):
        command, environment = self.command, self.environment
        self.process = subprocess.Popen(
            list(map(str, command)), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=self.log, env=environment, cwd=self.folder, text=True, preexec_fn=self.preexec)
        self.lines = [self.process.stdout.readline().rstrip("\n")]
        # A pipe that nobody reads would one day block the server.
        threading.Thread(target=self._read_on, daemon=True).start()
        found = re.fullmatch(r"tidegate listening on http://(\S+)", self.lines[0])
        if not found:
            self.stop()
            raise AssertionError(f"first line on stdout is {self.lines[0]!r}\n{self.stderr()}")
        self.address = found.group(1)

    def _read_on(self):
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))

    def secure_address(self, within_s=5):
        """Where it listens for TLS."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            for line in self.lines:
                found = re.fullmatch(r"tidegate listening on https://(\S+)", line)
                if found:
                    return found.group(1)
            time.sleep(0.02)
        raise AssertionError(f"no https line within {within_s} s on stdout: {self.lines}")

    def stderr(self):
        return (self.folder / "stderr.log").read_text(errors="replace")

    def printed_token(self, within_s=5):
        """The token that `--dev` prints."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            found = re.search(r"eyJ[\w-]+\.[\w-]+\.[\w-]+", "\n".join(self.lines) + self.stderr())
            if found:
                return found.group(0)
            time.sleep(0.02)
        raise AssertionError(f"no token within {within_s} s on stdout: {self.lines}")

    def http(self, method, path, body=None, bearer=None):
        """Status and body of a request to it, as `http` says."""
        return http(self.address, method, path, body, bearer)

    def raw(self, request, bytes_max=4096):
        """What the server answers to these bytes until it closes or is silent."""
        host, port = self.address.rsplit(":", 1)
        with socket.create_connection((host, int(port)), timeout=5) as connection:
            connection.sendall(request)
            return connection.recv(bytes_max)

    def terminate(self, within_s=12):
        """Asks it to end; returns its exit code and how long it took."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(within_s), time.monotonic() - began

    def restart(self):
        """Ends it as an operator does and starts it on the same data, at another address."""
        code, _ = self.terminate()
        equal(code, 0)
        self.stop()
        self._start()

    def stop(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        self.stop()
        if kind and getattr(error, "code", 1) not in (0, SKIPPED):
            print(f"--- the server's last words\n{self.stderr()[-3000:]}")
        self.log.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def http(address, method, path, body=None, bearer=None):
    """Status and body of a request; a dict or list becomes JSON, bytes go as they are."""
    data = json.dumps(body).encode() if isinstance(body, (dict, list)) else body
    request = urllib.request.Request(f"http://{address}{path}", data, method=method)
    if data is not None:
        request.add_header("Content-Type", "application/json")
    if bearer:
        request.add_header("Authorization", f"Bearer {bearer}")
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as answer:
        return answer.code, answer.read()


def until(expected, ask, within_s=5):
    """Asks again until the answer is as expected."""
    deadline = time.monotonic() + within_s
    while (answer := ask()) != expected and time.monotonic() < deadline:
        time.sleep(0.02)
    equal(answer, expected)


def equal(got, expected):
    """Byte for byte."""
    assert got == expected, f"\n  got      {got!r}\n  expected {expected!r}"


class Skip(Exception):
    """What one check needs is not here."""


def run_checks(checks):
    """Runs the checks, each on its own; ends the script."""
    failed = skipped = 0
    for check in checks:
        try:
            check()
            print(f"ok      {check.__name__}")
        except Skip as reason:
            skipped += 1
            print(f"skipped {check.__name__}: {reason}")
        except Exception as error:  # noqa: BLE001 any failure of a check is that check's result
            failed += 1
            print(f"FAILED  {check.__name__}: {error}")
            if not isinstance(error, AssertionError):
                traceback.print_exc(limit=-3)
    passed = len(checks) - failed - skipped
    print(f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""))
    sys.exit(1 if failed else 0)
