//! Which peers can be reached, as the three connections to each tell it.
//!
//! ```text
//!             all three lanes up                    a lane is lost
//!   Down ───────────────────────────► Up ───────────────────────────► Suspect
//!                                      ▲       all three up again        │ a reconnect is refused by TCP
//!                                      └─────────────────────────────────┤ and no lane is up
//!                                                                        ▼
//!                                                              Down { refused: true }
//! ```
//!
//! A refused reconnect proves that the process is gone, while its machine lives: that starts a failover at once. A
//! silent peer may be slow or cut off: then the timers decide.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use moorline_core::{Incarnation, NodeId};
use prometheus::IntGauge;
use tokio::sync::watch;

use super::kind::Lane;

/// How a peer is doing, as seen from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerState {
    /// All three connections stand.
    Up {
        /// Since when.
        since: Instant,
        /// The process there. Another one than before means it was started again.
        incarnation: Incarnation,
    },
    /// It was up, and a connection to it is lost. Nothing proves that it is dead.
    Suspect,
    /// It is not there.
    Down {
        /// Its port refuses connections: the process is gone. Otherwise it was never reached.
        refused: bool,
    },
}

impl PeerState {
    /// Whether it is [`Up`](Self::Up).
    #[must_use]
    pub fn is_up(self) -> bool {
        match self {
            Self::Up { .. } => true,
            Self::Suspect | Self::Down { .. } => false,
        }
    }
}

/// How all peers are doing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerStates(Arc<BTreeMap<NodeId, PeerState>>);

impl PeerStates {
    /// How one peer is doing; `None` if there is no such peer (the node itself is none).
    #[must_use]
    pub fn get(&self, node: NodeId) -> Option<PeerState> {
        self.0.get(&node).copied()
    }

    /// All peers, by their ids.
    pub fn iter(&self) -> impl Iterator<Item = (NodeId, PeerState)> + '_ {
        self.0.iter().map(|(node, state)| (*node, *state))
    }
}

/// How one connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LaneState {
    /// There is none, and the last attempt ended without being refused.
    Silent,
    /// There is none: TCP refused.
    Refused,
    /// It stands.
    Up(Incarnation),
}

#[derive(Debug, Clone, Copy)]
struct Track {
    lanes: [LaneState; Lane::ALL.len()],
    state: PeerState,
}

/// Collects what the lanes report and tells it to whom it concerns.
#[derive(Debug)]
pub(super) struct States {
    tracks: Mutex<BTreeMap<NodeId, Track>>,
    sender: watch::Sender<PeerStates>,
    up: IntGauge,
}

impl States {
    pub(super) fn new(up: IntGauge) -> Self {
        let sender = watch::Sender::new(PeerStates::default());
        Self { tracks: Mutex::new(BTreeMap::new()), sender, up }
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<PeerStates> {
        self.sender.subscribe()
    }

    pub(super) fn get(&self, node: NodeId) -> Option<PeerState> {
        self.sender.borrow().get(node)
    }

    /// There is a new peer, or it is somewhere else now.
    pub(super) fn add(&self, node: NodeId) {
        let lanes = [LaneState::Silent; Lane::ALL.len()];
        let track = Track { lanes, state: PeerState::Down { refused: false } };
        self.change(|tracks| {
            tracks.insert(node, track);
            true
        });
    }

    pub(super) fn remove(&self, node: NodeId) {
        self.change(|tracks| tracks.remove(&node).is_some());
    }

    /// A lane says how it is doing.
    pub(super) fn report(&self, node: NodeId, lane: Lane, lane_state: LaneState, now: Instant) {
        self.change(|tracks| {
            let Some(track) = tracks.get_mut(&node) else { return false };
            track.lanes[lane.index()] = lane_state;
            let state = next(track, now);
            std::mem::replace(&mut track.state, state) != state
        });
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<NodeId, Track>) -> bool) {
        let mut tracks = self.tracks.lock().unwrap_or_else(PoisonError::into_inner);
        if change(&mut tracks) {
            let states: BTreeMap<_, _> =
                tracks.iter().map(|(node, track)| (*node, track.state)).collect();
            let up = states.values().filter(|state| state.is_up()).count();
            self.up.set(i64::try_from(up).unwrap_or(i64::MAX));
            // With the lock held, so that two changes are told in their order.
            self.sender.send_replace(PeerStates(Arc::new(states)));
        }
    }
}

fn next(track: &Track, now: Instant) -> PeerState {
    let is_up = |lane: &LaneState| matches!(lane, LaneState::Up(_));
    if let LaneState::Up(incarnation) = track.lanes[0]
        && track.lanes.iter().all(|lane| *lane == LaneState::Up(incarnation))
    {
        return match track.state {
            PeerState::Up { incarnation: before, .. } if before == incarnation => track.state,
            PeerState::Up { .. } | PeerState::Suspect | PeerState::Down { .. } => {
                PeerState::Up { since: now, incarnation }
            }
        };
    }
    if track.lanes.contains(&LaneState::Refused) && !track.lanes.iter().any(is_up) {
        return PeerState::Down { refused: true };
    }
    match track.state {
        PeerState::Up { .. } | PeerState::Suspect => PeerState::Suspect,
        PeerState::Down { .. } => PeerState::Down { refused: false },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: NodeId = NodeId(2);

    /// Reports lane states (0 control, 1 data, 2 bulk) one after the other; says which process is up, or why none is.
    fn check(reports: &[(usize, LaneState)], expected: Result<u64, PeerState>) {
        let states = States::new(IntGauge::new("up", "up").unwrap());
        states.add(PEER);
        let now = Instant::now();
        for (lane, state) in reports {
            states.report(PEER, Lane::ALL[*lane], *state, now);
        }
        let state = match states.get(PEER).unwrap() {
            PeerState::Up { incarnation, .. } => Ok(incarnation.0),
            state @ (PeerState::Suspect | PeerState::Down { .. }) => Err(state),
        };
        assert_eq!(state, expected, "{reports:?}");
        assert_eq!(states.up.get() == 1, state.is_ok());
    }

    #[test]
    fn three_lanes_make_a_peer() {
        let (first, second) = (LaneState::Up(Incarnation(1)), LaneState::Up(Incarnation(2)));
        let (silent, refused) = (LaneState::Silent, LaneState::Refused);
        let all = [(0, first), (1, first), (2, first)];
        let after = |more: &[(usize, LaneState)]| [&all, more].concat();
        let never = Err(PeerState::Down { refused: false });
        let dead = Err(PeerState::Down { refused: true });
        let suspect = Err(PeerState::Suspect);
        check(&[], never);
        check(&[(0, refused)], dead);
        check(&[(0, refused), (0, silent)], never);
        check(&[(0, first), (1, first)], never);
        check(&all, Ok(1));
        check(&after(&[(1, silent)]), suspect);
        // The listener is gone, but the process still talks.
        check(&after(&[(1, refused)]), suspect);
        check(&after(&[(0, silent), (1, silent), (2, silent)]), suspect);
        check(&after(&[(0, silent), (1, refused), (2, silent)]), dead);
        // Started again, faster than anybody could look.
        check(&after(&[(0, second)]), suspect);
        check(&after(&[(0, second), (1, second), (2, second)]), Ok(2));
    }
}
