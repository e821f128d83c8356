//! What may be published and subscribed to, and what that is inside.
//!
//! Commands are published inside below `$losant/`: no wildcard of a custom filter reaches what begins with `$`, so that `#` brings an
//! application's own topics and nobody's commands.
//!
//! # Invariants
//!
//! - **Nothing that begins with `losant` or `$` is a custom topic**, with or without a slash in front. Checked by
//!   `tests/it/losant/topics.rs`.
//! - **A device hears of the platform's own topics by their full names alone**: no wildcard, no share. Checked by the same.

use moorline_core::{Text, topic};

use super::id::Id;

/// What names of the platform's own begin with.
const OWN: &str = "losant";
/// What its commands are below, inside.
const INSIDE: &str = "$losant";

/// What a publish is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Publish {
    /// What a device reports.
    State(Id),
    /// A message within the application.
    Custom,
}

/// What a filter asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subscribe {
    /// Commands to a device.
    Commands(Id),
    /// Messages within the application.
    Custom,
}

/// The device and what is said of it, of a topic of the platform's own.
fn own(topic: &str) -> Option<(Id, &str)> {
    let rest = topic.strip_prefix('/').unwrap_or(topic).strip_prefix(OWN)?.strip_prefix('/')?;
    let (id, what) = rest.split_once('/')?;
    Some((Id::parse(id.as_bytes())?, what))
}

/// Whether a topic or filter is the platform's, to have or to refuse.
fn is_reserved(topic: &str) -> bool {
    topic.starts_with('$') || topic.strip_prefix('/').unwrap_or(topic).starts_with(OWN)
}

/// What a topic name is for a publish; [`None`]: nothing that any device may publish to.
#[must_use]
pub fn publish(name: &[u8]) -> Option<Publish> {
    let name = std::str::from_utf8(name).ok().filter(|name| topic::is_name(name.as_bytes()))?;
    match own(name) {
        Some((id, "state")) => Some(Publish::State(id)),
        Some(_) => None,
        None => (!is_reserved(name)).then_some(Publish::Custom),
    }
}

/// What a filter asks for; [`None`]: nothing that any device may subscribe to.
#[must_use]
pub fn subscribe(filter: &[u8]) -> Option<Subscribe> {
    let filter =
        std::str::from_utf8(filter).ok().filter(|name| topic::is_filter(name.as_bytes()))?;
    match own(filter) {
        Some((id, "command")) if !filter.starts_with('/') => Some(Subscribe::Commands(id)),
        Some(_) => None,
        None => (!is_reserved(filter)).then_some(Subscribe::Custom),
    }
}

/// Where a device hears its commands.
#[must_use]
pub fn command(device: &Id) -> Text {
    Text::from(format!("{OWN}/{device}/command"))
}

/// What that is called inside.
#[must_use]
pub fn command_inside(device: &Id) -> Text {
    Text::from(format!("{INSIDE}/{device}/command"))
}

/// What a client sees of a topic inside, if it is called otherwise there.
#[must_use]
pub fn seen(topic: &Text) -> Option<Text> {
    let rest = topic.as_str().strip_prefix(INSIDE)?;
    Some(Text::from(format!("{OWN}{rest}")))
}
