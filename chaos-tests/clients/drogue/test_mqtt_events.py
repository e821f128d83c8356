"""Events go up over MQTT, in both dialects; what is refused is said as each version can say it."""

import base64
import re

import pytest
from connection import V5, V311
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode
from plant import APP, EVENT, Device, password
from waiting import wait_for

VERSIONS = pytest.mark.parametrize("version", [V311, V5], ids=["v311", "v5"])
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
PACKET_BYTES_MAX = 16 * 1024
# How a DISCONNECT says that the will counts all the same.
WITH_WILL = 0x04


@pytest.fixture
def connected(cluster, plant):
    """Makes a device and connects it."""
    clients = []

    def connect(name, version=V5, node=0, how=None, **spec):
        plant.device(name, password("pw"), **spec)
        client = Device(f"{name}@{APP}", "pw", version, **(how or {}))
        client.connect(cluster.nodes[node])
        clients.append(client)
        return client

    yield connect
    for client in clients:
        client.close()


@VERSIONS
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_an_event_is_what_the_applications_know(connected, events, version, qos):
    name = f"up-{version}-{qos}"
    gate = connected(name, version)
    gate.publish("telemetry", b'{"temp": 21.50}', qos)
    event = events.said(name)
    assert UUID.fullmatch(event.pop("id")) and TIME.fullmatch(event.pop("time"))
    uids = [event.pop(uid) for uid in ("applicationuid", "deviceuid", "senderuid")]
    assert all(uids) and uids[1] == uids[2]
    encoded = name.replace("-", "%2D")
    assert event == {
        "specversion": "1.0",
        "type": EVENT,
        "source": f"drogue://{APP}/{encoded}",
        "subject": "telemetry",
        "datacontenttype": "application/json",
        "instance": "drogue",
        "application": APP,
        "device": name,
        "sender": name,
        "partitionkey": f"{APP}/{encoded}",
        "data": {"temp": 21.5},
    }


@VERSIONS
def test_what_is_no_json_comes_as_it_was(connected, events, version):
    gate = connected(f"raw-{version}", version)
    gate.publish("raw", b"\x00\xff")
    event = events.said(f"raw-{version}")
    assert (event["datacontenttype"], event["data_base64"]) == ("application/octet-stream", "AP8=")
    # A retain flag means nothing.
    gate.publish("raw", b"1", retain=True)
    assert events.said(f"raw-{version}")["data"] == 1


def test_mqtt_5_says_what_it_is(connected, events):
    gate = connected("typed")
    table = [
        ("text/plain", b"21", "text/plain", {"data_base64": base64.b64encode(b"21").decode()}),
        ("application/json", b"21", "application/json", {"data": 21}),
        ("application/senml+json", b"[]", "application/json", {"data": []}),
        ("application/cbor", b"\xa0", "application/cbor", {"data_base64": "oA=="}),
    ]
    for declared, payload, kept, data in table:
        assert gate.publish("typed", payload, ContentType=declared) == 0
        event = events.said("typed")
        assert event["datacontenttype"] == kept
        assert {name: event[name] for name in event if name in ("data", "data_base64")} == data
    assert gate.publish("typed", b"no json", ContentType="application/json") == 0x99
    # With QoS 0 nobody is told, and nothing comes.
    gate.publish("typed", b"no json", qos=0, ContentType="application/json")
    assert gate.publish("typed", b"2") == 0
    assert events.said("typed")["data"] == 2


def test_mqtt_5_may_say_a_topic_once(connected, events):
    gate = connected("aliased")
    assert gate.publish("telemetry", "1", TopicAlias=1) == 0
    assert gate.publish("", "2", TopicAlias=1) == 0
    assert [(event["subject"], event["data"]) for event in (events.said("aliased"), events.said("aliased"))] == [("telemetry", 1), ("telemetry", 2)]


DIALECTS = {
    "v1": {"type": "drogue/v1"},
    "plain": {"type": "plainTopic"},
    "prefix": {"type": "plainTopic", "devicePrefix": True},
}
# Dialect, topic, then the channel it means and whether it is said by the gateway for its sensor.
TOPICS = [
    ("v1", "telemetry", "telemetry", False),
    ("v1", "telemetry/{own}", "telemetry", False),
    ("v1", "telemetry/{sensor}", "telemetry", True),
    ("plain", "telemetry", "telemetry", False),
    ("plain", "a/b/c", "a/b/c", False),
    ("plain", "/a//b/", "/a//b/", False),
    ("prefix", "/a/b", "a/b", False),
    ("prefix", "{own}/a/b", "a/b", False),
    ("prefix", "{sensor}/a", "a", True),
]


@VERSIONS
@pytest.mark.parametrize("qos", [0, 1])
@pytest.mark.parametrize("dialect", list(DIALECTS))
def test_topics_are_read_by_the_dialect(plant, connected, events, version, qos, dialect):
    own, sensor = f"gw-{dialect}-{version}-{qos}", f"sensor-{dialect}-{version}-{qos}"
    gate = connected(own, version, node=1, mqtt={"dialect": DIALECTS[dialect]})
    plant.device(sensor, gatewaySelector={"matchNames": [own]})
    for number, (_, topic, channel, for_sensor) in enumerate(row for row in TOPICS if row[0] == dialect):
        gate.publish(topic.format(own=own, sensor=sensor), str(number), qos)
        event = events.said(sensor if for_sensor else own)
        assert (event["subject"], event["data"], event["sender"]) == (channel, number, own), topic


def test_a_dialect_of_the_application_counts_without_an_own(cluster, plant, connected, events):
    """The application is everybody's here: its dialect is put back."""
    try:
        plant.patch_application({"mqtt": {"dialect": {"type": "plainTopic"}}})
        own = connected("dialect-own", mqtt={"dialect": {"type": "drogue/v1"}})
        assert own.publish("a/b/c", "1") == 0x90
        plant.device("dialect-none", password("pw"))

        def plain():
            # What a node knows of an application it knows for some seconds.
            with Device(f"dialect-none@{APP}", "pw") as none:
                none.connect(cluster.nodes[1])
                return none.publish("a/b/c", "1") == 0

        wait_for("the application's dialect does not count", plain)
        assert events.said("dialect-none")["subject"] == "a/b/c"
        # An own section counts alone, whatever is in it.
        with Device(f"{plant.device('dialect-empty', password('pw'), mqtt={})}@{APP}", "pw") as empty:
            empty.connect(cluster.nodes[1])
            assert empty.publish("a/b/c", "1") == 0x90
    finally:
        plant.patch_application({"mqtt": None})

        def refuses(node):
            with Device(f"dialect-none@{APP}", "pw") as none:
                none.connect(node)
                return none.publish("a/b/c", "1") == 0x90

        wait_for("the application's dialect still counts", lambda: all(refuses(node) for node in cluster.nodes))


# Dialect, topic, payload, and the reason of MQTT 5.
REFUSED = [
    ("v1", "telemetry/nobody", "1", 0x87),
    ("v1", "telemetry/stranger", "1", 0x87),
    ("v1", "a/b/c", "1", 0x90),
    ("v1", "/gate", "1", 0x90),
    ("v1", "a/", "1", 0x90),
    ("v1", "secret", "1", 0x80),
    ("prefix", "telemetry", "1", 0x90),
    ("prefix", "nobody/a", "1", 0x87),
    ("prefix", "gate/", "1", 0x90),
]


@pytest.fixture(scope="module")
def stranger(plant):
    """A device that has no gateways."""
    return plant.device("stranger")


@pytest.fixture(scope="module")
def rules():
    return {"publish": {"rules": [{"when": {"isChannel": "secret"}, "then": [{"reject": "not here"}]}]}}


def test_mqtt_5_is_told_why_and_stays(connected, events, stranger, rules):
    gates = {dialect: connected(f"why-{dialect}", mqtt={"dialect": DIALECTS[dialect]}, **rules) for dialect in ("v1", "prefix")}
    for dialect, topic, payload, reason in REFUSED:
        assert gates[dialect].publish(topic, payload) == reason, topic
        # With QoS 0 it is dropped.
        gates[dialect].publish(topic, payload, qos=0)
    for dialect, gate in gates.items():
        assert gate.publish("/a" if dialect == "prefix" else "a", "9") == 0
        assert events.said(f"why-{dialect}")["data"] == 9
    events.nothing_of(stranger)


@pytest.mark.parametrize("qos", [0, 1])
def test_mqtt_3_1_1_can_not_be_told_and_ends(cluster, plant, stranger, rules, qos):
    for dialect in ("v1", "prefix"):
        plant.device(f"ends-{dialect}-{qos}", password("pw"), mqtt={"dialect": DIALECTS[dialect]}, **rules)
    for dialect, topic, payload, _ in REFUSED:
        gate = Device(f"ends-{dialect}-{qos}@{APP}", "pw", V311)
        gate.connect(cluster.nodes[1])
        gate.ends_after(topic, payload, qos)


@VERSIONS
def test_a_packet_has_16_kib(cluster, connected, events, version):
    name = f"large-{version}"
    gate = connected(name, version)
    room = PACKET_BYTES_MAX - 64
    gate.publish("large", "x" * room)
    assert len(base64.b64decode(events.said(name)["data_base64"])) == room
    gate.paho.publish("large", "x" * PACKET_BYTES_MAX, 1)
    ended = gate.wait_ended()
    assert version == V311 or ended.value == 0x95
    gate.paho.loop_stop()
    again = Device(f"{name}@{APP}", "pw", version)
    assert again.reason(cluster.nodes[0]) == 0


# ---- that a device comes and goes


@VERSIONS
def test_a_device_that_comes_and_goes_is_an_event(cluster, plant, events, version):
    name = plant.device(f"comes-{version}", password("pw"))
    with Device(f"{name}@{APP}", "pw", version) as gate:
        gate.connect(cluster.nodes[0])
        assert events.connected(name) is True
    assert events.connected(name) is False


@VERSIONS
def test_a_will_is_an_event_without_a_goodbye(cluster, plant, events, version):
    name = plant.device(f"will-{version}", password("pw"))
    broken = Device(f"{name}@{APP}", "pw", version)
    # Whatever the topic is, all of it is the channel.
    broken.paho.will_set("gone/far/away", '{"why":"power"}')
    broken.connect(cluster.nodes[0])
    broken.publish("a", "1")
    assert events.said(name)["data"] == 1
    broken.break_off()
    will = events.said(name)
    assert (will["subject"], will["data"], will["datacontenttype"]) == ("gone/far/away", {"why": "power"}, "application/json")
    with Device(f"{name}@{APP}", "pw", version) as polite:
        polite.paho.will_set("gone", "2")
        polite.connect(cluster.nodes[1])
    with Device(f"{name}@{APP}", "pw", version) as later:
        later.connect(cluster.nodes[1])
        later.publish("later", "3")
        assert events.said(name)["subject"] == "later", "a goodbye leaves no will"


def test_mqtt_5_may_leave_with_its_will(cluster, plant, events):
    name = plant.device("leaves", password("pw"))
    leaving = Device(f"{name}@{APP}", "pw")
    leaving.paho.will_set("gone", "x")
    leaving.connect(cluster.nodes[0])
    leaving.paho.disconnect(ReasonCode(PacketTypes.DISCONNECT, identifier=WITH_WILL))
    leaving.wait_ended()
    leaving.paho.loop_stop()
    assert events.said(name)["subject"] == "gone"


@VERSIONS
def test_a_later_connection_is_the_device(cluster, plant, events, version):
    name = plant.device(f"twice-{version}", password("pw"))
    first = Device(f"{name}@{APP}", "pw", version, client_id="first")
    first.connect(cluster.nodes[0])
    assert events.connected(name) is True
    with Device(f"{name}@{APP}", "pw", version, client_id="second") as second:
        second.connect(cluster.nodes[1])
        ended = first.wait_ended()
        assert version == V311 or ended.value == 0x8E
        first.paho.loop_stop()
        second.publish("a", "1")
        assert events.said(name)["data"] == 1
