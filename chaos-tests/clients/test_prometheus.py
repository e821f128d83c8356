"""A real Prometheus scrapes the three nodes with the configuration from `deploy/`, and finds every documented metric."""

import re
import subprocess
import urllib.request
from pathlib import Path

import pytest
from connection import traffic
from waiting import HTTP_S, wait_for

ROOT = Path(__file__).parents[2]
DOCUMENTS = [*(ROOT / "docs").glob("*.md"), *(ROOT / "deploy").rglob("*.y*ml"), ROOT / "README.md"]
SCRAPED_S = 60

# What a histogram's or a summary's name becomes in a scrape.
SUFFIXES = ["", "_bucket", "_sum", "_count"]

pytestmark = [pytest.mark.needs("prometheus")]


def documented():
    """Every metric that a document names, without its labels. What rules record has a colon in front of it, what is looked
    for with grep a `^`: that is the beginning of a name."""
    names = set()
    for document in DOCUMENTS:
        names.update(re.findall(r"(?<![a-z0-9_:])\^?moorline_[a-z0-9_]+", document.read_text()))
    # Crates are called so, too: `moorline_group=debug`, `moorline_core::port`.
    manifests = (path.read_text() for path in ROOT.glob("*/*/Cargo.toml"))
    crates = {re.search(r'^name = "(.*)"', text, re.MULTILINE)[1].replace("-", "_") for text in manifests}
    return names - crates


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

        def is_there(name):
            if name.startswith("^"):
                return any(whole.startswith(name[1:]) for whole in scraped)
            return any(name + suffix in scraped for suffix in SUFFIXES)

        return {name for name in names if not is_there(name)}

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
