//! Packet schemas: every type at its bounds, and the difference between unknown and mismatched.

use bytes::Bytes;
use moorline_core::{
    Text,
    op::{Declined, Event, EventKind, Format},
};
use moorline_dialects::fostrom::schema::{
    FIELDS_MAX, FieldType, Mismatch, SCHEMAS_MAX, SchemaError, Schemas,
};
use serde_json::json;

fn schemas() -> Schemas {
    serde_json::from_value(json!({
        "env": { "kind": "datapoint", "direction": "inbound", "fields": {
            "t": { "type": "decimal" }, "n": { "type": "uint8", "optional": true } } },
        "ring": { "kind": "msg", "direction": "both" },
        "open": { "kind": "msg", "direction": "outbound" },
    }))
    .unwrap()
}

#[test]
fn types_hold_what_fits() {
    #[rustfmt::skip]
    let table = [
        ("decimal", json!(21.5), true),   ("decimal", json!(-3), true),     ("decimal", json!("1"), false),
        ("int8", json!(-128), true),      ("int8", json!(-129), false),     ("int8", json!(128), false),
        ("int16", json!(32_767), true),   ("int16", json!(32_768), false),
        ("int32", json!(-2_147_483_648_i64), true), ("int32", json!(2_147_483_648_i64), false),
        ("int64", json!(i64::MIN), true), ("int64", json!(u64::MAX), false),
        ("uint8", json!(255), true),      ("uint8", json!(256), false),     ("uint8", json!(-1), false),
        ("uint16", json!(65_535), true),  ("uint16", json!(65_536), false),
        ("uint32", json!(u32::MAX), true), ("uint32", json!(1_u64 << 32), false),
        ("uint64", json!(u64::MAX), true), ("uint64", json!(1.0), false),
        ("boolean", json!(true), true),   ("boolean", json!(1), false),
        ("string", json!(""), true),      ("string", json!(null), false),   ("string", json!([]), false),
    ];
    for (name, value, expected) in table {
        let field_type: FieldType = serde_json::from_value(json!(name)).unwrap();
        assert_eq!(field_type.holds(&value), expected, "{name} {value}");
        assert_eq!(field_type.to_string(), name);
    }
}

#[test]
fn unknown_is_refused_and_mismatched_is_told_apart() {
    use EventKind::{Datapoint, Message, System};
    let missing = Mismatch::Missing("t".to_owned());
    let wrong = |name: &str, expected| Mismatch::Type { name: name.to_owned(), expected };
    #[rustfmt::skip]
    let table = [
        (Datapoint, "env",  "{\"t\":21.5}",            Ok(Ok(()))),
        (Datapoint, "env",  "{\"t\":21.5,\"n\":7}",    Ok(Ok(()))),
        (Datapoint, "env",  "{\"t\":21.5,\"n\":null}", Ok(Ok(()))),
        (Datapoint, "env",  "{\"n\":7}",               Ok(Err(missing.clone()))),
        (Datapoint, "env",  "{\"t\":null}",            Ok(Err(wrong("t", FieldType::Decimal)))),
        (Datapoint, "env",  "{\"t\":1,\"n\":256}",     Ok(Err(wrong("n", FieldType::Uint8)))),
        (Datapoint, "env",  "{\"t\":1,\"x\":1}",       Ok(Err(Mismatch::Unexpected("x".to_owned())))),
        (Datapoint, "env",  "",                        Ok(Err(missing))),
        (Message,   "ring", "",                        Ok(Ok(()))),
        (Message,   "ring", "{}",                      Ok(Ok(()))),
        (Message,   "ring", "[]",                      Ok(Err(Mismatch::NoObject))),
        (System,    "manifest_v0", "{\"a\":1}",        Ok(Ok(()))),
        (Datapoint, "nope", "{\"t\":1}",               Err(Declined::UnknownSchema)),
        (Datapoint, "Env",  "{\"t\":1}",               Err(Declined::UnknownSchema)),
        (Message,   "env",  "{\"t\":1}",               Err(Declined::UnknownSchema)),
        (Message,   "open", "",                        Err(Declined::UnknownSchema)),
    ];
    for (kind, name, body, expected) in table {
        let body = Bytes::from(body.to_owned());
        let event = Event { kind, channel: Text::from(name), format: Format::Json, body };
        assert_eq!(schemas().check(&event), expected, "{event:?}");
    }
}

#[test]
fn a_fleet_has_a_limited_number_of_well_named_schemas() {
    assert_eq!(schemas().validate(), Ok(()));
    let ring = schemas().0["ring"].clone();
    let many = Schemas((0..=SCHEMAS_MAX).map(|n| (n.to_string(), ring.clone())).collect());
    assert_eq!(many.validate(), Err(SchemaError::TooMany));
    let named = Schemas([("a b".to_owned(), ring)].into());
    assert_eq!(named.validate(), Err(SchemaError::Name("a b".to_owned())));
    let mut wide = schemas();
    let env = wide.0.get_mut("env").unwrap();
    let field = env.fields["t"];
    env.fields = (0..=FIELDS_MAX).map(|n| (n.to_string(), field)).collect();
    assert_eq!(wide.validate(), Err(SchemaError::TooManyFields("env".to_owned())));
    let typo = json!({ "env": { "kind": "datapoint", "direction": "inbound", "field": {} } });
    assert!(serde_json::from_value::<Schemas>(typo).is_err(), "unknown keys are refused");
}
