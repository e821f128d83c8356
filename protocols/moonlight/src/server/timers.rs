//! Deadlines of one connection.
//!
//! Invariant: time in which nothing is read is not the client's silence. Checked by `tests/it/server.rs`.

use moorline_core::Millis;

use super::{
    ANSWER_DEADLINE_MS, AUTHENTICATE_DEADLINE_MS, CONNECT_DEADLINE_MS, CloseReason, LINGER_MS,
    SILENCE_MAX_MS, STALL_MAX_MS, State,
};

/// Moments from which deadlines count.
#[derive(Debug)]
pub(super) struct Timers {
    /// When the present state began.
    since: Millis,
    heard: Millis,
    paused: bool,
    /// When the oldest unanswered request came.
    waiting: Option<Millis>,
    /// Since when the socket takes nothing, if something is there to take.
    stalled: Option<Millis>,
    /// What the socket had to take at the last look.
    unsent: usize,
}

impl Timers {
    pub(super) fn new(now: Millis) -> Self {
        Self { since: now, heard: now, paused: false, waiting: None, stalled: None, unsent: 0 }
    }

    pub(super) fn heard(&mut self, now: Millis) {
        self.heard = now;
    }

    pub(super) fn authenticating(&mut self, now: Millis) {
        self.since = now;
    }

    pub(super) fn open(&mut self, now: Millis) {
        self.since = now;
        self.heard = now;
    }

    pub(super) fn closed(&mut self, now: Millis) {
        self.since = now;
    }

    pub(super) fn waiting_since(&mut self, oldest: Option<Millis>) {
        self.waiting = oldest;
    }

    /// Whether nothing is read now; answers whether that is new.
    pub(super) fn paused(&mut self, now: Millis, paused: bool) -> bool {
        if self.paused && !paused {
            self.heard = now;
        }
        let new = paused && !self.paused;
        self.paused = paused;
        new
    }

    /// `left` bytes are left of what the socket was given, `unsent` it will have then.
    pub(super) fn transmitting(&mut self, now: Millis, left: usize, unsent: usize) {
        if left < self.unsent || self.unsent == 0 {
            self.stalled = None;
        }
        self.stalled = if unsent == 0 { None } else { self.stalled.or(Some(now)) };
        self.unsent = unsent;
    }

    /// The next deadline.
    pub(super) fn next(&self, state: State) -> Option<Millis> {
        self.deadlines(state).into_iter().flatten().map(|(at, _)| at).min()
    }

    /// Which deadline has passed.
    pub(super) fn expired(&self, now: Millis, state: State) -> Option<CloseReason> {
        if state == State::Closed {
            return None;
        }
        let passed = self.deadlines(state).into_iter().flatten().filter(|(at, _)| *at <= now);
        passed.min_by_key(|(at, _)| *at).map(|(_, reason)| reason)
    }

    fn deadlines(&self, state: State) -> [Option<(Millis, CloseReason)>; 3] {
        match state {
            State::AwaitConnect => {
                [Some((self.since.plus(CONNECT_DEADLINE_MS), CloseReason::NoConnect)), None, None]
            }
            State::Authenticating { .. } => {
                let at = self.since.plus(AUTHENTICATE_DEADLINE_MS);
                [Some((at, CloseReason::Unanswered)), None, None]
            }
            State::Open => {
                let silence = (self.heard.plus(SILENCE_MAX_MS), CloseReason::Silence);
                let answer = |at: Millis| (at.plus(ANSWER_DEADLINE_MS), CloseReason::Unanswered);
                let stall = |at: Millis| (at.plus(STALL_MAX_MS), CloseReason::Stalled);
                let silence = (!self.paused).then_some(silence);
                [silence, self.waiting.map(answer), self.stalled.map(stall)]
            }
            State::Closed => [Some((self.since.plus(LINGER_MS), CloseReason::Goodbye)), None, None],
        }
    }
}
