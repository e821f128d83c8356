"""MQTT over WebSocket as devices of Drogue and of Losant ask for it: by any path, with Paho, MQTT.js and curl, without and with TLS."""

import importlib.util
import os
import shutil
import socket
import ssl
import subprocess
import urllib.request
from pathlib import Path

import pytest
from connection import V5, V311
from plant import APP, Device, Plant, password
from transcript import hear

CLIENTS = Path(__file__).parent.parent
# What SDKs of the two ask for, and what nobody does.
PATHS = ["/", "/mqtt", "/any/path", "/mqtt?x=1", "/v1/telemetry", "/.well-known/drogue-endpoints"]
ANSWER_S, WAIT_S, INSTALL_S = 20, 60, 180
DEVICE = "websocket"
# Of RFC 6455: what this key is answered with.
KEY, ACCEPT = "dGhlIHNhbXBsZSBub25jZQ==", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def losant():
    """How an application of Losant's is made, which its own tests know."""
    spec = importlib.util.spec_from_file_location("losant_application", CLIENTS / "losant" / "application.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def losant_device(admin, http, token, ca=None):
    """A device of Losant's: client id, user name and password."""
    of = losant()
    application = of.Application(admin, http, token)
    scheme, context = ("https", ssl.create_default_context(cafile=ca)) if ca else ("http", None)

    def ask(path, body):
        headers = {"Authorization": f"Bearer {application.integrator}", "Content-Type": "application/json"}
        request = urllib.request.Request(f"{scheme}://{http}/applications/{of.APP}{path}", of.json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=ANSWER_S, context=context) as answer:
            return of.json.load(answer)

    ask("/keys", {"key": of.KEY, "secret": of.SECRET, "filterType": "all"})
    device = ask("/devices", {"name": DEVICE, "attributes": of.ATTRIBUTES})["deviceId"]
    return device, of.KEY, of.SECRET


class Where:
    """A node, a port of it for WebSocket, and devices of both platforms that it knows."""

    def __init__(self, node, port, ca, key, drogue, losant):
        self.host, self.port, self.ca = "localhost", port, ca
        self.node, self.key, self.drogue, self.losant = node, key, drogue, losant
        self.scheme = "wss" if ca else "ws"

    def device(self, platform, version=V311):
        """A connection of Paho's, not connected yet; and a topic that such a device may publish to."""
        how = {"transport": "websockets", "port": self.port, "ca": self.ca}
        if platform == "drogue":
            return Device(*self.drogue, version, **how), "telemetry"
        name, key, secret = self.losant
        client = Device(key, secret, version, client_id=name, **how)
        return client, f"losant/{name}/state"


@pytest.fixture(scope="session")
def plain(cluster, plant):
    """A node without TLS."""
    node = cluster.nodes[0]
    plant.device(DEVICE, password("pw"))
    drogue, losants = (f"{DEVICE}@{APP}", "pw"), losant_device(node.admin, node.http, cluster.token)
    return Where(node, node.ws_port, None, plant.key, drogue, losants)


@pytest.fixture(scope="session")
def beside(cluster, plain):
    """The port of the same that speaks HTTP, too."""
    return Where(plain.node, int(plain.node.http.rsplit(":", 1)[1]), None, plain.key, plain.drogue, plain.losant)


@pytest.fixture(scope="session")
def encrypted(secure):
    """A node with TLS."""
    https = f"localhost:{secure.https_port}"
    of = Plant(secure)
    of.ask("POST", "/devices?tenant=drogue-plant", {"name": DEVICE})
    login = {"kind": "password", "user": DEVICE, "password": "pw"}
    of.ask("POST", f"/devices/{DEVICE}/credentials?tenant=drogue-plant", login)
    drogue, losants = (f"{DEVICE}@{APP}", "pw"), losant_device(secure.admin, https, of.token, secure.ca)
    return Where(secure, secure.wss_port, secure.ca, of.key, drogue, losants)


@pytest.fixture(params=["plain", "beside", pytest.param("encrypted", marks=pytest.mark.needs("openssl"))])
def where(request):
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("platform, version", [("drogue", V311), ("drogue", V5), ("losant", V311)])
@pytest.mark.parametrize("path", PATHS)
def test_paho_is_served_on_any_path(where, platform, version, path):
    client, topic = where.device(platform, version)
    client.paho.ws_set_options(path=path)
    with client:
        client.connect(where)
        assert client.publish(topic, '{"data":{"temperature":1}}') == 0


@pytest.mark.parametrize("version", [V311, V5], ids=["v311", "v5"])
@pytest.mark.parametrize("path", PATHS)
def test_an_application_is_served_on_any_path(where, version, path):
    ops = Device("ops", where.key, version, "websocket", transport="websockets", port=where.port, ca=where.ca)
    ops.paho.ws_set_options(path=path)
    with ops:
        ops.connect(where)
        assert ops.subscribe(f"app/{APP}") == 1
        assert ops.publish(f"command/{APP}/{DEVICE}/open", "now") == 0


def shake(where, path, *headers, method="GET"):
    """What a request for a WebSocket is answered: status and headers, without what comes then."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {where.host}", "Connection: keep-alive, Upgrade", "Upgrade: websocket"]
    lines += ["Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {KEY}", *headers]
    with socket.create_connection((where.host, where.port), ANSWER_S) as plain_socket:
        stream = plain_socket
        if where.ca:
            stream = ssl.create_default_context(cafile=where.ca).wrap_socket(plain_socket, server_hostname=where.host)
        stream.sendall("\r\n".join([*lines, "", ""]).encode())
        answer = b""
        while b"\r\n\r\n" not in answer:
            more = stream.recv(4_096)
            assert more, answer
            answer += more
    status, *said = answer.partition(b"\r\n\r\n")[0].decode().split("\r\n")
    return int(status.split()[1]), {name.lower(): value for name, _, value in (line.partition(": ") for line in said)}


@pytest.mark.parametrize("path", PATHS)
def test_the_answer_names_mqtt_and_no_compression(where, path):
    offers = ["Sec-WebSocket-Protocol: mqtt", "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"]
    status, headers = shake(where, path, *offers)
    assert (status, headers["sec-websocket-protocol"], headers["sec-websocket-accept"]) == (101, "mqtt", ACCEPT)
    # Declined, which a client that offers it has to take.
    assert "sec-websocket-extensions" not in headers
    # Of several the one that is ours.
    status, headers = shake(where, path, "Sec-WebSocket-Protocol: soap, mqtt")
    assert (status, headers["sec-websocket-protocol"]) == (101, "mqtt")


def test_a_request_that_is_no_websocket_is_refused(plain, beside):
    for path in ("/mqtt", "/any/path"):
        # Where HTTP is spoken there is no such path, as at the vendor's.
        heard = hear("GET", f"http://{beside.host}:{beside.port}{path}", [], "")
        assert heard[0] == "404", path
        # Where nothing else is, the client is told what is.
        heard = hear("GET", f"http://{plain.host}:{plain.port}{path}", [], "")
        assert (heard[0], "upgrade: websocket" in heard) == ("426", True), path


# ---- MQTT.js


@pytest.fixture(scope="session")
def package(tmp_path_factory):
    """The package, installed outside the clone, with the test of this folder beside it."""
    work = os.environ.get("MOORLINE_WORK")
    folder = Path(work) / "mqttjs" if work else tmp_path_factory.mktemp("mqttjs")
    folder.mkdir(parents=True, exist_ok=True)
    for file in [*(CLIENTS / "mqttjs").iterdir(), Path(__file__).with_name("paths.mjs")]:
        shutil.copy(file, folder)
    subprocess.run(["npm", "ci", "--no-audit", "--no-fund"], cwd=folder, timeout=INSTALL_S, check=True)
    return folder


@pytest.mark.needs("npm")
@pytest.mark.needs("node")
@pytest.mark.parametrize("platform, version", [("drogue", 4), ("drogue", 5), ("losant", 4)])
def test_mqtt_js_is_served_on_any_path(where, package, platform, version):
    if platform == "drogue":
        shown, topic = ["any", *where.drogue], "telemetry"
    else:
        shown, topic = list(where.losant), f"losant/{where.losant[0]}/state"
    urls = [f"{where.scheme}://{where.host}:{where.port}{path}" for path in PATHS]
    command = ["node", "paths.mjs", str(version), topic, *shown, *urls]
    environment = os.environ | ({"MOORLINE_CA": where.ca} if where.ca else {})
    done = subprocess.run(command, cwd=package, env=environment, timeout=WAIT_S, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
