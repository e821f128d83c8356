"""Raw packet sequences of another broker, if their runner is beside this clone or MOORLINE_SEQUENCES says where it is.

They are not ours to copy. docs/mqtt-conformance.md argues the differences.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

RUNNER = Path(__file__).parents[3] / "shared" / "tools" / "mqtt_sequences.py"
ALL = 1_483
# With the answers that the other broker gives.
SAME_MIN = 1_464
RUN_S = 120


@pytest.fixture(scope="module")
def runner():
    path = Path(os.environ.get("MOORLINE_SEQUENCES", RUNNER))
    if not path.exists():
        pytest.skip("the sequences are not here")
    return path


def run(runner, cluster, tmp_path, *options):
    node = cluster.nodes[0]
    report = tmp_path / "report.json"
    command = [sys.executable, runner, "--port", str(node.port), "--json", report, "-q", *options]
    subprocess.run(command, timeout=RUN_S, stdout=subprocess.DEVNULL, check=False)
    return json.loads(report.read_text())


def test_all_are_answered_if_any_error_counts_for_any_other(runner, cluster, tmp_path):
    report = run(runner, cluster, tmp_path, "--loose-reasons")
    assert report["passed"] + report["failed"] == ALL
    assert report["fails"] == []


def test_nearly_all_are_answered_as_the_other_broker_does(runner, cluster, tmp_path):
    report = run(runner, cluster, tmp_path)
    assert report["passed"] + report["failed"] == ALL
    assert report["passed"] >= SAME_MIN, report["fails"]
