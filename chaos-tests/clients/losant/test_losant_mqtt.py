"""The vendor's SDK for Python, as it is, against a cluster: by TCP, WebSocket, and both with TLS, at the platform's names and ports."""

import datetime
import ssl

import losantmqtt
import losantmqtt.device
import pytest
from application import APP
from nodes import READY_S
from waiting import wait_for

TRANSPORTS = pytest.mark.parametrize(
    "how",
    [{"secure": secure, "transport": transport} for secure in (False, True) for transport in ("tcp", "websockets")],
    ids=["tcp", "ws", "tls", "wss"],
)
PORTS = {"tcp": 1883, "ws": 80, "tls": 8883, "wss": 443}


def last_state(rest, device):
    of = {"applicationId": APP, "deviceId": device}
    states = wait_for("no state is kept", lambda: rest.device.get_state(**of, limit="1"))
    return states[0]


def exchange(rest, one, device):
    """A state goes up, a command comes down."""
    now_ms = 1_000 * int(datetime.datetime.now().timestamp())
    one.device.send_state({"temperature": 21.5, "label": 4, "nothing": 1}, now_ms)
    # QoS 0: what it says is written when it is there.
    of = {"applicationId": APP, "deviceId": device}
    one.until(lambda: rest.device.get_state(**of, limit="1", since=str(now_ms)))
    assert last_state(rest, device)["data"] == {"temperature": 21.5, "label": "4"}
    command = {"name": "set", "payload": {"t": 72}, "time": {"$date": "2026-11-21T01:02:03.456Z"}}
    one.commands.clear()
    assert rest.device.send_command(**of, deviceCommand=command) == {"success": True}
    one.until(lambda: any(heard["name"] == "set" for heard in one.commands))
    heard = one.commands[-1]
    at = datetime.datetime(2026, 11, 21, 1, 2, 3, 456_000)
    assert (heard["name"], heard["payload"], heard["time"].replace(tzinfo=None)) == ("set", {"t": 72}, at)


@TRANSPORTS
def test_states_go_up_and_commands_come_down(rest, made, connected, how, request):
    device = made("exchange")
    one = connected(device, **how)
    assert one.peer[1] == PORTS[request.node.callspec.id]
    exchange(rest, one, device)
    # Without a time of its own a command has one that the SDK can read.
    of = {"applicationId": APP, "deviceId": device}
    rest.device.send_command(**of, deviceCommand={"name": "now"})
    one.until(lambda: len(one.commands) == 2)
    assert abs(one.commands[1]["time"].timestamp() - datetime.datetime.now().timestamp()) < 60
    # And so does one to several.
    rest.devices.send_command(applicationId=APP, multiDeviceCommand={"name": "all", "deviceIds": [device]})
    one.until(lambda: len(one.commands) == 3)
    history = rest.device.get_command(**of, limit="9")
    assert [command["name"] for command in history] == ["all", "now", "set"]
    assert rest.device.get(**of)["connectionInfo"]["connected"] == 1


@TRANSPORTS
def test_a_wrong_secret_is_said(made, connected, how):
    device = made("stranger")
    with pytest.raises(Exception, match="Invalid Losant credentials - error code 4"):
        connected(device, secret="wrong", **how)


def test_a_device_that_is_not_there_is_said(connected):
    with pytest.raises(Exception, match="Invalid Losant credentials - error code 2"):
        connected("0" * 24)


def test_the_name_is_checked(made, connected, monkeypatch):
    device = made("elsewhere")
    monkeypatch.setattr(losantmqtt.Device, "mqtt_endpoint", "localhost")
    with pytest.raises(ssl.SSLCertVerificationError):
        connected(device)


@TRANSPORTS
def test_a_topic_that_is_not_its_own_costs_the_connection_and_nothing_else(rest, made, connected, how):
    device = made("curious")
    one = connected(device, **how)
    for topic in ("/losant/not-this-device/state", f"losant/{made('other')}/state"):
        one.events.clear()
        one.client.publish(topic, b"")
        one.until(lambda: "reconnect" in one.events)
    one.settled()
    exchange(rest, one, device)
    log = rest.device.get_log_entries(applicationId=APP, deviceId=device, limit="9")
    assert "Unauthorized Topic" in [entry.get("disconnectReason") for entry in log]


@TRANSPORTS
def test_a_node_dies_and_the_device_goes_to_another(rest, nodes, made, connected, how):
    device = made("survivor")
    one = connected(device, **how)
    exchange(rest, one, device)
    died = nodes.at(one.peer[0])
    one.events.clear()
    died.kill()
    one.until(lambda: "reconnect" in one.events)
    assert one.peer[0] != died.address
    one.settled()
    # Those who have its shards now may still be choosing.
    wait_for("no shard answers", lambda: answers(rest, device))
    exchange(rest, one, device)
    died.start()
    wait_for("the node is not back", died.ready, READY_S)


def answers(rest, device):
    try:
        return rest.device.send_command(applicationId=APP, deviceId=device, deviceCommand={"name": "there?"})
    except Exception:
        return None
