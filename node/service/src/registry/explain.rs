//! Why something did not arrive: what all nodes remember of a device, and whom a client that was judged was looked up as.
//!
//! ```text
//!   question   version 1 | tenant u32 | what u8: 0 device, 1 message | since u64 | name, or the message's number
//!   answer     JSON: notes, the oldest first; behind them {"more": n} if there are more
//! ```
//!
//! # Invariants
//!
//! - **A tenant hears of its own devices only**: what is remembered is kept by tenant, and is asked for by tenant.
//! - **A node that does not answer is said to have not answered**; nobody waits longer than [`NODE_WAIT`] for it.
//! - **Only devices that there are get notes by strangers**: a made-up name leaves nothing behind. Whether there is one is never
//!   looked up before the stranger has its answer, so nobody learns it from how long that takes.
//!
//! - **Looking for a message holds nobody up**: at most [`SEARCHES_MAX`] are looked for by those who ask a node, and each node looks for
//!   one at a time, on a thread of its own. What does not fit into an answer is counted in it.
//!
//! Checked by the cluster tests (`explain.rs`).

use std::{
    cell::RefCell, collections::BTreeMap, future::Future, net::IpAddr, sync::Arc, time::Duration,
};

use bytes::Bytes;
use moorline_core::{NodeId, ShardId, TenantId, Text, UnixMillis, op::Denial, session_name};
use moorline_explain::{Became, Fingerprint, Note, Place, Route, Trail, Trails};
pub use moorline_explain::{Cause, Stage};
use moorline_group::wire::{Kind, Lane, Replier};
use moorline_machine::{EventRefused, MailRefused, MemberState, ValueRefused, answer::Refused};
use moorline_storage::{
    StorageError,
    record::{Reader, Writer},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::{
    task::{JoinSet, spawn_blocking},
    time::timeout,
};

use super::{EventPlace, Registry, RegistryError, principal::is_principal};
use crate::service::Inner;

/// How long a node may take to say what it remembers.
pub const NODE_WAIT: Duration = Duration::from_secs(3);
/// Notes of one node in one answer. One of a device has fewer; a message may have touched many.
pub const NOTES_MAX: usize = 512;
/// The most bytes of an answer: that many notes, with the longest text and all places each.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// Devices that are looked up at once at a node because somebody was refused who said to be them, and is not known to be.
pub(crate) const LOOKUPS_MAX: usize = 16;
/// Messages that are looked for at once by whoever asks this node.
pub const SEARCHES_MAX: usize = 2;
/// What stands before how many more notes there are.
const MORE: &str = "more";
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
    /// How many more notes than it said a node remembers, where there are more than go into an answer.
    pub more: BTreeMap<NodeId, u64>,
}

/// What one node remembers, and how many more notes there are.
#[derive(Debug, Default)]
struct Remembered {
    notes: Vec<Noted>,
    more: u64,
}

/// Whom a client that is being judged was looked up as, and why it is not let in, if that is known more exactly than it is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suspect {
    /// Whose device.
    pub tenant: TenantId,
    /// Its name.
    pub device: Text,
    /// Why it is not let in.
    pub because: Option<Cause>,
    /// Whether there is such a device, or somebody only said so.
    pub is_there: bool,
}

impl Suspect {
    fn new(tenant: TenantId, device: &Text, is_there: bool) -> Self {
        Self { tenant, device: device.clone(), because: None, is_there }
    }

    fn is(&self, tenant: TenantId, device: &Text) -> bool {
        self.tenant == tenant && self.device == *device
    }
}

tokio::task_local! {
    /// The device of whom a client that is being judged was looked up last.
    static SUSPECT: RefCell<Option<Suspect>>;
}

/// Judges somebody, and says which device they were looked up as, if that exists.
pub async fn suspecting<T>(judging: impl Future<Output = T>) -> (T, Option<Suspect>) {
    SUSPECT
        .scope(RefCell::default(), async {
            let judged = judging.await;
            (judged, SUSPECT.with(RefCell::take))
        })
        .await
}

/// A device was found while somebody was judged.
pub(super) fn suspect(tenant: TenantId, device: &Text) {
    if is_principal(device) {
        return;
    }
    let noted = SUSPECT.try_with(|suspect| {
        let mut suspect = suspect.borrow_mut();
        match suspect.as_mut().filter(|known| known.is(tenant, device)) {
            Some(known) => known.is_there = true,
            None => *suspect = Some(Suspect::new(tenant, device, true)),
        }
    });
    // Most who look for a device judge nobody.
    noted.unwrap_or_default();
}

/// Somebody who is judged says to be this device, which was not looked up.
pub fn meant(tenant: TenantId, device: &Text) {
    if is_principal(device) {
        return;
    }
    let noted = SUSPECT.try_with(|suspect| {
        suspect.borrow_mut().get_or_insert_with(|| Suspect::new(tenant, device, false));
    });
    noted.unwrap_or_default();
}

/// Somebody who is judged is not let in for this reason; whoever asks from outside hears less.
pub fn because(cause: Cause) {
    let noted = SUSPECT.try_with(|suspect| {
        if let Some(suspect) = suspect.borrow_mut().as_mut() {
            suspect.because = Some(cause);
        }
    });
    noted.unwrap_or_default();
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

    /// Judges somebody who makes a request, and notes why not with the device that it was looked up as. `cause`: what the refusal
    /// means, if nothing more exact is known; [`None`] if it is none of the device's.
    ///
    /// Who is let in is noted by what it does then: else half of what is remembered of a device that makes requests would be this.
    ///
    /// # Errors
    ///
    /// Those of `judging`.
    pub async fn remembering<T, E>(
        &self,
        from: IpAddr,
        cause: impl FnOnce(&E) -> Option<Cause> + Send,
        judging: impl Future<Output = Result<T, E>> + Send,
    ) -> Result<T, E> {
        if SUSPECT.try_with(|_| ()).is_ok() {
            // Whoever judges it with others notes it.
            return judging.await;
        }
        let (judged, suspect) = suspecting(judging).await;
        if let (Err(why), Some(suspect)) = (&judged, suspect)
            && let Some(cause) = cause(why)
        {
            self.note_not_let_in(suspect, &from.to_string(), cause);
        }
        judged
    }

    /// Notes why somebody was not let in. If it is not known whether there is such a device, that is looked up first, beside everything
    /// else: the answer does not wait for it. While `LOOKUPS_MAX` of these are under way more are not noted.
    pub fn note_not_let_in(&self, suspect: Suspect, from: &str, cause: Cause) {
        let Suspect { tenant, device, because, is_there } = suspect;
        let cause = because.unwrap_or(cause);
        if is_there || self.inner.trails.known(tenant, &device).is_some() {
            return self.note_refused((tenant, &device), Stage::Authenticate, from, cause);
        }
        let Ok(place) = Arc::clone(&self.inner.lookups).try_acquire_owned() else { return };
        let (registry, from) = (self.clone(), from.to_owned());
        self.inner.tasks.spawn(async move {
            if let Ok(Some(_)) = registry.device(tenant, &device).await {
                registry.note_refused((tenant, &device), Stage::Authenticate, &from, cause);
            }
            drop(place);
        });
    }

    /// The same of somebody whose refusals are [`Denial`]s.
    ///
    /// # Errors
    ///
    /// Those of `judging`.
    pub async fn remembering_denial<T>(
        &self,
        from: IpAddr,
        judging: impl Future<Output = Result<T, Denial>> + Send,
    ) -> Result<T, Denial> {
        self.remembering(from, |why| Some(Cause::of_denial(*why)), judging).await
    }

    /// Notes that something of a device was refused before any shard heard of it. The same over and over is one note with a count.
    pub fn note_refused(
        &self,
        (tenant, device): (TenantId, &Text),
        stage: Stage,
        about: &str,
        cause: Cause,
    ) {
        let note = Note::new(self.inner.now(), stage, about);
        let note = Note { became: Became::Refused(cause), ..note };
        self.inner.trails.again(tenant, device, note);
    }

    /// Notes that something of a device, or for it, went nowhere, without anybody having been told.
    pub fn note_dropped(
        &self,
        (tenant, device): (TenantId, &Text),
        stage: Stage,
        about: &str,
        cause: Cause,
    ) {
        let note = Note::new(self.inner.now(), stage, about);
        let note = Note { became: Became::Dropped(cause), ..note };
        self.inner.trails.again(tenant, device, note);
    }

    /// Asks all nodes.
    ///
    /// # Errors
    ///
    /// [`RegistryError::Busy`]: [`SEARCHES_MAX`] messages are looked for already.
    pub async fn explain(
        &self,
        tenant: TenantId,
        about: &About,
        since: UnixMillis,
    ) -> Result<Explained, RegistryError> {
        let _place = match about {
            About::Device(_) => None,
            About::Message(_) => {
                let place = self.inner.searches.try_acquire().map_err(|_| RegistryError::Busy)?;
                Some(place)
            }
        };
        let question = encode(tenant, about, since);
        let mut asked = JoinSet::new();
        for node in self.inner.present_nodes() {
            let (inner, question) = (Arc::clone(&self.inner), question.clone());
            asked.spawn(async move { (node, inner.explain_of(node, question).await) });
        }
        let mut explained = Explained::default();
        while let Some(answered) = asked.join_next().await {
            match answered {
                Ok((node, Some(Remembered { notes, more }))) => {
                    explained.nodes.insert(node, notes);
                    if more > 0 {
                        explained.more.insert(node, more);
                    }
                }
                Ok((node, None)) => explained.silent.push(node),
                // The node stops.
                Err(_) => {}
            }
        }
        explained.silent.sort_unstable();
        Ok(explained)
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

impl Step {
    /// An event was appended, or not.
    pub(super) fn appended(self, answer: &Result<EventPlace, RegistryError>) {
        if let (Some(trail), Ok(EventPlace { shard, offset, .. })) = (&self.trail, answer) {
            let route = Route::to(Place::Shard(shard.0), Became::Done);
            trail.stored(self.stage, self.token, *offset, route);
        }
        self.answered(answer);
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
    /// The queue of a session is full: its device is told so where it is remembered, also if it is connected elsewhere, or nowhere.
    pub(crate) fn note_full(&self, tenant: TenantId, session: &Text) {
        let device = session_name::device_of(session).map_or_else(|| session.clone(), |of| of.0);
        let note = Note::new(self.now(), Stage::Deliver, "");
        let note = Note { became: Became::Dropped(Cause::SubscriberFull), ..note };
        self.trails.again(tenant, &device, note);
    }

    /// All nodes but those that were removed: nobody waits for what they would say.
    fn present_nodes(&self) -> Vec<NodeId> {
        let present = |machine: &moorline_machine::Machine| {
            let meta = machine.meta();
            let stays = |node: &&NodeId| meta.member(**node) != Some(MemberState::Removed);
            meta.nodes().keys().filter(stays).copied().collect()
        };
        self.below().groups.read(ShardId::META, |machine, _| present(machine)).unwrap_or_default()
    }

    async fn explain_of(self: Arc<Self>, node: NodeId, question: Bytes) -> Option<Remembered> {
        if node == self.node {
            let (tenant, about, since) = decode(question).ok()?;
            return timeout(NODE_WAIT, self.remembered(tenant, about, since)).await.ok()?;
        }
        let (lane, kind, shard) = (Lane::Bulk, Kind::Explain, ShardId::META);
        let asked = self.below().peers.call(node, lane, kind, shard, question, NODE_WAIT);
        let answer = timeout(NODE_WAIT, asked).await.ok()?.ok()?;
        let within = answer.len() <= ANSWER_BYTES_MAX;
        within.then(|| read(&answer)).flatten()
    }

    async fn remembered(
        self: &Arc<Self>,
        tenant: TenantId,
        about: About,
        since: UnixMillis,
    ) -> Option<Remembered> {
        let of = |device: &Text, note| Noted { device: device.to_string(), note };
        match about {
            About::Device(device) => {
                let notes = self.trails.since(tenant, &device, since).into_iter();
                let notes = notes.map(|note| of(&device, note)).collect();
                Some(Remembered { notes, more: 0 })
            }
            About::Message(message) => {
                // One at a time, beside what devices wait for: it looks at each ring.
                let place = Arc::clone(&self.searching).acquire_owned().await.ok()?;
                let trails = Arc::clone(&self.trails);
                let looking = spawn_blocking(move || {
                    let found = trails.message(tenant, message, since, NOTES_MAX);
                    drop(place);
                    found
                });
                let (touched, more) = looking.await.ok()?;
                let notes = touched.into_iter().map(|(device, note)| of(&device, note)).collect();
                Some(Remembered { notes, more })
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
                let inner = Arc::clone(self);
                self.tasks.spawn(async move {
                    let remembered = timeout(NODE_WAIT, inner.remembered(tenant, about, since));
                    let written = remembered.await.ok().flatten().as_ref().and_then(write);
                    match written {
                        Some(notes) => reply.send(notes),
                        None => reply.refuse("too much is looked for, or can't be written"),
                    }
                });
            }
            Err(problem) => self.bad_frame(from, &problem),
        }
    }
}

/// How many more there are stands behind the notes: what is no note is passed over by nodes of earlier versions.
fn write(Remembered { notes, more }: &Remembered) -> Option<Bytes> {
    let mut all: Vec<Value> =
        notes.iter().map(serde_json::to_value).collect::<Result<_, _>>().ok()?;
    if *more > 0 {
        all.push(json!({ MORE: more }));
    }
    serde_json::to_vec(&all).ok().map(Bytes::from)
}

/// A node of a later version may know causes that this one has no words for: the others count.
fn read(answer: &[u8]) -> Option<Remembered> {
    let all: Vec<Value> = serde_json::from_slice(answer).ok()?;
    let more = all.last().and_then(|last| last.get(MORE)).and_then(Value::as_u64);
    let notes = all.into_iter().filter_map(|note| serde_json::from_value(note).ok()).collect();
    Some(Remembered { notes, more: more.unwrap_or_default() })
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
        let known = Suspect::new(TenantId(2), &two, true);
        assert_eq!(suspecting(judging).await, (7, Some(known.clone())));
        let exactly = async {
            because(Cause::Disabled);
            suspect(TenantId(2), &two);
            because(Cause::Disabled);
            // The same device is looked at again.
            suspect(TenantId(2), &two);
        };
        let because = Some(Cause::Disabled);
        assert_eq!(suspecting(exactly).await, ((), Some(Suspect { because, ..known })));
        assert_eq!(suspecting(async {}).await, ((), None));
        let named = async {
            meant(TenantId(1), &one);
            meant(TenantId(2), &two);
        };
        assert_eq!(suspecting(named).await.1, Some(Suspect::new(TenantId(1), &one, false)));
        let found = async {
            meant(TenantId(1), &one);
            suspect(TenantId(1), &one);
        };
        assert_eq!(suspecting(found).await.1, Some(Suspect::new(TenantId(1), &one, true)));
        assert_eq!(suspecting(async { meant(TenantId(1), &Text::from("~key")) }).await.1, None);
    }

    #[test]
    fn an_answer_says_how_many_more_there_are() {
        let note = Note::new(UnixMillis(1), Stage::Publish, "t");
        let noted = Noted { device: "d".to_owned(), note };
        for more in [0, 88] {
            let written = write(&Remembered { notes: vec![noted.clone()], more }).unwrap();
            let Remembered { notes, more: heard } = read(&written).unwrap();
            assert_eq!((notes, heard), (vec![noted.clone()], more));
        }
        assert!(read(b"{}").is_none());
    }

    #[test]
    fn questions_are_read_as_they_were_written() {
        let (tenant, since) = (TenantId(7), UnixMillis(1_000));
        for about in [About::Device(Text::from("kühl")), About::Message(Fingerprint(u64::MAX))] {
            let written = encode(tenant, &about, since);
            // Behind tenant, kind and time a name may have any length.
            for cut in 0..written.len().min(14) {
                assert!(decode(written.slice(..cut)).is_err(), "{cut} of {about:?}");
            }
            assert_eq!(decode(written).unwrap(), (tenant, about, since));
        }
    }
}
