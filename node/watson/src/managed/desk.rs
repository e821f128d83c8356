//! What one connection says for device management, one after the other.
//!
//! # Invariants
//!
//! - **In the order in which it was said**, also for the devices behind a gateway.
//! - **Acknowledged when it is done**: saved on a majority, answered, and what follows said.
//! - **Bounded**: [`WAITING_MAX`] messages wait; more are refused as a cluster does that is busy.
//!
//! Checked by the cluster tests (`watson_managed.rs`).

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use moorline_core::{
    QoS, TenantId, Text,
    port::{Notice, Published, Refusal, Token},
};
use moorline_dialects::watson::{
    identity::DeviceName,
    management::{
        address::{Channel, Upward},
        device::Event,
        kept::OWED_AGAIN_MS,
        wire::Rc,
    },
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout_at},
};
use tracing::debug;

use super::{Failed, Manager};
use crate::{gateway::Registrar, inbox::Shared};

/// Messages that wait.
const WAITING_MAX: usize = 64;
/// Devices that are looked at again, since something is owed to them.
const AGAIN_MAX: usize = 64;
/// How long a message is tried while its shard has no leader: longer than an election takes.
const PATIENCE: Duration = Duration::from_secs(20);
/// The pause before it is tried again.
const PAUSE: Duration = Duration::from_millis(200);
/// After how long: somebody else would have done it by then.
const AGAIN: Duration = Duration::from_millis(OWED_AGAIN_MS);

/// What was said.
#[derive(Debug)]
pub(crate) struct Letter {
    pub(crate) device: DeviceName,
    pub(crate) address: Upward,
    pub(crate) payload: Bytes,
    pub(crate) qos: QoS,
    pub(crate) token: Token,
}

/// Takes what one connection says.
pub(crate) struct Desk {
    manager: Manager,
    worker: Arc<Worker>,
    letters: OnceLock<mpsc::Sender<Letter>>,
}

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Desk").finish_non_exhaustive()
    }
}

struct Worker {
    manager: Manager,
    tenant: TenantId,
    shared: Arc<Shared>,
    /// Of a gateway.
    registrar: Option<Arc<Registrar>>,
    address: Text,
}

impl Desk {
    /// Of a connection from this address.
    pub(crate) fn new(
        manager: Manager,
        tenant: TenantId,
        shared: Arc<Shared>,
        registrar: Option<Arc<Registrar>>,
        address: Text,
    ) -> Self {
        let worker = Worker { manager: manager.clone(), tenant, shared, registrar, address };
        Self { manager, worker: Arc::new(worker), letters: OnceLock::new() }
    }

    /// Takes a message: it is answered when its turn has come.
    pub(crate) fn take(&self, letter: Letter) {
        let letters = self.letters.get_or_init(|| {
            let (sender, receiver) = mpsc::channel(WAITING_MAX);
            let worker = Arc::clone(&self.worker);
            self.manager.door.tasks.spawn(async move { worker.run(receiver).await });
            sender
        });
        if let Err(refused) = letters.try_send(letter) {
            let (mpsc::error::TrySendError::Full(letter)
            | mpsc::error::TrySendError::Closed(letter)) = refused;
            self.worker.answer(&letter, Err(Refusal::Busy));
        }
    }
}

impl Worker {
    /// Works until the connection is over and nothing of it waits.
    async fn run(&self, mut letters: mpsc::Receiver<Letter>) {
        let mut again: VecDeque<(Instant, DeviceName)> = VecDeque::new();
        loop {
            let letter = match again.front() {
                Some((at, _)) => timeout_at(*at, letters.recv()).await,
                None => Ok(letters.recv().await),
            };
            let letter = match letter {
                Ok(Some(letter)) => letter,
                Ok(None) => return,
                Err(_) => {
                    if let Some((_, device)) = again.pop_front() {
                        self.look(&device).await;
                    }
                    continue;
                }
            };
            let heard = self.hear_patiently(&letter).await;
            let is_noted = again.iter().any(|(_, device)| *device == letter.device);
            if matches!(heard, Ok(true)) && !is_noted && again.len() < AGAIN_MAX {
                again.push_back((Instant::now() + AGAIN, letter.device.clone()));
            }
            let outcome = match heard {
                Ok(_) => Ok(Published { matched: true }),
                Err(why) => {
                    debug!(device = %letter.device, %why, "what a managed device says was not heard");
                    Err(Refusal::Busy)
                }
            };
            self.answer(&letter, outcome);
        }
    }

    /// Hears a message, again and again while nobody can decide: whoever said it waits as for any publish.
    async fn hear_patiently(&self, letter: &Letter) -> Result<bool, Failed> {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.hear(letter).await {
                Err(Failed::Registry(_)) if Instant::now() < until => sleep(PAUSE).await,
                heard => return heard,
            }
        }
    }

    async fn hear(&self, letter: &Letter) -> Result<bool, Failed> {
        let Letter { device, address, payload, .. } = letter;
        let manager = &self.manager;
        if let Some(registrar) = &self.registrar {
            let client = self.shared.client.to_string();
            let by = (&*client, self.address.as_str());
            if !registrar.registered(&manager.door.registry, device, by).await? {
                let channel = Channel::of(device, self.gateway());
                manager.refuse(self.tenant, &channel, (address, payload), Rc::NotFound).await;
                return Ok(false);
            }
        }
        manager.door.metrics.management.with_label_values(&[label(address)]).inc();
        Box::pin(manager.said(self.tenant, device, (address, payload), self.gateway())).await
    }

    /// The gateway that speaks.
    fn gateway(&self) -> Option<&DeviceName> {
        self.shared.client.device().filter(|_| self.registrar.is_some())
    }

    /// Does what is owed to a device, if it still is.
    async fn look(&self, device: &DeviceName) {
        let ticked = Box::pin(self.manager.happens(self.tenant, device, Event::Tick)).await;
        if let Err(why) = ticked {
            debug!(%device, %why, "what is owed to a managed device waits");
        }
    }

    fn answer(&self, letter: &Letter, outcome: Result<Published, Refusal>) {
        if letter.qos > QoS::AtMostOnce {
            self.shared.tell(Notice::Published { token: letter.token, outcome });
        } else if outcome.is_err() {
            self.manager.door.metrics.dropped.with_label_values(&["management"]).inc();
        }
    }
}

/// What was said, as a label.
fn label(address: &Upward) -> &'static str {
    match address {
        Upward::Response => "response",
        Upward::Notify => "notify",
        Upward::Manage => "manage",
        Upward::Unmanage => "unmanage",
        Upward::UpdateLocation => "location",
        Upward::AddErrorCode | Upward::ClearErrorCodes => "error_codes",
        Upward::AddLog | Upward::ClearLog => "log",
        Upward::Unknown(_) => "unknown",
    }
}
