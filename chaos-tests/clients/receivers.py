"""Every way in which a device receives mail, alike: `next()` and `settle(op, id)`, on one connection to one node.

What the network or the node broke is an `OSError`: whoever drives a receiver comes again, to another node. What the
cluster refused is `Refused`. Used by test_mailbox_matrix.py.
"""

import contextlib
import http.client
import json
import os
import queue
import socket
import ssl
import struct
import subprocess
import time
import uuid

import paho.mqtt.client as mqtt

# Until a node that lives has answered, however busy the machine is.
ANSWER_S = 20
# How long to listen for a push before asking.
PUSH_S = 1
POLL_S = 0.05


class Refused(Exception):
    """The cluster said no: not now, or not this mail."""


class Http:
    """Polls `GET /v1/mailbox/next`."""

    def __init__(self, device, node):
        self.headers = {
            "X-Fleet-ID": device.fleet,
            "X-Device-ID": device.name,
            "X-Device-Secret": device.secret,
            "Connection": "close",
        }
        self.node = node

    def _connection(self):
        if self.node.https:
            context = ssl.create_default_context(cafile=self.node.ca)
            return http.client.HTTPSConnection(self.node.https, timeout=ANSWER_S, context=context)
        return http.client.HTTPConnection(self.node.http, timeout=ANSWER_S)

    def _ask(self, method, path):
        connection = self._connection()
        try:
            connection.request(method, path, headers=self.headers)
            answer = connection.getresponse()
            text = answer.read()
        except http.client.HTTPException as error:
            raise ConnectionError(error) from error
        finally:
            connection.close()
        if answer.status >= 400:
            raise Refused(f"{answer.status} {text}")
        return json.loads(text) if text else None

    def next(self):
        deadline = time.monotonic() + ANSWER_S
        while time.monotonic() < deadline:
            mail = self._ask("GET", "/v1/mailbox/next")
            if mail:
                return mail["id"]
            time.sleep(POLL_S)
        raise TimeoutError("no mail")

    def settle(self, op, mail_id):
        self._ask("PUT", f"/v1/mailbox/{op}/{mail_id}")

    def close(self):
        pass


class Sse(Http):
    """Fetches when the stream of server-sent events says that there is mail, and until there is none."""

    def __init__(self, device, node):
        super().__init__(device, node)
        self.stream = self._connection()
        try:
            self.stream.request("GET", "/v1/events", headers=self.headers | {"Accept": "text/event-stream"})
            self.lines = self.stream.getresponse()
            if self.lines.status != 200:
                raise Refused(f"{self.lines.status} {self.lines.read()}")
        except http.client.HTTPException as error:
            raise ConnectionError(error) from error
        self.more = False

    def next(self):
        while True:
            if not self.more:
                self._await_news()
            mail = self._ask("GET", "/v1/mailbox/next")
            if mail:
                return mail["id"]
            self.more = False

    def _await_news(self):
        try:
            for line in self.lines:
                if line.strip() == b"event: new_mail":
                    self.more = True
                    return
        except http.client.HTTPException as error:
            raise ConnectionError(error) from error
        raise ConnectionError("the stream of events has ended")

    def close(self):
        self.stream.close()


class Mqtt:
    """Waits for the push on `mailbox/mail`, and asks with `mailbox/next` when none comes."""

    transport = "tcp"

    def __init__(self, device, node):
        self.mails, self.said = queue.Queue(), queue.Queue()
        self.errors = queue.Queue()
        self.client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2,
            client_id="JSON",
            transport=self.transport,
            protocol=mqtt.MQTTv311,
            reconnect_on_failure=False,
        )
        self.client.username_pw_set(f"{device.fleet}::{device.name}", device.secret)
        self.client.on_message = self._heard
        self.client.on_connect = lambda _, __, ___, reason, ____: self.said.put(("connected", reason.value))
        self.client.on_subscribe = lambda *_: self.said.put(("subscribed", 0))
        self.client.on_disconnect = lambda *_: self._gone()
        if node.ca:
            self.client.tls_set(ca_certs=node.ca)
        host, port = self._address(node).rsplit(":", 1)
        self.client.connect(host, int(port), keepalive=30)
        self.client.loop_start()
        try:
            self._told("connected")
            self.client.subscribe([("mailbox/mail", 1), ("resp/#", 1)])
            self._told("subscribed")
        except BaseException:
            self.close()
            raise

    def _address(self, node):
        return node.mqtts or node.mqtt

    def _heard(self, _, __, message):
        heard = json.loads(message.payload)
        if message.topic == "mailbox/mail":
            if heard["id"]:
                self.mails.put(heard["id"])
        else:
            self.errors.put(heard)

    def _gone(self):
        self.said.put(("gone", 0))
        self.mails.put(None)

    def _told(self, what):
        try:
            told, code = self.said.get(timeout=ANSWER_S)
        except queue.Empty as error:
            raise TimeoutError(what) from error
        if (told, code) != (what, 0):
            raise ConnectionError(f"{told} {code}, not {what}")

    def _publish(self, topic):
        try:
            sent = self.client.publish(topic, qos=1)
            deadline = time.monotonic() + ANSWER_S
            # In pieces, since a connection that ends does not wake it.
            while not sent.is_published():
                if not self.client.is_connected() or time.monotonic() > deadline:
                    raise ConnectionError(f"{topic} was not acknowledged")
                sent.wait_for_publish(POLL_S)
        except (RuntimeError, ValueError) as error:
            raise ConnectionError(error) from error

    def next(self):
        deadline = time.monotonic() + ANSWER_S
        while time.monotonic() < deadline:
            try:
                mail = self.mails.get(timeout=PUSH_S)
            except queue.Empty:
                self._publish("mailbox/next")
                continue
            if mail is None:
                raise ConnectionError("the connection is gone")
            return mail
        raise TimeoutError("no mail")

    def settle(self, op, mail_id):
        self._publish(f"mailbox/{op}/{mail_id}")
        # What MQTT 3.1.1 cannot say in an acknowledgement comes before it.
        with contextlib.suppress(queue.Empty):
            raise Refused(self.errors.get_nowait())

    def close(self):
        self.client.disconnect()
        self.client.loop_stop()


class Wss(Mqtt):
    """The same through a WebSocket."""

    transport = "websockets"

    def _address(self, node):
        # One port for requests and WebSockets.
        return node.https or node.http


class Moonlight:
    """Frames, as section 1.6 of the platform's description has them."""

    OPS = {"ack": 1, "reject": 2, "requeue": 3}

    def __init__(self, device, node):
        host, port = (node.moonlights or node.moonlight).rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), ANSWER_S)
        if node.moonlights:
            context = ssl.create_default_context(cafile=node.ca)
            self.socket = context.wrap_socket(self.socket, server_hostname=host)
        who = (device.fleet + device.name + device.secret).encode()
        self.socket.sendall(b"\x02\x01\x01\x02" + who)
        self.stream = self.socket.makefile("rb")
        kind, flags = self._read(2)
        if kind != 3:
            raise Refused(f"answered with {kind}")
        self.mail_waits = bool(flags & 2)
        self.transaction = 0

    def _read(self, count):
        data = self.stream.read(count)
        if len(data) < count:
            raise ConnectionError("the connection is gone")
        return data

    def _answer(self, wanted):
        """Its flags; what else comes meanwhile is news of mail."""
        while True:
            kind, flags = self._read(2)
            if kind == wanted:
                return flags
            if kind != 20:
                raise ConnectionError(f"a frame of type {kind} came")
            self.mail_waits = True

    def next(self):
        deadline = time.monotonic() + ANSWER_S
        while time.monotonic() < deadline:
            self.transaction += 1
            self.socket.sendall(struct.pack(">BBQ", 21, 0, self.transaction))
            flags = self._answer(22)
            _, size = struct.unpack(">QH", self._read(10))
            if not flags & 1:
                raise Refused("next")
            if size == 0:
                # It is pushed.
                assert self._answer(20) == 0
                continue
            mail_id = uuid.UUID(bytes=self._read(16))
            self._read(self._read(1)[0])
            self._read(struct.unpack(">I", self._read(4))[0])
            return str(mail_id)
        raise TimeoutError("no mail")

    def settle(self, op, mail_id):
        self.socket.sendall(b"\x19\x00" + uuid.UUID(mail_id).bytes + bytes([self.OPS[op]]))
        flags = self._answer(26)
        self._read(19)
        if not flags & 1:
            raise Refused(op)

    def close(self):
        self.socket.close()


class UnixConnection(http.client.HTTPConnection):
    """HTTP through a socket in the file system."""

    def __init__(self, path):
        super().__init__("agent", timeout=ANSWER_S)
        self.path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(ANSWER_S)
        self.sock.connect(self.path)


class Agent:
    """The local API of the device agent, which itself goes from node to node."""

    def __init__(self, device, node):
        self.headers = {"X-Fleet-ID": device.fleet, "X-Device-ID": device.name}
        folder = device.folder / "agent"
        self.path = folder / "agent.sock"
        nodes = ",".join(node.moonlights or node.moonlight for node in device.nodes())
        environment = os.environ | {
            "FOSTROM_FLEET_ID": device.fleet,
            "FOSTROM_DEVICE_ID": device.name,
            "FOSTROM_DEVICE_SECRET": device.secret,
            "MOORLINE_NODES": nodes,
            "MOORLINE_AGENT_DIR": str(folder),
        }
        environment |= {"MOORLINE_CA": node.ca} if node.moonlights else {"MOORLINE_PLAINTEXT": "1"}
        self.process = subprocess.Popen(
            [os.environ["MOORLINE_AGENT"], "run"], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + ANSWER_S
        while not self._listens():
            assert time.monotonic() < deadline and self.process.poll() is None, "the agent did not start"
            time.sleep(POLL_S)

    def _listens(self):
        # An agent before this one may have left its socket.
        with contextlib.suppress(OSError):
            UnixConnection(self.path).connect()
            return True

    def _ask(self, method, path):
        connection = UnixConnection(self.path)
        try:
            connection.request(method, path, headers=self.headers)
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        if answer.status >= 400:
            raise Refused(f"{answer.status} {text}")
        return answer

    def next(self):
        deadline = time.monotonic() + ANSWER_S
        while time.monotonic() < deadline:
            mail = self._ask("GET", "/mailbox/next").headers.get("X-Mail-ID")
            if mail:
                return mail
            time.sleep(POLL_S)
        raise TimeoutError("no mail")

    def settle(self, op, mail_id):
        self._ask("PUT", f"/mailbox/{op}/{mail_id}")

    def close(self):
        self.process.kill()
        self.process.wait(ANSWER_S)


ALL = {"mqtt": Mqtt, "wss": Wss, "http": Http, "sse": Sse, "moonlight": Moonlight, "agent": Agent}
