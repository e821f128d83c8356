//! Applications over a WebSocket.

use moorline_dialects::drogue::{
    http::Head,
    outcome::Refusal,
    socket::{is_path, refreshed, route},
};

/// Application, channel and group, and what was shown.
type Found<'a> = (&'a str, Option<&'a str>, Option<&'a str>, &'a str);

#[test]
fn paths_queries_and_what_is_shown() {
    // ops:key
    let basic = ("authorization", &b"Basic b3BzOmtleQ=="[..]);
    let bearer = ("authorization", &b"bearer key"[..]);
    let (away, nowhere) = (Err(Refusal::Authentication), Err(Refusal::NotFound));
    type Case<'a> = (&'a str, &'a str, Option<(&'a str, &'a [u8])>, Result<Found<'a>, Refusal>);
    #[rustfmt::skip]
    let table: [Case<'_>; 20] = [
        ("/plant", "", Some(bearer), Ok(("plant", None, None, "key"))),
        ("/plant/", "", Some(bearer), Ok(("plant", None, None, "key"))),
        ("/plant", "group_id=g", Some(basic), Ok(("plant", None, Some("g"), "key"))),
        ("/plant/telemetry", "group_id=", Some(basic), Ok(("plant", Some("telemetry"), None, "key"))),
        ("/pl%61nt/a%2Fb", "", Some(bearer), Ok(("plant", Some("a/b"), None, "key"))),
        ("/plant", "token=drg%5F1", None, Ok(("plant", None, None, "drg_1"))),
        ("/plant", "username=ops&api_key=key", None, Ok(("plant", None, None, "key"))),
        ("/plant", "group_id=g&token=t&username=u&api_key=k", None, Ok(("plant", None, Some("g"), "t"))),
        ("/plant", "token=t", Some(bearer), Ok(("plant", None, None, "key"))),
        ("/plant", "api_key=key", None, away.clone()),
        ("/plant", "username=ops", None, away.clone()),
        ("/plant", "token=", None, away.clone()),
        ("/plant", "", None, away.clone()),
        ("/plant", "token=t", Some(("authorization", b"Digest x")), away.clone()),
        ("/plant/%FF", "", Some(bearer), Err(Refusal::Format("The path is no UTF-8".to_owned()))),
        ("/", "", Some(bearer), nowhere.clone()),
        ("", "", Some(bearer), nowhere.clone()),
        ("//telemetry", "", Some(bearer), nowhere.clone()),
        ("/plant/a/b", "", Some(bearer), nowhere.clone()),
        ("/plant//b", "", Some(bearer), nowhere.clone()),
    ];
    for (path, query, header, expected) in table {
        let headers: Vec<_> = header.into_iter().collect();
        let head = Head { method: "GET", path, query, headers: &headers };
        let found = route(&head);
        assert_eq!(is_path(path), !matches!(&found, Err(Refusal::NotFound)), "{path}");
        let found = found.as_ref().map_err(Clone::clone).map(|asked| {
            let key = std::str::from_utf8(asked.key.expose()).unwrap();
            (asked.application.as_str(), asked.channel.as_deref(), asked.group.as_deref(), key)
        });
        assert_eq!(found, expected, "{path}?{query} {header:?}");
    }
    let head = Head { method: "POST", path: "/plant", query: "token=t", headers: &[] };
    assert_eq!(route(&head), Err(Refusal::Method));
    assert!(!is_path(&format!("/{}", "x".repeat(4 * 1024))));
}

#[test]
fn a_client_says_its_next_token_and_nothing_else() {
    for (said, expected) in [
        (r#"{"RefreshAccessToken":"next"}"#, Some("next")),
        (r#" { "RefreshAccessToken" : "" } "#, Some("")),
        (r#"{"RefreshAccessToken":1}"#, None),
        (r#"{"RefreshAccessToken":"a","More":1}"#, None),
        (r#"{"Refresh":"a"}"#, None),
        (r#""RefreshAccessToken""#, None),
        ("[]", None),
        ("", None),
    ] {
        let found = refreshed(said);
        let found = found.as_ref().map(|key| std::str::from_utf8(key.expose()).unwrap());
        assert_eq!(found, expected, "{said}");
    }
}
