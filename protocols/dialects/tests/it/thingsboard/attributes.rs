//! Attributes: requests, answers, notices.

use moorline_dialects::thingsboard::{
    attributes::{Changed, Found, KEYS_MAX, Scope, Wanted},
    values::Value,
};

use super::support::{entries, json, text};

fn named(client: &[&str], shared: &[&str]) -> Wanted {
    let owned = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect();
    Wanted::Named { client: owned(client), shared: owned(shared) }
}

#[test]
fn a_request_names_keys_or_wants_all() {
    #[rustfmt::skip]
    let table = [
        (r#"{"clientKeys":"a,b","sharedKeys":"c"}"#, named(&["a", "b"], &["c"])),
        (r#"{"clientKeys":"a"}"#,                    named(&["a"], &[])),
        (r#"{"sharedKeys":"c,d"}"#,                  named(&[], &["c", "d"])),
        (r#"{"sharedKeys":"c,,d,"}"#,                named(&[], &["c", "d"])),
        ("{}",                                       Wanted::All),
        (r#"{"clientKeys":"","sharedKeys":null}"#,   Wanted::All),
        (r#"{"client_keys":"a"}"#,                   Wanted::All),
    ];
    for (written, expected) in table {
        assert_eq!(Wanted::read(&json(written)), Ok(expected), "{written}");
    }
    for written in ["[]", "1", "null", r#"{"clientKeys":["a"]}"#, r#"{"sharedKeys":1}"#] {
        assert!(Wanted::read(&json(written)).is_err(), "{written}");
    }
    let many = vec!["k"; KEYS_MAX + 1].join(",");
    assert!(Wanted::of(Some(&many), None).is_err());
    assert!(Wanted::of(Some(&many[2..]), None).is_ok());
}

#[test]
fn a_group_without_values_is_left_out() {
    let client = entries(&[("a", Value::Long(1))]);
    let shared = entries(&[("c", Value::Double(2.0)), ("d", text("x"))]);
    #[rustfmt::skip]
    let table = [
        (Found { client: client.clone(), shared: shared.clone() }, r#"{"client":{"a":1},"shared":{"c":2.0,"d":"x"}}"#),
        (Found { client, shared: vec![] },                         r#"{"client":{"a":1}}"#),
        (Found { client: vec![], shared },                         r#"{"shared":{"c":2.0,"d":"x"}}"#),
        (Found::default(),                                         "{}"),
    ];
    for (found, expected) in table {
        assert_eq!(found.to_json().to_string(), expected);
        assert_eq!(found.is_empty(), expected == "{}");
    }
}

#[test]
fn changes_are_values_or_deleted_keys() {
    let updated = entries(&[("k", Value::Json(json("[1]")))]);
    let deleted = vec!["k".to_owned(), "l".to_owned()];
    let both = entries(&[("deleted", Value::Long(1)), ("m", Value::Bool(true))]);
    #[rustfmt::skip]
    let table = [
        (Changed { updated, deleted: vec![] },                 r#"{"k":[1]}"#),
        (Changed { updated: vec![], deleted: deleted.clone() }, r#"{"deleted":["k","l"]}"#),
        (Changed { updated: both, deleted },                   r#"{"m":true,"deleted":["k","l"]}"#),
        (Changed::default(),                                   "{}"),
    ];
    for (changed, expected) in table {
        assert_eq!(changed.to_json().to_string(), expected);
    }
}

#[test]
fn scopes_have_names() {
    for scope in [Scope::Client, Scope::Shared, Scope::Server] {
        assert_eq!(Scope::by_name(scope.name()), Some(scope));
    }
    assert_eq!(Scope::by_name("shared_scope"), None);
}
