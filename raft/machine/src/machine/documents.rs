//! What is read of documents, handed on to the shard.

use moorline_core::{TenantId, Text};
use moorline_storage::{StorageError, View};

use super::Machine;
use crate::documents::{DocumentTotals, DocumentsFound, DocumentsQuery};

impl Machine {
    /// Documents of a space.
    ///
    /// # Errors
    ///
    /// When the rows can't be read; the replica must stop.
    pub fn documents(
        &self,
        rows: &(impl View + ?Sized),
        query: &DocumentsQuery,
    ) -> Result<DocumentsFound, StorageError> {
        self.shard.documents(rows, query)
    }

    /// Tenants whose own space of this name has documents.
    #[must_use]
    pub fn tenants_with_space(&self, name: &Text) -> Vec<TenantId> {
        self.shard.tenants_with_space(name)
    }

    /// How many documents there are, of all tenants.
    #[must_use]
    pub fn document_totals(&self) -> DocumentTotals {
        self.shard.document_totals()
    }
}
