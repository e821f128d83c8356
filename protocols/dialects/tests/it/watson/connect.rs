//! CONNECT: sessions, wills, keep-alives, and what a refusal says.

use moorline_core::op::Denial;
use moorline_dialects::watson::{
    close::Close,
    connect::{Granted, Hello, Refused, Session, Share, Version, WillHello, hello, silence_ms_max},
    identity::{Class, Misnamed, Misproved},
};

use super::client;

const KEY: &[u8] = b"a-abc123-0123456789";

fn connect(client_id: &str) -> Hello<'_> {
    let username: &[u8] =
        if client_id.to_lowercase().starts_with('a') { KEY } else { b"use-token-auth" };
    Hello {
        level: 4,
        client_id: client_id.as_bytes(),
        username: Some(username),
        password: Some(b"12345678"),
        clean: true,
        expiry_s: 0,
        keep_alive_s: 60,
        will: None,
        sni: None,
    }
}

#[test]
fn sessions_are_as_asked() {
    const TWO_DAYS: u32 = 172_800;
    const WEEK: u32 = 604_800;
    const D: &str = "d:abc123:t1:d1";
    #[rustfmt::skip]
    let table = [
        // level, clean, expiry asked: named, clean start, expiry, changed, durable share
        (D,                3, true,  0,        true,  true,  0,        false, None),
        (D,                4, true,  0,        true,  true,  0,        false, None),
        (D,                4, false, 0,        true,  false, TWO_DAYS, false, None),
        (D,                5, false, 0,        true,  false, 0,        false, None),
        (D,                5, false, 60,       true,  false, 60,       false, None),
        (D,                5, true,  60,       true,  true,  60,       false, None),
        (D,                5, false, u32::MAX, true,  false, WEEK,     true,  None),
        ("g:abc123:gw:g1", 4, false, 0,        true,  false, TWO_DAYS, false, None),
        ("a:abc123:app",   4, false, 0,        true,  false, TWO_DAYS, false, None),
        ("a:abc123:app",   4, true,  0,        true,  true,  0,        false, None),
        ("A:abc123:app",   4, true,  0,        false, true,  0,        false, Some(false)),
        ("A:abc123:app",   4, false, 0,        false, true,  0,        true,  Some(true)),
        ("A:abc123:app",   5, false, 60,       false, true,  0,        true,  Some(true)),
        ("A:abc123:app:1", 4, true,  0,        true,  true,  0,        false, Some(false)),
        ("A:abc123:app:1", 4, false, 0,        true,  false, TWO_DAYS, false, Some(true)),
        ("A:abc123:app:1", 5, false, 60,       true,  false, 60,       false, Some(true)),
        ("d:quickstart:t1:d1", 4, true, 0,     true,  true,  0,        false, None),
        ("a:quickstart:app", 5, false, 0,      true,  false, 0,        false, None),
    ];
    for (id, level, clean, expiry_s, named, clean_start, value, changed, share) in table {
        let opening = hello(&Hello { level, clean, expiry_s, ..connect(id) }).unwrap();
        let share = share.map(|durable| Share { name: "abc123:app".into(), durable });
        let name = named.then(|| id.into());
        let expected = Session { name, clean_start, expiry_s: Granted { value, changed }, share };
        assert_eq!(opening.session, expected, "{id} {level} {clean} {expiry_s}");
        assert_eq!(opening.session.is_durable(), value > 0);
        assert_eq!(opening.client, client(id));
    }
    assert_eq!(Session::drawn(&client("A:abc123:app"), "7f").as_str(), "A:abc123:app:7f");
}

#[test]
fn keep_alives_of_shared_applications_are_overridden() {
    #[rustfmt::skip]
    let table = [
        ("d:abc123:t1:d1", 0, 0, false),          ("d:abc123:t1:d1", 65_535, 65_535, false),
        ("a:abc123:app",   0, 0, false),          ("A:abc123:app",   0, 3_600, true),
        ("A:abc123:app",   1, 1, false),          ("A:abc123:app:1", 3_600, 3_600, false),
        ("A:abc123:app:1", 3_601, 3_600, true),
    ];
    for (id, keep_alive_s, value, changed) in table {
        let opening = hello(&Hello { keep_alive_s, ..connect(id) }).unwrap();
        assert_eq!(opening.keep_alive, Granted { value, changed }, "{id} {keep_alive_s}");
    }
    assert_eq!((silence_ms_max(60), silence_ms_max(0)), (90_000, 0));
}

#[test]
fn wills_go_where_the_client_may_publish() {
    let will = |topic: &'static str, payload_bytes| {
        Some(WillHello { topic: topic.as_bytes(), payload_bytes })
    };
    let no = Err(Refused::Closed(Close::Will));
    const EVENT: &str = "iot-2/type/t1/id/d1/evt/gone/fmt/json";
    #[rustfmt::skip]
    let table = [
        ("d:abc123:t1:d1", will("iot-2/evt/gone/fmt/json", 10), Ok(Some(EVENT))),
        ("d:abc123:t1:d1", None,                                Ok(None)),
        ("g:abc123:gw:g1", will(EVENT, 10),                     Ok(Some(EVENT))),
        ("a:abc123:app",   will(EVENT, 131_072),                Ok(Some(EVENT))),
        ("a:abc123:app",   will(EVENT, 131_073),                Err(Refused::Closed(Close::TooLarge))),
        ("d:abc123:t1:d1", will("iot-2/cmd/gone/fmt/json", 10), no),
        ("d:abc123:t1:d1", will(EVENT, 10),                     no),
        ("d:abc123:t1:d1", will("status", 10),                  no),
        ("g:abc123:gw:g1", will("iot-2/evt/gone/fmt/json", 10), no),
        ("d:quickstart:t1:d1", will("iot-2/evt/gone/fmt/xml", 10), no),
    ];
    for (id, will, expected) in table {
        let said = hello(&Hello { will, ..connect(id) });
        let said = said.map(|opening| opening.will.map(|message| message.to_string()));
        assert_eq!(said, expected.map(|topic| topic.map(str::to_owned)), "{id} {will:?}");
    }
    assert_eq!(Refused::Closed(Close::Will).close().number(), 270);
}

#[test]
fn refusals_have_their_codes() {
    const D: &str = "d:abc123:t1:d1";
    let ok = connect(D);
    let durable = Hello { clean: false, ..connect("d:quickstart:t1:d1") };
    let durable_5 = Hello { level: 5, expiry_s: 1, ..connect("a:quickstart:app") };
    let (other, mine) = (b"zzz999.messaging.example.com", b"abc123.messaging.example.com");
    #[rustfmt::skip]
    let table = [
        (Hello { level: 2, ..ok },                         Refused::Version, Some(1), Some(0x84)),
        (Hello { level: 6, ..ok },                         Refused::Version, Some(1), Some(0x84)),
        (Hello { client_id: b"", ..ok },                   Refused::ClientId(Misnamed::UnknownClass), Some(5), Some(0x87)),
        (Hello { client_id: b"x:abc123:t:d", ..ok },       Refused::ClientId(Misnamed::UnknownClass), Some(5), Some(0x87)),
        (Hello { client_id: b"d:abc123:t", ..ok },         Refused::ClientId(Misnamed::Shape), Some(2), Some(0x85)),
        (Hello { client_id: b"d:abc123:t:d/1", ..ok },     Refused::ClientId(Misnamed::Slash), Some(2), Some(0x85)),
        (Hello { client_id: b"d:abc123:t:\xff", ..ok },    Refused::ClientId(Misnamed::NotUtf8), Some(2), Some(0x85)),
        (Hello { sni: Some(other), ..ok },                 Refused::ServerName, None, None),
        (Hello { username: Some(b"token"), ..ok },         Refused::Proof(Misproved::UserName), Some(5), Some(0x86)),
        (Hello { username: None, ..ok },                   Refused::Proof(Misproved::NoUserName), Some(5), Some(0x86)),
        (Hello { password: None, ..ok },                   Refused::Proof(Misproved::NoPassword), Some(5), Some(0x86)),
        (connect("g:quickstart:gw:g1"),                    Refused::Closed(Close::NotAuthorised), Some(5), Some(0x87)),
        (connect("A:quickstart:app"),                      Refused::Closed(Close::NotAuthorised), Some(5), Some(0x87)),
        (durable,                                          Refused::Closed(Close::DurableNotAllowed), Some(5), Some(0x87)),
        (durable_5,                                        Refused::Closed(Close::DurableNotAllowed), Some(5), Some(0x87)),
    ];
    for (asked, expected, v3, v5) in table {
        let refused = hello(&asked).unwrap_err();
        assert_eq!((refused, refused.v3(), refused.v5()), (expected, v3, v5), "{refused}");
    }
    assert!(hello(&Hello { sni: Some(mine), ..ok }).is_ok());
    assert!(hello(&Hello { sni: Some(b"localhost"), ..ok }).is_ok());

    #[rustfmt::skip]
    let table = [
        (Denial::Malformed, Some(5), 0x87),   (Denial::UnknownTenant, Some(5), 0x87),
        (Denial::UnknownDevice, Some(5), 0x87), (Denial::WrongSecret, Some(5), 0x86),
        (Denial::Disabled, Some(5), 0x87),    (Denial::Plaintext, Some(5), 0x87),
        (Denial::Stopping, Some(3), 0x88),    (Denial::Unavailable, Some(3), 0x88),
        (Denial::TooOften, None, 0x9f),       (Denial::Banned { retry_after_s: 1 }, None, 0x9f),
    ];
    for (denial, v3, v5) in table {
        let refused = Refused::Denied(denial);
        assert_eq!((refused.v3(), refused.v5()), (v3, Some(v5)), "{denial}");
    }
}

#[test]
fn reason_strings_are_left_out_when_they_do_not_fit() {
    let refused = Refused::Closed(Close::NotAuthorised);
    let text = Some("Not authorized");
    for (max, expected) in [(None, text), (Some(1_000), text), (Some(22), text), (Some(21), None)] {
        assert_eq!(refused.reason_string(max), expected, "{max:?}");
    }
}

#[test]
fn limits_and_versions_are_the_class_s() {
    let limits = Class::ALL.map(|class| {
        let limits = class.limits();
        (
            limits.receive_max,
            limits.unacknowledged_max,
            limits.subscriptions_max,
            limits.queue_items_max,
        )
    });
    let expected = [
        (10, 10, 50, 50),
        (2_048, 1_000, 500, 5_000),
        (2_048, 2_000, 500, 5_000),
        (2_048, 2_000, 500, 50_000),
    ];
    assert_eq!(limits, expected);
    let names = [3, 4, 5, 6].map(|level| Version::of_level(level).map(Version::name));
    assert_eq!(names, [Some("mqtt3"), Some("mqtt4"), Some("mqtt5"), None]);
}

#[test]
fn who_watches_hears_of_failures_of_clients_that_there_may_be() {
    #[rustfmt::skip]
    let table = [
        (Refused::Version,                                  None),
        (Refused::ClientId(Misnamed::Shape),                None),
        (Refused::ServerName,                               None),
        (Refused::Proof(Misproved::NoPassword),             Some(180)),
        (Refused::Denied(Denial::WrongSecret),              Some(180)),
        (Refused::Denied(Denial::UnknownDevice),            Some(180)),
        (Refused::Denied(Denial::Disabled),                 Some(180)),
        (Refused::Denied(Denial::Plaintext),                Some(180)),
        (Refused::Denied(Denial::UnknownTenant),            None),
        (Refused::Denied(Denial::Banned { retry_after_s: 1 }), None),
        (Refused::Denied(Denial::TooOften),                 None),
        (Refused::Denied(Denial::Unavailable),              None),
        (Refused::Denied(Denial::Stopping),                 None),
        (Refused::Denied(Denial::Malformed),                None),
        (Refused::Closed(Close::CertificateMissing),        Some(169)),
        (Refused::Closed(Close::CertificateWrong),          Some(170)),
        (Refused::Closed(Close::Will),                      Some(270)),
    ];
    for (refused, expected) in table {
        assert_eq!(refused.told().map(Close::number), expected, "{refused:?}");
        // What is kept leads to a ban: all that is judged by what was shown.
        let is_judged = matches!(refused, Refused::Proof(_) | Refused::Denied(_));
        let is_kept = is_judged && refused != Refused::Denied(Denial::Plaintext);
        assert_eq!(refused.is_kept(), is_kept && expected.is_some(), "{refused:?}");
    }
    let standard = Session::of_standard(&client("g:abc123:gw:g1"), 7, 12);
    assert_eq!(standard.as_str(), "g:abc123:gw:g1:standard:7:12");
}
