//! How a managed device is kept: one document of JSON for its state, one for its log; and what is still owed to it.
//!
//! ```text
//!   state   {"form":1,"standing":…,"location":…,"errors":[…],"firmware":…,"task":…,"owed":[…],"owed-next":n}
//!   log     {"form":1,"entries":[…],"next":n}
//! ```
//!
//! What a device is and its metadata are not here: they are its registration's.
//!
//! # Invariants
//!
//! - **Saved, then said.** What a change asks for is owed by the same document that has the change, until it was done: whoever reads
//!   it later does it, if whoever wrote it died. Checked by `what_was_not_said_is_owed`.
//! - **Nothing is asked again that was answered**: with its exchange an owed question goes. Checked by the same.
//! - **Old forms are read as they were meant.** A later form is refused, and so never written over. Checked by `kept_forms_stay`.
//! - **Bounded**: [`STATE_BYTES_MAX`], [`OWED_MAX`].

use bytes::Bytes;
use moorline_core::UnixMillis;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    address::{Channel, Downward, Upward},
    attributes::{ErrorCode, Firmware, Location, LogEntry},
    device::{self, Device, Effect, Event, Standing},
    record::Progress,
    task::{Phase, RequestId, Task},
};
use crate::watson::identity::DeviceName;

/// The form that is written.
const FORM: u32 = 1;
/// The most bytes of a device's state, as it is kept. A change that needs more is refused.
pub const STATE_BYTES_MAX: usize = 96 * 1024;
/// The most that is owed to a device; of more the oldest goes.
pub const OWED_MAX: usize = 32;
/// Milliseconds after which somebody else does what is owed: whoever wrote it would have by then.
pub const OWED_AGAIN_MS: u64 = 10_000;

/// A document that can't be read: of a later form, or broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the document is of a form that is not known here")]
pub struct Unreadable;

#[derive(Serialize, Deserialize)]
struct Form<T> {
    form: u32,
    #[serde(flatten)]
    body: T,
}

/// A document's body as it is kept.
///
/// # Panics
///
/// If it is no map with text for keys: ours are.
#[must_use]
pub fn write(body: &impl Serialize) -> Bytes {
    let written = serde_json::to_vec(&Form { form: FORM, body });
    Bytes::from(written.expect("maps with text for keys have a form in JSON"))
}

/// Reads what [`write()`] wrote, or an older version of it.
///
/// # Errors
///
/// [`Unreadable`].
pub fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Unreadable> {
    let read: Form<T> = serde_json::from_slice(body).map_err(|_| Unreadable)?;
    if read.form == FORM { Ok(read.body) } else { Err(Unreadable) }
}

/// What was to be done when a change was saved, and may not have been.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owed {
    /// Its number, of its own within the device.
    pub number: u64,
    /// Since when.
    #[serde(with = "moment")]
    pub since: UnixMillis,
    /// What.
    #[serde(flatten)]
    pub what: Owing,
}

/// What is owed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Owing {
    /// The device is to hear this.
    Send {
        /// Where, behind `iotdm-1/` and the device's name.
        to: String,
        /// What: JSON.
        payload: String,
        /// To which exchange it belongs, if an answer is wanted.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        exchange: Option<String>,
    },
    /// A request's record is to say this.
    Note {
        /// Of which.
        id: RequestId,
        /// What.
        progress: Progress,
    },
}

/// A device as it is kept.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Kept {
    /// It. Its log is elsewhere ([`log`]), what it is comes from its registration.
    pub device: Device,
    /// The gateway that spoke for it last; itself, for a gateway; [`None`] if it speaks for itself.
    pub gateway: Option<DeviceName>,
    /// What is owed, oldest first.
    pub owed: Vec<Owed>,
    next: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct State {
    #[serde(default)]
    standing: Standing,
    #[serde(default, skip_serializing_if = "Option::is_none", with = "name_if_any")]
    gateway: Option<DeviceName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    location: Option<Location>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    errors: Vec<ErrorCode>,
    #[serde(default)]
    firmware: Firmware,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    task: Option<Task>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    owed: Vec<Owed>,
    #[serde(default)]
    owed_next: u64,
}

#[derive(Serialize, Deserialize)]
struct Log {
    #[serde(default)]
    entries: Vec<LoggedEntry>,
    #[serde(default)]
    next: u64,
}

#[derive(Serialize, Deserialize)]
struct LoggedEntry {
    #[serde(flatten)]
    entry: LogEntry,
    #[serde(default, skip_serializing_if = "Option::is_none", with = "moment_if_any")]
    came: Option<UnixMillis>,
}

/// What a device hears at once, and nobody says again: if it is lost, the device asks again.
pub type Answers = Vec<(Downward, Bytes)>;

impl Kept {
    /// Reads a device's state.
    ///
    /// # Errors
    ///
    /// [`Unreadable`].
    pub fn read(body: &[u8]) -> Result<Self, Unreadable> {
        let state: State = read(body)?;
        let State { standing, gateway, location, errors, firmware, task, owed, owed_next } = state;
        let error_codes = errors.into();
        let device =
            Device { standing, location, error_codes, firmware, task, ..Device::default() };
        Ok(Self { device, gateway, owed, next: owed_next })
    }

    /// Its state as it is kept.
    #[must_use]
    pub fn written(&self) -> Bytes {
        let Device { standing, location, error_codes, firmware, task, .. } = &self.device;
        write(&State {
            standing: standing.clone(),
            gateway: self.gateway.clone(),
            location: location.clone(),
            errors: error_codes.iter().cloned().collect(),
            firmware: firmware.clone(),
            task: task.clone(),
            owed: self.owed.clone(),
            owed_next: self.next,
        })
    }

    /// The device after an event: what is to be saved, and what it hears then.
    #[must_use]
    pub fn after(self, now: UnixMillis, event: Event<'_>) -> (Self, Answers) {
        let Self { device, gateway, mut owed, mut next } = self;
        let (device, effects) = device::step(device, now, event);
        let waits_for = device.task.as_ref().and_then(outstanding);
        owed.retain(|owed| match &owed.what {
            Owing::Send { exchange, .. } => exchange.is_none() || *exchange == waits_for,
            Owing::Note { .. } => true,
        });
        let mut answers = Answers::new();
        for effect in effects {
            let what = match effect {
                Effect::Send { address: Downward::Response, payload } => {
                    answers.push((Downward::Response, payload));
                    continue;
                }
                Effect::Send { address, payload } => {
                    let payload = String::from_utf8_lossy(&payload).into_owned();
                    let exchange = waits_for.clone().filter(|id| payload.contains(id.as_str()));
                    Owing::Send { to: address.to_string(), payload, exchange }
                }
                Effect::Moved { id } => Owing::Note { id, progress: Progress::Running },
                Effect::Ended { id, outcome } => {
                    Owing::Note { id, progress: Progress::Ended(outcome) }
                }
            };
            if let Owing::Note { id, .. } = &what {
                // The last word counts.
                owed.retain(|owed| !matches!(&owed.what, Owing::Note { id: of, .. } if of == id));
            }
            owed.push(Owed { number: next, since: now, what });
            next += 1;
        }
        let too_many = owed.len().saturating_sub(OWED_MAX);
        owed.drain(..too_many);
        (Self { device, gateway, owed, next }, answers)
    }

    /// Where it hears the server.
    #[must_use]
    pub fn channel(&self, name: &DeviceName) -> Channel {
        Channel::of(name, self.gateway.as_ref())
    }

    /// What is to be done now: what is owed since the number `fresh`, and what nobody did for [`OWED_AGAIN_MS`].
    pub fn due(&self, fresh: u64, now: UnixMillis) -> impl Iterator<Item = &Owed> {
        let late = move |owed: &&Owed| owed.since.0.saturating_add(OWED_AGAIN_MS) <= now.0;
        self.owed.iter().filter(move |owed| owed.number >= fresh || late(owed))
    }

    /// The number of what will be owed next.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.next
    }

    /// These were done.
    pub fn paid(&mut self, numbers: &[u64]) {
        self.owed.retain(|owed| !numbers.contains(&owed.number));
    }
}

/// The exchange that a task waits for, if it waits for one.
fn outstanding(task: &Task) -> Option<String> {
    match task.phase {
        Phase::Updating | Phase::Observing | Phase::Initiated | Phase::Cancelling(_) => {
            Some(task.exchange_id())
        }
        Phase::Restarting | Phase::Working => None,
    }
}

/// Whether what a device says is about its log, which is kept apart from the rest of it.
#[must_use]
pub fn is_about_log(address: &Upward) -> bool {
    match address {
        Upward::AddLog | Upward::ClearLog => true,
        Upward::Response
        | Upward::Notify
        | Upward::Manage
        | Upward::Unmanage
        | Upward::UpdateLocation
        | Upward::AddErrorCode
        | Upward::ClearErrorCodes
        | Upward::Unknown(_) => false,
    }
}

/// A device's log as it is kept.
#[must_use]
pub fn log(device: &Device) -> Bytes {
    let kept = |entry: &LogEntry| LoggedEntry { entry: entry.clone(), came: entry.came };
    write(&Log { entries: device.log.iter().map(kept).collect(), next: device.log_next })
}

/// Reads a log: a device of which nothing else is known.
///
/// # Errors
///
/// [`Unreadable`].
pub fn read_log(body: &[u8]) -> Result<Device, Unreadable> {
    let Log { entries, next } = read(body)?;
    let log = entries.into_iter().map(|LoggedEntry { entry, came }| LogEntry { came, ..entry });
    Ok(Device { log: log.collect(), log_next: next, ..Device::default() })
}

mod name_if_any {
    //! A device's name as `TYPE:ID`, if there is one.

    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    use crate::watson::identity::DeviceName;

    pub(super) fn serialize<S: Serializer>(
        name: &Option<DeviceName>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        name.as_ref().map(|name| format!("{}:{}", name.kind, name.id)).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<DeviceName>, D::Error> {
        let Some(text) = Option::<String>::deserialize(from)? else { return Ok(None) };
        let parts = text.split_once(':');
        let name = parts.and_then(|(kind, id)| DeviceName::new(kind.as_bytes(), id.as_bytes()));
        name.map(Some).ok_or_else(|| D::Error::custom("no device's name"))
    }
}

pub(crate) mod moment {
    //! A moment as milliseconds since 1970.

    use moorline_core::UnixMillis;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(at: &UnixMillis, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(at.0)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<UnixMillis, D::Error> {
        u64::deserialize(from).map(UnixMillis)
    }
}

pub(crate) mod moment_if_any {
    //! A moment as milliseconds since 1970, if there is one.

    use moorline_core::UnixMillis;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(crate) fn serialize<S: Serializer>(
        at: &Option<UnixMillis>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        at.map(|at| at.0).serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<UnixMillis>, D::Error> {
        Ok(Option::<u64>::deserialize(from)?.map(UnixMillis))
    }
}
