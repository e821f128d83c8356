"""The vendor's SDK for Python, as it is, against a cluster: by TCP, WebSocket, and both with TLS."""

import datetime
import os

import losantmqtt
import losantmqtt.device
import pytest
from application import APP, ATTRIBUTES, Application, wait_for
from conftest import integrator


def last_state(rest, device):
    states = wait_for(lambda: rest.device.get_state(applicationId=APP, deviceId=device, limit="1"))
    return states[0]


def exchange(rest, one, device):
    """A state goes up, a command comes down."""
    one.device.send_state({"temperature": 21.5, "label": 4, "nothing": 1}, 1_000 * int(datetime.datetime.now().timestamp()))
    # QoS 0: what it says is written when it is there.
    one.until(lambda: rest.device.get_state(applicationId=APP, deviceId=device, limit="1"))
    assert last_state(rest, device)["data"] == {"temperature": 21.5, "label": "4"}
    command = {"name": "set", "payload": {"t": 72}, "time": {"$date": "2026-11-21T01:02:03.456Z"}}
    rest.device.send_command(applicationId=APP, deviceId=device, deviceCommand=command)
    one.until(lambda: one.commands)
    heard = one.commands[0]
    at = datetime.datetime(2026, 11, 21, 1, 2, 3, 456_000)
    assert (heard["name"], heard["payload"], heard["time"].replace(tzinfo=None)) == ("set", {"t": 72}, at)


@pytest.mark.parametrize("transport", ["tcp", "websockets"])
def test_states_go_up_and_commands_come_down(cluster, rest, made, connected, transport):
    node, device = cluster.nodes[1], made(transport)
    where = {1883: node.port, 80: node.ws_port}
    one = connected(where, device, secure=False, transport=transport)
    exchange(rest, one, device)
    # Without a time of its own a command has one that the SDK can read.
    rest.device.send_command(applicationId=APP, deviceId=device, deviceCommand={"name": "now"})
    one.until(lambda: len(one.commands) == 2)
    assert abs(one.commands[1]["time"].timestamp() - datetime.datetime.now().timestamp()) < 60


def test_a_wrong_secret_is_said(cluster, made, connected):
    device, node = made("stranger"), cluster.nodes[0]
    with pytest.raises(Exception, match="Invalid Losant credentials - error code 4"):
        connected({1883: node.port}, device, secret="wrong", secure=False)


@pytest.mark.parametrize("transport", ["tcp", "websockets"])
def test_all_of_it_with_tls(secure, secure_rest, connected, monkeypatch, transport):
    monkeypatch.setattr(losantmqtt.device, "ROOT_CA_PATH", secure.ca)
    name = {"name": transport, "attributes": ATTRIBUTES}
    device = secure_rest.devices.post(applicationId=APP, device=name)["deviceId"]
    where = {8883: secure.mqtts_port, 443: secure.wss_port}
    one = connected(where, device, transport=transport)
    exchange(secure_rest, one, device)


@pytest.fixture(scope="session")
def secure_rest(secure):
    """The REST API of the node that listens with TLS."""
    application = Application(secure.admin, f"localhost:{secure.https_port}")
    # What `requests` takes for its authorities.
    os.environ["REQUESTS_CA_BUNDLE"] = secure.ca
    yield integrator(application, scheme="https")
    del os.environ["REQUESTS_CA_BUNDLE"]
