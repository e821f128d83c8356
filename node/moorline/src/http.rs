//! A small HTTP client for the admin API: one request, one answer, a deadline.

use std::time::Duration;

use anyhow::Context;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, StatusCode, body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, task::JoinSet, time::timeout};

/// How long one request may take.
const REQUEST_WAIT: Duration = Duration::from_secs(10);
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
    timeout(REQUEST_WAIT, exchange(method, address, path, body, token)).await.map_err(|_| {
        anyhow::Error::from(Unreachable {
            address: address.to_owned(),
            why: format!("no answer in {REQUEST_WAIT:?}"),
        })
    })?
}

async fn exchange(
    method: Method,
    address: &str,
    path: &str,
    body: Vec<u8>,
    token: Option<&str>,
) -> anyhow::Result<(StatusCode, Bytes)> {
    let stream = TcpStream::connect(address)
        .await
        .map_err(|error| Unreachable { address: address.to_owned(), why: error.to_string() })?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let mut tasks = JoinSet::new();
    tasks.spawn(connection);
    let bearer = token.map(|token| ("authorization", format!("Bearer {token}")));
    let request = bearer
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
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX)
        .collect()
        .await
        .map_err(|error| anyhow::anyhow!("the answer broke off: {error}"))?;
    Ok((status, body.to_bytes()))
}
