//! What a part of the node gives to be sent messages, and how it answers them.

use std::{fmt, sync::Arc, time::Instant};

use bytes::Bytes;
use moorline_core::{NodeId, ShardId};
use tracing::warn;

use super::{
    Shared,
    error::CallError,
    message::{Header, MESSAGE_BYTES_MAX, Role},
    send_queue::{PushError, SendQueue},
};

/// Takes the messages of one [`Kind`](super::Kind).
pub trait Handler: Send + Sync + 'static {
    /// Takes a message of another node, or of this one. Called in the order of arrival per node and lane, on the task
    /// that receives: it must not wait. `reply` is there if the sender waits for an answer, which may be given later
    /// and from anywhere.
    fn handle(&self, from: NodeId, shard: ShardId, body: Bytes, reply: Option<Replier>);
}

impl<F> Handler for F
where
    F: Fn(NodeId, ShardId, Bytes, Option<Replier>) + Send + Sync + 'static,
{
    fn handle(&self, from: NodeId, shard: ShardId, body: Bytes, reply: Option<Replier>) {
        self(from, shard, body, reply);
    }
}

/// Answers one request, once. Dropped without an answer, it says so to the one that waits.
pub struct Replier(Way);

enum Way {
    Wire { send_queue: Arc<SendQueue>, header: Header },
    Local { shared: Arc<Shared>, correlation: u64 },
    Spent,
}

impl Replier {
    pub(super) fn over(send_queue: Arc<SendQueue>, request: Header) -> Self {
        Self(Way::Wire { send_queue, header: request })
    }

    pub(super) fn local(shared: Arc<Shared>, correlation: u64) -> Self {
        Self(Way::Local { shared, correlation })
    }

    /// Answers.
    pub fn send(mut self, body: Bytes) {
        if body.len() > MESSAGE_BYTES_MAX {
            self.refuse("the answer is too large");
        } else {
            self.end(Ok(body));
        }
    }

    /// Says that there will be no answer, and why.
    pub fn refuse(mut self, why: &str) {
        self.end(Err(why));
    }

    fn end(&mut self, outcome: Result<Bytes, &str>) {
        match std::mem::replace(&mut self.0, Way::Spent) {
            Way::Wire { send_queue, header } => match outcome {
                Ok(body) => push(&send_queue, Header { role: Role::Response, ..header }, &body),
                Err(why) => {
                    push(&send_queue, Header { role: Role::Failure, ..header }, why.as_bytes());
                }
            },
            Way::Local { shared, correlation } => {
                let outcome = outcome.map_err(|why| CallError::Refused(why.to_owned()));
                shared.local.end(correlation, outcome, Instant::now());
            }
            Way::Spent => {}
        }
    }
}

fn push(send_queue: &SendQueue, header: Header, body: &[u8]) {
    match send_queue.push(header, body) {
        // Closed: who asked has heard that the connection ended.
        Ok(()) | Err(PushError::Closed) => {}
        Err(PushError::Full) => {
            // The peer asks and does not read. Answers can't be left out one by one, so all go.
            warn!("a peer does not take its answers: closing the connection");
            send_queue.close();
        }
    }
}

impl Drop for Replier {
    fn drop(&mut self) {
        self.end(Err("the request was dropped"));
    }
}

impl fmt::Debug for Replier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Replier")
    }
}
