//! Why something did not arrive: what all nodes remember of a device, and whom a client that was judged was looked up as.
//!
//! ```text
//!   question   version 1 | tenant u32 | what u8: 0 device, 1 message | since u64 | name, or the message's number
//!   answer     JSON: notes, the oldest first
//! ```
//!
//! # Invariants
//!
//! - **A tenant hears of its own devices only**: what is remembered is kept by tenant, and is asked for by tenant.
//! - **A node that does not answer is said to have not answered**; nobody waits longer than [`NODE_WAIT`] for it.
//! - **Only devices that there are get notes by strangers**: a made-up name leaves nothing behind.
//!
//! Checked by the cluster tests (`explain.rs`).

use std::{cell::RefCell, collections::BTreeMap, future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use moorline_core::{NodeId, ShardId, TenantId, Text, UnixMillis};
use moorline_explain::{Became, Cause, Fingerprint, Note, Stage, Trail, Trails};
use moorline_group::wire::{Kind, Lane, Replier};
use moorline_machine::{EventRefused, MailRefused, ValueRefused, answer::Refused};
use moorline_storage::{
    StorageError,
    record::{Reader, Writer},
};
use serde::{Deserialize, Serialize};
use tokio::{task::JoinSet, time::timeout};

use super::{Registry, RegistryError};
use crate::service::Inner;

/// How long a node may take to say what it remembers.
pub const NODE_WAIT: Duration = Duration::from_secs(3);
/// Notes of one node in one answer. One of a device has fewer; a message may have touched many.
pub const NOTES_MAX: usize = 512;
/// The most bytes of an answer: that many notes, with the longest text each.
const ANSWER_BYTES_MAX: usize = 512 * 1024;
const VERSION: u8 = 1;
const QUESTION_BYTES: usize = 32;

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum About {
    /// What is remembered of a device.
    Device(Text),
    /// Whom a message touched.
    Message(Fingerprint),
}

/// A note, and whose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Noted {
    /// The device.
    pub device: String,
    /// What happened.
    #[serde(flatten)]
    pub note: Note,
}

/// What came of asking all nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Explained {
    /// What each remembers, the oldest first.
    pub nodes: BTreeMap<NodeId, Vec<Noted>>,
    /// Nodes that did not answer.
    pub silent: Vec<NodeId>,
}

tokio::task_local! {
    /// The device of whom a client that is being judged was looked up last.
    static SUSPECT: RefCell<Option<(TenantId, Text)>>;
}

/// Judges somebody, and says which device they were looked up as, if that exists.
pub async fn suspecting<T>(judging: impl Future<Output = T>) -> (T, Option<(TenantId, Text)>) {
    SUSPECT
        .scope(RefCell::default(), async {
            let judged = judging.await;
            (judged, SUSPECT.with(RefCell::take))
        })
        .await
}

/// A device was found while somebody was judged.
pub(super) fn suspect(tenant: TenantId, device: &Text) {
    // Most who look for a device judge nobody.
    let noted = SUSPECT.try_with(|suspect| suspect.replace(Some((tenant, device.clone()))));
    drop(noted);
}

impl Registry {
    /// What this node remembers.
    #[must_use]
    pub fn trails(&self) -> &Arc<Trails> {
        &self.inner.trails
    }

    /// A device's ring at this node.
    #[must_use]
    pub fn trail(&self, tenant: TenantId, device: &Text) -> Option<Trail> {
        self.inner.trails.of(tenant, device)
    }

    /// Asks all nodes.
    pub async fn explain(&self, tenant: TenantId, about: &About, since: UnixMillis) -> Explained {
        let question = encode(tenant, about, since);
        let mut asked = JoinSet::new();
        for node in self.inner.known_nodes() {
            let (inner, question) = (Arc::clone(&self.inner), question.clone());
            asked.spawn(async move { (node, inner.explain_of(node, question).await) });
        }
        let mut explained = Explained::default();
        while let Some(answered) = asked.join_next().await {
            match answered {
                Ok((node, Some(notes))) => _ = explained.nodes.insert(node, notes),
                Ok((node, None)) => explained.silent.push(node),
                // The node stops.
                Err(_) => {}
            }
        }
        explained.silent.sort_unstable();
        explained
    }
}

/// A step of a device that a shard answers, whoever took it for the device.
pub(super) struct Step {
    inner: Arc<Inner>,
    trail: Option<Trail>,
    stage: Stage,
    token: u64,
}

impl Step {
    /// It was answered.
    pub(super) fn answered<T>(self, answer: &Result<T, RegistryError>) {
        let Some(trail) = self.trail else { return };
        let became = match answer {
            Ok(_) => Became::Done,
            Err(error) => Became::Refused(cause_of(self.stage, error)),
        };
        trail.became(0, self.stage, self.token, self.inner.now(), became);
    }
}

impl Registry {
    /// Notes that a step of a device is under way.
    pub(super) fn step(
        &self,
        tenant: TenantId,
        device: &Text,
        note: impl FnOnce(UnixMillis) -> Note,
    ) -> Step {
        let trail = self.trail(tenant, device);
        let mut note = note(self.inner.now());
        (note.became, note.token) = (Became::Waiting, self.inner.trails.token());
        let (stage, token) = (note.stage, note.token);
        if let Some(trail) = &trail {
            trail.add(note);
        }
        Step { inner: Arc::clone(&self.inner), trail, stage, token }
    }
}

fn cause_of(stage: Stage, error: &RegistryError) -> Cause {
    match error {
        RegistryError::Busy | RegistryError::TooManyReaders => Cause::PublishBusy,
        RegistryError::Unavailable => Cause::PublishUnavailable,
        RegistryError::DiskFull => Cause::DiskFull,
        RegistryError::Refused(Refused::NotFound)
        | RegistryError::Mail(MailRefused::DeviceGone | MailRefused::DeviceChanged)
        | RegistryError::Events(EventRefused::DeviceGone)
        | RegistryError::Values(ValueRefused::DeviceGone) => Cause::DeviceGone,
        RegistryError::Mail(MailRefused::Full | MailRefused::TooManyMailboxes) => {
            Cause::MailboxFull
        }
        RegistryError::Mail(MailRefused::NotNext { .. } | MailRefused::NoSuchMail) => {
            Cause::MailNotNext
        }
        RegistryError::Mail(MailRefused::TooLarge)
        | RegistryError::Events(EventRefused::TooLarge)
        | RegistryError::Values(ValueRefused::TooLarge | ValueRefused::TooManyAtOnce) => {
            Cause::TooLarge
        }
        RegistryError::Values(
            ValueRefused::Full | ValueRefused::TooManyKeys | ValueRefused::TooManyHistories,
        ) => Cause::ValuesFull,
        RegistryError::Events(EventRefused::TooManyStreams) => Cause::StreamFull,
        RegistryError::Values(ValueRefused::Key) if stage == Stage::Event => {
            Cause::UnreadablePayload
        }
        RegistryError::Values(ValueRefused::Key)
        | RegistryError::Events(
            EventRefused::BeyondTail { .. }
            | EventRefused::TooManyConsumers
            | EventRefused::NoSuchConsumer,
        )
        | RegistryError::Refused(_)
        | RegistryError::Taken(_)
        | RegistryError::Calls(_)
        | RegistryError::Documents(_) => Cause::RegistryRefused,
    }
}

impl Inner {
    async fn explain_of(self: Arc<Self>, node: NodeId, question: Bytes) -> Option<Vec<Noted>> {
        if node == self.node {
            let (tenant, about, since) = decode(question).ok()?;
            return Some(self.remembered(tenant, &about, since));
        }
        let (lane, kind, shard) = (Lane::Bulk, Kind::Explain, ShardId::META);
        let asked = self.below().peers.call(node, lane, kind, shard, question, NODE_WAIT);
        let answer = timeout(NODE_WAIT, asked).await.ok()?.ok()?;
        let within = answer.len() <= ANSWER_BYTES_MAX;
        within.then(|| serde_json::from_slice(&answer).ok()).flatten()
    }

    fn remembered(&self, tenant: TenantId, about: &About, since: UnixMillis) -> Vec<Noted> {
        let of = |device: &Text, note| Noted { device: device.to_string(), note };
        match about {
            About::Device(device) => {
                let notes = self.trails.since(tenant, device, since);
                notes.into_iter().map(|note| of(device, note)).collect()
            }
            About::Message(message) => {
                let touched = self.trails.message(tenant, *message, NOTES_MAX);
                let since = touched.into_iter().filter(|(_, note)| note.at_ms >= since.0);
                since.map(|(device, note)| of(&device, note)).collect()
            }
        }
    }

    /// Another node asks.
    pub(crate) fn on_explain(
        self: &Arc<Self>,
        from: NodeId,
        _: ShardId,
        body: Bytes,
        reply: Option<Replier>,
    ) {
        let Some(reply) = reply else { return };
        match decode(body) {
            Ok((tenant, about, since)) => {
                let notes = self.remembered(tenant, &about, since);
                match serde_json::to_vec(&notes) {
                    Ok(notes) => reply.send(Bytes::from(notes)),
                    Err(_) => reply.refuse("notes that can't be written"),
                }
            }
            Err(problem) => self.bad_frame(from, &problem),
        }
    }
}

fn encode(tenant: TenantId, about: &About, since: UnixMillis) -> Bytes {
    let mut out = Writer::new(VERSION, QUESTION_BYTES);
    out.u32(tenant.0);
    match about {
        About::Device(device) => {
            out.u8(0);
            out.u64(since.0);
            out.rest(device.as_bytes());
        }
        About::Message(message) => {
            out.u8(1);
            out.u64(since.0);
            out.u64(message.0);
        }
    }
    out.done()
}

fn decode(frame: Bytes) -> Result<(TenantId, About, UnixMillis), StorageError> {
    let mut from = Reader::new(frame, VERSION, "explain")?;
    let tenant = TenantId(from.u32()?);
    let what = from.u8()?;
    let since = UnixMillis(from.u64()?);
    let about = match what {
        0 => {
            let no_text = from.corrupt("the name is no text".to_owned());
            About::Device(Text::from_utf8(from.rest()).map_err(|_| no_text)?)
        }
        1 => About::Message(Fingerprint(from.u64()?)),
        other => return Err(from.corrupt(format!("about {other}"))),
    };
    Ok((tenant, about, since))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_judged_client_is_known_as_whom_it_was_looked_up_last() {
        let (one, two) = (Text::from("one"), Text::from("two"));
        // Outside of a judgement nobody is suspected.
        suspect(TenantId(1), &one);
        let judging = async {
            suspect(TenantId(1), &one);
            tokio::task::yield_now().await;
            suspect(TenantId(2), &two);
            7
        };
        assert_eq!(suspecting(judging).await, (7, Some((TenantId(2), two))));
        assert_eq!(suspecting(async {}).await, ((), None));
    }

    #[test]
    fn questions_are_read_as_they_were_written() {
        let (tenant, since) = (TenantId(7), UnixMillis(1_000));
        for about in [About::Device(Text::from("kühl")), About::Message(Fingerprint(u64::MAX))] {
            let written = encode(tenant, &about, since);
            for cut in 0..written.len() - 4 {
                assert!(decode(written.slice(..cut)).is_err(), "{cut} of {about:?}");
            }
            assert_eq!(decode(written).unwrap(), (tenant, about, since));
        }
    }
}
