//! Who changes the registry: noted around a request, put into its commands, read from all groups.
//!
//! ```text
//!   API ──as_actor(who, request)──► handler ──► Registry::ask ──► Audited { who, command } ──► the group's log
//! ```
//!
//! # Invariants
//!
//! - **Whatever is asked within [`as_actor`] has its actor**, since commands are only made in `Registry::ask`; what is asked
//!   elsewhere (by devices, by the cluster itself) is not audited. A task that is spawned is elsewhere.
//! - **One round trip**: the record is made by the command it is about.
//!
//! Checked by the cluster tests (`audit.rs`).

use std::sync::{Arc, OnceLock};

use futures_util::future::try_join_all;
use moorline_core::{ShardId, TenantId, Text};
use moorline_machine::{
    Command, MailCommand,
    audit::{AUDIT_PER_QUESTION_MAX, AUDIT_TEXT_BYTES_MAX, AuditRecord, Audited, AuditedBy},
    query::{Found, Query},
    registry::{DeleteDevice, NOBODY, PutDevice},
};

use super::{Registry, RegistryError};

tokio::task_local! {
    static ACTOR: Option<Actor>;
}

/// Whoever asks, as far as it is known.
#[derive(Debug, Clone)]
pub struct Actor {
    request: Text,
    request_id: u128,
    address: Text,
    who: Arc<OnceLock<Text>>,
}

impl Actor {
    /// A request whose actor has not proved who it is.
    #[must_use]
    pub fn of(request: &str, request_id: u128, address: &str) -> Self {
        let (request, address) = (cut(request), cut(address));
        Self { request, request_id, address, who: Arc::default() }
    }

    /// Who it turned out to be; [`None`] if it did not say.
    #[must_use]
    pub fn who(&self) -> Option<&Text> {
        self.who.get()
    }
}

/// At most as long as a record's text may be.
fn cut(text: &str) -> Text {
    let mut end = text.len().min(AUDIT_TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    Text::from(&text[..end])
}

/// The actor of this request, for what goes on behind it ([`as_actor`]).
#[must_use]
pub fn current() -> Option<Actor> {
    ACTOR.try_with(Clone::clone).ok().flatten()
}

/// Runs what an actor asks for.
pub async fn as_actor<F: Future>(actor: Option<Actor>, asked: F) -> F::Output {
    ACTOR.scope(actor, asked).await
}

/// Runs what has its record already.
pub(super) async fn without_record<F: Future>(asked: F) -> F::Output {
    ACTOR.scope(None, asked).await
}

/// The actor of this request has proved who it is.
pub fn identified(who: &str) {
    let note = |actor: &Option<Actor>| {
        // The first one counts.
        actor.as_ref().map(|actor| actor.who.set(cut(who)))
    };
    drop(ACTOR.try_with(note));
}

/// A record, and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditLine {
    /// Its group.
    pub group: ShardId,
    /// Its number there.
    pub number: u64,
    /// What it says.
    pub record: AuditRecord,
}

/// How far somebody has read the audit: a number for each group, the meta group first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditCursor(Vec<u64>);

impl AuditCursor {
    /// As somebody keeps it.
    #[must_use]
    pub fn written(&self) -> String {
        self.0.iter().map(|number| format!("{number:x}")).collect::<Vec<_>>().join(".")
    }
}

impl Registry {
    /// The beginning of the audit.
    #[must_use]
    pub fn audit_begin(&self) -> AuditCursor {
        AuditCursor(vec![0; usize::from(self.inner.shards.count()) + 1])
    }

    /// A cursor that somebody gives back; `None` if it is none of this cluster.
    #[must_use]
    pub fn audit_cursor(&self, text: &str) -> Option<AuditCursor> {
        let numbers: Option<Vec<_>> =
            text.split('.').map(|number| u64::from_str_radix(number, 16).ok()).collect();
        numbers.map(AuditCursor).filter(|cursor| cursor.0.len() == self.audit_begin().0.len())
    }

    /// A page of the audit of one tenant or of all, the oldest first; where the next one begins, and whether there is one. Groups have
    /// clocks of their own, and what one has more of than fits comes with the next page: the order of time is about right.
    ///
    /// # Errors
    ///
    /// [`RegistryError`].
    pub async fn audit(
        &self,
        tenant: Option<TenantId>,
        after: &AuditCursor,
        items_max: usize,
    ) -> Result<(Vec<AuditLine>, AuditCursor, bool), RegistryError> {
        let most = u16::try_from(items_max.min(AUDIT_PER_QUESTION_MAX)).unwrap_or(u16::MAX);
        let ask = |(group, after): (u16, &u64)| {
            let (group, query) =
                (ShardId(group), Query::Audit { tenant, after: *after, items_max: most });
            async move {
                let found = self.question(group, &query).await?;
                let Found::Audit(page) = found else { return Err(RegistryError::Unavailable) };
                Ok((group, page))
            }
        };
        let pages = try_join_all((0..).zip(&after.0).map(ask)).await?;
        let (mut lines, mut next, mut more) = (Vec::new(), after.clone(), false);
        for (group, page) in pages {
            next.0[usize::from(group.0)] = page.upto;
            more |= page.more;
            let of_group = page.records.into_iter();
            lines.extend(of_group.map(|(number, record)| AuditLine { group, number, record }));
        }
        lines.sort_by_key(|line| (line.record.at, line.group, line.number));
        // What does not fit is read again: from before the first of its group that is left over.
        for left in lines.iter().skip(items_max).rev() {
            next.0[usize::from(left.group.0)] = left.number - 1;
            more = true;
        }
        lines.truncate(items_max);
        Ok((lines, next, more))
    }

    /// A command with its actor, if it is one that is audited.
    pub(super) fn with_actor(&self, command: Command) -> Command {
        let Some(Actor { request, request_id, address, who }) = current() else { return command };
        if !is_audited(&command) {
            return command;
        }
        let actor = who.get().cloned().unwrap_or_default();
        let by = AuditedBy { actor, request, request_id, address, node: self.inner.node };
        Command::Audited(Box::new(Audited { by, command }))
    }
}

fn is_audited(command: &Command) -> bool {
    if let Command::PutDevice(PutDevice { tenant, .. })
    | Command::DeleteDevice(DeleteDevice { tenant, .. }) = command
    {
        return *tenant != NOBODY;
    }
    matches!(
        command,
        Command::PutTenant(_)
            | Command::DeleteTenant(_)
            | Command::Mail(MailCommand::Cancel(_) | MailCommand::Purge(_))
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_its_letters() {
        assert_eq!(cut("short").as_str(), "short");
        let long = "ü".repeat(AUDIT_TEXT_BYTES_MAX);
        assert_eq!(cut(&format!("a{long}")).len(), AUDIT_TEXT_BYTES_MAX - 1);
    }

    #[tokio::test]
    async fn an_actor_is_known_within_its_request_and_nowhere_else() {
        let actor = Actor::of("GET /", 1, "::1");
        let known = || ACTOR.try_with(|actor| actor.is_some()).unwrap_or(false);
        assert!(!known());
        as_actor(Some(actor.clone()), async {
            assert!(known());
            identified("0/root");
            identified("0/other");
            without_record(async { assert!(!known()) }).await;
            assert!(known());
        })
        .await;
        assert_eq!(actor.who().map(Text::as_str), Some("0/root"));
    }
}
