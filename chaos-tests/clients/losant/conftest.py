"""What all tests of Losant share: three nodes under the platform's names and ports, one application, and devices of the vendor's SDK.

They run in a network of their own, where the names in `hosts` lead to the nodes: `scripts/verify clients` makes it. The SDKs are as the
vendor has them: what is said to them is whom to trust, and nothing else.
"""

import os
import socket

import losantmqtt
import losantmqtt.device
import pytest
from application import APP, ATTRIBUTES, KEY, SECRET, Application
from losant_rest import Client
from nodes import Nodes, is_private
from waiting import wait_for


@pytest.fixture(scope="session")
def nodes(tmp_path_factory):
    if not is_private():
        outcome = pytest.fail if os.environ.get("MOORLINE_STRICT") else pytest.skip
        outcome("not in a network of its own, where broker.losant.com is this machine: that needs root")
    running = Nodes(tmp_path_factory.mktemp("losant"))
    # What `requests` takes for its authorities.
    os.environ["REQUESTS_CA_BUNDLE"] = running.ca
    yield running
    running.stop()


@pytest.fixture(scope="session")
def application(nodes):
    return Application(nodes.admin)


@pytest.fixture(scope="session")
def rest(application):
    """The REST API, as whoever manages the application."""
    client = Client()
    client.auth_token = application.integrator
    key = {"key": KEY, "secret": SECRET, "filterType": "all"}
    client.application_keys.post(applicationId=APP, applicationKey=key)
    return client


@pytest.fixture
def made(rest):
    """Makes devices."""

    def make(name, **more):
        device = {"name": name, "attributes": ATTRIBUTES} | more
        return rest.devices.post(applicationId=APP, device=device)["deviceId"]

    return make


class Connected:
    """A device of the SDK, and what it heard."""

    def __init__(self, device, secret=SECRET, **how):
        self.events, self.commands = [], []
        self.device = losantmqtt.Device(device, KEY, secret, **how)
        for event in ("connect", "reconnect", "close"):
            self.device.add_event_observer(event, lambda _, event=event: self.events.append(event))
        self.device.add_event_observer("command", lambda _, command: self.commands.append(command))

    def connect(self):
        self.device.connect(blocking=False)
        self.until(lambda: "connect" in self.events)
        self.settled()

    def settled(self):
        """Until the subscription to its commands is answered, which the SDK does not wait for."""
        subscribed = []
        self.client.on_subscribe = lambda *_: subscribed.append(True)
        # Once more: who asked for the first one has its answer then, too.
        self.client.subscribe(f"losant/{self.device._device_id}/command")
        self.until(lambda: subscribed)

    @property
    def client(self):
        """The client of MQTT that the SDK has."""
        return self.device._mqtt_client

    @property
    def peer(self):
        """Address and port of the node that it is connected to."""
        # What its client has by WebSocket is no socket, but knows the number of one.
        with socket.socket(fileno=os.dup(self.client.socket().fileno())) as same:
            return same.getpeername()

    def until(self, condition):
        def look():
            self.device.loop(0.05)
            return condition()

        return wait_for("it is not so", look)


@pytest.fixture
def connected(nodes, monkeypatch):
    """Connects devices, and disconnects them when the test is over."""
    devices = []
    monkeypatch.setattr(losantmqtt.device, "ROOT_CA_PATH", nodes.ca)

    def connect(device, secret=SECRET, **how):
        one = Connected(device, secret, **how)
        one.connect()
        devices.append(one)
        return one

    yield connect
    for one in devices:
        one.device.close()
        one.until(lambda one=one: "close" in one.events)
