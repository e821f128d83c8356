//! Mail, as devices hear it.

use moorline_dialects::thingsboard::mail::{IDS_FROM, said};

#[test]
fn mail_is_a_call_that_wants_no_answer() {
    let (long, longest) = ("n".repeat(256), "n".repeat(255));
    let longest_said = format!(r#"{{"method":"{longest}","params":1}}"#);
    let unnamed = Err("a method has 1 to 255 bytes");
    #[rustfmt::skip]
    let table = [
        ("open-gate", r#"{"gate":1}"#, Ok(r#"{"method":"open-gate","params":{"gate":1}}"#)),
        ("stop",      "",              Ok(r#"{"method":"stop","params":null}"#)),
        (&*longest,   "1",             Ok(&*longest_said)),
        (&*long,      "1",             unnamed),
        ("",          "1",             unnamed),
        ("stop",      "\u{1}bytes",    Err("its body is no JSON")),
    ];
    for (name, payload, expected) in table {
        let call = said(7, name, payload.as_bytes());
        let call = call.map(|call| call.to_json().to_string());
        assert_eq!(call.as_deref(), expected.as_ref().map(|said| *said), "{name} {payload}");
    }
}

#[test]
fn its_id_is_no_calls() {
    for id in [0, 1, u128::MAX, 0x0192_f1c2_a3b4_7c5d_8e6f_0123_4567_89ab] {
        let call = said(id, "stop", b"").unwrap();
        assert!(call.id >= IDS_FROM, "{id:x}: {}", call.id);
        assert_eq!(call.id, said(id, "other", b"1").unwrap().id, "the same each time");
    }
    assert_ne!(said(1, "stop", b"").unwrap().id, said(2, "stop", b"").unwrap().id);
}
