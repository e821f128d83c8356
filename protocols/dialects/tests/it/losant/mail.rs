//! Mail, as devices hear it.

use moorline_dialects::losant::mail::said;

use super::NOW;

#[test]
fn mail_is_a_command_with_a_time() {
    let kept = r#"{"name":"go","time":{"$date":"2001-01-01T00:00:00.000Z"},"payload":1}"#;
    let wrapped =
        r#"{"name":"command","payload":{"name":"go"},"time":{"$date":"2026-01-02T03:04:05.678Z"}}"#;
    let soon = r#"{"name":"command","payload":{"name":"go","time":{"$date":"soon"}},"time":{"$date":"2026-01-02T03:04:05.678Z"}}"#;
    #[rustfmt::skip]
    let table = [
        ("open-gate", r#"{"gate":1}"#, Ok(r#"{"name":"open-gate","payload":{"gate":1},"time":{"$date":"2026-01-02T03:04:05.678Z"}}"#)),
        ("stop",      "",              Ok(r#"{"name":"stop","time":{"$date":"2026-01-02T03:04:05.678Z"}}"#)),
        ("stop",      "null",          Ok(r#"{"name":"stop","payload":null,"time":{"$date":"2026-01-02T03:04:05.678Z"}}"#)),
        // A command that was kept is one already, and only that.
        ("command",   kept,            Ok(kept)),
        ("command",   r#"{"name":"go"}"#, Ok(wrapped)),
        // Somebody else's, with a time that SDKs fall over.
        ("command",   r#"{"name":"go","time":{"$date":"2001-01-01T00:00:00Z"},"payload":1}"#, Ok(kept)),
        ("command",   r#"{"name":"go","time":{"$date":978307200000},"payload":1}"#, Ok(kept)),
        ("command",   r#"{"name":"go","time":{"$date":"soon"}}"#, Ok(soon)),
        ("stop",      "\u{1}bytes",    Err("its body is no JSON")),
        ("",          "1",             Err("a command's name has 1 to 255 characters")),
    ];
    for (name, payload, expected) in table {
        let said = said(name, payload.as_bytes(), NOW).map(|said| String::from_utf8(said).unwrap());
        let expected = expected.map(str::to_owned);
        // Objects say the same in any order.
        let read = |text: &String| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(said.as_ref().map(read), expected.as_ref().map(read), "{name} {payload}");
    }
}
