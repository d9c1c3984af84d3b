#!/usr/bin/env python3
"""The release script, as far as it goes without publishing: archive, packages, bill of materials, checksums,
llms.txt, and what is in each. The program is the one that is built; the image is for machines with Docker."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from harness import ROOT, binary, equal, run_checks  # noqa: E402

OUT = ROOT / "target/release-files"
VERSION = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]["version"]
SECONDS_MAX = 280


def release(*arguments):
    environment = {**os.environ, "TIDEGATE_BIN": str(binary())}
    done = subprocess.run([ROOT / ".ci/release", *arguments], env=environment, capture_output=True, text=True,
                          timeout=SECONDS_MAX, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, f"{arguments}: {done.stdout[-500:]}{done.stderr[-2000:]}"


def an_archive_has_all_that_is_installed():
    shutil.rmtree(OUT, ignore_errors=True)
    digests = set()
    for _ in range(2):
        release("archive")
        [path] = OUT.glob(f"tidegate-{VERSION}-*-linux.tar.gz")
        digests.add(hashlib.sha256(path.read_bytes()).hexdigest())
    equal(len(digests), 1)
    with tarfile.open(path) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
        program = archive.getmember(f"{path.name.removesuffix('.tar.gz')}/tidegate")
        equal(program.mode, 0o755)
    for name in ("tidegate", "completions/tidegate.bash", "completions/tidegate.zsh", "completions/tidegate.fish",
                 "man/tidegate.1", "man/tidegate-serve.1", "systemd/tidegate.service", "LICENSE", "README.md"):
        assert name in names, f"{name} is not among {sorted(names)}"


def packages_are_made():
    release("packages")
    for name in ("tidegate", "tidegate-client", "tidegate-macros"):
        with tarfile.open(OUT / f"{name}-{VERSION}.crate") as crate:
            manifest = crate.extractfile(f"{name}-{VERSION}/Cargo.toml").read().decode()
            files = crate.getnames()
        package = tomllib.loads(manifest)["package"]
        for key in ("description", "license", "documentation", "readme", "keywords", "categories", "rust-version"):
            assert package.get(key), f"{name} says nothing of {key}"
        assert "repository" not in package and len(package["keywords"]) <= 5
        assert f"{name}-{VERSION}/README.md" in files
        assert not any("client-python" in file for file in files)
    with tarfile.open(OUT / f"tidegate-{VERSION}.tgz") as npm:
        equal(sorted(npm.getnames()), [f"package/{name}" for name in
                                       ("README.md", "client.js", "package.json", "tidegate.d.ts")])
    with zipfile.ZipFile(OUT / f"tidegate-{VERSION}-py3-none-any.whl") as wheel:
        assert "tidegate/py.typed" in wheel.namelist()


def the_bill_of_materials_names_what_is_linked():
    release("sbom")
    bill = json.loads((OUT / f"tidegate-{VERSION}.cdx.json").read_text())
    names = {component["name"] for component in bill["components"]}
    assert {"io-uring", "axum", "tidegate-client"} <= names
    assert not names & {"proptest", "loom", "tempfile"}, "what only tests need"
    assert all(component.get("licenses") for component in bill["components"])


def guide_and_wire_are_one_text():
    release("llms")
    text = (OUT / "llms.txt").read_text()
    for part in ("# Guide: gateways", "# Guide: durable", "# Guide: upgrade", "# Wire reference", '"type":"pub_ack"'):
        assert part in text, part


def every_file_has_a_checksum():
    release("checksums")
    sums = dict(reversed(line.split("  ")) for line in (OUT / "SHA256SUMS").read_text().splitlines())
    files = sorted(path.name for path in OUT.iterdir() if path.name != "SHA256SUMS")
    equal(sorted(sums), files)
    for name, digest in sums.items():
        equal(hashlib.sha256((OUT / name).read_bytes()).hexdigest(), digest)


def a_wrong_word_is_told():
    done = subprocess.run([ROOT / ".ci/release", "everything"], capture_output=True, text=True)
    equal(done.returncode, 2)
    assert ".ci/release all" in done.stdout


if __name__ == "__main__":
    run_checks([an_archive_has_all_that_is_installed, packages_are_made, the_bill_of_materials_names_what_is_linked,
                guide_and_wire_are_one_text, every_file_has_a_checksum, a_wrong_word_is_told])
