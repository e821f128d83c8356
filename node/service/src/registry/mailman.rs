//! Mail on its way over one connection: from the device's mailbox, in the words of whatever the connection speaks.
//!
//! ```text
//!   mailbox ─► front ─► said (Says::say) ─► handed over (Says::hand) ─► the client has it ─► acked
//!                 └──► can't be said ─► rejected, and why stands in its history
//! ```
//!
//! # Invariants
//!
//! - **One after the other, in the order in which they were sent.**
//! - **A mail leaves the mailbox when the client has it**, not before: what a connection had no time for, the next has. So it may come
//!   twice, and is not lost.
//! - **What can't be said blocks nothing**: it is rejected. What nobody listens for waits, and all behind it.
//!
//! Checked by the cluster tests (`mail_everywhere.rs`, `losant.rs`).
//!
//! # Deliberately absent
//!
//! What mail looks like on a platform (`protocols/dialects`). Platforms whose devices settle mail themselves (`door.rs`).

use std::{sync::Arc, time::Duration};

use moorline_core::{Message, TenantId, Text};
use moorline_machine::{
    MailRefused,
    mail::{MAIL_DETAIL_BYTES_MAX, Mail, MailCommand, MailOp, SettleIf, SettleMail},
};
use tokio::{
    sync::{Notify, oneshot},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    ASK_AGAIN, RECHECK, Registry, RegistryError, Watch,
    door::By,
    explain::{Cause, Stage},
};

/// Why a mail is not said now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsaid {
    /// Its device does not listen for it: it waits.
    Unheard,
    /// It can't be said there, and why: it is rejected.
    Never(&'static str),
}

/// What became of a mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// The client has it.
    Taken,
    /// It can't be said there.
    Rejected,
}

impl Fate {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Taken, Self::Rejected];

    /// As a label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Taken => "taken",
            Self::Rejected => "rejected",
        }
    }
}

/// A connection that says mail to its device.
pub trait Says: Send + Sync + 'static {
    /// Whether it listens for any mail now.
    fn listens(&self) -> bool;

    /// How long the next mail has to wait, because so many have gone out; [`None`]: it may go now.
    fn pause(&self) -> Option<Duration> {
        None
    }

    /// Takes a place for a message among those that may go out in a while; false if others have them all by now: it is asked for again
    /// when there is one ([`pause`](Self::pause)). Several that share a connection have looked at the same time.
    fn takes_place(&self, message: &Message) -> bool {
        let _ = message;
        true
    }

    /// A mail as its device hears it.
    ///
    /// # Errors
    ///
    /// Why it does not, or not yet.
    fn say(&self, mail: &Mail) -> Result<Message, Unsaid>;

    /// Hands a message over; the receiver hears when the client has it. [`None`]: the connection is over.
    fn hand(&self, message: Message) -> Option<oneshot::Receiver<()>>;

    /// Counts what became of a mail.
    fn count(&self, fate: Fate);

    /// Told when it listens for something else than before.
    fn changed(&self) -> &Notify;
}

/// See the module.
pub struct Mailman<S> {
    registry: Registry,
    tenant: TenantId,
    device: Text,
    by: By,
    says: Arc<S>,
    watch: Watch,
}

impl<S> std::fmt::Debug for Mailman<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mailman").field("device", &self.device).finish_non_exhaustive()
    }
}

impl<S: Says> Mailman<S> {
    /// For a device that the connection may speak for. News of it are heard from now on.
    #[must_use]
    pub fn new(registry: Registry, whose: (TenantId, Text), by: By, says: Arc<S>) -> Self {
        let (tenant, device) = whose;
        let watch = registry.watch(tenant, &device);
        Self { registry, tenant, device, by, says, watch }
    }

    /// Until the connection is over.
    pub async fn run(self, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.bring() => {}
        }
    }

    async fn bring(&self) {
        loop {
            while !self.says.listens() {
                self.says.changed().notified().await;
            }
            // Before it is asked for: who waits holds no mail that somebody may take back meanwhile.
            while let Some(pause) = self.says.pause() {
                sleep(pause).await;
            }
            match self.registry.next_mail(self.tenant, &self.device, None).await {
                Ok((Some(mail), _)) => {
                    if !self.deliver(mail).await {
                        return;
                    }
                }
                Ok((None, _)) => self.wait().await,
                Err(RegistryError::Mail(MailRefused::DeviceGone)) => return,
                Err(_) => sleep(ASK_AGAIN).await,
            }
        }
    }

    /// Until there may be something to say.
    async fn wait(&self) {
        let mail = async {
            tokio::select! {
                () = async { while !self.watch.heard().await.mail {} } => {}
                () = self.says.changed().notified() => {}
            }
        };
        // Also without news: they may be lost with a connection between nodes.
        timeout(RECHECK, mail).await.unwrap_or_default();
    }

    /// Says a mail, and settles it when the client has it; false if the connection is over.
    async fn deliver(&self, mail: Mail) -> bool {
        let said = match self.says.say(&mail) {
            Ok(said) => said,
            Err(Unsaid::Unheard) => {
                self.wait().await;
                return true;
            }
            Err(Unsaid::Never(why)) => {
                let (whose, cause) = ((self.tenant, &self.device), Cause::MailUnreadable);
                self.registry.note_dropped(whose, Stage::Mail, why, cause);
                self.settle(&mail, MailOp::Reject, why).await;
                self.says.count(Fate::Rejected);
                return true;
            }
        };
        if !self.says.takes_place(&said) {
            return true;
        }
        let Some(taken) = self.says.hand(said) else { return false };
        if taken.await.is_err() {
            return false;
        }
        self.settle(&mail, MailOp::Ack, "").await;
        self.says.count(Fate::Taken);
        true
    }

    /// Until it is settled, by whomever.
    async fn settle(&self, mail: &Mail, op: MailOp, why: &'static str) {
        loop {
            let (tenant, device) = (self.tenant, self.device.clone());
            let said = self.registry.settle_said((tenant, device), mail.id, op, self.by, why).await;
            match said {
                // Somebody else has settled it, or it is over.
                Ok(()) | Err(RegistryError::Mail(_) | RegistryError::Refused(_)) => return,
                Err(_) => sleep(ASK_AGAIN).await,
            }
        }
    }
}

impl Registry {
    /// Settles the mail at the front for a device that has no words for it: what was said went out, and why something was not said
    /// stands in its history (at most [`MAIL_DETAIL_BYTES_MAX`] bytes of it).
    ///
    /// # Errors
    ///
    /// [`RegistryError`]; `MailRefused::NotNext` if another one is at the front.
    pub async fn settle_said(
        &self,
        (tenant, device): (TenantId, Text),
        id: u128,
        op: MailOp,
        by: By,
        why: &'static str,
    ) -> Result<(), RegistryError> {
        let kept = why.floor_char_boundary(MAIL_DETAIL_BYTES_MAX);
        let detail = Text::from(&why[..kept]);
        let settle = SettleMail { tenant, device, id, op, by: by as u8, detail };
        let only = SettleIf { version: None, delivered: op == MailOp::Ack };
        self.mail(MailCommand::SettleIf(settle, only)).await.map(drop)
    }
}
