"""Applications over MQTT: who is one, what it may hear and say, and events that members of a group share while a node dies."""

import json
import queue
import threading

import pytest
from connection import V5, V311, Refused
from plant import APP, EVENT, OTHER, REFUSED, Device, password
from waiting import wait_for

VERSIONS = pytest.mark.parametrize("version", [V311, V5], ids=["v311", "v5"])
STRUCTURED = "application/cloudevents+json; charset=utf-8"
# Enough that a node dies in their midst, and few enough that one at a time is soon done.
EVENTS = 200
# Before the kill, so that both of what is and what is not committed was said.
BEFORE = 60
# A group's member that died is missed within some seconds, its node's shards within some more.
AFTER_KILL_S = 120


@VERSIONS
def test_whoever_shows_a_key_is_an_application(cluster, plant, version):
    node = cluster.nodes[0]
    assert Device("ops", plant.key, version, "a").reason(node) == 0
    assert Device("ops", plant.look, version, "a").reason(node) == 0
    # The key alone: as user name, and in MQTT 5 as password.
    assert Device(plant.key, None, version, "a").reason(node) == 0
    if version == V5:
        assert Device(None, plant.key, version, "a").reason(node) == 0
    for username, secret in [("ops", plant.key + "x"), (plant.key + "x", None)]:
        assert Device(username, secret, version, "a").reason(node) == REFUSED
    assert Device("ops", plant.key, version, "a", durable=True).reason(node) == REFUSED


def test_what_mqtt_5_is_told_of_the_server(cluster, plant):
    with Device("ops", plant.key, V5, "a") as ops:
        _, told = ops.connect(cluster.nodes[1])
        assert told.RetainAvailable == 0
        assert [getattr(told, f"{name}SubscriptionAvailable", 1) for name in ("Shared", "Wildcard")] == [1, 1]


@VERSIONS
def test_filters_are_granted_or_refused(cluster, plant, version):
    reasons = [
        (f"app/{APP}", 0), (f"a/{APP}", 0), (f"application/{APP}", 0), (f"$share/filters/app/{APP}", 0), (f"$shared/filters/app/{APP}", 0),
        ("app/#", 0xA2), ("app/+", 0xA2), ("#", 0xA2), ("$share/filters/app/+", 0xA2), ("command/inbox/#", 0xA2),
        (f"app/{OTHER}", 0x87), ("app/nobody", 0x87),
        (f"apps/{APP}", 0x8F), ("app", 0x8F), (f"app/{APP}/telemetry", 0x8F), ("app/", 0x8F),
    ]  # fmt: skip
    with Device("ops", plant.look, version, f"filters-{version}") as ops:
        ops.connect(cluster.nodes[2])
        for topic, reason in reasons:
            granted = [ops.subscribe(topic, qos) for qos in (0, 1, 2)]
            # MQTT 3.1.1 has one word for no.
            expected = [0, 1, 1] if reason == 0 else [reason if version == V5 else 0x80] * 3
            assert granted == expected, topic
            if reason == 0:
                ops.unsubscribe(topic)


class Hearing:
    """A program of the application, which keeps what it hears of a device until it is asked."""

    def __init__(self, plant, node, version, client_id, topic=f"app/{APP}", qos=1, identifier=None):
        self.messages, self.lock = [], threading.Lock()
        self.client = Device("ops", plant.key, version, client_id)
        self.client.paho.on_message = self._take
        self.client.connect(node)
        granted = self.client.subscribe(topic, qos) if identifier is None else self.client.subscribe_as(topic, qos, identifier)
        assert granted == qos

    def _take(self, _client, _userdata, message):
        with self.lock:
            self.messages.append(message)

    def of(self, device):
        """Messages and events of what a device said."""
        with self.lock:
            messages = list(self.messages)
        events = [(message, json.loads(message.payload)) for message in messages]
        return [(message, event) for message, event in events if (event["type"], event["device"]) == (EVENT, device)]


@pytest.fixture
def hearing(plant):
    """Makes programs of the application, and ends them."""
    programs = []

    def make(*how, **more):
        programs.append(Hearing(plant, *how, **more))
        return programs[-1]

    yield make
    for program in programs:
        program.client.close()


def says_until(plant, node, name, condition):
    """A device says something until a condition holds: a group that is new begins with what comes when it reads."""
    plant.device(name, password("pw"))
    with Device(f"{name}@{APP}", "pw") as gate:
        gate.connect(node)

        def said():
            assert gate.publish("telemetry", '{"t":21}') == 0
            return condition()

        return wait_for("nothing is heard", said)


@pytest.mark.parametrize("qos", [0, 1])
@pytest.mark.parametrize("topic", [f"app/{APP}", f"a/{APP}", f"$share/forms/app/{APP}"])
def test_events_come_in_the_form_of_each_version(cluster, plant, hearing, topic, qos):
    word = topic.replace("/", "-").replace("$", "")
    device = f"forms-{word}-{qos}"
    # Other groups each: what one hears the other does, too.
    old = hearing(cluster.nodes[0], V311, f"old-{word}-{qos}", topic.replace("forms", f"old-{qos}"), qos)
    new = hearing(cluster.nodes[1], V5, f"new-{word}-{qos}", topic.replace("forms", f"new-{qos}"), qos, identifier=7)
    says_until(plant, cluster.nodes[2], device, lambda: old.of(device) and new.of(device))
    for program in (old, new):
        message, event = program.of(device)[0]
        # Without the share.
        assert (message.topic, message.qos, message.retain) == (topic.removeprefix("$share/forms/"), qos, False)
        assert (event["data"], event["subject"], event["application"]) == ({"t": 21}, "telemetry", APP)
    message, _ = new.of(device)[0]
    told = message.properties
    assert (told.ContentType, told.PayloadFormatIndicator, told.SubscriptionIdentifier) == (STRUCTURED, 1, [7])


def test_a_group_goes_on_where_it_was(cluster, plant, hearing):
    first = hearing(cluster.nodes[0], V311, "goes-on")
    says_until(plant, cluster.nodes[2], "goes-on", lambda: first.of("goes-on"))
    first.client.close()
    with Device(f"goes-on@{APP}", "pw") as gate:
        gate.connect(cluster.nodes[2])
        for number in range(5):
            gate.publish("meanwhile", str(number))
    later = hearing(cluster.nodes[1], V5, "goes-on")
    numbers = wait_for("not all is heard", lambda: meanwhile(later))
    assert numbers == list(range(5))


def meanwhile(program):
    numbers = [event["data"] for _, event in program.of("goes-on") if event["subject"] == "meanwhile"]
    return numbers if len(numbers) >= 5 else None


# ---- a node dies


class Publisher:
    """A device that says one number after the other, each until it is acknowledged: on another node, if it has to. What was not
    acknowledged may have been heard all the same, and comes twice then.
    """

    def __init__(self, nodes, name):
        self.nodes, self.name, self.client, self.acknowledged = nodes, name, None, 0

    def say(self, number):
        """Says one until it is acknowledged."""
        wait_for(f"{number} is not acknowledged", lambda: self._say(number), AFTER_KILL_S)
        self.acknowledged += 1

    def _say(self, number):
        try:
            if self.client is None:
                client = Device(f"{self.name}@{APP}", "pw", V5)
                client.connect(self.nodes[0])
                self.client = client
            return self.client.publish("count", str(number)) == 0
        except (OSError, Refused, queue.Empty):
            # Another connection, and the next node: what was not acknowledged is said again.
            self.close()
            self.nodes = [*self.nodes[1:], self.nodes[0]]
            return False

    def close(self):
        if self.client is not None:
            self.client.break_off()
            self.client = None


def test_nothing_is_lost_to_a_group_when_the_node_of_a_member_is_killed(cluster, plant, hearing):
    topic, device = f"$share/killed/app/{APP}", "counts"
    says_first, killed, third = cluster.nodes
    # The first one reads before there is a second: of those that read one is on the node that dies.
    members = [hearing(killed, V5, "member-1", topic)]
    says_until(plant, says_first, device, lambda: members[0].of(device))
    members.append(hearing(third, V311, "member-2", topic))
    numbers = lambda: [event["data"] for member in members for _, event in member.of(device) if event["subject"] == "count"]
    counting = Publisher([says_first, third], device)
    try:
        for number in range(BEFORE):
            counting.say(number)
        wait_for("nothing is heard", numbers)
        cluster.kill(killed)
        for number in range(BEFORE, EVENTS):
            counting.say(number)
    finally:
        counting.close()
    assert counting.acknowledged == EVENTS
    # The member that is left has what the other had not acknowledged.
    wait_for("some are missing", lambda: set(numbers()) == set(range(EVENTS)), AFTER_KILL_S)
    cluster.wait_restarted(killed)
    # In the order they were said, but for what came twice.
    left = [event["data"] for _, event in members[1].of(device) if event["subject"] == "count"]
    firsts = list(dict.fromkeys(left))
    assert firsts == sorted(firsts)
