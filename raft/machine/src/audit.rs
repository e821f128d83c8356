//! The audit: who changed what of the registry, in the group where it was changed, by the command that changed it.
//!
//! ```text
//!   Audited { who, command } ──► command ──► changed something? ──► a record, in the same step
//!                                       └──► refused, a repeat ──► none
//! ```
//!
//! # Invariants
//!
//! - **A change has one record, and a record its change**: they are one command, which counts once. Checked by
//!   `tests/rules/audit.rs`.
//! - **No secret is in a record**: it has names and versions, never what was written.
//!
//! # Deliberately absent
//!
//! What is refused at the door (`node/api` counts it), and reading the records of all groups in order of time
//! (`node/service`).

use std::ops::ControlFlow;

use moorline_core::{NodeId, TenantId, Text, UnixMillis};
use moorline_storage::{Rows, StorageError, View};

use crate::{
    answer::Answer,
    command::Command,
    keys::{Keys, each_until},
    mail::{MailAnswer, MailCommand},
    registry::{DeleteDevice, DeleteTenant, PutDevice},
    rows::{Row, audit::AuditEndRow},
    step::Step,
};

/// Records of one group; beyond it the oldest go: about 60 MB.
pub const AUDIT_RECORDS_MAX: u64 = 250_000;
/// How long records are kept: 400 days. Kept when the next one comes.
pub const AUDIT_KEEP_MS: u64 = 400 * 24 * 3_600 * 1_000;
/// Records that one new one lets go, when they are too old: twice as many as come.
const AUDIT_GONE_PER_RECORD: usize = 2;
/// Bytes of each text of a record; longer ones are cut by who proposes it.
pub const AUDIT_TEXT_BYTES_MAX: usize = 256;
/// Records that one question looks at.
pub const AUDIT_PER_QUESTION_MAX: usize = 1_024;

/// A command about the registry or mail, and who wants it. Answered as the command is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audited {
    /// Who, and from where.
    pub by: AuditedBy,
    /// What: not another one of these.
    pub command: Command,
}

/// Who asked for a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditedBy {
    /// The token: its tenant and name. Opaque here, as the rest.
    pub actor: Text,
    /// The request: its method and path.
    pub request: Text,
    /// The request's number.
    pub request_id: u128,
    /// Where it came from.
    pub address: Text,
    /// To which node.
    pub node: NodeId,
}

/// What was changed. Disks hold the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum AuditAction {
    /// A tenant was made or written.
    PutTenant = 1,
    /// A tenant was deleted.
    DeleteTenant = 2,
    /// A device, or a token, was made or written, or its credentials.
    PutDevice = 3,
    /// A device, or a token, was deleted.
    DeleteDevice = 4,
    /// A mail was taken back.
    CancelMail = 5,
    /// A mailbox was emptied.
    PurgeMail = 6,
}

impl AuditAction {
    /// All of them, by number.
    pub const ALL: [Self; 6] = [
        Self::PutTenant,
        Self::DeleteTenant,
        Self::PutDevice,
        Self::DeleteDevice,
        Self::CancelMail,
        Self::PurgeMail,
    ];

    /// The action of a number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|action| *action as u8 == number)
    }

    /// Its name, for eyes.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::PutTenant => "tenant.put",
            Self::DeleteTenant => "tenant.delete",
            Self::PutDevice => "device.put",
            Self::DeleteDevice => "device.delete",
            Self::CancelMail => "mail.cancel",
            Self::PurgeMail => "mail.purge",
        }
    }
}

/// One line of the audit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRecord {
    /// When, in log time.
    pub at: UnixMillis,
    /// Who.
    pub by: AuditedBy,
    /// What.
    pub action: AuditAction,
    /// Whose.
    pub tenant: TenantId,
    /// The tenant's or the device's name.
    pub object: Text,
    /// The mail, if it is about one.
    pub mail: Option<u128>,
    /// Its version before; `None` if it did not exist, or has none.
    pub before: Option<u64>,
    /// Its version after; `None` if it does not exist any more, or has none.
    pub after: Option<u64>,
}

/// A piece of a group's audit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditPage {
    /// Records with their numbers, in order.
    pub records: Vec<(u64, AuditRecord)>,
    /// Everything up to here was looked at: the next page is behind it.
    pub upto: u64,
    /// There is more.
    pub more: bool,
}

/// Up to where a group's audit goes. Records are in rows alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Audits {
    keys: Keys,
    end: AuditEndRow,
}

/// What a command is about, before it is applied.
struct Subject {
    action: AuditAction,
    tenant: TenantId,
    object: Text,
    mail: Option<u128>,
    before: Option<u64>,
}

impl Audits {
    pub(crate) fn open(keys: Keys, rows: &(impl View + ?Sized)) -> Result<Self, StorageError> {
        let row = rows.get(&keys.audit_end())?;
        let end = row.map(|row| AuditEndRow::from_bytes(&row)).transpose()?;
        Ok(Self { keys, end: end.unwrap_or(AuditEndRow { head: 1, tail: 1 }) })
    }

    fn append<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        record: &AuditRecord,
    ) -> Result<(), StorageError> {
        step.put_fresh(self.keys.audit_record(self.end.tail), record.to_bytes());
        self.end.tail += 1;
        for _ in 0..AUDIT_GONE_PER_RECORD {
            let key = self.keys.audit_record(self.end.head);
            let Some(row) = step.rows.get(&key)? else { break };
            let oldest = AuditRecord::from_bytes(&row)?;
            let too_old = oldest.at.0.saturating_add(AUDIT_KEEP_MS) <= step.time.0;
            if !too_old && self.end.tail - self.end.head <= AUDIT_RECORDS_MAX {
                break;
            }
            step.delete(key);
            self.end.head += 1;
        }
        step.put(self.keys.audit_end(), self.end.to_bytes());
        Ok(())
    }

    /// Records behind a number, of one tenant or of all.
    pub(crate) fn read(
        &self,
        rows: &(impl View + ?Sized),
        tenant: Option<TenantId>,
        after: u64,
        items_max: usize,
    ) -> Result<AuditPage, StorageError> {
        let mut page = AuditPage { records: Vec::new(), upto: after, more: false };
        let from = after.saturating_add(1).max(self.end.head);
        if from >= self.end.tail {
            return Ok(page);
        }
        let range = (self.keys.audit_record(from), self.keys.audit_record(self.end.tail));
        let mut looked_at = 0;
        each_until(rows, &range, |mut suffix, row| {
            if looked_at >= AUDIT_PER_QUESTION_MAX || page.records.len() >= items_max {
                page.more = true;
                return Ok(ControlFlow::Break(()));
            }
            looked_at += 1;
            page.upto = suffix.u64()?;
            let record = AuditRecord::from_bytes(row)?;
            if tenant.is_none_or(|tenant| tenant == record.tenant) {
                page.records.push((page.upto, record));
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(page)
    }
}

/// The version that a command's answer says, if it changed anything at all.
fn changed(answer: &Answer) -> Option<Option<u64>> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "no other answer is one to these commands")]
    match answer {
        Answer::Done => Some(None),
        Answer::Tenant { version, .. } | Answer::Device { version, .. } => Some(Some(*version)),
        Answer::Mail(MailAnswer::Settled { repeat, .. }) => (!repeat).then_some(None),
        Answer::Mail(MailAnswer::Purged { removed, .. }) => (*removed > 0).then_some(None),
        _ => None,
    }
}

impl crate::Machine {
    pub(crate) fn apply_audited<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        audited: Audited,
    ) -> Result<Answer, StorageError> {
        let Audited { by, command } = audited;
        let subject = self.subject(&*step.rows, &command)?;
        let answer = self.apply_command(step, command)?;
        let (Some(subject), Some(after)) = (subject, changed(&answer)) else { return Ok(answer) };
        let Subject { action, tenant, object, mail, before } = subject;
        let tenant = if let Answer::Tenant { tenant, .. } = answer { tenant } else { tenant };
        let record = AuditRecord { at: step.time, by, action, tenant, object, mail, before, after };
        self.audits().append(step, &record)?;
        Ok(answer)
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "of no other command there is a record")]
    fn subject(
        &self,
        rows: &(impl View + ?Sized),
        command: &Command,
    ) -> Result<Option<Subject>, StorageError> {
        let of_tenant = |action, tenant: TenantId, name: Option<&Text>| {
            let known = self.meta().tenant(tenant);
            let object = name.or(known.map(|known| &known.name)).cloned().unwrap_or_default();
            let before = known.map(|known| known.version);
            Subject { action, tenant, object, mail: None, before }
        };
        let of_device = |action, tenant, device: &Text| {
            let before = self.device(rows, tenant, device)?.map(|device| device.version);
            Ok::<_, StorageError>(Subject {
                action,
                tenant,
                object: device.clone(),
                mail: None,
                before,
            })
        };
        let of_mail = |action, tenant, device: &Text, mail| {
            let object = device.clone();
            Subject { action, tenant, object, mail, before: None }
        };
        Ok(Some(match command {
            Command::PutTenant(put) => {
                of_tenant(AuditAction::PutTenant, put.tenant, Some(&put.name))
            }
            Command::DeleteTenant(DeleteTenant { tenant, .. }) => {
                of_tenant(AuditAction::DeleteTenant, *tenant, None)
            }
            Command::PutDevice(PutDevice { tenant, device, .. }) => {
                of_device(AuditAction::PutDevice, *tenant, device)?
            }
            Command::DeleteDevice(DeleteDevice { tenant, device, .. }) => {
                of_device(AuditAction::DeleteDevice, *tenant, device)?
            }
            Command::Mail(MailCommand::Cancel(cancel)) => {
                let (action, mail) = (AuditAction::CancelMail, Some(cancel.id));
                of_mail(action, cancel.tenant, &cancel.device, mail)
            }
            Command::Mail(MailCommand::Purge(purge)) => {
                of_mail(AuditAction::PurgeMail, purge.tenant, &purge.device, None)
            }
            _ => return Ok(None),
        }))
    }
}
