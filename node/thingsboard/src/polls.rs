//! Waiting for changes of shared attributes, and for calls and mail, by one request after the other.
//!
//! # Invariants
//!
//! - **No change is lost between two polls**, whichever nodes they come to: up to where a device was told is remembered beside its
//!   attributes, and what changed since is told at once. The first poll of a device begins with what changes from then on.
//! - **A device is told again of what it may not have heard**: it is remembered when the answer was taken.
//!
//! - **A mail is settled when its answer was taken.** Calls go before it.
//!
//! Checked by the cluster tests (`thingsboard_http.rs`, `thingsboard_calls.rs`, `mail_everywhere.rs`).

use std::time::Duration;

use moorline_dialects::thingsboard::{attributes::Changed, calls::ServerCall, mail};
use moorline_machine::{
    calls::{Call, CallNote},
    mail::MailOp,
};
use moorline_service::registry::{ASK_AGAIN, RECHECK, RegistryError, mailman::Fate};
use tokio::time::{Instant, timeout_at};

use crate::{device::Device, outgoing};

/// What came of a poll.
#[derive(Debug)]
pub(crate) enum Polled {
    /// These changes, up to that version.
    Changed(u64, Changed),
    /// This call.
    Call(Box<Call>),
    /// A mail with this id, as a call.
    Mail(ServerCall, u128),
    /// Nothing in time.
    Nothing,
}

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Awaited {
    /// Changes of shared attributes.
    Attributes,
    /// A call, or mail.
    Call,
}

/// Waits for it.
pub(crate) async fn poll(
    device: &Device,
    awaited: Awaited,
    wait: Duration,
) -> Result<Polled, RegistryError> {
    let ends = Instant::now() + wait;
    // Before anything is read: what changes from then on is heard.
    let watch = device.door.registry.watch(device.guest.tenant, &device.guest.device);
    let since = match awaited {
        Awaited::Attributes => begin(device).await?,
        Awaited::Call => 0,
    };
    loop {
        let look_again = match look(device, awaited, since).await {
            Ok(Polled::Nothing) => RECHECK,
            Ok(polled) => return Ok(polled),
            // A leader is elected, for instance: it waits anyway.
            Err(RegistryError::Unavailable) => ASK_AGAIN,
            Err(error) => return Err(error),
        };
        let again_at = ends.min(Instant::now() + look_again);
        let heard = async {
            loop {
                let heard = watch.heard().await;
                match awaited {
                    Awaited::Attributes if heard.attributes => return,
                    Awaited::Call if heard.calls || heard.ended || heard.mail => return,
                    Awaited::Attributes | Awaited::Call => {}
                }
            }
        };
        // News may be lost: then it looks by itself.
        if timeout_at(again_at, heard).await.is_err() && Instant::now() >= ends {
            return Ok(Polled::Nothing);
        }
    }
}

/// From which version on changes are told.
async fn begin(device: &Device) -> Result<u64, RegistryError> {
    let known = device.news(None).await?;
    match known.told {
        Some(told) => Ok(told),
        None => {
            device.was_told(known.version).await?;
            Ok(known.version)
        }
    }
}

/// What there is now.
async fn look(device: &Device, awaited: Awaited, since: u64) -> Result<Polled, RegistryError> {
    match awaited {
        Awaited::Attributes => {
            let news = device.news(Some(since)).await?;
            let is_nothing = news.is_empty();
            Ok(if is_nothing {
                Polled::Nothing
            } else {
                Polled::Changed(news.version, news.changed)
            })
        }
        Awaited::Call => {
            let page = device.door.registry.waiting_calls(&device.guest, 0).await?;
            let Some(call) = page.calls.into_iter().next() else {
                return mail_of(device).await;
            };
            if outgoing::going(device, 1, 0).await? == 0 {
                return Ok(Polled::Nothing);
            }
            let noted = device.door.registry.note_call(&device.guest, call.number, CallNote::Sent);
            noted.await?;
            Ok(Polled::Call(Box::new(call)))
        }
    }
}

/// The mail at the front, if there is one that can be said. What can't be is rejected.
async fn mail_of(device: &Device) -> Result<Polled, RegistryError> {
    let (registry, guest) = (&device.door.registry, &device.guest);
    loop {
        let (front, _) = registry.next_mail(guest.tenant, &guest.device, None).await?;
        let Some(mail) = front else { return Ok(Polled::Nothing) };
        match mail::said(mail.id, mail.name.as_str(), &mail.payload) {
            Ok(call) => return Ok(Polled::Mail(call, mail.id)),
            Err(why) => {
                settle(device, mail.id, MailOp::Reject, why).await?;
                device.door.metrics.count_mail(Fate::Rejected);
            }
        }
    }
}

/// The device has a mail.
pub(crate) async fn taken(device: Device, id: u128) -> Result<(), RegistryError> {
    device.door.metrics.count_mail(Fate::Taken);
    settle(&device, id, MailOp::Ack, "").await
}

async fn settle(
    device: &Device,
    id: u128,
    op: MailOp,
    why: &'static str,
) -> Result<(), RegistryError> {
    let Device { door, guest } = device;
    let whose = (guest.tenant, guest.device.clone());
    match door.registry.settle_said(whose, id, op, guest.by, why).await {
        // Somebody else has settled it, or it is over.
        Ok(()) | Err(RegistryError::Mail(_) | RegistryError::Refused(_)) => Ok(()),
        Err(error) => Err(error),
    }
}
