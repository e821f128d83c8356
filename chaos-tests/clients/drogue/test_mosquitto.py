"""mosquitto's clients with what TLS proves: pre-shared keys, and certificates of the application's authority."""

import base64
import datetime
import json
import os
import shlex
import subprocess

import pytest
from connection import ANSWER_S
from plant import APP, OTHER, authority, issued, password

# What mosquitto_pub ends with: reasons of MQTT 3.1.1, and of MQTT 5.
OK, REFUSED, REFUSED_V5 = 0, 4, 0x86
VERSIONS = pytest.mark.parametrize("version, refused", [("mqttv311", REFUSED), ("mqttv5", REFUSED_V5)])
NEEDS = pytest.mark.needs("mosquitto_pub")


def port(node):
    return node.mqtts.rsplit(":", 1)[1]


def publishes(node, proof, version="mqttv311", topic="telemetry", message="1"):
    """What a publish with QoS 1 ends with."""
    line = f"mosquitto_pub -h localhost -p {port(node)} -V {version} -q 1 -t {topic} -m {message} {proof}"
    return subprocess.run(shlex.split(line), capture_output=True, timeout=ANSWER_S, check=False).returncode


@pytest.fixture(scope="module")
def key(plant):
    """A device with a pre-shared key, and its key as mosquitto wants it."""
    key = os.urandom(32)
    plant.device("keyed", {"psk": {"key": base64.b64encode(key).decode()}})
    plant.device("keyless", password("pw"))
    return key.hex()


@NEEDS
@VERSIONS
@pytest.mark.parametrize("tls", ["tlsv1.2", "tlsv1.3"])
def test_a_pre_shared_key_is_the_device_that_its_identity_names(cluster, plant, events, key, version, refused, tls):
    how = f"--tls-version {tls}"
    for number, node in enumerate(cluster.nodes):
        assert publishes(node, f"--psk {key} --psk-identity keyed@{APP} {how}", version, message=number) == OK
        event = events.said("keyed")
        assert (event["subject"], event["data"], event["sender"]) == ("telemetry", number, "keyed")
    node = cluster.nodes[1]
    wrong = {
        "another key": f"--psk {'ab' * 32} --psk-identity keyed@{APP}",
        "nobody": f"--psk {key} --psk-identity nobody@{APP}",
        "one that has none": f"--psk {key} --psk-identity keyless@{APP}",
        "of another application": f"--psk {key} --psk-identity keyed@{OTHER}",
    }
    for what, proof in wrong.items():
        assert publishes(node, f"{proof} {how}", version) != OK, what
    # Beside a user name it counts for nothing.
    beside = f"--psk {key} --psk-identity keyed@{APP} -u keyless@{APP} -P pw {how}"
    assert publishes(node, beside, version) == refused
    events.nothing_of("keyless")


@NEEDS
def test_a_key_counts_for_its_time(cluster, plant):
    day = datetime.timedelta(days=1)
    now = datetime.datetime.now(datetime.UTC)
    text = lambda moment: moment.strftime("%Y-%m-%dT%H:%M:%SZ")
    # From, until, and whether that is now.
    table = [
        (now - day, now + day, True),
        (now - day, None, True),
        (None, now + day, True),
        (now + day, None, False),
        (now - 2 * day, now - day, False),
    ]
    for number, (since, until, counts) in enumerate(table):
        key, said = os.urandom(32), {"notBefore": since, "notAfter": until}
        validity = {name: text(moment) for name, moment in said.items() if moment}
        name = plant.device(f"keyed-{number}", {"psk": {"key": base64.b64encode(key).decode(), "validity": validity}})
        ended = publishes(cluster.nodes[number % 3], f"--psk {key.hex()} --psk-identity {name}@{APP}")
        assert (ended == OK) == counts, validity


@NEEDS
def test_of_several_keys_the_one_counts_that_begins_last(cluster, plant):
    day, now = datetime.timedelta(days=1), datetime.datetime.now(datetime.UTC)
    text = lambda moment: moment.strftime("%Y-%m-%dT%H:%M:%SZ")

    def psk(key, since=None, until=None):
        validity = {"notBefore": since and text(since), "notAfter": until and text(until)}
        return {"psk": {"key": base64.b64encode(key).decode(), "validity": {name: at for name, at in validity.items() if at}}}

    def fit(name):
        line = "--psk {} --psk-identity {}@{}"
        node = cluster.nodes[len(name) % 3]
        return [publishes(node, line.format(key.hex(), name, APP)) == OK for key in keys]

    keys = [os.urandom(32) for _ in range(3)]
    ended, counts, later = (now - 2 * day, now - day), (now - day, now + day), (now + day, now + 2 * day)
    # The validities of the keys, and which of them counts.
    table = [
        ([ended, counts, later], [False, True, False]),
        ([counts, (None, None), later], [True, False, False]),
        ([(None, now + day), ended, (None, None)], [False, False, True]),
        ([ended, later, ended], [False, False, False]),
    ]
    for number, (validities, expected) in enumerate(table):
        name = plant.device(f"keys-{number}", *[psk(key, *validity) for key, validity in zip(keys, validities, strict=True)])
        assert fit(name) == expected, validities
    # Without the one that had led there, the others are found as before.
    path = "/devices/keys-0/credentials"
    first = plant.ask("GET", f"{path}?tenant=drogue-plant")[0]
    plant.ask("DELETE", f"{path}/{first['id']}?tenant=drogue-plant")
    assert fit("keys-0") == [False, True, False]


@NEEDS
def test_commands_come_to_a_device_with_a_key(cluster, plant, key):
    node = cluster.nodes[2]
    line = f"mosquitto_sub -h localhost -p {port(node)} -t command/inbox/# -C 1 -W {ANSWER_S} -F %t=%p "
    line += f"--psk {key} --psk-identity keyed@{APP}"
    with subprocess.Popen(shlex.split(line), stdout=subprocess.PIPE, text=True) as listening:
        # Its subscription is there some time after it came: a command before that is lost.
        while listening.poll() is None:
            assert plant.command(cluster.nodes[0], "keyed", "open", b"now") == 202
            try:
                listening.wait(0.2)
            except subprocess.TimeoutExpired:
                continue
        assert listening.stdout.read() == "command/inbox//open=now\n"


@NEEDS
@pytest.mark.needs("openssl")
@VERSIONS
def test_a_certificate_is_the_device_that_its_subject_names(cluster, plant, events, anchor, version, refused):
    name = f"vouched-{version}"
    plant.device(name)
    stranger = anchor.with_name("stranger.pem")
    if not stranger.exists():
        # Of the same name, and with another key.
        authority(anchor.parent, "stranger")

    def proof(by, subject):
        cert, key = issued(by, f"{by.stem}-{subject}", f"/O=Plant/CN={subject}")
        return f"--cafile {cluster.nodes[0].ca} --cert {cert} --key {key}"

    for node in cluster.nodes:
        assert publishes(node, proof(anchor, name), version) == OK
        assert events.said(name)["sender"] == name
        assert publishes(node, proof(anchor, "unknown"), version) == refused
        # Whoever is vouched for by somebody else of that name is nobody.
        assert publishes(node, proof(stranger, name), version) == refused
    beside = f"{proof(anchor, name)} -u {name}@{APP} -P x"
    assert publishes(cluster.nodes[0], beside, version) == refused
    plant.registry("DELETE", f"/devices/{name}")
    for node in cluster.nodes:
        assert publishes(node, proof(anchor, name), version) == refused
    events.nothing_of(name)


@NEEDS
def test_an_application_is_served_by_mosquitto(cluster, plant):
    node = cluster.nodes[1]
    name = plant.device("heard", password("pw"))
    by = f"--cafile {node.ca} -u ops -P {plant.key}"
    line = f"mosquitto_sub -h localhost -p {port(node)} {by} -i mosquitto -q 1 -t app/{APP} -C 1 -W {ANSWER_S}"
    with subprocess.Popen(shlex.split(line), stdout=subprocess.PIPE, text=True) as listening:
        # It begins with what comes when it reads: until then something is said again.
        while listening.poll() is None:
            assert publishes(node, f"--cafile {node.ca} -u {name}@{APP} -P pw", message=7) == OK
        event = json.loads(listening.stdout.read())
    assert (event["specversion"], event["application"], event["instance"]) == ("1.0", APP, "drogue")
    for version in ("mqttv311", "mqttv5"):
        assert publishes(node, by, version, topic=f"command/{APP}/{name}/open") == OK
    # What the PUBACK says is printed, and no more.
    line = f"mosquitto_pub -h localhost -p {port(node)} -V mqttv5 -q 1 -t command/{APP}/nobody/open -m x {by}"
    said = subprocess.run(shlex.split(line), capture_output=True, timeout=ANSWER_S, check=True, text=True).stderr
    assert "Not authorized" in said, said
