//! Organisations in host names: `{org}.messaging.{domain}` for messages, `{org}.{domain}` for the management API (§1.1).
//!
//! The domain is not compared: whoever runs a cluster chooses it, and tests go by addresses.

use moorline_core::Text;

use super::{ascii, is_org};

/// The label that tells the two kinds of host names apart.
const MESSAGING: &str = "messaging";

/// A host name that names an organisation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// The organisation: the first label.
    pub org: Text,
    /// Whether it is the host for messages.
    pub messaging: bool,
}

/// Reads a Host header, with or without a port; `None` if its first label is no organisation (an address, `localhost`).
#[must_use]
pub fn host(header: &[u8]) -> Option<Host> {
    let host = header.split(|byte| *byte == b':').next().unwrap_or_default();
    let host = host.to_ascii_lowercase();
    let mut labels = host.split(|byte| *byte == b'.');
    let org = labels.next().filter(|org| is_org(org))?;
    let messaging = labels.next() == Some(MESSAGING.as_bytes());
    Some(Host { org: ascii(org), messaging })
}

/// Whether a server name of TLS is the messaging host of another organisation: such a connection ends without a CONNACK.
///
/// Only `{org}.messaging.…` says anything: a cluster's own name may happen to have six characters in its first label.
#[must_use]
pub fn sni_contradicts(sni: &[u8], org: &Text) -> bool {
    host(sni).is_some_and(|host| host.messaging && host.org != *org)
}
