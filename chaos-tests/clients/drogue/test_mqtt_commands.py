"""Commands come down over MQTT to whoever listens: a device, and each gateway that it names."""

import pytest
from connection import V5, V311
from plant import APP, Device, password

VERSIONS = pytest.mark.parametrize("version", [V311, V5], ids=["v311", "v5"])
UNSPECIFIED = 0x80
NO_SUBSCRIPTION = 0x11


@pytest.fixture
def pair(cluster, plant, request):
    """A gateway and a sensor that it acts for, on two nodes, with the version of MQTT that a test is run with."""
    version = request.getfixturevalue("version") if "version" in request.fixturenames else V5
    name = request.node.name.split("[")[0].removeprefix("test_")[:24]
    gateway = plant.device(f"gw-{name}-{version}", password("pw"))
    sensor = plant.device(f"s-{name}-{version}", password("pw"), gatewaySelector={"matchNames": [gateway]})
    with Device(f"{gateway}@{APP}", "pw", version) as by, Device(f"{sensor}@{APP}", "pw", version) as of:
        by.connect(cluster.nodes[0])
        of.connect(cluster.nodes[1])
        yield gateway, by, sensor, of


def topics(client, count):
    return sorted(message.topic for message in client.take(count))


@VERSIONS
def test_every_other_filter_is_refused(pair, version):
    _, by, sensor, _ = pair
    for topic in ["command/inbox/#", "command/inbox/+/#", "command/inbox//#", f"command/inbox/{sensor}/#"]:
        # Never more than QoS 0.
        assert [by.subscribe(topic, qos) for qos in (0, 1, 2)] == [0, 0, 0], topic
    refused = ["command/inbox", "command/inbox/", "command/inbox/+", "command/inbox/+/SET", "command/inbox//SET"]
    refused += [f"command/inbox/{sensor}", f"command/inbox/{sensor}/SET", "command/#", "#", "+", f"app/{APP}", "telemetry"]
    for topic in refused:
        assert by.subscribe(topic) == UNSPECIFIED, topic


def test_mqtt_5_has_no_subscription_ids(cluster, pair):
    _, by, _, _ = pair
    assert by.subscribe_as("command/inbox/#", identifier=7) == 0xA1
    assert by.subscribe("command/inbox/#") == 0


@VERSIONS
def test_each_subscription_names_a_command_its_way(cluster, plant, pair, version):
    gateway, by, sensor, of = pair
    assert by.subscribe("command/inbox/#") == 0
    assert of.subscribe("command/inbox/#") == 0
    assert plant.command(cluster.nodes[2], sensor, "SET", b"\x00\x01") == 202
    for client, topic in [(by, f"command/inbox/{sensor}/SET"), (of, "command/inbox//SET")]:
        [message] = client.take(1)
        assert (message.topic, message.payload, message.qos, message.retain) == (topic, b"\x00\x01", 0, False)
    assert plant.command(cluster.nodes[1], gateway, "SET") == 202
    assert topics(by, 1) == ["command/inbox//SET"]
    # The same twice is no second stream.
    assert by.subscribe("command/inbox/#") == 0
    # One filter that names it, beside the one for all.
    assert of.subscribe(f"command/inbox/{sensor}/#") == 0
    assert plant.command(cluster.nodes[2], sensor, "two") == 202
    assert topics(of, 2) == ["command/inbox//two", f"command/inbox/{sensor}/two"]
    assert topics(by, 1) == [f"command/inbox/{sensor}/two"]
    of.unsubscribe("command/inbox/#")
    assert plant.command(cluster.nodes[2], sensor, "three") == 202
    assert topics(of, 1) == [f"command/inbox/{sensor}/three"]
    of.hears_nothing(0.5)


@VERSIONS
def test_a_filter_for_one_yields_nothing_of_others(cluster, plant, pair, version):
    gateway, by, sensor, _ = pair
    second = plant.device(f"{sensor}-second", gatewaySelector={"matchNames": [gateway]})
    for topic in ("command/inbox//#", f"command/inbox/{second}/#"):
        assert by.subscribe(topic) == 0
    for device in (sensor, second, gateway):
        assert plant.command(cluster.nodes[1], device, "SET") == 202
    # A command for the device itself does not wait for those of others, so they are not ordered.
    assert topics(by, 2) == sorted([f"command/inbox/{second}/SET", "command/inbox//SET"])
    by.hears_nothing(0.5)


def test_mqtt_5_hears_that_there_was_no_such_subscription(pair):
    _, by, _, _ = pair
    assert by.subscribe("command/inbox/#") == 0
    assert [code.value for code in by.unsubscribe("command/inbox/#")] == [0]
    assert [code.value for code in by.unsubscribe("command/inbox/#")] == [NO_SUBSCRIPTION]


@VERSIONS
def test_nobody_listens_and_it_is_lost(cluster, plant, pair, version):
    _, _, sensor, of = pair
    assert plant.command(cluster.nodes[0], sensor, "early") == 202
    assert of.subscribe("command/inbox/#") == 0
    assert plant.command(cluster.nodes[0], sensor, "late") == 202
    assert topics(of, 1) == ["command/inbox//late"]


@VERSIONS
def test_a_gateway_acts_for_two_devices(cluster, plant, events, pair, version):
    gateway, by, first, _ = pair
    second = plant.device(f"{first}-second", gatewaySelector={"matchNames": ["nobody", gateway]})
    stranger = plant.device(f"{first}-stranger", gatewaySelector={"matchNames": ["nobody"]})
    assert by.subscribe("command/inbox/+/#") == 0
    for number, device in enumerate([first, second, first]):
        assert by.publish(f"telemetry/{device}", str(number)) == 0
        event = events.said(device)
        assert (event["device"], event["sender"], event["data"]) == (device, gateway, number)
        assert event["partitionkey"] == f"{APP}/{gateway}".replace("-", "%2D").replace("_", "%5F")
    for device in (first, second):
        assert plant.command(cluster.nodes[2], device, "open", device.encode()) == 202
    heard = {message.topic: message.payload.decode() for message in by.take(2)}
    assert heard == {f"command/inbox/{device}/open": device for device in (first, second)}
    assert plant.command(cluster.nodes[2], stranger, "open") == 202
    by.hears_nothing(0.5)
    if version == V5:
        assert by.publish(f"telemetry/{stranger}", "1") == 0x87
    else:
        by.ends_after(f"telemetry/{stranger}", "1")
    events.nothing_of(stranger)


@VERSIONS
def test_an_application_sends_commands_over_mqtt(cluster, plant, pair, version):
    gateway, by, _, _ = pair
    assert by.subscribe("command/inbox/#") == 0
    refused = [f"command/{APP}/nobody/x", f"command/other/{gateway}/x", "command/x", f"command/{APP}/{gateway}", f"app/{APP}"]
    with Device("ops", plant.key, version, client_id="ops") as ops:
        ops.connect(cluster.nodes[2])
        for word in ("command", "COMMAND"):
            assert ops.publish(f"{word}/{APP}/{gateway}/open", "now") == 0
            [message] = by.take(1)
            assert (message.topic, message.payload) == ("command/inbox//open", b"now")
        if version == V5:
            assert [ops.publish(topic, "1") for topic in refused] == [0x87, 0x87, 0x83, 0x83, 0x83]
    if version == V311:
        for topic in refused:
            ops = Device("ops", plant.key, version, client_id="ops")
            ops.connect(cluster.nodes[2])
            ops.ends_after(topic, "1")
    with Device("ops", plant.look, V5, client_id="looks") as looks:
        looks.connect(cluster.nodes[2])
        assert looks.publish(f"command/{APP}/{gateway}/open", "1") == 0x87
    by.hears_nothing(0.5)
