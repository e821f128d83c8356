"""Retained messages, as Paho's client sees them. Test names are claims."""

import time

import pytest
from connection import V5, V311, Client
from paho.mqtt.subscribeoptions import SubscribeOptions

BOTH = pytest.mark.parametrize("version", [V311, V5], ids=["v311", "v5"])

# How long a message that must not come is waited for.
NEVER_S = 1


def subscribe(client, topic, **options):
    _, mid = client.paho.subscribe(topic, options=SubscribeOptions(qos=1, **options))
    client._wait(mid)


@BOTH
@pytest.mark.parametrize("qos", [0, 1])
def test_what_was_acknowledged_is_seen_on_every_node(cluster, topic, version, qos):
    with Client(f"p-{topic}", version) as writer:
        writer.connect(cluster.nodes[0])
        for number in range(5):
            writer.publish(f"{topic}/t", f"value {number}", 1, retain=True)
            for node in cluster.nodes:
                with Client(f"s-{topic}", version) as reader:
                    reader.connect(node)
                    reader.subscribe(f"{topic}/+", qos)
                    (message,) = reader.take(1)
                    assert message.payload == f"value {number}".encode()
                    assert (message.retain, message.qos) == (True, qos)
        writer.publish(f"{topic}/t", "", 1, retain=True)
        with Client(f"s-{topic}", version) as reader:
            reader.connect(cluster.nodes[1])
            reader.subscribe(f"{topic}/+")
            reader.hears_nothing(NEVER_S)


@BOTH
def test_qos_0_is_retained_too(cluster, topic, version):
    with Client(f"p-{topic}", version) as writer, Client(f"s-{topic}", version) as reader:
        writer.connect(cluster.nodes[0])
        reader.connect(cluster.nodes[1])
        writer.publish(topic, "first", 1, retain=True)
        writer.publish(topic, "second", 0, retain=True)
        # Behind it on the way to the same shard.
        writer.publish(topic, "not kept", 1)
        reader.subscribe(topic)
        (message,) = reader.take(1)
        assert (message.payload, message.retain, message.qos) == (b"second", True, 0)


def test_retain_handling_says_when_it_is_sent(cluster, topic):
    with Client(f"p-{topic}", V5) as writer:
        writer.connect(cluster.nodes[0])
        writer.publish(topic, "kept", 1, retain=True)
    for durable in (False, True):
        with Client(f"s-{durable}-{topic}", V5, durable=durable) as reader:
            reader.connect(cluster.nodes[1])
            subscribe(reader, topic, retainHandling=2)
            reader.hears_nothing(NEVER_S)
            subscribe(reader, topic, retainHandling=1)
            # The subscription was there.
            reader.hears_nothing(NEVER_S)
            subscribe(reader, topic, retainHandling=0)
            assert reader.payloads(1) == ["kept"]
            subscribe(reader, topic, retainHandling=0)
            assert reader.payloads(1) == ["kept"], "at each SUBSCRIBE"
            reader.unsubscribe(topic)
            subscribe(reader, topic, retainHandling=1)
            assert reader.payloads(1) == ["kept"], "it is new"


def test_retain_as_published_keeps_the_flag(cluster, topic):
    with Client(f"p-{topic}", V5) as writer, Client(f"s-{topic}", V5) as reader:
        writer.connect(cluster.nodes[0])
        reader.connect(cluster.nodes[1])
        for keeps in (False, True):
            subscribe(reader, topic, retainAsPublished=keeps, retainHandling=2)
            for retain in (False, True):
                writer.publish(topic, "live", 1, retain=retain)
                assert reader.take(1)[0].retain == (keeps and retain)


@BOTH
def test_a_will_is_retained(cluster, topic, version):
    client = Client(f"w-{topic}", version)
    client.paho.will_set(topic, "gone", 1, retain=True)
    client.connect(cluster.nodes[0])
    with Client(f"l-{topic}", version) as live:
        live.connect(cluster.nodes[1])
        live.subscribe(topic)
        client.break_off()
        (message,) = live.take(1)
        assert not message.retain
    deadline = time.monotonic() + 20
    with Client(f"s-{topic}", version) as reader:
        reader.connect(cluster.nodes[2])
        while reader.inbox.empty() and time.monotonic() < deadline:
            reader.subscribe(topic)
            time.sleep(0.1)
        (message,) = reader.take(1)
        assert (message.payload, message.retain) == (b"gone", True)


@BOTH
def test_many_come_whole(cluster, topic, version):
    count = 1500
    with Client(f"p-{topic}", version) as writer:
        writer.connect(cluster.nodes[0])
        sent = [writer.paho.publish(f"{topic}/{n}", "x", 1, retain=True) for n in range(count)]
        for message in sent:
            message.wait_for_publish(60)
    for durable in (False, True):
        with Client(f"s-{durable}-{topic}", version, durable=durable) as reader:
            reader.connect(cluster.nodes[1])
            reader.subscribe(f"{topic}/#")
            topics = {message.topic for message in reader.take(count)}
            assert len(topics) == count
