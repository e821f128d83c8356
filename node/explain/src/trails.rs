//! The rings of a node's devices.
//!
//! # Invariants
//!
//! - **Bytes are counted, and have a limit**: rings, their names, what they have room for and the texts of their notes. Above seven
//!   eighths of it each new note costs its ring two old ones; above all of it a ring gets a note only for one of its own.
//!   Checked by `tests/it.rs`.
//! - **A ring counts what it gives back when it goes**, whoever holds it last.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    mem::size_of,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use moorline_core::{Offset, TenantId, Text, UnixMillis};

use crate::{Became, Cause, Fingerprint, Note, Place, ROUTES_MAX, Route, Stage};

/// Locks among which devices are spread.
const PARTS: usize = 16;
/// Of a part's rings, how many are to be made between two searches for quiet ones: one of so many, so that what a search costs is
/// spread among those for whom it is made.
const SEARCH_EACH: usize = 32;
/// How far back it is looked for what strangers did before, and how many notes of one kind they may have there: at most a quarter of a
/// ring is theirs.
const STRANGERS_BACK: usize = 8;
const STRANGERS_MAX: usize = 2;
/// Stands for the addresses that have no note of their own.
const AND_OTHERS: &str = ", and others";
/// What a ring takes beside its notes and its name, in the table and out of it.
const RING_BYTES: usize = size_of::<Ring>() + 2 * size_of::<(Key, Trail)>() + 32;

/// How much a node remembers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Devices. Those that were quiet for longest are forgotten first, but none that is connected here: where more are, more
    /// are remembered, each with fewer notes. 0: nothing is.
    pub devices: usize,
    /// Notes of one device.
    pub notes: usize,
    /// Bytes of all of them.
    pub bytes: usize,
}

impl Default for Limits {
    /// What twenty thousand devices did last: about sixteen notes of each if all are busy, and 48 if a third are.
    fn default() -> Self {
        Self { devices: 20_000, notes: 48, bytes: 64 * 1024 * 1024 }
    }
}

/// What a node remembers now, and what it has forgotten.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Held {
    /// Devices with a ring.
    pub devices: usize,
    /// About the bytes of all rings.
    pub bytes: usize,
    /// Notes that were made.
    pub noted: u64,
    /// Notes that made room for newer ones of their device.
    pub forgotten_notes: u64,
    /// Notes that were not taken, since all room is taken and their device had none to give.
    pub refused_notes: u64,
    /// Rings of quiet devices that made room for others.
    pub forgotten_devices: u64,
}

/// What all rings share.
#[derive(Debug, Default)]
struct Totals {
    bytes_max: usize,
    bytes: AtomicUsize,
    /// Counts what is noted; also tells which ring was touched last.
    clock: AtomicU64,
    noted: AtomicU64,
    forgotten_notes: AtomicU64,
    refused_notes: AtomicU64,
    forgotten_devices: AtomicU64,
}

impl Totals {
    fn is_tight(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) > self.bytes_max - self.bytes_max / 8
    }

    fn is_full(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) >= self.bytes_max
    }

    fn charge(&self, before: usize, after: usize) {
        if after >= before {
            self.bytes.fetch_add(after - before, Ordering::Relaxed);
        } else {
            self.bytes.fetch_sub(before - after, Ordering::Relaxed);
        }
    }
}

/// One device's ring. Cheap to clone; every clone writes to the same.
#[derive(Debug, Clone)]
pub struct Trail(Arc<Ring>);

#[derive(Debug)]
struct Ring {
    notes: Mutex<Notes>,
    most: usize,
    /// When it was last written to, as the node's clock of notes says.
    touched: AtomicU64,
    totals: Arc<Totals>,
    /// What it takes without any note.
    own_bytes: usize,
}

#[derive(Debug, Default)]
struct Notes {
    all: VecDeque<Note>,
    /// What their texts and routes take.
    heap_bytes: usize,
}

impl Notes {
    fn bytes(&self) -> usize {
        self.all.capacity() * size_of::<Note>() + self.heap_bytes
    }

    fn push(&mut self, note: Note) {
        self.heap_bytes += note.heap_bytes();
        self.all.push_back(note);
    }

    fn forget_first(&mut self) -> bool {
        let Some(first) = self.all.pop_front() else { return false };
        self.heap_bytes -= first.heap_bytes();
        true
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        let notes = self.notes.get_mut().unwrap_or_else(PoisonError::into_inner);
        self.totals.charge(notes.bytes() + self.own_bytes, 0);
    }
}

impl Trail {
    fn new(most: usize, totals: &Arc<Totals>, name: &Text) -> Self {
        let own_bytes = RING_BYTES + name.len();
        totals.charge(0, own_bytes);
        Self(Arc::new(Ring {
            notes: Mutex::default(),
            most,
            touched: AtomicU64::new(totals.clock.load(Ordering::Relaxed)),
            totals: Arc::clone(totals),
            own_bytes,
        }))
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        // A note is pushed whole.
        self.0.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more note.
    pub fn add(&self, note: Note) {
        self.push(&mut self.notes(), note);
    }

    fn push(&self, notes: &mut Notes, note: Note) {
        let totals = &self.0.totals;
        let now = totals.clock.fetch_add(1, Ordering::Relaxed);
        self.0.touched.store(now, Ordering::Relaxed);
        totals.noted.fetch_add(1, Ordering::Relaxed);
        let before = notes.bytes();
        let goes = match (notes.all.len() >= self.0.most, totals.is_tight()) {
            (_, true) => 2,
            (true, false) => 1,
            (false, false) => 0,
        };
        let gone = (0..goes).filter(|_| notes.forget_first()).count();
        totals.forgotten_notes.fetch_add(gone as u64, Ordering::Relaxed);
        if gone == 0 && totals.is_full() {
            totals.refused_notes.fetch_add(1, Ordering::Relaxed);
        } else {
            notes.push(note);
        }
        if goes == 2 && notes.all.capacity() > 2 * notes.all.len() {
            let len = notes.all.len();
            notes.all.shrink_to(len);
        }
        totals.charge(before, notes.bytes());
    }

    /// What a note waited for has come: it was the last of this connection and stage with this token. Whether it was still there.
    pub fn became(
        &self,
        conn: u64,
        stage: Stage,
        token: u64,
        now: UnixMillis,
        became: Became,
    ) -> bool {
        let mut notes = self.notes();
        let waits = notes.all.iter_mut().rev().find(|note| {
            note.became == Became::Waiting
                && (note.conn, note.stage, note.token) == (conn, stage, token)
        });
        let Some(note) = waits else { return false };
        note.became = exactly(became, &note.routes);
        let took = now.0.saturating_sub(note.at_ms).saturating_mul(1_000);
        note.took_us.get_or_insert(u32::try_from(took).unwrap_or(u32::MAX));
        true
    }

    /// What became of a publish that nobody answers: the last of this connection with this token.
    pub fn passed(&self, conn: u64, token: u64, became: Became) {
        let mut notes = self.notes();
        let publish =
            notes.all.iter_mut().rev().find(|note| {
                note.stage == Stage::Publish && (note.conn, note.token) == (conn, token)
            });
        if let Some(note) = publish {
            note.became = became;
        }
    }

    /// A publish went to one more place: the last of this connection with this token. Nothing happens if it is gone.
    pub fn routed(&self, conn: u64, token: u64, route: Route) {
        let mut notes = self.notes();
        let before = notes.bytes();
        let publish =
            notes.all.iter_mut().rev().find(|note| {
                note.stage == Stage::Publish && (note.conn, note.token) == (conn, token)
            });
        let Some(note) = publish else { return };
        let heap_before = note.heap_bytes();
        note.count = note.count.saturating_add(1);
        if note.routes.len() < ROUTES_MAX {
            if note.routes.is_empty() {
                // Most have one.
                note.routes.reserve_exact(1);
            }
            note.routes.push(route);
        }
        let heap_after = note.heap_bytes();
        notes.heap_bytes = notes.heap_bytes + heap_after - heap_before;
        self.0.totals.charge(before, notes.bytes());
    }

    /// What waits with this token was put into a stream, there.
    pub fn stored(&self, stage: Stage, token: u64, offset: Offset, route: Route) {
        let mut notes = self.notes();
        let before = notes.bytes();
        let waits = notes.all.iter_mut().rev().find(|note| {
            note.became == Became::Waiting
                && (note.conn, note.stage, note.token) == (0, stage, token)
        });
        let Some(note) = waits else { return };
        let heap_before = note.heap_bytes();
        note.offset = Some(offset.0);
        note.routes.reserve_exact(1);
        note.routes.push(route);
        let heap_after = note.heap_bytes();
        notes.heap_bytes = notes.heap_bytes + heap_after - heap_before;
        self.0.totals.charge(before, notes.bytes());
    }

    /// A connection ended: what still waited is said to have had no answer, and deliveries no acknowledgement.
    pub fn ended(&self, conn: u64) {
        let mut notes = self.notes();
        let of_conn = notes.all.iter_mut().filter(|note| note.conn == conn);
        for note in of_conn.filter(|note| note.became == Became::Waiting) {
            note.became = Became::DoneBut(if note.stage == Stage::Deliver {
                Cause::Unacknowledged
            } else {
                Cause::ConnectionEnded
            });
        }
    }

    /// Adds to the count of the last note, if that is of this connection and stage and became the same; else it is a new one.
    pub fn count(&self, note: Note) {
        self.merged(note, |last, note| {
            (last.conn, last.stage, last.became) == (note.conn, note.stage, note.became)
        });
    }

    /// The same of a note that says the same as the last, which has another `count` than 0 then: what somebody does over and over must
    /// not push out how it began.
    pub fn again(&self, note: Note) {
        let note = Note { count: note.count.max(1), ..note };
        if note.stage == Stage::Authenticate && matches!(note.became, Became::Refused(_)) {
            self.stranger(note);
        } else {
            self.merged(note, Note::says_as);
        }
    }

    /// Somebody says to be this device and is not believed. Whoever knows its name can do so from many addresses, between all that the
    /// device does itself: that must not push out what it did.
    fn stranger(&self, note: Note) {
        let mut notes = self.notes();
        let before = notes.bytes();
        let is_like = |of: &&mut Note| (of.stage, of.became) == (note.stage, note.became);
        let mut like: Vec<&mut Note> =
            notes.all.iter_mut().rev().take(STRANGERS_BACK).filter(is_like).collect();
        if let Some(same) = like.iter_mut().find(|of| of.about == note.about) {
            same.take_in(&note);
            return;
        }
        let crowded = like.len() >= STRANGERS_MAX;
        let Some(last) = like.into_iter().next().filter(|_| crowded) else {
            return self.push(&mut notes, note);
        };
        last.take_in(&note);
        let heap_before = last.heap_bytes();
        if !last.about.ends_with(AND_OTHERS) {
            last.about.push_str(AND_OTHERS);
        }
        let heap_after = last.heap_bytes();
        notes.heap_bytes = notes.heap_bytes + heap_after - heap_before;
        self.0.totals.charge(before, notes.bytes());
    }

    fn merged(&self, note: Note, is_same: impl Fn(&Note, &Note) -> bool) {
        let mut notes = self.notes();
        match notes.all.back_mut() {
            Some(last) if is_same(last, &note) => last.take_in(&note),
            _ => self.push(&mut notes, note),
        }
    }

    /// What there is since then, the oldest first. What began before and went on after it is there, too.
    #[must_use]
    pub fn since(&self, since: UnixMillis) -> Vec<Note> {
        self.notes().all.iter().filter(|note| note.last() >= since).cloned().collect()
    }
}

/// What all places come to does not say whose room it was that was missing, nor that what nobody hears now is kept for later.
fn exactly(became: Became, routes: &[Route]) -> Became {
    let kept = Became::Refused(Cause::RetainedFull);
    let is_kept = |route: &Route| route.became == kept;
    let is_full = became == Became::Refused(Cause::QueueFull);
    let is_later =
        |route: &Route| matches!((route.place, route.became), (Place::Kept(_), Became::Done));
    let is_unheard = became == Became::DoneBut(Cause::NobodyListens);
    if is_full && routes.iter().any(is_kept) {
        kept
    } else if is_unheard && routes.iter().any(is_later) {
        Became::Done
    } else {
        became
    }
}

type Key = (TenantId, Text);

/// Devices with one lock.
#[derive(Debug, Default)]
struct Part {
    rings: HashMap<Key, Trail>,
    /// Devices without a ring that have come since quiet ones were looked for.
    missed: usize,
}

/// What a node remembers of its devices.
#[derive(Debug)]
pub struct Trails {
    parts: Vec<Mutex<Part>>,
    limits: Limits,
    totals: Arc<Totals>,
}

impl Trails {
    /// Nothing is remembered yet.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            parts: (0..PARTS).map(|_| Mutex::default()).collect(),
            limits,
            totals: Arc::new(Totals { bytes_max: limits.bytes, ..Totals::default() }),
        }
    }

    fn part(&self, tenant: TenantId, device: &Text) -> MutexGuard<'_, Part> {
        let place = Fingerprint::of(&tenant.0.to_le_bytes(), device.as_bytes()).0;
        let part = usize::try_from(place % PARTS as u64).unwrap_or_default();
        self.parts[part].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A device's ring, for as long as its connection lasts. `None`: nothing is to be remembered.
    #[must_use]
    pub fn of(&self, tenant: TenantId, device: &Text) -> Option<Trail> {
        if self.limits.devices == 0 || self.limits.notes == 0 || self.limits.bytes == 0 {
            return None;
        }
        let mut part = self.part(tenant, device);
        if let Some(trail) = part.rings.get(&(tenant, device.clone())) {
            return Some(trail.clone());
        }
        let held = part.rings.len();
        part.missed += 1;
        let is_crowded = held >= self.limits.devices.div_ceil(PARTS) || self.totals.is_tight();
        // Where most are connected there is little to find: not each new one looks for it.
        if is_crowded && part.missed > held / SEARCH_EACH {
            let came = std::mem::take(&mut part.missed);
            let gone = forget_quiet(&mut part.rings, came);
            self.totals.forgotten_devices.fetch_add(gone as u64, Ordering::Relaxed);
        }
        if self.totals.is_full() {
            // Those that are here have notes to give for new ones; this one has none.
            self.totals.refused_notes.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        // A copy: the text may be a slice of a packet, which would be kept with it.
        let name = Text::from(device.as_str());
        let trail = Trail::new(self.limits.notes, &self.totals, &name);
        part.rings.insert((tenant, name), trail.clone());
        Some(trail)
    }

    /// A device's ring, if it has one.
    #[must_use]
    pub fn known(&self, tenant: TenantId, device: &Text) -> Option<Trail> {
        self.part(tenant, device).rings.get(&(tenant, device.clone())).cloned()
    }

    /// A token that no other note has which no connection wrote.
    #[must_use]
    pub fn token(&self) -> u64 {
        self.totals.clock.fetch_add(1, Ordering::Relaxed)
    }

    /// One note of a device that has no connection at hand.
    pub fn add(&self, tenant: TenantId, device: &Text, note: Note) {
        if let Some(trail) = self.of(tenant, device) {
            trail.add(note);
        }
    }

    /// The same of what may happen over and over: see [`Trail::again`].
    pub fn again(&self, tenant: TenantId, device: &Text, note: Note) {
        if let Some(trail) = self.of(tenant, device) {
            trail.again(note);
        }
    }

    /// What is remembered of a device since then, the oldest first.
    #[must_use]
    pub fn since(&self, tenant: TenantId, device: &Text, since: UnixMillis) -> Vec<Note> {
        self.known(tenant, device).map(|trail| trail.since(since)).unwrap_or_default()
    }

    /// Whom of a tenant's devices a message touched since then, and how: at most so many notes, and how many more there are.
    ///
    /// This looks at each ring: not for a thread that others wait for.
    #[must_use]
    pub fn message(
        &self,
        tenant: TenantId,
        message: Fingerprint,
        since: UnixMillis,
        most: usize,
    ) -> (Vec<(Text, Note)>, u64) {
        let mut found: BTreeMap<(u64, Text), Vec<Note>> = BTreeMap::new();
        let (mut left, mut more) = (most, 0);
        let is_it = |note: &&Note| note.message == Some(message) && note.last() >= since;
        for part in &self.parts {
            let part = part.lock().unwrap_or_else(PoisonError::into_inner);
            for ((owner, device), trail) in
                part.rings.iter().filter(|((owner, _), _)| *owner == tenant)
            {
                debug_assert_eq!(*owner, tenant);
                for note in trail.notes().all.iter().filter(is_it) {
                    if left == 0 {
                        more += 1;
                        continue;
                    }
                    left -= 1;
                    found.entry((note.at_ms, device.clone())).or_default().push(note.clone());
                }
            }
        }
        let found = found.into_iter().flat_map(|((_, device), notes)| {
            notes.into_iter().map(move |note| (device.clone(), note))
        });
        (found.collect(), more)
    }

    /// How many devices are remembered.
    #[must_use]
    pub fn devices(&self) -> usize {
        self.parts
            .iter()
            .map(|part| part.lock().unwrap_or_else(PoisonError::into_inner).rings.len())
            .sum()
    }

    /// How much is remembered and was forgotten.
    #[must_use]
    pub fn held(&self) -> Held {
        let Totals { bytes_max: _, bytes, clock: _, noted, .. } = &*self.totals;
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Held {
            devices: self.devices(),
            bytes: bytes.load(Ordering::Relaxed),
            noted: of(noted),
            forgotten_notes: of(&self.totals.forgotten_notes),
            refused_notes: of(&self.totals.refused_notes),
            forgotten_devices: of(&self.totals.forgotten_devices),
        }
    }
}

/// Forgets an eighth of a part's devices, those that were quiet for longest, so that it is not looked for at each new one: how many.
/// Those of connections that last stay: what they add would be seen by nobody.
///
/// At least as many go as came since: what is held does not grow by more than is searched for at once.
fn forget_quiet(part: &mut HashMap<Key, Trail>, came: usize) -> usize {
    let at = |trail: &Trail| trail.0.touched.load(Ordering::Relaxed);
    let gone = part.values().filter(|trail| Arc::strong_count(&trail.0) == 1);
    let mut touched: Vec<u64> = gone.map(at).collect();
    if touched.is_empty() {
        return 0;
    }
    let goes = (touched.len() / 8).max(came.saturating_sub(1)).min(touched.len() - 1);
    let (_, border, _) = touched.select_nth_unstable(goes);
    let border = *border;
    let before = part.len();
    part.retain(|_, trail| Arc::strong_count(&trail.0) > 1 || at(trail) > border);
    before - part.len()
}
