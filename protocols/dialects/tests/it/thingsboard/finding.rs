//! Commands of the WebSocket for many devices: which they are, what of each is shown, and how.

use moorline_dialects::thingsboard::{
    attributes::Scope,
    rest::{
        aggregation::{Aggregation, Range},
        entities::PageQuery,
        finding::{
            DEVICES_MAX, DataCommand, Devices, Finding, Found, Sought, Wanted, changed, count,
            news, not_found, page_found,
        },
        websocket::{Command, Kind, Past, SubscriptionError, read},
    },
    values::Value,
};
use uuid::Uuid;

use super::support::NOW_MS;

const ID: &str = "13814000-1dd2-11b2-8080-808080808080";

fn id() -> Uuid {
    ID.parse().unwrap()
}

fn command(kind: &str, fields: &str) -> Kind {
    let message = format!(r#"{{"cmds":[{{"type":"{kind}","cmdId":7,{fields}}}]}}"#);
    let mut commands = read(&message, NOW_MS).unwrap().commands;
    let Some(Command { id: 7, kind }) = commands.pop() else { panic!("{commands:?}") };
    kind
}

fn named(kinds: &[&str], name: &str) -> Devices {
    let kinds = kinds.iter().map(|kind| (*kind).to_owned()).collect();
    Devices::Named { kinds, name: name.to_owned() }
}

#[test]
fn each_filter_for_devices_is_read() {
    let single = format!(
        r#"{{"type":"singleEntity","singleEntity":{{"entityType":"DEVICE","id":"{ID}"}}}}"#
    );
    let list = format!(r#"{{"type":"entityList","entityType":"DEVICE","entityList":["{ID}"]}}"#);
    #[rustfmt::skip]
    let table = [
        (&*single, Devices::Ids(vec![id()])),
        (&*list, Devices::Ids(vec![id()])),
        (r#"{"type":"entityType","entityType":"DEVICE"}"#, named(&[], "")),
        (r#"{"type":"entityName","entityType":"DEVICE","entityNameFilter":"Dev"}"#, named(&[], "Dev")),
        (r#"{"type":"deviceType","deviceTypes":["a","b"],"deviceNameFilter":"x"}"#, named(&["a", "b"], "x")),
        (r#"{"type":"deviceType","deviceType":"a"}"#, named(&["a"], "")),
    ];
    for (filter, devices) in table {
        let fields = format!(r#""query":{{"entityFilter":{filter},"keyFilters":[]}}"#);
        let sought = Sought { devices, filters: vec![] };
        assert_eq!(command("ENTITY_COUNT", &fields), Kind::Count(sought), "{filter}");
    }
    #[rustfmt::skip]
    let refused = [
        (r#""x":1"#,                                                            "query is needed"),
        (r#""query":{}"#,                                                       "entityFilter is needed"),
        (r#""query":{"entityFilter":{"type":"assetType"}}"#,                    "the filter \"assetType\" is not served"),
        (r#""query":{"entityFilter":{"type":"entityType","entityType":"ASSET"}}"#, "ASSET is not served: devices are"),
        (r#""query":{"entityFilter":{"type":"singleEntity","singleEntity":{"entityType":"DEVICE","id":"x"}}}"#, "an id is none"),
        (r#""query":{"entityFilter":{"type":"entityType","entityType":"DEVICE"},"keyFilters":[{}]}"#, "keyFilters: key is needed"),
    ];
    for (fields, why) in refused {
        let why = why.to_owned();
        assert_eq!(
            command("ENTITY_COUNT", fields),
            Kind::Unfound { counts: true, why },
            "{fields}"
        );
    }
}

#[test]
fn names_begin_as_a_filter_says() {
    #[rustfmt::skip]
    let table = [
        ("", "anything", true), ("dev", "Dev A", true), ("Dev A", "dev a", true), ("ev", "Dev A", false),
        ("%ev", "Dev A", true), ("%", "", true), ("d%a", "Dev A 1", true), ("d%b", "Dev A", false), ("a%a", "a", false),
        ("d_v", "dev", false), ("É", "étage", true),
    ];
    for (pattern, name, expected) in table {
        assert_eq!(named(&[], pattern).has(id(), name, "k"), expected, "{pattern} {name}");
    }
    assert!(named(&["a", "k"], "").has(id(), "d", "k") && !named(&["a"], "").has(id(), "d", "k"));
    assert!(Devices::Ids(vec![id()]).has(id(), "d", "k"));
    assert!(!Devices::Ids(vec![]).has(id(), "d", "k"));
}

#[test]
fn a_page_says_what_it_shows_and_what_it_pushes() {
    let all = r#""entityFilter":{"type":"entityType","entityType":"DEVICE"}"#;
    let fields = format!(
        r#""query":{{{all},
            "pageLink":{{"pageSize":20,"page":1,"textSearch":"a","dynamic":true,
                "sortOrder":{{"key":{{"type":"ENTITY_FIELD","key":"name"}},"direction":"DESC"}}}},
            "entityFields":[{{"type":"ENTITY_FIELD","key":"label"}}],
            "latestValues":[{{"type":"TIME_SERIES","key":"t"}},{{"type":"SHARED_ATTRIBUTE","key":"s"}}]}},
        "latestCmd":{{"keys":[{{"type":"ATTRIBUTE","key":"a"}}]}},
        "tsCmd":{{"keys":["t"],"startTs":5,"timeWindow":10,"interval":2,"limit":3,"agg":"AVG"}},
        "historyCmd":{{"keys":["u"],"startTs":1,"endTs":9}}"#
    );
    let past = |start_ms, end_ms, interval_ms, aggregation, limit| Past {
        range: Range { start_ms, end_ms, interval_ms },
        aggregation,
        limit,
    };
    let key = |key: &str| vec![key.to_owned()];
    let finding = Finding {
        sought: Sought { devices: named(&[], ""), filters: vec![] },
        page: PageQuery {
            size: 20,
            page: 1,
            text_search: Some("a".to_owned()),
            sort_property: Some("name".to_owned()),
            descending: true,
        },
        wanted: vec![
            Wanted::Field("label".to_owned()),
            Wanted::Series("t".to_owned()),
            Wanted::Attribute(Some(Scope::Shared), "s".to_owned()),
        ],
        follows: true,
    };
    let expected = DataCommand {
        finding: Some(finding),
        latest: vec![Wanted::Attribute(None, "a".to_owned())],
        series: Some((key("t"), past(5, 15, 2, Aggregation::Avg, 3))),
        past: Some((key("u"), past(1, 9, 0, Aggregation::None, 100))),
    };
    assert_eq!(command("ENTITY_DATA", &fields), Kind::Data(Box::new(expected)));
    // What an earlier one has found.
    let later = r#""query":null,"latestCmd":{"keys":[{"type":"TIME_SERIES","key":"t"}]}"#;
    let Kind::Data(later) = command("ENTITY_DATA", later) else { panic!("{later}") };
    assert_eq!((later.finding, later.latest), (None, vec![Wanted::Series("t".to_owned())]));
    for kind in ["ENTITY_DATA_UNSUBSCRIBE", "ENTITY_COUNT_UNSUBSCRIBE"] {
        assert_eq!(command(kind, r#""x":1"#), Kind::Unsubscribe);
    }
    let too_many = DEVICES_MAX + 1;
    #[rustfmt::skip]
    let refused = [
        (r#""query":null"#.to_owned(), "query is needed".to_owned()),
        (format!(r#""query":{{{all},"pageLink":{{"pageSize":{too_many}}}}}"#), format!("pageSize: 1 to {DEVICES_MAX}")),
        (format!(r#""query":{{{all},"pageLink":{{"sortOrder":{{"key":{{"type":"TIME_SERIES","key":"t"}}}}}}}}"#), "sortOrder: the fields name, createdTime, type and label".to_owned()),
        (format!(r#""query":{{{all}}},"aggTsCmd":{{}}"#), "aggHistoryCmd and aggTsCmd are not served".to_owned()),
        (format!(r#""query":{{{all}}},"tsCmd":{{"keys":[]}}"#), "keys are needed".to_owned()),
        (format!(r#""query":{{{all}}},"historyCmd":{{"keys":["t"]}}"#), "startTs and endTs, or timeWindow, are needed".to_owned()),
        (format!(r#""query":{{{all}}},"latestCmd":{{"keys":[{{"type":"ALARM_FIELD","key":"t"}}]}}"#), "keys of the type \"ALARM_FIELD\" are not served".to_owned()),
    ];
    for (fields, why) in refused {
        let unfound = Kind::Unfound { counts: false, why };
        assert_eq!(command("ENTITY_DATA", &fields), unfound, "{fields}");
    }
}

#[test]
fn answers_are_written_as_clients_read_them() {
    let series = vec![("t".to_owned(), vec![(2, Value::Long(25)), (1, Value::Long(24))])];
    let latest = vec![
        (Wanted::Field("name".to_owned()), 0, "Dev A".to_owned()),
        (Wanted::Series("t".to_owned()), 2, "25".to_owned()),
        (Wanted::Series("u".to_owned()), 3, "x".to_owned()),
    ];
    let found = Found { id: id(), latest, series: vec![] };
    let page =
        PageQuery { size: 1, page: 0, text_search: None, sort_property: None, descending: false };
    let entity = format!(r#""entityId":{{"entityType":"DEVICE","id":"{ID}"}}"#);
    let shown = format!(
        r#"{{{entity},"latest":{{"ENTITY_FIELD":{{"name":{{"ts":0,"value":"Dev A"}}}},"TIME_SERIES":{{"t":{{"ts":2,"value":"25"}},"u":{{"ts":3,"value":"x"}}}}}},"timeseries":{{}}}}"#
    );
    let end = format!(r#""allowedEntities":{DEVICES_MAX},"cmdUpdateType":"ENTITY_DATA"}}"#);
    assert_eq!(
        page_found(7, &[found], 3, &page).to_string(),
        format!(
            r#"{{"cmdId":7,"errorCode":0,"errorMsg":null,"data":{{"data":[{shown}],"totalPages":3,"totalElements":3,"hasNext":true}},"update":null,{end}"#
        )
    );
    let told = |scope, whole| news(7, &[changed(id(), scope, &series, whole)]).to_string();
    let expected = |latest: &str, series: &str| {
        format!(
            r#"{{"cmdId":7,"errorCode":0,"errorMsg":null,"data":null,"update":[{{{entity},"latest":{latest},"timeseries":{series}}}],{end}"#
        )
    };
    let t = r#"{"t":{"ts":2,"value":"25"}}"#;
    assert_eq!(told(None, false), expected(&format!(r#"{{"TIME_SERIES":{t}}}"#), "{}"));
    let attribute = expected(&format!(r#"{{"ATTRIBUTE":{t}}}"#), "{}");
    assert_eq!(told(Some(None), false), attribute);
    let samples = r#"{"t":[{"ts":2,"value":"25"},{"ts":1,"value":"24"}]}"#;
    assert_eq!(told(None, true), expected("{}", samples));
    assert_eq!(
        count(7, 5).to_string(),
        r#"{"cmdId":7,"errorCode":0,"errorMsg":null,"count":5,"cmdUpdateType":"COUNT_DATA"}"#
    );
    assert_eq!(
        not_found(7, SubscriptionError::BadRequest, "no", false).to_string(),
        r#"{"cmdId":7,"errorCode":2,"errorMsg":"no","cmdUpdateType":"ENTITY_DATA"}"#
    );
}
