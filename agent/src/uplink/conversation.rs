//! One connection to a node, from its socket's first byte to its last: `moonlight`'s client machine between a socket and
//! those who ask.
//!
//! # Invariants
//!
//! - **Everybody who asks hears**: from the machine, or by their channel's end when the conversation is over.
//! - **Nothing is kept of an answer that nobody waits for.** [`Conversation::waiting`] has what the machine has under way,
//!   and that is bounded there.

use std::{
    collections::BTreeMap,
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, BytesMut};
use moorline_core::op::{Format, MailId};
use moorline_moonlight::{
    Millis,
    client::{Client, Ended, Event, Failure, SendError},
    codec::Credentials,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf},
    sync::{mpsc, oneshot},
    time::{sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    clock::Clock,
    question::{Question, Reply, Unanswered, Why},
};

/// How much is read at once: an answer without a large payload. It is this agent's largest buffer when nothing happens.
const READ_BYTES: usize = 4 * 1024;
/// How long a goodbye may take to leave.
const GOODBYE: Duration = Duration::from_secs(1);

/// Somebody's question, and where the answer goes.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) question: Question,
    pub(super) reply: oneshot::Sender<Result<Reply, Unanswered>>,
}

/// What whoever keeps the uplink has to know at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum News {
    /// The device is in; whether mail waits.
    Connected { mail_available: bool },
    /// Mail waits.
    NewMail,
}

/// How it ended.
#[derive(Debug)]
pub(super) struct Over {
    /// As Moonlight says it, unless the socket ended first.
    pub(super) ended: Option<Ended>,
    /// For people.
    pub(super) why: Why,
    /// How long the device was in.
    pub(super) open_ms: Option<u64>,
}

pub(super) struct Conversation<S> {
    socket: S,
    client: Client,
    clock: Clock,
    input: BytesMut,
    output: BytesMut,
    /// Whether the socket may hold back some of what it took.
    unflushed: bool,
    waiting: Waiting,
    opened: Option<Millis>,
}

/// Who waits for which answer.
#[derive(Debug, Default)]
struct Waiting {
    by_txn: BTreeMap<u64, oneshot::Sender<Result<Reply, Unanswered>>>,
    by_mail: BTreeMap<MailId, oneshot::Sender<Result<Reply, Unanswered>>>,
}

/// What a turn of the socket brought.
enum Turn {
    Wrote,
    Read,
    End,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Conversation<S> {
    /// Begins on a socket that is ready.
    pub(super) fn new(socket: S, credentials: Credentials, clock: Clock) -> Self {
        Self {
            socket,
            client: Client::new(clock.now(), credentials, Format::Json),
            clock,
            input: BytesMut::new(),
            output: BytesMut::new(),
            unflushed: false,
            waiting: Waiting::default(),
            opened: None,
        }
    }

    /// Converses until it is over, or the agent stops: then it says goodbye.
    pub(super) async fn run(
        &mut self,
        questions: &mut mpsc::Receiver<Asked>,
        stop: &CancellationToken,
        mut tell: impl FnMut(News),
    ) -> Over {
        loop {
            if let Some(ended) = self.look(&mut tell) {
                return self.over(Some(ended), Why::from(&ended));
            }
            let wakes = self.client.poll_timeout().map(|at| self.clock.instant(at).into());
            let is_open = self.client.is_open();
            tokio::select! {
                () = stop.cancelled() => {
                    self.client.close();
                    let ended = self.look(&mut tell);
                    // Only politeness: the node notices the socket's end as well.
                    let _late = timeout(GOODBYE, self.say_goodbye()).await;
                    return self.over(ended, Why::failed("the agent stops"));
                }
                turn = turn(&mut self.socket, &mut self.input, &mut self.output, &mut self.unflushed) => {
                    match turn {
                        Ok(Turn::Wrote) => {}
                        Ok(Turn::Read) => self.client.receive(self.clock.now(), &mut self.input),
                        Ok(Turn::End) => return self.lost("the node closed the connection", &mut tell),
                        Err(error) => return self.lost(&error.to_string(), &mut tell),
                    }
                }
                // There is always a sender: whoever keeps the uplink has one.
                Some(asked) = questions.recv(), if is_open => self.ask(asked),
                () = sleep_until(wakes.unwrap_or_else(|| self.clock.instant(Millis(u64::MAX)).into())) => {
                    self.client.timeout(self.clock.now());
                }
            }
        }
    }

    /// Takes what the machine has to say, and answers how it ended if it did.
    fn look(&mut self, tell: &mut impl FnMut(News)) -> Option<Ended> {
        let mut ended = None;
        while let Some(event) = self.client.poll_event() {
            match event {
                Event::Connected { mail_available } => {
                    self.opened = Some(self.clock.now());
                    tell(News::Connected { mail_available });
                }
                Event::NewMail => tell(News::NewMail),
                Event::Pulse { txn, result } => {
                    self.waiting.txn(txn, result.map(|()| Reply::Taken));
                }
                Event::Next { txn, result } => self.waiting.txn(txn, result.map(Reply::Mail)),
                Event::Settled { id, settlement: _, result } => {
                    self.waiting.mail(id, result.map(Reply::Settled));
                }
                Event::Closed(how) => ended = Some(how),
            }
        }
        self.client.poll_transmit(self.clock.now(), &mut self.output);
        ended
    }

    fn ask(&mut self, Asked { question, reply }: Asked) {
        let now = self.clock.now();
        let sent = match question {
            Question::Pulse { kind, name, payload } => {
                let txn = self.client.pulse(now, kind, name, payload);
                txn.map(|txn| (Some(txn), None))
            }
            Question::Next { header_only } => {
                self.client.next(now, header_only).map(|txn| (Some(txn), None))
            }
            Question::Settle { id, settlement } => {
                self.client.settle(now, id, settlement).map(|()| (None, Some(id)))
            }
        };
        match sent {
            Ok((txn, mail)) => {
                if let Some(txn) = txn {
                    self.waiting.by_txn.insert(txn, reply);
                } else if let Some(id) = mail {
                    self.waiting.by_mail.insert(id, reply);
                }
            }
            Err(error) => hear(reply, Err(unsent(error))),
        }
    }

    /// The socket ended before the machine said so.
    fn lost(&mut self, why: &str, tell: &mut impl FnMut(News)) -> Over {
        self.client.close();
        self.look(tell);
        self.over(None, Why::failed(why))
    }

    fn over(&self, ended: Option<Ended>, why: Why) -> Over {
        let open_ms = self.opened.map(|at| self.clock.now().since(at));
        Over { ended, why, open_ms }
    }

    async fn say_goodbye(&mut self) -> io::Result<()> {
        self.socket.write_all(&self.output).await?;
        self.socket.shutdown().await
    }
}

impl Waiting {
    fn txn(&mut self, txn: u64, result: Result<Reply, Failure>) {
        if let Some(reply) = self.by_txn.remove(&txn) {
            hear(reply, result.map_err(Unanswered::Failed));
        }
    }

    fn mail(&mut self, id: MailId, result: Result<Reply, Failure>) {
        if let Some(reply) = self.by_mail.remove(&id) {
            hear(reply, result.map_err(Unanswered::Failed));
        }
    }
}

fn hear(reply: oneshot::Sender<Result<Reply, Unanswered>>, result: Result<Reply, Unanswered>) {
    // Whoever asked may have left; the cluster has done it all the same.
    let _gone = reply.send(result);
}

fn unsent(error: SendError) -> Unanswered {
    match error {
        SendError::NotConnected => Unanswered::NotConnected(None),
        SendError::TooMany => Unanswered::Busy,
        SendError::Pending => Unanswered::Pending,
        SendError::Encode(_) => Unanswered::Unspeakable,
    }
}

/// Writes what there is, or else reads. Cancel-safe: all it has done is in its arguments.
async fn turn<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut S,
    input: &mut BytesMut,
    output: &mut BytesMut,
    unflushed: &mut bool,
) -> io::Result<Turn> {
    poll_fn(|cx| {
        if let Poll::Ready(wrote) = poll_write(socket, cx, output, unflushed) {
            return Poll::Ready(wrote.map(|()| Turn::Wrote));
        }
        poll_read(socket, cx, input)
    })
    .await
}

/// Ready when bytes left, so that the machine sees that they do.
fn poll_write<S: AsyncWrite + Unpin>(
    socket: &mut S,
    cx: &mut Context<'_>,
    output: &mut BytesMut,
    unflushed: &mut bool,
) -> Poll<io::Result<()>> {
    if !output.is_empty() {
        return Pin::new(socket).poll_write(cx, output).map(|wrote| {
            let wrote = wrote?;
            if wrote == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            output.advance(wrote);
            *unflushed = true;
            Ok(())
        });
    }
    if *unflushed && Pin::new(socket).poll_flush(cx)?.is_ready() {
        *unflushed = false;
    }
    Poll::Pending
}

fn poll_read<S: AsyncRead + Unpin>(
    socket: &mut S,
    cx: &mut Context<'_>,
    input: &mut BytesMut,
) -> Poll<io::Result<Turn>> {
    let mut bytes = [0; READ_BYTES];
    let mut buffer = ReadBuf::new(&mut bytes);
    Pin::new(socket).poll_read(cx, &mut buffer).map(|read| {
        read?;
        if buffer.filled().is_empty() {
            return Ok(Turn::End);
        }
        input.extend_from_slice(buffer.filled());
        Ok(Turn::Read)
    })
}
