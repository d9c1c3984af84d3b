"""A bill of materials (CycloneDX 1.5) out of `cargo metadata` on the standard input: what the program
tidegate is built of, without what only tests and builds need. Standard library only."""

import json
import sys


def needed(metadata):
    """Packages that the program is linked with, and those that these need."""
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    packages = {package["id"]: package for package in metadata["packages"]}
    [root] = [key for key, package in packages.items() if package["name"] == "tidegate"]
    seen, waiting = set(), [root]
    while waiting:
        key = waiting.pop()
        if key in seen:
            continue
        seen.add(key)
        for dependency in nodes[key]["deps"]:
            if any(kind["kind"] is None for kind in dependency["dep_kinds"]):
                waiting.append(dependency["pkg"])
    return [packages[key] for key in sorted(seen) if key != root]


def component(package):
    """One package."""
    name, version = package["name"], package["version"]
    made = {"type": "library", "name": name, "version": version, "purl": f"pkg:cargo/{name}@{version}"}
    if package.get("license"):
        made["licenses"] = [{"expression": package["license"].replace("/", " OR ")}]
    return made


def main():
    version = sys.argv[1]
    components = [component(package) for package in needed(json.load(sys.stdin))]
    bill = {
        "bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1,
        "metadata": {"component": {"type": "application", "name": "tidegate", "version": version,
                                   "purl": f"pkg:cargo/tidegate@{version}"}},
        "components": components,
    }
    json.dump(bill, sys.stdout, indent=1)
    print()


main()
