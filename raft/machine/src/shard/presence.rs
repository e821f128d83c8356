//! Who is connected, who was heard from a while ago, and who is offline.
//!
//! ```text
//!   Present (tenant, device)   connected or active: read when the shard opens
//!   Offline (tenant, device)   the same of those that are offline
//! ```
//!
//! A device has at most one of the two.
//!
//! # Invariants
//!
//! - **Memory is the rows of those that are present**: by process, for nodes that die, and by when they are offline. Checked by
//!   `PartialEq` of [`Presences`] wherever replicas are tested.
//! - **Every change of state is one event**, in the same step, where the tenant wants events. Checked by
//!   `tests/rules/presence.rs`.
//! - **A report says how things are**, so a repeat changes nothing. Checked by the same.
//! - **No presence without its device**: it goes with the device's row, and reports of one that is gone are passed over.

use std::collections::{BTreeMap, BTreeSet};

use moorline_core::{Incarnation, NodeId, TenantId, Text, UnixMillis};
use moorline_storage::{Rows, StorageError, View, key::Kind};

use super::ShardState;
use crate::{
    answer::{Answer, Refused},
    events::{AppendEvent, EventKind, NEWS, NewEvent},
    keys::{Keys, each},
    presence::{
        OFFLINE_PER_TICK_MAX, PRESENCE_LINKS_MAX, PRESENCE_PER_NODE_GONE_MAX, PRESENCE_REPORTS_MAX,
        PRESENCE_USED_MAX, PRESENT_PER_SHARD_MAX, PresenceNews, PresenceRecord, PresenceReport,
        PresenceState, ReportPresence,
    },
    rows::Row,
    step::Step,
};

type Whose = (TenantId, Text);
type Process = (NodeId, Incarnation);

/// See the module.
#[derive(Debug, PartialEq)]
pub(super) struct Presences {
    keys: Keys,
    /// Those that are connected, by the processes that serve them.
    held: BTreeMap<Process, BTreeSet<Whose>>,
    /// Those that are active, by when they are offline.
    due: BTreeSet<(UnixMillis, TenantId, Text)>,
    connected: usize,
}

/// How many devices of a shard are how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PresenceCounts {
    /// They have a connection.
    pub connected: usize,
    /// They were heard from within their threshold.
    pub active: usize,
}

/// What happened to a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Connected,
    Disconnected,
    Active,
    Offline,
}

impl Change {
    fn name(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Disconnected => "disconnected",
            Self::Active => "active",
            Self::Offline => "offline",
        }
    }
}

impl Presences {
    pub(super) fn new(keys: Keys) -> Self {
        Self { keys, held: BTreeMap::new(), due: BTreeSet::new(), connected: 0 }
    }

    pub(super) fn open_bucket(
        &mut self,
        rows: &(impl View + ?Sized),
        bucket: u16,
    ) -> Result<(), StorageError> {
        each(rows, &self.keys.range_in(bucket, Kind::Present), |mut suffix, row| {
            let (tenant, device) = (TenantId(suffix.u32()?), suffix.text()?);
            let record = PresenceRecord::from_bytes(row)?;
            self.index(tenant, Text::from(device.as_str()), &record);
            Ok(())
        })
    }

    /// Takes a device into memory, if it is present.
    fn index(&mut self, tenant: TenantId, device: Text, record: &PresenceRecord) {
        self.connected += usize::from(record.state == PresenceState::Connected);
        for process in &record.links {
            self.held.entry(*process).or_default().insert((tenant, device.clone()));
        }
        self.due.extend(record.offline_at().map(|at| (at, tenant, device)));
    }

    /// The reverse of [`Self::index`].
    fn unindex(&mut self, tenant: TenantId, device: &Text, record: &PresenceRecord) {
        self.connected -= usize::from(record.state == PresenceState::Connected);
        for process in &record.links {
            let Some(held) = self.held.get_mut(process) else { continue };
            held.remove(&(tenant, device.clone()));
            if held.is_empty() {
                self.held.remove(process);
            }
        }
        record.offline_at().map(|at| self.due.remove(&(at, tenant, device.clone())));
    }

    fn get(
        &self,
        rows: &(impl View + ?Sized),
        tenant: TenantId,
        device: &Text,
    ) -> Result<Option<PresenceRecord>, StorageError> {
        let row = match rows.get(&self.keys.present(tenant, device))? {
            None => rows.get(&self.keys.offline(tenant, device))?,
            present => present,
        };
        row.map(|row| PresenceRecord::from_bytes(&row)).transpose()
    }

    /// Writes what became of a device, in rows and in memory.
    fn put<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        tenant: TenantId,
        device: &Text,
        before: Option<&PresenceRecord>,
        after: &PresenceRecord,
    ) {
        let key = |keys: Keys, record: &PresenceRecord| match record.state {
            PresenceState::Connected | PresenceState::Active => keys.present(tenant, device),
            PresenceState::Offline => keys.offline(tenant, device),
        };
        let at = key(self.keys, after);
        if let Some(before) = before {
            self.unindex(tenant, device, before);
            let was_at = key(self.keys, before);
            if was_at != at {
                step.delete(was_at);
            }
        }
        step.put(at, after.to_bytes());
        // A copy: the text may be a slice of the whole log entry.
        self.index(tenant, Text::from(device.as_str()), after);
    }

    fn len(&self) -> usize {
        self.connected + self.due.len()
    }

    pub(super) fn next_deadline(&self) -> Option<UnixMillis> {
        self.due.first().map(|(at, ..)| *at)
    }

    pub(super) fn counts(&self) -> PresenceCounts {
        PresenceCounts { connected: self.connected, active: self.due.len() }
    }
}

impl PresenceRecord {
    /// As a report says it is now: what happened to it.
    fn take(
        &mut self,
        process: Process,
        time: UnixMillis,
        report: &PresenceReport,
        changes: &mut Vec<Change>,
    ) {
        let (was, linked) = (self.state, self.links.contains(&process));
        self.offline_after_s = report.offline_after_s;
        self.events = report.events;
        if report.open && !linked {
            // An earlier process of that node is gone.
            self.links.retain(|(node, _)| *node != process.0);
            if self.links.len() >= PRESENCE_LINKS_MAX {
                self.links.remove(0);
            }
            self.links.push(process);
        } else if !report.open {
            self.links.retain(|link| *link != process);
        }
        let came = report.came || report.open && !linked;
        let heard = report.heard_ago_ms.map(|ago| UnixMillis(time.0.saturating_sub(ago.into())));
        let left = !report.open && (linked || came);
        if came {
            self.connected = Some(time);
        }
        if came || heard.is_some_and(|heard| heard >= self.heard) {
            (self.node, self.by) = (process.0, report.by);
        }
        self.heard = self.heard.max(heard.unwrap_or_default());
        if came || left {
            self.heard = self.heard.max(time);
        }
        if left && self.links.is_empty() {
            self.disconnected = Some(time);
        }
        if came || heard.is_some() {
            self.note_used(report.credential, time);
        }
        let is_held = !self.links.is_empty();
        if was != PresenceState::Connected && (came || is_held) {
            changes.push(Change::Connected);
        }
        self.state = match was {
            _ if is_held => PresenceState::Connected,
            PresenceState::Connected => PresenceState::Active,
            PresenceState::Active | PresenceState::Offline if came => PresenceState::Active,
            PresenceState::Offline if heard.is_some() => {
                changes.push(Change::Active);
                PresenceState::Active
            }
            PresenceState::Active | PresenceState::Offline => was,
        };
        if !is_held && (was == PresenceState::Connected || came) {
            changes.push(Change::Disconnected);
        }
        if self.state != was {
            self.since = time;
        }
    }

    fn note_used(&mut self, credential: u64, time: UnixMillis) {
        if credential == 0 {
            return;
        }
        self.used.retain(|(id, _)| *id != credential);
        if self.used.len() >= PRESENCE_USED_MAX {
            self.used.remove(0);
        }
        self.used.push((credential, time));
    }

    /// A process that served it is gone: whether it was the last.
    fn lose(&mut self, process: Process, time: UnixMillis) -> bool {
        self.links.retain(|link| *link != process);
        let was_last = self.links.is_empty() && self.state == PresenceState::Connected;
        if was_last {
            self.state = PresenceState::Active;
            (self.since, self.disconnected) = (time, Some(time));
            self.heard = self.heard.max(time);
        }
        was_last
    }
}

impl ShardState {
    pub(crate) fn report_presence<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        report: &ReportPresence,
    ) -> Result<Answer, StorageError> {
        let ReportPresence { node, incarnation, reports } = report;
        if reports.len() > PRESENCE_REPORTS_MAX {
            return Ok(Answer::Refused(Refused::Malformed));
        }
        for report in reports {
            self.report_one(step, (*node, *incarnation), report)?;
        }
        Ok(Answer::Done)
    }

    fn report_one<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        process: Process,
        report: &PresenceReport,
    ) -> Result<(), StorageError> {
        let PresenceReport { tenant, device, born, .. } = report;
        if self.born(&*step.rows, *tenant, device)? != Some(*born) {
            return Ok(());
        }
        let before = self.presence.get(&*step.rows, *tenant, device)?;
        let is_present = before.as_ref().is_some_and(|row| row.state != PresenceState::Offline);
        if !is_present && self.presence.len() >= PRESENT_PER_SHARD_MAX {
            return Ok(());
        }
        let known = before.clone().filter(|before| before.born == *born);
        let mut after = known.unwrap_or_else(|| PresenceRecord::new(*born));
        let mut changes = Vec::new();
        after.take(process, step.time, report, &mut changes);
        if before.as_ref() == Some(&after) {
            return Ok(());
        }
        self.presence.put(step, *tenant, device, before.as_ref(), &after);
        self.say_presence(step, *tenant, device, &after, &changes);
        Ok(())
    }

    /// Appends an event for each change, if the tenant wants that.
    fn say_presence<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        tenant: TenantId,
        device: &Text,
        record: &PresenceRecord,
        changes: &[Change],
    ) {
        let Some(retention) = record.events else { return };
        let PresenceRecord { node, connected, disconnected, heard, .. } = *record;
        for change in changes {
            let body = PresenceNews { node, connected, disconnected, heard }.encode();
            let event = NewEvent {
                kind: EventKind::Presence,
                channel: Text::from(change.name()),
                content_type: NEWS,
                body,
                by: record.by,
            };
            let (device, born) = (device.clone(), Some(record.born));
            // A shard with too many streams keeps none of it, as it does for what devices say.
            self.streams.append(step, AppendEvent { tenant, device, born, event, retention });
        }
    }

    /// Devices that were served by a process that is gone have lost those connections: whether there are more of them than one
    /// command changes.
    pub(crate) fn presence_gone<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        process: Process,
    ) -> Result<bool, StorageError> {
        for _ in 0..PRESENCE_PER_NODE_GONE_MAX {
            let Some((tenant, device)) = self.first_of(process) else { return Ok(false) };
            let before = self.presence.get(&*step.rows, tenant, &device)?;
            let before = before
                .ok_or_else(|| crate::rows::corrupt(PresenceRecord::WHAT, &"it is missing"))?;
            let mut after = before.clone();
            let was_last = after.lose(process, step.time);
            self.presence.put(step, tenant, &device, Some(&before), &after);
            if was_last {
                self.say_presence(step, tenant, &device, &after, &[Change::Disconnected]);
            }
        }
        Ok(self.first_of(process).is_some())
    }

    /// The first device that a process serves.
    fn first_of(&self, process: Process) -> Option<Whose> {
        self.presence.held.get(&process)?.first().cloned()
    }

    /// The processes of a node by which devices are held connected.
    pub(super) fn present_processes(&self, node: NodeId) -> impl Iterator<Item = Incarnation> {
        let (first, last) = ((node, Incarnation(0)), (node, Incarnation(u64::MAX)));
        let of_node = self.presence.held.range(first..=last);
        of_node.filter(|(_, held)| !held.is_empty()).map(|((_, process), _)| *process)
    }

    /// Finds those offline that were silent for too long.
    pub(super) fn tick_presence<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
    ) -> Result<(), StorageError> {
        for _ in 0..OFFLINE_PER_TICK_MAX {
            let due = self.presence.due.first().filter(|(at, ..)| *at <= step.time);
            let Some((_, tenant, device)) = due.cloned() else { return Ok(()) };
            let before = self.presence.get(&*step.rows, tenant, &device)?;
            let before = before
                .ok_or_else(|| crate::rows::corrupt(PresenceRecord::WHAT, &"it is missing"))?;
            let after = PresenceRecord {
                state: PresenceState::Offline,
                since: step.time,
                ..before.clone()
            };
            self.presence.put(step, tenant, &device, Some(&before), &after);
            self.say_presence(step, tenant, &device, &after, &[Change::Offline]);
        }
        Ok(())
    }

    /// Nothing is known of a device that is gone.
    pub(super) fn forget_presence<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        tenant: TenantId,
        device: &Text,
    ) -> Result<(), StorageError> {
        if let Some(record) = self.presence.get(&*step.rows, tenant, device)? {
            self.presence.unindex(tenant, device, &record);
            step.delete(self.keys.present(tenant, device));
            step.delete(self.keys.offline(tenant, device));
        }
        Ok(())
    }

    pub(crate) fn presence(
        &self,
        rows: &(impl View + ?Sized),
        tenant: TenantId,
        device: &Text,
    ) -> Result<Option<PresenceRecord>, StorageError> {
        self.presence.get(rows, tenant, device)
    }
}
