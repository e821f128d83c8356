//! Pre-shared keys: a port, so that an edge's TLS knows no credential store.

use std::{fmt, future::Future, pin::Pin};

use zeroize::Zeroizing;

use crate::channel::PskHolder;

/// An answer that takes a question to a shard.
pub type FoundPsk = Pin<Box<dyn Future<Output = Option<PskOffer>> + Send>>;

/// Knows keys by their identities.
pub trait PskKeys: Send + Sync + 'static {
    /// The key of an identity, as the client sent it; `None` if there is none, or nobody can say now.
    fn find(&self, identity: &[u8]) -> FoundPsk;
}

/// A key, and whose it is.
pub struct PskOffer {
    /// Wiped when it is dropped.
    pub key: Zeroizing<Vec<u8>>,
    /// Whose.
    pub holder: PskHolder,
}

/// By hand: a key is never printed.
impl fmt::Debug for PskOffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PskOffer").field("holder", &self.holder).finish_non_exhaustive()
    }
}
