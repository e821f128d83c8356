"""Who is let in over MQTT: each shape of credentials that there is, and every other one refused with the one answer for it."""

import pytest
from connection import V5, V311
from plant import APP, OTHER, REFUSED, Device, bcrypted, issued, password, sha512_crypted, user
from waiting import wait_for

VERSIONS = pytest.mark.parametrize("version", [V311, V5], ids=["v311", "v5"])


@pytest.fixture(scope="module")
def devices(plant):
    """One device for each way that credentials are written."""
    plant.device("gate-7", password("s3cret"), password({"plain": "second"}), user("fleet", "fl33t"), alias=["old-7"])
    plant.device("named", user("named", "own"))
    plant.device("unique", user("only-one", "un1que", unique=True))
    plant.device("shared", user("fleet", "fl33t"))
    # The section's name of old.
    plant.device("legacy", credentials={"credentials": [password("l3gacy")]})
    plant.device("disabled", password("pw"), core={"disabled": True})
    plant.unreadable("azure", "pw", mqtt={"dialect": {"type": "azure"}})
    plant.device("bare")


# User name, password, client id, and whether it is let in.
SHAPES = [
    ("password", "gate-7@plant", "s3cret", "any", True),
    ("the other password", "gate-7@plant", "second", "any", True),
    ("no client id", "gate-7@plant", "s3cret", "", True),
    ("percent-encoded", "gate%2D7@plant", "s3cret", "any", True),
    ("an alias", "old-7@plant", "s3cret", "any", True),
    ("user and password", "fleet", "fl33t", "gate-7@plant", True),
    ("the same user of another", "fleet", "fl33t", "shared@plant", True),
    ("a password for a user of the device's name", "gate-7", "s3cret", "gate-7@plant", True),
    ("a user of the device's name for a password", "named@plant", "own", "any", True),
    ("a unique user for a password", "only-one@plant", "un1que", "any", True),
    ("a unique user", "only-one", "un1que", "unique@plant", True),
    ("the section of old", "legacy@plant", "l3gacy", "any", True),
    ("a wrong password", "gate-7@plant", "wrong", "any", False),
    ("nobody", "nobody@plant", "s3cret", "any", False),
    ("an application that is not", "gate-7@nowhere", "s3cret", "any", False),
    ("another application", f"gate-7@{OTHER}", "s3cret", "any", False),
    ("a user name without a password", "gate-7@plant", None, "any", False),
    ("a user without a password", "fleet", None, "gate-7@plant", False),
    ("a shared user for a password", "fleet@plant", "fl33t", "any", False),
    ("a user of another device", "fleet", "fl33t", "named@plant", False),
    ("a wrong password of a user", "fleet", "wrong", "shared@plant", False),
    ("an unknown user", "stranger", "s3cret", "gate-7@plant", False),
    ("without credentials", "bare@plant", "s3cret", "any", False),
    ("disabled", "disabled@plant", "pw", "any", False),
    ("a dialect that no release has", "azure@plant", "pw", "any", False),
    # What other platforms' shapes would be.
    ("the tenant's name", "gate-7@drogue-plant", "s3cret", "any", False),
    ("no device", "@plant", "s3cret", "any", False),
]


@VERSIONS
@pytest.mark.parametrize("shape", SHAPES, ids=[shape[0] for shape in SHAPES])
def test_each_shape_of_credentials_is_let_in_or_refused(cluster, devices, version, shape):
    _, username, secret, client_id, is_in = shape
    # Failures are counted at each node.
    node = cluster.nodes[SHAPES.index(shape) % 3]
    connecting = Device(username, secret, version, client_id)
    assert connecting.reason(node) == (0 if is_in else REFUSED)


@pytest.mark.needs("openssl")
@VERSIONS
def test_a_password_that_other_tools_hashed_lets_in_who_knows_it(cluster, plant, version):
    name = f"hashed-{version}"
    plant.device(name, password(bcrypted("s3cret")), password(sha512_crypted("pä ss")))
    fleet = user("hashed-fleet", sha512_crypted("fl33t")), user(f"{name}-own", bcrypted("own", 10), unique=True)
    plant.device(f"{name}-user", *fleet)
    shapes = [
        (f"{name}@{APP}", "s3cret", "any", 0),
        (f"{name}@{APP}", "pä ss", "any", 0),
        (f"{name}@{APP}", "s3crets", "any", REFUSED),
        (f"{name}@{APP}", "fl33t", "any", REFUSED),
        ("hashed-fleet", "fl33t", f"{name}-user@{APP}", 0),
        ("hashed-fleet", "own", f"{name}-user@{APP}", REFUSED),
        (f"{name}-own@{APP}", "own", "any", 0),
    ]
    for username, secret, client_id, expected in shapes:
        reasons = [Device(username, secret, version, client_id).reason(node) for node in cluster.nodes]
        assert reasons == [expected] * 3, (username, secret)


@VERSIONS
def test_a_session_that_is_to_last_is_refused(cluster, devices, version):
    durable = Device(f"gate-7@{APP}", "s3cret", version, durable=True)
    assert durable.reason(cluster.nodes[0]) == REFUSED


@VERSIONS
def test_who_failed_too_often_is_refused_as_everybody_is(cluster, plant, version):
    name, nodes = plant.device(f"guessed-{version}", password("pw")), cluster.nodes
    guess = Device(f"{name}@{APP}", "guess", version)
    assert [guess.reason(nodes[1]) for _ in range(5)] == [REFUSED] * 5
    # Its own password counts for nothing there for a while; elsewhere nobody has guessed.
    assert [Device(f"{name}@{APP}", "pw", version).reason(node) for node in nodes] == [0, REFUSED, 0]


def test_what_mqtt_5_is_told_of_the_server(cluster, devices):
    with Device(f"gate-7@{APP}", "s3cret") as gate:
        _, told = gate.connect(cluster.nodes[1])
        assert (told.SharedSubscriptionAvailable, told.SubscriptionIdentifierAvailable) == (0, 0)
        # What is not said is available.
        assert getattr(told, "WildcardSubscriptionAvailable", 1) == 1
        assert told.MaximumPacketSize == 16 * 1024


@VERSIONS
def test_an_application_that_is_disabled_lets_nobody_in(cluster, plant, version):
    name, settings = f"drogue-off-{version}", {"chosen-passwords": True, "plaintext": True}
    made = {"name": name, "aliases": [f"drogue:off-{version}"], "settings": settings}
    plant.ask("POST", "/tenants", made)
    plant.ask("POST", f"/devices?tenant={name}", {"name": "d"})
    login = {"kind": "password", "user": "d", "password": "pw"}
    plant.ask("POST", f"/devices/d/credentials?tenant={name}", login)
    for node in cluster.nodes:
        # A node hears of a tenant in its own time.
        wait_for("not let in", lambda: Device(f"d@off-{version}", "pw", version).reason(node) == 0)
    plant.ask("PATCH", f"/tenants/{name}", {"enabled": False})
    for node in cluster.nodes:
        wait_for("still in", lambda: Device(f"d@off-{version}", "pw", version).reason(node) == REFUSED)


@pytest.mark.needs("openssl")
@VERSIONS
def test_a_certificate_is_shown_alone(cluster, plant, anchor, version):
    subject = f"cert-{version}"
    plant.device(subject)
    plant.device(f"O=Plant, OU=Doors, CN=whole-{version}")
    files = {
        "common": issued(anchor, f"common-{version}", f"/O=Plant/CN={subject}"),
        "whole": issued(anchor, f"whole-{version}", f"/O=Plant/OU=Doors/CN=whole-{version}"),
        "nobody": issued(anchor, f"nobody-{version}", f"/O=Plant/CN=nobody-{version}"),
    }

    def reason(shown, username=None, secret=None):
        node = cluster.nodes[version % 3]
        device = Device(username, secret, version, port=int(node.mqtts.rsplit(":", 1)[1]), ca=node.ca, cert=files[shown])
        return device.reason(node)

    assert (reason("common"), reason("whole")) == (0, 0)
    assert reason("nobody") == REFUSED
    # Beside a user name it counts for nothing, and the user name neither.
    assert reason("common", f"{subject}@{APP}", "x") == REFUSED
    plant.registry("PATCH", f"/devices/{subject}", {"spec": {"core": {"disabled": True}}}, "application/merge-patch+json")
    assert reason("common") == REFUSED
