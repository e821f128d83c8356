"""The vendor's SDK for Python, as it is, against a cluster: telemetry, attributes, and changes of them; devices by MQTT and HTTP, and gateways."""

import queue

from plant import ANSWER_S
from waiting import wait_for
from tb_device_http import TBHTTPDevice
from tb_device_mqtt import TBPublishInfo
from tb_gateway_mqtt import TBGatewayMqttClient


def test_telemetry(cluster, plant, connected):
    token = plant.register("meter")
    node = cluster.nodes[1]
    client = connected(node, token)
    assert client.send_telemetry({"t": 21.5, "on": True, "n": 7}).get() == TBPublishInfo.TB_ERR_SUCCESS
    assert client.send_telemetry({"ts": 1451649600512, "values": {"t": 1}}).get() == TBPublishInfo.TB_ERR_SUCCESS
    assert client.send_telemetry([{"s": "x"}, {"o": {"a": [1]}}]).get() == TBPublishInfo.TB_ERR_SUCCESS
    expected = {"t": 21.5, "on": True, "n": 7, "s": "x", "o": {"a": [1]}}
    for reader in cluster.nodes:
        assert plant.latest("meter", reader.admin) == expected


def test_attributes_both_ways(cluster, plant, connected):
    token = plant.register("valve")
    node = cluster.nodes[2]
    plant.share("valve", {"interval": 10}, cluster.nodes[0].admin)
    client = connected(node, token)
    assert client.send_attributes({"fw": "a", "n": 1}).get() == TBPublishInfo.TB_ERR_SUCCESS
    answers = queue.Queue()
    client.request_attributes(["n"], ["interval"], callback=lambda result, error: answers.put((result, error)))
    assert answers.get(timeout=ANSWER_S) == ({"client": {"n": 1}, "shared": {"interval": 10}}, None)

    changes = queue.Queue()
    client.subscribe_to_all_attributes(lambda result, extra: changes.put(result))
    plant.share("valve", {"interval": 20}, cluster.nodes[1].admin)
    assert changes.get(timeout=ANSWER_S) == {"interval": 20}
    plant.share("valve", {"interval": None}, cluster.nodes[0].admin)
    assert changes.get(timeout=ANSWER_S) == {"deleted": ["interval"]}


def test_calls(cluster, plant, connected):
    token = plant.register("caller")
    node = cluster.nodes[0]
    client = connected(node, token)
    client.set_server_side_rpc_request_handler(
        lambda number, call: client.send_rpc_reply(number, {"got": call["params"]["pin"], "method": call["method"]})
    )
    for admin in [node.admin for node in cluster.nodes]:
        assert plant.call("caller", "setGpio", {"pin": 7}, admin) == {"got": 7, "method": "setGpio"}


def test_a_device_calls(cluster, plant, connected):
    token = plant.register("clock")
    calls = plant.own_calls(cluster.nodes[1].admin)
    client = connected(cluster.nodes[0], token)
    answers = queue.Queue()
    client.send_rpc_call("getTime", {"zone": "UTC"}, lambda number, answer, error: answers.put((answer, error)))
    call = next(calls)
    assert (call["method"], call["params"]) == ("getTime", {"zone": "UTC"})
    plant.ask("POST", f"/devices/clock/own-calls/{call['id']}?tenant=plant", {"now": 1}, admin=cluster.nodes[2].admin)
    assert answers.get(timeout=ANSWER_S) == ({"now": 1}, None)


def test_over_tls(secure, secure_plant, connected):
    plant = secure_plant
    client = connected(secure, plant.register("tls"), secure=True)
    assert client.send_telemetry({"tls": True}).get() == TBPublishInfo.TB_ERR_SUCCESS
    assert plant.latest("tls", secure.admin) == {"tls": True}
    client.set_server_side_rpc_request_handler(lambda number, call: client.send_rpc_reply(number, call["params"]))
    assert plant.call("tls", "echo", {"pin": 7}, secure.admin) == {"pin": 7}

    hub = connected(secure, plant.register("tls-hub", "gateway"), made=TBGatewayMqttClient, secure=True)
    assert hub.gw_send_telemetry("Child T", {"t": 1}).get() == TBPublishInfo.TB_ERR_SUCCESS
    assert plant.latest("Child%20T", secure.admin) == {"t": 1}


def test_a_device_over_https(secure, secure_plant, monkeypatch):
    plant = secure_plant
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(secure.ca))
    device = TBHTTPDevice(f"https://localhost:{secure.https_port}", plant.register("https"))
    assert device.connect()
    device.send_telemetry({"t": 5}, queued=False)
    assert plant.latest("https", secure.admin) == {"t": 5}
    plant.share("https", {"interval": 30}, secure.admin)
    assert device.request_attributes(["fw"], ["interval"]) == {"shared": {"interval": 30}}


def test_a_gateway_speaks_for_its_devices(cluster, plant, connected):
    token = plant.register("hub", "gateway")
    node = cluster.nodes[0]
    gateway = connected(node, token, made=TBGatewayMqttClient)
    assert gateway.gw_connect_device("Child A", "thermometer").get() == TBPublishInfo.TB_ERR_SUCCESS
    assert gateway.gw_send_telemetry("Child A", {"t": 1}).get() == TBPublishInfo.TB_ERR_SUCCESS
    # Its own gateways often never say that a device has come.
    assert gateway.gw_send_telemetry("Child B", [{"t": 2}, {"u": 3}]).get() == TBPublishInfo.TB_ERR_SUCCESS
    assert gateway.gw_send_attributes("Child A", {"fw": "a"}).get() == TBPublishInfo.TB_ERR_SUCCESS
    assert gateway.send_telemetry({"own": 4}).get() == TBPublishInfo.TB_ERR_SUCCESS
    for reader in cluster.nodes:
        assert plant.latest("Child%20A", reader.admin) == {"t": 1}
        assert plant.latest("Child%20B", reader.admin) == {"t": 2, "u": 3}
        assert plant.latest("hub", reader.admin) == {"own": 4}

    changes = queue.Queue()
    gateway.gw_subscribe_to_all_device_attributes("Child A", changes.put)
    plant.share("Child%20A", {"interval": 20}, cluster.nodes[2].admin)
    assert changes.get(timeout=ANSWER_S) == {"device": "Child A", "data": {"interval": 20}}
    answers = queue.Queue()
    gateway.gw_request_shared_attributes("Child A", ["interval"], lambda found, _: answers.put(found["values"]))
    assert answers.get(timeout=ANSWER_S) == {"interval": 20}
    gateway.gw_request_client_attributes("Child A", ["fw", "none"], lambda found, _: answers.put(found["values"]))
    assert answers.get(timeout=ANSWER_S) == {"fw": "a"}
    gateway.gw_set_server_side_rpc_request_handler(
        lambda hub, call: hub.gw_send_rpc_reply(call["device"], call["data"]["id"], {"from": call["device"]})
    )
    assert plant.call("Child%20A", "who", {}, cluster.nodes[1].admin) == {"from": "Child A"}
    assert gateway.gw_disconnect_device("Child A").get() == TBPublishInfo.TB_ERR_SUCCESS


def http_device(plant, base, name, changes):
    """A device that speaks HTTP: what it sends is kept, what changes is told."""
    device = TBHTTPDevice(base, plant.register(name))
    assert device.connect()
    device.send_telemetry({"t": 5, "s": "x"}, queued=False)
    device.send_attributes({"fw": "b"})
    assert plant.latest(name, plant.admin) == {"t": 5, "s": "x"}
    plant.share(name, {"interval": 30}, plant.admin)
    assert device.request_attributes(["fw"], ["interval"]) == {"client": {"fw": "b"}, "shared": {"interval": 30}}
    device.subscribe("attributes", changes.put)
    return device


def test_a_device_over_http(cluster, plant):
    changes = queue.Queue()
    device = http_device(plant, f"http://{cluster.nodes[1].http}", "http", changes)
    # It has to ask for the first time before anything changes; then nothing is lost between two polls.
    value = 0

    def comes():
        nonlocal value
        value += 1
        plant.share("http", {"n": value}, cluster.nodes[value % 3].admin)
        return not changes.empty()

    wait_for("nothing came", comes)
    for number in range(20):
        plant.share("http", {f"k{number}": number}, cluster.nodes[number % 3].admin)
    told = {}
    while len(told) < 21 or told["n"] != value:
        told |= changes.get(timeout=ANSWER_S)
    assert told == {"n": value} | {f"k{number}": number for number in range(20)}
    device.unsubscribe("attributes")
    device.subscribe("rpc", lambda call: device.send_rpc(call["method"], {"got": call["params"]}, call["id"]))
    answer = plant.call("http", "setGpio", 7, cluster.nodes[2].admin)
    assert answer == {"method": "setGpio", "params": {"got": 7}}
    device.unsubscribe("rpc")
