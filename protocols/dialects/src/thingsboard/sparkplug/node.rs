//! A node on its connection: what its messages mean, in the order of its life.
//!
//! ```text
//!   will: NDEATH ─► NBIRTH ─► NDATA, DBIRTH, DDATA, DDEATH … ─► NDEATH, or the end of the connection
//!                      ▲                     │ unknown, or a number was left out
//!                      └── Node Control/Rebirth ◄┘
//! ```
//!
//! # Invariants
//!
//! - **Nothing is taken of who has no birth certificate**, node or device: it is refused, and the node asked for all its certificates. So
//!   it is for an alias that no certificate gave.
//! - **What is left out loses nothing**: a gap in a node's numbers has it asked for its certificates, and the message is taken.
//! - **A node is asked once for each birth certificate** that it sends, however much is wrong.
//! - **Bounded**: [`METRICS_MAX`] and [`DEVICES_MAX`] of one node.
//!
//! Checked by `tests/it/thingsboard/sparkplug/node.rs`.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message;
use thiserror::Error;

use super::{
    commands::{self, Command, Uncallable},
    messages::Payload,
    metrics::{self, Certificate, Reading, Report, Unnamed},
    topics::{Kind, Place},
};
use crate::thingsboard::{
    calls::ServerCall,
    invalid::Invalid,
    values::{Entries, Sample},
};

/// Metrics of one node and all its devices: about two hundred bytes each, and its name, which has 1,020 at most. So 40 MB are the most.
pub const METRICS_MAX: usize = 32_768;
/// Devices of one node that have a birth certificate.
pub const DEVICES_MAX: usize = 10_000;
/// A message's number is one of so many; then they begin again.
const SEQ_COUNT: u64 = 256;

/// Why a connection is no node's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum NotANode {
    /// Its will is not a node's death certificate.
    #[error("the will has to be NDEATH, with QoS 1, not retained")]
    Will,
    /// It wants an earlier session to go on.
    #[error("a node begins with a clean session")]
    NotClean,
}

/// What a CONNECT says of itself and of what is to be said of its end.
#[derive(Debug, Clone, Copy)]
pub struct Left<'a> {
    /// Whether it wants no earlier session.
    pub clean: bool,
    /// Its will's topic.
    pub topic: &'a str,
    /// Its will's payload.
    pub payload: &'a [u8],
    /// Whether its will has QoS 1, and is not to be retained.
    pub plain: bool,
}

/// What a message means.
#[derive(Debug, Clone, PartialEq)]
pub enum Said {
    /// The node is there.
    Born(Report),
    /// Values of the node.
    Data(Report),
    /// The node goes, and all its devices.
    Died,
    /// A device is there.
    DeviceBorn(String, Report),
    /// Values of a device.
    DeviceData(String, Report),
    /// A device is gone.
    DeviceDied(String),
}

/// Why a message is not taken.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Unsaid {
    /// Its topic means nothing on this connection.
    #[error("no topic of this node's")]
    Topic,
    /// There is no birth certificate of whom it is about, or none with this alias.
    #[error("a birth certificate has to come before")]
    Unborn,
    /// It can't be read.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// There are too many metrics or devices.
    #[error("a node has at most {METRICS_MAX} metrics and {DEVICES_MAX} devices")]
    TooMuch,
}

/// Whether a node is asked for its certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rebirth {
    /// Nothing is wrong.
    Unneeded,
    /// It is to be asked.
    Wanted,
    /// It was asked, and has not answered.
    Asked,
}

/// See the module.
#[derive(Debug)]
pub struct Node {
    place: Place,
    own: Option<Certificate>,
    /// Of its birth certificate.
    bd_seq: Option<u64>,
    devices: BTreeMap<String, Certificate>,
    /// Of all certificates.
    metrics: usize,
    /// The number of its next message; unknown until it says one.
    next_seq: Option<u64>,
    rebirth: Rebirth,
}

impl Node {
    /// A node that connects; and what its will says already.
    ///
    /// # Errors
    ///
    /// [`NotANode`].
    pub fn connect(left: Left<'_>, by: &Reading<'_>) -> Result<(Self, Vec<Sample>), NotANode> {
        if !left.clean {
            return Err(NotANode::NotClean);
        }
        let place = Place::of_will(left.topic).filter(|_| left.plain).ok_or(NotANode::Will)?;
        let payload = Payload::decode(left.payload).map_err(|_| NotANode::Will)?;
        let kind = Kind::Death.of_node();
        let said = Certificate::default().report(&payload, kind, by);
        let (report, _) = said.map_err(|_| NotANode::Will)?;
        let node = Self {
            place,
            own: None,
            bd_seq: None,
            devices: BTreeMap::new(),
            metrics: 0,
            next_seq: None,
            rebirth: Rebirth::Unneeded,
        };
        Ok((node, report.telemetry))
    }

    /// Whether there is a birth certificate of the node, or of a device.
    #[must_use]
    pub fn is_born(&self, device: Option<&str>) -> bool {
        match device {
            None => self.own.is_some(),
            Some(device) => self.devices.contains_key(device),
        }
    }

    /// The devices that have a birth certificate.
    pub fn devices(&self) -> impl Iterator<Item = &str> {
        self.devices.keys().map(String::as_str)
    }

    /// Whether it may subscribe to a filter.
    #[must_use]
    pub fn grants(&self, filter: &[u8]) -> bool {
        self.place.grants(filter)
    }

    /// What a publish means.
    ///
    /// # Errors
    ///
    /// [`Unsaid`]: ask [`Node::rebirth`] then, too.
    pub fn read(&mut self, topic: &[u8], payload: &[u8], by: &Reading<'_>) -> Result<Said, Unsaid> {
        let (kind, device) = self.place.read(topic).ok_or(Unsaid::Topic)?;
        let read = Payload::decode(payload);
        let payload = read.map_err(|_| Invalid::Protobuf("payload of Sparkplug"))?;
        match (kind, device) {
            (Kind::Birth, None) => self.born(&payload, by),
            (Kind::Death, None) => self.died(&payload),
            (_, None) | (Kind::Data, Some(_)) if !self.is_born(device) => self.unborn(),
            (_, Some(_)) if !self.is_born(None) => self.unborn(),
            (Kind::Data, None) => {
                self.count(payload.seq)?;
                Ok(Said::Data(self.report(None, &payload, by)?))
            }
            (Kind::Data, Some(device)) => {
                self.count(payload.seq)?;
                let report = self.report(Some(device), &payload, by)?;
                Ok(Said::DeviceData(device.to_owned(), report))
            }
            (Kind::Birth, Some(device)) => {
                self.count(payload.seq)?;
                let report = self.device_born(device, &payload, by)?;
                Ok(Said::DeviceBorn(device.to_owned(), report))
            }
            (Kind::Death, Some(device)) => {
                self.count(payload.seq)?;
                self.forget(device);
                Ok(Said::DeviceDied(device.to_owned()))
            }
        }
    }

    /// A device is no more: what it says is not taken before its next birth certificate.
    pub fn forget(&mut self, device: &str) {
        if let Some(gone) = self.devices.remove(device) {
            self.metrics -= gone.len();
        }
    }

    fn unborn(&mut self) -> Result<Said, Unsaid> {
        self.want_rebirth();
        Err(Unsaid::Unborn)
    }

    fn want_rebirth(&mut self) {
        if self.rebirth == Rebirth::Unneeded {
            self.rebirth = Rebirth::Wanted;
        }
    }

    /// Takes note of a message's number.
    fn count(&mut self, seq: Option<u64>) -> Result<(), Invalid> {
        let Some(seq) = seq else { return Ok(()) };
        let seq = numbered(seq)?;
        if self.next_seq.is_some_and(|next| next != seq) {
            self.want_rebirth();
        }
        self.next_seq = Some((seq + 1) % SEQ_COUNT);
        Ok(())
    }

    /// Whether there is room for a certificate in the place of an earlier one.
    fn has_room(&self, earlier: usize, new: usize) -> bool {
        self.metrics - earlier + new <= METRICS_MAX
    }

    fn born(&mut self, payload: &Payload, by: &Reading<'_>) -> Result<Said, Unsaid> {
        let earlier = self.own.as_ref().map_or(0, Certificate::len);
        if !self.has_room(earlier, payload.metrics.len()) {
            return Err(Unsaid::TooMuch);
        }
        let mut own = Certificate::read(&payload.metrics, by)?;
        let seq = payload.seq.map(numbered).transpose()?;
        let (mut report, _) = own.report(payload, Kind::Birth.of_node(), by).map_err(said)?;
        report.telemetry.extend(metrics::of_birth(payload, false, by));
        self.metrics = self.metrics - earlier + own.len();
        self.own = Some(own);
        self.bd_seq = metrics::bd_seq(payload);
        self.next_seq = seq.map(|seq| (seq + 1) % SEQ_COUNT);
        self.rebirth = Rebirth::Unneeded;
        Ok(Said::Born(report))
    }

    fn died(&mut self, payload: &Payload) -> Result<Said, Unsaid> {
        if self.own.is_none() {
            return Err(Unsaid::Unborn);
        }
        let bd_seq = metrics::bd_seq(payload);
        if bd_seq.is_none() || bd_seq != self.bd_seq {
            return Err(Invalid::Shape("a death certificate has the bdSeq of the birth").into());
        }
        self.own = None;
        self.devices.clear();
        self.metrics = 0;
        self.next_seq = None;
        Ok(Said::Died)
    }

    fn device_born(
        &mut self,
        device: &str,
        payload: &Payload,
        by: &Reading<'_>,
    ) -> Result<Report, Unsaid> {
        let earlier = self.devices.get(device).map(Certificate::len);
        let has_place = earlier.is_some() || self.devices.len() < DEVICES_MAX;
        if !has_place || !self.has_room(earlier.unwrap_or(0), payload.metrics.len()) {
            return Err(Unsaid::TooMuch);
        }
        let mut own = Certificate::read(&payload.metrics, by)?;
        let (mut report, _) = own.report(payload, Kind::Birth.of_device(), by).map_err(said)?;
        report.telemetry.extend(metrics::of_birth(payload, true, by));
        self.metrics = self.metrics - earlier.unwrap_or(0) + own.len();
        self.devices.insert(device.to_owned(), own);
        Ok(report)
    }

    fn certificate(&mut self, device: Option<&str>) -> Option<&mut Certificate> {
        match device {
            None => self.own.as_mut(),
            Some(device) => self.devices.get_mut(device),
        }
    }

    fn report(
        &mut self,
        device: Option<&str>,
        payload: &Payload,
        by: &Reading<'_>,
    ) -> Result<Report, Unsaid> {
        let kind = device.map_or(Kind::Data.of_node(), |_| Kind::Data.of_device());
        let certificate = self.certificate(device).ok_or(Unsaid::Unborn)?;
        let reported = certificate.report(payload, kind, by);
        if matches!(reported, Ok((_, true)) | Err(Unnamed::Alias)) {
            self.want_rebirth();
        }
        reported.map(|(report, _)| report).map_err(said)
    }
}

/// What the node is sent.
impl Node {
    /// That it is to send all its birth certificates, if that was found to be needed since this was asked.
    pub fn rebirth(&mut self, now_ms: i64) -> Option<Command> {
        if self.rebirth != Rebirth::Wanted {
            return None;
        }
        self.rebirth = Rebirth::Asked;
        let payload = Bytes::from(commands::rebirth(now_ms).encode_to_vec());
        Some(Command { topic: self.place.command(None), payload })
    }

    /// Commands that tell it, or a device of it, shared attributes: one for each that its certificate has, and that it did not say itself.
    pub fn changed(
        &mut self,
        device: Option<&str>,
        updated: &Entries,
        now_ms: i64,
    ) -> Vec<Command> {
        let topic = self.place.command(device);
        let Some(certificate) = self.certificate(device) else { return Vec::new() };
        commands::changed(certificate, updated, device.is_some(), now_ms)
            .into_iter()
            .map(|payload| Command {
                topic: topic.clone(),
                payload: Bytes::from(payload.encode_to_vec()),
            })
            .collect()
    }

    /// A call as a command to it, or to a device of it.
    ///
    /// # Errors
    ///
    /// Why it can't be one: [`Uncallable::answer`] is the call's answer.
    pub fn call(
        &mut self,
        device: Option<&str>,
        call: &ServerCall,
        now_ms: i64,
    ) -> Result<Command, Uncallable> {
        let topic = self.place.command(device);
        let certificate = self.certificate(device).ok_or(Uncallable::NoSuchMetric)?;
        let payload = commands::call(certificate, call, device.is_some(), now_ms)?;
        Ok(Command { topic, payload: Bytes::from(payload.encode_to_vec()) })
    }
}

/// The telemetry that says that a node or device is gone.
#[must_use]
pub fn gone(now_ms: i64) -> Sample {
    metrics::state(false, now_ms)
}

fn numbered(seq: u64) -> Result<u64, Invalid> {
    (seq < SEQ_COUNT).then_some(seq).ok_or(Invalid::Shape("seq is a number of 0 to 255"))
}

fn said(why: Unnamed) -> Unsaid {
    match why {
        Unnamed::Alias => Unsaid::Unborn,
        Unnamed::Invalid(why) => Unsaid::Invalid(why),
    }
}
