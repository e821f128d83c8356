"""The vendor's SDK for Python, as it is, against a cluster: devices, gateways and applications.

It connects to `ORG.messaging.DOMAIN` on 1883 or 8883 and nowhere else. Here that name and these ports lead to a node by a resolver of
these tests' own; nothing of the SDK is changed.
"""

import json
import logging
import queue
import socket
import subprocess
import sys
import uuid

import pytest
import wiotp.sdk.application
import wiotp.sdk.device
import wiotp.sdk.gateway
from wiotp.sdk.messages import JsonCodec
from organisation import ANSWER_S, DOMAIN, HOST, KEY, ORG
from test_http_curl import curl

QUIET_S = 0.5


@pytest.fixture
def leads(monkeypatch):
    """Says where the organisation's name leads to, by port."""
    where = {}
    connect = socket.create_connection

    def create_connection(address, *args, **kwargs):
        host, port = address
        if host == HOST:
            address = ("127.0.0.1", where[port])
        return connect(address, *args, **kwargs)

    monkeypatch.setattr(socket, "create_connection", create_connection)
    return where


@pytest.fixture
def clients():
    """Clients that are connected, and go when the test is over."""
    connected = []

    def connect(client):
        client.connect()
        connected.append(client)
        return client

    yield connect
    for client in connected:
        client.disconnect()


def options(**mqtt):
    return {"domain": DOMAIN, "logLevel": logging.ERROR, "mqtt": {"port": 1883} | mqtt}


def device(kind, name, token, **mqtt):
    identity = {"orgId": ORG, "typeId": kind, "deviceId": name}
    config = {"identity": identity, "auth": {"token": token}, "options": options(**mqtt)}
    return wiotp.sdk.device.DeviceClient(config)


def gateway(kind, name, token, **mqtt):
    identity = {"orgId": ORG, "typeId": kind, "deviceId": name}
    config = {"identity": identity, "auth": {"token": token}, "options": options(**mqtt)}
    return wiotp.sdk.gateway.GatewayClient(config)


def application(org, name, **mqtt):
    auth = {"key": KEY, "token": org.key_token}
    config = {"identity": {"appId": name}, "auth": auth, "options": options(**mqtt)}
    return wiotp.sdk.application.ApplicationClient(config)


def subscribed(client, subscribe):
    """Subscribes and waits for the SUBACK."""
    acked = queue.Queue()
    client.subscriptionCallback = lambda mid, granted: acked.put((mid, granted))
    mid = subscribe()
    assert mid, "not connected"
    assert acked.get(timeout=ANSWER_S)[0] == mid


def publish(client, send):
    """Publishes with QoS 1 and waits for the PUBACK."""
    done = queue.Queue()
    assert send(lambda: done.put(True))
    done.get(timeout=ANSWER_S)


def nothing(heard):
    with pytest.raises(queue.Empty):
        heard.get(timeout=QUIET_S)


def hears(gw, topics, heard):
    """Puts the commands that a gateway gets on such topics into a queue."""
    codecs = {"json": JsonCodec}

    def on_message(client, userdata, message):
        heard.put(wiotp.sdk.gateway.Command(message, codecs))

    gw.client.message_callback_add(topics, on_message)


def test_events_commands_and_presence(cluster, org, leads, clients):
    token = org.register("pump", "p1")
    leads[1883] = cluster.nodes[0].port
    app = clients(application(org, "dash"))
    events, statuses, commands = queue.Queue(), queue.Queue(), queue.Queue()
    app.deviceEventCallback, app.deviceStatusCallback = events.put, statuses.put
    subscribed(app, lambda: app.subscribeToDeviceEvents(typeId="pump", qos=1))
    subscribed(app, lambda: app.subscribeToDeviceStatus(typeId="pump", deviceId="p1"))

    leads[1883] = cluster.nodes[1].port
    pump = device("pump", "p1", token)
    pump.commandCallback = commands.put
    clients(pump)
    here = statuses.get(timeout=ANSWER_S)
    assert (here.action, here.clientId) == ("Connect", f"d:{ORG}:pump:p1")

    publish(pump, lambda done: pump.publishEvent("status", "json", {"t": 21}, qos=1, onPublish=done))
    event = events.get(timeout=ANSWER_S)
    assert (event.device, event.eventId, event.data) == ("pump:p1", "status", {"t": 21})
    for qos in (0, 2):
        pump.publishEvent("status", "json", {"qos": qos}, qos=qos)
        assert events.get(timeout=ANSWER_S).data == {"qos": qos}

    assert app.publishCommand("pump", "p1", "reset", "json", {"after": 3})
    command = commands.get(timeout=ANSWER_S)
    assert (command.commandId, command.format, command.data) == ("reset", "json", {"after": 3})
    nothing(events)
    pump.disconnect()
    assert statuses.get(timeout=ANSWER_S).action == "Disconnect"


def test_a_gateway_speaks_for_its_devices(cluster, org, leads, clients):
    token = org.register("gw", "g1", "gateway")
    org.register("sensor", "s1")
    leads[1883] = cluster.nodes[2].port
    gw = gateway("gw", "g1", token)
    own, others, events = queue.Queue(), queue.Queue(), queue.Queue()
    clients(gw)
    # Its own callbacks read such a topic with the pattern of a device's, and find it invalid: whoever uses it goes beside them.
    hears(gw, "iot-2/type/gw/id/g1/cmd/+/fmt/json", own)
    hears(gw, "iot-2/type/+/id/+/cmd/+/fmt/+", others)
    subscribed(gw, lambda: gw.subscribeToDeviceCommands("sensor", "s1"))
    subscribed(gw, gw.subscribeToCommands)
    subscribed(gw, gw.subscribeToNotifications)
    leads[1883] = cluster.nodes[0].port
    app = clients(application(org, "gwdash"))
    app.deviceEventCallback = events.put
    subscribed(app, lambda: app.subscribeToDeviceEvents(qos=1))

    publish(gw, lambda done: gw.publishDeviceEvent("sensor", "s1", "e", "json", {"a": 1}, qos=1, onPublish=done))
    assert events.get(timeout=ANSWER_S).device == "sensor:s1"
    publish(gw, lambda done: gw.publishEvent("e", "json", {"b": 2}, qos=1, onPublish=done))
    assert events.get(timeout=ANSWER_S).device == "gw:g1"
    app.publishCommand("sensor", "s1", "c", "json", {"c": 3})
    assert others.get(timeout=ANSWER_S).data == {"c": 3}
    app.publishCommand("gw", "g1", "c", "json", {"d": 4})
    assert own.get(timeout=ANSWER_S).data == {"d": 4}


def test_a_standard_gateway_is_told_what_is_not_its_own(cluster, org, leads, clients):
    token = org.register("gw", "standard", "gateway")
    for name in ("in", "out"):
        org.register("sensor", name)
    key = f"a-{ORG}-gatewayop1"
    secret = org.ask("POST", "/tokens?tenant=watson", {"name": key, "role": "operator"})["token"].split(f"_{key}_")[1]

    def operate(path, body):
        headers, user = ["content-type: application/json"], f"{key}:{secret}"
        address, path = cluster.nodes[0].http, f"/api/v0002/{path}"
        heard = curl(address, "PUT", path, user, headers, json.dumps(body), host=f"{ORG}.{DOMAIN}")
        assert heard[0] == "200", heard

    role = {"roles": [{"roleId": "PD_STANDARD_GW_DEVICE", "roleStatus": 1}]}
    operate(f"authorization/devices/g%3A{ORG}%3Agw%3Astandard/roles", role)
    group = f"gw_def_res_grp%3A{ORG}%3Agw%3Astandard"
    operate(f"bulk/devices/{group}/add", [{"typeId": "sensor", "deviceId": "in"}])
    leads[1883] = cluster.nodes[1].port
    gw = clients(gateway("gw", "standard", token))
    notices, events = queue.Queue(), queue.Queue()
    gw.client.message_callback_add("iot-2/type/gw/id/standard/notify", lambda client, userdata, message: notices.put(json.loads(message.payload)))
    subscribed(gw, gw.subscribeToNotifications)
    subscribed(gw, lambda: gw.subscribeToDeviceCommands("sensor", "in"))
    leads[1883] = cluster.nodes[2].port
    app = clients(application(org, "standard"))
    app.deviceEventCallback = events.put
    subscribed(app, lambda: app.subscribeToDeviceEvents(typeId="sensor", qos=1))
    for name in ("out", "in"):
        publish(gw, lambda done: gw.publishDeviceEvent("sensor", name, "e", "json", {"a": 1}, qos=1, onPublish=done))
    assert events.get(timeout=ANSWER_S).device == "sensor:in"
    notice = notices.get(timeout=ANSWER_S)
    assert (notice["RC"], notice["Type"], notice["Id"], notice["Request"]) == (180, "sensor", "out", "Publish")
    nothing(events)


def test_instances_share(cluster, org, leads, clients):
    token = org.register("pump", "p2")
    heard = queue.Queue()
    for number, node in enumerate(cluster.nodes[:2]):
        leads[1883] = node.port
        member = clients(application(org, "work", instanceId=f"i{number}"))
        member.deviceEventCallback = lambda event, number=number: heard.put((number, event.data["n"]))
        subscribed(member, lambda: member.subscribeToDeviceEvents(typeId="pump", deviceId="p2", qos=1))
    leads[1883] = cluster.nodes[2].port
    pump = clients(device("pump", "p2", token))
    for number in range(40):
        publish(pump, lambda done: pump.publishEvent("e", "json", {"n": number}, qos=1, onPublish=done))
    got = [heard.get(timeout=ANSWER_S) for _ in range(40)]
    assert sorted(number for _, number in got) == list(range(40)), "each once"
    assert {member for member, _ in got} == {0, 1}, "both have their part"
    nothing(heard)


def test_what_came_meanwhile_survives_the_leader(cluster, org, leads, clients):
    token = org.register("pump", "p3")
    name = f"keeps{uuid.uuid4().hex[:6]}"
    leads[1883] = cluster.nodes[0].port
    # The SDK has it the wrong way round: this asks for a session that lasts.
    app = application(org, name, cleanStart=True)
    app.connect()
    subscribed(app, lambda: app.subscribeToDeviceEvents(typeId="pump", deviceId="p3", qos=1))
    app.disconnect()

    leads[1883] = cluster.nodes[1].port
    pump = clients(device("pump", "p3", token))
    for number in range(20):
        publish(pump, lambda done: pump.publishEvent("e", "json", {"n": number}, qos=1, onPublish=done))
    session = org.ask("GET", f"/sessions?client=a:{ORG}:{name}&tenant=watson")
    groups = {group["shard"]: group for group in org.ask("GET", "/cluster")["groups"]}
    leader = next(node for node in cluster.nodes if node.id == groups[session["shard"]]["leader"])
    cluster.kill(leader)

    heard = queue.Queue()
    alive = next(node for node in cluster.nodes if node.id != leader.id)
    leads[1883] = alive.port
    app = application(org, name, cleanStart=True)
    app.deviceEventCallback = lambda event: heard.put(event.data["n"])
    clients(app)
    assert [heard.get(timeout=ANSWER_S) for _ in range(20)] == list(range(20))
    cluster.wait_restarted(leader)


def test_wrong_credentials_are_said(cluster, org, leads):
    """In a process of its own: the SDK says it in a thread, and then waits for a minute."""
    leads[1883] = cluster.nodes[0].port
    code = f"""
import paho.mqtt.client as paho, sys
said = []
client = paho.Client({f"d:{ORG}:pump:nobody"!r})
client.username_pw_set("use-token-auth", "wrong-token")
client.on_connect = lambda client, userdata, flags, rc: (said.append(rc), client.disconnect())
client.connect("127.0.0.1", {cluster.nodes[0].port})
client.loop_forever()
print(said)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=ANSWER_S)
    assert ran.stdout == "[5]\n", ran


def test_who_watches_a_device_hears_that_it_was_not_let_in(cluster, org, leads, clients):
    org.register("pump", "failing")
    leads[1883] = cluster.nodes[1].port
    statuses = queue.Queue()
    app = clients(application(org, "failures"))
    app.deviceStatusCallback = statuses.put
    subscribed(app, lambda: app.subscribeToDeviceStatus(typeId="pump", deviceId="failing"))
    path = "/api/v0002/device/types/pump/devices/failing/events/e"
    headers = ["content-type: application/json"]
    heard = curl(cluster.nodes[0].http, "POST", path, "use-token-auth:wrong-token", headers, "{}")
    assert heard[0] == "403"
    status = statuses.get(timeout=ANSWER_S)
    assert (status.action, status.closeCode, status.protocol, status.retained) == ("FailedConnect", 180, "http", False)


@pytest.mark.parametrize("transport", ["tcp", "websockets"])
def test_over_tls(secure, secure_org, leads, clients, transport):
    org = secure_org
    token = org.register("pump", f"tls-{transport}")
    leads[8883] = secure.mqtts_port if transport == "tcp" else secure.wss_port
    how = {"port": 8883, "caFile": secure.ca, "transport": transport}
    events = queue.Queue()
    app = clients(application(org, f"tls-{transport}", **how))
    app.deviceEventCallback = events.put
    subscribed(app, lambda: app.subscribeToDeviceEvents(typeId="pump", qos=1))
    pump = clients(device("pump", f"tls-{transport}", token, **how))
    publish(pump, lambda done: pump.publishEvent("e", "json", {"tls": True}, qos=1, onPublish=done))
    assert events.get(timeout=ANSWER_S).data == {"tls": True}
