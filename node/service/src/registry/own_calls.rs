//! Calls that devices make themselves, and what applications answer: kept by the node that has the device's connection.
//!
//! ```text
//!   device ─► its node: waits, under an id ─► event with that id ─► stream ─► an application
//!                    ▲                                                             │ answer, at any node
//!                    └───────── the node that the id names ◄──────────────────────┘
//! ```
//!
//! # Invariants
//!
//! - **An id names the node that waits**, and a number that nobody guesses: no node has to know what another waits for, and one that
//!   starts anew is asked for nothing that its predecessor waited for.
//! - **An answer is taken once**, of the tenant and the device that the call is of.
//! - **Bounded**: [`OWN_CALLS_MAX`] wait at a node; an answer has [`OWN_ANSWER_BYTES_MAX`].
//!
//! Checked by the tests below and by the cluster tests (`thingsboard_own_calls.rs`).

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use moorline_core::{NodeId, ShardId, TenantId, Text};
use moorline_group::wire::{Kind, Lane, Replier};
use moorline_storage::{
    StorageError,
    record::{Reader, Writer},
};
use tokio::{sync::oneshot, time::timeout};

use super::{Registry, RegistryError};
use crate::service::Inner;

/// Calls of devices that wait for answers at a node.
pub(crate) const OWN_CALLS_MAX: usize = 65_536;
/// Bytes of an answer: with its topic it fits into the smallest packet that a platform's devices take.
pub const OWN_ANSWER_BYTES_MAX: usize = 60 * 1024;
/// How long the node that waits may take to say whether it does.
const ASK_WAIT: Duration = Duration::from_secs(3);
/// Of a frame with an answer.
const VERSION: u8 = 1;
/// What it has beside the device's name and the answer.
const FRAME_BYTES: usize = 32;
/// What is said of it: it was taken, or nobody waits.
const TAKEN: &[u8] = &[1];
const UNKNOWN: &[u8] = &[0];

#[derive(Debug)]
struct Waiting {
    tenant: TenantId,
    device: Text,
    answer: oneshot::Sender<Bytes>,
}

/// Calls that wait here, by number.
#[derive(Debug, Default)]
pub(crate) struct OwnCalls(Mutex<HashMap<u64, Waiting>>);

impl OwnCalls {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Waiting>> {
        // Every change is one entry.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    fn begin(&self, number: u64, waiting: Waiting) -> bool {
        let mut all = self.lock();
        let has_room = all.len() < OWN_CALLS_MAX && !all.contains_key(&number);
        if has_room {
            all.insert(number, waiting);
        }
        has_room
    }

    /// Whether somebody waited for it, and has it now.
    fn answer(&self, number: u64, tenant: TenantId, device: &Text, answer: Bytes) -> bool {
        let mut all = self.lock();
        let is_of = |waiting: &Waiting| waiting.tenant == tenant && waiting.device == *device;
        if !all.get(&number).is_some_and(is_of) {
            return false;
        }
        let taken = all.remove(&number).map(|waiting| waiting.answer.send(answer));
        taken.is_some_and(|taken| taken.is_ok())
    }
}

/// A call of a device that waits for its answer, until it is dropped.
#[derive(Debug)]
pub struct OwnCall {
    inner: Arc<Inner>,
    number: u64,
    answer: oneshot::Receiver<Bytes>,
}

impl OwnCall {
    /// What who answers has to say: the node, and the number there.
    #[must_use]
    pub fn id(&self) -> u128 {
        u128::from(self.inner.node.0) << 64 | u128::from(self.number)
    }

    /// Waits so long for the answer.
    pub async fn answered(mut self, wait: Duration) -> Option<Bytes> {
        timeout(wait, &mut self.answer).await.ok()?.ok()
    }
}

impl Drop for OwnCall {
    fn drop(&mut self) {
        self.inner.own_calls.lock().remove(&self.number);
    }
}

impl Registry {
    /// A device calls, and waits from now on. `None`: too many wait here.
    #[must_use]
    pub fn await_answer(&self, tenant: TenantId, device: &Text) -> Option<OwnCall> {
        let (number, (answer, waits)) = (rand::random(), oneshot::channel());
        let waiting = Waiting { tenant, device: device.clone(), answer };
        let inner = Arc::clone(&self.inner);
        // Not made before there is room: what is dropped takes the number with it, and it may be another's.
        if !inner.own_calls.begin(number, waiting) {
            inner.metrics.registry.calls.own_refused.inc();
            return None;
        }
        Some(OwnCall { inner, number, answer: waits })
    }

    /// Answers a call of a device. `false`: nobody waits for it, or does any more.
    ///
    /// # Errors
    ///
    /// [`RegistryError::Unavailable`]: the node that waits could not be asked; it may have the answer all the same.
    pub async fn answer_own_call(
        &self,
        tenant: TenantId,
        device: &Text,
        id: u128,
        answer: Bytes,
    ) -> Result<bool, RegistryError> {
        let (node, number) = (NodeId((id >> 64) as u64), id as u64);
        if !self.inner.known_nodes().contains(&node) {
            return Ok(false);
        }
        let frame = encode(number, tenant, device, &answer);
        let peers = &self.inner.below().peers;
        let asked = peers.call(node, Lane::Data, Kind::OwnCall, ShardId::META, frame, ASK_WAIT);
        let said = asked.await.map_err(|_| RegistryError::Unavailable)?;
        Ok(&said[..] == TAKEN)
    }
}

fn encode(number: u64, tenant: TenantId, device: &Text, answer: &[u8]) -> Bytes {
    let mut out = Writer::new(VERSION, FRAME_BYTES + device.len() + answer.len());
    out.u64(number);
    out.u32(tenant.0);
    out.text(device);
    out.rest(answer);
    out.done()
}

fn decode(frame: Bytes) -> Result<(u64, TenantId, Text, Bytes), StorageError> {
    let mut from = Reader::new(frame, VERSION, "answer to a device's call")?;
    Ok((from.u64()?, TenantId(from.u32()?), from.text()?, from.rest()))
}

impl Inner {
    /// From a node at which somebody answers a call that waits here.
    pub(crate) fn on_own_call(
        self: &Arc<Self>,
        from: NodeId,
        _: ShardId,
        body: Bytes,
        reply: Option<Replier>,
    ) {
        let (number, tenant, device, answer) = match decode(body) {
            Ok(said) => said,
            Err(problem) => return self.bad_frame(from, &problem),
        };
        let taken = self.own_calls.answer(number, tenant, &device, answer);
        if let Some(reply) = reply {
            reply.send(Bytes::from_static(if taken { TAKEN } else { UNKNOWN }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(device: &str) -> (Waiting, oneshot::Receiver<Bytes>) {
        let (answer, waits) = oneshot::channel();
        (Waiting { tenant: TenantId(7), device: device.into(), answer }, waits)
    }

    #[test]
    fn an_answer_is_taken_once_and_of_its_own_device() {
        let calls = OwnCalls::default();
        let (one, mut waits) = waiting("pump");
        assert!(calls.begin(5, one));
        assert!(!calls.begin(5, waiting("other").0), "the number is taken");
        let say = |number, tenant, device: &str| {
            calls.answer(number, TenantId(tenant), &device.into(), Bytes::from_static(b"1"))
        };
        for (number, tenant, device) in [(4, 7, "pump"), (5, 8, "pump"), (5, 7, "valve")] {
            assert!(!say(number, tenant, device), "{number} {tenant} {device}");
        }
        assert!(say(5, 7, "pump"));
        assert_eq!(waits.try_recv().unwrap(), "1");
        assert!(!say(5, 7, "pump"), "once");
        let (gone, waits) = waiting("pump");
        assert!(calls.begin(6, gone));
        drop(waits);
        assert!(!say(6, 7, "pump"), "who waited has gone");
    }

    #[test]
    fn so_many_wait_and_no_more() {
        let calls = OwnCalls::default();
        for number in 0..OWN_CALLS_MAX as u64 {
            assert!(calls.begin(number, waiting("d").0));
        }
        assert!(!calls.begin(u64::MAX, waiting("d").0));
        assert_eq!(calls.len(), OWN_CALLS_MAX);
    }

    #[test]
    fn a_frame_comes_through() {
        let device = Text::from("pump");
        let frame = encode(1 << 63, TenantId(7), &device, b"{}");
        let whole = (1 << 63, TenantId(7), device, Bytes::from_static(b"{}"));
        assert_eq!(decode(frame.clone()).unwrap(), whole);
        for length in 0..frame.len() - 2 {
            assert!(decode(frame.slice(..length)).is_err(), "{length}");
        }
    }
}
