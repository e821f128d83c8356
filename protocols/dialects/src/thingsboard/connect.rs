//! MQTT's CONNECT: what it may prove, in which order that is tried, and how a refusal is said.
//!
//! ```text
//!   Hello ──► attempts ──► for each: find credentials by the id ──► Attempt::accepts
//!                 └──► Provision: no credentials are looked for
//! ```
//!
//! # Invariants
//!
//! - **Passwords are compared in constant time**, after the id was found. Checked by reading [`Attempt::accepts`].
//! - **No secret is shown** by a `Debug` form. Checked by `tests/it/thingsboard/connect.rs`.
//! - **No client id names a device**: many have the same. Checked by `tests/it/thingsboard/connect.rs`.

use std::fmt;

use subtle::ConstantTimeEq;

use super::credentials::{self, Basic, Credentials, non_empty};

/// The user name or client id of whoever has no credentials and wants some.
pub const PROVISION: &str = "provision";

/// What of a CONNECT counts, and what TLS has shown before it. Its `Debug` form says the client id only.
#[derive(Clone, Copy, Default)]
pub struct Hello<'a> {
    /// The client id.
    pub client_id: &'a str,
    /// The user name.
    pub user_name: Option<&'a str>,
    /// The password.
    pub password: Option<&'a [u8]>,
    /// Certificates in DER, the client's own first; none if it showed none.
    pub chain: &'a [&'a [u8]],
}

impl fmt::Debug for Hello<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hello").field("client_id", &self.client_id).finish_non_exhaustive()
    }
}

/// One way in. Its `Debug` form says which; an id may be a token.
#[derive(Clone, PartialEq, Eq)]
pub enum Attempt {
    /// In, to ask for credentials and nothing else.
    Provision,
    /// By the client's certificate. It is pinned: its chain and its dates are not looked at.
    Certificate {
        /// What to find the device by.
        id: String,
    },
    /// By an authority in the chain: a profile that has the same one may take a device in by its certificate's common
    /// name, and make the device.
    Authority {
        /// Ids of the chain's certificates, the client's own left out.
        ids: Vec<String>,
    },
    /// By client id, or client id and user name.
    Basic {
        /// What to find the device by.
        id: String,
        /// What was shown.
        shown: Basic,
    },
    /// By user name: it is a token, or the user name of credentials without a client id.
    UserName {
        /// What to find the device by.
        id: String,
        /// What was shown.
        shown: Basic,
    },
}

impl fmt::Debug for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Provision => "Provision",
            Self::Certificate { .. } => "Certificate(<hidden>)",
            Self::Authority { .. } => "Authority(<hidden>)",
            Self::Basic { .. } => "Basic(<hidden>)",
            Self::UserName { .. } => "UserName(<hidden>)",
        })
    }
}

/// What to try, in this order. The first whose credentials exist and are accepted is who it is. Empty: nothing was shown.
#[must_use]
pub fn attempts(hello: &Hello<'_>) -> Vec<Attempt> {
    if hello.user_name == Some(PROVISION) || hello.client_id == PROVISION {
        return vec![Attempt::Provision];
    }
    if let [own, authorities @ ..] = hello.chain {
        let id = |der: &&[u8]| credentials::certificate_id_of_der(der);
        let mut attempts = vec![Attempt::Certificate { id: id(own) }];
        if !authorities.is_empty() {
            attempts.push(Attempt::Authority { ids: authorities.iter().map(id).collect() });
        }
        return attempts;
    }
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let password = hello.password.filter(|password| !password.is_empty());
    let shown = Basic {
        client_id: text(hello.client_id),
        user_name: hello.user_name.and_then(text),
        password: password.map(|password| String::from_utf8_lossy(password).into_owned()),
    };
    match (non_empty(&shown.client_id), non_empty(&shown.user_name)) {
        (None, None) => Vec::new(),
        (Some(client_id), None) => vec![Attempt::Basic { id: credentials::hash(client_id), shown }],
        (client_id, Some(user_name)) => {
            let both = client_id.map(|client_id| Attempt::Basic {
                id: credentials::basic_id(client_id, user_name),
                shown: shown.clone(),
            });
            let id = user_name.to_owned();
            both.into_iter().chain([Attempt::UserName { id, shown: shown.clone() }]).collect()
        }
    }
}

impl Attempt {
    /// Whether the credentials that were found by its id are what was shown.
    #[must_use]
    pub fn accepts(&self, stored: &Credentials) -> bool {
        match (self, stored) {
            (Self::Certificate { .. }, Credentials::X509Certificate(_))
            | (Self::UserName { .. }, Credentials::AccessToken(_)) => true,
            (
                Self::Basic { shown, .. } | Self::UserName { shown, .. },
                Credentials::MqttBasic(stored),
            ) => is_shown(stored, shown),
            (
                Self::Provision
                | Self::Certificate { .. }
                | Self::Authority { .. }
                | Self::Basic { .. }
                | Self::UserName { .. },
                _,
            ) => false,
        }
    }
}

/// Whether each part that is stored was shown.
fn is_shown(stored: &Basic, shown: &Basic) -> bool {
    let same = |stored: &Option<String>, shown: &Option<String>| match non_empty(stored) {
        None => true,
        Some(stored) => {
            let shown = non_empty(shown).unwrap_or_default();
            bool::from(stored.as_bytes().ct_eq(shown.as_bytes()))
        }
    };
    same(&stored.client_id, &shown.client_id)
        && same(&stored.user_name, &shown.user_name)
        && same(&stored.password, &shown.password)
}

/// Why a connection is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// User name, password and client id belong to nobody together.
    BadCredentials,
    /// Only a client id was shown, and it belongs to nobody; or nothing was shown at all.
    UnknownClientId,
    /// The certificate belongs to nobody.
    UnknownCertificate,
    /// It, or its tenant, connects too often.
    RateLimited,
    /// The profile is not for MQTT, or something failed.
    Unavailable,
}

/// A connection is refused with a code of its version, and closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connack {
    /// The return code of MQTT 3.
    pub v3: u8,
    /// The reason of MQTT 5.
    pub v5: u8,
}

impl Refused {
    /// Why, when none of the attempts found anybody.
    #[must_use]
    pub fn by(hello: &Hello<'_>) -> Self {
        let nothing = |text: Option<&[u8]>| text.is_none_or(<[u8]>::is_empty);
        if !hello.chain.is_empty() {
            Self::UnknownCertificate
        } else if nothing(hello.user_name.map(str::as_bytes)) && nothing(hello.password) {
            Self::UnknownClientId
        } else {
            Self::BadCredentials
        }
    }

    /// How it is said.
    #[must_use]
    pub fn connack(self) -> Connack {
        match self {
            Self::BadCredentials => Connack { v3: 5, v5: 0x86 },
            Self::UnknownClientId => Connack { v3: 2, v5: 0x85 },
            Self::UnknownCertificate => Connack { v3: 5, v5: 0x87 },
            Self::RateLimited => Connack { v3: 3, v5: 0x9f },
            Self::Unavailable => Connack { v3: 3, v5: 0x88 },
        }
    }
}

/// The session-present flag as the platform sets it: it keeps no sessions, and says the opposite of the clean flag.
#[must_use]
pub fn session_present(clean: bool) -> bool {
    !clean
}
