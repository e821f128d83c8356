//! Applications over MQTT.

use moorline_core::Text;
use moorline_dialects::drogue::{
    application::{Form, Unwanted, publish, subscribe},
    properties,
};

use super::event::said;

#[test]
fn filters_of_applications() {
    let ok = |application: &str, group: Option<&str>, topic: &str| {
        Ok((application.to_owned(), group.map(str::to_owned), topic.to_owned()))
    };
    #[rustfmt::skip]
    let table = [
        ("app/plant", ok("plant", None, "app/plant")),
        ("a/plant", ok("plant", None, "a/plant")),
        ("application/plant", ok("plant", None, "application/plant")),
        ("$share/g/app/plant", ok("plant", Some("g"), "app/plant")),
        ("$shared/g/app/plant", ok("plant", Some("g"), "app/plant")),
        ("app/+", Err(Unwanted::Wildcard)),
        ("app/#", Err(Unwanted::Wildcard)),
        ("#", Err(Unwanted::Wildcard)),
        ("$share/g/app/#", Err(Unwanted::Wildcard)),
        ("app/plant/x", Err(Unwanted::Form)),
        ("app/", Err(Unwanted::Form)),
        ("app", Err(Unwanted::Form)),
        ("apps/plant", Err(Unwanted::Form)),
        ("App/plant", Err(Unwanted::Form)),
        ("$share/app", Err(Unwanted::Form)),
        ("$share//app/plant", Err(Unwanted::Form)),
        ("", Err(Unwanted::Form)),
    ];
    for (filter, expected) in table {
        let found = subscribe(filter).map(|events| {
            let group = events.group.as_ref().map(Text::to_string);
            (events.application.to_string(), group, events.topic.to_string())
        });
        assert_eq!(found, expected, "{filter}");
    }
    assert_eq!((Unwanted::Wildcard.reason(), Unwanted::Form.reason()), (0xA2, 0x8F));
}

#[test]
fn topics_of_applications_are_commands() {
    for (topic, expected) in [
        ("command/plant/gate-7/open", Some(("plant", "gate-7", "open"))),
        ("COMMAND/plant/gate-7/open", Some(("plant", "gate-7", "open"))),
        ("command/plant/gate-7", None),
        ("command/plant/gate-7/open/now", None),
        ("command/plant//open", None),
        ("command/plant/gate-7/", None),
        ("commands/plant/gate-7/open", None),
        ("app/plant", None),
        ("", None),
    ] {
        let found = publish(topic);
        let found = found
            .as_ref()
            .map(|of| (of.application.as_str(), of.device.as_str(), of.name.as_str()));
        assert_eq!(found, expected, "{topic}");
    }
}

#[test]
fn events_come_in_the_form_that_was_asked_for() {
    let structured = said("telemetry", None, b"{\"t\": 1.10}").structured();
    assert_eq!(Form::V3.of_event(&structured), (bytes::Bytes::new(), structured.clone()));
    let (said, payload) = Form::Structured.of_event(&structured);
    assert_eq!(payload, structured);
    assert!(said.starts_with(&[0x01, 1]), "text");
    let content_type = properties::read(&said).content_type;
    assert_eq!(content_type.as_deref(), Some("application/cloudevents+json; charset=utf-8"));
    let (said, payload) = Form::Binary.of_event(&structured);
    assert_eq!(payload, &b"{\"t\": 1.10}"[..], "as it was written");
    let said = properties::read(&said);
    assert_eq!(said.content_type.as_deref(), Some("application/json"));
    let subject = said.user.iter().find(|(name, _)| name == "subject");
    assert_eq!(subject.map(|(_, value)| value.as_str()), Some("telemetry"));
    for name in ["specversion", "id", "type", "source", "time", "application", "device"] {
        assert!(said.user.iter().any(|(other, _)| other == name), "{name}");
    }
    let bytes = super::event::said("raw", None, b"\x00\xff").structured();
    let (said, payload) = Form::Binary.of_event(&bytes);
    assert_eq!(payload, &b"\x00\xff"[..]);
    let content_type = properties::read(&said).content_type;
    assert_eq!(content_type.as_deref(), Some("application/octet-stream"));
    for (user, form) in [
        (&[("content-mode", "binary")][..], Form::Binary),
        (&[("x", "y"), ("content-mode", "Binary")], Form::Binary),
        (&[("content-mode", "structured")], Form::Structured),
        (&[("x", "binary")], Form::Structured),
        (&[], Form::Structured),
    ] {
        assert_eq!(Form::of(user.iter().copied()), form, "{user:?}");
    }
}

#[test]
fn properties_are_read_as_they_were_written() {
    let user = [("a", "1"), ("ü", "")];
    let written = properties::write(Some("text/plain"), &user, true);
    let read = properties::read(&written);
    assert_eq!(read.content_type.as_deref(), Some("text/plain"));
    assert_eq!(read.user, user.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let zero = properties::read(&properties::write(Some("a\0"), &[("b", "\0c")], false));
    assert_eq!(zero.content_type.as_deref(), Some("a\u{FFFD}"));
    assert_eq!(zero.user, [("b".to_owned(), "\u{FFFD}c".to_owned())]);
    // A response topic and correlation data stand between.
    let more = [&[0x08, 0, 1, b'r', 0x09, 0, 1, 0][..], &written].concat();
    assert_eq!(properties::read(&more), read);
    for cut in 0..written.len() {
        drop(properties::read(&written[..cut]));
    }
    assert_eq!(properties::read(&[0xff, 1, 2]), properties::Said::default());
}
