//! Whose a request is, and how its connection ends.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use futures_util::stream;
use moorline_http::{Answer, Answered, Caller, Conversation, Platform, Request, Unread};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    sync::Notify,
    time::timeout,
};

use crate::harness::{DEADLINE, Server};

const BODY_BYTES_MAX: usize = 8;

/// Answers below its path: with how many requests the connection had, its body (whole, or part by part), a stream, or when the node stops.
#[derive(Debug)]
struct Below(&'static str, Arc<Notify>);

struct Talk {
    caller: Arc<Caller>,
    /// Told of a request that waits, and of each part of a body.
    waits: Arc<Notify>,
    requests: AtomicUsize,
}

impl Platform for Below {
    fn claims(&self, path: &str) -> bool {
        path.starts_with(self.0)
    }

    fn meet(&self, caller: Arc<Caller>) -> Box<dyn Conversation> {
        Box::new(Talk { caller, waits: Arc::clone(&self.1), requests: AtomicUsize::new(0) })
    }
}

impl Conversation for Talk {
    fn answer(&self, request: Request) -> Answered<'_> {
        Box::pin(async move {
            let (head, mut body) = request.split();
            let which = self.requests.fetch_add(1, Ordering::Relaxed);
            let whole = |status, text: String| Answer::whole(status, &[], Bytes::from(text));
            match head.path().rsplit('/').next().unwrap() {
                "refused" => {
                    let close = [("connection", "close".to_owned())];
                    Answer::whole(403, &close, Bytes::new())
                }
                "body" => match body.read(BODY_BYTES_MAX).await {
                    Ok(body) => Answer::whole(200, &[], body),
                    Err(Unread::TooLarge) => whole(413, String::new()),
                    Err(Unread::BrokeOff) => whole(400, String::new()),
                },
                "parts" => {
                    let mut all = Vec::new();
                    loop {
                        match body.part().await {
                            Ok(Some(part)) => {
                                all.extend(part);
                                self.waits.notify_one();
                            }
                            Ok(None) => break Answer::whole(200, &[], Bytes::from(all)),
                            Err(Unread::BrokeOff | Unread::TooLarge) => {
                                break whole(400, String::new());
                            }
                        }
                    }
                }
                "stream" => {
                    let parts = ["one ", "two"].map(|part| Bytes::from_static(part.as_bytes()));
                    Answer::stream(200, &[], stream::iter(parts))
                }
                "wait" => {
                    self.waits.notify_one();
                    self.caller.stop.cancelled().await;
                    whole(200, "stopping".to_owned())
                }
                _ => whole(200, format!("{} {:?} {which}", head.method(), head.query())),
            }
        })
    }
}

/// A client of a listener with two platforms, of which the first has part of what the second would have.
struct Client {
    stream: DuplexStream,
    server: Server,
    waits: Arc<Notify>,
}

impl Client {
    fn new() -> Self {
        let waits = Arc::new(Notify::new());
        let below = |path| Arc::new(Below(path, Arc::clone(&waits))) as Arc<dyn Platform>;
        let (server, stream) = Server::of(vec![below("/api/one/"), below("/api/")]);
        Self { stream, server, waits }
    }

    async fn say(&mut self, request: &str) {
        self.stream.write_all(request.as_bytes()).await.unwrap();
    }

    /// Says it; status and body of an answer with a length.
    async fn ask(&mut self, request: &str) -> (u16, String) {
        self.say(request).await;
        self.answer().await
    }

    async fn answer(&mut self) -> (u16, String) {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            let byte = timeout(DEADLINE, self.stream.read_u8()).await.unwrap().unwrap();
            head.push(char::from(byte));
        }
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let length = head.split_once("content-length: ").map(|(_, rest)| rest.lines().next());
        let length = length.flatten().map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; length];
        timeout(DEADLINE, self.stream.read_exact(&mut body)).await.unwrap().unwrap();
        (status, String::from_utf8(body).unwrap())
    }

    /// All that still comes, until the other side closes.
    async fn rest(self) -> String {
        self.server.rest(self.stream).await
    }
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: h\r\n\r\n")
}

#[tokio::test]
async fn who_claims_a_path_first_answers_and_knows_its_connection() {
    let mut client = Client::new();
    #[rustfmt::skip]
    let table = [
        ("/api/one/a",     200, "GET None 0"),
        ("/api/two?q=1",   200, "GET Some(\"q=1\") 0"),
        ("/api/one/a",     200, "GET None 1"),
        ("/nobody",        404, ""),
        ("/api/two",       200, "GET None 1"),
    ];
    for (path, status, body) in table {
        assert_eq!(client.ask(&get(path)).await, (status, body.to_owned()), "{path}");
    }
    let mut other = Client::new();
    assert_eq!(other.ask(&get("/api/one/a")).await.1, "GET None 0", "another connection");
}

#[tokio::test]
async fn a_body_is_read_up_to_its_limit() {
    for (body, status) in [("", 200), ("12345678", 200), ("123456789", 413)] {
        let request = format!(
            "POST /api/body HTTP/1.1\r\nhost: h\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        assert_eq!(Client::new().ask(&request).await.0, status, "{body:?}");
    }
}

#[tokio::test]
async fn a_body_is_had_part_by_part() {
    let mut client = Client::new();
    client.say("POST /api/parts HTTP/1.1\r\nhost: h\r\ncontent-length: 20\r\n\r\n").await;
    for part in ["0123456789", "abcdefghij"] {
        client.say(part).await;
        // It is there before the next one has come.
        timeout(DEADLINE, client.waits.notified()).await.unwrap();
    }
    assert_eq!(client.answer().await, (200, "0123456789abcdefghij".to_owned()));
    client.say("POST /api/parts HTTP/1.1\r\nhost: h\r\ncontent-length: 0\r\n\r\n").await;
    assert_eq!(client.answer().await, (200, String::new()));
}

#[tokio::test]
async fn a_refusal_reaches_who_sends_a_body_that_nobody_reads() {
    let mut client = Client::new();
    let body = "x".repeat(100_000);
    let head =
        format!("POST /api/refused HTTP/1.1\r\nhost: h\r\ncontent-length: {}\r\n\r\n", body.len());
    client.say(&head).await;
    client.say(&body).await;
    assert!(client.rest().await.starts_with("HTTP/1.1 403 "));
}

#[tokio::test]
async fn behind_a_body_without_a_length_nothing_is_a_request() {
    let mut client = Client::new();
    let chunked = "POST /api/body HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n";
    client.say(&format!("{chunked}{}", get("/api/behind"))).await;
    let rest = client.rest().await;
    assert_eq!(rest.matches("HTTP/1.1 ").count(), 1, "{rest}");
    assert!(rest.contains("connection: close") && rest.ends_with("ab"), "{rest}");
}

#[tokio::test]
async fn an_answer_may_come_in_parts() {
    let mut client = Client::new();
    client.say("GET /api/stream HTTP/1.0\r\nhost: h\r\n\r\n").await;
    assert!(client.rest().await.ends_with("one two"));
}

#[tokio::test]
async fn a_stop_is_heard_by_who_waits_and_ends_the_connection() {
    let mut client = Client::new();
    client.say(&get("/api/wait")).await;
    timeout(DEADLINE, client.waits.notified()).await.unwrap();
    client.server.stop.cancel();
    let rest = client.rest().await;
    assert!(rest.ends_with("stopping"), "{rest}");
}
