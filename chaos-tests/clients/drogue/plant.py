"""An application of Drogue's in a cluster, made by the APIs as its people would, and clients of it."""

import collections
import json
import queue
import subprocess
import urllib.error
import urllib.request

import bcrypt
from connection import ANSWER_S, V5, V311, Client, Refused, properties
from waiting import wait_for

APP, OTHER = "plant", "other"
REGISTRY = f"/api/registry/v1alpha1/apps/{APP}"
# An event comes in milliseconds. Where a shard has lost its leader, on a machine with other work, it takes a while longer.
EVENT_S = 60
# What all that is no is answered with. Paho gives the 4 of MQTT 3.1.1 this number, and no other of them.
REFUSED = 0x86
EVENT, CONNECTION = "io.drogue.event.v1", "io.drogue.connection.v1"



def authority(folder, name="ca", subject="/O=Plant/CN=Plant CA"):
    """A certificate that vouches for others: its file, with its key beside it."""
    file = folder / f"{name}.pem"
    new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", file.with_suffix(".key")]
    extensions = ["-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign"]
    line = ["openssl", "req", "-x509", *new_key, "-out", file, "-days", "2", "-subj", subject, *extensions]
    subprocess.run(line, check=True, capture_output=True)
    return file


def issued(by, name, subject):
    """A certificate that an authority vouches for, and its key."""
    file = by.with_name(f"{name}.pem")
    key, request, extensions = file.with_suffix(".key"), file.with_suffix(".csr"), file.with_suffix(".ext")
    extensions.write_text("basicConstraints=critical,CA:FALSE\nextendedKeyUsage=clientAuth\n")
    new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", key]
    subprocess.run(["openssl", "req", *new_key, "-out", request, "-subj", subject], check=True, capture_output=True)
    sign = ["openssl", "x509", "-req", "-in", request, "-CA", by, "-CAkey", by.with_suffix(".key"), "-CAcreateserial"]
    subprocess.run([*sign, "-days", "2", "-extfile", extensions, "-out", file], check=True, capture_output=True)
    return file, key


class Plant:
    """The application `plant`, keys of it, and another application beside it."""

    def __init__(self, node, token=None, anchor=None):
        self.node, self.token = node, token
        if token is None:
            self.token = self.ask("POST", "/tokens", {"name": "plant-root", "role": "admin"})["token"]
        settings = {"chosen-passwords": True, "plaintext": True}
        self.ask("POST", "/tenants", {"name": "drogue-other", "aliases": [f"drogue:{OTHER}"], "settings": settings})
        aliases = [f"drogue:{APP}"]
        if anchor:
            aliases.append("drogue:O=Plant, CN=Plant CA")
            settings = settings | {"trust-anchors": {"certificates": anchor.read_text()}}
        self.ask("POST", "/tenants", {"name": "drogue-plant", "aliases": aliases, "settings": settings})
        self.operator, self.key, self.look = (self.api_token(role) for role in ("operator", "app", "read-only"))

    def ask(self, method, path, body=None):
        """The cluster's own API, as its administrator."""
        return self._ask(method, f"http://{self.node.admin}/api/v1{path}", self.token, body)

    def api_token(self, role, tenant="drogue-plant"):
        made = self.ask("POST", f"/tokens?tenant={tenant}", {"name": f"drogue-{role}", "role": role})
        return made["token"]

    def _ask(self, method, url, token, body, kind="application/json"):
        headers = {"Content-Type": kind} | ({"Authorization": f"Bearer {token}"} if token else {})
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=ANSWER_S) as answer:
                return json.loads(answer.read() or "null")
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{method} {url}: {error.code} {error.read().decode()}") from error

    def registry(self, method, path, body=None, kind="application/json"):
        """The registry of the application, as whoever manages its devices."""
        return self._ask(method, f"http://{self.node.http}{REGISTRY}{path}", self.operator, body, kind)

    def patch_application(self, spec):
        self.registry("PATCH", "", {"spec": spec}, "application/merge-patch+json")

    def device(self, name, *credentials, labels=None, **spec):
        """A device, as the registry writes it."""
        if credentials:
            spec["authentication"] = {"credentials": list(credentials)}
        metadata = {"application": APP, "name": name} | ({"labels": labels} if labels else {})
        self.registry("POST", "/devices", {"metadata": metadata, "spec": spec})
        return name

    def unreadable(self, name, secret, **spec):
        """A device with a section that the registry would refuse: as an import, or somebody by the cluster's own API, leaves it."""
        settings = {"metadata": {"drogue": {"spec": spec}}}
        self.ask("POST", "/devices?tenant=drogue-plant", {"name": name, "settings": settings})
        credential = {"kind": "password", "user": name, "password": secret}
        self.ask("POST", f"/devices/{name}/credentials?tenant=drogue-plant", credential)

    def command(self, node, device, command, payload=b""):
        """Sends a command over HTTP: the status."""
        url = f"http://{node.http}/api/command/v1alpha1/apps/{APP}/devices/{device}?command={command}"
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/octet-stream"}
        try:
            request = urllib.request.Request(url, payload, headers, method="POST")
            with urllib.request.urlopen(request, timeout=ANSWER_S) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code


def password(plain):
    return {"pass": plain}


def bcrypted(plain, cost=6):
    """A password as the library of most Pythons hashes it."""
    return {"bcrypt": bcrypt.hashpw(plain.encode(), bcrypt.gensalt(cost)).decode()}


def sha512_crypted(plain):
    """A password as openssl hashes it."""
    line = ["openssl", "passwd", "-6", "-stdin"]
    return {"sha512": subprocess.run(line, input=plain, check=True, capture_output=True, text=True).stdout.strip()}


def user(name, plain, **more):
    return {"user": {"username": name, "password": plain, **more}}


class Device(Client):
    """A device's connection: Paho with what firmware shows."""

    def __init__(self, username, secret=None, version=V5, client_id="any", cert=None, ca=None, **how):
        super().__init__(client_id, version, ca=None if cert else ca, **how)
        if cert:
            self.paho.tls_set(ca, *cert)
        if username is not None or secret is not None:
            self.paho.username_pw_set(username, secret)

    def reason(self, node, **props):
        """The reason of the CONNACK, as MQTT 5 has it."""
        try:
            with self:
                self.connect(node, **props)
                return 0
        except Refused as refused:
            return refused.code.value

    def subscribe_as(self, topic, qos=0, identifier=None):
        """Subscribes with a subscription id, and returns what was granted."""
        props = properties("SUBSCRIBE", SubscriptionIdentifier=identifier)
        _, mid = self.paho.subscribe(topic, qos, properties=props)
        return self._wait(mid)[0].value

    def ends_after(self, topic, payload, qos=1):
        """Publishes what MQTT 3.1.1 has no answer for: the connection ends."""
        self.paho.publish(topic, payload, qos)
        self.wait_ended()
        self.paho.loop_stop()


class Events:
    """All events of the application, as one of its programs hears them over MQTT: by device, in its order."""

    def __init__(self, plant, node, client_id="events", version=V311, topic=f"app/{APP}"):
        self.heard = collections.defaultdict(queue.Queue)
        self.client = Device("ops", plant.key, version, client_id)
        self.client.paho.on_message = self._take
        self.client.connect(node)
        assert self.client.subscribe(topic) == 1
        self.prober, self.node = plant.device(f"prober-{client_id}", password("probe")), node
        # It begins with what comes when it reads.
        with Device(f"{self.prober}@{APP}", "probe") as prober:
            prober.connect(node)
            wait_for("nothing is heard", lambda: self._probe(prober))

    def _probe(self, prober):
        prober.publish("probe", "0")
        try:
            return self.heard[EVENT, self.prober].get(timeout=1)
        except queue.Empty:
            return None

    def _take(self, _client, _userdata, message):
        event = json.loads(message.payload)
        self.heard[event["type"], event["device"]].put(event)

    def said(self, device):
        """What a device said next."""
        return self.heard[EVENT, device].get(timeout=EVENT_S)

    def connected(self, device):
        """Whether it came or went next."""
        event = self.heard[CONNECTION, device].get(timeout=EVENT_S)
        assert event["subject"] == "connection"
        return event["data"]["connected"]

    def nothing_of(self, device):
        """Nothing came of a device that was not asked for."""
        assert self.heard[EVENT, device].empty(), self.heard[EVENT, device].get()
