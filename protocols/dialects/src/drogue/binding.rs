//! Events and commands for endpoints outside, and what endpoints answer: CloudEvents over HTTP (§3.9).
//!
//! | mode | content type | headers | body |
//! |---|---|---|---|
//! | binary | the event's | each attribute as `ce-NAME` | what the event says |
//! | structured | `application/cloudevents+json` | | all of it, as JSON |
//!
//! Bytes that can't stand in a header are written as `%XX`, and read back. A `%` that stands there stays: `source` has some, and the
//! vendor and most libraries neither write nor read them as more than that.
//!
//! # Invariants
//!
//! - **What an endpoint's own headers say counts**, in the place of what would be said.
//! - **An endpoint that wants what is not done here is not asked** ([`Unaskable`]): a certificate that is not to be checked, an authority of its own.
//!
//! Checked by `tests/it/drogue/binding.rs`.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use thiserror::Error;

use super::{
    command::{Asked, External, external_body},
    event::{CloudEvent, JSON, OCTETS, STRUCTURED},
    rules::{Answered, Authentication, Endpoint, Mode, ResponseForm, TIMEOUT_MS},
    words::{escaped, unescaped_if},
};

/// Before an attribute's name.
const PREFIX: &str = "ce-";
const CONTENT_TYPE: &str = "content-type";
const AUTHORIZATION: &str = "authorization";
/// What is asked for if nothing else is said.
const METHOD: &str = "POST";
/// Names that are no attributes of the binary form.
const NO_ATTRIBUTES: [&str; 3] = ["data", "data_base64", "datacontenttype"];

/// An endpoint wants what is not done here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the endpoint wants TLS as it is not done here")]
pub struct Unaskable;

/// A request to an endpoint.
#[derive(Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// `POST`, …
    pub method: String,
    /// Where.
    pub url: String,
    /// Headers, but for the length.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
    /// How long it may take.
    pub timeout_ms: u64,
}

/// By hand: there are secrets in it.
impl std::fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outgoing").field("method", &self.method).finish_non_exhaustive()
    }
}

fn cannot_stand(byte: u8) -> bool {
    !(0x20..0x7f).contains(&byte)
}

fn written(value: &str) -> String {
    escaped(value, cannot_stand)
}

/// Headers of ours, but for those that the endpoint says itself.
fn with_own(ours: Vec<(String, String)>, own: Vec<(String, String)>) -> Vec<(String, String)> {
    let is_said = |name: &str| own.iter().any(|(said, _)| said.eq_ignore_ascii_case(name));
    let mut all: Vec<_> = ours.into_iter().filter(|(name, _)| !is_said(name)).collect();
    all.extend(own);
    all
}

/// What the endpoint of a rule is asked about an event.
///
/// # Errors
///
/// [`Unaskable`].
pub fn of_rule(endpoint: &Endpoint, mode: Mode, event: &CloudEvent) -> Result<Outgoing, Unaskable> {
    if endpoint.wants_other_tls() {
        return Err(Unaskable);
    }
    let (mut ours, body) = match mode {
        Mode::Structured => {
            (vec![(CONTENT_TYPE.to_owned(), STRUCTURED.to_owned())], event.structured())
        }
        Mode::Binary => {
            let attributes = event.attributes();
            let header = |(name, value)| (format!("{PREFIX}{name}"), written(value));
            let mut headers: Vec<_> = attributes.map(header).collect();
            let content_type = event.get("datacontenttype").map(written);
            headers.extend(content_type.map(|of| (CONTENT_TYPE.to_owned(), of)));
            (headers, event.data().clone())
        }
    };
    ours.extend(authorization(&endpoint.auth).map(|value| (AUTHORIZATION.to_owned(), value)));
    let own = endpoint.headers.iter();
    let own = own.map(|header| (header.name.clone(), header.value.clone())).collect();
    Ok(Outgoing {
        method: endpoint.method.clone().unwrap_or_else(|| METHOD.to_owned()),
        url: endpoint.url.clone(),
        headers: with_own(ours, own),
        body,
        timeout_ms: endpoint.timeout_ms(),
    })
}

fn authorization(shown: &Authentication) -> Option<String> {
    match shown {
        Authentication::None => None,
        Authentication::Basic { username, password } => {
            let password = password.as_deref().unwrap_or_default();
            Some(format!("Basic {}", STANDARD.encode(format!("{username}:{password}"))))
        }
        Authentication::Bearer { token } => Some(format!("Bearer {token}")),
    }
}

/// What the external endpoint of a device gets of a command.
#[must_use]
pub fn of_command(external: &External, asked: &Asked, payload: &[u8]) -> Outgoing {
    let ours = vec![(CONTENT_TYPE.to_owned(), JSON.to_owned())];
    let own = external.headers.iter().map(|(name, value)| (name.clone(), value.clone()));
    let method = Some(&external.method).filter(|method| !method.is_empty());
    Outgoing {
        method: method.map_or(METHOD, String::as_str).to_owned(),
        url: external.url.clone(),
        headers: with_own(ours, own.collect()),
        body: external_body(asked, payload),
        timeout_ms: TIMEOUT_MS,
    }
}

/// The event that an endpoint answered with; [`None`] if it is none.
pub(super) fn event_of(
    event: &CloudEvent,
    form: ResponseForm,
    answered: &Answered,
) -> Option<CloudEvent> {
    let content_type = answered.headers.get(CONTENT_TYPE).cloned();
    let body = answered.body.clone();
    let structured = content_type
        .as_deref()
        .is_some_and(|of| of.to_ascii_lowercase().starts_with("application/cloudevents+json"));
    match form {
        ResponseForm::Raw => {
            let content_type = content_type.unwrap_or_else(|| OCTETS.to_owned());
            Some(event.clone().with_data(Some(content_type), body))
        }
        ResponseForm::AssumeStructuredCloudEvent => CloudEvent::read(&body),
        ResponseForm::CloudEvent if structured => CloudEvent::read(&body),
        ResponseForm::CloudEvent => {
            CloudEvent::of_binary(attributes(&answered.headers)?, content_type, body)
        }
    }
}

/// The attributes of the binary form; [`None`] if one is no text.
fn attributes(headers: &BTreeMap<String, String>) -> Option<BTreeMap<String, String>> {
    let is_name = |name: &str| {
        let is_plain = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        !name.is_empty() && is_plain && !NO_ATTRIBUTES.contains(&name)
    };
    let named =
        headers.iter().filter_map(|(name, value)| Some((name.strip_prefix(PREFIX)?, value)));
    named
        .filter(|(name, _)| is_name(name))
        .map(|(name, value)| Some((name.to_owned(), unescaped_if(value, cannot_stand)?)))
        .collect()
}
