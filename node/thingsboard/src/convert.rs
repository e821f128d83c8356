//! Values of ThingsBoard and of the core, into each other.
//!
//! Invariant: a value that goes to the core and comes back is the same. Checked by `a_value_comes_back_as_it_went`.

use moorline_core::{Double, Text, Value};
use moorline_dialects::thingsboard::{
    json::Json,
    values::{self, Entries},
};

/// As the core keeps it.
pub(crate) fn to_core(value: values::Value) -> Value {
    match value {
        values::Value::Bool(value) => Value::Bool(value),
        values::Value::Long(value) => Value::Long(value),
        values::Value::Double(value) => Value::Double(Double::nearest(value)),
        values::Value::Text(text) => Value::Text(Text::from(text)),
        values::Value::Json(json) => Value::Json(Text::from(json.to_string())),
    }
}

/// As a device is told it.
pub(crate) fn from_core(value: &Value) -> values::Value {
    match value {
        Value::Bool(value) => values::Value::Bool(*value),
        Value::Long(value) => values::Value::Long(*value),
        Value::Double(value) => values::Value::Double(value.get()),
        Value::Text(text) => values::Value::Text(text.to_string()),
        // Whoever wrote it otherwise than as JSON gets it as the text it is.
        Value::Json(text) => match Json::read(text.as_bytes()) {
            Ok(json) => values::Value::Json(json),
            Err(_) => values::Value::Text(text.to_string()),
        },
    }
}

/// Keys with values, as the core takes them.
pub(crate) fn entries(entries: Entries) -> Vec<(Text, Value)> {
    entries.into_iter().map(|(key, value)| (Text::from(key), to_core(value))).collect()
}

/// Keys, as the core takes them.
pub(crate) fn keys(keys: &[String]) -> Vec<Text> {
    keys.iter().map(|key| Text::from(key.as_str())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_comes_back_as_it_went() {
        let json = Json::read(br#"{"a":[1,2.50,"x",null]}"#).unwrap();
        let all = [
            values::Value::Bool(true),
            values::Value::Long(i64::MIN),
            values::Value::Double(-0.1),
            values::Value::Text("7".into()),
            values::Value::Json(json),
        ];
        for value in all {
            assert_eq!(from_core(&to_core(value.clone())), value);
        }
    }
}
