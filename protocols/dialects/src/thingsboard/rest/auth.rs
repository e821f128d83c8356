//! Who an integrator is: the headers, and the bodies of logging in. Making and checking tokens is done elsewhere.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What an integrator asks for to be let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// `POST /api/auth/login`
    Login,
    /// `POST /api/auth/token`
    Refresh,
    /// `POST /api/auth/login/public`
    PublicLogin,
    /// `GET /api/auth/user`
    User,
    /// `POST /api/auth/logout`
    Logout,
}

/// Reads a path; `None` if it is none of these.
#[must_use]
pub fn route(method: &str, path: &str) -> Option<Route> {
    Some(match (method, path.strip_prefix("/api/auth/")?) {
        ("POST", "login") => Route::Login,
        ("POST", "token") => Route::Refresh,
        ("POST", "login/public") => Route::PublicLogin,
        ("GET", "user") => Route::User,
        ("POST", "logout") => Route::Logout,
        _ => return None,
    })
}

/// What a user is let in with. Its `Debug` form hides it.
#[derive(Clone, PartialEq, Eq)]
pub enum Bearer {
    /// `Bearer …`: a token of ours.
    Token(String),
    /// `ApiKey …`: a key that does not end by itself.
    ApiKey(String),
}

impl fmt::Debug for Bearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Token(_) => "Token(<hidden>)",
            Self::ApiKey(_) => "ApiKey(<hidden>)",
        })
    }
}

/// Headers that may say it, in the order in which they are looked at.
pub const HEADERS: [&str; 2] = ["x-authorization", "authorization"];

impl Bearer {
    /// Reads one of [`HEADERS`].
    #[must_use]
    pub fn of(header: &str) -> Option<Self> {
        let (scheme, secret) = header.trim().split_once(' ')?;
        let secret = secret.trim().to_owned();
        if secret.is_empty() {
            return None;
        }
        match scheme.to_ascii_lowercase().as_str() {
            "bearer" => Some(Self::Token(secret)),
            "apikey" => Some(Self::ApiKey(secret)),
            _ => None,
        }
    }
}

/// `POST /api/auth/login`
#[derive(Clone, PartialEq, Eq, Deserialize)]
pub struct Login {
    /// The user's e-mail address.
    pub username: String,
    /// The password.
    pub password: String,
}

/// Bytes of a body that logs in, or wants new tokens: it is read before it is known whose it is.
pub const LOGIN_BYTES_MAX: usize = 16 * 1024;
/// Bytes of a user's address: who fails too often is counted by it, so it is remembered.
pub const USERNAME_BYTES_MAX: usize = 254;
/// Bytes of a password.
pub const PASSWORD_BYTES_MAX: usize = 1_024;

impl Login {
    /// Reads a body; [`None`] if it is none, or has more in it than a login.
    #[must_use]
    pub fn read(body: &[u8]) -> Option<Self> {
        let said: Self = serde_json::from_slice(body).ok()?;
        let fits =
            said.username.len() <= USERNAME_BYTES_MAX && said.password.len() <= PASSWORD_BYTES_MAX;
        fits.then_some(said)
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("username", &self.username).finish_non_exhaustive()
    }
}

/// `POST /api/auth/token`
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Refresh {
    /// What came with the token.
    pub refresh_token: String,
}

impl fmt::Debug for Refresh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Refresh(<hidden>)")
    }
}

/// `POST /api/auth/login/public`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PublicLogin {
    /// A public customer's id.
    pub public_id: String,
}

/// The answer to all three.
#[derive(Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Tokens {
    /// A JWT whose claims are [`Claims`].
    pub token: String,
    /// A JWT that gets new ones.
    pub refresh_token: String,
    /// What has to be done before the tokens count for more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tokens(<hidden>)")
    }
}

/// How long a token counts, in seconds, if the server is not set otherwise.
pub const TOKEN_S_DEFAULT: i64 = 9_000;
/// The same of a token that gets new ones.
pub const REFRESH_TOKEN_S_DEFAULT: i64 = 604_800;

/// What a token that gets new ones has for [`Claims::scopes`].
pub const REFRESH_SCOPE: &str = "REFRESH_TOKEN";

/// What a token says. Clients look at `exp`, without checking the signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Claims {
    /// The user's e-mail address.
    pub sub: String,
    /// The user's id.
    pub user_id: String,
    /// What the user is: `TENANT_ADMIN`, …
    pub scopes: Vec<String>,
    /// The user's tenant.
    pub tenant_id: String,
    /// The user's customer.
    pub customer_id: String,
    /// When it was made, in seconds since the epoch.
    pub iat: i64,
    /// Until when it counts, in seconds since the epoch.
    pub exp: i64,
}
