//! What a connection proved before its first packet: its TLS, for whoever decides who a client is.
//!
//! # Invariants
//!
//! - **A proof is of possession only**: the handshake showed that the client has the private key or the pre-shared key. Whose they
//!   are, and whether they count, is for [`Authenticate`](crate::Authenticate) to say, each time.

use std::{fmt, sync::Arc};

use moorline_core::{TenantId, Text};
use rustls::pki_types::CertificateDer;

/// How a client's bytes come.
#[derive(Debug, Clone, Default)]
pub struct Channel {
    /// Whether they come by TLS.
    pub tls: bool,
    /// The host name it asked for (SNI), in lower case.
    pub server_name: Option<Text>,
    /// What the handshake proved of the client; `None` if it showed nothing, or came without TLS.
    pub proof: Option<Proof>,
}

/// What a handshake proved that the client has.
#[derive(Clone)]
pub enum Proof {
    /// The key of the first of these certificates. Nobody has checked who signed it, or until when.
    Certificates(Arc<[CertificateDer<'static>]>),
    /// The key of a pre-shared identity.
    Psk(Arc<PskHolder>),
}

/// Certificates are public, but long.
impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Certificates(chain) => write!(f, "Certificates({})", chain.len()),
            Self::Psk(holder) => f.debug_tuple("Psk").field(holder).finish(),
        }
    }
}

/// Whose a pre-shared key is, as the registry said when it gave the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PskHolder {
    /// The device's tenant.
    pub tenant: TenantId,
    /// Its name.
    pub device: Text,
    /// Its birth.
    pub born: u64,
    /// Which of its credentials.
    pub credential: u64,
}
