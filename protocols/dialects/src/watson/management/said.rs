//! What a device says of itself: `manage`, its place, its diagnostics, and what changed (§1.8, device to server).

use std::collections::{BTreeMap, BTreeSet};

use moorline_core::UnixMillis;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    address::{Downward, Upward},
    attributes::{
        DeviceInfo, ErrorCode, FirmwareChange, Location, LogEntry, NewErrorCode, NewLogEntry,
        moment,
    },
    device::{
        Contract, Device, ERROR_CODES_MAX, Effect, LOG_BYTES_MAX, LOG_KEPT_MS, SUPPORTS_MAX,
        Standing,
    },
    task::{Action, FIRMWARE, Outcome, Phase, Task},
    wire::{self, Field, Rc, Request, Response},
};
use crate::moments;

/// The shortest lifetime; a shorter one becomes this.
pub const LIFETIME_S_MIN: u64 = 3_600;
/// The longest lifetime: a hundred years. A longer one becomes this.
const LIFETIME_S_MAX: u64 = 100 * 365 * 24 * 3_600;
/// What is no extension bundle, among what a device supports.
const OWN_SUPPORTS: [&str; 2] = ["deviceActions", "firmwareActions"];

/// What a device claims with `manage` that the organisation has to have: extension bundles, at most [`SUPPORTS_MAX`].
#[must_use]
pub fn claims(payload: &[u8]) -> BTreeSet<String> {
    let Some(manage) = Request::read(payload).and_then(|request| request.data::<Manage>()) else {
        return BTreeSet::new();
    };
    let claimed = manage.supports().into_iter();
    claimed.filter(|what| !OWN_SUPPORTS.contains(&&**what)).take(SUPPORTS_MAX).collect()
}

/// `mgmt/manage`
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manage {
    #[serde(default)]
    lifetime: Option<u64>,
    #[serde(default)]
    supports: Option<BTreeMap<String, Option<bool>>>,
    #[serde(default)]
    device_info: Option<DeviceInfo>,
    #[serde(default)]
    metadata: Option<Map<String, Value>>,
}

impl Manage {
    fn supports(&self) -> BTreeSet<String> {
        let all = self.supports.iter().flatten();
        all.filter(|(_, yes)| **yes == Some(true)).map(|(what, _)| what.clone()).collect()
    }
}

impl Device {
    pub(super) fn said(
        &mut self,
        now: UnixMillis,
        address: &Upward,
        payload: &[u8],
        bundles: &BTreeSet<String>,
        effects: &mut Vec<Effect>,
    ) {
        if *address == Upward::Response {
            if let Some(response) = Response::read(payload) {
                self.responded(now, &response, effects);
            }
            return;
        }
        // What is no request has no id, so that nobody waits.
        let Some(request) = Request::read(payload) else { return };
        let rc = match address {
            Upward::Manage => self.manage(now, &request, bundles),
            Upward::Unmanage => {
                self.leave(Standing::Unmanaged);
                Some(Rc::Done)
            }
            Upward::UpdateLocation => self.locate(now, &request),
            Upward::AddErrorCode => self.add_error_code(now, &request),
            Upward::ClearErrorCodes => {
                self.error_codes.clear();
                Some(Rc::Done)
            }
            Upward::AddLog => self.add_log(now, &request),
            Upward::ClearLog => {
                self.log.clear();
                Some(Rc::Done)
            }
            Upward::Notify => Some(self.notified(now, &request, effects)),
            Upward::Unknown(_) | Upward::Response => None,
        };
        let payload = wire::answer(&request, rc.unwrap_or(Rc::Malformed));
        let answer = payload.map(|payload| Effect::Send { address: Downward::Response, payload });
        effects.extend(answer);
        if *address == Upward::Manage && rc == Some(Rc::Done) {
            let restarting = self.task.as_ref().is_some_and(|task| task.phase == Phase::Restarting);
            if restarting {
                self.end(now, Outcome::Succeeded, effects);
            }
        }
    }

    fn manage(
        &mut self,
        now: UnixMillis,
        request: &Request,
        bundles: &BTreeSet<String>,
    ) -> Option<Rc> {
        let manage: Manage = request.data()?;
        if manage.supports.as_ref().is_some_and(|all| all.len() > SUPPORTS_MAX) {
            return None;
        }
        let supports = manage.supports();
        let known = |what: &String| OWN_SUPPORTS.contains(&&**what) || bundles.contains(what);
        if !supports.iter().all(known) {
            return Some(Rc::UnknownBundle);
        }
        let until = match manage.lifetime {
            None | Some(0) => None,
            Some(seconds) => {
                let ms = seconds.clamp(LIFETIME_S_MIN, LIFETIME_S_MAX) * 1_000;
                Some(UnixMillis(now.0.saturating_add(ms)))
            }
        };
        self.standing = Standing::Managed(Contract { until, supports });
        self.info.merge(manage.device_info.unwrap_or_default());
        self.metadata = manage.metadata.unwrap_or(std::mem::take(&mut self.metadata));
        Some(Rc::Done)
    }

    fn locate(&mut self, now: UnixMillis, request: &Request) -> Option<Rc> {
        let location: Location = request.data()?;
        self.location = Some(location.taken(now)?);
        Some(Rc::Done)
    }

    fn add_error_code(&mut self, now: UnixMillis, request: &Request) -> Option<Rc> {
        self.report_error_code(now, request.data()?).then_some(Rc::Done)
    }

    fn add_log(&mut self, now: UnixMillis, request: &Request) -> Option<Rc> {
        self.report_log_entry(now, request.data()?).then_some(Rc::Done)
    }

    /// Takes an error code, by MQTT or by the management API; `false` if its moment is none.
    pub fn report_error_code(&mut self, now: UnixMillis, new: NewErrorCode) -> bool {
        let Some(timestamp) = moment(new.timestamp.as_deref(), now) else { return false };
        self.error_codes.push_front(ErrorCode { error_code: new.error_code, timestamp });
        self.error_codes.truncate(ERROR_CODES_MAX);
        true
    }

    /// Takes an entry of the log, by MQTT or by the management API; `false` if its moment is none.
    pub fn report_log_entry(&mut self, now: UnixMillis, new: NewLogEntry) -> bool {
        let Some(timestamp) = moment(new.timestamp.as_deref(), now) else { return false };
        let id = self.log_next.to_string();
        self.log_next += 1;
        let data = new.data.unwrap_or_default();
        let (message, severity) = (new.message, new.severity);
        let came = Some(now);
        self.log.push_front(LogEntry { id, message, severity, data, timestamp, came });
        let mut bytes: usize = self.log.iter().map(LogEntry::bytes).sum();
        while bytes > LOG_BYTES_MAX {
            let oldest = self.log.pop_back().expect("what has bytes has an entry");
            bytes -= oldest.bytes();
        }
        true
    }

    /// Forgets entries of the log that came longer ago than they are kept. Of those of which nobody knows when they came, their own
    /// moment counts.
    pub fn forget_old_log(&mut self, now: UnixMillis) {
        let since = UnixMillis(now.0.saturating_sub(LOG_KEPT_MS));
        let at = |entry: &LogEntry| entry.came.or_else(|| moments::parse(&entry.timestamp));
        self.log.retain(|entry| at(entry).is_some_and(|at| at > since));
    }

    fn notified(&mut self, now: UnixMillis, request: &Request, effects: &mut Vec<Effect>) -> Rc {
        let Some(fields) = wire::fields(&request.data) else { return Rc::Malformed };
        let mut worst = Rc::Done;
        for Field { field, value } in fields {
            let rc = match (field.as_str(), &self.standing) {
                (FIRMWARE, Standing::Managed(_)) => self.firmware_notified(now, &value, effects),
                (FIRMWARE, Standing::Unmanaged | Standing::Dormant) => Rc::NotFound,
                ("location", _) => {
                    match Location::deserialize(&value).ok().and_then(|l| l.taken(now)) {
                        Some(location) => {
                            self.location = Some(location);
                            Rc::Done
                        }
                        None => Rc::Malformed,
                    }
                }
                ("metadata", _) => match value {
                    Value::Object(metadata) => {
                        self.metadata = metadata;
                        Rc::Done
                    }
                    Value::Null
                    | Value::Bool(_)
                    | Value::Number(_)
                    | Value::String(_)
                    | Value::Array(_) => Rc::Malformed,
                },
                ("deviceInfo", _) => self.info_notified(value),
                (other, _) => match other.strip_prefix("deviceInfo.") {
                    Some(key) => self.info_notified(Value::Object(
                        [(key.to_owned(), value)].into_iter().collect(),
                    )),
                    None if self.is_working_on(other) => {
                        self.end(now, Outcome::Succeeded, effects);
                        Rc::Done
                    }
                    None => Rc::NotFound,
                },
            };
            if rc != Rc::Done {
                worst = rc;
            }
        }
        worst
    }

    fn info_notified(&mut self, value: Value) -> Rc {
        match serde_json::from_value(value) {
            Ok(info) => {
                self.info.merge(info);
                Rc::Done
            }
            Err(_) => Rc::Malformed,
        }
    }

    /// Whether a bundle's action, begun and answered with 202, reports with this field: the bundle's id, alone or before a dot.
    fn is_working_on(&self, field: &str) -> bool {
        let Some(Task { action: Action::Custom { bundle, .. }, phase: Phase::Working, .. }) =
            &self.task
        else {
            return false;
        };
        let rest = field.strip_prefix(bundle.as_str());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    }

    fn firmware_notified(
        &mut self,
        now: UnixMillis,
        value: &Value,
        effects: &mut Vec<Effect>,
    ) -> Rc {
        let Ok(change) = FirmwareChange::deserialize(value) else { return Rc::Malformed };
        let before = self.firmware.clone();
        self.firmware.merge(change, now);
        if let Some(task) = &self.task {
            let next = task.firmware_changed(&before, &self.firmware);
            self.proceed(now, next, effects);
        }
        Rc::Done
    }
}
