//! Drogue Cloud by tables: every row of the platform's topics, URLs and credentials, and what is refused.

mod application;
mod binding;
mod command;
mod event;
mod http;
mod identity;
mod inbox;
mod mail;
mod outcome;
mod registry;
mod rules;
mod socket;
mod tokens;
mod topics;
mod ttn;

use serde_json::{Map, Value};

/// The fields of an object.
pub(crate) fn fields(value: Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap()
}
