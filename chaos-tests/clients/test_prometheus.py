"""A real Prometheus scrapes the three nodes with the configuration from `deploy/`, and finds every documented metric."""

import json
import re
import socket
import subprocess
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
from conftest import HTTP_S, wait_for
from connection import Client

ROOT = Path(__file__).parents[2]
DOCUMENTS = [*(ROOT / "docs").glob("*.md"), *(ROOT / "deploy").rglob("*.y*ml"), ROOT / "README.md"]
SCRAPED_S = 60
STOP_S = 20

# What a histogram's or a summary's name becomes in a scrape.
SUFFIXES = ["", "_bucket", "_sum", "_count"]

pytestmark = [pytest.mark.needs("prometheus")]


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@pytest.fixture
def prometheus(cluster, tmp_path):
    """Prometheus with the shipped configuration, its targets replaced by this cluster's."""
    shipped = (ROOT / "deploy/prometheus.yml").read_text()
    targets = ", ".join(f'"{node.admin}"' for node in cluster.nodes)
    config, replaced = re.subn(r"targets: \[.*\]", f"targets: [{targets}]", shipped)
    assert replaced == 1, "deploy/prometheus.yml has one list of targets"
    (tmp_path / "prometheus.yml").write_text(
        re.sub(r"(scrape_interval|scrape_timeout): .*", r"\1: 1s", config)
    )
    address = f"127.0.0.1:{free_port()}"
    with open(tmp_path / "prometheus.log", "wb") as log:
        process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={tmp_path}/prometheus.yml",
                f"--storage.tsdb.path={tmp_path}/data",
                f"--web.listen-address={address}",
            ],
            stdout=log,
            stderr=log,
        )

        def ask(path, **parameters):
            assert process.poll() is None, (tmp_path / "prometheus.log").read_text()
            query = urllib.parse.urlencode(parameters)
            try:
                with urllib.request.urlopen(f"http://{address}{path}?{query}", timeout=HTTP_S) as answer:
                    return json.load(answer)["data"]
            except OSError:
                return None

        yield ask
        process.terminate()
        process.wait(STOP_S)


def documented():
    """Every metric that a document names, without its labels. What rules record has a colon in front of it."""
    names = set()
    for document in DOCUMENTS:
        names.update(re.findall(r"(?<![a-z0-9_:])moorline_[a-z0-9_]+", document.read_text()))
    # Crates are called so, too: `moorline_group=debug`, `moorline_core::port`.
    manifests = (path.read_text() for path in ROOT.glob("*/*/Cargo.toml"))
    crates = {re.search(r'^name = "(.*)"', text, re.MULTILINE)[1].replace("-", "_") for text in manifests}
    return names - crates


def traffic(cluster, topic):
    """A little of everything, so that counters with labels have been counted."""
    for node in cluster.nodes:
        with Client(f"{node.id}-{topic}", durable=True) as client:
            client.connect(node)
            client.subscribe(topic)
            client.publish(topic, "hello")
            client.payloads(1)
            client.publish(topic, "hello", 0)


def test_all_three_nodes_are_scraped_and_every_documented_metric_is_there(cluster, topic, prometheus):
    traffic(cluster, topic)

    def all_up():
        targets = (prometheus("/api/v1/targets") or {}).get("activeTargets", [])
        return len(targets) == 3 and all(target["health"] == "up" for target in targets)

    wait_for("not every node is scraped", all_up, SCRAPED_S)
    names = documented()
    assert names, "no document names a metric"

    def missing():
        scraped = set(prometheus("/api/v1/label/__name__/values") or [])
        return {name for name in names if not any(name + suffix in scraped for suffix in SUFFIXES)}

    try:
        wait_for("documented and not scraped", lambda: not missing(), SCRAPED_S / 4)
    except AssertionError as error:
        raise AssertionError(f"documented, and in no scrape: {sorted(missing())}") from error


def test_a_scrape_is_valid_and_every_metric_has_its_help(cluster):
    for node in cluster.nodes:
        with urllib.request.urlopen(f"http://{node.admin}/metrics", timeout=HTTP_S) as answer:
            text = answer.read().decode()
        checked = subprocess.run(
            ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False
        )
        assert checked.returncode == 0, checked.stdout + checked.stderr
