"""The demo by TLS, as its last lines and README say: mosquitto and curl, trusting the demo's own authority."""

import shlex
import subprocess

import pytest

WAIT_S = 20


def run(line):
    """Runs a line; its exit code, and what it wrote."""
    done = subprocess.run(shlex.split(line), capture_output=True, text=True, timeout=WAIT_S, check=False)
    return done.returncode, done.stdout + done.stderr


def at(address):
    """By the name that certificates have."""
    return f"-h localhost -p {address.rsplit(':', 1)[1]}"


@pytest.mark.needs("mosquitto_pub")
@pytest.mark.needs("mosquitto_sub")
@pytest.mark.parametrize("version", ["tlsv1.2", "tlsv1.3"])
def test_mosquitto_speaks_tls_to_every_node(cluster, topic, version):
    for node in cluster.nodes:
        secure = f"--cafile '{node.ca}' --tls-version {version} {at(node.mqtts)}"
        assert run(f"mosquitto_pub {secure} -q 1 -r -t {topic}/{node.id} -m hello") == (0, "")
        code, heard = run(f"mosquitto_sub {secure} -q 1 -t {topic}/{node.id} -C 1 -W {WAIT_S}")
        assert (code, heard.strip()) == (0, "hello")


@pytest.mark.needs("mosquitto_pub")
def test_who_does_not_trust_the_authority_does_not_come_in(cluster, topic):
    system = "--capath /etc/ssl/certs"
    code, _ = run(f"mosquitto_pub {system} {at(cluster.nodes[0].mqtts)} -t {topic} -m hello")
    assert code != 0


@pytest.mark.needs("curl")
def test_curl_asks_the_api_by_https(cluster):
    for node in cluster.nodes:
        url = f"https://localhost:{node.api.rsplit(':', 1)[1]}"
        code, answer = run(f"curl -sS --cacert '{node.ca}' {url}/health/ready")
        assert code == 0 and '"status":"ok"' in answer, answer
        code, answer = run(f"curl -sS --cacert '{node.ca}' {url}/api/v1/tenants")
        assert code == 0 and "unauthorised" in answer, answer
        code, answer = run(f"curl -sS {url}/health/ready")
        assert code == 60, answer
