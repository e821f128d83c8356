//! A credential out of what an operator asked for, with what has to be shown to them once.
//!
//! # Invariants
//!
//! - **What is generated has at least 256 bits**; what somebody brings is long enough, or goes through the slow hash. Checked below.
//! - **`Debug` prints no secret.**

use std::fmt;

use bytes::Bytes;
use moorline_core::{
    TenantId, Text, UnixMillis,
    foreign_hash::{ForeignHash, NoHash},
};
use moorline_machine::registry::{Credential, LookupHash};
use zeroize::Zeroizing;

use super::{
    kind::{
        ALIAS_BYTES_MAX, CLIENT_BYTES_MAX, IDENTITY_BYTES_MAX, Kept, Login, Password, Pin, Pinned,
        Psk, Token, USER_BYTES_MAX,
    },
    password::{Busy, PASSWORD_BYTES_MAX, Place},
};
use crate::registry::secrets::{Secrets, Style, generate};

/// Bytes of a token that somebody brings: those of ThingsBoard have 20 random characters.
const TOKEN_BYTES_MIN: usize = 20;
/// See [`TOKEN_BYTES_MIN`].
const TOKEN_BYTES_MAX: usize = 128;
/// Bytes of a pre-shared key: 128 bits, and what a verifier has room for.
const KEY_BYTES_MIN: usize = 16;
/// See [`KEY_BYTES_MIN`].
const KEY_BYTES_MAX: usize = 64;
/// Bytes of a key that is generated.
const KEY_BYTES: usize = 32;

/// Something that is secret, and wiped when it is dropped.
#[derive(Clone)]
pub struct Secret(pub Zeroizing<Vec<u8>>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

impl Secret {
    /// Out of text or bytes.
    #[must_use]
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(Zeroizing::new(bytes.into()))
    }
}

/// Which password a login has.
#[derive(Debug, Clone)]
pub enum WantedPassword {
    /// None: who says the rest is let in.
    None,
    /// A new one.
    Generated,
    /// One that somebody chose.
    Chosen(Secret),
    /// One that another system hashed: the hash, as it writes it.
    Hashed(Secret),
}

/// What is asked for.
#[derive(Debug, Clone)]
pub enum Wanted {
    /// A generated secret, shown together with the device's name.
    Secret(Style),
    /// A token that says by itself whose it is: a new one, or one that somebody brings.
    Token(Option<Secret>),
    /// The same where its platform shows tokens again ([`read_again`]).
    ReadableToken(Option<Secret>),
    /// What an MQTT client says.
    Login {
        /// Its client id.
        client: Option<Text>,
        /// Its user name.
        user: Option<Text>,
        /// Its password.
        password: WantedPassword,
    },
    /// A certificate.
    Certificate(Pin),
    /// A pre-shared key: a new one, or one that somebody brings.
    Psk {
        /// What the client calls it.
        identity: Bytes,
        /// The key.
        key: Option<Secret>,
    },
    /// Another name of the device, no other's in its tenant.
    Alias(Text),
}

/// A credential that was made.
pub struct Made {
    /// What is kept.
    pub credential: Credential,
    /// What was generated, to be shown once: a secret, a token, a password, or a key in hexadecimal digits.
    pub shown: Option<Zeroizing<String>>,
}

impl fmt::Debug for Made {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Made").field("credential", &self.credential).finish_non_exhaustive()
    }
}

/// Why there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unmakeable {
    /// Too many passwords are being hashed.
    Busy,
    /// It can't be as it is asked for: why.
    Malformed(&'static str),
    /// The hash of a password is none that is taken: why.
    NoHash(NoHash),
}

impl From<Busy> for Unmakeable {
    fn from(_: Busy) -> Self {
        Self::Busy
    }
}

impl From<NoHash> for Unmakeable {
    fn from(why: NoHash) -> Self {
        Self::NoHash(why)
    }
}

/// What a certificate is found by.
#[must_use]
pub(super) fn lookup_of_pin(secrets: &Secrets, pin: Pin) -> LookupHash {
    let kind = match pin.what {
        Pinned::Certificate => "certificate",
        Pinned::Key => "certificate key",
    };
    secrets.lookup(kind, &pin.sha256)
}

/// What a token is found by.
#[must_use]
pub(super) fn lookup_of_token(secrets: &Secrets, token: &[u8]) -> LookupHash {
    secrets.lookup("token", token)
}

/// What an alias is found by, in its tenant.
#[must_use]
pub(super) fn lookup_of_alias(secrets: &Secrets, tenant: TenantId, name: &Text) -> LookupHash {
    secrets.lookup("alias", &[&tenant.0.to_be_bytes()[..], name.as_bytes()].concat())
}

/// What a pre-shared key is found by.
#[must_use]
pub(super) fn lookup_of_identity(secrets: &Secrets, identity: &[u8]) -> LookupHash {
    secrets.lookup("psk", identity)
}

/// Makes a credential for a place, out of randomness.
///
/// # Errors
///
/// [`Unmakeable`].
pub async fn make(
    secrets: &Secrets,
    place: Place<'_>,
    wanted: Wanted,
    random: fn() -> u8,
) -> Result<Made, Unmakeable> {
    let hashed = |secret: &[u8]| secrets.verifier(place.tenant, place.device, place.id, secret);
    let mut shown = None;
    let (kept, lookup) = match wanted {
        Wanted::Secret(style) => {
            let secret = new_secret(style, random);
            let kept = Kept::Secret(hashed(secret.as_bytes()));
            shown = Some(secret);
            (kept, None)
        }
        Wanted::Token(brought) => {
            let token = token_of(brought, random, &mut shown)?;
            let kept = Token { hash: hashed(&token.0), sealed: Bytes::new() };
            (Kept::Token(kept), Some(lookup_of_token(secrets, &token.0)))
        }
        Wanted::ReadableToken(brought) => {
            let token = token_of(brought, random, &mut shown)?;
            let kept =
                Token { hash: hashed(&token.0), sealed: secrets.seal_again(place, &token.0) };
            (Kept::Token(kept), Some(lookup_of_token(secrets, &token.0)))
        }
        Wanted::Login { client, user, password } => {
            check_login(client.as_ref(), user.as_ref())?;
            let lookup = secrets.lookup_login(place.tenant, client.as_ref(), user.as_ref());
            let password = match password {
                WantedPassword::None => None,
                WantedPassword::Generated => {
                    let password = new_secret(Style::Plain, random);
                    let kept = Password::Generated(hashed(password.as_bytes()));
                    shown = Some(password);
                    Some(kept)
                }
                WantedPassword::Chosen(password) => {
                    let password = check_password(password)?;
                    // The same credential brought again has the same hash: an import sees that it is there.
                    let salt = secrets.salt(place);
                    Some(Password::Chosen(secrets.passwords().hash(&password.0, salt).await?))
                }
                WantedPassword::Hashed(text) => {
                    let text = str::from_utf8(&text.0).map_err(|_| NoHash::Unreadable)?;
                    let hash = ForeignHash::read(text)?;
                    Some(Password::Foreign(secrets.passwords().keep(place, &hash)))
                }
            };
            (Kept::Login(Login { client, user, password }), Some(lookup))
        }
        Wanted::Certificate(pin) => (Kept::Certificate(pin), Some(lookup_of_pin(secrets, pin))),
        Wanted::Psk { identity, key } => {
            let (psk, lookup) = psk_of(secrets, place, (identity, key), random, &mut shown)?;
            (Kept::Psk(psk), Some(lookup))
        }
        Wanted::Alias(name) => {
            check_alias(&name)?;
            let lookup = lookup_of_alias(secrets, place.tenant, &name);
            (Kept::Alias(name), Some(lookup))
        }
    };
    let credential = Credential {
        id: place.id,
        kind: kept.kind(),
        lookup,
        verifier: kept.to_bytes(),
        not_before: None,
        not_after: None,
        created: UnixMillis(0),
    };
    Ok(Made { credential, shown })
}

/// The access token of a credential of a place, if it was made to be read again.
#[must_use]
pub fn read_again(
    secrets: &Secrets,
    place: Place<'_>,
    held: &Credential,
) -> Option<Zeroizing<String>> {
    let Some(Kept::Token(Token { sealed, .. })) = Kept::read(held.kind, &held.verifier) else {
        return None;
    };
    let token = secrets.open(place, &sealed)?;
    String::from_utf8(token.to_vec()).ok().map(Zeroizing::new)
}

/// A pre-shared key that somebody brought, or a new one, which is shown; and what it is found by.
fn psk_of(
    secrets: &Secrets,
    place: Place<'_>,
    (identity, key): (Bytes, Option<Secret>),
    random: fn() -> u8,
    shown: &mut Option<Zeroizing<String>>,
) -> Result<(Psk, LookupHash), Unmakeable> {
    check_identity(&identity)?;
    let sealed = match key {
        // The same key brought again is kept as the same: an import sees that it is there.
        Some(key) => secrets.seal_again(place, &check_key(key)?.0),
        None => {
            let key = Secret::new((0..KEY_BYTES).map(|_| random()).collect::<Vec<_>>());
            let digits = key.0.iter().map(|byte| format!("{byte:02x}")).collect();
            *shown = Some(Zeroizing::new(digits));
            secrets.seal(place, std::array::from_fn(|_| random()), &key.0)
        }
    };
    let lookup = lookup_of_identity(secrets, &identity);
    Ok((Psk { identity, sealed }, lookup))
}

/// A token that somebody brought, or a new one, which is shown.
fn token_of(
    brought: Option<Secret>,
    random: fn() -> u8,
    shown: &mut Option<Zeroizing<String>>,
) -> Result<Secret, Unmakeable> {
    let Some(token) = brought else {
        let token = new_secret(Style::Plain, random);
        *shown = Some(token.clone());
        return Ok(Secret::new(token.as_bytes()));
    };
    check_token(token)
}

fn new_secret(style: Style, mut random: fn() -> u8) -> Zeroizing<String> {
    Zeroizing::new(generate(style, &mut random))
}

fn check_token(token: Secret) -> Result<Secret, Unmakeable> {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(byte);
    let fits = (TOKEN_BYTES_MIN..=TOKEN_BYTES_MAX).contains(&token.0.len());
    if fits && token.0.iter().all(plain) {
        return Ok(token);
    }
    Err(Unmakeable::Malformed("a token has 20 to 128 letters, digits, and - _ . ~"))
}

fn check_login(client: Option<&Text>, user: Option<&Text>) -> Result<(), Unmakeable> {
    if client.is_none() && user.is_none() {
        return Err(Unmakeable::Malformed("a login has a client id, a user name, or both"));
    }
    let wrong = |text: &Text, bytes_max: usize| {
        text.is_empty() || text.len() > bytes_max || text.as_str().chars().any(char::is_control)
    };
    if client.is_some_and(|client| wrong(client, CLIENT_BYTES_MAX)) {
        return Err(Unmakeable::Malformed(
            "a client id has 1 to 72 bytes and no control characters",
        ));
    }
    // That is how devices of Fostrom are called.
    if user.is_some_and(|user| wrong(user, USER_BYTES_MAX) || user.as_str().contains("::")) {
        let why = "a user name has 1 to 88 bytes, no control characters, and no `::`";
        return Err(Unmakeable::Malformed(why));
    }
    Ok(())
}

fn check_password(password: Secret) -> Result<Secret, Unmakeable> {
    if (1..=PASSWORD_BYTES_MAX).contains(&password.0.len()) {
        return Ok(password);
    }
    Err(Unmakeable::Malformed("a password has 1 to 256 bytes"))
}

fn check_alias(name: &Text) -> Result<(), Unmakeable> {
    let fits = (1..=ALIAS_BYTES_MAX).contains(&name.len());
    if fits && !name.as_str().chars().any(char::is_control) {
        return Ok(());
    }
    Err(Unmakeable::Malformed("an alias has 1 to 240 bytes and no control characters"))
}

fn check_identity(identity: &[u8]) -> Result<(), Unmakeable> {
    // What C libraries can show has no zero in it.
    if (1..=IDENTITY_BYTES_MAX).contains(&identity.len()) && !identity.contains(&0) {
        return Ok(());
    }
    Err(Unmakeable::Malformed("an identity has 1 to 120 bytes, none of them zero"))
}

fn check_key(key: Secret) -> Result<Secret, Unmakeable> {
    if (KEY_BYTES_MIN..=KEY_BYTES_MAX).contains(&key.0.len()) {
        return Ok(key);
    }
    Err(Unmakeable::Malformed("a pre-shared key has 16 to 64 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BCRYPT: &str = "$2b$06$DCq7YPn5Rq63x1Lad4cll.TV4S6ytwfsfvkgY8jIucDrjc8deX1s.";

    fn made(wanted: Wanted) -> Result<Made, Unmakeable> {
        let (secrets, device) = (Secrets::new([1; 32]), Text::from("pump"));
        let place = Place { tenant: TenantId(7), device: &device, id: 3 };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(make(&secrets, place, wanted, rand::random))
    }

    fn login(client: Option<&str>, user: Option<&str>, password: WantedPassword) -> Wanted {
        Wanted::Login { client: client.map(Text::from), user: user.map(Text::from), password }
    }

    #[test]
    fn what_is_generated_is_shown_and_not_kept() {
        let identity = Bytes::from_static(b"pump");
        for wanted in [
            Wanted::Secret(Style::Plain),
            Wanted::Token(None),
            Wanted::ReadableToken(None),
            login(None, Some("u"), WantedPassword::Generated),
            Wanted::Psk { identity, key: None },
        ] {
            let Made { credential, shown } = made(wanted.clone()).unwrap();
            let shown = shown.unwrap();
            assert!(shown.len() >= 43);
            let kept = String::from_utf8_lossy(&credential.verifier).into_owned();
            assert!(!kept.contains(shown.as_str()), "{wanted:?}");
            assert!(Kept::read(credential.kind, &credential.verifier).is_some());
            let again = made(wanted).unwrap();
            assert!(*again.shown.unwrap() != *shown, "chance is new each time");
        }
    }

    #[test]
    fn what_is_brought_has_to_fit() {
        let chosen = |text: &str| WantedPassword::Chosen(Secret::new(text));
        let psk = |identity: &'static [u8], key: &str| {
            let identity = Bytes::from_static(identity);
            Wanted::Psk { identity, key: Some(Secret::new(key)) }
        };
        let fits = [
            Wanted::Token(Some(Secret::new("A1B2C3D4E5F6G7H8I9J0"))),
            login(Some("c"), None, WantedPassword::None),
            login(Some("c"), Some("bob@example.com"), chosen("x")),
            login(None, Some("u"), WantedPassword::Hashed(Secret::new(BCRYPT))),
            psk(b"x", "sixteen bytes ok"),
            Wanted::Alias(Text::from("CN=gate-7, O=Plant")),
        ];
        for wanted in fits {
            assert!(made(wanted).unwrap().shown.is_none());
        }
        let long = "x".repeat(257);
        let refused = [
            Wanted::Token(Some(Secret::new("short"))),
            Wanted::Token(Some(Secret::new("twenty characters @ it"))),
            login(None, None, chosen("x")),
            login(Some(""), None, chosen("x")),
            login(None, Some("FLEET::DEVICE"), chosen("x")),
            login(None, Some("a\u{1F}b"), chosen("x")),
            login(None, Some("u"), chosen("")),
            login(None, Some("u"), chosen(&long)),
            psk(b"", "sixteen bytes ok"),
            psk(b"a\0b", "sixteen bytes ok"),
            psk(b"x", "short"),
            Wanted::Alias(Text::default()),
            Wanted::Alias(Text::from("a\nb")),
            Wanted::Alias(Text::from(long.as_str())),
        ];
        for wanted in refused {
            let why = made(wanted.clone()).map(drop);
            assert!(matches!(why, Err(Unmakeable::Malformed(_))), "{wanted:?}");
        }
    }

    #[test]
    fn a_hash_that_is_brought_is_kept_as_none_that_can_be_tried() {
        let brought =
            |text: &str| made(login(None, Some("u"), WantedPassword::Hashed(Secret::new(text))));
        let (kept, again) = (brought(BCRYPT).unwrap(), brought(BCRYPT).unwrap());
        assert_eq!(kept.credential, again.credential, "an import sees that it is there");
        let hash = ForeignHash::read(BCRYPT).unwrap().hash;
        let held = &kept.credential.verifier;
        assert!(!held.windows(8).any(|some| hash.windows(8).any(|of| of == some)));
        assert_eq!(brought("$6$s").map(drop), Err(Unmakeable::NoHash(NoHash::Unreadable)));
        let dear = BCRYPT.replace("$06$", "$13$");
        assert_eq!(brought(&dear).map(drop), Err(Unmakeable::NoHash(NoHash::Cost)));
    }

    #[test]
    fn a_token_is_read_again_only_where_it_was_made_to_be() {
        let (secrets, device) = (Secrets::new([1; 32]), Text::from("pump"));
        let place = Place { tenant: TenantId(7), device: &device, id: 3 };
        let again = |place, made: &Made| {
            read_again(&secrets, place, &made.credential).map(|token| token.to_string())
        };
        let brought = "A1B2C3D4E5F6G7H8I9J0".repeat(6);
        let readable = made(Wanted::ReadableToken(Some(Secret::new(brought.as_str())))).unwrap();
        assert_eq!(again(place, &readable), Some(brought.clone()));
        let once_more = made(Wanted::ReadableToken(Some(Secret::new(brought)))).unwrap();
        assert_eq!(once_more.credential, readable.credential, "an import sees that it is there");
        assert_eq!(again(Place { id: 4, ..place }, &readable), None);
        let generated = made(Wanted::ReadableToken(None)).unwrap();
        assert_eq!(
            again(place, &generated).as_deref(),
            generated.shown.as_ref().map(|it| it.as_str())
        );
        assert_eq!(again(place, &made(Wanted::Token(None)).unwrap()), None);
        assert_eq!(again(place, &made(Wanted::Secret(Style::Plain)).unwrap()), None);
    }

    #[test]
    fn nothing_that_is_brought_is_printed() {
        let wanted = login(None, Some("u"), WantedPassword::Chosen(Secret::new("canary")));
        let token = Wanted::Token(Some(Secret::new("canary")));
        assert!(!format!("{wanted:?} {token:?}").contains("canary"));
        let shown = made(Wanted::Token(None)).unwrap();
        assert!(!format!("{shown:?}").contains(shown.shown.as_ref().unwrap().as_str()));
    }
}
