"""The HTTP device API by curl, word for word: `http_transcript.txt` says what is said and what is heard."""

import json
import re
from pathlib import Path

import pytest
from transcript import hear, parts, read

TRANSCRIPT = Path(__file__).with_name("http_transcript.txt")
LARGE = 256 * 1024 + 1


@pytest.fixture(scope="module")
def tokens(plant):
    """Access tokens of everybody in the transcript."""
    deleted = plant.register("curl-deleted")
    plant.ask("DELETE", "/devices/curl-deleted?tenant=plant")
    return {"meter": plant.register("curl-meter"), "deleted": deleted, "nobody": "nobodys-token-0123456789"}


def act(plant, line, admin):
    """What somebody else does: `! share DEVICE ATTRIBUTES` or `! call DEVICE METHOD PARAMS`."""
    _, what, device, rest = line.split(" ", 3)
    if what == "share":
        plant.share(f"curl-{device}", json.loads(rest), admin)
    else:
        method, params = rest.split(" ", 1)
        call = {"method": method, "params": json.loads(params)}
        plant.ask("POST", f"/devices/curl-{device}/calls?tenant=plant", call, admin=admin)


def test_curl_hears_what_the_transcript_says(cluster, plant, tokens):
    for number, (said, heard) in enumerate(read(TRANSCRIPT)):
        # One node after the other: it is the same everywhere.
        node = cluster.nodes[number % len(cluster.nodes)]
        for line in [line for line in said if line[:1] == "!"]:
            act(plant, line, node.admin)
        first, headers, body = parts([line for line in said if line[:1] != "!"])
        method, path = first.split()
        path = re.sub(r"\{(\w+)\}", lambda name: tokens[name[1]], path)
        assert hear(method, f"http://{node.http}{path}", headers, body) == heard, first


def test_a_body_that_is_too_large_is_refused(cluster, tokens):
    url = f"http://{cluster.nodes[0].http}/api/v1/{tokens['meter']}/telemetry"
    body = json.dumps({"t": "x" * LARGE})
    assert hear("POST", url, ["expect:"], body)[0] == "413"
