"""Fostrom's devices over TLS: HTTPS with MQTT over WebSocket on the same port, MQTT as SDKs of 2024 speak it, and Moonlight by our
agent.
"""

import json
import os
import queue
import ssl
import subprocess
import urllib.request

import paho.mqtt.client as mqtt
import pytest

FLEET, DEVICE = "TLSFLEET", "TLSDEVICE1"
ANSWER_S = 30


@pytest.fixture(scope="module")
def device(secure):
    """Its secret, and what sends it mail."""
    token = None

    def ask(method, path, body=None):
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://{secure.admin}/api/v1{path}", data, headers, method=method)
        with urllib.request.urlopen(request, timeout=ANSWER_S) as answer:
            return json.load(answer)

    token = ask("POST", "/tokens", {"name": "tls-root", "role": "admin"})["token"]
    ask("POST", "/tenants", {"name": "tls", "aliases": [f"fostrom:{FLEET}"]})
    ask("POST", "/devices?tenant=tls", {"name": DEVICE})
    secret = ask("POST", f"/devices/{DEVICE}/credentials?tenant=tls", {"style": "fostrom"})["secret"]

    def send(name, payload=None):
        return ask("POST", f"/devices/{DEVICE}/mailbox?tenant=tls", {"name": name, "payload": payload})["id"]

    return secret, send


def https(secure, secret, method, path, body=None):
    headers = {"X-Fleet-ID": FLEET, "X-Device-ID": DEVICE, "X-Device-Secret": secret}
    data = None
    if body is not None:
        data, headers["Content-Type"] = json.dumps(body).encode(), "application/json"
    url = f"https://127.0.0.1:{secure.https_port}{path}"
    request = urllib.request.Request(url, data, headers, method=method)
    context = ssl.create_default_context(cafile=secure.ca)
    with urllib.request.urlopen(request, timeout=ANSWER_S, context=context) as answer:
        text = answer.read()
        return answer.status, json.loads(text) if text else None


def test_mail_and_datapoints_over_https(secure, device):
    secret, send = device
    assert https(secure, secret, "POST", "/v1/datapoint/env", {"t": 21.5}) == (201, {"ok": True})
    sent = send("open-gate", {"gate": 1})
    expected = {"id": sent, "name": "open-gate", "payload": {"gate": 1}}
    assert https(secure, secret, "GET", "/v1/mailbox/next") == (200, expected)
    assert https(secure, secret, "PUT", f"/v1/mailbox/ack/{sent}") == (200, {"ok": True})
    assert https(secure, secret, "GET", "/v1/mailbox/next") == (204, None)


@pytest.mark.parametrize("transport", ["tcp", "websockets"])
def test_mail_is_pushed_over_mqtt(secure, device, transport):
    secret, send = device
    client = mqtt.Client(
        mqtt.CallbackAPIVersion.VERSION2, client_id="JSON", transport=transport, protocol=mqtt.MQTTv311
    )
    client.tls_set(ca_certs=secure.ca)
    client.username_pw_set(f"{FLEET}::{DEVICE}", secret)
    mails, ready = queue.Queue(), queue.Queue()
    client.on_message = lambda _, __, message: mails.put(json.loads(message.payload))
    client.on_connect = lambda *_: client.subscribe("mailbox/mail", qos=1)
    client.on_subscribe = lambda *_: ready.put(True)
    # WebSocket and HTTPS share a port.
    port = secure.https_port if transport == "websockets" else secure.mqtts_port
    client.connect("127.0.0.1", port, keepalive=30)
    client.loop_start()
    try:
        ready.get(timeout=ANSWER_S)
        sent = send("ring", {"times": 2})
        mail = mails.get(timeout=ANSWER_S)
        assert mail == {"id": sent, "name": "ring", "payload": {"times": 2}, "mailbox_size": 1}
        client.publish(f"mailbox/ack/{sent}", qos=1).wait_for_publish(ANSWER_S)
    finally:
        client.disconnect()
        client.loop_stop()


def test_the_agent_trusts_the_nodes_certificate_and_no_other(secure, tmp_path):
    def test_conn(**more):
        environment = {
            **os.environ,
            "FOSTROM_FLEET_ID": FLEET,
            "FOSTROM_DEVICE_ID": DEVICE,
            "FOSTROM_DEVICE_SECRET": "FOS-" + "A" * 32,
            "MOORLINE_NODES": f"127.0.0.1:{secure.moonlights_port}",
            "MOORLINE_AGENT_DIR": str(tmp_path / "agent"),
            **more,
        }
        command = [os.environ["MOORLINE_AGENT"], "test-conn"]
        return subprocess.run(command, env=environment, timeout=ANSWER_S, capture_output=True, check=False)

    good = test_conn(MOORLINE_CA=secure.ca)
    assert good.returncode == 0, good
    assert test_conn().returncode != 0, "the system does not trust it"
