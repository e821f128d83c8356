//! Which devices queries mean, by tables.

use moorline_dialects::losant::{
    access::Tag,
    device::{About, Change},
    meant::{Meant, Query, Subject},
};
use serde_json::{Map, Value, json};

use super::{DEVICE, NOW, OTHER, id};

fn about() -> About {
    let said = json!({
        "name": "Pump 7", "deviceClass": "peripheral", "gatewayId": OTHER,
        "attributes": [{ "name": "temperature", "dataType": "number" }, { "name": "open", "dataType": "boolean" }],
        "tags": [{ "key": "site", "value": "north" }, { "key": "floor", "value": "2" }],
    });
    Change::read(said.to_string().as_bytes()).unwrap().made(About::default()).unwrap()
}

fn finds(said: &Value) -> Option<bool> {
    let (about, id) = (about(), id(DEVICE));
    let subject = Subject { id: &id, about: &about, created_ms: NOW, updated_ms: NOW + 1_000 };
    Query::read(said).ok().map(|query| query.finds(&subject))
}

#[test]
fn fields_are_compared_as_the_vendor_says() {
    #[rustfmt::skip]
    let table = [
        (json!({}),                                                    true),
        (json!({ "name": "Pump 7" }),                                  true),
        (json!({ "name": "pump 7" }),                                  false),
        (json!({ "name": { "$eq": "pump 7", "$ci": true } }),          true),
        (json!({ "name": { "$ne": "Pump 7" } }),                       false),
        (json!({ "name": { "$startsWith": "Pump" } }),                 true),
        (json!({ "name": { "$endsWith": "8" } }),                      false),
        (json!({ "name": { "$contains": "MP", "$ci": true } }),        true),
        (json!({ "name": { "$gt": "Pump 6", "$lte": "Pump 7" } }),     true),
        (json!({ "name": { "$lt": "Pump 7" } }),                       false),
        (json!({ "name": { "$in": ["a", "Pump 7"] } }),                true),
        (json!({ "name": { "$nin": ["a", "Pump 7"] } }),               false),
        (json!({ "name": null }),                                      false),
        (json!({ "id": DEVICE }),                                      true),
        (json!({ "deviceId": { "$in": [OTHER] } }),                    false),
        (json!({ "deviceClass": "peripheral" }),                       true),
        (json!({ "deviceClass": { "$nin": ["gateway"] } }),            true),
        (json!({ "gatewayId": OTHER }),                                true),
        (json!({ "gatewayId": { "$ne": null } }),                      true),
        (json!({ "attributeName": "open" }),                           true),
        (json!({ "attributeName": { "$ne": "open" } }),                false),
        (json!({ "attributeName": { "$startsWith": "x" } }),           false),
        (json!({ "creationDate": { "$gte": "2026-01-02T03:04:05.678Z" } }), true),
        (json!({ "creationDate": { "$lt": NOW } }),                    false),
        (json!({ "lastUpdated": { "$gt": { "$date": "2026-01-02T03:04:05.678Z" } } }), true),
        (json!({ "creationDate": { "$date": "2026-01-02T03:04:05.678Z" } }), true),
        (json!({ "tags": { "site": "north" } }),                       true),
        (json!({ "tags": { "site": "north", "floor": "3" } }),         false),
        (json!({ "tags": { "$tagKey": "site" } }),                     true),
        (json!({ "tags": { "$tagKey": "site", "$tagValue": "south" } }), false),
        (json!({ "tags": { "$tagValue": "2" } }),                      true),
        (json!({ "tags": { "$eq": { "$tagKey": "floor" } } }),         true),
        (json!({ "tags": { "$ne": { "site": "north" } } }),            false),
        (json!({ "tags": { "$elemMatch": { "key": "site", "value": "north" } } }), true),
        (json!({ "tags.site": "north" }),                              true),
        (json!({ "tags.site": "south" }),                              false),
        (json!({ "$and": [{ "tags.site": "north" }, { "name": "x" }] }), false),
        (json!({ "$or": [{ "tags.site": "south" }, { "name": "Pump 7" }] }), true),
        (json!({ "$nor": [{ "name": "x" }, { "name": "Pump 7" }] }),   false),
        (json!({ "$and": [], "name": "Pump 7" }),                      true),
    ];
    for (said, expected) in table {
        assert_eq!(finds(&said), Some(expected), "{said}");
    }
}

#[test]
fn what_is_not_understood_is_refused() {
    let mut deep = json!({ "name": "a" });
    for _ in 0..9 {
        deep = json!({ "$and": [deep] });
    }
    let many: Vec<_> = (0..100).map(|_| json!({ "name": "a" })).collect();
    let many: Vec<_> = (0..11).map(|_| json!({ "$or": many })).collect();
    #[rustfmt::skip]
    let table = [
        json!([]), json!("x"), json!({ "colour": "red" }), json!({ "$not": {} }),
        json!({ "connectionStatus": "connected" }), json!({ "parentId": DEVICE }),
        json!({ "name": {} }), json!({ "name": { "$ci": true } }), json!({ "name": { "$regex": "a" } }),
        json!({ "name": { "$in": [] } }), json!({ "name": { "$in": "a" } }), json!({ "name": [] }),
        json!({ "name": { "$startsWith": "" } }), json!({ "name": { "$eq": "a", "$ci": 1 } }),
        json!({ "creationDate": "soon" }), json!({ "creationDate": { "$contains": "2026" } }),
        json!({ "tags": [] }), json!({ "tags": {} }), json!({ "tags": { "site": 1 } }),
        json!({ "tags": { "$gt": { "site": "a" } } }), json!({ "tags": { "$tagKey": "a", "b": "c" } }),
        json!({ "tags.site": { "$eq": "a" } }), json!({ "$and": {} }), deep, json!({ "$and": many }),
    ];
    for said in table {
        assert_eq!(finds(&said), None, "{said:.80}");
    }
    assert!(Query::parse("{").is_err());
}

#[test]
fn what_terms_compare_with_counts_among_them() {
    let list = |values: usize| json!({ "name": { "$in": vec!["a"; values] } });
    let lists = |count: usize| json!({ "$or": vec![list(100); count] });
    assert_eq!(finds(&lists(9)), Some(false));
    assert_eq!(finds(&lists(10)), None);
    let tags: Map<_, _> = (0..1_000).map(|at| (format!("key{at}"), json!("a"))).collect();
    assert_eq!(finds(&json!({ "tags": tags })), None);
}

#[test]
fn whoever_is_named_in_any_way_is_meant() {
    let tag = |key: &str| Tag { key: Some(key.into()), value: None };
    let (about, own) = (about(), id(DEVICE));
    let subject = Subject { id: &own, about: &about, created_ms: NOW, updated_ms: NOW };
    let by_id = Meant::read(Some(vec![DEVICE.into()]), None, Some(&Value::Null)).unwrap();
    assert_eq!((by_id.searches(), by_id.finds(&subject)), (false, false));
    let by_tag = Meant::read(None, Some(vec![tag("x"), tag("site")]), None).unwrap();
    assert_eq!((by_tag.searches(), by_tag.finds(&subject)), (true, true));
    let query = json!({ "name": "x" });
    let either = Meant::read(None, Some(vec![tag("site")]), Some(&query)).unwrap();
    assert!(either.finds(&subject));
    assert!(!Meant::read(None, None, Some(&query)).unwrap().finds(&subject));
    assert!(Meant::read(None, None, None).is_err());
}
