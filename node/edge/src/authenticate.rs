//! Who may connect, and as whose: a port, so that an edge knows no credential store.

use std::{fmt, future::Future, net::SocketAddr, pin::Pin, sync::Arc};

use bytes::Bytes;
use moorline_core::{
    TenantId, Text,
    port::{Ended, Inbox, Notice, Port},
    rights::Who,
};
use moorline_explain::Trail;
use moorline_mqtt::{Version, server};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use crate::channel::Channel;

/// An answer that may take a while (a lookup, a slow hash). The connection goes on waiting within its first-packet
/// deadline.
pub type Verdict = Pin<Box<dyn Future<Output = Result<Identity, Denial>> + Send>>;

/// Decides who a client is.
pub trait Authenticate: Send + Sync + 'static {
    /// Judges one attempt. Must not block.
    fn authenticate(&self, attempt: Attempt) -> Verdict;

    /// How it judges, for a metric's label: one of a few words.
    fn method(&self) -> &'static str;
}

/// What a client says about itself.
#[derive(Clone)]
pub struct Attempt {
    /// Where it connects from.
    pub peer: SocketAddr,
    /// Its protocol's version.
    pub version: Version,
    /// The keep-alive it sent, in seconds.
    pub keep_alive_s: u16,
    /// Whether it wants what an earlier session left to be forgotten.
    pub clean_start: bool,
    /// How long its session is to last, in seconds, within the edge's limit.
    pub expiry_s: u32,
    /// Its will, if it has one: its topic, and bytes of its payload.
    pub will: Option<(Text, usize)>,
    /// Its client id, after an empty one was replaced.
    pub client: Text,
    /// Its user name, if it gave one.
    pub username: Option<Text>,
    /// Its password, if it gave one.
    pub password: Option<Bytes>,
    /// What its TLS said and proved.
    pub channel: Channel,
    /// The port it came to.
    pub port: u16,
    /// Whether by WebSocket.
    pub websocket: bool,
}

/// By hand: a password is never printed, nor a user name, which may be a token.
impl fmt::Debug for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attempt")
            .field("peer", &self.peer)
            .field("version", &self.version)
            .field("client", &self.client)
            .field("username", &self.username.as_ref().map(|_| "…"))
            .field("password", &self.password.as_ref().map(|_| "…"))
            .field("channel", &self.channel)
            .finish()
    }
}

/// Begins to watch over a connection that was let in, until what it gives is dropped: with the connection.
pub type Begin = Box<dyn FnOnce(Arc<dyn Inbox>) -> DropGuard + Send>;

/// Has a task watch over a connection, as long as it lasts: ends it when the future that `begins` gives does.
pub fn watch_over<F>(tasks: TaskTracker, begins: impl FnOnce() -> F + Send + 'static) -> Begin
where
    F: Future<Output = ()> + Send + 'static,
{
    Box::new(move |inbox| {
        let token = CancellationToken::new();
        let (gone, revoked) = (token.clone(), begins());
        tasks.spawn(async move {
            tokio::select! {
                () = gone.cancelled() => {}
                // One that takes nothing is ending anyway.
                () = revoked => inbox.push(Notice::Ended(Ended::Revoked)).unwrap_or_default(),
            }
        });
        token.drop_guard()
    })
}

/// Who a client is.
pub struct Identity {
    /// Whose topic space it lives in.
    pub tenant: TenantId,
    /// What its session is called, if not as its client id says: whoever it may take over is called the same.
    pub session: Option<Text>,
    /// Which device it is, and so what it may publish and subscribe to.
    pub who: Option<Arc<Who>>,
    /// Who serves it, if not the service behind the edge: a platform where MQTT is something else.
    pub port: Option<Arc<dyn Port>>,
    /// Its platform's rules of MQTT, in the place of the edge's.
    pub rules: Option<Arc<server::Config>>,
    /// Who tells it when it may not stay any more.
    pub begin: Option<Begin>,
    /// Where it is remembered what it says and is told.
    pub trail: Option<Trail>,
}

impl Identity {
    /// A client of a tenant whose session is called as its client id says.
    #[must_use]
    pub fn of(tenant: TenantId) -> Self {
        Self { tenant, session: None, who: None, port: None, rules: None, begin: None, trail: None }
    }
}

/// By hand: neither a port nor a function has a form to print.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("tenant", &self.tenant)
            .field("session", &self.session)
            .finish_non_exhaustive()
    }
}

/// Why a client may not connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// Unknown user, wrong password.
    #[error("bad user name or password")]
    BadCredentials,
    /// Known, and not allowed here.
    #[error("not authorised")]
    NotAuthorised,
    /// It, or its address, failed too often.
    #[error("banned for a while")]
    Banned,
    /// The same, where its platform has only the word for being busy for it.
    #[error("banned for a while")]
    BannedAsBusy,
    /// Right, and not valid yet or any more.
    #[error("the credentials are not valid now")]
    Expired,
    /// Its tenant takes credentials with TLS only.
    #[error("credentials may be shown with TLS only")]
    Plaintext,
    /// Too many credentials are being checked.
    #[error("too many credentials are being checked")]
    Busy,
    /// As many who are nobody yet are here already as may, of its address or of all.
    #[error("too many who are nobody yet")]
    Crowded,
    /// It cannot be told now.
    #[error("the credentials cannot be checked now")]
    Unavailable,
    /// Its platform does not have such client ids.
    #[error("the client id means nothing here")]
    ClientId,
    /// Its platform speaks another version of MQTT.
    #[error("another version of MQTT is spoken here")]
    Version,
    /// Its platform says nothing to such a client, not even no.
    #[error("not answered")]
    Unanswered,
}

impl Denial {
    /// All of them, but one for each label.
    pub const ALL: [Self; 11] = [
        Self::BadCredentials,
        Self::NotAuthorised,
        Self::Banned,
        Self::Expired,
        Self::Plaintext,
        Self::Busy,
        Self::Crowded,
        Self::Unavailable,
        Self::ClientId,
        Self::Version,
        Self::Unanswered,
    ];

    /// For a metric's label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::BadCredentials => "bad_credentials",
            Self::NotAuthorised => "not_authorised",
            // What it is, not what it is told: `busy` wakes somebody.
            Self::Banned | Self::BannedAsBusy => "banned",
            Self::Expired => "expired",
            Self::Plaintext => "plaintext",
            Self::Busy => "busy",
            Self::Crowded => "crowded",
            Self::Unavailable => "unavailable",
            Self::ClientId => "client_id",
            Self::Version => "version",
            Self::Unanswered => "unanswered",
        }
    }
}

/// Lets everybody in, as one tenant: for a laptop, and until credentials exist.
#[derive(Debug, Clone, Copy)]
pub struct Anonymous {
    /// Everybody's tenant.
    pub tenant: TenantId,
}

impl Authenticate for Anonymous {
    fn authenticate(&self, _attempt: Attempt) -> Verdict {
        let identity = Identity::of(self.tenant);
        Box::pin(std::future::ready(Ok(identity)))
    }

    fn method(&self) -> &'static str {
        "anonymous"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_a_password_nor_a_token_is_printed() {
        let attempt = Attempt {
            peer: SocketAddr::from(([127, 0, 0, 1], 1)),
            version: Version::V311,
            keep_alive_s: 0,
            clean_start: true,
            expiry_s: 0,
            will: None,
            client: Text::from("c"),
            username: Some(Text::from("token")),
            password: Some(Bytes::from_static(b"secret")),
            channel: Channel::default(),
            port: 1883,
            websocket: false,
        };
        let printed = format!("{attempt:?}");
        assert!(!printed.contains("secret") && !printed.contains("token"), "{printed}");
    }
}
