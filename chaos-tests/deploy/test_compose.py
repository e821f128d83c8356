"""The image and compose.yaml on a real Docker engine of this test's own: started, made a cluster, killed, moved, stopped.

Nothing is pulled: Prometheus' image is made of the machine's own package, Grafana is left out. Wants to be root, in a network of its own
(the ports are the file's): `scripts/verify image`.
"""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest
from conftest import BUILD_S, DEPLOY, READY_S, wait_for

NODES = ["node1", "node2", "node3"]
ADMIN = dict(zip(NODES, [9400, 9401, 9402]))
MQTT = dict(zip(NODES, [1883, 1884, 1885]))
HTTP_S = 5
# Docker's first look at a container's health comes after 10 s, and it looks every 10 s.
HEALTHY_S = 60
# Each publisher's pace while a container is killed, and how many messages: what three publish has to find room in the queue of a session
# that is away (mqtt.session-queue-max, 1000), since beyond it the newest are dropped.
LOAD_HZ = 20
LOAD = 320
# How many of its messages each has acknowledged before the container is killed, and for how long that is gone.
LOAD_BEFORE = 60
GONE_S = 4
# How long publishers may take to know every outcome, and subscribers to have everything.
DRAIN_S = 60


@pytest.fixture(scope="module")
def image(engine, moorline):
    engine.environment["MOORLINE_PROGRAM"] = str(moorline)
    engine.run(DEPLOY / "image", "moorline:test", within=BUILD_S)
    return json.loads(engine.docker("inspect", "moorline:test"))[0]


@pytest.fixture(scope="module")
def prometheus_image(engine):
    """Prometheus of this machine, called as the public image calls its own."""
    context = Path(tempfile.mkdtemp(prefix="moorline-prometheus-"))
    program = Path(shutil.which("prometheus"))
    libraries = [word for word in engine.run("ldd", program).split() if word.startswith("/")]
    for path in [program, *map(Path, libraries)]:
        target = context / "root" / path.relative_to("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path.resolve(), target)
    (context / "Dockerfile").write_text(
        "FROM scratch\nCOPY root/ /\n"
        f'ENTRYPOINT ["{program}", "--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus"]\n'
    )
    engine.docker("build", "--tag", "prometheus:test", context, within=BUILD_S)
    shutil.rmtree(context)


def ask(port, path):
    """Status and body."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=HTTP_S) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refused:
        return refused.code, refused.read().decode()
    except OSError as error:
        return None, str(error)


def wait_ready(nodes=NODES):
    for node in nodes:
        wait_for(f"{node} is ready", lambda: ask(ADMIN[node], "/readyz")[0] == 200, READY_S)


def receive(node, count):
    """What waits for the durable session `keeper`."""
    done = subprocess.run(
        ["mosquitto_sub", "-p", str(MQTT[node]), "-t", "kept/#", "-q", "1", "-i", "keeper", "-c", "-C", str(count), "-W", "30"],
        capture_output=True,
        text=True,
    )
    return done.stdout.split()


def publish(node, payloads):
    for payload in payloads:
        subprocess.run(
            ["mosquitto_pub", "-p", str(MQTT[node]), "-t", "kept/all", "-q", "1", "-i", "writer", "-m", payload],
            check=True,
            timeout=READY_S,
        )


def test_the_image_has_the_program_and_nobody_in_particular(engine, image):
    assert image["Config"]["User"] == "65532:65532"
    assert image["Config"]["Entrypoint"] == ["/usr/bin/moorline"]
    files = subprocess.run(
        f"docker create --name look moorline:test >/dev/null && docker export look | tar t && docker rm look >/dev/null",
        shell=True, env=engine.environment, capture_output=True, text=True, check=True,
    ).stdout.split()
    assert "usr/bin/moorline" in files and "etc/ssl/certs/ca-certificates.crt" in files
    assert not any(name.startswith(("bin/", "usr/sbin/")) or name.endswith("/sh") for name in files), files
    print("image:", image["Size"] >> 20, "MiB,", len(files), "files")


def test_three_nodes_and_prometheus_start_and_survive(engine, image, prometheus_image):
    engine.compose("up", "-d", *NODES, "prometheus")
    for node in NODES:
        wait_for(f"{node} answers", lambda: ask(ADMIN[node], "/livez")[0] == 200, READY_S)
    engine.compose("exec", "-T", "node1", "/usr/bin/moorline", "cluster", "init")
    wait_ready()
    for node in NODES:
        wait_for(f"{node} is healthy", lambda: engine.inspect(node)["State"]["Health"]["Status"] == "healthy", HEALTHY_S)

    # A session that stays, and what waits for it.
    subprocess.run(["mosquitto_sub", "-p", "1883", "-t", "kept/#", "-q", "1", "-i", "keeper", "-c", "-E"], check=True, timeout=READY_S)
    first = [f"a{number}" for number in range(20)]
    publish("node2", first)

    # Prometheus sees all three.
    def up():
        status, body = ask(9090, "/api/v1/query?query=up%7Bjob%3D%22moorline%22%7D%20%3D%3D%201")
        return status == 200 and len(json.loads(body)["data"]["result"]) == len(NODES)

    wait_for("Prometheus scrapes three nodes", up, READY_S)
    # And has the alerts, one group a file or more.
    status, body = ask(9090, "/api/v1/rules")
    loaded = {Path(group["file"]).name for group in json.loads(body)["data"]["groups"]}
    assert status == 200 and loaded == {path.name for path in (DEPLOY / "prometheus/rules").glob("*.yml")}

    # A node that is killed is started again by Docker.
    killed = engine.inspect("node2")["State"]["Pid"]
    os.kill(killed, signal.SIGKILL)
    wait_for("node2 has a new process", lambda: engine.inspect("node2")["State"]["Pid"] not in (0, killed), READY_S)
    second = [f"b{number}" for number in range(20)]
    publish("node3", second)
    wait_ready()
    assert receive("node1", 40) == first + second

    # Containers that come back with other addresses find each other: names are looked up again.
    def address(node):
        return next(iter(engine.inspect(node)["NetworkSettings"]["Networks"].values()))["IPAddress"]

    before = {node: address(node) for node in NODES}
    engine.compose("stop", "node1", "node2")
    network = next(iter(engine.inspect("node3")["NetworkSettings"]["Networks"]))
    # Somebody else takes the first address that is free.
    engine.docker(
        "run", "-d", "--name", "other", "--network", network, "--tmpfs", "/prometheus",
        "-v", f"{DEPLOY}/prometheus.yml:/etc/prometheus/prometheus.yml:ro", "prometheus:test",
    )
    engine.compose("start", "node2")
    engine.compose("start", "node1")
    wait_ready()
    after = {node: address(node) for node in NODES}
    assert before["node1"] != after["node1"], (before, after)
    engine.docker("rm", "--force", "other")
    third = ["c1", "c2"]
    publish("node1", third)
    assert receive("node2", 2) == third

    # SIGTERM ends each well within its time.
    for node in NODES:
        engine.compose("stop", node)
        state = engine.inspect(node)["State"]
        assert state["ExitCode"] == 0 and not state["OOMKilled"], state


class Client:
    """A client of one node, which connects again by itself. Paho's own thread calls back, and waits for no lock of ours."""

    def __init__(self, name, **how):
        self.name = name
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, name, **how)
        self.client.reconnect_delay_set(1, 1)

    def connect(self, node):
        self.client.connect("127.0.0.1", MQTT[node], keepalive=5)
        self.client.loop_start()

    def end(self):
        self.client.disconnect()
        self.client.loop_stop()


class Publisher(Client):
    """Publishes at a steady pace whoever answers, and counts what was acknowledged."""

    def __init__(self, name, node):
        super().__init__(name)
        # Packet ids in the order of the messages, and when each was acknowledged: fewer than there are packet ids.
        self.sent, self.acknowledged = [], {}
        self.stopped = threading.Event()
        self.client.on_publish = self.published
        self.connect(node)
        self.thread = threading.Thread(target=self.work)
        self.thread.start()

    def work(self):
        while len(self.sent) < LOAD and not self.stopped.wait(1 / LOAD_HZ):
            # What is not acknowledged when the connection ends is sent again on the next one, by Paho, perhaps behind what is new.
            message = self.client.publish(f"load/{self.name}", f"{self.name} {len(self.sent)}", qos=1)
            self.sent.append(message.mid)

    def published(self, client, userdata, mid, reason, properties):
        if not reason.is_failure:
            self.acknowledged[mid] = time.monotonic()

    def stop(self):
        self.stopped.set()
        self.thread.join()

    def knows_all(self):
        return len(self.acknowledged) == LOAD

    def due(self):
        return {(self.name, number) for number, mid in enumerate(self.sent) if mid in self.acknowledged}

    def between(self, start, end):
        return sum(start <= when < end for when in list(self.acknowledged.values()))


class Subscriber(Client):
    """Holds a durable session, and keeps what came in the order of its arrival."""

    def __init__(self, name, node):
        super().__init__(name, clean_session=False)
        self.messages, self.granted = [], threading.Event()
        self.client.on_message = self.came
        self.client.on_subscribe = lambda *_: self.granted.set()
        self.connect(node)
        self.client.subscribe("load/#", qos=1)

    def came(self, client, userdata, message):
        publisher, number = message.payload.decode().split()
        self.messages.append((publisher, int(number)))

    def lacks(self, due):
        return due - set(list(self.messages))


def test_what_was_acknowledged_while_a_container_is_killed_is_not_lost(engine, image):
    engine.compose("up", "-d", *NODES)
    for node in NODES:
        wait_for(f"{node} answers", lambda: ask(ADMIN[node], "/livez")[0] == 200, READY_S)
    engine.compose("exec", "-T", "node1", "/usr/bin/moorline", "cluster", "init")
    wait_ready()
    # One on a node that stays, one on the node that is killed, and one that is away until all is over.
    subscribers = [Subscriber("stays", "node1"), Subscriber("struck", "node2"), Subscriber("sleeps", "node3")]
    for one in subscribers:
        assert one.granted.wait(READY_S), one.name
    subscribers.pop().end()
    publishers = [Publisher(f"from-{node}", node) for node in NODES]
    try:
        wait_for("a load", lambda: all(len(one.acknowledged) >= LOAD_BEFORE for one in publishers), DRAIN_S)
        killed = time.monotonic()
        # Docker takes this for the operator's will, and starts nothing again by itself.
        engine.docker("kill", engine.container("node2"))
        time.sleep(GONE_S)
        started = time.monotonic()
        engine.compose("start", "node2")
        wait_ready()
        wait_for("every outcome is known", lambda: all(one.knows_all() for one in publishers), DRAIN_S)
        subscribers.append(Subscriber("sleeps", "node2"))
        due = set().union(*(one.due() for one in publishers))
        for one in subscribers:
            try:
                wait_for(f"{one.name} has everything", lambda: not one.lacks(due), DRAIN_S)
            except AssertionError:
                lost = sorted(one.lacks(due))
                raise AssertionError(f"{one.name} lost {len(lost)} of {len(due)}: {lost[:20]}") from None
            order = list(dict.fromkeys(one.messages))
            for publisher in (one for one in publishers if one.name != "from-node2"):
                numbers = [number for name, number in order if name == publisher.name]
                assert numbers == sorted(numbers), f"{one.name}: out of order from {publisher.name}"
            print(f"{one.name}: {len(due)} acknowledged, 0 lost, {len(one.messages) - len(order)} repeated")
        # It was a load, and the nodes that were left took it.
        outage = {one.name: one.between(killed, started) for one in publishers}
        print("acknowledged while node2 was gone:", outage)
        assert outage["from-node1"] and outage["from-node3"], outage
    finally:
        for one in publishers:
            one.stop()
        for one in [*subscribers, *publishers]:
            one.end()
    for node in NODES:
        engine.compose("stop", node)
