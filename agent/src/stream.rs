//! An event stream: what happens to the uplink and the mailbox, as the SDKs' parsers want it.
//!
//! A stream that takes nothing for [`SOCKET_DEADLINE`] is closed: its SDK has been in a handler for hours, finds the end when
//! it is back, and begins a new one with the state as it is then.

use std::time::Duration;

use bytes::Bytes;
use moorline_dialects::fostrom::sse;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split},
    time::{sleep, timeout},
};

use crate::{
    api::stream_head,
    clock::unix_ms,
    serve::{Agent, SOCKET_DEADLINE},
    uplink::Event,
};

/// How long a stream may be silent.
const KEEP_ALIVE: Duration = Duration::from_millis(sse::KEEP_ALIVE_MS);
/// What is read, and ignored, at once: nothing is expected.
const READ_BYTES: usize = 256;

/// Writes events until somebody leaves or the agent stops.
pub(crate) async fn stream<S: AsyncRead + AsyncWrite>(socket: S, agent: &Agent) {
    let (mut input, mut output) = split(socket);
    let mut events = agent.uplink.events();
    let mut bytes = stream_head(agent.standing());
    let mut ignored = [0; READ_BYTES];
    loop {
        match timeout(SOCKET_DEADLINE, output.write_all(&bytes)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return,
        }
        bytes = loop {
            tokio::select! {
                () = agent.stop.cancelled() => {
                    // Only politeness.
                    let _late = timeout(SOCKET_DEADLINE, output.shutdown()).await;
                    return;
                }
                event = events.next() => break event_bytes(&event),
                () = sleep(KEEP_ALIVE) => break sse::keep_alive(unix_ms()),
                read = input.read(&mut ignored) => match read {
                    Ok(0) | Err(_) => return,
                    Ok(_) => {}
                },
            }
        };
    }
}

fn event_bytes(event: &Event) -> Bytes {
    match event {
        Event::Connected => Bytes::from_static(sse::CONNECTED),
        Event::NewMail => Bytes::from_static(sse::NEW_MAIL),
        Event::Disconnected(None) => Bytes::from_static(sse::DISCONNECTED),
        Event::Disconnected(Some((why, wait_ms))) => sse::disconnected(&why.line(), *wait_ms),
    }
}
