//! The registry as a node's API and its edges see it: tenants, devices, credentials, mail, events, values, calls.
//!
//! ```text
//!   writes   Registry ─► router ─► the group's leader ─► log        (commands of `moorline_machine`)
//!   reads    Registry ─► the shard's leader: barrier, rows          (`ask.rs`; linearizable)
//!            tenants: the rows of the meta group here                (every node has them)
//! ```
//!
//! # Invariants
//!
//! - **A read that begins after a write was answered sees it, on whichever node.** Tenants are the exception: a node sees a
//!   write to one when it has applied it, a moment later; its own writes at once.
//! - **No secret reaches a command**: only what `secrets` made of it.

mod ask;
pub mod audit;
pub mod brought;
pub(crate) mod calls;
pub mod cloud_event;
pub mod credential;
mod cursor;
mod devices;
pub mod documents;
pub mod door;
mod events;
pub mod explain;
mod mail;
pub mod mailman;
mod marks;
pub(crate) mod notes;
pub(crate) mod own_calls;
pub mod pattern;
pub(crate) mod presence;
pub mod principal;
mod readers;
pub mod secrets;
mod series;
pub mod settings;
mod values;
pub(crate) mod watch;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use moorline_core::{ShardId, TenantId, Text, level::FIRST, port::Refusal};
use moorline_machine::{
    Answer, CallRefused, Command, DocumentRefused, EventRefused, MailRefused, ValueRefused,
    answer::Refused,
    registry::{DeleteTenant, Owner, PutTenant, TenantRecord},
};
use moorline_router::SubmitError;
use tokio::time::sleep;

pub(crate) use self::readers::Readers;
pub use self::{
    ask::DeviceList,
    calls::{CallMade, CallNoted},
    cursor::Cursor,
    devices::{Change, Found},
    events::{ConsumerGroup, EventPlace, NewEvent},
    mail::Letter,
    own_calls::{OWN_ANSWER_BYTES_MAX, OwnCall},
    presence::Present,
    readers::{EVENT_READERS_MAX, EVENT_READERS_PER_TENANT_MAX, Reading},
    series::{DELETE_STEPS_MAX, SeriesDelete},
    values::{AttributeWrite, Recording, ValuesWritten},
    watch::{ASK_AGAIN, Heard, RECHECK, Watch},
};
use self::{
    ask::{QUESTION_WAIT, TRY_PAUSE},
    settings::TenantSettings,
};
use crate::{refusal_of, service::Inner};

/// How long a node waits for its own write to a tenant to be applied here.
const APPLY_WAIT: Duration = Duration::from_secs(2);
/// See `moorline_machine::registry`: a version is a place in the log, and one in its entry.
const VERSION_ORDINAL_BITS: u32 = 16;

/// How a node's API and edges reach the registry. Clones are the same.
#[derive(Debug, Clone)]
pub struct Registry {
    inner: Arc<Inner>,
}

/// Why something was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// Too much waits in front of the shard. Nothing happened.
    #[error("the cluster is busy")]
    Busy,
    /// No leader, no quorum or no answer in time: a write may have happened.
    #[error("the shard did not answer in time")]
    Unavailable,
    /// Refused by the state machine. Nothing happened.
    #[error("refused: {0:?}")]
    Refused(Refused),
    /// Another device has the credential. Nothing happened.
    #[error("another device has the credential")]
    Taken(Owner),
    /// Refused by a mailbox. Nothing happened.
    #[error("refused: {0:?}")]
    Mail(MailRefused),
    /// Refused by a stream. Nothing happened.
    #[error("refused: {0:?}")]
    Events(EventRefused),
    /// Refused by what is kept of a device's values. Nothing happened.
    #[error("refused: {0:?}")]
    Values(ValueRefused),
    /// Refused by what is kept of calls to a device. Nothing happened.
    #[error("refused: {0:?}")]
    Calls(CallRefused),
    /// Refused by what is kept of documents. Nothing happened.
    #[error("refused: {0:?}")]
    Documents(DocumentRefused),
    /// As many read events at this node as may. Nothing happened.
    #[error("too many read events at this node")]
    TooManyReaders,
    /// The disk of too many nodes is nearly full. Nothing happened.
    #[error("the cluster is out of disk space")]
    DiskFull,
}

impl From<SubmitError> for RegistryError {
    fn from(error: SubmitError) -> Self {
        if refusal_of(&error) == Refusal::Busy { Self::Busy } else { Self::Unavailable }
    }
}

impl From<Refused> for RegistryError {
    fn from(refused: Refused) -> Self {
        #[expect(clippy::wildcard_enum_match_arm, reason = "all others are the registry's own")]
        match refused {
            Refused::Mail(why) => Self::Mail(why),
            Refused::Events(why) => Self::Events(why),
            Refused::Values(why) => Self::Values(why),
            Refused::Calls(why) => Self::Calls(why),
            Refused::Documents(why) => Self::Documents(why),
            other => Self::Refused(other),
        }
    }
}

/// What a command was answered, or why it was refused.
fn accepted(answer: Answer) -> Result<Answer, RegistryError> {
    if let Answer::Refused(refused) = answer { Err(refused.into()) } else { Ok(answer) }
}

impl Registry {
    pub(crate) fn new(inner: Arc<Inner>) -> Self {
        Self { inner }
    }

    async fn ask(&self, group: ShardId, command: Command) -> Result<Answer, RegistryError> {
        let command = self.with_actor(command);
        accepted(self.inner.below().router.ask(group, &command).await?)
    }

    /// Waits until this node has applied all tenants that were made before this was called, on any node. `false` if nobody
    /// can say, for longer than an election takes.
    pub async fn refresh(&self) -> bool {
        let deadline = Instant::now() + QUESTION_WAIT;
        while !self.inner.is_meta_current().await {
            if Instant::now() >= deadline {
                return false;
            }
            sleep(TRY_PAUSE).await;
        }
        true
    }

    /// All tenants, by id.
    #[must_use]
    pub fn tenants(&self) -> BTreeMap<TenantId, TenantRecord> {
        let all = self.meta(|meta| meta.tenants().clone());
        all.unwrap_or_default()
    }

    /// Whether there is a tenant that is so. All may be looked at.
    #[must_use]
    pub fn any_tenant(&self, is: impl FnMut(&TenantRecord) -> bool) -> bool {
        self.meta(|meta| meta.tenants().values().any(is)).unwrap_or_default()
    }

    /// A tenant by its id.
    #[must_use]
    pub fn tenant(&self, tenant: TenantId) -> Option<TenantRecord> {
        self.meta(|meta| meta.tenant(tenant).cloned()).flatten()
    }

    /// What a tenant's settings say, or would if there were such a tenant.
    #[must_use]
    pub fn settings(&self, tenant: TenantId) -> Arc<TenantSettings> {
        let found = self.meta(|meta| {
            let record = meta.tenant(tenant)?;
            Some(self.inner.parsed.get(tenant, record.version, &record.settings))
        });
        found.flatten().unwrap_or_default()
    }

    /// Whether a tenant's devices may show their credentials without TLS. Those of a tenant that nobody has written
    /// settings for may: that is the one of the demo.
    #[must_use]
    pub fn takes_plaintext(&self, tenant: TenantId) -> bool {
        let unwritten = |record: TenantRecord| record.settings.is_empty();
        self.settings(tenant).plaintext || self.tenant(tenant).is_some_and(unwritten)
    }

    /// A tenant by its name.
    #[must_use]
    pub fn tenant_by_name(&self, name: &str) -> Option<(TenantId, TenantRecord)> {
        self.meta(|meta| {
            meta.tenant_by_name(&Text::from(name)).map(|(id, record)| (id, record.clone()))
        })
        .flatten()
    }

    /// A tenant by what a platform calls it: `fostrom:FLEET001`.
    #[must_use]
    pub fn tenant_by_alias(&self, alias: &str) -> Option<(TenantId, TenantRecord)> {
        self.meta(|meta| {
            meta.tenant_by_alias(&Text::from(alias)).map(|(id, record)| (id, record.clone()))
        })
        .flatten()
    }

    /// The level of the cluster: by which rules may be written ([`moorline_core::level`]).
    pub(super) fn level(&self) -> u16 {
        self.meta(moorline_machine::MetaState::level).unwrap_or(FIRST)
    }

    fn meta<T>(&self, read: impl FnOnce(&moorline_machine::MetaState) -> T) -> Option<T> {
        self.inner.below().groups.read(ShardId::META, |machine, _| read(machine.meta()))
    }

    /// Makes or changes a tenant: its id and version.
    ///
    /// # Errors
    ///
    /// [`RegistryError`].
    pub async fn put_tenant(&self, put: PutTenant) -> Result<(TenantId, u64), RegistryError> {
        let answer = self.ask(ShardId::META, Command::PutTenant(put)).await?;
        let Answer::Tenant { tenant, version } = answer else {
            return Err(RegistryError::Unavailable);
        };
        // The upper bits are the place of the write in the log: whoever asks this node next finds it.
        let index = version >> VERSION_ORDINAL_BITS;
        self.inner.below().groups.wait_applied(ShardId::META, index, APPLY_WAIT).await;
        Ok((tenant, version))
    }

    /// Forgets a tenant.
    ///
    /// # Errors
    ///
    /// [`RegistryError`].
    pub async fn delete_tenant(&self, delete: DeleteTenant) -> Result<(), RegistryError> {
        self.ask(ShardId::META, Command::DeleteTenant(delete)).await.map(drop)
    }

    /// A request was refused with this HTTP status.
    pub fn count_refused(&self, status: u16) {
        let refused = &self.inner.metrics.registry.refused;
        let status = match status {
            401 => "401",
            429 => "429",
            _ => "403",
        };
        refused.with_label_values(&[status]).inc();
    }

    fn shard_of(&self, tenant: TenantId, device: &Text) -> ShardId {
        self.inner.shards.of(tenant, device.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_as_what_it_is_about() {
        let conflict = DocumentRefused::Conflict { version: Some(3) };
        #[rustfmt::skip]
        let table = [
            (Refused::Mail(MailRefused::DeviceGone),     RegistryError::Mail(MailRefused::DeviceGone)),
            (Refused::Events(EventRefused::TooLarge),    RegistryError::Events(EventRefused::TooLarge)),
            (Refused::Values(ValueRefused::DeviceGone),  RegistryError::Values(ValueRefused::DeviceGone)),
            (Refused::Calls(CallRefused::Full),          RegistryError::Calls(CallRefused::Full)),
            (Refused::Documents(conflict),               RegistryError::Documents(conflict)),
            (Refused::Malformed,                         RegistryError::Refused(Refused::Malformed)),
        ];
        for (refused, expected) in table {
            assert_eq!(accepted(Answer::Refused(refused)), Err(expected));
        }
        assert_eq!(accepted(Answer::Done), Ok(Answer::Done));
    }
}
