//! Devices that a gateway speaks for: one that it says anything about has come, and is heard of until the gateway goes or says that it has
//! gone.
//!
//! # Invariants
//!
//! - **At most [`CHILDREN_MAX`]** of one gateway are there at once.
//! - **The version of a child's shared attributes is known before its first message is answered**, so that every change that comes
//!   later is told.
//!
//! Checked by the cluster tests (`thingsboard_gateway.rs`).

use std::{collections::HashMap, future::pending, pin::Pin, time::Duration};

use futures_util::{StreamExt, TryStreamExt, stream, stream::FuturesUnordered};
use moorline_core::{Text, op::Denial};
use moorline_machine::answer::Refused;
use moorline_service::registry::{
    ASK_AGAIN, Heard, Present, RECHECK, RegistryError, Watch, brought::Bringer,
};
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::device::{Device, News};

/// Devices of one gateway that are there at once: about a kilobyte each.
const CHILDREN_MAX: usize = 10_000;
/// New ones that are looked at together.
const COME_AT_ONCE: usize = 16;

/// A device that is there.
pub(crate) struct Child {
    pub(crate) device: Device,
    /// Up to which version shared attributes were told.
    told: u64,
    _present: Present,
    /// Ends the wait for its news.
    _hears: DropGuard,
}

/// A child of which something was heard; without anything heard it is looked at all the same.
pub(crate) struct ChildHeard {
    name: Text,
    watch: Watch,
    gone: CancellationToken,
    heard: Heard,
}

impl ChildHeard {
    /// Whether a call may wait for it; or may go now that one has ended.
    pub(crate) fn calls(&self) -> (bool, bool) {
        (self.heard.calls, self.heard.ended)
    }
}

/// A child that was looked at.
pub(crate) enum Looked {
    /// It is there: what it is to be told of its attributes, if anything.
    There(Box<Device>, Option<News>),
    /// It was deleted.
    Deleted(Text),
    /// Its gateway speaks for it no more.
    Gone,
}

type Hearing = Pin<Box<dyn Future<Output = Option<ChildHeard>> + Send>>;

/// What became of those who should come.
#[derive(Debug)]
pub(crate) enum Came {
    /// All are there that may be; these were not before.
    All(Vec<Device>),
    /// There are too many, of the gateway or of the tenant.
    TooMany,
    /// A name that no device can have.
    NoName,
}

/// See the module.
pub(crate) struct Children {
    gateway: Device,
    /// Where the gateway speaks from.
    address: Text,
    known: HashMap<Text, Child>,
    hearing: FuturesUnordered<Hearing>,
}

impl Children {
    pub(crate) fn new(gateway: Device, address: Text) -> Self {
        Self { gateway, address, known: HashMap::new(), hearing: FuturesUnordered::new() }
    }

    /// One that is there; nobody of that name if it is disabled.
    pub(crate) fn get(&self, name: &str) -> Option<&Child> {
        self.known.get(&Text::from(name))
    }

    /// One has gone, as its gateway says, or was cut off: whether it was there.
    pub(crate) fn leave(&mut self, name: &str) -> bool {
        self.known.remove(&Text::from(name)).is_some()
    }

    /// All have gone: who they were.
    pub(crate) fn leave_all(&mut self) -> Vec<Device> {
        std::mem::take(&mut self.known).into_values().map(|child| child.device).collect()
    }

    /// Has devices come, as far as they are not there. Those that nobody has made are made, with this type.
    pub(crate) async fn come(&mut self, names: &[&str], kind: &str) -> Result<Came, RegistryError> {
        let new = names.iter().map(|name| Text::from(*name));
        let new: Vec<Text> = new.filter(|name| !self.known.contains_key(name)).collect();
        if self.known.len() + new.len() > CHILDREN_MAX {
            return Ok(Came::TooMany);
        }
        let (gateway, address) = (&self.gateway, &self.address);
        let came = stream::iter(new).map(|name| arrival(gateway, address, name, kind));
        let came = came.buffer_unordered(COME_AT_ONCE).try_collect::<Vec<_>>().await;
        let came = match came {
            Ok(came) => came,
            Err(RegistryError::Refused(Refused::Malformed)) => return Ok(Came::NoName),
            Err(RegistryError::Refused(_)) => return Ok(Came::TooMany),
            Err(error) => return Err(error),
        };
        let mut now_there = Vec::new();
        for (device, watch, told) in came.into_iter().flatten() {
            let name = device.guest.device.clone();
            let gone = CancellationToken::new();
            let child = Child {
                told,
                _present: device.door.registry.arrive(&device.guest),
                device,
                _hears: gone.clone().drop_guard(),
            };
            // Twice in one message is once.
            if !self.known.contains_key(&name) {
                now_there.push(child.device.clone());
                self.known.insert(name.clone(), child);
                self.hearing.push(hearing(name, watch, gone, RECHECK));
            }
        }
        Ok(Came::All(now_there))
    }

    /// The next one of which something is heard. Losing the future loses nothing.
    pub(crate) async fn heard(&mut self) -> ChildHeard {
        loop {
            match self.hearing.next().await {
                Some(Some(heard)) => return heard,
                // It has gone.
                Some(None) => {}
                None => pending().await,
            }
        }
    }

    /// Looks at one of which something was heard.
    pub(crate) async fn look(&mut self, heard: ChildHeard) -> Looked {
        let ChildHeard { name, watch, gone, heard } = heard;
        let Some(child) = self.known.get_mut(&name) else { return Looked::Gone };
        let stays = match heard.device {
            true => child.device.door.registry.still(&child.device.guest).await,
            false => Ok(()),
        };
        let mut again = RECHECK;
        match stays {
            Ok(()) => {}
            Err(Denial::Unavailable) => again = ASK_AGAIN,
            // The next message about it finds out what it is then.
            Err(why) => {
                self.known.remove(&name);
                let is_deleted = why == Denial::UnknownDevice;
                return if is_deleted { Looked::Deleted(name) } else { Looked::Gone };
            }
        }
        let news = match heard.attributes {
            true => child.device.news(Some(child.told)).await,
            false => Ok(News::nothing(child.told)),
        };
        let news = match news {
            Ok(news) => {
                child.told = news.version;
                Some(news).filter(|news| !news.is_empty())
            }
            Err(_) => {
                again = ASK_AGAIN;
                None
            }
        };
        let device = child.device.clone();
        self.hearing.push(hearing(name, watch, gone, again));
        Looked::There(Box::new(device), news)
    }
}

/// A device that comes; [`None`] if it is disabled.
async fn arrival(
    gateway: &Device,
    address: &Text,
    name: Text,
    kind: &str,
) -> Result<Option<(Device, Watch, u64)>, RegistryError> {
    let Device { door, guest } = gateway;
    let (by, address) = (guest.device.as_str(), address.as_str());
    let by = Bringer { tenant: guest.tenant, gateway: by, address };
    // Before its row is read: what changes from then on is heard.
    let watch = door.registry.watch(guest.tenant, &name);
    let brought = door.registry.brought(by, guest, &name, Some(kind)).await?;
    let Some(child) = brought else { return Ok(None) };
    let device = Device { door: door.clone(), guest: child };
    let told = device.news(None).await?.version;
    Ok(Some((device, watch, told)))
}

/// Waits for news of a child, and no longer than `again`: they may be lost. [`None`] when it has gone.
fn hearing(name: Text, watch: Watch, gone: CancellationToken, again: Duration) -> Hearing {
    Box::pin(async move {
        let heard = tokio::select! {
            () = gone.cancelled() => return None,
            heard = timeout(again, watch.heard()) => heard.unwrap_or(Heard::ANYTHING),
        };
        Some(ChildHeard { name, watch, gone, heard })
    })
}
