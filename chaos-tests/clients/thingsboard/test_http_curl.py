"""The HTTP device API by curl, word for word: `http_transcript.txt` says what is said and what is heard."""

import json
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from transcript import hear, parts, read
from waiting import wait_for

TRANSCRIPT = Path(__file__).with_name("http_transcript.txt")
LARGE = 256 * 1024 + 1
LARGE_CALL = 64 * 1024 + 1
TOO_LARGE = ["413", "content-type: application/json", "content-length: 57", "", '{"status":413,"message":"Payload size exceeds the limit"}']


def integrator(cluster, password):
    """What an integrator asks, and is answered; `form` is a file."""

    def ask(path, body=None, form=None):
        how = ["-F", f"file=@{form}"] if form else ["-H", "content-type: application/json"]
        how += ["-d", json.dumps(body)] if body else []
        by = ["-H", f"x-authorization: ApiKey {password}"]
        said = subprocess.run(["curl", "-sS", *by, *how, f"http://{cluster.nodes[0].http}/api{path}"], capture_output=True, check=True)
        return json.loads(said.stdout)

    return ask


def loader(ask, folder):
    """The access token of a device with a package; its profile gives credentials, too."""
    strategy = "ALLOW_CREATE_NEW_DEVICES"
    secret = {"provisionConfiguration": {"type": strategy, "provisionDeviceSecret": "curl-line-secret"}}
    named = {"name": "curl-line", "provisionType": strategy, "provisionDeviceKey": "curl-line-key"}
    profile = ask("/deviceProfile", {**named, "profileData": secret})["id"]
    new = {"type": "FIRMWARE", "title": "fan-fw", "version": "1.0", "deviceProfileId": profile}
    package = ask("/otaPackage", new)["id"]
    file = folder / "fan.bin"
    file.write_bytes(b"0123456789")
    ask(f"/otaPackage/{package['id']}?checksumAlgorithm=CRC32", form=file)
    device = ask("/device", {"name": "curl-loader", "type": "curl-line", "firmwareId": package})
    return ask(f"/device/{device['id']['id']}/credentials")["credentialsId"]


@pytest.fixture(scope="module")
def tokens(cluster, plant, password, tmp_path_factory):
    """Access tokens of everybody in the transcript."""
    deleted = plant.register("curl-deleted")
    plant.ask("DELETE", "/devices/curl-deleted?tenant=plant")
    known = {"meter": plant.register("curl-meter"), "deleted": deleted, "nobody": "nobodys-token-0123456789"}
    return {**known, "loader": loader(integrator(cluster, password), tmp_path_factory.mktemp("packages"))}


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
    device = f"http://{cluster.nodes[0].http}/api/v1/{tokens['meter']}"
    body = json.dumps({"t": "x" * LARGE})
    for path in ("telemetry", "attributes"):
        assert hear("POST", f"{device}/{path}", ["expect:"], body) == TOO_LARGE
    call = json.dumps({"method": "m", "params": "x" * LARGE_CALL})
    for path in ("rpc", "rpc/1"):
        assert hear("POST", f"{device}/{path}", ["expect:"], call) == TOO_LARGE


def test_who_is_deleted_while_it_waits_hears_so(cluster, plant):
    token = plant.register("curl-leaving")
    with ThreadPoolExecutor() as pool:
        heard = []
        for node, path in zip(cluster.nodes, ("attributes/updates?timeout=30000", "rpc?timeout=30000")):
            heard.append(pool.submit(hear, "GET", f"http://{node.http}/api/v1/{token}/{path}", [], ""))
        wait_for("not connected", lambda: presence(plant, "curl-leaving") == "connected")
        plant.ask("DELETE", "/devices/curl-leaving?tenant=plant")
        assert [one.result() for one in heard] == [["403", "content-length: 0"]] * 2


def presence(plant, name):
    return (plant.ask("GET", f"/devices/{name}?tenant=plant").get("presence") or {}).get("state")
