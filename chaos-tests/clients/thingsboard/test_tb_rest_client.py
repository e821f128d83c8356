"""The vendor's SDK for integrators, as it is, against a cluster: it makes devices, calls them, and reads what they said."""

import queue
import time

import pytest
from plant import ANSWER_S, made
from tb_device_mqtt import TBPublishInfo
from tb_rest_client.models import DeviceCredentials
from tb_rest_client.rest import ApiException
from tb_rest_client.rest_client import RestClient
from waiting import wait_for

TELEMETRY_MS = 1_451_649_600_000


def test_login(cluster, user, password):
    with RestClient(f"http://{cluster.nodes[2].http}") as other:
        other.api_key_login(password)
        assert other.get_tenant_devices(page_size=1, page=0) is not None
        before = user.get_token()
        user.refresh()
        other.token_login(user.get_token())
        assert other.get_tenant_devices(page_size=1, page=0) is not None
        assert before
        other.login("tenant@example.com", "wrong")
        with pytest.raises(ApiException) as refused:
            other.get_tenant_devices(page_size=1, page=0)
        assert refused.value.status == 401


def test_devices_and_their_credentials(cluster, user, connected):
    device, token = made(user, "rest-robot")
    assert user.get_device_by_id(device.id).name == "rest-robot"
    assert user.get_tenant_device("rest-robot").id.id == device.id.id
    page = user.get_tenant_devices(page_size=10, page=0, text_search="rest-robot")
    assert [one.name for one in page.data] == ["rest-robot"] and page.total_elements == 1

    client = connected(cluster.nodes[1], token)
    assert client.send_telemetry({"t": 1}).get() == TBPublishInfo.TB_ERR_SUCCESS
    credentials = user.get_device_credentials_by_device_id(device.id)
    assert isinstance(credentials, DeviceCredentials)
    credentials.credentials_id = "Zk3vQ9xLw2RtY7uPb5Aa"
    assert user.update_device_credentials(credentials).credentials_id == "Zk3vQ9xLw2RtY7uPb5Aa"
    connected(cluster.nodes[2], "Zk3vQ9xLw2RtY7uPb5Aa")

    user.delete_device(device.id)
    with pytest.raises(ApiException) as gone:
        user.get_device_by_id(device.id)
    assert gone.value.status == 404


def test_what_a_device_said_is_read(cluster, user, connected):
    device, token = made(user, "rest-meter")
    client = connected(cluster.nodes[2], token)
    for at, value in enumerate([10, 20, 60]):
        said = {"ts": TELEMETRY_MS + at * 1000, "values": {"t": value}}
        assert client.send_telemetry(said).get() == TBPublishInfo.TB_ERR_SUCCESS
    latest = user.get_latest_timeseries(device.id, keys="t")
    assert latest["t"][0].value == "60"
    past = user.get_timeseries(device.id, TELEMETRY_MS, TELEMETRY_MS + 10_000, keys="t", order_by="ASC")
    assert [sample.value for sample in past["t"]] == ["10", "20", "60"]
    mean = user.get_timeseries(device.id, TELEMETRY_MS, TELEMETRY_MS + 10_000, keys="t", agg="AVG", interval=10_000)
    assert mean["t"][0].value == "30.0"

    changes = queue.Queue()
    client.subscribe_to_all_attributes(lambda result, extra: changes.put(result))
    user.save_device_attributes(device.id, "SHARED_SCOPE", {"interval": 5})
    assert changes.get(timeout=ANSWER_S) == {"interval": 5}
    assert client.send_attributes({"fw": "a"}).get() == TBPublishInfo.TB_ERR_SUCCESS
    reported = user.get_attributes_by_scope(device.id, "CLIENT_SCOPE", keys="fw")
    assert [(one.key, one.value) for one in reported] == [("fw", "a")]
    user.save_entity_telemetry(device.id, "ANY", {"by_hand": 7})
    assert user.get_latest_timeseries(device.id, keys="by_hand")["by_hand"][0].value == "7"


def test_a_running_device_is_called(cluster, user, connected):
    device, token = made(user, "rest-called")
    connected(cluster.nodes[1], token, called=lambda call: {"got": call["params"], "method": call["method"]})
    call = {"method": "setGpio", "params": {"pin": 7}, "timeout": ANSWER_S * 1000 - 1000}
    expected = {"got": {"pin": 7}, "method": "setGpio"}
    assert user.handle_two_way_device_rpc_request(device.id, call) == expected
    assert user.handle_two_way_device_rpc_request_v1(device.id, call) == expected
    assert not user.handle_one_way_device_rpc_request(device.id, call)


def test_a_call_to_a_sleeping_device_survives_kill_9_of_its_leader(cluster, user, password, connected):
    device, token = made(user, "rest-sleeper")
    call = {"method": "update", "params": [1], "persistent": True, "expirationTime": int(time.time() * 1000) + 600_000}
    kept = user.handle_two_way_device_rpc_request(device.id, call)["rpcId"]
    # Every node that may lead its shard, one after the other.
    for victim in cluster.nodes:
        cluster.kill(victim)
        other = next(node for node in cluster.nodes if node.id != victim.id)
        with RestClient(f"http://{other.http}") as reader:
            reader.api_key_login(password)
            stands = wait_for("it is not there", lambda: found(reader, kept))
            assert stands.status == "QUEUED"
        cluster.wait_restarted(victim)

    connected(cluster.nodes[0], token, called=lambda call: {"did": call["params"]})
    wait_for("it was not done", lambda: user.get_persisted_rpc(kept).status == "SUCCESSFUL")
    assert user.get_persisted_rpc(kept).response == {"did": [1]}
    listed = user.get_persisted_rpc_by_device(device.id, page_size=10, page=0, rpc_status="SUCCESSFUL")
    assert listed["totalElements"] == 1
    user.delete_rpc(kept)
    with pytest.raises(ApiException) as gone:
        user.get_persisted_rpc(kept)
    assert gone.value.status == 404


def found(reader, call):
    """How a call stands; None while nobody can say."""
    try:
        return reader.get_persisted_rpc(call)
    except ApiException as refused:
        assert refused.status >= 500, refused
        return None
