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
    let mut gathered = shape.gathered();
    wanted.for_each(|one| gathered.push(one, |one, name| field(one, name).to_owned()));
    let page = gathered.page();
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
        ("page=0&perPage=2",                       &DEVICES,      "21",  3),
        ("page=1&perPage=1&sortDirection=desc",    &DEVICES,      "1",   3),
        ("page=1&perPage=3",                       &DEVICES,      "",    3),
        ("page=18446744073709551615&perPage=1000", &DEVICES,      "",    3),
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
fn a_page_holds_what_stands_before_its_end_and_is_that_of_all_sorted() {
    // Names twice, so that ids decide; and they come in another order than either.
    let all: Vec<(usize, String)> =
        (0..97).map(|n| (n * 41) % 97).map(|id| (id, format!("{:02}", id / 2))).collect();
    let said = |one: &(usize, String), name: &str| match name {
        "id" => format!("{:02}", one.0),
        _ => one.1.clone(),
    };
    for (descending, per_page) in [(false, 1), (true, 1), (false, 10), (true, 10), (true, 97)] {
        let mut sorted = all.clone();
        sorted.sort_by_key(|(id, _)| *id);
        if descending {
            sorted.reverse();
        }
        for page in 0..97 / per_page + 2 {
            let direction = if descending { "desc" } else { "asc" };
            let query = format!("sortDirection={direction}&page={page}&perPage={per_page}");
            let shape = shape(&query, &DEVICES).unwrap();
            let mut gathered = shape.gathered();
            for one in all.clone() {
                gathered.push(one, said);
                assert!(gathered.held() <= (page + 1) * per_page, "{query}");
            }
            let found = gathered.page();
            let expected: Vec<_> =
                sorted.iter().skip(page * per_page).take(per_page).cloned().collect();
            assert_eq!((found.items, found.total), (expected, 97), "{query}");
        }
    }
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
