"""MQTT.js, with Node: what a web service would use."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from javascript import run

HERE = Path(__file__).parent / "mqttjs"
INSTALL_S = 180
WAIT_S = 60


@pytest.fixture(scope="session")
def package(tmp_path_factory):
    """The package, installed outside the clone; kept for the next run where MOORLINE_WORK says so."""
    if shutil.which("npm") is None or shutil.which("node") is None:
        pytest.skip("no node and npm here")
    work = os.environ.get("MOORLINE_WORK")
    folder = Path(work) / "mqttjs" if work else tmp_path_factory.mktemp("mqttjs")
    folder.mkdir(parents=True, exist_ok=True)
    for file in HERE.iterdir():
        shutil.copy(file, folder)
    subprocess.run(["npm", "ci", "--no-audit", "--no-fund"], cwd=folder, timeout=INSTALL_S, check=True)
    return folder


@pytest.mark.parametrize("scheme", ["mqtt", "ws"])
@pytest.mark.parametrize("version", [3, 4, 5], ids=["v31", "v311", "v5"])
def test_a_durable_session_resumes_on_another_node(cluster, package, topic, version, scheme):
    ports = {"mqtt": "port", "ws": "ws_port"}
    urls = [f"{scheme}://{node.host}:{getattr(node, ports[scheme])}" for node in cluster.nodes]
    run(package, "check.mjs", str(version), topic, *urls, seconds=WAIT_S)


@pytest.mark.needs("openssl")
@pytest.mark.parametrize("scheme", ["mqtts", "wss"])
@pytest.mark.parametrize("version", [3, 4, 5], ids=["v31", "v311", "v5"])
def test_a_durable_session_resumes_over_tls(secure, package, topic, version, scheme):
    ports = {"mqtts": secure.mqtts_port, "wss": secure.wss_port}
    urls = [f"{scheme}://127.0.0.1:{ports[scheme]}"] * 3
    run(package, "check.mjs", str(version), topic, *urls, seconds=WAIT_S, MOORLINE_CA=secure.ca)
