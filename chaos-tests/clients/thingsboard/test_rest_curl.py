"""The REST API by curl, word for word: `rest_transcript.txt` says what is said and what is heard, but for what differs each time."""

import hashlib
import json
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from transcript import hear, parts, read

TRANSCRIPT = Path(__file__).with_name("rest_transcript.txt")
# Times and versions.
NUMBERS = re.compile(r'"(createdTime|timestamp|version|lastUpdateTs|expirationTime)":\d+')
TOKENS = re.compile(r'"(token|refreshToken)":"[^"]+"|"(credentialsId)":"[A-Za-z0-9]{43}"')
# Ids of ours, which nobody has given a name yet.
IDS = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
# Follows from what is not compared.
LENGTH = "content-length"


@pytest.fixture(scope="module")
def names(plant):
    """What stands in braces: tokens of the API, and what is learnt of devices on the way."""
    token = lambda name, role: plant.ask("POST", "/tokens?tenant=plant", {"name": name, "role": role})["token"]
    roles = {"operator": "operator", "app": "app", "reader": "read-only"}
    return {name: token(f"curl-{name}", role) for name, role in roles.items()}


def plain(text, names):
    """Text in which what differs each time has its name."""
    for name, value in sorted(names.items(), key=lambda pair: -len(pair[1])):
        text = text.replace(value, f"{{{name}}}")
    text = NUMBERS.sub(r'"\1":0', text)
    text = TOKENS.sub(lambda found: f'"{found[1] or found[2]}":"…"', text)
    return IDS.sub("{id}", text)


def learn(line, answer, names):
    """`! NAME PATTERN`: what the pattern finds in the last answer has this name from then on."""
    _, name, pattern = line.split(" ", 2)
    names[name] = re.search(pattern, "\n".join(answer))[1]


def test_curl_hears_what_the_transcript_says(cluster, names):
    answer = []
    for number, (said, heard) in enumerate(read(TRANSCRIPT)):
        for line in [line for line in said if line[:1] == "!"]:
            learn(line, answer, names)
        filled = [re.sub(r"\{(\w+)\}", lambda found: names.get(found[1], found[0]), line) for line in said if line[:1] != "!"]
        first, headers, body = parts(filled)
        method, path = first.split()
        node = cluster.nodes[number % len(cluster.nodes)]
        answer = hear(method, f"http://{node.http}{path}", headers, body)
        shown = [plain(line, names) for line in answer if not line.startswith(LENGTH)]
        assert shown == [plain(line, names) for line in heard], first


def test_curl_hears_what_a_called_device_says(cluster, plant, names):
    token, nodes = plant.register("curl-called"), cluster.nodes
    by = f"x-authorization: ApiKey {names['app']}"
    found = hear("GET", f"http://{nodes[0].http}/api/tenant/device?deviceName=curl-called", [by], "")
    device = json.loads(found[-1])["id"]["id"]
    say, json_type = f"http://{nodes[2].http}/api/v1/{token}", "content-type: application/json"
    call = json.dumps({"method": "setGpio", "params": {"pin": 7}, "timeout": 30_000})
    answered = [json_type, "content-length: 13", "", '{"done":true}']
    silent = [json_type, "content-length: 0"]
    with ThreadPoolExecutor() as pool:
        for path in ("rpc", "plugins/rpc"):
            url = f"http://{nodes[1].http}/api/{path}"
            heard = pool.submit(hear, "POST", f"{url}/twoway/{device}", [by, json_type], call)
            asked = json.loads(hear("GET", f"{say}/rpc?timeout=30000", [], "")[-1])
            assert (asked["method"], asked["params"]) == ("setGpio", {"pin": 7})
            assert hear("POST", f"{say}/rpc/{asked['id']}", [json_type], '{"done":true}')[0] == "200"
            assert heard.result() == ["200", *answered]
            heard = pool.submit(hear, "POST", f"{url}/twoway/{device}", [by, json_type], call)
            asked = json.loads(hear("GET", f"{say}/rpc?timeout=30000", [], "")[-1])
            assert hear("POST", f"{say}/rpc/{asked['id']}", [json_type], "done")[0] == "200"
            assert heard.result() == ["406", *silent]
            heard = pool.submit(hear, "POST", f"{url}/oneway/{device}", [by, json_type], call)
            assert hear("GET", f"{say}/rpc?timeout=30000", [], "")[0] == "200"
            assert heard.result() == ["200", *silent]


def test_curl_uploads_a_form_and_gets_its_file_back(cluster, names, tmp_path):
    by = f"x-authorization: ApiKey {names['operator']}"
    base = f"http://{cluster.nodes[0].http}/api"
    ask = lambda *how: json.loads(subprocess.run(["curl", "-sS", "-H", by, *how], capture_output=True, check=True).stdout)
    profile = ask(f"{base}/deviceProfileInfo/default")["id"]
    new = {"type": "SOFTWARE", "title": "curl-form", "version": "1", "deviceProfileId": profile}
    package = ask("-H", "content-type: application/json", "-d", json.dumps(new), f"{base}/otaPackage")["id"]["id"]
    file, back = tmp_path / "form.bin", tmp_path / "back.bin"
    file.write_bytes(bytes(range(256)) * 2_000)
    filled = ask("-F", f"file=@{file}", f"{base}/otaPackage/{package}?checksumAlgorithm=SHA512")
    assert (filled["hasData"], filled["dataSize"], filled["fileName"]) == (True, 512_000, "form.bin")
    assert filled["checksum"] == hashlib.sha512(file.read_bytes()).hexdigest()
    subprocess.run(["curl", "-sSf", "-H", by, "-o", back, f"{base}/otaPackage/{package}/download"], check=True)
    assert back.read_bytes() == file.read_bytes()
