//! JSON merge patches (RFC 7396): what is said is changed, `null` takes it away, what is not said stays.

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::Problem;

/// Something with a patch in it.
pub(crate) fn patched<T: DeserializeOwned>(
    of: &impl Serialize,
    patch: &Value,
) -> Result<T, Problem> {
    let mut value = serde_json::to_value(of).expect("a map with string keys");
    merge(&mut value, patch);
    serde_json::from_value(value).map_err(|error| Problem::malformed(error.to_string()))
}

/// As deep as the parser let it be.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else { return target.clone_from(patch) };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    let Value::Object(target) = target else { return };
    for (name, value) in patch {
        if value.is_null() {
            target.remove(name);
        } else {
            merge(target.entry(name.clone()).or_insert(Value::Null), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_examples_of_the_standard_hold() {
        #[rustfmt::skip]
        let table = [
            (json!({"a":"b"}),       json!({"a":"c"}),           json!({"a":"c"})),
            (json!({"a":"b"}),       json!({"b":"c"}),           json!({"a":"b","b":"c"})),
            (json!({"a":"b"}),       json!({"a":null}),          json!({})),
            (json!({"a":["b"]}),     json!({"a":"c"}),           json!({"a":"c"})),
            (json!({"a":{"b":"c"}}), json!({"a":{"b":"d","c":null}}), json!({"a":{"b":"d"}})),
            (json!(["a","b"]),       json!(["c"]),               json!(["c"])),
            (json!({"e":null}),      json!({"a":1}),             json!({"e":null,"a":1})),
            (json!([1,2]),           json!({"a":"b","c":null}),  json!({"a":"b"})),
            (json!({}),              json!({"a":{"bb":{"ccc":null}}}), json!({"a":{"bb":{}}})),
        ];
        for (target, patch, expected) in table {
            let mut merged = target.clone();
            merge(&mut merged, &patch);
            assert_eq!(merged, expected, "{target} {patch}");
        }
        assert!(patched::<bool>(&true, &json!({"a": 1})).is_err());
    }
}
