//! What must hold whatever happens, one file each. Every one sees every event as it happens.
#![expect(clippy::wildcard_enum_match_arm, reason = "each is about a few kinds of events")]

mod acknowledged;
mod calm;
mod committed;
mod delivered;
mod digests;
mod fresh_reads;
mod genuine;
mod in_order;
mod leaders;
mod log_matching;
mod once;
mod one_owner;
mod promises;
mod repeats;
mod served;
mod session_present;
mod standing;

use std::fmt;

use crate::witness::Event;

/// One of them.
pub(crate) trait Invariant: Send {
    /// Its name in reports.
    fn name(&self) -> &'static str;
    /// Judges an event, with those before it.
    ///
    /// # Errors
    ///
    /// What is wrong.
    fn see(&mut self, event: &Event) -> Result<(), String>;
    /// How much it had to judge: something like `12 reads`.
    fn judged(&self) -> String;
    /// How much was promised and has not come yet.
    fn owed(&self) -> usize {
        0
    }
}

/// What was violated, and how.
#[derive(Debug, Clone)]
pub(crate) struct Violation {
    /// Which.
    pub(crate) invariant: &'static str,
    /// How.
    pub(crate) what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.what)
    }
}

/// All of them.
pub(crate) struct Invariants(Vec<Box<dyn Invariant>>);

impl Invariants {
    /// All but those of these names.
    pub(crate) fn without(blind: &[String]) -> Self {
        let mut all = Self(vec![
            Box::<promises::Promises>::default(),
            Box::<standing::Standing>::default(),
            Box::<leaders::Leaders>::default(),
            Box::<log_matching::LogMatching>::default(),
            Box::<committed::Committed>::default(),
            Box::<digests::Digests>::default(),
            Box::<fresh_reads::FreshReads>::default(),
            Box::<acknowledged::Acknowledged>::default(),
            Box::<calm::Calm>::default(),
            Box::<genuine::Genuine>::default(),
            Box::<in_order::InOrder>::default(),
            Box::<once::Once>::default(),
            Box::<one_owner::OneOwner>::default(),
            Box::<repeats::Repeats>::default(),
            Box::<session_present::SessionPresent>::default(),
            Box::<served::Served>::default(),
            Box::<delivered::Delivered>::default(),
        ]);
        all.0.retain(|invariant| !blind.iter().any(|name| name == invariant.name()));
        all
    }
}

impl fmt::Debug for Invariants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Invariants")
    }
}

impl Invariants {
    /// Shows an event to all of them.
    ///
    /// # Errors
    ///
    /// The first violation.
    pub(crate) fn see(&mut self, event: &Event) -> Result<(), Violation> {
        let mut first = Ok(());
        for invariant in &mut self.0 {
            let seen = invariant.see(event);
            let name = invariant.name();
            let seen = seen.map_err(|what| Violation { invariant: name, what });
            first = first.and(seen);
        }
        first
    }

    /// How much was promised and has not come yet.
    pub(crate) fn owed(&self) -> usize {
        self.0.iter().map(|invariant| invariant.owed()).sum()
    }

    /// How much they had to judge.
    pub(crate) fn coverage(&self) -> String {
        let judged: Vec<_> = self.0.iter().map(|invariant| invariant.judged()).collect();
        judged.join(", ")
    }
}
