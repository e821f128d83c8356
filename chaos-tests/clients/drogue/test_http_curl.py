"""Devices and commands over HTTP by curl, word for word: `http_transcript.txt` says what is said and what is heard."""

import base64
import json
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from plant import APP, CONNECTION, Device, issued, password, user
from transcript import ANSWER_S, hear, parts, read
from waiting import wait_for

TRANSCRIPT = Path(__file__).with_name("http_transcript.txt")
BODY_BYTES_MAX = 64 * 1024
# Follows from what is compared, where there is a body.
LENGTH = "content-length: "
SILENT = ["202", "content-length: 0"]


@pytest.fixture(scope="module")
def who(plant):
    """What everybody in the transcript shows."""
    plant.device("curl-gate", password("s3cret"), user("fleet", "fl33t"))
    plant.device("curl-sensor", gatewaySelector={"matchNames": ["curl-gate"]})
    plant.device("curl-off", password("pw"), core={"disabled": True})
    plant.unreadable("curl-odd", "pw", publish={"rules": "none"})
    # There is no such host.
    plant.device("curl-out", commands={"commands": [{"external": {"type": "http", "url": "https://hook.invalid/none"}}]})
    rules = [{"when": {"isChannel": "secret"}, "then": [{"reject": "not here"}]}, {"when": {"isChannel": "noise"}, "then": ["drop"]}]
    plant.device("curl-ruled", password("pw"), publish={"rules": rules})
    return {
        "gate": ["--user", f"curl-gate@{APP}:s3cret"],
        "gate-alone": ["--user", "curl-gate:s3cret"],
        "fleet": ["--user", "fleet:fl33t"],
        "fleet-of": ["--user", f"fleet@{APP}:fl33t"],
        "wrong": ["--user", f"curl-gate@{APP}:wrong"],
        "off": ["--user", f"curl-off@{APP}:pw"],
        "odd": ["--user", f"curl-odd@{APP}:pw"],
        "ruled": ["--user", f"curl-ruled@{APP}:pw"],
        "key": ["--header", f"authorization: Bearer {plant.key}"],
        "key-basic": ["--user", f"ops:{plant.key}"],
        "look": ["--header", f"authorization: Bearer {plant.look}"],
        "broken": ["--header", f"authorization: Bearer {plant.key}x"],
        "nobody": [],
    }


def test_curl_hears_what_the_transcript_says(cluster, who):
    for number, (said, heard) in enumerate(read(TRANSCRIPT)):
        first, headers, body = parts(said)
        method, path, name = first.split()
        # One node after the other: it is the same everywhere.
        node = cluster.nodes[number % len(cluster.nodes)]
        answer = hear(method, f"http://{node.http}{path}", headers, body, *who[name])
        shown = [line for line in answer if "" not in answer or not line.startswith(LENGTH)]
        assert shown == heard, f"{first} {body}"


def test_an_event_is_what_the_applications_know(cluster, plant, events, who):
    plant.device("curl-says", password("pw"))
    by = ["--user", f"curl-says@{APP}:pw"]
    # Query and headers, body, then what of the event is so.
    table = [
        ("telemetry", "application/json", '{"t":21}', {"subject": "telemetry", "data": {"t": 21}, "sender": "curl-says"}),
        ("telemetry", "application/vnd.x+json", "[1]", {"datacontenttype": "application/json", "data": [1]}),
        ("telemetry", "text/plain; charset=utf-8", "hot", {"datacontenttype": "text/plain; charset=utf-8", "data_base64": "aG90"}),
        ("telemetry?data_schema=urn:temp", "application/json", "1", {"dataschema": "urn:temp"}),
        # What stands behind the channel is no part of it; it is kept beside it.
        ("telemetry/a/b", "application/json", "1", {"subject": "telemetry", "topic": "a/b"}),
        ("a%2Fb", "application/json", "1", {"subject": "a/b"}),
    ]
    for path, kind, body, expected in table:
        node = cluster.nodes[1]
        assert hear("POST", f"http://{node.http}/v1/{path}", [f"content-type: {kind}"], body, *by) == SILENT
        event = events.said("curl-says")
        assert {name: event[name] for name in expected} == expected


def test_a_gateway_says_events_of_two_devices(cluster, plant, events):
    plant.device("curl-gw", password("pw"))
    sensors = [plant.device(f"curl-of-gw-{n}", gatewaySelector={"matchNames": ["curl-gw"]}) for n in (1, 2)]
    by = ["--user", f"curl-gw@{APP}:pw"]
    for number, sensor in enumerate([*sensors, *sensors]):
        url = f"http://{cluster.nodes[number % 3].http}/v1/telemetry?as={sensor}"
        assert hear("POST", url, ["content-type: application/json"], str(number), *by) == SILENT
        event = events.said(sensor)
        assert (event["device"], event["sender"], event["data"]) == (sensor, "curl-gw", number)
    # It waits for commands to the one that it speaks for, and for that one's alone.
    with ThreadPoolExecutor() as pool:
        waits = pool.submit(hear, "POST", f"http://{cluster.nodes[0].http}/v1/telemetry?as={sensors[1]}&ct=30", [], "1", *by)
        while not waits.done():
            for device in (sensors[0], "curl-gw", sensors[1]):
                assert plant.command(cluster.nodes[1], device, f"for-{device}", b"x") == 202
        assert waits.result() == ["200", f"command: for-{sensors[1]}", "content-type: application/octet-stream", "content-length: 1", "", "x"]


def test_ttn_messages_are_events_of_their_devices(cluster, plant, events):
    plant.device("curl-ttn", password("pw"))
    selector = {"matchNames": ["curl-ttn"]}
    plant.device("ttn-whole", gatewaySelector=selector)
    plant.device("ttn-raw", gatewaySelector=selector, ttn={"payload": "raw"})
    plant.device("ttn-fields", gatewaySelector=selector, ttn={"payload": "fields"}, lorawan={"ports": {"7": {"data_schema": "urn:seven"}}})
    by = ["--user", f"curl-ttn@{APP}:pw"]

    def v3(device):
        message = {"f_port": 7, "frm_payload": "AQI=", "decoded_payload": {"t": 21}}
        return {"end_device_ids": {"device_id": device, "dev_addr": "260B"}, "uplink_message": message}

    def v2(device):
        return {"app_id": "a", "dev_id": device, "hardware_serial": "0102", "port": 7, "payload_raw": "AQI=", "payload_fields": {"t": 21}}

    for path, made, address in [("/ttn", v3, "260B"), ("/ttn/v3", v3, "260B"), ("/ttn/v2", v2, "0102")]:
        says = {"ttn-whole": {"data": made("ttn-whole")}, "ttn-raw": {"data_base64": "AQI="}, "ttn-fields": {"data": {"t": 21}, "dataschema": "urn:seven"}}
        for device, expected in says.items():
            url = f"http://{cluster.nodes[2].http}{path}"
            assert hear("POST", url, ["content-type: application/json"], json.dumps(made(device)), *by) == SILENT, path
            event = events.said(device)
            assert (event["subject"], event["sender"], event["lorawanport"], event["hwaddr"]) == ("7", "curl-ttn", "7", address)
            assert {name: event[name] for name in expected} == expected


def test_a_body_has_64_kib(cluster, who, events, plant):
    plant.device("curl-large", password("pw"))
    url, by = f"http://{cluster.nodes[0].http}/v1/large", ["--user", f"curl-large@{APP}:pw"]
    headers = ["content-type: application/octet-stream", "expect:"]
    assert hear("POST", url, headers, "x" * (BODY_BYTES_MAX + 1), *by)[0] == "413"
    assert hear("POST", url, headers, "x" * BODY_BYTES_MAX, *by) == SILENT
    assert len(base64.b64decode(events.said("curl-large")["data_base64"])) == BODY_BYTES_MAX


def test_each_request_of_a_connection_is_judged(cluster, plant, events):
    plant.device("curl-kept", password("pw"))
    plant.device("curl-other", password("pw"))
    url = f"http://{cluster.nodes[0].http}/v1/kept"
    said = lambda user, number: ["-sS", "-o", "/dev/null", "-w", "%{http_code} %{num_connects}\n", "-u", user, "-d", str(number), url]
    requests = [(f"curl-kept@{APP}:pw", 1), (f"curl-kept@{APP}:no", 2), (f"curl-other@{APP}:pw", 3), (f"curl-kept@{APP}:pw", 4)]
    line = [argument for request in requests for argument in ["--next", *said(*request)]]
    heard = subprocess.run(["curl", *line[1:]], capture_output=True, check=True, text=True).stdout.split("\n")
    # Status, and whether a connection was made for it.
    assert heard[:4] == ["202 1", "403 0", "202 0", "202 0"]
    assert [events.said(device)["data_base64"] for device in ("curl-kept", "curl-other", "curl-kept")] == ["MQ==", "Mw==", "NA=="]


def test_a_body_may_come_in_chunks(cluster, plant, events):
    plant.device("curl-chunks", password("pw"))
    headers = ["content-type: application/json", "transfer-encoding: chunked"]
    by = ["--user", f"curl-chunks@{APP}:pw"]
    heard = hear("POST", f"http://{cluster.nodes[1].http}/v1/chunks", headers, '{"t":21}', *by)
    # The connection ends with it: what follows can't be mistaken for a request.
    assert heard == ["202", "connection: close", "content-length: 0"]
    assert events.said("curl-chunks")["data"] == {"t": 21}


# ---- the wait for a command


@pytest.fixture(scope="module")
def waiting(plant):
    plant.device("curl-waits", password("pw"))
    plant.device("curl-waited-for", gatewaySelector={"matchNames": ["curl-waits"]})
    return ["--user", f"curl-waits@{APP}:pw"]


@pytest.mark.parametrize("name", ["ct", "commandTimeout"])
def test_without_a_command_the_wait_ends_by_itself(cluster, waiting, name):
    for node in cluster.nodes:
        assert hear("POST", f"http://{node.http}/v1/telemetry?{name}=1", [], "1", *waiting) == SILENT
    assert hear("POST", f"http://{cluster.nodes[0].http}/v1/telemetry?{name}=0", [], "1", *waiting) == SILENT


@pytest.mark.parametrize("device", ["curl-waits", "curl-waited-for"])
def test_a_command_for_it_or_for_whom_it_acts_is_the_answer(cluster, plant, waiting, device):
    with ThreadPoolExecutor() as pool:
        heard = pool.submit(hear, "POST", f"http://{cluster.nodes[1].http}/v1/telemetry?ct={ANSWER_S // 2}", [], "1", *waiting)
        while not heard.done():
            assert plant.command(cluster.nodes[2], device, "open", b'{"angle":30}') == 202
        expected = ["command: open", "content-type: application/octet-stream", "content-length: 12", "", '{"angle":30}']
        assert heard.result() == ["200", *expected]


def test_the_event_is_said_before_the_wait(cluster, plant, events, waiting):
    device = plant.device("curl-asks", password("pw"))
    by = ["--user", f"{device}@{APP}:pw"]
    with ThreadPoolExecutor() as pool:
        url = f"http://{cluster.nodes[0].http}/v1/ask?ct={ANSWER_S // 2}"
        heard = pool.submit(hear, "POST", url, ["content-type: application/json"], '{"q":1}', *by)
        # A command that answers it finds who listens.
        assert events.said(device)["data"] == {"q": 1}
        assert plant.command(cluster.nodes[2], device, "answer", b"") == 202
        assert heard.result()[:2] == ["200", "command: answer"]


def test_who_waits_leaves_a_connection_of_the_device_alone(cluster, plant, events):
    device = plant.device("curl-both", password("pw"))
    by, url = ["--user", f"{device}@{APP}:pw"], f"http://{cluster.nodes[1].http}/v1/both?ct={ANSWER_S // 2}"
    with ThreadPoolExecutor() as pool:
        # Two that wait, before there is a connection: over HTTP nobody is present.
        waiting = [pool.submit(hear, "POST", url, ["content-type: application/json"], str(number), *by) for number in (1, 2)]
        assert sorted(events.said(device)["data"] for _ in waiting) == [1, 2]
        assert events.heard[CONNECTION, device].empty()
        with Device(f"{device}@{APP}", "pw") as connected:
            connected.connect(cluster.nodes[0])
            assert connected.subscribe("command/inbox/#") == 0
            assert plant.command(cluster.nodes[2], device, "all", b"x") == 202
            # One command for each that listens.
            assert [heard.result()[:2] for heard in waiting] == [["200", "command: all"]] * 2
            assert [message.topic for message in connected.take(1)] == ["command/inbox//all"]
            again = hear("POST", f"http://{cluster.nodes[0].http}/v1/both?ct=1", [], "3", *by)
            assert again == SILENT
            assert connected.publish("both", "4") == 0
    assert [events.connected(device) for _ in range(2)] == [True, False]


def test_who_is_disabled_while_it_waits_hears_so(cluster, plant):
    device = plant.device("curl-leaving", password("pw"))
    by = ["--user", f"{device}@{APP}:pw"]
    with ThreadPoolExecutor() as pool:
        heard = pool.submit(hear, "POST", f"http://{cluster.nodes[1].http}/v1/telemetry?ct={ANSWER_S // 2}", [], "1", *by)
        plant.registry("PATCH", f"/devices/{device}", {"spec": {"core": {"disabled": True}}}, "application/merge-patch+json")
        assert heard.result()[0] == "403"


# ---- with TLS


@pytest.mark.needs("openssl")
def test_a_certificate_is_shown_alone(cluster, plant, events, anchor):
    plant.device("curl-cert")
    plant.device("curl-cert-of", gatewaySelector={"matchNames": ["curl-cert"]})
    cert, key = issued(anchor, "curl-cert", "/O=Plant/CN=curl-cert")
    unknown, its_key = issued(anchor, "curl-unknown", "/O=Plant/CN=curl-unknown")
    json_type = ["content-type: application/json"]

    def curl(path, shown, *more, headers=json_type):
        node = cluster.nodes[1]
        proof = ["--cacert", node.ca, "--cert", str(shown[0]), "--key", str(shown[1])]
        return hear("POST", f"https://localhost:{node.https.rsplit(':', 1)[1]}/v1/{path}", headers, "1", *proof, *more)

    assert curl("telemetry", (cert, key)) == SILENT
    assert events.said("curl-cert")["sender"] == "curl-cert"
    # Ours: `as` counts with a certificate, too.
    assert curl("telemetry?as=curl-cert-of", (cert, key)) == SILENT
    assert events.said("curl-cert-of")["sender"] == "curl-cert"
    assert curl("telemetry", (unknown, its_key))[0] == "403"
    for path, more in [("telemetry?application=plant", []), ("telemetry?device=curl-cert", []), ("telemetry", ["--user", f"curl-cert@{APP}:x"])]:
        assert curl(path, (cert, key), *more)[0] == "403", path


# ---- where everything is


def test_the_endpoints_are_discovered(cluster, plant, who):
    node = cluster.nodes[0]

    def endpoints(*more):
        url = f"http://{node.http}/.well-known/drogue-endpoints"
        return json.loads(subprocess.run(["curl", "-sS", "--fail", *more, url], capture_output=True, check=True).stdout)

    base = f"http://{node.http}"
    assert endpoints() == {"api": base, "registry": {"url": base}}
    known = endpoints(*who["key"])
    assert known["http"]["url"] == known["command_url"] == base
    for name in ("mqtt", "mqtt_integration"):
        assert known[name]["host"] == node.host and known[name]["port"] in (node.port, int(node.mqtts.rsplit(":", 1)[1]))
    ports = (node.ws_port, int(node.http.rsplit(":", 1)[1]), int(node.https.rsplit(":", 1)[1]))
    assert int(known["mqtt_ws"]["url"].rsplit(":", 1)[1].split("/")[0]) in ports
    version = subprocess.run(["curl", "-sS", f"{base}/.well-known/drogue-version"], capture_output=True, check=True).stdout
    assert json.loads(version)["version"].startswith("0.11")


def test_a_device_that_is_changed_is_another_at_once(cluster, plant):
    device = plant.device("curl-changed", password("first"))
    curl = lambda secret, node: hear("POST", f"http://{node.http}/v1/a", [], "1", "--user", f"{device}@{APP}:{secret}")[0]
    assert [curl("first", node) for node in cluster.nodes] == ["202"] * 3
    plant.registry("PATCH", f"/devices/{device}", {"spec": {"authentication": {"credentials": [password("second")]}}}, "application/merge-patch+json")
    assert [curl("second", node) for node in cluster.nodes] == ["202"] * 3
    wait_for("the old password counts", lambda: all(curl("first", node) == "403" for node in cluster.nodes))
