//! What may be published, what it is called inside, and how others see it.

use moorline_core::topic;
use moorline_dialects::watson::{
    management::address::{Channel, Downward, Upward},
    topics::{
        Asks, Forbidden, Group, HELD_MESSAGES_MAX, Message, Permissions, Role, Standing, publish,
        resource_group, seen_by, standard_reach, standing, subscribe,
    },
};
use proptest::prelude::*;

use super::{client, device};

const DEVICE: &str = "d:abc123:t1:d1";
const GATEWAY: &str = "g:abc123:gw:g1";
const APP: &str = "a:abc123:app";
const SHARED: &str = "A:abc123:app:1";
const EVENT: &str = "iot-2/type/t1/id/d1/evt/e/fmt/json";
const COMMAND: &str = "iot-2/type/t1/id/d1/cmd/c/fmt/json";

#[test]
fn publishes_have_canonical_names() {
    let m = "iotdevice-1/type/t1/id/d1/";
    #[rustfmt::skip]
    let table = [
        (DEVICE,  "iot-2/evt/e/fmt/json",                EVENT.to_owned()),
        (DEVICE,  "iot-2/evt/temp-1.x_y/fmt/whatever",   "iot-2/type/t1/id/d1/evt/temp-1.x_y/fmt/whatever".to_owned()),
        (DEVICE,  "iotdevice-1/response",                format!("{m}response")),
        (DEVICE,  "iotdevice-1/notify",                  format!("{m}notify")),
        (DEVICE,  "iotdevice-1/device/update/location",  format!("{m}device/update/location")),
        (DEVICE,  "iotdevice-1/device/update/other",     format!("{m}device/update/other")),
        (DEVICE,  "iotdevice-1/add/diag/errorCodes",     format!("{m}add/diag/errorCodes")),
        (DEVICE,  "iotdevice-1/add/diag/log",            format!("{m}add/diag/log")),
        (DEVICE,  "iotdevice-1/add/x/y",                 format!("{m}add/x/y")),
        (DEVICE,  "iotdevice-1/clear/diag/errorCodes",   format!("{m}clear/diag/errorCodes")),
        (DEVICE,  "iotdevice-1/clear/diag/log",          format!("{m}clear/diag/log")),
        (DEVICE,  "iotdevice-1/clear/x/y",               format!("{m}clear/x/y")),
        (DEVICE,  "iotdevice-1/mgmt/manage",             format!("{m}mgmt/manage")),
        (DEVICE,  "iotdevice-1/mgmt/unmanage",           format!("{m}mgmt/unmanage")),
        (DEVICE,  "iotdevice-1/mgmt/x",                  format!("{m}mgmt/x")),
        (GATEWAY, EVENT,                                 EVENT.to_owned()),
        (GATEWAY, "iot-2/type/gw/id/g1/evt/e/fmt/json",  "iot-2/type/gw/id/g1/evt/e/fmt/json".to_owned()),
        (GATEWAY, "iotdevice-1/type/t1/id/d1/response",  format!("{m}response")),
        (GATEWAY, "iotdevice-1/type/t1/id/d1/notify",    format!("{m}notify")),
        (GATEWAY, "iotdevice-1/type/t1/id/d1/device/update/location", format!("{m}device/update/location")),
        (GATEWAY, "iotdevice-1/type/t1/id/d1/add/diag/log",   format!("{m}add/diag/log")),
        (GATEWAY, "iotdevice-1/type/t1/id/d1/clear/diag/log", format!("{m}clear/diag/log")),
        (GATEWAY, "iotdevice-1/type/t1/id/d1/mgmt/manage",    format!("{m}mgmt/manage")),
        (APP,     EVENT,                                 EVENT.to_owned()),
        (APP,     COMMAND,                               COMMAND.to_owned()),
        (SHARED,  EVENT,                                 EVENT.to_owned()),
        (SHARED,  COMMAND,                               COMMAND.to_owned()),
        ("d:quickstart:t1:d1", "iot-2/evt/e/fmt/json",   EVENT.to_owned()),
    ];
    for (who, topic, canonical) in table {
        let read = publish(&client(who), topic.as_bytes());
        assert_eq!(read.map(|message| message.to_string()), Ok(canonical), "{who} {topic}");
    }
    let read = publish(&client(GATEWAY), b"iotdevice-1/type/t1/id/d1/mgmt/manage");
    let expected = Message::Management { device: device("t1", "d1"), address: Upward::Manage };
    assert_eq!(read, Ok(expected));
}

#[test]
fn what_is_not_in_a_table_is_refused() {
    use Forbidden::{NotAuthorised, Topic};
    let long = format!("iot-2/evt/{}/fmt/json", "x".repeat(37));
    #[rustfmt::skip]
    let table = [
        (DEVICE,  "",                                    Topic), (DEVICE,  "iot-2",                       Topic),
        (DEVICE,  "iot-2/evt/e/fmt",                     Topic), (DEVICE,  "iot-2/evt/e/fmt/",            Topic),
        (DEVICE,  "iot-2/evt//fmt/json",                 Topic), (DEVICE,  "iot-2/evt/e/fmt/json/x",      Topic),
        (DEVICE,  "/iot-2/evt/e/fmt/json",               Topic), (DEVICE,  "iot-2/evt/a b/fmt/json",      Topic),
        (DEVICE,  "iot-2/evt/é/fmt/json",                Topic), (DEVICE,  "iot-2/cmd/c/fmt/json",        Topic),
        (DEVICE,  "iot-2/mon",                           Topic), (DEVICE,  "iot-2/notify",                Topic),
        (DEVICE,  "iot-1/evt/e/fmt/json",                Topic), (DEVICE,  "IOT-2/evt/e/fmt/json",        Topic),
        (DEVICE,  EVENT,                                 Topic), (DEVICE,  COMMAND,                       Topic),
        (DEVICE,  "iotdm-1/response",                    Topic), (DEVICE,  "iotdevice-1",                 Topic),
        (DEVICE,  "iotdevice-1/response/x",              Topic), (DEVICE,  "iotdevice-1/device/update",   Topic),
        (DEVICE,  "iotdevice-1/add/diag",                Topic), (DEVICE,  "iotdevice-1/mgmt/x/y",        Topic),
        (DEVICE,  "iotdevice-1/type/t1/id/d1/response",  Topic), (DEVICE,  "v1/devices/me/telemetry",     Topic),
        (DEVICE,  "$SYS/x",                              Topic), (DEVICE,  &long,                         Topic),
        (DEVICE,  "iotdevice-1/mgmt/a b",                Topic),
        (GATEWAY, "iot-2/evt/e/fmt/json",                Topic), (GATEWAY, COMMAND,                       Topic),
        (GATEWAY, "iotdevice-1/mgmt/manage",             Topic), (GATEWAY, "iotdevice-1/type/t1/id/d1",   Topic),
        (GATEWAY, "iotdevice-1/type/t1/id//response",    Topic), (GATEWAY, "iot-2/type/gw/id/g1/notify",  Topic),
        (GATEWAY, "iot-2/type/gw/id/g1/mon",             Topic),
        (APP,     "iot-2/evt/e/fmt/json",                Topic), (APP,     "iot-2/cmd/c/fmt/json",        Topic),
        (APP,     "iot-2/type/t1/id/d1/mon",             Topic), (APP,     "iot-2/app/app/mon",           Topic),
        (APP,     "iotdevice-1/mgmt/manage",             Topic), (APP,     "iotdevice-1/type/t1/id/d1/mgmt/manage", Topic),
        (APP,     "iot-2/type//id/d1/evt/e/fmt/json",    Topic), (APP,     "iot-2/type/t1/id/d1/xxx/e/fmt/json", Topic),
        (APP,     "iot-2/type/t1/id/d1/intf/i/evt/state", Topic), (SHARED, "iot-2/evt/e/fmt/json",        Topic),
        ("d:quickstart:t1:d1", "iot-2/evt/e/fmt/xml",    NotAuthorised),
        ("d:quickstart:t1:d1", "iotdevice-1/mgmt/manage", NotAuthorised),
        ("d:quickstart:t1:d1", "iot-2/cmd/c/fmt/json",   Topic),
        ("a:quickstart:app",   COMMAND,                  NotAuthorised),
        ("a:quickstart:app",   EVENT,                    NotAuthorised),
    ];
    for (who, topic, expected) in table {
        assert_eq!(publish(&client(who), topic.as_bytes()), Err(expected), "{who} {topic}");
    }
    assert_eq!(publish(&client(DEVICE), b"iot-2/evt/\xff/fmt/json"), Err(Topic));
}

#[test]
fn each_sees_the_names_of_its_class() {
    #[rustfmt::skip]
    let table = [
        (EVENT,                                   [None,                         Some(EVENT),   Some(EVENT)]),
        (COMMAND,                                 [Some("iot-2/cmd/c/fmt/json"), Some(COMMAND), Some(COMMAND)]),
        ("iot-2/type/t1/id/d2/cmd/c/fmt/json",    [None; 3]),
        ("iot-2/type/t1/id/d1/mon",               [Some("iot-2/mon"), Some("iot-2/type/t1/id/d1/mon"), Some("iot-2/type/t1/id/d1/mon")]),
        ("iot-2/type/t1/id/d1/notify",            [Some("iot-2/notify"), Some("iot-2/type/t1/id/d1/notify"), Some("iot-2/type/t1/id/d1/notify")]),
        ("iotdm-1/type/t1/id/d1/response",        [Some("iotdm-1/response"), Some("iotdm-1/type/t1/id/d1/response"), None]),
        ("iotdm-1/via/type/gw/id/g1/type/t1/id/d1/response", [None, Some("iotdm-1/type/t1/id/d1/response"), None]),
        ("iotdm-1/via/type/gw/id/g1/type/gw/id/g1/observe",  [None, Some("iotdm-1/type/gw/id/g1/observe"), None]),
        ("iotdm-1/via/type/gw/id/g/type/t1/id/d1/response",  [None; 3]),
        ("iotdm-1/via/type/gw/id/g10/type/t1/id/d1/cancel",  [None; 3]),
        ("iotdevice-1/type/t1/id/d1/mgmt/manage", [None; 3]),
        ("iot-2/app/app/mon",                     [None, Some("iot-2/app/app/mon"), Some("iot-2/app/app/mon")]),
    ];
    for (canonical, expected) in table {
        for (who, expected) in [DEVICE, GATEWAY, APP].into_iter().zip(expected) {
            let seen = seen_by(&client(who), canonical.as_bytes());
            let same = canonical.contains("d2") && who != DEVICE;
            let expected = if same { Some(canonical) } else { expected };
            assert_eq!(seen.as_ref().map(|name| name.as_str()), expected, "{who} {canonical}");
        }
    }
}

#[test]
fn the_server_speaks_on_these_topics() {
    let custom = Downward::Custom { bundle: "b".into(), action: "a".into() };
    #[rustfmt::skip]
    let table = [
        (Downward::Response,         "response"),
        (Downward::Update,           "device/update"),
        (Downward::Observe,          "observe"),
        (Downward::Cancel,           "cancel"),
        (Downward::Reboot,           "mgmt/initiate/device/reboot"),
        (Downward::FactoryReset,     "mgmt/initiate/device/factory_reset"),
        (Downward::FirmwareDownload, "mgmt/initiate/firmware/download"),
        (Downward::FirmwareUpdate,   "mgmt/initiate/firmware/update"),
        (custom,                     "mgmt/custom/b/a"),
    ];
    for (address, rest) in table {
        let canonical = Channel::of(&device("t1", "d1"), None).topic(&address);
        assert_eq!(canonical.as_str(), format!("iotdm-1/type/t1/id/d1/{rest}"));
        let seen = seen_by(&client(DEVICE), canonical.as_bytes()).unwrap();
        assert_eq!(seen.as_str(), format!("iotdm-1/{rest}"));
        assert_eq!(seen_by(&client(GATEWAY), canonical.as_bytes()), Some(canonical));
    }
}

#[test]
fn keys_need_the_bits_of_what_they_do() {
    let needs = |topic: &str| publish(&client(APP), topic.as_bytes()).unwrap().needs();
    assert_eq!((needs(EVENT), needs(COMMAND)), (Permissions(1), Permissions(4)));
    assert!(Permissions(5).allow(needs(EVENT)) && Permissions(5).allow(needs(COMMAND)));
    assert!(!Permissions(2).allow(needs(EVENT)) && !Permissions(1).allow(needs(COMMAND)));
    assert!(!Permissions(0).allow(Permissions::STATUS));
}

#[test]
fn gateways_speak_for_devices_by_their_role() {
    use Standing::{Refused, Registers, Speaks};
    let (gateway, other) = (device("gw", "g1"), device("t1", "d1"));
    #[rustfmt::skip]
    let table = [
        // registered, grouped
        (Role::Privileged, &gateway, true,  false, Speaks),
        (Role::Privileged, &other,   true,  false, Speaks),
        (Role::Privileged, &other,   false, false, Registers),
        (Role::Standard,   &gateway, true,  false, Speaks),
        (Role::Standard,   &other,   true,  true,  Speaks),
        (Role::Standard,   &other,   true,  false, Refused),
        (Role::Standard,   &other,   false, false, Refused),
        (Role::Standard,   &other,   false, true,  Refused),
    ];
    for (role, device, registered, grouped, expected) in table {
        let said = standing(role, &gateway, device, registered, grouped);
        assert_eq!(said, expected, "{role:?} {device}");
        assert_eq!(Role::parse(role.name()), Some(role));
    }
    assert_eq!((Role::default(), Role::parse("x")), (Role::Privileged, None));
    assert_eq!(resource_group(&"abc123".into(), &gateway), "gw_def_res_grp:abc123:gw:g1");
    assert_eq!(HELD_MESSAGES_MAX, 128);
    let group = Group { org: "abc123".into(), gateway };
    assert_eq!(Group::parse(&group.name()).as_ref(), Some(&group));
    for other in [
        "",
        "gw_def_res_grp",
        "gw_def_res_grp:abc123:gw",
        "gw_def_res_grp:abc123:gw:g1:x",
        "gw_def_res_grp:abc12:gw:g1",
        "gw_def_res_grp:abc123:g w:g1",
        "other:abc123:gw:g1",
    ] {
        assert_eq!(Group::parse(other), None, "{other}");
    }
}

#[test]
fn a_standard_gateway_asks_for_devices_by_name() {
    let of = |kind, id| Some(Asks::Of(device(kind, id)));
    #[rustfmt::skip]
    let table = [
        ("iot-2/type/t1/id/d1/cmd/+/fmt/+",   of("t1", "d1")),
        ("iot-2/type/gw/id/g1/cmd/+/fmt/+",   of("gw", "g1")),
        ("iot-2/type/t1/id/d1/mon",           of("t1", "d1")),
        ("iot-2/type/gw/id/g1/notify",        Some(Asks::Itself)),
        ("iotdm-1/#",                         Some(Asks::Itself)),
        ("iotdm-1/type/t1/id/d1/response",    Some(Asks::Itself)),
        ("iot-2/type/+/id/d1/cmd/+/fmt/+",    None),
        ("iot-2/type/t1/id/+/cmd/+/fmt/+",    None),
        ("iot-2/type/+/id/+/mon",             None),
    ];
    for (filter, expected) in table {
        let wanted = subscribe(&client(GATEWAY), filter.as_bytes()).unwrap();
        assert_eq!(standard_reach(&wanted), expected, "{filter}");
    }
}

proptest! {
    #[test]
    fn nothing_that_a_device_or_gateway_publishes_comes_back(
        own in prop::sample::select(vec![DEVICE, GATEWAY]),
        said in "(iot-2|iotdevice-1|iotdm-1)(/(type/(t1|gw)/id/(d1|g1)))?/(evt/e/fmt/json|cmd/e/fmt/json|response|notify|mon|mgmt/manage)",
        asked in "(iot-2|iotdevice-1|iotdm-1)(/(type/(t1|gw|[+])/id/(d1|g1|[+])))?/(#|evt/[+]/fmt/[+]|cmd/[+]/fmt/[+]|cmd/#|response|notify|mon)",
    ) {
        let client = client(own);
        if let (Ok(message), Ok(wanted)) = (publish(&client, said.as_bytes()), subscribe(&client, asked.as_bytes())) {
            let name = message.topic();
            prop_assert!(!topic::matches(wanted.filter.as_bytes(), name.as_bytes()), "{} {}", name, wanted.filter);
        }
    }

    #[test]
    fn no_bytes_break_the_rules(bytes in prop::collection::vec(any::<u8>(), 0..120), words in "(iot-2|iotdm-1|iotdevice-1)(/(type|id|t1|evt|cmd|fmt|mon|app|[+]|#|mgmt|add|)){0,18}") {
        for who in [DEVICE, GATEWAY, APP, SHARED, "d:quickstart:t1:d1"] {
            for text in [&bytes[..], words.as_bytes()] {
                let client = client(who);
                if let Ok(message) = publish(&client, text) {
                    prop_assert!(topic::is_name(message.topic().as_bytes()));
                }
                if let Ok(wanted) = subscribe(&client, text) {
                    prop_assert!(topic::is_filter(wanted.filter.as_bytes()));
                }
            }
        }
    }
}
