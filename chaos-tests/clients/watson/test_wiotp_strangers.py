"""Quickstart and certificates by the vendor's SDK for Python. It knows neither: of a device of quickstart it has to be told not to subscribe
to commands, and a certificate is given to the TLS that it has made. Nothing else of it is changed.
"""

import logging
import queue
import shlex
import socket
import ssl
import subprocess

import pytest
import wiotp.sdk.device
from organisation import ANSWER_S, DOMAIN, HOST, ORG
from waiting import wait_for

QUICK = "quickstart"
QUICK_HOST = f"{QUICK}.messaging.{DOMAIN}"
# How often it is looked whether a node knows something.
# Enough to be more than a second's worth.
MANY = 20


@pytest.fixture
def leads(monkeypatch):
    """Says where the names of organisations lead to, by port."""
    where = {}
    connect = socket.create_connection

    def create_connection(address, *args, **kwargs):
        host, port = address
        if host in (HOST, QUICK_HOST):
            address = ("127.0.0.1", where[port])
        return connect(address, *args, **kwargs)

    monkeypatch.setattr(socket, "create_connection", create_connection)
    return where


@pytest.fixture
def clients():
    """Clients that are connected, and go when the test is over."""
    connected = []

    def connect(client):
        client.connect()
        connected.append(client)
        return client

    yield connect
    for client in connected:
        client.disconnect()


def device(org, name, **mqtt):
    identity = {"orgId": org, "typeId": "pump", "deviceId": name}
    # The SDK wants a token of everybody.
    config = {"identity": identity, "auth": {"token": "no-token-of-anybody"}}
    config["options"] = {"domain": DOMAIN, "logLevel": logging.ERROR, "mqtt": {"port": 1883} | mqtt}
    return wiotp.sdk.device.DeviceClient(config)


def publish(client, data):
    """Publishes with QoS 1 and waits for the PUBACK."""
    done = queue.Queue()
    assert client.publishEvent("status", "json", data, qos=1, onPublish=lambda: done.put(True))
    done.get(timeout=ANSWER_S)


@pytest.fixture(scope="module")
def playground(cluster, org):
    """Quickstart, switched on, and every node knows it: before that a stranger is anybody's client."""
    org.ask("POST", "/tenants", {"name": "playground", "aliases": [f"watson:{QUICK}"]})
    wait_for(
        "a node does not hear of the tenant",
        lambda: all(org.is_known("playground", node.admin) for node in cluster.nodes),
    )


def test_a_stranger_publishes_and_another_one_looks(cluster, playground, leads, clients):
    import paho.mqtt.client as paho

    # Its applications have keys, so that one of quickstart is nobody the SDK knows: what it is made of does.
    heard, ready = queue.Queue(), queue.Queue()
    looker = paho.Client(f"a:{QUICK}:web")
    looker.on_message = lambda client, userdata, message: heard.put((message.topic, message.qos, message.payload))
    looker.on_subscribe = lambda client, userdata, mid, granted: ready.put(granted)
    looker.connect("127.0.0.1", cluster.nodes[1].port)
    looker.loop_start()
    try:
        looker.subscribe("iot-2/type/+/id/q1/evt/+/fmt/+", qos=1)
        assert ready.get(timeout=ANSWER_S) == (0,)
        leads[1883] = cluster.nodes[0].port
        pump = device(QUICK, "q1")
        pump._subscriptions.clear()
        clients(pump)
        publish(pump, {"t": 21})
        topic, qos, payload = heard.get(timeout=ANSWER_S)
        assert (topic, qos, payload) == ("iot-2/type/pump/id/q1/evt/status/fmt/json", 0, b'{"t": 21}')
        for number in range(MANY):
            publish(pump, {"n": number})
        with pytest.raises(queue.Empty):
            for _ in range(MANY):
                heard.get(timeout=1)
    finally:
        looker.disconnect()
        looker.loop_stop()


def openssl(folder, line):
    subprocess.run(["openssl", *shlex.split(line)], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def authority(tmp_path_factory, secure_org):
    """The organisation's own, by whose certificates its devices are known; and how to make them."""
    folder = tmp_path_factory.mktemp("authority")
    curve = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
    openssl(folder, f"req -x509 {curve} -keyout ca.key -out ca.pem -days 2 -subj /CN=plant -addext keyUsage=critical,keyCertSign")
    anchors = {"certificates": (folder / "ca.pem").read_text()}
    settings = {"plaintext": True, "trust-anchors": anchors}
    secure_org.ask("PATCH", "/tenants/watson", {"settings": settings})

    def issue(name, subject, alternative=None):
        names = f"subjectAltName={alternative}\n" if alternative else ""
        (folder / "extensions").write_text(f"basicConstraints=critical,CA:FALSE\nextendedKeyUsage=clientAuth\n{names}")
        openssl(folder, f"req {curve} -keyout {name}.key -out {name}.csr -subj /CN={subject}")
        openssl(folder, f"x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -out {name}.pem -extfile extensions")
        return folder / f"{name}.pem", folder / f"{name}.key"

    return issue


@pytest.fixture(scope="module")
def x1(secure_org):
    secure_org.register("pump", "x1")


@pytest.mark.parametrize("alternative", [None, "URI:d:pump:x1", "email:d:pump:x1"])
def test_a_certificate_is_a_device(secure, x1, authority, leads, clients, alternative):
    leads[8883] = secure.mqtts_port
    shown = authority("x1", "whoever" if alternative else "d:pump:x1", alternative)
    pump = device(ORG, "x1", port=8883, caFile=secure.ca)
    # As the SDK made it, with a certificate of its own.
    pump.client._ssl_context.load_cert_chain(*map(str, shown))
    clients(pump)
    publish(pump, {"t": 21})


def test_a_certificate_is_nobody_elses(secure, secure_org, authority):
    import paho.mqtt.client as paho

    secure_org.register("pump", "x2")
    cert, key = authority("x3", "d:pump:x3")
    said = queue.Queue()
    client = paho.Client(f"d:{ORG}:pump:x2")
    client.tls_set(ca_certs=secure.ca, certfile=str(cert), keyfile=str(key), tls_version=ssl.PROTOCOL_TLS_CLIENT)
    client.on_connect = lambda client, userdata, flags, rc: said.put(rc)
    client.on_disconnect = lambda client, userdata, rc: said.put("gone")
    client.connect("localhost", secure.mqtts_port)
    client.loop_start()
    try:
        assert said.get(timeout=ANSWER_S) == "gone", "without a CONNACK"
    finally:
        client.loop_stop()
