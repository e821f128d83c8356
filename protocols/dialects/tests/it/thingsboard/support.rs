//! What the tests share: JSON in short, schemas, credentials.

use moorline_dialects::thingsboard::{
    credentials::{Basic, Credentials},
    json::Json,
    values::{Entries, Rules, Value},
};

/// The server's time in all tests.
pub(crate) const NOW_MS: i64 = 1_700_000_000_000;

pub(crate) const RULES: Rules = Rules { cast_texts: true, text_bytes_max: None };

pub(crate) fn json(text: &str) -> Json {
    Json::read(text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {error}"))
}

pub(crate) fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

pub(crate) fn entries(entries: &[(&str, Value)]) -> Entries {
    entries.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect()
}

pub(crate) fn basic(
    client_id: Option<&str>,
    user_name: Option<&str>,
    password: Option<&str>,
) -> Basic {
    let owned = |text: Option<&str>| text.map(str::to_owned);
    Basic { client_id: owned(client_id), user_name: owned(user_name), password: owned(password) }
}

pub(crate) fn token(token: &str) -> Credentials {
    Credentials::AccessToken(token.to_owned())
}
