"""HTTP messaging by curl, word for word: `http_transcript.txt` says what is said and what is heard."""

from pathlib import Path

import pytest
from organisation import HOST, KEY, ORG
from transcript import hear, parts, read

LOOK = f"a-{ORG}-l00kl00kl0"
LARGE = 131_073
TRANSCRIPT = Path(__file__).with_name("http_transcript.txt")


def curl(address, method, path, user, headers, body, *more, host=HOST, scheme="http"):
    """What curl hears, as lines of the transcript."""
    port = 80 if scheme == "http" else 443
    more = ["--connect-to", f"{host}:{port}:{address}", *more]
    more += ["--user", user] if user else []
    return hear(method, f"{scheme}://{host}{path}", headers, body, *more)


@pytest.fixture(scope="module")
def who(org):
    """User and secret of everybody in the transcript."""
    look = org.ask("POST", "/tokens?tenant=watson", {"name": LOOK, "role": "read-only"})["token"]
    gateway = org.register("gw", "c1", "gateway")
    return {
        "device": f"use-token-auth:{org.register('pump', 'c1')}",
        "gateway": f"g/{ORG}/gw/c1:{gateway}",
        "key": f"{KEY}:{org.key_token}",
        "look": f"{LOOK}:{look.split(f'_{LOOK}_')[1]}",
        "gateway-": f"g-{ORG}-gw-c1:{gateway}",
        "wrong": "use-token-auth:nobodys-token",
        "broken": f"{KEY}:nobodys-token",
        "foreign": f"{KEY.replace(ORG, 'zzz999')}:{org.key_token}",
        "nobody": None,
    }


def test_curl_hears_what_the_transcript_says(cluster, who):
    for number, (said, heard) in enumerate(read(TRANSCRIPT)):
        first, headers, body = parts(said)
        method, path, name = first.split()
        # One node after the other: it is the same everywhere.
        address = cluster.nodes[number % len(cluster.nodes)].http
        assert curl(address, method, path, who[name], headers, body) == heard, first


def test_a_body_that_is_too_large_is_refused(cluster, who):
    path = "/api/v0002/device/types/pump/devices/c1/events/large"
    address, body = cluster.nodes[0].http, "x" * LARGE
    heard = curl(address, "POST", path, who["device"], ["content-type: text/plain", "expect:"], body)
    assert heard == ["413", "connection: close", "content-length: 0"]
    heard = curl(address, "POST", path, who["device"], ["content-type: text/plain", "expect:"], body[:-1])
    assert heard == ["200", "content-length: 0"]


def test_over_tls(secure, secure_org):
    user = f"use-token-auth:{secure_org.register('pump', 'https')}"
    path, address = "/api/v0002/device/types/pump/devices/https/events/e", f"127.0.0.1:{secure.https_port}"
    heard = curl(address, "POST", path, user, ["content-type: application/json"], "{}", "--cacert", secure.ca, scheme="https")
    assert heard == ["200", "content-length: 0"]
    # TLS with the name of another organisation.
    other = HOST.replace(ORG, "zzz999")
    headers = ["content-type: application/json", f"host: {HOST}"]
    heard = curl(address, "POST", path, user, headers, "{}", "--cacert", secure.ca, host=other, scheme="https")
    assert heard == ["403", "connection: close", "content-length: 0"]
