//! W3, mailboxes: an application sends mail by the API; devices fetch and settle it by Fostrom's HTTP, several of a device's own
//! at once, each request at another node.
//!
//! Open loop: a visit is due when its time has come. Unknown settlements and sends are often asked again with the same number: a
//! repeat must be one. Some devices lose their credential in the middle; they go on knocking for a while.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Result;
use hyper::Method;
use moorline_oracle::requests::{How, MailAnswer, MailAsk, MailState};
use moorline_oracle::{Op, Phase};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::api::{Api, FLEET};
use super::{Peer, Shared};
use crate::http::{Answer, Question};
use crate::recorder::Actor;

/// Devices with a mailbox.
pub const DEVICES: usize = 60;
/// How often a mail may be requeued until it is dead.
const REQUEUES_MAX: u16 = 2;
/// Mails of a device: all that ended are still known to the mailbox, which remembers a hundred.
const MAILS_MAX: u64 = 90;
/// Requests about one mailbox: the judge has to find an order of them.
const REQUESTS_MAX: u32 = 600;
/// Most visits under way; beyond it one is left out.
const UNDER_WAY_MAX: usize = 400;
/// How often a device knocks once its credential is revoked: ten failures are a ban.
const KNOCKS_MAX: u32 = 4;
/// Who sends, in the history.
const SENDER: &str = "w3-app";
/// How long one mailbox may take to be emptied at the end.
const EMPTY_MAX: Duration = Duration::from_secs(40);
/// How long the answer to one last question may take.
const FINAL_MAX: Duration = Duration::from_secs(20);
/// Pause after a failure at the end.
const TRY_EVERY: Duration = Duration::from_millis(100);
/// Devices looked at together at the end.
const AT_ONCE: usize = 8;

/// A device and what clients know of its mailbox.
#[derive(Debug)]
pub struct Device {
    name: String,
    secret: String,
    credential: String,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    mails: BTreeSet<u64>,
    requests: u32,
    /// A revocation was asked for; how often it has knocked since.
    revoked: Option<u32>,
}

impl Device {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whoever asks: the one half of a visit.
#[derive(Debug, Clone)]
struct Hands {
    shared: Arc<Shared>,
    api: Api,
    device: Arc<Device>,
}

/// The workload.
#[derive(Debug)]
pub struct Mailboxes {
    shared: Arc<Shared>,
    api: Api,
    random: StdRng,
    devices: Vec<Arc<Device>>,
    mails: u64,
}

/// The number of a mail as its id, and back: a UUIDv7 of one moment.
fn id(mail: u64) -> String {
    format!("01920000-0000-7000-8000-{mail:012x}")
}

fn number(id: &str) -> Option<u64> {
    u64::from_str_radix(id.strip_prefix("01920000-0000-7000-8000-")?, 16).ok()
}

impl Mailboxes {
    /// Makes the devices; draws everything else from `seed`.
    pub async fn open(shared: Arc<Shared>, api: Api, seed: u64) -> Result<Self> {
        let mut devices = Vec::new();
        for number in 0..DEVICES {
            let node = shared.member(number);
            let mut name = String::new();
            write!(name, "CHAOSM{number:04}")?;
            let settings = json!({ "mail": { "requeues-max": REQUEUES_MAX } });
            let (secret, credential) = api.device(node.admin, &name, &settings).await?;
            let known = Mutex::default();
            devices.push(Arc::new(Device { name, secret, credential, known }));
        }
        Ok(Self { shared, api, random: StdRng::seed_from_u64(seed), devices, mails: 0 })
    }

    /// What must be in no log.
    pub fn secrets(&self) -> impl Iterator<Item = String> {
        self.devices.iter().map(|device| device.secret.clone())
    }

    /// Sends, fetches and settles until told to drain, then waits for what is under way. Revokes this many credentials, evenly over
    /// `lasts`.
    pub async fn run(mut self, period: Duration, lasts: Duration, revocations: u32) -> Self {
        let mut tick = interval(period);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut under_way = JoinSet::new();
        let began = Instant::now();
        let (each, mut revoked) = (lasts / (revocations + 1), 0);
        loop {
            tokio::select! {
                biased;
                () = self.shared.drain.cancelled() => break,
                _ = tick.tick() => {}
            }
            while under_way.try_join_next().is_some() {}
            if revoked < revocations && began.elapsed() > each * (revoked + 1) {
                revoked += 1;
                // The first devices, which then are no more chosen for long.
                let device = Arc::clone(&self.devices[usize::try_from(revoked).expect("few")]);
                let hands = self.hands(device);
                let seed = self.random.random();
                under_way.spawn(hands.revoke(StdRng::seed_from_u64(seed)));
            }
            self.visit(&mut under_way);
        }
        while under_way.join_next().await.is_some() {}
        self
    }

    fn hands(&self, device: Arc<Device>) -> Hands {
        Hands { shared: Arc::clone(&self.shared), api: self.api.clone(), device }
    }

    fn visit(&mut self, under_way: &mut JoinSet<()>) {
        let device = Arc::clone(&self.devices[self.random.random_range(0..self.devices.len())]);
        let random = StdRng::seed_from_u64(self.random.random());
        let sends = self.random.random_range(0..100) < 38;
        {
            let mut known = device.known();
            let knocks = known.revoked.as_mut();
            if let Some(knocks) = knocks {
                *knocks += 1;
                if *knocks > KNOCKS_MAX || sends {
                    return;
                }
            }
            if known.requests > REQUESTS_MAX || under_way.len() > UNDER_WAY_MAX {
                return;
            }
        }
        let full = device.known().mails.len() as u64 >= MAILS_MAX;
        let hands = self.hands(device);
        if sends && !full {
            self.mails += 1;
            under_way.spawn(hands.send(self.mails, random));
        } else {
            under_way.spawn(hands.serve(random));
        }
    }

    /// When the faults are over: empties the mailboxes, and asks what became of each mail.
    pub async fn finish(self) {
        let mut under_way = JoinSet::new();
        for device in self.devices.clone() {
            while under_way.len() >= AT_ONCE {
                under_way.join_next().await;
            }
            under_way.spawn(self.hands(device).finish());
        }
        while under_way.join_next().await.is_some() {}
    }
}

impl Hands {
    /// Asks, by the device or for the application, and notes both halves. What was answered, if that is known.
    async fn ask(&self, peer: &Peer, ask: MailAsk) -> (Phase, Option<MailAnswer>) {
        self.device.known().requests += 1;
        let (name, op) = (&self.device.name, self.shared.number());
        let by_app = matches!(ask, MailAsk::Send { .. } | MailAsk::State { .. });
        let actor = Actor { name: if by_app { SENDER } else { name }, node: Some(peer.id) };
        let mail = |answer| Op::Mail { op, device: name.clone(), ask, answer };
        self.shared.recorder.note(actor, Phase::Invoke, mail(None));
        let answered = if by_app {
            let (method, path, body) = application(name, ask);
            self.api.ask(peer.admin, method, &path, (None, body)).await
        } else {
            self.api.http.ask(peer.http, &self.question(ask)).await
        };
        let (ph, answer, err) = match answered {
            Ok(answer) => read(ask, &answer),
            Err(error) => (error.phase(), None, Some(error.to_string())),
        };
        self.shared.recorder.note_error(actor, ph, mail(answer), err);
        (ph, answer)
    }

    fn question(&self, ask: MailAsk) -> Question {
        let settle = |mail, word| (Method::PUT, format!("/v1/mailbox/{word}/{}", id(mail)));
        let (method, path) = match ask {
            MailAsk::Settle { mail, how: How::Ack } => settle(mail, "ack"),
            MailAsk::Settle { mail, how: How::Reject } => settle(mail, "reject"),
            MailAsk::Settle { mail, how: How::Requeue } => settle(mail, "requeue"),
            MailAsk::Size => (Method::GET, "/v1/mailbox/size".to_owned()),
            MailAsk::Next | MailAsk::Send { .. } | MailAsk::State { .. } => {
                (Method::GET, "/v1/mailbox/next".to_owned())
            }
        };
        let headers = vec![
            ("x-fleet-id", FLEET.to_owned()),
            ("x-device-id", self.device.name.clone()),
            ("x-device-secret", self.device.secret.clone()),
        ];
        Question { method, path, headers, body: None }
    }

    fn peer<'a>(&'a self, random: &mut StdRng) -> &'a Peer {
        self.shared.draw(random)
    }

    /// Sends a mail; again with the same number if nobody knows whether it came, and now and then if somebody does.
    async fn send(self, mail: u64, mut random: StdRng) {
        self.device.known().mails.insert(mail);
        let ask = MailAsk::Send { mail, requeues_max: REQUEUES_MAX };
        let (ph, _) = self.ask(self.peer(&mut random), ask).await;
        let again = if ph == Phase::Info { 60 } else { 4 };
        if ph != Phase::Fail && random.random_range(0..100) < again {
            self.ask(self.peer(&mut random), ask).await;
        }
    }

    /// Fetches a mail and settles it, most often as a device would.
    async fn serve(self, mut random: StdRng) {
        let (_, answer) = self.ask(self.peer(&mut random), MailAsk::Next).await;
        let Some(MailAnswer::Front { mail: Some(mut mail) }) = answer else { return };
        let how = match random.random_range(0..100) {
            0..72 => How::Ack,
            72..80 => How::Reject,
            _ => How::Requeue,
        };
        match random.random_range(0..100) {
            0..4 => {
                self.ask(self.peer(&mut random), MailAsk::Size).await;
            }
            // Another one, which is not at the front most likely.
            4..8 => {
                let known = self.device.known();
                mail = known.mails.iter().nth(known.mails.len() / 2).copied().unwrap_or(mail);
            }
            // Fetched again: by another of the device's own, or after its crash.
            8..14 => {
                self.ask(self.peer(&mut random), MailAsk::Next).await;
            }
            _ => {}
        }
        let ask = MailAsk::Settle { mail, how };
        let (ph, _) = self.ask(self.peer(&mut random), ask).await;
        let again = if ph == Phase::Info { 60 } else { 3 };
        if random.random_range(0..100) < again {
            self.ask(self.peer(&mut random), ask).await;
        }
    }

    /// Revokes the device's credential, asking until it is known to be done; then knocks.
    async fn revoke(self, mut random: StdRng) {
        self.device.known().revoked = Some(0);
        let path = format!("/devices/{}/credentials/{}", self.device.name, self.device.credential);
        loop {
            let peer = self.peer(&mut random);
            let actor = Actor { name: SENDER, node: Some(peer.id) };
            let revoke = Op::Revoke { op: self.shared.number(), device: self.device.name.clone() };
            self.shared.recorder.note(actor, Phase::Invoke, revoke.clone());
            let answered = self.api.ask(peer.admin, Method::DELETE, &path, (None, None)).await;
            // That it is gone already says that an earlier request, which nobody answered, did it.
            let done = answered.as_ref().is_ok_and(|one| matches!(one.status, 200..300 | 404));
            let err = match answered {
                Ok(answer) => (!done).then(|| answer.words()),
                Err(error) => Some(error.to_string()),
            };
            let ph = if done { Phase::Ok } else { Phase::Info };
            self.shared.recorder.note_error(actor, ph, revoke, err);
            if done || self.shared.stop.is_cancelled() {
                break;
            }
            sleep(TRY_EVERY).await;
        }
        for peer in self.shared.peers.iter().filter(|peer| peer.is_up()) {
            self.ask(peer, MailAsk::Next).await;
        }
    }

    async fn finish(self) {
        if self.device.known().revoked.is_none() {
            self.empty().await;
        }
        let mails = self.device.known().mails.clone();
        for mail in mails {
            let deadline = Instant::now() + FINAL_MAX;
            let mut at = usize::try_from(mail).unwrap_or_default();
            loop {
                let peer = self.shared.member(at);
                let (ph, _) = self.ask(peer, MailAsk::State { mail }).await;
                if ph == Phase::Ok || Instant::now() > deadline {
                    break;
                }
                at += 1;
                sleep(TRY_EVERY).await;
            }
        }
    }

    async fn empty(&self) {
        let deadline = Instant::now() + EMPTY_MAX;
        let mut at = 0;
        while Instant::now() < deadline {
            at += 1;
            let peer = self.shared.member(at);
            match self.ask(peer, MailAsk::Next).await {
                (_, Some(MailAnswer::Front { mail: Some(mail) })) => {
                    self.ask(peer, MailAsk::Settle { mail, how: How::Ack }).await;
                }
                (_, Some(MailAnswer::Front { mail: None })) => return,
                _ => sleep(TRY_EVERY).await,
            }
        }
    }
}

/// What an application asks of the API.
fn application(device: &str, ask: MailAsk) -> (Method, String, Option<Value>) {
    let mailbox = format!("/devices/{device}/mailbox");
    match ask {
        MailAsk::Send { mail, .. } => {
            let body = json!({ "name": "chaos", "payload": { "n": mail }, "id": id(mail) });
            (Method::POST, mailbox, Some(body))
        }
        MailAsk::State { mail } => (Method::GET, format!("{mailbox}/{}", id(mail)), None),
        MailAsk::Next | MailAsk::Size | MailAsk::Settle { .. } => (Method::GET, mailbox, None),
    }
}

/// What an answer says: none of a request that was refused before it came to the mailbox.
fn read(ask: MailAsk, answer: &Answer) -> (Phase, Option<MailAnswer>, Option<String>) {
    let words = || Some(answer.words());
    let body = answer.json();
    let size = |key: &str| body[key].as_u64().and_then(|size| u32::try_from(size).ok());
    let said = match (ask, answer.status) {
        (MailAsk::Send { .. }, 201) => size("mailbox_size").map(|size| {
            let repeat = body["repeat"].as_bool().unwrap_or_default();
            MailAnswer::Sent { size, repeat }
        }),
        (MailAsk::Next, 204) => Some(MailAnswer::Front { mail: None }),
        (MailAsk::Next, 200) => {
            let mail = body["id"].as_str().and_then(number);
            // The payload says its number too: a mix of two mails would be seen.
            let whole = mail.is_some() && body["payload"]["n"].as_u64() == mail;
            whole.then_some(MailAnswer::Front { mail })
        }
        (MailAsk::Size, 200) => size("size").map(|size| MailAnswer::Size { size }),
        (MailAsk::Settle { .. }, 200) => Some(MailAnswer::Settled),
        (MailAsk::Settle { .. }, 409) => {
            return (Phase::Fail, Some(MailAnswer::NotNext), None);
        }
        (MailAsk::State { .. }, 200) => {
            Some(MailAnswer::State { state: state(body["state"].as_str().unwrap_or_default()) })
        }
        (MailAsk::State { .. }, 404) => Some(MailAnswer::State { state: MailState::Unknown }),
        (MailAsk::Next | MailAsk::Size | MailAsk::Settle { .. }, 401) => {
            return (Phase::Fail, Some(MailAnswer::Denied), words());
        }
        (_, 403 | 429 | 507) => return (Phase::Fail, None, words()),
        _ => None,
    };
    match said {
        Some(said) => (Phase::Ok, Some(said), None),
        None => (Phase::Info, None, words()),
    }
}

fn state(word: &str) -> MailState {
    match word {
        "queued" => MailState::Queued,
        "acked" => MailState::Acked,
        "rejected" => MailState::Rejected,
        "dead" => MailState::Dead,
        _ => MailState::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mail_has_its_number_in_its_id() {
        assert_eq!(number(&id(77)), Some(77));
        assert_eq!(number("018f4d1f-2a55-7f0e-b4ea-5f7c3e6fa001"), None);
    }

    #[test]
    fn only_answers_that_promise_it_are_taken_for_a_refusal() {
        let mail = json!({ "id": id(3), "payload": { "n": 3 } });
        let mixed = json!({ "id": id(3), "payload": { "n": 4 } });
        let settle = MailAsk::Settle { mail: 3, how: How::Ack };
        let front = |mail| Some(MailAnswer::Front { mail });
        #[rustfmt::skip]
        let table = [
            (MailAsk::Next, 200, &mail,        Phase::Ok,   front(Some(3))),
            (MailAsk::Next, 200, &mixed,       Phase::Info, None),
            (MailAsk::Next, 204, &Value::Null, Phase::Ok,   front(None)),
            (MailAsk::Next, 401, &Value::Null, Phase::Fail, Some(MailAnswer::Denied)),
            (MailAsk::Next, 503, &Value::Null, Phase::Info, None),
            (settle,        200, &Value::Null, Phase::Ok,   Some(MailAnswer::Settled)),
            (settle,        409, &Value::Null, Phase::Fail, Some(MailAnswer::NotNext)),
            (settle,        500, &Value::Null, Phase::Info, None),
            (MailAsk::State { mail: 3 }, 404, &Value::Null, Phase::Ok, Some(MailAnswer::State { state: MailState::Unknown })),
        ];
        for (ask, status, body, ph, expected) in table {
            let body = serde_json::to_vec(body).unwrap().into();
            let (got, said, _) = read(ask, &Answer { status, body });
            assert_eq!((got, said), (ph, expected), "{ask:?} {status}");
        }
    }
}
