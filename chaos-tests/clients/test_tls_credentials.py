"""Devices that prove who they are in the TLS handshake: pre-shared keys, pinned certificates, and certificates of a tenant's own
authority. mosquitto's clients against the demo's nodes; what is revoked is refused on all of them.
"""

import json
import shlex
import subprocess
import urllib.error
import urllib.request

import pytest

TENANT = "proofs"
WAIT_S = 20
# What mosquitto_pub ends with: reasons of MQTT 3.1.1.
OK, REFUSED = 0, 4


@pytest.fixture(scope="module")
def ask(cluster):
    """Requests to the API, in the tenant of these tests."""

    def asked(method, path, body=None, node=0):
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {cluster.token}"}
        data = None if body is None else json.dumps(body).encode()
        url = f"http://{cluster.nodes[node].admin}/api/v1{path}"
        request = urllib.request.Request(url, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=WAIT_S) as answer:
            text = answer.read()
            return json.loads(text) if text else None

    asked("POST", "/tenants", {"name": TENANT, "aliases": ["host:localhost"]})
    return asked


def device(ask, name):
    ask("POST", f"/devices?tenant={TENANT}", {"name": name})


def credential(ask, name, body):
    return ask("POST", f"/devices/{name}/credentials?tenant={TENANT}", body)


def revoke(ask, name, made):
    ask("DELETE", f"/devices/{name}/credentials/{made['id']}?tenant={TENANT}", node=1)


def openssl(line, folder):
    subprocess.run(["openssl", *shlex.split(line)], cwd=folder, check=True, capture_output=True)


def self_signed(folder, name):
    """A certificate and its key; the certificate as text."""
    openssl(
        f"req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout {name}.key -out {name}.pem -days 2 "
        f"-subj /CN={name} -addext basicConstraints=critical,CA:FALSE -addext extendedKeyUsage=clientAuth",
        folder,
    )
    return (folder / f"{name}.pem").read_text()


def named(name):
    """Says who it is beside its certificate: the demo lets in who says nothing."""
    return f"-u {name}@{TENANT} -P none"


def publishes(node, topic, proof):
    """The exit code of a publish that is acknowledged or not."""
    port = node.mqtts.rsplit(":", 1)[1]
    line = f"mosquitto_pub -h localhost -p {port} -q 1 -t {topic} -m here {proof}"
    return subprocess.run(shlex.split(line), capture_output=True, timeout=WAIT_S, check=False).returncode


@pytest.mark.needs("mosquitto_pub")
@pytest.mark.parametrize("version", ["tlsv1.2", "tlsv1.3"])
def test_a_pre_shared_key_is_proof_on_every_node_until_it_is_revoked(cluster, ask, version):
    name = "keyed-" + version.replace(".", "-")
    device(ask, name)
    made = credential(ask, name, {"kind": "psk"})
    proof = f"--psk {made['secret']} --psk-identity {made['identity']} --tls-version {version}"
    wrong = f"--psk {'ab' * 32} --psk-identity {made['identity']} --tls-version {version}"
    nobody = f"--psk {made['secret']} --psk-identity nobody@{TENANT} --tls-version {version}"
    for node in cluster.nodes:
        assert publishes(node, f"{name}/state", proof) == OK
        assert publishes(node, f"{name}/state", wrong) != OK
        assert publishes(node, f"{name}/state", nobody) != OK
    revoke(ask, name, made)
    for node in cluster.nodes:
        assert publishes(node, f"{name}/state", proof) != OK


@pytest.mark.needs("mosquitto_pub")
@pytest.mark.parametrize("pin", ["key", "certificate"])
def test_a_pinned_certificate_is_proof_until_it_is_revoked(cluster, ask, tmp_path, pin):
    name = f"pinned-{pin}"
    device(ask, name)
    pem, _ = self_signed(tmp_path, name), self_signed(tmp_path, "other")
    made = credential(ask, name, {"kind": "certificate", "certificate": pem, "pin": pin})
    trust = f"--cafile {cluster.nodes[0].ca}"
    proof = f"{trust} --cert {tmp_path}/{name}.pem --key {tmp_path}/{name}.key {named(name)}"
    other = f"{trust} --cert {tmp_path}/other.pem --key {tmp_path}/other.key {named(name)}"
    for node in cluster.nodes:
        assert publishes(node, f"{name}/state", proof) == OK
        assert publishes(node, f"{name}/state", other) == REFUSED
    revoke(ask, name, made)
    for node in cluster.nodes:
        assert publishes(node, f"{name}/state", proof) != OK


@pytest.mark.needs("mosquitto_pub")
def test_who_the_tenants_authority_vouches_for_is_the_device_it_names(cluster, ask, tmp_path):
    name = "vouched"
    device(ask, name)
    openssl(
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=fleet "
        "-addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign",
        tmp_path,
    )
    (tmp_path / "client.ext").write_text("basicConstraints=critical,CA:FALSE\nextendedKeyUsage=clientAuth\n")
    for subject in [name, "unknown"]:
        openssl(
            f"req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout {subject}.key -out {subject}.csr "
            f"-subj /CN={subject}",
            tmp_path,
        )
        openssl(
            f"x509 -req -in {subject}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile client.ext "
            f"-out {subject}.pem",
            tmp_path,
        )
    self_signed(tmp_path, "stranger")
    trust = f"--cafile {cluster.nodes[0].ca}"

    def proof(subject):
        return f"{trust} --cert {tmp_path}/{subject}.pem --key {tmp_path}/{subject}.key {named(subject)}"

    assert publishes(cluster.nodes[0], f"{name}/state", proof(name)) == REFUSED, "nobody vouches for it yet"
    anchors = {"certificates": (tmp_path / "ca.pem").read_text(), "named-by": "common-name"}
    ask("PATCH", f"/tenants/{TENANT}", {"settings": {"trust-anchors": anchors}})
    for node in cluster.nodes:
        assert publishes(node, f"{name}/state", proof(name)) == OK
        assert publishes(node, "unknown/state", proof("unknown")) == REFUSED
        assert publishes(node, "stranger/state", proof("stranger")) == REFUSED
    ask("PUT", f"/devices/{name}?tenant={TENANT}", {"enabled": False})
    for node in cluster.nodes:
        assert publishes(node, f"{name}/state", proof(name)) == REFUSED
