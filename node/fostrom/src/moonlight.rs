//! Moonlight: the socket of `moorline_moonlight::server`.
//!
//! ```text
//!   socket ──read──► input ──► machine ──action──► door
//!   socket ◄─write── output ◄── machine ◄─answer── asked · news of the device
//! ```
//!
//! # Invariants
//!
//! - **One task per connection**; what it asks is answered in any order, and the machine says what may be asked beside what.
//! - **Every wait has a deadline**, the machine's.
//! - **A stop answers what was asked**, up to [`STOP_ANSWERS_WAIT`], and says goodbye.
//!
//! Checked by the cluster tests (`fostrom.rs`).

use std::{
    future::{Future, pending},
    io,
    pin::Pin,
    time::Duration,
};

use bytes::{Buf, BytesMut};
use futures_util::{StreamExt, stream::FuturesUnordered};
use moorline_core::{
    Millis,
    op::{Answer, Declined, Denial, Format, Op},
    port::Token,
};
use moorline_dialects::fostrom::{identity, payload};
use moorline_edge::{NodeBusy, Served, Speaks, Stranger, Stream, Visit};
use moorline_moonlight::server::{Action, CloseReason, Server};
use moorline_service::registry::{
    ASK_AGAIN, Heard, Present, RECHECK, Watch,
    door::{By, Guest},
};
use tokio::{
    io::{AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::{Instant, sleep_until, timeout},
};
use tracing::debug;

use crate::door::{Door, From};

/// Room for a read: what agents send has some hundred bytes.
const READ_BYTES: usize = 4 * 1024;
/// How long a stopping node waits for the answers that one connection is owed.
const STOP_ANSWERS_WAIT: Duration = Duration::from_secs(1);
/// How long a closed socket waits for the other side, so that the last packet is not lost to a reset.
const LINGER_WAIT: Duration = Duration::from_secs(1);

/// Moonlight for Fostrom's devices and their agents.
#[derive(Debug, Clone)]
pub struct Moonlight(Door);

impl Moonlight {
    /// Behind this door.
    #[must_use]
    pub fn new(door: Door) -> Self {
        Self(door)
    }
}

impl Speaks for Moonlight {
    fn name(&self, tls: bool) -> &'static str {
        if tls { "moonlights" } else { "moonlight" }
    }

    fn serve(&self, visit: Visit) -> Served {
        let door = self.0.clone();
        Box::pin(async move { Connection::new(door, visit).run().await })
    }
}

/// Something that was asked of the cluster.
enum Answered {
    /// Who it is, news of it, and whether mail waits.
    Admitted(Result<(Guest, Watch, bool), Denial>),
    Op(Token, Result<Answer, Declined>),
    Still(Result<(), Denial>),
}

/// What came first.
enum Step {
    Read,
    Wrote(usize),
    Flushed,
    Answered(Answered),
    Heard(Heard),
    Due,
}

type Asked = Pin<Box<dyn Future<Output = Answered> + Send>>;

struct Connection {
    door: Door,
    visit: Visit,
    began: Instant,
    machine: Server,
    format: Format,
    input: BytesMut,
    output: BytesMut,
    /// The stream took bytes that are not on their way yet.
    unflushed: bool,
    asked: FuturesUnordered<Asked>,
    guest: Option<Guest>,
    watch: Option<Watch>,
    /// It is connected as long as this is there.
    present: Option<Present>,
    recheck_at: Instant,
    closed: Option<CloseReason>,
}

impl Connection {
    fn new(door: Door, visit: Visit) -> Self {
        let began = Instant::now();
        Self {
            door,
            visit,
            began,
            machine: Server::new(Millis(0)),
            format: Format::Json,
            input: BytesMut::new(),
            output: BytesMut::new(),
            unflushed: false,
            asked: FuturesUnordered::new(),
            guest: None,
            watch: None,
            present: None,
            recheck_at: began + RECHECK,
            closed: None,
        }
    }

    fn now(&self) -> Millis {
        Millis(u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    async fn run(mut self) {
        let metric = self.door.metrics.connections.with_label_values(&["moonlight"]);
        metric.inc();
        let stop = self.visit.stop.clone();
        let ended = tokio::select! {
            ended = self.speak() => ended,
            () = stop.cancelled() => Ok(()),
        };
        if ended.is_ok() && self.closed.is_none() {
            // What was asked may still be answered; then it is over.
            let answers = timeout(STOP_ANSWERS_WAIT, async {
                while self.machine.unanswered() > 0
                    && let Some(answered) = self.asked.next().await
                {
                    self.answer(answered);
                }
            });
            drop(answers.await);
            self.machine.stop(self.now());
            drop(self.speak().await);
        }
        metric.dec();
        let counters = self.machine.take_counters();
        self.door.metrics.cures.inc_by(counters.cures);
        let reason = self.closed.map_or("gone", label);
        self.door.metrics.closed.with_label_values(&[reason]).inc();
        debug!(peer = %self.visit.peer, reason, "a Moonlight connection ended");
        drop(timeout(LINGER_WAIT, say_goodbye(&mut self.visit.stream)).await);
    }

    /// Until the machine has closed and all is written, or the socket breaks.
    async fn speak(&mut self) -> io::Result<()> {
        loop {
            self.act();
            let now = self.now();
            self.machine.poll_transmit(now, &mut self.output);
            if self.closed.is_some() && self.output.is_empty() && !self.unflushed {
                return Ok(());
            }
            let due =
                self.machine.poll_timeout().map(|at| self.began + Duration::from_millis(at.0));
            if self.closed.is_some() && due.is_some_and(|due| due <= Instant::now()) {
                return Ok(());
            }
            match self.step(due).await? {
                Step::Read => {}
                Step::Wrote(bytes) => {
                    self.output.advance(bytes);
                    self.unflushed = true;
                }
                Step::Flushed => self.unflushed = false,
                Step::Answered(answered) => self.answer(answered),
                Step::Heard(heard) => self.hear(heard),
                Step::Due => {
                    let now = self.now();
                    self.machine.timeout(now);
                }
            }
            if self.closed.is_none() {
                let now = self.now();
                self.machine.receive(now, &mut self.input);
            }
            if self.input.is_empty() {
                self.input = BytesMut::new();
            }
        }
    }

    /// Waits for whatever comes first. Losing the future loses nothing.
    async fn step(&mut self, due: Option<Instant>) -> io::Result<Step> {
        let reads = self.machine.wants_read() && self.closed.is_none();
        let (writes, flushes) = (!self.output.is_empty(), self.unflushed);
        if reads {
            self.input.reserve(READ_BYTES);
        }
        let (mut reader, mut writer) = tokio::io::split(&mut self.visit.stream);
        tokio::select! {
            read = reader.read_buf(&mut self.input), if reads => match read? {
                0 => Err(io::ErrorKind::UnexpectedEof.into()),
                _ => Ok(Step::Read),
            },
            wrote = write(&mut writer, &self.output), if writes || flushes => wrote,
            Some(answered) = self.asked.next() => Ok(Step::Answered(answered)),
            heard = heard(self.watch.as_ref(), self.recheck_at) => Ok(Step::Heard(heard)),
            () = until(due) => Ok(Step::Due),
        }
    }

    /// Does what the machine asks for.
    fn act(&mut self) {
        while let Some(action) = self.machine.poll_action() {
            match action {
                Action::Authenticate(connect) => {
                    self.format = connect.format;
                    let from = From { address: self.visit.peer.ip(), tls: self.visit.channel.tls };
                    let door = self.door.clone();
                    let shown = &connect.credentials;
                    let credentials =
                        identity::Credentials::new(&shown.fleet, &shown.device, &shown.secret);
                    let judgement = self.visit.stranger.as_ref().map(Stranger::judgement);
                    self.asked.push(Box::pin(async move {
                        let place = match judgement {
                            Some(judgement) => match judgement.pass().await {
                                Ok(place) => Some(place),
                                Err(NodeBusy { .. }) => {
                                    return Answered::Admitted(Err(Denial::Unavailable));
                                }
                            },
                            None => None,
                        };
                        let Ok(credentials) = credentials else {
                            return Answered::Admitted(Err(Denial::Malformed));
                        };
                        let admitted = door.admit_to_stay(&credentials, from, By::Moonlight).await;
                        let (guest, watch) = match admitted {
                            Ok(admitted) => admitted,
                            Err(denial) => return Answered::Admitted(Err(denial)),
                        };
                        // It is judged: who waits from here on keeps nobody from being judged.
                        drop(place);
                        if let Err(denial) = door.wait_for_turn(&credentials.identity).await {
                            return Answered::Admitted(Err(denial));
                        }
                        // A device that fetches in vain loses nothing.
                        let waits = door.mail_waits(&guest).await.unwrap_or(true);
                        Answered::Admitted(Ok((guest, watch, waits)))
                    }));
                }
                Action::Ask { token, op } => self.ask(token, op),
                Action::Close(reason) => self.closed = Some(reason),
            }
        }
    }

    fn ask(&self, token: Token, op: Op) {
        let Some(guest) = self.guest.clone() else { return };
        let (door, format) = (self.door.clone(), self.format);
        self.asked.push(Box::pin(async move {
            let op = if let Op::Event(event) = op {
                payload::event(event).map(Op::Event)
            } else {
                Ok(op)
            };
            let outcome = match op {
                Ok(op) => door.run(&guest, op).await,
                Err(declined) => {
                    door.declined(&guest, "", &declined);
                    Err(declined)
                }
            };
            let outcome = outcome.map(|answer| {
                let Answer::Mail { size, mail } = answer else { return answer };
                Answer::Mail { size, mail: mail.map(|mail| payload::mail(format, mail)) }
            });
            Answered::Op(token, outcome)
        }));
    }

    fn answer(&mut self, answered: Answered) {
        let now = self.now();
        match answered {
            Answered::Admitted(Ok((guest, watch, waits))) => {
                self.visit.stranger = None;
                watch.take_over();
                self.watch = Some(watch);
                self.present = Some(self.door.registry.arrive(&guest));
                self.recheck_at = Instant::now() + RECHECK;
                self.guest = Some(guest);
                self.machine.authenticated(now, Ok(waits));
            }
            Answered::Admitted(Err(denial)) => self.machine.authenticated(now, Err(denial)),
            Answered::Op(token, outcome) => self.machine.answered(now, token, outcome),
            Answered::Still(Ok(())) => {}
            Answered::Still(Err(Denial::Unavailable)) => {
                self.recheck_at = Instant::now() + ASK_AGAIN;
            }
            Answered::Still(Err(denial)) => self.machine.revoke(now, denial),
        }
    }

    fn hear(&mut self, heard: Heard) {
        self.recheck_at = Instant::now() + RECHECK;
        if heard.taken_over {
            let now = self.now();
            return self.machine.taken_over(now);
        }
        if heard.mail {
            self.machine.mail_arrived();
        }
        if heard.device
            && let Some(guest) = self.guest.clone()
        {
            let door = self.door.clone();
            self.asked
                .push(Box::pin(async move { Answered::Still(door.registry.still(&guest).await) }));
        }
    }
}

async fn heard(watch: Option<&Watch>, recheck_at: Instant) -> Heard {
    let Some(watch) = watch else { return pending().await };
    tokio::select! {
        heard = watch.heard() => heard,
        () = sleep_until(recheck_at) => Heard::ANYTHING,
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => pending().await,
    }
}

/// Writes what there is, or else sends it on its way.
async fn write(writer: &mut (impl AsyncWrite + Unpin), output: &[u8]) -> io::Result<Step> {
    if output.is_empty() {
        return writer.flush().await.map(|()| Step::Flushed);
    }
    match writer.write(output).await? {
        0 => Err(io::ErrorKind::WriteZero.into()),
        wrote => Ok(Step::Wrote(wrote)),
    }
}

/// Says that nothing more comes, and waits until the other side has closed, too.
async fn say_goodbye(stream: &mut Box<dyn Stream>) -> io::Result<()> {
    stream.shutdown().await?;
    let mut rest = [0; 256];
    while stream.read(&mut rest).await? > 0 {}
    Ok(())
}

fn label(reason: CloseReason) -> &'static str {
    match reason {
        CloseReason::Goodbye => "goodbye",
        CloseReason::NoConnect => "no_connect",
        CloseReason::NotConnect(_) => "not_connect",
        CloseReason::SecondConnect => "second_connect",
        CloseReason::Version(_) => "version",
        CloseReason::Malformed(_) => "malformed",
        CloseReason::Denied(_) => "denied",
        CloseReason::Silence => "silence",
        CloseReason::Stalled => "stalled",
        CloseReason::Unanswered => "unanswered",
        CloseReason::TakenOver => "taken_over",
        CloseReason::Stopping => "stopping",
    }
}
