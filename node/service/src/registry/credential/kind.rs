//! What is kept of a credential: its kind's number, and the bytes of its verifier.
//!
//! | kind | verifier | found by |
//! |---|---|---|
//! | 1 secret | 32 bytes: keyed hash | the device's name |
//! | 2 token | the same, and the sealed token if it may be read again | lookup of the token |
//! | 3 login | 1, flags, client id, user name, keyed hash, argon2id or another system's | lookup of client id and user name, in its tenant |
//! | 4 certificate | 1, what is pinned, SHA-256 | lookup of the fingerprint |
//! | 5 psk | 1, identity, nonce and sealed key | lookup of the identity |
//! | 6 alias | 1, another name of the device, which proves nothing | lookup of the name, in its tenant |
//!
//! # Invariants
//!
//! - **The same bytes for ever**: checked by the golden bytes below. What does not read lets nobody in.
//! - **`Debug` prints nothing to guess a secret by.** Checked below.

use std::fmt;

use bytes::Bytes;
use moorline_core::{Text, foreign_hash::Form};
use moorline_storage::{
    StorageError,
    record::{Reader, Writer},
};

use super::{foreign::Foreign, password::SlowHash};

/// Generated secrets, and tokens of the API.
pub const SECRET: u8 = 1;
/// Access tokens.
pub const TOKEN: u8 = 2;
/// Client id, user name and password, each of which may be absent.
pub const LOGIN: u8 = 3;
/// Pinned certificates.
pub const CERTIFICATE: u8 = 4;
/// Pre-shared keys.
pub const PSK: u8 = 5;
/// Other names of devices: nobody comes in by one alone.
pub const ALIAS: u8 = 6;

/// Bytes of a login's client id, and of its user name: both, with a slow hash, have to fit into a verifier.
pub const CLIENT_BYTES_MAX: usize = 72;
/// See [`CLIENT_BYTES_MAX`].
pub const USER_BYTES_MAX: usize = 88;
/// Bytes of a pre-shared key's identity: with the sealed key it has to fit into a verifier.
pub const IDENTITY_BYTES_MAX: usize = 120;
/// Bytes of an alias: a certificate's subject is one.
pub const ALIAS_BYTES_MAX: usize = 240;
/// Bytes of a hash.
pub const HASH_BYTES: usize = 32;

const VERSION: u8 = 1;
const HAS_CLIENT: u8 = 1;
const HAS_USER: u8 = 2;
const IS_KEYED: u8 = 4;
const IS_SLOW: u8 = 8;
/// Versions before it let nobody in by such a row: they read none of what is behind the names.
const IS_FOREIGN: u8 = 16;
/// Room that most verifiers fit into.
const USUAL_BYTES: usize = 128;

/// What is kept of a credential.
#[derive(Clone, PartialEq, Eq)]
pub enum Kept {
    /// Keyed hash of a generated secret.
    Secret([u8; HASH_BYTES]),
    /// See [`Token`].
    Token(Token),
    /// See [`Login`].
    Login(Login),
    /// See [`Pin`].
    Certificate(Pin),
    /// See [`Psk`].
    Psk(Psk),
    /// Another name of the device.
    Alias(Text),
}

/// An access token.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// Its keyed hash.
    pub hash: [u8; HASH_BYTES],
    /// A nonce, and the token sealed with it, where its platform shows tokens again; empty otherwise.
    pub sealed: Bytes,
}

/// What an MQTT client says: what is there has to be the same. One of client id and user name is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// Its client id.
    pub client: Option<Text>,
    /// Its user name.
    pub user: Option<Text>,
    /// Its password.
    pub password: Option<Password>,
}

/// What is kept of a password.
#[derive(Clone, PartialEq, Eq)]
pub enum Password {
    /// It was generated: a keyed hash.
    Generated([u8; HASH_BYTES]),
    /// Somebody chose it.
    Chosen(SlowHash),
    /// Another system hashed it.
    Foreign(Foreign),
}

/// What of a certificate is pinned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Pinned {
    /// All of it: a renewed one is another.
    Certificate = 1,
    /// Its public key.
    Key = 2,
}

/// A pinned certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pin {
    /// What is pinned.
    pub what: Pinned,
    /// Its SHA-256: of the DER of the certificate, or of its SubjectPublicKeyInfo.
    pub sha256: [u8; HASH_BYTES],
}

/// A pre-shared key.
#[derive(Clone, PartialEq, Eq)]
pub struct Psk {
    /// What the client calls it.
    pub identity: Bytes,
    /// A nonce, and the key sealed with it.
    pub sealed: Bytes,
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Generated(_) => "generated",
            Self::Chosen(_) => "chosen",
            Self::Foreign(_) => "foreign",
        })
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").finish_non_exhaustive()
    }
}

impl fmt::Debug for Psk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Psk").field("identity", &self.identity).finish_non_exhaustive()
    }
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Kept {
    /// Its kind's number.
    #[must_use]
    pub fn kind(&self) -> u8 {
        match self {
            Self::Secret(_) => SECRET,
            Self::Token(_) => TOKEN,
            Self::Login(_) => LOGIN,
            Self::Certificate(_) => CERTIFICATE,
            Self::Psk(_) => PSK,
            Self::Alias(_) => ALIAS,
        }
    }

    /// Its kind's name, for eyes.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Secret(_) => "secret",
            Self::Token(_) => "token",
            Self::Login(login) => match login {
                Login { client: None, user: Some(_), password: Some(_) } => "password",
                Login { .. } => "mqtt-basic",
            },
            Self::Certificate(_) => "certificate",
            Self::Psk(_) => "psk",
            Self::Alias(_) => "alias",
        }
    }

    /// As it is kept.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        match self {
            Self::Secret(hash) => hash.to_vec().into(),
            Self::Token(Token { hash, sealed }) => [&hash[..], sealed].concat().into(),
            Self::Login(login) => login.to_bytes(),
            Self::Certificate(pin) => {
                let mut out = Writer::new(VERSION, USUAL_BYTES);
                out.u8(pin.what as u8);
                out.rest(&pin.sha256);
                out.done()
            }
            Self::Psk(psk) => {
                let mut out = Writer::new(VERSION, USUAL_BYTES);
                out.blob(&psk.identity);
                out.rest(&psk.sealed);
                out.done()
            }
            Self::Alias(name) => {
                let mut out = Writer::new(VERSION, USUAL_BYTES);
                out.text(name);
                out.done()
            }
        }
    }

    /// What was kept; [`None`] for what does not read, or was written by a later version.
    #[must_use]
    pub fn read(kind: u8, verifier: &Bytes) -> Option<Self> {
        let hash = || <[u8; HASH_BYTES]>::try_from(verifier.as_ref()).ok();
        match kind {
            SECRET => hash().map(Self::Secret),
            TOKEN => Token::read(verifier).map(Self::Token),
            LOGIN => Login::read(verifier).ok().map(Self::Login),
            CERTIFICATE => Pin::read(verifier).ok().map(Self::Certificate),
            PSK => Psk::read(verifier).ok().map(Self::Psk),
            ALIAS => alias(verifier).ok().map(Self::Alias),
            _ => None,
        }
    }
}

impl Login {
    fn to_bytes(&self) -> Bytes {
        let Self { client, user, password } = self;
        let mut flags = 0;
        flags |= if client.is_some() { HAS_CLIENT } else { 0 };
        flags |= if user.is_some() { HAS_USER } else { 0 };
        flags |= match password {
            None => 0,
            Some(Password::Generated(_)) => IS_KEYED,
            Some(Password::Chosen(_)) => IS_SLOW,
            Some(Password::Foreign(_)) => IS_FOREIGN,
        };
        let mut out = Writer::new(VERSION, USUAL_BYTES);
        out.u8(flags);
        for said in [client, user].into_iter().flatten() {
            out.text(said);
        }
        match password {
            None => {}
            Some(Password::Generated(hash)) => out.rest(hash),
            Some(Password::Chosen(slow)) => {
                out.u32(slow.memory_kib);
                out.u32(slow.passes);
                out.u32(slow.lanes);
                out.rest(&slow.salt);
                out.rest(&slow.hash);
            }
            Some(Password::Foreign(Foreign { form, cost, salt, hash })) => {
                out.u8(*form as u8);
                out.u32(*cost);
                out.blob(salt);
                out.rest(hash);
            }
        }
        out.done()
    }

    fn read(verifier: &Bytes) -> Result<Self, StorageError> {
        let mut from = Reader::new(verifier.clone(), VERSION, "login")?;
        let flags = from.u8()?;
        let has = |flag: u8| flags & flag != 0;
        let client = has(HAS_CLIENT).then(|| from.text()).transpose()?;
        let user = has(HAS_USER).then(|| from.text()).transpose()?;
        let password = match flags & (IS_KEYED | IS_SLOW | IS_FOREIGN) {
            0 => {
                from.end()?;
                None
            }
            IS_KEYED => Some(Password::Generated(exactly(from)?)),
            IS_SLOW => {
                let (memory_kib, passes, lanes) = (from.u32()?, from.u32()?, from.u32()?);
                let salt = from.u128()?.to_be_bytes();
                Some(Password::Chosen(SlowHash {
                    memory_kib,
                    passes,
                    lanes,
                    salt,
                    hash: exactly(from)?,
                }))
            }
            IS_FOREIGN => {
                let form = from.u8()?;
                let wrong = from.corrupt(format!("form {form} of a hash"));
                let form = Form::of(form).ok_or(wrong)?;
                let (cost, salt) = (from.u32()?, from.blob()?);
                Some(Password::Foreign(Foreign { form, cost, salt, hash: exactly(from)? }))
            }
            _ => return Err(from.corrupt("two passwords".to_owned())),
        };
        Ok(Self { client, user, password })
    }
}

impl Token {
    fn read(verifier: &Bytes) -> Option<Self> {
        let (hash, _) = verifier.split_first_chunk::<HASH_BYTES>()?;
        Some(Self { hash: *hash, sealed: verifier.slice(HASH_BYTES..) })
    }
}

impl Pin {
    fn read(verifier: &Bytes) -> Result<Self, StorageError> {
        let mut from = Reader::new(verifier.clone(), VERSION, "pin")?;
        let what = match from.u8()? {
            1 => Pinned::Certificate,
            2 => Pinned::Key,
            other => return Err(from.corrupt(format!("pinned {other}"))),
        };
        Ok(Self { what, sha256: exactly(from)? })
    }
}

impl Psk {
    fn read(verifier: &Bytes) -> Result<Self, StorageError> {
        let mut from = Reader::new(verifier.clone(), VERSION, "psk")?;
        let identity = from.blob()?;
        Ok(Self { identity, sealed: from.rest() })
    }
}

fn alias(verifier: &Bytes) -> Result<Text, StorageError> {
    let mut from = Reader::new(verifier.clone(), VERSION, "alias")?;
    let name = from.text()?;
    from.end()?;
    Ok(name)
}

/// The rest of a record, which has to be one hash.
fn exactly(from: Reader) -> Result<[u8; HASH_BYTES], StorageError> {
    let wrong = from.corrupt("not 32 bytes".to_owned());
    <[u8; HASH_BYTES]>::try_from(from.rest().as_ref()).map_err(|_| wrong)
}

#[cfg(test)]
mod tests {
    use moorline_machine::registry::VERIFIER_BYTES_MAX;

    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn slow() -> SlowHash {
        let (salt, hash) = ([0x5A; 16], [7; HASH_BYTES]);
        SlowHash { memory_kib: 19_456, passes: 2, lanes: 1, salt, hash }
    }

    fn foreign(form: Form) -> Foreign {
        Foreign { form, cost: 10, salt: Bytes::from_static(&[0x5A; 16]), hash: [7; HASH_BYTES] }
    }

    fn login(client: Option<&str>, user: Option<&str>, password: Option<Password>) -> Kept {
        Kept::Login(Login { client: client.map(Text::from), user: user.map(Text::from), password })
    }

    fn token(sealed: &'static [u8]) -> Kept {
        Kept::Token(Token { hash: [7; HASH_BYTES], sealed: Bytes::from_static(sealed) })
    }

    #[test]
    fn kinds_and_bytes_are_for_ever() {
        let (sevens, ones) = ("07".repeat(32), "01".repeat(32));
        let psk = Psk { identity: Bytes::from_static(b"id"), sealed: Bytes::from_static(b"xyz") };
        let pin = |what| Kept::Certificate(Pin { what, sha256: [1; HASH_BYTES] });
        let slow_hex = format!("00004c000000000200000001{}{sevens}", "5a".repeat(16));
        let foreign_hex = format!("010000000a00000010{}{sevens}", "5a".repeat(16));
        #[rustfmt::skip]
        let table = [
            (Kept::Secret([7; HASH_BYTES]), 1, "secret", sevens.clone()),
            (token(b""), 2, "token", sevens.clone()),
            (token(b"xyz"), 2, "token", format!("{sevens}78797a")),
            (login(None, Some("u"), Some(Password::Generated([7; HASH_BYTES]))), 3, "password",
                format!("01060000000175{sevens}")),
            (login(None, Some("u"), Some(Password::Chosen(slow()))), 3, "password",
                format!("010a0000000175{slow_hex}")),
            (login(None, Some("u"), Some(Password::Foreign(foreign(Form::Bcrypt)))), 3, "password",
                format!("01120000000175{foreign_hex}")),
            (login(Some("c"), None, Some(Password::Foreign(foreign(Form::Sha512)))), 3, "mqtt-basic",
                format!("01110000000163{}", foreign_hex.replacen("01", "02", 1))),
            (login(Some("c"), Some("u"), None), 3, "mqtt-basic", "010300000001630000000175".to_owned()),
            (login(Some("c"), None, None), 3, "mqtt-basic", "01010000000163".to_owned()),
            (pin(Pinned::Certificate), 4, "certificate", format!("0101{ones}")),
            (pin(Pinned::Key), 4, "certificate", format!("0102{ones}")),
            (Kept::Psk(psk), 5, "psk", "0100000002696478797a".to_owned()),
            (Kept::Alias(Text::from("old")), 6, "alias", "01000000036f6c64".to_owned()),
        ];
        for (kept, kind, name, bytes) in table {
            assert_eq!((kept.kind(), kept.name(), hex(&kept.to_bytes())), (kind, name, bytes));
            assert!(Kept::read(kind, &kept.to_bytes()) == Some(kept), "{name}");
        }
    }

    #[test]
    fn what_does_not_read_is_nothing() {
        for (kind, bytes) in [
            (SECRET, &[7; 31][..]),
            (TOKEN, &[7; 31]),
            (LOGIN, &[]),
            (LOGIN, &[2, 0]),
            (LOGIN, &[1, 12]),
            (LOGIN, &[1, 0, 0]),
            (LOGIN, &[1, 16, 3, 0, 0, 0, 10, 0, 0, 0, 0]),
            (LOGIN, &[1, 16, 1, 0, 0, 0, 10, 0, 0, 0, 0, 7]),
            (LOGIN, &[1, 24]),
            (CERTIFICATE, &[1, 3]),
            (CERTIFICATE, &[1, 1, 0]),
            (PSK, &[1, 9]),
            (ALIAS, &[1, 0, 0, 0, 9]),
            (ALIAS, &[1, 0, 0, 0, 0, 7]),
            (7, &[7; 32]),
        ] {
            assert!(Kept::read(kind, &Bytes::copy_from_slice(bytes)).is_none(), "{kind} {bytes:?}");
        }
    }

    #[test]
    fn the_longest_fit_into_a_verifier() {
        let text = |bytes| Some(Text::from("x".repeat(bytes)));
        for password in [Password::Chosen(slow()), Password::Foreign(foreign(Form::Sha512))] {
            let (client, user) = (text(CLIENT_BYTES_MAX), text(USER_BYTES_MAX));
            let login = Login { client, user, password: Some(password) };
            let longest = Kept::Login(login).to_bytes().len();
            assert!(longest <= VERIFIER_BYTES_MAX, "{longest}");
        }
        // A nonce of 24 bytes, a key of 64, a tag of 16.
        let sealed = Bytes::from(vec![0; 24 + 64 + 16]);
        let psk = Psk { identity: vec![0; IDENTITY_BYTES_MAX].into(), sealed };
        let longest = Kept::Psk(psk).to_bytes().len();
        assert!(longest <= VERIFIER_BYTES_MAX, "{longest}");
        let longest = Kept::Alias(Text::from("x".repeat(ALIAS_BYTES_MAX))).to_bytes().len();
        assert!(longest <= VERIFIER_BYTES_MAX, "{longest}");
    }

    #[test]
    fn nothing_of_a_verifier_is_printed() {
        let kept = login(None, Some("u"), Some(Password::Chosen(slow())));
        assert_eq!(format!("{kept:?}"), "password");
    }
}
