//! What a client asks to hear: its filters under canonical names, and what it costs to ask for what it may not.
//!
//! ```text
//!   SUBSCRIBE, UNSUBSCRIBE ──► Asking ──────────────────────────────────────────► the service's link
//!                        └──► of a gateway: a task looks whose devices, and ──┘
//!                             registers those that are new
//! ```
//!
//! # Invariants
//!
//! - **Every filter that was asked for is answered, in its place.** Checked by `inbox.rs`.
//! - **A standard gateway hears of devices of its group alone**, by filters that name them: they are judged here when it subscribes, and
//!   last as long as its session, which is another one whenever a device has left its group (`rest/groups.rs`). What is said through it
//!   it hears by a filter that names none; to whom that goes `managed/` judges each time. Checked by the cluster tests
//!   (`watson_gateways.rs`).
//! - **A privileged gateway registers the devices that it names.** Checked by the same.
//! - **In the order in which it was said**, and bounded: [`WAITING_MAX`] of a gateway wait, more are refused as a cluster does that is
//!   busy.

use std::{
    collections::HashSet,
    fmt,
    sync::{Arc, OnceLock, Weak},
};

use moorline_core::{
    QoS, SubscriptionOptions, Text,
    port::{Ended, Filter, Notice, Refusal, Token},
};
use moorline_dialects::watson::{
    connect::Version,
    identity::ClientId,
    notice::Request,
    topics::{
        self, Asks, Consequence, Forbidden, Permissions, Role, Subscription, Violation, Wanted,
        consequence, standard_reach,
    },
};
use moorline_service::registry::RegistryError;
use tokio::sync::mpsc;

use crate::{
    door::Door,
    gateway::Registrar,
    inbox::Shared,
    link::{Below, Notices, WeakBelow, locked},
    metrics::label,
    quickstart,
};

/// What a gateway asked for and nobody has looked at.
const WAITING_MAX: usize = 64;

/// What a client may ask for. Clones are the same.
#[derive(Clone)]
pub(crate) struct Asking {
    pub(crate) door: Door,
    pub(crate) client: ClientId,
    pub(crate) version: Version,
    pub(crate) may: Permissions,
    /// It is one of quickstart.
    pub(crate) stranger: bool,
    pub(crate) shared: Arc<Shared>,
    pub(crate) notices: Notices,
}

impl fmt::Debug for Asking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asking").field("client", &self.client).finish_non_exhaustive()
    }
}

/// As the service calls a filter.
fn canonical(wanted: &Subscription) -> Text {
    match &wanted.share {
        Some(share) => Text::from(format!("$share/{share}/{}", wanted.filter)),
        None => wanted.filter.clone(),
    }
}

impl Asking {
    /// Only an application's key says what it may.
    pub(crate) fn allows(&self, needed: Permissions) -> bool {
        !self.client.class().is_application() || self.may.allow(needed)
    }

    /// What service it gets that asks for this one.
    pub(crate) fn most_qos(&self, asked: QoS) -> QoS {
        if self.stranger { quickstart::QOS } else { asked }
    }

    fn most(&self) -> usize {
        let most = self.client.class().limits().subscriptions_max;
        usize::try_from(most).unwrap_or(usize::MAX)
    }

    /// What a filter stands for; what its refusal costs if it stands for nothing.
    fn wanted(
        &self,
        link: &Below,
        filter: &Text,
        not_its: &HashSet<Text>,
    ) -> Result<Subscription, Consequence> {
        let wanted = topics::subscribe(&self.client, filter.as_bytes());
        let wanted = wanted.and_then(|wanted| {
            let allowed = self.allows(wanted.wanted.needs()) && !not_its.contains(filter);
            if allowed { Ok(wanted) } else { Err(Forbidden::NotAuthorised) }
        });
        wanted.map_err(|why| {
            let class = self.client.class();
            self.door.metrics.violations.with_label_values(&[label(class), "subscribe"]).inc();
            let costs = consequence(class, self.version, Violation::Subscribe(why));
            if let Consequence::Refuse { notify: true, .. } = costs {
                self.notices.tell(link, Request::Subscribe, filter, why);
            }
            costs
        })
    }

    /// It asks for these, and may not ask for those of them that are not its own.
    pub(crate) fn subscribe(
        &self,
        link: &Below,
        (token, filters): (Token, Vec<Filter>),
        not_its: &HashSet<Text>,
    ) {
        let (mut known, mut asked) = (Vec::with_capacity(filters.len()), Vec::new());
        let mut commands = Vec::new();
        for Filter { filter, options } in filters {
            match self.wanted(link, &filter, not_its) {
                Ok(wanted) => {
                    let canonical = canonical(&wanted);
                    self.shared.hold(&canonical, &filter, self.most());
                    let no_local = options.no_local && wanted.share.is_none();
                    let qos = self.most_qos(options.qos);
                    let options = SubscriptionOptions { no_local, qos, ..options };
                    let hears = wanted.wanted == Wanted::Commands && self.client.device().is_some();
                    commands.push(hears.then(|| canonical.clone()));
                    asked.push(Filter { filter: canonical, options });
                    known.push(None);
                }
                Err(Consequence::Close { close, .. }) => {
                    return self.shared.end(Ended::Misused, close);
                }
                // MQTT 3.1 can't be told: it is granted, and hears nothing.
                Err(_) if self.version == Version::V31 => {
                    known.push(Some(Ok(QoS::AtMostOnce)));
                }
                Err(_) => known.push(Some(Err(Refusal::NotAuthorised))),
            }
        }
        self.shared.begin_subscribe(token, known);
        self.shared.asks_for(token, commands);
        if asked.is_empty() {
            return self.shared.tell(Notice::Subscribed { token, granted: Ok(Vec::new()) });
        }
        locked(link).subscribe(token, asked);
    }

    /// It asks for these no more.
    pub(crate) fn unsubscribe(&self, link: &Below, (token, filters): (Token, Vec<Text>)) {
        let (mut known, mut asked) = (Vec::with_capacity(filters.len()), Vec::new());
        for filter in filters {
            match topics::subscribe(&self.client, filter.as_bytes()) {
                Ok(wanted) => {
                    let canonical = canonical(&wanted);
                    let others = self.shared.let_go(&canonical, &filter);
                    known.push(others.then_some(true));
                    if !others {
                        self.shared.listens_no_more(&canonical);
                        asked.push(canonical);
                    }
                }
                Err(_) => known.push(Some(false)),
            }
        }
        self.shared.begin_unsubscribe(token, known);
        if asked.is_empty() {
            return self.shared.tell(Notice::Unsubscribed { token, existed: Ok(Vec::new()) });
        }
        locked(link).unsubscribe(token, asked);
    }
}

/// What a gateway asked.
#[derive(Debug)]
enum Step {
    Subscribe(Token, Vec<Filter>),
    Unsubscribe(Token, Vec<Text>),
}

/// Looks at what a gateway asks, one after the other.
pub(crate) struct Looking {
    asking: Asking,
    registrar: Arc<Registrar>,
    link: WeakBelow,
    steps: OnceLock<mpsc::Sender<Step>>,
}

impl fmt::Debug for Looking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Looking").field("asking", &self.asking).finish_non_exhaustive()
    }
}

impl Looking {
    pub(crate) fn new(asking: Asking, registrar: Arc<Registrar>, link: &Below) -> Self {
        Self { asking, registrar, link: Arc::downgrade(link), steps: OnceLock::new() }
    }

    pub(crate) fn subscribe(&self, token: Token, filters: Vec<Filter>) {
        if !self.take(Step::Subscribe(token, filters)) {
            self.asking.shared.tell(Notice::Subscribed { token, granted: Err(Refusal::Busy) });
        }
    }

    pub(crate) fn unsubscribe(&self, token: Token, filters: Vec<Text>) {
        if !self.take(Step::Unsubscribe(token, filters)) {
            self.asking.shared.tell(Notice::Unsubscribed { token, existed: Err(Refusal::Busy) });
        }
    }

    fn take(&self, step: Step) -> bool {
        let steps = self.steps.get_or_init(|| {
            let (sender, receiver) = mpsc::channel(WAITING_MAX);
            let (asking, registrar) = (self.asking.clone(), Arc::clone(&self.registrar));
            let link = Weak::clone(&self.link);
            self.asking.door.tasks.spawn(look(asking, registrar, link, receiver));
            sender
        });
        steps.try_send(step).is_ok()
    }
}

/// Ends with the connection.
async fn look(
    asking: Asking,
    registrar: Arc<Registrar>,
    link: WeakBelow,
    mut steps: mpsc::Receiver<Step>,
) {
    while let Some(step) = steps.recv().await {
        match step {
            Step::Unsubscribe(token, filters) => {
                let Some(link) = link.upgrade() else { return };
                asking.unsubscribe(&link, (token, filters));
            }
            Step::Subscribe(token, filters) => {
                let looked = not_its(&asking, &registrar, &filters).await;
                let Some(link) = link.upgrade() else { return };
                match looked {
                    Ok(not_its) => asking.subscribe(&link, (token, filters), &not_its),
                    Err(_) => {
                        let granted = Err(Refusal::Busy);
                        asking.shared.tell(Notice::Subscribed { token, granted });
                    }
                }
            }
        }
    }
}

/// Those of its filters that are for devices for which it may not speak.
async fn not_its(
    asking: &Asking,
    registrar: &Registrar,
    filters: &[Filter],
) -> Result<HashSet<Text>, RegistryError> {
    let (registry, gateway) = (&asking.door.registry, asking.client.to_string());
    let by = (gateway.as_str(), asking.notices.address.as_str());
    let mut not_its = HashSet::new();
    for Filter { filter, .. } in filters {
        // What means nothing is refused for that.
        let Ok(wanted) = topics::subscribe(&asking.client, filter.as_bytes()) else { continue };
        let is_its = match standard_reach(&wanted) {
            Some(Asks::Itself) => true,
            Some(Asks::Of(device)) => registrar.registered(registry, &device, by).await?,
            None => registrar.role() == Role::Privileged,
        };
        if !is_its {
            not_its.insert(filter.clone());
        }
    }
    Ok(not_its)
}
