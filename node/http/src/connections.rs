//! The connections: each is hyper's, in a task of its listener, and asks platforms for answers.

use std::{
    convert::Infallible,
    fmt,
    future::poll_fn,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use hyper::{
    HeaderMap,
    body::Incoming,
    header::{TRANSFER_ENCODING, UPGRADE},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use moorline_edge::{Channel, NodeBusy, Served, Speaks, Stalling, Stranger, Visit, linger};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::{Answer, Request, Talk, WebSocket, answer::Written};

/// How long a request's head may take, and how long a connection may rest between two.
const HEAD_WAIT: Duration = Duration::from_secs(30);
/// How long a client may take nothing of what it is sent: a stream must not keep its place for nothing.
const STALL_MAX: Duration = Duration::from_secs(30);
/// Bytes of a request's head.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Headers of a request.
const HEADERS_MAX: usize = 100;
/// What somebody is told whom the node has no time to judge.
const BUSY: &[u8] = b"this node is busy: try again later\n";
/// What a request for a WebSocket is told where nobody speaks one but MQTT.
const SUBPROTOCOL: &[u8] = b"offer the subprotocol mqtt or mqttv3.1\n";

/// An answer that is being found.
pub type Answered<'a> = Pin<Box<dyn Future<Output = Answer> + Send + 'a>>;

/// A platform that is spoken over HTTP.
pub trait Platform: fmt::Debug + Send + Sync + 'static {
    /// Whether requests for a path are its own. The first platform that says so has them ([`Http::new`]).
    fn claims(&self, path: &str) -> bool;

    /// The same by the headers, too, where several platforms have a path. `has`: whether there is one of this name, in lower case.
    fn claims_with(&self, path: &str, _has: &dyn Fn(&str) -> bool) -> bool {
        self.claims(path)
    }

    /// Whether a WebSocket is spoken there ([`Answer::websocket`]). A request for one elsewhere is not its own.
    fn speaks_websocket(&self, _path: &str) -> bool {
        false
    }

    /// A connection has its first request for it: who answers this one, and all others of the connection that are its own.
    fn meet(&self, caller: Arc<Caller>) -> Box<dyn Conversation>;
}

/// A platform's part of one connection. Dropped when the connection is over.
pub trait Conversation: Send + Sync {
    /// Answers a request. One at a time; dropped when the client is gone.
    fn answer(&self, request: Request) -> Answered<'_>;
}

/// Who is at the other end of a connection, by all that is known before it says anything.
#[derive(Debug)]
pub struct Caller {
    /// Where it comes from.
    pub peer: SocketAddr,
    /// To which port of ours.
    pub port: u16,
    /// What its TLS said and proved.
    pub channel: Channel,
    /// The node takes leave: whatever waits should be answered now.
    pub stop: CancellationToken,
    /// Until somebody has proved who it is.
    stranger: Mutex<Option<Stranger>>,
}

impl Caller {
    /// Whether it came by TLS.
    #[must_use]
    pub fn tls(&self) -> bool {
        self.channel.tls
    }

    /// It has proved who it is: its address may send another one who has to.
    pub fn is_known(&self) {
        drop(self.stranger.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// Each of its requests waits for its turn to be judged, until somebody is known. It keeps no place: an answer may take as long as a device waits for mail.
    async fn waits(&self) -> Result<(), NodeBusy> {
        let judgement = {
            let stranger = self.stranger.lock().unwrap_or_else(PoisonError::into_inner);
            stranger.as_ref().map(Stranger::judgement)
        };
        match judgement {
            Some(judgement) => judgement.pass().await.map(drop),
            None => Ok(()),
        }
    }
}

/// HTTP for all platforms that have it, beside MQTT over WebSocket at the same listener. Clones are the same.
#[derive(Debug, Clone)]
pub struct Http(Arc<[Arc<dyn Platform>]>);

impl Http {
    /// For these platforms: who claims a path before another one has it.
    #[must_use]
    pub fn new(platforms: Vec<Arc<dyn Platform>>) -> Self {
        Self(platforms.into())
    }
}

impl Speaks for Http {
    fn name(&self, tls: bool) -> &'static str {
        if tls { "https" } else { "http" }
    }

    fn serve(&self, visit: Visit) -> Served {
        Box::pin(serve(self.clone(), visit))
    }
}

/// What the requests of one connection share.
struct Connection {
    http: Http,
    caller: Arc<Caller>,
    /// By place of the platform; those it has met.
    met: Mutex<Vec<Option<Arc<dyn Conversation>>>>,
    /// Who has the connection when HTTP is done with it.
    talk: Mutex<Option<Talk>>,
}

async fn serve(http: Http, visit: Visit) {
    let Visit { stream, peer, port, channel, stop, stranger, .. } = visit;
    let stranger = Mutex::new(stranger);
    let caller = Arc::new(Caller { peer, port, channel, stop: stop.clone(), stranger });
    let met = Mutex::new(vec![None; http.0.len()]);
    let talk = Mutex::new(None);
    let shared = Arc::new(Connection { http, caller, met, talk });
    let serves = Arc::clone(&shared);
    let service = service_fn(move |request| {
        let shared = Arc::clone(&serves);
        Box::pin(async move { Ok::<_, Infallible>(shared.answer(request).await) })
    });
    let stream = Stalling::new(stream, STALL_MAX);
    let mut serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WAIT)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let served = tokio::select! {
        served = poll_fn(|cx| serving.poll_without_shutdown(cx)) => served,
        () = stop.cancelled() => {
            Pin::new(&mut serving).graceful_shutdown();
            poll_fn(|cx| serving.poll_without_shutdown(cx)).await
        }
    };
    let parts = serving.into_parts();
    let (stream, begun) = (parts.io.into_inner(), parts.read_buf);
    drop(parts.service);
    let talk = shared.talk.lock().unwrap_or_else(PoisonError::into_inner).take();
    match (talk, served) {
        (Some(talk), Ok(())) => {
            // What its requests shared stays as long as the connection.
            talk(WebSocket::new(Box::new(stream), begun.to_vec()).await).await;
        }
        (_, served) => {
            linger(&mut stream.into_inner(), peer).await;
            if let Err(error) = served {
                debug!(%peer, %error, "an HTTP connection ended badly");
            }
        }
    }
}

/// Whether a request asks for a WebSocket.
fn is_websocket(headers: &HeaderMap) -> bool {
    let asked = headers.get(UPGRADE).and_then(|value| value.to_str().ok());
    asked.is_some_and(|asked| asked.trim().eq_ignore_ascii_case("websocket"))
}

/// The node has no time to find out who it is. Nothing of its body was read.
fn busy(retry_after_s: u32) -> Answer {
    let headers = [("retry-after", retry_after_s.to_string())];
    let mut answer = Answer::whole(503, &headers, Bytes::from_static(BUSY));
    answer.ends();
    answer
}

impl Connection {
    async fn answer(&self, request: hyper::Request<Incoming>) -> Written {
        // What a proxy in front takes for the end of such a body may be another place: nothing behind it is a request.
        let ends = request.headers().contains_key(TRANSFER_ENCODING);
        let upgrades = is_websocket(request.headers());
        let path = request.uri().path();
        let has = |name: &str| request.headers().contains_key(name);
        let whose = if upgrades && ends { None } else { self.whose(path, upgrades, &has) };
        let mut answer = match whose {
            Some(conversation) => match self.caller.waits().await {
                Ok(()) => conversation.answer(Request::new(request)).await,
                Err(NodeBusy { retry_after_s }) => busy(retry_after_s),
            },
            // That is what one is for elsewhere.
            None if upgrades => Answer::whole(400, &[], Bytes::from_static(SUBPROTOCOL)),
            None => Answer::whole(404, &[], Bytes::new()),
        };
        if ends || upgrades && !answer.talks() {
            answer.ends();
        }
        let (written, talk) = answer.into_parts();
        if talk.is_some() {
            *self.talk.lock().unwrap_or_else(PoisonError::into_inner) = talk;
        }
        written
    }

    /// Who answers requests for a path.
    fn whose(
        &self,
        path: &str,
        upgrades: bool,
        has: &dyn Fn(&str) -> bool,
    ) -> Option<Arc<dyn Conversation>> {
        let platforms = &self.http.0;
        let is_its = |platform: &Arc<dyn Platform>| {
            platform.claims_with(path, has) && (!upgrades || platform.speaks_websocket(path))
        };
        let at = platforms.iter().position(is_its)?;
        let mut met = self.met.lock().unwrap_or_else(PoisonError::into_inner);
        let meet = || platforms[at].meet(Arc::clone(&self.caller)).into();
        Some(Arc::clone(met[at].get_or_insert_with(meet)))
    }
}
