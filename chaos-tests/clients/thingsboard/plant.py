"""A tenant of ThingsBoard's in a cluster, and what tests do with it."""

import json
import urllib.request

from tb_rest_client.models import Device

ANSWER_S = 30



def made(user, name, kind="robot"):
    """A new device, and its access token."""
    device = user.save_device(Device(name=name, type=kind))
    return device, user.get_device_credentials_by_device_id(device.id).credentials_id


class Plant:
    """A tenant in a cluster."""

    def __init__(self, admin, token=None):
        self.admin, self.token = admin, token
        if token is None:
            self.token = self.ask("POST", "/tokens", {"name": "plant-root", "role": "admin"})["token"]
        settings = {"plaintext": True}
        self.ask("POST", "/tenants", {"name": "plant", "aliases": ["thingsboard:plant"], "settings": settings})

    def ask(self, method, path, body=None, admin=None):
        headers = {"Content-Type": "application/json"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        data = None if body is None else json.dumps(body).encode()
        url = f"http://{admin or self.admin}/api/v1{path}"
        request = urllib.request.Request(url, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=ANSWER_S) as answer:
            return json.loads(answer.read() or "null")

    def register(self, name, kind="device"):
        """The access token of a device or gateway."""
        self.ask("POST", "/devices?tenant=plant", {"name": name, "settings": {"class": kind}})
        return self.ask("POST", f"/devices/{name}/credentials?tenant=plant", {"kind": "token"})["secret"]

    def latest(self, name, admin):
        values = self.ask("GET", f"/devices/{name}/telemetry?tenant=plant", admin=admin)["values"]
        return {key: samples[0]["value"] for key, samples in values.items()}

    def call(self, name, method, params, admin):
        """Calls a device, and waits: its answer."""
        call = {"method": method, "params": params, "wait": True, "timeout_ms": ANSWER_S * 1000 - 1000}
        made = self.ask("POST", f"/devices/{name}/calls?tenant=plant", call, admin=admin)
        assert made["state"] == "successful", made
        return made["answer"]

    def own_calls(self, admin):
        """Calls that devices make, as an application hears them from now on."""
        headers = {"Authorization": f"Bearer {self.token}", "Accept": "text/event-stream"}
        url = f"http://{admin}/api/v1/events?tenant=plant&type=message&channel=rpc"
        stream = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=ANSWER_S)
        lines = (line.decode().removeprefix("data:") for line in stream if line.startswith(b"data:"))
        return (json.loads(line)["data"] for line in lines)

    def share(self, name, attributes, admin):
        path = f"/devices/{name}/attributes?tenant=plant&scope=shared"
        self.ask("PATCH", path, {"attributes": attributes}, admin=admin)
