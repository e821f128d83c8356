"""The vendor's SDKs, as they are: profiles and packages by tb-rest-client, and devices that are made, load them, and are claimed by tb-mqtt-client."""

import hashlib

import pytest
from plant import made as made_device
from tb_device_http import TBHTTPDevice, TBProvisionFailure
from tb_device_mqtt import TBDeviceMqttClient, TBPublishInfo
from tb_rest_client.models import Device, DeviceProfile, DeviceProfileData, SaveOtaPackageInfoRequest
from tb_rest_client.rest import ApiException
from waiting import wait_for

# Larger than one piece of what is kept, and a few parts of what is loaded.
FIRMWARE = bytes(number * 31 % 251 for number in range(150_000))
PART_BYTES = 40_000


def profile(user, name, strategy="DISABLED", key=None, secret=None):
    configuration = {"type": strategy, "provisionDeviceSecret": secret}
    data = DeviceProfileData(
        configuration={"type": "DEFAULT"},
        transport_configuration={"type": "DEFAULT"},
        provision_configuration=configuration,
    )
    new = DeviceProfile(
        name=name,
        type="DEFAULT",
        transport_type="DEFAULT",
        provision_type=strategy,
        provision_device_key=key,
        profile_data=data,
    )
    return user.save_device_profile(new)


def package(user, of, title, algorithm, tmp_path, content=FIRMWARE):
    new = SaveOtaPackageInfoRequest(device_profile_id=of.id, type="FIRMWARE", title=title, version="1.0", uses_url=False)
    made = user.save_ota_package_info(new)
    file = tmp_path / title
    file.write_bytes(content)
    return user.save_ota_package_data(made.id, algorithm, str(file))


def state(user, device):
    """What a device said last of its firmware."""
    return user.get_latest_timeseries(device.id, keys="fw_state")["fw_state"][0].value


def test_a_profile_comes_back_as_it_was_saved(user):
    made = profile(user, "sdk-sensor")
    found = user.get_device_profile_by_id(made.id)
    assert (found.name, found.provision_type, found.default) == ("sdk-sensor", "DISABLED", False)
    found.description = "by the SDK"
    assert user.save_device_profile(found).description == "by the SDK"
    names = [one.name for one in user.get_device_profile_infos(page_size=100, page=0).data]
    assert "default" in names and "sdk-sensor" in names
    assert user.get_default_device_profile_info().name == "default"
    device = user.save_device(Device(name="sdk-sensor-1", device_profile_id=made.id))
    assert device.type == "sdk-sensor"
    user.delete_device(device.id)
    user.delete_device_profile(made.id)
    with pytest.raises(ApiException) as gone:
        user.get_device_profile_by_id(made.id)
    assert gone.value.status == 404


def test_a_package_comes_back_as_it_was_uploaded(user, tmp_path):
    of = user.get_default_device_profile_info()
    made = package(user, of, "sdk-file", "SHA256", tmp_path)
    assert made.checksum == hashlib.sha256(FIRMWARE).hexdigest()
    assert (made.has_data, made.data_size, made.file_name) == (True, len(FIRMWARE), "sdk-file")
    assert user.get_ota_package_info_by_id(made.id).checksum == made.checksum
    listed = user.get_ota_packages(page_size=10, page=0, text_search="sdk-file")
    assert [one.title for one in listed.data] == ["sdk-file"]
    raw = user.ota_package_controller.download_ota_package(ota_package_id=made.id.id, _preload_content=False)
    assert raw.data == FIRMWARE
    user.delete_ota_package(made.id)
    with pytest.raises(ApiException) as gone:
        user.get_ota_package_info_by_id(made.id)
    assert gone.value.status == 404


@pytest.mark.parametrize("algorithm", ["MD5", "SHA256", "SHA384", "SHA512", "CRC32", "MURMUR3_32", "MURMUR3_128"])
def test_a_device_loads_its_firmware_and_finds_it_whole(cluster, user, connected, tmp_path, monkeypatch, algorithm):
    monkeypatch.chdir(tmp_path)
    of = user.get_default_device_profile_info()
    made = package(user, of, f"fw-{algorithm}", algorithm, tmp_path)
    device, token = made_device(user, f"loads-{algorithm}", "default")
    device.firmware_id = made.id
    assert user.save_device(device).firmware_id.id == made.id.id
    client = connected(cluster.nodes[1], token, chunk_size=PART_BYTES)
    loaded = []
    client.set_on_firmware_received_callback(lambda _, data, version: loaded.append((data, version)))
    client.get_firmware_update()
    wait_for("nothing is loaded", lambda: loaded)
    assert loaded[0] == (FIRMWARE, "1.0")
    # Its own verdict, about its checksum.
    wait_for("not verified", lambda: state(user, device) == "VERIFIED")


def test_a_device_loads_its_firmware_over_http(cluster, user, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    of = user.get_default_device_profile_info()
    made = package(user, of, "fw-http", "SHA256", tmp_path)
    device, token = made_device(user, "loads-http", "default")
    device.firmware_id = made.id
    user.save_device(device)
    (tmp_path / "fw-http").unlink()
    for size in [0, PART_BYTES]:
        client = TBHTTPDevice(f"http://{cluster.nodes[2].http}", token, f"http-{size}", PART_BYTES if size else 0)
        # What it says of how far it is goes by a queue, which this starts.
        assert client.connect()
        client.get_firmware_update()
        assert (tmp_path / "fw-http").read_bytes() == FIRMWARE
        (tmp_path / "fw-http").unlink()
        wait_for("not updated", lambda: state(user, device) == "UPDATED")
    told = user.get_latest_timeseries(device.id, keys="current_fw_title")
    assert told["current_fw_title"][0].value == "fw-http"


def test_devices_make_themselves_known(cluster, user, connected):
    key, secret = "sdk-provision-key-01", "sdk-provision-secret"
    profile(user, "sdk-made", "ALLOW_CREATE_NEW_DEVICES", key, secret)
    node = cluster.nodes[2]
    made = TBDeviceMqttClient.provision(node.host, key, secret, port=node.port, device_name="sdk-made-1")
    assert made["status"] == "SUCCESS" and made["credentialsType"] == "ACCESS_TOKEN"
    client = connected(cluster.nodes[0], made["credentialsValue"])
    assert client.send_telemetry({"t": 1}).get() == TBPublishInfo.TB_ERR_SUCCESS
    assert user.get_tenant_device("sdk-made-1").type == "sdk-made"
    again = TBDeviceMqttClient.provision(node.host, key, secret, port=node.port, device_name="sdk-made-1")
    assert again is None

    base = f"http://{cluster.nodes[1].http}"
    by_http = TBHTTPDevice.provision(base, "sdk-made-2", key, secret)
    assert by_http.connect()
    assert user.get_tenant_device("sdk-made-2").type == "sdk-made"
    with pytest.raises(TBProvisionFailure):
        TBHTTPDevice.provision(base, "sdk-made-3", key, "wrong")


def test_a_device_is_claimed(cluster, user, connected):
    device, token = made_device(user, "sdk-claimed", "default")
    client = connected(cluster.nodes[1], token)
    assert client.claim("secret", 60_000).get() == TBPublishInfo.TB_ERR_SUCCESS
    with pytest.raises(ApiException) as refused:
        user.claim_device_by_name("sdk-claimed", body={"secretKey": "wrong"})
    assert refused.value.status == 400
    user.claim_device_by_name("sdk-claimed", body={"secretKey": "secret"})
    assert user.get_device_by_id(device.id).customer_id.id != device.customer_id.id
    user.re_claim_device("sdk-claimed")
    assert user.get_device_by_id(device.id).customer_id.id == device.customer_id.id
