//! The event stream to the byte.

use moorline_dialects::fostrom::sse;

#[test]
fn events_have_the_bytes_that_sdks_parse() {
    let unauthorized = sse::disconnected("unauthorized: the secret is wrong", 300_000);
    #[rustfmt::skip]
    let table: [(&[u8], &str); 7] = [
        (sse::CONNECTED,           "event: connected\n\n"),
        (sse::NEW_MAIL,            "event: new_mail\n\n"),
        (sse::DISCONNECTED,        "event: disconnected\n\n"),
        (&sse::opening(false),     "event: connected\n\n"),
        (&sse::opening(true),      "event: connected\n\nevent: new_mail\n\n"),
        (&unauthorized,            "event: disconnected\ndata: {\"error\":\"unauthorized: the secret is wrong\",\"reconnecting_in_ms\":300000}\n\n"),
        (&sse::keep_alive(1_790_000_000_000), "event: keep_alive\ndata: 1790000000000\n\n"),
    ];
    for (bytes, expected) in table {
        assert_eq!(std::str::from_utf8(bytes).unwrap(), expected);
    }
    let hostile = sse::disconnected("a\n\nevent: new_mail\n\n", 0);
    assert_eq!(hostile.iter().filter(|byte| **byte == b'\n').count(), 3, "a line stays a line");
}
