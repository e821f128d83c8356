//! Sparkplug B's payload, by the field numbers of its public schema. Fields that nobody here reads or writes are left out.
//!
//! Invariant: nothing is nested deeper than a metric. A data set and a template, which nest, are bytes here: on the wire both are the same.
//! Checked by `tests/it/thingsboard/sparkplug/values.rs`.

use prost::{Message, Oneof};

/// What is in a message of any kind.
#[derive(Clone, PartialEq, Message)]
pub struct Payload {
    /// When it was sent, in milliseconds since the epoch.
    #[prost(uint64, optional, tag = "1")]
    pub timestamp: Option<u64>,
    /// What is said.
    #[prost(message, repeated, tag = "2")]
    pub metrics: Vec<Metric>,
    /// Its number among the messages of the node: 0 to 255, and 0 again.
    #[prost(uint64, optional, tag = "3")]
    pub seq: Option<u64>,
}

/// A named value.
#[derive(Clone, PartialEq, Message)]
pub struct Metric {
    /// Its name. In data, its alias may stand for it.
    #[prost(string, optional, tag = "1")]
    pub name: Option<String>,
    /// A number that stands for the name from a birth certificate on.
    #[prost(uint64, optional, tag = "2")]
    pub alias: Option<u64>,
    /// When it was measured, in milliseconds since the epoch.
    #[prost(uint64, optional, tag = "3")]
    pub timestamp: Option<u64>,
    /// Its type: [`super::datatypes::DataType`]. In data, that of the birth certificate is meant if it is left out.
    #[prost(uint32, optional, tag = "4")]
    pub datatype: Option<u32>,
    /// Whether it has no value.
    #[prost(bool, optional, tag = "7")]
    pub is_null: Option<bool>,
    /// Its value.
    #[prost(oneof = "MetricValue", tags = "10, 11, 12, 13, 14, 15, 16, 17, 18")]
    pub value: Option<MetricValue>,
}

/// A value as it is on the wire: several types share one form.
#[derive(Clone, PartialEq, Oneof)]
pub enum MetricValue {
    /// Integers of up to 32 bits. Negative ones are two's complement.
    #[prost(uint32, tag = "10")]
    Int(u32),
    /// Integers of up to 64 bits, and times.
    #[prost(uint64, tag = "11")]
    Long(u64),
    /// A single float.
    #[prost(float, tag = "12")]
    Float(f32),
    /// A double.
    #[prost(double, tag = "13")]
    Double(f64),
    /// A truth value.
    #[prost(bool, tag = "14")]
    Boolean(bool),
    /// A text.
    #[prost(string, tag = "15")]
    Text(String),
    /// Bytes, files, and arrays.
    #[prost(bytes = "vec", tag = "16")]
    Bytes(Vec<u8>),
    /// A data set. Not read.
    #[prost(bytes = "vec", tag = "17")]
    DataSet(Vec<u8>),
    /// A template. Not read.
    #[prost(bytes = "vec", tag = "18")]
    Template(Vec<u8>),
}
