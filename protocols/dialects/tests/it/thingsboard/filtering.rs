//! `keyFilters`: each predicate with values that pass and others, what joins them, and what is refused.

use moorline_dialects::thingsboard::{
    attributes::Scope,
    json::Json,
    rest::{
        filtering::{DEPTH_MAX, FILTERS_MAX, KeyFilter, PREDICATES_MAX, filters},
        finding::Wanted,
    },
    values::Value,
};
use serde_json::json;

fn read(predicate: &str) -> Vec<KeyFilter> {
    try_read(predicate).unwrap_or_else(|why| panic!("{predicate}: {why}"))
}

fn try_read(predicate: &str) -> Result<Vec<KeyFilter>, String> {
    let predicate: serde_json::Value = serde_json::from_str(predicate).unwrap();
    let key = json!({ "type": "TIME_SERIES", "key": "t" });
    filters(Some(&json!([{ "key": key, "predicate": predicate }])))
}

fn simple(kind: &str, operation: &str, than: &str) -> String {
    format!(
        r#"{{"type":"{kind}","operation":"{operation}","value":{{"defaultValue":{than},"dynamicValue":null}}}}"#
    )
}

fn said(text: &str) -> Option<Value> {
    let json = Json::read(text.as_bytes()).unwrap();
    match json {
        Json::Null => None,
        Json::String(text) => Some(Value::Text(text)),
        other => Value::of(&other, &Default::default()).unwrap(),
    }
}

fn passes(predicate: &str, value: &str) -> bool {
    let (all, said) = (read(predicate), said(value));
    all.iter().all(|one| one.passes(said.as_ref()))
}

#[test]
fn numbers_are_compared_as_numbers() {
    #[rustfmt::skip]
    let table = [
        // operation         than     passes                  does not
        ("EQUAL",            "20",    vec!["20", "20.0"],     vec!["21", "\"20\"", "true", "null", "[20]"]),
        ("NOT_EQUAL",        "20",    vec!["21", "19.5"],     vec!["20", "20.0", "\"21\"", "null"]),
        ("GREATER",          "20",    vec!["21", "20.5"],     vec!["20", "19", "\"21\"", "null"]),
        ("LESS",             "20.5",  vec!["20", "-1.5"],     vec!["20.5", "21", "null"]),
        ("GREATER_OR_EQUAL", "20",    vec!["20", "20.0"],     vec!["19", "null"]),
        ("LESS_OR_EQUAL",    "20",    vec!["20", "19"],       vec!["21", "null"]),
        ("EQUAL",            "0",     vec!["0", "0.0", "-0.0"], vec!["1"]),
    ];
    for (operation, than, yes, no) in table {
        let predicate = simple("NUMERIC", operation, than);
        yes.iter().for_each(|value| assert!(passes(&predicate, value), "{predicate} {value}"));
        no.iter().for_each(|value| assert!(!passes(&predicate, value), "{predicate} {value}"));
    }
}

#[test]
fn texts_are_compared_as_texts() {
    #[rustfmt::skip]
    let table = [
        // operation       than            passes                          does not
        ("EQUAL",          "\"eco\"",      vec!["\"eco\""],                vec!["\"Eco\"", "\"e\"", "1", "null"]),
        ("NOT_EQUAL",      "\"eco\"",      vec!["\"fast\"", "1"],          vec!["\"eco\"", "null"]),
        ("STARTS_WITH",    "\"ec\"",       vec!["\"eco\""],                vec!["\"aec\"", "null"]),
        ("ENDS_WITH",      "\"co\"",       vec!["\"eco\""],                vec!["\"coe\"", "null"]),
        ("CONTAINS",       "\"c\"",        vec!["\"eco\""],                vec!["\"e\"", "null"]),
        ("NOT_CONTAINS",   "\"c\"",        vec!["\"e\"", "1"],             vec!["\"eco\"", "null"]),
        ("IN",             "\"a, eco\"",   vec!["\"eco\"", "\"a\""],       vec!["\"a, eco\"", "null"]),
        ("NOT_IN",         "\"a,eco\"",    vec!["\"b\"", "1"],             vec!["\"eco\"", "null"]),
        ("IN",             "\"'a', 'b c'\"", vec!["\"a\"", "\"b c\""],   vec!["\"'a'\"", "null"]),
        ("IN",             r#""\"a\",b'""#, vec!["\"a\"", "\"b'\""],     vec!["\"b\""]),
        ("NOT_IN",         "\"'a',' '\"",  vec!["\"'\"", "\"b\""],       vec!["\"a\"", "\" \""]),
        // Nothing was written yet.
        ("EQUAL",          "\"\"",         vec!["\"eco\"", "1", "null"],   vec![]),
        ("EQUAL",          "null",         vec!["\"eco\"", "null"],        vec![]),
        // What means something to SQL alone.
        ("CONTAINS",       "\"%\"",        vec!["\"5%\""],                 vec!["\"5\""]),
    ];
    for (operation, than, yes, no) in table {
        let predicate = simple("STRING", operation, than);
        yes.iter().for_each(|value| assert!(passes(&predicate, value), "{predicate} {value}"));
        no.iter().for_each(|value| assert!(!passes(&predicate, value), "{predicate} {value}"));
    }
    let any_case = r#"{"type":"STRING","operation":"CONTAINS","value":{"defaultValue":"É"},"ignoreCase":true}"#;
    assert!(passes(any_case, "\"Étage\"") && passes(any_case, "\"étage\""));
    assert!(!passes(any_case, "\"e\"") && !passes(any_case, "null"));
}

#[test]
fn a_field_may_be_empty() {
    let predicate = |operation: &str| -> serde_json::Value {
        serde_json::from_str(&simple("STRING", operation, "\"eco\"")).unwrap()
    };
    let passes = |kind: &str, operation: &str| {
        let key = json!({ "type": kind, "key": "label" });
        let all = filters(Some(&json!([{ "key": key, "predicate": predicate(operation) }])));
        all.unwrap()[0].passes(None)
    };
    for operation in ["NOT_EQUAL", "NOT_CONTAINS", "NOT_IN"] {
        assert!(passes("ENTITY_FIELD", operation), "{operation}");
        for kind in ["TIME_SERIES", "ATTRIBUTE", "SERVER_ATTRIBUTE"] {
            assert!(!passes(kind, operation), "{kind} {operation}");
        }
    }
    assert!(!passes("ENTITY_FIELD", "EQUAL"));
}

#[test]
fn truth_is_compared_as_truth() {
    for (operation, than, yes, no) in
        [("EQUAL", "true", "true", "false"), ("NOT_EQUAL", "true", "false", "true")]
    {
        let predicate = simple("BOOLEAN", operation, than);
        assert!(passes(&predicate, yes) && !passes(&predicate, no), "{predicate}");
        for other in ["null", "1", "\"true\""] {
            assert!(!passes(&predicate, other), "{predicate} {other}");
        }
    }
}

#[test]
fn predicates_are_joined() {
    let (above, below) = (simple("NUMERIC", "GREATER", "10"), simple("NUMERIC", "LESS", "20"));
    let joined = |operation: &str, parts: &[&str]| {
        let parts = parts.join(",");
        format!(r#"{{"type":"COMPLEX","operation":"{operation}","predicates":[{parts}]}}"#)
    };
    let between = joined("AND", &[&above, &below]);
    assert!(passes(&between, "15") && !passes(&between, "20") && !passes(&between, "10"));
    let outside =
        joined("OR", &[&simple("NUMERIC", "LESS", "10"), &simple("NUMERIC", "GREATER", "20")]);
    assert!(passes(&outside, "9") && passes(&outside, "21") && !passes(&outside, "15"));
    let both = joined("OR", &[&between, &simple("NUMERIC", "EQUAL", "40")]);
    assert!(passes(&both, "40") && passes(&both, "11") && !passes(&both, "30"));
    // What narrows nothing stands for nothing.
    for empty in [joined("OR", &[]), joined("OR", &[&simple("STRING", "EQUAL", "\"\"")])] {
        assert!(read(&empty).is_empty() && passes(&empty, "null"), "{empty}");
    }
}

#[test]
fn what_a_user_said_comes_before_what_is_usual() {
    let than = |value: &str| {
        passes(&format!(r#"{{"type":"NUMERIC","operation":"EQUAL","value":{value}}}"#), "5")
    };
    assert!(than(r#"{"defaultValue":4,"userValue":5}"#));
    assert!(than(r#"{"defaultValue":5,"userValue":null,"dynamicValue":{"sourceType":null}}"#));
    assert!(than(r#"{"userValue":5,"dynamicValue":{"sourceType":"CURRENT_TENANT"}}"#));
    assert!(!than(r#"{"defaultValue":4}"#));
}

#[test]
fn keys_are_read_as_of_what_is_shown() {
    let predicate =
        json!({ "type": "BOOLEAN", "operation": "EQUAL", "value": { "defaultValue": true } });
    let of = |kind: &str| {
        let key =
            json!({ "type": kind, "key": if kind == "ENTITY_FIELD" { "label" } else { "k" } });
        filters(Some(&json!([{ "key": key, "valueType": "BOOLEAN", "predicate": predicate }])))
    };
    let key = || "k".to_owned();
    #[rustfmt::skip]
    let table = [
        ("ENTITY_FIELD",     Wanted::Field("label".to_owned())),
        ("TIME_SERIES",      Wanted::Series(key())),
        ("ATTRIBUTE",        Wanted::Attribute(None, key())),
        ("CLIENT_ATTRIBUTE", Wanted::Attribute(Some(Scope::Client), key())),
        ("SHARED_ATTRIBUTE", Wanted::Attribute(Some(Scope::Shared), key())),
        ("SERVER_ATTRIBUTE", Wanted::Attribute(Some(Scope::Server), key())),
    ];
    for (kind, wanted) in table {
        assert_eq!(of(kind).unwrap()[0].key, wanted);
    }
    assert_eq!(
        of("CONSTANT").unwrap_err(),
        "keyFilters: keys of the type \"CONSTANT\" are not served"
    );
    assert_eq!(filters(None), Ok(vec![]));
    assert_eq!(filters(Some(&json!(null))), Ok(vec![]));
}

#[test]
fn what_is_not_understood_is_refused() {
    #[rustfmt::skip]
    let table = [
        (r#"{}"#.to_owned(),                                           "predicates of the type \"\" are not served"),
        (r#"{"type":"DATE"}"#.to_owned(),                              "predicates of the type \"DATE\" are not served"),
        (r#"{"type":"NUMERIC","operation":"GREATER"}"#.to_owned(),     "value is needed"),
        (simple("NUMERIC", "GREATER", "null"),                         "a number is needed"),
        (simple("NUMERIC", "GREATER", "\"7\""),                        "a number is needed"),
        (simple("NUMERIC", "IN", "7"),                                 "the operation \"IN\" is not served"),
        (simple("STRING", "GREATER", "\"a\""),                         "the operation \"GREATER\" is not served"),
        (simple("STRING", "LIKE", "\"\""),                             "the operation \"LIKE\" is not served"),
        (simple("BOOLEAN", "GREATER", "true"),                         "the operation \"GREATER\" is not served"),
        (simple("BOOLEAN", "EQUAL", "1"),                              "true or false"),
        (r#"{"type":"COMPLEX","operation":"AND"}"#.to_owned(),         "predicates are needed"),
        (r#"{"type":"COMPLEX","operation":"XOR","predicates":[]}"#.to_owned(), "the operation \"XOR\" is not served"),
        (r#"{"type":"STRING","operation":"EQUAL","value":{"defaultValue":"a","dynamicValue":{"sourceType":"CURRENT_USER","sourceAttribute":"x"}}}"#.to_owned(),
            "dynamicValue is not served"),
    ];
    for (predicate, why) in table {
        assert_eq!(try_read(&predicate).unwrap_err(), format!("keyFilters: {why}"), "{predicate}");
    }
    let why = |list| filters(Some(&list)).unwrap_err();
    assert_eq!(why(json!({})), "keyFilters: a list is needed");
    let key = json!({ "type": "TIME_SERIES", "key": "t" });
    assert_eq!(why(json!([{ "key": key }])), "keyFilters: predicate is needed");
    let field = json!({ "type": "ENTITY_FIELD", "key": "assignedCustomer" });
    let one: serde_json::Value = serde_json::from_str(&simple("STRING", "EQUAL", "\"a\"")).unwrap();
    assert_eq!(
        why(json!([{ "key": field, "predicate": one }])),
        "keyFilters: devices have no field \"assignedCustomer\""
    );
    assert_eq!(
        why(json!([{ "key": { "type": "TIME_SERIES" } }])),
        "keyFilters: keys: key is needed"
    );
}

#[test]
fn there_are_limits() {
    let one: serde_json::Value = serde_json::from_str(&simple("NUMERIC", "EQUAL", "1")).unwrap();
    let filter = |predicate: &serde_json::Value| json!({ "key": { "type": "TIME_SERIES", "key": "t" }, "predicate": predicate });
    let many = |count| filters(Some(&json!(vec![filter(&one); count]))).map(|all| all.len());
    assert_eq!(many(FILTERS_MAX), Ok(FILTERS_MAX));
    assert_eq!(many(FILTERS_MAX + 1), Err(format!("keyFilters: at most {FILTERS_MAX}")));
    let joined = |parts: Vec<serde_json::Value>| json!({ "type": "COMPLEX", "operation": "AND", "predicates": parts });
    let wide = |count| filters(Some(&json!([filter(&joined(vec![one.clone(); count]))]))).map(drop);
    assert_eq!(wide(PREDICATES_MAX - 1), Ok(()));
    let too_many = format!("keyFilters: at most {PREDICATES_MAX} predicates");
    assert_eq!(wide(PREDICATES_MAX), Err(too_many));
    let deep = |depth| {
        let nested = (1..depth).fold(one.clone(), |inner, _| joined(vec![inner]));
        filters(Some(&json!([filter(&nested)]))).map(drop)
    };
    assert_eq!(deep(DEPTH_MAX), Ok(()));
    let too_deep = format!("keyFilters: at most {DEPTH_MAX} predicates in each other");
    assert_eq!(deep(DEPTH_MAX + 1), Err(too_deep));
}
