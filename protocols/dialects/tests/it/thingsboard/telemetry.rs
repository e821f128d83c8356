//! Telemetry and attributes over the REST API: every route, and how values are shown.

use moorline_dialects::thingsboard::{
    attributes::Scope,
    query::{Query, WrongParameter},
    rest::{
        aggregation::{Aggregation, Range},
        telemetry::{
            Attribute, DeletedLatest, History, LIMIT_MAX, Route, attributes, route, timeseries,
        },
    },
    values::Value,
};

use super::support::{json, text};

const ID: &str = "784f394c-42b6-11ee-983c-b7beff2784f9";

/// What is behind `DEVICE/{id}/`, with its query.
fn read(method: &str, rest: &str) -> Result<Option<Route>, WrongParameter> {
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let query = Query::of(query).unwrap();
    let routed = route(method, &format!("DEVICE/{ID}/{path}"), &query)?;
    Ok(routed.map(|(device, route)| {
        assert_eq!(device.to_string(), ID);
        route
    }))
}

fn keys(keys: &[&str]) -> Vec<String> {
    keys.iter().map(|key| (*key).to_owned()).collect()
}

#[test]
fn every_route_is_read() {
    let history = History {
        keys: keys(&["t"]),
        range: Range { start_ms: 1, end_ms: 2, interval_ms: 0 },
        aggregation: Aggregation::None,
        limit: 100,
        descending: true,
        strict: false,
    };
    let full = History {
        keys: keys(&["t", "u"]),
        range: Range { start_ms: -1, end_ms: 2, interval_ms: 10 },
        aggregation: Aggregation::Avg,
        limit: LIMIT_MAX,
        descending: false,
        strict: true,
    };
    let latest = |names: &[&str], strict| Route::Latest { keys: keys(names), strict };
    let read_attributes = |scope, names: &[&str]| Route::Attributes { scope, keys: keys(names) };
    let delete =
        |range_ms, latest| Route::DeleteTimeseries { keys: keys(&["t"]), range_ms, latest };
    #[rustfmt::skip]
    let table = [
        ("GET",    "keys/timeseries",                                        Route::TimeseriesKeys),
        ("GET",    "values/timeseries",                                      latest(&[], false)),
        ("GET",    "values/timeseries?keys=t,u&useStrictDataTypes=true",     latest(&["t", "u"], true)),
        ("GET",    "values/timeseries?keys=t&startTs=1&endTs=2",             Route::History(history.clone())),
        ("GET",    "values/timeseries/history?keys=t&startTs=1&endTs=2&x=y", Route::History(history)),
        ("GET",    "values/timeseries?keys=t,u&startTs=-1&endTs=2&interval=10&limit=999999&agg=AVG&orderBy=ASC&useStrictDataTypes=true", Route::History(full)),
        ("GET",    "keys/attributes",                                        Route::AttributeKeys(None)),
        ("GET",    "keys/attributes/SERVER_SCOPE",                           Route::AttributeKeys(Some(Scope::Server))),
        ("GET",    "values/attributes",                                      read_attributes(None, &[])),
        ("GET",    "values/attributes/CLIENT_SCOPE?keys=a,b",                read_attributes(Some(Scope::Client), &["a", "b"])),
        ("POST",   "attributes/SHARED_SCOPE",                                Route::SaveAttributes(Scope::Shared)),
        ("POST",   "SERVER_SCOPE",                                           Route::SaveAttributes(Scope::Server)),
        ("POST",   "timeseries/ANY",                                         Route::SaveTimeseries { ttl_s: 0 }),
        ("POST",   "timeseries/ANY/3600",                                    Route::SaveTimeseries { ttl_s: 3600 }),
        ("DELETE", "SHARED_SCOPE?keys=a",                                    Route::DeleteAttributes { scope: Scope::Shared, keys: keys(&["a"]) }),
        ("DELETE", "timeseries/delete?keys=t&deleteAllDataForKeys=True",     delete(None, DeletedLatest::Go)),
        ("DELETE", "timeseries/delete?keys=t&startTs=1&endTs=2",             delete(Some((1, 2)), DeletedLatest::Go)),
        ("DELETE", "timeseries/delete?keys=t&startTs=1&endTs=2&deleteLatest=false&rewriteLatestIfDeleted=true", delete(Some((1, 2)), DeletedLatest::Stay)),
        ("DELETE", "timeseries/delete?keys=t&startTs=1&endTs=2&deleteLatest=true&rewriteLatestIfDeleted=true", delete(Some((1, 2)), DeletedLatest::Renew)),
    ];
    for (method, rest, expected) in table {
        assert_eq!(read(method, rest), Ok(Some(expected)), "{method} {rest}");
    }
    let short = route("POST", &format!("{ID}/SHARED_SCOPE"), &Query::of("").unwrap()).unwrap();
    assert_eq!(short.map(|(_, route)| route), Some(Route::SaveAttributes(Scope::Shared)));
}

#[test]
fn other_routes_and_parameters_are_refused() {
    #[rustfmt::skip]
    let table = [
        ("GET", ""), ("GET", "keys"), ("GET", "keys/x"), ("GET", "values/timeseries/x"), ("PUT", "keys/timeseries"),
        ("DELETE", "timeseries/x"), ("POST", "keys/attributes/SHARED_SCOPE/x"),
    ];
    for (method, rest) in table {
        assert_eq!(read(method, rest), Ok(None), "{method} {rest}");
    }
    let value = |name| Err(WrongParameter::Value(name));
    let missing = |name| Err(WrongParameter::Missing(name));
    #[rustfmt::skip]
    let table = [
        ("GET",    "values/timeseries?keys=t&startTs=1",             missing("endTs")),
        ("GET",    "values/timeseries?keys=t&endTs=1",               missing("startTs")),
        ("GET",    "values/timeseries?startTs=1&endTs=2",            missing("keys")),
        ("GET",    "values/timeseries/history?keys=t",               missing("startTs")),
        ("GET",    "values/timeseries?keys=t&startTs=2&endTs=1",     value("endTs")),
        ("GET",    "values/timeseries?keys=t&startTs=a&endTs=1",     value("startTs")),
        ("GET",    "values/timeseries?keys=t&startTs=1&endTs=2&agg=MEDIAN", value("agg")),
        ("GET",    "values/timeseries?keys=t&startTs=1&endTs=2&orderBy=x",  value("orderBy")),
        ("GET",    "values/timeseries?keys=t&startTs=1&endTs=2&interval=-1", value("interval")),
        ("GET",    "values/timeseries?useStrictDataTypes=2",         value("useStrictDataTypes")),
        ("GET",    "values/attributes/MY_SCOPE",                     value("the scope")),
        ("POST",   "attributes/CLIENT_SCOPE",                        value("the scope")),
        ("POST",   "timeseries",                                     value("the scope")),
        ("POST",   "timeseries/ANY/x",                               value("the TTL")),
        ("DELETE", "SHARED_SCOPE",                                   missing("keys")),
        ("DELETE", "timeseries/delete?startTs=1&endTs=2",            missing("keys")),
        ("DELETE", "timeseries/delete?keys=t",                       missing("startTs")),
        ("DELETE", "timeseries/delete?keys=t&startTs=1&endTs=2&deleteLatest=x", value("deleteLatest")),
    ];
    for (method, rest, expected) in table {
        assert_eq!(read(method, rest), expected, "{method} {rest}");
    }
    let query = Query::of("").unwrap();
    let no_id = route("GET", "DEVICE/1/keys/timeseries", &query);
    assert_eq!(no_id, Err(WrongParameter::Value("the device's id")));
    assert_eq!(route("GET", &format!("ASSET/{ID}/keys/timeseries"), &query), Ok(None));
    assert_eq!(route("GET", "", &query), Ok(None));
}

#[test]
fn values_are_texts_unless_types_are_asked_for() {
    let samples = vec![(2, Value::Long(25)), (1, Value::Double(24.0)), (0, text("x"))];
    let series = [("t".to_owned(), samples), ("j".to_owned(), vec![(1, Value::Json(json("[1]")))])];
    assert_eq!(
        timeseries(&series, false).to_string(),
        r#"{"t":[{"ts":2,"value":"25"},{"ts":1,"value":"24.0"},{"ts":0,"value":"x"}],"j":[{"ts":1,"value":"[1]"}]}"#
    );
    assert_eq!(
        timeseries(&series, true).to_string(),
        r#"{"t":[{"ts":2,"value":25},{"ts":1,"value":24.0},{"ts":0,"value":"x"}],"j":[{"ts":1,"value":[1]}]}"#
    );
    let attribute = Attribute { key: "k".to_owned(), value: Value::Long(1), updated_ms: 5 };
    let expected = r#"[{"lastUpdateTs":5,"key":"k","value":1}]"#;
    assert_eq!(attributes(&[attribute]).to_string(), expected);
    assert_eq!(attributes(&[]).to_string(), "[]");
}
