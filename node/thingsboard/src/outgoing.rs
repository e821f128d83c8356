//! Calls that go out on one connection: to its device, and to those that it speaks for.
//!
//! ```text
//!   waits ─► sent on the connection ─► taken: noted as delivered
//!                                  └─► not taken in time: noted, and it waits again while it may be resent
//! ```
//!
//! # Invariants
//!
//! - **A connection sends a call once**, until it is noted what became of that.
//! - **At most [`OUT_MAX`] are out at once**, or one of each device if its tenant has them go one by one; the others wait where they are
//!   kept.
//!
//! Checked by the cluster tests (`thingsboard_calls.rs`).

use std::{
    collections::{BTreeMap, BTreeSet},
    future::pending,
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use moorline_core::CallState;
use moorline_dialects::thingsboard::{
    calls::{DELIVERY_TIMEOUT_MS, ServerCall, Strategy},
    json::Json,
};
use moorline_machine::{
    CallRefused,
    calls::{Call, CallNote},
};
use moorline_service::registry::{RegistryError, settings::CallOrder};
use tokio::time::{Instant, sleep_until};

use crate::device::Device;

/// Calls that are out on one connection at once.
const OUT_MAX: usize = 32;
/// How long a device may take to acknowledge one.
const DELIVERY_WAIT: Duration = Duration::from_millis(DELIVERY_TIMEOUT_MS);

/// A call that is out.
struct Out {
    device: Device,
    number: i32,
    /// What it is answered with when it is taken, if that is all that its device says.
    answer: Option<Bytes>,
    /// When it is not taken in time; [`None`] while it is noted what became of it.
    ends: Option<Instant>,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Outgoing {
    /// Names of calls on this connection: their numbers are each device's own.
    next: u64,
    out: BTreeMap<u64, Out>,
    noting: FuturesUnordered<BoxFuture<'static, u64>>,
}

/// What of a device is out, and how much more may be.
pub(crate) struct Room {
    out: BTreeSet<i32>,
    left: usize,
}

impl Room {
    /// The calls of the device that go out now: those that wait and are not out, as many as there is room for, and as its tenant's
    /// strategy lets go.
    pub(crate) async fn ready(self, device: &Device) -> Result<Vec<Call>, RegistryError> {
        let out = self.out.len();
        let mut ready = self.waiting(device).await?;
        ready.truncate(going(device, ready.len(), out).await?);
        Ok(ready)
    }

    async fn waiting(self, device: &Device) -> Result<Vec<Call>, RegistryError> {
        let (mut ready, mut after) = (Vec::new(), 0);
        loop {
            let page = device.door.registry.waiting_calls(&device.guest, after).await?;
            for call in page.calls {
                after = call.number;
                if self.out.contains(&call.number) {
                    continue;
                }
                if ready.len() == self.left {
                    return Ok(ready);
                }
                ready.push(call);
            }
            if !page.more {
                return Ok(ready);
            }
        }
    }
}

impl Outgoing {
    /// What of a device is out, and how much more may be.
    pub(crate) fn room(&self, device: &Device) -> Room {
        let guest = &device.guest;
        let is_of = |out: &&Out| {
            (&out.device.guest.device, out.device.guest.born) == (&guest.device, guest.born)
        };
        let out = self.out.values().filter(is_of).map(|out| out.number).collect();
        Room { out, left: OUT_MAX.saturating_sub(self.out.len()) }
    }

    /// A call goes out now: what it is called on this connection.
    pub(crate) fn sent(&mut self, device: &Device, number: i32) -> u64 {
        self.sent_to_answer(device, number, None)
    }

    /// The same of one that is answered when it is taken: its device answers nothing.
    pub(crate) fn sent_to_answer(
        &mut self,
        device: &Device,
        number: i32,
        answer: Option<String>,
    ) -> u64 {
        // It may be taken, and that noted, before this is answered: notes keep their order.
        let noted = device.door.registry.note_call(&device.guest, number, CallNote::Sent);
        device.door.tasks.spawn(async move { drop(noted.await) });
        let (name, ends) = (self.next, Some(Instant::now() + DELIVERY_WAIT));
        self.next += 1;
        let answer = answer.map(Bytes::from);
        self.out.insert(name, Out { device: device.clone(), number, answer, ends });
        name
    }

    /// The client has these.
    pub(crate) fn taken(&mut self, names: &[u64]) {
        for name in names {
            let answer = self.out.get_mut(name).and_then(|out| out.answer.take());
            let answered = answer.map(|answer| CallNote::Answered { failed: false, answer });
            self.note(*name, answered.unwrap_or(CallNote::Delivered));
        }
    }

    fn note(&mut self, name: u64, what: CallNote) {
        // One whose time was over may be taken all the same.
        let Some(out) = self.out.get_mut(&name) else { return };
        if out.ends.take().is_none() {
            return;
        }
        let noted = out.device.door.registry.note_call(&out.device.guest, out.number, what);
        self.noting.push(Box::pin(async move {
            // What was not noted is sent again by whoever serves the device next.
            drop(noted.await);
            name
        }));
    }

    /// Waits until something became of a call: of whose, since there may be others to be sent. Losing the future loses nothing.
    pub(crate) async fn changed(&mut self) -> Device {
        loop {
            let first = self.out.iter().filter_map(|(name, out)| Some((out.ends?, *name))).min();
            let overdue = async {
                match first {
                    Some((ends, name)) => {
                        sleep_until(ends).await;
                        name
                    }
                    None => pending().await,
                }
            };
            tokio::select! {
                Some(name) = self.noting.next() => {
                    if let Some(out) = self.out.remove(&name) {
                        return out.device;
                    }
                }
                name = overdue => self.note(name, CallNote::Unacknowledged),
            }
        }
    }
}

/// How many calls of a device go out now, of those that are ready; `out`: those that are on their way.
pub(crate) async fn going(
    device: &Device,
    ready: usize,
    out: usize,
) -> Result<usize, RegistryError> {
    let (registry, tenant) = (&device.door.registry, device.guest.tenant);
    let strategy = strategy(device);
    // Nobody has to be asked where that changes nothing.
    let matters = strategy.go(ready, out, true) != strategy.go(ready, out, false);
    let unanswered = matters && {
        let states = vec![CallState::Delivered];
        let page = registry.calls_of(tenant, &device.guest.device, states, 0, u16::MAX).await?;
        page.is_some_and(|page| page.calls.iter().any(|call| !call.one_way))
    };
    Ok(strategy.go(ready, out, unanswered))
}

/// Which calls of a device may be out at once, as its tenant says.
fn strategy(device: &Device) -> Strategy {
    match device.door.registry.settings(device.guest.tenant).calls.order {
        CallOrder::Burst => Strategy::Burst,
        CallOrder::AfterAcknowledgement => Strategy::OnAck,
        CallOrder::AfterAnswer => Strategy::OnResponse,
    }
}

/// Whether the end of one call lets the next go.
pub(crate) fn goes_in_turn(device: &Device) -> bool {
    strategy(device) == Strategy::OnResponse
}

/// A call, as devices are told it.
pub(crate) fn server_call(call: &Call) -> ServerCall {
    let params = match Json::read(&call.params) {
        Ok(params) => params,
        Err(_) if call.params.is_empty() => Json::Null,
        // Whoever made it wrote something else: it is told as the text it is.
        Err(_) => Json::from(&*String::from_utf8_lossy(&call.params)),
    };
    ServerCall { id: call.number, method: call.method.to_string(), params }
}

/// The device has a call. It is on its way when this returns.
pub(crate) fn delivered(
    device: &Device,
    number: i32,
) -> impl Future<Output = Result<(), RegistryError>> + Send + use<> {
    let noted = device.door.registry.note_call(&device.guest, number, CallNote::Delivered);
    async move { noted.await.map(drop) }
}

/// A device's answer to a call. It is on its way when this returns.
pub(crate) fn answered(
    device: &Device,
    number: i32,
    data: String,
) -> impl Future<Output = Result<(), RegistryError>> + Send + use<> {
    ended(device, number, false, data)
}

/// A call that can't be told its device. It is on its way when this returns.
pub(crate) fn failed(
    device: &Device,
    number: i32,
    why: String,
) -> impl Future<Output = Result<(), RegistryError>> + Send + use<> {
    ended(device, number, true, why)
}

fn ended(
    device: &Device,
    number: i32,
    failed: bool,
    data: String,
) -> impl Future<Output = Result<(), RegistryError>> + Send + use<> {
    let note = CallNote::Answered { failed, answer: Bytes::from(data) };
    let noted = device.door.registry.note_call(&device.guest, number, note);
    async move {
        match noted.await {
            // Nobody has asked, or nobody waits any more.
            Ok(_) | Err(RegistryError::Calls(CallRefused::NoSuchCall)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
