//! The admin API of a node: health, metrics, the cluster as this node sees it, and what `moorline cluster` asks for.
//!
//! HTTP/1.1 by hyper, on `listen.admin` and `listen.api`. On the first nobody is authenticated but by the API of `node/api`: whoever
//! reaches the port administers the cluster, so it binds to loopback by default. The second speaks TLS and is for other machines: what
//! wants a token, health and metrics.
//!
//! # Invariants
//!
//! - **What needs no token and changes something is not on `listen.api`**, nor what tells of clients. Checked by `tests/it/tls.rs`.
//! - **A stranger waits for nobody**: TLS and the head of a request have deadlines, and an address may have so many connections. Checked below.
//!
//! `/health/live` never looks at peers: a supervisor that restarts nodes because others are down would take the rest of
//! the cluster with it.

use std::{
    collections::HashMap,
    convert::Infallible,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{body::Body, extract::ConnectInfo};
use http_body_util::{BodyExt, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{CONNECTION, CONTENT_TYPE, HeaderValue, TRANSFER_ENCODING},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use moorline_api::Remote;
use moorline_core::{NodeId, ShardId, level::Levels};
use moorline_edge::{Stalling, Tls};
use moorline_machine::MemberState;
use moorline_service::registry::EVENT_READERS_MAX;
use prometheus::{Encoder, TextEncoder};
use serde::Serialize;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use tracing::{debug, info, warn};

use crate::{
    cluster::copies,
    guarantees, logging,
    server::{
        backed_up::Ended,
        backup::Ask,
        join::JoinRequest,
        node::{Check, Node},
    },
};

/// Connections served at once; more wait in the backlog. However many read events, there is room for others.
const CONNECTIONS_MAX: usize = 64 + EVENT_READERS_MAX;
/// Connections of one address, or one /64 of IPv6, to `listen.api`: who reads events from one machine has enough of them, and there is room for others.
const CONNECTIONS_PER_ADDRESS_MAX: usize = 64;
/// What of an IPv6 address is its network's: a /64.
const NETWORK_V6: u128 = u128::MAX << 64;
/// How long a client may take for TLS.
const HANDSHAKE_WAIT: Duration = Duration::from_secs(5);
/// How long a client may take to send its request's head.
const HEAD_WAIT: Duration = Duration::from_secs(5);
/// How long a client may take nothing of what it is sent: one that reads events must not keep its place for nothing.
const STALL_MAX: Duration = Duration::from_secs(30);
/// How long a client may take to send its request's body. Imports have a deadline of their own (`node/api`).
const BODY_WAIT: Duration = Duration::from_secs(10);
/// The largest request body taken; none of ours has one worth mentioning.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// The pause after an accept that failed (no file descriptors left, most likely).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

type Answer = Response<Body>;

/// Serves the admin API until `stop`; with TLS only what is for other machines.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: Option<Tls>,
    node: Arc<Node>,
    stop: CancellationToken,
) {
    info!(address = %address(&listener), tls = tls.is_some(), "admin API listens");
    let seats = Seats::default();
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, peer)) => {
                    let node = Arc::clone(&node);
                    match &tls {
                        None => _ = connections.spawn(connection(stream, peer, node, false)),
                        Some(tls) => match seats.take(peer.ip()) {
                            Some(seat) => {
                                let tls = tls.clone();
                                connections.spawn(secure_connection(stream, peer, tls, node, seat));
                            }
                            None => node.metrics().api_crowded.inc(),
                        },
                    }
                }
                Err(error) => {
                    warn!(%error, "could not accept an admin connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    connections.shutdown().await;
}

fn address(listener: &TcpListener) -> SocketAddr {
    listener.local_addr().expect("a bound listener has an address")
}

/// Whose connections are counted together: of IPv6 a network, which one machine may have all addresses of.
fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & NETWORK_V6).into(),
    }
}

/// How many connections each address has.
#[derive(Debug, Clone, Default)]
struct Seats(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// One of them; given back when it is dropped.
struct Seat {
    seats: Seats,
    address: IpAddr,
}

impl Seats {
    fn with<R>(&self, change: impl FnOnce(&mut HashMap<IpAddr, usize>) -> R) -> R {
        // Every change is complete before anything can panic.
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn take(&self, address: IpAddr) -> Option<Seat> {
        let address = source(address);
        let taken = self.with(|seats| {
            let count = seats.entry(address).or_default();
            let free = *count < CONNECTIONS_PER_ADDRESS_MAX;
            *count += usize::from(free);
            free
        });
        taken.then(|| Seat { seats: self.clone(), address })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.with(|seats| {
            if let Some(count) = seats.get_mut(&self.address) {
                *count -= 1;
                if *count == 0 {
                    seats.remove(&self.address);
                }
            }
        });
    }
}

async fn secure_connection(
    stream: TcpStream,
    peer: SocketAddr,
    tls: Tls,
    node: Arc<Node>,
    _seat: Seat,
) {
    match timeout(HANDSHAKE_WAIT, tls.secure(stream)).await {
        Ok(Ok(stream)) => connection(stream, peer, node, true).await,
        Ok(Err(error)) => {
            node.metrics().api_tls_failed.inc();
            debug!(%peer, %error, "TLS handshake with the API failed");
        }
        Err(_) => node.metrics().api_tls_late.inc(),
    }
}

async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send,
    peer: SocketAddr,
    node: Arc<Node>,
    remote: bool,
) {
    let serving = Arc::clone(&node);
    let service = service_fn(move |mut request: Request<Incoming>| {
        let node = Arc::clone(&serving);
        request.extensions_mut().insert(ConnectInfo(peer));
        if remote {
            request.extensions_mut().insert(Remote);
        }
        // What a proxy in front takes for the end of the body may be another place: then nothing behind it is a request.
        let ends = request.headers().contains_key(TRANSFER_ENCODING);
        async move {
            let mut answer = match node.api().filter(|_| is_of_api(request.uri().path())) {
                Some(api) => {
                    api.oneshot(request.map(Body::new)).await.unwrap_or_else(|no| match no {})
                }
                None if remote && !is_for_others(&request) => elsewhere(request.uri().path()),
                None => answer(&node, request).await,
            };
            if ends {
                answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            node.metrics().answered(answer.status());
            Ok::<_, Infallible>(answer)
        }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WAIT)
        .serve_connection(TokioIo::new(Stalling::new(stream, STALL_MAX)), service)
        .await;
    if let Err(error) = served {
        if error.is_parse() || error.is_timeout() {
            node.metrics().malformed();
        }
        debug!(%error, "an admin connection ended badly");
    }
}

/// What `node/api` answers.
fn is_of_api(path: &str) -> bool {
    const PARTS: [&str; 12] = [
        "audit",
        "tenants",
        "devices",
        "events",
        "consumers",
        "tokens",
        "webhooks",
        "mail",
        "messages",
        "provision",
        "provisioning-keys",
        "openapi.json",
    ];
    let part = path.strip_prefix("/api/v1/").and_then(|rest| rest.split('/').next());
    part.is_some_and(|part| PARTS.contains(&part))
}

/// What anybody may know who reaches `listen.api`.
fn is_for_others(request: &Request<Incoming>) -> bool {
    let path = request.uri().path();
    path.starts_with("/health/") || matches!(path, "/livez" | "/readyz" | "/metrics")
}

fn elsewhere(path: &str) -> Answer {
    if is_known(path) {
        let detail = "only on the node's own machine: ask listen.admin";
        return problem(StatusCode::NOT_FOUND, "not-here", detail);
    }
    if is_of_api(path) {
        let detail = "this node has no security.key-file, so it knows no tenants and no tokens";
        return problem(StatusCode::NOT_FOUND, "not-here", detail);
    }
    problem(StatusCode::NOT_FOUND, "not-found", "there is nothing at this path")
}

async fn answer(node: &Node, request: Request<Incoming>) -> Answer {
    let (head, body) = request.into_parts();
    let read = timeout(BODY_WAIT, Limited::new(body, BODY_BYTES_MAX).collect()).await;
    let Ok(Ok(body)) = read else {
        return problem(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too-large",
            "the body is too large or broke off",
        );
    };
    if head.method == Method::POST
        && let Some(verb) = head.uri.path().strip_prefix("/api/v1/cluster/")
        && MEMBERSHIP.contains(&verb)
    {
        let query = head.uri.query().unwrap_or("");
        return membership(node, verb, query, &body.to_bytes()).await;
    }
    if let Some(part) = backup_part(&head.method, head.uri.path()) {
        return backup(node, part, head.uri.query().unwrap_or(""), &body.to_bytes()).await;
    }
    match (&head.method, head.uri.path()) {
        (&Method::GET, "/health/live" | "/livez") => health(node.live().await),
        (&Method::GET, "/health/ready" | "/readyz") => health(node.readiness()),
        (&Method::GET, "/health/startup") => health(node.startup()),
        (&Method::GET, "/metrics") => metrics(node),
        (&Method::GET, "/api/v1/cluster") => json(StatusCode::OK, &node.view()),
        (&Method::GET, "/api/v1/guarantees") => json(StatusCode::OK, &guarantees::of(&node.view())),
        (&Method::GET, "/api/v1/config") => {
            json(StatusCode::OK, &node.reloading().running().shown())
        }
        (&Method::POST, "/api/v1/config/reload") => match node.reload() {
            Ok(changes) => json(StatusCode::OK, &changes),
            Err(error) => problem(StatusCode::CONFLICT, "not-reloaded", &error.to_string()),
        },
        (&Method::POST, "/api/v1/log/level") => log_level(head.uri.query().unwrap_or("")),
        (&Method::GET, "/api/v1/sessions") => stale(session(node, head.uri.query().unwrap_or(""))),
        (&Method::GET, "/api/v1/shares") => stale(shares(node, head.uri.query().unwrap_or(""))),
        (&Method::GET, "/api/v1/stale/tenants") => {
            let after = said(head.uri.query().unwrap_or(""), "after").unwrap_or_default();
            stale(json(StatusCode::OK, &node.stale_tenants(&after)))
        }
        (&Method::GET, "/api/v1/stale/device") => {
            stale(stale_device(node, head.uri.query().unwrap_or("")))
        }
        (&Method::POST, "/api/v1/cluster/init") => match node.init().await {
            Ok(()) => json(StatusCode::OK, &serde_json::json!({ "made": true })),
            Err(error) => problem(StatusCode::CONFLICT, "not-made", &format!("{error:#}")),
        },
        (&Method::POST, "/api/v1/cluster/digest") => match node.digest().await {
            Ok(groups) => json(StatusCode::OK, &serde_json::json!({ "groups": groups })),
            Err(error) => {
                problem(StatusCode::SERVICE_UNAVAILABLE, "no-digest", &format!("{error:#}"))
            }
        },
        (_, path) if is_known(path) => {
            problem(StatusCode::METHOD_NOT_ALLOWED, "method", "another method is wanted here")
        }
        (_, path) => elsewhere(path),
    }
}

/// Every path, so that a wrong method is told from a wrong path.
const KNOWN: [&str; 17] = [
    "/health/live",
    "/health/ready",
    "/health/startup",
    "/livez",
    "/readyz",
    "/metrics",
    "/api/v1/cluster",
    "/api/v1/cluster/init",
    "/api/v1/cluster/digest",
    "/api/v1/config",
    "/api/v1/config/reload",
    "/api/v1/guarantees",
    "/api/v1/log/level",
    "/api/v1/sessions",
    "/api/v1/shares",
    "/api/v1/stale/tenants",
    "/api/v1/stale/device",
];

/// `?set=…`: what is logged from now on.
fn log_level(query: &str) -> Answer {
    let mut pairs = form_urlencoded::parse(query.as_bytes());
    let Some((_, level)) = pairs.find(|(key, _)| key == "set") else {
        return problem(StatusCode::BAD_REQUEST, "level", "?set=… says what is to be logged");
    };
    match logging::set_level(&level) {
        Ok(()) => {
            warn!(filter = %level, "what is logged was changed");
            json(StatusCode::OK, &serde_json::json!({ "level": level }))
        }
        Err(why) => problem(StatusCode::BAD_REQUEST, "level", &why),
    }
}

/// What of a backup is asked for, under `/api/v1/backup/`.
const BACKUP: [(Method, &str); 4] = [
    (Method::POST, "begin"),
    (Method::POST, "next"),
    (Method::GET, "piece"),
    (Method::POST, "ended"),
];

fn backup_part(method: &Method, path: &str) -> Option<&'static str> {
    let part = path.strip_prefix("/api/v1/backup/")?;
    BACKUP.iter().find(|known| (&known.0, known.1) == (method, part)).map(|known| known.1)
}

/// How a backup ended, for the metrics of this node.
fn backup_ended(node: &Node, body: &[u8]) -> Answer {
    let Ok(ended) = serde_json::from_slice::<Ended>(body) else {
        let detail = "what `moorline backup create` says at its end is wanted";
        return problem(StatusCode::BAD_REQUEST, "malformed", detail);
    };
    match node.metrics().backups.ended(&ended) {
        Ok(()) => json(StatusCode::OK, &ended),
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, "not-kept", &format!("{error:#}")),
    }
}

/// `?group=…`, and from what `begin` answered `&node=…&session=…`: rows of a group, piece by piece.
async fn backup(node: &Node, part: &str, query: &str, body: &[u8]) -> Answer {
    if part == "ended" {
        return backup_ended(node, body);
    }
    let number = |name: &str| {
        let mut pairs = form_urlencoded::parse(query.as_bytes());
        pairs.find(|(key, _)| key == name)?.1.parse::<u64>().ok()
    };
    let group = number("group").and_then(|group| u16::try_from(group).ok()).map(ShardId);
    let Some(group) = group else {
        return problem(StatusCode::BAD_REQUEST, "group", "?group=… says which group is meant");
    };
    if part == "begin" {
        return match node.begin_rows(group).await {
            Ok(begun) => respond(StatusCode::OK, "application/json", begun.to_vec()),
            Err(error) => {
                problem(StatusCode::SERVICE_UNAVAILABLE, "no-rows", &format!("{error:#}"))
            }
        };
    }
    let (Some(leader), Some(session)) = (number("node"), number("session")) else {
        let detail = "node=… and session=… are what `begin` answered";
        return problem(StatusCode::BAD_REQUEST, "session", detail);
    };
    let (ask, content_type) = match part {
        "next" => (Ask::Next { session }, "application/json"),
        _ => (Ask::Piece { session }, "application/octet-stream"),
    };
    match node.ask_for_rows(group, NodeId(leader), &ask).await {
        // Empty: there are no more.
        Ok(answer) => respond(StatusCode::OK, content_type, answer.to_vec()),
        Err(error) => problem(StatusCode::SERVICE_UNAVAILABLE, "no-rows", &error.to_string()),
    }
}

/// What can be asked about membership, under `/api/v1/cluster/`.
const MEMBERSHIP: [&str; 9] =
    ["token", "join", "leave", "drain", "resume", "remove", "replicas", "transfer", "upgrade"];

fn is_known(path: &str) -> bool {
    let verb = path.strip_prefix("/api/v1/cluster/");
    let part = path.strip_prefix("/api/v1/backup/");
    KNOWN.contains(&path)
        || verb.is_some_and(|verb| MEMBERSHIP.contains(&verb))
        || part.is_some_and(|part| BACKUP.iter().any(|known| known.1 == part))
}

async fn membership(node: &Node, verb: &str, query: &str, body: &[u8]) -> Answer {
    let number = |name: &str| {
        let mut pairs = form_urlencoded::parse(query.as_bytes());
        let value = pairs.find(|(key, _)| key == name)?.1;
        value.parse::<u64>().ok()
    };
    let state = match verb {
        "token" => {
            return done(node.token().await.map(|token| serde_json::json!({ "token": token })));
        }
        "join" => {
            let said = |name: &str| number(name).and_then(|level| u16::try_from(level).ok());
            let levels = said("level-min").zip(said("level-max"));
            // Who says nothing is of before there were levels.
            let levels = levels.map_or(Levels::SILENT, |(min, max)| Levels { min, max });
            return join(node, body, levels).await;
        }
        "replicas" => return replicas(node, query).await,
        "upgrade" => {
            let raised = node.upgrade().await;
            return done(raised.map(|level| serde_json::json!({ "level": level })));
        }
        "transfer" => {
            let group = number("group").and_then(|group| u16::try_from(group).ok());
            let (Some(group), Some(to)) = (group, number("to")) else {
                return problem(StatusCode::BAD_REQUEST, "transfer", "?group=…&to=… is wanted");
            };
            let moved = node.transfer(group, to).await;
            return done(moved.map(|()| serde_json::json!({ "done": true })));
        }
        "leave" => MemberState::Leaving,
        "drain" => MemberState::Draining,
        "resume" => MemberState::Active,
        _ => MemberState::Removed,
    };
    let Some(id) = number("node") else {
        return problem(StatusCode::BAD_REQUEST, "node", "?node=… says which node is meant");
    };
    done(node.set_member(id, state).await.map(|()| serde_json::json!({ "done": true })))
}

/// `?copies=…`: how many copies each shard is to have.
async fn replicas(node: &Node, query: &str) -> Answer {
    let Some(wanted) = said(query, "copies") else {
        return problem(StatusCode::BAD_REQUEST, "copies", "?copies=… says how many are wanted");
    };
    match copies(&wanted) {
        Ok(copies) => done(node.set_replicas(copies).await.map(
            |detail| serde_json::json!({ "done": true, "replicas": copies, "detail": detail }),
        )),
        Err(why) => problem(StatusCode::BAD_REQUEST, "copies", &why),
    }
}

fn done(outcome: anyhow::Result<serde_json::Value>) -> Answer {
    match outcome {
        Ok(value) => json(StatusCode::OK, &value),
        Err(error) => problem(StatusCode::CONFLICT, "not-done", &format!("{error:#}")),
    }
}

async fn join(node: &Node, body: &[u8], levels: Levels) -> Answer {
    let request: JoinRequest = match serde_json::from_slice(body) {
        Ok(request) => request,
        Err(error) => return problem(StatusCode::BAD_REQUEST, "join", &error.to_string()),
    };
    match node.let_in(&request, levels).await {
        Ok(Ok(answer)) => json(StatusCode::OK, &answer),
        Ok(Err(why)) => problem(StatusCode::FORBIDDEN, "not-let-in", &why),
        Err(error) => problem(StatusCode::SERVICE_UNAVAILABLE, "not-now", &format!("{error:#}")),
    }
}

fn health(checks: Vec<Check>) -> Answer {
    let ok = checks.iter().all(|check| check.ok);
    let status = if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    json(status, &serde_json::json!({ "status": if ok { "ok" } else { "fail" }, "checks": checks }))
}

/// What the query says under a name.
fn said(query: &str, wanted: &str) -> Option<String> {
    let mut all = form_urlencoded::parse(query.as_bytes());
    all.find(|(name, _)| name == wanted).map(|(_, value)| value.into_owned())
}

/// Says of an answer that nobody was asked whether it is what there is.
fn stale(mut answer: Answer) -> Answer {
    answer.headers_mut().insert("moorline-consistency", HeaderValue::from_static("stale"));
    answer
}

/// `?tenant=…&device=…`: a device as a replica here has it.
fn stale_device(node: &Node, query: &str) -> Answer {
    let (Some(tenant), Some(device)) = (said(query, "tenant"), said(query, "device")) else {
        return problem(StatusCode::BAD_REQUEST, "device", "?tenant=…&device=… is wanted");
    };
    match node.stale_device(&tenant, &device) {
        Ok(Some(view)) => json(StatusCode::OK, &view),
        Ok(None) => problem(StatusCode::NOT_FOUND, "not-found", "no such device is known here"),
        Err(error) => problem(StatusCode::SERVICE_UNAVAILABLE, "no-replica", &format!("{error:#}")),
    }
}

/// `?client=…`: one session.
fn session(node: &Node, query: &str) -> Answer {
    let Some(client) = said(query, "client") else {
        return problem(StatusCode::BAD_REQUEST, "client", "?client=… says whose session is meant");
    };
    match node.session(said(query, "tenant").as_deref(), &client) {
        Ok(Some(view)) => json(StatusCode::OK, &view),
        Ok(None) => problem(StatusCode::NOT_FOUND, "no-session", "no such session is known here"),
        Err(error) => problem(StatusCode::SERVICE_UNAVAILABLE, "no-replica", &format!("{error:#}")),
    }
}

/// `?after=…`: the next page behind a share's id.
fn shares(node: &Node, query: &str) -> Answer {
    let after = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "after");
    json(StatusCode::OK, &node.shares(after.as_ref().map(|(_, after)| after.as_ref())))
}

fn metrics(node: &Node) -> Answer {
    let mut text = Vec::new();
    let encoder = TextEncoder::new();
    match encoder.encode(&node.gather(), &mut text) {
        Ok(()) => respond(StatusCode::OK, encoder.format_type(), text),
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, "metrics", &error.to_string()),
    }
}

fn json(status: StatusCode, value: &impl Serialize) -> Answer {
    let body = serde_json::to_vec(value).expect("our answers are maps with string keys");
    respond(status, "application/json", body)
}

/// An error as RFC 9457 asks for.
fn problem(status: StatusCode, code: &str, detail: &str) -> Answer {
    let body = serde_json::json!({
        "status": status.as_u16(), "code": code, "title": status.canonical_reason(), "detail": detail
    });
    respond(status, "application/problem+json", body.to_string().into_bytes())
}

fn respond(status: StatusCode, content_type: &str, body: Vec<u8>) -> Answer {
    Response::builder()
        .status(status)
        .header(CONTENT_TYPE, content_type)
        .body(Body::from(body))
        .expect("a status, a known header and a body")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_of_ipv6_has_the_seats_of_one_address() {
        let seats = Seats::default();
        let take = |address: &str| seats.take(address.parse().unwrap());
        let taken: Vec<_> = (0..CONNECTIONS_PER_ADDRESS_MAX)
            .map(|at| take(&format!("2001:db8:0:1::{at:x}")).unwrap())
            .collect();
        assert!(take("2001:db8:0:1:ffff::1").is_none());
        assert!(take("2001:db8:0:2::1").is_some());
        assert!(take("192.0.2.1").is_some() && take("::ffff:192.0.2.2").is_some());
        drop(taken);
        assert!(take("2001:db8:0:1:ffff::1").is_some());
        assert!(seats.with(|seats| seats.is_empty()));
    }

    #[test]
    fn every_path_of_the_document_is_of_the_api() {
        let document = include_str!("../../../docs/openapi.json");
        let document: serde_json::Value = serde_json::from_str(document).unwrap();
        let paths = document["paths"].as_object().unwrap();
        assert!(paths.contains_key("/api/v1/messages/{message}/explain"));
        let missing: Vec<_> = paths.keys().filter(|path| !is_of_api(path)).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }
}
