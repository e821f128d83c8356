//! One connection of a device: who it is, what goes over it, and why it ended.
//!
//! # Invariants
//!
//! - **Who says or is sent too much is banned and gone**: what it says afterwards counts no more.
//! - **That it came is noted before that it went**, and each once.
//! - **A ban is tried until it is kept or over**, also when the cluster is busy with what its device said. Checked by the cluster tests
//!   (`losant_limits.rs`).

use std::{
    fmt, mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use moorline_core::{
    Text,
    port::{Ended, Inbox, Notice},
    rights::Rules,
};
use moorline_dialects::losant::{
    device::Class,
    limits::{Ban, Direction, Meter},
    presence::{Change, Reason},
};
use moorline_edge::{Handed, asks};
use moorline_service::registry::{ASK_AGAIN, RegistryError};
use tokio::time::sleep;
use tracing::{debug, info};

use crate::{
    device::{Device, is_for_good},
    door::Door,
    pass::Known,
};

/// What a connection may say and hear, and what it costs to go beyond it. When it is now is an argument.
struct Allowance {
    /// The ban that its device had last.
    banned: Option<Ban>,
    meter: Meter,
}

impl Allowance {
    fn new(banned: Option<Ban>) -> Self {
        Self { banned, meter: Meter::default() }
    }

    /// Counts a message: the ban, if it is one too many.
    fn take(&mut self, direction: Direction, topic: &Text, now_ms: u64) -> Result<(), Ban> {
        let within = self.meter.take(direction, topic, now_ms);
        if within { Ok(()) } else { Err(Ban::after(self.banned, now_ms)) }
    }
}

/// How far a connection has come: it opens once, and ends once.
#[derive(Debug, Default)]
enum Stage {
    /// It may open.
    #[default]
    Before,
    /// It is open, since then.
    Open(i64),
    Over,
}

impl Stage {
    /// Whether it opens now.
    fn opens(&mut self, at_ms: i64) -> bool {
        let opens = matches!(self, Self::Before);
        if opens {
            *self = Self::Open(at_ms);
        }
        opens
    }

    /// Ends it: since when it was open, if it was.
    fn ends(&mut self) -> Option<i64> {
        match mem::replace(self, Self::Over) {
            Self::Open(began) => Some(began),
            Self::Before | Self::Over => None,
        }
    }
}

/// What a connection is, for all who have to do with it.
pub(crate) struct Visit {
    pub(crate) door: Door,
    pub(crate) device: Device,
    pub(crate) class: Class,
    /// Which custom topics it may use.
    pub(crate) rules: Rules,
    pub(crate) inbox: Arc<dyn Inbox>,
    allowance: Mutex<Allowance>,
    from_device: AtomicU64,
    to_device: AtomicU64,
    stage: Mutex<Stage>,
    why: Mutex<Option<Reason>>,
    over: AtomicBool,
    /// Mail that is on its way to the client.
    pub(crate) handed: Handed,
}

impl fmt::Debug for Visit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Visit").field("device", &self.device.id).finish_non_exhaustive()
    }
}

/// Counts what was not written: nobody waits for it.
fn noted(door: &Door, device: &Device, what: &'static str, written: Result<(), RegistryError>) {
    if let Err(error) = written {
        door.metrics.notes_failed.with_label_values(&[what]).inc();
        debug!(device = %device.id, %error, what, "not written");
    }
}

fn locked<T>(held: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change is one entry.
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Visit {
    pub(crate) fn new(
        door: Door,
        device: Device,
        (class, rules): (Class, Rules),
        banned: Option<Ban>,
        inbox: Arc<dyn Inbox>,
    ) -> Self {
        Self {
            door,
            device,
            class,
            rules,
            inbox,
            allowance: Mutex::new(Allowance::new(banned)),
            from_device: AtomicU64::new(0),
            to_device: AtomicU64::new(0),
            stage: Mutex::default(),
            why: Mutex::new(None),
            over: AtomicBool::new(false),
            handed: Handed::default(),
        }
    }

    /// Whether its device speaks for another one.
    pub(crate) fn speaks_for(&self, other: &Known) -> bool {
        other.record.enabled && other.about.is_spoken_for_by(self.class, &self.device.id)
    }

    /// Tells the client's connection.
    pub(crate) fn tell(&self, notice: Notice) {
        asks::tell(&self.inbox, notice);
    }

    /// Ends the connection.
    pub(crate) fn end(&self, why: Reason) {
        if self.over.swap(true, Ordering::Relaxed) {
            return;
        }
        let (ended, label) = match why {
            Reason::Limited => (Ended::Limited, Some("limits")),
            Reason::Topic => (Ended::Misused, Some("topic")),
            Reason::Misused => (Ended::Misused, Some("misused")),
            Reason::TooLarge => (Ended::TooLarge, Some("too_large")),
            Reason::Refused => (Ended::Revoked, Some("refused")),
            Reason::Revoked
            | Reason::Lost
            | Reason::Silent
            | Reason::Client
            | Reason::Elsewhere
            | Reason::Stopping => (Ended::Revoked, None),
        };
        if let Some(label) = label {
            self.door.metrics.ended.with_label_values(&[label]).inc();
        }
        self.ends(why);
        self.tell(Notice::Ended(ended));
    }

    /// It will end, for this reason, if it was none before.
    pub(crate) fn ends(&self, why: Reason) {
        locked(&self.why).get_or_insert(why);
    }

    /// Whether this side has ended it.
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Counts a message: false if it is one too many, and the connection over.
    pub(crate) fn may(&self, direction: Direction, topic: &Text) -> bool {
        if self.is_over() {
            return false;
        }
        match direction {
            Direction::Up => &self.from_device,
            Direction::Down => &self.to_device,
        }
        .fetch_add(1, Ordering::Relaxed);
        let taken = locked(&self.allowance).take(direction, topic, self.door.clock.wall().0);
        if let Err(ban) = taken {
            info!(device = %self.device.id, seconds = ban.seconds, "a device says or hears too much");
            self.ban(ban);
            self.end(Reason::Limited);
        }
        taken.is_ok()
    }

    /// In how long one more may be brought that nobody waits for; [`None`]: now.
    pub(crate) fn brought_in(&self, topic: &Text) -> Option<Duration> {
        let now_ms = self.door.clock.wall().0;
        let wait_ms = locked(&self.allowance).meter.brought_in(topic, now_ms)?;
        Some(Duration::from_millis(wait_ms))
    }

    /// Counts one that nobody waits for, if it may be brought now. It costs no ban.
    pub(crate) fn brings(&self, topic: &Text) -> bool {
        let may = locked(&self.allowance).meter.bring(topic, self.door.clock.wall().0);
        self.to_device.fetch_add(u64::from(may), Ordering::Relaxed);
        may
    }

    /// Keeps a ban with the device, for every node, and tells of it.
    fn ban(&self, ban: Ban) {
        let (door, device) = (self.door.clone(), self.device.clone());
        self.door.tasks.spawn(async move {
            while ban.lasts(door.clock.wall().0) {
                match door.keep_ban(&device, ban).await {
                    Err(error) if !is_for_good(&error) => sleep(ASK_AGAIN).await,
                    kept => {
                        noted(&door, &device, "ban", kept);
                        break;
                    }
                }
            }
            let told = door.tell_ban(&device, ban).await;
            noted(&door, &device, "ban_event", told);
        });
    }

    /// The session is open.
    pub(crate) fn opened(&self) {
        let at_ms = self.door.now_ms();
        // Held until it is noted: another thread may note the end meanwhile.
        let mut stage = locked(&self.stage);
        if !stage.opens(at_ms) {
            return;
        }
        self.door.metrics.connections.inc();
        self.note(&Change {
            connected: true,
            at_ms,
            connected_at_ms: None,
            reason: None,
            from_device: 0,
            to_device: 0,
            said: false,
        });
    }

    /// The connection is gone. Once is enough.
    pub(crate) fn gone(&self, why: Reason) {
        self.over.store(true, Ordering::Relaxed);
        let mut stage = locked(&self.stage);
        let Some(began) = stage.ends() else { return };
        self.door.metrics.connections.dec();
        let why = locked(&self.why).unwrap_or(why);
        self.note(&Change {
            connected: false,
            at_ms: self.door.now_ms(),
            connected_at_ms: Some(began),
            reason: Some(why.text().to_owned()),
            from_device: self.from_device.load(Ordering::Relaxed),
            to_device: self.to_device.load(Ordering::Relaxed),
            said: false,
        });
    }

    fn note(&self, change: &Change) {
        let written = self.door.note_connection(&self.device, change);
        let (door, device) = (self.door.clone(), self.device.clone());
        self.door.tasks.spawn(async move { noted(&door, &device, "connection", written.await) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Says as much as it may and one more, from a moment on: the ban.
    fn banned(before: Option<Ban>, at_ms: u64, direction: Direction, topics: usize) -> Ban {
        let mut allowance = Allowance::new(before);
        let topic = |at: usize| Text::from(format!("t/{}", at % topics));
        let mut said = 0;
        loop {
            match allowance.take(direction, &topic(said), at_ms) {
                Ok(()) => said += 1,
                Err(ban) => {
                    let most = if topics == 1 { 30 } else { 300 };
                    assert_eq!(said, most, "of {topics} topics");
                    return ban;
                }
            }
        }
    }

    #[test]
    fn who_says_or_hears_too_much_is_banned_and_for_longer_each_time() {
        const MINUTE: u64 = 60_000;
        #[rustfmt::skip]
        let table = [
            // direction, topics, when it happens again after the end of the last ban, how long the ban is
            (Direction::Up,   1,  0,               30),
            (Direction::Down, 1,  0,               60),
            (Direction::Up,   20, 14 * MINUTE,     120),
            (Direction::Down, 20, 15 * MINUTE - 1, 240),
            (Direction::Up,   1,  15 * MINUTE,     30),
        ];
        let (mut before, mut at_ms) = (None, 1_000);
        for (direction, topics, later, seconds) in table {
            at_ms += later;
            let ban = banned(before, at_ms, direction, topics);
            assert_eq!((ban.seconds, ban.until_ms), (seconds, at_ms + u64::from(seconds) * 1_000));
            assert!(ban.lasts(ban.until_ms - 1) && !ban.lasts(ban.until_ms));
            (before, at_ms) = (Some(ban), ban.until_ms);
        }
    }

    #[test]
    fn a_connection_opens_once_and_ends_once_in_that_order() {
        let mut stage = Stage::default();
        assert!(stage.opens(7) && !stage.opens(8));
        assert_eq!([stage.ends(), stage.ends()], [Some(7), None]);
        assert!(!stage.opens(9), "it is over");
        let mut never = Stage::default();
        assert_eq!(never.ends(), None);
        assert!(!never.opens(7), "its end came first");
    }

    #[test]
    fn windows_slide() {
        let (mut allowance, topic) = (Allowance::new(None), Text::from("t"));
        let mut take = |at_ms| allowance.take(Direction::Up, &topic, at_ms).is_ok();
        for at_ms in 0..30 {
            assert!(take(500 * at_ms), "two in a second, for 15 s");
        }
        assert!(!take(14_999) && take(15_000) && !take(15_000) && take(15_500));
    }
}
