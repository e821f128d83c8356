"""The vendor's SDKs for JavaScript, as they are.

`losant-rest` comes from the registry with its lock file. `losant-mqtt` can't be had there: npm answers 404 (E404) for every version of it,
from where these tests are run. So the check always runs over MQTT.js in the version that the SDK is made of, asked as the SDK asks it
(`js/as_sdk.mjs`), and by the SDK itself as well where LOSANT_MQTT_JS names the folder of a copy, with its dependencies installed there. It
has passed with losant-mqtt 5.0.0 by all four transports.
"""

import os
import shutil
from pathlib import Path

import pytest
from application import APP, KEY, SECRET
from javascript import run

WAIT_S = 120
SDK = os.environ.get("LOSANT_MQTT_JS")


@pytest.fixture(scope="session")
def package():
    """The packages, installed before the network was gone."""
    folder = Path(os.environ.get("MOORLINE_WORK", ".")) / "losantjs"
    if shutil.which("node") is None or not (folder / "node_modules" / "losant-rest").exists():
        outcome = pytest.fail if os.environ.get("MOORLINE_STRICT") else pytest.skip
        outcome("no node here, or its packages are not installed")
    return folder


@pytest.mark.parametrize("sdk", [None, SDK] if SDK else [None], ids=["mqttjs", "losant-mqtt"][: 2 if SDK else 1])
@pytest.mark.parametrize("transport", ["tcp", "tls", "ws", "wss"])
def test_a_device_and_a_gateway(nodes, application, made, package, transport, sdk):
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
        "sdk": sdk,
    }
    run(package, "mqtt.mjs", said, seconds=WAIT_S, NODE_EXTRA_CA_CERTS=nodes.ca)


def test_rest(nodes, application, made, package):
    said = {"application": APP, "device": made("js"), "key": KEY, "secret": SECRET, "token": application.integrator}
    run(package, "rest.mjs", said, seconds=WAIT_S, NODE_EXTRA_CA_CERTS=nodes.ca)
