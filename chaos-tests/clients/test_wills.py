"""Wills, as Paho's client leaves them. Test names are claims."""

import time

import pytest
from connection import V5, V311, Client, properties

BOTH = pytest.mark.parametrize("version", [V311, V5], ids=["v311", "v5"])

DISCONNECT_WITH_WILL = 0x04
# How long a will that must not come is waited for.
NEVER_S = 3
DELAY_S = 2


def leaving(name, topic, version, payload="gone", qos=1, retain=False, expiry_s=None, **props):
    client = Client(name, version, durable=expiry_s is not None, expiry_s=expiry_s)
    will = {"properties": properties("WILLMESSAGE", **props)} if version == V5 else {}
    client.paho.will_set(topic, payload, qos, retain, **will)
    return client


@BOTH
def test_a_will_has_the_qos_and_the_properties_it_was_given(cluster, topic, version):
    one, two, three = cluster.nodes
    with Client(f"s-{topic}", version) as reader:
        reader.connect(two)
        reader.subscribe(topic)
        for qos in (0, 1):
            props = {
                "ContentType": "text/plain",
                "UserProperty": [("b", "1"), ("a", "2"), ("b", "3")],
                "MessageExpiryInterval": 60,
            }
            client = leaving(f"w-{topic}", topic, version, f"gone {qos}", qos, **props)
            client.connect(one)
            client.break_off()
            (message,) = reader.take(1)
            assert (message.payload, message.qos) == (f"gone {qos}".encode(), qos)
            assert not message.retain
            if version == V5:
                assert message.properties.ContentType == "text/plain"
                assert message.properties.UserProperty == props["UserProperty"]
                assert 0 < message.properties.MessageExpiryInterval <= 60


@BOTH
def test_a_goodbye_takes_the_will_back(cluster, topic, version):
    with Client(f"s-{topic}", version) as reader:
        reader.connect(cluster.nodes[0])
        reader.subscribe(topic)
        with leaving(f"w-{topic}", topic, version) as client:
            client.connect(cluster.nodes[1])
        reader.hears_nothing(NEVER_S)


def test_a_goodbye_may_ask_for_the_will(cluster, topic):
    with Client(f"s-{topic}", V5) as reader:
        reader.connect(cluster.nodes[0])
        reader.subscribe(topic)
        client = leaving(f"w-{topic}", topic, V5, WillDelayInterval=3600)
        client.connect(cluster.nodes[1])
        client.paho.disconnect(reasoncode=reason(DISCONNECT_WITH_WILL))
        assert reader.payloads(1) == ["gone"]
        client.paho.loop_stop()


def reason(value):
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.reasoncodes import ReasonCode

    return ReasonCode(PacketTypes.DISCONNECT, identifier=value)


def test_a_delayed_will_waits_for_its_client_on_any_node(cluster, topic):
    one, two, three = cluster.nodes
    with Client(f"s-{topic}", V5) as reader:
        reader.connect(three)
        reader.subscribe(topic)

        def client():
            return leaving(f"w-{topic}", topic, V5, expiry_s=3600, WillDelayInterval=DELAY_S)

        first = client()
        first.connect(one)
        first.break_off()
        second = client()
        present, _ = second.connect(two)
        assert present
        reader.hears_nothing(NEVER_S)
        second.break_off()
        began = time.monotonic()
        assert reader.payloads(1) == ["gone"]
        assert time.monotonic() - began > DELAY_S - 0.5
