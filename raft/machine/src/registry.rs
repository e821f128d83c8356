//! The registry's words: tenants, devices, credentials and lookups, and the commands that change them.
//!
//! ```text
//!   meta group, on every node    PutTenant, DeleteTenant ──► TenantRecord      `meta::tenants`
//!   shard of (tenant, device)    PutDevice, DeleteDevice ──► DeviceRecord      `shard::devices`
//!   shard of (0, hash)           PutLookup, DeleteLookup ──► Owner, a hint     `shard::devices`
//! ```
//!
//! # Invariants
//!
//! - **No secret is in the log or in a row**: the proposer made verifiers and hashes of them, and `Debug` leaves both out.
//!   The latter is checked by this file's test.
//! - **A version never comes twice**, not even for a device that was deleted and made again: it is the place of its write
//!   in the log. Checked by `tests/rules/devices.rs`.
//!
//! # Deliberately absent
//!
//! What settings and verifiers mean, and who may change them (`node/service`).

use std::fmt;

use bytes::Bytes;
use moorline_core::{TenantId, Text, UnixMillis};

use crate::answer::Refused;

/// Whose lookups are, when their bucket is computed: who asks does not know the tenant yet.
pub const LOOKUP_TENANT: TenantId = TenantId(0);
/// Whose rows are what the API keeps of its own: no device has a session there, so that nothing of one is to be forgotten elsewhere,
/// and nobody is told of changes or has to account for them.
pub const NOBODY: TenantId = TenantId(u32::MAX);
/// Bytes of a tenant's name.
pub const TENANT_NAME_BYTES_MAX: usize = 64;
/// What one tenant is called by its platforms: a handful each.
pub const TENANT_ALIASES_MAX: usize = 16;
/// Bytes of an alias: a platform's name and its id.
pub const TENANT_ALIAS_BYTES_MAX: usize = 128;
/// Bytes of a tenant's settings: every node holds them in memory.
pub const TENANT_SETTINGS_BYTES_MAX: usize = 16 * 1024;
/// Bytes of a device's name.
pub const DEVICE_NAME_BYTES_MAX: usize = 160;
/// Bytes of a device's settings: with all credentials a row stays below 16 KiB.
pub const DEVICE_SETTINGS_BYTES_MAX: usize = 8 * 1024;
/// Credentials of a device: an old one and a new one of each sort it may use. A connection tries each in turn.
pub const CREDENTIALS_MAX: usize = 8;
/// Bytes of a credential's verifier: an argon2id string has about 100.
pub const VERIFIER_BYTES_MAX: usize = 256;

/// A keyed hash of what a client shows when that does not name the device: an access token, a certificate, a PSK identity.
/// Made by the proposer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LookupHash(pub [u8; 32]);

impl fmt::Debug for LookupHash {
    /// Its first four bytes: enough to tell two apart, too few to look anything up.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, second, third, fourth, ..] = self.0;
        write!(f, "LookupHash({first:02x}{second:02x}{third:02x}{fourth:02x}…)")
    }
}

/// What the cluster knows of a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantRecord {
    /// Unique in the cluster: 1 to [`TENANT_NAME_BYTES_MAX`] bytes; their alphabet is the proposer's business.
    pub name: Text,
    /// How platforms call it (`fostrom:FLEET001`): each unique in the cluster.
    pub aliases: Vec<Text>,
    /// Whether its clients may connect.
    pub enabled: bool,
    /// Grows with every write, and never comes again; 1 while only [`crate::Command::SetTenant`] wrote it.
    pub version: u64,
    /// When it was made, in log time; 0 as above.
    pub created: UnixMillis,
    /// When it was last written, in log time; 0 as above.
    pub updated: UnixMillis,
    /// The proposer's.
    pub settings: Bytes,
}

/// What a device proves its identity with. In the record of its device.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    /// Random, given by the proposer; unique in its device.
    pub id: u64,
    /// Which sort. The proposer's.
    pub kind: u8,
    /// What it is found by, if what the client shows does not name the device.
    pub lookup: Option<LookupHash>,
    /// What the proposer made of the secret: a keyed hash, an argon2id string, a sealed key.
    pub verifier: Bytes,
    /// From when on it counts, inclusive.
    pub not_before: Option<UnixMillis>,
    /// Until when, exclusive.
    pub not_after: Option<UnixMillis>,
    /// When it was made, in log time. 0 in a command: by this command. So whoever changes one credential sends the others
    /// back as they were read.
    pub created: UnixMillis,
}

impl fmt::Debug for Credential {
    /// Without the verifier: who reads a trace gets nothing to guess a password by.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, kind, lookup, verifier, not_before, not_after, created } = self;
        f.debug_struct("Credential")
            .field("id", id)
            .field("kind", kind)
            .field("lookup", lookup)
            .field("verifier_bytes", &verifier.len())
            .field("not_before", not_before)
            .field("not_after", not_after)
            .field("created", created)
            .finish()
    }
}

/// What its shard knows of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceRecord {
    /// The version it was made with. A device that is deleted and made again is another one.
    pub born: u64,
    /// Grows with every write, and never comes again.
    pub version: u64,
    /// Whether it may connect.
    pub enabled: bool,
    /// When it was made, in log time.
    pub created: UnixMillis,
    /// When it was last written, in log time.
    pub updated: UnixMillis,
    /// At most [`CREDENTIALS_MAX`], in the order they were put.
    pub credentials: Vec<Credential>,
    /// The proposer's: type, class, labels, …
    pub settings: Bytes,
}

/// Who a lookup leads to. A hint: the device's row decides. It must be of this birth and have a credential with the hash.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Owner {
    /// The device's tenant.
    pub tenant: TenantId,
    /// Its name.
    pub device: Text,
    /// [`DeviceRecord::born`].
    pub born: u64,
}

/// Makes a tenant or replaces what is known of it. Answered with [`crate::Answer::Tenant`]. Refused: `Exists`,
/// `VersionMismatch`, `NotFound`, `TooMany`, `TooLarge`, `Malformed`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutTenant {
    /// Which; 0 makes one, with the next id. Ids are never used again.
    pub tenant: TenantId,
    /// See [`TenantRecord::name`].
    pub name: Text,
    /// See [`TenantRecord::aliases`].
    pub aliases: Vec<Text>,
    /// See [`TenantRecord::enabled`].
    pub enabled: bool,
    /// At most [`TENANT_SETTINGS_BYTES_MAX`].
    pub settings: Bytes,
    /// As in [`PutDevice`].
    pub if_version: Option<u64>,
}

/// Forgets a tenant. That it has no devices any more is for the proposer to see to. Answered with `Done`. Refused:
/// `VersionMismatch`, `NotFound`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeleteTenant {
    /// Which.
    pub tenant: TenantId,
    /// Refused if it has another version.
    pub if_version: Option<u64>,
}

/// Makes a device or replaces what is known of it. Answered with [`crate::Answer::Device`]. Refused: `Exists`,
/// `VersionMismatch`, `NotFound`, `TooMany`, `TooLarge`, `Malformed`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutDevice {
    /// Whose.
    pub tenant: TenantId,
    /// Its name: 1 to [`DEVICE_NAME_BYTES_MAX`] bytes of any text.
    pub device: Text,
    /// See [`DeviceRecord::enabled`].
    pub enabled: bool,
    /// All of them, in the place of those it had. No two share an id or a lookup.
    pub credentials: Vec<Credential>,
    /// At most [`DEVICE_SETTINGS_BYTES_MAX`].
    pub settings: Bytes,
    /// Refused if it has another version. 0: if it exists. `None`: never.
    pub if_version: Option<u64>,
    /// How many devices the tenant may have in this shard, this one included if it is new.
    pub devices_max: u32,
}

/// Forgets a device with its credentials. Answered with `Done`. Refused: `VersionMismatch`, `NotFound`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeleteDevice {
    /// Whose.
    pub tenant: TenantId,
    /// Its name.
    pub device: Text,
    /// Refused if it has another version.
    pub if_version: Option<u64>,
}

/// Lets a device be found by what its client shows. Answered with `Done`, or [`crate::Answer::Taken`]. Refused: `TooMany`,
/// `TooLarge`, `Malformed`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutLookup {
    /// By this.
    pub hash: LookupHash,
    /// Whom it leads to from now on.
    pub owner: Owner,
    /// Whom it may be taken from: the proposer saw that the row of this one does not list the hash (any more).
    pub takes: Option<Owner>,
}

/// Forgets a lookup, if it still leads there. Answered with `Done`. Refused: `NotFound`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeleteLookup {
    /// Which.
    pub hash: LookupHash,
    /// Whom it must lead to.
    pub owner: Owner,
}

/// Whether something of this version (`None`: it is not there) may be written or deleted under a condition.
pub(crate) fn check_version(known: Option<u64>, if_version: Option<u64>) -> Result<(), Refused> {
    match (known, if_version) {
        (_, None) | (None, Some(0)) => Ok(()),
        (Some(version), Some(wanted)) if version == wanted => Ok(()),
        (Some(_), Some(0)) => Err(Refused::Exists),
        (Some(version), Some(_)) => Err(Refused::VersionMismatch { version }),
        (None, Some(_)) => Err(Refused::NotFound),
    }
}

/// Text with 1 to `bytes_max` bytes.
pub(crate) fn check_text(text: &Text, bytes_max: usize) -> Result<(), Refused> {
    match text.len() {
        0 => Err(Refused::Malformed),
        len if len > bytes_max => Err(Refused::TooLarge),
        _ => Ok(()),
    }
}

impl PutTenant {
    /// What can be said without knowing other tenants.
    pub(crate) fn check(&self) -> Result<(), Refused> {
        check_text(&self.name, TENANT_NAME_BYTES_MAX)?;
        if self.aliases.len() > TENANT_ALIASES_MAX {
            return Err(Refused::TooMany);
        }
        self.aliases.iter().try_for_each(|alias| check_text(alias, TENANT_ALIAS_BYTES_MAX))?;
        if self.settings.len() > TENANT_SETTINGS_BYTES_MAX {
            return Err(Refused::TooLarge);
        }
        if twice(&self.aliases) { Err(Refused::Malformed) } else { Ok(()) }
    }
}

impl PutDevice {
    /// What can be said without knowing other devices.
    pub(crate) fn check(&self) -> Result<(), Refused> {
        check_text(&self.device, DEVICE_NAME_BYTES_MAX)?;
        if self.credentials.len() > CREDENTIALS_MAX {
            return Err(Refused::TooMany);
        }
        let long = |credential: &Credential| credential.verifier.len() > VERIFIER_BYTES_MAX;
        if self.settings.len() > DEVICE_SETTINGS_BYTES_MAX || self.credentials.iter().any(long) {
            return Err(Refused::TooLarge);
        }
        let ids: Vec<u64> = self.credentials.iter().map(|credential| credential.id).collect();
        let found_by = |credential: &Credential| credential.lookup;
        let lookups: Vec<LookupHash> = self.credentials.iter().filter_map(found_by).collect();
        let malformed = twice(&ids) || twice(&lookups);
        if malformed { Err(Refused::Malformed) } else { Ok(()) }
    }
}

/// Whether anything is in a list twice. For short lists.
fn twice<T: PartialEq>(list: &[T]) -> bool {
    list.iter().enumerate().any(|(at, item)| list[..at].contains(item))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_is_on_the_version_or_on_absence() {
        let other = Err(Refused::VersionMismatch { version: 7 });
        #[rustfmt::skip]
        let table = [
            (None,    None,    Ok(())),
            (None,    Some(0), Ok(())),
            (None,    Some(7), Err(Refused::NotFound)),
            (Some(7), None,    Ok(())),
            (Some(7), Some(0), Err(Refused::Exists)),
            (Some(7), Some(6), other),
            (Some(7), Some(7), Ok(())),
        ];
        for (known, if_version, expected) in table {
            assert_eq!(check_version(known, if_version), expected, "{known:?} {if_version:?}");
        }
    }

    #[test]
    fn what_is_shown_has_no_verifier_and_no_whole_hash() {
        let credential = Credential {
            id: 1,
            kind: 2,
            lookup: Some(LookupHash([0xAB; 32])),
            verifier: Bytes::from_static(b"canary"),
            not_before: None,
            not_after: None,
            created: UnixMillis(3),
        };
        let shown = format!("{credential:?}");
        assert!(shown.contains("LookupHash(abababab…)") && shown.contains("verifier_bytes: 6"));
        assert!(!shown.contains("canary") && !shown.contains("ababababab"), "{shown}");
    }
}
