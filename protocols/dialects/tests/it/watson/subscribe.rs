//! Which filters may be subscribed to, and what they stand for.

use moorline_dialects::watson::topics::{Forbidden, Permissions, Reach, Wanted, subscribe};

use super::client;

const DEVICE: &str = "d:abc123:t1:d1";
const GATEWAY: &str = "g:abc123:gw:g1";
const APP: &str = "a:abc123:app";
const QUICK: &str = "a:quickstart:app";

#[test]
fn filters_stand_for_canonical_ones() {
    use Wanted::{Commands, Management, Notices, Presence};
    const ALL: &str = "iotdm-1/via/type/gw/id/g1/type/+/id/+/#";
    const OWN: &str = "iotdm-1/type/t1/id/d1/";
    let own = |rest: &str| format!("{OWN}{rest}");
    #[rustfmt::skip]
    let table: Vec<(&str, &str, Wanted, String)> = vec![
        (DEVICE, "iot-2/cmd/+/fmt/+",        Commands,   "iot-2/type/t1/id/d1/cmd/+/fmt/+".into()),
        (DEVICE, "iot-2/cmd/c/fmt/+",        Commands,   "iot-2/type/t1/id/d1/cmd/c/fmt/+".into()),
        (DEVICE, "iot-2/cmd/+/fmt/json",     Commands,   "iot-2/type/t1/id/d1/cmd/+/fmt/json".into()),
        (DEVICE, "iot-2/cmd/c/fmt/json",     Commands,   "iot-2/type/t1/id/d1/cmd/c/fmt/json".into()),
        (DEVICE, "iot-2/cmd/#",              Commands,   "iot-2/type/t1/id/d1/cmd/+/fmt/+".into()),
        (DEVICE, "iot-2/mon",                Presence,   "iot-2/type/t1/id/d1/mon".into()),
        (DEVICE, "iot-2/notify",             Notices,    "iot-2/type/t1/id/d1/notify".into()),
        (DEVICE, "iotdm-1/#",                Management, own("#")),
        (DEVICE, "iotdm-1/+",                Management, own("+")),
        (DEVICE, "iotdm-1/response",         Management, own("response")),
        (DEVICE, "iotdm-1/response/+",       Management, own("response/+")),
        (DEVICE, "iotdm-1/observe",          Management, own("observe")),
        (DEVICE, "iotdm-1/cancel",           Management, own("cancel")),
        (DEVICE, "iotdm-1/device/update",    Management, own("device/update")),
        (DEVICE, "iotdm-1/mgmt/initiate/device/reboot",        Management, own("mgmt/initiate/device/reboot")),
        (DEVICE, "iotdm-1/mgmt/initiate/device/factory_reset", Management, own("mgmt/initiate/device/factory_reset")),
        (DEVICE, "iotdm-1/mgmt/initiate/firmware/download",    Management, own("mgmt/initiate/firmware/download")),
        (DEVICE, "iotdm-1/mgmt/initiate/firmware/update",      Management, own("mgmt/initiate/firmware/update")),
        (DEVICE, "iotdm-1/mgmt/custom/#",    Management, own("mgmt/custom/#")),
        (GATEWAY, "iot-2/type/+/id/+/cmd/+/fmt/+",             Commands,   "iot-2/type/+/id/+/cmd/+/fmt/+".into()),
        (GATEWAY, "iot-2/type/gw/id/g1/cmd/+/fmt/+",           Commands,   "iot-2/type/gw/id/g1/cmd/+/fmt/+".into()),
        (GATEWAY, "iot-2/type/t9/id/d9/cmd/c/fmt/json",        Commands,   "iot-2/type/t9/id/d9/cmd/c/fmt/json".into()),
        (GATEWAY, "iot-2/type/gw/id/g1/notify",                Notices,    "iot-2/type/gw/id/g1/notify".into()),
        (GATEWAY, "iot-2/type/+/id/+/mon",                     Presence,   "iot-2/type/+/id/+/mon".into()),
        (GATEWAY, "iotdm-1/#",                                 Management, ALL.into()),
        (GATEWAY, "iotdm-1/type/#",                            Management, ALL.into()),
        (GATEWAY, "iotdm-1/type/t9/id/d9/#",                   Management, ALL.into()),
        (GATEWAY, "iotdm-1/type/gw/id/g1/response",            Management, ALL.into()),
        (GATEWAY, "iotdm-1/type/gw/id/g1/mgmt/custom/#",       Management, ALL.into()),
        (GATEWAY, "iotdm-1/type/+/id/+/#",                     Management, ALL.into()),
    ];
    for (who, filter, wanted, canonical) in table {
        let read = subscribe(&client(who), filter.as_bytes()).unwrap();
        assert_eq!((read.wanted, read.filter.as_str()), (wanted, &*canonical), "{who} {filter}");
        let reach = match wanted {
            Notices | Management => Reach::Itself,
            _ if who == DEVICE => Reach::Itself,
            _ => Reach::Gateway,
        };
        assert_eq!((read.reach, read.share), (reach, None), "{who} {filter}");
    }
}

#[test]
fn applications_subscribe_to_the_whole_organisation() {
    use Wanted::{AppPresence, Commands, Events, Presence, State};
    #[rustfmt::skip]
    let table = [
        ("iot-2/type/+/id/+/evt/+/fmt/+",               Events,      2),
        ("iot-2/type/t/id/d/evt/e/fmt/json",            Events,      2),
        ("iot-2/type/+/id/+/cmd/+/fmt/+",               Commands,    8),
        ("iot-2/type/t/id/d/cmd/c/fmt/json",            Commands,    8),
        ("iot-2/type/+/id/+/mon",                       Presence,    128),
        ("iot-2/type/t/id/d/mon",                       Presence,    128),
        ("iot-2/app/+/mon",                             AppPresence, 128),
        ("iot-2/app/other/mon",                         AppPresence, 128),
        ("iot-2/type/+/id/+/intf/+/evt/state",          State,       2),
        ("iot-2/thing/type/+/id/+/intf/+/evt/state",    State,       2),
        ("iot-2/type/+/id/+/err/data",                  State,       2),
        ("iot-2/thing/type/t/id/d/err/data",            State,       2),
    ];
    for (filter, wanted, bits) in table {
        for (who, share) in [
            (APP, None),
            ("A:abc123:app", Some("abc123:app")),
            ("A:abc123:app:1", Some("abc123:app")),
        ] {
            let read = subscribe(&client(who), filter.as_bytes()).unwrap();
            assert_eq!((read.wanted, read.filter.as_str()), (wanted, filter), "{who} {filter}");
            assert_eq!((read.reach, read.wanted.needs()), (Reach::Org, Permissions(bits)));
            assert_eq!(read.share.as_ref().map(|share| share.as_str()), share, "{who}");
        }
    }
}

#[test]
fn filters_that_are_not_in_a_table_are_refused() {
    use Forbidden::Topic;
    #[rustfmt::skip]
    let table = [
        (DEVICE, ""), (DEVICE, "#"), (DEVICE, "+"), (DEVICE, "iot-2/#"), (DEVICE, "iot-2/+/+/fmt/+"),
        (DEVICE, "iot-2/evt/+/fmt/+"), (DEVICE, "iot-2/cmd/+"), (DEVICE, "iot-2/cmd/+/#"),
        (DEVICE, "iot-2/cmd/+/fmt"), (DEVICE, "iot-2/cmd/+/fmt/+/x"), (DEVICE, "iot-2/cmd/a b/fmt/+"),
        (DEVICE, "iot-2/cmd/a+/fmt/+"), (DEVICE, "iot-2/type/t1/id/d1/cmd/+/fmt/+"), (DEVICE, "iotdm-1"),
        (DEVICE, "iotdevice-1/#"), (DEVICE, "+/response"), (DEVICE, "iot-2/mon/x"), (DEVICE, "$SYS/#"),
        (DEVICE, "$share/g/iot-2/cmd/+/fmt/+"), (DEVICE, "iotdm-1/#/x"), (DEVICE, "v1/devices/me/rpc/request/+"),
        (GATEWAY, "#"), (GATEWAY, "iot-2/#"), (GATEWAY, "iot-2/cmd/+/fmt/+"), (GATEWAY, "iot-2/type/+/id/+/cmd/#"),
        (GATEWAY, "iot-2/type/+/id/+/evt/+/fmt/+"), (GATEWAY, "iot-2/type/+/id/+/notify"),
        (GATEWAY, "iot-2/type/gw/id/g2/notify"), (GATEWAY, "iot-2/mon"), (GATEWAY, "iotdm-1/response"),
        (GATEWAY, "iotdm-1/type/t/id/d"), (GATEWAY, "iotdm-1/type/+/#"), (GATEWAY, "iotdevice-1/#"),
        (GATEWAY, "iotdm-1/via/type/gw/id/g2/#"), (GATEWAY, "iotdm-1/via/#"),
        (GATEWAY, "iot-2/app/+/mon"),
        (APP, "#"), (APP, "iot-2/#"), (APP, "iot-2/type/+/id/+/#"), (APP, "iot-2/type/+/id/+/evt/#"),
        (APP, "iot-2/type/+/id/+/evt/+/fmt/#"), (APP, "iot-2/+/+/id/+/evt/+/fmt/+"), (APP, "iot-2/type/+/id/+/+/+/fmt/+"),
        (APP, "iot-2/cmd/+/fmt/+"), (APP, "iot-2/type/+/id/+/notify"), (APP, "iotdm-1/#"), (APP, "iotdevice-1/#"),
        (APP, "iot-2/app/+/+"), (APP, "iot-2/type/+/id/+/intf/+/evt/+"), (APP, "$share/abc123:app/iot-2/type/+/id/+/mon"),
        ("A:abc123:app", "#"), ("A:abc123:app", "$SharedSubscription/abc123:app/iot-2/type/+/id/+/mon"),
        (QUICK, "#"), ("d:quickstart:t1:d1", "iot-2/evt/+/fmt/+"),
    ];
    for (who, filter) in table {
        assert_eq!(subscribe(&client(who), filter.as_bytes()), Err(Topic), "{who} {filter}");
    }
    let deep = format!("iot-2{}", "/+".repeat(30));
    assert_eq!(subscribe(&client(APP), deep.as_bytes()), Err(Topic));
    assert_eq!(subscribe(&client(DEVICE), b"iotdm-1/\xff"), Err(Topic));
}

#[test]
fn quickstart_watches_one_device() {
    let no = Err(Forbidden::NotAuthorised);
    #[rustfmt::skip]
    let table = [
        (QUICK, "iot-2/type/+/id/d1/evt/+/fmt/+",    Ok(Wanted::Events)),
        (QUICK, "iot-2/type/t1/id/d1/evt/e/fmt/json", Ok(Wanted::Events)),
        (QUICK, "iot-2/type/+/id/d1/mon",            Ok(Wanted::Presence)),
        (QUICK, "iot-2/app/app/mon",                 Ok(Wanted::AppPresence)),
        (QUICK, "iot-2/type/+/id/+/evt/+/fmt/+",     no),
        (QUICK, "iot-2/type/+/id/+/mon",             no),
        (QUICK, "iot-2/app/+/mon",                   no),
        (QUICK, "iot-2/type/+/id/d1/cmd/+/fmt/+",    no),
        (QUICK, "iot-2/type/+/id/d1/err/data",       no),
        ("A:quickstart:app", "iot-2/type/+/id/d1/mon", no),
        ("d:quickstart:t1:d1", "iot-2/cmd/+/fmt/+",  no),
        ("d:quickstart:t1:d1", "iotdm-1/#",          no),
        ("d:quickstart:t1:d1", "iot-2/mon",          no),
        ("g:quickstart:gw:g1", "iotdm-1/#",          no),
    ];
    for (who, filter, expected) in table {
        let read = subscribe(&client(who), filter.as_bytes());
        assert_eq!(read.map(|read| read.wanted), expected, "{who} {filter}");
    }
}
