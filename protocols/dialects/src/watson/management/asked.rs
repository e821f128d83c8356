//! What the server asks of a device, and what its answers mean (§1.8, server to device).

use moorline_core::UnixMillis;
use serde::Deserialize;
use serde_json::Value;

use super::{
    address::Downward,
    attributes::{FirmwareChange, FirmwareState, UpdateStatus},
    device::{Change, Device, Effect, Standing},
    task::{self, Action, FIRMWARE, Next, Outcome, Phase, Task},
    wire::{self, Field, Response},
};

impl Device {
    pub(super) fn asked(
        &mut self,
        now: UnixMillis,
        task: Task,
        overrides: bool,
        effects: &mut Vec<Effect>,
    ) {
        let refuse =
            |message: &str| Effect::Ended { id: task.id, outcome: Outcome::failed(None, message) };
        if !self.supports(task.action.needs()) {
            effects.push(refuse(match self.standing {
                Standing::Managed(_) => "The device does not support the action",
                Standing::Unmanaged | Standing::Dormant => "The device is not managed",
            }));
            return;
        }
        if self.task.as_ref().is_some_and(|running| running.id == task.id) {
            // The driver repeats itself.
            return;
        }
        if self.task.is_some() && !overrides {
            effects.push(refuse("Another request is under way"));
            return;
        }
        if self.task.is_some() {
            self.end(now, Outcome::Cancelled, effects);
        }
        let phase = task.phase.clone();
        self.task = Some(task);
        self.enter(now, phase, effects);
    }

    pub(super) fn changed(&mut self, change: Change, effects: &mut Vec<Effect>) {
        let (field, value) = match change {
            Change::Location(location) => {
                let value = serde_json::to_value(&location);
                self.location = Some(location);
                ("location", value)
            }
            Change::Metadata(metadata) => {
                self.metadata.clone_from(&metadata);
                ("metadata", Ok(Value::Object(metadata)))
            }
            Change::Info(info) => {
                self.info.merge(info);
                ("deviceInfo", serde_json::to_value(&self.info))
            }
        };
        let value = value.expect("texts and numbers have a form in JSON");
        if matches!(self.standing, Standing::Managed(_)) {
            let fields = [Field { field: field.to_owned(), value }];
            effects.push(Effect::Send {
                address: Downward::Update,
                payload: wire::ask(None, &fields),
            });
        }
    }

    pub(super) fn responded(
        &mut self,
        now: UnixMillis,
        response: &Response,
        effects: &mut Vec<Effect>,
    ) {
        let Some(task) = &self.task else { return };
        if task.exchange_id() != response.id {
            return;
        }
        let next = task.answered(response);
        let observed = task.phase == Phase::Observing && response.rc == 200;
        if observed && let Some(fields) = wire::fields(&response.data) {
            for field in fields.into_iter().filter(|field| field.field == FIRMWARE) {
                if let Ok(change) = FirmwareChange::deserialize(&field.value) {
                    self.firmware.merge(change, now);
                }
            }
        }
        self.proceed(now, next, effects);
    }

    pub(super) fn proceed(&mut self, now: UnixMillis, next: Next, effects: &mut Vec<Effect>) {
        match next {
            Next::Wait => {}
            Next::Enter(phase) => self.enter(now, phase, effects),
            Next::End(outcome) => self.end(now, outcome, effects),
        }
    }

    /// Brings the task into a phase, and tells the device what that needs.
    fn enter(&mut self, now: UnixMillis, phase: Phase, effects: &mut Vec<Effect>) {
        let Some(task) = &mut self.task else { return };
        task.phase = phase;
        let observed = Field { field: FIRMWARE.to_owned(), value: Value::Null };
        if matches!(task.phase, Phase::Updating | Phase::Observing) {
            // What an earlier task left would be taken for this one's, where a device does not say how it stands.
            let download = task.action == Action::FirmwareDownload;
            let state = download.then_some(FirmwareState::Idle);
            let update_status = Some(UpdateStatus::Success);
            let fresh = FirmwareChange { state, update_status, ..FirmwareChange::default() };
            self.firmware.merge(fresh, now);
        }
        let (address, fields) = match &task.phase {
            Phase::Updating => {
                self.firmware.merge(task::firmware_of(&task.parameters), now);
                let value = serde_json::to_value(&self.firmware);
                let value = value.expect("texts and numbers have a form in JSON");
                (Downward::Update, vec![Field { value, ..observed }])
            }
            Phase::Observing => (Downward::Observe, vec![observed]),
            Phase::Cancelling(_) => (Downward::Cancel, vec![observed]),
            Phase::Initiated => {
                let custom = matches!(task.action, Action::Custom { .. });
                let parameters = task.parameters.iter().filter(|_| custom);
                let fields = parameters.map(|parameter| Field {
                    field: parameter.name.clone(),
                    value: parameter.value.clone(),
                });
                (task.action.address(), fields.collect())
            }
            Phase::Restarting | Phase::Working => {
                effects.push(Effect::Moved { id: task.id });
                return;
            }
        };
        task.exchange += 1;
        let payload = wire::ask(Some(&task.exchange_id()), &fields);
        effects.push(Effect::Moved { id: task.id });
        effects.push(Effect::Send { address, payload });
    }

    pub(super) fn end(&mut self, now: UnixMillis, outcome: Outcome, effects: &mut Vec<Effect>) {
        let Some(task) = self.task.take() else { return };
        if task.action == Action::FirmwareUpdate && outcome == Outcome::Succeeded {
            let idle =
                FirmwareChange { state: Some(FirmwareState::Idle), ..FirmwareChange::default() };
            self.firmware.merge(idle, now);
            if !self.firmware.version.is_empty() {
                self.info.fw_version = Some(self.firmware.version.clone());
            }
        }
        effects.push(Effect::Ended { id: task.id, outcome });
    }
}
