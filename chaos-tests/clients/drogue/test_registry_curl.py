"""The registry by curl, word for word: `registry_transcript.txt` says what is said and what is heard, but for what differs each time."""

import json
import re
from pathlib import Path

import pytest
from connection import V5
from plant import APP, Device
from transcript import hear, parts, read

TRANSCRIPT = Path(__file__).with_name("registry_transcript.txt")
MERGE, PATCH = "application/merge-patch+json", "application/json-patch+json"
DIFFERS = [
    (re.compile(r'"(uid|resourceVersion)":"[^"]+"'), r'"\1":"…"'),
    (re.compile(r'"(creationTimestamp)":"[^"]+"'), r'"\1":"…"'),
    (re.compile(r'"(generation)":\d+'), r'"\1":0'),
]
# Follows from what is not compared.
LENGTH = "content-length"


@pytest.fixture(scope="module")
def who(plant):
    by = {"operator": plant.operator, "look": plant.look, "key": plant.key, "broken": f"{plant.operator}x"}
    shown = {name: ["--header", f"authorization: Bearer {token}"] for name, token in by.items()}
    return shown | {"basic": ["--user", f"somebody:{plant.operator}"], "nobody": []}


def plain(line):
    """A line in which what differs each time has a name."""
    for pattern, name in DIFFERS:
        line = pattern.sub(name, line)
    return line


def learn(line, answer, names):
    """`! NAME PATTERN`: what the pattern finds in the last answer has this name from then on."""
    _, name, pattern = line.split(" ", 2)
    names[name] = re.search(pattern, "\n".join(answer))[1]


def test_curl_hears_what_the_transcript_says(cluster, who):
    names, answer = {}, []
    for number, (said, heard) in enumerate(read(TRANSCRIPT)):
        for line in [line for line in said if line[:1] == "!"]:
            learn(line, answer, names)
        filled = [re.sub(r"\{(\w+)\}", lambda found: names.get(found[1], found[0]), line) for line in said if line[:1] != "!"]
        first, headers, body = parts(filled)
        method, path, name = first.split()
        # One node after the other: it is the same everywhere.
        node = cluster.nodes[number % len(cluster.nodes)]
        answer = hear(method, f"http://{node.http}{path}", headers, body, *who[name])
        assert [plain(line) for line in answer if not line.startswith(LENGTH)] == heard, f"{first} {body}"


def test_a_device_of_the_registry_is_let_in_on_every_node_at_once(cluster, plant, who):
    base, operator = f"/api/registry/v1alpha1/apps/{APP}/devices", who["operator"]
    device = {"metadata": {"application": APP, "name": "reg-in"}, "spec": {"authentication": {"credentials": [{"pass": "first"}]}}}
    json_type, nodes = ["content-type: application/json"], cluster.nodes

    def reasons(secret):
        return [Device(f"reg-in@{APP}", secret, V5).reason(node) for node in nodes]

    def ask(method, path, body=None, headers=json_type):
        return hear(method, f"http://{nodes[1].http}{path}", headers, json.dumps(body) if body else "", *operator)

    assert ask("POST", base, device)[0] == "201"
    assert reasons("first") == [0, 0, 0]
    second = {"spec": {"authentication": {"credentials": [{"pass": "second"}]}}}
    assert ask("PATCH", f"{base}/reg-in", second, [f"content-type: {MERGE}"])[0] == "204"
    assert (reasons("second"), reasons("first")) == ([0, 0, 0], [0x86] * 3)
    # Written back as it was read, it keeps what is never shown.
    shown = json.loads(ask("GET", f"{base}/reg-in")[-1])
    assert "authentication" not in shown.get("spec", {})
    assert ask("PUT", f"{base}/reg-in", shown)[0] == "204"
    assert reasons("second") == [0, 0, 0]
    assert ask("PATCH", f"{base}/reg-in", [{"op": "add", "path": "/spec/core", "value": {"disabled": True}}], [f"content-type: {PATCH}"])[0] == "204"
    assert reasons("second") == [0x86] * 3
    assert ask("PATCH", f"{base}/reg-in", [{"op": "remove", "path": "/spec/core"}], [f"content-type: {PATCH}"])[0] == "204"
    with Device(f"reg-in@{APP}", "second", V5) as there:
        there.connect(nodes[2])
        assert ask("DELETE", f"{base}/reg-in")[0] == "204"
        assert there.wait_ended().value == 0x87
        there.paho.loop_stop()
    assert reasons("second") == [0x86] * 3


def test_a_list_has_pages(cluster, plant, who):
    for number in range(5):
        plant.device(f"reg-page-{number}", labels={"page": "yes", "number": str(number)})
    base = f"http://{cluster.nodes[2].http}/api/registry/v1alpha1/apps/{APP}/devices"

    def names(query):
        listed = json.loads(hear("GET", f"{base}?{query}", [], "", *who["look"])[-1])
        return [device["metadata"]["name"] for device in listed]

    everything = names("labels=page")
    assert sorted(everything) == [f"reg-page-{number}" for number in range(5)]
    pages = [names(f"labels=page&limit=2&offset={offset}") for offset in (0, 2, 4, 6)]
    assert [len(page) for page in pages] == [2, 2, 1, 0]
    assert sorted(sum(pages, [])) == sorted(everything)
