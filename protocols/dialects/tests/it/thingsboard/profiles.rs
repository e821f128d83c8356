//! Profiles, packages and claims over the REST API: what is read, what is shown, and which path asks for what.

use moorline_dialects::thingsboard::{
    ota::{ChecksumAlgorithm, PackageKind, Source},
    query::WrongParameter,
    rest::{
        claims,
        entities::PageQuery,
        packages::{self, Data, InvalidPackage, NewPackage, PackageInfo},
        profiles::{self, Shown, info, read, shown, unwritten},
        routes::{Route, route},
    },
    values,
};
use serde_json::{Value, json};
use uuid::Uuid;

const ID: &str = "784f394c-42b6-11ee-983c-b7beff2784f9";

fn id() -> Uuid {
    ID.parse().unwrap()
}

fn of() -> Shown {
    Shown { id: id(), tenant: id(), created_ms: 5, default: false, version: 7 }
}

#[test]
fn each_path_asks_for_something() {
    use packages::Route as O;
    use profiles::Route as P;
    let page =
        PageQuery { size: 10, page: 0, text_search: None, sort_property: None, descending: false };
    let list = |transport: Option<&str>, infos| P::List {
        page: page.clone(),
        transport: transport.map(str::to_owned),
        infos,
    };
    let pages = "pageSize=10&page=0";
    #[rustfmt::skip]
    let table = [
        ("POST",   "deviceProfile".to_owned(),              "",    Route::Profiles(P::Save)),
        ("GET",    format!("deviceProfile/{ID}"),           "",    Route::Profiles(P::Get(id()))),
        ("DELETE", format!("deviceProfile/{ID}"),           "",    Route::Profiles(P::Delete(id()))),
        ("POST",   format!("deviceProfile/{ID}/default"),   "",    Route::Profiles(P::SetDefault(id()))),
        ("GET",    "deviceProfile/names".to_owned(),        "",    Route::Profiles(P::Names)),
        ("GET",    "deviceProfileInfo/default".to_owned(),  "",    Route::Profiles(P::DefaultInfo)),
        ("GET",    format!("deviceProfileInfo/{ID}"),       "",    Route::Profiles(P::Info(id()))),
        ("GET",    "deviceProfiles".to_owned(),             pages, Route::Profiles(list(None, false))),
        ("GET",    "deviceProfileInfos".to_owned(),         "pageSize=10&page=0&transportType=MQTT", Route::Profiles(list(Some("MQTT"), true))),
        ("POST",   "otaPackage".to_owned(),                 "",    Route::Packages(O::Save)),
        ("POST",   format!("otaPackage/{ID}"),              "checksumAlgorithm=CRC32&checksum=ab", Route::Packages(O::Upload { id: id(), checksum: Some("ab".into()), algorithm: ChecksumAlgorithm::Crc32 })),
        ("GET",    format!("otaPackage/{ID}"),              "",    Route::Packages(O::Get(id()))),
        ("GET",    format!("otaPackage/info/{ID}"),         "",    Route::Packages(O::Get(id()))),
        ("GET",    format!("otaPackage/{ID}/download"),     "",    Route::Packages(O::Download(id()))),
        ("DELETE", format!("otaPackage/{ID}"),              "",    Route::Packages(O::Delete(id()))),
        ("GET",    "otaPackages".to_owned(),                pages, Route::Packages(O::List { page: page.clone(), of: None })),
        ("GET",    format!("otaPackages/{ID}/SOFTWARE"),    pages, Route::Packages(O::List { page: page.clone(), of: Some((id(), PackageKind::Software)) })),
        ("POST",   "customer/device/Dev%20A/claim".to_owned(),   "", Route::Claims(claims::Route::Claim("Dev A".into()))),
        ("DELETE", "customer/device/Dev%20A/claim".to_owned(),   "", Route::Claims(claims::Route::Release("Dev A".into()))),
    ];
    for (method, path, query, expected) in table {
        let found = route(method, &format!("/api/{path}"), query);
        assert_eq!(found, Ok(Some(expected.clone())), "{method} {path}");
        assert!(expected.label().starts_with("rest_"));
        let reads = method == "GET";
        assert_eq!(expected.only_looks(), reads, "{method} {path}");
    }
    let wrong = |path: &str, query| route("POST", path, query).unwrap_err();
    let upload = format!("/api/otaPackage/{ID}");
    assert_eq!(wrong(&upload, "checksumAlgorithm=MD4"), WrongParameter::Value("checksumAlgorithm"));
    assert_eq!(wrong("/api/otaPackage/x", ""), WrongParameter::Value("the id"));
    assert_eq!(route("POST", "/api/customer/device//claim", ""), Ok(None));
    assert_eq!(route("PUT", "/api/customer/device/a/claim", ""), Ok(None));
}

#[test]
fn a_profile_is_shown_with_all_its_fields() {
    let (profile, said, version) = read(json!({ "name": "sensor", "image": null })).unwrap();
    assert_eq!((said, version), (None, None));
    let all = shown(&profile, &of());
    #[rustfmt::skip]
    let fields = [
        "id", "createdTime", "tenantId", "name", "description", "image", "type", "transportType", "provisionType",
        "defaultRuleChainId", "defaultDashboardId", "defaultQueueName", "profileData", "provisionDeviceKey",
        "firmwareId", "softwareId", "default", "version",
    ];
    for field in fields {
        assert!(all.get(field).is_some(), "{field}");
    }
    assert_eq!(all["provisionType"], "DISABLED");
    assert_eq!(all["profileData"]["provisionConfiguration"]["type"], "DISABLED");
    assert_eq!(all["profileData"]["transportConfiguration"]["type"], "DEFAULT");
    // What was shown may be written back.
    let (again, said, version) = read(all.clone()).unwrap();
    assert_eq!((said.unwrap().id, version), (id(), Some(7)));
    assert_eq!(shown(&again, &of()), all);
    assert_eq!(shown(&unwritten("default"), &of())["description"], "Default device profile");
    assert_eq!(info(&again, &of())["name"], "sensor");
}

#[test]
fn a_profile_says_which_packages_its_devices_are_to_have() {
    let firmware = json!({ "entityType": "OTA_PACKAGE", "id": ID });
    let (profile, ..) = read(json!({ "name": "p", "firmwareId": firmware })).unwrap();
    assert_eq!(profile.package(PackageKind::Firmware), Some(id()));
    assert_eq!(profile.package(PackageKind::Software), None);
}

#[test]
fn what_is_no_profile_is_refused() {
    let telemetry =
        json!({ "transportConfiguration": { "type": "MQTT", "deviceTelemetryTopic": "a/#/b" } });
    for wrong in [
        json!([]),
        json!({}),
        json!({ "name": " " }),
        json!({ "name": "~x" }),
        json!({ "name": "n".repeat(256) }),
        json!({ "name": "p", "transportType": "POST" }),
        json!({ "name": "p", "profileData": telemetry }),
        json!({ "name": "p", "id": "x" }),
    ] {
        assert!(read(wrong.clone()).is_err(), "{wrong}");
    }
}

fn new(more: &Value) -> Result<NewPackage, serde_json::Error> {
    let mut json = json!({
        "type": "FIRMWARE", "title": "fw", "version": "1.0",
        "deviceProfileId": { "entityType": "DEVICE_PROFILE", "id": ID },
    });
    json.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    serde_json::from_value(json)
}

#[test]
fn a_package_is_what_devices_are_told_once_it_has_bytes() {
    let mut info = PackageInfo::new(new(&json!({})).unwrap(), id(), 5);
    assert_eq!((info.tag.as_str(), info.package()), ("fw 1.0", None));
    assert_eq!(info.shown(id(), id())["hasData"], false);
    info.data = Some(Data {
        file_name: "f.bin".into(),
        content_type: "application/octet-stream".into(),
        checksum_algorithm: ChecksumAlgorithm::Md5,
        checksum: "ab".into(),
        data_size: 3,
    });
    let package = info.package().unwrap();
    let (algorithm, checksum) = (ChecksumAlgorithm::Md5, "ab".to_owned());
    assert_eq!(package.source, Source::Stored { size: 3, algorithm, checksum });
    let shown = info.shown(id(), id());
    assert_eq!((&shown["dataSize"], &shown["checksumAlgorithm"]), (&json!(3), &json!("MD5")));
    let kept: PackageInfo = serde_json::from_value(json!(info)).unwrap();
    assert_eq!(kept, info);
    let elsewhere = new(&json!({ "url": "https://example.com/f", "usesUrl": true })).unwrap();
    let elsewhere = PackageInfo::new(elsewhere, id(), 5).package().unwrap();
    assert_eq!(elsewhere.source, Source::Url("https://example.com/f".into()));
    // What it has already is not told again.
    let mut held = package.attributes();
    assert_eq!(package.missing(&held), None);
    held.push(("fw_url".into(), values::Value::Text("x".into())));
    assert_eq!(package.missing(&held).unwrap().1, ["fw_url"]);
    assert_eq!(package.missing(&Vec::new()), Some((package.attributes(), Vec::new())));
}

#[test]
fn what_is_no_package_is_refused() {
    let check = |more: Value| new(&more).unwrap().check();
    assert_eq!(check(json!({})), Ok(()));
    assert_eq!(check(json!({ "title": "" })), Err(InvalidPackage::Text("title")));
    assert_eq!(check(json!({ "version": "v".repeat(256) })), Err(InvalidPackage::Text("version")));
    assert_eq!(check(json!({ "tag": "a\nb" })), Err(InvalidPackage::Text("tag")));
    assert_eq!(check(json!({ "url": "" })), Err(InvalidPackage::Url));
    assert_eq!(check(json!({ "deviceProfileId": null })), Err(InvalidPackage::NoProfile));
    assert!(new(&json!({ "type": "OTHER" })).is_err());
    let name = |kind, title, version| PackageInfo::unique_name(kind, title, version);
    assert_ne!(name(PackageKind::Firmware, "a", "b"), name(PackageKind::Software, "a", "b"));
}

#[test]
fn a_wish_may_have_a_secret() {
    assert_eq!(claims::secret(b""), Ok(String::new()));
    assert_eq!(claims::secret(b"{}"), Ok(String::new()));
    assert_eq!(claims::secret(br#"{"secretKey":"s"}"#), Ok("s".to_owned()));
    assert!(claims::secret(br#"{"secretKey":1}"#).is_err());
    assert!(claims::secret(b"x").is_err());
}
