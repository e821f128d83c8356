//! W8, credentials that come and go: issued, rotated, revoked, their devices disabled and enabled, and two of them deleted, while
//! clients are connected with them and connect.
//!
//! Each device has a keeper, which changes one thing after another and knows what it changed; and each credential a holder, which
//! connects with it, publishes to its own topic and listens there, and goes on knocking a while when it is revoked. A device is
//! enabled and disabled on condition of its version, so that a request nobody answered can't take effect late.
//!
//! Five wrong passwords of a name within a minute are a ban of that name: knocks without hope are counted and rationed.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::Method;
use moorline_oracle::loads::{Audited, Churn, ChurnAct, Load};
use moorline_oracle::{Op, Phase};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::api::{Api, TENANT};
use super::ear::{Ear, durable};
use super::{Ended, Peer, Shared, last};
use crate::http::{Answer, AskError};
use crate::mqtt::{Connect, ConnectionError, Extras, Packet};
use crate::recorder::Actor;

/// Of the devices the last so many are deleted in the middle of the run.
const DELETED: u32 = 2;
/// Credentials of a device: at least, at most.
const CREDENTIALS: (usize, usize) = (1, 3);
/// Between two changes of a device, in milliseconds: from, to.
const CHANGE_MS: (u64, u64) = (800, 3_500);
/// How long a device stays disabled, in milliseconds: from, to. Some of it longer than a connection may outlive it.
const DISABLED_MS: (u64, u64) = (500, 8_000);
/// How often a holder publishes to itself.
const SERVED_EVERY: Duration = Duration::from_millis(500);
/// Between two logins of a holder, in milliseconds: from, to.
const LOGIN_MS: (u64, u64) = (200, 1_200);
/// How often a holder moves to another node.
const STAY: Duration = Duration::from_secs(9);
/// Knocks without hope at one node within `KNOCKS_WITHIN`: of one device, and of all.
const KNOCKS_MAX: (usize, usize) = (3, 20);
/// What a node counts wrong passwords within, and some.
const KNOCKS_WITHIN: Duration = Duration::from_secs(75);
/// How long a holder goes on once its credential is revoked.
const KNOCKS_FOR: Duration = Duration::from_secs(20);
/// Pause after a request that was not answered.
const TRY_EVERY: Duration = Duration::from_millis(150);
/// How long sessions of holders outlive their connections, in seconds: longer than any run.
const SESSION_S: u32 = 86_400;
/// Codes of a CONNACK that say that nobody with such a credential is let in.
const TURNED_AWAY: [u8; 2] = [0x86, 0x87];
/// Who changes things, in the history.
const NAME: &str = "w8";

/// Knocks without hope: when, by device and node.
#[derive(Debug, Default)]
pub(super) struct Knocks(Mutex<BTreeMap<(String, u32), VecDeque<Instant>>>);

impl Knocks {
    /// Whether one more is no ban yet; it counts then.
    pub(super) fn may(&self, device: &str, node: u32) -> bool {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for times in all.values_mut() {
            while times.front().is_some_and(|at| at.elapsed() > KNOCKS_WITHIN) {
                times.pop_front();
            }
        }
        let here = all.iter().filter(|((_, at), _)| *at == node);
        let everybody: usize = here.map(|(_, times)| times.len()).sum();
        let times = all.entry((device.to_owned(), node)).or_default();
        let may = times.len() < KNOCKS_MAX.0 && everybody < KNOCKS_MAX.1;
        if may {
            times.push_back(Instant::now());
        }
        may
    }
}

/// What keepers and holders of all devices share.
#[derive(Debug, Clone)]
pub(super) struct Ground {
    pub(super) shared: Arc<Shared>,
    pub(super) api: Api,
    pub(super) knocks: Arc<Knocks>,
    /// What must be in no log.
    pub(super) secrets: Arc<Mutex<Vec<String>>>,
}

/// A device, as its keeper and its holders know it.
#[derive(Debug)]
pub(super) struct Device {
    pub(super) name: String,
    /// Whether it is to be let in, as far as anybody knows.
    enabled: AtomicBool,
    deleted: AtomicBool,
}

/// A credential that was issued.
#[derive(Debug, Clone)]
pub(super) struct Credential {
    pub(super) id: String,
    pub(super) secret: String,
    /// Set before its revocation is asked for.
    pub(super) revoked: Arc<AtomicBool>,
}

/// What a keeper leaves: its device, and all credentials it ever had.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) device: Arc<Device>,
    pub(super) credentials: Vec<Credential>,
}

impl Device {
    /// Whether it was deleted.
    pub(super) fn is_deleted(&self) -> bool {
        self.deleted.load(Ordering::Relaxed)
    }
}

/// Starts the keepers; each ends by itself, with its holders, when told to drain.
pub(super) fn begin(
    ground: &Ground,
    devices: u32,
    lasts: Duration,
    random: &mut StdRng,
) -> JoinSet<Kept> {
    let mut keepers = JoinSet::new();
    for number in 0..devices {
        let random = StdRng::seed_from_u64(random.random());
        let (name, enabled) = (format!("CHURN{number}"), AtomicBool::new(true));
        let device = Arc::new(Device { name, enabled, deleted: AtomicBool::new(false) });
        let keeper = Keeper {
            ground: ground.clone(),
            device,
            random,
            live: Vec::new(),
            all: Vec::new(),
            holders: JoinSet::new(),
            labels: 0,
        };
        let deletes = (number + DELETED >= devices).then(|| Instant::now() + lasts / 2);
        keepers.spawn(keeper.run(deletes));
    }
    keepers
}

/// Who changes a device.
struct Keeper {
    ground: Ground,
    device: Arc<Device>,
    random: StdRng,
    live: Vec<Credential>,
    all: Vec<Credential>,
    holders: JoinSet<()>,
    labels: u64,
}

/// What came of a request that changes a device.
enum Came {
    Done(Value),
    /// It surely did nothing; the status, 0 if it was not asked.
    Not(u16),
    Unknown,
}

impl Ground {
    pub(super) fn note(&self, node: u32, ph: Phase, device: &str, act: ChurnAct) {
        let actor = Actor { name: NAME, node: Some(node) };
        let churn = Churn { device: device.to_owned(), act };
        self.shared.recorder.note(actor, ph, Op::Load(Load::Churn(churn)));
    }

    pub(super) fn peer(&self, random: &mut StdRng) -> &Peer {
        self.shared.draw(random)
    }

    /// Makes one request that changes a device, and notes both halves.
    async fn change(
        &self,
        (device, peer): (&str, &Peer),
        (method, path): (Method, &str),
        with: (Option<u64>, Option<Value>),
    ) -> Came {
        let deletes = method == Method::DELETE && !path.contains("/credentials/");
        self.note(peer.id, Phase::Invoke, device, ChurnAct::Change { deletes });
        let answered = self.api.ask(peer.admin, method, path, with).await;
        let came = came(&answered);
        let ph = match came {
            Came::Done(_) => Phase::Ok,
            Came::Not(_) => Phase::Fail,
            Came::Unknown => Phase::Info,
        };
        self.note(peer.id, ph, device, ChurnAct::Change { deletes });
        came
    }

    /// Makes a device that is not there, or is there already because an attempt was not answered.
    pub(super) async fn make(&self, device: &str, random: &mut StdRng) {
        let body = json!({ "name": device });
        while !self.shared.stop.is_cancelled() {
            let (peer, new) = (self.peer(random), (None, Some(body.clone())));
            match self.change((device, peer), (Method::POST, "/devices"), new).await {
                Came::Done(_) | Came::Not(409) => return,
                Came::Not(_) | Came::Unknown => sleep(TRY_EVERY).await,
            }
        }
    }

    /// Issues a credential; none if it is not known whether there is one now.
    pub(super) async fn issue(&self, device: &str, random: &mut StdRng) -> Option<Credential> {
        let path = format!("/devices/{device}/credentials");
        let peer = self.peer(random);
        let with = (None, Some(json!({ "kind": "secret" })));
        let came = self.change((device, peer), (Method::POST, &path), with).await;
        let Came::Done(made) = came else { return None };
        let word = |key: &str| made[key].as_str().map(str::to_owned);
        let (id, secret) = (word("id")?, word("secret")?);
        self.secrets.lock().unwrap_or_else(PoisonError::into_inner).push(secret.clone());
        self.note(peer.id, Phase::Ok, device, ChurnAct::Issued { credential: id.clone() });
        Some(Credential { id, secret, revoked: Arc::default() })
    }

    /// A record as it is; none of a device that there is not.
    pub(super) async fn get(&self, device: &str, random: &mut StdRng) -> Option<Option<Value>> {
        let peer = self.peer(random);
        let path = format!("/devices/{device}");
        match self.api.ask(peer.admin, Method::GET, &path, (None, None)).await {
            Ok(answer) if answer.status == 200 => Some(Some(answer.json())),
            Ok(answer) if answer.status == 404 => Some(None),
            Ok(_) | Err(_) => None,
        }
    }

    /// Connects with a credential and notes how that came out.
    pub(super) async fn login(
        &self,
        (device, credential): (&str, &Credential),
        client: String,
        peer: &Peer,
    ) -> (Phase, Option<Ear>) {
        let login = Some((format!("{device}@{TENANT}"), credential.secret.clone()));
        let extras = Extras { will: None, login };
        let connect = Connect { extras, ..durable(client, SESSION_S) };
        // Its number has to be known before it is there.
        let conn = self.shared.connection_number();
        let act = ChurnAct::Login { conn, credential: credential.id.clone() };
        self.note(peer.id, Phase::Invoke, device, act.clone());
        let (ph, ear) = match self.shared.reach(&connect, peer).await {
            Ok(mut link) => {
                link.conn = conn;
                (Phase::Ok, Some(Ear::new(link)))
            }
            Err(ConnectionError::Refused(code)) if TURNED_AWAY.contains(&code) => {
                (Phase::Fail, None)
            }
            Err(_) => (Phase::Info, None),
        };
        self.note(peer.id, ph, device, act);
        (ph, ear)
    }

    /// How many records of the audit there are about each device of the tenant; none if not all could be read.
    pub(super) async fn audit(&self, random: &mut StdRng) -> Option<()> {
        let mut counts: BTreeMap<String, (u64, u64)> = BTreeMap::new();
        let mut after = String::new();
        let deadline = Instant::now() + AUDIT_MAX;
        while Instant::now() < deadline {
            let peer = self.peer(random);
            let query = format!("limit=1000{after}");
            let answer = self.api.page(peer.admin, "/audit", &query).await;
            let Some(page) = answer.ok().filter(|answer| answer.status == 200) else {
                sleep(TRY_EVERY).await;
                continue;
            };
            let page = page.json();
            for record in page["records"].as_array().into_iter().flatten() {
                let device = record["object"].as_str().unwrap_or_default().to_owned();
                let count = counts.entry(device).or_default();
                count.0 += u64::from(record["action"] == "device.put");
                count.1 += u64::from(record["action"] == "device.delete");
            }
            let Some(next) = page["next"].as_str() else {
                for (device, (puts, deletes)) in counts {
                    let op = Op::Load(Load::Audited(Audited { device, puts, deletes }));
                    let actor = Actor { name: NAME, node: None };
                    self.shared.recorder.note(actor, Phase::Ok, op);
                }
                return Some(());
            };
            after = format!("&after={next}");
        }
        None
    }
}

/// How long reading the audit may take.
const AUDIT_MAX: Duration = Duration::from_secs(40);

/// What an answer says of a change. What was refused before it could have an effect did none; of anything else it is not known.
fn came(answered: &Result<Answer, AskError>) -> Came {
    match answered {
        Ok(answer) if matches!(answer.status, 200..300) => Came::Done(answer.json()),
        Ok(answer) if matches!(answer.status, 404 | 409 | 412 | 429 | 507) => {
            Came::Not(answer.status)
        }
        Err(AskError::NotAsked(_)) => Came::Not(0),
        Ok(_) | Err(AskError::Unknown(_)) => Came::Unknown,
    }
}

impl Keeper {
    async fn run(mut self, deletes: Option<Instant>) -> Kept {
        let shared = Arc::clone(&self.ground.shared);
        let name = self.device.name.clone();
        self.ground.make(&name, &mut self.random).await;
        if deletes.is_some() {
            last::leave_mail(&self.ground, &name, &mut self.random).await;
        }
        while !shared.drain.is_cancelled() {
            if deletes.is_some_and(|at| Instant::now() > at) {
                self.delete().await;
                shared.drain.cancelled().await;
                break;
            }
            self.change().await;
            let pause = self.random.random_range(CHANGE_MS.0..=CHANGE_MS.1);
            tokio::select! {
                () = shared.drain.cancelled() => {}
                () = sleep(Duration::from_millis(pause)) => {}
            }
        }
        while self.holders.join_next().await.is_some() {}
        Kept { device: self.device, credentials: self.all }
    }

    async fn change(&mut self) {
        let draw = self.random.random_range(0..100);
        if self.live.len() < CREDENTIALS.0 || (draw < 25 && self.live.len() < CREDENTIALS.1) {
            return self.issue().await;
        }
        match draw {
            // Rotate: first the new one, then the old one goes.
            25..55 => {
                self.issue().await;
                if self.live.len() > 1 {
                    self.revoke().await;
                }
            }
            55..75 => self.revoke().await,
            75..100 => {
                self.set_enabled(false).await;
                let ms = self.random.random_range(DISABLED_MS.0..=DISABLED_MS.1);
                tokio::select! {
                    () = self.ground.shared.drain.cancelled() => {}
                    () = sleep(Duration::from_millis(ms)) => {}
                }
                self.set_enabled(true).await;
            }
            _ => {}
        }
    }

    async fn issue(&mut self) {
        let name = self.device.name.clone();
        let Some(credential) = self.ground.issue(&name, &mut self.random).await else {
            // There may be one that nobody knows.
            return self.forget_strangers().await;
        };
        self.live.push(credential.clone());
        self.all.push(credential.clone());
        let holder = Holder {
            ground: self.ground.clone(),
            device: Arc::clone(&self.device),
            credential,
            random: StdRng::seed_from_u64(self.random.random()),
        };
        self.holders.spawn(holder.run());
    }

    /// Removes credentials that were made for a request that nobody answered.
    async fn forget_strangers(&mut self) {
        let name = self.device.name.clone();
        let Some(Some(record)) = self.ground.get(&name, &mut self.random).await else { return };
        let listed = record["credentials"].as_array().into_iter().flatten();
        let listed = listed.filter_map(|one| one["id"].as_str().map(str::to_owned));
        let ours = |id: &String| self.all.iter().any(|one| one.id == *id);
        for id in listed.filter(|id| !ours(id)).collect::<Vec<_>>() {
            let path = format!("/devices/{name}/credentials/{id}");
            let peer = self.ground.peer(&mut self.random);
            self.ground.change((&name, peer), (Method::DELETE, &path), (None, None)).await;
        }
    }

    /// Revokes the oldest credential, asking until it is known to be done.
    async fn revoke(&mut self) {
        let credential = self.live.remove(0);
        credential.revoked.store(true, Ordering::Relaxed);
        let path = format!("/devices/{}/credentials/{}", self.device.name, credential.id);
        self.remove(&path, Some(credential.id)).await;
    }

    async fn delete(&mut self) {
        self.device.deleted.store(true, Ordering::Relaxed);
        let path = format!("/devices/{}", self.device.name);
        self.remove(&path, None).await;
    }

    async fn remove(&mut self, path: &str, credential: Option<String>) {
        let name = self.device.name.clone();
        while !self.ground.shared.stop.is_cancelled() {
            let peer = self.ground.peer(&mut self.random);
            let act = ChurnAct::Revoke { credential: credential.clone() };
            self.ground.note(peer.id, Phase::Invoke, &name, act.clone());
            let asked = (Method::DELETE, path);
            let came = self.ground.change((&name, peer), asked, (None, None)).await;
            // That it is gone says that an earlier request, which nobody answered, did it.
            let done = matches!(came, Came::Done(_) | Came::Not(404));
            let ph = if done { Phase::Ok } else { Phase::Info };
            self.ground.note(peer.id, ph, &name, act);
            if done {
                return;
            }
            sleep(TRY_EVERY).await;
        }
    }

    /// Enables or disables the device, on condition of its version, until it is known to be so.
    async fn set_enabled(&mut self, enabled: bool) {
        if !enabled {
            self.device.enabled.store(false, Ordering::Relaxed);
        }
        let (name, act) =
            (self.device.name.clone(), if enabled { ChurnAct::Enable } else { ChurnAct::Disable });
        let path = format!("/devices/{name}");
        while !self.ground.shared.stop.is_cancelled() {
            let Some(Some(record)) = self.ground.get(&name, &mut self.random).await else {
                sleep(TRY_EVERY).await;
                continue;
            };
            let peer = self.ground.peer(&mut self.random);
            self.ground.note(peer.id, Phase::Invoke, &name, act.clone());
            let mut done = record["enabled"].as_bool() == Some(enabled);
            if !done {
                self.labels += 1;
                let settings = json!({ "labels": [format!("n{}", self.labels)] });
                let body = json!({ "enabled": enabled, "settings": settings });
                let with = (record["version"].as_u64(), Some(body));
                let came = self.ground.change((&name, peer), (Method::PUT, &path), with).await;
                done = matches!(came, Came::Done(_));
            }
            let ph = if done { Phase::Ok } else { Phase::Info };
            self.ground.note(peer.id, ph, &name, act.clone());
            if done {
                break;
            }
            sleep(TRY_EVERY).await;
        }
        if enabled {
            self.device.enabled.store(true, Ordering::Relaxed);
        }
    }
}

/// Who connects with a credential.
struct Holder {
    ground: Ground,
    device: Arc<Device>,
    credential: Credential,
    random: StdRng,
}

impl Holder {
    fn has_hope(&self) -> bool {
        let lost = self.credential.revoked.load(Ordering::Relaxed) || self.device.is_deleted();
        self.device.enabled.load(Ordering::Relaxed) && !lost
    }

    async fn run(mut self) {
        let ground = self.ground.clone();
        let mut lost: Option<Instant> = None;
        while !ground.shared.drain.is_cancelled() {
            if self.credential.revoked.load(Ordering::Relaxed) || self.device.is_deleted() {
                let since = *lost.get_or_insert_with(Instant::now);
                if since.elapsed() > KNOCKS_FOR {
                    return;
                }
            }
            let peer = ground.peer(&mut self.random);
            let name = self.device.name.as_str();
            if self.has_hope() || ground.knocks.may(name, peer.id) {
                let client = format!("{name}-{}", self.credential.id);
                let (_, ear) = ground.login((name, &self.credential), client, peer).await;
                if let Some(mut ear) = ear {
                    let (node, conn) = (ear.link.node, ear.link.conn);
                    // Why it ended nobody asks: that it did is what counts.
                    let _ended = self.use_it(&mut ear).await;
                    if ground.shared.stop.is_cancelled() {
                        return;
                    }
                    ground.note(node, Phase::Ok, name, ChurnAct::Close { conn });
                }
            }
            let pause = self.random.random_range(LOGIN_MS.0..=LOGIN_MS.1);
            tokio::select! {
                () = ground.shared.drain.cancelled() => {}
                () = sleep(Duration::from_millis(pause)) => {}
            }
        }
    }

    /// Publishes to itself and listens, until it is turned out; or for a while, if it need not fear that.
    async fn use_it(&self, ear: &mut Ear) -> Result<(), Ended> {
        let shared = Arc::clone(&self.ground.shared);
        let (name, conn, node) = (self.device.name.as_str(), ear.link.conn, ear.link.node);
        ear.subscribe(&shared, vec![format!("{name}/#")]).await?;
        let leaves = Instant::now() + STAY;
        let (mut packet, mut next) = (1, Instant::now());
        while !shared.drain.is_cancelled() {
            if Instant::now() > leaves && self.has_hope() {
                return Ok(());
            }
            if Instant::now() >= next {
                next += SERVED_EVERY;
                packet = packet % 60_000 + 1;
                let (topic, payload) = (format!("{name}/{}", self.credential.id), "x".into());
                let (dup, once, retain) = (false, false, false);
                let id = Some(packet);
                let publish = Packet::Publish { topic, packet: id, dup, once, retain, payload };
                ear.send(&[publish]).await?;
            }
            match ear.next(&shared, next).await? {
                Some(Packet::Publish { packet: Some(packet), .. }) => {
                    self.ground.note(node, Phase::Ok, name, ChurnAct::Served { conn });
                    ear.send(&[Packet::PubAck { packet, reason: 0 }]).await?;
                }
                Some(Packet::PubAck { reason: 0..0x80, .. }) => {
                    self.ground.note(node, Phase::Ok, name, ChurnAct::Served { conn });
                }
                Some(_) | None => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knocks_without_hope_stop_short_of_a_ban() {
        let knocks = Knocks::default();
        let many = |device: &str, node| (0..9).filter(|_| knocks.may(device, node)).count();
        assert_eq!((many("a", 1), many("a", 1), many("a", 2)), (KNOCKS_MAX.0, 0, KNOCKS_MAX.0));
        let others: usize = (0..20).map(|device| many(&format!("d{device}"), 1)).sum();
        assert_eq!(others + KNOCKS_MAX.0, KNOCKS_MAX.1);
    }

    #[test]
    fn only_answers_that_promise_it_are_taken_for_a_refusal() {
        let answer = |status| Ok(Answer { status, body: "{}".into() });
        #[rustfmt::skip]
        let table = [
            (answer(201), "done"), (answer(204), "done"), (answer(404), "not"), (answer(412), "not"),
            (answer(503), "unknown"), (answer(500), "unknown"),
            (Err(AskError::NotAsked(anyhow::anyhow!("no"))), "not"),
            (Err(AskError::Unknown(anyhow::anyhow!("no"))), "unknown"),
        ];
        for (answered, expected) in table {
            let is = match came(&answered) {
                Came::Done(_) => "done",
                Came::Not(_) => "not",
                Came::Unknown => "unknown",
            };
            assert_eq!(is, expected, "{answered:?}");
        }
    }
}
