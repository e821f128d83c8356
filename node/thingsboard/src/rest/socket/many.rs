//! `ENTITY_DATA` and `ENTITY_COUNT`: a page of devices with what is wanted of each, and then what changes of them.
//!
//! ```text
//!   find (sought.rs) ─► the page is said ─► its devices are watched ─► after a pause: find ─► another page? ─► it is said …
//! ```
//!
//! A count goes on as long as somebody wants it; a page does if it says so (`pageLink.dynamic`), and is looked at once otherwise.
//!
//! # Invariants
//!
//! - **To follow a list costs a small part of the time**: a look is followed by a pause of [`FOLLOW_PAUSE`], and of
//!   [`FOLLOW_SHARE`] times as long as it took. Checked by this file's tests.
//! - **Bounded**: [`LOOKS_PER_TENANT_MAX`] looks of a tenant at once, [`LOOKS_MAX`] of all of them at a node; who finds no room tries
//!   again.
//! - **Who is on the page is watched, and nobody else.**

use std::{
    collections::HashMap,
    pin::{Pin, pin},
    time::Duration,
};

use futures_util::{
    StreamExt,
    future::{AbortHandle, Abortable},
    stream,
    stream::FuturesUnordered,
};
use moorline_core::{TenantId, Text};
use moorline_dialects::thingsboard::{
    rest::{
        entities::PageQuery,
        errors::ErrorCode,
        finding::{self, DataCommand, Finding, Found, Sought, Wanted},
        telemetry::History,
        told::Series,
        websocket::Past,
    },
    values::Value,
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};
use uuid::Uuid;

use super::{
    super::{
        Failed, Rest,
        devices::{FOUND_AT_ONCE, Row, device_id},
    },
    sought::{SCOPES, attribute_keys, field, find, series_keys, values_of},
    watching::{Form, Subject, Watching, passes_by, told_as},
};
use crate::places::{Place, Places};

/// The pause between two looks at who belongs to a list.
const FOLLOW_PAUSE: Duration = Duration::from_secs(10);
/// How many times as long as a look takes the pause behind it is at least.
const FOLLOW_SHARE: u32 = 10;
/// Looks at lists of one tenant at once, at a node.
const LOOKS_PER_TENANT_MAX: usize = 4;
/// The same of all tenants.
const LOOKS_MAX: usize = 32;
/// The pause before somebody who found no room among them tries again.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Places of looks.
pub(super) fn looks() -> Places<TenantId> {
    Places::new(LOOKS_PER_TENANT_MAX, LOOKS_MAX)
}

/// How many subscriptions a command is, if its page is full.
pub(super) fn weight(command: &DataCommand, finding: &Finding) -> usize {
    let of_each = subjects(command).len();
    let size = usize::try_from(finding.page.size).unwrap_or(usize::MAX);
    size.saturating_mul(of_each).max(1)
}

/// What is watched of each device, and whether samples are told one by one.
fn subjects(command: &DataCommand) -> Vec<(Subject, bool)> {
    let mut all = Vec::new();
    let series = series_keys(&command.latest);
    if !series.is_empty() {
        all.push((Subject::Series { keys: series, past: None }, false));
    }
    for scope in SCOPES {
        let keys = attribute_keys(&command.latest, scope);
        if !keys.is_empty() {
            all.push((Subject::Attributes { scope, keys }, false));
        }
    }
    if let Some((keys, past)) = &command.series {
        all.push((Subject::Series { keys: keys.clone(), past: Some(*past) }, true));
    }
    all
}

/// A command that is carried out.
pub(super) struct Many {
    pub(super) rest: Rest,
    pub(super) tenant: TenantId,
    pub(super) id: i64,
    pub(super) outgoing: mpsc::Sender<String>,
}

/// Why nothing more is said.
enum Over {
    /// There is nobody to say it to.
    Left,
    /// What it is told.
    Failed(Failed),
}

impl From<Failed> for Over {
    fn from(failed: Failed) -> Self {
        Self::Failed(failed)
    }
}

/// The devices on a page, in their order, and how many there are.
#[derive(Debug, Clone, PartialEq, Eq)]
struct List {
    ids: Vec<Uuid>,
    total: u64,
}

impl Many {
    async fn say(&self, said: impl ToString) -> Result<(), Over> {
        self.outgoing.send(said.to_string()).await.map_err(|_| Over::Left)
    }

    /// Tells why it is over, if there is somebody to tell.
    async fn ended(&self, ended: Result<(), Over>, counts: bool) {
        if let Err(Over::Failed(Failed { code, message })) = ended {
            let refused = finding::not_found(self.id, told_as(code), &message, counts);
            drop(self.outgoing.send(refused.to_string()).await);
        }
    }

    /// Says how many there are, and again when there are more or fewer.
    pub(super) async fn count(self, sought: Sought) {
        let ended = self.counts(&sought).await;
        self.ended(ended, true).await;
    }

    async fn counts(&self, sought: &Sought) -> Result<(), Over> {
        let page = PageQuery {
            size: 1,
            page: 0,
            text_search: None,
            sort_property: None,
            descending: false,
        };
        let (found, mut took) = self.found(sought, &page).await;
        let (_, mut told) = found?;
        self.say(finding::count(self.id, told)).await?;
        loop {
            let (found, time) = self.again(took, sought, &page).await?;
            took = time;
            if let Some((_, total)) = found
                && total != told
            {
                told = total;
                self.say(finding::count(self.id, told)).await?;
            }
        }
    }

    /// Shows a page, and pushes what changes until nobody wants it any more.
    pub(super) async fn run(self, command: DataCommand, found: Finding) {
        let ended = self.look(&command, &found).await;
        self.ended(ended, false).await;
    }

    async fn look(&self, command: &DataCommand, finding: &Finding) -> Result<(), Over> {
        let (found, took) = self.found(&finding.sought, &finding.page).await;
        let found = found?;
        let list = self.list(&found);
        // Which devices an earlier command of this id has shown is not known here.
        if command.finding.is_some() || finding.follows {
            self.show(&found, &list, finding).await?;
        }
        if let Some((keys, past)) = &command.past {
            let all = stream::iter(found.0.into_iter().zip(list.ids.clone()))
                .map(|((device, _), id)| self.past_of(device, id, keys.clone(), *past));
            let all: Vec<_> = all.buffered(FOUND_AT_ONCE).collect().await;
            let all = all.into_iter().collect::<Result<Vec<_>, _>>()?;
            self.say(finding::news(self.id, &all)).await?;
        }
        let mut watched = Watched::default();
        watched.follow(self, command, &list.ids);
        match finding.follows {
            true => self.follow(command, finding, (list, took), watched).await,
            false => {
                while watched.running.next().await.is_some() {}
                Ok(())
            }
        }
    }

    fn list(&self, (rows, total): &(Vec<Row>, u64)) -> List {
        let id = |(device, row): &Row| device_id(self.tenant, device, row).id;
        List { ids: rows.iter().map(id).collect(), total: *total }
    }

    /// Says who is on the page.
    async fn show(
        &self,
        (rows, total): &(Vec<Row>, u64),
        list: &List,
        finding: &Finding,
    ) -> Result<(), Over> {
        let all = stream::iter(rows.clone().into_iter().zip(list.ids.clone()))
            .map(|(row, id)| self.shown(row, id, &finding.wanted));
        let all: Vec<_> = all.buffered(FOUND_AT_ONCE).collect().await;
        let all = all.into_iter().collect::<Result<Vec<_>, _>>()?;
        self.say(finding::page_found(self.id, &all, *total, &finding.page)).await
    }

    /// Looks again and again who is on the page; says so when it is somebody else, and watches over those.
    async fn follow(
        &self,
        command: &DataCommand,
        finding: &Finding,
        (mut list, mut took): (List, Duration),
        mut watched: Watched,
    ) -> Result<(), Over> {
        loop {
            let again = self.again(took, &finding.sought, &finding.page);
            let (found, time) = watched.beside(again).await?;
            took = time;
            let Some(found) = found else { continue };
            let now = self.list(&found);
            if now == list {
                continue;
            }
            match watched.beside(self.show(&found, &now, finding)).await {
                // What was not read is read the next time.
                Err(Over::Failed(failed)) if passes_by(failed.code) => continue,
                shown => shown?,
            }
            watched.follow(self, command, &now.ids);
            list = now;
        }
    }

    /// After a pause, what is found then, and how long that took; nothing if it can't be said at that moment.
    async fn again(
        &self,
        took: Duration,
        sought: &Sought,
        page: &PageQuery,
    ) -> Result<(Option<(Vec<Row>, u64)>, Duration), Over> {
        sleep(pause(took)).await;
        match self.found(sought, page).await {
            (Ok(found), took) => Ok((Some(found), took)),
            (Err(failed), took) if passes_by(failed.code) => Ok((None, took)),
            (Err(failed), _) => Err(failed.into()),
        }
    }

    /// What is found once there is a place for a look, and how long that look took.
    async fn found(
        &self,
        sought: &Sought,
        page: &PageQuery,
    ) -> (Result<(Vec<Row>, u64), Failed>, Duration) {
        let _place = place(&self.rest.looks, self.tenant).await;
        let began = Instant::now();
        let found = find(&self.rest, self.tenant, sought, page).await;
        (found, began.elapsed())
    }

    /// A device with what is wanted of it. What it has not is an empty text of the time 0, as the original says it.
    async fn shown(&self, row: Row, id: Uuid, wanted: &[Wanted]) -> Result<Found, Failed> {
        let known = values_of(&self.rest, self.tenant, &row, wanted).await?;
        let text = |value: Option<Value>| value.map(|value| value.to_text()).unwrap_or_default();
        let value = |one: &Wanted| match one {
            Wanted::Field(name) => (one.clone(), 0, text(field(self.tenant, &row, name))),
            Wanted::Series(_) | Wanted::Attribute(..) => {
                let found = known.iter().find(|(of, ..)| of == one);
                let found = found.map(|(of, ts_ms, value)| (of.clone(), *ts_ms, value.to_text()));
                found.unwrap_or_else(|| (one.clone(), 0, String::new()))
            }
        };
        Ok(Found { id, latest: wanted.iter().map(value).collect(), series: Series::new() })
    }

    async fn past_of(
        &self,
        device: Text,
        id: Uuid,
        keys: Vec<String>,
        past: Past,
    ) -> Result<Found, Failed> {
        let Past { range, aggregation, limit } = past;
        let (descending, strict, latest) = (true, false, Vec::new());
        let asked = History { keys, range, aggregation, limit, descending, strict };
        let series = match self.rest.series(self.tenant, &device, &asked).await {
            // It went a moment ago.
            Err(failed) if failed.code == ErrorCode::ItemNotFound => Series::new(),
            series => series?,
        };
        Ok(Found { id, latest, series })
    }
}

/// A place for a look, as soon as there is one.
async fn place(looks: &Places<TenantId>, tenant: TenantId) -> Place<TenantId> {
    loop {
        match looks.take(tenant) {
            Some(place) => return place,
            None => sleep(LOOK_AGAIN).await,
        }
    }
}

/// How long nobody looks behind a look.
fn pause(took: Duration) -> Duration {
    FOLLOW_PAUSE.max(took.saturating_mul(FOLLOW_SHARE))
}

/// Devices that are watched: each ends when it is not on the page any more.
#[derive(Default)]
struct Watched {
    running: FuturesUnordered<Abortable<Pin<Box<dyn Future<Output = ()> + Send>>>>,
    known: HashMap<Uuid, Vec<AbortHandle>>,
}

impl Watched {
    /// Watches over these, and no others.
    fn follow(&mut self, many: &Many, command: &DataCommand, ids: &[Uuid]) {
        self.known.retain(|id, handles| {
            let stays = ids.contains(id);
            if !stays {
                handles.iter().for_each(AbortHandle::abort);
            }
            stays
        });
        for id in ids {
            if self.known.contains_key(id) {
                continue;
            }
            let mut handles = Vec::new();
            for (subject, whole) in subjects(command) {
                let form = Form::OfMany { device: *id, whole };
                let Many { rest, tenant, id: of, outgoing } = many;
                let (rest, outgoing) = (rest.clone(), outgoing.clone());
                let one = Watching { rest, tenant: *tenant, id: *of, subject, form, outgoing };
                let (handle, registration) = AbortHandle::new_pair();
                self.running.push(Abortable::new(Box::pin(one.run(*id)), registration));
                handles.push(handle);
            }
            self.known.insert(*id, handles);
        }
    }

    /// Waits for something else, and watches meanwhile.
    async fn beside<T>(&mut self, other: impl Future<Output = T>) -> T {
        let mut other = pin!(other);
        loop {
            tokio::select! {
                done = &mut other => return done,
                Some(_) = self.running.next() => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use moorline_dialects::thingsboard::{
        attributes::Scope,
        rest::{
            aggregation::{Aggregation, Range},
            finding::Devices,
        },
    };

    use super::*;

    #[test]
    fn a_look_takes_a_small_part_of_the_time() {
        assert_eq!(pause(Duration::ZERO), FOLLOW_PAUSE);
        assert_eq!(pause(FOLLOW_PAUSE / FOLLOW_SHARE), FOLLOW_PAUSE);
        assert_eq!(pause(Duration::from_secs(7)), Duration::from_secs(70));
    }

    #[tokio::test]
    async fn who_finds_no_place_waits_for_one() {
        let (looks, tenant) = (looks(), TenantId(7));
        let mut taken: Vec<_> =
            (0..LOOKS_PER_TENANT_MAX).map(|_| looks.take(tenant).unwrap()).collect();
        assert!(place(&looks, tenant).now_or_never().is_none());
        taken.pop();
        assert!(place(&looks, tenant).now_or_never().is_some());
    }

    #[test]
    fn a_command_weighs_as_much_as_it_watches() {
        let page = PageQuery {
            size: 20,
            page: 0,
            text_search: None,
            sort_property: None,
            descending: false,
        };
        let devices = Devices::Named { kinds: Vec::new(), name: String::new() };
        let sought = Sought { devices, filters: Vec::new() };
        let finding = Finding { sought, page, wanted: Vec::new(), follows: false };
        let series = |key: &str| Wanted::Series(key.to_owned());
        let attribute = |scope, key: &str| Wanted::Attribute(scope, key.to_owned());
        let mut command = DataCommand {
            finding: Some(finding.clone()),
            latest: Vec::new(),
            series: None,
            past: None,
        };
        assert_eq!(weight(&command, &finding), 1);
        command.latest = vec![series("t"), series("u"), Wanted::Field("name".to_owned())];
        assert_eq!(weight(&command, &finding), 20);
        command.latest.extend([attribute(None, "a"), attribute(Some(Scope::Client), "b")]);
        assert_eq!(weight(&command, &finding), 60);
        let range = Range { start_ms: 0, end_ms: 1, interval_ms: 0 };
        let past = Past { range, aggregation: Aggregation::None, limit: 1 };
        command.series = Some((vec!["t".to_owned()], past));
        assert_eq!(weight(&command, &finding), 80);
    }
}
