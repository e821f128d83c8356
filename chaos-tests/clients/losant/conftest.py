"""What all tests of Losant share: one application in a cluster, its integrator, and devices of the vendor's SDK."""

import losantmqtt
import pytest
from application import APP, ATTRIBUTES, KEY, SECRET, Application, lead, wait_for
from losant_rest import Client


def integrator(application, scheme="http"):
    client = Client(url=f"{scheme}://{application.http}")
    client.auth_token = application.integrator
    key = {"key": KEY, "secret": SECRET, "filterType": "all"}
    client.application_keys.post(applicationId=APP, applicationKey=key)
    return client


@pytest.fixture(scope="session")
def application(cluster):
    """There can be no second tenant of its name."""
    node = cluster.nodes[0]
    return Application(node.admin, node.http, cluster.token)


@pytest.fixture(scope="session")
def rest(application):
    """The REST API, as whoever manages the application."""
    return integrator(application)


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
        # And the subscription to its commands, which the SDK does not wait for.
        for _ in range(5):
            self.device.loop(0.05)

    def until(self, condition):
        def look():
            self.device.loop(0.05)
            return condition()

        return wait_for(look)


@pytest.fixture
def connected(monkeypatch):
    """Connects devices to a node, and disconnects them when the test is over."""
    devices = []
    monkeypatch.setattr(losantmqtt.Device, "mqtt_endpoint", "localhost")

    def connect(where, device, secret=SECRET, **how):
        lead(monkeypatch, where)
        one = Connected(device, secret, **how)
        one.connect()
        devices.append(one)
        return one

    yield connect
    for one in devices:
        one.device.close()
        one.until(lambda one=one: "close" in one.events)
