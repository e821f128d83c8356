"""The WebSocket of the API, with a client of another maker: what devices say by the vendor's SDK is pushed, and survives a leader."""

import json

import pytest
from plant import ANSWER_S, made
from tb_device_mqtt import TBDeviceMqttClient, TBPublishInfo
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

TELEMETRY_MS = 1_451_649_600_000
POLICY = 1008


def said(socket):
    return json.loads(socket.recv(timeout=ANSWER_S))


def command(kind, number, device, **more):
    return {"type": kind, "cmdId": number, "entityType": "DEVICE", "entityId": device.id.id, **more}


def test_who_does_not_say_who_it_is_is_closed(cluster):
    with connect(f"ws://{cluster.nodes[1].http}/api/ws") as socket:
        socket.send('{"cmds":[]}')
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(timeout=ANSWER_S)
        assert closed.value.rcvd.code == POLICY


def test_what_a_device_says_is_pushed_and_deleted(cluster, user, password, connected):
    device, token = made(user, "ws-meter")
    client = connected(cluster.nodes[2], token)
    with connect(f"ws://{cluster.nodes[1].http}/api/ws") as socket:
        commands = [
            command("TIMESERIES", 1, device, scope="LATEST_TELEMETRY", keys="t"),
            command("ATTRIBUTES", 2, device, scope="CLIENT_SCOPE", keys="fw"),
        ]
        socket.send(json.dumps({"authCmd": {"cmdId": 0, "apiKey": password}, "cmds": commands}))
        assert {said(socket)["subscriptionId"], said(socket)["subscriptionId"]} == {1, 2}
        for at, value in enumerate([10, 20]):
            sample = {"ts": TELEMETRY_MS + at * 1000, "values": {"t": value}}
            assert client.send_telemetry(sample).get() == TBPublishInfo.TB_ERR_SUCCESS
            push = said(socket)
            assert (push["subscriptionId"], push["data"]) == (1, {"t": [[TELEMETRY_MS + at * 1000, str(value)]]})
        assert client.send_attributes({"fw": "1.2"}).get() == TBPublishInfo.TB_ERR_SUCCESS
        push = said(socket)
        assert (push["subscriptionId"], push["data"]["fw"][0][1]) == (2, "1.2")

        past = user.get_timeseries(device.id, TELEMETRY_MS, TELEMETRY_MS + 10_000, keys="t", order_by="ASC")
        assert [sample.value for sample in past["t"]] == ["10", "20"]
        user.delete_entity_timeseries(device.id, "t", delete_all_data_for_keys=True)
        assert said(socket)["data"] == {"t": [[0, ""]]}
        assert not user.get_timeseries(device.id, TELEMETRY_MS, TELEMETRY_MS + 10_000, keys="t")


def test_pushes_survive_kill_9_of_whoever_leads(cluster, plant, user):
    device, token = made(user, "ws-survivor")
    value = 0
    for victim in cluster.nodes:
        rest = [node for node in cluster.nodes if node.id != victim.id]
        with connect(f"ws://{rest[0].http}/api/ws/plugins/telemetry?token={user.get_token()}") as socket:
            subscription = command("TIMESERIES", 1, device, keys="n", scope="LATEST_TELEMETRY")
            socket.send(json.dumps({"tsSubCmds": [subscription]}))
            said(socket)
            cluster.kill(victim)
            value += 1
            report(rest[1], token, value)
            assert said(socket)["data"]["n"][0][1] == str(value)
        cluster.wait_restarted(victim)


def report(node, token, value):
    """Tells it until somebody has taken it: a leader may have to be found."""
    client = TBDeviceMqttClient(node.host, node.port, token)
    client.connect()
    try:
        for _ in range(ANSWER_S):
            try:
                if client.send_telemetry({"n": value}).get() == TBPublishInfo.TB_ERR_SUCCESS:
                    return
            except Exception:  # The SDK raises what it likes while it has no connection.
                pass
        raise AssertionError("nobody took it")
    finally:
        client.disconnect()
        client.stop()
