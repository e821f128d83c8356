//! Presence as this node sees it: which devices have a connection here, which were heard from, and what of that their shards
//! are told.
//!
//! ```text
//!   arrive ─┐                          ┌─ one task for each shard, one command at a time
//!   heard  ─┼─► Noticed (one for each device) ──► ReportPresence (256 at most) ──► the shard's log
//!   leave  ─┘
//! ```
//!
//! # Invariants
//!
//! - **Reports say how things are**, so what was lost or said twice is put right by the next. A connection is reported again
//!   after [`OPEN_AGAIN`], and all of them when the cluster gave this process up for a while.
//! - **Coalesced**: a device that is heard from without a connection is reported at most once in a quarter of its threshold,
//!   and in [`HEARD_AGAIN_MAX`] at most; what comes in between is reported at its end, with its time. So nobody is found
//!   offline too early.
//! - **Bounded**: [`NOTICED_PER_SHARD_MAX`]; of more nothing is noted, and that is counted.
//!
//! Checked by the tests below and by the cluster tests (`presence.rs`).

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use moorline_core::{ShardId, TenantId, Text};
use moorline_machine::{
    Command,
    events::Retention,
    presence::{
        PRESENCE_PER_QUESTION_MAX, PRESENCE_REPORTS_MAX, PresenceRecord, PresenceReport,
        ReportPresence,
    },
    query::{Found, Query},
};
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};
use tracing::debug;

use super::{Registry, RegistryError, door::Guest};
use crate::service::Inner;

/// Devices of one shard that this node has noticed lately: about 200 bytes each.
const NOTICED_PER_SHARD_MAX: usize = 1_000_000;
/// How long news are collected: a thousand devices that come at once go in four commands.
const COLLECT: Duration = Duration::from_millis(50);
/// How often it is looked for what is due.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// After how long a connected device is reported again, with when it was heard from.
const OPEN_AGAIN: Duration = Duration::from_secs(300);
/// After how long one that is heard from without a connection is reported again, at most.
const HEARD_AGAIN_MAX: Duration = Duration::from_secs(60);
/// And at least: a threshold of a second does not make a report for each request.
const HEARD_AGAIN_MIN: Duration = Duration::from_secs(1);
/// The pause before a shard is asked again that could not answer.
const AGAIN_PAUSE: Duration = Duration::from_millis(200);

type Whose = (TenantId, Text);

/// What this node knows of a device.
#[derive(Debug)]
struct Noticed {
    born: u64,
    /// Connections here.
    links: u32,
    /// One was opened since the last report.
    came: bool,
    /// When it was heard from, if that was not reported.
    heard: Option<Instant>,
    by: u8,
    credential: u64,
    offline_after_s: Option<u32>,
    /// It is in line to be reported.
    queued: bool,
    /// When it is to be looked at again.
    due: Option<Instant>,
}

impl Noticed {
    fn new(guest: &Guest) -> Self {
        let Guest { born, by, credential, offline_after_s, .. } = *guest;
        Self {
            born,
            links: 0,
            came: false,
            heard: None,
            by: by as u8,
            credential,
            offline_after_s,
            queued: false,
            due: None,
        }
    }

    /// How long what is heard of it may wait, with this threshold.
    fn again_after(&self, offline_after_s: u32) -> Duration {
        if self.links > 0 {
            return OPEN_AGAIN;
        }
        let quarter = Duration::from_millis(u64::from(offline_after_s) * 250);
        quarter.clamp(HEARD_AGAIN_MIN, HEARD_AGAIN_MAX)
    }
}

/// What a tenant wants of presence: its threshold, and how events of it are kept.
type Wanted = (u32, Option<Retention>);

#[derive(Debug, Default)]
struct Devices {
    all: HashMap<Whose, Noticed>,
    /// In line to be reported.
    line: VecDeque<Whose>,
    /// When whom is to be looked at again.
    due: BTreeSet<(Instant, TenantId, Text)>,
}

/// A report that is under way, and when its device was heard from.
struct Sent {
    report: PresenceReport,
    heard: Option<Instant>,
}

impl Devices {
    /// Takes note of a device; false if there is no room.
    fn notice(&mut self, guest: &Guest, change: impl FnOnce(&mut Noticed), at_once: bool) -> bool {
        let whose = (guest.tenant, guest.device.clone());
        if !self.all.contains_key(&whose) && self.all.len() >= NOTICED_PER_SHARD_MAX {
            return false;
        }
        let noticed = self.all.entry(whose.clone()).or_insert_with(|| Noticed::new(guest));
        if noticed.born != guest.born {
            let (due, queued) = (noticed.due, noticed.queued);
            *noticed = Noticed { due, queued, ..Noticed::new(guest) };
        }
        noticed.by = guest.by as u8;
        noticed.credential = guest.credential;
        noticed.offline_after_s = guest.offline_after_s;
        change(noticed);
        // What nobody looks at again was not reported lately.
        if at_once || noticed.due.is_none() {
            self.queue(whose);
        }
        true
    }

    fn queue(&mut self, whose: Whose) {
        let Some(noticed) = self.all.get_mut(&whose) else { return };
        if !noticed.queued {
            noticed.queued = true;
            self.line.push_back(whose);
        }
    }

    fn leave(&mut self, guest: &Guest) {
        let whose = (guest.tenant, guest.device.clone());
        let Some(noticed) = self.all.get_mut(&whose) else { return };
        if noticed.born == guest.born {
            noticed.links = noticed.links.saturating_sub(1);
            self.queue(whose);
        }
    }

    fn look_again(&mut self, whose: &Whose, at: Option<Instant>) {
        let Some(noticed) = self.all.get_mut(whose) else { return };
        if let Some(before) = std::mem::replace(&mut noticed.due, at) {
            self.due.remove(&(before, whose.0, whose.1.clone()));
        }
        self.due.extend(at.map(|at| (at, whose.0, whose.1.clone())));
    }

    /// The next reports.
    fn take(&mut self, now: Instant, mut wanted: impl FnMut(TenantId) -> Wanted) -> Vec<Sent> {
        let mut sent = Vec::new();
        while sent.len() < PRESENCE_REPORTS_MAX
            && let Some(whose) = self.line.pop_front()
        {
            let Some(noticed) = self.all.get_mut(&whose) else { continue };
            let (offline_after_s, events) = wanted(whose.0);
            let offline_after_s = noticed.offline_after_s.unwrap_or(offline_after_s);
            noticed.queued = false;
            let heard = noticed.heard.take();
            let ago = heard.map(|heard| now.saturating_duration_since(heard).as_millis());
            let report = PresenceReport {
                tenant: whose.0,
                device: whose.1.clone(),
                born: noticed.born,
                open: noticed.links > 0,
                came: std::mem::take(&mut noticed.came),
                heard_ago_ms: ago.map(|ago| u32::try_from(ago).unwrap_or(u32::MAX)),
                by: noticed.by,
                credential: noticed.credential,
                offline_after_s,
                events,
            };
            let again_at = now + noticed.again_after(offline_after_s);
            self.look_again(&whose, Some(again_at));
            sent.push(Sent { report, heard });
        }
        sent
    }

    /// Reports that were not taken, or of which that is not known, are in line again.
    fn again(&mut self, sent: Vec<Sent>) {
        for Sent { report, heard } in sent {
            let whose = (report.tenant, report.device);
            let Some(noticed) = self.all.get_mut(&whose) else { continue };
            if noticed.born == report.born {
                noticed.came |= report.came;
                noticed.heard = noticed.heard.max(heard);
                self.queue(whose);
            }
        }
    }

    /// What is due: a device that has something to report is in line, of any other nothing is known any more.
    fn look(&mut self, now: Instant) {
        while let Some((at, ..)) = self.due.first()
            && *at <= now
        {
            let Some((_, tenant, device)) = self.due.pop_first() else { return };
            let whose = (tenant, device);
            let Some(noticed) = self.all.get_mut(&whose) else { continue };
            noticed.due = None;
            if noticed.links > 0 || noticed.heard.is_some() {
                self.queue(whose);
            } else if !noticed.queued {
                self.all.remove(&whose);
            }
        }
    }

    /// Reports everybody who is connected.
    fn report_all(&mut self) {
        let open = self.all.iter().filter(|(_, noticed)| noticed.links > 0);
        let open: Vec<_> = open.map(|(whose, _)| whose.clone()).collect();
        open.into_iter().for_each(|whose| self.queue(whose));
    }
}

/// What this node has to report to one shard.
#[derive(Debug, Default)]
pub(crate) struct Reporter {
    devices: Mutex<Devices>,
    bell: Notify,
}

impl Reporter {
    fn devices(&self) -> MutexGuard<'_, Devices> {
        // Every change leaves a map and its indexes that fit.
        self.devices.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection of a device, until it is dropped.
#[derive(Debug)]
pub struct Present {
    inner: Arc<Inner>,
    guest: Guest,
}

impl Drop for Present {
    fn drop(&mut self) {
        let Some(reporter) = self.inner.reporter(self.guest.tenant, &self.guest.device) else {
            return;
        };
        reporter.devices().leave(&self.guest);
        reporter.bell.notify_one();
    }
}

impl Registry {
    /// A device has a connection here, until what this gives is dropped.
    #[must_use]
    pub fn arrive(&self, guest: &Guest) -> Present {
        let came = |noticed: &mut Noticed| {
            noticed.links += 1;
            noticed.came = true;
        };
        self.inner.notice(guest, came, true);
        Present { inner: Arc::clone(&self.inner), guest: guest.clone() }
    }

    /// A device was heard from.
    pub fn heard(&self, guest: &Guest) {
        let now = Instant::now();
        self.inner.notice(guest, |noticed| noticed.heard = Some(now), false);
    }

    /// What is known of the presence of devices: one for each, in order; `None` of those that were never heard from.
    ///
    /// # Errors
    ///
    /// [`RegistryError`].
    pub async fn presence(
        &self,
        tenant: TenantId,
        devices: &[Text],
    ) -> Result<Vec<Option<PresenceRecord>>, RegistryError> {
        let mut by_shard: HashMap<ShardId, Vec<usize>> = HashMap::new();
        for (place, device) in devices.iter().enumerate() {
            by_shard.entry(self.shard_of(tenant, device)).or_default().push(place);
        }
        let mut all = vec![None; devices.len()];
        for (shard, places) in by_shard {
            for places in places.chunks(PRESENCE_PER_QUESTION_MAX) {
                let asked = places.iter().map(|place| devices[*place].clone()).collect();
                let query = Query::Presence { tenant, devices: asked };
                let Found::Presence(found) = self.question(shard, &query).await? else {
                    return Err(RegistryError::Unavailable);
                };
                for (place, record) in places.iter().zip(found) {
                    all[*place] = record;
                }
            }
        }
        Ok(all)
    }
}

impl Inner {
    fn reporter(&self, tenant: TenantId, device: &Text) -> Option<&Reporter> {
        self.reporters.get(usize::from(self.shards.of(tenant, device.as_bytes()).0))
    }

    fn notice(&self, guest: &Guest, change: impl FnOnce(&mut Noticed), at_once: bool) {
        let Some(reporter) = self.reporter(guest.tenant, &guest.device) else { return };
        if reporter.devices().notice(guest, change, at_once) {
            reporter.bell.notify_one();
        } else {
            self.metrics.presence.dropped.inc();
        }
    }

    /// The cluster gave this process up for a while: it says again who is connected.
    pub(crate) fn report_presence_anew(&self) {
        for reporter in &self.reporters {
            reporter.devices().report_all();
            reporter.bell.notify_one();
        }
    }

    /// Tells a shard what there is to report, as long as the node runs.
    pub(crate) async fn keep_presence(self: Arc<Self>, shard: ShardId) {
        let Some(reporter) = self.reporters.get(usize::from(shard.0)) else { return };
        let registry = Registry::new(Arc::clone(&self));
        loop {
            if timeout(LOOK_INTERVAL, reporter.bell.notified()).await.is_ok() {
                sleep(COLLECT).await;
            }
            reporter.devices().look(Instant::now());
            loop {
                let mut tenants: HashMap<TenantId, Wanted> = HashMap::new();
                let sent = reporter.devices().take(Instant::now(), |tenant| {
                    *tenants.entry(tenant).or_insert_with(|| registry.wanted_presence(tenant))
                });
                if sent.is_empty() {
                    break;
                }
                let reports = sent.iter().map(|sent| sent.report.clone()).collect();
                let (node, incarnation) = (self.node, self.incarnation);
                let command = Command::Presence(ReportPresence { node, incarnation, reports });
                match self.below().router.ask(shard, &command).await {
                    Ok(_) => self.metrics.presence.reports.inc_by(sent.len() as u64),
                    Err(problem) => {
                        debug!(%shard, %problem, "presence was not taken");
                        reporter.devices().again(sent);
                        sleep(AGAIN_PAUSE).await;
                    }
                }
            }
        }
    }
}

impl Registry {
    fn wanted_presence(&self, tenant: TenantId) -> Wanted {
        let settings = self.settings(tenant);
        let events = settings.events.presence.then(|| settings.events.retention());
        (settings.offline_after_s, events)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::door::By, *};

    fn guest(device: &str, born: u64) -> Guest {
        Guest {
            tenant: TenantId(7),
            device: Text::from(device),
            born,
            credential: 1,
            by: By::Http,
            offline_after_s: Some(60),
        }
    }

    fn taken(devices: &mut Devices, now: Instant) -> Vec<PresenceReport> {
        let sent = devices.take(now, |_| (300, None));
        sent.into_iter().map(|sent| sent.report).collect()
    }

    fn opened(noticed: &mut Noticed) {
        noticed.links += 1;
        noticed.came = true;
    }

    #[test]
    fn what_is_heard_again_and_again_is_reported_seldom_and_in_the_end_with_its_time() {
        let (mut devices, began, whom) = (Devices::default(), Instant::now(), guest("d", 1));
        let at = |s| began + Duration::from_secs(s);
        let mut reports = Vec::new();
        for second in 0..40 {
            devices.notice(&whom, |noticed| noticed.heard = Some(at(second)), false);
            devices.look(at(second));
            reports.extend(taken(&mut devices, at(second)).into_iter().map(|one| (second, one)));
        }
        let when: Vec<_> = reports.iter().map(|(second, _)| *second).collect();
        assert_eq!(when, [0, 15, 30], "a quarter of its threshold");
        devices.look(at(45));
        let last = taken(&mut devices, at(45));
        assert_eq!(last[0].heard_ago_ms, Some(6_000), "what was heard at 39");
        devices.look(at(60));
        assert!(taken(&mut devices, at(60)).is_empty() && devices.all.is_empty());
        assert!(devices.due.is_empty());
    }

    #[test]
    fn a_connection_is_reported_at_once_and_again_after_a_while_until_it_is_gone() {
        let (mut devices, now, whom) = (Devices::default(), Instant::now(), guest("d", 1));
        devices.notice(&whom, opened, true);
        devices.notice(&whom, opened, true);
        let first = taken(&mut devices, now);
        assert_eq!((first.len(), first[0].open, first[0].came), (1, true, true));
        devices.leave(&whom);
        assert!(taken(&mut devices, now)[0].open, "the other one is there");
        devices.look(now + OPEN_AGAIN);
        let again = taken(&mut devices, now + OPEN_AGAIN);
        assert_eq!((again.len(), again[0].open, again[0].came), (1, true, false));
        devices.report_all();
        assert_eq!(taken(&mut devices, now).len(), 1);
        devices.leave(&whom);
        devices.leave(&whom);
        assert!(!taken(&mut devices, now)[0].open);
    }

    #[test]
    fn what_was_not_taken_is_reported_again_with_what_came_since() {
        let (mut devices, now, whom) = (Devices::default(), Instant::now(), guest("d", 1));
        devices.notice(&whom, opened, true);
        let sent = devices.take(now, |_| (300, None));
        devices.leave(&whom);
        devices.again(sent);
        let again = taken(&mut devices, now);
        assert_eq!((again.len(), again[0].open, again[0].came), (1, false, true));
    }

    #[test]
    fn a_later_device_of_a_name_is_another() {
        let (mut devices, now) = (Devices::default(), Instant::now());
        devices.notice(&guest("d", 1), opened, true);
        devices.notice(&guest("d", 2), opened, true);
        devices.leave(&guest("d", 1));
        let reports = taken(&mut devices, now);
        assert_eq!((reports.len(), reports[0].born, reports[0].open), (1, 2, true));
    }
}
