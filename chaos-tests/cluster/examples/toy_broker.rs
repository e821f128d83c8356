//! A toy: one node that keeps what it acknowledges in a file. It stands in for `moorline server` in the harness's own
//! tests, so that harness and judge are known to see what they should before they look at the real thing.
//!
//! `TOY_FAULT` plants a fault: `skip-fsync`, `drop` (forgets one message in fifty that it acknowledged), `repeat`
//! (stores one in fifty twice), `swap` (lets one in fifty overtake), `forget` (sessions do not survive a restart).
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, VecDeque};
use std::fs::{File, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use moorline_chaos::mqtt::connection::split;
use moorline_chaos::mqtt::{Connect, Packet, Reader, Version, Writer};
use moorline_oracle::filter;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// Most messages a subscriber holds unacknowledged.
const WINDOW: usize = 32;
/// How many messages overtake one that is held back.
const HELD_FOR: u32 = 6;

/// One line of the file.
#[derive(Serialize, Deserialize)]
enum Line {
    Session(String),
    Subscribe(String, Vec<String>),
    Publish(String, Vec<u8>),
    Acked(String),
}

#[derive(Default)]
struct Session {
    filters: Vec<String>,
    queue: VecDeque<(u64, String, Vec<u8>)>,
    next: u64,
    /// Counts attachments; a connection that is not the last one is taken over.
    attached: u64,
    changed: Arc<Notify>,
    /// A message that others are to overtake: how many still.
    held: Option<(u32, String, Vec<u8>)>,
}

impl Session {
    fn push(&mut self, topic: &str, payload: &[u8]) {
        self.queue.push_back((self.next, topic.to_owned(), payload.to_vec()));
        self.next += 1;
    }
}

struct Broker {
    file: File,
    fault: String,
    sessions: BTreeMap<String, Session>,
    stored: u64,
}

impl Broker {
    fn open(directory: &str) -> Self {
        let fault = std::env::var("TOY_FAULT").unwrap_or_default();
        let path = format!("{directory}/log");
        let mut options = OpenOptions::new();
        let file = options.read(true).append(true).create(true).open(&path).unwrap();
        let (sessions, stored) = (BTreeMap::new(), 0);
        let mut broker = Self { file, fault, sessions, stored };
        let mut whole = 0;
        let mut reader = BufReader::new(File::open(&path).unwrap());
        let mut text = String::new();
        // A torn tail was never acknowledged.
        while reader.read_line(&mut text).is_ok_and(|read| read > 0) {
            let Ok(line) = serde_json::from_str(&text) else { break };
            broker.apply(line);
            whole += text.len() as u64;
            text.clear();
        }
        broker.file.set_len(whole).unwrap();
        broker
    }

    fn keep(&mut self, line: Line, sync: bool) {
        let mut text = serde_json::to_string(&line).unwrap();
        text.push('\n');
        self.file.write_all(text.as_bytes()).unwrap();
        if sync && self.fault != "skip-fsync" {
            self.file.sync_data().unwrap();
        }
        self.apply(line);
    }

    fn apply(&mut self, line: Line) {
        match line {
            Line::Session(client) => _ = self.sessions.entry(client).or_default(),
            Line::Subscribe(client, filters) => {
                self.sessions.entry(client).or_default().filters = filters;
            }
            Line::Publish(topic, payload) => self.store(&topic, &payload),
            Line::Acked(client) => {
                _ = self.sessions.get_mut(&client).and_then(|session| session.queue.pop_front());
            }
        }
    }

    fn store(&mut self, topic: &str, payload: &[u8]) {
        self.stored += 1;
        let planted = self.stored.is_multiple_of(50).then_some(self.fault.as_str());
        let matches = |one: &&mut Session| one.filters.iter().any(|f| filter::matches(f, topic));
        for session in self.sessions.values_mut().filter(matches) {
            match planted {
                Some("drop") => {}
                Some("swap") => session.held = Some((HELD_FOR, topic.to_owned(), payload.to_vec())),
                Some("repeat") => {
                    session.push(topic, payload);
                    session.push(topic, payload);
                }
                Some(_) | None => session.push(topic, payload),
            }
            if let Some((left, topic, payload)) = session.held.take() {
                if left == 0 {
                    session.push(&topic, &payload);
                } else {
                    session.held = Some((left - 1, topic, payload));
                }
            }
            session.changed.notify_one();
        }
    }

    fn digest(&self) -> String {
        let mut hasher = DefaultHasher::new();
        for (name, session) in &self.sessions {
            (name, &session.filters, &session.queue).hash(&mut hasher);
        }
        format!("{:016x}", hasher.finish())
    }
}

type Shared = Arc<Mutex<Broker>>;

async fn client(stream: TcpStream, broker: Shared) -> anyhow::Result<()> {
    let (mut reader, mut writer) = split(stream, Version::V4);
    let Packet::Connect(connect) = reader.next().await? else { return Ok(()) };
    writer.speak(connect.version);
    let (mine, present, changed) = {
        let mut broker = broker.lock().unwrap();
        let known = broker.sessions.contains_key(&connect.client);
        if connect.clean {
            broker.sessions.remove(&connect.client);
        }
        if !known && !connect.clean && broker.fault != "forget" {
            broker.keep(Line::Session(connect.client.clone()), true);
        }
        let session = broker.sessions.entry(connect.client.clone()).or_default();
        session.attached += 1;
        session.changed.notify_waiters();
        session.changed = Arc::new(Notify::new());
        (session.attached, known && !connect.clean, Arc::clone(&session.changed))
    };
    writer.send(&[Packet::ConnAck { present, code: 0, receive_max: 100 }]).await?;
    changed.notify_one();
    serve(&mut reader, &mut writer, &broker, &connect, mine, &changed).await
}

async fn serve(
    reader: &mut Reader,
    writer: &mut Writer,
    broker: &Shared,
    connect: &Connect,
    mine: u64,
    changed: &Notify,
) -> anyhow::Result<()> {
    let window = WINDOW.min(usize::from(connect.receive_max));
    let mut sent = 0;
    loop {
        let packet = tokio::select! {
            packet = reader.next() => Some(packet?),
            () = changed.notified() => None,
        };
        let mut answers = Vec::new();
        {
            let mut broker = broker.lock().unwrap();
            if broker.sessions.get(&connect.client).is_none_or(|one| one.attached != mine) {
                return Ok(());
            }
            match packet {
                Some(Packet::Publish { topic, packet, payload, once, .. }) => {
                    broker.keep(Line::Publish(topic, payload.to_vec()), true);
                    answers.extend(packet.map(|packet| match once {
                        true => Packet::PubRec { packet, reason: 0 },
                        false => Packet::PubAck { packet, reason: 0 },
                    }));
                }
                Some(Packet::PubRel { packet, .. }) => {
                    answers.push(Packet::PubComp { packet, reason: 0 });
                }
                Some(Packet::Subscribe { packet, filters }) => {
                    let codes = vec![1; filters.len()];
                    let line = Line::Subscribe(connect.client.clone(), filters);
                    if broker.fault == "forget" {
                        broker.apply(line);
                    } else {
                        broker.keep(line, true);
                    }
                    answers.push(Packet::SubAck { packet, codes });
                }
                Some(Packet::PubAck { .. }) => {
                    sent -= 1;
                    broker.keep(Line::Acked(connect.client.clone()), false);
                }
                Some(Packet::PingReq) => answers.push(Packet::PingResp),
                Some(Packet::Disconnect { .. }) => return Ok(()),
                Some(other) => anyhow::bail!("a client sent {other:?}"),
                None => {}
            }
            let session = broker.sessions.get_mut(&connect.client).unwrap();
            while sent < window && sent < session.queue.len() {
                let (offset, topic, payload) = &session.queue[sent];
                let packet = u16::try_from(offset % 65_535 + 1).unwrap();
                answers.push(Packet::Publish {
                    topic: topic.clone(),
                    packet: Some(packet),
                    dup: false,
                    once: false,
                    retain: false,
                    payload: Bytes::copy_from_slice(payload),
                });
                sent += 1;
            }
        }
        writer.send(&answers).await?;
    }
}

async fn admin(mut stream: TcpStream, broker: Shared) -> anyhow::Result<()> {
    let mut request = [0; 1024];
    let read = stream.read(&mut request).await?;
    let path = String::from_utf8_lossy(&request[..read]);
    let (digest, index) = {
        let broker = broker.lock().unwrap();
        (broker.digest(), broker.stored)
    };
    let body = if path.contains("/digest ") {
        format!(r#"{{"groups":[{{"shard":0,"index":{index},"digest":"{digest}"}}]}}"#)
    } else if path.contains("/cluster ") {
        format!(
            r#"{{"node":1,"groups":[{{"shard":0,"leader":1,"voters":[1],"digest_index":{index},"digest":"{digest}"}}]}}"#
        )
    } else {
        "{}".to_owned()
    };
    let length = body.len();
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}");
    Ok(stream.write_all(answer.as_bytes()).await?)
}

/// The value of a key in the configuration; good enough for what the harness writes.
fn value(configuration: &str, key: &str) -> String {
    let line = configuration.lines().find(|line| line.starts_with(&format!("{key} = "))).unwrap();
    line.split('"').nth(1).unwrap().to_owned()
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let path = std::env::args().nth(3).unwrap();
    let configuration = std::fs::read_to_string(path)?;
    let address = |key| value(&configuration, key).parse::<SocketAddr>().unwrap();
    let broker = Arc::new(Mutex::new(Broker::open(&value(&configuration, "data-dir"))));
    let clients = TcpListener::bind(address("mqtt")).await?;
    let admins = TcpListener::bind(address("admin")).await?;
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            stream = clients.accept() => {
                tasks.spawn(client(stream?.0, Arc::clone(&broker)));
            }
            stream = admins.accept() => {
                tasks.spawn(admin(stream?.0, Arc::clone(&broker)));
            }
            Some(_) = tasks.join_next() => {}
        }
    }
}
