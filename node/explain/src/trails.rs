//! The rings of a node's devices.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use moorline_core::{TenantId, Text, UnixMillis};

use crate::{Became, Fingerprint, Note, Stage};

/// Locks among which devices are spread.
const PARTS: usize = 16;

/// How much a node remembers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Devices. Those that were quiet for longest are forgotten first, but none that is connected here: where more are, more
    /// are remembered. 0: nothing is.
    pub devices: usize,
    /// Notes of one device.
    pub notes: usize,
}

impl Default for Limits {
    /// What twenty thousand devices do in a few minutes, in some tens of MiB.
    fn default() -> Self {
        Self { devices: 20_000, notes: 48 }
    }
}

/// One device's ring. Cheap to clone; every clone writes to the same.
#[derive(Debug, Clone)]
pub struct Trail(Arc<Ring>);

#[derive(Debug)]
struct Ring {
    notes: Mutex<VecDeque<Note>>,
    most: usize,
    /// When it was last written to, as the node's count of notes says.
    touched: AtomicU64,
    clock: Arc<AtomicU64>,
}

impl Trail {
    fn notes(&self) -> MutexGuard<'_, VecDeque<Note>> {
        // A note is pushed whole.
        self.0.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more note.
    pub fn add(&self, note: Note) {
        let now = self.0.clock.fetch_add(1, Ordering::Relaxed);
        self.0.touched.store(now, Ordering::Relaxed);
        let mut notes = self.notes();
        if notes.len() >= self.0.most {
            notes.pop_front();
        }
        notes.push_back(note);
    }

    /// What a note waited for has come: it was the last of this connection and stage with this token. Nothing happens if it is gone.
    pub fn became(&self, conn: u64, stage: Stage, token: u64, now: UnixMillis, became: Became) {
        let mut notes = self.notes();
        let waits = notes.iter_mut().rev().find(|note| {
            note.became == Became::Waiting
                && (note.conn, note.stage, note.token) == (conn, stage, token)
        });
        if let Some(note) = waits {
            note.became = became;
            let took = now.0.saturating_sub(note.at_ms).saturating_mul(1_000);
            note.took_us.get_or_insert(u32::try_from(took).unwrap_or(u32::MAX));
        }
    }

    /// Adds to the count of the last note, if that is of this connection and stage and became done; else it is a new one.
    pub fn count(&self, note: Note) {
        {
            let mut notes = self.notes();
            if let Some(last) = notes.back_mut()
                && (last.conn, last.stage, last.became) == (note.conn, note.stage, note.became)
            {
                last.count = last.count.saturating_add(note.count);
                return;
            }
        }
        self.add(note);
    }

    /// What there is since then, the oldest first.
    #[must_use]
    pub fn since(&self, since: UnixMillis) -> Vec<Note> {
        self.notes().iter().filter(|note| note.at_ms >= since.0).cloned().collect()
    }
}

type Key = (TenantId, Text);

/// What a node remembers of its devices.
#[derive(Debug)]
pub struct Trails {
    parts: Vec<Mutex<HashMap<Key, Trail>>>,
    limits: Limits,
    clock: Arc<AtomicU64>,
}

impl Trails {
    /// Nothing is remembered yet.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            parts: (0..PARTS).map(|_| Mutex::default()).collect(),
            limits,
            clock: Arc::default(),
        }
    }

    fn part(&self, tenant: TenantId, device: &Text) -> MutexGuard<'_, HashMap<Key, Trail>> {
        let place = Fingerprint::of(&tenant.0.to_le_bytes(), device.as_bytes()).0;
        let part = usize::try_from(place % PARTS as u64).unwrap_or_default();
        self.parts[part].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A device's ring, for as long as its connection lasts. `None`: nothing is to be remembered.
    #[must_use]
    pub fn of(&self, tenant: TenantId, device: &Text) -> Option<Trail> {
        if self.limits.devices == 0 || self.limits.notes == 0 {
            return None;
        }
        let mut part = self.part(tenant, device);
        if let Some(trail) = part.get(&(tenant, device.clone())) {
            return Some(trail.clone());
        }
        if part.len() >= self.limits.devices.div_ceil(PARTS) {
            forget_quiet(&mut part);
        }
        let ring = Ring {
            notes: Mutex::default(),
            most: self.limits.notes,
            touched: AtomicU64::new(self.clock.load(Ordering::Relaxed)),
            clock: Arc::clone(&self.clock),
        };
        let trail = Trail(Arc::new(ring));
        // A copy: the text may be a slice of a packet, which would be kept with it.
        part.insert((tenant, Text::from(device.as_str())), trail.clone());
        Some(trail)
    }

    /// A token that no other note has which no connection wrote.
    #[must_use]
    pub fn token(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::Relaxed)
    }

    /// One note of a device that has no connection at hand.
    pub fn add(&self, tenant: TenantId, device: &Text, note: Note) {
        if let Some(trail) = self.of(tenant, device) {
            trail.add(note);
        }
    }

    /// What is remembered of a device since then, the oldest first.
    #[must_use]
    pub fn since(&self, tenant: TenantId, device: &Text, since: UnixMillis) -> Vec<Note> {
        let trail = self.part(tenant, device).get(&(tenant, device.clone())).cloned();
        trail.map(|trail| trail.since(since)).unwrap_or_default()
    }

    /// Whom of a tenant's devices a message touched, and how: at most so many notes.
    #[must_use]
    pub fn message(
        &self,
        tenant: TenantId,
        message: Fingerprint,
        most: usize,
    ) -> Vec<(Text, Note)> {
        let mut found: BTreeMap<(u64, Text), Vec<Note>> = BTreeMap::new();
        let mut left = most;
        for part in &self.parts {
            let part = part.lock().unwrap_or_else(PoisonError::into_inner);
            for ((owner, device), trail) in part.iter().filter(|((owner, _), _)| *owner == tenant) {
                debug_assert_eq!(*owner, tenant);
                for note in trail.notes().iter().filter(|note| note.message == Some(message)) {
                    if left == 0 {
                        break;
                    }
                    left -= 1;
                    found.entry((note.at_ms, device.clone())).or_default().push(note.clone());
                }
            }
        }
        found
            .into_iter()
            .flat_map(|((_, device), notes)| {
                notes.into_iter().map(move |note| (device.clone(), note))
            })
            .collect()
    }

    /// How many devices are remembered.
    #[must_use]
    pub fn devices(&self) -> usize {
        self.parts
            .iter()
            .map(|part| part.lock().unwrap_or_else(PoisonError::into_inner).len())
            .sum()
    }
}

/// Forgets an eighth of a part's devices, those that were quiet for longest, so that it is not looked for at each new one. Those of
/// connections that last stay: what they add would be seen by nobody.
fn forget_quiet(part: &mut HashMap<Key, Trail>) {
    let at = |trail: &Trail| trail.0.touched.load(Ordering::Relaxed);
    let gone = part.values().filter(|trail| Arc::strong_count(&trail.0) == 1);
    let mut touched: Vec<u64> = gone.map(at).collect();
    if touched.is_empty() {
        return;
    }
    let eighth = touched.len() / 8;
    let (_, border, _) = touched.select_nth_unstable(eighth);
    let border = *border;
    part.retain(|_, trail| Arc::strong_count(&trail.0) > 1 || at(trail) > border);
}
