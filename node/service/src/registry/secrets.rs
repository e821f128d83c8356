//! Secrets of devices and API tokens: made here, shown once, and kept only as keyed hashes. Pre-shared keys, which TLS needs
//! as they are, are sealed.
//!
//! A generated secret has at least 160 random bits, so nobody guesses it and a fast hash is enough; the key of the hash is the
//! cluster's, in a file outside the data directory, so that a stolen disk gives nothing to try secrets against. What people choose
//! goes through [`Passwords`].
//!
//! # Invariants
//!
//! - **No secret leaves this file but in the answer to whoever asked for it**: `Debug` prints none. Checked below.
//! - **Comparisons take the same time whatever differs.**

use std::{fmt, fs, io, path::Path, sync::Arc};

use bytes::Bytes;
use chacha20poly1305::{
    Key, XChaCha20Poly1305, XNonce,
    aead::{Aead, KeyInit, Payload},
};
use hmac::{Hmac, Mac};
use moorline_core::{TenantId, Text};
use moorline_machine::registry::{Credential, DeviceRecord, LookupHash};
use sha2::Sha256;
use zeroize::Zeroizing;

pub use super::credential::kind::SECRET;
use super::credential::password::{Passwords, Place, SALT_BYTES};

/// Bytes of the cluster's key.
pub const KEY_BYTES: usize = 32;
/// Characters of generated secrets, of 36 (Fostrom's) or 62.
const UPPER: &[u8; 36] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
const BASE62: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// Bits that a secret of somebody else's must have: who has the rows and the cluster's key and tries 10^12 a second needs 10^11 years
/// to go through half of them. Not more, since tokens that platforms issued have no more: 18 characters of Watson's, 20 of
/// ThingsBoard's.
const SECRET_BITS_MIN: usize = 104;
/// Bytes of such a secret.
const SECRET_BYTES_MAX: usize = 256;
/// Different characters of such a secret: `aaaa…` has none of the bits its length promises.
const SECRET_CHARACTERS_MIN: usize = 8;
/// Bytes of the nonce in front of what is sealed: so many that random ones never meet.
const NONCE_BYTES: usize = 24;

/// Whether somebody who knows only its alphabet would have to guess so many bits.
#[must_use]
pub fn is_strong(secret: &str) -> bool {
    // Hundredths of bits of a random character.
    let all = |is_of: fn(&u8) -> bool| secret.bytes().all(|byte| is_of(&byte));
    let bits = if all(|byte| byte.is_ascii_digit()) {
        332
    } else if all(u8::is_ascii_hexdigit) {
        400
    } else if all(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase())
        || all(|byte| byte.is_ascii_digit() || byte.is_ascii_lowercase())
    {
        516
    } else if all(u8::is_ascii_alphanumeric) {
        595
    } else {
        650
    };
    let mut characters: Vec<_> = secret.bytes().collect();
    characters.sort_unstable();
    characters.dedup();
    secret.len() <= SECRET_BYTES_MAX
        && secret.len() * bits / 100 >= SECRET_BITS_MIN
        && characters.len() >= SECRET_CHARACTERS_MIN
}

/// The cluster's key, and what is done with it. Clones are the same.
#[derive(Clone)]
pub struct Secrets {
    key: Zeroizing<[u8; KEY_BYTES]>,
    passwords: Arc<Passwords>,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secrets").finish_non_exhaustive()
    }
}

/// How a generated secret looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// 43 letters and digits: 256 bits.
    Plain,
    /// `FOS-` and 32 capital letters and digits: 165 bits, as Fostrom's devices and their agents want it.
    Fostrom,
}

/// A new secret of this style out of random bytes.
#[must_use]
pub fn generate(style: Style, random: &mut impl FnMut() -> u8) -> String {
    let (prefix, alphabet, characters) = match style {
        Style::Plain => ("", &BASE62[..], 43),
        Style::Fostrom => ("FOS-", &UPPER[..], 32),
    };
    // Bytes beyond the last whole multiple of the alphabet would make its first characters likelier.
    let fair = 256 - 256 % alphabet.len();
    let mut secret = prefix.to_owned();
    for _ in 0..characters {
        let byte = loop {
            let byte = usize::from(random());
            if byte < fair {
                break byte;
            }
        };
        secret.push(char::from(alphabet[byte % alphabet.len()]));
    }
    secret
}

impl Secrets {
    /// With this key.
    #[must_use]
    pub fn new(key: [u8; KEY_BYTES]) -> Self {
        let of = |purpose| mac(&key, purpose, &[]).finalize().into_bytes().into();
        let passwords = Passwords::new(of("moorline password pepper v1"), rand::random());
        Self { key: Zeroizing::new(key), passwords: Arc::new(passwords) }
    }

    /// Passwords that people chose.
    #[must_use]
    pub fn passwords(&self) -> &Passwords {
        &self.passwords
    }

    /// Reads a key file: 64 hexadecimal digits.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::InvalidData`] if it is none, and why it cannot be read.
    pub fn load(file: &Path) -> io::Result<Self> {
        let text = fs::read_to_string(file)?;
        let wrong =
            || io::Error::new(io::ErrorKind::InvalidData, "64 hexadecimal digits are wanted");
        let digits = text.trim();
        if digits.len() != 2 * KEY_BYTES || !digits.is_ascii() {
            return Err(wrong());
        }
        let mut key = [0; KEY_BYTES];
        for (place, byte) in key.iter_mut().enumerate() {
            let pair = &digits[2 * place..2 * place + 2];
            *byte = u8::from_str_radix(pair, 16).map_err(|_| wrong())?;
        }
        Ok(Self::new(key))
    }

    /// What tells two keys apart and gives neither away.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 8] {
        let whole = self.mac("moorline key fingerprint", &[]).finalize().into_bytes();
        whole[..8].try_into().expect("a digest has 32 bytes")
    }

    fn mac(&self, purpose: &str, parts: &[&[u8]]) -> Hmac<Sha256> {
        mac(&self.key, purpose, parts)
    }

    fn of_device(&self, tenant: TenantId, device: &Text, id: u64, secret: &[u8]) -> Hmac<Sha256> {
        let (tenant, id) = (tenant.0.to_be_bytes(), id.to_be_bytes());
        self.mac("moorline device v1", &[&tenant, device.as_bytes(), &id, secret])
    }

    /// A key for one purpose: it gives away neither the cluster's nor another purpose's.
    #[must_use]
    pub fn key_for(&self, purpose: &str) -> Zeroizing<[u8; KEY_BYTES]> {
        let derived = self.mac("moorline derived key v1", &[purpose.as_bytes()]);
        Zeroizing::new(derived.finalize().into_bytes().into())
    }

    /// What is kept of a device's secret.
    #[must_use]
    pub fn verifier(&self, tenant: TenantId, device: &Text, id: u64, secret: &[u8]) -> [u8; 32] {
        self.of_device(tenant, device, id, secret).finalize().into_bytes().into()
    }

    /// What the password of a place is hashed with: of no other place's, and known only with the cluster's key.
    #[must_use]
    pub fn salt(&self, place: Place<'_>) -> [u8; SALT_BYTES] {
        let (tenant, id) = (place.tenant.0.to_be_bytes(), place.id.to_be_bytes());
        let mac = self.mac("moorline salt v1", &[&tenant, place.device.as_bytes(), &id]);
        let whole = mac.finalize().into_bytes();
        whole[..SALT_BYTES].try_into().expect("a digest has 32 bytes")
    }

    /// Whether a secret is the one a verifier was made of.
    #[must_use]
    pub fn verify(
        &self,
        tenant: TenantId,
        device: &Text,
        id: u64,
        secret: &[u8],
        verifier: &[u8],
    ) -> bool {
        self.of_device(tenant, device, id, secret).verify_slice(verifier).is_ok()
    }

    /// A device's credential of which this is the secret, and that counts now.
    #[must_use]
    pub fn holds<'a>(
        &self,
        tenant: TenantId,
        device: &Text,
        record: &'a DeviceRecord,
        secret: &[u8],
        now_ms: u64,
    ) -> Option<&'a Credential> {
        let mut fitting = self.fitting(tenant, device, record, secret);
        fitting.find(|held| counts(held, now_ms))
    }

    /// A device's credentials of which this is the secret, also those that do not count now.
    pub(crate) fn fitting<'a>(
        &self,
        tenant: TenantId,
        device: &Text,
        record: &'a DeviceRecord,
        secret: &[u8],
    ) -> impl Iterator<Item = &'a Credential> {
        let all = record.credentials.iter().filter(|held| held.kind == SECRET);
        all.filter(move |held| self.verify(tenant, device, held.id, secret, &held.verifier))
    }

    /// What a credential is found by that does not name its device: `kind` says what was shown.
    #[must_use]
    pub fn lookup(&self, kind: &str, shown: &[u8]) -> LookupHash {
        let mac = self.mac("moorline lookup v1", &[kind.as_bytes(), shown]);
        LookupHash(mac.finalize().into_bytes().into())
    }

    /// What a login is found by, in its tenant: as much of a client id and a user name as it asks for.
    #[must_use]
    pub fn lookup_login(
        &self,
        tenant: TenantId,
        client: Option<&Text>,
        user: Option<&Text>,
    ) -> LookupHash {
        let said = |text: Option<&Text>| [u8::from(text.is_some())];
        let bytes = |text: Option<&Text>| text.map(|text| text.as_bytes().to_vec());
        let (client_said, user_said) = (said(client), said(user));
        let (client, user) = (bytes(client).unwrap_or_default(), bytes(user).unwrap_or_default());
        let tenant = tenant.0.to_be_bytes();
        let parts = [&b"login"[..], &tenant, &client_said, &client, &user_said, &user];
        LookupHash(self.mac("moorline lookup v1", &parts).finalize().into_bytes().into())
    }

    /// Seals a pre-shared key for its credential: a nonce, and the key behind it.
    ///
    /// # Panics
    ///
    /// Never: a key is far below what the cipher can take.
    #[must_use]
    pub fn seal(&self, place: Place<'_>, nonce: [u8; NONCE_BYTES], key: &[u8]) -> Bytes {
        let about = about(place);
        let payload = Payload { msg: key, aad: &about };
        let sealed = self.cipher().encrypt(&XNonce::from(nonce), payload);
        let sealed = sealed.expect("a key is short");
        [&nonce[..], &sealed].concat().into()
    }

    /// The same, and the same bytes again for the same key: the nonce follows from it, so that an import sees what is there.
    #[must_use]
    pub fn seal_again(&self, place: Place<'_>, key: &[u8]) -> Bytes {
        let whole = self.mac("moorline seal nonce v1", &[&about(place), key]);
        let whole = whole.finalize().into_bytes();
        let nonce = whole[..NONCE_BYTES].try_into().expect("a digest has 32 bytes");
        self.seal(place, nonce, key)
    }

    /// The key that was sealed for this credential; [`None`] if it is of another, or was changed.
    #[must_use]
    pub fn open(&self, place: Place<'_>, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_BYTES>()?;
        let about = about(place);
        let payload = Payload { msg: sealed, aad: &about };
        self.cipher().decrypt(&XNonce::from(*nonce), payload).ok().map(Zeroizing::new)
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        let key: [u8; KEY_BYTES] =
            self.mac("moorline psk seal v1", &[]).finalize().into_bytes().into();
        XChaCha20Poly1305::new(&Key::from(key))
    }
}

fn mac(key: &[u8; KEY_BYTES], purpose: &str, parts: &[&[u8]]) -> Hmac<Sha256> {
    let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(key).expect("any length will do");
    mac.update(purpose.as_bytes());
    for part in parts {
        // With their lengths, so that no two lists of parts look alike.
        mac.update(&(part.len() as u64).to_be_bytes());
        mac.update(part);
    }
    mac
}

/// What a sealed key belongs to.
fn about(place: Place<'_>) -> Vec<u8> {
    let Place { tenant, device, id } = place;
    [&tenant.0.to_be_bytes()[..], &id.to_be_bytes(), device.as_bytes()].concat()
}

/// Whether a credential counts at a moment.
#[must_use]
pub fn counts(held: &Credential, now_ms: u64) -> bool {
    held.not_before.is_none_or(|from| from.0 <= now_ms)
        && held.not_after.is_none_or(|until| now_ms < until.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TENANT: TenantId = TenantId(7);

    #[test]
    fn a_secret_of_somebody_else_must_be_as_hard_to_guess_as_ours() {
        for (secret, strong) in [
            ("0123456789abcdef0123456789abcdef", true),
            ("0123456789abcdef0123456789", true),
            ("0123456789abcdef012345678", false),
            ("Zk3vQ9xLw2RtY7uPb5", true),
            ("Zk3vQ9xLw2RtY7uPb", false),
            ("FOS-0123456789ABCDEFGHIJKLMNOPQRSTUV", true),
            ("hunter2", false),
            ("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", false),
        ] {
            assert_eq!(is_strong(secret), strong, "{secret}");
        }
        assert!(!is_strong(&"0123456789abcdef".repeat(17)));
    }

    #[test]
    fn a_secret_is_verified_for_its_device_and_credential_only() {
        let (secrets, other) = (Secrets::new([1; KEY_BYTES]), Secrets::new([2; KEY_BYTES]));
        let device = Text::from("pump");
        let verifier = secrets.verifier(TENANT, &device, 3, b"secret");
        assert!(secrets.verify(TENANT, &device, 3, b"secret", &verifier));
        #[rustfmt::skip]
        let wrong = [
            secrets.verify(TENANT, &device, 3, b"secreT", &verifier),
            secrets.verify(TENANT, &device, 4, b"secret", &verifier),
            secrets.verify(TENANT, &Text::from("pum"), 3, b"secret", &verifier),
            secrets.verify(TenantId(8), &device, 3, b"secret", &verifier),
            secrets.verify(TENANT, &device, 3, b"secret", &verifier[..31]),
            other.verify(TENANT, &device, 3, b"secret", &verifier),
        ];
        assert!(wrong.iter().all(|verified| !verified));
        assert_ne!(secrets.fingerprint(), other.fingerprint());
        assert_ne!(secrets.lookup("token", b"a"), secrets.lookup("psk", b"a"));
    }

    #[test]
    fn a_sealed_key_opens_for_its_credential_only() {
        let (secrets, other) = (Secrets::new([1; KEY_BYTES]), Secrets::new([2; KEY_BYTES]));
        let (device, wrong) = (Text::from("pump"), Text::from("pum"));
        let place = Place { tenant: TENANT, device: &device, id: 3 };
        let sealed = secrets.seal(place, [9; NONCE_BYTES], b"a key of sixteen");
        assert!(!sealed.windows(5).any(|part| part == b"a key"));
        assert_eq!(secrets.open(place, &sealed).unwrap().as_slice(), b"a key of sixteen");
        let mut changed = sealed.to_vec();
        changed[NONCE_BYTES] ^= 1;
        #[rustfmt::skip]
        let refused = [
            secrets.open(place, &changed),
            secrets.open(place, &sealed[..NONCE_BYTES]),
            secrets.open(place, &[]),
            secrets.open(Place { id: 4, ..place }, &sealed),
            secrets.open(Place { device: &wrong, ..place }, &sealed),
            secrets.open(Place { tenant: TenantId(8), ..place }, &sealed),
            other.open(place, &sealed),
        ];
        assert!(refused.iter().all(Option::is_none));
    }

    #[test]
    fn logins_of_two_tenants_and_other_words_are_found_by_other_hashes() {
        let secrets = Secrets::new([1; KEY_BYTES]);
        let (one, two) = (Text::from("one"), Text::from("two"));
        let hashes = [
            secrets.lookup_login(TENANT, None, Some(&one)),
            secrets.lookup_login(TenantId(8), None, Some(&one)),
            secrets.lookup_login(TENANT, Some(&one), None),
            secrets.lookup_login(TENANT, Some(&one), Some(&two)),
            secrets.lookup_login(TENANT, Some(&two), Some(&one)),
            secrets.lookup_login(TENANT, Some(&one), Some(&Text::default())),
        ];
        for (at, hash) in hashes.iter().enumerate() {
            assert!(!hashes[..at].contains(hash), "{at}");
        }
    }

    #[test]
    fn generated_secrets_have_their_shape_and_every_character() {
        let mut next = 0_u8;
        let mut random = || {
            next = next.wrapping_add(1);
            next
        };
        let plain: String = (0..20).map(|_| generate(Style::Plain, &mut random)).collect();
        assert_eq!(plain.len(), 20 * 43);
        assert!(BASE62.iter().all(|wanted| plain.as_bytes().contains(wanted)));
        let fostrom = generate(Style::Fostrom, &mut random);
        assert_eq!(fostrom.len(), 36);
        assert!(fostrom.starts_with("FOS-"));
        assert!(fostrom.bytes().skip(4).all(|byte| UPPER.contains(&byte)));
    }

    #[test]
    fn a_key_file_is_hexadecimal_and_never_printed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("key");
        fs::write(&file, "ab".repeat(KEY_BYTES) + "\n").unwrap();
        let secrets = Secrets::load(&file).unwrap();
        assert_eq!(secrets.fingerprint(), Secrets::new([0xAB; KEY_BYTES]).fingerprint());
        assert_eq!(format!("{secrets:?}"), "Secrets { .. }");
        for wrong in ["", "ab", &"xy".repeat(KEY_BYTES), &"é".repeat(KEY_BYTES)] {
            fs::write(&file, wrong).unwrap();
            assert_eq!(Secrets::load(&file).unwrap_err().kind(), io::ErrorKind::InvalidData);
        }
    }
}
