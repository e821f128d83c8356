//! MQTT: every row of the tables of topics and CONNECT fields, and what is refused.

use bytes::Bytes;
use moorline_core::{
    QoS,
    op::{Answer, Declined, Denial, EventKind, Format, Op, Settlement},
    port::Refusal,
};
use moorline_dialects::fostrom::mqtt::{
    Connack, Hello, MailForm, Outgoing, Unpublishable, Wanted, answer, denied, hello, publish,
    subscribe,
};

use crate::support::{MAIL, MAIL_TEXT, SECRET, event, mail, msgpack, text};

#[test]
fn connect_fields_are_checked_in_order() {
    const NAME: Option<&[u8]> = Some(b"FLEET001::DEVICE0001");
    #[rustfmt::skip]
    let table: [(u8, &[u8], Option<&[u8]>, Option<&[u8]>, u16, Result<(Format, bool), Connack>); 16] = [
        (4, b"JSON",    NAME, Some(SECRET), 30, Ok((Format::Json, false))),
        (4, b"MSGPACK", NAME, Some(SECRET), 30, Ok((Format::MsgPack, false))),
        (4, b"JSON",    NAME, Some(SECRET), 11, Ok((Format::Json, false))),
        (4, b"JSON",    NAME, Some(SECRET), 10, Ok((Format::Json, true))),
        (4, b"JSON",    NAME, Some(SECRET), 0,  Ok((Format::Json, true))),
        (3, b"JSON",    NAME, Some(SECRET), 30, Err(Connack::UnsupportedVersion)),
        (5, b"JSON",    NAME, Some(SECRET), 30, Err(Connack::UnsupportedVersion)),
        (4, b"",        NAME, Some(SECRET), 30, Err(Connack::IdentifierRejected)),
        (4, b"json",    NAME, Some(SECRET), 30, Err(Connack::IdentifierRejected)),
        (4, b"DEVICE0001", NAME, Some(SECRET), 30, Err(Connack::IdentifierRejected)),
        (4, b"JSON",    None, Some(SECRET), 30, Err(Connack::NotAuthorised)),
        (4, b"JSON",    NAME, None,         30, Err(Connack::NotAuthorised)),
        (4, b"JSON",    NAME, Some(b""),    30, Err(Connack::NotAuthorised)),
        (4, b"JSON",    NAME, Some(b"FOS-short"), 30, Err(Connack::NotAuthorised)),
        (4, b"JSON",    Some(b"FLEET001"), Some(SECRET), 30, Err(Connack::NotAuthorised)),
        (4, b"JSON",    Some(b"FLEET001::DEVICE"), Some(SECRET), 30, Err(Connack::NotAuthorised)),
    ];
    for (level, client_id, username, password, keep_alive_s, expected) in table {
        let read = hello(&Hello { level, client_id, username, password, keep_alive_s });
        assert_eq!(read.map(|read| (read.format, read.short_lived)), expected, "{client_id:?}");
    }
}

#[test]
fn denials_have_their_return_codes() {
    #[rustfmt::skip]
    let table = [
        (Denial::Malformed, 5), (Denial::UnknownTenant, 5), (Denial::UnknownDevice, 5),
        (Denial::WrongSecret, 5), (Denial::Disabled, 5), (Denial::Banned { retry_after_s: 1 }, 5),
        (Denial::Plaintext, 5), (Denial::Stopping, 3), (Denial::Unavailable, 3), (Denial::TooOften, 3),
    ];
    for (denial, code) in table {
        assert_eq!(denied(denial) as u8, code, "{denial}");
    }
    assert_eq!([Connack::UnsupportedVersion as u8, Connack::IdentifierRejected as u8], [1, 2]);
}

fn unreadable(read: &Result<Op, Unpublishable>) -> bool {
    matches!(read, Err(Unpublishable::Declined(Declined::Unreadable(_))))
}

#[test]
fn topics_become_ops() {
    use Settlement::{Ack, Reject, Requeue};
    let datapoint = event(EventKind::Datapoint, "env", "{\"t\":21.5}");
    let ring = |body| event(EventKind::Message, "ring", body);
    let settle = |settlement| Op::SettleMail { id: MAIL, settlement };
    let upper = MAIL_TEXT.to_uppercase();
    #[rustfmt::skip]
    let table: [(&str, &str, Op); 15] = [
        ("heartbeat",        "",               Op::Heartbeat),
        ("heartbeat",        "whatever",       Op::Heartbeat),
        ("datapoint/env",    "{\"t\":21.5}",   datapoint),
        ("msg/ring",         "{\"n\":1}",      ring("{\"n\":1}")),
        ("msg/ring",         "null",           ring("")),
        ("msg/ring",         "",               ring("")),
        ("mailbox/next",     "",               Op::FetchMail { header_only: false }),
        ("mailbox/next",     "null",           Op::FetchMail { header_only: false }),
        ("mailbox/next",     "{}",             Op::FetchMail { header_only: false }),
        ("mailbox/next",     "{\"header_only\":true}",  Op::FetchMail { header_only: true }),
        ("mailbox/next",     "{\"header_only\":false}", Op::FetchMail { header_only: false }),
        (&format!("mailbox/ack/{MAIL_TEXT}"),     "", settle(Ack)),
        (&format!("mailbox/reject/{MAIL_TEXT}"),  "", settle(Reject)),
        (&format!("mailbox/requeue/{MAIL_TEXT}"), "", settle(Requeue)),
        (&format!("mailbox/ack/{upper}"),         "", settle(Ack)),
    ];
    for (topic, body, expected) in table {
        let packed = match body {
            "" | "whatever" => Bytes::from(body.to_owned()),
            body => msgpack(body),
        };
        let both = [(Format::Json, Bytes::from(body.to_owned())), (Format::MsgPack, packed)];
        for (format, body) in both {
            for qos in [QoS::AtMostOnce, QoS::AtLeastOnce] {
                let read = publish(format, qos, topic.as_bytes(), body.clone());
                assert_eq!(read, Ok(expected.clone()), "{topic} {format:?}");
            }
        }
    }
}

#[test]
fn topics_that_are_not_in_the_table_end_the_connection() {
    let id = format!("mailbox/ack/{MAIL_TEXT}/x");
    let table = [
        "x",
        "",
        "/heartbeat",
        "heartbeat/",
        "heartbeat/x",
        "datapoint",
        "datapoint/",
        "datapoint/env/x",
        "datapoint/a b",
        "datapoint/é",
        "msg",
        "msg/",
        "Msg/env",
        "mailbox",
        "mailbox/next/x",
        "mailbox/mail",
        "mailbox/ack",
        "mailbox/drop/x",
        &id,
        "resp/error",
        "d/x",
        "a/",
        "v1/devices/me/telemetry",
        "$SYS/x",
    ];
    for topic in table {
        let read = publish(Format::Json, QoS::AtLeastOnce, topic.as_bytes(), Bytes::new());
        assert!(matches!(read, Err(Unpublishable::Close(_))), "{topic}: {read:?}");
    }
    let twice = publish(Format::Json, QoS::ExactlyOnce, b"heartbeat", Bytes::new());
    assert_eq!(twice, Err(Unpublishable::Close("QoS 2")));
}

#[test]
fn bad_payloads_are_declined_and_the_connection_stays() {
    #[rustfmt::skip]
    let table: [(&str, &str); 9] = [
        ("datapoint/env", ""),       ("datapoint/env", "{}"),   ("datapoint/env", "[1]"),
        ("datapoint/env", "{"),      ("msg/ring", "7"),         ("mailbox/next", "1"),
        ("mailbox/next", "{\"header_only\":1}"),
        ("mailbox/next", "{\"other\":true}"),
        ("mailbox/next", "{\"header_only\":true,\"other\":true}"),
    ];
    for (topic, body) in table {
        let body = Bytes::from(body);
        let read = publish(Format::Json, QoS::AtLeastOnce, topic.as_bytes(), body);
        assert!(unreadable(&read), "{topic}: {read:?}");
    }
    for id in ["x", "018f4d1f-2a55-4f0e-b4ea-5f7c3e6fa001"] {
        let topic = format!("mailbox/requeue/{id}");
        let read = publish(Format::Json, QoS::AtLeastOnce, topic.as_bytes(), Bytes::new());
        assert_eq!(read, Err(Unpublishable::Declined(Declined::InvalidMailId)));
    }
    let large = Bytes::from(vec![b' '; 65_537]);
    let read = publish(Format::Json, QoS::AtLeastOnce, b"msg/ring", large);
    assert_eq!(read, Err(Unpublishable::Declined(Refusal::TooLarge.into())));
}

#[test]
fn the_topics_of_2024_are_msgpack_whatever_the_client_id_says() {
    let ack = format!("[\"{MAIL_TEXT}\"]");
    let ring = |body| event(EventKind::Message, "ring", body);
    #[rustfmt::skip]
    let table: [(&[u8], Bytes, Op); 6] = [
        (b"d", msgpack("{\"t\":21.5}"),            event(EventKind::Datapoint, "d", "{\"t\":21.5}")),
        (b"m", msgpack("[\"ring\",{\"n\":1}]"),    ring("{\"n\":1}")),
        (b"m", msgpack("[\"ring\",null]"),         ring("")),
        (b"m", msgpack("[\"ring\"]"),              ring("")),
        (b"m", Bytes::from_static(b"\x92\xa4ring\xd4\0\0"), ring("")), // undefined
        (b"a", msgpack(&ack),                      Op::SettleMail { id: MAIL, settlement: Settlement::Ack }),
    ];
    for format in [Format::Json, Format::MsgPack] {
        for (topic, body, expected) in &table {
            let read = publish(format, QoS::AtLeastOnce, topic, body.clone());
            assert_eq!(read, Ok(expected.clone()), "{topic:?}");
        }
        #[rustfmt::skip]
        let refused: [(&[u8], Bytes); 10] = [
            (b"d", Bytes::new()),          (b"d", msgpack("[1]")),        (b"m", msgpack("{}")),
            (b"m", msgpack("[]")),         (b"m", msgpack("[1,{}]")),     (b"m", msgpack("[\"a\",{},1]")),
            (b"a", msgpack("[]")),         (b"a", msgpack("[1]")),        (b"a", msgpack("\"x\"")),
            (b"m", msgpack("[\"ring\",\"text\"]")),
        ];
        for (topic, body) in refused {
            let read = publish(format, QoS::AtLeastOnce, topic, body.clone());
            assert!(unreadable(&read), "{topic:?} {body:?}: {read:?}");
        }
        let name = publish(format, QoS::AtLeastOnce, b"m", msgpack("[\"no name\",{}]"));
        assert_eq!(name, Err(Unpublishable::Declined(Declined::UnknownSchema)));
        let id = publish(format, QoS::AtLeastOnce, b"a", msgpack("[\"x\"]"));
        assert_eq!(id, Err(Unpublishable::Declined(Declined::InvalidMailId)));
    }
}

#[test]
fn filters_ask_for_mail_or_errors_or_nothing() {
    let (current, legacy) = (Some(MailForm::Current), Some(MailForm::Legacy));
    #[rustfmt::skip]
    let table = [
        ("mailbox/mail", Some((current, false))), ("mailbox/#",   Some((current, false))),
        ("mailbox/+",    Some((current, false))), ("#",           Some((current, true))),
        ("+/+",          Some((current, true))),  ("resp/#",      Some((None, true))),
        ("resp/error",   Some((None, true))),     ("resp/+",      Some((None, true))),
        ("m",            Some((legacy, false))),  ("+",           Some((legacy, false))),
        ("mailbox",      None),                   ("mailbox/next", None),
        ("datapoint/env", None),                  ("d",           None),
        ("$share/g/m",   None),                   ("other/#",     None),
    ];
    for (filter, expected) in table {
        let expected = expected.map(|(mail, errors)| Wanted { mail, errors });
        assert_eq!(subscribe(filter.as_bytes()), expected, "{filter}");
    }
}

#[test]
fn answers_are_published_back() {
    let fetched = |payload| Ok(Answer::Mail { size: 3, mail: Some(mail(payload)) });
    let empty = || Ok(Answer::Mail { size: 0, mail: None });
    let mail_1 = format!(
        "{{\"id\":\"{MAIL_TEXT}\",\"mailbox_size\":3,\"name\":\"open-gate\",\"payload\":{{\"gate\":1}}}}"
    );
    let mail_2 = mail_1.replace("{\"gate\":1}", "null");
    let legacy = format!("[\"{MAIL_TEXT}\",\"open-gate\",{{\"gate\":1}}]");
    let unknown = "{\"error\":\"packet_schema_not_found: the fleet has no such packet schema\",\
        \"op\":\"datapoint/env\"}";
    let nothing = "{\"id\":null,\"mailbox_size\":0}";
    use MailForm::{Current, Legacy};
    #[rustfmt::skip]
    let table = [
        (Current, Ok(Answer::Done),              None),
        (Current, Ok(Answer::Settled { size: 2 }), None),
        (Current, fetched("{\"gate\":1}"),       Some(("mailbox/mail", mail_1.as_str()))),
        (Current, fetched(""),                   Some(("mailbox/mail", mail_2.as_str()))),
        (Current, empty(),                       Some(("mailbox/mail", nothing))),
        (Legacy,  fetched("{\"gate\":1}"),       Some(("m", legacy.as_str()))),
        (Legacy,  empty(),                       None),
        (Current, Err(Declined::UnknownSchema),  Some(("resp/error", unknown))),
    ];
    for (form, outcome, expected) in table {
        for format in [Format::Json, Format::MsgPack] {
            let said = answer(form, format, b"datapoint/env", outcome.clone());
            let packed = format == Format::MsgPack || expected.is_some_and(|(at, _)| at == "m");
            let expected = expected.map(|(topic, json)| {
                let payload = if packed { msgpack(json) } else { Bytes::from(json.to_owned()) };
                Outgoing { topic, payload }
            });
            assert_eq!(said, expected, "{outcome:?} {format:?}");
        }
    }
    let busy = answer(Current, Format::Json, b"heartbeat", Err(Refusal::Busy.into())).unwrap();
    let expected = "{\"error\":\"busy: the cluster is busy\",\"op\":\"heartbeat\"}";
    assert_eq!(text(&busy.payload), expected);
}
