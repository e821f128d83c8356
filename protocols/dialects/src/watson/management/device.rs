//! The state of a managed device, and what changes it (§1.8): state and event in, state and effects out.
//!
//! ```text
//!   Unmanaged ──manage──► Managed ──unmanage──► Unmanaged
//!                            └──lifetime over──► Dormant ──manage──► Managed
//! ```
//!
//! # Invariants
//!
//! - **Pure.** [`step`] knows nothing but its arguments; the driver saves the state before it carries out the effects.
//! - **`manage` is idempotent.** The Python SDK sends ten at once, each with its own id; each is answered 200 and the state after
//!   ten is the state after one. Checked by `ten_manages_are_one`.
//! - **Without a contract there is no `mgmt`.** Whoever unmanages, or lets its lifetime pass, loses its firmware's state. Checked
//!   by `a_lifetime_that_passes_makes_dormant`.
//! - **One task at a time.** Another is refused unless it overrides. Checked by `one_task_at_a_time`.
//! - **Bounded.** [`ERROR_CODES_MAX`], [`LOG_BYTES_MAX`], [`SUPPORTS_MAX`]; the oldest entries go. Checked by
//!   `diagnostics_are_bounded_and_newest_first`.
//!
//! # Deliberately absent
//!
//! Whether the device is registered (its state would not be here: [`super::wire::answer_unread`]), and how the state is kept
//! ([`super::kept`]).

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;
use moorline_core::UnixMillis;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    address::{Downward, Upward},
    attributes::{DeviceInfo, ErrorCode, Firmware, Location, LogEntry},
    kept,
    task::{Action, Outcome, Parameter, Phase, RequestId, Task},
};

/// The most error codes of a device.
pub const ERROR_CODES_MAX: usize = 100;
/// The most bytes of a device's log, as it is kept: one document. The vendor keeps 500 KB (§1.10).
pub const LOG_BYTES_MAX: usize = 96 * 1024;
/// How long an entry of the log is kept (§1.10): seven days.
pub const LOG_KEPT_MS: u64 = 7 * 24 * 3_600 * 1_000;
/// The most things that a device says it supports.
pub const SUPPORTS_MAX: usize = 64;

/// How a device stands to the server.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// It never sent `manage`, or it sent `unmanage`.
    #[default]
    Unmanaged,
    /// Its lifetime passed.
    Dormant,
    /// It is managed.
    Managed(Contract),
}

/// What a device promised with `manage`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contract {
    /// When it becomes dormant.
    #[serde(default, with = "kept::moment_if_any", skip_serializing_if = "Option::is_none")]
    pub until: Option<UnixMillis>,
    /// What it supports: `deviceActions`, `firmwareActions`, and extension bundles.
    pub supports: BTreeSet<String>,
}

/// A device as the management protocol knows it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Device {
    /// How it stands to the server.
    pub standing: Standing,
    /// What it is.
    pub info: DeviceInfo,
    /// What else is known of it.
    pub metadata: Map<String, Value>,
    /// Where it is.
    pub location: Option<Location>,
    /// What went wrong, newest first.
    pub error_codes: VecDeque<ErrorCode>,
    /// Its log, newest first.
    pub log: VecDeque<LogEntry>,
    /// The id of the next entry.
    pub log_next: u64,
    /// `mgmt.firmware`.
    pub firmware: Firmware,
    /// What it is asked to do.
    pub task: Option<Task>,
}

/// What happens to a device.
#[derive(Debug, Clone, PartialEq)]
pub enum Event<'a> {
    /// It says something.
    Said {
        /// Where.
        address: &'a Upward,
        /// What.
        payload: &'a [u8],
        /// The extension bundles of its organisation.
        bundles: &'a BTreeSet<String>,
    },
    /// The management API asks it to do something.
    Asked {
        /// The request.
        id: RequestId,
        /// What.
        action: &'a Action,
        /// With what.
        parameters: &'a [Parameter],
        /// For how long.
        timeout_ms: u64,
        /// Whether another request makes way.
        overrides: bool,
    },
    /// Somebody calls a request off.
    Called {
        /// Which one.
        off: RequestId,
    },
    /// The management API changed an attribute, and the device should know.
    Changed(Change),
    /// Time passed.
    Tick,
}

/// An attribute that the management API changes.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// `location`
    Location(Location),
    /// `metadata`
    Metadata(Map<String, Value>),
    /// `deviceInfo`
    Info(DeviceInfo),
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Publish this, QoS 1, to the device: its session may be away, and keeps it then.
    Send {
        /// Where.
        address: Downward,
        /// What.
        payload: Bytes,
    },
    /// A request moved on: its record says so.
    Moved {
        /// The request.
        id: RequestId,
    },
    /// A request is over for this device.
    Ended {
        /// The request.
        id: RequestId,
        /// How.
        outcome: Outcome,
    },
}

/// A device after an event, and what is to be done.
#[must_use]
pub fn step(mut device: Device, now: UnixMillis, event: Event<'_>) -> (Device, Vec<Effect>) {
    let mut effects = Vec::new();
    device.pass(now, &mut effects);
    match event {
        Event::Said { address, payload, bundles } => {
            device.said(now, address, payload, bundles, &mut effects);
        }
        Event::Asked { id, action, parameters, timeout_ms, overrides } => {
            let deadline = UnixMillis(now.0.saturating_add(timeout_ms));
            let task = Task {
                id,
                action: action.clone(),
                parameters: parameters.to_vec(),
                deadline,
                phase: Task::first(action, parameters),
                exchange: 0,
            };
            device.asked(now, task, overrides, &mut effects);
        }
        Event::Called { off } => {
            if device.task.as_ref().is_some_and(|task| task.id == off) {
                device.end(now, Outcome::Cancelled, &mut effects);
            }
        }
        Event::Changed(change) => device.changed(change, &mut effects),
        Event::Tick => {}
    }
    (device, effects)
}

impl Device {
    /// When [`Event::Tick`] will change something.
    #[must_use]
    pub fn due(&self) -> Option<UnixMillis> {
        let dormant = match &self.standing {
            Standing::Managed(contract) => contract.until,
            Standing::Unmanaged | Standing::Dormant => None,
        };
        dormant.into_iter().chain(self.task.as_ref().map(|task| task.deadline)).min()
    }

    /// Whether it is managed and supports this.
    #[must_use]
    pub fn supports(&self, what: &str) -> bool {
        match &self.standing {
            Standing::Managed(contract) => contract.supports.contains(what),
            Standing::Unmanaged | Standing::Dormant => false,
        }
    }

    /// Lets the time until `now` pass.
    fn pass(&mut self, now: UnixMillis, effects: &mut Vec<Effect>) {
        if let Standing::Managed(Contract { until: Some(until), .. }) = &self.standing
            && *until <= now
        {
            self.leave(Standing::Dormant);
        }
        let late = self.task.as_ref().filter(|task| task.deadline <= now);
        if let Some(late) = late {
            // What is known to be over does not time out.
            let outcome = match &late.phase {
                Phase::Cancelling(outcome) => outcome.clone(),
                Phase::Updating
                | Phase::Observing
                | Phase::Initiated
                | Phase::Restarting
                | Phase::Working => Outcome::TimedOut,
            };
            self.end(now, outcome, effects);
        }
    }

    pub(super) fn leave(&mut self, standing: Standing) {
        self.standing = standing;
        self.firmware = Firmware::default();
    }
}
