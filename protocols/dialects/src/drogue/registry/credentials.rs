//! Credentials of a device, as its `spec` lists them.

use std::collections::BTreeSet;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use moorline_core::foreign_hash::{ForeignHash, Form};
use serde_json::{Map, Value};

/// The most credentials of one device.
pub const CREDENTIALS_MAX: usize = 8;

/// A password.
#[derive(Clone, PartialEq, Eq)]
pub enum Password {
    /// As it is.
    Plain(String),
    /// Hashed, as it was written: [`ForeignHash::read`] takes it.
    Hashed(String),
}

/// By hand: what is secret is not printed.
impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Plain(_) => "Plain(…)",
            Self::Hashed(_) => "Hashed(…)",
        })
    }
}

/// One of its credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// A password of the device.
    Password(Password),
    /// A user name and password.
    User {
        /// Its name.
        user: String,
        /// Its password.
        password: Password,
        /// Whether no other device of the application has it, so that it is a name of the device.
        unique: bool,
    },
    /// A pre-shared key.
    Psk {
        /// Its bytes.
        key: Key,
        /// From when on it counts, as RFC 3339 says moments.
        not_before: Option<String>,
        /// Until when.
        not_after: Option<String>,
    },
}

/// The bytes of a key.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(pub Vec<u8>);

/// By hand: what is secret is not printed.
impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(…)")
    }
}

/// The logins of one device: of each client id and user name there is one, whatever its password is.
///
/// Any password that is listed has to count, so that one can be changed while devices still have the other. Whoever says a password says
/// its name as device, too, which is the client id of a login: with it the second password of a name has a place of its own.
#[derive(Debug, Default)]
pub struct Logins(BTreeSet<(Option<String>, String)>);

/// A name has two passwords already, or a user name one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a device's name has two passwords at most, and a user name has one")]
pub struct NoPlace;

impl Logins {
    /// The client id of one more password of a name of the device.
    ///
    /// # Errors
    ///
    /// [`NoPlace`].
    pub fn password(&mut self, name: &str) -> Result<Option<String>, NoPlace> {
        self.user(None, name).or_else(|_| self.user(Some(name), name))
    }

    /// The same of a user name; `client`: the device's name, unless the user name is nobody else's.
    ///
    /// # Errors
    ///
    /// [`NoPlace`].
    pub fn user(&mut self, client: Option<&str>, user: &str) -> Result<Option<String>, NoPlace> {
        let client = client.map(str::to_owned);
        let is_new = self.0.insert((client.clone(), user.to_owned()));
        if is_new { Ok(client) } else { Err(NoPlace) }
    }
}

/// Those of a `spec`, and what can't be read of them: why.
#[must_use]
pub fn of(spec: &Map<String, Value>) -> Vec<Result<Credential, String>> {
    let section = spec.get("authentication").or_else(|| spec.get("credentials"));
    let listed = section.and_then(|section| section["credentials"].as_array());
    listed.into_iter().flatten().map(read).collect()
}

fn read(value: &Value) -> Result<Credential, String> {
    if let Some(said) = value.get("pass") {
        return Ok(Credential::Password(password(said)?));
    }
    if let Some(said) = value.get("user") {
        let user = said["username"].as_str().filter(|user| !user.is_empty());
        let user = user.ok_or("a user without a name")?.to_owned();
        let unique = said["unique"].as_bool().unwrap_or_default();
        return Ok(Credential::User { user, password: password(&said["password"])?, unique });
    }
    if let Some(said) = value.get("psk") {
        let key = said["key"].as_str().and_then(|key| STANDARD.decode(key).ok());
        let key = Key(key.ok_or("a pre-shared key that is no base64")?);
        let moment = |name: &str| said["validity"][name].as_str().map(str::to_owned);
        let (not_before, not_after) = (moment("notBefore"), moment("notAfter"));
        return Ok(Credential::Psk { key, not_before, not_after });
    }
    Err("a credential of a kind that is not known (pass, user, psk)".to_owned())
}

fn password(said: &Value) -> Result<Password, String> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    if let Some(plain) = text(said).or_else(|| text(&said["plain"])) {
        return Ok(Password::Plain(plain));
    }
    for form in Form::ALL {
        if let Some(hash) = text(&said[form.name()]) {
            let read = ForeignHash::read(&hash).map_err(|why| why.to_string())?;
            if read.form != form {
                return Err(format!("a password as {} whose hash is another form's", form.name()));
            }
            return Ok(Password::Hashed(hash));
        }
    }
    Err("a password that is neither text nor plain, bcrypt or sha512".to_owned())
}
