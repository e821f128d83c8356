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
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from conftest import BUILD_S, DEPLOY, READY_S, wait_for

NODES = ["node1", "node2", "node3"]
ADMIN = dict(zip(NODES, [9400, 9401, 9402]))
MQTT = dict(zip(NODES, [1883, 1884, 1885]))
HTTP_S = 5
# Docker's first look at a container's health comes after 10 s, and it looks every 10 s.
HEALTHY_S = 60


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
