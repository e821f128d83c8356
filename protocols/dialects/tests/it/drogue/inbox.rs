//! Filters of the inbox, and who hears which command.

use moorline_core::{Text, topic};
use moorline_dialects::drogue::inbox::{
    Addressed, Inbox, canonical, canonical_filter, is_command, read,
};

#[test]
fn filters_are_those_that_there_are() {
    let device = |name: &str| Some(Inbox::Device(Text::from(name)));
    #[rustfmt::skip]
    let table = [
        ("command/inbox/#", Some(Inbox::All)),
        ("command/inbox/+/#", Some(Inbox::All)),
        ("command/inbox//#", Some(Inbox::Own)),
        ("command/inbox/device1/#", device("device1")),
        ("command/inbox", None),
        ("command/inbox/", None),
        ("command/inbox/device1", None),
        ("command/inbox/device1/SET", None),
        ("command/inbox/device1/+", None),
        ("command/inbox/a/b/#", None),
        ("command/inbox/+", None),
        ("command/inbox/+/+", None),
        ("command/#", None),
        ("#", None),
        ("", None),
        ("Command/inbox/#", None),
    ];
    for (filter, expected) in table {
        assert_eq!(Inbox::parse(filter), expected, "{filter}");
    }
}

#[test]
fn commands_come_under_the_name_that_was_asked_for() {
    let all = Inbox::All;
    let named = |name: &str| Inbox::Device(Text::from(name));
    let table = [
        (&all, "gw", Some("command/inbox//SET")),
        (&all, "device1", Some("command/inbox/device1/SET")),
        (&Inbox::Own, "gw", Some("command/inbox//SET")),
        (&Inbox::Own, "device1", None),
        (&named("device1"), "device1", Some("command/inbox/device1/SET")),
        (&named("gw"), "gw", Some("command/inbox/gw/SET")),
        (&named("device1"), "device2", None),
        (&named("device1"), "gw", None),
    ];
    for (inbox, device, expected) in table {
        assert_eq!(inbox.topic("gw", device, "SET").as_deref(), expected, "{inbox:?} {device}");
    }
}

#[test]
fn a_command_is_heard_by_its_recipient_alone() {
    let names = ["gate-7", "a/b", "+", "#", "CN=Gate 7, O=Plant", "ü", "50%", "%2F", "a"];
    for recipient in names {
        for device in names {
            let said = canonical(recipient, device, "a/b c");
            assert!(topic::is_name(said.as_bytes()), "{said}");
            let expected = Addressed {
                recipient: recipient.to_owned(),
                device: device.to_owned(),
                command: "a/b c".to_owned(),
            };
            assert_eq!(read(said.as_str()), Some(expected));
            for other in names {
                let all = canonical_filter(other, None);
                let one = canonical_filter(recipient, Some(other));
                let hears = |filter: Text| topic::matches(filter.as_bytes(), said.as_bytes());
                assert!(topic::is_filter(all.as_bytes()) && topic::is_filter(one.as_bytes()));
                assert_eq!(hears(all), other == recipient, "{other} hears {said}");
                assert_eq!(hears(one), other == device, "{other} hears {said}");
            }
            assert!(!topic::matches(b"#", said.as_bytes()), "no wildcard reaches it");
        }
    }
    for wrong in ["", "$command", "$command/a/b", "$command/a/b/c/d", "command/a/b/c"] {
        assert_eq!(read(wrong), None, "{wrong}");
    }
    for (name, expected) in [("SET", true), ("a/b", true), ("", false), ("+", false), ("a#", false)]
    {
        assert_eq!(is_command(name), expected, "{name}");
    }
}
