//! Lists: order, filter and pages, by tables.

use moorline_dialects::losant::rest::{
    list::{AUTHORITIES, CERTIFICATES, DEVICES, Fields, Glob, KEYS, Shape, field},
    query::Query,
};
use serde_json::{Value, json};

use super::NOW;

fn shape(query: &str, fields: &Fields) -> Option<Shape> {
    Shape::of(&Query::read(query, NOW).unwrap(), fields).ok()
}

fn all() -> Vec<Value> {
    let one = |id: &str, name: &str, at: &str| {
        json!({
            "id": id, "name": name, "key": name, "status": "active", "creationDate": at,
            "certificateInfo": { "commonName": name },
        })
    };
    vec![one("1", "b", "2026-01-02"), one("2", "a", "2026-01-03"), one("3", "b", "2026-01-01")]
}

fn shown(query: &str, fields: &Fields) -> Option<(String, usize)> {
    let shape = shape(query, fields)?;
    let wanted = all().into_iter().filter(|one| shape.wants(|name| field(one, name)));
    let page = shape.page(wanted.collect(), |one, name| field(one, name).to_owned());
    Some((page.items.iter().map(|one| field(one, "id")).collect(), page.total))
}

#[test]
fn lists_are_sorted_filtered_and_paged() {
    #[rustfmt::skip]
    let table = [
        ("",                                       &DEVICES,      "213", 3),
        ("sortDirection=desc",                     &DEVICES,      "312", 3),
        ("sortField=creationDate",                 &DEVICES,      "312", 3),
        ("sortField=id&sortDirection=desc",        &DEVICES,      "321", 3),
        ("sortField=&sortDirection=",              &DEVICES,      "213", 3),
        ("filter=B",                               &DEVICES,      "13",  2),
        ("filterField=name&filter=*",              &DEVICES,      "213", 3),
        ("filter=c",                               &DEVICES,      "",    0),
        ("filter=",                                &DEVICES,      "213", 3),
        ("page=1&perPage=2",                       &DEVICES,      "3",   3),
        ("page=9",                                 &DEVICES,      "",    3),
        ("",                                       &KEYS,         "213", 3),
        ("sortDirection=asc",                      &KEYS,         "312", 3),
        ("filterField=status&filter=act*",         &KEYS,         "213", 3),
        ("filterField=certificateInfo.commonName&filter=a", &CERTIFICATES, "2", 1),
        ("sortField=status",                       &AUTHORITIES,  "123", 3),
    ];
    for (query, fields, expected, total) in table {
        assert_eq!(shown(query, fields), Some((expected.to_owned(), total)), "{query}");
    }
    for (query, fields) in [
        ("sortField=colour", &DEVICES),
        ("sortField=connectionStatus", &DEVICES),
        ("sortDirection=up", &DEVICES),
        ("filterField=id", &DEVICES),
        ("filterField=name", &KEYS),
    ] {
        assert_eq!(shown(query, fields), None, "{query}");
    }
    let shape = shape("filter=b*&perPage=2", &DEVICES).unwrap();
    let answer = shape.answer("app", &all(), 7);
    let said = [&answer["sortField"], &answer["filterField"], &answer["filter"]];
    assert_eq!(said, [&json!("name"), &json!("name"), &json!("b*")]);
    assert_eq!((&answer["count"], &answer["totalCount"]), (&json!(3), &json!(7)));
    assert!(shape.unfiltered().wants(|_| "x"));
}

#[test]
fn a_star_stands_for_anything() {
    #[rustfmt::skip]
    let table = [
        ("pump",     "Pump",      true),  ("pump",   "pump 1",     false), ("*",      "",           true),
        ("pump*",    "pump 1",    true),  ("*1",     "pump 1",     true),  ("*1",     "pump 12",    false),
        ("p*p*1",    "Pump 1",    true),  ("p*p*p",  "pump",       false), ("*um*",   "pump",       true),
        ("the*name", "the name",  true),  ("a*a",    "a",          false), ("**",     "x",          true),
        ("ä*",       "Äpfel",     true),
    ];
    for (glob, text, expected) in table {
        assert_eq!(Glob::new(glob).fits(text), expected, "{glob} {text}");
    }
}
