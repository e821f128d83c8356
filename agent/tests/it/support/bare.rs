//! A server that does nothing for recursive SDKs, as the vendor's may: packets in, packets out, by hand.

use std::{collections::VecDeque, net::SocketAddr};

use bytes::{Bytes, BytesMut};
use moorline_core::{Text, op::MailId};
use moorline_moonlight::{
    Decoder, Packet,
    codec::{Next, Side},
    encode,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

/// It runs until it is dropped.
pub(crate) struct Bare {
    pub(crate) address: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Bare {
    /// With this mail.
    pub(crate) async fn start(mailbox: VecDeque<MailId>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            converse(stream, mailbox).await;
        });
        Self { address, _tasks: tasks }
    }
}

async fn converse(mut stream: TcpStream, mut mailbox: VecDeque<MailId>) {
    let (mut input, mut output) = (BytesMut::new(), BytesMut::new());
    while stream.read_buf(&mut input).await.is_ok_and(|read| read > 0) {
        while let Some(packet) = Decoder::of(Side::Client).decode(&mut input).unwrap() {
            encode(&answer(packet, &mut mailbox), &mut output).unwrap();
        }
        if stream.write_all_buf(&mut output).await.is_err() {
            return;
        }
    }
}

#[allow(clippy::wildcard_enum_match_arm)]
fn answer(packet: Packet, mailbox: &mut VecDeque<MailId>) -> Packet {
    match packet {
        Packet::CloseConnection { .. } => Packet::CloseConnection { from: Side::Server },
        Packet::Connect(_) => {
            Packet::Connected { mail_available: !mailbox.is_empty(), keep_alive: true }
        }
        Packet::Heartbeat => Packet::HeartbeatAck { success: true },
        Packet::MailboxNext { txn, header_only } => {
            let next = mailbox.front().map_or(Next::Empty, |id| Next::Mail {
                size: u16::try_from(mailbox.len()).unwrap(),
                id: *id,
                name: Text::from("m"),
                payload: Bytes::new(),
            });
            Packet::MailboxNextResp { txn, header_only, next }
        }
        Packet::AckMail { id, settlement } => {
            let success = mailbox.pop_front_if(|front| *front == id).is_some();
            let size = u16::try_from(mailbox.len()).unwrap();
            Packet::AckMailResp { success, size, id, settlement }
        }
        other => panic!("{other:?}"),
    }
}
