//! Notes in a mail's history that it went out to its device, which nobody waits for.
//!
//! ```text
//!   a mail went out ─► pending ─┬─ it is settled here within NOTE_WAIT ─► noted by the settlement's own command
//!                               └─ else ─► a command of its own
//! ```
//!
//! A device settles a mail right after it got it. With a command of its own at once, the note would be synced while the
//! settlement waits behind it.
//!
//! # Invariants
//!
//! - **A mail that goes out again by the same protocol at the same node is noted once**, so that a device that asks again and again
//!   does not write history each time.
//! - **Bounded**: [`NOTED_MAX`]. Losing a note loses no mail: a history without it, or with one more.
//!
//! Checked by the tests of this file, and by the cluster tests (`fostrom.rs`).

use std::{
    collections::{HashMap, hash_map::Entry},
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use moorline_core::{TenantId, Text};
use moorline_machine::{
    Command,
    mail::{MailCommand, NoteDelivered},
};
use moorline_router::Done;
use tokio::time::sleep;

use super::{
    Registry,
    door::{By, Guest},
};

/// How long a note waits for the settlement. Longer than a device in the same building takes.
const NOTE_WAIT: Duration = Duration::from_millis(50);
/// Devices of which it is remembered which mail went out to them last. When there are more, all are forgotten: each costs
/// one note more.
const NOTED_MAX: usize = 65_536;

type Whose = (TenantId, Text);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Note {
    id: u128,
    by: By,
    pending: bool,
}

/// What went out to whom last.
#[derive(Debug, Default)]
pub(crate) struct Notes(Mutex<HashMap<Whose, Note>>);

/// What is to be done about a mail that went out.
#[derive(Debug, PartialEq, Eq)]
struct Went {
    /// This is pending now: look again after [`NOTE_WAIT`].
    news: bool,
    /// What was pending until now, and is to be written.
    before: Vec<(Whose, u128, By)>,
}

impl Notes {
    fn all(&self) -> MutexGuard<'_, HashMap<Whose, Note>> {
        // Every change is one entry.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn went_out(&self, whose: &Whose, id: u128, by: By) -> Went {
        let mut all = self.all();
        let mut before = Vec::new();
        if all.len() >= NOTED_MAX && !all.contains_key(whose) {
            let pending = mem::take(&mut *all).into_iter().filter(|(_, note)| note.pending);
            before.extend(pending.map(|(whose, Note { id, by, .. })| (whose, id, by)));
        }
        let note = Note { id, by, pending: true };
        match all.entry(whose.clone()) {
            Entry::Vacant(place) => {
                place.insert(note);
            }
            Entry::Occupied(mut place) => {
                let known = *place.get();
                if (known.id, known.by) == (id, by) {
                    return Went { news: false, before };
                }
                before.extend(known.pending.then(|| (whose.clone(), known.id, known.by)));
                place.insert(note);
            }
        }
        Went { news: true, before }
    }

    /// Takes the note of a mail, if it is pending: whoever has it writes it.
    fn take(&self, whose: &Whose, id: u128) -> Option<By> {
        let mut all = self.all();
        let note = all.get_mut(whose).filter(|note| note.id == id && note.pending)?;
        note.pending = false;
        Some(note.by)
    }
}

impl Registry {
    /// Takes note that a mail went out. Nobody waits for it.
    pub(super) fn note_delivered(&self, guest: &Guest, id: u128) {
        let whose = (guest.tenant, guest.device.clone());
        let Went { news, before } = self.inner.notes.went_out(&whose, id, guest.by);
        before.into_iter().for_each(|(whose, id, by)| self.write_note(whose, id, by));
        if !news {
            return;
        }
        let registry = self.clone();
        self.inner.tasks.spawn(async move {
            // A node that stops has no time for it.
            tokio::select! {
                () = registry.inner.stop.cancelled() => return,
                () = sleep(NOTE_WAIT) => {}
            }
            if let Some(by) = registry.inner.notes.take(&whose, id) {
                registry.write_note(whose, id, by);
            }
        });
    }

    /// Whether the settlement of a mail is to note that it went out: by the same protocol, a moment ago.
    pub(super) fn notes_with(&self, guest: &Guest, id: u128) -> bool {
        let whose = (guest.tenant, guest.device.clone());
        match self.inner.notes.take(&whose, id) {
            Some(by) if by == guest.by => true,
            Some(by) => {
                // In front of the settlement: commands to a shard keep their order.
                self.write_note(whose, id, by);
                false
            }
            None => false,
        }
    }

    /// The settlement that was to note it was refused, or nobody knows what became of it: the note is written on its own. If
    /// the settlement wrote it all the same, this one is left out where the mailbox is.
    pub(super) fn note_after_all(&self, guest: &Guest, id: u128) {
        self.write_note((guest.tenant, guest.device.clone()), id, guest.by);
    }

    fn write_note(&self, (tenant, device): Whose, id: u128, by: By) {
        let shard = self.shard_of(tenant, &device);
        let (by, detail) = (by as u8, Text::default());
        let note = MailCommand::NoteDelivered(NoteDelivered { tenant, device, id, by, detail });
        self.inner.below().router.submit(shard, &Command::Mail(note), Done::Ignore);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whose(number: usize) -> Whose {
        (TenantId(7), Text::from(format!("d{number}")))
    }

    const NEWS: Went = Went { news: true, before: Vec::new() };
    const KNOWN: Went = Went { news: false, before: Vec::new() };

    #[test]
    fn a_note_is_taken_once() {
        let notes = Notes::default();
        assert_eq!(notes.went_out(&whose(1), 1, By::Http), NEWS);
        assert_eq!(notes.went_out(&whose(1), 1, By::Http), KNOWN);
        assert_eq!(notes.take(&whose(1), 2), None, "another mail");
        assert_eq!(notes.take(&whose(2), 1), None, "another device");
        assert_eq!(notes.take(&whose(1), 1), Some(By::Http));
        assert_eq!(notes.take(&whose(1), 1), None);
        assert_eq!(notes.went_out(&whose(1), 1, By::Http), KNOWN, "it is written");
        assert_eq!(notes.went_out(&whose(1), 2, By::Http), NEWS);
    }

    #[test]
    fn a_note_that_gives_way_is_written() {
        let notes = Notes::default();
        assert_eq!(notes.went_out(&whose(1), 1, By::Http), NEWS);
        let before = vec![(whose(1), 1, By::Http)];
        assert_eq!(notes.went_out(&whose(1), 1, By::Mqtt), Went { news: true, before });
        let before = vec![(whose(1), 1, By::Mqtt)];
        assert_eq!(notes.went_out(&whose(1), 2, By::Mqtt), Went { news: true, before });
        assert_eq!(notes.take(&whose(1), 2), Some(By::Mqtt));
        assert_eq!(notes.went_out(&whose(1), 3, By::Mqtt), NEWS, "that one was taken");
    }

    #[test]
    fn so_many_devices_are_remembered_and_what_is_pending_is_written() {
        let notes = Notes::default();
        for number in 0..NOTED_MAX {
            assert_eq!(notes.went_out(&whose(number), 1, By::Http), NEWS);
        }
        assert!(notes.take(&whose(0), 1).is_some());
        assert_eq!(notes.went_out(&whose(1), 1, By::Http), KNOWN);
        let Went { news, before } = notes.went_out(&whose(NOTED_MAX), 1, By::Http);
        assert!(news);
        assert_eq!(before.len(), NOTED_MAX - 1);
        assert!(before.iter().all(|(of, ..)| *of != whose(0)));
        assert_eq!(notes.all().len(), 1);
    }
}
