//! W4, the registry: records made, read, written with and without a condition, and deleted, over all nodes at once.
//!
//! Open loop: a request is due when its time has come, whatever became of those before. Conditions are versions that some answer
//! showed, fresh ones mostly, stale ones now and then. A record is left for a new one after `REQUESTS_MAX` requests, so that
//! the search of the judge stays short.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::Method;
use moorline_oracle::checks::minority;
use moorline_oracle::requests::{RecordAnswer, RecordAsk};
use moorline_oracle::{Op, Phase};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use super::Shared;
use super::api::Api;
use crate::http::Answer;
use crate::recorder::Actor;

/// Records at once.
const RECORDS: usize = 40;
/// Requests about a record before its name is left.
const REQUESTS_MAX: u32 = 150;
/// Most requests under way: as many as come in eight seconds at fifty a second. Beyond it a request is left out.
const UNDER_WAY_MAX: usize = 400;
/// Who asks, in the history.
const NAME: &str = "w4";
/// The same of clients on a node's own side, and how many records they have.
const INSIDE: (&str, usize) = (minority::INSIDE, 2);

/// One name that records are made under.
#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    requests: u32,
    /// Versions that answers showed: the latest last, at most two.
    versions: Arc<Mutex<Vec<u64>>>,
}

/// The workload.
#[derive(Debug)]
pub struct Registry {
    shared: Arc<Shared>,
    api: Api,
    random: StdRng,
    slots: Vec<Slot>,
    values: u64,
    /// Who asks.
    name: String,
    /// What names of records begin with.
    prefix: String,
    /// The place of the one node that is asked, if it is always the same.
    only: Option<usize>,
}

/// One request, ready to be asked.
struct Errand {
    shared: Arc<Shared>,
    api: Api,
    name: String,
    device: String,
    /// The place of the only node it may ask.
    only: Option<usize>,
    /// What the node is drawn from, else.
    place: u64,
    ask: RecordAsk,
    versions: Arc<Mutex<Vec<u64>>>,
}

impl Registry {
    /// Draws everything from `seed`.
    pub fn new(shared: Arc<Shared>, api: Api, seed: u64) -> Self {
        let slots = (0..RECORDS).map(|_| Slot::default()).collect();
        let (random, name) = (StdRng::seed_from_u64(seed), NAME.to_owned());
        let (prefix, only) = ("rec".to_owned(), None);
        Self { shared, api, random, slots, values: 0, name, prefix, only }
    }

    /// On the own side of one node, with records of its own; `api` asks from there.
    pub fn inside(shared: Arc<Shared>, api: Api, seed: u64, at: usize) -> Self {
        let id = shared.peers[at].id;
        let slots = (0..INSIDE.1).map(|_| Slot::default()).collect();
        let (name, prefix) = (format!("{}{id}", INSIDE.0), format!("inside-{id}"));
        Self { slots, name, prefix, only: Some(at), ..Self::new(shared, api, seed) }
    }

    /// Asks until told to drain, then waits for what is under way.
    pub async fn run(mut self, period: Duration) {
        let mut tick = interval(period);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut under_way = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                () = self.shared.drain.cancelled() => break,
                _ = tick.tick() => {}
            }
            while under_way.try_join_next().is_some() {}
            let errand = self.draw();
            if under_way.len() < UNDER_WAY_MAX {
                under_way.spawn(errand.run());
            }
        }
        while under_way.join_next().await.is_some() {}
    }

    fn draw(&mut self) -> Errand {
        let at = self.random.random_range(0..self.slots.len());
        let place = self.random.random();
        let slot = &mut self.slots[at];
        slot.requests += 1;
        if slot.requests > REQUESTS_MAX {
            *slot = Slot { generation: slot.generation + 1, requests: 1, ..Slot::default() };
        }
        let device = format!("{}-{at}-{}", self.prefix, slot.generation);
        let versions = Arc::clone(&slot.versions);
        let known = versions.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.values += 1;
        let ask = draw_ask(&mut self.random, self.values, &known);
        Errand {
            shared: Arc::clone(&self.shared),
            api: self.api.clone(),
            name: self.name.clone(),
            device,
            only: self.only,
            place,
            ask,
            versions,
        }
    }
}

/// What to ask, if these versions are known: the latest one last.
fn draw_ask(random: &mut StdRng, value: u64, known: &[u64]) -> RecordAsk {
    let (fresh, stale) = (known.last().copied(), known.first().copied());
    match random.random_range(0..100) {
        0..38 => RecordAsk::Get,
        38..56 => RecordAsk::Create { value },
        56..80 if fresh.is_some() => RecordAsk::Update { value, if_version: fresh },
        56..85 if stale.is_some() => RecordAsk::Update { value, if_version: stale },
        85..92 => RecordAsk::Update { value, if_version: None },
        92..96 if fresh.is_some() => RecordAsk::Delete { if_version: fresh },
        98..100 => RecordAsk::Delete { if_version: None },
        _ => RecordAsk::Get,
    }
}

/// A record that holds a value: it is among its labels.
fn body(value: u64) -> Value {
    json!({ "settings": { "labels": [format!("v{value}")] } })
}

impl Errand {
    async fn run(self) {
        let (shared, op) = (&self.shared, self.shared.number());
        let peer = match self.only {
            Some(at) => &shared.peers[at],
            None => shared.draw(&mut StdRng::seed_from_u64(self.place)),
        };
        let actor = Actor { name: &self.name, node: Some(peer.id) };
        let record = |answer| Op::Record { op, device: self.device.clone(), ask: self.ask, answer };
        shared.recorder.note(actor, Phase::Invoke, record(None));
        let path = format!("/devices/{}", self.device);
        let (method, path, condition, body) = match self.ask {
            RecordAsk::Get => (Method::GET, path, None, None),
            RecordAsk::Create { value } => {
                let mut new = body(value);
                new["name"] = json!(self.device);
                (Method::POST, "/devices".to_owned(), None, Some(new))
            }
            RecordAsk::Update { value, if_version } => {
                (Method::PUT, path, if_version, Some(body(value)))
            }
            RecordAsk::Delete { if_version } => (Method::DELETE, path, if_version, None),
        };
        let answered = self.api.ask(peer.admin, method, &path, (condition, body)).await;
        let (ph, answer, err) = match answered {
            Ok(answer) => read(self.ask, &answer),
            Err(error) => (error.phase(), None, Some(error.to_string())),
        };
        if let Some(RecordAnswer::Is { version, .. }) = answer {
            let mut versions = self.versions.lock().unwrap_or_else(PoisonError::into_inner);
            if versions.last() != Some(&version) {
                versions.push(version);
                if versions.len() > 2 {
                    versions.remove(0);
                }
            }
        }
        shared.recorder.note_error(actor, ph, record(answer), err);
    }
}

/// What an answer says. One that shows a record we can't read is no answer we know: the judge is told that it is unknown.
fn read(ask: RecordAsk, answer: &Answer) -> (Phase, Option<RecordAnswer>, Option<String>) {
    let words = || Some(answer.words());
    match (answer.status, ask) {
        (200 | 201, _) => match shown(&answer.json()) {
            Some(is) => (Phase::Ok, Some(is), None),
            None => (Phase::Info, None, words()),
        },
        (204, RecordAsk::Delete { .. }) => (Phase::Ok, Some(RecordAnswer::Deleted), None),
        // Written, and deleted by somebody else before it was shown.
        (404, RecordAsk::Create { .. }) => (Phase::Info, None, words()),
        (404, RecordAsk::Get) => (Phase::Ok, Some(RecordAnswer::Absent), None),
        (404, RecordAsk::Delete { .. } | RecordAsk::Update { .. }) => {
            (Phase::Fail, Some(RecordAnswer::Absent), None)
        }
        (409, RecordAsk::Create { .. }) => (Phase::Fail, Some(RecordAnswer::Exists), None),
        (412, _) => (Phase::Fail, Some(RecordAnswer::OtherVersion), None),
        // The disk of too many nodes is full, or the cluster is busy: nothing happened (`RegistryError`).
        (429 | 507, _) => (Phase::Fail, None, words()),
        _ => (Phase::Info, None, words()),
    }
}

fn shown(record: &Value) -> Option<RecordAnswer> {
    let version = record["version"].as_u64()?;
    let label = record["settings"]["labels"].get(0)?;
    let value = label.as_str()?.strip_prefix('v')?.parse().ok()?;
    Some(RecordAnswer::Is { version, value })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &Value) -> Answer {
        Answer { status, body: serde_json::to_vec(body).unwrap().into() }
    }

    #[test]
    fn only_answers_that_promise_it_are_taken_for_a_refusal() {
        let is = json!({ "version": 7, "settings": { "labels": ["v3"] } });
        let (create, delete) =
            (RecordAsk::Create { value: 3 }, RecordAsk::Delete { if_version: None });
        let update = RecordAsk::Update { value: 3, if_version: None };
        let seen = Some(RecordAnswer::Is { version: 7, value: 3 });
        #[rustfmt::skip]
        let table = [
            (RecordAsk::Get, 200, &is,         Phase::Ok,   seen),
            (create,         201, &is,         Phase::Ok,   seen),
            (create,         201, &Value::Null, Phase::Info, None),
            (create,         404, &Value::Null, Phase::Info, None),
            (create,         409, &Value::Null, Phase::Fail, Some(RecordAnswer::Exists)),
            (update,         412, &Value::Null, Phase::Fail, Some(RecordAnswer::OtherVersion)),
            (update,         503, &Value::Null, Phase::Info, None),
            (update,         507, &Value::Null, Phase::Fail, None),
            (delete,         204, &Value::Null, Phase::Ok,   Some(RecordAnswer::Deleted)),
            (delete,         404, &Value::Null, Phase::Fail, Some(RecordAnswer::Absent)),
        ];
        for (ask, status, body, ph, expected) in table {
            let (got, is, _) = read(ask, &answer(status, body));
            assert_eq!((got, is), (ph, expected), "{ask:?} {status}");
        }
    }

    #[test]
    fn a_seed_asks_for_everything() {
        let mut random = StdRng::seed_from_u64(1);
        let asks: Vec<_> = (0..500).map(|value| draw_ask(&mut random, value, &[5, 9])).collect();
        for wanted in [
            RecordAsk::Get,
            RecordAsk::Delete { if_version: None },
            RecordAsk::Delete { if_version: Some(9) },
        ] {
            assert!(asks.contains(&wanted), "{wanted:?}");
        }
        let updates = |version| {
            let is = |ask: &&RecordAsk| matches!(ask, RecordAsk::Update { if_version, .. } if *if_version == version);
            asks.iter().filter(is).count()
        };
        assert!(updates(Some(9)) > updates(Some(5)) && updates(Some(5)) > 0 && updates(None) > 0);
    }
}
