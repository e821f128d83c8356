//! A small HTTP client for the admin API: one request, one answer, a deadline; or an answer that lasts.

use std::time::Duration;

use anyhow::Context;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http1,
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, task::JoinSet, time::timeout};

/// How long one request may take.
const REQUEST_WAIT: Duration = Duration::from_secs(10);
/// How long a stream may say nothing: it has a sign of life each 15 s.
const SILENCE_MAX: Duration = Duration::from_secs(40);
/// The largest answer taken.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Nobody answered.
#[derive(Debug, thiserror::Error)]
#[error("nobody answers at {address} ({why}); is the node running, and is this its listen.admin?")]
pub(crate) struct Unreachable {
    address: String,
    why: String,
}

/// Asks a node's admin API. `address` is `host:port`.
pub(crate) async fn request(
    method: Method,
    address: &str,
    path: &str,
    body: Vec<u8>,
) -> anyhow::Result<(StatusCode, Bytes)> {
    request_as(method, address, path, body, None).await
}

/// The same with an API token.
pub(crate) async fn request_as(
    method: Method,
    address: &str,
    path: &str,
    body: Vec<u8>,
    token: Option<&str>,
) -> anyhow::Result<(StatusCode, Bytes)> {
    let headers = bearer(token);
    timeout(REQUEST_WAIT, exchange(method, address, path, body, headers))
        .await
        .map_err(|_| silent(address))?
}

fn bearer(token: Option<&str>) -> Vec<(&'static str, String)> {
    token.map(|token| ("authorization", format!("Bearer {token}"))).into_iter().collect()
}

fn silent(address: &str) -> anyhow::Error {
    let (address, why) = (address.to_owned(), format!("no answer in {REQUEST_WAIT:?}"));
    Unreachable { address, why }.into()
}

async fn exchange(
    method: Method,
    address: &str,
    path: &str,
    body: Vec<u8>,
    headers: Vec<(&'static str, String)>,
) -> anyhow::Result<(StatusCode, Bytes)> {
    let mut stream = begin(method, address, path, body, headers).await?;
    Ok((stream.status, stream.rest().await?))
}

/// An answer that lasts. The connection goes with it.
pub(crate) struct Stream {
    pub(crate) status: StatusCode,
    body: Incoming,
    _connection: (http1::SendRequest<Full<Bytes>>, JoinSet<hyper::Result<()>>),
}

impl Stream {
    /// The next piece; `None` at the end.
    pub(crate) async fn chunk(&mut self) -> anyhow::Result<Option<Bytes>> {
        loop {
            let frame = timeout(SILENCE_MAX, self.body.frame()).await;
            let Some(frame) = frame.context("the node says nothing any more")? else {
                return Ok(None);
            };
            if let Ok(data) = frame.context("the connection broke")?.into_data() {
                return Ok(Some(data));
            }
        }
    }

    /// All that is left of it, for an answer that ends.
    pub(crate) async fn rest(&mut self) -> anyhow::Result<Bytes> {
        let body = Limited::new(&mut self.body, ANSWER_BYTES_MAX).collect().await;
        Ok(body.map_err(|error| anyhow::anyhow!("the answer broke off: {error}"))?.to_bytes())
    }
}

/// Asks a node for server-sent events, behind an event id.
pub(crate) async fn stream(
    address: &str,
    path: &str,
    token: Option<&str>,
    last_event_id: Option<&str>,
) -> anyhow::Result<Stream> {
    let mut headers = bearer(token);
    headers.push(("accept", "text/event-stream".to_owned()));
    headers.extend(last_event_id.map(|id| ("last-event-id", id.to_owned())));
    let begun = begin(Method::GET, address, path, Vec::new(), headers);
    timeout(REQUEST_WAIT, begun).await.map_err(|_| silent(address))?
}

async fn begin(
    method: Method,
    address: &str,
    path: &str,
    body: Vec<u8>,
    headers: Vec<(&'static str, String)>,
) -> anyhow::Result<Stream> {
    let stream = TcpStream::connect(address)
        .await
        .map_err(|error| Unreachable { address: address.to_owned(), why: error.to_string() })?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let mut tasks = JoinSet::new();
    tasks.spawn(connection);
    let request = headers
        .into_iter()
        .fold(Request::builder(), |request, (name, value)| request.header(name, value));
    let request = request
        .method(method)
        .uri(path)
        .header("host", address)
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(body)))?;
    let response = sender.send_request(request).await.context("the connection broke")?;
    let status = response.status();
    Ok(Stream { status, body: response.into_body(), _connection: (sender, tasks) })
}
