//! Commands: what a node is told of shared attributes that change, and of calls.
//!
//! A call's method is the kind of command, `NCMD` to a node and `DCMD` to a device; its parameters are `{"metricName","value"}`. A node
//! answers no commands: that it has one is all there is to know, and [`done`] says so to who waits.
//!
//! Invariant: nothing is told of a metric that no certificate has, nor what its type can't hold. Checked by
//! `tests/it/thingsboard/sparkplug/commands.rs`.

use bytes::Bytes;
use thiserror::Error;

use super::{
    datatypes::DataType,
    messages::{Metric, MetricValue, Payload},
    metrics::Certificate,
    topics::command_kind,
};
use crate::thingsboard::{
    calls::ServerCall,
    json::Json,
    values::{Entries, Rules, Value},
};

/// The metric of a node that has it send its birth certificates. It is always named in full.
const REBIRTH: &str = "Node Control/Rebirth";

/// Something that is published to the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// Where.
    pub topic: String,
    /// What.
    pub payload: Bytes,
}

/// Why a call can't be a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Uncallable {
    /// Its method is another.
    #[error("the method is {0}")]
    Method(&'static str),
    /// Its parameters are others.
    #[error("the parameters are metricName, a text, and value")]
    Params,
    /// There is no such metric.
    #[error("the birth certificate has no such metric")]
    NoSuchMetric,
    /// The value does not fit the metric's type.
    #[error("the value does not fit the metric's datatype")]
    Value,
}

impl Uncallable {
    /// As who called is answered.
    #[must_use]
    pub fn answer(&self) -> String {
        let result = match self {
            Self::Method(_) | Self::Params => "INVALID_ARGUMENTS",
            Self::NoSuchMetric | Self::Value => "BAD_REQUEST_PARAMS",
        };
        let error = self.to_string();
        Json::object([("result", Json::from(result)), ("error", Json::from(&*error))]).to_string()
    }
}

/// What who called is answered when the node has the command.
#[must_use]
pub fn done(method: &str) -> String {
    Json::object([("result", Json::from(&*format!("Success: {method}")))]).to_string()
}

pub(super) fn rebirth(now_ms: i64) -> Payload {
    let timestamp = u64::try_from(now_ms).ok();
    let metric = Metric {
        name: Some(REBIRTH.to_owned()),
        timestamp,
        datatype: Some(DataType::Boolean as u32),
        value: Some(MetricValue::Boolean(true)),
        ..Metric::default()
    };
    Payload { timestamp, metrics: vec![metric], seq: None }
}

/// One payload for each value that is told; what it said itself is not. `{"NCMD":{"name":value}}` is taken as the original does: as the values in it.
pub(super) fn changed(
    certificate: &mut Certificate,
    updated: &Entries,
    to_device: bool,
    now_ms: i64,
) -> Vec<Payload> {
    let mut told = Vec::new();
    for (key, value) in updated {
        if let Value::Json(Json::Object(inner)) = value
            && key == command_kind(to_device)
        {
            for (name, json) in inner {
                let value = of(json);
                told.extend(
                    value.and_then(|value| command(certificate, name, &value, now_ms).ok()),
                );
            }
        } else if !certificate.is_echo(key, value) {
            told.extend(command(certificate, key, value, now_ms).ok());
        }
    }
    told
}

pub(super) fn call(
    certificate: &mut Certificate,
    call: &ServerCall,
    to_device: bool,
    now_ms: i64,
) -> Result<Payload, Uncallable> {
    let method = command_kind(to_device);
    if call.method != method {
        return Err(Uncallable::Method(method));
    }
    let name = call.params.get("metricName").and_then(Json::as_str).ok_or(Uncallable::Params)?;
    let value = call.params.get("value").and_then(of).ok_or(Uncallable::Params)?;
    command(certificate, name, &value, now_ms)
}

/// A value as it was written: a text is no number.
fn of(json: &Json) -> Option<Value> {
    let rules = Rules { cast_texts: false, text_bytes_max: None };
    Value::of(json, &rules).ok().flatten()
}

fn command(
    certificate: &mut Certificate,
    name: &str,
    value: &Value,
    now_ms: i64,
) -> Result<Payload, Uncallable> {
    let known = certificate.get(name).ok_or(Uncallable::NoSuchMetric)?;
    let datatype = known.datatype.ok_or(Uncallable::Value)?;
    let (alias, timestamp) = (known.alias, u64::try_from(now_ms).ok());
    let metric = Metric {
        // Either or: a node that gave aliases knows them.
        name: alias.is_none().then(|| name.to_owned()),
        alias,
        timestamp,
        datatype: Some(datatype as u32),
        value: Some(datatype.write(value).ok_or(Uncallable::Value)?),
        is_null: None,
    };
    certificate.is_told(name);
    Ok(Payload { timestamp, metrics: vec![metric], seq: None })
}
