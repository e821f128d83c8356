//! The bounded queue in front of one direction of one stream: messages are encoded into it, frames are taken out.
//!
//! ```text
//!   push ──► [ frame being filled ] … [ full frames ] ──► Drain (polled by HTTP/2 when the peer has window)
//! ```
//!
//! Nobody is woken per message: the stream is woken when the queue was empty, and takes all that came meanwhile as one
//! frame. So batches grow by themselves when the connection is the bottleneck, and nothing waits when it is not.
//!
//! # Invariants
//!
//! - **Order.** Messages leave in the order of their `push`.
//! - **Bounded.** At most [`QueueLimits`] wait; one message always fits an empty queue.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::{Bytes, BytesMut};
use futures_util::Stream;

use super::{
    message::{self, HEADER_BYTES, Header},
    metrics::DirectionMetrics,
};

/// How large a frame grows. Beyond it latency grows and nothing gets cheaper.
const FRAME_BYTES_MAX: usize = 256 * 1024;
/// How large a frame's buffer begins: a handful of small messages.
const FRAME_BYTES_FIRST: usize = 2 * 1024;

/// What may wait in an [`SendQueue`].
#[derive(Debug, Clone, Copy)]
pub(super) struct QueueLimits {
    pub(super) bytes: usize,
    pub(super) messages: usize,
}

/// Why a message was not queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PushError {
    Closed,
    Full,
}

#[derive(Debug)]
pub(super) struct SendQueue {
    inner: Mutex<Inner>,
    limits: QueueLimits,
    metrics: DirectionMetrics,
}

#[derive(Debug)]
struct Inner {
    state: State,
    /// Full frames, oldest first.
    frames: VecDeque<Filled>,
    /// The frame being filled.
    filling: Filled,
    bytes: usize,
    messages: usize,
    /// How large the last frame was: the next one probably is, too, and is not copied while it grows.
    last_bytes: usize,
    waker: Option<Waker>,
}

#[derive(Debug, Default)]
struct Filled {
    bytes: BytesMut,
    messages: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// Takes nothing more; what waits still leaves.
    Finishing,
    /// Nothing leaves any more.
    Closed,
}

impl SendQueue {
    pub(super) fn new(limits: QueueLimits, metrics: DirectionMetrics) -> Arc<Self> {
        let inner = Inner {
            state: State::Open,
            frames: VecDeque::new(),
            filling: Filled::default(),
            bytes: 0,
            messages: 0,
            last_bytes: 0,
            waker: None,
        };
        Arc::new(Self { inner: Mutex::new(inner), limits, metrics })
    }

    /// Queues a message.
    pub(super) fn push(&self, header: Header, body: &[u8]) -> Result<(), PushError> {
        let size = HEADER_BYTES + body.len();
        let mut inner = self.lock();
        if inner.state != State::Open {
            return Err(PushError::Closed);
        }
        let full = inner.messages >= self.limits.messages || inner.bytes + size > self.limits.bytes;
        if full && inner.messages > 0 {
            return Err(PushError::Full);
        }
        let filling = inner.filling.bytes.len();
        if filling > 0 && filling + size > FRAME_BYTES_MAX {
            let filled = std::mem::take(&mut inner.filling);
            inner.frames.push_back(filled);
        }
        if inner.filling.messages == 0 {
            let likely = inner.last_bytes.clamp(FRAME_BYTES_FIRST, FRAME_BYTES_MAX);
            inner.filling.bytes = BytesMut::with_capacity(likely.max(size));
        }
        message::put(&mut inner.filling.bytes, header, body);
        inner.filling.messages += 1;
        inner.bytes += size;
        inner.messages += 1;
        let waker = inner.waker.take();
        drop(inner);

        self.metrics.queued.add(i64::try_from(size).unwrap_or(i64::MAX));
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }

    /// Takes nothing more, and ends the stream when what waits has left.
    pub(super) fn finish(&self) {
        self.end(State::Finishing);
    }

    /// Forgets what waits and ends the stream.
    pub(super) fn close(&self) {
        self.end(State::Closed);
    }

    fn end(&self, state: State) {
        let mut inner = self.lock();
        if inner.state == State::Closed {
            return;
        }
        inner.state = state;
        let mut forgotten = 0;
        if state == State::Closed {
            forgotten = std::mem::take(&mut inner.bytes);
            inner.messages = 0;
            inner.frames = VecDeque::new();
            inner.filling = Filled::default();
        }
        let waker = inner.waker.take();
        drop(inner);

        self.metrics.queued.sub(i64::try_from(forgotten).unwrap_or(i64::MAX));
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn poll_frame(&self, context: &Context<'_>) -> Poll<Option<Bytes>> {
        let mut inner = self.lock();
        let frame = match inner.frames.pop_front() {
            Some(frame) => frame,
            None if inner.filling.messages > 0 => std::mem::take(&mut inner.filling),
            None if inner.state != State::Open => return Poll::Ready(None),
            None => {
                inner.waker = Some(context.waker().clone());
                return Poll::Pending;
            }
        };
        inner.last_bytes = frame.bytes.len();
        inner.bytes -= frame.bytes.len();
        inner.messages -= frame.messages;
        drop(inner);

        self.metrics.count(frame.bytes.len(), frame.messages);
        self.metrics.queued.sub(i64::try_from(frame.bytes.len()).unwrap_or(i64::MAX));
        Poll::Ready(Some(frame.bytes.freeze()))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The frames of an [`SendQueue`], as a stream. Dropping it closes the send_queue: nobody takes frames any more.
#[derive(Debug)]
pub(super) struct Drain(pub(super) Arc<SendQueue>);

impl Stream for Drain {
    type Item = Bytes;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        self.0.poll_frame(context)
    }
}

impl Drop for Drain {
    fn drop(&mut self) {
        self.0.close();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, StreamExt};
    use moorline_core::ShardId;

    use super::{
        super::{
            kind::Lane,
            message::{MESSAGE_BYTES_MAX, Role},
            metrics::WireMetrics,
        },
        *,
    };

    fn send_queue(bytes: usize, messages: usize) -> Arc<SendQueue> {
        let metrics = WireMetrics::register(&prometheus::Registry::new()).unwrap();
        SendQueue::new(QueueLimits { bytes, messages }, metrics.lane(Lane::Data).sent.clone())
    }

    fn push(send_queue: &SendQueue, correlation: u64, body: &[u8]) -> Result<(), PushError> {
        let header = Header { kind: 1, role: Role::Request, shard: ShardId(0), correlation };
        send_queue.push(header, body)
    }

    fn correlations(mut frame: Bytes) -> Vec<u64> {
        std::iter::from_fn(|| message::take(&mut frame).unwrap())
            .map(|message| message.header.correlation)
            .collect()
    }

    #[test]
    fn what_waits_leaves_as_one_frame_in_order() {
        let send_queue = send_queue(1 << 20, 100);
        let mut drain = Drain(send_queue.clone());
        assert!(drain.next().now_or_never().is_none(), "nothing yet");
        for correlation in 0..10 {
            push(&send_queue, correlation, b"body").unwrap();
        }
        let frame = drain.next().now_or_never().unwrap().unwrap();
        assert_eq!(correlations(frame), (0..10).collect::<Vec<_>>());
        assert!(drain.next().now_or_never().is_none());
    }

    #[test]
    fn frames_end_at_their_size_and_a_large_message_has_its_own() {
        let send_queue = send_queue(MESSAGE_BYTES_MAX, 100);
        let mut drain = Drain(send_queue.clone());
        push(&send_queue, 0, b"small").unwrap();
        push(&send_queue, 1, &vec![0; FRAME_BYTES_MAX * 2]).unwrap();
        push(&send_queue, 2, b"small").unwrap();
        send_queue.finish();
        let mut frames = Vec::new();
        while let Some(frame) = drain.next().now_or_never().unwrap() {
            frames.push(correlations(frame));
        }
        assert_eq!(frames, [vec![0], vec![1], vec![2]]);
    }

    #[test]
    fn a_full_queue_refuses_and_takes_again_when_drained() {
        let send_queue = send_queue(100, 3);
        let mut drain = Drain(send_queue.clone());
        push(&send_queue, 0, &[0; 1000]).expect("one message always fits an empty queue");
        assert_eq!(push(&send_queue, 1, b""), Err(PushError::Full));
        drain.next().now_or_never().unwrap().unwrap();
        for correlation in 0..3 {
            push(&send_queue, correlation, b"").unwrap();
        }
        assert_eq!(push(&send_queue, 3, b""), Err(PushError::Full), "three messages are the limit");
    }

    #[test]
    fn a_closed_queue_takes_nothing_and_forgets() {
        let send_queue = send_queue(100, 3);
        push(&send_queue, 0, b"").unwrap();
        let mut drain = Drain(send_queue.clone());
        send_queue.close();
        assert_eq!(push(&send_queue, 1, b""), Err(PushError::Closed));
        assert_eq!(drain.next().now_or_never(), Some(None));
        assert_eq!(send_queue.metrics.queued.get(), 0);
        drop(drain);
    }
}
