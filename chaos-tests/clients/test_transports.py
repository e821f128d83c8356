"""Every protocol version over everything that carries it: TCP, WebSocket, TLS, both. Test names are claims."""

import os
import shutil
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from conftest import HTTP_S, READY_S
from connection import V5, V31, V311, Client

VERSIONS = pytest.mark.parametrize("version", [V31, V311, V5], ids=["v31", "v311", "v5"])
# Larger than a frame of ours and than a TLS record.
LARGE = "x" * 200_000


def exchange(one, other, topic, version, **transport):
    """Both ways between a client of one transport and one of plain TCP."""
    with Client(f"a-{topic}", version, **transport) as here, Client(f"b-{topic}", version) as there:
        here.connect(one)
        there.connect(other)
        assert here.subscribe(f"{topic}/here") == 1
        assert there.subscribe(f"{topic}/there") == 1
        there.publish_many(f"{topic}/here", [*map(str, range(50)), LARGE])
        assert here.payloads(51) == [*map(str, range(50)), LARGE]
        here.publish_many(f"{topic}/there", [*map(str, range(50)), LARGE])
        assert there.payloads(51) == [*map(str, range(50)), LARGE]


@VERSIONS
def test_websocket_clients_exchange_messages_with_others(cluster, topic, version):
    exchange(cluster.nodes[0], cluster.nodes[2], topic, version, transport="websockets")


@VERSIONS
def test_a_durable_session_moves_between_websocket_and_tcp(cluster, topic, version):
    name = f"s-{topic}"
    with Client(name, version, durable=True, transport="websockets") as reader:
        reader.connect(cluster.nodes[0])
        reader.subscribe(topic)
    with Client(f"p-{topic}", version, transport="websockets") as writer:
        writer.connect(cluster.nodes[1])
        writer.publish_many(topic, [str(number) for number in range(100)])
    with Client(name, version, durable=True) as reader:
        reader.connect(cluster.nodes[2])
        assert reader.payloads(100) == [str(number) for number in range(100)]


def test_a_plain_http_request_is_told_to_upgrade(cluster):
    node = cluster.nodes[0]
    request = urllib.request.Request(f"http://{node.host}:{node.ws_port}/mqtt")
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=HTTP_S)
    assert refused.value.code == 426


# ---- TLS: a node of its own, with a certificate made now (`secure`)


@pytest.mark.needs("openssl")
@VERSIONS
def test_tls_clients_exchange_messages_with_others(secure, topic, version):
    exchange(secure, secure, topic, version, port=secure.mqtts_port, ca=secure.ca)


@pytest.mark.needs("openssl")
@VERSIONS
def test_websocket_over_tls_does_the_same(secure, topic, version):
    over = {"transport": "websockets", "port": secure.wss_port, "ca": secure.ca}
    exchange(secure, secure, topic, version, **over)


@pytest.mark.needs("openssl")
@pytest.mark.parametrize("version, accepted", [("tls1_1", False), ("tls1_2", True), ("tls1_3", True)])
def test_tls_1_2_and_1_3_are_spoken_and_nothing_older(secure, version, accepted):
    done = subprocess.run(
        ["openssl", "s_client", "-connect", f"127.0.0.1:{secure.mqtts_port}", f"-{version}"]
        + ["-CAfile", secure.ca, "-verify_return_error", "-cipher", "DEFAULT@SECLEVEL=0"],
        input=b"",
        capture_output=True,
        timeout=READY_S,
        check=False,
    )
    assert (done.returncode == 0) == accepted, done.stdout + done.stderr


@pytest.mark.needs("openssl")
def test_config_check_names_the_key_of_a_wrong_file(secure, tmp_path):
    binary = os.environ.get("MOORLINE_BINARY") or shutil.which("moorline")
    text = Path(secure.ca).with_name("node.toml").read_text()
    wrong = tmp_path / "node.toml"
    wrong.write_text(text.replace(f'cert = "{secure.ca}"', 'cert = "nowhere.pem"'))
    done = subprocess.run([binary, "config", "check", wrong], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "tls: cert: nowhere.pem: " in done.stderr, done.stderr
