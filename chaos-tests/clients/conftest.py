"""A real cluster of three nodes for the tests: `moorline demo`, started once and ended with the tests.

MOORLINE_BINARY names the program. `scripts/verify clients` sets it, and runs this in an environment of its own.
"""

import functools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import quote, urlencode

import pytest
from waiting import HTTP_S, ready, wait_for

DEPLOY = Path(__file__).parents[2] / "deploy"

# Three nodes start in seconds; a loaded machine takes longer.
READY_S = 90
# A node hands over and stops within its own deadline.
STOP_S = 30




class Node:
    """Where one node is."""

    def __init__(self, row):
        self.id = row["id"]
        self.host, port = row["mqtt"].rsplit(":", 1)
        self.port = int(port)
        self.ws_port = int(row["ws"].rsplit(":", 1)[1]) if row.get("ws") else None
        self.admin = row["admin"]
        self.mqtt = row["mqtt"]
        self.http, self.moonlight = row.get("http"), row.get("moonlight")
        # With TLS, and whom to trust then.
        self.mqtts, self.https, self.moonlights = row.get("mqtts"), row.get("https"), row.get("moonlights")
        self.ca, self.api = row.get("ca"), row.get("api")
        self.pid = row["pid"]


class Cluster:
    """The running demo."""

    def __init__(self, binary, directory):
        self.directory = directory
        self.log = open(directory.with_suffix(".out"), "wb")
        arguments = ["demo", "--quiet", "--fresh", "--stop-with-stdin", "--dir", directory]
        self.process = subprocess.Popen(
            [binary, *arguments], stdin=subprocess.PIPE, stdout=self.log, stderr=self.log
        )
        wait_for("no cluster is ready", self._started, READY_S)

    def _started(self):
        assert self.process.poll() is None, Path(self.log.name).read_text(errors="replace")
        return (self.directory / "ready.json").exists()

    @property
    def nodes(self):
        """The nodes as they are now: a restarted one has another process."""
        rows = json.loads((self.directory / "ready.json").read_text())
        return [Node(row) for row in rows]

    @functools.cached_property
    def token(self):
        """An administrator's: the first of a cluster needs none."""
        body = json.dumps({"name": "root", "role": "admin"}).encode()
        url = f"http://{self.nodes[0].admin}/api/v1/tokens"
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=HTTP_S) as answer:
            return json.load(answer)["token"]

    def session(self, client_id):
        """A client's session as the first node's replica has it, or None."""
        url = f"http://{self.nodes[0].admin}/api/v1/sessions?client={quote(client_id)}"
        try:
            with urllib.request.urlopen(url, timeout=HTTP_S) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            assert error.code == 404, error.read()
            return None

    def wait_settled(self, client_id):
        """Until nothing waits for a session or for its acknowledgement any more."""
        wait_for(
            f"something waits for {client_id}",
            lambda: self.session(client_id)["queued_messages"] == 0,
            READY_S,
        )

    def kill(self, node):
        """kill -9. The demo starts the node again after a few seconds."""
        os.kill(node.pid, signal.SIGKILL)

    def wait_restarted(self, killed):
        """Until the node that was killed is another process, and ready."""

        def restarted():
            node = next(node for node in self.nodes if node.id == killed.id)
            return node.pid != killed.pid and ready(node)

        wait_for(f"node {killed.id} is not back", restarted, READY_S)

    def stop(self):
        """Ends it as its parent's death would."""
        self.process.stdin.close()
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        finally:
            self.log.close()


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    """Three nodes; their logs stay where pytest's temporary files are."""
    binary = os.environ.get("MOORLINE_BINARY") or shutil.which("moorline")
    assert binary, "MOORLINE_BINARY does not say which program to test"
    running = Cluster(binary, tmp_path_factory.mktemp("cluster") / "demo")
    yield running
    running.stop()


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for held in sockets:
        held.bind(("127.0.0.1", 0))
    ports = [held.getsockname()[1] for held in sockets]
    for held in sockets:
        held.close()
    return ports


@pytest.fixture(scope="session")
def secure(tmp_path_factory):
    """One node that listens with TLS; where it is, with `mqtts_port`, `wss_port`, `https_port`, `moonlights_port` and `ca`."""
    folder = tmp_path_factory.mktemp("secure")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        + ["-keyout", folder / "key.pem", "-out", folder / "cert.pem", "-days", "2"]
        + ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost,DNS:*.example.com,DNS:*.messaging.example.com"]
        # Strict clients take no authority's certificate for a server's.
        + ["-addext", "basicConstraints=critical,CA:FALSE"],
        check=True,
        capture_output=True,
    )
    mqtt, admin, cluster, mqtts, wss, https, moonlights = free_ports(7)
    (folder / "cluster.key").write_text("5a" * 32)
    (folder / "node.toml").write_text(
        f"""
        [node]
        id = 1
        data-dir = "{folder}/data"
        [listen]
        mqtt = "127.0.0.1:{mqtt}"
        mqtts = "127.0.0.1:{mqtts}"
        wss = "127.0.0.1:{wss}"
        https = "127.0.0.1:{https}"
        moonlights = "127.0.0.1:{moonlights}"
        admin = "127.0.0.1:{admin}"
        cluster = "127.0.0.1:{cluster}"
        [mqtt]
        unauthenticated-per-address-max = 0
        connects-per-client-s = 0
        connects-per-tenant-s = 0
        [tls]
        cert = "{folder}/cert.pem"
        key = "{folder}/key.pem"
        [security]
        key-file = "{folder}/cluster.key"
        anonymous = true
        [cluster]
        shards = 1
        peers = [{{ id = 1, address = "127.0.0.1:{cluster}" }}]
        """
    )
    binary = os.environ.get("MOORLINE_BINARY") or shutil.which("moorline")
    with open(folder / "node.log", "wb") as log:
        process = subprocess.Popen([binary, "server", "--config", folder / "node.toml"], stdout=log, stderr=log)
    row = {"id": 1, "mqtt": f"127.0.0.1:{mqtt}", "admin": f"127.0.0.1:{admin}", "pid": process.pid}
    node = Node(row)
    node.mqtts_port, node.wss_port, node.ca = mqtts, wss, str(folder / "cert.pem")
    node.https_port, node.moonlights_port = https, moonlights

    def is_ready():
        assert process.poll() is None, (folder / "node.log").read_text()
        init = ["cluster", "init", "--admin", node.admin]
        subprocess.run([binary, *init], capture_output=True, check=False)
        return ready(node)

    wait_for("the node is not ready", is_ready, READY_S)
    yield node
    process.terminate()
    process.wait(STOP_S)


def shipped_config(targets):
    """`deploy/prometheus.yml` for these targets, in a hurry."""
    config = (DEPLOY / "prometheus.yml").read_text()
    listed = ", ".join(f'"{target}"' for target in targets)
    config, replaced = re.subn(r"targets: \[.*\]", f"targets: [{listed}]", config)
    assert replaced == 1, "deploy/prometheus.yml has one list of targets"
    config, replaced = re.subn(r"(- )(prometheus/rules)", rf"\1{DEPLOY}/\2", config)
    assert replaced == 1, "deploy/prometheus.yml loads the rules"
    return re.sub(r"(scrape_interval|scrape_timeout|evaluation_interval): .*", r"\1: 1s", config)


@pytest.fixture(scope="session")
def prometheus(cluster, tmp_path_factory):
    """Prometheus with the shipped configuration, its targets replaced by this cluster's. Called, it answers a question to its API."""
    folder = tmp_path_factory.mktemp("prometheus")
    (folder / "prometheus.yml").write_text(shipped_config(node.admin for node in cluster.nodes))
    address = f"127.0.0.1:{free_ports(1)[0]}"
    with open(folder / "prometheus.log", "wb") as log:
        process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={folder}/prometheus.yml",
                f"--storage.tsdb.path={folder}/data",
                f"--web.listen-address={address}",
            ],
            stdout=log,
            stderr=log,
        )

        def ask(path, **parameters):
            assert process.poll() is None, (folder / "prometheus.log").read_text()
            try:
                with urllib.request.urlopen(f"http://{address}{path}?{urlencode(parameters)}", timeout=HTTP_S) as answer:
                    return json.load(answer)["data"]
            except urllib.error.HTTPError as error:
                # Not before it is ready (503), or never (400).
                assert error.code == 503, f"{parameters}: {error.read().decode()}"
                return None
            except OSError:
                return None

        yield ask
        process.terminate()
        process.wait(STOP_S)


@pytest.fixture
def topic(request):
    """A topic of its own for each test, so that none hears another."""
    return "t/" + request.node.name.replace("[", "/").replace("]", "")


def pytest_configure(config):
    """One word for tests that need a tool this machine may lack."""
    config.addinivalue_line("markers", "needs(program): skipped without it, failed if strict")


def pytest_runtest_setup(item):
    """Skips what can't run here; under `scripts/verify --strict` that is a failure."""
    for marker in item.iter_markers("needs"):
        program = marker.args[0]
        if shutil.which(program) is None:
            outcome = pytest.fail if os.environ.get("MOORLINE_STRICT") else pytest.skip
            outcome(f"no {program} here")
