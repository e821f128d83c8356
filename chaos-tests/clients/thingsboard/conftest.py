"""What all tests of ThingsBoard share: one tenant in a cluster, a user of its REST API, and devices of the vendor's SDK."""

import pytest
from plant import Plant
from tb_device_mqtt import TBDeviceMqttClient
from tb_rest_client.rest_client import RestClient
from waiting import wait_for


@pytest.fixture(scope="session")
def plant(cluster):
    """There can be no second tenant of its name."""
    return Plant(cluster.nodes[0].admin, cluster.token)


@pytest.fixture(scope="session")
def secure_plant(secure):
    """The same in the node that listens with TLS."""
    return Plant(secure.admin)


@pytest.fixture(scope="module")
def password(plant, request):
    """A user's: a token of the API. Each module has its own."""
    token = {"name": request.module.__name__.replace("_", "-"), "role": "operator"}
    return plant.ask("POST", "/tokens?tenant=plant", token)["token"]


@pytest.fixture
def user(cluster, password):
    """A user who is logged in."""
    with RestClient(f"http://{cluster.nodes[0].http}") as client:
        client.login("tenant@example.com", password)
        yield client


@pytest.fixture
def connected():
    """Connects devices, and disconnects them when the test is over."""
    clients = []

    def connect(node, token, made=TBDeviceMqttClient, called=None, secure=False, **how):
        """`called` answers calls; `how` is what the SDK's client is made with."""
        # A certificate is for a name.
        host, port = ("localhost", node.mqtts_port) if secure else (node.host, node.port)
        client = made(host, port, token, **how)
        clients.append(client)
        if called:
            # Before it connects: it acknowledges what comes whether anybody listens or not.
            client.set_server_side_rpc_request_handler(lambda number, call: client.send_rpc_reply(number, called(call)))
        client.connect(**({"tls": True, "ca_certs": node.ca} if secure else {}))
        # Connected, and told of its limits: only then it sends.
        wait_for("not connected", lambda: client.is_connected() and client.rate_limits_received)
        return client

    yield connect
    for client in clients:
        client.disconnect()
        client.stop()
