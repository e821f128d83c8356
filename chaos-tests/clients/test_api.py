"""The admin API does what its OpenAPI document says, whatever it is asked: schemathesis against a live node.

Seeded, so that a run can be repeated: MOORLINE_SEED. What it makes stays in a node of its own, which has no devices to lose.
"""

import json
import os
import shutil
import subprocess
import sys
import urllib.request

import pytest

from conftest import READY_S, STOP_S, Node, free_ports
from waiting import ready, wait_for

# Cases of each operation, and how long they may take for each of two tokens; the deadline is for a machine that hangs.
CASES = 12
FUZZING_S = 40
DEADLINE_S = 90
# Streams last for ever, which no test waits for; imports take lines, which it does not know.
LASTING = "^/api/v1/(events|devices/import|devices/export)$"


@pytest.fixture(scope="module")
def api(tmp_path_factory):
    """One node with a key, and its first token."""
    folder = tmp_path_factory.mktemp("api")
    mqtt, admin, cluster = free_ports(3)
    (folder / "cluster.key").write_text("5a" * 32)
    (folder / "node.toml").write_text(
        f"""
        [node]
        id = 1
        data-dir = "{folder}/data"
        [listen]
        mqtt = "127.0.0.1:{mqtt}"
        admin = "127.0.0.1:{admin}"
        cluster = "127.0.0.1:{cluster}"
        [security]
        key-file = "{folder}/cluster.key"
        [cluster]
        shards = 2
        peers = [{{ id = 1, address = "127.0.0.1:{cluster}" }}]
        """
    )
    binary = os.environ.get("MOORLINE_BINARY") or shutil.which("moorline")
    with open(folder / "node.log", "wb") as log:
        process = subprocess.Popen([binary, "server", "--config", folder / "node.toml"], stdout=log, stderr=log)
    node = Node({"id": 1, "mqtt": f"127.0.0.1:{mqtt}", "admin": f"127.0.0.1:{admin}", "pid": process.pid})

    def is_ready():
        assert process.poll() is None, (folder / "node.log").read_text()
        subprocess.run([binary, "cluster", "init", "--admin", node.admin], capture_output=True, check=False)
        return ready(node)

    wait_for("the node is not ready", is_ready, READY_S)
    node.token = ask(node, "tokens", {"name": "root", "role": "admin"})["token"]
    ask(node, "tenants", {"name": "acme"}, node.token)
    node.tenant_token = ask(node, "tokens?tenant=acme", {"name": "op", "role": "admin"}, node.token)["token"]
    ask(node, "devices", {"name": "pump-1"}, node.tenant_token)
    yield node
    assert process.poll() is None, (folder / "node.log").read_text()
    process.terminate()
    process.wait(STOP_S)


def ask(node, path, body, token=None):
    headers = {"Content-Type": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    url = f"http://{node.admin}/api/v1/{path}"
    request = urllib.request.Request(url, json.dumps(body).encode(), headers, method="POST")
    with urllib.request.urlopen(request, timeout=STOP_S) as answer:
        return json.load(answer)


@pytest.mark.parametrize("whose", ["token", "tenant_token"])
def test_no_answer_is_other_than_the_document_says(api, whose, tmp_path):
    """No 5xx; each status, type and body is one of the document; who has no token gets nothing."""
    program = os.path.join(os.path.dirname(sys.executable), "schemathesis")
    seed = str(int(os.environ.get("MOORLINE_SEED", "20261121")) % 2**32)
    checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
    run = subprocess.run(
        [program, "run", f"http://{api.admin}/api/v1/openapi.json", "--checks", checks, "--seed", seed]
        + ["--header", f"Authorization: Bearer {getattr(api, whose)}", "--phases", "examples,coverage,fuzzing"]
        + ["--max-examples", str(CASES), "--max-time", str(FUZZING_S), "--exclude-path-regex", LASTING]
        + ["--request-timeout", "20", "--max-failures", "20", "--no-shrink", "--no-color"]
        + ["--generation-database", "none"],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        cwd=tmp_path,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-8_000:] + run.stderr[-2_000:]
