"""Fostrom's Python SDK, unmodified from PyPI, on our agent, against the three nodes of the demo.

MOORLINE_AGENT names the agent's binary. The SDK's socket has one place, /tmp/fostrom, so each device runs in a mount namespace
with a file system of its own there, and in a process namespace, so that its agent ends with it. That needs root.
"""

import contextlib
import importlib.util
import json
import os
import platform
import queue
import secrets
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
import uuid
from pathlib import Path

import pytest
from waiting import wait_for

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root"),
    pytest.mark.needs("unshare"),
]

# Everything is answered in milliseconds; a loaded machine takes longer.
ANSWER_S = 30
# More than Python's recursion limit lets the SDK take in one go.
MANY = 400
UNAUTHORIZED_MS = 300_000
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
NAMESPACE = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
# Where the SDK's socket is. Not all of /tmp is hidden: the programs may lie there.
SOCKET_FOLDER = Path("/tmp/fostrom")
PRIVATE = f'mount -t tmpfs -o mode=700 tmpfs {SOCKET_FOLDER} && exec "$0" "$@"'


FLEET = "SDKFLEET"
DEVICE = "SDKDEVICE1"
TENANT = "sdk"
SCHEMA = "env"
MESSAGE = "note"
FIELDS = {"t": {"type": "decimal", "optional": True}}
SCHEMAS = {
    SCHEMA: {"kind": "datapoint", "direction": "inbound", "fields": FIELDS},
    MESSAGE: {"kind": "msg", "direction": "inbound", "fields": FIELDS},
}
# A write that meets an election is tried again.
TRY_PAUSE_S = 0.2


class Fleet:
    """The tenant, its device, and where the nodes are."""

    def __init__(self, cluster):
        self.cluster = cluster
        settings = {"plaintext": True, "fostrom": {"schemas": SCHEMAS}}
        self.ask("POST", "/tenants", {"name": TENANT, "aliases": [f"fostrom:{FLEET}"], "settings": settings})
        self.ask("POST", f"/devices?tenant={TENANT}", {"name": DEVICE})
        made = self.ask("POST", f"/devices/{DEVICE}/credentials?tenant={TENANT}", {"style": "fostrom"})
        self.secret = made["secret"]

    @property
    def nodes(self):
        return ",".join(node.moonlight for node in self.cluster.nodes)

    def ask(self, method, path, body=None, node=0):
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self.cluster.token}"}
        data = None if body is None else json.dumps(body).encode()
        url = f"http://{self.cluster.nodes[node].admin}/api/v1{path}"
        request = urllib.request.Request(url, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=ANSWER_S) as answer:
            return json.load(answer)

    def mailbox(self, method, path="", body=None, node=0):
        return self.ask(method, f"/devices/{DEVICE}/mailbox{path}?tenant={TENANT}", body, node)


@pytest.fixture(scope="module", autouse=True)
def fleet(cluster):
    global THE_FLEET
    THE_FLEET = Fleet(cluster)
    yield THE_FLEET


class Device:
    """A program on the SDK. What its callbacks say is in `events`, by name."""

    def __init__(self, secret):
        environment = {
            **os.environ,
            "FLEET": FLEET,
            "DEVICE": DEVICE,
            "SECRET": secret,
            "MOORLINE_NODES": THE_FLEET.nodes,
            "MOORLINE_PLAINTEXT": "1",
        }
        script = Path(__file__).parent / "fostrom_device.py"
        self.process = subprocess.Popen(
            [*NAMESPACE, "sh", "-c", PRIVATE, sys.executable, script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self.answers = queue.Queue()
        self.events = {}
        self.lock = threading.Lock()
        threading.Thread(target=self._read, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        try:
            self.process.wait(ANSWER_S)
        finally:
            self.process.kill()

    def _read(self):
        for line in self.process.stdout:
            line = json.loads(line)
            if "event" in line:
                self._queue(line["event"]).put(line)
            else:
                self.answers.put(line)

    def _queue(self, event):
        with self.lock:
            return self.events.setdefault(event, queue.Queue())

    def next(self, event):
        """The next time the SDK calls back so."""
        return self._queue(event).get(timeout=ANSWER_S)

    def mails(self, count):
        return [self.next("mail") for _ in range(count)]

    def call(self, method, *args):
        """Calls a method of the SDK; its answer."""
        self.process.stdin.write(json.dumps({"call": method, "args": args}) + "\n")
        self.process.stdin.flush()
        return self.answers.get(timeout=ANSWER_S)

    def start(self):
        assert self.call("start") == {"result": None}
        return self

    def complaints(self):
        """What the SDK has logged so far."""
        logged = self._queue("log")
        return [logged.get()["text"] for _ in range(logged.qsize())]


def send(name, payload=None):
    """Sends the device a mail; its id."""
    return THE_FLEET.mailbox("POST", body={"name": name, "payload": payload})["id"]


def wait_state(mail_id, state):
    """Until this has become of a mail."""
    wait_for(f"{mail_id} is not {state}", lambda: THE_FLEET.mailbox("GET", f"/{mail_id}")["state"] == state)


@pytest.fixture(scope="module", autouse=True)
def sdk():
    """Puts our agent where the SDK looks before it downloads the vendor's, and has a place for its socket."""
    (package,) = importlib.util.find_spec("fostrom").submodule_search_locations
    folder = Path(package) / ".agent"
    folder.mkdir(exist_ok=True)
    binary = folder / f"fostrom-device-agent-linux-{ARCHITECTURES[platform.machine()]}"
    # Not over the old one: it may be running.
    binary.unlink(missing_ok=True)
    shutil.copy(os.environ["MOORLINE_AGENT"], binary)
    binary.chmod(0o755)
    # Something to mount on. Others on this machine may want to make it themselves, later.
    ours = not SOCKET_FOLDER.exists()
    SOCKET_FOLDER.mkdir(mode=0o700, exist_ok=True)
    yield
    if ours:
        with contextlib.suppress(OSError):
            SOCKET_FOLDER.rmdir()


@pytest.fixture(autouse=True)
def empty_mailbox(sdk):
    """Each test begins with no mail."""
    THE_FLEET.mailbox("DELETE")


@pytest.fixture
def device():
    with Device(THE_FLEET.secret) as running:
        yield running.start()


def test_hundreds_of_mails_that_waited_are_drained_and_none_is_rejected():
    sent = [send("ack", {"number": number}) for number in range(MANY)]
    with Device(THE_FLEET.secret) as device:
        device.start()
        mails = device.mails(MANY)
        assert [mail["id"] for mail in mails] == sent
        assert [mail["payload"] for mail in mails] == [{"number": number} for number in range(MANY)]
        wait_state(sent[-1], "acked")
        assert device.call("mailbox_status")["result"]["mailbox_size"] == 0
        assert device.complaints() == []


def test_mail_that_is_sent_is_pushed(device):
    device.next("connected")
    for name, payload in [("ack", {"gate": 1}), ("ack", None)]:
        mail_id = send(name, payload)
        mail = device.next("mail")
        assert (mail["id"], mail["name"], mail["payload"], mail["size"]) == (mail_id, name, payload, 1)
        wait_state(mail_id, "acked")


def test_requeued_mail_comes_again_last_and_rejected_mail_is_gone():
    sent = [send(name) for name in ["requeue", "reject", "ack"]]
    with Device(THE_FLEET.secret) as device:
        device.start()
        requeued, rejected, acked = sent
        assert [mail["id"] for mail in device.mails(4)] == [requeued, rejected, acked, requeued]
        for mail_id, state in [(requeued, "acked"), (rejected, "rejected"), (acked, "acked")]:
            wait_state(mail_id, state)


def test_a_handler_that_fails_rejects_its_mail(device):
    mail_id = send("raise")
    device.next("mail")
    wait_state(mail_id, "rejected")


def test_the_front_mail_stays_until_it_is_settled(device):
    device.next("connected")
    mail_id = send("keep")
    assert device.next("mail")["id"] == mail_id
    for _ in range(2):
        assert device.call("next_mail") == {"result": mail_id}
    expected = {"mailbox_size": 1, "next_mail_id": mail_id, "next_mail_name": "keep"}
    assert device.call("mailbox_status") == {"result": expected}
    assert device.call("mail_op", "ack", mail_id) == {"result": None}
    assert device.call("next_mail") == {"result": None}


def test_datapoints_and_messages_are_accepted(device):
    assert device.call("send_datapoint", SCHEMA, {"t": 21.5}) == {"result": None}
    assert device.call("send_msg", MESSAGE, {"t": 21.5}) == {"result": None}
    assert device.call("send_msg", MESSAGE, None) == {"result": None}


@pytest.mark.parametrize(
    "call, error",
    [
        (("send_datapoint", "no-such-schema", {"t": 1}), "packet_schema_not_found"),
        (("mail_op", "ack", "018f4d1f-2a55-7f0e-b4ea-5f7c3e6fa001"), "mail_ack_failed"),
        (("mail_op", "ack", "not-a-uuid"), "invalid_pulse_id"),
    ],
)
def test_refusals_reach_the_caller(device, call, error):
    answer = device.call(*call)
    assert answer["error"].startswith(f"{error}: ")


def test_a_wrong_secret_is_told_with_its_reason():
    with Device("FOS-" + "Z" * 32) as device:
        device.start()
        told = device.next("unauthorized")
        assert told["reason"].startswith("unauthorized: ")
        assert UNAUTHORIZED_MS / 2 < told["ms"] <= UNAUTHORIZED_MS * 1.2
        status = device.call("status")["result"]
        assert (status["connected"], status["error"]) == (False, "unauthorized")


def test_misshapen_credentials_are_refused_before_anything_starts():
    with Device("FOS-short") as device:
        answer = device.call("start")
        assert (answer["error"], answer["message"]) == ("invalid_config", "Device Secret is invalid")


def test_no_mail_is_lost_and_none_comes_out_of_order_while_nodes_die(fleet, device):
    device.next("connected")
    sent = []
    for round_number, victim in enumerate(fleet.cluster.nodes):
        for number in range(20):
            if number == 5:
                fleet.cluster.kill(victim)
            mail = {"name": "ack", "payload": round_number * 20 + number, "id": new_id()}
            send_surely(fleet, mail, [node for node in range(3) if node != round_number])
            sent.append(mail["id"])
        fleet.cluster.wait_restarted(victim)
    mails = device.mails(len(sent))
    # One whose settlement was under way may come twice, one after the other.
    come = [mail["id"] for at, mail in enumerate(mails) if at == 0 or mails[at - 1]["id"] != mail["id"]]
    while len(come) < len(sent):
        mail = device.next("mail")["id"]
        if mail != come[-1]:
            come.append(mail)
    assert come == sent
    for mail_id in sent:
        wait_state(mail_id, "acked")


def new_id():
    """A UUIDv7: time, then chance."""
    number = int(time.time() * 1000) << 80 | 7 << 76 | secrets.randbits(12) << 64 | 2 << 62 | secrets.randbits(62)
    return str(uuid.UUID(int=number))


def send_surely(fleet, mail, nodes):
    """Through whichever node can: a repeat of an id is one mail."""
    deadline = time.monotonic() + ANSWER_S
    while True:
        for node in nodes:
            with contextlib.suppress(OSError):
                return fleet.mailbox("POST", body=mail, node=node)
        assert time.monotonic() < deadline, "no node takes mail"
        time.sleep(TRY_PAUSE_S)
