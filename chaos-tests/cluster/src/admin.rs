//! What a node says of itself over HTTP: readiness, the view of the cluster, digests.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long a node may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(3);
/// How long it may take to make digests: they go through every group's log.
const DIGEST_MAX: Duration = Duration::from_secs(20);
/// Longest answer read, in bytes.
const BODY_BYTES_MAX: usize = 4 << 20;

/// `GET /api/v1/cluster`. Fields the harness has no use for are ignored.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct View {
    /// The cluster's level; 0 if the node is of before there were levels.
    #[serde(default)]
    pub level: u16,
    /// The level above it that every node knows.
    #[serde(default)]
    pub next_level: Option<u16>,
    /// The nodes the cluster knows.
    #[serde(default)]
    pub nodes: Vec<Member>,
    /// The groups this node knows.
    #[serde(default)]
    pub groups: Vec<Group>,
}

/// One node in a [`View`].
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Member {
    /// Its number.
    pub id: u32,
    /// How it stands.
    #[serde(default)]
    pub state: String,
}

/// One Raft group in a [`View`].
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Group {
    /// Which shard.
    pub shard: u32,
    /// Who leads it, if anybody is known to.
    #[serde(default)]
    pub leader: Option<u32>,
    /// In which term.
    #[serde(default)]
    pub term: u64,
    /// Who votes in it.
    #[serde(default)]
    pub voters: Vec<u32>,
    /// Who gets its log and does not vote.
    #[serde(default)]
    pub learners: Vec<u32>,
    /// The log index the last digest was taken at.
    #[serde(default)]
    pub digest_index: Option<u64>,
    /// That digest, hex.
    #[serde(default)]
    pub digest: Option<String>,
}

/// `POST /api/v1/cluster/digest`.
#[derive(Debug, Clone, Deserialize)]
pub struct Digests {
    /// One for each group.
    pub groups: Vec<Digest>,
}

/// A digest of one group.
#[derive(Debug, Clone, Deserialize)]
pub struct Digest {
    /// Which shard.
    pub shard: u32,
    /// The log index it was taken at.
    pub index: u64,
    /// The digest, hex.
    pub digest: String,
}

async fn ask(
    node: SocketAddr,
    method: Method,
    path: &str,
    patience: Duration,
) -> Result<(StatusCode, Bytes)> {
    let exchange = async {
        let stream = TcpStream::connect(node).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", node.to_string())
            .body(Empty::<Bytes>::new())?;
        let answer = async {
            let response = sender.send_request(request).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), BODY_BYTES_MAX).collect().await;
            let body = body.map_err(|error| anyhow::anyhow!("{error}"))?;
            Ok::<_, anyhow::Error>((status, body.to_bytes()))
        };
        tokio::pin!(answer);
        tokio::select! {
            answered = &mut answer => answered,
            ended = connection => {
                ended?;
                // The connection may be done before its answer was looked at.
                answer.await
            }
        }
    };
    timeout(patience, exchange).await.context("no answer in time")?
}

async fn ok(node: SocketAddr, method: Method, path: &str, patience: Duration) -> Result<Bytes> {
    let (status, body) =
        ask(node, method, path, patience).await.with_context(|| format!("{node}{path}"))?;
    if !status.is_success() {
        bail!("{node}{path}: {status}: {}", String::from_utf8_lossy(&body));
    }
    Ok(body)
}

/// Whether a node says that it is alive.
pub async fn is_live(node: SocketAddr) -> bool {
    ok(node, Method::GET, "/health/live", ANSWER_MAX).await.is_ok()
}

/// Whether a node says that it serves.
pub async fn is_ready(node: SocketAddr) -> bool {
    ok(node, Method::GET, "/health/ready", ANSWER_MAX).await.is_ok()
}

/// Makes the cluster. A cluster that is made already is no error.
pub async fn init(node: SocketAddr) -> Result<()> {
    let path = "/api/v1/cluster/init";
    let (status, body) = ask(node, Method::POST, path, DIGEST_MAX).await?;
    if status.is_success() || status == StatusCode::CONFLICT {
        return Ok(());
    }
    bail!("{node}{path}: {status}: {}", String::from_utf8_lossy(&body));
}

/// A node's view of the cluster.
pub async fn view(node: SocketAddr) -> Result<View> {
    let body = ok(node, Method::GET, "/api/v1/cluster", ANSWER_MAX).await?;
    serde_json::from_slice(&body).context("the view of the cluster is not what it should be")
}

/// A node's metrics, as text.
pub async fn metrics(node: SocketAddr) -> Result<String> {
    let body = ok(node, Method::GET, "/metrics", ANSWER_MAX).await?;
    String::from_utf8(body.to_vec()).context("metrics are text")
}

/// A token that lets one node in.
pub async fn token(node: SocketAddr) -> Result<String> {
    #[derive(Deserialize)]
    struct Given {
        token: String,
    }
    let body = ok(node, Method::POST, "/api/v1/cluster/token", DIGEST_MAX).await?;
    let given: Given = serde_json::from_slice(&body).context("a token is not what it should be")?;
    Ok(given.token)
}

/// Asks for a change of how a member stands: `leave` or `remove`.
pub async fn change(node: SocketAddr, verb: &str, member: u32) -> Result<()> {
    let path = format!("/api/v1/cluster/{verb}?node={member}");
    ok(node, Method::POST, &path, DIGEST_MAX).await.map(drop)
}

/// Raises the cluster to the level that every node knows. The level it is at then.
pub async fn upgrade(node: SocketAddr) -> Result<u16> {
    #[derive(Deserialize)]
    struct Raised {
        level: u16,
    }
    let body = ok(node, Method::POST, "/api/v1/cluster/upgrade", DIGEST_MAX).await?;
    let raised: Raised = serde_json::from_slice(&body).context("a level is a number")?;
    Ok(raised.level)
}

/// Has every group take a digest, by a replicated command.
pub async fn digests(node: SocketAddr) -> Result<Digests> {
    let body = ok(node, Method::POST, "/api/v1/cluster/digest", DIGEST_MAX).await?;
    serde_json::from_slice(&body).context("the digests are not what they should be")
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::task::JoinSet;

    use super::*;

    async fn answering(answer: &str) -> (SocketAddr, JoinSet<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answer = answer.to_owned();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            assert!(stream.read(&mut request).await.unwrap() > 0);
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        (address, tasks)
    }

    #[tokio::test]
    async fn a_view_is_read_whatever_else_is_in_it() {
        let body = r#"{"node":1,"nodes":[{"id":1,"alive":true}],"groups":[
            {"shard":0,"leader":2,"term":3,"applied":17,"voters":[1,2,3]},
            {"shard":1,"leader":null,"digest_index":9,"digest":"ab"}]}"#;
        let length = body.len();
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        let answer = format!("{head}{length:x}\r\n{body}\r\n0\r\n\r\n");
        let (node, _tasks) = answering(&answer).await;
        let view = view(node).await.unwrap();
        assert_eq!(view.groups.len(), 2);
        assert_eq!((view.level, view.next_level), (0, None), "a node of before says none");
        assert_eq!((view.groups[0].leader, view.groups[1].leader), (Some(2), None));
        assert_eq!(view.groups[1].digest.as_deref(), Some("ab"));
        assert_eq!(view.groups[1].digest_index, Some(9));
    }

    #[tokio::test]
    async fn readiness_is_two_hundred_and_nothing_else() {
        let table = [
            ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", true),
            ("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 2\r\n\r\n{}", false),
            ("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\ncut", false),
            ("nonsense", false),
        ];
        for (answer, expected) in table {
            let (node, _tasks) = answering(answer).await;
            assert_eq!(is_ready(node).await, expected, "{answer}");
        }
    }

    #[tokio::test]
    async fn a_cluster_that_is_made_already_is_made() {
        let (node, _tasks) = answering("HTTP/1.1 409 Conflict\r\ncontent-length: 0\r\n\r\n").await;
        init(node).await.unwrap();
        let (node, _tasks) = answering("HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n").await;
        init(node).await.unwrap_err();
    }
}
