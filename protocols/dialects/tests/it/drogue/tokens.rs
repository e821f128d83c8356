//! Paths of API keys, and of what is not served.

use moorline_dialects::drogue::{
    http::Head,
    outcome::Refusal,
    tokens::{Asked, DESCRIPTION_BYTES_MAX, description, is_path, route},
};

const KEYS: &str = "/api/tokens/v1alpha1";

fn asked(method: &str, target: &str) -> Result<Asked, Refusal> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    route(&Head { method, path, query, headers: &[] })
}

#[test]
fn keys_are_listed_made_and_forgotten() {
    let create = |description: Option<&str>, role: Option<&str>| {
        let text = |text: Option<&str>| text.map(str::to_owned);
        Ok(Asked::Create { description: text(description), role: text(role) })
    };
    let delete = |prefix: &str| Ok(Asked::Delete(prefix.to_owned()));
    #[rustfmt::skip]
    let table = [
        ("GET",    "",                               Ok(Asked::List)),
        ("GET",    "/",                              Ok(Asked::List)),
        ("POST",   "",                               create(None, None)),
        ("POST",   "?description=ci%20runs&role=app", create(Some("ci runs"), Some("app"))),
        ("DELETE", "/mlt_7_ci",                      delete("mlt_7_ci")),
        ("DELETE", "/mlt%5F7%5Fci",                  delete("mlt_7_ci")),
        ("DELETE", "",                               Err(Refusal::Method)),
        ("PUT",    "",                               Err(Refusal::Method)),
        ("GET",    "/mlt_7_ci",                      Err(Refusal::Method)),
        ("DELETE", "/a/b",                           Err(Refusal::NotFound)),
        ("GET",    "/a/b",                           Err(Refusal::NotFound)),
        ("DELETE", "/%ff",                           Err(Refusal::NotFound)),
    ];
    for (method, rest, expected) in table {
        let target = format!("{KEYS}{rest}");
        assert!(target.split('?').next().is_some_and(is_path), "{rest}");
        assert_eq!(asked(method, &target), expected, "{method} {rest}");
    }
    let long = "x".repeat(DESCRIPTION_BYTES_MAX + 1);
    for wrong in [long.as_str(), "a%0Ab"] {
        let found = asked("POST", &format!("{KEYS}?description={wrong}"));
        assert!(matches!(found, Err(Refusal::Request(_))), "{wrong}");
    }
    for other in ["/api/tokens", "/api/tokens/v1alpha12", "/api/admin/v1alpha1", "/api/tokens/v2"] {
        assert!(!is_path(other), "{other}");
    }
}

#[test]
fn a_body_may_say_what_a_key_is_for() {
    let long = format!(r#"{{"description":"{}"}}"#, "x".repeat(DESCRIPTION_BYTES_MAX + 1));
    for (body, expected) in [
        ("", Ok(None)),
        (" ", Ok(None)),
        ("null", Ok(None)),
        ("{}", Ok(None)),
        (r#"{"description":null}"#, Ok(None)),
        (r#"{"description":""}"#, Ok(None)),
        (r#"{"description":"ci"}"#, Ok(Some("ci".to_owned()))),
    ] {
        assert_eq!(description(body.as_bytes()), expected, "{body}");
    }
    assert!(matches!(description(b"x"), Err(Refusal::Format(_))));
    for wrong in [r#"{"description":7}"#, long.as_str()] {
        assert!(matches!(description(wrong.as_bytes()), Err(Refusal::Request(_))), "{wrong}");
    }
}

#[test]
fn members_and_owners_are_told_not_to_be_there() {
    let base = "/api/admin/v1alpha1/apps";
    #[rustfmt::skip]
    let table = [
        ("GET",    "/plant/members",            501),
        ("PUT",    "/plant/members",            501),
        ("PUT",    "/plant/transfer-ownership", 501),
        ("GET",    "/plant/transfer-ownership", 501),
        ("DELETE", "/plant/transfer-ownership", 501),
        ("PUT",    "/plant/accept-ownership",   501),
        ("DELETE", "/plant/members",            405),
        ("GET",    "/plant/accept-ownership",   405),
        ("GET",    "/plant",                    404),
        ("GET",    "/plant/other",              404),
        ("GET",    "//members",                 404),
        ("GET",    "",                          404),
    ];
    for (method, rest, status) in table {
        let path = format!("{base}{rest}");
        assert!(is_path(&path), "{path}");
        let refusal = asked(method, &path).unwrap_err();
        assert_eq!(refusal.status(), status, "{method} {rest}");
    }
}
