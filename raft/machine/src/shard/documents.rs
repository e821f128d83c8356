//! Documents: they are written, deleted, read, and go with their device or tenant.
//!
//! ```text
//!   Space (tenant, name)            documents and bytes of a tenant's space     in memory too
//!   DeviceDocuments (device)        the same of all spaces of a device          read with each write
//!   Document (space, id)            version, time, bytes
//! ```
//!
//! # Invariants
//!
//! - **A sum is that of the documents there are**, and a space without any has no row. Checked by `tests/rules/documents.rs` after each
//!   command.
//! - **What memory holds is the sums of tenants' spaces**; checked by `PartialEq` of [`Documents`] wherever replicas are tested.
//! - **One command deletes a bounded number.**

use std::{collections::BTreeMap, ops::ControlFlow};

use bytes::Bytes;
use moorline_core::{TenantId, Text, shard::bucket_of};
use moorline_storage::{Rows, StorageError, View, key::Kind};

use super::ShardState;
use crate::{
    answer::{Answer, Refused},
    documents::{
        DEVICE_DOCUMENTS_BYTES_MAX, DEVICE_DOCUMENTS_MAX, DOCUMENT_BYTES_MAX,
        DOCUMENT_ID_BYTES_MAX, DOCUMENTS_DELETE_BYTES_MAX, DOCUMENTS_PAGE_BYTES_MAX,
        DOCUMENTS_PER_DELETE_MAX, DOCUMENTS_PER_PAGE_MAX, DeleteDocument, Document, DocumentAnswer,
        DocumentCommand, DocumentRefused, DocumentTotals, DocumentsFound, DocumentsPage,
        DocumentsQuery, Expect, PutDocument, SPACE_BYTES_MAX, SPACE_DOCUMENTS_MAX,
        SPACE_NAME_BYTES_MAX, SPACES_BYTES_PER_TENANT_MAX, SPACES_PER_TENANT_MAX, Space,
        SpaceOwner,
    },
    keys::{Keys, Place, Suffix, each, each_until},
    rows::{
        Row, corrupt,
        documents::{DocumentRow, SpaceRow},
    },
    step::Step,
};

/// What a shard knows of documents without reading rows.
#[derive(Debug, PartialEq)]
pub(super) struct Documents {
    keys: Keys,
    /// Spaces of tenants that are not empty.
    spaces: BTreeMap<(TenantId, Text), SpaceRow>,
    /// Their number and bytes, by tenant.
    tenants: BTreeMap<TenantId, (usize, u64)>,
}

/// What one command may still delete.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    documents: usize,
    bytes: u64,
}

impl Room {
    pub(super) const WHOLE: Self =
        Self { documents: DOCUMENTS_PER_DELETE_MAX, bytes: DOCUMENTS_DELETE_BYTES_MAX };
    /// For what has limits of its own.
    const ENDLESS: Self = Self { documents: usize::MAX, bytes: u64::MAX };

    fn is_spent(self) -> bool {
        self.documents == 0 || self.bytes == 0
    }

    fn spend(&mut self, bytes: u64) {
        self.documents -= 1;
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

/// The sum that a document counts in, and where it is kept.
#[derive(Debug)]
enum Sum {
    Tenant(SpaceRow),
    Device(Place, SpaceRow),
}

impl Documents {
    pub(super) fn new(keys: Keys) -> Self {
        Self { keys, spaces: BTreeMap::new(), tenants: BTreeMap::new() }
    }

    pub(super) fn open_bucket(
        &mut self,
        rows: &(impl View + ?Sized),
        bucket: u16,
    ) -> Result<(), StorageError> {
        each(rows, &self.keys.range_in(bucket, Kind::Space), |mut suffix, row| {
            let (tenant, row) = (TenantId(suffix.u32()?), SpaceRow::from_bytes(row)?);
            self.set(tenant, &suffix.text()?, row);
            Ok(())
        })
    }

    fn of(&self, tenant: TenantId, name: &Text) -> SpaceRow {
        self.spaces.get(&(tenant, name.clone())).copied().unwrap_or_default()
    }

    /// Takes a new sum of a tenant's space.
    fn set(&mut self, tenant: TenantId, name: &Text, row: SpaceRow) {
        // A copy: the text may be a slice of a whole log entry.
        let key = (tenant, Text::from(name.as_str()));
        let before = if row.documents == 0 {
            self.spaces.remove(&key)
        } else {
            self.spaces.insert(key, row)
        };
        let (spaces, bytes) = self.tenants.entry(tenant).or_default();
        *spaces = *spaces + usize::from(row.documents > 0) - usize::from(before.is_some());
        *bytes = *bytes + row.bytes - before.map_or(0, |before| before.bytes);
        if *spaces == 0 {
            self.tenants.remove(&tenant);
        }
    }

    /// Whether a tenant's space may grow to this.
    fn has_room(&self, tenant: TenantId, before: SpaceRow, after: SpaceRow) -> bool {
        let (spaces, bytes) = self.tenants.get(&tenant).copied().unwrap_or_default();
        after.documents <= SPACE_DOCUMENTS_MAX
            && after.bytes <= SPACE_BYTES_MAX
            && (before.documents > 0 || spaces < SPACES_PER_TENANT_MAX)
            && bytes - before.bytes + after.bytes <= SPACES_BYTES_PER_TENANT_MAX
    }

    /// A space of a whole tenant that has documents.
    fn first_of(&self, tenant: TenantId) -> Option<Text> {
        let (of, name) = self.spaces.range((tenant, Text::default())..).next()?.0;
        (*of == tenant).then(|| name.clone())
    }
}

impl Sum {
    fn row(&self) -> SpaceRow {
        match self {
            Self::Tenant(row) | Self::Device(_, row) => *row,
        }
    }
}

/// What a document counts.
fn counted(id: &Text, body_bytes: usize) -> u64 {
    (id.len() + body_bytes) as u64
}

fn refused(why: DocumentRefused) -> Answer {
    Answer::Refused(Refused::Documents(why))
}

/// Names end with a zero in keys.
fn is_name(name: &Text, bytes_max: usize) -> bool {
    !name.is_empty() && name.len() <= bytes_max && !name.as_bytes().contains(&0)
}

impl ShardState {
    pub(crate) fn document<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        command: DocumentCommand,
    ) -> Result<Answer, StorageError> {
        let (space, id) = match &command {
            DocumentCommand::Put(PutDocument { space, id, .. })
            | DocumentCommand::Delete(DeleteDocument { space, id, .. }) => (space, Some(id)),
            DocumentCommand::DeleteSome(space) => (space, None),
        };
        let named = is_name(&space.name, SPACE_NAME_BYTES_MAX)
            && id.is_none_or(|id| is_name(id, DOCUMENT_ID_BYTES_MAX));
        if !named {
            return Ok(refused(DocumentRefused::BadName));
        }
        let Some(sum) = self.sum_of(&*step.rows, space)? else {
            return Ok(refused(DocumentRefused::DeviceGone));
        };
        match command {
            DocumentCommand::Put(put) => self.put_document(step, put, &sum),
            DocumentCommand::Delete(delete) => self.delete_document(step, &delete, &sum),
            DocumentCommand::DeleteSome(space) => {
                let mut room = Room::WHOLE;
                let (documents, more) = self.delete_documents(step, &space, &sum, &mut room)?;
                Ok(Answer::Documents(DocumentAnswer::Deleted { documents, more }))
            }
        }
    }

    /// The sum that a space counts in; [`None`] if it is of a device that is gone.
    fn sum_of(
        &self,
        rows: &(impl View + ?Sized),
        space: &Space,
    ) -> Result<Option<Sum>, StorageError> {
        let Space { tenant, owner, name } = space;
        match owner {
            SpaceOwner::Tenant => Ok(Some(Sum::Tenant(self.documents.of(*tenant, name)))),
            SpaceOwner::Device { device, born } => {
                let Some(of) = self.place(rows, *tenant, device, Some(*born))? else {
                    return Ok(None);
                };
                let row = rows.get(&self.keys.device_documents(of))?;
                let row = row.map(|row| SpaceRow::from_bytes(&row)).transpose()?;
                Ok(Some(Sum::Device(of, row.unwrap_or_default())))
            }
        }
    }

    fn put_document<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        put: PutDocument,
        sum: &Sum,
    ) -> Result<Answer, StorageError> {
        let PutDocument { space, id, body, expect } = put;
        if body.len() > DOCUMENT_BYTES_MAX {
            return Ok(refused(DocumentRefused::TooLarge));
        }
        let before = match self.expected(&*step.rows, &space, &id, expect)? {
            Ok(before) => before,
            Err(why) => return Ok(refused(why)),
        };
        let row = sum.row();
        let less = before.as_ref().map_or(0, |before| counted(&id, before.body.len()));
        let after = SpaceRow {
            documents: row.documents + u32::from(before.is_none()),
            bytes: row.bytes.checked_sub(less).ok_or_else(wrong_sum)? + counted(&id, body.len()),
        };
        let has_room = match sum {
            Sum::Tenant(row) => self.documents.has_room(space.tenant, *row, after),
            Sum::Device(..) => {
                after.documents <= DEVICE_DOCUMENTS_MAX && after.bytes <= DEVICE_DOCUMENTS_BYTES_MAX
            }
        };
        // What becomes no larger may be written also where there is more than there may be.
        if !has_room && (after.documents > row.documents || after.bytes > row.bytes) {
            return Ok(refused(DocumentRefused::Full));
        }
        let version = step.version();
        let document = DocumentRow { version, changed: step.time, body };
        step.put(self.keys.document(&space, &id), document.to_bytes());
        self.put_sum(step, &space, sum, after);
        Ok(Answer::Documents(DocumentAnswer::Put { version }))
    }

    fn delete_document<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        delete: &DeleteDocument,
        sum: &Sum,
    ) -> Result<Answer, StorageError> {
        let DeleteDocument { space, id, expect } = delete;
        let before = match self.expected(&*step.rows, space, id, *expect)? {
            Ok(before) => before,
            Err(why) => return Ok(refused(why)),
        };
        let documents = u32::from(before.is_some());
        if let Some(before) = before {
            step.delete(self.keys.document(space, id));
            let after = less(sum.row(), 1, counted(id, before.body.len()))?;
            self.put_sum(step, space, sum, after);
        }
        Ok(Answer::Documents(DocumentAnswer::Deleted { documents, more: false }))
    }

    /// Deletes the first documents of a space, as far as there is room: how many, and whether there are others.
    fn delete_documents<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        space: &Space,
        sum: &Sum,
        room: &mut Room,
    ) -> Result<(u32, bool), StorageError> {
        let first = first_in(&*step.rows, &self.keys.documents(space, None), room)?;
        let documents = u32::try_from(first.keys.len()).expect("a bounded number");
        for key in first.keys {
            step.delete(key);
        }
        if documents > 0 {
            let after = less(sum.row(), documents, first.bytes)?;
            self.put_sum(step, space, sum, after);
        }
        Ok((documents, first.more))
    }

    /// What there is, if it is what was expected.
    fn expected(
        &self,
        rows: &(impl View + ?Sized),
        space: &Space,
        id: &Text,
        expect: Expect,
    ) -> Result<Result<Option<DocumentRow>, DocumentRefused>, StorageError> {
        let row = rows.get(&self.keys.document(space, id))?;
        let before = row.map(|row| DocumentRow::from_bytes(&row)).transpose()?;
        let version = before.as_ref().map(|row| row.version);
        let holds = expect.holds(version);
        Ok(if holds { Ok(before) } else { Err(DocumentRefused::Conflict { version }) })
    }

    fn put_sum<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        space: &Space,
        sum: &Sum,
        after: SpaceRow,
    ) {
        let key = match sum {
            Sum::Tenant(_) => {
                self.documents.set(space.tenant, &space.name, after);
                self.keys.space(space.tenant, &space.name)
            }
            Sum::Device(of, _) => self.keys.device_documents(*of),
        };
        if after.documents == 0 {
            step.delete(key);
        } else {
            step.put(key, after.to_bytes());
        }
    }

    /// All documents of a device that is deleted go at once: [`DEVICE_DOCUMENTS_MAX`] of them.
    pub(super) fn forget_documents<R: Rows + ?Sized>(
        &self,
        step: &mut Step<'_, R>,
        tenant: TenantId,
        device: &Text,
        born: u64,
    ) -> Result<(), StorageError> {
        let of = Place { bucket: bucket_of(tenant, device.as_bytes()), born };
        let sum = self.keys.device_documents(of);
        if step.rows.get(&sum)?.is_none() {
            return Ok(());
        }
        let range = self.keys.documents_of(tenant, of);
        let mut room = Room::ENDLESS;
        for key in first_in(&*step.rows, &range, &mut room)?.keys {
            step.delete(key);
        }
        step.delete(sum);
        Ok(())
    }

    /// Documents of a deleted tenant go, as far as there is room: `true` if there are others.
    pub(super) fn forget_spaces<R: Rows + ?Sized>(
        &mut self,
        step: &mut Step<'_, R>,
        tenant: TenantId,
        room: &mut Room,
    ) -> Result<bool, StorageError> {
        while let Some(name) = self.documents.first_of(tenant) {
            if room.is_spent() {
                return Ok(true);
            }
            let space = Space { tenant, owner: SpaceOwner::Tenant, name };
            let sum = Sum::Tenant(self.documents.of(tenant, &space.name));
            let (documents, _) = self.delete_documents(step, &space, &sum, room)?;
            if documents == 0 {
                // A space without documents has no sum.
                return Err(wrong_sum());
            }
        }
        Ok(false)
    }

    /// Answers a question from the rows as they are.
    pub(crate) fn documents(
        &self,
        rows: &(impl View + ?Sized),
        query: &DocumentsQuery,
    ) -> Result<DocumentsFound, StorageError> {
        Ok(match query {
            DocumentsQuery::One { space, id } => {
                let row = rows.get(&self.keys.document(space, id))?;
                let row = row.map(|row| DocumentRow::from_bytes(&row)).transpose()?;
                DocumentsFound::One(row.map(|row| shown(id.clone(), row)))
            }
            DocumentsQuery::Page { space, after, documents_max } => {
                let documents_max = usize::from(*documents_max).clamp(1, DOCUMENTS_PER_PAGE_MAX);
                let range = self.keys.documents(space, after.as_ref());
                let (mut page, mut bytes) = (DocumentsPage::default(), 0);
                each_until(rows, &range, |suffix, row| {
                    let full = page.documents.len() >= documents_max
                        || bytes + row.len() > DOCUMENTS_PAGE_BYTES_MAX;
                    if full && !page.documents.is_empty() {
                        page.more = true;
                        return Ok(ControlFlow::Break(()));
                    }
                    bytes += row.len();
                    page.documents.push(shown(suffix.document()?, DocumentRow::from_bytes(row)?));
                    Ok(ControlFlow::Continue(()))
                })?;
                DocumentsFound::Page(page)
            }
        })
    }

    pub(crate) fn tenants_with_space(&self, name: &Text) -> Vec<TenantId> {
        let Documents { spaces, tenants, .. } = &self.documents;
        let has = |tenant: &TenantId| spaces.contains_key(&(*tenant, name.clone()));
        tenants.keys().copied().filter(has).collect()
    }

    pub(crate) fn document_totals(&self) -> DocumentTotals {
        let spaces = &self.documents.spaces;
        let documents = spaces.values().map(|row| u64::from(row.documents)).sum();
        let bytes = spaces.values().map(|row| row.bytes).sum();
        DocumentTotals { spaces: spaces.len() as u64, documents, bytes }
    }
}

/// Rows at the beginning of a range, as many as there is room for.
#[derive(Default)]
struct First {
    keys: Vec<Bytes>,
    /// What they count.
    bytes: u64,
    /// Whether there are others.
    more: bool,
}

fn first_in(
    rows: &(impl View + ?Sized),
    (from, to): &(Bytes, Bytes),
    room: &mut Room,
) -> Result<First, StorageError> {
    let (mut first, mut failed) = (First::default(), None);
    rows.scan(from, to, &mut |key, row| {
        if room.is_spent() {
            first.more = true;
            return ControlFlow::Break(());
        }
        let counts = || {
            let id = Suffix::of(key)?.document()?;
            Ok(counted(&id, DocumentRow::from_bytes(row)?.body.len()))
        };
        match counts() {
            Ok(counts) => {
                room.spend(counts);
                first.bytes += counts;
                first.keys.push(Bytes::copy_from_slice(key));
                ControlFlow::Continue(())
            }
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        }
    })?;
    failed.map_or(Ok(first), Err)
}

fn shown(id: Text, row: DocumentRow) -> Document {
    let DocumentRow { version, changed, body } = row;
    Document { id, version, changed, body }
}

fn less(row: SpaceRow, documents: u32, bytes: u64) -> Result<SpaceRow, StorageError> {
    Ok(SpaceRow {
        documents: row.documents.checked_sub(documents).ok_or_else(wrong_sum)?,
        bytes: row.bytes.checked_sub(bytes).ok_or_else(wrong_sum)?,
    })
}

fn wrong_sum() -> StorageError {
    corrupt("space row", &"it does not fit its documents")
}

#[cfg(test)]
mod tests {
    use moorline_core::ShardId;

    use super::*;

    const TENANT: TenantId = TenantId(1);
    const NONE: SpaceRow = SpaceRow { documents: 0, bytes: 0 };

    fn row(documents: u32, bytes: u64) -> SpaceRow {
        SpaceRow { documents, bytes }
    }

    #[test]
    fn a_space_and_all_of_a_tenant_have_so_many_bytes() {
        let mut all = Documents::new(Keys::new(ShardId(1)));
        let most = SPACE_BYTES_MAX;
        let one = Text::from("one");
        all.set(TENANT, &one, row(1, 5));
        assert!(all.has_room(TENANT, row(1, 5), row(2, most)));
        assert!(!all.has_room(TENANT, row(1, 5), row(2, most + 1)));
        all.set(TENANT, &one, NONE);
        assert!(all.has_room(TENANT, NONE, row(SPACE_DOCUMENTS_MAX, 1)));
        assert!(!all.has_room(TENANT, NONE, row(SPACE_DOCUMENTS_MAX + 1, 1)));

        let spaces = SPACES_BYTES_PER_TENANT_MAX / most;
        for number in 0..spaces {
            let left = if number == 0 { 10 } else { 0 };
            all.set(TENANT, &Text::from(number.to_string()), row(1, most - left));
        }
        for (tenant, before, after, fits) in [
            (TENANT, NONE, row(1, 10), true),
            (TENANT, NONE, row(1, 11), false),
            (TENANT, row(1, most - 10), row(1, most), true),
            (TENANT, row(1, most), row(1, most), true),
            (TenantId(2), NONE, row(1, 11), true),
        ] {
            assert_eq!(
                all.has_room(tenant, before, after),
                fits,
                "{tenant:?} {before:?} {after:?}"
            );
        }
        for number in 0..spaces {
            all.set(TENANT, &Text::from(number.to_string()), NONE);
        }
        assert_eq!(all, Documents::new(Keys::new(ShardId(1))), "nothing is left");
    }

    #[test]
    fn a_tenant_has_so_many_spaces() {
        let mut all = Documents::new(Keys::new(ShardId(1)));
        for number in 0..SPACES_PER_TENANT_MAX {
            assert!(all.has_room(TENANT, NONE, row(1, 0)));
            all.set(TENANT, &Text::from(number.to_string()), row(1, 0));
        }
        assert!(!all.has_room(TENANT, NONE, row(1, 0)));
        assert!(all.has_room(TENANT, row(1, 0), row(2, 9)), "one that is there may grow");
        assert!(all.has_room(TenantId(2), NONE, row(1, 0)));
        all.set(TENANT, &Text::from("7"), NONE);
        assert!(all.has_room(TENANT, NONE, row(1, 0)));
    }
}
