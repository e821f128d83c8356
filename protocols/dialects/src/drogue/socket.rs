//! Applications over a WebSocket: which events they get, and what they say (§3.9).
//!
//! | request | |
//! |---|---|
//! | `/APP?group_id` | all events of the application |
//! | `/APP/CHANNEL?group_id` | those of one channel |
//!
//! Who it is says the Authorization, `token`, or `api_key` beside `username`. A message to the client is an event in structured form; a
//! message of the client is `{"RefreshAccessToken":"TOKEN"}`.

use serde::Deserialize;

use super::{
    command,
    http::Head,
    outcome::Refusal,
    words::{parameter, unescaped},
};
use crate::secret::Secret;

/// The longest path that is looked at.
const PATH_BYTES_MAX: usize = 4 * 1024;
/// The most bytes of a query that is looked at.
const QUERY_BYTES_MAX: usize = 8 * 1024;

/// Closed: the node takes leave.
pub const CLOSE_AWAY: u16 = 1001;
/// Closed: there are no messages of bytes.
pub const CLOSE_UNSUPPORTED: u16 = 1003;
/// Closed: the message can't be read.
pub const CLOSE_INVALID: u16 = 1007;
/// Closed: the token does not count any more.
pub const CLOSE_POLICY: u16 = 1008;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Of which application.
    pub application: String,
    /// Of which channel, if not of all.
    pub channel: Option<String>,
    /// With whom events are shared.
    pub group: Option<String>,
    /// What is shown.
    pub key: Secret,
}

/// Whether a path may be one: it has one part or two.
#[must_use]
pub fn is_path(path: &str) -> bool {
    path.len() <= PATH_BYTES_MAX && parts(path).is_some()
}

fn parts(path: &str) -> Option<(&str, Option<&str>)> {
    let rest = path.strip_prefix('/')?;
    let (application, channel) = match rest.split_once('/') {
        None => (rest, None),
        Some((application, "")) => (application, None),
        Some((application, channel)) => (application, Some(channel)),
    };
    let is_one = !application.is_empty() && !channel.is_some_and(|channel| channel.contains('/'));
    is_one.then_some((application, channel))
}

/// What a request's head asks for.
///
/// # Errors
///
/// [`Refusal`], in this order: path, method, parameters, what is shown.
pub fn route(head: &Head<'_>) -> Result<Asked, Refusal> {
    let found = Some(head.path).filter(|path| is_path(path)).and_then(parts);
    let (application, channel) = found.ok_or(Refusal::NotFound)?;
    let wrong = || Refusal::Format("The path is no UTF-8".to_owned());
    let application = unescaped(application).ok_or_else(wrong)?;
    let channel = channel.map(|channel| unescaped(channel).ok_or_else(wrong)).transpose()?;
    if head.method != "GET" {
        return Err(Refusal::Method);
    }
    if head.query.len() > QUERY_BYTES_MAX {
        return Err(Refusal::Format("The query is too long".to_owned()));
    }
    let said = |name| parameter(head.query, name);
    let of_query = || {
        let by_name = || said("username").and_then(|_| said("api_key"));
        said("token").or_else(by_name).map(|key| Secret::copied(key.as_bytes()))
    };
    let key = match head.header("authorization") {
        Some(_) => command::key(head),
        None => of_query(),
    };
    let key = key.ok_or(Refusal::Authentication)?;
    Ok(Asked { application, channel, group: said("group_id"), key })
}

/// What a client may say.
#[derive(Deserialize)]
enum Said {
    RefreshAccessToken(String),
}

/// The token that counts from now on; [`None`] for a message that there is not.
#[must_use]
pub fn refreshed(message: &str) -> Option<Secret> {
    let Said::RefreshAccessToken(token) = serde_json::from_str(message).ok()?;
    Some(Secret::copied(token.as_bytes()))
}
