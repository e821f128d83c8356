//! WebSockets that a platform speaks: who gets one, what is said, and how it ends.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use moorline_http::{
    Answer, Answered, Caller, Conversation, Heard, MESSAGE_BYTES_MAX, Platform, Request,
};
use tokio::{
    io::{AsyncWriteExt, DuplexStream},
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Message, protocol::frame::coding::CloseCode},
};

use crate::harness::{DEADLINE, Server};

const POLICY: u16 = 1008;

/// Says back what it hears, but for `bye`.
#[derive(Debug)]
struct Echo;

struct Talk(Arc<Caller>);

impl Platform for Echo {
    fn claims(&self, _: &str) -> bool {
        true
    }

    fn speaks_websocket(&self, path: &str) -> bool {
        path == "/echo"
    }

    fn meet(&self, caller: Arc<Caller>) -> Box<dyn Conversation> {
        Box::new(Talk(caller))
    }
}

impl Conversation for Talk {
    fn answer(&self, request: Request) -> Answered<'_> {
        let stop = self.0.stop.clone();
        Box::pin(async move {
            let (head, _) = request.split();
            if head.path() != "/echo" {
                return Answer::whole(200, &[], Bytes::from_static(b"plain"));
            }
            Answer::websocket(
                &head,
                Box::new(move |mut socket| {
                    Box::pin(async move {
                        loop {
                            let heard = tokio::select! {
                                heard = socket.hear() => heard,
                                () = stop.cancelled() => return socket.close(1001, "stopping").await,
                            };
                            match heard {
                                Heard::Text(text) if text == "bye" => {
                                    return socket.close(POLICY, "as you say").await;
                                }
                                Heard::Text(text) => assert!(socket.say(text).await),
                                Heard::Bytes => assert!(socket.say("bytes".to_owned()).await),
                                Heard::Upto(_) => {}
                                Heard::Gone => return,
                            }
                        }
                    })
                }),
            )
        })
    }
}

fn echo() -> (Server, DuplexStream) {
    Server::of(vec![Arc::new(Echo)])
}

async fn client(stream: DuplexStream) -> WebSocketStream<DuplexStream> {
    let (client, response) = client_async("ws://h/echo", stream).await.unwrap();
    assert_eq!(response.status(), 101);
    client
}

async fn next(client: &mut WebSocketStream<DuplexStream>) -> Option<Message> {
    timeout(DEADLINE, client.next()).await.unwrap().and_then(Result::ok)
}

/// Status and body of a request that is answered and ends its connection.
async fn ask(request: &str) -> (u16, String) {
    let (server, mut stream) = echo();
    stream.write_all(request.as_bytes()).await.unwrap();
    let answer = server.rest(stream).await;
    let body = answer.split_once("\r\n\r\n").unwrap().1.to_owned();
    (answer.split(' ').nth(1).unwrap().parse().unwrap(), body)
}

fn handshake(path: &str, more: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}\r\n"
    )
}

#[tokio::test]
async fn messages_go_both_ways_until_it_is_over() {
    let (server, stream) = echo();
    let mut client = client(stream).await;
    for text in ["", "one", "ü", &"x".repeat(100_000)] {
        client.send(Message::text(text)).await.unwrap();
        assert_eq!(next(&mut client).await, Some(Message::text(text)));
    }
    client.send(Message::binary(vec![1])).await.unwrap();
    assert_eq!(next(&mut client).await, Some(Message::text("bytes")));
    client.send(Message::Ping(vec![1].into())).await.unwrap();
    assert_eq!(next(&mut client).await, Some(Message::Pong(vec![1].into())));
    client.send(Message::text("bye")).await.unwrap();
    let Some(Message::Close(Some(frame))) = next(&mut client).await else { panic!() };
    assert_eq!((u16::from(frame.code), frame.reason.as_str()), (POLICY, "as you say"));
    server.ends().await;
}

#[tokio::test]
async fn who_leaves_or_breaks_the_rules_is_gone_and_a_stop_is_said() {
    let (server, stream) = echo();
    let mut leaving = client(stream).await;
    leaving.close(None).await.unwrap();
    drop(leaving);
    server.ends().await;

    let (server, stream) = echo();
    let mut large = client(stream).await;
    let said = large.send(Message::text("x".repeat(MESSAGE_BYTES_MAX + 1))).await;
    drop((said, large));
    server.ends().await;

    let (server, stream) = echo();
    let mut stopped = client(stream).await;
    server.stop.cancel();
    let Some(Message::Close(Some(frame))) = next(&mut stopped).await else { panic!() };
    assert_eq!(frame.code, CloseCode::Away);
    server.ends().await;
}

#[tokio::test]
async fn what_is_no_handshake_or_no_place_for_one_is_refused() {
    let plain = "GET /x HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    assert_eq!(ask(plain).await, (200, "plain".to_owned()));
    let elsewhere = ask(&handshake("/x", "")).await;
    assert_eq!(elsewhere, (400, "offer the subprotocol mqtt or mqttv3.1\n".to_owned()));
    let body = handshake("/echo", "Transfer-Encoding: chunked\r\n");
    assert_eq!(ask(&format!("{body}0\r\n\r\n")).await.0, 400);
    let old = handshake("/echo", "").replace("Version: 13", "Version: 8");
    assert_eq!(ask(&old).await.0, 426);
    let unasked = "GET /echo HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    assert_eq!(ask(unasked).await.0, 426);
}
