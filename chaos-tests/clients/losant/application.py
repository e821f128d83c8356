"""An application in a cluster, made by the APIs as its people would."""

import json
import urllib.request

APP = "5f0c9a1b2c3d4e5f60718293"
ANSWER_S = 30
# What firmware has.
KEY, SECRET = "1f0ac3d4-0b1c-4d2e-9f3a-5b6c7d8e9f00", "9c1dQ5xLw2RtY7uPb5Zk3vQ9xLw2RtY7"
ATTRIBUTES = [
    {"name": "temperature", "dataType": "number"},
    {"name": "label", "dataType": "string"},
    {"name": "position", "dataType": "gps"},
]



class Application:
    """An application: its integrator's token, and a key that all devices have."""

    def __init__(self, admin, token=None):
        self.admin, self.token = admin, token
        if not token:
            # The first token of a cluster needs none.
            self.token = self.ask("POST", "/tokens", {"name": "root", "role": "admin"})["token"]
        alias, settings = f"losant:{APP}", {"plaintext": True}
        self.ask("POST", "/tenants", {"name": "acme", "aliases": [alias], "settings": settings})
        self.integrator = self.ask("POST", "/tokens?tenant=acme", {"name": "ci", "role": "operator"})["token"]

    def ask(self, method, path, body=None):
        headers = {"Content-Type": "application/json"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://{self.admin}/api/v1{path}", data, headers, method=method)
        with urllib.request.urlopen(request, timeout=ANSWER_S) as answer:
            return json.loads(answer.read() or "null")
