//! What a connection asks that has to be asked further: states, which are read, converted and kept, and subscribes.
//!
//! # Invariants
//!
//! - **What one connection reports is written in its order**: a state is on its way before the next is looked at.
//! - **A gateway speaks for its own peripherals and for floating devices**, by what their rows say at that moment; and it hears their
//!   commands as long as their rows say so.
//! - **A PUBACK says that all of it is kept** that its device has and that has its time: what is refused for good ends the connection.
//! - **Bounded**: see [`ASKS_MAX`], [`WAITING_BYTES_MAX`], [`WRITES_MAX`] and [`REPORTS_MAX`].
//!
//! Checked by the cluster tests (`losant.rs`, `losant_limits.rs`) and below.

use std::{collections::BTreeMap, future::Future, pin::Pin, sync::Arc};

use bytes::Bytes;
use futures_util::{StreamExt, stream::FuturesUnordered};
use moorline_core::{
    QoS, Text,
    op::Denial,
    port::{Filter, Notice, Published, Refusal, Token},
};
use moorline_dialects::losant::{
    PAYLOAD_BYTES_MAX,
    device::Attributes,
    id::Id,
    limits::PER_TOPIC,
    presence::Reason,
    state,
    topics::{self, Subscribe},
};
use moorline_machine::{EventRefused, ValueRefused, answer::Refused};
use moorline_service::registry::{
    RECHECK, RegistryError, Watch,
    explain::{Cause, Stage},
};
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    time::{Instant, sleep_until},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    device::{Device, TooLarge, is_for_good},
    link::{Under, locked},
    mailman::{Hears, mailman},
    visit::Visit,
};

/// What a connection may ask ahead: more than it may say in a window.
pub(crate) const ASKS_MAX: usize = 1_024;
/// Bytes of states of one connection that wait or are under way: all that it may say of one topic in a window.
pub(crate) const WAITING_BYTES_MAX: usize = PER_TOPIC * PAYLOAD_BYTES_MAX;
/// Writes of one connection that are under way at once.
const WRITES_MAX: usize = 64;
/// Reports in them, from which on no more are begun: what is begun is one message's, so there are less than twice as many.
const REPORTS_MAX: usize = state::REPORTS_MAX;
/// Devices that wait to be heard no more.
const ANOTHERS_MAX: usize = 16;
/// Of what no client has asked: its answer is for nobody.
const OF_NOBODY: Token = Token::MAX;
/// Devices whose commands one connection hears: a gateway has so many peripherals.
pub(crate) const COMMANDED_MAX: u32 = 1_000;

/// What a device reported, by MQTT.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) token: Token,
    /// Whether an answer is waited for.
    pub(crate) answered: bool,
    /// Whose it is.
    pub(crate) id: Id,
    pub(crate) payload: Bytes,
    /// Its room among what waits, until it is written.
    pub(crate) room: OwnedSemaphorePermit,
}

/// What a connection asks.
#[derive(Debug)]
pub(crate) enum Asked {
    State(State),
    Subscribe(Token, Vec<Filter>),
    Unsubscribe(Token, Vec<Text>),
}

/// What was written, when it is.
struct Written {
    token: Option<Token>,
    reports: usize,
    result: Result<(), RegistryError>,
    _room: OwnedSemaphorePermit,
}

/// A device that a connection does not speak for any more, and what its subscription ends by.
type Judged = (Id, CancellationToken);

type Writing = Pin<Box<dyn Future<Output = Written> + Send>>;

/// A state that is being kept.
type Kept = Pin<Box<dyn Future<Output = Result<(), RegistryError>> + Send>>;

/// See the module.
pub(crate) struct Desk {
    visit: Arc<Visit>,
    under: Under,
    /// What the connection's own device reports; [`None`] until it is asked for (again).
    attributes: Option<Arc<Attributes>>,
    writes: FuturesUnordered<Writing>,
    /// Reports in them.
    reports: usize,
    /// Who brings mail, and whether it is heard by now.
    mailmen: BTreeMap<Id, (Arc<Hears>, DropGuard)>,
    /// Devices whose commands it hears and must not any more.
    anothers: (mpsc::Sender<Judged>, mpsc::Receiver<Judged>),
    stop: CancellationToken,
}

/// Why a state is not kept, and what that costs.
enum Lost {
    /// Nothing: it is taken, and nothing comes of it.
    Nothing,
    /// The connection, for this reason.
    Ended(Reason),
    /// It may come again.
    Again,
}

impl Desk {
    /// `attributes`: of the connection's own device.
    pub(crate) fn new(
        visit: Arc<Visit>,
        under: Under,
        attributes: Attributes,
        stop: CancellationToken,
    ) -> Self {
        let (writes, mailmen) = (FuturesUnordered::new(), BTreeMap::new());
        let attributes = Some(Arc::new(attributes));
        let anothers = mpsc::channel(ANOTHERS_MAX);
        Self { visit, under, attributes, writes, reports: 0, mailmen, anothers, stop }
    }

    /// Until the connection is over, and what was taken by then is written: that of which the values had no room is written on.
    pub(crate) async fn run(mut self, mut asked: mpsc::Receiver<Asked>, watch: Watch) {
        let mut recheck_at = Instant::now() + RECHECK;
        loop {
            tokio::select! {
                biased;
                asked = asked.recv(), if self.has_time() => match asked {
                    Some(asked) => self.take(asked).await,
                    None => break,
                },
                Some(written) = self.writes.next() => self.written(written),
                Some((id, judged)) = self.anothers.1.recv() => self.hears_no_more(&id, &judged),
                // It may report something else from now on. News may be lost with a connection between nodes.
                heard = watch.heard() => if heard.device {
                    self.attributes = None;
                },
                () = sleep_until(recheck_at) => {
                    recheck_at = Instant::now() + RECHECK;
                    self.attributes = None;
                }
            }
        }
        while let Some(written) = self.writes.next().await {
            self.written(written);
        }
    }

    /// Whether it may begin something.
    fn has_time(&self) -> bool {
        self.writes.len() < WRITES_MAX && self.reports < REPORTS_MAX
    }

    async fn take(&mut self, asked: Asked) {
        match asked {
            Asked::State(state) => self.state(state).await,
            Asked::Subscribe(token, filters) => self.subscribe(token, filters).await,
            Asked::Unsubscribe(token, filters) => self.unsubscribe(token, filters),
        }
    }

    // ---- states

    async fn state(&mut self, said: State) {
        let State { token, answered, id, payload, room } = said;
        let token = answered.then_some(token);
        let (result, outcome) = match self.kept(&id, &payload).await {
            Ok((reports, writing)) => {
                self.reports += reports;
                let written = async move {
                    let result = writing.await;
                    Written { token, reports, result, _room: room }
                };
                return self.writes.push(Box::pin(written));
            }
            Err((result, Lost::Nothing)) => {
                // It is acknowledged, as there.
                let whose = (self.visit.device.tenant, id.text());
                let (stage, cause) = (Stage::Event, Cause::UnreadablePayload);
                self.visit.door.registry.note_dropped(whose, stage, result, cause);
                (result, Ok(Published { matched: true }))
            }
            Err((result, Lost::Again)) => (result, Err(Refusal::Unavailable)),
            Err((result, Lost::Ended(why))) => {
                self.count(result);
                return self.visit.end(why);
            }
        };
        self.count(result);
        self.answer(token, outcome);
    }

    /// What is written of a state, on its way, and how many reports that are.
    async fn kept(
        &mut self,
        id: &Id,
        payload: &[u8],
    ) -> Result<(usize, Kept), (&'static str, Lost)> {
        let visit = Arc::clone(&self.visit);
        let (device, attributes) = self.speaks_for(id).await?;
        let reports = state::read(payload).map_err(|_| ("unreadable", Lost::Nothing))?;
        let now_ms = visit.door.now_ms();
        let all = reports.len();
        let counted = reports.into_iter().filter_map(|one| one.counted(&attributes, now_ms));
        let counted: Vec<_> = counted.collect();
        if counted.is_empty() && all > 0 {
            return Err(("ignored", Lost::Nothing));
        }
        let some: Vec<_> = counted.into_iter().filter(|state| !state.values.is_empty()).collect();
        if some.is_empty() {
            return Err(("nothing_left", Lost::Nothing));
        }
        let reports = some.len();
        let kept = visit.door.keep_states(&device, some);
        let kept = kept.map_err(|TooLarge| ("refused", Lost::Ended(Reason::TooLarge)))?;
        Ok((reports, Box::pin(kept)))
    }

    /// A device that this connection may speak for, and what that one reports.
    async fn speaks_for(
        &mut self,
        id: &Id,
    ) -> Result<(Device, Arc<Attributes>), (&'static str, Lost)> {
        let own = &self.visit.device;
        let is_own = *id == own.id;
        if let Some(attributes) = self.attributes.as_ref().filter(|_| is_own) {
            return Ok((own.clone(), Arc::clone(attributes)));
        }
        let known = self.visit.door.known(own.tenant, id).await;
        let known = known.map_err(|_| ("failed", Lost::Again))?;
        let known = known.filter(|known| is_own || self.visit.speaks_for(known));
        let known = known.ok_or(("refused", Lost::Ended(Reason::Topic)))?;
        let device = Device::new(own.tenant, &own.application, &known, own.by);
        let attributes = Arc::new(known.about.attributes);
        if is_own {
            self.attributes = Some(Arc::clone(&attributes));
        }
        Ok((device, attributes))
    }

    fn count(&self, result: &str) {
        self.visit.door.metrics.states.with_label_values(&[result]).inc();
    }

    fn answer(&self, token: Option<Token>, outcome: Result<Published, Refusal>) {
        if let Some(token) = token {
            self.visit.tell(Notice::Published { token, outcome });
        }
    }

    fn written(&mut self, written: Written) {
        let Written { token, reports, result, _room } = written;
        self.reports -= reports;
        let (result, outcome) = match result {
            Ok(()) => ("taken", Ok(Published { matched: true })),
            Err(error) if is_for_good(&error) => {
                self.count("refused");
                return self.visit.end(ended(&error));
            }
            Err(RegistryError::Busy) => ("failed", Err(Refusal::Busy)),
            Err(_) => ("failed", Err(Refusal::Unavailable)),
        };
        self.count(result);
        self.answer(token, outcome);
    }

    // ---- what it hears

    async fn subscribe(&mut self, token: Token, filters: Vec<Filter>) {
        let (mut known, mut asked) = (Vec::with_capacity(filters.len()), Vec::new());
        let mut commands = Vec::new();
        for Filter { filter, options } in filters {
            match self.wanted(&filter).await {
                Ok((canonical, hears)) => {
                    let handling = moorline_core::RetainHandling::Never;
                    let qos = QoS::AtMostOnce;
                    let options = moorline_core::SubscriptionOptions {
                        qos,
                        retain_handling: handling,
                        ..options
                    };
                    asked.push(Filter { filter: canonical, options });
                    commands.push(hears);
                    known.push(None);
                }
                Err(refusal) => known.push(Some(Err(refusal))),
            }
        }
        {
            let mut pending = self.under.outside.pending();
            pending.subscribe(token, known);
            pending.asks_for(token, commands);
        }
        if asked.is_empty() {
            let notice = Notice::Subscribed { token, granted: Ok(Vec::new()) };
            return self.tell_outside(notice);
        }
        locked(&self.under.below).subscribe(token, asked);
    }

    /// What a filter is called inside, if it may be had; and whose mail waits for it to be granted.
    async fn wanted(&mut self, filter: &Text) -> Result<(Text, Option<Arc<Hears>>), Refusal> {
        match topics::subscribe(filter.as_bytes()).ok_or(Refusal::NotAuthorised)? {
            Subscribe::Custom => {
                let may = self.visit.rules.may_subscribe(None, filter.as_bytes());
                may.then(|| (filter.clone(), None)).ok_or(Refusal::NotAuthorised)
            }
            Subscribe::Commands(id) => {
                if id != self.visit.device.id {
                    let known = self.visit.door.known(self.visit.device.tenant, &id).await;
                    let known = known.map_err(|_| Refusal::Unavailable)?;
                    known
                        .filter(|known| self.visit.speaks_for(known))
                        .ok_or(Refusal::NotAuthorised)?;
                }
                if !self.mailmen.contains_key(&id) && self.mailmen.len() >= COMMANDED_MAX as usize {
                    return Err(Refusal::Quota);
                }
                Ok((topics::command_inside(&id), Some(self.bring_mail(&id))))
            }
        }
    }

    /// What waits for a device comes over this connection once the subscription is granted.
    fn bring_mail(&mut self, id: &Id) -> Arc<Hears> {
        if let Some((hears, _)) = self.mailmen.get(id) {
            return Arc::clone(hears);
        }
        let stop = self.stop.child_token();
        if *id != self.visit.device.id {
            // Its own row is watched for as long as it is here.
            let watch = self.visit.door.registry.watch(self.visit.device.tenant, id.text());
            let (visit, news) = (Arc::clone(&self.visit), self.anothers.0.clone());
            let (id, stop) = (id.clone(), stop.clone());
            self.visit.door.tasks.spawn(async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = until_anothers(&visit, watch, &id) => {
                        // The connection is over if nobody takes it.
                        news.send((id, stop.clone())).await.unwrap_or_default();
                    }
                }
            });
        }
        let hears = Arc::new(Hears::default());
        let mailman = mailman(Arc::clone(&self.visit), id.clone(), Arc::clone(&hears));
        self.visit.door.tasks.spawn(mailman.run(stop.clone()));
        self.mailmen.insert(id.clone(), (Arc::clone(&hears), stop.drop_guard()));
        hears
    }

    /// From now on it hears no more commands to a device, unless it has subscribed to them anew since it was judged.
    fn hears_no_more(&mut self, id: &Id, judged: &CancellationToken) {
        if !judged.is_cancelled() {
            self.mailmen.remove(id);
            locked(&self.under.below).unsubscribe(OF_NOBODY, vec![topics::command_inside(id)]);
        }
    }

    fn unsubscribe(&mut self, token: Token, filters: Vec<Text>) {
        let (mut known, mut asked) = (Vec::with_capacity(filters.len()), Vec::new());
        for filter in filters {
            match topics::subscribe(filter.as_bytes()) {
                Some(Subscribe::Custom) => {
                    asked.push(filter);
                    known.push(None);
                }
                Some(Subscribe::Commands(id)) => {
                    self.mailmen.remove(&id);
                    asked.push(topics::command_inside(&id));
                    known.push(None);
                }
                None => known.push(Some(false)),
            }
        }
        self.under.outside.pending().unsubscribe(token, known);
        if asked.is_empty() {
            return self.tell_outside(Notice::Unsubscribed { token, existed: Ok(Vec::new()) });
        }
        locked(&self.under.below).unsubscribe(token, asked);
    }

    /// As if the service said so.
    fn tell_outside(&self, notice: Notice) {
        use moorline_core::port::Inbox as _;
        self.under.outside.push(notice).unwrap_or_default();
    }
}

/// Why a connection ends whose state was refused for good.
fn ended(error: &RegistryError) -> Reason {
    match error {
        RegistryError::Values(ValueRefused::DeviceGone)
        | RegistryError::Events(EventRefused::DeviceGone)
        | RegistryError::Refused(Refused::NotFound) => Reason::Topic,
        RegistryError::Events(EventRefused::TooLarge)
        | RegistryError::Refused(Refused::TooLarge) => Reason::TooLarge,
        RegistryError::Refused(_)
        | RegistryError::Values(_)
        | RegistryError::Events(_)
        | RegistryError::Mail(_)
        | RegistryError::Calls(_)
        | RegistryError::Documents(_)
        | RegistryError::Busy
        | RegistryError::Unavailable
        | RegistryError::Taken(_)
        | RegistryError::TooManyReaders
        | RegistryError::DiskFull => Reason::Refused,
    }
}

/// Returns when a device is not one that a connection speaks for.
async fn until_anothers(visit: &Visit, watch: Watch, id: &Id) {
    let stays = || async {
        let known = visit.door.known(visit.device.tenant, id).await;
        let known = known.map_err(|_| Denial::Unavailable)?;
        let is_its = known.is_some_and(|known| visit.speaks_for(&known));
        if is_its { Ok(()) } else { Err(Denial::Disabled) }
    };
    // What changed before the watch began is not told.
    if stays().await == Err(Denial::Disabled) {
        return;
    }
    watch.until_revoked(None, || visit.door.clock.wall().0, stays).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_for_good_ends_a_connection_with_its_reason() {
        #[rustfmt::skip]
        let table = [
            (RegistryError::Values(ValueRefused::DeviceGone), Reason::Topic),
            (RegistryError::Events(EventRefused::DeviceGone), Reason::Topic),
            (RegistryError::Refused(Refused::NotFound),       Reason::Topic),
            (RegistryError::Events(EventRefused::TooLarge),   Reason::TooLarge),
            (RegistryError::Events(EventRefused::TooManyStreams), Reason::Refused),
            (RegistryError::Values(ValueRefused::Key),        Reason::Refused),
        ];
        for (error, reason) in table {
            assert_eq!(ended(&error), reason, "{error:?}");
        }
    }
}
