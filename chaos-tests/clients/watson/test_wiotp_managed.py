"""Managed devices and the management API by the vendor's SDK for Python, as it is.

The SDK asks `https://ORG.DOMAIN/` and nothing else. Here that name and port 443 lead to a node by a resolver of these tests' own, and the
node's certificate is taken by `REQUESTS_CA_BUNDLE`; nothing of the SDK is changed.
"""

import base64
import json
import logging
import queue
import socket
import threading
import urllib.error
import urllib.request

import pytest
import wiotp.sdk.application
import wiotp.sdk.device
from organisation import ANSWER_S, DOMAIN, HOST, KEY, ORG
from waiting import wait_for
from wiotp.sdk.exceptions import ApiException

OPERATOR = f"a-{ORG}-0perat0r00"
# The SDK publishes some things in threads of its own, which it calls so.
PUBLISHING = ("client.publish", "respondDeviceAction")


@pytest.fixture
def leads(monkeypatch):
    """Says where the organisation's names lead to, by port."""
    where = {}
    connect, resolve = socket.create_connection, socket.getaddrinfo

    def create_connection(address, *args, **kwargs):
        host, port = address
        return connect(("127.0.0.1", where[port]) if host == HOST else address, *args, **kwargs)

    def getaddrinfo(host, port, *args, **kwargs):
        if host == f"{ORG}.{DOMAIN}":
            host, port = "127.0.0.1", where[port]
        return resolve(host, port, *args, **kwargs)

    monkeypatch.setattr(socket, "create_connection", create_connection)
    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return where



def what_was_said_is_on_its_way():
    """Until the SDK's threads have said what they have to: what is said then comes behind it."""
    for thread in threading.enumerate():
        if thread.name in PUBLISHING:
            thread.join(ANSWER_S)
            assert not thread.is_alive(), f"{thread.name}: not within {ANSWER_S} s"


class Pump:
    """A managed device that does what it is asked, and remembers what it was."""

    def __init__(self, name, token, **mqtt):
        identity = {"orgId": ORG, "typeId": "pump", "deviceId": name}
        options = {"domain": DOMAIN, "logLevel": logging.ERROR, "mqtt": {"port": 1883} | mqtt}
        config = {"identity": identity, "auth": {"token": token}, "options": options}
        info = wiotp.sdk.device.DeviceInfo()
        info.manufacturer, info.model, info.fwVersion = "m", "x", "1.0"
        self.client = wiotp.sdk.device.ManagedDeviceClient(config, deviceInfo=info)
        self.asked = queue.Queue()
        self.manages = []
        self.client.deviceActionCallback = self.act
        self.client.firmwereActionCallback = self.firmware
        manage = self.client.manage

        def counted(*args, **kwargs):
            self.manages.append(manage(*args, **kwargs))
            return self.manages[-1]

        # Each of its subscriptions makes it ask to be managed.
        self.client.manage = counted

    def act(self, request, action):
        self.asked.put(action)
        self.client.respondDeviceAction(request, 202)
        threading.Thread(target=self.client.manage).start()

    def firmware(self, action, firmware):
        self.asked.put(action)
        threading.Thread(target=self.download if action == "download" else self.update).start()

    def download(self):
        for state in (self.client.UPDATESTATE_DOWNLOADING, self.client.UPDATESTATE_DOWNLOADED):
            what_was_said_is_on_its_way()
            self.client.setState(state)

    def update(self):
        for status in (self.client.UPDATESTATE_IN_PROGRESS, self.client.UPDATESTATE_SUCCESS):
            what_was_said_is_on_its_way()
            self.client.setUpdateStatus(status)

    def __enter__(self):
        self.client.connect()
        return self

    def __exit__(self, *_):
        self.client.manageTimer and self.client.manageTimer.cancel()
        self.client.disconnect()


def application(org, monkeypatch, secure):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(secure.ca))
    token = getattr(org, "operator", None)
    if token is None:
        made = org.ask("POST", "/tokens?tenant=watson", {"name": OPERATOR, "role": "operator"})["token"]
        token = org.operator = made.split(f"_{OPERATOR}_")[1]
    config = {"identity": {"appId": "manager"}, "auth": {"key": OPERATOR, "token": token}}
    config["options"] = {"domain": DOMAIN, "logLevel": logging.ERROR, "mqtt": {"port": 1883}}
    return wiotp.sdk.application.ApplicationClient(config)


def test_a_device_is_managed(secure, secure_org, leads, monkeypatch):
    leads |= {8883: secure.mqtts_port, 443: secure.https_port}
    app = application(secure_org, monkeypatch, secure)
    made = app.registry.devices.create({"typeId": "pump", "deviceId": "sdk1", "metadata": {"a": 1}})
    assert made.success
    with Pump("sdk1", made.authToken, port=8883, caFile=secure.ca) as pump:
        assert pump.client.readyForDeviceMgmt.wait(ANSWER_S)
        wait_for("no ten requests were made", lambda: len(pump.manages) >= 10)
        assert all(manage.wait(ANSWER_S) for manage in pump.manages), "each is answered"
        known = app.registry.devices[f"d:{ORG}:pump:sdk1"]
        assert known.getMgmt()["supports"] == {"deviceActions": True, "firmwareActions": True}

        assert pump.client.setLocation(longitude=8.6, latitude=49.9, accuracy=5).wait(ANSWER_S)
        assert (known.getLocation().longitude, known.getLocation().latitude) == (8.6, 49.9)
        assert pump.client.setErrorCode(42).wait(ANSWER_S)
        assert [known.diagErrorCodes[0].errorCode, len(known.diagErrorCodes)] == [42, 1]
        assert pump.client.clearErrorCodes().wait(ANSWER_S)
        assert len(known.diagErrorCodes) == 0
        assert pump.client.addLog(msg="hot", data="AA==", sensitivity=1).wait(ANSWER_S)
        assert [entry.message for entry in known.diagLogs] == ["hot"]
        assert pump.client.clearLog().wait(ANSWER_S)

        def done(action, parameters=()):
            devices = [{"typeId": "pump", "deviceId": "sdk1"}]
            request = app.mgmt.requests.initiate({"action": action, "parameters": list(parameters), "devices": devices})
            wait_for(f"{action} is not over", lambda: app.mgmt.requests.get(request["reqId"])["complete"])
            return app.mgmt.requests.getStatus(request["reqId"], "pump", "sdk1")

        assert done("device/reboot")["status"] == 0
        assert pump.asked.get(timeout=ANSWER_S) == "reboot"
        image = {"version": "2.0", "name": "n", "uri": "http://x/y", "verifier": "v"}
        parameters = [{"name": name, "value": value} for name, value in image.items()]
        assert done("firmware/download", parameters)["status"] == 0
        assert pump.asked.get(timeout=ANSWER_S) == "download"
        assert done("firmware/update")["status"] == 0
        assert pump.asked.get(timeout=ANSWER_S) == "update"
        assert app.registry.devices[f"d:{ORG}:pump:sdk1"].deviceInfo.fwVersion == "2.0"
        assert pump.client.unmanage().wait(ANSWER_S)
        assert known.getMgmt() is None


def test_the_registry_by_the_sdk(secure, secure_org, leads, monkeypatch):
    leads |= {443: secure.https_port}
    app = application(secure_org, monkeypatch, secure)
    types = app.registry.devicetypes
    assert "valve" not in types
    info = {"manufacturer": "m", "model": "x"}
    types.create({"id": "valve", "classId": "Device", "description": "d", "deviceInfo": info})
    assert (types["valve"].classId, types["valve"].deviceInfo.model) == ("Device", "x")
    assert [kind.id for kind in types if kind.id == "valve"] == ["valve"]
    devices = app.registry.devices
    made = devices.create([{"typeId": "valve", "deviceId": f"v{number}"} for number in range(60)])
    assert all(one.success and one.authToken for one in made)
    # More than a page of the SDK's.
    assert sorted(one.deviceId for one in types["valve"].devices) == sorted(f"v{number}" for number in range(60))
    one = {"typeId": "valve", "deviceId": "v7"}
    assert devices.update(one, metadata={"b": 2}).metadata == {"b": 2}
    assert devices[f"d:{ORG}:valve:v7"].deviceInfo.manufacturer == "m"
    assert f"d:{ORG}:valve:nobody" not in devices
    assert devices[f"d:{ORG}:valve:v7"].setLocation({"longitude": 1, "latitude": 2}).latitude == 2
    assert devices[f"d:{ORG}:valve:v8"].getLocation() is None
    assert devices[f"d:{ORG}:valve:v7"].diagErrorCodes.append(errorCode=3, timestamp="2026-01-02T03:04:05Z")
    assert app.registry.connectionStatus[f"d:{ORG}:valve:v7"]["connectionStatus"] == "disconnected"
    bundle = {"bundleId": "sdk-bundle", "displayName": {"en_US": "B"}, "version": "1", "actions": {"act": {}}}
    app.mgmt.extensions.create(bundle)
    assert app.serviceStatus()["messaging"] == "green"
    with pytest.raises(ApiException):
        types.create({"id": "valve"})
    assert all(gone["success"] for gone in devices.delete([{"typeId": "valve", "deviceId": f"v{n}"} for n in range(60)]))
    del types["valve"]
    assert "valve" not in types


def rest(org, node, method, path, body=None):
    """What the management API says at a node, over plain HTTP."""
    headers = {"Content-Type": "application/json"}
    headers["Authorization"] = "Basic " + base64.b64encode(f"{KEY}:{org.key_token}".encode()).decode()
    headers["Host"] = f"{ORG}.{DOMAIN}"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://{node.http}/api/v0002{path}", data, headers, method=method)
    with urllib.request.urlopen(request, timeout=ANSWER_S) as answer:
        return json.loads(answer.read())


def test_an_update_goes_on_when_a_node_dies(cluster, org, leads):
    token = org.register("pump", "sdk2")
    leads[1883] = cluster.nodes[0].port
    with Pump("sdk2", token) as pump:
        assert pump.client.readyForDeviceMgmt.wait(ANSWER_S)
        groups = {group["shard"]: group for group in org.ask("GET", "/cluster")["groups"]}
        session = org.ask("GET", f"/sessions?client=d:{ORG}:pump:sdk2&tenant=watson")
        leader = groups[session["shard"]]["leader"]
        victim = next(node for node in cluster.nodes[1:] if node.id == leader or leader == cluster.nodes[0].id)
        alive = next(node for node in cluster.nodes[1:] if node.id != victim.id)
        # It dies when the device has begun.
        begun = pump.download
        pump.download = lambda: (cluster.kill(victim), begun())
        image = {"version": "3.0", "name": "n", "uri": "http://x/y", "verifier": "v"}
        parameters = [{"name": name, "value": value} for name, value in image.items()]
        devices = [{"typeId": "pump", "deviceId": "sdk2"}]
        asked = {"action": "firmware/download", "parameters": parameters, "devices": devices}
        request = rest(org, alive, "POST", "/mgmt/requests", asked)["reqId"]
        status = f"/mgmt/requests/{request}/deviceStatus/pump/sdk2"

        def over():
            try:
                said = rest(org, alive, "GET", status)
            except urllib.error.HTTPError as refused:
                assert refused.code in (429, 503)
                return None
            return said if said["complete"] else None

        assert wait_for("the download is not over", over)["status"] == 0
        cluster.wait_restarted(victim)
        update = rest(org, cluster.nodes[2], "POST", "/mgmt/requests", {"action": "firmware/update", "devices": devices})["reqId"]
        status = f"/mgmt/requests/{update}/deviceStatus/pump/sdk2"
        assert wait_for("the update is not over", over)["status"] == 0
        shown = rest(org, cluster.nodes[1], "GET", "/device/types/pump/devices/sdk2")
        assert shown["deviceInfo"]["fwVersion"] == "3.0"
