//! The deadlines of a connection.

use crate::{Millis, Now};

use super::{Config, Connection, State, close::Ending};

/// How long a closed connection may take to write what is left.
const LINGER_MS: u64 = 1_000;

/// When things happened, and by when the next has to.
#[derive(Debug)]
pub(super) struct Timers {
    /// CONNECT has to be there, or the session open.
    setup: Millis,
    last_heard: Millis,
    /// One and a half keep-alives; 0 for none.
    silence_max_ms: u64,
    paused: bool,
    /// Bytes the socket has not taken, as of the last transmit.
    unsent: usize,
    last_progress: Millis,
    /// When a closed connection is dropped.
    linger: Millis,
}

impl Timers {
    pub(super) fn new(at: Millis, config: &Config) -> Self {
        Self {
            setup: at.plus(config.connect_deadline_ms),
            last_heard: at,
            silence_max_ms: 0,
            paused: false,
            unsent: 0,
            last_progress: at,
            linger: at,
        }
    }

    pub(super) fn opening(&mut self, at: Millis, config: &Config) {
        self.setup = at.plus(config.open_deadline_ms);
    }

    pub(super) fn opened(&mut self, at: Millis, keep_alive_s: u16) {
        self.last_heard = at;
        self.silence_max_ms = u64::from(keep_alive_s) * 1_500;
    }

    pub(super) fn closed(&mut self, at: Millis) {
        self.linger = at.plus(LINGER_MS);
    }

    pub(super) fn heard(&mut self, at: Millis) {
        self.last_heard = at;
    }

    pub(super) fn note_pause(&mut self, at: Millis, paused: bool) {
        if self.paused && !paused {
            self.last_heard = at;
        }
        self.paused = paused;
    }

    pub(super) fn before_transmit(&mut self, at: Millis, unsent: usize) {
        if unsent < self.unsent {
            self.last_progress = at;
        }
    }

    pub(super) fn after_transmit(&mut self, at: Millis, before: usize, unsent: usize) {
        if before == 0 {
            self.last_progress = at;
        }
        self.unsent = unsent;
    }

    fn silence(&self) -> Option<Millis> {
        (self.silence_max_ms > 0 && !self.paused).then(|| self.last_heard.plus(self.silence_max_ms))
    }

    fn stall(&self, config: &Config) -> Option<Millis> {
        (self.unsent > 0).then(|| self.last_progress.plus(config.write_stall_ms))
    }
}

impl Connection {
    /// When [`Connection::handle_timeout`] is due at the latest. It may move with every other call.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Millis> {
        let timers = &self.timers;
        match self.state {
            State::AwaitConnect | State::Opening => Some(timers.setup),
            State::Open => timers.silence().into_iter().chain(timers.stall(&self.config)).min(),
            State::Closed => Some(timers.linger),
        }
    }

    /// Does what is due; nothing if it is called early.
    pub fn handle_timeout(&mut self, now: Now) {
        let due = |deadline: Option<Millis>| deadline.is_some_and(|deadline| deadline <= now.at);
        let timers = &self.timers;
        match self.state {
            State::AwaitConnect if due(Some(timers.setup)) => {
                self.fail(now, &Ending::CONNECT_TIMEOUT);
            }
            State::Opening if due(Some(timers.setup)) => self.fail(now, &Ending::OPEN_TIMEOUT),
            State::Open if due(timers.stall(&self.config)) => {
                self.fail(now, &Ending::WRITE_TIMEOUT);
            }
            State::Open if due(timers.silence()) => self.fail(now, &Ending::KEEP_ALIVE_TIMEOUT),
            State::AwaitConnect | State::Opening | State::Open | State::Closed => {}
        }
    }
}
