"""Paho's Python client, MQTT 3.1.1 and 5, against three nodes. Test names are claims."""

import threading
import time

import pytest
from connection import ANSWER_S, V5, V311, Client, properties
from paho.mqtt.subscribeoptions import SubscribeOptions

BOTH = pytest.mark.parametrize("version", [V311, V5], ids=["v311", "v5"])

TAKEN_OVER = 0x8E
NO_MATCHING_SUBSCRIBERS = 0x10

# Enough to need several frames and log entries.
MANY = 300


def numbers(count, prefix=""):
    return [f"{prefix}{number}" for number in range(count)]


@BOTH
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_message_reaches_a_subscriber_on_another_node(cluster, topic, version, qos):
    one, _, three = cluster.nodes
    with Client(f"s-{topic}", version) as reader, Client(f"p-{topic}", version) as writer:
        reader.connect(three)
        writer.connect(one)
        assert reader.subscribe(topic, qos) == qos
        writer.publish(topic, "hello", qos)
        (message,) = reader.take(1)
        assert (message.topic, message.payload, message.qos) == (topic, b"hello", qos)
        assert not message.retain and not message.dup


@BOTH
def test_the_lower_qos_wins(cluster, topic, version):
    with Client(f"s-{topic}", version) as reader, Client(f"p-{topic}", version) as writer:
        reader.connect(cluster.nodes[1])
        writer.connect(cluster.nodes[0])
        reader.subscribe(topic, 0)
        writer.publish(topic, "hello", 1)
        assert reader.take(1)[0].qos == 0


@BOTH
def test_every_qos_is_granted(cluster, topic, version):
    with Client(f"s-{topic}", version) as reader:
        reader.connect(cluster.nodes[0])
        for qos in [0, 1, 2]:
            assert reader.subscribe(f"{topic}/{qos}", qos) == qos


@BOTH
def test_qos_2_stays_in_order_across_nodes(cluster, topic, version):
    one, two, three = cluster.nodes
    with (
        Client(f"s-{topic}", version, durable=True) as reader,
        Client(f"l-{topic}", version) as live,
        Client(f"p-{topic}", version) as writer,
    ):
        reader.connect(one)
        live.connect(two)
        writer.connect(three)
        assert reader.subscribe(topic, 2) == live.subscribe(topic, 2) == 2
        writer.publish_many(topic, numbers(MANY), 2)
        for client in [reader, live]:
            heard = client.take(MANY)
            assert [message.payload.decode() for message in heard] == numbers(MANY)
            assert all(message.qos == 2 and not message.dup for message in heard)


@BOTH
def test_qos_2_is_heard_once_by_a_client_that_loses_its_connections(cluster, topic, version):
    nodes = cluster.nodes
    reader = Client(f"s-{topic}", version, durable=True)
    reader.connect(nodes[0])
    reader.subscribe(topic, 2)
    with Client(f"p-{topic}", version) as writer:
        writer.connect(nodes[1])
        heard = []
        for turn in range(6):
            writer.publish_many(topic, numbers(20, f"{turn} "), 2)
            heard += reader.payloads(10)
            # In the middle of some flows; Paho keeps its packet ids and goes on elsewhere.
            reader.break_off()
            reader.go_on(nodes[(turn + 1) % len(nodes)])
        while len(heard) < 120:
            heard += reader.payloads(1)
        writer.publish(topic, "end", 2)
        assert reader.payloads(1) == ["end"], "nothing comes again"
    reader.close()
    assert heard == [f"{turn} {number}" for turn in range(6) for number in range(20)]


@BOTH
def test_wildcards_match_levels(cluster, topic, version):
    filters = [f"{topic}/+/x", f"{topic}/a/#", "#"]
    table = [
        (f"{topic}/a/x", [True, True, True]),
        (f"{topic}/b/x", [True, False, True]),
        (f"{topic}/a", [False, True, True]),
        (f"{topic}/a/b/c", [False, True, True]),
        (f"{topic}//x", [True, False, True]),
        (f"{topic}/b/x/y", [False, False, True]),
        (f"$private/{topic}", [False, False, False]),
    ]
    for column, pattern in enumerate(filters):
        with Client(f"s{column}-{topic}", version) as reader, Client(f"p-{topic}", version) as writer:
            reader.connect(cluster.nodes[2])
            writer.connect(cluster.nodes[0])
            reader.subscribe(pattern)
            reader.subscribe(f"{topic}/end/of/it")
            for name, _ in table:
                writer.publish(name, name)
            writer.publish(f"{topic}/end/of/it", "end")
            expected = [name for name, matches in table if matches[column]]
            heard = []
            while not heard or heard[-1] != "end":
                # `#` on a shared cluster also hears other tests' last messages.
                heard += [text for text in reader.payloads(1) if topic in text or text == "end"]
            assert heard[:-1] == expected, pattern


@BOTH
def test_a_durable_session_finds_what_it_missed_on_another_node(cluster, topic, version):
    one, two, three = cluster.nodes
    with Client(f"s-{topic}", version, durable=True) as reader:
        present, _ = reader.connect(one)
        assert not present
        reader.subscribe(topic)
    with Client(f"p-{topic}", version) as writer:
        writer.connect(two)
        writer.publish_many(topic, numbers(MANY))
    with Client(f"s-{topic}", version, durable=True) as reader:
        present, _ = reader.connect(three)
        assert present
        assert reader.payloads(MANY) == numbers(MANY)


@BOTH
def test_a_clean_start_ends_the_session_before(cluster, topic, version):
    with Client(f"s-{topic}", version, durable=True) as reader:
        reader.connect(cluster.nodes[0])
        reader.subscribe(topic)
    with Client(f"s-{topic}", version) as reader:
        present, _ = reader.connect(cluster.nodes[1])
        assert not present
    with Client(f"s-{topic}", version, durable=True) as reader:
        present, _ = reader.connect(cluster.nodes[2])
        assert not present


@BOTH
def test_the_newer_connection_takes_the_session_over(cluster, topic, version):
    one, _, three = cluster.nodes
    with Client(f"s-{topic}", version, durable=True) as older:
        older.connect(one)
        older.subscribe(topic)
        with Client(f"s-{topic}", version, durable=True) as newer:
            present, _ = newer.connect(three)
            assert present
            reason = older.wait_ended()
            if version == V5:
                assert reason.value == TAKEN_OVER
            newer.publish(topic, "for the newer")
            assert newer.payloads(1) == ["for the newer"]
            assert older.inbox.empty()


@BOTH
def test_what_was_not_acknowledged_comes_again_in_order(cluster, topic, version):
    one, two, _ = cluster.nodes
    with Client(f"p-{topic}", version) as writer:
        writer.connect(one)
        reader = Client(f"s-{topic}", version, durable=True, manual_ack=True)
        reader.connect(one)
        reader.subscribe(topic)
        writer.publish_many(topic, numbers(5))
        first = reader.take(5)
        reader.break_off()
    with Client(f"s-{topic}", version, durable=True) as reader:
        reader.connect(two)
        again = reader.take(5)
    assert [message.payload for message in again] == [message.payload for message in first]
    assert [message.mid for message in again] == [message.mid for message in first]
    assert all(message.dup for message in again)


@BOTH
def test_an_acknowledged_message_does_not_come_again(cluster, topic, version):
    one, two, three = cluster.nodes
    with Client(f"p-{topic}", version) as writer:
        writer.connect(one)
        with Client(f"s-{topic}", version, durable=True) as reader:
            reader.connect(two)
            reader.subscribe(topic)
            writer.publish(topic, "first")
            assert reader.payloads(1) == ["first"]
        # The next CONNECT goes to another node, and nothing orders it behind this connection's last PUBACK.
        cluster.wait_settled(f"s-{topic}")
        with Client(f"s-{topic}", version, durable=True) as reader:
            reader.connect(three)
            writer.publish(topic, "second")
            assert reader.payloads(1) == ["second"]


@BOTH
def test_an_unsubscribed_filter_is_silent(cluster, topic, version):
    with Client(f"s-{topic}", version) as reader, Client(f"p-{topic}", version) as writer:
        reader.connect(cluster.nodes[1])
        writer.connect(cluster.nodes[2])
        reader.subscribe(f"{topic}/a")
        reader.subscribe(f"{topic}/b")
        reader.unsubscribe(f"{topic}/a")
        writer.publish(f"{topic}/a", "unheard")
        writer.publish(f"{topic}/b", "heard")
        assert reader.payloads(1) == ["heard"]


@BOTH
def test_publishers_on_all_nodes_stay_in_order(cluster, topic, version):
    with Client(f"s-{topic}", version, durable=True) as reader:
        reader.connect(cluster.nodes[0])
        reader.subscribe(f"{topic}/+")

        def write(name, node):
            with Client(f"p{name}-{topic}", version) as writer:
                writer.connect(node)
                writer.publish_many(f"{topic}/{name}", numbers(MANY, f"{name} "))

        writers = [threading.Thread(target=write, args=pair) for pair in enumerate(cluster.nodes)]
        for writer in writers:
            writer.start()
        heard = reader.payloads(MANY * len(writers))
        for writer in writers:
            writer.join()
        for name in range(len(writers)):
            assert [text for text in heard if text.startswith(f"{name} ")] == numbers(MANY, f"{name} ")


@BOTH
def test_large_and_empty_payloads_arrive_whole(cluster, topic, version):
    payloads = [b"", bytes(range(256)) * 200, b"\x00"]
    with Client(f"s-{topic}", version, durable=True) as reader, Client(f"p-{topic}", version) as writer:
        reader.connect(cluster.nodes[1])
        writer.connect(cluster.nodes[0])
        reader.subscribe(topic)
        for payload in payloads:
            writer.publish(topic, payload)
        assert [message.payload for message in reader.take(len(payloads))] == payloads


def test_properties_travel_unchanged(cluster, topic):
    sent = {
        "PayloadFormatIndicator": 1,
        "ContentType": "application/json",
        "ResponseTopic": f"{topic}/answer",
        "CorrelationData": b"\x00\xff\x01",
        "UserProperty": [("a", "1"), ("b", ""), ("a", "2")],
    }
    one, two, three = cluster.nodes
    with Client(f"live-{topic}", V5) as live, Client(f"kept-{topic}", V5, durable=True) as kept:
        for reader, node in [(live, two), (kept, three)]:
            reader.connect(node)
            reader.subscribe(topic)
        with Client(f"p-{topic}", V5) as writer:
            writer.connect(one)
            writer.publish(topic, "{}", **sent)
        for reader in [live, kept]:
            received = reader.take(1)[0].properties
            assert {name: getattr(received, name) for name in sent} == sent


def test_an_expired_message_is_not_delivered_and_another_says_what_is_left(cluster, topic):
    with Client(f"s-{topic}", V5, durable=True) as reader:
        reader.connect(cluster.nodes[0])
        reader.subscribe(topic)
    with Client(f"p-{topic}", V5) as writer:
        writer.connect(cluster.nodes[1])
        writer.publish(topic, "short", MessageExpiryInterval=1)
        writer.publish(topic, "long", MessageExpiryInterval=600)
        # Time itself is what is tested here.
        time.sleep(2.5)
    with Client(f"s-{topic}", V5, durable=True) as reader:
        reader.connect(cluster.nodes[2])
        (message,) = reader.take(1)
        assert message.payload == b"long"
        assert 540 <= message.properties.MessageExpiryInterval <= 599


def test_an_expired_session_is_gone(cluster, topic):
    with Client(f"s-{topic}", V5, durable=True, expiry_s=1) as reader:
        reader.connect(cluster.nodes[0])
        reader.subscribe(topic)
    # Time itself is what is tested here.
    time.sleep(4)
    with Client(f"s-{topic}", V5, durable=True, expiry_s=1) as reader:
        present, _ = reader.connect(cluster.nodes[1])
        assert not present


def test_an_absent_client_id_is_made_up(cluster):
    with Client("", V5) as one, Client("", V5) as two:
        _, first = one.connect(cluster.nodes[0])
        _, second = two.connect(cluster.nodes[0])
        assert first.AssignedClientIdentifier != second.AssignedClientIdentifier


def test_a_publish_that_nobody_wants_says_so(cluster, topic):
    with Client(f"p-{topic}", V5) as writer:
        writer.connect(cluster.nodes[0])
        assert writer.publish(topic, "hello") == NO_MATCHING_SUBSCRIBERS
        writer.subscribe(topic)
        assert writer.publish(topic, "hello") == 0


def test_no_more_than_the_receive_maximum_is_in_flight(cluster, topic):
    with Client(f"s-{topic}", V5, durable=True, manual_ack=True) as reader:
        reader.connect(cluster.nodes[0], ReceiveMaximum=2)
        reader.subscribe(topic)
        reader.subscribe(f"{topic}/marker", 0)
        with Client(f"p-{topic}", V5) as writer:
            writer.connect(cluster.nodes[1])
            writer.publish_many(topic, numbers(4))
            first = reader.take(2)
            # QoS 0 needs no place in the window: it overtakes what waits.
            writer.publish(f"{topic}/marker", "marker", 0)
            assert reader.payloads(1) == ["marker"]
        for message in first:
            reader.paho.ack(message.mid, message.qos)
        heard = [message.payload.decode() for message in first] + reader.payloads(2)
        assert heard == numbers(4)


def test_no_limit_of_qos_or_retained_messages_is_announced(cluster):
    with Client("", V5) as client:
        _, answer = client.connect(cluster.nodes[0])
        for name in ["MaximumQoS", "RetainAvailable"]:
            assert getattr(answer, name, None) is None, name


@BOTH
def test_nothing_accepted_is_lost_when_a_node_is_killed(cluster, topic, version):
    one, two, three = cluster.nodes
    reader = Client(f"s-{topic}", version, durable=True)
    reader.connect(two)
    reader.subscribe(topic)
    with Client(f"p-{topic}", version) as writer:
        writer.connect(one)
        writer.publish_many(topic, numbers(MANY, "before "))
        cluster.kill(two)
        writer.publish_many(topic, numbers(MANY, "after "))
    reader.break_off()
    heard = set()
    while not reader.inbox.empty():
        heard.add(reader.inbox.get().payload.decode())
    expected = numbers(MANY, "before ") + numbers(MANY, "after ")
    with Client(f"s-{topic}", version, durable=True) as reader:
        present, _ = reader.connect(three)
        assert present
        rest = []
        while not rest or rest[-1] != expected[-1]:
            rest += reader.payloads(1)
    # What came again came in order, and nothing is missing.
    assert rest == expected[len(expected) - len(rest) :]
    assert heard | set(rest) == set(expected)
    cluster.wait_restarted(two)


def take_all(clients, count, quiet_s=1):
    """What they hear until `count` messages came and no more do, by client."""
    heard = {client: [] for client in clients}
    deadline = time.monotonic() + ANSWER_S
    last = time.monotonic()
    while sum(map(len, heard.values())) < count or time.monotonic() < last + quiet_s:
        assert time.monotonic() < deadline, {len(messages) for messages in heard.values()}
        for client, messages in heard.items():
            while not client.inbox.empty():
                messages.append(client.inbox.get())
                last = time.monotonic()
        time.sleep(0.01)
    return heard


@BOTH
def test_members_of_a_share_take_turns_across_nodes(cluster, topic, version):
    one, two, three = cluster.nodes
    with (
        Client(f"a-{topic}", version) as first,
        Client(f"b-{topic}", version, durable=True) as second,
        Client(f"p-{topic}", version) as writer,
    ):
        for client, node in ((first, one), (second, two), (writer, three)):
            client.connect(node)
        for client in (first, second):
            assert client.subscribe(f"$share/turns/{topic}", 2) == 1
        writer.publish_many(topic, numbers(MANY))
        heard = take_all((first, second), MANY)
        payloads = [message.payload.decode() for messages in heard.values() for message in messages]
        assert sorted(payloads) == sorted(numbers(MANY)), "each to one of them"
        assert all(messages for messages in heard.values())
        second.unsubscribe(f"$share/turns/{topic}")
        writer.publish_many(topic, numbers(20))
        assert first.payloads(20)


@BOTH
def test_a_member_that_is_away_strands_nothing(cluster, topic, version):
    one, two, three = cluster.nodes
    share = f"$share/away/{topic}"
    with Client(f"p-{topic}", version) as writer:
        writer.connect(three)
        with Client(f"a-{topic}", version, durable=True) as away:
            away.connect(one)
            away.subscribe(share)
        with Client(f"b-{topic}", version, durable=True) as there:
            there.connect(two)
            there.subscribe(share)
            writer.publish_many(topic, numbers(100))
            assert sorted(there.payloads(100)) == sorted(numbers(100))
        writer.publish_many(topic, numbers(50, "x"))
        with Client(f"a-{topic}", version, durable=True) as back:
            present, _ = back.connect(two)
            assert present
            assert sorted(back.payloads(50)) == sorted(numbers(50, "x"))
            back.unsubscribe(share)
        with Client(f"b-{topic}", version, durable=True) as back:
            back.connect(one)
            back.unsubscribe(share)


def test_the_lower_qos_wins_in_a_share_too(cluster, topic):
    with Client(f"s-{topic}", V5) as reader, Client(f"p-{topic}", V5) as writer:
        reader.connect(cluster.nodes[0])
        writer.connect(cluster.nodes[1])
        assert reader.subscribe(f"$share/low/{topic}", 0) == 0
        assert writer.publish(topic, "one", 1) == 0
        writer.publish(topic, "zero", 0)
        assert [message.qos for message in reader.take(2)] == [0, 0]


@pytest.mark.parametrize("durable", [False, True], ids=["clean", "durable"])
def test_subscription_identifiers_no_local_and_retain_as_published(cluster, topic, durable):
    with Client(f"s-{topic}", V5, durable) as reader, Client(f"p-{topic}", V5) as writer:
        reader.connect(cluster.nodes[0])
        writer.connect(cluster.nodes[1])

        def subscribe(name, identifier, **options):
            _, mid = reader.paho.subscribe(
                name,
                options=SubscribeOptions(qos=1, **options),
                properties=properties("SUBSCRIBE", SubscriptionIdentifier=identifier),
            )
            assert reader._wait(mid)[0].value == 1

        subscribe(f"{topic}/+", 7, noLocal=True)
        subscribe(f"{topic}/#", 9, noLocal=True)
        assert reader.publish(f"{topic}/a", "own", 1) == NO_MATCHING_SUBSCRIBERS
        writer.publish(f"{topic}/a", "of another", 1)
        (message,) = reader.take(1)
        assert message.payload == b"of another"
        assert sorted(message.properties.SubscriptionIdentifier) == [7, 9]
        subscribe(f"{topic}/#", 9)
        reader.publish(f"{topic}/a", "own again", 1)
        (message,) = reader.take(1)
        assert (message.payload, message.properties.SubscriptionIdentifier) == (b"own again", [9])


def test_no_local_on_a_shared_filter_is_a_protocol_error(cluster, topic):
    with Client(f"s-{topic}", V5) as reader:
        reader.connect(cluster.nodes[0])
        reader.paho.subscribe(f"$share/g/{topic}", options=SubscribeOptions(qos=1, noLocal=True))
        assert reader.wait_ended().value == 0x82
