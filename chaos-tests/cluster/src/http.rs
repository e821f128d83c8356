//! Requests over HTTP/1.1 to the nodes: the API, and Fostrom's devices. Connections are kept and used again, by whomever: a node
//! has to tell devices apart on one connection.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use moorline_oracle::Phase;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::probe::Probe;

/// How long a node may take to answer: longer than it waits for a shard itself.
pub const ANSWER_MAX: Duration = Duration::from_secs(8);
/// How long a connection may take to be there. One that vanishes is asked for again by the kernel after a second.
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// Longest answer read, in bytes.
const BODY_BYTES_MAX: usize = 4 << 20;
/// Most connections kept to one node.
const IDLE_MAX: usize = 16;

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// The body as JSON; null if it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// What went wrong, for people.
    pub fn words(&self) -> String {
        /// How much of a body is quoted, in characters.
        const QUOTED_MAX: usize = 120;
        let text = String::from_utf8_lossy(&self.body);
        format!("{}: {}", self.status, text.chars().take(QUOTED_MAX).collect::<String>())
    }
}

/// What is asked of a node.
#[derive(Debug, Clone)]
pub struct Question {
    /// GET, POST, …
    pub method: Method,
    /// With the query.
    pub path: String,
    /// Besides host and content type.
    pub headers: Vec<(&'static str, String)>,
    /// JSON, or nothing.
    pub body: Option<serde_json::Value>,
}

type Sender = SendRequest<Full<Bytes>>;

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum AskError {
    /// There was no connection: nothing was asked.
    #[error("not asked: {0:#}")]
    NotAsked(anyhow::Error),
    /// It was asked; what became of it is not known.
    #[error("unknown: {0:#}")]
    Unknown(anyhow::Error),
}

impl AskError {
    /// What that says of an effect.
    pub fn phase(&self) -> Phase {
        match self {
            Self::NotAsked(_) => Phase::Fail,
            Self::Unknown(_) => Phase::Info,
        }
    }
}

/// Connections to nodes. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Http {
    idle: Arc<Mutex<BTreeMap<SocketAddr, Vec<Sender>>>>,
    /// Owns the tasks that move the connections' bytes; they end with their connections.
    tasks: TaskTracker,
    /// Who asks in our place, from inside a node's network.
    probe: Option<Arc<Probe>>,
}

impl Http {
    /// Has a probe ask; whatever the address, it asks its own node.
    pub fn through(probe: Arc<Probe>) -> Self {
        Self { probe: Some(probe), ..Self::default() }
    }

    /// Asks, and waits for the whole answer.
    pub async fn ask(&self, node: SocketAddr, question: &Question) -> Result<Answer, AskError> {
        if let Some(probe) = &self.probe {
            return probe.ask(question).await;
        }
        let mut sender = match self.idle(node) {
            Some(sender) => sender,
            None => self.connect(node).await.map_err(AskError::NotAsked)?,
        };
        let request = request(node, question).map_err(AskError::NotAsked)?;
        let exchange = async {
            let response = sender.send_request(request).await?;
            let status = response.status().as_u16();
            let body = Limited::new(response.into_body(), BODY_BYTES_MAX).collect().await;
            let body = body.map_err(|error| anyhow!("{error}"))?.to_bytes();
            Ok::<_, anyhow::Error>(Answer { status, body })
        };
        let answer = timeout(ANSWER_MAX, exchange).await.context("no answer in time");
        let answer = answer.flatten().map_err(AskError::Unknown)?;
        self.keep(node, sender);
        Ok(answer)
    }

    fn idle(&self, node: SocketAddr) -> Option<Sender> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = idle.get_mut(&node)?;
        while let Some(sender) = kept.pop() {
            if sender.is_ready() {
                return Some(sender);
            }
        }
        None
    }

    fn keep(&self, node: SocketAddr, sender: Sender) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = idle.entry(node).or_default();
        if kept.len() < IDLE_MAX {
            kept.push(sender);
        }
    }

    async fn connect(&self, node: SocketAddr) -> Result<Sender> {
        let stream =
            timeout(CONNECT_MAX, TcpStream::connect(node)).await.context("no connection")??;
        stream.set_nodelay(true)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // It ends when its sender is dropped or the node is gone; what went wrong the sender hears.
        self.tasks.spawn(async move { drop(connection.await) });
        sender.ready().await?;
        Ok(sender)
    }

    /// Drops what is kept.
    pub fn close(&self) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

fn request(node: SocketAddr, question: &Question) -> Result<Request<Full<Bytes>>> {
    let mut request = Request::builder()
        .method(question.method.clone())
        .uri(&question.path)
        .header(HOST, node.to_string());
    for (name, value) in &question.headers {
        request = request.header(*name, value);
    }
    let body = match &question.body {
        Some(body) => {
            request = request.header(CONTENT_TYPE, "application/json");
            serde_json::to_vec(body)?
        }
        None => Vec::new(),
    };
    Ok(request.body(Full::new(body.into()))?)
}
