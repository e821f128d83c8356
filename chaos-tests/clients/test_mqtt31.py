"""MQTT 3.1 (`MQIsdp`) with Paho, the one client that still speaks it. Test names are claims."""

import pytest
from connection import V31, V311, Client, Refused

ID_REFUSED = 0x85
# MQTT 3.1 stops at 23 bytes; mosquitto and we do not.
LONG = "a-client-id-of-more-than-23-bytes"


@pytest.mark.parametrize("qos", [0, 1])
def test_a_message_reaches_a_subscriber_on_another_node_and_back(cluster, topic, qos):
    with Client(f"o-{topic}", V31) as old, Client(f"n-{topic}", V311) as new:
        assert old.connect(cluster.nodes[0])[0] == 0, "there is no session present in 3.1"
        new.connect(cluster.nodes[2])
        assert old.subscribe(f"{topic}/down", qos) == qos
        new.subscribe(f"{topic}/up", qos)
        new.publish(f"{topic}/down", "hello", qos)
        (message,) = old.take(1)
        assert (message.topic, message.payload, message.qos) == (f"{topic}/down", b"hello", qos)
        old.publish(f"{topic}/up", "well", qos)
        assert new.payloads(1) == ["well"]


def test_a_durable_session_with_a_long_id_resumes_on_another_node(cluster, topic):
    name = f"{LONG}-{topic}"
    with Client(name, V31, durable=True) as reader:
        reader.connect(cluster.nodes[0])
        reader.subscribe(topic)
    with Client(f"p-{topic}", V31) as writer:
        writer.connect(cluster.nodes[1])
        writer.publish_many(topic, [str(number) for number in range(50)])
    with Client(name, V31, durable=True) as reader:
        reader.connect(cluster.nodes[2])
        assert reader.payloads(50) == [str(number) for number in range(50)]


def test_a_client_without_an_id_is_refused(cluster):
    with Client("", V31) as nobody, pytest.raises(Refused) as refused:
        # Paho makes one up.
        nobody.paho._client_id = b""
        nobody.connect(cluster.nodes[0])
    assert refused.value.code.value == ID_REFUSED


def test_a_refused_filter_closes_because_a_suback_can_not_say_no(cluster, topic):
    with Client(f"s-{topic}", V31) as reader:
        reader.connect(cluster.nodes[0])
        reader.paho.subscribe("/".join(["deep"] * 100), 1)
        reader.wait_ended()
