"""The vendor's REST SDK for Python, as it is: a device logs in and asks for itself, an integrator manages."""

import pytest
from application import APP, KEY, SECRET
from losant_rest import Client
from losant_rest.losant_error import LosantError


@pytest.fixture
def logged_in(made):
    """A device's client, and its id."""
    device = made("rest")
    client = Client()
    credentials = {"deviceId": device, "key": KEY, "secret": SECRET}
    said = client.auth.authenticate_device(credentials=credentials)
    assert (said["applicationId"], said["deviceId"], said["deviceClass"]) == (APP, device, "standalone")
    client.auth_token = said["token"]
    return client, device


def test_a_device_asks_for_itself(logged_in):
    client, device = logged_in
    of = {"applicationId": APP, "deviceId": device}
    state = {"data": {"temperature": 5}, "time": {"$date": "2026-11-21T01:02:03.456Z"}}
    assert client.device.send_state(**of, deviceState={"data": {"temperature": 5}}) == {"success": True}
    assert client.device.send_state(**of, deviceState=[{"data": {"label": "a"}}, {"data": {"label": "b"}}]) == {"success": True}
    assert len(client.device.get_state(**of)) == 1
    assert client.device.get_state(**of, limit="10")[-1]["data"] == {"temperature": 5}
    assert client.device.get_composite_state(**of)["label"]["value"] in ("a", "b")
    assert client.device.send_command(**of, deviceCommand={"name": "go"}) == {"success": True}
    assert client.device.get_command(**of, limit="1")[0]["name"] == "go"
    assert client.device.get(**of)["connectionInfo"]["connected"] is None
    assert client.device.set_connection_status(**of, connectionStatus={"status": "connected"}) == {"success": True}
    assert client.device.get(**of)["connectionInfo"]["connected"] == 1
    assert client.device.get_log_entries(**of)[0]["connected"] is True
    gone = {"status": "disconnected", "disconnectReason": "asleep"}
    assert client.device.set_connection_status(**of, connectionStatus=gone) == {"success": True}
    assert client.device.get(**of)["connectionInfo"]["connected"] == 0
    with pytest.raises(LosantError) as refused:
        client.device.send_state(**of, deviceState=state | {"extra": 1})
    assert (refused.value.status, refused.value.data["type"]) == (400, "Validation")
    with pytest.raises(LosantError) as refused:
        client.device.get(applicationId=APP, deviceId="0" * 24)
    assert (refused.value.status, refused.value.data["type"]) == (404, "NotFound")


def test_a_wrong_secret_is_401(made):
    credentials = {"deviceId": made("wrong"), "key": KEY, "secret": "wrong"}
    with pytest.raises(LosantError) as refused:
        Client().auth.authenticate_device(credentials=credentials)
    assert refused.value.status == 401


def test_an_integrator_manages(application, rest, made):
    device = made("managed", tags=[{"key": "site", "value": "north"}])
    of = {"applicationId": APP, "deviceId": device}
    assert rest.device.patch(**of, device={"description": "by the door"})["description"] == "by the door"
    listed = rest.devices.get(applicationId=APP, filterField="name", filter="managed", perPage="5")
    assert [item["deviceId"] for item in listed["items"]] == [device]
    command = {"name": "go", "deviceTags": [{"key": "site", "value": "north"}]}
    assert rest.devices.send_command(applicationId=APP, multiDeviceCommand=command) == {"success": True}
    assert rest.device.get_command(**of)[0]["name"] == "go"
    payload = {"topic": "plant/1", "message": "hello"}
    assert rest.application.mqtt_publish_message(applicationId=APP, payload=payload) == {"success": True}
    key = rest.application_keys.post(applicationId=APP, applicationKey={"deviceIds": [device]})
    of_key = {"applicationId": APP, "applicationKeyId": key["applicationKeyId"]}
    assert rest.application_key.get(**of_key)["deviceIds"] == [device]
    changed = rest.application_key.patch(**of_key, applicationKey={"status": "inactive"})
    assert (changed["status"], "secret" in changed) == ("inactive", False)
    assert rest.application_key.delete(**of_key) == {"success": True}
    client = Client()
    credentials = {"email": "ci@example.com", "password": application.integrator}
    client.auth_token = client.auth.authenticate_user(credentials=credentials)["token"]
    assert client.device.delete(**of) == {"success": True}


def test_devices_are_found_and_their_data_taken_together(rest, made):
    site = [{"key": "site", "value": "data"}]
    one, two = made("Pump 1", tags=site), made("Valve 1", tags=site)
    of = {"applicationId": APP}

    def names(**how):
        return [item["name"] for item in rest.devices.get(**of, **how)["items"]]

    assert names(tagFilter=site, sortDirection="desc") == ["Valve 1", "Pump 1"]
    assert names(tagFilter=site, filterField="name", filter="pump*") == ["Pump 1"]
    query = {"$and": [{"tags": {"$tagKey": "site", "$tagValue": "data"}}, {"name": {"$startsWith": "Pump"}}]}
    assert names(query=query) == ["Pump 1"]
    with pytest.raises(LosantError) as refused:
        names(query={"colour": "red"})
    assert (refused.value.status, refused.value.data["type"]) == (400, "Validation")
    command = {"name": "go", "deviceQuery": query}
    assert rest.devices.send_command(**of, multiDeviceCommand=command) == {"success": True}
    assert [len(rest.device.get_command(**of, deviceId=device)) for device in (one, two)] == [1, 0]
    for ago, value in ((-3_000, 1), (-2_000, 2), (-1_000, 6)):
        rest.device.send_state(**of, deviceId=one, deviceState={"data": {"temperature": value}, "time": ago})
    asked = {"deviceTags": site, "attributes": ["temperature"], "duration": 600_000, "aggregation": "MEAN"}
    found = rest.data.time_series_query(**of, query=asked)
    assert [point["data"] for point in found["devices"][one]["points"]] == [{"temperature": 3}]
    assert found["devices"][two] == {"name": "Valve 1", "points": []}
    last = rest.data.last_value_query(**of, query={"deviceIds": [one, two], "attribute": "temperature"})
    assert {device: value["data"] for device, value in last.items()} == {one: {"temperature": 6}}


def test_an_authority_is_registered(rest, nodes):
    of = {"applicationId": APP}
    with open(nodes.ca) as file:
        bundle = {"name": "plant", "caBundle": file.read()}
    authority = rest.application_certificate_authorities.post(**of, applicationCertificateAuthority=bundle)
    assert (authority["status"], authority["caInfo"][0]["commonName"]) == ("active", "tests")
    of_one = of | {"applicationCertificateAuthorityId": authority["applicationCertificateAuthorityId"]}
    listed = rest.application_certificate_authorities.get(**of, filterField="name", filter="pl*")
    assert [item["id"] for item in listed["items"]] == [authority["id"]]
    changed = rest.application_certificate_authority.patch(**of_one, applicationCertificateAuthority={"status": "inactive"})
    assert changed["status"] == "inactive"
    assert rest.application_certificate_authority.delete(**of_one) == {"success": True}
