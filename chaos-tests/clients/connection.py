"""Paho with answers instead of callbacks: every call waits for what it asked for, until a deadline."""

import queue
import time

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

V31 = mqtt.MQTTv31
V311 = mqtt.MQTTv311
V5 = mqtt.MQTTv5

# Everything here is answered in milliseconds; a loaded machine takes longer.
ANSWER_S = 20
KEEP_ALIVE_S = 30


def properties(packet, **values):
    """MQTT 5 properties of a packet type: `properties("PUBLISH", MessageExpiryInterval=1)`."""
    result = Properties(getattr(PacketTypes, packet))
    for name, value in values.items():
        setattr(result, name, value)
    return result


class Refused(Exception):
    """CONNACK said no; `code` is its reason as Paho gives it to both versions."""

    def __init__(self, code):
        super().__init__(str(code))
        self.code = code


class Client:
    """One connection. Use it with `with`; leaving says goodbye."""

    def __init__(
        self,
        client_id,
        version=V311,
        durable=False,
        expiry_s=None,
        manual_ack=False,
        transport="tcp",
        port=None,
        ca=None,
    ):
        self.version = version
        self.durable = durable
        self.transport = transport
        self.port = port
        self.expiry_s = expiry_s if expiry_s is not None else (0xFFFFFFFF if durable else 0)
        options = {"clean_session": not durable} if version != V5 else {}
        self.paho = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2,
            client_id=client_id,
            protocol=version,
            manual_ack=manual_ack,
            reconnect_on_failure=False,
            transport=transport,
            **options,
        )
        if ca is not None:
            self.paho.tls_set(ca)
        self.connacks = queue.Queue()
        self.ended = queue.Queue()
        self.inbox = queue.Queue()
        self.answers = {}
        self.paho.on_connect = lambda c, u, flags, code, props: self.connacks.put((flags, code, props))
        self.paho.on_disconnect = lambda c, u, flags, code, props: self.ended.put(code)
        self.paho.on_message = lambda c, u, message: self.inbox.put(message)
        self.paho.on_publish = lambda c, u, mid, code, props: self._answer(mid, code)
        self.paho.on_subscribe = lambda c, u, mid, codes, props: self._answer(mid, codes)
        self.paho.on_unsubscribe = lambda c, u, mid, codes, props: self._answer(mid, codes)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _answer(self, mid, answer):
        self.answers.setdefault(mid, queue.Queue()).put(answer)

    def _wait(self, mid):
        answer = self.answers.setdefault(mid, queue.Queue()).get(timeout=ANSWER_S)
        del self.answers[mid]
        return answer

    def connect(self, node, **props):
        """Connects and returns (session present, CONNACK's properties). `Refused` if it says no."""
        arguments = {}
        if self.version == V5:
            props.setdefault("SessionExpiryInterval", self.expiry_s)
            arguments["properties"] = properties("CONNECT", **props)
            arguments["clean_start"] = not self.durable
        port = self.port or (node.port if self.transport == "tcp" else node.ws_port)
        self.paho.connect(node.host, port, KEEP_ALIVE_S, **arguments)
        self.paho.loop_start()
        flags, code, answer = self.connacks.get(timeout=ANSWER_S)
        if code.is_failure:
            self.paho.loop_stop()
            raise Refused(code)
        return flags.session_present, answer

    def subscribe(self, topic, qos=1):
        """Subscribes and returns what was granted, as a number."""
        _, mid = self.paho.subscribe(topic, qos)
        return self._wait(mid)[0].value

    def unsubscribe(self, topic):
        """Returns when it holds."""
        _, mid = self.paho.unsubscribe(topic)
        return self._wait(mid)

    def publish(self, topic, payload, qos=1, retain=False, **props):
        """Publishes; waits for the PUBACK or PUBCOMP, if there is one, and returns its reason as a number."""
        arguments = {"properties": properties("PUBLISH", **props)} if props else {}
        sent = self.paho.publish(topic, payload, qos, retain, **arguments)
        return self._wait(sent.mid).value if qos else None

    def publish_many(self, topic, payloads, qos=1):
        """All on their way at once; returns when each is acknowledged (QoS 1) or complete (QoS 2)."""
        sent = [self.paho.publish(topic, payload, qos) for payload in payloads]
        for message in sent:
            message.wait_for_publish(ANSWER_S)
            assert message.is_published(), "not acknowledged in time"

    def take(self, count):
        """The next messages."""
        deadline = time.monotonic() + ANSWER_S
        return [self.inbox.get(timeout=max(deadline - time.monotonic(), 0.001)) for _ in range(count)]

    def payloads(self, count):
        """Their payloads."""
        return [message.payload.decode() for message in self.take(count)]

    def hears_nothing(self, seconds):
        """Nothing comes for so long."""
        try:
            message = self.inbox.get(timeout=seconds)
        except queue.Empty:
            return
        raise AssertionError(f"{message.payload} came on {message.topic}")

    def wait_ended(self):
        """Until the broker ends the connection; returns the reason it gave."""
        return self.ended.get(timeout=ANSWER_S)

    def break_off(self):
        """Goes without a goodbye, as a device does that loses its power."""
        self.paho.loop_stop()
        sock = self.paho.socket()
        if sock is not None:
            sock.close()

    def go_on(self, node):
        """Connects again, to any node, with what it remembers of its session."""
        self.paho.loop_stop()
        present, _ = self.connect(node)
        assert present

    def close(self):
        """Says goodbye."""
        self.paho.disconnect()
        self.paho.loop_stop()


def traffic(cluster, topic):
    """A little of everything, so that counters with labels have been counted."""
    for node in cluster.nodes:
        with Client(f"{node.id}-{topic}", durable=True) as client:
            client.connect(node)
            client.subscribe(topic)
            client.publish(topic, "hello")
            client.payloads(1)
            client.publish(topic, "hello", 0)
