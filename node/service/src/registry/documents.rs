//! Documents: what a platform keeps with a tenant or a device and the core need not understand.
//!
//! ```text
//!   change    document ─► pure code decides ─► put_document, if it is still that one ─► speak
//!                 ▲                                   └─► Conflict: somebody was faster ─┐
//!                 └──────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! # Invariants
//!
//! - **Written is synced on a majority**, and a read that begins after it sees it, on whichever node. Checked by the cluster tests of
//!   what is kept so (`watson_managed.rs`, `thingsboard_packages.rs`).

use std::sync::atomic::Ordering;

use bytes::Bytes;
use moorline_core::{ShardId, TenantId, Text};
use moorline_machine::{
    Answer, Command, DocumentAnswer, DocumentCommand, DocumentRefused,
    answer::Refused,
    documents::{
        DeleteDocument, Document, DocumentsFound, DocumentsPage, DocumentsQuery, Expect,
        PutDocument, Space,
    },
    query::{Found, Query},
};

use moorline_storage::StorageError;
use tracing::error;

use super::{Registry, RegistryError, accepted};

impl Registry {
    /// A document of a space.
    ///
    /// # Errors
    ///
    /// [`RegistryError`].
    pub async fn document(
        &self,
        space: &Space,
        id: &Text,
    ) -> Result<Option<Document>, RegistryError> {
        let query = DocumentsQuery::One { space: space.clone(), id: id.clone() };
        match self.ask_for_documents(space, query).await? {
            DocumentsFound::One(document) => Ok(document),
            DocumentsFound::Page(_) => Err(RegistryError::Unavailable),
        }
    }

    /// Documents of a space in the order of their ids, those behind `after`: a page of them.
    ///
    /// # Errors
    ///
    /// [`RegistryError`].
    pub async fn documents(
        &self,
        space: &Space,
        after: Option<&Text>,
        documents_max: u16,
    ) -> Result<DocumentsPage, RegistryError> {
        let (space_of, after) = (space.clone(), after.cloned());
        let query = DocumentsQuery::Page { space: space_of, after, documents_max };
        match self.ask_for_documents(space, query).await? {
            DocumentsFound::Page(page) => Ok(page),
            DocumentsFound::One(_) => Err(RegistryError::Unavailable),
        }
    }

    /// Writes a document in the place of what is expected: its version from now on.
    ///
    /// # Errors
    ///
    /// [`RegistryError`]: [`DocumentRefused::Conflict`] if something else is there, [`Refused::NotFound`] if the tenant is gone. After [`RegistryError::Unavailable`] it may be
    /// written all the same.
    pub async fn put_document(
        &self,
        space: &Space,
        id: &Text,
        body: Bytes,
        expect: Expect,
    ) -> Result<u64, RegistryError> {
        if !self.inner.accepting.load(Ordering::Acquire) {
            return Err(RegistryError::DiskFull);
        }
        // Shards forget a deleted tenant for a while, and not for ever: what comes later would stay.
        if self.meta(|meta| meta.tenant(space.tenant).is_none()).unwrap_or_default() {
            return Err(RegistryError::Refused(Refused::NotFound));
        }
        let put = PutDocument { space: space.clone(), id: id.clone(), body, expect };
        match self.ask_of_document(space, DocumentCommand::Put(put)).await? {
            DocumentAnswer::Put { version } => Ok(version),
            DocumentAnswer::Deleted { .. } => Err(RegistryError::Unavailable),
        }
    }

    /// Deletes a document, if it is the one that is expected: whether there was one.
    ///
    /// # Errors
    ///
    /// As of [`Self::put_document`].
    pub async fn delete_document(
        &self,
        space: &Space,
        id: &Text,
        expect: Expect,
    ) -> Result<bool, RegistryError> {
        let delete = DeleteDocument { space: space.clone(), id: id.clone(), expect };
        match self.ask_of_document(space, DocumentCommand::Delete(delete)).await? {
            DocumentAnswer::Deleted { documents, .. } => Ok(documents > 0),
            DocumentAnswer::Put { .. } => Err(RegistryError::Unavailable),
        }
    }

    /// Deletes all documents of a space, piece by piece: those that are written meanwhile may stay.
    ///
    /// # Errors
    ///
    /// [`RegistryError`]; some may be gone then.
    pub async fn delete_documents(&self, space: &Space) -> Result<(), RegistryError> {
        loop {
            let some = DocumentCommand::DeleteSome(space.clone());
            match self.ask_of_document(space, some).await? {
                DocumentAnswer::Deleted { more: true, .. } => {}
                DocumentAnswer::Deleted { more: false, .. } => return Ok(()),
                DocumentAnswer::Put { .. } => return Err(RegistryError::Unavailable),
            }
        }
    }

    /// Tenants that have documents in the space of this name, with those, of the shards that this node leads: `documents_max` of each tenant.
    /// It is what its own replicas say, without a question: who leads no more, or not yet for long, may see less.
    #[must_use]
    pub fn led_documents(&self, name: &Text, documents_max: u16) -> Vec<(TenantId, Vec<Document>)> {
        let mut found = Vec::new();
        for shard in self.inner.shards.all().filter(|shard| self.leads(*shard)) {
            let read = self.inner.below().groups.read(shard, |machine, rows| {
                let tenants = machine.tenants_with_space(name).into_iter();
                let of = |tenant| {
                    let space = Space::of_tenant(tenant, name.as_str());
                    let query = DocumentsQuery::Page { space, after: None, documents_max };
                    Ok((tenant, machine.documents(rows, &query)?))
                };
                tenants.map(of).collect::<Result<Vec<_>, StorageError>>()
            });
            match read {
                Some(Ok(read)) => {
                    found.extend(read.into_iter().filter_map(|(tenant, found)| match found {
                        DocumentsFound::Page(page) => Some((tenant, page.documents)),
                        DocumentsFound::One(_) => None,
                    }));
                }
                None => {}
                Some(Err(problem)) => {
                    error!(%shard, %problem, "cannot read documents");
                    (self.inner.fatal)("rows can't be read");
                }
            }
        }
        found
    }

    /// Whether this node leads the shard of a space, as far as it knows.
    #[must_use]
    pub fn leads_space(&self, space: &Space) -> bool {
        self.leads(self.shard_of_space(space))
    }

    fn leads(&self, shard: ShardId) -> bool {
        self.inner.delivery(shard).is_some_and(|delivery| delivery.is_leading())
    }

    fn shard_of_space(&self, space: &Space) -> ShardId {
        self.shard_of(space.tenant, space.routed_by())
    }

    async fn ask_for_documents(
        &self,
        space: &Space,
        query: DocumentsQuery,
    ) -> Result<DocumentsFound, RegistryError> {
        let shard = self.shard_of_space(space);
        let Found::Documents(found) = self.question(shard, &Query::Documents(query)).await? else {
            return Err(RegistryError::Unavailable);
        };
        Ok(found)
    }

    async fn ask_of_document(
        &self,
        space: &Space,
        command: DocumentCommand,
    ) -> Result<DocumentAnswer, RegistryError> {
        let shard = self.shard_of_space(space);
        let answer = self.inner.below().router.ask(shard, &Command::Documents(command)).await?;
        let Answer::Documents(answer) = accepted(answer)? else {
            return Err(RegistryError::Unavailable);
        };
        Ok(answer)
    }
}

/// Whether a write was refused because somebody else's came before.
#[must_use]
pub fn is_conflict(error: &RegistryError) -> bool {
    matches!(error, RegistryError::Documents(DocumentRefused::Conflict { .. }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_that_somebody_was_faster_is_a_conflict() {
        let conflict = DocumentRefused::Conflict { version: Some(3) };
        for (refused, expected) in [(conflict, true), (DocumentRefused::DeviceGone, false)] {
            assert_eq!(is_conflict(&RegistryError::Documents(refused)), expected);
        }
        assert!(!is_conflict(&RegistryError::Busy));
    }
}
