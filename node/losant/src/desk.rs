//! What a connection asks that has to be asked further: states, which are read, converted and kept, and subscribes.
//!
//! # Invariants
//!
//! - **What one connection reports is written in its order**: a state is on its way before the next is looked at.
//! - **A gateway speaks for its own peripherals and for floating devices**, by what their rows say at that moment.
//!
//! Checked by the cluster tests (`losant.rs`).

use std::{collections::BTreeMap, future::Future, pin::Pin, sync::Arc};

use bytes::Bytes;
use futures_util::{StreamExt, stream::FuturesUnordered};
use moorline_core::{
    QoS, Text,
    port::{Filter, Notice, Published, Refusal, Token},
};
use moorline_dialects::losant::{
    device::Attributes,
    id::Id,
    presence::Reason,
    state,
    topics::{self, Subscribe},
};
use moorline_service::registry::{RECHECK, RegistryError, Watch};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    device::{Device, is_for_good},
    link::{Under, locked},
    mailman::mailman,
    pass::Known,
    visit::Visit,
};

/// What a connection may ask ahead: more than it may say in a window.
pub(crate) const ASKS_MAX: usize = 1_024;
/// Writes of one connection that are under way at once.
const WRITES_MAX: usize = 64;
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
}

/// What a connection asks.
#[derive(Debug)]
pub(crate) enum Asked {
    State(State),
    Subscribe(Token, Vec<Filter>),
    Unsubscribe(Token, Vec<Text>),
}

type Writing = Pin<Box<dyn Future<Output = (Option<Token>, Result<(), RegistryError>)> + Send>>;

/// A state that is being kept.
type Kept = Pin<Box<dyn Future<Output = Result<(), RegistryError>> + Send>>;

/// See the module.
pub(crate) struct Desk {
    visit: Arc<Visit>,
    under: Under,
    /// What the connection's own device reports; [`None`] until it is asked for (again).
    attributes: Option<Arc<Attributes>>,
    writes: FuturesUnordered<Writing>,
    mailmen: BTreeMap<Id, DropGuard>,
    stop: CancellationToken,
}

/// Why a state is not kept, and what that costs.
enum Lost {
    /// Nothing: it is taken, and nothing comes of it.
    Nothing,
    /// The connection.
    Ended,
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
        Self { visit, under, attributes, writes, mailmen, stop }
    }

    /// Until the connection is over. What was taken by then is on its way.
    pub(crate) async fn run(mut self, mut asked: mpsc::Receiver<Asked>, watch: Watch) {
        let mut recheck_at = Instant::now() + RECHECK;
        loop {
            tokio::select! {
                biased;
                asked = asked.recv(), if self.writes.len() < WRITES_MAX => match asked {
                    Some(asked) => self.take(asked).await,
                    None => return,
                },
                Some((token, result)) = self.writes.next() => self.written(token, result),
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
        let State { token, answered, id, payload } = said;
        let token = answered.then_some(token);
        let (result, outcome) = match self.kept(&id, &payload).await {
            Ok((result, writing)) => {
                self.count(result);
                return self.writes.push(Box::pin(async move { (token, writing.await) }));
            }
            Err((result, Lost::Nothing)) => (result, Ok(Published { matched: true })),
            Err((result, Lost::Again)) => (result, Err(Refusal::Unavailable)),
            Err((result, Lost::Ended)) => {
                self.count(result);
                return self.visit.end(Reason::Topic);
            }
        };
        self.count(result);
        self.answer(token, outcome);
    }

    /// What is written of a state, on its way.
    async fn kept(
        &mut self,
        id: &Id,
        payload: &[u8],
    ) -> Result<(&'static str, Kept), (&'static str, Lost)> {
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
        Ok(("taken", Box::pin(visit.door.keep_states(&device, some))))
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
        let known = known.map_err(|_| ("refused", Lost::Again))?;
        let known = known.filter(|known| is_own || self.is_its(known));
        let known = known.ok_or(("refused", Lost::Ended))?;
        let device = Device::new(own.tenant, &own.application, &known, own.by);
        let attributes = Arc::new(known.about.attributes);
        if is_own {
            self.attributes = Some(Arc::clone(&attributes));
        }
        Ok((device, attributes))
    }

    fn is_its(&self, known: &Known) -> bool {
        known.about.is_spoken_for_by(self.visit.class, &self.visit.device.id)
    }

    fn count(&self, result: &str) {
        self.visit.door.metrics.states.with_label_values(&[result]).inc();
    }

    fn answer(&self, token: Option<Token>, outcome: Result<Published, Refusal>) {
        if let Some(token) = token {
            self.visit.tell(Notice::Published { token, outcome });
        }
    }

    fn written(&self, token: Option<Token>, result: Result<(), RegistryError>) {
        let outcome = match result {
            Ok(()) => Ok(Published { matched: true }),
            // The same again is no better: it is taken, and counted.
            Err(error) if is_for_good(&error) => {
                self.count("refused");
                Ok(Published { matched: true })
            }
            Err(RegistryError::Busy) => Err(Refusal::Busy),
            Err(_) => Err(Refusal::Unavailable),
        };
        self.answer(token, outcome);
    }

    // ---- what it hears

    async fn subscribe(&mut self, token: Token, filters: Vec<Filter>) {
        let (mut known, mut asked) = (Vec::with_capacity(filters.len()), Vec::new());
        for Filter { filter, options } in filters {
            match self.wanted(&filter).await {
                Ok(canonical) => {
                    let handling = moorline_core::RetainHandling::Never;
                    let qos = QoS::AtMostOnce;
                    let options = moorline_core::SubscriptionOptions {
                        qos,
                        retain_handling: handling,
                        ..options
                    };
                    asked.push(Filter { filter: canonical, options });
                    known.push(None);
                }
                Err(refusal) => known.push(Some(Err(refusal))),
            }
        }
        self.under.outside.pending().subscribe(token, known);
        if asked.is_empty() {
            let notice = Notice::Subscribed { token, granted: Ok(Vec::new()) };
            return self.tell_outside(notice);
        }
        locked(&self.under.below).subscribe(token, asked);
    }

    /// What a filter is called inside, if it may be had.
    async fn wanted(&mut self, filter: &Text) -> Result<Text, Refusal> {
        match topics::subscribe(filter.as_bytes()).ok_or(Refusal::NotAuthorised)? {
            Subscribe::Custom => {
                let may = self.visit.rules.may_subscribe(None, filter.as_bytes());
                may.then(|| filter.clone()).ok_or(Refusal::NotAuthorised)
            }
            Subscribe::Commands(id) => {
                if id != self.visit.device.id {
                    let known = self.visit.door.known(self.visit.device.tenant, &id).await;
                    let known = known.map_err(|_| Refusal::Unavailable)?;
                    known.filter(|known| self.is_its(known)).ok_or(Refusal::NotAuthorised)?;
                }
                if !self.mailmen.contains_key(&id) && self.mailmen.len() >= COMMANDED_MAX as usize {
                    return Err(Refusal::Quota);
                }
                self.bring_mail(&id);
                Ok(topics::command_inside(&id))
            }
        }
    }

    /// From now on what waits for a device comes over this connection.
    fn bring_mail(&mut self, id: &Id) {
        if self.mailmen.contains_key(id) {
            return;
        }
        let stop = self.stop.child_token();
        let mailman = mailman(Arc::clone(&self.visit), id.clone());
        self.visit.door.tasks.spawn(mailman.run(stop.clone()));
        self.mailmen.insert(id.clone(), stop.drop_guard());
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
