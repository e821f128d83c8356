//! Publish rules: what becomes of an event before anybody gets it (§3.9).
//!
//! ```text
//!   rules of the application, then of the device ─► run ──► accepted, dropped, rejected
//!                                                    ▲  └─► an endpoint is to be asked ─► answered ─┐
//!                                                    └──────────────────────────────────────────────┘
//! ```
//!
//! # Invariants
//!
//! - **Rules that can't be read let nothing through**: they were written to keep something out. Checked by `tests/it/drogue/rules.rs`.

use std::{collections::BTreeMap, fmt};

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value};
use thiserror::Error;

use super::{
    binding::event_of,
    event::{CloudEvent, JSON},
};

/// Which section of a `spec` has them.
const SECTION: &str = "publish";
/// Rules of an application or device.
const RULES_MAX: usize = 64;
/// What of an endpoint's reason is told to the device.
const REASON_CHARS_MAX: usize = 1_024;
/// How long an endpoint may take that says nothing else.
pub const TIMEOUT_MS: u64 = 5_000;
/// How long any may take.
pub const TIMEOUT_MS_MAX: u64 = 30_000;

/// Rules that can't be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("spec.publish can't be read")]
pub struct InvalidRules;

/// All rules that count for a device.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rules(Vec<Rule>);

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
struct Section {
    #[serde(default)]
    rules: Vec<Rule>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Rule {
    #[serde(default)]
    when: When,
    #[serde(default)]
    then: Vec<Step>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
enum When {
    #[default]
    Always,
    IsChannel(String),
    Not(Box<Self>),
    And(Vec<Self>),
    Or(Vec<Self>),
}

impl When {
    fn fits(&self, channel: &str) -> bool {
        match self {
            Self::Always => true,
            Self::IsChannel(wanted) => wanted == channel,
            Self::Not(not) => !not.fits(channel),
            Self::And(all) => all.iter().all(|one| one.fits(channel)),
            Self::Or(any) => any.iter().any(|one| one.fits(channel)),
        }
    }
}

/// A name and what it gets.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Set {
    name: String,
    value: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Step {
    Drop,
    Break,
    Reject(String),
    SetAttribute(Set),
    RemoveAttribute(String),
    SetExtension(Set),
    RemoveExtension(String),
    Validate(Validate),
    Enrich(Enrich),
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Validate {
    #[serde(default)]
    request: RequestForm,
    endpoint: Endpoint,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Enrich {
    #[serde(default)]
    request: RequestForm,
    #[serde(default)]
    response: ResponseForm,
    endpoint: Endpoint,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", tag = "type")]
enum RequestForm {
    CloudEvent {
        #[serde(default)]
        mode: Mode,
    },
}

impl Default for RequestForm {
    fn default() -> Self {
        Self::CloudEvent { mode: Mode::default() }
    }
}

/// How an event is said over HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Mode {
    /// Attributes are headers.
    #[default]
    Binary,
    /// All of it is the body.
    Structured,
}

/// What an endpoint is expected to answer: `{"type": "raw"}`, or just `"raw"`, as earlier versions had it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(from = "Response")]
pub(super) enum ResponseForm {
    /// An event, in either form.
    #[default]
    CloudEvent,
    /// Another payload of the same event.
    Raw,
    /// An event in structured form, whatever the content type says.
    AssumeStructuredCloudEvent,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Response {
    Tagged {
        #[serde(rename = "type")]
        form: ResponseName,
    },
    Named(ResponseName),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
enum ResponseName {
    CloudEvent,
    Raw,
    AssumeStructuredCloudEvent,
}

impl From<Response> for ResponseForm {
    fn from(said: Response) -> Self {
        let (Response::Tagged { form } | Response::Named(form)) = said;
        match form {
            ResponseName::CloudEvent => Self::CloudEvent,
            ResponseName::Raw => Self::Raw,
            ResponseName::AssumeStructuredCloudEvent => Self::AssumeStructuredCloudEvent,
        }
    }
}

/// An endpoint that is asked.
#[derive(Clone, PartialEq, Eq, Deserialize)]
pub struct Endpoint {
    /// `POST` without it.
    #[serde(default)]
    pub method: Option<String>,
    /// Where.
    pub url: String,
    /// Headers that it gets.
    #[serde(default)]
    pub headers: Vec<Header>,
    #[serde(default)]
    timeout: Option<String>,
    #[serde(default)]
    pub(super) auth: Authentication,
    #[serde(default)]
    tls: Option<Tls>,
}

/// By hand: there are secrets in it.
impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

/// What an endpoint is shown.
#[derive(Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Authentication {
    #[default]
    None,
    Basic {
        username: String,
        #[serde(default)]
        password: Option<String>,
    },
    Bearer {
        token: String,
    },
}

/// How an endpoint is to be trusted.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Tls {
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    certificate: Option<String>,
}

/// A header.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Header {
    /// Its name.
    pub name: String,
    /// What it says.
    pub value: String,
}

impl Endpoint {
    /// How long it may take: its `timeout`, which is a number with `ms`, `s` or `m`.
    #[must_use]
    pub fn timeout_ms(&self) -> u64 {
        let said = self.timeout.as_deref().and_then(duration_ms);
        said.unwrap_or(TIMEOUT_MS).min(TIMEOUT_MS_MAX)
    }

    /// Whether its certificate is not to be checked, or by an authority of its own.
    pub(super) fn wants_other_tls(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.insecure || tls.certificate.is_some())
    }
}

fn duration_ms(text: &str) -> Option<u64> {
    let text = text.trim();
    let unit = text.find(|c: char| !c.is_ascii_digit())?;
    let factor = match text[unit..].trim() {
        "ms" => 1,
        "s" | "sec" | "second" | "seconds" => 1_000,
        "m" | "min" | "minute" | "minutes" => 60_000,
        _ => return None,
    };
    text[..unit].parse::<u64>().ok()?.checked_mul(factor)
}

/// How far an event has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Place {
    rule: usize,
    step: usize,
}

/// What is next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// The event goes on.
    Accepted,
    /// It goes nowhere, and its sender hears success.
    Dropped,
    /// It is refused, and why.
    Rejected(String),
    /// A rule asks for what can't be.
    Invalid,
    /// An endpoint did not answer as it should.
    Failed,
    /// This endpoint is to be asked; then [`Rules::answered`].
    Ask(Place, Mode, Endpoint),
}

/// What an endpoint answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// Its status.
    pub status: u16,
    /// Its headers: names in lower case.
    pub headers: BTreeMap<String, String>,
    /// Its body.
    pub body: Bytes,
}

impl Rules {
    /// Those of an application's `spec`, and then those of a device's.
    ///
    /// # Errors
    ///
    /// [`InvalidRules`].
    pub fn of(
        application: &Map<String, Value>,
        device: &Map<String, Value>,
    ) -> Result<Self, InvalidRules> {
        let mut all = Vec::new();
        for section in [application, device].into_iter().filter_map(|spec| spec.get(SECTION)) {
            let Section { rules } = Section::deserialize(section).map_err(|_| InvalidRules)?;
            if rules.len() > RULES_MAX {
                return Err(InvalidRules);
            }
            all.extend(rules);
        }
        Ok(Self(all))
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes an event through them, from a place on.
    #[must_use]
    pub fn run(&self, mut at: Place, channel: &str, event: &mut CloudEvent) -> Next {
        while let Some(rule) = self.0.get(at.rule) {
            let fits = at.step > 0 || rule.when.fits(channel);
            let Some(step) = rule.then.get(at.step).filter(|_| fits) else {
                at = Place { rule: at.rule + 1, step: 0 };
                continue;
            };
            let changed = match step {
                Step::Drop => return Next::Dropped,
                Step::Break => return Next::Accepted,
                Step::Reject(why) => return Next::Rejected(why.clone()),
                Step::SetAttribute(set) => event.set_attribute(&set.name, &set.value),
                Step::RemoveAttribute(name) => event.remove_attribute(name),
                Step::SetExtension(set) => event.set_extension(&set.name, &set.value),
                Step::RemoveExtension(name) => event.remove_extension(name),
                Step::Validate(Validate { request, endpoint })
                | Step::Enrich(Enrich { request, endpoint, .. }) => {
                    let RequestForm::CloudEvent { mode } = *request;
                    return Next::Ask(at, mode, endpoint.clone());
                }
            };
            if changed.is_err() {
                return Next::Invalid;
            }
            at.step += 1;
        }
        Next::Accepted
    }

    /// Goes on with what the endpoint of a place answered.
    #[must_use]
    pub fn answered(
        &self,
        at: Place,
        answered: &Answered,
        channel: &str,
        event: &mut CloudEvent,
    ) -> Next {
        let step = self.0.get(at.rule).and_then(|rule| rule.then.get(at.step));
        match step {
            Some(Step::Validate(_)) => match answered.status {
                200 | 204 => {}
                202 => return Next::Accepted,
                400..=499 => return Next::Rejected(reason(answered)),
                _ => return Next::Failed,
            },
            Some(Step::Enrich(enrich)) if answered.status == 200 => {
                let Some(enriched) = event_of(event, enrich.response, answered) else {
                    return Next::Failed;
                };
                *event = enriched;
            }
            _ => return Next::Failed,
        }
        self.run(Place { step: at.step + 1, ..at }, channel, event)
    }
}

/// Why an endpoint does not want an event: `reason` of JSON, or text.
fn reason(answered: &Answered) -> String {
    let content_type = answered.headers.get("content-type").map_or("", String::as_str);
    let said = String::from_utf8_lossy(&answered.body);
    let json = content_type.starts_with(JSON).then(|| serde_json::from_str::<Value>(&said).ok());
    let reason = json.flatten().and_then(|json| json["reason"].as_str().map(str::to_owned));
    let text = reason.unwrap_or_else(|| said.trim().to_owned());
    if text.is_empty() {
        return format!("refused with status {}", answered.status);
    }
    text.chars().take(REASON_CHARS_MAX).collect()
}
