"""Mail that is sent by the API, received by every protocol, while the leader of the device's shard is killed (SIGKILL) between
fetching a mail and settling it, and between a settlement and its answer: none is lost, and none comes out of order.
"""

import contextlib
import json
import random
import threading
import time
import urllib.request

import pytest
from receivers import ALL, ANSWER_S, Refused
from test_fostrom_sdk import new_id

FLEET, TENANT = "MATRIXFL", "matrix"
MAILS = 12
# At which mails the leader dies: before the settlement is asked for, and while it is.
BEFORE, WHILE = 3, 8
# Enough for two elections and two restarts of a node.
DRAIN_S = 120
TRY_PAUSE_S = 0.1
# Within which the leader dies after a settlement went out: answers take about a millisecond.
DEATH_S = 0.004


class Fleet:
    """The tenant, and the API by whichever node answers."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.ask("POST", "/tenants", {"name": TENANT, "aliases": [f"fostrom:{FLEET}"]})

    def ask(self, method, path, body=None):
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self.cluster.token}"}
        data = None if body is None else json.dumps(body).encode()
        deadline = time.monotonic() + ANSWER_S
        while True:
            for node in self.cluster.nodes:
                url = f"http://{node.admin}/api/v1{path}"
                request = urllib.request.Request(url, data, headers, method=method)
                try:
                    with urllib.request.urlopen(request, timeout=ANSWER_S) as answer:
                        text = answer.read()
                        return json.loads(text) if text else None
                except urllib.error.HTTPError as error:
                    if error.code < 500:
                        raise AssertionError(f"{method} {path}: {error.code} {error.read()}") from error
                except OSError:
                    pass
            assert time.monotonic() < deadline, f"no node answers {method} {path}"
            time.sleep(TRY_PAUSE_S)


@pytest.fixture(scope="module")
def fleet(cluster):
    return Fleet(cluster)


class Device:
    """A device with mail."""

    fleet = FLEET

    def __init__(self, fleet, name, folder):
        self.api, self.name, self.folder = fleet, name, folder
        fleet.ask("POST", f"/devices?tenant={TENANT}", {"name": name})
        made = fleet.ask("POST", f"/devices/{name}/credentials?tenant={TENANT}", {"style": "fostrom"})
        self.secret = made["secret"]
        self.random = random.Random(name)

    def nodes(self):
        return self.api.cluster.nodes

    def leader(self):
        """The node that leads the device's shard: an event's id begins with the shard."""
        reported = self.api.ask("POST", f"/devices/{self.name}/events?tenant={TENANT}", {"type": "state"})
        shard = int(reported["id"].replace("-", ".").split(".")[0])
        groups = self.api.ask("GET", "/cluster")["groups"]
        leader = next(group["leader"] for group in groups if group["shard"] == shard)
        return next(node for node in self.nodes() if node.id == leader)

    def send(self, name):
        """A repeat of an id is one mail."""
        mail = {"name": name, "payload": {"n": 1}, "id": new_id()}
        return self.api.ask("POST", f"/devices/{self.name}/mailbox?tenant={TENANT}", mail)["id"]

    def mail(self, mail_id):
        return self.api.ask("GET", f"/devices/{self.name}/mailbox/{mail_id}?tenant={TENANT}")


class Killer:
    """Kills the leader of a device's shard: twice, at its two moments."""

    def __init__(self, device):
        self.device, self.killed = device, []
        self.thread = None

    def now(self):
        victim = self.device.leader()
        self.device.api.cluster.kill(victim)
        self.killed.append(victim)

    def soon(self):
        """While what is done meanwhile is under way."""
        victim = self.device.leader()
        self.killed.append(victim)
        delay = self.device.random.uniform(0, DEATH_S)
        self.thread = threading.Timer(delay, self.device.api.cluster.kill, [victim])
        self.thread.start()

    def wait(self):
        """Until all nodes are back."""
        if self.thread:
            self.thread.join(ANSWER_S)
        for victim in self.killed:
            self.device.api.cluster.wait_restarted(victim)
        self.killed.clear()


def drain(device, receiver_of, sent, ops, killer):
    """Takes all mail as a device would that comes again when anything breaks; the order in which it saw them."""
    come, settled, attempts = [], set(), 0
    receiver = None
    deadline = time.monotonic() + DRAIN_S
    while len(settled) < len(sent):
        assert time.monotonic() < deadline, f"{len(settled)} of {len(sent)} after {DRAIN_S} s; came: {come}"
        try:
            if receiver is None:
                nodes = device.nodes()
                receiver = receiver_of(device, nodes[attempts % len(nodes)])
            mail = receiver.next()
            if not come or come[-1] != mail:
                come.append(mail)
            if mail in sent and sent.index(mail) == BEFORE and not killer.before:
                killer.before = True
                killer.now()
            elif mail in sent and sent.index(mail) == WHILE and not killer.during:
                killer.during = True
                killer.wait()
                killer.soon()
            op = ops.pop(mail, "ack")
            receiver.settle(op, mail)
            if op != "requeue":
                settled.add(mail)
        except (OSError, Refused):
            if receiver is not None and not isinstance(receiver, ALL["agent"]):
                receiver.close()
                receiver = None
            attempts += 1
            time.sleep(TRY_PAUSE_S)
            # Its answer may be what was lost.
            for mail_id in come:
                if mail_id not in settled and device.mail(mail_id)["state"] in ("acked", "rejected"):
                    settled.add(mail_id)
    if receiver is not None:
        with contextlib.suppress(OSError):
            receiver.close()
    return come


@pytest.mark.parametrize("number, protocol", list(enumerate(ALL)), ids=list(ALL))
def test_no_mail_is_lost_while_the_leader_dies_between_next_and_ack(fleet, tmp_path, number, protocol):
    device = Device(fleet, f"MATRIX{number:04}", tmp_path)
    sent = [device.send("ring") for _ in range(MAILS)]
    rejected, requeued = sent[0], sent[1]
    killer = Killer(device)
    killer.before = killer.during = False
    ops = {rejected: "reject", requeued: "requeue"}
    come = drain(device, ALL[protocol], sent, ops, killer)
    killer.wait()
    assert killer.before and killer.during
    assert come == [*sent, requeued]
    for mail_id in sent:
        mail = device.mail(mail_id)
        assert mail["state"] == ("rejected" if mail_id == rejected else "acked"), mail


# What a mail's history calls each.
NAMES = {"mqtt": "mqtt", "wss": "mqtt", "http": "http", "sse": "http", "moonlight": "moonlight", "agent": "moonlight"}


def test_what_one_protocol_fetched_another_settles(fleet, tmp_path):
    device = Device(fleet, "MATRIXMIX1", tmp_path)
    pairs = [(fetches, settles) for fetches in ALL for settles in ALL if fetches != settles]
    sent = [device.send("ring") for _ in pairs]
    for mail_id, (fetches, settles) in zip(sent, pairs):
        # A device is one connection: the second would end the first.
        with contextlib.closing(ALL[fetches](device, device.nodes()[0])) as receiver:
            assert receiver.next() == mail_id, fetches
        with contextlib.closing(ALL[settles](device, device.nodes()[1])) as receiver:
            if settles == "agent":
                # It is there before its uplink is, and fetching waits for that.
                assert receiver.next() == mail_id
            receiver.settle("ack", mail_id)
        mail = device.mail(mail_id)
        assert (mail["state"], mail["history"][-1]["by"]) == ("acked", NAMES[settles]), (fetches, mail)
