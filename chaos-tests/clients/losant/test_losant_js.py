"""The vendor's SDKs for JavaScript, as they are.

`losant-rest` comes from the registry. `losant-mqtt` is not in every registry: LOSANT_MQTT_JS names the folder of a copy with its
dependencies installed. Without it the same check runs over MQTT.js, which the SDK is made of, asked as the SDK asks it.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from application import APP, KEY, SECRET

WAIT_S = 120


@pytest.fixture(scope="session")
def package():
    """The packages, installed before the network was gone."""
    folder = Path(os.environ.get("MOORLINE_WORK", ".")) / "losantjs"
    if shutil.which("node") is None or not (folder / "node_modules" / "losant-rest").exists():
        outcome = pytest.fail if os.environ.get("MOORLINE_STRICT") else pytest.skip
        outcome("no node here, or its packages are not installed")
    return folder


def run(nodes, package, check, said):
    done = subprocess.run(
        ["node", check, json.dumps(said)],
        cwd=package,
        env=os.environ | {"NODE_EXTRA_CA_CERTS": nodes.ca},
        timeout=WAIT_S,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("sdk", ["mqttjs", "losant-mqtt"])
@pytest.mark.parametrize("transport", ["tcp", "tls", "ws", "wss"])
def test_a_device_and_a_gateway(nodes, application, made, package, transport, sdk):
    folder = os.environ.get("LOSANT_MQTT_JS")
    if sdk == "losant-mqtt" and not folder:
        pytest.skip("LOSANT_MQTT_JS does not say where the vendor's SDK is")
    gateway = made("gateway", deviceClass="gateway")
    said = {
        "application": APP,
        "device": made("js"),
        "gateway": gateway,
        "peripheral": made("peripheral", deviceClass="peripheral", gatewayId=gateway),
        "key": KEY,
        "secret": SECRET,
        "token": application.integrator,
        "transport": transport,
        "sdk": folder if sdk == "losant-mqtt" else None,
    }
    run(nodes, package, "mqtt.mjs", said)


def test_rest(nodes, application, made, package):
    said = {"application": APP, "device": made("js"), "key": KEY, "secret": SECRET, "token": application.integrator}
    run(nodes, package, "rest.mjs", said)
