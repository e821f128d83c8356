//! `test-conn`: whether nodes answer, without saying who asks. A goodbye as the first packet is answered by one.

use std::{io, time::Duration};

use bytes::BytesMut;
use moorline_moonlight::{Decoder, Packet, codec::Side, encode};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, timeout},
};

use crate::{
    config::{NodeAddress, Reach},
    failed::Failed,
    uplink::Dial,
};

/// How long a node may take to answer: as long as to a Connect.
const ANSWER_DEADLINE: Duration =
    Duration::from_millis(moorline_moonlight::client::CONNECT_DEADLINE_MS);

/// Asks every node. What to print; a failure if none answers.
pub(crate) fn test_connection() -> Result<String, Failed> {
    let reach = Reach::from_env()?;
    let dial = Dial::new(&reach.security)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failed::new("failed", error))?;
    let mut lines = Vec::new();
    let mut answered = false;
    for node in &reach.nodes {
        let began = Instant::now();
        match runtime.block_on(ask(&dial, node)) {
            Ok(()) => {
                answered = true;
                lines.push(format!("ok: {node} answered in {} ms", began.elapsed().as_millis()));
            }
            Err(error) => lines.push(format!("connect_failed: {node}: {error}")),
        }
    }
    let text = lines.join("\n");
    runtime.shutdown_background();
    if answered {
        return Ok(text);
    }
    // The code stands in each line already.
    let text = text.strip_prefix("connect_failed: ").unwrap_or(&text);
    Err(Failed::new("connect_failed", text))
}

async fn ask(dial: &Dial, node: &NodeAddress) -> io::Result<()> {
    let mut socket = dial.dial(node).await?;
    let mut bytes = BytesMut::new();
    encode(&Packet::CloseConnection { from: Side::Client }, &mut bytes)
        .map_err(io::Error::other)?;
    let exchange = async {
        socket.write_all(&bytes).await?;
        socket.flush().await?;
        bytes.clear();
        loop {
            if socket.read_buf(&mut bytes).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            match Decoder::of(Side::Server).decode(&mut bytes).map_err(io::Error::other)? {
                Some(Packet::CloseConnection { .. }) => return Ok(()),
                Some(_) => return Err(io::Error::other("it does not say goodbye")),
                None => {}
            }
        }
    };
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, "it does not answer");
    timeout(ANSWER_DEADLINE, exchange).await.map_err(late)?
}
