//! A client of HTTP that keeps its connection: for what is asked many times.

use anyhow::{Context, ensure};
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, StatusCode, body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{net::TcpStream, task::JoinSet};

/// A connection and what each request says of who asks.
pub(crate) struct Caller {
    host: String,
    headers: Vec<(&'static str, String)>,
    sender: http1::SendRequest<Full<Bytes>>,
    _connection: JoinSet<hyper::Result<()>>,
}

impl Caller {
    pub(crate) async fn connect(
        host: &str,
        headers: Vec<(&'static str, String)>,
    ) -> anyhow::Result<Self> {
        let socket = TcpStream::connect(host).await.with_context(|| host.to_owned())?;
        socket.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(socket)).await?;
        let mut tasks = JoinSet::new();
        tasks.spawn(connection);
        Ok(Self { host: host.to_owned(), headers, sender, _connection: tasks })
    }

    /// Asks, and waits for all of the answer.
    pub(crate) async fn ask(
        &mut self,
        method: Method,
        path: &str,
        body: &Value,
    ) -> anyhow::Result<(StatusCode, hyper::HeaderMap, Bytes)> {
        let body = if body.is_null() { Vec::new() } else { serde_json::to_vec(body)? };
        let request = Request::builder().method(method).uri(path).header("host", &self.host);
        let request = request.header("content-type", "application/json");
        let request = self
            .headers
            .iter()
            .fold(request, |request, (name, value)| request.header(*name, value));
        self.sender.ready().await?;
        let answer = self.sender.send_request(request.body(Full::new(Bytes::from(body)))?).await?;
        let (head, body) = answer.into_parts();
        Ok((head.status, head.headers, body.collect().await?.to_bytes()))
    }

    /// The same of something that must be done, with its answer.
    pub(crate) async fn done(
        &mut self,
        method: Method,
        path: &str,
        body: &Value,
    ) -> anyhow::Result<Value> {
        let (status, _, answer) = self.ask(method, path, body).await?;
        let text = String::from_utf8_lossy(&answer);
        ensure!(status.is_success(), "{path} was answered with {status}: {text}");
        if answer.is_empty() { Ok(Value::Null) } else { Ok(serde_json::from_slice(&answer)?) }
    }
}
