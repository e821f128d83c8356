//! Every topic: who may say and hear what where, and what is refused.

use moorline_core::{Text, topic};
use moorline_dialects::losant::{
    id::Id,
    topics::{Publish, Subscribe, command, command_inside, publish, seen, subscribe},
};

use super::{DEVICE, OTHER, id};

#[test]
fn ids_are_24_lower_case_hexadecimal_digits() {
    for right in [DEVICE, OTHER, "000000000000000000000000"] {
        assert_eq!(Id::parse(right.as_bytes()).unwrap().as_str(), right);
    }
    for wrong in [
        "",
        "5f0c9a1b2c3d4e5f6071829",
        "5f0c9a1b2c3d4e5f607182930",
        "5F0c9a1b2c3d4e5f60718293",
        "5f0c9a1b2c3d4e5f6071829g",
    ] {
        assert_eq!(Id::parse(wrong.as_bytes()), None, "{wrong}");
    }
    assert_eq!(Id::of([0xa5; 12]).as_str(), "a5".repeat(12));
}

#[test]
fn a_publish_is_a_state_or_a_message_or_nothing() {
    let state = |id: &str| Some(Publish::State(super::id(id)));
    #[rustfmt::skip]
    let table = [
        (format!("losant/{DEVICE}/state"),       state(DEVICE)),
        (format!("losant/{OTHER}/state"),        state(OTHER)),
        (format!("/losant/{DEVICE}/state"),      state(DEVICE)),
        ("/losant/not-this-device/state".into(), None),
        (format!("losant/{DEVICE}/command"),     None),
        (format!("losant/{DEVICE}/state/x"),     None),
        (format!("losant/{DEVICE}/toAgent/flows"), None),
        (format!("losant/{DEVICE}"),             None),
        ("losant".into(),                        None),
        ("losant/x".into(),                      None),
        ("losantic/x".into(),                    None),
        ("/losant".into(),                       None),
        ("$losant/x/command".into(),             None),
        ("$SYS/x".into(),                        None),
        ("a/+".into(),                           None),
        (String::new(),                          None),
        ("a".into(),                             Some(Publish::Custom)),
        ("plant/losant/x".into(),                Some(Publish::Custom)),
        ("Losant/x".into(),                      Some(Publish::Custom)),
        ("//losant".into(),                      Some(Publish::Custom)),
        ("/a".into(),                            Some(Publish::Custom)),
    ];
    for (topic, expected) in table {
        assert_eq!(publish(topic.as_bytes()), expected, "{topic}");
    }
    assert_eq!(publish(b"\xff"), None);
}

#[test]
fn a_filter_asks_for_commands_by_their_full_name_or_for_messages() {
    let commands = |id: &str| Some(Subscribe::Commands(super::id(id)));
    #[rustfmt::skip]
    let table = [
        (format!("losant/{DEVICE}/command"),  commands(DEVICE)),
        (format!("losant/{OTHER}/command"),   commands(OTHER)),
        (format!("/losant/{OTHER}/command"),  None),
        (format!("losant/{DEVICE}/state"),    None),
        (format!("losant/{DEVICE}/#"),        None),
        ("losant/+/command".into(),           None),
        ("losant/#".into(),                   None),
        ("losant".into(),                     None),
        ("$losant/#".into(),                  None),
        ("$share/g/a".into(),                 None),
        ("a/#/b".into(),                      None),
        (String::new(),                       None),
        ("#".into(),                          Some(Subscribe::Custom)),
        ("+/x/command".into(),                Some(Subscribe::Custom)),
        ("plant/+".into(),                    Some(Subscribe::Custom)),
    ];
    for (filter, expected) in table {
        assert_eq!(subscribe(filter.as_bytes()), expected, "{filter}");
    }
}

#[test]
fn commands_have_a_name_inside_that_no_wildcard_in_front_reaches() {
    let inside = command_inside(&id(DEVICE));
    for filter in ["#", "+/#", "+/+/command"] {
        assert!(!topic::matches(filter.as_bytes(), inside.as_bytes()), "{filter}");
    }
    assert_eq!(seen(&inside), Some(command(&id(DEVICE))));
    assert_eq!(seen(&Text::from("plant/losant")), None);
}
