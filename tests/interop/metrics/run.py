#!/usr/bin/env python3
"""promtool (Debian's package `prometheus`) reads the metrics of a server that has done something,
and Prometheus' parser of OpenMetrics what it is served."""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from harness import ROOT, Server, equal, run_checks, skip, token  # noqa: E402

PROMTOOL = shutil.which("promtool") or skip("no promtool: apt-get install prometheus")


def busy_metrics(server):
    bearer = token(roles=["admin"])
    server.http("POST", "/v1/relay/push", {"topic": "t", "event": "e", "payload": 1}, bearer)
    server.http("POST", "/v1/topics", {"name": "a"}, bearer)
    server.http("POST", "/v1/topics/a/messages", {"payload": 1}, bearer)
    status, body = server.http("GET", "/metrics", bearer=bearer)
    equal(status, 200)
    return body.decode()


def as_prometheus_text(openmetrics):
    """`promtool check metrics` reads the older form: counters have their suffix in HELP and TYPE
    too, and there are no UNIT and EOF."""
    counters = set(re.findall(r"^# TYPE (\S+) counter$", openmetrics, re.M))
    lines = []
    for line in openmetrics.splitlines():
        if line == "# EOF" or line.startswith("# UNIT "):
            continue
        head = re.match(r"# (HELP|TYPE) (\S+) (.*)", line)
        if head and head.group(2) in counters:
            line = f"# {head.group(1)} {head.group(2)}_total {head.group(3)}"
        lines.append(line)
    return "\n".join(lines) + "\n"


def promtool_finds_nothing_wrong():
    with Server(shards=2) as server:
        text = as_prometheus_text(busy_metrics(server))
    done = subprocess.run([PROMTOOL, "check", "metrics"], input=text, capture_output=True, text=True)
    equal((done.returncode, done.stderr), (0, ""))


def every_rule_and_panel_query_parses():
    """The dashboard's queries, as rules that promtool reads."""
    import json
    dashboard = json.loads((ROOT / "tuning/grafana.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"]
               for target in panel.get("targets", [])]
    assert queries
    rules = "groups:\n- name: dashboard\n  rules:\n"
    for number, query in enumerate(queries):
        query = query.replace("$__rate_interval", "1m").replace("$instance", "x")
        rules += f"  - record: panel:query:number{number}\n    expr: {json.dumps(query)}\n"
    done = subprocess.run([PROMTOOL, "check", "rules", "/dev/stdin"], input=rules,
                          capture_output=True, text=True)
    equal(done.returncode, 0) if done.returncode == 0 else equal(done.stderr + done.stdout, "")


def alerts_are_raised_by_what_they_name_and_by_nothing_else():
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(ROOT / "tuning/alerts.yml", folder)
        shutil.copy(HERE / "alerts_test.yml", folder)
        for arguments in (["check", "rules", "alerts.yml"], ["test", "rules", "alerts_test.yml"]):
            done = subprocess.run([PROMTOOL, *arguments], cwd=folder, capture_output=True, text=True)
            assert done.returncode == 0, done.stdout + done.stderr


def alerts_name_metrics_that_there_are():
    with Server(shards=2) as server:
        served = busy_metrics(server)
    families = {name for name in re.findall(r"^# TYPE (\S+)", served, re.M)}
    rules = (ROOT / "tuning/alerts.yml").read_text()
    for name in set(re.findall(r"tidegate_\w+", rules)):
        family = re.sub(r"_(total|bucket)$", "", name)
        assert family in families, f"{name} is served by no server"


if __name__ == "__main__":
    run_checks([promtool_finds_nothing_wrong, every_rule_and_panel_query_parses, alerts_name_metrics_that_there_are,
                alerts_are_raised_by_what_they_name_and_by_nothing_else])
