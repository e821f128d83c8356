//! Last questions, when nothing changes any more: what the registry says of every device, whether credentials still do what they
//! should, and whether anything of a deleted device is there for the next one of its name.

use std::collections::BTreeSet;
use std::time::Duration;

use hyper::Method;
use moorline_oracle::loads::{Last, Load};
use moorline_oracle::{Op, Phase};
use rand::rngs::StdRng;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::api::TENANT;
use super::churn::{Credential, Ground, Kept};
use super::ear::durable;
use crate::http::Answer;
use crate::mqtt::{Connect, Extras};
use crate::recorder::Actor;

/// How long each question may take to be answered.
const ANSWER_MAX: Duration = Duration::from_secs(20);
/// Pause after a question that was not.
const TRY_EVERY: Duration = Duration::from_millis(150);
/// Records that the registry's clients may have made: slots, and generations of each.
const RECORDS: (usize, u32) = (40, 3);

fn note(ground: &Ground, last: Last) {
    let actor = Actor { name: "last", node: None };
    ground.shared.recorder.note(actor, Phase::Ok, Op::Load(Load::Last(last)));
}

fn credentials(record: &Value) -> Vec<String> {
    let all = record["credentials"].as_array().into_iter().flatten();
    all.filter_map(|one| one["id"].as_str().map(str::to_owned)).collect()
}

/// Asks until it is answered with one of these.
async fn ask(ground: &Ground, path: &str, query: &str, random: &mut StdRng) -> Option<Answer> {
    let deadline = Instant::now() + ANSWER_MAX;
    while Instant::now() < deadline {
        let peer = ground.peer(random);
        match ground.api.page(peer.admin, path, query).await {
            Ok(answer) if matches!(answer.status, 200 | 404) => return Some(answer),
            Ok(_) | Err(_) => sleep(TRY_EVERY).await,
        }
    }
    None
}

/// Asks everything. None if something was not answered.
pub(super) async fn ask_all(ground: &Ground, kept: &[Kept], random: &mut StdRng) -> Option<()> {
    for one in kept {
        logins(ground, one, random).await;
    }
    inventory(ground, kept, random).await?;
    for one in kept.iter().filter(|one| one.device.is_deleted()) {
        reborn(ground, one, random).await?;
    }
    Some(())
}

/// The list, and each device by itself.
async fn inventory(ground: &Ground, kept: &[Kept], random: &mut StdRng) -> Option<()> {
    let mut names: BTreeSet<String> = BTreeSet::new();
    let mut after = String::new();
    loop {
        let query = format!("limit=100{after}");
        let page = ask(ground, "/devices", &query, random).await?.json();
        for record in page["devices"].as_array().into_iter().flatten() {
            let device = record["name"].as_str()?.to_owned();
            names.insert(device.clone());
            let (version, credentials) = (record["version"].as_u64()?, credentials(record));
            note(ground, Last::Listed { device, version, credentials });
        }
        let Some(next) = page["next"].as_str() else { break };
        after = format!("&after={next}");
    }
    names.extend(kept.iter().map(|one| one.device.name.clone()));
    for slot in 0..RECORDS.0 {
        names.extend((0..RECORDS.1).map(|generation| format!("rec-{slot}-{generation}")));
    }
    for device in names {
        let answer = ask(ground, &format!("/devices/{device}"), "", random).await?;
        let record = answer.json();
        let version = record["version"].as_u64().filter(|_| answer.status == 200);
        let credentials = credentials(&record);
        note(ground, Last::Got { device, version, credentials });
    }
    Some(())
}

/// The newest credential of a device, and the oldest, which was revoked most likely.
async fn logins(ground: &Ground, kept: &Kept, random: &mut StdRng) {
    let name = kept.device.name.as_str();
    let ends = [kept.credentials.first(), kept.credentials.last()];
    for credential in ends.into_iter().flatten() {
        let node = ground.peer(random);
        if ground.knocks.may(name, node.id) {
            let client = format!("{name}-{}", credential.id);
            ground.login((name, credential), client, node).await;
        }
    }
}

/// Makes a device of the name of a deleted one, and looks what it has.
async fn reborn(ground: &Ground, kept: &Kept, random: &mut StdRng) -> Option<()> {
    let device = kept.device.name.clone();
    let mailbox = format!("/devices/{device}/mailbox");
    let mailbox_before = ask(ground, &mailbox, "", random).await?.status == 200;
    ground.make(&device, random).await;
    let record = ask(ground, &format!("/devices/{device}"), "", random).await?;
    let mails = ask(ground, &mailbox, "", random).await?.json();
    let mails = mails["mails"].as_array().map_or(0, Vec::len) as u64;
    // The old secret first: nobody knows it any more.
    let old = kept.credentials.last()?;
    let node = ground.peer(random);
    if ground.knocks.may(&device, node.id) {
        ground.login((&device, old), format!("{device}-{}", old.id), node).await;
    }
    let mut present = false;
    if let Some(new) = ground.issue(&device, random).await {
        present = has_session(ground, (&device, &new), old, random).await;
    }
    let credentials = credentials(&record.json()).len() as u64;
    note(ground, Last::Reborn { device, mailbox_before, credentials, mails, present });
    Some(())
}

/// Whether a client that calls itself as one of the deleted device did finds its session.
async fn has_session(
    ground: &Ground,
    (device, new): (&str, &Credential),
    old: &Credential,
    random: &mut StdRng,
) -> bool {
    let login = Some((format!("{device}@{TENANT}"), new.secret.clone()));
    let client = format!("{device}-{}", old.id);
    let extras = Extras { will: None, login };
    let connect = Connect { extras, ..durable(client, 1) };
    let link = ground.shared.reach(&connect, ground.peer(random)).await;
    link.is_ok_and(|link| link.connection.present)
}

/// Sends a device some mail, which nobody fetches.
pub(super) async fn leave_mail(ground: &Ground, device: &str, random: &mut StdRng) {
    let body = serde_json::json!({ "name": "left", "payload": { "n": 1 } });
    let path = format!("/devices/{device}/mailbox");
    let peer = ground.peer(random);
    // If it did not come there is none to be found later.
    let _sent = ground.api.ask(peer.admin, Method::POST, &path, (None, Some(body))).await;
}
