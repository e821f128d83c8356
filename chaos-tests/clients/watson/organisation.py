"""An organisation in a cluster, made by the API as its people would."""

import json
import urllib.error
import urllib.request

ORG, DOMAIN = "abc123", "example.com"
HOST = f"{ORG}.messaging.{DOMAIN}"
KEY = f"a-{ORG}-k3yk3yk3yk"
ANSWER_S = 30


class Org:
    """An organisation in a cluster, and what its clients show."""

    def __init__(self, admin, token=None):
        self.admin, self.token = admin, token
        if token is None:
            self.token = self.ask("POST", "/tokens", {"name": "watson-root", "role": "admin"})["token"]
        settings = {"plaintext": True}
        self.ask("POST", "/tenants", {"name": "watson", "aliases": [f"watson:{ORG}"], "settings": settings})
        made = self.ask("POST", "/tokens?tenant=watson", {"name": KEY, "role": "app"})["token"]
        self.key_token = made.split(f"_{KEY}_")[1]

    def ask(self, method, path, body=None, at=None):
        """Asks the API, of another node if `at` says so."""
        headers = {"Content-Type": "application/json"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://{at or self.admin}/api/v1{path}", data, headers, method=method)
        with urllib.request.urlopen(request, timeout=ANSWER_S) as answer:
            return json.loads(answer.read() or "null")

    def is_known(self, tenant, at):
        """Whether a node has heard of a tenant: it hears so in its own time."""
        try:
            return any(known["name"] == tenant for known in self.ask("GET", "/tenants", at=at))
        except urllib.error.HTTPError:
            # Nor of who asks.
            return False

    def register(self, kind, device, klass="device"):
        """A device's token."""
        settings = {"type": kind, "class": klass}
        self.ask("POST", "/devices?tenant=watson", {"name": f"{kind}:{device}", "settings": settings})
        return self.ask("POST", f"/devices/{kind}:{device}/credentials?tenant=watson", {})["secret"]
