//! What a client proves its identity with: tokens, API keys, certificates; and what a policy asks for (§1.1, §1.2).
//!
//! # Invariants
//!
//! - **An API key belongs to one organisation**, and proves nothing in another one. Checked by `user_names_fit_their_class`.
//! - **A certificate names the client id**, letter by letter, in its common name or in one alternative name. Checked by
//!   `certificates_name_the_client_id`.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use moorline_core::Text;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{ClientId, DeviceName, NAME_CHARS_MAX, ORG_CHARS, Who, ascii, is_org};
use crate::secret::Secret;

/// The user name of everybody who has a token.
pub const USE_TOKEN_AUTH: &str = "use-token-auth";
/// The fewest characters of a token that is issued (§1.2).
pub const TOKEN_CHARS_MIN: usize = 8;
/// The most characters of a token that is issued (§1.2).
pub const TOKEN_CHARS_MAX: usize = 36;
/// The most bytes of what may be shown as a token: the longest one in UTF-8. More is not worth a hash.
pub const TOKEN_BYTES_MAX: usize = 4 * TOKEN_CHARS_MAX;
/// Characters of an API key behind its organisation (§1.2).
const API_KEY_RANDOM_CHARS: usize = 10;
/// The most bytes of an Authorization header that is read: `g-{org}-{type}-{id}:{token}` in base64 has fewer.
const AUTHORIZATION_BYTES_MAX: usize = 512;

/// Whether a registry may give this token to a device.
#[must_use]
pub fn is_issuable_token(token: &str) -> bool {
    (TOKEN_CHARS_MIN..=TOKEN_CHARS_MAX).contains(&token.chars().count())
}

/// The name of an application's key, `a-{org}-{random}`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ApiKey {
    /// The organisation it is of.
    pub org: Text,
    /// What tells it from the others.
    pub random: Text,
}

impl ApiKey {
    /// Reads a key's name.
    #[must_use]
    pub fn parse(key: &[u8]) -> Option<Self> {
        let rest = key.strip_prefix(b"a-")?;
        let (org, rest) = rest.split_at_checked(ORG_CHARS)?;
        let random = rest.strip_prefix(b"-")?;
        let fits =
            random.len() == API_KEY_RANDOM_CHARS && random.iter().all(u8::is_ascii_alphanumeric);
        (fits && is_org(org)).then(|| Self { org: ascii(org), random: ascii(random) })
    }

    /// Who speaks over HTTP with this key: the key with `:` for `-` (§1.7).
    #[must_use]
    pub fn client_id(&self) -> ClientId {
        ClientId { org: self.org.clone(), who: Who::Application { app: self.random.clone() } }
    }
}

impl fmt::Display for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a-{}-{}", self.org, self.random)
    }
}

/// What a CONNECT shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// Nothing: enough for quickstart, and for who has a certificate where that is enough.
    Nothing,
    /// A device's or a gateway's token.
    Token(Secret),
    /// An application's key.
    Key {
        /// Its name.
        key: ApiKey,
        /// Its token.
        token: Secret,
    },
}

/// What is wrong with user name and password. `Display` says which of them: a user who types `token` for
/// [`USE_TOKEN_AUTH`] sees only "not authorised" otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Misproved {
    /// A device's or gateway's user name is another one.
    #[error("the user name of a device or gateway is {USE_TOKEN_AUTH}")]
    UserName,
    /// There is a password and no user name.
    #[error("there is no user name")]
    NoUserName,
    /// There is no password.
    #[error("there is no token in the password")]
    NoPassword,
    /// The password is longer than any token.
    #[error("the password is longer than any token")]
    PasswordTooLong,
    /// An application's user name is no API key.
    #[error("the user name of an application is its API key")]
    ApiKey,
    /// The API key is another organisation's.
    #[error("the API key is another organisation's")]
    OtherOrg,
}

/// What user name and password of a CONNECT prove, if they are true. Quickstart's are not looked at.
///
/// # Errors
///
/// [`Misproved`].
pub fn proof(
    client: &ClientId,
    username: Option<&[u8]>,
    password: Option<&[u8]>,
) -> Result<Proof, Misproved> {
    if client.is_quickstart() {
        return Ok(Proof::Nothing);
    }
    let given = |bytes: Option<&[u8]>| bytes.is_some_and(|bytes| !bytes.is_empty());
    let username = match username {
        Some(username) if !username.is_empty() => username,
        _ if given(password) => return Err(Misproved::NoUserName),
        _ => return Ok(Proof::Nothing),
    };
    if client.class().is_application() {
        let key = ApiKey::parse(username).ok_or(Misproved::ApiKey)?;
        if key.org != client.org {
            return Err(Misproved::OtherOrg);
        }
        return Ok(Proof::Key { key, token: secret(password)? });
    }
    if username != USE_TOKEN_AUTH.as_bytes() {
        return Err(Misproved::UserName);
    }
    Ok(Proof::Token(secret(password)?))
}

fn secret(password: Option<&[u8]>) -> Result<Secret, Misproved> {
    match password {
        None | Some([]) => Err(Misproved::NoPassword),
        Some(password) if password.len() > TOKEN_BYTES_MAX => Err(Misproved::PasswordTooLong),
        Some(password) => Ok(Secret::copied(password)),
    }
}

/// Who an Authorization header names (§1.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BasicUser {
    /// `use-token-auth`: the device that the path names.
    PathDevice,
    /// `g/{org}/{type}/{id}`, or `g-{org}-{type}-{id}`.
    Gateway {
        /// Its organisation.
        org: Text,
        /// All readings of type and id, shortest type first: they may have `-` in them, so that the second form is
        /// ambiguous. The one that exists and has the token is meant. Never empty; at most [`NAME_CHARS_MAX`].
        readings: Vec<DeviceName>,
    },
    /// An API key.
    Application(ApiKey),
}

/// Reads `Authorization: Basic …`; `None` if it is nobody's.
#[must_use]
pub fn basic(authorization: &[u8]) -> Option<(BasicUser, Secret)> {
    if authorization.len() > AUTHORIZATION_BYTES_MAX {
        return None;
    }
    let space = authorization.iter().position(|byte| *byte == b' ')?;
    let (scheme, encoded) = authorization.split_at(space);
    if !scheme.eq_ignore_ascii_case(b"basic") {
        return None;
    }
    let decoded = STANDARD.decode(encoded.trim_ascii()).ok()?;
    // No user name has a colon; a token may.
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    let (user, token) = (&decoded[..colon], &decoded[colon + 1..]);
    Some((basic_user(user)?, secret(Some(token)).ok()?))
}

fn basic_user(user: &[u8]) -> Option<BasicUser> {
    if user == USE_TOKEN_AUTH.as_bytes() {
        return Some(BasicUser::PathDevice);
    }
    if let Some(rest) = user.strip_prefix(b"g/") {
        let mut parts = rest.split(|byte| *byte == b'/');
        let (Some(org), Some(kind), Some(id), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return None;
        };
        let gateway = DeviceName::new(kind, id).filter(|_| is_org(org))?;
        return Some(BasicUser::Gateway { org: ascii(org), readings: vec![gateway] });
    }
    if let Some(rest) = user.strip_prefix(b"g-") {
        let (org, rest) = rest.split_at_checked(ORG_CHARS).filter(|(org, _)| is_org(org))?;
        let rest = rest.strip_prefix(b"-")?;
        let dashes = rest.iter().enumerate().filter(|(_, byte)| **byte == b'-');
        let readings = dashes.filter_map(|(at, _)| DeviceName::new(&rest[..at], &rest[at + 1..]));
        let readings: Vec<_> = readings.take(NAME_CHARS_MAX).collect();
        return (!readings.is_empty()).then(|| BasicUser::Gateway { org: ascii(org), readings });
    }
    ApiKey::parse(user).map(BasicUser::Application)
}

/// The names in a client's certificate, whose chain was checked against its organisation's authorities.
#[derive(Debug, Clone, Copy)]
pub struct CertificateNames<'a> {
    /// The common name.
    pub common: Option<&'a str>,
    /// The alternative names: e-mail addresses, host names, URIs.
    pub alternative: &'a [&'a str],
}

/// Whether a certificate is this client's: it names `d:{type}:{id}` or `g:{type}:{id}`. The organisation is its authority's.
#[must_use]
pub fn names_client(names: CertificateNames<'_>, client: &ClientId) -> bool {
    let Some(device) = client.device() else { return false };
    let expected = format!("{}:{}:{}", client.class().letter(), device.kind, device.id);
    names.common == Some(&*expected) || names.alternative.contains(&&*expected)
}

/// What an organisation asks of a type's connections (§1.1).
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// A token; TLS is optional.
    TlsOptional,
    /// A token, over TLS.
    #[default]
    Token,
    /// A certificate.
    Certificate,
    /// Both.
    CertificateAndToken,
    /// One of both.
    CertificateOrToken,
}

/// What is still to be looked up for a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Demand {
    /// Whether the token is right.
    Token,
    /// Nothing: the certificate was enough.
    Nothing,
}

/// Why a policy lets a connection not in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Inadmissible {
    /// There is no TLS.
    #[error("TLS is required")]
    Plaintext,
    /// There is no token.
    #[error("a token is required")]
    NoToken,
    /// There is no certificate, or it is another client's.
    #[error("a certificate with the client id is required")]
    NoCertificate,
}

impl Policy {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::TlsOptional,
        Self::Token,
        Self::Certificate,
        Self::CertificateAndToken,
        Self::CertificateOrToken,
    ];

    /// Its name where it is written down.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::TlsOptional => "tls-optional",
            Self::Token => "token",
            Self::Certificate => "certificate",
            Self::CertificateAndToken => "certificate-and-token",
            Self::CertificateOrToken => "certificate-or-token",
        }
    }

    /// What counts for a connection of an organisation that has said nothing: a token, without TLS if its tenant takes that
    /// (`plaintext`); or a certificate, if there are authorities that it trusts.
    #[must_use]
    pub fn unsaid(tls: bool, plaintext: bool, authorities: bool) -> Self {
        match (tls, plaintext, authorities) {
            (false, true, _) => Self::TlsOptional,
            (_, _, true) => Self::CertificateOrToken,
            (_, _, false) => Self::Token,
        }
    }

    /// What has to be looked up for a connection. `certificate`: what [`names_client`] says of its certificate, if it has one.
    /// A certificate proves nothing without TLS, so it implies it.
    ///
    /// # Errors
    ///
    /// [`Inadmissible`].
    pub fn admits(
        self,
        tls: bool,
        certificate: Option<bool>,
        proof: &Proof,
    ) -> Result<Demand, Inadmissible> {
        let certified = tls && certificate == Some(true);
        let token = match proof {
            Proof::Nothing => Err(Inadmissible::NoToken),
            Proof::Token(_) | Proof::Key { .. } => Ok(Demand::Token),
        };
        if !tls && self != Self::TlsOptional {
            return Err(Inadmissible::Plaintext);
        }
        match self {
            Self::TlsOptional | Self::Token => token,
            Self::Certificate if certified => Ok(Demand::Nothing),
            Self::CertificateAndToken if certified => token,
            Self::CertificateOrToken if certified => Ok(Demand::Nothing),
            Self::CertificateOrToken => token,
            Self::Certificate | Self::CertificateAndToken => Err(Inadmissible::NoCertificate),
        }
    }
}
