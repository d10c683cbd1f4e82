"""Checks what watches Flux, on a running pipeline.

    check.py FLUX

1. promtool accepts configuration and rules, and every alert fires and resolves in its test; amtool accepts the routes.
2. Metric names of every role keep Prometheus's rules.
3. Dashboards are as their source says, and every query of every panel answers with rows, from a real Prometheus that
   scrapes the real binary (`flux up`), and from its PostgreSQL.

Standard library only; needs promtool, amtool, prometheus and psql on the PATH.
"""

import importlib.util
import json
import math
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request

ROOT = pathlib.Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"


def tool(*command: str, cwd: pathlib.Path = ROOT, stdin: bytes | None = None) -> str:
    outcome = subprocess.run(command, cwd=cwd, input=stdin, capture_output=True)
    words = outcome.stdout.decode() + outcome.stderr.decode()
    if outcome.returncode != 0:
        sys.exit(f"{' '.join(command)}: exit {outcome.returncode}\n{words}")
    return words


def rules() -> None:
    folder = DEPLOY / "prometheus"
    tool("promtool", "check", "config", "prometheus.yml", cwd=folder)
    tool("promtool", "check", "rules", "--lint=all", "recording.yml", "alerts.yml", cwd=folder)
    tool("promtool", "test", "rules", "alerts.yml", cwd=folder / "tests")
    alerts = re.findall(r"- alert: (\w+)", (folder / "alerts.yml").read_text())
    tests = (folder / "tests" / "alerts.yml").read_text()
    runbooks = (ROOT / "docs" / "runbooks.md").read_text()
    for alert in alerts:
        assert f"alertname: {alert}\n" in tests, f"{alert} has no test"
        link = re.search(rf"alert: {alert}\n.*?runbook_url: docs/runbooks.md#(\w+)", (folder / "alerts.yml").read_text(), re.S)
        assert f"\n## {link[1]}\n" in runbooks.lower(), f"{alert} has no runbook {link[1]}"
    # A test that cannot fail says nothing: with every threshold out of reach no alert may fire.
    with tempfile.TemporaryDirectory() as temporary:
        copy = pathlib.Path(temporary) / "prometheus"
        shutil.copytree(folder, copy)
        broken = re.sub(r"expr: (.*)", r"expr: (\1) and vector(0) > 1", (copy / "alerts.yml").read_text())
        (copy / "alerts.yml").write_text(broken)
        outcome = subprocess.run(["promtool", "test", "rules", "alerts.yml"], cwd=copy / "tests", capture_output=True)
        failed = set(re.findall(r"alertname: (\w+)", (outcome.stdout + outcome.stderr).decode()))
        assert failed == set(alerts), f"tests that cannot fail: {set(alerts) - failed}"
    config = DEPLOY / "alertmanager" / "alertmanager.yml"
    tool("amtool", "check-config", str(config))
    for severity, receiver in (("page", "pages"), ("ticket", "tickets")):
        tool("amtool", "config", "routes", "test", f"--config.file={config}", f"--verify.receivers={receiver}", f"severity={severity}", "sink=s3")
    print(f"rules: {len(alerts)} alerts fire and resolve, each with a runbook; routes hold")


def registered() -> None:
    """Rules and panels name only metrics that the code registers: `or vector(0)` would hide a wrong name."""
    source = "".join(path.read_text() for path in ROOT.glob("*/**/*.rs") if "target" not in path.parts)
    ours = set(re.findall(r'"(flux_[a-z_]+)"', source))
    texts = [path.read_text() for path in (DEPLOY / "prometheus").glob("*.yml")]
    texts += [path.read_text() for path in (DEPLOY / "grafana" / "dashboards").glob("*.json")]
    named = set(re.findall(r"(?<![:\w])(flux_[a-z_]+)", "".join(texts)))
    named = {re.sub(r"_(bucket|count|sum)$", "", name) for name in named}
    assert named and named <= ours, f"metrics that no role has: {named - ours}"
    recorded = set(re.findall(r"record: (\S+)", "".join(texts)))
    used = set(re.findall(r"\bsink:[a-z_]+:[a-z0-9_]+", "".join(texts)))
    assert used <= recorded, f"recordings that no rule makes: {used - recorded}"
    print(f"names: {len(named)} metrics and {len(used)} recordings exist")


class Pipeline:
    """`flux up` with events, live, and a Prometheus that scrapes its roles."""

    def __init__(self, flux: str, folder: pathlib.Path):
        self.data = folder / "up"
        self.words = folder / "up.log"
        command = [flux, "up", "--fresh", "--data-dir", str(self.data), "--events", "--meters", "200", "--days", "2", "--model", "utility", "--demo-events", "on", "--for", "900"]
        self.up = subprocess.Popen(command, stdout=self.words.open("w"), stderr=subprocess.STDOUT)
        self.wait("live until", 120)
        text = self.words.read_text()
        self.targets = dict(re.findall(r"^(\S+)\s+metrics http://(127\.0\.0\.1:\d+)/metrics", text, re.M))
        self.database = re.search(r"^postgres\s+(postgres://\S+)", text, re.M)[1]
        assert len(self.targets) == 10, self.targets
        self.serve(folder)

    def wait(self, words: str, seconds: int) -> None:
        for _ in range(seconds * 5):
            if words in self.words.read_text():
                return
            assert self.up.poll() is None, self.words.read_text()[-2000:]
            time.sleep(0.2)
        sys.exit(f"flux up did not say {words!r}\n{self.words.read_text()[-2000:]}")

    def serve(self, folder: pathlib.Path) -> None:
        config = folder / "prometheus"
        shutil.copytree(DEPLOY / "prometheus", config)
        groups = [
            {"targets": [address], "labels": {"role": "producer" if name == "produce" else "sink"}}
            for name, address in self.targets.items()
        ]
        for path in (config / "targets").glob("*"):
            path.unlink()
        (config / "targets" / "up.json").write_text(json.dumps(groups))
        text = (config / "prometheus.yml").read_text().replace("targets/*.yml", "targets/*.json").replace("5s", "1s")
        (config / "prometheus.yml").write_text(text)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        self.prometheus = subprocess.Popen(
            ["prometheus", f"--config.file={config}/prometheus.yml", f"--storage.tsdb.path={folder}/tsdb", f"--web.listen-address={self.address}", "--log.level=error"],
            cwd=config,
        )
        for _ in range(150):
            try:
                urllib.request.urlopen(f"http://{self.address}/-/ready", timeout=5).close()
                return
            except OSError:
                assert self.prometheus.poll() is None, "prometheus ended"
                time.sleep(0.2)
        sys.exit("prometheus is not ready after 30 s")

    def query(self, expression: str) -> list:
        url = f"http://{self.address}/api/v1/query?" + urllib.parse.urlencode({"query": expression})
        with urllib.request.urlopen(url, timeout=10) as answer:
            found = json.load(answer)["data"]["result"]
        return [one for one in found if not math.isnan(float(one["value"][1]))]

    def stop(self) -> None:
        for process in (self.prometheus, self.up):
            process.send_signal(signal.SIGTERM)
        for process in (self.prometheus, self.up):
            process.wait(60)


def names(pipeline: Pipeline) -> None:
    for role, address in pipeline.targets.items():
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
            tool("promtool", "check", "metrics", stdin=answer.read())
    print(f"metrics: names of {len(pipeline.targets)} roles keep the rules")


def panels(pipeline: Pipeline) -> None:
    path = DEPLOY / "grafana" / "build.py"
    spec = importlib.util.spec_from_file_location("build", path)
    build = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build)
    checked = 0
    empty: list[str] = []
    for name in build.DASHBOARDS:
        committed = json.loads((DEPLOY / "grafana" / "dashboards" / f"{name}.json").read_text())
        assert committed == build.dashboard(name), f"{name}.json is not what build.py makes: run it"
        for panel in committed["panels"]:
            for target in panel["targets"]:
                checked += 1
                if "expr" in target:
                    rows = 0
                    for _ in range(60):
                        rows = len(pipeline.query(target["expr"]))
                        if rows:
                            break
                        time.sleep(1)
                else:
                    answer = tool("psql", pipeline.database, "-At", "-c", target["rawSql"])
                    rows = len(answer.splitlines())
                if not rows:
                    empty.append(f"{name}: {panel['title']}: {target.get('expr') or target.get('rawSql')}")
    assert not empty, "no rows:\n" + "\n".join(empty)
    print(f"dashboards: {checked} queries of {len(build.DASHBOARDS)} dashboards answer with rows")


def main() -> None:
    rules()
    registered()
    with tempfile.TemporaryDirectory() as temporary:
        pipeline = Pipeline(sys.argv[1], pathlib.Path(temporary))
        try:
            names(pipeline)
            panels(pipeline)
        finally:
            pipeline.stop()


if __name__ == "__main__":
    main()
