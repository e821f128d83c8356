"""The management API by curl, word for word: `rest_transcript.txt` says what is said and what is heard, but for what differs each time."""

import re
from pathlib import Path

import pytest
from organisation import DOMAIN, ORG
from transcript import hear, parts, read

TRANSCRIPT = Path(__file__).with_name("rest_transcript.txt")
HOST = f"{ORG}.{DOMAIN}"
OPERATOR, LOOK = f"a-{ORG}-curl0perat", f"a-{ORG}-curl000l00k"[: len(f"a-{ORG}-") + 10]
TIMES = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
TOKENS = re.compile(r'"authToken":"[A-Za-z0-9]{36}"')
IDS = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{11}0")
# Follows from what is not compared.
LENGTH = "content-length"


@pytest.fixture(scope="module")
def who(org):
    """User and secret of everybody in the transcript."""

    def key(name, role):
        token = org.ask("POST", "/tokens?tenant=watson", {"name": name, "role": role})["token"]
        return f"{name}:{token.split(f'_{name}_')[1]}"

    operator = key(OPERATOR, "operator")
    return {
        "operator": operator,
        "look": key(LOOK, "read-only"),
        "device": "use-token-auth:12345678",
        "gateway": f"g/{ORG}/gw/any:12345678",
        "broken": f"{OPERATOR}:nobodys-token",
        "foreign": operator.replace(ORG, "zzz999"),
        "nobody": None,
    }


def plain(line):
    """A line in which what differs each time has a name."""
    line = TIMES.sub("{time}", line)
    return IDS.sub("{id}", TOKENS.sub('"authToken":"…"', line))


def test_curl_hears_what_the_transcript_says(cluster, who):
    learnt = {}
    for number, (said, heard) in enumerate(read(TRANSCRIPT)):
        first, headers, body = parts([line.replace("{request}", learnt.get("request", "")) for line in said])
        method, path, name = first.split()
        # One node after the other: it is the same everywhere.
        address = cluster.nodes[number % len(cluster.nodes)].http
        more = ["--connect-to", f"{HOST}:80:{address}"]
        more += ["--user", who[name]] if who[name] else []
        answer = hear(method, f"http://{HOST}{path}", headers, body, *more)
        request = re.search(r'"reqId":"([^"]+)"', "\n".join(answer))
        if request:
            learnt["request"] = request[1]
        assert [plain(line) for line in answer if not line.startswith(LENGTH)] == heard, first
