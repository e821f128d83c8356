//! Metrics: what a birth certificate says there is, and what a message says of it.
//!
//! # Invariants
//!
//! - **A name and an alias are one metric's**: a certificate that gives one twice is refused, so that there are as many of both as are
//!   counted. Checked by `tests/it/thingsboard/sparkplug/node.rs`.
//! - **Whether a metric is an attribute is settled by its certificate**: a profile that changes counts from the next one on. Checked by the
//!   same.
//! - **No node says what its devices are to load**: metrics that are named as attributes of packages are telemetry. Checked by the same.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use super::{
    datatypes::DataType,
    messages::{Metric, Payload},
    topics::Kind,
};
use crate::thingsboard::{
    invalid::Invalid,
    values::{self, Entries, Rules, Sample, Value},
};

/// The metric by which a death certificate and the birth certificate before it are told to belong together.
pub(super) const BD_SEQ: &str = "bdSeq";
/// Behind a name among a profile's attributes: all that begin so.
const ANYTHING: char = '*';

/// What names of shared attributes begin with that steer packages: a node is to have what it says shown, and not carried out.
const OF_PACKAGES: [&str; 2] = ["fw_", "sw_"];

/// What messages are read by.
#[derive(Debug, Clone, Copy)]
pub struct Reading<'a> {
    /// Names of metrics that are attributes; with `*` at its end, what a name begins with. None that begin with `fw_` or `sw_` are.
    pub attributes: &'a [String],
    /// The server's time, in milliseconds since the epoch.
    pub now_ms: i64,
    /// How values are kept.
    pub rules: &'a Rules,
}

impl Reading<'_> {
    fn is_attribute(&self, metric: &str) -> bool {
        let is = |name: &String| match name.strip_suffix(ANYTHING) {
            Some(beginning) => metric.starts_with(beginning),
            None => name == metric,
        };
        !OF_PACKAGES.iter().any(|of| metric.starts_with(of)) && self.attributes.iter().any(is)
    }
}

/// What a message says, by where it is kept.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Report {
    /// Metrics that are telemetry, by time.
    pub telemetry: Vec<Sample>,
    /// Metrics that are attributes.
    pub attributes: Entries,
}

/// What a birth certificate says there is.
#[derive(Debug, Default)]
pub(super) struct Certificate {
    by_name: BTreeMap<Arc<str>, Known>,
    by_alias: BTreeMap<u64, Arc<str>>,
}

/// A metric of a certificate.
#[derive(Debug)]
pub(super) struct Known {
    /// What its values are; unknown if it never had one.
    pub(super) datatype: Option<DataType>,
    /// What stands for its name.
    pub(super) alias: Option<u64>,
    is_attribute: bool,
    /// Of an attribute: a hash of the value that the device said last, if it was told none since. Not the value: it may be large.
    said: Option<u64>,
}

impl Certificate {
    pub(super) fn read(metrics: &[Metric], by: &Reading<'_>) -> Result<Self, Invalid> {
        let mut all = Self::default();
        for metric in metrics {
            let name = metric.name.as_deref();
            let name = name.ok_or(Invalid::Shape("a metric of a birth certificate has a name"))?;
            if !values::is_key(name) {
                return Err(Invalid::Key);
            }
            if all.by_name.contains_key(name) {
                return Err(Invalid::Shape("a name is one metric's"));
            }
            let name: Arc<str> = Arc::from(name);
            if let Some(alias) = metric.alias
                && all.by_alias.insert(alias, Arc::clone(&name)).is_some()
            {
                return Err(Invalid::Shape("an alias is one metric's"));
            }
            let datatype = metric.datatype.and_then(DataType::of);
            let is_attribute = by.is_attribute(&name);
            let known = Known { datatype, alias: metric.alias, is_attribute, said: None };
            all.by_name.insert(name, known);
        }
        Ok(all)
    }

    /// How many metrics there are.
    pub(super) fn len(&self) -> usize {
        self.by_name.len()
    }

    pub(super) fn get(&self, name: &str) -> Option<&Known> {
        self.by_name.get(name)
    }

    /// Whether a value is only what the device itself said last.
    pub(super) fn is_echo(&self, name: &str, value: &Value) -> bool {
        self.get(name).is_some_and(|known| known.said == Some(hash(value)))
    }

    /// The device is told another value: what it said counts no more.
    pub(super) fn is_told(&mut self, name: &str) {
        if let Some(known) = self.by_name.get_mut(name) {
            known.said = None;
        }
    }

    fn named<'a>(&'a self, metric: &'a Metric) -> Option<&'a str> {
        let by_alias = || Some(&**self.by_alias.get(&metric.alias?)?);
        metric.name.as_deref().filter(|name| !name.is_empty()).or_else(by_alias)
    }

    /// What a message says; and whether it says something of which this certificate does not.
    pub(super) fn report(
        &mut self,
        payload: &Payload,
        kind: &'static str,
        by: &Reading<'_>,
    ) -> Result<(Report, bool), Unnamed> {
        let (mut telemetry, mut attributes) = (BTreeMap::new(), BTreeMap::new());
        let mut surprises = false;
        for metric in &payload.metrics {
            let name = self.named(metric).ok_or(Unnamed::Alias)?.to_owned();
            if !values::is_key(&name) {
                return Err(Invalid::Key.into());
            }
            let known = self.get(&name);
            surprises |= known.is_none();
            let is_attribute =
                known.map_or_else(|| by.is_attribute(&name), |known| known.is_attribute);
            let Some(value) = value_of(metric, known, by.rules)? else { continue };
            if is_attribute {
                if let Some(known) = self.by_name.get_mut(name.as_str()) {
                    known.said = Some(hash(&value));
                }
                attributes.insert(name, value);
                continue;
            }
            let ts_ms = time(metric.timestamp.or(payload.timestamp), by.now_ms)?;
            let at: &mut BTreeMap<String, Value> = telemetry.entry(ts_ms).or_default();
            let key = if name == BD_SEQ { format!("{kind} {BD_SEQ}") } else { name };
            at.insert(key, value);
        }
        let sample = |(ts_ms, values): (i64, BTreeMap<String, Value>)| Sample {
            ts_ms,
            values: values.into_iter().collect(),
        };
        let telemetry = telemetry.into_iter().map(sample).collect();
        Ok((Report { telemetry, attributes: attributes.into_iter().collect() }, surprises))
    }
}

/// Why a message says nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unnamed {
    /// An alias that no certificate gave, or neither name nor alias.
    Alias,
    /// Something else.
    Invalid(Invalid),
}

impl From<Invalid> for Unnamed {
    fn from(why: Invalid) -> Self {
        Self::Invalid(why)
    }
}

fn value_of(
    metric: &Metric,
    known: Option<&Known>,
    rules: &Rules,
) -> Result<Option<Value>, Invalid> {
    let Some(value) = metric.value.as_ref().filter(|_| metric.is_null != Some(true)) else {
        return Ok(None);
    };
    let datatype = match metric.datatype {
        None | Some(0) => known.and_then(|known| known.datatype),
        Some(number) => DataType::of(number),
    };
    datatype.ok_or(Invalid::Shape("a metric has a datatype of 1 to 34"))?.read(value, rules)
}

/// A time as it was said; without one the server's.
pub(super) fn time(said: Option<u64>, now_ms: i64) -> Result<i64, Invalid> {
    let said = said.map(i64::try_from).transpose();
    Ok(said.map_err(|_| Invalid::Shape("a timestamp is in milliseconds"))?.unwrap_or(now_ms))
}

/// The `bdSeq` of a message, if it has one.
pub(super) fn bd_seq(payload: &Payload) -> Option<u64> {
    let metric = payload.metrics.iter().find(|metric| metric.name.as_deref() == Some(BD_SEQ))?;
    match DataType::Int64.read(metric.value.as_ref()?, &Rules::default()) {
        Ok(Some(Value::Long(number))) => Some(number.cast_unsigned()),
        Ok(_) | Err(_) => None,
    }
}

/// A connection state as telemetry.
pub(super) fn state(is_there: bool, now_ms: i64) -> Sample {
    let state = if is_there { ONLINE } else { OFFLINE };
    Sample { ts_ms: now_ms, values: vec![(STATE_KEY.to_owned(), Value::Text(state.to_owned()))] }
}

/// What telemetry says of a birth certificate beside its metrics.
pub(super) fn of_birth(payload: &Payload, of_device: bool, by: &Reading<'_>) -> Vec<Sample> {
    let mut said = vec![state(true, by.now_ms)];
    // The original says it of devices only.
    let seq = payload.seq.filter(|_| of_device).and_then(|seq| i64::try_from(seq).ok());
    if let Some(seq) = seq {
        let key = format!("{} seq", Kind::Birth.of_device());
        let ts_ms = time(payload.timestamp, by.now_ms).unwrap_or(by.now_ms);
        said.push(Sample { ts_ms, values: vec![(key, Value::Long(seq))] });
    }
    said
}

/// The telemetry that says whether a node or device is there.
pub const STATE_KEY: &str = "sparkplugConnectionState";
const ONLINE: &str = "ONLINE";
const OFFLINE: &str = "OFFLINE";

fn hash(value: &Value) -> u64 {
    // Its keys are constants: the same in every process.
    let mut hasher = DefaultHasher::new();
    std::mem::discriminant(value).hash(&mut hasher);
    value.to_text().hash(&mut hasher);
    hasher.finish()
}
